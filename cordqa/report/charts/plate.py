"""The located spheres, drawn on the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cordqa.records import Status
from cordqa.report.charts.drawing import (
    Data,
    Drawing,
    FigureDataError,
    Key,
    items,
    scalar,
    status_class,
    text,
    value_words,
)
from cordqa.report.svg import Canvas
from cordqa.report.words import status_word

__all__ = ["draw_plate", "status_key"]

_SIZE = 300.0
#: Beside the label of what needs attention.
_SIGNS = {str(Status.WARN): "▲", str(Status.FAIL): "✕"}


def status_key(status: str) -> Key:
    """Return the legend entry of a status: a ring and a sign as they are drawn on the image."""
    sign = _SIGNS.get(status, "")
    width = 40 if sign else 24
    canvas = Canvas(width, 22)
    canvas.rect(0, 0, width, 22, "photo")
    _ring(canvas, 12, 11, 7, status)
    canvas.text(30, 15.5, sign, "roi-label", anchor="middle")
    return Key(canvas.render_icon(), status_word(status))


def _ring(canvas: Canvas, x: float, y: float, radius: float, status: str, **tip: str) -> None:
    """Draw a ring on a dark edge, so that it shows on white and on black; the dash tells the status."""
    canvas.circle(x, y, radius, "halo")
    canvas.circle(x, y, radius, f"roi {status_class(status)}", **tip)


def draw_plate(data: Data, label: str) -> Drawing:
    """Draw the image and a ring for each sphere; data as in :func:`cordqa.figures.plate`."""
    width, height = scalar(data, "width"), scalar(data, "height")
    if not (0 < width <= 4096 and 0 < height <= 4096):
        raise FigureDataError("the picture has no size")
    circles = [circle for circle in items(data, "circles") if _is_drawable(circle)]
    left, top, right, bottom = _region(circles, width, height)
    # All plates are drawn to one width, so that rings and texts have one size on the page.
    zoom = _SIZE / (right - left)
    canvas = Canvas(_SIZE, (bottom - top) * zoom, label=label, description=_describe(circles))
    box = (-left * zoom, -top * zoom, width * zoom, height * zoom)
    canvas.image(box, text(data, "png"))
    discs = [_Disc.read(circle, left, top, zoom) for circle in circles]
    for disc, circle in zip(discs, circles, strict=True):
        _draw_ring(canvas, disc, circle)
    for disc, circle in zip(discs, circles, strict=True):
        _draw_label(canvas, disc, circle, discs)
    seen = {text(circle, "status") for circle in circles}
    legend = tuple(status_key(str(status)) for status in Status if str(status) in seen)
    return Drawing((canvas.render("chart plate"),), layout="plate", legend=legend)


@dataclass(frozen=True, slots=True)
class _Disc:
    """A circle in pixels of the drawing."""

    x: float
    y: float
    radius: float

    @classmethod
    def read(cls, circle: Data, left: float, top: float, zoom: float) -> _Disc:
        x, y, radius = (scalar(circle, key) for key in ("x", "y", "radius"))
        return cls((x - left) * zoom, (y - top) * zoom, radius * zoom)


def _is_drawable(circle: Data) -> bool:
    x, y, radius = (scalar(circle, key) for key in ("x", "y", "radius"))
    return math.isfinite(x) and math.isfinite(y) and 0 < radius < math.inf


def _region(circles: list[Data], width: float, height: float) -> tuple[float, float, float, float]:
    """Choose the square part of the image that holds all circles with room around them."""
    if not circles:
        return 0.0, 0.0, width, height
    xs, ys = ([scalar(circle, key) for circle in circles] for key in ("x", "y"))
    reach = max(max(xs) - min(xs), max(ys) - min(ys)) / 2 + 3 * max(scalar(one, "radius") for one in circles)
    middle_x, middle_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    left, right = max(0.0, middle_x - 1.3 * reach), min(width, middle_x + 1.3 * reach)
    top, bottom = max(0.0, middle_y - 1.3 * reach), min(height, middle_y + 1.3 * reach)
    if right - left < 4 or bottom - top < 4:  # all circles lie outside the image
        return 0.0, 0.0, width, height
    return left, top, right, bottom


def _draw_ring(canvas: Canvas, disc: _Disc, circle: Data) -> None:
    status, name = text(circle, "status"), text(circle, "name")
    said = [name or text(circle, "label"), value_words(circle), text(circle, "text"), status_word(status)]
    tip = ", ".join(part for part in said if part)
    _ring(canvas, disc.x, disc.y, disc.radius, status, title=tip, name=name)


def _draw_label(canvas: Canvas, disc: _Disc, circle: Data, others: list[_Disc]) -> None:
    """Write label and sign on whichever side has the most room."""
    reach = disc.radius + 10
    places = [
        (disc.x + reach * 1.1 * math.cos(angle), disc.y + reach * math.sin(angle))
        for angle in (math.pi / 4 * step for step in range(8))
    ]

    def room(place: tuple[float, float]) -> float:
        inside = min(place[0] - 6, _SIZE - 6 - place[0], place[1] - 6, canvas.height - 6 - place[1])
        apart = [math.dist(place, (one.x, one.y)) - one.radius for one in others if one is not disc]
        return min([inside * 4, *apart])

    x, y = max(places, key=room)
    sign = _SIGNS.get(text(circle, "status"), "")
    caption = text(circle, "label") + (f"\u2009{sign}" if sign else "")
    canvas.text(x, y + 4, caption, "roi-label", anchor="middle")


def _describe(circles: list[Data]) -> str:
    if not circles:
        return "Nothing is marked."
    parts = []
    for status in Status:
        labels = [text(circle, "label") for circle in circles if text(circle, "status") == str(status)]
        if labels:
            parts.append(f"{status_word(status)}: {', '.join(labels)}")
    return "; ".join(parts) + "."
