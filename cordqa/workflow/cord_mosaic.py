"""Make a mosaic of any step: slices along the cord, with whatever the step drew over them.

A step of the analysis is shown by one call of :func:`draw_step`.  To add one (maps of diffusion, a
grey-matter mask, susceptibility), give it

- the :class:`~cordqa.workflow.cord_records.CordImage` on whose grid everything lies: its centreline
  says where to cut, its levels and unusual slices what to write below the tiles;
- ``layers``: name to :class:`Layer`, all on that grid, between which the page switches
  (``{"mean b = 0": Layer(volume), "FA": Layer(volume, is_map=True, unit="1")}``);
- ``outlines``: name to the fraction of each voxel that something fills, laid out as (right, anterior,
  superior) (``orient(mask).data`` or ``atlas.paint(region)``), each of which gets a switch.

The page does the rest: switches, keys, enlarged slices, marks of a reviewer, and their export.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.cord.axes import orient
from cordqa.errors import InputError
from cordqa.figures import Picture, Rule, Tile
from cordqa.io.bids_names import split_extension
from cordqa.records import Figure, Volume
from cordqa.workflow.cord_records import CordImage

__all__ = ["LEVELS", "LOOK", "Layer", "Outline", "choose_slices", "draw_step"]

Array = NDArray[np.float64]
Planes = NDArray[Any]
#: Fractions that one overlay outlines: of one thing, or of several that lie side by side.
Outline = Planes | Sequence[Planes]

#: Overlays of the view from the side.
LEVELS, LOOK = "levels", "slices that need a look"
#: Side of a tile; the cord is 8 to 15 mm wide, its canal 20 mm.
_TILE_MM = 30.0
#: The view from the side reaches so far to the front, where the vertebral bodies are, and to the back.
_FRONT_MM, _BACK_MM = 32.0, 22.0
#: Beyond the ends of the mask, so that a cord that goes on can be seen.
_BEYOND_MM = 30.0
_TILES = 48
_LEVEL = 0.5
#: Points of an outline nearer than this to their neighbours' line are left out (mm).
_TOLERANCE_MM = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One picture of a step.

    Attributes
    ----------
    volume : Volume
        On the grid of the image of the step.
    is_map : bool
        A map of a quantity: one window for all slices, from the values inside the cord, and written
        below; otherwise every tile is windowed by itself, so that a coil's fall-off hides no slice.
    unit : str
        Unit of a map.
    """

    volume: Volume
    is_map: bool = False
    unit: str = ""


def draw_step(
    image: CordImage,
    *,
    name: str,
    title: str,
    layers: Mapping[str, Layer],
    outlines: Mapping[str, Outline],
    off: Sequence[str] = (),
    count: int = _TILES,
    mark: str = "",
    caption: str = "",
) -> Figure:
    """Show a step of the analysis on slices along the cord.

    Parameters
    ----------
    image : CordImage
        Gives grid, centreline, levels, areas and unusual slices.
    name, title : str
        Of the figure; ``name`` is unique within a page.
    layers : mapping of str to Layer
        Pictures between which the page switches; the first is shown.
    outlines : mapping of str to ndarray, shape (n_right, n_anterior, n_superior), or several of them
        Fractions from 0 to 1; lines are drawn at one half.
    off : sequence of str
        Outlines that are not shown until someone switches them on.
    count : int
        Slices shown at most; the unusual ones come first, the others are spread evenly.
    mark : str
        Image that a reviewer's mark concerns; by default the file of ``image``.
    caption : str

    Returns
    -------
    Figure
        Of kind ``mosaic``.

    Raises
    ------
    InputError
        If there are more pictures or outlines than a page tells apart, or a layer is not on the grid.
    """
    stacks = {key: _stack(key, layer, image) for key, layer in layers.items()}
    parts = {key: [one] if isinstance(one, np.ndarray) else list(one) for key, one in outlines.items()}
    chosen = choose_slices(image, count)
    names = dict(zip((int(s) for s in image.table.slices), image.level_names(), strict=True))
    area = dict(zip((int(s) for s in image.table.slices), image.table.values["CSA"], strict=True))
    tiles = [
        _axial(image, z, stacks, parts, label=names.get(z, ""), area_mm2=float(area.get(z, math.nan)))
        for z in chosen
    ]
    total = image.table.slices.size
    # From the side only the first outline says something: the others are thinner than a slice.
    side = _side(image, stacks, dict(list(parts.items())[:1]))
    ruled = [key for key in (LEVELS, LOOK) if side is not None and side.rules.get(key)]
    names_of_outlines = list(outlines)
    # The first outline and the levels look alike in all figures of a page.
    overlays = [*names_of_outlines[:1], *ruled[:1], *names_of_outlines[1:], *ruled[1:]]
    return figures.mosaic(
        name,
        title,
        tiles=tiles,
        pictures={key: stack.note for key, stack in stacks.items()},
        overlays=overlays,
        off=off,
        side=side,
        image=mark or split_extension(image.file.name)[0],
        remark=f"{len(chosen)} of {total} slices are shown." if len(chosen) < total else "",
        caption=caption,
        alt=f"{title}: {len(chosen)} slices across the cord with {', '.join(outlines) or 'no outline'}",
    )


def choose_slices(image: CordImage, count: int) -> list[int]:
    """Choose slices of a mosaic: unusual ones first, then evenly along the cord from top to bottom."""
    every = [int(number) for number in image.table.slices]
    look = {**image.outliers, **image.left_out}
    odd = [number for number in sorted(look, reverse=True) if number in every][:count]
    rest = [number for number in every[::-1] if number not in odd]
    room = count - len(odd)
    if len(rest) > room > 0:
        rest = [rest[round(k)] for k in np.linspace(0, len(rest) - 1, room)]
    return odd + rest[: max(room, 0)]


# -- pictures ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stack:
    """A layer laid out as (right, anterior, superior), with its window where one serves all slices."""

    data: Planes
    window: tuple[float, float] | None
    note: str = ""

    def to_grey(self, values: Planes) -> NDArray[np.uint8]:
        plane = np.asarray(values, dtype=float)
        if self.window is None:
            return figures.to_grey(plane)
        low, high = self.window
        share = (np.clip(np.nan_to_num(plane, nan=low), low, high) - low) / (high - low)
        grey: NDArray[np.uint8] = np.round(share * 255).astype(np.uint8)
        return grey


def _stack(name: str, layer: Layer, image: CordImage) -> _Stack:
    data = orient(layer.volume, what=name).data
    inside = orient(image.mask.volume).data
    if data.shape != inside.shape:
        raise InputError(
            "a picture is not on the grid of its step",
            where=name,
            found=f"shape {data.shape}",
            expected=f"{inside.shape}",
        )
    if not layer.is_map:
        return _Stack(data, None)
    values = data[inside >= _LEVEL]
    values = values[np.isfinite(values)]
    if values.size < 2:
        return _Stack(data, None, "no value inside the cord")
    low, high = _window(values)
    unit = f" {layer.unit}" if layer.unit not in ("", "1") else ""
    return _Stack(data, (low, high), f"black {low:g}{unit}, white {high:g}{unit}")


def _window(values: Planes) -> tuple[float, float]:
    """Choose round limits around what the cord has, with room for its surroundings."""
    low, high = (float(v) for v in np.percentile(np.asarray(values, dtype=float), (2, 98)))
    room = 0.25 * (high - low) or abs(high) or 1.0
    step = 10.0 ** (math.floor(math.log10(high - low + 2 * room)) - 1)
    ends = (math.floor((low - room) / step) * step, math.ceil((high + room) / step) * step)
    # A quantity that has no negative value gets no black below zero.
    return (max(ends[0], 0.0) if low >= 0 else ends[0]), ends[1]


# -- slices across the cord --------------------------------------------------------------------------


def _axial(
    image: CordImage,
    z: int,
    stacks: Mapping[str, _Stack],
    parts: Mapping[str, Sequence[Planes]],
    *,
    label: str,
    area_mm2: float,
) -> Tile:
    """Cut a square around the cord out of a slice, anterior up, the person's right on the left."""
    cut = _Cut.around(image, z)
    pictures = {}
    for key, stack in stacks.items():
        grey = stack.to_grey(cut.take(stack.data[:, :, z]))
        if grey.size:
            pictures[key] = cut.picture(grey)
    lines = {
        key: found
        for key, some in parts.items()
        if (found := [line for part in some for line in cut.trace(part[:, :, z])])
    }
    return Tile(
        width_mm=_TILE_MM,
        height_mm=_TILE_MM,
        pictures=pictures,
        lines=lines,
        label=label,
        name=f"slice {z}",
        number=z,
        value=area_mm2,
        unit="mm2",
        reason=image.outliers.get(z, "") or image.left_out.get(z, ""),
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """The voxels of a slice around the cord: no value is interpolated, the page stretches them."""

    right: slice
    anterior: slice
    #: Millimetres of the tile at index 0 of either axis, and per index.
    origin: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def around(cls, image: CordImage, z: int) -> _Cut:
        line, shape = image.table.centreline, orient(image.mask.volume).data.shape
        at = int(np.clip(z - int(line.slices[0]), 0, line.slices.size - 1))
        centre, step = (float(line.right[at]), float(line.anterior[at])), line.spacing_mm[:2]
        spans = []
        for place, size, n in zip(centre, step, shape[:2], strict=True):
            reach = _TILE_MM / 2 / size + 1
            first, last = math.floor(place - reach), math.ceil(place + reach) + 1
            spans.append(slice(min(max(first, 0), n), min(max(last, 0), n)))
        half = _TILE_MM / 2
        origin = (half + centre[0] * step[0], half + centre[1] * step[1])
        return cls(spans[0], spans[1], origin, (float(step[0]), float(step[1])))

    def take(self, plane: Planes) -> Planes:
        """Rows from anterior to posterior, columns from the person's right to the left."""
        return plane[self.right, self.anterior].T[::-1, ::-1]

    def picture(self, grey: NDArray[np.uint8]) -> Picture:
        return Picture(
            image=grey,
            left=self.origin[0] - (self.right.stop - 0.5) * self.step[0],
            top=self.origin[1] - (self.anterior.stop - 0.5) * self.step[1],
            width=grey.shape[1] * self.step[0],
            height=grey.shape[0] * self.step[1],
        )

    def trace(self, plane: Planes) -> list[Array]:
        rows = self.take(plane)
        found = figures.trace_level(rows, _LEVEL, tolerance=_TOLERANCE_MM / max(self.step))
        x0 = self.origin[0] - (self.right.stop - 1) * self.step[0]
        y0 = self.origin[1] - (self.anterior.stop - 1) * self.step[1]
        # Three points or fewer are a corner of a voxel, not an edge of anything.
        return [
            np.column_stack([x0 + line[:, 1] * self.step[0], y0 + line[:, 0] * self.step[1]])
            for line in found
            if len(line) > 3
        ]


# -- the cord from the side --------------------------------------------------------------------------


def _side(
    image: CordImage, stacks: Mapping[str, _Stack], parts: Mapping[str, Sequence[Planes]]
) -> Tile | None:
    """Show the cord from the side, straightened along its own curve, anterior on the left."""
    line = image.table.centreline
    if line.slices.size < 4:
        return None
    spacing = line.spacing_mm
    slab = _Slab.along(image)
    height = slab.slices.size * spacing[2]
    width = _FRONT_MM + _BACK_MM
    box = {
        "left": slab.left(0) - 0.5 * spacing[1],
        "top": 0.0,
        "width": slab.offsets.size * spacing[1],
        "height": height,
    }
    pictures = {
        key: Picture(image=stack.to_grey(slab.take(stack.data)), **box) for key, stack in stacks.items()
    }
    lines = {
        key: found
        for key, some in parts.items()
        if (found := [line for part in some for line in slab.trace(part)])
    }
    rules = {LEVELS: slab.level_rules(image), LOOK: slab.odd_rules(image)}
    return Tile(
        width_mm=width,
        height_mm=height,
        pictures=pictures,
        lines=lines,
        rules={key: value for key, value in rules.items() if value},
        name="from the side",
    )


@dataclass(frozen=True, slots=True)
class _Slab:
    """Slices from the top down, and steps towards posterior, along the curve of the cord."""

    slices: NDArray[np.intp]
    offsets: Array  # voxels from the curve towards anterior, from the front to the back
    right: Array
    anterior: Array
    spacing_mm: tuple[float, float, float]

    @classmethod
    def along(cls, image: CordImage) -> _Slab:
        line = image.table.centreline
        spacing = line.spacing_mm
        beyond = int(_BEYOND_MM / spacing[2])
        n = orient(image.mask.volume).data.shape[2]
        slices = np.arange(
            max(int(line.slices[0]) - beyond, 0), min(int(line.slices[-1]) + beyond + 1, n), dtype=np.intp
        )[::-1]
        front, back = math.floor(_FRONT_MM / spacing[1]), math.floor(_BACK_MM / spacing[1])
        return cls(
            slices=slices,
            offsets=np.arange(front, -back - 1, -1, dtype=float),
            right=np.interp(slices, line.slices, line.right),
            anterior=np.interp(slices, line.slices, line.anterior),
            spacing_mm=spacing,
        )

    def left(self, column: int) -> float:
        """Millimetres of the tile at the middle of a column."""
        return _FRONT_MM - float(self.offsets[column]) * self.spacing_mm[1]

    def take(self, data: Planes) -> Array:
        """Interpolate within each slice, so that the curve makes no steps; NaN beyond the image."""
        from scipy.ndimage import map_coordinates

        out = np.full((self.slices.size, self.offsets.size), math.nan)
        for row, (z, x, y) in enumerate(zip(self.slices, self.right, self.anterior, strict=True)):
            place = np.stack([np.full(self.offsets.size, x), y + self.offsets])
            plane = np.nan_to_num(np.asarray(data[:, :, z], dtype=float))
            out[row] = map_coordinates(plane, place, order=1, mode="constant", cval=math.nan)
        return out

    def trace(self, part: Planes) -> list[Array]:
        found = figures.trace_level(self.take(part), _LEVEL, tolerance=0.1)
        return [
            np.column_stack(
                [self.left(0) + line[:, 1] * self.spacing_mm[1], (line[:, 0] + 0.5) * self.spacing_mm[2]]
            )
            for line in found
            if len(line) > 3
        ]

    def height(self, slice_number: float) -> float:
        """Millimetres of the tile at the middle of a slice."""
        return (float(self.slices[0]) - slice_number + 0.5) * self.spacing_mm[2]

    def level_rules(self, image: CordImage) -> list[Rule]:
        """Lines at the borders of levels, names at their middles."""
        if image.levels is None:
            return []
        names = image.levels.map.names()
        rules = []
        for name in dict.fromkeys(names[int(z)] for z in self.slices if names[int(z)]):
            own = [int(z) for z in self.slices if names[int(z)] == name]
            rules.append(Rule(y=self.height(float(np.mean(own))), label=name))
            if own[0] != self.slices[0]:
                rules.append(Rule(y=self.height(own[0] + 0.5)))
            if own[-1] != self.slices[-1]:
                rules.append(Rule(y=self.height(own[-1] - 0.5)))
        return list(dict.fromkeys(rules))

    def odd_rules(self, image: CordImage) -> list[Rule]:
        shown = set(self.slices.tolist())
        return [
            Rule(y=self.height(float(z)), label=f"▲ {z}", at="left")
            for z in sorted(image.outliers, reverse=True)
            if z in shown
        ]
