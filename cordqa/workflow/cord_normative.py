"""Compare a participant with a table of controls: z-scores for age, sex and vendor."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cordqa.cord.normative import NormativeModel, attach_score, fit_normative, score_person
from cordqa.errors import CordqaError, TableError
from cordqa.io.table_numbers import parse_numbers
from cordqa.io.tables import RawTable, read_table
from cordqa.quantities import find_quantity
from cordqa.records import Severity
from cordqa.workflow.cord_records import Unit

__all__ = ["NormativeTable", "read_controls", "read_normative", "score_rows"]

#: Names that tables of cord morphometry use for a column.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "subject": ("subject", "participant_id", "participant"),
    "age": ("age", "age_years"),
    "sex": ("sex", "gender"),
    "vendor": ("vendor", "manufacturer"),
    "level": ("level", "vertlevel", "vertebral_level"),
    "quantity": ("quantity",),
    "value": ("value",),
    "health": ("pathology", "diagnosis"),
}
#: How tables write that a person is a control.
_HEALTHY = ("", "hc", "control", "controls", "healthy", "healthy control", "n/a", "none", "con")
_SEVERAL = re.compile(r"([CTL]\d{1,2})[-:/]?([CTL]\d{1,2})")
_QUANTITIES: Mapping[str, str] = {
    "mean(area)": "CSA",
    "area": "CSA",
    "csa_mm2": "CSA",
    "mean(diameter_ap)": "diameter_AP",
    "mean(diameter_rl)": "diameter_RL",
    "diam_ap": "diameter_AP",
    "diam_rl": "diameter_RL",
    "area_mm2": "CSA",
    "ecc": "eccentricity",
    "diameter_ap_mm": "diameter_AP",
    "diameter_rl_mm": "diameter_RL",
    "mean(eccentricity)": "eccentricity",
    "mean(solidity)": "solidity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NormativeTable:
    """Models of controls by (quantity, level)."""

    models: Mapping[tuple[str, str], NormativeModel]
    name: str
    sha256: str


def read_normative(path: Path) -> NormativeTable:
    """Read a reference file (``.json``), or fit one model per quantity and level from a table of controls.

    The table has one row per control and level with columns subject, age, sex, level, and either
    quantity and value or one column per quantity (CSA, diameter_AP, ...); vendor where there is one.

    Raises
    ------
    TableError, UnreadableFileError
        If a column is missing, no quantity has enough controls, or the file is no reference.
    """
    if path.suffix == ".json":
        from cordqa.workflow.cord_reference import read_reference

        return read_reference(path)
    return read_controls(path)[0]


def read_controls(path: Path) -> tuple[NormativeTable, tuple[str, ...]]:
    """Fit the models of :func:`read_normative` to a table; also say what was left out of it."""
    table = read_table(path)
    names = {role: _find(table, role) for role in _COLUMNS}
    for role in ("age", "sex"):
        if not names[role]:
            raise TableError(
                f"has no column for {role}", where=table.name, found=", ".join(table.columns[:12])
            )
    healthy, said = _controls(table, names["health"])
    values = _values(table, names, healthy)
    if not values:
        raise TableError(
            "has no column of a quantity that is known", where=table.name, expected="CSA, diameter_AP, ..."
        )
    ages = parse_numbers(table, names["age"], decimal="auto").values
    models: dict[tuple[str, str], NormativeModel] = {}
    problems: list[str] = []
    for key, rows in values.items():
        chosen = list(dict(rows))
        try:
            models[key] = fit_normative(
                [value for _, value in rows],
                age_years=[float(ages[i]) for i in chosen],
                sex=[table.cells[names["sex"]][i] for i in chosen],
                vendor=[table.cells[names["vendor"]][i] for i in chosen] if names["vendor"] else None,
                source=table.name,
            )
        except CordqaError as error:
            problems.append(f"{key[0]} {key[1]}".strip() + f": {error}")
    if not models:
        raise TableError("holds no reference that can be used", where=table.name, found=problems[-1])
    said += tuple(f"no model of {problem}" for problem in problems)
    return NormativeTable(models=models, name=table.name, sha256=table.sha256), said


def _find(table: RawTable, role: str) -> str:
    folded = {name.casefold(): name for name in table.columns}
    return next((folded[name] for name in _COLUMNS[role] if name in folded), "")


def _controls(table: RawTable, column: str) -> tuple[list[bool], tuple[str, ...]]:
    """Tell which rows are of controls: all, where no column says anything about health."""
    if not column:
        return [True] * len(table), ()
    healthy = [text.strip().casefold() in _HEALTHY for text in table.cells[column]]
    left = len(healthy) - sum(healthy)
    return healthy, (f"{left} rows left out, whose {column} is that of no control",) if left else ()


def _values(
    table: RawTable, names: Mapping[str, str], healthy: Sequence[bool]
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Rows by quantity and level; the first row of a person counts, for repeats are not new people."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    seen: set[tuple[str, str, str]] = set()
    count = len(table)
    levels = table.cells[names["level"]] if names["level"] else [""] * count
    people = table.cells[names["subject"]] if names["subject"] else [str(i) for i in range(count)]
    if names["quantity"] and names["value"]:
        columns = {names["value"]: table.cells[names["quantity"]]}
    else:
        known = {name: _quantity(name) for name in table.columns}
        columns = {name: [quantity] * count for name, quantity in known.items() if quantity}
    for column, quantities in columns.items():
        numbers = parse_numbers(table, column, decimal="auto").values
        for i in range(count):
            key = (quantities[i], _level(levels[i]))
            if healthy[i] and math.isfinite(numbers[i]) and (*key, people[i]) not in seen:
                seen.add((*key, people[i]))
                found[key].append((i, float(numbers[i])))
    return dict(found)


def _quantity(column: str) -> str:
    known = find_quantity(column)
    return known.id if known is not None else _QUANTITIES.get(column.strip().casefold(), "")


def _level(text: str) -> str:
    """Write a level as C3, also where the table has the number of the vertebra."""
    cleaned = text.strip().upper()
    if cleaned.endswith(".0"):
        cleaned = cleaned[:-2]
    if cleaned.isdecimal() and cleaned.isascii():
        from cordqa.cord.levels import LEVEL_NAMES

        number = int(cleaned)
        return LEVEL_NAMES[number - 1] if 1 <= number <= len(LEVEL_NAMES) else cleaned
    # Several levels together: C2C3 and C2:C3 are C2-C3.
    several = _SEVERAL.fullmatch(cleaned)
    return f"{several.group(1)}-{several.group(2)}" if several else cleaned


def score_rows(unit: Unit, table: NormativeTable, person: Mapping[str, str]) -> None:
    """Write z-scores into the rows of the cord's shape that the table knows."""
    try:
        age = float(person.get("age", "nan").rstrip("+"))
    except ValueError:
        age = math.nan
    scored = 0
    for n, row in enumerate(unit.rows):
        model = table.models.get((row.quantity, row.level))
        if model is None or row.region != "cord" or row.method != "perpendicular to the centreline":
            continue
        score = score_person(
            model, row.value, age_years=age, sex=person.get("sex", ""), vendor=row.entities.vendor
        )
        unit.rows[n] = attach_score(row, score, source=f"{table.name}, {model.n} controls")
        scored += math.isfinite(score.z)
    if not scored:
        unit.note(
            "cord.no-normative",
            f"no value could be compared with {table.name}: it needs levels, and age and sex in "
            "participants.tsv",
            "controls",
            Severity.WARNING,
        )
    elif any(image.mask.engine != "user" for image in unit.images):
        unit.note(
            "cord.normative-engine",
            f"the controls of {table.name} may have been measured with another engine or contrast; areas of "
            "different engines differ by several percent, so build the table from controls measured alike",
            "controls",
        )
