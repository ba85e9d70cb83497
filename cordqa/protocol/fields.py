"""The fields that a protocol can speak of: BIDS names, units, and what a wrong unit looks like.

Names and units are those of the BIDS specification and of the sidecars that dcm2niix writes.  A value
that is outside what any scanner does, and inside once a unit is converted, was written in that unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cordqa.protocol.records import ObservedValue, Origin, Problem

__all__ = ["FIELDS", "VENDORS", "FieldKind", "FieldSpec", "find_field", "format_number", "observe"]

#: Short names of vendors, as readers give them.
VENDORS = ("Siemens", "Philips", "GE", "Canon", "United Imaging", "Hitachi", "Fujifilm", "Bruker")
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_SHOWN = 40
_LONGEST_LIST = 100_000


class FieldKind(StrEnum):
    """What a field holds."""

    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"
    WORDS = "words"  # a list of words: ImageType


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """One field.

    Attributes
    ----------
    name : str
        BIDS name.
    label : str
        For people: ``repetition time``.
    unit : str
        Empty for counts and factors.
    plausible : tuple of float
        What scanners do, in the unit.
    confusions : tuple of (float, str)
        Factor that turns the value into the unit, where it was written in the named unit.
    """

    name: str
    label: str
    kind: FieldKind = FieldKind.NUMBER
    unit: str = ""
    plausible: tuple[float, float] = (-math.inf, math.inf)
    confusions: tuple[tuple[float, str], ...] = ()


_TIME = ((1e-3, "milliseconds"), (1e-6, "microseconds"), (60.0, "minutes"))
_SHORT = ((1e-3, "milliseconds"), (1e-6, "microseconds"))
_LENGTH = ((1e3, "metres"), (10.0, "centimetres"))
_ANGLE = ((180 / math.pi, "radians"),)
_FIELD = ((1e-4, "gauss"), (1e-3, "millitesla"))
_FREQUENCY = ((1e3, "kilohertz"), (1e6, "megahertz"))


def _number(
    name: str,
    label: str,
    unit: str = "",
    plausible: tuple[float, float] = (-math.inf, math.inf),
    confusions: tuple[tuple[float, str], ...] = (),
) -> FieldSpec:
    return FieldSpec(name=name, label=label, unit=unit, plausible=plausible, confusions=confusions)


def _other(kind: FieldKind, *pairs: tuple[str, str]) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(name=name, label=label, kind=kind) for name, label in pairs)


FIELDS: dict[str, FieldSpec] = {
    spec.name: spec
    for spec in (
        _number("RepetitionTime", "repetition time", "s", (1e-3, 30.0), _SHORT),
        _number("RepetitionTimeExcitation", "repetition time of excitations", "s", (1e-3, 30.0), _SHORT),
        _number("RepetitionTimePreparation", "repetition time of preparations", "s", (1e-3, 30.0), _SHORT),
        _number("EchoTime", "echo time", "s", (1e-5, 1.0), _SHORT),
        _number("InversionTime", "inversion time", "s", (1e-3, 15.0), _SHORT),
        _number("DwellTime", "dwell time", "s", (1e-7, 1e-3), _SHORT),
        _number("EffectiveEchoSpacing", "effective echo spacing", "s", (1e-5, 0.01), _SHORT),
        _number("TotalReadoutTime", "total readout time", "s", (1e-4, 1.0), _SHORT),
        _number("AcquisitionDuration", "scan time", "s", (1.0, 7200.0), _TIME),
        _number("MTPulseDuration", "duration of the MT pulse", "s", (1e-4, 1.0), _SHORT),
        _number("FlipAngle", "flip angle", "deg", (0.5, 360.0), _ANGLE),
        _number("MTFlipAngle", "flip angle of the MT pulse", "deg", (1.0, 3000.0), _ANGLE),
        _number("RefocusingFlipAngle", "refocusing angle", "deg", (1.0, 360.0), _ANGLE),
        _number("MagneticFieldStrength", "field strength", "T", (0.01, 20.0), _FIELD),
        _number("ImagingFrequency", "imaging frequency", "MHz", (0.4, 900.0)),
        _number("MTOffsetFrequency", "offset of the MT pulse", "Hz", (-1e5, 1e5), _FREQUENCY),
        _number("PixelBandwidth", "bandwidth per pixel", "Hz", (1.0, 1e5), _FREQUENCY),
        _number("BandwidthPerPixelPhaseEncode", "bandwidth per pixel, phase encoding", "Hz", (0.1, 1e4)),
        _number("SliceThickness", "slice thickness", "mm", (0.1, 500.0), _LENGTH),
        _number("SpacingBetweenSlices", "distance between slices", "mm", (0.1, 500.0), _LENGTH),
        _number("VoxelSizeI", "voxel size, first axis", "mm", (0.01, 100.0), _LENGTH),
        _number("VoxelSizeJ", "voxel size, second axis", "mm", (0.01, 100.0), _LENGTH),
        _number("VoxelSizeK", "voxel size, third axis", "mm", (0.01, 500.0), _LENGTH),
        _number("ParallelReductionFactorInPlane", "in-plane acceleration", "", (1.0, 16.0)),
        _number("ParallelReductionFactorOutOfPlane", "through-plane acceleration", "", (1.0, 16.0)),
        _number("MultibandAccelerationFactor", "slices excited together", "", (1.0, 16.0)),
        _number("PartialFourier", "partial Fourier", "", (0.5, 1.0)),
        _number("EchoTrainLength", "echo train length", "", (1.0, 2000.0)),
        _number("NumberOfAverages", "averages", "", (0.1, 1000.0)),
        _number("NumberOfVolumes", "volumes", "", (1.0, 1e5)),
        _number("NumberOfSlices", "slices", "", (1.0, 1e4)),
        _number("BaseResolution", "base resolution", "", (1.0, 1e4)),
        _number("AcquisitionMatrixPE", "acquired matrix, phase encoding", "", (1.0, 1e4)),
        _number("ReconMatrixPE", "reconstructed matrix, phase encoding", "", (1.0, 1e4)),
        _number("PhaseEncodingSteps", "phase encoding steps", "", (1.0, 1e5)),
        _number("PhaseEncodingLines", "phase encoding lines", "", (1.0, 1e5)),
        _number("PercentPhaseFOV", "phase field of view", "%", (1.0, 200.0)),
        _number("PercentSampling", "sampling", "%", (1.0, 200.0)),
        _number("PhilipsRescaleSlope", "rescale slope"),
        _number("PhilipsRescaleIntercept", "rescale intercept"),
        _number("PhilipsScaleSlope", "scale slope"),
        _number("PhilipsRWVSlope", "real-world value slope"),
        _number("PhilipsRWVIntercept", "real-world value intercept"),
        _number("RescaleSlope", "rescale slope"),
        _number("RescaleIntercept", "rescale intercept"),
        _number("PhantomTemperature", "temperature of the phantom", "C", (-5.0, 60.0)),
        *_other(
            FieldKind.FLAG,
            ("MTState", "MT pulse"),
            ("SpoilingState", "spoiling"),
            ("NonlinearGradientCorrection", "correction of gradient distortion"),
            ("UsePhilipsFloatNotDisplayScaling", "scaling to floating-point values"),
        ),
        *_other(
            FieldKind.TEXT,
            ("Manufacturer", "vendor"),
            ("ManufacturersModelName", "scanner model"),
            ("SoftwareVersions", "software"),
            ("ReceiveCoilName", "receive coil"),
            ("CoilString", "coil elements"),
            ("ReceiveCoilActiveElements", "coil elements"),
            ("MRAcquisitionType", "2D or 3D"),
            ("SequenceName", "sequence"),
            ("PulseSequenceDetails", "sequence, in detail"),
            ("PulseSequenceType", "sequence type"),
            ("PhaseEncodingDirection", "phase encoding direction"),
            ("PhaseEncodingAxis", "phase encoding axis"),
            ("InPlanePhaseEncodingDirectionDICOM", "phase encoding direction"),
            ("MTPulseShape", "shape of the MT pulse"),
            ("DiffusionScheme", "diffusion encoding"),
            ("ConversionSoftware", "converter"),
            ("ConversionSoftwareVersion", "version of the converter"),
            ("BodyPartExamined", "body part"),
            ("PatientPosition", "position"),
        ),
        *_other(
            FieldKind.WORDS,
            ("ImageType", "image type"),
            ("ScanningSequence", "kind of sequence"),
            ("SequenceVariant", "sequence variant"),
            ("ScanOptions", "scan options"),
        ),
    )
}


def find_field(name: str) -> FieldSpec | None:
    """Return a field by its BIDS name; ``None`` where it is not known."""
    return FIELDS.get(name)


def format_number(value: float) -> str:
    """Write a number with at most six significant digits and no trailing zeros."""
    return f"{value:.6g}"


def observe(field: str, raw: Any, *, origin: Origin = Origin.SIDECAR, factor: float = 1.0) -> ObservedValue:
    """Turn a recorded value into one that can be compared.

    Parameters
    ----------
    field : str
        BIDS name; one that is not registered is kept as text.
    raw : object
        JSON or DICOM value.
    origin : Origin
        Where it was read.
    factor : float
        From the unit of the source to that of the field (0.001 for DICOM times, which are in ms).

    Returns
    -------
    ObservedValue
        Without a usable value, ``problem`` and ``note`` say why.

    Examples
    --------
    >>> observe("RepetitionTime", "0,035").note
    "'0,035' has a comma where a decimal point belongs"
    """
    spec = FIELDS.get(field)
    kind = FieldKind.TEXT if spec is None else spec.kind
    unit = "" if spec is None else spec.unit
    value: float | str | bool | tuple[float, ...] | tuple[str, ...] | None
    if kind is FieldKind.NUMBER:
        value, note = _number_of(raw, factor)
    elif kind is FieldKind.FLAG:
        value, note = _flag_of(raw)
    elif kind is FieldKind.WORDS:
        value, note = _words_of(raw), ""
    else:
        value, note = _text_of(raw), ""
    bad = value is None or (kind is FieldKind.NUMBER and isinstance(value, tuple))
    problem = Problem.NOT_NUMERIC if bad else Problem.NONE
    return ObservedValue(raw, value, unit, origin, problem, note)


def _number_of(raw: Any, factor: float) -> tuple[float | tuple[float, ...] | None, str]:
    if isinstance(raw, (list, tuple)):
        numbers = _numbers_of(raw, factor)
        shown = ", ".join(_shown(item) for item in raw[:3]) + (", ..." if len(raw) > 3 else "")
        return numbers, f"a list ([{shown}]) stands where a number belongs"
    if isinstance(raw, bool) or raw is None:
        return None, f"{_shown(raw)} is not a number"
    if isinstance(raw, str):
        text = raw.strip()
        if _COMMA.fullmatch(text):
            return None, f"{_shown(raw)} has a comma where a decimal point belongs"
        if not _NUMBER.fullmatch(text):
            return None, f"{_shown(raw)} is not a number"
        raw = text
    return _finite(raw, factor)


def _finite(raw: Any, factor: float) -> tuple[float | None, str]:
    try:
        number = float(raw) * factor
    except (TypeError, ValueError, OverflowError):
        return None, f"{_shown(raw)} is not a number"
    return (number, "") if math.isfinite(number) else (None, f"{_shown(raw)} is not a finite number")


def _numbers_of(raw: Sequence[Any], factor: float) -> tuple[float, ...] | None:
    """Return a list of numbers; ``None`` where it is none, because echo times may stand in a list."""
    if not raw or len(raw) > _LONGEST_LIST:
        return None
    found = []
    for item in raw:
        number = None if isinstance(item, (list, tuple)) else _number_of(item, factor)[0]
        if not isinstance(number, float):
            return None
        found.append(number)
    return tuple(found)


def _flag_of(raw: Any) -> tuple[bool | None, str]:
    if isinstance(raw, bool):
        return raw, ""
    word = str(raw).strip().casefold() if isinstance(raw, (str, int, float)) else ""
    word = word.removesuffix(".0")
    if word in _TRUE or word in _FALSE:
        return word in _TRUE, ""
    return None, f"{_shown(raw)} is neither true nor false"


def _words_of(raw: Any) -> tuple[str, ...]:
    """Return the words of a list, or of a text in which backslash or underscore stands between them."""
    items: Iterable[Any] = raw if isinstance(raw, (list, tuple)) else re.split(r"[\\_]", str(raw))
    return tuple(word for word in (str(item).strip().upper() for item in items) if word)


def _text_of(raw: Any) -> str:
    if isinstance(raw, (list, tuple)):
        return ", ".join(str(item).strip() for item in raw)
    if isinstance(raw, float):
        return format_number(raw)
    return str(raw).strip()


def _shown(raw: Any) -> str:
    if raw is None or isinstance(raw, bool):
        return {None: "null", True: "true", False: "false"}[raw]
    try:
        text = repr(raw)
    except ValueError:  # an integer of thousands of digits
        text = type(raw).__name__
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
