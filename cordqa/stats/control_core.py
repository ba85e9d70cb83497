"""Control charts of one sequence of measurements: baselines, limits and rules as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.quantiles import t_quantile

__all__ = [
    "RULES",
    "ControlChart",
    "Rule",
    "chart_values",
    "cusum_statistic",
    "ewma_statistic",
    "moving_range_sigma",
    "westgard_rules",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Rule = Literal["shewhart", "ewma", "cusum", "westgard"]
RULES: tuple[Rule, ...] = ("shewhart", "ewma", "cusum", "westgard")

#: Mean range of two normal values in standard deviations.
MOVING_RANGE_CONSTANT = 2.0 / np.sqrt(np.pi)
RECOMMENDED_BASELINE = 20
REQUIRED_BASELINE = 8
SHEWHART_LIMIT = 3.0
EWMA_WEIGHT, EWMA_LIMIT = 0.2, 2.86
CUSUM_SLACK, CUSUM_LIMIT = 0.5, 4.77


def moving_range_sigma(values: FloatArray) -> float:
    """Spread of neighbouring values: mean moving range over 1.128.

    A slow drift of the baseline inflates it little, unlike the standard deviation.

    Parameters
    ----------
    values : ndarray, shape (n,)
        In the order of time, at least two.
    """
    array = np.asarray(values, dtype=float)
    if array.size < 2:
        raise InputError("a moving range needs two values", found=str(array.size))
    return float(np.mean(np.abs(np.diff(array))) / MOVING_RANGE_CONSTANT)


def ewma_statistic(z: FloatArray, *, weight: float = EWMA_WEIGHT) -> FloatArray:
    """Exponentially weighted moving average along the last axis, started at zero."""
    array = np.asarray(z, dtype=float)
    result = np.empty_like(array)
    last = np.zeros(array.shape[:-1])
    for index in range(array.shape[-1]):
        last = weight * array[..., index] + (1.0 - weight) * last
        result[..., index] = last
    return result


def cusum_statistic(z: FloatArray, *, slack: float = CUSUM_SLACK) -> tuple[FloatArray, FloatArray]:
    """Upper and lower cumulative sums along the last axis, both counted positive."""
    array = np.asarray(z, dtype=float)
    upper, lower = np.empty_like(array), np.empty_like(array)
    up, down = np.zeros(array.shape[:-1]), np.zeros(array.shape[:-1])
    for index in range(array.shape[-1]):
        up = np.maximum(0.0, up + array[..., index] - slack)
        down = np.maximum(0.0, down - array[..., index] - slack)
        upper[..., index], lower[..., index] = up, down
    return upper, lower


def westgard_rules(z: FloatArray) -> dict[str, BoolArray]:
    """Multirule of Westgard along the last axis, True where a rule fires.

    ``1-3s`` one beyond three; ``2-2s`` two in a row beyond two on one side; ``R-4s`` two in a row
    beyond two on opposite sides; ``4-1s`` four in a row beyond one on one side; ``10x`` ten in a
    row on one side of the centre.

    References
    ----------
    Westgard J. O. et al. 1981, Clin Chem 27:493.
    """
    array = np.asarray(z, dtype=float)

    def run(condition: BoolArray, length: int) -> BoolArray:
        result = np.zeros(array.shape, dtype=bool)
        if array.shape[-1] >= length:
            windows = np.lib.stride_tricks.sliding_window_view(condition, length, axis=-1)
            result[..., length - 1 :] = windows.all(axis=-1)
        return result

    opposite = np.zeros(array.shape, dtype=bool)
    before, now = array[..., :-1], array[..., 1:]
    opposite[..., 1:] = ((before > 2.0) & (now < -2.0)) | ((before < -2.0) & (now > 2.0))
    return {
        "1-3s": np.abs(array) > 3.0,
        "2-2s": run(array > 2.0, 2) | run(array < -2.0, 2),
        "R-4s": opposite,
        "4-1s": run(array > 1.0, 4) | run(array < -1.0, 4),
        "10x": run(array > 0.0, 10) | run(array < 0.0, 10),
    }


@dataclass(frozen=True, slots=True)
class ControlChart:
    """One sequence against its own baseline.

    Attributes
    ----------
    centre, sigma : float
        Mean and spread of the baseline; NaN where there is none.
    n_baseline : int
    widening : float
        Factor on all limits that allows for a short baseline; 1 from 20 points on.
    z : ndarray, shape (n,)
        Values in baseline spreads from the centre.
    ewma, ewma_limit : ndarray, shape (n,)
        In spreads; NaN within the baseline.
    cusum_high, cusum_low : ndarray, shape (n,)
        NaN within the baseline.
    cusum_limit : float
    signals : dict of str to ndarray of bool, shape (n,)
        Per rule.  Within the baseline only ``shewhart`` is looked at, to judge the baseline.
    reason : str
        Why the chart could not be made; empty where it could.
    """

    centre: float
    sigma: float
    n_baseline: int
    widening: float
    z: FloatArray
    ewma: FloatArray
    ewma_limit: FloatArray
    cusum_high: FloatArray
    cusum_low: FloatArray
    cusum_limit: float
    signals: dict[str, BoolArray]
    reason: str = ""

    @property
    def shewhart_limit(self) -> float:
        """Distance of the Shewhart limits from the centre, in spreads."""
        return SHEWHART_LIMIT * self.widening


def chart_values(
    values: FloatArray,
    *,
    baseline: int = RECOMMENDED_BASELINE,
    rules: Sequence[Rule] = ("shewhart", "ewma", "cusum"),
) -> ControlChart:
    """Judge a sequence of measurements against its first ones.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Finite, in the order of time, from one scanner and one software.
    baseline : int
        How many of the first values make the baseline.  With fewer than 20 the spread is the
        standard deviation and all limits are widened so that a single new value crosses its
        limit as rarely (0.27 %) as with a long baseline: a t prediction interval.  Fewer than 8
        are refused.
    rules : sequence of {'shewhart', 'ewma', 'cusum', 'westgard'}
        Single values beyond three spreads (failures); moving average (weight 0.2, limit 2.86)
        and cumulative sum (slack 0.5, limit 4.77), both good at small lasting shifts; Westgard's
        multirule.

    Returns
    -------
    ControlChart

    References
    ----------
    Montgomery D. C., Introduction to Statistical Quality Control, chapters 6 and 9.
    Lucas J. M., Saccucci M. S. 1990, Technometrics 32:1, doi:10.1080/00401706.1990.10484583.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise InputError("a control chart needs one row of finite values")
    unknown = sorted(set(rules) - set(RULES))
    if unknown:
        raise ConfigError("a rule is not known", found=", ".join(unknown), expected=f"among {RULES}")
    if baseline < REQUIRED_BASELINE:
        raise ConfigError(
            "a baseline needs more values", found=str(baseline), expected=f"at least {REQUIRED_BASELINE}"
        )
    n_baseline = min(baseline, array.size)
    if n_baseline < REQUIRED_BASELINE:
        reason = f"{array.size} values; a baseline needs at least {REQUIRED_BASELINE}"
        return _empty_chart(array.size, n_baseline, reason)
    first = array[:n_baseline]
    centre, sigma, widening = _baseline(first)
    if not sigma > 1e-12 * max(abs(centre), np.finfo(float).tiny):
        return _empty_chart(array.size, n_baseline, "the values of the baseline do not vary")
    return _run_rules((array - centre) / sigma, centre, sigma, widening, n_baseline, rules)


def _baseline(first: FloatArray) -> tuple[float, float, float]:
    """Centre, spread and the factor on the limits."""
    n = first.size
    centre = float(first.mean())
    if n >= RECOMMENDED_BASELINE:
        return centre, moving_range_sigma(first), 1.0
    tail = 2.0 * (1.0 - _normal_cdf(SHEWHART_LIMIT))
    limit = float(t_quantile(1.0 - 0.5 * tail, n - 1)) * np.sqrt(1.0 + 1.0 / n)
    return centre, float(first.std(ddof=1)), limit / SHEWHART_LIMIT


def _normal_cdf(x: float) -> float:
    from statistics import NormalDist

    return NormalDist().cdf(x)


def _run_rules(
    z: FloatArray,
    centre: float,
    sigma: float,
    widening: float,
    n_baseline: int,
    rules: Sequence[Rule],
) -> ControlChart:
    watched = np.arange(z.size) >= n_baseline
    signals: dict[str, BoolArray] = {"shewhart": np.abs(z) > SHEWHART_LIMIT * widening}
    ewma, limit, up, down = (np.full(z.size, np.nan) for _ in range(4))
    steps = np.arange(1, z.size - n_baseline + 1)
    ewma[watched] = ewma_statistic(z[watched])
    spread = np.sqrt(EWMA_WEIGHT / (2.0 - EWMA_WEIGHT) * (1.0 - (1.0 - EWMA_WEIGHT) ** (2 * steps)))
    limit[watched] = EWMA_LIMIT * widening * spread
    up[watched], down[watched] = cusum_statistic(z[watched])
    signals["ewma"] = watched & (np.abs(np.nan_to_num(ewma)) > np.nan_to_num(limit, nan=np.inf))
    highest = np.nan_to_num(np.fmax(up, down))
    signals["cusum"] = watched & (highest > CUSUM_LIMIT * widening)
    westgard = np.zeros(z.size, dtype=bool)
    for fired in westgard_rules(z[watched] / widening).values():
        westgard[watched] |= fired
    signals["westgard"] = westgard
    kept = {name: fired for name, fired in signals.items() if name in rules}
    return ControlChart(
        centre, sigma, n_baseline, widening, z, ewma, limit, up, down, CUSUM_LIMIT * widening, kept
    )


def _empty_chart(n: int, n_baseline: int, reason: str) -> ControlChart:
    nothing = np.full(n, np.nan)
    return ControlChart(
        np.nan, np.nan, n_baseline, np.nan, nothing, nothing, nothing, nothing, nothing, np.nan, {}, reason
    )
