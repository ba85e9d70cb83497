"""Drift of scanners: control charts per scanner and quantity, restarted at software upgrades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError, TableError
from cordqa.stats.control_core import (
    CUSUM_LIMIT,
    RECOMMENDED_BASELINE,
    RULES,
    ControlChart,
    Limits,
    Rule,
    chart_values,
    cusum_statistic,
    ewma_statistic,
    moving_range_sigma,
    westgard_rules,
)
from cordqa.stats.quantiles import t_quantile
from cordqa.stats.table import (
    as_frame,
    as_names,
    check_columns,
    check_level,
    clean_table,
    group_table,
    join_flags,
    stack_tables,
    tidy,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RULES",
    "ControlChart",
    "chart_values",
    "control_points",
    "control_summary",
    "cusum_statistic",
    "ewma_statistic",
    "moving_range_sigma",
    "westgard_rules",
]

_SPREAD = {True: "moving range / 1.128", False: "standard deviation (short baseline)"}


def control_points(
    data: Any,
    value: str,
    *,
    time: str,
    by: str | Sequence[str] = ("scanner", "quantity"),
    restart: str | Sequence[str] = (),
    baseline: int = RECOMMENDED_BASELINE,
    rules: Sequence[Rule] = ("shewhart", "ewma", "cusum"),
    limits: Limits = "prediction",
    nan_policy: str = "raise",
) -> pd.DataFrame:
    """Chart every sequence of measurements against its own baseline.

    Parameters
    ----------
    data : DataFrame, mapping or sequence of rows
        Tidy table, one measurement per row.
    value : str
        Column of values in one unit per chart.
    time : str
        Column that orders them: dates, ISO 8601 text or numbers.
    by : str or sequence of str
        Columns that name a chart; different scanners or spheres never share a baseline.
    restart : str or sequence of str
        Columns whose change starts a new baseline, such as software.
    baseline, rules, limits
        As in :func:`cordqa.stats.control_core.chart_values`.
    nan_policy : {'raise', 'omit'}

    Returns
    -------
    DataFrame
        One row per measurement: ``by`` columns, ``segment`` (1 from the start, one more after
        each restart), ``time``, ``value``, ``role`` (``baseline``, ``learning``, ``monitored``,
        ``not evaluated`` or ``missing``), ``centre``, ``sigma``, ``low``, ``high`` (Shewhart limits),
        ``ewma``, ``ewma_low``, ``ewma_high`` (all in the unit of the values), ``cusum_high``,
        ``cusum_low``, ``cusum_limit`` (in spreads), ``signal`` (rules that fired) and ``note``.

    Raises
    ------
    TableError
        If a time cannot be understood.
    """
    import pandas as pd

    frame = _read(data, value, time, by, restart, nan_policy)
    tables = []
    for group, part in group_table(frame, by):
        ordered = part.sort_values("_time", kind="stable")
        segment = _segments(ordered, as_names(restart))
        for number in range(1, int(segment.max(initial=0)) + 1):
            piece = ordered.loc[segment == number]
            numbers = piece[value].to_numpy(dtype=float)
            here = np.isfinite(numbers)
            chart = chart_values(numbers[here], baseline=baseline, rules=rules, limits=limits)
            table = _point_rows(piece, value, time, chart, here)
            keys: dict[str, Any] = {**group, "segment": number}
            for position, (name, key) in enumerate(keys.items()):
                table.insert(position, name, key)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _read(
    data: Any,
    value: str,
    time: str,
    by: str | Sequence[str],
    restart: str | Sequence[str],
    nan_policy: str,
) -> pd.DataFrame:
    """Check the table and add a sortable column of times."""
    import pandas as pd

    raw = as_frame(data)
    keys = [time, *as_names(restart)]
    check_columns(raw, [value, *keys, *as_names(by)])
    if time in as_names(by) or time == value:
        raise ConfigError("the column of times has another role as well", found=time)
    frame, _ = clean_table(raw, numbers=[value], keys=keys, by=by, nan_policy=nan_policy)
    if pd.api.types.is_numeric_dtype(frame[time]):
        moments = frame[time]
    else:
        moments = pd.to_datetime(frame[time], errors="coerce", utc=True, format="mixed")
    unreadable = frame.loc[moments.isna(), time]
    if len(unreadable):
        raise TableError(
            "a time cannot be understood",
            where=time,
            found=repr(unreadable.iloc[0]),
            expected="an ISO 8601 date such as 2024-05-31, or a number",
        )
    return frame.assign(_time=moments)


def _segments(ordered: pd.DataFrame, restart: list[str]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Number the stretches between changes of the restart columns, from 1."""
    changed = np.zeros(len(ordered), dtype=bool)
    for name in restart:
        labels = ordered[name].astype(str).to_numpy()
        changed[1:] |= labels[1:] != labels[:-1]
    return np.cumsum(changed).astype(np.intp) + (1 if len(ordered) else 0)


def _point_rows(
    piece: pd.DataFrame,
    value: str,
    time: str,
    chart: ControlChart,
    here: NDArray[np.bool_],
) -> pd.DataFrame:
    """Rows of one chart; a value that is missing keeps its row, so that the gap is seen."""
    import pandas as pd

    fired = [
        ", ".join(rule for rule, where in chart.signals.items() if where[i]) for i in range(chart.z.size)
    ]
    judged: dict[str, Any] = {
        "role": chart.role.astype(object),
        "centre": chart.centre,
        "sigma": chart.sigma,
        "low": chart.centre - chart.reach,
        "high": chart.centre + chart.reach,
        "ewma": chart.centre + chart.sigma * chart.ewma,
        "ewma_low": chart.centre - chart.sigma * chart.ewma_limit,
        "ewma_high": chart.centre + chart.sigma * chart.ewma_limit,
        "cusum_high": chart.cusum_high,
        "cusum_low": chart.cusum_low,
        "cusum_limit": np.full(chart.z.size, np.nan if chart.reason else CUSUM_LIMIT),
        "signal": fired,
        "note": [_point_note(chart, index) for index in range(chart.z.size)],
    }
    empty = {"role": "missing", "signal": "", "note": "no usable value"}
    columns: dict[str, Any] = {"time": piece[time].to_numpy(), "value": piece[value].to_numpy(dtype=float)}
    for name, cells in judged.items():
        filler = empty.get(name, np.nan)
        column = np.full(len(piece), filler, dtype=object if name in empty else float)
        column[here] = cells
        columns[name] = column
    return pd.DataFrame(columns)


def _point_note(chart: ControlChart, index: int) -> str:
    if chart.reason:
        return f"not evaluated: {chart.reason}"
    if chart.excluded[index]:
        return "beyond its limits, so not taken into the baseline"
    if chart.unstable and chart.role[index] != "monitored":
        return "the baseline has values beyond its own limits"
    return ""


def control_summary(
    points: pd.DataFrame, *, by: str | Sequence[str] = ("scanner", "quantity"), level: float = 0.95
) -> pd.DataFrame:
    """Sum up each chart: its baseline, where it stands now, and what fired.

    Parameters
    ----------
    points : DataFrame
        From :func:`control_points`.
    by : str or sequence of str
        The same columns as there.
    level : float
        Confidence level of the interval of the baseline mean.

    Returns
    -------
    DataFrame
        Rows ``baseline mean``, ``baseline SD``, ``EWMA now`` and ``signals`` (how many values a
        rule fired at) per chart and segment.  Flags: ``short-baseline``,
        ``baseline-unstable`` (a baseline value beyond its own limits), ``drift`` (EWMA or CUSUM
        beyond its limit at the last value), ``not-evaluated``.
    """
    check_level(level)
    columns = [*as_names(by), "segment"]
    check_columns(points, [*columns, "value", "role", "centre", "sigma", "ewma", "signal"])
    return stack_tables(_summary_rows(group, part, level) for group, part in group_table(points, columns))


def _summary_rows(group: dict[str, Any], part: pd.DataFrame, level: float) -> pd.DataFrame:
    judged = part.loc[part["role"].isin(["learning", "monitored"])]
    outside = part["note"].str.startswith("beyond its limits")
    base = part.loc[part["role"].isin(["baseline", "learning"]) & ~outside]
    complete = len(base) >= RECOMMENDED_BASELINE
    centre, sigma, half = np.nan, np.nan, np.nan
    if len(base):
        numbers = base["value"].to_numpy(dtype=float)
        centre = float(numbers.mean())
        sigma = moving_range_sigma(numbers) if complete else float(numbers.std(ddof=1))
        half = float(t_quantile(0.5 + 0.5 * level, len(base) - 1)) * numbers.std(ddof=1) / np.sqrt(len(base))
    fired = judged["signal"].ne("")
    last = str(judged["signal"].iloc[-1]) if len(judged) else ""
    flags = join_flags(
        "not-evaluated" if not len(base) else "",
        "short-baseline" if len(base) and not complete else "",
        "baseline-unstable" if part["note"].str.startswith("the baseline has").any() else "",
        "drift" if "ewma" in last or "cusum" in last else "",
        "out-of-limits" if "shewhart" in last or "westgard" in last else "",
    )
    first = f"first at {judged.loc[fired, 'time'].iloc[0]}" if fired.any() else ""
    short = "limits allow for the short baseline (t prediction)" if len(base) and not complete else ""
    note = str(part["note"].iloc[0]) if not len(base) else short
    ewma = [np.nan] * 3
    if len(judged):
        ewma = [float(judged[name].iloc[-1]) for name in ("ewma", "ewma_low", "ewma_high")]
    return tidy(
        group,
        statistic=["baseline mean", "baseline SD", "EWMA now", "signals"],
        value=[centre, sigma, ewma[0], float(fired.sum()) if len(base) else np.nan],
        low=[centre - half, np.nan, ewma[1], np.nan],
        high=[centre + half, np.nan, ewma[2], np.nan],
        level=level,
        estimator=["mean", _SPREAD[complete], "EWMA, weight 0.2", "values at which a rule fired"],
        interval_method=["t", "", "control limits, 2.86 spreads of the EWMA", ""],
        n={"baseline": len(base), "judged": len(judged)},
        flags=flags,
        note=[note, note, note, first or note],
    )
