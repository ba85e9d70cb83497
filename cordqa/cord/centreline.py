"""Centreline of the cord: a smooth curve through the centres of mass of a mask.

The curve is a smoothing spline through the per-slice centres of mass, as a function of the
slice number.  Its smoothing target follows the rule that the Spinal Cord Toolbox uses, so
that angles, and areas corrected by them, agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, Pieces, orient_mask
from cordqa.errors import InputError
from cordqa.records import Volume

__all__ = ["Centreline", "fit_centreline", "fit_oriented"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Centreline:
    """A curve through the cord, one point per slice from the lowest to the highest of the mask.

    Attributes
    ----------
    slices : ndarray of int, shape (n,)
        Slice numbers, counted from inferior.
    right, anterior : ndarray, shape (n,)
        Position in voxels of the (right, anterior, superior) layout.
    slope_right, slope_anterior : ndarray, shape (n,)
        Millimetres towards right and anterior per millimetre towards superior; NaN where one
        slice alone gives no direction.
    spacing_mm : tuple of float
        Voxel size in that layout.
    affine : ndarray, shape (4, 4)
        From that layout to RAS+ millimetres.
    measured : ndarray of bool, shape (n,)
        False where the mask is empty and the curve bridges a gap.
    """

    slices: NDArray[np.intp]
    right: Array
    anterior: Array
    slope_right: Array
    slope_anterior: Array
    spacing_mm: tuple[float, float, float]
    affine: Array
    measured: NDArray[np.bool_]

    @property
    def cosine(self) -> Array:
        """Cosine of the angle between the curve and the normal of the slice."""
        out: Array = 1.0 / np.sqrt(1.0 + self.slope_right**2 + self.slope_anterior**2)
        return out

    @property
    def angle_ap_deg(self) -> Array:
        """Rotation about the antero-posterior axis; positive when the cord runs to the left going up."""
        return np.asarray(np.degrees(np.arctan(-self.slope_right)), dtype=float)

    @property
    def angle_rl_deg(self) -> Array:
        """Rotation about the right-left axis; positive when the cord runs forward going up."""
        return np.asarray(np.degrees(np.arctan(self.slope_anterior)), dtype=float)

    @property
    def step_length_mm(self) -> Array:
        """Length of the curve within each slice."""
        return self.spacing_mm[2] / self.cosine

    @property
    def arc_length_mm(self) -> Array:
        """Distance along the curve from the middle of its lowest slice."""
        step = self.step_length_mm
        if not np.isfinite(step).all():
            step = np.full(step.shape, self.spacing_mm[2])
        return np.concatenate([[0.0], np.cumsum(0.5 * (step[1:] + step[:-1]))])

    @property
    def points_mm(self) -> Array:
        """Points of the curve in RAS+ millimetres, shape (n, 3)."""
        index = np.column_stack([self.right, self.anterior, self.slices, np.ones(self.slices.size)])
        return np.asarray(index @ self.affine[:3].T, dtype=float)


def fit_centreline(mask: Volume, *, smoothing: float = 30.0, pieces: Pieces = "raise") -> Centreline:
    """Fit a smooth centreline to a cord mask.

    Parameters
    ----------
    mask : Volume
        Binary or soft cord mask in any orientation.
    smoothing : float
        Sum of squared residuals allowed, in voxels squared, is ``smoothing / 3`` times the slice
        distance in mm times the squared share of slices that hold cord.  0 interpolates.
    pieces : {'raise', 'largest', 'keep'}
        See :func:`cordqa.cord.axes.orient_mask`.

    Raises
    ------
    EmptyInputError, InputError
        If the mask cannot be a cord.
    """
    return fit_oriented(orient_mask(mask, pieces=pieces), smoothing=smoothing)


def fit_oriented(mask: Oriented, *, smoothing: float = 30.0) -> Centreline:
    """Fit a smooth centreline to a mask that is already laid out; see :func:`fit_centreline`."""
    if not smoothing >= 0:
        raise InputError("smoothing must not be negative", found=f"{smoothing}")
    area = mask.data.sum(axis=(0, 1))
    filled = np.flatnonzero(area > 0)
    slices = np.arange(filled[0], filled[-1] + 1)
    rows, columns = np.arange(mask.data.shape[0]), np.arange(mask.data.shape[1])
    right = (mask.data.sum(axis=1) * rows[:, None]).sum(axis=0)[filled] / area[filled]
    anterior = (mask.data.sum(axis=0) * columns[:, None]).sum(axis=0)[filled] / area[filled]
    spacing = mask.spacing_mm
    target = smoothing * spacing[2] / 3.0 * (filled.size / slices.size) ** 2
    x, dx = _spline(filled, right, slices, target)
    y, dy = _spline(filled, anterior, slices, target)
    return Centreline(
        slices=slices,
        right=x,
        anterior=y,
        slope_right=dx * spacing[0] / spacing[2],
        slope_anterior=dy * spacing[1] / spacing[2],
        spacing_mm=spacing,
        affine=mask.affine,
        measured=area[slices] > 0,
    )


def _spline(
    at: NDArray[np.intp], values: Array, wanted: NDArray[np.intp], target: float
) -> tuple[Array, Array]:
    """Smoothing spline and its derivative; a line where there are few points."""
    if at.size == 1:
        return values.copy(), np.full(1, np.nan)
    from scipy.interpolate import splev, splrep

    degree = 3 if at.size > 3 else 1
    knots = splrep(at, values, s=target, k=degree)
    return np.asarray(splev(wanted, knots), dtype=float), np.asarray(splev(wanted, knots, der=1), dtype=float)
