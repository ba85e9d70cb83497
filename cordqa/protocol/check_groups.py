"""Compare series with each other: the constraints of a protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from cordqa.protocol.check_sets import judge_values
from cordqa.protocol.check_values import find_unit
from cordqa.protocol.fields import FieldKind, FieldSpec, find_field, format_number
from cordqa.protocol.findings import Verdict, finding_at, label_of, show_value
from cordqa.protocol.grouping import common_entities, group_placed
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import (
    Constraint,
    ConstraintKind,
    Finding,
    FindingStatus,
    Limit,
    ObservedValue,
    Problem,
    Protocol,
    Within,
)
from cordqa.protocol.scaling import judge_scaling
from cordqa.records import Entities, Severity

__all__ = ["check_constraints", "same_version"]

_SHOWN = 6
#: So many sessions of one software version are named, more are counted.
_NAMED = 3
Judge = Callable[[Constraint, Sequence[Placed]], Iterator[Verdict]]


def check_constraints(protocol: Protocol, placed: Sequence[Placed]) -> list[Finding]:
    """Check every constraint of a protocol over the series that fall under it.

    Parameters
    ----------
    protocol : Protocol
    placed : sequence of Placed
        Of this protocol, in any order.

    Returns
    -------
    list of Finding
        One for each constraint, field and group in which there is something to compare.
    """
    findings: list[Finding] = []
    for constraint in protocol.constraints:
        members = [one for one in placed if not constraint.series or one.rule.id in constraint.series]
        for key, group in group_placed(members, constraint.within).items():
            findings += _check_group(protocol, constraint, group, known=any(key))
    return findings


def _check_group(
    protocol: Protocol, constraint: Constraint, group: Sequence[Placed], *, known: bool
) -> Iterator[Finding]:
    if not known and constraint.within is Within.SCANNER:
        yield _place(protocol, constraint, group, _unknown_scanner(constraint))
        return
    for verdict in _JUDGES[constraint.kind](constraint, group):
        yield _place(protocol, constraint, group, verdict)


def _place(protocol: Protocol, constraint: Constraint, group: Sequence[Placed], verdict: Verdict) -> Finding:
    files = [one.series.file for one in group]
    shown = ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")
    entities = common_entities(group)
    if constraint.within is Within.SCANNER:  # a scanner is no participant, even where it saw one only
        entities = Entities(
            site=entities.site, vendor=entities.vendor, model=entities.model, scanner=entities.scanner
        )
    series = "+".join(constraint.series) or "all series"
    return finding_at(verdict, protocol=protocol, file=shown, series=series, entities=entities)


def _unknown_scanner(constraint: Constraint) -> Verdict:
    return _verdict(
        constraint,
        FindingStatus.NOT_CHECKABLE,
        ", ".join(constraint.fields) or "SoftwareVersions",
        "it is not known from which scanner these series come",
        todo="record Manufacturer, ManufacturersModelName and DeviceSerialNumber, or give a site",
    )


def _judge_equal(constraint: Constraint, group: Sequence[Placed]) -> Iterator[Verdict]:
    several = len({one.rule.id for one in group}) > 1
    if len(group) < 2 or (len(constraint.series) > 1 and not several):
        return  # the other series is missing, which is a finding of its own
    for field in constraint.fields:
        yield _judge_equal_field(constraint, group, field)


def _judge_equal_field(constraint: Constraint, group: Sequence[Placed], field: str) -> Verdict:
    pairs = [(one, one.series.parameters.get(field)) for one in group]
    unusable = [one for one, value in pairs if not _usable(value)]
    values = [(one, value) for one, value in pairs if value is not None and _usable(value)]
    found = _compare(constraint, field, values) if values else None
    # Scans that differ do so whatever is not known of the others; that they agree would be a guess.
    if unusable and (found is None or not found.status.is_deviation):
        return _missing_value(constraint, field, unusable)
    return found or _missing_value(constraint, field, group)


def _compare(constraint: Constraint, field: str, values: Sequence[tuple[Placed, ObservedValue]]) -> Verdict:
    shown = "; ".join(f"{name}: {text}" for name, text in _by_series(values))
    spec = find_field(field)
    if spec is not None and spec.kind is FieldKind.NUMBER:
        numbers = [value.value for _, value in values if isinstance(value.value, float)]
        return _judge_numbers(constraint, spec, numbers, shown)
    texts = {str(value.value).casefold() for _, value in values}
    return _equal_or_not(constraint, field, len(texts) == 1, shown)


def _judge_numbers(constraint: Constraint, spec: FieldSpec, numbers: Sequence[float], shown: str) -> Verdict:
    low, high = min(numbers), max(numbers)
    tolerance = max(constraint.abs_tol, constraint.rel_tol * max(abs(low), abs(high)))
    if high - low <= tolerance * (1 + 1e-9) + 1e-12 * max(abs(low), abs(high)):
        return _equal_or_not(constraint, spec.name, True, shown)
    limit = Limit(low=low - tolerance, high=low + tolerance, unit=spec.unit)
    unit = find_unit(spec, high, limit) if spec.confusions else ""
    if not unit:
        return _equal_or_not(constraint, spec.name, False, shown)
    return _verdict(
        constraint,
        FindingStatus.UNIT_SUSPECT,
        spec.name,
        f"{spec.label} agrees only if some of it is recorded in {unit}: {shown}",
        observed=shown,
        todo=f"write all of it in {spec.unit}",
    )


def _equal_or_not(constraint: Constraint, field: str, equal: bool, shown: str) -> Verdict:
    label = label_of(field)
    return _verdict(
        constraint,
        FindingStatus.PASS if equal else FindingStatus.CONSTRAINT,
        field,
        f"{label} is the same: {shown}" if equal else f"{label} differs: {shown}",
        observed=shown,
        allowed="the same" + (f" within {100 * constraint.rel_tol:g} %" if constraint.rel_tol else ""),
        todo="" if equal else "scan these series again with one setting, or do not combine them",
    )


def _by_series(values: Sequence[tuple[Placed, ObservedValue]]) -> list[tuple[str, str]]:
    """Each series with its values once; several files of one series are not told apart if equal."""
    seen: dict[str, list[str]] = {}
    for one, value in values:
        texts = seen.setdefault(one.rule.id, [])
        text = show_value(value)
        if text not in texts:
            texts.append(text)
    return [(name, " and ".join(texts[:_SHOWN])) for name, texts in seen.items()]


def _judge_ratio(constraint: Constraint, group: Sequence[Placed]) -> Iterator[Verdict]:
    first, second = ([one for one in group if one.rule.id == name] for name in constraint.series)
    if not first or not second:
        return
    for field in constraint.fields:
        above, below = ([one.series.parameters.get(field) for one in part] for part in (first, second))
        unusable = [one for one in group if not _usable(one.series.parameters.get(field))]
        tops, bottoms = ([_as_number(v) for v in part if _usable(v)] for part in (above, below))
        found = _judge_ratio_field(constraint, field, tops, bottoms) if tops and bottoms else None
        if found is None or (unusable and not found.status.is_deviation):
            found = _missing_value(constraint, field, unusable)
        yield found


def _judge_ratio_field(
    constraint: Constraint, field: str, tops: Sequence[float], bottoms: Sequence[float]
) -> Verdict:
    ratios = [top / bottom for top in tops for bottom in bottoms if bottom != 0]
    good = bool(ratios) and all(constraint.low <= ratio <= constraint.high for ratio in ratios)
    shown = ", ".join(format_number(ratio) for ratio in dict.fromkeys(ratios)) or "infinite"
    names = f"{constraint.series[0]} to {constraint.series[1]}"
    return _verdict(
        constraint,
        FindingStatus.PASS if good else FindingStatus.CONSTRAINT,
        field,
        f"the ratio of {label_of(field)}, {names}, is {shown}",
        observed=shown,
        allowed=f"{constraint.low:g} to {constraint.high:g}",
        todo="" if good else "load the study's protocol on the scanner again",
    )


def _judge_software(constraint: Constraint, group: Sequence[Placed]) -> Iterator[Verdict]:
    """One finding per scanner: which versions, in how many sessions, since when."""
    versions: dict[str, list[Placed]] = {}
    for one in group:
        if one.series.software:
            versions.setdefault(same_version(one.series.software), []).append(one)
    field = "SoftwareVersions"
    if not versions:
        yield _missing_value(constraint, field, group)
        return
    texts = [_version_text(members) for _, members in sorted(versions.items())]
    equal = len(versions) == 1
    yield _verdict(
        constraint,
        FindingStatus.PASS if equal else FindingStatus.CONSTRAINT,
        field,
        f"software {'is the same' if equal else 'changed'}: {'; '.join(texts)}",
        observed="; ".join(texts),
        allowed="the same",
        todo="" if equal else "compare phantom scans from before and after, or treat them as two scanners",
    )


def same_version(text: str) -> str:
    """Write a software version so that spellings of one version agree: ``syngo MR E11``, ``syngo_MR_E11``."""
    return " ".join(re.findall(r"[a-z0-9.]+", text.casefold()))


def _version_text(members: Sequence[Placed]) -> str:
    sessions = {one.series.session_key: one.series.entities for one in members}
    few = [_session_words(entities) for _, entities in sorted(sessions.items())]
    named = f" in {', '.join(few)}" if len(few) <= _NAMED and all(few) else ""
    dates = sorted(one.series.entities.acquired[:10] for one in members if one.series.entities.acquired)
    since = f", {dates[0]} to {dates[-1]}" if dates else ""
    count = f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}"
    return f"{members[0].series.software} ({count}{since}){named}"


def _session_words(entities: Entities) -> str:
    names = {"sub": entities.subject, "ses": entities.session}
    return " ".join(f"{key}-{value}" for key, value in names.items() if value)


def _judge_scaling(constraint: Constraint, group: Sequence[Placed]) -> Iterator[Verdict]:
    if len({one.rule.id for one in group}) < 2:
        return
    outcome = judge_scaling([one.series for one in group], rel_tol=constraint.rel_tol)
    if outcome is None:
        return
    yield _verdict(
        constraint,
        outcome.status,
        outcome.field,
        outcome.sentence,
        observed=outcome.observed,
        allowed="the same",
        todo=outcome.todo,
        severity=outcome.severity,
    )


def _judge_set(constraint: Constraint, group: Sequence[Placed]) -> Iterator[Verdict]:
    for field in constraint.fields:
        for outcome in judge_values(constraint, group, field):
            yield _verdict(
                constraint,
                outcome.status,
                outcome.field,
                outcome.sentence,
                observed=outcome.observed,
                allowed=outcome.allowed,
                todo=outcome.todo,
            )


def _missing_value(constraint: Constraint, field: str, unusable: Sequence[Placed]) -> Verdict:
    names = ", ".join(dict.fromkeys(one.rule.id for one in unusable))
    return _verdict(
        constraint,
        FindingStatus.NOT_CHECKABLE,
        field,
        f"{label_of(field)} cannot be compared: not recorded, or not usable, in {names}",
        todo=f"add {field} to the sidecars",
    )


def _usable(value: ObservedValue | None) -> bool:
    return value is not None and value.problem is Problem.NONE and value.value is not None


def _as_number(value: ObservedValue | None) -> float:
    return value.value if value is not None and isinstance(value.value, float) else float("nan")


def _verdict(
    constraint: Constraint,
    status: FindingStatus,
    field: str,
    sentence: str,
    *,
    observed: str = "",
    allowed: str = "",
    todo: str = "",
    severity: Severity | None = None,
) -> Verdict:
    return Verdict(
        status=status,
        field=field,
        rule=constraint.id,
        severity=constraint.severity if severity is None else severity,
        source=constraint.source,
        why=constraint.why,
        sentence=sentence,
        todo=todo,
        observed=observed,
        limit=Limit(text=allowed),
    )


_JUDGES: dict[ConstraintKind, Judge] = {
    ConstraintKind.EQUAL: _judge_equal,
    ConstraintKind.RATIO: _judge_ratio,
    ConstraintKind.SAME_SOFTWARE: _judge_software,
    ConstraintKind.SAME_SCALING: _judge_scaling,
    ConstraintKind.VALUES: _judge_set,
}
