"""What every background removal returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["Background", "check_field", "kept", "make_background"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Below this part of the mask a method says that it lost much of it.
_EXPECTED_PART = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """Local and background field; arrays have the shape of the mask, NaN outside ``valid``.

    Attributes
    ----------
    local_ppm, background_ppm : ndarray
        They add up to the total field.
    valid : ndarray of bool
    kept_fraction : float
        Voxels of ``valid`` over those of the mask.
    method : str
        Sentence for the methods text.
    notices : tuple of str
    """

    local_ppm: Array
    background_ppm: Array
    valid: Mask
    kept_fraction: float
    method: str
    notices: tuple[str, ...] = field(default=())


def kept(valid: Mask, mask: Mask) -> float:
    """Return the part of the mask that survives."""
    return float(np.count_nonzero(valid)) / max(int(np.count_nonzero(mask)), 1)


def make_background(total: Array, local: Array, valid: Mask, mask: Mask, method: str) -> Background:
    """Fill the record, and say where much of the mask was lost.

    Raises
    ------
    InputError
        If no voxel is left.
    """
    fraction = kept(valid, mask)
    if fraction == 0:
        raise InputError(
            "background removal leaves no voxel of the mask",
            expected="a mask several times as wide as the smallest sphere",
            todo="use the alternating or the pdf method, or smaller radii",
        )
    notices: tuple[str, ...] = ()
    if fraction < _EXPECTED_PART:
        notices = (f"background removal keeps only {100 * fraction:.0f} % of the mask",)
    return Background(
        local_ppm=np.where(valid, local, np.nan),
        background_ppm=np.where(valid, total - local, np.nan),
        valid=valid,
        kept_fraction=fraction,
        method=method,
        notices=notices,
    )


def check_field(total_field: Array, mask: Mask) -> tuple[Array, Mask]:
    """Return the field with zeros where it is not known, and the voxels of the mask with a value.

    Raises
    ------
    InputError
        If the shapes differ, the image is not a volume, or no voxel of the mask has a value.
    """
    if total_field.shape != mask.shape or mask.ndim != 3:
        raise InputError(
            "field and mask are not volumes of one shape",
            found=f"field {total_field.shape}, mask {mask.shape}",
            expected="(x, y, z) both",
            todo="resample the mask to the grid of the field",
        )
    used = np.asarray(mask, dtype=bool) & np.isfinite(total_field)
    if not used.any():
        raise InputError(
            "the field has no value inside the mask",
            found=f"{int(np.count_nonzero(mask))} voxels in the mask",
            todo="check the mask and the phase",
        )
    return np.where(used, total_field, 0.0), used
