"""Agreement of two methods on arrays: limits of agreement and the concordance coefficient.

Free of pandas; :mod:`cordqa.stats.agreement` takes tables.

Bland JM, Altman DG. Lancet 1986;1:307. doi:10.1016/S0140-6736(86)90837-8
Bland JM, Altman DG. Stat Methods Med Res 1999;8:135. doi:10.1177/096228029900800204
Carkeet A. Optom Vis Sci 2015;92:e71. doi:10.1097/OPX.0000000000000513
Zou GY. Stat Methods Med Res 2013;22:630. doi:10.1177/0962280211402548
Lin LI. Biometrics 1989;45:255. doi:10.2307/2532051
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.stats.linearity_core import Line, Moments, moments, ols_arrays
from cordqa.stats.quantiles import (
    Bounds,
    add_variances,
    normal_quantile,
    ratio,
    sd_interval,
    t_quantile,
)

__all__ = [
    "Concordance",
    "Limits",
    "RegressionLimits",
    "ccc_arrays",
    "ccc_from_moments",
    "limits_arrays",
    "limits_standard_error",
    "regression_limits",
    "replicated_limits",
    "z_of_coverage",
]

Array = NDArray[np.float64]
LimitsInterval = Literal["exact", "approximate", "bland-altman-1986"]


class Limits(NamedTuple):
    """Limits of agreement with intervals, arrays of shape (...)."""

    bias: Array
    bias_low: Array
    bias_high: Array
    sd: Array
    sd_low: Array
    sd_high: Array
    lower: Array
    lower_low: Array
    lower_high: Array
    upper: Array
    upper_low: Array
    upper_high: Array
    n: Array


def z_of_coverage(coverage: float) -> float:
    """Return the multiplier of the SD; 1.96 for 95 %, as in the papers (not 1.959964)."""
    if not 0.0 < coverage < 1.0:
        raise ConfigError(
            "coverage must lie between 0 and 1", found=repr(coverage), expected="for example 0.95"
        )
    return 1.96 if coverage == 0.95 else normal_quantile(0.5 + coverage / 2.0)


def limits_standard_error(
    sd: ArrayLike, n: ArrayLike, *, z: float = 1.96, rule: Literal["1999", "1986"] = "1999"
) -> Array:
    """Return the standard error of a limit of agreement.

    ``1999``: sqrt(1/n + z^2 / (2 (n - 1))) SD; ``1986``: sqrt(3/n) SD, its rounding.
    """
    count = np.asarray(n, dtype=float)
    if rule == "1986":
        factor = np.sqrt(3.0 / count)
    else:
        factor = np.sqrt(1.0 / count + z**2 / (2.0 * np.where(count > 1, count - 1.0, math.nan)))
    return np.asarray(sd, dtype=float) * factor


def limits_arrays(
    differences: ArrayLike,
    *,
    level: float = 0.95,
    coverage: float = 0.95,
    interval: LimitsInterval = "exact",
    z: float | None = None,
) -> Limits:
    """Return the limits of agreement of one difference per subject.

    Parameters
    ----------
    differences : array-like, shape (..., n_subjects)
        First minus second method, any unit; NaN are left out and not counted.
    level : float
        Confidence level of the intervals of bias, SD and limits.
    coverage : float
        Share of differences that the limits are meant to hold.
    interval : {'exact', 'approximate', 'bland-altman-1986'}
        Noncentral t (exact for normal differences); t with the 1999 standard error; t with
        the standard error sqrt(3/n) SD of the 1986 paper.
    z : float, optional
        Multiplier of the SD in place of that of ``coverage`` (the 1986 paper uses 2).

    Returns
    -------
    Limits
        NaN below two differences.
    """
    d = np.asarray(differences, dtype=float)
    known = np.isfinite(d)
    n = known.sum(axis=-1).astype(float)
    bias = ratio(np.where(known, d, 0.0).sum(axis=-1), n)
    centred = np.where(known, d - bias[..., None], 0.0)
    sd = np.sqrt(ratio((centred**2).sum(axis=-1), np.where(n > 1, n - 1.0, 0.0)))
    half = t_quantile(0.5 + level / 2.0, n - 1.0) * sd / np.sqrt(np.where(n > 0, n, math.nan))
    factor = z_of_coverage(coverage) if z is None else z
    low, high = _limit_bounds(sd, n, factor, level, interval)
    spread = sd_interval(sd, n - 1.0, level=level)
    reach = factor * sd
    return Limits(
        bias, bias - half, bias + half, sd, spread.low, spread.high,
        bias - reach, bias - high, bias - low, bias + reach, bias + low, bias + high, n,
    )  # fmt: skip


def _limit_bounds(sd: Array, n: Array, z: float, level: float, interval: str) -> tuple[Array, Array]:
    """Distance from the bias to the near and the far bound of a limit."""
    tail = (1.0 - level) / 2.0
    df = np.where(n > 1, n - 1.0, math.nan)
    if interval == "exact":
        from scipy import special

        unit = sd / np.sqrt(np.where(n > 0, n, math.nan))
        # The quantile is slow and depends on n only, which few groups differ in.
        counts, inverse = np.unique(df, return_inverse=True)
        shift = z * np.sqrt(counts + 1.0)
        factor = [special.nctdtrit(counts, shift, p)[inverse].reshape(df.shape) for p in (tail, 1.0 - tail)]
        return np.asarray(factor[0] * unit), np.asarray(factor[1] * unit)
    if interval not in ("approximate", "bland-altman-1986"):
        raise ConfigError(
            "interval is not a known choice",
            found=repr(interval),
            expected="exact, approximate or bland-altman-1986",
        )
    rule: Literal["1999", "1986"] = "1999" if interval == "approximate" else "1986"
    half = t_quantile(1.0 - tail, df) * limits_standard_error(sd, n, z=z, rule=rule)
    return z * sd - half, z * sd + half


def replicated_limits(
    first: ArrayLike,
    second: ArrayLike,
    *,
    true_value: Literal["constant", "varying"] = "constant",
    level: float = 0.95,
    coverage: float = 0.95,
) -> Limits:
    """Return limits of agreement of single measurements from replicates.

    The variance of the subjects' mean differences is raised by what averaging took away.  With
    equal numbers of replicates the estimate is that of Bland and Altman 1999; with unequal ones
    harmonic means are used, and the intervals of the limits are Zou's (MOVER) with
    modified-large-sample bounds of the variance.

    Parameters
    ----------
    first, second : array-like, shape (..., n_subjects, m1) and (..., n_subjects, m2)
        Replicates of both methods; NaN where there are fewer.  Subjects without a value of
        either method are left out.
    true_value : {'constant', 'varying'}
        Whether the truth stays the same over a subject's replicates, or changes between them,
        so that replicate j of one method belongs to replicate j of the other (m1 = m2).
    level, coverage : float
        As in :func:`limits_arrays`.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if true_value == "varying":
        if a.shape != b.shape:
            raise ConfigError("paired replicates need as many of one method as of the other")
        parts = [a - b]
        sign = [1.0]
    elif true_value == "constant":
        parts, sign = [a, b], [1.0, -1.0]
    else:
        raise ConfigError(
            "true_value is not a known choice", found=repr(true_value), expected="constant or varying"
        )
    usable = np.logical_and.reduce([np.isfinite(p).any(axis=-1) for p in parts])
    n = usable.sum(axis=-1).astype(float)
    difference = np.zeros(usable.shape)
    terms: list[tuple[Array, Array, Array]] = []
    for part, s in zip(parts, sign, strict=True):
        mean, within, df, harmonic = _within(np.where(usable[..., None], part, math.nan))
        difference = difference + s * mean
        terms.append((1.0 - 1.0 / harmonic, within, df))
    centred = limits_arrays(np.where(usable, difference, math.nan), level=level)
    return _combine(centred, n, terms, level, z_of_coverage(coverage))


def _within(values: Array) -> tuple[Array, Array, Array, Array]:
    """Means per subject, pooled within variance, its df, and harmonic mean of the counts."""
    known = np.isfinite(values)
    m = known.sum(axis=-1).astype(float)
    mean = ratio(np.where(known, values, 0.0).sum(axis=-1), m)
    squares = np.where(known, (values - mean[..., None]) ** 2, 0.0).sum(axis=(-1, -2))
    df = np.maximum(m - 1.0, 0.0).sum(axis=-1)
    inverse = np.where(m > 0, 1.0 / np.where(m > 0, m, 1.0), 0.0).sum(axis=-1)
    harmonic = ratio((m > 0).sum(axis=-1), inverse)
    within = np.where(df > 0, squares / np.where(df > 0, df, 1.0), 0.0)
    return mean, within, df, harmonic


def _combine(
    means: Limits, n: Array, terms: list[tuple[Array, Array, Array]], level: float, z: float
) -> Limits:
    """Add the variance that averaging removed, and bound the limits by MOVER."""
    parts = np.stack([means.sd**2, *(weight * within for weight, within, _ in terms)], axis=-1)
    freedom = np.stack([n - 1.0, *(df for _, _, df in terms)], axis=-1)
    variance = add_variances(parts, freedom, level=level)
    sd = np.sqrt(parts.sum(axis=-1))
    sd_low, sd_high = (np.sqrt(np.maximum(v, 0.0)) for v in variance)
    near, far = z * (sd - sd_low), z * (sd_high - sd)
    # Zou bounds the mean by the normal quantile here: with t the limits cover 98 % at n = 10.
    mean_se = np.sqrt(ratio(means.sd**2, n))
    reach = normal_quantile(0.5 + level / 2.0) * mean_se
    upper, lower = means.bias + z * sd, means.bias - z * sd
    return Limits(
        means.bias, means.bias_low, means.bias_high, sd, sd_low, sd_high,
        lower, lower - np.hypot(reach, far), lower + np.hypot(reach, near),
        upper, upper - np.hypot(reach, near), upper + np.hypot(reach, far), n,
    )  # fmt: skip


class RegressionLimits(NamedTuple):
    """Limits that change with the mean: straight lines for the bias and for the SD."""

    bias: Line
    sd: Line

    def at(
        self, mean: ArrayLike, *, z: float = 1.96, level: float = 0.95
    ) -> tuple[tuple[Array, Array, Array], ...]:
        """Return (value, low, high) of bias, lower and upper limit at a mean, shape (...).

        The intervals are t with the delta method, the two lines taken as independent.
        """
        centre, centre_se = self.bias.at(mean)
        sd, sd_se = self.sd.at(mean)
        sd = np.maximum(sd, 0.0)
        quantile = t_quantile(0.5 + level / 2.0, self.bias.df)
        found = []
        for factor in (0.0, -z, z):
            value = centre + factor * sd
            half = quantile * np.hypot(centre_se, factor * sd_se)
            found.append((value, value - half, value + half))
        return tuple(found)


def regression_limits(mean: ArrayLike, difference: ArrayLike) -> RegressionLimits:
    """Fit limits of agreement that depend on the mean (Bland and Altman 1999, section 3.2).

    The difference is regressed on the mean, then the absolute residuals on the mean; times
    sqrt(pi / 2) they are the SD of normal residuals.

    Parameters
    ----------
    mean, difference : array-like, shape (..., n_subjects)
        NaN pairs are left out.
    """
    m, d = np.asarray(mean, dtype=float), np.asarray(difference, dtype=float)
    line = ols_arrays(m, d)
    residual = np.abs(d - line.intercept[..., None] - line.slope[..., None] * m)
    return RegressionLimits(line, ols_arrays(m, math.sqrt(math.pi / 2.0) * residual))


class Concordance(NamedTuple):
    """Lin's concordance with its parts, arrays of shape (...).

    ``value = r * bias_correction``; ``scale_shift`` is the ratio of the SD of y to that of x
    and ``location_shift`` the difference of means over the geometric mean of the SD.
    """

    value: Array
    low: Array
    high: Array
    r: Array
    bias_correction: Array
    scale_shift: Array
    location_shift: Array
    n: Array


def ccc_from_moments(m: Moments) -> Array:
    """Return Lin's concordance from moments that divide by n."""
    return ratio(2.0 * m.cov, m.var_x + m.var_y + (m.mean_x - m.mean_y) ** 2)


def ccc_arrays(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Concordance:
    """Return Lin's concordance correlation coefficient with its Fisher-z interval.

    Variances divide by n, as in the paper.  It depends on the range of the values as a
    correlation does: spheres from 20 to 2000 ms make it high whatever the error.

    Parameters
    ----------
    x, y : array-like, broadcastable to (..., n)
        Independent pairs; those with a NaN are left out.
    level : float
        Confidence level; NaN bounds below three pairs.
    """
    m = moments(x, y)
    value, r = ccc_from_moments(m), m.r
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = ratio(m.mean_y - m.mean_x, (m.var_x * m.var_y) ** 0.25)
        scale = ratio(np.sqrt(m.var_y), np.sqrt(m.var_x))
        low, high = _fisher_bounds(value, r, shift, m.n, level)
        perfect = (value >= 1.0) & (m.n > 2)
    return Concordance(
        value=value,
        low=np.where(perfect, 1.0, low),
        high=np.where(perfect, 1.0, high),
        r=r,
        bias_correction=ratio(value, r),
        scale_shift=scale,
        location_shift=shift,
        n=m.n,
    )


def _fisher_bounds(value: Array, r: Array, shift: Array, n: Array, level: float) -> Bounds:
    """Asymptotic interval on the scale of atanh (Lin 1989, with the correction of 2000)."""
    rest = 1.0 - value**2
    variance = (
        ratio((1.0 - r**2) * value**2, rest * r**2)
        + ratio(2.0 * value**3 * (1.0 - value) * shift**2, r * rest**2)
        - ratio(value**4 * shift**4, 2.0 * r**2 * rest**2)
    ) / np.where(n > 2, n - 2.0, math.nan)
    half = normal_quantile(0.5 + level / 2.0) * np.sqrt(np.maximum(variance, 0.0))
    z = np.arctanh(np.clip(value, -1.0, 1.0))
    return Bounds(np.tanh(z - half), np.tanh(z + half))
