"""Load protocol files: checked by :mod:`cordqa.protocol.schema`, then turned into records.

A protocol is a file in ``protocols/`` and no code; ``docs/protocols.md`` explains how to write one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cordqa.errors import DefinitionError
from cordqa.protocol.fields import FIELDS, format_number
from cordqa.protocol.records import (
    Constraint,
    ConstraintKind,
    GradientRule,
    IfAbsent,
    Limit,
    ParameterRule,
    Protocol,
    RuleSource,
    SeriesMatch,
    SeriesRule,
    ShellRule,
    TimeBudget,
    Within,
)
from cordqa.protocol.schema import (
    OWN_SOURCE,
    ConstraintFile,
    GradientsFile,
    LimitFile,
    ParameterFile,
    ProtocolFile,
    SeriesFile,
)
from cordqa.records import Severity
from cordqa.resources import list_resources, resource_path
from cordqa.resources.schema import load_model, suggest

__all__ = ["list_protocols", "load_protocol", "make_limit", "protocol_from_data", "protocol_json_schema"]

#: Of magnets of one nominal strength; some that are sold as 3 T have 2.89 T.
_FIELD_TOLERANCE = 0.05


def list_protocols() -> list[str]:
    """List the protocols that cordqa ships, by the names that :func:`load_protocol` takes."""
    return list_resources("protocols")


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Load a protocol.

    Parameters
    ----------
    name_or_path : str or Path
        A name from :func:`list_protocols`, an alias of one, or the path of a YAML file.

    Raises
    ------
    DefinitionError
        If it is not found or not valid; the message names file, line and place.

    Examples
    --------
    >>> load_protocol("spine-generic-3t").series_rule("t2w").title
    'T2-weighted, 3D turbo spin echo'
    """
    name = str(name_or_path)
    known = list_protocols()
    if name in known:
        return _load(resource_path("protocols", f"{name}.yaml"))
    path = Path(name_or_path)
    if path.suffix.lower() in {".yaml", ".yml"}:
        return _load(path)
    for candidate in known:
        protocol = _load(resource_path("protocols", f"{candidate}.yaml"))
        if name.casefold() in (alias.casefold() for alias in protocol.aliases):
            return protocol
    raise DefinitionError(
        f"no protocol is called {name!r}{suggest(name, known)}",
        expected=f"one of {', '.join(known)}, or a .yaml file",
    )


def protocol_from_data(data: Mapping[str, Any], *, path: str = "") -> Protocol:
    """Turn what a protocol file holds into a protocol.

    Parameters
    ----------
    data : mapping
        As YAML or JSON gives it.
    path : str, optional
        Where it comes from.

    Raises
    ------
    pydantic.ValidationError
        If it is not valid.
    """
    return _protocol(ProtocolFile.model_validate(data), path)


def protocol_json_schema() -> dict[str, Any]:
    """Return the JSON schema of protocol files, for editors."""
    schema = ProtocolFile.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    # A bare value or a list is short for a limit; the validator that accepts it leaves no trace here.
    scalar = [{"type": kind} for kind in ("number", "string", "boolean", "array")]
    definitions["LimitFile"] = {"anyOf": [definitions["LimitFile"], *scalar]}
    match = definitions["MatchFile"]["properties"]
    for place in (match["suffix"], match["protocol_name"], match["entities"]["additionalProperties"]):
        several = {key: place.pop(key) for key in ("type", "items", "maxItems") if key in place}
        place["anyOf"] = [{"type": "string"}, several]
    for parameter in ("ParameterFile", "SeriesFile"):
        definitions[parameter]["additionalProperties"] = False
    definitions["SeriesFile"]["properties"]["params"]["propertyNames"] = {"enum": sorted(FIELDS)}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "cordqa acquisition protocol"
    return schema


def _load(path: Path) -> Protocol:
    return _protocol(load_model(path, ProtocolFile, noun="protocol"), str(path))


def _protocol(file: ProtocolFile, path: str) -> Protocol:
    return Protocol(
        id=file.id,
        title=file.title,
        version=file.version,
        rationale=file.rationale,
        sources=tuple(RuleSource(**one.model_dump()) for one in file.sources),
        series=tuple(_series(one, file) for one in file.series),
        constraints=tuple(_constraint(one, file.default_source) for one in file.constraints),
        field_strength_T=file.field_strength_T,
        aliases=file.aliases,
        time_budget=_budget(file),
        units_guard=file.units_guard,
        traps=file.traps,
        path=path,
    )


def _series(file: SeriesFile, protocol: ProtocolFile) -> SeriesRule:
    inherited = file.source or protocol.default_source or ""
    return SeriesRule(
        id=file.id,
        title=file.title,
        matches=tuple(
            SeriesMatch(suffix=one.suffix, entities=dict(one.entities), protocol_name=one.protocol_name)
            for one in file.match
        ),
        required=file.required,
        duration_s={"" if key == "any" else key: value for key, value in file.duration_s.items()},
        duration_source=(file.duration_source or inherited) if file.duration_s else "",
        parameters=tuple(
            _parameter(file.id, name, key, limit, parameter, inherited)
            for name, parameter in file.params.items()
            for key, limit in parameter.by.items()
        )
        + _field_strength(file, protocol),
        gradients=None if file.gradients is None else _gradients(file.id, file.gradients, inherited),
        why=file.why,
    )


def _field_strength(file: SeriesFile, protocol: ProtocolFile) -> tuple[ParameterRule, ...]:
    """Every series is checked for the field strength of the protocol, unless it says otherwise."""
    name = "MagneticFieldStrength"
    if not protocol.field_strength_T or name in file.params:
        return ()
    low, high = min(protocol.field_strength_T), max(protocol.field_strength_T)
    limit = _interval(low * (1 - _FIELD_TOLERANCE), high * (1 + _FIELD_TOLERANCE), "T")
    return (
        ParameterRule(
            id=f"{file.id}.{name}.any",
            field=name,
            limit=replace(limit, nominal=low if low == high else math.nan),
            why="relaxation times and susceptibility effects depend on it",
            source=file.source or protocol.default_source or protocol.sources[0].id,
        ),
    )


def _parameter(
    series: str, name: str, key: str, limit: LimitFile, parameter: ParameterFile, inherited: str
) -> ParameterRule:
    vendor, _, model = key.partition("/")
    source = limit.source or parameter.source or inherited
    return ParameterRule(
        id=".".join((series, name, key)),
        field=name,
        limit=make_limit(name, limit, rel_tol=parameter.rel_tol, abs_tol=parameter.abs_tol),
        vendor="" if vendor == "any" else vendor,
        model=model.strip(),
        if_absent=IfAbsent(limit.if_absent or parameter.if_absent),
        severity=Severity(limit.severity or parameter.severity),
        why=limit.why or parameter.why,
        source=source,
        recommended=source == OWN_SOURCE,
    )


def make_limit(
    name: str, file: LimitFile, *, rel_tol: float | None = None, abs_tol: float | None = None
) -> Limit:
    """Resolve a limit: the tolerance of the value itself goes before that of its field.

    Parameters
    ----------
    name : str
        Field that it limits.
    file : LimitFile
    rel_tol, abs_tol : float, optional
        Tolerances of the field; of a relative and an absolute one the wider counts.
    """
    unit = FIELDS[name].unit
    if file.is_number and isinstance(file.value, (int, float)):
        own = file.rel_tol is not None or file.abs_tol is not None
        relative = (file.rel_tol if own else rel_tol) or 0.0
        absolute = (file.abs_tol if own else abs_tol) or 0.0
        nominal = float(file.value)
        half = max(relative * abs(nominal), absolute)
        return _interval(nominal - half, nominal + half, unit, nominal)
    if file.min is not None or file.max is not None:
        low = -math.inf if file.min is None else file.min
        return _interval(low, math.inf if file.max is None else file.max, unit)
    allowed = file.one_of or (file.value,)
    one_of = tuple(_alternative(one) for one in allowed if one is not None)
    text = " or ".join(one if isinstance(one, str) else format_number(one) for one in one_of)
    return Limit(one_of=one_of, unit=unit, text=f"{text} {unit}".strip())


def _alternative(value: bool | float | str) -> str | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else float(value)


def _interval(low: float, high: float, unit: str, nominal: float = math.nan) -> Limit:
    bounds = [format_number(one) for one in (low, high)]
    if math.isinf(low):
        text = f"at most {bounds[1]} {unit}"
    elif math.isinf(high):
        text = f"at least {bounds[0]} {unit}"
    elif low == high:
        text = f"{bounds[0]} {unit}"
    elif math.isnan(nominal):
        text = f"{bounds[0]} to {bounds[1]} {unit}"
    else:
        text = f"{format_number(nominal)} {unit}".strip() + f" ({bounds[0]} to {bounds[1]})"
    return Limit(nominal=low if low == high else nominal, low=low, high=high, unit=unit, text=text.strip())


def _gradients(series: str, file: GradientsFile, inherited: str) -> GradientRule:
    source = file.source or inherited
    return GradientRule(
        id=f"{series}.gradients",
        shells=tuple(
            ShellRule(b_s_mm2=one.b, min_n=one.min_n, max_n=one.max_n, b_delta=one.b_delta)
            for one in file.shells
        ),
        b_tol=file.b_tol,
        extra_shells=file.extra_shells,
        min_unique_directions=file.min_unique_directions,
        max_condition_number=file.max_condition_number,
        max_energy_ratio=file.max_energy_ratio,
        severity=Severity(file.severity),
        if_absent=IfAbsent(file.if_absent),
        why=file.why,
        source=source,
        recommended=source == OWN_SOURCE,
    )


def _constraint(file: ConstraintFile, default: str | None) -> Constraint:
    source = file.source or default or ""
    name = file.fields[0] if file.fields else "RepetitionTime"
    return Constraint(
        id=file.id,
        kind=ConstraintKind(file.kind),
        series=file.series,
        fields=file.fields,
        within=Within(file.within),
        rel_tol=file.rel_tol,
        abs_tol=file.abs_tol,
        low=-math.inf if file.min is None else file.min,
        high=math.inf if file.max is None else file.max,
        min_count=file.min_count,
        max_count=file.max_count,
        first=None if file.first is None else make_limit(name, file.first),
        last=None if file.last is None else make_limit(name, file.last),
        even=file.even,
        severity=Severity(file.severity),
        why=file.why,
        source=source,
        recommended=source == OWN_SOURCE,
    )


def _budget(file: ProtocolFile) -> TimeBudget | None:
    one = file.time_budget
    if one is None:
        return None
    source = one.source or file.default_source or ""
    return TimeBudget(
        max_s=one.max_s, series=one.series, severity=Severity(one.severity), why=one.why, source=source
    )
