"""Small multiples of fitted curves."""

from __future__ import annotations

import math

from markupsafe import Markup

from cordqa.records import Status
from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    FigureDataError,
    Key,
    count_unknown,
    flag,
    items,
    numbers,
    status_class,
    text,
    unknown_note,
    value_words,
)
from cordqa.report.charts.frame import Frame
from cordqa.report.scales import Scale, linear_scale, log_scale
from cordqa.report.svg import Canvas, shorten
from cordqa.report.words import format_number, format_plain, status_word

__all__ = ["draw_curves"]

_WIDTH, _HEIGHT = 206.0, 158.0
_SIGNS = {str(Status.PASS): "✓", str(Status.WARN): "▲", str(Status.FAIL): "✕"}


def draw_curves(data: Data, label: str) -> Drawing:
    """Draw one panel per sphere; data as in :func:`cordqa.figures.curves`."""
    panels = items(data, "panels")
    x_label, y_label = text(data, "x_label"), text(data, "y_label")
    log = flag(data, "x_log")
    drawn = tuple(_panel(panel, label, x_label, log) for panel in panels)
    dropped = any(False in (panel.get("used") or []) for panel in panels)
    legend = [Key(_icon("point s0 used", "circle"), "sample")]
    if dropped:
        legend.append(Key(_icon("cross", "cross"), "not used"))
    if any(panel.get("fit") for panel in panels):
        legend.append(Key(_icon("fit s0", "line"), "fit"))
    upright = f"{y_label}, each" if y_label else "each"
    axes = f"Horizontal: {x_label}{', logarithmic' if log else ''}. Vertical: {upright} to its own scale."
    lost = sum(count_unknown(numbers(panel, "x"), numbers(panel, "y")) for panel in panels)
    return Drawing(drawn, layout="small", legend=tuple(legend), notes=(axes, *unknown_note(lost, "sample")))


def _icon(class_: str, shape: str) -> Markup:
    canvas = Canvas(16, 14)
    if shape == "line":
        canvas.line((1, 7), (15, 7), class_)
    elif shape == "cross":
        canvas.cross(8, 7, 3.5, class_)
    else:
        canvas.circle(8, 7, 3.5, class_)
    return canvas.render_icon()


def _panel(panel: Data, label: str, x_label: str, log: bool) -> Markup:
    name, status, title = text(panel, "name"), text(panel, "status"), text(panel, "label")
    said = ", ".join(part for part in (value_words(panel), text(panel, "note")) if part)
    frame = Frame(
        label=f"{label}: {title}",
        description=f"{said or 'no value'}. {status_word(status)}.",
        width=_WIDTH,
        height=_HEIGHT,
        left=8,
        right=8,
        top=44,
        bottom=20,
    )
    _words(frame, panel)
    frame.canvas.group("curve", name)
    _samples(frame, panel, x_label, log)
    frame.canvas.end()
    return frame.render()


def _words(frame: Frame, panel: Data) -> None:
    status = text(panel, "status")
    sign = _SIGNS.get(status, "")
    if sign:
        frame.canvas.text(_WIDTH - 8, 14, sign, f"sign {status_class(status)}", anchor="end")
    frame.canvas.text(8, 14, shorten(text(panel, "label"), _WIDTH - 34, 12.5), "title")
    value, note = value_words(panel), text(panel, "note")
    frame.canvas.text(8, 30, shorten(value or note, _WIDTH - 12), "value" if value else "tick")
    if value and note:
        frame.canvas.text(8, 43, shorten(note, _WIDTH - 12, 10), "note")


def _samples(frame: Frame, panel: Data, x_label: str, log: bool) -> None:
    x = numbers(panel, "x")
    y = numbers(panel, "y", len(x))
    used = panel.get("used") or [True] * len(x)
    if len(used) != len(x):
        raise FigureDataError("'used' and 'x' differ in length")
    fit = panel.get("fit") or {}
    fit_x = numbers(fit, "x")
    fit_y = numbers(fit, "y", len(fit_x))
    if not any(math.isfinite(at) and math.isfinite(value) for at, value in zip(x, y, strict=True)):
        frame.empty("no samples")
        return
    scale_x, scale_y = _scales(frame, x + fit_x, y + fit_y, log)
    _axes(frame, scale_x, scale_y, x + fit_x)
    frame.canvas.polyline(_visible(scale_x, scale_y, fit_x, fit_y), "fit s0")
    for at, value, use in zip(x, y, used, strict=True):
        if not (scale_x.shows(at) and scale_y.shows(value)):
            continue
        tip = f"{x_label} {format_number(at)}: {format_number(value)}"
        if use:
            frame.canvas.circle(scale_x(at), scale_y(value), 2.6, "point s0 used", title=tip)
        else:
            frame.canvas.cross(scale_x(at), scale_y(value), 3.2, "cross", title=f"{tip} (not used)")


def _scales(frame: Frame, x: list[float], y: list[float], log: bool) -> tuple[Scale, Scale]:
    log = log and all(value > 0 for value in x if math.isfinite(value))
    make = log_scale if log else linear_scale
    horizontal = make(x, frame.left + 4, frame.right - 4, padding=0.03)
    return horizontal, linear_scale(y, frame.bottom - 3, frame.top + 4, padding=0.05)


def _axes(frame: Frame, scale_x: Scale, scale_y: Scale, x: list[float]) -> None:
    if scale_y.shows(0):
        frame.canvas.line((frame.left, scale_y(0)), (frame.right, scale_y(0)), "grid")
    frame.canvas.line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis")
    finite = [value for value in x if math.isfinite(value)]
    ends = (
        [(min(finite), "start"), (max(finite), "end")]
        if min(finite) < max(finite)
        else [(min(finite), "middle")]
    )
    for value, anchor in ends:
        place = {"start": frame.left, "end": frame.right}.get(anchor, scale_x(value))
        frame.canvas.text(place, frame.bottom + 13, format_plain(value, 3), "tick", anchor=anchor)


def _visible(scale_x: Scale, scale_y: Scale, x: list[float], y: list[float]) -> list[tuple[float, float]]:
    return [
        (scale_x(at), scale_y(value))
        for at, value in zip(x, y, strict=True)
        if scale_x.shows(at) and scale_y.shows(value)
    ]
