"""Spine-generic's definition, and the estimates beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cordqa.errors import TableError
from cordqa.stats.definitions import site_spread, spine_generic_cov, spine_generic_tests


def study(rng, sites=8, people=6, between=2.0, within=5.0, vendor="X"):
    rows = []
    for site in range(sites):
        shift = between * rng.normal()
        rows += [
            {
                "subject": f"{vendor}{site}-{i}",
                "site": f"{vendor}{site}",
                "vendor": vendor,
                "value": 70 + shift + within * rng.normal(),
            }
            for i in range(people)
        ]
    return pd.DataFrame(rows)


def wide(table):
    return table.set_index("statistic")["value"]


def test_definition_by_hand():
    table = pd.DataFrame(
        {
            "subject": list("abcde"),
            "site": list("ppqqq"),
            "vendor": "X",
            "value": [9.0, 11.0, 18.0, 20.0, 22.0],
        }
    )
    found = wide(spine_generic_cov(table))
    # SD dividing by n: 1 and sqrt(8/3); means 10 and 20.
    assert found["intra_site_COV"] == pytest.approx(100 * (1 / 10 + np.sqrt(8 / 3) / 20) / 2)
    assert found["inter_site_COV"] == pytest.approx(100 * 5 / 15)
    assert found["within_site_CV"] == pytest.approx(100 * np.sqrt(10 / 3) / 15)
    assert found["vendor_mean"] == 15


def test_better_estimates_recover_what_the_definition_misses():
    rng = np.random.default_rng(0)
    published, better = [], []
    for _ in range(300):
        part = study(rng, between=0.0, people=5)
        found = site_spread(part["value"].to_numpy(), part["site"].to_numpy())
        published.append((found.intra, found.inter))
        better.append((found.within, found.between_variance))
    intra, inter = np.mean(published, axis=0)
    within, between = np.mean(better, axis=0)
    assert intra < 0.87 * 5 / 70  # divides by n, and averages SD
    assert inter > 0.8 * 5 / 70 / np.sqrt(5)  # although the sites do not differ at all
    assert within == pytest.approx(5.0, rel=0.02)
    assert between == pytest.approx(0.0, abs=0.4)


def test_intervals_cover_with_sites_of_unequal_size():
    rng = np.random.default_rng(1)
    sizes = [2, 3, 5, 5, 6, 8, 4, 7]
    sites = np.repeat(np.arange(8), sizes)
    hits = np.zeros(2)
    for _ in range(600):
        values = 70 + 3 * rng.normal(size=8)[sites] + 5 * rng.normal(size=sites.size)
        found = site_spread(values, sites)
        hits += [
            found.within_bounds.low <= 5 <= found.within_bounds.high,
            found.between_bounds.low <= 3 <= found.between_bounds.high,
        ]
    assert (hits / 600 > 0.925).all()
    assert (hits / 600 < 0.98).all()


def test_table_of_vendors():
    rng = np.random.default_rng(2)
    table = pd.concat([study(rng, vendor=v) for v in "XYZ"], ignore_index=True).assign(unit="mm2")
    found = spine_generic_cov(table, unit="unit")
    assert found["vendor"].unique().tolist() == ["X", "Y", "Z"]
    assert (found["n_sites"] == 8).all()
    marked = found.loc[found["flags"].str.contains("published-definition"), "statistic"]
    assert set(marked) == {"intra_site_COV", "inter_site_COV", "vendor_mean"}
    assert found.loc[found["statistic"] == "vendor_mean", "unit"].unique().tolist() == ["mm2"]
    assert "not repeatability" in found["note"][0]
    everything = spine_generic_cov(table, vendor=None)
    assert everything["n_sites"].unique().tolist() == [24]


def test_one_site_and_single_people():
    one = spine_generic_cov(study(np.random.default_rng(3), sites=1))
    assert np.isnan(wide(one)["inter_site_COV"])
    assert np.isnan(wide(one)["between_site_CV"])
    assert np.isfinite(wide(one)["within_site_CV"])
    alone = spine_generic_cov(study(np.random.default_rng(4), people=1))
    assert wide(alone)["intra_site_COV"] == 0.0
    assert "one subject counts as without spread" in alone["note"][0]
    assert np.isnan(wide(alone)["within_site_CV"])


def test_negative_component_is_said():
    table = pd.DataFrame(
        {"subject": range(12), "site": np.repeat(range(4), 3), "vendor": "X", "value": [70.0, 75.0, 80.0] * 4}
    )
    found = spine_generic_cov(table).set_index("statistic")
    assert found.loc["between_site_CV", "value"] == 0.0
    assert "negative-component-truncated" in found.loc["between_site_CV", "flags"]
    assert "shown as 0" in found.loc["between_site_CV", "note"]
    low = site_spread(np.tile([1.0, 2.0, 3.0], 4), np.repeat(np.arange(4), 3))
    assert low.between_variance < 0
    assert low.between == 0.0


def test_a_person_twice_is_an_error():
    table = study(np.random.default_rng(6))
    twice = pd.concat([table, table.iloc[[0]].assign(value=1.0)], ignore_index=True)
    with pytest.raises(TableError, match="same keys"):
        spine_generic_cov(twice)


def test_unusable_groups_are_rows_too():
    table = pd.concat([study(np.random.default_rng(7), vendor=v) for v in "XY"], ignore_index=True).astype(
        {"value": object}
    )
    table.loc[table["vendor"] == "Y", "value"] = "?"
    found = spine_generic_cov(table, nan_policy="omit")
    lost = found[found["vendor"] == "Y"]
    assert lost["value"].isna().all()
    assert (lost["n_excluded"] == 48).all()


def test_interval_scale_has_no_cov():
    table = study(np.random.default_rng(8)).assign(value=lambda t: t["value"] - 70)
    found = spine_generic_cov(table, scale="interval")
    assert found.loc[found["unit"] == "%", "value"].isna().all()
    assert "true zero" in found["note"][0]


def test_tests_equal_scipy():
    rng = np.random.default_rng(9)
    table = pd.concat([study(rng, vendor=v, sites=5) for v in "XYZ"], ignore_index=True)
    found = spine_generic_tests(table)
    x = table[table["vendor"] == "X"]
    wanted = stats.f_oneway(*[g["value"] for _, g in x.groupby("site")])
    row = found[(found["statistic"] == "anova_sites") & (found["vendor"] == "X")].iloc[0]
    assert (row["value"], row["p"]) == (pytest.approx(wanted.statistic), pytest.approx(wanted.pvalue))
    means = [g.groupby("site")["value"].mean() for _, g in table.groupby("vendor")]
    wanted = stats.f_oneway(*means)
    row = found[found["statistic"] == "anova_vendors"].iloc[0]
    assert row["p"] == pytest.approx(wanted.pvalue)
    tukey = found[found["statistic"] == "tukey"]
    assert tukey[["vendor", "second"]].to_numpy().tolist() == [["X", "Y"], ["X", "Z"], ["Y", "Z"]]
    assert (tukey["low"] < tukey["value"]).all()
