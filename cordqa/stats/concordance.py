"""Lin's concordance of every two methods of a tidy table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cordqa.stats.agreement_core import ccc_arrays
from cordqa.stats.linearity_core import correlation_interval
from cordqa.stats.pairs import Columns, make_pairs
from cordqa.stats.table import check_choice, check_level, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["concordance"]


def concordance(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    method: str = "method",
    methods: Sequence[Any] | None = None,
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    level: float = 0.95,
    replicates: Literal["raise", "mean"] = "raise",
    nan_policy: Literal["raise", "omit"] = "raise",
) -> pd.DataFrame:
    """Return Lin's concordance of every two methods, with Pearson's r and the bias correction.

    Parameters and policies are those of :func:`~cordqa.stats.agreement.bland_altman`.

    Returns
    -------
    DataFrame
        Rows ``ccc`` (Fisher-z interval), ``r`` and ``bias_correction`` (1: no shift, no
        difference in scale).
    """
    check_level(level)
    check_choice(replicates, ("raise", "mean"), name="replicates")
    columns = Columns(value, subject, method, replicate, by, unit)
    pairs, lonely = make_pairs(data, columns, methods=methods, nan_policy=nan_policy, replicates=replicates)
    tables = [] if lonely is None else [lonely.assign(statistic="ccc")]
    for pair in pairs:
        found = ccc_arrays(*pair.means, level=level)
        r_low, r_high = correlation_interval(found.r, found.n, level=level)
        nan = np.full_like(found.value, math.nan)
        flags = np.where(
            np.isnan(found.value), "no-variation", np.where(pair.replicated, "replicates-averaged", "")
        )
        tables.append(
            tidy(
                pair.groups,
                statistic=("ccc", "r", "bias_correction"),
                value=np.stack([found.value, found.r, found.bias_correction], axis=1),
                low=np.stack([found.low, r_low, nan], axis=1),
                high=np.stack([found.high, r_high, nan], axis=1),
                level=level,
                unit="1",
                estimator=("Lin 1989, variances divided by n", "Pearson", "ccc / r"),
                interval_method=("Fisher z", "Fisher z", ""),
                n=pair.counts,
                flags=flags[:, None],
            )
        )
    return stack_tables([*tables[1:], tables[0]] if lonely is not None else tables)
