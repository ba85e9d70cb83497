"""Spread of repeats within subjects, on arrays: wSD, repeatability coefficient and wCV.

Free of pandas; :mod:`cordqa.stats.repeatability` takes tables.

Three forms of the within-subject coefficient of variation are computed.

- ``rms``: root mean square of s/m per subject.  Right up to about 15 %; above, the noise of
  the means in its denominators makes it too large and its chi-squared interval too short
  (95 % intervals cover 92 % at a CV of 20 % and 86 % at 30 %, normal errors, 35 pairs).
- ``log``: sqrt(exp(s^2) - 1) from logarithms.  Exact where errors are log-normal; where they
  are normal it is too large (coverage 88 % at 20 % and 65 % at 30 %).
- ``symmetric``: ``rms`` corrected for the noise of the means, for errors that are symmetric on
  the scale of the values (coverage 94 to 95 % up to 30 %).

Two repeats cannot tell a normal from a log-normal error, so all three are given.  A mean of
per-subject CV is not: it is biased low.

Raunig DL, et al. Stat Methods Med Res 2015;24:27. doi:10.1177/0962280214537344
Obuchowski NA, Bullen J. Quantitative imaging biomarkers: effect of sample size and bias on
confidence interval coverage. Stat Methods Med Res 2018;27:3139.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.stats.quantiles import Bounds, sd_interval
from cordqa.stats.scale import refuse_relative

__all__ = [
    "CV_FORMS",
    "CV_SWITCH",
    "REPEATABILITY_FACTOR",
    "CvForm",
    "Repeatability",
    "asymmetric_limits",
    "repeatability_arrays",
]

Array = NDArray[np.float64]
CvForm = Literal["auto", "rms", "log", "symmetric"]

#: 1.96 sqrt(2): two measurements of one subject differ by more than this times wSD in 5 %.
REPEATABILITY_FACTOR = 1.96 * math.sqrt(2.0)
#: RMS wCV above which the log form is taken (measured; see the module's text).
CV_SWITCH = 0.15
#: Order of the forms in ``Repeatability.form``.
CV_FORMS = ("rms", "log", "symmetric")


class Repeatability(NamedTuple):
    """Within-subject spread with intervals, arrays of shape (...).

    ``wcv`` and its bounds are fractions, shape (..., 3) in the order of ``CV_FORMS``; NaN where
    refused.  ``form`` is the index of the form that the level of the CV calls for and
    ``refusal`` the reason against any (:data:`~cordqa.stats.scale.RELATIVE_REFUSALS`).
    """

    wsd: Array
    wsd_low: Array
    wsd_high: Array
    df: Array
    mean: Array
    wcv: Array
    wcv_low: Array
    wcv_high: Array
    log_sd: Array
    log_sd_low: Array
    log_sd_high: Array
    form: NDArray[np.int64]
    refusal: NDArray[np.int64]
    n_subjects: NDArray[np.int64]
    n_single: NDArray[np.int64]
    n_values: NDArray[np.int64]


def repeatability_arrays(
    values: ArrayLike, *, scale: str = "ratio", level: float = 0.95, form: CvForm = "auto"
) -> Repeatability:
    """Return the within-subject SD and CV of repeated measurements.

    Parameters
    ----------
    values : array-like, shape (..., n_subjects, n_repeats)
        NaN where a subject has fewer repeats.  Subjects with one value add nothing to the
        spread and are counted in ``n_single``.
    scale : {'ratio', 'interval'}
        Of the quantity; an interval scale has no CV.
    level : float
        Confidence level of the chi-squared intervals.
    form : {'auto', 'rms', 'log', 'symmetric'}
        Which CV counts; ``auto`` takes ``rms`` up to ``CV_SWITCH`` and ``log`` above.

    Returns
    -------
    Repeatability
        wSD pools the variances with their degrees of freedom.  NaN where nothing is repeated.
        The repeatability coefficient is ``REPEATABILITY_FACTOR`` times wSD, with its bounds.
    """
    y = np.asarray(values, dtype=float)
    known = np.isfinite(y)
    count = known.sum(axis=-1)
    free = np.maximum(count - 1, 0).astype(float)
    df = free.sum(axis=-1)
    means, squares = _spread(y, known, count)
    pooled = _pool(squares, df)
    wsd = np.sqrt(pooled)
    total = count.sum(axis=-1)
    centre = np.where(known, y, 0.0).sum(axis=(-2, -1)) / np.where(total > 0, total, math.nan)
    least = np.where(known, y, math.inf).min(axis=(-2, -1), initial=math.inf)
    rms, symmetric = _relative(means, squares, free, count, df)
    # Three SD from zero, per subject: the mean of all would mix in the spread of the subjects.
    refusal = refuse_relative(least, np.ones_like(rms), rms, scale=scale)
    allowed = refusal == 0
    log_sd = _log_sd(y, known, count, df, allowed)
    cv = np.stack([rms, np.sqrt(np.expm1(log_sd**2)), symmetric], axis=-1)
    cv = np.where(allowed[..., None], cv, math.nan)
    log_bounds = sd_interval(log_sd, df, level=level)
    low, high = _cv_bounds(cv, log_bounds, df, level)
    wsd_bounds = sd_interval(wsd, df, level=level)
    return Repeatability(
        wsd, wsd_bounds.low, wsd_bounds.high, df, centre, cv, low, high,
        log_sd, log_bounds.low, log_bounds.high, _choose(cv, form), refusal,
        n_subjects=(count > 1).sum(axis=-1),
        n_single=(count == 1).sum(axis=-1),
        n_values=total,
    )  # fmt: skip


def _spread(y: Array, known: NDArray[np.bool_], count: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean and sum of squares of every subject."""
    means = np.where(known, y, 0.0).sum(axis=-1) / np.where(count > 0, count, math.nan)
    squares = np.where(known, (y - means[..., None]) ** 2, 0.0).sum(axis=-1)
    return means, squares


def _pool(squares: Array, df: Array) -> Array:
    return np.asarray(squares.sum(axis=-1) / np.where(df > 0, df, math.nan), dtype=float)


def _log_sd(
    y: Array, known: NDArray[np.bool_], count: NDArray[np.int64], df: Array, allowed: NDArray[np.bool_]
) -> Array:
    safe = np.where(known & allowed[..., None, None], y, 1.0)
    _, squares = _spread(np.log(np.where(safe > 0, safe, 1.0)), known, count)
    return np.where(allowed, np.sqrt(_pool(squares, df)), math.nan)


def _relative(
    means: Array, squares: Array, free: Array, count: NDArray[np.int64], df: Array
) -> tuple[Array, Array]:
    """RMS form, and the same corrected for the noise of the means.

    With errors proportional to the value, s^2 / m^2 is on average c^2 (1 + 3 c^2 / K) for K
    repeats (second order); the correction solves this for c.
    """
    use = free > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(use, squares / np.where(use, means**2, 1.0), 0.0)
    mean_square = _pool(relative, df)
    inverse = _pool(np.where(use, free / np.maximum(count, 1), 0.0), df)
    corrected = (np.sqrt(1.0 + 12.0 * inverse * mean_square) - 1.0) / (6.0 * inverse)
    return np.sqrt(mean_square), np.sqrt(corrected)


def _cv_bounds(cv: Array, log_bounds: Bounds, df: Array, level: float) -> Bounds:
    plain = sd_interval(cv, df[..., None], level=level)
    low, high = plain.low.copy(), plain.high.copy()
    low[..., 1] = np.where(np.isnan(cv[..., 1]), math.nan, np.sqrt(np.expm1(log_bounds.low**2)))
    with np.errstate(over="ignore"):
        high[..., 1] = np.where(np.isnan(cv[..., 1]), math.nan, np.sqrt(np.expm1(log_bounds.high**2)))
    return Bounds(low, high)


def _choose(cv: Array, form: str) -> NDArray[np.int64]:
    if form == "auto":
        above: NDArray[np.int64] = (cv[..., 0] > CV_SWITCH).astype(np.int64)
        return above
    if form not in CV_FORMS:
        raise ConfigError(
            "form is not a known choice", found=repr(form), expected="auto, rms, log or symmetric"
        )
    return np.full(cv.shape[:-1], CV_FORMS.index(form), dtype=np.int64)


def asymmetric_limits(log_sd: ArrayLike) -> tuple[Array, Array]:
    """Return how far two measurements of one subject may lie apart, in percent down and up.

    Parameters
    ----------
    log_sd : array-like
        Within-subject SD of the natural logarithms.
    """
    reach = REPEATABILITY_FACTOR * np.asarray(log_sd, dtype=float)
    return 100.0 * np.expm1(-reach), 100.0 * np.expm1(reach)
