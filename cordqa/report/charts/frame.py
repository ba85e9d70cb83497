"""The frame of a chart with axes: heading, grid, ticks, labels."""

from __future__ import annotations

from markupsafe import Markup

from cordqa.report.scales import Scale
from cordqa.report.svg import Canvas, shorten

__all__ = ["HEIGHT", "MARGIN_LEFT", "WIDTH", "Frame"]

#: Size of a medium panel: two of them fill the text column, one fills a phone.
WIDTH, HEIGHT = 400.0, 290.0
MARGIN_LEFT = 50.0
MARGIN_RIGHT = 14.0
MARGIN_TOP = 40.0
MARGIN_BOTTOM = 40.0


class Frame:
    """A canvas with a plotting area.

    Horizontal grid lines carry the eye; the name of the vertical axis stands above it, where it
    can be read without turning the head.
    """

    def __init__(
        self,
        *,
        label: str,
        description: str = "",
        width: float = WIDTH,
        height: float = HEIGHT,
        left: float = MARGIN_LEFT,
        right: float = MARGIN_RIGHT,
        top: float = MARGIN_TOP,
        bottom: float = MARGIN_BOTTOM,
    ) -> None:
        self.canvas = Canvas(width, height, label=label, description=description)
        self.left, self.right = left, width - right
        self.top, self.bottom = top, height - bottom

    def heading(self, title: str, y_label: str = "") -> None:
        """Write the title of the panel and, below it, the name of the vertical axis."""
        room = self.canvas.width - 4
        if title:
            self.canvas.text(2, 14, shorten(title, room, 12.5), "title")
        if y_label:
            self.canvas.text(2, self.top - 10, shorten(y_label, room), "axis-name")

    def y_axis(self, scale: Scale, count: int = 5) -> None:
        """Draw grid lines and tick texts."""
        for tick, label in scale.tick_labels(count):
            y = scale(tick)
            self.canvas.line((self.left, y), (self.right, y), "grid")
            self.canvas.text(self.left - 7, y + 4, label, "tick", anchor="end")

    def x_axis(self, scale: Scale, name: str = "", count: int = 5) -> None:
        """Draw the base line, tick marks and their texts, and the name of the axis."""
        self.canvas.line((self.left, self.bottom), (self.right, self.bottom), "axis")
        for tick, label in scale.tick_labels(count):
            self.x_tick(scale(tick), label)
        if name:
            middle = (self.left + self.right) / 2
            room = self.right - self.left + 40
            self.canvas.text(middle, self.bottom + 33, shorten(name, room), "axis-name", anchor="middle")

    def x_tick(self, x: float, label: str, anchor: str = "middle") -> None:
        """Draw one tick of the horizontal axis."""
        self.canvas.line((x, self.bottom), (x, self.bottom + 4), "axis")
        self.canvas.text(x, self.bottom + 16, label, "tick", anchor=anchor)

    def empty(self, reason: str) -> None:
        """Say in the middle why nothing is drawn."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        self.canvas.text(x, y, reason, "tick", anchor="middle")

    def render(self) -> Markup:
        """Return the picture."""
        return self.canvas.render()
