"""What the statistics themselves say that a reader must not miss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cordqa.records import Severity
from cordqa.workflow.reliability_run import BY, Study
from cordqa.workflow.reliability_table import WHOLE, plural, region_key

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["raise_alerts"]

_SIGNIFICANT = 0.05
_CURVED = 0.01
#: Slopes within this of 1 are what profiles of quantitative imaging ask for.
_SLOPE = 0.05
_FEW_PEOPLE = 10
_SHOWN_MACHINES = 6


def raise_alerts(study: Study) -> None:
    """Say what calls for attention, one sentence per quantity and machine, not one per region."""
    _bias(study)
    _linearity(study)
    _proportional(study)
    _variances(study)
    _few(study)


def _p(table: pd.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """P for many regions where there are many, else p; 1 where nothing was tested."""
    name = "p_fdr" if "p_fdr" in table else "p"
    values = table[name].to_numpy(dtype=float) if name in table else np.full(len(table), math.nan)
    return np.where(np.isfinite(values), values, 1.0)


def _regions(part: pd.DataFrame) -> str:
    names = sorted({str(name) for name in part["region"]} - {WHOLE}, key=region_key)
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


def _bias(study: Study) -> None:
    """One sentence per quantity: which machines read high or low, the worst first."""
    table, machine = study.tables.get("bias"), study.design.machine
    if table is None:
        return
    rows = table[table["statistic"] == "bias"]
    relative = table[table["statistic"] == "bias_percent"].set_index([*BY, machine])["value"]
    hit = rows[_p(rows) < _SIGNIFICANT]
    for quantity, part in hit.groupby("quantity", sort=False, observed=True):
        every = rows[rows["quantity"] == quantity]
        found = [
            (_extent(study, str(quantity), str(name), mine, every, relative), str(name))
            for name, mine in part.groupby(machine, sort=False, observed=True)
        ]
        found.sort(key=lambda one: -one[0][0])
        count = plural(study.design.machines, machine)
        label = study.long.scopes[str(quantity)].label
        verb = "reads" if len(found) == 1 else "read"
        message = f"{label}: {len(found)} of {count} {verb} differently from the mean of all"
        for (_, words), name in found[:_SHOWN_MACHINES]:
            study.note("bias", message, where=f"{name}: {words}")
        if len(found) > _SHOWN_MACHINES:
            study.note("bias", message, where=f"and {len(found) - _SHOWN_MACHINES} more, see bias")


def _extent(
    study: Study,
    quantity: str,
    machine: str,
    part: pd.DataFrame,
    every: pd.DataFrame,
    relative: pd.Series[float],
) -> tuple[float, str]:
    """How large a bias is, and in words: percent where that means something."""
    sizes = np.array([relative.get((quantity, region, machine), math.nan) for region in part["region"]])
    unit, sizes = "%", sizes[np.isfinite(sizes)]
    if not sizes.size:
        unit, sizes = study.long.scopes[quantity].unit, part["value"].to_numpy(dtype=float)
    span = f"{sizes[0]:+.3g}" if sizes.size == 1 else f"{sizes.min():+.3g} to {sizes.max():+.3g}"
    regions = every["region"].nunique()
    where = f" in {len(part)} of {plural(regions, 'region')}" if regions > 1 else ""
    words = f"{span} {unit}{where}".replace("-", "\N{MINUS SIGN}")
    return float(np.median(np.abs(sizes))), words


def _linearity(study: Study) -> None:
    table, machine = study.tables.get("linearity"), study.design.machine
    if table is None:
        return
    for row in table.to_dict("records"):
        on = row.get(machine, "")
        scope = study.long.scopes[str(row["quantity"])]
        where = f"{scope.label} on {on}" if isinstance(on, str) and on else scope.label
        what = f"{where}: measured against reference"
        slope, low, high = (float(row[name]) for name in ("value", "low", "high"))
        if row["statistic"] == "slope" and abs(slope - 1.0) > _SLOPE and not low <= 1.0 <= high:
            study.note("slope", f"{what} has a slope of {slope:.3g} ({low:.3g} to {high:.3g})")
        if row["statistic"] == "quadratic_term" and row["p"] < _CURVED:
            study.note("curved", f"{what} is not a straight line (p = {row['p']:.2g})")


def _proportional(study: Study) -> None:
    table = study.tables.get("agreement")
    if table is None:
        return
    rows = table[table["statistic"] == "proportional_bias"]
    hit = rows[_p(rows) < _SIGNIFICANT]
    for (quantity, first, second), part in hit.groupby(["quantity", "first", "second"], sort=False):
        label = study.long.scopes[str(quantity)].label
        message = (
            f"{label}: the difference of {first} and {second} depends on the value{_regions(part)}, so one "
            "bias and one pair of limits do not describe it"
        )
        study.note("proportional", message, Severity.INFO)


def _variances(study: Study) -> None:
    table = study.tables.get("components")
    if table is None:
        return
    rows = table[table["statistic"].astype(str).str.startswith("variance ")]
    flags = rows["flags"].astype(str)
    zero = rows[flags.str.contains("negative-variance|singular", regex=True)]
    for name, part in zero.groupby("statistic", sort=False):
        every = plural(int((rows["statistic"] == name).sum()), "analysis", "analyses")
        message = (
            f"the {name} is estimated at or below zero in {len(part)} of {every}{_regions(part)}: it is "
            "too small to be told from nothing in this study; raw and truncated values are both listed"
        )
        study.note("zero-variance", message, Severity.INFO)


def _few(study: Study) -> None:
    design = study.design
    if design.repeated and 1 < design.subjects < _FEW_PEOPLE:
        message = (
            f"there are {design.subjects} subjects; with fewer than {_FEW_PEOPLE} the intervals are wide, "
            "and the estimates alone should not be quoted"
        )
        study.note("few-subjects", message, Severity.INFO)
