"""Magnitude noise: how to take it out of a signal, and how certain the rest is.

For a magnitude image M of a signal S, in any number of channels, E[M^2] = S^2 + E[floor^2], where
the floor is the magnitude where there is no signal.  Squares therefore correct exactly; means of
magnitudes do not (near a null their error is larger than the noise).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "correct_noise_floor",
    "corrected_signal_sd",
    "estimate_noise_floor",
    "rician_excess",
    "rician_mean",
    "rician_weight",
]

Array = NDArray[np.float64]

#: A plateau is flat when its halves agree within this fraction ...
_FLATNESS = 0.25
#: ... and lies below this fraction of the strongest sample of its curve.
_DECAYED = 0.1
_PLATEAU_SAMPLES = 4
#: Signal over noise beyond which the Rician mean is its series in (noise/signal)^2.
_FAR = 25.0
_TABLE_STEP = 0.05
#: Noise whose square would vanish is none.
_NONE = 1e-100


def correct_noise_floor(mean_square: ArrayLike, floor_mean_square: ArrayLike) -> Array:
    """Return sqrt(max(E[M^2] - E[floor^2], 0)), a consistent estimate of the signal.

    Parameters
    ----------
    mean_square : array_like
        Mean of the squared magnitude over a region, in signal units squared.
    floor_mean_square : array_like
        The same where there is no signal (2 sigma^2 for one channel), in the same image.

    Returns
    -------
    ndarray
        Signal, >= 0.  NaN stays NaN.

    References
    ----------
    .. [1] Gudbjartsson and Patz, Magn Reson Med 1995, doi:10.1002/mrm.1910340618

    Examples
    --------
    >>> float(correct_noise_floor(25.0, 9.0))
    4.0
    """
    difference = np.asarray(mean_square, dtype=float) - np.asarray(floor_mean_square, dtype=float)
    signal: Array = np.sqrt(np.maximum(difference, 0.0))
    return signal


def corrected_signal_sd(signal: ArrayLike, floor_mean_square: ArrayLike, n_pixels: ArrayLike) -> Array:
    """Standard deviation of :func:`correct_noise_floor` over a region of ``n_pixels``.

    With pixel noise sigma^2 = E[floor^2] / 2 the variance of M^2 is 4 sigma^2 (S^2 + sigma^2), so
    far above the noise this is sigma / sqrt(n).  Towards a null it grows, up to
    sigma sqrt(2) / n^(1/4), because there the square root turns a small error of M^2 into a
    large one of S.  A signal that could be null within its error is treated as one.

    Parameters
    ----------
    signal : array_like
        Corrected signal.
    floor_mean_square : array_like
        Mean square without signal.
    n_pixels : array_like
        Pixels in the region that are independent of each other.
    """
    square = np.asarray(signal, dtype=float) ** 2
    variance = np.asarray(floor_mean_square, dtype=float) / 2
    n = np.asarray(n_pixels, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        square_sd = 2 * np.sqrt(variance * (square + variance) / n)
        lowest = np.maximum(square - square_sd, 0.0)
        # Where the error of the square exceeds the square itself, its root is the scale.
        deviation: Array = square_sd / np.sqrt(4 * lowest + square_sd)
    return deviation


def rician_mean(signal: ArrayLike, noise_sd: ArrayLike) -> tuple[Array, Array, Array]:
    """Mean and variance of a magnitude whose two channels hold Gaussian noise, and the mean's slope.

    Parameters
    ----------
    signal, noise_sd : array_like
        Noise-free magnitude, and standard deviation of one channel (0: no noise).

    Returns
    -------
    mean, slope, variance : ndarray
        ``slope`` is the derivative of the mean by the signal.

    References
    ----------
    .. [1] Gudbjartsson and Patz, Magn Reson Med 1995, doi:10.1002/mrm.1910340618
    """
    from scipy.special import ive

    s, sd = np.broadcast_arrays(np.asarray(signal, dtype=float), np.asarray(noise_sd, dtype=float))
    noisy = sd > _NONE
    ratio = np.divide(s, sd, out=np.full(s.shape, np.inf), where=noisy)
    near = ratio < _FAR
    a = np.where(near, ratio, 0.0) ** 2 / 4
    zero, one = ive(0, a), ive(1, a)
    root = np.sqrt(np.pi / 2)
    mean = root * sd * ((1 + 2 * a) * zero + 2 * a * one)
    slope = root * np.where(near, ratio, 0.0) * (zero + one) / 2
    small = np.where(near, 0.0, 1 / np.where(near, 1.0, ratio)) ** 2
    mean = np.where(near, mean, s * (1 + small / 2 + small**2 / 8))
    slope = np.where(near, slope, 1 - small / 2 - 3 * small**2 / 8)
    # E[M^2] = S^2 + 2 sd^2; far from the floor the difference of squares would be rounding.
    variance = np.where(near, s**2 + 2 * sd**2 - mean**2, sd**2 * (1 - small / 2))
    return mean, slope, variance


@cache
def _excess_table() -> Array:
    """Cubics (4, cells) of the Rician mean less the signal, by cells of ``_TABLE_STEP`` noise."""
    signal = np.arange(0.0, _FAR + 2.5 * _TABLE_STEP, _TABLE_STEP)
    mean, slope, _ = rician_mean(signal, np.ones(signal.shape))
    excess, change = mean - signal, (slope - 1) * _TABLE_STEP
    rise, first, last = np.diff(excess), change[:-1], change[1:]
    return np.stack([excess[:-1], first, 3 * rise - 2 * first - last, first + last - 2 * rise])


def rician_excess(ratio: Array) -> tuple[Array, Array]:
    """Rician mean less the signal, both over the noise, and the slope of the mean, fast.

    For fits that need it for many voxels in every step, where Bessel functions would take most of the time.
    Cubic interpolation, so that value and slope belong to one smooth curve: within 1e-6 up to 25, and
    constant (0.02) beyond.

    Parameters
    ----------
    ratio : ndarray
        Signal over noise, >= 0.
    """
    place = np.minimum(ratio, _FAR) * (1 / _TABLE_STEP)
    cell = place.astype(np.intp)
    place -= cell
    value, first, square, cube = (row.take(cell) for row in _excess_table())
    excess = value + place * (first + place * (square + place * cube))
    slope = 1 + (first + place * (2 * square + 3 * place * cube)) * (1 / _TABLE_STEP)
    return excess, slope


def rician_weight(weight: Array, expected: Array, noise_sd: Array) -> Array:
    """Weights of magnitudes: 1 / variance of one channel, raised where a magnitude scatters less.

    Parameters
    ----------
    weight : ndarray
        Inverse variance of one channel.
    expected : ndarray
        Noise-free magnitude, roughly.
    noise_sd : ndarray
        Standard deviation of one channel in the unit of ``expected``; 0 leaves the weight as it is.
    """
    _, _, variance = rician_mean(expected, noise_sd)
    share = np.divide(variance, noise_sd**2, out=np.ones(weight.shape), where=noise_sd > _NONE)
    return np.asarray(weight / np.clip(share, 0.1, 1.0))


def estimate_noise_floor(signal: ArrayLike) -> float:
    """Noise floor of echo trains, from the curves that have decayed into it.

    The late echoes of a short T2 are a plateau.  It is taken from the last quarter of each curve
    (at least 4 echoes) that is flat and far below the curve's strongest sample; the median of
    these root mean squares is returned.  Use it where the background of the images was zeroed.

    Parameters
    ----------
    signal : array_like, shape (..., n_echoes)
        Region signals in order of echo time, before any correction.

    Returns
    -------
    float
        Floor in signal units; NaN where no curve reaches a plateau.
    """
    curves = np.asarray(signal, dtype=float)
    n = curves.shape[-1]
    curves = curves.reshape(-1, n)
    size = max(n // 4, _PLATEAU_SAMPLES)
    curves = curves[np.isfinite(curves).all(axis=1)]
    if n < 3 * size or not len(curves):
        return float("nan")
    tail = curves[:, -2 * size :]
    early, late = (np.sqrt((part**2).mean(axis=1)) for part in (tail[:, :size], tail[:, size:]))
    flat = (np.abs(early - late) <= _FLATNESS * late) & (late < _DECAYED * curves.max(axis=1)) & (late > 0)
    return float(np.median(late[flat])) if flat.any() else float("nan")
