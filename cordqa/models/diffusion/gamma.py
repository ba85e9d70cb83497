"""Gamma distribution of diffusivities, fitted to powder averages.

``S = S0 (1 + b V / MD)^(-MD^2 / V)`` with ``V = VI + b_delta^2 VA`` (Lasic et al. 2014,
doi:10.3389/fphy.2014.00011).  Damped Gauss-Newton on all voxels at once from the cumulant
solution: no random starts, so a repeated fit gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.cumulant import PowderFit, inverse_positive
from cordqa.models.diffusion.powder import PowderShell

__all__ = ["fit_gamma", "gamma_signal"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MAX_STEPS = 60
#: A step that moves no parameter by more than this (relative to 1 + its size) ends the search.
_TOLERANCE = 1e-6
#: A step that lowers the cost by less than this fraction does as well.
_FLAT = 1e-9
_MAX_DAMPING = 1e10
#: Where b V / MD comes down to -1 the model is infinite; steps do not go below this.
_LOWEST_ARGUMENT = -0.9
_LOWEST_DIFFUSIVITY = 1e-3
#: Below it the logarithm is replaced by its series.
_SMALL = 1e-3


def gamma_signal(parameters: Array, b_ms_um2: Array, b_delta: Array) -> Array:
    """Return the signal of every shell.

    Parameters
    ----------
    parameters : ndarray, shape (4, v)
        ln S0, MD (um2/ms), VI and VA (um4/ms2).
    b_ms_um2, b_delta : ndarray, shape (k,)

    Returns
    -------
    ndarray, shape (k, v)
    """
    return _signal_and_slopes(np.asarray(parameters), np.asarray(b_ms_um2), np.asarray(b_delta))[0]


def fit_gamma(means: Array, variances: Array, shells: Sequence[PowderShell], start: PowderFit) -> PowderFit:
    """Weighted least squares of the gamma model on powder averages.

    Parameters
    ----------
    means, variances : ndarray, shape (k, v)
        Powder averages and their variances; an infinite variance leaves an average out.
    shells : sequence of PowderShell
    start : PowderFit
        The cumulant fit of the same averages.

    Returns
    -------
    PowderFit
        ``solved`` is false where the search did not converge.
    """
    b = np.array([shell.b_ms_um2 for shell in shells])
    shape = np.array([shell.b_delta for shell in shells])
    usable = (means > 0) & np.isfinite(variances) & (variances > 0)
    # Scaled by the strongest average, so that no power of the signal overflows.
    top = np.where(usable, means, 0.0).max(axis=0, initial=0.0)
    scale = np.where(top > 0, top, 1.0)
    signal = np.where(usable, means, 0.0) / scale
    weight = np.divide(scale**2, variances, out=np.zeros_like(signal), where=usable)
    parameters = _start(start.parameters, scale, float(b.max()))
    cost, converged = np.zeros(len(scale)), np.zeros(len(scale), dtype=bool)
    rows = np.flatnonzero(start.solved)
    solution = _search(signal[:, rows], weight[:, rows], parameters[:, rows], b, shape)
    parameters[:, rows], cost[rows], converged[rows] = solution
    _, slopes = _signal_and_slopes(parameters, b, shape)
    covariance, solved = inverse_positive(_normal(slopes, weight))
    parameters[0] += np.log(scale)
    return PowderFit(
        parameters=parameters,
        covariance=covariance,
        cost=cost,
        solved=converged & solved & _interior(parameters, b, shape),
        truncation=np.zeros((0, *parameters.shape)),
        n_used=usable.sum(axis=0),
        n_unknowns=len(parameters),
    )


def _interior(parameters: Array, b: Array, shape: Array) -> Mask:
    """Whether a solution lies away from the edge of where the model is finite."""
    at_edge = _LOWEST_ARGUMENT * parameters[1] / b.max() * (1 - 1e-6)
    lowest = np.minimum(parameters[2], parameters[2] + float((shape**2).max()) * parameters[3])
    inside: Mask = (parameters[1] > _LOWEST_DIFFUSIVITY) & (lowest > at_edge)
    return inside


def _start(cumulant: Array, scale: Array, b_max: float) -> Array:
    parameters = np.where(np.isfinite(cumulant), cumulant, 0.0)
    parameters[0] = np.clip(parameters[0] - np.log(scale), -5.0, 5.0)
    parameters[1] = np.clip(parameters[1], 0.05, 5.0)
    # Far from the solution a spread of the order of MD / b keeps the first steps tame.
    parameters[2:] = np.clip(parameters[2:], 0.0, parameters[1] / max(b_max, 0.1))
    return parameters


def _signal_and_slopes(parameters: Array, b: Array, shape: Array) -> tuple[Array, Array]:
    """Signal (k, v) and its derivatives (4, k, v)."""
    log_s0, mean, isotropic, anisotropic = parameters
    b, square = b[:, None], shape[:, None] ** 2
    argument = b * (isotropic + square * anisotropic) / mean
    ratio, slope = _log_ratio(np.maximum(argument, _LOWEST_ARGUMENT))
    signal = np.exp(np.clip(log_s0 - b * mean * ratio, -700.0, 50.0))
    by_variance = -signal * b**2 * slope
    slopes = np.stack([signal, -signal * b * (ratio - argument * slope), by_variance, square * by_variance])
    return signal, slopes


def _log_ratio(x: Array) -> tuple[Array, Array]:
    """ln(1 + x) / x and its derivative, smooth through zero."""
    small = np.abs(x) < _SMALL
    safe = np.where(small, 1.0, x)
    ratio = np.log1p(safe) / safe
    slope = (1.0 / (1.0 + safe) - ratio) / safe
    little = np.where(small, x, 0.0)
    ratio = np.where(small, 1.0 - little / 2 + little**2 / 3, ratio)
    return ratio, np.where(small, -0.5 + 2 * little / 3 - 0.75 * little**2, slope)


def _normal(slopes: Array, weight: Array) -> Array:
    n = len(slopes)
    normal = np.empty((n, n, weight.shape[1]))
    for i in range(n):
        weighted = slopes[i] * weight
        for j in range(i, n):
            normal[i, j] = normal[j, i] = np.einsum("kv,kv->v", weighted, slopes[j])
    return normal


def _search(
    signal: Array, weight: Array, parameters: Array, b: Array, shape: Array
) -> tuple[Array, Array, Mask]:
    """Levenberg-Marquardt on the voxels that have not converged; returns solution and final cost."""
    parameters = parameters.copy()
    v = signal.shape[1]
    predicted, slopes = _signal_and_slopes(parameters, b, shape)
    cost = np.einsum("kv,kv->v", weight, (signal - predicted) ** 2)
    damping, converged = np.full(v, 1e-3), np.zeros(v, dtype=bool)
    todo = np.arange(v)
    for _ in range(_MAX_STEPS):
        if todo.size == 0:
            break
        trial = _step(
            parameters[:, todo], signal[:, todo] - predicted, slopes, weight[:, todo], damping[todo]
        )
        trial = _inside(trial, b, shape)
        new_predicted, new_slopes = _signal_and_slopes(trial, b, shape)
        new_cost = np.einsum("kv,kv->v", weight[:, todo], (signal[:, todo] - new_predicted) ** 2)
        better = new_cost <= cost[todo]
        moved = (np.abs(trial - parameters[:, todo]) / (1 + np.abs(trial))).max(axis=0)
        flat = better & (cost[todo] - new_cost <= _FLAT * new_cost) & (damping[todo] < 1.0)
        parameters[:, todo] = np.where(better, trial, parameters[:, todo])
        cost[todo] = np.where(better, new_cost, cost[todo])
        predicted = np.where(better, new_predicted, predicted)
        slopes = np.where(better, new_slopes, slopes)
        damping[todo] *= np.where(better, 0.1, 10.0)
        converged[todo] = ((moved < _TOLERANCE) & (better | (damping[todo] > 1e3))) | flat
        keep = ~converged[todo] & (damping[todo] < _MAX_DAMPING) & np.isfinite(cost[todo])
        todo, predicted, slopes = todo[keep], predicted[:, keep], slopes[:, :, keep]
    return parameters, cost, converged


def _step(parameters: Array, residual: Array, slopes: Array, weight: Array, damping: Array) -> Array:
    normal = _normal(slopes, weight)
    gradient = np.einsum("pkv,kv->pv", slopes, weight * residual)
    for i in range(len(normal)):
        normal[i, i] *= 1.0 + damping
    inverse, _ = inverse_positive(normal)
    step: Array = np.einsum("pqv,qv->pv", inverse, gradient)
    return parameters + np.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)


def _inside(trial: Array, b: Array, shape: Array) -> Array:
    """Keep the model finite: MD positive, and no argument of the logarithm at or below -1."""
    trial = trial.copy()
    trial[1] = np.maximum(trial[1], _LOWEST_DIFFUSIVITY)
    lowest = _LOWEST_ARGUMENT * trial[1] / b.max()
    trial[2] = np.maximum(trial[2], lowest)
    largest_shape = float((shape**2).max())
    trial[3] = np.maximum(trial[3], (lowest - trial[2]) / largest_shape)
    return trial
