"""Check observed series against protocols, and say it in the records that every report understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cordqa.io.bids_index import BidsIndex
from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import load_protocol
from cordqa.protocol.records import ComplianceResult, ObservedSeries, Protocol
from cordqa.records import Notice, Statistic, Verdict
from cordqa.workflow.protocol.judge import judge_findings, make_notices, make_statistics
from cordqa.workflow.protocol.observe import observe_dataset, observe_index

__all__ = ["ProtocolCheck", "check_dataset_protocol", "check_observed", "load_protocols"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCheck:
    """What a check found, as a result, and as the records of a report."""

    protocols: tuple[Protocol, ...]
    result: ComplianceResult
    verdicts: tuple[Verdict, ...]
    notices: tuple[Notice, ...]
    statistics: tuple[Statistic, ...]


def load_protocols(names: str | Path | Protocol) -> tuple[Protocol, ...]:
    """Load one protocol, or several whose names are separated by commas.

    Raises
    ------
    DefinitionError
        If one of them is not found or not valid.
    """
    if isinstance(names, Protocol):
        return (names,)
    text = str(names)
    parts = [text] if Path(text).is_file() else [part.strip() for part in text.split(",") if part.strip()]
    loaded = {(one.id, one.path): one for one in map(load_protocol, parts or [text])}
    return tuple(loaded.values())  # a name and its alias are one protocol


def check_observed(series: Sequence[ObservedSeries], protocols: Sequence[Protocol]) -> ProtocolCheck:
    """Check series against protocols."""
    result = check_compliance(tuple(protocols), series)
    return ProtocolCheck(
        protocols=tuple(protocols),
        result=result,
        verdicts=judge_findings(result, protocols),
        notices=make_notices(result, series),
        statistics=make_statistics(result, protocols),
    )


def check_dataset_protocol(
    source: BidsIndex | Path | Sequence[ObservedSeries], protocol: str | Path | Protocol
) -> tuple[tuple[Verdict, ...], tuple[Notice, ...], tuple[Statistic, ...]]:
    """Check a dataset against a protocol, for a report that shows the verdict beside its values.

    Parameters
    ----------
    source : BidsIndex, Path or sequence of ObservedSeries
        An index (of a whole dataset or one participant), a folder of sidecars or DICOM files, or what
        was read already.
    protocol : str, Path or Protocol
        Name or file; several names separated by commas.

    Returns
    -------
    verdicts : tuple of Verdict
        The overall one first, with ``scope`` = ``"protocol"``, so that it stands among others.
    notices : tuple of Notice
        With the files that could not be read.
    statistics : tuple of Statistic

    Raises
    ------
    DefinitionError
        If the protocol is not found or not valid.
    InputError
        If a folder holds nothing that can be checked.
    """
    protocols = load_protocols(protocol)
    notices: tuple[Notice, ...] = ()
    if isinstance(source, (BidsIndex, Path)):
        observed = observe_index(source) if isinstance(source, BidsIndex) else observe_dataset(source)
        series: Sequence[ObservedSeries] = observed.series
        notices = observed.unread
    else:
        series = source
    check = check_observed(series, protocols)
    return _beside(check), (*notices, *check.notices), check.statistics


def _beside(check: ProtocolCheck) -> tuple[Verdict, ...]:
    from dataclasses import replace

    overall, *others = check.verdicts
    words = {"overall": "protocol", "parameter": "protocol parameter", "series": "protocol"}
    return tuple(
        replace(one, scope=words.get(one.scope, one.scope), rule=_named(one.rule))
        for one in (overall, *others)
    )


def _named(rule: str) -> str:
    return rule if rule.startswith("protocol") else f"protocol: {rule}"
