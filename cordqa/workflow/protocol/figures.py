"""Figures of a compliance report: who deviates where, coverage, scan time, changes over time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cordqa import figures
from cordqa.figures import ControlPanel, CoverageRow, Estimate, StatusKey, StatusRow
from cordqa.protocol.fields import find_field
from cordqa.protocol.records import ComplianceResult, Finding, FindingStatus, Protocol, RollUp, TimeUse
from cordqa.records import Figure, Severity
from cordqa.workflow.protocol.judge import (
    SeriesTitles,
    describe_series,
    field_words,
    in_protocol_order,
    unit_key,
    wants_a_look,
)

__all__ = ["draw"]

Unit = tuple[str, str, str]
#: Participants drawn one by one; the others share a column.
_MOST_COLUMNS = 100
_ALL_COLUMNS = 50
_MOST_BARS, _MOST_PANELS = 24, 12
_NOTHING = "."
#: Codes from the worst to the best; capitals are deviations that only warn.
_KEYS = (
    StatusKey(code="x", label="out of range", look="fail", sign="×"),
    StatusKey(code="u", label="wrong unit suspected", look="fail", sign="u"),
    StatusKey(code="n", label="not a number", look="fail", sign="#"),
    StatusKey(code="m", label="missing", look="fail", sign="–"),
    StatusKey(code="c", label="does not agree with its partner", look="fail", sign="≠"),
    StatusKey(code="X", label="out of range (warning)", look="warn", sign="×"),
    StatusKey(code="U", label="wrong unit suspected (warning)", look="warn", sign="u"),
    StatusKey(code="N", label="not a number (warning)", look="warn", sign="#"),
    StatusKey(code="M", label="missing (warning)", look="warn", sign="–"),
    StatusKey(code="C", label="does not agree (warning)", look="warn", sign="≠"),
    StatusKey(code="!", label="unreadable or contradictory", look="warn", sign="!"),
    StatusKey(code="?", label="not checkable, not recorded", look="none"),
    StatusKey(code="p", label="as asked", look="pass"),
    StatusKey(code="r", label="no value for this scanner", look="open", sign="·"),
    StatusKey(code=_NOTHING, label="nothing to check", look="blank"),
)
_RANK = {key.code: rank for rank, key in enumerate(_KEYS)}
_CODES = {
    FindingStatus.OUT_OF_RANGE: "x",
    FindingStatus.UNIT_SUSPECT: "u",
    FindingStatus.NOT_NUMERIC: "n",
    FindingStatus.MISSING: "m",
    FindingStatus.CONSTRAINT: "c",
    FindingStatus.NOT_CHECKABLE: "?",
    FindingStatus.NO_RULE: "r",
    FindingStatus.PASS: "p",
}
_MINUTE = 60.0
#: A parameter that moves by less than this share of itself has not changed.
_CHANGED = 0.005
#: Of two scans that differ nobody can say which one changed.
_FEWEST_SCANS = 3


def draw(result: ComplianceResult, protocols: Sequence[Protocol]) -> tuple[Figure, ...]:
    """Draw what a compliance result has to show.

    Parameters
    ----------
    result : ComplianceResult
    protocols : sequence of Protocol
        Those that were checked; they name the series.
    """
    titles = describe_series(protocols)
    made = (
        _status_map(result, titles),
        _coverage(result, titles),
        _time(result, protocols),
        _drift(result, titles),
    )
    return tuple(figure for figure in made if figure is not None)


# Participants by parameters --------------------------------------------------------------------


def _code(finding: Finding) -> str:
    if wants_a_look(finding):
        return "!"
    code = _CODES[finding.status]
    mild = finding.status.is_deviation and finding.severity is not Severity.ERROR
    return code.upper() if mild else code


def _status_map(result: ComplianceResult, titles: SeriesTitles) -> Figure | None:
    cells: dict[tuple[str, str], dict[Unit, Finding]] = defaultdict(dict)
    deviating: Counter[Unit] = Counter()
    units: dict[Unit, None] = {}
    people = any(one.entities.subject for one in result.findings)
    for one in result.findings:
        if not one.series or (people and not one.entities.subject):
            continue  # what concerns a scanner is no participant's
        unit = unit_key(one.entities)
        units.setdefault(unit)
        deviating[unit] += one.status.is_deviation
        own = cells[one.series, one.field]
        if unit not in own or _RANK[_code(one)] < _RANK[_code(own[unit])]:
            own[unit] = one
    if not cells:
        return None
    single, rest = _choose_columns(list(units), deviating)
    rows = [
        _status_row(titles[series], field, own, single, rest)
        for (series, field), own in _in_protocol_order(cells, titles)
    ]
    note = f"{len(rest)} participants without any deviation share the last column." if rest else ""
    columns = [*(_unit_name(unit) for unit in single), *([f"{len(rest)} others"] if rest else [])]
    return figures.status_map(
        "participants-by-parameters",
        "Participants by parameters",
        columns=columns,
        rows=rows,
        keys=_KEYS,
        note=note,
        caption="Each column is a participant, those with most deviations first. A sign marks what deviates, "
        "hatching what nobody can judge because it is not recorded; a plain cell is as asked.",
    )


def _in_protocol_order(
    cells: Mapping[tuple[str, str], dict[Unit, Finding]], titles: SeriesTitles
) -> list[tuple[tuple[str, str], dict[Unit, Finding]]]:
    """Series in the order of the protocol; the presence of the series itself before its values."""
    order = {series: index for index, series in enumerate(titles)}
    return sorted(cells.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0][1] != "series"))


def _choose_columns(units: list[Unit], deviating: Mapping[Unit, int]) -> tuple[list[Unit], list[Unit]]:
    ordered = sorted(units, key=lambda unit: (-deviating[unit], unit))
    if len(ordered) <= _ALL_COLUMNS:
        return ordered, []
    wrong = [unit for unit in ordered if deviating[unit]][:_MOST_COLUMNS]
    return wrong, ordered[len(wrong) :]


def _unit_name(unit: Unit) -> str:
    _, subject, session = unit
    name = subject or "all"
    return f"{name} {session}" if session else name


def _status_row(
    title: str, field: str, own: Mapping[Unit, Finding], single: list[Unit], rest: list[Unit]
) -> StatusRow:
    codes = [_code(own[unit]) if unit in own else _NOTHING for unit in single]
    details = {
        index: _detail(own[unit])
        for index, unit in enumerate(single)
        if unit in own and codes[index] not in "p?r."
    }
    if rest:
        found = [_code(own[unit]) for unit in rest if unit in own]
        codes.append(min(found, key=_RANK.__getitem__) if found else _NOTHING)
    return StatusRow(label=field_words(field), group=title, codes="".join(codes), details=details)


def _detail(finding: Finding) -> str:
    if finding.observed and finding.allowed:
        return f"{finding.observed}; asked for {finding.allowed}"
    return finding.sentence


# Coverage --------------------------------------------------------------------------------------


def _coverage(result: ComplianceResult, titles: SeriesTitles) -> Figure | None:
    rows = [_coverage_row("everything", "", result.overall)]
    for by, word in (("series", "Series"), ("vendor", "Vendors"), ("site", "Sites")):
        found = [one for one in result.by(by) if one.n_asked]
        found = in_protocol_order(found, titles) if by == "series" else found
        if by != "series" and len(found) < 2:
            continue
        # What deviates most comes first; there may be many sites.
        if by == "site":
            found = sorted(found, key=lambda one: one.n_pass - one.n_checkable)[:_MOST_BARS]
        for one in found:
            label = titles[one.key] if by == "series" else one.key
            rows.append(_coverage_row(label or "not known", word, one))
    rows = [row for row in rows if row.n_pass + row.n_deviating + row.n_unknown]
    if not rows:
        return None
    return figures.coverage_bars("coverage", "Compliance beside coverage", rows=rows)


def _coverage_row(label: str, group: str, row: RollUp) -> CoverageRow:
    return CoverageRow(
        label=label,
        group=group,
        n_pass=row.n_pass,
        n_deviating=row.n_checkable - row.n_pass,
        n_unknown=row.n_asked - row.n_checkable,
    )


# Scan time -------------------------------------------------------------------------------------


def _time(result: ComplianceResult, protocols: Sequence[Protocol]) -> Figure | None:
    budgets = [one.time_budget for one in protocols if one.time_budget is not None]
    groups = _time_groups(result.time)
    if not groups:
        return None
    estimates = [
        Estimate(
            label=f"{who} ({len(members)}{', estimated' if estimated else ''})",
            value=total / _MINUTE,
            note="without " + ", ".join(unknown) if unknown else "",
        )
        for (who, total, estimated, unknown), members in groups[:_MOST_BARS]
    ]
    limit = min((one.max_s for one in budgets), default=math.nan)
    known = math.isfinite(limit)
    return figures.bars(
        "scan-time",
        "Scan time of a session",
        panels={"": estimates},
        value_label="scan time",
        unit="min",
        limit=limit / _MINUTE if known else None,
        limit_label="time budget" if known else "",
        caption="Sessions of one vendor with the same time share a bar; their number stands behind it. "
        "The line is the time budget of the protocol. Where headers record no scan time, that of the "
        "protocol's sheet is taken: estimated.",
    )


_TimeKey = tuple[str, float, bool, tuple[str, ...]]


def _time_groups(time: Iterable[TimeUse]) -> list[tuple[_TimeKey, list[TimeUse]]]:
    groups: dict[_TimeKey, list[TimeUse]] = defaultdict(list)
    for one in time:
        if math.isfinite(one.total_s) and one.total_s > 0:
            who = one.entities.vendor or one.entities.site or "sessions"
            groups[who, float(round(one.total_s / 10) * 10), one.estimated, one.unknown].append(one)
    return sorted(groups.items(), key=lambda item: -item[0][1])


# Over time -------------------------------------------------------------------------------------


def _drift(result: ComplianceResult, titles: SeriesTitles) -> Figure | None:
    """Show what changed on a scanner, with the dates of new software."""
    followed: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    software: dict[str, dict[str, str]] = defaultdict(dict)
    for one in result.findings:
        who = one.entities
        if not (who.scanner and who.acquired):
            continue
        if who.software:
            first = software[who.scanner].get(who.software)
            software[who.scanner][who.software] = min(first or who.acquired, who.acquired)
        usable = one.status is not FindingStatus.UNIT_SUSPECT and find_field(one.field) is not None
        if usable and math.isfinite(one.observed_value) and one.file and ", " not in one.file:
            followed[who.scanner, one.series, one.field].append(one)
    changed = [(key, members) for key, members in followed.items() if _has_changed(members)]
    changed.sort(key=lambda item: -_spread(item[1]))
    panels = [_panel(key, members, titles, software) for key, members in changed[:_MOST_PANELS]]
    if not panels:
        return None
    more = f" {len(changed) - len(panels)} further parameters changed." if len(changed) > len(panels) else ""
    return figures.control_chart(
        "protocol-over-time",
        "Parameters that changed on a scanner",
        panels=panels,
        caption="One chart for each parameter that did not stay the same on one scanner. Solid lines are "
        "what the protocol allows, diamonds lie outside; vertical lines are the first scans with new "
        f"software.{more}",
    )


def _values(members: Sequence[Finding]) -> list[float]:
    return [one.observed_value for one in members]


def _spread(members: Sequence[Finding]) -> float:
    values = _values(members)
    scale = max(abs(value) for value in values)
    return (max(values) - min(values)) / scale if scale else 0.0


def _has_changed(members: Sequence[Finding]) -> bool:
    dates = {one.entities.acquired[:10] for one in members}
    return len(members) >= _FEWEST_SCANS and len(dates) > 1 and _spread(members) > _CHANGED


def _panel(
    key: tuple[str, str, str],
    members: Sequence[Finding],
    titles: SeriesTitles,
    software: Mapping[str, Mapping[str, str]],
) -> ControlPanel:
    scanner, series, field = key
    ordered = sorted(members, key=lambda one: one.entities.acquired)
    spec = find_field(field)
    unit = f" ({spec.unit})" if spec is not None and spec.unit else ""
    first = min(software.get(scanner, {}).values(), default="")
    events = {when: name for name, when in software.get(scanner, {}).items() if when != first}
    lows, highs = {one.low for one in ordered}, {one.high for one in ordered}
    return ControlPanel(
        label=f"{scanner}: {titles[series]}, {field_words(field)}{unit}",
        when=[one.entities.acquired for one in ordered],
        values=_values(ordered),
        names=[_unit_name(unit_key(one.entities)) for one in ordered],
        signals=[str(one.status) if one.status.is_deviation else "" for one in ordered],
        low=_only(lows),
        high=_only(highs),
        events=events,
    )


def _only(values: set[float]) -> float:
    value = next(iter(values)) if len(values) == 1 else math.nan
    return value if math.isfinite(value) else math.nan
