"""Magnetization transfer of the cord: align, map, lay the atlas in, extract."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.extraction import Method, extract_regions
from cordqa.cord.template import lay_atlas
from cordqa.errors import CordqaError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.models.magnetization_transfer.maps import ParameterMap
from cordqa.models.magnetization_transfer.pairing import check_mt_pair, check_mt_triplet
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation
from cordqa.quantities import get_quantity
from cordqa.records import Acquisition, Measurement, Notice, Severity, Volume
from cordqa.workflow.cord_atlas import AtlasChoice, load_sections, regions_of
from cordqa.workflow.cord_coregister import Alignment, align_slices
from cordqa.workflow.cord_image import analyse_image, carry_levels, groups_of, open_image
from cordqa.workflow.cord_records import CordImage, Levels, TransferMaps, Unit
from cordqa.workflow.cord_select import TransferSet, read_number

__all__ = ["analyse_transfer", "read_acquisition", "transfer_rows"]

_WORDS = {"on": "MT-on", "off": "MT-off", "T1w": "T1w"}
#: Order of preference for the image on whose grid everything is done.
_FIXED = ("on", "off", "T1w")
_ENGINE_STEP = "magnetization transfer"


def read_acquisition(index: BidsIndex, file: BidsFile) -> Acquisition:
    """Read the settings that enter MTR and MTsat from the sidecar; NaN where it lacks them."""
    sidecar = index.sidecar(file)
    slope = read_number(sidecar, "PhilipsRescaleSlope", "RescaleSlope")
    scale = read_number(sidecar, "PhilipsScaleSlope")
    shift = read_number(sidecar, "PhilipsRescaleIntercept", "RescaleIntercept")
    known = math.isfinite(slope) and math.isfinite(scale)
    repetition = read_number(sidecar, "RepetitionTimeExcitation", "RepetitionTime")
    return Acquisition(
        repetition_time_s=repetition,
        echo_time_s=read_number(sidecar, "EchoTime"),
        flip_angle_deg=read_number(sidecar, "FlipAngle"),
        # Philips stores a factor beside that of the header; a converter may have applied either.
        scale_slope=scale if known else 1.0,
        scale_intercept=shift if math.isfinite(shift) else 0.0,
        scale_source="sidecar" if known else "",
        origins={"repetition_time_s": "sidecar"} if math.isfinite(repetition) else {},
    )


def analyse_transfer(
    index: BidsIndex, protocol: TransferSet, unit: Unit, atlas: AtlasChoice, *, wanted: Sequence[str]
) -> TransferMaps | None:
    """Map one MT protocol on the grid of its MT-on image; what fails is recorded in ``unit``."""
    roles = protocol.by_role
    if not {"on", "off"} <= roles.keys():
        missing = " and ".join(_WORDS[role] for role in ("on", "off") if role not in roles)
        unit.skip(
            protocol.name,
            _ENGINE_STEP,
            f"no {missing} image beside {', '.join(f.name for f in roles.values())}",
            "mt.incomplete",
        )
        return None
    fixed_role = _fixed_role(index, roles)
    image = analyse_image(index, roles[fixed_role], unit)
    if image is None:
        unit.skip(protocol.name, _ENGINE_STEP, f"no cord in {_WORDS[fixed_role]}", "mt.no-cord")
        return None
    contrast = replace(image.entities, acquisition=protocol.acquisition)
    image = replace(image, entities=contrast, levels=image.levels or _carried(image, unit))
    try:
        maps = _maps(index, roles, fixed_role, image, unit, protocol.name)
    except CordqaError as error:
        unit.fail(protocol.name, _ENGINE_STEP, error, tuple(f.relative for f in roles.values()))
        return None
    return replace(maps, atlas=_lay(image, atlas, unit, protocol.name))


def _fixed_role(index: BidsIndex, roles: Mapping[str, BidsFile]) -> str:
    """Choose the image that stays: one with a mask of the user, else MT-on."""
    for role in _FIXED:
        if role in roles and Role.CORD in find_user_files(index, roles[role]).by_role:
            return role
    return "on"


def _carried(image: CordImage, unit: Unit) -> Levels | None:
    """Take the levels of the first anatomical image that has them and shares a part of the cord."""
    for other in unit.images:
        if other.levels is None or other.file == image.file:
            continue
        found = carry_levels(other, image.volume, image.table)
        if found is not None:
            unit.note(
                "cord.levels-carried",
                f"levels are {found.how}, as if nobody had moved in between",
                image.label,
                Severity.INFO,
            )
            return found
    return None


def _maps(
    index: BidsIndex,
    roles: Mapping[str, BidsFile],
    fixed_role: str,
    image: CordImage,
    unit: Unit,
    name: str,
) -> TransferMaps:
    settings = {role: read_acquisition(index, file) for role, file in roles.items()}
    aligned: dict[str, Volume] = {fixed_role: image.volume}
    shifts: list[str] = []
    for role, file in roles.items():
        if role != fixed_role:
            found = align_slices(
                open_image(file, unit), image.volume, image.mask.volume, image.table.centreline
            )
            aligned[role] = found.volume
            shifts.append(_note_alignment(found, role, fixed_role, unit, name))
    pair = check_mt_pair(settings["on"], settings["off"])
    _note_pair(pair, unit, name)
    flags = {"MTR": _flags(pair)}
    found_ratio = mt_ratio(aligned["on"].data, aligned["off"].data)
    maps = {"MTR": _volume(found_ratio, image, "MTR")}
    if "T1w" in roles:
        triplet = check_mt_triplet(settings["on"], settings["off"], settings["T1w"])
        _note_pair(triplet, unit, name)
        try:
            saturation, t1 = _saturation(aligned, settings)
            maps |= {
                "MTsat": _volume(saturation, image, "MTsat"),
                "T1": _volume(t1, image, "T1", scale=1000.0),
            }
            flags |= {"MTsat": _flags(triplet), "T1": _flags(triplet)}
        except CordqaError as error:
            unit.fail(name, "MTsat and T1", error, tuple(f.relative for f in roles.values()))
    else:
        unit.skip(name, "MTsat and T1", "no T1-weighted image of the protocol", "mt.no-t1w")
    unit.done(name, "maps", ", ".join(maps), tuple(f.relative for f in roles.values()))
    return TransferMaps(
        image=image, maps=maps, atlas=None, sources=tuple(roles.values()), flags=flags, shifts=tuple(shifts)
    )


def _note_alignment(found: Alignment, role: str, fixed_role: str, unit: Unit, name: str) -> str:
    words = f"{_WORDS[role]} against {_WORDS[fixed_role]}: {found.note}"
    if found.resampled:
        words += "; it came on another grid and was resampled"
    large = math.hypot(*found.found_mm) > 2.0
    unit.note(
        "mt.alignment",
        words,
        name,
        Severity.WARNING if large or "too little" in found.note else Severity.INFO,
    )
    return words


def _note_pair(notices: Sequence[Notice], unit: Unit, name: str) -> None:
    for notice in notices:
        # A wrong setting spoils a value; it does not stop the run.
        severity = Severity.WARNING if notice.severity is Severity.ERROR else notice.severity
        unit.note(notice.code, notice.message, name, severity)


def _flags(notices: Sequence[Notice]) -> tuple[str, ...]:
    return tuple(notice.message for notice in notices if notice.code == "mt.mismatch")


def _saturation(
    aligned: Mapping[str, Volume], settings: Mapping[str, Acquisition]
) -> tuple[ParameterMap, ParameterMap]:
    unknown = [
        _WORDS[role]
        for role in ("on", "off", "T1w")
        if not math.isfinite(settings[role].repetition_time_s + settings[role].flip_angle_deg)
    ]
    if unknown:
        raise InputError(
            "MTsat needs repetition time and flip angle of every image",
            found=f"none in the sidecar of {', '.join(unknown)}",
            todo="add RepetitionTime (s) and FlipAngle (degrees) to the sidecar",
        )
    echoes = {
        role: SpoiledEcho(repetition_time_s=a.repetition_time_s, flip_angle_deg=a.flip_angle_deg)
        for role, a in settings.items()
    }
    found = fit_mt_saturation(
        aligned["on"].data,
        aligned["off"].data,
        aligned["T1w"].data,
        mt_echo=echoes["on"],
        pd_echo=echoes["off"],
        t1_echo=echoes["T1w"],
    )
    return found.mtsat_percent, found.t1_s


def _volume(found: ParameterMap, image: CordImage, quantity: str, *, scale: float = 1.0) -> Volume:
    """Keep what tissue can have; a noisy voxel at the rim would carry an average away."""
    values: NDArray[np.float64] = found.values * scale
    low, high = _limits(quantity)
    values = np.where((values >= low) & (values <= high), values, np.nan)
    return Volume(data=values.astype(np.float32), affine=image.volume.affine, source=quantity)


def _limits(quantity: str) -> tuple[float, float]:
    """Range beyond which a voxel holds noise or air; wider than what tissue has, so as not to bias."""
    registered = get_quantity(quantity)
    width = registered.high - registered.low
    return registered.low - width, registered.high + width


def _lay(image: CordImage, choice: AtlasChoice, unit: Unit, name: str) -> AtlasImage | None:
    try:
        coordinate = image.levels.map.coordinate if image.levels is not None else None
        laid, notices = lay_atlas(
            load_sections(choice),
            image.mask.volume,
            coordinate=coordinate,
            pieces="raise" if image.mask.engine == "user" else "largest",
        )
    except CordqaError as error:
        unit.fail(name, "atlas", error, (image.file.relative,))
        return None
    for notice in notices:
        unit.note(notice.code, notice.message, name, notice.severity)
    unit.done(name, "atlas", choice.name)
    return laid


def transfer_rows(
    found: TransferMaps, choice: AtlasChoice, unit: Unit, *, wanted: Sequence[str], method: str
) -> None:
    """Extract every map in every region; slice by slice where no level is known."""
    if found.atlas is None:
        return
    image = found.image
    groups, notes = groups_of(image, wanted)
    slices = {name: image.table.slices[chosen] for name, chosen in groups.items() if chosen.any()}
    if image.levels is None:
        for number, stored in zip(image.table.slices, image.table.array_index, strict=True):
            slices[f"slice {int(number)} (array index {int(stored)})"] = np.array([number], dtype=np.intp)
    for quantity, volume in found.maps.items():
        rows = extract_regions(
            volume,
            found.atlas,
            quantity=quantity,
            regions=regions_of(found.atlas.labels, choice),
            method=cast("Method", method),
            groups=slices,
            notes=notes,
            entities=image.entities,
            engine=image.mask.label,
        )
        more = (*_atlas_flags(choice), *found.flags.get(quantity, ()))
        unit.rows.extend(
            replace(row, flags=(*row.flags, *more), method=f"{method}, {choice.name}") for row in rows
        )
        for name, note in notes.items():
            if not groups[name].any():
                unit.rows.append(_absent(quantity, name, note, image, method))
    unit.done(
        image.label, "extraction", f"{', '.join(found.maps)} in {len(slices)} groups of slices, {method}"
    )


def _atlas_flags(choice: AtlasChoice) -> tuple[str, ...]:
    return ("approximate: analytical atlas",) if choice.approximate else ()


def _absent(quantity: str, level: str, note: str, image: CordImage, method: str) -> Measurement:
    values: dict[str, Any] = {"value": math.nan, "coverage": 0.0}
    return Measurement(
        quantity=quantity,
        unit=get_quantity(quantity).unit,
        region="WM",
        level=level,
        method=method,
        engine=image.mask.label,
        entities=image.entities,
        flags=(note,),
        **values,
    )
