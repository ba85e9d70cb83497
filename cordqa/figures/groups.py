"""Figures of groups: distributions, estimates with intervals, shares of variance, grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cordqa.errors import InputError
from cordqa.figures._make import aligned, filled, make_figure, number, numbers, texts
from cordqa.figures.parts import Estimate, Group
from cordqa.records import Figure

__all__ = ["bars", "components", "design", "forest", "heatmap", "strip"]


def strip(
    name: str,
    title: str,
    *,
    panels: Mapping[str, Sequence[Group]],
    value_label: str = "",
    unit: str = "",
    share_scale: bool = True,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show every value as a dot, per group, with the group's mean and SD.

    Parameters
    ----------
    panels : mapping of str to sequence of Group
        One panel per key, for example per vertebral level.
    share_scale : bool
        Whether all panels have the same axis.

    Notes
    -----
    ``data``: ``value_label``, ``unit``, ``share_scale``, and ``panels``, a list of ``label`` and
    ``groups`` (each ``label``, ``values`` and optionally ``names``, ``mean``, ``sd``, ``series``).
    """
    data = {
        "value_label": value_label,
        "unit": unit,
        "share_scale": share_scale,
        "panels": [
            {"label": label, "groups": [_group(name, group) for group in groups]}
            for label, groups in panels.items()
        ],
    }
    count = sum(len(group.values) for groups in panels.values() for group in groups)
    return make_figure(
        name,
        "strip",
        title,
        data,
        caption=caption
        or "Each dot is one measurement; the thick line is the mean, the thin one spans one SD.",
        alt=alt or f"{title}: {count} values by group",
    )


def _group(where: str, group: Group) -> dict[str, Any]:
    columns = aligned(f"{where}, {group.label}", {"values": numbers(group.values)}, names=texts(group.names))
    more = {"mean": number(group.mean), "sd": number(group.sd), "series": group.series}
    return {"label": group.label, **columns, **filled(more)}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    more = {"low": number(estimate.low), "high": number(estimate.high)}
    words = {"series": estimate.series, "note": estimate.note}
    return {"label": estimate.label, "value": number(estimate.value), **filled({**more, **words})}


def bars(
    name: str,
    title: str,
    *,
    panels: Mapping[str, Sequence[Estimate]],
    value_label: str = "",
    unit: str = "",
    limit: float | None = None,
    limit_label: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show estimates that start from zero (a CV), with intervals.

    Parameters
    ----------
    panels : mapping of str to sequence of Estimate
        One panel per key; consecutive estimates of one ``label`` are drawn together, told apart
        by ``series``.
    limit : float, optional
        A reference line, in ``unit``.

    Notes
    -----
    ``data``: ``value_label``, ``unit``, ``limit``, ``limit_label``, and ``panels``, a list of
    ``label`` and ``estimates`` (each ``label``, ``value`` and optionally ``low``, ``high``,
    ``series``, ``note``).
    """
    data = {
        "value_label": value_label,
        "unit": unit,
        "limit": None if limit is None else number(limit),
        "limit_label": limit_label,
        "panels": [
            {"label": label, "estimates": [_estimate(one) for one in estimates]}
            for label, estimates in panels.items()
        ],
    }
    return make_figure(
        name,
        "bars",
        title,
        data,
        caption=caption or "Shorter is better. The line on each bar is the interval of the estimate.",
        alt=alt or f"{title}: estimates with intervals",
    )


def forest(
    name: str,
    title: str,
    *,
    panels: Mapping[str, Sequence[Estimate]],
    value_label: str = "",
    unit: str = "",
    axis: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show estimates with intervals on an axis that need not start at zero (an ICC).

    Parameters
    ----------
    axis : (low, high), optional
        Ends of the axis, for example (0, 1).
    marks : mapping of str to float, optional
        Named vertical lines, for example ``{"good": 0.75}``.

    Notes
    -----
    ``data``: as for :func:`bars`, with ``axis`` and ``marks`` (list of ``label``, ``value``)
    instead of the limit.
    """
    data = {
        "value_label": value_label,
        "unit": unit,
        "axis": None if axis is None else [number(axis[0]), number(axis[1])],
        "marks": [{"label": label, "value": number(at)} for label, at in (marks or {}).items()],
        "panels": [
            {"label": label, "estimates": [_estimate(one) for one in estimates]}
            for label, estimates in panels.items()
        ],
    }
    return make_figure(
        name,
        "forest",
        title,
        data,
        caption=caption
        or "The point is the estimate, the line its interval; a wide line is a weak statement.",
        alt=alt or f"{title}: estimates with intervals",
    )


def components(
    name: str,
    title: str,
    *,
    rows: Mapping[str, Mapping[str, float]],
    notes: Mapping[str, str] | None = None,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show how the total variance divides: one stacked bar per row, drawn as shares of 100 %.

    Parameters
    ----------
    rows : mapping of str to mapping of str to float
        Row label to component label to variance.  Negative estimates are drawn as zero and named.
    notes : mapping of str to str, optional
        A remark per row, for example "singular fit".

    Notes
    -----
    ``data``: ``parts`` (labels in order of first appearance) and ``rows``, a list of ``label``,
    ``values`` (one per part, null where the row lacks it), ``note``.
    """
    parts = list(dict.fromkeys(part for values in rows.values() for part in values))
    data = {
        "parts": parts,
        "rows": [
            {
                "label": label,
                "values": [number(values[part]) if part in values else None for part in parts],
                "note": (notes or {}).get(label, ""),
            }
            for label, values in rows.items()
        ],
    }
    return make_figure(
        name,
        "components",
        title,
        data,
        caption=caption or "The larger the share of the subjects, the less of what is seen is measurement.",
        alt=alt or f"{title}: shares of {len(parts)} variance components in {len(rows)} rows",
    )


def heatmap(
    name: str,
    title: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: ArrayLike,
    unit: str = "",
    value_label: str = "",
    axis: tuple[float, float] | None = None,
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show a table of numbers as shades, with the number in each cell.

    Parameters
    ----------
    values : array_like, shape (len(rows), len(columns))
        NaN is drawn as an empty hatched cell.
    axis : (low, high), optional
        Values of the lightest and the darkest shade.

    Notes
    -----
    ``data``: ``rows``, ``columns``, ``values`` (list of rows), ``unit``, ``value_label``, ``axis``,
    ``scale`` = ``"shade"``.
    """
    data = {
        **_grid(name, rows, columns, values),
        "unit": unit,
        "value_label": value_label,
        "axis": None if axis is None else [number(axis[0]), number(axis[1])],
        "scale": "shade",
    }
    return make_figure(
        name,
        "heatmap",
        title,
        data,
        caption=caption or "Darker is larger; hatched cells could not be computed.",
        alt=alt or f"{title}: {len(rows)} rows by {len(columns)} columns",
    )


def design(
    name: str,
    title: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    counts: ArrayLike,
    row_noun: str = "subject",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show who was measured where: the number of scans per subject and scanner.

    Parameters
    ----------
    counts : array_like of int, shape (len(rows), len(columns))
        Scans in the cell; 0 means missing, a negative number that so many were excluded.
    row_noun : str
        What a row is.

    Notes
    -----
    Drawn as ``heatmap`` with ``scale`` = ``"presence"``, in the section on data and exclusions.
    """
    data = {**_grid(name, rows, columns, counts), "scale": "presence", "row_noun": row_noun}
    table = np.asarray(counts, dtype=float)
    missing, excluded = int((table == 0).sum()), int((table < 0).sum())
    return make_figure(
        name,
        "heatmap",
        title,
        data,
        caption=caption or "A filled cell was measured, an empty one was not, a cross was excluded.",
        alt=alt
        or f"{title}: {len(rows)} rows by {len(columns)} columns, {missing} missing, {excluded} excluded",
    )


def _grid(where: str, rows: Sequence[str], columns: Sequence[str], values: ArrayLike) -> dict[str, Any]:
    table = np.asarray(values, dtype=float)
    if table.shape != (len(rows), len(columns)):
        raise InputError(
            "the values of a heatmap do not match its rows and columns",
            where=where,
            found=f"shape {table.shape}",
            expected=f"({len(rows)}, {len(columns)})",
        )
    return {
        "rows": [str(row) for row in rows],
        "columns": [str(column) for column in columns],
        "values": [numbers(row) for row in table],
    }
