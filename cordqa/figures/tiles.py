"""Slices of an image as tiles, with outlines over them that can be switched on and off."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.figures._make import filled, make_figure, number
from cordqa.figures.png import encode_png, shrink_image
from cordqa.records import Figure

__all__ = ["MAX_LAYERS", "Picture", "Rule", "Tile", "mosaic"]

#: Pictures and overlays that one mosaic can switch between.
MAX_LAYERS = 8
#: A picture with more pixels along a side is averaged down to this.
_MAX_PIXELS = 160
_PER_MM = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A grey picture and where it lies in its tile.

    Attributes
    ----------
    image : ndarray of uint8, shape (rows, columns)
        Voxels as they are; the page stretches them to the box.
    left, top, width, height : float
        Outer edges of the pixels in millimetres of the tile; may reach beyond it.
    """

    image: NDArray[np.uint8]
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A height in a tile (mm from its top): a line across it, or a word in place of the line.

    ``at`` is the side on which the word stands, ``right`` or ``left``.
    """

    y: float
    label: str = ""
    at: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One part of an image: a slice across the cord, or the whole cord from the side.

    Coordinates are millimetres from the upper left corner of the tile.

    Attributes
    ----------
    width_mm, height_mm : float
    pictures : mapping
        Name of a picture ("MT-on", "MTR") to what is shown; one may lack in a tile.
    lines : mapping
        Name of an overlay to its closed lines, each of shape (n_points, 2) as (x, y).
    rules : mapping
        Name of an overlay to heights at which lines or words stand.
    label : str
        Short, drawn below: the vertebral level.
    name : str
        "slice 12": what the tile is called wherever it is named.
    number : int or None
        Slice number from inferior, under which a reviewer marks it; None for what cannot be marked.
    value, unit : float, str
        Drawn below, for example the area.
    reason : str
        Why someone should look at it; empty where nothing is unusual.
    """

    width_mm: float
    height_mm: float
    pictures: Mapping[str, Picture]
    lines: Mapping[str, Sequence[NDArray[np.float64]]] = field(default_factory=dict)
    rules: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    label: str = ""
    name: str = ""
    number: int | None = None
    value: float = math.nan
    unit: str = ""
    reason: str = ""


def mosaic(
    name: str,
    title: str,
    *,
    tiles: Sequence[Tile],
    pictures: Mapping[str, str],
    overlays: Sequence[str] = (),
    off: Sequence[str] = (),
    side: Tile | None = None,
    image: str = "",
    remark: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show slices as tiles for a person to judge.

    Parameters
    ----------
    tiles : sequence of Tile
        In the order of the page: those that need a look first.
    pictures : mapping of str to str
        Names of the pictures between which the page switches, the first being shown; each with a
        remark, for example the values of black and white.
    overlays : sequence of str
        Names of the overlays, each with a switch of its own.
    off : sequence of str
        Those of them that are not shown until someone switches them on.
    side : Tile, optional
        The whole cord from the side; stands beside the tiles.
    image : str
        What a reviewer marks: the name of the image file without extension.  Empty: not marked.
    remark : str
        For example how many slices are not shown.

    Raises
    ------
    InputError
        If there are more pictures or overlays than can be told apart, or a tile names one that is
        not listed.

    Notes
    -----
    ``data``: ``image``, ``remark``, ``pictures`` (list of ``label``, ``note``), ``overlays`` (list of
    ``label``, ``off``), ``tiles`` and ``side``.  A tile holds ``size`` (width and height, mm),
    ``pictures`` (list of ``layer``, ``png`` in base64, ``box`` as x, y, width, height in mm),
    ``lines`` (list of ``overlay`` and ``points``, x and y in turn in hundredths of a millimetre),
    ``rules`` (list of ``overlay``, ``y``, ``label``, ``at``), and ``label``, ``name``, ``number``,
    ``value``, ``unit``, ``reason``.
    """
    layers, covers = list(pictures), list(overlays)
    if max(len(layers), len(covers)) > MAX_LAYERS or not layers:
        raise InputError(
            "a mosaic cannot show so many pictures or overlays",
            where=name,
            found=f"{len(layers)} pictures, {len(covers)} overlays",
            expected=f"one to {MAX_LAYERS} pictures, at most {MAX_LAYERS} overlays",
        )
    data = {
        "image": image,
        "remark": remark,
        "pictures": [{"label": label, "note": note} for label, note in pictures.items()],
        "overlays": [{"label": label, "off": label in off} for label in covers],
        "tiles": [_tile(name, tile, layers, covers) for tile in tiles],
        "side": _tile(name, side, layers, covers) if side is not None else None,
    }
    odd = sum(bool(tile.reason) for tile in tiles)
    return make_figure(
        name,
        "mosaic",
        title,
        data,
        caption=caption
        or "Each line should follow the edge that it names. Slices that need a look come first, then slices "
        "from superior to inferior. Left in a picture is the person's right.",
        alt=alt or f"{title}: {len(tiles)} slices, of which {odd} need a look",
    )


def _tile(where: str, tile: Tile, layers: list[str], covers: list[str]) -> dict[str, Any]:
    unknown = [key for key in tile.pictures if key not in layers]
    unknown += [key for key in (*tile.lines, *tile.rules) if key not in covers]
    if unknown:
        raise InputError(
            "a tile holds something that the mosaic does not list", where=where, found=unknown[0]
        )
    words = {"label": tile.label, "name": tile.name, "unit": tile.unit, "reason": tile.reason}
    return {
        "size": [number(tile.width_mm), number(tile.height_mm)],
        "pictures": [_picture(layers.index(key), one) for key, one in tile.pictures.items()],
        "lines": [
            {"overlay": covers.index(key), "points": _points(line)}
            for key, lines in tile.lines.items()
            for line in lines
        ],
        "rules": [
            {"overlay": covers.index(key), "y": number(rule.y), "label": rule.label, "at": rule.at}
            for key, rules in tile.rules.items()
            for rule in rules
        ],
        **filled({**words, "number": tile.number, "value": number(tile.value)}),
    }


def _picture(layer: int, picture: Picture) -> dict[str, Any]:
    small = shrink_image(picture.image, _MAX_PIXELS)[0] if picture.image.size else picture.image
    box = (picture.left, picture.top, picture.width, picture.height)
    png = base64.b64encode(encode_png(small)).decode("ascii")
    return {"layer": layer, "png": png, "box": [round(float(value), 3) for value in box]}


def _points(line: NDArray[np.float64]) -> list[int]:
    """Whole hundredths of a millimetre: half the characters, and finer than any screen."""
    return [int(value) for value in np.rint(np.asarray(line, dtype=float) * _PER_MM).ravel()]
