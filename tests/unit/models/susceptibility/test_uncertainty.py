"""Noise of field and susceptibility: what is reported against what repeats scatter by."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_qsm import ellipsoid, head
from helpers_susceptibility import cord, geometry

from cordqa.models.susceptibility.field import fit_field
from cordqa.models.susceptibility.field_noise import FieldNoise, field_noise
from cordqa.models.susceptibility.physics import radians_per_ppm_second
from cordqa.models.susceptibility.pipeline import MappingSettings, Scan, map_susceptibility
from cordqa.models.susceptibility.reference import reference_to_mask, region_value
from cordqa.models.susceptibility.total_field import ChainSettings, reconstruct
from cordqa.models.susceptibility.uncertainty import noise_draws, pooled_standard_error

TIMES = 0.004 * np.arange(1, 6)
VOXEL = np.ones(3)
INDEX = np.arange(6**3)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


# -- field -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits():
    """Repeats of a fit with a smooth offset: mask, fields, and the noise that one of them tells."""
    mask = ellipsoid((22, 22, 22), (9, 9, 9))
    x, y, _ = np.indices(mask.shape)[:, mask] / 22
    magnitude = np.exp(-25 * TIMES) * (0.7 + 0.6 * x)[:, None]
    clean = (1 + 0.2 * x - 0.3 * y * y)[:, None] + radians_per_ppm_second(3.0) * (0.05 * y - 0.02)[
        :, None
    ] * TIMES

    def fit(seed):
        # Phase and magnitude of a complex signal with noise, unwrapped by the known truth.
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((2, *magnitude.shape)) / 30
        signal = magnitude + noise[0] + 1j * noise[1]
        return fit_field(
            clean + np.angle(signal), np.abs(signal), TIMES, mask, field_strength_t=3.0, voxel_size_mm=VOXEL
        ), np.abs(signal)

    found = [fit(seed) for seed in range(40)]
    known = {"field_strength_t": 3.0, "voxel_size_mm": VOXEL}
    noise = field_noise(found[0][0], found[0][1], TIMES, mask, **known)
    return mask, np.stack([one.field_ppm for one, _ in found]), noise, found[0]


def test_field_draws_scatter_as_the_field_of_repeats_does(fits):
    mask, fields, noise, (fit, _) = fits
    assert fit.offset_scale_voxels > 0
    draws = np.stack([noise.draw(np.random.default_rng(seed))[mask] for seed in range(40)])
    assert rms(draws) == pytest.approx(rms(fields.std(0, ddof=1)), rel=0.06)
    cube = np.zeros(mask.shape, dtype=bool)
    cube[6:16, 6:16, 6:16] = True
    cube = cube[mask]
    actual = fields[:, cube].mean(1).std(ddof=1)
    assert 0.7 < rms(draws[:, cube].mean(1)) / actual < 1.4
    # One offset serves many voxels, so its error stays in a mean: far more than independent voxels have.
    assert actual > 1.5 * rms(fields[:, cube].std(0, ddof=1)) / np.sqrt(cube.sum())


def test_free_offsets_leave_the_voxels_independent(fits):
    mask, _, _, (fit, magnitude) = fits
    free = fit_field(
        fit.residual_rad, magnitude, TIMES, mask, field_strength_t=3.0, voxel_size_mm=VOXEL,
        smooth_offset=False,
    )  # fmt: skip
    noise = field_noise(free, magnitude, TIMES, mask, field_strength_t=3.0, voxel_size_mm=VOXEL)
    draws = np.stack([noise.draw(np.random.default_rng(seed))[mask] for seed in range(40)])
    assert rms(draws) == pytest.approx(rms(free.standard_error_ppm), rel=0.05)
    assert rms(draws.mean(1)) < 1.4 * rms(draws) / np.sqrt(mask.sum())


def test_one_echo_draws_from_its_standard_error_and_no_noise_is_no_draw(fits):
    mask, _, _, (_, magnitude) = fits
    known = {"field_strength_t": 3.0, "voxel_size_mm": VOXEL}
    one = fit_field(np.zeros((mask.sum(), 1)), magnitude[:, :1], TIMES[:1], mask, noise_sd=0.02, **known)
    draws = [field_noise(one, magnitude[:, :1], TIMES[:1], mask, **known).draw(np.random.default_rng(k))[mask]
             for k in range(10)]  # fmt: skip
    assert rms(draws) == pytest.approx(rms(one.standard_error_ppm), rel=0.05)
    none = fit_field(np.zeros((mask.sum(), 2)), magnitude[:, :2], TIMES[:2], mask, **known)
    assert field_noise(none, magnitude[:, :2], TIMES[:2], mask, **known) is None


def test_voxels_without_a_number_or_signal_draw_nothing_that_is_no_number(fits):
    mask, _, _, (fit, magnitude) = fits
    bad = magnitude.copy()
    bad[:3] = 0
    bad[3] = np.nan
    field = fit_field(
        fit.residual_rad, bad, TIMES, mask, field_strength_t=3.0, voxel_size_mm=VOXEL, noise_sd=0.03
    )
    noise = field_noise(field, bad, TIMES, mask, field_strength_t=3.0, voxel_size_mm=VOXEL)
    assert np.isfinite(noise.draw(np.random.default_rng(0))).all()


# -- draws -------------------------------------------------------------------------------------------


def white(rng):
    return rng.standard_normal((6, 6, 6), dtype=np.float32)


def flat(field):
    return field


def test_draws_of_a_linear_inversion_have_the_variance_of_the_noise():
    draws = np.concatenate([
        noise_draws(flat, np.ones((6, 6, 6), np.float32), white, index=INDEX, probes=4, seed=seed)
        for seed in range(40)
    ])  # fmt: skip
    assert rms(draws) ** 2 == pytest.approx(1 - 1 / INDEX.size, rel=0.03)
    assert np.abs(draws.mean(axis=1)).max() < 1e-6


def test_what_all_draws_share_is_no_noise():
    ramp = np.linspace(-20, 20, INDEX.size, dtype=np.float32).reshape(6, 6, 6)
    start = np.zeros((6, 6, 6), np.float32)

    def flattened(field):
        # Any noise moves the result by the same, as the flattening of total variation does.
        return field + ramp * float(np.std(field) > 0.1)

    given = {"index": INDEX, "probes": 5, "seed": 3}
    assert noise_draws(flattened, start, white, **given) == pytest.approx(
        noise_draws(flat, start, white, **given), abs=1e-4
    )


def test_a_single_draw_is_taken_from_the_map():
    start = np.full((6, 6, 6), 7, np.float32)
    (one,) = noise_draws(flat, start, white, index=INDEX, probes=1, seed=1)
    noise = white(np.random.default_rng(1)).ravel()
    assert one == pytest.approx(noise - noise.mean(), abs=1e-5)


def test_the_standard_error_keeps_to_its_place():
    valid = np.zeros((12, 12, 12), dtype=bool)
    valid[2:10, 2:10, 2:10] = True
    size = np.where(np.indices(valid.shape)[0][valid] < 6, 1.0, 4.0)
    draws = size * np.random.default_rng(0).standard_normal((200, size.size))
    error = pooled_standard_error(draws.astype(np.float32), valid)
    assert np.isnan(error[~valid]).all()
    assert error[2:5, 2:10, 2:10] == pytest.approx(1.0, rel=0.25)
    assert error[7:10, 2:10, 2:10] == pytest.approx(4.0, rel=0.25)


# -- susceptibility ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inversion", ["l2", "tkd"])
def test_direct_inversions_have_a_standard_error(inversion):
    scan, found = cord(), []
    error = np.where(scan.mask, 0.002, np.nan)
    settings = ChainSettings(background="none", inversion=inversion, probes=8)
    for seed in range(12):
        noise = 0.002 * np.random.default_rng(seed).standard_normal(scan.mask.shape)
        field = np.where(scan.mask, scan.local_field_ppm + noise, np.nan)
        found.append(reconstruct(field, error, scan.mask, settings=settings, **geometry(scan)))
    assert not any("no standard error" in notice for notice in found[0].notices)
    inside = scan.mask
    actual = rms(np.stack([one.chi_ppm[inside] for one in found]).std(0, ddof=1))
    assert rms(found[0].standard_error_ppm[inside]) == pytest.approx(actual, rel=0.12)
    grey = inside & (scan.label == 7)
    values = [region_value(reference_to_mask(one), grey) for one in found]
    scatter = float(np.std([one.mean_ppm for one in values], ddof=1))
    assert 0.6 < rms([one.standard_error_ppm for one in values]) / scatter < 1.6


def test_two_step_inversion_says_that_it_has_none():
    scan = cord()
    found = reconstruct(
        np.where(scan.mask, scan.local_field_ppm, np.nan), np.where(scan.mask, 0.002, np.nan), scan.mask,
        settings=ChainSettings(background="none", inversion="rts", probes=2), **geometry(scan),
    )  # fmt: skip
    assert found.standard_error_ppm is None
    assert any("no standard error of susceptibility for the inversion rts" in n for n in found.notices)


def test_the_noise_of_a_small_reference_is_in_the_error_of_every_voxel():
    mask, _, field = head((28, 28, 26))
    rng = np.random.default_rng(0)
    phase = radians_per_ppm_second(3.0) * field[..., None] * TIMES
    signal = mask[..., None] * np.exp(1j * phase - 20 * TIMES)
    signal = signal + (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape)) / 30
    scan = Scan(
        phase=np.angle(signal), magnitude=np.abs(signal), echo_times_s=TIMES,
        affine=np.diag([2.0, 2, 2, 1]), field_strength_t=3.0,
    )  # fmt: skip
    small = np.zeros_like(mask)
    small[14:16, 14:16, 12:14] = True
    settings = MappingSettings(chain=ChainSettings(rounds=2, probes=6))
    errors = [
        map_susceptibility(scan, mask=mask, reference=where, settings=settings).maps.standard_errors
        for where in (None, small)
    ]
    plain, referenced = (one["susceptibility"] for one in errors)
    # The mean of eight voxels is hardly better known than one.
    far = np.isfinite(plain) & ~small
    assert rms(referenced[far]) > 1.05 * rms(plain[far])
    assert rms(referenced[small]) < rms(referenced[far])


def test_noise_is_drawn_in_the_mask_alone():
    mask = ellipsoid((12, 12, 12), (4, 4, 4))
    n = int(mask.sum())
    noise = FieldNoise(
        mask=mask, slope_sd=np.ones(n), offset_sd=np.ones(n), lever=np.ones(n), pull=np.full(n, 0.9),
        smooth_voxels=np.full(3, 2.0),
    )  # fmt: skip
    field = noise.draw(np.random.default_rng(0))
    assert field.shape == mask.shape and np.all(field[~mask] == 0) and np.all(np.isfinite(field))
    assert np.array_equal(field, noise.draw(np.random.default_rng(0)))
