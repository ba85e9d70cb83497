"""How two measures of the same places go together: arrays in, numbers out.

A table of regions of subjects has two kinds of dependence: regions of one subject share what is
particular to the subject, and one region is alike in all subjects.  Here subjects are what is drawn
from a population and left out or resampled; regions are the ones of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.stats.linearity_core import cluster_jackknife, moments
from cordqa.stats.quantiles import normal_quantile, t_two_sided_p

__all__ = ["Calibration", "Related", "clustered_correlation", "fit_calibration", "within_correlation"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

OUTSIDE = "outside the range of the calibration"
NOT_A_NUMBER = "no value to convert"
_FEWEST_CLUSTERS = 4
#: A difference of an information criterion that says something.
_TELLING = 2.0


@dataclass(frozen=True, slots=True)
class Related:
    """A correlation with its interval and what it rests on."""

    value: float
    low: float
    high: float
    p: float
    n: int
    n_subjects: int
    note: str = ""


def _labels(subjects: ArrayLike) -> Labels:
    numbered: Labels = np.unique(np.asarray(subjects, dtype=object).astype(str), return_inverse=True)[1]
    return numbered


def _complete(x: ArrayLike, y: ArrayLike, subjects: ArrayLike) -> tuple[Array, Array, Labels]:
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    labels = _labels(subjects)
    if not a.shape == b.shape == labels.shape or a.ndim != 1:
        raise InputError(
            "values and subjects must be lists of one length", found=f"{a.shape}, {b.shape}, {labels.shape}"
        )
    known = np.isfinite(a) & np.isfinite(b)
    return a[known], b[known], labels[known]


def clustered_correlation(x: ArrayLike, y: ArrayLike, subjects: ArrayLike, *, level: float = 0.95) -> Related:
    """Pearson correlation of all pairs, with an interval over subjects.

    Fisher's z of all pairs, its standard error by leaving out one subject after the other, and t with
    one degree of freedom less than there are subjects.  Pairs of one subject may be as dependent as
    they like.

    Parameters
    ----------
    x, y, subjects : array_like, shape (n,)
    level : float

    Returns
    -------
    Related
        NaN with a note where a measure does not vary; no interval below four subjects.
    """
    a, b, labels = _complete(x, y, subjects)
    count = np.unique(labels).size
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return _nothing(a.size, count, "needs three pairs, and measures that vary")
    value = float(moments(a, b).r)
    if count < _FEWEST_CLUSTERS or abs(value) > 1 - 1e-12:
        note = "fewer than four subjects" if count < _FEWEST_CLUSTERS else "pairs on one line"
        return Related(value, math.nan, math.nan, math.nan, a.size, count, f"no interval: {note}")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = cluster_jackknife(lambda m: np.arctanh(m.r), a, b, clusters=labels, level=level)
    return Related(
        value, float(np.tanh(found.low)), float(np.tanh(found.high)), float(found.p), a.size, count
    )


def _nothing(n: int, subjects: int, note: str) -> Related:
    return Related(math.nan, math.nan, math.nan, math.nan, n, subjects, note)


def within_correlation(x: ArrayLike, y: ArrayLike, subjects: ArrayLike, *, level: float = 0.95) -> Related:
    """Repeated-measures correlation: how the measures go together within subjects.

    Subjects have intercepts of their own and a slope in common; the interval is Fisher's for
    n - subjects - 1 degrees of freedom, which takes pairs of one subject as independent about their
    line.

    Parameters
    ----------
    x, y, subjects : array_like, shape (n,)
    level : float

    References
    ----------
    .. [1] Bakdash and Marusich, Front Psychol 2017, doi:10.3389/fpsyg.2017.00456
    """
    a, b, labels = _complete(x, y, subjects)
    inverse = np.unique(labels, return_inverse=True)[1]
    count = int(inverse.max()) + 1 if inverse.size else 0
    size = np.bincount(inverse, minlength=count)
    free = a.size - count - 1
    if free < 1:
        return _nothing(a.size, count, "needs several pairs per subject")
    dx = a - (np.bincount(inverse, a, count) / size)[inverse]
    dy = b - (np.bincount(inverse, b, count) / size)[inverse]
    square = float((dx**2).sum() * (dy**2).sum())
    if square <= 0:
        return _nothing(a.size, count, "a measure does not vary within subjects")
    value = float(np.clip((dx * dy).sum() / math.sqrt(square), -1.0, 1.0))
    if free < 3 or abs(value) > 1 - 1e-12:
        return Related(value, math.nan, math.nan, math.nan, a.size, count, "no interval: too few pairs")
    half = float(normal_quantile(0.5 + level / 2)) / math.sqrt(free - 1)
    z = math.atanh(value)
    p = float(t_two_sided_p(np.asarray(value * math.sqrt(free / (1 - value**2))), np.asarray(float(free))))
    return Related(value, math.tanh(z - half), math.tanh(z + half), p, a.size, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A line or parabola by which one measure is converted to another.

    Attributes
    ----------
    order : int
        1 or 2: that of the smaller AICc, and 1 unless it is smaller by more than 2.
    coefficients : tuple of float
        Constant first.
    low, high : float
        Smallest and largest x that was seen.
    aicc, bic : tuple of float
        Of order 1 and 2, each with an intercept of its own per subject.
    r2, residual_sd : float
        Of the chosen order.
    n, n_subjects : int
    covariance : ndarray, shape (order + 1, order + 1)
        Of the coefficients, robust against dependence within subjects.
    decision : str
        In words.
    """

    order: int
    coefficients: tuple[float, ...]
    low: float
    high: float
    aicc: tuple[float, float]
    bic: tuple[float, float]
    r2: float
    residual_sd: float
    n: int
    n_subjects: int
    covariance: Array
    decision: str

    def convert(self, x: ArrayLike) -> tuple[Array, Array, NDArray[np.str_]]:
        """Convert values inside the range that was seen.

        Returns
        -------
        values, standard_errors : ndarray
            NaN outside the range: nothing is extrapolated.  The error is that of the curve, not of a
            single new pair.
        reasons : ndarray of str
            Empty where there is a value.
        """
        given = np.asarray(x, dtype=float)
        inside = (given >= self.low) & (given <= self.high)
        design = given[..., None] ** np.arange(self.order + 1)
        with np.errstate(invalid="ignore"):
            values = design @ np.asarray(self.coefficients)
            errors = np.sqrt(np.einsum("...p,pq,...q->...", design, self.covariance, design))
        reasons = np.where(np.isfinite(given), np.where(inside, "", OUTSIDE), NOT_A_NUMBER)
        return np.where(inside, values, np.nan), np.where(inside, errors, np.nan), reasons


def fit_calibration(x: ArrayLike, y: ArrayLike, subjects: ArrayLike) -> Calibration:
    """Fit a line and a parabola, and keep the parabola where the data ask for it.

    The coefficients are those of least squares over all pairs.  The criteria that choose between line
    and parabola are those of the same curves with a random intercept per subject (maximum likelihood):
    with pairs taken as independent, what subjects have in common bends a straight relation into a
    parabola in a third to a half of all studies.

    Parameters
    ----------
    x, y, subjects : array_like, shape (n,)

    Raises
    ------
    InputError
        With fewer than six pairs or four different x.
    """
    a, b, labels = _complete(x, y, subjects)
    if a.size < 6 or np.unique(a).size < 4:
        raise InputError(
            "a calibration needs six pairs and four different values",
            found=f"{a.size} pairs, {np.unique(a).size} values",
        )
    fits = [_polynomial(a, b, order) for order in (1, 2)]
    deviances = [_mixed_deviance(a, b, labels, order) for order in (1, 2)]
    extra = 2 if np.bincount(labels).max() > 1 else 1
    aicc = tuple(_aicc(d, a.size, n + 1 + extra) for n, d in enumerate(deviances, start=1))
    bic = tuple(_bic(d, a.size, n + 1 + extra) for n, d in enumerate(deviances, start=1))
    gain = aicc[0] - aicc[1]
    order = 2 if gain > _TELLING else 1
    coefficients, rss = fits[order - 1]
    total = float(((b - b.mean()) ** 2).sum())
    return Calibration(
        order=order,
        coefficients=tuple(float(c) for c in coefficients),
        low=float(a.min()),
        high=float(a.max()),
        aicc=(aicc[0], aicc[1]),
        bic=(bic[0], bic[1]),
        r2=1 - rss / total if total > 0 else math.nan,
        residual_sd=math.sqrt(rss / (a.size - order - 1)),
        n=a.size,
        n_subjects=int(np.unique(labels).size),
        covariance=_robust_covariance(a, b - _evaluate(coefficients, a), labels, order),
        decision=_decide(gain, bic[0] - bic[1]),
    )


def _polynomial(x: Array, y: Array, order: int) -> tuple[Array, float]:
    """Coefficients, constant first, and residual sum of squares; fitted about the middle of x."""
    middle, half = float(x.mean()), float(np.ptp(x)) / 2
    scaled: Array = np.asarray(np.polynomial.polynomial.polyfit((x - middle) / half, y, order), dtype=float)
    rss = float(((y - _evaluate(scaled, (x - middle) / half)) ** 2).sum())
    shifted = np.polynomial.Polynomial(scaled)(np.polynomial.Polynomial([-middle / half, 1 / half]))
    coefficients = np.zeros(order + 1)
    coefficients[: shifted.coef.size] = shifted.coef
    return coefficients, rss


def _evaluate(coefficients: Array, x: Array) -> Array:
    values: Array = np.asarray(np.polynomial.polynomial.polyval(x, coefficients), dtype=float)
    return values


def _mixed_deviance(x: Array, y: Array, labels: Labels, order: int) -> float:
    """Twice the negative log-likelihood with a random intercept per subject, least over its variance."""
    design = ((x - x.mean()) / (np.ptp(x) / 2))[:, None] ** np.arange(order + 1)
    both = np.column_stack([design, y])
    inverse = np.unique(labels, return_inverse=True)[1]
    size = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, column) / size for column in both.T], axis=1)
    # Rounding is no evidence for a parabola.
    least = max(1e-20 * float((y**2).sum()), 1e-300)

    def deviance(ratio: float) -> float:
        # Taking off a part of the mean of its subject makes the errors of all pairs independent.
        part = 1 - 1 / np.sqrt(1 + size * ratio)
        turned = both - (part[:, None] * means)[inverse]
        rest = turned[:, -1] - turned[:, :-1] @ np.linalg.lstsq(turned[:, :-1], turned[:, -1])[0]
        rss = max(float(rest @ rest), least)
        return x.size * math.log(rss / x.size) + float(np.log1p(size * ratio).sum())

    if size.max() == 1:
        return deviance(0.0)
    tried = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 43)])
    found = [deviance(ratio) for ratio in tried]
    best = int(np.argmin(found))
    near = np.linspace(tried[max(best - 1, 0)], tried[min(best + 1, tried.size - 1)], 17)
    return min(found[best], *(deviance(ratio) for ratio in near))


def _aicc(deviance: float, n: int, k: int) -> float:
    """Small-sample criterion; k counts the variances as well."""
    if n - k - 1 <= 0:
        return math.inf
    return deviance + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _bic(deviance: float, n: int, k: int) -> float:
    return deviance + k * math.log(n)


def _decide(gain_aicc: float, gain_bic: float) -> str:
    if gain_aicc > _TELLING:
        other = "BIC agrees" if gain_bic > _TELLING else "BIC does not support it"
        return f"quadratic: AICc lower by {gain_aicc:.1f}; {other} ({gain_bic:+.1f})"
    if gain_aicc < -_TELLING:
        return f"linear: AICc of the quadratic higher by {-gain_aicc:.1f}"
    return f"linear: the two are not told apart (AICc differs by {gain_aicc:+.1f})"


def _robust_covariance(x: Array, residual: Array, labels: Labels, order: int) -> Array:
    """Sandwich over subjects with the factor k/(k-1) (CR1); NaN below two subjects."""
    design = x[:, None] ** np.arange(order + 1)
    scale = np.abs(design).max(axis=0)
    scaled = design / scale
    bread = np.linalg.pinv(scaled.T @ scaled)
    unique = np.unique(labels)
    if unique.size < 2:
        return np.full((order + 1, order + 1), np.nan)
    scores = np.stack([scaled[labels == one].T @ residual[labels == one] for one in unique])
    factor = unique.size / (unique.size - 1) * (x.size - 1) / max(1, x.size - order - 1)
    covariance: Array = factor * bread @ (scores.T @ scores) @ bread / np.outer(scale, scale)
    return covariance
