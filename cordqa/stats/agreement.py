"""Agreement of methods, scanners or sessions in tidy tables, two at a time.

Which function?

- :func:`bland_altman`: how far may two single measurements lie apart, and does one read higher?
- :func:`concordance`: one number between -1 and 1 for closeness to the line of identity.
- :func:`percent_differences`: a table of mean percent differences, every scanner against another.

Array functions for many regions are in :mod:`cordqa.stats.agreement_core`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.stats.agreement_core import (
    Limits,
    LimitsInterval,
    ccc_arrays,
    limits_arrays,
    limits_standard_error,
    regression_limits,
    replicated_limits,
    z_of_coverage,
)
from cordqa.stats.concordance import concordance
from cordqa.stats.pairs import Columns, Pair, make_pairs
from cordqa.stats.quantiles import t_two_sided_p
from cordqa.stats.scale import RELATIVE_REFUSALS, Scale, check_scale, refuse_relative
from cordqa.stats.table import (
    check_choice,
    check_level,
    stack_tables,
    tidy,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "bland_altman",
    "ccc_arrays",
    "concordance",
    "limits_arrays",
    "limits_by_mean",
    "limits_standard_error",
    "percent_differences",
    "regression_limits",
    "replicated_limits",
]

Array = NDArray[np.float64]
Differences = Literal["raw", "percent", "log"]
Replicates = Literal["raise", "components", "mean"]


# --------------------------------------------------------------------------- Bland and Altman


def bland_altman(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    method: str = "method",
    methods: Sequence[Any] | None = None,
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    differences: Differences = "raw",
    scale: Scale = "ratio",
    level: float = 0.95,
    coverage: float = 0.95,
    interval: LimitsInterval = "exact",
    replicates: Replicates = "raise",
    true_value: Literal["constant", "varying"] = "constant",
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return bias and limits of agreement of every two methods, with their intervals.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    value, subject, method : str
        Columns of the value, of what was measured and of what measured it.
    methods : sequence, optional
        Labels to compare, in the order of the difference (first minus second).
    replicate : str, optional
        Column that numbers repeats within subject and method.
    by : str or sequence of str, optional
        Columns that split the table.
    unit : str, optional
        Column with the unit; mixed units within a group are refused.
    differences : {'raw', 'percent', 'log'}
        In units; in percent of the pair's mean; or of logarithms, given back as ratios
        first / second.  Use ``log`` where the spread grows with the value.
    scale : {'ratio', 'interval'}
        Of the quantity; an interval scale has no percent and no ratio.
    level : float
        Confidence level.
    coverage : float
        Share of differences between the limits.
    interval : {'exact', 'approximate', 'bland-altman-1986'}
        See :func:`~cordqa.stats.agreement_core.limits_arrays`.
    replicates : {'raise', 'components', 'mean'}
        Several values per subject and method: stop; limits for single measurements (Bland and
        Altman 1999, intervals by Zou's MOVER); or average first (limits for means; flagged).
    true_value : {'constant', 'varying'}
        With ``components``: whether the truth stays over the replicates of a subject, or
        replicates of one number belong together.
    nan_policy : {'raise', 'omit'}
        Whether subjects with one method only stop the calculation or are left out and counted.

    Returns
    -------
    DataFrame
        Columns ``first`` and ``second`` and one row each for ``bias``, ``sd_difference``,
        ``loa_lower``, ``loa_upper``; ``proportional_bias`` (slope of difference on mean; also
        not zero where only the SD of the methods differ) and ``spread_slope`` (slope of the SD
        on the mean: above zero, prefer ``log``), with p.

    Raises
    ------
    TableError
        For what the policies do not allow.
    ConfigError
        If options do not go together.
    """
    check_level(level)
    check_scale(scale)
    check_choice(differences, ("raw", "percent", "log"), name="differences")
    if differences != "raw" and replicates == "components":
        raise ConfigError(
            "limits from replicates need raw differences",
            todo="take logarithms of the values first, or choose replicates='mean'",
        )
    check_choice(true_value, ("constant", "varying"), name="true_value")
    varying = true_value == "varying" and replicates == "components"
    if varying and replicate is None:
        raise ConfigError(
            "a truth that varies needs to know which replicates belong together",
            todo="name the column that numbers them as replicate",
        )
    z = z_of_coverage(coverage)
    columns = Columns(value, subject, method, replicate, by, unit)
    pairs, lonely = make_pairs(
        data, columns, methods=methods, nan_policy=nan_policy, replicates=replicates, align=varying
    )
    tables = [] if lonely is None else [lonely]
    for pair in pairs:
        refusal = _relative_refusal(pair, scale) if differences != "raw" else np.zeros(len(pair.groups), int)
        a, b = pair.means
        shown, d = _difference(a, b, differences, refusal)
        if replicates == "components":
            limits = replicated_limits(
                pair.first, pair.second, true_value=true_value, level=level, coverage=coverage
            )
        else:
            limits = limits_arrays(d, level=level, coverage=coverage, interval=interval)
        words = _limit_words(differences, interval, replicates == "components", z)
        tables.append(_limit_table(pair, limits, words, refusal, level=level))
        tables.append(_slope_table(pair, shown, d, level=level, refusal=refusal))
    return stack_tables([*tables[1:], tables[0]] if lonely is not None else tables)


def _relative_refusal(pair: Pair, scale: str) -> NDArray[np.int64]:
    """Say per group whether a percentage of the mean is refused."""
    a, b = pair.means
    both = np.concatenate([a, b], axis=-1)
    least = np.where(np.isfinite(both), both, np.inf).min(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = 2.0 * (a - b) / (a + b)
    spread = limits_arrays(np.where(np.isfinite(relative), relative, math.nan)).sd / math.sqrt(2.0)
    return refuse_relative(least, np.ones_like(spread), spread, scale=scale)


def _difference(a: Array, b: Array, kind: str, refusal: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return what is drawn along x (the mean) and the difference."""
    mean = (a + b) / 2.0
    if kind == "raw":
        return mean, a - b
    allowed = (refusal == 0)[:, None]
    a, b, mean = (np.where(allowed, v, math.nan) for v in (a, b, mean))
    if kind == "percent":
        return mean, 100.0 * (a - b) / mean
    return (np.log(a) + np.log(b)) / 2.0, np.log(a) - np.log(b)


@dataclass(frozen=True, slots=True)
class _Words:
    """Names of estimator and interval, and whether bounds go back from logarithms."""

    estimator: tuple[str, str, str, str]
    method: tuple[str, str, str, str]
    unit: str
    log: bool
    flag: str


def _limit_words(kind: str, interval: str, components: bool, z: float) -> _Words:
    of = {"raw": "differences", "percent": "percent differences", "log": "log ratios"}[kind]
    bias = f"mean of {of}" if kind != "log" else "geometric mean of ratios"
    if components:
        sd, method = f"SD of {of} of single measurements, from replicates", "MOVER"
    else:
        names = {"exact": "noncentral t", "approximate": "t, 1999 standard error"}
        sd, method = f"SD of {of}", names.get(interval, "t, standard error sqrt(3/n) SD")
    limit = f"bias -/+ {z:.4g} SD" + (", back-transformed" if kind == "log" else "")
    spread = "MLS" if components else "chi-squared"
    return _Words(
        estimator=(bias, sd, limit, limit),
        method=("t", spread, method, method),
        unit={"raw": "", "percent": "%", "log": "1"}[kind],
        log=kind == "log",
        flag="single-measurements" if components else "",
    )


def _limit_table(
    pair: Pair, limits: Limits, words: _Words, refusal: NDArray[np.int64], *, level: float
) -> pd.DataFrame:
    bounds = [
        np.stack([getattr(limits, f"{name}{end}") for name in ("bias", "sd", "lower", "upper")], axis=1)
        for end in ("", "_low", "_high")
    ]
    if words.log:
        back = [0, 2, 3]
        for column in bounds:
            column[:, back] = np.exp(column[:, back])
    names = ("bias", "sd_log_ratio" if words.log else "sd_difference", "loa_lower", "loa_upper")
    averaged = pair.replicated & (words.flag == "")
    flags = np.where(refusal > 0, "relative-refused", np.where(averaged, "replicates-averaged", words.flag))
    few = (limits.n < 3) & (refusal == 0)
    note = np.array([RELATIVE_REFUSALS[c] for c in refusal], dtype=object)
    note = np.where(few, "fewer than three subjects with both methods", note)
    return tidy(
        pair.groups,
        statistic=names,
        value=bounds[0],
        low=bounds[1],
        high=bounds[2],
        level=level,
        unit=words.unit or pair.units[:, None],
        estimator=words.estimator,
        interval_method=words.method,
        n=pair.counts,
        flags=flags[:, None],
        note=note[:, None],
    )


def _slope_table(
    pair: Pair, mean: Array, difference: Array, *, level: float, refusal: NDArray[np.int64]
) -> pd.DataFrame:
    """Proportional bias and spread that grows with the mean."""
    line, spread = regression_limits(mean, difference)
    bounds = [fit.interval("slope", level) for fit in (line, spread)]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = [t_two_sided_p(fit.slope / fit.slope_se, fit.df) for fit in (line, spread)]
    return tidy(
        pair.groups,
        statistic=("proportional_bias", "spread_slope"),
        value=np.stack([line.slope, spread.slope], axis=1),
        low=np.stack([b.low for b in bounds], axis=1),
        high=np.stack([b.high for b in bounds], axis=1),
        level=level,
        estimator=("slope of difference on mean", "slope of SD (from absolute residuals) on mean"),
        interval_method="t",
        extra={"p": np.stack(p, axis=1)},
        n=pair.counts,
        flags=np.where(refusal > 0, "relative-refused", "")[:, None],
    )


def limits_by_mean(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    method: str = "method",
    methods: Sequence[Any] | None = None,
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    at: Sequence[float] | None = None,
    level: float = 0.95,
    coverage: float = 0.95,
    replicates: Literal["raise", "mean"] = "raise",
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return limits of agreement that change with the mean (regression limits).

    Use where :func:`bland_altman` finds a ``proportional_bias`` or a ``spread_slope``.  Other
    parameters are those of :func:`bland_altman`.

    Parameters
    ----------
    at : sequence of float, optional
        Means of the two methods at which to give the limits; default are the smallest, the
        median and the largest mean of each group.

    Returns
    -------
    DataFrame
        Rows ``bias``, ``loa_lower``, ``loa_upper``, with the mean in column ``at``.
    """
    check_level(level)
    check_choice(replicates, ("raise", "mean"), name="replicates")
    columns = Columns(value, subject, method, replicate, by, unit)
    z = z_of_coverage(coverage)
    pairs, lonely = make_pairs(data, columns, methods=methods, nan_policy=nan_policy, replicates=replicates)
    tables = [] if lonely is None else [lonely]
    for pair in pairs:
        a, b = pair.means
        mean = (a + b) / 2.0
        fit = regression_limits(mean, a - b)
        for place in _places(mean, at):
            rows = fit.at(place, z=z, level=level)
            tables.append(
                tidy(
                    pair.groups.assign(at=place),
                    statistic=("bias", "loa_lower", "loa_upper"),
                    value=np.stack([r[0] for r in rows], axis=1),
                    low=np.stack([r[1] for r in rows], axis=1),
                    high=np.stack([r[2] for r in rows], axis=1),
                    level=level,
                    unit=pair.units[:, None],
                    estimator=("line through the differences", *[f"line -/+ {z:.4g} SD line"] * 2),
                    interval_method="t, delta method",
                    n=pair.counts,
                    flags=np.where(pair.replicated, "replicates-averaged", "")[:, None],
                )
            )
    return stack_tables([*tables[1:], tables[0]] if lonely is not None else tables)


def _places(mean: Array, at: Sequence[float] | None) -> list[Array]:
    """Return where along x to give the limits, one array of shape (n_groups,) per place."""
    if at is not None:
        return [np.full(mean.shape[0], float(place)) for place in at]
    some = np.isfinite(mean).any(axis=1, keepdims=True)
    whole = np.where(some, mean, 0.0)
    return [np.nanquantile(whole, q, axis=1) for q in (0.0, 0.5, 1.0)]


# ------------------------------------------------------------------------- percent differences


def percent_differences(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    scanner: str = "scanner",
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    scale: Scale = "ratio",
    level: float = 0.95,
    replicates: Literal["raise", "mean"] = "raise",
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return the mean percent difference of every two scanners over the same subjects.

    Differences are 100 (first - second) / mean of the two, per subject; the interval is t over
    subjects.  Where a percentage means nothing, the row is NaN and its note says why.

    Parameters and policies are those of :func:`bland_altman`, with ``scanner`` for ``method``.

    Returns
    -------
    DataFrame
        Rows ``percent_difference`` and ``sd_percent_difference`` for each pair ``first``,
        ``second``.
    """
    check_choice(replicates, ("raise", "mean"), name="replicates")
    table = bland_altman(
        data,
        value=value,
        subject=subject,
        method=scanner,
        replicate=replicate,
        by=by,
        unit=unit,
        differences="percent",
        scale=scale,
        level=level,
        replicates=replicates,
        nan_policy=nan_policy,
    )
    names = {"bias": "percent_difference", "sd_difference": "sd_percent_difference"}
    table = table[table["statistic"].isin(names)].reset_index(drop=True)
    return table.assign(statistic=table["statistic"].map(names)).drop(columns=["p"], errors="ignore")
