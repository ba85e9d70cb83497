"""Smooth interpolation of certified values between the temperatures of a certificate.

The logarithm of the value is interpolated with a monotone piecewise cubic (PCHIP): exact at the
tabulated temperatures, continuous in value and slope, and never outside the two neighbouring
values, so that the noise of a certificate cannot make it overshoot.  The logarithm makes the
slope a relative change, which is what temperature does to a relaxation time.

References
----------
Fritsch FN, Carlson RE. Monotone piecewise cubic interpolation. SIAM J Numer Anal 1980;17:238-246.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MARGIN_C", "MAX_GAP_C", "Interpolated", "interpolate_log"]

#: How far outside the tabulated range, or from a tabulated value inside a wide gap, a value is
#: still given.  One degree is what a thermometer in a scanner room may be wrong by.
MARGIN_C = 1.0
#: Between tabulated temperatures further apart than this nothing is interpolated.
MAX_GAP_C = 5.0


class Interpolated(NamedTuple):
    """Value at one temperature.

    Attributes
    ----------
    value : float
        NaN where the table does not reach.
    slope : float
        Relative change per degree (1/C); NaN where the table has one temperature only.
    spread : float
        Relative standard uncertainty of the interpolation itself: the difference from straight
        lines inside the table, the whole extrapolated change outside it, 0 at a tabulated
        temperature.
    method : str
        ``"tabulated"``, ``"interpolated"``, ``"extrapolated"``, ``"held"`` (the only tabulated
        value, within :data:`MARGIN_C`) or ``"out of range"``.
    """

    value: float
    slope: float
    spread: float
    method: str


def interpolate_log(
    temperatures_C: NDArray[np.float64], values: NDArray[np.float64], temperature_C: float
) -> Interpolated:
    """Interpolate positive values at one temperature.

    Parameters
    ----------
    temperatures_C : ndarray, shape (n,)
        Rising temperatures.
    values : ndarray, shape (n,)
        Positive values.
    temperature_C : float
        Where to interpolate.

    Returns
    -------
    Interpolated
        With a NaN value more than :data:`MARGIN_C` outside the table, or inside a gap wider than
        :data:`MAX_GAP_C` and further than :data:`MARGIN_C` from both its ends.
    """
    out = Interpolated(np.nan, np.nan, np.nan, "out of range")
    if not np.isfinite(temperature_C) or not _reached(temperatures_C, temperature_C):
        return out
    logs = np.log(values)
    if temperatures_C.size == 1:
        exact = temperature_C == temperatures_C[0]
        return Interpolated(float(values[0]), np.nan, 0.0, "tabulated" if exact else "held")
    slopes = _pchip_slopes(temperatures_C, logs)
    nearest = float(np.clip(temperature_C, temperatures_C[0], temperatures_C[-1]))
    log_value, slope, linear = _cubic(temperatures_C, logs, slopes, nearest)
    if nearest != temperature_C:
        change = slope * (temperature_C - nearest)
        return Interpolated(float(np.exp(log_value + change)), slope, abs(change), "extrapolated")
    if temperature_C in temperatures_C:
        value = float(values[np.searchsorted(temperatures_C, temperature_C)])
        return Interpolated(value, slope, 0.0, "tabulated")
    return Interpolated(float(np.exp(log_value)), slope, abs(log_value - linear), "interpolated")


def _reached(temperatures_C: NDArray[np.float64], temperature_C: float) -> bool:
    """Tell whether the table says something about this temperature."""
    distance = float(np.min(np.abs(temperatures_C - temperature_C)))
    if distance <= MARGIN_C:
        return True
    if not temperatures_C[0] < temperature_C < temperatures_C[-1]:
        return False
    above = int(np.searchsorted(temperatures_C, temperature_C))
    return bool(temperatures_C[above] - temperatures_C[above - 1] <= MAX_GAP_C)


def _cubic(
    x: NDArray[np.float64], y: NDArray[np.float64], slopes: NDArray[np.float64], at: float
) -> tuple[float, float, float]:
    """Evaluate the cubic Hermite piece that holds ``at``: value, slope, and the straight line's value."""
    i = int(np.clip(np.searchsorted(x, at, side="right") - 1, 0, x.size - 2))
    h = x[i + 1] - x[i]
    t = (at - x[i]) / h
    rise = (y[i + 1] - y[i]) / h
    c2 = (3 * rise - 2 * slopes[i] - slopes[i + 1]) / h
    c3 = (slopes[i] + slopes[i + 1] - 2 * rise) / h**2
    d = at - x[i]
    value = y[i] + d * (slopes[i] + d * (c2 + d * c3))
    return float(value), float(slopes[i] + d * (2 * c2 + 3 * d * c3)), float(y[i] + t * (y[i + 1] - y[i]))


def _pchip_slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the slope at each point that keeps every piece monotone."""
    h = np.diff(x)
    rise = np.diff(y) / h
    if x.size == 2:
        return np.repeat(rise, 2)
    slopes = np.zeros_like(y)
    left, right = rise[:-1], rise[1:]
    same = left * right > 0
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    # Weighted harmonic mean; a turning point gets slope zero.
    safe_left, safe_right = np.where(same, left, 1.0), np.where(same, right, 1.0)
    slopes[1:-1] = np.where(same, (w1 + w2) / (w1 / safe_left + w2 / safe_right), 0.0)
    slopes[0] = _end_slope(h[0], h[1], rise[0], rise[1])
    slopes[-1] = _end_slope(h[-1], h[-2], rise[-1], rise[-2])
    return slopes


def _end_slope(h0: float, h1: float, rise0: float, rise1: float) -> float:
    """Three-point slope at an end, limited so that the last piece stays monotone."""
    slope = ((2 * h0 + h1) * rise0 - h0 * rise1) / (h0 + h1)
    if slope * rise0 <= 0:
        return 0.0
    if rise0 * rise1 < 0 and abs(slope) > 3 * abs(rise0):
        return 3 * rise0
    return float(slope)
