"""Check images by their grids: the same voxels in space, in whatever order they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.engines.errors import EngineOutputError
from cordqa.errors import InputError, UnreadableFileError
from cordqa.io.volumes import read_volume
from cordqa.records import Volume

__all__ = ["Grid", "check_image", "covered_slices", "read_grid", "same_grid", "slice_axis"]

#: Corners of two images of one grid may differ by this part of a voxel, which rounding explains.
_TOLERANCE_VOXELS = 0.05
_MASK_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape and position of an image; further dimensions (time, components) in ``extra``."""

    shape: tuple[int, int, int]
    extra: tuple[int, ...]
    affine: NDArray[np.float64]


def read_grid(path: Path) -> Grid:
    """Read shape and position from the header alone.

    Raises
    ------
    UnreadableFileError
        If it is not a NIfTI volume with a usable orientation.
    """
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        shape = tuple(int(n) for n in image.shape)
        affine = np.asarray(image.affine, dtype=float)
    except (OSError, ValueError, EOFError, OverflowError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableFileError(
            "cannot be read as NIfTI", where=path.name, todo="check that the file is complete"
        ) from error
    if len(shape) < 3 or min(shape) < 1:
        raise UnreadableFileError("is not a volume", where=path.name, found=f"shape {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableFileError("has no usable orientation in its header", where=path.name)
    return Grid((shape[0], shape[1], shape[2]), shape[3:], affine)


def same_grid(first: Grid, second: Grid) -> bool:
    """Tell whether two images hold the same voxels; the order of the axes does not matter.

    The toolbox writes some warps in its own orientation, not in that of the image.
    """
    first_shape, first_corners, voxel = _canonical(first)
    second_shape, second_corners, _ = _canonical(second)
    if first_shape != second_shape:
        return False
    return bool(np.abs(first_corners - second_corners).max() < _TOLERANCE_VOXELS * voxel)


def _canonical(grid: Grid) -> tuple[tuple[int, ...], NDArray[np.float64], float]:
    """Return shape and corners (8 by 3, mm) with axes ordered and directed as right, anterior, superior."""
    import nibabel as nib

    orient: Any = nib.orientations
    turns = orient.io_orientation(grid.affine)
    if np.isnan(turns).any():
        turns = np.array([[0, 1], [1, 1], [2, 1]], dtype=float)
    affine = grid.affine @ orient.inv_ornt_aff(turns, grid.shape)
    shape = tuple(grid.shape[int(axis)] for axis in np.argsort(turns[:, 0]))
    corners = np.array(list(product(*((0, n - 1) for n in shape))), dtype=float)
    voxel = float(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).min())
    return shape, corners @ affine[:3, :3].T + affine[:3, 3], voxel


def slice_axis(affine: NDArray[np.float64]) -> tuple[int, bool]:
    """Return the axis from inferior to superior, and whether it runs downwards."""
    import nibabel as nib

    orient: Any = nib.orientations
    codes = orient.aff2axcodes(affine)
    axis = codes.index("S") if "S" in codes else codes.index("I")
    return axis, codes[axis] == "I"


def covered_slices(path: Path) -> frozenset[int]:
    """Return the slices in which an image is not empty, counted from inferior to superior."""
    volume = read_volume(path)
    axis, downwards = slice_axis(volume.affine)
    others = tuple(i for i in range(volume.data.ndim) if i != axis)
    filled = np.asarray(np.any(volume.data > 0, axis=others))
    if downwards:
        filled = filled[::-1]
    return frozenset(int(i) for i in np.flatnonzero(filled))


def check_image(
    path: Path, *, like: Grid | None = None, n_extra: int | None = None, mask: bool = False, who: str = ""
) -> Volume:
    """Load an image that a program left and refuse it where it cannot be used.

    Parameters
    ----------
    path : Path
    like : Grid, optional
        Grid on which it must lie.
    n_extra : int, optional
        Number of dimensions beyond three that it must have.
    mask : bool
        It must hold values from 0 to 1, and not only zeros.
    who : str
        Program, for the message.

    Raises
    ------
    EngineOutputError
        If it does not load, lies elsewhere, holds nothing, or is no mask.
    """
    where = f"{who}: {path.name}" if who else path.name
    try:
        grid = read_grid(path)
        volume = read_volume(path)
    except InputError as error:
        raise EngineOutputError(error.what, where=where, found=error.found) from error
    if n_extra is not None and len([n for n in grid.extra if n > 1]) != n_extra:
        raise EngineOutputError(
            "has the wrong number of dimensions", where=where, found=str(grid.shape + grid.extra)
        )
    if like is not None and not same_grid(grid, like):
        raise EngineOutputError(
            "does not lie on the grid of the image",
            where=where,
            found=str(grid.shape),
            expected=str(like.shape),
        )
    finite = np.isfinite(volume.data)
    if not finite.any():
        raise EngineOutputError("holds no finite value", where=where)
    if mask:
        low, high = float(volume.data[finite].min()), float(volume.data[finite].max())
        if high <= 0:
            raise EngineOutputError("is empty: nothing was found in the image", where=where)
        if low < -_MASK_SLACK or high > 1 + _MASK_SLACK:
            raise EngineOutputError(
                "is not a mask", where=where, found=f"{low:g} to {high:g}", expected="0 to 1"
            )
    return volume
