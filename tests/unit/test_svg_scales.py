"""Axes: monotonic, inside their ends, with ticks that can be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.report.scales import linear_scale, log_scale, nice_step

moderate = st.floats(-1e9, 1e9, allow_nan=False)
positive = st.floats(1e-6, 1e9, allow_nan=False)


@given(st.lists(moderate, min_size=1))
def test_a_linear_axis_holds_all_its_values(values):
    scale = linear_scale(values, 0, 100)
    assert all(0 <= scale(value) <= 100 for value in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(
        scale.low - 1e-9 * abs(scale.low) <= tick <= scale.high + 1e-9 * abs(scale.high) for tick in ticks
    )
    labels = [label for _, label in scale.tick_labels()]
    assert len(set(labels)) == len(labels) or scale.high - scale.low < 1e-4


@given(st.lists(positive, min_size=1))
def test_a_logarithmic_axis_holds_all_its_values(values):
    scale = log_scale(values, 0, 100)
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))


def test_pixels_grow_with_the_value_and_may_run_backwards():
    assert linear_scale([0, 10], 0, 100)(2) < linear_scale([0, 10], 0, 100)(3)
    assert linear_scale([0, 10], 100, 0)(2) > linear_scale([0, 10], 100, 0)(3)


@pytest.mark.parametrize(
    "values", [[], [math.nan], [math.inf], [5, 5], [0], [-1e-300, 1e-300], [1e9, 1e9 + 1e-6]]
)
def test_values_without_a_spread_still_make_an_axis(values):
    for make in (linear_scale, log_scale):
        scale = make(values, 0, 100)
        assert scale.high > scale.low
        assert scale.ticks()


def test_a_logarithm_of_nothing_is_not_a_number():
    scale = log_scale([1, 10], 0, 100)
    assert math.isnan(scale(0))
    assert math.isnan(scale(-1))
    assert not scale.shows(math.nan)


def test_round_steps():
    assert [nice_step(span, 5) for span in (1, 4, 9, 10, 37, 0.02)] == pytest.approx(
        [0.2, 1, 2, 2, 10, 0.005]
    )


def test_tick_texts_have_one_precision():
    assert [label for _, label in linear_scale([-0.4, 1], 0, 1).tick_labels()] == [
        "−0.4",
        "−0.2",
        "0.0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1.0",
    ]
    assert [label for _, label in log_scale([10, 2000], 0, 1).tick_labels()] == [
        "10",
        "30",
        "100",
        "300",
        "1000",
    ]
