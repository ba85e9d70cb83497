"""One suite for every protocol: put a YAML file into ``protocols/`` and it is tested here."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.protocol.check_values import choose_rule, find_unit, is_within
from cordqa.protocol.compliance import check_compliance
from cordqa.protocol.definition import list_protocols, load_protocol
from cordqa.protocol.example import make_compliant_series, value_within
from cordqa.protocol.fields import FIELDS, FieldKind, observe
from cordqa.protocol.matching import find_rules
from cordqa.protocol.records import ConstraintKind, FindingStatus
from cordqa.records import Status
from cordqa.resources import resource_path

pytestmark = pytest.mark.parametrize("name", list_protocols())

SCANNERS = [
    ("Siemens", "Prisma"),
    ("Siemens", "TrioTim"),
    ("Philips", "Ingenia"),
    ("GE", "DISCOVERY_MR750"),
    ("Canon", "Galan"),
]


def made(name, vendor="Siemens", model="Prisma", **keys):
    protocol = load_protocol(name)
    return protocol, make_compliant_series(protocol, vendor=vendor, model=model, **keys)


def statuses(protocol, series, field, file):
    found = check_compliance(protocol, series).findings
    return [one.status for one in found if one.field == field and one.file == file]


def test_file_name_is_the_identifier(name):
    assert load_protocol(name).id == name


def test_text_is_there_for_people(name):
    protocol = load_protocol(name)
    assert protocol.title and protocol.version and len(protocol.rationale) > 50
    assert resource_path("protocols", f"{name}.yaml").read_text(encoding="utf-8").startswith("#")
    assert all(rule.title for rule in protocol.series)
    assert all(constraint.why for constraint in protocol.constraints)


def test_every_source_is_used_and_complete(name):
    protocol = load_protocol(name)
    used = {rule.source for series in protocol.series for rule in series.parameters}
    used |= {series.gradients.source for series in protocol.series if series.gradients}
    used |= {series.duration_source for series in protocol.series if series.duration_s}
    used |= {constraint.source for constraint in protocol.constraints}
    used |= {protocol.time_budget.source} if protocol.time_budget else set()
    listed = {source.id for source in protocol.sources}
    assert used <= listed
    # What is cited for the protocol as a whole need not stand behind a single number.
    assert listed - used <= {"cohen-adad2021"}
    for source in protocol.sources:
        assert source.licence
        assert source.doi == "" or source.doi.startswith("10.")
        assert source.commit == "" or len(source.commit) == 40


def test_recommendations_have_a_reason(name):
    protocol = load_protocol(name)
    for series in protocol.series:
        assert all(rule.why for rule in series.parameters if rule.recommended)


@pytest.mark.parametrize(("vendor", "model"), SCANNERS)
def test_a_compliant_session_passes(name, vendor, model):
    protocol, series = made(name, vendor, model)
    result = check_compliance(protocol, series)
    assert result.status is Status.PASS
    assert result.overall.compliance == 1.0
    assert not result.deviations
    assert result.overall.n_pass >= 8
    assert result.overall.n_unmatched == 0


def test_every_field_can_be_checked_on_some_scanner(name):
    checked, asked = set(), set()
    for vendor, model in SCANNERS:
        protocol, series = made(name, vendor, model)
        for one in check_compliance(protocol, series).findings:
            asked.add((one.series, one.field))
            if one.status.is_checkable:
                checked.add((one.series, one.field))
    assert {pair for pair in asked - checked if pair[1] != "phase sign"} == set()


@pytest.mark.parametrize(("vendor", "model"), SCANNERS)
def test_every_series_is_recognised_and_only_once(name, vendor, model):
    protocol, series = made(name, vendor, model)
    found = [find_rules(protocol, one) for one in series]
    assert all(len(rules) == 1 for rules in found)
    assert {rules[0].id for rules in found} == {rule.id for rule in protocol.series}


def outside(limit, spec):
    """Values just outside a limit that no other unit would explain."""
    span = 0.02 * max(abs(v) for v in (limit.low, limit.high) if math.isfinite(v))
    values = [limit.low - span if math.isfinite(limit.low) else math.nan, limit.high + span]
    return [v for v in values if math.isfinite(v) and not find_unit(spec, v, limit)]


@pytest.mark.parametrize(("vendor", "model"), SCANNERS[:4])
def test_each_parameter_outside_is_found_and_inside_is_not(name, vendor, model):
    protocol, series = made(name, vendor, model)
    for number, one in enumerate(series):
        rule = find_rules(protocol, one)[0]
        for field in dict.fromkeys(parameter.field for parameter in rule.parameters):
            rules = [parameter for parameter in rule.parameters if parameter.field == field]
            chosen = choose_rule(rules, vendor=vendor, model=model)
            if chosen is None:
                continue
            for value, expected in cases(chosen.limit, FIELDS[field]):
                changed = replace(one, parameters={**one.parameters, field: observe(field, value)})
                others = [*series[:number], changed, *series[number + 1 :]]
                assert statuses(protocol, others, field, one.file) == [expected], (field, value)


def cases(limit, spec):
    if spec.kind is not FieldKind.NUMBER:
        other = not value_within(limit) if spec.kind is FieldKind.FLAG else "SOMETHING ELSE"
        return [(value_within(limit), FindingStatus.PASS), (other, FindingStatus.OUT_OF_RANGE)]
    inside = [v for v in (limit.low, limit.high, value_within(limit)) if math.isfinite(v)]
    assert all(is_within(limit, v) for v in inside)
    found = [(v, FindingStatus.PASS) for v in inside]
    return found + [(v, FindingStatus.OUT_OF_RANGE) for v in outside(limit, spec)]


def test_a_field_that_is_not_recorded_never_passes(name):
    protocol, series = made(name)
    for number, one in enumerate(series):
        nobody = replace(one.entities, field_strength_T=math.nan, software="")
        bare = replace(one, parameters={}, gradients=None, entities=nobody)
        found = check_compliance(protocol, [*series[:number], bare, *series[number + 1 :]]).findings
        mine = [f for f in found if f.file == one.file and f.field not in ("series", "phase sign")]
        assert mine
        assert all(f.status in (FindingStatus.NOT_CHECKABLE, FindingStatus.MISSING) for f in mine)


def test_each_missing_series_is_found(name):
    protocol, series = made(name)
    for rule in protocol.series:
        rest = [one for one in series if find_rules(protocol, one)[0].id != rule.id]
        extra = [replace(series[0], suffix="bold", file="other.json", labels={"sub": "01"})]
        found = [
            f.series for f in check_compliance(protocol, [*rest, *extra]).findings if f.status == "missing"
        ]
        assert found == ([rule.id] if rule.required else [])


def test_each_shell_that_is_lost_is_found(name):
    protocol, series = made(name)
    for one in (s for s in series if s.gradients is not None):
        rule = find_rules(protocol, one)[0].gradients
        table = one.gradients.table
        for shell in rule.shells:
            gone = (table.b_values_s_mm2 == shell.b_s_mm2) & (
                (table.b_delta == shell.b_delta) | (shell.b_s_mm2 == 0)
            )
            assert gone.any()
            lost = replace(one.gradients, table=table.select(~gone))
            changed = [replace(one, gradients=lost) if s is one else s for s in series]
            assert check_compliance(protocol, changed).status is Status.FAIL
            off = GradientTable(
                b_values_s_mm2=np.where(
                    gone, table.b_values_s_mm2 * (1 + 1.2 * rule.b_tol), table.b_values_s_mm2
                ),
                directions=table.directions,
                b_delta=table.b_delta,
            )
            changed = [
                replace(one, gradients=replace(one.gradients, table=off)) if s is one else s for s in series
            ]
            expected = Status.PASS if shell.b_s_mm2 == 0 else Status.FAIL
            assert check_compliance(protocol, changed).status is expected


def test_each_constraint_finds_what_breaks_it(name):
    protocol, series = made(name, "Philips", "Ingenia")
    for constraint in protocol.constraints:
        broken = [break_constraint(constraint, one, protocol) for one in series]
        if constraint.kind is ConstraintKind.SAME_SOFTWARE:
            second = make_compliant_series(
                protocol, vendor="Philips", model="Ingenia", subject="02", software="2.0"
            )
            broken = [*series, *second]
        elif constraint.within == "scanner":
            second = make_compliant_series(protocol, vendor="Philips", model="Ingenia", subject="02")
            broken = [*broken, *second]
        if constraint.kind is ConstraintKind.VALUES:
            broken = spoil_values(constraint, series, protocol)
        found = check_compliance(protocol, broken).findings
        hit = [f for f in found if f.rule == constraint.id and f.status is FindingStatus.CONSTRAINT]
        assert hit, constraint.id


def break_constraint(constraint, one, protocol):
    """Change the first series of a constraint."""
    if not constraint.series or find_rules(protocol, one)[0].id != constraint.series[0]:
        return one
    fields = ("PhilipsScaleSlope",) if constraint.kind is ConstraintKind.SAME_SCALING else constraint.fields
    changed = dict(one.parameters)
    for field in fields:
        if FIELDS[field].kind is FieldKind.NUMBER:
            changed[field] = observe(field, one.parameters[field].value * 1.3)
        else:
            changed[field] = observe(field, "SOMETHING ELSE")
    return replace(one, parameters=changed)


def spoil_values(constraint, series, protocol):
    """Keep one value too few, or add one too many."""
    mine = [one for one in series if find_rules(protocol, one)[0].id == constraint.series[0]]
    field = constraint.fields[0]
    if constraint.min_count > 1:
        first = mine[0].parameters[field]
        return [replace(one, parameters={**one.parameters, field: first}) for one in mine]
    twice = observe(field, mine[0].parameters[field].value * 2)
    return [replace(mine[0], parameters={**mine[0].parameters, field: twice}), *mine[1:]]
