"""From headers of a dataset to observed series: BIDS sidecars, DICOM, or both."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cordqa.errors import EmptyInputError
from cordqa.io.bids_index import BidsIndex
from cordqa.io.dicom_protocol import holds_dicom, read_dicom_protocols
from cordqa.io.files import check_folder, printable
from cordqa.io.sidecars import HeaderReading, SeriesHeader, index_headers, read_sidecars
from cordqa.protocol.records import ObservedSeries
from cordqa.records import Notice, Outcome, Severity, State
from cordqa.workflow.protocol.join import join_dicom
from cordqa.workflow.protocol.values import observe_header, plain_error

__all__ = ["Observed", "observe_dataset", "observe_index"]

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a dataset holds, as far as a protocol can be checked.

    Attributes
    ----------
    series : tuple of ObservedSeries
    outcomes : tuple of Outcome
        One per file that could not be read.
    notices : tuple of Notice
    n_headers : int
        Sidecars and DICOM files that were read.
    source : str
        ``BIDS``, ``DICOM`` or both, in words.
    """

    series: tuple[ObservedSeries, ...]
    outcomes: tuple[Outcome, ...] = ()
    notices: tuple[Notice, ...] = ()
    n_headers: int = 0
    source: str = ""

    @property
    def unread(self) -> tuple[Notice, ...]:
        """Notices in place of the outcomes, for reports whose outcomes are something else."""
        failed = (
            Notice(
                severity=Severity.WARNING,
                message=f"the protocol of these series is not known: {one.reason}",
                where=one.what,
                code=one.code,
            )
            for one in self.outcomes
        )
        return (*self.notices, *failed)


def observe_dataset(folder: Path, *, dicom: Path | None = None, show_identity: bool = False) -> Observed:
    """Read the headers of a folder: a BIDS dataset, other sidecars, DICOM files, or sidecars and DICOM.

    Parameters
    ----------
    folder : Path
    dicom : Path, optional
        The DICOM files that the sidecars were made from: what both record must agree, and what only
        DICOM records is checked as well.
    show_identity : bool
        Name the participants of DICOM files by PatientID; they are numbered otherwise.

    Raises
    ------
    InputError
        If a folder cannot be listed, or holds neither sidecars, images nor DICOM files.
    """
    check_folder(folder)
    index = index_headers(folder)
    bids = any(path.name.startswith("sub-") and path.is_dir() for path in folder.iterdir())
    if index is None:
        if dicom is None and not holds_dicom(folder):
            raise EmptyInputError(
                "holds neither BIDS sidecars nor DICOM files",
                where=printable(str(folder)),
                todo="give a BIDS dataset, or a folder of DICOM files",
            )
        return _finish(read_dicom_protocols(dicom or folder, show_identity=show_identity), source="DICOM")
    other = dicom
    if other is None and not bids and holds_dicom(folder):
        other = folder
    return observe_index(index, dicom=other, show_identity=show_identity)


def observe_index(index: BidsIndex, *, dicom: Path | None = None, show_identity: bool = False) -> Observed:
    """Read the sidecars of an indexed dataset, and the DICOM files that they were made from.

    Raises
    ------
    InputError
        If the folder of DICOM files cannot be listed or holds no MR image.
    """
    reading = read_sidecars(index)
    observed = _finish(reading, source="BIDS sidecars", notices=index.notices)
    if dicom is None:
        return observed
    headers = read_dicom_protocols(dicom, show_identity=show_identity)
    return _with_dicom(observed, reading, headers, same_folder=dicom == index.root)


def _with_dicom(
    observed: Observed, sidecars: HeaderReading, dicom: HeaderReading, *, same_folder: bool
) -> Observed:
    joined = join_dicom(observed.series, sidecars.series, dicom.series)
    rest = [header for header in dicom.series if header.source not in joined.used]
    scanners = _scanner_names([*sidecars.series, *dicom.series])
    more = (
        [observe_header(header, scanners.get(_scanner_key(header), "")) for header in rest]
        if same_folder
        else []
    )
    notices = list(observed.notices)
    if rest and joined.used and not same_folder:
        text = f"{len(rest)} of {len(dicom.series)} DICOM series belong to no sidecar and were not checked"
        notices.append(Notice(severity=Severity.INFO, message=text, code="protocol.dicom"))
    if not joined.used:
        text = (
            "no DICOM series could be joined with a sidecar: neither carries the other's series "
            "identifier, nor participant and series number"
        )
        notices.append(Notice(severity=Severity.WARNING, message=text, code="protocol.dicom"))
    return Observed(
        series=(*joined.series, *more),
        outcomes=(*observed.outcomes, *_broken(dicom)),
        notices=tuple(notices),
        n_headers=observed.n_headers + dicom.n_files,
        source="BIDS sidecars and DICOM",
    )


def _finish(reading: HeaderReading, *, source: str, notices: Iterable[Notice] = ()) -> Observed:
    scanners = _scanner_names(reading.series)
    series = tuple(
        observe_header(header, scanners.get(_scanner_key(header), "")) for header in reading.series
    )
    ignored = [
        Notice(severity=Severity.INFO, message=f"{count} passed over: {why}", code="protocol.ignored")
        for why, count in reading.ignored.items()
    ]
    return Observed(
        series=series,
        outcomes=tuple(_broken(reading)),
        notices=(*notices, *ignored),
        n_headers=reading.n_files,
        source=source,
    )


def _observe_all(
    headers: Iterable[SeriesHeader], scanners: Mapping[tuple[str, str, str], str]
) -> tuple[ObservedSeries, ...]:
    return tuple(observe_header(header, scanners.get(_scanner_key(header), "")) for header in headers)


def _broken(reading: HeaderReading) -> Iterable[Outcome]:
    for name, (error, concerned) in reading.broken.items():
        count = len(concerned)
        beyond = f"; {count} series that it speaks for cannot be checked" if count > 1 else ""
        yield Outcome(
            what=printable(name),
            state=State.FAILED,
            reason=f"{plain_error(error)}{beyond}",
            code=error.code,
            sources=(printable(name), *concerned[:_SHOWN]),
        )


# Scanners --------------------------------------------------------------------------------------


def _scanner_key(header: SeriesHeader) -> tuple[str, str, str]:
    return header.vendor, header.model, header.device or header.site


def _scanner_names(series: Sequence[SeriesHeader]) -> dict[tuple[str, str, str], str]:
    """Name scanners by vendor, model and, where there are several of a model, site or a short hash."""
    alike: dict[str, dict[tuple[str, str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    for header in series:
        label = " ".join(part for part in (header.vendor, header.model) if part)
        if label:
            alike[label][_scanner_key(header)].add(header.site)
    names: dict[tuple[str, str, str], str] = {}
    for label, members in alike.items():
        sites = [next(iter(found)) if len(found) == 1 else "" for found in members.values()]
        distinct = len(set(sites)) == len(sites) and all(sites)
        for (key, _), site in zip(members.items(), sites, strict=True):
            suffix = site if distinct else _hash(key[2])
            names[key] = label if len(members) == 1 else f"{label} ({suffix})"
    return names


def _hash(device: str) -> str:
    if not device:
        return "no serial number"
    return hashlib.sha256(device.encode("utf-8", "replace")).hexdigest()[:4]
