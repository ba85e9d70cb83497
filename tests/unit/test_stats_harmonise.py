"""Harmonisation: against a plain-loop ComBat, simulated truth, and designs that cannot work."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, FitError, InputError, TableError
from cordqa.stats.harmonise import (
    Combat,
    CovBat,
    LongCombat,
    TravellingSubject,
    harmonise_table,
    judge_biology,
    judge_pairs,
    to_scans,
    transform_unseen,
)


def sites(n_per_site=(20, 15, 25), n_features=8, seed=0, sex_shares=(0.3, 0.5, 0.7)):
    """Values with known site shift and scale, age and sex effect; site and sex are linked."""
    generator = np.random.default_rng(seed)
    batch = np.repeat([f"site{i}" for i in range(len(n_per_site))], n_per_site)
    code = np.repeat(np.arange(len(n_per_site)), n_per_site)
    age = generator.uniform(20, 70, batch.size)
    sex = np.where(generator.random(batch.size) < np.array(sex_shares)[code], "M", "F")
    person = generator.normal(0, 3, (batch.size, 1))
    truth = 70 + np.arange(n_features) - 0.1 * (age[:, None] - 45) + 5.0 * (sex == "M")[:, None]
    clean = truth + person + generator.normal(0, 2, (batch.size, n_features))
    drift = np.linspace(-3, 3, len(n_per_site))[:, None]
    shift = generator.normal(0, 3, (len(n_per_site), n_features)) + drift
    scale = np.geomspace(0.8, 1.3, len(n_per_site))[code][:, None]
    values = truth + shift[code] + scale * (clean - truth)
    return values, clean, batch, pd.DataFrame({"age": age, "sex": sex})


def plain_combat(values, batch, covariates):
    """Johnson 2007 written with loops over features and batches, stopping as sva does."""
    names = np.unique(batch)
    design = np.column_stack([*[(batch == name).astype(float) for name in names], covariates])
    p = values.shape[1]
    beta = np.linalg.lstsq(design, values, rcond=None)[0]
    shares = np.array([np.mean(batch == name) for name in names])
    centre = shares @ beta[: names.size]
    spread = np.sqrt(np.mean((values - design @ beta) ** 2, axis=0))
    expected = centre + covariates @ beta[names.size :]
    z = (values - expected) / spread
    result = np.empty_like(values)
    for name in names:
        rows = batch == name
        block = z[rows]
        m = rows.sum()
        gamma, delta = block.mean(axis=0), block.var(axis=0, ddof=1)
        g_bar, t2 = gamma.mean(), gamma.var(ddof=1)
        a = (2 * delta.var(ddof=1) + delta.mean() ** 2) / delta.var(ddof=1)
        b = (delta.mean() * delta.var(ddof=1) + delta.mean() ** 3) / delta.var(ddof=1)
        g_old, d_old = gamma.copy(), delta.copy()
        while True:
            g_new, d_new = np.empty(p), np.empty(p)
            for j in range(p):
                g_new[j] = (t2 * m * gamma[j] + d_old[j] * g_bar) / (t2 * m + d_old[j])
                d_new[j] = (0.5 * np.sum((block[:, j] - g_new[j]) ** 2) + b) / (m / 2 + a - 1)
            change = max((np.abs(g_new - g_old) / g_old).max(), (np.abs(d_new - d_old) / d_old).max())
            g_old, d_old = g_new, d_new
            if change <= 1e-4:
                break
        result[rows] = (block - g_old) / np.sqrt(d_old) * spread + expected[rows]
    return result


def encoded(covariates):
    return np.column_stack([covariates["age"], (covariates["sex"] == "M").astype(float)])


# ---- ComBat ----------------------------------------------------------------------------------


def test_combat_equals_a_plain_loop():
    values, _, batch, covariates = sites()
    got = Combat().fit_transform(values, batch=batch, covariates=covariates)
    assert got == pytest.approx(plain_combat(values, batch, encoded(covariates)), abs=1e-9)


def test_combat_brings_sites_together_and_keeps_biology():
    values, _, batch, covariates = sites((60, 60, 60))
    clean = Combat().fit_transform(values, batch=batch, covariates=covariates)
    rest = (
        clean
        - np.column_stack([np.ones(180), encoded(covariates)])
        @ np.linalg.lstsq(np.column_stack([np.ones(180), encoded(covariates)]), clean, rcond=None)[0]
    )
    means = np.array([rest[batch == name].mean(axis=0) for name in np.unique(batch)])
    spreads = np.array([rest[batch == name].std(axis=0) for name in np.unique(batch)])
    assert np.abs(means).max() < 0.5
    assert np.all(spreads.max(axis=0) / spreads.min(axis=0) < 1.25)
    judged = judge_biology(values, clean, batch=batch, covariates=covariates)
    kept = judged.loc[judged["statistic"] == "effect kept", "value"]
    assert kept.min() >= 0.95


def test_shift_alone_keeps_effects_exactly_however_small_the_sites():
    values, _, batch, covariates = sites(
        (4, 3, 6, 5, 3, 7), n_features=5, sex_shares=(0.2, 0.4, 0.6, 0.5, 0.7, 0.3)
    )
    clean = Combat(mean_only=True, empirical_bayes=False).fit_transform(
        values, batch=batch, covariates=covariates
    )
    judged = judge_biology(values, clean, batch=batch, covariates=covariates)
    wide = judged.pivot(index=["feature", "covariate"], columns="statistic", values="value")
    assert wide["effect after"].to_numpy() == pytest.approx(wide["effect within batches"].to_numpy())


def test_without_covariates_confounded_biology_is_lost_and_said():
    values, _, batch, covariates = sites((60, 60, 60), sex_shares=(0.1, 0.5, 0.9))
    careless = Combat().fit_transform(values, batch=batch)
    judged = judge_biology(values, careless, batch=batch, covariates=covariates)
    sex = judged.loc[(judged["covariate"] == "sex M") & (judged["statistic"] == "effect kept")]
    assert sex["value"].mean() < 0.9
    assert (sex["flags"] == "biology-lost").any()


def test_one_nan_one_constant_feature_and_one_single_scan_spoil_nothing_else():
    values, _, batch, covariates = sites()
    values[3, 2] = np.nan
    values[:, 5] = 4.2
    batch = batch.astype(object)
    batch[0] = "lonely"
    model = Combat().fit(values, batch=batch, covariates=covariates)
    clean = model.transform(values, batch=batch, covariates=covariates)
    assert np.isnan(clean).sum() == 1
    assert np.isnan(clean[3, 2])
    assert np.all(clean[:, 5] == 4.2)
    codes = {notice.code for notice in model.notices_}
    assert {"harmonise.single-scan", "harmonise.constant", "harmonise.small-batch"} <= codes
    without = np.delete(np.arange(60), 0)
    plain = Combat(empirical_bayes=False)
    first = plain.fit_transform(
        values[without][:, [0]], batch=batch[without], covariates=covariates.iloc[without]
    )
    other = values.copy()
    other[10, 3] = np.nan
    second = plain.fit_transform(
        other[without][:, [0, 3]], batch=batch[without], covariates=covariates.iloc[without]
    )
    assert second[:, 0] == pytest.approx(first[:, 0], abs=1e-10)


def test_a_feature_missing_in_one_batch_is_harmonised_in_the_others():
    values, _, batch, covariates = sites()
    values[batch == "site1", 4] = np.nan
    model = Combat().fit(values, batch=batch, covariates=covariates)
    clean = model.transform(values, batch=batch, covariates=covariates)
    assert np.array_equal(np.isnan(clean), np.isnan(values))
    new = model.transform(np.full((1, 8), 70.0), batch=["site1"], covariates={"age": [40.0], "sex": ["M"]})
    assert np.isnan(new[0, 4])
    assert np.isfinite(np.delete(new, 4)).all()


def test_single_feature_is_not_shrunk_and_says_so():
    values, _, batch, covariates = sites()
    model = Combat().fit(values[:, 0], batch=batch, covariates=covariates)
    assert "harmonise.no-shrinkage" in {notice.code for notice in model.notices_}
    clean = model.transform(values[:, 0], batch=batch, covariates=covariates)
    assert clean.shape == (60, 1)
    assert np.isfinite(clean).all()


def test_reference_batch_stays_and_the_others_come_to_it():
    values, _, batch, covariates = sites((40, 40, 40))
    model = Combat(reference="site1")
    clean = model.fit_transform(values, batch=batch, covariates=covariates)
    assert np.array_equal(clean[batch == "site1"], values[batch == "site1"])
    assert np.abs(clean[batch == "site0"].mean() - values[batch == "site1"].mean()) < 4
    with pytest.raises(InputError, match="reference"):
        Combat(reference="elsewhere").fit(values, batch=batch)


def test_new_data_are_treated_like_the_old():
    values, _, batch, covariates = sites()
    model = Combat().fit(values, batch=batch, covariates=covariates)
    everything = model.transform(values, batch=batch, covariates=covariates)
    part = model.transform(values[5:9], batch=batch[5:9], covariates=covariates.iloc[5:9])
    assert part == pytest.approx(everything[5:9])


def test_units_and_order_do_not_matter():
    values, _, batch, covariates = sites()
    plain = Combat().fit_transform(values, batch=batch, covariates=covariates)
    scaled = Combat().fit_transform(1000 * values - 7, batch=batch, covariates=covariates)
    assert scaled == pytest.approx(1000 * plain - 7, rel=1e-9)
    order = np.random.default_rng(0).permutation(60)
    mixed = Combat().fit_transform(values[order], batch=batch[order], covariates=covariates.iloc[order])
    assert mixed == pytest.approx(plain[order], abs=1e-9)


def test_mean_only_leaves_the_spread_alone():
    values, _, batch, _ = sites()
    clean = Combat(mean_only=True).fit_transform(values, batch=batch)
    for name in np.unique(batch):
        assert clean[batch == name].std(axis=0) == pytest.approx(values[batch == name].std(axis=0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"batch": ["a"] * 60}, FitError, "nothing to harmonise"),
        ({"batch": ["a", None] * 30}, InputError, "no batch"),
        ({"batch": ["a", "b"]}, InputError, "one batch per scan"),
        ({"covariates": {"group": ["x"] * 20 + ["y"] * 40}}, FitError, "cannot be told apart"),
        ({"covariates": {"age": [np.nan] + [30.0] * 59}}, InputError, "missing"),
        ({"covariates": {"age": [30.0]}}, InputError, "one value per scan"),
        ({"covariates": {"age": [30.0] * 60}}, FitError, "same in every scan"),
        ({"covariates": {"sex": ["M", "F"] * 29 + ["M", None]}}, InputError, "missing"),
        ({"X": np.full((60, 2), np.inf)}, InputError, "infinite"),
        ({"X": [["a"] * 2] * 60}, InputError, "not all numbers"),
        ({"X": np.empty((0, 2)), "batch": []}, InputError, "table of scans"),
    ],
)
def test_designs_that_cannot_work_are_refused(change, error, words):
    values, _, batch, _ = sites()
    settings = {"X": values, "batch": batch, "covariates": None, **change}
    with pytest.raises(error, match=words):
        Combat().fit(settings.pop("X"), **settings)


def test_transform_refuses_what_was_not_fitted():
    values, _, batch, covariates = sites()
    with pytest.raises(InputError, match="call fit first"):
        Combat().transform(values, batch=batch)
    model = Combat().fit(values, batch=batch, covariates=covariates)
    with pytest.raises(InputError, match="was not there"):
        model.transform(values[:1], batch=["new"], covariates=covariates.iloc[:1])
    with pytest.raises(InputError, match="level that was not fitted"):
        model.transform(values[:1], batch=batch[:1], covariates={"age": [40.0], "sex": ["X"]})
    with pytest.raises(InputError, match="covariates are not those"):
        model.transform(values[:1], batch=batch[:1])
    with pytest.raises(InputError, match="features are not those"):
        model.transform(values[:1, :3], batch=batch[:1], covariates=covariates.iloc[:1])


def test_small_batches_and_strong_confounding_are_said():
    values, _, batch, _ = sites()
    near = (batch == "site0").astype(float) + np.random.default_rng(0).normal(0, 0.1, 60)
    model = Combat().fit(values[:, :4], batch=batch, covariates={"group": near}, subject=np.arange(60) // 4)
    codes = {notice.code for notice in model.notices_}
    assert codes == {"harmonise.small-batch", "harmonise.small-scale", "harmonise.confounded"}
    plain = Combat(mean_only=True).fit(values[:, :4], batch=batch, subject=np.arange(60) // 4)
    assert {notice.code for notice in plain.notices_} == {"harmonise.small-batch"}


@pytest.mark.parametrize(
    "harmoniser",
    [Combat(mean_only=True), CovBat(variance_kept=0.8), LongCombat(), TravellingSubject(reference="a")],
)
def test_settings_can_be_read_changed_and_cloned(harmoniser):
    settings = harmoniser.get_params()
    assert harmoniser.clone().get_params() == settings
    name = next(iter(settings))
    assert harmoniser.set_params(**{name: settings[name]}) is harmoniser
    with pytest.raises(InputError, match="setting"):
        harmoniser.set_params(nonsense=1)
    assert not [attribute for attribute in vars(harmoniser) if attribute.endswith("_")]


# ---- CovBat ----------------------------------------------------------------------------------


def test_covbat_removes_a_difference_in_covariance():
    generator = np.random.default_rng(0)
    batch = np.repeat(["a", "b"], 300)
    common = generator.normal(0, 1, (600, 1)) * np.where(batch == "a", 0.3, 1.5)[:, None]
    values = 10 + common + generator.normal(0, 1, (600, 6))

    def gap(table):
        first, second = (np.corrcoef(table[batch == name].T) for name in ("a", "b"))
        return np.abs(first - second).mean()

    combat, covbat = Combat().fit_transform(values, batch=batch), CovBat().fit_transform(values, batch=batch)
    assert gap(combat) > 0.5
    assert gap(covbat) < 0.3 * gap(combat)
    model = CovBat().fit(values, batch=batch)
    assert model.transform(values[:3], batch=batch[:3]) == pytest.approx(covbat[:3])


def test_covbat_keeps_reference_and_constant_features_and_wants_complete_rows():
    values, _, batch, covariates = sites()
    values[:, 2] = 1.5
    clean = CovBat(reference="site2").fit_transform(values, batch=batch, covariates=covariates)
    assert np.array_equal(clean[batch == "site2"], values[batch == "site2"])
    assert np.all(clean[:, 2] == 1.5)
    values[0, 0] = np.nan
    with pytest.raises(InputError, match="complete rows"):
        CovBat().fit(values, batch=batch)
    with pytest.raises(InputError, match="two features"):
        CovBat().fit(values[:, [1]], batch=batch)
    with pytest.raises(InputError, match="variance_kept"):
        CovBat(variance_kept=0).fit(values[:, 1:], batch=batch)


# ---- travelling subjects and longitudinal ComBat ---------------------------------------------


def travellers(n_people=12, shifts=(-3.0, 0.0, 1.0, 2.0), *, sd=0.5, missing=0.3, seed=0, n_features=2):
    generator = np.random.default_rng(seed)
    subject, batch = (a.ravel() for a in np.meshgrid(range(n_people), range(len(shifts)), indexing="ij"))
    level = generator.normal(70, 6, n_people)
    values = np.column_stack(
        [
            level[subject] + (1 + f) * np.array(shifts)[batch] + generator.normal(0, sd, subject.size)
            for f in range(n_features)
        ]
    )
    keep = generator.random(subject.size) >= missing
    return values[keep], batch[keep].astype(str), np.char.add("p", subject.astype(str))[keep]


@pytest.mark.parametrize("method", ["least-squares", "reml"])
def test_shifts_are_recovered_from_incomplete_travels(method):
    values, batch, subject = travellers()
    model = TravellingSubject(method=method).fit(values, batch=batch, subject=subject)
    truth = np.array([-3.0, 0.0, 1.0, 2.0])
    assert model.shift_[:, 0] == pytest.approx(truth - truth.mean(), abs=0.5)
    assert model.shift_[:, 1] == pytest.approx(2 * (truth - truth.mean()), abs=0.5)
    assert model.shift_.sum(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert model.transform(values, batch=batch) == pytest.approx(values - model.shift_[batch.astype(int)])


def test_standard_errors_of_shifts_are_honest():
    truth = np.array([-3.0, 0.0, 1.0, 2.0])
    scores = []
    for seed in range(120):
        values, batch, subject = travellers(seed=seed, n_features=1)
        model = TravellingSubject().fit(values, batch=batch, subject=subject)
        scores.append((model.shift_[:, 0] - truth + truth.mean()) / model.error_[:, 0])
    assert np.std(scores) == pytest.approx(1.0, abs=0.1)


def test_shift_relative_to_a_reference():
    values, batch, subject = travellers()
    model = TravellingSubject(reference="2").fit(values, batch=batch, subject=subject)
    assert np.all(model.shift_[2] == 0)
    assert np.all(model.error_[2] < 1e-6)
    assert np.array_equal(model.transform(values, batch=batch)[batch == "2"], values[batch == "2"])


def test_travels_that_do_not_link_the_scanners_are_refused():
    values, batch, subject = travellers(missing=0)
    with pytest.raises(InputError, match="named"):
        TravellingSubject().fit(values, batch=batch)
    with pytest.raises(FitError, match="nobody was scanned in two"):
        TravellingSubject().fit(values, batch=batch, subject=np.arange(batch.size))
    split = np.char.add(subject, np.where(batch.astype(int) < 2, "x", "y"))
    with pytest.raises(FitError, match="separate sets"):
        TravellingSubject().fit(values, batch=batch, subject=split)
    with pytest.raises(InputError, match="method"):
        TravellingSubject(method="magic").fit(values, batch=batch, subject=subject)


def test_a_feature_whose_link_is_missing_has_no_shift_and_the_other_has():
    values, batch, subject = travellers(missing=0)
    values[np.isin(batch, ["3"]), 1] = np.nan
    model = TravellingSubject().fit(values, batch=batch, subject=subject)
    assert np.isnan(model.shift_[:, 1]).all()
    assert np.isfinite(model.shift_[:, 0]).all()
    assert "harmonise.not-linked" in {notice.code for notice in model.notices_}


def test_few_travellers_are_said():
    values, batch, subject = travellers(n_people=4, missing=0)
    model = TravellingSubject().fit(values, batch=batch, subject=subject)
    assert {notice.code for notice in model.notices_} == {"harmonise.few-travellers"}
    assert model.n_travellers_.tolist() == [4, 4, 4, 4]


def test_longitudinal_combat_takes_out_shift_and_scale_within_people():
    generator = np.random.default_rng(0)
    subject = np.repeat(np.arange(60), 4)
    batch = np.tile(["a", "b"], 120)
    age = generator.uniform(20, 60, 60)[subject] + np.tile([0, 0, 2, 2], 60)
    noise = generator.normal(0, 1, (240, 5)) * np.where(batch == "a", 0.5, 1.5)[:, None]
    values = (
        70
        - 0.1 * age[:, None]
        + generator.normal(0, 5, (60, 5))[subject]
        + 4.0 * (batch == "b")[:, None]
        + noise
    )
    model = LongCombat()
    clean = model.fit_transform(values, batch=batch, covariates={"age": age}, subject=subject)
    means = [clean[batch == name].mean(axis=0) for name in ("a", "b")]
    assert np.abs(means[0] - means[1]).max() < 0.6
    within = {
        name: np.std(
            clean[batch == name] - np.repeat(clean[batch == name].reshape(60, 2, 5).mean(axis=1), 2, axis=0)
        )
        for name in ("a", "b")
    }
    # It was 3.  The method measures scale on errors around predicted people, who are themselves
    # predicted from both scanners, so it takes out part of the difference only.
    assert within["b"] / within["a"] < 2.0
    stranger = model.transform(
        values[:2], batch=batch[:2], covariates={"age": age[:2]}, subject=["who", "who"]
    )
    assert np.isfinite(stranger).all()


def test_longitudinal_combat_refuses_and_passes_through():
    values, batch, subject = travellers()
    with pytest.raises(InputError, match="people"):
        LongCombat().fit(values, batch=batch)
    with pytest.raises(InputError, match="scanned twice"):
        LongCombat().fit(values, batch=batch, subject=np.arange(batch.size))
    values[:, 1] = 3.0
    model = LongCombat().fit(values, batch=batch, subject=subject)
    assert np.all(model.transform(values, batch=batch, subject=subject)[:, 1] == 3.0)


# ---- judging ---------------------------------------------------------------------------------


def test_pairs_are_judged_on_people_the_fit_has_not_seen():
    values, batch, subject = travellers(n_people=20, missing=0, sd=1.0)
    table = judge_pairs(TravellingSubject(), values, batch=batch, subject=subject, features=["C2", "C3"])
    ratio = table.loc[table["statistic"] == "RDC ratio"].set_index("feature")["value"]
    assert (ratio < 0.8).all()
    before = table.loc[(table["statistic"] == "RDC before") & (table["feature"] == "C2"), "value"].iloc[0]
    expected = 1.96 * np.sqrt(2) * np.sqrt(np.var([-3, 0, 1, 2], ddof=1) + 1)
    assert before == pytest.approx(expected, rel=0.15)
    # With no shift at all, leaving one out can only add noise.
    noise, batch, subject = travellers(n_people=6, shifts=(0.0, 0.0), missing=0, sd=1.0)
    none = judge_pairs(TravellingSubject(), noise, batch=batch, subject=subject)
    assert (none.loc[none["statistic"] == "RDC ratio", "value"] > 1).all()
    assert none["flags"].str.contains("made-worse").any()


def test_unseen_people_really_are_unseen():
    values, batch, subject = travellers(missing=0)
    clean, failures = transform_unseen(TravellingSubject(), values, batch=batch, subject=subject)
    assert not failures
    mine = subject == "p3"
    model = TravellingSubject().fit(values[~mine], batch=batch[~mine], subject=subject[~mine])
    assert clean[mine] == pytest.approx(model.transform(values[mine], batch=batch[mine]))
    folds, _ = transform_unseen(TravellingSubject(), values, batch=batch, subject=subject, n_folds=3)
    assert np.isfinite(folds).all()


def test_judging_without_pairs_or_without_enough_people_is_refused():
    values, _, batch, _ = sites()
    with pytest.raises(FitError, match="two batches"):
        judge_pairs(Combat(), values, batch=batch, subject=np.arange(60))
    values, batch, subject = travellers(n_people=1, missing=0)
    with pytest.raises(FitError, match="without the travellers"):
        judge_pairs(TravellingSubject(), values, batch=batch, subject=subject)


def test_unclear_effects_are_not_judged():
    values, _, batch, covariates = sites()
    covariates = covariates.assign(coin=np.random.default_rng(5).normal(0, 1, 60))
    table = judge_biology(values, values, batch=batch, covariates=covariates)
    coin = table.loc[(table["covariate"] == "coin") & (table["statistic"] == "effect kept")]
    unclear = coin["flags"] == "effect-unclear"
    assert unclear.any()
    assert coin.loc[unclear, "value"].isna().all()


# ---- tables ----------------------------------------------------------------------------------


def long_table():
    values, _, batch, covariates = sites(n_features=3)
    wide = covariates.assign(subject=[f"p{i}" for i in range(60)], site=batch)
    for index, region in enumerate(["C2", "C3", "C4"]):
        wide[region] = values[:, index]
    return values, wide.melt(["subject", "site", "age", "sex"], var_name="region", value_name="csa")


def test_a_tidy_table_goes_there_and_back():
    values, long = long_table()
    shuffled = long.sample(frac=1, random_state=1)
    table, notices = harmonise_table(
        shuffled,
        "csa",
        Combat(),
        batch="site",
        subject="subject",
        feature="region",
        covariates=["age", "sex"],
    )
    assert len(table) == len(long)
    assert not notices
    scans = to_scans(
        long, "csa", batch="site", subject="subject", feature="region", covariates=["age", "sex"]
    )
    assert scans.features == ("C2", "C3", "C4")
    expected = Combat().fit_transform(scans.values, batch=scans.batch, covariates=scans.covariates)
    merged = long.merge(table, on=["subject", "region"])["harmonised"].to_numpy()
    assert merged == pytest.approx(expected.T.ravel())
    assert scans.values == pytest.approx(values)


def test_missing_cells_of_a_table_stay_missing():
    _, long = long_table()
    long.loc[5, "csa"] = np.nan
    with pytest.raises(TableError):
        harmonise_table(long, "csa", Combat(), batch="site", subject="subject", feature="region")
    table, notices = harmonise_table(
        long, "csa", Combat(), batch="site", subject="subject", feature="region", nan_policy="omit"
    )
    assert table["harmonised"].isna().sum() == 1
    assert any(notice.code == "table.missing-value" for notice in notices)


def test_tables_that_are_ambiguous_are_refused():
    _, long = long_table()
    twice = pd.concat([long, long.assign(csa=long["csa"] + 1)])
    with pytest.raises(TableError, match="two values of one feature"):
        to_scans(twice, "csa", batch="site", subject="subject", feature="region")
    with pytest.raises(ConfigError, match="used twice"):
        to_scans(long, "csa", batch="site", subject="site", feature="region")
    odd = long.copy()
    odd.loc[0, "age"] = 99.0
    with pytest.raises(TableError, match="within one scan"):
        to_scans(odd, "csa", batch="site", subject="subject", feature="region", covariates=["age"])
