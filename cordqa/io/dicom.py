"""DICOM headers to frames: classic MR images and Enhanced multi-frame MR objects.

A file is either turned into frames, or ignored for a reason that is counted (it is not an MR
image, or its header says that it is a localizer, a derived map or a screenshot), or refused
with an :class:`~cordqa.errors.CordqaError` that quotes nothing from the header but numbers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from cordqa.errors import UnreadableFileError
from cordqa.io.dicom_acquisition import read_acquisition, read_family, read_field_strength, read_geometry
from cordqa.io.dicom_diffusion import Diffusion, find_diffusion, find_map_scaling, is_adc_map, is_trace_image
from cordqa.io.dicom_groups import frame_headers
from cordqa.io.dicom_header import Header, iso_time
from cordqa.io.dicom_objects import derived_kind, object_kind
from cordqa.io.dicom_pixels import DicomFile, PixelLayout, read_layout
from cordqa.io.dicom_tags import TAGS
from cordqa.io.files import read_buffer
from cordqa.io.frames import Frame, Ignored, Scanner
from cordqa.io.limits import ReadLimits
from cordqa.io.vendors import find_part, find_scaling, vendor_name
from cordqa.records import Part

__all__ = ["read_dicom"]

_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))  # float, double, integer
#: Values of ImageType that say what the scanner did to the image.
_PROCESSING = re.compile(r"ND|NORM|DIS[23]D|FM\d*(_\d+)?|FIL|MFSPLIT|MOCO|SUB|PURE|SCIC|CLEAR|DFC|SM\d*")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all frames of one file have in common."""

    file: DicomFile
    layout: PixelLayout
    vendor: str
    scanner: Scanner
    show_identity: bool


def read_dicom(
    root: Path, source: str, *, limits: ReadLimits, show_identity: bool = False
) -> list[Frame] | Ignored:
    """Read the header of one DICOM file.

    Parameters
    ----------
    root : Path
        Folder that was given.
    source : str
        The file, relative to it.
    limits : ReadLimits
        Bounds that are checked before memory is asked for.
    show_identity : bool
        Keep PatientID as the subject.

    Returns
    -------
    list of Frame or Ignored
        One frame per plane, or why the file is not an image to be measured.

    Raises
    ------
    UnreadableFileError
        If it is damaged, truncated or lacks an element that an image must have.
    TooLargeError
        If it claims more than the limits.
    """
    buffer, size = read_buffer(root / source, limits=limits)
    try:
        dataset = _parse(buffer)
        header = Header([dataset])
        kind = object_kind(dataset, header)
        if kind is not None:
            return Ignored(kind)
        layout = read_layout(dataset, header, buffer, size=size, limits=limits)
    finally:
        buffer.close()
    vendor = vendor_name(header.text("Manufacturer"))
    shared = _Shared(
        DicomFile(root / source, source, layout, limits),
        layout,
        vendor,
        _scanner(header, vendor),
        show_identity,
    )
    groups = frame_headers(dataset, layout.frames)
    frames = [_frame(shared, h, index) for index, h in enumerate(groups)]
    kept = [frame for frame in frames if isinstance(frame, Frame)]
    if kept:
        return kept
    return next(frame for frame in frames if isinstance(frame, Ignored))


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _parse(buffer: BinaryIO) -> FileDataset:
    try:
        return read_partial(buffer, _at_pixels, force=True, specific_tags=TAGS)
    except Exception as error:
        # The parser meets arbitrary bytes and may raise almost anything; its message may
        # quote the header, so only the kind of failure is kept.
        raise UnreadableFileError(
            f"the DICOM header is damaged ({type(error).__name__})", todo="export the file again"
        ) from None


def _scanner(header: Header, vendor: str) -> Scanner:
    field = read_field_strength(header)
    return Scanner(
        vendor=vendor,
        model=header.text("ManufacturerModelName", limit=40),
        field_strength_T=round(field, 1) if math.isfinite(field) else 0.0,
        device=header.text("DeviceSerialNumber") or header.text("StationName"),
    )


def _frame(shared: _Shared, header: Header, index: int) -> Frame | Ignored:
    image_type = header.tokens("FrameType") or header.tokens("ImageType")
    part = find_part(header, image_type, vendor=shared.vendor)
    lossy = header.tokens("LossyImageCompression") == ("01",)
    diffusion = find_diffusion(header, image_type, vendor=shared.vendor)
    adc = is_adc_map(image_type)
    why = derived_kind(image_type, explicit_part=part is not None, lossy=lossy)
    if why and not adc and not (is_trace_image(image_type) and math.isfinite(diffusion.b_value_s_per_mm2)):
        return Ignored(why)
    part = part or Part.MAGNITUDE
    unit = ""
    if adc:
        scaling, unit = find_map_scaling(header, vendor=shared.vendor)
        diffusion = Diffusion()
    else:
        scaling = find_scaling(header, vendor=shared.vendor, part=part, signed=shared.layout.signed)
    family, sequence = read_family(header)
    derived = image_type[:1] == ("DERIVED",) and not adc
    flags = list(scaling.flags) + ["lossy"] * lossy + ["derived"] * derived
    position, orientation, spacing = read_geometry(header)
    patient = header.text("PatientID")
    return Frame(
        file=shared.file,
        index=index,
        rows=shared.layout.rows,
        columns=shared.layout.columns,
        position=position,
        orientation=orientation,
        spacing=spacing,
        acquisition=read_acquisition(
            header, sequence, scaling, diffusion, map_quantity="ADC" if adc else "", map_unit=unit
        ),
        part=part,
        scanner=shared.scanner,
        software=header.text("SoftwareVersions"),
        family=f"{family} ADC map" if adc else family,
        processing=" ".join(sorted({t for t in image_type[2:] if _PROCESSING.fullmatch(t)})),
        direction=diffusion.direction,
        acquired=iso_time(header),
        study_date=header.text("StudyDate"),
        series_number=header.integer("SeriesNumber"),
        acquisition_number=header.integer("FrameAcquisitionNumber") or header.integer("AcquisitionNumber"),
        instance_number=header.integer("InstanceNumber"),
        temporal_position=header.integer("TemporalPositionIndex")
        or header.integer("TemporalPositionIdentifier"),
        flags=tuple(flags),
        subject=patient if shared.show_identity else "",
        patient_key=patient,
        study_uid=header.text("StudyInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        instance_uid=header.text("SOPInstanceUID"),
    )
