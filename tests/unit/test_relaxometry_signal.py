"""The signal equations against simulations that share nothing with them."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.signal import (
    exponential_decay,
    inversion_recovery_signal,
    multi_echo_spin_echo_signal,
    spin_echo_saturation,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)


def relax(mz: float, time: float, t1: float) -> float:
    return 1 + (mz - 1) * np.exp(-time / t1)


def inversion_recovery_by_cycles(ti, t1, tr, te, angle_deg):
    """Play the sequence pulse by pulse until it is steady."""
    mz = 1.0
    for _ in range(400):
        mz = relax(mz * np.cos(np.deg2rad(angle_deg)), ti, t1)
        signal, mz = mz, 0.0
        mz = -relax(mz, te / 2, t1) if te > 0 else mz
        mz = relax(mz, tr - ti - te / 2, t1)
    return signal


@pytest.mark.parametrize("t1", [0.03, 0.3, 2.0])
@pytest.mark.parametrize("te", [0.0, 0.012, 0.08])
@pytest.mark.parametrize("angle", [180.0, 150.0, 90.0])
def test_inversion_recovery_is_the_steady_state_of_the_sequence(t1, te, angle):
    expected = inversion_recovery_by_cycles(0.2, t1, 1.0, te, angle)
    signal = inversion_recovery_signal(
        0.2, t1, repetition_time_s=1.0, echo_time_s=te, inversion_angle_deg=angle
    )
    assert signal == pytest.approx(expected, abs=1e-12)


def test_inversion_recovery_without_tr_is_the_textbook_curve():
    ti = np.array([0.0, 0.1, 1.0])
    assert inversion_recovery_signal(ti, 0.5, m0=3.0) == pytest.approx(3 * (1 - 2 * np.exp(-ti / 0.5)))


def test_csf_null_point_with_finite_tr():
    # T1 4 s, TR 6 s, TE 0.1 s: the null lies at 1.949 s, far from T1 ln 2 = 2.773 s.
    signal = inversion_recovery_signal(1.949, 4.0, repetition_time_s=6.0, echo_time_s=0.1)
    assert signal == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("angle", [3.0, 15.0, 60.0])
@pytest.mark.parametrize("b1", [0.8, 1.0, 1.2])
def test_spoiled_gradient_echo_is_the_steady_state(angle, b1):
    mz, actual = 1.0, np.deg2rad(angle * b1)
    for _ in range(5000):
        signal = mz * np.sin(actual)
        mz = relax(mz * np.cos(actual), 0.015, 0.4)
    assert spoiled_gradient_echo_signal(angle, 0.4, 0.015, b1=b1) == pytest.approx(signal, rel=1e-9)


@pytest.mark.parametrize("n_echoes", [0, 1, 2, 8])
def test_saturation_of_an_echo_train(n_echoes):
    mz, spacing = 1.0, 0.01
    for _ in range(200):
        start, mz = mz, 0.0
        for echo in range(n_echoes):
            mz = -relax(mz, spacing / 2 if echo == 0 else spacing, 0.7)
        mz = relax(mz, 1.2 - max(n_echoes - 0.5, 0) * spacing, 0.7)
    result = spin_echo_saturation(0.7, 1.2, echo_spacing_s=spacing, n_echoes=n_echoes)
    assert result == pytest.approx(start, rel=1e-12)


def echoes_by_isochromats(n_echoes, spacing, t2, t1, refocusing_deg, excitation_deg, n=512):
    """Bloch equations of many spins that dephase by whole turns within half an echo spacing."""
    angle, start = np.deg2rad(refocusing_deg), np.deg2rad(excitation_deg)
    phase = 2 * np.pi * (np.arange(n) + 0.5) / n
    m = np.zeros((3, n))
    m[0], m[2] = np.sin(start), np.cos(start)
    e2, e1 = np.exp(-spacing / 2 / t2), np.exp(-spacing / 2 / t1)
    echoes = []
    for _ in range(n_echoes):
        for half in range(2):
            x, y, z = m
            m = np.array(
                [
                    (np.cos(phase) * x - np.sin(phase) * y) * e2,
                    (np.sin(phase) * x + np.cos(phase) * y) * e2,
                    z * e1 + 1 - e1,
                ]
            )
            if half == 0:
                x, y, z = m
                m = np.array(
                    [x, np.cos(angle) * y - np.sin(angle) * z, np.sin(angle) * y + np.cos(angle) * z]
                )
        echoes.append(m[0].mean())
    return np.array(echoes)


@pytest.mark.parametrize("refocusing", [180.0, 150.0, 120.0, 60.0, 200.0])
@pytest.mark.parametrize(("t2", "t1"), [(0.05, 1.0), (0.01, 0.012), (0.4, 0.5)])
def test_phase_graph_agrees_with_isochromats(refocusing, t2, t1):
    expected = echoes_by_isochromats(12, 0.01, t2, t1, refocusing, 80.0)
    signal = multi_echo_spin_echo_signal(
        12, 0.01, t2, t1, refocusing_angle_deg=refocusing, excitation_angle_deg=80.0
    )
    assert signal == pytest.approx(expected, abs=1e-13)


def test_phase_graph_with_ideal_refocusing_is_exponential():
    signal = multi_echo_spin_echo_signal(5, 0.01, [0.02, 0.2], 1.0, m0=[1.0, 7.0])
    times = 0.01 * np.arange(1, 6)
    assert signal == pytest.approx(spin_echo_signal(times, [[0.02], [0.2]], m0=[[1.0], [7.0]]), rel=1e-12)


def test_phase_graph_broadcasts_over_voxels():
    t2, angle = np.array([[0.03], [0.05]]), np.array([120.0, 140.0, 160.0])
    together = multi_echo_spin_echo_signal(4, 0.01, t2, 0.8, refocusing_angle_deg=angle)
    assert together.shape == (2, 3, 4)
    single = multi_echo_spin_echo_signal(4, 0.01, 0.05, 0.8, refocusing_angle_deg=140.0)
    assert together[1, 1] == pytest.approx(single, rel=1e-14)


@pytest.mark.parametrize(("n", "spacing"), [(0, 0.01), (4, 0.0), (4, np.nan)])
def test_phase_graph_refuses_an_empty_train(n, spacing):
    with pytest.raises(InputError, match="at least one echo"):
        multi_echo_spin_echo_signal(n, spacing, 0.05, 1.0)


def test_impossible_relaxation_times_are_nan_without_a_warning():
    bad = np.array([0.0, -1.0, np.nan, 0.5])
    good = np.array([False, False, False, True])
    for values in (
        inversion_recovery_signal(0.1, bad, repetition_time_s=1.0),
        spoiled_gradient_echo_signal(10.0, bad, 0.01),
        spin_echo_signal(0.01, bad),
        spin_echo_saturation(bad, 1.0),
        multi_echo_spin_echo_signal(2, 0.01, bad, 1.0)[:, 1],
    ):
        assert np.array_equal(np.isfinite(values), good)
    assert exponential_decay(1.0, np.inf) == 1.0
    assert exponential_decay(np.inf, 1.0) == 0.0
