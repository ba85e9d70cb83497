"""Regions inside located spheres, and a straight view of a plate that lies anyhow in a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError, LocateError
from cordqa.phantom.plate import PlatePose

__all__ = ["air_mask", "disc_mask", "reformat_plate", "sphere_mask", "sphere_masks"]

Array = NDArray[np.float64]

#: Region radius over the sphere's inner radius, where only the former is given.
_REGION_SHARE = 0.6
#: The region keeps this distance from the wall beyond half the diagonal of a voxel: ringing.
_WALL_MARGIN_MM = 0.8
MINIMUM_PIXELS = 5
#: Air begins this far outside the shell.
_AIR_MARGIN_MM = 8.0
_DEFAULT_SHELL_MM = 200.0


def disc_mask(
    shape: Sequence[int],
    centre: Sequence[float],
    spacing_mm: Sequence[float],
    *,
    diameter_mm: float = 9.0,
    inner_diameter_mm: float | None = None,
    minimum_pixels: int = MINIMUM_PIXELS,
) -> NDArray[np.bool_]:
    """Mark the pixels of a disc in a slice, far enough from the wall to hold nothing but liquid.

    Parameters
    ----------
    shape : (n_rows, n_columns)
    centre : (row, column)
        In pixels, fractions allowed.
    spacing_mm : (row, column)
    diameter_mm : float
        Of the disc (default 60 % of a sphere of 15 mm).
    inner_diameter_mm : float, optional
        Of the liquid.  The disc shrinks where the pixels are so coarse that one with its centre
        inside it could reach within 0.8 mm of the wall.  Default: the diameter over 0.6.
    minimum_pixels : int
        Fewest pixels that make a region.

    Raises
    ------
    LocateError
        If the region holds too few pixels.
    InputError
        If the shapes do not agree.
    """
    return _ball(shape, centre, spacing_mm, diameter_mm, inner_diameter_mm, minimum_pixels)


def sphere_mask(
    shape: Sequence[int],
    centre: Sequence[float],
    spacing_mm: Sequence[float],
    *,
    diameter_mm: float = 9.0,
    inner_diameter_mm: float | None = None,
    minimum_pixels: int = MINIMUM_PIXELS,
) -> NDArray[np.bool_]:
    """Mark the voxels of a ball in a volume; parameters as for :func:`disc_mask`, with three axes."""
    return _ball(shape, centre, spacing_mm, diameter_mm, inner_diameter_mm, minimum_pixels)


def sphere_masks(
    shape: Sequence[int],
    pose: PlatePose,
    spacing_mm: Sequence[float],
    *,
    radius_mm: float = 4.5,
    inner_radius_mm: float | None = None,
    minimum_pixels: int = MINIMUM_PIXELS,
) -> list[NDArray[np.bool_]]:
    """Mark the region of every sphere of a plate: discs in its slice, or balls in a volume.

    Parameters
    ----------
    shape : (n_slices, n_rows, n_columns)
    pose : PlatePose
        One labelling of a located plate; the masks come in its order.
    spacing_mm : (slice, row, column)
    radius_mm, inner_radius_mm, minimum_pixels
        As in :func:`disc_mask`, but radii.

    Raises
    ------
    LocateError
        If the voxels are too coarse for the spheres, or a sphere leaves the image.
    """
    if len(shape) != 3 or len(spacing_mm) != 3:
        raise InputError("three axes are needed", found=f"shape {tuple(shape)}, spacing {spacing_mm}")
    inner = None if inner_radius_mm is None else 2 * inner_radius_mm
    masks = []
    for voxel in pose.voxels:
        if pose.is_spatial:
            masks.append(_ball(shape, voxel, spacing_mm, 2 * radius_mm, inner, minimum_pixels))
            continue
        disc = _ball(shape[1:], voxel[1:], spacing_mm[1:], 2 * radius_mm, inner, minimum_pixels)
        mask = np.zeros(tuple(shape), dtype=bool)
        mask[round(voxel[0])] = disc
        masks.append(mask)
    return masks


def _ball(
    shape: Sequence[int],
    centre: Sequence[float] | Array,
    spacing_mm: Sequence[float],
    diameter_mm: float,
    inner_diameter_mm: float | None,
    minimum_pixels: int,
) -> NDArray[np.bool_]:
    spacing, middle = np.array(spacing_mm, dtype=float), np.array(centre, dtype=float)
    if not len(shape) == len(spacing) == len(middle):
        raise InputError("shape, centre and spacing must have the same number of axes")
    if not (np.isfinite(middle).all() and bool((spacing > 0).all())):
        raise InputError("a centre or a spacing is not usable", found=f"centre {middle}, spacing {spacing}")
    radius = _safe_radius(spacing, diameter_mm, inner_diameter_mm)
    low = np.clip(np.floor(middle - radius / spacing), 0, shape).astype(int)
    high = np.clip(np.ceil(middle + radius / spacing) + 1, 0, shape).astype(int)
    steps = [(np.arange(a, b) - c) * s for a, b, c, s in zip(low, high, middle, spacing, strict=True)]
    squared = sum(np.square(grid) for grid in np.ix_(*steps))
    mask = np.zeros(tuple(shape), dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = squared <= radius**2
    count = int(np.count_nonzero(mask))
    if count < minimum_pixels:
        raise LocateError(
            "a sphere holds too few pixels for a measurement",
            found=f"{count} pixels of {' x '.join(f'{s:.2g}' for s in spacing)} mm",
            expected=f"at least {minimum_pixels}",
            todo="scan with smaller pixels, and with the whole plate in the image",
        )
    return mask


def _safe_radius(spacing: Array, diameter_mm: float, inner_diameter_mm: float | None) -> float:
    inner = diameter_mm / _REGION_SHARE if inner_diameter_mm is None else inner_diameter_mm
    half_diagonal = math.sqrt(float((spacing**2).sum())) / 2
    return max(0.0, min(diameter_mm / 2, inner / 2 - half_diagonal - _WALL_MARGIN_MM))


def reformat_plate(
    volume: ArrayLike,
    pose: PlatePose,
    positions_mm: Array,
    *,
    step_mm: float = 1.0,
    margin_mm: float = 25.0,
) -> tuple[Array, Array]:
    """Sample the plane of a plate as it is drawn: first axis to the right, second axis up.

    Parameters
    ----------
    volume : array_like, shape (n_slices, n_rows, n_columns)
        One image; a plate that was located in one slice stays in it.
    pose : PlatePose
    positions_mm : ndarray, shape (n_spheres, 2)
        Of the layout.
    step_mm : float
        Pixel size of the view.
    margin_mm : float
        Border around the sphere centres.

    Returns
    -------
    view : ndarray, shape (n, m)
        NaN outside the volume.
    centres : ndarray, shape (n_spheres, 2)
        Row and column of the spheres in the view.
    """
    from scipy import ndimage

    design = np.column_stack([positions_mm, np.ones(len(positions_mm))])
    to_voxel, *_ = np.linalg.lstsq(design, pose.voxels, rcond=None)
    low, high = positions_mm.min(axis=0) - margin_mm, positions_mm.max(axis=0) + margin_mm
    across = np.arange(low[0], high[0] + step_mm / 2, step_mm)
    up = np.arange(high[1], low[1] - step_mm / 2, -step_mm)
    plane = np.stack([*np.meshgrid(across, up), np.ones((len(up), len(across)))], axis=-1)
    image = np.asarray(volume, dtype=float)
    if image.shape[0] == 1 or not pose.is_spatial:
        # Interpolation across a single slice would mix in the outside.
        index = min(max(pose.slice_index, 0), image.shape[0] - 1)
        place = np.moveaxis(plane @ to_voxel[:, 1:], -1, 0)
        view = ndimage.map_coordinates(image[index], place, order=1, cval=np.nan)
    else:
        view = ndimage.map_coordinates(image, np.moveaxis(plane @ to_voxel, -1, 0), order=1, cval=np.nan)
    centres = (pose.voxels - to_voxel[2]) @ np.linalg.pinv(to_voxel[:2])
    pixels = np.column_stack([(high[1] - centres[:, 1]) / step_mm, (centres[:, 0] - low[0]) / step_mm])
    return np.asarray(view), pixels


def air_mask(
    shape: Sequence[int],
    pose: PlatePose,
    spacing_mm: Sequence[float],
    *,
    shell_diameter_mm: float | None = None,
) -> NDArray[np.bool_]:
    """Mark voxels surely in air: farther from the plate than any part of the phantom can be.

    Parameters
    ----------
    shape : (n_slices, n_rows, n_columns)
    pose : PlatePose
    spacing_mm : (slice, row, column)
    shell_diameter_mm : float, optional
        Of the phantom's body; 200 mm by default.
    """
    shell = (shell_diameter_mm or _DEFAULT_SHELL_MM) / 2 + _AIR_MARGIN_MM
    # In the slice of the plate itself the phantom is no wider than its shell; away from it a
    # plate off the middle leaves up to one more radius on the far side.
    reach = shell if shape[0] == 1 else 2 * shell
    centre = pose.voxels.mean(axis=0)
    steps = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing_mm, strict=True)]
    if shape[0] == 1:
        steps[0] = np.zeros(1)
    squared = steps[0][:, None, None] ** 2 + steps[1][None, :, None] ** 2 + steps[2][None, None, :] ** 2
    return np.asarray(squared > reach**2)
