"""Register the slices of one stack to those of another: rigid in the plane, smooth along the cord.

Arrays are laid out as (right, anterior, superior).  Each slice gives the shift for which the two
images share most information in the cord and the CSF around it, which holds for any pair of contrasts,
also inverted ones.  Shifts are then fitted by a robust straight line along the cord.  Coregistration
between contrasts uses this, and so does the motion correction of a series, to tie groups of volumes
of different contrast (b = 0 and diffusion-weighted) together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEAST_VOXELS",
    "MARGIN_MM",
    "SliceShifts",
    "fit_line",
    "move_slices",
    "near_cord",
    "register_slices",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Around the cord, this much enters the comparison: the CSF, and not much beyond it.
MARGIN_MM = 4.0
LEAST_PIXELS = 40
#: Largest shift that is searched for.
REACH_MM = 3.0
#: Shifts below this share of a voxel are not worth the blur of resampling.
LEAST_VOXELS = 0.1
#: A slice in which the images share less than this (nats) says nothing: noise alone shares about 0.1.
LEAST_SHARED = 0.25
#: Classes of intensity, each with the same number of pixels.
CLASSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceShifts:
    """How far the content of the slices of one stack has to move to lie on that of another.

    Attributes
    ----------
    shift_voxels : ndarray, shape (n_slices, 2)
        Towards right and anterior; smooth along the slices asked for and held beyond them.
    error_voxels : ndarray, shape (2,)
        Standard error of it; infinite where nothing was measured.
    found_voxels : ndarray, shape (2,)
        Median of the slices.
    known : bool
        Whether any slice gave a shift.
    measurable : bool
        Whether the shift is larger than twice its error and than ``LEAST_VOXELS``.
    """

    shift_voxels: Array
    error_voxels: Array
    found_voxels: Array
    known: bool
    measurable: bool


def register_slices(
    moving: NDArray[Any],
    fixed: NDArray[Any],
    mask: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    slices: NDArray[np.intp] | None = None,
) -> SliceShifts:
    """Find the shift of every slice by mutual information and fit a line through them.

    Parameters
    ----------
    moving, fixed : ndarray, shape (n_right, n_anterior, n_slices)
        Stacks on one grid, of any contrast.
    mask : ndarray, same shape
        Cord in ``fixed`` (above 0.5); the comparison looks at it and ``MARGIN_MM`` around it.
    spacing_mm : tuple of float
        Voxel size along the three axes.
    slices : ndarray of int, optional
        Slices to measure; those of the mask, from its lowest to its highest, by default.
    """
    cord = np.asarray(mask) > 0.5
    if slices is None:
        filled = np.flatnonzero(cord.any(axis=(0, 1)))
        slices = np.arange(filled[0], filled[-1] + 1) if filled.size else np.zeros(0, dtype=np.intp)
    shifts, weights = _shifts(moving, fixed, cord, slices, spacing_mm)
    smooth, error, found = fit_line(shifts, weights, slices.astype(float))
    largest = np.abs(smooth).max(axis=0, initial=0.0)
    clear = largest > np.maximum(2.0 * error, LEAST_VOXELS)
    measurable = bool(clear.any()) and math.isfinite(float(largest.max()))
    every = np.zeros((cord.shape[2], 2))
    for axis in range(2 if slices.size else 0):
        every[:, axis] = np.interp(np.arange(cord.shape[2]), slices, smooth[:, axis])
    return SliceShifts(
        shift_voxels=every,
        error_voxels=error,
        found_voxels=found,
        known=bool((weights > 0).any()),
        measurable=measurable,
    )


def move_slices(data: NDArray[Any], shift_voxels: Array) -> NDArray[np.float32]:
    """Shift every slice in its plane by cubic splines; what rests on a missing value is missing.

    Parameters
    ----------
    data : ndarray, shape (n_right, n_anterior, n_slices)
    shift_voxels : ndarray, shape (n_slices, 2)
        Movement of the content towards right and anterior.
    """
    from scipy.ndimage import shift as displace

    out = np.empty(data.shape, dtype=np.float32)
    for z in range(data.shape[2]):
        plane = np.asarray(data[:, :, z], dtype=float)
        missing = ~np.isfinite(plane)
        moved = displace(np.where(missing, 0.0, plane), shift_voxels[z], order=3, mode="nearest")
        if missing.any():
            lost = displace(missing.astype(float), shift_voxels[z], order=1, mode="nearest") > 0.01
            moved = np.where(lost, np.nan, moved)
        out[:, :, z] = moved
    return out


def near_cord(cord: Mask, spacing_mm: tuple[float, ...], margin_mm: float = MARGIN_MM) -> Mask:
    """Pixels of the cord in one slice and within a margin around it."""
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~cord, sampling=spacing_mm[:2])
    return np.asarray(away <= margin_mm, dtype=bool)


def _shifts(
    moving: NDArray[Any],
    fixed: NDArray[Any],
    cord: Mask,
    slices: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
) -> tuple[Array, Array]:
    """Shift in voxels of every slice asked for, and its weight (0 where it says nothing)."""
    out = np.full((slices.size, 2), np.nan)
    weight = np.zeros(slices.size)
    for n, z in enumerate(slices):
        found = _slice_shift(
            np.asarray(fixed[:, :, z], dtype=float),
            np.asarray(moving[:, :, z], dtype=float),
            np.asarray(cord[:, :, z], dtype=bool),
            spacing_mm,
        )
        if found is not None:
            out[n], weight[n] = found[:2], found[2]
    return out, weight


def _slice_shift(
    fixed: Array, moving: Array, cord: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[float, float, float] | None:
    """Search whole voxels, then half voxels, then the top of a parabola."""
    from scipy.ndimage import shift as displace

    if not cord.any():
        return None
    reach = [max(1, math.ceil(REACH_MM / s)) for s in spacing_mm[:2]]
    around = [math.ceil(MARGIN_MM / s) + r + 2 for s, r in zip(spacing_mm, reach, strict=False)]
    where = np.argwhere(cord)
    low = [max(0, int(a) - h) for a, h in zip(where.min(axis=0), around, strict=True)]
    high = [min(n, int(a) + h + 1) for a, h, n in zip(where.max(axis=0), around, fixed.shape, strict=True)]
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    a, b = fixed[box], moving[box]
    inside = near_cord(cord[box], spacing_mm)
    for axis, r in enumerate(reach):
        # What a shift of the moving image brings in from beyond its edge says nothing.
        edge = np.arange(inside.shape[axis])
        cut = (edge < r + 1) | (edge >= inside.shape[axis] - r - 1)
        inside &= ~cut[:, None] if axis == 0 else ~cut[None, :]
    if inside.sum() < LEAST_PIXELS or not np.isfinite(a).all() or not np.isfinite(b).all():
        return None
    wanted = _classes(a[inside])
    coarse = {
        (i, j): _information(wanted, np.roll(b, (i, j), (0, 1))[inside])
        for i in range(-reach[0], reach[0] + 1)
        for j in range(-reach[1], reach[1] + 1)
    }
    best = max(coarse, key=lambda key: coarse[key])
    if coarse[best] < LEAST_SHARED or abs(best[0]) == reach[0] or abs(best[1]) == reach[1]:
        return None
    steps = (-0.5, 0.0, 0.5)
    shifts = [[(best[0] + i, best[1] + j) for j in steps] for i in steps]
    fine = np.array(
        [
            [_information(wanted, displace(b, shift, order=3, mode="nearest")[inside]) for shift in row]
            for row in shifts
        ]
    )
    top = _parabola(fine)
    return best[0] + 0.5 * top[0], best[1] + 0.5 * top[1], float(fine.max())


def _information(first: NDArray[np.intp], moving: Array) -> float:
    """Mutual information of the classes of one image and another image, in nats."""
    second = _classes(moving)
    joint = np.bincount(first * CLASSES + second, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    share = joint / first.size
    apart = np.outer(share.sum(axis=1), share.sum(axis=0))
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / apart[filled])).sum())


def _classes(values: Array) -> NDArray[np.intp]:
    """Sort pixels into equally filled classes of intensity."""
    borders = np.quantile(values, np.arange(1, CLASSES) / CLASSES)
    return np.asarray(np.searchsorted(borders, values), dtype=np.intp)


def _parabola(values: Array) -> tuple[float, float]:
    """Top of a quadratic through 3 by 3 values, in steps, within one step of the middle."""
    i, j = np.indices((3, 3)) - 1.0
    design = np.column_stack(
        [np.ones(9), i.ravel(), j.ravel(), i.ravel() ** 2, j.ravel() ** 2, (i * j).ravel()]
    )
    c = np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    hessian = np.array([[2 * c[3], c[5]], [c[5], 2 * c[4]]])
    if not (np.linalg.eigvalsh(hessian) < 0).all():
        return 0.0, 0.0
    top = -np.linalg.solve(hessian, c[1:3])
    return float(np.clip(top[0], -1, 1)), float(np.clip(top[1], -1, 1))


def fit_line(shifts: Array, weights: Array, z: Array) -> tuple[Array, Array, Array]:
    """Fit a straight line along the cord, with little weight for slices that disagree.

    Parameters
    ----------
    shifts : ndarray, shape (n, 2)
    weights : ndarray, shape (n,)
        Zero where a slice says nothing.
    z : ndarray, shape (n,)
        Place of the slices.

    Returns
    -------
    tuple of ndarray
        Shift of every slice, its standard error per axis, and the median.
    """
    used = weights > 0
    n = int(used.sum())
    if n == 0:
        return np.zeros_like(shifts), np.full(2, np.inf), np.zeros(2)
    median = np.median(shifts[used], axis=0)
    if n < 4:
        spread = shifts[used].std(axis=0, ddof=1) if n > 1 else np.full(2, 0.3)
        return np.tile(median, (z.size, 1)), np.asarray(spread / math.sqrt(n)), median
    height = (z - z.mean()) / max(float(np.ptp(z)), 1.0)
    design = np.column_stack([np.ones(z.size), height])
    out, error = np.zeros_like(shifts), np.zeros(2)
    for axis in range(2):
        w = weights[used].copy()
        y, d = shifts[used, axis], design[used]
        beta = np.array([median[axis], 0.0])
        for _ in range(10):
            root = np.sqrt(w)[:, None]
            beta = np.linalg.lstsq(d * root, y * root[:, 0], rcond=None)[0]
            off = y - d @ beta
            scale = max(1.4826 * float(np.median(np.abs(off))), 0.02)
            w = weights[used] / (1.0 + (off / (2.0 * scale)) ** 2)
        out[:, axis] = design @ beta
        error[axis] = scale / math.sqrt(n)
    return out, error, median
