"""Straight lines through arrays: least squares, errors in both axes, clusters, curvature.

Everything here takes arrays and is free of pandas; :mod:`cordqa.stats.linearity` takes tables.
A NaN in either axis takes that point out (it is counted by ``n``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.stats.quantiles import Bounds, f_survival, normal_quantile, ratio, t_quantile, t_two_sided_p

__all__ = [
    "Coefficient",
    "Line",
    "Moments",
    "cluster_jackknife",
    "correlation_interval",
    "deming_from_moments",
    "lack_of_fit",
    "moments",
    "ols_arrays",
    "polynomial_terms",
    "robust_line",
]

Array = NDArray[np.float64]


class Moments(NamedTuple):
    """Weighted first and second moments of pairs, shape (...); spreads divide by n."""

    n: Array
    mean_x: Array
    mean_y: Array
    var_x: Array
    var_y: Array
    cov: Array

    @property
    def r(self) -> Array:
        """Pearson's correlation; NaN where an axis does not vary."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(ratio(self.cov, np.sqrt(self.var_x * self.var_y)), -1.0, 1.0)


class Line(NamedTuple):
    """Least-squares line y = intercept + slope x, arrays of shape (...)."""

    slope: Array
    intercept: Array
    slope_se: Array
    intercept_se: Array
    residual_sd: Array
    r2: Array
    n: Array
    df: Array
    mean_x: Array

    def interval(self, name: str, level: float = 0.95) -> Bounds:
        """Return the t interval of ``slope`` or ``intercept``."""
        half = t_quantile(0.5 + level / 2.0, self.df) * getattr(self, f"{name}_se")
        centre = getattr(self, name)
        return Bounds(centre - half, centre + half)

    def at(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the height of the line at x, shape (...), and its standard error."""
        where = np.asarray(x, dtype=float)
        se = np.sqrt(self.residual_sd**2 / self.n + (self.slope_se * (where - self.mean_x)) ** 2)
        return self.intercept + self.slope * where, se


class Coefficient(NamedTuple):
    """One estimate with interval and two-sided p of being zero, arrays or scalars."""

    value: Array
    low: Array
    high: Array
    df: Array
    p: Array


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array, Array]:
    """Broadcast two axes and return them with the weight 0 where either is NaN."""
    a, b = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    known = np.isfinite(a) & np.isfinite(b)
    return np.where(known, a, 0.0), np.where(known, b, 0.0), known.astype(float)


def moments(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Moments:
    """Return means, variances and covariance over the last axis (dividing by n).

    Parameters
    ----------
    x, y : array-like, broadcastable to (..., n)
        Pairs with a NaN are left out.
    weights : array-like, broadcastable to (..., n), optional
        For leaving points out (0) or repeating them.
    """
    a, b, w = _pairs(x, y)
    if weights is not None:
        w = w * np.asarray(weights, dtype=float)
    n = w.sum(axis=-1)
    # Two passes: centring first keeps a large offset from eating the digits of the spread.
    mean_x, mean_y = ratio((w * a).sum(axis=-1), n), ratio((w * b).sum(axis=-1), n)
    dx, dy = a - mean_x[..., None], b - mean_y[..., None]
    var_x, var_y = ratio((w * dx * dx).sum(axis=-1), n), ratio((w * dy * dy).sum(axis=-1), n)
    noise = (8.0 * np.finfo(float).eps) ** 2
    return Moments(
        n=n,
        mean_x=mean_x,
        mean_y=mean_y,
        var_x=np.where(var_x <= noise * mean_x**2, 0.0, var_x),
        var_y=np.where(var_y <= noise * mean_y**2, 0.0, var_y),
        cov=ratio((w * dx * dy).sum(axis=-1), n),
    )


def ols_arrays(x: ArrayLike, y: ArrayLike) -> Line:
    """Fit y = intercept + slope x by least squares over the last axis.

    Parameters
    ----------
    x, y : array-like, broadcastable to (..., n)
        The reference is x and counts as free of error.  Pairs with a NaN are left out.

    Returns
    -------
    Line
        NaN where fewer than two different x remain; standard errors NaN below three points.
        Standard errors assume independent points of equal variance.
    """
    m = moments(x, y)
    slope = ratio(m.cov, m.var_x)
    intercept = m.mean_y - slope * m.mean_x
    df = np.where(m.n > 2, m.n - 2.0, np.nan)
    rss = m.n * np.maximum(m.var_y - ratio(m.cov**2, m.var_x), 0.0)
    residual_sd = np.sqrt(rss / df)
    sxx = m.n * m.var_x
    return Line(
        slope=slope,
        intercept=intercept,
        slope_se=residual_sd / np.sqrt(np.where(sxx > 0, sxx, np.nan)),
        intercept_se=residual_sd * np.sqrt(ratio(1.0, m.n) + ratio(m.mean_x**2, sxx)),
        residual_sd=residual_sd,
        r2=m.r**2,
        n=m.n,
        df=df,
        mean_x=m.mean_x,
    )


def correlation_interval(r: ArrayLike, n: ArrayLike, *, level: float = 0.95) -> Bounds:
    """Return Fisher's z interval of a correlation of n independent pairs; NaN below four."""
    known = np.clip(np.asarray(r, dtype=float), -1.0, 1.0)
    free = np.asarray(n, dtype=float) - 3.0
    with np.errstate(divide="ignore", invalid="ignore"):
        half = normal_quantile(0.5 + level / 2.0) / np.sqrt(np.where(free > 0, free, np.nan))
        z = np.arctanh(known)
        return Bounds(np.tanh(z - half), np.tanh(z + half))


def deming_from_moments(m: Moments, error_ratio: float = 1.0) -> tuple[Array, Array]:
    """Return slope and intercept with error in both axes (Deming).

    Parameters
    ----------
    m : Moments
        From :func:`moments`.
    error_ratio : float
        Variance of the error of y over that of x; 1 is orthogonal regression.

    References
    ----------
    Linnet K. Clin Chem 1993;39:424. doi:10.1093/clinchem/39.3.424
    """
    if not error_ratio > 0:
        raise InputError("the ratio of error variances must be positive", found=repr(error_ratio))
    gap = m.var_y - error_ratio * m.var_x
    root = np.sqrt(gap**2 + 4.0 * error_ratio * m.cov**2)
    # The two forms are equal; each is used where it does not subtract near-equal numbers.
    with np.errstate(divide="ignore", invalid="ignore"):
        steep = ratio(gap + root, 2.0 * m.cov)
        flat = ratio(2.0 * error_ratio * m.cov, root - gap)
    slope = np.where(gap >= 0, steep, flat)
    return slope, m.mean_y - slope * m.mean_x


def cluster_jackknife(
    statistic: Callable[[Moments], Array],
    x: ArrayLike,
    y: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    lost: int = 1,
) -> Coefficient:
    """Return a smooth function of the moments with its delete-one jackknife t interval.

    Parameters
    ----------
    statistic : callable
        Takes :class:`Moments` of any shape; returns an array of that shape.
    x, y : array-like, shape (n,)
        One table.
    clusters : array-like, shape (n,), optional
        Points that share an error (one scanner, one subject) are left out together.
    level : float
        Confidence level.
    lost : int
        Degrees of freedom are the number of clusters minus this.
    """
    a, b = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    labels = np.arange(a.size) if clusters is None else _labels(clusters)[known]
    unique, inverse = np.unique(labels, return_inverse=True)
    count = unique.size
    whole = statistic(moments(a, b))
    if count <= lost + 1:
        nan = np.full_like(whole, np.nan)
        return Coefficient(whole, nan, nan, nan, nan)
    left = inverse[None, :] != np.arange(count)[:, None]
    without = statistic(moments(a, b, left))
    se = np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2))
    df = np.asarray(float(count - lost))
    half = t_quantile(0.5 + level / 2.0, df) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p = t_two_sided_p(ratio(whole, se), df)
    return Coefficient(whole, whole - half, whole + half, df, p)


def _labels(clusters: ArrayLike) -> NDArray[np.int64]:
    """Number cluster labels of any type."""
    return np.unique(
        np.asarray([str(c) for c in np.ravel(np.asarray(clusters, dtype=object))]), return_inverse=True
    )[1]


def robust_line(
    x: ArrayLike, y: ArrayLike, *, clusters: ArrayLike | None = None, level: float = 0.95, order: int = 1
) -> tuple[Coefficient, ...]:
    """Fit a polynomial by least squares with cluster-robust intervals.

    The covariance is CR2 (bias-reduced) and the degrees of freedom are those of Bell and
    McCaffrey, which keeps intervals honest down to a few clusters; with every point a cluster
    of its own it allows for unequal variances (HC2).

    Parameters
    ----------
    x, y : array-like, shape (n,)
        One table; pairs with a NaN are left out.
    clusters : array-like, shape (n,), optional
        Label of what makes points dependent.
    level : float
        Confidence level.
    order : int
        Order of the polynomial.

    Returns
    -------
    tuple of Coefficient
        Intercept, slope and so on, in units of x and y.

    References
    ----------
    Bell RM, McCaffrey DF. Survey Methodology 2002;28:169.
    Pustejovsky JE, Tipton E. J Bus Econ Stat 2018;36:672. doi:10.1080/07350015.2016.1247004
    """
    a, b = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    labels = np.arange(a.size) if clusters is None else _labels(clusters)[known]
    nan = np.asarray(np.nan)
    if np.unique(a).size <= order or np.unique(labels).size < 2:
        return (Coefficient(nan, nan, nan, nan, nan),) * (order + 1)
    scale = float(np.max(np.abs(a))) or 1.0
    design = (a[:, None] / scale) ** np.arange(order + 1)
    q, triangle = np.linalg.qr(design)
    to_beta = np.linalg.inv(triangle)
    residual = b - q @ (q.T @ b)
    covariance, pieces = _sandwich(q, residual, labels)
    found = []
    for i, row in enumerate(to_beta):
        unit = scale**i
        se = np.sqrt(np.maximum(row @ covariance @ row, 0.0)) / unit
        # Under equal independent errors the estimate of the variance is a sum of squares of
        # these columns; matching its first two moments gives the degrees of freedom.
        columns = np.stack([piece @ row for piece in pieces], axis=1)
        gram = columns.T @ columns
        df = ratio(np.trace(gram) ** 2, np.sum(gram * gram))
        value = np.asarray(row @ (q.T @ b) / unit)
        half = t_quantile(0.5 + level / 2.0, df) * se
        p = t_two_sided_p(ratio(value, se), df)
        found.append(Coefficient(value, value - half, value + half, df, p))
    return tuple(found)


def _sandwich(q: Array, residual: Array, labels: NDArray[np.int64]) -> tuple[Array, list[Array]]:
    """CR2 covariance of q'y, and per cluster the columns that make its degrees of freedom."""
    covariance = np.zeros((q.shape[1], q.shape[1]))
    pieces = []
    for cluster in np.unique(labels):
        inside = labels == cluster
        own = q[inside]
        values, vectors = np.linalg.eigh(np.eye(own.shape[0]) - own @ own.T)
        inverse_root = np.where(values > 1e-10, 1.0 / np.sqrt(np.maximum(values, 1e-10)), 0.0)
        weighted = (vectors * inverse_root) @ vectors.T @ own
        score = weighted.T @ residual[inside]
        covariance += np.outer(score, score)
        maker = -q @ (own.T @ weighted)
        maker[inside] += weighted
        pieces.append(maker)
    return covariance, pieces


def polynomial_terms(x: ArrayLike, y: ArrayLike, *, order: int = 2, level: float = 0.95) -> Coefficient:
    """Return the highest coefficient of a polynomial fit, with t interval and p.

    The p-value is that of the test that the term of this order is not needed.

    Parameters
    ----------
    x, y : array-like, broadcastable to (..., n)
        Pairs with a NaN are left out.
    order : int
        2 tests for curvature, 3 for an S shape.
    level : float
        Confidence level.
    """
    a, b, w = _pairs(x, y)
    n = w.sum(axis=-1)
    if a.shape[-1] <= order:
        nan = np.full(a.shape[:-1], np.nan)
        return Coefficient(nan, nan, nan, nan, nan)
    centre = ratio((w * a).sum(axis=-1), n)[..., None]
    scale = np.max(np.abs(w * (a - centre)), axis=-1, keepdims=True)
    z = w * (a - centre) / np.where(scale > 0, scale, np.nan)
    flat = np.isnan(z).any(axis=-1)
    z = np.where(np.isnan(z), 0.0, z)
    design = w[..., None] * z[..., None] ** np.arange(order + 1)
    q, triangle = np.linalg.qr(design)
    scores = np.einsum("...np,...n->...p", q, w * b)
    rss = np.sum((w * b - np.einsum("...np,...p->...n", q, scores)) ** 2, axis=-1)
    corner = triangle[..., order, order]
    usable = (np.abs(corner) > 1e-10) & ~flat
    df = np.where(n - order - 1 > 0, n - order - 1, np.nan)
    unit = np.where(usable, corner, np.nan) * scale[..., 0] ** order
    value = scores[..., order] / unit
    se = np.sqrt(rss / df) / np.abs(unit)
    half = t_quantile(0.5 + level / 2.0, df) * se
    return Coefficient(value, value - half, value + half, df, t_two_sided_p(ratio(value, se), df))


def lack_of_fit(x: ArrayLike, y: ArrayLike) -> tuple[float, float, float, float]:
    """Test a straight line against the scatter of replicates at the same x.

    Parameters
    ----------
    x, y : array-like, shape (n,)
        Equal x are replicates.

    Returns
    -------
    F, df1, df2, p : float
        NaN where no x is repeated or fewer than three x differ.
    """
    a, b, w = _pairs(x, y)
    a, b = a[w > 0], b[w > 0]
    levels, inverse, counts = np.unique(a, return_inverse=True, return_counts=True)
    df1, df2 = float(levels.size - 2), float(a.size - levels.size)
    if df1 < 1 or df2 < 1:
        return np.nan, np.nan, np.nan, np.nan
    means = np.bincount(inverse, b) / counts
    pure = float(np.sum((b - means[inverse]) ** 2))
    line = ols_arrays(a, b)
    lack = float(np.sum(counts * (means - line.intercept - line.slope * levels) ** 2))
    if pure <= 0:
        return (np.inf if lack > 0 else np.nan), df1, df2, (0.0 if lack > 0 else np.nan)
    f = (lack / df1) / (pure / df2)
    return f, df1, df2, float(f_survival(f, df1, df2))
