"""Odd and even echoes, slices that breathing spoils, R2*, and the sign of the phase."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_qsm import TIMES, echoes, head

from cordqa.models.susceptibility.phase_sign import judge_phase_sign
from cordqa.models.susceptibility.r2star import fit_r2star
from cordqa.models.susceptibility.readout import estimate_odd_even, judge_slices, remove_odd_even
from cordqa.models.susceptibility.unwrap import wrap

ONES = np.ones(3)


@pytest.fixture(scope="module")
def scan():
    mask, _, field = head()
    offset = 0.6 * np.sin(np.indices(mask.shape)[0] / 9)
    phase, magnitude = echoes(field, tissue=mask, snr=50, offset=offset)
    return phase, magnitude, mask, field


@pytest.mark.parametrize(
    ("gradient", "constant", "n"),
    [((0.02, 0, 0), 0.0, 5), ((0, -0.03, 0), 0.2, 5), ((0.004, 0.008, 0.0), -0.3, 4), ((0.05, 0, 0), 0.1, 3)],
)
def test_an_alternating_plane_is_found_and_removed(scan, gradient, constant, n):
    phase, magnitude, mask, _ = scan
    at = np.indices(mask.shape)
    plane = constant + sum(g * (i - i[mask].mean()) for g, i in zip(gradient, at, strict=True))
    bipolar = wrap(phase[..., :n] + plane[..., None] * (-1.0) ** np.arange(n)).astype(np.float32)
    term = estimate_odd_even(bipolar, magnitude[..., :n], TIMES[:n], mask)
    assert term.found
    np.testing.assert_allclose(term.gradient_rad, gradient, atol=5e-4)
    left = wrap((remove_odd_even(bipolar, term) - phase[..., :n])[mask].astype(float))
    assert np.sqrt((left**2).mean()) < 0.01


def test_a_monopolar_readout_is_left_alone(scan):
    phase, magnitude, mask, _ = scan
    term = estimate_odd_even(phase, magnitude, TIMES, mask)
    assert not term.found
    assert term.span_rad < 0.05


def test_too_few_or_unequal_echoes_cannot_tell(scan):
    phase, magnitude, mask, _ = scan
    two = estimate_odd_even(phase[..., :2], magnitude[..., :2], TIMES[:2], mask)
    unequal = estimate_odd_even(phase[..., :3], magnitude[..., :3], np.array([0.004, 0.008, 0.02]), mask)
    assert "fewer than three" in two.reason
    assert "unequal" in unequal.reason
    assert not two.found
    assert math.isnan(two.span_rad)


def slices(mask, field_hz=0.0, residual=0.03, seed=0):
    rng = np.random.default_rng(seed)
    n = int(mask.sum())
    z = np.argwhere(mask)[:, 2]
    hz = 3 * np.sin(z / 6) + (field_hz[z] if np.ndim(field_hz) else field_hz)
    wild = rng.normal(size=(n, 4)) * np.broadcast_to(residual, (mask.shape[2],))[z][:, None]
    return judge_slices(hz, wild, np.full((n, 4), 100.0), mask, noise_sd=3.0, axis=2)


def test_quiet_slices_are_not_flagged():
    report = slices(np.ones((8, 8, 30), dtype=bool))
    assert report.flagged == ()
    assert report.sentence == ""
    assert np.nanmedian(report.misfit) == pytest.approx(1.0, abs=0.1)


def test_a_shifted_and_a_noisy_slice_are_named():
    mask = np.ones((8, 8, 30), dtype=bool)
    shift = np.zeros(30)
    shift[12] = 5.0
    noisy = np.full(30, 0.03)
    noisy[20] = 0.2
    report = slices(mask, shift, noisy)
    assert report.flagged == (12, 20)
    assert report.step_hz[12] == pytest.approx(5.0, abs=0.2)
    assert "slices 20" in report.sentence
    assert "breathing" in report.sentence


def test_breathing_in_every_slice_is_flagged_as_well():
    shift = np.random.default_rng(1).normal(0, 6, 30)
    report = slices(np.ones((8, 8, 30), dtype=bool), shift)
    assert report.jitter_hz > 3
    assert len(report.flagged) > 5
    assert "everywhere, by" in report.sentence


@pytest.mark.parametrize("at", [5, 14])
@pytest.mark.parametrize("hertz", [3.0, -8.0, 20.0])
def test_a_shift_is_laid_to_its_slice_and_not_to_the_neighbours(at, hertz):
    shift = np.zeros(30)
    shift[at] = hertz
    assert slices(np.ones((8, 8, 30), dtype=bool), shift).flagged == (at,)


def test_an_end_that_is_shifted_is_not_laid_to_sound_slices_further_in():
    shift = np.zeros(30)
    shift[:3] = 10.0
    assert set(slices(np.ones((8, 8, 30), dtype=bool), shift).flagged) <= {0, 1, 2}


def test_an_echo_that_a_whole_slice_has_wrong_is_found_in_noise():
    mask = np.ones((12, 12, 24), dtype=bool)
    z = np.argwhere(mask)[:, 2]
    rng = np.random.default_rng(0)
    wild = rng.normal(0, 0.3, (len(z), 4))
    wild[z == 9, 2] += 0.2
    magnitude = np.full(wild.shape, 100.0)
    report = judge_slices(0.0 * z, wild, magnitude, mask, noise_sd=30.0, axis=2)
    assert report.flagged == (9,)
    assert report.common_rad[9, 2] == pytest.approx(0.2, abs=0.08)
    # A phase that all slices share in one echo harms nothing: the offset of the echo moves every field alike.
    wild[:, 1] += 0.4
    assert judge_slices(0.0 * z, wild, magnitude, mask, noise_sd=30.0, axis=2).flagged == (9,)


def test_echoes_that_breathing_moves_in_every_slice_are_named():
    mask = np.ones((12, 12, 24), dtype=bool)
    z = np.argwhere(mask)[:, 2]
    rng = np.random.default_rng(0)
    wild = rng.normal(0, 0.05, (len(z), 4)) + rng.normal(0, 0.4, (24, 4))[z]
    report = judge_slices(0.0 * z, wild, np.full(wild.shape, 100.0), mask, noise_sd=30.0, axis=2)
    assert len(report.flagged) > 12


def test_slices_of_unknown_noise_and_small_masks_are_not_judged():
    mask = np.zeros((4, 4, 8), dtype=bool)
    mask[1, 1] = True
    n = int(mask.sum())
    report = judge_slices(np.zeros(n), np.zeros((n, 3)), np.ones((n, 3)), mask, noise_sd=math.nan, axis=2)
    assert report.flagged == ()
    assert np.isnan(report.misfit).all()


def test_r2star_is_recovered_without_noise_and_unbiased_with():
    rate = np.array([5.0, 20.0, 60.0, 150.0])
    signal = 1000 * np.exp(-rate[:, None] * TIMES)
    clean = fit_r2star(signal, TIMES, noise_sd=math.nan)
    np.testing.assert_allclose(clean.r2star_per_s, rate, rtol=1e-8)
    assert np.isnan(clean.standard_error_per_s).all()
    rng = np.random.default_rng(0)
    many = np.repeat(signal, 4000, axis=0)
    noisy = np.abs(many + 20 * (rng.normal(size=many.shape) + 1j * rng.normal(size=many.shape)))
    fit = fit_r2star(noisy, TIMES, noise_sd=20.0)
    found = fit.r2star_per_s.reshape(4, -1)
    spread, stated = found.std(1), np.sqrt((fit.standard_error_per_s.reshape(4, -1) ** 2).mean(1))
    np.testing.assert_allclose(found.mean(1), rate, atol=0.25, rtol=0.015)
    np.testing.assert_allclose(stated, spread, rtol=0.1)


def test_r2star_has_no_value_in_noise():
    rng = np.random.default_rng(0)
    air = np.abs(rng.normal(size=(500, 5)) + 1j * rng.normal(size=(500, 5)))
    fit = fit_r2star(np.vstack([air, np.zeros((2, 5)), np.full((1, 5), np.nan)]), TIMES, noise_sd=1.0)
    assert np.isnan(fit.r2star_per_s).mean() > 0.9
    assert np.isnan(fit.r2star_per_s[-3:]).all()


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0.5, 0.866), (1, 0, 0)])
def test_air_beside_tissue_shows_the_sign(direction):
    mask, _, field = head(direction=direction)
    for sign in (1, -1):
        judged = judge_phase_sign(
            sign * field + 0.3, None, mask, voxel_size_mm=2 * ONES, b0_direction=np.array(direction)
        )
        assert judged.sign == sign


def test_without_air_the_sign_is_asked_for():
    mask, chi, _ = head()
    from cordqa.models.susceptibility.dipole import forward_field

    bone = np.where(chi > 5, -2.5, chi)
    field = forward_field(bone, voxel_size_mm=2 * ONES, b0_direction=(0, 0, 1))
    judged = judge_phase_sign(field, None, mask, voxel_size_mm=2 * ONES, b0_direction=np.array([0, 0, 1.0]))
    assert judged.sign == 0
    empty = judge_phase_sign(
        np.full(mask.shape, np.nan), None, mask, voxel_size_mm=2 * ONES, b0_direction=np.array([0, 0, 1.0])
    )
    assert empty.sign == 0


@pytest.mark.parametrize("edge", [2, 3, 4])
def test_a_handful_of_voxels_shows_no_sign(edge):
    # Few blocks are explained to the last digit, after which there is nothing to step along.
    rng = np.random.default_rng(edge)
    mask = np.zeros((20, 20, 8), bool)
    mask[9 : 9 + edge, 9 : 9 + edge, 3 : 3 + edge] = True
    judged = judge_phase_sign(
        rng.normal(0, 0.05, mask.shape), None, mask,
        voxel_size_mm=np.array([1.0, 1.0, 3.0]), b0_direction=np.array([0, 0, 1.0]),
    )  # fmt: skip
    assert judged.sign in (-1, 0, 1)
