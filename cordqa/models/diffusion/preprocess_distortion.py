"""Distortion of echo-planar images along phase encoding, from a pair of opposite polarity (experimental).

Off resonance moves signal along the phase-encode axis, and piles it up or thins it out; with the opposite
polarity by the same amount the other way (Andersson et al. 2003, doi:10.1016/S1053-8119(03)00336-7).  At a
true position ``y`` both images say the same: ``up(y + u) (1 + u') = down(y - u) (1 - u')``.  The displacement
``u`` is a cubic B-spline, found by Gauss-Newton from smoothed to sharp images, with a penalty on its slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError

__all__ = ["DistortionField", "estimate_distortion", "undo_distortion"]

Array = NDArray[np.float64]

#: Distance of the knots of the spline (mm), where voxels are smaller.
KNOTS_MM = 7.0
#: Weight of the squared slope of the displacement against squared differences of images scaled to one.
SMOOTHNESS = 0.005
#: Smoothing of the images (voxels) and rounds of each stage.
STAGES = ((3.0, 6), (1.5, 5), (0.7, 5))
_SOLVER_STEPS = 40
#: Signal is not compressed beyond this: 1 + u' stays above it.
LEAST_JACOBIAN = 0.1
#: The pair must agree better by at least this factor than without correction, and to this share of its mean.
LEAST_GAIN, LARGEST_MISMATCH = 0.8, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DistortionField:
    """Displacement along the phase-encode axis.

    Attributes
    ----------
    displacement_voxels : ndarray, shape of the images
        Where the signal of each true position lies in the image of positive polarity.
    axis : int
        Phase-encode axis of the array.
    mismatch_before, mismatch_after : float
        Root mean square difference of the pair over its mean, in the region.
    usable : bool
        Whether the pair agrees clearly better with the field than without.
    sentence : str
    notices : tuple of str
    """

    displacement_voxels: Array
    axis: int
    mismatch_before: float
    mismatch_after: float
    usable: bool
    sentence: str
    notices: tuple[str, ...]


def estimate_distortion(
    up: NDArray[Any],
    down: NDArray[Any],
    *,
    axis: int,
    spacing_mm: Sequence[float],
    region: NDArray[np.bool_] | None = None,
    smoothness: float = SMOOTHNESS,
) -> DistortionField:
    """Estimate the displacement from two images of opposite phase-encode polarity.

    The person must not have moved between them: a shift along the axis looks like a constant field.

    Parameters
    ----------
    up, down : ndarray, shape (n_first, n_second, n_slices)
        Means without diffusion weighting, one per polarity.
    axis : int
        Phase-encode axis, 0 to 2.
    spacing_mm : sequence of float
    region : ndarray of bool, same shape, optional
        Where the images are compared; everywhere by default.
    smoothness : float
        Weight of the penalty, > 0.

    Raises
    ------
    InputError
        If the images are not on one grid or the axis is none of theirs.
    EmptyInputError
        If an image is empty in the region.
    """
    weight = _check(up, down, axis, region)
    first = np.moveaxis(_scaled(up, weight), axis, 0)
    second = np.moveaxis(_scaled(down, weight), axis, 0)
    spacing = [spacing_mm[axis], *(spacing_mm[n] for n in range(3) if n != axis)]
    weight = np.moveaxis(weight, axis, 0)
    spline = _Spline(first.shape, spacing)
    coefficients = np.zeros(spline.size)
    for smoothing, rounds in STAGES:
        coefficients = _refine(first, second, weight, spline, coefficients, smoothing, rounds, smoothness)
    field, slope = spline.evaluate(coefficients)
    zero = np.zeros_like(field)
    before = _mismatch(first, second, zero, zero, weight)
    after = _mismatch(first, second, field, slope, weight)
    unfolded = (1.0 - np.abs(slope[weight > 0])).min() > LEAST_JACOBIAN
    usable = bool(unfolded and after < min(LEAST_GAIN * before, LARGEST_MISMATCH))
    return DistortionField(
        displacement_voxels=np.moveaxis(field, 0, axis),
        axis=axis,
        mismatch_before=before,
        mismatch_after=after,
        usable=usable,
        sentence=(
            "Distortion along phase encoding was estimated from a pair of opposite polarity (experimental) "
            "and undone with its change of intensity."
        ),
        notices=_notices(before, after, usable, np.abs(field[weight > 0]).max()),
    )


def undo_distortion(data: NDArray[Any], field: DistortionField, *, polarity: int = 1) -> NDArray[np.float32]:
    """Move signal back to where it belongs, by cubic splines, with its density.

    Parameters
    ----------
    data : ndarray, shape (n_first, n_second, n_slices) or with volumes last
    field : DistortionField
    polarity : {1, -1}
        1 for images of the polarity of ``up``.
    """
    if data.shape[:3] != field.displacement_voxels.shape:
        raise InputError(
            "the images lie on another grid than the field",
            found=f"{data.shape[:3]}",
            expected=f"{field.displacement_voxels.shape}",
        )
    shift = polarity * np.moveaxis(field.displacement_voxels, field.axis, 0)
    slope = np.gradient(shift, axis=0) if shift.shape[0] > 1 else np.zeros_like(shift)
    series = np.asarray(data, dtype=float)
    out = np.empty(series.shape, dtype=np.float32)
    for index in np.ndindex(series.shape[3:]):
        volume = series[(..., *index)]
        missing = ~np.isfinite(volume)
        moved = _pulled(np.moveaxis(np.where(missing, 0.0, volume), field.axis, 0), shift) * (1.0 + slope)
        moved = np.moveaxis(
            np.maximum(moved, min(0.0, float(volume[~missing].min(initial=0.0)))), 0, field.axis
        )
        out[(..., *index)] = np.where(missing, np.nan, moved)
    return out


class _Spline:
    """Tensor product of uniform cubic B-splines over the grid, with its slope along the first axis."""

    def __init__(self, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> None:
        steps = [max(1.0, KNOTS_MM / s) for s in spacing_mm]
        self.basis = [_cubic(n, step, slope=False) for n, step in zip(shape, steps, strict=True)]
        self.slope = _cubic(shape[0], steps[0], slope=True)
        self.shape = tuple(b.shape[1] for b in self.basis)
        self.size = int(np.prod(self.shape))

    def evaluate(self, coefficients: Array) -> tuple[Array, Array]:
        """Field and its slope along the first axis."""
        cube = coefficients.reshape(self.shape)
        rest = np.einsum("ijk,yj,zk->iyz", cube, self.basis[1], self.basis[2], optimize=True)
        return np.tensordot(self.basis[0], rest, axes=1), np.tensordot(self.slope, rest, axes=1)

    def gather(self, field: Array, slope: Array) -> Array:
        """Adjoint of :meth:`evaluate`."""
        rest = np.tensordot(self.basis[0].T, field, axes=1) + np.tensordot(self.slope.T, slope, axes=1)
        out = np.einsum("iyz,yj,zk->ijk", rest, self.basis[1], self.basis[2], optimize=True)
        return np.asarray(out.ravel(), dtype=float)

    def roughness(self, coefficients: Array) -> Array:
        """Gradient of half the summed squared differences of neighbouring coefficients."""
        cube = coefficients.reshape(self.shape)
        out = np.zeros_like(cube)
        for axis in range(3):
            step = np.diff(cube, axis=axis)
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(0, -1), slice(1, None)
            out[tuple(low)] -= step
            out[tuple(high)] += step
        return out.ravel()


def _cubic(count: int, step: float, *, slope: bool) -> Array:
    """Uniform cubic B-splines (or their slopes) at whole positions, shape (count, n_knots)."""
    knots = int(np.ceil((count - 1) / step)) + 3 if count > 1 else 1
    if count == 1:
        return np.full((1, 1), 0.0 if slope else 1.0)
    t = np.arange(count)[:, None] / step - (np.arange(knots)[None, :] - 1.0)
    a = np.abs(t)
    if slope:
        near, far = np.sign(t) * (1.5 * a**2 - 2.0 * a), -0.5 * np.sign(t) * (2.0 - a) ** 2
        return np.asarray(np.where(a < 1, near, np.where(a < 2, far, 0.0)) / step, dtype=float)
    near, far = 2.0 / 3.0 - a**2 + 0.5 * a**3, (2.0 - a) ** 3 / 6.0
    return np.asarray(np.where(a < 1, near, np.where(a < 2, far, 0.0)), dtype=float)


def _refine(
    up: Array,
    down: Array,
    weight: Array,
    spline: _Spline,
    start: Array,
    smoothing: float,
    rounds: int,
    smoothness: float,
) -> Array:
    """Gauss-Newton steps on images smoothed in the phase-encode direction and across it."""
    from scipy.ndimage import gaussian_filter
    from scipy.sparse.linalg import LinearOperator, cg

    widths = [smoothing if n > 1 else 0.0 for n in up.shape[:2]] + [0.0]
    first, second = gaussian_filter(up, widths), gaussian_filter(down, widths)
    slopes = [np.gradient(image, axis=0) for image in (first, second)]
    out, cost = start, np.inf
    penalty = smoothness * float(weight.sum()) / spline.size
    for _ in range(rounds):
        field, slope = spline.evaluate(out)
        a, b = _pulled(first, field), _pulled(second, -field)
        rest = weight * (a * (1.0 + slope) - b * (1.0 - slope))
        new_cost = float((rest**2).sum()) + penalty * float(out @ spline.roughness(out))
        if new_cost > 0.9999 * cost:
            break
        cost = new_cost
        by_field = weight * (
            _pulled(slopes[0], field) * (1.0 + slope) + _pulled(slopes[1], -field) * (1.0 - slope)
        )
        by_slope = weight * (a + b)

        def normal(step: Array, by_field: Array = by_field, by_slope: Array = by_slope) -> Array:
            value, gradient = spline.evaluate(np.asarray(step).ravel())
            change = by_field * value + by_slope * gradient
            return spline.gather(by_field * change, by_slope * change) + penalty * spline.roughness(
                np.asarray(step).ravel()
            )

        right = -spline.gather(by_field * rest, by_slope * rest) - penalty * spline.roughness(out)
        operator = LinearOperator((spline.size, spline.size), matvec=normal, dtype=float)
        step, _ = cg(operator, right, rtol=1e-3, maxiter=_SOLVER_STEPS)
        # A step may not fold the image.
        slope_step = np.abs(spline.evaluate(step)[1]).max()
        out = out + step * min(1.0, 0.5 / max(float(slope_step), 1e-12))
    return out


def _pulled(image: Array, shift: Array) -> Array:
    """Values at positions displaced along the first axis, by cubic splines."""
    from scipy.ndimage import map_coordinates, spline_filter1d

    if image.shape[0] < 2:
        return image
    coefficients = spline_filter1d(image, order=3, axis=0, mode="mirror")
    out = np.empty_like(image)
    rows = np.arange(image.shape[0], dtype=float)[:, None]
    columns = np.broadcast_to(np.arange(image.shape[1], dtype=float), image.shape[:2])
    # Cubic along the first axis only: the coefficients of the second are those of a spline through itself.
    both = (
        spline_filter1d(coefficients, order=3, axis=1, mode="mirror") if image.shape[1] > 1 else coefficients
    )
    for z in range(image.shape[2]):
        out[:, :, z] = map_coordinates(
            both[:, :, z], [rows + shift[:, :, z], columns], order=3, mode="nearest", prefilter=False
        )
    return out


def _mismatch(up: Array, down: Array, field: Array, slope: Array, weight: Array) -> float:
    a, b = _pulled(up, field) * (1.0 + slope), _pulled(down, -field) * (1.0 - slope)
    level = float((weight * (a + b)).sum() / 2.0)
    count = max(float((weight > 0).sum()), 1.0)
    return float(np.sqrt((weight * (a - b) ** 2).sum() / count)) / max(level / count, 1e-300)


def _check(up: NDArray[Any], down: NDArray[Any], axis: int, region: NDArray[np.bool_] | None) -> Array:
    if up.ndim != 3 or up.shape != down.shape or (region is not None and region.shape != up.shape):
        raise InputError(
            "the images of opposite polarity are not on one grid", found=f"{up.shape} and {down.shape}"
        )
    if axis not in {0, 1, 2} or up.shape[axis] < 8:
        raise InputError("no such phase-encode axis, or too short", found=f"axis {axis} of {up.shape}")
    weight = np.ones(up.shape) if region is None else region.astype(float)
    weight = np.asarray(weight * np.isfinite(up) * np.isfinite(down), dtype=float)
    for image in (up, down):
        if not (np.nan_to_num(image)[weight > 0] > 0).any():
            raise EmptyInputError("an image of the reversed pair is empty")
    return weight


def _scaled(image: NDArray[Any], weight: Array) -> Array:
    values = np.nan_to_num(np.asarray(image, dtype=float))
    return np.asarray(values / np.sqrt((values[weight > 0] ** 2).mean()), dtype=float)


def _notices(before: float, after: float, usable: bool, largest: float) -> tuple[str, ...]:
    words = (
        f"the reversed pair differs by {before:.0%} of its mean signal before and {after:.0%} after "
        f"correction; largest displacement {largest:.1f} voxels"
    )
    if usable:
        return (words,)
    return (words, "the field does not explain the pair: distortion was left as it is")
