"""What must not change the answer of a relaxometry fit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.multi_echo import fit_multi_echo
from cordqa.models.relaxometry.signal import (
    inversion_recovery_signal,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

TI = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
TE = 0.01 * np.arange(1, 13)
ANGLES = np.array([3.0, 6.0, 12.0, 20.0, 28.0])


def inversion_recovery(signal, order, valid=None):
    return fit_inversion_recovery(signal, TI[order], repetition_times_s=1.5, valid=valid)


def multi_echo(signal, order, valid=None):
    return fit_multi_echo(signal, TE[order], valid=valid)


def variable_flip_angle(signal, order, valid=None):
    return fit_variable_flip_angle(signal, ANGLES[order], 0.015, valid=valid)


def noisy(kind, seed, n=5):
    rng = np.random.default_rng(seed)
    t = rng.uniform(0.04, 0.6, n)[:, None]
    clean = {
        inversion_recovery: lambda: inversion_recovery_signal(TI, t, m0=100.0, repetition_time_s=1.5),
        multi_echo: lambda: spin_echo_signal(TE, t, m0=100.0),
        variable_flip_angle: lambda: spoiled_gradient_echo_signal(ANGLES, t, 0.015, m0=1000.0),
    }[kind]()
    return np.abs(clean + 0.3 * rng.standard_normal(clean.shape))


KINDS = pytest.mark.parametrize("kind", [inversion_recovery, multi_echo, variable_flip_angle])


def same(one, other, rows=slice(None)):
    for name in one.parameters:
        a, b = one.parameters[name][rows], other.parameters[name]
        np.testing.assert_allclose(a, b, rtol=1e-4)
        np.testing.assert_allclose(one.standard_errors[name][rows], other.standard_errors[name], rtol=1e-2)


@KINDS
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-8, 1e8))
def test_gain_changes_only_the_amplitude(kind, seed, scale):
    signal = noisy(kind, seed)
    order = np.arange(signal.shape[1])
    one, other = kind(signal, order), kind(signal * scale, order)
    np.testing.assert_allclose(one.parameters[one.main], other.parameters[one.main], rtol=1e-5)
    np.testing.assert_allclose(one.parameters["m0"] * scale, other.parameters["m0"], rtol=1e-4)


@KINDS
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_order_of_images_does_not_matter(kind, seed, data):
    signal = noisy(kind, seed)
    order = np.array(data.draw(st.permutations(range(signal.shape[1]))))
    same(kind(signal, np.arange(signal.shape[1])), kind(signal[:, order], order))


@KINDS
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_voxels_do_not_know_each_other(kind, seed):
    signal = noisy(kind, seed)
    order = np.arange(signal.shape[1])
    together = kind(signal, order)
    same(together, kind(signal[2:4], order), slice(2, 4))
    same(together, kind(signal[::-1], order), slice(None, None, -1))


@KINDS
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), dropped=st.integers(0, 4))
def test_leaving_out_by_mask_by_nan_or_by_hand_is_the_same(kind, seed, dropped):
    signal = noisy(kind, seed)
    n = signal.shape[1]
    valid = np.arange(n) != dropped
    masked = kind(signal, np.arange(n), valid)
    same(masked, kind(np.where(valid, signal, np.nan), np.arange(n)))
    if kind is not multi_echo or dropped > 0:  # by hand, another echo would be the first
        same(masked, kind(signal[:, valid], np.flatnonzero(valid)))


@KINDS
def test_repeated_fit_is_identical_and_survives_pickling(kind):
    signal = noisy(kind, 1)
    order = np.arange(signal.shape[1])
    one, other = kind(signal, order), pickle.loads(pickle.dumps(kind(signal.copy(), order)))
    for name in one.parameters:
        assert np.array_equal(one.parameters[name], other.parameters[name])
    assert np.array_equal(one.interval()[0], other.interval()[0])


@KINDS
@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    size=st.sampled_from([1e-300, 1e-3, 1.0, 1e6, 1e300]),
)
def test_any_finite_signal_gives_a_value_or_a_reason(kind, data, size):
    n = {inversion_recovery: 6, multi_echo: 12, variable_flip_angle: 5}[kind]
    values = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, np.nan, np.inf]))
    signal = np.array(data.draw(st.lists(values, min_size=n, max_size=n))) * size
    fit = kind(signal[None], np.arange(n))
    value = fit.parameters[fit.main][0]
    assert (fit.reason[0] == "") == bool(np.isfinite(value))
    assert not value <= 0
