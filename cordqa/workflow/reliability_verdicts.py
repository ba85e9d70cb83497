"""Limits judged, what calls for attention, and the sentence that stands first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cordqa.records import Notice, Severity, State, Statistic, Status, Verdict
from cordqa.workflow.reliability_options import Limit
from cordqa.workflow.reliability_relate import describe_relations
from cordqa.workflow.reliability_run import Study, shown_region
from cordqa.workflow.reliability_table import plural

__all__ = ["judge", "overall_status", "summarise"]

_SOURCE = "limit given by the user"


def _fold(name: str) -> str:
    """Compare names of statistics without case, blanks and underscores."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def judge(study: Study, statistics: Sequence[Statistic]) -> tuple[Verdict, ...]:
    """Judge every statistic that a limit names: that of all values together where there is one.

    A limit is met where the estimate is within it and the interval does not reach beyond; where
    the interval does, the limit is met but not shown, which is a warning.  Outside the limit is a
    failure.
    """
    verdicts = tuple(
        verdict for limit in study.settings.limit for verdict in _judge_limit(study, limit, statistics)
    )
    for one in verdicts:
        # A limit with a slip in its name must not vanish behind the others that pass.
        if one.status is Status.NOT_EVALUATED:
            study.note("limit", f"limit {one.rule!r} was not evaluated: {one.reason}", where=one.subject)
    return verdicts


def _judge_limit(study: Study, limit: Limit, statistics: Sequence[Statistic]) -> list[Verdict]:
    name, _, per = limit.statistic.partition(" per ")
    named = [one for one in statistics if _fold(one.name) == _fold(name)]
    mine = [one for one in named if not limit.quantity or _is_quantity(study, one.quantity, limit.quantity)]
    wanted = _of_group(mine, per.strip())
    if wanted:
        return [_judge_one(study, limit, one) for one in wanted]
    names = ", ".join(dict.fromkeys(one.name for one in statistics if one.name.count(" ") == 0))
    of = f" for {limit.quantity}" if named and not mine else ""
    of = f" per {per}" if mine else of
    reason = f"no statistic of this name was computed{of}; there are {names or 'none'}"
    return [_verdict(limit, Status.NOT_EVALUATED, limit.statistic, reason)]


def _of_group(statistics: Sequence[Statistic], per: str) -> list[Statistic]:
    """Keep statistics of all values together, or those per scanner, vendor ... where asked for."""
    if per:
        return [one for one in statistics if one.group.startswith(f"{per}=")]
    whole = [one for one in statistics if not one.group]
    return whole or list(statistics)


def _is_quantity(study: Study, quantity: str, wanted: str) -> bool:
    scope = study.long.scopes.get(quantity)
    names = {quantity.casefold(), scope.label.casefold() if scope else ""}
    return wanted.casefold() in names


def _verdict(limit: Limit, status: Status, subject: str, reason: str) -> Verdict:
    return Verdict(
        status=status,
        subject=subject,
        rule=limit.text,
        low=limit.low if math.isfinite(limit.low) else math.nan,
        high=limit.high if math.isfinite(limit.high) else math.nan,
        unit=limit.unit,
        source=_SOURCE,
        reason=reason,
        scope="limit",
    )


def _judge_one(study: Study, limit: Limit, one: Statistic) -> Verdict:
    label = study.label((one.quantity, one.region)) if one.quantity in study.long.scopes else "all quantities"
    subject = ", ".join(part for part in (label, one.name, one.group) if part)
    found, reason = _status(limit, one)
    base = _verdict(limit, found, subject, reason)
    return Verdict(
        **{
            **{name: getattr(base, name) for name in ("status", "subject", "rule", "low", "high", "source")},
            "observed": abs(one.value) if limit.absolute else one.value,
            "unit": one.unit if one.unit != "1" else "",
            "reason": reason,
            "quantity": one.quantity,
            "scope": "limit",
        }
    )


def _status(limit: Limit, one: Statistic) -> tuple[Status, str]:
    unit = "" if one.unit == "1" else one.unit
    if limit.unit and limit.unit != unit:
        return Status.NOT_EVALUATED, f"the limit is in {limit.unit}, the statistic in {unit or 'no unit'}"
    if not math.isfinite(one.value):
        return Status.NOT_EVALUATED, one.note or "it could not be estimated"
    value, low, high = one.value, one.low, one.high
    if limit.absolute:
        least = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
        value, low, high = abs(value), least, max(abs(low), abs(high))
    counts = ", ".join(f"{count} {level}" for level, count in one.n.items() if count)
    interval = (
        f"{100 * one.interval_level:g} % interval {low:.3g} to {high:.3g}" if math.isfinite(high) else ""
    )
    words = "; ".join(part for part in (interval, counts) if part)
    if not limit.low <= value <= limit.high:
        return Status.FAIL, words
    doubt = _doubt(limit, low, high)
    return (
        (Status.WARN, f"met, but not shown: {doubt or words}") if doubt is not None else (Status.PASS, words)
    )


def _doubt(limit: Limit, low: float, high: float) -> str | None:
    """Return why an estimate within a limit does not show that the limit is met, None where it does."""
    ends = [end for end, bound in ((low, limit.low), (high, limit.high)) if math.isfinite(bound)]
    if any(math.isnan(end) for end in ends):
        return "no interval says how sure it is"
    if low == high:
        return "what was measured does not vary, so that its interval has no width"
    return "" if low < limit.low or high > limit.high else None


def overall_status(verdicts: Sequence[Verdict], notices: Sequence[Notice]) -> Status:
    """Sum up: a failure fails, anything that calls for attention warns, limits that are met pass.

    Without limits nothing can pass: the status is a warning or "not evaluated".
    """
    found = {verdict.status for verdict in verdicts}
    attention = any(notice.severity in (Severity.WARNING, Severity.ERROR) for notice in notices)
    if Status.FAIL in found:
        return Status.FAIL
    if verdicts and found == {Status.NOT_EVALUATED}:
        return Status.NOT_EVALUATED
    if attention or found & {Status.WARN, Status.NOT_EVALUATED}:
        return Status.WARN
    return Status.PASS if verdicts else Status.NOT_EVALUATED


def summarise(study: Study, verdicts: Sequence[Verdict], notices: Sequence[Notice]) -> str:
    """Say in one or two sentences what was analysed and what came of it."""
    counts, design = study.design.counts, study.design
    names = ("subjects", "sessions", "scanners", "sites", "vendors")
    who = ", ".join(plural(counts[name], name[:-1]) for name in names if counts[name] > 0)
    quantities = plural(counts["quantities"], "quantity", "quantities")
    what = f"{counts['values']} values of {quantities} in {plural(counts['regions'], 'region')}"
    who = "one object" + who.removeprefix("1 subject") if design.one_object else who
    sentence = f"{what} ({who})."
    failed = sum(one.state is State.FAILED for one in study.outcomes)
    if verdicts:
        tally = [(status, sum(v.status is status for v in verdicts)) for status in Status]
        sentence += " Limits: " + ", ".join(f"{count} {status}" for status, count in tally if count) + "."
    else:
        sentence += " No limits were given, so nothing is judged; --limit sets them."
    warnings = len({notice.message for notice in notices if notice.severity is Severity.WARNING})
    sentence += f" {plural(warnings, 'thing calls', 'things call')} for attention." if warnings else ""
    sentence += _headline(study) + describe_relations(study)
    return sentence + (f" {plural(failed, 'part')} of the analysis failed." if failed else "")


_HEADLINE = ("slope", "wCV", "wSD", "RC", "RDC", "between_scanner_CV", "ICC(A,1)", "ICC(1,1)", "AUC")
_MOST_HEADLINES = 3


def _headline(study: Study) -> str:
    """Say the main numbers where they are few enough for a sentence."""
    if len(study.groups) > _MOST_HEADLINES:
        return ""
    words = []
    for group in study.groups:
        quantity, region = group[0], shown_region(group[1])
        whole = {
            one.name: one
            for one in reversed(study.statistics)
            if one.quantity == quantity and one.region in (region, "") and not one.group
        }
        names = [name for name in _HEADLINE if name in whole and math.isfinite(whole[name].value)]
        if "wCV" in names:
            names = [name for name in names if name != "wSD"]
        said = [_with_interval(whole[name]) for name in names[:_MOST_HEADLINES]]
        if said:
            words.append(f" {study.label(group)}: {', '.join(said)}.")
    return "".join(words)


def _with_interval(one: Statistic) -> str:
    unit = f" {one.unit}" if one.unit not in ("", "1") else ""
    known = math.isfinite(one.low) and math.isfinite(one.high)
    interval = f" ({one.low:.3g} to {one.high:.3g})" if known else ""
    return f"{one.name} {one.value:.3g}{unit}{interval}"
