"""Lines, curvature, clusters, Deming, bias per level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.linearity import bias_per_level, linearity, mean_with_interval
from cordqa.stats.linearity_core import (
    cluster_jackknife,
    correlation_interval,
    deming_from_moments,
    lack_of_fit,
    moments,
    ols_arrays,
    polynomial_terms,
    robust_line,
)

SPHERES = np.geomspace(20.0, 2000.0, 14)


def study(rng, scanners=4, repeats=2, gain=0.02, noise=0.01):
    """Spheres on scanners that each have a gain of their own."""
    gains = 1.0 + gain * rng.normal(size=scanners)
    rows = [
        {"reference": t, "scanner": f"s{j}", "run": r, "value": t * g * (1 + noise * rng.normal())}
        for j, g in enumerate(gains)
        for r in range(repeats)
        for t in SPHERES
    ]
    return pd.DataFrame(rows)


def rows(table):
    return table.set_index("statistic")


# ------------------------------------------------------------------------------------- arrays


def test_exact_line_is_recovered_over_leading_axes():
    slopes = np.array([[0.5], [1.0], [2.0]])
    fit = ols_arrays(SPHERES, 3.0 + slopes * SPHERES)
    np.testing.assert_allclose(fit.slope, slopes[:, 0], rtol=1e-12)
    np.testing.assert_allclose(fit.intercept, 3.0, rtol=1e-9)
    np.testing.assert_allclose(fit.r2, 1.0)
    assert (fit.residual_sd < 1e-4).all()


def test_nan_takes_out_its_pair_only():
    x = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    y = np.array([2.0, np.nan, 6.0, 8.5, 1.0])
    fit, clean = ols_arrays(x, y), ols_arrays(x[[0, 2, 3]], y[[0, 2, 3]])
    assert fit.n == 3
    assert fit.slope == pytest.approx(float(clean.slope))
    assert fit.slope_se == pytest.approx(float(clean.slope_se))


def test_height_of_the_line_and_its_error():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 30)
    y = 1 + 2 * x + rng.normal(size=30)
    fit = ols_arrays(x, y)
    value, se = fit.at(0.0)
    assert value == pytest.approx(float(fit.intercept))
    assert se == pytest.approx(float(fit.intercept_se))


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0], [1.0]), ([], [])])
def test_no_line_through_one_place(x, y):
    fit = ols_arrays(np.array(x), np.array(y))
    assert np.isnan(fit.slope)
    assert np.isnan(fit.slope_se)


def test_correlation_interval():
    low, high = correlation_interval(0.5, 28)
    # z = 0.5493 -/+ 1.96 / 5
    assert (low, high) == (pytest.approx(0.156, abs=0.001), pytest.approx(0.736, abs=0.001))
    assert np.isnan(correlation_interval(0.5, 3)).all()


def test_deming_is_symmetric_and_has_least_squares_as_its_limits():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 10, 50)
    y = 0.5 + 1.3 * x + rng.normal(size=50)
    forward = deming_from_moments(moments(x, y), 4.0)
    back = deming_from_moments(moments(y, x), 0.25)
    assert forward[0] == pytest.approx(1 / float(back[0]))
    steep = deming_from_moments(moments(x, y), 1e12)[0]
    assert steep == pytest.approx(float(ols_arrays(x, y).slope), rel=1e-6)
    flat = deming_from_moments(moments(x, y), 1e-12)[0]
    assert flat == pytest.approx(1 / float(ols_arrays(y, x).slope), rel=1e-6)
    with pytest.raises(InputError, match="positive"):
        deming_from_moments(moments(x, y), 0.0)


def test_deming_recovers_the_slope_that_least_squares_flattens():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 2, (300, 150))
    x = truth + rng.normal(size=truth.shape)
    y = 1.2 * truth + rng.normal(size=truth.shape)
    assert ols_arrays(x, y).slope.mean() < 1.0
    assert deming_from_moments(moments(x, y))[0].mean() == pytest.approx(1.2, abs=0.02)
    inside = 0
    for a, b in zip(x, y, strict=True):
        found = cluster_jackknife(lambda m: deming_from_moments(m)[0], a, b, lost=2)
        inside += bool(found.low <= 1.2 <= found.high)
    assert 0.91 <= inside / 300 <= 0.98


def test_clusters_make_intervals_honest():
    rng = np.random.default_rng(3)
    inside = {"plain": 0, "cluster": 0}
    for _ in range(150):
        table = study(rng, scanners=4, repeats=1)
        x, y = table["reference"].to_numpy(), table["value"].to_numpy()
        plain = ols_arrays(x, y).interval("slope")
        inside["plain"] += bool(plain.low <= 1.0 <= plain.high)
        found = robust_line(x, y, clusters=table["scanner"].to_numpy())[1]
        inside["cluster"] += bool(found.low <= 1.0 <= found.high)
    assert inside["plain"] / 150 < 0.8
    assert 0.91 <= inside["cluster"] / 150 <= 0.99


def test_robust_line_of_equal_clusters_has_clusters_minus_one_df():
    table = study(np.random.default_rng(4), scanners=5)
    found = robust_line(table["reference"], table["value"], clusters=table["scanner"])
    assert found[1].df == pytest.approx(4.0)
    assert np.isnan(robust_line(table["reference"], table["value"], clusters=np.zeros(len(table)))[1].value)


def test_curvature_is_found_and_not_invented():
    rng = np.random.default_rng(5)
    x = np.linspace(0, 10, 40)
    curved = x + 0.02 * x**2 + 0.05 * rng.normal(size=40)
    found = polynomial_terms(x, curved)
    assert found.value == pytest.approx(0.02, abs=0.003)
    assert found.p < 1e-6
    straight = x + 0.05 * rng.normal(size=(400, 40))
    assert np.mean(polynomial_terms(x, straight).p < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(polynomial_terms(x, straight, order=3).p < 0.05) == pytest.approx(0.05, abs=0.03)


def test_lack_of_fit_of_a_worked_example():
    # Means 2, 3, 4 lie on a line, so that the lack of fit is 0; pure error 2 + 2 + 8 on 3 df.
    f, df1, df2, p = lack_of_fit([1, 1, 2, 2, 3, 3], [1, 3, 2, 4, 2, 6])
    assert (f, df1, df2, p) == (pytest.approx(0.0, abs=1e-12), 1.0, 3.0, pytest.approx(1.0))
    # Means 2, 3, 1 against the line 2 - 0.5 (x - 2); pure error 2 + 2 + 2.
    f, *_ = lack_of_fit([1, 1, 2, 2, 3, 3], [1, 3, 2, 4, 0, 2])
    means, line = np.array([2.0, 3.0, 1.0]), 2.0 - 0.5 * np.array([-1.0, 0.0, 1.0])
    assert f == pytest.approx(2 * np.sum((means - line) ** 2) / (6.0 / 3.0))
    assert np.isnan(lack_of_fit([1, 2, 3], [1, 2, 3])[0])
    assert lack_of_fit([1, 1, 2, 2, 3, 3], [1, 1, 5, 5, 1, 1])[0] == np.inf


def test_mean_of_clusters():
    values = np.array([1.0, 1.0, 1.0, 3.0])
    found = mean_with_interval(values, np.array([0, 0, 0, 1]))
    assert found.value == 2.0
    assert found.df == 1.0
    assert np.isnan(mean_with_interval(values, np.zeros(4)).low)
    assert np.isnan(mean_with_interval(np.array([])).value)


# -------------------------------------------------------------------------------------- table


def test_table_of_a_study():
    table = study(np.random.default_rng(6)).assign(unit="ms")
    found = rows(linearity(table, cluster="scanner", error_ratio=4.0, unit="unit"))
    assert found.loc["slope", "low"] < 1 < found.loc["slope", "high"]
    assert found.loc["r2", "value"] > 0.99
    assert found.loc["intercept", "unit"] == "ms"
    assert found.loc["slope", "unit"] == ""
    assert (found["n_clusters"] == 4).all()
    assert found["flags"].str.contains("few-clusters").all()
    assert "assumes-independence" in found.loc["lack_of_fit", "flags"]
    assert "CR2" in found.loc["slope", "interval_method"]
    assert found.loc["deming_slope", "value"] == pytest.approx(1.0, abs=0.05)
    assert np.isnan(found.loc["residual_sd", "low"])


def test_p_of_the_slope_is_of_one():
    table = pd.DataFrame({"reference": SPHERES, "value": 0.9 * SPHERES + np.tile([0.1, -0.1], 7)})
    found = rows(linearity(table))
    assert found.loc["slope", "p"] < 1e-6
    same = rows(linearity(table.assign(value=table["reference"] + np.tile([0.1, -0.1], 7))))
    assert same.loc["slope", "p"] > 0.3


def test_robust_errors_without_clusters():
    table = study(np.random.default_rng(7), scanners=1, repeats=3, gain=0.0)
    found = rows(linearity(table, errors="robust"))
    assert "HC2" in found.loc["slope", "interval_method"]
    assert found.loc["residual_sd", "interval_method"] == ""


@pytest.mark.parametrize(
    ("take", "words"),
    [(slice(0, 2), "fewer than three points"), ([0, 14, 28], "more than 2 reference values")],
)
def test_too_little_says_so(take, words):
    table = study(np.random.default_rng(8)).iloc[take]
    found = rows(linearity(table))
    assert np.isnan(found.loc["quadratic_term", "value"])
    assert words in found.loc["quadratic_term", "note"]


def test_groups_and_lost_pairs():
    table = pd.concat([study(np.random.default_rng(9)).assign(q=q) for q in ("T1", "T2")], ignore_index=True)
    table.loc[3, "value"] = np.nan
    with pytest.raises(TableError, match="without a value"):
        linearity(table, by="q")
    found = linearity(table, by="q", nan_policy="omit")
    assert found.groupby("q")["n_excluded"].first().to_dict() == {"T1": 1, "T2": 0}


def test_bad_options():
    table = study(np.random.default_rng(10))
    for options in ({"errors": "huber"}, {"error_ratio": -1.0}, {"level": 2.0}):
        with pytest.raises(ConfigError):
            linearity(table, **options)
    with pytest.raises(TableError, match="both as number and as key"):
        bias_per_level(table, by="reference")


def test_bias_per_level_counts_scanners_not_repeats():
    table = study(np.random.default_rng(11), scanners=4, repeats=10, gain=0.03)
    clustered = bias_per_level(table, cluster="scanner")
    plain = bias_per_level(table)
    width = [(t["high"] - t["low"]).to_numpy() for t in (clustered, plain)]
    assert (width[0] > 2.5 * width[1]).all()
    assert (clustered["n_clusters"] == 4).all()
    assert (clustered["reference"].diff().dropna() >= 0).all()
    percent = clustered[clustered["statistic"] == "bias_percent"]
    units = clustered[clustered["statistic"] == "bias"]
    np.testing.assert_allclose(percent["value"], 100 * units["value"].to_numpy() / percent["reference"])


def test_bias_percent_is_refused_on_an_interval_scale():
    table = pd.DataFrame({"reference": [-0.1, -0.1, 0.2, 0.2], "value": [-0.1, -0.12, 0.21, 0.19]})
    found = bias_per_level(table, scale="interval")
    assert found.loc[found["statistic"] == "bias_percent", "value"].isna().all()
    negative = bias_per_level(table)
    percent = negative[negative["statistic"] == "bias_percent"]
    assert np.isfinite(percent["value"]).tolist() == [False, True]
