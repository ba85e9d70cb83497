"""Realisations of the noise of the fitted field, with what neighbours share.

The noise of the echoes is independent from voxel to voxel; that of the field is not.  Where the phase
offset was taken as smooth, one offset serves many voxels, and its error shifts the field of all of them:
over regions larger than the smoothing, the field is no better known than with free offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.field import LEAST_SPREAD, FieldFit, line_fit
from cordqa.models.susceptibility.physics import radians_per_ppm_second

__all__ = ["FieldNoise", "field_noise"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

_TINY = float(np.finfo(np.float32).tiny)
_LARGEST_VARIANCE = 1e3
#: Errors beyond this many times the median count as that: such voxels have no weight to speak of.
_WORST = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNoise:
    """Noise of the field, ready to be drawn; arrays hold the voxels of ``mask`` unless said otherwise.

    A free line has an offset and, independent of it, a slope about that offset.  The fit then pulls
    the offset towards the average of its neighbours, and the slope follows.

    Attributes
    ----------
    mask : ndarray of bool, shape (x, y, z)
    slope_sd : ndarray
        Of the slope if the offset were known, ppm.
    offset_sd : ndarray
        Of a free offset, rad.
    lever : ndarray
        Change of the slope with the offset, ppm per rad.
    pull : ndarray
        How far the offset goes towards the average of its neighbours, 0 to 1.
    smooth_voxels : ndarray, shape (3,)
        Standard deviation of that average, voxels; zeros for none.
    """

    mask: Mask
    slope_sd: Array
    offset_sd: Array
    lever: Array
    pull: Array
    smooth_voxels: Array

    def draw(self, rng: np.random.Generator) -> Single:
        """Draw one realisation, ppm; 0 outside the mask."""
        offset = self.offset_sd * rng.standard_normal(self.offset_sd.size)
        slope = self.slope_sd * rng.standard_normal(self.slope_sd.size)
        if self.smooth_voxels.any():
            offset += self.pull * (self._average(offset) - offset)
        field = np.zeros(self.mask.shape, dtype=np.float32)
        field[self.mask] = slope + self.lever * offset
        return field

    def _average(self, offset: Array) -> Array:
        """Average as the fit does: near the mask only, by the inverse variance of each offset."""
        from scipy.ndimage import gaussian_filter

        box = _box(self.mask)
        inside = self.mask[box]
        weight = 1 / np.maximum(self.offset_sd**2, _TINY)
        weight /= weight.max()
        parts = []
        for values in (weight * offset, weight):
            volume = np.zeros(inside.shape, dtype=np.float32)
            volume[inside] = values
            parts.append(gaussian_filter(volume, self.smooth_voxels, mode="constant")[inside].astype(float))
        average: Array = parts[0] / np.maximum(parts[1], _TINY)
        return average


def _box(mask: Mask) -> tuple[slice, ...]:
    found = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        found.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(found)


def field_noise(
    fit: FieldFit,
    magnitude: Array,
    echo_times_s: Array,
    mask: Mask,
    *,
    field_strength_t: float,
    voxel_size_mm: Array,
) -> FieldNoise | None:
    """Describe the noise of a fitted field.

    Misfits that widened the standard error widen the noise of the voxel alike.

    Parameters
    ----------
    fit : FieldFit
        Of :func:`~cordqa.models.susceptibility.field.fit_field`.
    magnitude : ndarray, shape (n_voxels, n_echoes)
    echo_times_s : ndarray, shape (n_echoes,)
    mask : ndarray of bool, shape (x, y, z)
    field_strength_t : float
    voxel_size_mm : ndarray, shape (3,)

    Returns
    -------
    FieldNoise or None
        None where the noise is not known.
    """
    if not (np.isfinite(fit.noise_sd) and fit.noise_sd > 0):
        return None
    error = np.nan_to_num(fit.standard_error_ppm, posinf=0.0)
    error = np.minimum(error, _WORST * float(np.median(error)))
    if echo_times_s.size == 1:
        zero = np.zeros_like(error)
        return FieldNoise(
            mask=mask, slope_sd=error, offset_sd=zero, lever=zero, pull=zero, smooth_voxels=np.zeros(3)
        )
    power = np.nan_to_num(magnitude).astype(float) ** 2
    variance = line_fit(np.zeros_like(power), power, echo_times_s).offset_variance * fit.noise_sd**2
    # Phases that nothing is known of are wrong by less than a few turns.
    variance = np.minimum(variance, _LARGEST_VARIANCE)
    second = np.maximum(power @ echo_times_s**2, fit.noise_sd**2 * echo_times_s[-1] ** 2 / _LARGEST_VARIANCE)
    shift = (power @ echo_times_s) / second
    pull, smooth = np.zeros_like(variance), np.zeros(3)
    if fit.offset_scale_voxels > 0:
        spread = max(fit.offset_sd_rad**2, LEAST_SPREAD * float(np.median(variance)))
        pull = variance / (variance + spread)
        smooth = fit.offset_scale_voxels * voxel_size_mm.min() / voxel_size_mm
    # What the fit says of a voxel, without what it added for misfit.
    known = fit.noise_sd**2 / second
    own = np.sqrt(known + shift**2 * variance * (1 - pull)) / radians_per_ppm_second(field_strength_t)
    wider = np.where(error > 0, np.maximum(error / np.maximum(own, _TINY), 1.0), 0.0)
    scale = wider / radians_per_ppm_second(field_strength_t)
    return FieldNoise(
        mask=mask,
        slope_sd=scale * np.sqrt(known),
        offset_sd=np.sqrt(variance),
        lever=-scale * shift,
        pull=pull,
        smooth_voxels=smooth,
    )
