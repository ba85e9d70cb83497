"""R2* from the magnitude of several echoes, with its noise floor.

A magnitude never falls below its noise: the mean of its square is the square of the signal plus
twice the variance of one channel.  The fit therefore works on the square less that floor, and an
echo counts by what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DecayFit", "fit_r2star"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Echoes below this many standard deviations of the noise are left out: their logarithm is biased.
_ABOVE_NOISE = 3.0
_GAUSS_NEWTON = 3
#: A decay that is faster than this cannot be seen by gradient echoes.
_FASTEST_PER_S = 1e4
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class DecayFit:
    """Fitted decay of the voxels of a mask, shape (n_voxels,) each.

    Attributes
    ----------
    r2star_per_s : ndarray
        NaN where fewer than two echoes stand above the noise.
    standard_error_per_s : ndarray
        One standard deviation; NaN where the noise is not known.
    n_echoes : ndarray of int
        Echoes that were used.
    """

    r2star_per_s: Array
    standard_error_per_s: Array
    n_echoes: NDArray[np.intp]


def fit_r2star(magnitude: NDArray[np.floating], echo_times_s: Array, *, noise_sd: float) -> DecayFit:
    """Fit one exponential per voxel.

    Estimator: weighted least squares on the logarithm (weights of squared signal) as start, then
    Gauss-Newton on the signal, both after removal of the noise floor from the squared magnitude.

    Parameters
    ----------
    magnitude : ndarray, shape (n_voxels, n_echoes)
    echo_times_s : ndarray, shape (n_echoes,)
        Two or more.
    noise_sd : float
        Of one channel, in units of the magnitude; NaN where it is not known: then there is no floor.
    """
    times = np.asarray(echo_times_s, dtype=float)
    raw = np.asarray(magnitude, dtype=float)
    noise = noise_sd if np.isfinite(noise_sd) and noise_sd > 0 else 0.0
    square = raw**2 - 2 * noise**2
    used = np.isfinite(raw) & (square > 0) & (raw > _ABOVE_NOISE * noise)
    count = used.sum(axis=1)
    rate, variance = np.full(len(raw), np.nan), np.full(len(raw), np.nan)
    enough = count >= 2
    rate[enough], variance[enough] = _decay(np.sqrt(np.where(used, square, 1.0))[enough], used[enough], times)
    error = np.sqrt(variance) * (noise if noise > 0 else np.nan)
    return DecayFit(r2star_per_s=rate, standard_error_per_s=error, n_echoes=count)


def _decay(signal: Array, used: Mask, times: Array) -> tuple[Array, Array]:
    """Rate and its variance for unit noise; NaN where the steps run away."""
    rate, log_start = _line(np.log(signal), np.where(used, signal**2, 0.0), times)
    start = np.exp(np.clip(log_start, -300, 300))
    for _ in range(_GAUSS_NEWTON):
        start, rate, variance = _step(signal, used, times, start, rate)
    good = np.isfinite(rate) & np.isfinite(variance) & (np.abs(rate) < _FASTEST_PER_S)
    return np.where(good, rate, np.nan), np.where(good, variance, np.nan)


def _line(logarithm: Array, weight: Array, times: Array) -> tuple[Array, Array]:
    total = np.maximum(weight.sum(1), _TINY)
    centre = (weight @ times) / total
    mean = (weight * logarithm).sum(1) / total
    spread = np.maximum(weight @ times**2 - centre**2 * total, _TINY)
    slope = ((weight * logarithm) @ times - centre * mean * total) / spread
    return -slope, mean - slope * centre


def _step(signal: Array, used: Mask, times: Array, start: Array, rate: Array) -> tuple[Array, Array, Array]:
    """One step of Gauss-Newton on ``start exp(-rate t)``; also the variance of the rate for unit noise."""
    decay = np.exp(np.clip(-rate[:, None] * times, -50, 50)) * used
    model = start[:, None] * decay
    by_rate = -times * model
    residual = np.where(used, signal - model, 0.0)
    a, b, c = (decay**2).sum(1), (decay * by_rate).sum(1), (by_rate**2).sum(1)
    determinant = np.maximum(a * c - b**2, _TINY)
    p, q = (decay * residual).sum(1), (by_rate * residual).sum(1)
    return start + (c * p - b * q) / determinant, rate + (a * q - b * p) / determinant, a / determinant
