"""The decision rule: how a number and its uncertainty become a verdict.

How a number becomes a verdict
------------------------------
A rule has two limits, *warn* and *fail*.  Let ``e`` be the error and ``U`` its expanded uncertainty
(measurement and reference combined, coverage factor of the tolerance file, 2 by default).  In the
language of JCGM 106:2012 the zone between the limits is a guard band on both sides: nothing passes
whose interval ``e ± U`` reaches a failure, and nothing fails whose interval reaches a pass.

=====================================================  ===============
``e`` beyond *fail*, and ``e ± U`` wholly beyond *warn*  fail
``U`` larger than *fail*                                not evaluated
``e`` within *warn*, and ``e ± U`` wholly within *fail*  pass
everything else                                         warn
=====================================================  ===============

So a reference that is itself uncertain by more than the tolerance (no temperature, no serial
number, a calculated value) gives "not evaluated" rather than a verdict on the scanner, unless the
error is larger than any doubt.
"""

from __future__ import annotations

import math

from cordqa.phantom.tolerance import CHECKS, Rule, Tolerances
from cordqa.records import Entities, Statistic, Status, Verdict

__all__ = ["R2_WARNING", "decide", "finite_or_nan", "judge_statistic", "judge_value", "subject_of"]

#: Room for rounding when a value lies exactly on a limit.
_ROUNDING = 1e-9
R2_WARNING = "R2 alone proves nothing: it is near 1 whenever the spheres span a wide range"


def decide(value: float, expanded: float, rule: Rule) -> tuple[Status, str]:
    """Apply the decision rule of this module.

    Parameters
    ----------
    value, expanded : float
        What was observed and its expanded uncertainty, in the unit of the rule; both finite.
    rule : Rule
        The limits.

    Returns
    -------
    Status, str
        The verdict, and why where it is not plain.
    """
    low, high = value - expanded, value + expanded
    within_warn = _within(value, value, rule.warn)
    if not _within(value, value, rule.fail) and (high < rule.warn[0] or low > rule.warn[1]):
        return Status.FAIL, ""
    if expanded > min(abs(rule.fail[0]), abs(rule.fail[1])):
        return Status.NOT_EVALUATED, "the uncertainty is larger than the tolerance"
    if within_warn and _within(low, high, rule.fail):
        return Status.PASS, ""
    if within_warn:
        return Status.WARN, "within the limit, but the uncertainty reaches a failure"
    if not _within(value, value, rule.fail):
        return Status.WARN, "beyond the failure limit, but the uncertainty reaches back to a pass"
    return Status.WARN, "between the limits"


def _within(low: float, high: float, limits: tuple[float, float]) -> bool:
    room = _ROUNDING * max(1.0, abs(low), abs(high))
    return limits[0] - room <= low and high <= limits[1] + room


def judge_value(
    check: str,
    value: float,
    tolerances: Tolerances,
    *,
    quantity: str = "",
    plate: str = "",
    sphere: str = "",
    subject: str = "",
    scope: str = "group",
    reason: str = "",
    entities: Entities | None = None,
) -> Verdict:
    """Judge one number that has no uncertainty of its own (slope, CV, rms ...).

    Parameters
    ----------
    check : str
        Name of the check, one of ``CHECKS``.
    value : float
        The number, in the unit of the check; NaN is not evaluated.
    reason : str
        Added to the verdict.

    Returns
    -------
    Verdict
        Simple acceptance: pass within *warn*, fail beyond *fail*, warn between.
    """
    rule = tolerances.find(check, quantity=quantity, plate=plate, sphere=sphere)
    if rule is None:
        status, reason = Status.NOT_EVALUATED, reason or f"no tolerance for {check} {quantity}".strip()
    elif not math.isfinite(value):
        status, reason = Status.NOT_EVALUATED, reason or "no value"
    else:
        status = Status.PASS if _within(value, value, rule.warn) else Status.WARN
        status = status if _within(value, value, rule.fail) else Status.FAIL
    return Verdict(
        status=status,
        subject=subject
        or ", ".join(part for part in (subject_of(plate, sphere, quantity), CHECKS[check].label) if part),
        rule=rule.text if rule else CHECKS[check].label,
        observed=value,
        low=finite_or_nan(rule.fail[0]) if rule else math.nan,
        high=finite_or_nan(rule.fail[1]) if rule else math.nan,
        unit=CHECKS[check].unit,
        source=rule.source if rule else "",
        reason=reason,
        quantity=quantity,
        region=sphere,
        level=plate,
        scope=scope,
        entities=entities or Entities(),
    )


def finite_or_nan(limit: float) -> float:
    """Write an open side of an interval as NaN, which a table can show as empty."""
    return limit if math.isfinite(limit) else math.nan


def judge_statistic(check: str, statistic: Statistic, tolerances: Tolerances, *, plate: str = "") -> Verdict:
    """Judge a statistic, quoting its interval, its estimator and its flags in the reason.

    ``statistic.value`` must be in the unit of the check (per cent for coefficients of variation).
    """
    parts = []
    if math.isfinite(statistic.low) and math.isfinite(statistic.high):
        parts.append(
            f"{100 * statistic.interval_level:.0f} % interval {statistic.low:.3g} to {statistic.high:.3g}"
        )
    parts += [text for text in (statistic.estimator, *statistic.flags, statistic.note) if text]
    if check == "r2":
        parts.append(R2_WARNING)
    return judge_value(
        check,
        statistic.value,
        tolerances,
        quantity=statistic.quantity,
        plate=plate,
        sphere=statistic.region,
        subject=f"{statistic.name} {statistic.group}".strip(),
        reason="; ".join(parts),
    )


def subject_of(plate: str, sphere: str, quantity: str) -> str:
    """Name what is judged: ``plate 5, sphere 3, T1``."""
    plate = f"plate {plate}" if plate.isdigit() else plate
    sphere = f"sphere {sphere}" if sphere and " " not in sphere else sphere
    return ", ".join(part for part in (plate, sphere, quantity) if part)
