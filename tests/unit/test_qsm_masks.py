"""Quality of the phase, the three masks, and the second opinion on unwrapping."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_qsm import TIMES, echoes, ellipsoid, head

from cordqa.errors import EmptyInputError, InputError
from cordqa.models.susceptibility.masks import make_fit_mask, quality_mask, widen_cord_mask
from cordqa.models.susceptibility.quality import (
    NOISE_QUALITY,
    compare_unwrapping,
    estimate_noise,
    laplacian_phase,
    split_histogram,
    voxel_quality,
)
from cordqa.models.susceptibility.unwrap import unwrap_echoes

VOXEL = (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def scan():
    mask, _, field = head()
    phase, magnitude = echoes(field, tissue=mask, snr=50)
    quality = voxel_quality(phase, magnitude, TIMES, np.ones(mask.shape, dtype=bool))
    return phase, magnitude, mask, quality


def overlap(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_quality_tells_tissue_from_noise(scan):
    _, _, mask, quality = scan
    assert np.median(quality[mask]) > 0.85
    assert np.mean(quality[~mask] > NOISE_QUALITY) < 0.06  # mostly the rim, which has tissue beside it
    assert quality.min() >= 0
    assert quality.max() <= 1


def test_pure_noise_stays_below_its_limit():
    rng = np.random.default_rng(0)
    phase = rng.uniform(-math.pi, math.pi, (40, 40, 40, 2))
    quality = voxel_quality(phase, np.ones(phase.shape), TIMES[:2], np.ones((40, 40, 40), dtype=bool))
    assert np.mean(quality > NOISE_QUALITY) < 2e-3


def test_the_mask_of_the_quality_is_the_tissue(scan):
    _, magnitude, mask, quality = scan
    assert overlap(quality_mask(magnitude[..., 0], quality, VOXEL), mask) > 0.97
    # A surface coil: a hundred times less signal far away, and still the phase is good.
    shaded = magnitude[..., 0] * np.exp(-np.indices(mask.shape)[1] / 25)
    assert overlap(quality_mask(shaded, quality, VOXEL), mask) > 0.9


def test_an_image_full_of_tissue_keeps_all_of_it(scan):
    _, magnitude, _, quality = scan
    box = (slice(14, 26), slice(14, 26), slice(10, 26))
    assert quality_mask(magnitude[box][..., 0], quality[box], VOXEL).all()


def test_an_image_of_noise_has_no_mask():
    rng = np.random.default_rng(0)
    phase = rng.uniform(-math.pi, math.pi, (20, 20, 20, 2))
    magnitude = rng.rayleigh(size=phase.shape)
    quality = voxel_quality(phase, magnitude, TIMES[:2], np.ones((20, 20, 20), dtype=bool))
    with pytest.raises(EmptyInputError, match="agrees with its neighbours"):
        quality_mask(magnitude[..., 0], quality, VOXEL)


def test_a_histogram_is_split_where_it_falls_apart():
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(0, 1, 5000), rng.normal(10, 1, 5000)])
    split = split_histogram(two)
    assert 3 < split.threshold < 7
    assert split.separation > 0.9
    assert split_histogram(rng.normal(size=5000)).separation < 0.7
    assert split_histogram(np.full(5, 2.0)).separation == 0
    assert math.isnan(split_histogram(np.array([np.nan])).threshold)


def test_a_cord_is_widened_to_its_canal_and_not_to_bone():
    shape, voxel = (40, 40, 24), (1.0, 1.0, 2.0)
    at = np.indices(shape)
    away = np.hypot(at[0] - 20, at[1] - 20)
    cord, canal, bone = away <= 5, away <= 9, (away > 9) & (away <= 13)
    disc = (np.abs(at[1] - 31) < 5) & (np.abs(at[0] - 20) < 7) & ~canal
    quality = np.where(canal | disc, 0.9, 0.1)
    magnitude = np.where(canal | disc, 100.0, np.where(bone, 3.0, 2.0))
    bridge = (np.abs(at[1] - 29) < 2) & (np.abs(at[0] - 20) < 3)
    quality[bridge], magnitude[bridge] = 0.9, 80.0
    wide = widen_cord_mask(cord, magnitude, quality, voxel)
    assert wide[canal].all()
    assert wide[disc & (away <= 11)].mean() > 0.9
    assert wide[bone & ~disc & ~bridge].mean() < 0.25
    assert not wide[away > 13].any()
    short = cord.copy()
    short[..., 12:] = False
    assert not widen_cord_mask(short, magnitude, quality, voxel)[..., 13:].any()
    with pytest.raises(EmptyInputError, match="cord is empty"):
        widen_cord_mask(np.zeros(shape, dtype=bool), magnitude, quality, voxel)


def test_voxels_are_left_out_with_a_reason_and_holes_are_said():
    outline = ellipsoid((20, 20, 20), (8, 8, 8))
    outline[10, 10, 10] = False
    outline[0, 0, 0] = True
    bad = np.zeros(outline.shape, dtype=bool)
    bad[9, 9, 9] = True
    found = make_fit_mask(outline, {"not a number": bad})
    assert not found.mask[9, 9, 9]
    assert not found.mask[0, 0, 0]
    assert [int(where.sum()) for where, _ in found.reasons] == [1, 1]
    assert "detached" in found.reasons[1][1]
    assert any("enclosed holes (1 voxels)" in text for text in found.notices)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_refused(axis):
    outline = np.ones((12, 12, 12), dtype=bool)
    keep = np.zeros(12, dtype=bool)
    keep[5] = True
    np.moveaxis(outline, axis, 0)[~keep] = False
    with pytest.raises(InputError, match="so few slices"):
        make_fit_mask(outline, {})


def test_a_mask_without_phase_is_refused():
    outline = np.ones((5, 5, 5), dtype=bool)
    with pytest.raises(EmptyInputError, match="no magnitude"):
        make_fit_mask(outline, {"no magnitude": outline})
    with pytest.raises(EmptyInputError, match="mask is empty"):
        make_fit_mask(~outline, {})


def test_two_pieces_are_said():
    outline = np.zeros((20, 8, 8), dtype=bool)
    outline[:8], outline[12:] = True, True
    assert any("2 pieces" in text for text in make_fit_mask(outline, {}).notices)


def test_both_ways_of_unwrapping_agree_on_a_clean_scan(scan):
    phase, magnitude, mask, _ = scan
    unwrapped = unwrap_echoes(phase, magnitude, TIMES, mask)
    assert compare_unwrapping(unwrapped[:, 0], phase[..., 0], mask) < 1e-3
    # In the last echo the field beside air changes by more than half a turn per voxel.
    assert compare_unwrapping(unwrapped[:, -1], phase[..., -1], mask) < 0.03
    shifted = unwrapped[:, 0].copy()
    assert compare_unwrapping(shifted + 2 * math.pi, phase[..., 0], mask) < 1e-3
    shifted[: mask.sum() // 4] += 2 * math.pi
    assert compare_unwrapping(shifted, phase[..., 0], mask) == pytest.approx(0.25, abs=0.01)


def test_the_laplacian_phase_follows_a_smooth_phase():
    at = np.indices((24, 24, 20)).astype(float)
    truth = 6 * np.sin(at[0] / 8) * np.cos(at[1] / 9) + at[2] / 5
    smooth = laplacian_phase(np.angle(np.exp(1j * truth)), np.array([1.0, 1.0, 2.0]))
    assert np.corrcoef(smooth.ravel(), truth.ravel())[0, 1] > 0.99


def test_noise_is_estimated_within_a_quarter(scan):
    _, magnitude, mask, _ = scan
    inner = ellipsoid(mask.shape, (10, 10, 10)) & mask
    assert estimate_noise(magnitude[..., -1], inner) == pytest.approx(20.0, rel=0.25)
    assert math.isnan(estimate_noise(magnitude[..., -1], np.zeros(mask.shape, dtype=bool)))


@pytest.mark.parametrize("snr", [0.0, 0.5, 1.0, 2.0, 5.0, 30.0])
def test_noise_is_estimated_where_the_signal_drowns_in_it(snr):
    rng = np.random.default_rng(3)
    shape = (24, 24, 16)
    signal = snr + rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    assert estimate_noise(np.abs(signal), np.ones(shape, dtype=bool)) == pytest.approx(1.0, abs=0.15)
