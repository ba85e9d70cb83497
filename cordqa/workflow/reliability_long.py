"""From a table as text to one row per value, with everything that was left out and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError
from cordqa.io.files import printable
from cordqa.io.table_numbers import BadCell, looks_numeric, parse_numbers
from cordqa.io.tables import RawTable
from cordqa.quantities import find_quantity
from cordqa.records import Notice, Severity
from cordqa.workflow.reliability_options import Exclusion
from cordqa.workflow.reliability_roles import Roles, assign_roles, find_column
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_table import (
    KEYS,
    MIXED,
    RELATED,
    WHOLE,
    LongTable,
    Mask,
    Scope,
    Text,
    natural_key,
    plural,
    shown_lines,
)

__all__ = ["make_long"]

#: Labels that say nothing.  Narrower than for numbers: a group may well be called "none".
_NO_LABEL = frozenset({"", "n/a", "na", "#n/a", "nan", "null"})
_WHOLE = re.compile(r"(\d+)\.0+", re.ASCII)


def make_long(table: RawTable, settings: ReliabilitySettings) -> LongTable:
    """Turn a table as text into one row per value.

    Parameters
    ----------
    table : RawTable
    settings : ReliabilitySettings
        ``map``, ``value``, ``gather``, ``where``, ``by``, ``covariate``, ``exclude``, ``unit``,
        ``scale``, ``decimal``.

    Returns
    -------
    LongTable
        Values are numbers or NaN; units are not yet compared.

    Raises
    ------
    TableError
        If a column is missing.
    EmptyInputError
        If no row is left.
    """
    roles = assign_roles(table, settings)
    build = _Build(table, roles, settings)
    rows = build.rows_wanted()
    return build.long(rows)


class _Build:
    """Puts the long table together, column by column."""

    def __init__(self, table: RawTable, roles: Roles, settings: ReliabilitySettings) -> None:
        self.table, self.roles, self.settings = table, roles, settings
        self.notices: list[Notice] = [*table.notices, *roles.notices]
        self._cache: dict[str, Text] = {}

    def labels(self, column: str) -> Text:
        """Return a column as clean labels; words for "no value" are empty."""
        if column not in self._cache:
            cells = self.table.cells[column]
            clean = {cell: _clean(cell) for cell in set(cells)}
            filled = [label for label in clean.values() if label]
            if filled and any(_WHOLE.fullmatch(x) for x in filled) and all(_is_whole(x) for x in filled):
                # Programs that met an empty cell write 7 as 7.0; both are the seventh subject.
                clean = {cell: label.partition(".")[0] for cell, label in clean.items()}
            labels = np.empty(len(cells), dtype=object)
            labels[:] = [clean[cell] for cell in cells]
            self._cache[column] = labels
        return self._cache[column]

    def role(self, name: str) -> Text | None:
        """Return the labels of a role, or None where no column has it."""
        return self.labels(self.roles.columns[name]) if name in self.roles.columns else None

    def rows_wanted(self) -> Mask:
        """Apply ``where``; the rest of the file is not part of the analysis."""
        wanted = np.ones(len(self.table), dtype=bool)
        for name, allowed in self.settings.where.items():
            column = find_column(self.table, name, what="where", roles=self.roles.columns)
            labels = self.labels(column)
            keep = np.isin(labels, list(allowed))
            if not (wanted & keep).any():
                present = sorted(set(labels[wanted].tolist()), key=natural_key)
                raise EmptyInputError(
                    f"no row has {column} = {', '.join(allowed)}",
                    where=self.table.name,
                    found=", ".join(present[:8]) + (", ..." if len(present) > 8 else ""),
                )
            wanted &= keep
        if self.settings.where:
            words = "; ".join(f"{name} = {', '.join(some)}" for name, some in self.settings.where.items())
            message = f"{int(wanted.sum())} of {plural(len(wanted), 'row')} are analysed: {words}"
            self.note("where", message, Severity.INFO)
        return wanted

    def note(self, code: str, message: str, severity: Severity) -> None:
        self.notices.append(
            Notice(severity=severity, message=message, where=self.table.name, code=f"table.{code}")
        )

    def numbers(self, column: str, rows: Mask, *, what: str) -> NDArray[np.float64]:
        """Return a column as numbers, and say of every cell that is none why."""
        found = parse_numbers(self.table, column, decimal=self.settings.decimal)
        self.notices.extend(found.notices)
        inside = [cell for cell in found.bad if rows[cell.row]]
        for kind, words, todo in _BAD_WORDS:
            cells = [cell for cell in inside if cell.kind == kind]
            if cells:
                self.note(kind, _bad_sentence(column, cells, words, todo), Severity.WARNING)
        absent = int((found.missing & rows).sum())
        if absent and what == "value":
            message = f"column {column!r}: {absent} of {plural(int(rows.sum()), 'cell')} are empty"
            self.note("missing", message, Severity.INFO)
        return found.values

    def long(self, rows: Mask) -> LongTable:
        """Stack the columns of values."""
        import pandas as pd

        shared = self.shared(rows)
        blocks = []
        for column, quantity in self.roles.values.items():
            block = dict(shared)
            block["value"] = self.numbers(column, rows, what="value")[rows]
            block["quantity"] = self.quantity(column, quantity)[rows]
            if self.settings.gather[0]:
                block[self.settings.gather[0]] = _filled(int(rows.sum()), column)
            blocks.append(pd.DataFrame(block))
        frame = pd.concat(blocks, ignore_index=True) if len(blocks) > 1 else blocks[0]
        scopes, units = self.scopes(frame["quantity"].tolist(), frame["line"].tolist())
        frame["unit"] = units
        frame["left_out"] = ""
        long = LongTable(
            frame=frame,
            scopes=scopes,
            covariates=tuple(name for name in self.settings.covariate if name in shared),
            roles=self.roles,
            name=self.table.name,
            n_rows=len(self.table),
            notices=self.notices,
            dropped=self.table.dropped,
        )
        for exclusion in self.settings.exclude:
            self.exclude(long, exclusion, rows)
        return long

    def shared(self, rows: Mask) -> dict[str, Any]:
        """Columns that do not depend on which column of values is taken."""
        count = int(rows.sum())
        found: dict[str, Any] = {}
        for name in KEYS:
            labels = self.role(name)
            found[name] = _filled(count, "") if labels is None else labels[rows]
        region, level = self.role("region"), self.role("level")
        found["region_name"] = _filled(count, "") if region is None else region[rows]
        found["level"] = _filled(count, "") if level is None else level[rows]
        parts = [found["level"], found["region_name"]]
        parts += [
            self.labels(find_column(self.table, c, what="by", roles=self.roles.columns))[rows]
            for c in self.settings.by
        ]
        found["region"] = _joined(parts, count)
        empty = found["region"] == ""
        found["region"][empty] = WHOLE if empty.all() else "(not named)"
        for name in ("reference", "age"):
            column = self.roles.columns.get(name)
            found[name] = (
                np.full(count, math.nan) if column is None else self.numbers(column, rows, what=name)[rows]
            )
        for name in self.settings.covariate:
            column = find_column(self.table, name, what="covariate", roles=self.roles.columns)
            found[name] = found[name] if name in found else self.covariate(column, rows)
        flags = [c for c in self.table.columns if c.casefold() == "flags"]
        found["flags"] = self.labels(flags[0])[rows] if flags else _filled(count, "")
        for name in MIXED:
            if name in self.table.columns:
                found[name] = self.labels(name)[rows]
        for name in {one.column for one in self.settings.relate} - {""}:
            column = find_column(self.table, name, what="relate", roles=self.roles.columns)
            found[RELATED] = self.labels(column)[rows]
        found["line"] = np.array(self.table.lines)[rows]
        found["copy"] = self.copies(rows)[rows]
        return found

    def copies(self, rows: Mask) -> Mask:
        """Tell which rows equal an earlier one in every column of the file."""
        seen: set[tuple[str, ...]] = set()
        copies = np.zeros(len(self.table), dtype=bool)
        columns = zip(*self.table.cells.values(), strict=True)
        for index, (row, wanted) in enumerate(zip(columns, rows.tolist(), strict=True)):
            if wanted:
                copies[index] = row in seen
                seen.add(row)
        return copies

    def covariate(self, column: str, rows: Mask) -> Any:
        if looks_numeric(self.table.cells[column]):
            return self.numbers(column, rows, what="covariate")[rows]
        return self.labels(column)[rows]

    def quantity(self, column: str, named: str) -> Text:
        """Name the quantity of every row."""
        column_of_quantities = self.role("quantity")
        if self.settings.gather[0]:
            return _filled(len(self.table), "value") if column_of_quantities is None else column_of_quantities
        explicit = named not in ("", column)
        if column_of_quantities is None or explicit:
            return _filled(len(self.table), _canonical(named or column))
        several = len(self.roles.values) > 1
        names = {q: _canonical(f"{q} {column}" if several else q) for q in set(column_of_quantities)}
        labels = np.empty(len(self.table), dtype=object)
        labels[:] = [names[q] for q in column_of_quantities]
        return labels

    def scopes(self, quantities: list[str], lines: list[int]) -> tuple[dict[str, Scope], Text]:
        """Unit and scale of every quantity, and the unit of every row as it is written."""
        written = self.role("unit")
        units = _filled(len(lines), "")
        if written is not None:
            by_line = dict(zip(self.table.lines, written.tolist(), strict=True))
            units[:] = [by_line[line] for line in lines]
        scopes = {}
        for name in dict.fromkeys(quantities):
            known = find_quantity(name)
            given, scale = _of_quantity(self.settings.unit, name), _of_quantity(self.settings.scale, name)
            if known is None and not scale:
                self.note(
                    "unknown-quantity",
                    f"the quantity {name!r} is not registered and is taken to be on a ratio scale (zero "
                    f"means none); if it is a difference or a susceptibility, give --scale {name}=interval",
                    Severity.INFO,
                )
            scopes[name] = Scope(
                quantity=name,
                label=known.label if known else name,
                unit=given or (known.unit if known else ""),
                scale=scale or (known.scale if known else "ratio"),
                low=known.low if known else -math.inf,
                high=known.high if known else math.inf,
            )
        self._unmatched(scopes)
        return scopes, units

    def _unmatched(self, scopes: Mapping[str, Scope]) -> None:
        """Say which options name a quantity that the table does not hold."""
        present = {name.casefold() for name in scopes}
        for option, given in (("--unit", self.settings.unit), ("--scale", self.settings.scale)):
            for name in given:
                if name and name.casefold() not in present:
                    found = ", ".join(list(scopes)[:8])
                    message = f"{option}: the table has no quantity {name!r} (found {found}); not used"
                    self.note("option", message, Severity.WARNING)

    def exclude(self, long: LongTable, exclusion: Exclusion, rows: Mask) -> None:
        """Leave out the rows that a user wants left out."""
        hit = np.ones(len(self.table), dtype=bool)
        for name, label in exclusion.conditions:
            column = find_column(self.table, name, what="exclude", roles=self.roles.columns)
            hit &= self.labels(column) == label
        lines = np.array(self.table.lines)[hit & rows]
        words = ", ".join(f"{name} = {label}" for name, label in exclusion.conditions)
        if not lines.size:
            long.note("exclude", f"no row has {words}, so that nothing was left out for: {exclusion.reason}")
        long.leave_out(np.isin(long.frame["line"].to_numpy(), lines), f"{words}: {exclusion.reason}")


def _of_quantity(option: Mapping[str, str], name: str) -> str:
    """Return what an option says of a quantity, in any case where not in its own, else of all."""
    folded = {key.casefold(): given for key, given in option.items()}
    return option.get(name) or folded.get(name.casefold()) or option.get("", "")


_BAD_WORDS = (
    ("text", "text where a number is expected", "correct or empty them; they count as missing"),
    ("infinite", "infinity", "correct or empty them; they count as missing"),
    (
        "decimal-comma",
        "a comma that may separate decimals or thousands",
        "give --decimal ',' or '.'; until then they count as missing",
    ),
)


def _bad_sentence(column: str, cells: Sequence[BadCell], words: str, todo: str) -> str:
    lines = shown_lines([cell.line for cell in cells])
    count = plural(len(cells), "cell")
    verb = "holds" if len(cells) == 1 else "hold"
    return f"column {column!r}: {count} {verb} {words} ({lines}, for example {cells[0].text!r}); {todo}"


def _clean(cell: str) -> str:
    """Return a label as it may be shown; what means "no value" is empty."""
    return "" if cell.casefold() in _NO_LABEL else printable(" ".join(cell.split()), limit=120)


def _is_whole(label: str) -> bool:
    return not label or (label.isascii() and label.isdecimal()) or bool(_WHOLE.fullmatch(label))


def _filled(count: int, label: str) -> Text:
    labels = np.empty(count, dtype=object)
    labels[:] = label
    return labels


def _joined(parts: Iterable[Text], count: int) -> Text:
    """Join labels that vary; a part that is the same everywhere says nothing."""
    telling = [part for part in parts if len(set(part.tolist())) > 1]
    if not telling:
        telling = [part for part in parts if len(part) and part[0]][:1]
    if not telling:
        return _filled(count, "")
    joined = np.empty(count, dtype=object)
    joined[:] = [" ".join(word for word in words if word) for words in zip(*telling, strict=True)]
    return joined


def _canonical(name: str) -> str:
    known = find_quantity(name)
    return known.id if known else (name or "value")
