"""Compliance beside coverage: bars of what passed, what deviates, and what nobody knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from cordqa.report.charts.drawing import Data, Drawing, FigureDataError, Key, items, scalar, text
from cordqa.report.charts.status_map import hatching
from cordqa.report.svg import Canvas, shorten, text_width
from cordqa.report.words import DASH

__all__ = ["draw_coverage"]

_WIDTH, _BAR, _ROW, _HEADING = 740.0, 16.0, 22.0, 24.0
_COLUMN = 68.0
#: What is counted, how it looks, and the words of the legend.
_PARTS = (
    ("n_pass", "pass", "pass"),
    ("n_deviating", "fail", "deviates"),
    ("n_unknown", "none", "not judged"),
)


def draw_coverage(data: Data, label: str) -> Drawing:
    """Draw one bar per group; data as in :func:`cordqa.figures.coverage_bars`."""
    rows = items(data, "rows")
    counts = [_counts(row) for row in rows]
    left = min(max([text_width(text(row, "label")) for row in rows] + [40]) + 14, 200.0)
    headings = {text(row, "group") for row in rows} - {""}
    height = 22 + _ROW * len(rows) + _HEADING * len(headings) + 4
    canvas = Canvas(_WIDTH, height, label=label, description=_describe(rows, counts))
    # Shares stand before the bars, so that a narrow screen shows them without scrolling.
    start = left + 2 * _COLUMN + 4
    for index, words in enumerate(("compliance", "coverage"), start=1):
        canvas.text(left - 8 + index * _COLUMN, 13, words, "axis-name", anchor="end")
    y, previous = 20.0, ""
    for row, (passed, deviating, unknown) in zip(rows, counts, strict=True):
        group = text(row, "group")
        if group and group != previous:
            y += _HEADING
            canvas.text(2, y - 8, shorten(group, left + 200, 12), "title")
        previous = group
        canvas.text(left - 8, y + 12, shorten(text(row, "label"), left - 10), "row", anchor="end")
        _bar(canvas, row, (passed, deviating, unknown), start, _WIDTH - 6, y)
        judged, asked = passed + deviating, passed + deviating + unknown
        for index, words in enumerate((_percent(passed, judged), _percent(judged, asked)), start=1):
            canvas.text(left - 8 + index * _COLUMN, y + 12, words, "row", anchor="end")
        y += _ROW
    legend = tuple(Key(_icon(look), words) for _, look, words in _PARTS)
    return Drawing((canvas.render("chart"),), "wide", legend)


def _counts(row: Data) -> tuple[float, float, float]:
    passed, deviating, unknown = (scalar(row, key) for key, _, _ in _PARTS)
    if not all(math.isfinite(value) and value >= 0 for value in (passed, deviating, unknown)):
        raise FigureDataError("a row of counts holds something that is not a count")
    return passed, deviating, unknown


def _bar(
    canvas: Canvas, row: Data, counts: tuple[float, float, float], left: float, right: float, y: float
) -> None:
    total = sum(counts)
    if not total:
        canvas.text(left + 4, y + 12, "nothing was asked", "note")
        return
    at = left
    for (_, look, words), count in zip(_PARTS, counts, strict=True):
        # One deviation among thousands must still be seen.
        width = max((right - left) * count / total, 3.0) if count else 0.0
        width = min(width, right - at)
        if width <= 0:
            continue
        tip = f"{text(row, 'label')}: {count:.0f} of {total:.0f} {words}"
        canvas.rect(at, y, max(width - 1, 0.5), _BAR, f"sm {look}", title=tip)
        if look == "none":
            canvas.strokes(hatching(at, y, width - 1, _BAR), "hatch")
        elif width > 26:
            canvas.text(at + width / 2, y + 12, f"{count:.0f}", f"sm-count {look}", anchor="middle")
        at += width


def _percent(part: float, whole: float) -> str:
    """Write a share so that 100 % and 0 % are only written where they are true."""
    if not whole:
        return DASH
    share = 100 * part / whole
    if share in (0, 100):
        return f"{share:.0f} %"
    return f"{min(max(share, 0.1), 99.9):.1f} %"


def _describe(rows: Sequence[Data], counts: Sequence[tuple[float, float, float]]) -> str:
    said = [
        f"{text(row, 'label')}: {passed:.0f} pass, {deviating:.0f} deviate, {unknown:.0f} not judged"
        for row, (passed, deviating, unknown) in list(zip(rows, counts, strict=True))[:40]
    ]
    return "; ".join(said) + "."


def _icon(look: str) -> Markup:
    canvas = Canvas(22, 14)
    canvas.rect(1, 0.5, 19.5, 13, f"sm {look}")
    if look == "none":
        canvas.strokes(hatching(1, 0.5, 19.5, 13), "hatch")
    return canvas.render_icon()
