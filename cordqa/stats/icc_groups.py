"""Results of intraclass correlations of many groups, and their tidy table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cordqa.stats.icc_core import FORMS, SHROUT_FLEISS, ICCs, Interval
from cordqa.stats.icc_replicated import ReplicatedICCs
from cordqa.stats.layout import Layout
from cordqa.stats.tidy import join_flags, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AGREEMENT", "Groups", "Settings", "spread_notes"]

Array = NDArray[np.float64]

_ESTIMATORS = (
    "one-way random, single",
    "two-way, absolute agreement, single",
    "two-way, consistency, single",
    "one-way random, mean of k",
    "two-way, absolute agreement, mean of k",
    "two-way, consistency, mean of k",
)
_REPLICATED_ESTIMATORS = (
    "two-way with interaction, absolute agreement, single",
    "two-way with interaction, consistency, single",
    "two-way with interaction, absolute agreement, one per rater, mean of k",
    "two-way with interaction, consistency, one per rater, mean of k",
    "two-way with interaction, same rater twice (scan-rescan)",
)
#: Which of the six forms are of absolute agreement.
AGREEMENT = np.array([False, True, False, False, True, False])


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller asked for."""

    level: float
    interval: Interval
    reml: bool
    average: bool
    seed: int


class Groups:
    """Collects results of groups that are estimated in different ways."""

    def __init__(self, n_groups: int, forms: tuple[str, ...]) -> None:
        self.forms = forms
        self.value = np.full((n_groups, len(forms)), math.nan)
        self.low, self.high, self.p = self.value.copy(), self.value.copy(), self.value.copy()
        self.F, self.df1, self.df2 = self.value.copy(), self.value.copy(), self.value.copy()
        self.flags = np.full((n_groups, len(forms)), "", dtype=object)
        self.notes = np.full(n_groups, "", dtype=object)
        self.methods = np.full(n_groups, "", dtype=object)
        self.excluded = np.zeros(n_groups, dtype=np.int64)

    def store(self, rows: NDArray[np.int64], found: ICCs) -> None:
        """Keep six ICC of some groups."""
        for name in found._fields:
            getattr(self, name)[rows] = getattr(found, name)

    def store_replicated(self, rows: NDArray[np.int64], found: ReplicatedICCs) -> None:
        """Keep five ICC of some groups with replicates."""
        self.value[rows], self.low[rows], self.high[rows] = found.value, found.low, found.high

    def flag(self, where: Any, flag: str) -> None:
        """Add a flag to groups, or to single results of them."""
        old = self.flags[where]
        if np.size(old):
            add = np.frompyfunc(lambda cell: join_flags(cell, flag), 1, 1)
            self.flags[where] = add(old)

    def give_up(self, rows: Any, reason: str) -> None:
        """Leave groups at NaN and say why."""
        self.flag(rows, "not-estimable")
        self.notes[rows] = reason

    def table(self, layout: Layout, rows: NDArray[np.int64], settings: Settings) -> pd.DataFrame:
        """Return the tidy table."""
        six = self.forms == FORMS
        self.flag(self.value < 0, "negative")
        self.flag((self.methods[:, None] != "") & np.isnan(self.value), "no-variation")
        names = np.array(_ESTIMATORS if six else _REPLICATED_ESTIMATORS, dtype=object)
        methods = np.array([f", {m}" if m else "" for m in self.methods], dtype=object)
        tests = {"F": self.F, "df1": self.df1, "df2": self.df2, "p": self.p}
        return tidy(
            layout.groups.iloc[rows].reset_index(drop=True),
            statistic=self.forms,
            value=self.value,
            low=self.low,
            high=self.high,
            level=settings.level,
            unit="1",
            estimator=names[None, :] + methods[:, None],
            interval_method=self._intervals(settings),
            extra=tests if six else None,
            n={
                "subjects": layout.n_subjects[rows] - self.excluded,
                "raters": layout.n_raters[rows],
                "values": layout.n_values[rows],
                "missing": layout.n_missing[rows],
                "excluded_subjects": self.excluded,
            },
            flags=self.flags,
            note=self._all_notes(),
        )

    def _intervals(self, settings: Settings) -> NDArray[np.object_]:
        if self.forms != FORMS:
            return np.array(["generalized"] * len(self.forms), dtype=object)
        agreement = "McGraw-Wong F" if settings.interval == "mcgraw-wong" else "generalized"
        names = np.array([agreement if a else "exact F" for a in AGREEMENT], dtype=object)
        approximate = np.array([m.startswith("REML") for m in self.methods], dtype=bool)
        loose = np.array([n.removeprefix("exact ") + ", approximate df" for n in names], dtype=object)
        return np.where(approximate[:, None], loose, names)

    def _all_notes(self) -> NDArray[np.object_]:
        shape = self.value.shape
        if self.forms != FORMS:
            return np.broadcast_to(self.notes[:, None], shape)
        heads = np.array([f"Shrout-Fleiss {alias}" for alias in SHROUT_FLEISS], dtype=object)
        tails = np.array([f"; {note}" if note else "" for note in self.notes], dtype=object)
        return np.asarray(heads[None, :] + tails[:, None], dtype=object)


def spread_notes(cells: Array, wsd: Array) -> NDArray[np.object_]:
    """Say the range of the subjects and the within-subject SD, without which an ICC is empty.

    Parameters
    ----------
    cells : ndarray, shape (n_groups, n_subjects, n_raters)
        NaN where a cell is empty; every subject has at least one value.
    wsd : ndarray, shape (n_groups,)
        SD of one measurement by any rater within a subject.
    """
    means = np.nanmean(cells, axis=-1)
    low, high, centre = means.min(axis=-1), means.max(axis=-1), means.mean(axis=-1)
    positive = np.nanmin(cells, axis=(-2, -1)) > 0
    notes = [
        f"subject means {a:.4g} to {b:.4g}, within-subject SD {s:.3g}"
        + (f" ({100 * s / m:.3g} % of the mean)" if ok else "")
        for a, b, s, m, ok in zip(low, high, wsd, centre, positive, strict=True)
    ]
    return np.array(notes, dtype=object)
