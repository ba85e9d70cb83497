"""ADC of isotropic samples: known answers, noise, noise floor, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from cordqa.errors import InputError
from cordqa.models.diffusion.adc import LOST, NO_START, SHARED, fit_adc

B = np.array([0.0, 500, 500, 500, 900, 900, 900])
GROUPS = np.array([SHARED, 0, 1, 2, 0, 1, 2])


def signals(adc, *, s0=100.0):
    """Signals of samples whose ADC (um2/s) may differ by direction, shape (n, 7)."""
    adc = np.atleast_2d(adc)
    along = np.where(GROUPS == SHARED, 0.0, adc[:, np.maximum(GROUPS, 0)])
    return s0 * np.exp(-1e-6 * B * along)


def test_known_values_are_recovered_exactly():
    truth = np.array([[2000.0, 2000, 2000], [110, 120, 130], [1551, 1500, 1600]])
    fit = fit_adc(signals(truth), B, GROUPS, noise_sd=1e-3)
    np.testing.assert_allclose(fit.maps.values["ADC"], truth.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(fit.along, truth, rtol=1e-9)
    np.testing.assert_allclose(fit.maps.values["S0"], 100.0, rtol=1e-9)
    np.testing.assert_allclose(fit.predicted, signals(truth), rtol=1e-9)
    assert fit.maps.units["ADC"] == "um2/s"


def test_scale_of_the_signal_does_not_matter():
    rng = np.random.default_rng(1)
    samples = signals([1000.0, 1000, 1000]) + rng.normal(0, 0.5, (1, 7))
    one, other = (fit_adc(samples * scale, B, GROUPS, noise_sd=0.5 * scale) for scale in (1.0, 1e6))
    np.testing.assert_allclose(one.maps.values["ADC"], other.maps.values["ADC"], rtol=1e-9)
    np.testing.assert_allclose(one.maps.standard_errors["ADC"], other.maps.standard_errors["ADC"], rtol=1e-9)


@pytest.mark.parametrize("adc", [2000.0, 507.0, 110.0])
@pytest.mark.parametrize("stated", [0.3, 0.01])
def test_intervals_cover_the_truth_also_where_the_stated_noise_is_too_small(adc, stated):
    rng = np.random.default_rng(2)
    samples = signals(np.full(3, adc)) + rng.normal(0, 0.3, (4000, 7))
    fit = fit_adc(samples, B, GROUPS, noise_sd=stated, pixel_noise_sd=2.0)
    value, error = fit.maps.values["ADC"], fit.maps.standard_errors["ADC"]
    assert abs(value.mean() - adc) < 4 * value.std() / np.sqrt(value.size)
    quantile = stdtrit(fit.interval_degrees_of_freedom, 0.975)
    assert 0.93 < np.mean(np.abs(value - adc) < quantile * error) < 0.97


def test_error_of_two_b_values_is_that_of_the_formula():
    s, noise, b = np.array([100.0, 30.0]), np.array([0.2, 0.1]), 900.0
    fit = fit_adc(s[None], [0, b], noise_sd=noise, pixel_noise_sd=1.0)
    expected = 1e6 * np.hypot(*(noise / s)) / b
    assert fit.maps.standard_errors["ADC"][0] == pytest.approx(expected, rel=1e-9)
    assert np.isnan(fit.residual_sd[0])


def test_shells_in_the_noise_are_left_out_for_each_sample_alone():
    samples = signals(np.array([[5000.0] * 3, [500.0] * 3]))
    samples[0, 4:] = 3.0  # a floor that the formula knows nothing of
    fit = fit_adc(samples, B, GROUPS, noise_sd=0.3, pixel_noise_sd=1.0)
    np.testing.assert_allclose(fit.highest_b, [500, 900])
    np.testing.assert_allclose(fit.maps.values["ADC"], [5000, 500], rtol=1e-9)


def test_one_direction_in_the_noise_limits_all():
    samples = signals([500.0, 500, 500])
    samples[0, 5] = 0.1
    fit = fit_adc(samples, B, GROUPS, noise_sd=0.1, pixel_noise_sd=1.0)
    assert not fit.used[0, 4:].any()


def test_what_cannot_be_fitted_is_nan_with_a_reason():
    samples = np.array([[100.0, 2, 3, 2, 1, 1, 1], [np.nan] * 7, [0.0] * 7, signals([900.0] * 3)[0]])
    fit = fit_adc(samples, B, GROUPS, noise_sd=0.3, pixel_noise_sd=2.0)
    assert [fit.maps.reasons.at(k) for k in range(4)] == [LOST, NO_START, NO_START, ""]
    assert np.isnan(fit.maps.values["ADC"][:3]).all()
    assert fit.maps.values["ADC"][3] == pytest.approx(900, rel=1e-9)


def test_one_bad_sample_costs_only_itself():
    samples = signals([900.0] * 3)
    samples[0, 1] = np.nan
    fit = fit_adc(samples, B, GROUPS, noise_sd=0.3)
    assert fit.maps.values["ADC"][0] == pytest.approx(900, rel=1e-9)
    assert fit.used.sum() == 6


def test_a_direction_without_any_sample_has_no_mean():
    valid = np.ones((1, 7), dtype=bool)
    valid[0, [1, 4]] = False
    fit = fit_adc(signals([900.0] * 3), B, GROUPS, noise_sd=0.3, valid=valid)
    assert np.isnan(fit.maps.values["ADC"][0])
    assert fit.maps.reasons.at(0)


def test_without_unweighted_images_each_direction_stands_alone():
    keep = B > 0
    fit = fit_adc(
        signals([900.0, 950, 1000])[:, keep], B[keep], GROUPS[keep], noise_sd=0.3, pixel_noise_sd=1.0
    )
    np.testing.assert_allclose(fit.along[0], [900, 950, 1000], rtol=1e-9)


@pytest.mark.parametrize(
    ("b", "groups", "words"),
    [
        ([500.0] * 7, None, "at least two b-values"),
        ([0, 500, np.nan, 500, 900, 900, 900], None, "numbers of at least 0"),
        ([0, -1, 500, 500, 900, 900, 900], None, "numbers of at least 0"),
        ([0, 500], None, "do not belong together"),
        (B, [0, 2, 2, 2, 2, 2, 2], "numbered from 0"),
        (B, [0, 1, 1, 1, 2, 2, 2], "needs two b-values"),
    ],
)
def test_bad_input_is_named(b, groups, words):
    with pytest.raises(InputError, match=words):
        fit_adc(signals([900.0] * 3), b, groups, noise_sd=1.0)
