"""How scanners of three vendors fill the headers of the MR images they write.

Only what a reader may need to tell images apart and to scale them is filled; the attribute
values follow what real scanners write, the identities are invented.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

from cordqa.records import Acquisition, Part

__all__ = [
    "MHZ_PER_TESLA",
    "STYLES",
    "VendorStyle",
    "add_scale",
    "add_vendor_tags",
    "ds_text",
    "image_type",
    "store",
]

#: Proton Larmor frequency.
MHZ_PER_TESLA = 42.577
_LETTERS: Mapping[Part, str] = {
    Part.MAGNITUDE: "M",
    Part.PHASE: "P",
    Part.REAL: "R",
    Part.IMAGINARY: "I",
}
#: GE's private image type (0043,102F).
_GE_CODES: Mapping[Part, int] = {Part.MAGNITUDE: 0, Part.PHASE: 1, Part.REAL: 2, Part.IMAGINARY: 3}
#: Radians in one unit of a phase image.
_PHASE_UNITS: Mapping[str, float] = {"Siemens": math.pi / 4096, "GE": 1e-3}
#: Display values of Philips span this much, whatever the stored range means.
_PHILIPS_DISPLAY_RANGE = 5000.0
_PHILIPS_CREATORS: Mapping[int, str] = {
    0x20010010: "Philips Imaging DD 001",
    0x20050010: "Philips MR Imaging DD 001",
    0x20050014: "Philips MR Imaging DD 005",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorStyle:
    """How one vendor stores pixels and names things.

    Attributes
    ----------
    vendor, manufacturer : str
        Short name, and the string in the header.
    bits_stored, signed : int, bool
        Type of the stored pixel; 16 bits are allocated.
    prefix, suffix : str
        Of the file names.
    scanning_sequence : mapping of str to tuple
        From :attr:`Acquisition.sequence` to Scanning Sequence and Sequence Variant.
    """

    vendor: str
    manufacturer: str
    bits_stored: int
    signed: bool
    prefix: str
    suffix: str
    scanning_sequence: Mapping[str, tuple[str | list[str], str | list[str]]]

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        if self.signed:
            return -(2 ** (self.bits_stored - 1)), 2 ** (self.bits_stored - 1) - 1
        return 0, 2**self.bits_stored - 1


STYLES: Mapping[str, VendorStyle] = {
    "Siemens": VendorStyle(
        vendor="Siemens",
        manufacturer="SIEMENS",
        bits_stored=12,
        signed=False,
        prefix="MR",
        suffix=".dcm",
        scanning_sequence={
            "inversion recovery": (["SE", "IR"], ["SP", "MP"]),
            "spin echo": ("SE", "SP"),
            "echo planar": ("EP", ["SK", "SP"]),
            "gradient echo": ("GR", "SP"),
        },
    ),
    "GE": VendorStyle(
        vendor="GE",
        manufacturer="GE MEDICAL SYSTEMS",
        bits_stored=16,
        signed=True,
        prefix="Z",
        suffix="",
        scanning_sequence={
            "inversion recovery": ("IR", "NONE"),
            "spin echo": ("SE", "SK"),
            "echo planar": (["EP", "SE"], "SS"),
            "gradient echo": ("GR", ["SS", "SP"]),
        },
    ),
    "Philips": VendorStyle(
        vendor="Philips",
        manufacturer="Philips Medical Systems",
        bits_stored=12,
        signed=False,
        prefix="IM_",
        suffix="",
        scanning_sequence={
            "inversion recovery": ("IR", "SS"),
            "spin echo": ("SE", "SK"),
            "echo planar": ("SE", "SK"),
            "gradient echo": ("GR", "SS"),
        },
    ),
}


def ds_text(value: float) -> str:
    """Format a number as a DICOM decimal string of at most 16 characters."""
    return str(format_number_as_ds(float(value)))


def store(
    values: NDArray[np.float32], acquisition: Acquisition, style: VendorStyle
) -> NDArray[np.uint16] | NDArray[np.int16]:
    """Turn image values into stored integers: (value - intercept) / slope, rounded and clipped."""
    low, high = style.stored_range
    scaled = (values.astype(np.float64) - acquisition.scale_intercept) / acquisition.scale_slope
    stored = np.clip(np.rint(scaled), low, high)
    return stored.astype("<i2" if style.signed else "<u2")


def image_type(style: VendorStyle, part: Part, sequence: str) -> list[str]:
    """Return Image Type of a classic image."""
    letter = _LETTERS[part]
    if style.vendor == "Siemens":
        return ["ORIGINAL", "PRIMARY", letter, "ND"]
    if style.vendor == "GE":
        return ["ORIGINAL", "PRIMARY", "OTHER"]
    technique = _philips_technique(sequence)
    return ["ORIGINAL", "PRIMARY", f"{letter}_{technique}", letter, technique]


def add_vendor_tags(dataset: Dataset, style: VendorStyle, part: Part, acquisition: Acquisition) -> None:
    """Add the public and private attributes in which the vendors differ (classic images)."""
    if style.vendor == "Siemens":
        name = "ir" if acquisition.sequence == "inversion recovery" else "se"
        dataset.SequenceName = f"*{name}2d{max(acquisition.echo_train_length, 1)}"
        _add_private(dataset, 0x0051, "SIEMENS MR HEADER", {0x16: ("LO", f"{_LETTERS[part]}/ND")})
    elif style.vendor == "GE":
        pulse_sequence = {0x9C: ("LO", "mpir" if acquisition.sequence == "inversion recovery" else "memp")}
        _add_private(dataset, 0x0019, "GEMS_ACQU_01", pulse_sequence)
        _add_private(dataset, 0x0043, "GEMS_PARM_01", {0x2F: ("SS", _GE_CODES[part])})
    else:
        technique = _philips_technique(acquisition.sequence)
        _add_philips_creators(dataset)
        _add_private(dataset, 0x2001, _PHILIPS_CREATORS[0x20010010], {0x20: ("LO", technique)})
        _add_private(dataset, 0x2005, _PHILIPS_CREATORS[0x20050010], {0x11: ("CS", _LETTERS[part])})


def add_scale(
    dataset: Dataset, style: VendorStyle, part: Part, acquisition: Acquisition, *, enhanced: bool
) -> None:
    """Add how stored values become image values, to a classic image or to one frame.

    Siemens and GE store image values as they are, and write a rescale only where there is one.
    Their phase is not in radians: half a turn is 4096 for Siemens, and GE counts milliradians.
    Philips writes a display scale and, in private elements, the scale from which the value in
    floating point follows: FP = (stored RS + RI) / (RS SS) (Chenevert et al. 2014,
    doi:10.1593/tlo.13811).
    """
    slope, intercept = acquisition.scale_slope, acquisition.scale_intercept
    # What is displayed of a map is its value.
    if style.vendor == "Philips" and not acquisition.map_quantity:
        _add_philips_scale(dataset, style, slope, intercept, enhanced=enhanced)
        return
    unit = _PHASE_UNITS.get(style.vendor, 1.0) if part is Part.PHASE else 1.0
    slope, intercept = slope / unit, intercept / unit
    if enhanced or (slope, intercept) != (1.0, 0.0):
        _add_rescale(dataset, slope, intercept, "US", enhanced=enhanced)


def _add_philips_scale(
    dataset: Dataset, style: VendorStyle, slope: float, intercept: float, *, enhanced: bool
) -> None:
    low, high = style.stored_range
    display_slope = _PHILIPS_DISPLAY_RANGE / (high - low)
    # value = stored slope + intercept, so SS = 1 / slope and RI = intercept RS SS.
    scale_slope = 1.0 / slope
    display_intercept = intercept * display_slope * scale_slope
    _add_rescale(dataset, display_slope, display_intercept, "normalized", enhanced=enhanced)
    dataset.RealWorldValueMappingSequence = Sequence(
        [_real_world_value(style, display_slope, display_intercept)]
    )
    _add_philips_creators(dataset)
    elements = {0x0D: ("FL", -intercept / slope + 0.0), 0x0E: ("FL", scale_slope)}
    creator = _PHILIPS_CREATORS[0x20050010]
    if not enhanced:
        _add_private(dataset, 0x2005, creator, elements)
        return
    item = Dataset()
    _add_philips_creators(item)
    _add_private(item, 0x2005, creator, elements)
    frames = {0x0F: ("SQ", Sequence([item]))}
    _add_private(dataset, 0x2005, _PHILIPS_CREATORS[0x20050014], frames)


def _real_world_value(style: VendorStyle, slope: float, intercept: float) -> Dataset:
    low, high = style.stored_range
    units = Dataset()
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = "1", "UCUM", "no units"
    item = Dataset()
    item.LUTExplanation = "Real World Value Mapping for normalized"
    item.LUTLabel = "Philips"
    item.MeasurementUnitsCodeSequence = Sequence([units])
    kind = "SS" if style.signed else "US"
    item.add_new(0x00409211, kind, high)
    item.add_new(0x00409216, kind, low)
    item.RealWorldValueIntercept = intercept
    item.RealWorldValueSlope = slope
    return item


def _add_rescale(dataset: Dataset, slope: float, intercept: float, kind: str, *, enhanced: bool) -> None:
    target = Dataset() if enhanced else dataset
    target.RescaleIntercept = ds_text(intercept)
    target.RescaleSlope = ds_text(slope)
    target.RescaleType = kind
    if enhanced:
        dataset.PixelValueTransformationSequence = Sequence([target])


def _philips_technique(sequence: str) -> str:
    return {"inversion recovery": "IR", "gradient echo": "FFE"}.get(sequence, "SE")


def _add_philips_creators(dataset: Dataset) -> None:
    """Reserve the blocks that Philips itself uses, so that its elements keep their usual tags."""
    for tag, creator in _PHILIPS_CREATORS.items():
        dataset.add_new(tag, "LO", creator)


def _add_private(dataset: Dataset, group: int, creator: str, elements: Mapping[int, tuple[str, Any]]) -> None:
    block = dataset.private_block(group, creator, create=True)
    for offset, (kind, value) in elements.items():
        block.add_new(offset, kind, value)
