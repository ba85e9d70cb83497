"""T2*: Rician mean against sampling, dephasing against spins, recovery with noise and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rice

from cordqa.errors import InputError
from cordqa.models.relaxometry.echo_order import find_growth, refuse_growth
from cordqa.models.relaxometry.gradient_echo import (
    DEPHASED,
    fit_gradient_echo,
    gradient_echo_signal,
    slice_dephasing,
    slice_gradient,
    slice_gradient_from_phase,
)
from cordqa.models.relaxometry.noise import rician_excess, rician_mean

TIMES = 0.0025 + 0.003 * np.arange(10)


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0, 3.0, 12.0, 24.9, 25.1])
def test_rician_mean_and_variance_are_those_of_the_distribution(signal: float) -> None:
    mean, slope, variance = rician_mean(signal, 1.0)
    assert mean == pytest.approx(rice.mean(signal), rel=1e-8)
    assert variance == pytest.approx(rice.var(signal), rel=1e-5)
    step = 1e-4
    numeric = (rician_mean(signal + step, 1.0)[0] - rician_mean(abs(signal - step), 1.0)[0]) / (2 * step)
    if signal not in (0.0, 25.0):
        assert slope == pytest.approx(numeric, abs=1e-6)


def test_without_noise_the_mean_is_the_signal() -> None:
    mean, slope, variance = rician_mean([0.0, 2.0], 0.0)
    np.testing.assert_allclose(mean, [0.0, 2.0])
    np.testing.assert_allclose(slope, 1.0)
    np.testing.assert_allclose(variance, 0.0)


@pytest.mark.parametrize("gradient", [0.0, 12.0, 60.0, -60.0])
def test_dephasing_equals_a_sum_over_spins(gradient: float) -> None:
    # Midpoints of many spins across the slice.
    place = (np.arange(300_000) + 0.5) / 300_000 - 0.5
    spins = [abs(np.exp(2j * np.pi * gradient * place * t).mean()) for t in TIMES]
    np.testing.assert_allclose(slice_dephasing(TIMES, gradient), spins, atol=1e-10)


@pytest.mark.parametrize("gradient", [0.0, 30.0])
def test_noise_free_signals_are_recovered_exactly(gradient: float) -> None:
    t2star = np.array([0.004, 0.02, 0.08])
    signal = gradient_echo_signal(TIMES, t2star, m0=[3.0, 500.0, 1e4], gradient_hz=gradient)
    fit = fit_gradient_echo(signal, TIMES, gradient_hz=gradient)
    np.testing.assert_allclose(fit.parameters["t2star_s"], t2star, rtol=1e-7)
    np.testing.assert_allclose(fit.parameters["m0"], [3.0, 500.0, 1e4], rtol=1e-7)


@pytest.mark.parametrize(("t2star", "noise"), [(0.02, 0.05), (0.008, 0.03), (0.03, 0.01)])
def test_noise_floor_is_taken_out(t2star: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    clean = gradient_echo_signal(TIMES, np.full(3000, t2star))
    noisy = np.abs(clean + noise * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)))
    fit = fit_gradient_echo(noisy, TIMES, noise_sd=noise)
    values = fit.parameters["t2star_s"]
    assert values.mean() == pytest.approx(t2star, rel=0.01)
    assert np.sqrt(np.mean(fit.standard_errors["t2star_s"] ** 2)) == pytest.approx(values.std(), rel=0.08)


def test_a_gradient_that_is_ignored_shortens_t2star() -> None:
    signal = gradient_echo_signal(TIMES, 0.04, gradient_hz=20.0)
    assert float(fit_gradient_echo(signal, TIMES).parameters["t2star_s"]) < 0.03
    fit = fit_gradient_echo(signal, TIMES, gradient_hz=20.0)
    assert float(fit.parameters["t2star_s"]) == pytest.approx(0.04, rel=1e-6)


def test_echoes_past_the_null_are_left_out_and_too_few_are_said() -> None:
    gradients = np.array([0.0, 60.0, 250.0])
    signal = gradient_echo_signal(TIMES, np.full(3, 0.03), gradient_hz=gradients)
    fit = fit_gradient_echo(signal, TIMES, gradient_hz=gradients)
    assert fit.n_used[0] == 10
    assert 3 <= fit.n_used[1] < 6
    assert fit.reason[2] == DEPHASED
    assert np.isnan(fit.parameters["t2star_s"][2])


def test_gradient_from_a_field_map_and_from_wrapped_phase() -> None:
    z = np.arange(7.0)
    field = np.broadcast_to(40 * z + 3 * z**2, (2, 3, 7)).copy()
    expected = 40 + 6 * z
    expected[0], expected[-1] = 43.0, 40 + 3 * (2 * 6 - 1)
    np.testing.assert_allclose(slice_gradient(field, axis=2)[0, 0], expected)
    offset = np.random.default_rng(0).uniform(-3, 3, field.shape)[..., None]
    phase = np.angle(np.exp(1j * (offset + 2 * np.pi * field[..., None] * TIMES)))
    np.testing.assert_allclose(slice_gradient_from_phase(phase, TIMES, axis=2)[1, 2], expected, atol=1e-9)
    field[:, :, 3] = np.nan
    assert np.isfinite(slice_gradient(field, axis=2)[0, 0, [2, 4]]).all()
    assert np.isnan(slice_gradient(np.ones((2, 2, 1)), axis=2)).all()


def test_growing_signals_are_refused_and_single_steps_told() -> None:
    decay = np.exp(-TIMES / 0.02) * np.linspace(1, 2, 50)[:, None]
    assert find_growth(decay, TIMES) == (None, ())
    with pytest.raises(InputError, match="order of the images"):
        refuse_growth(decay[:, ::-1], TIMES)
    swapped = decay.copy()
    swapped[:, [3, 4]] = decay[:, [4, 3]]
    (sentence,) = refuse_growth(swapped, TIMES)
    assert "higher at echo time 0.0145 s" in sentence
    assert refuse_growth(np.full((3, 10), np.nan), TIMES) == ()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fit_gradient_echo(np.ones((2, 10)), 1000 * TIMES), "divide by 1000"),
        (lambda: fit_gradient_echo(np.ones((2, 3)), [0.01] * 3), "different echo times"),
        (lambda: fit_gradient_echo(-np.ones((2, 10)), TIMES), "negative"),
        (lambda: fit_gradient_echo(np.ones((2, 10)), TIMES, gradient_hz=np.ones(3)), "does not match"),
        (lambda: slice_gradient_from_phase(np.ones((2, 2, 2, 1)), [0.01], axis=2), "two echoes"),
    ],
)
def test_wrong_input_is_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_the_fast_mean_is_the_exact_one() -> None:
    ratio = np.linspace(0, 60, 5001)
    mean, slope, _ = rician_mean(ratio, np.ones(ratio.shape))
    excess, rise = rician_excess(ratio)
    near = ratio <= 25
    np.testing.assert_allclose(excess[near], (mean - ratio)[near], atol=1e-6)
    np.testing.assert_allclose(rise[near], slope[near], atol=1e-5)
    np.testing.assert_allclose(excess[~near], (mean - ratio)[~near], atol=0.02)


def test_noise_of_late_echoes_is_no_growth():
    rng = np.random.default_rng(0)
    times = 0.01 * np.arange(1, 33)
    clean = np.exp(-times / 0.06)
    for _ in range(20):
        noisy = np.abs(clean + 0.005 * (rng.normal(size=(270, 32)) + 1j * rng.normal(size=(270, 32))))
        assert find_growth(noisy, times) == (None, ())
