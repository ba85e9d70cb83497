"""BIDS file names and the sidecars that apply to a file (inheritance principle)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from cordqa.errors import UnreadableFileError
from cordqa.io.files import iter_lines, printable, read_small

__all__ = ["Entity", "bids_entities", "load_json", "merged_sidecar", "nifti_stem", "read_numbers"]

_PAIR = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_MAX_DEPTH = 64


class Entity(StrEnum):
    """Entities whose values are used."""

    SUBJECT = "sub"
    SESSION = "ses"
    RUN = "run"
    ACQUISITION = "acq"


def nifti_stem(name: str) -> str:
    """Return a file name without ``.nii``, ``.nii.gz``, ``.json`` or ``.bval``."""
    for ending in (".nii.gz", ".nii", ".json", ".bval"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def bids_entities(source: str) -> dict[str, str]:
    """Return the ``key-value`` pairs of a file name."""
    words = nifti_stem(PurePosixPath(source).name).split("_")
    matches = (_PAIR.fullmatch(word) for word in words)
    return {match[1]: match[2] for match in matches if match}


def _suffix(name: str) -> str:
    last = nifti_stem(name).split("_")[-1]
    return "" if _PAIR.fullmatch(last) else last


def merged_sidecar(root: Path, source: str, *, limit: int) -> dict[str, Any] | None:
    """Return what all sidecars that apply to a file say; the nearest one has the last word.

    A sidecar applies where it has the file's own name, or, in the same folder or one above it
    within ``root``, the same BIDS suffix and no entity that the file has not.

    Returns
    -------
    dict or None
        ``None`` where no sidecar applies.

    Raises
    ------
    UnreadableFileError
        If a sidecar is not valid JSON, or not an object.
    """
    path = PurePosixPath(source)
    own = bids_entities(source)
    merged: dict[str, Any] = {}
    found = False
    for folder in list(reversed(path.parents))[-_MAX_DEPTH:]:
        applicable = []
        for candidate in _json_files(root / folder):
            entities = bids_entities(candidate)
            same = nifti_stem(candidate) == nifti_stem(path.name) and folder == path.parent
            inherited = bool(_suffix(path.name)) and _suffix(candidate) == _suffix(path.name)
            inherited &= "_" in path.name and entities.items() <= own.items()
            if same or inherited:
                applicable.append((same, len(entities), candidate))
        for _, _, candidate in sorted(applicable):
            merged.update(load_json(root / folder / candidate, limit=limit))
            found = True
    return merged if found else None


def _json_files(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(".json"))
    except OSError:
        return []


def load_json(path: Path, *, limit: int) -> Mapping[str, Any]:
    """Read a JSON object of bounded size.

    Raises
    ------
    UnreadableFileError
        If it is not UTF-8, not valid JSON, or not an object.
    """
    name = printable(path.name, limit=80)
    try:
        value = json.loads(read_small(path, limit=limit).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise UnreadableFileError(
            f"the sidecar {name} is not valid JSON{where}", todo="correct the sidecar"
        ) from None
    if not isinstance(value, dict):
        raise UnreadableFileError(f"the sidecar {name} is not a JSON object", todo="correct the sidecar")
    return value


def read_numbers(image: Path, ending: str, *, limit: int) -> list[float]:
    """Read the numbers of a text file beside an image; an empty list where there is none.

    Raises
    ------
    UnreadableFileError
        If it holds something else than numbers.
    """
    path = image.with_name(nifti_stem(image.name) + ending)
    if not path.is_file():
        return []
    words = " ".join(iter_lines(read_small(path, limit=limit))).split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise UnreadableFileError(
            f"the file {printable(path.name, limit=80)} holds something else than numbers",
            todo="correct the file",
        ) from None
