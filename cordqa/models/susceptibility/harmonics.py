"""Solid harmonics: every field of sources far outside is a sum of a few of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["orthonormalise", "solid_harmonics", "unit_harmonics"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Columns of less than this part of the power of the strongest are noise of the arithmetic.
_DISTINCT = 1e-7


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


def orthonormalise(columns: Single) -> Single:
    """Orthonormalise thin columns through their Gram matrix, which is far cheaper than QR.

    Parameters
    ----------
    columns : ndarray of float32, shape (n_voxels, k)
        Weighted harmonics: at most a few dozen, and well behaved.

    Returns
    -------
    ndarray of float32
        Fewer columns where the voxels cannot tell them apart.
    """
    value, vector = np.linalg.eigh((columns.T @ columns).astype(float))
    keep = value > _DISTINCT * value[-1]
    turn = (vector[:, keep] / np.sqrt(value[keep])).astype(np.float32)
    return np.asarray(columns @ turn, dtype=np.float32)


def unit_harmonics(mask: Mask, voxel_size_mm: Array, degree: int) -> Single:
    """Return the solid harmonics with a mean square of one over the mask, shape (n_voxels, k)."""
    fields = solid_harmonics(mask, voxel_size_mm, degree)
    fields /= np.maximum(np.sqrt((fields**2).mean(0)), 1e-12)
    return fields.astype(np.float32)
