"""Tell MR images apart from everything else that a DICOM folder holds."""

from __future__ import annotations

from pydicom.dataset import FileDataset
from pydicom.uid import UID

from cordqa.errors import UnreadableFileError
from cordqa.io.dicom_header import Header
from cordqa.io.vendors import part_of_token

__all__ = ["derived_kind", "object_kind"]

_MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
_DICOMDIR = "1.2.840.10008.1.3.10"
#: Values of ImageType that name something computed from images rather than an image.
_MAPS = {
    *(
        "T1 MAP",
        "T2 MAP",
        "T2* MAP",
        "T1_MAP",
        "T2_MAP",
        "T2_STAR_MAP",
        "R1 MAP",
        "R2 MAP",
        "R2* MAP",
        "B0 MAP",
    ),
    *("B1 MAP", "B0_MAP", "B1_MAP", "FIELD MAP", "ADC", "ADC_UNSPECIFIED", "FA", "TRACEW", "TENSOR"),
    *("PROJECTION IMAGE", "MPR", "MIP", "MINIP", "MAX_IP", "MIN_IP", "MNIP", "SUBTRACTION", "CSA RESAMPLED"),
    *("SCREEN SAVE", "SCREENSAVE", "CSAPARALLEL", "SYNTHETIC"),
}
#: These name a contrast in an original image, and a map in a derived one.
_DERIVED_MAPS = {"T1", "T2", "T2_STAR", "T2STAR", "R1", "R2", "R2_STAR", "PD", "PROTON_DENSITY", "B0", "B1"}


def object_kind(dataset: FileDataset, header: Header) -> str | None:
    """Return why an object is not an MR image, or ``None`` where it is one."""
    meta = Header([dataset.file_meta]) if getattr(dataset, "file_meta", None) else header
    sop_class = header.text("SOPClassUID") or meta.text("MediaStorageSOPClassUID")
    if sop_class == _DICOMDIR or meta.text("MediaStorageSOPClassUID") == _DICOMDIR:
        return "DICOMDIR"
    if sop_class == _MR or sop_class in _ENHANCED:
        pass
    elif sop_class:
        known = UID(sop_class).name
        return known if known != sop_class else "other DICOM object"
    elif header.tokens("Modality") != ("MR",) or not header.has("Rows"):
        return "other DICOM object"
    if not header.has("Rows") and not header.has("BitsAllocated"):
        raise UnreadableFileError("the MR image has no Rows (0028,0010)", todo="export the file again")
    colour = header.tokens("PhotometricInterpretation")
    if header.integer("SamplesPerPixel") > 1 or (colour and not colour[0].startswith("MONOCHROME")):
        return "colour image (screenshot)"
    return None


def derived_kind(image_type: tuple[str, ...], *, explicit_part: bool, lossy: bool) -> str:
    """Return why the header says that an image is not one to be measured, or an empty string.

    ``explicit_part`` tells whether the header names magnitude, phase, real or imaginary; a
    derived image that does is taken as an image, since some archives mark all of theirs so.
    """
    tokens = set(image_type)
    if "LOCALIZER" in tokens or "SCOUT" in tokens:
        return "localizer"
    if "MOSAIC" in tokens:
        return "Siemens mosaic"
    named_part = any(part_of_token(token) for token in image_type[2:])
    if tokens & _MAPS:
        return "derived map or reformatted image"
    if image_type[:1] == ("DERIVED",):
        if tokens & _DERIVED_MAPS:
            return "derived map or reformatted image"
        if not (named_part or explicit_part or lossy):
            return "derived image"
    return ""
