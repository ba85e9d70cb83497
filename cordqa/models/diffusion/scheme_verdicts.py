"""Verdicts on gradient schemes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cordqa.records import Status, Verdict

__all__ = ["make_verdict", "worst"]


def make_verdict(
    status: Status,
    subject: str,
    rule: str,
    observed: float,
    reason: str,
    *,
    low: float = math.nan,
    high: float = math.nan,
    unit: str = "",
    source: str = "",
) -> Verdict:
    """Make the verdict of one check of a shell, or of the scheme."""
    return Verdict(
        status=status,
        subject=subject,
        rule=rule,
        observed=observed,
        reason=reason,
        low=low,
        high=high,
        unit=unit,
        source=source,
        scope="scheme" if subject == "scheme" else "shell",
    )


def worst(verdicts: Sequence[Verdict]) -> Status:
    """Return the worst status; not evaluated where nothing could be judged."""
    for status in (Status.FAIL, Status.WARN, Status.PASS):
        if any(verdict.status is status for verdict in verdicts):
            return status
    return Status.NOT_EVALUATED
