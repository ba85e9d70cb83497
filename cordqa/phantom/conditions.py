"""Conditions of one scan, and what a phantom definition says for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.phantom.batches import BatchChoice, find_batch
from cordqa.phantom.definition import PhantomDefinition, Plate
from cordqa.phantom.interpolation import Interpolated, interpolate_log
from cordqa.phantom.schema import suggest
from cordqa.phantom.tables import Table

__all__ = [
    "Conditions",
    "donor_of",
    "find_table",
    "other_batches",
    "resolve_conditions",
    "span_changes",
    "tables_of",
    "value_at",
]

#: Scanners named 3 T run at 2.89 to 3.0 T; 5 % holds them and keeps 1.5 T apart.
FIELD_TOLERANCE = 0.05
#: Uncertainty of a borrowed temperature shift, as a fraction of the shift.
BORROWED_SAME_FIELD = 0.2
BORROWED_OTHER_FIELD = 1 / math.sqrt(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What decides a reference value: phantom, plate, batch, field and temperature of one scan."""

    definition: PhantomDefinition
    plate: Plate
    quantity: str
    batch: BatchChoice
    field_T: float
    temperature_C: float
    temperature_assumed: bool
    temperature_uncertainty_C: float


def resolve_conditions(
    definition: PhantomDefinition,
    plate_id: str | int,
    quantity: str,
    field_strength_T: float,
    temperature_C: float | None,
    serial: str | int | None,
    batch: str | None,
    temperature_uncertainty_C: float,
) -> Conditions:
    """Resolve what was given about a scan; see ``reference_values`` for the arguments and errors."""
    plate = definition.plate(plate_id)
    if quantity not in plate.quantities:
        raise ConfigError(
            f"has no reference for {str(quantity)[:40]!r}{suggest(str(quantity), plate.quantities)}",
            where=f"{definition.name}, {plate.name}",
            expected=f"one of {', '.join(plate.quantities)}",
        )
    if not (math.isfinite(temperature_uncertainty_C) and temperature_uncertainty_C >= 0):
        raise ConfigError(
            "is not a usable uncertainty",
            where="temperature uncertainty",
            found=f"{temperature_uncertainty_C}",
        )
    assumed = temperature_C is None or math.isnan(temperature_C)
    fallback = math.nan if definition.temperature.assumed_C is None else definition.temperature.assumed_C
    return Conditions(
        definition=definition,
        plate=plate,
        quantity=quantity,
        batch=find_batch(definition, serial, batch=batch),
        field_T=float(field_strength_T),
        temperature_C=fallback if assumed or temperature_C is None else float(temperature_C),
        temperature_assumed=assumed,
        temperature_uncertainty_C=float(temperature_uncertainty_C),
    )


def find_table(scan: Conditions, sphere: str, batch: str) -> Table | None:
    """Find the certificate of one sphere at the field of the scan."""
    candidates = [t for t in tables_of(scan, sphere, batch) if _same_field(t.field_strength_T, scan.field_T)]
    return min(
        candidates, key=lambda t: abs((t.field_strength_T or scan.field_T) - scan.field_T), default=None
    )


def tables_of(scan: Conditions, sphere: str, batch: str | None) -> list[Table]:
    """Return the certificates of one sphere, of one batch or (``None``) of all."""
    return [
        table
        for table in scan.definition.tables
        if table.plate == scan.plate.id
        and (batch is None or batch in table.batches)
        and (sphere, scan.quantity) in table.series
    ]


def _same_field(nominal_T: float | None, field_T: float) -> bool:
    if nominal_T is None:
        return True
    return math.isfinite(field_T) and abs(field_T - nominal_T) <= FIELD_TOLERANCE * nominal_T


def value_at(
    definition: PhantomDefinition, table: Table, sphere: str, quantity: str, temperature_C: float
) -> tuple[Interpolated, float]:
    """Evaluate a table at one temperature; the second number is the borrowed relative shift's uncertainty."""
    series = table.series[sphere, quantity]
    if table.temperature_independent:
        return Interpolated(float(series.values[0]), 0.0, 0.0, "tabulated"), 0.0
    donor = donor_of(definition, table, sphere, quantity) if series.values.size == 1 else None
    if donor is None:
        return interpolate_log(series.temperatures_C, series.values, temperature_C), 0.0
    other = donor.series[sphere, quantity]
    here = interpolate_log(other.temperatures_C, other.values, temperature_C)
    there = interpolate_log(other.temperatures_C, other.values, float(series.temperatures_C[0]))
    ratio = here.value / there.value
    if math.isnan(ratio):
        return here, 0.0
    exact = temperature_C == series.temperatures_C[0]
    fraction = (
        BORROWED_SAME_FIELD if donor.field_strength_T == table.field_strength_T else BORROWED_OTHER_FIELD
    )
    value = float(series.values[0]) * (1.0 if exact else ratio)
    method = "tabulated" if exact else "borrowed"
    return Interpolated(value, here.slope, here.spread, method), 0.0 if exact else fraction * abs(
        math.log(ratio)
    )


def donor_of(definition: PhantomDefinition, table: Table, sphere: str, quantity: str) -> Table | None:
    """Find the table that lends its temperature dependence."""
    tables = (definition.table(table_id) for table_id in table.temperature_from)
    return next(
        (t for t in tables if (sphere, quantity) in t.series and t.series[sphere, quantity].values.size > 1),
        None,
    )


def span_changes(scan: Conditions, table: Table, sphere: str, points: int = 13) -> NDArray[np.float64]:
    """Per cent change from the assumed temperature at temperatures spread evenly over the span."""
    span, assumed = scan.definition.temperature.span_C, scan.definition.temperature.assumed_C
    if span is None or assumed is None:
        return np.empty(0)
    centre = value_at(scan.definition, table, sphere, scan.quantity, assumed)[0].value
    values = np.array(
        [
            value_at(scan.definition, table, sphere, scan.quantity, t)[0].value
            for t in np.linspace(*span, points)
        ]
    )
    changes = 100 * (values / centre - 1)
    return changes[np.isfinite(changes)]


def other_batches(scan: Conditions, sphere: str, value: float) -> dict[str, float]:
    """Per cent by which the value of each other batch differs at the same conditions."""
    differences: dict[str, float] = {}
    for batch in scan.definition.batch_ids:
        table = find_table(scan, sphere, batch)
        if batch == scan.batch.batch or table is None:
            continue
        other = value_at(scan.definition, table, sphere, scan.quantity, scan.temperature_C)[0].value
        if math.isfinite(other) and math.isfinite(value):
            differences[batch] = 100 * (other / value - 1)
    return differences
