"""Diffusion kurtosis: truth, agreement with dipy, bounds, noise, uncertainty, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers_tensor import (
    TISSUE_KINDS,
    along,
    cumulants,
    magnitude,
    mixture_signal,
    shells,
    sphere_mean,
    tissue,
)
from scipy.stats import t as student

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion.design import fourth_order, kurtosis_design
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.kurtosis import fit_kurtosis
from cordqa.models.diffusion.kurtosis_constrained import half_sphere_lattice, lowest_values
from cordqa.models.diffusion.noise_from_residuals import estimate_noise_sd

TABLE = shells(1000.0, 2500.0)
MAPS = ("FA", "MD", "AD", "RD", "MK", "AK", "RK", "MKT", "KFA", "S0")
FINE = np.random.default_rng(0).normal(size=(3000, 3))
FINE /= np.linalg.norm(FINE, axis=1, keepdims=True)


def mixtures(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    return [tissue(kind, rng) for _ in range(n)]


def exact_signals(mixes, table=TABLE):
    """Signals of the kurtosis equation itself, with the cumulants of the mixtures; and those cumulants."""
    second, fourth = (np.array(part) for part in zip(*(cumulants(m) for m in mixes), strict=True))
    b, n = table.b_values_s_mm2 / 1000, table.directions
    d, v = along(second, fourth, n)
    return np.exp(-b * d + b**2 / 6 * v), second, fourth


def assert_contract(fit):
    for name, value in fit.maps.values.items():
        np.testing.assert_array_equal(np.isnan(value), ~fit.maps.reason_of(name).ok, err_msg=name)
        assert np.isfinite(value[~np.isnan(value)]).all()


@pytest.mark.parametrize("options", [{"constrained": False}, {}, {"rician": True, "noise_sd": 1e-5}])
@pytest.mark.parametrize("kind", ["white matter", "grey matter"])
def test_noise_free_kurtosis_is_found(kind, options):
    data, second, fourth = exact_signals(mixtures(kind, 12))
    maps = fit_kurtosis(
        300 * data, TABLE, **{**options, **({"noise_sd": 3e-3} if options.get("rician") else {})}
    )
    values = maps.maps.values
    tolerance = 1e-9 if not options.get("constrained", True) else 2e-3
    np.testing.assert_allclose(values["MK"], sphere_mean(second, fourth), rtol=tolerance)
    principal = np.linalg.eigh(
        np.array([[[s[0], s[1], s[3]], [s[1], s[2], s[4]], [s[3], s[4], s[5]]] for s in second])
    )
    for i, axes in enumerate(principal[1]):
        d, v = along(second[i], fourth[i], axes[:, 2][None])
        assert values["AK"][i] == pytest.approx(float((v / d**2)[0]), abs=max(1e-9, tolerance))
        angle = np.pi * np.arange(400) / 400
        circle = np.outer(np.cos(angle), axes[:, 0]) + np.outer(np.sin(angle), axes[:, 1])
        d, v = along(second[i], fourth[i], circle)
        assert values["RK"][i] == pytest.approx((v / d**2).mean(), rel=max(1e-8, tolerance))
    assert set(values) == set(MAPS)
    assert_contract(maps)


def test_the_same_numbers_as_dipy():
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel

    rng = np.random.default_rng(1)
    clean = np.array([mixture_signal(m, TABLE) for k in TISSUE_KINDS for m in mixtures(k, 15)])
    data = 400 * magnitude(clean, 1 / 30, rng)
    peer = DiffusionKurtosisModel(gradient_table(TABLE.b_values_s_mm2, bvecs=TABLE.directions)).fit(data)
    fit = fit_kurtosis(data, TABLE, constrained=False)
    mine, wide = fit.maps.values, {"min_kurtosis": -1e9, "max_kurtosis": 1e9}
    eigenvalues = np.sort(peer.evals, axis=1)
    apart = eigenvalues[:, 1] > 1.03 * eigenvalues[:, 0]
    for name, theirs in (
        ("FA", peer.fa),
        ("AK", peer.ak(**wide)),
        ("MKT", peer.mkt(**wide)),
        ("KFA", peer.kfa),
    ):
        np.testing.assert_allclose(mine[name], theirs, rtol=1e-8, atol=1e-8, err_msg=name)
    for name in ("md", "ad", "rd"):
        np.testing.assert_allclose(mine[name.upper()] / 1e6, getattr(peer, name), rtol=1e-8)
    # dipy takes eigenvalues within 2.5 % of each other as equal.
    np.testing.assert_allclose(mine["RK"][apart], peer.rk(**wide)[apart], rtol=1e-8, atol=1e-8)
    # MK of dipy rests on elliptic integrals to about 1e-4; ours is that of a dense quadrature.
    np.testing.assert_allclose(
        mine["MK"], sphere_mean(fit.coefficients[:, :6], fit.coefficients[:, 6:21]), rtol=1e-8
    )
    np.testing.assert_allclose(mine["MK"], peer.mk(**wide), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    "eigenvalues", [(2.0, 2.0, 2.0), (2.0, 0.5, 0.5), (1.0, 1.0, 0.1), (2.0, 0.03, 0.02), (3.0, 3e-3, 2e-3)]
)
def test_mean_kurtosis_from_spheres_to_sticks(eigenvalues):
    from cordqa.models.diffusion.kurtosis_metrics import kurtosis_maps

    one = np.array([[1.0] * 3 + [0.0] * 6 + [1 / 3] * 3 + [0.0] * 3])
    second = np.array([[eigenvalues[2], 0, eigenvalues[1], 0, 0, eigenvalues[0]]])
    expected = sphere_mean(second, one, n_polar=500 if eigenvalues[2] < 0.01 else 200)
    found = kurtosis_maps(one, np.array([eigenvalues]), np.eye(3)[None][:, :, ::-1])
    assert found["MK"] == pytest.approx(expected, rel=1e-7)
    assert found["KFA"] == pytest.approx(0, abs=1e-7)
    assert found["MKT"] == pytest.approx(1 / np.mean(eigenvalues) ** 2)


def noisy(kind, n, seed, snr=30.0):
    mixes = mixtures(kind, n, seed)
    clean = np.array([mixture_signal(m, TABLE) for m in mixes])
    second, fourth = (np.array(part) for part in zip(*(cumulants(m) for m in mixes), strict=True))
    return magnitude(clean, 1 / snr, np.random.default_rng(seed + 1)), second, fourth


@pytest.mark.parametrize("rician", [False, True])
def test_the_constrained_fit_has_no_negative_kurtosis_in_any_direction(rician):
    data = np.concatenate([noisy(kind, 20, 11)[0] for kind in TISSUE_KINDS])
    fit = fit_kurtosis(data, TABLE, rician=rician, noise_sd=1 / 30 if rician else None)
    d, v = along(fit.coefficients[:, :6], fit.coefficients[:, 6:21], FINE)
    assert v.min() >= 0
    assert (v * 2.5 / (3 * d)).max() < 1.1
    free = fit_kurtosis(data, TABLE, constrained=False)
    _, without = along(free.coefficients[:, :6], free.coefficients[:, 6:21], FINE)
    assert (without.min(axis=1) < 0).mean() > 0.5
    text = "kurtosis is negative along some direction"
    assert text not in fit.maps.flag_counts()
    assert free.maps.flag_counts()[text] >= 40


def test_the_lowest_of_many_valleys_is_found():
    # Fits at their bounds come close to zero along many directions: the lowest of a lattice is not
    # always in the deepest valley, and a step of Newton's method may leap across one.
    first = "0.2537 1.5386 0.0663 0.2599 0.0488 -0.5888 -0.1374 0.0965 0.0692 0.1171 0.1061 -0.0182 0.1038"
    second = "0.1074 0.275 1.4311 -0.0714 -0.055 0.1268 -0.1339 0.5657 0.2815 0.0623 0.1584 -0.1378 -0.0242"
    fourth = np.array([f"{first} -0.0542 0.1124".split(), f"{second} -0.1489 -0.0365".split()], dtype=float)
    dense = fourth @ fourth_order(half_sphere_lattice(20_000)).T
    assert np.all(lowest_values(fourth) <= dense.min(axis=1) + 1e-6)


def test_the_constrained_fit_solves_its_quadratic_problem():
    from scipy.optimize import LinearConstraint, minimize

    from cordqa.models.diffusion.kurtosis_constrained import Cone, project
    from cordqa.models.diffusion.linear_fit import Block, Design, fit_weighted

    data = noisy("white matter", 4, 21)[0]
    design = Design.of(kurtosis_design(TABLE))
    free = fit_weighted(Block.of(data, np.arange(4), TABLE.is_b0, 22), design)
    cone = Cone.of(2.5)
    found = project(free.gamma, free.gram, design, cone, refine=False).gamma
    rows = cone.coarse @ design.inverse
    for gamma, gram, mine in zip(free.gamma, free.gram, found, strict=True):
        peer = minimize(
            lambda x, g=gamma, m=gram: (x - g) @ m @ (x - g),
            mine + 0.05,
            jac=lambda x, g=gamma, m=gram: 2 * m @ (x - g),
            method="SLSQP",
            constraints=LinearConstraint(rows, 0, np.inf),
            options={"maxiter": 500, "ftol": 1e-14},
        )
        assert (rows @ mine).min() > -1e-9
        assert (mine - gamma) @ gram @ (mine - gamma) <= peer.fun * (1 + 1e-5) + 1e-10


def test_bounds_that_do_not_bind_change_nothing():
    data, _, _ = exact_signals(mixtures("grey matter", 6))
    np.testing.assert_allclose(
        fit_kurtosis(data, TABLE).maps.values["RK"],
        fit_kurtosis(data, TABLE, constrained=False).maps.values["RK"],
        rtol=1e-6,
    )


def test_bounds_lower_the_error_of_mean_kurtosis():
    errors = {True: [], False: []}
    for kind in TISSUE_KINDS[:3]:
        data, second, fourth = noisy(kind, 100, 31)
        truth = sphere_mean(second, fourth, 30)
        for constrained, found in errors.items():
            found.append(fit_kurtosis(data, TABLE, constrained=constrained).maps.values["MK"] - truth)
    rmse = {key: np.sqrt(np.mean(np.square(found))) for key, found in errors.items()}
    assert rmse[True] <= 0.14
    assert rmse[False] > 1.5 * rmse[True]


def test_the_rician_fit_lowers_the_error_of_axial_kurtosis():
    data, second, fourth = noisy("white matter", 80, 41)
    d, v = along(second, fourth, np.array([[0, 0, 1.0]]))
    bias = {
        rician: np.median(fit_kurtosis(data, TABLE, rician=rician).maps.values["AK"] - (v / d**2)[:, 0])
        for rician in (False, True)
    }
    assert 0 < bias[True] < 0.75 * bias[False]


def test_axial_kurtosis_at_the_noise_floor_is_flagged():
    text = "AK: the signal along the main direction lies under the noise floor at the largest b"
    strong, weak = (noisy("white matter", 30, 51, snr)[0] for snr in (500.0, 20.0))
    assert text not in fit_kurtosis(strong, TABLE).maps.flag_counts()
    assert fit_kurtosis(weak, TABLE).maps.flags[text].mean() > 0.9
    assert fit_kurtosis(weak, TABLE, noise_sd=0.05).maps.flags[text].mean() > 0.9


def test_the_noise_is_estimated():
    data = 700 * np.concatenate([noisy(kind, 100, 61)[0] for kind in TISSUE_KINDS])
    assert estimate_noise_sd(data, TABLE) == pytest.approx(700 / 30, rel=0.04)
    with pytest.raises(InputError, match="give noise_sd"):
        estimate_noise_sd(np.zeros((5, 41)), TABLE)
    with pytest.raises(InputError, match="give noise_sd"):
        fit_kurtosis(np.ones((5, 41)), TABLE, rician=True)


@pytest.mark.parametrize("kind", ["crossing", "grey matter"])
def test_95_percent_intervals_cover_above_the_noise_floor(kind):
    mix = mixtures(kind, 1, 3)
    clean, _, _ = exact_signals(mix)
    truth = fit_kurtosis(clean, TABLE, constrained=False).maps.values
    data = magnitude(np.repeat(clean, 1500, axis=0), 1 / 100, np.random.default_rng(7))
    fit = fit_kurtosis(data, TABLE, constrained=False)
    quantile = student.ppf(0.975, fit.degrees_of_freedom[0])
    for name in ("FA", "MD", "AD", "RD", "S0", "MK", "AK", "RK", "MKT"):
        hit = np.abs(fit.maps.values[name] - truth[name]) <= quantile * fit.maps.standard_errors[name]
        assert 0.93 <= hit.mean() <= 0.975, name
    assert "KFA" not in fit.maps.standard_errors


def test_the_bootstrap_agrees_with_the_analytic_errors():
    clean, _, _ = exact_signals(mixtures("crossing", 1, 3))
    data = magnitude(np.repeat(clean, 60, axis=0), 1 / 100, np.random.default_rng(8))
    options = {"constrained": False}
    analytic = fit_kurtosis(data, TABLE, **options).maps.standard_errors
    drawn = fit_kurtosis(data, TABLE, uncertainty="bootstrap", n_draws=60, **options).maps.standard_errors
    for name in ("MD", "MK", "AK", "RK", "MKT"):
        ratio = np.sqrt(np.mean(drawn[name] ** 2) / np.mean(analytic[name] ** 2))
        assert ratio == pytest.approx(1, abs=0.12), name


# Bad samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"constrained": False}, {}, {"rician": True, "noise_sd": 0.01}])
def test_one_bad_sample_costs_one_sample(options):
    data, second, fourth = exact_signals(mixtures("grey matter", 3))
    data[0, 9], data[1, 12] = np.nan, 0.0
    fit = fit_kurtosis(data, TABLE, **options)
    np.testing.assert_allclose(fit.maps.values["MK"], sphere_mean(second, fourth), rtol=1e-2)
    assert fit.used.sum() == 3 * 41 - 2
    assert sorted(fit.maps.flag_counts().values())[:2] == [1, 1]
    assert_contract(fit)


@pytest.mark.parametrize("options", [{"constrained": False}, {}, {"rician": True, "noise_sd": 0.02}])
def test_any_noise_gives_a_value_or_a_reason(options):
    rng = np.random.default_rng(9)
    data = np.abs(rng.normal(size=(60, 41))) * 10.0 ** rng.uniform(-3, 3, (60, 1))
    data[rng.random(data.shape) < 0.1] = np.nan
    data[:10] = rng.integers(0, 3, (10, 41))
    data[10], data[11], data[12, 22:] = 0, np.nan, np.nan
    fit = fit_kurtosis(data, TABLE, **options)
    assert_contract(fit)
    counts = fit.maps.reasons.counts()
    assert counts["no signal"] == 1
    assert counts["no sample is a number"] == 1
    assert not fit.maps.reasons.ok[12]


def test_a_tensor_that_is_not_positive_has_no_kurtosis():
    second = np.array([[1.2, 0, 0.5, 0, 0, -0.2]])
    b, n = TABLE.b_values_s_mm2 / 1000, TABLE.directions
    d, v = along(second, np.zeros((1, 15)), n)
    fit = fit_kurtosis(np.exp(-b * d + b**2 / 6 * v), TABLE, constrained=False)
    assert fit.maps.reason_of("MK").at(0) == "an eigenvalue is not positive: kurtosis is not defined"
    assert np.isnan(fit.maps.values["RK"]).all()
    assert fit.maps.values["MD"] == pytest.approx(500)
    assert "an eigenvalue is negative" in fit.maps.flag_counts()
    assert_contract(fit)


@pytest.mark.parametrize("options", [{"constrained": False}, {}, {"rician": True, "noise_sd": 0.02}])
def test_a_constant_signal_has_no_kurtosis(options):
    fit = fit_kurtosis(np.ones((2, 41)), TABLE, **options)
    assert np.isnan(fit.maps.values["MK"]).all()
    assert_contract(fit)


def test_water_has_no_kurtosis_and_leaves_the_range_of_the_expansion():
    data = mixture_signal([(1.0, 3.0 * np.eye(3))], TABLE)[None]
    fit = fit_kurtosis(data, TABLE)
    assert fit.maps.values["MK"] == pytest.approx(0, abs=1e-5)
    assert any("left its range" in text for text in fit.maps.flag_counts())


def test_exactly_determined_voxels_are_flagged():
    data, _, _ = exact_signals(mixtures("grey matter", 2))
    design = kurtosis_design(TABLE)
    kept = [0]
    for i in range(1, 41):
        if np.linalg.matrix_rank(design[[*kept, i]]) > len(kept):
            kept.append(i)
    assert len(kept) == 22
    data[0, np.setdiff1d(np.arange(41), kept)] = np.nan
    fit = fit_kurtosis(data, TABLE)
    assert fit.degrees_of_freedom[0] == 0
    assert np.isnan(fit.maps.standard_errors["MK"][0])
    assert np.isfinite(fit.maps.standard_errors["MK"][1])
    assert any(text.startswith("exactly determined") for text in fit.maps.flag_counts())


# Bad gradients ---------------------------------------------------------------------------------


def refused(match, table, **options):
    with pytest.raises(InputError, match=match):
        fit_kurtosis(np.ones((2, len(table))), table, **options)


def test_schemes_that_cannot_support_kurtosis():
    refused("1 at about 1000.*at least 2", shells(1000.0, n=30))
    refused("from 1000 to 1150.*230 s/mm2 or more apart", shells(1000.0, 1150.0))
    refused("14 distinct directions .*at least 15", shells(1000.0, 2500.0, n=14))
    refused("6 distinct directions", shells(1000.0, 2500.0, n=6))
    refused("shape", replace(TABLE, b_delta=np.where(np.arange(41) == 30, -0.5, 1.0)))
    refused("ms/um2", replace(TABLE, b_values_s_mm2=TABLE.b_values_s_mm2 / 1000))
    refused("lowest b-value of 1000", TABLE.select(~TABLE.is_b0))
    angle = np.pi * np.arange(40) / 40
    flat = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    b = np.concatenate([[0], np.full(40, 1000), np.full(40, 2500)])
    refused("rank", GradientTable.linear(b, np.concatenate([np.zeros((1, 3)), flat, flat])))


def test_lengths_noise_and_options():
    with pytest.raises(InputError, match="40 volumes and 41 gradients"):
        fit_kurtosis(np.ones((2, 40)), TABLE)
    refused("another shape", TABLE, rician=True, noise_sd=np.ones(3))
    for bad in (0.0, -1.0, np.nan, np.array([np.nan, 0.0])):
        refused("has to be positive", TABLE, rician=True, noise_sd=bad)
    with pytest.raises(ConfigError, match="bootstrap"):
        fit_kurtosis(np.ones((2, 41)), TABLE, uncertainty="bootstrap")


def test_a_noise_map_of_nothing_is_no_error_of_the_other_voxels():
    # A piece of a volume that lies outside the body.
    fit = fit_kurtosis(noisy("grey matter", 4, 71)[0], TABLE, rician=True, noise_sd=np.full(4, np.nan))
    assert fit.maps.reasons.counts() == {"no noise standard deviation above zero": 4}


def test_a_noise_map_may_be_empty_outside_the_mask():
    data = noisy("grey matter", 4, 71)[0]
    mask, noise = np.array([1, 1, 0, 0]), np.array([1 / 30, 1 / 20, 0.0, np.nan])
    fit = fit_kurtosis(data, TABLE, rician=True, noise_sd=noise, mask=mask)
    assert fit.maps.reasons.counts() == {"outside the mask": 2}
    fit = fit_kurtosis(data, TABLE, rician=True, noise_sd=noise)
    assert fit.maps.reasons.counts() == {"no noise standard deviation above zero": 2}
    assert fit_kurtosis(data, TABLE, noise_sd=noise).maps.reasons.ok.all()


def test_empty_and_single():
    assert fit_kurtosis(np.empty((0, 41)), TABLE).maps.values["MK"].shape == (0,)
    assert fit_kurtosis(exact_signals(mixtures("crossing", 1))[0][0], TABLE).maps.values["MK"].shape == ()
