"""Design matrices of the tensor and kurtosis models, and which schemes can support them.

Diffusivities are in um2/ms and b in ms/um2, so that every coefficient is of the order of one.
Second-order tensors are stored as (xx, xy, yy, xz, yz, zz), fourth-order ones in the order of
:data:`FOURTH_ORDER`; the rows of :func:`second_order` and :func:`fourth_order` carry the
multiplicities, so that ``second_order(n) @ d`` is the diffusivity along n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.gradient_checks import check_b_unit
from cordqa.models.diffusion.gradient_errors import (
    BUnitError,
    BValueError,
    DirectionNormError,
    NoReferenceError,
)
from cordqa.models.diffusion.gradients import LINEAR, GradientTable

__all__ = [
    "FOURTH_ORDER",
    "SECOND_ORDER",
    "as_fourth_tensor",
    "as_matrix",
    "contract",
    "fourth_order",
    "kurtosis_design",
    "second_order",
    "second_order_pair",
    "sphere_quadrature",
    "tensor_design",
]

Array = NDArray[np.float64]

SECOND_ORDER = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))


def _canonical(entry: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(entry))


_SECOND_COUNT = np.array([1.0, 2.0, 1.0, 2.0, 2.0, 1.0])
FOURTH_ORDER = (
    (0, 0, 0, 0),
    (1, 1, 1, 1),
    (2, 2, 2, 2),
    (0, 0, 0, 1),
    (0, 0, 0, 2),
    (0, 1, 1, 1),
    (1, 1, 1, 2),
    (0, 2, 2, 2),
    (1, 2, 2, 2),
    (0, 0, 1, 1),
    (0, 0, 2, 2),
    (1, 1, 2, 2),
    (0, 0, 1, 2),
    (0, 1, 1, 2),
    (0, 1, 2, 2),
)
_FOURTH_COUNT = np.array([1.0] * 3 + [4.0] * 6 + [6.0] * 3 + [12.0] * 3)
#: Coefficient of each of the 81 entries of a fully symmetric tensor.
_FULL = np.array([FOURTH_ORDER.index(_canonical(entry)) for entry in np.ndindex(3, 3, 3, 3)])

#: Directions must be unit vectors within this: a length changes b by twice as much.
_UNIT_TOLERANCE = 1e-3
#: Directions closer than this count as one (degrees).
_SAME_DIRECTION_DEG = 2.0
#: Smallest over largest singular value below which a design, of b over its largest, determines nothing
#: (even directions have 0.15 for the tensor and 0.03 for kurtosis; the noise goes with its inverse).
_SINGULAR = 5e-3
_TENSOR_UNKNOWNS, _KURTOSIS_UNKNOWNS = 7, 22
_KURTOSIS_DIRECTIONS = 15
#: Volumes from this fraction of the largest b upward form the top shell.
_TOP_SHELL = 0.75
#: Shells lie at least this fraction of the largest b apart: from nearer ones kurtosis is little but noise.
_SHELL_GAP = 0.2


def second_order(directions: Array) -> Array:
    """Monomials n_i n_j with their multiplicities, shape (..., 6)."""
    parts = [directions[..., i] * directions[..., j] for i, j in SECOND_ORDER]
    return np.asarray(np.stack(parts, axis=-1) * _SECOND_COUNT)


def second_order_pair(first: Array, second: Array) -> Array:
    """Row r with ``r @ d = first' D second``, shape (..., 6)."""
    parts = [
        (first[..., i] * second[..., j] + first[..., j] * second[..., i]) / (2 if i == j else 1)
        for i, j in SECOND_ORDER
    ]
    return np.stack(parts, axis=-1)


def fourth_order(directions: Array) -> Array:
    """Monomials n_i n_j n_k n_l with their multiplicities, shape (..., 15)."""
    square = {pair: directions[..., pair[0]] * directions[..., pair[1]] for pair in SECOND_ORDER}
    parts = [square[(q[0], q[1])] * square[(q[2], q[3])] for q in FOURTH_ORDER]
    return np.asarray(np.stack(parts, axis=-1) * _FOURTH_COUNT)


def as_fourth_tensor(fourth: Array) -> Array:
    """Fully symmetric tensors (..., 3, 3, 3, 3) of fourth-order coefficients (..., 15)."""
    return np.asarray(fourth[..., _FULL].reshape(*fourth.shape[:-1], 3, 3, 3, 3))


def contract(full: Array, direction: Array) -> Array:
    """Contract the last index of tensors (m, 3, ..., 3) with directions (m, 3)."""
    return np.asarray(np.einsum("m...i,mi->m...", full, direction))


def as_matrix(tensor: Array) -> Array:
    """Symmetric matrices (..., 3, 3) of second-order coefficients (..., 6)."""
    matrix = np.empty((*tensor.shape[:-1], 3, 3))
    for column, (i, j) in enumerate(SECOND_ORDER):
        matrix[..., i, j] = matrix[..., j, i] = tensor[..., column]
    return matrix


def sphere_quadrature(n_polar: int) -> tuple[Array, Array]:
    """Directions (half a sphere) and weights that integrate even polynomials up to degree 2 n_polar - 1.

    Gauss-Legendre along the polar axis, equal steps around it; the weights sum to one.
    """
    height, weight = np.polynomial.legendre.leggauss(2 * (n_polar // 2 + n_polar % 2))
    above = height > 0
    height, weight = height[above], weight[above]
    n_azimuth = 2 * n_polar
    azimuth = 2 * np.pi * (np.arange(n_azimuth) + 0.5) / n_azimuth
    across = np.sqrt(1 - height**2)
    directions = np.stack(
        [
            np.outer(across, np.cos(azimuth)),
            np.outer(across, np.sin(azimuth)),
            np.repeat(height[:, None], n_azimuth, axis=1),
        ],
        axis=-1,
    )
    return directions.reshape(-1, 3), np.repeat(weight / n_azimuth, n_azimuth)


def tensor_design(table: GradientTable) -> Array:
    """Design of ln S = ln S0 - B:D, shape (n, 7), any encoding shape; the last column is ln S0.

    Raises
    ------
    InputError
        If the table is not usable, has no volume without weighting, or cannot determine a tensor.
    """
    _check_table(table)
    tensors = table.b_tensors_ms_um2
    columns = [tensors[:, i, j] * count for (i, j), count in zip(SECOND_ORDER, _SECOND_COUNT, strict=True)]
    design = np.stack([-column for column in columns] + [np.ones(len(table))], axis=1)
    rank = _rank(design, table)
    if rank < _TENSOR_UNKNOWNS:
        n = _n_directions(table.directions[~table.is_b0])
        raise InputError(
            "these gradients do not determine a diffusion tensor",
            found=f"{n} distinct directions that determine {rank} of {_TENSOR_UNKNOWNS} unknowns",
            expected=f"at least 6 directions that do not lie in one plane, rank {_TENSOR_UNKNOWNS}",
        )
    return design


def kurtosis_design(table: GradientTable) -> Array:
    """Design of ln S = ln S0 - b D(n) + b^2/6 V(n), shape (n, 22), V = MD^2 W.

    Raises
    ------
    InputError
        If the table is not usable, holds volumes that are not linearly encoded (their signal needs
        the whole covariance tensor), has fewer than two shells or 15 directions on the highest, or
        cannot determine the 22 unknowns.
    """
    _check_table(table)
    _check_kurtosis_table(table)
    b = table.b_ms_um2[:, None]
    design = np.concatenate(
        [-b * second_order(table.directions), b**2 / 6 * fourth_order(table.directions), np.ones_like(b)],
        axis=1,
    )
    rank = _rank(design, table)
    if rank < _KURTOSIS_UNKNOWNS:
        raise InputError(
            "these gradients do not determine a kurtosis tensor",
            found=f"rank {rank} from {len(table)} volumes",
            expected=f"rank {_KURTOSIS_UNKNOWNS}",
            todo="two shells with at least 15 well spread directions on the upper one are needed",
        )
    return design


def _check_table(table: GradientTable) -> None:
    b = table.b_values_s_mm2
    if not len(table):
        raise InputError("the gradient table is empty")
    bad = np.flatnonzero(~np.isfinite(b) | (b < 0) | ~np.isfinite(table.directions).all(axis=1))
    if bad.size:
        raise BValueError(
            "the gradient table holds b-values or directions that are negative or not a number",
            found=f"volume {bad[0] + 1} with b = {b[bad[0]]:g}",
            expected="finite b-values of at least 0 and finite directions",
        )
    check_b_unit(float(b.max()))
    weighted = ~table.is_b0
    if table.is_b0.all():
        raise BUnitError(
            "no volume has diffusion weighting",
            found=f"a largest b-value of {b.max():g} s/mm2",
            expected=f"volumes above {table.b0_limit_s_mm2:g} s/mm2",
        )
    if not table.is_b0.any():
        raise NoReferenceError(
            "no volume without diffusion weighting",
            found=f"a lowest b-value of {b.min():g} s/mm2",
            expected=f"at least one volume at or below {table.b0_limit_s_mm2:g} s/mm2",
            todo="raise the limit of b = 0 (--b0-limit) if the lowest shell is meant to be it",
        )
    needs = weighted & (table.b_delta != 0)
    length = np.linalg.norm(table.directions, axis=1)
    wrong = np.flatnonzero(needs & (np.abs(length - 1) > _UNIT_TOLERANCE))
    if wrong.size:
        raise DirectionNormError(
            "a weighted volume has no unit direction",
            found=f"length {length[wrong[0]]:.4f} at volume {wrong[0] + 1}",
            expected="1",
        )


def _check_kurtosis_table(table: GradientTable) -> None:
    weighted = ~table.is_b0
    other = np.flatnonzero(weighted & (table.b_delta != LINEAR))
    if other.size:
        raise InputError(
            "the kurtosis tensor is defined for linear encoding only",
            found=f"{other.size} volumes of another shape, the first at volume {other[0] + 1}",
            expected="b_delta = 1",
            todo="select the linear volumes, or fit a model of microscopic anisotropy",
        )
    b = np.sort(table.b_values_s_mm2[weighted])
    if b[-1] - b[0] < (1 - 1e-9) * _SHELL_GAP * b[-1]:
        wide = f", from {b[0]:.0f} to {b[-1]:.0f}" if b[-1] - b[0] > 1 else ""
        raise InputError(
            "kurtosis needs two shells",
            found=f"1 at about {np.median(b):.0f} s/mm2{wide}",
            expected=f"at least 2 beside b = 0, {_SHELL_GAP * b[-1]:.0f} s/mm2 or more apart",
        )
    top = table.b_values_s_mm2 >= _TOP_SHELL * b[-1]
    n = _n_directions(table.directions[top])
    if n < _KURTOSIS_DIRECTIONS:
        raise InputError(
            "too few directions on the top shell for a kurtosis tensor",
            found=f"{n} distinct directions at b >= {_TOP_SHELL * b[-1]:.0f} s/mm2",
            expected=f"at least {_KURTOSIS_DIRECTIONS}",
        )


def _n_directions(directions: Array) -> int:
    """Count directions that differ by more than a small angle; opposite ones are one."""
    kept: list[Array] = []
    limit = np.cos(np.radians(_SAME_DIRECTION_DEG))
    for direction in directions:
        if direction.any() and all(abs(float(direction @ other)) < limit for other in kept):
            kept.append(direction)
    return len(kept)


def _rank(design: Array, table: GradientTable) -> int:
    """Count the unknowns that the volumes determine well enough to be worth a fit."""
    b = float(table.b_ms_um2.max())
    scale = np.ones(design.shape[1])
    scale[:6], scale[6:21] = b, b**2 / 6  # all elements of one tensor alike
    scale[-1] = 1.0
    singular = np.linalg.svd(design / scale, compute_uv=False)
    return int(np.count_nonzero(singular > _SINGULAR * singular[0]))
