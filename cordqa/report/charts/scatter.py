"""Charts of points against points: identity, linearity, relaxation rate, scatter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from markupsafe import Markup

from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    Key,
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
from cordqa.report.charts.frame import Frame
from cordqa.report.scales import Scale, linear_scale, log_scale
from cordqa.report.svg import Canvas, series_class, series_shape
from cordqa.report.words import (
    count_noun,
    format_limits,
    format_number,
    pretty_unit,
    quantity_label,
    with_unit,
)

__all__ = ["draw_identity", "draw_linearity", "draw_scatter"]

_RADIUS = 3.4
_TOP = 24.0  # no heading: the figure has one, and the axes name themselves


@dataclass(frozen=True, slots=True)
class Points:
    """One series as read: columns of one length, with NaN where a number is not known."""

    index: int
    label: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    names: list[str]
    slope: float = math.nan
    intercept: float = math.nan

    def predict(self, x: float) -> float:
        """Return the height of the fitted line; NaN where there is none."""
        return self.intercept + self.slope * x

    def mapped(self, change: Callable[[float, float], float]) -> Points:
        """Return the same points with y and its interval changed by ``change(x, y)``."""
        y, low, high = (
            [change(x, value) for x, value in zip(self.x, column, strict=True)]
            for column in (self.y, self.low, self.high)
        )
        return replace(self, y=y, low=low, high=high)


def read_series(data: Data) -> list[Points]:
    """Read the series of a figure."""
    result = []
    for index, one in enumerate(items(data, "series")):
        x = numbers(one, "x")
        result.append(
            Points(
                index=index,
                label=text(one, "label"),
                x=x,
                y=numbers(one, "y", len(x)),
                low=numbers(one, "low", len(x)),
                high=numbers(one, "high", len(x)),
                names=texts(one, "names", len(x)),
                slope=scalar(one, "slope"),
                intercept=scalar(one, "intercept"),
            )
        )
    return result


def _scale(values: Iterable[float], start: float, stop: float, log: bool) -> Scale:
    return (log_scale if log else linear_scale)(values, start, stop)


def _all(series: list[Points], column: str) -> list[float]:
    return [value for one in series for value in getattr(one, column)]


def _hidden(series: list[Points], log: bool) -> tuple[str, ...]:
    """Say how many points cannot be drawn, and why."""
    pairs = [pair for one in series for pair in zip(one.x, one.y, strict=True)]
    negative = sum(x <= 0 or y <= 0 for x, y in pairs) if log else 0
    notes = list(unknown_note(sum(count_unknown(one.x, one.y) for one in series), "point"))
    if negative:
        verb = "has" if negative == 1 else "have"
        notes.append(f"{count_noun(negative, 'point')} at or below zero {verb} no place on a log axis.")
    return tuple(notes)


def _draw_points(
    frame: Frame,
    series: list[Points],
    scales: tuple[Scale, Scale],
    tip: Callable[[Points, int], str],
    *,
    dodge: bool = False,
) -> int:
    """Draw error bars and markers; points beyond the axis stand hollow at its edge. Return their number."""
    x, y = scales
    beyond = 0
    for one in series:
        shape, class_ = series_shape(one.index), series_class(one.index)
        for row, (at, value) in enumerate(zip(one.x, one.y, strict=True)):
            if not (math.isfinite(value) and x.shows(at)) or (y.log and value <= 0):
                continue
            place, height = x(at) + _side_step(one, len(series), dodge), y(y.clip(value))
            outside = not y.shows(value)
            beyond += outside
            _whisker(frame, place, y, (one.low[row], one.high[row]), class_)
            name = one.names[row]
            if outside:
                arrow = "triangle" if value > y.high else "down"
                frame.canvas.mark(arrow, place, height, 4, f"beyond {class_}", title=tip(one, row), name=name)
            else:
                frame.canvas.mark(
                    shape, place, height, _RADIUS, f"point {class_}", title=tip(one, row), name=name
                )
    return beyond


def _side_step(one: Points, count: int, dodge: bool) -> float:
    """Shift a series sideways, so that intervals at one reference value do not hide each other."""
    return (one.index - (count - 1) / 2) * min(4.0, 16 / count) if dodge else 0.0


def _whisker(frame: Frame, x: float, y: Scale, ends: tuple[float, float], class_: str) -> None:
    low, high = ends
    if math.isfinite(low) and math.isfinite(high):
        top, bottom = y(y.clip(high)), y(y.clip(low))
        # Shorter than the marker: it would only thicken it.
        if abs(bottom - top) > 2 * _RADIUS:
            frame.canvas.line((x, top), (x, bottom), f"whisker {class_}")


def draw_identity(data: Data, label: str) -> Drawing:
    """Draw measured against reference and percent error; data as in :func:`cordqa.figures.identity`."""
    series, log = read_series(data), flag(data, "log")
    quantity, unit = quantity_label(text(data, "quantity")), pretty_unit(text(data, "unit"))
    band = [tuple(math.nan if v is None else float(v) for v in row) for row in data.get("band") or []]
    errors = [one.mapped(_percent_error) for one in series]
    panel = _against_reference(series, label, quantity, unit, log)
    error_panel, beyond = _error_panel(series, errors, band, label, (quantity, unit, log))
    notes = [*_hidden(series, log)]
    if beyond:
        verb = "is" if beyond == 1 else "are"
        notes.append(f"{count_noun(beyond, 'error')} beyond the axis {verb} drawn hollow at its edge.")
    legend = (*series_keys([one.label for one in series]), *_line_keys(band))
    return Drawing((panel, error_panel), legend=legend, notes=tuple(notes))


def _line_keys(band: list[tuple[float, ...]]) -> list[Key]:
    """Legend entries of the identity line and of the tolerance, with its limits if it has one pair."""
    line, box = Canvas(16, 14), Canvas(16, 14)
    line.line((1, 12), (15, 2), "identity")
    box.rect(1, 2, 14, 10, "tolerance")
    keys = [Key(line.render_icon(), "identity")]
    limits = {row[1:] for row in band}
    if limits:
        low, high = min(limits)
        words = f" {format_limits(low, high, '%')}" if len(limits) == 1 else ""
        keys.append(Key(box.render_icon(), f"tolerance{words}"))
    return keys


def _percent_error(reference: float, value: float) -> float:
    return 100 * (value - reference) / reference if reference else math.nan


def _axis_name(word: str, quantity: str, unit: str) -> str:
    name = f"{word} {quantity}".strip()
    return f"{name} ({unit})" if unit else name


def _against_reference(series: list[Points], label: str, quantity: str, unit: str, log: bool) -> Markup:
    frame = Frame(label=f"{label}: measured against reference", description=_summary(series), top=_TOP)
    references = _all(series, "x")
    x = _scale(references, frame.left, frame.right, log)
    y = _scale(references + _all(series, "y"), frame.bottom, frame.top, log)
    frame.heading("", _axis_name("Measured", quantity, unit))
    frame.y_axis(y)
    frame.x_axis(x, _axis_name("Reference", quantity, unit))
    low, high = max(x.low, y.low), min(x.high, y.high)
    frame.canvas.line((x(low), y(low)), (x(high), y(high)), "identity")

    def tip(one: Points, row: int) -> str:
        error = _percent_error(one.x[row], one.y[row])
        parts = [one.names[row], one.label, with_unit(format_number(one.y[row]), unit)]
        parts += [f"reference {format_number(one.x[row])}", f"error {_signed(error)} %"]
        return ", ".join(part for part in parts if part)

    _draw_points(frame, series, (x, y), tip)
    return frame.render()


def _signed(value: float) -> str:
    text = format_number(value, 2)
    return f"+{text}" if value > 0 else text


def _summary(series: list[Points]) -> str:
    errors = [
        (abs(error), error, one.names[row])
        for one in series
        for row, (x, y) in enumerate(zip(one.x, one.y, strict=True))
        if math.isfinite(error := _percent_error(x, y))
    ]
    if not errors:
        return "No point has both a value and a reference."
    _, worst, name = max(errors)
    where = f" ({name})" if name else ""
    return f"{count_noun(len(errors), 'point')}; largest error {_signed(worst)} %{where}."


def _error_panel(
    series: list[Points],
    errors: list[Points],
    band: list[tuple[float, ...]],
    label: str,
    axis: tuple[str, str, bool],
) -> tuple[Markup, int]:
    quantity, unit, log = axis
    frame = Frame(label=f"{label}: percent error", description=_summary(series), top=_TOP)
    values = [value for value in _all(errors, "y") if math.isfinite(value)]
    reach = _error_reach(values, band)
    x = _scale(_all(series, "x"), frame.left, frame.right, log)
    y = Scale(-reach, reach, frame.bottom, frame.top)
    frame.heading("", "Error against reference (%)")
    frame.y_axis(y)
    _tolerance(frame, x, y, band)
    frame.x_axis(x, _axis_name("Reference", quantity, unit))
    frame.canvas.line((frame.left, y(0)), (frame.right, y(0)), "identity")

    def tip(one: Points, row: int) -> str:
        measured = with_unit(format_number(series[one.index].y[row]), unit)
        parts = [one.names[row], one.label, f"error {_signed(one.y[row])} %", f"measured {measured}"]
        return ", ".join(part for part in parts if part)

    beyond = _draw_points(frame, errors, (x, y), tip, dodge=True)
    return frame.render(), beyond


def _error_reach(values: list[float], band: list[tuple[float, ...]]) -> float:
    """Half height of the error axis: the tolerance and nearly all points, not the wildest one."""
    widest = max((abs(end) for row in band for end in row[1:] if math.isfinite(end)), default=0.0)
    sizes = sorted(abs(value) for value in values)
    if not sizes:
        return widest * 1.5 or 10.0
    typical = sizes[int(0.85 * (len(sizes) - 1))]
    return max(1.6 * widest, min(1.1 * sizes[-1], 2.5 * max(typical, widest)), 0.1)


def _tolerance(frame: Frame, x: Scale, y: Scale, band: list[tuple[float, ...]]) -> None:
    """Shade the tolerance: one band for all, or one that changes with the reference."""
    rows = [row for row in band if len(row) == 3 and all(math.isfinite(end) for end in row[1:])]
    if not rows:
        return
    everywhere = [row for row in rows if len(rows) == 1 or math.isnan(row[0])]
    rows = everywhere[:1] or sorted(rows)
    inner = [] if everywhere else [(x(x.clip(at)), low, high) for at, low, high in rows]
    ends = [(frame.left, *rows[0][1:]), *inner, (frame.right, *rows[-1][1:])]
    upper = [(at, y(y.clip(high))) for at, _, high in ends]
    lower = [(at, y(y.clip(low))) for at, low, _ in reversed(ends)]
    frame.canvas.polyline([*upper, *lower], "tolerance", closed=True)


def draw_linearity(data: Data, label: str) -> Drawing:
    """Draw points with fitted lines and residuals; data as in :func:`cordqa.figures.linearity`."""
    drawing = draw_scatter(data, label)
    if not flag(data, "residuals"):
        return drawing
    series, unit = read_series(data), text(data, "residual_unit")
    residuals = [one.mapped(_residual_of(one, unit)) for one in series]
    panel = _residual_panel(residuals, data, label)
    return Drawing((*drawing.panels, panel), legend=drawing.legend, notes=drawing.notes)


def _residual_of(series: Points, unit: str) -> Callable[[float, float], float]:
    def residual(x: float, y: float) -> float:
        line = series.predict(x)
        if unit == "%":
            return 100 * (y - line) / line if line else math.nan
        return y - line

    return residual


def draw_scatter(data: Data, label: str) -> Drawing:
    """Draw points, and lines where a series has one; data as in :func:`cordqa.figures.scatter`."""
    series, log = read_series(data), flag(data, "log")
    points = count_noun(len(_all(series, "x")), "point")
    frame = Frame(label=label, description=f"{points}.", top=_TOP)
    x = _scale(_all(series, "x"), frame.left, frame.right, log)
    shown = _all(series, "y") + _all(series, "low") + _all(series, "high")
    y = _scale(shown, frame.bottom, frame.top, log)
    frame.heading("", text(data, "y_label"))
    frame.y_axis(y)
    frame.x_axis(x, text(data, "x_label"))
    if flag(data, "identity"):
        _line(frame, x, y, lambda at: at, "identity")
    for one in series:
        _line(frame, x, y, one.predict, f"fit {series_class(one.index)}")
    _draw_points(frame, series, (x, y), _plain_tip)
    legend = series_keys([one.label for one in series])
    return Drawing((frame.render(),), legend=legend, notes=_hidden(series, log))


def _plain_tip(one: Points, row: int) -> str:
    where = f"{format_number(one.x[row])}, {format_number(one.y[row])}"
    return ", ".join(part for part in (one.names[row], one.label, where) if part)


def _line(frame: Frame, x: Scale, y: Scale, height: Callable[[float], float], class_: str) -> None:
    """Draw a function over the axis, where it is visible (a straight line bends on log axes)."""
    steps = [step / 60 for step in range(61)]
    ratio = x.high / x.low if x.log else 1.0
    values = [x.low * ratio**step if x.log else x.low + step * (x.high - x.low) for step in steps]
    points = [(x(at), y(height(at))) for at in values if y.shows(height(at))]
    frame.canvas.polyline(points, class_)


def _residual_panel(residuals: list[Points], data: Data, label: str) -> Markup:
    frame = Frame(label=f"{label}: residuals", description="What the fitted line leaves.", top=_TOP)
    percent = text(data, "residual_unit") == "%"
    shown = [value for value in _all(residuals, "y") if math.isfinite(value)]
    reach = max((abs(value) for value in shown), default=0.0) * 1.15 or 1.0
    x = _scale(_all(residuals, "x"), frame.left, frame.right, flag(data, "log"))
    y = Scale(-reach, reach, frame.bottom, frame.top)
    frame.heading("", "Deviation from the line (%)" if percent else "Deviation from the line")
    frame.y_axis(y)
    frame.x_axis(x, text(data, "x_label"))
    frame.canvas.line((frame.left, y(0)), (frame.right, y(0)), "identity")

    def tip(one: Points, row: int) -> str:
        parts = [one.names[row], one.label, f"{_signed(one.y[row])}{' %' if percent else ''}"]
        return ", ".join(part for part in parts if part)

    _draw_points(frame, residuals, (x, y), tip, dodge=True)
    return frame.render()
