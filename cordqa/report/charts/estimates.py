"""Estimates with intervals: bars, forest plots, shares of variance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cordqa.report.charts.drawing import Data, Drawing, Key, items, numbers, scalar, series_keys, text
from cordqa.report.charts.frame import WIDTH, Frame
from cordqa.report.scales import Scale, linear_scale
from cordqa.report.svg import Canvas, series_class, series_shape, shorten, text_width
from cordqa.report.words import count_noun, format_estimate, format_number, pretty_unit

__all__ = ["draw_bars", "draw_components", "draw_forest"]

_ROW = 17.0
_GAP = 9.0
#: Column of values beside a plot: wider than this texts get a digit fewer, and this is its widest.
_COLUMN, _WIDEST_COLUMN = 150.0, 168.0
#: What of a column stays free of text.
_BESIDE = 4.0


def _order(panels: Sequence[Data]) -> list[str]:
    """Labels of the series in order of first appearance; empty where there are none."""
    found = (text(one, "series") for panel in panels for one in items(panel, "estimates"))
    return [label for label in dict.fromkeys(found) if label]


def _values(panels: Sequence[Data]) -> list[float]:
    estimates = [one for panel in panels for one in items(panel, "estimates")]
    return [scalar(one, key) for one in estimates for key in ("value", "low", "high")]


def _axis_name(data: Data) -> str:
    unit = pretty_unit(text(data, "unit"))
    return " ".join(part for part in (text(data, "value_label"), f"({unit})" if unit else "") if part)


def draw_bars(data: Data, label: str) -> Drawing:
    """Draw horizontal bars from zero; data as in :func:`cordqa.figures.bars`."""
    panels, limit = items(data, "panels"), scalar(data, "limit")
    order = _order(panels)
    drawn = []
    for panel in panels:
        frame, rows = _rows_frame(panel, label, _axis_name(data))
        # Long intervals are cut rather than squeezing all bars; the text still says where they end.
        reach = _bar_reach(items(panel, "estimates"), limit)
        x = Scale(0.0, reach, frame.left, frame.right)
        _row_axes(frame, x)
        if math.isfinite(limit) and x.shows(limit):
            _mark(frame, x(limit), text(data, "limit_label"))
        for one, y in rows:
            _bar(frame, one, x, y, _series_index(one, order))
        drawn.append(frame.render())
    return Drawing(tuple(drawn), legend=_box_keys(order))


def _bar_reach(estimates: Sequence[Data], limit: float) -> float:
    tops = [scalar(one, "value") for one in estimates]
    ends = [scalar(one, "high") for one in estimates]
    top = max((value for value in [*tops, limit] if math.isfinite(value)), default=0.0)
    end = max((value for value in ends if math.isfinite(value)), default=top)
    return (max(top, min(end, 2.5 * top)) or 1.0) * 1.04


def _series_index(one: Data, order: list[str]) -> int:
    series = text(one, "series")
    return order.index(series) if series else 0


def _box_keys(labels: list[str]) -> tuple[Key, ...]:
    if len(labels) < 2:
        return ()
    keys = []
    for index, label in enumerate(labels):
        canvas = Canvas(14, 14)
        canvas.rect(1, 2, 12, 10, f"bar {series_class(index)}")
        keys.append(Key(canvas.render_icon(), label))
    return tuple(keys)


def _rows_frame(panel: Data, label: str, axis_name: str) -> tuple[Frame, list[tuple[Data, float]]]:
    """Lay out one row per estimate; the rows of one label share it. Return rows with their y."""
    estimates = _by_label(items(panel, "estimates"))
    labels = [text(one, "label") for one in estimates]
    left = min(max([text_width(caption) for caption in labels] + [30]) + 12, 150)
    title = text(panel, "label")
    top = 32.0 if title else 24.0
    rows, y, previous = [], top, None
    for one, caption in zip(estimates, labels, strict=True):
        y += _GAP if previous is not None and caption != previous else 0
        rows.append((one, y + _ROW / 2))
        y, previous = y + _ROW, caption
    frame = Frame(
        label=f"{label}: {title}" if title else label,
        description=_describe(estimates),
        width=WIDTH,
        height=y + 46,
        left=left,
        right=min(max([text_width(_column_text(one)) for one in estimates] + [30]) + 10, _WIDEST_COLUMN),
        top=top,
        bottom=42,
    )
    frame.heading(title)
    middle = (frame.left + frame.right) / 2
    frame.canvas.text(middle, frame.bottom + 33, axis_name, "axis-name", anchor="middle")
    _row_labels(frame, rows)
    return frame, rows


def _by_label(estimates: Sequence[Data]) -> list[Data]:
    """Bring estimates of one label together, in the order in which the labels first appear."""
    order = {
        label: index for index, label in enumerate(dict.fromkeys(text(one, "label") for one in estimates))
    }
    return sorted(estimates, key=lambda one: order[text(one, "label")])


def _row_labels(frame: Frame, rows: list[tuple[Data, float]]) -> None:
    """Write each label once, in the middle of the rows that share it."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or text(rows[index][0], "label") != text(rows[start][0], "label"):
            middle = (rows[start][1] + rows[index - 1][1]) / 2
            caption = shorten(text(rows[start][0], "label"), frame.left - 10)
            frame.canvas.text(frame.left - 8, middle + 4, caption, "row", anchor="end")
            start = index


def _describe(estimates: Sequence[Data]) -> str:
    said = []
    for one in estimates[:40]:
        who = " ".join(part for part in (text(one, "label"), text(one, "series")) if part)
        said.append(f"{who} {_value_text(one)}")
    return "; ".join(said) + "."


def _value_text(one: Data, *, digits: int = 2) -> str:
    value, low, high = (scalar(one, key) for key in ("value", "low", "high"))
    words, interval = format_estimate(value, low, high, digits=digits)
    return words + (f" ({interval})" if interval else "")


def _column_text(one: Data) -> str:
    """Value and interval for the column beside the plot; why there is none where it is not known.

    A digit fewer where the interval would be cut otherwise: the tip and the tables have it.
    """
    if not math.isfinite(scalar(one, "value")):
        return text(one, "note") or "not known"
    full = _value_text(one)
    return full if text_width(full) <= _COLUMN - _BESIDE else _value_text(one, digits=1)


def _row_axes(frame: Frame, x: Scale) -> None:
    for tick, caption in x.tick_labels(5):
        frame.canvas.line((x(tick), frame.top), (x(tick), frame.bottom), "grid")
        frame.canvas.text(x(tick), frame.bottom + 16, caption, "tick", anchor="middle")


def _mark(frame: Frame, x: float, caption: str, class_: str = "limit", lift: float = 0) -> None:
    frame.canvas.line((x, frame.top - 3 - lift), (x, frame.bottom), class_)
    if caption:
        frame.canvas.text(x, frame.top - 6 - lift, caption, "direct", anchor="middle")


def _marks(frame: Frame, x: Scale, marks: Sequence[Data]) -> None:
    """Draw named lines; a name that would touch the one before it stands a line higher."""
    end, lift = -math.inf, 0.0
    shown = [mark for mark in marks if x.shows(scalar(mark, "value"))]
    for mark in sorted(shown, key=lambda mark: scalar(mark, "value")):
        at, caption = x(scalar(mark, "value")), text(mark, "label")
        half = text_width(caption) / 2
        lift = 11.0 - lift if at - half < end else 0.0
        _mark(frame, at, caption, "mark", lift)
        end = at + half


def _bar(frame: Frame, one: Data, x: Scale, y: float, series: int) -> None:
    value, low, high = (scalar(one, key) for key in ("value", "low", "high"))
    if math.isfinite(value):
        length = max(x(x.clip(value)) - x(0), 0.5)
        frame.canvas.rect(x(0), y - 5.5, length, 11, f"bar {series_class(series)}", title=_tip(one))
        _interval(frame, (x, y), low, high)
    _value_at(frame, one, y)


def _interval(frame: Frame, place: tuple[Scale, float], low: float, high: float) -> None:
    """Draw an interval, with an arrow where it runs beyond the axis."""
    x, y = place
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    start, stop = x(x.clip(low)), x(x.clip(high))
    frame.canvas.line((start, y), (stop, y), "interval")
    for end, value, shape in ((start, low, -1), (stop, high, 1)):
        if x.shows(value):
            frame.canvas.line((end, y - 3), (end, y + 3), "interval")
        else:
            tips = [(end - 4 * shape, y - 3), (end, y), (end - 4 * shape, y + 3)]
            frame.canvas.polyline(tips, "interval")


def _tip(one: Data) -> str:
    parts = [text(one, "label"), text(one, "series"), _value_text(one), text(one, "note")]
    return ", ".join(part for part in parts if part)


def _value_at(frame: Frame, one: Data, y: float) -> None:
    """Write value and interval in their own column, where they can be compared."""
    class_ = "value" if math.isfinite(scalar(one, "value")) else "note"
    room = frame.canvas.width - frame.right - _BESIDE
    frame.canvas.text(frame.right + 8, y + 4, shorten(_column_text(one), room), class_)


def draw_forest(data: Data, label: str) -> Drawing:
    """Draw points with intervals; data as in :func:`cordqa.figures.forest`."""
    panels = items(data, "panels")
    order = _order(panels)
    ends = [value for value in numbers(data, "axis") if math.isfinite(value)]
    marks = items(data, "marks")
    drawn = []
    for panel in panels:
        frame, rows = _rows_frame(panel, label, _axis_name(data))
        if len(ends) == 2 and ends[0] < ends[1]:
            x = Scale(ends[0], ends[1], frame.left, frame.right)
        else:
            x = linear_scale(_values([panel]), frame.left, frame.right)
        _row_axes(frame, x)
        _marks(frame, x, marks)
        for one, y in rows:
            _forest_row(frame, one, x, y, _series_index(one, order))
        drawn.append(frame.render())
    return Drawing(tuple(drawn), legend=series_keys(order))


def _forest_row(frame: Frame, one: Data, x: Scale, y: float, series: int) -> None:
    value, low, high = (scalar(one, key) for key in ("value", "low", "high"))
    _interval(frame, (x, y), low, high)
    if math.isfinite(value):
        # Hollow at the edge where the value lies beyond the axis.
        class_ = f"{'point' if x.shows(value) else 'beyond'} {series_class(series)}"
        frame.canvas.mark(series_shape(series), x(x.clip(value)), y, 4.2, class_, title=_tip(one))
    _value_at(frame, one, y)


def draw_components(data: Data, label: str) -> Drawing:
    """Draw shares of variance as stacked bars; data as in :func:`cordqa.figures.components`."""
    rows, parts = items(data, "rows"), [str(part) for part in data.get("parts") or []]
    captions = [text(row, "label") for row in rows]
    left = min(max([text_width(caption) for caption in captions] + [30]) + 12, 230)
    width = 740.0
    frame = Frame(
        label=label,
        description=_describe_components(rows, parts),
        width=width,
        height=len(rows) * 26 + 34,
        left=left,
        right=14,
        top=6,
        bottom=26,
    )
    x = Scale(0.0, 100.0, frame.left, frame.right)
    for tick in (0, 25, 50, 75, 100):
        frame.canvas.line((x(tick), frame.top), (x(tick), frame.bottom), "grid")
        anchor = "end" if tick == 100 else "middle"
        frame.canvas.text(x(tick), frame.bottom + 15, f"{tick} %", "tick", anchor=anchor)
    for index, row in enumerate(rows):
        y = frame.top + index * 26 + 4
        frame.canvas.text(frame.left - 8, y + 13, shorten(captions[index], left - 10), "row", anchor="end")
        _stack(frame, row, parts, x, y)
    notes = [f"{text(row, 'label')}: {text(row, 'note')}." for row in rows if text(row, "note")]
    return Drawing(
        (frame.render(),), layout="wide", legend=_box_keys(parts), notes=(*notes, *_negative(rows, parts))
    )


def _variances(row: Data, parts: list[str]) -> list[float]:
    return numbers(row, "values", len(parts))


def _shares(row: Data, parts: list[str]) -> list[float]:
    """Shares in percent, negative estimates counted as zero; all NaN where nothing is left."""
    values = [max(value, 0.0) if math.isfinite(value) else math.nan for value in _variances(row, parts)]
    total = sum(value for value in values if math.isfinite(value))
    return [100 * value / total if total > 0 else math.nan for value in values]


def _stack(frame: Frame, row: Data, parts: list[str], x: Scale, y: float) -> None:
    at = 0.0
    shares = _shares(row, parts)
    if not any(math.isfinite(share) for share in shares):
        frame.canvas.text(x(0) + 4, y + 13, "not known", "note")
    for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
        if not share > 0:
            continue
        start, stop = x(at), x(min(at + share, 100.0))
        variance = format_number(_variances(row, parts)[index], 3)
        tip = f"{text(row, 'label')}, {part}: {share:.1f} % (variance {variance})"
        frame.canvas.rect(start, y, max(stop - start - 1, 0.4), 18, f"bar {series_class(index)}", title=tip)
        if stop - start > 34:
            middle = (start + stop - 1) / 2
            frame.canvas.text(
                middle, y + 13, f"{share:.0f} %", f"on-bar {series_class(index)}", anchor="middle"
            )
        at += share


def _describe_components(rows: Sequence[Data], parts: list[str]) -> str:
    said = []
    for row in rows[:40]:
        shares = [
            f"{part} {share:.0f} %"
            for part, share in zip(parts, _shares(row, parts), strict=True)
            if math.isfinite(share)
        ]
        said.append(f"{text(row, 'label')}: {', '.join(shares) or 'not known'}")
    return "; ".join(said) + "."


def _negative(rows: Sequence[Data], parts: list[str]) -> tuple[str, ...]:
    count = sum(value < 0 for row in rows for value in _variances(row, parts))
    return (f"{count_noun(count, 'negative estimate')} drawn as zero.",) if count else ()
