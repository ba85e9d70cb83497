"""Combining markers by logistic regression, judged on people the fit has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.stats.roc import RocAreas, roc_areas

__all__ = ["CrossValidatedAuc", "LogisticFit", "cross_validated_auc", "fit_logistic"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_STEPS = 60
_TOLERANCE = 1e-9
_LARGEST_PREDICTOR = 500.0
#: Standardised coefficients beyond this mean that the likelihood has no maximum.
_SEPARATED = 15.0


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Logistic regressions on F subsets of the same people.

    Attributes
    ----------
    coefficients : ndarray, shape (F, p + 1)
        Intercept first, per unit of each marker as given.
    scores : ndarray, shape (F, n)
        Linear predictor of everyone, also of those left out.
    converged : ndarray of bool, shape (F,)
        False where the markers separate cases from controls completely and no penalty was set:
        the coefficients then grow without end, though the ranking is settled.
    """

    coefficients: FloatArray
    scores: FloatArray
    converged: BoolArray


def fit_logistic(
    markers: FloatArray,
    is_case: BoolArray,
    *,
    used: BoolArray | None = None,
    ridge: float = 0.0,
) -> LogisticFit:
    """Fit logistic regressions by iteratively reweighted least squares, many subsets at once.

    Parameters
    ----------
    markers : ndarray, shape (n, p)
        Finite values, one column per marker.
    is_case : ndarray of bool, shape (n,)
    used : ndarray of bool, shape (F, n), optional
        Who takes part in each fit; everyone in one fit where omitted.
    ridge : float
        Penalty on the squared standardised coefficients (not the intercept), as half of
        ``ridge`` times their sum in the log-likelihood.  Zero is maximum likelihood.

    Returns
    -------
    LogisticFit
    """
    table = np.asarray(markers, dtype=float)
    case = np.asarray(is_case, dtype=float)
    if table.ndim != 2 or table.shape[0] != case.size or not np.all(np.isfinite(table)):
        raise InputError("markers must be a finite table with one row per person")
    if ridge < 0.0:
        raise InputError("the ridge penalty must not be negative", found=str(ridge))
    centre, spread = table.mean(axis=0), table.std(axis=0)
    if np.any(spread <= 1e-12 * np.maximum(np.abs(centre), 1e-300)):
        raise InputError("a marker has the same value in everyone", todo="leave it out")
    scaled = np.column_stack([np.ones(case.size), (table - centre) / spread])
    if np.linalg.matrix_rank(scaled) < scaled.shape[1]:
        raise InputError("the markers are linearly dependent", todo="leave one out")
    weight = np.ones((1, case.size)) if used is None else np.asarray(used, dtype=float)
    coefficients, converged = _reweight(scaled, case, weight, ridge)
    scores = coefficients @ scaled.T
    raw = coefficients[:, 1:] / spread
    intercept = coefficients[:, 0] - raw @ centre
    return LogisticFit(np.column_stack([intercept, raw]), scores, converged)


def _reweight(
    design: FloatArray, case: FloatArray, weight: FloatArray, ridge: float
) -> tuple[FloatArray, BoolArray]:
    """Newton's method with halved steps for all subsets side by side."""
    n_fits, n_columns = weight.shape[0], design.shape[1]
    penalty = np.diag([0.0, *([ridge] * (n_columns - 1))])
    beta = np.zeros((n_fits, n_columns))
    loss = _loss(beta, design, case, weight, ridge)
    converged = np.zeros(n_fits, dtype=bool)
    for _ in range(_STEPS):
        predictor = beta @ design.T
        bounded = np.clip(predictor, -_LARGEST_PREDICTOR, _LARGEST_PREDICTOR)
        chance = 1.0 / (1.0 + np.exp(-bounded))
        gradient = (weight * (chance - case)) @ design + beta @ penalty
        curvature = np.einsum("fn,ni,nj->fij", weight * chance * (1.0 - chance), design, design) + penalty
        curvature[:, range(n_columns), range(n_columns)] += 1e-10
        step = -np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        decrement = -np.sum(gradient * step, axis=1)
        converged = decrement < _TOLERANCE
        scale = np.ones(n_fits)
        for _ in range(20):
            trial = beta + scale[:, None] * step
            trial_loss = _loss(trial, design, case, weight, ridge)
            worse = ~(trial_loss <= loss + 1e-12 * np.abs(loss))
            if not worse.any():
                break
            scale[worse] *= 0.5
        better = ~worse
        beta[better], loss[better] = trial[better], trial_loss[better]
        grown = np.max(np.abs(beta[:, 1:]), axis=1, initial=0.0) > 4.0 * _SEPARATED
        if np.all(converged | grown):
            break
    separated = np.max(np.abs(beta[:, 1:]), axis=1, initial=0.0) > _SEPARATED
    return beta, converged & ~separated


def _loss(
    beta: FloatArray, design: FloatArray, case: FloatArray, weight: FloatArray, ridge: float
) -> FloatArray:
    """Penalised minus log-likelihood of every subset."""
    predictor = beta @ design.T
    fit = np.sum(weight * (np.logaddexp(0.0, predictor) - case * predictor), axis=1)
    return np.asarray(fit + 0.5 * ridge * np.sum(beta[:, 1:] ** 2, axis=1))


@dataclass(frozen=True, slots=True)
class CrossValidatedAuc:
    """Area of a combined score on the people it was made from, and on people it has not seen.

    Attributes
    ----------
    apparent : RocAreas
        In sample, always too good.
    area, variance : float
        Cross-validated.
    optimism : float
        Apparent minus cross-validated.
    fit : LogisticFit
        On everyone.
    n_folds, n_repeats : int
    n_separated : int
        Training sets that the markers separate completely.
    """

    apparent: RocAreas
    area: float
    variance: float
    optimism: float
    fit: LogisticFit
    n_folds: int
    n_repeats: int
    n_separated: int


def cross_validated_auc(
    markers: FloatArray,
    is_case: BoolArray,
    *,
    ridge: float = 0.0,
    n_folds: int = 5,
    n_repeats: int = 20,
    seed: int = 0,
) -> CrossValidatedAuc:
    """Area under the ROC curve of a logistic score, cross-validated.

    Cases are compared with controls of their own fold only, so that the folds' different
    intercepts do not matter; the area is the mean over folds and repeats.

    Parameters
    ----------
    markers : ndarray, shape (n, p)
    is_case : ndarray of bool, shape (n,)
    ridge : float
        As in :func:`fit_logistic`.
    n_folds : int
        At most the number of cases and of controls; lowered to that where needed.
    n_repeats : int
        Random partitions.
    seed : int

    Returns
    -------
    CrossValidatedAuc
        Variance from the placements within folds (LeDell et al. 2015), averaged over repeats.

    References
    ----------
    LeDell E. et al. 2015, Electron J Stat 9:1583, doi:10.1214/15-EJS1035.
    """
    case = np.asarray(is_case, dtype=bool)
    smaller = int(min(case.sum(), (~case).sum()))
    if smaller < 2:
        raise InputError("cross-validation needs two cases and two controls at least", found=str(smaller))
    folds = min(n_folds, smaller)
    everyone = fit_logistic(markers, case, ridge=ridge)
    generator = np.random.default_rng(seed)
    partition = np.stack([_stratified_folds(case, folds, generator) for _ in range(n_repeats)])
    held_out = (partition[:, None, :] == np.arange(folds)[:, None]).reshape(-1, case.size)
    fits = fit_logistic(markers, case, used=~held_out, ridge=ridge)
    areas, variances = [], []
    for repeat in range(n_repeats):
        rows = slice(repeat * folds, (repeat + 1) * folds)
        area, variance = _pooled_within_folds(fits.scores[rows], held_out[rows], case)
        areas.append(area)
        variances.append(variance)
    apparent = roc_areas(everyone.scores, case)
    area = float(np.mean(areas))
    return CrossValidatedAuc(
        apparent=apparent,
        area=area,
        variance=float(np.mean(variances)),
        optimism=float(apparent.area[0]) - area,
        fit=everyone,
        n_folds=folds,
        n_repeats=n_repeats,
        n_separated=int(np.count_nonzero(~fits.converged)),
    )


def _stratified_folds(case: BoolArray, n_folds: int, generator: np.random.Generator) -> IntArray:
    """Random fold of every person, cases and controls spread evenly."""
    fold = np.empty(case.size, dtype=np.intp)
    for group in (np.flatnonzero(case), np.flatnonzero(~case)):
        fold[generator.permutation(group)] = np.arange(group.size) % n_folds
    return fold


def _pooled_within_folds(scores: FloatArray, held_out: BoolArray, case: BoolArray) -> tuple[float, float]:
    """Area and variance from comparisons within folds, each fold scored by its own model."""
    areas, of_cases, of_controls = [], [], []
    for score, here in zip(scores, held_out, strict=True):
        positive, negative = score[here & case], score[here & ~case]
        higher = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        areas.append(higher.mean())
        of_cases.append(higher.mean(axis=1) - areas[-1])
        of_controls.append(higher.mean(axis=0) - areas[-1])
    cases, controls = np.concatenate(of_cases), np.concatenate(of_controls)
    variance = np.sum(cases**2) / cases.size / max(cases.size - 1, 1)
    variance += np.sum(controls**2) / controls.size / max(controls.size - 1, 1)
    return float(np.mean(areas)), float(variance)
