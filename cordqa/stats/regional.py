"""Many regions at once: how many of them repeat well enough.

What is said of one region (percent difference, ICC) is summarised over the regions of a table: their
mean, and the share that keeps a limit.  Regions are those of the table, not a sample of others, so that
a share has no interval; people are the sample, and every region has its own interval elsewhere.

Two percent differences must not be confused.  The signed one is a bias: over people, rescans that scatter
by 10 % cancel to nearly nothing.  The absolute one is how far two measurements of a person lie apart; it
is what studies of volumes and thickness publish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cordqa.errors import ConfigError
from cordqa.stats.pairs import Columns, make_pairs
from cordqa.stats.quantiles import t_quantile
from cordqa.stats.table import check_columns, check_level, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["absolute_percent_differences", "summarise_regions"]

_FEWEST = 5
Call = Callable[[Any], Any]


#: Statistics of pairs that are summarised, with the words of their mean and of their share below a limit.
_DIFFERENCES = {
    "absolute_percent_difference": ("mean absolute percent difference", "regions below {:g} %"),
    "percent_difference": ("mean |percent bias|", "regions with |percent bias| below {:g} %"),
}


def absolute_percent_differences(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    scanner: str = "scanner",
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    level: float = 0.95,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return how far two scanners (or visits) lie apart in a person, in percent of their mean.

    Per subject ``100 |first - second| / mean of the two``, averaged over subjects; the interval is t over
    subjects.  Replicates are averaged before.

    Parameters
    ----------
    data, value, subject, scanner, by, unit, level, nan_policy
        As in :func:`~cordqa.stats.agreement.percent_differences`.

    Returns
    -------
    DataFrame
        Tidy: ``absolute_percent_difference`` for each pair ``first``, ``second``; NaN with a note where a
        value is not positive.
    """
    check_level(level)
    columns = Columns(value, subject, scanner, None, by, unit)
    pairs, _ = make_pairs(data, columns, methods=None, nan_policy=nan_policy, replicates="mean")
    tables = []
    for pair in pairs:
        a, b = pair.means
        known = np.isfinite(a)
        positive = np.asarray(np.where(known, (a > 0) & (b > 0), True).all(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.where(known & positive[:, None], 200 * np.abs(a - b) / (a + b), np.nan)
            n = known.sum(axis=1)
            mean = np.where(positive, np.nansum(apart, axis=1) / n, np.nan)
            spread = np.sqrt(np.nansum((apart - mean[:, None]) ** 2, axis=1) / (n - 1))
            half = np.where(
                n > 1, t_quantile(0.5 + level / 2, np.maximum(n - 1, 1)) * spread / np.sqrt(n), np.nan
            )
        tables.append(
            tidy(
                pair.groups,
                statistic=("absolute_percent_difference",),
                value=mean[:, None],
                low=np.maximum(mean - half, 0.0)[:, None],
                high=(mean + half)[:, None],
                level=level,
                unit="%",
                estimator="mean over subjects of |difference| over the mean of the two",
                interval_method="t over subjects",
                n=pair.counts,
                note=np.where(positive, "", "a value is not positive: no percentage")[:, None],
            )
        )
    return stack_tables(tables)


def summarise_regions(
    percent: pd.DataFrame | None = None,
    icc: pd.DataFrame | None = None,
    *,
    by: tuple[str, ...] = ("quantity",),
    region: str = "region",
    limit_percent: float = 10.0,
    form: str = "ICC(C,1)",
    limit_icc: float = 0.75,
) -> pd.DataFrame:
    """Summarise percent differences and ICC over regions.

    Parameters
    ----------
    percent : DataFrame, optional
        From :func:`absolute_percent_differences`, :func:`~cordqa.stats.agreement.percent_differences`
        or both, split by ``by`` and ``region``.
    icc : DataFrame, optional
        From :func:`~cordqa.stats.icc.icc`, split likewise.
    by : tuple of str
        Columns that split the summary; pairs of scanners stay apart.
    region : str
    limit_percent : float
        Regions whose absolute difference, or bias, is below count.
    form : str
        Form of the ICC; ``ICC(C,1)`` is ICC(3,1) of Shrout and Fleiss: one measurement, consistency.
    limit_icc : float
        Regions with at least this ICC count.

    Returns
    -------
    DataFrame
        Tidy: ``mean absolute percent difference``, ``regions below 10 %`` (a percentage of the regions),
        the same of the signed difference (``mean |percent bias|``), ``mean ICC(C,1)``, ``regions with
        ICC(C,1) of at least 0.75``, with ``n_regions`` and the number that gave no value.  Groups with
        fewer than five regions are left out.
    """
    if not (limit_percent > 0 and -1 < limit_icc < 1):
        raise ConfigError(
            "limits of regions are out of range", found=f"{limit_percent:g} % and ICC {limit_icc:g}"
        )
    tables = []
    if percent is not None and len(percent):
        check_columns(percent, [*by, region, "first", "second", "statistic", "value"])
        for statistic, (mean, share) in _DIFFERENCES.items():
            tables += _summaries(
                percent[percent["statistic"] == statistic],
                [*by, "first", "second"],
                (mean, share.format(limit_percent)),
                np.abs,
                lambda v: np.abs(v) < limit_percent,
                "%",
            )
    if icc is not None and len(icc):
        check_columns(icc, [*by, region, "statistic", "value"])
        rows = icc[icc["statistic"] == form]
        names = (f"mean {form}", f"regions with {form} of at least {limit_icc:g}")
        tables += _summaries(rows, list(by), names, lambda v: v, lambda v: v >= limit_icc, "1")
    return stack_tables(tables)


def _summaries(
    rows: pd.DataFrame, by: list[str], names: tuple[str, str], shown: Call, kept: Call, unit: str
) -> list[pd.DataFrame]:
    tables = []
    for key, part in rows.groupby(by, sort=False, observed=True):
        values = part["value"].to_numpy(dtype=float)
        known = values[np.isfinite(values)]
        if known.size < _FEWEST:
            continue
        labels = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        mean = float(np.mean(shown(known))) if known.size else math.nan
        tables.append(
            tidy(
                labels,
                statistic=names,
                value=(mean, 100.0 * float(np.mean(kept(known)))),
                unit=(unit, "%"),
                estimator=("mean over regions", "share of regions"),
                n={"regions": known.size, "missing": values.size - known.size},
                note="regions of this table; no interval, because they are no sample of regions",
            )
        )
    return tables
