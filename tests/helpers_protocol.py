"""Protocols and series for tests of the protocol room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import protocol_from_data
from cordqa.protocol.fields import observe
from cordqa.protocol.records import ObservedSeries, Protocol
from cordqa.records import Entities

SOURCES = [{"id": "cordqa", "text": "test", "licence": "MIT"}]


def make_protocol(*series: Mapping[str, Any], constraints: Any = (), **keys: Any) -> Protocol:
    data: dict[str, Any] = {
        "schema": 1,
        "id": "test",
        "title": "Test",
        "version": "1",
        "rationale": "to test",
        "sources": SOURCES,
        "default_source": "cordqa",
        "series": list(series),
        "constraints": list(constraints),
        **keys,
    }
    return protocol_from_data(data)


def series_rule(name: str = "t2w", suffix: str = "T2w", *, params: Any = None, **keys: Any) -> dict[str, Any]:
    rules = {
        field: {"why": "test", **(rule if "by" in rule else {"by": {"any": rule}})}
        for field, rule in (params or {}).items()
    }
    match = keys.pop("match", [{"suffix": suffix}])
    return {"id": name, "title": name, "match": match, "params": rules, **keys}


def scan(
    suffix: str = "T2w",
    *,
    subject: str = "01",
    vendor: str = "Siemens",
    model: str = "Prisma",
    labels: Mapping[str, str] | None = None,
    gradients: Any = None,
    problem: str = "",
    site: str = "",
    session: str = "",
    software: str = "E11",
    scanner: str = "s1",
    **values: Any,
) -> ObservedSeries:
    names = {"sub": subject, **({"ses": session} if session else {}), **(labels or {})}
    stem = "_".join([*(f"{key}-{value}" for key, value in names.items()), suffix])
    entities = Entities(
        subject=subject,
        session=session,
        site=site,
        vendor=vendor,
        model=model,
        software=software,
        scanner=scanner,
    )
    return ObservedSeries(
        file=f"sub-{subject}/{stem}.json",
        entities=entities,
        suffix=suffix,
        labels=names,
        parameters={name: observe(name, raw) for name, raw in values.items()},
        gradients=gradients,
        problem=problem,
    )


def with_value(series: ObservedSeries, field: str, raw: Any) -> ObservedSeries:
    return replace(series, parameters={**series.parameters, field: observe(field, raw)})


def findings_of(protocol: Protocol, *series: ObservedSeries, field: str = "", **keys: Any) -> list[Any]:
    found = check_compliance(protocol, series, **keys).findings
    return [one for one in found if not field or one.field == field]


def only(found: list[Any]) -> Any:
    assert len(found) == 1, [(one.status, one.field, one.sentence) for one in found]
    return found[0]
