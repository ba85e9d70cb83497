"""Make numbers of a column of text, and say of every cell that is none why it is none."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import TableError
from cordqa.io.tables import MISSING_WORDS, RawTable
from cordqa.records import Notice, Severity

__all__ = ["BadCell", "NumberColumn", "looks_numeric", "parse_numbers"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)
_COMMA = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+(?:[eE][-+]?\d{1,4})?", re.ASCII)
#: "1,234" may be one and a bit, or one thousand two hundred and thirty-four.
_AMBIGUOUS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}", re.ASCII)
_INFINITE = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_MINUS = str.maketrans({"\N{MINUS SIGN}": "-", "\u00a0": "", "\u202f": ""})


@dataclass(frozen=True, slots=True)
class BadCell:
    """A cell that holds something, but no usable number; ``kind`` is text, infinite or decimal-comma."""

    row: int
    line: int
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column as numbers.

    Attributes
    ----------
    values : ndarray, shape (n_rows,)
        NaN where there is no number.
    missing : ndarray of bool, shape (n_rows,)
        Empty cells and words for "no value".
    bad : tuple of BadCell
    notices : tuple of Notice
    """

    values: NDArray[np.float64]
    missing: NDArray[np.bool_]
    bad: tuple[BadCell, ...]
    notices: tuple[Notice, ...] = ()


def looks_numeric(cells: Sequence[str], *, share: float = 0.5) -> bool:
    """Tell whether more than a share of the cells that hold something are numbers."""
    filled = [cell for cell in cells if cell.casefold() not in MISSING_WORDS]
    numbers = sum(bool(_NUMBER.fullmatch(cell) or _COMMA.fullmatch(cell)) for cell in filled)
    return bool(filled) and numbers > share * len(filled)


def parse_numbers(table: RawTable, column: str, *, decimal: str = "auto") -> NumberColumn:
    """Make numbers of one column.

    Parameters
    ----------
    table : RawTable
    column : str
    decimal : {'auto', '.', ','}
        ``auto`` reads decimal commas where the column has no decimal point, commas do not
        separate the cells, and no cell could be a number with separated thousands; it says so in a
        notice.  Otherwise such cells are bad, and their kind tells what to do.

    Returns
    -------
    NumberColumn

    Raises
    ------
    TableError
        If ``decimal`` is none of the three.
    """
    if decimal not in ("auto", ".", ","):
        raise TableError(
            "is not a decimal sign", where="decimal", found=repr(decimal), expected="auto, . or ,"
        )
    cells = [cell.translate(_MINUS) if not cell.isascii() else cell for cell in table.cells[column]]
    notices: tuple[Notice, ...] = ()
    comma = decimal == ","
    if decimal == "auto":
        comma = _has_decimal_commas(cells, table.delimiter)
        notices = _comma_notice(table, column, cells) if comma else ()
    return _parse(table, cells, comma=comma, notices=notices)


def _has_decimal_commas(cells: Sequence[str], delimiter: str) -> bool:
    """Tell whether commas in a column can only be decimal commas."""
    with_comma = [cell for cell in cells if "," in cell and _COMMA.fullmatch(cell)]
    if not with_comma or delimiter == ",":
        return False
    with_point = any("." in cell and _NUMBER.fullmatch(cell) for cell in cells)
    return not with_point and not all(_AMBIGUOUS.fullmatch(cell) for cell in with_comma)


def _comma_notice(table: RawTable, column: str, cells: Sequence[str]) -> tuple[Notice, ...]:
    row = next(i for i, cell in enumerate(cells) if "," in cell and _COMMA.fullmatch(cell))
    message = (
        f"column {column!r} is read with decimal commas (line {table.lines[row]}: {cells[row]!r}); "
        "give --decimal to settle it"
    )
    return (Notice(severity=Severity.WARNING, message=message, where=table.name, code="table.decimal-comma"),)


def _parse(
    table: RawTable, cells: Sequence[str], *, comma: bool, notices: tuple[Notice, ...]
) -> NumberColumn:
    values = np.full(len(cells), math.nan)
    missing = np.zeros(len(cells), dtype=bool)
    bad: list[BadCell] = []
    for row, cell in enumerate(cells):
        if comma and "," in cell and _COMMA.fullmatch(cell):
            number = float(cell.replace(".", "").replace(",", "."))
        elif _NUMBER.fullmatch(cell):
            number = float(cell)
        elif cell.casefold() in MISSING_WORDS:
            missing[row] = True
            continue
        else:
            bad.append(BadCell(row, table.lines[row], cell[:40], _kind(cell)))
            continue
        if math.isfinite(number):
            values[row] = number
        else:
            bad.append(BadCell(row, table.lines[row], cell[:40], "infinite"))
    return NumberColumn(values, missing, tuple(bad), notices)


def _kind(cell: str) -> str:
    if cell.casefold() in _INFINITE:
        return "infinite"
    return "decimal-comma" if _COMMA.fullmatch(cell) else "text"
