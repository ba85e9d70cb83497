"""Turn tables of the toolbox into rows with units, and say what was asked for and is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cordqa.cord.levels import LEVEL_NAMES
from cordqa.engines.protocol import EngineRow
from cordqa.engines.sct.tables import SctRow, SctTable
from cordqa.errors import ConfigError
from cordqa.quantities import find_quantity

__all__ = ["SHAPE_COLUMNS", "extraction_rows", "level_name", "region_name", "shape_rows", "unit_factor"]

#: Column of ``sct_process_segmentation``, quantity and unit.
SHAPE_COLUMNS: Mapping[str, tuple[str, str]] = {
    "area": ("CSA", "mm2"),
    "angle_AP": ("angle_AP", "deg"),
    "angle_RL": ("angle_RL", "deg"),
    "diameter_AP": ("diameter_AP", "mm"),
    "diameter_AP_ellipse": ("diameter_AP_ellipse", "mm"),
    "diameter_RL": ("diameter_RL", "mm"),
    "length_anterior": ("length_anterior", "mm"),
    "length_posterior": ("length_posterior", "mm"),
    "eccentricity": ("eccentricity", "1"),
    "orientation": ("orientation", "deg"),
    "solidity": ("solidity", "1"),
}
#: Names of combined regions as the other engine and the tables have them.
_REGIONS: Mapping[str, str] = {
    "spinal cord": "cord",
    "white matter": "WM",
    "gray matter": "GM",
    "dorsal columns": "DC",
    "lateral funiculi": "LF",
    "ventral funiculi": "VF",
}
_FACTORS: Mapping[tuple[str, str], float] = {
    ("mm2/s", "um2/s"): 1e6,
    ("s", "ms"): 1e3,
    ("m", "mm"): 1e3,
}


def unit_factor(unit: str, quantity: str) -> tuple[float, str]:
    """Return what turns ``unit`` into the registered unit of a quantity, and that unit.

    A quantity that is not registered keeps its unit.

    Raises
    ------
    ConfigError
        If there is no way from one unit to the other.
    """
    known = find_quantity(quantity)
    if known is None or known.unit == unit:
        return 1.0, unit
    if (unit, known.unit) not in _FACTORS:
        raise ConfigError(
            "the unit does not fit the quantity", where=quantity, found=unit, expected=known.unit
        )
    return _FACTORS[unit, known.unit], known.unit


def shape_rows(
    table: SctTable, *, version: str, method: str, levels: Sequence[int] = ()
) -> tuple[EngineRow, ...]:
    """Return the rows of a table of shape; ``levels`` are those that were asked for, one by one."""
    rows = [
        _shape_row(row, name, version=version, method=method) for row in table.rows for name in _shapes(table)
    ]
    rows += [
        _length_row(row, version=version, method=method) for row in table.rows if "SUM(length)" in row.values
    ]
    template = EngineRow(
        quantity="CSA",
        value=math.nan,
        unit="mm2",
        region="cord",
        method=method,
        engine="sct",
        version=version,
    )
    return (*rows, *_missing_levels(levels, table.rows, [template]))


def _shapes(table: SctTable) -> list[str]:
    return [name for name in SHAPE_COLUMNS if f"MEAN({name})" in table.columns]


def _shape_row(row: SctRow, name: str, *, version: str, method: str) -> EngineRow:
    quantity, unit = SHAPE_COLUMNS[name]
    cell = row.values[f"MEAN({name})"]
    spread = row.values.get(f"STD({name})")
    return EngineRow(
        quantity=quantity,
        value=cell.value,
        unit=unit,
        region="cord",
        standard_deviation=spread.value if spread is not None and len(row.slices) > 1 else math.nan,
        slices=row.slices,
        level=_level(row.levels),
        method=method,
        engine="sct",
        version=version,
        engine_build=row.build,
        reason=cell.reason,
    )


def _length_row(row: SctRow, *, version: str, method: str) -> EngineRow:
    cell = row.values["SUM(length)"]
    return EngineRow(
        quantity="length",
        value=cell.value,
        unit="mm",
        region="cord",
        slices=row.slices,
        level=_level(row.levels),
        method=method,
        engine="sct",
        version=version,
        engine_build=row.build,
        reason=cell.reason,
    )


def extraction_rows(
    table: SctTable,
    *,
    version: str,
    quantity: str,
    unit: str,
    covered: frozenset[int] | None = None,
    levels: Sequence[int] = (),
    labels: Sequence[str] = (),
) -> tuple[EngineRow, ...]:
    """Return the rows of an extraction, in the registered unit of the quantity.

    Parameters
    ----------
    table : SctTable
    version : str
    quantity, unit : str
        What the image holds, and in which unit.
    covered : frozenset of int, optional
        Slices that the warped template reaches; a value over others rests on a part of them.
    levels : sequence of int
        Levels that were asked for one by one.
    labels : sequence of str
        Regions that were asked for; a table without rows does not name them.
    """
    factor, target = unit_factor(unit, quantity)
    method = f"sct {table.method}" if table.method else "sct"
    rows = [_extraction_row(row, table, factor, covered) for row in table.rows]
    rows = [
        replace(row, quantity=quantity, unit=target, method=method, engine="sct", version=version)
        for row in rows
    ]
    regions = list(dict.fromkeys(row.region for row in rows)) or [region_name(name) for name in labels]
    blank = EngineRow(
        quantity=quantity, value=math.nan, unit=target, method=method, engine="sct", version=version
    )
    return (*rows, *_missing_levels(levels, table.rows, [replace(blank, region=name) for name in regions]))


def _extraction_row(row: SctRow, table: SctTable, factor: float, covered: frozenset[int] | None) -> EngineRow:
    cell = row.values[table.value_column]
    spread = row.values.get("STD()")
    coverage = math.nan
    if covered is not None and row.slices:
        coverage = len(covered.intersection(row.slices)) / len(set(row.slices))
    reason = cell.reason
    if not reason and 0 < coverage < 1:
        reason = f"the template reaches {coverage:.0%} of the slices"
    return EngineRow(
        quantity="",
        value=factor * cell.value,
        unit="",
        region=region_name(row.label),
        standard_deviation=factor * spread.value if spread is not None else math.nan,
        slices=row.slices,
        level=_level(row.levels),
        n_voxels=row.size.value,
        coverage=coverage,
        engine_build=row.build,
        reason=reason,
    )


def _missing_levels(
    levels: Sequence[int], rows: Iterable[SctRow], blanks: Sequence[EngineRow]
) -> list[EngineRow]:
    """Return a row without value for each level that was asked for and that no row holds."""
    present = {level for row in rows for level in row.levels}
    reason = "this level is not in the image"
    return [
        replace(blank, level=level_name(level), coverage=0.0, reason=reason)
        for level in levels
        if level not in present
        for blank in blanks
    ]


def region_name(label: str) -> str:
    """Return the short name of a combined region (``WM``); the label itself for any other."""
    return _REGIONS.get(label.casefold(), label)


def level_name(number: int) -> str:
    """Return the name of a vertebral level (3 is C3); the number where it has none."""
    return LEVEL_NAMES[number - 1] if 1 <= number <= len(LEVEL_NAMES) else str(number)


def _level(levels: tuple[int, ...]) -> str:
    if not levels:
        return ""
    first, last = levels[0], levels[-1]
    if len(levels) > 1 and levels == tuple(range(first, last + 1)):
        return f"{level_name(first)}-{level_name(last)}"
    return ", ".join(level_name(level) for level in levels)
