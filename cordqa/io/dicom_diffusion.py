"""How an image was diffusion-weighted, and what unit a scanner's ADC map has.

Standard attributes go before those that vendors keep to themselves.  Directions are in patient
coordinates (LPS), but for GE, whose private elements count along the image's axes; the origin says so.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cordqa.io.dicom_header import Header, exact_numbers, first_number
from cordqa.io.siemens_header import read_siemens_fields
from cordqa.io.vendors import Scaling, find_b_value, find_direction

__all__ = ["Diffusion", "find_diffusion", "find_map_scaling", "is_adc_map", "is_trace_image"]

_SIEMENS = "SIEMENS MR HEADER"
_SIEMENS_BLOCK = "SIEMENS CSA HEADER"
_PHILIPS = "Philips Imaging DD 001"
_DIRECTIONALITY = {
    "NONE": "none",
    "DIRECTIONAL": "direction",
    "BMATRIX": "direction",
    "ISOTROPIC": "trace",
}
_PHILIPS_DIRECTIONS = {"I": "trace", "P": "direction", "M": "direction", "S": "direction", "O": "direction"}
_FIELDS = frozenset({"B_value", "DiffusionDirectionality", "DiffusionGradientDirection"})
_ADC = {"ADC", "ADC_UNSPECIFIED", "ADC MAP", "ADC_MAP"}
_TRACE = {"TRACEW", "TRACE"}
#: Units of a real-world value mapping in um2/s; powers of ten are written in several ways.
_POWER = re.compile(r"(?:10\*?\^?(-?\d+)\.?|1e(-?\d+)\.?)?(mm2|um2|m2)/s")
_LENGTHS = {"mm2": 1e6, "um2": 1.0, "m2": 1e12}
#: Siemens and GE store ADC in units of 1e-6 mm2/s, which are um2/s (GE says so in the manual of
#: its READY View; for Siemens it follows from the maps that its scanners write).
_BY_CONVENTION = {"Siemens", "GE"}


@dataclass(frozen=True, slots=True)
class Diffusion:
    """Weighting of one image; fields as in :class:`cordqa.records.Acquisition`."""

    b_value_s_per_mm2: float = math.nan
    encoding: str = ""
    direction: tuple[float, ...] = ()
    direction_origin: str = "DICOM"


def is_trace_image(image_type: tuple[str, ...]) -> bool:
    """Tell whether ImageType names an average over directions."""
    return bool(_TRACE & set(image_type))


def is_adc_map(image_type: tuple[str, ...]) -> bool:
    """Tell whether ImageType names an ADC map."""
    return bool(_ADC & set(image_type))


def find_diffusion(header: Header, image_type: tuple[str, ...], *, vendor: str) -> Diffusion:
    """Return b-value, encoding and direction; NaN and empty where the header does not give them."""
    b, direction = find_b_value(header), find_direction(header)
    encoding = _encoding(header)
    if vendor == "Siemens" and math.isnan(b):
        fields = read_siemens_fields(header.private(0x0029, _SIEMENS_BLOCK, 0x10), _FIELDS)
        b, direction, encoding = _from_siemens(fields, direction, encoding)
    direction = _unit(direction)
    if is_trace_image(image_type):
        encoding = "trace" if b > 0 else "none"
    if b == 0:
        encoding = "none"
    elif b > 0 and encoding in ("", "none"):
        # GE marks an average over directions by none; so does an anonymiser that removed them.
        encoding = "direction" if direction else ""
    direction = direction if encoding == "direction" else ()
    private_ge = vendor == "GE" and not _has_standard_direction(header)
    return Diffusion(b, encoding if math.isfinite(b) else "", direction, _origin(private_ge))


def _origin(private_ge: bool) -> str:
    return "DICOM, along the axes of the image" if private_ge else "DICOM"


def _has_standard_direction(header: Header) -> bool:
    return header.has("DiffusionGradientOrientation") or header.has("DiffusionGradientDirectionSequence")


def _encoding(header: Header) -> str:
    for value in (
        (header.tokens("DiffusionDirectionality") or ("",))[0],
        _word(header.private(0x0019, _SIEMENS, 0x0D)),
    ):
        if value in _DIRECTIONALITY:
            return _DIRECTIONALITY[value]
    return _PHILIPS_DIRECTIONS.get(_word(header.private(0x2001, _PHILIPS, 0x04)), "")


def _word(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip("\0 ").upper() if isinstance(value, str) else ""


def _from_siemens(
    fields: dict[str, tuple[str, ...]], direction: tuple[float, ...], encoding: str
) -> tuple[float, tuple[float, ...], str]:
    b = first_number(list(fields.get("B_value", ())))
    b = b if math.isfinite(b) and 0 <= b < 1e6 else math.nan
    own = exact_numbers(list(fields.get("DiffusionGradientDirection", ())), 3)
    word = (fields.get("DiffusionDirectionality") or ("",))[0].upper()
    return b, own or direction, _DIRECTIONALITY.get(word, encoding)


def _unit(direction: tuple[float, ...]) -> tuple[float, ...]:
    length = math.sqrt(sum(d * d for d in direction))
    if len(direction) != 3 or not 1e-3 < length < 1e3:
        return ()
    return tuple(d / length for d in direction)


def find_map_scaling(header: Header, *, vendor: str) -> tuple[Scaling, str]:
    """Return the scaling of an ADC map to um2/s, and where its unit comes from.

    A real-world value mapping names its unit; Siemens and GE have a convention.  Where neither tells,
    values are as stored after the public rescale, and the second entry is empty.
    """
    slope, intercept = header.number("RealWorldValueSlope"), header.number("RealWorldValueIntercept")
    factor = _unit_factor(header)
    usable = math.isfinite(slope) and slope != 0 and math.isfinite(intercept)
    if usable and math.isfinite(factor):
        scaling = Scaling(slope * factor, intercept * factor, "real-world value mapping")
        return scaling, "real-world value mapping"
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    slope = slope if math.isfinite(slope) and slope != 0 else 1.0
    intercept = intercept if math.isfinite(intercept) else 0.0
    scaling = Scaling(slope, intercept, "rescale slope" if (slope, intercept) != (1.0, 0.0) else "")
    if vendor in _BY_CONVENTION:
        return scaling, f"convention of {vendor} (1e-6 mm2/s)"
    return Scaling(slope, intercept, scaling.source, ("adc-unit-unknown",)), ""


def _unit_factor(header: Header) -> float:
    """Return the unit of the real-world value mapping in um2/s; NaN where it is no diffusivity."""
    for item in header.items("MeasurementUnitsCodeSequence"):
        for keyword in ("CodeValue", "LongCodeValue", "CodeMeaning"):
            text = Header([item]).text(keyword).lower().replace(" ", "").replace("µ", "u")
            match = _POWER.fullmatch(text.replace("x", "").replace("^2", "2").replace("²", "2"))
            if match is not None:
                power = int(match[1] or match[2] or 0)
                if abs(power) <= 20:
                    return _LENGTHS[match[3]] * 10.0**power
    return math.nan
