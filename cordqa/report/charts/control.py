"""Control charts: a value followed over time."""

from __future__ import annotations

import math
from datetime import date, timedelta

from markupsafe import Markup

from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    Key,
    count_unknown,
    items,
    numbers,
    scalar,
    text,
    texts,
    unknown_note,
)
from cordqa.report.charts.frame import Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import Canvas, shorten, text_width
from cordqa.report.words import count_noun, format_number, pretty_unit

__all__ = ["draw_control_chart"]

_WIDTH, _HEIGHT = 740.0, 240.0
_LINES = ("centre", "low", "high", "warn_low", "warn_high")


def draw_control_chart(data: Data, label: str) -> Drawing:
    """Draw one chart per scanner; data as in :func:`cordqa.figures.control_chart`."""
    panels = items(data, "panels")
    unit = pretty_unit(text(data, "unit"))
    y_label = " ".join(part for part in (text(data, "value_label"), f"({unit})" if unit else "") if part)
    legend = [Key(_icon("point s0"), "measured"), Key(_icon("signal"), "breaks a rule")]
    if any(panel.get("ewma") for panel in panels):
        legend.append(Key(_icon("ewma"), "EWMA"))
    lost = unknown_note(sum(count_unknown(numbers(panel, "values")) for panel in panels), "point")
    return Drawing(tuple(_panel(panel, label, y_label) for panel in panels), "wide", tuple(legend), lost)


def _icon(class_: str) -> Markup:
    canvas = Canvas(18, 14)
    if class_ == "ewma":
        canvas.line((1, 7), (17, 7), class_)
    elif class_ == "signal":
        canvas.mark("diamond", 9, 7, 4.2, class_)
    else:
        canvas.circle(9, 7, 3, class_)
    return canvas.render_icon()


def _panel(panel: Data, label: str, y_label: str) -> Markup:
    days = numbers(panel, "days")
    columns = {key: numbers(panel, key, len(days)) for key in ("values", "ewma", "ewma_low", "ewma_high")}
    lines = {key: scalar(panel, key) for key in _LINES}
    signals = texts(panel, "signals", len(days))
    title = text(panel, "label")
    broken = sum(bool(signal) for signal in signals)
    frame = Frame(
        label=f"{label}: {title}" if title else label,
        description=f"{count_noun(len(days), 'point')}, {count_noun(broken, 'signal')}.",
        width=_WIDTH,
        height=_HEIGHT,
        right=96,
        bottom=26,
    )
    frame.heading(title, y_label)
    events = items(panel, "events")
    low, high = _ends([*days, *(scalar(event, "days") for event in events)])
    x = Scale(low, high, frame.left + 6, frame.right - 6)
    heights = [value for column in columns.values() for value in column]
    y = linear_scale([*heights, *lines.values()], frame.bottom, frame.top)
    frame.y_axis(y)
    _dates(frame, panel, days, x)
    _baseline(frame, panel, days, x)
    _limits(frame, lines, y)
    _events(frame, events, x)
    _ewma(frame, days, columns, x, y)
    _points(frame, panel, x, y)
    return frame.render()


def _ends(days: list[float]) -> tuple[float, float]:
    finite = [day for day in days if math.isfinite(day)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _dates(frame: Frame, panel: Data, days: list[float], x: Scale) -> None:
    """Write round dates: months, or the days themselves in a short series."""
    frame.canvas.line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis")
    when = texts(panel, "when", len(days))
    try:
        first = date.fromisoformat(when[0][:10]) - timedelta(days=round(days[0])) if when else None
        last = first + timedelta(days=x.high) if first else None
    except (ValueError, OverflowError):
        first = last = None
    if first is None or last is None:
        return
    previous = -math.inf
    for tick in _date_ticks(first + timedelta(days=x.low), last):
        at = x((tick - first).days)
        caption = tick.isoformat()[:7] if tick.day == 1 else tick.isoformat()
        if at - previous >= text_width(caption) + 14 and frame.left <= at <= frame.right:
            frame.x_tick(at, caption)
            previous = at


def _date_ticks(first: date, last: date) -> list[date]:
    span = (last - first).days
    if span <= 70:
        step = max(1, span // 6)
        return [first + timedelta(days=offset) for offset in range(0, span + 1, step)]
    months = max(1, round(span / 30.4 / 8))
    start, stop = first.year * 12 + first.month, last.year * 12 + last.month
    return [
        date(month // 12, month % 12 + 1, 1) for month in range(start, stop) if (month - start) % months == 0
    ]


def _baseline(frame: Frame, panel: Data, days: list[float], x: Scale) -> None:
    count = scalar(panel, "baseline")
    if math.isfinite(count) and 0 < count <= len(days):
        end = x(days[int(count) - 1])
        frame.canvas.rect(frame.left, frame.top, end - frame.left, frame.bottom - frame.top, "baseline")
        frame.canvas.text(frame.left + 5, frame.top + 12, "baseline", "note")


def _limits(frame: Frame, lines: dict[str, float], y: Scale) -> None:
    words = {"centre": "mean", "high": "upper limit", "low": "lower limit"}
    written: list[float] = []
    for key, value in lines.items():
        if not math.isfinite(value):
            continue
        class_ = {"centre": "bias", "low": "limit", "high": "limit"}.get(key, "limit warn")
        frame.canvas.line((frame.left, y(value)), (frame.right, y(value)), class_)
        # Where limits lie close together, the first one named (the mean) keeps its words.
        if key in words and all(abs(y(value) - other) > 10 for other in written):
            caption = f"{words[key]} {format_number(value)}"
            frame.canvas.text(frame.right + 5, y(value) + 4, caption, "note")
            written.append(y(value))


def _events(frame: Frame, events: list[Data], x: Scale) -> None:
    for event in events:
        at = x(scalar(event, "days"))
        if not math.isfinite(at):
            continue
        frame.canvas.line((at, frame.top - 6), (at, frame.bottom), "event")
        caption = text(event, "label")
        # A text that would run out on the right is written to the left of its line.
        fits = at + text_width(caption) < frame.canvas.width
        anchor = "" if fits else "end"
        frame.canvas.text(
            at + (4 if fits else -4), frame.top - 10, shorten(caption, 260), "direct", anchor=anchor
        )


def _ewma(frame: Frame, days: list[float], columns: dict[str, list[float]], x: Scale, y: Scale) -> None:
    for key, class_ in (("ewma_low", "ewma-limit"), ("ewma_high", "ewma-limit"), ("ewma", "ewma")):
        points = [
            (x(day), y(value))
            for day, value in zip(days, columns[key], strict=True)
            if math.isfinite(day) and y.shows(value)
        ]
        frame.canvas.polyline(points, class_)


def _points(frame: Frame, panel: Data, x: Scale, y: Scale) -> None:
    days = numbers(panel, "days")
    values = numbers(panel, "values", len(days))
    names, when, signals = (texts(panel, key, len(days)) for key in ("names", "when", "signals"))
    for row, (day, value) in enumerate(zip(days, values, strict=True)):
        if not (math.isfinite(day) and y.shows(value)):
            continue
        parts = [names[row], when[row][:10], format_number(value), signals[row]]
        tip = ", ".join(part for part in parts if part)
        if signals[row]:
            frame.canvas.mark("diamond", x(day), y(value), 4.6, "signal", title=tip, name=names[row])
        else:
            frame.canvas.circle(x(day), y(value), 2.8, "point s0", title=tip, name=names[row])
