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
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.table import as_names, check_choice, check_columns, check_level

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Simultaneous",
    "adjust_p",
    "false_discovery_rate",
    "simultaneous_intervals",
    "simultaneous_level",
]

Array = NDArray[np.float64]


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
    """Estimates with pointwise and simultaneous intervals, arrays of shape (n_regions,).

    ``pointwise_level`` is the level at which each interval had to be computed so that all of
    them hold together.
    """

    value: Array
    low: Array
    high: Array
    pointwise_low: Array
    pointwise_high: Array
    pointwise_level: float
    n_subjects: int
    n_samples: int


def simultaneous_intervals(
    values: ArrayLike,
    estimate: Callable[[Array, float], tuple[Array, Array, Array]],
    *,
    level: float = 0.95,
    n_samples: int = 1000,
    seed: int = 0,
) -> Simultaneous:
    """Return intervals that all hold together with the given confidence.

    How much the regions move together is found by drawing subjects, with all their regions
    (:func:`simultaneous_level`); the intervals themselves are those of ``estimate``, which are
    better for few subjects than anything a bootstrap can give.

    Parameters
    ----------
    values : array-like, shape (n_regions, n_subjects, ...)
        All regions of the same subjects; further axes are scanners and replicates.
    estimate : callable
        Takes such an array and a confidence level, returns value, low and high, each of shape
        (n_regions,).
    level : float
        Confidence level of all intervals together.
    n_samples : int
        Bootstrap samples, at least 200.
    seed : int
        Seed.

    Raises
    ------
    InputError
        If there are fewer than three subjects.

    Examples
    --------
    >>> from cordqa.stats.repeatability_core import repeatability_arrays
    >>> def wsd(values, level):
    ...     found = repeatability_arrays(values, level=level)
    ...     return found.wsd, found.wsd_low, found.wsd_high
    >>> values = 50 + np.random.default_rng(0).normal(size=(4, 12, 2))
    >>> found = simultaneous_intervals(values, wsd)
    >>> bool((found.low < found.pointwise_low).all())
    True
    """
    y = np.asarray(values, dtype=float)
    each = simultaneous_level(y, lambda v: estimate(v, level)[0], level=level, n_samples=n_samples, seed=seed)
    value, low, high = estimate(y, each)
    _, pointwise_low, pointwise_high = estimate(y, level)
    return Simultaneous(value, low, high, pointwise_low, pointwise_high, each, y.shape[1], n_samples)


def simultaneous_level(
    values: ArrayLike,
    statistic: Callable[[Array], Array],
    *,
    level: float = 0.95,
    n_samples: int = 1000,
    seed: int = 0,
) -> float:
    """Return the level of each interval at which all intervals hold together.

    Parameters
    ----------
    values : array-like, shape (n_regions, n_subjects, ...)
        All regions of the same subjects.
    statistic : callable
        Takes such an array, returns (n_regions,).
    level, n_samples, seed
        As in :func:`simultaneous_intervals`.

    Returns
    -------
    float
        Between ``level`` (regions that move as one) and 1 - (1 - level) / n_regions
        (Bonferroni, the most that any dependence can ask for).
    """
    check_level(level)
    y = np.asarray(values, dtype=float)
    if y.ndim < 2 or y.shape[1] < 3:
        raise InputError(
            "a bootstrap over subjects needs at least three of them",
            found=f"an array of shape {y.shape}",
            expected="(n_regions, n_subjects, ...)",
        )
    if n_samples < 200:
        raise ConfigError("too few bootstrap samples", found=str(n_samples), expected="200 or more")
    n = y.shape[1]
    rng = np.random.default_rng(seed)
    samples = [np.asarray(statistic(y[:, rng.integers(0, n, n)]), dtype=float) for _ in range(n_samples)]
    draws = np.stack(samples)
    draws = draws[:, np.isfinite(draws).all(axis=0) & (np.ptp(draws, axis=0) > 0)]
    count = draws.shape[1]
    if count < 2:
        return level
    # Normal scores: only how regions move together is taken from the bootstrap.
    rank = (np.argsort(np.argsort(draws, axis=0), axis=0) + 0.5) / n_samples
    root = _root(_normal_scores(rank) / math.sqrt(n_samples))
    largest = np.empty(_PLAYS)
    for start in range(0, _PLAYS, 500):
        play = rng.normal(size=(500, root.shape[0])) @ root
        largest[start : start + 500] = np.abs(play).max(axis=1)
    critical = float(np.quantile(largest, level))
    alpha = math.erfc(critical / math.sqrt(2.0))
    return float(1.0 - min(max(alpha, (1.0 - level) / count), 1.0 - level))


#: Draws of the largest deviation; the level is repeatable to about 0.001.
_PLAYS = 40_000


def _root(scores: Array) -> Array:
    """Return a matrix R with R'R the correlation of the columns, with as few rows as will do."""
    if scores.shape[0] <= scores.shape[1]:
        return scores
    return np.asarray(np.linalg.qr(scores)[1], dtype=float)


def _normal_scores(rank: Array) -> Array:
    """Return normal scores of ranks, each column with variance 1."""
    from scipy import special

    scores = special.ndtri(rank)
    return np.asarray(scores / scores.std(axis=0), dtype=float)
