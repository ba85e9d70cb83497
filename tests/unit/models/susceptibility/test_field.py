import numpy as np
import pytest
from helpers_susceptibility import brain

from cordqa.errors import InputError
from cordqa.models.susceptibility.field import fit_field, line_fit
from cordqa.models.susceptibility.physics import radians_per_ppm_second
from cordqa.models.susceptibility.smooth import AngleSmoother, smooth_angle
from cordqa.models.susceptibility.unwrap import unwrap_echoes

TIMES = np.array([0.004, 0.009, 0.014, 0.019])
SHAPE = (14, 12, 10)


def scene(times=TIMES, sd=0.02, seed=0, offset=0.1):
    """Field, smooth offset, unwrapped phase and magnitude of one box of voxels."""
    rng = np.random.default_rng(seed)
    mask = np.ones(SHAPE, bool)
    x, y, z = (g.ravel() for g in np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    field = 0.2 * x * y + 0.05 * rng.standard_normal(x.size)
    start = offset * (x + 0.5 * z)
    magnitude = np.exp(-times / 0.03) * (1 + 0.3 * y)[:, None]
    clean = start[:, None] + radians_per_ppm_second(3.0) * field[:, None] * times
    phase = np.angle(
        magnitude * np.exp(1j * clean)
        + sd * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
    )
    phase = clean + np.angle(np.exp(1j * (phase - clean)))
    return mask, field, start, phase, magnitude


def fit(mask, phase, magnitude, times=TIMES, **options):
    return fit_field(phase, magnitude, times, mask, field_strength_t=3.0, voxel_size_mm=np.ones(3), **options)


def error(found, truth):
    return float(np.sqrt(np.nanmean((found - truth) ** 2)))


def test_a_field_without_noise_is_exact():
    mask, field, start, phase, magnitude = scene(sd=0)
    found = fit(mask, phase, magnitude, smooth_offset=False)
    assert error(found.field_ppm, field) < 1e-6
    assert np.abs(found.offset_rad - start).max() < 1e-6


def test_the_standard_error_is_what_the_scatter_is():
    mask, field, _, phase, magnitude = scene()
    found = fit(mask, phase, magnitude)
    z = (found.field_ppm - field) / found.standard_error_ppm
    assert 0.93 < z.std() < 1.08
    assert found.noise_sd == pytest.approx(0.02, rel=0.05)


def test_a_smooth_offset_takes_a_third_of_the_noise_away():
    mask, field, _, phase, magnitude = scene()
    free = error(fit(mask, phase, magnitude, smooth_offset=False).field_ppm, field)
    prior = fit(mask, phase, magnitude)
    assert prior.offset_scale_voxels >= 2
    assert error(prior.field_ppm, field) < 0.7 * free


def test_an_offset_that_is_not_smooth_is_left_free():
    mask, field, _, phase, magnitude = scene()
    rough = phase + np.random.default_rng(5).uniform(-1.5, 1.5, len(phase))[:, None]
    free = error(fit(mask, rough, magnitude, smooth_offset=False).field_ppm, field)
    assert error(fit(mask, rough, magnitude).field_ppm, field) < 1.05 * free


def test_the_average_follows_an_offset_that_bends():
    """The scale is where the field is known best, though nothing of the truth is used to find it."""
    mask, field, _, phase, magnitude = scene(offset=0)
    x, y, _ = (g.ravel() for g in np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    for strength, limit, least in ((0.0, np.inf, 3.0), (0.2, 2.0, 1.0)):
        found = fit(mask, phase + (strength * np.cos(3 * x) * np.sin(2 * y))[:, None], magnitude)
        free = fit(mask, phase, magnitude, smooth_offset=False)
        assert least <= found.offset_scale_voxels <= limit
        assert error(found.field_ppm, field) < 0.8 * error(free.field_ppm, field)


def test_repeats_choose_scales_that_differ_little():
    scales = []
    for seed in range(6):
        mask, _, _, phase, magnitude = scene(seed=seed, offset=0)
        x = np.repeat(np.linspace(-1, 1, SHAPE[0]), SHAPE[1] * SHAPE[2])
        scales.append(fit(mask, phase + 0.3 * np.cos(3 * x)[:, None], magnitude).offset_scale_voxels)
    assert np.ptp(np.log(scales)) < 0.5


@pytest.mark.parametrize("sigma", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_an_average_says_how_much_of_the_noise_is_left(sigma):
    rng = np.random.default_rng(4)
    mask = np.ones((24, 24, 24), bool)
    left, own = [], []
    for _ in range(12):
        noise = 0.1 * rng.standard_normal(mask.sum())
        found = AngleSmoother(noise, np.full(noise.size, 100.0), mask).at(np.array(sigma))
        # Voxels at the edge have fewer neighbours; the medians are those of the others.
        smooth, raw = (part.reshape(mask.shape)[4:-4, 4:-4, 4:-4] for part in (found.angle, noise))
        left.append((smooth**2).mean())
        own.append((smooth * raw).mean())
    assert np.mean(left) == pytest.approx(0.01 * found.left, rel=0.12)
    assert np.mean(own) == pytest.approx(0.01 * found.own, rel=0.12)


def test_a_wrong_wrap_of_a_late_echo_is_forgiven():
    mask, field, _, phase, magnitude = scene()
    phase[:40, -1] += 2 * np.pi
    assert error(fit(mask, phase, magnitude).field_ppm[40:], field[40:]) < 0.004


def test_two_echoes_have_no_residual_and_say_so_by_nan():
    times = TIMES[:2]
    mask, field, _, phase, magnitude = scene(times=times)
    found = fit(mask, phase, magnitude, times)
    assert np.isnan(found.noise_sd)
    assert np.all(np.isnan(found.standard_error_ppm))
    told = fit(mask, phase, magnitude, times, noise_sd=0.02)
    z = (told.field_ppm - field) / told.standard_error_ppm
    assert 0.9 < z.std() < 1.1


def test_one_echo_carries_the_offset_and_a_notice():
    times = np.array([0.02])
    mask, field, _, phase, magnitude = scene(times=times, offset=0)
    found = fit(mask, phase, magnitude, times, noise_sd=0.02)
    assert "one echo" in found.notices[0]
    assert 0.9 < ((found.field_ppm - field) / found.standard_error_ppm).std() < 1.1


def test_zero_magnitude_gets_an_enormous_error_and_harms_no_neighbour():
    mask, field, _, phase, magnitude = scene()
    magnitude[:30] = 0
    found = fit(mask, phase, magnitude)
    assert np.all(found.standard_error_ppm[:30] > 1e3 * np.median(found.standard_error_ppm))
    assert error(found.field_ppm[30:], field[30:]) < 0.004


def test_nan_stays_where_it_is():
    mask, field, _, phase, magnitude = scene()
    phase[100] = np.nan
    found = fit(mask, phase, magnitude)
    assert np.isnan(found.field_ppm[100])
    rest = np.arange(len(field)) != 100
    assert np.isfinite(found.field_ppm[rest]).all()
    assert error(found.field_ppm[rest], field[rest]) < 0.004
    magnitude[100, 1] = np.inf
    single = fit(mask, phase[:, :1], magnitude[:, :1], TIMES[:1], noise_sd=0.02)
    assert np.flatnonzero(np.isnan(single.field_ppm)).tolist() == [100]


def test_a_field_strength_in_gauss_is_refused():
    mask, _, _, phase, magnitude = scene()
    with pytest.raises(InputError, match="not that of a scanner"):
        fit_field(phase, magnitude, TIMES, mask, field_strength_t=30000.0, voxel_size_mm=np.ones(3))


def test_a_line_with_a_prior_lies_between_data_and_prior():
    phase, power = np.array([[1.0, 2.0]]), np.ones((1, 2))
    times = np.array([1.0, 2.0])
    assert line_fit(phase, power, times).slope[0] == pytest.approx(1.0)
    tight = line_fit(phase, power, times, (np.array([0.5]), np.array([1e9])))
    assert tight.offset[0] == pytest.approx(0.5, abs=1e-6)
    assert tight.slope[0] == pytest.approx((0.5 * 1 + 1.5 * 2) / 5, abs=1e-6)


def test_an_angle_is_smoothed_across_its_branch_and_past_outliers():
    rng = np.random.default_rng(2)
    mask = np.ones((12, 12, 6), bool)
    truth = np.full(mask.sum(), np.pi)
    angle = truth + 0.1 * rng.standard_normal(truth.size)
    angle[::50] += 2.0
    angle = np.angle(np.exp(1j * angle))
    smooth = smooth_angle(angle, np.full(angle.size, 100.0), mask, sigma_voxels=np.full(3, 2.0))
    assert np.abs(np.angle(np.exp(1j * (smooth - np.pi)))).max() < 0.15


def test_a_simulated_scan_is_fitted_near_its_noise():
    scan = brain()
    times = np.array(scan.scanner.echo_times_s)
    magnitude = scan.magnitude[scan.mask].astype(float)
    phase = unwrap_echoes(scan.phase.astype(float), scan.magnitude.astype(float), times, scan.mask)
    found = fit_field(
        phase, magnitude, times, scan.mask, field_strength_t=3.0, voxel_size_mm=scan.voxel_size_mm
    )
    z = (found.field_ppm - scan.total_field_ppm[scan.mask]) / found.standard_error_ppm
    assert 1.4826 * np.median(np.abs(z)) < 1.4
    assert found.noise_sd == pytest.approx(scan.noise_sd, rel=0.15)


@pytest.mark.parametrize("lost", [np.nan, 0.0])
def test_a_voxel_without_magnitude_does_no_harm_in_any_unit(lost):
    mask, field, _, phase, magnitude = scene()
    magnitude[7] = lost
    one, other = (fit(mask, phase, magnitude * unit, noise_sd=0.02 * unit) for unit in (1.0, 1e4))
    known = np.arange(len(field)) != 7
    np.testing.assert_allclose(other.field_ppm[known], one.field_ppm[known], atol=1e-6)
