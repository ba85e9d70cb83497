"""Two exchanging waters: steady states against brute force, recovery, identifiability, bad input."""

import numpy as np
import pytest
from scipy.linalg import expm

from cordqa.errors import InputError
from cordqa.models.myelin.two_pool_fit import (
    TwoPoolProtocol,
    fit_two_pools,
    measure_identifiability,
    two_pool_signals,
)
from cordqa.models.myelin.two_pool_signal import (
    TwoPools,
    balanced_two_pool_signal,
    spoiled_two_pool_signal,
)
from cordqa.models.relaxometry.signal import spoiled_gradient_echo_signal

PROTOCOL = TwoPoolProtocol(
    spoiled_angles_deg=(3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 13.0, 18.0),
    spoiled_tr_s=0.0065,
    balanced_angles_deg=(12.0, 16.0, 21.0, 27.0, 33.0, 40.0, 51.0, 68.0) * 2,
    phase_increments_deg=(180.0,) * 8 + (0.0,) * 8,
    balanced_tr_s=0.005,
)
TISSUE = {
    "fraction": 0.15,
    "t1_myelin_s": 0.45,
    "t2_myelin_s": 0.015,
    "t1_other_s": 1.1,
    "t2_other_s": 0.08,
    "residence_s": 0.1,
    "off_resonance_hz": 13.0,
}


def propagator(time, p):
    """Bloch-McConnell as one matrix over (x, y, z of both waters, 1): the textbook equations."""
    a, f = np.zeros((7, 7)), p["fraction"]
    leave = 1 / p["residence_s"]
    come = leave * f / (1 - f)
    turn = 2 * np.pi * p["off_resonance_hz"]
    for n, (t1, t2, away, back, m0) in enumerate(
        [
            (p["t1_myelin_s"], p["t2_myelin_s"], leave, come, f),
            (p["t1_other_s"], p["t2_other_s"], come, leave, 1 - f),
        ]
    ):
        x, other = 3 * n, 3 * (1 - n)
        a[x, x] = a[x + 1, x + 1] = -1 / t2 - away
        a[x, x + 1], a[x + 1, x] = -turn, turn
        a[x + 2, x + 2], a[x + 2, 6] = -1 / t1 - away, m0 / t1
        for axis in range(3):
            a[x + axis, other + axis] = back
    return expm(a * time)


def rotation(angle_deg, phase_deg):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    cp, sp = np.cos(np.radians(phase_deg)), np.sin(np.radians(phase_deg))
    turn = np.array([[cp, -sp, 0], [sp, cp, 0], [0, 0, 1]])
    one = turn @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ turn.T
    whole = np.eye(7)
    whole[:3, :3] = whole[3:6, 3:6] = one
    return whole


def step_until_steady(angle, tr, p, *, echo=0.0, increment=0.0, spoil=False):
    """Pulse after pulse from equilibrium, as the scanner does it."""
    m = np.array([0, 0, p["fraction"], 0, 0, 1 - p["fraction"], 1.0])
    between, to_echo = propagator(tr, p), propagator(echo, p)
    before = np.inf
    for n in range(6000):
        m = rotation(angle, (n * increment) % 360) @ m
        at_echo = to_echo @ m
        signal = np.hypot(at_echo[0] + at_echo[3], at_echo[1] + at_echo[4])
        if n > 500 and n % 100 == 0 and abs(signal - before) < 1e-14:
            break
        before = signal
        if spoil:
            m[[0, 1, 3, 4]] = 0
        m = between @ m
    return signal


@pytest.mark.parametrize("change", [{}, {"residence_s": 0.03, "off_resonance_hz": -40.0}, {"fraction": 0.3}])
def test_steady_states_are_those_of_pulse_after_pulse(change):
    p = {**TISSUE, **change}
    pools = TwoPools(**p)
    spoiled = spoiled_two_pool_signal([5.0, 18.0], 0.0065, pools, b1=0.9)
    for angle, got in zip((5.0, 18.0), spoiled, strict=True):
        assert got == pytest.approx(step_until_steady(0.9 * angle, 0.0065, p, spoil=True), abs=1e-10)
    balanced = balanced_two_pool_signal([20.0, 50.0], 0.005, pools, phase_increments_deg=[180.0, 0.0], b1=1.1)
    for angle, increment, got in zip((20.0, 50.0), (180.0, 0.0), balanced, strict=True):
        wanted = step_until_steady(1.1 * angle, 0.005, p, echo=0.0025, increment=increment)
        assert got == pytest.approx(wanted, abs=1e-10)


def test_without_exchange_spoiled_signals_add():
    pools = TwoPools(**{**TISSUE, "residence_s": np.inf})
    got = spoiled_two_pool_signal([4.0, 12.0], 0.0065, pools)
    parts = [spoiled_gradient_echo_signal([4.0, 12.0], t1, 0.0065) for t1 in (0.45, 1.1)]
    np.testing.assert_allclose(got, 0.15 * parts[0] + 0.85 * parts[1], atol=1e-14)


def test_equal_waters_are_one_water_whatever_the_exchange():
    same = {"t1_myelin_s": 1.0, "t1_other_s": 1.0, "t2_myelin_s": 0.08, "t2_other_s": 0.08}
    one = [
        two_pool_signals(PROTOCOL, TwoPools(**{**TISSUE, **same, "residence_s": time, "fraction": f}))
        for time, f in ((0.05, 0.1), (0.5, 0.3))
    ]
    np.testing.assert_allclose(one[0], one[1], atol=1e-13)


def test_noise_free_signals_give_the_tissue_back():
    fractions = np.array([0.05, 0.15, 0.28])
    pools = TwoPools(**{**TISSUE, "fraction": fractions})
    signal = two_pool_signals(PROTOCOL, pools, b1=[0.9, 1.0, 1.15])
    signal[:, 8:] *= 3.0  # the sequences need not share an amplitude
    fit = fit_two_pools(2e4 * signal, PROTOCOL, b1=[0.9, 1.0, 1.15])
    np.testing.assert_allclose(fit.values["MWF_mcDESPOT"], 100 * fractions, rtol=1e-3)
    np.testing.assert_allclose(fit.values["T2_other"], 80, rtol=1e-3)
    np.testing.assert_allclose(fit.values["residence_time"], 100, rtol=1e-2)


def test_what_the_protocol_can_tell_is_said():
    known = measure_identifiability(PROTOCOL)
    assert known.snr == (100.0, 500.0, 2000.0)
    assert known.rmse[0] > known.rmse[1] > known.rmse[2]
    # At usual noise the fit tells no more than the mean fraction does.
    assert known.rmse[1] > 0.9 * known.true_sd
    assert "hardly better than guessing the mean" in known.sentence
    fit = fit_two_pools(two_pool_signals(PROTOCOL, TwoPools(**TISSUE))[None], PROTOCOL)
    assert known.sentence in fit.notices


def test_every_hole_has_a_reason():
    clean = two_pool_signals(PROTOCOL, TwoPools(**TISSUE))
    data = np.stack([clean, clean, clean, 0 * clean, clean, np.where(np.arange(24) % 2, clean, 5 * clean)])
    data[1, 3] = np.nan
    data[2, 3] = -1
    b1 = np.array([1, 1, 1, 1, 0, 1.0])
    fit = fit_two_pools(data, PROTOCOL, b1=b1)
    assert [fit.reasons.at(n) for n in range(6)] == [
        "",
        "an image is missing",
        "a magnitude is negative",
        "no signal",
        "no B1",
        "two waters do not explain these signals",
    ]
    nothing = fit_two_pools(
        two_pool_signals(PROTOCOL, TwoPools(**{**TISSUE, "fraction": 0.5}))[None], PROTOCOL
    )
    assert np.isnan(nothing.values["MWF_mcDESPOT"][0])
    assert "end of its range" in nothing.reason_of("MWF_mcDESPOT").at(0)
    assert fit_two_pools(np.empty((0, 24)), PROTOCOL).values["T1_other"].shape == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spoiled_tr_s": 6.5}, "seconds"),
        ({"phase_increments_deg": (0.0,)}, "phase increment"),
        ({"spoiled_angles_deg": (3.0, 18.0)}, "at least four"),
        ({"spoiled_angles_deg": (0.0, 4.0, 5.0, 6.0)}, "flip angles"),
    ],
)
def test_wrong_protocols_are_named(change, words):
    given = {name: getattr(PROTOCOL, name) for name in PROTOCOL.__slots__}
    with pytest.raises(InputError, match=words):
        TwoPoolProtocol(**{**given, **change})


def test_images_must_fit_the_protocol():
    with pytest.raises(InputError, match="do not fit the protocol"):
        fit_two_pools(np.ones((3, 5)), PROTOCOL)
    with pytest.raises(InputError, match="between two pulses"):
        balanced_two_pool_signal(
            [20.0], 0.005, TwoPools(**TISSUE), phase_increments_deg=[0.0], echo_time_s=0.01
        )
