"""Relations between measures: coverage under clustering, choice of the curve, no extrapolation."""

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.agreement import percent_differences
from cordqa.stats.regional import absolute_percent_differences, summarise_regions
from cordqa.stats.relation import calibrate_measures, pair_measures, relate_measures
from cordqa.stats.relation_core import clustered_correlation, fit_calibration, within_correlation


def correlated(rng, n, k, *, between=0.6, within=0.4, share=0.5):
    """Subjects with correlated effects, and correlated regions within them."""

    def pairs(rho, *shape):
        root = np.linalg.cholesky([[1, rho], [rho, 1]])
        return rng.normal(size=(*shape, 2)) @ root.T

    values = np.sqrt(share) * pairs(between, n)[:, None] + np.sqrt(1 - share) * pairs(within, n, k)
    return values.reshape(-1, 2), np.repeat(np.arange(n), k), share * between + (1 - share) * within


def test_intervals_hold_their_level_although_regions_of_a_subject_belong_together():
    rng = np.random.default_rng(0)
    hits, within, naive = [], [], []
    for _ in range(300):
        values, who, rho = correlated(rng, 15, 10)
        found = clustered_correlation(*values.T, who)
        hits.append(found.low <= rho <= found.high)
        repeated = within_correlation(*values.T, who)
        within.append(repeated.low <= 0.4 <= repeated.high)
        z = np.arctanh(found.value)
        naive.append(abs(z - np.arctanh(rho)) <= 1.96 / np.sqrt(150 - 3))
    assert np.mean(hits) > 0.91
    assert np.mean(within) > 0.91
    assert np.mean(naive) < 0.87


def test_within_subjects_the_sign_may_be_another():
    rng = np.random.default_rng(1)
    level = rng.normal(size=12)
    x = (level[:, None] + 0.2 * rng.normal(size=(12, 8))).ravel()
    y = (2 * level[:, None] - (x.reshape(12, 8) - level[:, None])).ravel() + 0.02 * rng.normal(size=96)
    who = np.repeat(np.arange(12), 8)
    assert clustered_correlation(x, y, who).low > 0
    assert within_correlation(x, y, who).high < -0.5


def test_order_of_subjects_and_unit_do_not_matter():
    values, who, _ = correlated(np.random.default_rng(2), 8, 6)
    order = np.random.default_rng(3).permutation(who.size)
    first = clustered_correlation(*values.T, who)
    other = clustered_correlation(1000 * values[order, 0] + 7, values[order, 1], who[order])
    assert other.value == pytest.approx(first.value)
    assert other.low == pytest.approx(first.low)


@pytest.mark.parametrize(("curvature", "order"), [(0.0, 1), (0.08, 2)])
def test_the_planted_curve_is_chosen_and_recovered(curvature, order):
    rng = np.random.default_rng(4)
    chosen = []
    for _ in range(40):
        x = rng.uniform(1, 6, 120)
        y = 2 + 1.5 * x + curvature * x**2 + 0.2 * rng.normal(size=120)
        fit = fit_calibration(x, y, np.repeat(np.arange(20), 6))
        chosen.append(fit.order == order)
    assert np.mean(chosen) > 0.8
    value, error, reason = fit.convert(3.0)
    assert float(value) == pytest.approx(2 + 4.5 + 9 * curvature, abs=4 * float(error))
    assert str(reason) == ""
    assert ("AICc" in fit.decision) or fit.order == 1


def test_what_subjects_have_in_common_does_not_bend_a_line():
    rng = np.random.default_rng(8)
    who = np.repeat(np.arange(10), 30)
    bent = []
    for _ in range(60):
        x = 0.8 * rng.normal(size=10)[who] + 0.5 * rng.normal(size=300)
        y = x + 0.5 * rng.normal(size=10)[who] + 0.3 * rng.normal(size=300)
        bent.append(fit_calibration(x, y, who).order == 2)
    # With all pairs taken as independent it is about one half.
    assert np.mean(bent) < 0.15


def test_rounding_bends_no_line():
    x = np.geomspace(0.1, 7, 40)
    fit = fit_calibration(x, 3.3 * x + 0.7, np.repeat(np.arange(10), 4))
    assert (fit.order, fit.r2) == (1, pytest.approx(1))


def test_nothing_is_extrapolated():
    x = np.linspace(2, 5, 30)
    fit = fit_calibration(x, 3 * x, np.repeat(np.arange(10), 3))
    values, errors, reasons = fit.convert([1.9, 2.0, 5.0, 5.1, np.nan])
    assert np.isnan(values[[0, 3, 4]]).all()
    assert np.isnan(errors[[0, 3, 4]]).all()
    np.testing.assert_allclose(values[1:3], [6, 15], rtol=1e-9)
    assert reasons.tolist() == [
        "outside the range of the calibration", "", "", "outside the range of the calibration",
        "no value to convert",
    ]  # fmt: skip


def test_the_error_of_the_curve_is_that_of_repeated_studies():
    rng = np.random.default_rng(5)
    x = np.tile(np.linspace(1, 6, 8), 15)
    who = np.repeat(np.arange(15), 8)
    values, stated = [], []
    for _ in range(200):
        y = 1 + 2 * x + 0.6 * rng.normal(size=15)[who] + 0.2 * rng.normal(size=x.size)
        value, error, _ = fit_calibration(x, y, who).convert(4.0)
        values.append(float(value))
        stated.append(float(error))
    assert np.mean(stated) == pytest.approx(np.std(values), rel=0.15)


def tidy_table(n=10, k=5):
    rng = np.random.default_rng(6)
    rows = []
    for s in range(n):
        for r in range(k):
            a = 2 + r + 0.3 * rng.normal()
            tissue = "WM" if r % 2 else "GM"
            rows.append({"subject": s, "region": r, "tissue": tissue, "quantity": "A", "value": a})
            rows.append(
                {"subject": s, "region": r, "tissue": tissue, "quantity": "B", "value": 3 * a + rng.normal()}
            )
    return pd.DataFrame(rows)


def test_tables_by_tissue_class():
    table = relate_measures(tidy_table(), "A", "B", by="tissue")
    assert set(table["tissue"]) == {"WM", "GM"}
    rows = table[table["tissue"] == "WM"].set_index("statistic")
    assert rows.loc["r_pooled", "n_subjects"] == 10
    assert rows.loc["calibration_order", "note"].startswith("linear")
    assert rows.loc["calibration_low", "value"] < rows.loc["calibration_high", "value"]
    fit = calibrate_measures(tidy_table(), "A", "B")
    assert fit.coefficients[1] == pytest.approx(3, abs=0.5)


def test_what_cannot_be_related_says_why():
    table = tidy_table()
    with pytest.raises(TableError, match="not in the table"):
        pair_measures(table, "A", "C")
    with pytest.raises(TableError, match="to itself"):
        pair_measures(table, "A", "A")
    apart = table[(table["quantity"] == "A") == (table["region"] < 2)]
    with pytest.raises(TableError, match="no place was measured by both"):
        pair_measures(apart, "A", "B")
    flat = clustered_correlation([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 3])
    assert np.isnan(flat.value)
    assert flat.note
    few = clustered_correlation([1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    assert np.isnan(few.low)
    assert "fewer than four subjects" in few.note
    with pytest.raises(InputError, match="six pairs"):
        fit_calibration([1.0, 2.0], [1.0, 2.0], [0, 1])


def test_regions_are_counted():
    percent = pd.DataFrame(
        {
            "quantity": "volume",
            "region": [f"R{n}" for n in range(6)],
            "first": "A",
            "second": "B",
            "statistic": "absolute_percent_difference",
            "value": [1.0, 3.0, 12.0, 5.0, 20.0, np.nan],
        }
    )
    icc = pd.DataFrame(
        {
            "quantity": "volume",
            "region": [f"R{n}" for n in range(6)],
            "statistic": "ICC(C,1)",
            "value": [0.9, 0.8, 0.7, 0.6, 0.5, 0.95],
        }
    )
    found = summarise_regions(percent).set_index("statistic")
    assert found.loc["regions below 10 %", "value"] == pytest.approx(60)
    assert found.loc["mean absolute percent difference", "value"] == pytest.approx(8.2)
    assert found.loc["regions below 10 %", "n_missing"] == 1
    high = summarise_regions(icc=icc).set_index("statistic")
    assert high.loc["regions with ICC(C,1) of at least 0.75", "value"] == pytest.approx(50)
    assert not len(summarise_regions(percent.head(4)))
    with pytest.raises(ConfigError):
        summarise_regions(percent, limit_percent=-1)


def test_scatter_without_bias_is_a_difference_of_persons_and_none_of_means():
    rng = np.random.default_rng(9)
    rows = [
        {"region": f"R{r}", "subject": s, "visit": v, "quantity": "volume", "value": 5e3 * np.exp(x)}
        for r in range(8)
        for s in range(40)
        for v, x in enumerate(0.1 * rng.normal(size=2))
    ]
    options = {"scanner": "visit", "by": ["quantity", "region"]}
    apart = absolute_percent_differences(pd.DataFrame(rows), **options)
    signed = percent_differences(pd.DataFrame(rows), **options)
    # The mean of |x - y| of two normal values is 2 sd / sqrt(pi).
    assert (apart["value"] - 20 / np.sqrt(np.pi)).abs().max() < 4
    assert ((apart["low"] < apart["value"]) & (apart["value"] < apart["high"])).all()
    found = summarise_regions(pd.concat([apart, signed])).set_index("statistic")["value"]
    assert found["mean absolute percent difference"] == pytest.approx(apart["value"].mean())
    assert found["regions below 10 %"] < 50
    assert found["regions with |percent bias| below 10 %"] == 100


def test_values_that_are_not_positive_have_no_percentage():
    rows = pd.DataFrame({"subject": [1, 1, 2, 2], "scanner": ["A", "B"] * 2, "value": [1.0, 0.0, 2.0, 3.0]})
    found = absolute_percent_differences(rows).iloc[0]
    assert np.isnan(found["value"])
    assert "not positive" in found["note"]
    one = absolute_percent_differences(rows[rows["subject"] == 2]).iloc[0]
    assert (one["value"], np.isnan(one["high"])) == (pytest.approx(40), True)
