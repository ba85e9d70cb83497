"""People with an outcome and markers, as arrays: what every diagnostic statistic starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, TableError
from cordqa.stats.roc import roc_areas
from cordqa.stats.table import as_frame, as_names, check_columns, clean_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AREA",
    "Cohort",
    "People",
    "Positive",
    "add_note",
    "area_flags",
    "direction_note",
    "read_outcome",
    "select_people",
    "spread_markers",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Positive = Literal["auto", "high", "low"]

AREA = "Mann-Whitney, ties one half"


@dataclass(frozen=True, slots=True)
class People:
    """Marker values (m, n) turned so that high speaks for a case, with outcome and clusters."""

    scores: FloatArray
    is_case: BoolArray
    clusters: NDArray[np.intp] | None
    signs: FloatArray
    n_missing: int

    @property
    def counts(self) -> dict[str, int]:
        """Sample sizes, ready for a tidy table."""
        people = self.is_case.size if self.clusters is None else np.unique(self.clusters).size
        return {
            "cases": int(self.is_case.sum()),
            "controls": int((~self.is_case).sum()),
            "people": people,
            "missing": self.n_missing,
        }


@dataclass(frozen=True, slots=True)
class Cohort:
    """A checked table, the label of a case, and what was left out of the table."""

    frame: pd.DataFrame
    case: Any
    note: str


def read_outcome(
    data: Any,
    values: Sequence[str],
    outcome: str,
    case: Any,
    subject: str | None,
    by: str | Sequence[str] | None,
    nan_policy: str,
) -> Cohort:
    """Check the table and find the label of a case."""
    check_columns(as_frame(data), [*values, outcome, *([subject] if subject else []), *as_names(by)])
    keys = [outcome, *([subject] if subject else [])]
    frame, problems = clean_table(data, numbers=list(values), keys=keys, by=by, nan_policy=nan_policy)
    note = "; ".join(f"left out: {p.message}" for p in problems)
    labels = sorted(frame[outcome].unique(), key=str)
    if len(labels) != 2:
        raise TableError(
            "the outcome must have exactly two labels",
            where=outcome,
            found=", ".join(map(str, labels[:6])),
            todo="leave the other groups out or join them",
        )
    if case is None:
        truthy = [label for label in labels if str(label).casefold() in ("1", "1.0", "true")]
        falsy = [label for label in labels if str(label).casefold() in ("0", "0.0", "false")]
        if len(truthy) != 1 or len(falsy) != 1:
            raise ConfigError(
                "which label of the outcome is a case?",
                found=" and ".join(map(str, labels)),
                todo="give case=",
            )
        return Cohort(frame, truthy[0], note)
    matching = [label for label in labels if label == case or str(label) == str(case)]
    if not matching:
        raise ConfigError("no row has the outcome of a case", found=str(case), expected=f"one of {labels}")
    return Cohort(frame, matching[0], note)


def select_people(
    part: pd.DataFrame,
    markers: Sequence[str],
    outcome: str,
    case: Any,
    subject: str | None,
    positive: Positive,
) -> People:
    """Complete rows of one group as arrays; check that a person has one outcome."""
    usable = part.dropna(subset=list(markers))
    is_case = (usable[outcome] == case).to_numpy(dtype=bool)
    scores = usable[list(markers)].to_numpy(dtype=float).T
    clusters = None
    if subject is not None:
        names, codes = np.unique(usable[subject].to_numpy().astype(str), return_inverse=True)
        if names.size < is_case.size:
            clusters = codes.astype(np.intp)
    signs = np.ones(len(markers))
    if positive == "low":
        signs[:] = -1.0
    elif positive == "auto" and is_case.any() and not is_case.all():
        signs[roc_areas(scores, is_case).area < 0.5] = -1.0
    return People(scores * signs[:, None], is_case, clusters, signs, len(part) - len(usable))


def direction_note(people: People, marker: int, positive: Positive) -> tuple[str, str]:
    """Flag and note on which end speaks for a case."""
    end = "high" if people.signs[marker] > 0 else "low"
    if positive == "auto":
        return "direction-from-data", f"{end} values speak for a case (found from these data)"
    return "", f"{end} values speak for a case"


def add_note(table: pd.DataFrame, note: str) -> pd.DataFrame:
    """Append a note to every row."""
    if not note:
        return table
    return table.assign(note=[f"{old}; {note}" if old else note for old in table["note"]])


def area_flags(people: People, area: float) -> list[str]:
    """Flags that belong to every row about these people."""
    flags = ["missing-values"] if people.n_missing else []
    flags += ["repeated-people"] if people.clusters is not None else []
    flags += ["complete-separation"] if area in (0.0, 1.0) else []
    return flags


def spread_markers(
    data: Any, value: str, *, marker: str | Sequence[str], subject: str, outcome: str
) -> pd.DataFrame:
    """Turn a long table into one row per person and one column per marker.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
    value : str
        Column of marker values.
    marker : str or sequence of str
        Columns that together name a marker; their labels are joined by a space.
    subject, outcome : str

    Returns
    -------
    DataFrame
        Columns subject, outcome, then one per marker; NaN where a person lacks one.

    Raises
    ------
    TableError
        If a person has two values of one marker, or two outcomes.
    """
    frame = as_frame(data)
    names = as_names(marker)
    check_columns(frame, [value, subject, outcome, *names])
    label = frame[names].astype(str).agg(" ".join, axis=1)
    if frame.groupby(subject)[outcome].nunique().max() > 1:
        raise TableError("a person has two outcomes", where=outcome)
    if frame.assign(_marker=label).duplicated([subject, "_marker"]).any():
        raise TableError(
            "a person has two values of one marker",
            where=value,
            todo="choose one session, or average them on purpose",
        )
    wide = frame.assign(_marker=label).pivot(index=[subject, outcome], columns="_marker", values=value)
    wide = wide[list(dict.fromkeys(label))].reset_index()
    wide.columns.name = None
    return wide
