"""One image of the cord: its mask, its levels, its shape slice by slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient, slice_label
from cordqa.cord.levels import LevelLabel, LevelMap, fit_levels, level_groups, read_labels
from cordqa.cord.morphometry import WITHIN, SliceTable, measure_morphometry
from cordqa.cord.slice_rows import slice_measurements, summarise_slices
from cordqa.errors import CordqaError, InputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, UserFiles, find_user_files
from cordqa.io.volumes import orientation_notices, read_volume
from cordqa.records import Measurement, Status, Verdict, Volume
from cordqa.workflow.cord_records import CordImage, Levels, Mask, Unit, lay_like
from cordqa.workflow.cord_review import LEFT_SLICE, slice_exclusions
from cordqa.workflow.cord_select import make_entities

__all__ = [
    "ALL",
    "NamedSlices",
    "analyse_image",
    "carry_levels",
    "find_mask",
    "groups_of",
    "leave_out_slices",
    "name_slices",
    "open_image",
    "own_levels",
    "shape_rows",
    "slice_verdict",
]

#: Name of the group of all slices.
ALL = "all slices"
#: More voxels than this per label are a level image, not points.
_POINT_VOXELS = 40
#: An area that differs from the median of its neighbours by this share, or by this many robust SDs.
_AREA_SHARE, _AREA_SDS = 0.15, 4.0
_NEIGHBOURS_MM = 12.0


def open_image(file: BidsFile, unit: Unit) -> Volume:
    """Read one image that must have three dimensions.

    Raises
    ------
    InputError
        If it cannot be read, or has more dimensions.
    """
    volume = read_volume(file.path, source=file.relative)
    unit.used.add(file.relative)
    for notice in orientation_notices(file.path, source=file.relative):
        unit.note(notice.code, notice.message, make_contrast(file), notice.severity)
    if volume.data.ndim == 4 and volume.data.shape[3] == 1:
        return Volume(data=volume.data[..., 0], affine=volume.affine, source=volume.source)
    if volume.data.ndim != 3:
        raise InputError(
            "the image must have three dimensions",
            where=file.relative,
            found=f"{volume.data.ndim} ({' x '.join(map(str, volume.data.shape))})",
            todo="give the mean of a series, or one volume of it",
        )
    return volume


def analyse_image(
    index: BidsIndex, file: BidsFile, unit: Unit, *, wanted: Sequence[str] = ()
) -> CordImage | None:
    """Find the cord in one image and measure its shape; what fails is recorded in ``unit``."""
    contrast = make_contrast(file)
    sources = (file.relative,)
    try:
        entities = make_entities(index, file)
        volume = open_image(file, unit)
        user = find_user_files(index, file)
        unit.notices.extend(user.notices)
        mask = find_mask(index, file, volume, unit, user)
        table = measure_morphometry(mask.volume, pieces="raise" if mask.engine == "user" else "largest")
    except CordqaError as error:
        unit.fail(contrast, "cord", error, sources)
        return None
    unit.done(contrast, "cord", _mask_words(mask, table), sources)
    if mask.engine == "user" and (gap := _gap(table)):
        unit.note("cord.mask-gap", f"the cord mask is in pieces: {gap} of it hold nothing", contrast)
    levels = own_levels(index, user, volume, table, contrast, unit)
    image = CordImage(
        file=file,
        volume=volume,
        entities=entities,
        mask=mask,
        table=table,
        levels=levels,
        outliers=find_outliers(table, mask),
    )
    unit.images.append(image)
    return image


def make_contrast(file: BidsFile) -> str:
    """Name an image by its entities without participant and session."""
    words = [f"{k}-{v}" for k, v in file.entities.items() if k not in ("sub", "ses")]
    return "_".join([*words, file.suffix])


def find_mask(
    index: BidsIndex, file: BidsFile, volume: Volume, unit: Unit, user: UserFiles | None = None
) -> Mask:
    """Take the user's mask where there is one, else segment.

    Raises
    ------
    CordqaError
        If the mask cannot be used, or no cord is found.
    """
    user = find_user_files(index, file) if user is None else user
    own = user.by_role.get(Role.CORD)
    if own is not None:
        unit.used.add(own.relative)
        given = read_volume(own.path, source=own.relative)
        laid = lay_like(given, volume, what="cord mask")
        return Mask(
            volume=_unit_range(laid),
            engine="user",
            version="",
            method="mask given by the user",
            source=own.relative,
        )
    mask, notices = unit.segment(file, volume)
    for notice in notices:
        unit.note(notice.code, notice.message, make_contrast(file), notice.severity)
    return mask


def _unit_range(mask: Volume) -> Volume:
    """Scale a mask that was stored as 0 and 255, or 0 and another single number."""
    data = np.asarray(mask.data)
    values = np.unique(data[np.isfinite(data) & (data != 0)])
    if values.size == 1 and values[0] > 0 and values[0] != 1:
        data = (data > 0).astype(np.float32)
    return Volume(data=data, affine=mask.affine, source=mask.source)


def _mask_words(mask: Mask, table: SliceTable) -> str:
    measured = int(np.isfinite(table.values["CSA"]).sum())
    who = f"mask of the user ({mask.source})" if mask.source else mask.method
    return f"{measured} slices measured; {who}"


def _gap(table: SliceTable) -> str:
    """Name the slices between the ends of a mask in which it is empty; no words where there are none."""
    held = table.slices[np.asarray(table.n_voxels) > 0]
    if held.size == 0:
        return ""
    empty = np.setdiff1d(np.arange(held.min(), held.max() + 1), held)
    if empty.size == 0:
        return ""
    return f"{empty.size} slices between slice {empty.min()} and slice {empty.max()}"


# -- levels ------------------------------------------------------------------------------------------


def own_levels(
    index: BidsIndex, user: UserFiles, volume: Volume, table: SliceTable, contrast: str, unit: Unit
) -> Levels | None:
    """Levels from the labels of this image; none where it has none or they cannot be used."""
    chosen = next(((r, user.by_role[r]) for r in (Role.DISCS, Role.VERTEBRAE) if r in user.by_role), None)
    if chosen is None:
        return None
    role, file = chosen
    unit.used.add(file.relative)
    try:
        labels = labels_of(read_volume(file.path, source=file.relative), role)
        fitted = fit_levels(labels, volume, centreline=table.centreline)
    except CordqaError as error:
        unit.fail(contrast, "levels", error, (file.relative,))
        return None
    for notice in fitted.notices:
        unit.note(notice.code, notice.message, contrast, notice.severity)
    met = sorted({name for name in fitted.names() if name}, key=lambda n: (n[0], int(n[1:])))
    unit.done(contrast, "levels", f"{len(labels)} labels ({file.relative}); {', '.join(met)} in the image")
    return Levels(map=fitted, how=f"labels of the user ({file.name})")


def labels_of(volume: Volume, role: Role) -> tuple[LevelLabel, ...]:
    """Take labels from points, or the borders between levels from an image of levels.

    In an image of levels every voxel of the cord carries its vertebra.  The outermost levels are cut by
    the field of view, so their middles mean nothing; the borders between two levels are discs.

    Raises
    ------
    InputError, EmptyInputError
        If there are no labels, or they are no vertebral numbers.
    """
    points = read_labels(volume, kind="disc" if role is Role.DISCS else "body")
    oriented = orient(volume, what="label image")
    values = [value for value in np.unique(oriented.data) if value > 0]
    sizes = [int((oriented.data == value).sum()) for value in values]
    if role is Role.DISCS or len(values) < 2 or np.median(sizes) <= _POINT_VOXELS:
        return points
    return tuple(_borders(oriented, sorted(int(value) for value in values)))


def _borders(levels: Oriented, values: Sequence[int]) -> list[LevelLabel]:
    found = []
    for upper, lower in pairwise(values):
        if lower != upper + 1:
            continue
        above, below = (np.argwhere(levels.data == value) for value in (upper, lower))
        height = 0.5 * (above[:, 2].min() + below[:, 2].max())
        near = np.vstack([above, below]).mean(axis=0)
        point = levels.affine[:3, :3] @ np.array([near[0], near[1], height]) + levels.affine[:3, 3]
        place = (float(point[0]), float(point[1]), float(point[2]))
        found.append(LevelLabel(coordinate=float(lower), point_mm=place, name=f"border {upper}/{lower}"))
    if not found:
        raise InputError("the image of levels has no two levels that follow each other", where=levels.source)
    return found


def carry_levels(source: CordImage, volume: Volume, table: SliceTable) -> Levels | None:
    """Bring the levels of one image to another of the same session through scanner coordinates.

    Where the images share no part of the cord there is nothing to carry.
    """
    if source.levels is None:
        return None
    target = orient(volume)
    origin = orient(source.volume)
    borders = np.arange(target.n_slices + 1) - 0.5
    line = table.centreline
    index = np.stack(
        [
            np.interp(borders, line.slices, line.right),
            np.interp(borders, line.slices, line.anterior),
            borders,
            np.ones(borders.size),
        ]
    )
    # Slices of the two images may be tilted against each other: only the cord's own place counts.
    height = (np.linalg.inv(origin.affine) @ (target.affine @ index))[2]
    known = source.levels.map
    own = np.arange(known.edges.size) - 0.5
    edges = np.interp(height, own, known.edges, left=math.nan, right=math.nan)
    middle = 0.5 * (edges[1:] + edges[:-1])
    if not np.isfinite(middle).any():
        return None
    spread = np.interp(0.5 * (height[1:] + height[:-1]), own[:-1] + 0.5, known.standard_uncertainty_mm)
    carried = LevelMap(coordinate=middle, edges=edges, stretch=known.stretch, standard_uncertainty_mm=spread)
    return Levels(map=carried, how=f"carried over from {source.label} by scanner coordinates")


# -- outliers and rows -------------------------------------------------------------------------------


def find_outliers(table: SliceTable, mask: Mask) -> dict[int, str]:
    """Find slices that a person should look at: slice number from inferior to the reason."""
    found: dict[int, str] = {}
    for number, stored in zip(table.slices, table.array_index, strict=True):
        flags = mask.slice_flags[int(stored)] if mask.slice_flags else ()
        if flags:
            found[int(number)] = "; ".join(flags)
    area = table.values["CSA"]
    reach = max(2, round(_NEIGHBOURS_MM / table.centreline.spacing_mm[2] / 2))
    usual = np.array([_median_without(area, i, reach) for i in range(area.size)])
    off = area - usual
    spread = 1.4826 * float(np.nanmedian(np.abs(off))) if np.isfinite(off).any() else math.nan
    for i in np.flatnonzero(np.isfinite(off)):
        if abs(off[i]) > max(_AREA_SHARE * usual[i], _AREA_SDS * spread):
            words = f"area {area[i]:.0f} mm2 beside {usual[i]:.0f} mm2 in neighbours"
            number = int(table.slices[i])
            found[number] = f"{found[number]}; {words}" if number in found else words
    return found


def _median_without(values: NDArray[np.float64], at: int, reach: int) -> float:
    near = np.concatenate([values[max(at - reach, 0) : at], values[at + 1 : at + 1 + reach]])
    near = near[np.isfinite(near)]
    return float(np.median(near)) if near.size >= 2 else math.nan


def leave_out_slices(image: CordImage, marks: Mapping[str, str], unit: Unit) -> CordImage:
    """Take the values of slices that a reviewer marked out of an image; each is named in ``unit``."""
    table = image.table
    marked = slice_exclusions(marks, image.file)
    found = {n: why for n, why in marked.items() if n in table.slices}
    if missed := ", ".join(slice_label(n) for n in sorted(marked) if n not in found):
        message = f"a reviewer marked slices in which no cord was measured: {missed}; check their numbers"
        unit.note("cord.mark-unknown", message, image.label)
    if not found:
        return image
    for number, why in found.items():
        name = f"{make_contrast(image.file)} {slice_label(number)}"
        unit.skip(name, "values", why, LEFT_SLICE, (image.file.relative,))
    gone = np.isin(table.slices, list(found))
    reasons = [found.get(int(n), why) for n, why in zip(table.slices, table.reasons, strict=True)]
    return replace(
        image,
        table=replace(
            table,
            values={name: np.where(gone, math.nan, values) for name, values in table.values.items()},
            reasons=tuple(reasons),
        ),
        # They were looked at: what was unusual about them needs no second look.
        outliers={n: why for n, why in image.outliers.items() if n not in found},
        left_out=found,
    )


def groups_of(
    image: CordImage, wanted: Sequence[str], *, skip_left_out: bool = False
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, str]]:
    """Group the slices of an image: all, and by level where levels are known.

    With ``skip_left_out``, slices that a reviewer took out are in no group, and a note says so.
    """
    slices = image.table.slices
    groups: dict[str, NDArray[np.bool_]] = {}
    notes: dict[str, str] = {}
    if image.levels is not None:
        groups, notes = level_groups(image.levels.map, slices, list(wanted) or None)
    else:
        for name in wanted:
            groups[name] = np.zeros(slices.size, dtype=bool)
            notes[name] = f"no label tells where {name} is"
    groups[ALL] = np.ones(slices.size, dtype=bool)
    if skip_left_out and image.left_out:
        gone = np.isin(slices, list(image.left_out))
        for name, chosen in groups.items():
            if (count := int((chosen & gone).sum())) > 0:
                note = f"{count} of {int(chosen.sum())} slices left out by a reviewer"
                notes[name] = f"{notes[name]}; {note}" if notes.get(name) else note
                groups[name] = chosen & ~gone
    return groups, notes


@dataclass(frozen=True, slots=True)
class NamedSlices:
    """Slices of an image by level, and one by one where no level is known.

    Attributes
    ----------
    slices : dict of str to ndarray of int
        Name to slice numbers, counted from inferior; never empty.
    notes : dict of str to str
        What is to be said of a name.
    empty : tuple of str
        Names with a note and without any slice.
    singles : dict of str to tuple of int
        Name of a single slice to its number and its index in the stored array.
    """

    slices: dict[str, NDArray[np.intp]]
    notes: dict[str, str]
    empty: tuple[str, ...]
    singles: dict[str, tuple[int, int]]


def name_slices(image: CordImage, wanted: Sequence[str]) -> NamedSlices:
    """Name the slices from which regions are taken; those that a reviewer took out have no name."""
    chosen, notes = groups_of(image, wanted, skip_left_out=True)
    slices = {name: image.table.slices[mask] for name, mask in chosen.items() if mask.any()}
    empty = tuple(name for name in notes if not chosen[name].any())
    singles: dict[str, tuple[int, int]] = {}
    if image.levels is None:
        for number, stored in zip(image.table.slices, image.table.array_index, strict=True):
            if int(number) not in image.left_out:
                name = slice_label(int(number))
                singles[name] = (int(number), int(stored))
                slices[name] = np.array([number], dtype=np.intp)
    return NamedSlices(slices, notes, empty, singles)


def shape_rows(image: CordImage, unit: Unit, *, wanted: Sequence[str] = ()) -> None:
    """Turn the shape of an image into rows per level and per slice, and into a verdict."""
    groups, notes = groups_of(image, wanted)
    engine = image.mask.label
    rows: list[Measurement] = [
        *summarise_slices(image.table, groups, entities=image.entities, engine=engine, notes=notes)
    ]
    rows += slice_measurements(
        image.table, levels=image.level_names(), entities=image.entities, engine=engine
    )
    rows += summarise_slices(
        _within_slice(image), groups, entities=image.entities, engine=engine, notes=notes
    )
    unit.rows.extend(rows)
    for name, note in notes.items():
        if not groups[name].any():
            unit.note("cord.level-missing", note, image.label)
    if image.levels is None:
        unit.note(
            "cord.no-levels",
            "no label tells the vertebral levels: results are given per slice and over all slices; label one "
            "disc or vertebral body (two are better) to get results per level",
            image.label,
        )
    unit.verdicts.append(slice_verdict(image))


def _within_slice(image: CordImage) -> SliceTable:
    """Area of the cord as the slices cut it, without correction for its tilt."""
    table = image.table
    line = table.centreline
    if line.slices.size < 2:
        pieces = "raise" if image.mask.engine == "user" else "largest"
        flat = measure_morphometry(image.mask.volume, angle_correction=False, pieces=pieces)
        gone = np.isin(flat.slices, list(image.left_out))
        return replace(flat, values={"CSA": np.where(gone, math.nan, flat.values["CSA"])})
    area = table.values["CSA"] / line.cosine[table.slices - line.slices[0]]
    return replace(table, values={"CSA": area}, method=WITHIN)


def slice_verdict(image: CordImage) -> Verdict:
    """Judge an image by its slices that need a look."""
    measured = int(np.isfinite(image.table.values["CSA"]).sum())
    count = len(image.outliers)
    listed = ", ".join(f"slice {number} ({why})" for number, why in list(image.outliers.items())[:4])
    return Verdict(
        status=Status.WARN if count else Status.PASS,
        subject=f"cord of {image.label}",
        rule="slices that need a look",
        observed=float(count),
        high=0.0,
        unit="slices",
        source="cordqa",
        reason=f"{count} of {measured} slices: {listed}" if count else f"none of {measured} slices",
        quantity="CSA",
        region="cord",
        scope="image",
        entities=image.entities,
    )
