"""Find samples that were stored at the top of the range, so that the true value may be higher."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.io.frames import Stored
from cordqa.records import Part

__all__ = ["find_clipped"]

#: One value this often is a pile; a lone maximum is not.
_PILE = 10
#: Below this fraction of the maximum lies background.
_BRIGHT = 0.1
#: A signal with noise takes at least this many values above background.
_DISTINCT = 16
#: Largest values of converters and storage of 8 to 16 bits.
_NATURAL_TOPS = frozenset(float(2**bits - 1) for bits in (8, 10, 12, 14, 15, 16))


def find_clipped(stored: Stored, part: Part) -> NDArray[np.bool_]:
    """Mark the clipped samples of one plane.

    A sample counts as clipped where it equals the largest value that the storage can hold, or
    where many samples pile up at the plane's own maximum below that.  Real and imaginary
    images can also be clipped at the bottom; phase wraps and is never clipped.

    Parameters
    ----------
    stored : Stored
        Values before scaling.
    part : Part
        What the plane shows.

    Returns
    -------
    ndarray of bool, shape (n_rows, n_columns)
        True where the true value may lie outside the stored range.
    """
    values = stored.values
    if part is Part.PHASE or values.size == 0:
        return np.zeros(values.shape, dtype=bool)
    clipped: NDArray[np.bool_] = values == stored.high if math.isfinite(stored.high) else values == np.inf
    if part in (Part.REAL, Part.IMAGINARY) and math.isfinite(stored.low):
        clipped = clipped | (values == stored.low)
    if not clipped.any():
        pile = _pile(values)
        if pile is not None:
            clipped = values == pile
    return clipped


def _pile(values: NDArray[Any]) -> float | None:
    """Return the maximum where samples pile up at it, else ``None``."""
    with np.errstate(invalid="ignore"):
        top = float(np.fmax.reduce(values, axis=None))
    if not math.isfinite(top) or top <= 0:
        return None
    at_top = int(np.count_nonzero(values == top))
    if at_top < _PILE:
        return None
    if top in _NATURAL_TOPS and top > 255:
        return top
    # A noise-free simulation has plateaus too, but then at several levels, or nothing else.
    below = values[(values > _BRIGHT * top) & (values < top)]
    if below.size < at_top:
        return None
    levels, counts = np.unique(below, return_counts=True)
    return top if levels.size >= _DISTINCT and counts.max() * 4 <= at_top else None
