"""Bring one contrast onto another: rigid in the plane, slice by slice, smooth along the cord.

The images of one protocol lie on one grid or close to it; what is left is that the person moved a
little between them.  Each slice gives the shift for which the two images share most information in
the cord and the CSF around it, which holds for any pair of contrasts, also inverted ones.  Shifts are
then fitted by a straight line along the cord, and applied only where they are larger than their own
uncertainty: resampling costs sharpness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.cord.centreline import Centreline
from cordqa.records import Volume

__all__ = ["Alignment", "align_slices", "on_grid"]

Array = NDArray[np.float64]

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
class Alignment:
    """A moving image on the grid of the fixed one, and what was done to it.

    Attributes
    ----------
    volume : Volume
    shift_mm : ndarray, shape (n_slices, 2)
        Towards right and anterior, of the content of the moving image; zero where nothing was done.
    found_mm : tuple of float
        Median shift that was found, whether applied or not.
    applied, resampled : bool
        Whether a shift was applied; whether the image came on another grid.
    note : str
        One sentence.
    """

    volume: Volume
    shift_mm: Array
    found_mm: tuple[float, float]
    applied: bool
    resampled: bool
    note: str


def on_grid(moving: Volume, fixed: Volume) -> tuple[Volume, bool]:
    """Resample an image to the grid of another one by linear interpolation, where the grids differ."""
    from scipy.ndimage import map_coordinates

    same = moving.data.shape == fixed.data.shape and np.allclose(moving.affine, fixed.affine, atol=1e-2)
    if same:
        return moving, False
    theirs, ours = orient(moving), orient(fixed)
    if theirs.data.shape == ours.data.shape and np.allclose(theirs.affine, ours.affine, atol=1e-2):
        return Volume(data=ours.restore(theirs.data), affine=fixed.affine, source=moving.source), False
    step = np.linalg.inv(moving.affine) @ fixed.affine
    index = np.indices(fixed.data.shape[:3]).reshape(3, -1)
    place = step[:3, :3] @ index + step[:3, 3:]
    data = map_coordinates(
        np.asarray(moving.data, dtype=np.float32), place, order=1, mode="constant", cval=np.nan
    )
    return Volume(data=data.reshape(fixed.data.shape[:3]), affine=fixed.affine, source=moving.source), True


def align_slices(moving: Volume, fixed: Volume, mask: Volume, line: Centreline) -> Alignment:
    """Shift the slices of an image so that its cord lies on that of another one.

    Parameters
    ----------
    moving : Volume
        On any grid.
    fixed : Volume
        The image that stays.
    mask : Volume
        Cord in ``fixed``, on its grid; the comparison looks at the cord and ``MARGIN_MM`` around it.
    line : Centreline
        Of that mask.
    """
    volume, resampled = on_grid(moving, fixed)
    target, source = orient(fixed), orient(volume)
    shifts, weights = _shifts(target, source, orient(mask), line)
    smooth, error, found = _smooth(shifts, weights, line.slices.astype(float))
    spacing = np.array(target.spacing_mm[:2])
    found_mm = (float(found[0] * spacing[0]), float(found[1] * spacing[1]))
    largest = np.abs(smooth).max(initial=0.0)
    measurable = bool((np.abs(smooth).max(axis=0, initial=0.0) > np.maximum(2.0 * error, LEAST_VOXELS)).any())
    every = np.zeros((target.n_slices, 2))
    if not measurable or not math.isfinite(largest):
        note = _words(found_mm, applied=False, known=bool((weights > 0).any()))
        return Alignment(
            volume=volume, shift_mm=every, found_mm=found_mm, applied=False, resampled=resampled, note=note
        )
    for axis in range(2):
        every[:, axis] = np.interp(np.arange(target.n_slices), line.slices, smooth[:, axis])
    data = _apply(source, every)
    moved = Volume(data=target.restore(data), affine=fixed.affine, source=moving.source)
    return Alignment(
        volume=moved,
        shift_mm=every * spacing,
        found_mm=found_mm,
        applied=True,
        resampled=resampled,
        note=_words(found_mm, applied=True, known=True),
    )


def _words(found_mm: tuple[float, float], *, applied: bool, known: bool) -> str:
    if not known:
        return "the contrasts share too little structure around the cord to measure a shift"
    size = math.hypot(*found_mm)
    if applied:
        where = f"right {found_mm[0]:+.2f}, anterior {found_mm[1]:+.2f}; median of slices"
        return f"shifted by {size:.2f} mm ({where})"
    return f"no measurable shift ({size:.2f} mm); used as it is"


def _shifts(target: Oriented, source: Oriented, mask: Oriented, line: Centreline) -> tuple[Array, Array]:
    """Shift in voxels of every slice of the centreline, and its weight (0 where it says nothing)."""
    out = np.full((line.slices.size, 2), np.nan)
    weight = np.zeros(line.slices.size)
    for n, z in enumerate(line.slices):
        found = _slice_shift(
            np.asarray(target.data[:, :, z], dtype=float),
            np.asarray(source.data[:, :, z], dtype=float),
            np.asarray(mask.data[:, :, z] > 0.5, dtype=bool),
            target.spacing_mm,
        )
        if found is not None:
            out[n], weight[n] = found[:2], found[2]
    return out, weight


def _slice_shift(
    fixed: Array, moving: Array, cord: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
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
    inside = _near(cord[box], spacing_mm)
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


def _near(cord: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Pixels of the cord and within the margin around it."""
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~cord, sampling=spacing_mm[:2])
    return np.asarray(away <= MARGIN_MM, dtype=bool)


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


def _smooth(shifts: Array, weights: Array, z: Array) -> tuple[Array, Array, Array]:
    """Fit a straight line along the cord, with little weight for slices that disagree.

    Returns the shift of every slice, its standard error per axis, and the median.
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


def _apply(source: Oriented, shifts: Array) -> NDArray[np.float32]:
    """Shift every slice by cubic splines."""
    from scipy.ndimage import shift as displace

    out = np.empty(source.data.shape, dtype=np.float32)
    for z in range(source.n_slices):
        plane = np.asarray(source.data[:, :, z], dtype=float)
        missing = ~np.isfinite(plane)
        moved = displace(np.where(missing, 0.0, plane), shifts[z], order=3, mode="nearest")
        if missing.any():
            lost = displace(missing.astype(float), shifts[z], order=1, mode="nearest") > 0.01
            moved = np.where(lost, np.nan, moved)
        out[:, :, z] = moved
    return out
