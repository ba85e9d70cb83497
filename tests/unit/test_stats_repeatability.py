"""Within-subject spread: estimators, intervals, the switch of form, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, TableError
from cordqa.stats.repeatability import repeatability
from cordqa.stats.repeatability_core import (
    CV_FORMS,
    REPEATABILITY_FACTOR,
    asymmetric_limits,
    repeatability_arrays,
)

# Bland JM, Altman DG. Lancet 1986;1:307-310: repeats of the Wright meter (l/min).
WRIGHT = [
    (494, 490), (395, 397), (516, 512), (434, 401), (476, 470), (557, 611), (413, 415), (442, 431),
    (650, 638), (433, 429), (417, 420), (656, 633), (267, 275), (478, 492), (178, 165), (423, 372),
    (427, 421),
]  # fmt: skip


def long(values, **columns):
    index = np.indices(np.shape(values)).reshape(2, -1)
    return pd.DataFrame({"subject": index[0], "value": np.ravel(values).astype(float), **columns})


def rows(table):
    return table.set_index("statistic")


def draw(cv, shape, kind="normal", seed=0):
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(4.0, 0.3, (*shape[:-1], 1)))
    if kind == "normal":
        return mean * (1 + cv * rng.normal(size=shape))
    s = np.sqrt(np.log1p(cv**2))
    return mean * np.exp(s * rng.normal(size=shape) - s**2 / 2)


def covered(found, which, truth):
    low, high = found.wcv_low[..., which], found.wcv_high[..., which]
    given = np.isfinite(low)
    assert given.mean() > 0.97
    return np.mean(((low <= truth) & (truth <= high))[given])


# ------------------------------------------------------------------------------------- arrays


def test_published_peak_flow():
    found = repeatability_arrays(WRIGHT)
    assert round(float(found.wsd), 1) == 15.3
    assert found.df == 17
    # Their coefficient is two SD of the differences.
    assert round(float(2 * np.sqrt(2) * found.wsd), 1) == 43.3


def test_pooling_weights_subjects_by_their_degrees_of_freedom():
    values = np.array([[1.0, 3.0, np.nan], [1.0, 2.0, 3.0], [5.0, np.nan, np.nan]])
    found = repeatability_arrays(values)
    assert found.df == 3
    assert found.wsd**2 == pytest.approx((2.0 + 2.0) / 3)
    assert (found.n_subjects, found.n_single, found.n_values) == (2, 1, 6)


@pytest.mark.parametrize(("n", "k"), [(10, 2), (35, 2), (5, 5)])
def test_wsd_interval_covers(n, k):
    values = np.random.default_rng(n).normal(50, 1, (6000, n, k))
    found = repeatability_arrays(values)
    assert np.mean((found.wsd_low <= 1) & (found.wsd_high >= 1)) == pytest.approx(0.95, abs=0.011)


def test_forms_and_where_they_fail():
    # The reason for the switch of form; at 22 % hardly a sample is refused for being near zero.
    normal = repeatability_arrays(draw(0.22, (2000, 35, 2)))
    assert covered(normal, CV_FORMS.index("rms"), 0.22) < 0.935
    assert covered(normal, CV_FORMS.index("log"), 0.22) < 0.87
    assert 0.935 <= covered(normal, CV_FORMS.index("symmetric"), 0.22) <= 0.965
    skew = repeatability_arrays(draw(0.22, (2000, 35, 2), "log"))
    assert 0.935 <= covered(skew, CV_FORMS.index("log"), 0.22) <= 0.965


@pytest.mark.parametrize("cv", [0.01, 0.05, 0.10])
def test_all_forms_agree_where_the_cv_is_small(cv):
    found = repeatability_arrays(draw(cv, (1500, 20, 2)))
    for which in range(3):
        assert 0.93 <= covered(found, which, cv) <= 0.965
    assert (found.form == 0).mean() > 0.95


def test_form_switches_with_the_level():
    found = repeatability_arrays(np.stack([draw(0.05, (30, 2)), draw(0.2, (30, 2), "log")]))
    assert [CV_FORMS[i] for i in found.form] == ["rms", "log"]
    fixed = repeatability_arrays(draw(0.2, (30, 2), "log"), form="symmetric")
    assert CV_FORMS[int(fixed.form)] == "symmetric"
    with pytest.raises(ConfigError, match="auto, rms, log"):
        repeatability_arrays(WRIGHT, form="mean")


def test_mean_of_subject_cv_would_be_too_small():
    values = draw(0.05, (4000, 10, 2))
    naive = (values.std(axis=-1, ddof=1) / values.mean(axis=-1)).mean(axis=-1)
    pooled = repeatability_arrays(values).wcv[:, 0]
    assert naive.mean() < 0.042
    assert np.sqrt(np.mean(pooled**2)) == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_scale_of_an_interval_quantity(offset):
    values = np.random.default_rng(1).normal(0.002, 0.01, (20, 2)) + offset
    found = repeatability_arrays(values, scale="interval")
    assert np.isnan(found.wcv).all()
    assert found.refusal == 1
    assert found.wsd == pytest.approx(0.01, rel=0.5)


def test_values_around_zero_never_give_a_cv():
    # mean 0.002, SD 0.01: a CV of several hundred percent if computed.
    values = np.random.default_rng(2).normal(0.002, 0.01, (20, 2))
    assert repeatability_arrays(values).refusal == 2
    positive = np.abs(values) + 1e-6
    assert repeatability_arrays(positive).refusal == 3
    assert np.isnan(repeatability_arrays(positive).wcv).all()


def test_a_wide_range_of_subjects_is_no_reason_to_refuse():
    spheres = np.geomspace(20, 2000, 14)[:, None] * (1 + 0.01 * np.random.default_rng(3).normal(size=(14, 3)))
    found = repeatability_arrays(spheres)
    assert found.refusal == 0
    assert found.wcv[0] == pytest.approx(0.01, rel=0.4)


@pytest.mark.parametrize("values", [np.full((4, 2), np.nan), np.ones((4, 1)), np.empty((0, 2))])
def test_nothing_repeated_is_nan(values):
    found = repeatability_arrays(values)
    assert np.isnan(found.wsd)
    assert np.isnan(found.wcv).all()
    assert found.df == 0


def test_all_equal_is_zero():
    found = repeatability_arrays(np.full((5, 3), 7.0))
    assert (found.wsd, found.wsd_high, found.wcv[0]) == (0.0, 0.0, 0.0)


def test_asymmetric_limits():
    down, up = asymmetric_limits(0.1)
    assert (1 + down / 100) * (1 + up / 100) == pytest.approx(1.0)
    assert up == pytest.approx(100 * (np.exp(0.1 * REPEATABILITY_FACTOR) - 1))


# -------------------------------------------------------------------------------------- table


def test_table():
    found = rows(repeatability(long(WRIGHT, unit="l/min"), unit="unit"))
    assert found.loc["RC", "value"] == pytest.approx(1.96 * np.sqrt(2) * found.loc["wSD", "value"])
    assert found.loc["wSD", "unit"] == "l/min"
    assert found.loc["wCV", "unit"] == "%"
    assert found.loc["wCV", "value"] == pytest.approx(3.50, abs=0.005)
    assert found.loc["RC_percent_down", "low"] < found.loc["RC_percent_down", "value"] < 0
    assert found.loc["RC_percent_down", "value"] < found.loc["RC_percent_down", "high"]
    assert (found["low"].iloc[:8] <= found["value"].iloc[:8]).all()
    assert (found["value"].iloc[:8] <= found["high"].iloc[:8]).all()
    assert found.loc["wSD", "df"] == 17
    assert found.loc["wCV", "n_repeated"] == 17


def test_switch_is_named_and_the_other_reading_given():
    found = rows(repeatability(long(draw(0.22, (25, 2), "log", seed=4))))
    assert "log-form-above-15-percent" in found.loc["wCV", "flags"]
    assert found.loc["wCV", "value"] == found.loc["wCV_log", "value"]
    assert "wCV_symmetric" in found.loc["wCV", "note"]
    assert found.loc["RC_percent_up", "value"] > -found.loc["RC_percent_down", "value"]
    assert found.loc["wSD", "flags"] == ""


def test_spread_that_grows_with_the_value_is_seen():
    rng = np.random.default_rng(5)
    mean = np.geomspace(20, 2000, 40)[:, None]
    grows = rows(repeatability(long(mean * (1 + 0.02 * rng.normal(size=(40, 3))))))
    assert grows.loc["sd_mean_correlation", "p"] < 1e-6
    even = rows(repeatability(long(mean + rng.normal(size=(40, 3)))))
    assert even.loc["sd_mean_correlation", "p"] > 0.01


def test_two_scanners_are_no_repeats_with_within():
    rng = np.random.default_rng(6)
    values = 100 + rng.normal(size=(10, 2, 2)) + np.array([0.0, 30.0])[:, None]
    index = np.indices(values.shape).reshape(3, -1)
    table = pd.DataFrame({"subject": index[0], "scanner": index[1], "value": values.ravel()})
    pooled = rows(repeatability(table, within="scanner"))
    assert pooled.loc["wSD", "value"] == pytest.approx(1.0, abs=0.4)
    assert pooled.loc["wSD", ["n_subjects", "n_repeated"]].tolist() == [10, 20]
    mixed = rows(repeatability(table))
    assert mixed.loc["wSD", "value"] > 10
    each = repeatability(table, by="scanner")
    assert each["scanner"].unique().tolist() == [0, 1]


def test_interval_scale_says_why():
    found = rows(repeatability(long([[0.1, 0.2], [-0.1, 0.0], [0.3, 0.25]]), scale="interval"))
    assert np.isfinite(found.loc[["wSD", "RC"], "value"]).all()
    assert found.loc[["wCV", "wCV_rms", "RC_percent_up"], "value"].isna().all()
    assert "true zero" in found.loc["wCV", "note"]
    assert "relative-refused" in found.loc["wCV", "flags"]


def test_groups_fail_alone_and_lost_values_are_counted():
    good = long(np.random.default_rng(7).normal(50, 1, (6, 2)), region="good")
    single = long(np.arange(4.0)[:, None] + 1, region="single")
    table = pd.concat([good, single], ignore_index=True)
    table.loc[0, "value"] = np.nan
    with pytest.raises(TableError):
        repeatability(table, by="region")
    found = repeatability(table, by="region", nan_policy="omit")
    good_rows, single_rows = (rows(found[found["region"] == r]) for r in ("good", "single"))
    assert np.isfinite(good_rows.loc["wSD", "value"])
    assert good_rows.loc["wSD", ["n_unusable", "n_single"]].tolist() == [1, 1]
    assert single_rows["value"].isna().all()
    assert single_rows.loc["wSD", "note"] == "nothing was measured twice"
    assert single_rows.loc["wSD", "flags"] == "not-repeated"


def test_few_degrees_of_freedom_are_flagged():
    assert "few-df" in rows(repeatability(long([[1.0, 1.1], [2.0, 2.1]]))).loc["wSD", "flags"]
