"""What all figure builders share: rounding to JSON types, and checks of shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cordqa.errors import InputError
from cordqa.figures.parts import Numbers
from cordqa.records import Figure, as_plain

#: Enough for a drawing and for what a reader is shown; it halves the size of the file.
_SIGNIFICANT_DIGITS = 7


def make_figure(
    name: str, kind: str, title: str, data: Mapping[str, Any], *, caption: str, alt: str
) -> Figure:
    """Build the record, dropping empty entries so that the file stays small."""
    return Figure(name=name, kind=kind, title=title, caption=caption, alt=alt, data=as_plain(data))


def number(value: float) -> float | None:
    """Round to what a drawing needs; ``None`` where the value is not known."""
    value = float(value)
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None


def numbers(values: Numbers) -> list[float | None]:
    """Round a sequence of numbers, shape (n,)."""
    return [number(value) for value in np.asarray(values, dtype=float).ravel().tolist()]


def texts(values: Sequence[Any]) -> list[str]:
    """Write every entry as text."""
    return [str(value) for value in values]


def aligned(
    where: str, required: Mapping[str, Sequence[Any]], **optional: Sequence[Any]
) -> dict[str, list[Any]]:
    """Return columns of one length; optional ones may be empty and are then left out.

    Raises
    ------
    InputError
        If two columns differ in length.
    """
    columns = {key: list(column) for key, column in required.items()}
    columns |= {key: list(column) for key, column in optional.items() if len(column)}
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError(
            "the columns of a figure differ in length",
            where=where,
            found=", ".join(f"{key}: {len(column)}" for key, column in columns.items()),
            expected="one length",
        )
    return columns


def filled(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what says nothing: ``None``, empty text and empty containers, but not zero or false."""
    return {
        key: value for key, value in entries.items() if value is not None and value not in ("", [], {}, ())
    }
