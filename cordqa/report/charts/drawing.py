"""What a chart hands back, and how it reads its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cordqa.records import Status
from cordqa.report.svg import marker_icon
from cordqa.report.words import DASH, count_noun, format_pair, with_unit

if TYPE_CHECKING:
    from cordqa.report.charts.mosaic import MosaicView

__all__ = [
    "Data",
    "Drawing",
    "FigureDataError",
    "Key",
    "count_unknown",
    "flag",
    "items",
    "numbers",
    "scalar",
    "series_keys",
    "status_class",
    "text",
    "texts",
    "unknown_note",
    "value_words",
]

Data = Mapping[str, Any]


_CLASSES = {str(status): f"st-{status.name.lower().replace('_', '-')}" for status in Status}


class FigureDataError(ValueError):
    """The data of a figure do not have the documented shape."""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: a small picture and its words."""

    icon: Markup
    label: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure as drawn: its panels, their layout on the page, legend and remarks.

    ``layout`` is ``small`` (many to a row), ``third``, ``triple`` (three), ``medium`` (two), ``plate``,
    ``mosaic`` or ``wide`` (one to a row, scrolled sideways on a narrow screen).  ``mosaic`` holds the
    words and switches of a mosaic, whose panels are its tiles.
    """

    panels: tuple[Markup, ...]
    layout: str = "medium"
    legend: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()
    mosaic: MosaicView | None = None


def scalar(data: Data, key: str) -> float:
    """Read a number; NaN where it is absent or null."""
    value = data.get(key)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FigureDataError(f"{key!r} is not a number")
    return float(value)


def numbers(data: Data, key: str, count: int | None = None) -> list[float]:
    """Read a list of numbers; all NaN where it is absent and a count is given."""
    values = data.get(key)
    if values is None or (count and not len(_as_list(values, key))):
        return [math.nan] * (count or 0)
    result = [math.nan if value is None else _number(value, key) for value in _as_list(values, key)]
    if count is not None and len(result) != count:
        raise FigureDataError(f"{key!r} holds {len(result)} numbers where {count} are expected")
    return result


def _as_list(values: Any, key: str) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise FigureDataError(f"{key!r} is not a list")
    return values


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FigureDataError(f"{key!r} holds something that is not a number")
    return float(value)


def texts(data: Data, key: str, count: int) -> list[str]:
    """Read a list of texts; all empty where it is absent."""
    values = _as_list(data.get(key) or [""] * count, key)
    if len(values) != count:
        raise FigureDataError(f"{key!r} holds {len(values)} texts where {count} are expected")
    return [str(value) for value in values]


def text(data: Data, key: str) -> str:
    """Read a text; empty where it is absent."""
    value = data.get(key)
    return "" if value is None else str(value)


def value_words(data: Data) -> str:
    """Write value, expanded uncertainty and unit of a circle or curve; empty where there is none."""
    value, uncertainty = format_pair(scalar(data, "value"), scalar(data, "uncertainty"))
    if value == DASH:
        return ""
    return with_unit(f"{value} ± {uncertainty}" if uncertainty else value, text(data, "unit"))


def flag(data: Data, key: str) -> bool:
    """Read a truth value; false where it is absent."""
    return data.get(key) is True


def items(data: Data, key: str) -> list[Data]:
    """Read a list of records."""
    values = _as_list(data.get(key) or [], key)
    if not all(isinstance(value, Mapping) for value in values):
        raise FigureDataError(f"{key!r} holds something that is not a record")
    return list(values)


def status_class(status: str) -> str:
    """Return the CSS class of a status (an unknown one is drawn as not evaluated)."""
    return _CLASSES.get(status, _CLASSES[str(Status.NOT_EVALUATED)])


def unknown_note(count: int, noun: str) -> tuple[str, ...]:
    """Say that values which are not known are not drawn; nothing where there are none."""
    verb = "is" if count == 1 else "are"
    return (f"{count_noun(count, noun)} without a value {verb} not shown.",) if count else ()


def count_unknown(*columns: Sequence[float]) -> int:
    """Count the rows in which any column is not known."""
    return sum(not all(math.isfinite(value) for value in row) for row in zip(*columns, strict=True))


def series_keys(labels: Sequence[str]) -> tuple[Key, ...]:
    """Make the legend of several series; one series needs none."""
    if len(labels) < 2:
        return ()
    return tuple(Key(marker_icon(index), label) for index, label in enumerate(labels))
