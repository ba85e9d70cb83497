"""The ratio of a T1-weighted to a T2-weighted image, calibrated by landmarks.

The receive field cancels in the ratio.  Gain and offset of each image do not: they are set by two
landmarks, whose intensities are brought to those of reference scans.  What is left of the transmit
field and of the sequences stays, so that a ratio is compared within one protocol only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["IntensityMap", "calibrate_intensity", "compute_weighted_ratio", "estimate_bias_field"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MISSING = "an image is missing"
NOT_POSITIVE = "no signal in one of the images"
TOO_DARK = "the T2-weighted image is too dark for a ratio"
_DARK = 0.05
_FEWEST = 10
_FWHM_PER_SIGMA = 2.3548200450309493


@dataclass(frozen=True, slots=True)
class IntensityMap:
    """``scale x intensity + offset``, and the standard errors of landmarks that went into it."""

    scale: float
    offset: float

    def __call__(self, image: Array) -> Array:
        """Return calibrated intensities."""
        return self.scale * image + self.offset


def calibrate_intensity(
    image: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    references: tuple[float, float],
    *,
    name: str = "image",
) -> IntensityMap:
    """Find the line that brings the medians of two landmarks to reference intensities.

    Parameters
    ----------
    image : array_like
    first, second : array_like of bool
        Voxels of the landmarks, at least 10 each.
    references : (float, float)
        Intensities of the landmarks in the reference scans.
    name : str
        For messages.

    Raises
    ------
    InputError
        If a landmark is too small, or the two do not differ, or are swapped.
    """
    data = np.asarray(image, dtype=float)
    medians = []
    for label, where in (("first", first), ("second", second)):
        values = data[np.asarray(where, dtype=bool)]
        values = values[np.isfinite(values)]
        if values.size < _FEWEST:
            raise InputError(
                f"the {label} landmark is too small",
                where=name,
                found=f"{values.size} voxels",
                expected=f"at least {_FEWEST}",
            )
        medians.append(float(np.median(values)))
    seen, wanted = medians[1] - medians[0], references[1] - references[0]
    if not np.isfinite(wanted) or wanted == 0 or abs(seen) < 1e-6 * max(map(abs, medians)):
        raise InputError(
            "the landmarks do not differ",
            where=name,
            found=f"medians {medians[0]:g} and {medians[1]:g}, references {references}",
        )
    if seen * wanted < 0:
        raise InputError(
            "the landmarks are swapped, or the references belong to another contrast",
            where=name,
            found=f"medians {medians[0]:g} and {medians[1]:g}",
            expected=f"in the order of {references[0]:g} and {references[1]:g}",
        )
    scale = wanted / seen
    return IntensityMap(scale, references[0] - scale * medians[0])


def estimate_bias_field(
    t1w: Array, t2w: Array, mask: Mask, spacing_mm: tuple[float, float, float], *, fwhm_mm: float
) -> Array:
    """Estimate the common receive field from sqrt(T1w x T2w), in which contrasts of tissue nearly cancel.

    Parameters
    ----------
    t1w, t2w : ndarray, shape (i, j, k)
    mask : ndarray of bool
    spacing_mm : tuple of float
    fwhm_mm : float
        Width of the Gaussian; several centimetres.

    Returns
    -------
    ndarray, shape (i, j, k)
        1 on average over the mask; 1 outside the reach of the mask.
    """
    from scipy.ndimage import gaussian_filter

    if not 0 < fwhm_mm < 1000:
        raise InputError("smoothing needs a positive width in millimetres", found=f"{fwhm_mm:g}")
    product = np.nan_to_num(t1w) * np.nan_to_num(t2w)
    inside = mask & (product > 0)
    if not inside.any():
        raise InputError("no voxel of the mask has a signal in both images")
    root = np.where(inside, np.sqrt(np.where(inside, product, 1.0)), 0.0)
    root = np.minimum(root, 3 * float(np.median(root[inside])))
    sigma = fwhm_mm / _FWHM_PER_SIGMA / np.asarray(spacing_mm, dtype=float)
    weight = gaussian_filter(inside.astype(float), sigma, mode="constant")
    smooth = gaussian_filter(root, sigma, mode="constant")
    near = weight > 0.01
    field = np.where(near, smooth / np.where(near, weight, 1.0), np.nan)
    middle = float(np.nanmean(field[inside]))
    return np.where(near & (field > 0.05 * middle), field / middle, 1.0)


def compute_weighted_ratio(
    t1w: ArrayLike, t2w: ArrayLike, *, noise_sd: tuple[ArrayLike, ArrayLike] | None = None, words: str = ""
) -> FittedMaps:
    """Return T1w / T2w of images that were calibrated.

    Parameters
    ----------
    t1w, t2w : array_like
        Of one shape.
    noise_sd : tuple of array_like, optional
        Standard deviations of the noise of both, after calibration.
    words : str
        How the images were calibrated, for the methods text.

    Returns
    -------
    FittedMaps
        ``T1wT2w``; NaN where an image has no signal or T2w is below 5 % of its median.
    """
    first, second = np.asarray(t1w, dtype=float), np.asarray(t2w, dtype=float)
    if first.shape != second.shape:
        raise InputError("the images are not on one grid", found=f"{first.shape} and {second.shape}")
    finite = np.isfinite(first) & np.isfinite(second)
    positive = second[finite & (second > 0)]
    dark = _DARK * float(np.median(positive)) if positive.size else 0.0
    reasons = Reasons.collect(
        first.shape,
        [
            (~finite, MISSING),
            (np.asarray(~((first > 0) & (second > 0))), NOT_POSITIVE),
            (np.asarray(second < dark), TOO_DARK),
        ],
    )
    ok = reasons.ok
    ratio = np.where(ok, first / np.where(ok, second, 1.0), np.nan)
    errors: dict[str, Array] = {}
    if noise_sd is not None:
        noise = [np.broadcast_to(np.asarray(one, dtype=float), first.shape) for one in noise_sd]
        safe = [np.where(ok, one, 1.0) for one in (first, second)]
        errors["T1wT2w"] = ratio * np.hypot(noise[0] / safe[0], noise[1] / safe[1])
    return FittedMaps(
        model=f"T1w/T2w ratio, {words or 'not calibrated'}",
        values={"T1wT2w": ratio},
        units={"T1wT2w": "1"},
        standard_errors=errors,
        reasons=reasons,
    )
