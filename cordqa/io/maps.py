"""Scalar maps that the user brings along, such as a transmit field map, on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError, TooLargeError, UnreadableFileError
from cordqa.io.limits import DEFAULT_LIMITS

__all__ = ["ScalarMap", "read_b1_map"]

#: A relative transmit field outside this range on average is another quantity or another unit.
_LOWEST_B1, _HIGHEST_B1 = 0.3, 2.0
#: Volume of a voxel (mm3) below which an affine is degenerate.
_FLAT = 1e-9
_PERCENT = 100.0
#: A sample needs at least this share of its interpolation weight from voxels that hold a value.
_KNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ScalarMap:
    """A map with its place in space.

    ``values`` has shape (i, j, k), NaN where the map says nothing, and ``affine`` takes
    (i, j, k, 1) to RAS+ millimetres.
    """

    values: NDArray[np.float64]
    affine: NDArray[np.float64]
    name: str

    def on_grid(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """Sample the map at the voxels of another grid by linear interpolation.

        NaN outside the map, and where more of the neighbours are holes than not.
        """
        from scipy import ndimage

        to_map = np.linalg.inv(self.affine) @ affine
        index = np.indices(tuple(shape), dtype=float).reshape(3, -1)
        place = to_map[:3, :3] @ index + to_map[:3, 3:]
        # A single slice still covers half a voxel to either side of its middle.
        limit = np.array(self.values.shape)[:, None] - 0.5
        inside = ((place >= -0.5) & (place <= limit)).all(axis=0)
        known = np.isfinite(self.values)
        share = ndimage.map_coordinates(known.astype(float), place, order=1, mode="nearest")
        # Interpolating the known voxels alone keeps holes from spreading into good neighbours.
        total = ndimage.map_coordinates(np.where(known, self.values, 0.0), place, order=1, mode="nearest")
        usable = inside & (share >= _KNOWN_SHARE)
        sampled = np.divide(total, share, out=np.full(share.shape, np.nan), where=usable)
        return np.asarray(sampled).reshape(tuple(shape))


def read_b1_map(path: Path) -> ScalarMap:
    """Read a NIfTI map of the actual over the nominal flip angle, as a ratio or in per cent.

    Raises
    ------
    InputError
        If it is not three-dimensional, or its values are no relative transmit field.
    UnreadableFileError
        If it cannot be read.
    TooLargeError
        If it claims more voxels than a file may hold.
    """
    import nibabel as nib

    name = path.name
    try:
        # nibabel's own types do not tell which image classes have an affine.
        image: Any = nib.load(path)
        shape = tuple(int(n) for n in image.shape)
        if int(np.prod(shape, dtype=np.int64)) > DEFAULT_LIMITS.max_pixels_per_file:
            raise TooLargeError("claims too many voxels", where=name, found=" x ".join(map(str, shape)))
        values: NDArray[np.float64] = np.asarray(image.get_fdata(dtype=np.float64))
        affine = np.asarray(image.affine, dtype=float)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableFileError(
            "cannot be read as NIfTI", where=name, todo="give a .nii or .nii.gz file"
        ) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(
            "a B1 map has three axes", where=name, found=" x ".join(map(str, shape)), expected="3"
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _FLAT:
        raise UnreadableFileError(
            "has no usable orientation in its header", where=name, todo="convert the map again"
        )
    return ScalarMap(_as_ratio(values, name), affine, name)


def _as_ratio(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    if not np.isfinite(values).any():
        raise InputError("the B1 map holds no positive value", where=name)
    typical = float(np.nanmedian(values))
    ratio = values / _PERCENT if _LOWEST_B1 * _PERCENT <= typical <= _HIGHEST_B1 * _PERCENT else values
    typical = float(np.nanmedian(ratio))
    if not _LOWEST_B1 <= typical <= _HIGHEST_B1:
        raise InputError(
            "these values are no relative transmit field",
            where=name,
            found=f"a median of {typical:.3g}",
            expected="actual over nominal flip angle, about 1 or about 100 %",
        )
    return ratio
