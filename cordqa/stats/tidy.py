"""Statistics as tidy tables and as records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import EmptyInputError, TableError
from cordqa.records import Entities, Measurement, Statistic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_measurements", "join_flags", "stack_tables", "tidy", "to_statistics"]

#: Columns that every table of statistics has, in this order, after the ``by`` columns.
TIDY_COLUMNS = (
    "statistic",
    "value",
    "low",
    "high",
    "interval_level",
    "unit",
    "estimator",
    "interval_method",
)


def join_flags(*flags: str | Iterable[str]) -> str:
    """Join flags to one cell, each once, in the order given; empty ones are left out."""
    flat: list[str] = []
    for flag in flags:
        parts = flag.split(", ") if isinstance(flag, str) else [p for f in flag for p in f.split(", ")]
        flat.extend(p for p in parts if p)
    return ", ".join(dict.fromkeys(flat))


def _grid(values: Any, shape: tuple[int, int], *, down: bool = False) -> NDArray[Any]:
    """Broadcast to (groups, statistics); a vector runs along the statistics, or ``down``."""
    array = np.asarray(values)
    return np.broadcast_to(array[:, None] if down and array.ndim == 1 else array, shape)


def tidy(
    groups: pd.DataFrame | Mapping[str, Any] | None,
    *,
    statistic: Sequence[str],
    value: ArrayLike,
    low: ArrayLike = math.nan,
    high: ArrayLike = math.nan,
    level: float = 0.95,
    unit: Any = "",
    estimator: Any = "",
    interval_method: Any = "",
    n: Mapping[str, Any] | None = None,
    flags: Any = "",
    note: Any = "",
    extra: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Build a tidy table of statistics from arrays.

    Parameters
    ----------
    groups : DataFrame, mapping or None
        The ``by`` columns: one row per group, or one group as a mapping, or none.
    statistic : sequence of str, length n_statistics
        Names.
    value, low, high : array-like, broadcastable to (n_groups, n_statistics)
        Estimates and the bounds of their intervals; NaN where not known.
    level : float
        Confidence level of the intervals.
    unit, estimator, interval_method, flags, note : str or array-like of str
        Broadcast like ``value``.  Flags are joined with ", " (see :func:`join_flags`).
    n : mapping of str to array-like
        Sample size at each level, for example ``{"subjects": 10, "repeats": 20}``; makes
        columns ``n_subjects``, ``n_repeats``.  Here a vector runs down the groups.
    extra : mapping of str to array-like
        Further columns, for example ``F``, ``df1``, ``df2``, ``p``.

    Returns
    -------
    DataFrame
        One row per group and statistic; columns: by columns, statistic, value, low, high,
        interval_level, unit, estimator, interval_method, extras, n columns, flags, note.
    """
    import pandas as pd

    if groups is None:
        groups = pd.DataFrame(index=[0])
    elif not isinstance(groups, pd.DataFrame):
        groups = pd.DataFrame([dict(groups)]) if groups else pd.DataFrame(index=[0])
    shape = (len(groups), len(statistic))
    clashing = sorted({str(c) for c in groups.columns} & {*TIDY_COLUMNS, "flags", "note"})
    if clashing:
        raise TableError(
            f"the table cannot be split by {', '.join(clashing)}: the result has a column of that name",
            todo="rename it (the unit has an option of its own)",
        )
    cells: dict[str, NDArray[Any]] = {"statistic": _grid(np.asarray(statistic, dtype=object), shape)}
    for name, numbers in {"value": value, "low": low, "high": high, "interval_level": level}.items():
        cells[name] = _grid(np.asarray(numbers, dtype=float), shape)
    texts = {"unit": unit, "estimator": estimator, "interval_method": interval_method}
    cells |= {name: _grid(np.asarray(text, dtype=object), shape) for name, text in texts.items()}
    cells |= {name: _grid(more, shape) for name, more in (extra or {}).items()}
    cells |= {f"n_{name}": _grid(count, shape, down=True) for name, count in (n or {}).items()}
    cells |= {k: _grid(np.asarray(v, dtype=object), shape) for k, v in {"flags": flags, "note": note}.items()}
    table = groups.loc[groups.index.repeat(shape[1])].reset_index(drop=True)
    return pd.concat([table, pd.DataFrame({k: v.ravel() for k, v in cells.items()})], axis=1)


def stack_tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of statistics under each other; columns that one lacks stay empty there.

    The order of columns is kept: by columns first, ``flags`` and ``note`` last.
    """
    import pandas as pd

    parts = [t for t in tables if len(t)]
    if not parts:
        return pd.DataFrame(columns=[*TIDY_COLUMNS, "flags", "note"])
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    tail = [name for name in ("flags", "note") if name in names]
    counts = [name for name in names if name.startswith("n_")]
    head = [name for name in names if name not in tail and name not in counts]
    columns: dict[str, Any] = {}
    for name in [*head, *counts, *tail]:
        filler = math.nan if any(name in p and p[name].dtype.kind in "fiu" for p in parts) else ""
        cells = [p[name].to_numpy() if name in p else np.full(len(p), filler) for p in parts]
        columns[name] = (
            np.concatenate(cells)
            if filler != ""
            else np.concatenate([np.asarray(c, dtype=object) for c in cells])
        )
    return pd.DataFrame(columns)


def to_statistics(
    table: pd.DataFrame, *, quantity: str = "", region: str = "", unit: str = ""
) -> tuple[Statistic, ...]:
    """Convert a tidy table of statistics to records.

    Columns ``quantity``, ``region`` and ``unit`` fill the fields of that name; other ``by``
    columns are joined to ``group`` as ``name=value``; ``n_...`` columns become ``n``.  Extra
    columns (F, df, p) are written into the note, so that none is lost.
    """
    counts = [c for c in table.columns if c.startswith("n_")]
    start = list(table.columns).index("statistic")
    by = [c for c in table.columns[:start] if c not in ("quantity", "region", "unit")]
    known = {*TIDY_COLUMNS, *table.columns[:start], *counts, "flags", "note"}
    extras = [c for c in table.columns if c not in known]
    return tuple(
        Statistic(
            name=str(row["statistic"]),
            value=float(row["value"]),
            unit=_named(row, "unit") or unit,
            quantity=_named(row, "quantity") or quantity,
            region=_named(row, "region") or region,
            group=", ".join(f"{name}={row[name]}" for name in by),
            low=float(row["low"]),
            high=float(row["high"]),
            interval_level=float(row["interval_level"]),
            estimator=str(row["estimator"]),
            interval_method=str(row["interval_method"]),
            n={c[2:]: int(row[c]) for c in counts if np.isfinite(row[c])},
            flags=tuple(f for f in str(row["flags"]).split(", ") if f),
            note=_note_with_extras(row, extras),
        )
        for row in table.to_dict("records")
    )


def _named(row: Mapping[Any, Any], name: str) -> str:
    cell = row.get(name)
    return "" if cell is None or cell != cell else str(cell)  # noqa: PLR0124 (NaN)


def _note_with_extras(row: Mapping[Any, Any], extras: Sequence[str]) -> str:
    numbers = [
        f"{name} = {row[name]:.4g}"
        for name in extras
        if isinstance(row[name], (int, float)) and math.isfinite(row[name])
    ]
    return "; ".join(part for part in (", ".join(numbers), str(row["note"])) if part)


def from_measurements(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Return measurements as a tidy table: one row each, entities as columns.

    Flags are joined with ", ".  Columns carry the names of the fields of
    :class:`~cordqa.records.Measurement` and :class:`~cordqa.records.Entities`.
    """
    import pandas as pd

    plain = [f.name for f in fields(Measurement) if f.name not in ("entities", "flags")]
    rows = [
        {
            **{name: getattr(m, name) for name in plain},
            **{f.name: getattr(m.entities, f.name) for f in fields(Entities)},
            "flags": join_flags(m.flags),
        }
        for m in measurements
    ]
    if not rows:
        raise EmptyInputError("there are no measurements")
    return pd.DataFrame(rows)
