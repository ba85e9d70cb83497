"""Count findings: by series, participant, site, vendor and field, and over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from cordqa.protocol.records import Finding, FindingStatus, RollUp
from cordqa.records import Severity, Status

__all__ = ["is_unmatched", "roll_up", "worst_status"]

_NOT_KNOWN = "not known"
_KEYS: tuple[tuple[str, Callable[[Finding], str]], ...] = (
    ("overall", lambda one: "all"),
    ("series", lambda one: one.series),
    ("participant", lambda one: one.entities.subject),
    ("site", lambda one: one.entities.site or _NOT_KNOWN),
    ("vendor", lambda one: one.entities.vendor or _NOT_KNOWN),
    ("field", lambda one: one.field),
)


def is_unmatched(finding: Finding) -> bool:
    """Whether a finding only says that the protocol does not mention a series."""
    return finding.status is FindingStatus.NO_RULE and not finding.series


def roll_up(findings: Sequence[Finding]) -> tuple[RollUp, ...]:
    """Count findings in every way; a group without a name (no participant) is left out."""
    return tuple(one for by, key in _KEYS for one in _by_key(findings, by, key))


def _by_key(findings: Iterable[Finding], by: str, key: Callable[[Finding], str]) -> list[RollUp]:
    groups: dict[str, list[Finding]] = {"all": []} if by == "overall" else {}
    for one in findings:
        name = key(one)
        if name:
            groups.setdefault(name, []).append(one)
    return [_count(by, name, members) for name, members in sorted(groups.items())]


def _count(by: str, name: str, members: Sequence[Finding]) -> RollUp:
    asked = [one for one in members if not is_unmatched(one)]
    deviations = Counter(one.severity is Severity.ERROR for one in asked if one.status.is_deviation)
    return RollUp(
        by=by,
        key=name,
        counts=dict(sorted(Counter(str(one.status) for one in asked).items())),
        n_warnings=deviations[False],
        n_errors=deviations[True],
        n_unmatched=len(members) - len(asked),
    )


def worst_status(findings: Iterable[Finding]) -> Status:
    """Return the verdict over all findings; what could not be judged is never a pass."""
    judged = [one for one in findings if one.status.is_checkable]
    deviations = [one for one in judged if one.status.is_deviation]
    if any(one.severity is Severity.ERROR for one in deviations):
        return Status.FAIL
    if any(one.severity is Severity.WARNING for one in deviations):
        return Status.WARN
    return Status.PASS if judged else Status.NOT_EVALUATED
