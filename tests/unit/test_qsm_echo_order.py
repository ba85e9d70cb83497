"""Echoes in another order or at other times than was said: the map would look right and be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_qsm import TIMES, echoes, head

from cordqa.errors import InputError
from cordqa.models.susceptibility.echo_order import check_decay, check_direction, judge_times
from cordqa.models.susceptibility.scan import Scan
from cordqa.models.susceptibility.stage import FieldStage, measure_field

SAID = "does not grow in step with the echo times"


@pytest.fixture(scope="module")
def data():
    mask, _, field = head((32, 32, 28))
    offset = 0.5 * np.sin(np.indices(mask.shape)[1] / 7)
    phase, magnitude = echoes(field, tissue=mask, snr=40, offset=offset)
    return phase, magnitude, mask


def field_of(data, order=None, times=TIMES, magnitude_order=None) -> FieldStage:
    phase, magnitude, mask = data
    order = list(range(len(times))) if order is None else order
    scan = Scan(
        phase=phase[..., order],
        magnitude=magnitude[..., order if magnitude_order is None else magnitude_order],
        echo_times_s=times,
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        field_strength_t=3.0,
    )
    return measure_field(scan, mask=mask)


def test_echoes_in_order_are_believed(data):
    assert not [text for text in field_of(data).warnings if SAID in text]
    # A missing echo is none where its time is missing as well; nor are times that all lack the same.
    left = [0, 1, 3, 4]
    assert not [text for text in field_of(data, left, TIMES[left]).warnings if SAID in text]
    assert not [text for text in field_of(data, times=TIMES + 0.001).warnings if SAID in text]


@pytest.mark.parametrize(
    ("order", "times"),
    [
        ([0, 2, 1, 3, 4], TIMES),
        ([1, 0, 2, 3, 4], TIMES),
        ([0, 1, 2, 4, 3], TIMES),
        ([0, 1, 3, 4], TIMES[:4]),
        ([0, 1, 2, 3, 4], TIMES + np.array([0, 0, 0.001, 0, 0])),
    ],
)
def test_wrong_places_and_times_are_said(data, order, times):
    assert [text for text in field_of(data, order, times).warnings if SAID in text]


def test_reversed_echoes_are_refused(data):
    back = [4, 3, 2, 1, 0]
    with pytest.raises(InputError, match="magnitude grows with echo time"):
        field_of(data, back)
    with pytest.raises(InputError, match="the phase runs backwards"):
        field_of(data, back, magnitude_order=[0, 1, 2, 3, 4])
    with pytest.raises(InputError, match="the phase runs backwards"):
        field_of(data, [2, 0], TIMES[[0, 2]], magnitude_order=[0, 2])


def test_an_offset_that_varies_by_turns_is_not_taken_for_reversed_echoes():
    # A third of the voxels happens to look reversed, the rest agrees about nothing.
    rng = np.random.default_rng(1)
    slope = 150 * rng.standard_normal(3000)
    offset = rng.uniform(-np.pi, np.pi, slope.size)
    offset[:1000] = -slope[:1000] * (TIMES[0] + TIMES[-1])
    check_direction(slope, offset, TIMES)
    offset[:2400] = -slope[:2400] * (TIMES[0] + TIMES[-1])
    with pytest.raises(InputError, match="the phase runs backwards"):
        check_direction(slope, offset, TIMES)


def test_what_cannot_tell_is_silent():
    one = np.ones((50, 1))
    check_decay(one)
    check_decay(np.ones((50, 3)))
    check_decay(np.zeros((0, 3)))
    nothing = np.full(50, np.nan)
    check_direction(nothing, nothing, TIMES)
    check_direction(nothing, nothing, TIMES[:1])
    assert judge_times(nothing, np.full((50, 5), np.nan), TIMES) == ""
    assert judge_times(np.zeros(50), np.zeros((50, 5)), TIMES) == ""
    assert judge_times(np.zeros(50), np.zeros((50, 2)), TIMES[:2]) == ""
    noise = np.random.default_rng(0).normal(size=(2000, 6))
    assert judge_times(100 * noise[:, 0], 0.05 * noise[:, 1:], TIMES) == ""
    check_direction(100 * noise[:, 0], noise[:, 1], TIMES)
