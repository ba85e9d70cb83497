"""Values of regions from the maps of a gradient-echo scan, with errors that know what neighbours share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.axes import orient
from cordqa.cord.estimators import LINEAR
from cordqa.cord.extraction import Method, extract_regions, values_on_grid
from cordqa.models.maps import part_passed_on
from cordqa.models.susceptibility.pipeline import SusceptibilityMapping
from cordqa.quantities import get_quantity
from cordqa.records import Measurement, Volume
from cordqa.workflow.cord_atlas import AtlasChoice, regions_of
from cordqa.workflow.cord_diffusion_maps import Gains
from cordqa.workflow.cord_diffusion_regions import RegionGroups, VoxelBox, group_slices
from cordqa.workflow.cord_records import CordImage
from cordqa.workflow.cord_settings import CordSettings

__all__ = ["CONTRAST", "EXPERIMENTAL", "QUANTITIES", "susceptibility_rows"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Quantities that are reported for regions.
QUANTITIES = ("susceptibility", "R2star", "local_field")
EXPERIMENTAL = "experimental: until your own test-retest shows that it repeats"
#: Region of the difference of grey and white matter, which no choice of the zero moves.
CONTRAST = "GM-WM"
_DRAWS = "{n} realisations of the noise ({df} degrees of freedom), with what neighbours share"
_VOXELS = "standard errors of the voxels, carried through the extraction; voxels as independent"
#: The error of the local field is that of the total field: removal of the background is not in it.
_ERROR_OF = {"local_field": "total_field"}
#: Share of a region from which on something is said about it.
_SAID = 0.05
#: Share of the weight of a region whose voxels may lack a standard error.
_WITHOUT_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class _Task:
    """What values are taken from; boxes are laid out as the atlas is."""

    found: SusceptibilityMapping
    image: CordImage
    atlas: AtlasImage
    choice: AtlasChoice
    groups: RegionGroups
    gains: Gains
    doubts: Mapping[str, VoxelBox]
    flags: tuple[str, ...]

    def box(self, values: Array) -> VoxelBox:
        """Lay an array of the grid of the image out as the atlas is."""
        volume = Volume(data=values, affine=self.image.volume.affine)
        return VoxelBox(self.atlas, values_on_grid(volume, self.atlas))


@dataclass(frozen=True, slots=True)
class _Errors:
    """Realisations of the error, or standard errors of voxels, of one map."""

    draws: VoxelBox | None
    voxels: VoxelBox | None

    def of(self, gain: Array, inside: NDArray[np.intp]) -> tuple[float, str]:
        """Standard uncertainty of a weighted sum of voxels, and where it comes from."""
        if self.draws is not None:
            drawn = gain @ np.nan_to_num(self.draws.take(inside))
            return float(np.sqrt((drawn**2).mean())), _DRAWS.format(n=drawn.size, df=max(drawn.size - 1, 1))
        if self.voxels is None:
            return math.nan, ""
        error = self.voxels.take(inside)
        square, known = gain**2, np.isfinite(error)
        total = float(square.sum())
        share = float(square[known].sum()) / total if total > 0 else 0.0
        if not share >= 1.0 - _WITHOUT_ERROR:
            return math.nan, ""
        return math.sqrt(float(square[known] @ error[known] ** 2) / share), _VOXELS


def susceptibility_rows(
    found: SusceptibilityMapping,
    image: CordImage,
    atlas: AtlasImage,
    choice: AtlasChoice,
    *,
    settings: CordSettings,
    flags: tuple[str, ...] = (),
) -> tuple[Measurement, ...]:
    """Extract susceptibility (ppm), R2* (1/s) and local field (ppm) per region and level.

    Parameters
    ----------
    found : SusceptibilityMapping
    image : CordImage
        Gives grid, levels and slices; where no level is known, slices get rows of their own.
    atlas : AtlasImage
    choice : AtlasChoice
    settings : CordSettings
        Levels to report and method of extraction.
    flags : tuple of str
        What holds for all values.

    Returns
    -------
    tuple of Measurement
        Every row is flagged as experimental.  Susceptibility also comes as the difference of grey and
        white matter, region ``GM-WM``.
    """
    groups = group_slices(image, atlas, settings.levels)
    method = cast("Method", settings.method)
    # Susceptibility has no true zero: what no label fills must not be taken for one.
    gains = Gains(atlas, groups, method, surround=True)
    blank = _Task(found, image, atlas, choice, groups, gains, {}, flags)
    doubts = {
        text: VoxelBox(atlas, np.asarray(orient(Volume(data=where, affine=image.volume.affine)).data))
        for text, where in found.maps.flags.items()
        if where.any()
    }
    task = replace(blank, doubts=doubts)
    rows = [
        row
        for quantity in QUANTITIES
        if quantity in found.maps.values
        for row in _rows_of_map(task, quantity, method)
    ]
    return tuple(rows)


def _rows_of_map(task: _Task, quantity: str, method: Method) -> list[Measurement]:
    values = _bounded(quantity, task.found.maps.values[quantity])
    box, errors = task.box(values), _errors(task, quantity)
    rows = [
        _with_error(row, task, box, errors)
        for row in extract_regions(
            Volume(data=values, affine=task.image.volume.affine, source=quantity),
            task.atlas,
            quantity=quantity,
            regions=regions_of(task.atlas.labels, task.choice),
            method=method,
            surround=True,
            groups=task.groups.slices,
            notes=task.groups.notes,
            entities=task.image.entities,
            engine=task.image.mask.label,
        )
    ]
    if quantity == "susceptibility":
        rows += _contrast(rows, task, box, errors)
    done = [_placed(row, task, quantity, method) for row in rows]
    return done + [_absent(task, quantity, method, level) for level in task.groups.empty]


def _bounded(quantity: str, values: Array) -> Array:
    """Keep what tissue can have, generously; a voxel of noise at the rim would carry an average away."""
    known = get_quantity(quantity)
    width = known.high - known.low
    with np.errstate(invalid="ignore"):
        return np.where((values >= known.low - width) & (values <= known.high + width), values, np.nan)


def _errors(task: _Task, quantity: str) -> _Errors:
    maps = task.found.maps
    draws = maps.attached.draws.get(quantity) if maps.attached else None
    if draws is not None:
        stack = np.stack([task.box(np.asarray(one, dtype=float)).data for one in draws], axis=-1)
        return _Errors(VoxelBox(task.atlas, stack), None)
    error = maps.standard_errors.get(_ERROR_OF.get(quantity, quantity))
    return _Errors(None, None if error is None else task.box(error))


def _with_error(row: Measurement, task: _Task, box: VoxelBox, errors: _Errors) -> Measurement:
    """Carry the noise into a region; without it there is no error: voxels scatter by what they share, too."""
    error, how = math.nan, ""
    if task.gains.method in LINEAR and math.isfinite(row.value):
        gain, inside = _gain(row.region, row.level, task, box)
        error, how = errors.of(gain, inside)
    return replace(row, standard_uncertainty=error, uncertainty_method=how)


def _gain(region: str, level: str, task: _Task, box: VoxelBox) -> tuple[Array, NDArray[np.intp]]:
    inside = task.groups.parts[level][1]
    return task.gains.of(task.atlas.labels.find(region), level, box.take(inside)), inside


def _contrast(rows: list[Measurement], task: _Task, box: VoxelBox, errors: _Errors) -> list[Measurement]:
    """Difference of grey and white matter, level by level: it does not depend on the zero of the scale."""
    by_place = {(row.region, row.level): row for row in rows}
    found = []
    for (region, level), grey in by_place.items():
        white = by_place.get(("WM", level))
        if region != "GM" or white is None:
            continue
        error, how = math.nan, ""
        passed: tuple[str, ...] = ()
        if task.gains.method in LINEAR and math.isfinite(grey.value + white.value):
            first, inside = _gain("GM", level, task, box)
            second, _ = _gain("WM", level, task, box)
            error, how = errors.of(first - second, inside)
            passed = _passed_on(first - second, inside, task, box, error)
        found.append(
            replace(
                grey,
                region=CONTRAST,
                value=grey.value - white.value,
                standard_uncertainty=error,
                uncertainty_method=how,
                n_voxels=min(grey.n_voxels, white.n_voxels),
                coverage=min(grey.coverage, white.coverage),
                flags=tuple(dict.fromkeys((*passed, *grey.flags, *white.flags))),
            )
        )
    return found


def _passed_on(
    gain: Array, inside: NDArray[np.intp], task: _Task, box: VoxelBox, error: float
) -> tuple[str, ...]:
    """Say how much of a contrast the inversion passes on; nothing where the contrast is hardly there."""
    attached = task.found.maps.attached
    replica = None if attached is None else attached.replicas.get("susceptibility")
    if replica is None:
        return ()
    before = float(gain @ np.nan_to_num(box.take(inside)))
    after = float(gain @ np.nan_to_num(task.box(replica).take(inside)))
    part = part_passed_on(before, after, error)
    if not math.isfinite(part):
        return ()
    words = f"the inversion passes on about {100 * part:.0f} % of this contrast"
    return (f"{words}; the background step may take more",)


def _placed(row: Measurement, task: _Task, quantity: str, method: str) -> Measurement:
    """Add method, zero of the scale, place of a single slice, and what makes the value doubtful."""
    place = task.groups.singles.get(row.level, (None, None))
    return replace(
        row,
        method=_method(task, quantity, method),
        slice_number=place[0],
        array_index=place[1],
        flags=tuple(dict.fromkeys((*row.flags, *_flags(task), *_doubts(row, task)))),
    )


def _method(task: _Task, quantity: str, method: str) -> str:
    zero = {
        "susceptibility": "; zero: mean of all voxels with a value",
        "local_field": "; zero: free of sources outside the fit mask",
    }
    return f"{method} of the map, {task.choice.name}{zero.get(quantity, '')}"


def _flags(task: _Task) -> tuple[str, ...]:
    approximate = ("approximate: analytical atlas",) if task.choice.approximate else ()
    return (EXPERIMENTAL, *task.flags, *approximate)


def _doubts(row: Measurement, task: _Task) -> list[str]:
    """Say which share of a region is doubtful, and how many of its slices do not fit the others."""
    weights, inside, _ = task.groups.parts[row.level]
    names = ("GM", "WM") if row.region == CONTRAST else (row.region,)
    members = [n for name in names for n in task.atlas.labels.find(name).members]
    part = weights[members].sum(axis=0)
    total = float(part.sum())
    found = []
    for text, box in task.doubts.items():
        share = float(part[box.take(inside) > 0].sum()) / total if total > 0 else 0.0
        if share > _SAID:
            found.append(f"{100 * share:.0f} % of the region: {text}")
    slices = task.groups.slices[row.level]
    odd = sum("do not fit those of the other slices" in task.image.outliers.get(int(n), "") for n in slices)
    if odd:
        found.append(f"{odd} of {slices.size} slices: echoes or field do not fit (breathing, flow)")
    return found


def _absent(task: _Task, quantity: str, method: str, level: str) -> Measurement:
    values: dict[str, Any] = {"value": math.nan, "coverage": 0.0}
    return Measurement(
        quantity=quantity,
        unit=get_quantity(quantity).unit,
        region="WM",
        level=level,
        method=_method(task, quantity, method),
        engine=task.image.mask.label,
        entities=task.image.entities,
        flags=(task.groups.notes[level], EXPERIMENTAL),
        **values,
    )
