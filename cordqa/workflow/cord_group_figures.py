"""The figures of a study: every quantity by level and vendor, with the person behind each point."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa import figures
from cordqa.cord.levels import LEVEL_NAMES
from cordqa.figures import Profile, ProfileGroup
from cordqa.quantities import get_quantity
from cordqa.records import Figure, Measurement

__all__ = ["draw_values", "point_name"]

_DRAWN = ("CSA", "MTR", "MTsat", "T1", "GM_area", "FA", "MD", "MK", "muFA")
_NOBODY = "vendor not known"


def draw_values(rows: Sequence[Measurement]) -> list[Figure]:
    """Draw the compared values, one figure per quantity, region and contrast.

    Where values are per level, each person is a line along the levels; otherwise each is a dot.
    """
    by_kind: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        by_kind[row.quantity, row.region, row.entities.acquisition].append(row)
    drawn = []
    for number, (key, some) in enumerate(by_kind.items(), start=1):
        if key[0] in _DRAWN:
            levels = sorted({row.level for row in some}, key=_level_key)
            drawn.append((_profiles if len(levels) > 1 else _strip)(key, some, levels, number))
    return drawn


def point_name(row: Measurement) -> str:
    """Name a point as the pages of participants are named, so that it leads there."""
    who = f"sub-{row.entities.subject}"
    return f"{who}_ses-{row.entities.session}" if row.entities.session else who


def _title(key: tuple[str, str, str]) -> str:
    quantity, region, acquisition = key
    known = get_quantity(quantity)
    where = "" if region == "cord" else f" of {region}"
    return f"{known.label}{where}, {acquisition}"


def _by_vendor(rows: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    groups: dict[str, list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[row.entities.vendor or _NOBODY].append(row)
    return dict(sorted(groups.items()))


def _profiles(
    key: tuple[str, str, str], rows: Sequence[Measurement], levels: Sequence[str], number: int
) -> Figure:
    known = get_quantity(key[0])
    return figures.profiles(
        f"values-{number}",
        _title(key),
        columns=levels,
        groups=[_profile_group(vendor, some, levels) for vendor, some in _by_vendor(rows).items()],
        value_label=known.label,
        unit=known.unit,
    )


def _profile_group(vendor: str, rows: Sequence[Measurement], levels: Sequence[str]) -> ProfileGroup:
    """One line per person, session, scanner and run; what is there twice gets a line of its own."""
    place = {level: n for n, level in enumerate(levels)}
    lines: dict[tuple[str, ...], NDArray[np.float64]] = {}
    names: dict[tuple[str, ...], str] = {}
    for row in rows:
        one = row.entities
        line: tuple[str, ...] = (one.subject, one.session, one.run, one.scanner)
        while line in lines and np.isfinite(lines[line][place[row.level]]):
            line = (*line, "again")
        names[line] = point_name(row)
        lines.setdefault(line, np.full(len(levels), math.nan))[place[row.level]] = row.value
    table = np.array(list(lines.values()))
    known = np.isfinite(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0.0).sum(axis=0)
    return ProfileGroup(
        label=vendor,
        profiles=[Profile(name=names[line], values=values) for line, values in lines.items()],
        mean=np.where(count > 0, total / np.maximum(count, 1), math.nan),
        count=[int(n) for n in count],
    )


def _strip(
    key: tuple[str, str, str], rows: Sequence[Measurement], levels: Sequence[str], number: int
) -> Figure:
    known = get_quantity(key[0])
    panels = {
        level: [
            _group(vendor, some)
            for vendor, some in _by_vendor([row for row in rows if row.level == level]).items()
        ]
        for level in levels
    }
    return figures.strip(
        f"values-{number}", _title(key), panels=panels, value_label=known.label, unit=known.unit
    )


def _group(vendor: str, rows: Sequence[Measurement]) -> figures.Group:
    values = np.array([row.value for row in rows])
    return figures.Group(
        label=f"{vendor}, n {values.size}",
        values=values,
        names=[point_name(row) for row in rows],
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if values.size > 1 else math.nan,
        series=vendor,
    )


def _level_key(level: str) -> tuple[int, str]:
    return (LEVEL_NAMES.index(level), "") if level in LEVEL_NAMES else (len(LEVEL_NAMES), level)
