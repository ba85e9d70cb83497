"""BIDS file names and the sidecars that apply to a file (inheritance principle)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from cordqa.errors import UnreadableFileError
from cordqa.io.files import iter_lines, printable, read_small

__all__ = ["Entity", "Sidecars", "bids_entities", "bids_suffix", "load_json", "nifti_stem", "read_numbers"]

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


def bids_suffix(name: str) -> str:
    """Return the last word of a file name (``MESE``, ``IRT1``), unless it is an entity."""
    last = nifti_stem(name).split("_")[-1]
    return "" if _PAIR.fullmatch(last) else last


@dataclass(slots=True)
class _Listing:
    """The sidecars of one folder: with their entities by BIDS suffix, and by name."""

    by_suffix: dict[str, list[tuple[frozenset[tuple[str, str]], str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Sidecars:
    """The JSON sidecars below a folder, listed and read once.

    A sidecar applies to an image where it has the image's own name, or, in the same folder or
    one above it, the same BIDS suffix and no entity that the image has not.  The nearest one
    has the last word.
    """

    def __init__(self, root: Path, *, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._listings: dict[PurePosixPath, _Listing] = {}
        self._contents: dict[PurePosixPath, Mapping[str, Any]] = {}

    def of(self, source: str) -> dict[str, Any] | None:
        """Return what all sidecars of one image say together; ``None`` where it has none.

        Raises
        ------
        UnreadableFileError
            If a sidecar is not valid JSON, or not an object.
        """
        merged: dict[str, Any] = {}
        applicable = self.applicable(source)
        for sidecar in applicable:
            if sidecar not in self._contents:
                self._contents[sidecar] = load_json(self._root / sidecar, limit=self._limit)
            merged.update(self._contents[sidecar])
        return merged if applicable else None

    def applicable(self, source: str) -> list[PurePosixPath]:
        """Return the paths of the sidecars of an image, the farthest and most general first."""
        path = PurePosixPath(source)
        own, stem = frozenset(bids_entities(path.name).items()), nifti_stem(path.name)
        suffix = bids_suffix(path.name) if "_" in path.name else ""
        result = []
        for folder in list(reversed(path.parents))[-_MAX_DEPTH:]:
            listed = self._listing(folder).by_suffix.get(suffix, []) if suffix else []
            here = folder == path.parent  # where the image's own sidecar has the last word
            found = [
                (len(pairs), name)
                for pairs, name in listed
                if pairs <= own and not (here and nifti_stem(name) == stem)
            ]
            result += [folder / name for _, name in sorted(found)]
        result += [path.parent / name for name in self._listing(path.parent).by_stem.get(stem, [])]
        return result

    def _listing(self, folder: PurePosixPath) -> _Listing:
        if folder not in self._listings:
            listing = _Listing()
            for name in _json_files(self._root / folder):
                pairs = frozenset(bids_entities(name).items())
                listing.by_suffix[bids_suffix(name)].append((pairs, name))
                listing.by_stem[nifti_stem(name)].append(name)
            self._listings[folder] = listing
        return self._listings[folder]


def _json_files(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(".json"))
    except OSError:
        return []


class _TwoValuesError(Exception):
    """A name with two values: readers take the last one silently, so nobody knows which was meant."""


def _one_value_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise _TwoValuesError(name)
    return found


def load_json(path: Path, *, limit: int) -> Mapping[str, Any]:
    """Read a JSON object of bounded size.

    Raises
    ------
    UnreadableFileError
        If it is not UTF-8, not valid JSON, or not an object, or gives one name two values.
    """
    name = printable(path.name, limit=80)
    try:
        value = json.loads(
            read_small(path, limit=limit).decode("utf-8-sig"), object_pairs_hook=_one_value_each
        )
    except _TwoValuesError as error:
        raise UnreadableFileError(
            f"the sidecar {name} gives {printable(str(error), limit=80)} twice, with two values",
            todo="keep the right one",
        ) from None
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
