"""Limits of agreement, concordance and percent differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, TableError
from cordqa.stats.agreement import bland_altman, concordance, limits_by_mean, percent_differences
from cordqa.stats.agreement_core import (
    ccc_arrays,
    limits_arrays,
    limits_standard_error,
    regression_limits,
    replicated_limits,
    z_of_coverage,
)

# Bland JM, Altman DG. Lancet 1986;1:307-310, table: peak flow (l/min) of 17 people, two meters.
WRIGHT = [
    (494, 490), (395, 397), (516, 512), (434, 401), (476, 470), (557, 611), (413, 415), (442, 431),
    (650, 638), (433, 429), (417, 420), (656, 633), (267, 275), (478, 492), (178, 165),
    (423, 372), (427, 421),
]  # fmt: skip
MINI = [
    (512, 525), (430, 415), (520, 508), (428, 444), (500, 500), (600, 625), (364, 460), (380, 390),
    (658, 642), (445, 432), (432, 420), (626, 605), (260, 227), (477, 467), (259, 268),
    (350, 370), (451, 443),
]  # fmt: skip


def flow(runs=(1, 2)):
    rows = [
        {"subject": i, "method": name, "run": r, "value": float(pair[r - 1])}
        for name, pairs in (("wright", WRIGHT), ("mini", MINI))
        for i, pair in enumerate(pairs)
        for r in runs
    ]
    return pd.DataFrame(rows)


def values(table, column="value"):
    return table.set_index("statistic")[column]


# ------------------------------------------------------------------------------------- arrays


def test_peak_flow_limits_as_published():
    d = np.array([a[0] - b[0] for a, b in zip(WRIGHT, MINI, strict=True)], dtype=float)
    found = limits_arrays(d, z=2.0, interval="bland-altman-1986")
    assert round(float(found.bias), 1) == -2.1
    assert round(float(found.sd), 1) == 38.8
    assert (round(float(found.lower)), round(float(found.upper))) == (-80, 75)
    assert (round(float(found.bias_low), 1), round(float(found.bias_high), 1)) == (-22.0, 17.8)
    assert round(float(limits_standard_error(found.sd, 17, rule="1986")), 1) == 16.3
    # The paper's interval of the lower limit is -114.3 to -45.1 (2.12 standard errors).
    assert float(found.lower_low) == pytest.approx(-114.3, abs=0.3)
    assert float(found.lower_high) == pytest.approx(-45.1, abs=0.3)


def test_exact_interval_is_the_noncentral_t_of_scipy():
    from scipy import stats

    d = np.random.default_rng(0).normal(size=12)
    found = limits_arrays(d, level=0.9)
    unit = d.std(ddof=1) / np.sqrt(12)
    shift = 1.96 * np.sqrt(12)
    wanted = d.mean() + unit * stats.nct.ppf([0.05, 0.95], 11, shift)
    np.testing.assert_allclose([found.upper_low, found.upper_high], wanted, rtol=1e-8)
    np.testing.assert_allclose(found.bias - found.lower_high, found.upper_low - found.bias)


@pytest.mark.parametrize("n", [5, 20])
def test_exact_interval_covers(n):
    d = np.random.default_rng(n).normal(1.0, 2.0, (8000, n))
    found = limits_arrays(d)
    truth = 1.0 + 1.96 * 2.0
    assert np.mean((found.upper_low <= truth) & (truth <= found.upper_high)) == pytest.approx(0.95, abs=0.01)
    assert np.mean((found.sd_low <= 2.0) & (found.sd_high >= 2.0)) == pytest.approx(0.95, abs=0.01)


def test_nan_differences_are_left_out_and_counted():
    d = np.array([[1.0, 2.0, np.nan, 4.0], [np.nan, np.nan, np.nan, 1.0]])
    found = limits_arrays(d)
    assert found.n.tolist() == [3, 1]
    assert found.bias[0] == pytest.approx(7 / 3)
    assert np.isnan(found.sd[1])
    assert np.isnan(found.upper_high[1])


def test_constants_and_unknown_choices():
    assert z_of_coverage(0.95) == 1.96
    assert z_of_coverage(0.9) == pytest.approx(1.6449, abs=1e-4)
    with pytest.raises(ConfigError, match="coverage"):
        z_of_coverage(95)
    with pytest.raises(ConfigError, match="exact, approximate"):
        limits_arrays([1.0, 2.0], interval="carkeet")
    with pytest.raises(ConfigError, match="constant or varying"):
        replicated_limits([[1.0, 2.0]], [[1.0, 2.0]], true_value="fixed")
    with pytest.raises(ConfigError, match="as many of one method"):
        replicated_limits([[1.0, 2.0]], [[1.0]], true_value="varying")


def test_replicates_recover_the_sd_of_single_differences():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 5, (800, 20, 1))
    first = truth + rng.normal(size=(800, 20, 1)) + 2.0 * rng.normal(size=(800, 20, 3))
    second = truth + 1.5 * rng.normal(size=(800, 20, 2))
    found = replicated_limits(first, second)
    wanted = np.sqrt(1.0 + 4.0 + 2.25)
    assert np.sqrt(np.mean(found.sd**2)) == pytest.approx(wanted, rel=0.02)
    inside = (found.upper_low <= 1.96 * wanted) & (1.96 * wanted <= found.upper_high)
    assert 0.93 <= inside.mean() <= 0.975
    # Averaging first, as is often done, promises too much.
    assert limits_arrays(first.mean(-1) - second.mean(-1)).sd.mean() < 0.75 * wanted


def test_replicates_of_which_there_is_one_are_plain_limits():
    d = np.random.default_rng(2).normal(size=(2, 9, 1))
    found, plain = replicated_limits(d[0], d[1]), limits_arrays((d[0] - d[1])[:, 0])
    assert found.sd == pytest.approx(float(plain.sd))
    assert found.upper == pytest.approx(float(plain.upper))


def test_varying_truth_takes_pairs():
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 5, (400, 15, 4))
    bias = rng.normal(0, 1.0, (400, 15, 1))
    a = truth + bias + rng.normal(size=truth.shape)
    b = truth + rng.normal(size=truth.shape)
    found = replicated_limits(a, b, true_value="varying")
    assert np.sqrt(np.mean(found.sd**2)) == pytest.approx(np.sqrt(1.0 + 2.0), rel=0.03)


def test_varying_truth_pairs_replicates_by_their_number():
    rng = np.random.default_rng(8)
    rows = []
    for subject in range(30):
        for run in range(4):
            truth = rng.normal(0, 20)
            rows += [
                {"subject": subject, "run": run, "method": m, "value": 100 + truth + rng.normal()}
                for m in ("a", "b")
                if rng.random() < 0.8
            ]
    table = pd.DataFrame(rows)
    options = {"replicates": "components", "true_value": "varying", "nan_policy": "omit"}
    found = values(bland_altman(table, replicate="run", **options))
    assert found["sd_difference"] == pytest.approx(np.sqrt(2), rel=0.25)  # 28 if paired by position
    with pytest.raises(ConfigError, match="name the column"):
        bland_altman(table, **options)


def test_regression_limits_recover_lines():
    rng = np.random.default_rng(4)
    mean = rng.uniform(10, 100, 20_000)
    difference = 1.0 - 0.05 * mean + (0.5 + 0.03 * mean) * rng.normal(size=mean.size)
    fit = regression_limits(mean, difference)
    assert float(fit.bias.slope) == pytest.approx(-0.05, abs=0.002)
    assert float(fit.sd.slope) == pytest.approx(0.03, abs=0.002)
    (bias, low, high), lower, upper = fit.at(50.0)
    assert low <= bias <= high
    assert upper[0] - lower[0] == pytest.approx(2 * 1.96 * 2.0, rel=0.03)


def test_concordance_of_pairs():
    a, b = ([float(p[0]) for p in x] for x in (WRIGHT, MINI))
    found = ccc_arrays(a, b)
    assert (round(float(found.value), 2), round(float(found.r), 2)) == (0.94, 0.94)
    assert found.value == pytest.approx(float(found.r * found.bias_correction))
    assert found.low < found.value < found.high
    # One formula, the other way round.
    v, u = found.scale_shift, found.location_shift
    assert found.bias_correction == pytest.approx(float(2 / (v + 1 / v + u**2)))


def test_concordance_in_its_limits():
    x = np.arange(6.0)
    assert ccc_arrays(x, x).value == 1.0
    assert (ccc_arrays(x, x).low, ccc_arrays(x, x).high) == (1.0, 1.0)
    assert ccc_arrays(x, -x + 5).value == pytest.approx(-1.0)
    assert np.isnan(ccc_arrays(np.ones(5), np.ones(5)).value)
    assert ccc_arrays(x, x + 100).value < 0.01


# -------------------------------------------------------------------------------------- table


def test_table_of_peak_flow():
    found = bland_altman(flow((1,)))
    assert found["statistic"].tolist() == [
        "bias", "sd_difference", "loa_lower", "loa_upper", "proportional_bias", "spread_slope",
    ]  # fmt: skip
    assert values(found)["bias"] == pytest.approx(-2.1, abs=0.05)
    assert values(found)["loa_upper"] == pytest.approx(73.9, abs=0.05)
    assert (found[["first", "second"]].iloc[0]).tolist() == ["wright", "mini"]
    assert values(found, "interval_method")["loa_lower"] == "noncentral t"
    assert values(found, "n_subjects")["bias"] == 17


def test_order_of_methods_can_be_chosen():
    one = values(bland_altman(flow((1,)), methods=["mini", "wright"]))
    assert one["bias"] == pytest.approx(2.1, abs=0.05)
    with pytest.raises(TableError, match="not all in the table"):
        bland_altman(flow((1,)), methods=["mini", "wrong"])


def test_replicates_stop_unless_told_otherwise():
    with pytest.raises(TableError, match="several values of one method"):
        bland_altman(flow())
    single = values(bland_altman(flow(), replicates="components", replicate="run"))
    means = bland_altman(flow(), replicates="mean")
    assert single["sd_difference"] > values(means)["sd_difference"]
    assert (means["flags"][:4] == "replicates-averaged").all()
    with pytest.raises(ConfigError, match="raw differences"):
        bland_altman(flow(), replicates="components", differences="log")


def test_ratios_do_not_depend_on_the_unit():
    table = flow((1,))
    one = values(bland_altman(table, differences="log"))
    two = values(bland_altman(table.assign(value=table["value"] * 60), differences="log"))
    np.testing.assert_allclose(one.drop("spread_slope"), two.drop("spread_slope"), rtol=1e-9)
    assert one["loa_lower"] < one["bias"] < one["loa_upper"]
    assert 0.9 < one["bias"] < 1.1


def test_lonely_values_stop_or_are_counted():
    table = flow((1,)).drop(index=[0, 20])
    with pytest.raises(TableError, match="2 subjects have a value of one method only"):
        bland_altman(table)
    found = bland_altman(table, nan_policy="omit")
    assert found[["n_subjects", "n_excluded_subjects"]].iloc[0].tolist() == [15, 2]


def test_every_pair_of_three_scanners():
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "subject": np.repeat(range(8), 3),
            "scanner": list("ABC") * 8,
            "value": 100 + rng.normal(size=24) + np.tile([0.0, 5.0, 10.0], 8),
        }
    )
    found = percent_differences(table)
    pairs = found[found["statistic"] == "percent_difference"]
    assert pairs[["first", "second"]].to_numpy().tolist() == [["A", "B"], ["A", "C"], ["B", "C"]]
    np.testing.assert_allclose(pairs["value"], [-4.9, -9.5, -4.7], atol=1.0)
    assert (pairs["unit"] == "%").all()


@pytest.mark.parametrize("shift", ["interval", "zero", "near zero"])
def test_percent_is_refused_where_it_means_nothing(shift):
    table = flow((1,))
    scale = "ratio"
    if shift == "interval":
        scale = "interval"
    elif shift == "zero":
        table["value"] -= 400
    else:
        table["value"] = 1.0 + (table["value"] - 400) / 1000 * np.where(table["method"] == "mini", -4, 4)
        table["value"] = table["value"].abs() + 0.01
    found = percent_differences(table, scanner="method", scale=scale)
    assert found["value"].isna().all()
    assert (found["flags"] == "relative-refused").all()
    assert found["note"].str.contains("read the spread in units").all()


def test_limits_by_mean_table():
    found = limits_by_mean(flow((1,)), at=[300, 500])
    assert found["at"].unique().tolist() == [300.0, 500.0]
    assert len(limits_by_mean(flow((1,)))) == 9


def test_concordance_table():
    found = concordance(flow((1,)))
    assert values(found)["ccc"] == pytest.approx(0.943, abs=0.0005)
    assert (round(values(found, "low")["ccc"], 2), round(values(found, "high")["ccc"], 2)) == (0.85, 0.98)


def test_one_method_is_an_error():
    table = flow((1,))
    with pytest.raises(TableError, match="needs two methods"):
        bland_altman(table[table["method"] == "mini"])


def test_groups_without_both_methods_do_not_spoil_others():
    table = pd.concat(
        [flow((1,)).assign(region="p"), flow((1,)).query("method == 'mini'").assign(region="q")]
    )
    found = bland_altman(table.reset_index(drop=True), by="region")
    assert found["region"].unique().tolist() == ["p", "q"]
    lonely = found[found["region"] == "q"].iloc[0]
    assert (lonely["flags"], lonely["n_subjects"]) == ("not-estimable", 0)
    assert "found mini" in lonely["note"]
    assert found.loc[found["region"] == "p", "value"].notna().all()
