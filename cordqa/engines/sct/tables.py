"""Read the tables that the toolbox writes, by the names of their columns.

Columns come and go between versions, the value column of an extraction is named after its
method, an empty region is an empty cell, and an exception inside the program is written into the
cell of a number.  A cell that is not a number becomes NaN with the reason.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cordqa.engines.errors import EngineOutputError, MixedEnginesError
from cordqa.errors import InputError
from cordqa.io.files import printable, read_small

__all__ = [
    "Cell",
    "SctRow",
    "SctTable",
    "check_versions",
    "parse_numbers",
    "read_bare_number",
    "read_centerline",
    "read_motion",
    "read_table",
]

_MAX_BYTES = 64 * 1024 * 1024
_MAX_NUMBERS = 100_000
_KEYS = ("Timestamp", "SCT Version", "Filename", "Slice (I->S)", "VertLevel", "DistancePMJ")
_NEEDED = ("SCT Version", "Filename", "Slice (I->S)", "VertLevel")
_LABEL, _SIZE = "Label", "Size [vox]"
_VALUE = re.compile(r"(MAP|ML|WA|BIN|MEDIAN|MAX)\(\)")
_PLAIN_VERSION = re.compile(r"\d+(?:\.\w+)+")
_NOTHING = ("", "None", "nan", "NaN", "n/a")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, or NaN with the reason."""

    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SctRow:
    """One row.

    Attributes
    ----------
    slices, levels : tuple of int
        As numbers; empty where the cell is.
    values : mapping
        Every numeric column by its name.
    size : Cell
        Sum of the weights in voxels; NaN in tables of shape.
    """

    build: str
    filename: str
    slices: tuple[int, ...]
    levels: tuple[int, ...]
    label: str = ""
    size: Cell = Cell(math.nan)
    values: Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class SctTable:
    """A table of shape or of extraction.

    ``value_column`` names the column of the value (``MAP()``) in an extraction and is empty in
    a table of shape.  A table whose header was cut short, which the program writes where none
    of the asked levels is in the image, has no rows and says so in ``note``.
    """

    columns: tuple[str, ...]
    rows: tuple[SctRow, ...]
    value_column: str = ""
    note: str = ""

    @property
    def method(self) -> str:
        """Estimator of an extraction in small letters (``map``)."""
        return self.value_column.removesuffix("()").lower()


def read_table(path: Path, *, version: str = "") -> SctTable:
    """Read the CSV of ``sct_process_segmentation`` or ``sct_extract_metric``.

    Parameters
    ----------
    path : Path
    version : str
        Version of the toolbox that was called, to compare with what the table says.

    Raises
    ------
    EngineOutputError
        If it is not such a table, or rows of another method were appended to it.
    MixedEnginesError
        If its rows come from several versions.
    """
    lines = _read_rows(path)
    header = lines[0] if lines else []
    _check_header(header, path)
    value_column = _value_column(header, path)
    rows = tuple(_row(header, line, number, path) for number, line in enumerate(lines[1:], start=2))
    note = ""
    if set(header) <= set(_KEYS):
        if rows:
            raise EngineOutputError("has rows but no column of results", where=path.name)
        note = "none of the slices or levels asked for is in the image"
    check_versions([row.build for row in rows], version=version, where=path.name)
    return SctTable(columns=tuple(header), rows=rows, value_column=value_column, note=note)


def _check_header(header: list[str], path: Path) -> None:
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise EngineOutputError(
            "is not a table of the Spinal Cord Toolbox",
            where=path.name,
            found=printable(",".join(header), limit=120) or "nothing",
            expected=f"columns {', '.join(_NEEDED)}",
        )
    if len(set(header)) != len(header):
        raise EngineOutputError("names a column twice", where=path.name)


def _read_rows(path: Path) -> list[list[str]]:
    try:
        text = read_small(path, limit=_MAX_BYTES).decode("utf-8-sig")
        if text and not text.endswith("\n"):
            raise EngineOutputError("was cut short: its last line has no end", where=path.name)
        return [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except InputError as error:
        raise EngineOutputError(error.what, where=path.name, found=error.found) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EngineOutputError("is not a readable CSV file", where=path.name, found=str(error)) from error


def _value_column(header: list[str], path: Path) -> str:
    found = [name for name in header if _VALUE.fullmatch(name)]
    if _LABEL in header and len(found) != 1:
        raise EngineOutputError(
            "does not say by which method it was made",
            where=path.name,
            found=f"{len(found)} value columns",
            expected="1",
        )
    return found[0] if found else ""


def _row(header: list[str], line: list[str], number: int, path: Path) -> SctRow:
    if len(line) != len(header):
        raise EngineOutputError(
            "a row does not fit the header: it was cut short, or belongs to a table of another method",
            where=f"{path.name}, line {number}",
            found=f"{len(line)} cells",
            expected=f"{len(header)}",
        )
    cells = dict(zip(header, line, strict=True))
    size = _cell(cells[_SIZE]) if _SIZE in cells else Cell(math.nan, "")
    empty = _SIZE in cells and size.value == 0
    values = {
        name: _cell(text, empty_region=empty)
        for name, text in cells.items()
        if name not in (*_KEYS, _LABEL, _SIZE)
    }
    where = f"{path.name}, line {number}"
    return SctRow(
        build=cells["SCT Version"],
        filename=cells["Filename"],
        slices=_numbers(cells["Slice (I->S)"], where),
        levels=_numbers(cells["VertLevel"], where),
        label=cells.get(_LABEL, ""),
        size=size,
        values=values,
    )


def _cell(text: str, *, empty_region: bool = False) -> Cell:
    """Read one number; whatever else the cell holds is the reason for NaN."""
    stripped = text.strip()
    if stripped in _NOTHING:
        return Cell(math.nan, "the region is not covered" if empty_region else "no value was computed")
    try:
        # A Python float may hold underscores, which no program writes.
        value = float(stripped) if "_" not in stripped else math.nan
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return Cell(value)
    return Cell(math.nan, f"the toolbox wrote {printable(stripped, limit=120)!r} instead of a number")


def _numbers(text: str, where: str) -> tuple[int, ...]:
    try:
        return parse_numbers(text)
    except ValueError:
        raise EngineOutputError(
            "slices or levels cannot be read", where=where, found=repr(text[:80])
        ) from None


def parse_numbers(text: str) -> tuple[int, ...]:
    """Read ``3``, ``0:17``, ``0,2,5``, ``2;3`` or nothing.

    Raises
    ------
    ValueError
        If it is something else, or a range that no image has.
    """
    numbers: list[int] = []
    for part in re.split(r"[,;]", text.strip()) if text.strip() not in _NOTHING else []:
        first, colon, last = part.partition(":")
        low = int(first)
        high = int(last) if colon else low
        if not 0 <= high - low <= _MAX_NUMBERS:
            raise ValueError(f"{text!r} is not a range")
        numbers += range(low, high + 1)
    return tuple(numbers)


def check_versions(builds: list[str], *, version: str = "", where: str = "") -> None:
    """Refuse rows of several versions, or of another version than was called.

    Installations from git write a commit instead of a number; those cannot be compared with
    ``version`` and are only compared with each other.

    Raises
    ------
    MixedEnginesError
        If there is more than one version.
    """
    known = sorted({build.strip().rstrip("*") for build in builds})
    if (
        version
        and _PLAIN_VERSION.fullmatch(version)
        and len(known) == 1
        and _PLAIN_VERSION.fullmatch(known[0])
    ):
        known = sorted({*known, version})
    if len(known) > 1:
        raise MixedEnginesError(
            "rows of different versions of the toolbox do not go into one table",
            where=where,
            found=", ".join(known),
            todo="run all participants with one version",
        )


def read_motion(path: Path) -> tuple[float, ...]:
    """Read ``moco_params.tsv``: mean in-plane displacement of each volume in millimetres.

    Raises
    ------
    EngineOutputError
        If it holds something else.
    """
    lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if len(lines) < 2 or "sqrt" not in lines[0]:
        raise EngineOutputError(
            "is not a table of motion", where=path.name, found=printable("".join(lines[:1]), limit=80)
        )
    return tuple(_float(line, path) for line in lines[1:])


def read_centerline(path: Path) -> tuple[tuple[float, float, float], ...]:
    """Read the table of a centreline, which has no header: x, y, z per slice in voxels."""
    points = []
    for line in _text(path).splitlines():
        if line.strip():
            x, y, z = (_float(word, path) for word in _three(line, path))
            points.append((x, y, z))
    return tuple(points)


def read_bare_number(path: Path) -> float:
    """Read the text file of ``sct_compute_snr``, which holds one number."""
    return _float(_text(path), path)


def _text(path: Path) -> str:
    try:
        return read_small(path, limit=_MAX_BYTES).decode("utf-8-sig", "replace")
    except InputError as error:
        raise EngineOutputError(error.what, where=path.name, found=error.found) from error


def _three(line: str, path: Path) -> list[str]:
    words = line.split(",")
    if len(words) != 3:
        raise EngineOutputError(
            "is not a centreline", where=path.name, found=printable(line, limit=80), expected="x,y,z"
        )
    return words


def _float(text: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise EngineOutputError(
            "holds something else than a number", where=path.name, found=printable(text, limit=80)
        ) from None
