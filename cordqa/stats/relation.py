"""How two measures of the same regions go together, and how one is converted to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError, TableError
from cordqa.stats.layout import group_table
from cordqa.stats.relation_core import (
    Calibration,
    Related,
    clustered_correlation,
    fit_calibration,
    within_correlation,
)
from cordqa.stats.table import as_names, check_level, clean_table, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Calibration", "calibrate_measures", "pair_measures", "relate_measures"]

Array = NDArray[np.float64]
_ESTIMATORS = {
    "r_pooled": ("Pearson, all pairs", "Fisher z, jackknife over subjects, t"),
    "r_within": ("repeated-measures correlation", "Fisher z"),
    "r_between": ("Pearson of the means of subjects", "Fisher z, jackknife over subjects, t"),
}


def pair_measures(
    data: Any,
    first: str,
    second: str,
    *,
    value: str = "value",
    measure: str = "quantity",
    subject: str = "subject",
    keys: Sequence[str] = ("region",),
    by: str | Sequence[str] | None = None,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Put two measures of the same subject and place side by side.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    first, second : str
        Labels of the two measures.
    value, measure, subject : str
        Columns.
    keys : sequence of str
        Columns that, with the subject, say which values belong together (region, session ...).
    by : str or sequence of str, optional
        Columns that split the table, such as the tissue class.
    nan_policy : {'raise', 'omit'}

    Returns
    -------
    DataFrame
        Columns ``by``, subject, keys, ``first`` and ``second``; several values of one place are
        averaged.  Places with one measure only are left out.

    Raises
    ------
    TableError
        If a measure is not in the table, or no place has both.
    """
    import pandas as pd

    names = [*as_names(by), subject, *keys]
    clean, _ = clean_table(data, numbers=[value], keys=[*names, measure], nan_policy=nan_policy)
    present = sorted({str(m) for m in clean[measure]})
    for name in (first, second):
        if name not in present:
            raise TableError(
                "the measure is not in the table", where=f"column {measure!r}", found=", ".join(present[:12]),
                expected=name,
            )  # fmt: skip
    if first == second:
        raise TableError("a measure cannot be related to itself", found=first)
    parts = [
        clean[clean[measure].astype(str) == name].groupby(names, sort=False, observed=True)[value].mean()
        for name in (first, second)
    ]
    wide = pd.concat(parts, axis=1, keys=["first", "second"]).reset_index()
    wide = wide.dropna(subset=["first", "second"]).reset_index(drop=True)
    if not len(wide):
        raise TableError(
            "no place was measured by both", found=f"{first} and {second}", todo=f"check {', '.join(names)}"
        )
    return wide


def relate_measures(
    data: Any,
    first: str,
    second: str,
    *,
    value: str = "value",
    measure: str = "quantity",
    subject: str = "subject",
    keys: Sequence[str] = ("region",),
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Correlate two measures and say which curve converts the first to the second.

    Intervals respect that regions of one subject depend on each other: ``r_pooled`` pools all pairs and
    leaves out whole subjects; ``r_within`` asks about regions within subjects, ``r_between`` about
    the means of subjects.  The three answer different questions and may well differ in sign.

    Parameters
    ----------
    data, first, second, value, measure, subject, keys, by, nan_policy
        As in :func:`pair_measures`.
    level : float
        Confidence level.

    Returns
    -------
    DataFrame
        Tidy, per group: ``r_pooled``, ``r_within``, ``r_between``; ``calibration_order`` with the decision
        in its note, ``AICc_gain`` and ``BIC_gain`` of the quadratic over the linear curve,
        ``calibration_c0`` and so on, ``calibration_low`` and ``calibration_high`` (the range outside
        which nothing is converted), ``calibration_r2`` and ``calibration_residual_sd``.

    Examples
    --------
    >>> rows = [
    ...     {"subject": s, "region": r, "quantity": q, "value": (s + r) * k + 0.1 * (s * r % 3)}
    ...     for s in range(6)
    ...     for r in range(5)
    ...     for q, k in (("MTsat", 1.0), ("MWF", 2.0))
    ... ]
    >>> float(relate_measures(rows, "MTsat", "MWF").set_index("statistic").loc["r_pooled", "value"].round(2))
    1.0
    """
    check_level(level)
    pairs = pair_measures(
        data, first, second, value=value, measure=measure, subject=subject, keys=keys, by=by,
        nan_policy=nan_policy,
    )  # fmt: skip
    tables = []
    for group, part in group_table(pairs, as_names(by)):
        label = {**group, "first": first, "second": second}
        x, y = part["first"].to_numpy(float), part["second"].to_numpy(float)
        who = part[subject].to_numpy(dtype=object)
        means = part.groupby(subject, sort=False, observed=True)[["first", "second"]].mean()
        found = {
            "r_pooled": clustered_correlation(x, y, who, level=level),
            "r_within": within_correlation(x, y, who, level=level),
            "r_between": clustered_correlation(
                means["first"], means["second"], means.index.to_numpy(dtype=object), level=level
            ),
        }
        tables.append(_correlations(label, found, level))
        tables.append(_calibrations(label, x, y, who))
    return stack_tables(tables)


def calibrate_measures(
    data: Any,
    first: str,
    second: str,
    *,
    value: str = "value",
    measure: str = "quantity",
    subject: str = "subject",
    keys: Sequence[str] = ("region",),
    nan_policy: str = "raise",
) -> Calibration:
    """Fit the curve that converts the first measure to the second.

    Parameters are those of :func:`pair_measures`.

    Returns
    -------
    Calibration
        Its ``convert`` gives NaN with a reason outside the range that was seen.
    """
    pairs = pair_measures(
        data, first, second, value=value, measure=measure, subject=subject, keys=keys, nan_policy=nan_policy
    )
    return fit_calibration(pairs["first"], pairs["second"], pairs[subject].to_numpy(dtype=object))


def _correlations(label: dict[str, Any], found: dict[str, Related], level: float) -> pd.DataFrame:
    every = list(found.values())
    return tidy(
        label,
        statistic=list(found),
        value=[one.value for one in every],
        low=[one.low for one in every],
        high=[one.high for one in every],
        level=level,
        unit="1",
        estimator=[_ESTIMATORS[name][0] for name in found],
        interval_method=[_ESTIMATORS[name][1] for name in found],
        extra={"p": [one.p for one in every]},
        n={"pairs": every[0].n, "subjects": every[0].n_subjects},
        flags=["" if math.isfinite(one.value) else "not-estimable" for one in every],
        note=[one.note for one in every],
    )


def _calibrations(label: dict[str, Any], x: Array, y: Array, who: NDArray[Any]) -> pd.DataFrame:
    try:
        fit = fit_calibration(x, y, who)
    except InputError as error:
        return tidy(
            label,
            statistic=("calibration_order",),
            value=math.nan,
            n={"pairs": x.size, "subjects": len(set(who.tolist()))},
            flags="not-estimable",
            note=str(error),
        )
    values = {
        "calibration_order": float(fit.order),
        "AICc_gain": fit.aicc[0] - fit.aicc[1],
        "BIC_gain": fit.bic[0] - fit.bic[1],
        **{f"calibration_c{n}": c for n, c in enumerate(fit.coefficients)},
        "calibration_low": fit.low,
        "calibration_high": fit.high,
        "calibration_r2": fit.r2,
        "calibration_residual_sd": fit.residual_sd,
    }
    return tidy(
        label,
        statistic=list(values),
        value=list(values.values()),
        estimator="least squares of second on first; order by AICc with subject intercepts, linear unless "
        "lower by more than 2",
        n={"pairs": fit.n, "subjects": fit.n_subjects},
        note=[fit.decision if name == "calibration_order" else "" for name in values],
    )
