"""Tables as shades: a statistic by region and metric, or who was measured where."""

from __future__ import annotations

import math

from markupsafe import Markup

from cordqa.report.charts.drawing import Data, Drawing, FigureDataError, Key, numbers, status_class, text
from cordqa.report.charts.status_map import draw_status_map
from cordqa.report.svg import Canvas, shorten, text_width
from cordqa.report.words import DASH, count_noun, format_number, pretty_unit, with_unit

__all__ = ["draw_heatmap"]

_MANY = 36  # rows above which a design is drawn with its rows side by side


def draw_heatmap(data: Data, label: str) -> Drawing:
    """Draw a grid; data as in :func:`cordqa.figures.heatmap`, ``design`` and ``status_map`` there."""
    if text(data, "scale") == "status":
        return draw_status_map(data, label)
    rows = [str(row) for row in data.get("rows") or []]
    columns = [str(column) for column in data.get("columns") or []]
    table = data.get("values") or []
    if len(table) != len(rows):
        raise FigureDataError("a heatmap needs one list of values per row")
    values = [numbers({"row": row}, "row", len(columns)) for row in table]
    if text(data, "scale") == "presence":
        return _draw_design(data, rows, columns, values, label)
    return _draw_shades(data, rows, columns, values, label)


def _draw_shades(
    data: Data, rows: list[str], columns: list[str], values: list[list[float]], label: str
) -> Drawing:
    left = min(max([text_width(row) for row in rows] + [30]) + 12, 180)
    cell_width = max(58.0, min(110.0, max([text_width(column) for column in columns] + [30]) + 14))
    cell_height, top = 26.0, 24.0
    canvas = Canvas(
        left + cell_width * len(columns) + 2,
        top + cell_height * len(rows) + 4,
        label=label,
        description=_extremes(rows, columns, values),
    )
    low, high = _shade_ends(data, values)
    unit = text(data, "unit")
    for index, column in enumerate(columns):
        x = left + (index + 0.5) * cell_width
        canvas.text(x, top - 8, shorten(column, cell_width), "row", anchor="middle")
    for line, row in enumerate(rows):
        y = top + line * cell_height
        canvas.text(left - 8, y + 17, shorten(row, left - 10), "row", anchor="end")
        for index, value in enumerate(values[line]):
            box = (left + index * cell_width, y, cell_width - 2, cell_height - 2)
            share = min(max((value - low) / (high - low), 0.0), 1.0)
            where = f"{row}, {columns[index]}"
            tip = f"{where}: {with_unit(format_number(value), unit) if math.isfinite(value) else 'not known'}"
            _shade(canvas, box, value, share, tip)
    words = " ".join(part for part in (text(data, "value_label"), _in_unit(unit)) if part)
    return Drawing((canvas.render("chart grid-chart"),), layout="wide", notes=(f"{words}.",) if words else ())


def _in_unit(unit: str) -> str:
    unit = pretty_unit(unit)
    return f"in {unit}" if unit else ""


def _shade_ends(data: Data, values: list[list[float]]) -> tuple[float, float]:
    ends = [value for value in numbers(data, "axis") if math.isfinite(value)]
    if len(ends) == 2 and ends[0] < ends[1]:
        return ends[0], ends[1]
    shown = [value for row in values for value in row if math.isfinite(value)]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    return (low, high) if high > low else (low - 1, low + 1)


def _shade(
    canvas: Canvas, box: tuple[float, float, float, float], value: float, share: float, tip: str
) -> None:
    x, y, width, height = box
    middle, base = x + width / 2, y + height / 2 + 4
    if math.isfinite(value):
        canvas.rect(*box, "shade", opacity=0.06 + 0.9 * share, title=tip)
        class_ = "cell dark" if share > 0.55 else "cell"
        canvas.text(middle, base, format_number(value, 3), class_, anchor="middle")
    else:
        canvas.rect(*box, "missing", title=tip)
        canvas.text(middle, base, DASH, "tick", anchor="middle")


def _extremes(rows: list[str], columns: list[str], values: list[list[float]]) -> str:
    cells = [
        (value, f"{row}, {column}")
        for row, line in zip(rows, values, strict=True)
        for column, value in zip(columns, line, strict=True)
        if math.isfinite(value)
    ]
    if not cells:
        return "No cell has a value."
    (low, at_low), (high, at_high) = min(cells), max(cells)
    return f"From {format_number(low, 3)} ({at_low}) to {format_number(high, 3)} ({at_high})."


def _draw_design(
    data: Data, rows: list[str], columns: list[str], values: list[list[float]], label: str
) -> Drawing:
    """Draw who was measured where; many rows stand side by side, so that the page stays short."""
    if len(rows) > _MANY:
        turned = [list(line) for line in zip(*values, strict=True)]
        canvas = _design_grid(columns, rows, turned, label, cell_width=max(4.0, 640 / len(rows)), swap=True)
    else:
        room = max([text_width(column) for column in columns] + [30]) + 10
        canvas = _design_grid(rows, columns, values, label, cell_width=min(max(room, 34), 120), swap=False)
    legend = [Key(_cell_icon("present"), "measured"), Key(_cell_icon("absent"), "missing")]
    if any(value < 0 for line in values for value in line):
        legend.append(Key(_cell_icon("excluded"), "excluded"))
    words = count_noun(len(rows), text(data, "row_noun") or "row")
    note = f"{words}, one column of cells each." if len(rows) > _MANY else ""
    return Drawing((canvas.render("chart grid-chart"),), "wide", tuple(legend), (note,) if note else ())


def _design_grid(
    rows: list[str],
    columns: list[str],
    values: list[list[float]],
    label: str,
    *,
    cell_width: float,
    swap: bool,
) -> Canvas:
    left = min(max([text_width(row) for row in rows] + [30]) + 12, 180)
    cell_height, top = 22.0, 4.0 if swap else 24.0
    size = (left + cell_width * len(columns) + 2, top + cell_height * len(rows) + 4)
    canvas = Canvas(*size, label=label, description=_missing_words(values))
    if not swap:
        for index, column in enumerate(columns):
            x = left + (index + 0.5) * cell_width
            canvas.text(x, top - 8, shorten(column, cell_width), "row", anchor="middle")
    for line, row in enumerate(rows):
        y = top + line * cell_height
        canvas.text(left - 8, y + 14, shorten(row, left - 10), "row", anchor="end")
        for index, value in enumerate(values[line]):
            box = (left + index * cell_width, y, cell_width, cell_height)
            _presence(canvas, box, value, f"{columns[index]}, {row}", columns[index] if swap else row)
    return canvas


def _presence(
    canvas: Canvas, box: tuple[float, float, float, float], value: float, where: str, name: str
) -> None:
    x, y = box[:2]
    width, height = box[2] - (1.0 if box[2] < 10 else 3.0), box[3] - 3
    middle, centre = x + width / 2, y + height / 2
    scans = count_noun(abs(int(value)), "scan") if math.isfinite(value) else ""
    if value > 0:
        canvas.rect(x, y, width, height, "present", title=f"{where}: {scans}", name=name)
        if value > 1 and width > 12:
            canvas.text(middle, centre + 4, f"{value:.0f}", "cell dark", anchor="middle")
    elif value < 0:
        canvas.rect(x, y, width, height, "excluded", title=f"{where}: {scans} excluded", name=name)
        canvas.cross(middle, centre, min(width, height) * 0.25, f"cross {status_class('fail')}")
    else:
        canvas.rect(x, y, width, height, "absent", title=f"{where}: missing", name=name)


def _missing_words(values: list[list[float]]) -> str:
    cells = [value for line in values for value in line]
    measured, excluded = sum(value > 0 for value in cells), sum(value < 0 for value in cells)
    missing = len(cells) - measured - excluded
    return f"{measured} of {count_noun(len(cells), 'cell')} measured, {missing} missing, {excluded} excluded."


def _cell_icon(class_: str) -> Markup:
    canvas = Canvas(16, 14)
    canvas.rect(1, 1, 13, 11, class_)
    if class_ == "excluded":
        canvas.cross(7.5, 6.5, 3, f"cross {status_class('fail')}")
    return canvas.render_icon()
