"""Components of the uncertainty of a reference value.

Each is one standard deviation in per cent of the value; their root sum of squares is the
uncertainty of the reference.

``certificate``
    What the certificate states, divided by its coverage factor.
named in the definition (``samples``, ``extrapolation`` ...)
    What the certificate leaves out; the definition says how it was estimated.
``temperature``
    Thermometer uncertainty times the slope; or, where no temperature was given, the rms change of
    the value over the span of temperatures that the definition names.
``interpolation``
    Difference between the smooth curve and straight lines; the whole change where the value is
    extrapolated by up to one degree.
``borrowed temperature dependence``
    Where a certificate has one temperature, the relative change is taken from another table of the
    same sphere.  Relaxation by dissolved ions changes with temperature through the motion of the
    water, which batches share; two batches with a table each differ by a fifth in this change, so a
    fifth of the shift is its uncertainty at the same field.  From another field the shift is only an
    estimate: anything from none to twice the shift is allowed for (rectangular, shift / sqrt 3).
``field``
    A scanner at 2.89 T is judged by a certificate at 3.01 T; the change follows the power law through
    this sphere's certificates at two fields.
``batch``
    Where no serial number was given: rms difference of the other batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cordqa.phantom.conditions import Conditions, other_batches, span_changes, tables_of
from cordqa.phantom.interpolation import Interpolated
from cordqa.phantom.tables import Series, Table

__all__ = ["Component", "components_of"]


#: Two certificates at closer fields than this say nothing about the dependence on field.
MIN_FIELD_RATIO = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One standard uncertainty in per cent of the value, and where it comes from."""

    name: str
    percent: float
    why: str = ""


def components_of(
    scan: Conditions, table: Table, sphere: str, found: Interpolated, borrowed: float
) -> tuple[Component, ...]:
    """Return the components of one value that are not zero, largest first.

    ``found`` and ``borrowed`` are what ``value_at`` returned for this table and sphere.
    """
    series = table.series[sphere, scan.quantity]
    components = [
        Component(
            name="certificate", percent=_certificate(series, scan.temperature_C), why=table.coverage_why
        )
    ]
    components += [
        Component(name=extra.name, percent=extra.percent_of(sphere, scan.quantity), why=extra.why)
        for extra in table.extra_uncertainty
    ]
    components.append(_temperature_component(scan, table, sphere, found))
    components.append(Component(name="interpolation", percent=100 * found.spread))
    components.append(Component(name="borrowed temperature dependence", percent=100 * borrowed))
    components.append(_field_component(scan, table, sphere))
    if scan.batch.assumed:
        others = other_batches(scan, sphere, found.value)
        rms = math.sqrt(float(np.mean(np.square(list(others.values()))))) if others else 0.0
        components.append(Component(name="batch", percent=rms, why=scan.batch.reason))
    kept = [component for component in components if component.percent > 0]
    return tuple(sorted(kept, key=lambda component: -component.percent))


def _certificate(series: Series, temperature_C: float) -> float:
    """Return the stated standard uncertainty in per cent; 0 where none is stated."""
    relative = 100 * series.standard_uncertainties / series.values
    if not np.all(np.isfinite(relative)):
        return 0.0
    at = temperature_C if math.isfinite(temperature_C) else float(series.temperatures_C[0])
    return float(np.interp(at, series.temperatures_C, relative))


def _temperature_component(scan: Conditions, table: Table, sphere: str, found: Interpolated) -> Component:
    if table.temperature_independent or not math.isfinite(found.slope):
        return Component(name="temperature", percent=0.0)
    if not scan.temperature_assumed:
        percent = 100 * abs(found.slope) * scan.temperature_uncertainty_C
        return Component(
            name="temperature",
            percent=percent,
            why=f"{scan.temperature_uncertainty_C:g} C of the thermometer",
        )
    changes = span_changes(scan, table, sphere)
    low, high = scan.definition.temperature.span_C or (math.nan, math.nan)
    rms = math.sqrt(float(np.mean(np.square(changes)))) if changes.size else 0.0
    return Component(name="temperature", percent=rms, why=f"not given; {low:g} to {high:g} C allowed for")


def _field_component(scan: Conditions, table: Table, sphere: str) -> Component:
    """Effect of the difference between the scanner's field and the certificate's."""
    if table.field_strength_T is None or not math.isfinite(scan.field_T):
        return Component(name="field", percent=0.0)
    exponent = _field_exponent(scan, sphere)
    percent = 100 * abs(exponent * math.log(scan.field_T / table.field_T))
    return Component(
        name="field",
        percent=percent,
        why=f"{scan.field_T:g} T judged by a certificate at {table.field_T:g} T",
    )


def _field_exponent(scan: Conditions, sphere: str) -> float:
    """Exponent of the power law through one batch's measured values at two fields; 0 if there are none."""
    measured = [
        t for t in tables_of(scan, sphere, None) if t.status == "measured" and t.field_strength_T is not None
    ]
    for first in measured:
        for second in measured:
            if first.field_T * MIN_FIELD_RATIO < second.field_T and set(first.batches) & set(second.batches):
                pair = (first.series[sphere, scan.quantity], second.series[sphere, scan.quantity])
                common = [t for t in pair[0].temperatures_C if t in pair[1].temperatures_C]
                if common:
                    low, high = (s.values[np.searchsorted(s.temperatures_C, common[0])] for s in pair)
                    return math.log(high / low) / math.log(second.field_T / first.field_T)
    return 0.0
