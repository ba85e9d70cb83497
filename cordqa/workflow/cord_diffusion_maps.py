"""Values of regions from the maps of a diffusion series, with their errors and what makes them doubtful."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage, Region
from cordqa.cord.axes import orient
from cordqa.cord.estimators import LINEAR, region_gain
from cordqa.cord.extraction import Method, extract_regions, values_on_grid
from cordqa.quantities import get_quantity
from cordqa.records import Measurement, Volume
from cordqa.workflow.cord_atlas import regions_of
from cordqa.workflow.cord_diffusion_fit import TENSOR, ModelMaps
from cordqa.workflow.cord_diffusion_regions import (
    NOT_USED,
    SAID,
    UNPHYSICAL,
    RegionGroups,
    RegionTask,
    VoxelBox,
    place_row,
)

__all__ = ["Gains", "rows_from_map"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PROPAGATED = "standard errors of the voxels, carried through the extraction; voxels as independent"
#: Share of a region whose tensors are unphysical from which on it has no value.
_REFUSED = 0.5
#: Share of the weight of a region whose voxels may lack a standard error.
_WITHOUT_ERROR = 0.05
_TOLD = (*UNPHYSICAL, "exactly determined", "kurtosis above", "b_max times MD")
_OF_AK = "AK: the signal along"


def rows_from_map(
    task: RegionTask, groups: RegionGroups, quantity: str, maps: ModelMaps, gains: Gains
) -> Iterator[Measurement]:
    """Rows of one map, with the errors of its voxels and the share of doubtful ones."""
    values = _bounded(quantity, maps.values[quantity])
    affine = task.image.volume.affine
    volume = Volume(data=values, affine=affine, source=quantity)
    box = VoxelBox(task.atlas, values_on_grid(volume, task.atlas))
    error = maps.errors.get(quantity)
    errors = None
    if error is not None:
        errors = VoxelBox(task.atlas, values_on_grid(Volume(data=error, affine=affine), task.atlas))
    told = {
        text: where
        for text, where in maps.flags.items()
        if text.startswith(_TOLD) or (quantity == "AK" and text.startswith(_OF_AK))
    }
    shares = _Shares(task, groups, {**told, **(task.faint if maps is not task.models.get("noddi") else {})})
    method = gains.method
    for row in extract_regions(
        volume,
        task.atlas,
        quantity=quantity,
        regions=regions_of(task.atlas.labels, task.choice),
        method=method,
        groups=groups.slices,
        notes=groups.notes,
        entities=task.image.entities,
        engine=task.image.mask.label,
    ):
        region = task.atlas.labels.find(row.region)
        done = row if errors is None else _with_error(row, box, errors, region, groups, gains)
        done = _judged(done, shares.of(region, row.level), "tensor" if quantity in TENSOR else "")
        yield place_row(done, task, groups, f"{method} of the map")


def _bounded(quantity: str, values: Array) -> Array:
    """Keep what tissue can have, generously; a voxel of noise at the rim would carry an average away."""
    known = get_quantity(quantity)
    width = known.high - known.low
    with np.errstate(invalid="ignore"):
        return np.where((values >= known.low - width) & (values <= known.high + width), values, np.nan)


class Gains:
    """Weight of every voxel in the value of a region; that depends on which voxels have a number alone."""

    def __init__(
        self, atlas: AtlasImage, groups: RegionGroups, method: Method, *, surround: bool = False
    ) -> None:
        self.groups, self.method, self.surround = groups, method, surround
        self.tissues = tuple(atlas.labels.tissues.values())
        self._known: dict[tuple[str, str, bytes], Array] = {}

    def of(self, region: Region, level: str, values: Array) -> Array:
        """Gain of the voxels of a group of slices."""
        key = region.name, level, np.isfinite(values).tobytes()
        if key not in self._known:
            weights = self.groups.parts[level][0]
            self._known[key] = region_gain(
                values,
                weights,
                region.members,
                method=self.method,
                tissues=self.tissues,
                surround=self.surround,
            )
        return self._known[key]


def _with_error(
    row: Measurement, box: VoxelBox, errors: VoxelBox, region: Region, groups: RegionGroups, gains: Gains
) -> Measurement:
    """Carry the standard errors of the voxels into the region; its scatter stands where there are none."""
    if gains.method not in LINEAR or not math.isfinite(row.value):
        return row
    inside = groups.parts[row.level][1]
    gain = gains.of(region, row.level, box.take(inside)) ** 2
    error = errors.take(inside)
    known = np.isfinite(error)
    total = float(gain.sum())
    share = float(gain[known].sum()) / total if total > 0 else 0.0
    if not share >= 1.0 - _WITHOUT_ERROR:
        return row
    variance = float(gain[known] @ error[known] ** 2) / share
    return replace(row, standard_uncertainty=math.sqrt(variance), uncertainty_method=PROPAGATED)


class _Shares:
    """How much of a region is doubtful, by sentence."""

    def __init__(self, task: RegionTask, groups: RegionGroups, doubts: Mapping[str, Mask]) -> None:
        self.groups = groups
        self.boxes = {
            text: VoxelBox(task.atlas, orient(Volume(data=where, affine=task.image.volume.affine)).data)
            for text, where in doubts.items()
            if where.any()
        }

    def of(self, region: Region, level: str) -> dict[str, float]:
        """Share of the region by sentence; that of unphysical tensors of any kind under an empty one."""
        weights, inside, _ = self.groups.parts[level]
        part = weights[list(region.members)].sum(axis=0)
        total = float(part.sum())
        if total <= 0:
            return {}
        found, joined = {}, np.zeros(part.size, dtype=bool)
        for text, box in self.boxes.items():
            where = box.take(inside) > 0
            found[text] = float(part[where].sum()) / total
            if text.startswith(UNPHYSICAL):
                joined |= where
        return {**found, "": float(part[joined].sum()) / total}


def _judged(row: Measurement, shares: Mapping[str, float], model: str) -> Measurement:
    """Say what share of a region is doubtful; one that is mostly unphysical has no value."""
    flags = [
        f"{100 * share:.0f} % of the region: {text}"
        for text, share in shares.items()
        if text and share > SAID
    ]
    unphysical = shares.get("", 0.0)
    if model == "tensor" and unphysical > _REFUSED and math.isfinite(row.value):
        reason = f"{100 * unphysical:.0f} % of the region has tensors that no tissue has{NOT_USED}"
        row = replace(row, value=math.nan, standard_uncertainty=math.nan, uncertainty_method="")
        flags.insert(0, reason)
    return replace(row, flags=(*row.flags, *flags))
