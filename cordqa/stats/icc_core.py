"""Intraclass correlation of arrays: six forms with F, degrees of freedom, p and interval.

Which form?

- *Same scanners for every subject, and their bias matters* (values will be compared between
  scanners): absolute agreement, ``ICC(A,1)``.
- *Same scanners, bias does not matter* (a constant offset is corrected or cancels, as in change
  on one scanner): consistency, ``ICC(C,1)``.
- *Every subject was measured by other scanners*, so that scanner and error cannot be told
  apart: one-way, ``ICC(1,1)``.
- The ``k`` forms are for the mean over all k scanners, not for one measurement.

An ICC compares measurement error with the spread of the subjects that happened to be scanned:
the same scanner has a higher ICC in a more varied group.  It says nothing without the range of
the subjects and the within-subject SD, which therefore stand in the note of every row.

Shrout PE, Fleiss JL. Psychol Bull 1979;86:420. doi:10.1037/0033-2909.86.2.420
McGraw KO, Wong SP. Psychol Methods 1996;1:30. doi:10.1037/1082-989X.1.1.30
Liljequist D, et al. PLoS One 2019;14:e0219854. doi:10.1371/journal.pone.0219854
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.quantiles import f_quantile, f_survival, ratio

__all__ = [
    "FORMS",
    "ICCs",
    "TwoWay",
    "icc_arrays",
    "icc_from_components",
    "icc_from_mean_squares",
    "mean_squares",
    "step_up",
]

Array = NDArray[np.float64]

#: Order of the last axis of every result: McGraw and Wong's names.
FORMS = ("ICC(1,1)", "ICC(A,1)", "ICC(C,1)", "ICC(1,k)", "ICC(A,k)", "ICC(C,k)")
#: The names of Shrout and Fleiss for the same numbers.
SHROUT_FLEISS = ("ICC(1,1)", "ICC(2,1)", "ICC(3,1)", "ICC(1,k)", "ICC(2,k)", "ICC(3,k)")

Interval = Literal["mcgraw-wong", "generalized"]


class TwoWay(NamedTuple):
    """Mean squares of a complete subject by rater table, arrays of shape (...).

    ``subjects`` (MSR), ``raters`` (MSC), ``error`` (MSE), ``within`` (MSW: raters and error
    pooled), with the numbers of subjects and raters and the degrees of freedom of the error.
    """

    subjects: Array
    raters: Array
    error: Array
    within: Array
    n: int
    k: int
    df_error: float


class ICCs(NamedTuple):
    """Six ICC with intervals; every array has shape (..., 6) in the order of ``FORMS``."""

    value: Array
    low: Array
    high: Array
    F: Array
    df1: Array
    df2: Array
    p: Array


def mean_squares(values: ArrayLike) -> TwoWay:
    """Return the mean squares of a two-way table with one value per cell.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_raters)
        At least 2 by 2.  A NaN makes the mean squares of its own table NaN and no other.

    Raises
    ------
    InputError
        If there are fewer than two subjects or two raters.
    """
    y = np.asarray(values, dtype=float)
    n, k = y.shape[-2:] if y.ndim >= 2 else (0, 0)
    if n < 2 or k < 2:
        raise InputError(
            "an ICC needs at least two subjects and two raters",
            found=f"{n} subjects and {k} raters",
        )
    grand = y.mean(axis=(-2, -1), keepdims=True)
    y = y - grand
    rows = y.mean(axis=-1, keepdims=True)
    columns = y.mean(axis=-2, keepdims=True)
    ss_subjects = k * np.einsum("...ij,...ij->...", rows, rows)
    ss_raters = n * np.einsum("...ij,...ij->...", columns, columns)
    y -= rows
    ss_within = np.einsum("...ij,...ij->...", y, y)
    y -= columns
    ss_error = np.einsum("...ij,...ij->...", y, y)
    # What rounding alone can leave; a sum of squares below it is zero.
    noise = n * k * (4.0 * np.finfo(float).eps * np.abs(grand[..., 0, 0])) ** 2
    floor = [np.where(ss <= noise, 0.0, ss) for ss in (ss_subjects, ss_raters, ss_error, ss_within)]
    df_error = (n - 1) * (k - 1)
    return TwoWay(
        floor[0] / (n - 1), floor[1] / (k - 1), floor[2] / df_error, floor[3] / (n * (k - 1)),
        n, k, float(df_error),
    )  # fmt: skip


def icc_arrays(
    values: ArrayLike, *, level: float = 0.95, interval: Interval = "mcgraw-wong", seed: int = 0
) -> ICCs:
    """Return six ICC with F, degrees of freedom, p and interval, for many tables at once.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_raters)
        Complete tables, one value per cell; leading axes are regions, metrics and so on.
    level : float
        Confidence level.
    interval : {'mcgraw-wong', 'generalized'}
        Interval of the agreement forms.  McGraw-Wong is what other programs print; it covers
        only 83 to 93 % where scanners differ as much as subjects do and scanners are few.
        The generalized interval (Monte Carlo over the pivots of the mean squares) keeps its
        level there and is wider.  The other forms have exact F intervals.
    seed : int
        Seed of the generalized interval.

    Returns
    -------
    ICCs
        Arrays of shape (..., 6).  NaN where a table has a NaN or does not vary at all.
        Negative estimates are given as they are.
    """
    return icc_from_mean_squares(mean_squares(values), level=level, interval=interval, seed=seed)


def icc_from_mean_squares(
    ms: TwoWay, *, level: float = 0.95, interval: Interval = "mcgraw-wong", seed: int = 0
) -> ICCs:
    """Return six ICC from mean squares; see :func:`icc_arrays`."""
    if interval not in ("mcgraw-wong", "generalized"):
        raise ConfigError(
            "interval is not a known choice", found=repr(interval), expected="mcgraw-wong or generalized"
        )
    n, k, tail = ms.n, ms.k, (1.0 - level) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        f_one, f_two = ms.subjects / ms.within, ms.subjects / ms.error
        single = _stack(
            ratio(ms.subjects - ms.within, ms.subjects + (k - 1) * ms.within),
            _agreement(ms),
            ratio(ms.subjects - ms.error, ms.subjects + (k - 1) * ms.error),
        )
        df_one = float(n * (k - 1)) + (ms.df_error - (n - 1) * (k - 1))
        bounds_one = _exact(f_one, n, k, df_one, tail)
        bounds_two = _exact(f_two, n, k, ms.df_error, tail)
        if interval == "mcgraw-wong":
            bounds_agree = _mcgraw_wong(ms, single[..., 1], tail)
        else:
            bounds_agree = _generalized(ms, tail, seed)
        low = _stack(bounds_one[0], bounds_agree[0], bounds_two[0])
        high = _stack(bounds_one[1], bounds_agree[1], bounds_two[1])
        p_one, p_two = f_survival(f_one, n - 1, df_one), f_survival(f_two, n - 1, ms.df_error)
    F = _stack(f_one, f_two, f_two)
    df2 = np.broadcast_to(np.array([df_one, ms.df_error, ms.df_error]), F.shape)
    p = _stack(p_one, p_two, p_two)
    return ICCs(
        value=_twice(single, step_up(single, k)),
        low=_twice(low, step_up(low, k)),
        high=_twice(high, step_up(high, k)),
        F=_twice(F, F),
        df1=np.full((*F.shape[:-1], 6), float(n - 1)),
        df2=_twice(df2, df2),
        p=_twice(p, p),
    )


def step_up(single: Array, k: float) -> Array:
    """Return the reliability of the mean of k measurements from that of one (Spearman-Brown).

    Minus infinity where a bound lies below -1 / (k - 1), the smallest that one measurement can
    have: the formula would come out positive there.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        below = 1.0 + (k - 1.0) * single
        return np.asarray(np.where(below <= 0, -np.inf, k * single / below), dtype=float)


def _stack(*columns: Array) -> Array:
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(float)


def _twice(single: Array, average: Array) -> Array:
    return np.concatenate([single, average], axis=-1)


def _agreement(ms: TwoWay) -> Array:
    n, k = ms.n, ms.k
    spread = ms.subjects + (k - 1) * ms.error + k * (ms.raters - ms.error) / n
    return ratio(ms.subjects - ms.error, spread)


def _exact(f: Array, n: int, k: int, df2: float, tail: float) -> tuple[Array, Array]:
    """F interval of the one-way and the consistency form; exact for normal values."""
    lower = f / f_quantile(1.0 - tail, n - 1, df2)
    upper = f * f_quantile(1.0 - tail, df2, n - 1)
    # An infinite F (no error at all) leaves no doubt: both bounds are 1.
    return _limit(lower, k), _limit(upper, k)


def _limit(f: Array, k: int) -> Array:
    return np.where(np.isposinf(f), 1.0, (f - 1.0) / (f + k - 1.0))


def _mcgraw_wong(ms: TwoWay, icc: Array, tail: float) -> tuple[Array, Array]:
    """Interval of the agreement form with Satterthwaite's degrees of freedom.

    An estimate below zero enters the degrees of freedom as zero: they would otherwise go to
    zero and the interval to its limits (other programs let them).
    """
    n, k = ms.n, ms.k
    r = np.clip(icc, 0.0, 1.0)
    # a and b are multiplied by (1 - r), which cancels, so that r = 1 needs no special case.
    a, b = k * r / n, (1.0 - r) + k * r * (n - 1) / n
    # Relative to the largest, since squares of mean squares leave the range of numbers first.
    largest = np.maximum(ms.raters, ms.error)
    raters, error = a * ratio(ms.raters, largest), b * ratio(ms.error, largest)
    v = ratio((raters + error) ** 2, raters**2 / (k - 1) + error**2 / ms.df_error)
    rest = k * ms.raters + (k * n - k - n) * ms.error
    f_low, f_high = f_quantile(1.0 - tail, n - 1, v), f_quantile(1.0 - tail, v, n - 1)
    low = ratio(n * (ms.subjects - f_low * ms.error), f_low * rest + n * ms.subjects)
    high = ratio(n * (f_high * ms.subjects - ms.error), rest + n * f_high * ms.subjects)
    perfect = (ms.raters == 0) & (ms.error == 0) & (ms.subjects > 0)
    return np.where(perfect, 1.0, low), np.where(perfect, 1.0, high)


#: Draws of a generalized interval: its bounds are repeatable to about 0.01 of its width.
DRAWS = 4000
#: Values held at once by a generalized interval.
CELLS = 4_000_000


def _generalized(ms: TwoWay, tail: float, seed: int) -> tuple[Array, Array]:
    """Generalized (fiducial) interval of ICC(A,1), negative components set to zero."""
    if ms.df_error <= 0:
        nan = np.full(np.shape(ms.subjects), np.nan)
        return nan, nan
    rng = np.random.default_rng(seed)
    n, k = ms.n, ms.k
    w_s = rng.chisquare(n - 1, DRAWS) / (n - 1)
    w_c = rng.chisquare(k - 1, DRAWS) / (k - 1)
    w_e = rng.chisquare(ms.df_error, DRAWS) / ms.df_error
    shape = np.shape(ms.subjects)
    s, c, e = (np.ravel(x)[:, None] for x in (ms.subjects, ms.raters, ms.error))
    bounds = np.empty((2, s.shape[0]))
    step = max(1, CELLS // DRAWS)
    for i in range(0, s.shape[0], step):
        part = slice(i, i + step)
        error = e[part] / w_e
        subject = np.maximum((s[part] / w_s - error) / k, 0.0)
        rater = np.maximum((c[part] / w_c - error) / n, 0.0)
        icc = ratio(subject, subject + rater + error)
        bounds[:, part] = np.quantile(icc, [tail, 1.0 - tail], axis=1)
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def icc_from_components(
    subject: ArrayLike,
    rater: ArrayLike,
    residual: ArrayLike,
    *,
    n: int,
    k: int,
    df_error: float | None = None,
    level: float = 0.95,
    interval: Interval = "mcgraw-wong",
    seed: int = 0,
) -> ICCs:
    """Return six ICC from variance components, for tables with empty cells (REML).

    The mean squares that a complete table with these components would be expected to have take
    the place of the observed ones.  For a complete table with no negative component the result
    is that of :func:`icc_arrays`.

    Parameters
    ----------
    subject, rater, residual : array-like, shape (...)
        Variance components, not negative.
    n, k : int
        Numbers of subjects and raters.
    df_error : float, optional
        Degrees of freedom of the residual; with empty cells, number of values minus subjects
        minus raters plus one.  Default: of the complete table.
    level, interval, seed
        As in :func:`icc_arrays`.
    """
    s, c, e = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (subject, rater, residual)))
    if n < 2 or k < 2:
        raise InputError(
            "an ICC needs at least two subjects and two raters", found=f"{n} subjects and {k} raters"
        )
    full = float((n - 1) * (k - 1))
    ms = TwoWay(
        subjects=k * s + e,
        raters=n * c + e,
        error=e.copy(),
        within=c + e,
        n=n,
        k=k,
        df_error=full if df_error is None else float(df_error),
    )
    return icc_from_mean_squares(ms, level=level, interval=interval, seed=seed)
