"""Write a result to disk and read it back.

Every file is written under a temporary name and renamed when complete, so a killed run never
leaves half a file under a final name.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cordqa.errors import OutputError, UnreadableFileError
from cordqa.io.atomic import appear_complete
from cordqa.quantities import QUANTITIES
from cordqa.records import Entities, Measurement, Result, Statistic, Verdict, as_plain

__all__ = [
    "measurement_rows",
    "prepare_folder",
    "read_result",
    "table_text",
    "write_config",
    "write_result",
    "write_text",
]

#: What BIDS writes for a value that is not there.
MISSING = "n/a"
_RESULT = "result.json"
MAX_RESULT_BYTES = 512 * 1024 * 1024

_DESCRIPTIONS: Mapping[str, str] = {
    "quantity": "Identifier of the measured quantity.",
    "value": "Measured value in `unit`; n/a where it cannot be known, and then `flags` says why.",
    "unit": "Unit of value, uncertainty, interval and reference.",
    "region": "What was measured: a sphere, a tract, a level.",
    "level": "What the value is taken over: a vertebral level, several, all slices, or one slice.",
    "slice_number": "Number of the slice from inferior, the first is 0; of values of single slices.",
    "array_index": "Index of that slice along the superior-inferior axis of the file as stored.",
    "standard_uncertainty": "One standard deviation of the value.",
    "low": "Lower end of the interval.",
    "high": "Upper end of the interval.",
    "interval_level": "Confidence of the interval.",
    "uncertainty_method": "How the uncertainty was obtained.",
    "n_voxels": "Voxels that entered the value.",
    "coverage": "Fraction of the region that held usable voxels.",
    "reference": "Reference value at the field strength and temperature of the measurement.",
    "reference_uncertainty": "Standard uncertainty of the reference value.",
    "reference_source": "Where the reference value comes from.",
    "temperature_C": "Temperature of the object, degrees Celsius.",
    "method": "Model and estimator.",
    "engine": "Program that made the value, with version.",
    "flags": "What the reader must know about this value, separated by ';'.",
    "subject": "Participant or phantom.",
    "session": "Session.",
    "run": "Repetition within the session.",
    "acquisition": "Acquisition label.",
    "site": "Site.",
    "vendor": "Manufacturer of the scanner.",
    "model": "Scanner model.",
    "software": "Scanner software version.",
    "scanner": "Key of one scanner.",
    "field_strength_T": "Static field strength, tesla.",
    "acquired": "Date and time of the acquisition, ISO 8601.",
}


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; nothing is left behind.
    """
    with appear_complete(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def prepare_folder(path: Path) -> None:
    """Make the output folder and prove that it can be written before hours of work begin.

    Raises
    ------
    OutputError
        If it is a file, or cannot be made or written.
    """
    if path.exists() and not path.is_dir():
        raise OutputError("is a file, not a folder", where=str(path), todo="give another output folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            todo="give an output folder that you may write to",
        ) from error


def measurement_rows(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Flatten measurements to rows; entities become columns."""
    return [_flatten(m) for m in measurements]


def write_result(result: Result, folder: Path) -> None:
    """Write ``result.json``, the tables and their data dictionary into ``folder``.

    All of them are made from the one record, so they cannot disagree.
    """
    write_text(folder / "measurements.tsv", _table(result.measurements, Measurement))
    write_text(folder / "measurements.json", _dump(_dictionary(result)))
    write_text(folder / "verdicts.tsv", _table(result.verdicts, Verdict))
    write_text(folder / "statistics.tsv", _table(result.statistics, Statistic))
    write_text(folder / _RESULT, json.dumps(as_plain(result), ensure_ascii=False, allow_nan=False) + "\n")


def read_result(folder: Path) -> Result:
    """Read the result that an earlier run left in ``folder``.

    Raises
    ------
    UnreadableFileError
        If there is none, or it was not written by this version's schema.
    """
    from pydantic import TypeAdapter, ValidationError

    path = folder / _RESULT
    todo = "run the analysis again"
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise UnreadableFileError("is too large for a result", where=str(path), todo=todo)
        return TypeAdapter(Result).validate_json(path.read_bytes())
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}", where=str(path), todo=todo) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnreadableFileError(
            f"is not a result of cordqa: {place}: {first['msg']}", where=str(path), todo=todo
        ) from error


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write the effective configuration."""
    import yaml

    text = yaml.safe_dump(as_plain(dict(config)), sort_keys=True, allow_unicode=True)
    write_text(folder / "config.yaml", text)


def _flatten(record: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Entities):
            # What the record itself says goes first: a verdict's subject is what was judged.
            row = {f.name: getattr(value, f.name) for f in fields(value)} | row
        else:
            row[field.name] = value
    return row


def _columns(kind: type[Any]) -> list[str]:
    names: list[str] = []
    for field in fields(kind):
        names.extend([f.name for f in fields(Entities)] if field.name == "entities" else [field.name])
    # A verdict and its entities share the name "subject": the column is the verdict's own.
    return list(dict.fromkeys(names))


def table_text(records: Sequence[Any], kind: type[Any]) -> str:
    """Write records of one kind as tab-separated text; entities become columns.

    Parameters
    ----------
    records : sequence
        Dataclasses.
    kind : type
        Their class, which gives the columns also where there is no record.
    """
    return _table(records, kind)


def _table(records: Sequence[Any], kind: type[Any]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _columns(kind), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _cell(value) for name, value in _flatten(record).items()})
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None or value in ("", ()):
        return MISSING
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else MISSING
    if isinstance(value, Mapping):
        return ";".join(f"{key}={item}" for key, item in value.items()) or MISSING
    if isinstance(value, (tuple, list)):
        return ";".join(str(item) for item in value)
    text = " ".join(str(value).split())
    # Header text that a spreadsheet would run as a formula is made inert.
    return f"'{text}" if text[:1] in "=+-@" and not isinstance(value, (int, float)) else text


def _dictionary(result: Result) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: {"Description": _DESCRIPTIONS.get(name, name)} for name in _columns(Measurement)
    }
    used = sorted({m.quantity for m in result.measurements})
    columns["quantity"]["Levels"] = {
        name: f"{QUANTITIES[name].description} Unit: {QUANTITIES[name].unit}."
        for name in used
        if name in QUANTITIES
    }
    return columns


def _dump(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
