"""Signals of the vials of a diffusion phantom in every image, with noise and floor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.noise import correct_noise_floor
from cordqa.phantom.diffusion_plan import ImagePlan
from cordqa.phantom.masks import air_mask, sphere_masks
from cordqa.phantom.plate import PlatePose
from cordqa.phantom.roi import MINIMUM_PIXELS, RegionSignals, background_mean_square, measure_regions
from cordqa.phantom.series import Series
from cordqa.phantom.vials import FoundVials

__all__ = ["REGION_SHARE", "VialSignals", "measure_vials", "vial_masks"]

Array = NDArray[np.float64]

#: Diameter of the measured region over the inner diameter of the vial.
REGION_SHARE = 0.6
#: Slices beside the middle one that are measured too, where they show the vials; a tilt of 5 degrees
#: moves the vials by less than 1 mm over 10 mm.
_BESIDE = 2
_BESIDE_MM = 10.0
#: Passes in which the noise of the images weights their common pattern.
_PASSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VialSignals:
    """Signals of n vials in m images.

    Attributes
    ----------
    regions : RegionSignals
        Its ``noise_sd`` is free of the pattern that all images share.
    floor : ndarray, shape (m,)
        Mean square of a magnitude without signal.
    """

    regions: RegionSignals
    floor: Array

    @property
    def noise(self) -> Array:
        """Noise of one pixel in every image; the median where it cannot be measured."""
        own = self.regions.noise_sd
        known = own[np.isfinite(own)]
        return np.where(np.isfinite(own), own, np.median(known) if known.size else np.nan)

    @property
    def corrected(self) -> Array:
        """Mean signal of every vial with the floor taken out."""
        if np.iscomplexobj(self.regions.mean):
            return np.abs(self.regions.mean)
        return correct_noise_floor(self.regions.mean_square, self.floor)


def measure_vials(
    series: Series, plan: ImagePlan, pose: PlatePose, found: FoundVials, *, shell_diameter_mm: float | None
) -> VialSignals:
    """Measure every vial in every image, over the slices that show it."""
    images = series.images
    at = _slices(found, pose.slice_index, images.spacing_mm[0])
    flat = replace(pose, voxels=pose.voxels * np.array([0.0, 1.0, 1.0]), slice_index=0)
    shape = (1, *images.data.shape[2:])
    discs = vial_masks(shape, flat, images.spacing_mm, found.radius_mm)
    masks = [np.repeat(disc, len(at), axis=0) for disc in discs]
    clipped = None if images.clipped is None else images.clipped[:, at]
    data = series.data[:, at]
    regions = measure_regions(data, masks, clipped=clipped)
    noise = regions.noise_sd.copy()
    # Averages hold the noise of the single directions, so each kind is looked at by itself.
    for chosen in (plan.averaged, plan.main):
        if chosen.any():
            noise[chosen] = _scatter(data[chosen], masks, _of_images(regions, chosen))
    signals = VialSignals(regions=replace(regions, noise_sd=noise), floor=np.zeros(len(data)))
    if series.signed:
        return signals
    outside = air_mask(shape, flat, images.spacing_mm, shell_diameter_mm=shell_diameter_mm)
    outside = outside.repeat(len(at), axis=0)
    floor = background_mean_square(images.data[:, at], outside)
    if floor is None:
        # The scanner zeroed the background: the scatter inside the vials tells the noise.
        return replace(signals, floor=2 * signals.noise**2)
    return replace(signals, floor=floor)


def vial_masks(
    shape: tuple[int, ...], pose: PlatePose, spacing_mm: tuple[float, float, float], radius_mm: float
) -> list[NDArray[np.bool_]]:
    """Mark the region of every vial in the slice that ``pose`` names."""
    return sphere_masks(
        shape, pose, spacing_mm, radius_mm=REGION_SHARE * radius_mm, inner_radius_mm=radius_mm
    )


def _slices(found: FoundVials, middle: int, distance_mm: float) -> list[int]:
    """Return the middle slice and those beside it that lie between slices that show the vials."""
    first, last = min(found.slices), max(found.slices)
    reach = min(_BESIDE, int(_BESIDE_MM / distance_mm))
    return [k for k in range(middle - reach, middle + reach + 1) if first <= k <= last or k == middle]


def _of_images(regions: RegionSignals, chosen: NDArray[np.bool_]) -> RegionSignals:
    """Return the signals of some of the images."""
    names = ("mean", "mean_square", "clipped", "valid")
    return replace(
        regions,
        noise_sd=regions.noise_sd[chosen],
        **{name: getattr(regions, name)[:, chosen] for name in names},
    )


def _scatter(images: NDArray[np.inexact], masks: list[NDArray[np.bool_]], regions: RegionSignals) -> Array:
    """Noise of one pixel in every image, from what is left after the pattern that all images share.

    Ringing and shading scale with the signal and are the same in every image of a vial, where the mean
    of a region is not touched by them; as noise they would count several times over.  With relative
    images y_i of signal S_i and noise s_i, and their mean m weighted by W_i = (S_i / s_i)^2, the
    variance of y_i - m is (s_i / S_i)^2 - 1 / sum W.
    """
    noise = regions.noise_sd.copy()
    start = np.ones(len(images))
    for number in range(_PASSES):
        found = np.full((len(masks), len(images)), np.nan)
        for row, mask in enumerate(masks):
            found[row] = _scatter_of(
                np.abs(images[:, mask]),
                np.abs(regions.mean[row]),
                regions.valid[row],
                start,
                first=number == 0,
            )
        known = np.isfinite(found).any(axis=0)
        noise[known] = np.nanmedian(found[:, known], axis=0)
        if not (np.isfinite(noise).all() and bool((noise > 0).all())):
            break
        start = noise
    return noise


def _scatter_of(
    values: NDArray[np.floating], mean: Array, valid: NDArray[np.bool_], noise: Array, *, first: bool
) -> Array:
    """Noise of the images by one vial; in the first pass all are taken as equally noisy."""
    found = np.full(len(values), np.nan)
    usable = np.isfinite(mean) & (mean > 0) & valid & np.isfinite(values).all(axis=1)
    if usable.sum() < 2 or values.shape[1] < MINIMUM_PIXELS:
        return found
    signal = mean[usable]
    weight = (signal / noise[usable]) ** 2
    relative = values[usable] / signal[:, None]
    variance = (relative - weight @ relative / weight.sum()).var(axis=1, ddof=1)
    if first:
        square = variance / (1 / weight - 1 / weight.sum())
    else:
        square = signal**2 * (variance + 1 / weight.sum())
    found[usable] = np.sqrt(square)
    return found
