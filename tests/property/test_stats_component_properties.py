"""What must hold for any table: order, units, offsets and impossible inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.errors import CordqaError
from cordqa.stats.control import chart_values
from cordqa.stats.deviance import evaluate, prepare
from cordqa.stats.ems import ems_components, variance_intervals
from cordqa.stats.harmonise import Combat, TravellingSubject
from cordqa.stats.mixed_design import find_inestimable_terms, make_design
from cordqa.stats.proportions import check_granularity, proportion_interval
from cordqa.stats.reml import fit_reml
from cordqa.stats.roc import auc_interval, roc_areas

QUICK = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def crossed_tables(draw):
    """Unbalanced subject by scanner tables."""
    generator = np.random.default_rng(draw(seeds))
    n, k = draw(st.integers(3, 8)), draw(st.integers(2, 4))
    subject, scanner = np.divmod(np.arange(n * k), k)
    subject, scanner = np.tile(subject, 2), np.tile(scanner, 2)
    keep = generator.random(subject.size) < draw(st.floats(0.5, 1.0))
    values = generator.normal(0, draw(st.floats(0, 5)), n)[subject] + generator.normal(0, 1, subject.size)
    return values[keep], subject[keep], scanner[keep], generator


@QUICK
@given(crossed_tables(), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_reml_is_stationary_and_free_of_units_and_order(table, factor, offset):
    values, subject, scanner, generator = table
    try:
        design = make_design({"subject": subject, "scanner": scanner})
    except CordqaError:
        return
    # With hardly more values than levels the residual can be driven to nothing: no stable answer.
    if find_inestimable_terms(design) or values.size < 2 * sum(design.n_levels):
        return
    fit = fit_reml(values, design)
    assert fit.converged.all()
    assert np.all(fit.variances >= 0)
    _, gradient, _ = evaluate(prepare(values[None], design), fit.theta, np.array([0]))
    assert np.abs(gradient).max() < 1e-3
    order = generator.permutation(values.size)
    other = fit_reml(
        factor * values[order] + offset, make_design({"subject": subject[order], "scanner": scanner[order]})
    )
    assert other.variances[0] == pytest.approx(factor**2 * fit.variances[0], rel=1e-3, abs=1e-4 * factor**2)


@QUICK
@given(seeds, st.integers(2, 6), st.integers(2, 5), st.integers(1, 3))
def test_mean_squares_add_up_and_intervals_hold_the_estimate(seed, n, k, m):
    values = np.random.default_rng(seed).normal(0, 1, (n, k, m))
    fit = ems_components(values, [(0,), (1,)])
    total = np.sum((values - values.mean()) ** 2)
    assert np.sum(fit.mean_squares * fit.df) == pytest.approx(total)
    assert fit.df.sum() == values.size - 1
    bounds = variance_intervals(fit)
    assert np.all(bounds.low >= 0)
    positive = fit.raw > 0
    assert np.all(bounds.low[positive] <= fit.raw[positive])
    assert np.all(bounds.high[positive] >= fit.raw[positive])


@QUICK
@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(0, 3))
def test_areas_under_monotone_change_and_swap(seed, m, n, decimals):
    generator = np.random.default_rng(seed)
    scores = np.round(generator.normal(0, 1, m + n), decimals)
    case = np.arange(m + n) < m
    areas = roc_areas(scores, case)
    assert 0.0 <= areas.area[0] <= 1.0
    assert roc_areas(scores**3 + scores, case).area[0] == pytest.approx(areas.area[0])
    swapped = roc_areas(-scores, case)
    assert swapped.area[0] == pytest.approx(1 - areas.area[0])
    assert swapped.covariance == pytest.approx(areas.covariance, abs=1e-12)
    bounds, _ = auc_interval(areas.area, np.diag(areas.covariance), m, n)
    assert 0.0 <= bounds.low[0] <= areas.area[0] <= bounds.high[0] <= 1.0


@QUICK
@given(seeds, st.floats(-50, 50), st.floats(-50, 50))
def test_shifts_of_scanners_do_not_change_what_travellers_give(seed, first, second):
    generator = np.random.default_rng(seed)
    subject, batch = np.divmod(np.arange(24), 3)
    values = generator.normal(70, 5, 8)[subject] + generator.normal(0, 1, 24)
    moved = values + np.array([first, second, 0.0])[batch]
    plain = TravellingSubject(reference="2").fit_transform(values, batch=batch, subject=subject)
    other = TravellingSubject(reference="2").fit_transform(moved, batch=batch, subject=subject)
    assert other == pytest.approx(plain, abs=1e-8)


@QUICK
@given(seeds, st.integers(0, 29), st.integers(0, 5), st.floats(0.01, 100))
def test_combat_keeps_holes_where_they_are_and_follows_units(seed, row, column, factor):
    generator = np.random.default_rng(seed)
    batch = np.repeat(["a", "b", "c"], 10)
    values = generator.normal(10, 1, (30, 6)) + (batch == "b")[:, None]
    values[row, column] = np.nan
    clean = Combat().fit_transform(values, batch=batch)
    assert np.array_equal(np.isnan(clean), np.isnan(values))
    scaled = Combat().fit_transform(factor * values, batch=batch)
    assert scaled == pytest.approx(factor * clean, rel=1e-6, nan_ok=True)


@QUICK
@given(seeds, st.integers(0, 80), st.floats(0.01, 100), st.booleans())
def test_charts_follow_units_and_never_look_ahead(seed, n, factor, flip):
    values = np.random.default_rng(seed).normal(0, 1, n)
    chart = chart_values(values)
    scaled = chart_values((-factor if flip else factor) * values + 3)
    assert scaled.z == pytest.approx((-1 if flip else 1) * chart.z, rel=1e-5, abs=1e-7, nan_ok=True)
    if n > 30:
        shorter = chart_values(values[:-5])
        assert np.array_equal(shorter.signals["ewma"], chart.signals["ewma"][:-5])


@QUICK
@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 2))
def test_published_percentages(n, k, decimals):
    k = min(k, n)
    found = check_granularity(round(100 * k / n, decimals), n, decimals=decimals)
    assert found.possible
    assert k in found.counts
    assert n in found.possible_n
    for method in ("wilson", "clopper-pearson"):
        bounds = proportion_interval(k, n, method=method)
        assert 0 <= bounds.low <= k / n + 1e-12
        assert k / n - 1e-12 <= bounds.high <= 1
