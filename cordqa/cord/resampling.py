"""In-plane resampling of axial slices to the grid of the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["on_grid", "resampling_matrix", "to_grid"]

Array = NDArray[np.float32]


def to_grid(data: Array, spacing_mm: tuple[float, float, float], grid_mm: float) -> Array:
    """Resample every slice in plane to a grid with the same centre.

    Parameters
    ----------
    data : ndarray, shape (n_right, n_anterior, n_slices)
    spacing_mm : tuple of float
        Voxel size along the three axes.
    grid_mm : float
        New pixel size.

    Returns
    -------
    ndarray, shape (n_slices, nx, ny), float32
    """
    across = resampling_matrix(data.shape[0], spacing_mm[0], grid_mm)
    along = resampling_matrix(data.shape[1], spacing_mm[1], grid_mm)
    slices = np.ascontiguousarray(np.moveaxis(data, 2, 0), dtype=np.float32)
    return np.ascontiguousarray(across @ slices @ along.T, dtype=np.float32)


def on_grid(
    inside: NDArray[np.bool_], shape: tuple[int, ...], spacing_mm: tuple[float, ...], grid_mm: float
) -> NDArray[np.bool_]:
    """Look a region of a slice on the network's grid up in the pixels of the image.

    Parameters
    ----------
    inside : ndarray of bool, shape (nx, ny)
        On the network's grid.
    shape, spacing_mm : tuple
        Size and pixel size of the image; further axes are ignored.
    grid_mm : float
        Pixel size of the network's grid, which has the same centre.
    """
    places = []
    for count, step, wanted in zip(inside.shape, spacing_mm[:2], shape[:2], strict=True):
        place = (np.arange(wanted) - (wanted - 1) / 2) * step / grid_mm + (count - 1) / 2
        places.append(np.clip(np.rint(place).astype(np.int64), 0, count - 1))
    return np.asarray(inside[np.ix_(*places)])


def resampling_matrix(count: int, spacing_mm: float, grid_mm: float) -> Array:
    """Return the matrix that interpolates linearly to another spacing, shape (new_count, count).

    Both grids have the same centre.  Towards a coarser grid it averages over the width of the
    new pixel, so that noise is not aliased.
    """
    new_count = max(int(np.floor((count - 1) * spacing_mm / grid_mm + 1e-6)) + 1, 1)
    new = (np.arange(new_count) - (new_count - 1) / 2) * grid_mm
    old = (np.arange(count) - (count - 1) / 2) * spacing_mm
    weight = np.clip(1.0 - np.abs(new[:, None] - old[None, :]) / max(spacing_mm, grid_mm), 0.0, None)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)
