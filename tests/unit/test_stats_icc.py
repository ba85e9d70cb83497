"""Intraclass correlation: published table, limits, missing cells, replicates, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.icc import icc, icc_arrays, icc_from_components, mean_squares, replicated_icc_arrays
from cordqa.stats.icc_core import FORMS, TwoWay, icc_from_mean_squares, step_up
from cordqa.stats.quantiles import f_quantile
from cordqa.stats.table import to_statistics

# Shrout PE, Fleiss JL. Psychol Bull 1979;86:420-428, table 2; results in their tables 3 and 4.
SCORES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
PUBLISHED = (0.17, 0.29, 0.71, 0.44, 0.62, 0.91)


def long(values, **columns):
    """Tidy table from (subjects, scanners[, replicates])."""
    values = np.asarray(values, dtype=float)
    index = np.indices(values.shape).reshape(values.ndim, -1)
    names = ("subject", "scanner", "run")[: values.ndim]
    frame = pd.DataFrame(dict(zip(names, index, strict=True)))
    return frame.assign(value=values.ravel(), **columns)


def draw(rng, shape, subject=2.0, scanner=0.5, interaction=0.0):
    """Crossed values (..., n, k[, m]) with unit residual variance."""
    *lead, n, k = shape[:-1] if len(shape) > 3 or interaction else shape
    y = rng.normal(size=shape)
    extra = (1,) * (y.ndim - len(lead) - 2)
    y = (
        y
        + subject * rng.normal(size=(*lead, n, 1, *extra))
        + scanner * rng.normal(size=(*lead, 1, k, *extra))
    )
    return 50 + y + interaction * rng.normal(size=(*lead, n, k, *extra)) if interaction else 50 + y


# ------------------------------------------------------------------------------------- arrays


def test_published_table():
    ms = mean_squares(SCORES)
    assert (round(float(ms.subjects), 2), round(float(ms.error), 2)) == (11.24, 1.02)
    assert float(ms.raters) == pytest.approx(32.49, abs=0.005)
    assert float(ms.within) == pytest.approx(6.26, abs=0.005)
    np.testing.assert_allclose(icc_arrays(SCORES).value, PUBLISHED, atol=0.005)


def test_regions_are_independent_of_each_other():
    rng = np.random.default_rng(1)
    stack = rng.normal(size=(3, 4, 6, 3))
    stack[1, 2, 0, 0] = np.nan
    found = icc_arrays(stack)
    assert found.value.shape == (3, 4, 6)
    assert np.isnan(found.value[1, 2]).all()
    alone = icc_arrays(stack[2, 3])
    for name in found._fields:
        np.testing.assert_array_equal(getattr(found, name)[2, 3], getattr(alone, name))
        assert np.isfinite(np.delete(getattr(found, name).reshape(12, 6), 6, axis=0)).all()


def test_no_error_at_all_is_one_with_no_doubt():
    same = np.repeat(np.arange(5.0)[:, None], 3, axis=1)
    found = icc_arrays(same)
    for bound in (found.value, found.low, found.high):
        np.testing.assert_array_equal(bound, 1.0)
    np.testing.assert_array_equal(found.p, 0.0)


def test_constant_offset_is_consistency_but_not_agreement():
    shifted = np.arange(5.0)[:, None] + np.array([0.0, 10.0])
    found = dict(zip(FORMS, icc_arrays(shifted).value, strict=True))
    assert found["ICC(C,1)"] == 1.0
    assert found["ICC(A,1)"] < 0.1
    # Rounding of a large offset must not pass for error.
    large = icc_arrays(shifted + 1e7)
    assert large.value[2] == 1.0


def test_nothing_varies_is_nan():
    found = icc_arrays(np.full((4, 3), 7.0))
    assert np.isnan(found.value).all()
    assert np.isnan(found.low).all()


def test_negative_estimates_are_given_as_they_are():
    opposite = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.8], [0.9, 0.1]])
    found = icc_arrays(opposite)
    assert (found.value[:3] < 0).all()
    assert (found.low <= found.value).all()


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (0, 0), (4,)])
def test_too_small_tables(shape):
    with pytest.raises(InputError, match="two subjects and two raters"):
        icc_arrays(np.ones(shape))


def test_a_large_offset_does_not_eat_the_digits():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(12, 4))
    np.testing.assert_allclose(icc_arrays(y + 1e6).value, icc_arrays(y).value, rtol=1e-7)


def test_step_up_of_single_is_the_mean_form():
    found = icc_arrays(SCORES)
    np.testing.assert_allclose(step_up(found.value[:3], 4), found.value[3:], rtol=1e-12)


def test_components_of_a_complete_table_give_the_same_icc():
    ms = mean_squares(SCORES)
    again = icc_from_components((ms.subjects - ms.error) / 4, (ms.raters - ms.error) / 6, ms.error, n=6, k=4)
    direct = icc_arrays(SCORES)
    for name in direct._fields:
        np.testing.assert_allclose(getattr(again, name), getattr(direct, name), rtol=1e-10)


@pytest.mark.parametrize("interval", ["mcgraw-wong", "generalized"])
def test_intervals_cover(interval):
    rng = np.random.default_rng(3)
    values = draw(rng, (3000, 10, 4))
    truth = 4.0 / (4.0 + 0.25 + 1.0)
    found = icc_arrays(values, interval=interval)
    inside = (found.low[:, 1] <= truth) & (truth <= found.high[:, 1])
    assert 0.93 <= inside.mean() <= 0.975


def test_generalized_interval_covers_where_mcgraw_wong_does_not():
    rng = np.random.default_rng(4)
    values = draw(rng, (2500, 10, 3), subject=2.0, scanner=2.0)
    truth = 4.0 / 9.0
    rates = {}
    for interval in ("mcgraw-wong", "generalized"):
        found = icc_arrays(values, interval=interval)
        rates[interval] = np.mean((found.low[:, 1] <= truth) & (truth <= found.high[:, 1]))
    assert rates["mcgraw-wong"] < 0.92  # the known weakness, stated in the docstring
    assert 0.93 <= rates["generalized"] <= 0.97


def test_unknown_interval():
    with pytest.raises(ConfigError, match="mcgraw-wong or generalized"):
        icc_arrays(SCORES, interval="bootstrap")


def test_replicated_components_and_coverage():
    rng = np.random.default_rng(5)
    values = draw(rng, (1500, 10, 3, 2), subject=2.0, scanner=0.7, interaction=0.5)
    found = replicated_icc_arrays(values)
    np.testing.assert_allclose(found.components.mean(axis=0), [4.0, 0.49, 0.25, 1.0], rtol=0.08)
    total = 4.0 + 0.49 + 0.25 + 1.0
    truth = np.array([4 / total, 4 / 5.25, 4 / (4 + 1.74 / 3), 4 / (4 + 1.25 / 3), 4.25 / 5.25])
    inside = ((found.low <= truth) & (truth <= found.high)).mean(axis=0)
    assert (inside > 0.93).all()
    assert (inside < 0.985).all()


# -------------------------------------------------------------------------------------- table


def test_table_gives_all_forms_with_their_words():
    found = icc(long(SCORES, quantity="T1"), by="quantity")
    assert found["statistic"].tolist() == list(FORMS)
    np.testing.assert_allclose(found["value"], PUBLISHED, atol=0.005)
    assert found["estimator"].str.contains("mean squares").all()
    assert found["interval_method"].tolist()[:2] == ["exact F", "McGraw-Wong F"]
    assert found["note"].str.contains("subject means 3 to 7.5").all()
    assert found[["n_subjects", "n_raters", "n_values", "n_missing"]].iloc[0].tolist() == [6, 4, 24, 0]
    record = to_statistics(found)[1]
    assert record.quantity == "T1"
    assert record.n["subjects"] == 6
    assert "Shrout-Fleiss ICC(2,1)" in record.note


def test_table_marks_intervals_known_to_be_short():
    assert "interval-may-be-short" in icc(long(SCORES))["flags"][1]
    assert not icc(long(SCORES), interval="generalized")["flags"].str.contains("short").any()


def test_missing_cells_stop_unless_told_otherwise():
    table = long(SCORES).drop(index=[1, 15])
    with pytest.raises(TableError, match=r"2 of 24 cells have no value.*nan_policy='reml'"):
        icc(table)
    empty = long(SCORES)
    empty.loc[3, "value"] = np.nan
    with pytest.raises(TableError, match="1 cell without a value"):
        icc(empty)


def test_listwise_deletion_is_counted_and_flagged():
    found = icc(long(SCORES).drop(index=[1, 15]), nan_policy="omit")
    np.testing.assert_allclose(found["value"], icc_arrays(np.delete(SCORES, [0, 3], axis=0)).value)
    assert found["flags"].str.contains("listwise").all()
    assert found[["n_subjects", "n_excluded_subjects", "n_missing"]].iloc[0].tolist() == [4, 2, 2]


def test_reml_uses_every_value_and_is_nearer_the_full_table_than_listwise():
    rng = np.random.default_rng(6)
    errors = {"reml": [], "omit": []}
    for _ in range(12):
        values = draw(rng, (20, 4))
        full = icc_arrays(values).value[1]
        table = long(values).sample(frac=0.9, random_state=int(rng.integers(1 << 30)))
        for policy, found in errors.items():
            result = icc(table, nan_policy=policy)
            found.append(result["value"][1] - full)
            assert result["n_missing"][0] == 8
    reml, listwise = (np.sqrt(np.mean(np.square(e))) for e in errors.values())
    assert reml < 0.02
    assert reml < 0.5 * listwise


def test_reml_of_many_regions_at_once_is_that_of_each():
    rng = np.random.default_rng(16)
    table = pd.concat([long(draw(rng, (8, 4)), region=i) for i in range(4)], ignore_index=True)
    table = table.drop(index=[0, 32, 64, 70, 99])
    together = icc(table, by="region", nan_policy="reml")
    for region, part in together.groupby("region"):
        alone = icc(table[table["region"] == region], nan_policy="reml")
        for name in ("value", "low", "high", "df2"):
            np.testing.assert_allclose(part[name], alone[name], rtol=1e-4)
        assert part["n_missing"].tolist() == alone["n_missing"].tolist()


def test_reml_says_when_scanners_are_not_linked():
    nested = pd.DataFrame({"subject": [1, 2, 3, 4], "scanner": list("ABCD"), "value": [1.0, 2.0, 4.0, 3.0]})
    found = icc(nested, nan_policy="reml")
    assert found["value"].isna().all()
    assert (found["flags"] == "not-estimable").all()
    assert found["note"].str.len().min() > 25


def test_replicates_are_never_averaged_silently():
    rng = np.random.default_rng(7)
    values = draw(rng, (8, 3, 2), subject=2.0, scanner=0.5, interaction=0.3)
    table = long(values)
    with pytest.raises(TableError, match="replicates='components'"):
        icc(table)
    averaged = icc(table, replicates="mean")
    np.testing.assert_allclose(averaged["value"], icc_arrays(values.mean(axis=2)).value)
    assert (averaged["flags"].str.contains("replicates-averaged")).all()
    single = icc(table, replicates="components")
    direct = replicated_icc_arrays(values)
    np.testing.assert_allclose(single["value"], direct.value)
    assert single["value"][0] < averaged["value"][1]


def test_unbalanced_replicates_need_reml():
    rng = np.random.default_rng(8)
    table = long(draw(rng, (8, 3, 2), interaction=0.3)).drop(index=[5, 17])
    with pytest.raises(TableError, match="different numbers of replicates"):
        icc(table, replicates="components")
    found = icc(table, replicates="components", nan_policy="reml")
    assert np.isfinite(found["value"]).all()
    assert found["flags"].str.contains("unbalanced").all()


def test_repeated_replicate_number_is_a_mistake():
    table = long(np.arange(24.0).reshape(4, 3, 2)).assign(run=1)
    with pytest.raises(TableError, match="same keys and another value"):
        icc(table, replicate="run", replicates="components")


def test_groups_fail_alone():
    rng = np.random.default_rng(9)
    good = long(draw(rng, (6, 3)), region="good")
    flat = long(np.full((6, 3), 5.0), region="flat")
    one = long(rng.normal(size=(6, 1)), region="one scanner")
    lonely = long(rng.normal(size=(1, 3)), region="one subject")
    found = icc(pd.concat([good, flat, one, lonely], ignore_index=True), by="region")
    by_region = found.groupby("region", sort=False)["value"].apply(lambda v: np.isfinite(v).all())
    assert by_region.to_dict() == {"good": True, "flat": False, "one scanner": False, "one subject": False}
    notes = found.groupby("region")["note"].first()
    assert "all values are equal" in notes["flat"]
    assert "found 6 and 1" in notes["one scanner"]
    assert "found 1 and 3" in notes["one subject"]


def test_listwise_that_leaves_nobody():
    table = long(SCORES[:3]).drop(index=[0, 5, 10])
    found = icc(table, nan_policy="omit")
    assert found["value"].isna().all()
    assert found["note"].str.contains("only 0 subjects").all()


def test_order_of_rows_does_not_matter():
    table = long(SCORES)
    mixed = table.sample(frac=1.0, random_state=3)
    np.testing.assert_allclose(icc(table)["value"], icc(mixed)["value"], rtol=1e-12)


@pytest.mark.parametrize("option", ["interval", "nan_policy", "replicates"])
def test_unknown_options(option):
    with pytest.raises(ConfigError, match=option):
        icc(long(SCORES), **{option: "nonsense"})


def test_exact_intervals_invert_their_f_tests():
    # By construction the lower bound of ICC(C,1) is 0 exactly where F reaches its quantile.
    n, k = 12, 4
    for p in (0.9751, 0.9749):
        f = float(f_quantile(p, n - 1, (n - 1) * (k - 1)))
        one = np.array(1.0)
        ms = TwoWay(np.array(f), one, one, one, n, k, float((n - 1) * (k - 1)))
        assert (icc_from_mean_squares(ms).low[2] > 0) == (p > 0.975)
