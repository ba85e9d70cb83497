"""Write images that were computed, not acquired, as DICOM objects that say so."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from cordqa.errors import OutputError
from cordqa.io.dicom_write_vendor import ds_text

__all__ = ["LARGEST_STORED", "DerivedSeries", "derived_slice", "digest_of"]

_LPS = np.diag([-1.0, -1.0, 1.0])
#: Stored values are signed; the lowest one marks voxels without a value.
LARGEST_STORED, _PADDING = 32_000, -32_768
_PERPENDICULAR = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedSeries:
    """What the slices of one computed image share.

    Attributes
    ----------
    label : str
        What it is, in one upper-case word that stands in Image Type and Series Description:
        ``SYNTHETIC``.
    name : str
        Contrast: ``FLAIR``.
    description : str
        How it was computed.
    affine : ndarray, shape (4, 4)
        Of the array (i, j, k) to RAS+ millimetres; i becomes the columns and j the rows of a slice.
    n_slices : int
    largest : float
        Largest magnitude of the image, by which it is scaled to integers.
    identity : str
        Hex digest by which the study is told from others; no person stands in it.
    series_number : int
    times_ms : mapping of str to float
        DICOM keyword of a time (``EchoTime``) and its value.
    content : str
        Hex digest of the images: other images, say of another mask, are other objects.
    window : tuple of float or None
        Values that a viewer shows as black and as white.
    """

    label: str
    name: str
    description: str
    affine: NDArray[np.float64]
    n_slices: int
    largest: float
    identity: str
    series_number: int
    times_ms: Mapping[str, float] = field(default_factory=dict)
    content: str = ""
    window: tuple[float, float] | None = None

    @property
    def slope(self) -> float:
        """Value of one stored unit."""
        return self.largest / LARGEST_STORED if self.largest > 0 and math.isfinite(self.largest) else 1.0


def digest_of(*arrays: NDArray[np.generic]) -> str:
    """Hex digest of image data: the same images give the same identity."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(str(array.shape).encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def derived_slice(plane: NDArray[np.floating], index: int, series: DerivedSeries, patient: str) -> bytes:
    """Make the file of one slice.

    Parameters
    ----------
    plane : ndarray, shape (i, j)
        Values; NaN becomes the padding value.
    index : int
        Slice, from 0.
    series : DerivedSeries
    patient : str
        Pseudonym; empty for one made from the images.

    Raises
    ------
    OutputError
        If the axes of the slice are not perpendicular.
    """
    dataset = _identity(series, index, patient)
    _geometry(dataset, series, index)
    _pixels(dataset, plane, series)
    for keyword, value in series.times_ms.items():
        setattr(dataset, keyword, ds_text(round(value, 6)))
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["\x1f".join(parts)]))


def _identity(series: DerivedSeries, index: int, patient: str) -> Dataset:
    """Patient, study, series and equipment; a pseudonym, and the label wherever a viewer looks."""
    dataset = Dataset()
    name = patient or f"{series.label[:3]}-{series.identity[:12]}"
    study = _uid(series.identity, name, "study")
    # The same maps with other times, or in another mask, are another series.
    own = _uid(
        study, series.label, series.name, str(series.series_number), series.description, series.content
    )
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = _uid(own, str(index))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "SECONDARY", series.label, series.name.upper()]
    dataset.PatientName, dataset.PatientID = name[:64], name[:64]
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, own
    dataset.FrameOfReferenceUID = _uid(study, "frame of reference")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber, dataset.InstanceNumber = str(series.series_number), str(index + 1)
    dataset.Modality, dataset.PatientPosition = "MR", ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "cordqa", series.label.title()
    dataset.SeriesDescription = f"{series.label} {series.name} (computed, not acquired)"[:64]
    dataset.ProtocolName = f"{series.label} {series.name}"[:64]
    dataset.DerivationDescription = series.description[:1024]
    dataset.ImageComments = f"{series.label}: computed from maps, not acquired"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
    dataset.MRAcquisitionType, dataset.EchoTrainLength = "", ""
    dataset.RepetitionTime = dataset.EchoTime = ""
    return dataset


def _geometry(dataset: Dataset, series: DerivedSeries, index: int) -> None:
    affine = _LPS @ series.affine[:3]
    columns, rows, slices = (affine[:, n] for n in range(3))
    size = float(np.linalg.norm(columns) * np.linalg.norm(rows))
    if not size > 0 or abs(float(columns @ rows)) > _PERPENDICULAR * size:
        raise OutputError("rows and columns of a DICOM image must be perpendicular", where=series.name)
    directions = np.concatenate([columns / np.linalg.norm(columns), rows / np.linalg.norm(rows)])
    dataset.ImageOrientationPatient = [ds_text(float(v)) for v in directions]
    dataset.ImagePositionPatient = [ds_text(float(v)) for v in affine[:, 3] + index * slices]
    # Pixel Spacing is that between rows first, then that between columns.
    dataset.PixelSpacing = [ds_text(float(np.linalg.norm(axis))) for axis in (rows, columns)]
    # Slices may be shifted within their plane: what counts is the way from plane to plane.
    normal = np.cross(columns, rows) / size
    between = abs(float(normal @ slices)) if float(np.linalg.norm(slices)) > 0 else 0.0
    if not between > 0:
        raise OutputError("slices of a DICOM series must lie apart", where=series.name)
    dataset.SliceThickness = dataset.SpacingBetweenSlices = ds_text(between)


def _window(dataset: Dataset, ends: tuple[float, float] | None) -> None:
    if ends is None or not ends[1] > ends[0]:
        return
    width = ends[1] - ends[0]
    dataset.WindowCenter, dataset.WindowWidth = ds_text((ends[0] + ends[1]) / 2), ds_text(width)
    dataset.WindowCenterWidthExplanation = "most values"
    if width < 1:
        # The usual function needs a width of at least 1.
        dataset.VOILUTFunction = "LINEAR_EXACT"


def _pixels(dataset: Dataset, plane: NDArray[np.floating], series: DerivedSeries) -> None:
    known = np.isfinite(plane)
    scaled = np.rint(np.where(known, plane, 0.0) / series.slope)
    stored = np.where(known, np.clip(scaled, -LARGEST_STORED, LARGEST_STORED), _PADDING).astype("<i2")
    dataset.BurnedInAnnotation = "NO"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelPaddingValue = _PADDING
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", ds_text(series.slope), "US"
    _window(dataset, series.window)
    dataset.PixelData = np.ascontiguousarray(stored.T).tobytes()
