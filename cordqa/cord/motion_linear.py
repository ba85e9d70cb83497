"""Shift of an image against its prediction, by linear least squares with its uncertainty.

An image that is displaced by a small step ``d`` from its prediction ``T`` is ``a T + c - a d . grad T``:
linear in gain, offset, gain times step, and (for a rotation) gain times angle.  All volumes of a slice are
solved at once.  Gain and offset absorb drop-outs and what the prediction gets wrong about brightness; a
volume in which the cord cannot be seen gets a large variance, not a wrong shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.motion_slices import fit_line, near_cord

__all__ = ["Steps", "measure_steps", "place_planes", "tie_images"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A gain that is not this many standard errors above zero, or below this, shows no cord.
LEAST_GAIN_ERRORS, LEAST_GAIN = 4.0, 0.15
#: Largest inflation of the variance by residuals that are alike in neighbouring pixels.
LARGEST_INFLATION = 12.0
#: Between contrasts only the cord and its edge are alike: this much around it is compared (mm).
TIE_MARGIN_MM = 1.5
TIE_ROUNDS = 8
#: A slice whose fit explains less of the variance than this, say where CSF is missing, is not believed;
#: nor are fewer slices than this share.
LEAST_EXPLAINED, LEAST_SLICES = 0.75, 0.5
#: Slices lie off the line where their spread is this many times what noise makes of it.
LEAST_EXCESS = 3.0
#: Where it explains this much, the slice may lie off the line through its neighbours.
EXPLAINED_WELL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Remaining displacement of every volume in one slice.

    Attributes
    ----------
    step : ndarray, shape (n_volumes, 2 or 3)
        Voxels towards right and anterior, and radians from right to anterior where asked for.
    variance : ndarray, same shape
        Infinite where nothing can be said.
    """

    step: Array
    variance: Array


def place_planes(planes: Array, shift_voxels: Array, turn_rad: Array, aspect: float, centre: Array) -> Array:
    """Undo the motion of the planes of one slice.

    Parameters
    ----------
    planes : ndarray, shape (n_volumes, n_right, n_anterior)
        Cubic spline coefficients.
    shift_voxels : ndarray, shape (n_volumes, 2)
        Displacement of the content of each plane.
    turn_rad : ndarray, shape (n_volumes,)
        Rotation of the content about ``centre``.
    aspect : float
        Pixel size towards anterior over that towards right.
    centre : ndarray, shape (2,)
        In voxels.
    """
    from scipy.ndimage import affine_transform, shift

    out = np.empty_like(planes)
    for n, plane in enumerate(planes):
        if turn_rad[n] == 0.0:
            out[n] = shift(plane, -shift_voxels[n], order=3, mode="nearest", prefilter=False)
            continue
        c, s = np.cos(turn_rad[n]), np.sin(turn_rad[n])
        matrix = np.array([[c, -s * aspect], [s / aspect, c]])
        offset = centre + shift_voxels[n] - matrix @ centre
        out[n] = affine_transform(plane, matrix, offset, order=3, mode="nearest", prefilter=False)
    return out


def measure_steps(
    planes: Array, predicted: Array, inside: Mask, *, lever: tuple[Array, Array] | None = None
) -> Steps:
    """Measure how far planes are displaced from their predictions.

    Parameters
    ----------
    planes, predicted : ndarray, shape (n_volumes, n_right, n_anterior)
        Images and what they should be; a volume that is not finite in ``inside`` is not measured.
    inside : ndarray of bool, shape (n_right, n_anterior)
        Pixels that are compared.
    lever : pair of ndarray, shape (n_right, n_anterior), optional
        Movement of each pixel, in voxels towards right and anterior, per radian of rotation.
    """
    slope_right, slope_front = (np.asarray(g) for g in np.gradient(predicted, axis=(1, 2)))
    regressors = [-slope_right, -slope_front]
    if lever is not None:
        regressors.append(-(lever[0] * slope_right + lever[1] * slope_front))
    width = len(regressors)
    volumes = planes.shape[0]
    out = Steps(step=np.zeros((volumes, width)), variance=np.full((volumes, width), np.inf))
    design = np.stack([*(r[:, inside] for r in regressors), predicted[:, inside]], axis=1)
    data = planes[:, inside]
    good = np.isfinite(design).all(axis=(1, 2)) & np.isfinite(data).all(axis=1)
    good &= design[:, -1].std(axis=1) > 0
    if inside.sum() < 4 * (width + 2) or not good.any():
        return out
    step, variance = _solve(design[good], data[good], inside)
    out.step[good], out.variance[good] = step, variance
    return out


def _solve(design: Array, data: Array, inside: Mask) -> tuple[Array, Array]:
    """Weighted fit of all volumes; the constant is taken out by centring."""
    design = design - design.mean(axis=2, keepdims=True)
    data = data - data.mean(axis=1, keepdims=True)
    normal = np.einsum("vip,vjp->vij", design, design, optimize=True)
    scale = np.einsum("vii->v", normal)[:, None, None]
    inverse = np.linalg.inv(normal + 1e-9 * scale * np.eye(design.shape[1]))
    solution = np.einsum("vij,vjp,vp->vi", inverse, design, data, optimize=True)
    rest = data - np.einsum("vi,vip->vp", solution, design, optimize=True)
    freedom = max(data.shape[1] - design.shape[1] - 1, 1)
    noise = (rest**2).sum(axis=1) / freedom
    gain = solution[:, -1]
    gain_error = np.sqrt(noise * inverse[:, -1, -1])
    seen = (gain > LEAST_GAIN_ERRORS * gain_error) & (gain > LEAST_GAIN)
    safe = np.where(seen, gain, 1.0)[:, None]
    width = design.shape[1] - 1
    diagonal = np.einsum("vii->vi", inverse)[:, :width]
    variance = _inflation(design, rest, inverse, inside) * noise[:, None] * diagonal / safe**2
    step = np.where(seen[:, None], solution[:, :width] / safe, 0.0)
    return step, np.where(seen[:, None], variance, np.inf)


def _inflation(design: Array, rest: Array, inverse: Array, inside: Mask) -> Array:
    """By how much residuals that are alike in neighbouring pixels enlarge the variance, shape (width,).

    The median over volumes of the ratio of the variance of the estimate with and without the products of
    neighbours.
    """
    width = design.shape[1] - 1
    influence = np.einsum("vij,vjp->vip", inverse[:, :width], design, optimize=True) * rest[:, None, :]
    image = np.zeros((*influence.shape[:2], *inside.shape))
    image[:, :, inside] = influence
    plain = (image**2).sum(axis=(2, 3))
    near = plain.copy()
    for i, j in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = image[:, :, : image.shape[2] - i, max(0, -j) : image.shape[3] - max(0, j)]
        b = image[:, :, i:, max(0, j) : image.shape[3] + min(0, j)]
        near += 2.0 * (a * b).sum(axis=(2, 3))
    ratio = np.median(near / np.maximum(plain, 1e-300), axis=0)
    return np.asarray(np.clip(ratio, 1.0, LARGEST_INFLATION), dtype=float)


def tie_images(
    moving: Array, fixed: Array, cord: Mask, spacing_mm: tuple[float, float, float], start: Array
) -> tuple[Array, Array]:
    """Measure how far one contrast lies from another, from the edge of the cord alone.

    In the cord and a narrow rim the fixed image is taken as a quadratic function of the brightness of the
    moving one.  That holds for b = 0 and diffusion-weighted images where CSF surrounds the cord, and is not
    drawn towards whole voxels as mutual information with few pixels is.

    Parameters
    ----------
    moving, fixed : ndarray, shape (n_right, n_anterior, n_slices)
    cord : ndarray of bool, same shape
    spacing_mm : tuple of float
    start : ndarray, shape (n_slices, 2)
        First guess of the displacement of the content of ``moving``, in voxels.

    Returns
    -------
    shift : ndarray, shape (n_slices, 2)
        Displacement: a robust line along the cord, and what clear slices lie off it.
    error : ndarray, shape (2,)
        Its standard error, from how far the slices scatter; infinite where too few slices show both
        contrasts clearly.
    """
    slices = np.flatnonzero(cord.any(axis=(0, 1)))
    value, noise = np.full((slices.size, 2), np.nan), np.full((slices.size, 2), np.inf)
    clear = np.zeros(slices.size, dtype=bool)
    for n, z in enumerate(slices):
        inside = near_cord(cord[:, :, z], spacing_mm, TIE_MARGIN_MM)
        found = _tie_slice(moving[:, :, z], fixed[:, :, z], inside, start[z])
        if found is not None:
            value[n], noise[n], clear[n] = found
    known = np.isfinite(noise).all(axis=1)
    if known.sum() < max(LEAST_SLICES * slices.size, 1):
        return np.zeros_like(start), np.full(2, np.inf)
    line, error, _ = fit_line(value, np.where(known, 1.0 / noise.sum(axis=1), 0.0), slices.astype(float))
    every, out = np.arange(len(start)), np.zeros_like(start)
    for axis in range(2):
        off = np.where(clear, value[:, axis] - line[:, axis], 0.0)
        # Of what a slice lies off the line, the part that its noise does not explain.
        own = 0.0
        if clear.sum() >= 4:
            spread, expected = np.median(off[clear] ** 2) / 0.455, float(np.median(noise[clear, axis]))
            own = float(spread) - expected if spread > LEAST_EXCESS * expected else 0.0
        best = line[:, axis] + off * own / (own + np.where(clear, noise[:, axis], 1.0))
        out[:, axis] = np.interp(every, slices, best)
    return out, error


def _tie_slice(moving: Array, fixed: Array, inside: Mask, start: Array) -> tuple[Array, Array, bool] | None:
    from scipy.ndimage import shift as displace
    from scipy.ndimage import spline_filter

    if inside.sum() < 20 or not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        return None
    coefficients, place, wanted = spline_filter(moving, order=3, mode="mirror"), start.copy(), fixed[inside]
    for _ in range(TIE_ROUNDS):
        moved = displace(coefficients, -place, order=3, mode="nearest", prefilter=False)
        top = float(np.abs(moved[inside]).max())
        powers = np.stack([np.ones_like(moved), moved / (top or 1.0), (moved / (top or 1.0)) ** 2])
        curve = np.linalg.lstsq(powers[:, inside].T, wanted, rcond=None)[0]
        slopes = np.gradient(np.tensordot(curve, powers, axes=1))
        design = np.column_stack([-slopes[0][inside], -slopes[1][inside], powers[:, inside].T])
        solution, _, rank, _ = np.linalg.lstsq(design, wanted, rcond=None)
        if rank < design.shape[1]:
            return None
        place = place - np.clip(solution[:2], -0.7, 0.7)
    rest = wanted - design @ solution
    missed = float(rest.var() / wanted.var())
    if missed > 1.0 - LEAST_EXPLAINED or np.abs(place - start).max() > 3.0:
        return None
    variance = np.diag(np.linalg.inv(design.T @ design))[:2] * (rest**2).sum() / (inside.sum() - 5)
    return place, variance, missed < 1.0 - EXPLAINED_WELL
