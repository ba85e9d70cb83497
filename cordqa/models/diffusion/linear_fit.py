"""Batched weighted least squares of log signals, shared by the tensor and the kurtosis model.

Every voxel has its own weights, and possibly missing samples; both enter the normal equations of
a basis in which the design is orthonormal, so that squaring its condition number costs nothing.
A sample that is not usable has weight zero: the rest of its voxel is fitted without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = [
    "CEILING",
    "FLOOR",
    "HIGHEST_LOG",
    "Block",
    "Design",
    "LinearFit",
    "Series",
    "check_series",
    "fit_reweighted",
    "fit_weighted",
    "keeps_rank",
    "one_covariance_form",
    "reweight",
    "solve_gram",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]

#: A sample below this fraction of the signal without weighting is no signal: every scanner's noise
#: is larger, and its logarithm would outweigh the others in the unweighted first pass.
FLOOR = 1e-4
#: A sample above this many times the signal without weighting is a spike or a fault of scaling.
CEILING = 1e4
#: Voxels solved together: bounds the memory of a map.
_ROWS_AT_ONCE = 4096
#: A pattern of missing samples may inflate the variance of one combination of the coefficients
#: by the inverse of this; beyond, the pattern has lost the rank.
_LOST_RANK = 1e-4
_MOST_ITERATIONS = 30
#: Iterations end when no log signal changes by more than this.
_SETTLED = 1e-8
#: Predicted log signals over the voxel's level are kept within this where they become weights.
LOWEST_LOG, HIGHEST_LOG = float(np.log(FLOOR)), float(np.log(100.0))

FITTED, OUTSIDE_MASK, NO_NUMBER, NO_SIGNAL, NO_B0, TOO_FEW, LOST_RANK, NOT_CONVERGED, NO_NOISE = range(9)
REASON_TEXTS = (
    "",
    "outside the mask",
    "no sample is a number",
    "no signal",
    "no usable sample without diffusion weighting",
    "too few usable samples",
    "the usable samples do not determine the model",
    "not converged",
    "no noise standard deviation above zero",
)


@dataclass(frozen=True, slots=True)
class Series:
    """A checked series, in the dtype and the memory order it came in, and the voxels to fit.

    ``samples`` has at least two axes; ``rows`` number the voxels in C order.
    """

    samples: NDArray[np.generic]
    shape: tuple[int, ...]
    rows: NDArray[np.intp]

    @property
    def n_voxels(self) -> int:
        """Number of voxels, to be fitted or not."""
        return math.prod(self.shape)

    def blocks(self, is_b0: Mask, n_unknowns: int) -> Iterator[Block]:
        """Cut the voxels to fit into blocks of bounded memory."""
        for first in range(0, self.rows.size, _ROWS_AT_ONCE):
            rows = self.rows[first : first + _ROWS_AT_ONCE]
            places = np.unravel_index(rows, self.samples.shape[:-1])
            yield Block.of(self.samples[places].astype(np.float64), rows, is_b0, n_unknowns)


@dataclass(frozen=True, slots=True)
class Block:
    """Some voxels: which samples are usable, and why a voxel cannot be fitted.

    ``level`` (m,) is the signal without weighting, by which ``log`` (m, n) and ``samples`` are
    divided; unusable samples are 0 in ``log``.  ``not_numbers``, ``not_positive`` and
    ``far_above`` (m,) tell the voxels that lost samples, and to what.
    """

    rows: NDArray[np.intp]
    samples: Array
    log: Array
    used: Mask
    level: Array
    reason: Codes
    not_numbers: Mask
    not_positive: Mask
    far_above: Mask

    @classmethod
    def of(cls, samples: Array, rows: NDArray[np.intp], is_b0: Mask, n_unknowns: int) -> Block:
        """Sort the samples into usable and not."""
        number = np.isfinite(samples)
        clean = samples if number.all() else np.where(number, samples, 0.0)
        positive = clean > 0
        n_b0 = (positive[:, is_b0]).sum(axis=1)
        # Divided before it is summed: samples near the largest number must not overflow.
        share = np.maximum(clean[:, is_b0], 0.0) / np.maximum(n_b0, 1)[:, None]
        level = share.sum(axis=1)
        with np.errstate(over="ignore"):
            used = positive & (clean > FLOOR * level[:, None])
            far_above = clean / CEILING > level[:, None]
        used &= ~far_above | (n_b0 == 0)[:, None]
        reason = _block_reason(number, positive, n_b0, used.sum(axis=1) < n_unknowns)
        scale = np.where(reason == FITTED, level, 1.0)
        scaled = np.where(used, clean, 0.0) / scale[:, None] if far_above.any() else clean / scale[:, None]
        every = bool(used.all())
        log = np.log(scaled) if every else np.log(scaled, out=np.zeros_like(scaled), where=used)
        return cls(
            rows=rows,
            samples=scaled,
            log=log,
            used=used,
            level=scale,
            reason=reason,
            not_numbers=np.asarray(~number.all(axis=1)),
            not_positive=(number & ~used & ~far_above).any(axis=1),
            far_above=(used < (far_above & number)).any(axis=1),
        )

    def select(self, keep: Mask) -> Block:
        """Return the block of some of its voxels."""
        return self if keep.all() else self.at(np.flatnonzero(keep))

    def at(self, index: NDArray[np.intp]) -> Block:
        """Return the block of the voxels at these places."""
        return Block(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def without(self, outliers: Mask) -> Block:
        """Return the same voxels with fewer usable samples."""
        return replace(self, used=self.used & ~outliers)


@dataclass(frozen=True, slots=True)
class Design:
    """A design (n, p), its orthonormal basis (n, p) and the map from one's coefficients to the other's.

    ``design = basis @ upper``; coefficients of the basis times ``inverse.T`` are those of the
    design.  ``products`` (n, p (p + 1) / 2) are the products of the basis' columns.
    """

    matrix: Array
    basis: Array
    inverse: Array
    products: Array
    lower: tuple[NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def of(cls, matrix: Array) -> Design:
        """Factorise a design of full column rank."""
        basis, upper = np.linalg.qr(matrix)
        lower = np.tril_indices(matrix.shape[1])
        return cls(
            matrix=matrix,
            basis=basis,
            inverse=np.linalg.inv(upper),
            products=basis[:, lower[0]] * basis[:, lower[1]],
            lower=lower,
        )

    @property
    def n_unknowns(self) -> int:
        """Number of coefficients."""
        return int(self.matrix.shape[1])

    def gram(self, weights: Array) -> Array:
        """Weighted normal matrices (m, p, p) in the orthonormal basis."""
        packed = weights @ self.products
        gram = np.empty((len(weights), self.n_unknowns, self.n_unknowns))
        gram[:, self.lower[0], self.lower[1]] = packed
        gram[:, self.lower[1], self.lower[0]] = packed
        return gram

    def coefficients(self, gamma: Array) -> Array:
        """Coefficients of the design from those of the basis, shape (m, p)."""
        beta: Array = gamma @ self.inverse.T
        return beta


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Fitted coefficients of the orthonormal basis, of the log signal over the block's level.

    ``weights`` (m, n) are the squared predicted signals, 0 where a sample was not used; ``gram``
    (m, p, p) the normal matrices of these weights.
    """

    gamma: Array
    gram: Array
    weights: Array
    used: Mask
    reason: Codes

    def degrees_of_freedom(self) -> NDArray[np.int_]:
        """Samples used less unknowns."""
        freedom: NDArray[np.int_] = self.used.sum(axis=1) - self.gamma.shape[1]
        return freedom

    def noise_sd(self, block: Block, design: Design) -> Array:
        """Residual standard deviation over the block's level; NaN without a spare sample."""
        freedom = self.degrees_of_freedom()
        residual = block.log - self.gamma @ design.basis.T
        square = np.einsum("mn,mn,mn->m", self.weights, residual, residual)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.where(freedom > 0, square / freedom, np.nan)
        sd: Array = np.sqrt(variance)
        return sd


def check_series(signal: ArrayLike, n_volumes: int, mask: ArrayLike | None) -> Series:
    """Check the shape and kind of a series of magnitude images.

    Raises
    ------
    InputError
        If volumes and gradients differ in number, the samples are not real numbers, or the mask has
        another shape.
    """
    samples = np.asarray(signal)
    if samples.ndim == 0 or samples.shape[-1] != n_volumes:
        found = samples.shape[-1] if samples.ndim else "a single number"
        raise InputError(
            "volumes and gradients differ in number",
            found=f"{found} volumes and {n_volumes} gradients",
            expected="as many of one as of the other, volumes on the last axis",
        )
    if samples.dtype.kind not in "fiub":
        raise InputError(
            "diffusion signals are real numbers",
            found=f"{samples.dtype}",
            expected="magnitudes",
            todo="give the magnitude" if samples.dtype.kind == "c" else "",
        )
    shape = samples.shape[:-1]
    grid = samples if samples.ndim > 1 else samples[None]
    if mask is None:
        return Series(samples=grid, shape=shape, rows=np.arange(math.prod(shape)))
    inside = np.nan_to_num(np.asarray(mask))
    if inside.shape != shape:
        raise InputError("the mask has another shape", found=f"{inside.shape}", expected=f"{shape}")
    return Series(samples=grid, shape=shape, rows=np.flatnonzero(inside.ravel()))


def _block_reason(number: Mask, positive: Mask, n_b0: NDArray[np.int_], too_few: Mask) -> Codes:
    """Why voxels cannot be fitted; where several reasons apply, the most basic one."""
    reason = np.full(len(number), FITTED, dtype=np.uint8)
    for where, code in (
        (too_few, TOO_FEW),
        (n_b0 == 0, NO_B0),
        (~positive.any(axis=1), NO_SIGNAL),
        (~number.any(axis=1), NO_NUMBER),
    ):
        reason[where] = code
    return reason


def solve_gram(gram: Array, right: Array) -> Array:
    """Solve batched normal equations (m, p, p) for right sides (m, p) or (m, p, k)."""
    if right.ndim == gram.ndim:
        return np.asarray(np.linalg.solve(gram, right))
    return np.asarray(np.linalg.solve(gram, right[..., None]))[..., 0]


def one_covariance_form(fit: LinearFit, design: Design, gradients: Array) -> Array:
    """Variances g' (A'WA)^-1 g for gradients (m, k, p) by the design's coefficients, shape (m, k)."""
    in_basis = (gradients @ design.inverse).transpose(0, 2, 1)
    form: Array = (in_basis * solve_gram(fit.gram, in_basis)).sum(axis=1)
    return form


def fit_weighted(block: Block, design: Design) -> LinearFit:
    """Two-pass weighted least squares: weights are the squared signals predicted by an unweighted fit.

    The estimator of Chung et al. 2006 (doi:10.1016/j.neuroimage.2006.07.001).  All voxels of the
    block must be free of reasons.
    """
    start, lost = _ordinary(block, design)
    return reweight(block, design, start, block.used.astype(float), lost)


def fit_reweighted(block: Block, design: Design) -> LinearFit:
    """Weighted least squares whose weights follow its own predictions until they settle."""
    start, lost = _ordinary(block, design)
    used = block.used.astype(float)
    fit = reweight(block, design, start, used, lost)
    change = np.zeros(len(used))
    for _ in range(_MOST_ITERATIONS):
        after = reweight(block, design, fit.gamma, used, lost)
        change = np.abs((after.gamma - fit.gamma) @ design.basis.T).max(axis=1, initial=0.0)
        fit = after
        if (change < _SETTLED).all():
            break
    unsettled = (change > np.sqrt(_SETTLED)) & (fit.reason == FITTED)
    return replace(fit, reason=np.where(unsettled, NOT_CONVERGED, fit.reason).astype(np.uint8))


def keeps_rank(gram: Array) -> Mask:
    """Tell the normal matrices of 0/1 weights (m, p, p) whose samples still determine the model."""
    kept: Mask = np.linalg.eigvalsh(gram)[:, 0] > _LOST_RANK
    return kept


def _ordinary(block: Block, design: Design) -> tuple[Array, Mask]:
    """Unweighted fit, and the voxels whose missing samples cost the rank."""
    gamma = block.log @ design.basis
    lost = np.zeros(len(gamma), dtype=bool)
    partial = np.flatnonzero(~block.used.all(axis=1))
    if partial.size:
        gram = design.gram(block.used[partial].astype(float))
        good = keeps_rank(gram)
        lost[partial[~good]] = True
        gamma[partial[good]] = solve_gram(gram[good], gamma[partial[good]])
    return gamma, lost


def reweight(block: Block, design: Design, gamma: Array, factor: Array, lost: Mask) -> LinearFit:
    """Solve with weights from the prediction of ``gamma``, times ``factor`` (0: not used).

    Voxels in ``lost`` have lost the rank; they get a reason.
    """
    log = gamma @ design.basis.T
    # Beyond these limits a predicted signal says nothing; the least weight keeps the rank.
    weights = np.exp(2 * np.clip(log, LOWEST_LOG, HIGHEST_LOG)) * factor
    gram = design.gram(weights)
    gram[lost] = np.eye(design.n_unknowns)
    return LinearFit(
        gamma=solve_gram(gram, (weights * block.log) @ design.basis),
        gram=gram,
        weights=weights,
        used=factor > 0,
        reason=np.where(lost, LOST_RANK, FITTED).astype(np.uint8),
    )
