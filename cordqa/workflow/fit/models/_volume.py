"""Between lists of voxels and volumes, and from stored phase to radians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["phase_in_radians", "to_list", "to_volume"]

Array = NDArray[np.float64]
#: Stored values may pass the ends of the range by this share of it: rounding.
_BEYOND = 0.002
#: More values beyond the range than this share are another scale; fewer are broken voxels.
_MANY = 0.2


def to_volume(values: NDArray[Any], mask: NDArray[np.bool_]) -> Array:
    """Put a list of the voxels of a mask, shape (m, ...), into the volume; NaN outside."""
    volume = np.full((*mask.shape, *values.shape[1:]), np.nan)
    volume[mask] = values
    return volume


def to_list(volume: NDArray[Any], mask: NDArray[np.bool_]) -> Array:
    """Take the voxels of the mask out of a volume."""
    return np.asarray(volume[mask], dtype=float)


def phase_in_radians(stored: NDArray[Any], limits: Any) -> Array:
    """Phase in radians from stored values, whose range is known or radians; NaN beyond it.

    Parameters
    ----------
    stored : ndarray
    limits : tuple of float or None
        Stored values of -pi and pi.

    Raises
    ------
    InputError
        If many values lie outside the range.
    """
    low, high = (-math.pi, math.pi) if limits is None else (float(limits[0]), float(limits[1]))
    if not high > low:
        raise InputError("the phase range must go up", where="--phase-range", found=f"{low:g}, {high:g}")
    known = stored[np.isfinite(stored)]
    slack = _BEYOND * (high - low)
    with np.errstate(invalid="ignore"):
        beyond = (stored < low - slack) | (stored > high + slack)
    if beyond.sum() > _MANY * known.size:
        raise InputError(
            "the phase lies outside its range" if limits is not None else "the phase is not in radians",
            found=f"{known.min():g} to {known.max():g}",
            expected=f"{low:g} to {high:g}",
            todo="give --phase-range with the stored values of -pi and pi, for example -4096,4096",
        )
    radians: Array = (np.asarray(stored, dtype=float) - low) * (2 * math.pi / (high - low)) - math.pi
    return np.where(beyond, np.nan, radians)
