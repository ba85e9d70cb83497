"""Write image sets as DICOM files, as scanners of different vendors would.

This serves simulated data: what is written carries an invented patient and says so.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from cordqa.errors import ConfigError, OutputError
from cordqa.io.dicom_write_diffusion import add_diffusion
from cordqa.io.dicom_write_enhanced import add_enhanced_frames
from cordqa.io.dicom_write_vendor import (
    MHZ_PER_TESLA,
    STYLES,
    VendorStyle,
    add_scale,
    add_vendor_tags,
    ds_text,
    image_type,
    store,
)
from cordqa.records import Acquisition, ImageSet

__all__ = ["write_dicom"]

_LPS = np.diag([-1.0, -1.0, 1.0])
_COMPRESSIONS = {"rle": RLELossless, "jpeg2000": JPEG2000Lossless}
_PATIENT_NAME, _PATIENT_ID = "SIMULATED^PHANTOM", "SIMULATED"
_SERIES_INTERVAL = timedelta(minutes=5)


def write_dicom(
    image_set: ImageSet,
    folder: Path,
    *,
    style: VendorStyle | None = None,
    enhanced: bool = False,
    compressed: str | None = None,
    seed: int = 0,
    series_number: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write one image set into a folder.

    Classic images are one file per slice, in one series per inversion time and flip angle; an
    enhanced image is one file.  Stored values are round((value - intercept) / slope) with the
    scale of each acquisition, clipped at the stored range.

    Parameters
    ----------
    image_set : ImageSet
        Slope and intercept of its acquisitions decide how it is stored.
    folder : Path
        Made where it does not exist.
    style : VendorStyle, optional
        By default the one of ``image_set.entities.vendor``.
    enhanced : bool
        One Enhanced MR object instead of classic MR objects.
    compressed : {'rle', 'jpeg2000'}, optional
        Lossless compression; none by default.
    seed : int
        Enters the unique identifiers, which are the same for the same seed, entities and series.
    series_number : int
        Number of the first series; file names start with it.
    overwrite : bool
        Replace files that are there already.

    Returns
    -------
    list of Path
        In order of series, image and slice.

    Raises
    ------
    ConfigError
        If the vendor or the compression is not known, or the date is not ISO 8601.
    OutputError
        If the images cannot be stored, or a file is there already or cannot be written.
    """
    style = style or _style_of(image_set.entities.vendor)
    if compressed is not None and compressed not in _COMPRESSIONS:
        raise ConfigError(
            "unknown compression", found=repr(compressed), expected=" or ".join(sorted(_COMPRESSIONS))
        )
    _check_images(image_set)
    study = _Study.of(image_set, seed)
    make = _enhanced_files if enhanced else _classic_files
    _make_folder(folder)
    paths = []
    for name, dataset in make(image_set, style, study, series_number):
        if compressed is not None:
            dataset.compress(_COMPRESSIONS[compressed], generate_instance_uid=False)
        paths.append(_save(dataset, folder / name, overwrite=overwrite))
    return paths


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", where=str(folder)) from error


def _text(value: str, length: int) -> str:
    """Make a text fit one value of a header: no control characters, no value separator."""
    return "".join(c if c.isprintable() and c != "\\" else " " for c in value)[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """What all files of one visit share."""

    identity: tuple[str, ...]
    uid: str
    frame_of_reference_uid: str
    start: datetime | None

    @classmethod
    def of(cls, image_set: ImageSet, seed: int) -> _Study:
        who = image_set.entities
        try:
            start = datetime.fromisoformat(who.acquired) if who.acquired else None
        except ValueError as error:
            raise ConfigError(
                "the date of the acquisition is not ISO 8601", found=repr(who.acquired)
            ) from error
        identity = (str(seed), who.subject, who.site, who.scanner, who.session, who.acquired)
        return cls(
            identity=identity,
            uid=_uid(*identity, "study"),
            frame_of_reference_uid=_uid(*identity, "frame of reference"),
            start=start,
        )


def _uid(*parts: str) -> str:
    # A separator keeps ("a", "bc") and ("ab", "c") apart.
    return str(generate_uid(entropy_srcs=["\x1f".join(parts)]))


def _style_of(vendor: str) -> VendorStyle:
    try:
        return STYLES[vendor]
    except KeyError:
        raise ConfigError(
            "no DICOM style for this vendor", found=repr(vendor), expected=" or ".join(STYLES)
        ) from None


def _check_images(image_set: ImageSet) -> None:
    where = image_set.label or "image set"
    data = image_set.data
    if data.ndim != 4 or data.shape[0] != len(image_set.acquisitions) or 0 in data.shape:
        raise OutputError(
            "images and acquisitions do not match",
            where=where,
            found=f"shape {data.shape} and {len(image_set.acquisitions)} acquisitions",
            expected="(images, slices, rows, columns), none of them 0",
        )
    if not np.isfinite(data).all():
        raise OutputError("values that are not finite cannot be stored as integers", where=where)
    slopes = image_set.values("scale_slope")
    if not (np.isfinite(slopes).all() and (slopes > 0).all()):
        raise OutputError("every image needs a positive scale slope", where=where, found=str(slopes))
    if not np.isfinite(image_set.values("scale_intercept")).all():
        raise OutputError("every image needs a finite scale intercept", where=where)
    row, column = image_set.affine[:3, 2], image_set.affine[:3, 1]
    size = float(np.linalg.norm(row) * np.linalg.norm(column))
    if not size > 0 or abs(float(row @ column)) > 1e-4 * size:
        raise OutputError("rows and columns of a DICOM image must be perpendicular", where=where)


def _classic_files(
    image_set: ImageSet, style: VendorStyle, study: _Study, series_number: int
) -> Iterator[tuple[str, Dataset]]:
    """Yield file names and MR Image objects."""
    series: dict[tuple[str, str], int] = {}
    counts: dict[int, int] = {}
    orientation, positions = _plane(image_set)
    echo_times = np.nan_to_num(image_set.values("echo_time_s"))
    echoes = np.unique(echo_times, return_inverse=True)[1] + 1
    for image, acquisition in enumerate(image_set.acquisitions):
        key = (str(acquisition.inversion_time_s), str(acquisition.flip_angle_deg))
        number = series.setdefault(key, series_number + len(series))
        for position, plane in zip(positions, image_set.data[image], strict=True):
            counts[number] = counts.get(number, 0) + 1
            dataset = _common(image_set, style, study, MRImageStorage, number, counts[number])
            _add_acquisition(dataset, acquisition, style, image_set)
            dataset.EchoNumbers = str(int(echoes[image]))
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, orientation
            dataset.PixelData = store(plane, acquisition, style).tobytes()
            yield f"{style.prefix}{number:04d}_{counts[number]:04d}{style.suffix}", dataset


def _enhanced_files(
    image_set: ImageSet, style: VendorStyle, study: _Study, series_number: int
) -> Iterator[tuple[str, Dataset]]:
    """Yield one file name and one Enhanced MR Image object."""
    dataset = _common(image_set, style, study, EnhancedMRImageStorage, series_number, 1)
    dataset.AcquisitionDateTime = f"{dataset.ContentDate}{dataset.ContentTime}"
    orientation, positions = _plane(image_set)
    add_enhanced_frames(dataset, image_set, style, orientation=orientation, positions=positions)
    yield f"{style.prefix}{series_number:04d}_0001{style.suffix}", dataset


def _plane(image_set: ImageSet) -> tuple[list[str], list[list[str]]]:
    """Return Image Orientation (Patient), and Image Position (Patient) of each slice."""
    affine: NDArray[np.float64] = _LPS @ image_set.affine[:3]
    orientation = [ds_text(value) for value in _axes(image_set)[:2].ravel()]
    slices = affine[:, 3] + np.arange(image_set.data.shape[1])[:, None] * affine[:, 0]
    return orientation, [[ds_text(value) for value in position] for position in slices]


def _axes(image_set: ImageSet) -> NDArray[np.float64]:
    """Return the directions of increasing column, row and slice in LPS, shape (3, 3), one per row."""
    axes = (_LPS @ image_set.affine[:3])[:, [2, 1]]
    along, down = (axes / np.linalg.norm(axes, axis=0)).T
    return np.stack([along, down, np.cross(along, down)])


def _common(
    image_set: ImageSet,
    style: VendorStyle,
    study: _Study,
    sop_class: UID,
    series_number: int,
    instance_number: int,
) -> Dataset:
    """Return the modules that classic and enhanced images share."""
    dataset = Dataset()
    series_uid = _uid(*study.identity, str(series_number))
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = _uid(series_uid, str(instance_number))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = _PATIENT_NAME, _PATIENT_ID
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.uid, series_uid
    dataset.FrameOfReferenceUID = study.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.ReferringPhysicianName = dataset.AccessionNumber = ""
    dataset.StudyID = dataset.AcquisitionNumber = "1"
    dataset.SeriesNumber, dataset.InstanceNumber = str(series_number), str(instance_number)
    dataset.Modality, dataset.PatientPosition = "MR", "HFS"
    dataset.SeriesDescription = dataset.ProtocolName = _text(image_set.entities.acquisition, 64)
    _add_times(dataset, study.start, series_number)
    _add_equipment(dataset, image_set, style)
    _add_pixel_module(dataset, image_set, style)
    return dataset


def _add_times(dataset: Dataset, start: datetime | None, series_number: int) -> None:
    series_start = start + series_number * _SERIES_INTERVAL if start is not None else None
    for group, moment in (
        ("Study", start),
        ("Series", series_start),
        ("Acquisition", series_start),
        ("Content", series_start),
    ):
        setattr(dataset, f"{group}Date", moment.strftime("%Y%m%d") if moment else "")
        setattr(dataset, f"{group}Time", moment.strftime("%H%M%S") if moment else "")


def _add_equipment(dataset: Dataset, image_set: ImageSet, style: VendorStyle) -> None:
    who = image_set.entities
    dataset.Manufacturer = style.manufacturer
    dataset.ManufacturerModelName = _text(who.model, 64) or "Simulated"
    dataset.SoftwareVersions = _text(who.software, 64) or "simulated"
    dataset.DeviceSerialNumber = _text(who.scanner, 64) or "simulated"
    dataset.StationName = _text(who.scanner, 16)
    dataset.InstitutionName = _text(who.site, 64)


def _add_pixel_module(dataset: Dataset, image_set: ImageSet, style: VendorStyle) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = image_set.data.shape[2:]
    dataset.BitsAllocated, dataset.BitsStored = 16, style.bits_stored
    dataset.HighBit, dataset.PixelRepresentation = style.bits_stored - 1, int(style.signed)


def _add_acquisition(
    dataset: Dataset, acquisition: Acquisition, style: VendorStyle, image_set: ImageSet
) -> None:
    """Add the MR Image and Image Plane modules of a classic image, and the vendor's elements."""
    dataset.ImageType = image_type(style, image_set.part, acquisition.sequence)
    sequence, variant = style.scanning_sequence.get(acquisition.sequence, ("RM", "NONE"))
    dataset.ScanningSequence, dataset.SequenceVariant = sequence, variant
    dataset.ScanOptions = "IR" if acquisition.sequence == "inversion recovery" else ""
    dataset.MRAcquisitionType = "2D"
    dataset.EchoTrainLength = str(max(acquisition.echo_train_length, 1))
    dataset.ImagedNucleus, dataset.NumberOfAverages = "1H", "1"
    between_slices, between_rows, between_columns = image_set.spacing_mm
    dataset.PixelSpacing = [ds_text(between_rows), ds_text(between_columns)]
    dataset.SpacingBetweenSlices = ds_text(between_slices)
    # Type 2: present, and empty where the value is not known.
    dataset.RepetitionTime = _milliseconds(acquisition.repetition_time_s)
    dataset.EchoTime = _milliseconds(acquisition.echo_time_s)
    dataset.SliceThickness = _known(acquisition.slice_thickness_mm)
    if math.isfinite(acquisition.inversion_time_s):
        dataset.InversionTime = _milliseconds(acquisition.inversion_time_s)
    if math.isfinite(acquisition.flip_angle_deg):
        dataset.FlipAngle = _known(acquisition.flip_angle_deg)
    if math.isfinite(acquisition.field_strength_T):
        dataset.MagneticFieldStrength = _known(acquisition.field_strength_T)
        dataset.ImagingFrequency = _known(round(acquisition.field_strength_T * MHZ_PER_TESLA, 6))
    add_vendor_tags(dataset, style, image_set.part, acquisition)
    add_diffusion(dataset, style, acquisition, axes=_axes(image_set))
    add_scale(dataset, style, image_set.part, acquisition, enhanced=False)


def _known(value: float) -> str:
    return ds_text(value) if math.isfinite(value) else ""


def _milliseconds(seconds: float) -> str:
    # Rounding to the picosecond drops what binary fractions leave behind.
    return _known(round(seconds * 1000, 9))


def _save(dataset: Dataset, path: Path, *, overwrite: bool) -> Path:
    """Write one file under a temporary name and rename it when it is complete."""
    if path.exists() and not overwrite:
        raise OutputError("the file is there already", where=str(path), todo="give another series number")
    temporary = path.with_name(f".{path.name}.part")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
