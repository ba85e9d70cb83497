"""What became of each task, on disk, and whether that still holds."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from cordqa import __version__
from cordqa.errors import ConfigError, OutputError
from cordqa.io.results import prepare_folder, write_text
from cordqa.records import Outcome, State, as_plain
from cordqa.workflow.execute.plan import Task, function_name, safe_name

__all__ = [
    "CURRENT",
    "Fingerprint",
    "Ledger",
    "Record",
    "hash_config",
    "is_unchanged",
    "open_ledger",
    "read_records",
    "take_fingerprint",
]

#: Code of the outcome of a task that an earlier run has done.
CURRENT = "execute.current"
#: Files up to this size are compared by content, larger ones by size and time of change.
SMALL_FILE_BYTES = 1024 * 1024
_MAX_RECORD_BYTES = 16 * 1024 * 1024
_SCHEMA = 1
_ABSENT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a file looked like; ``size`` is -1 for one that was not there."""

    name: str
    size: int = _ABSENT
    mtime_ns: int = 0
    sha256: str = ""  # of small files, and of the listing of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one task and what it depended on."""

    key: str
    outcome: Outcome
    function: str = ""
    version: str = ""
    config_hash: str = ""
    inputs: tuple[Fingerprint, ...] = ()
    outputs: tuple[str, ...] = ()
    made: tuple[Fingerprint, ...] = ()  # what the outputs were when they were made
    run: str = ""
    attempt: int = 1
    started: str = ""
    seconds: float = 0.0
    schema: int = _SCHEMA


def take_fingerprint(path: Path) -> Fingerprint:
    """Describe a file or folder as it is now; one that cannot be read counts as absent."""
    try:
        status = path.stat()
        if path.is_dir():
            return Fingerprint(name=path.name, size=0, sha256=_hash_listing(path))
        small = status.st_size <= SMALL_FILE_BYTES and path.is_file()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
    except (OSError, ValueError):
        return Fingerprint(name=path.name)
    return Fingerprint(name=path.name, size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)


def is_unchanged(path: Path, known: Fingerprint) -> bool:
    """Tell whether a file is what it was.

    The content decides for small files, so that a copied or touched dataset is not computed
    anew; size and time of change decide for large ones, so that nothing large is read.
    """
    now = take_fingerprint(path)
    if now.sha256 or known.sha256:
        return (now.size, now.sha256) == (known.size, known.sha256)
    return (now.size, now.mtime_ns) == (known.size, known.mtime_ns)


def _as_made(outputs: Sequence[Path], made: Sequence[Fingerprint]) -> bool:
    """Tell whether outputs are there, and are those that the task itself has left.

    A run that lost sight of a worker leaves a note of that in the place of the result, while the worker
    may be about to finish.  The time of change does not count, so that a copied folder stays as it is.
    """
    if not all(path.exists() for path in outputs):
        return False
    if len(made) != len(outputs):
        return not made
    now = [take_fingerprint(path) for path in outputs]
    return all((a.size, a.sha256) == (b.size, b.sha256) for a, b in zip(now, made, strict=True))


def _hash_listing(folder: Path) -> str:
    lines = []
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(base, name)
            try:
                status = path.stat()
            except OSError:  # a broken link
                size, mtime_ns = _ABSENT, 0
            else:
                size, mtime_ns = status.st_size, status.st_mtime_ns
            lines.append(f"{path.relative_to(folder).as_posix()}\0{size}\0{mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_config(config: Mapping[str, Any]) -> str:
    """Hash the effective configuration, whatever the order of its entries.

    Raises
    ------
    ConfigError
        If it holds something that has no stable text.
    """
    text = json.dumps(as_plain(config), sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(as_plain(item), sort_keys=True, default=_plain) for item in value)
    if isinstance(value, Enum):
        return as_plain(value.value)
    raise ConfigError(
        "has no stable text, so a run with it could not be resumed",
        where="configuration",
        found=type(value).__name__,
        expected="numbers, text, paths, and lists or mappings of them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The records of the tasks of one output folder, as one run sees them.

    Attributes
    ----------
    out : Path
        Output folder, absolute.
    config_hash, version : str
        What a record must have been made with to be current.
    run : str
        Key of this run; a record that carries it was written by this run.
    """

    out: Path
    config_hash: str = ""
    version: str = __version__
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def state_folder(self) -> Path:
        """Folder of the records."""
        return _state_folder(self.out)

    def state_path(self, key: str) -> Path:
        """Return the file that holds the record of a task."""
        return self.state_folder / f"{safe_name(key)}.json"

    def log_path(self, key: str) -> Path:
        """Return the file that holds what a task printed, and the traceback where it failed."""
        return self.out / "logs" / f"{safe_name(key)}.log"

    def read(self, key: str) -> Record | None:
        """Return the record of a task, or None where there is none that can be understood."""
        record = _read_record(self.state_path(key))
        return record if record is not None and record.key == key else None

    def write(self, record: Record) -> None:
        """Write a record; it appears complete or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        text = json.dumps(as_plain(record), ensure_ascii=False, indent=1, allow_nan=False)
        # File names may hold bytes that are no text.
        text = text.encode("utf-8", "replace").decode("utf-8")
        write_text(self.state_path(record.key), text + "\n")

    def find_current(self, task: Task) -> Record | None:
        """Return the record of a task that need not be repeated, or None.

        It must have ended well, or with a reason to skip it, with the same function, version
        and configuration; its inputs must be what they were and its outputs still there.
        """
        record = self.read(task.key)
        if record is None or record.outcome.state is State.FAILED:
            return None
        made_with = (record.schema, record.function, record.version, record.config_hash)
        if made_with != (_SCHEMA, function_name(task.function), self.version, self.config_hash):
            return None
        if len(record.inputs) != len(task.inputs):
            return None
        if record.outcome.state is State.DONE and not _as_made(task.outputs, record.made):
            return None
        pairs = zip(task.inputs, record.inputs, strict=True)
        return record if all(is_unchanged(path, known) for path, known in pairs) else None


def open_ledger(out: Path, *, config: Mapping[str, Any], version: str = __version__) -> Ledger:
    """Make the folders of the records and return the ledger of a new run.

    Parameters
    ----------
    out : Path
        Output folder.
    config : mapping
        Everything that changes a result: options, engine and its version, definitions.
    version : str
        Of the program; results of another version are computed anew.

    Raises
    ------
    ConfigError
        If the configuration cannot be hashed.
    OutputError
        If the folder cannot be written.
    """
    out = out.absolute()
    ledger = Ledger(out=out, config_hash=hash_config(config), version=version)
    for folder in (out, ledger.state_folder, out / "logs"):
        prepare_folder(folder)
    return ledger


def read_records(out: Path) -> tuple[Record, ...]:
    """Return all the records that earlier runs left in an output folder, sorted by key.

    Raises
    ------
    OutputError
        If the folder of records cannot be listed.
    """
    folder = _state_folder(out)
    try:
        paths = sorted(folder.glob("[!.]*.json")) if folder.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot be listed: {error.strerror}", where=str(folder)) from error
    records = (_read_record(path) for path in paths)
    return tuple(sorted((r for r in records if r is not None), key=lambda r: r.key))


def _state_folder(out: Path) -> Path:
    return out / ".cordqa" / "state"


def _read_record(path: Path) -> Record | None:
    """Read a record; a damaged one counts as none, and its task is done again."""
    from pydantic import ValidationError

    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            return None
        record: Record = _adapter().validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return record


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)
