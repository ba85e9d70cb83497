"""Referencing: susceptibility is known up to a constant, so the zero is a choice and is named."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.chain_record import Reconstruction

__all__ = ["Referenced", "RegionValue", "reference_to_mask", "reference_to_region", "region_value"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEW_VOXELS = 20
#: Four decimals do not show less.
_NOTHING_PPM = 5e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Referenced:
    """Susceptibility relative to a named reference.

    Attributes
    ----------
    chi_ppm : ndarray
        NaN outside the valid mask.
    draws_ppm : ndarray or None
        Noise realisations relative to the same reference, shape (n_probes, n_valid).
    valid : ndarray of bool
    reference : str
        Name of the reference.
    subtracted_ppm, spread_ppm : float
        Mean over the reference that was subtracted, and the standard deviation between its voxels
        (ddof 1).
    n_voxels : int
    inside : ndarray of bool
        The voxels of the reference.
    sentence : str
        For the methods text.
    notices : tuple of str
    """

    chi_ppm: Array
    draws_ppm: NDArray[np.float32] | None
    valid: Mask
    reference: str
    subtracted_ppm: float
    spread_ppm: float
    n_voxels: int
    inside: Mask
    sentence: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionValue:
    """Mean of a region with what is known of its error.

    Attributes
    ----------
    mean_ppm : float
    standard_error_ppm : float
        Of the mean, from the noise of the field with its correlation between voxels; NaN without
        noise realisations.
    spread_ppm : float
        Standard deviation between voxels (ddof 1): tissue, not error.
    n_voxels : int
    """

    mean_ppm: float
    standard_error_ppm: float
    spread_ppm: float
    n_voxels: int


def reference_to_mask(reconstruction: Reconstruction) -> Referenced:
    """Subtract the mean over the valid mask."""
    return _subtract(reconstruction, reconstruction.valid, "whole mask")


def reference_to_region(reconstruction: Reconstruction, region: Mask, *, name: str) -> Referenced:
    """Subtract the mean over a region.

    Parameters
    ----------
    reconstruction : Reconstruction
    region : ndarray of bool
        On the same grid; only its valid voxels count.
    name : str
        What the region is, for the report.

    Raises
    ------
    InputError
        If the shapes differ or no voxel of the region is valid.
    """
    if region.shape != reconstruction.valid.shape:
        raise InputError(
            "the reference region lies on another grid",
            where=name,
            found=str(region.shape),
            expected=str(reconstruction.valid.shape),
            todo="resample it to the grid of the phase",
        )
    inside = np.asarray(region, dtype=bool) & reconstruction.valid
    if not inside.any():
        raise InputError(
            "no voxel of the reference region has a susceptibility",
            where=name,
            found=f"{int(np.count_nonzero(region))} voxels, all outside the valid mask",
            todo="choose a region inside the mask",
        )
    return _subtract(reconstruction, inside, name)


def _subtract(reconstruction: Reconstruction, inside: Mask, name: str) -> Referenced:
    values = reconstruction.chi_ppm[inside]
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else math.nan
    draws = reconstruction.draws_ppm
    if draws is not None:
        draws = draws - draws[:, inside[reconstruction.valid]].mean(axis=1, keepdims=True)
    notices: tuple[str, ...] = ()
    if values.size < _FEW_VOXELS:
        notices = (f"the reference {name} has only {values.size} voxels",)
    sentence = (
        f"Susceptibility is relative to the mean of the {name} ({values.size} voxels, mean {_plain(mean)} "
        f"ppm and standard deviation {spread:.4f} ppm before)."
    )
    return Referenced(
        chi_ppm=reconstruction.chi_ppm - mean,
        draws_ppm=draws,
        valid=reconstruction.valid,
        reference=name,
        subtracted_ppm=mean,
        spread_ppm=spread,
        n_voxels=int(values.size),
        inside=inside,
        sentence=sentence,
        notices=notices,
    )


def _plain(value: float) -> str:
    """Write a mean that is zero as 0, whatever is left of it by rounding."""
    return f"{value:.4f}" if abs(value) >= _NOTHING_PPM else "0"


def region_value(referenced: Referenced, region: Mask) -> RegionValue:
    """Average a region; a region without valid voxels is NaN with a count of zero.

    Parameters
    ----------
    referenced : Referenced
    region : ndarray of bool
    """
    inside = np.asarray(region, dtype=bool) & referenced.valid
    count = int(np.count_nonzero(inside))
    if count == 0:
        return RegionValue(mean_ppm=math.nan, standard_error_ppm=math.nan, spread_ppm=math.nan, n_voxels=0)
    values = referenced.chi_ppm[inside]
    error = math.nan
    if referenced.draws_ppm is not None:
        # The draws are deviations with a known mean of zero: no degree of freedom is lost.
        means = referenced.draws_ppm[:, inside[referenced.valid]].mean(axis=1, dtype=float)
        error = float(np.sqrt((means**2).mean()))
    return RegionValue(
        mean_ppm=float(values.mean()),
        standard_error_ppm=error,
        spread_ppm=float(values.std(ddof=1)) if count > 1 else math.nan,
        n_voxels=count,
    )
