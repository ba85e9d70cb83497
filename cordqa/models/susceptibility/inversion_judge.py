"""What decides and judges an inversion: weights, regularisation, streaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.dipole import Dipole

__all__ = [
    "data_weights",
    "field_noise",
    "noise_regularisation",
    "robust_weights",
    "spike_weights",
    "streak_index",
]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Error of the model of the field (voxels of one value, dipoles on a grid), ppm, which acts like
#: noise where there is none.
_MODEL_ERROR_PPM = 0.0012
#: Typical step of susceptibility between neighbouring tissues, ppm.
TYPICAL_STEP_PPM = 0.03
#: Total variation is held firmer by this: the contrast it takes is given back by a second inversion.
_FIRMER = 1.5
#: Model error of a reliable voxel over its noise: tempers how much noise alone may decide.
_TEMPER = 2.0
_TAIL = 3.0
#: A spike deviates by more than this many times what all but a few voxels do.
_SPIKE, _USUAL_PERCENT = 5.0, 90.0
#: Width of the cone around the magic angle, in values of the kernel.
_CONE = 0.1


def data_weights(standard_error: Array, mask: Mask) -> Array:
    """Return weights of the data term: 1 for the better half of the voxels, less for noisier ones.

    Field models err as well as scanners, so the weight of a voxel is one over its noise and a
    constant error, in quadrature.

    Parameters
    ----------
    standard_error : ndarray
        ppm.
    mask : ndarray of bool
    """
    inside = standard_error[mask]
    known = np.isfinite(inside) & (inside >= 0)
    middle = float(np.median(inside[known])) if known.any() else 0.0
    weight = np.zeros(mask.shape)
    if middle <= 0:
        weight[mask] = known
        return weight
    relative = np.maximum(np.where(known, inside, np.inf) / middle, 1.0)
    weight[mask] = np.sqrt((1 + _TEMPER**2) / (relative**2 + _TEMPER**2))
    return weight


def field_noise(total_field: Array, mask: Mask) -> float:
    """Estimate the noise of a field without an error map, ppm: from fourth differences, robustly.

    Fine structure adds to it, so it is an upper bound where the image is sharp.
    """
    scatter = []
    for axis in range(3):
        values, inside = np.moveaxis(total_field, axis, 0), np.moveaxis(mask, axis, 0)
        if values.shape[0] < 5:
            continue
        bend = values[:-4] - 4 * values[1:-3] + 6 * values[2:-2] - 4 * values[3:-1] + values[4:]
        whole = inside[:-4] & inside[1:-3] & inside[2:-2] & inside[3:-1] & inside[4:]
        if whole.any():
            # The squares of 1, 4, 6, 4, 1 sum to 70.
            scatter.append(1.4826 * float(np.median(np.abs(bend[whole]))) / np.sqrt(70.0))
    return float(min(scatter)) if scatter else 0.0


def noise_regularisation(noise_ppm: float, *, squared: bool = False) -> float:
    """Choose the regularisation from the noise of a reliable voxel and a typical step.

    Maximum a posteriori: normal noise of variance ``s^2`` and Laplace-distributed steps of mean
    size ``b`` make the weight of total variation ``s^2 / b``; normal steps make that of the
    squared gradient ``s^2 / b^2``.  Total variation gets 1.5 times that weight, as it is followed by
    a step that adds the residual back.

    Parameters
    ----------
    noise_ppm : float
    squared : bool
        For a quadratic penalty.
    """
    variance = noise_ppm**2 + _MODEL_ERROR_PPM**2
    if squared:
        return variance / TYPICAL_STEP_PPM**2
    return _FIRMER * variance / TYPICAL_STEP_PPM


def robust_weights(
    weight: Single, residual: Single, error: Single, mask: Mask, *, tail: float = _TAIL
) -> Single:
    """Lower the weights of voxels whose residual neither noise nor the model's error explains.

    Parameters
    ----------
    weight : ndarray of float32
        Of :func:`data_weights`.
    residual, error : ndarray of float32
        Local field less that of the susceptibility, and its standard error, ppm.
    mask : ndarray of bool
    tail : float
        Residuals up to this many standard deviations keep their weight.
    """
    score = np.abs(residual) / np.sqrt(error * error + np.float32(_MODEL_ERROR_PPM**2))
    scale = max(1.4826 * float(np.median(score[mask])), 1.0)
    factor = np.minimum(1, tail * scale / np.maximum(score, np.float32(1e-9)))
    return np.where(mask, weight * factor, 0).astype(np.float32)


def spike_weights(weight: Single, field: Single, error: Single, mask: Mask) -> Single:
    """Lower the weights of single voxels that stand out of their neighbours along every axis.

    Nothing is known yet of what is local, so only what neither noise nor ordinary tissue does
    counts: one wild voxel would otherwise be explained by strong sources all around it.

    Parameters
    ----------
    weight : ndarray of float32
    field, error : ndarray of float32
        Total field and its standard error, ppm.
    mask : ndarray of bool
    """
    middle = field
    for axis in range(3):
        middle = _median_of_three(middle, mask, axis)
    deviation = np.abs(field - middle)
    usual = float(np.percentile(deviation[mask], _USUAL_PERCENT))
    unit = np.maximum(np.sqrt(error * error + np.float32(_MODEL_ERROR_PPM**2)), np.float32(usual))
    factor = np.minimum(1, _SPIKE * unit / np.maximum(deviation, np.float32(1e-9)))
    return np.where(mask, weight * factor, 0).astype(np.float32)


def _median_of_three(field: Single, mask: Mask, axis: int) -> Single:
    """Median along an axis; a neighbour outside the mask counts as the voxel itself."""
    values, inside = np.moveaxis(field, axis, 0), np.moveaxis(mask, axis, 0)
    before, after = values.copy(), values.copy()
    before[1:] = np.where(inside[:-1], values[:-1], values[1:])
    after[:-1] = np.where(inside[1:], values[1:], values[:-1])
    low, high = np.minimum(before, after), np.maximum(before, after)
    return np.asarray(np.moveaxis(np.clip(values, low, high), 0, axis), dtype=np.float32)


def streak_index(dipole: Dipole, chi: Single) -> float:
    """Measure streaks: power of the gradient near the magic angle, relative to isotropy.

    Each shell of k-space is compared with its own mean, so sharpness does not count; a shape that
    is long in one direction does, so compare reconstructions of one object only.

    Parameters
    ----------
    dipole : Dipole
    chi : ndarray of float32
        ppm, on the grid of the dipole, zero outside the mask.
    """
    power = np.abs(dipole.transform(chi)).astype(float) ** 2
    axes = [np.fft.fftfreq(n, v) for n, v in zip(dipole.shape, dipole.voxel_size_mm, strict=True)]
    axes[2] = np.fft.rfftfreq(dipole.shape[2], dipole.voxel_size_mm[2])
    square = sum(f.reshape([-1 if i == a else 1 for i in range(3)]) ** 2 for a, f in enumerate(axes))
    radius = np.sqrt(square)
    limit = 0.5 / float(dipole.voxel_size_mm.max())
    use = (radius > 0.1 * limit) & (radius < limit)
    shell = (radius[use] / limit * 32).astype(int)
    cone = np.abs(dipole.kernel[use]) < _CONE
    weighted = (power * square)[use]
    expected = np.bincount(shell, weighted) / np.maximum(np.bincount(shell), 1)
    total = float(expected[shell[cone]].sum())
    return float(weighted[cone].sum()) / total if total > 0 else float("nan")
