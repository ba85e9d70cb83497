"""Spread between scanners: estimates, coverage, one subject, missing cells, bias."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.repeatability_core import REPEATABILITY_FACTOR
from cordqa.stats.reproducibility import reproducibility, scanner_bias
from cordqa.stats.reproducibility_core import crossed_squares, reproducibility_arrays, scanner_bias_arrays


def draw(shape, *, scanner=1.0, interaction=0.0, error=1.0, subject=3.0, seed=0):
    """Values (..., n, k, m) with the given SD."""
    rng = np.random.default_rng(seed)
    *lead, n, k, _ = shape
    return (
        100
        + subject * rng.normal(size=(*lead, n, 1, 1))
        + scanner * rng.normal(size=(*lead, 1, k, 1))
        + interaction * rng.normal(size=(*lead, n, k, 1))
        + error * rng.normal(size=shape)
    )


def long(values, **columns):
    index = np.indices(values.shape).reshape(values.ndim, -1)
    names = ("subject", "scanner", "run")[: values.ndim]
    return pd.DataFrame({**dict(zip(names, index, strict=True)), "value": values.ravel(), **columns})


def rows(table):
    return table.set_index("statistic")


def covered(bounds, truth):
    return np.mean((bounds.low <= truth + 1e-12) & (truth <= bounds.high))


# ------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(("n", "k", "m"), [(10, 3, 1), (20, 6, 1), (10, 4, 2), (5, 3, 3), (1, 4, 5)])
def test_intervals_cover(n, k, m):
    interaction = 0.0 if n == 1 else 0.5
    found = reproducibility_arrays(draw((4000, n, k, m), interaction=interaction, seed=n))
    total = np.sqrt(2.0 + interaction**2)
    assert covered(found.total_bounds, total) == pytest.approx(0.95, abs=0.017)
    assert covered(found.scanner_bounds, 1.0) == pytest.approx(0.95, abs=0.017)
    within = 1.0 if m > 1 else np.sqrt(1.0 + interaction**2)
    assert covered(found.within_bounds, within) == pytest.approx(0.95, abs=0.015)
    assert np.mean(found.total**2) == pytest.approx(total**2, rel=0.05)
    if n > 1 and m > 1:
        assert covered(found.interaction_bounds, interaction) == pytest.approx(0.95, abs=0.017)


@pytest.mark.parametrize("spread", [0.0, 0.4, 2.0])
def test_fixed_scanners_cover(spread):
    offsets = np.array([-1.0, 0.0, 1.0]) * spread
    values = draw((4000, 10, 3, 1), scanner=0.0, seed=3) + offsets[:, None]
    found = reproducibility_arrays(values, scanners="fixed")
    total = np.sqrt(1.0 + offsets.var(ddof=1))
    assert covered(found.total_bounds, total) == pytest.approx(0.955, abs=0.017)
    assert 0.935 <= covered(found.scanner_bounds, offsets.std(ddof=1)) <= 0.985
    if spread == 2.0:
        random = reproducibility_arrays(values)
        assert np.median(random.total_bounds.high) > 2.0 * np.median(found.total_bounds.high)
        np.testing.assert_allclose(random.total, found.total)


def test_three_scanners_say_little_about_scanners():
    found = reproducibility_arrays(draw((500, 20, 3, 1), scanner=2.0))
    ratio = np.median(found.total_bounds.high / found.total)
    assert 2.0 < ratio < 6.0


def test_negative_component_is_kept_raw_and_shown_as_zero():
    found = reproducibility_arrays(draw((2000, 20, 6, 2), scanner=0.0, interaction=0.0))
    assert 0.3 < np.mean(found.scanner_variance < 0) < 0.7
    assert found.scanner.min() == 0.0
    assert found.scanner_variance.mean() == pytest.approx(0.0, abs=0.005)


def test_unequal_replicates_of_one_subject():
    values = draw((3000, 1, 5, 4), scanner=1.5, seed=5)
    values[:, 0, 1, 2:] = np.nan
    values[:, 0, 3, 1:] = np.nan
    found = reproducibility_arrays(values)
    assert np.mean(found.scanner_variance) == pytest.approx(2.25, rel=0.08)
    assert covered(found.scanner_bounds, 1.5) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 3, 1), (3, 1, 2), (1, 1, 4)])
def test_what_cannot_be_told_apart(shape):
    with pytest.raises(InputError):
        reproducibility_arrays(draw(shape))
    with pytest.raises(InputError, match="axes"):
        crossed_squares(np.ones((3, 3)))
    with pytest.raises(ConfigError, match="random or fixed"):
        reproducibility_arrays(draw((4, 3, 1)), scanners="mixed")


def test_nan_spoils_only_its_own_region():
    values = draw((3, 5, 3, 2))
    values[1, 0, 0, 0] = np.nan
    found = reproducibility_arrays(values)
    assert np.isfinite(found.total).tolist() == [True, False, True]


def test_bias_covers_and_sums_to_zero():
    offsets = np.array([-1.0, 0.0, 0.5, 0.5])
    values = draw((3000, 8, 4, 2), scanner=0.0, interaction=0.7, seed=6) + offsets[:, None]
    found = scanner_bias_arrays(values)
    np.testing.assert_allclose(found.value.sum(axis=-1), 0.0, atol=1e-10)
    inside = ((found.low <= offsets) & (offsets <= found.high)).mean(axis=0)
    np.testing.assert_allclose(inside, 0.95, atol=0.02)


# -------------------------------------------------------------------------------------- table


def test_table_of_a_crossed_design():
    values = draw((12, 4, 2), scanner=1.0, interaction=0.5)
    found = rows(reproducibility(long(values, unit="ms"), unit="unit"))
    direct = reproducibility_arrays(values)
    assert found.loc["RDC", "value"] == pytest.approx(REPEATABILITY_FACTOR * float(direct.total))
    assert found.loc["RDC", "high"] == pytest.approx(REPEATABILITY_FACTOR * float(direct.total_bounds.high))
    assert found.loc["between_scanner_CV", "value"] == pytest.approx(
        100 * float(direct.scanner) / values.mean()
    )
    assert found.loc["RDC", "unit"] == "ms"
    assert found.loc["RDC", ["n_subjects", "n_scanners", "n_values"]].tolist() == [12, 4, 96]
    assert found.loc["within_scanner_SD", "interval_method"] == "chi-squared"


def test_order_of_scanners_and_subjects_does_not_matter():
    table = long(draw((6, 3, 2)))
    one = reproducibility(table)
    two = reproducibility(table.sample(frac=1.0, random_state=1))
    np.testing.assert_allclose(one["value"], two["value"], rtol=1e-10)


def test_without_replicates_the_interaction_is_not_invented():
    found = rows(reproducibility(long(draw((8, 3, 1))).drop(columns="run")))
    assert np.isnan(found.loc["subject_by_scanner_SD", "value"])
    assert "needs replicates" in found.loc["subject_by_scanner_SD", "note"]


def test_phantom_is_one_subject():
    values = draw((1, 4, 5), scanner=2.0, seed=7)
    found = rows(reproducibility(long(values)))
    means = values[0].mean(axis=1)
    mse = values[0].var(axis=1, ddof=1).mean()
    assert found.loc["between_scanner_SD", "value"] == pytest.approx(np.sqrt(means.var(ddof=1) - mse / 5))
    assert found.loc["within_scanner_SD", "value"] == pytest.approx(np.sqrt(mse))
    assert (found["flags"].str.contains("interaction-in-scanner")).all()
    uneven = rows(reproducibility(long(values).iloc[1:]))
    assert "unbalanced" in uneven.loc["RDC", "flags"]
    lone = rows(reproducibility(long(values[:, :, :1])))
    assert lone.loc["reproducibility_SD", "value"] == pytest.approx(values[0, :, 0].std(ddof=1))
    assert np.isnan(lone.loc["between_scanner_SD", "value"])
    assert (lone["flags"] == "not-separable").all()


def test_missing_cells():
    table = long(draw((10, 4, 2), seed=8))
    holes = table.drop(index=[0, 1, 22])
    with pytest.raises(TableError, match=r"1 of 40 cells .* nan_policy='reml'"):
        reproducibility(holes)
    with pytest.raises(TableError, match="hold from 1 to 2 values"):
        reproducibility(table.drop(index=[5]))
    full = rows(reproducibility(table))
    reml = rows(reproducibility(holes, nan_policy="reml"))
    listwise = rows(reproducibility(holes, nan_policy="omit"))
    assert reml.loc["RDC", "value"] == pytest.approx(full.loc["RDC", "value"], rel=0.05)
    assert "unbalanced" in reml.loc["RDC", "flags"]
    assert "REML" in reml.loc["RDC", "estimator"]
    assert listwise.loc["RDC", ["n_subjects", "n_excluded_subjects"]].tolist() == [8, 2]
    assert "listwise" in listwise.loc["RDC", "flags"]


def test_reml_of_a_complete_table_is_the_exact_one():
    table = long(draw((10, 4, 2), interaction=2.0, seed=9))
    extra = pd.concat([table, table.iloc[[0]].assign(run=2)], ignore_index=True)
    one = rows(reproducibility(table))
    two = rows(reproducibility(extra, nan_policy="reml"))
    names = ["RDC", "between_scanner_SD", "subject_by_scanner_SD", "within_scanner_SD"]
    np.testing.assert_allclose(two.loc[names, "value"], one.loc[names, "value"], rtol=0.03)
    np.testing.assert_allclose(two.loc[names, "high"], one.loc[names, "high"], rtol=0.03)


@pytest.mark.parametrize("policy", ["raise", "omit", "reml"])
def test_one_scanner_fails_alone(policy):
    good, one = draw((6, 3, 2)), draw((6, 1, 2))
    table = pd.concat([long(good, region="good"), long(one, region="one")], ignore_index=True)
    found = reproducibility(table, by="region", nan_policy=policy)
    assert found.loc[found["region"] == "good", "value"].notna().all()
    assert found.loc[found["region"] == "one", "value"].isna().all()
    assert (found.loc[found["region"] == "one", "note"].str.contains("one scanner only")).all()


def test_interval_scale_and_near_zero_get_no_cv():
    table = long(draw((6, 3, 2), subject=0.1) - 100)
    for scale in ("ratio", "interval"):
        found = rows(reproducibility(table, scale=scale))
        assert found.loc["between_scanner_CV", "value"] != found.loc["between_scanner_CV", "value"]
        assert "read the spread in units" in found.loc["between_scanner_CV", "note"]
        assert np.isfinite(found.loc["RDC", "value"])


def test_negative_component_is_flagged():
    values = np.tile(np.array([[1.0, 2.0], [2.0, 1.0], [5.0, 6.0], [6.0, 5.0]])[..., None], (1, 1, 1)) + 50
    found = rows(reproducibility(long(values)))
    assert "negative-component-truncated" in found.loc["between_scanner_SD", "flags"]
    assert "negative (" in found.loc["between_scanner_SD", "note"]
    assert found.loc["between_scanner_SD", "value"] == 0.0


# --------------------------------------------------------------------------------------- bias


def test_bias_table_equals_the_array_in_a_complete_design():
    values = draw((7, 3, 1), seed=10)
    found = scanner_bias(long(values))
    direct = scanner_bias_arrays(values)
    units = found[found["statistic"] == "bias"]
    np.testing.assert_allclose(units["value"], direct.value)
    np.testing.assert_allclose(units["low"], direct.low)
    assert (units["df"] == 12).all()


def test_bias_is_not_blamed_for_the_subjects_a_scanner_saw():
    subjects = np.array([80.0, 90.0, 100.0, 110.0, 120.0, 130.0])
    rows_ = [
        {"subject": i, "scanner": s, "value": v + (5.0 if s == "B" else 0.0) + 0.01 * i * (s == "C")}
        for i, v in enumerate(subjects)
        for s, seen in (("A", range(6)), ("B", range(3, 6)), ("C", range(4)))
        if i in seen
    ]
    found = scanner_bias(pd.DataFrame(rows_), reference="A")
    units = found[found["statistic"] == "bias"].set_index("scanner")["value"]
    assert units["B"] == pytest.approx(5.0, abs=0.05)
    assert units["A"] == 0.0
    naive = pd.DataFrame(rows_).groupby("scanner")["value"].mean()
    assert naive["B"] - naive["A"] > 15


def test_scanners_without_common_subjects_cannot_be_compared():
    table = pd.DataFrame({"subject": [1, 2, 3, 4], "scanner": list("AABB"), "value": [1.0, 2.0, 3.0, 4.0]})
    found = scanner_bias(table)
    assert found["value"].isna().all()
    assert found["note"].str.contains("not linked by common subjects").all()


def test_bias_of_one_phantom_uses_its_repeats():
    values = draw((1, 3, 6), scanner=2.0, seed=11)
    found = scanner_bias(long(values))
    units = found[found["statistic"] == "bias"]
    assert (units["df"] == 15).all()
    assert ((units["high"] - units["low"]) > 0.3).all()


def test_reference_that_is_not_there():
    found = scanner_bias(long(draw((4, 3, 1))), reference="Z")
    assert found["note"].str.contains("'Z' is not in this group").all()
    with pytest.raises(TableError, match="cannot split"):
        scanner_bias(long(draw((4, 3, 1))), by="scanner")
