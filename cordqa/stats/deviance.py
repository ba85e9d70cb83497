"""The profiled deviance of a mixed model and its gradient, many tables of one design at once.

Nested terms are eliminated one by one with sums over levels; what is crossed with them, and the
fixed effects, is solved densely.  The gradient runs the same steps backwards (adjoints), so it
costs about as much as the deviance itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.stats.mixed_design import MixedDesign

__all__ = ["LARGEST_THETA", "Likelihood", "Prepared", "evaluate", "prepare", "solve_at"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

Likelihood = Literal["reml", "ml"]

#: Beyond this relative standard deviation the residual counts as zero.
LARGEST_THETA = 1e5
_CHUNK_CELLS = 3_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """Values of B tables with one design, reduced to what the deviance needs.

    Attributes
    ----------
    design : MixedDesign
    scale : ndarray, shape (B,)
        Root mean square of the values after the fixed effects; everything below is divided by it.
        NaN where nothing is left to explain.
    sums : ndarray, shape (B, q)
        Sums of the values over the levels of the finest term.
    products : ndarray, shape (B, m)
        Cross products of the values with dense indicators and basis.
    squares : ndarray, shape (B,)
    start_coefficients : ndarray, shape (B, p)
        Ordinary least squares in the basis, already taken out of the values.
    """

    design: MixedDesign
    scale: FloatArray
    sums: FloatArray
    products: FloatArray
    squares: FloatArray
    start_coefficients: FloatArray


@dataclass(frozen=True, slots=True)
class _ChainStep:
    """One eliminated term of the chain."""

    term: int
    starts: IntArray
    child_parent: IntArray  # level of this term for every level of the finer one
    gamma: FloatArray  # (b, 1)
    counts: FloatArray  # (b, q) effective number of values per level
    shrink: FloatArray  # (b, q) 1 / (1 + gamma counts)
    sums: FloatArray  # (b, q, m + 1)


@dataclass(frozen=True, slots=True)
class _DenseSolution:
    """What remains after the chain: crossed terms and fixed effects."""

    products: FloatArray  # (b, m, m)
    with_values: FloatArray  # (b, m)
    inverse: FloatArray  # (b, m, m), zero rows where theta is zero
    logdet_inverse: FloatArray  # (b, m, m): derivative of the log determinant
    solution: FloatArray  # (b, m)


def prepare(values: FloatArray, design: MixedDesign) -> Prepared:
    """Reduce values to sums over levels.

    Parameters
    ----------
    values : ndarray, shape (B, n)
        Values in the order of the design's labels; all finite.
    design : MixedDesign

    Returns
    -------
    Prepared
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.shape[1] != design.n_values:
        raise InputError(
            "values and design differ in length", found=str(table.shape[1]), expected=str(design.n_values)
        )
    if not np.all(np.isfinite(table)):
        raise InputError("a value is missing or infinite", todo="leave its row out of values and design")
    ordered = table[:, design.rows]
    centre = ordered.mean(axis=1, keepdims=True)
    coefficients = (ordered - centre) @ design.basis
    rest = ordered - centre - coefficients @ design.basis.T
    again = rest @ design.basis
    rest -= again @ design.basis.T
    # The mean is part of the fixed effects only where they span it; it always is in our designs,
    # yet a caller may leave the intercept out, so what the basis cannot hold is put back.
    constant = np.ones(design.n_values)
    inside = design.basis.T @ constant
    rest += centre * (constant - design.basis @ inside)
    coefficients = coefficients + again + centre * inside
    freedom = design.n_values - design.n_fixed
    scale = np.sqrt(np.sum(rest**2, axis=1) / freedom)
    size = np.sqrt(np.mean(ordered**2, axis=1))
    scale = np.where(scale > 1e-13 * size, scale, np.nan)
    rest = rest / np.where(np.isnan(scale), 1.0, scale)[:, None]
    dense = _dense_sums(rest, design)
    return Prepared(
        design=design,
        scale=scale,
        sums=np.add.reduceat(rest, design.starts[0], axis=1),
        products=np.concatenate([dense, rest @ design.basis], axis=1),
        squares=np.sum(rest**2, axis=1),
        start_coefficients=coefficients,
    )


def _dense_sums(rest: FloatArray, design: MixedDesign) -> FloatArray:
    """Sum of the values over each level of the crossed terms, shape (B, number of dense columns)."""
    total = np.zeros((rest.shape[0], design.dense_term.size))
    for term in range(design.dense_codes.shape[1]):
        column = design.dense_codes[:, term]
        order = np.argsort(column, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(column[order]) != 0])
        total[:, column[order][starts]] += np.add.reduceat(rest[:, order], starts, axis=1)
    return total


def evaluate(
    prepared: Prepared,
    theta: FloatArray,
    rows: IntArray,
    *,
    likelihood: Likelihood = "reml",
    log_sigma: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Deviance and its gradient, in units of ``prepared.scale``.

    Parameters
    ----------
    prepared : Prepared
    theta : ndarray, shape (b, K)
        Relative standard deviations; the deviance is even in each.
    rows : ndarray of int, shape (b,)
        Which table each row of ``theta`` belongs to.
    likelihood : {'reml', 'ml'}
    log_sigma : ndarray, shape (b,), optional
        Logarithm of the residual SD; profiled out where omitted.

    Returns
    -------
    deviance : ndarray, shape (b,)
    gradient : ndarray, shape (b, K)
        With respect to ``theta``.
    slope : ndarray, shape (b,)
        With respect to ``log_sigma``; zero where that is profiled.
    """
    if theta.shape[0] == 0:
        return np.empty(0), np.empty(theta.shape), np.empty(0)
    chunk = _chunk_size(prepared.design)
    parts = []
    for first in range(0, theta.shape[0], chunk):
        piece = slice(first, first + chunk)
        sigma = None if log_sigma is None else log_sigma[piece]
        parts.append(_evaluate_chunk(prepared, theta[piece], rows[piece], likelihood, sigma))
    deviance, gradient, slope = (np.concatenate(column) for column in zip(*parts, strict=True))
    return deviance, gradient, slope


def _evaluate_chunk(
    prepared: Prepared,
    theta: FloatArray,
    rows: IntArray,
    likelihood: Likelihood,
    log_sigma: FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    design = prepared.design
    n_fixed = design.n_fixed if likelihood == "reml" else 0
    freedom = design.n_values - n_fixed
    steps, products, logdet = _eliminate_chain(prepared, theta, rows)
    solution, dense_logdet, squares = _solve_dense(design, theta, products, likelihood)
    logdet = logdet + dense_logdet
    if likelihood == "reml":
        logdet = logdet + 2.0 * np.sum(np.log(np.abs(np.diag(design.triangle))))
    squares = np.maximum(squares, np.finfo(float).tiny)
    if log_sigma is None:
        deviance = logdet + freedom * (1.0 + np.log(2.0 * np.pi * squares / freedom))
        weight, slope = freedom / squares, np.zeros_like(squares)
    else:
        weight = np.exp(-2.0 * log_sigma)
        deviance = logdet + freedom * (np.log(2.0 * np.pi) + 2.0 * log_sigma) + squares * weight
        slope = 2.0 * freedom - 2.0 * squares * weight
    gamma_slope = _dense_gradient(design, solution, weight, theta.shape[1])
    _chain_gradient(steps, solution, weight, gamma_slope)
    gradient = 2.0 * theta * gamma_slope
    bad = ~np.isfinite(deviance) | (np.max(np.abs(theta), axis=1) > LARGEST_THETA)
    return np.where(bad, np.inf, deviance), gradient, slope


def _eliminate_chain(
    prepared: Prepared, theta: FloatArray, rows: IntArray
) -> tuple[list[_ChainStep], FloatArray, FloatArray]:
    """Take the nested terms out one by one; what remains is (b, m + 1, m + 1), values last."""
    design = prepared.design
    n_batch, n_shared = theta.shape[0], design.shared_sums.shape[1]
    sums = np.empty((n_batch, design.shared_sums.shape[0], n_shared + 1))
    sums[:, :, :n_shared] = design.shared_sums
    sums[:, :, n_shared] = prepared.sums[rows]
    products = np.empty((n_batch, n_shared + 1, n_shared + 1))
    products[:, :n_shared, :n_shared] = design.shared_products
    products[:, :n_shared, n_shared] = products[:, n_shared, :n_shared] = prepared.products[rows]
    products[:, n_shared, n_shared] = prepared.squares[rows]
    counts = np.broadcast_to(
        np.diff(np.r_[design.starts[0], design.n_values]).astype(float), (n_batch, sums.shape[1])
    )
    logdet = np.zeros(n_batch)
    steps: list[_ChainStep] = []
    for position, term in enumerate(design.chain):
        if position:
            finer = steps[-1]
            starts = design.starts[position]
            sums = np.add.reduceat(finer.sums * finer.shrink[:, :, None], starts, axis=1)
            counts = np.add.reduceat(finer.counts * finer.shrink, starts, axis=1)
        gamma = theta[:, term, None] ** 2
        shrink = 1.0 / (1.0 + gamma * counts)
        logdet = logdet + np.sum(np.log1p(gamma * counts), axis=1)
        weighted = sums * (gamma * shrink)[:, :, None]
        products = products - np.swapaxes(weighted, 1, 2) @ sums
        steps.append(
            _ChainStep(term, design.starts[position], _parents(design, position), gamma, counts, shrink, sums)
        )
    return steps, products, logdet


def _parents(design: MixedDesign, position: int) -> IntArray:
    """Level of one chain term for every level of the finer term before it."""
    if position == 0:
        return np.empty(0, dtype=np.intp)
    starts = design.starts[position]
    n_finer = design.starts[position - 1].size
    return np.repeat(np.arange(starts.size), np.diff(np.r_[starts, n_finer]))


def _solve_dense(
    design: MixedDesign, theta: FloatArray, products: FloatArray, likelihood: Likelihood
) -> tuple[_DenseSolution, FloatArray, FloatArray]:
    """Solve crossed terms and fixed effects; give log determinant and residual sum of squares."""
    n_dense = design.dense_term.size
    block, with_values = products[:, :-1, :-1], products[:, :-1, -1]
    stretch = np.ones(with_values.shape)
    stretch[:, :n_dense] = theta[:, design.dense_term]
    scaled = block * stretch[:, :, None] * stretch[:, None, :]
    diagonal = np.arange(n_dense)
    scaled[:, diagonal, diagonal] += 1.0
    factor = np.linalg.cholesky(scaled)
    logs = 2.0 * np.log(np.diagonal(factor, axis1=1, axis2=2))
    inverse = np.linalg.inv(scaled) * stretch[:, :, None] * stretch[:, None, :]
    if likelihood == "reml":
        logdet, logdet_inverse = logs.sum(axis=1), inverse
    else:
        logdet = logs[:, :n_dense].sum(axis=1)
        logdet_inverse = np.zeros_like(inverse)
        corner = (slice(None), slice(0, n_dense), slice(0, n_dense))
        both = stretch[:, :n_dense, None] * stretch[:, None, :n_dense]
        logdet_inverse[corner] = np.linalg.inv(scaled[corner]) * both if n_dense else 0.0
    solution = np.einsum("bij,bj->bi", inverse, with_values)
    squares = products[:, -1, -1] - np.sum(with_values * solution, axis=1)
    return _DenseSolution(block, with_values, inverse, logdet_inverse, solution), logdet, squares


def _dense_gradient(
    design: MixedDesign, solution: _DenseSolution, weight: FloatArray, n_terms: int
) -> FloatArray:
    """Derivative of the deviance with respect to gamma = theta^2 for the crossed terms, (b, K)."""
    slope = np.zeros((weight.size, n_terms))
    n_dense = design.dense_term.size
    if n_dense == 0:
        return slope
    block = solution.products[:, :n_dense, :]
    explained = np.einsum("bij,bji->bi", block @ solution.logdet_inverse, solution.products[:, :, :n_dense])
    trace = np.diagonal(solution.products, axis1=1, axis2=2)[:, :n_dense] - explained
    residual = solution.with_values[:, :n_dense] - np.einsum("bij,bj->bi", block, solution.solution)
    per_column = trace - weight[:, None] * residual**2
    for term in design.dense:
        slope[:, term] = per_column[:, design.dense_term == term].sum(axis=1)
    return slope


def _chain_gradient(
    steps: list[_ChainStep], solution: _DenseSolution, weight: FloatArray, slope: FloatArray
) -> None:
    """Add the derivative with respect to gamma of the nested terms, coarsest to finest (adjoints)."""
    n_batch, n_shared = solution.solution.shape
    adjoint = np.zeros((n_batch, n_shared + 1, n_shared + 1))
    minus = np.concatenate([-solution.solution, np.ones((n_batch, 1))], axis=1)
    adjoint[:, :n_shared, :n_shared] = solution.logdet_inverse
    adjoint += weight[:, None, None] * minus[:, :, None] * minus[:, None, :]
    sums_adjoint: FloatArray | None = None
    counts_adjoint: FloatArray | None = None
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        carried = step.sums @ adjoint
        weight_adjoint = -np.sum(carried * step.sums, axis=2)
        shrink_adjoint = np.zeros_like(step.shrink)
        if sums_adjoint is not None and counts_adjoint is not None:
            parent = steps[position + 1].child_parent
            sums_adjoint, counts_adjoint = sums_adjoint[:, parent], counts_adjoint[:, parent]
            shrink_adjoint = np.sum(step.sums * sums_adjoint, axis=2) + step.counts * counts_adjoint
        square = step.shrink**2
        slope[:, step.term] += np.sum(
            weight_adjoint * square - shrink_adjoint * step.counts * square + step.counts * step.shrink,
            axis=1,
        )
        if position == 0:
            return
        here = -2.0 * (step.gamma * step.shrink)[:, :, None] * carried
        counts_here = step.gamma * step.shrink
        counts_here = counts_here - (weight_adjoint * step.gamma + shrink_adjoint) * step.gamma * square
        if sums_adjoint is not None and counts_adjoint is not None:
            here = here + step.shrink[:, :, None] * sums_adjoint
            counts_here = counts_here + step.shrink * counts_adjoint
        sums_adjoint, counts_adjoint = here, counts_here


def solve_at(
    prepared: Prepared, theta: FloatArray, rows: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted residual sum of squares (b,), fixed effects (b, p), their covariance over sigma^2."""
    design = prepared.design
    n_dense = design.dense_term.size
    to_columns = np.linalg.inv(design.triangle)
    squares = np.empty(rows.size)
    coefficients = np.empty((rows.size, design.n_fixed))
    covariance = np.empty((rows.size, design.n_fixed, design.n_fixed))
    chunk = _chunk_size(design)
    for first in range(0, rows.size, chunk):
        piece = slice(first, first + chunk)
        index = rows[piece]
        _, products, _ = _eliminate_chain(prepared, theta[piece], index)
        solution, _, rest = _solve_dense(design, theta[piece], products, "reml")
        scale = prepared.scale[index]
        squares[piece] = rest * scale**2
        in_basis = solution.solution[:, n_dense:] * scale[:, None] + prepared.start_coefficients[index]
        coefficients[piece] = in_basis @ to_columns.T
        covariance[piece] = to_columns @ solution.inverse[:, n_dense:, n_dense:] @ to_columns.T
    return squares, coefficients, covariance


def _chunk_size(design: MixedDesign) -> int:
    """How many tables fit in cache-sized memory at once."""
    cells = design.shared_sums.shape[0] * (design.shared_sums.shape[1] + 1)
    return int(max(1, _CHUNK_CELLS // max(cells, 1)))
