"""How far the average diffusion tensor is from a sphere, for the orientation order of compartments.

If all anisotropic compartments are turned alike the variance of the eigenvalues of the average
tensor is that of the compartments, VL; if they point everywhere it is zero.  Its root over that of
VL is the order parameter (Lasic et al. 2014, doi:10.3389/fphy.2014.00011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.powder import PowderShell

__all__ = ["TensorVariance", "tensor_estimator", "tensor_variance"]

Array = NDArray[np.float64]

_ELEMENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
#: Decay assumed (um2/ms) for the weights of volumes: one set for all voxels, so that a voxel's
#: value does not depend on the others.  It changes the noise of the result, not its mean.
_TYPICAL_DIFFUSIVITY = 0.8
_SINGULAR = 1e-4


@dataclass(frozen=True, slots=True)
class TensorVariance:
    """Variance of the eigenvalues of the average tensor (um4/ms2), less the share of the noise."""

    value: Array
    standard_error: Array


def tensor_estimator(table: GradientTable, shells: Sequence[PowderShell]) -> Array | None:
    """Matrix from ln S of all volumes to the anisotropic part of the tensor, shape (6, n_volumes).

    Least squares of ``ln S = ln S0 - B:D + b^2/2 (VI + b_delta^2 VA)``; the rows are the elements
    xx, yy, zz and sqrt(2) times xy, xz, yz.  ``None`` where the directions do not determine it.
    """
    used = np.concatenate([shell.volumes for shell in shells])
    part = table.select(used)
    tensors, b = part.b_tensors_ms_um2, part.b_ms_um2
    columns = [-tensors[:, i, j] * (1.0 if i == j else np.sqrt(2.0)) for i, j in _ELEMENTS]
    columns += [np.ones_like(b), b**2 / 2, (b * part.b_delta) ** 2 / 2]
    design = np.stack(columns, axis=1)
    weight = np.exp(-b * _TYPICAL_DIFFUSIVITY)[:, None]
    scale = np.abs(design).max(axis=0)
    if not (scale > 0).all():
        return None
    scaled = design / scale * weight
    singular = np.linalg.svd(scaled, compute_uv=False)
    if singular.size < design.shape[1] or singular[-1] < _SINGULAR * singular[0]:
        return None
    inverse = np.linalg.pinv(scaled) * weight[:, 0] / scale[:, None]
    size = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    estimator = np.zeros((6, len(table)))
    estimator[:, used] = inverse[:6] - np.outer(size, size @ inverse[:6]) / 3
    return estimator


def tensor_variance(signals: Array, noise_sd: Array, estimator: Array) -> TensorVariance:
    """Variance of the eigenvalues of the average tensor of v voxels.

    Parameters
    ----------
    signals : ndarray, shape (v, n_volumes)
        Positive numbers; a voxel with anything else among the volumes used is NaN.
    noise_sd : ndarray, shape (v,)
    estimator : ndarray, shape (6, n_volumes)
        From :func:`tensor_estimator`.
    """
    used = np.flatnonzero(np.any(estimator != 0, axis=0))
    matrix = np.ascontiguousarray(estimator[:, used])
    part = signals[:, used]
    part = np.where(part > 0, part, np.nan)
    elements = np.log(part) @ matrix.T
    relative = (noise_sd[:, None] / part) ** 2
    noise = relative @ (matrix**2).sum(axis=0)
    slope = elements @ matrix
    value = (np.einsum("vi,vi->v", elements, elements) - noise) / 3
    error = 2 / 3 * np.sqrt(np.einsum("vn,vn,vn->v", slope, slope, relative))
    return TensorVariance(value, error)
