"""Second-order cumulant expansion of powder averages.

``ln S = ln S0 - b MD + b^2/2 (VI + b_delta^2 VA)``: the mean diffusivity, the variance of the
isotropic diffusivity between compartments, and the variance that the orientation of anisotropic
compartments causes.  Linear in its four parameters, so one weighted solution per voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.powder import PowderShell

__all__ = ["PowderFit", "cumulant_design", "fit_cumulant", "inverse_positive"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Square of the sine between a column and the others below which a matrix counts as singular.
_SINGULAR = 1e-9
#: Diffusivity (um2/ms) below which a variance is no longer compared with it.
_LEAST_DIFFUSIVITY = 0.05
#: Skewness of the diffusivity of a stick along a random direction: 16/945 over (4/45)^(3/2).
_ORIENTATION_SKEWNESS = 0.6389


@dataclass(frozen=True, slots=True, kw_only=True)
class PowderFit:
    """Parameters of v voxels: ln S0, MD (um2/ms), VI and VA (um4/ms2).

    Attributes
    ----------
    parameters : ndarray, shape (4, v)
    covariance : ndarray, shape (4, 4, v)
        From the variances of the powder averages alone.
    cost : ndarray, shape (v,)
        Sum of squared residuals in units of the standard deviations of the averages.
    solved : ndarray of bool, shape (v,)
    truncation : ndarray, shape (s, 4, v)
        How far s kinds of terms that an expansion leaves out may have moved the parameters (one
        standard deviation each, all four together); none for a model that is no expansion.
    n_used : ndarray of int, shape (v,)
        Numbers fitted.
    n_unknowns : int
        Unknowns that they determine.
    """

    parameters: Array
    covariance: Array
    cost: Array
    solved: Mask
    truncation: Array
    n_used: NDArray[np.intp]
    n_unknowns: int


def cumulant_design(shells: Sequence[PowderShell]) -> Array:
    """Columns of ln S0, MD, VI and VA, shape (k, 4)."""
    b = np.array([shell.b_ms_um2 for shell in shells])
    shape = np.array([shell.b_delta for shell in shells])
    return np.stack([np.ones_like(b), -b, b**2 / 2, (b * shape) ** 2 / 2], axis=1)


def fit_cumulant(means: Array, variances: Array, shells: Sequence[PowderShell]) -> PowderFit:
    """Weighted least squares of the logarithm of powder averages.

    The weights are the inverse variances of the logarithms, once with the measured averages and
    once more with the fitted ones, which do not share their noise.

    Parameters
    ----------
    means, variances : ndarray, shape (k, v)
        Powder averages and their variances; an infinite variance leaves an average out.
    shells : sequence of PowderShell

    Returns
    -------
    PowderFit
    """
    design = cumulant_design(shells)
    usable = (means > 0) & np.isfinite(variances) & (variances > 0)
    safe = np.where(usable, means, 1.0)
    logarithm = np.log(safe)
    precision = np.divide(1.0, variances, out=np.zeros_like(safe), where=usable)
    parameters, _, _ = _solve(design, logarithm, precision * safe**2)
    fitted = np.exp(np.clip(design @ parameters, -50.0, 50.0))
    weight = precision * np.where(np.abs(np.log(fitted) - logarithm) < 0.5, fitted, safe) ** 2
    parameters, covariance, solved = _solve(design, logarithm, weight)
    residual = logarithm - design @ parameters
    return PowderFit(
        parameters=parameters,
        covariance=covariance,
        cost=np.asarray((weight * residual**2).sum(axis=0)),
        solved=solved & (usable.sum(axis=0) >= design.shape[1]),
        truncation=_truncation(shells, weight, parameters, covariance),
        n_used=usable.sum(axis=0),
        n_unknowns=design.shape[1],
    )


def _truncation(shells: Sequence[PowderShell], weight: Array, parameters: Array, covariance: Array) -> Array:
    """Changes of the parameters by third cumulants that are not known, shape (2, 4, v).

    Two of them, each taken as uniformly distributed between what is possible.  By size: from 0 for a
    symmetric distribution to 2 V^2/MD for a gamma distribution of mean MD and variance V, as far as
    V has a part by size.  By orientation: the skewness of the diffusivity along a random direction,
    times VA^(3/2) and the cube of the shape, from that of flat to that of long compartments.
    """
    b = np.array([[shell.b_ms_um2] for shell in shells])
    shape = np.array([[shell.b_delta] for shell in shells])
    isotropic, anisotropic = np.maximum(parameters[2], 0.0), np.maximum(parameters[3], 0.0)
    mean = np.maximum(parameters[1], _LEAST_DIFFUSIVITY)
    by_size = isotropic * (isotropic + 2 * shape**2 * anisotropic) * 2 / mean
    by_orientation = shape**3 * _ORIENTATION_SKEWNESS * 2 * anisotropic**1.5
    neglected = np.stack([by_size, by_orientation]) * (b**3 / 6 / np.sqrt(12.0))
    gradient = np.einsum("kp,skv->spv", cumulant_design(shells), weight * neglected)
    change: Array = np.einsum("pqv,sqv->spv", covariance, gradient)
    return change


def _solve(design: Array, response: Array, weight: Array) -> tuple[Array, Array, Mask]:
    n = design.shape[1]
    products = np.einsum("kp,kq->pqk", design, design).reshape(n * n, -1)
    normal = (products @ weight).reshape(n, n, -1)
    inverse, solved = inverse_positive(normal)
    gradient = design.T @ (weight * response)
    parameters: Array = np.einsum("pqv,qv->pv", inverse, gradient)
    return parameters, inverse, solved


def inverse_positive(matrices: Array) -> tuple[Array, Mask]:
    """Inverse of many small symmetric positive matrices, shape (n, n, v), by Cholesky.

    Returns
    -------
    inverse : ndarray, shape (n, n, v)
        Zero where a matrix is singular.
    solved : ndarray of bool, shape (v,)
    """
    n = len(matrices)
    diagonal = np.stack([matrices[i, i] for i in range(n)])
    solved: Mask = np.asarray(np.isfinite(matrices).all(axis=(0, 1)) & (diagonal > 0).all(axis=0))
    scale = 1.0 / np.sqrt(np.where(solved, diagonal, 1.0))
    lower = np.zeros_like(matrices)
    for j in range(n):
        for i in range(j, n):
            entry = np.where(solved, matrices[i, j] * scale[i] * scale[j], float(i == j))
            entry = entry - sum((lower[i, k] * lower[j, k] for k in range(j)), start=np.zeros_like(entry))
            if i == j:
                solved = solved & (entry > _SINGULAR)
                lower[j, j] = np.sqrt(np.where(solved, entry, 1.0))
            else:
                lower[i, j] = entry / lower[j, j]
    return _inverse_from_lower(lower, scale * solved), solved


def _inverse_from_lower(lower: Array, scale: Array) -> Array:
    n = len(lower)
    inverse = np.zeros_like(lower)
    for j in range(n):
        inverse[j, j] = 1.0 / lower[j, j]
        for i in range(j + 1, n):
            inverse[i, j] = -sum(lower[i, k] * inverse[k, j] for k in range(j, i)) / lower[i, i]
    product = np.einsum("kiv,kjv->ijv", inverse, inverse)
    with np.errstate(over="ignore", invalid="ignore"):
        full: Array = product * scale[:, None] * scale[None, :]
    return np.where(np.isfinite(full), full, 0.0)
