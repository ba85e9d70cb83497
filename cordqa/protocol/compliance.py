"""Whether scans were what their protocol asks: protocols and observed series in, findings out.

Nothing is read here; :mod:`cordqa.workflow.protocol` brings sidecars and DICOM headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cordqa.protocol.check_gradients import GradientMemory, check_gradients
from cordqa.protocol.check_groups import check_constraints
from cordqa.protocol.check_time import check_time
from cordqa.protocol.check_values import check_values
from cordqa.protocol.findings import Verdict, finding_at, make_finding
from cordqa.protocol.matching import Placed, Placement, place_series
from cordqa.protocol.records import (
    ComplianceResult,
    Finding,
    FindingStatus,
    ObservedSeries,
    Protocol,
    SeriesRule,
    TimeUse,
)
from cordqa.protocol.rollup import roll_up, worst_status
from cordqa.protocol.traps import check_traps
from cordqa.records import Entities, Severity

__all__ = ["check_compliance"]

SessionKey = tuple[str, str, str]


def check_compliance(
    protocols: Protocol | Sequence[Protocol],
    observed: Iterable[ObservedSeries],
    *,
    sessions: Iterable[Entities] = (),
) -> ComplianceResult:
    """Compare observed series with one or several protocols.

    Parameters
    ----------
    protocols : Protocol or sequence of Protocol
        With several, each series falls under the one that recognises it; a series that two recognise
        is named and not checked.
    observed : iterable of ObservedSeries
        In any order, which does not matter.
    sessions : iterable of Entities, optional
        Sessions that should be there even if nothing was read of them: all of their series are missing.

    Returns
    -------
    ComplianceResult
        Findings in the order of participants, sessions, series and fields.

    Examples
    --------
    >>> from cordqa.protocol.definition import load_protocol
    >>> from cordqa.protocol.example import make_compliant_series
    >>> protocol = load_protocol("spine-generic-3t")
    >>> result = check_compliance(protocol, make_compliant_series(protocol, vendor="Siemens", model="Prisma"))
    >>> result.overall.compliance
    1.0
    """
    chosen = (protocols,) if isinstance(protocols, Protocol) else tuple(protocols)
    series = sorted(observed, key=lambda one: (one.session_key, one.file))
    placement = place_series(chosen, series)
    findings: list[Finding] = []
    times: list[TimeUse] = []
    findings += _check_series(placement)
    for protocol in chosen:
        placed = [one for one in placement.placed if one.protocol is protocol]
        known = _sessions(protocol, series, placed, sessions, alone=len(chosen) == 1)
        findings += _check_missing(protocol, known, placement)
        findings += check_constraints(protocol, placed)
        spent, uses = check_time(protocol, placed)
        findings += spent
        times += uses
        findings += check_traps(protocol, placed)
    return ComplianceResult(
        protocols=tuple(one.id for one in chosen),
        status=worst_status(findings),
        findings=tuple(findings),
        roll_ups=roll_up(findings),
        time=tuple(times),
        n_series=len(series),
    )


def _check_series(placement: Placement) -> Iterable[Finding]:
    """Check each series by itself, and name those that no rule or several rules recognise."""
    memory = GradientMemory()
    for one in placement.placed:
        if one.series.problem:
            yield make_finding(one, _unreadable(one.series))
        yield from check_values(one)
        yield from check_gradients(one, memory)
    for series in placement.unmatched:
        yield finding_at(
            _unmatched(series), protocol=None, file=series.file, series="", entities=series.entities
        )
    for series, found in placement.ambiguous:
        verdict = _ambiguous(found)
        rules = "+".join(rule.id for _, rule in found)
        yield finding_at(verdict, protocol=None, file=series.file, series=rules, entities=series.entities)


def _unreadable(series: ObservedSeries) -> Verdict:
    return Verdict(
        status=FindingStatus.NOT_CHECKABLE,
        field="file",
        rule="readable",
        sentence=f"how it was acquired is not known: {series.problem}",
        todo="correct the file, or convert the scan again",
    )


def _unmatched(series: ObservedSeries) -> Verdict:
    name = series.suffix or series.protocol_name or series.series_description or "this series"
    return Verdict(
        status=FindingStatus.NO_RULE,
        field="series",
        rule="unmatched",
        severity=Severity.INFO,
        sentence=f"the protocol does not mention {name}"
        + (f"; besides, {series.problem}" if series.problem else ""),
        todo="nothing, unless it should be one of the protocol's series: then look at its name",
    )


def _ambiguous(found: Sequence[tuple[Protocol, SeriesRule]]) -> Verdict:
    names = [f"{rule.id} of {protocol.id}" for protocol, rule in found]
    return Verdict(
        status=FindingStatus.NOT_CHECKABLE,
        field="series",
        rule="ambiguous",
        sentence=f"it matches {' and '.join(names)}, so it cannot be told what it should be",
        todo="give one protocol, or make the match of one of them narrower",
    )


def _sessions(
    protocol: Protocol,
    series: Sequence[ObservedSeries],
    placed: Sequence[Placed],
    expected: Iterable[Entities],
    *,
    alone: bool,
) -> dict[SessionKey, Entities]:
    """Return the sessions in which a protocol should be complete.

    With several protocols, those in which some of it was scanned.
    """
    found: dict[SessionKey, Entities] = {}
    started = {one.series.session_key for one in placed}
    for one in series:
        if alone or one.session_key in started:
            found.setdefault(one.session_key, _of_session(one.entities))
    for entities in expected:
        found.setdefault((entities.site, entities.subject, entities.session), _of_session(entities))
    return dict(sorted(found.items()))


def _of_session(entities: Entities) -> Entities:
    return replace(entities, run="", acquisition="", acquired="")


def _check_missing(
    protocol: Protocol, sessions: dict[SessionKey, Entities], placement: Placement
) -> Iterable[Finding]:
    """Say of every session and required series whether it is there."""
    there = {(one.series.session_key, one.rule.id) for one in placement.placed if one.protocol is protocol}
    there |= {
        (series.session_key, rule.id)
        for series, found in placement.ambiguous
        for owner, rule in found
        if owner is protocol
    }
    for key, entities in sessions.items():
        for rule in protocol.series:
            if rule.required:
                verdict = _presence(rule, present=(key, rule.id) in there)
                yield finding_at(verdict, protocol=protocol, file="", series=rule.id, entities=entities)


def _presence(rule: SeriesRule, *, present: bool) -> Verdict:
    return Verdict(
        status=FindingStatus.PASS if present else FindingStatus.MISSING,
        field="series",
        rule=f"{rule.id}.required",
        sentence=f"{rule.title} was scanned" if present else f"{rule.title} is missing",
        todo="" if present else "scan it, or look whether its files are named otherwise",
    )
