"""How much a reference value depends on what may not be known: temperature and batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cordqa.phantom.conditions import Conditions, find_table, other_batches, resolve_conditions, value_at
from cordqa.phantom.definition import PhantomDefinition

__all__ = ["BatchEffect", "TemperatureEffect", "batch_effect", "temperature_effect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureEffect:
    """What temperature does to the reference of one sphere.

    ``low_percent`` and ``high_percent`` are the changes at the ends of ``span_C`` relative to the
    value at ``temperature_C``; ``largest_percent`` is the largest absolute change within the span.
    All are NaN where no certificate says.
    """

    sphere: str
    temperature_C: float
    percent_per_C: float
    span_C: tuple[float, float]
    low_percent: float
    high_percent: float
    largest_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEffect:
    """By how many per cent the reference of one sphere differs in the other batches."""

    sphere: str
    batch: str
    percent: Mapping[str, float]

    @property
    def largest_percent(self) -> float:
        """Difference with the largest absolute value; 0 where no other batch has a certificate."""
        return max(self.percent.values(), key=abs, default=0.0)


def temperature_effect(
    definition: PhantomDefinition,
    plate: str | int,
    quantity: str,
    *,
    field_strength_T: float,
    temperature_C: float | None = None,
    serial: str | int | None = None,
    batch: str | None = None,
    span_C: tuple[float, float] | None = None,
) -> tuple[TemperatureEffect, ...]:
    """Return the effect of temperature on every sphere of a plate.

    Parameters
    ----------
    definition, plate, quantity, field_strength_T, temperature_C, serial, batch
        As for ``reference_values``.
    span_C : (float, float), optional
        Temperatures between which the change is given; by default the span of the definition.

    Returns
    -------
    tuple of TemperatureEffect
        In the order of the plate's spheres; changes in per cent (per degree C for the slope).
    """
    scan = resolve_conditions(
        definition, plate, quantity, field_strength_T, temperature_C, serial, batch, 0.0
    )
    span = span_C or definition.temperature.span_C or (math.nan, math.nan)
    return tuple(_temperature(scan, sphere, span) for sphere in scan.plate.sphere_ids)


def _temperature(scan: Conditions, sphere: str, span: tuple[float, float]) -> TemperatureEffect:
    table = find_table(scan, sphere, scan.batch.batch)
    slope, changes = math.nan, np.full(13, math.nan)
    if table is not None and table.temperature_independent:
        slope, changes = 0.0, np.zeros(13)
    elif table is not None:
        here, *there = (
            value_at(scan.definition, table, sphere, scan.quantity, t)[0]
            for t in (scan.temperature_C, *np.linspace(*span, 13))
        )
        values = np.array([point.value for point in there])
        slope, changes = 100 * here.slope, 100 * (values / here.value - 1)
    finite = changes[np.isfinite(changes)]
    return TemperatureEffect(
        sphere=sphere,
        temperature_C=scan.temperature_C,
        percent_per_C=slope,
        span_C=span,
        low_percent=float(changes[0]),
        high_percent=float(changes[-1]),
        largest_percent=float(np.max(np.abs(finite))) if finite.size else math.nan,
    )


def batch_effect(
    definition: PhantomDefinition,
    plate: str | int,
    quantity: str,
    *,
    field_strength_T: float,
    temperature_C: float | None = None,
    serial: str | int | None = None,
    batch: str | None = None,
) -> tuple[BatchEffect, ...]:
    """Return how the references of the other batches differ, for every sphere of a plate.

    The arguments are those of ``reference_values``.  The difference is ``other / used - 1`` in per
    cent, at the same field and temperature.
    """
    scan = resolve_conditions(
        definition, plate, quantity, field_strength_T, temperature_C, serial, batch, 0.0
    )
    effects = []
    for sphere in scan.plate.sphere_ids:
        table = find_table(scan, sphere, scan.batch.batch)
        value = math.nan
        if table is not None:
            value = value_at(scan.definition, table, sphere, scan.quantity, scan.temperature_C)[0].value
        effects.append(
            BatchEffect(sphere=sphere, batch=scan.batch.batch, percent=other_batches(scan, sphere, value))
        )
    return tuple(effects)
