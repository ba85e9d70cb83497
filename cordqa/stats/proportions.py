"""Proportions: intervals, and whether a published percentage is possible for its sample size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.stats.quantiles import Bounds, normal_quantile

__all__ = ["Granularity", "ProportionMethod", "check_granularity", "proportion_interval"]

FloatArray = NDArray[np.float64]
ProportionMethod = Literal["wilson", "clopper-pearson"]


def proportion_interval(
    successes: ArrayLike, n: ArrayLike, *, level: float = 0.95, method: ProportionMethod = "wilson"
) -> Bounds:
    """Interval of a proportion.

    Parameters
    ----------
    successes, n : array-like
        Counts; NaN bounds where ``n`` is zero.
    level : float
        Confidence level.
    method : {'wilson', 'clopper-pearson'}
        Wilson's score interval is near its level on average; Clopper and Pearson's never covers
        less and is wider.

    Returns
    -------
    Bounds

    References
    ----------
    Wilson E. B. 1927, J Am Stat Assoc 22:209, doi:10.1080/01621459.1927.10502953.
    Clopper C. J., Pearson E. S. 1934, Biometrika 26:404, doi:10.1093/biomet/26.4.404.
    """
    k, total = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    if np.any(k < 0) or np.any(k > total):
        raise InputError("a count of successes lies outside 0 to n")
    safe = np.where(total > 0, total, np.nan)
    if method == "clopper-pearson":
        return _clopper_pearson(k, safe, level)
    z2 = normal_quantile(0.5 + 0.5 * level) ** 2
    share = k / safe
    centre = (share + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (share * (1 - share) / safe + z2 / (4 * safe**2))) / (1 + z2 / safe)
    # At the ends the bound is 0 or 1 exactly; rounding must not say otherwise.
    low = np.where(k == 0, 0.0 * safe, centre - half)
    high = np.where(k == total, 1.0 + 0.0 * safe, centre + half)
    return Bounds(low, high)


def _clopper_pearson(k: FloatArray, n: FloatArray, level: float) -> Bounds:
    from scipy.special import betaincinv

    tail = 0.5 * (1.0 - level)
    low = np.where(k == 0, 0.0 * n, betaincinv(np.maximum(k, 1), np.maximum(n - k + 1, 1), tail))
    high = np.where(k == n, 1.0 + 0.0 * n, betaincinv(k + 1, np.maximum(n - k, 1), 1.0 - tail))
    return Bounds(low, high)


@dataclass(frozen=True, slots=True)
class Granularity:
    """Whether a percentage can come from a whole number of people.

    Attributes
    ----------
    percent : float
        As published.
    n : int
    decimals : int
        Decimals that were published.
    possible : bool
    counts : tuple of int
        Counts k for which k/n rounds to the percentage.
    nearest : tuple of (int, float)
        The counts next to the percentage and what they would have been rounded to.
    possible_n : tuple of int
        Sample sizes up to twice ``n`` that could give the percentage, nearest to ``n`` first.
    """

    percent: float
    n: int
    decimals: int
    possible: bool
    counts: tuple[int, ...]
    nearest: tuple[tuple[int, float], ...]
    possible_n: tuple[int, ...]

    @property
    def sentence(self) -> str:
        """The finding for people."""
        shown = f"{self.percent:.{self.decimals}f} %"
        if self.possible:
            return f"{shown} of {self.n} is possible: {', '.join(f'{k}/{self.n}' for k in self.counts)}"
        near = " and ".join(f"{k}/{self.n} = {value:.{self.decimals + 1}f} %" for k, value in self.nearest)
        sizes = ", ".join(map(str, sorted(self.possible_n[:4])))
        return f"{shown} of {self.n} is impossible: the nearest are {near}; n near it that fit: {sizes}"


def check_granularity(percent: float, n: int, *, decimals: int = 0) -> Granularity:
    """Tell whether a published sensitivity or specificity is possible for its sample size.

    With n people only n + 1 percentages exist.  One that is none of them points to a typing
    error, to exclusions that were not mentioned, or to another denominator.

    Parameters
    ----------
    percent : float
        Between 0 and 100, as published.
    n : int
        Number of cases (for a sensitivity) or controls (for a specificity).
    decimals : int
        Number of decimals that were published.

    Returns
    -------
    Granularity
        A value on the border of two roundings counts as possible either way.

    References
    ----------
    Brown N. J. L., Heathers J. A. J. 2017, Soc Psychol Personal Sci 8:363,
    doi:10.1177/1948550616673876.

    Examples
    --------
    >>> found = check_granularity(88, 22)
    >>> found.possible, [k for k, _ in found.nearest]
    (False, [19, 20])
    """
    if not 0.0 <= percent <= 100.0:
        raise InputError("a percentage must lie between 0 and 100", found=str(percent))
    if n < 1 or decimals < 0:
        raise InputError("the sample size must be positive, decimals not negative", found=f"n = {n}")
    counts = _matching_counts(percent, n, decimals)
    below = min(math.floor(percent * n / 100.0), n - 1)
    nearest = tuple((k, 100.0 * k / n) for k in (below, below + 1))
    sizes = [m for m in range(1, 2 * n + 1) if _matching_counts(percent, m, decimals)]
    sizes.sort(key=lambda m: (abs(m - n), m))
    return Granularity(percent, n, decimals, bool(counts), counts, nearest, tuple(sizes))


def _matching_counts(percent: float, n: int, decimals: int) -> tuple[int, ...]:
    """Counts whose percentage rounds to the published one; ties count either way."""
    half = 0.5 * 10.0**-decimals * (1.0 + 1e-9) + 1e-12
    first = max(0, math.ceil((percent - half) * n / 100.0))
    last = min(n, math.floor((percent + half) * n / 100.0))
    return tuple(range(first, last + 1))
