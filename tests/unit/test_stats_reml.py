"""Restricted maximum likelihood: against dense algebra, published tables and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from cordqa.errors import FitError, InputError, TooLargeError
from cordqa.stats import mixed_design
from cordqa.stats.component_intervals import (
    bootstrap_variances,
    boundary_test,
    profile_ratio,
    profile_residual_share,
    profile_sd,
    profile_total,
)
from cordqa.stats.deviance import evaluate, prepare
from cordqa.stats.ems import ems_components
from cordqa.stats.mixed_design import find_aliased_columns, find_inestimable_terms, make_design
from cordqa.stats.newton import minimise_batch
from cordqa.stats.reml import fit_reml, predict_effects, simulate_values, solve_fixed_effects

# Yield of dyestuff, 6 batches x 5 preparations: Davies O. L., Goldsmith P. L. (eds) 1972,
# Statistical Methods in Research and Production, 4th ed., section 6.4.
DYESTUFF = np.array(
    [
        [1545, 1440, 1440, 1520, 1580],
        [1540, 1555, 1490, 1560, 1495],
        [1595, 1550, 1605, 1510, 1560],
        [1445, 1440, 1595, 1465, 1545],
        [1595, 1630, 1515, 1635, 1625],
        [1520, 1455, 1450, 1480, 1445],
    ],
    dtype=float,
)


def designs():
    """Crossed with interaction, nested chain, nested beside crossed, each unbalanced."""
    generator = np.random.default_rng(3)
    subject, scanner, repeat = (a.ravel() for a in np.meshgrid(range(7), range(4), range(2), indexing="ij"))
    keep = generator.random(subject.size) > 0.2
    subject, scanner, repeat = subject[keep], scanner[keep], repeat[keep]
    age = np.linspace(20, 60, 7)[subject]
    fixed = np.column_stack([np.ones(subject.size), age - age.mean()])
    site = subject // 2
    session = np.char.add(subject.astype(str), np.char.add("s", scanner.astype(str)))
    return {
        "crossed": ({"subject": subject, "scanner": scanner, "both": subject * 10 + scanner}, fixed),
        "nested": ({"session": session, "subject": subject, "site": site}, None),
        "mixed": ({"site": site, "scanner": scanner, "subject": subject}, fixed),
        "scanners only": ({"scanner": scanner}, None),
    }


DESIGNS = designs()


def dense_deviance(values, labels, fixed, theta, likelihood="reml", sigma=None):
    """Minus twice the log-likelihood from the full covariance matrix, written out."""
    n = values.size
    columns = np.ones((n, 1)) if fixed is None else fixed
    h = np.eye(n)
    for weight, label in zip(theta, labels.values(), strict=True):
        z = (np.asarray(label)[:, None] == np.unique(label)[None, :]).astype(float)
        h += weight**2 * z @ z.T
    inverse = np.linalg.inv(h)
    information = columns.T @ inverse @ columns
    beta = np.linalg.solve(information, columns.T @ inverse @ values)
    rest = values - columns @ beta
    squares = rest @ inverse @ rest
    freedom = n - (columns.shape[1] if likelihood == "reml" else 0)
    logs = np.linalg.slogdet(h)[1]
    logs += np.linalg.slogdet(information)[1] if likelihood == "reml" else 0.0
    if sigma is None:
        return logs + freedom * (1 + np.log(2 * np.pi * squares / freedom))
    return logs + freedom * np.log(2 * np.pi * sigma**2) + squares / sigma**2


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("likelihood", ["reml", "ml"])
def test_deviance_equals_dense_algebra(name, likelihood):
    labels, fixed = DESIGNS[name]
    design = make_design(labels, fixed)
    generator = np.random.default_rng(1)
    values = generator.normal(50, 4, design.n_values)
    prepared = prepare(values[None], design)
    scale = prepared.scale[0]
    freedom = design.n_values - (design.n_fixed if likelihood == "reml" else 0)
    for theta in (np.zeros(len(labels)), generator.uniform(0.1, 3, len(labels))):
        got, _, _ = evaluate(prepared, theta[None], np.array([0]), likelihood=likelihood)
        expected = dense_deviance(values, labels, fixed, theta, likelihood)
        assert got[0] + 2 * freedom * np.log(scale) == pytest.approx(expected, abs=1e-8)
        sigma = 3.0
        got, _, _ = evaluate(
            prepared, theta[None], np.array([0]), likelihood=likelihood, log_sigma=np.log([sigma / scale])
        )
        expected = dense_deviance(values, labels, fixed, theta, likelihood, sigma)
        assert got[0] + 2 * freedom * np.log(scale) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("likelihood", ["reml", "ml"])
@pytest.mark.parametrize("held_sigma", [False, True])
def test_gradient_equals_differences(name, likelihood, held_sigma):
    labels, fixed = DESIGNS[name]
    design = make_design(labels, fixed)
    generator = np.random.default_rng(2)
    prepared = prepare(generator.normal(50, 4, (1, design.n_values)), design)
    theta = generator.uniform(0.2, 2, (1, len(labels)))
    sigma = np.array([0.3]) if held_sigma else None
    row = np.array([0])

    def value(point, log_sigma=sigma):
        return evaluate(prepared, point, row, likelihood=likelihood, log_sigma=log_sigma)[0][0]

    _, gradient, slope = evaluate(prepared, theta, row, likelihood=likelihood, log_sigma=sigma)
    for k in range(len(labels)):
        step = np.zeros_like(theta)
        step[0, k] = 1e-5
        assert gradient[0, k] == pytest.approx(
            (value(theta + step) - value(theta - step)) / 2e-5, rel=1e-5, abs=1e-6
        )
    if held_sigma:
        difference = (value(theta, sigma + 1e-5) - value(theta, sigma - 1e-5)) / 2e-5
        assert slope[0] == pytest.approx(difference, rel=1e-5, abs=1e-6)
    else:
        assert slope[0] == 0.0


def test_dyestuff_has_the_published_components():
    design = make_design({"batch": np.repeat(np.arange(6), 5)})
    fit = fit_reml(DYESTUFF.ravel(), design)
    # Printed by lme4's lmer for its Dyestuff data: 1764 and 2451, REML criterion 319.65.
    assert fit.variances[0] == pytest.approx([1764.05, 2451.25], rel=1e-9)
    assert fit.deviance[0] == pytest.approx(319.6542768, abs=1e-6)
    assert fit.coefficients[0] == pytest.approx([1527.5])
    assert not fit.singular[0]
    assert fit.converged[0]


def one_way_ml_profile(table):
    """Exact profile of the full likelihood of a balanced one-way table, for the SD between rows."""
    q, m = table.shape
    means = table.mean(axis=1)
    between = m * np.sum((means - means.mean()) ** 2)
    within = np.sum((table - means[:, None]) ** 2)

    def deviance(sd, log_sigma):
        s2 = np.exp(2 * log_sigma)
        return (
            q * (m - 1) * np.log(s2) + q * np.log(s2 + m * sd**2) + within / s2 + between / (s2 + m * sd**2)
        )

    def profile(sd):
        return minimize_scalar(
            lambda x: deviance(sd, x), bounds=(2, 6), method="bounded", options={"xatol": 1e-12}
        ).fun

    best = minimize_scalar(profile, bounds=(1, 200), method="bounded", options={"xatol": 1e-10})
    limit = best.fun + 3.841458820694124
    return (
        brentq(lambda s: profile(s) - limit, 1e-6, best.x),
        brentq(lambda s: profile(s) - limit, best.x, 1000),
    )


def test_profile_interval_of_dyestuff_equals_the_exact_one():
    design = make_design({"batch": np.repeat(np.arange(6), 5)})
    bounds = profile_sd(DYESTUFF.ravel()[None], design, likelihood="ml")
    low, high = one_way_ml_profile(DYESTUFF)
    assert bounds.low[0, 0] == pytest.approx(low, abs=1e-4)
    assert bounds.high[0, 0] == pytest.approx(high, abs=1e-4)
    # lme4 4 gives 12.1985 and 84.0631; it interpolates the profile with a spline.
    assert bounds.low[0, 0] == pytest.approx(12.1985, abs=0.0025)
    assert bounds.high[0, 0] == pytest.approx(84.0631, abs=0.0025)


def test_restricted_profile_is_wider_at_the_top_and_boundary_gives_zero():
    design = make_design({"batch": np.repeat(np.arange(6), 5)})
    full = profile_sd(DYESTUFF.ravel()[None], design, likelihood="ml")
    restricted = profile_sd(DYESTUFF.ravel()[None], design)
    assert restricted.high[0, 0] > full.high[0, 0]
    level = np.random.default_rng(0).normal(0, 1, 30)
    flat = (level.reshape(6, 5) - level.reshape(6, 5).mean(axis=1, keepdims=True)).ravel()
    fit = fit_reml(flat, design)
    assert fit.variances[0, 0] == 0.0
    assert fit.singular[0]
    bounds = profile_sd(flat[None], design)
    assert bounds.low[0, 0] == 0.0
    assert 0.0 < bounds.high[0, 0] < 1.0
    assert boundary_test(flat[None], design)[0, 0] == 1.0


def test_profile_ends_lie_where_the_dense_deviance_has_risen():
    labels, fixed = DESIGNS["mixed"]
    design = make_design(labels, fixed)
    generator = np.random.default_rng(5)
    values = simulate_values(design, np.array([4.0, 9.0, 16.0, 2.0]), 1, generator=generator)
    fit = fit_reml(values, design)
    bounds = profile_sd(values, design, fit=fit)
    from scipy.optimize import minimize

    for end in (bounds.low[0, 2], bounds.high[0, 2]):

        def objective(x, end=end):
            sigma = np.exp(x[2])
            theta = np.array([x[0], x[1], end]) / sigma
            return dense_deviance(values[0], labels, fixed, theta, sigma=sigma)

        start = [1.0, 3.0, 0.3]
        best = min(
            minimize(
                objective,
                [a * s for a, s in zip(start, f, strict=True)],
                method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000, "maxfev": 4000},
            ).fun
            for f in ((1, 1, 1), (2, 0.5, 1))
        )
        assert best - fit.deviance[0] == pytest.approx(3.841458820694124, abs=1e-4)


def test_shares_and_totals_agree_with_each_other():
    design = make_design({"batch": np.repeat(np.arange(6), 5)})
    values = DYESTUFF.ravel()[None]
    share = profile_ratio(values, design, 0, others=[1])
    rest = profile_residual_share(values, design)
    assert share.low[0] == pytest.approx(1 - rest.high[0], abs=1e-6)
    assert share.high[0] == pytest.approx(1 - rest.low[0], abs=1e-6)
    alone = profile_total(values, design, [0.0, 1.0])
    residual = profile_sd(values, design)
    assert alone.low[0] == pytest.approx(residual.low[0, 1], rel=1e-6)
    assert alone.high[0] == pytest.approx(residual.high[0, 1], rel=1e-6)
    total = profile_total(values, design, [1.0, 1.0])
    assert total.low[0] < np.sqrt(1764.05 + 2451.25) < total.high[0]
    with pytest.raises(InputError):
        profile_ratio(values, design, 0, others=[0, 1])
    with pytest.raises(InputError):
        profile_total(values, design, [1.0, 0.0])


def test_balanced_crossed_design_equals_mean_squares():
    generator = np.random.default_rng(11)
    array = (
        generator.normal(0, 8, (12, 1, 1))
        + generator.normal(0, 3, (1, 5, 1))
        + generator.normal(0, 2, (12, 5, 1))
        + generator.normal(0, 3, (12, 5, 2))
        + 900
    )
    subject, scanner, _ = (a.ravel() for a in np.meshgrid(range(12), range(5), range(2), indexing="ij"))
    design = make_design({"subject": subject, "scanner": scanner, "both": subject * 5 + scanner})
    exact = ems_components(array, [(0,), (1,), (0, 1)])
    assert np.all(exact.raw > 0)
    assert fit_reml(array.ravel(), design).variances[0] == pytest.approx(exact.raw, rel=1e-6)


def test_many_tables_at_once_equal_one_by_one():
    labels, fixed = DESIGNS["crossed"]
    design = make_design(labels, fixed)
    values = simulate_values(design, np.array([9.0, 1.0, 0.2, 4.0]), 20, generator=np.random.default_rng(0))
    together = fit_reml(values, design)
    for index in (0, 7, 19):
        alone = fit_reml(values[index], design)
        assert alone.variances[0] == pytest.approx(together.variances[index], abs=1e-5)
        assert alone.deviance[0] == pytest.approx(together.deviance[index], abs=1e-8)


def test_simulated_truth_is_recovered_without_bias():
    labels, fixed = DESIGNS["crossed"]
    design = make_design(labels, fixed)
    truth = np.array([9.0, 4.0, 2.0, 4.0])
    fit = fit_reml(simulate_values(design, truth, 1500, generator=np.random.default_rng(8)), design)
    assert fit.converged.all()
    error = fit.variances.std(axis=0) / np.sqrt(1500)
    # Truncation at zero biases small variances upwards; those here are rarely truncated.
    assert np.all(np.abs(fit.variances.mean(axis=0) - truth) < 4 * error + 0.05 * truth)


def test_statsmodels_agrees_on_an_unbalanced_one_way_design():
    import statsmodels.api as sm

    generator = np.random.default_rng(4)
    subject = np.repeat(np.arange(25), generator.integers(1, 6, 25))
    age = generator.normal(40, 10, 25)[subject]
    values = 70 + 0.1 * age + generator.normal(0, 5, 25)[subject] + generator.normal(0, 2, subject.size)
    fixed = np.column_stack([np.ones(subject.size), age])
    oracle = sm.MixedLM(values, fixed, subject).fit(reml=True, method=["lbfgs", "bfgs"])
    fit = fit_reml(values, make_design({"subject": subject}, fixed))
    assert fit.variances[0, 0] == pytest.approx(oracle.cov_re[0, 0], rel=1e-4)
    assert fit.variances[0, 1] == pytest.approx(oracle.scale, rel=1e-4)
    assert fit.coefficients[0] == pytest.approx(oracle.fe_params, rel=1e-5)
    assert np.sqrt(np.diag(fit.covariance[0])) == pytest.approx(oracle.bse_fe, rel=1e-4)


@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_units_and_offsets_do_not_matter(factor):
    labels, _ = DESIGNS["mixed"]
    design = make_design(labels)
    values = 100 + simulate_values(
        design, np.array([4.0, 9.0, 16.0, 2.0]), 1, generator=np.random.default_rng(1)
    )
    plain = fit_reml(values, design)
    scaled = fit_reml(factor * (values + 1e3), design)
    assert scaled.variances[0] == pytest.approx(factor**2 * plain.variances[0], rel=1e-4)


def test_order_of_rows_does_not_matter():
    labels, fixed = DESIGNS["crossed"]
    values = np.random.default_rng(1).normal(5, 1, len(fixed))
    shuffle = np.random.default_rng(2).permutation(values.size)
    plain = fit_reml(values, make_design(labels, fixed))
    mixed = fit_reml(
        values[shuffle], make_design({k: np.asarray(v)[shuffle] for k, v in labels.items()}, fixed[shuffle])
    )
    assert mixed.variances[0] == pytest.approx(plain.variances[0], abs=1e-7)


def test_constant_values_and_perfect_repeats_are_said_not_fitted():
    design = make_design({"subject": np.repeat(np.arange(5), 3)})
    fit = fit_reml(np.full(15, 7.0), design)
    assert np.isnan(fit.variances).all()
    assert "do not vary" in fit.reasons[0]
    perfect = fit_reml(np.repeat([1.0, 2.0, 4.0, 7.0, 9.0], 3), design)
    assert np.isnan(perfect.variances).all()
    assert "repeats do not vary" in perfect.reasons[0]


def test_designs_that_cannot_be_estimated_say_so():
    subject = np.repeat(np.arange(6), 2)
    assert "one level" in find_inestimable_terms(make_design({"scanner": np.zeros(12, int)}))["scanner"]
    unique = make_design({"scan": np.arange(12)})
    assert "residual" in find_inestimable_terms(unique)["scan"]
    copy = find_inestimable_terms(make_design({"subject": subject, "person": subject}))
    assert copy == {"person": "person cannot be told from subject in this design"}
    group = np.column_stack([np.ones(12), subject >= 3])
    site = (subject >= 3).astype(int)
    assert (
        "fixed effects"
        in find_inestimable_terms(make_design({"site": site, "subject": subject}, group))["site"]
    )
    assert not find_inestimable_terms(make_design({"subject": subject}))


def test_bad_designs_are_refused():
    with pytest.raises(InputError, match="random term"):
        make_design({})
    with pytest.raises(InputError, match="differ in length"):
        make_design({"a": [1, 1, 2], "b": [1, 2]})
    with pytest.raises(FitError, match="cannot be told apart"):
        make_design(
            {"a": [1, 1, 2, 2]}, np.array([[1, 0], [1, 0], [1, 0], [1, 0.0]]), fixed_names=["mean", "none"]
        )
    with pytest.raises(FitError, match="not more values"):
        make_design({"a": [1, 1]}, np.array([[1.0, 0.0], [1.0, 1.0]]))
    with pytest.raises(InputError, match="finite"):
        make_design({"a": [1, 1, 2]}, np.array([[1.0], [np.nan], [1.0]]))
    with pytest.raises(InputError, match="length"):
        fit_reml(np.ones(3), make_design({"a": [1, 1, 2, 2]}))


def test_values_that_are_not_finite_are_refused():
    design = make_design({"subject": np.repeat(np.arange(4), 2)})
    with pytest.raises(InputError, match="missing or infinite"):
        fit_reml(np.array([1.0, np.nan, 2, 3, 4, 5, 6, 7]), design)


def test_too_many_crossed_levels_are_refused(monkeypatch):
    monkeypatch.setattr(mixed_design, "_MAX_CELLS", 10)
    with pytest.raises(TooLargeError, match="crossed"):
        make_design({"a": np.arange(20) // 2, "b": np.arange(20) % 5})


def test_aliased_columns_are_found():
    a, b = np.arange(6.0), np.array([1.0, 0, 0, 1, 0, 1])
    assert find_aliased_columns(np.column_stack([np.ones(6), a, 2 * a - 1, b])) == (2,)
    assert find_aliased_columns(np.zeros((4, 1))) == (0,)


def test_predicted_effects_of_a_balanced_one_way_table_shrink_as_they_should():
    design = make_design({"batch": np.repeat(np.arange(6), 5)})
    variances = np.array([1764.05, 2451.25])
    effects = predict_effects(DYESTUFF.ravel(), design, variances)["batch"]
    shrink = variances[0] / (variances[0] + variances[1] / 5)
    assert effects == pytest.approx(shrink * (DYESTUFF.mean(axis=1) - DYESTUFF.mean()))
    assert predict_effects(DYESTUFF.ravel(), design, np.array([0.0, 1.0]))["batch"] == pytest.approx(
        np.zeros(6)
    )


def test_fixed_effects_with_given_components_are_generalised_least_squares():
    labels, fixed = DESIGNS["mixed"]
    design = make_design(labels, fixed)
    values = np.random.default_rng(0).normal(3, 1, design.n_values)
    variances = np.array([1.0, 0.5, 2.0, 1.5])
    covariance = variances[-1] * np.eye(values.size)
    for variance, label in zip(variances, labels.values(), strict=False):
        covariance += variance * (np.asarray(label)[:, None] == np.asarray(label)[None, :])
    inverse = np.linalg.inv(covariance)
    information = fixed.T @ inverse @ fixed
    beta, spread = solve_fixed_effects(values[None], design, variances[None])
    assert beta[0] == pytest.approx(np.linalg.solve(information, fixed.T @ inverse @ values))
    assert spread[0] == pytest.approx(np.linalg.inv(information))


def test_bootstrap_is_reproducible_and_centred():
    design = make_design({"subject": np.repeat(np.arange(15), 3)})
    truth = np.array([4.0, 1.0])
    first = bootstrap_variances(design, truth, n_samples=400, seed=7)
    assert np.array_equal(first, bootstrap_variances(design, truth, n_samples=400, seed=7))
    assert first.mean(axis=0) == pytest.approx(truth, rel=0.1)


def test_boundary_test_keeps_its_size():
    subject, scanner = np.divmod(np.arange(60), 4)
    design = make_design({"subject": subject, "scanner": scanner})
    values = simulate_values(design, np.array([4.0, 0.0, 1.0]), 600, generator=np.random.default_rng(0))
    rejected = np.mean(boundary_test(values, design)[:, 1] < 0.05)
    assert 0.01 < rejected < 0.07


def test_even_functions_are_not_crossed_from_side_to_side():
    # Found by random search: a long first step lands on the mirror image of the start.
    first = [-0.81, -0.03, 0.88, -0.58, -0.11, 0.11, 0.06, -1.23, 0.08, 1.36, -1.55, 0.86, 0.12, -0.64]
    second = [2.00, 0.76, -1.20, 0.07, 0.58, -0.19, 0.68, -0.07, 0.67, 1.44, -0.68, 0.20, -0.46, 0.13]
    values = np.array([*first, *second])
    subject, scanner = np.tile(np.repeat(np.arange(7), 2), 2), np.tile([0, 1], 14)
    fit = fit_reml(values, make_design({"subject": subject, "scanner": scanner}))
    assert fit.converged[0]
    labels = {"subject": subject, "scanner": scanner}
    grid = [
        dense_deviance(values, labels, None, (a, b)) for a in np.linspace(0, 1, 21) for b in (0, 0.1, 0.3)
    ]
    assert dense_deviance(values, labels, None, fit.theta[0]) <= min(grid) + 1e-9


def test_a_saddle_at_zero_is_left():
    # Found by random search: in one order of the rows the search landed on exactly zero, where the
    # gradient of a standard deviation vanishes although a positive one is better.
    values = np.array(
        [
            -10.627,
            -8.668,
            -7.934,
            -6.909,
            -1.213,
            -10.736,
            -11.528,
            -10.917,
            -8.501,
            -7.654,
            -7.461,
            -7.520,
            -0.105,
            0.192,
        ]
    )
    subject = np.array([0, 1, 1, 1, 2, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    scanner = np.array([2, 0, 1, 3, 1, 0, 2, 3, 0, 1, 2, 3, 1, 2])
    fits = []
    for seed in range(30):
        order = np.random.default_rng(seed).permutation(14)
        fits.append(
            fit_reml(values[order], make_design({"subject": subject[order], "scanner": scanner[order]}))
        )
    assert all(fit.variances[0, 1] == pytest.approx(0.0404, rel=0.02) for fit in fits)


def test_batched_newton_finds_minima_of_different_problems():
    centres = np.array([[1.0, -2.0], [30.0, 0.5]])

    def function(points, rows):
        d = points - centres[rows]
        return np.sum(d**2 + 0.1 * d**4, axis=1), 2 * d + 0.4 * d**3

    found = minimise_batch(function, np.zeros((2, 2)))
    assert found.converged.all()
    assert found.point == pytest.approx(centres, abs=1e-6)
    held = minimise_batch(function, np.zeros((2, 2)), free=np.array([[True, False], [True, True]]))
    assert held.point[0, 1] == 0.0
    assert held.point[0, 0] == pytest.approx(1.0, abs=1e-6)
