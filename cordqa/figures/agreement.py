"""Figures of comparison: agreement of two methods, drift over time, diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cordqa.errors import InputError
from cordqa.figures._make import aligned, filled, make_figure, number, numbers, texts
from cordqa.figures.parts import Agreement, ControlPanel, RocCurve
from cordqa.records import Figure

__all__ = ["bland_altman", "control_chart", "roc"]


def bland_altman(
    name: str,
    title: str,
    *,
    panels: Sequence[Agreement],
    x_label: str = "Mean of the two",
    y_label: str = "Difference",
    unit: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show differences against means with bias and limits of agreement, each with its interval.

    Notes
    -----
    ``data``: ``x_label``, ``y_label``, ``unit``, and ``panels``, a list of ``label``, ``means``,
    ``differences``, optionally ``names`` and ``series`` (per point), and ``bias``, ``lower``,
    ``upper`` (each ``[value, low, high]``).
    """
    data = {
        "x_label": x_label,
        "y_label": y_label,
        "unit": unit,
        "panels": [_agreement(name, panel) for panel in panels],
    }
    count = sum(len(panel.means) for panel in panels)
    return make_figure(
        name,
        "bland_altman",
        title,
        data,
        caption=caption
        or "The shaded bands are the intervals of the bias and of the limits of agreement. "
        "A trend or a fan means that the difference depends on the value.",
        alt=alt or f"{title}: {count} differences against means",
    )


def _agreement(where: str, panel: Agreement) -> dict[str, Any]:
    columns = aligned(
        f"{where}, {panel.label}",
        {"means": numbers(panel.means), "differences": numbers(panel.differences)},
        names=texts(panel.names),
        series=texts(panel.series),
    )
    lines = {key: numbers(getattr(panel, key)) for key in ("bias", "lower", "upper")}
    return {"label": panel.label, **columns, **lines}


def control_chart(
    name: str,
    title: str,
    *,
    panels: Sequence[ControlPanel],
    value_label: str = "",
    unit: str = "",
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Follow a value over time, with control limits, EWMA and events.

    Raises
    ------
    InputError
        If a date is not ISO 8601.

    Notes
    -----
    ``data``: ``value_label``, ``unit``, and ``panels``, a list of ``label``, ``when`` (ISO),
    ``days`` (since the first), ``values``, optionally ``names``, ``signals``, ``ewma``,
    ``ewma_low``, ``ewma_high``; ``centre``, ``low``, ``high``, ``warn_low``, ``warn_high``,
    ``baseline`` and ``events`` (list of ``days``, ``label``).
    """
    data = {
        "value_label": value_label,
        "unit": unit,
        "panels": [_control(name, panel) for panel in panels],
    }
    broken = sum(bool(signal) for panel in panels for signal in panel.signals)
    return make_figure(
        name,
        "control_chart",
        title,
        data,
        caption=caption
        or "Points outside the solid limits, or an EWMA outside its own, call for a look at the scanner. "
        "Vertical lines are events such as software upgrades.",
        alt=alt or f"{title}: {len(panels)} charts over time, {broken} signals",
    )


def _days(where: str, dates: Sequence[str]) -> list[float]:
    try:
        # Clock times as written: a change to summer time is not a step in a chart of weeks.
        times = [datetime.fromisoformat(date).replace(tzinfo=None) for date in dates]
    except ValueError as error:
        raise InputError("a date of a control chart cannot be read", where=where, found=str(error)) from error
    return [(time - datetime(1970, 1, 1)) / timedelta(days=1) for time in times]


def _control(where: str, panel: ControlPanel) -> dict[str, Any]:
    place = f"{where}, {panel.label}"
    days, event_days = _days(place, panel.when), _days(place, list(panel.events))
    start = min([*days, *event_days], default=0.0)
    columns = aligned(
        place,
        {
            "when": texts(panel.when),
            "days": [round(day - start, 4) for day in days],
            "values": numbers(panel.values),
        },
        names=texts(panel.names),
        signals=texts(panel.signals),
        ewma=numbers(panel.ewma),
        ewma_low=numbers(panel.ewma_low),
        ewma_high=numbers(panel.ewma_high),
    )
    lines = {key: number(getattr(panel, key)) for key in ("centre", "low", "high", "warn_low", "warn_high")}
    events = [
        {"days": round(day - start, 4), "label": label}
        for day, label in zip(event_days, panel.events.values(), strict=True)
    ]
    more = {**lines, "baseline": panel.baseline or None, "events": events}
    return {"label": panel.label, **columns, **filled(more)}


def roc(
    name: str,
    title: str,
    *,
    curves: Sequence[RocCurve],
    caption: str = "",
    alt: str = "",
) -> Figure:
    """Show receiver operating characteristics with the area under each and its interval.

    Notes
    -----
    ``data``: ``curves``, a list of ``label``, ``x`` (false-positive rate), ``y`` (true-positive
    rate), and optionally ``auc``, ``low``, ``high``, ``operating`` (``[x, y]``).
    """
    data = {"curves": [_roc_curve(name, curve) for curve in curves]}
    return make_figure(
        name,
        "roc",
        title,
        data,
        caption=caption or "A curve along the diagonal does not tell the groups apart.",
        alt=alt or f"{title}: {len(curves)} receiver operating characteristics",
    )


def _roc_curve(where: str, curve: RocCurve) -> dict[str, Any]:
    columns = aligned(
        f"{where}, {curve.label}",
        {"x": numbers(curve.false_positive), "y": numbers(curve.true_positive)},
    )
    area = {"auc": number(curve.auc), "low": number(curve.low), "high": number(curve.high)}
    operating = numbers(curve.operating)
    point = {} if None in operating else {"operating": operating}
    return {"label": curve.label, **columns, **filled(area), **point}
