"""Rapid two-step inversion: what the dipole knows by least squares, the rest by total variation.

After Kames et al. 2018 (doi:10.1016/j.neuroimage.2017.11.018): a few steps of conjugate gradients
recover k-space away from the magic angle; total variation fills the cone and keeps the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.dipole import Dipole
from cordqa.models.susceptibility.inversion_tv import difference, divergence, gradient_spectrum

__all__ = ["invert_in_two_steps"]

Single = NDArray[np.float32]

_CONE = 0.15
_LEAST_SQUARES_STEPS = 10
_FIDELITY = 1e5
_PENALTY = 10.0


def invert_in_two_steps(
    dipole: Dipole, local_field: Single, weight: Single, *, cone: float = _CONE, iterations: int = 20
) -> Single:
    """Invert in two steps; no regularisation has to be chosen.

    Parameters
    ----------
    dipole : Dipole
    local_field, weight : ndarray of float32
        ppm, and 0 to 1.
    cone : float
        Kernel values below it are filled by total variation.
    iterations : int
        Of the second step.
    """
    first = _least_squares(dipole, local_field, weight)
    known = (np.abs(dipole.kernel) > cone).astype(np.float32)
    steps = dipole.voxel_size_mm / dipole.voxel_size_mm.min()
    scale = 1 / (_FIDELITY * known + _PENALTY * gradient_spectrum(dipole.shape, steps) + 1e-6)
    anchor = (_FIDELITY * known * dipole.transform(first)).astype(np.complex64)
    # The threshold of the gradient follows the size of the susceptibility, whatever its unit.
    limit = np.float32(np.median(np.abs(first[weight > 0])) / _PENALTY)
    dual = [np.zeros_like(first) for _ in range(3)]
    aim = [np.zeros_like(first) for _ in range(3)]
    chi, gradient = first, np.empty_like(first)
    for _ in range(iterations):
        spectrum = anchor + np.float32(_PENALTY) * dipole.transform(divergence(aim, steps))
        chi = dipole.restore((spectrum * scale).astype(np.complex64))
        for axis in range(3):
            difference(chi, axis, steps[axis], gradient)
            gradient += dual[axis]
            np.clip(gradient, -limit, limit, out=dual[axis])
            np.subtract(gradient, 2 * dual[axis], out=aim[axis])
    return chi


def _least_squares(dipole: Dipole, local_field: Single, weight: Single) -> Single:
    """Few conjugate gradients on the weighted normal equations."""
    square = weight * weight
    residual = dipole(square * local_field)
    chi, direction = np.zeros_like(residual), residual.copy()
    power = float(np.vdot(residual, residual))
    for _ in range(_LEAST_SQUARES_STEPS):
        if power <= 0:
            break
        image = dipole(square * dipole(direction))
        rate = np.float32(power / float(np.vdot(direction, image)))
        chi += rate * direction
        residual -= rate * image
        previous, power = power, float(np.vdot(residual, residual))
        direction = residual + np.float32(power / previous) * direction
    return chi
