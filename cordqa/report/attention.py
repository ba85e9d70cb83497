"""What needs attention: failed and warned checks and notices, most severe first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cordqa.records import Notice, Result, Severity, Status, Verdict
from cordqa.report.words import format_limits, format_observed, status_word

__all__ = ["Alert", "Case", "collect_alerts"]

_SCOPES = {"overall": 0, "plate": 1, "series": 1}
_NOTICE_RANK = {Severity.ERROR: 1, Severity.WARNING: 3, Severity.INFO: 6}
_VERDICT_RANK = {Status.FAIL: 0, Status.WARN: 2, Status.NOT_EVALUATED: 4}


@dataclass(frozen=True, slots=True)
class Case:
    """One of the things that an alert concerns."""

    subject: str
    observed: str = ""
    limit: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to look at.

    ``look`` chooses colour and sign: ``fail``, ``warn``, ``none`` or ``info``.
    """

    look: str
    word: str
    title: str
    cases: tuple[Case, ...] = ()
    limit: str = ""
    reason: str = ""
    source: str = ""


def collect_alerts(result: Result) -> list[Alert]:
    """Return all alerts, most severe first; like ones are gathered into one."""
    ranked = [*_verdict_alerts(result.verdicts), *_notice_alerts(result.notices)]
    return [alert for _, alert in sorted(ranked, key=lambda pair: pair[0])]


def _verdict_alerts(verdicts: Sequence[Verdict]) -> list[tuple[tuple[int, int], Alert]]:
    groups: dict[tuple[str, ...], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        # The overall verdict heads the page already; here stand its causes.
        if verdict.status is not Status.PASS and verdict.scope != "overall":
            rule = (verdict.scope, verdict.rule, verdict.quantity, verdict.unit, verdict.source)
            groups[(str(verdict.status), *rule)].append(verdict)
    return [(_verdict_rank(group[0]), _verdict_alert(group)) for group in groups.values()]


def _verdict_rank(verdict: Verdict) -> tuple[int, int]:
    return _VERDICT_RANK[verdict.status], _SCOPES.get(verdict.scope, 2)


def _verdict_alert(group: Sequence[Verdict]) -> Alert:
    first = group[0]
    limits = {_limit(verdict) for verdict in group}
    reasons = {verdict.reason for verdict in group}
    same_limit = limits.pop() if len(limits) == 1 else ""
    same_reason = reasons.pop() if len(reasons) == 1 else ""
    cases = tuple(
        Case(
            subject=_subject(verdict),
            observed=_observed(verdict),
            limit="" if same_limit else _limit(verdict),
            reason="" if same_reason else verdict.reason,
        )
        for verdict in group
    )
    look = {Status.FAIL: "fail", Status.WARN: "warn"}.get(first.status, "none")
    return Alert(
        look=look,
        word=status_word(first.status),
        title=_sentence(first.rule or first.subject),
        cases=cases,
        limit=same_limit,
        reason=same_reason,
        source=first.source,
    )


def _subject(verdict: Verdict) -> str:
    """Say what was judged, and on which scan where the subject leaves that open."""
    entities = verdict.entities
    session = f"session {entities.session}" if entities.session else ""
    where = [entities.subject, entities.scanner, session]
    extra = ", ".join(part for part in where if part and part not in verdict.subject)
    return f"{verdict.subject} · {extra}" if extra else verdict.subject


def _sentence(text: str) -> str:
    """Begin with a capital where the first word is a plain one (not ``mSv`` or ``scans/a``)."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first.replace("-", "").isalpha() and first.islower() else text


def _limit(verdict: Verdict) -> str:
    return format_limits(verdict.low, verdict.high, verdict.unit)


def _observed(verdict: Verdict) -> str:
    text = format_observed(verdict.observed, verdict.low, verdict.high, verdict.unit)
    return "" if text == "—" else text


def _notice_alerts(notices: Sequence[Notice]) -> list[tuple[tuple[int, int], Alert]]:
    groups: dict[tuple[Severity, str], list[Notice]] = defaultdict(list)
    for notice in notices:
        groups[notice.severity, notice.message].append(notice)
    return [
        ((_NOTICE_RANK[severity], 0), _notice_alert(severity, message, group))
        for (severity, message), group in groups.items()
    ]


def _notice_alert(severity: Severity, message: str, group: Sequence[Notice]) -> Alert:
    look = {Severity.ERROR: "fail", Severity.WARNING: "warn"}.get(severity, "info")
    word = {Severity.ERROR: "Error", Severity.WARNING: "Warning"}.get(severity, "Note")
    places = dict.fromkeys(notice.where for notice in group if notice.where)
    return Alert(look=look, word=word, title=_sentence(message), cases=tuple(Case(place) for place in places))
