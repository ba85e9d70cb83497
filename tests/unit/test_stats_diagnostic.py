"""ROC areas, thresholds, combinations and published percentages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, EmptyInputError, FitError, InputError, TableError
from cordqa.stats.diagnostic import combined_auc, compare_auc, roc_auc, roc_points, spread_markers
from cordqa.stats.logistic import cross_validated_auc, fit_logistic
from cordqa.stats.proportions import check_granularity, proportion_interval
from cordqa.stats.roc import auc_interval, bootstrap_youden, roc_areas, roc_curve, youden_index


def cohort(n_cases=40, n_controls=30, seed=0, shift=1.0):
    generator = np.random.default_rng(seed)
    case = np.arange(n_cases + n_controls) < n_cases
    base = generator.normal(0, 1, case.size)
    return pd.DataFrame(
        {
            "subject": [f"p{i}" for i in range(case.size)],
            "diagnosis": np.where(case, "ALS", "control"),
            "FA": 0.7 - 0.03 * (base + shift * case) + generator.normal(0, 0.01, case.size),
            "MK": 1.0 + 0.1 * (generator.normal(0, 1, case.size) + 0.5 * shift * case),
            "noise": generator.normal(0, 1, case.size),
        }
    )


def get(table, statistic, column="value"):
    rows = table.loc[table["statistic"] == statistic, column]
    assert len(rows) == 1
    return rows.iloc[0]


def brute_force(scores, case):
    """Area and DeLong covariance from all pairs, written out."""
    x, y = scores[:, case], scores[:, ~case]
    psi = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    area = psi.mean(axis=(1, 2))
    covariance = np.cov(psi.mean(axis=2), ddof=1) / x.shape[1] + np.cov(psi.mean(axis=1), ddof=1) / y.shape[1]
    return area, covariance


@pytest.mark.parametrize("ties", [False, True])
def test_areas_and_covariance_equal_all_pairs(ties):
    generator = np.random.default_rng(1)
    case = generator.random(60) < 0.4
    scores = generator.normal(0, 1, (3, 60)) + case * np.array([[0.0], [1.0], [2.0]])
    if ties:
        scores = np.round(scores)
    areas = roc_areas(scores, case)
    area, covariance = brute_force(scores, case)
    assert areas.area == pytest.approx(area, abs=1e-14)
    assert areas.covariance == pytest.approx(covariance, abs=1e-14)


def test_area_by_hand():
    # Cases 3, 5; controls 1, 3, 4: wins 1 + .5 + 0 and 3, of 6 pairs.
    areas = roc_areas(np.array([3.0, 5, 1, 3, 4]), np.array([True, True, False, False, False]))
    assert areas.area[0] == pytest.approx(4.5 / 6)


def test_monotone_change_and_swapping_groups():
    frame = cohort()
    case = (frame["diagnosis"] == "ALS").to_numpy()
    marker = frame["MK"].to_numpy()
    plain = roc_areas(marker, case)
    assert roc_areas(np.exp(3 * marker), case).area == pytest.approx(plain.area)
    assert roc_areas(-marker, ~case).area == pytest.approx(plain.area)
    assert roc_areas(marker, ~case).area == pytest.approx(1 - plain.area)


def test_clusters_of_one_change_nothing_and_copies_do_not_narrow():
    frame = cohort()
    case = (frame["diagnosis"] == "ALS").to_numpy()
    marker = frame["MK"].to_numpy()
    plain = roc_areas(marker, case)
    single = roc_areas(marker, case, clusters=np.arange(case.size))
    assert single.covariance == pytest.approx(plain.covariance, rel=1e-12)
    twice = roc_areas(np.tile(marker, 2), np.tile(case, 2), clusters=np.tile(np.arange(case.size), 2))
    assert twice.area == pytest.approx(plain.area)
    assert twice.covariance == pytest.approx(plain.covariance, rel=1e-12)


def test_interval_stays_within_0_and_1_and_perfect_separation_is_not_certain():
    bounds, names = auc_interval(np.array([0.98, 1.0, 0.0, 0.5]), np.array([4e-4, 0.0, 0.0, 9e-3]), 15, 12)
    assert np.all((bounds.low >= 0) & (bounds.high <= 1))
    assert bounds.low[1] < 0.95
    assert bounds.high[1] == 1.0
    assert bounds.low[2] == 0.0
    assert bounds.high[2] == pytest.approx(1 - bounds.low[1], abs=1e-6)
    assert names == ["DeLong on the logit", *["score (Newcombe, method 5)"] * 2, "DeLong on the logit"]
    wald, _ = auc_interval(np.array([0.7]), np.array([0.0025]), 50, 50, method="wald")
    assert wald.low[0] == pytest.approx(0.7 - 1.959964 * 0.05, abs=1e-6)


def test_interval_covers_the_truth():
    from statistics import NormalDist

    generator = np.random.default_rng(3)
    truth, covered = 0.9, 0
    shift = np.sqrt(2) * NormalDist().inv_cdf(truth)
    case = np.arange(57) < 35
    for _ in range(2500):
        areas = roc_areas(generator.normal(0, 1, 57) + shift * case, case)
        bounds, _ = auc_interval(areas.area, np.diag(areas.covariance), 35, 22)
        covered += bounds.low[0] <= truth <= bounds.high[0]
    assert 0.93 <= covered / 2500 <= 0.97


def test_table_finds_direction_and_threshold():
    frame = cohort(shift=2.5)
    table = roc_auc(frame, "FA", outcome="diagnosis", case="ALS")
    assert get(table, "AUC") > 0.85
    assert "direction-from-data" in get(table, "AUC", "flags")
    assert "low values speak for a case" in get(table, "AUC", "note")
    cut = get(table, "threshold")
    case = frame["diagnosis"] == "ALS"
    assert get(table, "sensitivity") == pytest.approx(np.mean(frame.loc[case, "FA"] < cut))
    assert get(table, "specificity") == pytest.approx(np.mean(frame.loc[~case, "FA"] > cut))
    assert get(table, "Youden J") == pytest.approx(get(table, "sensitivity") + get(table, "specificity") - 1)
    for name in ("threshold", "sensitivity", "specificity", "Youden J"):
        assert get(table, name, "low") <= get(table, name) <= get(table, name, "high")
    wrong_way = roc_auc(frame, "FA", outcome="diagnosis", case="ALS", positive="high")
    assert get(wrong_way, "AUC") == pytest.approx(1 - get(table, "AUC"))
    assert get(table, "AUC", "n_cases") == 40


def test_markers_of_a_long_table_and_repeated_people():
    frame = cohort()
    long = frame.melt(["subject", "diagnosis"], ["FA", "MK"], var_name="quantity", value_name="value")
    table = roc_auc(long, "value", outcome="diagnosis", case="ALS", by="quantity", subject="subject")
    assert list(dict.fromkeys(table["quantity"])) == ["FA", "MK"]
    both = long.assign(side="left")
    twice = pd.concat([both, both.assign(side="right")])
    repeated = roc_auc(twice, "value", outcome="diagnosis", case="ALS", by="quantity", subject="subject")
    assert "repeated-people" in repeated["flags"].iloc[0]
    columns = ["value", "low", "high"]
    first = table.loc[table["statistic"] == "AUC", columns].to_numpy(dtype=float)
    second = repeated.loc[repeated["statistic"] == "AUC", columns].to_numpy(dtype=float)
    assert second == pytest.approx(first)
    assert repeated["n_people"].iloc[0] == 70


def test_a_marker_without_controls_does_not_stop_the_others():
    frame = cohort()
    long = frame.melt(["subject", "diagnosis"], ["FA", "MK"], var_name="quantity", value_name="value")
    long = long.loc[~((long["quantity"] == "FA") & (long["diagnosis"] == "control"))]
    table = roc_auc(long, "value", outcome="diagnosis", case="ALS", by="quantity")
    fa = table.loc[table["quantity"] == "FA"]
    assert np.isnan(fa["value"]).all()
    assert "0 controls" in fa["note"].iloc[0]
    assert np.isfinite(table.loc[table["quantity"] == "MK", "value"]).all()


def test_paired_comparison_by_hand_and_its_sign():
    frame = cohort()
    case = (frame["diagnosis"] == "ALS").to_numpy()
    scores = np.stack([-frame["FA"], frame["MK"]])
    area, covariance = brute_force(scores, case)
    expected = (area[0] - area[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    table = compare_auc(frame, ["FA", "MK"], outcome="diagnosis", case="ALS")
    assert table["z"].iloc[0] == pytest.approx(expected)
    assert table["value"].iloc[0] == pytest.approx(area[0] - area[1])
    assert 0 < table["p"].iloc[0] < 1
    same = compare_auc(frame.assign(copy=frame["MK"]), ["MK", "copy"], outcome="diagnosis", case="ALS")
    assert same["value"].iloc[0] == 0.0
    with pytest.raises(ConfigError, match="two markers"):
        compare_auc(frame, ["MK"], outcome="diagnosis", case="ALS")


def test_logistic_regression_equals_statsmodels():
    import statsmodels.api as sm

    frame = cohort()
    case = (frame["diagnosis"] == "ALS").to_numpy()
    markers = frame[["FA", "MK", "noise"]].to_numpy()
    oracle = sm.Logit(case.astype(float), sm.add_constant(markers)).fit(disp=0, method="newton", tol=1e-12)
    fit = fit_logistic(markers, case)
    assert fit.converged.all()
    assert fit.coefficients[0] == pytest.approx(oracle.params, rel=1e-6)
    half = np.arange(case.size) % 2 == 0
    subset = fit_logistic(markers, case, used=half[None])
    alone = fit_logistic(markers[half], case[half])
    assert subset.coefficients == pytest.approx(alone.coefficients, rel=1e-6)


def test_separated_markers_are_said_and_a_ridge_tames_them():
    case = np.arange(20) < 10
    marker = np.where(case, 1.0, -1.0)[:, None] + np.linspace(0, 0.1, 20)[:, None]
    free = fit_logistic(marker, case)
    assert not free.converged[0]
    assert roc_areas(free.scores, case).area[0] == 1.0
    assert np.abs(fit_logistic(marker, case, ridge=1.0).coefficients).max() < 20


def test_bad_markers_for_logistic_regression():
    case = np.arange(6) < 3
    with pytest.raises(InputError, match="same value"):
        fit_logistic(np.ones((6, 1)), case)
    with pytest.raises(InputError, match="dependent"):
        fit_logistic(np.column_stack([np.arange(6), 2 * np.arange(6)]), case)
    with pytest.raises(InputError, match="ridge"):
        fit_logistic(np.arange(6.0)[:, None], case, ridge=-1)
    with pytest.raises(InputError, match="finite"):
        fit_logistic(np.full((6, 1), np.nan), case)
    with pytest.raises(InputError, match="two cases"):
        cross_validated_auc(np.arange(6.0)[:, None], np.arange(6) < 1)


def test_cross_validation_shows_the_optimism_of_worthless_markers():
    generator = np.random.default_rng(0)
    case = np.arange(57) < 35
    results = [
        cross_validated_auc(generator.normal(0, 1, (57, 5)), case, n_repeats=4, seed=i) for i in range(60)
    ]
    apparent = np.mean([r.apparent.area[0] for r in results])
    honest = np.mean([r.area for r in results])
    assert apparent > 0.62
    assert honest == pytest.approx(0.5, abs=0.035)
    assert np.mean([r.optimism for r in results]) == pytest.approx(apparent - honest)


def test_combined_table_reports_both_areas_and_is_reproducible():
    frame = cohort()
    options = {"outcome": "diagnosis", "case": "ALS", "seed": 3}
    table = combined_auc(frame, ["FA", "MK", "noise"], **options)
    assert get(table, "optimism") == pytest.approx(
        get(table, "AUC apparent") - get(table, "AUC cross-validated")
    )
    assert get(table, "AUC apparent") >= get(table, "AUC best single") - 1e-9
    assert get(table, "AUC cross-validated", "low") < get(table, "AUC cross-validated", "high")
    assert table["value"].equals(combined_auc(frame, ["FA", "MK", "noise"], **options)["value"])
    assert get(table, "coefficient FA") < 0


def test_curve_runs_from_corner_to_corner():
    points = roc_points(cohort(), "MK", outcome="diagnosis", case="ALS")
    assert points[["sensitivity", "specificity"]].iloc[0].tolist() == [0.0, 1.0]
    assert points[["sensitivity", "specificity"]].iloc[-1].tolist() == [1.0, 0.0]
    assert (np.diff(points["sensitivity"]) >= 0).all()
    curve = roc_curve(np.array([1.0, 1, 2, 2]), np.array([False, True, False, True]))
    area = np.sum(np.diff(1 - curve.specificity) * (curve.sensitivity[1:] + curve.sensitivity[:-1]) / 2)
    assert area == pytest.approx(0.5)


def test_youden_takes_the_middle_of_equals_and_bootstrap_is_vectorised_right():
    curve = roc_curve(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True]))
    index = youden_index(curve)
    assert (curve.threshold[index], curve.sensitivity[index], curve.specificity[index]) == (2.5, 1.0, 1.0)
    frame = cohort()
    case = (frame["diagnosis"] == "ALS").to_numpy()
    found = bootstrap_youden(frame["MK"].to_numpy(), case, n_bootstrap=500)
    assert found["J"] == pytest.approx(found["sensitivity"] + found["specificity"] - 1)
    best = roc_curve(frame["MK"].to_numpy(), case)
    assert (
        found["J"].mean()
        >= best.sensitivity[youden_index(best)] + best.specificity[youden_index(best)] - 1 - 0.02
    )


def test_spreading_a_long_table():
    frame = cohort().head(3)
    long = frame.melt(["subject", "diagnosis"], ["FA", "MK"], var_name="quantity", value_name="value")
    wide = spread_markers(long, "value", marker="quantity", subject="subject", outcome="diagnosis")
    assert list(wide.columns) == ["subject", "diagnosis", "FA", "MK"]
    assert wide["MK"].to_numpy() == pytest.approx(frame["MK"].to_numpy())
    with pytest.raises(TableError, match="two values"):
        spread_markers(
            pd.concat([long, long]), "value", marker="quantity", subject="subject", outcome="diagnosis"
        )
    two = long.assign(diagnosis=["a"] * 3 + ["b"] * 3)
    with pytest.raises(TableError, match="two outcomes"):
        spread_markers(two, "value", marker="quantity", subject="subject", outcome="diagnosis")


@pytest.mark.parametrize(
    ("frame", "options", "error", "words"),
    [
        (cohort().assign(diagnosis="ALS"), {"case": "ALS"}, TableError, "two labels"),
        (cohort(), {}, ConfigError, "which label"),
        (cohort(), {"case": "MS"}, ConfigError, "no row"),
        (cohort(), {"case": "ALS", "positive": "up"}, ConfigError, "positive"),
        (cohort().assign(FA=np.nan), {"case": "ALS", "nan_policy": "omit"}, EmptyInputError, "no row"),
        (cohort().assign(FA="x"), {"case": "ALS"}, TableError, "text"),
    ],
)
def test_bad_input_is_one_clear_sentence(frame, options, error, words):
    with pytest.raises(error, match=words):
        roc_auc(frame, "FA", outcome="diagnosis", **options)


def test_what_was_left_out_is_said():
    frame = cohort()
    frame.loc[[2, 50], "MK"] = np.nan
    table = roc_auc(frame, "MK", outcome="diagnosis", case="ALS", nan_policy="omit")
    assert get(table, "AUC", "n_missing") == 2
    assert get(table, "AUC", "n_people") == 68
    assert "2 cells without a value" in get(table, "AUC", "note")
    assert "missing-values" in get(table, "AUC", "flags")


def test_true_false_outcome_needs_no_label_and_one_case_is_enough_for_an_area():
    frame = cohort().assign(diagnosis=lambda d: d["diagnosis"] == "ALS")
    assert np.isfinite(get(roc_auc(frame, "MK", outcome="diagnosis"), "AUC"))
    one = pd.concat([frame.loc[frame["diagnosis"]].head(1), frame.loc[~frame["diagnosis"]]])
    table = roc_auc(one, "MK", outcome="diagnosis", positive="high")
    assert np.isfinite(get(table, "AUC"))
    assert np.isnan(get(table, "AUC", "low"))
    with pytest.raises(FitError, match="cases and controls"):
        roc_points(
            frame.assign(MK=[*[1.0] * 40, *[np.nan] * 30]), "MK", outcome="diagnosis", nan_policy="omit"
        )


def test_cores_refuse_nan_and_one_sided_data():
    with pytest.raises(InputError, match="finite"):
        roc_areas(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(InputError, match="0 controls"):
        roc_areas(np.ones(3), np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="length"):
        roc_areas(np.ones(3), np.ones(2, dtype=bool))


# ---- proportions -----------------------------------------------------------------------------


def test_wilson_and_clopper_pearson_equal_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    k, n = np.array([0, 1, 7, 19, 22]), np.full(5, 22)
    for ours, theirs in (("wilson", "wilson"), ("clopper-pearson", "beta")):
        low, high = proportion_confint(k, n, method=theirs)
        bounds = proportion_interval(k, n, method=ours)
        assert bounds.low == pytest.approx(np.nan_to_num(low), abs=1e-12)
        assert bounds.high == pytest.approx(np.nan_to_num(high, nan=1.0), abs=1e-12)
    assert np.isnan(proportion_interval(0, 0).low)
    with pytest.raises(InputError):
        proportion_interval(5, 4)


def test_published_percentages_that_no_count_can_give():
    # 83 % of 35 people is 29/35; no whole number of 22 or of 35 people is 88 %, none of 22 is 83 %.
    assert check_granularity(83, 35).counts == (29,)
    impossible = check_granularity(88, 22)
    assert not impossible.possible
    assert [k for k, _ in impossible.nearest] == [19, 20]
    assert [round(p, 1) for _, p in impossible.nearest] == [86.4, 90.9]
    assert {16, 17, 24, 25, 26} <= set(impossible.possible_n)
    assert not check_granularity(88, 35).possible
    assert [round(p, 1) for _, p in check_granularity(88, 35).nearest] == [85.7, 88.6]
    assert not check_granularity(83, 22).possible
    assert "impossible" in impossible.sentence
    assert check_granularity(33.33, 3, decimals=2).possible
    assert not check_granularity(33.34, 3, decimals=2).possible
    assert check_granularity(0, 5).counts == (0,)
    assert check_granularity(100, 5).counts == (5,)
    assert check_granularity(12.5, 8, decimals=0).possible  # rounds to 12 or 13


@pytest.mark.parametrize("n", range(1, 40))
def test_every_true_percentage_is_possible(n):
    for k in range(n + 1):
        for decimals in (0, 1):
            assert k in check_granularity(round(100 * k / n, decimals), n, decimals=decimals).counts


@pytest.mark.parametrize("bad", [(-1, 5, 0), (101, 5, 0), (50, 0, 0), (50, 5, -1), (float("nan"), 5, 0)])
def test_bad_percentages(bad):
    with pytest.raises(InputError):
        check_granularity(bad[0], bad[1], decimals=bad[2])
