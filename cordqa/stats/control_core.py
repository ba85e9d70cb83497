"""Control charts of one sequence of measurements: baselines, limits and rules as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.quantiles import t_quantile

__all__ = [
    "RULES",
    "ControlChart",
    "Limits",
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
Limits = Literal["prediction", "plain"]
RULES: tuple[Rule, ...] = ("shewhart", "ewma", "cusum", "westgard")

#: Mean range of two normal values in standard deviations.
MOVING_RANGE_CONSTANT = 2.0 / np.sqrt(np.pi)
#: Degrees of freedom of the moving-range spread over those of a standard deviation: the
#: variance of the mean of neighbouring ranges of normal values, which overlap.
MOVING_RANGE_EFFICIENCY = 0.605
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
    centre, sigma : ndarray, shape (n,)
        Mean and spread that each value is judged by, from the values before it.  For the first
        eight, those of the baseline they are part of.
    reach : ndarray, shape (n,)
        Distance of the Shewhart limits from the centre, in the unit of the values.
    role : ndarray of str, shape (n,)
        ``baseline``: the first eight.  ``learning``: judged by those before, then part of the
        baseline.  ``monitored``: judged by the complete baseline.
    z : ndarray, shape (n,)
        Normal scores: standard normal while nothing changes, also with a short baseline.
    ewma, ewma_limit, cusum_high, cusum_low : ndarray, shape (n,)
        In normal scores; NaN for the first eight.
    excluded : ndarray of bool, shape (n,)
        Values while learning that crossed a Shewhart limit and so did not enter the baseline.
    signals : dict of str to ndarray of bool, shape (n,)
        Per rule.
    unstable : bool
        Whether a value of the complete baseline lies beyond the limits made from it.
    reason : str
        Why the chart could not be made; empty where it could.
    """

    centre: FloatArray
    sigma: FloatArray
    reach: FloatArray
    role: NDArray[np.str_]
    z: FloatArray
    ewma: FloatArray
    ewma_limit: FloatArray
    cusum_high: FloatArray
    cusum_low: FloatArray
    excluded: BoolArray
    signals: dict[str, BoolArray]
    unstable: bool = False
    reason: str = ""


def chart_values(
    values: FloatArray,
    *,
    baseline: int = RECOMMENDED_BASELINE,
    rules: Sequence[Rule] = ("shewhart", "ewma", "cusum"),
    limits: Limits = "prediction",
) -> ControlChart:
    """Judge a sequence of measurements by those before.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Finite, in the order of time, from one scanner and one software.
    baseline : int
        How many of the first values make the complete baseline; at least 8, and 20 recommended.
        A complete baseline of 20 or more gives mean and moving range over 1.128; until then, from
        the ninth value on, every value is judged by mean and standard deviation of all before.
    rules : sequence of {'shewhart', 'ewma', 'cusum', 'westgard'}
        Single values beyond the limits (failures); moving average (weight 0.2, limit 2.86) and
        cumulative sum (slack 0.5, limit 4.77), both good at small lasting shifts; Westgard's
        multirule.  The limits of the moving average allow for the error of the baseline's mean;
        the cumulative sum takes that error for a shift and gives about twice as many false
        alarms with 20 values as with a baseline known exactly.
    limits : {'prediction', 'plain'}
        ``prediction`` (default): t prediction limits, which a new value crosses as rarely (0.27 %)
        as the textbook says; they come near three spreads as the baseline grows.  ``plain``: three
        spreads whatever the baseline, which with 20 values gives four times as many false alarms.

    Returns
    -------
    ControlChart

    References
    ----------
    Montgomery D. C., Introduction to Statistical Quality Control, chapters 6 and 9.
    Lucas J. M., Saccucci M. S. 1990, Technometrics 32:1, doi:10.1080/00401706.1990.10484583.
    Hawkins D. M. 1987, The Statistician 36:299, doi:10.2307/2348827 (self-starting charts).
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
    if limits not in ("prediction", "plain"):
        raise ConfigError("limits must be 'prediction' or 'plain'", found=str(limits))
    if array.size < REQUIRED_BASELINE:
        return _empty_chart(array.size, f"{array.size} values; a baseline needs {REQUIRED_BASELINE}")
    first = array[:REQUIRED_BASELINE]
    if not first.std() > 1e-12 * max(abs(float(first.mean())), np.finfo(float).tiny):
        return _empty_chart(array.size, "the first values do not vary")
    return _judge(array, baseline, rules, limits)


def _judge(array: FloatArray, baseline: int, rules: Sequence[Rule], limits: Limits) -> ControlChart:
    n = array.size
    centre, sigma, reach, z = _blank(n)
    excluded = np.zeros(n, dtype=bool)
    role = np.where(np.arange(n) < REQUIRED_BASELINE, "baseline", "learning").astype("<U16")
    used = list(range(REQUIRED_BASELINE))
    index = REQUIRED_BASELINE
    while index < n and len(used) < baseline:
        here = slice(index, index + 1)
        centre[here], sigma[here], reach[here], z[here] = _predict(array[here], array[used], limits)
        excluded[index] = abs(z[index]) > SHEWHART_LIMIT
        used += [] if excluded[index] else [index]
        index += 1
    own, rest, start = array[used], slice(index, n), slice(0, REQUIRED_BASELINE)
    role[rest] = "monitored"
    centre[rest], sigma[rest], reach[rest], z[rest] = _predict(array[rest], own, limits)
    centre[start], sigma[start], reach[start], z[start] = _predict(array[start], own, limits)
    unstable = len(own) >= RECOMMENDED_BASELINE and bool(np.any(np.abs(own - centre[0]) > reach[0]))
    chart = ControlChart(centre, sigma, reach, role, z, *_blank(n), excluded, {}, unstable)
    return _run_rules(chart, rules, 0 if limits == "plain" else len(own))


def _predict(values: FloatArray, known: FloatArray, limits: Limits) -> tuple[float, float, float, FloatArray]:
    """Centre, spread and distance of the limits from earlier values, and normal scores of new ones."""
    from scipy.special import ndtri_exp, stdtr

    n = known.size
    centre, freedom = float(known.mean()), n - 1.0
    if n >= RECOMMENDED_BASELINE:
        sigma, freedom = moving_range_sigma(known), MOVING_RANGE_EFFICIENCY * (n - 1.0)
    else:
        sigma = float(known.std(ddof=1))
    if limits == "plain":
        return centre, sigma, SHEWHART_LIMIT * sigma, (values - centre) / sigma
    spread = sigma * np.sqrt(1.0 + 1.0 / n)
    reach = float(t_quantile(NormalDist().cdf(SHEWHART_LIMIT), freedom)) * spread
    # Through the lower tail's logarithm, so that a gross failure keeps a finite score.
    tail = stdtr(freedom, -np.abs(values - centre) / spread)
    score = -ndtri_exp(np.log(np.maximum(tail, 1e-300)))
    return centre, sigma, reach, np.asarray(np.copysign(score, values - centre))


def _blank(n: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    return np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)


def _run_rules(chart: ControlChart, rules: Sequence[Rule], n_baseline: int) -> ControlChart:
    """Fill in moving average, cumulative sums and signals."""
    watched = slice(REQUIRED_BASELINE, chart.z.size)
    z = chart.z[watched]
    chart.ewma[watched] = ewma_statistic(z)
    chart.ewma_limit[watched] = EWMA_LIMIT * _ewma_spread(chart.role[watched] == "monitored", n_baseline)
    chart.cusum_high[watched], chart.cusum_low[watched] = cusum_statistic(z)
    found = {
        "shewhart": np.abs(z) > SHEWHART_LIMIT,
        "ewma": np.abs(chart.ewma[watched]) > chart.ewma_limit[watched],
        "cusum": np.maximum(chart.cusum_high[watched], chart.cusum_low[watched]) > CUSUM_LIMIT,
        "westgard": np.any(list(westgard_rules(z).values()), axis=0),
    }
    for name in rules:
        chart.signals[name] = np.concatenate([np.zeros(REQUIRED_BASELINE, dtype=bool), found[name]])
    return chart


def _ewma_spread(monitored: BoolArray, n_baseline: int) -> FloatArray:
    """Standard deviation of the moving average of normal scores.

    The scores of monitored values share the error of one baseline mean, which an average does
    not reduce; ``n_baseline`` of zero stands for a baseline known exactly.
    """
    steps = np.arange(1, monitored.size + 1)
    own = EWMA_WEIGHT / (2.0 - EWMA_WEIGHT) * (1.0 - (1.0 - EWMA_WEIGHT) ** (2 * steps))
    if not n_baseline:
        return np.asarray(np.sqrt(own))
    shared = 1.0 - (1.0 - EWMA_WEIGHT) ** np.cumsum(monitored)
    return np.asarray(np.sqrt(own + shared**2 / n_baseline))


def _empty_chart(n: int, reason: str) -> ControlChart:
    nothing = np.full(n, np.nan)
    role = np.full(n, "not evaluated")
    none = np.zeros(n, dtype=bool)
    return ControlChart(nothing, nothing, nothing, role, nothing, *_blank(n), none, {}, False, reason)
