"""Motion of a diffusion series: recovered where it is known, not invented where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers_dwi import SCHEME, SPACING, motion_error, rms, simulate
from scipy.ndimage import shift as displace

from cordqa.cord.dwi_layout import turn_gradients
from cordqa.cord.motion import MotionSettings, apply_motion, correct_motion, estimate_motion
from cordqa.cord.motion_linear import measure_steps, tie_images
from cordqa.cord.motion_prior import regularise, slice_patterns
from cordqa.cord.motion_slices import move_slices, register_slices
from cordqa.errors import EmptyInputError, InputError
from cordqa.simulate.cord.diffusion import CordDwi, cord_scheme, simulate_cord_dwi

DWI = ~SCHEME.is_b0


# -- truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "snr"),
    [
        ("smooth", 10),
        ("interleaved", 10),
        ("single slices", 20),
        ("jump", 10),
    ],
)
def test_motion_is_recovered(kind, snr):
    truth = simulate(kind, snr)
    motion = estimate_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING)
    error = motion_error(motion, truth)
    assert rms(truth.shift_voxels) > 0.4
    assert rms(error[DWI]) < 0.1
    assert rms(error[SCHEME.is_b0]) < 0.1
    # Said uncertainty and true error are alike.
    assert 0.5 < rms(error[DWI]) / rms(motion.error_voxels[DWI]) < 1.6


def test_static_series_stays_as_it_is():
    truth = simulate("static", 10)
    corrected, motion = correct_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING)
    assert np.abs(motion.shift_voxels).max() < 0.05
    np.testing.assert_array_equal(corrected, truth.data)


def test_one_violent_movement_in_a_still_series():
    shift = np.zeros((len(SCHEME), 9, 2))
    shift[14] = (2.5, -1.8)
    truth = simulate_cord_dwi(SCHEME, CordDwi(shape=(40, 40, 9), shift_mm=shift, snr=15), seed=4)
    error = motion_error(estimate_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING), truth)
    assert rms(error[14]) < 0.15
    assert rms(np.delete(error, 14, axis=0)) < 0.05


def test_correction_restores_the_images_and_their_contrast():
    truth = simulate("smooth", 20)
    corrected, _ = correct_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING)
    cord = truth.cord > 0.5
    before, after = (rms((x - truth.clean)[cord][:, DWI]) for x in (truth.data, corrected))
    assert after < 0.75 * before
    contrast = [x[cord][:, ~DWI].mean() / x[cord][:, DWI].mean() for x in (truth.clean, corrected)]
    assert contrast[1] == pytest.approx(contrast[0], rel=0.02)
    assert corrected.min() >= 0


def test_dropouts_do_not_lead_astray():
    planted = {(3, 5): 0.3, (4, 5): 0.1, (6, 20): 0.0, (0, 8): 0.5}
    truth = simulate("smooth", 20, shape=(32, 32, 7), dropouts=planted)
    motion = estimate_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING, exclude=truth.dropped)
    assert rms(motion_error(motion, truth)[DWI]) < 0.1
    assert not motion.measured.T[truth.dropped].any()
    unaware = estimate_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING)
    assert rms(motion_error(unaware, truth)[DWI]) < 0.1


def test_contrasts_are_tied_together():
    shift = np.zeros((len(SCHEME), 9, 2))
    shift[SCHEME.is_b0] = (0.5, -0.7)
    truth = simulate_cord_dwi(SCHEME, CordDwi(shape=(40, 40, 9), shift_mm=shift), seed=2)
    motion = estimate_motion(truth.data, truth.cord, SCHEME, spacing_mm=SPACING)
    np.testing.assert_allclose(
        motion.shift_voxels[SCHEME.is_b0].mean(axis=(0, 1)), (0.556, -0.778), atol=0.05
    )
    assert np.abs(motion.shift_voxels[DWI]).max() < 0.05
    assert any("means lay" in notice for notice in motion.notices)


def test_contrasts_that_share_nothing_are_left_alone():
    truth = simulate("static", 20)
    data = truth.data.copy()
    noise = np.random.default_rng(0).normal(200, 50, data.shape[:3])
    data[..., SCHEME.is_b0] = np.abs(noise)[..., None] + data[..., SCHEME.is_b0] * 0.02
    motion = estimate_motion(data, truth.cord, SCHEME, spacing_mm=SPACING)
    assert np.abs(motion.shift_voxels[SCHEME.is_b0].mean(axis=(0, 1))).max() < 0.05
    assert any("too little in common" in notice for notice in motion.notices)


def test_rotation_is_recovered_and_turns_the_gradients():
    rng = np.random.default_rng(3)
    turn = rng.normal(0, 3, len(SCHEME))
    turn -= turn[DWI].mean()
    truth = simulate("smooth", 30, turn_deg=turn)
    motion = estimate_motion(
        truth.data, truth.cord, SCHEME, spacing_mm=SPACING, settings=MotionSettings(rotation=True)
    )
    assert rms((motion.turn_deg - turn)[DWI]) < 0.6
    # A direction fixed in the scanner runs, seen from a body that turned by +90 degrees, the other way.
    table = cord_scheme(directions=3)
    turned = turn_gradients(
        replace(table, directions=np.tile([0.0, 1.0, 0.0], (len(table), 1))), np.full(len(table), 90.0)
    )
    np.testing.assert_allclose(turned.directions, np.tile([1.0, 0.0, 0.0], (len(table), 1)), atol=1e-12)


def test_few_directions():
    table = cord_scheme(directions=12, every=6)
    truth = simulate("smooth", 20, scheme=table)
    motion = estimate_motion(truth.data, truth.cord, table, spacing_mm=SPACING)
    assert rms(motion_error(motion, truth, table)) < 0.1


# -- parts -------------------------------------------------------------------------------------------


def test_prior_learns_how_much_motion_there_is():
    rng = np.random.default_rng(1)
    patterns = slice_patterns(np.arange(10.0) * 5, np.ones(10, dtype=bool), interleaved=True)
    assert set(patterns) == {"shift", "tilt", "bend", "odd-even"}
    noise = rng.normal(0, 0.2, (30, 10))
    variance = np.full((30, 10), 0.04)
    blocks = [np.arange(n, n + 3) for n in range(0, 30, 3)]
    assert np.abs(regularise(noise, variance, patterns, blocks).value).max() < 0.05
    true = (
        rng.normal(0, 0.5, (30, 1)) * patterns["shift"] + rng.normal(0, 0.3, (30, 1)) * patterns["odd-even"]
    )
    found = regularise(true + noise, variance, patterns, blocks)
    assert rms(found.value - true) < 0.12
    assert found.spread["odd-even, own"] == pytest.approx(0.3, abs=0.12)
    # One violent movement in a still series is kept.
    jump = np.zeros((30, 10))
    jump[17] = 3.0
    kept = regularise(jump + noise, variance, patterns, blocks).value
    assert kept[17].mean() == pytest.approx(3.0, abs=0.15)


def test_prior_fills_in_what_was_not_measured():
    patterns = slice_patterns(np.arange(8.0), np.ones(8, dtype=bool), interleaved=False)
    true = np.linspace(-1, 1, 12)[:, None] * np.ones(8)
    variance = np.full((12, 8), 0.01)
    variance[4, 2:] = np.inf
    found = regularise(np.where(np.isinf(variance), np.nan, true), variance, patterns, [np.arange(12)])
    np.testing.assert_allclose(found.value[4], true[4], atol=0.1)
    assert found.error[4, 7] > found.error[3, 7]


def test_measured_step_and_its_error():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(30.0), np.arange(30.0), indexing="ij")
    still = np.exp(-((((x - 15) / 6) ** 2 + ((y - 15) / 4) ** 2) ** 2))
    moved = displace(still, (0.2, -0.3), order=3)
    noisy = np.stack([moved + rng.normal(0, 0.1, still.shape) for _ in range(200)])
    found = measure_steps(noisy, np.stack([still] * 200), np.ones((30, 30), dtype=bool))
    np.testing.assert_allclose(found.step.mean(axis=0), (0.2, -0.3), atol=0.02)
    np.testing.assert_allclose(np.sqrt(found.variance.mean(axis=0)), found.step.std(axis=0), rtol=0.25)
    blank = measure_steps(
        noisy * 0 + rng.normal(0, 0.1, noisy.shape), np.stack([still] * 200), np.ones((30, 30), dtype=bool)
    )
    assert np.isinf(blank.variance).mean() > 0.98


def test_tie_is_not_drawn_to_whole_voxels():
    truth = simulate("static", 20)
    b0 = truth.data[..., SCHEME.is_b0].mean(axis=3).astype(float)
    dwi = truth.data[..., DWI].mean(axis=3).astype(float)
    cord = truth.cord > 0.5
    for amount in (0.0, 0.3, 0.5):
        moved = move_slices(b0, np.full((9, 2), amount)).astype(float)
        found, error = tie_images(moved, dwi, cord, SPACING, np.zeros((9, 2)))
        np.testing.assert_allclose(found, amount, atol=0.07)
        assert np.isfinite(error).all()
    mutual = register_slices(moved, dwi, cord, spacing_mm=SPACING)
    assert mutual.known
    # Mutual information is: at half a voxel it is off by up to a third of one.
    np.testing.assert_allclose(mutual.shift_voxels.mean(axis=0), -0.5, atol=0.4)


# -- bad input ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return simulate("smooth", 20, shape=(32, 32, 7))


def test_shapes_that_do_not_belong_together(small):
    def run(data=small.data, mask=small.cord, table=SCHEME, **more):
        return estimate_motion(data, mask, table, spacing_mm=SPACING, **more)

    with pytest.raises(InputError, match="needs a series of volumes"):
        run(data=small.data[..., :1], table=SCHEME.select(np.arange(1)))
    with pytest.raises(InputError, match="needs a series of volumes"):
        run(data=small.data[..., 0])
    with pytest.raises(InputError, match="found 5 rows, expected 33 volumes"):
        run(table=SCHEME.select(np.arange(5)))
    with pytest.raises(InputError, match="another grid"):
        run(mask=small.cord[:, :, :-1])
    with pytest.raises(EmptyInputError, match="mask of the cord is empty"):
        run(mask=np.zeros_like(small.cord))
    with pytest.raises(InputError, match="outliers do not belong"):
        run(exclude=np.zeros((33, 7), dtype=bool))
    with pytest.raises(InputError, match="at least one volume"):
        run(settings=MotionSettings(group_size=0))
    for value in (0.0, np.nan):
        with pytest.raises(EmptyInputError, match="no signal in the mask"):
            run(data=np.full_like(small.data, value))


def test_missing_values_and_lost_volumes_are_contained(small):
    data = small.data.copy()
    data[16, 16, 3, 4] = np.nan
    data[..., 9] = np.nan
    data[..., 12] = 0
    corrected, motion = correct_motion(data, small.cord, SCHEME, spacing_mm=SPACING)
    good = DWI.copy()
    good[[9, 12]] = False
    assert rms(motion_error(motion, small)[good]) < 0.1
    assert not motion.measured[[9, 12]].any()
    assert np.isfinite(motion.shift_voxels).all()
    assert np.isnan(corrected[..., 9]).all()
    # One missing voxel takes a few neighbours with it, not the slice.
    lost = np.isnan(corrected[:, :, 3, 4])
    assert 1 <= lost.sum() <= 9
    assert not np.isnan(np.delete(corrected, [4, 9], axis=3)).any()


def test_slices_without_mask_move_with_their_neighbours(small):
    mask = small.cord.copy()
    mask[:, :, [0, 3]] = 0
    motion = estimate_motion(small.data, mask, SCHEME, spacing_mm=SPACING)
    assert rms(motion_error(motion, small)[DWI]) < 0.15
    np.testing.assert_array_equal(motion.shift_voxels[:, 0], motion.shift_voxels[:, 1])
    assert np.isinf(motion.error_voxels[:, 0]).all()
    assert any("2 of 7 slices hold no usable cord" in notice for notice in motion.notices)


def test_single_slice(small):
    motion = estimate_motion(small.data[:, :, 3:4], small.cord[:, :, 3:4], SCHEME, spacing_mm=SPACING)
    error = motion.shift_voxels[:, 0] - small.shift_voxels[:, 3]
    assert rms((error - error[DWI].mean(axis=0))[DWI]) < 0.1


def test_wide_mask_says_so(small):
    motion = estimate_motion(small.data, np.ones_like(small.cord), SCHEME, spacing_mm=SPACING)
    assert any("wider than a cord" in notice for notice in motion.notices)
    assert rms(motion_error(motion, small)[DWI]) < 0.1


def test_motion_table_and_application(small):
    motion = estimate_motion(small.data, small.cord, SCHEME, spacing_mm=SPACING)
    rows = motion.table()
    assert len(rows) == len(SCHEME)
    assert rows[3]["volume"] == 3
    assert rows[3]["largest_displacement_mm"] >= rows[3]["displacement_mm"] > 0
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    nothing = replace(motion, shift_voxels=np.zeros_like(motion.shift_voxels))
    np.testing.assert_array_equal(apply_motion(small.data, nothing), small.data)


def test_noise_alone_has_no_motion_and_says_so(small):
    noise = np.abs(np.random.default_rng(0).normal(0, 10, small.data.shape))
    corrected, motion = correct_motion(noise, small.cord, SCHEME, spacing_mm=SPACING)
    np.testing.assert_array_equal(corrected, noise.astype(np.float32))
    assert any("could not be followed" in notice for notice in motion.notices)
    assert all(np.isnan(row["error_mm"]) for row in motion.table())
    with pytest.raises(InputError, match="voxel size"):
        estimate_motion(small.data, small.cord, SCHEME, spacing_mm=(0.9, 0.0, 5.0))


def test_unit_of_the_data_does_not_matter(small):
    plain, scaled = (
        estimate_motion(small.data * factor, small.cord, SCHEME, spacing_mm=SPACING).shift_voxels
        for factor in (1.0, 1e-5)
    )
    np.testing.assert_allclose(scaled, plain, atol=1e-5)
