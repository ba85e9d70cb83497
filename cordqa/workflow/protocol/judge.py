"""From findings to the records of a report: verdicts, statistics, notices and the sentence on top."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cordqa.protocol.fields import find_field
from cordqa.protocol.records import (
    ComplianceResult,
    Finding,
    FindingStatus,
    ObservedSeries,
    Protocol,
    RollUp,
)
from cordqa.records import (
    Entities,
    Notice,
    Outcome,
    Severity,
    State,
    Statistic,
    Status,
    Verdict,
)

__all__ = [
    "SeriesTitles",
    "describe_series",
    "field_words",
    "in_protocol_order",
    "judge_findings",
    "make_notices",
    "make_statistics",
    "overall_status",
    "participant_outcomes",
    "summarise",
    "unit_key",
    "wants_a_look",
]

_ALL_OF_THEM = 100.0
_WHOLE = {"session": "Whole session", "all series": "All series"}
_SHELL = re.compile(r"b(\d+(?:\.\d+)?)(.*)")
_SPECIAL = {
    "gradients": "gradient table",
    "series": "presence",
    "file": "header",
    "": "series",
}
#: Roll-ups that become statistics; those by site and participant are in compliance.tsv.
_GROUPS = ("series", "vendor")


def field_words(field: str) -> str:
    """Name a field for people."""
    spec = find_field(field)
    if spec is not None:
        return spec.label
    shell = _SHELL.fullmatch(field)
    if shell is not None:
        return f"volumes at b = {shell[1]} s/mm²{shell[2].replace('-', ', ')}"
    return _SPECIAL.get(field, field)


class SeriesTitles(dict[str, str]):
    """Titles by id of the series rules, in the order of the protocol; ``a+b`` names two series."""

    def __missing__(self, key: str) -> str:
        if key in _WHOLE:
            return _WHOLE[key]
        parts = key.split("+")
        return " and ".join(self.get(part, part) for part in parts) if len(parts) > 1 else key


def describe_series(protocols: Sequence[Protocol]) -> SeriesTitles:
    """Map the ids of series rules to their titles."""
    return SeriesTitles((rule.id, rule.title) for one in protocols for rule in one.series)


def unit_key(entities: Entities) -> tuple[str, str, str]:
    """Return what makes a participant and session: site, subject, session."""
    return entities.site, entities.subject, entities.session


def wants_a_look(finding: Finding) -> bool:
    """Tell whether something could not be judged because it is wrong, not because it is not recorded."""
    recorded = bool(finding.origin and finding.observed)
    wrong = recorded or finding.rule in ("readable", "ambiguous")
    return finding.status is FindingStatus.NOT_CHECKABLE and wrong


def _lacks_vendor(finding: Finding) -> bool:
    """Tell whether a value is recorded, and only the vendor is not, on which its limit depends."""
    vendor = finding.rule == f"{finding.series}.{finding.field}.vendor"
    return vendor and finding.status is FindingStatus.NOT_CHECKABLE


# Verdicts --------------------------------------------------------------------------------------


def judge_findings(result: ComplianceResult, protocols: Sequence[Protocol]) -> tuple[Verdict, ...]:
    """Return one verdict per deviation, and one per parameter for what passed or nobody could judge.

    Parameters
    ----------
    result : ComplianceResult
    protocols : sequence of Protocol
        Those that were checked.

    Returns
    -------
    tuple of Verdict
        The overall one first, then deviations, then what is not checkable, then passes.
    """
    titles = describe_series(protocols)
    bad = [one for one in result.findings if one.status.is_deviation or wants_a_look(one)]
    alike = Counter(_kind(one) for one in bad)
    asked = Counter((one.series, one.field) for one in result.findings)
    bad.sort(key=lambda one: (one.severity is not Severity.ERROR, -alike[_kind(one)], _kind(one), one.file))
    return (
        _overall(result, protocols),
        *(_deviation(one, titles, alike[_kind(one)], asked[one.series, one.field]) for one in bad),
        *_gathered(result.findings, titles),
    )


def _kind(finding: Finding) -> tuple[str, str, str, str, str]:
    """What makes findings alike: one entry of the report with a count."""
    return finding.series, finding.field, str(finding.status), str(finding.severity), finding.source


def overall_status(result: ComplianceResult) -> Status:
    """Return the status of a result; a pass beside something that somebody must mend is a warning."""
    if result.status is Status.PASS and any(wants_a_look(o) or _lacks_vendor(o) for o in result.findings):
        return Status.WARN
    return result.status


def _overall(result: ComplianceResult, protocols: Sequence[Protocol]) -> Verdict:
    roll_up = result.overall
    return Verdict(
        status=overall_status(result),
        subject=", ".join(one.id for one in protocols),
        rule="protocol",
        observed=_percent(roll_up.compliance),
        unit="%",
        reason=f"{roll_up.n_pass} of {roll_up.n_checkable} values that could be judged comply; "
        f"{roll_up.n_checkable} of {roll_up.n_asked} could be judged",
        source="; ".join(one.path.replace("\\", "/").rpartition("/")[2] or one.id for one in protocols),
        scope="overall",
    )


def _percent(share: float) -> float:
    return 100 * share if math.isfinite(share) else math.nan


def _deviation(finding: Finding, titles: SeriesTitles, alike: int, asked: int) -> Verdict:
    number = math.isfinite(finding.observed_value) and find_field(finding.field) is not None
    limited = number and (math.isfinite(finding.low) or math.isfinite(finding.high))
    # With the number and its limit beside it, only what to do is left to say.
    reason = finding.todo if limited else "; ".join(p for p in (finding.sentence, finding.todo) if p)
    error = finding.severity is Severity.ERROR and finding.status.is_deviation
    return Verdict(
        status=Status.FAIL if error else Status.WARN,
        subject=finding.file or _person(finding.entities),
        rule=f"{_rule_words(finding, titles)}{f', {alike} of {asked}' if asked > 1 else ''}",
        observed=finding.observed_value if limited else math.nan,
        low=finding.low if limited and math.isfinite(finding.low) else math.nan,
        high=finding.high if limited and math.isfinite(finding.high) else math.nan,
        unit=finding.unit,
        source=finding.source,
        reason=reason,
        quantity=finding.field,
        region=finding.series,
        scope="series",
        entities=finding.entities,
    )


def _person(entities: Entities) -> str:
    session = f", session {entities.session}" if entities.session else ""
    return f"sub-{entities.subject}{session}" if entities.subject else "the dataset"


def _rule_words(finding: Finding, titles: SeriesTitles) -> str:
    series = titles[finding.series]
    words = {
        FindingStatus.CONSTRAINT: "does not agree",
        FindingStatus.NOT_CHECKABLE: "cannot be judged",
        FindingStatus.NOT_NUMERIC: "is not a number",
        FindingStatus.UNIT_SUSPECT: "seems to be in a wrong unit",
        FindingStatus.MISSING: "is missing",
    }
    status = words.get(finding.status, str(finding.status))
    if finding.field == "series" and series:
        return f"{series} {status}"
    head = f"{series}: " if series else ""
    return f"{head}{field_words(finding.field)} {status}"


def _gathered(findings: Iterable[Finding], titles: SeriesTitles) -> list[Verdict]:
    """One verdict per series and parameter for passes, and one for what could not be judged."""
    asked: Counter[tuple[str, str]] = Counter()
    groups: dict[tuple[FindingStatus, str, str], list[Finding]] = defaultdict(list)
    for one in findings:
        if not one.field or not one.series:
            continue
        asked[one.series, one.field] += 1
        if not one.status.is_deviation and not wants_a_look(one):
            groups[one.status, one.series, one.field].append(one)
    order = (FindingStatus.NOT_CHECKABLE, FindingStatus.NO_RULE, FindingStatus.PASS)
    return [
        _gathered_one(members, titles, asked[series, field])
        for status in order
        for (own, series, field), members in groups.items()
        if own is status
    ]


def _gathered_one(members: Sequence[Finding], titles: SeriesTitles, asked: int) -> Verdict:
    first, count = members[0], len(members)
    series, name = titles[first.series], field_words(first.field)
    share = 100 * count / asked
    if first.status is FindingStatus.PASS:
        status, rule = Status.PASS, f"{name} as asked"
        reason = f"{count} of {asked}"
    else:
        status = Status.NOT_EVALUATED
        rule = f"{name}: {first.status}"
        reasons = Counter(one.sentence for one in members)
        said = "; ".join(text for text, _ in reasons.most_common(2))
        reason = f"{count} of {asked} ({_share_words(share)}): {said}"
    return Verdict(
        status=status,
        subject=series,
        rule=rule,
        reason=reason,
        quantity=first.field,
        scope="parameter",
        source=first.source if status is Status.PASS else "",
    )


def _share_words(share: float) -> str:
    if share in (0.0, _ALL_OF_THEM):
        return f"{share:.0f} %"
    return f"{min(max(share, 0.1), 99.9):.1f} %"


# Statistics ------------------------------------------------------------------------------------


def make_statistics(result: ComplianceResult, protocols: Sequence[Protocol]) -> tuple[Statistic, ...]:
    """Return compliance and coverage, overall and by series and vendor, in percent."""
    titles = describe_series(protocols)
    found = [*_two("", result.overall)]
    for by in _GROUPS:
        rows = in_protocol_order(result.by(by), titles) if by == "series" else result.by(by)
        if by != "series" and len(rows) < 2:
            continue  # one vendor is all of them
        for row in rows:
            if by == "series" and row.key not in titles:
                continue  # what compares several series
            key = titles[row.key] if by == "series" else row.key
            found += _two(f"{by}={key or 'not known'}", row)
    return tuple(found)


def in_protocol_order(rows: Sequence[RollUp], titles: SeriesTitles) -> list[RollUp]:
    """Series as the protocol lists them; what compares several series comes after."""
    order = {series: index for index, series in enumerate(titles)}
    return sorted(rows, key=lambda row: (order.get(row.key, len(order)), row.key))


def _two(group: str, row: RollUp) -> list[Statistic]:
    if not row.n_asked:
        return []
    counts = {"passed": row.n_pass, "judged": row.n_checkable, "asked": row.n_asked}
    return [
        Statistic(
            name="compliance",
            quantity="protocol",
            value=_percent(row.compliance),
            unit="%",
            group=group,
            estimator="passes over what could be judged",
            n=counts,
            note="" if row.n_checkable else "nothing could be judged",
        ),
        Statistic(
            name="coverage",
            quantity="protocol",
            value=_percent(row.coverage),
            unit="%",
            group=group,
            estimator="what could be judged over what the protocol asks",
            n=counts,
        ),
    ]


# Notices and outcomes --------------------------------------------------------------------------


def make_notices(result: ComplianceResult, series: Sequence[ObservedSeries]) -> tuple[Notice, ...]:
    """Say what the reader must know beside the findings: no vendor, no rule, no dates."""
    return (*_without_vendor(series), *_unmatched(result), *_without_date(series))


def _without_vendor(series: Sequence[ObservedSeries]) -> Iterable[Notice]:
    text = (
        "the vendor (Manufacturer) is not recorded, so what differs by vendor cannot be judged; "
        "add it to the sidecar"
    )
    for one in series:
        if not one.vendor and not one.problem and one.parameters:
            yield Notice(severity=Severity.WARNING, message=text, where=one.file, code="protocol.no-vendor")


def _unmatched(result: ComplianceResult) -> Iterable[Notice]:
    for one in result.findings:
        if one.status is FindingStatus.NO_RULE and not one.series:
            yield Notice(
                severity=Severity.INFO,
                message="no series of the protocol matches, so nothing was checked",
                where=one.file,
                code="protocol.no-rule",
            )


def _without_date(series: Sequence[ObservedSeries]) -> Iterable[Notice]:
    dated = sum(bool(one.entities.acquired) for one in series)
    if series and dated < len(series):
        share = _share_words(100 * dated / len(series))
        yield Notice(
            severity=Severity.INFO,
            message=f"an acquisition date is kept in {share} of the headers; changes of a scanner's "
            "protocol over time are only seen where it is",
            code="protocol.dates",
        )


def participant_outcomes(result: ComplianceResult, series: Sequence[ObservedSeries]) -> tuple[Outcome, ...]:
    """Return one outcome per participant and session with what was found."""
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    files: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in series:
        files[unit_key(one.entities)].append(one.file)
    for finding in result.findings:
        if finding.series:
            own = counts[unit_key(finding.entities)]
            own["asked"] += 1
            own["judged"] += finding.status.is_checkable
            own["deviations"] += finding.status.is_deviation
    return tuple(
        Outcome(
            what=_person(Entities(subject=subject, session=session)) + (f" ({site})" if site else ""),
            state=State.DONE,
            reason=_outcome_words(len(found), counts[site, subject, session]),
            sources=tuple(found),
        )
        for (site, subject, session), found in files.items()
    )


def _outcome_words(n_series: int, counts: Mapping[str, int]) -> str:
    deviations = counts.get("deviations", 0)
    found = f"{deviations} deviation{'' if deviations == 1 else 's'}" if deviations else "no deviation"
    judged = f"{counts.get('judged', 0)} of {counts.get('asked', 0)} values could be judged"
    return f"{n_series} series: {found}; {judged}"


def summarise(result: ComplianceResult, protocols: Sequence[Protocol]) -> str:
    """Say in one or two sentences what was found, and how much of it could be judged."""
    roll_up = result.overall
    names = " and ".join(one.title for one in protocols)
    if not roll_up.n_asked:
        return f"No series of {result.n_series} matches a series of {names}: nothing was checked."
    if not any(one.file and one.series for one in result.findings):
        return (
            f"None of the {result.n_series} series is recognised as one of {names}: look at their names, "
            "or at the protocol."
        )
    judged = (
        f"{roll_up.n_checkable} of {roll_up.n_asked} values that the protocol asks for could be judged "
        f"({_share_words(_percent(roll_up.coverage))})"
    )
    if not roll_up.n_checkable:
        return f"{result.n_series} series against {names}: {judged}."
    return (
        f"{result.n_series} series against {names}: {_deviations_words(result)}. {judged}; "
        f"{_share_words(_percent(roll_up.compliance))} of them comply.{_never(result)}"
    )


def _deviations_words(result: ComplianceResult) -> str:
    count = len(result.deviations)
    if not count:
        return "no deviation"
    words = f"{count} deviation{'' if count == 1 else 's'}"
    people = {unit_key(one.entities) for one in result.deviations if one.entities.subject}
    if not people:
        return words
    plural = "" if len(people) == 1 else "s"
    return f"{words} in {len(people)} participant{plural} or session{plural}"


def _never(result: ComplianceResult) -> str:
    """Name what no scan records: that it was not found wanting says nothing."""
    known: dict[str, bool] = {}
    for one in result.findings:
        if one.status is not FindingStatus.NO_RULE and find_field(one.field) is not None:
            known[one.field] = known.get(one.field, False) or one.status is not FindingStatus.NOT_CHECKABLE
    names = [field_words(field) for field, there in known.items() if not there]
    return f" Not recorded in any scan: {', '.join(names)}." if names else ""
