"""Regional volumes that other programs wrote, as rows of the tidy table.

FreeSurfer writes ``aseg.stats`` (one line per structure) and FSL FIRST's volumes are commonly kept as
lines of ``name voxels mm3`` (the output of ``fslstats -V`` with the name of the structure before it).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cordqa.errors import EmptyInputError, TableError, TooLargeError, UnreadableFileError
from cordqa.io.files import printable
from cordqa.io.results import write_text
from cordqa.records import Entities, Measurement

__all__ = ["read_aparc_stats", "read_aseg_stats", "read_first_volumes", "write_regional_table"]

_MOST_BYTES = 5_000_000
_COLUMNS = re.compile(r"#\s*ColHeaders\s+(.+)")
_MEASURE = re.compile(r"#\s*Measure\s+([^,]+),\s*([^,]+),\s*[^,]*,\s*([-+0-9.eE]+)\s*,\s*(\S+)")
_NAME, _VOLUME = "StructName", "Volume_mm3"
_FIRST_FIELDS = 3
#: Columns of a table of the cortex: quantity and unit.
_CORTEX = {
    "GrayVol": ("volume", "mm3"),
    "SurfArea": ("surface_area", "mm2"),
    "ThickAvg": ("thickness", "mm"),
}


def _lines(path: Path) -> list[str]:
    """Read a small text file.

    Raises
    ------
    UnreadableFileError, TooLargeError
    """
    name = printable(path.name)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise TooLargeError("is too large for a table of regions", where=name)
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}", where=name) from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError("is no text", where=name) from error


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise TableError("is no volume", where=where, found=repr(word[:40]))
    return value


def read_aseg_stats(
    path: Path, *, entities: Entities | None = None, measures: bool = True
) -> tuple[Measurement, ...]:
    """Read the volumes of ``aseg.stats`` (or another FreeSurfer table of that form).

    Parameters
    ----------
    path : Path
    entities : Entities, optional
        Who and where; the file itself does not say it in a way that can be trusted.
    measures : bool
        Also the volumes of the header (``BrainSegVol`` and so on).

    Returns
    -------
    tuple of Measurement
        Quantity ``volume`` in mm3, region as FreeSurfer calls it.

    Raises
    ------
    TableError
        If there is no line of column names, a region comes twice, or a cell is no volume.
    EmptyInputError
        If there is no region.
    """
    name = printable(path.name)
    columns: list[str] = []
    found: dict[str, float] = {}
    version = ""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{name}, line {number}"
        header, measure = _COLUMNS.match(line), _MEASURE.match(line)
        if header:
            columns = header[1].split()
            _check_columns(columns, where)
        elif measure and measures and measure[4] == "mm^3":
            _put(found, measure[2].strip(), _number(measure[3], where), where)
        elif line.startswith("# generating_program") or line.startswith("# cvs_version"):
            version = f"{version} {line.split(maxsplit=2)[-1]}".strip()
        elif line.strip() and not line.lstrip().startswith("#"):
            cells = _cells_of(line, columns, where)
            _put(found, cells[_NAME], _number(cells[_VOLUME], where), where)
    return _measurements(found, name, entities, f"FreeSurfer {version}".strip())


def _check_columns(columns: list[str], where: str, wanted: tuple[str, ...] = (_NAME, _VOLUME)) -> None:
    missing = [one for one in wanted if one not in columns]
    if missing:
        raise TableError(
            f"has no column {' and '.join(missing)}",
            where=where,
            found=", ".join(columns),
            todo="give aseg.stats, or another table of volumes",
        )


def read_aparc_stats(
    path: Path, *, hemisphere: str, entities: Entities | None = None
) -> tuple[Measurement, ...]:
    """Read volume, surface area and thickness of ``lh.aparc.stats`` or ``rh.aparc.stats``.

    Parameters
    ----------
    path : Path
    hemisphere : str
        ``lh`` or ``rh``, before the name of each region as ``aparcstats2table`` writes it.
    entities : Entities, optional

    Returns
    -------
    tuple of Measurement
        Quantities ``volume`` (mm3), ``surface_area`` (mm2) and ``thickness`` (mm).

    Raises
    ------
    TableError, EmptyInputError
        As in :func:`read_aseg_stats`.
    """
    name = printable(path.name)
    columns: list[str] = []
    found: dict[str, dict[str, float]] = {column: {} for column in _CORTEX}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{name}, line {number}"
        header = _COLUMNS.match(line)
        if header:
            columns = header[1].split()
            _check_columns(columns, where, (_NAME, *_CORTEX))
        elif line.strip() and not line.lstrip().startswith("#"):
            cells = _cells_of(line, columns, where)
            for column, values in found.items():
                region = f"{hemisphere}_{cells[_NAME]}"
                _put(values, region, _number(cells[column], where), where)
    rows: list[Measurement] = []
    for column, (quantity, unit) in _CORTEX.items():
        rows += [
            replace(one, quantity=quantity, unit=unit)
            for one in _measurements(found[column], name, entities, "FreeSurfer")
        ]
    return tuple(rows)


def _cells_of(line: str, columns: list[str], where: str) -> dict[str, str]:
    """Split a line of values."""
    cells = line.split()
    if not columns:
        raise TableError("no line of column names (# ColHeaders) before the values", where=where)
    if len(cells) != len(columns):
        raise TableError(
            "has another number of cells than columns",
            where=where,
            found=str(len(cells)),
            expected=str(len(columns)),
        )
    return dict(zip(columns, cells, strict=True))


def _put(found: dict[str, float], region: str, value: float, where: str) -> None:
    label = printable(region, limit=80)
    if label in found:
        raise TableError("a region comes twice", where=where, found=label)
    found[label] = value


def _measurements(
    found: dict[str, float], name: str, entities: Entities | None, engine: str
) -> tuple[Measurement, ...]:
    if not found:
        raise EmptyInputError("holds no region", where=name)
    who = entities or Entities()
    return tuple(
        Measurement(
            quantity="volume", value=value, unit="mm3", region=region, entities=who, engine=engine,
            method=f"read from {name}",
        )
        for region, value in found.items()
    )  # fmt: skip


def read_first_volumes(path: Path, *, entities: Entities | None = None) -> tuple[Measurement, ...]:
    """Read a list of FIRST volumes: on each line the structure, its voxels, and its volume in mm3.

    Parameters
    ----------
    path : Path
        Lines such as ``L_Thal 8123 8123.0``; comments begin with ``#``.
    entities : Entities, optional

    Raises
    ------
    TableError
        If a line has another form, or a region comes twice.
    EmptyInputError
    """
    name = printable(path.name)
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{name}, line {number}"
        cells = line.replace(",", " ").split()
        if len(cells) != _FIRST_FIELDS:
            raise TableError(
                "is not 'structure voxels mm3'", where=where, found=repr(line.strip()[:60]),
                todo="write the name of the structure before the output of fslstats -V",
            )  # fmt: skip
        _number(cells[1], where)
        _put(found, cells[0], _number(cells[2], where), where)
    return _measurements(found, name, entities, "FSL FIRST")


def write_regional_table(measurements: Iterable[Measurement], path: Path) -> None:
    """Write such rows as a table that ``cordqa reliability`` takes without options.

    Raises
    ------
    EmptyInputError
        If there is no row.
    OutputError
        If it cannot be written.
    """
    rows = list(measurements)
    if not rows:
        raise EmptyInputError("there are no volumes to write")
    fields = ("subject", "session", "run", "site", "vendor", "model", "software", "scanner")
    stream = io.StringIO()
    table = csv.writer(stream, delimiter="\t", lineterminator="\n")
    table.writerow([*fields, "region", "quantity", "value", "unit", "engine"])
    for row in rows:
        who = [getattr(row.entities, name) or "n/a" for name in fields]
        table.writerow([*who, row.region, row.quantity, f"{row.value:.10g}", row.unit, row.engine])
    write_text(path, stream.getvalue())
