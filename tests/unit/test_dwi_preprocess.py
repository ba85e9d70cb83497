"""Preprocessing of a diffusion series: each step finds what was planted, and the chain holds together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers_cord import reoriented
from helpers_dwi import SCHEME, SPACING, rms, simulate

from cordqa.cord.dwi_preprocess import DwiSettings, preprocess_dwi
from cordqa.cord.motion import MotionSettings
from cordqa.errors import ConfigError, EmptyInputError, InputError
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.noise import rician_moments
from cordqa.models.diffusion.preprocess_denoise import (
    denoise_mppca,
    denoise_patch2self,
    outer_noise_share,
    remove_gibbs,
)
from cordqa.models.diffusion.preprocess_distortion import estimate_distortion, undo_distortion
from cordqa.models.diffusion.preprocess_noise import map_noise, undo_rician, undo_rician_mean
from cordqa.models.diffusion.preprocess_outliers import drop_outliers, find_outlier_slices
from cordqa.models.diffusion.preprocess_prediction import contrast_groups, left_out_matrix
from cordqa.records import Volume
from cordqa.simulate.cord.diffusion import CordDwi, cord_scheme, simulate_cord_dwi

DWI = ~SCHEME.is_b0


@pytest.fixture(scope="module")
def still():
    return simulate("static", 15)


# -- prediction --------------------------------------------------------------------------------------


def test_prediction_leaves_the_volume_out_and_is_exact_for_its_model():
    rng = np.random.default_rng(0)
    form = rng.normal(size=(3, 3))
    signal = np.einsum("ni,ij,nj->n", SCHEME.directions, form, SCHEME.directions)
    signal[SCHEME.is_b0] = 7.0
    matrix = left_out_matrix(SCHEME)
    assert (np.diag(matrix) == 0).all()
    np.testing.assert_allclose(matrix @ signal, signal, atol=1e-9)
    use = np.ones(len(SCHEME), dtype=bool)
    use[5] = False
    signal[5] = 1e6
    np.testing.assert_allclose((left_out_matrix(SCHEME, use) @ signal)[use], signal[use], atol=1e-6)


def test_contrasts_and_volumes_that_nothing_predicts():
    table = GradientTable(
        b_values_s_mm2=np.array([0.0, 1000, 995, 2000, 2000, 1000]),
        directions=np.eye(3)[[0, 0, 1, 2, 0, 1]],
        b_delta=np.array([1.0, 1, 1, 1, 1, 0]),
    )
    groups = contrast_groups(table)
    assert groups[0] == 0
    assert groups[1] == groups[2] != groups[5]
    assert groups[3] == groups[4]
    matrix = left_out_matrix(table)
    assert np.isnan(matrix[[0, 5]]).all()
    np.testing.assert_array_equal(matrix[1], [0, 0, 1, 0, 0, 0])
    assert np.isnan(left_out_matrix(table, strict=True)).all()


# -- outliers ----------------------------------------------------------------------------------------


def test_planted_outliers_are_found_and_nothing_else():
    planted = {(3, 5): 0.6, (7, 20): 0.7, (2, 11): 0.3, (4, 0): 0.6, (6, 8): 1.5, (1, 30): 0.0}
    truth = simulate("static", 15, dropouts=planted)
    truth.data[:, :, 1, 30] = 0
    found = find_outlier_slices(truth.data, SCHEME, truth.cord)
    assert {tuple(x) for x in np.argwhere(found.outlier).tolist()} == set(planted)
    np.testing.assert_allclose(found.residual_share[3, 5], -0.4, atol=0.1)
    assert "(6 of 297)" in found.sentence
    dropped = drop_outliers(truth.data, found.outlier)
    assert np.isnan(dropped[:, :, 3, 5]).all()
    assert np.isfinite(dropped[:, :, 3, 6]).all()


def test_half_a_slice_lost_is_found_by_its_pattern(still):
    data = still.data.copy()
    data[20:, :, 4, 9] *= 1.35
    data[:20, :, 4, 9] *= 0.65
    found = find_outlier_slices(data, SCHEME, still.cord)
    assert np.argwhere(found.outlier).tolist() == [[4, 9]]
    assert abs(found.residual_share[4, 9]) < 0.2


@pytest.mark.parametrize("snr", [8, 30])
def test_clean_series_has_no_outliers(snr):
    truth = simulate("smooth", snr)
    assert find_outlier_slices(truth.data, SCHEME, truth.cord).outlier.mean() < 0.01


def test_too_few_volumes_are_not_judged():
    table = cord_scheme(directions=6, every=10)
    truth = simulate("static", 20, scheme=table, dropouts={(2, 3): 0.5})
    found = find_outlier_slices(truth.data, table, truth.cord)
    assert not found.outlier.any()
    assert sum("were not judged" in notice for notice in found.notices) == 2


# -- noise -------------------------------------------------------------------------------------------


def test_noise_and_bias_are_recovered():
    truth = simulate("static", 10)
    noise = map_noise(truth.data, SCHEME, truth.cord)
    cord = truth.cord > 0.5
    assert np.nanmedian(noise.sigma[cord]) == pytest.approx(truth.sigma, rel=0.08)
    assert np.isnan(noise.sigma[~cord]).all()
    expected = (truth.clean[..., SCHEME.is_b0].mean(axis=3) / truth.sigma)[cord]
    assert np.nanmedian(noise.snr["b = 0 s/mm2"][cord]) == pytest.approx(np.median(expected), rel=0.1)
    assert 0 < noise.rician_bias["b = 800 s/mm2"] < 0.1
    assert "median signal-to-noise ratio in the cord" in noise.sentence
    low = map_noise(simulate("static", 4).data, SCHEME, truth.cord)
    assert any("below 3 noise levels" in notice for notice in low.notices)


def test_rician_moments_are_undone():
    signal, sigma = np.array([0.0, 0.5, 1.0, 3.0, 30.0]), 2.0
    mean, _, variance = rician_moments(signal * sigma, sigma)
    np.testing.assert_allclose(undo_rician_mean(mean, np.full(5, sigma)), signal * sigma, atol=1e-5)
    found, level = undo_rician(mean, np.sqrt(variance), rounds=2000)
    np.testing.assert_allclose(found[2:], signal[2:] * sigma, rtol=1e-3)
    np.testing.assert_allclose(level[2:], sigma, rtol=1e-3)
    # Below pure noise there is no signal; without a number there is none either.
    assert undo_rician_mean(np.array([0.5]), np.array([1.0]))[0] == pytest.approx(0, abs=1e-6)
    assert np.isnan(undo_rician_mean(np.array([np.nan, 1.0]), np.array([1.0, 0.0]))).all()
    assert np.isnan(undo_rician(np.array([1.0]), np.array([0.0]))[0]).all()


def test_noise_without_volumes_that_tell_is_not_known():
    table = GradientTable.linear([0.0, 1000.0], [[0, 0, 0], [0, 0, 1]])
    noise = map_noise(np.ones((4, 4, 2, 2)), table, np.ones((4, 4, 2)))
    assert np.isnan(noise.sigma).all()
    assert noise.source == "none"
    assert "not known" in noise.sentence


# -- denoising ---------------------------------------------------------------------------------------


def test_denoising_comes_nearer_to_the_truth():
    truth = simulate("static", 15, shape=(28, 28, 5))
    data = truth.data.copy()
    data[14, 14, 2, 3] = np.nan
    cord = truth.cord > 0.9
    cord[14, 14, 2] = False
    before = rms((truth.data - truth.clean)[cord])
    local = denoise_mppca(data)
    assert rms((local.data - truth.clean)[cord]) < 0.6 * before
    assert np.nanmedian(local.sigma[cord]) == pytest.approx(truth.sigma, rel=0.3)
    assert np.argwhere(np.isnan(local.data)).tolist() == [[14, 14, 2, 3]]
    assert "1 voxels lack a value" in local.notices[0]
    region = truth.cord > 0.1
    global_ = denoise_patch2self(truth.data, SCHEME, region)
    assert rms((global_.data - truth.clean)[cord][:, DWI]) < 0.6 * before
    # The mean of every volume survives (dipy alone loses it).
    mean = [x[region].mean(axis=0) for x in (global_.data, truth.data)]
    np.testing.assert_allclose(mean[0], mean[1], rtol=1e-3)
    np.testing.assert_array_equal(global_.data[~region], truth.data[~region])


def test_denoising_refuses_too_little(still):
    few = cord_scheme(directions=6)
    with pytest.raises(InputError, match="too few volumes"):
        denoise_mppca(still.data[..., :6])
    with pytest.raises(InputError, match="smaller than a patch"):
        denoise_mppca(still.data[:3])
    with pytest.raises(InputError, match="too little to predict"):
        denoise_patch2self(still.data[..., :7], few, still.cord > 0.5)
    with pytest.raises(InputError, match="a series of volumes"):
        remove_gibbs(still.data[..., 0])


def test_ringing_is_removed_and_interpolation_told():
    rng = np.random.default_rng(0)
    fine = np.zeros((160, 160))
    fine[40:120, 50:100] = 1.0
    kept = np.fft.fftshift(np.fft.fft2(fine))[60:100, 60:100]
    ringing = np.abs(np.fft.ifft2(np.fft.ifftshift(kept))) / 16
    flat = (slice(14, 26), slice(16, 22))
    noisy = np.abs(ringing[:, :, None, None] + rng.normal(0, 0.01, (40, 40, 1, 4)))
    done = remove_gibbs(noisy)
    assert done.data[flat].std() < 0.75 * ringing[flat].std() + 0.01
    assert not done.notices
    assert outer_noise_share(noisy) > 0.5
    # The same filled with zeros to twice the matrix.
    spectrum = np.zeros((80, 80, 1, 4), dtype=complex)
    spectrum[20:60, 20:60] = np.fft.fftshift(np.fft.fft2(noisy, axes=(0, 1)), axes=(0, 1))
    filled = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(0, 1)), axes=(0, 1)))
    assert outer_noise_share(filled) < 0.1
    assert "interpolated or filtered" in remove_gibbs(filled).notices[0]


# -- distortion --------------------------------------------------------------------------------------


def distort(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Push signal along the second axis on a grid eight times finer, conserving it."""
    n, fine, out = image.shape[1], 8, np.zeros_like(image)
    place = (np.arange(n * fine) + 0.5) / fine - 0.5
    for x, z in np.ndindex(image.shape[0], image.shape[2]):
        value = np.interp(place, np.arange(n), image[x, :, z]) / fine
        target = place + np.interp(place, np.arange(n), displacement[x, :, z])
        low = np.floor(target).astype(int)
        for step, part in ((0, 1 - (target - low)), (1, target - low)):
            inside = (low + step >= 0) & (low + step < n)
            np.add.at(out[x, :, z], (low + step)[inside], (value * part)[inside])
    return out


@pytest.fixture(scope="module")
def pair():
    truth = simulate_cord_dwi(SCHEME.select(np.arange(1)), CordDwi(shape=(36, 48, 5), snr=1e6), seed=0)
    image = truth.data[..., 0].astype(float)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape], indexing="ij")
    field = 2.5 * np.exp(-((y - 0.3 * z) ** 2 + x**2) / 0.3) + z * y - 0.5
    rng = np.random.default_rng(1)
    sigma = image[truth.cord > 0.5].mean() / 30
    up, down = (np.abs(distort(image, s * field) + rng.normal(0, sigma, image.shape)) for s in (1, -1))
    return image, field, up, down, truth.cord > 0.5


def test_distortion_is_undone(pair):
    image, field, up, down, cord = pair
    found = estimate_distortion(up, down, axis=1, spacing_mm=SPACING)
    assert found.usable
    assert rms(field[cord]) > 1.0
    assert rms((found.displacement_voxels - field)[cord]) < 0.2
    for distorted, polarity in ((up, 1), (down, -1)):
        before, after = (
            rms((distorted - image)[cord]),
            rms((undo_distortion(distorted, found, polarity=polarity) - image)[cord]),
        )
        assert after < 0.35 * before
    # The other way round and along another axis it is the same.
    other = estimate_distortion(
        down.transpose(1, 0, 2), up.transpose(1, 0, 2), axis=0, spacing_mm=(0.9, 0.9, 5.0)
    )
    np.testing.assert_allclose(
        other.displacement_voxels.transpose(1, 0, 2)[cord], -found.displacement_voxels[cord], atol=0.05
    )


def test_pair_that_no_field_explains_is_not_used(pair):
    image, _, up, _, _ = pair
    rng = np.random.default_rng(0)
    found = estimate_distortion(up, np.abs(rng.normal(0, up.mean(), up.shape)), axis=1, spacing_mm=SPACING)
    assert not found.usable
    assert "left as it is" in found.notices[1]
    same = estimate_distortion(image, image, axis=1, spacing_mm=SPACING)
    assert np.abs(same.displacement_voxels).max() < 1e-6


def test_distortion_refuses_what_is_no_pair(pair):
    _, _, up, down, _ = pair
    with pytest.raises(InputError, match="not on one grid"):
        estimate_distortion(up, down[:-1], axis=1, spacing_mm=SPACING)
    with pytest.raises(InputError, match="phase-encode axis"):
        estimate_distortion(up, down, axis=2, spacing_mm=SPACING)
    with pytest.raises(EmptyInputError, match="reversed pair is empty"):
        estimate_distortion(up, np.zeros_like(up), axis=1, spacing_mm=SPACING)


# -- the chain ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved():
    return simulate("interleaved", 20, shape=(36, 36, 7), dropouts={(3, 5): 0.4, (1, 17): 0.6})


@pytest.fixture(scope="module")
def plain(moved):
    return preprocess_dwi(moved.data, moved.affine, SCHEME, moved.cord)


def test_chain_finds_motion_and_outliers(moved, plain):
    done = plain
    assert {tuple(x) for x in np.argwhere(done.outlier).tolist()} == {(3, 5), (1, 17)}
    fine = np.broadcast_to((moved.cord > 0.5)[..., None], moved.data.shape) & ~done.outlier
    assert rms((done.data - moved.clean)[fine]) < 0.8 * rms((moved.data - moved.clean)[fine])
    assert np.isnan(done.usable_data[:, :, 3, 5]).all()
    assert np.nanmedian(done.sigma) == pytest.approx(moved.sigma, rel=0.1)
    assert len(done.motion_table) == len(SCHEME)
    assert len(done.sentences) == 4
    assert done.gradients is not SCHEME
    np.testing.assert_allclose(done.gradients.directions, SCHEME.directions, atol=1e-12)


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (0, 2)), ((0, 1, 2), (0, 1))])
def test_orientation_of_the_array_changes_nothing(moved, plain, order, flips):
    turned = reoriented(Volume(data=moved.data, affine=moved.affine), (*order,), flips)
    mask = reoriented(Volume(data=moved.cord, affine=moved.affine), order, flips)
    signs = np.array([-1.0 if axis in flips else 1.0 for axis in range(3)])
    directions = SCHEME.directions[:, list(order)] * signs
    done = preprocess_dwi(turned.data, turned.affine, replace(SCHEME, directions=directions), mask.data)
    back = reoriented(Volume(data=plain.data, affine=moved.affine), order, flips).data
    np.testing.assert_allclose(done.data, back, atol=1e-3)
    np.testing.assert_allclose(done.gradients.directions, directions, atol=1e-12)
    np.testing.assert_allclose(done.motion.shift_voxels, plain.motion.shift_voxels, atol=1e-5)
    assert done.outlier.sum() == 2
    assert done.slice_axis == order.index(2)
    assert np.isnan(done.usable_data).sum() == np.isnan(plain.usable_data).sum()


def test_chain_with_every_step(moved, pair):
    _, _, up, down, cord = pair
    rng = np.random.default_rng(0)
    scale = np.concatenate([[1.0], rng.uniform(0.3, 0.6, 11), [1.0]])
    table = GradientTable.linear(np.where(scale == 1, 0.0, 800.0), rng.normal(size=(13, 3)))
    data = np.abs(up[..., None] * scale + rng.normal(0, 10, (*up.shape, 13)))
    done = preprocess_dwi(
        data,
        np.diag([*SPACING, 1.0]),
        table,
        cord,
        DwiSettings(denoise="mppca", gibbs=True, motion=MotionSettings(rotation=True)),
        reversed_b0=np.stack([down, down], axis=-1),
        phase_axis=1,
    )
    words = ["MP-PCA", "Gibbs", "Motion was corrected", "Distortion", "outliers", "noise level"]
    assert [next(n for n, s in enumerate(done.sentences) if word in s) for word in words] == list(range(6))
    assert "experimental" in " ".join(done.sentences)
    assert done.distortion.usable
    assert done.data.shape == data.shape
    off = preprocess_dwi(
        data, np.diag([*SPACING, 1.0]), table, cord, DwiSettings(motion=None, outliers=False)
    )
    np.testing.assert_allclose(off.data, data, rtol=1e-6)
    assert off.motion is None
    assert off.motion_table == ()
    assert not off.outlier.any()


def test_chain_refuses_what_does_not_belong_together(moved):
    def run(**more):
        given = {"data": moved.data, "affine": moved.affine, "gradients": SCHEME, "mask": moved.cord} | more
        return preprocess_dwi(**given)

    with pytest.raises(InputError, match="several volumes"):
        run(data=moved.data[..., 0])
    with pytest.raises(InputError, match="several volumes"):
        run(data=moved.data[..., :1], gradients=SCHEME.select(np.arange(1)))
    with pytest.raises(InputError, match="gradient table"):
        run(gradients=SCHEME.select(np.arange(4)))
    with pytest.raises(InputError, match="another grid"):
        run(mask=moved.cord[:-1])
    with pytest.raises(EmptyInputError, match="mask of the cord is empty"):
        run(mask=np.zeros_like(moved.cord))
    with pytest.raises(InputError, match="affine"):
        run(affine=np.zeros((4, 4)))
    with pytest.raises(ConfigError, match="no such denoising"):
        run(settings=DwiSettings(denoise="median"))
    with pytest.raises(ConfigError, match="phase-encode axis"):
        run(reversed_b0=moved.data[..., 0])
    with pytest.raises(InputError, match="reversed images lie on another grid"):
        run(reversed_b0=moved.data[:-1, ..., 0], phase_axis=1)
    with pytest.raises(EmptyInputError, match="no signal"):
        run(data=np.zeros_like(moved.data))


def test_missing_values_are_named_and_contained(moved):
    data = moved.data.copy()
    data[18, 18, 3, 4] = np.nan
    data[..., 9] = np.nan
    done = preprocess_dwi(data, moved.affine, SCHEME, moved.cord)
    assert any("lack a value" in notice for notice in done.notices)
    assert done.outlier[:, 9].all()
    assert any("outliers in volume 10 (counted from 1)" in notice for notice in done.notices)
    assert np.isfinite(done.data[:, :, :, 10]).all()
    assert np.isfinite(done.sigma[moved.cord > 0.5]).mean() > 0.9


def test_noise_alone_and_infinite_values(moved):
    noise = np.abs(np.random.default_rng(0).normal(0, 10, moved.data.shape))
    noise[18, 18, 3, 4] = np.inf
    done = preprocess_dwi(noise, moved.affine, SCHEME, moved.cord)
    assert np.isnan(done.data[18, 18, 3, 4])
    assert not np.isinf(done.data).any()
    assert any("noise alone" in notice for notice in done.notices)
    assert done.outlier.mean() < 0.02
