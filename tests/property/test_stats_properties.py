"""What must not change an answer, and what must change it in a known way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.stats.agreement_core import ccc_arrays, limits_arrays, replicated_limits
from cordqa.stats.icc_core import icc_arrays
from cordqa.stats.linearity_core import (
    deming_from_moments,
    moments,
    ols_arrays,
    polynomial_terms,
    robust_line,
)
from cordqa.stats.multiplicity import false_discovery_rate
from cordqa.stats.repeatability_core import repeatability_arrays
from cordqa.stats.reproducibility_core import reproducibility_arrays

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(2, 9), st.integers(2, 6))
factors = st.sampled_from([1e-6, 0.01, 0.5, 3.0, 1000.0])
shifts = st.sampled_from([-500.0, -1.0, 0.25, 1e4])
few = settings(max_examples=40, deadline=None, derandomize=True)


def crossed(seed, size, replicates=1):
    rng = np.random.default_rng(seed)
    n, k = size
    y = rng.normal(size=(n, k, replicates)) + 2 * rng.normal(size=(n, 1, 1)) + rng.normal(size=(1, k, 1))
    return 60.0 + y


def same(a, b, rtol=1e-7, atol=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


@few
@given(seeds, sizes, factors, shifts)
def test_icc_has_no_unit_and_no_zero(seed, size, factor, shift):
    y = crossed(seed, size)[..., 0]
    one, two = icc_arrays(y), icc_arrays(factor * (y + shift))
    for name in one._fields:
        same(getattr(one, name), getattr(two, name), rtol=1e-5, atol=1e-7)


@few
@given(seeds, sizes)
def test_icc_knows_no_order(seed, size):
    y = crossed(seed, size)[..., 0]
    rng = np.random.default_rng(seed)
    mixed = y[rng.permutation(size[0])][:, rng.permutation(size[1])]
    for name, found in icc_arrays(y)._asdict().items():
        same(found, getattr(icc_arrays(mixed), name), rtol=1e-6, atol=1e-9)


@few
@given(seeds, sizes, st.floats(-20, 20))
def test_consistency_does_not_see_an_offset_of_one_scanner(seed, size, offset):
    y = crossed(seed, size)[..., 0]
    moved = y.copy()
    moved[:, 0] += offset
    one, two = icc_arrays(y), icc_arrays(moved)
    for place in (2, 5):
        same(one.value[place], two.value[place], atol=1e-8)
        same(one.low[place], two.low[place], atol=1e-7)


@few
@given(seeds, sizes)
def test_icc_bounds_hold_the_estimate(seed, size):
    found = icc_arrays(crossed(seed, size)[..., 0])
    # McGraw-Wong's agreement bounds hold theirs too, except for an estimate below zero.
    fine = found.value >= 0
    assert (found.low <= found.value + 1e-9)[fine].all()
    assert (found.value <= found.high + 1e-9)[fine].all()
    assert (found.value <= 1).all()


@few
@given(seeds, sizes, factors)
def test_within_subject_spread_scales_with_the_unit(seed, size, factor):
    y = crossed(seed, size)[..., 0]
    one, two = repeatability_arrays(y), repeatability_arrays(factor * y)
    for name in ("wsd", "wsd_low", "wsd_high"):
        same(factor * getattr(one, name), getattr(two, name))
    same(one.wcv, two.wcv, rtol=1e-6)
    same(one.wcv_high, two.wcv_high, rtol=1e-6)


@few
@given(seeds, sizes, shifts)
def test_within_subject_sd_does_not_see_a_constant(seed, size, shift):
    y = crossed(seed, size)[..., 0]
    per_subject = np.random.default_rng(seed).normal(size=(size[0], 1)) * 10
    same(repeatability_arrays(y).wsd, repeatability_arrays(y + shift + per_subject).wsd, rtol=1e-6)


@few
@given(seeds, sizes)
def test_padding_with_nan_changes_nothing(seed, size):
    y = crossed(seed, size)[..., 0]
    padded = np.full((size[0] + 2, size[1] + 3), np.nan)
    padded[: size[0], 1 : 1 + size[1]] = y
    for name, found in repeatability_arrays(y)._asdict().items():
        same(found, getattr(repeatability_arrays(padded), name), rtol=1e-9)


@few
@given(seeds, sizes, factors, shifts, st.integers(1, 3))
def test_reproducibility_scales_and_does_not_see_subjects(seed, size, factor, shift, replicates):
    y = crossed(seed, size, replicates)
    per_subject = np.random.default_rng(seed).normal(size=(size[0], 1, 1))
    one = reproducibility_arrays(y)
    two = reproducibility_arrays(factor * (y + shift + per_subject))
    for name in ("total", "scanner", "within"):
        same(factor * getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-7 * factor)
        bounds = [getattr(x, f"{name}_bounds").high for x in (one, two)]
        same(factor * bounds[0], bounds[1], rtol=1e-4, atol=1e-7 * factor)


@few
@given(seeds, st.integers(3, 30), factors, shifts)
def test_limits_of_agreement_move_with_the_differences(seed, n, factor, shift):
    d = np.random.default_rng(seed).normal(size=n)
    one, two = limits_arrays(d), limits_arrays(factor * (d + shift))
    for name in ("bias", "lower", "upper", "lower_low", "upper_high"):
        same(factor * (getattr(one, name) + shift), getattr(two, name), rtol=1e-6, atol=1e-6 * factor)
    swapped = limits_arrays(-d)
    same(one.upper_high, -swapped.lower_low)
    assert one.lower_low <= one.lower <= one.lower_high
    assert one.upper_low <= one.upper <= one.upper_high


@few
@given(seeds, st.integers(3, 12))
def test_replicated_limits_turn_with_the_methods(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 3))
    one, two = replicated_limits(a, b), replicated_limits(b, a)
    same(one.upper, -two.lower)
    same(one.upper_low, -two.lower_high)
    same(one.sd, two.sd)


@few
@given(seeds, st.integers(4, 30), factors, shifts)
def test_concordance_has_no_unit_and_no_direction(seed, n, factor, shift):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    one, two, turned = (
        ccc_arrays(x, y),
        ccc_arrays(factor * (x + shift), factor * (y + shift)),
        ccc_arrays(y, x),
    )
    same(one.value, two.value, rtol=1e-6, atol=1e-8)
    same(one.low, two.low, rtol=1e-5, atol=1e-7)
    same(one.value, turned.value)
    same(one.high, turned.high)
    assert abs(one.value) <= abs(one.r) + 1e-12


@few
@given(seeds, st.integers(5, 30), factors)
def test_lines_follow_the_units_of_both_axes(seed, n, factor):
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 10, n)
    y = 2 + 3 * x + rng.normal(size=n)
    one = ols_arrays(x, y)
    same(factor * one.slope, ols_arrays(x, factor * y).slope)
    same(one.slope / factor, ols_arrays(factor * x, y).slope)
    same(one.r2, ols_arrays(factor * x, y).r2)
    same(polynomial_terms(x, y).p, polynomial_terms(factor * x, factor * y).p, rtol=1e-5)
    same(robust_line(x, y)[1].df, robust_line(factor * x, y)[1].df, rtol=1e-5)
    same(deming_from_moments(moments(x, y)), np.array(deming_from_moments(moments(factor * x, factor * y)))
         / np.array([1.0, factor]), rtol=1e-6)  # fmt: skip


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_are_no_smaller_and_keep_their_order(p):
    found = false_discovery_rate(p)
    assert (found >= np.asarray(p) - 1e-15).all()
    assert (found <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= -1e-15).all()


@pytest.mark.parametrize("which", range(4))
def test_huge_and_tiny_values_stay_finite(which):
    y = crossed(1, (6, 4), 2) * (1e-150, 1e-12, 1e12, 1e150)[which]
    assert np.isfinite(icc_arrays(y[..., 0]).value).all()
    assert np.isfinite(repeatability_arrays(y[..., 0]).wsd)
    assert np.isfinite(reproducibility_arrays(y).total)
