"""Other programs as oracles: pingouin, statsmodels, scipy."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cordqa.stats.agreement_core import ccc_arrays
from cordqa.stats.icc_core import icc_arrays
from cordqa.stats.linearity import linearity
from cordqa.stats.linearity_core import lack_of_fit, ols_arrays, polynomial_terms, robust_line
from cordqa.stats.multiplicity import false_discovery_rate
from cordqa.stats.repeatability_core import repeatability_arrays
from cordqa.stats.reproducibility_core import crossed_squares


def crossed(seed, n, k, m=1):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, k, m)) + 2 * rng.normal(size=(n, 1, 1)) + rng.normal(size=(1, k, 1))
    return y if m > 1 else y[..., 0]


@pytest.mark.parametrize(("n", "k"), [(5, 2), (8, 3), (20, 6), (40, 4)])
def test_icc_equals_pingouin(n, k):
    pingouin = pytest.importorskip("pingouin")
    values = crossed(n, n, k)
    index = np.indices(values.shape).reshape(2, -1)
    table = pd.DataFrame({"subject": index[0], "rater": index[1], "value": values.ravel()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pingouin's own
        oracle = pingouin.intraclass_corr(table, targets="subject", raters="rater", ratings="value")
    found = icc_arrays(values)
    interval = np.array(oracle[next(c for c in oracle.columns if c.startswith("CI95"))].tolist())
    np.testing.assert_allclose(found.value, oracle["ICC"], rtol=1e-8)
    np.testing.assert_allclose(found.F, oracle["F"], rtol=1e-8)
    np.testing.assert_allclose(found.df2, oracle["df2"])
    np.testing.assert_allclose(found.p, oracle["pval"], rtol=1e-6)
    # pingouin rounds its bounds to two digits in some versions.
    digits = 0.0051 if np.allclose(interval, np.round(interval, 2)) else 1e-7
    np.testing.assert_allclose(np.stack([found.low, found.high], axis=1), interval, atol=digits)


def test_least_squares_equals_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    x = rng.uniform(10, 2000, 30)
    y = 5 + 1.02 * x + rng.normal(0, 20, 30)
    oracle = sm.OLS(y, sm.add_constant(x)).fit()
    fit = ols_arrays(x, y)
    np.testing.assert_allclose([fit.intercept, fit.slope], oracle.params, rtol=1e-10)
    np.testing.assert_allclose([fit.intercept_se, fit.slope_se], oracle.bse, rtol=1e-10)
    np.testing.assert_allclose(fit.interval("slope"), oracle.conf_int()[1], rtol=1e-10)
    assert fit.r2 == pytest.approx(oracle.rsquared)
    curve = sm.OLS(y, np.vander(x, 4, increasing=True)).fit()
    found = polynomial_terms(x, y, order=3)
    assert found.value == pytest.approx(curve.params[3], rel=1e-6)
    assert found.p == pytest.approx(curve.pvalues[3], rel=1e-6)


def test_robust_errors_equal_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    x = np.tile(np.linspace(1, 10, 12), 5)
    clusters = np.repeat(np.arange(5), 12)
    y = x * (1 + 0.1 * rng.normal(size=5))[clusters] + rng.normal(size=60)
    model = sm.OLS(y, sm.add_constant(x)).fit()
    hc2 = robust_line(x, y)[1]
    half = float(hc2.high - hc2.value) / stats.t.ppf(0.975, float(hc2.df))
    assert half == pytest.approx(model.get_robustcov_results("HC2").bse[1], rel=1e-9)
    # CR2 is not in statsmodels; it lies a little above CR0 and near CR1.
    cr1 = model.get_robustcov_results("cluster", groups=clusters).bse[1]
    cr2 = robust_line(x, y, clusters=clusters)[1]
    half = float(cr2.high - cr2.value) / stats.t.ppf(0.975, float(cr2.df))
    assert half == pytest.approx(cr1, rel=0.05)


def test_cluster_robust_by_an_independent_route():
    # CR2 and its df written out with the full hat matrix, as in Pustejovsky and Tipton 2018.
    rng = np.random.default_rng(2)
    sizes = [3, 8, 5, 6]
    clusters = np.repeat(np.arange(4), sizes)
    x, y = rng.uniform(0, 5, clusters.size), rng.normal(size=clusters.size)
    design = np.column_stack([np.ones_like(x), x])
    bread = np.linalg.inv(design.T @ design)
    annihilator = np.eye(x.size) - design @ bread @ design.T
    residual = annihilator @ y
    columns, meat = [], 0.0
    for g in range(4):
        rows = clusters == g
        block = annihilator[np.ix_(rows, rows)]
        values, vectors = np.linalg.eigh(block)
        root = vectors @ np.diag(np.where(values > 1e-9, values**-0.5, 0)) @ vectors.T
        weight = bread[1] @ design[rows].T @ root
        meat += (weight @ residual[rows]) ** 2
        columns.append(annihilator[:, rows] @ weight)
    gram = np.array([[a @ b for a in columns] for b in columns])
    df = np.trace(gram) ** 2 / np.sum(gram**2)
    found = robust_line(x, y, clusters=clusters)[1]
    assert found.df == pytest.approx(df, rel=1e-8)
    assert float(found.high - found.value) == pytest.approx(np.sqrt(meat) * stats.t.ppf(0.975, df), rel=1e-8)


def test_correlation_and_p_values_equal_scipy():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 25))
    assert ccc_arrays(x, y).r == pytest.approx(stats.pearsonr(x, y).statistic)
    table = pd.DataFrame({"reference": x, "value": y})
    oracle = stats.linregress(x, y)
    found = linearity(table).set_index("statistic")
    assert found.loc["slope", "value"] == pytest.approx(oracle.slope)
    assert found.loc["r2", "value"] == pytest.approx(oracle.rvalue**2)


def test_lack_of_fit_equals_two_nested_models():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(4)
    x = np.repeat([1.0, 2.0, 4.0, 8.0], 4)
    y = x + 0.05 * x**2 + rng.normal(size=16)
    line = sm.OLS(y, sm.add_constant(x)).fit()
    full = sm.OLS(y, (x[:, None] == np.unique(x)).astype(float)).fit()
    f, p, df = full.compare_f_test(line)
    found = lack_of_fit(x, y)
    assert (found[0], found[3]) == (pytest.approx(f), pytest.approx(p))
    assert found[1] == df


def test_false_discovery_rate_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(5).uniform(size=50) ** 2
    for method in ("bh", "by"):
        oracle = multitest.multipletests(p, method=f"fdr_{method}")[1]
        np.testing.assert_allclose(false_discovery_rate(p, method=method), oracle)


def test_mean_squares_equal_statsmodels_anova():
    formula = pytest.importorskip("statsmodels.formula.api")
    anova_lm = pytest.importorskip("statsmodels.stats.anova").anova_lm
    values = crossed(6, 6, 3, 2)
    index = np.indices(values.shape).reshape(3, -1)
    table = pd.DataFrame({"s": index[0], "c": index[1], "y": values.ravel()})
    oracle = anova_lm(formula.ols("y ~ C(s) * C(c)", table).fit())["mean_sq"]
    found = crossed_squares(values)
    np.testing.assert_allclose(
        [found.subject, found.scanner, found.interaction, found.error],
        oracle[["C(s)", "C(c)", "C(s):C(c)", "Residual"]],
        rtol=1e-9,
    )


def test_pooled_variance_equals_one_way_anova():
    rng = np.random.default_rng(7)
    groups = [rng.normal(50, 2, size) for size in (2, 5, 3, 1, 4)]
    padded = np.full((5, 5), np.nan)
    for row, group in zip(padded, groups, strict=True):
        row[: group.size] = group
    pooled = sum(g.var() * g.size for g in groups) / (15 - 5)
    assert repeatability_arrays(padded).wsd ** 2 == pytest.approx(pooled)
