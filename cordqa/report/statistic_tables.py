"""Tables of statistics, one per quantity, each number with its estimator, interval and n."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from cordqa.records import Statistic
from cordqa.report.tables import Column, Table
from cordqa.report.words import (
    DASH,
    flag_words,
    format_estimate,
    pretty_unit,
    quantity_label,
    with_unit,
)

__all__ = ["statistic_tables", "statistic_text"]

_MANY = 60
_FEW = 12


def statistic_tables(statistics: Sequence[Statistic]) -> list[Table]:
    """Make one table per quantity, in order of first appearance."""
    groups: dict[str, list[Statistic]] = defaultdict(list)
    for statistic in statistics:
        groups[statistic.quantity].append(statistic)
    # Many long tables would bury what follows them; the figures already show their message.
    many = len(groups) > 1 and len(statistics) > _MANY
    return [
        _table(f"statistics-{index}", quantity_label(quantity) or "All quantities", group, folded=many)
        for index, (quantity, group) in enumerate(groups.items(), start=1)
    ]


def _table(identifier: str, caption: str, statistics: Sequence[Statistic], *, folded: bool) -> Table:
    mixed = len(_levels(statistics)) > 1
    columns = [
        Column("Statistic", [one.name for one in statistics]),
        Column("Region", [one.region for one in statistics]),
        Column("Within", [one.group for one in statistics]),
        Column("Value", [_value(one) for one in statistics], "number", [one.value for one in statistics]),
        Column("Unit", [pretty_unit(one.unit) for one in statistics]),
        Column(
            _interval_label(statistics),
            [_interval(one, mixed=mixed) for one in statistics],
            "number",
            [one.low for one in statistics],
        ),
        Column("n", [_counts(one) for one in statistics], "count"),
        Column("Estimator", [_estimator(one) for one in statistics], "note"),
        Column("Notes", [_notes(one) for one in statistics], "note"),
    ]
    columns, remarks = _said_once(columns)
    estimators = _by_name(statistics) if len(statistics) > _FEW else []
    return Table(
        id=identifier,
        caption=caption,
        columns=[
            one for one in columns if not one.is_empty and not (estimators and one.label == "Estimator")
        ],
        names=[one.region for one in statistics],
        remarks=remarks,
        estimators=estimators,
        file_name=f"{identifier}.csv",
        folded=folded,
    )


def _said_once(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """Take out columns of remarks that are the same in every row, and say them once above."""
    kept, said = [], []
    for column in columns:
        same = column.kind in ("note", "count") and len(column.texts) > 2 and len(set(column.texts)) == 1
        if same and column.texts[0]:
            said.append(f"{column.label}: {column.texts[0]}")
        elif not same:
            kept.append(column)
    return kept, [f"All rows: {'; '.join(said)}."] if said else []


def _by_name(statistics: Sequence[Statistic]) -> list[tuple[str, str]]:
    """List each statistic with its estimator where that is always the same one; else nothing."""
    pairs = dict.fromkeys((one.name, _estimator(one)) for one in statistics)
    different = len({estimator for _, estimator in pairs}) > 1
    return list(pairs) if different and len({name for name, _ in pairs}) == len(pairs) else []


def _levels(statistics: Sequence[Statistic]) -> set[float]:
    bounded = (one for one in statistics if math.isfinite(one.low) or math.isfinite(one.high))
    return {one.interval_level for one in bounded if math.isfinite(one.interval_level)}


def _interval_label(statistics: Sequence[Statistic]) -> str:
    levels = _levels(statistics)
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "Interval"


def _interval(statistic: Statistic, *, mixed: bool) -> str:
    text = format_estimate(statistic.value, statistic.low, statistic.high)[1]
    return f"{text} ({100 * statistic.interval_level:g} %)" if text and mixed else text


def _value(statistic: Statistic) -> str:
    """Write to the precision of the interval where there is one; R² of 0.99996 keeps its digits."""
    return format_estimate(statistic.value, statistic.low, statistic.high)[0]


def _counts(statistic: Statistic) -> str:
    return ", ".join(f"{count} {level}" for level, count in statistic.n.items())


def _estimator(statistic: Statistic) -> str:
    return "; ".join(part for part in (statistic.estimator, statistic.interval_method) if part)


def _notes(statistic: Statistic) -> str:
    words = "; ".join(part for part in (flag_words(statistic.flags), statistic.note) if part)
    if not math.isfinite(statistic.value):
        return words or "not known; no reason was recorded"
    return words


def statistic_text(statistic: Statistic) -> str:
    """Write a statistic on one line: ``T1, slope: 1.003 (0.995 to 1.011)``."""
    what = " ".join(part for part in (quantity_label(statistic.quantity), statistic.name) if part)
    where = ", ".join(part for part in (statistic.region, statistic.group) if part)
    head = f"{what} ({where})" if where else what
    if not math.isfinite(statistic.value):
        return f"{head}: {DASH} ({_notes(statistic)})"
    value, interval = format_estimate(statistic.value, statistic.low, statistic.high)
    return f"{head}: {with_unit(value, statistic.unit)}" + (f" ({interval})" if interval else "")
