import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.susceptibility.separation import separate


def truth(field=3.0, seed=0):
    rng = np.random.default_rng(seed)
    para, dia = 0.1 * rng.random((6, 5, 4)), -0.08 * rng.random((6, 5, 4))
    return para, dia, 137 * field / 3 * (para - dia)


@pytest.mark.parametrize("field", [1.5, 3.0, 7.0])
def test_exact_input_gives_exact_parts(field):
    para, dia, rate = truth(field)
    found = separate(para + dia, rate, field_strength_t=field)
    assert np.allclose(found.para_ppm, para)
    assert np.allclose(found.dia_ppm, dia)
    assert not found.at_bound.any()
    assert not found.experimental
    assert found.notices == ()


def test_own_relaxivities_are_used():
    para, dia, _ = truth()
    found = separate(
        para + dia, 137 * para - 170 * dia, field_strength_t=3, para_relaxivity_3t=137, dia_relaxivity_3t=170
    )
    assert np.allclose(found.dia_ppm, dia)


def test_parts_keep_their_sign_and_the_bound_is_marked():
    chi, rate = np.array([0.1, -0.1, 0.05, 0.0]), np.array([2.0, 2.0, -5.0, -5.0])
    found = separate(chi, rate, field_strength_t=3)
    assert np.all(found.para_ppm >= 0)
    assert np.all(found.dia_ppm <= 0)
    assert np.all(found.at_bound)
    assert "wrong sign" in found.notices[0]


def test_a_bound_solution_is_the_best_of_its_kind():
    chi, rate = 0.1, 2.0
    found = separate(np.array([chi]), np.array([rate]), field_strength_t=3)
    grid = np.linspace(0, 0.2, 20001)
    cost = 137**2 * (grid - chi) ** 2 + (137 * grid - rate) ** 2
    assert found.para_ppm[0] == pytest.approx(grid[cost.argmin()], abs=2e-5)


def test_standard_errors_are_what_the_scatter_is():
    rng = np.random.default_rng(1)
    chi = 0.02 + 0.004 * rng.standard_normal(20000)
    rate = 137 * 0.12 + 1.5 * rng.standard_normal(20000)
    found = separate(
        chi, rate, field_strength_t=3, chi_standard_error=np.full(20000, 0.004),
        r2_prime_standard_error=np.full(20000, 1.5),
    )  # fmt: skip
    assert found.para_standard_error_ppm[0] == pytest.approx(found.para_ppm.std(), rel=0.03)
    assert found.dia_standard_error_ppm[0] == pytest.approx(found.dia_ppm.std(), rel=0.03)


def test_without_r2_prime_it_refuses_unless_asked():
    chi, star = np.full(5, 0.02), np.full(5, 20.0)
    with pytest.raises(InputError, match="needs R2'"):
        separate(chi, field_strength_t=3)
    with pytest.raises(InputError, match=r"R2\* only"):
        separate(chi, field_strength_t=3, r2_star_per_s=star)
    found = separate(chi, field_strength_t=3, r2_star_per_s=star, allow_r2_star=True)
    assert found.experimental
    assert "experimental" in found.notices[0]
    assert "experimental" in found.method


def test_nan_stays_nan_and_is_not_counted():
    para, dia, rate = truth()
    chi = para + dia
    chi[0, 0, 0], rate[1, 1, 1] = np.nan, np.inf
    found = separate(chi, rate, field_strength_t=3)
    assert np.isnan(found.para_ppm).sum() == 2
    assert np.array_equal(np.isnan(found.para_ppm), np.isnan(found.dia_ppm))


@pytest.mark.parametrize("bad", [0.0, -137.0, np.nan])
def test_an_unusable_relaxivity_is_refused(bad):
    with pytest.raises(InputError, match="relaxivity"):
        separate(np.zeros(3), np.zeros(3), field_strength_t=3, para_relaxivity_3t=bad)


def test_grids_must_agree():
    with pytest.raises(InputError, match="different grids"):
        separate(np.zeros((2, 2)), np.zeros((2, 3)), field_strength_t=3)
