"""Damped least squares for many small problems at once.

``scipy.optimize`` solves one problem per call; a map has 10^5 of them with 2 or 3 parameters
each.  Here every step works on all problems that have not converged yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LeastSquares", "Model", "covariance", "solve_least_squares"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: Given parameters (m, P) and the indices (m,) of the problems they belong to, return the
#: predicted samples (m, n) and their derivatives (m, n, P).
Model = Callable[[Array, Index], tuple[Array, Array]]

_MAX_DAMPING = 1e12
_FLAT = 1e-9
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """Solution of a batch of problems.

    ``cost`` is the weighted sum of squared residuals; ``derivatives`` are taken at the solution;
    ``held`` marks parameters that ended at a bound or were fixed.
    """

    parameters: Array
    cost: Array
    derivatives: Array
    predicted: Array
    converged: NDArray[np.bool_]
    held: NDArray[np.bool_]


def solve_least_squares(
    model: Model,
    start: Array,
    signal: Array,
    *,
    weight: Array,
    low: Array | None = None,
    high: Array | None = None,
    tolerance: float = 1e-7,
    max_steps: int = 60,
) -> LeastSquares:
    """Minimize sum of weight (signal - model)^2 for each row by Levenberg-Marquardt.

    Parameters
    ----------
    model : callable
        See :data:`Model`.  Parameters should be scaled so that steps of order one are sensible.
    start : ndarray, shape (m, P)
    signal, weight : ndarray, shape (m, n)
        A weight of 0 leaves a sample out; its signal must still be finite.
    low, high : ndarray, shape (m, P), optional
        Bounds; a step is cut at them.  Equal bounds fix a parameter.
    tolerance : float
        A problem has converged when the largest step in any parameter is below it, or when a
        step lowered the cost by less than the fraction 1e-9.
    """
    lower = np.full(start.shape, -np.inf) if low is None else low
    upper = np.full(start.shape, np.inf) if high is None else high
    parameters = np.clip(start, lower, upper)
    rows = np.arange(len(start))
    predicted, derivatives = model(parameters, rows)
    cost = _cost(signal, predicted, weight)
    damping, growth = np.full(len(start), 1e-3), np.full(len(start), 2.0)
    converged = np.zeros(len(start), dtype=bool)
    for _ in range(max_steps):
        todo = np.flatnonzero(~converged & (damping < _MAX_DAMPING) & np.isfinite(cost))
        if todo.size == 0:
            break
        step, expected = _step(
            derivatives[todo],
            weight[todo] * (signal[todo] - predicted[todo]),
            weight[todo],
            damping[todo],
            (parameters[todo], lower[todo], upper[todo]),
        )
        trial = np.clip(parameters[todo] + step, lower[todo], upper[todo])
        moved = np.abs(trial - parameters[todo]).max(axis=1)
        new_predicted, new_derivatives = model(trial, todo)
        new_cost = _cost(signal[todo], new_predicted, weight[todo])
        better = new_cost <= cost[todo]
        flat = better & (cost[todo] - new_cost <= _FLAT * new_cost) & (damping[todo] < 1.0)
        gain = np.clip((cost[todo] - new_cost) / np.maximum(expected, _TINY), -1.0, 1.0)
        took = todo[better]
        parameters[took], cost[took] = trial[better], new_cost[better]
        predicted[took], derivatives[took] = new_predicted[better], new_derivatives[better]
        # Damping follows how well the linear model foretold the gain: a step that overshoots
        # slightly is taken without making the next one bolder, which would swing for ever.
        damping[todo] *= np.where(better, np.maximum(0.1, 1 - (2 * gain - 1) ** 3), growth[todo])
        growth[todo] = np.where(better, 2.0, 2.0 * growth[todo])
        # A step too small to matter ends the search whether or not rounding let it be "better".
        converged[todo] = (moved < tolerance) | flat
    held = (parameters <= lower) | (parameters >= upper)
    return LeastSquares(parameters, cost, derivatives, predicted, converged, held)


def _cost(signal: Array, predicted: Array, weight: Array) -> Array:
    cost: Array = np.einsum("mn,mn->m", weight, (signal - predicted) ** 2)
    return np.where(np.isfinite(cost), cost, np.inf)


def _step(
    derivatives: Array,
    weighted_residual: Array,
    weight: Array,
    damping: Array,
    state: tuple[Array, Array, Array],
) -> tuple[Array, Array]:
    """Return the damped Gauss-Newton step and the gain in cost that it promises.

    Parameters pushed against a bound do not move.
    """
    parameters, low, high = state
    gradient = np.einsum("mnp,mn->mp", derivatives, weighted_residual)
    blocked = ((parameters <= low) & (gradient < 0)) | ((parameters >= high) & (gradient > 0))
    normal = np.einsum("mnp,mn,mnq->mpq", derivatives, weight, derivatives, optimize=True)
    diagonal = np.einsum("mpp->mp", normal)
    damped = diagonal * damping[:, None]
    step = _solve(normal + np.eye(parameters.shape[1]) * damped[:, None, :], gradient, blocked)
    promised: Array = (step * (damped * step + gradient)).sum(axis=1)
    return step, promised


def _solve(normal: Array, gradient: Array, blocked: NDArray[np.bool_]) -> Array:
    n = normal.shape[-1]
    free = ~blocked
    normal = normal * (free[:, :, None] & free[:, None, :])
    diagonal = np.einsum("mpp->mp", normal)
    # Scaling to unit diagonal keeps parameters of different size comparable.
    scale = np.where(free & (diagonal > 0), 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
    scaled = normal * scale[:, :, None] * scale[:, None, :]
    dead = np.eye(n) * (scale == 0)[:, None, :]
    ridge = 1e-14 * np.eye(n)
    solution = np.linalg.solve(scaled + dead + ridge, (gradient * scale)[..., None])[..., 0]
    step: Array = np.nan_to_num(solution * scale, nan=0.0, posinf=0.0, neginf=0.0)
    return step


def covariance(derivatives: Array, weight: Array, held: NDArray[np.bool_]) -> Array:
    """Return the inverse of J^T W J, shape (m, P, P); NaN where it is singular.

    Rows and columns of held parameters are NaN on the diagonal and do not enter the others:
    the other parameters' covariance is conditional on them.
    """
    free = ~held
    normal = np.einsum("mnp,mn,mnq->mpq", derivatives, weight, derivatives, optimize=True)
    normal = np.where(free[:, :, None] & free[:, None, :], normal, 0.0)
    diagonal = np.einsum("mpp->mp", normal)
    good = np.isfinite(normal).all(axis=(1, 2)) & ((diagonal > 0) | held).all(axis=1)
    n = normal.shape[-1]
    scale = np.where(free & (diagonal > 0), 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
    scaled = normal * scale[:, :, None] * scale[:, None, :] + np.eye(n) * (~free)[:, None, :]
    scaled = np.where(good[:, None, None], scaled, np.eye(n))
    good &= np.linalg.cond(scaled) < 1e13
    scaled = np.where(good[:, None, None], scaled, np.eye(n))
    inverse = np.linalg.inv(scaled) * scale[:, :, None] * scale[:, None, :]
    inverse = np.where(good[:, None, None], inverse, np.nan)
    return np.where(np.eye(n, dtype=bool) & held[:, None, :], np.nan, inverse)
