"""Values along an ordered axis of places, one line per person: a metric by level and vendor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cordqa.errors import InputError
from cordqa.figures._make import make_figure, numbers
from cordqa.figures.parts import Numbers
from cordqa.records import Figure

__all__ = ["Profile", "ProfileGroup", "profiles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The values of one person and session, one per column; NaN where there is none."""

    name: str
    values: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileGroup:
    """The people of one group, with mean and number per column as the caller computed them."""

    label: str
    profiles: Sequence[Profile]
    mean: Numbers
    count: Sequence[int]


def profiles(
    name: str,
    title: str,
    *,
    columns: Sequence[str],
    groups: Sequence[ProfileGroup],
    value_label: str = "",
    unit: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show one panel per group on a common scale, one line per person.

    Parameters
    ----------
    columns : sequence of str
        Places in order: vertebral levels from above.
    groups : sequence of ProfileGroup
        One panel each, for example the vendors.

    Raises
    ------
    InputError
        If a profile does not have one value per column.

    Notes
    -----
    ``data``: ``columns``, ``value_label``, ``unit``, and ``groups``, a list of ``label``, ``mean``,
    ``count`` and ``profiles`` (each ``name``, ``values``).
    """
    data = {
        "columns": [str(column) for column in columns],
        "value_label": value_label,
        "unit": unit,
        "groups": [_group(name, group, len(columns)) for group in groups],
    }
    people = sum(len(group.profiles) for group in groups)
    return make_figure(
        name,
        "profiles",
        title,
        data,
        caption=caption
        or "Each thin line is one person in one session, the thick one is the mean; below each level stands "
        "the number of values. All panels have the same scale. A click on a point shows where else it is.",
        alt=alt or f"{title}: {people} profiles over {len(columns)} levels in {len(groups)} groups",
    )


def _group(where: str, group: ProfileGroup, count: int) -> dict[str, Any]:
    rows = [*(np.size(one.values) for one in group.profiles), np.size(group.mean), len(group.count)]
    if any(size != count for size in rows):
        raise InputError(
            "a profile does not have one value per column",
            where=f"{where}, {group.label}",
            found=", ".join(str(size) for size in dict.fromkeys(rows)),
            expected=str(count),
        )
    return {
        "label": group.label,
        "mean": numbers(group.mean),
        "count": [int(n) for n in group.count],
        "profiles": [{"name": one.name, "values": numbers(one.values)} for one in group.profiles],
    }
