"""Signal of freely diffusing water: one Gaussian compartment under any b-tensor.

``S = S0 exp(-B : D)``; a mixture of compartments is the sum of their signals, and its spread of
diffusivities is what models of kurtosis see.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["axial_tensor", "gaussian_signal"]

Array = NDArray[np.float64]


def axial_tensor(axis: Array, *, along_um2_ms: float, across_um2_ms: float) -> Array:
    """Return the tensor (um2/ms) with given diffusivities along and across an axis, shape (3, 3)."""
    unit = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    return np.asarray(
        across_um2_ms * np.eye(3) + (along_um2_ms - across_um2_ms) * np.outer(unit, unit), dtype=float
    )


def gaussian_signal(gradients: GradientTable, tensor_um2_ms: Array) -> Array:
    """Return the signal, relative to b = 0, of every volume.

    Parameters
    ----------
    gradients : GradientTable
        Encoding of n volumes.
    tensor_um2_ms : ndarray, shape (..., 3, 3)
        Diffusion tensor in the axes of the directions, um2/ms.

    Returns
    -------
    ndarray, shape (..., n)
    """
    weighting = np.einsum("nij,...ij->...n", gradients.b_tensors_ms_um2, np.asarray(tensor_um2_ms))
    return np.asarray(np.exp(-weighting), dtype=float)
