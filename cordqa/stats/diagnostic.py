"""Diagnostic value of markers: ROC areas and thresholds, comparisons, combinations.

Which function?  :func:`roc_auc` for each marker of a long table (one row per person and marker);
:func:`compare_auc` and :func:`combined_auc` for markers side by side in columns, which
:func:`spread_markers` makes from a long table.  :func:`roc_points` gives the curve for a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import CordqaError, FitError
from cordqa.stats.diagnostic_panel import combined_auc, compare_auc
from cordqa.stats.diagnostic_people import (
    AREA,
    People,
    Positive,
    add_note,
    area_flags,
    direction_note,
    read_outcome,
    select_people,
    spread_markers,
)
from cordqa.stats.proportions import proportion_interval
from cordqa.stats.roc import (
    AucInterval,
    RocAreas,
    auc_interval,
    bootstrap_youden,
    roc_areas,
    roc_curve,
    youden_index,
)
from cordqa.stats.table import check_choice, check_level, group_table, join_flags, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["combined_auc", "compare_auc", "roc_auc", "roc_points", "spread_markers"]

_YOUDEN = "threshold with the largest sensitivity + specificity, chosen on these data"


def roc_auc(
    data: Any,
    value: str,
    *,
    outcome: str,
    case: Any = None,
    subject: str | None = None,
    by: str | Sequence[str] | None = None,
    positive: Positive = "auto",
    interval: AucInterval = "auto",
    level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Area under the ROC curve and the best threshold of every marker in a long table.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one row per person and marker.
    value : str
        Column of marker values, any unit.
    outcome : str
        Column with two labels.
    case : object, optional
        The label of a case; may be omitted for True/False and 1/0.
    subject : str, optional
        Column that names people.  Where a person has several values of a marker, the interval
        counts people (Obuchowski), not values.
    by : str or sequence of str, optional
        Columns that tell markers apart, for example quantity and region.
    positive : {'auto', 'high', 'low'}
        Which end speaks for a case.  ``auto`` looks at the data, which makes a worthless marker
        look slightly better than it is, and says so.
    interval : {'auto', 'wald', 'logit', 'score'}
        See :func:`cordqa.stats.roc.auc_interval`.
    level : float
        Confidence level.
    n_bootstrap, seed : int
        For the intervals of the threshold and what it achieves.
    nan_policy : {'raise', 'omit'}

    Returns
    -------
    DataFrame
        Rows ``AUC``, ``Youden J``, ``threshold``, ``sensitivity`` and ``specificity`` per marker.
        The last four are chosen on these data and so are optimistic.

    Raises
    ------
    TableError
        If the outcome has not exactly two labels, or a cell cannot be used.
    FitError
        If no marker has cases and controls.

    References
    ----------
    DeLong E. R. et al. 1988, Biometrics 44:837, doi:10.2307/2531595.
    Youden W. J. 1950, Cancer 3:32.
    """
    check_choice(positive, ("auto", "high", "low"), name="positive")
    check_choice(interval, ("auto", "wald", "logit", "score"), name="interval")
    check_level(level)
    cohort = read_outcome(data, [value], outcome, case, subject, by, nan_policy)
    tables, reasons = [], []
    for group, part in group_table(cohort.frame, by):
        try:
            people = select_people(part, [value], outcome, cohort.case, subject, positive)
            areas = roc_areas(people.scores, people.is_case, clusters=people.clusters)
            table = _marker_table(group, people, areas, positive, interval, level, n_bootstrap, seed)
        except CordqaError as error:
            reasons.append(str(error))
            table = tidy(group, statistic=["AUC"], value=[np.nan], flags="not-estimable", note=str(error))
        tables.append(table)
    if len(reasons) == len(tables):
        raise FitError("no marker can be judged", found=reasons[0])
    return add_note(stack_tables(tables), cohort.note)


def _marker_table(
    group: dict[str, Any],
    people: People,
    areas: RocAreas,
    positive: Positive,
    interval: AucInterval,
    level: float,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Rows of one marker."""
    bounds, methods = auc_interval(
        areas.area, np.diag(areas.covariance), areas.n_cases, areas.n_controls, level=level, method=interval
    )
    curve = roc_curve(people.scores[0], people.is_case)
    best = youden_index(curve)
    threshold = float(np.clip(curve.threshold[best], people.scores[0].min(), people.scores[0].max()))
    sensitivity, specificity = float(curve.sensitivity[best]), float(curve.specificity[best])
    found = bootstrap_youden(
        people.scores[0], people.is_case, clusters=people.clusters, n_bootstrap=n_bootstrap, seed=seed
    )
    tails = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
    ends = {name: np.quantile(sample, tails) for name, sample in found.items()}
    cut = np.sort(people.signs[0] * ends["threshold"])
    low = [bounds.low[0], ends["J"][0], cut[0], ends["sensitivity"][0], ends["specificity"][0]]
    high = [bounds.high[0], ends["J"][1], cut[1], ends["sensitivity"][1], ends["specificity"][1]]
    flag, direction = direction_note(people, 0, positive)
    side = "at or above" if people.signs[0] > 0 else "at or below"
    optimistic = f"chosen on these data, so optimistic; positive {side} the threshold"
    method = f"bootstrap of people, threshold found anew, percentiles of {n_bootstrap}"
    return tidy(
        group,
        statistic=["AUC", "Youden J", "threshold", "sensitivity", "specificity"],
        value=[
            areas.area[0],
            sensitivity + specificity - 1.0,
            people.signs[0] * threshold,
            sensitivity,
            specificity,
        ],
        low=low,
        high=high,
        level=level,
        estimator=[AREA, *[_YOUDEN] * 4],
        interval_method=[methods[0], *[method] * 4],
        n=people.counts,
        flags=join_flags(flag, area_flags(people, float(areas.area[0]))),
        note=[direction, *[f"{direction}; {optimistic}"] * 4],
    )


def roc_points(
    data: Any,
    value: str,
    *,
    outcome: str,
    case: Any = None,
    by: str | Sequence[str] | None = None,
    positive: Positive = "auto",
    level: float = 0.95,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Points of the ROC curve of every marker, with Wilson intervals.

    Parameters
    ----------
    data, value, outcome, case, by, positive, level, nan_policy
        As in :func:`roc_auc`.

    Returns
    -------
    DataFrame
        By columns, ``threshold``, ``sensitivity``, ``sensitivity_low``, ``sensitivity_high``,
        ``specificity``, ``specificity_low``, ``specificity_high``; infinite thresholds at both
        ends of the curve.
    """
    import pandas as pd

    cohort = read_outcome(data, [value], outcome, case, None, by, nan_policy)
    tables = []
    for group, part in group_table(cohort.frame, by):
        people = select_people(part, [value], outcome, cohort.case, None, positive)
        if people.is_case.all() or not people.is_case.any():
            continue
        curve = roc_curve(people.scores[0], people.is_case)
        hits = proportion_interval(curve.true_positives, curve.n_cases, level=level)
        passes = proportion_interval(curve.n_controls - curve.false_positives, curve.n_controls, level=level)
        columns = {
            "threshold": people.signs[0] * curve.threshold,
            "sensitivity": curve.sensitivity,
            "sensitivity_low": hits.low,
            "sensitivity_high": hits.high,
            "specificity": curve.specificity,
            "specificity_low": passes.low,
            "specificity_high": passes.high,
        }
        keys = {name: [key] * curve.threshold.size for name, key in group.items()}
        tables.append(pd.DataFrame({**keys, **columns}))
    if not tables:
        raise FitError("no marker has both cases and controls", where=value)
    return pd.concat(tables, ignore_index=True)
