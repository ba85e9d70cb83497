"""Run one analysis after the other, each group of values on its own where one of them fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import CordqaError
from cordqa.records import Notice, Outcome, Severity, State, Statistic
from cordqa.stats.multiplicity import adjust_p
from cordqa.stats.scale import Scale
from cordqa.stats.table import stack_tables, to_statistics
from cordqa.workflow.reliability_design import Design
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_table import WHOLE, LongTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BY", "Analysis", "Call", "Study", "shown_region"]

#: Values of one quantity in one region are analysed together.
BY = ["quantity", "region"]
#: Above this many groups only the headline of every analysis is kept, unless asked for all.
_MANY_GROUPS = 60
_HEADLINE = frozenset(
    {
        "wSD",
        "RC",
        "wCV",
        "RDC",
        "reproducibility_CV",
        "between_scanner_CV",
        "within_scanner_CV",
        "within_site_CV",
        "between_site_CV",
        "intra_site_COV",
        "inter_site_COV",
        "ICC(1,1)",
        "ICC(A,1)",
        "ICC(C,1)",
        "ICC(intra)",
        "slope",
        "intercept",
        "ccc",
        "bias",
        "bias_percent",
        "loa_lower",
        "loa_upper",
        "percent_difference",
        "AUC",
        "AUC difference",
        "RDC ratio",
        "effect kept",
        "signals",
        "EWMA now",
        "baseline mean",
        "r2",
        "quadratic_term",
        "proportional_bias",
        "effect within batches",
        "effect after",
        "anova_sites",
        "anova_vendors",
        "tukey",
        "absolute_percent_difference",
        "mean absolute percent difference",
        "regions below 10 %",
        "mean |percent bias|",
        "regions with |percent bias| below 10 %",
        "mean ICC(C,1)",
        "regions with ICC(C,1) of at least 0.75",
        "r_pooled",
        "r_within",
        "r_between",
        "calibration_order",
        "AICc_gain",
        "BIC_gain",
        "calibration_c0",
        "calibration_c1",
        "calibration_c2",
        "calibration_low",
        "calibration_high",
        "calibration_r2",
        "calibration_residual_sd",
    }
)

Call = Callable[["pd.DataFrame"], "pd.DataFrame"]
Group = tuple[str, str]


def shown_region(region: str) -> str:
    """Return the name of a region for people: none where the table names none."""
    return "" if region == WHOLE else region


@dataclass(slots=True)
class Study:
    """A table, its design, and everything that was found in it.

    Attributes
    ----------
    tables : dict of str to DataFrame
        What each analysis found, for figures and verdicts.
    statistics : list of Statistic
    done : dict of (quantity, region) to list of str
        Analyses that gave a number.
    refused : dict of (quantity, region) to dict of str to str
        Analyses that gave none, and why.
    groups : list of (quantity, region)
        In the order of the report.
    compared : str
        Column whose levels were compared in pairs.
    case : str
        Label of the cases, where values were asked to tell them apart; ``people`` are its rows.
    """

    long: LongTable
    design: Design
    settings: ReliabilitySettings
    frame: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    statistics: list[Statistic] = field(default_factory=list)
    done: dict[Group, list[str]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[Group, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    outcomes: list[Outcome] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    compared: str = ""
    case: str = ""
    people: pd.DataFrame | None = None

    groups: list[Group] = field(init=False)

    def __post_init__(self) -> None:
        """Name the groups of values once: tables may have thousands."""
        pairs = self.frame[BY].drop_duplicates()
        self.groups = [(str(quantity), str(region)) for quantity, region in pairs.to_numpy()]

    @property
    def full(self) -> bool:
        """Whether every statistic of a quantity in a region is kept, not the headline only."""
        asked = self.settings.detail
        return asked == "full" or (asked == "auto" and len(self.groups) <= _MANY_GROUPS)

    def note(self, code: str, message: str, severity: Severity = Severity.WARNING, where: str = "") -> None:
        """Keep a remark."""
        self.notices.append(
            Notice(severity=severity, message=message, where=where, code=f"reliability.{code}")
        )

    def skip(self, analysis: str, reason: str) -> None:
        """Say that an analysis does not suit this table."""
        self.outcomes.append(
            Outcome(what=analysis, state=State.SKIPPED, reason=reason, code="analysis.not-applicable")
        )

    def fail(self, what: str, error: Exception) -> None:
        """Record a failure, without which an empty place would look like a finished one."""
        expected = isinstance(error, CordqaError)
        reason = str(error) if expected else f"internal error ({type(error).__name__}: {error})"
        code = error.code if isinstance(error, CordqaError) else "internal"
        self.outcomes.append(Outcome(what=what, state=State.FAILED, reason=reason, code=code))

    def label(self, group: Group) -> str:
        """Name a group for people."""
        return ", ".join(part for part in (self.long.scopes[group[0]].label, shown_region(group[1])) if part)

    def parts(self, frame: pd.DataFrame | None = None) -> Iterator[tuple[Scale, pd.DataFrame]]:
        """Yield the rows of ratio and of interval quantities, which need different statistics."""
        rows = self.frame if frame is None else frame
        scale = rows["quantity"].map({name: scope.scale for name, scope in self.long.scopes.items()})
        kinds: tuple[Scale, ...] = ("ratio", "interval")
        for name in kinds:
            part = rows[(scale == name).to_numpy()]
            if len(part):
                yield name, part

    def by_quantity(self, frame: pd.DataFrame | None = None) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Yield every quantity with its unit and rows."""
        rows = self.frame if frame is None else frame
        for name, part in rows.groupby("quantity", sort=False, observed=True):
            yield str(name), self.long.scopes[str(name)].unit, part


@dataclass(slots=True)
class Analysis:
    """One kind of statistic: runs it, keeps what it found, and says where it could not.

    Parameters
    ----------
    study : Study
    name : str
        For people, such as "repeatability".
    key : str
        Under which tables are kept, default is the name.
    """

    study: Study
    name: str
    key: str = ""
    _tables: list[pd.DataFrame] = field(default_factory=list)

    def run(self, frame: pd.DataFrame, call: Call, *, by: Sequence[str] = tuple(BY)) -> None:
        """Call a statistic on all groups at once; on each alone where that fails."""
        if not len(frame):
            return
        try:
            self.keep(call(frame))
        except Exception as error:
            # The boundary: one group must not cost the others.
            groups = list(frame.groupby(list(by), sort=False, observed=True))
            if len(groups) == 1:
                self._alone(groups[0][1], error)
                return
            for _, part in groups:
                try:
                    self.keep(call(part))
                except Exception as single:
                    self._alone(part, single)

    def _alone(self, part: pd.DataFrame, error: Exception) -> None:
        """One group that cannot be analysed: refused with a reason, or a defect."""
        regions = list(dict.fromkeys(part["region"].tolist()))
        quantity = str(part["quantity"].iloc[0])
        if isinstance(error, CordqaError):
            for region in regions:
                self.study.refused[quantity, str(region)].setdefault(self.name, str(error))
            return
        region = str(regions[0]) if len(regions) == 1 else ""
        self.study.fail(f"{self.study.label((quantity, region))}: {self.name}", error)

    def keep(self, table: pd.DataFrame) -> None:
        """Keep a table of statistics that some call returned."""
        if len(table):
            self._tables.append(table)

    def finish(self) -> pd.DataFrame | None:
        """Adjust p for the number of regions, make records, and note which groups have a number."""
        if not self._tables:
            return None
        # Tables that are split alike are one family; records name what each was split by.
        alike: dict[tuple[str, ...], list[pd.DataFrame]] = defaultdict(list)
        for table in self._tables:
            alike[_split_by(table)].append(table)
        stacked = [_with_fdr(stack_tables(tables), split) for split, tables in alike.items()]
        for split, table in zip(alike, stacked, strict=True):
            shown = self._shown(table, split)
            if "region" in shown:
                shown = shown.assign(region=shown["region"].replace(WHOLE, ""))
            if len(shown):
                self.study.statistics.extend(_lean(one) for one in to_statistics(shown))
        whole = stack_tables(stacked)
        by = list(dict.fromkeys(name for split in alike for name in split))
        whole = whole[[*by, *(name for name in whole.columns if name not in by)]]
        self.study.tables[self.key or self.name] = whole
        self._count(whole)
        return whole

    def _shown(self, table: pd.DataFrame, split: Sequence[str]) -> pd.DataFrame:
        """Keep all rows of whole groups, and the headline of what is split further, unless asked."""
        detail = self.study.settings.detail
        whole = set(split) <= set(BY)
        if detail == "full" or (whole and self.study.full):
            return table
        return table[table["statistic"].isin(_HEADLINE).to_numpy()]

    def _count(self, table: pd.DataFrame) -> None:
        if "quantity" not in table:
            return
        known = np.isfinite(table["value"].to_numpy(dtype=float))
        everywhere = "region" not in table
        place = table.assign(_known=known, _region="" if everywhere else table.get("region"))
        for (quantity, region), part in place.groupby(["quantity", "_region"], sort=False):
            alone = [(str(quantity), str(region))]
            for group in [g for g in self.study.groups if g[0] == quantity] if everywhere else alone:
                self._note_group(group, part)

    def _note_group(self, group: Group, part: pd.DataFrame) -> None:
        if part["_known"].any():
            if self.name not in self.study.done[group]:
                self.study.done[group].append(self.name)
            return
        notes = [str(note) for note in part["note"] if note]
        reason = max(set(notes), key=notes.count) if notes else "nothing could be estimated"
        self.study.refused[group].setdefault(self.name, reason)


#: Counts that say something only where they are not zero.
_LOSSES = frozenset({"missing", "excluded", "excluded_subjects", "unusable", "single"})


def _lean(statistic: Statistic) -> Statistic:
    """Leave out that nothing was lost."""
    counts = {name: n for name, n in statistic.n.items() if n or name not in _LOSSES}
    return replace(statistic, n=counts)


def _split_by(table: pd.DataFrame) -> tuple[str, ...]:
    """Columns by which a table of statistics was split: those before the name of the statistic."""
    columns = list(table.columns)
    return tuple(map(str, columns[: columns.index("statistic")]))


def _with_fdr(table: pd.DataFrame, split: Sequence[str]) -> pd.DataFrame:
    """Add p adjusted for the number of regions, within each quantity, statistic and comparison."""
    if "p" not in table or "region" not in table or table["region"].nunique() < 2:
        return table
    order = list(table.columns)
    family = [name for name in split if name != "region"]
    adjusted: Any = adjust_p(table, family=[*family, "statistic"])
    order.insert(order.index("p") + 1, "p_fdr")
    return adjusted[order]  # type: ignore[no-any-return]
