"""Variance components of tables: simulated truth, textbook values, bad input."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, FitError, InputError, TableError
from cordqa.stats.component_ratios import component_icc, component_reproducibility
from cordqa.stats.components import reml_components, variance_components
from cordqa.stats.ems import combine_components, ems_components, f_test, variance_intervals


def crossed(n=12, k=5, repeats=1, *, sds=(8.0, 3.0, 2.0), mean=900.0, seed=0):
    generator = np.random.default_rng(seed)
    subject, scanner, repeat = (
        a.ravel() for a in np.meshgrid(range(n), range(k), range(repeats), indexing="ij")
    )
    value = mean + generator.normal(0, sds[0], n)[subject] + generator.normal(0, sds[1], k)[scanner]
    return pd.DataFrame(
        {
            "subject": [f"s{i:02d}" for i in subject],
            "scanner": [f"c{j}" for j in scanner],
            "repeat": repeat,
            "T1": value + generator.normal(0, sds[2], subject.size),
        }
    )


def get(table, statistic, column="value"):
    rows = table.loc[table["statistic"] == statistic, column]
    assert len(rows) == 1, f"{statistic}: {len(rows)} rows"
    return rows.iloc[0]


# ---- expected mean squares -------------------------------------------------------------------


def test_mean_squares_of_shrout_and_fleiss():
    # Six targets, four judges: Shrout P. E., Fleiss J. L. 1979, Psychol Bull 86:420, table 2.
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]]
    )
    fit = ems_components(ratings, [(0,), (1,)], names=["target", "judge"])
    assert fit.mean_squares == pytest.approx([11.2416667, 32.4861111, 1.0194444], abs=1e-7)
    assert fit.df.tolist() == [5, 3, 15]
    assert fit.raw[0] == pytest.approx((11.2416667 - 1.0194444) / 4, abs=1e-6)
    assert fit.names == ("target", "judge", "residual")


def test_negative_estimate_is_reported_raw_and_truncated():
    # Every batch has the same mean: less spread between batches than chance would give.
    generator = np.random.default_rng(0)
    flat = generator.normal(0, 1, (6, 5))
    flat -= flat.mean(axis=1, keepdims=True)
    fit = ems_components(flat + 3, [(0,)], names=["batch"])
    assert fit.raw[0] < 0
    assert fit.variances[0] == 0.0
    rows = [{"batch": i, "y": flat[i, j]} for i in range(6) for j in range(5)]
    table = variance_components(rows, "y", random=["batch"])
    assert get(table, "variance batch") == 0.0
    assert get(table, "variance batch", "raw") == pytest.approx(fit.raw[0])
    assert get(table, "variance batch", "flags") == "negative-variance"
    assert get(table, "variance batch", "low") == 0.0
    singular = reml_components(rows, "y", random=["batch"])
    assert get(singular, "variance batch") == 0.0
    assert "singular" in get(singular, "variance batch", "flags")


def test_nested_mean_squares_are_unbiased_and_intervals_hold():
    generator = np.random.default_rng(1)
    n, shape = 3000, (4, 5, 2, 2)  # sites, subjects in sites, sessions in subjects, repeats
    truth = np.array([4.0, 9.0, 1.0, 2.25])
    values = (
        generator.normal(0, 2, (n, 4, 1, 1, 1))
        + generator.normal(0, 3, (n, 4, 5, 1, 1))
        + generator.normal(0, 1, (n, 4, 5, 2, 1))
        + generator.normal(0, 1.5, (n, *shape))
    )
    fit = ems_components(values, [(0,), (0, 1), (0, 1, 2)], names=["site", "subject", "session"], n_leading=1)
    assert fit.df.tolist() == [3, 16, 20, 40]
    error = fit.raw.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(fit.raw.mean(axis=0) - truth) < 4 * error)
    bounds = variance_intervals(fit)
    covered = np.mean((bounds.low <= truth) & (truth <= bounds.high), axis=0)
    assert np.all((covered > 0.93) & (covered < 0.97))
    value, around = combine_components(fit, [1, 0, 1, 1])
    assert value.mean() == pytest.approx(7.25, rel=0.05)
    assert 0.93 < np.mean((around.low <= 7.25) & (around.high >= 7.25)) < 0.97


def test_f_test_is_uniform_without_variance():
    generator = np.random.default_rng(2)
    values = generator.normal(0, 1, (4000, 8, 4)) + generator.normal(0, 2, (4000, 8, 1))
    p = f_test(ems_components(values, [(0,), (1,)], n_leading=1))
    assert np.mean(p[:, 1] < 0.05) == pytest.approx(0.05, abs=0.012)
    assert np.mean(p[:, 0] < 0.05) > 0.99


def test_fixed_axis_is_taken_out():
    generator = np.random.default_rng(3)
    values = generator.normal(0, 1, (3, 4, 5, 2)) + np.array([0.0, 50.0, 90.0])[:, None, None, None]
    fit = ems_components(values, [(0, 1), (0, 1, 2)], names=["site", "subject"], fixed=[(0,)])
    assert fit.df.tolist() == [9, 48, 60]
    assert np.all(np.abs(fit.raw) < 2)


def test_ten_thousand_regions_take_a_fraction_of_a_second():
    values = np.random.default_rng(0).normal(0, 1, (10_000, 20, 6))
    ems_components(values[:10], [(0,), (1,)], n_leading=1)
    start = time.process_time()
    fit = ems_components(values, [(0,), (1,)], n_leading=1)
    variance_intervals(fit)
    # The target is 0.2 s; the bound leaves room for a busy machine.
    assert time.process_time() - start < 1.0


def test_bad_mean_square_models_are_refused():
    values = np.zeros((3, 4))
    with pytest.raises(InputError, match="axis"):
        ems_components(values, [(2,)])
    with pytest.raises(InputError, match="twice"):
        ems_components(values, [(0,), (0,)])
    with pytest.raises(InputError, match="at least one"):
        ems_components(values, [])
    with pytest.raises(FitError, match="degrees of freedom"):
        ems_components(values, [(0,), (1,), (0, 1)])
    with pytest.raises(FitError, match="overlap"):
        ems_components(np.zeros((3, 4, 5, 2)), [(0, 1), (1, 2)])


# ---- tables ----------------------------------------------------------------------------------


def test_balanced_table_uses_mean_squares_and_unbalanced_reml():
    data = crossed(repeats=2)
    table = variance_components(data, "T1", random=["subject", "scanner", "subject:scanner"], unit="ms")
    array = data["T1"].to_numpy().reshape(12, 5, 2)
    exact = ems_components(array, [(0,), (1,), (0, 1)])
    for name, raw in zip(["subject", "scanner", "subject:scanner", "residual"], exact.raw, strict=True):
        assert get(table, f"variance {name}", "raw") == pytest.approx(raw)
    assert get(table, "variance subject", "unit") == "ms^2"
    assert get(table, "SD subject", "unit") == "ms"
    assert "mean squares" in get(table, "variance subject", "estimator")
    assert get(table, "variance residual", "interval_method") == "chi-squared, exact"
    assert get(table, "mean") == pytest.approx(array.mean())
    for column in ("n_subject", "n_scanner", "n_values", "n_missing"):
        assert column in table
    cut = variance_components(data.iloc[3:], "T1", random=["subject", "scanner"])
    assert "likelihood" in get(cut, "variance subject", "estimator")
    assert get(cut, "variance subject", "n_values") == 117


def test_order_of_rows_and_names_of_labels_do_not_matter():
    data = crossed()
    plain = variance_components(data, "T1")
    shuffled = data.sample(frac=1, random_state=3).replace({"subject": {"s00": "zz"}})
    other = variance_components(shuffled, "T1")
    assert other["value"].to_numpy() == pytest.approx(plain["value"].to_numpy(), rel=1e-6)


def test_nested_labels_are_understood_however_they_are_written():
    generator = np.random.default_rng(5)
    rows = []
    for site in "AB":
        for subject in range(6):
            level = generator.normal(0, 4)
            for repeat in range(3):
                rows.append(
                    {
                        "site": site,
                        "subject": subject,
                        "id": f"{site}{subject}",
                        "y": level + generator.normal(),
                    }
                )
                del repeat
    reused = variance_components(rows, "y", random=["site:subject"], fixed=["site"])
    unique = variance_components(rows, "y", random=["id"], fixed=["site"])
    assert "mean squares" in reused["estimator"].iloc[0]
    assert "mean squares" in unique["estimator"].iloc[0]
    assert get(reused, "variance site:subject") == pytest.approx(get(unique, "variance id"))
    forced = reml_components(rows, "y", random=["id"], fixed=["site"])
    assert get(forced, "variance id") == pytest.approx(get(unique, "variance id"), rel=1e-6)
    assert get(forced, "effect site B - A") == pytest.approx(get(unique, "effect site B - A"), rel=1e-6)


def test_few_vendors_become_fixed_and_many_sites_stay_random():
    generator = np.random.default_rng(6)
    rows = [
        {
            "vendor": "ABC"[site % 3],
            "site": f"x{site}",
            "csa": 70 + 2 * (site % 3) + shift + generator.normal(0, 5),
            "age": int(generator.integers(20, 50)),
            "sex": "MF"[i % 2],
        }
        for site in range(12)
        for shift in [generator.normal(0, 3)]
        for i in range(7)
    ]
    table = variance_components(rows, "csa", random=["site"], adaptive=["vendor"], fixed=["age", "sex"])
    names = list(table["statistic"])
    assert "variance vendor" not in names
    assert {"effect vendor B - A", "effect vendor C - A", "effect age", "effect sex M - F"} <= set(names) | {
        "effect sex F - M" if "effect sex F - M" in names else "effect sex M - F"
    }
    assert "vendor is a fixed effect because it has 3 levels" in get(table, "variance site", "note")
    # Vendor varies between sites only: 12 sites less 3 columns that are constant within them.
    assert get(table, "effect vendor B - A", "df") == 9
    five = [{**row, "vendor": f"v{i % 6}"} for i, row in enumerate(rows)]
    assert "variance vendor" in list(
        variance_components(five, "csa", random=["site"], adaptive=["vendor"])["statistic"]
    )


def test_covariate_effects_are_recovered():
    generator = np.random.default_rng(7)
    subject = np.repeat(np.arange(60), 2)
    age = np.linspace(20, 80, 60)[subject]
    value = 80 - 0.1 * age + generator.normal(0, 2, 60)[subject] + generator.normal(0, 0.5, 120)
    data = {"subject": subject, "age": age, "csa": value}
    table = variance_components(data, "csa", random=["subject"], fixed=["age"], unit="mm2")
    assert get(table, "effect age", "low") < -0.1 < get(table, "effect age", "high")
    assert get(table, "effect age", "unit") == "mm2 per unit of age"
    assert get(table, "effect age", "p") < 1e-6
    assert get(table, "variance subject", "low") < 4 < get(table, "variance subject", "high")


def test_groups_keep_their_order_and_their_own_design():
    parts = [crossed(seed=s).assign(region=f"r{s}") for s in range(4)]
    parts[1] = parts[1].iloc[4:]  # this region is not balanced
    table = variance_components(pd.concat(parts), "T1", by="region")
    assert list(dict.fromkeys(table["region"])) == ["r0", "r1", "r2", "r3"]
    for index, part in enumerate(parts):
        alone = variance_components(part, "T1")
        mine = table.loc[table["region"] == f"r{index}"]
        assert mine["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), rel=1e-5)
    assert "likelihood" in table.loc[table["region"] == "r1", "estimator"].iloc[0]


def test_a_broken_group_does_not_stop_the_others():
    good, constant = crossed().assign(region="good"), crossed().assign(region="flat", T1=5.0)
    table = variance_components(pd.concat([constant, good]), "T1", by="region")
    flat = table.loc[table["region"] == "flat"]
    assert np.isnan(flat.loc[flat["statistic"] == "variance subject", "value"]).all()
    assert flat.loc[flat["statistic"] == "variance subject", "note"].iloc[0]
    assert np.isfinite(
        table.loc[(table["region"] == "good") & (table["statistic"] == "variance subject"), "value"]
    ).all()


def test_what_cannot_be_estimated_is_left_out_with_a_reason():
    data = crossed().query("scanner == 'c0' or scanner == 'c1'").assign(site="only one")
    table = variance_components(data, "T1", random=["subject", "scanner", "site", "subject:scanner"])
    assert np.isnan(get(table, "variance site"))
    assert "one level" in get(table, "variance site", "note")
    assert "residual" in get(table, "variance subject:scanner", "note")
    assert np.isfinite(get(table, "variance subject"))
    assert "few-levels" in get(table, "variance scanner", "flags")


def test_missing_values_raise_or_are_counted():
    data = crossed()
    data.loc[[3, 17], "T1"] = np.nan
    with pytest.raises(TableError, match="without a value"):
        variance_components(data, "T1")
    table = variance_components(data, "T1", nan_policy="omit")
    assert get(table, "variance subject", "n_missing") == 2
    assert "missing-values" in get(table, "variance subject", "flags")


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        ({}, {"random": ["subjekt"]}, TableError, "did you mean"),
        ({}, {"random": []}, ConfigError, "at least one random term"),
        ({}, {"random": ["subject", "subject"]}, ConfigError, "twice"),
        ({}, {"random": ["subject"], "fixed": ["subject"]}, ConfigError, "both random and fixed"),
        ({}, {"method": "anova"}, ConfigError, "method"),
        ({}, {"interval": "exact"}, ConfigError, "interval"),
        ({}, {"level": 95}, ConfigError, "level"),
        ({"T1": "text"}, {}, TableError, "text"),
        ({"T1": [np.inf, *range(59)]}, {}, TableError, "infinity"),
        ({"subject": "one"}, {"random": ["subject"]}, FitError, "one level"),
        ({"T1": 4.0}, {}, FitError, "do not vary"),
    ],
)
def test_bad_input_is_one_clear_sentence(change, options, error, words):
    with pytest.raises(error, match=words):
        variance_components(crossed().assign(**change), "T1", **options)


def test_mean_squares_can_be_demanded_but_not_forced():
    with pytest.raises(FitError, match="balanced"):
        variance_components(crossed().iloc[1:], "T1", method="ems")


def test_perfect_confounding_of_vendor_and_group_is_refused():
    data = crossed().assign(vendor=lambda d: d["scanner"].map(lambda c: "A" if c < "c2" else "B"))
    data["group"] = data["vendor"].map({"A": "patient", "B": "control"})
    with pytest.raises(FitError, match="cannot be told apart"):
        variance_components(data, "T1", random=["subject"], fixed=["vendor", "group"])


def test_intervals_by_profile_bootstrap_and_none():
    data = crossed(seed=4).iloc[2:]
    profile = variance_components(data, "T1")
    bootstrap = variance_components(data, "T1", interval="bootstrap", n_bootstrap=300)
    none = variance_components(data, "T1", interval="none")
    for table in (profile, bootstrap):
        assert (
            get(table, "variance subject", "low")
            < get(table, "variance subject")
            < get(table, "variance subject", "high")
        )
    assert np.isnan(get(none, "variance subject", "low"))
    assert "bootstrap" in get(bootstrap, "variance subject", "interval_method")
    again = variance_components(data, "T1", interval="bootstrap", n_bootstrap=300)
    assert again["low"].equals(bootstrap["low"])


def test_shares_sum_to_one_and_have_intervals():
    table = variance_components(crossed(seed=9), "T1")
    shares = table.loc[table["statistic"].str.startswith("share")]
    assert shares["value"].sum() == pytest.approx(1.0)
    assert (shares["low"] <= shares["value"]).all()
    assert (shares["value"] <= shares["high"]).all()


# ---- ICC and RDC from components -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # pingouin uses what pandas is about to drop
def test_icc_of_a_complete_table_equals_pingouin():
    import pingouin

    data = crossed(seed=1)
    oracle = pingouin.intraclass_corr(data, targets="subject", raters="scanner", ratings="T1")
    oracle = oracle.set_index(oracle["Type"].astype(str))["ICC"]
    table = component_icc(data, "T1", average_of=5)
    for name in ("ICC(A,1)", "ICC(C,1)"):
        assert get(table, name) == pytest.approx(oracle[name], abs=1e-6)
    for name, k_form in (("ICC(A,5)", "ICC(A,k)"), ("ICC(C,5)", "ICC(C,k)")):
        assert get(table, name) == pytest.approx(oracle[k_form], abs=1e-6)


def test_icc_with_a_tenth_missing_stays_near_the_full_table():
    errors = []
    for seed in range(25):
        data = crossed(20, 6, seed=seed)
        full = get(component_icc(data, "T1", interval="none"), "ICC(A,1)")
        kept = data.sample(frac=0.9, random_state=seed)
        errors.append(get(component_icc(kept, "T1", interval="none"), "ICC(A,1)") - full)
    assert np.sqrt(np.mean(np.square(errors))) <= 0.02


def test_icc_intervals_by_profile_and_bootstrap_are_alike():
    data = crossed(20, 6, seed=2).iloc[5:]
    profile = component_icc(data, "T1")
    bootstrap = component_icc(data, "T1", interval="bootstrap", n_bootstrap=500)
    for table in (profile, bootstrap):
        assert 0 < get(table, "ICC(A,1)", "low") < get(table, "ICC(A,1)") < get(table, "ICC(A,1)", "high") < 1
    assert get(profile, "ICC(C,1)", "low") == pytest.approx(get(bootstrap, "ICC(C,1)", "low"), abs=0.06)


def test_icc_without_scanner_is_one_way_and_wants_its_subject():
    table = component_icc(crossed(), "T1", random=["subject"])
    assert list(table["statistic"]) == ["ICC(1,1)"]
    with pytest.raises(ConfigError, match="not one of the random terms"):
        component_icc(crossed(), "T1", subject="person")


def test_reproducibility_of_a_balanced_table_is_that_of_mean_squares():
    data = crossed(10, 4, repeats=2, seed=3)
    table = component_reproducibility(data, "T1", random=["subject", "scanner", "subject:scanner"], unit="ms")
    array = data["T1"].to_numpy().reshape(10, 4, 2)
    fit = ems_components(array, [(0,), (1,), (0, 1)])
    variance, bounds = combine_components(fit, [0, 1, 1, 1])
    assert get(table, "RDC") == pytest.approx(1.96 * np.sqrt(2 * variance))
    assert get(table, "RDC", "high") == pytest.approx(1.96 * np.sqrt(2 * bounds.high))
    assert get(table, "RC") == pytest.approx(1.96 * np.sqrt(2 * fit.raw[-1]))
    assert get(table, "RC", "interval_method") == "chi-squared, exact"
    assert get(table, "RDC", "interval_method") == "modified large sample"


def test_unbalanced_reproducibility_has_profile_intervals_and_repeat_terms():
    data = crossed(15, 4, repeats=2, seed=4).iloc[3:]
    table = component_reproducibility(data, "T1", random=["subject", "scanner", "subject:scanner"])
    assert get(table, "RDC", "low") < get(table, "RDC") < get(table, "RDC", "high")
    assert "profile" in get(table, "RDC", "interval_method")
    wide = component_reproducibility(
        data, "T1", random=["subject", "scanner", "subject:scanner"], repeat_terms=["subject:scanner"]
    )
    assert get(wide, "wSD") >= get(table, "wSD") - 1e-9
    with pytest.raises(ConfigError, match="repeat term"):
        component_reproducibility(data, "T1", repeat_terms=["session"])


def test_subjects_seen_on_one_scanner_only_are_flagged():
    generator = np.random.default_rng(0)
    subject = np.repeat(np.arange(20), 2)
    data = {
        "subject": subject,
        "scanner": subject % 5,
        "T1": generator.normal(900, 5, 40) + 9.0 * (subject % 5),
    }
    table = component_reproducibility(data, "T1")
    assert "confounded-with-subjects" in get(table, "RDC", "flags")
    assert "biology" in get(table, "RDC", "note")


@pytest.mark.parametrize("n_subjects", [5, 30, 150])
def test_a_term_that_fixed_categories_explain_is_not_estimable_in_any_order(n_subjects: int) -> None:
    """One scanner per vendor: what is the scanner's and what is the vendor's cannot be told apart."""
    rng = np.random.default_rng(3)
    rows = [
        {"subject": f"s{s}", "vendor": v, "scanner": f"{v}1", "value": 50.0 + s + i + rng.normal()}
        for s in range(n_subjects)
        for i, v in enumerate("ABC")
        for _ in range(2)
    ]
    table = pd.DataFrame(rows)
    for seed in range(3):
        shuffled = table.sample(frac=1, random_state=seed)
        found = variance_components(
            shuffled, "value", random=["subject", "scanner"], adaptive=["vendor"], interval="none"
        )
        scanner = found[found["statistic"] == "variance scanner"].iloc[0]
        assert np.isnan(scanner["value"])
        assert "confounded" in scanner["note"]
