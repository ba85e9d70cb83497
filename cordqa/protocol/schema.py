"""What a protocol file may say; ``docs/protocols.md`` explains how to write one.

The models here check what a table of numbers can get wrong: a field that does not exist, a vendor
that is not one, an interval that is empty, a number without a source, a constraint on a series that
the file does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from cordqa.protocol.fields import FIELDS, VENDORS, FieldKind, FieldSpec, format_number
from cordqa.protocol.traps import TRAPS
from cordqa.resources.schema import (
    Finite,
    Positive,
    Strict,
    Text,
    check_known,
    check_unique,
    problem,
    suggest,
)

__all__ = [
    "OWN_SOURCE",
    "BudgetFile",
    "ConstraintFile",
    "GradientsFile",
    "LimitFile",
    "MatchFile",
    "ParameterFile",
    "ProtocolFile",
    "SeriesFile",
    "ShellFile",
    "SourceFile",
]

#: Id of the source that marks a recommendation of this project; such a rule needs a reason.
OWN_SOURCE = "cordqa"
_MAX_SERIES, _MAX_RULES = 100, 200

Id = Annotated[str, Field(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Tolerance = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=100_000)]
Level = Literal["info", "warning", "error"]
Absent = Literal["not checkable", "missing"]


def _as_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _no_flags(value: Any) -> Any:
    if isinstance(value, bool):
        raise problem("YAML reads on, off, yes and no as true and false; write it in quotes")
    if isinstance(value, (list, tuple)):
        return [_no_flags(item) for item in value]
    return str(value) if isinstance(value, int) else value


Texts = Annotated[
    tuple[Text, ...], Field(max_length=50), BeforeValidator(_as_texts), BeforeValidator(_no_flags)
]


def _as_limit(value: Any) -> Any:
    """Read ``EchoTime: {by: {Siemens: 0.12}}`` as ``Siemens: {value: 0.12}``, a list as alternatives."""
    if isinstance(value, (list, tuple)):
        return {"one_of": list(value)}
    return {"value": value} if isinstance(value, (bool, int, float, str)) else value


class SourceFile(Strict):
    """Where numbers come from; ``commit`` says which version of a repository was read."""

    id: Id
    text: Text
    doi: Text = ""
    url: Text = ""
    commit: Text = ""
    licence: Text


class LimitFile(Strict):
    """What a value must be: a value with its tolerance, bounds (both ends count), or alternatives."""

    value: StrictBool | Finite | Text | None = None
    rel_tol: Tolerance | None = None
    abs_tol: Tolerance | None = None
    min: Finite | None = None
    max: Finite | None = None
    one_of: Annotated[tuple[StrictBool | Finite | Text, ...], Field(max_length=50)] = ()
    if_absent: Absent | None = None
    severity: Level | None = None
    why: Text = ""
    source: Id | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> LimitFile:
        kinds = [self.value is not None, self.min is not None or self.max is not None, bool(self.one_of)]
        if sum(kinds) != 1:
            raise problem("give a value, or min and max, or one_of, and only one of these")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise problem(f"min {self.min:g} exceeds max {self.max:g}")
        if self.is_number and math.isnan(float(self.value or 0)):
            raise problem("the value is not a number")
        return self

    @property
    def is_number(self) -> bool:
        """Whether a number with a tolerance is asked for."""
        return isinstance(self.value, (int, float)) and not isinstance(self.value, bool)


_Limit = Annotated[LimitFile, BeforeValidator(_as_limit)]


class ParameterFile(Strict):
    """What one field must be: for ``any`` scanner, a vendor, or ``Vendor/model pattern``."""

    rel_tol: Tolerance | None = None
    abs_tol: Tolerance | None = None
    if_absent: Absent = "not checkable"
    severity: Level = "error"
    why: Text = ""
    source: Id | None = None
    by: Annotated[dict[Text, _Limit], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _known_vendors(self) -> ParameterFile:
        for key in self.by:
            check_vendor(key.split("/", 1)[0])
            if "/" in key and (key.startswith("any/") or not key.split("/", 1)[1].strip()):
                raise problem(f"{key!r} does not name a vendor and a model, as 'Siemens/*Prisma*' does", key)
        return self


class ShellFile(Strict):
    """One shell; b = 0 stands for the volumes that count as not weighted."""

    b: Annotated[float, Field(strict=True, ge=0, le=100_000)]
    min_n: Count = 1
    max_n: Count | None = None
    b_delta: Annotated[float, Field(strict=True, ge=-0.5, le=1)] = 1.0

    @model_validator(mode="after")
    def _some(self) -> ShellFile:
        if self.max_n is not None and self.max_n < self.min_n:
            raise problem(f"max_n {self.max_n} is less than min_n {self.min_n}")
        return self


class GradientsFile(Strict):
    """What the gradient table must hold."""

    shells: Annotated[tuple[ShellFile, ...], Field(min_length=1, max_length=50)]
    b_tol: Share = 0.05
    extra_shells: StrictBool = False
    min_unique_directions: Count | None = None
    max_condition_number: Positive | None = None
    max_energy_ratio: Annotated[float, Field(strict=True, ge=1)] | None = None
    severity: Level = "error"
    if_absent: Absent = "not checkable"
    why: Text = ""
    source: Id | None = None

    @model_validator(mode="after")
    def _distinct(self) -> GradientsFile:
        for i, one in enumerate(self.shells):
            for two in self.shells[i + 1 :]:
                close = abs(one.b - two.b) <= self.b_tol * max(one.b, two.b)
                if close and abs(one.b_delta - two.b_delta) < 0.05:
                    raise problem(f"the shells b = {one.b:g} and b = {two.b:g} overlap within b_tol")
        return self


class MatchFile(Strict):
    """One way to recognise a series; what is left out is not asked."""

    suffix: Texts = ()
    entities: Annotated[dict[Text, Texts], Field(default_factory=dict, max_length=20)]
    protocol_name: Texts = ()

    @model_validator(mode="after")
    def _asks_something(self) -> MatchFile:
        if not self.suffix and not self.protocol_name:
            raise problem("a match needs a suffix (BIDS) or a protocol_name (DICOM)")
        if self.protocol_name and (self.suffix or self.entities):
            raise problem("write BIDS names and DICOM protocol names as two entries of match")
        return self


class SeriesFile(Strict):
    """One series."""

    id: Id
    title: Text
    match: Annotated[tuple[MatchFile, ...], Field(min_length=1, max_length=20)]
    required: StrictBool = True
    duration_s: Annotated[dict[Text, Positive], Field(default_factory=dict, max_length=20)]
    duration_source: Id | None = None
    source: Id | None = None
    params: Annotated[dict[Text, ParameterFile], Field(default_factory=dict, max_length=_MAX_RULES)]
    gradients: GradientsFile | None = None
    why: Text = ""

    @model_validator(mode="after")
    def _consistent(self) -> SeriesFile:
        for vendor in self.duration_s:
            check_vendor(vendor)
        for name, parameter in self.params.items():
            _check_parameter(name, parameter)
        return self


class ConstraintFile(Strict):
    """What several series must share; see :class:`cordqa.protocol.records.ConstraintKind`."""

    id: Id
    kind: Literal["equal", "same-scaling", "same-software", "ratio", "values"]
    series: Annotated[tuple[Id, ...], Field(max_length=_MAX_SERIES)] = ()
    fields: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    within: Literal["session", "participant", "scanner"] = "session"
    rel_tol: Tolerance = 0.0
    abs_tol: Tolerance = 0.0
    min: Finite | None = None
    max: Finite | None = None
    min_count: Count = 1
    max_count: Count | None = None
    first: _Limit | None = None
    last: _Limit | None = None
    even: StrictBool = False
    severity: Level = "error"
    why: Text
    source: Id | None = None

    @model_validator(mode="after")
    def _complete(self) -> ConstraintFile:
        for name in self.fields:
            check_field(name)
        check_unique(self.series, "series")
        _check_constraint(self)
        return self


class BudgetFile(Strict):
    """Longest scan time of one session."""

    max_s: Positive
    series: Annotated[tuple[Id, ...], Field(max_length=_MAX_SERIES)] = ()
    severity: Level = "warning"
    why: Text = ""
    source: Id | None = None


class ProtocolFile(Strict):
    """A protocol."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    id: Id
    title: Text
    version: Text
    rationale: Text
    aliases: Texts = ()
    field_strength_T: Annotated[tuple[Positive, ...], Field(max_length=10)] = ()
    sources: Annotated[tuple[SourceFile, ...], Field(min_length=1, max_length=50)]
    default_source: Id | None = None
    units_guard: StrictBool = True
    time_budget: BudgetFile | None = None
    traps: Texts = ()
    series: Annotated[tuple[SeriesFile, ...], Field(min_length=1, max_length=_MAX_SERIES)]
    constraints: Annotated[tuple[ConstraintFile, ...], Field(max_length=_MAX_RULES)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ProtocolFile:
        known = [one.id for one in self.series]
        check_unique(known, "series")
        check_unique([one.id for one in self.sources], "source")
        check_unique([one.id for one in self.constraints], "constraint")
        check_known(self.traps, TRAPS, "traps")
        for constraint in self.constraints:
            check_known(constraint.series, known, f"constraint {constraint.id}: series")
        if self.time_budget is not None:
            check_known(self.time_budget.series, known, "time_budget: series")
        _check_sources(self)
        return self


def check_vendor(name: str) -> None:
    """Refuse what is neither ``any`` nor a vendor."""
    known = ("any", *VENDORS)
    if name not in known:
        raise problem(f"{name!r} is not a vendor{suggest(name, known)}; known are {', '.join(known)}", name)


def check_field(name: str) -> None:
    """Refuse a field that is not registered."""
    if name not in FIELDS:
        raise problem(f"the field {name!r} is not known{suggest(name, FIELDS)}", name)


def _check_parameter(name: str, parameter: ParameterFile) -> None:
    """Numbers for numbers, texts for texts, and a tolerance for every number that is measured."""
    check_field(name)
    spec = FIELDS[name]
    for key, limit in parameter.by.items():
        given = [limit.value] if limit.value is not None else list(limit.one_of)
        wrong = [one for one in given if not _fits(one, spec.kind)]
        bounded = limit.min is not None or limit.max is not None
        if wrong or (bounded and spec.kind is not FieldKind.NUMBER):
            raise problem(
                f"{name}, {key}: {wrong[0] if wrong else 'a bound'!r} does not suit a {spec.kind}", name
            )
        tolerance = (limit.rel_tol, limit.abs_tol, parameter.rel_tol, parameter.abs_tol)
        if limit.is_number and spec.unit and not any(one is not None for one in tolerance):
            raise problem(f"{name}, {key}: a value in {spec.unit} needs rel_tol or abs_tol", name)
        _check_share(f"{name}, {key}", limit.rel_tol, parameter.rel_tol)
        _check_plausible(f"{name}, {key}", limit, spec)


def _check_share(where: str, *tolerances: float | None) -> None:
    """Refuse a tolerance that was meant in percent: with 500 % everything passes."""
    for one in tolerances:
        if one is not None and one > 1:
            raise problem(f"{where}: rel_tol {one:g} is {100 * one:g} %; 0.05 is 5 %", "rel_tol")


def _check_plausible(where: str, limit: LimitFile, spec: FieldSpec) -> None:
    """Refuse what no scanner does: a time in milliseconds, an angle in radians."""
    if spec.kind is not FieldKind.NUMBER or limit.one_of:
        return
    value = float(limit.value) if limit.is_number and limit.value is not None else None
    low = value if value is not None else -math.inf if limit.min is None else limit.min
    high = value if value is not None else math.inf if limit.max is None else limit.max
    least, most = spec.plausible
    if low <= most and high >= least:
        return
    wrong = low if low > most else high
    units = [unit for factor, unit in spec.confusions if least <= wrong * factor <= most]
    looks = f", and looks like {units[0]}" if units else ""
    shown = f"{format_number(wrong)} {spec.unit}".strip()
    raise problem(f"{where}: {shown} is what no scanner does{looks}", spec.name)


def _fits(value: Any, kind: FieldKind) -> bool:
    if kind is FieldKind.FLAG:
        return isinstance(value, bool)
    if kind is FieldKind.NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str)


def _check_constraint(one: ConstraintFile) -> None:
    counts = {"equal": (1, None), "same-scaling": (2, None), "ratio": (2, 2), "values": (1, 1)}
    least, most = counts.get(one.kind, (0, None))
    _check_share(one.kind, one.rel_tol)
    if len(one.series) < least or (most is not None and len(one.series) > most):
        raise problem(f"{one.kind} needs {least}{'' if most == least else ' or more'} series")
    if one.kind in ("equal", "ratio", "values") and not one.fields:
        raise problem(f"{one.kind} needs fields")
    if one.kind in ("ratio", "values") and any(FIELDS[f].kind is not FieldKind.NUMBER for f in one.fields):
        raise problem(f"{one.kind} needs fields that hold numbers")
    if one.kind == "ratio" and (one.min is None or one.max is None or one.min > one.max):
        raise problem("ratio needs min and max")
    if one.kind == "values" and one.max_count is not None and one.max_count < one.min_count:
        raise problem(f"max_count {one.max_count} is less than min_count {one.min_count}")
    if len(one.series) == 1 and one.kind == "equal" and one.within == "session":
        raise problem(
            "equal within a session needs two series; with one, compare within participant or scanner"
        )


def _check_sources(protocol: ProtocolFile) -> None:
    """Every number has a source, and what this project recommends has a reason."""
    known = [one.id for one in protocol.sources]
    if protocol.default_source is not None:
        check_known([protocol.default_source], known, "default_source")
    for where, source, why in _claims(protocol):
        if source is None:
            raise problem(f"{where}: no source; name one, or {OWN_SOURCE!r} with a reason in why")
        check_known([source], known, f"{where}: source")
        if source == OWN_SOURCE and not why:
            raise problem(f"{where}: a recommendation of this project needs a reason in why")


def _claims(protocol: ProtocolFile) -> Iterable[tuple[str, str | None, str]]:
    """Yield where something is claimed, its source, and its reason."""
    default = protocol.default_source
    for series in protocol.series:
        inherited = series.source or default
        if series.duration_s:
            yield f"{series.id}: duration_s", series.duration_source or inherited, series.why or "a scan time"
        for name, parameter in series.params.items():
            for key, limit in parameter.by.items():
                source = limit.source or parameter.source or inherited
                yield f"{series.id}: {name}, {key}", source, limit.why or parameter.why
        if series.gradients is not None:
            yield f"{series.id}: gradients", series.gradients.source or inherited, series.gradients.why
    for constraint in protocol.constraints:
        yield f"constraint {constraint.id}", constraint.source or default, constraint.why
    if protocol.time_budget is not None:
        yield "time_budget", protocol.time_budget.source or default, protocol.time_budget.why
