"""Moments of a magnitude in one-channel (Rician) noise.

Of a signal S in noise of standard deviation sigma per channel, with x = S^2 / (2 sigma^2):
E[M] = sigma sqrt(pi / 2) L(x), L(x) = exp(-x / 2) [(1 + x) I0(x / 2) + x I1(x / 2)], and
E[M^2] = S^2 + 2 sigma^2 (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["rician_moments"]

Array = NDArray[np.float64]

#: Signals above this many standard deviations take the asymptotic series: the exact variance is a
#: difference of large squares there.
_FAR = 20.0


def rician_moments(signal: ArrayLike, noise_sd: ArrayLike) -> tuple[Array, Array, Array]:
    """Mean of the magnitude, its derivative by the signal, and the variance.

    Parameters
    ----------
    signal : array_like
        Signal without noise, >= 0.
    noise_sd : array_like
        Standard deviation per channel, > 0; broadcast against the signal.

    Returns
    -------
    mean, slope, variance : ndarray
        In units of the signal, without unit, and in squared units.

    Examples
    --------
    >>> mean, slope, variance = rician_moments(0.0, 1.0)
    >>> round(float(mean), 4), float(slope), round(float(variance), 4)
    (1.2533, 0.0, 0.4292)
    """
    from scipy.special import i0e, i1e

    sigma = np.asarray(noise_sd, dtype=float)
    ratio = np.abs(np.asarray(signal, dtype=float)) / sigma
    near = np.minimum(ratio, _FAR)
    x = near**2 / 4
    zeroth, first = i0e(x), i1e(x)
    mean = np.sqrt(np.pi / 2) * ((1 + 2 * x) * zeroth + 2 * x * first)
    slope = np.sqrt(np.pi / 2) * near / 2 * (zeroth + first)
    variance = near**2 + 2 - mean**2
    far = ratio > _FAR
    inverse = 1 / np.maximum(ratio, _FAR) ** 2
    mean = np.where(far, ratio * (1 + inverse / 2 + inverse**2 / 8), mean)
    slope = np.where(far, 1 - inverse / 2 - 3 * inverse**2 / 8, slope)
    variance = np.where(far, 1 - inverse / 2 - inverse**2 / 2, variance)
    return mean * sigma, slope, variance * sigma**2
