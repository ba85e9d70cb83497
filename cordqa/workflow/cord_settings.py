"""Options of a cord run, and the marks of a reviewer that leave images out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from cordqa.cord.extraction import METHODS
from cordqa.cord.levels import level_number
from cordqa.errors import ConfigError, InputError
from cordqa.io.bids_index import BidsFile
from cordqa.io.bids_names import split_extension
from cordqa.io.files import printable, read_small

__all__ = ["ENGINES", "CordSettings", "EngineName", "parse_levels", "read_exclusions", "why_excluded"]

EngineName = Literal["builtin", "sct"]
ENGINES: tuple[str, ...] = get_args(EngineName)
_MAX_REVIEW_BYTES = 16 * 1024 * 1024
_LEVEL = re.compile(r"[CTL]\d{1,2}(-[CTL]\d{1,2})?", re.IGNORECASE)
#: Marks of a reviewer that take an image out.
_LEAVES_OUT = ("fail", "artefact", "artifact")
_KEEPS = ("pass",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CordSettings:
    """Options of a run; ``None`` or empty means "not given".

    Attributes
    ----------
    engine : str
        ``builtin`` or ``sct``.
    participants, sessions : tuple of str
        Labels to analyse; all where empty.
    levels : tuple of str
        ``C3`` or ``C2-C5``; every level met where empty.
    method : str
        How a value is taken from voxels that hold several tissues; see
        :data:`cordqa.cord.extraction.METHODS`.
    template : Path or None
        Folder of the user's own PAM50.
    derivatives : tuple of Path
        Further folders with the user's masks and labels.
    exclude_from : Path or None
        YAML with the marks of a reviewer.
    reference_table : Path or None
        Table of controls for z-scores.
    """

    engine: EngineName = "builtin"
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    method: str = "MAP"
    template: Path | None = None
    derivatives: tuple[Path, ...] = ()
    exclude_from: Path | None = None
    reference_table: Path | None = None
    redo: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(
                "no such engine", where="engine", found=self.engine, expected=" or ".join(ENGINES)
            )
        if self.method not in METHODS:
            raise ConfigError(
                "no such way of extraction", where="method", found=self.method, expected=", ".join(METHODS)
            )
        for path, option in ((self.template, "template"), (self.reference_table, "reference-table")):
            if path is not None and not path.exists():
                raise ConfigError("does not exist", where=option, found=str(path))

    def plain(self) -> dict[str, Any]:
        """All options as they go into the configuration that is written."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if isinstance(value, tuple):
                found[key] = [str(item) for item in value]
            else:
                found[key] = str(value) if isinstance(value, Path) else value
        return found


def parse_levels(texts: Sequence[str]) -> tuple[str, ...]:
    """Understand ``C2-C5``, ``C3`` and lists of them separated by commas.

    Raises
    ------
    ConfigError
        If one of them is no vertebral level.
    """
    wanted: list[str] = []
    for part in (word.strip().upper() for text in texts for word in text.split(",")):
        if not part:
            continue
        try:
            if not _LEVEL.fullmatch(part):
                raise InputError("not a level")
            for name in part.split("-"):
                level_number(name)
        except InputError as error:
            raise ConfigError(
                "is not a vertebral level",
                where="levels",
                found=printable(part, limit=40),
                expected="C3, or C2-C5 for the mean over several",
            ) from error
        wanted.append(part)
    return tuple(dict.fromkeys(wanted))


def read_exclusions(path: Path | None) -> Mapping[str, str]:
    """Read a reviewer's marks: image name (without extension) to the reason for which it is left out.

    The file is a list of ``image``, ``status`` (pass, fail, artefact) and, where wanted, ``reason``.

    Raises
    ------
    ConfigError
        If the file cannot be understood: a mark that is not read would silently keep an image.
    """
    if path is None:
        return {}
    import yaml

    where = f"exclude-from: {path.name}"
    try:
        content = yaml.safe_load(read_small(path, limit=_MAX_REVIEW_BYTES).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, InputError, RecursionError) as error:
        raise ConfigError("cannot be read as YAML", where=where, found=str(error)[:120]) from error
    if isinstance(content, Mapping) and isinstance(content.get("review"), list):
        content = content["review"]
    if content is None:
        return {}
    if not isinstance(content, list):
        raise ConfigError(
            "holds no list of reviewed images", where=where, expected="- {image: ..., status: ...}"
        )
    marks: dict[str, str] = {}
    for number, entry in enumerate(content, start=1):
        name, status, reason = _mark(entry, f"{where}, entry {number}")
        if status in _LEAVES_OUT:
            marks[name] = f"marked '{status}' by a reviewer" + (f": {reason}" if reason else "")
    return marks


def _mark(entry: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
        raise ConfigError("does not name an image", where=where, expected="image, status and reason")
    status = str(entry.get("status", "")).strip().casefold()
    if status not in (*_LEAVES_OUT, *_KEEPS):
        raise ConfigError(
            "has no status that is known", where=where, found=repr(status), expected="pass, fail or artefact"
        )
    name = split_extension(PurePosixPath(entry["image"]).name)[0]
    return name, status, printable(str(entry.get("reason") or ""), limit=200)


def why_excluded(marks: Mapping[str, str], file: BidsFile) -> str:
    """Say why an image is left out; empty where it is not."""
    return marks.get(split_extension(file.name)[0], "")
