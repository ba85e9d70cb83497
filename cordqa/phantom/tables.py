"""Tables of certified values, as they stand on a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cordqa.phantom.schema import (
    MAX_ITEMS,
    Identifier,
    Identifiers,
    Positive,
    Strict,
    Temperature,
    Text,
    check_known,
    check_quantity,
    check_unique,
    problem,
)

__all__ = ["ExtraUncertainty", "Series", "Table"]

#: Values and uncertainties in the unit of their quantity; nothing that is measured is outside.
_SMALLEST, _LARGEST = 1e-6, 1e9
_MAX_PERCENT = 1000.0
_Percent = Annotated[float, Field(strict=True, gt=0, le=_MAX_PERCENT)]
_Rows = Annotated[tuple[tuple[Any, ...], ...], Field(min_length=1, max_length=MAX_ITEMS)]


class Series(NamedTuple):
    """Certified values of one sphere and quantity, by temperature.

    ``standard_uncertainties`` are one standard deviation, NaN where none is published.
    """

    temperatures_C: NDArray[np.float64]
    values: NDArray[np.float64]
    standard_uncertainties: NDArray[np.float64]


class ExtraUncertainty(Strict):
    """A component that a certificate leaves out: one standard uncertainty in per cent of the value.

    Either ``percent`` by quantity, or ``columns`` and ``rows`` by sphere.
    """

    name: Text
    why: Text
    percent: Annotated[dict[Identifier, _Percent], Field(max_length=10, default_factory=dict)]
    columns: Identifiers = ()
    rows: Annotated[tuple[tuple[Any, ...], ...], Field(max_length=MAX_ITEMS)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ExtraUncertainty:
        if bool(self.percent) == bool(self.rows):
            raise problem("give either percent or columns with rows")
        if self.rows:
            _ = self.by_sphere
        return self

    @cached_property
    def by_sphere(self) -> dict[tuple[str, str], float]:
        """Per cent by sphere and quantity."""
        table: dict[tuple[str, str], float] = {}
        for spheres, cells in _read_rows(self.columns, self.rows):
            for sphere in spheres:
                for name, cell in cells.items():
                    if cell is None or not 0 < cell <= _MAX_PERCENT:
                        raise problem(f"sphere {sphere}: {name} is not between 0 and {_MAX_PERCENT:g} %")
                    if (sphere, name) in table:
                        raise problem(f"sphere {sphere} is given twice")
                    table[sphere, name] = cell
        return table

    def percent_of(self, sphere: str, quantity: str) -> float:
        """Return the component for one sphere and quantity; 0 where it says nothing of them."""
        if self.rows:
            return self.by_sphere.get((sphere, quantity), 0.0)
        return self.percent.get(quantity, 0.0)


class Table(Strict):
    """One certificate: values by sphere, and by temperature where measured at several."""

    id: Identifier
    plate: Identifier
    batches: Annotated[Identifiers, Field(min_length=1)]
    field_strength_T: Positive | None
    measured_field_T: Positive | None = None
    temperature_C: Temperature | None = None
    temperature_independent: Annotated[bool, Field(strict=True)] = False
    temperature_from: Identifiers = ()
    status: Literal["measured", "extrapolated", "nominal"]
    coverage_factor: Annotated[float, Field(strict=True, ge=1, le=10)] = 1.0
    coverage_why: Text = ""
    source: Identifier
    units: Annotated[dict[Identifier, Text], Field(min_length=1, max_length=10)]
    columns: Annotated[Identifiers, Field(min_length=2)]
    rows: _Rows
    extra_uncertainty: Annotated[tuple[ExtraUncertainty, ...], Field(max_length=20)] = ()

    @property
    def field_T(self) -> float:
        """Field at which the values hold (the measured one where it is stated); NaN for any."""
        field = self.measured_field_T or self.field_strength_T
        return float("nan") if field is None else field

    @property
    def sphere_ids(self) -> tuple[str, ...]:
        """Spheres of this table, in its order."""
        return tuple(dict.fromkeys(sphere for sphere, _ in self.series))

    @cached_property
    def series(self) -> dict[tuple[str, str], Series]:
        """Values by sphere and quantity."""
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for spheres, cells in _read_rows(self.columns, self.rows):
            temperature = self.temperature_C if self.temperature_C is not None else cells.get("temperature_C")
            for sphere in spheres:
                for quantity in self.units:
                    point = self._point(sphere, quantity, temperature, cells)
                    found.setdefault((sphere, quantity), []).append(point)
        return {key: _series(key, points) for key, points in found.items()}

    def _point(
        self, sphere: str, quantity: str, temperature: float | None, cells: dict[str, float | None]
    ) -> tuple[float, float, float]:
        value, uncertainty = cells.get(quantity), cells.get(f"u_{quantity}")
        if temperature is None or not -20 <= temperature <= 60:
            raise problem(f"sphere {sphere}: the temperature is not a number between -20 and 60 C")
        if value is None or value < _SMALLEST or (uncertainty is not None and uncertainty < _SMALLEST):
            raise problem(f"sphere {sphere}: {quantity} and its uncertainty must be positive")
        return temperature, value, float("nan") if uncertainty is None else uncertainty / self.coverage_factor

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        for quantity, unit in self.units.items():
            if unit != check_quantity(quantity):
                raise problem(f"the unit of {quantity} is {check_quantity(quantity)!r}, not {unit!r}")
        allowed = {"sphere", "temperature_C", *self.units, *(f"u_{q}" for q in self.units)}
        check_known(self.columns, allowed, "columns")
        check_known(self.units, self.columns, "units")
        if ("temperature_C" in self.columns) == (self.temperature_C is not None):
            raise problem("give the temperature either as temperature_C of the table or as a column")
        _ = self.series
        return self


def _read_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> list[tuple[tuple[str, ...], dict[str, float | None]]]:
    """Read table rows into (spheres, value by column); the first cell is a sphere or a list of them."""
    check_unique(columns, "column")
    if not columns or columns[0] != "sphere":
        raise problem("the first column must be 'sphere'")
    read = []
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise problem(f"rows[{number}] has {len(row)} cells for {len(columns)} columns")
        spheres = row[0] if isinstance(row[0], (list, tuple)) else (row[0],)
        if not spheres or len(spheres) > 200 or not all(_is_id(sphere) for sphere in spheres):
            raise problem(f"rows[{number}] does not begin with a sphere or a list of spheres")
        for name, cell in zip(columns[1:], row[1:], strict=True):
            if not (_is_number(cell) or (cell is None and name.startswith("u_"))):
                raise problem(f"rows[{number}]: {name} is {str(cell)[:40]!r}, not a finite number")
        cells = {
            name: None if cell is None else float(cell)
            for name, cell in zip(columns[1:], row[1:], strict=True)
        }
        read.append((tuple(str(sphere) for sphere in spheres), cells))
    return read


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and 0 < len(str(value)) <= 64


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def _series(key: tuple[str, str], points: list[tuple[float, float, float]]) -> Series:
    temperatures, values, uncertainties = (
        np.array(column, dtype=float) for column in zip(*points, strict=True)
    )
    if np.any(np.diff(temperatures) <= 0):
        raise problem(f"sphere {key[0]}: the temperatures do not rise (or the sphere is given twice)")
    return Series(temperatures, values, uncertainties)
