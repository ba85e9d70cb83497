"""T2 from multi-echo trains."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.multi_echo import choose_slice_profile, fit_multi_echo
from cordqa.models.relaxometry.noise import (
    correct_noise_floor,
    corrected_signal_sd,
    estimate_noise_floor,
)
from cordqa.models.relaxometry.protocol_range import multi_echo_range
from cordqa.models.relaxometry.signal import multi_echo_spin_echo_signal, spin_echo_signal
from cordqa.models.relaxometry.slice_profile import UNIFORM, windowed_sinc_profile

TE = 0.008 * np.arange(1, 33)
SHORT_TE = 0.00964 * np.arange(1, 9)
T2 = np.array([0.58, 0.28, 0.13, 0.064, 0.032, 0.0158, 0.0079, 0.0056])


def curve(t2, te=TE, m0=1000.0):
    return spin_echo_signal(te, np.asarray(t2)[..., None], m0=m0)


def root_mean_square(rng, clean, sigma, n_pixels):
    noise = sigma * rng.standard_normal((2, *clean.shape, n_pixels))
    return np.sqrt(((clean[..., None] + noise[0]) ** 2 + noise[1] ** 2).mean(axis=-1))


@pytest.mark.parametrize("te", [TE, SHORT_TE])
@pytest.mark.parametrize("floor", [0.0, 15.0])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_recovers_truth_without_noise(te, floor, skip):
    signal = np.sqrt(curve(T2, te) ** 2 + floor**2)
    fit = fit_multi_echo(signal, te, noise_floor=floor, skip_first=skip)
    # Where nothing but the floor is left after the skipped echoes, no value is the right answer.
    seen = (curve(T2, te)[:, skip:] > 2 * floor).any(axis=1) & (curve(T2, te)[:, skip] > 1e-3)
    assert fit.ok[seen].all()
    assert fit.parameters["t2_s"][fit.ok] == pytest.approx(T2[fit.ok], rel=1e-4)
    assert fit.predicted[fit.ok][:, skip:] == pytest.approx(signal[fit.ok][:, skip:], rel=1e-3)


def test_ignoring_the_floor_lengthens_a_short_t2():
    signal = np.sqrt(curve(0.0158) ** 2 + 20.0**2)
    right = fit_multi_echo(signal, TE, noise_floor=20.0).parameters["t2_s"]
    wrong = fit_multi_echo(signal, TE).parameters["t2_s"]
    assert right == pytest.approx(0.0158, rel=1e-5)
    assert wrong > 1.03 * right


def test_skipping_the_first_echo_halves_the_bias_of_imperfect_refocusing():
    signal = multi_echo_spin_echo_signal(32, 0.008, 0.06, 1.0, refocusing_angle_deg=150.0)
    skipped = fit_multi_echo(signal, TE).parameters["t2_s"]
    everything = fit_multi_echo(signal, TE, skip_first=0).parameters["t2_s"]
    assert 0.06 < skipped < everything
    assert skipped - 0.06 < 0.75 * (everything - 0.06)


@pytest.mark.parametrize("angle", [180.0, 165.0, 140.0, 110.0])
@pytest.mark.parametrize("t1", [0.08, 1.0])
def test_phase_graph_recovers_t2_and_angle(angle, t1):
    t2 = np.array([0.06, 0.03, 0.015])
    # With a short T2 an echo can be negative; its magnitude is what a scanner gives.
    signal = 700 * np.abs(multi_echo_spin_echo_signal(16, 0.008, t2, t1, refocusing_angle_deg=angle))
    fit = fit_multi_echo(signal, TE[:16], model="epg", t1_s=t1)
    assert (fit.reason == "").all()
    assert fit.parameters["t2_s"] == pytest.approx(t2, rel=2e-3)
    assert fit.parameters["refocusing_angle_deg"] == pytest.approx(angle, abs=3.0)
    assert fit.predicted == pytest.approx(signal, abs=1.0)


def slice_signal(profile, b1, t2, t1, n=16):
    """Echoes through a slice on a grid of its own, ten times finer than that of the fit."""
    fine = windowed_sinc_profile(profile, n_positions=120)
    echoes = multi_echo_spin_echo_signal(
        n,
        0.008,
        np.asarray(t2)[:, None],
        t1,
        refocusing_angle_deg=180 * b1 * fine.refocusing,
        excitation_angle_deg=90 * b1 * fine.excitation,
    )
    return 500 * echoes.mean(axis=1)


def test_phase_graph_with_slice_profile_recovers_t2_and_finds_the_profile():
    t2 = np.array([0.1, 0.05, 0.025])
    signal = slice_signal(1.2, 0.9, t2, 1.0)
    fit = fit_multi_echo(signal, TE[:16], model="epg", t1_s=1.0, slice_profile=windowed_sinc_profile(1.2))
    assert fit.parameters["t2_s"] == pytest.approx(t2, rel=5e-3)
    assert fit.parameters["refocusing_angle_deg"] == pytest.approx(162.0, abs=3.0)
    plain = fit_multi_echo(signal, TE[:16])
    assert (plain.parameters["t2_s"] / t2 - 1).min() > 0.05
    assert choose_slice_profile(signal, TE[:16], t1_s=1.0).name == windowed_sinc_profile(1.2).name


def test_choosing_a_profile_needs_a_curve():
    with pytest.raises(InputError, match="no curve"):
        choose_slice_profile(np.zeros((2, 8)), SHORT_TE, t1_s=1.0, candidates=[UNIFORM])


@pytest.mark.parametrize("stated", [True, False], ids=["noise stated", "from scatter"])
@pytest.mark.parametrize("te", [TE, SHORT_TE], ids=["32 echoes", "8 echoes"])
def test_unbiased_and_honest_at_snr_100(te, stated):
    rng = np.random.default_rng(30)
    truth = np.array([0.28, 0.13, 0.064, 0.032, 0.0158])
    clean = np.repeat(curve(truth, te, m0=100.0)[None], 300, axis=0)
    signal = root_mean_square(rng, clean, 1.0, 40)
    fit = fit_multi_echo(signal, te, noise_floor=np.sqrt(2.0), noise_sd=1 / np.sqrt(40) if stated else None)
    assert np.abs(fit.parameters["t2_s"].mean(axis=0) / truth - 1).max() < 0.01
    low, high = fit.interval()
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_floor_taken_out_beforehand_gives_the_same_answer():
    rng = np.random.default_rng(31)
    signal = root_mean_square(rng, np.repeat(curve([[0.05, 0.0112]], m0=100.0), 400, axis=0), 1.0, 40)
    corrected = correct_noise_floor(signal**2, 2.0)
    before = fit_multi_echo(corrected, TE, noise_sd=corrected_signal_sd(corrected, 2.0, 40))
    within = fit_multi_echo(signal, TE, noise_floor=np.sqrt(2.0), noise_sd=1 / np.sqrt(40))
    ratio = before.parameters["t2_s"] / within.parameters["t2_s"]
    assert ratio.mean(axis=0) == pytest.approx([1.0, 1.0], abs=5e-3)


def test_reasons():
    signal = np.stack([curve(0.05), np.full(32, 20.0), np.zeros(32), np.full(32, np.nan), np.full(32, 900.0)])
    fit = fit_multi_echo(signal, TE, noise_floor=15.0)
    assert fit.reason.tolist() == ["", "no signal", "no signal", "too few samples", "outside range"]
    assert np.isnan(fit.parameters["t2_s"][1:]).all()
    epg = fit_multi_echo(np.tile(curve(0.05), (3, 1)), TE, model="epg", t1_s=[1.0, np.nan, -1.0])
    assert epg.reason.tolist() == ["", "no T1", "no T1"]


def test_decay_over_within_the_skipped_echo_is_not_extrapolated():
    signal = np.array([1e5, *[1e-7 * 0.5**i for i in range(31)]])
    fit = fit_multi_echo(signal, TE, skip_first=0)
    assert fit.reason != "" or fit.parameters["m0"] < 1e8


def test_clipped_first_echo_and_shuffled_order():
    signal, valid = curve(T2[:5]), np.ones((5, 32), bool)
    signal[:, 1], valid[:, 1] = 500.0, False
    order = np.random.default_rng(1).permutation(32)
    fit = fit_multi_echo(signal[:, order], TE[order], valid=valid[:, order])
    assert fit.parameters["t2_s"] == pytest.approx(T2[:5], rel=1e-5)
    assert fit.n_used.tolist() == [30] * 5


def test_empty_and_single():
    assert fit_multi_echo(np.empty((0, 8)), SHORT_TE).parameters["t2_s"].shape == (0,)
    assert fit_multi_echo(np.empty((0, 8)), SHORT_TE, model="epg", t1_s=1.0).ok.shape == (0,)
    assert fit_multi_echo(curve(0.05, SHORT_TE), SHORT_TE).parameters["t2_s"].shape == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"echo_times_s": TE * 1000}, "must be in seconds"),
        ({"echo_times_s": TE[:4]}, "last axis"),
        ({"skip_first": 32}, "no echo is left"),
        ({"skip_first": -1}, "no echo is left"),
        ({"noise_floor": -1.0}, "noise floor"),
        ({"noise_floor": np.nan}, "noise floor"),
        ({"noise_floor": np.ones(5)}, "noise floor does not match"),
        ({"valid": np.ones(5, bool)}, "valid does not match"),
        ({"model": "biexponential"}, "unknown decay model"),
        ({"model": "epg"}, "needs T1"),
        ({"model": "epg", "t1_s": [1.0, 2.0, 3.0]}, "t1_s does not match"),
        ({"model": "epg", "t1_s": 1.0, "echo_times_s": TE + 0.002}, "multiples of the first"),
        ({"t2_range_s": (1.0, 0.1)}, "T2 range"),
        ({"signal": -curve(T2)}, "cannot be negative"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(change, match):
    given = {"signal": curve(T2), "echo_times_s": TE, **change}
    with pytest.raises(InputError, match=match):
        fit_multi_echo(given.pop("signal"), given.pop("echo_times_s"), **given)


@pytest.mark.parametrize(
    "settings", [{"width_ratio": 0.1}, {"time_bandwidth": 0.0}, {"n_positions": 1}, {"width_ratio": np.nan}]
)
def test_impossible_slice_profiles_are_refused(settings):
    with pytest.raises(InputError, match="slice profile"):
        windowed_sinc_profile(**settings)


def test_protocol_range():
    short = multi_echo_range(SHORT_TE)
    assert short.outside([0.005, 0.05, 1.6]).tolist() == ["below", "", "above"]
    long = multi_echo_range(TE)
    assert long.contains([0.012, 1.4]).all()
    assert multi_echo_range(TE, skip_first=0).low_s < long.low_s


def test_noise_floor_correction_is_consistent_down_to_the_null():
    rng = np.random.default_rng(8)
    for signal in (0.0, 0.5, 3.0, 50.0):
        square = root_mean_square(rng, np.full(4000, signal), 1.0, 40) ** 2
        assert (square - 2.0).mean() == pytest.approx(
            signal**2, abs=4 * 2 * np.sqrt((signal**2 + 1) / 160000)
        )
        estimate = correct_noise_floor(square, 2.0)
        stated = corrected_signal_sd(estimate, 2.0, 40)
        assert np.isfinite(stated).all()
        observed = np.sqrt(((estimate - signal) ** 2).mean())
        ratio = np.sqrt((stated**2).mean()) / observed
        # Near the null the statement is on the safe side, because the sign is lost as well.
        assert (0.95 < ratio < 1.05) if signal > 2 else (0.9 < ratio < 1.7)
    assert np.isnan(correct_noise_floor(np.nan, 1.0))


def test_floor_from_the_plateau_of_short_t2():
    rng = np.random.default_rng(9)
    signal = root_mean_square(rng, curve(T2, m0=100.0), 1.0, 40)
    assert estimate_noise_floor(signal) == pytest.approx(np.sqrt(2), rel=0.05)
    assert np.isnan(estimate_noise_floor(signal[:3]))
    assert np.isnan(estimate_noise_floor(curve(T2, SHORT_TE)))
    assert np.isnan(estimate_noise_floor(np.full((3, 32), np.nan)))
    assert np.isnan(estimate_noise_floor(np.zeros((3, 32))))
    assert np.isnan(estimate_noise_floor(np.empty((0, 32))))


@pytest.mark.parametrize("t2", [0.03, 0.08])
def test_single_voxels_are_fitted_as_means_of_rician_noise(t2):
    """32 echoes, many of them noise: T2 would come out 7 to 20 % too long."""
    rng = np.random.default_rng(3)
    times = 0.01 * np.arange(1, 33)
    clean = np.exp(-times / t2) * np.ones((1500, 1))
    sd = float(clean.max()) / 20
    noisy = np.abs(clean + rng.normal(0, sd, clean.shape) + 1j * rng.normal(0, sd, clean.shape))
    fit = fit_multi_echo(noisy, times, noise_sd=sd, rician=True)
    value, error = fit.parameters["t2_s"], fit.standard_errors["t2_s"]
    assert value.mean() == pytest.approx(t2, rel=0.015)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(value.std(), rel=0.1)
    assert fit_multi_echo(noisy, times, noise_sd=sd).parameters["t2_s"].mean() > 1.05 * t2


def test_phase_graph_under_rician_noise_and_its_angle_near_180():
    rng = np.random.default_rng(5)
    times = 0.01 * np.arange(1, 13)
    for angle in (180.0, 140.0):
        clean = multi_echo_spin_echo_signal(
            12, 0.01, 0.04, 1.0, refocusing_angle_deg=angle, excitation_angle_deg=angle / 2
        ) * np.ones((600, 1))
        sd = float(clean.max()) / 30
        noisy = np.abs(clean + rng.normal(0, sd, clean.shape) + 1j * rng.normal(0, sd, clean.shape))
        fit = fit_multi_echo(noisy, times, model="epg", t1_s=1.0, noise_sd=sd, rician=True)
        assert fit.parameters["t2_s"].mean() == pytest.approx(0.04, rel=0.015)
        found, error = fit.parameters["refocusing_angle_deg"], fit.standard_errors["refocusing_angle_deg"]
        # The linear error has no limit at 180 degrees.
        assert np.sqrt(np.nanmean(error**2)) == pytest.approx(found.std(), rel=0.25)


def test_the_mean_of_rician_noise_needs_the_noise_alone():
    for wrong in ({}, {"noise_sd": 0.1, "noise_floor": 0.1}):
        with pytest.raises(InputError, match="needs noise_sd"):
            fit_multi_echo(np.ones((2, 4)), [0.01, 0.02, 0.03, 0.04], rician=True, **wrong)
