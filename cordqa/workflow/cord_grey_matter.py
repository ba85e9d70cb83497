"""Grey matter in images that show it: mask, area per slice and level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.cord.axes import orient
from cordqa.cord.grey_matter import GreyMatterNotSeenError, segment_grey_matter
from cordqa.cord.slice_rows import PERPENDICULAR, SliceTable, slice_measurements, summarise_slices
from cordqa.errors import CordqaError, EmptyInputError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.io.volumes import read_volume
from cordqa.records import Figure, Severity, Volume
from cordqa.workflow.cord_image import groups_of, make_contrast
from cordqa.workflow.cord_mosaic import Layer, draw_step
from cordqa.workflow.cord_records import CordImage, Unit, lay_like

__all__ = ["SHOWS_GREY_MATTER", "GreyMatterImage", "draw_grey_matter", "measure_grey_matter"]

Array = NDArray[np.float64]

#: Contrasts in which grey matter is looked for.
SHOWS_GREY_MATTER = ("T2starw", "T2star")
_STEP = "grey matter"
#: A cord that runs along the slices has no cross-section in them.
_LEAST_COSINE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyMatterImage:
    """Grey matter of one image.

    Attributes
    ----------
    image : CordImage
    mask : Volume
        Part of each voxel that is grey matter, on the grid of the image.
    method : str
    by_user : bool
    """

    image: CordImage
    mask: Volume
    method: str
    by_user: bool


@dataclass(frozen=True, slots=True)
class _Slices:
    """Area within every slice of the table, and why there is none."""

    mask: Volume
    area_mm2: Array
    reasons: list[str]
    flags: list[tuple[str, ...]]
    method: str
    by_user: bool


def measure_grey_matter(
    index: BidsIndex, image: CordImage, unit: Unit, *, wanted: Sequence[str] = ()
) -> GreyMatterImage | None:
    """Mark grey matter in an image and add its area per slice and level; what fails is recorded.

    Parameters
    ----------
    index : BidsIndex
        A grey-matter mask of the user wins.
    image : CordImage
        Other contrasts than :data:`SHOWS_GREY_MATTER` give nothing.
    unit : Unit
    wanted : sequence of str
        Levels to report.
    """
    if image.file.suffix not in SHOWS_GREY_MATTER:
        return None
    name, sources = make_contrast(image.file), (image.file.relative,)
    own = find_user_files(index, image.file).by_role.get(Role.GREY_MATTER)
    try:
        found = _given(own, image, unit) if own is not None else _segmented(image, unit, name)
    except GreyMatterNotSeenError as error:
        unit.skip(name, _STEP, str(error), error.code, sources)
        return None
    except CordqaError as error:
        unit.fail(name, _STEP, error, sources)
        return None
    _add_rows(found, image, unit, wanted)
    known = int(np.isfinite(found.area_mm2).sum())
    unit.done(name, _STEP, f"{known} slices measured; {found.method}", sources)
    return GreyMatterImage(image=image, mask=found.mask, method=found.method, by_user=found.by_user)


def _segmented(image: CordImage, unit: Unit, name: str) -> _Slices:
    found = segment_grey_matter(image.volume, image.mask.volume)
    for text in found.notes:
        unit.note("cord.grey-matter", text, name, Severity.INFO)
    stored = image.table.array_index
    return _Slices(
        mask=Volume(data=found.mask, affine=image.volume.affine, source="grey matter"),
        area_mm2=np.asarray(found.area_mm2[stored], dtype=float),
        reasons=[found.reasons[int(k)] for k in stored],
        flags=[found.flags[int(k)] for k in stored],
        method=found.method,
        by_user=False,
    )


def _given(file: BidsFile, image: CordImage, unit: Unit) -> _Slices:
    """Take the mask of the user; slices that it leaves empty hold no value, not an area of zero."""
    unit.used.add(file.relative)
    mask = lay_like(read_volume(file.path, source=file.relative), image.volume, what="grey-matter mask")
    laid = orient(mask)
    data = np.asarray(laid.data, dtype=float)
    if not (np.isfinite(data).all() and data.max() > 0 and data.min() >= 0):
        raise EmptyInputError("the grey-matter mask is empty, or holds no fractions", where=file.relative)
    data = data / max(float(data.max()), 1.0)
    area = data.sum(axis=(0, 1))[image.table.slices] * laid.spacing_mm[0] * laid.spacing_mm[1]
    reasons = ["" if value > 0 else "the grey-matter mask is empty here" for value in area]
    return _Slices(
        mask=Volume(data=laid.restore(data).astype(np.float32), affine=mask.affine, source=file.relative),
        area_mm2=np.where(area > 0, area, np.nan),
        reasons=reasons,
        flags=[()] * area.size,
        method=f"grey-matter mask given by the user ({file.relative})",
        by_user=True,
    )


def _add_rows(found: _Slices, image: CordImage, unit: Unit, wanted: Sequence[str]) -> None:
    """Correct the area for the tilt of the cord, and report it per slice, per level and over all."""
    table, line = image.table, image.table.centreline
    cosine = line.cosine[table.slices - line.slices[0]]
    # One slice alone gives no direction; then the area is that of the slice as it was cut.
    cosine = np.where(np.isfinite(cosine) & (cosine > _LEAST_COSINE), cosine, 1.0)
    gone = np.isin(table.slices, list(image.left_out))
    area = np.where(gone, np.nan, found.area_mm2 * cosine)
    reasons = tuple(
        image.left_out.get(int(n), why) for n, why in zip(table.slices, found.reasons, strict=True)
    )
    own: SliceTable = replace(
        table, values={"GM_area": area}, reasons=reasons, region="GM", method=PERPENDICULAR, notes=()
    )
    groups, notes = groups_of(image, wanted)
    engine = image.mask.label + (", grey-matter mask of the user" if found.by_user else "")
    rows = [
        *summarise_slices(
            own, groups, notes=_with_faint(groups, notes, found), entities=image.entities, engine=engine
        )
    ]
    singles = slice_measurements(own, levels=image.level_names(), entities=image.entities, engine=engine)
    rows += [replace(row, flags=(*row.flags, *more)) for row, more in zip(singles, found.flags, strict=True)]
    unit.rows.extend(rows)


def _with_faint(
    groups: dict[str, NDArray[np.bool_]], notes: dict[str, str], found: _Slices
) -> dict[str, str]:
    """Say of a group in how many of its slices grey matter is faint."""
    faint = np.array([bool(flags) for flags in found.flags])
    out = dict(notes)
    for name, chosen in groups.items():
        count = int((faint & chosen).sum())
        if count:
            words = f"grey matter is faint in {count} of {int(chosen.sum())} slices"
            out[name] = f"{out[name]}; {words}" if out.get(name) else words
    return out


def draw_grey_matter(found: GreyMatterImage, name: str) -> Figure:
    """Show cord and grey matter over the image."""
    image = found.image
    return draw_step(
        image,
        name=name,
        title=image.label,
        layers={image.label: Layer(volume=image.volume)},
        outlines={"cord": orient(image.mask.volume).data, "grey matter": orient(found.mask).data},
        caption="The line of grey matter should follow the brighter butterfly. "
        + ("It was given by the user." if found.by_user else f"Made by cordqa {__version__}."),
    )
