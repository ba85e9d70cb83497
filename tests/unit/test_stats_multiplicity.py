"""False discovery rate and simultaneous intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.multiplicity import (
    adjust_p,
    false_discovery_rate,
    simultaneous_intervals,
    simultaneous_level,
)
from cordqa.stats.quantiles import sd_interval


def wsd(values, level):
    sd = np.sqrt(values.var(axis=-1, ddof=1).mean(axis=-1))
    return sd, *sd_interval(sd, values.shape[1], level=level)


def only_wsd(values):
    return wsd(values, 0.95)[0]


def test_benjamini_hochberg_by_hand():
    found = false_discovery_rate([0.01, 0.04, 0.03, 0.50])
    # Sorted 0.01 0.03 0.04 0.50 times 4/1 4/2 4/3 4/4, smallest from the top down.
    np.testing.assert_allclose(found, [0.04, 0.16 / 3, 0.16 / 3, 0.5])
    by = false_discovery_rate([0.01, 0.04, 0.03, 0.50], method="by")
    np.testing.assert_allclose(by, np.minimum(found * (1 + 1 / 2 + 1 / 3 + 1 / 4), 1))


def test_what_was_not_tested_does_not_count():
    with_nan = false_discovery_rate([0.01, np.nan, 0.04, 0.03, 0.50])
    assert np.isnan(with_nan[1])
    np.testing.assert_allclose(np.delete(with_nan, 1), false_discovery_rate([0.01, 0.04, 0.03, 0.50]))
    assert false_discovery_rate([]).size == 0
    assert np.isnan(false_discovery_rate([np.nan])).all()


def test_families_along_an_axis():
    p = np.random.default_rng(0).uniform(size=(3, 5))
    found = false_discovery_rate(p, axis=0)
    np.testing.assert_allclose(found[:, 2], false_discovery_rate(p[:, 2]))
    assert false_discovery_rate(p).shape == (3, 5)


def test_bad_p():
    with pytest.raises(InputError, match="between 0 and 1"):
        false_discovery_rate([0.5, 1.2])
    with pytest.raises(ConfigError):
        false_discovery_rate([0.5], method="holm")


def test_table_column():
    table = pd.DataFrame({"statistic": ["a", "a", "b", "b"], "p": [0.01, 0.04, 0.03, np.nan]})
    np.testing.assert_allclose(adjust_p(table)["p_fdr"], [0.02, 0.04, 0.03, np.nan])
    np.testing.assert_allclose(adjust_p(table, family=None)["p_fdr"][:3], [0.03, 0.04, 0.04])
    with pytest.raises(TableError, match="missing"):
        adjust_p(table.drop(columns="p"))


def test_level_lies_between_one_test_and_bonferroni():
    rng = np.random.default_rng(1)
    one = np.repeat(rng.normal(size=(1, 30, 2)), 12, axis=0)
    assert simultaneous_level(one, only_wsd, n_samples=300) == pytest.approx(0.95, abs=0.003)
    apart = rng.normal(size=(12, 30, 2))
    level = simultaneous_level(apart, only_wsd, n_samples=300)
    assert 0.993 < level <= 1 - 0.05 / 12 + 1e-12


def test_all_intervals_hold_together():
    rng = np.random.default_rng(2)
    together, apart = 0, 0
    for i in range(40):
        shared = rng.normal(size=(1, 15, 2))
        values = 0.6 * shared + 0.8 * rng.normal(size=(8, 15, 2))
        found = simultaneous_intervals(values, wsd, n_samples=200, seed=i)
        together += bool(((found.low <= 1) & (found.high >= 1)).all())
        apart += bool(((found.pointwise_low <= 1) & (found.pointwise_high >= 1)).all())
    assert together >= 34
    assert apart < together


def test_same_seed_same_answer():
    values = np.random.default_rng(3).normal(size=(4, 12, 2))
    one, two = (simultaneous_intervals(values, wsd, n_samples=200, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.low, two.low)
    assert one.pointwise_level == two.pointwise_level


def test_a_region_without_variation_or_values_spoils_nothing():
    values = np.random.default_rng(4).normal(size=(4, 12, 2))
    values[1] = 3.0
    values[2] = np.nan
    found = simultaneous_intervals(values, wsd, n_samples=200)
    assert np.isfinite(found.low).tolist() == [True, True, False, True]
    assert found.value[1] == 0.0


def test_too_few_subjects_or_samples():
    with pytest.raises(InputError, match="at least three"):
        simultaneous_level(np.ones((3, 2, 2)), only_wsd)
    with pytest.raises(ConfigError, match="200 or more"):
        simultaneous_level(np.ones((3, 9, 2)), only_wsd, n_samples=50)
