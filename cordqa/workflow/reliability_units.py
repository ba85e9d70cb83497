"""Units of a long table: brought to one per quantity, or left out and said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cordqa.quantities import find_quantity
from cordqa.records import Severity
from cordqa.workflow.reliability_table import WHOLE, LongTable, Mask, Scope, plural, shown_lines

__all__ = ["unify_units"]

#: Other ways to write a unit.
_SPELLINGS: Mapping[str, str] = {
    "msec": "ms",
    "millisecond": "ms",
    "milliseconds": "ms",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "mm^3": "mm3",
    "mm³": "mm3",
    "mm**3": "mm3",
    "µl": "mm3",
    "ul": "mm3",
    "ml": "ml",
    "l": "l",
    "cm^3": "ml",
    "cm³": "ml",
    "cm3": "ml",
    "cc": "ml",
    "millilitre": "ml",
    "milliliter": "ml",
    "mm^2": "mm2",
    "mm²": "mm2",
    "mm**2": "mm2",
    "cm^2": "cm2",
    "cm²": "cm2",
    "µm²/s": "um2/s",
    "μm²/s": "um2/s",
    "µm2/s": "um2/s",
    "um^2/s": "um2/s",
    "µm²/ms": "um2/ms",
    "um^2/ms": "um2/ms",
    "mm²/s": "mm2/s",
    "mm^2/s": "mm2/s",
    "10^-3 mm2/s": "1e-3 mm2/s",
    "x10-3 mm2/s": "1e-3 mm2/s",
    "10^-6 mm2/s": "um2/s",
    "1e-6 mm2/s": "um2/s",
    "percent": "%",
    "pct": "%",
    "dimensionless": "1",
    "none": "1",
    "-": "1",
}
#: Factor from one unit to another.
_FACTORS: Mapping[tuple[str, str], float] = {
    ("s", "ms"): 1e3,
    ("us", "ms"): 1e-3,
    ("ms", "s"): 1e-3,
    ("um2/ms", "um2/s"): 1e3,
    ("1e-3 mm2/s", "um2/s"): 1e3,
    ("mm2/s", "um2/s"): 1e6,
    ("cm2", "mm2"): 1e2,
    ("mm2", "cm2"): 1e-2,
    ("ml", "mm3"): 1e3,
    ("l", "mm3"): 1e6,
    ("mm3", "ml"): 1e-3,
    ("l", "ml"): 1e3,
    ("cm", "mm"): 10.0,
    ("mm", "cm"): 0.1,
    ("m", "mm"): 1e3,
    ("ppb", "ppm"): 1e-3,
    ("%", "1"): 1e-2,
    ("1", "%"): 1e2,
}
#: Largest over smallest value of one region beyond which a gap between them suggests two units.
_SPAN = 50.0
_GAP = 10.0


def _plain(unit: str) -> str:
    text = unit.strip()
    return _SPELLINGS.get(text.casefold(), _SPELLINGS.get(text, text))


def unify_units(long: LongTable) -> None:
    """Bring the values of each quantity to one unit; what cannot be is left out, with the reason."""
    written = np.array([_plain(unit) for unit in long.frame["unit"]], dtype=object)
    quantity = long.frame["quantity"].to_numpy()
    assumed: list[str] = []
    for name, scope in long.scopes.items():
        mine = quantity == name
        counts = Counter(written[mine].tolist())
        stated = {unit: count for unit, count in counts.items() if unit}
        target = _plain(scope.unit) or max(stated, key=lambda unit: stated[unit], default="")
        long.scopes[name] = _in_unit(scope, target)
        if not stated:
            assumed.append(name)
            continue
        if len(counts) > 1:
            words = ", ".join(f"{unit or 'no unit'} ({count})" for unit, count in counts.items())
            long.note("mixed-units", f"{scope.label}: {len(counts)} units in one quantity: {words}")
        for unit in counts:
            if unit != target:
                _convert(long, mine & (written == unit), unit, target, scope)
    long.frame["unit"] = np.array([long.scopes[name].unit for name in quantity], dtype=object)
    _say_assumed(long, assumed)
    for name, scope in long.scopes.items():
        _suspect_mixed(long, name, scope)


def _in_unit(scope: Scope, target: str) -> Scope:
    """State the unit of a quantity; the plausible range is known in the registered unit only."""
    known = find_quantity(scope.quantity)
    if known is None or _plain(known.unit) == target:
        return replace(scope, unit=target)
    return replace(scope, unit=target, low=-math.inf, high=math.inf)


def _say_assumed(long: LongTable, names: list[str]) -> None:
    """Say once which units are taken from the registry."""
    scopes = [long.scopes[name] for name in names]
    words = [f"{scope.label} in {scope.unit}" for scope in scopes if scope.unit not in ("", "1")]
    if words:
        long.note("assumed-unit", f"the table names no units; assumed are {', '.join(words)}", Severity.INFO)


def _convert(long: LongTable, rows: Mask, unit: str, target: str, scope: Scope) -> None:
    factor = _FACTORS.get((unit, target))
    count = int(rows.sum())
    if factor is None:
        reason = f"unit {unit!r} cannot be turned into {target}"
        reason = reason if unit else f"no unit is stated, others are in {target}"
        taken = long.leave_out(rows, reason)
        long.note("unit", f"{scope.label}: {plural(taken, 'value')} left out: {reason} ({long.lines(rows)})")
        return
    for column in ("value", "reference"):
        long.frame.loc[rows, column] = long.frame.loc[rows, column] * factor
    message = f"{scope.label}: {plural(count, 'value')} in {unit} turned into {target}"
    long.note("converted", message, Severity.INFO)


def _suspect_mixed(long: LongTable, name: str, scope: Scope) -> None:
    """Say when the values of one region fall apart into two clouds far from each other."""
    if scope.scale != "ratio":
        return
    used = long.used
    used = used[(used["quantity"] == name) & (used["value"] > 0)]
    for region, part in used.groupby("region", sort=False, observed=True):
        logs = np.sort(np.log(part["value"].to_numpy(dtype=float)))
        if logs.size < 4 or logs[-1] - logs[0] < math.log(_SPAN):
            continue
        gaps = np.diff(logs)
        widest = int(gaps.argmax())
        if gaps[widest] < math.log(_GAP):
            continue
        border = math.exp((logs[widest] + logs[widest + 1]) / 2)
        few = part["value"] < border
        few = few if few.sum() <= len(part) / 2 else ~few
        lines = part.loc[few, "line"].tolist()
        message = (
            f"{len(lines)} of {plural(len(part), 'value')} differ from the others by a factor of "
            f"{math.exp(gaps[widest]):.0f} or more ({shown_lines(lines)}): another unit, or a slip of "
            "the decimal sign?"
        )
        where = f"{scope.label}, {region}".removesuffix(f", {WHOLE}")
        long.note("suspect-unit", message, where=where)
