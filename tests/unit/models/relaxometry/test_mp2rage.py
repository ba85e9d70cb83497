"""MP2RAGE: signals against Bloch, T1 recovered with and without B1, ends of the branch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.mp2rage import (
    Mp2rageProtocol,
    combine_readouts,
    fit_mp2rage,
    mp2rage_signals,
    mp2rage_uniform,
)

SETTINGS = {
    "repetition_time_s": 5.0,
    "inversion_times_s": (0.7, 2.5),
    "flip_angles_deg": (4.0, 5.0),
    "excitation_spacing_s": 0.0071,
    "excitations_before": 60,
    "excitations_after": 110,
}
PROTOCOL = Mp2rageProtocol(**SETTINGS)


def bloch(protocol: Mp2rageProtocol, t1: float, b1: float) -> list[float]:
    """Signals of both readouts, excitation by excitation until the steady state."""
    mz, found = 1.0, []
    for _ in range(60):
        mz, found = -protocol.inversion_efficiency * mz, []
        for wait, nominal in zip(protocol.waits_s, protocol.flip_angles_deg, strict=False):
            angle = math.radians(nominal * b1)
            mz = 1 - (1 - mz) * math.exp(-wait / t1)
            for n in range(protocol.excitations_before + protocol.excitations_after):
                if n == protocol.excitations_before:
                    found.append(mz * math.sin(angle))
                mz = 1 - (1 - mz * math.cos(angle)) * math.exp(-protocol.excitation_spacing_s / t1)
        mz = 1 - (1 - mz) * math.exp(-protocol.waits_s[2] / t1)
    return found


@pytest.mark.parametrize("t1", [0.2, 0.85, 1.4, 4.0])
@pytest.mark.parametrize("b1", [0.7, 1.0, 1.3])
def test_signals_equal_bloch(t1: float, b1: float) -> None:
    np.testing.assert_allclose(mp2rage_signals(PROTOCOL, t1, b1=b1), bloch(PROTOCOL, t1, b1), atol=1e-12)


def test_t1_is_recovered_where_the_protocol_tells_it() -> None:
    rng = np.random.default_rng(0)
    t1, b1 = rng.uniform(0.3, 3.5, 2000), rng.uniform(0.7, 1.3, 2000)
    fit = fit_mp2rage(mp2rage_uniform(PROTOCOL, t1, b1=b1), PROTOCOL, b1=b1)
    assert fit.reasons.counts() == {}
    np.testing.assert_allclose(fit.values["T1"], 1000 * t1, rtol=1e-9)


def test_standard_errors_follow_the_noise() -> None:
    rng = np.random.default_rng(1)
    clean = float(mp2rage_uniform(PROTOCOL, 1.2))
    fit = fit_mp2rage(clean + rng.normal(0, 0.01, 4000), PROTOCOL, uniform_sd=0.01)
    assert fit.values["T1"].std() == pytest.approx(fit.standard_errors["T1"].mean(), rel=0.05)


def test_without_b1_t1_is_off_as_the_equation_says() -> None:
    value = mp2rage_uniform(PROTOCOL, 1.2, b1=0.8)
    assert abs(float(fit_mp2rage(value, PROTOCOL).values["T1"]) / 1200 - 1) > 0.02
    assert float(fit_mp2rage(value, PROTOCOL, b1=0.8).values["T1"]) == pytest.approx(1200)


def test_outside_the_branch_there_is_no_answer() -> None:
    fit = fit_mp2rage([0.4999, np.nan, 0.6, 0.0, -0.4999, 0.1, 0.2], PROTOCOL)
    reasons = [fit.reasons.at(n) for n in range(5)]
    assert reasons[0] == "outside the range of T1 that this protocol tells apart"
    assert "not a number" in reasons[1]
    assert "beyond -0.5 to 0.5" in reasons[2]
    assert reasons[3:] == ["", ""]
    assert np.isnan(fit.values["T1"][:3]).all()
    # Near the lower end a longer T1 folds back onto the same value.
    assert fit.flags["a T1 beyond the range of the protocol gives the same value"].tolist() == [
        False,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_long_t1_is_not_clipped() -> None:
    fit = fit_mp2rage(mp2rage_uniform(PROTOCOL, np.array([8.0])), PROTOCOL)
    value = fit.values["T1"][0]
    assert np.isnan(value) or fit.flags["a T1 beyond the range of the protocol gives the same value"][0]


def test_voxels_without_b1_have_no_value() -> None:
    value = mp2rage_uniform(PROTOCOL, np.full(3, 1.2))
    fit = fit_mp2rage(value, PROTOCOL, b1=[1.0, np.nan, 0.0])
    assert [fit.reasons.at(n) for n in range(3)] == ["", "no B1", "no B1"]


def test_combination_is_free_of_phase_and_decay() -> None:
    signals = mp2rage_signals(PROTOCOL, 1.1)
    decay = np.exp(-np.array([0.003, 0.01]) / 0.03)
    one, two = (signals[n] * decay * np.exp(0.7j) for n in (0, 1))
    assert float(combine_readouts(one, two)) == pytest.approx(float(mp2rage_uniform(PROTOCOL, 1.1)))
    assert np.isnan(combine_readouts(np.zeros(2), np.zeros(2)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"repetition_time_s": 5000.0}, "divide by 1000"),
        ({"inversion_times_s": (700.0, 2500.0)}, "divide by 1000"),
        ({"excitation_spacing_s": 7.1}, "divide by 1000"),
        ({"excitations_after": 400}, "do not fit between the inversions"),
        ({"flip_angles_deg": (0.0, 5.0)}, "flip angles"),
        ({"excitations_after": 0}, "centre of k-space"),
        ({"inversion_efficiency": 1.2}, "efficiency"),
    ],
)
def test_wrong_protocols_are_named(change, match) -> None:
    with pytest.raises(InputError, match=match):
        Mp2rageProtocol(**(SETTINGS | change))


def test_wrong_images_are_named() -> None:
    with pytest.raises(InputError, match="rescale"):
        fit_mp2rage(np.linspace(0, 4095, 10), PROTOCOL)
    with pytest.raises(InputError, match="percent"):
        fit_mp2rage(np.zeros(3), PROTOCOL, b1=100.0)
    with pytest.raises(InputError, match="does not fit"):
        fit_mp2rage(np.zeros(3), PROTOCOL, b1=np.ones(2))
    assert fit_mp2rage(np.empty((0,)), PROTOCOL).values["T1"].shape == (0,)
