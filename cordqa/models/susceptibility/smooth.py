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

    What is linear in space over the whole mask is taken out before and put back: an average at the edge
    of the mask, which has neighbours on one side only, would flatten it.

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
    mask = _cropped(mask)
    plane = _plane(angle, weight, mask)
    angle = angle - plane
    used = weight.copy()
    smooth = _average(angle, used, mask, sigma_voxels)
    for _ in range(_PASSES - 1):
        score = np.abs(np.angle(np.exp(1j * (angle - smooth)))) * np.sqrt(weight)
        scale = 1.4826 * np.median(score)
        used = weight * np.minimum(1, _TAIL * scale / np.maximum(score, 1e-12))
        smooth = _average(angle, used, mask, sigma_voxels)
    back: Array = np.angle(np.exp(1j * (smooth + plane)))
    return back


def _cropped(mask: Mask) -> Mask:
    """Leave out the empty slices around a mask; the order of its voxels stays."""
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if used.size:
            mask = np.take(mask, range(int(used[0]), int(used[-1]) + 1), axis=axis)
    return mask


def _plane(angle: Array, weight: Array, mask: Mask) -> Array:
    """Return the part of an angle that is linear in space: the mean step between neighbours."""
    image, power = np.zeros(mask.shape, dtype=complex), np.zeros(mask.shape)
    image[mask], power[mask] = np.exp(1j * angle), weight
    plane = np.zeros(angle.size)
    for axis, place in enumerate(np.nonzero(mask)):
        one, strength = np.moveaxis(image, axis, 0), np.moveaxis(power, axis, 0)
        step = one[1:] * np.conj(one[:-1]) * np.minimum(strength[1:], strength[:-1])
        plane += float(np.angle(step.sum())) * (place - place.mean() if place.size else place)
    return plane


def _average(angle: Array, weight: Array, mask: Mask, sigma: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    parts = []
    for part in (np.cos(angle), np.sin(angle)):
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = weight * part
        parts.append(gaussian_filter(volume, sigma, mode="constant")[mask])
    average: Array = np.arctan2(parts[1], parts[0]).astype(float)
    return average
