"""``cordqa protocol``: was the dataset scanned as the protocol asks? Read, check, write, say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cordqa import __version__
from cordqa.io.results import prepare_folder, table_text, write_config, write_result, write_text
from cordqa.protocol.records import Finding, FindingStatus, Protocol, RollUp
from cordqa.records import Provenance, Result, Status
from cordqa.workflow.protocol.check import ProtocolCheck, check_observed, load_protocols
from cordqa.workflow.protocol.figures import draw
from cordqa.workflow.protocol.judge import overall_status, participant_outcomes, summarise
from cordqa.workflow.protocol.methods import methods, references
from cordqa.workflow.protocol.observe import Observed, observe_dataset

__all__ = ["ProtocolSettings", "run_protocol"]

Progress = Callable[[str], None]
#: Worst first, in tables.
_ORDER = {
    status: rank
    for rank, status in enumerate(
        (
            FindingStatus.OUT_OF_RANGE,
            FindingStatus.CONSTRAINT,
            FindingStatus.UNIT_SUSPECT,
            FindingStatus.NOT_NUMERIC,
            FindingStatus.MISSING,
            FindingStatus.NOT_CHECKABLE,
            FindingStatus.NO_RULE,
            FindingStatus.PASS,
        )
    )
}
#: Files with BIDS names, which are no free text.
_NAMED = (".json", ".nii", ".nii.gz")
_SEVERITY = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSettings:
    """Options of a check.

    Attributes
    ----------
    dicom : Path, optional
        DICOM files that the sidecars were made from.
    show_identity : bool
        Name the participants of DICOM files by PatientID.
    """

    dicom: Path | None = None
    show_identity: bool = False


def run_protocol(
    name: str | Path,
    data: Path,
    out: Path,
    *,
    settings: ProtocolSettings | None = None,
    progress: Progress | None = None,
) -> Result:
    """Check a dataset against a protocol and write tables and result into ``out``.

    Parameters
    ----------
    name : str or Path
        Protocol or YAML file; several names separated by commas.
    data : Path
        BIDS dataset, folder with JSON sidecars, or DICOM files.
    out : Path
        Receives ``result.json``, ``findings.tsv`` (every comparison, worst first), ``compliance.tsv``
        (shares by series, participant, site and vendor) and the tables of every result.
    settings : ProtocolSettings, optional
    progress : callable, optional
        Told what is going on, one line at a time.

    Returns
    -------
    Result
        ``FAIL`` where a deviation is an error, ``NOT_EVALUATED`` where nothing could be judged.

    Raises
    ------
    DefinitionError
        If the protocol is not found or not valid.
    InputError
        If the data cannot be read at all.
    OutputError
        If the output cannot be written.
    """
    settings = settings or ProtocolSettings()
    tell = progress or (lambda _message: None)
    protocols = load_protocols(name)
    prepare_folder(out)
    tell(f"reading headers of {data}")
    observed = observe_dataset(data, dicom=settings.dicom, show_identity=settings.show_identity)
    tell(f"checking {len(observed.series)} series")
    check = check_observed(observed.series, protocols)
    result = _result(check, observed, settings)
    findings = check.result.findings
    if not settings.show_identity:
        findings = tuple(_without_free_text(one) for one in findings)
    write_text(out / "findings.tsv", _findings_table(findings))
    write_text(out / "compliance.tsv", _roll_up_table(check.result.roll_ups))
    write_config(dict(result.provenance.config), out)
    write_result(result, out)
    return result


def _result(check: ProtocolCheck, observed: Observed, settings: ProtocolSettings) -> Result:
    failed = observed.outcomes
    result = Result(
        kind="protocol",
        title=f"Acquisition protocol: {', '.join(one.title for one in check.protocols)}",
        status=overall_status(check.result),
        verdicts=check.verdicts,
        statistics=check.statistics,
        notices=(*observed.notices, *check.notices),
        outcomes=(*failed, *participant_outcomes(check.result, observed.series)),
        figures=draw(check.result, check.protocols),
        methods=methods(check.protocols, observed),
        references=references(check.protocols),
        provenance=_provenance(check.protocols, settings),
    )
    summary = summarise(check.result, check.protocols)
    if failed:
        count = len(failed)
        summary += f" {count} file{'' if count == 1 else 's'} could not be read."
    if result.status is Status.PASS and failed:
        result = replace(result, status=Status.WARN)
    return replace(result, summary=summary)


def _provenance(protocols: Sequence[Protocol], settings: ProtocolSettings) -> Provenance:
    # Paths may name people; files are named without their folders.
    names = ",".join(_file_name(one) for one in protocols)
    options = " --dicom DICOM_DIR" if settings.dicom else ""
    options += " --show-identity" if settings.show_identity else ""
    config = {
        "protocols": [{"id": one.id, "version": one.version, "file": _file_name(one)} for one in protocols],
        "dicom": settings.dicom is not None,
        "show_identity": settings.show_identity,
    }
    return Provenance(
        version=__version__,
        command=f"cordqa protocol {names} DATA OUT{options}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config,
        packages={name: metadata.version(name) for name in ("numpy", "pydicom", "pydantic")},
        engine=f"cordqa {__version__}",
    )


def _file_name(protocol: Protocol) -> str:
    name = protocol.path.replace("\\", "/").rpartition("/")[2]
    return protocol.id if name == f"{protocol.id}.yaml" else name or protocol.id


def _without_free_text(finding: Finding) -> Finding:
    """Leave out the name that somebody typed at the scanner: it may hold anything."""
    if finding.rule != "unmatched" or finding.file.endswith(_NAMED):
        return finding
    return replace(finding, sentence="the protocol does not mention this series")


def _findings_table(findings: Sequence[Finding]) -> str:
    ordered = sorted(
        findings,
        key=lambda one: (_ORDER[one.status], _SEVERITY[one.severity], one.series, one.field, one.file),
    )
    return table_text(ordered, Finding)


def _roll_up_table(rows: Sequence[RollUp]) -> str:
    names = [str(status) for status in FindingStatus]
    columns = ["by", "key", "asked", "judged", "passed", "compliance_percent", "coverage_percent", *names]
    lines = ["\t".join(column.replace(" ", "_") for column in columns)]
    for row in rows:
        key = " ".join(row.key.split()) or "n/a"
        numbers = [row.n_asked, row.n_checkable, row.n_pass]
        shares = [
            f"{100 * share:.2f}" if math.isfinite(share) else "n/a"
            for share in (row.compliance, row.coverage)
        ]
        counts = [row.counts.get(name, 0) for name in names]
        lines.append("\t".join(map(str, (row.by, key, *numbers, *shares, *counts))))
    return "\n".join(lines) + "\n"
