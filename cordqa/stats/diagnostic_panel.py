"""Several markers on the same people: compared in pairs, and combined to one score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import ConfigError
from cordqa.stats.diagnostic_people import (
    AREA,
    People,
    Positive,
    add_note,
    area_flags,
    read_outcome,
    select_people,
)
from cordqa.stats.logistic import CrossValidatedAuc, cross_validated_auc
from cordqa.stats.quantiles import normal_quantile
from cordqa.stats.roc import RocAreas, auc_interval, roc_areas
from cordqa.stats.table import check_level, join_flags, stack_tables, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["combined_auc", "compare_auc"]


def compare_auc(
    data: Any,
    markers: Sequence[str],
    *,
    outcome: str,
    case: Any = None,
    subject: str | None = None,
    positive: Positive = "auto",
    level: float = 0.95,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Compare the areas of markers measured on the same people, every pair.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        One row per person, one column per marker.
    markers : sequence of str
        Two columns or more.
    outcome, case, subject, positive, level, nan_policy
        As in :func:`cordqa.stats.diagnostic.roc_auc`.  Only people with every marker enter; with
        ``nan_policy='omit'`` the others are counted in ``n_missing``.

    Returns
    -------
    DataFrame
        Row ``AUC difference`` per pair with columns ``marker``, ``against``, ``z`` and ``p`` (two
        sided).  Not valid for a score against a marker that went into it on the same people.

    References
    ----------
    DeLong E. R. et al. 1988, Biometrics 44:837, doi:10.2307/2531595.
    """
    from scipy.special import ndtr

    check_level(level)
    if len(markers) < 2:
        raise ConfigError("a comparison needs two markers", found=str(len(markers)))
    cohort = read_outcome(data, markers, outcome, case, subject, None, nan_policy)
    people = select_people(cohort.frame, markers, outcome, cohort.case, subject, positive)
    areas = roc_areas(people.scores, people.is_case, clusters=people.clusters)
    z_level = normal_quantile(0.5 + 0.5 * level)
    rows = []
    for i, j in combinations(range(len(markers)), 2):
        difference = areas.area[i] - areas.area[j]
        variance = areas.covariance[i, i] + areas.covariance[j, j] - 2.0 * areas.covariance[i, j]
        error = float(np.sqrt(max(variance, 0.0)))
        z = difference / error if error > 0.0 else np.nan
        rows.append(
            tidy(
                {"marker": markers[i], "against": markers[j]},
                statistic=["AUC difference"],
                value=[difference],
                low=[difference - z_level * error],
                high=[difference + z_level * error],
                level=level,
                estimator=AREA,
                interval_method="DeLong, paired",
                n=people.counts,
                extra={"z": z, "p": 2.0 * float(ndtr(-abs(z)))},
                flags=join_flags(area_flags(people, 0.5)),
            )
        )
    return add_note(stack_tables(rows), cohort.note)


def combined_auc(
    data: Any,
    markers: Sequence[str],
    *,
    outcome: str,
    case: Any = None,
    positive: Positive = "auto",
    ridge: float = 0.0,
    n_folds: int = 5,
    n_repeats: int = 20,
    level: float = 0.95,
    seed: int = 0,
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Judge a logistic combination of markers on people that its fit has not seen.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        One row per person, one column per marker or covariate.
    markers : sequence of str
        Columns to combine.
    outcome, case, positive, level, nan_policy
        As in :func:`cordqa.stats.diagnostic.roc_auc`; ``positive`` concerns the single markers only.
    ridge : float
        Penalty, see :func:`cordqa.stats.logistic.fit_logistic`.
    n_folds, n_repeats, seed : int
        Repeated stratified cross-validation.

    Returns
    -------
    DataFrame
        ``AUC cross-validated`` (the one to report), ``AUC apparent`` (same people, always too
        good), ``optimism`` (their difference), ``AUC best single`` and ``coefficient X`` per
        marker.
    """
    check_level(level)
    cohort = read_outcome(data, markers, outcome, case, None, None, nan_policy)
    people = select_people(cohort.frame, markers, outcome, cohort.case, None, positive)
    raw = (people.scores * people.signs[:, None]).T
    result = cross_validated_auc(
        raw, people.is_case, ridge=ridge, n_folds=n_folds, n_repeats=n_repeats, seed=seed
    )
    single = roc_areas(people.scores, people.is_case)
    return add_note(_combined_table(markers, people, result, single, level), cohort.note)


def _combined_table(
    markers: Sequence[str], people: People, result: CrossValidatedAuc, single: RocAreas, level: float
) -> pd.DataFrame:
    best = int(np.argmax(single.area))
    areas = np.array([result.area, result.apparent.area[0], single.area[best]])
    variances = np.array([result.variance, result.apparent.covariance[0, 0], single.covariance[best, best]])
    bounds, methods = auc_interval(areas, variances, single.n_cases, single.n_controls, level=level)
    folds = f"{result.n_repeats} x {result.n_folds}-fold cross-validation"
    separated = result.n_separated > 0 or not result.fit.converged[0]
    flag = "separated" if separated else ""
    n_more = 1 + len(markers)
    coefficients = result.fit.coefficients[0]
    return tidy(
        {},
        statistic=[
            "AUC cross-validated",
            "AUC apparent",
            "AUC best single",
            "optimism",
            *(f"coefficient {name}" for name in markers),
        ],
        value=[*areas, result.optimism, *coefficients[1:]],
        low=[*bounds.low, *[np.nan] * n_more],
        high=[*bounds.high, *[np.nan] * n_more],
        level=level,
        estimator=[
            f"logistic score, {folds}, compared within folds",
            "logistic score on the people it was fitted to",
            f"{AREA}; {markers[best]}",
            "apparent minus cross-validated",
            *["logistic regression, per unit of the marker"] * len(markers),
        ],
        interval_method=[f"{methods[0]}, placements within folds", *methods[1:], *[""] * n_more],
        n=people.counts,
        flags=join_flags(flag, area_flags(people, 0.5)),
        note=[
            "conditional on the people that trained the score, so a little narrow in small samples",
            "not a measure of diagnostic value: the score has seen these people",
            "the best of several was picked on these data",
            *[""] * n_more,
        ],
    )
