"""Statuses as a grid of signs: readable in grey, on paper, and with any kind of colour vision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from markupsafe import Markup

from cordqa.report.charts.drawing import Data, Drawing, FigureDataError, Key, items, text, texts
from cordqa.report.svg import Canvas, shorten, text_width
from cordqa.report.words import count_noun

__all__ = ["draw_status_map", "hatching"]

_CELL, _ROW_HEIGHT, _GROUP_HEIGHT = 15.0, 16.0, 20.0
_PER_BAND = 50
_MOST_LABEL = 210.0
_LOOKS = ("pass", "warn", "fail", "none", "open", "blank")
_HATCH = 5.0
_HEADING_WIDTH = 330.0


def draw_status_map(data: Data, label: str) -> Drawing:
    """Draw bands of participants; data as in :func:`cordqa.figures.status_map`."""
    rows, keys = items(data, "rows"), items(data, "keys")
    columns = texts(data, "columns", len(data.get("columns") or []))
    looks = {text(key, "code"): key for key in keys}
    for row in rows:
        if len(text(row, "codes")) != len(columns) or not set(text(row, "codes")) <= set(looks):
            raise FigureDataError("the statuses of a row do not match the columns and the legend")
    bands = [
        _band(label, columns, rows, looks, start, min(start + _PER_BAND, len(columns)))
        for start in range(0, len(columns), _PER_BAND)
    ]
    legend = tuple(Key(_icon(key), text(key, "label")) for key in keys)
    note = text(data, "note")
    return Drawing(tuple(bands), "wide", legend, (note,) if note else ())


def _look(key: Data) -> str:
    look = text(key, "look")
    return look if look in _LOOKS else "none"


def _band(
    label: str, columns: list[str], rows: list[Data], looks: Mapping[str, Data], start: int, stop: int
) -> Markup:
    names = columns[start:stop]
    left = min(max([text_width(text(row, "label")) for row in rows] + [40]) + 12, _MOST_LABEL)
    # Groups are named at the left edge, so that they are seen before anything is scrolled.
    top = min(max(text_width(name, 10) for name in names) + 10, 110.0)
    groups = list(dict.fromkeys(text(row, "group") for row in rows))
    height = top + _ROW_HEIGHT * len(rows) + _GROUP_HEIGHT * sum(bool(group) for group in groups) + 4
    width = max(left + _CELL * len(names) + 4, _HEADING_WIDTH)
    canvas = Canvas(width, height, label=label, description=_describe(rows, looks, start, stop))
    for index, name in enumerate(names):
        x = left + (index + 0.5) * _CELL + 3.5
        canvas.text(x, top - 5, shorten(name, top - 6, 10), "column", rotate=-90, name=name)
    for row, y, heading in _placed(rows, groups, top):
        if heading:
            canvas.text(2, y - 6, shorten(heading, width - 4, 12), "title")
        canvas.text(left - 6, y + 11.5, shorten(text(row, "label"), left - 8), "row", anchor="end")
        _cells(canvas, row, names, looks, left, y, start)
    return canvas.render("chart grid-chart status-map")


def _placed(rows: list[Data], groups: list[str], top: float) -> Iterator[tuple[Data, float, str]]:
    """Yield rows group by group with their height, and the heading before the first of a group."""
    y = top
    for group in groups:
        members = [row for row in rows if text(row, "group") == group]
        y += _GROUP_HEIGHT if group else 0
        for index, row in enumerate(members):
            yield row, y, group if index == 0 else ""
            y += _ROW_HEIGHT


def _cells(
    canvas: Canvas,
    row: Data,
    names: list[str],
    looks: Mapping[str, Data],
    left: float,
    y: float,
    start: int,
) -> None:
    codes = text(row, "codes")[start : start + len(names)]
    details = row.get("details") or {}
    box_height = _ROW_HEIGHT - 2
    for run in re.finditer(r"(.)\1*", codes):
        key = looks[run[1]]
        look = _look(key)
        x, width = left + run.start() * _CELL, _CELL * len(run[0]) - 1.5
        if look in ("pass", "none"):
            # What is alike is drawn in one piece: thousands of cells would make the page heavy.
            canvas.rect(x, y, width, box_height, f"sm {look}", title=text(key, "label"))
            if look == "none":
                canvas.strokes(hatching(x, y, width, box_height), "hatch")
            gaps = (left + column * _CELL - 0.75 for column in range(run.start() + 1, run.end()))
            canvas.strokes((((at, y), (at, y + box_height)) for at in gaps), "sm-gap")
            continue
        if look == "blank":
            continue
        for column in range(run.start(), run.end()):
            said = str(details.get(str(start + column), ""))
            where = f"{names[column]}, {text(row, 'group')} {text(row, 'label')}"
            tip = f"{where}: {text(key, 'label')}{f' ({said})' if said else ''}"
            box = (left + column * _CELL, y, _CELL - 1.5, box_height)
            canvas.rect(*box, f"sm {look}", title=tip, name=names[column])
            canvas.text(box[0] + box[2] / 2, y + 11, text(key, "sign"), f"sm-sign {look}", anchor="middle")


def hatching(
    x: float, y: float, width: float, height: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Yield short diagonals that fill a box without leaving it."""
    rise = height / 2
    at = x + 1.0
    while at + rise <= x + width + 0.01:
        yield (at, y + 0.75 * height), (at + rise, y + 0.25 * height)
        at += _HATCH


def _describe(rows: list[Data], looks: Mapping[str, Data], start: int, stop: int) -> str:
    joined = "".join(text(row, "codes")[start:stop] for row in rows)
    counts = [(joined.count(code), text(key, "label")) for code, key in looks.items()]
    said = ", ".join(f"{count} {words}" for count, words in counts if count)
    return f"{count_noun(len(rows), 'parameter')} of {count_noun(stop - start, 'participant')}: {said}."


def _icon(key: Data) -> Markup:
    canvas = Canvas(16, 15)
    look = _look(key)
    canvas.rect(1, 0.5, 13.5, 14, f"sm {look}")
    if look == "none":
        canvas.strokes(hatching(1, 0.5, 13.5, 14), "hatch")
    elif text(key, "sign"):
        canvas.text(7.75, 11.5, text(key, "sign"), f"sm-sign {look}", anchor="middle")
    return canvas.render_icon()
