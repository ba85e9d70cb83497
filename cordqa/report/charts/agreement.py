"""Bland-Altman plots and receiver operating characteristics."""

from __future__ import annotations

import math

from markupsafe import Markup

from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    FigureDataError,
    Key,
    count_unknown,
    items,
    numbers,
    scalar,
    series_keys,
    text,
    texts,
    unknown_note,
)
from cordqa.report.charts.frame import Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import Canvas, series_class, series_shape
from cordqa.report.words import count_noun, format_estimate, format_number, pretty_unit

__all__ = ["draw_bland_altman", "draw_roc"]

_LINES = (("upper", "upper limit"), ("bias", "bias"), ("lower", "lower limit"))


def draw_bland_altman(data: Data, label: str) -> Drawing:
    """Draw differences against means; data as in :func:`cordqa.figures.bland_altman`."""
    panels = items(data, "panels")
    labels = [str(name) for panel in panels for name in panel.get("series") or []]
    order = [name for name in dict.fromkeys(labels) if name]
    unit = pretty_unit(text(data, "unit"))
    x_label, y_label = (f"{text(data, key)}{f' ({unit})' if unit else ''}" for key in ("x_label", "y_label"))
    drawn = tuple(_agreement(panel, label, (x_label, y_label), order) for panel in panels)
    lost = sum(count_unknown(numbers(panel, "means"), numbers(panel, "differences")) for panel in panels)
    return Drawing(drawn, legend=series_keys(order), notes=unknown_note(lost, "pair"))


def _agreement(panel: Data, label: str, axes: tuple[str, str], order: list[str]) -> Markup:
    means = numbers(panel, "means")
    differences = numbers(panel, "differences", len(means))
    lines = {key: numbers(panel, key, 3) for key, _ in _LINES}
    title = text(panel, "label")
    frame = Frame(
        label=f"{label}: {title}" if title else label, description=_describe(means, lines), right=64
    )
    x = linear_scale(means, frame.left, frame.right)
    every = [*differences, *(value for line in lines.values() for value in line)]
    y = linear_scale(every, frame.bottom, frame.top, include=0.0)
    frame.heading(title, axes[1])
    frame.y_axis(y)
    frame.x_axis(x, axes[0], count=5)
    frame.canvas.line((frame.left, y(0)), (frame.right, y(0)), "axis")
    for key, words in _LINES:
        _level(frame, y, lines[key], "bias" if key == "bias" else "limit", words)
    names, series = texts(panel, "names", len(means)), texts(panel, "series", len(means))
    for at, value, name, group in zip(means, differences, names, series, strict=True):
        if x.shows(at) and y.shows(value):
            index = order.index(group) if group in order else 0
            parts = [name, group, f"mean {format_number(at)}", f"difference {format_number(value, 3)}"]
            tip = ", ".join(part for part in parts if part)
            frame.canvas.mark(
                series_shape(index), x(at), y(value), 2.8, f"dot {series_class(index)}", title=tip, name=name
            )
    return frame.render()


def _level(frame: Frame, y: Scale, line: list[float], class_: str, words: str) -> None:
    value, low, high = line
    if not math.isfinite(value):
        return
    if math.isfinite(low) and math.isfinite(high):
        frame.canvas.rect(frame.left, y(high), frame.right - frame.left, y(low) - y(high), f"band {class_}")
    frame.canvas.line((frame.left, y(value)), (frame.right, y(value)), class_)
    frame.canvas.text(frame.right + 5, y(value) - 1, format_number(value, 3), "value")
    frame.canvas.text(frame.right + 5, y(value) + 10, words, "note")


def _describe(means: list[float], lines: dict[str, list[float]]) -> str:
    said = [count_noun(len(means), "pair")]
    for key, words in _LINES:
        value, low, high = lines[key]
        if math.isfinite(value):
            estimate, interval = format_estimate(value, low, high)
            said.append(f"{words} {estimate}" + (f" ({interval})" if interval else ""))
    return "; ".join(said) + "."


def draw_roc(data: Data, label: str) -> Drawing:
    """Draw receiver operating characteristics; data as in :func:`cordqa.figures.roc`."""
    curves = items(data, "curves")
    said = [f"{text(curve, 'label')}: {_area(curve)}" for curve in curves]
    frame = Frame(label=label, description="; ".join(said) + ".", height=380, top=24)
    x, y = Scale(0.0, 1.0, frame.left, frame.right), Scale(0.0, 1.0, frame.bottom, frame.top)
    frame.heading("", "True-positive rate (sensitivity)")
    frame.y_axis(y)
    frame.x_axis(x, "False-positive rate (1 − specificity)", count=5)
    frame.canvas.line((x(0), y(0)), (x(1), y(1)), "identity")
    for index, curve in enumerate(curves):
        _curve(frame, curve, index, x, y)
    legend = tuple(Key(_curve_icon(index), words) for index, words in enumerate(said))
    return Drawing((frame.render(),), legend=legend)


def _curve_icon(index: int) -> Markup:
    canvas = Canvas(28, 14)
    canvas.line((1, 7), (27, 7), _curve_class(index))
    canvas.mark(series_shape(index), 14, 7, 3.6, f"point {series_class(index)}")
    return canvas.render_icon()


def _curve_class(index: int) -> str:
    return f"fit {series_class(index)} dash{index % 4}"


def _area(curve: Data) -> str:
    ends = scalar(curve, "low"), scalar(curve, "high")
    area, interval = format_estimate(scalar(curve, "auc"), *ends)
    return f"AUC {area}" + (f" ({interval})" if interval else "")


def _curve(frame: Frame, curve: Data, index: int, x: Scale, y: Scale) -> None:
    across = numbers(curve, "x")
    up = numbers(curve, "y", len(across))
    if not all(0 <= value <= 1 for value in (*across, *up)):
        raise FigureDataError("a rate of a characteristic lies outside 0 to 1")
    points = [(x(a), y(b)) for a, b in zip(across, up, strict=True)]
    frame.canvas.polyline(points, _curve_class(index))
    chosen = numbers(curve, "operating")
    if len(chosen) == 2 and all(0 <= value <= 1 for value in chosen):
        tip = f"{text(curve, 'label')}: sensitivity {chosen[1]:.2f}, specificity {1 - chosen[0]:.2f}"
        frame.canvas.mark(
            series_shape(index), x(chosen[0]), y(chosen[1]), 4.6, f"point {series_class(index)}", title=tip
        )
