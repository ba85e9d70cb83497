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
from pathlib import Path

from cordqa.errors import EmptyInputError, TableError, TooLargeError, UnreadableFileError
from cordqa.io.files import printable
from cordqa.io.results import write_text
from cordqa.records import Entities, Measurement

__all__ = ["read_aseg_stats", "read_first_volumes", "write_regional_table"]

_MOST_BYTES = 5_000_000
_COLUMNS = re.compile(r"#\s*ColHeaders\s+(.+)")
_MEASURE = re.compile(r"#\s*Measure\s+([^,]+),\s*([^,]+),\s*[^,]*,\s*([-+0-9.eE]+)\s*,\s*(\S+)")
_NAME, _VOLUME = "StructName", "Volume_mm3"
_FIRST_FIELDS = 3


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
            _put(found, cells[columns.index(_NAME)], _number(cells[columns.index(_VOLUME)], where), where)
    return _measurements(found, name, entities, f"FreeSurfer {version}".strip())


def _check_columns(columns: list[str], where: str) -> None:
    missing = [one for one in (_NAME, _VOLUME) if one not in columns]
    if missing:
        raise TableError(
            f"has no column {' and '.join(missing)}",
            where=where,
            found=", ".join(columns),
            todo="give aseg.stats, or another table of volumes",
        )


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
