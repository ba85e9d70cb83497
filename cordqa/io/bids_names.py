"""BIDS file names, read and written.

Spine studies put the entities of a label after the suffix of the image that it belongs to
(``sub-01_T2w_label-SC_seg``), which BIDS does not; both ways are understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cordqa.errors import ConfigError

__all__ = ["ENTITIES", "BidsName", "entity_key", "format_name", "parse_name", "split_extension"]

#: Key in file names and word for people, in the order in which BIDS writes them.
ENTITIES: Mapping[str, str] = {
    "sub": "subject",
    "ses": "session",
    "sample": "sample",
    "task": "task",
    "acq": "acquisition",
    "ce": "contrast_agent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inversion",
    "mt": "mt",
    "part": "part",
    "proc": "processing",
    "hemi": "hemisphere",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "from": "from_",
    "to": "to",
    "mode": "mode",
    "seg": "segmentation",
    "res": "resolution",
    "den": "density",
    "label": "label",
    "param": "parameter",
    "desc": "description",
}
_KEYS = {word: key for key, word in ENTITIES.items()} | {key: key for key in ENTITIES}
_PAIR = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
#: Names from before labels had entities: ``seg-manual`` reads like an entity and is a suffix.
_OLD_SUFFIX = re.compile(r"(?:seg|gmseg|lesion|pmj|centerline|rootlets|labels?-(?:disc|discs|vert))-manual")
_LABEL = re.compile(r"[a-zA-Z0-9+]+")
_SUFFIX = re.compile(r"[a-zA-Z0-9]+")
_EXTENSION = re.compile(r"(?:\.[a-zA-Z0-9]+)+")
_DOUBLE = (".gz",)


@dataclass(frozen=True, slots=True)
class BidsName:
    """A file name taken apart.

    Attributes
    ----------
    entities : mapping
        Value by key of file names (``sub``, ``acq``).
    suffix : str
        What the file is (``T2w``, ``mask``); the last word.
    source_suffix : str
        Suffix of the image that a label belongs to, where the name has it.
    extension : str
        With its dots (``.nii.gz``).
    """

    entities: Mapping[str, str]
    suffix: str
    source_suffix: str
    extension: str


def entity_key(name: str) -> str:
    """Return the key of file names for an entity named either way (``subject`` or ``sub``).

    Raises
    ------
    ConfigError
        If it is not an entity.
    """
    key = _KEYS.get(name)
    if key is None:
        raise ConfigError("is not a BIDS entity", found=repr(name), expected=", ".join(ENTITIES.values()))
    return key


def split_extension(name: str) -> tuple[str, str]:
    """Split a file name at the dot that begins its extension; ``.nii.gz`` is one extension."""
    stem, dot, ending = name.rpartition(".")
    if not dot or not stem:
        return name, ""
    extension = f".{ending}"
    if extension in _DOUBLE:
        inner, inner_dot, inner_ending = stem.rpartition(".")
        if inner_dot and inner:
            return inner, f".{inner_ending}{extension}"
    return stem, extension


def parse_name(name: str) -> BidsName | None:
    """Take a file name apart; ``None`` where it is not a BIDS name."""
    stem, extension = split_extension(name)
    if not extension or not stem.isascii():
        return None
    *words, last = stem.split("_")
    entities: dict[str, str] = {}
    source = ""
    for word in words:
        match = _PAIR.fullmatch(word)
        if match is None:
            # One word between the entities is the suffix of the image; two are something else.
            if source or not _SUFFIX.fullmatch(word):
                return None
            source = word
        elif entities.setdefault(match[1], match[2]) != match[2]:
            return None
    if _OLD_SUFFIX.fullmatch(last):
        suffix = last
    elif (match := _PAIR.fullmatch(last)) is not None and source:
        # ``sub-01_T2w_label-pmj``: the label is all there is.
        entities.setdefault(match[1], match[2])
        suffix = match[2]
    elif _SUFFIX.fullmatch(last):
        suffix = last
    else:
        return None
    return BidsName(entities, suffix, source, extension)


def format_name(entities: Mapping[str, str], *, suffix: str, extension: str) -> str:
    """Write a BIDS name, its entities in the order of the standard.

    Parameters
    ----------
    entities : mapping
        Values by key or by word; empty values are left out.
    suffix, extension : str

    Raises
    ------
    ConfigError
        If an entity is not known, or a value or the suffix holds anything but letters and digits.
    """
    values = {entity_key(name): value for name, value in entities.items() if value}
    for key, value in values.items():
        if not _LABEL.fullmatch(value):
            raise ConfigError(f"the value of {key} may hold letters and digits only", found=repr(value))
    if not _SUFFIX.fullmatch(suffix):
        raise ConfigError("a BIDS suffix holds letters and digits only", found=repr(suffix))
    if not _EXTENSION.fullmatch(extension):
        raise ConfigError("is not a file extension", found=repr(extension))
    words = [f"{key}-{values[key]}" for key in ENTITIES if key in values]
    return "_".join([*words, suffix]) + extension
