"""Region signals: from pixels to one number per sphere and image, with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RegionSignals", "background_mean_square", "measure_regions"]

#: A region in which fewer pixels than this are usable gives no value.
MINIMUM_PIXELS = 5
#: Share of clipped pixels above which a sample is dropped.  One pixel at the top of the range
#: is the maximum of the image; several in one region mean that the region's mean is too low.
CLIPPED_SHARE = 0.02
#: Fewer background pixels than this do not measure a noise floor.
_MINIMUM_BACKGROUND = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSignals:
    """Signals of every region in every image.

    Attributes
    ----------
    mean : ndarray, shape (n_regions, n_images)
        Mean over the usable pixels (signed or complex where the images are).
    mean_square : ndarray, shape (n_regions, n_images)
        Mean of the square: the consistent quantity for magnitude data, because for Rician and
        non-central chi noise its expectation is the true square plus the background's.
    noise_sd : ndarray, shape (n_images,)
        Noise of one pixel (of one channel, for complex data), from the scatter inside the regions
        after a plane is removed.
    n_pixels : ndarray of int, shape (n_regions,)
        Pixels of each region.
    coverage : ndarray, shape (n_regions,)
        Smallest share of finite pixels over the images.
    clipped : ndarray of bool, shape (n_regions, n_images)
        Samples dropped because pixels stand at the top of the stored range.
    valid : ndarray of bool, shape (n_regions, n_images)
        Samples that may enter a fit.
    """

    mean: NDArray[np.float64] | NDArray[np.complex128]
    mean_square: NDArray[np.float64]
    noise_sd: NDArray[np.float64]
    n_pixels: NDArray[np.int64]
    coverage: NDArray[np.float64]
    clipped: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    @property
    def noise_of_mean(self) -> NDArray[np.float64]:
        """Standard error of each region mean by pixel noise alone, shape (n_regions, n_images)."""
        return np.asarray(self.noise_sd / np.sqrt(np.maximum(self.n_pixels, 1))[:, None])


def measure_regions(
    images: NDArray[np.inexact],
    masks: Sequence[NDArray[np.bool_]],
    *,
    clipped: NDArray[np.bool_] | None = None,
) -> RegionSignals:
    """Measure every region in every image.

    Parameters
    ----------
    images : ndarray, shape (n_images, ...)
        Image values; NaN marks pixels without one.
    masks : sequence of ndarray of bool, each of shape ``images.shape[1:]``
        One mask per region.
    clipped : ndarray of bool, shape (n_images, ...), optional
        Pixels at the top of the stored range.

    Returns
    -------
    RegionSignals
    """
    n_images = len(images)
    shape = (len(masks), n_images)
    kind = np.complex128 if np.iscomplexobj(images) else np.float64
    mean: NDArray[Any] = np.full(shape, np.nan, dtype=kind)
    mean_square = np.full(shape, np.nan)
    scatter = np.full(shape, np.nan)
    share, finite_share = np.zeros(shape), np.zeros(shape)
    counts = np.zeros(len(masks), dtype=np.int64)
    for i, mask in enumerate(masks):
        counts[i] = np.count_nonzero(mask)
        if counts[i] == 0:
            continue
        values = np.asarray(images[:, mask], dtype=kind)
        finite = np.isfinite(values)
        finite_share[i] = finite.mean(axis=1)
        usable = finite.sum(axis=1) >= MINIMUM_PIXELS
        filled = np.where(finite, values, 0.0)
        n = np.maximum(finite.sum(axis=1), 1)
        mean[i, usable] = (filled.sum(axis=1) / n)[usable]
        mean_square[i, usable] = ((np.abs(filled) ** 2).sum(axis=1) / n)[usable]
        scatter[i, usable] = _detrended_sd(values, finite, mask)[usable]
        if clipped is not None:
            share[i] = clipped[:, mask].mean(axis=1)
    is_clipped = share > CLIPPED_SHARE
    valid = np.isfinite(mean) & ~is_clipped & (counts >= MINIMUM_PIXELS)[:, None]
    return RegionSignals(
        mean=mean,
        mean_square=mean_square,
        noise_sd=_pool(scatter),
        n_pixels=counts,
        coverage=finite_share.min(axis=1) if n_images else np.zeros(len(masks)),
        clipped=is_clipped,
        valid=valid,
    )


def background_mean_square(
    images: NDArray[np.floating], outside: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Measure the noise floor in air, as the mean square over pixels outside the phantom.

    Parameters
    ----------
    images : ndarray, shape (n_images, ...)
        Magnitude images.
    outside : ndarray of bool, shape ``images.shape[1:]``
        Pixels surely outside the phantom.

    Returns
    -------
    ndarray, shape (n_images,), or None
        ``None`` where the background was masked to zero by the scanner or holds too few
        pixels: then it says nothing about noise.
    """
    if np.count_nonzero(outside) < _MINIMUM_BACKGROUND:
        return None
    values = np.asarray(images[:, outside], dtype=float)
    values = np.where(np.isfinite(values), values, np.nan)
    if np.mean(values == 0) > 0.5 or not np.isfinite(values).any(axis=1).all():
        return None
    # Ghosts and ringing lift single pixels far above the noise.  Four times the median cuts
    # them off and costs a Rayleigh background 0.02 % of its mean square, one of many coils less;
    # a conversion of the median itself would be wrong for every number of coils but one.
    limit = 4.0 * np.nanmedian(values, axis=1, keepdims=True)
    return np.asarray(np.nanmean(np.where(values <= limit, values, np.nan) ** 2, axis=1))


def _detrended_sd(
    values: NDArray[np.inexact], finite: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Scatter in one region after a plane is removed, so that shading is not called noise."""
    places = np.argwhere(mask).astype(float)
    design = np.column_stack([np.ones(len(places)), places - places.mean(axis=0)])
    n = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    mean = np.where(finite, values, 0.0).sum(axis=1, keepdims=True) / n
    filled = np.where(finite, values, mean)
    coefficients, *_ = np.linalg.lstsq(design, filled.T, rcond=None)
    residuals = filled.T - design @ coefficients
    freedom = np.maximum(len(places) - np.linalg.matrix_rank(design), 1)
    channels = 2 if np.iscomplexobj(values) else 1
    return np.asarray(np.sqrt((np.abs(residuals) ** 2).sum(axis=0) / freedom / channels))


def _pool(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over the regions: an edge or a bubble in one sphere does not count as noise."""
    out = np.full(scatter.shape[1], np.nan)
    for j in range(scatter.shape[1]):
        column = scatter[:, j][np.isfinite(scatter[:, j])]
        if column.size:
            out[j] = np.median(column)
    return out
