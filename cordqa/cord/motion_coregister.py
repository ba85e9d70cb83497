"""Bring one contrast onto another: rigid in the plane, slice by slice, smooth along the cord.

The images of one protocol lie on one grid or close to it; what is left is that the person moved a
little between them.  The shift is measured by :mod:`cordqa.cord.motion_slices` and applied only where
it is larger than its own uncertainty: resampling costs sharpness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import orient
from cordqa.cord.centreline import Centreline
from cordqa.cord.motion_slices import SliceShifts, move_slices, register_slices
from cordqa.records import Volume

__all__ = ["Alignment", "align_slices", "on_grid"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A moving image on the grid of the fixed one, and what was done to it.

    Attributes
    ----------
    volume : Volume
    shift_mm : ndarray, shape (n_slices, 2)
        Towards right and anterior, of the content of the moving image; zero where nothing was done.
    found_mm : tuple of float
        Median shift that was found, whether applied or not.
    applied, resampled : bool
        Whether a shift was applied; whether the image came on another grid.
    note : str
        One sentence.
    """

    volume: Volume
    shift_mm: Array
    found_mm: tuple[float, float]
    applied: bool
    resampled: bool
    note: str


def on_grid(moving: Volume, fixed: Volume) -> tuple[Volume, bool]:
    """Resample an image to the grid of another one by linear interpolation, where the grids differ."""
    from scipy.ndimage import map_coordinates

    same = moving.data.shape == fixed.data.shape and np.allclose(moving.affine, fixed.affine, atol=1e-2)
    if same:
        return moving, False
    theirs, ours = orient(moving), orient(fixed)
    if theirs.data.shape == ours.data.shape and np.allclose(theirs.affine, ours.affine, atol=1e-2):
        return Volume(data=ours.restore(theirs.data), affine=fixed.affine, source=moving.source), False
    step = np.linalg.inv(moving.affine) @ fixed.affine
    index = np.indices(fixed.data.shape[:3]).reshape(3, -1)
    place = step[:3, :3] @ index + step[:3, 3:]
    data = map_coordinates(
        np.asarray(moving.data, dtype=np.float32), place, order=1, mode="constant", cval=np.nan
    )
    return Volume(data=data.reshape(fixed.data.shape[:3]), affine=fixed.affine, source=moving.source), True


def align_slices(moving: Volume, fixed: Volume, mask: Volume, line: Centreline) -> Alignment:
    """Shift the slices of an image so that its cord lies on that of another one.

    Parameters
    ----------
    moving : Volume
        On any grid.
    fixed : Volume
        The image that stays.
    mask : Volume
        Cord in ``fixed``, on its grid; the comparison looks at the cord and a margin around it.
    line : Centreline
        Of that mask.
    """
    volume, resampled = on_grid(moving, fixed)
    target, source = orient(fixed), orient(volume)
    found = register_slices(
        source.data, target.data, orient(mask).data, spacing_mm=target.spacing_mm, slices=line.slices
    )
    spacing = np.array(target.spacing_mm[:2])
    found_mm = (float(found.found_voxels[0] * spacing[0]), float(found.found_voxels[1] * spacing[1]))
    shift = found.shift_voxels if found.measurable else np.zeros((target.n_slices, 2))
    if found.measurable:
        data = target.restore(move_slices(source.data, shift))
        volume = Volume(data=data, affine=fixed.affine, source=moving.source)
    return Alignment(
        volume=volume,
        shift_mm=shift * spacing,
        found_mm=found_mm,
        applied=found.measurable,
        resampled=resampled,
        note=_words(found, found_mm),
    )


def _words(found: SliceShifts, found_mm: tuple[float, float]) -> str:
    if not found.known:
        return "the contrasts share too little structure around the cord to measure a shift"
    size = math.hypot(*found_mm)
    if found.measurable:
        where = f"right {found_mm[0]:+.2f}, anterior {found_mm[1]:+.2f}; median of slices"
        return f"shifted by {size:.2f} mm ({where})"
    return f"no measurable shift ({size:.2f} mm); used as it is"
