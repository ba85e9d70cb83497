"""Reference values of a phantom for one scan: batch, field, temperature, and how uncertain they are.

Where nothing can be said the value is NaN with a reason, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cordqa.phantom.batches import BatchChoice, find_batch, parse_serial
from cordqa.phantom.conditions import (
    Conditions,
    donor_of,
    find_table,
    resolve_conditions,
    tables_of,
    value_at,
)
from cordqa.phantom.definition import PhantomDefinition
from cordqa.phantom.effects import BatchEffect, TemperatureEffect, batch_effect, temperature_effect
from cordqa.phantom.formula import formula_value
from cordqa.phantom.tables import Table
from cordqa.phantom.uncertainty import Component, components_of
from cordqa.quantities import get_quantity
from cordqa.records import Measurement, Notice, Severity

__all__ = [
    "BatchChoice",
    "BatchEffect",
    "Component",
    "ReferenceValue",
    "TemperatureEffect",
    "attach_reference",
    "batch_effect",
    "contents_of",
    "find_batch",
    "formula_value",
    "parse_serial",
    "reference_notices",
    "reference_values",
    "temperature_effect",
]

#: Standard uncertainty of a phantom thermometer read by eye (a choice of cordqa).
THERMOMETER_C = 0.5
#: Coverage factor of expanded uncertainties: about 95 %.
COVERAGE = 2.0

#: Effects of what is not known are listed from this size on.
NOTABLE_PERCENT = 1.0

ASSUMED_BATCH = "batch assumed"
ASSUMED_TEMPERATURE = "temperature assumed"
METHOD_FLAGS = {
    "borrowed": "temperature dependence borrowed",
    "extrapolated": "temperature outside the certificate",
    "held": "temperature dependence not known",
}
CALCULATED = "reference calculated, not measured"
DOUBTFUL = "reference doubtful"
REFERENCE_SPHERE = "reference sphere"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue:
    """What a sphere should measure, and how well that is known.

    Attributes
    ----------
    value, standard_uncertainty : float
        In ``unit`` (ms for relaxation times); NaN with a ``reason`` where there is none.
    components : tuple of Component
        What the uncertainty is made of, largest first.
    temperature_C : float
        Temperature at which the value holds; NaN where the value does not depend on it.
    percent_per_C : float
        Change of the value per degree.
    method : str
        How the value follows from the certificate's temperatures: ``"tabulated"``,
        ``"interpolated"``, ``"extrapolated"``, ``"borrowed"``, ``"held"`` or ``"out of range"``.
    flags : tuple of str
        Short marks such as ``"batch assumed"``; ``notes`` are sentences for the reader.
    """

    plate: str
    sphere: str
    quantity: str
    unit: str
    value: float = math.nan
    standard_uncertainty: float = math.nan
    components: tuple[Component, ...] = ()
    batch: str = ""
    field_strength_T: float = math.nan
    temperature_C: float = math.nan
    percent_per_C: float = math.nan
    method: str = ""
    status: str = ""
    source: str = ""
    source_id: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def expanded_uncertainty(self) -> float:
        """Uncertainty with coverage factor 2 (about 95 %)."""
        return COVERAGE * self.standard_uncertainty

    @property
    def uncertainty_percent(self) -> float:
        """One standard uncertainty in per cent of the value."""
        return 100 * self.standard_uncertainty / self.value if self.value else 0.0


def reference_values(
    definition: PhantomDefinition,
    plate: str | int,
    quantity: str,
    *,
    field_strength_T: float,
    temperature_C: float | None = None,
    serial: str | int | None = None,
    batch: str | None = None,
    temperature_uncertainty_C: float = THERMOMETER_C,
) -> tuple[ReferenceValue, ...]:
    """Return the reference value of every sphere of a plate.

    Parameters
    ----------
    definition : PhantomDefinition
        The phantom.
    plate : str or int
        Plate identifier.
    quantity : str
        Identifier from the registry, for example ``"T1"``.
    field_strength_T : float
        Field of the scanner as its header states it; within 5 % of a certificate's field.
    temperature_C : float, optional
        Temperature of the phantom.  ``None`` or NaN: the default of the definition is assumed, and
        the uncertainty widened; where the definition assumes none, there is no reference.
    serial, batch : str, optional
        Serial number, or the batch itself; see :func:`find_batch`.
    temperature_uncertainty_C : float
        One standard uncertainty of ``temperature_C``.

    Returns
    -------
    tuple of ReferenceValue
        In the order of the plate's spheres.  A sphere without a usable certificate has a NaN value
        and a reason.

    Raises
    ------
    DefinitionError
        If the phantom has no such plate.
    ConfigError
        If the quantity is not one of this plate, the serial number is not one of this phantom, or
        the thermometer uncertainty is not a number of at least 0.

    Examples
    --------
    >>> from cordqa.phantom.definition import load_phantom
    >>> phantom = load_phantom("caliber-system")
    >>> first = reference_values(phantom, 5, "T1", field_strength_T=3.0, temperature_C=20, batch="2")[0]
    >>> first.value, first.batch, first.method
    (1883.97, '2', 'tabulated')
    """
    scan = resolve_conditions(
        definition, plate, quantity, field_strength_T, temperature_C, serial, batch, temperature_uncertainty_C
    )
    values = [_reference(scan, sphere) for sphere in scan.plate.sphere_ids]
    if quantity == "PD" and scan.plate.reference_sphere is not None:
        values = _relative_to(values, scan.plate.reference_sphere)
    return tuple(values)


def _reference(scan: Conditions, sphere: str) -> ReferenceValue:
    """Look one sphere up."""
    empty = ReferenceValue(
        plate=scan.plate.id,
        sphere=sphere,
        quantity=scan.quantity,
        unit=get_quantity(scan.quantity).unit,
        batch=scan.batch.batch,
        field_strength_T=scan.field_T,
        method="out of range",
        flags=(ASSUMED_BATCH,) if scan.batch.assumed else (),
    )
    table = find_table(scan, sphere, scan.batch.batch)
    if table is None:
        return replace(empty, reason=_no_table(scan, sphere))
    if math.isnan(scan.temperature_C) and not table.temperature_independent:
        return replace(empty, reason="no temperature was given, and the reference depends strongly on it")
    found, borrowed = value_at(scan.definition, table, sphere, scan.quantity, scan.temperature_C)
    if math.isnan(found.value):
        return replace(empty, temperature_C=scan.temperature_C, reason=_no_temperature(scan, table, sphere))
    components = components_of(scan, table, sphere, found, borrowed)
    percent = math.sqrt(sum(component.percent**2 for component in components))
    source = scan.definition.source(table.source)
    flags, notes = _remarks(scan, table, sphere, found.method)
    if any(component.name == "batch" for component in components):
        flags = (ASSUMED_BATCH, *flags)
    return replace(
        empty,
        value=found.value,
        standard_uncertainty=found.value * percent / 100,
        components=components,
        temperature_C=math.nan if table.temperature_independent else scan.temperature_C,
        percent_per_C=100 * found.slope,
        method=found.method,
        status=table.status,
        source=source.text,
        source_id=source.id,
        flags=flags,
        notes=notes,
    )


def _remarks(
    scan: Conditions, table: Table, sphere: str, method: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Collect the flags and the notes of one value."""
    flags, notes = [], []
    if scan.temperature_assumed and not table.temperature_independent:
        flags.append(ASSUMED_TEMPERATURE)
    if method in METHOD_FLAGS:
        flags.append(METHOD_FLAGS[method])
    if table.status != "measured":
        flags.append(CALCULATED)
    for disagreement in scan.definition.disagreements:
        if any(
            selector.matches(
                plate=scan.plate.id,
                batch=scan.batch.batch,
                quantity=scan.quantity,
                field_strength_T=table.field_strength_T,
                sphere=sphere,
            )
            for selector in disagreement.affects
        ):
            flags += [DOUBTFUL] if disagreement.doubtful else []
            notes += [disagreement.note] if disagreement.note else []
    return tuple(dict.fromkeys(flags)), tuple(notes)


def _relative_to(values: list[ReferenceValue], reference: str) -> list[ReferenceValue]:
    """Express proton densities in per cent of the reference sphere."""
    base = next(value for value in values if value.sphere == reference)
    relative = []
    for value in values:
        if value.sphere == reference and math.isfinite(base.value):
            scaled = replace(
                value,
                value=100.0,
                standard_uncertainty=0.0,
                components=(),
                flags=(*value.flags, REFERENCE_SPHERE),
            )
        else:
            ratio = 100 * value.value / base.value
            percent = math.hypot(value.uncertainty_percent, base.uncertainty_percent)
            components = (
                *value.components,
                Component(name="reference sphere", percent=base.uncertainty_percent),
            )
            scaled = replace(
                value, value=ratio, standard_uncertainty=ratio * percent / 100, components=components
            )
        relative.append(scaled)
    return relative


def _no_table(scan: Conditions, sphere: str) -> str:
    fields = sorted(
        {t.field_strength_T for t in tables_of(scan, sphere, scan.batch.batch) if t.field_strength_T}
    )
    if not fields:
        return f"no certified {scan.quantity} for batch {scan.batch.batch}"
    given = f"{scan.field_T:g} T" if math.isfinite(scan.field_T) else "an unknown field"
    known = ", ".join(f"{value:g}" for value in fields)
    return f"no certified {scan.quantity} at {given}; certificates are at {known} T"


def _no_temperature(scan: Conditions, table: Table, sphere: str) -> str:
    donor = donor_of(scan.definition, table, sphere, scan.quantity) or table
    temperatures = ", ".join(f"{t:g}" for t in donor.series[sphere, scan.quantity].temperatures_C)
    kelvin = "; was kelvin meant?" if scan.temperature_C > 200 else ""
    return f"{scan.temperature_C:g} C is outside the certificate, which has {temperatures} C{kelvin}"


def attach_reference(measurement: Measurement, reference: ReferenceValue) -> Measurement:
    """Return a measurement with its reference value, uncertainty, source, temperature and flags."""
    return replace(
        measurement,
        reference=reference.value,
        reference_uncertainty=reference.standard_uncertainty,
        reference_source=reference.source,
        temperature_C=reference.temperature_C,
        flags=tuple(dict.fromkeys((*measurement.flags, *reference.flags))),
    )


def contents_of(
    definition: PhantomDefinition, plate: str | int, *, batch: str, what: str = "concentration"
) -> Mapping[str, float]:
    """Return what is in the spheres of a plate, by sphere; empty where the definition does not say."""
    plate_id = definition.plate(plate).id
    return {
        sphere: amount
        for contents in definition.contents
        if contents.plate == plate_id and batch in contents.batches and contents.what == what
        for sphere, amount in contents.rows
    }


def reference_notices(definition: PhantomDefinition, values: Sequence[ReferenceValue]) -> tuple[Notice, ...]:
    """Say what the reader should know about the reference values of one plate and quantity.

    Parameters
    ----------
    definition : PhantomDefinition
        The phantom.
    values : sequence of ReferenceValue
        What :func:`reference_values` returned for one plate.

    Returns
    -------
    tuple of Notice
        One for an assumed batch and one for an assumed temperature, each with the spheres that it
        affects and by how much; one per disagreement between sources, with the spheres; one per
        reason for a missing value.
    """
    if not values:
        return ()
    first = values[0]
    where = f"{definition.plate(first.plate).name}, {first.quantity}"
    noun = definition.plate(first.plate).noun
    notices = []
    if any(ASSUMED_BATCH in value.flags and not value.reason for value in values):
        notices.append(_batch_notice(definition, values, where))
    if any(ASSUMED_TEMPERATURE in value.flags for value in values):
        notices.append(_temperature_notice(definition, values, where))
    for reason, spheres in _grouped((value.reason, value.sphere) for value in values if value.reason):
        text = f"{_spheres(spheres, len(values), noun)}: {reason}"
        notices.append(Notice(severity=Severity.WARNING, message=text, where=where, code="reference.missing"))
    for note, spheres in _grouped((note, value.sphere) for value in values for note in value.notes):
        text = note if len(spheres) == len(values) else f"{note} ({_spheres(spheres, len(values), noun)})"
        notices.append(
            Notice(severity=Severity.INFO, message=text, where=where, code="reference.disagreement")
        )
    return tuple(notices)


def _batch_notice(definition: PhantomDefinition, values: Sequence[ReferenceValue], where: str) -> Notice:
    first = values[0]
    effects = batch_effect(
        definition,
        first.plate,
        first.quantity,
        field_strength_T=first.field_strength_T,
        temperature_C=_temperature_of(values),
        batch=first.batch,
    )
    affected = [(e.sphere, e.largest_percent) for e in effects if abs(e.largest_percent) >= NOTABLE_PERCENT]
    text = f"no serial number was given, so batch {first.batch} is assumed; "
    if affected:
        text += f"other batches differ by {NOTABLE_PERCENT:g} % or more in " + ", ".join(
            f"sphere {sphere} ({percent:+.0f} %)" for sphere, percent in affected
        )
    else:
        text += f"no reference in other batches differs by {NOTABLE_PERCENT:g} % or more"
    return Notice(severity=Severity.WARNING, message=text, where=where, code="reference.batch-assumed")


def _temperature_notice(
    definition: PhantomDefinition, values: Sequence[ReferenceValue], where: str
) -> Notice:
    first = values[0]
    effects = temperature_effect(
        definition, first.plate, first.quantity, field_strength_T=first.field_strength_T, batch=first.batch
    )
    low, high = effects[0].span_C
    affected = [(e.sphere, e.largest_percent) for e in effects if e.largest_percent >= NOTABLE_PERCENT]
    text = f"no temperature was given, so {effects[0].temperature_C:g} C is assumed; "
    text += f"between {low:g} and {high:g} C "
    if affected:
        text += f"the reference changes by {NOTABLE_PERCENT:g} % or more in " + ", ".join(
            f"sphere {sphere} ({percent:.0f} %)" for sphere, percent in affected
        )
    else:
        text += f"no reference changes by {NOTABLE_PERCENT:g} % or more"
    return Notice(severity=Severity.WARNING, message=text, where=where, code="reference.temperature-assumed")


def _temperature_of(values: Sequence[ReferenceValue]) -> float | None:
    return next((v.temperature_C for v in values if math.isfinite(v.temperature_C)), None)


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Group spheres by text, in the order of first appearance."""
    groups: dict[str, list[str]] = {}
    for text, sphere in pairs:
        groups.setdefault(text, []).append(sphere)
    return list(groups.items())


def _spheres(spheres: Sequence[str], total: int, noun: str) -> str:
    if len(spheres) == total:
        return f"all {noun}s"
    return f"{noun} {spheres[0]}" if len(spheres) == 1 else f"{noun}s {', '.join(spheres)}"
