"""Values along the cord, one line per person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cordqa.report.charts.drawing import Data, Drawing, items, numbers, text, texts
from cordqa.report.charts.frame import WIDTH, Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import series_class, series_shape, shorten, text_width
from cordqa.report.words import count_noun, format_number, pretty_unit, with_unit

__all__ = ["draw_profiles"]

_SMALL_WIDTH, _HEIGHT = 300.0, 270.0
#: With more lines than this a page would grow large: the points are left out, the lines say the names.
_WITH_POINTS = 150


@dataclass(frozen=True, slots=True)
class _Style:
    """What all panels share."""

    label: str
    y_label: str
    unit: str
    columns: list[str]
    width: float
    values: list[float]
    with_points: bool


def draw_profiles(data: Data, label: str) -> Drawing:
    """Draw one panel per group; data as in :func:`cordqa.figures.profiles`."""
    groups = items(data, "groups")
    columns = texts(data, "columns", len(data.get("columns") or []))
    unit = text(data, "unit")
    heading = [text(data, "value_label"), f"({pretty_unit(unit)})" if pretty_unit(unit) else ""]
    values = [
        value
        for group in groups
        for one in items(group, "profiles")
        for value in numbers(one, "values", len(columns))
    ]
    crowded = len(columns) > 12
    style = _Style(
        label=label,
        y_label=" ".join(part for part in heading if part),
        unit=unit,
        columns=columns,
        width=2 * WIDTH if crowded else _SMALL_WIDTH if len(groups) > 2 else WIDTH,
        values=values,
        with_points=sum(len(items(group, "profiles")) for group in groups) <= _WITH_POINTS,
    )
    panels = tuple(_panel(group, index, style) for index, group in enumerate(groups))
    layout = "wide" if crowded else "triple" if len(groups) > 2 else "medium"
    return Drawing(panels, layout=layout)


def _panel(group: Data, index: int, style: _Style) -> Markup:
    lines = items(group, "profiles")
    counts = numbers(group, "count", len(style.columns))
    means = numbers(group, "mean", len(style.columns))
    title = text(group, "label")
    frame = Frame(
        label=f"{style.label}: {title}",
        description=_describe(group, style, means, counts),
        width=style.width,
        height=_HEIGHT,
        left=44,
        right=10,
        bottom=44,
    )
    y = linear_scale(style.values, frame.bottom, frame.top)
    frame.heading(title, style.y_label)
    frame.y_axis(y)
    frame.canvas.line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis")
    if not style.columns:
        frame.empty("no levels")
        return frame.render()
    places = _places(frame, len(style.columns))
    _columns(frame, places, style.columns, counts)
    for line in lines:
        _profile(frame, line, (places, y), index, style)
    _mean(frame, means, (places, y))
    return frame.render()


def _places(frame: Frame, count: int) -> list[float]:
    step = (frame.right - frame.left) / count
    return [frame.left + (n + 0.5) * step for n in range(count)]


def _columns(frame: Frame, places: Sequence[float], columns: Sequence[str], counts: Sequence[float]) -> None:
    """Write the level below each column, and below it how many values it has."""
    step = places[1] - places[0] if len(places) > 1 else frame.right - frame.left
    widest = max(text_width(column) for column in columns) + 4
    every = max(1, math.ceil(widest / step))
    for n, (place, column) in enumerate(zip(places, columns, strict=True)):
        if n % every == 0:
            frame.canvas.text(
                place, frame.bottom + 15, shorten(column, step * every + 8), "tick", anchor="middle"
            )
            count = f"{counts[n]:.0f}" if math.isfinite(counts[n]) else ""
            frame.canvas.text(place, frame.bottom + 30, count, "note", anchor="middle")
    frame.canvas.text(frame.left - 7, frame.bottom + 30, "n", "note", anchor="end")


def _profile(frame: Frame, line: Data, axes: tuple[list[float], Scale], index: int, style: _Style) -> None:
    places, y = axes
    name = text(line, "name")
    values = numbers(line, "values", len(places))
    shape, class_ = series_shape(index), f"dot {series_class(index)}"
    runs = _runs(values)
    if not style.with_points and all(len(run) > 1 for run in runs):
        for run in runs:
            points = [(places[n], y(values[n])) for n in run]
            frame.canvas.polyline(points, f"trace curve {series_class(index)}", title=name, name=name)
        return
    frame.canvas.group(f"curve {series_class(index)}", name)
    for run in runs:
        frame.canvas.polyline([(places[n], y(values[n])) for n in run], "trace")
    for n, value in enumerate(values):
        if math.isfinite(value):
            said = with_unit(format_number(value), style.unit)
            tip = ", ".join(part for part in (name, style.columns[n]) if part) + f": {said}"
            frame.canvas.mark(shape, places[n], y(value), 2.3, class_, title=tip, name=name)
    frame.canvas.end()


def _runs(values: Sequence[float]) -> list[list[int]]:
    """Stretches of neighbouring columns that have values: a line does not bridge a gap."""
    runs: list[list[int]] = [[]]
    for n, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(n)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _mean(frame: Frame, means: Sequence[float], axes: tuple[list[float], Scale]) -> None:
    places, y = axes
    shown = [math.nan if not y.shows(value) else value for value in means]
    for run in _runs(shown):
        points = [(places[n], y(shown[n])) for n in run]
        if len(points) > 1:
            frame.canvas.polyline(points, "mean")
        else:
            (x, height) = points[0]
            frame.canvas.line((x - 9, height), (x + 9, height), "mean")


def _describe(group: Data, style: _Style, means: Sequence[float], counts: Sequence[float]) -> str:
    lines = count_noun(len(items(group, "profiles")), "line")
    parts = [
        f"{column} mean {format_number(mean)} (n {count:.0f})"
        for column, mean, count in zip(style.columns, means, counts, strict=True)
        if math.isfinite(mean) and math.isfinite(count)
    ]
    return f"{text(group, 'label')}: {lines}; {', '.join(parts) or 'no values'}."
