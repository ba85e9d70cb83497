"""Diffusion series and gradient directions between the axes of an array and (right, anterior, superior)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented
from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["directions_to_layout", "lay_out_series", "rotate_gradients", "turn_gradients"]

Array = NDArray[np.float64]


def lay_out_series(data: NDArray[Any], laid: Oriented) -> NDArray[np.float32]:
    """Lay an array, with volumes last or without, out as (right, anterior, superior).

    Parameters
    ----------
    data : ndarray, shape (n_i, n_j, n_k) or (n_i, n_j, n_k, n_volumes)
    laid : Oriented
        A volume on the same grid, laid out by :func:`cordqa.cord.axes.orient`.

    Returns
    -------
    ndarray of float32
        A copy; what is not finite is NaN.
    """
    extra = range(3, np.ndim(data))
    out = np.transpose(np.asarray(data), (*laid.order, *extra))
    for axis, flip in enumerate(laid.flipped):
        if flip:
            out = np.flip(out, axis=axis)
    series = np.array(out, dtype=np.float32)
    series[~np.isfinite(series)] = np.nan
    return series


def directions_to_layout(laid: Oriented) -> Array:
    """Return the matrix from directions in array axes to (right, anterior, superior), shape (3, 3)."""
    matrix = np.zeros((3, 3))
    for row, (axis, flip) in enumerate(zip(laid.order, laid.flipped, strict=True)):
        matrix[row, axis] = -1.0 if flip else 1.0
    return matrix


def rotate_gradients(gradients: GradientTable, matrix: Array) -> GradientTable:
    """Multiply every direction by an orthogonal matrix, shape (3, 3)."""
    return replace(gradients, directions=gradients.directions @ matrix.T)


def turn_gradients(gradients: GradientTable, turn_deg: Array) -> GradientTable:
    """Turn the direction of every volume back by the rotation of the body in the plane of the first two axes.

    Parameters
    ----------
    gradients : GradientTable
        Directions in (right, anterior, superior).
    turn_deg : ndarray, shape (n_volumes,)
        Rotation of the content from the first axis towards the second one.
    """
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    first, second = gradients.directions[:, 0], gradients.directions[:, 1]
    directions = np.column_stack([c * first + s * second, c * second - s * first, gradients.directions[:, 2]])
    return replace(gradients, directions=directions)
