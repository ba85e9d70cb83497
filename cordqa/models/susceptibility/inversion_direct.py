"""Dipole inversions in one step in k-space: baselines, fast and streaky or blurred."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.dipole import Dipole
from cordqa.models.susceptibility.inversion_tv import gradient_spectrum

__all__ = ["invert_by_division", "invert_by_smoothness"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]

_THRESHOLD = 0.15


def invert_by_division(
    dipole: Dipole, local_field: Single, *, threshold: float = _THRESHOLD, corrected: bool = True
) -> Single:
    """Truncated k-space division (Shmueli et al. 2009, doi:10.1002/mrm.22135).

    Parameters
    ----------
    dipole : Dipole
    local_field : ndarray of float32
        ppm, on the grid of the dipole.
    threshold : float
        Values of the kernel below it are replaced by it, sign kept.
    corrected : bool
        Divide by the height of the point spread function, which undoes the underestimation
        (Schweser et al. 2013, doi:10.1002/mrm.24405).
    """
    kernel = dipole.kernel
    sign = np.where(kernel < 0, np.float32(-1), np.float32(1))
    inverse = sign / np.maximum(np.abs(kernel), np.float32(threshold))
    inverse[0, 0, 0] = 0
    if corrected:
        inverse = inverse / np.float32(_point_spread(kernel * inverse, dipole.shape))
    return dipole.restore(dipole.transform(local_field) * inverse)


def _point_spread(transfer: NDArray[np.floating], shape: tuple[int, int, int]) -> float:
    """Value at the origin of what one voxel becomes: the mean of the transfer over all of k-space."""
    weight = np.full(transfer.shape[2], 2.0)
    weight[0] = 1.0
    if shape[2] % 2 == 0:
        weight[-1] = 1.0
    return float((transfer * weight).sum() / np.prod(shape))


def invert_by_smoothness(dipole: Dipole, local_field: Single, regularisation: float) -> Single:
    """Closed-form least squares with a quadratic penalty of the gradient.

    After Bilgic et al. 2014, doi:10.1002/jmri.24365.

    Parameters
    ----------
    dipole : Dipole
    local_field : ndarray of float32
        ppm.
    regularisation : float
        Weight of the squared gradient: variance of the field over that of the steps of
        susceptibility.
    """
    steps = dipole.voxel_size_mm / dipole.voxel_size_mm.min()
    kernel = dipole.kernel
    scale = kernel / (kernel**2 + np.float32(regularisation) * gradient_spectrum(dipole.shape, steps) + 1e-12)
    scale[0, 0, 0] = 0
    return dipole.restore(dipole.transform(local_field) * scale.astype(np.float32))
