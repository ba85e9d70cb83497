"""What neighbours know of a voxel: a smooth flip angle, and spectra that change slowly.

The transmit field is smooth, so that a map of the refocusing angle gains by smoothing and loses
little.  Spectra change at the borders of tissue: there, pulling them towards their neighbours blurs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.myelin.echo_basis import angle_to_node, node_to_angle
from cordqa.models.myelin.spectra import Smoothing
from cordqa.models.myelin.water_fraction import MyelinWater, NeighbourSpectra, fit_water_spectra

__all__ = ["smooth_angles", "spectra_of_neighbours"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Single = NDArray[np.float32]
_FWHM_PER_SIGMA = 2.3548200450309493
_BATCH = 1000


def _sigma(fwhm_mm: float, spacing_mm: tuple[float, float, float]) -> Array:
    if not 0 < fwhm_mm < 1000 or not all(0 < step < 1000 for step in spacing_mm):
        raise InputError(
            "smoothing needs a width and voxel sizes in millimetres",
            found=f"{fwhm_mm:g} mm, voxels of {', '.join(f'{s:g}' for s in spacing_mm)} mm",
        )
    return fwhm_mm / _FWHM_PER_SIGMA / np.asarray(spacing_mm, dtype=float)


def _average(values: Single, known: Mask, mask: Mask, sigma: Array, *, with_self: bool) -> Single:
    """Gaussian average of the known voxels of a mask, shape (m, c); 0 where no voxel is near."""
    from scipy.ndimage import gaussian_filter

    def blurred(column: NDArray[np.floating[Any]]) -> Array:
        volume = np.zeros(mask.shape, dtype=np.float64)
        volume[mask] = np.where(known, column, 0.0)
        found: Array = gaussian_filter(volume, sigma, mode="constant", truncate=3.0)[mask]
        return found

    ones = np.ones(len(values))
    weight = blurred(ones)
    own = 0.0
    if not with_self:
        impulse = np.zeros((7, 7, 7))
        impulse[3, 3, 3] = 1.0
        # The weight of a voxel in its own average, taken out again.
        own = float(gaussian_filter(impulse, sigma, mode="constant", truncate=3.0)[3, 3, 3])
    weight = weight - own * known
    near = weight > 1e-6
    smooth = np.zeros_like(values)
    for column in range(values.shape[1]):
        total = blurred(values[:, column]) - own * np.where(known, values[:, column], 0.0)
        smooth[:, column] = np.where(near, total / np.where(near, weight, 1.0), 0.0)
    return smooth


def smooth_angles(
    angle_deg: Array, mask: Mask, spacing_mm: tuple[float, float, float], *, fwhm_mm: float
) -> Array:
    """Smooth a map of refocusing angles inside a mask.

    Parameters
    ----------
    angle_deg : ndarray, shape (m,)
        Of the voxels of the mask, NaN where not known.
    mask : ndarray of bool, shape (i, j, k)
    spacing_mm : tuple of float
        Voxel size.
    fwhm_mm : float
        Full width at half maximum of the Gaussian.

    Returns
    -------
    ndarray, shape (m,)
        NaN where no known voxel is near.
    """
    known = np.isfinite(angle_deg)
    # Averaged in 1 + cos: there, noise near 180 degrees is not folded to one side.
    node = np.where(known, angle_to_node(np.where(known, angle_deg, 180.0)), 0.0)
    columns = np.column_stack([node, np.ones(len(node))]).astype(np.float32)
    both = _average(columns, known, mask, _sigma(fwhm_mm, spacing_mm), with_self=True)
    return np.where(both[:, 1] > 0, node_to_angle(both[:, 0].astype(float)), np.nan)


def spectra_of_neighbours(
    signal: Array,
    settings: MyelinWater,
    mask: Mask,
    spacing_mm: tuple[float, float, float],
    *,
    angle_deg: Array | None = None,
    fwhm_mm: float,
    weight: float,
) -> NeighbourSpectra:
    """Fit every voxel alone and average the spectra of its neighbours, each of sum 1.

    Parameters
    ----------
    signal : ndarray, shape (m, n_echoes)
        Of the voxels of the mask; those that are not finite count as unknown.
    settings : MyelinWater
    mask : ndarray of bool, shape (i, j, k)
    spacing_mm : tuple of float
    angle_deg : ndarray, shape (m,), optional
        Known refocusing angles.
    fwhm_mm : float
        Width of the neighbourhood.
    weight : float
        Weight of the squared distance to the mean, see :class:`NeighbourSpectra`.
    """
    if not 0 < weight < 1e3:
        raise InputError("the weight of neighbours must be positive", found=f"{weight:g}")
    usable = np.asarray(np.isfinite(signal).all(axis=1) & (signal > 0).any(axis=1))
    if angle_deg is not None:
        usable &= np.isfinite(angle_deg)
    spectra = np.zeros((len(signal), settings.grid.n_t2), dtype=np.float32)
    # The discrepancy principle needs a noise level; neighbours are averaged anyway.
    quick = MyelinWater(
        grid=settings.grid,
        smoothing=Smoothing(rule="chi2"),
        myelin_t2_s=settings.myelin_t2_s,
        tissue_t2_s=settings.tissue_t2_s,
        profile=settings.profile,
    )
    rows = np.flatnonzero(usable)
    for start in range(0, rows.size, _BATCH):
        part = rows[start : start + _BATCH]
        angle = None if angle_deg is None else angle_deg[part]
        found = fit_water_spectra(signal[part], quick, angle_deg=angle).amplitudes
        spectra[part] = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300)
    mean = _average(spectra, usable, mask, _sigma(fwhm_mm, spacing_mm), with_self=False)
    total = mean.sum(axis=1, keepdims=True)
    return NeighbourSpectra((mean / np.where(total > 0, total, 1.0)).astype(float), weight)
