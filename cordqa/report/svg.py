"""A small writer of SVG.

Everything that is drawn goes through :class:`Canvas`, which escapes every text and attribute
and refuses coordinates that are not finite, so that no chart can emit broken or hostile markup.
Colours and fonts come from the style sheet by class, so that one drawing serves light, dark and
print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from cordqa.report.words import clean_text

__all__ = [
    "SHAPES",
    "Canvas",
    "coordinate",
    "escape_markup",
    "marker_icon",
    "series_class",
    "series_shape",
    "shorten",
    "text_width",
]

#: Marker shapes in the order in which series take them; told apart without colour.
SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
# Outline of each shape around (0, 0) for a nominal radius of 1: start, then relative steps.
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.9, -0.9), (1.8, 0), (0, 1.8), (-1.8, 0)),
    "triangle": ((0, -1.2), (1.1, 2.0), (-2.2, 0)),
    "down": ((0, 1.2), (1.1, -2.0), (-2.2, 0)),
    "diamond": ((0, -1.3), (1.3, 1.3), (-1.3, 1.3), (-1.3, -1.3)),
    "plus": (
        *((-0.4, -1.2), (0.8, 0), (0, 0.8), (0.8, 0), (0, 0.8), (-0.8, 0)),
        *((0, 0.8), (-0.8, 0), (0, -0.8), (-0.8, 0), (0, -0.8), (0.8, 0)),
    ),
}


def escape_markup(text: object) -> str:
    """Escape text for element content and for attributes in either kind of quotes."""
    return clean_text(text).translate(_ENTITIES)


def coordinate(value: float) -> str:
    """Write a coordinate to a tenth of a pixel.

    Raises
    ------
    ValueError
        If it is not finite: the chart must have left it out.
    """
    if not math.isfinite(value):
        raise ValueError(f"coordinate {value!r} is not finite")
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text_width(text: str, size: float = 11) -> float:
    """Estimate the width of a text in pixels (system sans-serif, generous)."""
    return 0.58 * size * len(text)


def shorten(text: str, width: float, size: float = 11) -> str:
    """Cut a text to a width, with an ellipsis."""
    room = int(width / (0.58 * size))
    return text if len(text) <= room else text[: max(1, room - 1)].rstrip() + "…"


class Canvas:
    """Collects the parts of one SVG picture.

    Parameters
    ----------
    width, height : float
        Size in pixels at which texts have their nominal size.
    label : str
        What the picture shows, for readers who do not see it.
    description : str
        Its message in a sentence or two.
    """

    def __init__(self, width: float, height: float, *, label: str = "", description: str = "") -> None:
        self.width = width
        self.height = height
        self._parts: list[str] = []
        self.label = label
        self.description = description

    def _element(self, tag: str, attributes: str, class_: str, title: str = "") -> None:
        kind = f' class="{escape_markup(class_)}"' if class_ else ""
        if title:
            self._parts.append(f"<{tag}{kind}{attributes}><title>{escape_markup(title)}</title></{tag}>")
        else:
            self._parts.append(f"<{tag}{kind}{attributes}/>")

    def line(self, start: tuple[float, float], stop: tuple[float, float], class_: str) -> None:
        """Draw a straight line from (x, y) to (x, y)."""
        ends = f"M{coordinate(start[0])} {coordinate(start[1])}L{coordinate(stop[0])} {coordinate(stop[1])}"
        self._element("path", f' d="{ends}"', class_)

    def strokes(self, lines: Iterable[tuple[tuple[float, float], tuple[float, float]]], class_: str) -> None:
        """Draw many straight lines as one element."""
        parts = [
            f"M{coordinate(start[0])} {coordinate(start[1])}L{coordinate(stop[0])} {coordinate(stop[1])}"
            for start, stop in lines
        ]
        if parts:
            self._element("path", f' d="{"".join(parts)}"', class_)

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        class_: str,
        *,
        title: str = "",
        opacity: float | None = None,
        name: str = "",
    ) -> None:
        """Draw a rectangle; a negative size is drawn from the other side."""
        x, width = min(x, x + width), abs(width)
        y, height = min(y, y + height), abs(height)
        box = (
            f' x="{coordinate(x)}" y="{coordinate(y)}" '
            f'width="{coordinate(width)}" height="{coordinate(height)}"'
        )
        if opacity is not None:
            box += f' fill-opacity="{opacity:.2f}"'
        self._element("rect", box + _data_name(name), class_, title)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        class_: str = "",
        *,
        anchor: str = "",
        rotate: float = 0,
        name: str = "",
    ) -> None:
        """Write text; ``anchor`` is empty (start), ``middle`` or ``end``."""
        place = f' x="{coordinate(x)}" y="{coordinate(y)}"'
        if anchor:
            place += f' text-anchor="{escape_markup(anchor)}"'
        if rotate:
            place += f' transform="rotate({coordinate(rotate)} {coordinate(x)} {coordinate(y)})"'
        kind = f' class="{escape_markup(class_)}"' if class_ else ""
        self._parts.append(f"<text{kind}{place}{_data_name(name)}>{escape_markup(text)}</text>")

    def polyline(
        self,
        points: Iterable[tuple[float, float]],
        class_: str,
        *,
        closed: bool = False,
        title: str = "",
        name: str = "",
    ) -> None:
        """Draw a line through points, or the area that they enclose."""
        steps = [f"{coordinate(x)} {coordinate(y)}" for x, y in points]
        if len(steps) >= 2:
            path = f' d="M{"L".join(steps)}{"Z" if closed else ""}"'
            self._element("path", path + _data_name(name), class_, title)

    def circle(
        self, x: float, y: float, radius: float, class_: str, *, title: str = "", name: str = ""
    ) -> None:
        """Draw a circle."""
        place = f' cx="{coordinate(x)}" cy="{coordinate(y)}" r="{coordinate(radius)}"'
        self._element("circle", place + _data_name(name), class_, title)

    def mark(
        self, shape: str, x: float, y: float, radius: float, class_: str, *, title: str = "", name: str = ""
    ) -> None:
        """Draw one point with the marker of its series."""
        if shape not in _OUTLINES:
            self.circle(x, y, radius, class_, title=title, name=name)
        else:
            self._element("path", f' d="{_outline(shape, x, y, radius)}"{_data_name(name)}', class_, title)

    def cross(
        self, x: float, y: float, radius: float, class_: str, *, title: str = "", name: str = ""
    ) -> None:
        """Draw a diagonal cross (a sample that was not used)."""
        step = coordinate(2 * radius)
        start = f"M{coordinate(x - radius)} {coordinate(y - radius)}"
        path = f"{start}l{step} {step}m0-{step}l-{step} {step}"
        self._element("path", f' d="{path}"', class_, title)

    def image(self, box: tuple[float, float, float, float], png_base64: str) -> None:
        """Place an embedded picture; ``box`` is x, y, width, height and may reach beyond the canvas.

        Raises
        ------
        ValueError
            If the text is not base64.
        """
        if not png_base64 or not set(png_base64) <= _BASE64:
            raise ValueError("the picture is not base64")
        x, y, width, height = (coordinate(value) for value in box)
        place = f'x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none"'
        self._parts.append(f'<image {place} href="data:image/png;base64,{png_base64}"/>')

    def group(self, class_: str, name: str = "") -> None:
        """Open a group; close it with :meth:`end`."""
        self._parts.append(f'<g class="{escape_markup(class_)}"{_data_name(name)}>')

    def end(self) -> None:
        """Close the group that was opened last."""
        self._parts.append("</g>")

    def render(self, class_: str = "chart") -> Markup:
        """Return the picture as markup that is safe to place on a page."""
        description = f"<desc>{escape_markup(self.description)}</desc>" if self.description else ""
        spoken = f'role="img" aria-label="{escape_markup(self.label)}"'
        return self._picture(class_, spoken, description)

    def render_icon(self) -> Markup:
        """Return a picture that only repeats what the words beside it say."""
        return self._picture("key", 'aria-hidden="true"', "")

    def _picture(self, class_: str, spoken: str, description: str) -> Markup:
        width, height = coordinate(self.width), coordinate(self.height)
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        # Every part was escaped when it was added.
        start = f'<svg class="{escape_markup(class_)}" {size} {spoken}>'
        return Markup(f"{start}{description}{''.join(self._parts)}</svg>")


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def _data_name(name: str) -> str:
    return f' data-n="{escape_markup(name)}"' if name else ""


def _outline(shape: str, x: float, y: float, radius: float) -> str:
    (start_x, start_y), *steps = _OUTLINES[shape]
    path = f"M{coordinate(x + start_x * radius)} {coordinate(y + start_y * radius)}"
    return path + "".join(f"l{coordinate(dx * radius)} {coordinate(dy * radius)}" for dx, dy in steps) + "z"


def marker_icon(index: int) -> Markup:
    """Return a small picture of the marker of the n-th series, for a legend."""
    canvas = Canvas(14, 14)
    canvas.mark(series_shape(index), 7, 7, 4.5, f"point {series_class(index)}")
    return canvas.render_icon()


def series_shape(index: int) -> str:
    """Return the marker shape of the n-th series."""
    return SHAPES[index % len(SHAPES)]


def series_class(index: int) -> str:
    """Return the CSS class that colours the n-th series."""
    return f"s{index % len(SHAPES)}"
