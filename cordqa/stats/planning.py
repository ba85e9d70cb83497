"""How many people a study needs, from the spread that was measured.

Repeatability: :func:`size_for_repeatability` (how well the coefficient will be known) and
:func:`size_for_claim` (to show that it is below a limit).  Reliability: :func:`size_for_icc`.
Effects: :func:`size_for_groups` (patients against controls) and :func:`size_for_change` (the same
people before and after).  :func:`plan_study` puts them into one table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cordqa.errors import ConfigError
from cordqa.stats.quantiles import chi2_quantile, f_quantile, normal_quantile, t_quantile

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SampleSize",
    "change_detectable",
    "plan_study",
    "repeatability_factors",
    "size_for_change",
    "size_for_claim",
    "size_for_groups",
    "size_for_icc",
    "size_for_repeatability",
]

Method = Literal["t", "normal"]

_LARGEST = 10_000_000


@dataclass(frozen=True, slots=True)
class SampleSize:
    """A sample size and what it was made for.

    Attributes
    ----------
    n : int
        People; per arm where there are two.
    achieved : float
        The factor, width or power that ``n`` gives.
    criterion : str
        What ``achieved`` is.
    method : str
    """

    n: int
    achieved: float
    criterion: str
    method: str


def _smallest(enough: Callable[[int], bool], first: int) -> int:
    """Smallest n from ``first`` for which a rising condition holds, by doubling and halving."""
    if enough(first):
        return first
    low, high = first, 2 * first
    while not enough(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            raise ConfigError("no sample size below ten million is enough", todo="ask for less")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0.0):
            raise ConfigError(f"{name} must be a positive number", found=str(number))


def _probability(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 < number < 1.0:
            raise ConfigError(f"{name} must lie between 0 and 1", found=str(number))


def repeatability_factors(
    n: int, *, repeats: int = 2, level: float = 0.95, sided: Literal["two", "one"] = "two"
) -> tuple[float, float]:
    """Bounds of a within-subject SD (or RC) relative to its estimate.

    Parameters
    ----------
    n : int
        Subjects.
    repeats : int
        Measurements per subject.
    level : float
        Confidence level.
    sided : {'two', 'one'}
        Two-sided, or an upper bound only (the lower is then 0).

    Returns
    -------
    low, high : float
        Exact for normal errors: from chi-squared with ``n (repeats - 1)`` degrees of freedom.
    """
    _check_design(n, repeats)
    _probability(level=level)
    freedom = n * (repeats - 1)
    tail = (1.0 - level) if sided == "one" else 0.5 * (1.0 - level)
    high = math.sqrt(freedom / float(chi2_quantile(tail, freedom)))
    low = 0.0 if sided == "one" else math.sqrt(freedom / float(chi2_quantile(1.0 - tail, freedom)))
    return low, high


def _check_design(n: int, repeats: int) -> None:
    if n < 1 or repeats < 2:
        raise ConfigError(
            "repeatability needs a subject and two repeats", found=f"{n} subjects and {repeats} repeats"
        )


def size_for_repeatability(factor: float, *, repeats: int = 2, level: float = 0.95) -> SampleSize:
    """Subjects so that the one-sided upper bound of RC is at most ``factor`` times its estimate.

    Parameters
    ----------
    factor : float
        Above 1; 1.25 with two repeats gives the 35 subjects that QIBA asks for.
    repeats : int
    level : float

    Returns
    -------
    SampleSize

    References
    ----------
    Raunig D. L. et al. 2015, Stat Methods Med Res 24:27, doi:10.1177/0962280214537344.

    Examples
    --------
    >>> size_for_repeatability(1.25).n
    35
    """
    if not factor > 1.0:
        raise ConfigError("the factor must be above 1", found=str(factor))

    def bound(n: int) -> float:
        return repeatability_factors(n, repeats=repeats, level=level, sided="one")[1]

    n = _smallest(lambda n: bound(n) <= factor, 2)
    return SampleSize(n, bound(n), f"upper {100 * level:g} % bound over estimate", "chi-squared, exact")


def size_for_claim(
    true: float, claim: float, *, repeats: int = 2, level: float = 0.95, power: float = 0.8
) -> SampleSize:
    """Subjects to show that wSD (or wCV, RC) is below a claimed limit.

    The claim is shown where the one-sided upper bound lies below it.

    Parameters
    ----------
    true, claim : float
        Expected value and limit, same unit; ``true`` must be the smaller.
    repeats : int
    level : float
    power : float

    Returns
    -------
    SampleSize
    """
    _positive(true=true, claim=claim)
    _probability(level=level, power=power)
    if true >= claim:
        raise ConfigError(
            "a claim can only be shown where the true value is below it", found=f"{true} >= {claim}"
        )
    _check_design(2, repeats)

    def chance(n: int) -> float:
        from scipy.special import chdtr

        freedom = n * (repeats - 1)
        limit = (claim / true) ** 2 * float(chi2_quantile(1.0 - level, freedom))
        return float(chdtr(freedom, limit))

    n = _smallest(lambda n: chance(n) >= power, 2)
    return SampleSize(n, chance(n), "power", "chi-squared, exact")


def size_for_icc(
    icc: float,
    width: float,
    *,
    raters: int = 2,
    level: float = 0.95,
    method: Literal["expected", "bonett"] = "expected",
) -> SampleSize:
    """Subjects so that the interval of an intraclass correlation has a given width on average.

    Parameters
    ----------
    icc : float
        Expected correlation, between 0 and 1.
    width : float
        Full width of the interval.
    raters : int
        Measurements per subject.
    level : float
    method : {'expected', 'bonett'}
        Mean width of the exact interval of the consistency form, or Bonett's closed formula, which
        asks for too few where few are needed (12 instead of 15 for 0.9 with three raters and a
        width of 0.2).

    Returns
    -------
    SampleSize
        Absolute agreement with few scanners needs more scanners, not more subjects.

    References
    ----------
    Bonett D. G. 2002, Stat Med 21:1331, doi:10.1002/sim.1108.
    """
    _probability(icc=icc, width=width, level=level)
    if raters < 2:
        raise ConfigError("an intraclass correlation needs two raters", found=str(raters))
    if method == "bonett":
        z = normal_quantile(0.5 + 0.5 * level)
        shape = 8.0 * z**2 * (1.0 - icc) ** 2 * (1.0 + (raters - 1) * icc) ** 2 / (raters * (raters - 1))
        n = max(3, math.ceil(shape / width**2 + 1.0 - 1e-9))
        return SampleSize(n, math.sqrt(shape / (n - 1)), "expected width", "Bonett, large sample")
    if method != "expected":
        raise ConfigError("method must be 'expected' or 'bonett'", found=str(method))
    n = _smallest(lambda n: _icc_width(icc, n, raters, level) <= width, 3)
    return SampleSize(n, _icc_width(icc, n, raters, level), "expected width", "mean width of the F interval")


def _icc_width(icc: float, n: int, raters: int, level: float) -> float:
    """Mean width of the F interval of the consistency form over samples."""
    tail = 0.5 * (1.0 - level)
    df1, df2 = n - 1, (n - 1) * (raters - 1)
    share = (np.arange(400) + 0.5) / 400.0
    ratio = (1.0 + (raters - 1) * icc) / (1.0 - icc) * f_quantile(share, df1, df2)
    lower = ratio / f_quantile(1.0 - tail, df1, df2)
    upper = ratio / f_quantile(tail, df1, df2)
    ends = [(f - 1.0) / (f + raters - 1.0) for f in (lower, upper)]
    return float(np.mean(ends[1] - ends[0]))


def size_for_groups(
    difference: float,
    *,
    between_sd: float,
    within_sd: float = 0.0,
    repeats: int = 1,
    level: float = 0.95,
    power: float = 0.8,
    method: Method = "t",
) -> SampleSize:
    """People per arm to find a difference between two groups.

    Parameters
    ----------
    difference, between_sd, within_sd : float
        Difference of means, spread between people and within people, in one unit (or all in
        percent of the mean).  Where scanners differ between people, put the reproducibility SD
        for ``within_sd``.
    repeats : int
        Measurements averaged per person; reduces the spread within people only.
    level : float
        One minus the two-sided error of the first kind.
    power : float
    method : {'t', 'normal'}
        Exact power of the t test, or the normal approximation, which asks for slightly fewer.

    Returns
    -------
    SampleSize
        Per arm.

    Examples
    --------
    >>> size_for_groups(3, between_sd=8, within_sd=2, method="normal").n
    119
    """
    _positive(between_sd=between_sd, repeats=repeats)
    if within_sd < 0.0:
        raise ConfigError("a standard deviation must not be negative", found=str(within_sd))
    variance = between_sd**2 + within_sd**2 / repeats
    return _size_for_mean(difference, 2.0 * variance, 2, level, power, method)


def size_for_change(
    difference: float,
    *,
    within_sd: float,
    repeats: int = 1,
    arms: Literal[1, 2] = 1,
    level: float = 0.95,
    power: float = 0.8,
    method: Method = "t",
) -> SampleSize:
    """People (per arm) to find a change between two visits.

    Parameters
    ----------
    difference : float
        Mean change; with two arms, the difference between their mean changes.
    within_sd : float
        Within-subject SD on the same scanner, or the reproducibility SD where the scanner may
        change between visits.  The spread of true change between people, if known, is added by
        taking the root of the sum of squares with half its variance.
    repeats : int
        Measurements averaged per visit.
    arms : {1, 2}
    level, power, method
        As in :func:`size_for_groups`.

    Returns
    -------
    SampleSize
        In small samples the normal approximation is far too optimistic (7 instead of 10 for a
        change of one and a half within-subject SD), so ``t`` is the default.
    """
    _positive(within_sd=within_sd, repeats=repeats)
    if arms not in (1, 2):
        raise ConfigError("there are one or two arms", found=str(arms))
    variance = 2.0 * within_sd**2 / repeats
    return _size_for_mean(difference, arms * variance, arms, level, power, method)


def _size_for_mean(
    difference: float, variance: float, arms: int, level: float, power: float, method: Method
) -> SampleSize:
    """Smallest n (per arm) for a mean whose estimate has ``variance / n``."""
    _positive(difference=difference, variance=variance)
    _probability(level=level, power=power)
    if method not in ("t", "normal"):
        raise ConfigError("method must be 't' or 'normal'", found=str(method))
    tail = 0.5 * (1.0 - level)

    def chance(n: int) -> float:
        shift = difference / math.sqrt(variance / n)
        if method == "normal":
            from scipy.special import ndtr

            z = normal_quantile(1.0 - tail)
            return float(ndtr(shift - z) + ndtr(-shift - z))
        return _t_power(shift, arms * (n - 1), tail)

    n = _smallest(lambda n: chance(n) >= power, 2)
    name = "t test, exact power" if method == "t" else "normal approximation"
    return SampleSize(n, chance(n), "power", name)


def _t_power(shift: float, freedom: int, tail: float) -> float:
    """Power of a two-sided t test with a given noncentrality."""
    from scipy.special import nctdtr, ndtr

    critical = float(t_quantile(1.0 - tail, freedom))
    if freedom > 5000 or shift > 30.0:
        return float(ndtr(shift - critical) + ndtr(-shift - critical))
    upper = 1.0 - float(nctdtr(freedom, shift, critical))
    return upper + float(nctdtr(freedom, shift, -critical))


def change_detectable(within_sd: float, *, n: int = 1, level: float = 0.95) -> float:
    """Smallest change between two visits that chance explains in less than ``1 - level``.

    Parameters
    ----------
    within_sd : float
        Within-subject SD, or the reproducibility SD across scanners.
    n : int
        Size of a group whose mean change is looked at; 1 gives RC (or RDC).
    level : float

    Returns
    -------
    float
        In the unit of ``within_sd``.
    """
    _positive(within_sd=within_sd, n=n)
    _probability(level=level)
    return normal_quantile(0.5 + 0.5 * level) * math.sqrt(2.0 / n) * within_sd


def plan_study(
    differences: Sequence[float],
    *,
    between_sd: float,
    within_sd: float,
    reproducibility_sd: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    unit: str = "",
) -> pd.DataFrame:
    """Sample sizes for several differences from measured spreads.

    Parameters
    ----------
    differences : sequence of float
        Effects to be found, in the unit of the spreads.
    between_sd, within_sd : float
        Spread between subjects and within a subject on one scanner.
    reproducibility_sd : float, optional
        Spread within a subject across scanners.
    level, power : float
    unit : str

    Returns
    -------
    DataFrame
        Columns ``design``, ``difference``, ``unit``, ``n_per_arm``, ``power``, ``level`` and
        ``method``; one row per design and difference.
    """
    import pandas as pd

    rows = []
    for difference in differences:
        designs = {
            "two groups, one scanner": size_for_groups(
                difference, between_sd=between_sd, within_sd=within_sd, level=level, power=power
            ),
            "change, same scanner": size_for_change(
                difference, within_sd=within_sd, level=level, power=power
            ),
            "change in two arms, same scanner": size_for_change(
                difference, within_sd=within_sd, arms=2, level=level, power=power
            ),
        }
        if reproducibility_sd is not None:
            designs["two groups, any scanner"] = size_for_groups(
                difference, between_sd=between_sd, within_sd=reproducibility_sd, level=level, power=power
            )
            designs["change, any scanner"] = size_for_change(
                difference, within_sd=reproducibility_sd, level=level, power=power
            )
        rows += [
            {
                "design": design,
                "difference": float(difference),
                "unit": unit,
                "n_per_arm": size.n,
                "power": size.achieved,
                "level": level,
                "method": size.method,
            }
            for design, size in designs.items()
        ]
    return pd.DataFrame(rows)
