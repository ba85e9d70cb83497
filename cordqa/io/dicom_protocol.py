"""DICOM headers as acquisition protocols: one record per series and echo, under BIDS names and units.

Every file is opened to see which series it belongs to; one file of each series is read in full, with
the vendor's own fields.  Pixels are never touched.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from cordqa.errors import CordqaError, EmptyInputError, UnreadableFileError
from cordqa.io.dicom_acquisition import read_field_strength
from cordqa.io.dicom_groups import frame_headers
from cordqa.io.dicom_header import PRIVATE_BLOCKS, Header, first_number, iso_time, tag_of
from cordqa.io.dicom_objects import derived_kind, object_kind
from cordqa.io.dicom_vendor_fields import VENDOR_TAGS, read_vendor_fields
from cordqa.io.files import check_folder, open_regular, printable, read_buffer, walk_folder
from cordqa.io.limits import DEFAULT_LIMITS, ReadLimits
from cordqa.io.sidecars import HeaderReading, SeriesHeader
from cordqa.io.vendors import PHILIPS_DD1, find_b_value, find_part, vendor_name

__all__ = ["holds_dicom", "read_dicom_protocols"]

_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_MS_PER_S = 1e3
#: Enough of one series to see what varies in it, without reading a thousand headers in full.
_MOST_FRAMES = 4096

_OTHER_FILES = (".json", ".nii", ".nii.gz", ".tsv", ".bval", ".bvec", ".txt", ".html")
_LABEL = re.compile(r"(?:^|/)(sub|ses)-([a-zA-Z0-9]+)(?=/)")

#: BIDS name, keywords in order of preference, and what divides the DICOM value.
_NUMBERS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("RepetitionTime", ("RepetitionTime",), _MS_PER_S),
    ("EchoTime", ("EffectiveEchoTime", "EchoTime"), _MS_PER_S),
    ("InversionTime", ("InversionTimes", "InversionTime"), _MS_PER_S),
    ("FlipAngle", ("FlipAngle",), 1.0),
    ("SliceThickness", ("SliceThickness",), 1.0),
    ("SpacingBetweenSlices", ("SpacingBetweenSlices",), 1.0),
    ("PixelBandwidth", ("PixelBandwidth",), 1.0),
    ("EchoTrainLength", ("EchoTrainLength",), 1.0),
    ("NumberOfAverages", ("NumberOfAverages",), 1.0),
    ("PercentPhaseFOV", ("PercentPhaseFieldOfView",), 1.0),
    ("PercentSampling", ("PercentSampling",), 1.0),
    ("ParallelReductionFactorInPlane", ("ParallelReductionFactorInPlane",), 1.0),
    ("ParallelReductionFactorOutOfPlane", ("ParallelReductionFactorOutOfPlane",), 1.0),
    ("AcquisitionDuration", ("AcquisitionDuration",), 1.0),
    ("ImagingFrequency", ("ImagingFrequency",), 1.0),
)
_TEXTS = (
    "Manufacturer",
    "SoftwareVersions",
    "MRAcquisitionType",
    "SequenceName",
    "ReceiveCoilName",
    "InPlanePhaseEncodingDirection",
    "PulseSequenceName",
)
_TOKENS = ("ScanningSequence", "SequenceVariant", "ScanOptions", "ImageType", "FrameType")
_RENAMED = {"InPlanePhaseEncodingDirection": "InPlanePhaseEncodingDirectionDICOM"}
_OTHERS = """
SpecificCharacterSet SOPClassUID Modality StudyDate SeriesDate AcquisitionDate ContentDate StudyTime
SeriesTime AcquisitionTime ContentTime AcquisitionDateTime ManufacturerModelName StationName
DeviceSerialNumber MagneticFieldStrength ImagedNucleus EchoPulseSequence InversionRecovery
MagnetizationTransfer DiffusionBValue DiffusionGradientOrientation ComplexImageComponent
StudyInstanceUID SeriesInstanceUID SeriesNumber ProtocolName SeriesDescription PatientID
AcquisitionMatrix Rows Columns PixelSpacing SamplesPerPixel PhotometricInterpretation NumberOfFrames
BitsAllocated RescaleSlope RescaleIntercept LossyImageCompression PartialFourier
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""
_LIGHT_WORDS = """
SpecificCharacterSet SOPClassUID Modality SeriesInstanceUID EchoTime EffectiveEchoTime FlipAngle
InversionTime RepetitionTime ImageType Rows BitsAllocated SamplesPerPixel PhotometricInterpretation
NumberOfFrames LossyImageCompression ComplexImageComponent Manufacturer
"""
_LIGHT: list[Any] = [tag_of(word) for word in _LIGHT_WORDS.split()]
#: Philips stores a scale for each image; that it differs within a series must be seen.
_LIGHT += [BaseTag(tag) for block in PRIVATE_BLOCKS for tag in (0x20050000 | block, 0x2005000E | block << 8)]
_FULL: list[Any] = [
    *(
        tag_of(word)
        for word in {*_OTHERS.split(), *_TEXTS, *_TOKENS, *(k for _, words, _ in _NUMBERS for k in words)}
    ),
    *VENDOR_TAGS,
]


@dataclass(slots=True)
class _Group:
    """Files of one series that were acquired alike."""

    files: list[str]
    frame: int = 0
    slopes: set[float] | None = None


def holds_dicom(folder: Path, *, limits: ReadLimits = DEFAULT_LIMITS) -> bool:
    """Tell whether any file of a folder is a DICOM file."""
    walk = walk_folder(folder, limits=limits)
    return any(_is_dicom(folder / name) for name in walk.files if not name.lower().endswith(_OTHER_FILES))


def _is_dicom(path: Path) -> bool:
    try:
        file, _ = open_regular(path)
        with file:
            head = file.read(132)
    except (CordqaError, OSError):
        return False
    return head[128:132] == b"DICM" or (len(head) >= 16 and head[:2] == b"\x08\x00" and head[3] == 0)


def read_dicom_protocols(
    folder: Path, *, limits: ReadLimits = DEFAULT_LIMITS, show_identity: bool = False
) -> HeaderReading:
    """Read what the DICOM headers below a folder say of each series.

    Localizers, maps, screenshots and other objects are counted and passed over.  Images of one
    series with different echo times, flip angles, inversion or repetition times are records of
    their own.

    Parameters
    ----------
    folder : Path
    limits : ReadLimits
        Bounds that are checked before memory is asked for.
    show_identity : bool
        Use PatientID as the subject; else participants are numbered.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    EmptyInputError
        If it holds no MR image.
    """
    check_folder(folder)
    files = [name for name in walk_folder(folder, limits=limits).files if _is_dicom(folder / name)]
    reader = _FolderReader(folder, limits)
    with _quiet():
        groups = reader.group(files)
        series = [one for group in groups for one in reader.read(group)]
    if not series and not reader.broken:
        found = "; ".join(f"{count} {why}" for why, count in reader.ignored.items()) or "no DICOM file"
        raise EmptyInputError(
            "holds no MR image", where=printable(str(folder)), found=found, todo="give another folder"
        )
    named = _name_participants(series, show_identity=show_identity)
    reader.ignored = +reader.ignored
    broken = {name: (error, ()) for name, error in reader.broken.items()}
    return HeaderReading(tuple(named), broken, n_files=len(files), ignored=dict(reader.ignored))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings may quote a header; values are checked where they are used."""
    from pydicom import config

    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = before


@dataclass(frozen=True, slots=True)
class _Read:
    """A record with what names its participant."""

    header: SeriesHeader
    patient: str
    study: str
    date: str


class _FolderReader:
    def __init__(self, root: Path, limits: ReadLimits) -> None:
        self._root, self._limits = root, limits
        self.broken: dict[str, CordqaError] = {}
        self.ignored: Counter[str] = Counter()

    def group(self, files: Sequence[str]) -> list[_Group]:
        """Sort files by series and by what varies between the images of one series."""
        groups: dict[tuple[Any, ...], _Group] = {}
        for name in files:
            dataset = self._parse(name, _LIGHT)
            if dataset is None:
                continue
            header = Header([dataset])
            why = self._why_not(name, dataset, header)
            if why:
                self.ignored[why] += name not in self.broken
                continue
            key = _group_key(name, header)
            group = groups.setdefault(key, _Group([]))
            group.files.append(name)
            slope = first_number(header.private(0x2005, PHILIPS_DD1, 0x0E))
            if math.isfinite(slope):
                group.slopes = (group.slopes or set()) | {slope}
        return list(groups.values())

    def _parse(self, name: str, tags: list[Any]) -> FileDataset | None:
        try:
            buffer, _ = read_buffer(self._root / name, limits=self._limits)
        except CordqaError as error:
            self.broken[name] = error
            return None
        try:
            return read_partial(buffer, _at_pixels, force=True, specific_tags=tags)
        except Exception as error:
            # Arbitrary bytes may raise almost anything, and the message may quote the header.
            self.broken[name] = UnreadableFileError(
                f"the DICOM header is damaged ({type(error).__name__})", todo="export the file again"
            )
            return None
        finally:
            buffer.close()

    def _why_not(self, name: str, dataset: FileDataset, header: Header) -> str:
        try:
            kind = object_kind(dataset, header)
        except CordqaError as error:
            self.broken[name] = error
            return "unreadable"
        if kind:
            return kind
        image_type = header.tokens("ImageType")
        explicit = find_part(header, image_type, vendor=vendor_name(header.text("Manufacturer")))
        lossy = header.tokens("LossyImageCompression") == ("01",)
        why = derived_kind(image_type, explicit_part=explicit is not None, lossy=lossy)
        # A mosaic holds the volumes of a time series: its protocol is as good as any.
        return "" if why == "Siemens mosaic" else why

    def read(self, group: _Group) -> Iterator[_Read]:
        """Read one file of a group in full; an enhanced file may hold several echoes."""
        name = group.files[0]
        dataset = self._parse(name, _FULL)
        if dataset is None:
            return
        try:
            count = max(Header([dataset]).integer("NumberOfFrames"), 1)
            frames = frame_headers(dataset, count) if count <= _MOST_FRAMES else [Header([dataset])]
        except CordqaError as error:
            self.broken[name] = error
            return
        by_echo: dict[float, list[Header]] = defaultdict(list)
        for frame in frames:
            by_echo[round(_number(frame, ("EffectiveEchoTime", "EchoTime"), 1.0), 4)].append(frame)
        for number, (_, own) in enumerate(by_echo.items(), start=1):
            suffix = f" (echo {number})" if len(by_echo) > 1 else ""
            yield _record(name + suffix, own, group)


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _group_key(name: str, header: Header) -> tuple[Any, ...]:
    """What images of one record share; a file without a series identifier stands by its folder."""
    series = header.text("SeriesInstanceUID") or name.rpartition("/")[0]
    times = ("EffectiveEchoTime", "EchoTime", "InversionTime", "FlipAngle", "RepetitionTime")
    return (series, *(str(header.number(word)) for word in times), header.tokens("ImageType")[2:3])


def _number(header: Header, keywords: Iterable[str], per_unit: float) -> float:
    found = (header.number(keyword) for keyword in keywords)
    return next((value / per_unit for value in found if math.isfinite(value)), math.nan)


def _record(name: str, frames: Sequence[Header], group: _Group) -> _Read:
    header = frames[0]
    vendor = vendor_name(header.text("Manufacturer"))
    values, private = _public(header), read_vendor_fields(header, vendor)
    contradictions = {
        key: f"the public field says {values[key]:g}, the vendor's own says {value:g}"
        for key, value in private.items()
        if key in values and _differ(values[key], value)
    }
    origins = {**dict.fromkeys(private, "private"), **dict.fromkeys(values, "DICOM")}
    record = SeriesHeader(
        source=printable(name),
        vendor=vendor,
        model=header.text("ManufacturerModelName", limit=60),
        software=header.text("SoftwareVersions"),
        device=header.text("DeviceSerialNumber") or header.text("StationName"),
        series_uid=header.text("SeriesInstanceUID", limit=70),
        series_number=header.integer("SeriesNumber"),
        acquired=iso_time(header),
        protocol_name=header.text("ProtocolName"),
        series_description=header.text("SeriesDescription"),
        values={**private, **_scales(header, frames, group), **values},
        origins={**dict.fromkeys(_scales(header, frames, group), "private"), **origins},
        contradictions=contradictions,
    )
    patient, study = header.text("PatientID"), header.text("StudyInstanceUID")
    return _Read(record, patient, study, header.text("StudyDate"))


def _differ(first: Any, second: Any) -> bool:
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return abs(first - second) > 0.02 * max(abs(first), abs(second))
    return False


def _public(header: Header) -> dict[str, Any]:
    """Standard elements under BIDS names, in BIDS units."""
    values: dict[str, Any] = {}
    for name, keywords, per_unit in _NUMBERS:
        value = _number(header, keywords, per_unit)
        if math.isfinite(value):
            values[name] = round(value, 9)
    if values.get("InversionTime") == 0:
        del values["InversionTime"]  # GE writes 0 where there is no inversion
    field = read_field_strength(header)
    if math.isfinite(field):
        values["MagneticFieldStrength"] = field
    values |= {_RENAMED.get(word, word): text for word in _TEXTS if (text := header.text(word))}
    values |= {word: found for word in _TOKENS if (found := header.tokens(word))}
    if "FrameType" in values:
        values["ImageType"] = values.pop("FrameType")
    model = header.text("ManufacturerModelName", limit=60)
    return values | ({"ManufacturersModelName": model} if model else {}) | _matrix(header) | _transfer(header)


def _matrix(header: Header) -> dict[str, Any]:
    """Acquired and reconstructed matrix along the phase encoding, and voxel sizes."""
    found: dict[str, Any] = {}
    rows, columns = header.integer("Rows"), header.integer("Columns")
    mosaic = "MOSAIC" in header.tokens("ImageType")
    # Frequency rows, frequency columns, phase rows, phase columns: two of them are zero.
    acquired = header.numbers("AcquisitionMatrix", 4)
    if acquired and max(acquired[2:]) > 0:
        found["AcquisitionMatrixPE"] = int(max(acquired[2:]))
        reconstructed = rows if acquired[2] > 0 else columns
        if reconstructed > 0 and not mosaic:
            found["ReconMatrixPE"] = reconstructed
    spacing = header.numbers("PixelSpacing", 2)
    if spacing:
        found |= {"VoxelSizeI": spacing[1], "VoxelSizeJ": spacing[0]}
    between = _number(header, ("SpacingBetweenSlices", "SliceThickness"), 1.0)
    return found | ({"VoxelSizeK": between} if math.isfinite(between) else {})


def _transfer(header: Header) -> dict[str, Any]:
    """Whether a magnetization-transfer pulse was on, where the header tells."""
    explicit = header.tokens("MagnetizationTransfer")[:1]
    if explicit:
        return {"MTState": explicit != ("NONE",)}
    if "MTC" in header.tokens("SequenceVariant") or "MT" in header.tokens("ScanOptions"):
        return {"MTState": True}
    return {}


def _scales(header: Header, frames: Sequence[Header], group: _Group) -> dict[str, Any]:
    """What turns stored values into comparable ones; several where it differs within the series."""
    found: dict[str, Any] = {}
    slopes = set(group.slopes or ())
    for frame in frames[1:]:
        slope = first_number(frame.private(0x2005, PHILIPS_DD1, 0x0E))
        if math.isfinite(slope):
            slopes.add(slope)
    if slopes:
        ordered = sorted(slopes)
        found["PhilipsScaleSlope"] = ordered[0] if len(ordered) == 1 else tuple(ordered)
        for name, keyword in (
            ("PhilipsRescaleSlope", "RescaleSlope"),
            ("PhilipsRescaleIntercept", "RescaleIntercept"),
        ):
            value = header.number(keyword)
            if math.isfinite(value):
                found[name] = value
    b_values = sorted({b for frame in frames if math.isfinite(b := find_b_value(frame))})
    if any(b_values):
        found["DiffusionBValues"] = tuple(b_values)
    return found


def _name_participants(found: Sequence[_Read], *, show_identity: bool) -> list[SeriesHeader]:
    """Number participants and name sessions by date; identifiers are shown only where asked for."""
    patients = list(dict.fromkeys(one.patient for one in found))
    numbers = {patient: f"{index:02d}" for index, patient in enumerate(patients, start=1)}
    sessions: dict[tuple[str, str], str] = {}
    for one in found:
        key = (one.patient, one.study)
        if key not in sessions:
            taken = [name for (patient, _), name in sessions.items() if patient == one.patient]
            name = one.date or str(len(taken) + 1)
            same = sum(other.partition("-")[0] == name for other in taken)
            sessions[key] = f"{name}-{same + 1}" if same else name
    several: Mapping[str, int] = Counter(patient for patient, _ in sessions)
    result = []
    for one in found:
        # Labels of folders are pseudonyms that somebody chose.
        labels = dict(_LABEL.findall(one.header.source))
        label = printable(one.patient, limit=60) if show_identity and one.patient else numbers[one.patient]
        session = sessions[one.patient, one.study] if several[one.patient] > 1 else ""
        result.append(_named(one.header, labels.get("sub", label), labels.get("ses", session)))
    return result


def _named(header: SeriesHeader, subject: str, session: str) -> SeriesHeader:
    return replace(header, subject=subject, session=session)
