"""Options of a reliability run: the same names in a YAML file and on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cordqa.errors import ConfigError
from cordqa.resources import read_yaml
from cordqa.workflow.reliability_options import (
    Difference,
    Exclusion,
    Limit,
    Published,
    Relation,
    choice,
    flag,
    group_of,
    many,
    number,
    pairs,
    parse_difference,
    parse_exclusion,
    parse_limits,
    parse_published,
    parse_relations,
    parse_values,
    parse_where,
    text,
    whole,
)

__all__ = ["ROLES", "ReliabilitySettings", "make_settings", "read_options"]

#: What a column can be.
ROLES = (
    "value",
    "quantity",
    "unit",
    "region",
    "level",
    "subject",
    "session",
    "run",
    "scanner",
    "site",
    "vendor",
    "model",
    "software",
    "acquired",
    "reference",
    "group",
    "age",
    "sex",
)
_METHODS = ("travelling", "combat", "covbat", "longcombat")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilitySettings:
    """Options of a run, by their names in the YAML file; see ``docs/reliability.md``.

    Attributes
    ----------
    map : mapping of role to column
        Which column is what, where its name does not say it.
    value : mapping of column to quantity
        Columns of values; several make one quantity each.
    gather : (role, columns)
        Columns that hold one quantity as seen by several scanners (or in several sessions).
    unit, scale : mapping of quantity to unit, to ``ratio`` or ``interval``
        Under ``""`` for all quantities.
    where : mapping of column to labels
        Rows to analyse.
    exclude : tuple of Exclusion
        Rows to leave out, each with its reason.
    by, covariate, marker : tuple of str
        Further columns that split the table; that are adjusted for; markers to compare.
    subject_within : str
        Column within which the names of subjects are unique (empty: everywhere).
    compare, batch : str
        Column whose levels are compared in pairs; that harmonisation takes out.
    case : str
        Label of the group that counts as cases.
    harmonise, definition : str
    scanners : str
        ``random`` or ``fixed``.
    error_ratio : float
        Variance of the error of measured over reference values; 0 for references without error.
    limit, published, difference : tuples
        Limits to judge by, published percentages to check, effects to plan for.
    relate : tuple of Relation
        Quantities to relate to each other.
    level : float
    baseline : int
    simultaneous, keep_flagged : bool
    detail : str
    seed : int
    delimiter, decimal : str
    names : str
        How names of scans are built in tables of other programs, such as ``{subject}_{session}``.
    """

    map: Mapping[str, str] = field(default_factory=dict)
    value: Mapping[str, str] = field(default_factory=dict)
    gather: tuple[str, tuple[str, ...]] = ("", ())
    unit: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[Exclusion, ...] = ()
    by: tuple[str, ...] = ()
    covariate: tuple[str, ...] = ()
    marker: tuple[str, ...] = ()
    subject_within: str = ""
    compare: str = ""
    batch: str = ""
    case: str = ""
    harmonise: str = ""
    definition: str = ""
    scanners: str = "random"
    error_ratio: float = 0.0
    limit: tuple[Limit, ...] = ()
    published: tuple[Published, ...] = ()
    difference: tuple[Difference, ...] = ()
    relate: tuple[Relation, ...] = ()
    level: float = 0.95
    baseline: int = 20
    simultaneous: bool = False
    keep_flagged: bool = False
    detail: str = "auto"
    seed: int = 0
    delimiter: str = "auto"
    decimal: str = "auto"
    names: str = ""


def _roles(raw: Any, where: str) -> dict[str, str]:
    found = pairs(raw, where)
    for role in found:
        if role not in ROLES:
            close = difflib.get_close_matches(role, ROLES, n=1)
            todo = f"did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                "no such role of a column", where=where, found=repr(role),
                expected=f"one of {', '.join(ROLES)}", todo=todo,
            )  # fmt: skip
    return found


def _scales(raw: Any, where: str) -> dict[str, str]:
    found = pairs(raw, where, default_key="")
    for scale in found.values():
        choice(scale, where, ("ratio", "interval"))
    return found


def _level(raw: Any, where: str) -> float:
    value = number(raw, where)
    if not 0.5 <= value < 1.0:
        raise ConfigError("must lie between 0.5 and 1", where=where, found=str(raw), expected="such as 0.95")
    return value


def _ratio(raw: Any, where: str) -> float:
    value = number(raw, where)
    if value < 0.0:
        raise ConfigError("must not be negative", where=where, found=str(raw))
    return value


def _one_of(*allowed: str) -> Callable[[Any, str], str]:
    return lambda raw, where: choice(raw, where, allowed)


#: How each option is read, from YAML or from the command line.
_READERS: dict[str, Callable[[Any, str], Any]] = {
    "map": _roles,
    "value": parse_values,
    "gather": group_of,
    "unit": lambda raw, where: pairs(raw, where, default_key=""),
    "scale": _scales,
    "where": parse_where,
    "exclude": parse_exclusion,
    "by": many,
    "covariate": many,
    "marker": many,
    "subject_within": text,
    "compare": text,
    "batch": text,
    "case": text,
    "harmonise": _one_of("", *_METHODS),
    "definition": _one_of("", "spine-generic"),
    "scanners": _one_of("random", "fixed"),
    "error_ratio": _ratio,
    "limit": parse_limits,
    "published": parse_published,
    "difference": parse_difference,
    "relate": parse_relations,
    "level": _level,
    "baseline": lambda raw, where: whole(raw, where, low=8, high=1000),
    "simultaneous": flag,
    "keep_flagged": flag,
    "detail": _one_of("auto", "full", "headline"),
    "seed": lambda raw, where: whole(raw, where, low=0, high=2**31 - 1),
    "delimiter": text,
    "decimal": _one_of("auto", ".", ","),
    "names": text,
}


def read_options(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, as it is written.

    Raises
    ------
    DefinitionError
        If it cannot be read or is not YAML.
    ConfigError
        If it is not a mapping or names an option that does not exist.
    """
    raw = read_yaml(path)
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError("must hold options by name", where=str(path), found=type(raw).__name__)
    options = {str(key).replace("-", "_"): value for key, value in raw.items()}
    for name in options:
        if name not in _READERS:
            close = difflib.get_close_matches(name, _READERS, n=1)
            todo = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_READERS)}"
            raise ConfigError("no such option", where=str(path), found=repr(name), todo=todo)
    return options


def make_settings(*sources: tuple[str, Mapping[str, Any]]) -> ReliabilitySettings:
    """Check options and join them; a later source (the command line) overrides an earlier one.

    Parameters
    ----------
    *sources : (where, options)
        Where the options come from, for messages, and the options by name; ``None`` means "not
        given".  Mappings of two sources are joined, everything else is replaced.

    Raises
    ------
    ConfigError
        If an option cannot be understood: names it, what was found and what is expected.
    """
    found: dict[str, Any] = {}
    for where, options in sources:
        for name, raw in options.items():
            if raw is None:
                continue
            value = _READERS[name](raw, f"{where}, {name}" if where else name)
            both = isinstance(value, dict) and isinstance(found.get(name), dict)
            found[name] = {**found[name], **value} if both else value
    return ReliabilitySettings(**found)


def _check_complete() -> None:
    missing = {one.name for one in fields(ReliabilitySettings)} ^ set(_READERS)
    if missing:  # a defect of this module, found when it is imported
        raise TypeError(f"options without reader or field: {', '.join(sorted(missing))}")


_check_complete()
