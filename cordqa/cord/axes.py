"""Anatomical axes of a volume: which array axis runs right, anterior and superior.

Everything in this room works on arrays laid out as (right, anterior, superior), the way the
affine says they lie, whatever the order in the file.  Slices are counted from inferior to
superior; :meth:`Oriented.array_index` tells where a slice sits in the array that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Volume

__all__ = ["Oriented", "Pieces", "check_same_grid", "orient", "orient_mask", "slice_label"]

#: A piece of a slice that is smaller than this share of the slice is called a speck.
SPECK_SHARE = 0.05

Pieces = str  # "raise", "largest" or "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Oriented:
    """A volume laid out as (right, anterior, superior).

    Attributes
    ----------
    data : ndarray, shape (n_right, n_anterior, n_superior)
        Values; a view of the array that was given.
    affine : ndarray, shape (4, 4)
        Maps (right, anterior, superior, 1) indices to RAS+ millimetres.
    order : tuple of int
        Array axis of the volume that runs right, anterior and superior.
    flipped : tuple of bool
        Whether that axis ran the other way.
    source : str
        Where the volume came from.
    notes : tuple of str
        What was changed or is unusual.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres towards right, anterior and superior."""
        steps = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(steps[0]), float(steps[1]), float(steps[2])

    @property
    def n_slices(self) -> int:
        """Count the slices."""
        return int(self.data.shape[2])

    def array_index(self, slice_number: int) -> int:
        """Index along the superior-inferior axis of the array that was given."""
        return self.n_slices - 1 - slice_number if self.flipped[2] else slice_number

    def restore(self, data: NDArray[Any]) -> NDArray[Any]:
        """Lay an array (right, anterior, superior, ...) out as the volume was."""
        for axis, flip in enumerate(self.flipped):
            if flip:
                data = np.flip(data, axis=axis)
        inverse = [self.order.index(axis) for axis in range(3)]
        return np.transpose(data, [*inverse, *range(3, data.ndim)])


def slice_label(slice_number: int, level: str = "") -> str:
    """Name a slice by its number from below (the first is 0), after its vertebral level where known."""
    return f"{level}, slice {slice_number}" if level else f"slice {slice_number}"


def orient(volume: Volume, *, what: str = "image") -> Oriented:
    """Lay a volume out as (right, anterior, superior).

    Each array axis is given to the anatomical axis that it is closest to, one to one.

    Raises
    ------
    InputError
        If it is not three-dimensional, has no voxels, or its affine cannot be used.
    """
    data = np.asarray(volume.data)
    where = volume.source or what
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise InputError(
            f"the {what} must have three dimensions",
            where=where,
            found=f"shape {data.shape}",
            todo="give one volume of it",
        )
    if data.size == 0:
        raise EmptyInputError(f"the {what} has no voxels", where=where, found=f"shape {data.shape}")
    affine = np.asarray(volume.affine, dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"the affine of the {what} cannot be used", where=where)
    cosines = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    order = max(permutations(range(3)), key=lambda p: float(sum(abs(cosines[r, p[r]]) for r in range(3))))
    return _laid_out(data, affine, cosines, order, volume.source)


def _laid_out(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    cosines: NDArray[np.float64],
    order: tuple[int, ...],
    source: str,
) -> Oriented:
    """Transpose and flip, and change the affine accordingly."""
    data = np.transpose(data, order)
    flipped = tuple(bool(cosines[row, axis] < 0) for row, axis in enumerate(order))
    new = affine.copy()
    new[:3, :3] = affine[:3, list(order)]
    for axis, flip in enumerate(flipped):
        if flip:
            data = np.flip(data, axis=axis)
            new[:3, 3] += new[:3, axis] * (data.shape[axis] - 1)
            new[:3, axis] *= -1
    return Oriented(
        data=data,
        affine=new,
        order=(order[0], order[1], order[2]),
        flipped=(flipped[0], flipped[1], flipped[2]),
        source=source,
    )


def check_same_grid(first: Volume, second: Volume, *, what: str, tolerance_mm: float = 0.1) -> None:
    """Check that two volumes share their voxels.

    Raises
    ------
    InputError
        If shapes differ, or any corner lies more than ``tolerance_mm`` away.
    """
    shapes = first.data.shape[:3], second.data.shape[:3]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{what} are not on one grid",
            found=f"{shapes[1]}",
            expected=f"{shapes[0]}",
            where=second.source,
            todo="resample one to the other",
        )
    corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float) * (np.array(shapes[0]) - 1)
    corners = np.column_stack([corners, np.ones(8)])
    apart = corners @ (np.asarray(first.affine) - np.asarray(second.affine)).T
    worst = float(np.sqrt((apart[:, :3] ** 2).sum(axis=1)).max())
    if not worst <= tolerance_mm:
        raise InputError(
            f"{what} lie at different places",
            found=f"corners {worst:.2f} mm apart",
            expected=f"at most {tolerance_mm} mm",
            where=second.source,
            todo="resample one to the other",
        )


def orient_mask(mask: Volume, *, pieces: Pieces = "raise", what: str = "cord mask") -> Oriented:
    """Lay a mask out as (right, anterior, superior), and check that it can be one cord.

    Parameters
    ----------
    mask : Volume
        Binary, or soft with values from 0 to 1.
    pieces : {'raise', 'largest', 'keep'}
        What to do where one slice holds more than one piece: refuse the mask, keep the largest
        piece of each slice, or keep all.  A speck (under 5 % of its slice) is noted, never an error.

    Raises
    ------
    EmptyInputError
        If no voxel is inside.
    InputError
        If values are not finite or not within 0 to 1, or a slice holds several pieces.
    """
    if pieces not in ("raise", "largest", "keep"):
        raise InputError("unknown way to treat pieces", found=pieces, expected="raise, largest or keep")
    oriented = orient(mask, what=what)
    data = oriented.data.astype(float)
    where = mask.source or what
    if not np.isfinite(data).all():
        raise InputError(f"the {what} holds values that are not finite", where=where)
    if data.min() < 0 or data.max() > 1:
        raise InputError(
            f"the {what} must hold 0 and 1, or fractions between",
            where=where,
            found=f"{data.min():g} to {data.max():g}",
            todo="divide it by its largest value, or choose one label of it",
        )
    if not (data > 0).any():
        raise EmptyInputError(f"the {what} is empty", where=where, todo="check the segmentation")
    data, notes = _without_pieces(data, pieces, what, where)
    return Oriented(
        data=data,
        affine=oriented.affine,
        order=oriented.order,
        flipped=oriented.flipped,
        source=oriented.source,
        notes=notes,
    )


def _without_pieces(
    data: NDArray[np.float64], pieces: Pieces, what: str, where: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Refuse, drop or note the pieces of a slice beyond its largest."""
    from scipy import ndimage

    several: list[int] = []
    specks: list[int] = []
    for number in np.flatnonzero((data > 0).any(axis=(0, 1))):
        plane = data[:, :, number]
        labels, count = ndimage.label(plane > 0, structure=np.ones((3, 3)))
        if count < 2:
            continue
        sizes = ndimage.sum_labels(plane, labels, np.arange(1, count + 1))
        second = np.sort(sizes)[-2] / sizes.sum()
        (several if second > SPECK_SHARE else specks).append(int(number))
        if pieces == "largest":
            data[:, :, number] = np.where(labels == np.argmax(sizes) + 1, plane, 0.0)
    if several and pieces == "raise":
        raise InputError(
            f"the {what} has more than one piece in a slice",
            where=where,
            found=f"{len(several)} such slices, the first is slice {several[0]} from below",
            expected="one piece per slice",
            todo="correct the mask, or ask for the largest piece",
        )
    notes = []
    kept = "dropped" if pieces == "largest" else "kept"
    if several:
        notes.append(f"{len(several)} slices hold several pieces ({kept})")
    if specks:
        notes.append(f"{len(specks)} slices hold specks apart from the cord ({kept})")
    return data, tuple(notes)
