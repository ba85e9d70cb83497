"""Laying a checked tidy table out as one array padded with NaN, so that statistics vectorise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Layout", "as_names", "group_table", "to_layout", "unit_names"]


def as_names(names: str | Sequence[str] | None) -> list[str]:
    """Return column names as a list: ``None`` is empty, a single name is a list of one."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


@dataclass(frozen=True, slots=True)
class Layout:
    """A tidy table as one array, padded with NaN.

    Attributes
    ----------
    values : ndarray, shape (n_groups, n_subjects, n_raters, n_replicates)
        NaN where there is no value, and beyond a group's own number of subjects or raters.
    groups : DataFrame
        The ``by`` columns, one row per group, in order of first appearance.
    subjects, raters : ndarray of object, shape (n_groups, n_subjects) and (n_groups, n_raters)
        Labels, ``None`` where padded.
    n_subjects, n_raters : ndarray of int, shape (n_groups,)
        Levels that occur in each group.
    n_values : ndarray of int, shape (n_groups,)
        Finite values in each group.
    n_missing : ndarray of int, shape (n_groups,)
        Cells (subject by rater) without any finite value.
    counts : ndarray of int, shape (n_groups, n_subjects, n_raters)
        Finite values per cell.
    units : ndarray of object, shape (n_groups,)
        Unit of the values of each group; empty text where none was given.
    n_unusable : ndarray of int, shape (n_groups,)
        Rows whose value was NaN.
    """

    values: NDArray[np.float64]
    groups: pd.DataFrame
    subjects: NDArray[np.object_]
    raters: NDArray[np.object_]
    n_subjects: NDArray[np.int64]
    n_raters: NDArray[np.int64]
    n_values: NDArray[np.int64]
    n_missing: NDArray[np.int64]
    counts: NDArray[np.int64]
    units: NDArray[np.object_]
    n_unusable: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def n_replicates(self) -> NDArray[np.int64]:
        """Largest number of finite replicates in a cell, per group."""
        largest: NDArray[np.int64] = self.counts.max(axis=(1, 2), initial=0)
        return largest

    @property
    def balanced(self) -> NDArray[np.bool_]:
        """Whether every cell of a group holds the same number of values."""
        expected = self.n_subjects * self.n_raters * self.n_replicates
        filled: NDArray[np.bool_] = (self.n_values == expected) & (self.n_missing == 0)
        return filled

    def dense(self, index: int) -> NDArray[np.float64]:
        """Return one group without padding, shape (n_subjects, n_raters, n_replicates)."""
        n, k = int(self.n_subjects[index]), int(self.n_raters[index])
        return self.values[index, :n, :k, : max(1, int(self.n_replicates[index]))]

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Yield balanced groups of equal shape together.

        Yields
        ------
        index : ndarray of int, shape (n_batch,)
            Which groups.
        values : ndarray, shape (n_batch, n_subjects, n_raters, n_replicates)
            Without NaN.
        """
        shapes = np.stack([self.n_subjects, self.n_raters, self.n_replicates], axis=1)
        full = np.flatnonzero(self.balanced & (self.n_values > 0))
        if not full.size:
            return
        unique, inverse = np.unique(shapes[full], axis=0, return_inverse=True)
        for i, (n, k, m) in enumerate(unique):
            index = full[inverse.ravel() == i]
            yield index, self.values[index, :n, :k, :m]


def _codes(frame: pd.DataFrame, names: Sequence[str]) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Number the combinations of columns in order of first appearance."""
    import pandas as pd

    if not names:
        return np.zeros(len(frame), dtype=np.int64), pd.DataFrame(index=[0])
    codes = frame.groupby(list(names), sort=False, dropna=False, observed=True).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    labels = frame.iloc[first].loc[:, list(names)].reset_index(drop=True)
    return codes.astype(np.int64), labels


def _codes_in_order(frame: pd.DataFrame, name: str | None) -> NDArray[np.int64]:
    """Number the labels of a column in their own order (mixed types included)."""
    import pandas as pd

    if name is None:
        return np.zeros(len(frame), dtype=np.int64)
    return np.asarray(pd.factorize(frame[name], sort=True)[0], dtype=np.int64)


def _ranks(group: NDArray[np.int64], code: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the codes that occur within each group from 0; return also the pairs (group, code)."""
    width = int(code.max(initial=0)) + 1
    pairs, inverse = np.unique(group * width + code, return_inverse=True)
    owner = pairs // width
    start = np.searchsorted(owner, np.arange(int(group.max(initial=0)) + 1))
    rank = np.arange(pairs.size) - start[owner]
    return rank[inverse.ravel()], np.stack([owner, pairs % width, rank], axis=1)


def _labels(pairs: NDArray[np.int64], names: NDArray[np.object_], n_groups: int) -> NDArray[np.object_]:
    width = int(pairs[:, 2].max(initial=0)) + 1
    table = np.full((n_groups, width), None, dtype=object)
    table[pairs[:, 0], pairs[:, 2]] = names[pairs[:, 1]]
    return table


def _level_names(labels: pd.DataFrame) -> NDArray[np.object_]:
    """Name a level: its label, or the joined labels where several columns make one key."""
    names = np.empty(len(labels), dtype=object)
    if labels.shape[1] == 1:
        names[:] = labels.iloc[:, 0].tolist()
    else:
        names[:] = [", ".join(map(str, row)) for row in labels.to_numpy(dtype=object)]
    return names


def to_layout(
    frame: pd.DataFrame,
    *,
    value: str,
    subject: str | Sequence[str],
    rater: str | None = None,
    replicate: str | None = None,
    by: str | Sequence[str] | None = None,
    unit: str | None = None,
    align: bool = False,
) -> Layout:
    """Lay a checked tidy table out as an array.

    Parameters
    ----------
    frame : DataFrame
        From :func:`clean_table`; NaN values are allowed and counted as missing.
    value : str
        Column of numbers.
    subject : str or sequence of str
        What is measured repeatedly; several columns together make one key.
    rater : str, optional
        What measures (scanner, site, session).  Without it there is one.
    replicate : str, optional
        Column that orders the repeats within a cell; without it, order of rows.
    by : str or sequence of str, optional
        Columns that split the table into independent groups.
    unit : str, optional
        Column with the unit, one per group (:func:`clean_table` sees to that).
    align : bool
        Give every label of ``replicate`` a place of its own, so that equal places mean equal
        labels; otherwise the replicates of a cell stand at the front, in order of their labels.

    Returns
    -------
    Layout
        Groups, subjects and raters in order of first appearance.
    """
    names = as_names(by)
    group, groups = _codes(frame, names)
    who, who_labels = _codes(frame, as_names(subject))
    where, where_labels = _codes(frame, as_names(rater))
    row, who_pairs = _ranks(group, who)
    column, where_pairs = _ranks(group, where)
    n, k, n_groups = int(row.max()) + 1, int(column.max()) + 1, len(groups)
    cell = (group * n + row) * k + column
    number = frame[value].to_numpy(dtype=float)
    label = _codes_in_order(frame, replicate)
    if align:
        order, replicate_index = np.arange(cell.size), _ranks(group, label)[0]
    else:
        # Missing values go last within their cell, so that replicates stand at the front.
        order = np.lexsort((label, np.isnan(number), cell))
        replicate_index = np.arange(order.size) - np.searchsorted(cell[order], cell[order], side="left")
    m = int(replicate_index.max()) + 1
    flat = np.full((n_groups * n * k, m), math.nan)
    flat[cell[order], replicate_index] = number[order]
    values = flat.reshape(n_groups, n, k, m)
    counts = np.isfinite(values).sum(axis=3)
    n_subjects = np.bincount(who_pairs[:, 0], minlength=n_groups)
    n_raters = np.bincount(where_pairs[:, 0], minlength=n_groups)
    filled = (counts > 0).sum(axis=(1, 2))
    return Layout(
        values=values,
        groups=groups,
        subjects=_labels(who_pairs, _level_names(who_labels), n_groups),
        raters=_labels(where_pairs, _level_names(where_labels), n_groups)
        if rater
        else np.full((n_groups, 1), "", dtype=object),
        n_subjects=n_subjects,
        n_raters=n_raters,
        n_values=counts.sum(axis=(1, 2)),
        n_missing=n_subjects * n_raters - filled,
        counts=counts,
        units=_units(frame, unit, group, n_groups),
        n_unusable=np.bincount(group[np.isnan(number)], minlength=n_groups),
    )


def unit_names(column: pd.Series[Any]) -> NDArray[np.object_]:
    """Return a column of units as text; a missing one is empty."""
    cells = column.astype(object)
    names = np.empty(len(column), dtype=object)
    names[:] = cells.where(cells.notna(), "").astype(str).str.strip().tolist()
    return names


def _units(
    frame: pd.DataFrame, unit: str | None, group: NDArray[np.int64], n_groups: int
) -> NDArray[np.object_]:
    units = np.full(n_groups, "", dtype=object)
    if unit is not None:
        units[group] = unit_names(frame[unit])
    return units


def group_table(
    frame: pd.DataFrame, by: str | Sequence[str] | None
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield each group of a table with its ``by`` values, in order of first appearance."""
    names = as_names(by)
    if not names:
        yield {}, frame
        return
    for key, part in frame.groupby(names, sort=False, dropna=False, observed=True):
        yield dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True)), part
