"""Slices of single volumes that do not fit the rest of the series.

A slice loses signal when the cord pulsates during diffusion weighting, or gains it by spikes and ghosts.
The mean over the cord is compared with what the other volumes of the shell predict for that direction (the
idea of Andersson et al. 2016, doi:10.1016/j.neuroimage.2016.06.058; here its logarithm is a quadratic form
of the direction, fitted without the volume itself).  The pattern within the cord is compared with its
prediction too, and counts where one slice stands out against the others of its volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.preprocess_prediction import contrast_groups, left_out_matrix

__all__ = ["SliceOutliers", "drop_outliers", "find_outlier_slices"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A slice mean this far from its prediction, and this many robust standard deviations, is an outlier.
LARGEST_SHARE, LARGEST_Z = 0.2, 4.0
#: So is a pattern whose residual is this many times the usual one, and so many deviations.
LARGEST_RATIO, LARGEST_PATTERN_Z = 1.6, 6.0
#: Contrasts with fewer volumes cannot say which of them is wrong.
LEAST_VOLUMES = 3
LEAST_PIXELS = 3
#: Robust standard deviations below this are taken as this (share of the signal).
LEAST_SPREAD = 0.01
ROUNDS = 12
#: In one round the worst of a slice are taken, down to this part of the largest.
WORST = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOutliers:
    """Which slices of which volumes do not fit.

    Attributes
    ----------
    outlier : ndarray of bool, shape (n_slices, n_volumes)
    residual_share : ndarray, same shape
        Mean over the cord less its prediction, over the prediction; NaN where there is none.
    pattern_ratio : ndarray, same shape
        Residual over the pixels of the cord, over the usual one of that slice and of that volume.
    sentence : str
        What was done, for the methods text.
    notices : tuple of str
    """

    outlier: Mask
    residual_share: Array
    pattern_ratio: Array
    sentence: str
    notices: tuple[str, ...]


def find_outlier_slices(
    data: NDArray[Any], gradients: GradientTable, mask: NDArray[Any], *, known: Mask | None = None
) -> SliceOutliers:
    """Find slices that lost or gained signal.

    Parameters
    ----------
    data : ndarray, shape (n_first, n_second, n_slices, n_volumes)
        Slices along the third axis.
    gradients : GradientTable
    mask : ndarray, shape (n_first, n_second, n_slices)
        Cord (above 0.5).  Slices without it are not judged.
    known : ndarray of bool, shape (n_slices, n_volumes), optional
        Outliers found before, which stay outliers.

    Raises
    ------
    InputError
        If the shapes do not belong together.
    EmptyInputError
        If the mask is empty.
    """
    cord = _check(data, gradients, mask)
    groups = contrast_groups(gradients)
    shape = (data.shape[2], data.shape[3])
    outlier = np.zeros(shape, dtype=bool) if known is None else known.copy()
    share, size, slices = np.full(shape, np.nan), np.full(shape, np.nan), {}
    for z in np.flatnonzero(cord.any(axis=(0, 1))):
        values = np.asarray(data[:, :, z][cord[:, :, z]], dtype=float)
        # A slice without any value, or all zero, is no measurement.
        gone = ~np.isfinite(values).any(axis=0) | (np.nan_to_num(values) == 0).all(axis=0)
        outlier[z] |= gone
        pixels = np.isfinite(values[:, ~gone]).all(axis=1)
        if pixels.sum() < LEAST_PIXELS:
            continue
        slices[z] = np.where(gone, 0.0, values[pixels])
        outlier[z], share[z] = _judge_means(slices[z].mean(axis=0), gradients, groups, outlier[z])
    for z, values in slices.items():
        matrix = left_out_matrix(gradients, ~outlier[z], groups=groups, strict=True)
        size[z] = _residual_size(values, matrix)
    ratio = _relative(size, outlier, groups)
    outlier |= _odd_patterns(ratio, outlier)
    return SliceOutliers(
        outlier=outlier,
        residual_share=share,
        pattern_ratio=ratio,
        sentence=_sentence(outlier, cord),
        notices=_notices(share, outlier, cord, groups, gradients),
    )


def drop_outliers(data: NDArray[Any], outlier: Mask) -> NDArray[np.float32]:
    """Set outlier slices to NaN, which the fits leave out; ``outlier`` is (n_slices, n_volumes)."""
    if outlier.shape != data.shape[2:]:
        raise InputError(
            "the outliers do not belong to the series", found=f"{outlier.shape}", expected=f"{data.shape[2:]}"
        )
    return np.where(outlier, np.float32(np.nan), np.asarray(data, dtype=np.float32))


def _check(data: NDArray[Any], gradients: GradientTable, mask: NDArray[Any]) -> Mask:
    if data.ndim != 4 or data.shape[3] != len(gradients):
        raise InputError(
            "the gradient table does not belong to the series",
            found=f"shape {data.shape}",
            expected=f"four axes, {len(gradients)} volumes",
        )
    if np.shape(mask) != data.shape[:3]:
        raise InputError(
            "the mask lies on another grid", found=f"{np.shape(mask)}", expected=f"{data.shape[:3]}"
        )
    cord = np.asarray(np.asarray(mask) > 0.5, dtype=bool)
    if not cord.any():
        raise EmptyInputError("the mask of the cord is empty")
    return cord


def _judge_means(
    mean: Array, gradients: GradientTable, groups: NDArray[np.intp], start: Mask
) -> tuple[Mask, Array]:
    """Judge the mean signals of one slice, shape (n_volumes,); the worst first."""
    outlier = start.copy()
    logarithm = np.log(np.maximum(mean, 1e-6 * max(float(np.abs(mean).max()), 1e-300)))
    for _ in range(ROUNDS):
        matrix = left_out_matrix(gradients, ~outlier, groups=groups, strict=True)
        blind = ~np.isfinite(matrix).all(axis=1)
        predicted = np.exp(np.nan_to_num(matrix) @ logarithm)
        share = np.where(blind, np.nan, mean / predicted - 1.0)
        new = np.zeros(mean.shape, dtype=bool)
        for group in np.unique(groups):
            fine = (groups == group) & ~blind & ~outlier
            if fine.sum() < LEAST_VOLUMES:
                share[groups == group] = np.nan
            else:
                new |= _worst(share, mean - predicted, fine)
        if not new.any():
            break
        outlier |= new
    return outlier, share


def _worst(share: Array, rest: Array, fine: Mask) -> Mask:
    """Find the largest of the residuals that are too large, among the volumes of one contrast."""
    middle = float(np.median(rest[fine]))
    spread = 1.4826 * float(np.median(np.abs(rest[fine] - middle)))
    level = float(np.median((rest / np.where(share == 0, 1.0, share))[fine]))
    # Noise is the same at weak signals as at strong ones: deviations are judged in units of signal.
    z = np.abs(rest) / max(spread, LEAST_SPREAD * abs(level), 1e-300)
    wrong = fine & (np.abs(share) > LARGEST_SHARE) & ((z > LARGEST_Z) | (fine.sum() < 5))
    largest = float(np.abs(rest[wrong]).max()) if wrong.any() else 0.0
    return np.asarray(wrong & (np.abs(rest) >= WORST * largest), dtype=bool)


def _residual_size(values: Array, matrix: Array) -> Array:
    """Root mean square over the pixels (n_pixels, n_volumes) of what is not predicted, for one slice."""
    weights = np.nan_to_num(matrix)
    rest = values - values @ weights.T
    # The prediction of a direction far from the others is noisier than that of one among them.
    size = np.sqrt((rest**2).mean(axis=0) / (1.0 + (weights**2).sum(axis=1)))
    return np.where(np.isfinite(matrix).all(axis=1), size, np.nan)


def _relative(size: Array, outlier: Mask, groups: NDArray[np.intp]) -> Array:
    """Residual over the usual one of its slice and of its volume; NaN where too few can be compared."""
    ratio = np.where(outlier, np.nan, size)
    for group in np.unique(groups):
        for z in range(len(ratio)):
            ratio[z, groups == group] = _over_median(ratio[z, groups == group], 5)
    for v in range(ratio.shape[1]):
        ratio[:, v] = _over_median(ratio[:, v], 3)
    return ratio


def _over_median(values: Array, least: int) -> Array:
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if known.size >= least else 0.0
    return values / middle if middle > 0 else np.full(values.shape, np.nan)


def _odd_patterns(ratio: Array, outlier: Mask) -> Mask:
    known = ratio[np.isfinite(ratio)]
    if known.size < 10:
        return np.zeros(outlier.shape, dtype=bool)
    spread = max(1.4826 * float(np.median(np.abs(known - 1.0))), LEAST_SPREAD)
    return np.nan_to_num(ratio, nan=0.0) > max(LARGEST_RATIO, 1.0 + LARGEST_PATTERN_Z * spread)


def _sentence(outlier: Mask, cord: Mask) -> str:
    slices = cord.any(axis=(0, 1))
    count, total = int(outlier[slices].sum()), int(slices.sum()) * outlier.shape[1]
    return (
        f"Slices of single volumes were taken as outliers where their mean over the cord lay more than "
        f"{LARGEST_SHARE:.0%} and {LARGEST_Z:g} robust standard deviations from the prediction of the other "
        f"volumes of the shell, or where their pattern disagreed {LARGEST_RATIO:g} times more than usual "
        f"({count} of {total}); they are left out of fits."
    )


def _notices(
    share: Array, outlier: Mask, cord: Mask, groups: NDArray[np.intp], gradients: GradientTable
) -> tuple[str, ...]:
    slices = cord.any(axis=(0, 1))
    out = []
    for group in np.unique(groups):
        mine = groups == group
        b = float(np.median(gradients.b_values_s_mm2[mine]))
        if not np.isfinite(share[slices][:, mine]).any():
            out.append(
                f"slices at b = {b:.0f} s/mm2 were not judged: too few volumes to predict each other "
                f"({int(mine.sum())})"
            )
    lost = outlier[slices].mean(axis=0)
    whole = [str(v + 1) for v in np.flatnonzero(lost > 0.5)]
    if whole:
        out.append(f"more than half of the slices are outliers in volume {', '.join(whole)} (counted from 1)")
    return tuple(out)
