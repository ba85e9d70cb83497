"""Background as the solution of Laplace's equation with its values on the rim of the mask.

The background has no sources inside, so its Laplacian is zero there; on the rim it is taken to be
the total field (Zhou et al. 2014, doi:10.1002/nbm.3064).  The rim itself therefore has no local
field and is not valid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.background_record import Background, check_field, make_background
from cordqa.models.susceptibility.background_sources import fill_holes

__all__ = ["remove_by_boundary"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MAX_ITERATIONS = 2000


def remove_by_boundary(
    total_field: Array,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    tolerance: float = 1e-5,
) -> Background:
    """Remove the background by its values on the boundary.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        ppm.
    mask : ndarray of bool
        Holes are bridged: the background runs through them.
    voxel_size_mm : sequence of float
    tolerance : float
        Relative residual at which conjugate gradients stop.

    Raises
    ------
    InputError
        If the mask has no voxel whose six neighbours all lie in it.
    """
    field, used = check_field(total_field, mask)
    filled = fill_holes(used)
    inner = _interior(filled)
    if not inner.any():
        raise InputError(
            "the mask is too thin for a boundary-value method",
            expected="voxels whose six neighbours lie in the mask",
            todo="use the alternating or the pdf method",
        )
    background = _solve(field, filled, inner, np.asarray(voxel_size_mm, dtype=float), tolerance)
    method = (
        "Background was removed by solving Laplace's equation with the total field on the rim of the mask."
    )
    return make_background(total_field, field - background, inner & used, mask, method)


def _interior(mask: Mask) -> Mask:
    from scipy.ndimage import binary_erosion

    inner: Mask = binary_erosion(mask)
    return inner


def _solve(field: Array, filled: Mask, inner: Mask, voxel: Array, tolerance: float) -> Array:
    """Conjugate gradients on the seven-point Laplacian of the inner voxels."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import cg

    number = np.full(filled.shape, -1, dtype=np.int64)
    count = int(np.count_nonzero(inner))
    number[inner] = np.arange(count)
    right, diagonal = np.zeros(count), np.zeros(count)
    rows, columns, values = [], [], []
    for axis in range(3):
        strength = 1 / voxel[axis] ** 2
        for shift in (-1, 1):
            other = np.roll(number, shift, axis)[inner]
            known = np.roll(field, shift, axis)[inner]
            diagonal += strength
            inside = other >= 0
            right[~inside] += strength * known[~inside]
            rows.append(np.flatnonzero(inside))
            columns.append(other[inside])
            values.append(np.full(int(inside.sum()), -strength))
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(diagonal)
    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsr()
    solution, _ = cg(matrix, right, x0=field[inner], rtol=tolerance, maxiter=_MAX_ITERATIONS)
    background = field.copy()
    background[inner] = solution
    return background
