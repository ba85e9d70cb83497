"""The result as text for a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from report import fixtures

from cordqa.records import Result, Status
from cordqa.report import render_text


def test_verdict_comes_first():
    lines = render_text(fixtures.phantom_result()).splitlines()
    assert lines[0] == "FAIL  System phantom 130-0042, three scanners at 3 T"
    assert lines[1].startswith("Five of 78 evaluated values")
    assert re.fullmatch(r"Checks: \d+ fail, \d+ warn, 6 not evaluated, \d+ pass", lines[2])


def test_counts_come_last():
    assert render_text(fixtures.phantom_result()).endswith("6 done, 1 skipped, 1 failed\n")


def test_failures_stand_with_limit_observation_and_source():
    text = render_text(fixtures.phantom_result())
    assert "FAIL     T1 within tolerance of the reference (limit ±5 %)" in text
    assert re.search(r"plate 5, sphere 2, T1, Beta 3T: 5\.\d+", text)
    assert "Source: cordqa default tolerances 1" in text
    assert "T1 ICC(A,1): — (fewer than five subjects)" in text


def test_text_and_page_state_the_same_counts():
    result = fixtures.cohort_result(20)
    assert "Checks: 1 warn, 4 pass" in render_text(result)
    assert "19 done, 0 skipped, 1 failed" in render_text(result)


def test_nothing_can_steer_a_terminal():
    text = render_text(fixtures.hostile_result())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    text.encode("utf-8")


def test_lines_stay_short_and_long_lists_are_counted():
    result = fixtures.phantom_result()
    many = replace(result, verdicts=result.verdicts * 5)
    text = render_text(many)
    assert max(len(line) for line in text.splitlines()) <= 96
    assert "more; see the report" in text
    assert len(text.splitlines()) < 80


def test_the_emptiest_result_has_a_verdict():
    assert render_text(Result(kind="", title="t", status=Status.NOT_EVALUATED)) == "NOT EVALUATED  t\n"


def test_a_line_break_in_a_title_does_not_break_the_first_line():
    assert render_text(Result(kind="", title="a\nPASS b", status=Status.FAIL)) == "FAIL  a PASS b\n"
