"""Scan time of a session against the budget of its protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cordqa.protocol.fields import FIELDS
from cordqa.protocol.findings import Verdict, finding_at
from cordqa.protocol.grouping import common_entities, group_placed, same_acquisition
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import Finding, FindingStatus, Limit, Protocol, TimeBudget, TimeUse, Within

__all__ = ["check_time", "minutes", "sheet_time"]


@dataclass(frozen=True, slots=True)
class _Part:
    """Scan time of one scan: measured, from the sheet, or NaN."""

    series: str
    measured_s: float
    sheet_s: float


def check_time(protocol: Protocol, placed: Sequence[Placed]) -> tuple[list[Finding], list[TimeUse]]:
    """Add up the scan time of every session and compare it with the budget.

    A time that is not recorded is taken from the protocol's own sheet; the total is then an estimate,
    and an estimate is never a pass.

    Parameters
    ----------
    protocol : Protocol
    placed : sequence of Placed
        Of this protocol.
    """
    findings: list[Finding] = []
    uses: list[TimeUse] = []
    budget = protocol.time_budget
    counted = () if budget is None else budget.series
    members = [one for one in placed if not counted or one.rule.id in counted]
    for group in group_placed(members, Within.SESSION).values():
        use = _add_up(protocol, group)
        uses.append(use)
        if budget is not None:
            verdict = _judge(budget, use)
            file = group[0].series.file.rsplit("/", 1)[0] if "/" in group[0].series.file else ""
            findings.append(
                finding_at(verdict, protocol=protocol, file=file, series="session", entities=use.entities)
            )
    return findings, uses


def sheet_time(placed: Placed) -> float:
    """Return the time of a series by the protocol's sheet, s; NaN where the sheet has none."""
    durations = placed.rule.duration_s
    return durations.get(placed.series.vendor, durations.get("", math.nan))


def minutes(seconds: float) -> str:
    """Write a time as ``15:00``."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def _add_up(protocol: Protocol, group: Sequence[Placed]) -> TimeUse:
    scans: dict[tuple[str, ...], _Part] = {}
    for one in group:
        part = _Part(one.rule.id, _measured(one), sheet_time(one))
        known = scans.get(same_acquisition(one))
        if known is None or math.isnan(known.measured_s):
            scans[same_acquisition(one)] = part
    measured = [part.measured_s for part in scans.values() if not math.isnan(part.measured_s)]
    rest = [part for part in scans.values() if math.isnan(part.measured_s)]
    estimated = [part.sheet_s for part in rest if not math.isnan(part.sheet_s)]
    unknown = tuple(dict.fromkeys(part.series for part in rest if math.isnan(part.sheet_s)))
    return TimeUse(
        protocol=protocol.id,
        entities=common_entities(group),
        total_s=math.fsum([*measured, *estimated]) if measured or estimated else math.nan,
        measured_s=math.fsum(measured) if measured else math.nan,
        estimated=bool(estimated),
        unknown=unknown,
    )


def _measured(one: Placed) -> float:
    found = one.series.parameters.get("AcquisitionDuration")
    value = found.value if found is not None else None
    shortest, longest = FIELDS["AcquisitionDuration"].plausible
    return value if isinstance(value, float) and shortest <= value <= longest else math.nan


def _judge(budget: TimeBudget, use: TimeUse) -> Verdict:
    limit = Limit(low=0, high=budget.max_s, unit="s", text=f"at most {minutes(budget.max_s)}")
    status, sentence, todo = _outcome(use, limit)
    return Verdict(
        status=status,
        field="scan time",
        rule=f"{use.protocol}.time-budget",
        severity=budget.severity,
        source=budget.source,
        why=budget.why,
        sentence=sentence,
        todo=todo,
        observed="" if math.isnan(use.total_s) else minutes(use.total_s),
        observed_value=use.total_s,
        limit=limit,
    )


def _outcome(use: TimeUse, limit: Limit) -> tuple[FindingStatus, str, str]:
    shorten = "leave out a series, or shorten one (fewer slices, averages or directions, more acceleration)"
    if use.measured_s > limit.high:
        text = f"the recorded scan times add up to {minutes(use.measured_s)}, over the budget of {limit.text}"
        return FindingStatus.OUT_OF_RANGE, text, shorten
    if not use.estimated and not use.unknown:
        text = f"the scan takes {minutes(use.total_s)}, within the budget ({limit.text})"
        return FindingStatus.PASS, text, ""
    add = "add AcquisitionDuration to the sidecars; a current dcm2niix writes it where the header has it"
    if use.unknown:
        known = "" if math.isnan(use.total_s) else f"; the rest takes {minutes(use.total_s)}"
        text = f"the scan time of {', '.join(use.unknown)} is not recorded{known}"
        return FindingStatus.NOT_CHECKABLE, text, add
    over = use.total_s > limit.high
    text = (
        f"the scan takes about {minutes(use.total_s)}, estimated from the protocol's sheet because not all "
        f"times are recorded; {'that is over' if over else 'within'} the budget ({limit.text})"
    )
    return FindingStatus.NOT_CHECKABLE, text, shorten if over else add
