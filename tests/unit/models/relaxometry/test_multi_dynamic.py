"""Multi-dynamic multi-echo: the equation against Bloch, exact recovery, errors, missing images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.multi_dynamic import (
    MultiDynamicProtocol,
    fit_multi_dynamic,
    multi_dynamic_signal,
)

DELAYS, ECHOES = np.repeat([0.17, 0.67, 1.84, 3.84], 2), np.tile([0.0228, 0.1026], 4)
PROTOCOL = MultiDynamicProtocol(delays_s=DELAYS, echo_times_s=ECHOES, repetition_time_s=4.0)
# T1, T2 of white and grey matter; these carry the claim of 4 %.
WHITE, GREY = (0.85, 0.075), (1.1, 0.09)


def bloch(t1: float, t2: float, b1: float, protocol: MultiDynamicProtocol) -> np.ndarray:
    """Signal of every image, pulse by pulse until the steady state."""
    found = []
    a, th = math.radians(90 * b1), math.radians(120 * b1)
    for delay, echo in zip(protocol.delays_s, protocol.echo_times_s, strict=True):
        mz = 1.0
        for _ in range(400):
            mz = 1 - (1 - mz * math.cos(th)) * math.exp(-delay / t1)
            signal = mz * math.sin(a) * math.exp(-echo / t2)
            mz = 1 - (1 - mz * math.cos(a)) * math.exp(-(protocol.repetition_time_s - delay) / t1)
        found.append(signal)
    return np.array(found)


def tissues(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    t1 = np.exp(rng.uniform(np.log(0.2), np.log(4.5), count))
    t2 = np.minimum(np.exp(rng.uniform(np.log(0.015), np.log(2.0), count)), 0.9 * t1)
    return t1, t2, rng.uniform(0.5, 1000, count), rng.uniform(0.75, 1.25, count)


@pytest.mark.parametrize("t1", [0.2, 0.85, 4.0])
@pytest.mark.parametrize("b1", [0.7, 1.0, 1.25])
def test_equation_equals_bloch(t1: float, b1: float) -> None:
    expected = bloch(t1, 0.08, b1, PROTOCOL)
    np.testing.assert_allclose(multi_dynamic_signal(PROTOCOL, t1, 0.08, b1=b1), expected, atol=1e-12)


@pytest.mark.parametrize("signed", [True, False])
def test_noise_free_signals_are_recovered_exactly(signed: bool) -> None:
    t1, t2, m0, b1 = tissues(3000)
    signal = multi_dynamic_signal(PROTOCOL, t1, t2, m0=m0, b1=b1)
    fit = fit_multi_dynamic(signal if signed else np.abs(signal), PROTOCOL, signed=signed)
    assert fit.reasons.counts() == {}
    for name, truth in (("T1", 1000 * t1), ("T2", 1000 * t2), ("M0", m0), ("B1", b1)):
        np.testing.assert_allclose(fit.values[name], truth, rtol=1e-7)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("tissue", [WHITE, GREY])
def test_brain_at_snr_100_within_4_percent(signed: bool, tissue: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    clean = np.broadcast_to(multi_dynamic_signal(PROTOCOL, *tissue), (4000, 8))
    noise = rng.normal(0, 0.01, (2, 4000, 8))
    noisy = clean + noise[0] if signed else np.abs(clean + noise[0] + 1j * noise[1])
    fit = fit_multi_dynamic(noisy, PROTOCOL, signed=signed, noise_sd=0.01)
    for name, truth in (("T1", 1000 * tissue[0]), ("T2", 1000 * tissue[1]), ("M0", 1.0), ("B1", 1.0)):
        spread = fit.values[name].std() / truth
        assert spread < 0.0405
        assert abs(fit.values[name].mean() / truth - 1) < 0.005
        stated = np.sqrt(np.mean(fit.standard_errors[name] ** 2)) / truth
        assert stated == pytest.approx(spread, rel=0.05)


def test_errors_grow_away_from_brain_values() -> None:
    """As in published phantoms: short T1 and long T2 are worse, which the acquisition makes so."""
    rng = np.random.default_rng(2)

    def spread(t1: float, t2: float) -> tuple[float, float]:
        clean = multi_dynamic_signal(PROTOCOL, t1, t2)
        fit = fit_multi_dynamic(clean + rng.normal(0, 0.01, (1500, 8)), PROTOCOL, signed=True, noise_sd=0.01)
        return float(np.nanstd(fit.values["T1"]) / t1 / 1000), float(np.nanstd(fit.values["T2"]) / t2 / 1000)

    brain = spread(*WHITE)
    assert spread(0.25, 0.03)[0] > 2.5 * brain[0]
    assert spread(4.0, 0.09)[0] > 1.8 * brain[0]
    assert spread(1.5, 1.0)[1] > 5 * brain[1]


def test_without_a_noise_level_errors_come_from_the_residuals() -> None:
    rng = np.random.default_rng(3)
    noisy = multi_dynamic_signal(PROTOCOL, *WHITE) + rng.normal(0, 0.005, (3000, 8))
    fit = fit_multi_dynamic(noisy, PROTOCOL, signed=True)
    stated = np.sqrt(np.mean(fit.standard_errors["T1"] ** 2))
    assert stated == pytest.approx(fit.values["T1"].std(), rel=0.1)


def test_missing_dynamics_are_used_as_far_as_they_go() -> None:
    t1, t2, m0, b1 = tissues(60, seed=4)
    signal = np.abs(multi_dynamic_signal(PROTOCOL, t1, t2, m0=m0, b1=b1))
    signal[:20, 2:4] = np.nan  # one delay
    signal[20:40, 5] = np.nan  # one echo
    signal[40:50, 2:6] = np.nan  # two delays left
    signal[50:, 1::2] = np.nan  # one echo time left
    fit = fit_multi_dynamic(signal, PROTOCOL, signed=False)
    np.testing.assert_allclose(fit.values["T2"][20:40], 1000 * t2[20:40], rtol=1e-6)
    np.testing.assert_allclose(fit.values["T1"][20:40], 1000 * t1[20:40], rtol=1e-6)
    assert fit.flags["fitted without some of the images"][:40].any()
    assert [fit.reasons.at(n) for n in (45, 55)] == ["the usable images do not determine the parameters"] * 2


def test_two_delays_of_magnitudes_are_not_answered_by_chance() -> None:
    """Two magnitudes have lost their signs: where two T1 fit equally well, none is given."""
    t1, t2, m0, b1 = tissues(300, seed=4)
    signal = multi_dynamic_signal(PROTOCOL, t1, t2, m0=m0, b1=b1)
    signal[:, 2:6] = np.nan
    magnitude = fit_multi_dynamic(np.abs(signal), PROTOCOL, b1=b1)
    good = magnitude.reasons.ok
    assert "their signs are lost" in str(magnitude.reasons.counts())
    np.testing.assert_allclose(magnitude.values["T1"][good], 1000 * t1[good], rtol=0.2)
    signed = fit_multi_dynamic(signal, PROTOCOL, b1=b1, signed=True)
    np.testing.assert_allclose(signed.values["T1"], 1000 * t1, rtol=1e-6)
    assert "B1" not in signed.values


def test_signed_data_with_three_delays_are_exact() -> None:
    t1, t2, m0, b1 = tissues(200, seed=5)
    t1, t2 = np.maximum(t1, 0.5), np.minimum(t2, 0.4)
    signal = multi_dynamic_signal(PROTOCOL, t1, t2, m0=m0, b1=b1)
    signal[:, 2:4] = np.nan
    fit = fit_multi_dynamic(signal, PROTOCOL, signed=True)
    good = fit.reasons.ok
    assert good.mean() > 0.95
    np.testing.assert_allclose(fit.values["T1"][good], 1000 * t1[good], rtol=1e-5)


@pytest.mark.parametrize(
    ("keep", "b1", "match"),
    [
        ([0, 1, 2, 3], None, "or a B1 map"),
        ([0, 2, 4, 6], None, "do not determine"),
        ([0, 1], 1.0, "do not determine"),
        ([0, 3, 4], None, "at least 4 images"),
    ],
)
def test_a_set_that_leaves_a_parameter_open_is_refused(keep, b1, match) -> None:
    some = MultiDynamicProtocol(delays_s=DELAYS[keep], echo_times_s=ECHOES[keep], repetition_time_s=4.0)
    with pytest.raises(InputError, match=match):
        fit_multi_dynamic(np.ones((2, len(keep))), some, b1=b1)


def test_two_delays_are_enough_with_a_b1_map() -> None:
    keep = [0, 1, 4, 5]
    some = MultiDynamicProtocol(delays_s=DELAYS[keep], echo_times_s=ECHOES[keep], repetition_time_s=4.0)
    t1, t2, b1 = np.array([0.8, 1.3]), np.array([0.07, 0.1]), np.array([0.9, 1.1])
    fit = fit_multi_dynamic(multi_dynamic_signal(some, t1, t2, b1=b1), some, signed=True, b1=b1)
    np.testing.assert_allclose(fit.values["T1"], 1000 * t1, rtol=1e-6)
    assert np.isnan(fit.standard_errors["T1"]).sum() == 0


def test_proton_density_needs_a_reference() -> None:
    signal = multi_dynamic_signal(PROTOCOL, *WHITE, m0=650.0)
    fit = fit_multi_dynamic(signal, PROTOCOL, signed=True, water_signal=1000.0)
    assert float(fit.values["PD"]) == pytest.approx(65.0)
    assert "PD" not in fit_multi_dynamic(signal, PROTOCOL, signed=True).values


def test_voxels_without_a_value_say_why() -> None:
    signal = np.abs(multi_dynamic_signal(PROTOCOL, np.full(8, 0.85), 0.075))
    signal[0] = np.nan
    signal[1] = 0.0
    signal[2] = -signal[2]
    signal[3] = np.abs(multi_dynamic_signal(PROTOCOL, 40.0, 0.075, m0=20.0))
    signal[4] = 0.001
    b1 = np.ones(8)
    b1[5] = np.nan
    fit = fit_multi_dynamic(signal, PROTOCOL, b1=b1, noise_sd=0.01)
    assert [fit.reasons.at(n) for n in range(8)] == [
        "too few usable images",
        "no signal above the noise",
        "a magnitude is negative",
        "outside the range that was searched",
        "no signal above the noise",
        "no B1",
        "",
        "",
    ]
    assert np.isnan(fit.values["T1"][:6]).all()
    assert np.isnan(fit.standard_errors["T2"][:6]).all()


@pytest.mark.parametrize("signed", [True, False])
def test_a_decay_into_the_noise_gives_no_t2(signed: bool) -> None:
    """Short T2: the late echoes are noise, which must not pass for a slow decay."""
    rng = np.random.default_rng(6)
    clean = np.broadcast_to(multi_dynamic_signal(PROTOCOL, 0.9, 0.015), (1000, 8))
    noise = rng.normal(0, 0.01, (2, 1000, 8))
    noisy = clean + noise[0] if signed else np.abs(clean + noise[0] + 1j * noise[1])
    fit = fit_multi_dynamic(noisy, PROTOCOL, signed=signed, noise_sd=0.01)
    assert fit.reasons.ok.mean() < 0.05
    text = "only one echo time stands above the noise: T2 is not determined"
    assert fit.reasons.counts()[text] > 900


def test_empty_and_single() -> None:
    assert fit_multi_dynamic(np.empty((0, 8)), PROTOCOL).values["T1"].shape == (0,)
    assert fit_multi_dynamic(np.full(8, np.nan), PROTOCOL).values["T1"].shape == ()
    volume = np.broadcast_to(multi_dynamic_signal(PROTOCOL, *WHITE), (2, 3, 4, 8))
    assert fit_multi_dynamic(volume, PROTOCOL, signed=True).values["B1"].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"delays_s": 1000 * DELAYS}, "divide by 1000"),
        ({"echo_times_s": 1000 * ECHOES}, "divide by 1000"),
        ({"repetition_time_s": 4000.0}, "divide by 1000"),
        ({"repetition_time_s": 3.0}, "do not fit into the repetition"),
        ({"echo_times_s": ECHOES[:4]}, "8 delays and 4 echo times"),
        ({"saturation_deg": 0.0}, "flip angles"),
    ],
)
def test_wrong_protocols_are_named(change, match) -> None:
    settings = {"delays_s": DELAYS, "echo_times_s": ECHOES, "repetition_time_s": 4.0} | change
    with pytest.raises(InputError, match=match):
        MultiDynamicProtocol(**settings)


def test_wrong_input_is_named() -> None:
    signal = np.ones((3, 8))
    with pytest.raises(InputError, match="last axis"):
        fit_multi_dynamic(np.ones((3, 7)), PROTOCOL)
    with pytest.raises(InputError, match="percent"):
        fit_multi_dynamic(signal, PROTOCOL, b1=100.0)
    with pytest.raises(InputError, match="does not fit the images"):
        fit_multi_dynamic(signal, PROTOCOL, b1=np.ones(4))
    with pytest.raises(InputError, match="real part"):
        fit_multi_dynamic(signal.astype(complex), PROTOCOL)
    with pytest.raises(InputError, match="positive"):
        fit_multi_dynamic(signal, PROTOCOL, water_signal=0.0)


def _magnitudes(tissue: tuple[float, float], noise: float, count: int = 1500) -> np.ndarray:
    rng = np.random.default_rng(8)
    clean = np.broadcast_to(multi_dynamic_signal(PROTOCOL, *tissue), (count, 8))
    sd = rng.normal(0, noise, (2, count, 8))
    return np.abs(clean + sd[0] + 1j * sd[1])


@pytest.mark.parametrize("snr", [20, 30])
def test_the_floor_of_known_noise_is_taken_out(snr: int) -> None:
    """Dark images pull T1 down by up to 8 % and T2 up by 4 % where the noise is not known."""
    noisy = _magnitudes(GREY, 1 / snr)
    known, blind = fit_multi_dynamic(noisy, PROTOCOL, noise_sd=1 / snr), fit_multi_dynamic(noisy, PROTOCOL)
    for name, truth, bound in (("T1", 1000 * GREY[0], 0.025), ("T2", 1000 * GREY[1], 0.01)):
        assert np.nanmedian(known.values[name]) == pytest.approx(truth, rel=bound)
        spread = 1.4826 * np.nanmedian(np.abs(known.values[name] - np.nanmedian(known.values[name])))
        stated = np.nanmedian(known.standard_errors[name])
        assert stated == pytest.approx(spread, rel=0.15)
    assert np.nanmedian(blind.values["T1"]) < 0.98 * 1000 * GREY[0]


def test_t2_that_noise_nearly_hides_is_flagged() -> None:
    fit = fit_multi_dynamic(_magnitudes((0.9, 0.04), 1 / 30), PROTOCOL, noise_sd=1 / 30)
    flag = next(where for text, where in fit.flags.items() if "barely stand out" in text)
    assert flag.sum() > 0.5 * fit.reasons.ok.sum()
    sound = fit_multi_dynamic(_magnitudes(GREY, 0.01, 100), PROTOCOL, noise_sd=0.01)
    assert sound.flag_counts() == {}


def test_noise_that_is_stated_too_small_does_not_shrink_errors() -> None:
    """Residuals far beyond the stated noise decide in its place."""
    noisy = _magnitudes(GREY, 0.01, 400)
    fit = fit_multi_dynamic(noisy, PROTOCOL, noise_sd=1e-5)
    stated = np.sqrt(np.nanmean(fit.standard_errors["T1"] ** 2))
    assert stated == pytest.approx(np.nanstd(fit.values["T1"]), rel=0.25)


def test_an_empty_list_of_tissue_gives_no_signal() -> None:
    assert multi_dynamic_signal(PROTOCOL, np.zeros(0), np.zeros(0)).shape == (0, 8)


def test_noise_below_rounding_and_unknown_noise_of_single_voxels() -> None:
    signal = np.abs(multi_dynamic_signal(PROTOCOL, np.array([0.85, 1.3]), 0.08))
    for noise in (1e-300, np.array([np.nan, 0.01])):
        fit = fit_multi_dynamic(signal, PROTOCOL, noise_sd=noise)
        assert fit.values["T1"][0] == pytest.approx(850.0, rel=1e-6)
    assert np.isnan(fit.standard_errors["T1"][0])
    assert np.isfinite(fit.standard_errors["T1"][1])
