"""Pooled inversion recovery: recover truth, share what the scan shares, bound what one region can do."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.noise import correct_noise_floor, corrected_signal_sd
from cordqa.models.relaxometry.pooled_inversion import (
    fit_pooled_inversion_recovery,
    is_pooled,
    regions_apart,
)
from cordqa.models.relaxometry.protocol_range import InversionKnowledge, inversion_recovery_range
from cordqa.models.relaxometry.signal import inversion_recovery_signal

TI = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
TR = np.array([1.0, 1.0, 1.0, 1.26, 1.86, 2.46])
T1 = np.array([2.0, 1.5, 1.0, 0.73, 0.51, 0.37, 0.26, 0.18, 0.13, 0.093, 0.065, 0.046, 0.032, 0.023])
TE = 0.012
M0 = 900.0
NOISE = 1.5


def curves(t1=T1, *, factor=1.93, offset_s=0.003, tr=1.0, ti=TI):
    """Signed curves, shape (n_regions, n_images); the factor may differ between regions."""
    return inversion_recovery_signal(
        ti + offset_s,
        np.asarray(t1)[:, None],
        m0=M0,
        inversion_factor=np.reshape(factor, (-1, 1)),
        repetition_time_s=tr,
        echo_time_s=TE,
    )


def fit(signal, *, tr=1.0, **settings):
    given = {"inversion_times_s": TI, "repetition_times_s": tr, "echo_time_s": TE, **settings}
    return fit_pooled_inversion_recovery(signal, **given)


def noisy(rng, **truth):
    """Region means of signed images with stated noise."""
    clean = curves(**truth)
    return clean + NOISE * rng.standard_normal(clean.shape)


def scores(rng, repeats, change=lambda signal, rng: signal, *, tr=1.0, **truth):
    """Errors of ln T1 over their standard errors, shape (repeats, n_regions)."""
    out = []
    for _ in range(repeats):
        result = fit(change(noisy(rng, tr=tr, **truth), rng), tr=tr, signed=True, noise_sd=NOISE)
        out.append(np.log(result.parameters["t1_s"] / T1) / result.relative_standard_error)
    return np.array(out)


@pytest.mark.parametrize("data", ["magnitude", "signed", "complex"])
@pytest.mark.parametrize("tr", [TR, 1.0, None], ids=["varying", "constant", "infinite"])
def test_recovers_truth_without_noise(data, tr):
    clean = curves(tr=np.inf if tr is None else tr)
    signal = {"magnitude": np.abs(clean), "signed": clean, "complex": clean * np.exp(0.7j)}[data]
    result = fit(signal, tr=tr, signed=data == "signed")
    assert is_pooled(result)
    assert (result.reason == "").all()
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)
    assert result.parameters["m0"] == pytest.approx(M0, rel=1e-6)
    assert result.parameters["inversion_factor"] == pytest.approx(1.93, rel=1e-6)
    assert result.parameters["inversion_time_offset_s"] == pytest.approx(0.003, abs=1e-8)
    assert result.predicted == pytest.approx(np.abs(clean) if data == "magnitude" else clean, abs=1e-3)
    assert result.used.all()
    assert (result.n_used == 6).all()


@pytest.mark.parametrize("factor", [1.866, 1.94, 2.0], ids=["150 deg", "160 deg", "180 deg"])
@pytest.mark.parametrize("offset_s", [-0.004, 0.0, 0.008])
def test_recovers_any_inversion(factor, offset_s):
    result = fit(np.abs(curves(factor=factor, offset_s=offset_s)))
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)
    assert result.parameters["inversion_factor"] == pytest.approx(factor, rel=1e-6)
    assert result.parameters["inversion_time_offset_s"] == pytest.approx(offset_s, abs=1e-8)


def test_a_scan_that_starts_at_time_zero():
    ti = np.r_[0.0, TI[1:]]
    clean = np.abs(curves(ti=ti, offset_s=0.004))
    result = fit_pooled_inversion_recovery(clean, ti, repetition_times_s=1.0, echo_time_s=TE)
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)


def test_signed_data_of_the_other_polarity():
    result = fit(-curves(), signed=True)
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)
    assert result.parameters["m0"] == pytest.approx(M0, rel=1e-6)
    assert result.predicted == pytest.approx(-curves(), abs=1e-3)


def test_image_gains_are_found_and_do_not_enter_t1():
    gain = np.exp(np.array([4, -6, 3, -3, 7, -5]) * 1e-3)
    result = fit(np.abs(curves()) * gain)
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-3)
    alone = fit_inversion_recovery(np.abs(curves()) * gain, TI, repetition_times_s=1.0, echo_time_s=TE)
    assert np.abs(alone.parameters["t1_s"] / T1 - 1).max() > 0.02
    assert result.predicted == pytest.approx(np.abs(curves()) * gain, rel=2e-4, abs=0.1)


def test_standard_errors_hold_for_a_clean_scan():
    score = scores(np.random.default_rng(1), 40)
    assert 0.75 < np.sqrt(np.mean(score**2)) < 1.05
    assert 0.93 < np.mean(np.abs(score) < 1.96) < 0.995


@pytest.mark.parametrize("tr", [1.0, TR], ids=["constant", "varying"])
def test_standard_errors_hold_where_the_gain_drifts(tr):
    def drift(signal, rng):
        return signal * np.exp(0.005 * rng.standard_normal(6))

    score = scores(np.random.default_rng(2), 40, drift, tr=tr)
    assert 0.92 < np.mean(np.abs(score) < 1.96) < 0.998


def test_standard_errors_hold_where_the_factor_differs_between_regions():
    rng = np.random.default_rng(3)
    score = np.array(
        [scores(rng, 1, factor=1.85 + 0.02 * rng.standard_normal(T1.size))[0] for _ in range(40)]
    )
    assert 0.92 < np.mean(np.abs(score) < 1.96) < 0.98


def test_standard_errors_hold_for_magnitudes_near_the_null():
    rng = np.random.default_rng(4)
    clean, sigma, n_pixels, inside = curves(factor=1.98), 15.0, 40, []
    for _ in range(30):
        channels = sigma * rng.standard_normal((2, *clean.shape, n_pixels))
        square = ((clean[..., None] + channels[0]) ** 2 + channels[1] ** 2).mean(axis=-1)
        signal = correct_noise_floor(square, 2 * sigma**2)
        result = fit(signal, noise_sd=corrected_signal_sd(signal, 2 * sigma**2, n_pixels))
        low, high = result.interval()
        inside.append((low < T1) & (high > T1))
    assert 0.93 < np.mean(inside) < 0.995


def test_pooling_is_more_precise_than_a_free_factor():
    rng = np.random.default_rng(5)
    signal = noisy(rng)
    settings = {"repetition_times_s": 1.0, "echo_time_s": TE, "signed": True, "noise_sd": NOISE}
    pooled = fit_pooled_inversion_recovery(signal, TI, **settings)
    alone = fit_inversion_recovery(signal, TI, **settings)
    ratio = pooled.relative_standard_error / alone.relative_standard_error
    # Where T1 exceeds the longest TI, and where it is shorter than the first.
    assert (ratio[:3] < 0.6).all()
    assert ratio[-1] < 0.25


def test_noise_from_the_scatter_of_all_regions():
    rng = np.random.default_rng(6)
    stated = fit(noisy(rng), signed=True, noise_sd=NOISE)
    found = fit(noisy(rng), signed=True)
    assert np.isinf(stated.interval_degrees_of_freedom).all()
    assert (found.interval_degrees_of_freedom == 14 * 6 - 2 * 14 - 2 - 5).all()
    ratio = found.relative_standard_error / stated.relative_standard_error
    assert 0.6 < np.median(ratio) < 1.4


@pytest.mark.parametrize("region", [0, 4, 9])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda curve: np.abs(curve + 60.0),
        lambda curve: np.abs(curve) * np.array([1.0, 1.1, 0.9, 1.05, 0.9, 1.1]),
        lambda curve: np.minimum(np.abs(curve), 0.5 * np.abs(curve).max()),
        lambda curve: np.full(6, 300.0),
    ],
    ids=["offset", "scatter", "clipped", "flat"],
)
def test_one_bad_region_does_not_move_the_others(spoil, region):
    signal = np.abs(noisy(np.random.default_rng(7)))
    before = fit(signal, noise_sd=NOISE)
    spoiled = signal.copy()
    spoiled[region] = spoil(curves()[region])
    after = fit(spoiled, noise_sd=NOISE)
    others = np.arange(T1.size) != region
    assert is_pooled(after)
    assert not regions_apart(after)[others].any()
    shift = np.log(after.parameters["t1_s"] / before.parameters["t1_s"])[others]
    assert (np.abs(shift) < 0.75 * before.relative_standard_error[others]).all()


def test_a_region_that_no_curve_fits_is_less_certain():
    signal = np.abs(noisy(np.random.default_rng(7)))
    before = fit(signal, noise_sd=NOISE)
    signal[4] *= np.array([1.0, 1.1, 0.9, 1.05, 0.9, 1.1])
    after = fit(signal, noise_sd=NOISE)
    assert list(np.flatnonzero(regions_apart(after))) == [4]
    assert not regions_apart(before).any()
    assert after.relative_standard_error[4] > 10 * before.relative_standard_error[4]
    assert abs(np.log(after.parameters["t1_s"][4] / T1[4])) < 2 * after.relative_standard_error[4]


def test_regions_that_do_not_share_an_inversion_are_fitted_alone():
    factor = np.linspace(1.4, 2.0, T1.size)[np.random.default_rng(8).permutation(T1.size)]
    signal = np.abs(curves(factor=factor))
    result = fit(signal, noise_sd=NOISE)
    assert not is_pooled(result)
    assert "inversion factor free" in result.model
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-4)
    assert (result.parameters["inversion_time_offset_s"] == 0).all()
    assert np.isnan(result.standard_errors["inversion_time_offset_s"]).all()


@pytest.mark.parametrize("offset_s", [0.040, -0.047])
def test_an_impossible_offset_is_not_believed(offset_s):
    assert not is_pooled(fit(np.abs(curves(offset_s=offset_s))))


def test_less_than_a_quarter_turn_is_no_inversion():
    assert not is_pooled(fit(np.abs(curves(factor=0.6))))


def test_few_regions_or_few_times_are_fitted_alone():
    signal = np.abs(curves())
    few = fit(signal[3:6])
    assert not is_pooled(few)
    assert few.parameters["t1_s"] == pytest.approx(T1[3:6], rel=1e-4)
    perfect = np.abs(curves(factor=2.0, offset_s=0.0))[:, :3]
    short = fit_pooled_inversion_recovery(perfect, TI[:3], repetition_times_s=1.0, echo_time_s=TE)
    assert not is_pooled(short)
    assert "inversion factor 2.000" in short.model
    assert short.parameters["t1_s"] == pytest.approx(T1, rel=1e-4)
    repeated = TI[[0, 0, 2, 2, 3, 3]]
    again = fit_pooled_inversion_recovery(np.abs(curves(ti=repeated)), repeated, repetition_times_s=1.0)
    assert not is_pooled(again)


def test_regions_of_one_t1_determine_it_though_not_the_inversion():
    """Only b exp(-d / T1) is in the data; T1 is what matters, and it is not at stake."""
    t1 = np.full(8, 0.3)
    result = fit(noisy(np.random.default_rng(9), t1=t1), signed=True, noise_sd=NOISE)
    assert is_pooled(result)
    assert np.abs(np.log(result.parameters["t1_s"] / 0.3)).max() < 0.02
    assert result.standard_errors["inversion_time_offset_s"][0] > 0.010
    combined = result.parameters["inversion_factor"] * np.exp(
        -result.parameters["inversion_time_offset_s"] / 0.3
    )
    assert combined == pytest.approx(1.93 * np.exp(-0.01), rel=0.01)


def test_missing_samples_and_regions():
    signal = np.abs(curves())
    signal[2, 3] = np.nan
    signal[5] = np.nan
    signal[6, :4] = np.nan
    signal[7] = 0.0
    valid = np.ones(signal.shape, dtype=bool)
    signal[9, 0], valid[9, 0] = 5000.0, False
    result = fit(signal, valid=valid)
    assert list(result.reason[[5, 6, 7]]) == ["too few samples", "too few samples", "no signal"]
    good = ~np.isin(np.arange(T1.size), [5, 6, 7])
    assert result.parameters["t1_s"][good] == pytest.approx(T1[good], rel=1e-6)
    assert np.isnan(result.parameters["t1_s"][~good]).all()
    assert np.isnan(result.standard_errors["inversion_time_offset_s"][~good]).all()
    assert result.n_used[2] == 5
    assert result.predicted[2, 3] == pytest.approx(np.abs(curves())[2, 3], rel=1e-5)
    assert not result.used[9, 0]


def test_an_image_that_is_missing_in_all_regions():
    signal = np.abs(curves())
    signal[:, 2] = np.nan
    assert fit(signal).parameters["t1_s"] == pytest.approx(T1, rel=1e-6)
    signal[:, [0, 4]] = np.nan
    assert not is_pooled(fit(signal))


def test_a_t1_outside_the_search_takes_no_part():
    t1 = np.r_[T1[:12], 0.0012, 80.0]
    result = fit(np.abs(curves(t1)))
    assert list(result.reason[12:]) == ["outside range"] * 2
    assert result.parameters["t1_s"][:12] == pytest.approx(T1[:12], rel=1e-5)
    assert np.isnan(result.parameters["inversion_factor"][12:]).all()


def test_order_of_regions_and_images_does_not_matter():
    rng = np.random.default_rng(10)
    signal = np.abs(noisy(rng, tr=TR))
    first = fit(signal, tr=TR, noise_sd=NOISE)
    regions, images = rng.permutation(T1.size), rng.permutation(6)
    second = fit_pooled_inversion_recovery(
        signal[regions][:, images],
        TI[images],
        repetition_times_s=TR[images],
        echo_time_s=TE,
        noise_sd=NOISE,
    )
    for name in ("t1_s", "m0", "inversion_factor", "inversion_time_offset_s"):
        assert second.parameters[name] == pytest.approx(first.parameters[name][regions], rel=1e-6)
        assert second.standard_errors[name] == pytest.approx(first.standard_errors[name][regions], rel=1e-5)


@pytest.mark.parametrize("size", [1e-150, 1e-3, 1e6, 1e150])
def test_the_unit_of_the_signal_does_not_matter(size):
    signal = np.abs(noisy(np.random.default_rng(11)))
    first, second = fit(signal, noise_sd=NOISE), fit(signal * size, noise_sd=NOISE * size)
    assert second.parameters["t1_s"] == pytest.approx(first.parameters["t1_s"], rel=1e-6)
    assert second.standard_errors["t1_s"] == pytest.approx(first.standard_errors["t1_s"], rel=1e-5)
    assert second.parameters["m0"] == pytest.approx(first.parameters["m0"] * size, rel=1e-6)


def test_repeated_inversion_times():
    ti = np.r_[TI, TI]
    result = fit_pooled_inversion_recovery(np.abs(curves(ti=ti)), ti, repetition_times_s=1.0, echo_time_s=TE)
    assert is_pooled(result)
    assert result.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)


@pytest.mark.parametrize("noise_sd", [1e-30, 1e-3])
def test_noise_stated_far_too_small_is_survived(noise_sd):
    result = fit(np.abs(noisy(np.random.default_rng(12))), noise_sd=noise_sd)
    assert is_pooled(result)
    assert np.abs(np.log(result.parameters["t1_s"] / T1)[2:]).max() < 0.03
    assert (result.relative_standard_error[5:9] > 5e-4).all()


def test_nothing_but_noise_gives_no_pooled_value():
    signal = np.abs(np.random.default_rng(13).standard_normal((14, 6)))
    assert not is_pooled(fit(signal, noise_sd=1.0))
    assert fit(np.empty((0, 6))).ok.shape == (0,)
    assert not fit(np.zeros((14, 6))).ok.any()
    assert not fit(np.ones((14, 6))).ok.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signal": np.abs(curves())[0]}, "regions by images"),
        ({"signal": curves()}, "magnitude cannot be negative"),
        ({"inversion_times_s": TI * 1000}, "must be in seconds"),
        ({"repetition_times_s": np.full(6, 0.5)}, "shorter than its inversion time"),
        ({"signal": np.abs(curves())[:, :5]}, "last axis"),
        ({"t1_range_s": (2.0, 1.0)}, "T1 range"),
        ({"noise_sd": 0.0}, "nowhere positive"),
    ],
)
def test_bad_input_is_refused(changes, words):
    given = {"signal": np.abs(curves()), "inversion_times_s": TI, "repetition_times_s": 1.0, **changes}
    with pytest.raises(InputError, match=words):
        fit_pooled_inversion_recovery(given.pop("signal"), given.pop("inversion_times_s"), **given)


def test_protocol_range_with_a_known_inversion():
    settings = {"repetition_times_s": 1.0, "echo_time_s": TE}
    free = inversion_recovery_range(TI, **settings)
    fixed = inversion_recovery_range(TI, inversion_angle_deg=180.0, **settings)
    known = inversion_recovery_range(TI, pooled=InversionKnowledge(factor=2.0, factor_sd=0.0), **settings)
    unknown = inversion_recovery_range(TI, pooled=InversionKnowledge(factor=2.0, factor_sd=1e3), **settings)
    between = inversion_recovery_range(TI, pooled=InversionKnowledge(factor=2.0, factor_sd=0.02), **settings)
    assert (known.low_s, known.high_s) == (fixed.low_s, fixed.high_s)
    assert (unknown.low_s, unknown.high_s) == (free.low_s, free.high_s)
    assert free.high_s < between.high_s < fixed.high_s
    blurred = InversionKnowledge(factor=2.0, factor_sd=0.0, offset_s=0.003, offset_sd_s=0.004)
    assert inversion_recovery_range(TI, pooled=blurred, **settings).low_s > fixed.low_s


def test_protocol_range_foretells_the_scatter_of_the_pooled_fit():
    knowledge = InversionKnowledge(factor=1.93, factor_sd=0.004, offset_s=0.003, offset_sd_s=0.0003)
    expected = inversion_recovery_range(
        TI, repetition_times_s=1.0, echo_time_s=TE, pooled=knowledge, snr=M0 / NOISE
    ).expected_relative_error(T1)
    rng = np.random.default_rng(14)
    found = np.array([fit(noisy(rng), signed=True, noise_sd=NOISE).parameters["t1_s"] for _ in range(30)])
    ratio = np.std(np.log(found), axis=0) / expected
    assert (ratio < 1.5).all()
    assert 0.6 < np.median(ratio) < 1.2
