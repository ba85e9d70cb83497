"""What may be wrong with a long table: said in one sentence each, before anything is computed."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from cordqa.errors import EmptyInputError
from cordqa.phantom.measure import OUTSIDE
from cordqa.records import Severity
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_table import WHOLE, LongTable, Mask, natural_key, plural, shown_lines
from cordqa.workflow.reliability_units import unify_units

__all__ = ["check_long"]

#: A value written with so many digits does not come twice by chance.
_LONG_NUMBER = 5
_LARGEST = 1e30
#: Remarks that explain why cells hold no number.
_UNREAD = ("table.text", "table.infinite", "table.decimal-comma")
_PLACES = ("subject", "session", "run", "scanner", "site", "acquired")
_LABELS = ("subject", "scanner", "site", "vendor", "group", "sex", "region")


def check_long(long: LongTable, settings: ReliabilitySettings) -> None:
    """Check a long table, leave out what cannot be used, and say so.

    Raises
    ------
    EmptyInputError
        If no value is left.
    """
    _flagged(long, settings)
    _absurd(long)
    unify_units(long)
    _unplaced(long)
    _copies(long)
    _conflicts(long)
    _lookalikes(long)
    _group_changes(long)
    _implausible(long)
    _constant(long)
    if not np.isfinite(long.used["value"].to_numpy(dtype=float)).any():
        reasons = [reason for reason in dict.fromkeys(long.frame["left_out"].tolist()) if reason]
        unread = [one.message for one in long.notices if one.code in _UNREAD]
        found = "; ".join([*unread, *reasons[:1]]) or "every cell is empty or holds no number"
        raise EmptyInputError("no value can be used", where=long.name, found=found)


def _flagged(long: LongTable, settings: ReliabilitySettings) -> None:
    """Leave out what cordqa itself could not determine."""
    flags = long.frame["flags"].to_numpy()
    hit = np.array([OUTSIDE in flag for flag in flags], dtype=bool)
    if not hit.any() or settings.keep_flagged:
        return
    taken = long.leave_out(hit, f"flagged when it was measured: {OUTSIDE}")
    message = f"{plural(taken, 'value')} flagged '{OUTSIDE}' left out; --keep-flagged takes them in"
    long.note("flagged", message, Severity.INFO)


def _absurd(long: LongTable) -> None:
    """Leave out numbers so large or small that their squares are none; no scanner measures them."""
    values = np.abs(long.frame["value"].to_numpy(dtype=float))
    rows = (values > _LARGEST) | ((values > 0) & (values < 1 / _LARGEST))
    if rows.any():
        taken = long.leave_out(rows, f"the size of the number is beyond {_LARGEST:g}, or below its inverse")
        long.note(
            "absurd", f"{plural(taken, 'value')} too large or small to be measured ({long.lines(rows)})"
        )
    for name in ("reference", "age", *long.covariates):
        column = long.frame[name]
        if column.dtype.kind == "f":
            long.frame.loc[column.abs() > _LARGEST, name] = np.nan


def _unplaced(long: LongTable) -> None:
    """Leave out rows that do not say whose value it is, where the other rows do."""
    for name in ("subject", "scanner", "quantity"):
        empty = _partly_empty(long, name)
        if empty.any():
            taken = long.leave_out(empty, f"no {name} is named")
            message = f"{plural(taken, 'row')} without a name left out ({long.lines(empty)})"
            long.note("unplaced", f"{_column(long, name)}: {message}")
    for name in ("site", "vendor", "session"):
        empty = _partly_empty(long, name)
        if empty.any():
            message = f"{plural(int(empty.sum()), 'row')} without a name, taken together as '(not named)'"
            long.note("unplaced", f"{_column(long, name)}: {message} ({long.lines(empty)})")
            long.frame.loc[empty, name] = "(not named)"


def _partly_empty(long: LongTable, name: str) -> Mask:
    """Tell which rows lack a label that other rows have; none where all lack it."""
    empty = np.asarray(long.frame[name].to_numpy() == "", dtype=bool)
    return empty if not empty.all() else np.zeros_like(empty)


def _column(long: LongTable, name: str) -> str:
    return f"column {long.roles.columns.get(name, name)!r}"


def _copies(long: LongTable) -> None:
    """Take out rows that are copies of an earlier one in every column of the file.

    Two repeats may well give the same number.  A row is a copy where session, run or date should
    tell repeats apart and do not, or where the number has too many digits to come twice.
    """
    frame = long.frame
    alive = (frame["left_out"] == "").to_numpy() & np.isfinite(frame["value"].to_numpy(dtype=float))
    same = frame["copy"].to_numpy(dtype=bool) & alive
    if not same.any():
        return
    telling = any((frame[name] != "").any() for name in ("session", "run", "acquired"))
    digits = np.array([_digits(value) for value in frame["value"].to_numpy(dtype=float)[same]])
    sure = same.copy()
    sure[same] = telling | (digits >= _LONG_NUMBER)
    if sure.any():
        taken = long.leave_out(sure, "copy of an earlier row")
        message = f"{plural(taken, 'value')} of rows equal to an earlier row left out ({long.lines(sure)})"
        long.note("duplicate", message)
    doubtful = same & ~sure
    if doubtful.any():
        message = (
            f"{plural(int(doubtful.sum()), 'value')} of rows equal to an earlier row kept as repeats "
            f"({long.lines(doubtful)}); if they are copies, remove them; if not, name the column that "
            "tells repeats apart with --map run="
        )
        long.note("possible-duplicate", message)


def _digits(value: float) -> int:
    """Count the significant digits of a number as it would be written."""
    mantissa = f"{value:.12e}".partition("e")[0]
    return len(mantissa.strip("-").replace(".", "").strip("0"))


def _conflicts(long: LongTable) -> None:
    """Say when rows that should be one measurement hold different values; they count as repeats.

    With runs every further row is one too many; with sessions or dates only, those beyond what
    most have, since repeats within a session may go without a number.
    """
    frame = long.used
    numbered = bool((frame["run"] != "").any())
    if not numbered and not any((frame[name] != "").any() for name in ("session", "acquired")):
        return
    known = frame[np.isfinite(frame["value"].to_numpy(dtype=float))]
    place = known.groupby(["quantity", "region", *_PLACES, "group"], sort=False, dropna=False, observed=True)
    usual = 1 if numbered or not len(known) else int(place.size().mode().min())
    double = place.cumcount() >= usual
    if double.any():
        lines = shown_lines(known.loc[double, "line"].tolist())
        keys = "subject, session, run and scanner" if numbered else "subject, session and scanner"
        message = (
            f"{plural(int(double.sum()), 'row')} with {keys} of an earlier row and a value of their own "
            f"({lines}) count as further repeats; if something else differs, split by that column with --by"
        )
        long.note("conflict", message)


def _lookalikes(long: LongTable) -> None:
    """Say when two labels differ only in case, blanks or punctuation."""
    for name in _LABELS:
        folded: dict[str, set[str]] = defaultdict(set)
        for label in set(long.used[name].tolist()):
            folded[re.sub(r"[\W_]+", "", label.casefold())].add(label)
        for labels in folded.values():
            if len(labels) > 1:
                words = " and ".join(repr(label) for label in sorted(labels, key=natural_key))
                message = f"{name}s {words} are taken to be different; if they are not, write them alike"
                long.note("lookalike", message)


def _group_changes(long: LongTable) -> None:
    """Say when one subject stands in several groups: a slip, or people who are not independent."""
    used = long.used
    known = used.loc[(used["group"] != "") & (used["subject"] != ""), ["subject", "group"]].drop_duplicates()
    names = sorted(set(known.loc[known.duplicated("subject"), "subject"].tolist()), key=natural_key)
    if names:
        verb = "stands" if len(names) == 1 else "stand"
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        message = (
            f"{plural(len(names), 'subject')} {verb} in more than one group ({shown}); correct the column"
        )
        long.note("group-changes", f"{message} of groups unless they did change")


def _implausible(long: LongTable) -> None:
    """Say which values are outside what tissue or a phantom can have, and which are not above zero."""
    used = long.used
    for name, scope in long.scopes.items():
        part = used[used["quantity"] == name]
        values = part["value"].to_numpy(dtype=float)
        bad = values <= 0
        if scope.scale == "ratio" and bad.any():
            message = (
                f"{scope.label}: {plural(int(bad.sum()), 'value')} zero or negative "
                f"({shown_lines(part.loc[bad, 'line'].tolist())}); regions that hold one get no CV and no "
                "percentages, but SD and coefficients in units"
            )
            long.note("not-positive", message)
        outside = (values < scope.low) | (values > scope.high)
        outside &= ~bad if scope.scale == "ratio" else np.isfinite(values)
        if outside.any():
            message = (
                f"{scope.label}: {plural(int(outside.sum()), 'value')} outside the plausible range "
                f"{scope.low:g} to {scope.high:g} {scope.unit} "
                f"({shown_lines(part.loc[outside, 'line'].tolist())}); kept"
            )
            long.note("implausible", message)


def _constant(long: LongTable) -> None:
    """Say where all values are equal, so that nothing can be learned from them."""
    used = long.used.dropna(subset=["value"])
    grouped = used.groupby(["quantity", "region"], sort=False, observed=True)["value"]
    flat = grouped.agg(["min", "max", "size"])
    flat = flat[(flat["min"] == flat["max"]) & (flat["size"] > 1)]
    for quantity, part in flat.groupby(level=0, sort=False):
        regions = [str(region) for _, region in part.index]
        scope = long.scopes[str(quantity)]
        where = ", ".join(region for region in regions[:6] if region != WHOLE) + (
            ", ..." if len(regions) > 6 else ""
        )
        message = f"{scope.label}: all values are equal, so nothing can be learned about their spread"
        long.note("constant", message, where=where)
