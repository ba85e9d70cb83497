"""Read a delimited table without trusting it.

Encoding and delimiter are found out; a decimal comma is found out and said, or asked for where it
could as well separate thousands.  Cells stay text, so that subject 007 stays 007: numbers are
made of a column when they are asked for.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cordqa.errors import EmptyInputError, TableError, TooLargeError
from cordqa.io.files import printable
from cordqa.io.table_text import Reading, TableLimits, decode_table, read_bytes, take_separator_line
from cordqa.records import Notice, Severity

__all__ = ["MISSING_WORDS", "DroppedLine", "RawTable", "TableLimits", "read_table"]

#: Cells that say "no value", compared without case.
MISSING_WORDS = frozenset({"", "n/a", "na", "#n/a", "nan", "null", "none", "-", "--", "."})

_DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "vertical bar"}
_NAMED = {name: sign for sign, name in _DELIMITERS.items()}
_SAMPLE_LINES = 60
#: Share of the first lines that must have as many fields as the header.
_AGREEMENT = 0.5
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DroppedLine:
    """A line that is not a row of the table, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A table as text.

    Attributes
    ----------
    name : str
        Name of the file, without its folder.
    columns : tuple of str
    cells : mapping of str to list of str
        One list per column, cells stripped of blanks.
    lines : list of int
        Line of the file on which each row ends.
    dropped : tuple of DroppedLine
        Lines with too few or too many fields.
    notices : tuple of Notice
        What the reader assumed.
    delimiter, encoding, sha256 : str
    """

    name: str
    columns: tuple[str, ...]
    cells: Mapping[str, list[str]]
    lines: list[int]
    dropped: tuple[DroppedLine, ...] = ()
    notices: tuple[Notice, ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8"
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.lines)


def read_table(path: Path, *, delimiter: str = "auto", limits: TableLimits | None = None) -> RawTable:
    """Read a table of delimited text whose first line names the columns.

    Parameters
    ----------
    path : Path
        CSV or TSV; UTF-8 with or without byte order mark, UTF-16 with one, or Latin-1.
    delimiter : str
        ``auto``, one character, or ``tab``, ``semicolon``, ``comma``, ``vertical bar``.
    limits : TableLimits, optional

    Returns
    -------
    RawTable

    Raises
    ------
    TableError
        If it is no table: names file and line, what was found and what to do.
    EmptyInputError
        If there is no row.
    TooLargeError
        If it exceeds the limits.
    UnreadableFileError
        If it cannot be opened.
    """
    reading = Reading(printable(path.name), limits or TableLimits())
    content = read_bytes(path, reading)
    text, encoding = decode_table(content, reading)
    text, stated = take_separator_line(text)
    sign = _check_delimiter(delimiter) or stated or _find_delimiter(text, reading)
    columns, rows, lines, dropped = _split(text, sign, reading, first_line=2 if stated else 1)
    return RawTable(
        name=reading.name,
        columns=columns,
        cells={name: [row[i] for row in rows] for i, name in enumerate(columns) if name},
        lines=lines,
        dropped=tuple(dropped),
        notices=tuple(reading.notices),
        delimiter=sign,
        encoding=encoding,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _check_delimiter(delimiter: str) -> str:
    if delimiter == "auto":
        return ""
    sign = {"\\t": "\t", **_NAMED}.get(delimiter, delimiter)
    if len(sign) != 1 or sign in '"\r\n':
        raise TableError(
            "is not a delimiter", where="delimiter", found=repr(delimiter), expected="one character, or tab"
        )
    return sign


def _reader(text: str, sign: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True, skipinitialspace=True)


def _first_rows(text: str, sign: str) -> list[list[str]]:
    """Split the first lines as if ``sign`` were the delimiter; fewer where the quotes do not fit."""
    rows: list[list[str]] = []
    head = text[:200_000]
    try:
        for row in _reader(head, sign):
            if any(cell.strip() for cell in row):
                rows.append(row)
            if len(rows) >= _SAMPLE_LINES:
                break
    except csv.Error:
        pass
    # The last row of a cut text may be half a row.
    return rows[:-1] if len(rows) > 2 and len(head) < len(text) else rows


def _find_delimiter(text: str, reading: Reading) -> str:
    """Choose the delimiter that gives the header the most fields and the rows as many."""
    best, most = "", 1
    widths: dict[str, tuple[int, int]] = {}
    for sign in _DELIMITERS:
        rows = _first_rows(text, sign)
        if not rows:
            continue
        header = len(rows[0])
        body = [len(_fit([cell.strip() for cell in row], header)) for row in rows[1:]]
        usual = Counter(body).most_common(1)[0][0] if body else header
        widths[sign] = (header, usual)
        agree = sum(width == header for width in body) / len(body) if body else 1.0
        if header > most and (agree >= _AGREEMENT or usual == header):
            best, most = sign, header
    if best:
        return best
    if not text.strip():
        raise EmptyInputError("the table is empty", where=reading.name)
    sign, (header, usual) = max(widths.items(), key=lambda item: max(item[1]), default=(",", (1, 1)))
    if max(header, usual) < 2:
        raise reading.error(
            "has one column only", line=1, expected="columns separated by tab, semicolon, comma or |",
            todo="give the delimiter with --delimiter",
        )  # fmt: skip
    todo = "remove what stands above the names of the columns, or give --delimiter"
    if sign == "," and usual > header > 1:
        todo = "numbers with decimal commas need another delimiter, or quotes around them"
    raise reading.error(
        f"the rows do not match the names of the columns (split at each {_DELIMITERS[sign]})",
        line=1,
        found=f"{usual} fields in most rows",
        expected=f"{header} as in the first line",
        todo=todo,
    )


def _split(
    text: str, sign: str, reading: Reading, *, first_line: int
) -> tuple[tuple[str, ...], list[list[str]], list[int], list[DroppedLine]]:
    """Split all lines; keep those with the right number of fields and say which are not."""
    limits, offset = reading.limits, first_line - 1
    columns: tuple[str, ...] = ()
    rows: list[list[str]] = []
    lines: list[int] = []
    dropped: list[DroppedLine] = []
    reader = _reader(text, sign)
    try:
        for row in reader:
            line = reader.line_num + offset
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not columns:
                columns = _check_header(cells, line, reading)
                continue
            cells = _fit(cells, len(columns))
            if len(cells) != len(columns):
                dropped.append(DroppedLine(line, f"{len(row)} fields instead of {len(columns)}"))
                continue
            if max(map(len, cells)) > limits.max_cell_characters:
                raise reading.error("a cell is too long for a table of measurements", line=line)
            if len(rows) >= limits.max_rows:
                raise TooLargeError(
                    "the table has too many rows", where=reading.name, expected=f"at most {limits.max_rows}"
                )
            rows.append([_unquoted(cell) for cell in cells])
            lines.append(line)
    except csv.Error as error:
        raise reading.error(
            f"cannot be split into cells: {error}",
            line=reader.line_num + offset,
            todo="check the quotes on this line and before it",
        ) from error
    _check_rows(rows, dropped, columns, sign, reading)
    return columns, rows, lines, dropped


def _fit(cells: list[str], width: int) -> list[str]:
    """Take off empty fields beyond the last column, as spreadsheets leave them."""
    while len(cells) > width and not cells[-1]:
        cells = cells[:-1]
    return cells


def _unquoted(cell: str) -> str:
    """Take off the apostrophe by which cordqa keeps a spreadsheet from running text as a formula."""
    return cell[1:] if len(cell) > 1 and cell[0] == "'" and cell[1] in "=+-@" else cell


def _check_header(cells: list[str], line: int, reading: Reading) -> tuple[str, ...]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    if len(cells) > reading.limits.max_columns:
        raise reading.error(
            "the table has too many columns", line=line, found=str(len(cells)),
            expected=f"at most {reading.limits.max_columns}",
        )  # fmt: skip
    names = [printable(cell, limit=200) or f"column {i}" for i, cell in enumerate(cells, start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = [str(i) for i, name in enumerate(names, start=1) if name == twice[0]]
        raise reading.error(
            f"two columns have the name {twice[0]!r}", line=line, found=f"columns {' and '.join(places)}",
            todo="rename one",
        )  # fmt: skip
    if all(_looks_numeric(name) for name in names):
        raise reading.error(
            "the first line holds numbers, not names of columns", line=line, found=", ".join(names[:4]),
            todo="write the names of the columns above the numbers",
        )  # fmt: skip
    return tuple(names)


def _looks_numeric(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _check_rows(
    rows: Sequence[list[str]],
    dropped: Sequence[DroppedLine],
    columns: tuple[str, ...],
    sign: str,
    reading: Reading,
) -> None:
    if dropped and len(dropped) > len(rows):
        word = _DELIMITERS.get(sign, repr(sign))
        raise reading.error(
            f"most rows do not match the names of the columns (split at each {word})",
            line=dropped[0].line,
            found=dropped[0].reason,
            todo="check the delimiter, and quotes around cells that hold it",
        )
    if not rows:
        raise EmptyInputError(
            "the table has no rows", where=reading.name, found=f"columns {', '.join(columns[:6])}"
        )
    if dropped:
        shown = "; ".join(f"line {one.line}: {one.reason}" for one in dropped[:_SHOWN])
        more = f"; and {len(dropped) - _SHOWN} more" if len(dropped) > _SHOWN else ""
        plural = "s were" if len(dropped) > 1 else " was"
        reading.note(
            "table.ragged", f"{len(dropped)} line{plural} left out ({shown}{more})", Severity.WARNING
        )
