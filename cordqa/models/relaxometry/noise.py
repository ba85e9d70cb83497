"""Magnitude noise: how to take it out of a signal, and how certain the rest is.

For a magnitude image M of a signal S, in any number of channels, E[M^2] = S^2 + E[floor^2], where
the floor is the magnitude where there is no signal.  Squares therefore correct exactly; means of
magnitudes do not (near a null their error is larger than the noise).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["correct_noise_floor", "corrected_signal_sd", "estimate_noise_floor"]

Array = NDArray[np.float64]

#: A plateau is flat when its halves agree within this fraction ...
_FLATNESS = 0.25
#: ... and lies below this fraction of the strongest sample of its curve.
_DECAYED = 0.1
_PLATEAU_SAMPLES = 4


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
