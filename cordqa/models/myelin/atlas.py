"""A template-space atlas of a measure from a group of registered maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import EmptyInputError, InputError

__all__ = ["GroupAtlas", "build_atlas"]

Array = NDArray[np.float64]

TOO_FEW = "too few maps have a value here"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAtlas:
    """Mean and spread of a group, voxel by voxel.

    Attributes
    ----------
    mean, sd : ndarray
        NaN where too few maps have a value; ``sd`` is that of people (ddof 1).
    n : ndarray of int
        Maps with a value.
    coverage : ndarray
        ``n`` over the number of maps, 0 to 1.
    n_maps : int
    minimum : int
        Fewest maps for a mean.
    """

    mean: Array
    sd: Array
    n: NDArray[np.int64]
    coverage: Array
    n_maps: int
    minimum: int

    @property
    def standard_error(self) -> Array:
        """Of the mean."""
        error: Array = self.sd / np.sqrt(np.maximum(self.n, 1))
        return error

    def score(self, values: ArrayLike) -> Array:
        """Return how many standard deviations a new map lies from the mean, by a t of prediction.

        The spread of a new person about a mean of n is ``sd sqrt(1 + 1/n)``; NaN where the atlas has
        no mean or no spread.
        """
        given = np.asarray(values, dtype=float)
        if given.shape != self.mean.shape:
            raise InputError(
                "the map is not on the grid of the atlas",
                found=f"{given.shape}",
                expected=f"{self.mean.shape}",
            )
        spread = self.sd * np.sqrt(1 + 1 / np.maximum(self.n, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 0, (given - self.mean) / spread, np.nan)


def build_atlas(maps: Iterable[ArrayLike], *, minimum: int = 3) -> GroupAtlas:
    """Average registered maps, one at a time, so that a large group needs little memory.

    Parameters
    ----------
    maps : iterable of array_like
        One per person, all on the grid of the template; NaN where a map has no value (outside the
        brain, outside the field of view, or not fitted).
    minimum : int
        Fewest maps for a mean, at least 2.

    Raises
    ------
    InputError
        If a map is on another grid.
    EmptyInputError
        If there are fewer maps than the minimum.
    """
    if minimum < 2:
        raise InputError("a spread needs two maps at least", found=f"{minimum}")
    count = 0
    n: NDArray[np.int64] | None = None
    mean = square = np.zeros(0)
    for one in maps:
        values = np.asarray(one, dtype=float)
        if n is None:
            n, mean, square = (
                np.zeros(values.shape, dtype=np.int64),
                np.zeros(values.shape),
                np.zeros(values.shape),
            )
        if values.shape != n.shape:
            raise InputError(
                "a map is on another grid than the first",
                where=f"map {count + 1}",
                found=f"{values.shape}",
                expected=f"{n.shape}",
            )
        known = np.isfinite(values)
        n += known
        # Welford's update: no digits are lost where the spread is small against the mean.
        step = np.where(known, values - mean, 0.0)
        mean = mean + step / np.maximum(n, 1)
        square = square + step * np.where(known, values - mean, 0.0)
        count += 1
    if n is None or count < minimum:
        raise EmptyInputError("too few maps for an atlas", found=f"{count}", expected=f"at least {minimum}")
    enough = n >= minimum
    return GroupAtlas(
        mean=np.where(enough, mean, np.nan),
        sd=np.where(enough, np.sqrt(square / np.maximum(n - 1, 1)), np.nan),
        n=n,
        coverage=n / count,
        n_maps=count,
        minimum=minimum,
    )
