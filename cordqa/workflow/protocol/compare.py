"""Compare two protocols, or a protocol with what was scanned, parameter by parameter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cordqa.errors import DefinitionError, InputError
from cordqa.protocol.check_time import minutes
from cordqa.protocol.check_values import choose_rule, is_within
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.fields import FIELDS
from cordqa.protocol.matching import find_rules
from cordqa.protocol.records import (
    Constraint,
    GradientRule,
    Limit,
    ObservedSeries,
    ParameterRule,
    Protocol,
    SeriesRule,
)
from cordqa.records import as_plain
from cordqa.workflow.protocol.infer import Draft, DraftSeries, DraftShell, DraftValue, draft_protocol
from cordqa.workflow.protocol.observe import observe_dataset

__all__ = ["Comparison", "Difference", "compare_protocols", "write_comparison", "write_comparison_json"]

_ABSENT = "—"
#: Longer texts are cut in the table; JSON has them whole.
_WIDEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One parameter of one series, for one vendor, on both sides.

    ``relation`` is ``same``, ``differs``, ``only in A``, ``only in B``; or ``inside`` and ``outside``
    where B is what was scanned.
    """

    series: str
    field: str
    vendor: str
    a: str
    b: str
    relation: str
    unit: str = ""

    @property
    def is_difference(self) -> bool:
        """Whether the sides disagree."""
        return self.relation not in ("same", "inside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All parameters of two sides, and what is on one side only."""

    a: str
    b: str
    rows: tuple[Difference, ...]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Rows in which the sides disagree."""
        return tuple(row for row in self.rows if row.is_difference)


def compare_protocols(a: str | Path, b: str | Path) -> Comparison:
    """Compare two sides, of which one may be a dataset.

    Parameters
    ----------
    a, b : str or Path
        Name or file of a protocol, or a folder of scans: then its most common values are compared
        with what the other side asks.

    Returns
    -------
    Comparison

    Raises
    ------
    DefinitionError
        If a protocol is not found or not valid.
    InputError
        If both are datasets, or a folder holds nothing that can be read.
    """
    folders = [Path(side).is_dir() for side in (a, b)]
    if all(folders):
        raise InputError(
            "both sides are datasets",
            where=f"{a}, {b}",
            todo="draft a protocol from one of them with 'cordqa protocol infer', and compare with that",
        )
    if folders[0]:
        turned = compare_protocols(b, a)
        return Comparison(a=turned.b, b=turned.a, rows=tuple(_turned(row) for row in turned.rows))
    first = _load(a)
    if folders[1]:
        return _against_data(first, Path(b))
    second = _load(b)
    return Comparison(a=_name(first), b=_name(second), rows=tuple(_between(first, second)))


def _load(side: str | Path) -> Protocol:
    try:
        return load_protocol(side)
    except DefinitionError as error:
        if Path(side).suffix or not Path(side).exists():
            raise
        raise InputError("is neither a protocol nor a folder", where=str(side)) from error


def _name(protocol: Protocol) -> str:
    return f"{protocol.id} {protocol.version}"


def _turned(row: Difference) -> Difference:
    relation = {"only in A": "only in B", "only in B": "only in A"}.get(row.relation, row.relation)
    return Difference(
        series=row.series,
        field=row.field,
        vendor=row.vendor,
        a=row.b,
        b=row.a,
        relation=relation,
        unit=row.unit,
    )


# Two protocols -----------------------------------------------------------------------------------


def _between(first: Protocol, second: Protocol) -> Iterator[Difference]:
    names = list(dict.fromkeys(rule.id for one in (first, second) for rule in one.series))
    for name in names:
        a, b = first.series_rule(name), second.series_rule(name)
        if a is not None and b is not None:
            yield from _between_series(a, b)
        elif a is not None:
            yield _row(name, "series", "", a.title, _ABSENT)
        elif b is not None:
            yield _row(name, "series", "", _ABSENT, b.title)
    yield _row("session", "field strength", "", *(_strength_words(one) for one in (first, second)))
    yield _row("session", "time budget", "", *(_budget_words(one) for one in (first, second)))
    asked = [{one.id: _constraint_words(one) for one in side.constraints} for side in (first, second)]
    for name in dict.fromkeys(name for side in asked for name in side):
        yield _row("session", f"constraint {name}", "", *(side.get(name, _ABSENT) for side in asked))


def _strength_words(protocol: Protocol) -> str:
    return " or ".join(f"{one:g} T" for one in protocol.field_strength_T) or _ABSENT


def _budget_words(protocol: Protocol) -> str:
    budget = protocol.time_budget
    return _ABSENT if budget is None else f"{minutes(budget.max_s)} ({budget.severity})"


def _constraint_words(one: Constraint) -> str:
    """Write what a constraint asks, so that two that read alike ask the same."""
    bounds = [f"{one.low:g} to {one.high:g}"] if math.isfinite(one.low) or math.isfinite(one.high) else []
    counted = one.min_count != 1 or one.max_count is not None
    counts = [f"{one.min_count}{_most(one.max_count, one.min_count)} values"] if counted else []
    ends = [
        f"{word} {limit.text}"
        for word, limit in (("first", one.first), ("last", one.last))
        if limit is not None
    ]
    steps = ["even steps"] if one.even else []
    slack = [f"within {100 * one.rel_tol:g} %"] if one.rel_tol else []
    slack += [f"within {one.abs_tol:g}"] if one.abs_tol else []
    parts = [", ".join(one.fields), "+".join(one.series), *bounds, *counts, *ends, *steps, *slack]
    parts += [f"per {one.within}", str(one.severity)]
    return "; ".join([str(one.kind), *(part for part in parts if part)])


def _between_series(a: SeriesRule, b: SeriesRule) -> Iterator[Difference]:
    yield _row(a.id, "required", "", _yes(a.required), _yes(b.required))
    for name in dict.fromkeys(rule.field for one in (a, b) for rule in one.parameters):
        for vendor, model in _scanners(name, a, b):
            limits = [_limit(one, name, vendor, model) for one in (a, b)]
            texts = [limit.text if limit else _ABSENT for limit in limits]
            label = f"{vendor} {model}".strip() or "any"
            unit = FIELDS[name].unit if name in FIELDS else ""
            yield _row(a.id, name, label, *texts, unit=unit)
    for vendor in dict.fromkeys([*a.duration_s, *b.duration_s]):
        seconds = [one.duration_s.get(vendor, math.nan) for one in (a, b)]
        texts = [f"{value:g} s" if math.isfinite(value) else _ABSENT for value in seconds]
        yield _row(a.id, "duration", vendor or "any", *texts)
    if a.gradients or b.gradients:
        yield _row(a.id, "gradients", "", _gradient_words(a.gradients), _gradient_words(b.gradients))


def _row(series: str, name: str, vendor: str, a: str, b: str, *, unit: str = "") -> Difference:
    relation = (
        "same" if a == b else "only in B" if a == _ABSENT else "only in A" if b == _ABSENT else "differs"
    )
    return Difference(series=series, field=name, vendor=vendor, a=a, b=b, relation=relation, unit=unit)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _scanners(name: str, *rules: SeriesRule) -> list[tuple[str, str]]:
    """Vendors and models that either side names; ``any`` first."""
    found = {(rule.vendor, rule.model) for one in rules for rule in one.parameters if rule.field == name}
    return sorted(found)


def _limit(series: SeriesRule, name: str, vendor: str, model: str) -> Limit | None:
    rules = [rule for rule in series.parameters if rule.field == name]
    exact = [rule for rule in rules if (rule.vendor, rule.model) == (vendor, model)]
    chosen = exact[0] if exact else choose_rule(rules, vendor=vendor, model="")
    return chosen.limit if chosen is not None else None


def _gradient_words(rule: GradientRule | None) -> str:
    if rule is None:
        return _ABSENT
    shells = [f"b {one.b_s_mm2:g}: {one.min_n}{_most(one.max_n, one.min_n)}" for one in rule.shells]
    more = [f"{rule.min_unique_directions} directions"] if rule.min_unique_directions else []
    return "; ".join([*shells, *more])


def _most(most: int | None, least: int) -> str:
    if most is None:
        return " or more"
    return "" if most == least else f" to {most}"


# A protocol and a dataset ------------------------------------------------------------------------


def _against_data(protocol: Protocol, folder: Path) -> Comparison:
    observed = observe_dataset(folder)
    draft = draft_protocol(observed.series, place=_placer(protocol))
    return Comparison(
        a=_name(protocol),
        b=f"most common values of {len(observed.series)} series",
        rows=tuple(_scanned(protocol, draft)),
    )


def _placer(protocol: Protocol) -> Callable[[ObservedSeries], str]:
    def place(series: ObservedSeries) -> str:
        found = find_rules(protocol, series)
        return found[0].id if len(found) == 1 else ""

    return place


def _scanned(protocol: Protocol, draft: Draft) -> Iterator[Difference]:
    by_id = {one.protocol_name: one for one in draft.series}
    for rule in protocol.series:
        found = by_id.get(rule.id)
        if found is None:
            relation = "only in A" if rule.required else "inside"
            yield Difference(
                series=rule.id, field="series", vendor="", a=rule.title, b=_ABSENT, relation=relation
            )
            continue
        yield from _scanned_series(rule, found)


def _scanned_series(rule: SeriesRule, found: DraftSeries) -> Iterator[Difference]:
    for name in dict.fromkeys(one.field for one in rule.parameters):
        rules = [one for one in rule.parameters if one.field == name]
        values = found.fields.get(name, {})
        if name == "AcquisitionDuration":
            values = {vendor: DraftValue(value=time, n=found.n) for vendor, time in found.duration_s.items()}
        if not values:
            yield _judged(rule.id, name, "any", rules, None)
        for vendor, value in values.items():
            yield _judged(rule.id, name, vendor, rules, value)
    if rule.gradients is not None and found.shells:
        asked, seen = _gradient_words(rule.gradients), _shell_words(found.shells)
        inside = _same_shells(rule.gradients, found.shells)
        yield Difference(
            series=rule.id,
            field="gradients",
            vendor="",
            a=asked,
            b=seen,
            relation="inside" if inside else "outside",
        )


def _judged(
    series: str, name: str, vendor: str, rules: Sequence[ParameterRule], value: DraftValue | None
) -> Difference:
    unit = FIELDS[name].unit if name in FIELDS else ""
    # What all vendors share must suit the rules of all of them; which model scanned is not known here.
    plain = [one for one in rules if not one.model]
    if vendor == "any":
        suiting = plain
    else:
        chosen = choose_rule(plain, vendor=vendor, model="")
        suiting = [chosen] if chosen is not None else [one for one in rules if one.vendor == vendor]
    # The limit of one vendor is not that of all.
    named = len(suiting) > 1 or (vendor == "any" and any(one.vendor for one in suiting))
    asked = "; ".join(_asked(one, named=named) for one in suiting) or _ABSENT
    if value is None:
        return Difference(
            series=series, field=name, vendor=vendor, a=asked, b=_ABSENT, relation="only in A", unit=unit
        )
    share = f", {100 * value.agreement:.0f} % agree" if value.agreement < 1 else ""
    seen = f"{_value_words(value, unit)} (n {value.n}{share})"
    within = [is_within(one.limit, value.value) for one in suiting]
    inside = all(within) if vendor == "any" else any(within)
    relation = ("inside" if inside else "outside") if suiting else "only in B"
    return Difference(series=series, field=name, vendor=vendor, a=asked, b=seen, relation=relation, unit=unit)


def _asked(rule: ParameterRule, *, named: bool) -> str:
    return f"{rule.vendor or 'any'}: {rule.limit.text}" if named else rule.limit.text


def _value_words(found: DraftValue, unit: str) -> str:
    if isinstance(found.value, bool):
        return _yes(found.value)
    return f"{found.value:g} {unit}".strip() if isinstance(found.value, float) else found.value


def _shell_words(shells: Sequence[DraftShell]) -> str:
    return "; ".join(f"b {one.b_s_mm2:g}: {one.min_n}" for one in shells)


def _same_shells(rule: GradientRule, shells: Sequence[DraftShell]) -> bool:
    """Tell whether every shell that is asked for is there, and no other."""
    left = list(shells)
    for asked in rule.shells:
        reach = max(rule.b_tol * asked.b_s_mm2, 50.0 if asked.b_s_mm2 == 0 else 0.0)
        fitting = [one for one in left if abs(one.b_s_mm2 - asked.b_s_mm2) <= reach]
        if not fitting or fitting[0].min_n < asked.min_n:
            return False
        if asked.max_n is not None and fitting[0].min_n > asked.max_n:
            return False
        left.remove(fitting[0])
    return rule.extra_shells or not left


# Words -------------------------------------------------------------------------------------------


def write_comparison(comparison: Comparison, *, everything: bool = False) -> str:
    """Write a comparison as text; only what differs unless ``everything`` is asked for."""
    rows = comparison.rows if everything else comparison.differences
    same = len(comparison.rows) - len(comparison.differences)
    head = [f"A: {comparison.a}", f"B: {comparison.b}", ""]
    if not rows:
        return "\n".join([*head, f"No difference in {same} parameters."]) + "\n"
    table = [("series", "parameter", "scanner", "A", "B", "")]
    table += [(row.series, row.field, row.vendor, _cut(row.a), _cut(row.b), row.relation) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line[:5], widths, strict=True)), line[5]]
        ).rstrip()
        for line in table
    ]
    end = f"{len(comparison.differences)} of {len(comparison.rows)} parameters differ."
    return "\n".join([*head, *lines, "", end]) + "\n"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def write_comparison_json(comparison: Comparison, *, everything: bool = False) -> str:
    """Write a comparison as JSON."""
    rows = comparison.rows if everything else comparison.differences
    plain = {
        "a": comparison.a,
        "b": comparison.b,
        "n_parameters": len(comparison.rows),
        "n_differences": len(comparison.differences),
        "rows": [as_plain(row) for row in rows],
    }
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)
