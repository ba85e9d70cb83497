"""Intraclass correlation of tidy tables: every form, also with missing cells and replicates.

Arrays of many regions go to :func:`~cordqa.stats.icc_core.icc_arrays`, which this module calls;
:mod:`cordqa.stats.icc_core` says which form answers which question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TableError
from cordqa.stats.crossed_reml import CrossedFit, fit_crossed, occupied, same_pattern
from cordqa.stats.icc_core import (
    FORMS,
    ICCs,
    Interval,
    TwoWay,
    icc_arrays,
    icc_from_components,
    icc_from_mean_squares,
    mean_squares,
    step_up,
)
from cordqa.stats.icc_groups import AGREEMENT, Groups, Settings, spread_notes
from cordqa.stats.icc_replicated import (
    REPLICATED_FORMS,
    ReplicatedICCs,
    replicated_icc_arrays,
    replicated_icc_from_components,
)
from cordqa.stats.pairs import cell_means
from cordqa.stats.table import (
    Layout,
    as_names,
    check_choice,
    check_level,
    clean_table,
    stack_tables,
    to_layout,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FORMS",
    "REPLICATED_FORMS",
    "ICCs",
    "ReplicatedICCs",
    "icc",
    "icc_arrays",
    "icc_from_components",
    "icc_from_mean_squares",
    "mean_squares",
    "replicated_icc_arrays",
    "replicated_icc_from_components",
    "step_up",
]

Array = NDArray[np.float64]


def icc(
    data: Any,
    *,
    value: str = "value",
    subject: str | Sequence[str] = "subject",
    rater: str = "scanner",
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    level: float = 0.95,
    interval: Interval = "mcgraw-wong",
    nan_policy: Literal["raise", "omit", "reml"] = "raise",
    replicates: Literal["raise", "components", "mean"] = "raise",
    seed: int = 0,
) -> pd.DataFrame:
    """Return every form of the intraclass correlation with F, degrees of freedom and interval.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    value, subject, rater : str
        Columns of the value (any unit), of what was measured, and of what measured it (scanner,
        site, session, reader).  ``subject`` may be several columns.
    replicate : str, optional
        Column that numbers repeats within one subject and rater.
    by : str or sequence of str, optional
        Columns that split the table (region, metric, level); computed for all at once.
    unit : str, optional
        Column with the unit; mixed units within a group are refused.
    level : float
        Confidence level.
    interval : {'mcgraw-wong', 'generalized'}
        Interval of the agreement forms, see :func:`~cordqa.stats.icc_core.icc_arrays`.
    nan_policy : {'raise', 'omit', 'reml'}
        Missing cells: stop; leave out every subject that lacks one (its loss is counted and
        flagged ``listwise``); or estimate the components by REML from all values.
    replicates : {'raise', 'components', 'mean'}
        Several values in a cell: stop; keep the interaction apart, so that the ICC are those
        of one measurement; or average them, which gives the (higher) ICC of the means and is
        flagged ``replicates-averaged``.
    seed : int
        Seed of generalized intervals.

    Returns
    -------
    DataFrame
        Tidy, one row per group and form, with F, df1, df2, p (one-sided, of no correlation),
        ``n_subjects``, ``n_raters``, ``n_values``, ``n_missing``, ``n_excluded_subjects``.
        NaN with the reason in ``note`` where a group cannot be estimated.

    Raises
    ------
    TableError
        For a missing column, unusable cells, missing cells or replicates, as the two policies
        say.

    Examples
    --------
    >>> scores = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> rows = [
    ...     {"subject": i, "scanner": j, "value": v} for i, r in enumerate(scores) for j, v in enumerate(r)
    ... ]
    >>> icc(rows).set_index("statistic")["value"].round(2).to_dict()["ICC(A,1)"]
    0.29
    """
    check_level(level)
    check_choice(interval, ("mcgraw-wong", "generalized"), name="interval")
    check_choice(nan_policy, ("raise", "omit", "reml"), name="nan_policy")
    check_choice(replicates, ("raise", "components", "mean"), name="replicates")
    keys = [*as_names(subject), rater, *as_names(replicate)]
    clean, _ = clean_table(
        data,
        numbers=[value],
        keys=keys,
        by=by,
        unit=unit,
        unique=replicate is not None,
        nan_policy="raise" if nan_policy == "raise" else "omit",
    )
    layout = to_layout(clean, value=value, subject=subject, rater=rater, replicate=replicate, by=by)
    _refuse(layout, nan_policy, replicates)
    settings = Settings(level, interval, nan_policy == "reml", replicates == "mean", seed)
    repeated = layout.n_replicates > 1
    parts = []
    if (~repeated | settings.average).any():
        parts.append(_six_forms(layout, np.flatnonzero(~repeated | settings.average), settings))
    if (repeated & ~np.bool_(settings.average)).any():
        parts.append(_five_forms(layout, np.flatnonzero(repeated), settings))
    return stack_tables(parts) if len(parts) > 1 else parts[0]


def _refuse(layout: Layout, nan_policy: str, replicates: str) -> None:
    """Stop at the first group with what the policies do not allow."""
    for i in np.flatnonzero(layout.n_missing) if nan_policy == "raise" else ():
        n, k = int(layout.n_subjects[i]), int(layout.n_raters[i])
        row, column = np.argwhere(layout.counts[i, :n, :k] == 0)[0]
        raise TableError(
            f"{layout.n_missing[i]} of {n * k} cells have no value, the first for "
            f"{layout.subjects[i, row]!r} by {layout.raters[i, column]!r}",
            where=_group_name(layout, int(i)),
            todo="choose nan_policy='reml' (uses every value) or 'omit' (leaves those subjects out)",
        )
    for i in np.flatnonzero(layout.n_replicates > 1) if replicates == "raise" else ():
        row, column = np.argwhere(layout.counts[i] > 1)[0]
        raise TableError(
            f"{layout.counts[i, row, column]} values for {layout.subjects[i, row]!r} by "
            f"{layout.raters[i, column]!r}",
            where=_group_name(layout, int(i)),
            todo="choose replicates='components' (ICC of one measurement) or 'mean' (ICC of the means)",
        )


def _group_name(layout: Layout, index: int) -> str:
    return ", ".join(f"{k}={v}" for k, v in layout.groups.iloc[index].items())


def _six_forms(layout: Layout, rows: NDArray[np.int64], settings: Settings) -> pd.DataFrame:
    """Tables with one value per cell, or whose replicates are averaged on request."""
    cells = cell_means(layout.values[rows])
    groups = Groups(rows.size, FORMS)
    shapes = np.stack([layout.n_subjects[rows], layout.n_raters[rows], layout.n_missing[rows]], axis=1)
    unique, inverse = np.unique(shapes, axis=0, return_inverse=True)
    for i, (n, k, missing) in enumerate(unique):
        members = np.flatnonzero(inverse.ravel() == i)
        if n < 2 or k < 2:
            groups.give_up(members, f"needs two subjects and two raters, found {n} and {k}")
        elif missing and settings.reml:
            tables = [(int(i), occupied(cells[i, :n, :k, None])) for i in members]
            for index, part in same_pattern(tables):
                _estimate_reml(part[..., 0], index, groups, settings)
        elif missing:
            for member in members:
                _listwise(cells[member, :n, :k], int(member), groups, settings)
        else:
            _complete(cells[members, :n, :k], members, groups, settings)
    if settings.average:
        groups.flag(np.flatnonzero(layout.n_replicates[rows] > 1), "replicates-averaged")
    return groups.table(layout, rows, settings)


def _complete(cells: Array, members: NDArray[np.int64], groups: Groups, settings: Settings) -> None:
    ms = mean_squares(cells)
    found = icc_from_mean_squares(ms, level=settings.level, interval=settings.interval, seed=settings.seed)
    groups.store(members, found)
    groups.methods[members] = "mean squares"
    groups.notes[members] = spread_notes(cells, np.sqrt(ms.within))
    groups.notes[members[np.isnan(found.value).all(axis=-1)]] = "all values are equal"
    if settings.interval == "mcgraw-wong":
        _flag_short(ms, members, groups)


def _flag_short(ms: TwoWay, members: NDArray[np.int64], groups: Groups) -> None:
    """Mark agreement intervals that are known to be too short (coverage 83 to 93 %)."""
    subject, rater = (ms.subjects - ms.error) / ms.k, (ms.raters - ms.error) / ms.n
    short = members[(rater > 0.5 * subject) & (rater > ms.error)]
    if short.size:
        groups.flag(np.ix_(short, np.flatnonzero(AGREEMENT)), "interval-may-be-short")


def _listwise(cells: Array, member: int, groups: Groups, settings: Settings) -> None:
    """One table with empty cells: the complete subjects only, on request."""
    whole = np.isfinite(cells).all(axis=1)
    groups.excluded[member] = int((~whole).sum())
    groups.flag(member, "listwise")
    if whole.sum() < 2:
        groups.give_up(member, f"only {int(whole.sum())} subjects have a value of every rater")
        return
    _complete(cells[None, whole], np.array([member]), groups, settings)


def _estimate_reml(cells: Array, members: NDArray[np.int64], groups: Groups, settings: Settings) -> None:
    """Tables whose empty cells are the same, shape (n_tables, n_subjects, k_raters)."""
    n, k = cells.shape[1:]
    fit = fit_crossed(cells[..., None], interaction=False)
    good = _give_up_bad(fit, members, groups)
    if not good.any():
        return
    found = icc_from_components(
        *fit.variances[good].T,
        n=n,
        k=k,
        df_error=float(np.isfinite(cells[0]).sum() - n - k + 1),
        level=settings.level,
        interval=settings.interval,
        seed=settings.seed,
    )
    used = members[good]
    groups.store(used, found)
    groups.methods[used] = "REML components as mean squares"
    groups.notes[used] = spread_notes(cells[good], np.sqrt(fit.variances[good, 1:].sum(axis=1)))
    groups.flag(used, "missing-cells")
    groups.flag(used[fit.singular[good]], "singular")


def _give_up_bad(fit: CrossedFit, members: NDArray[np.int64], groups: Groups) -> NDArray[np.bool_]:
    """Say why some tables were not fitted, and return which were."""
    for member, reason in zip(members, fit.reasons, strict=True):
        if reason:
            groups.give_up(member, reason)
    return np.array([not reason for reason in fit.reasons], dtype=bool)


def _five_forms(layout: Layout, rows: NDArray[np.int64], settings: Settings) -> pd.DataFrame:
    """Tables with replicates, whose interaction is kept apart."""
    groups = Groups(rows.size, REPLICATED_FORMS)
    position = np.full(len(layout), -1)
    position[rows] = np.arange(rows.size)
    done = np.zeros(len(layout), dtype=bool)
    for index, values in layout.batches():
        inside = position[index] >= 0
        if inside.any() and min(values.shape[1:3]) >= 2:
            members = position[index[inside]]
            found = replicated_icc_arrays(values[inside], level=settings.level, seed=settings.seed)
            _keep_replicated(found, members, groups, values[inside])
            groups.methods[members] = "expected mean squares"
            done[index[inside]] = True
    tables = [(int(position[i]), occupied(layout.dense(i))) for i in rows[~done[rows]]]
    if tables and not settings.reml:
        _refuse_unequal(layout, rows[tables[0][0]], tables[0][1])
    for members, part in same_pattern(tables):
        _unequal_replicates(part, members, groups, settings)
    return groups.table(layout, rows, settings)


def _keep_replicated(
    found: ReplicatedICCs, members: NDArray[np.int64], groups: Groups, values: Array
) -> None:
    groups.store_replicated(members, found)
    within = np.maximum(found.components[:, 1:], 0.0).sum(axis=-1)
    groups.notes[members] = spread_notes(values.mean(axis=-1), np.sqrt(within))
    negative = (found.components < 0).any(axis=-1)
    groups.flag(members[negative], "negative-component-truncated")


def _refuse_unequal(layout: Layout, index: int, values: Array) -> None:
    if min(values.shape[:2]) >= 2:
        raise TableError(
            "cells hold different numbers of replicates",
            where=_group_name(layout, index),
            todo="choose nan_policy='reml', which uses every value, or replicates='mean'",
        )


def _unequal_replicates(
    values: Array, members: NDArray[np.int64], groups: Groups, settings: Settings
) -> None:
    """Tables whose missing replicates are the same, shape (n_tables, n, k, m)."""
    n, k = values.shape[1:3]
    if n < 2 or k < 2:
        groups.give_up(members, f"needs two subjects and two raters, found {n} and {k}")
        return
    fit = fit_crossed(values, interaction=True)
    good = _give_up_bad(fit, members, groups)
    if not good.any():
        return
    counts = np.isfinite(values[0]).sum(axis=2)
    filled = int((counts > 0).sum())
    found = replicated_icc_from_components(
        fit.variances[good],
        n=n,
        k=k,
        m=counts.sum() / filled,
        df_residual=float(counts.sum() - filled),
        level=settings.level,
        seed=settings.seed,
    )
    used = members[good]
    sums = np.where(np.isfinite(values[good]), values[good], 0.0).sum(axis=-1)
    cells = sums / np.where(counts > 0, counts, math.nan)
    _keep_replicated(found, used, groups, cells[..., None])
    groups.methods[used] = "REML components as mean squares"
    groups.flag(used, "unbalanced")
    groups.flag(used[fit.singular[good]], "singular")
