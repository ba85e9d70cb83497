"""Tables of regions as FreeSurfer and FSL FIRST leave them, as one tidy table of text.

Understood are the wide tables of ``asegstats2table`` and ``aparcstats2table`` (any delimiter, also
transposed) and those of the ENIGMA protocols, a list of FIRST volumes with the name of the scan on
each line, and a folder: of such tables, of files of one scan each, or the folder of subjects that
FreeSurfer writes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cordqa.errors import EmptyInputError, TableError, UnreadableFileError
from cordqa.io.files import open_regular, printable
from cordqa.io.regional_enigma import enigma_columns, is_enigma
from cordqa.io.regional_tables import read_aparc_stats, read_aseg_stats, read_first_volumes
from cordqa.io.scan_names import ScanNames
from cordqa.io.table_text import Reading, TableLimits, decode_table, read_bytes, take_separator_line
from cordqa.io.tables import MISSING_WORDS, RawTable, read_table
from cordqa.records import Measurement, Notice, Severity

__all__ = ["COLUMNS", "read_regional_source", "tidy_text"]

#: Columns of the tidy table.
COLUMNS = (
    "subject",
    "session",
    "run",
    "scanner",
    "site",
    "vendor",
    "acquisition",
    "region",
    "quantity",
    "value",
    "unit",
    "engine",
)
_HEMISPHERE = re.compile(r"([lr]h)\.(.+)\.([A-Za-z]+)")
_MEASURES = {
    "volume": ("volume", "mm3"),
    "area": ("surface_area", "mm2"),
    "thickness": ("thickness", "mm"),
}
#: Columns of these tables that are no regions: shares and counts, and in tables of the cortex the whole head.
_NO_REGION = re.compile(r".*-to-eTIV|[lr]?h?SurfaceHoles|.*NumVert.*")
_WHOLE_HEAD = re.compile(r"eTIV|BrainSeg.*|EstimatedTotalIntraCranialVol|.*_WhiteSurfArea_.*")
_ZERO = re.compile(r"[-+]?0+(?:[.,]0*)?(?:[eE][-+]?\d+)?")
#: Names by which the side of a table that holds regions is told from that of scans.
_STRUCTURE = re.compile(
    r"(?:Left|Right|[lr]h)[-_].+|Brain-Stem|CSF|BrainSegVol.*|[lr]h[A-Z].*Vol|eTIV|CC_.+|MeanThickness|"
    r"bankssts|insula|(?:pre)?cuneus|lingual|superiorfrontal|(?:pre|post|para)central"
)
_STATS = re.compile(rb"^#\s*(?:ColHeaders|Title Segmentation Statistics|Table of FreeSurfer)", re.MULTILINE)
_FIRST_LINE = re.compile(r"(?:\S+[\s,]+)?[A-Za-z]\S*[\s,]+\d+(?:\.0*)?[\s,]+\d+(?:\.\d*)?")
_ENDINGS = (".stats", ".txt", ".tsv", ".csv", ".dat", ".table")
_HEAD = 65_536
_SIDE = re.compile(r"(?:^|[._-])([lr]h)\.aparc")
#: What stands in names of files beside the name of the scan.
_FILE_KIND = re.compile(r"(?:(?:^|[._-])(?:aseg|wmparc|[lr]h\.aparc[\w.]*?|first(?:_volumes)?))?\.\w+$")
_SHOWN = 4
_ENIGMA = "SubjID"


@dataclass(slots=True)
class _Gathered:
    """Rows and remarks of all files."""

    where: str
    names: ScanNames
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    zeros: list[str] = field(default_factory=list)
    unused: set[str] = field(default_factory=set)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def note(self, code: str, message: str, severity: Severity = Severity.INFO) -> None:
        self.notices.append(Notice(severity=severity, message=message, where=self.where, code=code))

    def put(self, scan: str, region: str, cell: str, kind: tuple[str, str], engine: str) -> None:
        """Keep one value; 0 stands for a region that was not found."""
        if _ZERO.fullmatch(cell):
            self.zeros.append(region)
            cell = "n/a"
        self.rows.append((*self.names.split(scan), region, kind[0], cell, kind[1], engine))

    def put_measured(self, scan: str, measured: Iterable[Measurement]) -> None:
        for one in measured:
            engine = one.engine.split(" ")[0] if one.engine.startswith("FreeSurfer") else one.engine
            self.put(scan, one.region, f"{one.value:.10g}", (one.quantity, one.unit), engine)


def read_regional_source(path: Path, *, names: str = "", delimiter: str = "auto") -> RawTable | None:
    """Read a table of regions, or a folder of them; None where the file is an ordinary table.

    Parameters
    ----------
    path : Path
    names : str
        How the names of scans are built, such as ``{subject}_{session}``; by default by BIDS
        (``sub-01_ses-2``), and FreeSurfer's ``.long.`` is understood.
    delimiter : str
        As in :func:`~cordqa.io.tables.read_table`.

    Returns
    -------
    RawTable or None
        One row per value with the columns :data:`COLUMNS`; lines count the rows of that table.

    Raises
    ------
    TableError
        If a folder holds no such table, a file has one scan only, or a name does not fit ``names``.
    EmptyInputError
    """
    gathered = _Gathered(printable(path.name or str(path)), ScanNames(names))
    if path.is_dir():
        _read_folder(path, gathered, delimiter)
    elif not _read_file(path, gathered, delimiter, alone=True):
        return None
    if not gathered.rows:
        raise EmptyInputError("holds no value of a region", where=gathered.where)
    _remark(gathered)
    cells = {name: [row[i] for row in gathered.rows] for i, name in enumerate(COLUMNS)}
    used = [name for name in COLUMNS if any(cells[name])]
    return RawTable(
        name=gathered.where,
        columns=tuple(used),
        cells={name: [cell or "n/a" for cell in cells[name]] for name in used},
        lines=list(range(2, len(gathered.rows) + 2)),
        notices=tuple(gathered.notices),
        delimiter="\t",
        sha256=gathered.digest.hexdigest(),
    )


def tidy_text(table: RawTable) -> str:
    """Write such a table, so that lines in messages can be looked up."""
    stream = io.StringIO()
    rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
    rows.writerow(table.columns)
    for row in zip(*(table.cells[name] for name in table.columns), strict=True):
        # No text may run as a formula of a spreadsheet.
        rows.writerow([f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in row])
    return stream.getvalue()


def _read_folder(path: Path, gathered: _Gathered, delimiter: str) -> None:
    scans = sorted({found.parent.parent for found in path.glob("*/stats/*.stats")})
    scans = [scan for scan in scans if not scan.name.startswith("fsaverage")]
    long = [scan for scan in scans if ".long." in scan.name]
    if 0 < len(long) < len(scans):
        # The same scans, once more: both together would pass for repeats.
        message = (
            f"{len(long)} scans of the longitudinal stream are read, {len(scans) - len(long)} others not"
        )
        gathered.note("regions.longitudinal", message, Severity.WARNING)
        scans = long
    for scan in scans:
        _read_scan(scan, gathered)
    if scans:
        return
    passed = [
        printable(file.name)
        for file in sorted(one for one in path.iterdir() if one.is_file())
        if file.suffix.lower() not in _ENDINGS or not _read_file(file, gathered, delimiter, alone=False)
    ]
    if not gathered.rows:
        raise TableError(
            "the folder holds no table of regions that is known",
            where=gathered.where,
            found=", ".join(passed[:_SHOWN]) or "no file",
            expected="FreeSurfer's subjects, tables of asegstats2table, aseg.stats or volumes of FIRST",
        )
    if passed:
        more = f" and {len(passed) - _SHOWN} more" if len(passed) > _SHOWN else ""
        gathered.note("regions.passed", f"not read: {', '.join(passed[:_SHOWN])}{more}")


def _read_scan(scan: Path, gathered: _Gathered) -> None:
    """Read the statistics that FreeSurfer wrote of one scan."""
    aseg = scan / "stats" / "aseg.stats"
    if aseg.is_file():
        gathered.digest.update(aseg.read_bytes())
        gathered.put_measured(scan.name, read_aseg_stats(aseg))
    else:
        name = printable(scan.name)
        gathered.note("regions.incomplete", f"{name} has no stats/aseg.stats", Severity.WARNING)
    for side in ("lh", "rh"):
        aparc = scan / "stats" / f"{side}.aparc.stats"
        if aparc.is_file():
            gathered.digest.update(aparc.read_bytes())
            gathered.put_measured(scan.name, read_aparc_stats(aparc, hemisphere=side))


def _read_file(path: Path, gathered: _Gathered, delimiter: str, *, alone: bool) -> bool:
    """Read one file where it is known; tell whether it was."""
    reading = Reading(printable(path.name), TableLimits())
    if not _may_be_known(path):
        return False
    content = read_bytes(path, reading)
    if _STATS.search(content[:_HEAD]) or (path.suffix == ".stats" and content[:1] == b"#"):
        _refuse_alone(path, alone, gathered)
        gathered.put_measured(_scan_of(path), _read_stats(path))
    else:
        try:
            text, _ = decode_table(content, reading)
        except TableError:
            return False
        kind = _wide_kind(take_separator_line(text)[0])
        if kind is not None:
            _read_wide(path, text, kind, gathered, delimiter)
        elif _is_first(text):
            _read_first(path, text, gathered, alone=alone)
        else:
            return False
    gathered.digest.update(content)
    return True


def _may_be_known(path: Path) -> bool:
    """Look at the beginning, so that a large ordinary table is not read twice."""
    try:
        file, _ = open_regular(path)
    except UnreadableFileError:
        return True  # the reader says why
    with file:
        head = file.read(_HEAD)
    if _STATS.search(head) or head[:2] in (b"\xff\xfe", b"\xfe\xff") or path.suffix == ".stats":
        return True
    text = head.decode("latin-1").removeprefix("\u00ef\u00bb\u00bf")
    return _wide_kind(take_separator_line(text)[0]) is not None or _is_first(text)


def _scan_of(path: Path) -> str:
    """Name of the scan in the name of a file.

    Raises
    ------
    TableError
        If the file is called as the program calls it for everyone.
    """
    name = _FILE_KIND.sub("", path.name)
    if not name:
        raise TableError(
            "the name of the file does not say whose it is",
            where=printable(path.name),
            todo="give FreeSurfer's folder of subjects, or put the scan before: sub-01_ses-1.aseg.stats",
        )
    return name


def _read_stats(path: Path) -> tuple[Measurement, ...]:
    side = _SIDE.search(path.name)
    return read_aparc_stats(path, hemisphere=side[1]) if side else read_aseg_stats(path)


def _refuse_alone(path: Path, alone: bool, gathered: _Gathered) -> None:
    if alone:
        raise TableError(
            "holds one scan only, of which nothing can be said",
            where=gathered.where,
            expected="at least two people measured twice",
            todo="give the folder that holds the files of all scans, or FreeSurfer's folder of subjects",
        )


def _wide_kind(text: str) -> str | None:
    """Return the first name of a wide table, or None."""
    line = text.lstrip("\ufeff").partition("\n")[0]
    if is_enigma(re.split(r"[\t,;]", line)):
        return _ENIGMA
    first = re.split(r"[\t,;]|\s", line.strip().lstrip('"'), maxsplit=1)[0].strip('"').strip()
    known = first.startswith("Measure:") or _HEMISPHERE.fullmatch(first)
    old = first in ("volume", "mean") and _STRUCTURE.search(line)
    return first if known or old else None


def _read_wide(path: Path, text: str, kind: str, gathered: _Gathered, delimiter: str) -> None:
    table = _split(path, text, delimiter)
    gathered.notices.extend(table.notices)
    if kind == _ENIGMA:
        _take_enigma(table, gathered)
        return
    side = _HEMISPHERE.fullmatch(kind)
    measure = side[3] if side else kind.removeprefix("Measure:")
    labels = table.cells[table.columns[0]]
    heading = list(table.columns[1:])
    turned = _known_regions(labels) > _known_regions(heading)
    for scan, region, cell in _cells(table, labels, heading, turned=turned):
        cleaned = _region_of(region, side[1] if side else "", measure)
        if cleaned is None:
            gathered.unused.add(region)
            continue
        gathered.put(scan, cleaned, cell, _MEASURES.get(measure, (measure, "")), "FreeSurfer")


def _take_enigma(table: RawTable, gathered: _Gathered) -> None:
    scans, heading = table.cells[table.columns[0]], table.columns[1:]
    known = enigma_columns(heading)
    gathered.unused.update(one for one in heading if one not in known)
    for column, (region, kind) in known.items():
        for scan, cell in zip(scans, table.cells[column], strict=True):
            gathered.put(scan, region, cell, kind, "FreeSurfer")


def _known_regions(names: list[str]) -> int:
    return sum(bool(_STRUCTURE.fullmatch(one)) for one in names)


def _cells(
    table: RawTable, labels: list[str], heading: list[str], *, turned: bool
) -> Iterator[tuple[str, str, str]]:
    """Scan, region and text of every cell, whichever way the table lies."""
    for index, label in enumerate(labels):
        for name in heading:
            cell = table.cells[name][index]
            yield (name, label, cell) if turned else (label, name, cell)


def _region_of(region: str, side: str, measure: str) -> str | None:
    """Return a region as it is called in all tables, or None where the column is no region."""
    if _NO_REGION.fullmatch(region):
        return None
    if not side:
        return region
    if _WHOLE_HEAD.fullmatch(region):
        return None
    bare = region.removesuffix(f"_{measure}")
    return bare if bare.startswith(f"{side}_") else f"{side}_{bare}"


def _split(path: Path, text: str, delimiter: str) -> RawTable:
    """Split a wide table; blanks may delimit it, as the program's option ``space`` has it."""
    line = text.partition("\n")[0]
    blank = delimiter == "auto" and " " in line.strip() and not any(sign in line for sign in "\t;,|")
    return read_table(path, delimiter=" " if blank else delimiter)


def _is_first(text: str) -> bool:
    lines = [one.strip() for one in text.splitlines() if one.strip() and not one.lstrip().startswith("#")]
    fit = [bool(_FIRST_LINE.fullmatch(one)) for one in lines[:20]]
    # A line that is none is named when the list is read.
    return bool(fit) and fit[0] and sum(fit) >= len(fit) / 2


def _read_first(path: Path, text: str, gathered: _Gathered, *, alone: bool) -> None:
    """Read ``structure voxels mm3`` of one scan, or the same with the name of the scan before it."""
    lines = [one for one in text.splitlines() if one.strip() and not one.lstrip().startswith("#")]
    if len(lines[0].replace(",", " ").split()) == 3:
        _refuse_alone(path, alone, gathered)
        gathered.put_measured(_scan_of(path), read_first_volumes(path))
        return
    for number, line in enumerate(lines, start=1):
        cells = line.replace(",", " ").split()
        if len(cells) != 4:
            raise TableError(
                "is not 'scan structure voxels mm3'",
                where=f"{printable(path.name)}, value {number}",
                found=repr(line.strip()[:60]),
            )
        gathered.put(cells[0], printable(cells[1], limit=80), cells[3], _MEASURES["volume"], "FSL FIRST")


def _remark(gathered: _Gathered) -> None:
    """Say what was assumed of all files."""
    filled = [row for row in gathered.rows if row[9].casefold() not in MISSING_WORDS]
    scans = len({row[:7] for row in gathered.rows})
    gathered.note(
        "regions.read",
        f"{len(filled)} values of {len({row[7] for row in gathered.rows})} regions in {scans} scans were "
        "read from tables of other programs; lines in messages are those of regions.tsv beside this report",
    )
    if gathered.zeros:
        names = sorted(set(gathered.zeros))
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        gathered.note(
            "regions.zero",
            f"{len(gathered.zeros)} values of 0 ({shown}) count as missing: 0 stands for a region that was "
            "not found",
            Severity.WARNING,
        )
    if gathered.unused:
        names = sorted(gathered.unused)
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        gathered.note("regions.columns", f"columns that are no regions of this measure are left out: {shown}")
    for message in gathered.names.remarks():
        gathered.note("regions.names", message, Severity.WARNING)
