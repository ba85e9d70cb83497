"""Protocol files: what is refused, and how it is said."""

from __future__ import annotations

import copy
import json
import math

import pytest
from helpers_protocol import SOURCES, make_protocol, series_rule
from pydantic import ValidationError

from cordqa.errors import DefinitionError
from cordqa.protocol.definition import (
    list_protocols,
    load_protocol,
    protocol_from_data,
    protocol_json_schema,
)
from cordqa.records import Severity

GOOD = """
schema: 1
id: mine
title: Mine
version: "1"
rationale: because
sources:
  - {id: sheet, text: a sheet, licence: MIT}
default_source: sheet
series:
  - id: t2w
    title: T2w
    match: [{suffix: T2w}]
    params:
      RepetitionTime: {rel_tol: 0.05, by: {Siemens: 1.5}}
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file(tmp_path):
    protocol = load_protocol(write(tmp_path, GOOD))
    rule = protocol.series_rule("t2w").parameters[0]
    assert (rule.limit.low, rule.limit.high) == pytest.approx((1.425, 1.575))
    assert rule.source == "sheet"
    assert not rule.recommended
    assert protocol.source("sheet").text == "a sheet"
    assert protocol.source("nothing") is None
    assert protocol.series_rule("nothing") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("RepetitionTime:", "RepetitonTime:", ["RepetitonTime", "did you mean 'RepetitionTime'", "line"]),
        ("Siemens:", "Simens:", ["'Simens' is not a vendor", "did you mean 'Siemens'"]),
        ("rel_tol", "reltol", ["'reltol' is not known here", "did you mean 'rel_tol'", "line 15"]),
        ("schema: 1", "schema: 2", ["schema"]),
        ("default_source: sheet", "default_source: shet", ["'shet' is not defined", "did you mean 'sheet'"]),
        ("default_source: sheet\n", "", ["no source"]),
        ("rel_tol: 0.05, ", "", ["needs rel_tol or abs_tol"]),
        ("Siemens: 1.5", "Siemens: fast", ["does not suit a number"]),
        ("Siemens: 1.5", 'Siemens: "1.5"', ["does not suit a number"]),
        ("Siemens: 1.5", "Siemens: .nan", ["finite"]),
        ("Siemens: 1.5", "Siemens: {min: 2, max: 1}", ["min 2 exceeds max 1"]),
        ("Siemens: 1.5", "Siemens: {value: 1, min: 1}", ["only one"]),
        ("Siemens: 1.5", "Siemens: {}", ["give a value"]),
        ("Siemens: 1.5", "any/Prisma: 1.5", ["does not name a vendor and a model"]),
        ("match: [{suffix: T2w}]", "match: [{entities: {mt: 'on'}}]", ["needs a suffix"]),
        ("match: [{suffix: T2w}]", "match: [{suffix: MTS, entities: {mt: on}}]", ["in quotes"]),
        ("match: [{suffix: T2w}]", "match: [{suffix: T2w, protocol_name: T2w}]", ["two entries"]),
        ("version:", "verzion:", ["did you mean 'version'"]),
        ("id: t2w", "id: T2 w", ["id"]),
        ("licence: MIT", "licence: MIT, page: 3", ["'page' is not known here"]),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(DefinitionError) as error:
        load_protocol(write(tmp_path, GOOD.replace(old, new, 1)))
    for word in words:
        assert word in str(error.value)
    assert "mine.yaml" in str(error.value)


def data(**keys):
    base = {
        "schema": 1,
        "id": "x",
        "title": "X",
        "version": "1",
        "rationale": "r",
        "sources": copy.deepcopy(SOURCES),
        "default_source": "cordqa",
        "series": [series_rule("a"), series_rule("b", "T1w")],
    }
    return {**base, **keys}


def link(kind, series="ab", **keys):
    return {"constraints": [{"id": "c", "kind": kind, "series": list(series), "why": "w", **keys}]}


def shells(*rows):
    return {"series": [{**series_rule("a"), "gradients": {"shells": list(rows), "why": "w"}}]}


def rules(field, **rule):
    return {"series": [series_rule("a", params={field: rule})]}


TE = {"fields": ["EchoTime"]}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"series": [series_rule("a"), series_rule("a")]}, "'a' is given twice"),
        ({"traps": ["phase-sgn"]}, "did you mean 'phase-sign'"),
        (link("equal", "az", **TE), "'z' is not defined"),
        (link("equal", "ab"), "equal needs fields"),
        (link("equal", "a", **TE), "needs two series"),
        (link("ratio", "ab", **TE), "min and max"),
        (link("ratio", "ab", fields=["ImageType"], min=1, max=2), "hold numbers"),
        (link("ratio", "aa", **TE, min=1, max=2), "'a' is given twice"),
        (link("values", "ab", **TE), "values needs 1 series"),
        (link("values", "a", **TE, min_count=3, max_count=2), "max_count 2"),
        (link("same-scaling", "a"), "2 or more"),
        (link("alike", "ab"), "same-scaling"),
        ({"time_budget": {"max_s": 900, "series": ["z"], "why": "w"}}, "'z' is not defined"),
        ({"time_budget": {"max_s": 900}}, "needs a reason"),
        (shells({"b": 1000}, {"b": 1010}), "overlap"),
        (shells({"b": 1000, "min_n": 9, "max_n": 3}), "max_n 3"),
        ({"series": [{**series_rule("a"), "duration_s": {"Simens": 3}}]}, "did you mean 'Siemens'"),
        (rules("EchoTime", why="", by={"any": {"value": 0.1, "rel_tol": 0.1}}), "needs a reason"),
        (rules("ImageType", min=1), "does not suit"),
    ],
)
def test_inconsistent_definitions(keys, words):
    with pytest.raises(ValidationError) as error:
        protocol_from_data(data(**keys))
    assert words in str(error.value)


def test_tolerances():
    rule = {
        "rel_tol": 0.1,
        "by": {"any": 2.0, "GE": {"value": 2.0, "abs_tol": 0.05}, "Philips": {"min": 1.0}},
    }
    protocol = make_protocol(series_rule(params={"RepetitionTime": {**rule, "abs_tol": 0.3}}))
    limits = {one.vendor: one.limit for one in protocol.series[0].parameters}
    assert (limits[""].low, limits[""].high) == pytest.approx((1.7, 2.3))
    assert (limits["GE"].low, limits["GE"].high) == pytest.approx((1.95, 2.05))
    assert limits["Philips"].low == 1.0
    assert math.isinf(limits["Philips"].high)
    assert limits["Philips"].text == "at least 1 s"
    assert math.isnan(limits["Philips"].nominal)


def test_negative_values_keep_their_order():
    rule = {"rel_tol": 0.1, "by": {"any": -1000.0}}
    limit = make_protocol(series_rule(params={"MTOffsetFrequency": rule})).series[0].parameters[0].limit
    assert limit.low < limit.nominal < limit.high


def test_what_a_limit_inherits():
    rule = {
        "rel_tol": 0.1,
        "severity": "warning",
        "why": "general",
        "by": {
            "any": 1.0,
            "GE": {"value": 1.0, "severity": "error", "why": "special", "if_absent": "missing"},
        },
    }
    general, special = make_protocol(series_rule(params={"EchoTime": rule})).series[0].parameters
    assert (general.severity, general.why, str(general.if_absent)) == (
        Severity.WARNING,
        "general",
        "not checkable",
    )
    assert (special.severity, special.why, str(special.if_absent)) == (Severity.ERROR, "special", "missing")
    assert general.recommended


def test_names_aliases_and_paths():
    assert load_protocol("spine-generic").id == "spine-generic-3t"
    with pytest.raises(DefinitionError, match="did you mean 'cord-15min'"):
        load_protocol("cord-15mim")
    with pytest.raises(DefinitionError, match="does not exist"):
        load_protocol("nowhere.yaml")
    aliases = [alias for name in list_protocols() for alias in load_protocol(name).aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(list_protocols())


def test_the_json_schema_is_json_and_strict():
    schema = protocol_json_schema()
    text = json.dumps(schema)
    assert "RepetitionTime" in text
    assert schema["additionalProperties"] is False
    assert {"schema", "id", "sources", "series"} <= set(schema["required"])
    assert all(
        one.get("additionalProperties") is False
        for name, one in schema["$defs"].items()
        if name != "LimitFile"
    )
    assert {"type": "number"} in schema["$defs"]["LimitFile"]["anyOf"]
