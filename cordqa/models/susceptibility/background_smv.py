"""Background removal by the mean-value theorem: a harmonic field equals its average over a sphere.

What is left after subtracting the average is local, convolved with a known kernel.  SHARP undoes
that by a truncated division (Schweser et al. 2011, doi:10.1016/j.neuroimage.2010.10.070), V-SHARP
lets the sphere shrink towards the rim (Wu et al. 2012, doi:10.1002/mrm.23000), RESHARP divides
with Tikhonov regularisation (Sun and Wilman 2014, doi:10.1002/mrm.24765), iSMV averages again and
again (Wen et al. 2014, doi:10.1002/mrm.24998).  Where no sphere fits there is no result: radii
made for a brain delete a cord, so they are capped by the depth of the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.background_record import Background, check_field, make_background
from cordqa.models.susceptibility.dipole import Padding, pad_for

__all__ = ["remove_by_iterated_means", "remove_by_regularised_means", "remove_by_varying_means"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The smallest sphere reaches the next voxel along every axis.
_FLOOR_VOXELS = 1.01
#: Part of the depth of the mask that one sphere may have as its radius.
_DEPTH_PART = 0.5
_ISMV_STEPS = 50


@dataclass(slots=True)
class _Spheres:
    """Averages over spheres on a padded grid."""

    voxel: Array
    shape: tuple[int, int, int]

    def spectrum(self, radius_mm: float) -> Single:
        """Transform of a ball of unit sum around the origin; real, as the ball is even."""
        from scipy.fft import rfftn

        axes = [
            (np.minimum(np.arange(n), n - np.arange(n)) * v).reshape([-1 if i == a else 1 for i in range(3)])
            for a, (n, v) in enumerate(zip(self.shape, self.voxel, strict=True))
        ]
        ball = (axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2 <= radius_mm**2).astype(np.float32)
        return np.asarray(rfftn(ball / ball.sum()).real, dtype=np.float32)

    def filter(self, image: Single, spectrum: Single) -> Single:
        """Convolve."""
        from scipy.fft import irfftn, rfftn

        return np.asarray(irfftn(rfftn(image) * spectrum, s=self.shape), dtype=np.float32)

    def fits(self, mask: Mask, spectrum: Single) -> Mask:
        """Where the whole ball lies in the mask."""
        whole: Mask = mask & (self.filter(mask.astype(np.float32), spectrum) > 1 - 1e-3)
        return whole


def _radii(mask: Mask, voxel: Array, largest_mm: float, step_mm: float) -> list[float]:
    """Radii from large to small: capped by the mask's depth, and no smaller than one voxel."""
    from scipy.ndimage import distance_transform_edt

    floor = _FLOOR_VOXELS * float(voxel.max())
    depth = float(distance_transform_edt(np.pad(mask, 1), sampling=voxel).max())
    top = max(min(largest_mm, _DEPTH_PART * depth), floor)
    count = int((top - floor) / max(step_mm, 1e-3)) + 1
    return [*(top - step_mm * i for i in range(count)), *([floor] if top > floor else [])]


def _single_radius(mask: Mask, voxel: Array, radius_mm: float) -> float:
    """One radius, small enough to keep most of the mask: a quarter of its depth at most."""
    from scipy.ndimage import distance_transform_edt

    depth = float(distance_transform_edt(np.pad(mask, 1), sampling=voxel).max())
    return max(min(radius_mm, _DEPTH_PART * depth / 2), _FLOOR_VOXELS * float(voxel.max()))


@dataclass(frozen=True, slots=True)
class _OneSphere:
    """A field on a padded grid, and one sphere for it."""

    padding: Padding
    spheres: _Spheres
    spectrum: Single
    radius_mm: float
    grid: Single
    valid: Mask  # where the whole sphere lies in the mask


def _one_sphere(
    total_field: Array, mask: Mask, voxel_size_mm: Sequence[float] | Array, radius_mm: float
) -> _OneSphere:
    field, used = check_field(total_field, mask)
    voxel = np.asarray(voxel_size_mm, dtype=float)
    padding = pad_for(used, beyond=8)
    spheres = _Spheres(voxel, padding.shape)
    radius = _single_radius(used, voxel, radius_mm)
    spectrum = spheres.spectrum(radius)
    valid = spheres.fits(padding.embed_mask(used), spectrum)
    return _OneSphere(padding, spheres, spectrum, radius, padding.embed(field), valid)


def remove_by_varying_means(
    total_field: Array,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    largest_radius_mm: float = 12.0,
    step_mm: float = 1.0,
    threshold: float = 0.05,
) -> Background:
    """V-SHARP.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        ppm.
    mask : ndarray of bool
    voxel_size_mm : sequence of float
    largest_radius_mm, step_mm : float
        Capped by half the depth of the mask; the smallest sphere reaches one voxel.
    threshold : float
        Of the truncated division.

    Raises
    ------
    InputError
        If not even the smallest sphere fits.
    """
    field, used = check_field(total_field, mask)
    voxel = np.asarray(voxel_size_mm, dtype=float)
    padding = pad_for(used, beyond=8)
    spheres = _Spheres(voxel, padding.shape)
    grid, inside = padding.embed(field), padding.embed_mask(used)
    radii = _radii(used, voxel, largest_radius_mm, step_mm)
    high, valid = np.zeros_like(grid), np.zeros_like(inside)
    for radius in radii:
        spectrum = spheres.spectrum(radius)
        new = spheres.fits(inside, spectrum) & ~valid
        high[new] = (grid - spheres.filter(grid, spectrum))[new]
        valid |= new
    kernel = 1 - spheres.spectrum(radii[0])
    usable = np.abs(kernel) > threshold
    inverse = np.where(usable, 1 / np.where(usable, kernel, 1), 0).astype(np.float32)
    local = padding.crop(np.where(valid, spheres.filter(high, inverse), 0))
    method = (
        f"Background was removed by V-SHARP with spheres of {radii[0]:.1f} to {radii[-1]:.1f} mm and a "
        f"threshold of {threshold:g}."
    )
    return make_background(total_field, local, padding.crop(valid) > 0.5, mask, method)


def remove_by_regularised_means(
    total_field: Array,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    radius_mm: float = 6.0,
    regularisation: float = 1e-3,
    iterations: int = 30,
) -> Background:
    """RESHARP: conjugate gradients on the regularised deconvolution.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        ppm.
    mask : ndarray of bool
    voxel_size_mm : sequence of float
    radius_mm : float
        Capped by a quarter of the depth of the mask; no smaller than one voxel.
    regularisation : float
    iterations : int

    Raises
    ------
    InputError
        If the sphere fits nowhere.
    """
    one = _one_sphere(total_field, mask, voxel_size_mm, radius_mm)
    spheres, valid, padding = one.spheres, one.valid, one.padding
    high = 1 - one.spectrum

    def normal(image: Single) -> Single:
        inner = np.where(valid, spheres.filter(image, high), 0).astype(np.float32)
        return spheres.filter(inner, high) + np.float32(regularisation) * image

    known = np.where(valid, spheres.filter(one.grid, high), 0).astype(np.float32)
    local = _conjugate_gradients(normal, spheres.filter(known, high), iterations)
    method = (
        f"Background was removed by RESHARP with a sphere of {one.radius_mm:.1f} mm, "
        f"lambda {regularisation:g}."
    )
    return make_background(total_field, padding.crop(local), padding.crop(valid) > 0.5, mask, method)


def remove_by_iterated_means(
    total_field: Array,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    radius_mm: float = 5.0,
    iterations: int = _ISMV_STEPS,
) -> Background:
    """iSMV: average the field inside, keep it on the rim, until what is left is harmonic.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        ppm.
    mask : ndarray of bool
    voxel_size_mm : sequence of float
    radius_mm : float
        Capped by a quarter of the depth of the mask; no smaller than one voxel.
    iterations : int

    Raises
    ------
    InputError
        If the sphere fits nowhere.
    """
    one = _one_sphere(total_field, mask, voxel_size_mm, radius_mm)
    background = one.grid.copy()
    for _ in range(iterations):
        background = np.where(one.valid, one.spheres.filter(background, one.spectrum), one.grid)
    method = f"Background was removed by iSMV with a sphere of {one.radius_mm:.1f} mm, {iterations} averages."
    local = one.padding.crop(one.grid - background)
    return make_background(total_field, local, one.padding.crop(one.valid) > 0.5, mask, method)


def _conjugate_gradients(normal: Callable[[Single], Single], right: Single, iterations: int) -> Single:
    """Solve symmetric equations given as a function."""
    solution, residual = np.zeros_like(right), right.copy()
    direction, power = residual.copy(), float(np.vdot(residual, residual))
    for _ in range(iterations):
        if power <= 0:
            break
        image = normal(direction)
        rate = np.float32(power / float(np.vdot(direction, image)))
        solution += rate * direction
        residual -= rate * image
        previous, power = power, float(np.vdot(residual, residual))
        direction = residual + np.float32(power / previous) * direction
    return solution
