"""Noise of a diffusion series from what a free kurtosis fit leaves over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.design import kurtosis_design
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.linear_fit import Block, Design, Series, check_series, fit_weighted

__all__ = ["estimate_from_blocks", "estimate_noise_sd"]

Array = NDArray[np.float64]

#: Voxels are taken in this many stretches of this length, evenly over the series.
_STRETCHES, _STRETCH = 6, 512
#: Voxels count whose signal without weighting is this many times their residuals.
_VOXEL_SNR = 5.0
#: Samples count whose predicted signal is this many times the residuals: below, a magnitude scatters
#: less than the noise.
_SAMPLE_SNR = 4.0


def estimate_noise_sd(signal: ArrayLike, table: GradientTable, *, mask: ArrayLike | None = None) -> float:
    """Noise standard deviation per channel: median over voxels of the residuals of a free kurtosis fit.

    Only samples far above the noise floor count, each with the freedom that its leverage leaves.  The
    noise is taken to be the same in all voxels; give the mask of the cord where it is not.

    Returns
    -------
    float
        In signal units.

    Raises
    ------
    InputError
        If the series or table is not usable, or no voxel has signal and spare samples.
    """
    series = check_series(signal, len(table), mask)
    return estimate_from_blocks(series, Design.of(kurtosis_design(table)), table)


def estimate_from_blocks(series: Series, design: Design, table: GradientTable) -> float:
    """:func:`estimate_noise_sd` of a series that was checked."""
    starts = np.unique(np.linspace(0, max(series.rows.size - _STRETCH, 0), _STRETCHES).astype(int))
    found = []
    for start in starts:
        part = replace(series, rows=series.rows[start : start + _STRETCH])
        for block in part.blocks(table.is_b0, design.n_unknowns):
            usable = block.select(block.reason == 0)
            if len(usable.rows):
                found.append(_residual_variance(usable, design))
    values = np.concatenate(found) if found else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size or not np.median(values) > 0:
        raise InputError(
            "the noise cannot be estimated from this series",
            found=f"{values.size} voxels with signal and spare samples",
            expected="residuals above zero",
            todo="give noise_sd",
        )
    return float(np.sqrt(np.median(values)))


def _residual_variance(block: Block, design: Design) -> Array:
    """Noise variance, signal units squared, from samples far above the noise; NaN where unknown."""
    fit = fit_weighted(block, design)
    first = fit.noise_sd(block, design)
    log = fit.gamma @ design.basis.T
    weighted = design.basis.T * fit.weights[:, None, :]
    leverage = np.einsum("np,mpn->mn", design.basis, np.linalg.solve(fit.gram, weighted))
    with np.errstate(invalid="ignore"):
        clear = block.used & (np.exp(log) > _SAMPLE_SNR * first[:, None])
    square = (clear * fit.weights * (block.log - log) ** 2).sum(axis=1)
    freedom = (clear * (1 - leverage)).sum(axis=1)
    good = (fit.reason == 0) & (freedom > 1) & (first * _VOXEL_SNR < 1)
    variance = np.divide(square, freedom, out=np.full(len(square), np.nan), where=good)
    # The median of a chi square lies below its mean (Wilson-Hilferty), and the median is what is taken.
    median_share = (1 - 2 / (9 * np.maximum(freedom, 1.0))) ** 3
    return np.asarray(variance / median_share * block.level**2)
