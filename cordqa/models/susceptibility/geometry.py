"""Where the main field points in a NIfTI image, and how large its voxels are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["b0_from_affine", "voxel_size_mm"]

Array = NDArray[np.float64]
#: Cosine between array axes above which a grid is sheared.
_SHEARED = 0.01


def voxel_size_mm(affine: Array) -> Array:
    """Distance between voxel centres along each array axis."""
    size: Array = np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0))
    return size


def b0_from_affine(affine: Array) -> Array:
    """Return the unit vector of the main field in array axes.

    The z axis of NIfTI runs along the body, and in a horizontal bore the main field does, too.
    For oblique slices the vector is oblique; the image is never resampled.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        Maps array indices to RAS+ millimetres.

    Raises
    ------
    InputError
        If the array axes are not at right angles: then directions and distances have no meaning here.
    """
    axes = np.asarray(affine, dtype=float)[:3, :3] / voxel_size_mm(affine)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if not np.isfinite(axes).all() or cosines.max() > _SHEARED:
        raise InputError(
            "the axes of the image are not at right angles",
            found=f"a cosine of {cosines.max():.3g} between two of them",
            todo="give the images as they were acquired, without shear",
        )
    direction: Array = axes[2] / np.linalg.norm(axes[2])
    return direction
