"""Which column of a table is what: named by the user, or recognised by its usual names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cordqa.errors import TableError
from cordqa.io.table_numbers import looks_numeric
from cordqa.io.tables import RawTable
from cordqa.quantities import find_quantity
from cordqa.records import Notice, Severity
from cordqa.workflow.reliability_settings import ROLES, ReliabilitySettings

__all__ = ["Roles", "assign_roles", "find_column"]

#: Usual names, compared without case and punctuation; the first that exists is taken.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "value": ("value", "measurement", "measured"),
    "quantity": ("quantity", "metric", "measure", "parameter"),
    "unit": ("unit", "units"),
    "region": ("region", "roi", "tract", "label", "structure"),
    "level": ("level", "vertlevel", "vertebrallevel", "spinallevel"),
    "subject": ("subject", "participantid", "subjectid", "participant", "sub", "subj", "person", "phantom"),
    "session": ("session", "sessionid", "ses", "visit", "timepoint"),
    "run": ("run", "runid", "replicate", "repeat", "repetition", "rep"),
    "scanner": ("scanner", "scannerid", "device", "machine", "station"),
    "site": ("site", "siteid", "center", "centre", "institution", "hospital"),
    "vendor": ("vendor", "manufacturer"),
    "model": ("model", "scannermodel", "manufacturersmodelname", "manufacturermodelname"),
    "software": ("software", "softwareversion", "softwareversions"),
    "acquired": ("acquired", "acquisitiondate", "acquisitiontime", "acqtime", "date", "scandate", "datetime"),
    "reference": ("reference", "ref", "referencevalue", "truevalue", "truth", "certified", "nominal"),
    "group": ("group", "diagnosis", "dx", "pathology", "disease", "condition"),
    "age": ("age", "ageyears"),
    "sex": ("sex", "gender"),
}
#: A column of text with more labels than this is not listed as a candidate for anything.
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which column is what.

    Attributes
    ----------
    columns : mapping of role to column
    values : mapping of column to quantity
        Columns of values; the quantity is empty where the table has a column of quantities.
    notices : tuple of Notice
    """

    columns: Mapping[str, str]
    values: Mapping[str, str]
    notices: tuple[Notice, ...] = ()


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.casefold())


def find_column(table: RawTable, name: str, *, what: str, roles: Mapping[str, str] | None = None) -> str:
    """Return the column of that name, or that has that role.

    Raises
    ------
    TableError
        If there is none; names the most similar one.
    """
    if name in table.columns:
        return name
    if roles is not None and name in roles:
        return roles[name]
    folded = {_fold(column): column for column in table.columns}
    if _fold(name) in folded and _fold(name):
        return folded[_fold(name)]
    close = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=0.6)
    todo = f"did you mean {folded[close[0]]!r}?" if close else f"columns are {_listed(table.columns)}"
    raise TableError(f"there is no column {name!r}", where=f"{table.name}, {what}", todo=todo)


def assign_roles(table: RawTable, settings: ReliabilitySettings) -> Roles:
    """Decide which column is what.

    Raises
    ------
    TableError
        If a column that the user names is missing, one column is given two roles, or no column
        of values is found.
    """
    columns = {role: find_column(table, name, what=f"map {role}") for role, name in settings.map.items()}
    gathered = [find_column(table, name, what="gather") for name in settings.gather[1]]
    chosen = {find_column(table, name, what="value"): quantity for name, quantity in settings.value.items()}
    taken = {*columns.values(), *gathered, *chosen}
    _check_once(table, [*columns.values(), *gathered, *chosen])
    for role in ROLES:
        if role in columns or (role == "value" and (chosen or gathered)) or role == settings.gather[0]:
            continue
        found = _usual(table, role, taken)
        if found:
            columns[role] = found
            taken.add(found)
    values = _value_columns(table, settings, columns, chosen, gathered, taken)
    named = {role: column for role, column in columns.items() if role != "value"}
    return Roles(columns=named, values=values, notices=_notices(table, named, values))


def _check_once(table: RawTable, columns: Sequence[str]) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise TableError(f"column {twice[0]!r} is given two roles", where=table.name, todo="give it one")


def _usual(table: RawTable, role: str, taken: set[str]) -> str:
    folded = {_fold(column): column for column in reversed(table.columns) if column not in taken}
    return next((folded[alias] for alias in _ALIASES[role] if alias in folded), "")


def _value_columns(
    table: RawTable,
    settings: ReliabilitySettings,
    columns: Mapping[str, str],
    chosen: Mapping[str, str],
    gathered: Sequence[str],
    taken: set[str],
) -> dict[str, str]:
    """Find the columns of values and the quantity of each."""
    if gathered:
        return dict.fromkeys(gathered, "")
    if chosen:
        return dict(chosen)
    if "value" in columns:
        return {columns["value"]: "" if "quantity" in columns else columns["value"]}
    known = {
        column: quantity.id
        for column in table.columns
        if column not in taken
        and (quantity := find_quantity(column)) is not None
        and looks_numeric(table.cells[column])
    }
    if known:
        return known
    numeric = [c for c in table.columns if c not in taken and looks_numeric(table.cells[c])]
    raise TableError(
        "no column of values is named 'value' or after a quantity that cordqa knows",
        where=table.name,
        found=f"columns of numbers: {_listed(numeric)}" if numeric else "no further column of numbers",
        todo="name the columns with --value, for example --value " + (numeric[0] if numeric else "csa"),
    )


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _notices(table: RawTable, roles: Mapping[str, str], values: Mapping[str, str]) -> tuple[Notice, ...]:
    used = [f"{role} = {column}" for role, column in roles.items()]
    used += [f"values = {', '.join(f'{c} ({q})' if q and q != c else c for c, q in values.items())}"]
    rest = [column for column in table.columns if column not in {*roles.values(), *values}]
    message = f"columns in use: {'; '.join(used)}"
    message += f". Columns not in use: {_listed(rest)}" if rest else ""
    return (Notice(severity=Severity.INFO, message=message, where=table.name, code="table.columns"),)
