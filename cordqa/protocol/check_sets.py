"""Judge the values that one field takes over the images of a scan: echo times, inversion times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from cordqa.protocol.check_values import find_unit, is_within
from cordqa.protocol.fields import FIELDS, FieldSpec, format_number
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import Constraint, FindingStatus, Limit, ObservedValue, Problem
from cordqa.protocol.scaling import Outcome

__all__ = ["judge_values"]

#: Two images whose values differ by less repeat each other.
_SAME = 1e-3
_AGAIN = "load the study's protocol on the scanner again"


def judge_values(constraint: Constraint, group: Sequence[Placed], field: str) -> Iterator[Outcome]:
    """Judge number, ends and steps of the values of one field.

    Parameters
    ----------
    constraint : Constraint
        Of kind ``values``.
    group : sequence of Placed
        Images of one series rule.
    field : str
        A field that holds numbers.

    Yields
    ------
    Outcome
        For the number of values, and for each end and the steps where the constraint asks for them.
    """
    spec = FIELDS[field]
    values, unusable = _values(group, field)
    if unusable:
        yield Outcome(
            status=FindingStatus.NOT_CHECKABLE,
            field=field,
            sentence=f"{spec.label} is not recorded, or not usable, in {unusable} of {len(group)} images",
            todo=f"add {field} to the sidecars",
        )
        return
    yield _judge_number(constraint, spec, values)
    for name, limit, value in (
        ("first", constraint.first, values[0]),
        ("last", constraint.last, values[-1]),
    ):
        if limit is not None:
            yield _judge_end(spec, name, limit, value)
    if constraint.even and len(values) > 1:
        yield _judge_steps(constraint, spec, values)


def _values(group: Sequence[Placed], field: str) -> tuple[list[float], int]:
    """Return the distinct values in rising order, and of how many images there is none."""
    found: list[float] = []
    unusable = 0
    for one in group:
        observed = one.series.parameters.get(field)
        numbers = _numbers(observed)
        found += numbers
        unusable += not numbers
    distinct: list[float] = []
    for value in sorted(found):
        if not distinct or value - distinct[-1] > _SAME * abs(value):
            distinct.append(value)
    return distinct, unusable


def _numbers(observed: ObservedValue | None) -> list[float]:
    """Return one number, or those of a list: an image with several echoes may list their times."""
    if observed is None or observed.problem is Problem.CONTRADICTION:
        return []
    if isinstance(observed.value, tuple):
        return [value for value in observed.value if isinstance(value, float)]
    return [observed.value] if isinstance(observed.value, float) else []


def _judge_number(constraint: Constraint, spec: FieldSpec, values: Sequence[float]) -> Outcome:
    n, most = len(values), constraint.max_count
    good = constraint.min_count <= n and (most is None or n <= most)
    if most is None:
        allowed = f"at least {constraint.min_count}"
    else:
        allowed = f"{constraint.min_count} to {most}" if most != constraint.min_count else f"{most}"
    shown = _shown(values, spec.unit)
    return Outcome(
        status=FindingStatus.PASS if good else FindingStatus.CONSTRAINT,
        field=spec.name,
        sentence=f"{n} different values of {spec.label}: {shown}",
        observed=f"{n}: {shown}",
        allowed=f"{allowed} values",
        todo="" if good else _AGAIN,
    )


def _judge_end(spec: FieldSpec, name: str, limit: Limit, value: float) -> Outcome:
    good = is_within(limit, value)
    unit = "" if good else find_unit(spec, value, limit)
    end = "smallest" if name == "first" else "largest"
    shown = f"{format_number(value)} {spec.unit}".strip()
    failed = FindingStatus.UNIT_SUSPECT if unit else FindingStatus.CONSTRAINT
    return Outcome(
        status=FindingStatus.PASS if good else failed,
        field=f"{spec.name}, {end}",
        sentence=f"the {end} {spec.label} is {shown}" + (f", which looks like {unit}" if unit else ""),
        observed=shown,
        allowed=limit.text,
        todo="" if good else (f"write it in {spec.unit}" if unit else _AGAIN),
    )


def _judge_steps(constraint: Constraint, spec: FieldSpec, values: Sequence[float]) -> Outcome:
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    spread = (max(steps) - min(steps)) / max(steps)
    good = spread <= constraint.rel_tol * (1 + 1e-9) + 1e-9
    return Outcome(
        status=FindingStatus.PASS if good else FindingStatus.CONSTRAINT,
        field=f"{spec.name}, steps",
        sentence=f"the steps of {spec.label} are {_shown(steps, spec.unit)}",
        observed=_shown(steps, spec.unit),
        allowed=f"equal within {100 * constraint.rel_tol:g} %",
        todo="" if good else _AGAIN,
    )


def _shown(values: Sequence[float], unit: str) -> str:
    words = [format_number(value) for value in values]
    if len(words) > 8:
        words = [*words[:4], "...", *words[-2:]]
    return f"{', '.join(words)} {unit}".strip()
