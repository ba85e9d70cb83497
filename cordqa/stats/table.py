"""What every statistic needs from a table: checking it, laying it out as an array, writing rows.

A table comes in tidy: one row per measured value, with columns that say what and who.  It is
checked once (:func:`clean_table`), laid out as an array padded with NaN (:func:`to_layout`), and
statistics go out tidy again (:func:`tidy`): one row per statistic with its interval, estimator
and n at each level.  Nothing is dropped or averaged without a :class:`Problem` that says so.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, EmptyInputError, TableError
from cordqa.records import Notice, Severity
from cordqa.stats.layout import Layout, as_names, group_table, to_layout, unit_names
from cordqa.stats.tidy import from_measurements, join_flags, stack_tables, tidy, to_statistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Layout",
    "Problem",
    "as_frame",
    "as_names",
    "check_choice",
    "check_columns",
    "check_level",
    "clean_table",
    "from_measurements",
    "group_table",
    "join_flags",
    "stack_tables",
    "tidy",
    "to_layout",
    "to_notices",
    "to_statistics",
    "unit_names",
]


_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d{1,3}(\.\d{3})*,\d+\s*$|^\s*[-+]?\d+,\d+\s*$")
_MISSING_TEXT = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "."})
#: No measurement is larger, and squares of variances of such numbers still fit.
_LARGEST = 1e60
_SHOWN = 3  # examples named in one sentence


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a table that a statistic cannot use.

    Attributes
    ----------
    kind : str
        ``text``, ``decimal-comma``, ``infinite``, ``missing-value``, ``missing-key``,
        ``duplicate``, ``conflict`` or ``mixed-units``.
    column : str
        Column that it concerns.
    rows : tuple
        Index labels of the rows.
    message : str
        One sentence for people.
    todo : str
        What to do about it.
    """

    kind: str
    column: str
    rows: tuple[Any, ...]
    message: str
    todo: str = ""


def check_level(level: float, *, name: str = "level") -> float:
    """Return a confidence level strictly between 0 and 1, or raise ConfigError."""
    if not isinstance(level, (int, float)) or not 0.0 < level < 1.0:
        raise ConfigError(f"{name} must lie between 0 and 1", found=repr(level), expected="for example 0.95")
    return float(level)


def check_choice(value: str, choices: Iterable[str], *, name: str) -> str:
    """Return ``value`` where it is one of ``choices``, or raise ConfigError with a suggestion."""
    allowed = list(choices)
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        todo = f"did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{name} is not a known choice", found=repr(value), expected=f"one of {allowed}", todo=todo
        )
    return value


def as_frame(data: Any) -> pd.DataFrame:
    """Return a pandas table from a DataFrame, a mapping of columns or a sequence of rows.

    Raises
    ------
    TableError
        If it is none of these, or two columns have the same name.
    EmptyInputError
        If there is no row.
    """
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        try:
            frame = pd.DataFrame(data)
        except (ValueError, TypeError) as error:
            raise TableError(
                "the data cannot be read as a table",
                found=type(data).__name__,
                expected="a pandas DataFrame, a mapping of columns or a list of rows",
            ) from error
    repeated = sorted({str(c) for c in frame.columns[frame.columns.duplicated()]})
    if repeated:
        raise TableError("two columns have the same name", found=", ".join(repeated), todo="rename one")
    if len(frame) == 0:
        raise EmptyInputError("the table has no rows")
    if not all(isinstance(c, str) for c in frame.columns):
        frame = frame.rename(columns=str)
    return frame


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise TableError where a column is missing, with the most similar column that exists."""
    present = [str(c) for c in frame.columns]
    missing = [n for n in dict.fromkeys(names) if n not in present]
    if not missing:
        return
    folded = {c.casefold(): c for c in present}
    hints = []
    for name in missing:
        close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
        if close:
            hints.append(f"for {name!r} did you mean {folded[close[0]]!r}?")
    plural = "columns are" if len(missing) > 1 else "column is"
    shown = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
    raise TableError(
        f"{len(missing)} {plural} missing: {', '.join(missing)}",
        found=shown or "no column",
        todo="; ".join(hints) or "name the column that holds it",
    )


def clean_table(
    data: Any,
    *,
    numbers: Sequence[str],
    keys: Sequence[str],
    unique: bool = False,
    unit: str | None = None,
    by: str | Sequence[str] | None = None,
    nan_policy: str = "raise",
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Check the columns that a statistic needs and return them with numbers as floats.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measured value per row.
    numbers : sequence of str
        Columns that must hold finite numbers.
    keys : sequence of str
        Columns that say who and where; none may be empty.
    unique : bool
        Whether the keys (with ``by``) must name each row once.
    unit : str, optional
        Column with the unit of each value; one unit is allowed per group.
    by : str or sequence of str, optional
        Columns that split the table into groups.
    nan_policy : {'raise', 'omit'}
        ``raise`` stops at the first problem.  ``omit`` sets unusable numbers to NaN (the rows
        stay, so that they are counted as missing), takes out rows that cannot be placed, and
        returns every problem so that it can be shown.

    Returns
    -------
    frame : DataFrame
        Only the columns asked for, numbers as float64.
    problems : tuple of Problem
        Empty where nothing was wrong.

    Raises
    ------
    TableError
        If a column is missing; with ``nan_policy='raise'`` also for any problem.
    """
    check_choice(nan_policy, ("raise", "omit"), name="nan_policy")
    frame = as_frame(data)
    names = as_names(by)
    places = list(dict.fromkeys([*names, *keys]))
    wanted = list(dict.fromkeys([*places, *numbers, *([unit] if unit else [])]))
    check_columns(frame, wanted)
    clashing = sorted(set(numbers) & set(places))
    if clashing:
        raise TableError("one column is used both as number and as key", found=", ".join(clashing))
    check = _Check(frame, list(numbers), places)
    clean = frame.loc[:, wanted].copy()
    for name in numbers:
        clean[name] = check.numbers(name)
    clean = clean.loc[check.placed() & ~check.copies(unique=unique)]
    if unique:
        check.empty_conflicts(clean)
    if unit:
        check.empty_mixed_units(clean, unit, names)
    if check.problems and nan_policy == "raise":
        first, more = check.problems[0], len(check.problems) - 1
        tail = f", and {more} further kind{'s' if more > 1 else ''} of problem" if more else ""
        raise TableError(first.message + tail, todo=first.todo)
    if len(clean) == 0 or clean[list(numbers)].isna().all(axis=None):
        found = check.problems[0].message if check.problems else ""
        raise EmptyInputError("no row of the table can be used", found=found)
    return clean, tuple(check.problems)


class _Check:
    """Goes through a table and collects what cannot be used, one problem per kind and column."""

    def __init__(self, frame: pd.DataFrame, number_columns: list[str], places: list[str]) -> None:
        self.frame = frame
        self.number_columns = number_columns
        self.places = places
        self.problems: list[Problem] = []

    def note(
        self,
        kind: str,
        column: str,
        *,
        where: NDArray[np.bool_],
        what: str,
        todo: str,
        cells: NDArray[Any] | None = None,
        index: pd.Index[Any] | None = None,
    ) -> None:
        """Record one problem for all rows in which it occurs."""
        count = int(np.count_nonzero(where))
        if not count:
            return
        labels = (self.frame.index if index is None else index).to_numpy()
        rows = tuple(labels[where].tolist())
        shown = ", ".join(str(r) for r in rows[:_SHOWN]) + (", ..." if count > _SHOWN else "")
        example = f", for example {str(cells[where][0])[:40]!r}" if cells is not None else ""
        number, plural = (what, "") if count == 1 else (what.replace(" ", "s ", 1), "s")
        message = f"column {column!r}: {count} {number} (row{plural} {shown}{example})"
        self.problems.append(Problem(kind, column, rows, message, todo))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Turn one column into floats; whatever is not a finite number is NaN and a problem."""
        import pandas as pd

        column = self.frame[name]
        if pd.api.types.is_bool_dtype(column) or column.dtype.kind in "bmMc":
            raise TableError(f"column {name!r} does not hold numbers", found=str(column.dtype))
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=float, na_value=math.nan).copy()
            missing = np.isnan(values)
        else:
            values, missing = self._parse(column, name)
        infinite = np.abs(values) > _LARGEST
        self.note(
            "infinite",
            name,
            where=infinite,
            what=f"cell with infinity or a number beyond {_LARGEST:g}",
            todo="correct or empty these cells",
        )
        self.note(
            "missing-value",
            name,
            where=missing,
            what="cell without a value",
            todo="fill them in, or choose a nan_policy that says how to go on",
        )
        values[infinite] = math.nan
        return values

    def _parse(self, column: pd.Series[Any], name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Parse a column of mixed cells; say where text looks like a decimal comma."""
        import pandas as pd

        values = np.array(pd.to_numeric(column, errors="coerce"), dtype=float)
        cells = np.array([_plain_text(cell) for cell in column], dtype=object)
        missing = np.array([cell.casefold() in _MISSING_TEXT for cell in cells], dtype=bool)
        bad = np.isnan(values) & ~missing
        comma = bad & np.array([bool(_DECIMAL_COMMA.match(cell)) for cell in cells], dtype=bool)
        self.note(
            "decimal-comma",
            name,
            where=comma,
            what="number with a decimal comma",
            todo="read the file with decimal=','",
            cells=cells,
        )
        self.note(
            "text",
            name,
            where=bad & ~comma,
            what="cell with text where a number is expected",
            todo="correct or empty these cells",
            cells=cells,
        )
        return values, missing

    def placed(self) -> NDArray[np.bool_]:
        """Tell which rows have every key filled in; a text of spaces counts as empty."""
        keep = np.ones(len(self.frame), dtype=bool)
        for name in self.places:
            column = self.frame[name]
            empty = column.isna().to_numpy(dtype=bool).copy()
            if column.dtype.kind not in "biufM":
                empty |= np.array([isinstance(c, str) and not c.strip() for c in column], dtype=bool)
            self.note("missing-key", name, where=empty, what="row without a name", todo="fill it in")
            keep &= ~empty
        return keep

    def copies(self, *, unique: bool) -> NDArray[np.bool_]:
        """Tell which rows are copies of an earlier row.

        Two repeats may well give the same number.  Rows count as copies only where a column
        exists that should tell repeats apart (a session, a run, a file) and does not, or where
        the keys must be unique.
        """
        used = {*self.number_columns, *self.places}
        telling = any(self.frame[c].nunique() > 1 for c in self.frame.columns if c not in used)
        copies = np.zeros(len(self.frame), dtype=bool)
        if unique or telling:
            subset = [*self.places, *self.number_columns] if unique else None
            copies = self.frame.duplicated(subset=subset, keep="first").to_numpy(dtype=bool)
        name = ", ".join(self.places) or "all"
        self.note(
            "duplicate", name, where=copies, what="row equal to an earlier one", todo="remove the copies"
        )
        return copies

    def empty_conflicts(self, clean: pd.DataFrame) -> None:
        """Set to NaN what several rows with the same keys contradict each other about."""
        conflict = clean.duplicated(subset=self.places, keep=False).to_numpy(dtype=bool)
        self.note(
            "conflict",
            ", ".join(self.places),
            where=conflict,
            what="row with the same keys and another value",
            todo="name the column that tells repeats apart",
            index=clean.index,
        )
        clean.loc[conflict, self.number_columns] = math.nan

    def empty_mixed_units(self, clean: pd.DataFrame, unit: str, by: Sequence[str]) -> None:
        """Set to NaN the groups in which values have more than one unit."""
        mixed = np.zeros(len(clean), dtype=bool)
        position = np.arange(len(clean))
        for key, part in group_table(clean.assign(_position=position), by):
            units = sorted(set(unit_names(part[unit])))
            if len(units) > 1:
                mixed[part["_position"].to_numpy()] = True
                name = " for " + ", ".join(map(str, key.values())) if key else ""
                message = f"column {unit!r} holds {len(units)} units{name}: {', '.join(units)}"
                rows = tuple(part.index.tolist())
                self.problems.append(
                    Problem("mixed-units", unit, rows, message, "convert the values to one unit")
                )
        clean.loc[mixed, self.number_columns] = math.nan


def _plain_text(cell: Any) -> str:
    """Return a cell as text; what pandas calls missing is empty."""
    return "" if cell is None or str(cell) in ("nan", "NaT", "<NA>") else str(cell).strip()


def to_notices(problems: Iterable[Problem], *, where: str = "") -> tuple[Notice, ...]:
    """Convert problems to notices: what, where and what to do."""
    return tuple(
        Notice(
            severity=Severity.WARNING,
            message=f"{p.message}; {p.todo}" if p.todo else p.message,
            where=where,
            code=f"table.{p.kind}",
        )
        for p in problems
    )
