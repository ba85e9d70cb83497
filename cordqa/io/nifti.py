"""NIfTI images with JSON sidecars (BIDS) to frames.

Parameters come from the sidecar alone, in the units of BIDS: seconds and degrees.  File names
are only used for what BIDS says they mean: which subject, session and run an image belongs to,
and which part of the signal it shows.  A 4D file needs a list of the parameter that varies,
one entry per volume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cordqa.errors import UnreadableFileError
from cordqa.io.bids import Entity, Sidecars, bids_entities, bids_suffix, read_numbers
from cordqa.io.files import printable
from cordqa.io.frames import Frame, Ignored, Scanner
from cordqa.io.limits import ReadLimits
from cordqa.io.nifti_header import NiftiFile, NiftiHeader, read_nifti_header
from cordqa.io.vendors import part_of_token, vendor_name
from cordqa.records import Acquisition, Part

__all__ = ["Sidecar", "read_nifti"]

_BIDS_PARTS = {
    "mag": Part.MAGNITUDE,
    "phase": Part.PHASE,
    "real": Part.REAL,
    "imag": Part.IMAGINARY,
}
#: What the suffixes of BIDS say about the sequence, where the sidecar says nothing.
_SEQUENCES = {
    "IRT1": "inversion recovery",
    "MESE": "spin echo",
    "MEGRE": "gradient echo",
    "VFA": "gradient echo",
}
#: Sidecar key, field, largest value that can be meant in the unit of BIDS.
_PARAMETERS = (
    ("RepetitionTimeExcitation", "repetition_time_s", 120.0),
    ("RepetitionTime", "repetition_time_s", 120.0),
    ("EchoTime", "echo_time_s", 1.5),
    ("InversionTime", "inversion_time_s", 30.0),
    ("FlipAngle", "flip_angle_deg", 720.0),
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar says about the phantom; empty or NaN where it says nothing."""

    serial_number: str = ""
    temperature_C: float = math.nan


def read_nifti(
    root: Path, source: str, *, limits: ReadLimits, sidecars: Sidecars
) -> tuple[list[Frame] | Ignored, Sidecar]:
    """Read the header and the sidecar of one NIfTI file.

    Parameters
    ----------
    root : Path
        Folder that was given.
    source : str
        The file, relative to it.
    limits : ReadLimits
        Bounds that are checked before memory is asked for.
    sidecars : Sidecars
        The sidecars below the folder.

    Returns
    -------
    list of Frame or Ignored
        One frame per slice and volume, or why the file is passed over.
    Sidecar
        Serial number and temperature of the phantom, where the sidecar has them.

    Raises
    ------
    UnreadableFileError
        If file or sidecar are damaged, lack a parameter, or give it in another unit.
    TooLargeError
        If more voxels are claimed than the limit.
    """
    meta = sidecars.of(source)
    if meta is None:
        return Ignored("NIfTI without a JSON sidecar"), Sidecar()
    header = read_nifti_header(root / source, limits=limits)
    slices, n_volumes = header.shape[2:]
    file = NiftiFile(root / source, source, header)
    entities = bids_entities(source)
    b_values = read_numbers(root / source, ".bval", limit=limits.max_sidecar_bytes)
    volumes = _volumes(meta, header, n_volumes, b_values, bids_suffix(root.joinpath(source).name))
    template = _template(file, meta, entities)
    frames = [
        replace(
            template,
            index=volume * slices + s,
            position=header.position(s),
            acquisition=acquisition,
            direction=(float(volume),) if b_values else (),
            temporal_position=volume,
        )
        for volume, acquisition in enumerate(volumes)
        for s in range(slices)
    ]
    return frames, _phantom(meta)


def _volumes(
    meta: Mapping[str, Any], header: NiftiHeader, count: int, b_values: Sequence[float], suffix: str
) -> list[Acquisition]:
    """Return one acquisition per volume."""
    values: dict[str, list[float]] = {}
    for key, name, largest in _PARAMETERS:
        if meta.get(key) is not None or name not in values:
            values[name] = _series(meta, key, count, largest)
    if b_values and len(b_values) != count:
        raise UnreadableFileError(
            "the number of b-values contradicts the number of volumes",
            found=str(len(b_values)),
            expected=str(count),
        )
    values["b_value_s_per_mm2"] = [b if 0 <= b < 1e6 else math.nan for b in b_values] or [math.nan] * count
    constant = _constants(meta, header)
    scaled = (header.slope, header.intercept) != (1.0, 0.0)
    acquisitions = []
    for volume in range(count):
        own: dict[str, Any] = {name: series[volume] for name, series in values.items()} | constant
        acquisitions.append(
            Acquisition(
                **own,
                echo_train_length=_count(meta, "EchoTrainLength"),
                sequence=_sequence(meta, own, suffix),
                scale_slope=header.slope,
                scale_intercept=header.intercept,
                scale_source="NIfTI header" if scaled else "",
                origins={name: "sidecar" for name, value in own.items() if math.isfinite(value)},
            )
        )
    return acquisitions


def _constants(meta: Mapping[str, Any], header: NiftiHeader) -> dict[str, float]:
    thickness = _finite(meta.get("SliceThickness"))
    if not 0 < thickness < 1e4:
        thickness = header.spacing[2]
    field = _finite(meta.get("MagneticFieldStrength"))
    return {
        "field_strength_T": field if 0 < field < 30 else math.nan,
        "slice_thickness_mm": thickness,
        "temperature_C": _phantom(meta).temperature_C,
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(meta: Mapping[str, Any], key: str) -> int:
    number = _number(meta.get(key))
    return int(number) if number is not None and 0 <= number < 2**31 else 0


def _finite(value: Any) -> float:
    number = _number(value)
    return math.nan if number is None else number


def _series(meta: Mapping[str, Any], key: str, count: int, largest: float) -> list[float]:
    """Return a parameter of every volume; refuse a value that cannot be in the unit of BIDS."""
    value = meta.get(key)
    if value is None:
        return [math.nan] * count
    entries = value if isinstance(value, list) else [value] * count
    numbers = [_number(entry) for entry in entries]
    if None in numbers:
        raise UnreadableFileError(f"{key} in the sidecar is not a number", todo="correct the sidecar")
    if len(numbers) != count:
        raise UnreadableFileError(
            f"the number of {key} values contradicts the number of volumes",
            found=str(len(numbers)),
            expected=str(count),
            todo="list one value per volume",
        )
    result = [number for number in numbers if number is not None]
    unit = "degrees" if key == "FlipAngle" else "seconds"
    wrong = next((v for v in result if not 0 <= v <= largest), None)
    if wrong is not None:
        raise UnreadableFileError(
            f"{key} in the sidecar cannot be in {unit}",
            found=f"{wrong:g}",
            expected=f"0 to {largest:g} {unit}",
            todo="BIDS wants seconds and degrees" + (", not milliseconds" if wrong > largest else ""),
        )
    return result


def _words(meta: Mapping[str, Any], key: str) -> list[str]:
    value = meta.get(key)
    parts = value if isinstance(value, list) else str(value).replace("_", "\\").split("\\") if value else []
    return [printable(str(part), limit=64).upper() for part in parts[:32]]


def _sequence(meta: Mapping[str, Any], own: Mapping[str, float], suffix: str) -> str:
    codes = _words(meta, "ScanningSequence")
    inverted = own["inversion_time_s"] > 0 and not {"GR", "EP"} & set(codes)
    if "IR" in codes or inverted:
        return "inversion recovery"
    named = "gradient echo" if "GR" in codes else "spin echo" if "SE" in codes else ""
    return named or _SEQUENCES.get(suffix, "")


def _text(meta: Mapping[str, Any], key: str) -> str:
    value = meta.get(key)
    known = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return printable(str(value), limit=64) if known else ""


def _part(meta: Mapping[str, Any], entities: Mapping[str, str]) -> Part:
    explicit = part_of_token(_text(meta, "ComplexImageComponent"))
    if explicit is not None:
        return explicit
    image_type = meta.get("ImageType")
    tokens = image_type[2:] if isinstance(image_type, list) else []
    named = next((p for p in (part_of_token(str(t)) for t in tokens) if p is not None), None)
    return named or _BIDS_PARTS.get(entities.get("part", ""), Part.MAGNITUDE)


def _template(file: NiftiFile, meta: Mapping[str, Any], entities: Mapping[str, str]) -> Frame:
    vendor = vendor_name(_text(meta, "Manufacturer"))
    field = _constants(meta, file.header)["field_strength_T"]
    columns, rows = file.header.shape[:2]
    part = _part(meta, entities)
    acquired = _text(meta, "AcquisitionDateTime") or _text(meta, "AcquisitionTime")
    identity = "/".join(entities.get(e.value, "") for e in (Entity.SUBJECT, Entity.SESSION))
    series = _text(meta, "SeriesInstanceUID") or file.source
    return Frame(
        file=file,
        index=0,
        rows=rows,
        columns=columns,
        position=(0.0, 0.0, 0.0),
        orientation=file.header.orientation,
        spacing=file.header.spacing[:2],
        acquisition=Acquisition(),
        part=part,
        scanner=Scanner(
            vendor=vendor,
            model=_text(meta, "ManufacturersModelName")[:40],
            field_strength_T=round(field, 1) if math.isfinite(field) else 0.0,
            device=_text(meta, "DeviceSerialNumber") or _text(meta, "StationName"),
        ),
        software=_text(meta, "SoftwareVersions"),
        flags=("phase-unit-unknown",) if part is Part.PHASE and _text(meta, "Units") != "rad" else (),
        family=" ".join(
            sorted({*_words(meta, "ScanningSequence"), _text(meta, "MRAcquisitionType")})
        ).strip(),
        acquired=acquired if acquired[:4].isdigit() and "T" in acquired else "",
        series_number=_count(meta, "SeriesNumber"),
        subject=entities.get(Entity.SUBJECT.value, ""),
        session=entities.get(Entity.SESSION.value, ""),
        run=entities.get(Entity.RUN.value, ""),
        processing=entities.get(Entity.ACQUISITION.value, ""),
        study_uid=_text(meta, "StudyInstanceUID"),
        patient_key=identity,
        series_uid=series,
    )


def _phantom(meta: Mapping[str, Any]) -> Sidecar:
    """Read ``PhantomSerialNumber`` and ``PhantomTemperature`` (degrees Celsius)."""
    temperature = _finite(meta.get("PhantomTemperature"))
    return Sidecar(
        serial_number=_text(meta, "PhantomSerialNumber"),
        temperature_C=temperature if -20 <= temperature <= 80 else math.nan,
    )
