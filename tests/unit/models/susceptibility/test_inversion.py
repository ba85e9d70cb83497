import numpy as np
import pytest
from helpers_susceptibility import brain, detrended_error

from cordqa.models.susceptibility.dipole import Dipole, pad_for
from cordqa.models.susceptibility.harmonics import solid_harmonics
from cordqa.models.susceptibility.inversion_direct import invert_by_division, invert_by_smoothness
from cordqa.models.susceptibility.inversion_judge import (
    data_weights,
    field_noise,
    noise_regularisation,
    robust_weights,
    streak_index,
)
from cordqa.models.susceptibility.inversion_rts import invert_in_two_steps
from cordqa.models.susceptibility.inversion_tv import TotalVariation


class Bench:
    """A local field on its padded grid, with or without noise."""

    def __init__(self, noise=0.0, seed=0):
        self.scan = brain()
        self.padding = pad_for(self.scan.mask)
        scanner = self.scan.scanner
        self.dipole = Dipole(self.padding.shape, self.scan.voxel_size_mm, scanner.b0_direction)
        rng = np.random.default_rng(seed)
        field = self.scan.local_field_ppm + noise * rng.standard_normal(self.scan.mask.shape)
        self.local = self.padding.embed(np.where(self.scan.mask, field, 0))
        self.inside = self.padding.embed_mask(self.scan.mask)
        self.weight = self.inside.astype(np.float32)

    def error(self, chi):
        return detrended_error(self.padding.crop(chi), self.scan.chi_ppm, self.scan.mask)

    def slope(self, chi):
        found, truth = self.padding.crop(chi)[self.scan.mask], self.scan.chi_ppm[self.scan.mask]
        return float(np.polyfit(truth, found, 1)[0])


def run(bench, name):
    strength = noise_regularisation(0.0)
    match name:
        case "tv":
            solver = TotalVariation(bench.dipole)
            return solver.solve(bench.local, bench.weight, strength, iterations=60)
        case "nonlinear":
            solver = TotalVariation(bench.dipole, radians_per_ppm=8.0)
            return solver.solve(bench.local, bench.weight, strength, iterations=60)
        case "rts":
            return invert_in_two_steps(bench.dipole, bench.local, bench.weight)
        case "l2":
            return invert_by_smoothness(bench.dipole, bench.local, noise_regularisation(0.0, squared=True))
        case _:
            return invert_by_division(bench.dipole, bench.local)


@pytest.mark.parametrize(
    ("name", "limit"), [("tv", 25), ("nonlinear", 25), ("rts", 55), ("l2", 50), ("tkd", 50)]
)
def test_the_true_local_field_gives_susceptibility_of_the_right_sign_and_size(name, limit):
    bench = Bench()
    chi = run(bench, name)
    assert bench.error(chi) < limit
    assert 0.6 < bench.slope(chi) < 1.2


def test_total_variation_beats_the_baselines():
    bench = Bench()
    assert bench.error(run(bench, "tv")) < 0.9 * min(bench.error(run(bench, n)) for n in ("l2", "tkd"))


def test_the_correction_undoes_the_underestimation_of_a_truncated_division():
    bench = Bench()
    plain = invert_by_division(bench.dipole, bench.local, corrected=False)
    assert bench.slope(plain) < bench.slope(invert_by_division(bench.dipole, bench.local)) < 1.15


def test_nothing_comes_from_nothing():
    bench = Bench()
    empty = np.zeros_like(bench.local)
    for chi in (
        TotalVariation(bench.dipole).solve(empty, bench.weight, 1e-4, iterations=5),
        invert_by_division(bench.dipole, empty),
        invert_by_smoothness(bench.dipole, empty, 1e-2),
        invert_in_two_steps(bench.dipole, empty, bench.weight),
    ):
        assert np.abs(chi).max() < 1e-9


def test_a_call_goes_on_where_the_last_ended():
    bench = Bench()
    solver = TotalVariation(bench.dipole)
    for _ in range(3):
        twice = solver.solve(bench.local, bench.weight, 1e-4, iterations=10)
    once = TotalVariation(bench.dipole).solve(bench.local, bench.weight, 1e-4, iterations=30)
    assert np.allclose(twice, once, atol=1e-5)


def test_a_copy_leaves_the_original_alone():
    bench = Bench()
    solver = TotalVariation(bench.dipole)
    solver.solve(bench.local, bench.weight, 1e-4, iterations=10)
    expected = solver.copy().solve(bench.local, bench.weight, 1e-4, iterations=5)
    solver.copy().solve(2 * bench.local, bench.weight, 1e-4, iterations=5)
    assert np.allclose(solver.solve(bench.local, bench.weight, 1e-4, iterations=5), expected)


def test_free_harmonics_absorb_a_background_that_was_left_over():
    bench = Bench()
    fields = solid_harmonics(bench.inside, bench.dipole.voxel_size_mm, 2).astype(np.float32)
    left = np.zeros_like(bench.local)
    left[bench.inside] = 0.02 * fields[:, 3] + 0.02 * fields[:, 5]
    index = np.flatnonzero(bench.inside)
    fixed = TotalVariation(bench.dipole)
    free = TotalVariation(bench.dipole)
    bad = fixed.solve(bench.local + left, bench.weight, 5e-5, iterations=60)
    good = free.solve(bench.local + left, bench.weight, 5e-5, iterations=60, harmonics=(index, fields))
    assert fixed.harmonic_field is None
    assert bench.error(good) < 0.6 * bench.error(bad)
    removed = -free.harmonic_field[bench.inside]
    assert np.corrcoef(removed, left[bench.inside])[0, 1] > 0.9


def test_a_voxel_off_by_a_turn_harms_the_non_linear_form_less():
    bench = Bench()
    scale = 8.0
    wrong = bench.local.copy()
    middle = tuple(n // 2 for n in wrong.shape)
    wrong[middle] += 2 * np.pi / scale
    linear = TotalVariation(bench.dipole).solve(wrong, bench.weight, 1e-4, iterations=60)
    robust = TotalVariation(bench.dipole, radians_per_ppm=scale).solve(
        wrong, bench.weight, 1e-4, iterations=60
    )
    assert bench.error(robust) < 0.5 * bench.error(linear)


def test_weights_take_noisy_voxels_out():
    bench = Bench()
    rng = np.random.default_rng(4)
    noisy = bench.inside & (rng.random(bench.inside.shape) < 0.1)
    field = bench.local + np.where(noisy, 0.1 * rng.standard_normal(noisy.shape), 0).astype(np.float32)
    weight = np.where(noisy, 0.02, bench.weight).astype(np.float32)
    blind = TotalVariation(bench.dipole).solve(field, bench.weight, 1e-4, iterations=40)
    aware = TotalVariation(bench.dipole).solve(field, weight, 1e-4, iterations=40)
    assert bench.error(aware) < 0.5 * bench.error(blind)


def test_regularisation_follows_the_noise():
    clean, noisy = noise_regularisation(0.0), noise_regularisation(0.004)
    assert 1e-5 < clean < 1e-4 < noisy < 1e-3
    bench = Bench(noise=0.004)
    errors = {
        scale: bench.error(
            TotalVariation(bench.dipole).solve(bench.local, bench.weight, scale * noisy, iterations=60)
        )
        for scale in (0.1, 1.0, 10.0)
    }
    assert errors[1.0] < errors[0.1]
    assert errors[1.0] < errors[10.0]


def test_data_weights_are_one_for_the_better_half_and_small_for_the_blind():
    error = np.array([1.0, 1.0, 2.0, 100.0, np.nan, 1.0])
    mask = np.ones(6, bool)
    weight = data_weights(error, mask)
    assert np.all(weight[[0, 1, 5]] == 1)
    assert 0.5 < weight[2] < 1
    assert weight[3] < 0.05
    assert weight[4] == 0
    assert np.all(data_weights(np.zeros(6), mask) == 1)
    assert np.all(data_weights(error, np.zeros(6, bool)) == 0)


def test_residuals_beyond_noise_lose_weight_and_others_do_not():
    error = np.full(100, 0.002, np.float32)
    residual = 0.002 * np.random.default_rng(0).standard_normal(100).astype(np.float32)
    residual[7] = 0.1
    weight = robust_weights(np.ones(100, np.float32), residual, error, np.ones(100, bool))
    assert weight[7] < 0.2
    assert np.delete(weight, 7).min() > 0.7
    assert np.all(robust_weights(np.ones(100, np.float32), residual, error, np.arange(100) < 50)[50:] == 0)


def test_noise_is_found_in_a_smooth_field():
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, 20)
    field = np.add.outer(np.add.outer(x**2, x), np.sin(x)) + 0.01 * rng.standard_normal((20, 20, 20))
    assert field_noise(field, np.ones(field.shape, bool)) == pytest.approx(0.01, rel=0.1)
    assert field_noise(np.ones((3, 3, 3)), np.ones((3, 3, 3), bool)) == 0


def test_a_truncated_division_streaks_more_than_total_variation():
    bench = Bench(noise=0.002)
    strength = noise_regularisation(0.002)
    tv = TotalVariation(bench.dipole).solve(bench.local, bench.weight, strength, iterations=60)
    tkd = invert_by_division(bench.dipole, bench.local, threshold=0.05)
    inside = bench.inside
    assert streak_index(bench.dipole, np.where(inside, tkd, 0)) > 1.3 * streak_index(
        bench.dipole, np.where(inside, tv, 0)
    )


def test_white_noise_has_a_streak_index_of_one():
    dipole = Dipole((40, 40, 40), (1, 1, 1), (0, 0.3, 1))
    noise = np.random.default_rng(0).standard_normal((40, 40, 40)).astype(np.float32)
    assert streak_index(dipole, noise) == pytest.approx(1, abs=0.05)
    assert np.isnan(streak_index(dipole, np.zeros_like(noise)))


def cut(fine):
    """Halve the resolution as a scanner does: by the middle of k-space."""
    n = fine.shape[0] // 2
    keep = np.r_[0 : n // 2, -(n // 2) : 0]
    spectrum = np.fft.fftn(fine)[np.ix_(keep, keep, keep)]
    spectrum[n // 2] = spectrum[:, n // 2] = spectrum[:, :, n // 2] = 0
    return np.fft.ifftn(spectrum).real / 8


def box(fine):
    n = fine.shape[0] // 2
    return fine.reshape(n, 2, n, 2, n, 2).mean(axis=(1, 3, 5))


def balls(seed=0, n=96):
    """Balls on a fine grid, away from its edge, and the grid's frequencies."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"))
    chi = np.zeros((n, n, n))
    for _ in range(25):
        centre, radius = rng.uniform(0.32 * n, 0.68 * n, 3), rng.uniform(3, 9)
        chi[((grid - centre[:, None, None, None]) ** 2).sum(0) < radius**2] = rng.normal(0, 0.05)
    return chi, np.stack(np.meshgrid(*[np.fft.fftfreq(n)] * 3, indexing="ij"))


@pytest.mark.parametrize(("voxel", "cost"), [(cut, 3.0), (box, 5.0)])
def test_a_tilted_field_costs_little_whatever_a_voxel_is(voxel, cost):
    chi, k = balls()
    inside = np.zeros((48, 48, 48), bool)
    inside[8:40, 8:40, 8:40] = True
    errors = []
    for direction in ((0, 0, 1), (0.3, 0.4, 0.866)):
        unit = np.array(direction) / np.linalg.norm(direction)
        square = np.maximum((k**2).sum(0), 1e-12)
        kernel = 1 / 3 - np.tensordot(unit, k, 1) ** 2 / square
        kernel[0, 0, 0] = 0
        field = np.where(inside, voxel(np.fft.ifftn(np.fft.fftn(chi) * kernel).real), 0).astype(np.float32)
        solver = TotalVariation(Dipole(inside.shape, (1, 1, 1), direction))
        found = solver.solve(field, inside.astype(np.float32), noise_regularisation(0.0), iterations=100)
        errors.append(detrended_error(found, voxel(chi), inside))
    assert errors[0] < 20
    assert errors[1] - errors[0] < cost
