"""Slices of an image as tiles, with what a reader can switch on and off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cordqa.report.charts.drawing import Data, Drawing, FigureDataError, flag, items, numbers, scalar, text
from cordqa.report.svg import Canvas
from cordqa.report.words import DASH, format_number, with_unit

__all__ = ["Choice", "MosaicView", "TileView", "draw_mosaic"]

#: Width of a drawing in pixels of its own; the page scales it.
_TILE_WIDTH, _SIDE_WIDTH = 240.0, 190.0
_MAX_LAYERS, _MAX_TILES = 8, 1000
_PER_MM = 100.0
_LINE_HEIGHT = 12.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A picture or an overlay that can be chosen; ``icon`` shows how its line looks."""

    label: str
    note: str = ""
    icon: Markup | None = None
    off: bool = False


@dataclass(frozen=True, slots=True)
class TileView:
    """One tile as the template writes it: drawing, words, and the number under which it is marked."""

    drawing: Markup
    label: str
    name: str
    value: str
    reason: str
    number: str

    @property
    def spoken(self) -> str:
        """The tile in words."""
        return ", ".join(part for part in (self.label, self.name, self.value, self.reason) if part)


@dataclass(frozen=True, slots=True)
class MosaicView:
    """Everything that the template needs beyond the drawings."""

    image: str
    remark: str
    pictures: tuple[Choice, ...]
    overlays: tuple[Choice, ...]
    tiles: tuple[TileView, ...]
    side: Markup | None

    @property
    def odd(self) -> tuple[TileView, ...]:
        """Tiles that need a look."""
        return tuple(tile for tile in self.tiles if tile.reason)

    @property
    def plain(self) -> tuple[TileView, ...]:
        """The other tiles."""
        return tuple(tile for tile in self.tiles if not tile.reason)


def draw_mosaic(data: Data, label: str) -> Drawing:
    """Draw the tiles; data as in :func:`cordqa.figures.mosaic`."""
    names = [text(one, "label") for one in items(data, "pictures")]
    overlays = items(data, "overlays")
    if not 0 < len(names) <= _MAX_LAYERS or len(overlays) > _MAX_LAYERS:
        raise FigureDataError(f"{len(names)} pictures and {len(overlays)} overlays cannot be told apart")
    tiles = items(data, "tiles")
    if len(tiles) > _MAX_TILES:
        raise FigureDataError(f"{len(tiles)} tiles are too many for a page")
    words = f"{label}: the cord from the side, straightened along its curve"
    side_drawing = next((_draw(one, words, _SIDE_WIDTH, "chart slab") for one in _sides(data)), None)
    view = MosaicView(
        image=text(data, "image"),
        remark=text(data, "remark"),
        pictures=tuple(Choice(text(one, "label"), text(one, "note")) for one in items(data, "pictures")),
        overlays=tuple(
            Choice(text(one, "label"), icon=_overlay_icon(n, data), off=flag(one, "off"))
            for n, one in enumerate(overlays)
        ),
        tiles=tuple(_view(tile, label) for tile in tiles),
        side=side_drawing,
    )
    drawn = [tile.drawing for tile in view.tiles]
    return Drawing(tuple(([side_drawing] if side_drawing else []) + drawn), layout="mosaic", mosaic=view)


def _sides(data: Data) -> list[Data]:
    side = data.get("side")
    return [] if side is None else items({"side": [side]}, "side")


def _overlay_icon(index: int, data: Data) -> Markup:
    """Show how the lines of an overlay look, or the sign that stands before its words."""
    canvas = Canvas(26, 14)
    canvas.rect(0, 0, 26, 14, "photo")
    own = [
        part
        for tile in (*items(data, "tiles"), *_sides(data))
        for key in ("lines", "rules")
        for part in items(tile, key)
        if part.get("overlay") == index
    ]
    if own and all(text(part, "label") for part in own):
        canvas.text(13, 11, text(own[0], "label")[:1], "roi-label", anchor="middle")
        return canvas.render_icon()
    for class_ in ("edge-halo", f"edge e{index}"):
        canvas.line((2, 7), (24, 7), class_)
    return canvas.render_icon()


def _view(tile: Data, label: str) -> TileView:
    number = scalar(tile, "number")
    value = format_number(scalar(tile, "value"), 3)
    words = ", ".join(part for part in (text(tile, "label"), text(tile, "name")) if part)
    return TileView(
        drawing=_draw(tile, f"{label}: {words}", _TILE_WIDTH, "chart slab"),
        label=text(tile, "label"),
        name=text(tile, "name"),
        value="" if value == DASH else with_unit(value, text(tile, "unit")),
        reason=text(tile, "reason"),
        number=str(int(number)) if math.isfinite(number) and number == int(number) else "",
    )


def _draw(tile: Data, label: str, pixels: float, class_: str) -> Markup:
    width, height = numbers(tile, "size", 2)
    if not (0 < width <= 2000 and 0 < height <= 2000):
        raise FigureDataError("a tile has no size")
    zoom = pixels / width
    canvas = Canvas(
        pixels, height * zoom, label=label, description=text(tile, "reason") or "Nothing unusual."
    )
    canvas.rect(0, 0, pixels, height * zoom, "blank")
    for picture in items(tile, "pictures"):
        box = [value * zoom for value in numbers(picture, "box", 4)]
        canvas.group(f"layer l{_index(picture, 'layer')}")
        canvas.image((box[0], box[1], box[2], box[3]), text(picture, "png"))
        canvas.end()
    _draw_lines(canvas, items(tile, "lines"), zoom)
    _draw_rules(canvas, items(tile, "rules"), zoom)
    return canvas.render(class_)


def _index(data: Data, key: str) -> int:
    value = scalar(data, key)
    if not (0 <= value < _MAX_LAYERS and value == int(value)):
        raise FigureDataError(f"{key!r} is not one of the layers")
    return int(value)


def _draw_lines(canvas: Canvas, lines: Sequence[Data], zoom: float) -> None:
    """Draw each line on a dark one, so that it shows on white as on black."""
    for line in lines:
        values = [value * zoom / _PER_MM for value in numbers(line, "points")]
        points = list(zip(values[::2], values[1::2], strict=True))
        overlay = _index(line, "overlay")
        canvas.group(f"cover o{overlay}")
        canvas.polyline(points, "edge-halo", closed=True)
        canvas.polyline(points, f"edge e{overlay}", closed=True)
        canvas.end()


def _draw_rules(canvas: Canvas, rules: Sequence[Data], zoom: float) -> None:
    """Draw lines across the tile and words at its sides, leaving out words that would touch."""
    last = {"left": -math.inf, "right": -math.inf}
    for rule in sorted(rules, key=lambda one: scalar(one, "y")):
        y, overlay, word = scalar(rule, "y") * zoom, _index(rule, "overlay"), text(rule, "label")
        at = "left" if text(rule, "at") == "left" else "right"
        if word and y - last[at] < _LINE_HEIGHT:
            continue
        canvas.group(f"cover o{overlay}")
        if word:
            x, anchor = (4.0, "") if at == "left" else (canvas.width - 4.0, "end")
            canvas.text(x, y + 4, word, "roi-label", anchor=anchor)
            last[at] = y
        else:
            for class_ in ("edge-halo", f"edge e{overlay}"):
                canvas.line((0, y), (canvas.width, y), class_)
        canvas.end()
