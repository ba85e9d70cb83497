"""What the headers of a dataset say of each series: JSON sidecars, inherited ones too.

Values are kept as they are written, in the units of BIDS (seconds, degrees, tesla, millimetres),
with the file that each one comes from.  Nothing is corrected here: that a number is a list, a text
with a comma or in milliseconds is for the check to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cordqa.errors import CordqaError, InputError, TooLargeError
from cordqa.io.bids import Sidecars, load_json
from cordqa.io.bids_index import BidsFile, BidsIndex, index_dataset
from cordqa.io.bids_names import parse_name, split_extension
from cordqa.io.files import check_folder, printable, walk_folder
from cordqa.io.gradients import GradientPaths
from cordqa.io.image_sizes import read_image_sizes
from cordqa.io.limits import DEFAULT_LIMITS
from cordqa.io.vendors import vendor_name

__all__ = ["MAX_SIDECAR_BYTES", "HeaderReading", "SeriesHeader", "index_headers", "read_sidecars"]

MAX_SIDECAR_BYTES = 2 * 1024 * 1024
_MAX_NUMBERS = 4096
_STEM = re.compile(r"\.(?:nii(?:\.gz)?|json)$")
#: Folders of BIDS that hold images of a scanner; none where files lie in the folder of the participant.
_DATATYPES = frozenset({"anat", "dwi", "fmap", "func", "perf", "swi", ""})
_READ = (".nii.gz", ".nii", ".json", ".bval", ".bvec", ".bdelta", ".b")
#: Sidecars there that describe something else than an image.
_NOT_IMAGES = """
events physio stim aslcontext asllabeling scans coordsystem sessions seg dseg probseg mask label labels
"""
_GRADIENTS = {"bval": ".bval", "bvec": ".bvec", "bdelta": ".bdelta", "btens": ".btens", "mrtrix": ".b"}
_NO_SERIES = ("dataset_description.json", "participants.json", "result.json", "measurements.json")
#: What tells who somebody is, or where; it is never kept.
_IDENTITY = re.compile(
    r"^(?:Patient(?!Position$)|Institution|Referring|Physician|Operator|AccessionNumber|Study|StationName"
    r"|SeriesInstanceUID|SeriesDescription|ProtocolName|ProcedureStep|Performed|Requested|Issuer|Ethnic"
    r"|Occupation|AdditionalPatient|ImageComments)"
)
_DEVICE = ("DeviceSerialNumber", "StationName")
_SITE_COLUMNS = ("site", "site_id", "institution_id", "institution", "center", "centre")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeader:
    """What the headers say of one series.

    Attributes
    ----------
    source : str
        File that it is named by, relative to the folder that was given.
    subject, session : str
        Labels without ``sub-`` and ``ses-``; a DICOM series has those of its folder or study.
    entities : mapping
        Value by key of BIDS names (``acq``, ``mt``, ``echo``).
    suffix, datatype : str
        ``T2w`` and ``anat``; of a DICOM series what its header makes of it, or empty.
    site, vendor, model, software : str
        The site is that of ``participants.tsv``, else the institution of a BIDS sidecar.
    device, series_uid, series_number : str, str, int
        Tell machines apart, and join a sidecar with its DICOM series; never shown.
    acquired : str
        ISO 8601 date, or date and time; empty where the header does not tell.
    values : mapping
        What is written, by BIDS name, in BIDS units.
    origins : mapping
        Where each value is from: ``sidecar`` or ``DICOM``, and the file where it is not the own one.
    protocol_name, series_description : str
        Names that somebody gave at the scanner; they only serve to recognise a series.
    gradients : GradientPaths
        Files that describe the diffusion weighting.
    contradictions : mapping
        Name to sentence, where two sources give different values.
    problems : tuple of str
        What could not be read; the rest of this record stands.
    """

    source: str
    subject: str = ""
    session: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    datatype: str = ""
    site: str = ""
    vendor: str = ""
    model: str = ""
    software: str = ""
    device: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    series_number: int = 0
    acquired: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    protocol_name: str = ""
    series_description: str = ""
    gradients: GradientPaths = field(default_factory=GradientPaths)
    contradictions: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderReading:
    """Series of a folder, and the files that could not be read, with the series that they concern.

    Attributes
    ----------
    series : tuple of SeriesHeader
    broken : mapping of str to (CordqaError, tuple of str)
        File to what is wrong with it, and the series that are left without it.
    n_files : int
        Headers that were looked at.
    ignored : mapping of str to int
        Files passed over, by reason.
    """

    series: tuple[SeriesHeader, ...]
    broken: Mapping[str, tuple[CordqaError, tuple[str, ...]]] = field(default_factory=dict)
    n_files: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)


def index_headers(folder: Path) -> BidsIndex | None:
    """Index a BIDS dataset, or any folder of images and JSON sidecars.

    Outside of a BIDS dataset every image or sidecar is a series of one participant, and the last
    word of its name is its suffix.

    Returns
    -------
    BidsIndex or None
        ``None`` where the folder holds neither images nor sidecars.

    Raises
    ------
    InputError
        If it cannot be listed.
    """
    check_folder(folder)
    if any(path.name.startswith("sub-") and path.is_dir() for path in folder.iterdir()):
        try:
            return index_dataset(folder)
        except TooLargeError:
            raise
        except InputError:
            return None  # folders of participants may hold DICOM files
    files = [
        _plain_file(folder, name)
        for name in walk_folder(folder, limits=DEFAULT_LIMITS).files
        if name.lower().endswith(_READ)
        and name.rpartition("/")[2] not in _NO_SERIES
        and not name.startswith("derivatives/")
    ]
    if not any(file.is_image or file.extension == ".json" for file in files):
        return None
    return BidsIndex(folder, tuple(files), {}, ())


def _plain_file(root: Path, relative: str) -> BidsFile:
    """Describe a file by its name, which may or may not be a BIDS name."""
    name = parse_name(relative.rpartition("/")[2])
    if name is not None:
        kind = "dwi" if name.suffix == "dwi" else ""
        return BidsFile(
            root, relative, name.entities, name.suffix, name.source_suffix, name.extension, kind, ""
        )
    stem, extension = split_extension(relative.rpartition("/")[2])
    return BidsFile(root, relative, {}, stem.rpartition("_")[2], "", extension.lower(), "", "")


def read_sidecars(index: BidsIndex) -> HeaderReading:
    """Read the sidecars of every series of the raw data.

    An image without any sidecar is a series without values; a sidecar without its image is a
    series as well, because public datasets often come without their images.

    Parameters
    ----------
    index : BidsIndex

    Returns
    -------
    HeaderReading
        In the order of the index.  A series that a broken file speaks for has no values.
    """
    reader = _Reader(index)
    series = [reader.read(stem, file) for stem, file in _series_files(index.files).items()]
    return HeaderReading(
        tuple(series),
        {name: (error, tuple(concerned)) for name, (error, concerned) in reader.broken.items()},
        n_files=reader.n_files,
    )


def _series_files(files: Sequence[BidsFile]) -> dict[str, BidsFile]:
    """One file for each series: its image, or its sidecar where there is no image."""
    found: dict[str, BidsFile] = {}
    named = any(file.subject for file in files)
    for file in files:
        if file.derivative or file.source_suffix or file.datatype not in _DATATYPES:
            continue
        if file.suffix in _NOT_IMAGES.split():
            continue
        # A sidecar at the top of the dataset speaks for others and is no series.
        inherited = named and not file.subject
        if (file.is_image or file.extension == ".json") and not inherited:
            stem = _STEM.sub("", file.relative)
            if stem not in found or file.is_image:
                found[stem] = file
    # Above the folders of a participant's images, a sidecar speaks for them.
    sorted_in = {file.subject for file in found.values() if file.subject and _in_its_folder(file)}
    return {
        stem: file
        for stem, file in found.items()
        if file.datatype or file.is_image or file.subject not in sorted_in
    }


def _in_its_folder(file: BidsFile) -> bool:
    """Whether a file lies in ``anat``, ``dwi``; in a flat folder nothing lies above anything."""
    return bool(file.datatype) and PurePosixPath(file.relative).parent.name == file.datatype


class _Reader:
    """Reads each JSON file once, however many series it speaks for."""

    def __init__(self, index: BidsIndex) -> None:
        self._index = index
        self._sidecars = Sidecars(index.root, limit=MAX_SIDECAR_BYTES)
        self._contents: dict[PurePosixPath, Mapping[str, Any] | CordqaError] = {}
        self._endings = {file.extension for file in index.files} & set(_GRADIENTS.values())
        self.broken: dict[str, tuple[CordqaError, list[str]]] = {}

    @property
    def n_files(self) -> int:
        return len(self._contents)

    def read(self, stem: str, file: BidsFile) -> SeriesHeader:
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        problems: list[str] = []
        for path in self._sidecars.applicable(file.relative):
            content = self._content(path)
            if isinstance(content, CordqaError):
                self.broken.setdefault(str(path), (content, []))[1].append(file.relative)
                problems.append(f"{printable(str(path))}: {content}")
                continue
            own = _STEM.sub("", str(path)) == stem
            where = "sidecar" if own else f"sidecar {printable(str(path), limit=120)}"
            values |= content
            origins |= dict.fromkeys(content, where)
        if problems:
            # Whether the broken file would have overruled the others cannot be known.
            values, origins = {}, {}
        elif file.is_image:
            sizes = {k: v for k, v in read_image_sizes(file.path).items() if k not in values}
            values, origins = {**values, **sizes}, {**origins, **dict.fromkeys(sizes, "image")}
        return _header(self._index, file, values, origins, self._gradients(file), tuple(problems))

    def _content(self, path: PurePosixPath) -> Mapping[str, Any] | CordqaError:
        if path not in self._contents:
            try:
                self._contents[path] = load_json(self._index.root / path, limit=MAX_SIDECAR_BYTES)
            except CordqaError as error:
                self._contents[path] = error
        return self._contents[path]

    def _gradients(self, file: BidsFile) -> GradientPaths:
        """Return the gradient files beside an image, or those that it inherits."""
        if file.datatype != "dwi" or not self._endings:
            return GradientPaths()
        found = {kind: self._companion(file, ending) for kind, ending in _GRADIENTS.items()}
        return GradientPaths(**found)

    def _companion(self, file: BidsFile, ending: str) -> Path | None:
        companion = self._index.companion(file, ending) if ending in self._endings else None
        return None if companion is None else companion.path


def _header(
    index: BidsIndex,
    file: BidsFile,
    values: dict[str, Any],
    origins: dict[str, str],
    gradients: GradientPaths,
    problems: tuple[str, ...],
) -> SeriesHeader:
    kept = {name: _bounded(value) for name, value in values.items() if not _IDENTITY.match(name)}
    participant = index.participants.get(file.subject, {})
    return SeriesHeader(
        source=file.relative,
        subject=file.subject,
        session=file.session,
        entities={key: value for key, value in file.entities.items() if key not in ("sub", "ses")},
        suffix=file.suffix,
        datatype=file.datatype,
        site=_site(participant) or _text(values, "InstitutionName"),
        vendor=vendor_name(_text(values, "Manufacturer") or participant.get("manufacturer", "")),
        model=_text(values, "ManufacturersModelName").replace("_", " "),
        software=_text(values, "SoftwareVersions").replace("_", " "),
        device=next((text for name in _DEVICE if (text := _text(values, name))), ""),
        series_uid=_text(values, "SeriesInstanceUID"),
        series_number=_whole(values.get("SeriesNumber")),
        acquired=_acquired(values),
        values=kept,
        origins={name: origins[name] for name in kept},
        gradients=gradients,
        protocol_name=_text(values, "ProtocolName"),
        series_description=_text(values, "SeriesDescription"),
        problems=problems,
    )


def _bounded(value: Any) -> Any:
    """Keep numbers, texts and short lists; anything larger is no parameter."""
    if isinstance(value, str):
        return printable(value, limit=200)
    if isinstance(value, list):
        return tuple(_bounded(one) for one in value[:_MAX_NUMBERS])
    return value if isinstance(value, (int, float, bool)) or value is None else type(value).__name__


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    return printable(value, limit=70) if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _site(participant: Mapping[str, str]) -> str:
    return next((participant[name] for name in _SITE_COLUMNS if participant.get(name)), "")


_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})")


def _acquired(values: Mapping[str, Any]) -> str:
    """Date and time of the acquisition where the sidecar keeps them; a time alone says nothing."""
    stamp = _text(values, "AcquisitionDateTime") or _text(values, "AcquisitionDate")
    match = _DATE.match(stamp)
    if match is None:
        return ""
    date = "-".join(match.groups())
    time = _TIME.search(stamp[match.end() :]) or _TIME.match(_text(values, "AcquisitionTime"))
    return f"{date}T{':'.join(part.zfill(2) for part in time.groups())}" if time else date
