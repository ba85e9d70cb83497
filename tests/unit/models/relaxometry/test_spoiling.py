"""RF spoiling: phase graph against isochromats, and T1 of flip angles corrected by it."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.signal import spoiled_gradient_echo_signal
from cordqa.models.relaxometry.spoiling import make_spoiling_correction, rf_spoiled_signal
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

ANGLES, TR, INCREMENT, T2 = (4.0, 24.0), 0.0164, 50.0, 0.07


def isochromats(angle: float, t1: float, t2: float, tr: float, increment: float, pulses: int) -> float:
    """Signal after the last pulse of spins that dephase evenly over a turn per repetition."""
    count = 4 * pulses + 4
    turn = np.exp(2j * np.pi * np.arange(count) / count)
    xy, z, phase = np.zeros(count, complex), np.ones(count), 0.0
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for pulse in range(pulses):
        phase += pulse * np.radians(increment)
        rotated = xy * np.exp(-1j * phase)
        # Rotation about x: y and z mix.
        y, new_z = rotated.imag * cosine - z * sine, rotated.imag * sine + z * cosine
        xy = (rotated.real + 1j * y) * np.exp(1j * phase)
        z = new_z
        signal = abs(xy.mean())
        xy, z = xy * np.exp(-tr / t2) * turn, 1 - (1 - z) * np.exp(-tr / t1)
    return float(signal)


@pytest.mark.parametrize("pulses", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("increment", [0.0, 50.0, 117.0])
def test_phase_graph_equals_isochromats(pulses: int, increment: float) -> None:
    graph = rf_spoiled_signal(
        20.0, 0.9, 0.07, 0.015, increment_deg=increment, n_pulses=pulses, n_orders=pulses + 2
    )
    assert float(graph) == pytest.approx(isochromats(20.0, 0.9, 0.07, 0.015, increment, pulses), abs=1e-12)


def test_short_t2_is_ideal_spoiling() -> None:
    found = rf_spoiled_signal(20.0, 0.9, 0.0005, 0.015, increment_deg=50.0)
    assert float(found) == pytest.approx(float(spoiled_gradient_echo_signal(20.0, 0.9, 0.015)), rel=1e-6)


def apparent(t1: np.ndarray, t2: float, b1: float) -> np.ndarray:
    signal = rf_spoiled_signal(np.array(ANGLES), t1[:, None], t2, TR, increment_deg=INCREMENT, b1=b1)
    return fit_variable_flip_angle(signal, ANGLES, TR, b1=b1).parameters["t1_s"]


def test_correction_takes_the_bias_out_between_its_grid_points() -> None:
    correction = make_spoiling_correction(ANGLES, TR, increment_deg=INCREMENT, t2_s=T2)
    t1 = np.array([0.5, 0.93, 1.41, 2.6])
    for b1 in (0.77, 0.95, 1.18):
        seen = apparent(t1, T2, b1)
        assert np.abs(seen / t1 - 1).max() > 0.02
        np.testing.assert_allclose(seen * correction.factor(seen, b1), t1, rtol=1e-3)
    assert correction.largest_residual < 1e-3 < correction.largest_change


def test_another_t2_than_assumed_leaves_part_of_the_bias() -> None:
    correction = make_spoiling_correction(ANGLES, TR, increment_deg=INCREMENT, t2_s=T2)
    t1 = np.array([0.9, 1.4])
    seen = apparent(t1, 0.6 * T2, 1.0)
    left = seen * correction.factor(seen, 1.0) / t1 - 1
    assert np.abs(left).max() < 0.03


def test_beyond_the_simulation_there_is_no_factor() -> None:
    correction = make_spoiling_correction(ANGLES, TR, increment_deg=INCREMENT, t2_s=T2)
    assert np.isnan(correction.factor([0.05, 30.0, 1.0, np.nan], [1.0, 1.0, 3.0, 1.0])).all()


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="divide by 1000"):
        make_spoiling_correction(ANGLES, TR, increment_deg=50.0, t2_s=70.0)
    with pytest.raises(InputError, match="increment"):
        make_spoiling_correction(ANGLES, TR, increment_deg=-1.0, t2_s=0.07)
