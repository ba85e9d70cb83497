"""Log-linear fits that find and leave out samples which do not belong to the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.linear_fit import (
    HIGHEST_LOG,
    LOST_RANK,
    Block,
    Design,
    LinearFit,
    fit_weighted,
    keeps_rank,
    reweight,
)

__all__ = ["fit_robust"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_ITERATIONS = 30
#: Median absolute deviation to standard deviation of a normal distribution.
_MAD_TO_SD = 1.4826
#: No sample is given less than this share of its weight, so that every system stays solvable.
_LEAST_FACTOR = 1e-4
#: Residuals beyond this many robust standard deviations are outliers.
_OUTLIER = 3.0
#: Tuning of the weights that find the scale, and of those that find the outliers.
_SEVERE, _MILD = 1.0, 2.0
_SETTLED_FACTOR = 1e-3
#: Fewer spare samples cannot tell an outlier from noise.
_LEAST_SPARE = 3
#: Voxels of noise, and their noise over their signal, in the simulation of the scale.
_SIMULATED, _SMALL_NOISE = 400, 1e-3


def fit_robust(block: Block, design: Design) -> tuple[LinearFit, Mask]:
    """Weighted fit of the samples that are left when outliers have been found and removed.

    An MM estimate finds them.  Iteratively reweighted least squares with Geman-McClure weights, scaled
    by the median absolute residual, withstands many outliers but wastes good samples; it gives the
    scale, which is corrected for that waste by a simulation of pure noise on the same design.  With
    the scale held, milder weights give the fit from which samples beyond three standard deviations
    are outliers.  The rest is fitted by the ordinary estimator, so that without outliers the result
    is that of :func:`fit_weighted`.

    Returns
    -------
    fit : LinearFit
    outliers : ndarray of bool, shape (m, n)
        Nowhere true in a voxel with fewer than 3 spare samples, or in which too many would go.
    """
    fit = fit_weighted(block, design)
    fit, scale = _redescend(block, design, fit, _SEVERE)
    scale = scale * _scale_correction(design)
    fit, _ = _redescend(block, design, fit, _MILD, scale)
    outliers = block.used & (np.abs(_residuals(block, design, fit)) > _OUTLIER * scale[:, None])
    outliers = _drop_where_lost(outliers, block.used, design)
    return fit_weighted(block.without(outliers), design), outliers


def _redescend(
    block: Block, design: Design, fit: LinearFit, tuning: float, scale: Array | None = None
) -> tuple[LinearFit, Array]:
    """Iterate Geman-McClure weights 1 / (1 + (r / tuning)^2)^2; return the fit and the scale (m,)."""
    lost = fit.reason == LOST_RANK
    factor = block.used.astype(float)
    for _ in range(_MOST_ITERATIONS):
        residual = _residuals(block, design, fit)
        width = tuning * (_residual_scale(block, residual, design) if scale is None else scale)
        share = 1.0 / (1.0 + (residual / width[:, None]) ** 2) ** 2
        renewed = np.where(block.used, np.maximum(share, _LEAST_FACTOR), 0.0)
        change = np.abs(renewed - factor).max(initial=0.0)
        factor = renewed
        fit = reweight(block, design, fit.gamma, factor, lost)
        if change < _SETTLED_FACTOR:
            break
    if scale is None:
        scale = _residual_scale(block, _residuals(block, design, fit), design)
    return fit, scale


def _scale_correction(design: Design) -> float:
    """Ratio of the noise to the scale that the severe weights leave, from noise on a constant signal."""
    generator = np.random.default_rng(0)
    n = len(design.matrix)
    samples = 1.0 + _SMALL_NOISE * generator.standard_normal((_SIMULATED, n))
    every = np.ones(n, dtype=bool)
    block = Block.of(samples, np.arange(_SIMULATED), every, design.n_unknowns)
    _, scale = _redescend(block, design, fit_weighted(block, design), _SEVERE)
    typical = float(np.sqrt(np.mean((scale * block.level) ** 2)))
    return _SMALL_NOISE / typical if n - design.n_unknowns >= _LEAST_SPARE else 1.0


def _drop_where_lost(outliers: Mask, used: Mask, design: Design) -> Mask:
    """Where the rest could not be fitted, all samples stay: no majority tells which are wrong."""
    kept = used & ~outliers
    enough = (kept.sum(axis=1) > design.n_unknowns) & (used.sum(axis=1) >= design.n_unknowns + _LEAST_SPARE)
    some = np.flatnonzero(outliers.any(axis=1) & enough)
    if some.size:
        enough[some] = keeps_rank(design.gram(kept[some].astype(float)))
    sure: Mask = outliers & enough[:, None]
    return sure


def _residuals(block: Block, design: Design, fit: LinearFit) -> Array:
    """Signal residuals of the used samples over the block's level, 0 elsewhere, shape (m, n)."""
    predicted = np.exp(np.minimum(fit.gamma @ design.basis.T, HIGHEST_LOG))
    return np.where(block.used, block.samples - predicted, 0.0)


def _residual_scale(block: Block, residual: Array, design: Design) -> Array:
    """Standard deviation (m,) by the median absolute residual, allowing for the unknowns."""
    n = block.used.sum(axis=1)
    spare = np.sqrt(n / np.maximum(n - design.n_unknowns, 1))
    scale = _MAD_TO_SD * _median_of_used(np.abs(residual), block.used) * spare
    # Noise-free data leave residuals of rounding, none of which is an outlier.
    return np.asarray(np.maximum(scale, 1e-9 * np.abs(block.samples).max(axis=1, initial=0.0)))


def _median_of_used(values: Array, used: Mask) -> Array:
    """Median of each row over its used samples; one exists in every row."""
    if used.all():
        return np.asarray(np.median(values, axis=1))
    ordered = np.sort(np.where(used, values, np.inf), axis=1)
    n = used.sum(axis=1)
    row = np.arange(len(n))
    median: Array = (ordered[row, (n - 1) // 2] + ordered[row, n // 2]) / 2
    return median
