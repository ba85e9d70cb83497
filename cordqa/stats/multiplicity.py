"""Many regions at once: false discovery rate, and intervals that hold for all together.

Regions share their subjects, so a bootstrap has to draw subjects, with all their regions, and
not rows.

Benjamini Y, Hochberg Y. J R Stat Soc B 1995;57:289. doi:10.1111/j.2517-6161.1995.tb02031.x
Benjamini Y, Yekutieli D. Ann Stat 2001;29:1165. doi:10.1214/aos/1013699998
Westfall PH, Young SS. Resampling-Based Multiple Testing. Wiley 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.quantiles import t_quantile
from cordqa.stats.table import as_names, check_choice, check_columns, check_level

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Simultaneous", "adjust_p", "false_discovery_rate", "simultaneous_intervals"]

Array = NDArray[np.float64]
Transform = Literal["identity", "log", "fisher"]


def false_discovery_rate(
    p: ArrayLike, *, method: Literal["bh", "by"] = "bh", axis: int | None = None
) -> Array:
    """Return p-values adjusted for the false discovery rate.

    Parameters
    ----------
    p : array-like
        p-values between 0 and 1; NaN (nothing was tested) stay NaN and do not count.
    method : {'bh', 'by'}
        Benjamini-Hochberg, valid for independent or positively dependent tests (regions of
        one cord), or Benjamini-Yekutieli, for any dependence.
    axis : int, optional
        Family of tests; default is all values together.

    Raises
    ------
    InputError
        If a p-value lies outside 0 to 1.
    """
    check_choice(method, ("bh", "by"), name="method")
    values = np.asarray(p, dtype=float)
    if np.any((values < 0) | (values > 1)):
        raise InputError("p-values must lie between 0 and 1")
    if axis is None:
        return _adjust(values.reshape(1, -1), method).reshape(values.shape)
    moved = np.moveaxis(values, axis, -1)
    flat = _adjust(moved.reshape(-1, moved.shape[-1]), method)
    return np.moveaxis(flat.reshape(moved.shape), -1, axis)


def _adjust(p: Array, method: str) -> Array:
    """Adjust along rows: running minimum, from the largest p down, of p m / rank."""
    count = np.isfinite(p).sum(axis=1, keepdims=True)
    order = np.argsort(p, axis=1)  # NaN last
    ranked = np.take_along_axis(p, order, axis=1)
    rank = np.arange(1, p.shape[1] + 1)
    factor = 1.0 if method == "bh" else np.cumsum(1.0 / rank)[np.maximum(count - 1, 0)]
    scaled = np.where(np.isfinite(ranked), ranked * count * factor / rank, np.inf)
    running = np.minimum.accumulate(scaled[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(running, 1.0), axis=1)
    return np.where(np.isfinite(p), adjusted, math.nan)


def adjust_p(
    table: pd.DataFrame,
    *,
    family: str | Sequence[str] | None = "statistic",
    p: str = "p",
    method: Literal["bh", "by"] = "bh",
) -> pd.DataFrame:
    """Return a table of statistics with the column ``p_fdr``.

    Parameters
    ----------
    table : DataFrame
        With a column of p-values, for example from :func:`~cordqa.stats.icc.icc`.
    family : str or sequence of str, optional
        Columns that separate the families of tests; None is one family for the whole table.
    p : str
        Column of p-values.
    method : {'bh', 'by'}
        See :func:`false_discovery_rate`.
    """
    names = as_names(family)
    check_columns(table, [p, *names])
    values = table[p].to_numpy(dtype=float)
    adjusted = np.full(values.size, math.nan)
    if names:
        codes = table.groupby(names, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    else:
        codes = np.zeros(values.size, dtype=np.int64)
    for code in np.unique(codes):
        inside = codes == code
        adjusted[inside] = false_discovery_rate(values[inside], method=method)
    return table.assign(p_fdr=adjusted)


class Simultaneous(NamedTuple):
    """Estimates with pointwise and simultaneous intervals, arrays of shape (n_regions,)."""

    value: Array
    low: Array
    high: Array
    pointwise_low: Array
    pointwise_high: Array
    critical: float
    n_subjects: int
    n_samples: int


def simultaneous_intervals(
    values: ArrayLike,
    statistic: Callable[[Array], Array],
    *,
    transform: Transform = "identity",
    level: float = 0.95,
    n_samples: int = 1000,
    seed: int = 0,
) -> Simultaneous:
    """Return intervals that all hold together with the given confidence (bootstrap max-t).

    Subjects are drawn with replacement, with all their regions; the critical value is the
    quantile of the largest standardised deviation over regions.

    Parameters
    ----------
    values : array-like, shape (n_regions, n_subjects, ...)
        All regions of the same subjects; further axes are scanners and replicates.
    statistic : callable
        Takes an array of this shape (n_subjects may hold repeats of a subject) and returns
        (n_regions,).
    transform : {'identity', 'log', 'fisher'}
        Scale on which the statistic is roughly normal: ``log`` for SD, RC and CV, ``fisher``
        for correlations and ICC.
    level : float
        Confidence level, of all intervals together.
    n_samples : int
        Bootstrap samples, at least 200.
    seed : int
        Seed.

    Returns
    -------
    Simultaneous
        NaN in regions whose statistic is not finite.  The critical value is never below the
        pointwise t quantile, since the bootstrap of few subjects is too narrow.

    Raises
    ------
    InputError
        If there are fewer than three subjects.
    """
    check_level(level)
    forward, back = _transforms(transform)
    y = np.asarray(values, dtype=float)
    if y.ndim < 2 or y.shape[1] < 3:
        raise InputError(
            "a bootstrap over subjects needs at least three of them",
            found=f"an array of shape {y.shape}",
            expected="(n_regions, n_subjects, ...)",
        )
    if n_samples < 200:
        raise ConfigError("too few bootstrap samples for an interval", found=str(n_samples), expected="200")
    n = y.shape[1]
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = forward(np.asarray(statistic(y), dtype=float))
        draws = np.stack(
            [
                forward(np.asarray(statistic(y[:, rng.integers(0, n, n)]), dtype=float))
                for _ in range(n_samples)
            ]
        )
    draws = np.where(np.isfinite(draws), draws, math.nan)
    usable = np.isfinite(estimate) & (np.isfinite(draws).mean(axis=0) > 0.9)
    se = np.full(estimate.shape, math.nan)
    # The spread of a bootstrap of n subjects is that of dividing by n.
    se[usable] = np.nanstd(draws[:, usable], axis=0, ddof=1) * math.sqrt(n / (n - 1.0))
    point = float(t_quantile(0.5 + level / 2.0, n - 1.0))
    critical = max(point, _max_deviation(draws, estimate, se, usable, level))
    low, high = back(estimate - critical * se), back(estimate + critical * se)
    return Simultaneous(
        value=back(estimate),
        low=low,
        high=high,
        pointwise_low=back(estimate - point * se),
        pointwise_high=back(estimate + point * se),
        critical=critical,
        n_subjects=n,
        n_samples=n_samples,
    )


def _max_deviation(
    draws: Array, estimate: Array, se: Array, usable: NDArray[np.bool_], level: float
) -> float:
    varying = usable & (se > 0)
    if not varying.any():
        return 0.0
    deviation = np.abs(draws[:, varying] - np.nanmean(draws[:, varying], axis=0)) / se[varying]
    largest = np.nanmax(np.where(np.isfinite(deviation), deviation, 0.0), axis=1)
    return float(np.quantile(largest, level))


def _transforms(name: str) -> tuple[Callable[[Any], Array], Callable[[Any], Array]]:
    pairs: dict[str, tuple[Callable[[Any], Array], Callable[[Any], Array]]] = {
        "identity": (np.asarray, np.asarray),
        "log": (np.log, np.exp),
        "fisher": (np.arctanh, np.tanh),
    }
    check_choice(name, pairs, name="transform")
    return pairs[name]
