"""Tolerances: how far from the reference is too far, and who says so.

A tolerance file is a list of rules.  The shipped one is ``phantoms/tolerances/default.yaml``; a
user's file is laid over it, rule by rule and field by field, so that it needs to name only what
differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cordqa.errors import DefinitionError
from cordqa.phantom.definition import Source
from cordqa.phantom.schema import (
    Finite,
    Identifier,
    Identifiers,
    Strict,
    Text,
    check_known,
    check_quantity,
    check_unique,
    load_model,
    problem,
)
from cordqa.resources import resource_path

__all__ = ["CHECKS", "Check", "Rule", "Tolerances", "load_tolerances"]

Kind = Literal["deviation", "upper", "lower", "range"]


@dataclass(frozen=True, slots=True)
class Check:
    """What a rule may judge: which side is bad, and the unit of its limits."""

    kind: Kind
    unit: str
    label: str


CHECKS: dict[str, Check] = {
    "sphere-error": Check("deviation", "%", "error against the reference"),
    "rate-linearity": Check(
        "upper", "%", "rms departure of the relaxation rate from a straight line in concentration"
    ),
    "slope": Check("range", "1", "slope of measured against reference"),
    "intercept": Check("deviation", "%", "intercept of measured against reference"),
    "r2": Check("lower", "1", "R2 of measured against reference"),
    "ccc": Check("lower", "1", "concordance of measured and reference"),
    "within-scanner-cv": Check("upper", "%", "within-scanner coefficient of variation"),
    "between-scanner-cv": Check("upper", "%", "between-scanner coefficient of variation"),
    "judged-spheres": Check("lower", "spheres", "spheres that could be judged"),
}
#: Unit of a sphere error in the unit of the quantity itself, here percentage points.
POINTS = "points"

_Limit = Finite | tuple[Finite, Finite]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One tolerance, complete: limits as (low, high) with infinity where a side is open."""

    check: str
    warn: tuple[float, float]
    fail: tuple[float, float]
    unit: str
    source: str
    why: str = ""
    quantity: str = ""
    method: str = ""
    plates: tuple[str, ...] = ()
    spheres: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The rule in words, for reports."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{CHECKS[self.check].label}: warn {_shown(self.warn)}{unit}, fail {_shown(self.fail)}{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """A set of rules and the coverage factor with which uncertainties are compared to them."""

    name: str
    coverage_factor: float
    rules: tuple[Rule, ...]

    def find(
        self, check: str, *, quantity: str = "", plate: str = "", sphere: str = "", method: str = ""
    ) -> Rule | None:
        """Return the most specific rule that applies, or ``None``.

        A rule for named spheres goes before one for a plate, a plate before a method, a method
        before a quantity; of equals the later one wins.
        """
        best, best_rank = None, -1
        for rule in self.rules:
            applies = (
                rule.check == check
                and (not rule.quantity or rule.quantity == quantity)
                and (not rule.method or rule.method.casefold() in method.casefold())
                and (not rule.plates or plate in rule.plates)
                and (not rule.spheres or sphere in rule.spheres)
            )
            rank = (
                8 * bool(rule.spheres) + 4 * bool(rule.plates) + 2 * bool(rule.method) + bool(rule.quantity)
            )
            if applies and rank >= best_rank:
                best, best_rank = rule, rank
        return best


class _RuleEntry(Strict):
    check: Text
    quantity: Text = ""
    method: Text = ""
    plates: Identifiers = ()
    spheres: Identifiers = ()
    warn: _Limit | None = None
    fail: _Limit | None = None
    unit: Text = ""
    source: Identifier | None = None
    why: Text = ""

    @property
    def key(self) -> tuple[object, ...]:
        return (self.check, self.quantity, self.method.casefold(), self.plates, self.spheres)

    @model_validator(mode="after")
    def _consistent(self) -> _RuleEntry:
        check_known([self.check], CHECKS, "check")
        if self.quantity:
            check_quantity(self.quantity)
        allowed = (
            (CHECKS[self.check].unit, POINTS) if self.check == "sphere-error" else (CHECKS[self.check].unit,)
        )
        if self.unit and self.unit not in allowed:
            raise problem(f"the unit of {self.check} is {' or '.join(allowed)}, not {self.unit[:20]!r}")
        for limit in (self.warn, self.fail):
            if limit is not None and isinstance(limit, tuple) != (CHECKS[self.check].kind == "range"):
                wanted = "[low, high]" if CHECKS[self.check].kind == "range" else "one number"
                raise problem(f"warn and fail of {self.check} must each be {wanted}")
        return self


class _Decision(Strict):
    coverage_factor: Annotated[float, Field(strict=True, ge=1, le=4)] | None = None


class _ToleranceFile(Strict):
    schema_version: Annotated[Literal[1], Field(alias="schema")]
    id: Identifier = "user"
    name: Text = ""
    extends: Literal["default", "nothing"] = "default"
    sources: Annotated[tuple[Source, ...], Field(max_length=200)] = ()
    decision: _Decision = _Decision()
    rules: Annotated[tuple[_RuleEntry, ...], Field(max_length=500)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> _ToleranceFile:
        check_unique([source.id for source in self.sources], "source")
        check_unique([str(rule.key) for rule in self.rules], "rule")
        return self


def load_tolerances(path: str | Path | None = None) -> Tolerances:
    """Load tolerances.

    Parameters
    ----------
    path : str or Path, optional
        A tolerance file of the user, laid over the shipped default (``extends: nothing`` in the
        file leaves the default out).  By default the shipped file alone.

    Returns
    -------
    Tolerances

    Raises
    ------
    DefinitionError
        If a file is not valid, names an unknown check, unit, quantity or source, or leaves a rule
        without limits or with limits in the wrong order.

    Examples
    --------
    >>> load_tolerances().find("sphere-error", quantity="T1").warn
    (-5.5, 5.5)
    """
    default_path = resource_path("phantoms", "tolerances/default.yaml")
    default = load_model(default_path, _ToleranceFile, noun="tolerance file")
    if path is None:
        return _assemble([(default_path, default)])
    user_path = Path(path)
    user = load_model(user_path, _ToleranceFile, noun="tolerance file")
    base = [(default_path, default)] if user.extends == "default" else []
    return _assemble([*base, (user_path, user)])


def _assemble(files: Sequence[tuple[Path, _ToleranceFile]]) -> Tolerances:
    """Lay the files over one another, later ones on top."""
    rules: dict[tuple[object, ...], Rule] = {}
    sources: dict[str, Source] = {}
    factor, name = 2.0, ""
    for path, file in files:
        sources |= {source.id: source for source in file.sources}
        factor = file.decision.coverage_factor or factor
        name = file.name or file.id
        for number, entry in enumerate(file.rules):
            where = f"{path}, rules[{number}] ({entry.check} {entry.quantity})".replace(" )", ")")
            rules[entry.key] = _complete(entry, rules.get(entry.key), sources, where, name)
    return Tolerances(name=name, coverage_factor=factor, rules=tuple(rules.values()))


def _complete(
    entry: _RuleEntry, base: Rule | None, sources: dict[str, Source], where: str, file_name: str
) -> Rule:
    """Fill what an entry leaves out from the rule that it replaces."""
    if entry.source is not None and entry.source not in sources:
        raise DefinitionError(
            f"source {entry.source!r} is not defined",
            where=where,
            expected=f"one of {', '.join(sources) or 'none'}",
        )
    rule = base or Rule(
        check=entry.check,
        warn=(math.nan, math.nan),
        fail=(math.nan, math.nan),
        unit=CHECKS[entry.check].unit,
        source="",
        quantity=entry.quantity,
        method=entry.method,
        plates=entry.plates,
        spheres=entry.spheres,
    )
    changed = entry.warn is not None or entry.fail is not None or bool(entry.unit)
    # Limits that a user changed are no longer what the cited paper says.
    source = f"tolerance file {file_name!r}" if changed else rule.source
    rule = replace(
        rule,
        warn=rule.warn if entry.warn is None else _interval(entry.check, entry.warn),
        fail=rule.fail if entry.fail is None else _interval(entry.check, entry.fail),
        unit=entry.unit or rule.unit,
        source=sources[entry.source].text if entry.source is not None else source,
        why=entry.why or ("" if changed else rule.why),
    )
    _check_order(rule, where)
    return rule


def _interval(check: str, limit: _Limit) -> tuple[float, float]:
    """Write a limit as the interval of what is accepted."""
    if isinstance(limit, tuple):
        return limit
    return {"deviation": (-limit, limit), "upper": (-math.inf, limit), "lower": (limit, math.inf)}[
        CHECKS[check].kind
    ]


def _check_order(rule: Rule, where: str) -> None:
    """Refuse limits that are missing, empty, or a warning zone outside the failure limits."""
    if any(math.isnan(value) for value in (*rule.warn, *rule.fail)):
        raise DefinitionError("the rule needs both warn and fail", where=where)
    if not (rule.fail[0] <= rule.warn[0] <= rule.warn[1] <= rule.fail[1]):
        raise DefinitionError(
            "warn must not be wider than fail",
            where=where,
            found=f"warn {_shown(rule.warn)}, fail {_shown(rule.fail)}",
        )
    if CHECKS[rule.check].kind in {"deviation", "upper"} and rule.warn[1] <= 0:
        raise DefinitionError("a limit must be positive", where=where, found=f"{rule.warn[1]:g}")


def _shown(interval: tuple[float, float]) -> str:
    """Say which values an interval leaves out."""
    low, high = interval
    if math.isinf(low):
        return f"above {high:g}"
    if math.isinf(high):
        return f"below {low:g}"
    if low == -high:
        return f"beyond ±{high:g}"
    return f"outside {low:g} to {high:g}"
