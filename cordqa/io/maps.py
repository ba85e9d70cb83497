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
#: ... and outside this one, if numbers about 100 are not said to be percent: angles are such numbers, too.
_LOWEST_PERCENT, _HIGHEST_PERCENT = 60.0, 150.0
#: Words of ``Units`` in sidecars (lower case, without blanks and stops).
_AS_RATIO = frozenset(
    {"ratio", "fraction", "relative", "1", "unitless", "dimensionless", "none", "normalized"}
)
_AS_PERCENT = frozenset({"%", "percent", "pct", "pu", "percentage", "percentofnominal"})
_AS_ANGLE = frozenset({"deg", "degree", "degrees", "\N{DEGREE SIGN}", "rad", "radian", "radians"})
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
    #: What was assumed of its unit, as a sentence; empty where nothing was.
    assumed: str = ""

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


def read_b1_map(path: Path, *, units: str = "") -> ScalarMap:
    """Read a NIfTI map of the actual over the nominal flip angle, as a ratio or in per cent.

    Parameters
    ----------
    path : Path
    units : str
        ``Units`` of its sidecar.  Where they say neither ratio nor percent, numbers about 1 are a ratio, and
        numbers about 100 are percent, which :attr:`ScalarMap.assumed` says: a map of angles looks the same.

    Raises
    ------
    InputError
        If it is not three-dimensional, is a map of angles, or its values are no relative transmit field.
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
    ratio, assumed = _as_ratio(values, name, units)
    return ScalarMap(ratio, affine, name, assumed)


def _as_ratio(values: NDArray[np.float64], name: str, units: str) -> tuple[NDArray[np.float64], str]:
    """Return the ratio, and what was assumed of the unit."""
    word = units.casefold().replace(" ", "").replace(".", "").replace("_", "")
    if word in _AS_ANGLE:
        raise InputError(
            "holds flip angles, not their ratio to the nominal angle",
            where=name,
            found=f"Units {units.strip()}",
            todo="divide it by the nominal flip angle of its own scan",
        )
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    if not np.isfinite(values).any():
        raise InputError("the B1 map holds no positive value", where=name)
    typical, scale = float(np.nanmedian(values)), 1.0
    assumed = ""
    if word in _AS_PERCENT:
        scale = _PERCENT
    elif word not in _AS_RATIO and _LOWEST_PERCENT <= typical <= _HIGHEST_PERCENT:
        scale = _PERCENT
        assumed = (
            f"the B1 map is read as percent (median {typical:.3g}); if these are degrees, divide by the "
            'nominal angle; "Units": "percent" in its sidecar settles it'
        )
    if not _LOWEST_B1 <= typical / scale <= _HIGHEST_B1:
        raise InputError(
            "these values are no relative transmit field",
            where=name,
            found=f"a median of {typical:.3g}" + (f", Units {units.strip()}" if word else ""),
            expected="actual over nominal flip angle, about 1 or about 100 %",
            todo="divide a map of flip angles by the nominal angle, in the same unit",
        )
    return values / scale, assumed
