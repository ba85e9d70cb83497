"""Newton's method on many small problems at once.

A bootstrap of a mixed model, a profile likelihood or a thousand regions with one design are
all the same task: minimise a smooth function of a handful of parameters, many times.  Doing
the problems side by side keeps the work inside numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchMinimum", "minimise_batch"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

#: Takes points (b, d) and the index (b,) of the problem each belongs to; gives the value (b,)
#: and the gradient (b, d).
BatchFunction = Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]]

_RELATIVE_DIFFERENCE = 1e-5
_HALVINGS = 25
#: Share of the promised fall that a step must keep.  Demanding: a function that is even in a
#: parameter (a standard deviation) would else be crossed from side to side without getting lower.
_SUFFICIENT = 0.1
_PUSH = 0.1


@dataclass(frozen=True, slots=True)
class BatchMinimum:
    """Minima of many problems.

    Attributes
    ----------
    point : ndarray, shape (b, d)
    value : ndarray, shape (b,)
    gradient : ndarray, shape (b, d)
    converged : ndarray of bool, shape (b,)
    """

    point: FloatArray
    value: FloatArray
    gradient: FloatArray
    converged: BoolArray


def minimise_batch(
    function: BatchFunction,
    start: FloatArray,
    *,
    free: BoolArray | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 80,
) -> BatchMinimum:
    """Minimise many smooth functions of few parameters.

    The Hessian comes from differences of the analytic gradient, is made positive by taking
    the magnitude of its eigenvalues, and the step is halved until the function falls.

    Parameters
    ----------
    function : callable
        ``function(points, rows)`` gives values (b,) and gradients (b, d); ``rows`` says which
        problem each point belongs to.
    start : ndarray, shape (b, d)
        Parameters of order one.
    free : ndarray of bool, shape (b, d), optional
        Parameters that may move; the others stay at their start.
    tolerance : float
        A problem is done when Newton's decrement, the fall of the function that the next step
        promises, is below this.
    max_steps : int
        Steps after which a problem is left as not converged.

    Returns
    -------
    BatchMinimum
    """
    point = np.array(start, dtype=float)
    n_problems, n_parameters = point.shape
    mask = np.ones(point.shape, dtype=bool) if free is None else np.asarray(free, dtype=bool)
    if n_problems == 0:
        return BatchMinimum(point, np.empty(0), point.copy(), np.empty(0, dtype=bool))
    everyone = np.arange(n_problems)
    value, gradient = function(point, everyone)
    converged = np.zeros(n_problems, dtype=bool)
    running = np.isfinite(value)
    if n_parameters == 0:
        return BatchMinimum(point, value, gradient, running)
    for _ in range(max_steps):
        rows = np.flatnonzero(running)
        if rows.size == 0:
            break
        hessian = _difference_hessian(function, point[rows], gradient[rows], mask[rows], rows)
        step, saddle = _descent_step(hessian, np.where(mask[rows], gradient[rows], 0.0), point[rows])
        decrement = -np.sum(step * gradient[rows], axis=1)
        moved = _halve_until_lower(function, point, value, gradient, step, rows)
        finished = decrement < tolerance
        flat = np.flatnonzero(finished & np.any(saddle != 0.0, axis=1))
        if flat.size:
            finished[flat] = ~_leave_saddle(function, point, value, gradient, saddle[flat], rows[flat])
        converged[rows] = finished
        # A step that cannot lower the function although it promised little is the rounding floor.
        stuck = ~moved & ~finished
        converged[rows[stuck]] = decrement[stuck] < 1e-6
        running[rows[finished | stuck]] = False
    return BatchMinimum(point, value, gradient, converged)


def _difference_hessian(
    function: BatchFunction, point: FloatArray, gradient: FloatArray, mask: BoolArray, rows: IntArray
) -> FloatArray:
    """Hessian (b, d, d) by forward differences; identity on parameters that are held."""
    n_rows, n_parameters = point.shape
    width = _RELATIVE_DIFFERENCE * np.maximum(np.abs(point), 0.1)
    shifted = np.repeat(point[:, None, :], n_parameters, axis=1)
    diagonal = np.arange(n_parameters)
    shifted[:, diagonal, diagonal] += width
    _, moved = function(shifted.reshape(-1, n_parameters), np.repeat(rows, n_parameters))
    hessian = (moved.reshape(n_rows, n_parameters, n_parameters) - gradient[:, None, :]) / width[:, :, None]
    hessian = 0.5 * (hessian + np.swapaxes(hessian, 1, 2))
    both = mask[:, :, None] & mask[:, None, :]
    hessian = np.where(both & np.isfinite(hessian), hessian, 0.0)
    hessian[:, diagonal, diagonal] += np.where(mask, 0.0, 1.0)
    return np.asarray(hessian)


def _descent_step(
    hessian: FloatArray, gradient: FloatArray, point: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Newton step with a positive Hessian, and the direction of downward curvature (zero if none).

    The step is shortened where it would leave the neighbourhood.
    """
    eigenvalues, vectors = np.linalg.eigh(hessian)
    largest = np.max(np.abs(eigenvalues), axis=1, keepdims=True)
    positive = np.maximum(np.abs(eigenvalues), 1e-10 * largest + 1e-12)
    along = np.einsum("bij,bi->bj", vectors, gradient) / positive
    step = -np.einsum("bij,bj->bi", vectors, along)
    reach = np.max(np.abs(step) / (np.abs(point) + 1.0), axis=1, keepdims=True)
    downward = eigenvalues[:, :1] < -1e-5 * largest
    return step / np.maximum(reach, 1.0), np.where(downward, vectors[:, :, 0], 0.0)


def _leave_saddle(
    function: BatchFunction,
    point: FloatArray,
    value: FloatArray,
    gradient: FloatArray,
    direction: FloatArray,
    rows: IntArray,
) -> BoolArray:
    """Push problems that stopped on a saddle off it; say which got lower.  Arrays change in place."""
    lower = np.zeros(rows.size, dtype=bool)
    for length in (_PUSH, -_PUSH):
        here = np.flatnonzero(~lower)
        if here.size == 0:
            break
        trial = point[rows[here]] + length * direction[here]
        trial_value, trial_gradient = function(trial, rows[here])
        fell = trial_value < value[rows[here]] - 1e-9
        accepted = rows[here[fell]]
        point[accepted], value[accepted] = trial[fell], trial_value[fell]
        gradient[accepted] = trial_gradient[fell]
        lower[here[fell]] = True
    return lower


def _halve_until_lower(
    function: BatchFunction,
    point: FloatArray,
    value: FloatArray,
    gradient: FloatArray,
    step: FloatArray,
    rows: IntArray,
) -> BoolArray:
    """Move each row along its step, halved until the value falls; arrays change in place."""
    slope = np.sum(step * gradient[rows], axis=1)
    waiting = np.arange(rows.size)
    moved = np.zeros(rows.size, dtype=bool)
    scale = 1.0
    for _ in range(_HALVINGS):
        here = rows[waiting]
        trial = point[here] + scale * step[waiting]
        trial_value, trial_gradient = function(trial, here)
        slack = 1e-14 * np.abs(value[here])
        fell = trial_value <= value[here] + _SUFFICIENT * scale * slope[waiting] + slack
        accepted = here[fell]
        point[accepted], value[accepted] = trial[fell], trial_value[fell]
        gradient[accepted] = trial_gradient[fell]
        moved[waiting[fell]] = True
        waiting = waiting[~fell]
        if waiting.size == 0:
            break
        scale *= 0.5
    return moved
