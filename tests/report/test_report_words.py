"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cordqa.records import Measurement
from cordqa.report.words import (
    clean_text,
    flag_words,
    format_estimate,
    format_expanded,
    format_limits,
    format_number,
    format_observed,
    format_pair,
    format_plain,
    half_width,
    pretty_unit,
    quantity_label,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "uncertainty", "expected"),
    [
        (1489.26, 12.3, ("1489", "12")),
        (22.859, 0.0437, ("22.859", "0.044")),
        (100, 0.0996, ("100.00", "0.10")),  # rounding adds a digit: 0.0996 is 0.10
        (1489.26, 123, ("1490", "120")),
        (1489.26, 1234, ("1500", "1200")),
        (-0.02, 1.4, ("0.0", "1.4")),  # never minus zero
        (-12.34, 1.4, ("−12.3", "1.4")),
        (12345.6, 12, ("12\u202f346", "12")),
        (5.0, NAN, ("5.000", "")),
        (5.0, 0.0, ("5.000", "")),
        (5.0, -1.0, ("5.000", "")),
        (NAN, 1.0, ("—", "")),
        (math.inf, 1.0, ("—", "")),
        (1e12, 1e10, ("1.000×10¹²", "1.0×10¹⁰")),
    ],
)
def test_value_to_the_second_digit_of_its_uncertainty(value, uncertainty, expected):
    assert format_pair(value, uncertainty) == expected


@example(0.0, 1.75e308)
@example(-1.7e308, 1.7e308)
@given(st.floats(), st.floats())
def test_nothing_that_is_not_a_number_is_ever_written(value, other):
    texts = [
        format_number(value),
        format_plain(value),
        *format_pair(value, other),
        *format_estimate(value, other, value),
        *format_estimate(other, value, other),
        *format_estimate(0.0, value, other),
        format_limits(value, other, "ms"),
        format_observed(value, other, other),
        *format_expanded(Measurement(quantity="T1", value=value, unit="ms", low=other, high=value)),
    ]
    assert not any("nan" in text or "inf" in text for text in texts)


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e4))
def test_what_is_written_is_within_rounding_of_what_was_measured(value, uncertainty):
    written = float(format_pair(value, uncertainty)[0].replace("−", "-").replace("\u202f", ""))
    assert abs(written - value) <= 0.06 * uncertainty


@given(st.floats(-1e4, 1e4), st.floats(0.01, 1e3))
def test_a_value_beyond_its_limit_never_reads_as_the_limit(limit, step):
    for observed in (limit + step * 1e-3, limit - step * 1e-3):
        if f"{observed:.7g}" != f"{limit:.7g}":
            shown = format_observed(observed, NAN, limit)
            assert shown != format_limits(NAN, limit).removeprefix("at most ")


def test_expanded_uncertainty_is_half_the_interval():
    symmetric = Measurement(quantity="T1", value=1000, unit="ms", low=980, high=1020, standard_uncertainty=99)
    assert format_expanded(symmetric) == ("1000", "±\u00a020")
    assert half_width(symmetric) == 20


def test_a_skewed_interval_is_written_with_both_ends():
    skewed = Measurement(quantity="T1", value=1000, unit="ms", low=990, high=1080)
    assert format_expanded(skewed) == ("1000", "990 to 1080")


def test_without_an_interval_twice_the_standard_uncertainty():
    assert format_expanded(Measurement(quantity="T1", value=7, unit="ms", standard_uncertainty=0.5)) == (
        "7.0",
        "±\u00a01.0",
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.54, 0.28, 3.41, ("0.54", "0.28 to 3.41")),
        (0.99, 0.985, 0.9901, ("0.99000", "0.98500 to 0.99010")),
        (2.31, 1.71, 2.91, ("2.31", "1.71 to 2.91")),
        (2.31, NAN, 2.91, ("2.310", "up to 2.91")),
        (2.31, 1.71, NAN, ("2.310", "from 1.71")),
        (2.31, NAN, NAN, ("2.310", "")),
        (NAN, 1.0, 2.0, ("—", "1.00 to 2.00")),
        (5.0, 5.0, 5.0, ("5.000", "5.00 to 5.00")),
        (5.0, 6.0, 4.0, ("5.000", "6.00 to 4.00")),
    ],
)
def test_an_estimate_and_its_interval_have_one_precision(value, low, high, expected):
    assert format_estimate(value, low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (-5, 5, "%", "±5\u00a0%"),
        (0.95, 1.05, "", "0.95 to 1.05"),
        (NAN, 5, "%", "at most 5\u00a0%"),
        (0.9, NAN, "1", "at least 0.9"),
        (NAN, NAN, "%", ""),
    ],
)
def test_limits_read_as_they_were_chosen(low, high, unit, expected):
    assert format_limits(low, high, unit) == expected


def test_an_observation_shows_on_which_side_of_the_limit_it_lies():
    assert format_observed(5.0012, -5, 5, "%") == "5.001\u00a0%"
    assert format_observed(14.0, 0, NAN, "spheres") == "14\u00a0spheres"
    assert format_observed(5.3, -5, 5, "%") == "5.30\u00a0%"


def test_units_and_labels_come_from_the_registry():
    assert [pretty_unit(unit) for unit in ("um2/s", "mm2", "1", "ms")] == ["µm²/s", "mm²", "", "ms"]
    assert quantity_label("T2star") == "T2*"
    assert quantity_label("my own") == "my own"


def test_flags_become_words_and_sentences_stay():
    assert flag_words(("outside-protocol_range", "", "no signal: check the coil")) == (
        "outside protocol range; no signal: check the coil"
    )


def test_control_characters_are_marked():
    assert clean_text("a\x1b[31m\u202eb\ud800\n") == "a�[31m�b�\n"
