"""How single options are written: ``name=text`` or YAML, limits, exclusions, percentages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordqa.errors import ConfigError

__all__ = [
    "Difference",
    "Exclusion",
    "Limit",
    "Published",
    "Relation",
    "choice",
    "flag",
    "group_of",
    "many",
    "number",
    "pairs",
    "parse_difference",
    "parse_exclusion",
    "parse_limits",
    "parse_published",
    "parse_relations",
    "parse_values",
    "parse_where",
    "text",
    "whole",
]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LIMIT = re.compile(
    rf"(?:(?P<quantity>[^<>=|]+?)\s*:\s*)?(?P<bars>\|)?\s*(?P<statistic>[^<>=|]+?)\s*(?P<close>\|)?\s*"
    rf"(?P<sign><=|>=|<|>)\s*(?P<number>{_NUMBER})\s*(?P<unit>[^\s<>=]*)"
)
_PUBLISHED = re.compile(
    r"(?:(?P<label>[^=]+?)\s*=\s*)?(?P<percent>\d+(?:\.(?P<decimals>\d+))?)\s*%?\s*of\s*(?P<n>\d+)"
)
_RELATION = re.compile(r"(?P<first>[^,]+),(?P<second>[^,]+?)(?:\s+by\s+(?P<column>\S.*))?")
_DIFFERENCE = re.compile(
    rf"(?:(?P<quantity>[^=]+?)\s*=\s*)?(?P<number>{_NUMBER})\s*(?P<percent>%)?\s*(?P<unit>\S*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Rows to leave out: all conditions must hold (column or role to label)."""

    conditions: tuple[tuple[str, str], ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit on a statistic; ``low`` and ``high`` bound what is allowed."""

    statistic: str
    text: str
    quantity: str = ""
    absolute: bool = False
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A percentage that someone published, and of how many people."""

    label: str
    percent: float
    n: int
    decimals: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An effect to plan for, in percent of the mean or in the unit of the quantity."""

    number: float
    percent: bool
    quantity: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Two quantities to relate, the second as a function of the first, and a column of classes."""

    first: str
    second: str
    column: str = ""
    text: str = ""


def text(raw: Any, where: str) -> str:
    """Return one word or sentence; numbers of YAML count as text, lists do not."""
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ConfigError("must be text", where=where, found=_shown(raw))
    return str(raw).strip()


def choice(raw: Any, where: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed words."""
    found = text(raw, where)
    if found not in allowed:
        words = ", ".join(word for word in allowed if word)
        raise ConfigError("is not a known choice", where=where, found=repr(found), expected=f"one of {words}")
    return found


def flag(raw: Any, where: str) -> bool:
    """Return true or false."""
    if not isinstance(raw, bool):
        raise ConfigError("must be true or false", where=where, found=_shown(raw))
    return raw


def number(raw: Any, where: str) -> float:
    """Return a finite number."""
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError("must be a number", where=where, found=_shown(raw))
    return value


def whole(raw: Any, where: str, *, low: int, high: int) -> int:
    """Return a whole number within bounds."""
    value = number(raw, where)
    if value != int(value) or not low <= value <= high:
        raise ConfigError(
            "must be a whole number", where=where, found=_shown(raw), expected=f"{low} to {high}"
        )
    return int(value)


def many(raw: Any, where: str) -> tuple[str, ...]:
    """Return several words: a list, or one."""
    entries = raw if isinstance(raw, (list, tuple)) else [raw]
    return tuple(dict.fromkeys(word for word in (text(entry, where) for entry in entries) if word))


def pairs(raw: Any, where: str, *, default_key: str | None = None) -> dict[str, str]:
    """Return names with their words: a mapping, or texts ``name=word``.

    With ``default_key``, a text without ``=`` is filed under that key.
    """
    if isinstance(raw, Mapping):
        return {str(key): text(value, f"{where}.{key}") for key, value in raw.items()}
    found: dict[str, str] = {}
    for entry in raw if isinstance(raw, (list, tuple)) else [raw]:
        name, sign, word = text(entry, where).partition("=")
        if not sign and default_key is not None:
            found[default_key] = name.strip()
        elif not sign or not name.strip() or not word.strip():
            raise ConfigError("must be written name=word", where=where, found=_shown(entry))
        else:
            found[name.strip()] = word.strip()
    return found


def parse_values(raw: Any, where: str) -> dict[str, str]:
    """Return columns of values with their quantities: ``csa`` or ``csa=CSA``, or a mapping."""
    if isinstance(raw, Mapping):
        return pairs(raw, where)
    found = {}
    for entry in many(raw, where):
        column, _, quantity = entry.partition("=")
        found[column.strip()] = quantity.strip() or column.strip()
    return found


def group_of(raw: Any, where: str) -> tuple[str, tuple[str, ...]]:
    """Return a role and the columns that are its levels: ``scanner=A,B,C``."""
    table = parse_where(raw, where)
    if len(table) != 1:
        raise ConfigError("names one role", where=where, found=_shown(raw), expected="scanner=A,B,C")
    role, columns = next(iter(table.items()))
    if role not in ("scanner", "session", "run", "site", "vendor") or len(columns) < 2:
        raise ConfigError(
            "needs a role and two columns", where=where, found=_shown(raw),
            expected="scanner, session, run, site or vendor, as in scanner=A,B,C",
        )  # fmt: skip
    return role, columns


def parse_where(raw: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Return columns with the labels to keep: ``cohort=III`` or ``level=C2,C3``, or a mapping."""
    if isinstance(raw, Mapping):
        return {str(key): many(value, f"{where}.{key}") for key, value in raw.items()}
    return {
        key: tuple(part.strip() for part in word.split(",") if part.strip())
        for key, word in pairs(raw, where).items()
    }


def parse_exclusion(raw: Any, where: str) -> tuple[Exclusion, ...]:
    """Return rows to leave out: ``subject=sub-03: motion``, or mappings with ``reason``."""
    entries = raw if isinstance(raw, (list, tuple)) else [raw]
    found = []
    for entry in entries:
        if isinstance(entry, Mapping):
            conditions = {str(k): text(v, where) for k, v in entry.items() if str(k) != "reason"}
            reason = text(entry.get("reason", ""), where)
        else:
            head, _, reason = text(entry, where).partition(":")
            conditions = pairs([part for part in head.split(",") if part.strip()], where)
        if not conditions:
            raise ConfigError(
                "names no column", where=where, found=_shown(entry), expected="subject=sub-03: motion"
            )
        reason = reason.strip() or "no reason was given"
        found.append(Exclusion(conditions=tuple(conditions.items()), reason=reason))
    return tuple(found)


def parse_limits(raw: Any, where: str) -> tuple[Limit, ...]:
    """Return limits: ``wCV<=3%``, ``CSA: ICC(A,1)>=0.9``, ``|bias_percent|<=5 %``, or nested mappings.

    In YAML also ``{CSA: {wCV: "<= 3 %", RC: "<= 4"}}``.
    """
    if isinstance(raw, Mapping):
        entries = []
        for quantity, rules in raw.items():
            if not isinstance(rules, Mapping):
                raise ConfigError("must name statistics", where=f"{where}.{quantity}", found=_shown(rules))
            entries += [f"{quantity}: {name} {text(rule, where)}" for name, rule in rules.items()]
    else:
        entries = list(many(raw, where))
    return tuple(_limit(entry, where) for entry in entries)


def _limit(entry: str, where: str) -> Limit:
    match = _LIMIT.fullmatch(entry.strip())
    if match is None or bool(match["bars"]) != bool(match["close"]):
        raise ConfigError(
            "cannot be read as a limit", where=where, found=repr(entry),
            expected="statistic<=number, such as wCV<=3% or CSA: ICC(A,1)>=0.9",
        )  # fmt: skip
    bound, upper = number(match["number"], where), match["sign"].startswith("<")
    return Limit(
        statistic=match["statistic"].strip(),
        text=" ".join(entry.split()),
        quantity=(match["quantity"] or "").strip(),
        absolute=bool(match["bars"]),
        low=-math.inf if upper else bound,
        high=bound if upper else math.inf,
        unit=match["unit"],
    )


def parse_published(raw: Any, where: str) -> tuple[Published, ...]:
    """Return percentages to check: ``sensitivity=88% of 22``, or mappings."""
    found = []
    for entry in raw if isinstance(raw, (list, tuple)) else [raw]:
        written = text(_published_text(entry) if isinstance(entry, Mapping) else entry, where)
        match = _PUBLISHED.fullmatch(written)
        n = int(match["n"][:9]) if match else 0
        if match is None or n < 1 or not 0.0 <= float(match["percent"]) <= 100.0:
            raise ConfigError(
                "cannot be read as a percentage of people", where=where, found=_shown(entry),
                expected="such as sensitivity=88% of 22",
            )  # fmt: skip
        found.append(
            Published(
                label=(match["label"] or "percentage").strip(),
                percent=float(match["percent"]),
                n=n,
                decimals=min(len(match["decimals"] or ""), 6),
                text=written,
            )
        )
    return tuple(found)


def _published_text(entry: Mapping[Any, Any]) -> str:
    label, percent, n = (entry.get(name, "") for name in ("label", "percent", "n"))
    return f"{label}={percent}% of {n}".lstrip("=")


def parse_relations(raw: Any, where: str) -> tuple[Relation, ...]:
    """Return quantities to relate: ``MTsat,MWF`` or ``MTsat,MWF by tissue``, or a list of them."""
    found = []
    for entry in many(raw, where):
        match = _RELATION.fullmatch(entry)
        if match is None or match["first"].strip() == match["second"].strip():
            raise ConfigError(
                "must name two quantities", where=where, found=repr(entry), expected="MTsat,MWF by tissue"
            )
        found.append(
            Relation(
                first=match["first"].strip(),
                second=match["second"].strip(),
                column=(match["column"] or "").strip(),
                text=entry,
            )
        )
    columns = {one.column for one in found}
    if len(columns) > 1:
        raise ConfigError(
            "all relations take one column of classes",
            where=where,
            found=", ".join(sorted(columns)) or "none",
        )
    return tuple(found)


def parse_difference(raw: Any, where: str) -> tuple[Difference, ...]:
    """Return effects to plan for: ``3%``, ``CSA=2.5``, or a list of them."""
    if isinstance(raw, Mapping):
        raw = [f"{quantity}={value}" for quantity, value in raw.items()]
    found = []
    for entry in many(raw, where):
        match = _DIFFERENCE.fullmatch(entry)
        if match is None or not float(match["number"]) > 0.0:
            raise ConfigError(
                "must be a positive difference",
                where=where,
                found=repr(entry),
                expected="such as 3% or CSA=2.5",
            )
        if match["unit"] and not match["percent"] and not match["quantity"]:
            raise ConfigError(
                "a difference in units needs its quantity",
                where=where,
                found=repr(entry),
                expected="such as CSA=2.5",
            )
        found.append(
            Difference(
                number=number(match["number"], where),
                percent=bool(match["percent"]),
                quantity=(match["quantity"] or "").strip(),
                text=entry,
            )
        )
    return tuple(found)


def _shown(raw: Any) -> str:
    return repr(raw)[:80]
