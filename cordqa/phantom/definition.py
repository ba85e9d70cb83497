"""What a phantom is: geometry, batches, certified values and their sources, read from YAML.

A phantom is a file in ``phantoms/`` and no code; ``docs/phantoms.md`` explains how to write one.
The models here check everything that a table of numbers can get wrong (a sphere that does not
exist, two certificates for one sphere, a source that is not listed, a unit of another quantity),
so that what reads them need not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cordqa.errors import DefinitionError
from cordqa.phantom.schema import (
    MAX_ITEMS,
    Finite,
    Identifier,
    Identifiers,
    Positive,
    Strict,
    Temperature,
    Text,
    check_known,
    check_quantity,
    check_unique,
    load_model,
    problem,
    suggest,
)
from cordqa.phantom.tables import ExtraUncertainty, Series, Table
from cordqa.resources import list_resources, resource_path

__all__ = [
    "Batch",
    "Contents",
    "Disagreement",
    "ExtraUncertainty",
    "Fiducials",
    "Formula",
    "PhantomDefinition",
    "Plate",
    "Selector",
    "Serial",
    "Series",
    "Source",
    "Table",
    "list_phantoms",
    "load_phantom",
]

#: A phantom fits into a scanner.
_MAX_COORDINATE_MM = 1000.0
_Coordinate = Annotated[float, Field(strict=True, ge=-_MAX_COORDINATE_MM, le=_MAX_COORDINATE_MM)]
_Position = tuple[Identifier, _Coordinate, _Coordinate, _Coordinate]
_SerialNumber = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]


class Source(Strict):
    """Where figures come from; ``via`` says through whom, where the original was not read."""

    id: Identifier
    citation: Text
    doi: Text = ""
    via: Text = ""

    @property
    def text(self) -> str:
        """Citation with DOI, for reports."""
        return f"{self.citation} doi:{self.doi}" if self.doi else self.citation


class Serial(Strict):
    """How serial numbers look: ``130-0042`` has prefix 130 and four digits."""

    prefixes: Annotated[tuple[Identifier, ...], Field(max_length=20)] = ()
    digits: Annotated[int, Field(strict=True, ge=1, le=9)] = 4
    example: Text = ""


class Batch(Strict):
    """Phantoms that share a certificate, by range of serial numbers (both ends included)."""

    id: Identifier
    first_serial: _SerialNumber
    last_serial: _SerialNumber | None = None
    note: Text = ""

    def contains(self, number: int) -> bool:
        """Tell whether a serial number belongs to this batch."""
        return self.first_serial <= number and (self.last_serial is None or number <= self.last_serial)


class TemperatureDefault(Strict):
    """What to assume where no temperature is given; ``assumed_C: null`` assumes nothing."""

    assumed_C: Temperature | None = None
    span_C: tuple[Temperature, Temperature] | None = None
    why: Text = ""

    @model_validator(mode="after")
    def _span_holds_assumption(self) -> TemperatureDefault:
        if self.assumed_C is not None and self.span_C is None:
            raise problem("an assumed temperature needs span_C, the range in which the truth may lie")
        if self.assumed_C is not None and self.span_C is not None:
            low, high = self.span_C
            if not low <= self.assumed_C <= high or low == high:
                raise problem(f"span_C [{low:g}, {high:g}] does not enclose assumed_C {self.assumed_C:g}")
        return self


class Plate(Strict):
    """A set of spheres (or vials) in one plane.

    ``noun`` is what one of them is called.  Where no source gives the inner diameter, the range in
    which it may lie lets it be measured in the image.
    """

    id: Identifier
    name: Text
    noun: Literal["sphere", "vial"] = "sphere"
    substance: Text = ""
    quantities: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=10)]
    reference_sphere: Identifier | None = None
    plane_axes: tuple[Literal["x", "y", "z"], Literal["x", "y", "z"]]
    inner_diameter_mm: Positive | None
    outer_diameter_mm: Positive | None
    inner_diameter_range_mm: tuple[Positive, Positive] | None = None
    source: Identifier
    spheres: Annotated[tuple[_Position, ...], Field(min_length=1, max_length=200)]

    @property
    def sphere_ids(self) -> tuple[str, ...]:
        """Identifiers in the order of the file."""
        return tuple(row[0] for row in self.spheres)

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Centres, shape (n, 3), in the axes of the definition."""
        return np.array([row[1:] for row in self.spheres], dtype=float)

    @property
    def plane_positions_mm(self) -> NDArray[np.float64]:
        """Centres within the plane of the plate, shape (n, 2), in the order of ``plane_axes``."""
        return self.positions_mm[:, ["xyz".index(axis) for axis in self.plane_axes]]

    @model_validator(mode="after")
    def _consistent(self) -> Plate:
        check_unique(self.sphere_ids, "sphere")
        for quantity in self.quantities:
            check_quantity(quantity)
        if self.reference_sphere is not None:
            check_known([self.reference_sphere], self.sphere_ids, "reference_sphere")
        if self.plane_axes[0] == self.plane_axes[1]:
            raise problem("plane_axes names one axis twice")
        if (
            self.inner_diameter_mm
            and self.outer_diameter_mm
            and self.inner_diameter_mm > self.outer_diameter_mm
        ):
            raise problem("inner_diameter_mm exceeds outer_diameter_mm")
        if self.inner_diameter_range_mm is not None:
            if self.inner_diameter_mm is not None:
                raise problem("give either inner_diameter_mm or inner_diameter_range_mm")
            if self.inner_diameter_range_mm[0] >= self.inner_diameter_range_mm[1]:
                raise problem("inner_diameter_range_mm must be [smallest, largest]")
        if len(np.unique(self.plane_positions_mm, axis=0)) < len(self.spheres):
            raise problem("two spheres have the same place in the plane")
        return self


class Fiducials(Strict):
    """Small spheres on a lattice, for geometry."""

    inner_diameter_mm: Positive
    source: Identifier
    absent: Identifiers = ()
    spheres: Annotated[tuple[_Position, ...], Field(min_length=1, max_length=1000)]

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Centres of the spheres that are present, shape (n, 3)."""
        return np.array([row[1:] for row in self.spheres if row[0] not in self.absent], dtype=float)

    @model_validator(mode="after")
    def _consistent(self) -> Fiducials:
        ids = [row[0] for row in self.spheres]
        check_unique(ids, "fiducial")
        check_known(self.absent, ids, "absent")
        return self


class Contents(Strict):
    """What is in the spheres: rows of sphere and amount."""

    plate: Identifier
    batches: Annotated[Identifiers, Field(min_length=1)]
    what: Text
    unit: Text
    source: Identifier
    rows: Annotated[tuple[tuple[Identifier, Finite], ...], Field(min_length=1, max_length=MAX_ITEMS)]

    @model_validator(mode="after")
    def _consistent(self) -> Contents:
        check_unique([row[0] for row in self.rows], "sphere")
        if any(row[1] < 0 for row in self.rows):
            raise problem("an amount is negative")
        return self


class WaterDiffusion(Strict):
    """Speedy-Angell power law D = D0 (T / Ts - 1)^gamma with T in kelvin."""

    source: Identifier
    D0_um2_per_s: Positive
    Ts_K: Positive
    gamma: Positive


class Formula(Strict):
    """A named model for solutions that no table covers; see ``formula_value``."""

    id: Identifier
    quantity: Identifier
    kind: Literal["water-scaled polynomial", "exponential in temperature"]
    what: Text
    source: Identifier
    polynomial: Annotated[tuple[Finite, ...], Field(max_length=10)] = ()
    water: WaterDiffusion | None = None
    reference_temperature_C: Temperature | None = None
    coefficients: Annotated[tuple[tuple[Finite, Positive, Finite], ...], Field(max_length=100)] = ()
    valid_content: tuple[Finite, Finite] | None = None
    valid_temperature_C: tuple[Temperature, Temperature] | None = None
    accuracy: Positive | None

    @model_validator(mode="after")
    def _consistent(self) -> Formula:
        check_quantity(self.quantity)
        if self.kind == "water-scaled polynomial" and not (self.polynomial and self.water):
            raise problem("a water-scaled polynomial needs polynomial and water")
        if self.kind == "exponential in temperature" and (
            not self.coefficients or self.reference_temperature_C is None
        ):
            raise problem("an exponential in temperature needs coefficients and reference_temperature_C")
        return self


class Selector(Strict):
    """Which values something concerns; what is left out selects all."""

    plates: Identifiers = ()
    batches: Identifiers = ()
    quantities: Identifiers = ()
    field_strengths_T: Annotated[tuple[Positive, ...], Field(max_length=20)] = ()
    spheres: Identifiers = ()

    def matches(
        self, *, plate: str, batch: str, quantity: str, field_strength_T: float | None, sphere: str
    ) -> bool:
        """Tell whether a value is selected."""
        return (
            (not self.plates or plate in self.plates)
            and (not self.batches or batch in self.batches)
            and (not self.quantities or quantity in self.quantities)
            and (not self.field_strengths_T or field_strength_T in self.field_strengths_T)
            and (not self.spheres or sphere in self.spheres)
        )


class Disagreement(Strict):
    """What sources disagree on, which is used, and why."""

    id: Identifier
    what: Text
    sources: Identifiers
    used: Text
    why: Text
    note: Text
    doubtful: Annotated[bool, Field(strict=True)] = False
    affects: Annotated[tuple[Selector, ...], Field(max_length=50)]


class PhantomDefinition(Strict):
    """A phantom."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    id: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    name: Text
    description: Text = ""
    axes: Text = ""
    shell_inner_diameter_mm: Positive | None = None
    shell_source: Identifier | None = None
    serial: Serial = Serial()
    batches: Annotated[tuple[Batch, ...], Field(min_length=1, max_length=100)]
    assumed_batch: Identifier
    assumed_batch_why: Text = ""
    temperature: TemperatureDefault = TemperatureDefault()
    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=200)]
    plates: Annotated[tuple[Plate, ...], Field(min_length=1, max_length=50)]
    fiducials: Fiducials | None = None
    contents: Annotated[tuple[Contents, ...], Field(max_length=200)] = ()
    tables: Annotated[tuple[Table, ...], Field(min_length=1, max_length=200)]
    models: Annotated[tuple[Formula, ...], Field(max_length=50)] = ()
    disagreements: Annotated[tuple[Disagreement, ...], Field(max_length=200)] = ()

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """Identifiers of the batches in the order of the file."""
        return tuple(batch.id for batch in self.batches)

    @property
    def plate_ids(self) -> tuple[str, ...]:
        """Identifiers of the plates in the order of the file."""
        return tuple(plate.id for plate in self.plates)

    def plate(self, plate_id: str | int) -> Plate:
        """Return one plate.

        Raises
        ------
        DefinitionError
            If the phantom has no such plate.
        """
        for plate in self.plates:
            if plate.id == str(plate_id):
                return plate
        raise DefinitionError(
            f"has no plate {str(plate_id)!r}", where=self.name, expected=f"one of {', '.join(self.plate_ids)}"
        )

    def source(self, source_id: str) -> Source:
        """Return one source; a validated definition has every source that it names."""
        return next(source for source in self.sources if source.id == source_id)

    def table(self, table_id: str) -> Table:
        """Return one table by its id."""
        return next(table for table in self.tables if table.id == table_id)

    @model_validator(mode="after")
    def _consistent(self) -> PhantomDefinition:
        for noun, ids in (
            ("source", [s.id for s in self.sources]),
            ("plate", self.plate_ids),
            ("batch", self.batch_ids),
            ("table", [t.id for t in self.tables]),
            ("model", [m.id for m in self.models]),
            ("disagreement", [d.id for d in self.disagreements]),
        ):
            check_unique(ids, noun)
        _check_batches(self)
        _check_sources(self)
        _check_tables(self)
        _check_contents(self)
        _check_selectors(self)
        return self


def list_phantoms() -> list[str]:
    """List the phantoms that cordqa ships, by the names that :func:`load_phantom` takes."""
    return list_resources("phantoms")


def load_phantom(name_or_path: str | Path) -> PhantomDefinition:
    """Load a phantom definition.

    Parameters
    ----------
    name_or_path : str or Path
        A name from :func:`list_phantoms`, or the path of a YAML file.

    Raises
    ------
    DefinitionError
        If it is not found or not valid; the message names file, line and place.

    Examples
    --------
    >>> load_phantom("caliber-system").plate(5).sphere_ids[:3]
    ('1', '2', '3')
    """
    known = list_phantoms()
    if str(name_or_path) in known:
        path = resource_path("phantoms", f"{name_or_path}.yaml")
    else:
        path = Path(name_or_path)
        if path.suffix.lower() not in {".yaml", ".yml"}:
            raise DefinitionError(
                f"no phantom is called {str(name_or_path)!r}{suggest(str(name_or_path), known)}",
                expected=f"one of {', '.join(known)}, or a .yaml file",
            )
    return load_model(path, PhantomDefinition, noun="phantom definition")


def _check_batches(definition: PhantomDefinition) -> None:
    check_known([definition.assumed_batch], definition.batch_ids, "assumed_batch")
    previous: Batch | None = None
    for batch in definition.batches:
        if batch.last_serial is not None and batch.last_serial < batch.first_serial:
            raise problem(f"batch {batch.id!r} ends before it begins")
        if previous is not None and (
            previous.last_serial is None or batch.first_serial <= previous.last_serial
        ):
            raise problem(f"batch {batch.id!r} overlaps batch {previous.id!r}")
        previous = batch


def _check_sources(definition: PhantomDefinition) -> None:
    known = [source.id for source in definition.sources]
    named = [(f"plate {p.id}", p.source) for p in definition.plates]
    named += [(f"table {t.id}", t.source) for t in definition.tables]
    named += [(f"contents of plate {c.plate}", c.source) for c in definition.contents]
    named += [(f"model {m.id}", m.source) for m in definition.models]
    named += [(f"model {m.id}", m.water.source) for m in definition.models if m.water]
    named += [(f"disagreement {d.id}", s) for d in definition.disagreements for s in d.sources]
    if definition.shell_source is not None:
        named.append(("shell_source", definition.shell_source))
    if definition.fiducials:
        named.append(("fiducials", definition.fiducials.source))
    for where, source in named:
        check_known([source], known, f"{where}: source")


def _check_tables(definition: PhantomDefinition) -> None:
    """Every table fits its plate, and no value is certified twice."""
    table_ids = [table.id for table in definition.tables]
    owner: dict[tuple[str, str, str, float | None, str], str] = {}
    for table in definition.tables:
        where = f"table {table.id}"
        check_known([table.plate], definition.plate_ids, where)
        plate = definition.plate(table.plate)
        check_known(table.batches, definition.batch_ids, where)
        check_known(table.units, plate.quantities, where)
        check_known(table.sphere_ids, plate.sphere_ids, f"{where}: sphere")
        check_known(table.temperature_from, table_ids, f"{where}: temperature_from")
        for extra in table.extra_uncertainty:
            check_known(extra.percent, table.units, f"{where}: {extra.name}")
            check_known(
                {q for _, q in extra.by_sphere} if extra.rows else (), table.units, f"{where}: {extra.name}"
            )
        for sphere, quantity in table.series:
            for batch in table.batches:
                key = (table.plate, batch, quantity, table.field_strength_T, sphere)
                if key in owner:
                    what = f"{quantity} of sphere {sphere}, batch {batch}"
                    raise problem(f"{where}: {what}, is also in table {owner[key]}")
                owner[key] = table.id


def _check_contents(definition: PhantomDefinition) -> None:
    seen: set[tuple[str, str, str, str]] = set()
    for contents in definition.contents:
        where = f"contents of plate {contents.plate}"
        check_known([contents.plate], definition.plate_ids, "contents")
        check_known(contents.batches, definition.batch_ids, where)
        spheres = [row[0] for row in contents.rows]
        check_known(spheres, definition.plate(contents.plate).sphere_ids, f"{where}: sphere")
        for batch in contents.batches:
            for sphere in spheres:
                key = (contents.plate, batch, contents.what, sphere)
                if key in seen:
                    raise problem(
                        f"{where}: {contents.what} of sphere {sphere}, batch {batch}, is given twice"
                    )
                seen.add(key)


def _check_selectors(definition: PhantomDefinition) -> None:
    fields = {table.field_strength_T for table in definition.tables}
    for disagreement in definition.disagreements:
        where = f"disagreement {disagreement.id}"
        for selector in disagreement.affects:
            check_known(selector.plates, definition.plate_ids, f"{where}: plates")
            check_known(selector.batches, definition.batch_ids, f"{where}: batches")
            plates = [definition.plate(p) for p in selector.plates] or definition.plates
            check_known(
                selector.quantities, {q for p in plates for q in p.quantities}, f"{where}: quantities"
            )
            check_known(selector.spheres, {s for p in plates for s in p.sphere_ids}, f"{where}: spheres")
            for field in selector.field_strengths_T:
                if field not in fields:
                    raise problem(f"{where}: no table has field_strength_T {field:g}")
