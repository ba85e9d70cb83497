"""Spread between scanners, on arrays: components, RDC and bias of complete tables.

Free of pandas; :mod:`cordqa.stats.reproducibility` takes tables, also incomplete ones.

Raunig DL, et al. Stat Methods Med Res 2015;24:27. doi:10.1177/0962280214537344
Graybill FA, Wang CM. J Am Stat Assoc 1980;75:869. doi:10.1080/01621459.1980.10477565
Burdick RK, Borror CM, Montgomery DC. J Qual Technol 2003;35:342.
doi:10.1080/00224065.2003.11980232
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.stats.icc_core import mean_squares
from cordqa.stats.quantiles import Bounds, MeanSquare, f_quantile, mls_interval, sd_interval, t_quantile

__all__ = [
    "CrossedSquares",
    "Reproducibility",
    "ScannerBias",
    "crossed_squares",
    "one_way_squares",
    "reproducibility_arrays",
    "reproducibility_from_squares",
    "scanner_bias_arrays",
    "squares_from_components",
]

Array = NDArray[np.float64]
Scanners = Literal["random", "fixed"]


class CrossedSquares(NamedTuple):
    """Mean squares of a subject by scanner table with m values per cell, arrays of shape (...).

    Where m is 1, ``interaction`` is the residual of the additive model (interaction and error
    together) and ``error`` is NaN.  For one subject, n is the number of its replicates per
    scanner, and ``interaction`` their mean square.
    """

    subject: Array
    scanner: Array
    interaction: Array
    error: Array
    mean: Array
    n: float
    k: int
    m: float
    df_interaction: float
    df_error: float


class Reproducibility(NamedTuple):
    """SD of each source with intervals, arrays of shape (...), in units of the values.

    ``total``: of one measurement on a scanner taken at random, within a subject; times
    1.96 sqrt(2) it is the reproducibility coefficient (RDC).  ``scanner``: of the scanners'
    means, zero where the estimate of the variance is negative (``scanner_variance`` is raw).
    ``interaction`` likewise; NaN without replicates.  ``within``: of repeats on one scanner;
    without replicates it includes the interaction.
    """

    total: Array
    total_bounds: Bounds
    scanner: Array
    scanner_bounds: Bounds
    scanner_variance: Array
    interaction: Array
    interaction_bounds: Bounds
    interaction_variance: Array
    within: Array
    within_bounds: Bounds
    mean: Array


def crossed_squares(values: ArrayLike) -> CrossedSquares:
    """Return the mean squares of complete crossed tables.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_scanners, m_replicates)
        No NaN (the table that has one comes out NaN); at least two scanners, and two subjects
        or two replicates.  One subject (a phantom) is a one-way design: scanner and
        interaction cannot be told apart and count as scanner.
    """
    y = np.asarray(values, dtype=float)
    if y.ndim < 3:
        raise InputError("values need axes for subjects, scanners and replicates", found=f"{y.ndim} axes")
    n, k, m = y.shape[-3:]
    if n == 1:
        return one_way_squares(np.swapaxes(y[..., 0, :, :], -1, -2))
    ms = mean_squares(y.mean(axis=-1))
    within = y.var(axis=-1, ddof=1).mean(axis=(-2, -1)) if m > 1 else np.full(y.shape[:-3], math.nan)
    return CrossedSquares(
        subject=m * ms.subjects,
        scanner=m * ms.raters,
        interaction=m * ms.error,
        error=np.asarray(within),
        mean=y.mean(axis=(-3, -2, -1)),
        n=n,
        k=k,
        m=float(m),
        df_interaction=ms.df_error,
        df_error=float(n * k * (m - 1)),
    )


def one_way_squares(values: ArrayLike) -> CrossedSquares:
    """Return the mean squares of one subject measured several times on every scanner.

    Parameters
    ----------
    values : array-like, shape (..., m_replicates, k_scanners)
        NaN where a scanner has fewer replicates (same pattern over the leading axes); then
        unweighted means and the harmonic mean of the counts are used (Thomas and Hultquist).

    References
    ----------
    Thomas JD, Hultquist RA. Ann Stat 1978;6:582. doi:10.1214/aos/1176344202
    """
    y = np.asarray(values, dtype=float)
    known = np.isfinite(y)
    count = known.sum(axis=-2).astype(float)
    pattern = count.reshape(-1, count.shape[-1])[0] if count.size else count
    k = y.shape[-1]
    if k < 2 or not (pattern > 1).any() or (pattern == 0).any():
        raise InputError(
            "one subject needs two scanners, each with a value and one of them with two",
            found=f"{k} scanners, {pattern.astype(int).tolist()} values",
        )
    means = np.where(known, y, 0.0).sum(axis=-2) / count
    squares = np.where(known, (y - means[..., None, :]) ** 2, 0.0).sum(axis=(-2, -1))
    harmonic = k / float((1.0 / pattern).sum())
    df = float((pattern - 1).sum())
    return CrossedSquares(
        subject=np.full(y.shape[:-2], math.nan),
        scanner=harmonic * means.var(axis=-1, ddof=1),
        interaction=squares / df,
        error=np.full(y.shape[:-2], math.nan),
        mean=means.mean(axis=-1),
        n=harmonic,
        k=k,
        m=1.0,
        df_interaction=df,
        df_error=0.0,
    )


def squares_from_components(
    components: ArrayLike, mean: ArrayLike, *, n: int, k: int, m: float, n_values: int, n_cells: int
) -> CrossedSquares:
    """Return the mean squares that a complete table would be expected to have (for REML).

    Parameters
    ----------
    components : array-like, shape (..., 3) or (..., 4)
        Variances of subject, scanner, (interaction,) residual.
    mean : array-like
        Grand mean.
    n, k : int
        Subjects and scanners.
    m : float
        Mean number of values per filled cell.
    n_values, n_cells : int
        Values, and cells that are not empty; they set the degrees of freedom.
    """
    c = np.asarray(components, dtype=float)
    residual = c[..., -1]
    replicated = c.shape[-1] == 4
    per_cell = m if replicated else 1.0
    interaction = residual + per_cell * c[..., 2] if replicated else residual
    return CrossedSquares(
        subject=interaction + k * per_cell * c[..., 0],
        scanner=interaction + n * per_cell * c[..., 1],
        interaction=interaction,
        error=residual if replicated else np.full_like(residual, math.nan),
        mean=np.asarray(mean, dtype=float),
        n=n,
        k=k,
        m=per_cell,
        df_interaction=float(n_cells - n - k + 1) if replicated else float(n_values - n - k + 1),
        df_error=float(n_values - n_cells),
    )


def reproducibility_arrays(
    values: ArrayLike, *, level: float = 0.95, scanners: Scanners = "random"
) -> Reproducibility:
    """Return the spread within subjects over scanners, with intervals.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_scanners, m_replicates)
        Complete tables; m may be 1.
    level : float
        Confidence level.
    scanners : {'random', 'fixed'}
        ``random``: these scanners stand for others; with three of them the upper bound is 2
        to 5 times the estimate, and that is what three scanners tell.  ``fixed``: the result
        is about these scanners only; same estimates, shorter intervals.

    Returns
    -------
    Reproducibility
        Intervals are modified-large-sample (random) or from the noncentral chi-squared
        (fixed) for the scanners and exact chi-squared for ``within``.
    """
    return reproducibility_from_squares(crossed_squares(values), level=level, scanners=scanners)


def reproducibility_from_squares(
    s: CrossedSquares, *, level: float = 0.95, scanners: Scanners = "random"
) -> Reproducibility:
    """Return the spread within subjects over scanners; see :func:`reproducibility_arrays`."""
    if scanners not in ("random", "fixed"):
        raise ConfigError("scanners is not a known choice", found=repr(scanners), expected="random or fixed")
    replicated = s.m > 1
    scanner_df = s.k - 1.0
    scanner_terms = [
        MeanSquare(1.0 / (s.n * s.m), s.scanner, scanner_df),
        MeanSquare(-1.0 / (s.n * s.m), s.interaction, s.df_interaction),
    ]
    local = [MeanSquare(1.0 / s.m, s.interaction, s.df_interaction)]
    interaction = np.full_like(s.interaction, math.nan)
    interaction_bounds = Bounds(interaction, interaction)
    within, within_df = s.interaction, s.df_interaction
    if replicated:
        interaction_terms = [local[0], MeanSquare(-1.0 / s.m, s.error, s.df_error)]
        interaction = _sum(interaction_terms)
        interaction_bounds = mls_interval(interaction_terms, level=level)
        local.append(MeanSquare(1.0 - 1.0 / s.m, s.error, s.df_error))
        within, within_df = s.error, s.df_error
    scanner = _sum(scanner_terms)
    if scanners == "random":
        scanner_bounds = mls_interval(scanner_terms, level=level)
        total_terms = [
            scanner_terms[0],
            MeanSquare((1.0 - 1.0 / s.n) / s.m, s.interaction, s.df_interaction),
            *local[1:],
        ]
        total, total_bounds = _sum(total_terms), mls_interval(total_terms, level=level)
    else:
        scanner_bounds = _fixed_bounds(s, level)
        total, total_bounds = _join(scanner, scanner_bounds, _sum(local), mls_interval(local, level=level))
    return Reproducibility(
        total=_root(total),
        total_bounds=_roots(total_bounds),
        scanner=_root(scanner),
        scanner_bounds=_roots(scanner_bounds),
        scanner_variance=scanner,
        interaction=_root(interaction),
        interaction_bounds=_roots(interaction_bounds),
        interaction_variance=interaction,
        within=np.sqrt(within),
        within_bounds=sd_interval(np.sqrt(within), within_df, level=level),
        mean=s.mean,
    )


def _sum(terms: list[MeanSquare]) -> Array:
    return np.asarray(sum(t.coefficient * t.mean_square for t in terms), dtype=float)


def _root(variance: Array) -> Array:
    """Square root; a negative estimate of a variance stands for none."""
    return np.sqrt(np.maximum(variance, 0.0))


def _roots(bounds: Bounds) -> Bounds:
    return Bounds(_root(bounds.low), _root(bounds.high))


def _fixed_bounds(s: CrossedSquares, level: float) -> Bounds:
    """Interval of the variance of these scanners' true means.

    The noncentrality of the chi-squared sum of squares is inverted with the error variance put
    in.  Its tails are moved so that the test of "no difference" is the F test; that makes up
    for not knowing the error variance, as t does for the normal quantile.
    """
    from scipy import special

    tail = (1.0 - level) / 2.0
    df1, df2 = s.k - 1.0, s.df_interaction
    with np.errstate(divide="ignore", invalid="ignore"):
        x = df1 * np.where(s.interaction > 0, s.scanner / s.interaction, math.nan)
    bounds = []
    for p in (1.0 - tail, tail):
        critical = df1 * f_quantile(p, df1, df2)
        reachable = x > critical
        moved = special.chdtr(df1, critical)
        shift = special.chndtrinc(np.where(reachable, x, critical + 1.0), df1, moved)
        noncentrality = np.where(np.isnan(x), math.nan, np.where(reachable, shift, 0.0))
        bounds.append(noncentrality * s.interaction / (s.n * s.m * df1))
    return Bounds(bounds[0], bounds[1])


def _join(a: Array, a_bounds: Bounds, b: Array, b_bounds: Bounds) -> tuple[Array, Bounds]:
    """Sum of two variances, its interval by MOVER."""
    total = np.maximum(a, 0.0) + b
    floor = np.maximum(a, 0.0)
    down = np.hypot(floor - a_bounds.low, b - b_bounds.low)
    up = np.hypot(a_bounds.high - floor, b_bounds.high - b)
    return total, Bounds(total - down, total + up)


class ScannerBias(NamedTuple):
    """Deviation of each scanner's mean from the mean of all, arrays of shape (..., k)."""

    value: Array
    low: Array
    high: Array
    standard_error: Array
    df: float


def scanner_bias_arrays(values: ArrayLike, *, level: float = 0.95) -> ScannerBias:
    """Return the bias of every scanner against the mean of the scanners.

    The error is the interaction of subject and scanner (with the repeats in it), so that the
    bias is one for subjects in general and not for these subjects only.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, k_scanners, m_replicates)
        Complete tables.
    level : float
        Confidence level of each interval (not simultaneous).
    """
    s = crossed_squares(values)
    y = np.asarray(values, dtype=float).mean(axis=(-3, -1))
    value = y - y.mean(axis=-1, keepdims=True)
    variance = s.interaction / (s.n * s.m) * (s.k - 1.0) / s.k
    se = np.broadcast_to(np.sqrt(variance)[..., None], value.shape)
    half = t_quantile(0.5 + level / 2.0, s.df_interaction) * se
    return ScannerBias(value, value - half, value + half, se, s.df_interaction)
