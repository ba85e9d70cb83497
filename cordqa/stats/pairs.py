"""Two methods side by side: the pairs of a tidy table that agreement is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TableError
from cordqa.stats.table import Layout, as_names, check_choice, clean_table, tidy, to_layout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Columns", "Pair", "cell_means", "make_pairs"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns of a table of two or more methods."""

    value: str
    subject: str | Sequence[str]
    method: str
    replicate: str | None = None
    by: str | Sequence[str] | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods side by side in the groups that have both.

    ``first`` and ``second`` have shape (n_groups, n_subjects, n_replicates), NaN where empty.
    """

    groups: pd.DataFrame
    first: Array
    second: Array
    subjects: NDArray[np.int64]  # with any value, per group
    replicated: NDArray[np.bool_]
    units: NDArray[np.object_]
    rows: NDArray[np.int64]  # which groups of the table

    @property
    def means(self) -> tuple[Array, Array]:
        """Mean of each subject's replicates by either method; NaN without the other's."""
        a, b = (cell_means(x) for x in (self.first, self.second))
        both = np.isfinite(a) & np.isfinite(b)
        return np.where(both, a, math.nan), np.where(both, b, math.nan)

    @property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Subjects with both methods, subjects left out, and single values."""
        both = np.isfinite(self.means[0]).sum(axis=1)
        values = np.isfinite(self.first).sum(axis=(1, 2)) + np.isfinite(self.second).sum(axis=(1, 2))
        return {"subjects": both, "excluded_subjects": self.subjects - both, "values": values}


def cell_means(values: Array) -> Array:
    """Return the mean of the finite replicates along the last axis; NaN where there is none."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def make_pairs(
    data: Any,
    columns: Columns,
    *,
    methods: Sequence[Any] | None,
    nan_policy: str,
    replicates: str,
    align: bool = False,
) -> tuple[list[Pair], pd.DataFrame | None]:
    """Check the table and put the methods side by side, two at a time.

    With ``align``, replicates stand at the place of their label, so that those of one label
    belong together.

    Returns
    -------
    pairs : list of Pair
        Every two methods, with the groups that have both.
    lonely : DataFrame or None
        Tidy rows that say which groups have no two of the methods.

    Raises
    ------
    TableError
        If fewer than two methods are there, or for what the policies do not allow.
    """
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    check_choice(replicates, ("raise", "components", "mean"), name="replicates")
    clean, _ = clean_table(
        data,
        numbers=[columns.value],
        keys=[*as_names(columns.subject), columns.method, *as_names(columns.replicate)],
        by=columns.by,
        unit=columns.unit,
        unique=columns.replicate is not None,
        nan_policy=nan_policy,
    )
    layout = to_layout(
        clean,
        value=columns.value,
        subject=columns.subject,
        rater=columns.method,
        replicate=columns.replicate,
        by=columns.by,
        unit=columns.unit,
        align=align,
    )
    pairs = list(_pairs(layout, methods, columns.method))
    if not pairs:
        where = f"column {columns.method!r}"
        raise TableError("agreement needs two methods", where=where, found="one in every group")
    for pair in pairs:
        _refuse(pair, nan_policy, replicates)
    return pairs, _lonely(layout, pairs)


def _lonely(layout: Layout, pairs: list[Pair]) -> pd.DataFrame | None:
    covered = np.unique(np.concatenate([pair.rows for pair in pairs]))
    rest = np.setdiff1d(np.arange(len(layout)), covered)
    if not rest.size:
        return None
    found = [[m for m in layout.raters[i] if m is not None] for i in rest]
    return tidy(
        layout.groups.iloc[rest].reset_index(drop=True).assign(first=[f[0] for f in found], second=""),
        statistic=("bias",),
        value=math.nan,
        n={"subjects": np.zeros(rest.size, dtype=np.int64)},
        flags="not-estimable",
        note=[[f"no two of the methods to compare, found {', '.join(map(str, f))}"] for f in found],
    )


def _pairs(layout: Layout, methods: Sequence[Any] | None, column: str) -> Iterator[Pair]:
    """Yield the pairs that were asked for, or all, in order of first appearance."""
    present = list(dict.fromkeys(m for row in layout.raters for m in row if m is not None))
    if methods is not None:
        unknown = [m for m in methods if m not in present]
        if unknown or len(methods) < 2:
            raise TableError(
                "the methods to compare are not all in the table",
                where=f"column {column!r}",
                found=", ".join(map(str, present)),
                expected=", ".join(map(str, methods)),
            )
        present = list(methods)
    for a, b in combinations(present, 2):
        rows = np.flatnonzero((layout.raters == a).any(axis=1) & (layout.raters == b).any(axis=1))
        if not rows.size:
            continue
        places = [np.argmax(layout.raters[rows] == m, axis=1) for m in (a, b)]
        first, second = (layout.values[rows, :, c, :] for c in places)
        counts = [layout.counts[rows, :, c] for c in places]
        groups = layout.groups.iloc[rows].reset_index(drop=True).copy()
        yield Pair(
            groups=groups.assign(first=a, second=b),
            first=first,
            second=second,
            subjects=((counts[0] > 0) | (counts[1] > 0)).sum(axis=1),
            replicated=np.maximum(*counts).max(axis=1) > 1,
            units=layout.units[rows],
            rows=rows,
        )


def _refuse(pair: Pair, nan_policy: str, replicates: str) -> None:
    """Stop where the policies do not allow what the table holds."""
    names = pair.groups.iloc[0]
    where = f"{names['first']} against {names['second']}"
    both = np.isfinite(pair.means[0]).sum(axis=1)
    lost = int((pair.subjects - both).sum())
    if lost and nan_policy == "raise":
        raise TableError(
            f"{lost} subjects have a value of one method only",
            where=where,
            todo="choose nan_policy='omit' to leave them out, counted",
        )
    if pair.replicated.any() and replicates == "raise":
        raise TableError(
            "subjects have several values of one method",
            where=where,
            todo="choose replicates='components' (limits for single measurements) or 'mean' (for means)",
        )
