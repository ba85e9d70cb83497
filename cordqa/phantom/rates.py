"""Relaxation rate against concentration: a check that needs no reference value.

In a dilute solution of paramagnetic ions ``1/T = R0 + r c``.  A measurement that bends this line
(noise floor, clipping, a range of times too short, swapped spheres) shows without any certificate;
one that is wrong by a common factor does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError

__all__ = ["RateLinearity", "check_rate_linearity"]

#: Scatter in per cent that every point is given besides its own uncertainty, so that a sphere
#: with a very small one does not pull the line alone (a choice of cordqa).
COMMON_SCATTER_PERCENT = 2.0
#: Fewest spheres, and fewest different concentrations, for a line with two parameters to be tested.
MIN_SPHERES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLinearity:
    """Straight line through relaxation rates.

    Attributes
    ----------
    relaxivity_per_s_per_mM, rate0_per_s : float
        Slope and intercept, each with a standard error from the scatter about the line.
    rms_percent : float
        Root of the sum of squared relative residuals over n - 2.
    residuals_percent : ndarray, shape (n,)
        ``100 (R - fit) / fit`` per sphere; NaN for a sphere that was left out.
    left_out_percent : ndarray, shape (n,)
        The same against the line through the other spheres: a single bad sphere stands out here.
    n : int
        Spheres in the fit.
    reason : str
        Why there is no result; then all numbers are NaN.
    """

    relaxivity_per_s_per_mM: float
    relaxivity_error: float
    rate0_per_s: float
    rate0_error: float
    rms_percent: float
    residuals_percent: NDArray[np.float64]
    left_out_percent: NDArray[np.float64]
    n: int
    reason: str = ""


def check_rate_linearity(
    concentrations_mM: ArrayLike, values_ms: ArrayLike, standard_uncertainties_ms: ArrayLike | None = None
) -> RateLinearity:
    """Fit a straight line to relaxation rate against concentration.

    The fit is weighted by the relative uncertainty of each rate, so that all decades count alike
    (iteratively, with the fitted rate as the scale, which keeps it unbiased).

    Parameters
    ----------
    concentrations_mM : array_like, shape (n,)
        Concentration per sphere; NaN leaves the sphere out.
    values_ms : array_like, shape (n,)
        T1 or T2 per sphere; NaN or a value that is not positive leaves the sphere out.  Give NaN
        for spheres outside the protocol's range.
    standard_uncertainties_ms : array_like, shape (n,), optional
        One standard deviation of each value; where it is not a number the sphere gets the common
        scatter only.

    Returns
    -------
    RateLinearity
        With NaN numbers and a reason for fewer than four usable spheres or concentrations.

    Raises
    ------
    ConfigError
        If the arrays differ in shape or are not one-dimensional.

    Examples
    --------
    >>> line = check_rate_linearity([0.3, 1, 3, 10], [1000 / (0.3 + 0.65 * c) for c in (0.3, 1, 3, 10)])
    >>> round(line.relaxivity_per_s_per_mM, 6), round(line.rate0_per_s, 6), line.rms_percent < 1e-9
    (0.65, 0.3, True)
    """
    concentrations, values, errors = _arrays(concentrations_mM, values_ms, standard_uncertainties_ms)
    used = np.isfinite(concentrations) & (concentrations >= 0) & np.isfinite(values) & (values > 0)
    if used.sum() < MIN_SPHERES or np.unique(concentrations[used]).size < MIN_SPHERES:
        return _nothing(values.size, int(used.sum()), f"fewer than {MIN_SPHERES} usable concentrations")
    rates = 1000 / values[used]
    relative = np.where(np.isfinite(errors[used]) & (errors[used] > 0), errors[used] / values[used], 0.0)
    scatter = np.hypot(relative, COMMON_SCATTER_PERCENT / 100)
    design = np.column_stack([np.ones_like(rates), concentrations[used]])
    line, fitted, hat = _fit(design, rates, scatter)
    if not np.all(fitted > 0):
        return _nothing(values.size, rates.size, "the straight line reaches rates below zero")
    residuals = 100 * (rates - fitted) / fitted
    rms = math.sqrt(float(np.sum(residuals**2)) / (rates.size - 2))
    # For a linear fit the residual of a left-out point follows from its leverage.
    left_out = residuals / np.maximum(1 - hat, 1e-12)
    weighted = (rates - fitted) / (fitted * scatter)
    variance = float(np.sum(weighted**2)) / (rates.size - 2)
    scaled = design / (fitted * scatter)[:, None]
    covariance = np.linalg.pinv(scaled.T @ scaled) * variance
    return RateLinearity(
        relaxivity_per_s_per_mM=float(line[1]),
        relaxivity_error=math.sqrt(covariance[1, 1]),
        rate0_per_s=float(line[0]),
        rate0_error=math.sqrt(covariance[0, 0]),
        rms_percent=rms,
        residuals_percent=_spread(residuals, used),
        left_out_percent=_spread(left_out, used),
        n=int(rates.size),
    )


def _arrays(
    concentrations: ArrayLike, values: ArrayLike, errors: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    c, v = np.asarray(concentrations, dtype=float), np.asarray(values, dtype=float)
    e = np.full(v.shape, np.nan) if errors is None else np.asarray(errors, dtype=float)
    if c.ndim != 1 or c.shape != v.shape or e.shape != v.shape:
        raise ConfigError(
            "concentrations, values and uncertainties must be lists of one length",
            where="rate linearity",
            found=f"shapes {c.shape}, {v.shape}, {e.shape}",
        )
    return c, v, e


def _fit(
    design: NDArray[np.float64], rates: NDArray[np.float64], scatter: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weighted least squares with the fitted rate as scale; returns line, fitted rates and leverages."""
    scale: NDArray[np.float64] = rates
    line: NDArray[np.float64] = np.zeros(2)
    weighted = design
    for _ in range(20):
        weighted = design / (scale * scatter)[:, None]
        solution = np.linalg.lstsq(weighted, rates / (scale * scatter), rcond=None)[0]
        new_line = np.asarray(solution, dtype=np.float64)
        fitted = design @ new_line
        done = np.allclose(new_line, line, rtol=1e-12, atol=0)
        line = new_line
        if done or not np.all(fitted > 0):
            break
        scale = fitted
    leverage = np.einsum("ij,ji->i", weighted, np.linalg.pinv(weighted))
    return line, design @ line, leverage


def _spread(values: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    out = np.full(used.shape, np.nan)
    out[used] = values
    return out


def _nothing(size: int, n: int, reason: str) -> RateLinearity:
    nan = math.nan
    return RateLinearity(
        relaxivity_per_s_per_mM=nan,
        relaxivity_error=nan,
        rate0_per_s=nan,
        rate0_error=nan,
        rms_percent=nan,
        residuals_percent=np.full(size, nan),
        left_out_percent=np.full(size, nan),
        n=n,
        reason=reason,
    )
