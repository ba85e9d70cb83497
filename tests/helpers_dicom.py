"""Small DICOM files for the tests of the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
PHILIPS_DD1 = "Philips MR Imaging DD 001"
PHILIPS_DD5 = "Philips MR Imaging DD 005"
SECRETS = ("Doe^Jane", "SECRETID", "19610203", "FREETEXT", "Refer^Dr", "ClinicName", "OPERATOR")


def uid(text: str) -> str:
    """A UID that is the same for the same text."""
    return str(generate_uid(entropy_srcs=[text]))


def picture(seed: int = 0, *, rows: int = 16, columns: int = 12, top: int = 1000) -> np.ndarray:
    """Noise of no meaning whose maximum stands alone."""
    values = np.random.default_rng(seed).integers(1, top, (rows, columns)).astype(np.uint16)
    values[0, 0] = top
    return values


def mr_image(pixels: np.ndarray | None = None, **elements: Any) -> Dataset:
    """A classic MR image; ``elements`` are keywords, ``None`` removes an element."""
    pixels = picture() if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = MR
    ds.SOPInstanceUID = generate_uid()
    ds.Modality = "MR"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.Manufacturer = "SIEMENS"
    ds.ManufacturerModelName = "Aera"
    ds.DeviceSerialNumber = "12345"
    ds.MagneticFieldStrength = 1.5
    ds.SoftwareVersions = "syngo"
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("series")
    ds.StudyDate = ds.AcquisitionDate = "20240105"
    ds.AcquisitionTime = "101112.5"
    ds.SeriesNumber = ds.AcquisitionNumber = ds.InstanceNumber = 1
    ds.ScanningSequence = ["SE"]
    ds.SequenceVariant = "NONE"
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime = 2000
    ds.EchoTime = 10
    ds.FlipAngle = 90
    ds.EchoTrainLength = 1
    ds.SliceThickness = 5
    ds.ImagePositionPatient = [-10, 20, 30]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [1.5, 2.0]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    set_pixels(ds, pixels)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = SECRETS[:3]
    ds.ImageComments = ds.SeriesDescription = ds.StudyDescription = ds.ProtocolName = "FREETEXT"
    ds.ReferringPhysicianName, ds.InstitutionName, ds.OperatorsName = SECRETS[4:]
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def set_pixels(ds: Dataset, pixels: np.ndarray, *, bits_stored: int | None = None) -> None:
    """Store integers as they are; a third axis makes frames."""
    bits = pixels.dtype.itemsize * 8
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated = bits
    ds.BitsStored = bits_stored or bits
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"


def write(path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian, *, preamble: bool = True) -> Path:
    """Write a data set; the transfer syntax must fit what its pixels already are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not preamble:
        del ds.file_meta
        ds.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        return path
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MR)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", uid("none"))
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


def add_philips_scale(ds: Dataset, *, slope: float, intercept: float = 0.0, block: int = 0x10) -> Dataset:
    """Add Philips' private scale slope and intercept, in any block."""
    ds.add_new((0x2005, block), "LO", PHILIPS_DD1)
    ds.add_new((0x2005, block << 8 | 0x0D), "FL", intercept)
    ds.add_new((0x2005, block << 8 | 0x0E), "FL", slope)
    return ds


def philips_image(
    pixels: np.ndarray, *, rs: float, ri: float, ss: float, si: float = 0.0, **elements: Any
) -> Dataset:
    """A classic Philips image with public and private scaling."""
    ds = mr_image(pixels, Manufacturer="Philips Medical Systems", ManufacturerModelName="Ingenia", **elements)
    ds.RescaleSlope, ds.RescaleIntercept = f"{rs:.10g}", f"{ri:.10g}"
    return add_philips_scale(ds, slope=ss, intercept=si)


def inversion_series(folder: Path, times_ms: list[float], **elements: Any) -> list[Path]:
    """Write one inversion recovery image per file and series, named without meaning."""
    paths = []
    for number, time in enumerate(times_ms, start=1):
        own = {
            "ScanningSequence": ["SE", "IR"],
            "InversionTime": time,
            "SeriesInstanceUID": uid(f"{folder} {number}"),
            "SeriesNumber": number,
            "AcquisitionTime": f"10{number:02d}00",
            **elements,
        }
        paths.append(write(folder / f"{hash((time, 7)) % 9973:04d}", mr_image(picture(number), **own)))
    return paths


def enhanced_image(pixels: np.ndarray, frames: list[dict[str, Any]], **shared: Any) -> Dataset:
    """An Enhanced MR object; ``frames`` give te, ti, z, scale and so on for each frame."""
    ds = mr_image(pixels, SOPClassUID=ENHANCED_MR, ImageType=["ORIGINAL", "PRIMARY", "M", "NONE"])
    for keyword in (
        *("EchoTime", "RepetitionTime", "FlipAngle", "ImagePositionPatient", "ImageOrientationPatient"),
        *("PixelSpacing", "ScanningSequence", "SliceThickness", "EchoTrainLength", "AcquisitionTime"),
    ):
        delattr(ds, keyword)
    ds.EchoPulseSequence = shared.get("pulse", "SPIN")
    group = Dataset()
    group.PixelMeasuresSequence = _item(PixelSpacing=[1.5, 2.0], SliceThickness=5)
    group.PlaneOrientationSequence = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    group.MRTimingAndRelatedParametersSequence = _item(RepetitionTime=2000, FlipAngle=90, EchoTrainLength=1)
    ds.SharedFunctionalGroupsSequence = Sequence([group])
    ds.PerFrameFunctionalGroupsSequence = Sequence([_frame_groups(frame) for frame in frames])
    return ds


def _frame_groups(frame: dict[str, Any]) -> Dataset:
    group = Dataset()
    group.PlanePositionSequence = _item(ImagePositionPatient=[-10, 20, frame.get("z", 30)])
    group.MREchoSequence = _item(EffectiveEchoTime=float(frame.get("te", 10)))
    group.FrameContentSequence = _item(FrameAcquisitionDateTime=frame.get("time", "20240105101112.5"))
    image_type = ["ORIGINAL", "PRIMARY", frame.get("part", "M"), "NONE"]
    component = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL"}[frame.get("part", "M")]
    group.MRImageFrameTypeSequence = _item(FrameType=image_type, ComplexImageComponent=component)
    group.PixelValueTransformationSequence = _item(
        RescaleSlope=frame.get("slope", 1.0), RescaleIntercept=frame.get("intercept", 0.0), RescaleType="US"
    )
    if "ti" in frame:
        group.MRModifierSequence = _item(InversionRecovery="YES", InversionTimes=[float(frame["ti"])])
    if "scale" in frame:
        inner = add_philips_scale(Dataset(), slope=frame["scale"])
        inner.EchoTime = 999  # repeats classic elements; must not win over the public ones
        group.add_new((0x2005, 0x14), "LO", PHILIPS_DD5)
        group.add_new((0x2005, 0x140F), "SQ", Sequence([inner]))
    return group


def _item(**elements: Any) -> Sequence:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])
