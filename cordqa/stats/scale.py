"""When a number may be divided by its mean.

A coefficient of variation, a percent difference and a log ratio mean something only where zero
means "none" and the values stay clear of it.  Elsewhere the spread is given in units, and the
reader is told why.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError

__all__ = ["RELATIVE_REFUSALS", "Scale", "check_scale", "refuse_relative"]

Scale = Literal["ratio", "interval"]

#: Why a relative spread is refused, by code; 0 is "not refused".
RELATIVE_REFUSALS = (
    "",
    "no relative spread: the quantity has no true zero (interval scale), so a percentage of its mean "
    "depends on where zero was put; read the spread in units",
    "no relative spread: some values are zero or negative, so that a percentage of the mean means "
    "nothing; read the spread in units",
    "no relative spread: the mean is less than three SD from zero, so that dividing by it says more "
    "about the mean than about the spread; read the spread in units",
)
_NEAR_ZERO = 3.0


def check_scale(scale: str) -> str:
    """Return ``ratio`` or ``interval``, or raise ConfigError."""
    if scale not in ("ratio", "interval"):
        raise ConfigError("scale is not a known choice", found=repr(scale), expected="ratio or interval")
    return scale


def refuse_relative(
    minimum: ArrayLike, mean: ArrayLike, sd: ArrayLike, *, scale: str = "ratio"
) -> NDArray[np.int64]:
    """Return for each group why a relative spread is refused (index of RELATIVE_REFUSALS).

    Parameters
    ----------
    minimum : array-like, shape (...)
        Smallest of all values.
    mean, sd : array-like, shape (...)
        SD of the repeats (within subjects, between scanners) and the mean that would divide
        it; or 1 and their pooled ratio.  Not the SD of the subjects: spheres from 20 to 2000 ms
        are no reason to refuse.
    scale : {'ratio', 'interval'}
        Of the quantity, see :mod:`cordqa.quantities`.
    """
    least, centre, spread = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (minimum, mean, sd)))
    code = np.where(np.abs(centre) < _NEAR_ZERO * spread, 3, 0)
    code = np.where(least <= 0, 2, code)
    if check_scale(scale) == "interval":
        code = np.ones_like(code)
    return code.astype(np.int64)
