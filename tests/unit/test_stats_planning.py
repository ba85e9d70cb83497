"""Sample sizes: published numbers, exact power by simulation, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import ConfigError
from cordqa.stats.planning import (
    change_detectable,
    plan_study,
    repeatability_factors,
    size_for_change,
    size_for_claim,
    size_for_groups,
    size_for_icc,
    size_for_repeatability,
)


@pytest.mark.parametrize(("repeats", "sizes"), [(2, (13, 27, 35, 50, 166)), (3, (7, 14, 18, 25, 83))])
def test_subjects_for_the_upper_bound_of_repeatability(repeats, sizes):
    # With two repeats and a factor of 1.25 the answer is the 35 subjects of QIBA's test-retest claims.
    factors = (1.5, 1.3, 1.25, 1.2, 1.1)
    assert tuple(size_for_repeatability(f, repeats=repeats).n for f in factors) == sizes


@pytest.mark.parametrize(("n", "low", "high"), [(10, 0.70, 1.75), (20, 0.77, 1.44), (35, 0.81, 1.30)])
def test_two_sided_factors(n, low, high):
    assert repeatability_factors(n) == pytest.approx((low, high), abs=0.006)


def test_one_sided_factor_is_smaller_than_the_two_sided():
    assert repeatability_factors(20, sided="one")[1] < repeatability_factors(20)[1]
    assert repeatability_factors(20, sided="one")[0] == 0.0
    assert repeatability_factors(10, repeats=10) == pytest.approx((0.8728313, 1.1708873), abs=1e-6)


@pytest.mark.parametrize(("icc", "raters", "n"), [(0.8, 2, 51), (0.8, 3, 36), (0.9, 3, 12)])
def test_bonett_numbers(icc, raters, n):
    assert size_for_icc(icc, 0.2, raters=raters, method="bonett").n == n


def test_exact_icc_width_agrees_with_simulation_and_asks_for_more():
    from scipy.stats import f

    size = size_for_icc(0.9, 0.2, raters=3)
    assert size.n > size_for_icc(0.9, 0.2, raters=3, method="bonett").n
    generator = np.random.default_rng(0)
    n, k = size.n, 3
    values = generator.normal(0, np.sqrt(0.9), (4000, n, 1)) + generator.normal(0, np.sqrt(0.1), (4000, n, k))
    rows, columns = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    rest = values - rows - columns + values.mean(axis=(1, 2), keepdims=True)
    ratio = k * rows[..., 0].var(axis=1, ddof=1) / (np.sum(rest**2, axis=(1, 2)) / ((n - 1) * (k - 1)))
    ends = [ratio / f.ppf(0.975, n - 1, (n - 1) * (k - 1)), ratio / f.ppf(0.025, n - 1, (n - 1) * (k - 1))]
    low, high = ((x - 1) / (x + k - 1) for x in ends)
    assert np.mean(high - low) == pytest.approx(size.achieved, abs=0.004)


def test_three_percent_between_groups():
    # Spread between people 8 %, within 2 %: 119 by the normal approximation, one more by the t test.
    assert size_for_groups(3, between_sd=8, within_sd=2, method="normal").n == 119
    assert size_for_groups(3, between_sd=8, within_sd=2).n == 120


@pytest.mark.parametrize(("wcv", "normal", "exact"), [(2, 7, 10), (5, 44, 46)])
def test_three_percent_change_on_one_scanner(wcv, normal, exact):
    assert size_for_change(3, within_sd=wcv, method="normal").n == normal
    assert size_for_change(3, within_sd=wcv).n == exact


def test_power_of_the_exact_size_holds_in_simulation():
    from scipy.stats import ttest_1samp

    generator = np.random.default_rng(0)

    def power(n):
        change = 3 + generator.normal(0, 2 * np.sqrt(2), (20_000, n))
        return np.mean(ttest_1samp(change, 0, axis=1).pvalue < 0.05)

    assert power(10) > 0.83
    # What the normal approximation suggests is far too few.
    assert power(7) < 0.70
    assert size_for_change(3, within_sd=2).achieved == pytest.approx(power(10), abs=0.01)


def test_repeats_and_arms():
    one = size_for_change(3, within_sd=5).n
    assert size_for_change(3, within_sd=5, repeats=4).n < one < size_for_change(3, within_sd=5, arms=2).n
    assert (
        size_for_groups(3, between_sd=8, within_sd=8, repeats=100).n
        < size_for_groups(3, between_sd=8, within_sd=8).n
    )


def test_claim_needs_more_people_the_nearer_it_is():
    assert size_for_claim(4, 5).n < size_for_claim(4.5, 5).n
    generator = np.random.default_rng(1)
    size = size_for_claim(4, 5)
    from scipy.stats import chi2

    spread = 4 * np.sqrt(generator.chisquare(size.n, 20_000) / size.n)
    shown = spread * np.sqrt(size.n / chi2.ppf(0.05, size.n)) < 5
    assert shown.mean() == pytest.approx(size.achieved, abs=0.01)
    with pytest.raises(ConfigError, match="below it"):
        size_for_claim(5, 5)


def test_detectable_change():
    assert change_detectable(1) == pytest.approx(2.7718, abs=1e-4)
    assert change_detectable(2, n=4) == pytest.approx(2.7718, abs=1e-4)
    assert [round(change_detectable(w), 2) for w in (1, 2, 5)] == [2.77, 5.54, 13.86]


def test_plan_table():
    table = plan_study([2, 5], between_sd=8, within_sd=2, reproducibility_sd=4, unit="%")
    assert len(table) == 10
    assert (table["power"] >= 0.8).all()
    small = table.loc[table["difference"] == 2].set_index("design")["n_per_arm"]
    large = table.loc[table["difference"] == 5].set_index("design")["n_per_arm"]
    assert (small > large).all()
    assert small["change, any scanner"] > small["change, same scanner"]
    assert len(plan_study([2], between_sd=8, within_sd=2)) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: size_for_repeatability(1.0),
        lambda: size_for_repeatability(1.2, repeats=1),
        lambda: repeatability_factors(0),
        lambda: size_for_icc(1.0, 0.2),
        lambda: size_for_icc(0.8, 0.2, raters=1),
        lambda: size_for_icc(0.8, 0.2, method="guess"),
        lambda: size_for_groups(0, between_sd=8),
        lambda: size_for_groups(3, between_sd=float("nan")),
        lambda: size_for_groups(3, between_sd=8, within_sd=-1),
        lambda: size_for_groups(3, between_sd=8, power=1.0),
        lambda: size_for_groups(3, between_sd=8, method="z"),
        lambda: size_for_change(3, within_sd=2, arms=3),
        lambda: size_for_change(1e-6, within_sd=1),
        lambda: change_detectable(-1),
    ],
)
def test_bad_settings_are_refused(call):
    with pytest.raises(ConfigError):
        call()
