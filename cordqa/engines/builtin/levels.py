"""Levels as an image holds them, and the slices that belong to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordqa.engines.grids import slice_axis
from cordqa.engines.protocol import Grouping
from cordqa.engines.sct.rows import level_name
from cordqa.errors import ConfigError
from cordqa.io.volumes import read_volume
from cordqa.records import Volume

__all__ = ["level_masks", "one_volume", "paint_levels", "slice_groups", "slice_levels"]


def one_volume(volume: Volume) -> Volume:
    """Drop dimensions of one, which some writers append."""
    data = volume.data
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return Volume(data=data, affine=volume.affine, source=volume.source)


def along(volume: Volume) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return what lays values per slice, counted from inferior, along the axis of an image."""
    axis, downwards = slice_axis(volume.affine)

    def lay(values: NDArray[np.float64]) -> NDArray[np.float64]:
        shape = [1, 1, 1]
        shape[axis] = -1
        return (values[::-1] if downwards else values).reshape(shape)

    return lay


def paint_levels(mask: Volume, coordinate: NDArray[np.float64]) -> Volume:
    """Give each voxel of the cord the number of its level."""
    numbers = np.where(np.isfinite(coordinate), np.floor(np.nan_to_num(coordinate)), 0.0)
    data = np.where(mask.data > 0.5, along(mask)(numbers), 0).astype(np.uint8)
    return Volume(data=data, affine=mask.affine)


def slice_levels(image: Volume, level_image: Path | None) -> dict[int, int]:
    """Return the level that most labelled voxels of each slice hold, by slice from inferior."""
    if level_image is None:
        return {}
    levels = one_volume(read_volume(level_image))
    axis, downwards = slice_axis(levels.affine)
    planes = np.moveaxis(np.rint(np.nan_to_num(levels.data)).astype(int), axis, 0)
    planes = planes[::-1] if downwards else planes
    found = {}
    for number, plane in enumerate(planes):
        inside = plane[plane > 0]
        if inside.size:
            found[number] = int(np.bincount(inside).argmax())
    return found


def level_masks(
    of_slice: NDArray[np.intp], group_by: Grouping, levels: Sequence[int]
) -> dict[str, NDArray[np.bool_]]:
    """Choose slices by level, or all that belong to the levels asked for."""
    if group_by is Grouping.LEVEL:
        return {level_name(level): of_slice == level for level in levels}
    everything = np.isin(of_slice, levels) if levels else np.ones(of_slice.size, dtype=bool)
    return {"all": everything}


def slice_groups(
    count: int,
    by_slice: Mapping[int, int],
    group_by: Grouping,
    levels: Sequence[int],
    slices: tuple[int, int] | None,
) -> dict[str, NDArray[np.intp]]:
    """Return the slices of each group, counted from inferior."""
    if slices is not None and not 0 <= slices[0] <= slices[1] < count:
        raise ConfigError("the slices are outside the image", found=str(slices), expected=f"0 to {count - 1}")
    first, last = slices or (0, count - 1)
    chosen = [n for n in range(first, last + 1) if not levels or by_slice.get(n) in levels]
    if group_by is Grouping.SLICE:
        return {f"slice {n}": np.array([n], dtype=np.intp) for n in chosen}
    if group_by is Grouping.LEVEL:
        return {
            level_name(level): np.array([n for n in chosen if by_slice.get(n) == level], dtype=np.intp)
            for level in levels
        }
    return {"all": np.array(chosen, dtype=np.intp)}
