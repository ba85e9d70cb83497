"""Do images lie on one grid?  If not, that is said, and resampled only where the user asked for it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError, UnreadableFileError
from cordqa.io.maps import ScalarMap
from cordqa.io.volumes import read_volume
from cordqa.records import Volume

__all__ = ["Grid", "bring_to_grid", "read_image"]

Array = NDArray[np.float64]
#: Corners of two images may lie apart by this share of a voxel: headers round.
_APART = 0.05


class Grid:
    """Shape and place of the images."""

    def __init__(self, shape: tuple[int, ...], affine: Array) -> None:
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.affine = np.asarray(affine, dtype=float)

    @property
    def spacing_mm(self) -> Array:
        """Distance between voxel centres along each axis."""
        spacing: Array = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return spacing

    def difference(self, other: Grid) -> str:
        """Say how another grid differs; empty where it is the same."""
        if self.shape != other.shape:
            return f"{_times(other.shape)} voxels against {_times(self.shape)}"
        corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float) * (np.array(self.shape) - 1)
        corners = np.column_stack([corners, np.ones(8)])
        apart = corners @ (self.affine - other.affine).T
        worst = float(np.sqrt((apart[:, :3] ** 2).sum(axis=1)).max())
        return "" if worst <= _APART * self.spacing_mm.min() else f"corners {worst:.3g} mm apart"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def read_image(path: Path) -> Volume:
    """Read a NIfTI file of three or four dimensions as float32; infinities become NaN.

    Raises
    ------
    UnreadableFileError
        If it does not exist, cannot be read, or has more dimensions.
    InputError
        If it holds complex numbers.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UnreadableFileError(what, where=str(path), todo="check the spelling of the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            volume = read_volume(path)
    except np.exceptions.ComplexWarning as error:
        raise InputError(
            "holds complex numbers", where=path.name, todo="give magnitude and phase as separate files"
        ) from error
    data: NDArray[Any] = volume.data
    while data.ndim > 4 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 4:
        raise UnreadableFileError(
            "has more than four dimensions", where=path.name, found=_times(data.shape), expected="3 or 4"
        )
    infinite = np.isinf(data)
    if infinite.any():
        data = np.where(infinite, np.float32(np.nan), data)
    return Volume(data=data, affine=volume.affine, source=path.name)


def bring_to_grid(found: ScalarMap, grid: Grid, *, what: str, resample: bool) -> tuple[Array, bool]:
    """Return a map on the grid of the images, and whether it had to be resampled.

    Raises
    ------
    InputError
        If it lies on another grid and resampling was not asked for, or if the two do not overlap.
    """
    difference = grid.difference(Grid(found.values.shape, found.affine))
    if not difference:
        return found.values, False
    if not resample:
        raise InputError(
            f"the {what} lies on another grid than the images",
            where=found.name,
            found=difference,
            todo="resample it, or add --resample to have it interpolated linearly",
        )
    values = found.on_grid(grid.affine, grid.shape)
    if not np.isfinite(values).any():
        raise InputError(f"the {what} and the images do not overlap", where=found.name)
    return values, True
