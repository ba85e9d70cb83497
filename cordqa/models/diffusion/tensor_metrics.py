"""Scalar maps of a diffusion tensor, and their gradients by the six coefficients.

Coefficients are ordered as :data:`cordqa.models.diffusion.design.SECOND_ORDER`, in um2/ms.
Eigenvalues are never clipped: a negative one shows that the data cannot be trusted, and clipping
would bias every average over voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.design import as_matrix, second_order

__all__ = ["TENSOR_MAPS", "eigen", "tensor_gradients", "tensor_maps"]

Array = NDArray[np.float64]

TENSOR_MAPS = ("FA", "MD", "AD", "RD")
#: Largest |cosine| and least relative spread for which the closed form keeps its digits.
_APART, _LEAST_SPREAD = 1 - 1e-4, 1e-3
#: Sum of squared eigenvalues, (um2/ms)^2, at or below which a tensor is nothing but rounding.
_NOTHING = 1e-12
_TRACE = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
#: Each off-diagonal coefficient stands for two entries of the matrix.
_ENTRIES = np.array([1.0, 2.0, 1.0, 2.0, 2.0, 1.0])


def eigen(tensor: Array) -> tuple[Array, Array]:
    """Eigenvalues (m, 3), largest first, and eigenvectors (m, 3, 3) in columns of that order.

    In closed form where the eigenvalues are well apart, which is ten times faster than, and as exact
    as, the iterative solver; by the solver elsewhere.
    """
    values, apart = _closed_form(tensor)
    vectors = np.empty((*values.shape, 3))
    first = _eigenvector(tensor[apart], values[apart, 0])
    last = _eigenvector(tensor[apart], values[apart, 2])
    vectors[apart] = np.stack([first, _cross(last, first), last], axis=-1)
    rest = ~apart
    if rest.any():
        ascending, columns = np.linalg.eigh(as_matrix(tensor[rest]))
        values[rest], vectors[rest] = ascending[:, ::-1], columns[..., ::-1]
    return values, vectors


def _closed_form(tensor: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Eigenvalues by the trigonometric formula, and where they are apart enough for it."""
    xx, xy, yy, xz, yz, zz = tensor.T
    mean = (xx + yy + zz) / 3
    x, y, z = xx - mean, yy - mean, zz - mean
    off = xy**2 + xz**2 + yz**2
    size = np.sqrt((x**2 + y**2 + z**2 + 2 * off) / 6)
    half_det = (x * (y * z - yz**2) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)) / 2
    cosine = np.divide(half_det, size**3, out=np.ones_like(size), where=size > 0)
    # At +-1 two eigenvalues coincide, and the angle loses half of its digits.
    apart = (np.abs(cosine) < _APART) & (size > _LEAST_SPREAD * np.abs(mean))
    angle = np.arccos(np.clip(cosine, -1, 1)) / 3
    largest = mean + 2 * size * np.cos(angle)
    smallest = mean + 2 * size * np.cos(angle + 2 * np.pi / 3)
    return np.stack([largest, 3 * mean - largest - smallest, smallest], axis=-1), apart


def _eigenvector(tensor: Array, value: Array) -> Array:
    """Unit eigenvector of a simple eigenvalue: the longest product of two rows of D - lambda I."""
    xx, xy, yy, xz, yz, zz = tensor.T
    x, y, z = xx - value, yy - value, zz - value
    # The adjugate of D - lambda I is proportional to v v'; its columns are products of rows.
    diagonal = np.stack([y * z - yz**2, x * z - xz**2, x * y - xy**2], axis=-1)
    a, b, c = xz * yz - xy * z, xy * yz - xz * y, xy * xz - x * yz
    which = np.abs(diagonal).argmax(axis=-1)
    columns = np.stack(
        [
            np.stack([diagonal[:, 0], a, b], axis=-1),
            np.stack([a, diagonal[:, 1], c], axis=-1),
            np.stack([b, c, diagonal[:, 2]], axis=-1),
        ],
        axis=1,
    )
    vector = columns[np.arange(len(which)), which]
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def _cross(first: Array, second: Array) -> Array:
    """Cross product along the last axis (numpy's own is several times slower)."""
    (a, b, c), (d, e, f) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    return np.stack([b * f - c * e, c * d - a * f, a * e - b * d], axis=-1)


def tensor_maps(values: Array) -> dict[str, Array]:
    """FA and mean, axial and radial diffusivity (um2/ms) of eigenvalues (..., 3), largest first.

    FA is NaN for a tensor that is zero but for rounding.
    """
    mean = values.mean(axis=-1)
    spread = ((values - mean[..., None]) ** 2).sum(axis=-1)
    square = (values**2).sum(axis=-1)
    ratio = np.divide(spread, square, out=np.full_like(square, np.nan), where=square > _NOTHING)
    return {
        "FA": np.sqrt(1.5 * ratio),
        "MD": mean,
        "AD": values[..., 0],
        "RD": (values[..., 1] + values[..., 2]) / 2,
    }


def tensor_gradients(tensor: Array, values: Array, vectors: Array) -> Array:
    """Gradients of :data:`TENSOR_MAPS` by the coefficients, shape (..., 4, 6).

    That of FA is zero where the tensor is exactly isotropic: FA has a kink there.
    """
    axial = second_order(vectors[..., :, 0])
    mean = values.mean(axis=-1)
    square = np.maximum((values**2).sum(axis=-1), _NOTHING)
    fa = tensor_maps(values)["FA"]
    # FA^2 = 3/2 (1 - 3 MD^2 / |D|^2), so 2 FA dFA = 9 MD (MD D / |D|^4 - I / (3 |D|^2)) : dD.
    # A tensor of zeros has no anisotropy, and no slope below.
    safe = np.where(square > 1e-150, square, 1.0)
    outer = np.square(mean / safe)[..., None] * (tensor * _ENTRIES)
    slope = 9.0 * (outer - (mean / safe)[..., None] * _TRACE / 3)
    with np.errstate(invalid="ignore"):
        anisotropic = fa > np.sqrt(np.finfo(float).eps)
    kink = np.where(anisotropic, fa, 1.0)[..., None]
    fa_slope = np.where(anisotropic[..., None], slope / (2 * kink), 0.0)
    trace = np.broadcast_to(_TRACE, axial.shape)
    return np.stack([fa_slope, trace / 3, axial, (trace - axial) / 2], axis=-2)
