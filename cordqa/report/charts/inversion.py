"""Signals or contrast over an inversion time, with the time that was used."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    Key,
    items,
    numbers,
    scalar,
    text,
)
from cordqa.report.charts.frame import Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import Canvas, series_class, text_width
from cordqa.report.words import format_number

__all__ = ["draw_inversion"]

_TOP, _HEIGHT = 62.0, 290.0
_RADIUS = 4.2


def draw_inversion(data: Data, label: str) -> Drawing:
    """Draw one panel per contrast; data as in :func:`cordqa.figures.inversion`."""
    panels = items(data, "panels")
    names = list(dict.fromkeys(text(line, "label") for panel in panels for line in items(panel, "lines")))
    axes = (text(data, "x_label"), text(data, "y_label"))
    drawn = tuple(_panel(panel, label, axes, names) for panel in panels)
    return Drawing(drawn, legend=tuple(_keys(panels, names)))


def _line_class(index: int) -> str:
    return f"fit {series_class(index)} dash{index % 4}"


def _keys(panels: Sequence[Data], names: Sequence[str]) -> list[Key]:
    keys = []
    for index, name in enumerate(names):
        canvas = Canvas(28, 14)
        canvas.line((1, 7), (27, 7), _line_class(index))
        keys.append(Key(canvas.render_icon(), name))
    used = Canvas(16, 14)
    used.line((8, 1), (8, 13), "event")
    keys.append(Key(used.render_icon(), "time used"))
    if any(math.isfinite(scalar(panel, "best")) for panel in panels):
        best, flat = Canvas(16, 14), Canvas(16, 14)
        best.circle(8, 7, _RADIUS, "point s0")
        flat.rect(1, 2, 14, 10, "band bias")
        keys += [Key(best.render_icon(), "best"), Key(flat.render_icon(), "within 95 % of the best")]
    return keys


def _panel(panel: Data, label: str, axes: tuple[str, str], names: Sequence[str]) -> Markup:
    title = text(panel, "label")
    frame = Frame(
        label=f"{label}: {title}", description=_describe(panel), height=_HEIGHT, top=_TOP, bottom=40
    )
    frame.heading(title)
    frame.canvas.text(2, 31, axes[1], "axis-name")
    time = numbers(panel, "x")
    lines = [(text(one, "label"), numbers(one, "y", len(time))) for one in items(panel, "lines")]
    shown = [value for _, values in lines for value in values]
    if not any(math.isfinite(value) for value in shown) or not any(math.isfinite(at) for at in time):
        frame.empty("no values")
        return frame.render()
    x = linear_scale(time, frame.left, frame.right, padding=0.0)
    y = linear_scale(shown, frame.bottom, frame.top, include=0.0)
    _flat(frame, panel, x)
    frame.y_axis(y)
    frame.x_axis(x, axes[0])
    frame.canvas.line((frame.left, y(0)), (frame.right, y(0)), "identity")
    for name, values in lines:
        for run in _runs(time, values):
            frame.canvas.polyline([(x(at), y(value)) for at, value in run], _line_class(names.index(name)))
    _times(frame, panel, (x, y), (time, lines))
    return frame.render()


def _describe(panel: Data) -> str:
    words = [
        f"{name} at {format_number(value)} s"
        for name in ("used", "best")
        if math.isfinite(value := scalar(panel, name))
    ]
    flat = numbers(panel, "flat") if panel.get("flat") else []
    if len(flat) == 2:
        words.append(f"within 95 % of the best from {format_number(flat[0])} to {format_number(flat[1])} s")
    note = text(panel, "note")
    return f"{', '.join([*words, *([note] if note else [])]) or 'no times'}."


def _flat(frame: Frame, panel: Data, x: Scale) -> None:
    ends = numbers(panel, "flat") if panel.get("flat") else []
    if len(ends) == 2 and all(math.isfinite(end) for end in ends):
        left, right = (x(x.clip(end)) for end in ends)
        frame.canvas.rect(left, frame.top, right - left, frame.bottom - frame.top, "band bias")


def _runs(time: Sequence[float], values: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Split a line where it has no value."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(time, values, strict=True):
        if math.isfinite(at) and math.isfinite(value):
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _times(
    frame: Frame,
    panel: Data,
    scales: tuple[Scale, Scale],
    curves: tuple[list[float], list[tuple[str, list[float]]]],
) -> None:
    """Mark the time that was used, and the best where it was searched."""
    (x, y), (time, lines) = scales, curves
    used, best = scalar(panel, "used"), scalar(panel, "best")
    note = text(panel, "note")
    if x.shows(used):
        at = x(used)
        frame.canvas.line((at, frame.top - 4), (at, frame.bottom), "event")
        words = f"{format_number(used)} s"
        anchor = "end" if at + text_width(words) > frame.right else "start"
        frame.canvas.text(at + (-4 if anchor == "end" else 4), frame.top - 8, words, "value", anchor=anchor)
    if note:
        frame.canvas.text(frame.right, 14, note, "note", anchor="end")
    if lines and x.shows(best) and math.isfinite(height := _height(time, lines[0][1], best)):
        tip = f"best: {format_number(best)} s, {format_number(height)}"
        frame.canvas.circle(x(best), y(y.clip(height)), _RADIUS, "point s0", title=tip)


def _height(time: Sequence[float], values: Sequence[float], at: float) -> float:
    """Read a line at a time, between its points."""
    points = [pair for run in _runs(time, values) for pair in run]
    if not points:
        return math.nan
    after = next((n for n, (x, _) in enumerate(points) if x >= at), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(after - 1, 0)], points[after]
    share = min(max((at - x0) / (x1 - x0), 0.0), 1.0) if x1 > x0 else 1.0
    return y0 + share * (y1 - y0)
