"""Area under the ROC curve and its uncertainty: array cores.

The area is the chance that a random case scores higher than a random control, ties counting
half.  Its covariance between markers comes from placements (DeLong), found by ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.stats.quantiles import Bounds, normal_quantile

__all__ = [
    "AucInterval",
    "RocAreas",
    "RocCurve",
    "auc_interval",
    "bootstrap_youden",
    "roc_areas",
    "roc_curve",
    "youden_index",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
AucInterval = Literal["auto", "wald", "logit", "score"]


@dataclass(frozen=True, slots=True)
class RocAreas:
    """Areas of m markers measured on the same people.

    Attributes
    ----------
    area : ndarray, shape (m,)
    covariance : ndarray, shape (m, m)
        Sampling covariance of the areas.
    n_cases, n_controls : int
    """

    area: FloatArray
    covariance: FloatArray
    n_cases: int
    n_controls: int


def _midranks(values: FloatArray) -> FloatArray:
    """Ranks from 1 along the last axis, ties sharing their mean rank."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    n = values.shape[-1]
    position = np.arange(n)
    new = np.concatenate([np.ones((*values.shape[:-1], 1), bool), np.diff(ordered, axis=-1) != 0], axis=-1)
    first = np.maximum.accumulate(np.where(new, position, 0), axis=-1)
    last_reversed = np.concatenate([new[..., 1:], np.ones((*values.shape[:-1], 1), bool)], axis=-1)[..., ::-1]
    last = (n - 1 - np.maximum.accumulate(np.where(last_reversed, position, 0), axis=-1))[..., ::-1]
    ranks = np.empty_like(values, dtype=float)
    np.put_along_axis(ranks, order, 0.5 * (first + last) + 1.0, axis=-1)
    return ranks


def roc_areas(
    scores: NDArray[np.floating],
    is_case: BoolArray,
    *,
    clusters: IntArray | None = None,
) -> RocAreas:
    """Areas under the ROC curves of markers, with their joint covariance.

    Parameters
    ----------
    scores : ndarray, shape (m, n) or (n,)
        Finite marker values; high values speak for a case.
    is_case : ndarray of bool, shape (n,)
    clusters : ndarray of int, shape (n,), optional
        Whom each value belongs to where people contribute several values; the covariance then
        counts people, not values.

    Returns
    -------
    RocAreas
        Estimator: Mann-Whitney with ties one half; covariance of DeLong et al. by midranks, of
        Obuchowski with clusters.  The covariance is NaN with fewer than two cases or controls.

    Raises
    ------
    InputError
        If there is no case or no control, or a score is not finite.

    References
    ----------
    DeLong E. R. et al. 1988, Biometrics 44:837, doi:10.2307/2531595.
    Sun X., Xu W. 2014, IEEE Signal Process Lett 21:1389, doi:10.1109/LSP.2014.2337313.
    Obuchowski N. A. 1997, Biometrics 53:567, doi:10.2307/2533958.
    """
    table = np.atleast_2d(np.asarray(scores, dtype=float))
    case = np.asarray(is_case, dtype=bool)
    if case.shape != table.shape[1:]:
        raise InputError("scores and outcome differ in length")
    if not np.all(np.isfinite(table)):
        raise InputError("a score is not finite", todo="leave the row out or fill it in")
    n_cases, n_controls = int(case.sum()), int((~case).sum())
    if not n_cases or not n_controls:
        raise InputError(
            "an ROC curve needs cases and controls", found=f"{n_cases} cases and {n_controls} controls"
        )
    together = _midranks(table)
    of_cases = (together[:, case] - _midranks(table[:, case])) / n_controls
    of_controls = 1.0 - (together[:, ~case] - _midranks(table[:, ~case])) / n_cases
    area = of_cases.mean(axis=1)
    if clusters is None:
        covariance = _covariance(of_cases) / n_cases + _covariance(of_controls) / n_controls
    else:
        covariance = _clustered(of_cases, of_controls, area, case, np.asarray(clusters))
    return RocAreas(area, covariance, n_cases, n_controls)


def _covariance(placements: FloatArray) -> FloatArray:
    n = placements.shape[1]
    if n < 2:
        return np.full((placements.shape[0],) * 2, np.nan)
    centred = placements - placements.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T / (n - 1))


def _clustered(
    of_cases: FloatArray, of_controls: FloatArray, area: FloatArray, case: BoolArray, clusters: IntArray
) -> FloatArray:
    """Covariance with people as units; a person may hold cases and controls."""
    _, person = np.unique(clusters, return_inverse=True)
    n_people, n_markers = int(person.max()) + 1, area.size
    sums = np.zeros((2, n_people, n_markers))
    np.add.at(sums[0], person[case], of_cases.T - area)
    np.add.at(sums[1], person[~case], of_controls.T - area)
    with_case = np.unique(person[case]).size
    with_control = np.unique(person[~case]).size
    if min(with_case, with_control) < 2:
        return np.full((n_markers, n_markers), np.nan)
    n_cases, n_controls = of_cases.shape[1], of_controls.shape[1]
    cross = sums[0].T @ sums[1] * n_people / (n_people - 1) / (n_cases * n_controls)
    return np.asarray(
        sums[0].T @ sums[0] * with_case / (with_case - 1) / n_cases**2
        + sums[1].T @ sums[1] * with_control / (with_control - 1) / n_controls**2
        + cross
        + cross.T
    )


def auc_interval(
    area: FloatArray,
    variance: FloatArray,
    n_cases: int,
    n_controls: int,
    *,
    level: float = 0.95,
    method: AucInterval = "auto",
) -> tuple[Bounds, list[str]]:
    """Intervals of areas under ROC curves and the method used for each.

    Parameters
    ----------
    area, variance : ndarray, shape (m,)
    n_cases, n_controls : int
    level : float
    method : {'auto', 'wald', 'logit', 'score'}
        ``auto``: on the logit of the area, and the score interval where all cases lie above (or
        below) all controls, because the estimated variance is then zero.  The plain interval on
        the area (``wald``, what pROC prints) falls short in small samples and near 1:
        ``benchmarks/diagnostic_coverage.py`` shows by how much.

    Returns
    -------
    bounds : Bounds
    methods : list of str

    References
    ----------
    Newcombe R. G. 2006, Stat Med 25:559, doi:10.1002/sim.2324 (score interval, method 5).
    """
    a, v = np.atleast_1d(np.asarray(area, float)), np.atleast_1d(np.asarray(variance, float))
    low, high = np.full(a.shape, np.nan), np.full(a.shape, np.nan)
    names = []
    for index, (one, spread) in enumerate(zip(a, v, strict=True)):
        if np.isnan(spread) and method != "score":
            names.append("")
            continue
        chosen = ("logit" if spread > 0.0 else "score") if method == "auto" else method
        low[index], high[index] = _one_interval(chosen, one, spread, n_cases, n_controls, level)
        names.append(_INTERVAL_NAMES[chosen])
    return Bounds(low, high), names


_INTERVAL_NAMES = {
    "wald": "DeLong",
    "logit": "DeLong on the logit",
    "score": "score (Newcombe, method 5)",
}


def _one_interval(
    method: str, area: float, variance: float, n_cases: int, n_controls: int, level: float
) -> tuple[float, float]:
    z = normal_quantile(0.5 + 0.5 * level)
    if method == "score":
        return _score_interval(area, n_cases, n_controls, z)
    if method == "wald":
        half = z * float(np.sqrt(variance))
        return max(0.0, area - half), min(1.0, area + half)
    if not 0.0 < area < 1.0:
        return float("nan"), float("nan")
    logit = float(np.log(area / (1.0 - area)))
    half = z * float(np.sqrt(variance)) / (area * (1.0 - area))
    ends = [float(1.0 / (1.0 + np.exp(-(logit + sign * half)))) for sign in (-1.0, 1.0)]
    return ends[0], ends[1]


def _score_interval(area: float, n_cases: int, n_controls: int, z: float) -> tuple[float, float]:
    """Areas whose own standard error would put the observed one at the edge."""
    from scipy.optimize import brentq

    extra = 0.5 * (n_cases + n_controls) - 1.0

    def excess(theta: float) -> float:
        inner = 1.0 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * inner / (n_cases * n_controls)
        return float((area - theta) ** 2 - z**2 * variance)

    # An area of exactly 1 (or 0) is itself a root; the bound is the other one.
    tiny = 1e-9
    inside = min(max(area, tiny), 1.0 - tiny)
    low = brentq(excess, tiny, inside) if area > tiny and excess(tiny) > 0 else 0.0
    high = brentq(excess, inside, 1 - tiny) if area < 1 - tiny and excess(1 - tiny) > 0 else 1.0
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Points of an ROC curve, from the strictest threshold to the laxest.

    Attributes
    ----------
    threshold : ndarray, shape (k,)
        Half way between neighbouring values; infinite at both ends.  A value above it is called
        positive.
    true_positives, false_positives : ndarray of float, shape (k,)
        Counts.
    n_cases, n_controls : int
    """

    threshold: FloatArray
    true_positives: FloatArray
    false_positives: FloatArray
    n_cases: int
    n_controls: int

    @property
    def sensitivity(self) -> FloatArray:
        """True positives over cases."""
        return self.true_positives / self.n_cases

    @property
    def specificity(self) -> FloatArray:
        """True negatives over controls."""
        return 1.0 - self.false_positives / self.n_controls


def roc_curve(scores: FloatArray, is_case: BoolArray) -> RocCurve:
    """All thresholds of one marker; high values speak for a case.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    is_case : ndarray of bool, shape (n,)

    Returns
    -------
    RocCurve
    """
    values, cases, controls = _tally(scores, is_case)
    middle = 0.5 * (values[1:] + values[:-1])
    threshold = np.concatenate([[np.inf], middle[::-1], [-np.inf]])
    above_cases = np.concatenate([[0.0], np.cumsum(cases[::-1])])
    above_controls = np.concatenate([[0.0], np.cumsum(controls[::-1])])
    return RocCurve(threshold, above_cases, above_controls, int(cases.sum()), int(controls.sum()))


def _tally(scores: FloatArray, is_case: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distinct values in rising order with the number of cases and controls at each."""
    values, place = np.unique(np.asarray(scores, dtype=float), return_inverse=True)
    case = np.asarray(is_case, dtype=bool)
    cases = np.bincount(place[case], minlength=values.size).astype(float)
    controls = np.bincount(place[~case], minlength=values.size).astype(float)
    return values, cases, controls


def youden_index(curve: RocCurve) -> int:
    """Index of the point with the largest sensitivity plus specificity.

    Where several are equal, the middle one of them, so that the threshold is not an extreme.
    """
    sum_of_both = curve.sensitivity + curve.specificity
    best = np.flatnonzero(sum_of_both >= sum_of_both.max() - 1e-12)
    return int(best[(best.size - 1) // 2])


def bootstrap_youden(
    scores: FloatArray,
    is_case: BoolArray,
    *,
    clusters: IntArray | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Resample people, cases and controls apart, and find the best threshold anew each time.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    is_case : ndarray of bool, shape (n,)
    clusters : ndarray of int, shape (n,), optional
        Whom each value belongs to where people contribute several.
    n_bootstrap, seed : int

    Returns
    -------
    dict of ndarray, shape (n_bootstrap,)
        ``threshold``, ``sensitivity``, ``specificity`` and ``J`` of each resample.  A best
        threshold beyond the values is given as the outermost value.
    """
    values, place = np.unique(np.asarray(scores, dtype=float), return_inverse=True)
    case = np.asarray(is_case, dtype=bool)
    person = np.arange(case.size) if clusters is None else np.asarray(clusters)
    generator = np.random.default_rng(seed)
    # Column k counts the resampled values at values[k].
    drawn_cases, drawn_controls = (
        _draw_counts(place[chosen], person[chosen], values.size, n_bootstrap, generator)
        for chosen in (case, ~case)
    )
    # Cut k lies just above value k: everything after it is called positive.
    sensitivity = 1.0 - np.cumsum(drawn_cases, axis=1) / drawn_cases.sum(axis=1, keepdims=True)
    specificity = np.cumsum(drawn_controls, axis=1) / drawn_controls.sum(axis=1, keepdims=True)
    best = np.argmax(sensitivity + specificity, axis=1)
    row = np.arange(n_bootstrap)
    middle = np.concatenate([0.5 * (values[1:] + values[:-1]), values[-1:]])
    found_sensitivity, found_specificity = sensitivity[row, best], specificity[row, best]
    return {
        "threshold": middle[best],
        "sensitivity": found_sensitivity,
        "specificity": found_specificity,
        "J": found_sensitivity + found_specificity - 1.0,
    }


def _draw_counts(
    place: IntArray, person: IntArray, n_values: int, n_bootstrap: int, generator: np.random.Generator
) -> FloatArray:
    """Counts at every distinct value in samples of people with replacement, (n_bootstrap, n_values)."""
    _, who = np.unique(person, return_inverse=True)
    n_people = int(who.max()) + 1
    held = np.zeros((n_people, n_values))
    np.add.at(held, (who, place), 1.0)
    drawn = generator.multinomial(n_people, np.full(n_people, 1.0 / n_people), n_bootstrap)
    return np.asarray(drawn @ held)
