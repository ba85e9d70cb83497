"""Rows of the built-in engine: the shape of the cord, and the values of regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.cord.atlas import AtlasImage, AtlasLabels, Region, gather_atlas, parse_label_table
from cordqa.cord.extraction import Method, estimate_group, flags_of, values_on_grid
from cordqa.cord.morphometry import SliceTable, slice_measurements, summarise_slices
from cordqa.engines.builtin.clock import NAME
from cordqa.engines.builtin.levels import level_masks, one_volume
from cordqa.engines.protocol import EngineRow, Estimator, Grouping
from cordqa.engines.sct.checks import atlas_images
from cordqa.engines.sct.rows import level_name, region_name
from cordqa.io.files import iter_lines, read_small
from cordqa.io.volumes import read_volume
from cordqa.records import Measurement, Volume

__all__ = ["APPROXIMATE", "METHODS", "atlas_labels", "extraction_rows", "read_atlas", "shape_rows"]

_MAX_TEXT_BYTES = 2 * 1024 * 1024
#: A line of a label table that says that borders between its labels are schematic.
APPROXIMATE = "# approximate"
ABSENT = "this level is not in the image"
METHODS: Mapping[Estimator, Method] = {
    Estimator.WEIGHTED_AVERAGE: "weighted mean",
    Estimator.BINARY: "binary",
    Estimator.MAXIMUM_LIKELIHOOD: "maximum likelihood",
    Estimator.MAXIMUM_A_POSTERIORI: "MAP",
    Estimator.MEDIAN: "median",
}


# -- shape -------------------------------------------------------------------------------------------


def shape_rows(
    table: SliceTable, by_slice: Mapping[int, int], group_by: Grouping, levels: Sequence[int]
) -> tuple[EngineRow, ...]:
    """Turn a table of slices into rows; a level that was asked for and is absent is a row too."""
    of_slice = [by_slice.get(int(number), 0) for number in table.slices]
    missing = _missing_shapes(levels, set(of_slice))
    if group_by is Grouping.SLICE:
        chosen = {int(n) for n, level in zip(table.slices, of_slice, strict=True) if _wanted(level, levels)}
        names = [level_name(level) if level else "" for level in of_slice]
        level_of = dict(zip((int(n) for n in table.slices), names, strict=True))
        return (
            *(
                _shape_row(m, (m.slice_number,), level_of[m.slice_number], group_by)
                for m in slice_measurements(table)
                if m.slice_number is not None and m.slice_number in chosen
            ),
            *missing,
        )
    groups = level_masks(np.array(of_slice), group_by, levels)
    found = {name: mask for name, mask in groups.items() if mask.any()}
    measured = summarise_slices(table, found)
    spread = _spread(table, found)
    rows = tuple(
        replace(
            _shape_row(m, tuple(int(n) for n in table.slices[found[m.level]]), _level(m.level), group_by),
            standard_deviation=spread[m.quantity, m.level],
        )
        for m in measured
    )
    return rows + (missing if group_by is Grouping.LEVEL else ())


def _wanted(level: int, levels: Sequence[int]) -> bool:
    return not levels or level in levels


def _level(group: str) -> str:
    return "" if group == "all" else group


def _spread(table: SliceTable, groups: Mapping[str, NDArray[np.bool_]]) -> dict[tuple[str, str], float]:
    """Standard deviation between slices (ddof 0) by quantity and group; a sum has none."""
    found = {}
    for group, chosen in groups.items():
        for quantity, values in table.values.items():
            known = values[chosen][np.isfinite(values[chosen])]
            several = known.size > 1 and quantity != "length"
            found[quantity, group] = float(known.std()) if several else math.nan
    return found


def _shape_row(m: Measurement, slices: tuple[int, ...], level: str, grouping: Grouping) -> EngineRow:
    return EngineRow(
        quantity=m.quantity,
        value=m.value,
        unit=m.unit,
        region=m.region,
        slices=slices,
        level=level,
        n_voxels=float(m.n_voxels),
        coverage=m.coverage,
        method=m.method,
        engine=NAME,
        version=__version__,
        reason="; ".join(m.flags),
        grouping=grouping,
    )


def _missing_shapes(levels: Sequence[int], present: set[int]) -> tuple[EngineRow, ...]:
    return tuple(
        EngineRow(
            quantity="CSA",
            value=math.nan,
            unit="mm2",
            region="cord",
            level=level_name(level),
            coverage=0.0,
            engine=NAME,
            version=__version__,
            reason=ABSENT,
        )
        for level in levels
        if level not in present
    )


# -- regions -----------------------------------------------------------------------------------------


def extraction_rows(
    image: Volume,
    atlas: AtlasImage,
    regions: Sequence[str],
    groups: Mapping[str, NDArray[np.intp]],
    *,
    quantity: str,
    unit: str,
    scale: float,
    estimator: Estimator,
    group_by: Grouping,
    level_of: Mapping[int, int],
) -> tuple[EngineRow, ...]:
    """Extract every region in every group of slices; a group without slices is a row that says so."""
    data = values_on_grid(image, atlas)
    method = METHODS[estimator]
    blank = EngineRow(
        quantity=quantity,
        value=math.nan,
        unit=unit,
        method=method,
        engine=NAME,
        version=__version__,
        coverage=0.0,
        grouping=group_by,
    )
    rows = []
    for name, slices in groups.items():
        for region in (atlas.labels.find(one) for one in regions):
            level = _level(name)
            if group_by is Grouping.SLICE:
                number = level_of.get(int(slices[0]), 0)
                level = level_name(number) if number else ""
            row = replace(blank, region=region.name, level=level)
            if not slices.size:
                rows.append(replace(row, reason=ABSENT))
                continue
            found, reach = estimate_group(data, atlas, region, slices, method)
            flags = flags_of(found, region, reach, method, atlas.labels)
            rows.append(
                replace(
                    row,
                    value=found.value * scale,
                    standard_deviation=found.sd * scale,
                    slices=tuple(int(n) for n in slices),
                    n_voxels=found.size,
                    coverage=found.coverage * reach,
                    reason="; ".join(flags),
                )
            )
    return tuple(rows)


def atlas_labels(folder: Path) -> AtlasLabels:
    """Read the labels of an atlas that lies in an image."""
    text = "\n".join(iter_lines(read_small(folder / "info_label.txt", limit=_MAX_TEXT_BYTES)))
    labels = parse_label_table(text, source=str(folder))
    if APPROXIMATE not in text:
        return labels
    doubtful = {name: replace(region, approximate=True) for name, region in labels.regions.items()}
    for name in ("cord", "WM", "GM"):
        # As in the schematic atlas itself: only borders between tracts are drawn from a scheme.
        doubtful[name] = labels.regions[name]
    return replace(labels, regions=doubtful)


def read_atlas(atlas: Path, names: Sequence[str], *, combine: bool) -> tuple[AtlasImage, list[str]]:
    """Read an atlas that lies in the image; return it with the names of the regions asked for."""
    if atlas.is_file():
        (name,) = names
        volumes = [one_volume(read_volume(atlas))]
        labels = AtlasLabels(names=(name,), regions={name: Region(name=name, members=(0,))}, tissues={})
    else:
        labels = atlas_labels(atlas)
        volumes = [one_volume(read_volume(path)) for path in atlas_images(atlas)]
    regions = [region_name(name) for name in names]
    if combine:
        members = sorted({member for name in regions for member in labels.find(name).members})
        joined = ", ".join(regions)
        extended = {**labels.regions, joined: Region(name=joined, members=tuple(members))}
        labels = replace(labels, regions=extended)
        regions = [joined]
    return gather_atlas(volumes, labels), regions
