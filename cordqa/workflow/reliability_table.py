"""The long table of a reliability run: one row per value, and what is left out of it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.io.tables import DroppedLine
from cordqa.records import Notice, Severity
from cordqa.workflow.reliability_roles import Roles

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "KEYS",
    "MIXED",
    "RELATED",
    "WHOLE",
    "LongTable",
    "Mask",
    "Scope",
    "Text",
    "natural_key",
    "plural",
    "region_key",
    "shown_lines",
]

Text = NDArray[np.object_]
Mask = NDArray[np.bool_]

#: Columns of text that every long table has; empty text where not known.
KEYS = (
    "subject",
    "session",
    "run",
    "scanner",
    "site",
    "vendor",
    "model",
    "software",
    "acquired",
    "group",
    "sex",
)
#: Columns that may tell different ways of measuring apart; the table has them where the file does.
MIXED = ("engine", "method", "acquisition")
#: Column of classes within which quantities are related.
RELATED = "related_within"
#: Region of values whose table names none.
WHOLE = "all"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """What a quantity is: its label, unit and scale."""

    quantity: str
    label: str
    unit: str
    scale: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(slots=True)
class LongTable:
    """One row per value.

    Attributes
    ----------
    frame : DataFrame
        Columns ``quantity``, ``region`` (for people), ``region_name``, ``level``, ``unit``,
        ``value``, ``reference``, ``age``, those of :data:`KEYS`, covariates, ``line`` of the file,
        and ``left_out``: why a row takes no part (empty: it does).
    scopes : dict of str to Scope
        One per quantity.
    covariates : tuple of str
        Columns of the frame that the user wants adjusted for, besides age and sex.
    roles : Roles
    notices : list of Notice
    name : str
    n_rows : int
        Rows of the file.
    dropped : tuple of DroppedLine
        Lines of the file that are no rows.
    """

    frame: pd.DataFrame
    scopes: dict[str, Scope]
    covariates: tuple[str, ...]
    roles: Roles
    name: str
    n_rows: int
    notices: list[Notice] = field(default_factory=list)
    dropped: tuple[DroppedLine, ...] = ()

    def note(self, code: str, message: str, severity: Severity = Severity.WARNING, where: str = "") -> None:
        """Keep a remark."""
        self.notices.append(
            Notice(severity=severity, message=message, where=where or self.name, code=f"table.{code}")
        )

    def leave_out(self, rows: Mask, reason: str) -> int:
        """Take rows out of every statistic, with one reason each; return how many it took."""
        free = rows & (self.frame["left_out"].to_numpy() == "")
        self.frame.loc[free, "left_out"] = reason
        return int(free.sum())

    @property
    def used(self) -> pd.DataFrame:
        """Rows that take part, values present or missing."""
        return self.frame[self.frame["left_out"] == ""]

    def lines(self, rows: Mask) -> str:
        """Name the first lines of the file for a message."""
        numbers = list(dict.fromkeys(self.frame.loc[rows, "line"].tolist()))
        return shown_lines(numbers)


def plural(count: int, noun: str, more: str = "") -> str:
    """Write ``1 row`` or ``3 rows``."""
    return f"{count} {noun if count == 1 else more or noun + 's'}"


def shown_lines(numbers: Sequence[int]) -> str:
    """Name a few lines of a file: ``line 3`` or ``lines 3, 8, 9, ...``."""
    shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
    return f"line{'s' if len(numbers) > 1 else ''} {shown}"


def natural_key(label: object) -> tuple[Any, ...]:
    """Sort key that puts 2 before 10."""
    parts = re.split(r"(\d+)", str(label).casefold(), flags=re.ASCII)
    return tuple(
        (0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts
    )


def region_key(label: object) -> tuple[Any, ...]:
    """Sort key of regions: cervical, thoracic, lumbar and sacral levels in that order, then the rest."""
    text = str(label)
    head, _, rest = text.partition(" ")
    level = re.fullmatch(r"([CTLS])(\d{1,2})(?:[-/]?[CTLS]?(\d{1,2}))?", head, re.IGNORECASE | re.ASCII)
    if level:
        return (0, "CTLS".index(level[1].upper()), int(level[2]), level[3] is not None, natural_key(rest))
    return (1, natural_key(text))
