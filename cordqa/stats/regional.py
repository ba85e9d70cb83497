"""Many regions at once: how many of them repeat well enough.

What is said of one region (percent difference, ICC) is summarised over the regions of a table: their
mean, and the share that keeps a limit.  Regions are those of the table, not a sample of others, so that
a share has no interval; people are the sample, and every region has its own interval elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import ConfigError
from cordqa.stats.table import check_columns, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["summarise_regions"]

_FEWEST = 5
Call = Callable[[Any], Any]


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
        From :func:`~cordqa.stats.agreement.percent_differences`, split by ``by`` and ``region``.
    icc : DataFrame, optional
        From :func:`~cordqa.stats.icc.icc`, split likewise.
    by : tuple of str
        Columns that split the summary; pairs of scanners stay apart.
    region : str
    limit_percent : float
        Regions whose absolute mean difference is below count.
    form : str
        Form of the ICC; ``ICC(C,1)`` is ICC(3,1) of Shrout and Fleiss: one measurement, consistency.
    limit_icc : float
        Regions with at least this ICC count.

    Returns
    -------
    DataFrame
        Tidy: ``mean |percent difference|``, ``regions below 10 %`` (a percentage of the regions),
        ``mean ICC(C,1)``, ``regions with ICC(C,1) of at least 0.75``, with ``n_regions`` and the number
        that gave no value.  Groups with fewer than five regions are left out.
    """
    if not (limit_percent > 0 and -1 < limit_icc < 1):
        raise ConfigError(
            "limits of regions are out of range", found=f"{limit_percent:g} % and ICC {limit_icc:g}"
        )
    tables = []
    if percent is not None and len(percent):
        check_columns(percent, [*by, region, "first", "second", "statistic", "value"])
        rows = percent[percent["statistic"] == "percent_difference"]
        names = ("mean |percent difference|", f"regions below {limit_percent:g} %")
        tables += _summaries(
            rows,
            [*by, "first", "second"],
            names,
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
