"""Read header fields that may be absent, mistyped, private, or hidden in functional groups.

Nothing here raises for a damaged value: a field that cannot be understood is not known.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from cordqa.io.files import printable

__all__ = [
    "PRIVATE_BLOCKS",
    "Header",
    "exact_numbers",
    "first_number",
    "iso_time",
    "sequence_items",
    "tag_of",
]

#: Private creators may reserve any block; scanners use the first ones.
PRIVATE_BLOCKS = range(0x10, 0x20)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEXT_LIMIT = 64


@cache
def tag_of(keyword: str) -> BaseTag:
    """Return the tag of a DICOM keyword."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


class Header:
    """Fields of one image, looked up in several data sets in turn.

    For a classic file there is one data set; for a frame of an Enhanced file there are the
    frame's functional groups, the shared ones, and the file itself.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Iterable[Dataset]) -> None:
        self._sources = tuple((source, source.keys()) for source in sources)

    def raw(self, tag: int) -> Any:
        """Return the value of the first source that has one, or ``None``."""
        for source, keys in self._sources:
            if tag in keys:
                value = _value(source, tag)
                if value is not None and value not in ("", []):
                    return value
        return None

    def has(self, keyword: str) -> bool:
        """Tell whether the element is present and not empty."""
        return self.raw(tag_of(keyword)) is not None

    def private(self, group: int, creator: str, element: int) -> Any:
        """Return a private value from whichever block its creator reserved, or ``None``."""
        for source, keys in self._sources:
            for block in PRIVATE_BLOCKS:
                tag = group << 16 | block << 8 | element
                if tag in keys and str(_value(source, group << 16 | block)).strip() == creator:
                    return _value(source, tag)
        return None

    def number(self, keyword: str) -> float:
        """Return the first number of an element; NaN where it is not known or not finite."""
        return first_number(self.raw(tag_of(keyword)))

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return exactly ``count`` finite numbers, or an empty tuple."""
        return exact_numbers(self.raw(tag_of(keyword)), count)

    def integer(self, keyword: str) -> int:
        """Return a whole number; 0 where it is not known."""
        value = self.number(keyword)
        return int(value) if math.isfinite(value) and abs(value) < 2**31 else 0

    def text(self, keyword: str, *, limit: int = _TEXT_LIMIT) -> str:
        """Return a text element, printable and bounded; several values are joined by a space."""
        return printable(" ".join(_parts(self.raw(tag_of(keyword)))), limit=limit)

    def tokens(self, keyword: str) -> tuple[str, ...]:
        """Return the values of a code string, in capitals."""
        parts = _parts(self.raw(tag_of(keyword)))
        return tuple(printable(part, limit=_TEXT_LIMIT).upper() for part in parts)

    def items(self, keyword: str) -> list[Dataset]:
        """Return the items of a sequence, or an empty list."""
        value = self.raw(tag_of(keyword))
        return sequence_items(value)


def _value(source: Dataset, tag: int) -> Any:
    try:
        return source[BaseTag(tag)].value
    except Exception:
        # pydicom converts on access and may raise almost anything for a damaged value;
        # its message may quote the value, so it is not kept.
        return None


def sequence_items(value: Any) -> list[Dataset]:
    """Return the items of a sequence value, or an empty list for anything else."""
    try:
        return [item for item in value if isinstance(item, Dataset)]
    except Exception:
        return []


def _parts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").rstrip("\0 ")
    if isinstance(value, str):
        parts = value.split("\\")
    elif isinstance(value, Dataset) or not isinstance(value, Iterable):
        parts = [] if isinstance(value, Dataset) else [str(value)]
    else:
        parts = [str(part) for part in value if part is not None and not isinstance(part, Dataset)]
    # A damaged length makes a value swallow the elements behind it, the patient's name among
    # them; it then contains the zeros of their tags.
    return [part for part in parts if part.strip() and not _CONTROL.search(part.rstrip("\0 "))]


def first_number(value: Any) -> float:
    """Return the first number of a value; NaN where there is none or it is not finite."""
    values = _floats(value)
    return values[0] if values and math.isfinite(values[0]) else math.nan


def exact_numbers(value: Any, count: int) -> tuple[float, ...]:
    """Return exactly ``count`` finite numbers, or an empty tuple."""
    values = _floats(value)
    return tuple(values) if len(values) == count and all(map(math.isfinite, values)) else ()


def _floats(value: Any) -> list[float]:
    if isinstance(value, bytes):
        return _floats_from_bytes(value)
    if isinstance(value, (int, float)):
        value = [value]
    elif isinstance(value, str):
        value = value.split("\\")
    elif not isinstance(value, Sequence) and not hasattr(value, "__iter__"):
        return []
    result = []
    for part in value:
        try:
            result.append(float(part))
        except (TypeError, ValueError, OverflowError):
            return []
    return result


def _floats_from_bytes(value: bytes) -> list[float]:
    """Read numbers of a private element whose type was lost (VR UN): text, or binary."""
    text = value.decode("ascii", "replace").strip("\0 ")
    if text and all(_NUMBER.fullmatch(part.strip()) for part in text.split("\\")):
        return [float(part) for part in text.split("\\")]
    if len(value) == 2:
        return [float(struct.unpack("<h", value)[0])]
    if value and len(value) % 8 == 0:
        return [float(v) for v in struct.unpack(f"<{len(value) // 8}d", value)]
    if len(value) == 4:
        return [float(struct.unpack("<f", value)[0])]
    return []


def iso_time(header: Header) -> str:
    """Return date and time of the acquisition as ISO 8601, or an empty string.

    The most specific element wins; a date without a time is given as a date.
    """
    moments = [header.text(k) for k in ("FrameAcquisitionDateTime", "AcquisitionDateTime")]
    stamps = [(moment[:8], moment[8:]) for moment in moments]
    for prefix in ("Acquisition", "Content", "Series", "Study"):
        date = header.text(f"{prefix}Date") or header.text("StudyDate")
        stamps.append((date, header.text(f"{prefix}Time")))
    found = [_iso(date, time) for date, time in stamps]
    with_time = next((stamp for stamp in found if "T" in stamp), "")
    return with_time or next((stamp for stamp in found if stamp), "")


def _iso(date: str, time: str) -> str:
    date = date.replace(".", "").replace("-", "")
    if not re.fullmatch(r"\d{8}", date):
        return ""
    match = re.match(r"(\d{2}):?(\d{2}):?(\d{2})(\.\d{1,6})?", time)
    try:
        day = datetime.strptime(date, "%Y%m%d")
        if match is None:
            return day.date().isoformat()
        hour, minute, second = (int(match[i]) for i in (1, 2, 3))
        microsecond = round(float(match[4] or 0) * 1e6)
        return day.replace(
            hour=hour, minute=minute, second=min(second, 59), microsecond=min(microsecond, 999_999)
        ).isoformat()
    except ValueError:
        return ""
