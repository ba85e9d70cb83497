"""From a table of slices to rows: per slice, per level or distance, and per position along the spine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import slice_label
from cordqa.cord.centreline import Centreline
from cordqa.errors import InputError
from cordqa.quantities import get_quantity
from cordqa.records import Entities, Measurement

__all__ = ["PERPENDICULAR", "SliceTable", "resample_slices", "slice_measurements", "summarise_slices"]

Array = NDArray[np.float64]
#: Method of measurements across the cord itself, not within the slice as it was cut.
PERPENDICULAR = "perpendicular to the centreline"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTable:
    """Values per slice, from the lowest slice of the mask to the highest.

    Attributes
    ----------
    slices : ndarray of int, shape (n,)
        Slice numbers, counted from inferior.
    array_index : ndarray of int, shape (n,)
        The same slices in the array as stored.
    z_mm : ndarray, shape (n,)
        Distance along the centreline from the middle of the lowest slice.
    values : mapping
        Quantity to an array of shape (n,); NaN where it cannot be known.
    reasons : tuple of str
        Why a slice has no value; empty where it has.
    n_voxels : ndarray, shape (n,)
        Voxels of the slice that hold any cord.
    centreline : Centreline
    region, method : str
        What was measured, and how.
    notes : tuple of str
        What holds for all slices.
    """

    slices: NDArray[np.intp]
    array_index: NDArray[np.intp]
    z_mm: Array
    values: Mapping[str, Array]
    reasons: tuple[str, ...]
    n_voxels: NDArray[np.intp]
    centreline: Centreline
    region: str = "cord"
    method: str = ""
    notes: tuple[str, ...] = field(default=())


def slice_measurements(
    table: SliceTable,
    *,
    levels: Sequence[str] | None = None,
    entities: Entities | None = None,
    engine: str = "",
) -> tuple[Measurement, ...]:
    """Turn a table of slices into rows, one per slice and quantity.

    Parameters
    ----------
    levels : sequence of str, optional
        Vertebral level of every slice, for example "C3"; written before the slice.
    """
    rows = []
    for name, values in table.values.items():
        for i, value in enumerate(values):
            number = int(table.slices[i])
            rows.append(
                Measurement(
                    quantity=name,
                    value=float(value),
                    unit=get_quantity(name).unit,
                    region=table.region,
                    level=slice_label(number, levels[i] if levels else ""),
                    slice_number=number,
                    array_index=int(table.array_index[i]),
                    n_voxels=int(table.n_voxels[i]),
                    coverage=float(math.isfinite(value)),
                    method=table.method,
                    engine=engine,
                    entities=entities or Entities(),
                    flags=_flags(value, table.reasons[i], table.notes),
                )
            )
    return tuple(rows)


def _flags(value: float, reason: str, notes: tuple[str, ...]) -> tuple[str, ...]:
    return notes if math.isfinite(value) else ((reason or "cannot be measured"), *notes)


def resample_slices(table: SliceTable, coordinate: Array, wanted: Array) -> dict[str, Array]:
    """Bring a table to given places along the spine, to compare people position by position.

    Parameters
    ----------
    table : SliceTable
    coordinate : ndarray, shape (n_slices,)
        Level coordinate of every slice of the image, as in
        :attr:`cordqa.cord.levels.LevelMap.coordinate`.
    wanted : ndarray, shape (m,)
        Level coordinates asked for: those of the slices of a template, or any regular steps.

    Returns
    -------
    dict
        Quantity to an array of shape (m,): linear between slices with a value, NaN beyond them.
        Length, which is a sum over slices, is left out.
    """
    wanted = np.asarray(wanted, dtype=float)
    place = np.asarray(coordinate, dtype=float)[table.slices]
    out: dict[str, Array] = {}
    for name, values in table.values.items():
        known = np.isfinite(values) & np.isfinite(place)
        order = np.argsort(place[known])
        if name != "length":
            out[name] = (
                np.interp(wanted, place[known][order], values[known][order], left=math.nan, right=math.nan)
                if known.any()
                else np.full(wanted.shape, math.nan)
            )
    return out


def summarise_slices(
    table: SliceTable,
    groups: Mapping[str, NDArray[np.bool_]],
    *,
    entities: Entities | None = None,
    engine: str = "",
    notes: Mapping[str, str] | None = None,
) -> tuple[Measurement, ...]:
    """Average a table over groups of slices: levels, distances, or all.

    Parameters
    ----------
    groups : mapping
        Name of the group ("C3", "all") to a mask over the slices of the table.
    notes : mapping, optional
        A flag per group, for example that a level is covered in part.

    Returns
    -------
    tuple of Measurement
        The mean over slices with a value; ``standard_uncertainty`` is the standard deviation between
        slices (ddof 1) over the square root of their number, which treats slices as independent;
        ``coverage`` is the share of the group's slices that have a value.  Length is a sum.
    """
    for group, chosen in groups.items():
        if np.shape(chosen) != table.slices.shape:
            raise InputError("a group must choose among the slices of the table", where=group)
    return tuple(
        row
        for group, chosen in groups.items()
        for row in _group_rows(
            table, group, chosen, entities or Entities(), engine, (notes or {}).get(group, "")
        )
    )


def _group_rows(
    table: SliceTable, group: str, chosen: NDArray[np.bool_], entities: Entities, engine: str, note: str
) -> Iterator[Measurement]:
    for name, values in table.values.items():
        inside = values[chosen]
        known = inside[np.isfinite(inside)]
        total = name == "length"
        spread = (
            float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 and not total else math.nan
        )
        flags = [*table.notes]
        if note:
            flags.append(note)
        if known.size == 0:
            flags.insert(0, "not covered: no slice of this group holds a value")
            value = math.nan
        else:
            value = float(known.sum() if total else known.mean())
        if 0 < known.size < inside.size:
            flags.append(f"{inside.size - known.size} of {inside.size} slices hold no value")
        yield Measurement(
            quantity=name,
            value=value,
            unit=get_quantity(name).unit,
            region=table.region,
            level=group,
            standard_uncertainty=spread,
            uncertainty_method="" if math.isnan(spread) else "between slices, over the root of their number",
            n_voxels=int(table.n_voxels[chosen].sum()),
            coverage=known.size / inside.size if inside.size else 0.0,
            method=table.method,
            engine=engine,
            entities=entities,
            flags=tuple(flags),
        )
