"""Restricted maximum likelihood for variance components, many tables of one design at once.

The model is ``y = X b + sum_j Z_j u_j + e`` with indicator columns ``Z_j`` and independent
effects of variance ``(theta_j sigma)^2``, ``theta_j >= 0``: the parameterisation of Bates et al.
(2015, doi:10.18637/jss.v067.i01).  The deviance is profiled over ``b`` and ``sigma`` and
minimised over ``theta`` with an analytic gradient.  A variance that is best at zero is reported
as exactly zero (a *singular* fit).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.stats.deviance import LARGEST_THETA, Likelihood, Prepared, evaluate, prepare, solve_at
from cordqa.stats.mixed_design import MixedDesign
from cordqa.stats.newton import minimise_batch

__all__ = ["RemlFit", "fit_reml", "predict_effects", "simulate_values", "solve_fixed_effects"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_ZERO_THETA = 1e-4


@dataclass(frozen=True, slots=True)
class RemlFit:
    """Fitted variance components of B tables.

    Attributes
    ----------
    names : tuple of str
        Random terms; the residual is not among them.
    theta : ndarray, shape (B, K)
        Relative standard deviations, exactly zero on the boundary.
    variances : ndarray, shape (B, K + 1)
        In squared units of the values, residual last.
    deviance : ndarray, shape (B,)
        Minus twice the restricted (or full) log-likelihood.
    coefficients : ndarray, shape (B, p)
        Generalised least squares estimates of the fixed effects.
    covariance : ndarray, shape (B, p, p)
        Their covariance given the variance components.
    converged, singular : ndarray of bool, shape (B,)
        Singular: at least one variance is exactly zero.
    reasons : tuple of str, length B
        Why a table could not be fitted; empty where it could.
    likelihood : {'reml', 'ml'}
    """

    names: tuple[str, ...]
    theta: FloatArray
    variances: FloatArray
    deviance: FloatArray
    coefficients: FloatArray
    covariance: FloatArray
    converged: BoolArray
    singular: BoolArray
    reasons: tuple[str, ...]
    likelihood: Likelihood


def fit_reml(
    values: FloatArray,
    design: MixedDesign,
    *,
    likelihood: Likelihood = "reml",
    held_at_zero: tuple[int, ...] = (),
    start: FloatArray | None = None,
) -> RemlFit:
    """Fit the variance components of B tables that share one design.

    Parameters
    ----------
    values : ndarray, shape (B, n) or (n,)
        Finite values in any unit, in the order of the design's labels.
    design : MixedDesign
        From :func:`cordqa.stats.mixed_design.make_design`; check it first with
        :func:`~cordqa.stats.mixed_design.find_inestimable_terms`.
    likelihood : {'reml', 'ml'}
        Restricted (default) or full maximum likelihood.
    held_at_zero : tuple of int
        Terms whose variance is held at zero, for a likelihood-ratio test.
    start : ndarray, shape (B, K), optional
        Relative standard deviations to start from; ones where omitted.

    Returns
    -------
    RemlFit

    References
    ----------
    Bates D. et al. 2015, J Stat Softw 67(1), doi:10.18637/jss.v067.i01.
    """
    prepared = prepare(np.atleast_2d(np.asarray(values, dtype=float)), design)
    return _fit_prepared(prepared, likelihood=likelihood, held_at_zero=held_at_zero, start=start)


def _fit_prepared(
    prepared: Prepared, *, likelihood: Likelihood, held_at_zero: tuple[int, ...], start: FloatArray | None
) -> RemlFit:
    n_tables, n_terms = prepared.scale.size, len(prepared.design.names)
    usable = np.flatnonzero(np.isfinite(prepared.scale))
    theta = np.ones((n_tables, n_terms)) if start is None else np.maximum(np.abs(start), 0.05)
    free = np.ones((n_tables, n_terms), dtype=bool)
    free[:, list(held_at_zero)] = False
    theta[~free] = 0.0

    def function(points: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        deviance, gradient, _ = evaluate(prepared, points, usable[rows], likelihood=likelihood)
        return deviance, gradient

    best = minimise_batch(function, theta[usable], free=free[usable])
    point, value = _settle_on_boundary(function, np.abs(best.point), best.value, free[usable])
    theta[usable] = point
    converged = np.zeros(n_tables, dtype=bool)
    converged[usable] = best.converged
    return _summarise(prepared, theta, value, usable, converged, likelihood, held_at_zero)


def _settle_on_boundary(
    function: Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]],
    point: FloatArray,
    value: FloatArray,
    free: BoolArray,
) -> tuple[FloatArray, FloatArray]:
    """Set tiny relative standard deviations to exactly zero where the deviance is no worse."""
    everyone = np.arange(point.shape[0])
    for term in range(point.shape[1]):
        tiny = everyone[(point[:, term] < 100 * _ZERO_THETA) & (point[:, term] > 0.0) & free[:, term]]
        if tiny.size == 0:
            continue
        trial = point[tiny].copy()
        trial[:, term] = 0.0
        deviance, _ = function(trial, tiny)
        better = deviance <= value[tiny] + 1e-8
        point[tiny[better]] = trial[better]
        value[tiny[better]] = deviance[better]
    return point, value


def _summarise(
    prepared: Prepared,
    theta: FloatArray,
    value: FloatArray,
    usable: IntArray,
    converged: BoolArray,
    likelihood: Likelihood,
    held_at_zero: tuple[int, ...],
) -> RemlFit:
    """Turn relative standard deviations into variances, fixed effects and reasons."""
    design = prepared.design
    n_tables, n_terms = theta.shape
    freedom = design.n_values - (design.n_fixed if likelihood == "reml" else 0)
    deviance = np.full(n_tables, np.nan)
    deviance[usable] = value + 2.0 * freedom * np.log(prepared.scale[usable])
    variances = np.full((n_tables, n_terms + 1), np.nan)
    coefficients = np.full((n_tables, design.n_fixed), np.nan)
    covariance = np.full((n_tables, design.n_fixed, design.n_fixed), np.nan)
    squares, found, spread = solve_at(prepared, theta[usable], usable)
    sigma2 = squares / freedom
    variances[usable, :n_terms] = theta[usable] ** 2 * sigma2[:, None]
    variances[usable, n_terms] = sigma2
    coefficients[usable] = found
    covariance[usable] = spread * sigma2[:, None, None]
    no_residual = np.max(theta, axis=1, initial=0.0) > 0.1 * LARGEST_THETA
    reasons = []
    for index in range(n_tables):
        if not np.isfinite(prepared.scale[index]):
            reasons.append("the values do not vary once the fixed effects are taken out")
        elif no_residual[index]:
            reasons.append("the repeats do not vary at all, so the residual variance is zero")
        else:
            reasons.append("")
    variances[no_residual] = np.nan
    singular = np.zeros(n_tables, dtype=bool)
    checked = [i for i in range(n_terms) if i not in held_at_zero]
    singular[usable] = np.any(theta[usable][:, checked] < _ZERO_THETA, axis=1)
    return RemlFit(
        names=design.names,
        theta=theta,
        variances=variances,
        deviance=deviance,
        coefficients=coefficients,
        covariance=covariance,
        converged=converged,
        singular=singular,
        reasons=tuple(reasons),
        likelihood=likelihood,
    )


def solve_fixed_effects(
    values: FloatArray, design: MixedDesign, variances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Estimate the fixed effects by generalised least squares with given variance components.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    variances : ndarray, shape (B, K + 1)
        Not negative, residual last and positive.

    Returns
    -------
    coefficients : ndarray, shape (B, p)
    covariance : ndarray, shape (B, p, p)
    """
    prepared = prepare(values, design)
    theta = np.sqrt(variances[:, :-1] / variances[:, -1:])
    everyone = np.arange(theta.shape[0])
    _, coefficients, covariance = solve_at(prepared, theta, everyone)
    return coefficients, covariance * variances[:, -1, None, None]


def predict_effects(values: FloatArray, design: MixedDesign, variances: FloatArray) -> dict[str, FloatArray]:
    """Predict the random effects of one table with given variance components.

    Parameters
    ----------
    values : ndarray, shape (n,)
    design : MixedDesign
    variances : ndarray, shape (K + 1,)
        Not negative, residual last and positive.

    Returns
    -------
    dict of ndarray
        Best linear unbiased prediction of every level of each term, in the order of its codes;
        zeros for a term without variance.
    """
    from scipy.sparse import csc_matrix, diags, hstack
    from scipy.sparse.linalg import spsolve

    ratios = np.asarray(variances, dtype=float)
    coefficients, _ = solve_fixed_effects(values[None, :], design, ratios[None, :])
    rest = values - design.fixed @ coefficients[0]
    effects = {name: np.zeros(size) for name, size in zip(design.names, design.n_levels, strict=True)}
    present = [i for i in range(len(design.names)) if ratios[i] > 0.0]
    if not present:
        return effects
    rows, ones = np.arange(design.n_values), np.ones(design.n_values)
    blocks = [
        csc_matrix((ones, (rows, design.codes[i])), shape=(design.n_values, design.n_levels[i]))
        for i in present
    ]
    indicators = hstack(blocks, format="csc")
    penalty = np.concatenate([np.full(design.n_levels[i], ratios[-1] / ratios[i]) for i in present])
    solved = np.atleast_1d(spsolve((indicators.T @ indicators + diags(penalty)).tocsc(), indicators.T @ rest))
    ends = np.cumsum([0, *(design.n_levels[i] for i in present)])
    for position, index in enumerate(present):
        effects[design.names[index]] = solved[ends[position] : ends[position + 1]]
    return effects


def simulate_values(
    design: MixedDesign,
    variances: FloatArray,
    n_tables: int,
    *,
    generator: np.random.Generator,
) -> FloatArray:
    """Draw values with the given variance components and no fixed effect, shape (n_tables, n).

    Parameters
    ----------
    design : MixedDesign
    variances : ndarray, shape (K + 1,)
        Residual last.
    n_tables : int
    generator : numpy.random.Generator
    """
    values = generator.normal(0.0, np.sqrt(variances[-1]), (n_tables, design.n_values))
    for code, variance, size in zip(design.codes, variances[:-1], design.n_levels, strict=True):
        if variance > 0.0:
            effects = generator.normal(0.0, np.sqrt(variance), (n_tables, size))
            values += effects[:, code]
    return np.asarray(values)
