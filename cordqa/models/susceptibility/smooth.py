"""Smoothing inside a mask that ignores what lies outside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AngleSmoother", "Smoothed", "smooth_angle"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

_PASSES = 2
#: Deviations beyond this many robust standard deviations lose weight.
_TAIL = 2.5
_TINY = np.finfo(np.float32).tiny


def smooth_angle(angle: Array, weight: Array, mask: Mask, *, sigma_voxels: Array) -> Array:
    """Smooth an angle at one scale; see :class:`AngleSmoother`.

    Parameters
    ----------
    angle, weight, mask
        As :class:`AngleSmoother` takes them.
    sigma_voxels : ndarray, shape (mask.ndim,)
        Standard deviation of the Gaussian along each axis, voxels.

    Returns
    -------
    ndarray, shape (n_voxels,)
        Between -pi and pi.
    """
    return AngleSmoother(angle, weight, mask).at(sigma_voxels).angle


class Smoothed(NamedTuple):
    """A smoothed angle, and how much of the noise is left.

    ``own`` is the weight of a voxel in its own average, ``left`` the variance of the average over that of
    the voxel; both are medians, for noise that is independent from voxel to voxel.
    """

    angle: Array
    own: float
    left: float


class AngleSmoother:
    """Weighted complex Gaussian averages of an angle, robust against outliers.

    What is linear in space over the whole mask is taken out before and put back: an average at the edge
    of the mask, which has neighbours on one side only, would flatten it.

    Parameters
    ----------
    angle, weight : ndarray, shape (n_voxels,)
        Angle in rad and inverse variance of the voxels of the mask.
    mask : ndarray of bool
    """

    def __init__(self, angle: Array, weight: Array, mask: Mask) -> None:
        self._mask = _cropped(mask)
        self._plane = _plane(angle, weight, self._mask)
        self._flat = np.exp(1j * (angle - self._plane)).astype(np.complex64)
        self._weight = weight.astype(np.float32)

    def at(self, sigma_voxels: Array) -> Smoothed:
        """Smooth at one scale, the standard deviation of a Gaussian along each axis in voxels."""
        used = self._weight
        average = self._average(used, sigma_voxels)
        root = np.sqrt(self._weight)
        for _ in range(_PASSES - 1):
            score = np.abs(np.angle(self._flat * np.conj(average))) * root
            scale = np.float32(1.4826) * np.median(score)
            used = self._weight * np.minimum(1, _TAIL * scale / np.maximum(score, np.float32(1e-12)))
            average = self._average(used, sigma_voxels)
        centre, square = _kernel(sigma_voxels)
        share = float(np.median(used / np.maximum(np.abs(average), _TINY)))
        angle: Array = np.angle(average * np.exp(1j * self._plane)).astype(float)
        return Smoothed(angle, centre * share, square * share)

    def _average(self, weight: Single, sigma: Array) -> NDArray[np.complex64]:
        from scipy.ndimage import gaussian_filter

        found = np.empty(self._flat.size, dtype=np.complex64)
        volume = np.zeros(self._mask.shape, dtype=np.float32)
        for source, target in ((self._flat.real, found.real), (self._flat.imag, found.imag)):
            volume[self._mask] = weight * source
            target[...] = gaussian_filter(volume, sigma, mode="constant")[self._mask]
        return found


def _kernel(sigma: Array) -> tuple[float, float]:
    """Return the centre of a discrete Gaussian whose sum is one, and the sum of its squares."""
    centre = square = 1.0
    for width in np.maximum(sigma, 1e-3):
        radius = int(4 * width + 0.5)
        weight = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
        weight /= weight.sum()
        centre *= float(weight[radius])
        square *= float(weight @ weight)
    return centre, square


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
