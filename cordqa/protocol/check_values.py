"""Compare the parameters of one series with what its rule asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cordqa.protocol.fields import FieldSpec, find_field
from cordqa.protocol.findings import Verdict, label_of, make_finding, show_value
from cordqa.protocol.matching import Placed, matches_pattern
from cordqa.protocol.records import (
    Finding,
    FindingStatus,
    IfAbsent,
    Limit,
    ObservedSeries,
    ObservedValue,
    Origin,
    ParameterRule,
    Problem,
)
from cordqa.records import Severity

__all__ = ["check_values", "choose_rule", "find_unit", "is_within"]

#: Of the values that are compared, so that 0.1 + 0.2 is 0.3; far below any tolerance that is meant.
_ROUNDING = 1e-9
#: Largest over smallest value of a limit that is narrow beside a factor of a thousand between units.
_NARROW = 10.0


def check_values(placed: Placed) -> list[Finding]:
    """Check every field that the rule of a series names, in the order of the protocol."""
    by_field: dict[str, list[ParameterRule]] = {}
    for rule in placed.rule.parameters:
        by_field.setdefault(rule.field, []).append(rule)
    return [make_finding(placed, _judge(placed, field, rules)) for field, rules in by_field.items()]


def choose_rule(rules: Sequence[ParameterRule], *, vendor: str, model: str) -> ParameterRule | None:
    """Return the most specific rule for a scanner: by model, then by vendor, then for any.

    Parameters
    ----------
    rules : sequence of ParameterRule
        Of one field.
    vendor, model : str
        Empty where not known.

    Returns
    -------
    ParameterRule or None
        ``None`` where no rule covers the scanner.
    """
    fitting = [
        rule
        for rule in rules
        if rule.vendor in ("", vendor) and (not rule.model or (model and matches_pattern(model, rule.model)))
    ]
    return max(fitting, key=lambda rule: (bool(rule.vendor), len(rule.model)), default=None)


def is_within(limit: Limit, value: float | str | bool | tuple[float, ...] | tuple[str, ...]) -> bool:
    """Whether a value is allowed; of a list of words one must be among those allowed.

    A text with a leading ``!`` refuses: no word of the list may be it.
    """
    if limit.one_of:
        words = value if isinstance(value, tuple) else (value,)
        refused = [one for one in limit.one_of if isinstance(one, str) and one.startswith("!")]
        wanted = [one for one in limit.one_of if one not in refused]
        if any(not _is_same(word, one) for word in words for one in refused):
            return False
        return not wanted or any(_is_same(word, one) for word in words for one in wanted)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    slack = _ROUNDING * max(
        abs(value), *(abs(end) for end in (limit.low, limit.high) if math.isfinite(end)), 0
    )
    return limit.low - slack <= value <= limit.high + slack


def find_unit(spec: FieldSpec, value: float, limit: Limit) -> str:
    """Return the unit in which a value outside its limit was probably written; empty where in none.

    Either the converted value is within a limit that is narrow enough to say so, or the value is what
    no scanner does and the converted one is.
    """
    low, high = spec.plausible
    for factor, unit in spec.confusions:
        converted = value * factor
        if not low <= converted <= high:
            continue
        if not low <= value <= high or (_is_narrow(limit) and is_within(limit, converted)):
            return unit
    return ""


def _is_narrow(limit: Limit) -> bool:
    """Whether a value within the limit, once a unit is converted, is no accident."""
    if limit.one_of:
        return True
    return 0 < limit.low <= limit.high <= _NARROW * limit.low


def _is_same(value: float | str | bool, allowed: float | str) -> bool:
    if isinstance(value, bool):
        return ("true" if value else "false") == allowed
    if isinstance(value, str):
        return isinstance(allowed, str) and matches_pattern(value, allowed)
    return isinstance(allowed, float) and math.isclose(value, allowed, rel_tol=1e-6)


def _judge(placed: Placed, field: str, rules: Sequence[ParameterRule]) -> Verdict:
    series = placed.series
    rule = choose_rule(rules, vendor=series.vendor, model=series.model)
    observed = _find_value(series, field)
    if observed is not None and observed.problem is Problem.NOT_NUMERIC:
        return _not_numeric(rule or rules[0], observed)  # of any scanner: no rule makes it a number
    if not series.vendor and any(one.vendor for one in rules):
        return _unknown_vendor(placed, field)
    if rule is None:
        return _no_rule(placed, field, rules)
    if observed is None:
        return _absent(series, rule)
    if observed.problem is Problem.CONTRADICTION:
        return _contradiction(rule, observed)
    if observed.problem is not Problem.NONE or observed.value is None:
        return _not_numeric(rule, observed)
    if is_within(rule.limit, observed.value):
        return _passed(rule, observed)
    return _outside(placed, rule, observed)


def _find_value(series: ObservedSeries, field: str) -> ObservedValue | None:
    observed = series.parameters.get(field)
    strength = series.entities.field_strength_T
    if observed is None and field == "MagneticFieldStrength" and math.isfinite(strength):
        return ObservedValue(strength, strength, "T", Origin.SIDECAR)
    return observed


def _describe(observed: ObservedValue) -> tuple[str, float]:
    number = observed.value if isinstance(observed.value, float) else math.nan
    return show_value(observed), number


def _verdict(
    rule: ParameterRule,
    status: FindingStatus,
    sentence: str,
    todo: str = "",
    observed: ObservedValue | None = None,
    severity: Severity | None = None,
) -> Verdict:
    shown, number = ("", math.nan) if observed is None else _describe(observed)
    return Verdict(
        status=status,
        field=rule.field,
        rule=rule.id,
        severity=rule.severity if severity is None else severity,
        source=rule.source,
        why=rule.why if status is FindingStatus.OUT_OF_RANGE else "",
        sentence=sentence,
        todo=todo,
        observed=shown,
        observed_value=number,
        limit=rule.limit,
        origin="" if observed is None else str(observed.origin),
    )


def _passed(rule: ParameterRule, observed: ObservedValue) -> Verdict:
    sentence = f"{label_of(rule.field)} is {show_value(observed)}, as asked"
    return _verdict(rule, FindingStatus.PASS, sentence, observed=observed)


def _outside(placed: Placed, rule: ParameterRule, observed: ObservedValue) -> Verdict:
    spec = find_field(rule.field)
    label, shown = label_of(rule.field), show_value(observed)
    if placed.protocol.units_guard and spec is not None and isinstance(observed.value, float):
        unit = find_unit(spec, observed.value, rule.limit)
        if unit:
            return _verdict(
                rule,
                FindingStatus.UNIT_SUSPECT,
                f"{label} is recorded as {shown}, which looks like {unit}; asked for is {rule.limit.text}",
                f"it looks like {unit}: write it in {spec.unit or 'the unit of BIDS'}; other fields may have "
                "the same mistake",
                observed,
            )
    return _verdict(
        rule,
        FindingStatus.OUT_OF_RANGE,
        f"{label} is {shown}; the protocol asks for {rule.limit.text}",
        "load the study's protocol on the scanner again; values of this scan are from another protocol",
        observed,
    )


def _not_numeric(rule: ParameterRule, observed: ObservedValue) -> Verdict:
    note = observed.note or f"{show_value(observed)!r} cannot be read"
    return _verdict(
        rule,
        FindingStatus.NOT_NUMERIC,
        f"{label_of(rule.field)} cannot be compared: {note}",
        f"correct {rule.field} where it is recorded, or convert the scan again",
        observed,
    )


def _contradiction(rule: ParameterRule, observed: ObservedValue) -> Verdict:
    return _verdict(
        rule,
        FindingStatus.NOT_CHECKABLE,
        f"{label_of(rule.field)} is recorded twice with different values: {observed.note}",
        "convert the scan again; until then it is not known how it was acquired",
        observed,
        # It is known that something is wrong, only not what.
        Severity.WARNING,
    )


def _absent(series: ObservedSeries, rule: ParameterRule) -> Verdict:
    label = label_of(rule.field)
    if series.problem:
        return _verdict(
            rule, FindingStatus.NOT_CHECKABLE, f"{label} is not known: {series.problem}", "correct the file"
        )
    if rule.if_absent is IfAbsent.MISSING:
        return _verdict(
            rule,
            FindingStatus.MISSING,
            f"{label} ({rule.field}) is not recorded, and the protocol asks that it is",
            f"convert again with a converter that writes {rule.field}, or add it by hand",
        )
    return _verdict(
        rule,
        FindingStatus.NOT_CHECKABLE,
        f"{label} ({rule.field}) is not recorded",
        f"add {rule.field} to the sidecar, or check the DICOM files, which may hold it",
    )


def _unknown_vendor(placed: Placed, field: str) -> Verdict:
    return Verdict(
        status=FindingStatus.NOT_CHECKABLE,
        field=field,
        rule=f"{placed.rule.id}.{field}.vendor",
        severity=Severity.WARNING,
        sentence=f"{label_of(field)} depends on the vendor, which is not recorded",
        todo="add Manufacturer to the sidecar",
    )


def _no_rule(placed: Placed, field: str, rules: Sequence[ParameterRule]) -> Verdict:
    series = placed.series
    scanner = " ".join(part for part in (series.vendor, series.model) if part) or "this scanner"
    covered = _scanners(rules)
    return Verdict(
        status=FindingStatus.NO_RULE,
        field=field,
        rule=f"{placed.rule.id}.{field}",
        sentence=f"the protocol has no {label_of(field)} for {scanner}, only for {covered}",
        todo=f"add a value for {scanner} to a copy of the protocol file",
        observed=show_value(series.parameters.get(field)),
    )


def _scanners(rules: Iterable[ParameterRule]) -> str:
    names = [f"{rule.vendor} {rule.model}".strip() for rule in rules]
    return ", ".join(dict.fromkeys(names))
