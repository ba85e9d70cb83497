"""Pictures of the maps, and how their values are distributed in each region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.cord.axes import orient
from cordqa.models.maps import FittedMaps
from cordqa.quantities import find_quantity
from cordqa.records import Figure, Volume
from cordqa.workflow.fit.grid import Grid
from cordqa.workflow.fit.regions import RegionValue
from cordqa.workflow.fit.write import spread

__all__ = ["draw_distribution", "draw_maps", "map_label"]

Array = NDArray[np.float64]
_MAX_SLICES = 12
_MAX_PIXELS = 480
_MARGIN = 2
_PERCENTILES = (1.0, 99.0)
#: Indices that are compared between people and scanners: one range for all pictures.
_FROM_ZERO_TO_ONE = frozenset({"FA", "KFA", "muFA", "muFA_lower", "muFA_upper", "OP", "NDI", "ODI", "FWF"})
_POWERS = str.maketrans("234", "²³⁴")
_ADVICE = (
    " Look for structure that is not anatomy: stripes, edges of coils, holes. Left in the picture is the "
    "person's right, or anterior in a sagittal slice."
)
#: Dots that stand for the values of a region: quantiles of equal share.
_DOTS = 100
_MAX_REGIONS = 10
#: An axis this much coarser than the others is that of the slices.
_COARSE = 1.5


def draw_maps(maps: FittedMaps, grid: Grid, mask: NDArray[np.bool_]) -> list[Figure]:
    """Show slices of every map that holds a value; the first says how to look at all of them."""
    drawn: list[Figure] = []
    for name, values in maps.values.items():
        if np.isfinite(values).any():
            unit = maps.units.get(name, "")
            drawn.append(_mosaic(name, unit, values, grid, mask, advice="" if drawn else _ADVICE))
    return drawn


def _mosaic(
    name: str, unit: str, values: Array, grid: Grid, mask: NDArray[np.bool_], *, advice: str
) -> Figure:
    volume = Volume(data=spread(values.astype(np.float32), mask, np.nan), affine=grid.affine)
    tiles = _tiles(volume, mask)
    columns = math.ceil(math.sqrt(len(tiles)))
    canvas = np.full(
        (math.ceil(len(tiles) / columns) * tiles[0].shape[0], columns * tiles[0].shape[1]), np.nan
    )
    for n, tile in enumerate(tiles):
        top, left = (n // columns) * tile.shape[0], (n % columns) * tile.shape[1]
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    low, high = _window(name, values)
    shown = "" if unit in ("", "1") else f" {unit.replace('um', 'µm').translate(_POWERS)}"
    how = "" if name in _FROM_ZERO_TO_ONE else " (1st and 99th percentile, within what is plausible)"
    return figures.plate(
        f"map-{name}",
        map_label(name),
        image=_grey(canvas, low, high),
        max_pixels=_MAX_PIXELS,
        caption=f"Black is {_number(low)}{shown} or no value, white is {_number(high)}{shown}{how}.{advice}",
        alt=f"{len(tiles)} slices of the map of {map_label(name)}",
    )


def _window(name: str, values: Array) -> tuple[float, float]:
    """Range of the picture: noise outside tissue must not take the contrast of tissue."""
    if name in _FROM_ZERO_TO_ONE:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], _PERCENTILES))
    known = find_quantity(name)
    if known is not None and max(low, known.low) < min(high, known.high):
        return max(low, known.low), min(high, known.high)
    return low, high


def _number(value: float) -> str:
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _grey(canvas: Array, low: float, high: float) -> NDArray[np.uint8]:
    share = (np.clip(np.nan_to_num(canvas, nan=low), low, high) - low) / (high - low if high > low else 1.0)
    return np.asarray(np.round(255 * share), dtype=np.uint8)


def map_label(name: str) -> str:
    """Return what a reader calls a map."""
    known = find_quantity(name)
    return known.label if known else name.replace("_", " ")


def _tiles(volume: Volume, mask: NDArray[np.bool_]) -> list[Array]:
    """Cut out slices around the mask with square pixels, person's right and superior as usual."""
    laid = orient(volume)
    inside = orient(Volume(data=mask.astype(np.uint8), affine=volume.affine)).data > 0
    axis = _slice_axis(laid.data.shape, laid.spacing_mm)
    data, inside = np.moveaxis(laid.data, axis, 2), np.moveaxis(inside, axis, 2)
    first, second = (s for n, s in enumerate(laid.spacing_mm) if n != axis)
    used = np.flatnonzero(inside.any(axis=(0, 1)))
    if used.size > _MAX_SLICES:
        used = used[np.round(np.linspace(0, used.size - 1, _MAX_SLICES)).astype(int)]
    box = [_extent(np.any(inside, axis=(1 - n, 2))) for n in (0, 1)]
    step = min(first, second)
    rows = _positions(box[1], step / second)
    columns = _positions(box[0], step / first)
    return [
        np.asarray(data[np.ix_(columns, rows, [z])][:, :, 0].T, dtype=float)[::-1, ::-1] for z in used[::-1]
    ]


def _slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1]
    coarsest = int(np.argmax(spacing))
    others = [s for n, s in enumerate(spacing) if n != coarsest]
    return coarsest if spacing[coarsest] > _COARSE * max(others) else 2


def _extent(used: NDArray[np.bool_]) -> tuple[int, int]:
    where = np.flatnonzero(used)
    return max(int(where[0]) - _MARGIN, 0), min(int(where[-1]) + _MARGIN + 1, used.size)


def _positions(extent: tuple[int, int], step: float) -> NDArray[np.intp]:
    """Nearest voxels at equal distances: coarse voxels are drawn several times."""
    count = max(1, round((extent[1] - extent[0]) / step))
    # A strip of one voxel drawn a thousand times tells nothing.
    count = min(count, 512)
    at = extent[0] + (np.arange(count) + 0.5) * (extent[1] - extent[0]) / count
    return np.minimum(at.astype(np.intp), extent[1] - 1)


def draw_distribution(
    quantity: str, unit: str, values: Mapping[str, Array], summaries: Mapping[str, RegionValue]
) -> Figure | None:
    """Show how the voxels of each region spread, by quantiles of equal share."""
    groups = []
    for region, all_values in list(values.items())[:_MAX_REGIONS]:
        finite = all_values[np.isfinite(all_values)]
        if finite.size < 2:
            continue
        count = min(finite.size, _DOTS)
        dots = np.quantile(finite, (np.arange(count) + 0.5) / count)
        # The outermost quantiles of a noisy map would press the rest into a line.
        groups.append(
            figures.Group(
                label=region,
                values=dots,
                mean=summaries[region].mean,
                sd=summaries[region].sd,
                series="voxels",
            )
        )
    if not groups:
        return None
    more = len(values) - _MAX_REGIONS
    rest = f" {more} further region{' is' if more == 1 else 's are'} in the tables." if more > 0 else ""
    return figures.strip(
        f"distribution-{quantity}",
        f"{map_label(quantity)} by region",
        panels={"": groups},
        value_label=map_label(quantity),
        unit=unit,
        caption=f"Each dot stands for an equal share of the voxels of its region (up to {_DOTS} dots); the "
        f"thick line is the mean, the thin one spans one SD of the voxels.{rest}",
        alt=f"Distribution of {map_label(quantity)} in {len(groups)} regions",
    )
