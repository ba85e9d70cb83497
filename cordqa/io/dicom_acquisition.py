"""What a DICOM header says about one image: how it was acquired, and where it lies."""

from __future__ import annotations

import math

from cordqa.errors import UnreadableFileError
from cordqa.io.dicom_diffusion import Diffusion
from cordqa.io.dicom_header import Header
from cordqa.io.vendors import Scaling
from cordqa.records import Acquisition

__all__ = ["read_acquisition", "read_family", "read_field_strength", "read_geometry"]


def read_family(header: Header) -> tuple[str, str]:
    """Return what images of one fit must agree on, and the sequence in plain words."""
    codes = set(header.tokens("ScanningSequence"))
    pulse = header.tokens("EchoPulseSequence")
    codes |= (
        {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(pulse[0], set()) if pulse else set()
    )
    inverted = "IR" in codes or header.tokens("InversionRecovery") == ("YES",)
    times = (header.number("InversionTimes"), header.number("InversionTime"))
    if any(time > 0 for time in times) and not codes & {"GR", "EP"}:
        inverted = True
    codes = codes | {"IR"} if inverted else codes
    sequence = "inversion recovery" if inverted else "gradient echo" if "GR" in codes else ""
    sequence = sequence or ("spin echo" if "SE" in codes else "echo planar" if "EP" in codes else "")
    # Images with and without a magnetization transfer pulse are not repeats of each other.
    transfer = header.tokens("MagnetizationTransfer")[:1] not in ((), ("NONE",))
    transfer |= "MTC" in header.tokens("SequenceVariant") or "MT" in header.tokens("ScanOptions")
    dimension = header.text("MRAcquisitionType").upper()
    return " ".join([*sorted(codes), *(["MT"] if transfer else []), dimension]).strip(), sequence


_MS_PER_S = 1000.0  # DICOM gives times in milliseconds
_PARAMETERS = (
    ("repetition_time_s", ("RepetitionTime",), _MS_PER_S, 1e6),
    ("echo_time_s", ("EffectiveEchoTime", "EchoTime"), _MS_PER_S, 1e5),
    ("inversion_time_s", ("InversionTimes", "InversionTime"), _MS_PER_S, 1e6),
    ("flip_angle_deg", ("FlipAngle",), 1.0, 720.0),
    ("slice_thickness_mm", ("SliceThickness",), 1.0, 1e4),
)


def read_acquisition(
    header: Header,
    sequence: str,
    scaling: Scaling,
    diffusion: Diffusion,
    *,
    map_quantity: str = "",
    map_unit: str = "",
) -> Acquisition:
    """Return the parameters of one image in SI units; NaN where the header does not give one.

    ``map_unit`` says where the unit of a scanner's map comes from; empty where it is not known.
    """
    values: dict[str, float] = {}
    for name, keywords, per_unit, limit in _PARAMETERS:
        numbers = (header.number(keyword) for keyword in keywords)
        values[name] = next((n / per_unit for n in numbers if 0 <= n <= limit), math.nan)
    if values["slice_thickness_mm"] == 0:
        values["slice_thickness_mm"] = math.nan
    if sequence != "inversion recovery" and values["inversion_time_s"] == 0:
        values["inversion_time_s"] = math.nan  # GE writes 0 where there is no inversion
    values["field_strength_T"] = read_field_strength(header)
    values["b_value_s_per_mm2"] = diffusion.b_value_s_per_mm2
    origins = {name: "DICOM" for name, value in values.items() if math.isfinite(value)}
    if diffusion.direction:
        origins["diffusion_direction"] = diffusion.direction_origin
    if map_unit:
        origins["map_quantity"] = map_unit
    return Acquisition(
        **values,
        diffusion_direction=diffusion.direction,
        diffusion_encoding=diffusion.encoding,
        map_quantity=map_quantity,
        echo_train_length=max(header.integer("EchoTrainLength"), 0),
        sequence=sequence,
        scale_slope=scaling.slope,
        scale_intercept=scaling.intercept,
        scale_source=scaling.source,
        origins=origins,
    )


_Geometry = tuple[
    tuple[float, float, float], tuple[float, float, float, float, float, float], tuple[float, float]
]


def read_geometry(header: Header) -> _Geometry:
    """Return position, orientation (both LPS) and pixel spacing (rows, columns) in mm.

    Raises
    ------
    UnreadableFileError
        If one of them is missing or not valid: without them images cannot be matched.
    """
    spacing = header.numbers("PixelSpacing", 2)
    if not spacing or not all(1e-3 < value < 1e3 for value in spacing):
        raise _missing("PixelSpacing (0028,0030)")
    orientation = header.numbers("ImageOrientationPatient", 6)
    if not orientation or not _orthonormal(orientation):
        raise _missing("ImageOrientationPatient (0020,0037)")
    position = header.numbers("ImagePositionPatient", 3)
    if not position or max(map(abs, position)) > 1e5:
        raise _missing("ImagePositionPatient (0020,0032)")
    x, y, z = position
    a, b, c, d, e, f = orientation
    return (x, y, z), (a, b, c, d, e, f), (spacing[0], spacing[1])


def _orthonormal(orientation: tuple[float, ...]) -> bool:
    first, second = orientation[:3], orientation[3:]
    lengths = (math.hypot(*first), math.hypot(*second))
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return all(abs(length - 1) < 0.01 for length in lengths) and abs(dot) < 0.01


def _missing(element: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{element} is missing or not valid", todo="export the original images from the scanner"
    )


def read_field_strength(header: Header) -> float:
    """Return the field strength in tesla; NaN where the header does not tell."""
    field = header.number("MagneticFieldStrength")
    proton = (header.tokens("ImagedNucleus") or ("1H",))[0] == "1H"
    from_frequency = header.number("ImagingFrequency") / 42.577478518 if proton else math.nan
    # Some scanners write gauss; the proton frequency settles it where it is given.
    candidates = (field, from_frequency, field / 10_000)
    return next((value for value in candidates if 0 < value < 30), math.nan)
