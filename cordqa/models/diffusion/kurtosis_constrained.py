"""Least squares of the kurtosis model under what physics allows.

Along every direction the kurtosis is not negative and not above 3 / (b_max D): beyond that the
model's signal would rise with b inside the measured range (Tabesh et al. 2011,
doi:10.1002/mrm.22655).  With V = MD^2 W both are linear in the coefficients, 0 <= V(n) and
V(n) <= 3 D(n) / b_max, so that the fit is a projection onto a cone in the metric of the normal
matrix.  It is solved exactly, by non-negative least squares of its dual, and in um2/ms: in mm2/s
the coefficients are smaller than the tolerance of common solvers, which then return the
unconstrained fit.

The bounds are imposed on a lattice of directions.  Where a finer lattice finds them broken, its
directions are added and the fit is repeated; what is then left between those, far below the noise,
is lifted by an isotropic constant, so that no direction at all has a negative kurtosis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.design import as_fourth_tensor, contract, fourth_order, second_order
from cordqa.models.diffusion.linear_fit import LOST_RANK, Block, Design, LinearFit, fit_weighted, reweight

__all__ = [
    "Cone",
    "Projection",
    "fit_constrained",
    "half_sphere_lattice",
    "lift_to_non_negative",
    "lowest_values",
    "project",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COARSE_LATTICE, _FINE_LATTICE = 50, 400
#: Rounds of the fit; in each but the first, directions of the fine lattice are added.
_ROUNDS = 3
#: Bounds on the fine lattice may be broken by this ((um2/ms)^2; tissue has V of about 1).
_TOLERATED = 1e-4
#: Steps of the search for the lowest direction, and the margin left above zero by the lift.
_NEWTON_STEPS, _MARGIN = 6, 1e-6
#: Longest step of that search: about the distance of two directions of the lattice.
_LONGEST_TURN = 0.15
#: Valleys of V that are searched, and the angle within which two starts lie in one.
_BASINS, _BASIN_DEG = 6, 15.0
_SOLVER_ITERATIONS = 500
_RIDGE = 1e-13
#: Coefficients of V(n) = 1.
ISOTROPIC = np.array([1.0] * 3 + [0.0] * 6 + [1.0 / 3] * 3 + [0.0] * 3)


@dataclass(frozen=True, slots=True)
class Cone:
    """Homogeneous constraints ``rows @ coefficients >= 0`` of the design's coefficients.

    ``coarse`` (k, 22) are always imposed, those of ``fine`` (l, 22) where the fit breaks them.
    """

    coarse: Array
    fine: Array

    @classmethod
    def of(cls, b_max_ms_um2: float) -> Cone:
        """Bounds along the directions of two lattices."""
        coarse, fine = half_sphere_lattice(_COARSE_LATTICE), half_sphere_lattice(_FINE_LATTICE)
        return cls(coarse=_rows(coarse, b_max_ms_um2), fine=_rows(fine, b_max_ms_um2))


@dataclass(frozen=True, slots=True)
class Projection:
    """Coefficients of the orthonormal basis that satisfy the constraints.

    ``bound`` (m,) tells the voxels in which a constraint is active; ``solved`` is false where the
    solver gave up.
    """

    gamma: Array
    bound: Mask
    solved: Mask


def half_sphere_lattice(n: int) -> Array:
    """About evenly spread directions on half of the sphere (Fibonacci lattice), shape (n, 3)."""
    height = (np.arange(n) + 0.5) / n
    azimuth = np.pi * (3 - np.sqrt(5.0)) * np.arange(n)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], axis=1)


def fit_constrained(block: Block, design: Design, cone: Cone) -> tuple[LinearFit, Projection]:
    """Weighted least squares under the bounds of the cone.

    The weights are the squared signals predicted by a first constrained fit: those that an
    unconstrained fit predicts near the noise floor are far off.

    Returns
    -------
    free : LinearFit
        The fit of these weights without bounds, whose residuals tell the noise and whose normal
        matrix the uncertainty.
    bounded : Projection
        The constrained fit.
    """
    first = fit_weighted(block, design)
    start = project(first.gamma, first.gram, design, cone, refine=False)
    lost = first.reason == LOST_RANK
    free = reweight(block, design, start.gamma, block.used.astype(float), lost)
    return free, project(free.gamma, free.gram, design, cone)


def project(gamma: Array, gram: Array, design: Design, cone: Cone, *, refine: bool = True) -> Projection:
    """Move fits (m, p) to the nearest point of the cone, in the metric of their normal matrices.

    Parameters
    ----------
    gamma, gram : ndarray, shape (m, p) and (m, p, p)
        Unconstrained fit and normal matrix in the orthonormal basis.
    refine : bool
        Whether to add the bounds of the fine lattice that are broken.
    """
    coarse, fine = cone.coarse @ design.inverse, cone.fine @ design.inverse
    bound: Mask = np.asarray((gamma @ (fine if refine else coarse).T < 0).any(axis=1))
    result, solved = gamma.copy(), np.ones(len(gamma), dtype=bool)
    todo = np.flatnonzero(bound & np.isfinite(gamma).all(axis=1))
    # Weights at the noise floor leave a normal matrix close to singular; rounding must not break it.
    ridge = _RIDGE * np.trace(gram[todo], axis1=1, axis2=2)[:, None, None] * np.eye(gram.shape[1])
    factor = dict(zip(todo.tolist(), np.linalg.cholesky(gram[todo] + ridge), strict=True))
    extra = np.zeros((len(gamma), len(fine)), dtype=bool)
    for _ in range(_ROUNDS if refine else 1):
        for i in todo.tolist():
            rows = np.concatenate([coarse, fine[extra[i]]])
            result[i], solved[i] = _nearest(gamma[i], factor[i], rows)
        broken = result[todo] @ fine.T < -_TOLERATED
        extra[todo] |= broken
        todo = todo[broken.any(axis=1) & solved[todo]]
        if not todo.size:
            break
    return Projection(gamma=result, bound=bound, solved=solved)


def _nearest(gamma: Array, factor: Array, rows: Array) -> tuple[Array, bool]:
    """Project one fit; ``factor`` is the lower Cholesky factor of its normal matrix."""
    from scipy.linalg.blas import dtrsm
    from scipy.optimize import nnls

    # In y = factor' gamma the metric is that of space, and the projection of y on the cone is y plus
    # the non-negative combination of constraint normals that comes nearest to -y (Moreau).
    normals = dtrsm(1.0, factor, rows.T, lower=1)
    length = np.sqrt((normals**2).sum(axis=0))
    normals /= length
    point = gamma @ factor
    try:
        weights, _ = nnls(normals, -point, maxiter=_SOLVER_ITERATIONS)
    except RuntimeError:
        return gamma, False
    inside = point + normals @ weights
    return dtrsm(1.0, factor, inside[:, None], lower=1, trans_a=1)[:, 0], True


def _rows(directions: Array, b_max_ms_um2: float) -> Array:
    """V(n) >= 0 and 3 D(n) / b_max - V(n) >= 0, as rows of the design's coefficients (2 k, 22)."""
    lower = np.zeros((len(directions), 22))
    lower[:, 6:21] = fourth_order(directions)
    upper = -lower
    upper[:, :6] = 3 / b_max_ms_um2 * second_order(directions)
    return np.concatenate([lower, upper])


def lowest_values(fourth: Array) -> Array:
    """Lowest V(n) over all directions, shape (m,), for coefficients (m, 15).

    The best directions of a fine lattice that are apart from each other, then from each of them steps
    of Newton's method on the sphere, of which only those that descend are taken.
    """
    lattice = half_sphere_lattice(_FINE_LATTICE)
    values = fourth @ fourth_order(lattice).T
    full = as_fourth_tensor(fourth)
    near = np.abs(lattice @ lattice.T) > np.cos(np.radians(_BASIN_DEG))
    best = np.full(len(fourth), np.inf)
    for _ in range(_BASINS):
        start = values.argmin(axis=1)
        n, lowest = lattice[start], values.min(axis=1)
        share = np.ones(len(fourth))
        for _ in range(_NEWTON_STEPS):
            trial = _newton_step(full, n, share)
            value = (fourth_order(trial) * fourth).sum(axis=1)
            down = value < lowest
            n, lowest = np.where(down[:, None], trial, n), np.where(down, value, lowest)
            # A step across the valley is not taken, and must not be tried again.
            share = np.where(down, 1.0, share / 4)
        best = np.minimum(best, lowest)
        values[near[start]] = np.inf
    return best


def _newton_step(full: Array, n: Array, share: Array) -> Array:
    """A share of a step towards a stationary point of V on the sphere, in the plane that touches it at n."""
    second = contract(contract(full, n), n)
    slope = contract(second, n)
    # The smallest component of n is farthest from being parallel to it.
    helper = np.eye(3)[np.abs(n).argmin(axis=1)]
    first = helper - (helper * n).sum(axis=1, keepdims=True) * n
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    other = np.cross(n, first)
    value = (slope * n).sum(axis=1)
    a = 3 * (contract(second, first) * first).sum(axis=1) - value
    c = 3 * (contract(second, other) * other).sum(axis=1) - value
    b = 3 * (contract(second, first) * other).sum(axis=1)
    p, q = (slope * first).sum(axis=1), (slope * other).sum(axis=1)
    # Curvatures along the principal axes of the plane; where one is negative its size is used, so
    # that the step descends at saddles and ridges too.
    angle = 0.5 * np.arctan2(2 * b, a - c)
    cos, sin = np.cos(angle), np.sin(angle)
    half, middle = np.hypot((a - c) / 2, b), (a + c) / 2
    least = 1e-3 * (np.abs(middle) + half) + np.finfo(float).tiny
    along = -(p * cos + q * sin) / np.maximum(np.abs(middle + half), least)
    across = -(q * cos - p * sin) / np.maximum(np.abs(middle - half), least)
    size = np.maximum(np.hypot(along, across) / _LONGEST_TURN, 1.0) / share
    move_first = (along * cos - across * sin) / size
    move_other = (along * sin + across * cos) / size
    moved = n + move_first[:, None] * first + move_other[:, None] * other
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))


def lift_to_non_negative(fourth: Array) -> Array:
    """Add the least isotropic constant that leaves no direction with a negative V, shape (m, 15)."""
    lowest = lowest_values(fourth)
    lift = np.where(lowest < _MARGIN, _MARGIN - lowest, 0.0)
    return np.asarray(fourth + lift[:, None] * ISOTROPIC)
