"""Diffusion tensor: truth, agreement with dipy, uncertainty, outliers, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers_tensor import magnitude, mixture_signal, shells, turned
from scipy.stats import t as student

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.tensor import fit_tensor

TABLE = shells(800.0, n=30, n_b0=5)
WHITE = (1.7, 0.4, 0.3)


def signal_of(eigenvalues, table=TABLE, seed=0):
    return mixture_signal([(1.0, turned(eigenvalues, seed))], table)


def true_maps(eigenvalues):
    values = np.array(eigenvalues)
    mean = values.mean()
    return {
        "FA": np.sqrt(1.5 * ((values - mean) ** 2).sum() / (values**2).sum()),
        "MD": 1000 * mean,
        "AD": 1000 * values.max(),
        "RD": 1000 * (values.sum() - values.max()) / 2,
    }


def assert_contract(fit):
    """A value is NaN exactly where it has a reason, and all maps have the voxel shape."""
    for name, value in fit.maps.values.items():
        np.testing.assert_array_equal(np.isnan(value), ~fit.maps.reason_of(name).ok, err_msg=name)
        assert np.isfinite(value[~np.isnan(value)]).all()


@pytest.mark.parametrize("estimator", ["wls", "iwls", "robust"])
@pytest.mark.parametrize("eigenvalues", [WHITE, (1.0, 0.9, 0.8), (1.0, 1.0, 0.2), (2.0, 2.0, 2.0)])
def test_a_noise_free_tensor_is_found(estimator, eigenvalues):
    fit = fit_tensor(1000 * signal_of(eigenvalues), TABLE, estimator=estimator)
    for name, value in true_maps(eigenvalues).items():
        assert fit.maps.values[name] == pytest.approx(value, abs=2e-6 if name == "FA" else 1e-6), name
    assert fit.maps.values["S0"] == pytest.approx(1000)
    assert not fit.outliers.any()
    assert_contract(fit)


def test_the_direction_is_the_axis():
    axis = np.array([0.6, 0.0, 0.8])
    tensor = 0.3 * np.eye(3) + 1.4 * np.outer(axis, axis)
    fit = fit_tensor(mixture_signal([(1.0, tensor)], TABLE), TABLE)
    assert abs(fit.direction @ axis) == pytest.approx(1, abs=1e-12)


def test_the_same_numbers_as_dipy():
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    rng = np.random.default_rng(0)
    clean = np.array(
        [signal_of((1.7, u, v), seed=k) for k, (u, v) in enumerate(rng.uniform(0.2, 1.2, (300, 2)))]
    )
    data = 500 * magnitude(clean, 1 / 25, rng)
    peer = TensorModel(gradient_table(TABLE.b_values_s_mm2, bvecs=TABLE.directions)).fit(data)
    mine = fit_tensor(data, TABLE).maps.values
    np.testing.assert_allclose(mine["FA"], peer.fa, atol=1e-8, rtol=0)
    for name in ("md", "ad", "rd"):
        np.testing.assert_allclose(mine[name.upper()] / 1e6, getattr(peer, name), rtol=1e-8)


def test_the_answer_does_not_depend_on_the_scale_or_the_dtype():
    data = magnitude(np.tile(signal_of(WHITE), (50, 1)), 1 / 25, np.random.default_rng(1))
    first = fit_tensor(data, TABLE).maps
    for scale in (1e-9, 1e9, 1e300):
        again = fit_tensor(scale * data, TABLE).maps
        np.testing.assert_allclose(again.values["FA"], first.values["FA"], rtol=1e-9)
        np.testing.assert_allclose(again.standard_errors["MD"], first.standard_errors["MD"], rtol=1e-7)
    whole = np.round(4000 * data).astype(np.int16)
    np.testing.assert_array_equal(
        fit_tensor(whole, TABLE).maps.values["FA"], fit_tensor(whole.astype(float), TABLE).maps.values["FA"]
    )


def test_planar_and_spherical_encodings_enter_by_their_tensors():
    n = 24
    directions = shells(1000.0, n=n, n_b0=0).directions
    b_delta = np.concatenate([np.ones(4), np.full(n, -0.5), np.zeros(4)])
    table = GradientTable(
        b_values_s_mm2=np.concatenate([np.zeros(4), np.full(n + 4, 1000.0)]),
        directions=np.concatenate([np.zeros((4, 3)), directions, np.zeros((4, 3))]),
        b_delta=b_delta,
    )
    tensor = turned(WHITE)
    # A planar encoding spreads its b evenly over the plane across its normal; a spherical one everywhere.
    across = (np.trace(tensor) - np.einsum("ni,ij,nj->n", directions, tensor, directions)) / 2
    signal = np.concatenate([np.ones(4), np.exp(-across), np.full(4, np.exp(-np.trace(tensor) / 3))])
    values = fit_tensor(signal, table).maps.values
    for name, value in true_maps(WHITE).items():
        assert values[name] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("eigenvalues", [WHITE, (1.2, 0.7, 0.6), (1.3, 1.1, 0.4)])
def test_95_percent_intervals_cover(eigenvalues):
    rng = np.random.default_rng(3)
    data = magnitude(np.tile(signal_of(eigenvalues), (4000, 1)), 1 / 30, rng)
    fit = fit_tensor(data, TABLE)
    quantile = student.ppf(0.975, fit.degrees_of_freedom[0])
    for name, truth in true_maps(eigenvalues).items():
        hit = np.abs(fit.maps.values[name] - truth) <= quantile * fit.maps.standard_errors[name]
        assert 0.93 <= hit.mean() <= 0.97, name


def test_the_bootstrap_agrees_with_the_analytic_errors():
    data = magnitude(np.tile(signal_of(WHITE), (300, 1)), 1 / 20, np.random.default_rng(4))
    analytic = fit_tensor(data, TABLE).maps.standard_errors
    drawn = fit_tensor(data, TABLE, uncertainty="bootstrap", n_draws=100, seed=1).maps.standard_errors
    for name in ("FA", "MD", "AD", "RD", "S0"):
        ratio = np.sqrt(np.mean(drawn[name] ** 2) / np.mean(analytic[name] ** 2))
        assert ratio == pytest.approx(1, abs=0.06), name
    again = fit_tensor(data, TABLE, uncertainty="bootstrap", n_draws=100, seed=1).maps.standard_errors
    np.testing.assert_array_equal(again["FA"], drawn["FA"])


def test_no_uncertainty_on_request():
    assert not fit_tensor(signal_of(WHITE), TABLE, uncertainty="none").maps.standard_errors


def with_dropouts(n_bad):
    rng = np.random.default_rng(5)
    data = magnitude(np.tile(signal_of(WHITE), (800, 1)), 1 / 20, rng)
    bad = np.zeros(data.shape, dtype=bool)
    for row in bad:
        row[5 + rng.choice(30, n_bad, replace=False)] = True
    return np.where(bad, data * rng.uniform(0.1, 0.5, data.shape), data), bad


@pytest.mark.parametrize("n_bad", [2, 4])
def test_the_robust_fit_finds_dropouts(n_bad):
    data, bad = with_dropouts(n_bad)
    robust, plain = fit_tensor(data, TABLE, estimator="robust"), fit_tensor(data, TABLE)
    assert robust.outliers[bad].mean() > 0.85
    assert robust.outliers[~bad].mean() < 0.03
    truth = true_maps(WHITE)["FA"]
    rmse = {
        name: np.sqrt(np.mean((fit.maps.values["FA"] - truth) ** 2))
        for name, fit in (("robust", robust), ("plain", plain))
    }
    assert rmse["robust"] < 0.5 * rmse["plain"]
    assert not robust.used[robust.outliers].any()
    # What was removed is no longer a degree of freedom.
    np.testing.assert_array_equal(robust.degrees_of_freedom, 28 - robust.outliers.sum(axis=1))


def test_the_robust_fit_without_outliers_is_the_ordinary_one():
    data, _ = with_dropouts(0)
    robust, plain = fit_tensor(data, TABLE, estimator="robust"), fit_tensor(data, TABLE)
    untouched = ~robust.outliers.any(axis=1)
    assert untouched.mean() > 0.4
    np.testing.assert_allclose(
        robust.maps.values["FA"][untouched], plain.maps.values["FA"][untouched], rtol=1e-10
    )


def test_residuals_show_a_dropped_slice():
    data = 100 * magnitude(np.tile(signal_of(WHITE), (6, 5, 4, 1)), 1 / 40, np.random.default_rng(6))
    data[:, :, 2, 11] *= 0.3
    fit = fit_tensor(data, TABLE)
    left = fit.residuals(data).mean(axis=(0, 1))
    assert np.unravel_index(np.abs(left).argmax(), left.shape) == (2, 11)
    with pytest.raises(InputError, match="another shape"):
        fit.residuals(data[0])


# Bad samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -20.0, 1e-6])
def test_one_bad_sample_costs_one_sample(value):
    data = 1000 * np.tile(signal_of(WHITE), (4, 1))
    data[1, 9] = value
    fit = fit_tensor(data, TABLE)
    np.testing.assert_allclose(fit.maps.values["FA"], true_maps(WHITE)["FA"], rtol=1e-9)
    assert fit.maps.reasons.ok.all()
    assert fit.used.sum() == 4 * 35 - 1
    assert not fit.used[1, 9]
    assert list(fit.maps.flag_counts().values()) == [1]
    assert_contract(fit)


def test_a_spike_costs_one_sample():
    data = 1000 * np.tile(signal_of(WHITE), (3, 1))
    data[1, 9], data[2, 9] = 1e9, 1e305
    fit = fit_tensor(data, TABLE)
    np.testing.assert_allclose(fit.maps.values["FA"], true_maps(WHITE)["FA"], rtol=1e-9)
    assert fit.maps.flag_counts() == {
        "samples above 10000 times the signal without weighting were left out": 2
    }


def test_the_memory_order_does_not_matter():
    data = magnitude(np.tile(signal_of(WHITE), (4, 3, 2, 1)), 0.05, np.random.default_rng(2))
    mask = np.random.default_rng(3).random((4, 3, 2)) > 0.3
    first = fit_tensor(data, TABLE, mask=mask).maps.values["FA"]
    again = fit_tensor(np.asfortranarray(data), TABLE, mask=np.asfortranarray(mask)).maps.values["FA"]
    np.testing.assert_array_equal(first, again)
    one = tuple(np.argwhere(mask)[2])
    assert fit_tensor(data[one], TABLE).maps.values["FA"] == pytest.approx(first[one], rel=1e-12)


def test_voxels_that_cannot_be_fitted_say_why():
    data = 1000 * np.tile(signal_of(WHITE), (7, 1))
    data[0] = 0
    data[1] = np.nan
    data[2, :5] = 0
    data[3, 11:] = np.nan
    data[4, 8:] = np.nan
    data[5, 5:] = np.nan
    fit = fit_tensor(data, TABLE)
    words = [fit.maps.reasons.at(i) for i in range(7)]
    assert words == [
        "no signal",
        "no sample is a number",
        "no usable sample without diffusion weighting",
        "",
        "the usable samples do not determine the model",
        "too few usable samples",
        "",
    ]
    assert np.isnan(fit.coefficients[~fit.maps.reasons.ok]).all()
    assert_contract(fit)


def test_a_mask_leaves_voxels_out():
    data = np.tile(signal_of(WHITE), (3, 2, 1))
    mask = np.zeros((3, 2))
    mask[1, 1], mask[0, 0] = 1, np.nan
    fit = fit_tensor(data, TABLE, mask=mask)
    assert fit.maps.reasons.counts() == {"outside the mask": 5}
    assert_contract(fit)
    with pytest.raises(InputError, match=r"\(6,\).*\(3, 2\)"):
        fit_tensor(data, TABLE, mask=np.ones(6))


def test_empty_and_single():
    assert fit_tensor(np.empty((0, 35)), TABLE).maps.values["FA"].shape == (0,)
    assert fit_tensor(signal_of(WHITE), TABLE).maps.values["FA"].shape == ()
    assert fit_tensor(np.zeros((2, 35)), TABLE).maps.reasons.counts() == {"no signal": 2}


def test_exactly_determined_designs_have_no_standard_error_and_a_flag():
    table = shells(800.0, n=6)
    fit = fit_tensor(np.tile(signal_of(WHITE, table), (3, 1)), table, estimator="robust")
    assert np.isnan(fit.maps.standard_errors["FA"]).all()
    assert np.isnan(fit.noise_sd).all()
    assert list(fit.maps.flag_counts()) == [
        "exactly determined: no spare sample, so neither a standard error nor a check of the model"
    ]


def test_what_no_tissue_has_is_kept_and_flagged():
    def flags(eigenvalues):
        return set(fit_tensor(signal_of(eigenvalues), TABLE).maps.flag_counts())

    negative = flags((1.5, 0.3, -0.4))
    assert "an eigenvalue is negative" in negative
    assert "FA above 1" in negative
    assert flags((3.4, 3.4, 3.4)) >= {"mean diffusivity outside 0.05 to 3.1 um2/ms"}
    assert flags((0.03, 0.03, 0.03)) >= {"mean diffusivity outside 0.05 to 3.1 um2/ms"}
    assert not flags(WHITE)


@pytest.mark.parametrize("level", [1.0, 0.7, 1e30])
def test_a_constant_signal_has_no_fa(level):
    fit = fit_tensor(np.full((2, 35), level), TABLE)
    assert fit.maps.reason_of("FA").counts() == {"no diffusion: FA is not defined": 2}
    assert fit.maps.values["MD"] == pytest.approx([0, 0], abs=1e-9)
    assert fit.maps.flags["mean diffusivity outside 0.05 to 3.1 um2/ms"].all()
    assert_contract(fit)


def test_isotropic_tissue_is_flagged_as_noise_in_fa():
    data = magnitude(np.tile(signal_of((3.0, 3.0, 3.0)), (200, 1)), 1 / 30, np.random.default_rng(8))
    flagged = fit_tensor(data, TABLE).maps.flags
    assert (
        flagged["FA is not above its noise: it is biased upward, and its interval does not hold"].mean() > 0.8
    )


# Bad gradients ---------------------------------------------------------------------------------


def refused(match, table, n=None, **options):
    signal = np.ones(len(table) if n is None else n)
    with pytest.raises(InputError, match=match):
        fit_tensor(signal, table, **options)


def test_lengths_that_differ_name_both_counts():
    refused("34 volumes and 35 gradients", TABLE, n=34)


def test_too_few_or_coplanar_directions():
    refused("5 distinct directions .*at least 6", shells(800.0, n=5))
    angle = np.pi * np.arange(12) / 12
    flat = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    table = GradientTable.linear(np.r_[0, np.full(12, 800)], np.concatenate([np.zeros((1, 3)), flat]))
    refused("12 distinct directions", table)
    table = GradientTable.linear(np.r_[0, np.full(12, 800)], np.tile([[0, 0, 1.0]], (13, 1)))
    refused("1 distinct directions", table)
    # A hundredth out of the plane: the noise of one element would be a thousand times that of the others.
    flat[:, 2] = 0.01 * np.random.default_rng(0).normal(size=12)
    refused(
        "lie in one plane", GradientTable.linear(np.r_[0, np.full(12, 800)], np.vstack([np.zeros(3), flat]))
    )


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "ms/um2"), (1e6, "s/m2")])
def test_other_units_of_b(factor, unit):
    refused(unit, replace(TABLE, b_values_s_mm2=factor * TABLE.b_values_s_mm2))


def test_no_volume_without_weighting():
    refused(r"lowest b-value of 800.*at or below 50", TABLE.select(~TABLE.is_b0))
    raised = replace(TABLE, b_values_s_mm2=np.maximum(TABLE.b_values_s_mm2, 60))
    refused("60", replace(raised, directions=np.where(TABLE.is_b0[:, None], [0, 0, 1.0], TABLE.directions)))
    refused("no volume has diffusion weighting", replace(TABLE, b0_limit_s_mm2=900.0))
    refused("no volume has diffusion weighting", replace(TABLE, b_values_s_mm2=0 * TABLE.b_values_s_mm2))


@pytest.mark.parametrize("b", [-5.0, np.nan, np.inf])
def test_impossible_b_values(b):
    values = TABLE.b_values_s_mm2.copy()
    values[9] = b
    refused("volume 10", replace(TABLE, b_values_s_mm2=values))


@pytest.mark.parametrize("length", [0.0, 0.97, 1.01])
def test_directions_that_are_not_unit_vectors(length):
    directions = TABLE.directions.copy()
    directions[7] *= length
    refused(f"{length:.4f} at volume 8", replace(TABLE, directions=directions))


def test_an_empty_table_and_signals_of_another_kind():
    refused("empty", TABLE.select(np.zeros(35, dtype=bool)))
    for bad in (np.ones(35, dtype=complex), np.array(["a"] * 35), np.array([None] * 35)):
        with pytest.raises(InputError, match="real numbers"):
            fit_tensor(bad, TABLE)
    with pytest.raises(InputError, match="a single number"):
        fit_tensor(3.0, TABLE)


def test_options_that_do_not_exist():
    for options in (
        {"estimator": "nlls"},
        {"uncertainty": "yes"},
        {"uncertainty": "bootstrap", "n_draws": 2},
    ):
        with pytest.raises(ConfigError):
            fit_tensor(signal_of(WHITE), TABLE, **options)


def test_high_b_values_are_noted():
    table = shells(1000.0, 2500.0)
    assert "2500" in fit_tensor(signal_of(WHITE, table), table).maps.notices[0]
    assert not fit_tensor(signal_of(WHITE), TABLE).maps.notices


def test_any_noise_gives_a_value_or_a_reason():
    rng = np.random.default_rng(9)
    data = rng.normal(size=(300, 35)) * 10.0 ** rng.uniform(-12, 12, (300, 1))
    data[rng.random(data.shape) < 0.2] = np.nan
    data[:40] = rng.integers(0, 3, (40, 35))
    data[40:80] = 10.0 ** rng.uniform(-150, 150, (40, 35))
    for estimator in ("wls", "iwls", "robust"):
        assert_contract(fit_tensor(data, TABLE, estimator=estimator))
