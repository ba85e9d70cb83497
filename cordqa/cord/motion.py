"""Motion correction of a series of volumes of the cord, slice by slice.

Every volume is compared with what the other volumes of its contrast predict for it, in the cord and a
margin around it.  Shifts in the plane (and, on demand, one rotation per volume) are measured in every
slice with their uncertainty (:mod:`cordqa.cord.motion_linear`), and regularised over slices and
neighbouring volumes by what the series itself says about its motion (:mod:`cordqa.cord.motion_prior`).
Contrasts are tied together at the edge of the cord, from a guess by mutual information
(:mod:`cordqa.cord.motion_slices`), where both show it.  The series is then resampled once.

The Spinal Cord Toolbox's ``sct_dmri_moco`` also groups volumes, looks into a mask and regularises along
the cord (by a polynomial); here the target is a prediction for the direction of each volume instead of the
mean, and the strength of the regularisation is estimated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.motion_linear import place_planes
from cordqa.cord.motion_records import Motion, MotionSettings
from cordqa.cord.motion_series import MotionSeries
from cordqa.errors import EmptyInputError, InputError
from cordqa.models.diffusion.gradients import GradientTable

__all__ = [
    "Motion",
    "MotionSettings",
    "apply_motion",
    "correct_motion",
    "estimate_motion",
    "noise_variance_left",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Smoothing (voxels), rounds, and how freely slices may move in each stage, from coarse to fine.
_STAGES = ((1.6, 5, "volume"), (0.7, 2, "line"), (0.5, 4, "free"))


def correct_motion(
    data: NDArray[Any],
    mask: NDArray[Any],
    gradients: GradientTable,
    *,
    spacing_mm: tuple[float, float, float],
    exclude: Mask | None = None,
    settings: MotionSettings | None = None,
) -> tuple[NDArray[np.float32], Motion]:
    """Estimate the motion of a series and undo it; see :func:`estimate_motion` and :func:`apply_motion`."""
    settings = settings or MotionSettings()
    motion = estimate_motion(data, mask, gradients, spacing_mm=spacing_mm, exclude=exclude, settings=settings)
    return apply_motion(data, motion, least_voxels=settings.least_voxels), motion


def estimate_motion(
    data: NDArray[Any],
    mask: NDArray[Any],
    gradients: GradientTable,
    *,
    spacing_mm: tuple[float, float, float],
    exclude: Mask | None = None,
    settings: MotionSettings | None = None,
) -> Motion:
    """Estimate where the cord lies in every slice of every volume.

    Parameters
    ----------
    data : ndarray, shape (n_right, n_anterior, n_slices, n_volumes)
        Slices across the cord along the third axis.
    mask : ndarray, shape (n_right, n_anterior, n_slices)
        Cord (above 0.5), where it lies on average.
    gradients : GradientTable
        Says which volumes share a contrast and what direction makes of it.
    spacing_mm : tuple of float
    exclude : ndarray of bool, shape (n_slices, n_volumes), optional
        Known outliers: they do not enter the predictions, and their motion is filled in.
    settings : MotionSettings

    Raises
    ------
    InputError
        If there is one volume only, or the shapes do not belong together.
    EmptyInputError
        If the mask is empty or the series holds nothing in it.
    """
    settings = settings or MotionSettings()
    _check(data, mask, gradients, exclude, settings)
    if not (np.isfinite(spacing_mm).all() and min(spacing_mm) > 0):
        raise InputError("the voxel size must be positive", found=f"{tuple(spacing_mm)} mm")
    series = MotionSeries(data, np.asarray(mask) > 0.5, gradients, spacing_mm, exclude, settings)
    for smoothing, rounds, freedom in _STAGES:
        series.sharpen(smoothing)
        for _ in range(rounds):
            series.improve(freedom)
        if freedom != "volume":
            series.tie_contrasts()
    return series.result()


def apply_motion(data: NDArray[Any], motion: Motion, *, least_voxels: float = 0.05) -> NDArray[np.float32]:
    """Resample every slice that moved, once, by cubic splines.

    What rests on a missing value is missing; where the series has no negative value, none is made.
    """
    from scipy.ndimage import shift as displace
    from scipy.ndimage import spline_filter

    moves = _moves(motion, data.shape, least_voxels)
    out = np.array(data, dtype=np.float32)
    lowest = min(0.0, float(np.nanmin(out))) if np.isfinite(out).any() else 0.0
    aspect = motion.spacing_mm[1] / motion.spacing_mm[0]
    for v, z in np.ndindex(motion.shift_voxels.shape[:2]):
        if not moves[v, z]:
            continue
        step, turn = motion.shift_voxels[v, z], math.radians(motion.turn_deg[v])
        plane = np.asarray(out[:, :, z, v], dtype=float)
        missing = ~np.isfinite(plane)
        smooth = spline_filter(np.where(missing, 0.0, plane), order=3, mode="mirror")
        moved = place_planes(smooth[None], step[None], np.array([turn]), aspect, motion.centre_voxels[z])[0]
        moved = np.maximum(moved, lowest)
        if missing.any():
            moved[displace(missing.astype(float), -step, order=1, mode="nearest") > 0.01] = np.nan
        out[:, :, z, v] = moved
    return out


def noise_variance_left(motion: Motion, shape: tuple[int, ...], *, least_voxels: float = 0.05) -> Array:
    """Share of the variance of noise that :func:`apply_motion` leaves, shape (n_slices, n_volumes).

    A cubic spline halfway between samples averages over neighbours; at a sample it does not.  Rotations are
    not counted.
    """
    from scipy.ndimage import shift as displace

    impulse = np.zeros(41)
    impulse[20] = 1.0
    place = np.linspace(0.0, 0.5, 26)
    left = [float((displace(impulse, f, order=3) ** 2).sum()) for f in place]
    off = np.abs(motion.shift_voxels - np.rint(motion.shift_voxels))
    share = np.interp(off, place, left).prod(axis=2)
    return np.where(_moves(motion, shape, least_voxels), share, 1.0).T


def _moves(motion: Motion, shape: tuple[int, ...], least_voxels: float) -> Mask:
    """Slices of volumes that moved far enough to be resampled, shape (n_volumes, n_slices)."""
    turned = np.abs(np.radians(motion.turn_deg))[:, None] * 0.25 * max(shape[:2])
    moved: Mask = np.maximum(np.abs(motion.shift_voxels).max(axis=2), turned) >= least_voxels
    return moved


def _check(
    data: NDArray[Any],
    mask: NDArray[Any],
    gradients: GradientTable,
    exclude: Mask | None,
    settings: MotionSettings,
) -> None:
    if data.ndim != 4 or data.shape[3] < 2:
        raise InputError(
            "motion correction needs a series of volumes", found=f"shape {data.shape}", expected="four axes"
        )
    if len(gradients) != data.shape[3]:
        raise InputError(
            "the gradient table does not belong to the series",
            found=f"{len(gradients)} rows",
            expected=f"{data.shape[3]} volumes",
        )
    if np.shape(mask) != data.shape[:3]:
        raise InputError(
            "the mask lies on another grid", found=f"{np.shape(mask)}", expected=f"{data.shape[:3]}"
        )
    if not (np.asarray(mask) > 0.5).any():
        raise EmptyInputError("the mask of the cord is empty", todo="segment the mean of the series first")
    if exclude is not None and exclude.shape != (data.shape[2], data.shape[3]):
        raise InputError(
            "the outliers do not belong to the series",
            found=f"{exclude.shape}",
            expected=f"{(data.shape[2], data.shape[3])}",
        )
    if settings.group_size < 1:
        raise InputError("a group needs at least one volume", found=f"{settings.group_size}")
