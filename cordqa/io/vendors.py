"""What Siemens, GE and Philips write in their own way: image part, scaling, b-value, names.

Philips stores values rescaled per image so that they fill 12 bits.  The value that can be
compared between images is ``(stored * RS + RI) / (RS * SS)`` with the public rescale slope and
intercept RS and RI and the private scale slope SS, which equals ``(stored - SI) / SS`` with the
private scale intercept SI (Chenevert et al. 2014, doi 10.1593/tlo.13811).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cordqa.io.dicom_header import Header, exact_numbers, first_number, sequence_items
from cordqa.io.files import printable
from cordqa.records import Part

__all__ = [
    "PHILIPS_DD1",
    "PHILIPS_DD5",
    "Scaling",
    "find_b_value",
    "find_direction",
    "find_part",
    "find_scaling",
    "part_of_token",
    "vendor_name",
]

PHILIPS_DD1 = "Philips MR Imaging DD 001"
PHILIPS_DD5 = "Philips MR Imaging DD 005"
_PHILIPS_IMAGING = "Philips Imaging DD 001"
_GE_PARAMETERS = "GEMS_PARM_01"
_GE_ACQUISITION = "GEMS_ACQU_01"
_SIEMENS_HEADER = "SIEMENS MR HEADER"
_LARGEST = 1e20
_SIEMENS_PHASE_HALF_RANGE = 4096.0  # stored * 2 - 4096 spans -pi to pi
_VENDORS = (
    ("SIEMENS", "Siemens"),
    ("PHILIPS", "Philips"),
    ("GENERAL ELECTRIC", "GE"),
    ("GE MEDICAL", "GE"),
    ("GE HEALTHCARE", "GE"),
    ("GEMS", "GE"),
    ("CANON", "Canon"),
    ("TOSHIBA", "Canon"),
    ("UNITED IMAGING", "United Imaging"),
    ("UIH", "United Imaging"),
    ("HITACHI", "Hitachi"),
    ("FUJIFILM", "Fujifilm"),
    ("BRUKER", "Bruker"),
)
_PART_WORDS = {
    "M": Part.MAGNITUDE,
    "MAGNITUDE": Part.MAGNITUDE,
    "P": Part.PHASE,
    "PHASE": Part.PHASE,
    "PHASE MAP": Part.PHASE,
    "R": Part.REAL,
    "REAL": Part.REAL,
    "I": Part.IMAGINARY,
    "IMAGINARY": Part.IMAGINARY,
}
_GE_PARTS = {0: Part.MAGNITUDE, 1: Part.PHASE, 2: Part.REAL, 3: Part.IMAGINARY}


def vendor_name(manufacturer: str) -> str:
    """Return the short name of a vendor, whatever its scanners call it."""
    text = manufacturer.upper().strip()
    if text == "GE":
        return "GE"
    known = next((name for start, name in _VENDORS if start in text), None)
    return known if known is not None else printable(manufacturer, limit=40)


def part_of_token(token: str) -> Part | None:
    """Return the part that one value of ImageType names (``M``, ``R_IR``, ``PHASE MAP`` ...)."""
    word = token.strip().upper()
    if word in _PART_WORDS:
        return _PART_WORDS[word]
    # Philips writes the part and the technique in one word: M_SE, R_IR, I_FFE.
    head, _, technique = word.partition("_")
    return _PART_WORDS.get(head) if technique and len(head) == 1 else None


def find_part(header: Header, image_type: tuple[str, ...], *, vendor: str) -> Part | None:
    """Return the part that the header names explicitly, or ``None`` where it names none."""
    explicit = header.tokens("ComplexImageComponent")
    if explicit and explicit[0] in _PART_WORDS:
        return _PART_WORDS[explicit[0]]
    if vendor == "GE":
        code = first_number(header.private(0x0043, _GE_PARAMETERS, 0x2F))
        if code in _GE_PARTS:
            return _GE_PARTS[int(code)]
    return next((p for p in map(part_of_token, image_type[2:]) if p is not None), None)


@dataclass(frozen=True, slots=True)
class Scaling:
    """``value = slope * stored + intercept``, where it comes from, and what is doubtful."""

    slope: float = 1.0
    intercept: float = 0.0
    source: str = ""
    flags: tuple[str, ...] = ()


def find_scaling(header: Header, *, vendor: str, part: Part, signed: bool) -> Scaling:
    """Return the scaling that makes images of one fit comparable.

    In this order: Philips' private scale slope, a linear real-world value mapping, the
    public rescale slope, none.  Phase is converted to radians where the vendor's convention
    is known.

    Parameters
    ----------
    header : Header
        Fields of the image.
    vendor : str
        Name as returned by :func:`vendor_name`.
    part : Part
        Magnitude, real, imaginary or phase.
    signed : bool
        Whether values are stored with a sign.

    Returns
    -------
    Scaling
        Slope, intercept and their source.
    """
    scaling = _philips(header) or _real_world(header) or _rescale(header) or Scaling()
    if (scaling.slope, scaling.intercept) == (1.0, 0.0) and "Philips" not in scaling.source:
        scaling = Scaling()  # to say that nothing is done is the same as to say nothing
    if vendor == "Philips" and "Philips" not in scaling.source:
        scaling = _flag(scaling, "philips-scale-absent")
    if part is Part.PHASE:
        return _phase(header, scaling, vendor=vendor, signed=signed)
    if part in (Part.REAL, Part.IMAGINARY) and not signed and scaling.intercept == 0:
        return _flag(scaling, "zero-level-unknown")
    return scaling


def _flag(scaling: Scaling, flag: str) -> Scaling:
    return Scaling(scaling.slope, scaling.intercept, scaling.source, (*scaling.flags, flag))


def _usable(slope: float, intercept: float) -> bool:
    """Tell whether a scaling can be meant, and keeps every stored value finite in float32."""
    return 1 / _LARGEST < abs(slope) < _LARGEST and abs(intercept) < _LARGEST


def _philips(header: Header) -> Scaling | None:
    scale_slope = first_number(header.private(0x2005, PHILIPS_DD1, 0x0E))
    if not _usable(scale_slope, 0.0):
        return None
    rescale_slope, rescale_intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if not _usable(rescale_slope, rescale_intercept):
        rescale_slope = first_number(header.private(0x2005, PHILIPS_DD5, 0x0A))
        rescale_intercept = first_number(header.private(0x2005, PHILIPS_DD5, 0x09))
    if not _usable(rescale_slope, rescale_intercept):
        rescale_slope, rescale_intercept = 1.0, 0.0
    # With "combine rescaling" the public pair is forced to 1 and 0, and only SI tells the offset.
    scale_intercept = first_number(header.private(0x2005, PHILIPS_DD1, 0x0D))
    offset = rescale_intercept / rescale_slope
    if offset == 0 and math.isfinite(scale_intercept):
        offset = -scale_intercept
    slope, intercept = 1.0 / scale_slope, offset / scale_slope
    return Scaling(slope, intercept, "Philips private scale slope") if _usable(slope, intercept) else None


def _real_world(header: Header) -> Scaling | None:
    slope, intercept = header.number("RealWorldValueSlope"), header.number("RealWorldValueIntercept")
    if not _usable(slope, intercept):
        return None
    return Scaling(slope, intercept, "real-world value mapping")


def _rescale(header: Header) -> Scaling | None:
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if math.isnan(slope) and math.isfinite(intercept):
        slope = 1.0
    if math.isnan(intercept):
        intercept = 0.0
    if not _usable(slope, intercept):
        return None
    return Scaling(slope, intercept, "rescale slope")


def _phase(header: Header, scaling: Scaling, *, vendor: str, signed: bool) -> Scaling:
    """Turn a phase image into radians."""
    if "Philips" in scaling.source:
        return scaling  # Philips' floating-point phase is in radians
    if vendor == "Siemens":
        if not scaling.source and not signed:
            scaling = Scaling(2.0, -_SIEMENS_PHASE_HALF_RANGE)
        factor = math.pi / _SIEMENS_PHASE_HALF_RANGE
    elif vendor == "GE" or header.text("RescaleType").lower() == "mrad":
        factor = 1e-3
    else:
        return _flag(scaling, "phase-unit-unknown")
    source = f"{scaling.source}, to radians".strip(", ")
    return Scaling(scaling.slope * factor, scaling.intercept * factor, source, scaling.flags)


def find_b_value(header: Header) -> float:
    """Return the b-value in s/mm2; NaN where the header gives none."""
    candidates = (
        header.number("DiffusionBValue"),
        first_number(header.private(0x0019, _SIEMENS_HEADER, 0x0C)),
        first_number(header.private(0x2001, _PHILIPS_IMAGING, 0x03)),
        _ge_b_value(header.private(0x0043, _GE_PARAMETERS, 0x39)),
    )
    return next((b for b in candidates if math.isfinite(b) and 0 <= b < 1e6), math.nan)


def _ge_b_value(value: Any) -> float:
    # GE adds multiples of 1e9 to mark how directions were chosen.
    b = first_number(value)
    return b % 1_000_000_000 if math.isfinite(b) and b >= 0 else math.nan


def find_direction(header: Header) -> tuple[float, ...]:
    """Return the diffusion direction (only used to tell images apart); empty where none."""
    direction = _direction(header)
    return direction if any(direction) else ()


def _direction(header: Header) -> tuple[float, ...]:
    direct = header.numbers("DiffusionGradientOrientation", 3)
    if direct:
        return direct
    for item in header.items("DiffusionGradientDirectionSequence"):
        nested = Header([item]).numbers("DiffusionGradientOrientation", 3)
        if nested:
            return nested
    siemens = exact_numbers(header.private(0x0019, _SIEMENS_HEADER, 0x0E), 3)
    if siemens:
        return siemens
    for group, creator, elements in (
        (0x0019, _GE_ACQUISITION, (0xBB, 0xBC, 0xBD)),
        (0x2005, PHILIPS_DD1, (0xB0, 0xB1, 0xB2)),
    ):
        values = tuple(first_number(header.private(group, creator, e)) for e in elements)
        if all(map(math.isfinite, values)):
            return values
    return ()


def philips_items(header: Header) -> list[Any]:
    """Return the items of Philips' private frame sequence, which repeats classic elements."""
    return sequence_items(header.private(0x2005, PHILIPS_DD5, 0x0F))
