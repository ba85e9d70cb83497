"""Solid harmonics: every field of sources far outside is a sum of a few of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["orthonormal_harmonics", "solid_harmonics"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def solid_harmonics(mask: Mask, voxel_size_mm: Array, degree: int) -> Array:
    """Evaluate the regular solid harmonics at the voxels of a mask.

    They are the homogeneous polynomials that obey Laplace's equation: shim fields, and the field
    of magnets far away.  Coordinates are centred on the mask and scaled by half its longest edge.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    voxel_size_mm : ndarray, shape (3,)
    degree : int
        Highest degree, 0 or more.

    Returns
    -------
    ndarray, shape (n_voxels, (degree + 1)**2)
    """
    x, y, z = _coordinates(mask, voxel_size_mm)
    square = x * x + y * y + z * z
    cosine = {(0, 0): np.ones_like(x)}
    sine = {(0, 0): np.zeros_like(x)}
    for n in range(degree):
        cosine[n + 1, n + 1] = x * cosine[n, n] - y * sine[n, n]
        sine[n + 1, n + 1] = y * cosine[n, n] + x * sine[n, n]
        for m in range(n + 1):
            for part in (cosine, sine):
                lower = (n + m) * square * part[n - 1, m] if n - 1 >= m else 0.0
                part[n + 1, m] = ((2 * n + 1) * z * part[n, m] - lower) / (n + 1 - m)
    columns = [cosine[n, m] for n in range(degree + 1) for m in range(n + 1)]
    columns += [sine[n, m] for n in range(1, degree + 1) for m in range(1, n + 1)]
    return np.stack(columns, axis=1)


def _coordinates(mask: Mask, voxel_size: Array) -> Array:
    position = np.argwhere(mask) * np.asarray(voxel_size, dtype=float)
    low, high = position.min(0), position.max(0)
    half = max(float((high - low).max()) / 2, 1e-9)
    scaled: Array = ((position - (low + high) / 2) / half).T
    return scaled


def orthonormal_harmonics(mask: Mask, voxel_size_mm: Array, degree: int, weight: Array) -> Array:
    """Return an orthonormal basis of the weighted solid harmonics.

    Parameters
    ----------
    mask : ndarray of bool
    voxel_size_mm : ndarray, shape (3,)
    degree : int
    weight : ndarray, shape (n_voxels,)
        The basis spans ``weight * harmonics``.

    Returns
    -------
    ndarray, shape (n_voxels, k)
        Fewer columns than harmonics where the mask cannot tell them apart.
    """
    columns = solid_harmonics(mask, voxel_size_mm, degree) * weight[:, None]
    # A thin Gram matrix is far cheaper than a QR of all voxels, and 25 columns are well behaved.
    norm = np.sqrt((columns**2).sum(0))
    columns /= np.maximum(norm, 1e-12)
    value, vector = np.linalg.eigh(columns.T @ columns)
    keep = value > 1e-8 * value[-1]
    basis: Array = columns @ (vector[:, keep] / np.sqrt(value[keep]))
    return basis
