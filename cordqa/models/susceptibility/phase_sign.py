"""Does phase grow where the field is stronger?  Air beside tissue can tell.

Vendors differ in the sign of the phase, and with the wrong sign every susceptibility changes sign
while the map looks right.  Air is more paramagnetic than tissue by about 9.4 ppm; bone and fat are
less than 3 ppm away.  Sources outside the mask that explain the field and are stronger than bone can
be are therefore air, and their sign is that of the phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.dipole import Dipole, pad_for

__all__ = ["PhaseSign", "judge_phase_sign"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The field is averaged to voxels of about this edge: the sources are not small.
_COARSE_MM = 3.0
_ITERATIONS = 8
#: What is left of the power when a field is explained as far as single precision goes.
_NOTHING = 1e-12
#: Sources are averaged over this distance (standard deviation) before they are judged.
_SMOOTH_MM = 3.0
#: Sources further from the mask than this are poorly known, mm.
_NEAR_MM = 10.0
#: Only air is stronger than this, ppm, and it must stand out against sources of the other sign.
_ONLY_AIR_PPM, _STANDS_OUT = 3.5, 1.8


@dataclass(frozen=True, slots=True)
class PhaseSign:
    """Sign of the phase and what it rests on.

    Attributes
    ----------
    sign : {1, -1, 0}
        1: phase grows with the field; -1: it falls; 0: the image cannot tell.
    strongest_ppm, weakest_ppm : float
        Extremes of the smoothed sources outside the mask.
    """

    sign: Literal[1, -1, 0]
    strongest_ppm: float
    weakest_ppm: float


def judge_phase_sign(
    field_ppm: Array,
    standard_error_ppm: Array | None,
    mask: Mask,
    *,
    voxel_size_mm: Array,
    b0_direction: Array,
) -> PhaseSign:
    """Judge the sign of the phase by the sources outside the mask.

    Parameters
    ----------
    field_ppm : ndarray, shape (x, y, z)
        Total field as the phase gives it.
    standard_error_ppm : ndarray, shape (x, y, z), or None
    mask : ndarray of bool, shape (x, y, z)
    voxel_size_mm, b0_direction : ndarray, shape (3,)
    """
    field, weight, inside, size = _coarsen(field_ppm, standard_error_ppm, mask, voxel_size_mm)
    if not inside.any():
        return PhaseSign(0, np.nan, np.nan)
    padding = pad_for(inside, margin=10, beyond=8)
    dipole = Dipole(padding.shape, size, b0_direction)
    allowed = ~padding.extend_mask(inside)
    sources = _sources(padding.embed(field), padding.embed(weight), allowed, dipole)
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    smooth = gaussian_filter(sources, _SMOOTH_MM / size)
    # Where the image ends, what lies beyond stands for everything that is not seen.
    near = padding.crop(distance_transform_edt(allowed, sampling=size)) <= _NEAR_MM
    judged = padding.crop(smooth)[near & ~inside]
    if judged.size == 0:
        return PhaseSign(0, np.nan, np.nan)
    high, low = float(judged.max()), float(judged.min())
    if max(high, -low) < _ONLY_AIR_PPM or max(high, -low) < _STANDS_OUT * min(high, -low):
        return PhaseSign(0, high, low)
    return PhaseSign(1 if high > -low else -1, high, low)


def _coarsen(
    field: Array, error: Array | None, mask: Mask, voxel_size: Array
) -> tuple[Single, Single, Mask, Array]:
    """Average blocks of voxels; return field, weight (0 to 1), mask and voxel size."""
    usable = mask & np.isfinite(field)
    weight = np.zeros(mask.shape)
    weight[usable] = 1.0
    if error is not None and np.isfinite(error[usable]).any():
        typical = float(np.nanmedian(error[usable]))
        trusted = np.minimum(1.0, typical / np.maximum(error, 1e-12)) ** 2
        weight[usable] = np.nan_to_num(trusted[usable])
    factor = np.maximum(1, np.round(_COARSE_MM / np.asarray(voxel_size))).astype(int)
    share = _blocks(weight, factor)
    known = share > 0.25
    summed = _blocks(np.where(usable, field, 0.0) * weight, factor)
    mean = np.divide(summed, share, out=np.zeros_like(summed), where=known)
    # A field is known up to a constant; the sources need not explain it.
    if known.any():
        mean[known] -= np.median(mean[known])
    return mean.astype(np.float32), np.where(known, share, 0).astype(np.float32), known, voxel_size * factor


def _blocks(image: Array, factor: NDArray[np.int_]) -> Array:
    padded = np.pad(image, [(0, int(-n % f)) for n, f in zip(image.shape, factor, strict=True)])
    shape = [part for n, f in zip(padded.shape, factor, strict=True) for part in (n // int(f), int(f))]
    blocks: Array = padded.reshape(shape).mean(axis=(1, 3, 5))
    return blocks


def _sources(field: Single, weight: Single, allowed: Mask, dipole: Dipole) -> Single:
    """Least squares for sources where they are allowed, by a few conjugate gradients."""
    sources = np.zeros_like(field)
    residual = allowed * dipole(weight * weight * field)
    direction, power = residual.copy(), float((residual**2).sum())
    enough = _NOTHING * power
    for _ in range(_ITERATIONS):
        if power <= enough:
            break
        image = allowed * dipole(weight * weight * dipole(direction))
        rate = power / max(float((direction * image).sum()), np.finfo(float).tiny)
        sources += np.float32(rate) * direction
        residual = residual - np.float32(rate) * image
        previous, power = power, float((residual**2).sum())
        direction = residual + np.float32(power / previous) * direction
    return np.asarray(sources, dtype=np.float32)
