"""Closed forms against a Bloch simulation, and nulling to machine precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.errors import FitError, InputError
from cordqa.models.synthetic.contrast import (
    EchoTiming,
    double_inversion,
    inversion_recovery,
    longitudinal_double_inversion,
    longitudinal_inversion,
    spin_echo,
)
from cordqa.models.synthetic.nulling import (
    Tissue,
    best_double_inversion,
    best_inversion,
    null_inversion_time,
    null_two_tissues,
    second_inversion_time,
)

WHITE, CSF = Tissue(t1_s=0.83, t2_s=0.075, proton_density=0.7), Tissue(t1_s=4.0, t2_s=2.0)
SPIN_ECHO = EchoTiming(repetition_time_s=15.0, echo_time_s=0.1)
TRAIN = EchoTiming(repetition_time_s=6.0, echo_time_s=0.1, readout_s=0.35)


def recover(mz: float, time: float, t1: float) -> float:
    return 1 - (1 - mz) * math.exp(-time / t1)


def bloch(t1: float, timing: EchoTiming, inversions: tuple[float, ...]) -> float:
    """Mz at excitation after many repetitions, pulse by pulse."""
    mz, at_excitation = 1.0, 1.0
    lead = inversions[0] if inversions else 0.0
    for _ in range(400):
        for n, before in enumerate(inversions):
            until = inversions[n + 1] if n + 1 < len(inversions) else 0.0
            mz = recover(-mz, before - until, t1)
        at_excitation, mz = mz, 0.0
        if timing.readout_s is None:
            mz = -recover(mz, timing.echo_time_s / 2, t1)
            rest = timing.repetition_time_s - timing.echo_time_s / 2 - lead
        else:
            rest = timing.repetition_time_s - timing.readout_s - lead
        mz = recover(mz, rest, t1)
    return at_excitation


@pytest.mark.parametrize("timing", [SPIN_ECHO, TRAIN, EchoTiming(repetition_time_s=0.6, echo_time_s=0.01)])
@pytest.mark.parametrize("t1", [0.25, 0.83, 1.4, 4.0])
def test_closed_forms_equal_bloch(timing: EchoTiming, t1: float) -> None:
    tr = timing.repetition_time_s
    first, second = 0.55 * tr, 0.1 * tr
    assert 1 - timing.lost(t1) == pytest.approx(bloch(t1, timing, ()), abs=1e-10)
    inverted = longitudinal_inversion(t1, timing, second)
    assert inverted == pytest.approx(bloch(t1, timing, (second,)), abs=1e-10)
    twice = longitudinal_double_inversion(t1, timing, first, second)
    assert twice == pytest.approx(bloch(t1, timing, (first, second)), abs=1e-10)


def test_published_null_points() -> None:
    timing = EchoTiming(repetition_time_s=6.0, echo_time_s=0.1)
    assert null_inversion_time(4.0, timing) == pytest.approx(1.949, abs=1e-3)
    for tr, te, first, second in [
        (15, 0.1, 3.854, 0.5595),
        (11, 0.03, 3.638, 0.5549),
        (6, 0.1, 2.839, 0.5234),
    ]:
        timing = EchoTiming(repetition_time_s=tr, echo_time_s=te)
        found = null_two_tissues((0.83, 4.0), timing)
        assert found == pytest.approx((first, second), abs=6e-4)
        for t1 in (0.83, 4.0):
            assert abs(longitudinal_double_inversion(t1, timing, *found)) < 1e-9


def test_two_tissues_need_a_repetition_that_is_long_enough() -> None:
    with pytest.raises(FitError, match="longer repetition"):
        null_two_tissues((0.83, 4.0), EchoTiming(repetition_time_s=0.5, echo_time_s=0.45))


def test_best_double_inversion_equals_a_grid_search() -> None:
    lesion = Tissue(t1_s=1.3, t2_s=0.12, proton_density=0.85)
    best = best_double_inversion(lesion, WHITE, CSF, SPIN_ECHO)
    assert best.second_s is not None
    assert best.at_edge
    grid = np.linspace(0.02, 14.88, 60_001)
    second = second_inversion_time(CSF.t1_s, SPIN_ECHO, grid)
    second[(second < 0.02) | (grid - second < 0.02)] = np.nan
    value = np.zeros((2, grid.size))
    for n, tissue in enumerate((lesion, WHITE)):
        mz = longitudinal_double_inversion(tissue.t1_s, SPIN_ECHO, grid, second)
        value[n] = tissue.proton_density * np.abs(mz) * math.exp(-0.1 / tissue.t2_s)
    brute = np.nanmax(np.abs(value[0] - value[1]))
    assert abs(best.contrast) >= brute - 1e-9
    assert best.flat_s[0] <= best.first_s <= best.flat_s[1]
    assert abs(longitudinal_double_inversion(4.0, SPIN_ECHO, best.first_s, best.second_s)) < 1e-9
    inside = (grid >= best.flat_s[0]) & (grid <= best.flat_s[1])
    assert np.nanmin(np.abs(value[0] - value[1])[inside]) >= 0.945 * brute


def test_best_inversion_equals_a_grid_search() -> None:
    lesion = Tissue(t1_s=1.3, t2_s=0.12, proton_density=0.85)
    timing = EchoTiming(repetition_time_s=5.0, echo_time_s=0.012)
    best = best_inversion(lesion, WHITE, timing)
    grid = np.linspace(0.02, 4.968, 20_001)
    mz = [
        t.proton_density * math.exp(-0.012 / t.t2_s) * longitudinal_inversion(t.t1_s, timing, grid)
        for t in (lesion, WHITE)
    ]
    assert abs(best.contrast) >= np.abs(mz[0] - mz[1]).max() - 1e-9


def test_signs_and_voxels_without_a_value() -> None:
    timing = EchoTiming(repetition_time_s=5.0, echo_time_s=0.01)
    t1 = np.array([0.8, 4.0, 0.0, -1.0, np.nan, 0.8])
    density = np.array([1.0, 1.0, 1.0, 1.0, 1.0, -0.2])
    kept = inversion_recovery(density, t1, 0.1, timing, 0.7)
    assert kept[0] > 0 > kept[1]
    assert np.isnan(kept[2:]).all()
    magnitude = inversion_recovery(density, t1, 0.1, timing, 0.7, keep_sign=False)
    assert magnitude[1] == -kept[1]
    assert np.isnan(spin_echo(density, t1, 0.1, timing)[2:]).all()
    assert (double_inversion(1.0, np.array([0.8, 1.4]), 0.1, SPIN_ECHO, 3.8, 0.5) >= 0).all()


def test_vectors_of_voxels_are_one_call() -> None:
    rng = np.random.default_rng(0)
    t1, t2, pd = rng.uniform(0.3, 4, 1000), rng.uniform(0.03, 2, 1000), rng.uniform(0.5, 1, 1000)
    timing = EchoTiming(repetition_time_s=9.0, echo_time_s=0.1)
    one = [float(inversion_recovery(pd[n], t1[n], t2[n], timing, 2.5)) for n in range(20)]
    np.testing.assert_allclose(inversion_recovery(pd, t1, t2, timing, 2.5)[:20], one, rtol=1e-14)


@pytest.mark.parametrize(
    ("action", "match"),
    [
        (lambda: EchoTiming(repetition_time_s=0.1, echo_time_s=0.2), "does not fit"),
        (lambda: EchoTiming(repetition_time_s=4000.0, echo_time_s=100.0), "milliseconds"),
        (lambda: inversion_recovery(1, 1, 0.1, SPIN_ECHO, 20.0), "does not fit"),
        (lambda: double_inversion(1, 1, 0.1, SPIN_ECHO, 0.5, 3.8), "not in order"),
        (lambda: Tissue(t1_s=830.0, t2_s=75.0), "in seconds"),
        (lambda: null_two_tissues((1.0, 1.0), SPIN_ECHO), "different"),
    ],
)
def test_bad_input_is_named(action: object, match: str) -> None:
    assert callable(action)
    with pytest.raises(InputError, match=match):
        action()


def test_an_optimum_beyond_the_last_grid_point_is_still_at_the_edge() -> None:
    # The second inversion comes as close as 20 ms to the excitation: the search ends between grid points.
    tissues = {
        "lesion": Tissue(t1_s=1.0, t2_s=0.2, proton_density=0.9),
        "reference": Tissue(t1_s=0.8, t2_s=0.07, proton_density=0.7),
        "nulled": Tissue(t1_s=4.0, t2_s=1.5),
    }
    at_start = 0
    for repetition in np.linspace(2.6, 3.7, 12):
        timing = EchoTiming(repetition_time_s=float(repetition), echo_time_s=0.02)
        found = best_double_inversion(tissues["lesion"], tissues["reference"], tissues["nulled"], timing)
        assert found.second_s is not None
        if found.second_s < 0.0201:
            at_start += 1
            assert found.at_edge
    assert at_start > 5


def test_no_room_for_an_inversion_is_named() -> None:
    timing = EchoTiming(repetition_time_s=0.13, echo_time_s=0.1)
    tissue = Tissue(t1_s=0.8, t2_s=0.07)
    with pytest.raises(FitError, match="no room"):
        best_inversion(tissue, tissue, timing)
    with pytest.raises(InputError, match="does not fit"):
        EchoTiming(repetition_time_s=1.0, echo_time_s=0.2, readout_s=0.1)
