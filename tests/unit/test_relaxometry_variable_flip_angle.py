"""T1 from variable flip angles."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.relaxometry.protocol_range import variable_flip_angle_range
from cordqa.models.relaxometry.signal import spoiled_gradient_echo_signal
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

ANGLES = np.array([3.0, 5.0, 10.0, 15.0, 20.0, 25.0])
TR = 0.015
T1 = np.array([2.0, 1.0, 0.5, 0.26, 0.13, 0.065, 0.032])


def curve(t1, b1=1.0, m0=500.0):
    t1, b1 = np.asarray(t1, float)[..., None], np.asarray(b1, float)[..., None]
    return spoiled_gradient_echo_signal(ANGLES, t1, TR, m0=m0, b1=b1)


@pytest.mark.parametrize("b1", [0.8, 1.0, 1.2])
def test_recovers_truth_without_noise(b1):
    signal = curve(T1, b1)
    fit = fit_variable_flip_angle(signal, ANGLES, TR, b1=b1)
    assert (fit.reason == "").all()
    assert fit.parameters["t1_s"] == pytest.approx(T1, rel=1e-6)
    assert fit.parameters["m0"] == pytest.approx(500.0, rel=1e-6)
    assert fit.predicted == pytest.approx(signal, rel=1e-6)


def test_b1_map_matters_about_twice():
    fit = fit_variable_flip_angle(curve(0.5, 0.9), ANGLES, TR)
    assert fit.parameters["t1_s"] == pytest.approx(0.5 * 0.81, rel=0.05)


def test_two_angles_are_exact_but_without_an_interval():
    signal = curve(T1)[:, [0, 4]]
    fit = fit_variable_flip_angle(signal, ANGLES[[0, 4]], TR)
    assert fit.parameters["t1_s"] == pytest.approx(T1, rel=1e-5)
    assert np.isnan(fit.standard_errors["t1_s"]).all()
    assert np.isnan(fit.interval()[0]).all()
    stated = fit_variable_flip_angle(signal, ANGLES[[0, 4]], TR, noise_sd=1.0)
    assert np.isfinite(stated.interval()[0]).all()


def test_missing_b1_and_missing_samples():
    signal = curve(np.full(4, 0.5))
    signal[1, 1:] = np.nan
    fit = fit_variable_flip_angle(signal, ANGLES, TR, b1=[1.0, 1.0, np.nan, 0.0])
    assert fit.reason.tolist() == ["", "too few samples", "no B1", "no B1"]


@pytest.mark.parametrize("signal", [np.ones(6), np.arange(1.0, 7.0), [1.0, 9.0, 1.0, 9.0, 1.0, 9.0]])
def test_curves_that_are_no_steady_state_give_no_certain_value(signal):
    fit = fit_variable_flip_angle(signal, ANGLES, TR)
    low, high = fit.interval()
    assert fit.reason != "" or not high / low < 1.5


def test_unbiased_and_honest_at_snr_100():
    rng = np.random.default_rng(5)
    truth = np.array([1.0, 0.26, 0.065])
    clean = np.repeat(curve(truth)[None], 600, axis=0)
    sd = clean.max(axis=-1, keepdims=True) / 100 / np.sqrt(40)
    fit = fit_variable_flip_angle(clean + sd * rng.standard_normal(clean.shape), ANGLES, TR)
    assert np.abs(fit.parameters["t1_s"].mean(axis=0) / truth - 1).max() < 0.01
    low, high = fit.interval()
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_protocol_range_foretells_the_scatter_of_the_fit():
    rng = np.random.default_rng(6)
    clean = curve(np.full(2000, 0.5))
    noisy = clean + clean.max() / 100 * rng.standard_normal(clean.shape)
    observed = np.std(np.log(fit_variable_flip_angle(noisy, ANGLES, TR).parameters["t1_s"]))
    found = variable_flip_angle_range(ANGLES, TR)
    assert observed == pytest.approx(found.expected_relative_error(0.5), rel=0.1)
    assert found.contains([0.1, 2.0]).all()
    assert found.outside(0.005) == "below"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"flip_angles_deg": [0.0, 5.0]}, "between 0 and 180"),
        ({"flip_angles_deg": [np.nan] * 6}, "between 0 and 180"),
        ({"flip_angles_deg": ANGLES[:4]}, "last axis"),
        ({"repetition_time_s": 15.0 * 1000}, "must be in seconds"),
        ({"repetition_time_s": 0.0}, "must be positive"),
        ({"repetition_time_s": np.nan}, "must be finite"),
        ({"b1": [1.0, 1.0]}, "b1 does not match"),
        ({"t1_range_s": (1.0, 1.0)}, "T1 range"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(change, match):
    given = {"flip_angles_deg": ANGLES, "repetition_time_s": TR, **change}
    with pytest.raises(InputError, match=match):
        fit_variable_flip_angle(curve(T1), **given)
