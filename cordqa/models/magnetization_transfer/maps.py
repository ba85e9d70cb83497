"""A map that says, voxel by voxel, why a value is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_B1", "NO_NUMBER", "NO_SIGNAL", "NO_SOLUTION", "ParameterMap", "outcome"]

NO_NUMBER = "a signal is not a number"
NO_SIGNAL = "no signal in one of the images"
NO_B1 = "no B1"
NO_SOLUTION = "signals contradict each other: no positive T1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterMap:
    """Values of one parameter.

    Attributes
    ----------
    values : ndarray, float
        NaN where there is no value.
    reason : ndarray of str, same shape
        Why; empty where there is a value.
    """

    values: NDArray[np.float64]
    reason: NDArray[np.str_]

    def counts(self) -> dict[str, int]:
        """Count the voxels without a value, by reason."""
        found, number = np.unique(self.reason[self.reason != ""], return_counts=True)
        return {str(text): int(n) for text, n in zip(found, number, strict=True)}


def outcome(values: NDArray[np.float64], failures: Sequence[tuple[NDArray[np.bool_], str]]) -> ParameterMap:
    """Set failed voxels to NaN; the first reason that applies is kept."""
    reason = np.full(values.shape, "", dtype="<U64")
    for where, text in failures:
        reason[where & (reason == "")] = text
    reason[(reason == "") & ~np.isfinite(values)] = NO_SOLUTION
    return ParameterMap(values=np.where(reason == "", values, np.nan), reason=reason)
