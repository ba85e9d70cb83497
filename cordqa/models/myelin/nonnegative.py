"""Non-negative least squares with a Tikhonov term, for many small problems at once.

Every problem is ``min |b - A x|^2 + ridge |x|^2`` over ``x >= 0``, given by ``G = A'A`` and ``q = A'b``.
Each step solves the free variables of all unfinished problems in one batched call, so that the cost
of a step is that of the linear algebra and not that of the interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Solved", "solve_free", "solve_nonnegative"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Gradient, and coefficient, below which a condition of optimality counts as met (signals of size 1).
_TOLERANCE = 1e-10
#: Exchanges of whole blocks of variables before the slower, certain method takes over.
_BLOCK_STEPS = 12
_MOST_STEPS = 400
#: Groups of problems with about as many free variables, and problems that are worth a group.
_GROUPS, _ENOUGH = 4, 60


@dataclass(frozen=True, slots=True)
class Solved:
    """Solutions of many problems.

    Attributes
    ----------
    x : ndarray, shape (m, n)
        Not negative.
    converged : ndarray of bool, shape (m,)
    """

    x: Array
    converged: Mask


def solve_nonnegative(gram: Array, linear: Array, ridge: Array, start: Array, *, blocks: bool) -> Solved:
    """Solve ``min x'(G + ridge)x - 2 q'x`` over ``x >= 0``.

    Parameters
    ----------
    gram : ndarray, shape (m, n, n)
    linear : ndarray, shape (m, n)
    ridge : ndarray, shape (m,)
        Weight of ``|x|^2``; > 0, which makes the solution unique.
    start : ndarray, shape (m, n)
        Where to begin, not negative; only its support matters where ``blocks`` are exchanged.
    blocks : bool
        Exchange whole blocks of variables first (Kim & Park): quick where the ridge tames the
        problem, lost time where it hardly does.  Problems that it does not finish go on to the
        active-set method of Lawson and Hanson, which always ends.

    References
    ----------
    .. [1] Lawson and Hanson, Solving Least Squares Problems, SIAM 1995, doi:10.1137/1.9781611971217
    .. [2] Kim and Park, SIAM J Sci Comput 2011, doi:10.1137/110821172
    """
    x = np.maximum(start, 0.0)
    converged = np.zeros(len(x), dtype=bool)
    if blocks:
        _exchange_blocks(gram, linear, ridge, x, converged)
    left = np.flatnonzero(~converged)
    if left.size:
        x[left], converged[left] = _active_set(gram[left], linear[left], ridge[left], x[left])
    return Solved(x, converged)


def solve_free(gram: Array, linear: Array, ridge: Array, free: Mask) -> Array:
    """Minimise over the free variables, the others 0, shape (m, n).

    Problems with about as many free variables are solved together, each packed to the largest
    number among them.
    """
    count = free.sum(axis=1)
    x = np.zeros(free.shape)
    order = np.argsort(count, kind="stable")
    for rows in np.array_split(order, max(1, min(_GROUPS, count.size // _ENOUGH))):
        if rows.size:
            _solve_packed(gram, linear, ridge, free, rows, x)
    return x


def _solve_packed(
    gram: Array, linear: Array, ridge: Array, free: Mask, rows: NDArray[np.intp], x: Array
) -> None:
    """Solve some of the problems; writes into ``x``."""
    n = free.shape[1]
    mine = free[rows]
    count = mine.sum(axis=1)
    size = max(1, int(count.max()))
    index = np.argsort(~mine, axis=1, kind="stable")[:, :size]
    valid = np.arange(size) < count[:, None]
    flat = (rows * n * n)[:, None, None] + index[:, :, None] * n + index[:, None, :]
    block = gram.reshape(-1)[flat]
    block *= valid[:, :, None] & valid[:, None, :]
    diagonal = np.arange(size)
    block[:, diagonal, diagonal] += np.where(valid, ridge[rows][:, None], 1.0)
    right = np.where(valid, np.take_along_axis(linear[rows], index, axis=1), 0.0)
    solution = np.linalg.solve(block, right[..., None])[..., 0]
    x[rows[:, None], index] = np.where(valid, solution, 0.0)


def _slope(gram: Array, linear: Array, ridge: Array, x: Array) -> Array:
    """Half the gradient of the cost."""
    slope: Array = np.matmul(gram, x[:, :, None])[:, :, 0] + ridge[:, None] * x - linear
    return slope


def _exchange_blocks(gram: Array, linear: Array, ridge: Array, x: Array, converged: Mask) -> None:
    """Exchange all variables on the wrong side at once; writes into ``x`` and ``converged``."""
    free = x > 0
    live = np.arange(len(x))
    fewest = np.full(len(x), x.shape[1] + 1)
    for _ in range(_BLOCK_STEPS):
        some = gram if live.size == len(gram) else gram[live]
        here = solve_free(some, linear[live], ridge[live], free[live])
        slope = _slope(some, linear[live], ridge[live], here)
        wrong = np.where(free[live], here < -_TOLERANCE, slope < -_TOLERANCE)
        number = wrong.sum(axis=1)
        done = number == 0
        # Whatever happens later, a start for the certain method must be feasible.
        x[live] = np.maximum(here, 0.0)
        converged[live[done]] = True
        # A block that does not shrink may cycle; what is left is for the certain method.
        go = ~done & (number <= fewest[live] + 2)
        fewest[live] = np.minimum(fewest[live], number)
        free[live[go]] ^= wrong[go]
        live = live[go]
        if not live.size:
            break


def _active_set(gram: Array, linear: Array, ridge: Array, start: Array) -> tuple[Array, Mask]:
    """Free one variable at a time and step back where another would turn negative."""
    x = start.copy()
    free = x > 0
    converged = np.zeros(len(x), dtype=bool)
    live = np.arange(len(x))
    for _ in range(_MOST_STEPS):
        some = gram if live.size == len(gram) else gram[live]
        goal = solve_free(some, linear[live], ridge[live], free[live])
        wrong = free[live] & (goal <= 0)
        stuck = wrong.any(axis=1)
        moved, kept = _step_back(x[live], goal, wrong, free[live])
        inside = np.flatnonzero(~stuck)
        slope = -_slope(some[inside], linear[live[inside]], ridge[live[inside]], goal[inside])
        slope[free[live[inside]]] = -np.inf
        best = slope.argmax(axis=1)
        more = slope[np.arange(inside.size), best] > _TOLERANCE
        kept[inside[more], best[more]] = True
        x[live], free[live] = moved, kept
        converged[live[inside[~more]]] = True
        live = live[~converged[live]]
        if not live.size:
            break
    return x, converged


def _step_back(x: Array, goal: Array, wrong: Mask, free: Mask) -> tuple[Array, Mask]:
    """Go towards the goal until the first variable reaches 0, and fix that one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(wrong, x / (x - goal), np.inf)
    share = np.where(np.isnan(share), 0.0, share)
    step = np.minimum(share.min(axis=1), 1.0)[:, None]
    kept = free & ~(wrong & (share <= step * (1 + 1e-14)))
    return np.where(kept, np.maximum(x + step * (goal - x), 0.0), 0.0), kept
