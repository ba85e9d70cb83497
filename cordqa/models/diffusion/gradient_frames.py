"""Gradient directions between the axes of a file format and those of the image array.

FSL writes directions along the axes of the image array, with the first component negated where the
determinant of the affine is positive; MRtrix writes them along the axes of the scanner (RAS+).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["Frame", "directions_from_array_axes", "directions_to_array_axes", "rotation_of_affine"]

Array = NDArray[np.float64]
#: ``fsl``: FSL's bvec; ``world``: MRtrix, scanner axes; ``array``: axes of the array, as they are.
Frame = Literal["fsl", "world", "array"]
#: Axes of an acquired image are perpendicular; a sheared affine has no rotation to speak of.
_MAX_SHEAR = 0.02


def rotation_of_affine(affine: ArrayLike) -> Array:
    """Orthogonal matrix that turns array axes into scanner axes, without the voxel size.

    Parameters
    ----------
    affine : array_like, shape (3, 3) or (4, 4)

    Returns
    -------
    ndarray, shape (3, 3)
        May hold a reflection.

    Raises
    ------
    InputError
        If the affine is singular, not finite or sheared.
    """
    matrix = np.asarray(affine, dtype=float)[:3, :3]
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError("the affine is not a 4 x 4 matrix of numbers", found=f"shape {np.shape(affine)}")
    size = np.linalg.norm(matrix, axis=0)
    if size.min() <= 0:
        raise InputError("the affine is singular: a voxel has no size")
    u, s, vt = np.linalg.svd(matrix / size)
    if s.min() < 1 - _MAX_SHEAR:
        raise InputError(
            "the axes of the image are not perpendicular, so directions cannot be turned between frames",
            found=f"cosine {1 - float(s.min()):.3f}",
            todo="give the images as acquired, not registered with shear",
        )
    rotation: Array = u @ vt
    return rotation


def directions_to_array_axes(vectors: ArrayLike, frame: Frame, affine: ArrayLike | None) -> Array:
    """Turn directions of a file into the axes of the image array.

    Parameters
    ----------
    vectors : array_like, shape (n, 3)
    frame : {'fsl', 'world', 'array'}
    affine : array_like, shape (4, 4), or None
        Of the image.  Without it FSL directions are taken as those of an image with a negative
        determinant, and scanner axes as array axes: correct up to a flip or a rotation.

    Returns
    -------
    ndarray, shape (n, 3)
        Of the same lengths.
    """
    return np.asarray(vectors, dtype=float) @ _to_array(frame, affine).T


def directions_from_array_axes(vectors: ArrayLike, frame: Frame, affine: ArrayLike | None) -> Array:
    """Turn directions along array axes into those of a file format; see the inverse function."""
    return np.asarray(vectors, dtype=float) @ _to_array(frame, affine)


def _to_array(frame: Frame, affine: ArrayLike | None) -> Array:
    if frame == "array" or affine is None:
        return np.eye(3)
    rotation = rotation_of_affine(affine)
    if frame == "world":
        return rotation.T
    return np.diag([-1.0 if np.linalg.det(rotation) > 0 else 1.0, 1.0, 1.0])
