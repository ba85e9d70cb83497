"""Why a voxel has no value in a map of magnetization transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.models.maps import Reasons

__all__ = ["NO_B1", "NO_NUMBER", "NO_SIGNAL", "NO_SOLUTION", "OUTSIDE_T1", "judge"]

NO_NUMBER = "a signal is not a number"
NO_SIGNAL = "no signal in one of the images"
NO_B1 = "no B1"
NO_SOLUTION = "signals contradict each other: no positive T1"
OUTSIDE_T1 = "T1 below 5 ms or above 10 s"


def judge(
    values: NDArray[np.float64], failures: Sequence[tuple[NDArray[np.bool_], str]]
) -> tuple[NDArray[np.float64], Reasons]:
    """Set failed voxels to NaN and say why; the first reason that applies is kept."""
    reasons = Reasons.collect(values.shape, [*failures, (~np.isfinite(values), NO_SOLUTION)])
    return np.where(reasons.ok, values, np.nan), reasons
