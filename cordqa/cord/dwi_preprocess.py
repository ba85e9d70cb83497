"""Preprocessing of a diffusion series of the cord, in one fixed order.

1. denoising, and 2. removal of Gibbs ringing: before anything that interpolates; 3. slices that lost signal,
so that they do not lead the motion correction astray; 4. motion, slice by slice, and with rotations the
gradient directions; 5. noise level (what interpolation took from it is given back), unless denoising gave it;
6. distortion from a reversed pair; 7. outlier slices of the corrected series; 8. signal-to-noise ratio.

Each step says in a sentence what it did; a step that was not asked for, or could not be taken, does too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.cord.dwi_layout import (
    directions_to_layout,
    lay_out_series,
    rotate_gradients,
    turn_gradients,
)
from cordqa.cord.motion import Motion, MotionSettings, correct_motion, noise_variance_left
from cordqa.errors import ConfigError, EmptyInputError, InputError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.preprocess_denoise import (
    Cleaned,
    denoise_mppca,
    denoise_patch2self,
    remove_gibbs,
)
from cordqa.models.diffusion.preprocess_distortion import (
    DistortionField,
    estimate_distortion,
    undo_distortion,
)
from cordqa.models.diffusion.preprocess_noise import NoiseMaps, map_noise
from cordqa.models.diffusion.preprocess_outliers import SliceOutliers, drop_outliers, find_outlier_slices
from cordqa.records import Volume

__all__ = ["DwiSettings", "PreprocessedDwi", "preprocess_dwi"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Series = NDArray[np.float32]

#: Around the mask, in the plane, this much is denoised (mm).
DENOISED_MARGIN_MM = 15.0
#: Around the mask, the pair of opposite polarity is compared within this (mm).
DISTORTION_MARGIN_MM = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DwiSettings:
    """Which steps are taken.

    Attributes
    ----------
    denoise : {'none', 'mppca', 'patch2self'}
        None by default: denoising makes the errors of neighbouring voxels depend on each other, and standard
        errors of fits too small.
    gibbs : bool
        Off by default: it holds only for images that the scanner neither filtered nor interpolated, nor
        acquired with partial Fourier.
    motion : MotionSettings or None
        None leaves motion as it is.
    outliers : bool
        Whether outlier slices are looked for.
    """

    denoise: Literal["none", "mppca", "patch2self"] = "none"
    gibbs: bool = False
    motion: MotionSettings | None = field(default_factory=MotionSettings)
    outliers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedDwi:
    """A preprocessed series and the account of what was done.

    Attributes
    ----------
    data : ndarray, float32
        Shape and axes of the input; outlier slices keep their values.
    gradients : GradientTable
        Directions follow the rotations that were undone.
    outlier : ndarray of bool, shape (n_slices, n_volumes)
        Slices counted along ``slice_axis`` of the array.
    slice_axis : int
        Array axis that runs along the cord.
    motion : Motion or None
        Slices from inferior to superior, shifts towards right and anterior.
    motion_table : tuple of dict
        One row per volume (see :meth:`cordqa.cord.motion.Motion.table`); empty without motion correction.
    sigma : ndarray
        Noise level in the mask, on the grid of the input.
    noise : NoiseMaps
        With maps on the grid of the input.
    distortion : DistortionField or None
        In the layout (right, anterior, superior).
    sentences : tuple of str
        The methods text, in the order of the steps.
    notices : tuple of str
        What the reader must know.
    """

    data: Series
    gradients: GradientTable
    outlier: Mask
    slice_axis: int
    motion: Motion | None
    motion_table: tuple[dict[str, float], ...]
    sigma: Array
    noise: NoiseMaps
    distortion: DistortionField | None
    sentences: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def usable_data(self) -> Series:
        """The series with outlier slices set to NaN, which the fits leave out."""
        moved = np.moveaxis(self.data, self.slice_axis, 2)
        return np.moveaxis(drop_outliers(moved, self.outlier), 2, self.slice_axis)


def preprocess_dwi(
    data: NDArray[Any],
    affine: NDArray[Any],
    gradients: GradientTable,
    mask: NDArray[Any],
    settings: DwiSettings | None = None,
    *,
    reversed_b0: NDArray[Any] | None = None,
    phase_axis: int | None = None,
) -> PreprocessedDwi:
    """Preprocess a diffusion series of the cord.

    Parameters
    ----------
    data : ndarray, shape (n_i, n_j, n_k, n_volumes)
        Magnitudes in any orientation.
    affine : ndarray, shape (4, 4)
        From array indices to RAS+ millimetres.
    gradients : GradientTable
        Directions in the axes of the array.
    mask : ndarray, shape (n_i, n_j, n_k)
        Cord (above 0.5) on the mean of the series.
    settings : DwiSettings
    reversed_b0 : ndarray, shape (n_i, n_j, n_k) or with volumes last, optional
        Images without diffusion weighting of opposite phase-encode polarity, on the same grid.
    phase_axis : int, optional
        Phase-encode axis of the array; needed with ``reversed_b0``.

    Raises
    ------
    InputError
        If the input is no series, or its parts do not belong together.
    EmptyInputError
        If the mask is empty, or the series holds nothing in it.
    ConfigError
        If an option is unknown or incomplete.
    """
    settings = settings or DwiSettings()
    _check(data, gradients, mask, settings, reversed_b0, phase_axis)
    laid = orient(Volume(data=np.asarray(mask, dtype=np.float32), affine=np.asarray(affine, dtype=float)))
    work = _Work(
        laid, lay_out_series(data, laid), rotate_gradients(gradients, directions_to_layout(laid)), settings
    )
    work.denoise()
    work.remove_ringing()
    work.correct_motion()
    if reversed_b0 is not None and phase_axis is not None:
        work.correct_distortion(lay_out_series(reversed_b0, laid), laid.order.index(phase_axis), phase_axis)
    work.find_outliers()
    noise = work.map_noise()
    return PreprocessedDwi(
        data=laid.restore(work.series),
        gradients=rotate_gradients(work.gradients, directions_to_layout(laid).T),
        outlier=work.outlier[::-1] if laid.flipped[2] else work.outlier,
        slice_axis=laid.order[2],
        motion=work.motion,
        motion_table=tuple(work.motion.table()) if work.motion else (),
        sigma=laid.restore(noise.sigma),
        noise=_restored(noise, laid),
        distortion=work.field,
        sentences=tuple(work.sentences),
        notices=tuple(work.notices),
    )


class _Work:
    """The series on its way through the steps, laid out as (right, anterior, superior, volume)."""

    def __init__(
        self, laid: Oriented, series: Series, gradients: GradientTable, settings: DwiSettings
    ) -> None:
        self.series, self.gradients, self.settings = series, gradients, settings
        self.mask = np.asarray(laid.data > 0.5, dtype=bool)
        self.spacing = laid.spacing_mm
        self.outlier = np.zeros(series.shape[2:], dtype=bool)
        self.sigma, self.sigma_source = np.full(self.mask.shape, np.nan), "none"
        self.motion: Motion | None = None
        self.field: DistortionField | None = None
        self.sentences: list[str] = []
        self.notices: list[str] = []
        missing = int((~np.isfinite(series[self.mask])).any(axis=1).sum())
        if missing:
            self.notices.append(f"{missing} voxels of the mask lack a value in some volume")
        if self.spacing[2] < max(self.spacing[:2]) * 0.99:
            self.notices.append("slices do not run across the cord; slice-wise steps assume that they do")

    def denoise(self) -> None:
        """Denoise the surroundings of the cord."""
        if self.settings.denoise == "none":
            self.sentences.append("The series was not denoised.")
            return
        if self.settings.denoise == "patch2self":
            # Afterwards there is hardly any noise left to measure; before, motion counts as noise.
            self._take_noise(None)
        box = _box(self.mask, self.spacing, DENOISED_MARGIN_MM)
        if self.settings.denoise == "mppca":
            done = denoise_mppca(self.series[box])
        else:
            done = denoise_patch2self(self.series[box], self.gradients, np.ones_like(self.mask[box]))
        self.series[box] = done.data
        if done.sigma is not None:
            self.sigma, self.sigma_source = np.full(self.mask.shape, np.nan), "MP-PCA"
            self.sigma[box] = done.sigma
        self._say(done)

    def _take_noise(self, variance_left: Array | None) -> None:
        """Noise level of the series as it is now."""
        clean = drop_outliers(self.series, self._outliers())
        noise = map_noise(clean, self.gradients, self.mask, variance_left=variance_left)
        self.sigma, self.sigma_source = noise.sigma, noise.source

    def _outliers(self) -> Mask:
        if not self.settings.outliers:
            return self.outlier
        return find_outlier_slices(self.series, self.gradients, self.mask).outlier

    def remove_ringing(self) -> None:
        """Remove Gibbs ringing, on whole slices."""
        if not self.settings.gibbs:
            return
        done = remove_gibbs(self.series)
        self.series = done.data
        self._say(done)

    def correct_motion(self) -> None:
        """Find slices that would lead astray, undo motion, and turn the gradients."""
        self.outlier = self._outliers()
        if self.settings.motion is None:
            if self.sigma_source == "none":
                self._take_noise(None)
            self.sentences.append("Motion was not corrected.")
            return
        self.series, self.motion = correct_motion(
            self.series,
            self.mask,
            self.gradients,
            spacing_mm=self.spacing,
            exclude=self.outlier,
            settings=self.settings.motion,
        )
        if self.sigma_source == "none":
            least = self.settings.motion.least_voxels
            self._take_noise(noise_variance_left(self.motion, self.series.shape, least_voxels=least))
        sentence = self.motion.sentence
        if self.settings.motion.rotation:
            self.gradients = turn_gradients(self.gradients, self.motion.turn_deg)
            sentence += " Gradient directions were turned with the volumes."
        self.sentences.append(sentence)
        self.notices.extend(self.motion.notices)

    def correct_distortion(self, reversed_b0: Series, axis: int, stored_axis: int) -> None:
        """Estimate and undo distortion from the means of both polarities."""
        if not self.gradients.is_b0.any():
            raise InputError("a reversed pair needs volumes without diffusion weighting in the series")
        own = self.series[..., self.gradients.is_b0].mean(axis=3)
        other = reversed_b0.mean(axis=3) if reversed_b0.ndim == 4 else reversed_b0
        region = np.zeros_like(self.mask)
        region[_box(self.mask, self.spacing, DISTORTION_MARGIN_MM)] = True
        region &= self.mask.any(axis=(0, 1))
        self.field = estimate_distortion(own, other, axis=axis, spacing_mm=self.spacing, region=region)
        self.notices.extend(self.field.notices)
        if not self.field.usable:
            return
        self.series = undo_distortion(self.series, self.field)
        self.sentences.append(f"{self.field.sentence[:-1]} (array axis {stored_axis}).")

    def find_outliers(self) -> None:
        """Judge the slices of the corrected series."""
        if not self.settings.outliers:
            self.sentences.append("Outlier slices were not looked for.")
            return
        found: SliceOutliers = find_outlier_slices(self.series, self.gradients, self.mask)
        self.outlier = found.outlier
        self.sentences.append(found.sentence)
        self.notices.extend(found.notices)

    def map_noise(self) -> NoiseMaps:
        """Map the signal-to-noise ratio of the corrected series with the noise of the raw one."""
        known = bool(np.isfinite(self.sigma[self.mask]).any())
        clean = drop_outliers(self.series, self.outlier)
        noise = map_noise(
            clean,
            self.gradients,
            self.mask,
            sigma=self.sigma if known else None,
            source=self.sigma_source,
        )
        self.sentences.append(noise.sentence)
        self.notices.extend(noise.notices)
        return noise

    def _say(self, done: Cleaned) -> None:
        self.sentences.append(done.sentence)
        self.notices.extend(done.notices)


def _check(
    data: NDArray[Any],
    gradients: GradientTable,
    mask: NDArray[Any],
    settings: DwiSettings,
    reversed_b0: NDArray[Any] | None,
    phase_axis: int | None,
) -> None:
    if np.ndim(data) != 4 or data.shape[3] < 2:
        raise InputError(
            "a diffusion series has several volumes", found=f"shape {np.shape(data)}", expected="four axes"
        )
    if len(gradients) != data.shape[3]:
        raise InputError(
            "the gradient table does not belong to the series",
            found=f"{len(gradients)} rows",
            expected=f"{data.shape[3]} volumes",
        )
    if np.shape(mask) != data.shape[:3]:
        raise InputError(
            "the mask lies on another grid", found=f"{np.shape(mask)}", expected=f"{data.shape[:3]}"
        )
    if not (np.asarray(mask) > 0.5).any():
        raise EmptyInputError("the mask of the cord is empty", todo="segment the mean of the series first")
    if settings.denoise not in {"none", "mppca", "patch2self"}:
        raise ConfigError(
            "no such denoising", found=f"{settings.denoise}", expected="none, mppca or patch2self"
        )
    if reversed_b0 is None:
        return
    if phase_axis not in {0, 1, 2}:
        raise ConfigError(
            "a reversed pair needs the phase-encode axis", found=f"{phase_axis}", expected="0 to 2"
        )
    if np.shape(reversed_b0)[:3] != data.shape[:3]:
        raise InputError(
            "the reversed images lie on another grid",
            found=f"{np.shape(reversed_b0)}",
            expected=f"{data.shape[:3]}",
        )


def _box(mask: Mask, spacing: tuple[float, float, float], margin_mm: float) -> tuple[slice, slice, slice]:
    """All slices, and in the plane the mask with a margin."""
    where = np.argwhere(mask)
    out = []
    for axis in range(2):
        margin = math.ceil(margin_mm / spacing[axis])
        low, high = int(where[:, axis].min()) - margin, int(where[:, axis].max()) + margin + 1
        out.append(slice(max(low, 0), min(high, mask.shape[axis])))
    return out[0], out[1], slice(None)


def _restored(noise: NoiseMaps, laid: Oriented) -> NoiseMaps:
    return replace(
        noise,
        sigma=laid.restore(noise.sigma),
        snr={name: laid.restore(value) for name, value in noise.snr.items()},
        temporal_snr={name: laid.restore(value) for name, value in noise.temporal_snr.items()},
    )
