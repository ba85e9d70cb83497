"""Scalar maps of diffusion and kurtosis tensors, and their gradients by the 21 coefficients.

The fourth-order coefficients are V = MD^2 W, ((um2/ms)^2), so that the kurtosis along n is
K(n) = V(n) / D(n)^2 (Jensen et al. 2005, doi:10.1002/mrm.20508).  MK and RK are averages of K(n) over
the sphere and over the circle across the main direction.  Written as moments of the directions,

    <n_i^2 n_j^2 / D(n)^2> = integral over t of t (1 + 2 t l_i)^-3/2 (1 + 2 t l_j)^-3/2 (1 + 2 t l_k)^-1/2

(three times that with -5/2 for i = j), which a change of variable makes smooth on [0, 1].  A
Gauss-Legendre sum of it has no case of equal eigenvalues to treat apart, unlike the elliptic
integrals of Tabesh et al. 2011 (doi:10.1002/mrm.22655), to which it is equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.design import (
    as_fourth_tensor,
    contract,
    fourth_order,
    second_order,
    second_order_pair,
    sphere_quadrature,
)

__all__ = [
    "KURTOSIS_MAPS",
    "LEAST_DIFFUSIVITY",
    "directional_extremes",
    "kurtosis_gradients",
    "kurtosis_maps",
]

Array = NDArray[np.float64]

KURTOSIS_MAPS = ("MK", "AK", "RK", "MKT", "KFA")
#: Eigenvalues (um2/ms) at or below this leave K = V / D^2 without meaning.
LEAST_DIFFUSIVITY = 1e-3
#: Nodes of the integral over t, and of tensors with an eigenvalue below this share of their mean.
_NODES, _NODES_OF_STICKS, _STICK = 20, 80, 0.03
#: Where all 15 coefficients are those of V(n) = 1.
_ISOTROPIC = np.array([1.0] * 3 + [0.0] * 6 + [1.0 / 3] * 3 + [0.0] * 3)
#: Mean of V(n) over the sphere.
_MEAN = np.array([1.0] * 3 + [0.0] * 6 + [2.0] * 3 + [0.0] * 3) / 5
#: How many entries of the full tensor each coefficient stands for.
_ENTRIES = np.array([1.0] * 3 + [4.0] * 6 + [6.0] * 3 + [12.0] * 3)
_SPHERE, _SPHERE_WEIGHT = sphere_quadrature(12)
_SPHERE_SECOND, _SPHERE_FOURTH = second_order(_SPHERE), fourth_order(_SPHERE)
#: Angles around half of the circle across the main direction.
_CIRCLE = np.pi * (np.arange(12) + 0.5) / 12


def kurtosis_maps(fourth: Array, values: Array, vectors: Array) -> dict[str, Array]:
    """MK, AK, RK, MKT and KFA.

    Parameters
    ----------
    fourth : ndarray, shape (m, 15)
        Coefficients of V.
    values, vectors : ndarray, shape (m, 3), (m, 3, 3)
        Eigenvalues, largest first, all above zero, and eigenvectors in columns.

    Returns
    -------
    dict
        KFA is NaN where MKT is not positive.
    """
    diagonal, mixed = _in_eigenframe(fourth, vectors)
    mean_tensor = fourth @ _MEAN
    away = fourth - mean_tensor[:, None] * _ISOTROPIC
    norm = (_ENTRIES * fourth**2).sum(axis=1)
    positive = mean_tensor > 0
    share = np.divide((_ENTRIES * away**2).sum(axis=1), norm, out=np.full(len(norm), np.nan), where=positive)
    return {
        "MK": _mean_kurtosis(diagonal, mixed, values),
        "AK": diagonal[:, 0] / values[:, 0] ** 2,
        "RK": _radial_kurtosis(diagonal, mixed, values),
        "MKT": mean_tensor / values.mean(axis=1) ** 2,
        "KFA": np.sqrt(share),
    }


def _in_eigenframe(fourth: Array, vectors: Array) -> tuple[Array, Array]:
    """V along the eigenvectors (m, 3), and V_iijj (m, 3) of the pairs (2, 3), (1, 3), (1, 2)."""
    axes = vectors.transpose(0, 2, 1)
    diagonal = np.einsum("mac,mc->ma", fourth_order(axes), fourth)
    first, second = axes[:, (1, 0, 0)], axes[:, (2, 2, 1)]
    # V((a + b) / sqrt 2) + V((a - b) / sqrt 2) = (V_aaaa + V_bbbb + 6 V_aabb) / 2.
    both = fourth_order(first + second) + fourth_order(first - second)
    ends = diagonal[:, (1, 0, 0)] + diagonal[:, (2, 2, 1)]
    mixed = (np.einsum("mac,mc->ma", both, fourth) / 2 - ends) / 6
    return diagonal, mixed


def _mean_kurtosis(diagonal: Array, mixed: Array, values: Array) -> Array:
    mean = np.empty(len(values))
    stick = values[:, 2] < _STICK * values.mean(axis=1)
    for where, nodes in ((~stick, _NODES), (stick, _NODES_OF_STICKS)):
        if where.any():
            same, pairs = _sphere_moments(values[where], nodes)
            mean[where] = (same * diagonal[where]).sum(axis=1) + 6 * (pairs * mixed[where]).sum(axis=1)
    return mean


def _sphere_moments(values: Array, n_nodes: int) -> tuple[Array, Array]:
    """<n_i^4 / D^2> (m, 3) and <n_i^2 n_j^2 / D^2> (m, 3) of the pairs (2, 3), (1, 3), (1, 2)."""
    node, weight = np.polynomial.legendre.leggauss(n_nodes)
    node, weight = (node + 1) / 2, weight / 2
    scale = values.mean(axis=1)
    ratio = values / scale[:, None]
    same, pairs = np.zeros_like(values), np.zeros_like(values)
    for x, w in zip(node, weight, strict=True):
        inverse = 1 / (ratio * (1 - x * x) + x * x)
        # Common to all six moments: (l_1 l_2 l_3)^-1/2 in the new variable.
        common = w * x * x * (1 - x * x) * np.sqrt(inverse[:, 0] * inverse[:, 1] * inverse[:, 2])
        weighted = inverse * common[:, None]
        same += 3 * weighted * inverse
        pairs += weighted[:, (1, 0, 0)] * inverse[:, (2, 2, 1)]
    factor = 1 / (2 * scale**2)[:, None]
    return same * factor, pairs * factor


def _radial_kurtosis(diagonal: Array, mixed: Array, values: Array) -> Array:
    """Average over the circle across the first eigenvector, in closed form."""
    b, c = np.sqrt(values[:, 1]), np.sqrt(values[:, 2])
    square = (b + c) ** 2
    second = (2 * b + c) / (2 * b**3 * square)
    third = (2 * c + b) / (2 * c**3 * square)
    both = 1 / (2 * b * c * square)
    return np.asarray(second * diagonal[:, 1] + third * diagonal[:, 2] + 6 * both * mixed[:, 0])


def directional_extremes(tensor: Array, fourth: Array) -> tuple[Array, Array]:
    """Smallest V(n), and largest V(n) / D(n), over directions all around, each (m,).

    The first tells negative kurtosis; the second is bounded by 3 / b_max, beyond which the signal of
    the model rises with b within the measured range.
    """
    along = fourth @ _SPHERE_FOURTH.T
    diffusivity = tensor @ _SPHERE_SECOND.T
    ratio = np.divide(along, diffusivity, out=np.full_like(along, np.inf), where=diffusivity > 0)
    return along.min(axis=1), ratio.max(axis=1)


def kurtosis_gradients(tensor: Array, fourth: Array, values: Array, vectors: Array) -> Array:
    """Gradients of :data:`KURTOSIS_MAPS` by (tensor, fourth), shape (m, 5, 21).

    The averages are taken by quadrature, which is exact enough for a standard error.
    """
    parts = (
        _mean_gradient(tensor, fourth),
        _axial_gradient(fourth, values, vectors),
        _radial_gradient(fourth, values, vectors),
        _mean_tensor_gradient(fourth, values),
        _anisotropy_gradient(fourth),
    )
    return np.stack(parts, axis=1)


def _mean_gradient(tensor: Array, fourth: Array) -> Array:
    inverse = 1 / (tensor @ _SPHERE_SECOND.T)
    along = fourth @ _SPHERE_FOURTH.T
    weighted = inverse**2 * _SPHERE_WEIGHT
    by_tensor = -2 * (along * weighted * inverse) @ _SPHERE_SECOND
    return np.concatenate([by_tensor, weighted @ _SPHERE_FOURTH], axis=1)


def _axial_gradient(fourth: Array, values: Array, vectors: Array) -> Array:
    axis, largest = vectors[..., 0], values[:, 0, None]
    row = fourth_order(axis)
    along = (row * fourth).sum(axis=1, keepdims=True)
    by_tensor = -2 * along / largest**3 * second_order(axis)
    slope = _slope(as_fourth_tensor(fourth), axis)
    # The direction itself turns with the tensor.
    for k in (1, 2):
        turn = (slope * vectors[..., k]).sum(axis=1, keepdims=True)
        by_tensor += 4 * turn / largest**2 * _turning(values, vectors, k)
    return np.concatenate([by_tensor, row / largest**2], axis=1)


def _slope(full: Array, direction: Array) -> Array:
    """V(n, n, n, .): a quarter of the gradient of V(n), shape (m, 3)."""
    return contract(contract(contract(full, direction), direction), direction)


def _radial_gradient(fourth: Array, values: Array, vectors: Array) -> Array:
    full = contract(as_fourth_tensor(fourth), vectors[..., 0])
    turning = {k: _turning(values, vectors, k) for k in (1, 2)}
    by_tensor = np.zeros((len(fourth), 6))
    by_fourth = np.zeros_like(fourth)
    for angle in _CIRCLE:
        share = {1: np.cos(angle), 2: np.sin(angle)}
        across = share[1] * vectors[..., 1] + share[2] * vectors[..., 2]
        row = fourth_order(across)
        diffusivity = share[1] ** 2 * values[:, 1, None] + share[2] ** 2 * values[:, 2, None]
        along = (row * fourth).sum(axis=1, keepdims=True)
        by_fourth += row / diffusivity**2
        by_tensor -= 2 * along / diffusivity**3 * second_order(across)
        # A turn of the main direction tilts the circle.
        turn = contract(contract(contract(full, across), across), across)[:, None]
        for k in (1, 2):
            by_tensor -= 4 * turn / diffusivity**2 * share[k] * turning[k]
    return np.concatenate([by_tensor, by_fourth], axis=1) / len(_CIRCLE)


def _turning(values: Array, vectors: Array, k: int) -> Array:
    """Gradient by the tensor of the first eigenvector's turn towards eigenvector k, (m, 6)."""
    gap = values[:, 0] - values[:, k]
    # Equal eigenvalues leave the direction undetermined; the standard error is then large.
    gap = np.maximum(gap, 1e-6 * np.abs(values[:, 0]))
    return second_order_pair(vectors[..., k], vectors[..., 0]) / gap[:, None]


def _mean_tensor_gradient(fourth: Array, values: Array) -> Array:
    mean = values.mean(axis=1, keepdims=True)
    by_tensor = -2 * (fourth @ _MEAN)[:, None] / mean**3 * np.array([1.0, 0, 1.0, 0, 0, 1.0]) / 3
    return np.concatenate([by_tensor, _MEAN / mean**2], axis=1)


def _anisotropy_gradient(fourth: Array) -> Array:
    norm = (_ENTRIES * fourth**2).sum(axis=1, keepdims=True)
    mean = (fourth @ _MEAN)[:, None]
    # |V - m I|^2 = |V|^2 - 5 m^2, so KFA^2 = 1 - 5 m^2 / |V|^2.
    share = 1 - 5 * mean**2 / np.where(norm > 0, norm, 1.0)
    slope = -10 * mean / norm * _MEAN + 10 * mean**2 / norm**2 * (_ENTRIES * fourth)
    kfa = np.sqrt(np.maximum(share, 0.0))
    by_fourth = np.divide(slope, 2 * kfa, out=np.zeros_like(slope), where=kfa > 1e-8)
    return np.concatenate([np.zeros((len(fourth), 6)), by_fourth], axis=1)
