"""Smoothing inside a mask that ignores what lies outside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth_angle"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_PASSES = 2
#: Deviations beyond this many robust standard deviations lose weight.
_TAIL = 2.5


def smooth_angle(angle: Array, weight: Array, mask: Mask, *, sigma_voxels: Array) -> Array:
    """Smooth an angle by a weighted complex Gaussian average, robust against outliers.

    Parameters
    ----------
    angle, weight : ndarray, shape (n_voxels,)
        Angle in rad and inverse variance of the voxels of the mask.
    mask : ndarray of bool
    sigma_voxels : ndarray, shape (mask.ndim,)
        Standard deviation of the Gaussian along each axis, voxels.

    Returns
    -------
    ndarray, shape (n_voxels,)
        Between -pi and pi.
    """
    used = weight.copy()
    smooth = _average(angle, used, mask, sigma_voxels)
    for _ in range(_PASSES - 1):
        score = np.abs(np.angle(np.exp(1j * (angle - smooth)))) * np.sqrt(weight)
        scale = 1.4826 * np.median(score)
        used = weight * np.minimum(1, _TAIL * scale / np.maximum(score, 1e-12))
        smooth = _average(angle, used, mask, sigma_voxels)
    return smooth


def _average(angle: Array, weight: Array, mask: Mask, sigma: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    parts = []
    for part in (np.cos(angle), np.sin(angle)):
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = weight * part
        parts.append(gaussian_filter(volume, sigma, mode="constant")[mask])
    average: Array = np.arctan2(parts[1], parts[0]).astype(float)
    return average
