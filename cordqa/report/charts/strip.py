"""Every value as a dot, by group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    count_unknown,
    flag,
    items,
    numbers,
    scalar,
    series_keys,
    text,
    texts,
    unknown_note,
)
from cordqa.report.charts.frame import WIDTH, Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import series_class, series_shape, shorten, text_width
from cordqa.report.words import count_noun, format_number, pretty_unit

__all__ = ["draw_strip"]

_SMALL_WIDTH, _HEIGHT = 270.0, 250.0


@dataclass(frozen=True, slots=True)
class PanelStyle:
    """What all panels of one figure share."""

    label: str
    y_label: str
    width: float
    order: list[str]  # labels of the series, which choose colour and marker
    shared: list[float]  # values that set a common axis; empty: each panel its own


def draw_strip(data: Data, label: str) -> Drawing:
    """Draw one panel per entry; data as in :func:`cordqa.figures.strip`."""
    panels = items(data, "panels")
    groups = [group for panel in panels for group in items(panel, "groups")]
    order = list(dict.fromkeys(_series_of(group) for group in groups))
    unit = pretty_unit(text(data, "unit"))
    y_label = " ".join(part for part in (text(data, "value_label"), f"({unit})" if unit else "") if part)
    values = [value for group in groups for value in numbers(group, "values")]
    style = PanelStyle(
        label=label,
        y_label=y_label,
        width=_SMALL_WIDTH if len(panels) > 2 else WIDTH,
        order=order,
        shared=values if flag(data, "share_scale") else [],
    )
    drawn = tuple(_panel(panel, style) for panel in panels)
    # Where every group has its own colour, the axis already names it.
    named = all(_series_of(group) == text(group, "label") for group in groups)
    return Drawing(
        drawn,
        layout="third" if len(panels) > 2 else "medium",
        legend=() if named else series_keys(order),
        notes=_hidden(groups),
    )


def _series_of(group: Data) -> str:
    return text(group, "series") or text(group, "label")


def _hidden(groups: Sequence[Data]) -> tuple[str, ...]:
    return unknown_note(sum(count_unknown(numbers(group, "values")) for group in groups), "point")


def _panel(panel: Data, style: PanelStyle) -> Markup:
    groups = items(panel, "groups")
    frame = Frame(
        label=f"{style.label}: {text(panel, 'label')}",
        description=_describe(groups),
        width=style.width,
        height=_HEIGHT,
        left=44,
        bottom=30,
    )
    values = style.shared or [value for group in groups for value in numbers(group, "values")]
    y = linear_scale(values, frame.bottom, frame.top)
    frame.heading(text(panel, "label"), style.y_label)
    frame.y_axis(y)
    frame.canvas.line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis")
    if not groups:
        frame.empty("no values")
        return frame.render()
    slot = (frame.right - frame.left) / len(groups)
    labels = [text(group, "label") for group in groups]
    crowded = max(text_width(label) for label in labels) + 6 > slot
    for index, group in enumerate(groups):
        centre = frame.left + (index + 0.5) * slot
        caption = shorten(labels[index], slot * (1.9 if crowded else 1.2))
        # Neighbouring texts that would touch stand on two lines in turn.
        lift = 12 if crowded and index % 2 else 0
        frame.canvas.text(centre, frame.bottom + 14 + lift, caption, "tick", anchor="middle")
        series = style.order.index(_series_of(group))
        _dots(frame, group, series, (centre, slot), y)
        _mean_and_sd(frame, group, (centre, slot), y)
    return frame.render()


def _describe(groups: Sequence[Data]) -> str:
    parts = []
    for group in groups:
        mean, sd = scalar(group, "mean"), scalar(group, "sd")
        count = sum(math.isfinite(value) for value in numbers(group, "values"))
        said = f"{text(group, 'label')}: {count_noun(count, 'value')}"
        if math.isfinite(mean):
            said += f", mean {format_number(mean)}"
            said += f", SD {format_number(sd, 3)}" if math.isfinite(sd) else ""
        parts.append(said)
    return "; ".join(parts) + "."


def _dots(frame: Frame, group: Data, series: int, place: tuple[float, float], y: Scale) -> None:
    centre, slot = place
    values = numbers(group, "values")
    names = texts(group, "names", len(values))
    shape, class_ = series_shape(series), f"dot {series_class(series)}"
    radius = 2.8 if len(values) <= 60 else 2.0
    for value, name, shift in zip(values, names, _spread(values, radius, slot * 0.42, y), strict=True):
        if y.shows(value):
            tip = f"{name}: {format_number(value)}" if name else format_number(value)
            frame.canvas.mark(shape, centre + shift, y(value), radius, class_, title=tip, name=name)


def _mean_and_sd(frame: Frame, group: Data, place: tuple[float, float], y: Scale) -> None:
    centre, slot = place
    mean, sd = scalar(group, "mean"), scalar(group, "sd")
    if not math.isfinite(mean):
        return
    if math.isfinite(sd) and sd > 0:
        frame.canvas.line((centre, y(y.clip(mean - sd))), (centre, y(y.clip(mean + sd))), "sd")
    reach = min(slot * 0.26, 20)
    frame.canvas.line((centre - reach, y(y.clip(mean))), (centre + reach, y(y.clip(mean))), "mean")


def _spread(values: list[float], radius: float, room: float, y: Scale) -> list[float]:
    """Shift dots sideways by how many lie at their height: the outline shows the distribution.

    Positions follow from the values alone, so that a page does not change when it is rebuilt.
    """
    shifts = [0.0] * len(values)
    shown = [index for index, value in enumerate(values) if y.shows(value)]
    heights = np.array([y(values[index]) for index in shown])
    rows = np.floor(heights / (2 * radius)).astype(int) if shown else np.array([], dtype=int)
    widest = int(np.unique(rows, return_counts=True)[1].max()) if shown else 1
    step = min(2.1 * radius, 2 * room / max(widest, 1))
    taken: dict[int, int] = {}
    for index, row in zip(shown, rows.tolist(), strict=True):
        rank = taken.get(row, 0)
        taken[row] = rank + 1
        # 0, +1, -1, +2, -2 ... from the middle outwards.
        shifts[index] = step * ((rank + 1) // 2) * (1 if rank % 2 else -1)
    return shifts
