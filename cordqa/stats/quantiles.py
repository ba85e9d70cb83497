"""Quantiles and intervals that several statistics share, vectorised over regions.

``scipy.special`` is used rather than ``scipy.stats``: the same accuracy, imported in a tenth of
the time.  It is imported inside the functions, so that importing a statistic costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Bounds",
    "MeanSquare",
    "add_variances",
    "chi2_quantile",
    "f_quantile",
    "f_survival",
    "mls_interval",
    "normal_quantile",
    "ratio",
    "sd_interval",
    "t_quantile",
    "t_two_sided_p",
]

Array = NDArray[np.float64]


class Bounds(NamedTuple):
    """Lower and upper bounds of intervals, arrays of one shape."""

    low: Array
    high: Array


class MeanSquare(NamedTuple):
    """One term ``coefficient * mean_square`` of a linear combination, with its df."""

    coefficient: float
    mean_square: Array
    df: float


def _float(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=float)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Divide; whatever is divided by zero is NaN."""
    below = _float(denominator)
    return _float(_float(numerator) / np.where(below == 0, math.nan, below))


def normal_quantile(p: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def t_quantile(p: ArrayLike, df: ArrayLike) -> Array:
    """Return quantiles of Student's t; NaN where df is not positive."""
    from scipy import special

    freedom = _float(df)
    usable = np.where(freedom > 0, freedom, math.nan)
    return _float(special.stdtrit(usable, _float(p)))


def t_two_sided_p(t: ArrayLike, df: ArrayLike) -> Array:
    """Return the two-sided p-value of a t statistic; NaN where df is not positive."""
    from scipy import special

    freedom = _float(df)
    usable = np.where(freedom > 0, freedom, math.nan)
    return _float(2.0 * special.stdtr(usable, -np.abs(_float(t))))


def chi2_quantile(p: ArrayLike, df: ArrayLike) -> Array:
    """Return quantiles of chi-squared; NaN where df is not positive."""
    from scipy import special

    freedom = _float(df)
    usable = np.where(freedom > 0, freedom, math.nan)
    return _float(special.chdtri(usable, 1.0 - _float(p)))


def f_quantile(p: ArrayLike, df1: ArrayLike, df2: ArrayLike) -> Array:
    """Return quantiles of Fisher's F for any positive, also fractional, df; else NaN."""
    from scipy import special

    first, second = _float(df1), _float(df2)
    usable = (first > 0) & (second > 0)
    return _float(special.fdtri(np.where(usable, first, math.nan), second, _float(p)))


def f_survival(f: ArrayLike, df1: ArrayLike, df2: ArrayLike) -> Array:
    """Return the upper-tail probability of Fisher's F."""
    from scipy import special

    value = _float(f)
    p = special.fdtrc(_float(df1), _float(df2), np.where(np.isinf(value), 1.0, value))
    return _float(np.where(np.isposinf(value), 0.0, p))


def sd_interval(sd: ArrayLike, df: ArrayLike, *, level: float = 0.95) -> Bounds:
    """Return the chi-squared interval of a standard deviation of normal values.

    Parameters
    ----------
    sd : array-like
        Square root of a variance estimated with ``df`` degrees of freedom.
    df : array-like
        Degrees of freedom; NaN bounds where not positive.
    level : float
        Confidence level, two-sided with equal tails.
    """
    spread, freedom = _float(sd), _float(df)
    tail = (1.0 - level) / 2.0
    low = spread * np.sqrt(freedom / chi2_quantile(1.0 - tail, freedom))
    high = spread * np.sqrt(freedom / chi2_quantile(tail, freedom))
    return Bounds(low, high)


def mls_interval(terms: Sequence[MeanSquare], *, level: float = 0.95) -> Bounds:
    """Return the modified-large-sample interval of a linear combination of mean squares.

    With positive coefficients only this is the method of Graybill and Wang [1]_; where some
    are negative, the method of Ting et al. [2]_ for differences, without its products of terms
    of one sign, so meant for one term against one.  Exact when one term stands alone.  Much
    nearer its nominal level than Satterthwaite's when a mean square with few degrees of
    freedom (between three scanners) dominates.

    Parameters
    ----------
    terms : sequence of MeanSquare
        Independent mean squares with their coefficients and degrees of freedom.
    level : float
        Confidence level, two-sided.

    Returns
    -------
    Bounds
        May reach below zero where a coefficient is negative; truncation is left to the caller.

    References
    ----------
    .. [1] Graybill FA, Wang CM. J Am Stat Assoc 1980;75:869. doi:10.1080/01621459.1980.10477565
    .. [2] Ting N, Burdick RK, Graybill FA, Jeyaratnam S, Lu TFC. Confidence intervals on linear
       combinations of variance components that are unrestricted in sign. J Stat Comput Simul
       1990;35:135.
    """
    tail = (1.0 - level) / 2.0
    parts = [np.abs(t.coefficient * _float(t.mean_square)) for t in terms]
    # Relative to the largest part: squares of variances leave the range of numbers first.
    largest = np.max(np.stack(np.broadcast_arrays(*parts)), axis=0)
    terms = [t._replace(mean_square=ratio(t.mean_square, largest)) for t in terms]
    plus = [t for t in terms if t.coefficient > 0]
    minus = [t for t in terms if t.coefficient < 0]
    estimate = sum((t.coefficient * t.mean_square for t in terms), start=np.float64(0.0))
    below = np.sqrt(np.maximum(_one_sided(plus, minus, tail, lower=True), 0.0))
    above = np.sqrt(np.maximum(_one_sided(plus, minus, tail, lower=False), 0.0))
    nothing = largest == 0
    return Bounds(
        np.where(nothing, 0.0, largest * (estimate - below)),
        np.where(nothing, 0.0, largest * (estimate + above)),
    )


def add_variances(parts: ArrayLike, df: ArrayLike, *, level: float = 0.95) -> Bounds:
    """Return the Graybill-Wang interval of a sum of independent variance estimates.

    Parameters
    ----------
    parts : array-like, shape (..., n_parts)
        Positive multiples of mean squares.
    df : array-like, broadcastable to the same shape
        Degrees of freedom; a part without any is taken as known.
    level : float
        Confidence level.
    """
    pieces, freedom = np.broadcast_arrays(_float(parts), _float(df))
    tail = (1.0 - level) / 2.0
    known = (freedom <= 0) | (pieces == 0)
    safe = np.where(known, 1.0, freedom)
    below = np.where(known, 0.0, pieces * _shrink(safe, tail))
    above = np.where(known, 0.0, pieces * _stretch(safe, tail))
    total = pieces.sum(axis=-1)
    return Bounds(total - np.sqrt((below**2).sum(axis=-1)), total + np.sqrt((above**2).sum(axis=-1)))


def _shrink(df: ArrayLike, tail: float) -> Array:
    """G: relative distance from a mean square down to its lower bound."""
    return 1.0 - _float(df) / chi2_quantile(1.0 - tail, df)


def _stretch(df: ArrayLike, tail: float) -> Array:
    """H: relative distance from a mean square up to its upper bound."""
    return _float(df) / chi2_quantile(tail, df) - 1.0


def _one_sided(plus: Sequence[MeanSquare], minus: Sequence[MeanSquare], tail: float, *, lower: bool) -> Array:
    """Return the squared distance from the estimate to one bound."""
    own, other = (_shrink, _stretch) if lower else (_stretch, _shrink)
    total = _float(0.0)
    for t in plus:
        total = total + (own(t.df, tail) * t.coefficient * t.mean_square) ** 2
    for t in minus:
        total = total + (other(t.df, tail) * t.coefficient * t.mean_square) ** 2
    for q in plus:
        for r in minus:
            cross = _cross(q.df, r.df, tail, lower=lower)
            product = q.coefficient * q.mean_square * -r.coefficient * r.mean_square
            total = total + cross * product
    return _float(total)


def _cross(df_plus: float, df_minus: float, tail: float, *, lower: bool) -> Array:
    """Weight of the product of a positive and a negative term; makes a difference exact."""
    f = f_quantile(1.0 - tail if lower else tail, df_plus, df_minus)
    own, other = (_shrink, _stretch) if lower else (_stretch, _shrink)
    return _float(((f - 1.0) ** 2 - own(df_plus, tail) ** 2 * f**2 - other(df_minus, tail) ** 2) / f)
