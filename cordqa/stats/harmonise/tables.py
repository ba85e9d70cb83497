"""Harmonising a tidy table: laid out as scans by features, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, TableError
from cordqa.records import Notice
from cordqa.stats.harmonise.base import Harmoniser
from cordqa.stats.table import Problem, as_names, clean_table, to_notices

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ScanTable", "harmonise_table", "to_scans"]


@dataclass(frozen=True, slots=True)
class ScanTable:
    """A tidy table as scans by features.

    Attributes
    ----------
    values : ndarray, shape (n_scans, n_features)
        NaN where a scan has no value.
    batch, subject : ndarray of object, shape (n_scans,)
    covariates : dict of str to ndarray
    features : tuple of str
    rows, columns : ndarray of int, shape (n_rows,)
        Where each row of the cleaned table went.
    frame : DataFrame
        The cleaned table.
    problems : tuple of Problem
    """

    values: NDArray[np.float64]
    batch: NDArray[np.object_]
    subject: NDArray[np.object_]
    covariates: dict[str, NDArray[Any]]
    features: tuple[str, ...]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    frame: pd.DataFrame
    problems: tuple[Problem, ...]


def to_scans(
    data: Any,
    value: str,
    *,
    batch: str,
    subject: str,
    scan: str | Sequence[str] = (),
    feature: str | Sequence[str] = ("quantity", "region"),
    covariates: Sequence[str] = (),
    nan_policy: str = "raise",
) -> ScanTable:
    """Lay a tidy table out as scans by features.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
    value : str
        Column of values.
    batch, subject : str
        Columns with scanner or site, and person.
    scan : str or sequence of str
        Further columns that tell scans of one person in one batch apart, such as session.
    feature : str or sequence of str
        Columns that together name what was measured.
    covariates : sequence of str
        Columns to keep the effects of; one value per scan.
    nan_policy : {'raise', 'omit'}

    Returns
    -------
    ScanTable

    Raises
    ------
    TableError
        If a scan has two values of a feature, or a covariate changes within a scan.
    """
    import pandas as pd

    keys = [subject, batch, *as_names(scan)]
    if len(set(keys)) != len(keys):
        raise ConfigError("one column is used twice to name a scan", found=", ".join(keys))
    names = as_names(feature)
    wanted = list(dict.fromkeys([*keys, *names, *as_names(covariates)]))
    frame, problems = clean_table(data, numbers=[value], keys=wanted, nan_policy=nan_policy)
    rows, first = _numbered(frame, keys)
    columns, first_feature = (
        _numbered(frame, names) if names else (np.zeros(len(frame), np.intp), np.array([0]))
    )
    if pd.DataFrame({"row": rows, "column": columns}).duplicated().any():
        raise TableError(
            "a scan has two values of one feature",
            where=value,
            todo="name the column that tells repeats apart with scan=",
        )
    values = np.full((first.size, first_feature.size), np.nan)
    values[rows, columns] = frame[value].to_numpy(dtype=float)
    kept = {name: _per_scan(frame, name, rows, first) for name in as_names(covariates)}
    labels = frame.iloc[first_feature][names].astype(str).agg(" ".join, axis=1) if names else [value]
    return ScanTable(
        values=values,
        batch=frame[batch].to_numpy(dtype=object)[first],
        subject=frame[subject].to_numpy(dtype=object)[first],
        covariates=kept,
        features=tuple(labels),
        rows=rows,
        columns=columns,
        frame=frame,
        problems=problems,
    )


def _numbered(frame: pd.DataFrame, names: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the combinations of columns by first appearance; give a row of each."""
    codes = frame.groupby(names, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    return codes.astype(np.intp), first.astype(np.intp)


def _per_scan(
    frame: pd.DataFrame, name: str, rows: NDArray[np.intp], first: NDArray[np.intp]
) -> NDArray[Any]:
    """One value of a covariate per scan."""
    values = frame[name].to_numpy()
    if np.any(values != values[first][rows]):
        raise TableError("a covariate has two values within one scan", where=name)
    return np.asarray(values[first])


def harmonise_table(
    data: Any,
    value: str,
    harmoniser: Harmoniser,
    *,
    batch: str,
    subject: str,
    scan: str | Sequence[str] = (),
    feature: str | Sequence[str] = ("quantity", "region"),
    covariates: Sequence[str] = (),
    nan_policy: str = "raise",
) -> tuple[pd.DataFrame, tuple[Notice, ...]]:
    """Fit a harmoniser to a tidy table and add the harmonised values.

    Parameters
    ----------
    data, value, batch, subject, scan, feature, covariates, nan_policy
        As for :func:`to_scans`.
    harmoniser : Harmoniser
        Fitted in place.

    Returns
    -------
    table : DataFrame
        The columns that were used, and ``harmonised``; NaN where a value is missing.
    notices : tuple of Notice
        What was wrong with the table, and what the harmoniser has to say.
    """
    scans = to_scans(
        data,
        value,
        batch=batch,
        subject=subject,
        scan=scan,
        feature=feature,
        covariates=covariates,
        nan_policy=nan_policy,
    )
    result = harmoniser.fit_transform(
        scans.values,
        batch=list(scans.batch),
        covariates=scans.covariates or None,
        subject=list(scans.subject),
    )
    table = scans.frame.assign(harmonised=result[scans.rows, scans.columns])
    return table, (*to_notices(scans.problems), *harmoniser.notices_)
