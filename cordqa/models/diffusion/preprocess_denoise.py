"""Denoising and removal of Gibbs ringing: dipy's methods, called with care.

Both must come before anything that interpolates.  What dipy cannot know (missing values, patches larger
than the stack, images interpolated by the scanner) is looked after here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["Cleaned", "denoise_mppca", "denoise_patch2self", "outer_noise_share", "remove_gibbs"]

Array = NDArray[np.float64]
Series = NDArray[np.float32]

#: Local PCA needs at least so many volumes to tell signal from noise.
LEAST_VOLUMES = 10
#: Voxels of a patch per volume.
VOXELS_PER_VOLUME = 1.2
#: Noise at the edge of k-space below this share of that in its middle: interpolated or filtered there.
LEAST_OUTER_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A series after one step.

    Attributes
    ----------
    data : ndarray, shape (n_first, n_second, n_slices, n_volumes), float32
        NaN where the input was not finite.
    sigma : ndarray, shape (n_first, n_second, n_slices), or None
        Noise level, where the method gives one.
    sentence : str
        What was done, for the methods text.
    notices : tuple of str
    """

    data: Series
    sentence: str
    sigma: Array | None = None
    notices: tuple[str, ...] = ()


def denoise_mppca(data: NDArray[Any], *, patch_radius: tuple[int, int, int] | None = None) -> Cleaned:
    """Denoise by principal components of local patches (Veraart et al. 2016, in dipy).

    Parameters
    ----------
    data : ndarray, shape (n_first, n_second, n_slices, n_volumes)
        Thick slices along the third axis.
    patch_radius : tuple of int, optional
        By default one slice to either side, where there are three, and as wide in the plane as the number
        of volumes needs.

    Raises
    ------
    InputError
        With fewer than 10 volumes, or a stack smaller than a patch.

    References
    ----------
    doi:10.1016/j.neuroimage.2016.08.016
    """
    from dipy.denoise.localpca import mppca

    values, missing = _filled(data)
    volumes = values.shape[3]
    if volumes < LEAST_VOLUMES:
        raise InputError(
            "too few volumes to tell signal from noise by local PCA",
            found=f"{volumes}",
            expected=f"at least {LEAST_VOLUMES}",
            todo="do not denoise, or use another method",
        )
    radius = patch_radius or _radius(values.shape[:3], volumes)
    if any(2 * r + 1 > n for r, n in zip(radius, values.shape[:3], strict=True)):
        raise InputError("the image is smaller than a patch of the denoising", found=f"{values.shape[:3]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean, sigma = mppca(
            values,
            patch_radius=np.array(radius),
            return_sigma=True,
            out_dtype=np.float32,
            suppress_warning=True,
        )
    # dipy leaves the rim of the image, which no patch fits around, at zero.
    bare = ~(np.abs(clean).sum(axis=3) > 0)
    clean[bare] = values[bare]
    sigma = np.where(bare | (sigma <= 0), np.nan, sigma)
    clean[missing] = np.nan
    return Cleaned(
        data=np.asarray(clean, dtype=np.float32),
        sigma=np.asarray(sigma, dtype=float),
        sentence=(
            "Noise was reduced by principal components of local patches with the Marchenko-Pastur threshold "
            f"(MP-PCA, dipy; patch {'x'.join(str(2 * r + 1) for r in radius)})."
        ),
        notices=_missing_notice(missing),
    )


def denoise_patch2self(data: NDArray[Any], gradients: GradientTable, region: NDArray[np.bool_]) -> Cleaned:
    """Denoise each volume by regression on all others (Fadnavis et al. 2020, arXiv:2011.01355, in dipy).

    One regression serves all voxels that enter it.  The cord is a small part of its images: with all of the
    image, what is special about the cord would be taken for noise, so only a region around it enters.

    Parameters
    ----------
    data : ndarray, shape (n_first, n_second, n_slices, n_volumes)
    gradients : GradientTable
    region : ndarray of bool, shape (n_first, n_second, n_slices)
        Voxels that enter and are denoised; the others stay as they are.

    Raises
    ------
    InputError
        With fewer than 10 weighted volumes, or fewer voxels than would determine the regression.
    ConfigError
        Without scikit-learn, which dipy needs for it.
    """
    from importlib.util import find_spec

    from dipy.denoise.patch2self import patch2self

    if find_spec("sklearn") is None:
        raise ConfigError(
            "Patch2Self needs scikit-learn",
            todo="in your clone of cordqa: pip install '.[denoise]'; or use MP-PCA",
        )
    values, missing = _filled(data)
    weighted = int((~gradients.is_b0).sum())
    voxels = values[region]
    if weighted < LEAST_VOLUMES or len(voxels) < 10 * values.shape[3]:
        raise InputError(
            "too little to predict one volume from the others",
            found=f"{weighted} weighted volumes, {len(voxels)} voxels",
            expected=f"at least {LEAST_VOLUMES} volumes and {10 * values.shape[3]} voxels",
            todo="do not denoise, or use another method",
        )
    # dipy wants three spatial axes longer than one; some voxels enter twice to fill them up.
    block = np.resize(voxels, (-(-len(voxels) // 4) * 4, values.shape[3])).reshape(-1, 2, 2, values.shape[3])
    # In dipy 1.12 the regression centres its input in place and then predicts from what is left: the mean of
    # every volume is lost, so it is taken out before and put back.  (Version 3 fits a random sketch of the
    # voxels, which for images as small as these adds more noise than it takes away.)
    mean = block.mean(axis=(0, 1, 2), dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = patch2self(
            block - mean,
            gradients.b_values_s_mm2,
            b0_threshold=gradients.b0_limit_s_mm2,
            # Few volumes without weighting cannot predict each other.
            b0_denoising=int(gradients.is_b0.sum()) > 2,
            shift_intensity=False,
            clip_negative_vals=False,
            version=1,
        )
    values[region] = np.asarray(clean + mean).reshape(-1, values.shape[3])[: len(voxels)]
    values[missing] = np.nan
    return Cleaned(
        data=values,
        sentence=(
            "Noise around the cord was reduced by predicting each volume from all others (Patch2Self, dipy)."
        ),
        notices=_missing_notice(missing),
    )


def remove_gibbs(data: NDArray[Any]) -> Cleaned:
    """Remove Gibbs ringing in the plane by local sub-voxel shifts (Kellner et al. 2016, in dipy).

    Slices lie along the third axis.  The method assumes full sampling of k-space without filter; images
    that were interpolated by the scanner are told by the missing noise at the edge of k-space.

    References
    ----------
    doi:10.1002/mrm.26054
    """
    from dipy.denoise.gibbs import gibbs_removal

    values, missing = _filled(data)
    if min(values.shape[:2]) < 8:
        raise InputError("the slices are too small for removal of ringing", found=f"{values.shape[:2]}")
    share = outer_noise_share(values)
    clean = gibbs_removal(values.astype(np.float64), slice_axis=2, inplace=False, num_processes=1)
    clean = np.array(clean, dtype=np.float32)
    clean[missing] = np.nan
    notices = _missing_notice(missing)
    if share < LEAST_OUTER_SHARE:
        notices += (
            "the edge of k-space holds hardly any noise: the images were interpolated or filtered, for which "
            "the removal of Gibbs ringing is not made",
        )
    return Cleaned(
        data=clean,
        sentence="Gibbs ringing was removed in the plane by local sub-voxel shifts (dipy).",
        notices=notices,
    )


def outer_noise_share(data: NDArray[Any]) -> float:
    """Noise power at the edge of k-space over that half-way out, along the worse axis; 1 for full sampling.

    Taken from differences of successive volumes (of columns of one volume, where there is one), so that the
    object hardly counts.
    """
    values = np.nan_to_num(np.asarray(data, dtype=float))
    values = values[..., None] if values.ndim == 3 else values
    change = np.diff(values, axis=3) if values.shape[3] > 1 else values
    shares = []
    for axis in (0, 1):
        count = change.shape[axis]
        window = np.hanning(count).reshape([-1 if n == axis else 1 for n in range(4)])
        power = np.abs(np.fft.fft((change - change.mean(axis=axis, keepdims=True)) * window, axis=axis)) ** 2
        profile = power.mean(axis=tuple(n for n in range(4) if n != axis))
        place = np.abs(np.fft.fftfreq(count))
        middle, outer = profile[(place > 0.2) & (place < 0.3)], profile[place > 0.44]
        shares.append(float(outer.mean() / middle.mean()) if middle.size and middle.mean() > 0 else 1.0)
    return min(shares)


def _radius(shape: tuple[int, ...], volumes: int) -> tuple[int, int, int]:
    """Smallest patch that holds enough voxels."""
    deep = 1 if shape[2] >= 3 else 0
    wide = 1
    while (2 * wide + 1) ** 2 * (2 * deep + 1) < VOXELS_PER_VOLUME * volumes:
        wide += 1
    return wide, wide, deep


def _filled(data: NDArray[Any]) -> tuple[Series, NDArray[np.bool_]]:
    values = np.array(data, dtype=np.float32)
    if values.ndim != 4 or values.size == 0:
        raise InputError("a series of volumes is needed", found=f"shape {values.shape}", expected="four axes")
    missing = ~np.isfinite(values)
    values[missing] = 0.0
    return values, missing


def _missing_notice(missing: NDArray[np.bool_]) -> tuple[str, ...]:
    count = int(missing.any(axis=3).sum())
    return (
        (f"{count} voxels lack a value in some volume; they were taken as zero and put back",)
        if count
        else ()
    )
