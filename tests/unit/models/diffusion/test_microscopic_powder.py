"""Powder averages: exact weights, lost samples, noise from the scatter."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_microscopic import LINEAR_SPHERICAL, scheme, spiral

from cordqa.errors import InputError
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    BUnitError,
    BValueError,
    DirectionNormError,
    GradientLengthError,
)
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.powder import (
    average_shells,
    find_shells,
    repair_samples,
)
from cordqa.models.diffusion.powder_checks import check_noise_sd, check_signals


def one_shell(n, directions=None, b=2000.0):
    directions = spiral(n) if directions is None else directions
    return GradientTable(b_values_s_mm2=np.full(n, b), directions=directions, b_delta=np.ones(n))


@pytest.mark.parametrize(("n", "degree"), [(6, 2), (10, 2), (20, 4), (30, 4)])
def test_weights_average_even_polynomials_exactly(n, degree):
    shell = find_shells(one_shell(n))[0]
    assert shell.degree == degree
    x, y, z = spiral(n).T
    assert shell.weights.sum() == pytest.approx(1)
    # Means over the sphere: 1/3 of a square, 1/5 of a fourth power, 1/15 of a product of squares.
    for square in (x * x, y * y, z * z):
        assert shell.weights @ square == pytest.approx(1 / 3)
    assert shell.weights @ (x * y) == pytest.approx(0, abs=1e-12)
    if degree == 4:
        assert shell.weights @ x**4 == pytest.approx(1 / 5)
        assert shell.weights @ (x * z) ** 2 == pytest.approx(1 / 15)
        assert shell.weights @ (x * y * z * z) == pytest.approx(0, abs=1e-12)


def test_a_few_or_coplanar_directions_are_averaged_as_they_are():
    few = find_shells(one_shell(4))[0]
    angle = np.linspace(0, np.pi, 12, endpoint=False)
    flat = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    for shell in (few, find_shells(one_shell(12, flat))[0]):
        assert shell.degree == 0
        assert np.allclose(shell.weights, 1 / shell.volumes.size)
        assert shell.leakage > 0


def test_three_perpendicular_directions_leak_less_than_three_others():
    perpendicular = find_shells(one_shell(3, np.eye(3)))[0]
    tilted = np.array([[1, 0, 0], [0.9, 0.435889894, 0], [0.9, 0, 0.435889894]])
    assert perpendicular.leakage < 0.2 * find_shells(one_shell(3, tilted))[0].leakage


def test_a_lost_sample_changes_nothing_that_the_others_do_not_say():
    rng = np.random.default_rng(3)
    table = scheme(LINEAR_SPHERICAL)
    shells = find_shells(table)
    data = 100 + rng.normal(0, 1, (2, len(table)))
    full = data.copy()
    # A signal that is a polynomial of degree 2 plus nothing: any lost sample is known exactly.
    full[0] = 100 + 20 * table.directions[:, 0] ** 2 - 7 * table.directions[:, 1] * table.directions[:, 2]
    broken = full.copy()
    lost_at = shells[-2].volumes[5]
    broken[:, lost_at] = [np.nan, -3.0]
    repaired, lost = repair_samples(broken, shells)
    assert repaired[0, lost_at] == pytest.approx(full[0, lost_at])
    assert lost.sum() == 2
    assert lost[-2].tolist() == [1, 1]
    shell = shells[-2]
    kept = shell.volumes[shell.volumes != lost_at]
    rows = np.isin(shell.volumes, kept)
    fitted = np.linalg.lstsq(shell.basis[rows], full[1, kept], rcond=None)[0]
    mean = shell.weights @ shell.basis @ fitted
    averages = average_shells(repaired, shells, lost=lost)
    # The mean with the prediction put in is the mean of the fit without the sample.
    residual = full[1, kept] - shell.basis[rows] @ fitted
    assert averages.means[-2, 1] == pytest.approx(mean + shell.weights[rows] @ residual, abs=1e-9)


def test_a_shell_that_lost_too_much_has_no_average():
    table = scheme(LINEAR_SPHERICAL)
    shells = find_shells(table)
    data = np.full((1, len(table)), 50.0)
    data[0, shells[1].volumes[:3]] = 0.0
    repaired, lost = repair_samples(data, shells)
    averages = average_shells(repaired, shells, lost=lost)
    assert np.isnan(averages.means[1, 0])
    assert np.isfinite(np.delete(averages.means[:, 0], 1)).all()


def test_noise_comes_from_scatter_and_variances_of_means_are_right():
    table = scheme(LINEAR_SPHERICAL)
    shells = find_shells(table)
    rng = np.random.default_rng(5)
    data = 500 + rng.normal(0, 10, (4000, len(table)))
    averages = average_shells(data, shells)
    assert np.sqrt((averages.noise_sd**2).mean()) == pytest.approx(10, rel=0.02)
    assert np.allclose(averages.means.var(axis=1), averages.variances.mean(axis=1), rtol=0.12)
    given = average_shells(data, shells, noise_sd=np.full(4000, 10.0))
    assert np.isinf(given.freedom).all()


def test_scatter_between_few_directions_counts_as_error_of_their_mean():
    table = scheme(((0, 0.0, 4), (1000, 1.0, 4), (1000, 0.0, 10)))
    shells = find_shells(table)
    signal = 100 * np.exp(-table.b_ms_um2 * (0.3 + 1.4 * table.directions[:, 0] ** 2 * table.b_delta))
    rng = np.random.default_rng(1)
    averages = average_shells(signal + rng.normal(0, 1, (300, len(table))), shells)
    number = [shell.name for shell in shells].index("b = 1000 linear")
    assert np.median(averages.variances[number]) > 3 * shells[number].variance_factor


def test_magnitudes_at_the_noise_floor_are_no_measure_of_the_noise():
    table = scheme(((0, 0.0, 4), (700, 0.0, 6), (700, 1.0, 6), (1400, 0.0, 30), (1400, 1.0, 20)))
    rng = np.random.default_rng(2)
    level = np.where(table.b_values_s_mm2 > 1000, 0.0, 1000.0)
    noise = rng.normal(0, 10, (2, 3000, len(table)))
    averages = average_shells(np.hypot(level + noise[0], noise[1]), find_shells(table))
    assert np.sqrt((averages.noise_sd**2).mean()) == pytest.approx(10, rel=0.05)


def change(**parts):
    table = scheme(LINEAR_SPHERICAL)
    values = {
        "b_values_s_mm2": table.b_values_s_mm2.copy(),
        "directions": table.directions.copy(),
        "b_delta": table.b_delta.copy(),
    }
    for name, (index, value) in parts.items():
        values[name][index] = value
    return GradientTable(**values)


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (change(b_values_s_mm2=(3, np.nan)), BValueError, "volume 4"),
        (change(b_values_s_mm2=(5, -700.0)), BValueError, "volume 6"),
        (change(b_delta=(8, 1.4)), BTensorError, "b_delta"),
        (change(directions=(8, 0.0)), DirectionNormError, "volume 9"),
        (change(directions=(8, [0.5, 0.5, 0.5])), DirectionNormError, "length 1"),
        (change(directions=(8, np.inf)), BValueError, "volume 9"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_name(table, error, words):
    with pytest.raises(error, match=words):
        find_shells(table)


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "ms/um2"), (1e6, "s/m2"), (0.0, "no volume")])
def test_other_units_of_b_are_recognised(factor, unit):
    table = scheme(LINEAR_SPHERICAL)
    other = GradientTable(
        b_values_s_mm2=factor * table.b_values_s_mm2, directions=table.directions, b_delta=table.b_delta
    )
    with pytest.raises(BUnitError, match=unit):
        find_shells(other)


def test_signals_and_noise_are_checked():
    table = scheme(LINEAR_SPHERICAL)
    with pytest.raises(GradientLengthError, match=r"69 volumes.*70"):
        check_signals(np.ones((3, 69)), table)
    with pytest.raises(GradientLengthError, match="1 volumes"):
        check_signals(1.0, table)
    with pytest.raises(InputError, match="magnitude"):
        check_signals(np.ones((3, 70), dtype=complex), table)
    with pytest.raises(InputError, match="does not fit"):
        check_noise_sd(np.ones(4), (3,))
    with pytest.raises(InputError, match="positive"):
        check_noise_sd([0.0, -1.0, np.nan], (3,))
    assert check_noise_sd(None, (3,)) is None
    np.testing.assert_array_equal(check_noise_sd([1.0, 0.0, np.inf], (3,)), [1.0, np.nan, np.nan])
    assert np.isnan(check_noise_sd(np.full(3, np.nan), (3,))).all()
    assert check_noise_sd(2.0, (3,)).tolist() == [2.0, 2.0, 2.0]
