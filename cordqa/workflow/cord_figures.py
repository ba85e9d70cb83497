"""The figures of one participant: the cord's outline slice by slice, and its values along the cord."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.cord.axes import orient
from cordqa.records import Figure, Status
from cordqa.workflow.cord_records import CordImage, TransferMaps, Unit

__all__ = ["draw_unit"]

#: Tiles of a mosaic: slices that need a look come first, then a selection along the cord.
_COLUMNS, _ROWS = 4, 4
_TILE_MM, _TILE_PIXELS = 28.0, 80
#: A dot in the corner of a tile tells its status; a ring around the cord would hide its edge.
_DOT_AT, _DOT = 10.0, 4.5
_CURVES = ("CSA", "diameter_AP", "diameter_RL")


def draw_unit(unit: Unit, maps: Sequence[TransferMaps]) -> tuple[Figure, ...]:
    """Make all figures of a participant in the order of the report."""
    drawn: list[Figure | None] = []
    for number, image in enumerate(unit.images, start=1):
        drawn += [_mosaic(image, number), _sagittal(image, number)]
    for number, found in enumerate(maps, start=1):
        if found.atlas is not None:
            drawn.append(_atlas(found, number))
    drawn += [_shape(image, number) for number, image in enumerate(unit.images, start=1)]
    return tuple(figure for figure in drawn if figure is not None)


def _chosen(image: CordImage, count: int) -> list[int]:
    """Slices of a mosaic: unusual ones first, then evenly along the cord from top to bottom."""
    every = [int(number) for number in image.table.slices]
    odd = [number for number in sorted(image.outliers, reverse=True) if number in every][:count]
    rest = [number for number in every[::-1] if number not in odd]
    room = count - len(odd)
    if len(rest) > room > 0:
        rest = [rest[round(k)] for k in np.linspace(0, len(rest) - 1, room)]
    return odd + rest[: max(room, 0)]


def _mosaic(image: CordImage, number: int) -> Figure:
    picture, mask = orient(image.volume).data, orient(image.mask.volume).data
    line, spacing = image.table.centreline, image.table.centreline.spacing_mm
    chosen = _chosen(image, _COLUMNS * _ROWS)
    rows = max(1, math.ceil(len(chosen) / _COLUMNS))
    canvas = np.zeros((rows * _TILE_PIXELS, _COLUMNS * _TILE_PIXELS), dtype=np.uint8)
    circles = []
    names = dict(zip((int(s) for s in image.table.slices), image.level_names(), strict=True))
    area = dict(zip((int(s) for s in image.table.slices), image.table.values["CSA"], strict=True))
    for n, z in enumerate(chosen):
        at = z - int(line.slices[0])
        centre = (float(line.right[at]), float(line.anterior[at]))
        row, column = divmod(n, _COLUMNS)
        tile = _tile(picture[:, :, z], mask[:, :, z], centre, spacing)
        canvas[
            row * _TILE_PIXELS : (row + 1) * _TILE_PIXELS, column * _TILE_PIXELS : (column + 1) * _TILE_PIXELS
        ] = tile
        why = image.outliers.get(z, "")
        circles.append(
            figures.Circle(
                x=column * _TILE_PIXELS + _DOT_AT,
                y=row * _TILE_PIXELS + _DOT_AT,
                radius=_DOT,
                label=f"{names.get(z, '')} {z}".strip(),
                status=Status.WARN if why else Status.PASS,
                name=f"slice {z}",
                value=float(area.get(z, math.nan)),
                unit="mm2",
                text=why or "nothing unusual",
            )
        )
    return figures.plate(
        f"cord-{number}",
        f"Cord in {image.label}",
        image=canvas,
        circles=circles,
        max_pixels=_COLUMNS * _TILE_PIXELS,
        alt=f"Mosaic of {len(chosen)} axial slices of {image.label} with the outline of the cord",
        caption="The thin line is the outline of the mask and should follow the edge of the cord in "
        "every slice; slices that need a look come first, then slices from superior to inferior. Left in the "
        "picture is the person's right.",
    )


def _tile(
    plane: NDArray[np.float32],
    mask: NDArray[np.float32],
    centre: tuple[float, float],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Cut a square around the cord out of a slice, anterior up, and draw the outline of the mask."""
    from scipy.ndimage import binary_dilation, map_coordinates

    step = _TILE_MM / _TILE_PIXELS
    offset = (np.arange(_TILE_PIXELS) - (_TILE_PIXELS - 1) / 2) * step
    # Rows run from anterior to posterior, columns from the person's right to the left.
    right = centre[0] - offset / spacing_mm[0]
    front = centre[1] - offset / spacing_mm[1]
    place = np.stack(np.meshgrid(front, right, indexing="ij"))[::-1]
    clean = np.nan_to_num(np.asarray(plane, dtype=float))
    grey = figures.to_grey(map_coordinates(clean, place, order=1, mode="constant"))
    inside = map_coordinates(np.asarray(mask, dtype=float), place, order=1, mode="constant") >= 0.5
    edge = binary_dilation(inside) & ~inside
    out = grey.copy()
    out[edge] = _against(grey[edge])
    out[0, :] = out[:, 0] = 60
    return out


def _against(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey of a line that shows on the picture: white on dark, black on bright."""
    return np.where(grey < 128, 255, 0).astype(np.uint8)


def _sagittal(image: CordImage, number: int) -> Figure | None:
    """Show the cord from the side along its own curve, with a ring at the middle of each level."""
    picture, mask = orient(image.volume).data, orient(image.mask.volume).data
    line = image.table.centreline
    if line.slices.size < 4:
        return None
    spacing = line.spacing_mm
    half = max(1, round(_TILE_MM / 2 / spacing[1]))
    columns = np.arange(-half, half + 1)
    strip = np.zeros((line.slices.size, columns.size))
    shape = np.zeros_like(strip)
    for n, z in enumerate(line.slices):
        x = int(np.clip(round(float(line.right[n])), 0, picture.shape[0] - 1))
        y = np.clip(np.round(line.anterior[n] + columns).astype(int), 0, picture.shape[1] - 1)
        strip[n], shape[n] = np.nan_to_num(picture[x, y, z]), mask[x, y, z]
    tall = max(1, round(spacing[2] / spacing[1]))
    wide = max(1, round(spacing[1] / spacing[2]))
    grey = np.repeat(np.repeat(figures.to_grey(strip), tall, axis=0), wide, axis=1)[::-1]
    inside = np.repeat(np.repeat(shape >= 0.5, tall, axis=0), wide, axis=1)[::-1]
    edge = inside & ~(np.roll(inside, 1, axis=1) & np.roll(inside, -1, axis=1))
    drawn = grey.copy()
    drawn[edge] = _against(grey[edge])
    circles = []
    names = image.level_names()
    for name in dict.fromkeys(n for n in names if n):
        at = [n for n, other in enumerate(names) if other == name]
        # The rows of the table and of the curve are the same slices.
        row = grey.shape[0] - (np.mean(at) + 0.5) * tall
        circles.append(
            figures.Circle(
                x=grey.shape[1] / 2, y=float(row), radius=max(grey.shape[1] / 8, 2.0), label=name,
                status=Status.PASS, name=name, text=f"middle of {name}",
            )
        )  # fmt: skip
    return figures.plate(
        f"levels-{number}",
        f"Levels in {image.label}",
        image=drawn,
        circles=circles,
        max_pixels=420,
        alt=f"The cord of {image.label} straightened along its curve, from the side, with vertebral levels",
        caption="The cord seen from the side, straightened along its curve; posterior is left. The thin "
        "lines are the edges of the mask. Each ring should lie at the middle of the level that it names.",
    )


def _atlas(found: TransferMaps, number: int) -> Figure:
    """Show each map with the border between grey and white matter drawn in."""
    image, atlas = found.image, found.atlas
    if atlas is None:
        raise ValueError("no atlas")
    grey_matter = atlas.paint(atlas.labels.find("GM"))
    picture = orient(next(iter(found.maps.values()))).data
    line, spacing = image.table.centreline, image.table.centreline.spacing_mm
    covered = {int(z) for z in atlas.covered_slices()}
    chosen = [z for z in _chosen(image, _COLUMNS * 2) if z in covered][: _COLUMNS * 2]
    rows = max(1, math.ceil(len(chosen) / _COLUMNS))
    canvas = np.zeros((rows * _TILE_PIXELS, _COLUMNS * _TILE_PIXELS), dtype=np.uint8)
    circles = []
    for n, z in enumerate(chosen):
        at = z - int(line.slices[0])
        centre = (float(line.right[at]), float(line.anterior[at]))
        row, column = divmod(n, _COLUMNS)
        tile = _tile(picture[:, :, z], grey_matter[:, :, z].astype(np.float32), centre, spacing)
        top, left = row * _TILE_PIXELS, column * _TILE_PIXELS
        canvas[top : top + _TILE_PIXELS, left : left + _TILE_PIXELS] = tile
        circles.append(
            figures.Circle(
                x=left + _DOT_AT, y=top + _DOT_AT, radius=_DOT,
                label=str(z), status=Status.PASS, name=f"slice {z}", text="grey matter of the atlas",
            )
        )  # fmt: skip
    name = next(iter(found.maps))
    return figures.plate(
        f"atlas-{number}",
        f"{name} with grey matter of the atlas, {image.label}",
        image=canvas,
        circles=circles,
        max_pixels=_COLUMNS * _TILE_PIXELS,
        alt=f"{len(chosen)} slices of the {name} map with the outline of the atlas' grey matter",
        caption=f"Map of {name}; the thin line is where the atlas has half grey matter.",
    )


def _shape(image: CordImage, number: int) -> Figure | None:
    """Show area and diameters along the cord, one panel each."""
    values: Mapping[str, NDArray[np.float64]] = image.table.values
    if not np.isfinite(values["CSA"]).any():
        return None
    units = {"CSA": "mm2", "diameter_AP": "mm", "diameter_RL": "mm"}
    drawn = []
    usable = np.array([int(s) not in image.outliers for s in image.table.slices])
    for name in _CURVES:
        known = np.isfinite(values[name])
        drawn.append(
            figures.Curve(
                label=name,
                x=image.table.z_mm[known],
                y=values[name][known],
                used=usable[known],
                value=float(np.nanmean(values[name])),
                unit=units[name],
                status=Status.PASS,
                name=name,
                note="mean over slices",
            )
        )
    return figures.curves(
        f"shape-{number}",
        f"Along the cord in {image.label}",
        curves=drawn,
        x_label="Distance from the lowest slice (mm)",
        y_label="",
        alt=f"Area and diameters of the cord in {image.label} along its length",
        caption="Each point is a slice, from inferior to superior; crosses are slices that need a look.",
    )
