"""Series that a protocol finds nothing wrong with: for tests, for demonstrations, and to see what it asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.protocol.check_values import choose_rule
from cordqa.protocol.fields import FIELDS, FieldKind
from cordqa.protocol.records import (
    Constraint,
    ConstraintKind,
    GradientFacts,
    GradientRule,
    Limit,
    ObservedSeries,
    ObservedValue,
    Origin,
    Protocol,
    SeriesRule,
)
from cordqa.records import Entities

__all__ = ["make_compliant_series", "make_gradients", "value_within"]

Value = float | str | bool | tuple[str, ...]
#: Entity that counts the images of a scan, by the field in which they differ.
_COUNTED_BY = {"EchoTime": "echo", "InversionTime": "inv", "FlipAngle": "flip"}
_PLAIN = 1.0


def make_compliant_series(
    protocol: Protocol,
    *,
    vendor: str,
    model: str = "",
    subject: str = "01",
    session: str = "",
    site: str = "",
    scanner: str = "",
    software: str = "1.0",
) -> tuple[ObservedSeries, ...]:
    """Make one session in which every series, field and constraint of a protocol is as asked.

    Parameters
    ----------
    protocol : Protocol
    vendor, model : str
        Of the scanner; fields for which the protocol has no value for it are left out.
    subject, session, site, scanner, software : str
        Labels.

    Returns
    -------
    tuple of ObservedSeries
        Named as in a BIDS dataset; several per series where it has several echoes or inversion times.
    """
    strength = protocol.field_strength_T[0] if protocol.field_strength_T else math.nan
    entities = Entities(
        subject=subject,
        session=session,
        site=site,
        vendor=vendor,
        model=model,
        software=software,
        scanner=scanner or f"{site or 'site'} {vendor}",
        field_strength_T=strength,
    )
    values = {rule.id: _values_of(protocol, rule, vendor, model) for rule in protocol.series}
    for constraint in protocol.constraints:
        _add_constraint(constraint, values, protocol, vendor)
    made: list[ObservedSeries] = []
    for rule in protocol.series:
        made += _images(protocol, rule, values[rule.id], entities)
    return tuple(made)


def value_within(limit: Limit) -> Value:
    """Return a value that a limit allows, its nominal one if it has one."""
    if limit.one_of:
        first = limit.one_of[0]
        return {"true": True, "false": False}.get(first, first) if isinstance(first, str) else first
    if math.isfinite(limit.nominal):
        return limit.nominal
    if math.isfinite(limit.low) and math.isfinite(limit.high):
        return (limit.low + limit.high) / 2
    if math.isfinite(limit.low):
        return limit.low * 1.01 if limit.low > 0 else limit.low + 1
    return limit.high * 0.99 if limit.high > 0 else limit.high - 1


def make_gradients(rule: GradientRule) -> GradientFacts:
    """Return a gradient table with the shells that a rule asks for and well spread directions."""
    parts = []
    for shell in rule.shells:
        n = shell.min_n
        if shell.b_s_mm2 > 0 and shell.b_delta > 0 and rule.min_unique_directions is not None:
            n = max(n, rule.min_unique_directions)
        directed = shell.b_s_mm2 > 0 and shell.b_delta != 0
        directions = _directions(n) if directed else np.zeros((n, 3))
        parts.append((np.full(n, shell.b_s_mm2), directions, np.full(n, shell.b_delta)))
    b, directions, shape = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = GradientTable(b_values_s_mm2=b, directions=directions, b_delta=shape)
    return GradientFacts(table=table, shape_stated=True, sources=("dwi.bval", "dwi.bvec", "dwi.bdelta"))


@cache
def _directions(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    from cordqa.models.diffusion.scheme_energy import spread_directions

    return spread_directions(n, seed=0).directions


def _values_of(protocol: Protocol, rule: SeriesRule, vendor: str, model: str) -> dict[str, Value]:
    fields = dict.fromkeys(one.field for one in rule.parameters)
    values: dict[str, Value] = {}
    for field in fields:
        rules = [one for one in rule.parameters if one.field == field]
        chosen = choose_rule(rules, vendor=vendor, model=model)
        if chosen is not None:
            values[field] = _of_kind(field, value_within(chosen.limit))
    if "AcquisitionDuration" not in values:
        sheet = rule.duration_s.get(vendor, rule.duration_s.get("", math.nan))
        budget = protocol.time_budget
        share = 60.0 if budget is None else budget.max_s / (2 * len(protocol.series))
        values["AcquisitionDuration"] = share if math.isnan(sheet) else float(sheet)
    return values


def _of_kind(field: str, value: Value) -> Value:
    if FIELDS[field].kind is FieldKind.WORDS and isinstance(value, str):
        return (value,)
    return value


def _add_constraint(
    constraint: Constraint, values: Mapping[str, dict[str, Value]], protocol: Protocol, vendor: str
) -> None:
    """Give series what a constraint needs and no rule of theirs provides."""
    series = constraint.series or tuple(rule.id for rule in protocol.series)
    if constraint.kind is ConstraintKind.SAME_SCALING and vendor == "Philips":
        for name in series:
            values[name].setdefault("PhilipsScaleSlope", 6e-4)
    if constraint.kind is not ConstraintKind.EQUAL:
        return
    for field in constraint.fields:
        given = [values[name][field] for name in series if field in values[name]]
        for name in series:
            values[name].setdefault(field, given[0] if given else _anything(field))


def _anything(field: str) -> Value:
    spec = FIELDS[field]
    if spec.kind is FieldKind.FLAG:
        return True
    if spec.kind is not FieldKind.NUMBER:
        return _of_kind(field, "ANY")
    low, high = spec.plausible
    return math.sqrt(low * high) if 0 < low < high < math.inf else _PLAIN


def _images(
    protocol: Protocol, rule: SeriesRule, values: Mapping[str, Value], entities: Entities
) -> Iterator[ObservedSeries]:
    labels, suffix, name = _names(rule, entities)
    sets = [
        one
        for one in protocol.constraints
        if one.kind is ConstraintKind.VALUES and one.series == (rule.id,) and one.min_count > 1
    ]
    steps = [dict(values)]
    counted = dict(labels)
    for constraint in sets:
        field = constraint.fields[0]
        spread = _spread(constraint)
        steps = [{**step, field: value} for step in steps for value in spread]
    for number, step in enumerate(steps, start=1):
        if sets:
            counted = {**labels, _COUNTED_BY.get(sets[0].fields[0], "run"): str(number)}
        yield _series(rule, counted, suffix, name, step, entities)


def _spread(constraint: Constraint) -> Sequence[float]:
    first = 0.005 if constraint.first is None else _end(constraint.first, 0.005)
    last = 10 * first if constraint.last is None else _end(constraint.last, 10 * first)
    return [float(value) for value in np.linspace(first, last, constraint.min_count)]


def _end(limit: Limit, usual: float) -> float:
    value = value_within(limit)
    return float(value) if isinstance(value, float) else usual


def _names(rule: SeriesRule, entities: Entities) -> tuple[dict[str, str], str, str]:
    """Return entities and suffix of the first BIDS name that the rule knows, else a protocol name."""
    bids = next((one for one in rule.matches if one.suffix), None)
    if bids is None:
        return {}, "", rule.matches[0].protocol_name[0].replace("*", "x")
    labels = {"sub": entities.subject or "01"}
    if entities.session:
        labels["ses"] = entities.session
    for key, patterns in bids.entities.items():
        value = next((one for one in patterns if not one.startswith("!")), "")
        if value:
            labels[key] = value.replace("*", "x")
    return labels, bids.suffix[0], ""


def _series(
    rule: SeriesRule,
    labels: Mapping[str, str],
    suffix: str,
    name: str,
    values: Mapping[str, Value],
    entities: Entities,
) -> ObservedSeries:
    stem = "_".join([*(f"{key}-{value}" for key, value in labels.items()), suffix or name])
    folder = f"sub-{entities.subject}/" + (f"ses-{entities.session}/" if entities.session else "")
    where = "dwi" if suffix == "dwi" else "anat"
    parameters = {
        field: ObservedValue(value, _as_float(field, value), FIELDS[field].unit, Origin.SIDECAR)
        for field, value in values.items()
    }
    return ObservedSeries(
        file=f"{folder}{where}/{stem}.json",
        entities=replace(entities, acquisition=labels.get("acq", ""), run=labels.get("run", "")),
        suffix=suffix,
        labels=dict(labels),
        protocol_name=name,
        parameters=parameters,
        gradients=None if rule.gradients is None else make_gradients(rule.gradients),
    )


def _as_float(field: str, value: Value) -> Value:
    return float(value) if FIELDS[field].kind is FieldKind.NUMBER and not isinstance(value, tuple) else value
