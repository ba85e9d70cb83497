"""Make findings: one place for the words, so that every rule speaks alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cordqa.protocol.fields import find_field, format_number
from cordqa.protocol.matching import Placed
from cordqa.protocol.records import Finding, FindingStatus, Limit, ObservedValue, Protocol
from cordqa.records import Entities, Severity

__all__ = [
    "NO_LIMIT",
    "Verdict",
    "cite",
    "finding_at",
    "label_of",
    "make_finding",
    "severity_of",
    "show_value",
]

NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison found, before it is known where."""

    status: FindingStatus
    field: str
    rule: str
    severity: Severity = Severity.ERROR  # of a deviation
    source: str = ""  # id of the source
    why: str = ""
    sentence: str
    todo: str = ""
    observed: str = ""
    observed_value: float = math.nan
    limit: Limit = NO_LIMIT
    origin: str = ""


def make_finding(placed: Placed, verdict: Verdict) -> Finding:
    """Say where a comparison was made."""
    return finding_at(
        verdict,
        protocol=placed.protocol,
        file=placed.series.file,
        series=placed.rule.id,
        entities=placed.series.entities,
    )


def finding_at(
    verdict: Verdict, *, protocol: Protocol | None, file: str, series: str, entities: Entities
) -> Finding:
    """Say where a comparison was made, for what is not one series."""
    limit = verdict.limit
    sentence = verdict.sentence
    if verdict.why and verdict.status.is_deviation:
        sentence = f"{sentence} ({verdict.why})"
    return Finding(
        status=verdict.status,
        severity=severity_of(verdict.status, verdict.severity),
        file=file,
        series=series,
        field=verdict.field,
        observed=verdict.observed,
        observed_value=verdict.observed_value,
        unit=limit.unit,
        allowed=limit.text,
        low=limit.low,
        high=limit.high,
        rule=verdict.rule,
        source=cite(protocol, verdict.source),
        sentence=sentence,
        todo=verdict.todo,
        protocol="" if protocol is None else protocol.id,
        origin=verdict.origin,
        entities=entities,
    )


def severity_of(status: FindingStatus, severity: Severity) -> Severity:
    """A pass is information; what could not be judged is at most a warning."""
    if status is FindingStatus.PASS:
        return Severity.INFO
    if status.is_deviation or severity is Severity.INFO:
        return severity
    return Severity.WARNING if status is FindingStatus.NOT_CHECKABLE else Severity.INFO


def cite(protocol: Protocol | None, source_id: str) -> str:
    """Return the citation of a source; the id itself where the protocol does not list it."""
    source = protocol.source(source_id) if protocol is not None and source_id else None
    if source is None:
        return source_id
    commit = f", commit {source.commit[:12]}" if source.commit else ""
    doi = f", doi:{source.doi}" if source.doi else ""
    return f"{source.text}{doi}{commit}"


def label_of(field: str) -> str:
    """Return what people call a field."""
    spec = find_field(field)
    return spec.label if spec is not None else field


def show_value(observed: ObservedValue | None) -> str:
    """Write a value with its unit; what cannot be used as it was recorded."""
    if observed is None:
        return ""
    value: Any = observed.raw if observed.value is None else observed.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{format_number(value)} {observed.unit}".strip()
    if isinstance(value, (tuple, list)):
        shown = [format_number(v) if isinstance(v, float) else str(v) for v in value[:8]]
        return ", ".join(shown) + (", ..." if len(value) > 8 else "")
    return str(value)[:80]
