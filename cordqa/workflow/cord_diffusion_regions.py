"""What values of regions of a diffusion series are taken from: maps, atlas, groups of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.extraction import box_weights
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Measurement, Volume
from cordqa.workflow.cord_atlas import AtlasChoice
from cordqa.workflow.cord_diffusion_fit import ModelMaps
from cordqa.workflow.cord_image import NamedSlices, name_slices
from cordqa.workflow.cord_records import CordImage

__all__ = [
    "NOT_USED",
    "SAID",
    "UNPHYSICAL",
    "RegionGroups",
    "RegionTask",
    "VoxelBox",
    "group_slices",
    "place_row",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Share of a region from which on something is said about it.
SAID = 0.05
#: Beginnings of what is said of tensors that no tissue has.
UNPHYSICAL = ("an eigenvalue is negative", "FA above 1", "mean diffusivity outside")
#: End of the flag of a value that such tensors cost.
NOT_USED = ": not used"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTask:
    """What values of regions are taken from.

    Attributes
    ----------
    image : CordImage
    atlas : AtlasImage
    choice : AtlasChoice
    models : mapping of str to ModelMaps
    series : Volume
        Four dimensions; NaN where a slice of a volume was left out.
    gradients : GradientTable
        Of all volumes of the series.
    faint : mapping of str to ndarray of bool
        Sentence to the voxels that it holds for.
    lost : ndarray, shape (n_slices,)
        Share of the volumes that was left out of each slice, from inferior.
    flags : tuple of str
        What holds for all values.
    noise_sd : float
        Noise level of a voxel, in signal units; NaN where it is not known.
    """

    image: CordImage
    atlas: AtlasImage
    choice: AtlasChoice
    models: Mapping[str, ModelMaps]
    series: Volume
    gradients: GradientTable
    faint: Mapping[str, Mask]
    lost: Array
    flags: tuple[str, ...]
    noise_sd: float


@dataclass(frozen=True, slots=True)
class RegionGroups(NamedSlices):
    """Named slices, and what the atlas weighs in them.

    ``parts`` holds, by name, the weights of the atlas in those slices, shape (n_labels, n_voxels), the
    slices within the box of the atlas, and the share of the slices that it reaches.
    """

    parts: dict[str, tuple[Array, NDArray[np.intp], float]]


def group_slices(image: CordImage, atlas: AtlasImage, wanted: Sequence[str]) -> RegionGroups:
    """Weigh the atlas in the named slices of an image."""
    named = name_slices(image, wanted)
    parts = {name: box_weights(atlas, numbers) for name, numbers in named.slices.items()}
    return RegionGroups(named.slices, named.notes, named.empty, named.singles, parts)


@dataclass(frozen=True, slots=True)
class VoxelBox:
    """Values on the grid of the atlas, from which the voxels of some slices are taken."""

    atlas: AtlasImage
    data: Array

    def take(self, inside: NDArray[np.intp]) -> Array:
        """Voxels of slices of the box of the atlas, in the order of its weights."""
        i, j, k = self.atlas.corner
        n = self.atlas.weights.shape
        part = self.data[i : i + n[1], j : j + n[2], inside + k]
        return part.reshape(-1, *self.data.shape[3:])


def place_row(row: Measurement, task: RegionTask, groups: RegionGroups, how: str) -> Measurement:
    """Add method, place of a single slice, and what holds for the series."""
    slices = groups.slices[row.level]
    lost = float(task.lost[slices].mean()) if slices.size else 0.0
    more = [f"{100 * lost:.0f} % of the samples left out as outlier slices"] if lost > SAID else []
    place = groups.singles.get(row.level, (None, None))
    approximate = ("approximate: analytical atlas",) if task.choice.approximate else ()
    return replace(
        row,
        method=f"{how}, {task.choice.name}",
        slice_number=place[0],
        array_index=place[1],
        flags=(*row.flags, *approximate, *task.flags, *more),
    )
