"""The verdict on the acquisition protocol beside the values of another command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cordqa.io.bids_index import BidsIndex
from cordqa.records import Result, Status

__all__ = ["add_protocol", "check_protocol_name"]

_WORST = (Status.FAIL, Status.WARN, Status.PASS)
_WORDS = {
    Status.PASS: "was kept",
    Status.WARN: "was kept with warnings",
    Status.FAIL: "was not kept",
    Status.NOT_EVALUATED: "could not be checked",
}


def check_protocol_name(name: str | None) -> None:
    """Refuse a protocol that is not there before hours of work begin.

    Raises
    ------
    DefinitionError
        If it is not found or not valid; nothing where no protocol was asked for.
    """
    if name:
        from cordqa.workflow.protocol.check import load_protocols

        load_protocols(name)


def add_protocol(
    result: Result,
    source: BidsIndex | Path,
    protocol: str | None,
    *,
    session: str | None = None,
    show_identity: bool = False,
) -> Result:
    """Check the scans behind a result against a protocol, and put the verdict into it.

    Parameters
    ----------
    result : Result
    source : BidsIndex or Path
        Index of the dataset or of one participant, or a folder of DICOM or NIfTI files.
    protocol : str or None
        Name or file; the result comes back as it is where none was asked for.
    session : str, optional
        Only scans of this session.
    show_identity : bool
        Name participants of DICOM files by PatientID.

    Returns
    -------
    Result
        With the verdict, the deviations, compliance and coverage, and the worse of both statuses:
        values of scans that do not keep the protocol are no pass.
    """
    if not protocol:
        return result
    # Only who asks for a protocol pays for the import.
    from cordqa.workflow.protocol.check import check_dataset_protocol
    from cordqa.workflow.protocol.observe import observe_dataset, observe_index

    if isinstance(source, BidsIndex):
        observed = observe_index(source)
    else:
        observed = observe_dataset(source, show_identity=show_identity)
    series = [one for one in observed.series if session is None or one.entities.session == session]
    verdicts, notices, statistics = check_dataset_protocol(series, protocol)
    overall = verdicts[0]
    deviations = [one for one in verdicts[1:] if one.status in (Status.FAIL, Status.WARN)]
    sentence = f"The protocol {overall.subject} {_WORDS[overall.status]}: {overall.reason}."
    return replace(
        result,
        status=_worse(result.status, overall.status),
        summary=f"{result.summary} {sentence}".strip(),
        verdicts=(*result.verdicts, overall, *deviations),
        notices=(*result.notices, *observed.unread, *notices),
        statistics=(*result.statistics, *(one for one in statistics if not one.group)),
    )


def _worse(own: Status, protocol: Status) -> Status:
    """Return the worse status; a protocol that could not be checked is no pass, one not kept a failure."""
    if protocol is Status.NOT_EVALUATED:
        return Status.WARN if own is Status.PASS else own
    if own is Status.NOT_EVALUATED:
        return protocol if protocol is Status.FAIL else own
    return min(own, protocol, key=_WORST.index)
