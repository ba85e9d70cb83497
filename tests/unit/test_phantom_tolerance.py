"""Tolerances: the shipped default, and a user's file laid over it."""

from __future__ import annotations

import math

import pytest

from cordqa.errors import DefinitionError
from cordqa.phantom.tolerance import CHECKS, load_tolerances


def load(tmp_path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_tolerances(path)


def refused(tmp_path, rule: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, f"schema: 1\nrules:\n  - {rule}\n")
    assert "mine.yaml" in str(caught.value)
    return str(caught.value)


def test_every_default_rule_names_its_source_and_reason():
    tolerances = load_tolerances()
    assert tolerances.coverage_factor == 2
    for rule in tolerances.rules:
        assert rule.source
        assert rule.why
        assert rule.text
    assert {rule.check for rule in tolerances.rules} == set(CHECKS)


def test_default_limits_that_are_published():
    tolerances = load_tolerances()
    assert tolerances.find("sphere-error", quantity="T1").warn == (-5.5, 5.5)
    assert "10.1002/mrm.26903" in tolerances.find("sphere-error", quantity="T1").source
    for quantity, within, between in (("T1", 2.07, 10.86), ("T2", 7.60, 15.27), ("PD", 12.86, 9.95)):
        assert tolerances.find("within-scanner-cv", quantity=quantity).warn == (-math.inf, within)
        rule = tolerances.find("between-scanner-cv", quantity=quantity)
        assert rule.warn == (-math.inf, between)
        assert "Hagiwara" in rule.source


def test_a_method_has_a_rule_of_its_own():
    tolerances = load_tolerances()
    assert (
        tolerances.find("sphere-error", quantity="T1", method="Variable flip angle, B1 corrected").warn[1]
        == 15
    )
    assert tolerances.find("sphere-error", quantity="T1", method="inversion recovery").warn[1] == 5.5


def test_no_rule_for_an_unknown_quantity():
    assert load_tolerances().find("sphere-error", quantity="MTR") is None


def test_a_user_file_changes_only_what_it_names(tmp_path):
    tolerances = load(
        tmp_path, "schema: 1\nname: My site\nrules:\n  - {check: sphere-error, quantity: T1, fail: 8}\n"
    )
    rule = tolerances.find("sphere-error", quantity="T1")
    assert (rule.warn, rule.fail) == ((-5.5, 5.5), (-8, 8))
    # The changed limit is no longer that of the cited paper.
    assert rule.source == "tolerance file 'My site'"
    assert rule.why == ""
    assert tolerances.find("sphere-error", quantity="T2") == load_tolerances().find(
        "sphere-error", quantity="T2"
    )
    assert tolerances.name == "My site"


def test_a_user_file_may_bring_its_own_source_and_narrower_rules(tmp_path):
    text = """\
schema: 1
sources: [{id: sop, citation: Local procedure 12.}]
decision: {coverage_factor: 1.96}
rules:
  - {check: sphere-error, quantity: T1, plates: [5], warn: 3, fail: 6, source: sop}
  - {check: sphere-error, quantity: T1, plates: [5], spheres: [1, 2], warn: 2, fail: 4, source: sop}
"""
    tolerances = load(tmp_path, text)
    assert tolerances.coverage_factor == 1.96
    assert tolerances.find("sphere-error", quantity="T1", plate="4", sphere="1").warn[1] == 5.5
    assert tolerances.find("sphere-error", quantity="T1", plate="5", sphere="3").warn[1] == 3
    rule = tolerances.find("sphere-error", quantity="T1", plate="5", sphere="1")
    assert (rule.warn[1], rule.source) == (2, "Local procedure 12.")


def test_a_user_file_may_leave_the_default_out(tmp_path):
    tolerances = load(
        tmp_path, "schema: 1\nextends: nothing\nrules:\n  - {check: ccc, warn: 0.99, fail: 0.9}\n"
    )
    assert len(tolerances.rules) == 1


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{check: sphere-eror, warn: 1, fail: 2}", "did you mean 'sphere-error'"),
        ("{check: sphere-error, quantity: T9, warn: 1, fail: 2}", "not registered"),
        ("{check: sphere-error, quantity: T1, wran: 1, fail: 2}", "did you mean 'warn'"),
        ("{check: sphere-error, quantity: T1, warn: 9, fail: 8}", "warn must not be wider"),
        ("{check: sphere-error, quantity: T1, warn: -1}", "warn must not be wider"),
        ("{check: sphere-error, quantity: T1, warn: 0, fail: 0}", "must be positive"),
        ("{check: sphere-error, quantity: T1, warn: .nan}", "finite"),
        ("{check: sphere-error, quantity: T1, warn: '5'}", "warn"),
        ("{check: sphere-error, quantity: T1, warn: [1, 2]}", "one number"),
        ("{check: sphere-error, quantity: T1, unit: ms}", "unit of sphere-error"),
        ("{check: sphere-error, quantity: T1, source: sop, warn: 1}", "'sop' is not defined"),
        ("{check: sphere-error, quantity: MTR, warn: 1}", "both warn and fail"),
        ("{check: slope, warn: 0.05}", "[low, high]"),
        ("{check: slope, warn: [1.05, 0.95]}", "warn must not be wider"),
        ("{check: ccc, warn: 0.9, fail: 0.95}", "warn must not be wider"),
        ("{check: sphere-error, plates: [a, [b]]}", "plates"),
    ],
)
def test_mistakes_are_told(tmp_path, rule, told):
    assert told in refused(tmp_path, rule)


def test_a_rule_given_twice(tmp_path):
    with pytest.raises(DefinitionError, match="given twice"):
        load(tmp_path, "schema: 1\nrules:\n  - {check: ccc, warn: 0.99}\n  - {check: ccc, warn: 0.98}\n")


def test_rule_in_words():
    tolerances = load_tolerances()
    assert "warn beyond ±5.5 %, fail beyond ±11 %" in tolerances.find("sphere-error", quantity="T1").text
    assert "warn below 0.99, fail below 0.97" in tolerances.find("ccc").text
    assert "outside 0.95 to 1.05" in tolerances.find("slope").text
    assert "warn above 2.07 %" in tolerances.find("within-scanner-cv", quantity="T1").text
