"""Magnetization transfer of the cord: align, map, lay the atlas in, extract."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.estimators import PARTIAL_VOLUME
from cordqa.cord.extraction import Method, extract_regions
from cordqa.cord.signal_extraction import extract_modelled
from cordqa.errors import CordqaError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.models.magnetization_transfer.pairing import check_mt_pair, check_mt_triplet
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation
from cordqa.models.maps import FittedMaps
from cordqa.quantities import get_quantity
from cordqa.records import Acquisition, Measurement, Notice, Severity, Volume
from cordqa.workflow.cord_atlas import AtlasChoice, lay_as_imaged, lay_into_cord, regions_of
from cordqa.workflow.cord_coregister import Alignment, align_slices
from cordqa.workflow.cord_image import analyse_image, carry_levels, name_slices, open_image
from cordqa.workflow.cord_records import CordImage, Levels, TransferMaps, Unit
from cordqa.workflow.cord_select import TransferSet, read_number
from cordqa.workflow.cord_settings import CordSettings, uses_signals

__all__ = [
    "TransferModel",
    "analyse_transfer",
    "carried_levels",
    "check_settings",
    "choose_fixed",
    "mismatch_flags",
    "note_pair",
    "read_acquisition",
    "transfer_rows",
]

_WORDS = {"on": "MT-on", "off": "MT-off", "T1w": "T1w"}
#: Order of preference for the image on whose grid everything is done.
_FIXED = ("on", "off", "T1w")
_ENGINE_STEP = "magnetization transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferModel:
    """From the signals of MT-on, MT-off and, where there is one, T1w to what they say together.

    ``echoes`` is empty where the settings of the images are not known or one is missing; then
    only MTR can be had.
    """

    echoes: Mapping[str, SpoiledEcho]

    def __call__(self, signals: NDArray[np.float64]) -> FittedMaps:
        """Give MTR, and MTsat (percent) and T1 (ms) where settings are known; signals are (n_images, n)."""
        ratio = mt_ratio(signals[0], signals[1])
        if not self.echoes:
            return ratio
        more = self.saturation(signals[0], signals[1], signals[2])
        names = ("MTsat", "T1")
        return replace(
            ratio,
            model=f"{ratio.model}; {more.model}",
            values={**ratio.values, **{name: more.values[name] for name in names}},
            units={**ratio.units, **{name: more.units[name] for name in names}},
            own_reasons={name: more.reason_of(name) for name in names},
        )

    def saturation(self, on: NDArray[Any], off: NDArray[Any], t1w: NDArray[Any]) -> FittedMaps:
        """MTsat and T1 with nominal flip angles."""
        return fit_mt_saturation(
            on,
            off,
            t1w,
            mt_echo=self.echoes["on"],
            pd_echo=self.echoes["off"],
            t1_echo=self.echoes["T1w"],
        )


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
    fixed_role = choose_fixed(index, roles)
    image = analyse_image(index, roles[fixed_role], unit)
    if image is None:
        unit.skip(protocol.name, _ENGINE_STEP, f"no cord in {_WORDS[fixed_role]}", "mt.no-cord")
        return None
    contrast = replace(image.entities, acquisition=protocol.acquisition)
    image = replace(image, entities=contrast, levels=image.levels or carried_levels(image, unit))
    try:
        maps = _maps(index, roles, fixed_role, image, unit, protocol.name)
    except CordqaError as error:
        unit.fail(protocol.name, _ENGINE_STEP, error, tuple(f.relative for f in roles.values()))
        return None
    laid = lay_into_cord(image, atlas, unit, protocol.name)
    if laid is not None:
        unit.done(protocol.name, "atlas", atlas.name)
    return replace(maps, atlas=laid)


def choose_fixed(index: BidsIndex, roles: Mapping[str, BidsFile]) -> str:
    """Choose the image that stays: one with a mask of the user, else MT-on."""
    for role in _FIXED:
        if role in roles and Role.CORD in find_user_files(index, roles[role]).by_role:
            return role
    return "on"


def carried_levels(image: CordImage, unit: Unit) -> Levels | None:
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
    _check_signals(aligned, image, unit, name)
    pair = check_mt_pair(settings["on"], settings["off"])
    note_pair(pair, unit, name)
    flags = {"MTR": mismatch_flags(pair)}
    found_ratio = mt_ratio(aligned["on"].data, aligned["off"].data)
    maps = {"MTR": _volume(found_ratio, image, "MTR")}
    model = TransferModel(echoes={})
    if "T1w" in roles:
        triplet = check_mt_triplet(settings["on"], settings["off"], settings["T1w"])
        note_pair(triplet, unit, name)
        try:
            model = TransferModel(echoes=_echoes(settings))
            solved = model.saturation(aligned["on"].data, aligned["off"].data, aligned["T1w"].data)
            maps |= {
                "MTsat": _volume(solved, image, "MTsat"),
                "T1": _volume(solved, image, "T1"),
            }
            flags |= {"MTsat": mismatch_flags(triplet), "T1": mismatch_flags(triplet)}
        except CordqaError as error:
            model = TransferModel(echoes={})
            unit.fail(name, "MTsat and T1", error, tuple(f.relative for f in roles.values()))
    else:
        unit.skip(name, "MTsat and T1", "no T1-weighted image of the protocol", "mt.no-t1w")
    unit.done(name, "maps", ", ".join(maps), tuple(f.relative for f in roles.values()))
    return TransferMaps(
        image=image,
        maps=maps,
        atlas=None,
        sources=tuple(roles.values()),
        flags=flags,
        shifts=tuple(shifts),
        signals=tuple(aligned[role] for role in ("on", "off", "T1w") if role in aligned),
        model=model,
    )


def _check_signals(aligned: Mapping[str, Volume], image: CordImage, unit: Unit, name: str) -> None:
    """Refuse images that cannot be a protocol; doubt those whose names seem exchanged.

    Raises
    ------
    InputError
        If an image shows nothing where the cord lies, or two images are one.
    """
    cord = np.asarray(image.mask.volume.data) > 0.5
    inside = {role: np.asarray(volume.data)[cord] for role, volume in aligned.items()}
    for role, values in inside.items():
        if not (np.isfinite(values) & (values > 0)).any():
            raise InputError(
                f"{_WORDS[role]} shows no signal where the cord lies",
                where=aligned[role].source,
                todo="check that the images belong together and cover the same place",
            )
    if np.array_equal(inside["on"], inside["off"]):
        raise InputError(
            "MT-on and MT-off hold the same values", todo="check that each is the image its name says"
        )
    if np.nanmedian(inside["on"]) > np.nanmedian(inside["off"]):
        text = "MT-on is brighter than MT-off in the cord: check that the two are not exchanged"
        unit.note("mt.order", text, name)


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


def note_pair(notices: Sequence[Notice], unit: Unit, name: str) -> None:
    """Keep what was found about the settings of images that belong together."""
    for notice in notices:
        # A wrong setting spoils a value; it does not stop the run.
        severity = Severity.WARNING if notice.severity is Severity.ERROR else notice.severity
        unit.note(notice.code, notice.message, name, severity)


def mismatch_flags(notices: Sequence[Notice]) -> tuple[str, ...]:
    """Flags for the values that a difference of settings spoils."""
    return tuple(notice.message for notice in notices if notice.code == "mt.mismatch")


def check_settings(settings: Mapping[str, Acquisition]) -> None:
    """Refuse MTsat without repetition time and flip angle of each of the three images.

    Raises
    ------
    InputError
        If one of them is not known.
    """
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


def _echoes(settings: Mapping[str, Acquisition]) -> dict[str, SpoiledEcho]:
    check_settings(settings)
    return {
        role: SpoiledEcho(repetition_time_s=a.repetition_time_s, flip_angle_deg=a.flip_angle_deg)
        for role, a in settings.items()
    }


def _volume(found: FittedMaps, image: CordImage, quantity: str) -> Volume:
    """Keep what tissue can have; a noisy voxel at the rim would carry an average away."""
    values = found.values[quantity]
    low, high = _limits(quantity)
    values = np.where((values >= low) & (values <= high), values, np.nan)
    return Volume(data=values.astype(np.float32), affine=image.volume.affine, source=quantity)


def _limits(quantity: str) -> tuple[float, float]:
    """Range beyond which a voxel holds noise or air; wider than what tissue has, so as not to bias."""
    registered = get_quantity(quantity)
    width = registered.high - registered.low
    return registered.low - width, registered.high + width


def transfer_rows(
    found: TransferMaps, choice: AtlasChoice, unit: Unit, *, wanted: Sequence[str], settings: CordSettings
) -> None:
    """Extract every quantity in every region; slice by slice where no level is known."""
    if found.atlas is None:
        return
    image = found.image
    named = name_slices(image, wanted)
    how = {
        quantity: f"{settings.method} of {'signals' if uses_signals(settings, quantity) else 'the map'}"
        for quantity in found.maps
    }
    for row in _extract(found, found.atlas, choice, named.slices, named.notes, settings):
        more = (*_atlas_flags(choice), *found.flags.get(row.quantity, ()))
        place = named.singles.get(row.level, (None, None))
        unit.rows.append(
            replace(
                row,
                flags=(*row.flags, *more),
                method=f"{how[row.quantity]}, {choice.name}",
                slice_number=place[0],
                array_index=place[1],
            )
        )
    unit.rows.extend(
        _absent(quantity, name, named.notes[name], image, how[quantity])
        for quantity in found.maps
        for name in named.empty
    )
    words = ", ".join(f"{quantity} by {text}" for quantity, text in how.items())
    unit.done(image.label, "extraction", f"{words}; {len(named.slices)} groups of slices")


def _extract(
    found: TransferMaps,
    atlas: AtlasImage,
    choice: AtlasChoice,
    slices: Mapping[str, NDArray[np.intp]],
    notes: Mapping[str, str],
    settings: CordSettings,
) -> list[Measurement]:
    """Rows of every quantity, from its map or from the signals of the region."""
    common: dict[str, Any] = {
        "regions": regions_of(atlas.labels, choice),
        "method": cast("Method", settings.method),
        "groups": slices,
        "notes": notes,
        "entities": found.image.entities,
        "engine": found.image.mask.label,
    }
    modelled = [name for name in found.maps if uses_signals(settings, name)]
    rows = [
        row
        for quantity, volume in found.maps.items()
        if quantity not in modelled
        for row in extract_regions(volume, atlas, quantity=quantity, **common)
    ]
    if modelled:
        flags: tuple[str, ...] = ()
        if settings.method in PARTIAL_VOLUME:
            atlas, spread = lay_as_imaged(found.image, choice, atlas, found.signals)
            flags = (spread.words,)
        rows += [
            replace(row, flags=(*row.flags, *flags))
            for row in extract_modelled(
                found.signals, atlas, model=found.model, quantities=modelled, **common
            )
        ]
    return rows


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
