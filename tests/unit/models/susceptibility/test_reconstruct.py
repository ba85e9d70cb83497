from functools import cache

import numpy as np
import pytest
from helpers_susceptibility import brain, cord, detrended_error, geometry, inside

from cordqa.errors import InputError
from cordqa.models.susceptibility.field import fit_field
from cordqa.models.susceptibility.inversion_recovery import contrast_recovery
from cordqa.models.susceptibility.reference import reference_to_mask, reference_to_region, region_value
from cordqa.models.susceptibility.total_field import BACKGROUNDS, INVERSIONS, ChainSettings, reconstruct
from cordqa.models.susceptibility.unwrap import unwrap_echoes


def noisy(scan, sd, seed=0):
    rng = np.random.default_rng(seed)
    field = inside(scan, scan.total_field_ppm + sd * rng.standard_normal(scan.mask.shape))
    return field, inside(scan, np.full(scan.mask.shape, sd))


@cache
def of_brain(**settings):
    settings = {"rounds": 4} | settings
    scan = brain()
    field, error = noisy(scan, 0.001)
    return reconstruct(field, error, scan.mask, settings=ChainSettings(**settings), **geometry(scan))


def test_a_brain_is_recovered_whole():
    scan, found = brain(), of_brain()
    assert found.kept_fraction == 1.0
    assert np.array_equal(found.valid, scan.mask)
    assert detrended_error(found.local_field_ppm, scan.local_field_ppm, scan.mask) < 35
    assert detrended_error(found.chi_ppm, scan.chi_ppm, scan.mask) < 60
    assert 0.5 < np.polyfit(scan.chi_ppm[scan.mask], found.chi_ppm[scan.mask], 1)[0] < 1.2


def test_a_tilted_cord_cut_by_the_image_is_recovered_whole():
    scan = cord()
    field, error = noisy(scan, 0.001)
    found = reconstruct(field, error, scan.mask, **geometry(scan))
    assert found.kept_fraction == 1.0
    assert detrended_error(found.local_field_ppm, scan.local_field_ppm, scan.mask) < 55
    assert detrended_error(found.chi_ppm, scan.chi_ppm, scan.mask) < 55


def test_rounds_beat_a_projection_on_the_whole_of_a_cord():
    scan = cord()
    field, error = noisy(scan, 0.001)
    rounds, projection = (
        reconstruct(field, error, scan.mask, settings=ChainSettings(background=b), **geometry(scan))
        for b in ("alternating", "pdf")
    )
    best, other = (detrended_error(r.chi_ppm, scan.chi_ppm, scan.mask) for r in (rounds, projection))
    assert best < 0.85 * other


@pytest.mark.parametrize("background", [b for b in BACKGROUNDS if b != "none"])
def test_the_record_is_consistent(background):
    scan, found = brain(), of_brain(background=background)
    field, _ = noisy(scan, 0.001)
    valid = found.valid
    assert np.allclose((found.local_field_ppm + found.background_ppm)[valid], field[valid], atol=1e-6)
    for volume in (found.chi_ppm, found.local_field_ppm, found.residual_ppm):
        assert np.array_equal(np.isfinite(volume), valid)
    assert found.chi_ppm[valid].mean() == pytest.approx(0, abs=1e-9)
    assert np.all((found.weights >= 0) & (found.weights <= 1))
    assert np.all(found.weights[~valid] == 0)
    assert found.regularisation > 0
    assert all(sentence.endswith(".") for sentence in found.methods)


@pytest.mark.parametrize("inversion", INVERSIONS)
def test_every_inversion_runs_on_a_local_field(inversion):
    scan = brain()
    found = reconstruct(
        inside(scan, scan.local_field_ppm), None, scan.mask,
        settings=ChainSettings(background="none", inversion=inversion, radians_per_ppm=8.0), **geometry(scan),
    )  # fmt: skip
    assert detrended_error(found.chi_ppm, scan.chi_ppm, scan.mask) < 60
    assert "no error map" in found.notices[0]
    assert "no background was removed" in found.methods[0]


def test_two_passes_do_no_harm():
    scan = brain()
    once, twice = (detrended_error(of_brain(two_pass=p).chi_ppm, scan.chi_ppm, scan.mask) for p in (0, 1))
    assert twice < 1.05 * once
    assert "Reliable voxels" in of_brain(two_pass=True).methods[-1]


@pytest.mark.parametrize("inversion", ["l2", "tkd", "rts"])
def test_two_passes_are_those_of_total_variation(inversion):
    # They would put values of total variation under the name of another inversion.
    with pytest.raises(InputError, match="two passes"):
        of_brain(two_pass=True, inversion=inversion)


@pytest.mark.parametrize(
    ("sd_ppm", "inversion", "said"), [(0.02, "tv", 1), (0.02, "tkd", 0), (0.002, "tv", 0)]
)
def test_noise_that_flattens_contrasts_is_said(sd_ppm, inversion, said):
    scan = brain()
    field, error = noisy(scan, sd_ppm)
    settings = ChainSettings(rounds=1, inversion=inversion)
    found = reconstruct(field, error, scan.mask, settings=settings, **geometry(scan))
    assert any("flattens" in text for text in found.warnings) == said


@pytest.mark.parametrize(
    ("half", "background", "said"), [(1, "alternating", 1), (1, "none", 0), (4, "alternating", 0)]
)
def test_a_mask_that_the_free_fields_explain_is_said(half, background, said):
    scan = brain()
    field, error = noisy(scan, 0.001)
    mask = np.zeros_like(scan.mask)
    mask[tuple(slice(n // 2 - half, n // 2 + half + 1) for n in mask.shape)] = True
    settings = ChainSettings(rounds=1, background=background)
    found = reconstruct(field, error, mask & scan.mask, settings=settings, **geometry(scan))
    assert any("free harmonics" in text for text in found.warnings) == said


def test_a_replica_that_cannot_be_made_or_judged_is_said():
    assert any("passes on" in text for text in of_brain(rounds=1, inversion="l2", replica=True).notices)
    assert any("passes on" in text for text in of_brain(rounds=1, replica=True).notices)


def test_a_given_regularisation_is_used_and_said():
    found = of_brain(regularisation=1e-3)
    assert found.regularisation == 1e-3
    assert "as given" in found.methods[-1]
    assert np.nanstd(found.chi_ppm) < np.nanstd(of_brain().chi_ppm)


def test_a_constant_added_to_the_field_changes_nothing():
    scan = brain()
    field, error = noisy(scan, 0.001)
    moved = reconstruct(field + 0.3, error, scan.mask, settings=ChainSettings(rounds=4), **geometry(scan))
    assert np.nanmax(np.abs(moved.chi_ppm - of_brain().chi_ppm)) < 0.02
    assert np.nanstd(moved.chi_ppm - of_brain().chi_ppm) < 0.05 * np.nanstd(of_brain().chi_ppm)


def test_turning_the_axes_turns_the_map():
    scan = cord()
    field, error = noisy(scan, 0.001)
    one = reconstruct(field, error, scan.mask, settings=ChainSettings(rounds=2), **geometry(scan))
    order = (2, 0, 1)
    turned = reconstruct(
        field.transpose(order), error.transpose(order), scan.mask.transpose(order),
        voxel_size_mm=scan.voxel_size_mm[list(order)],
        b0_direction=np.array(scan.scanner.b0_direction)[list(order)], settings=ChainSettings(rounds=2),
    )  # fmt: skip
    assert np.nanstd(turned.chi_ppm - one.chi_ppm.transpose(order)) < 0.05 * np.nanstd(one.chi_ppm)


def test_the_opposite_field_gives_the_opposite_map():
    scan = brain()
    field, error = noisy(scan, 0.001)
    found = reconstruct(-field, error, scan.mask, settings=ChainSettings(rounds=4), **geometry(scan))
    assert np.nanstd(found.chi_ppm + of_brain().chi_ppm) < 0.02 * np.nanstd(found.chi_ppm)


def test_wild_voxels_lose_their_weight_and_spoil_nothing():
    scan = brain()
    field, error = noisy(scan, 0.001)
    rng = np.random.default_rng(1)
    wild = scan.mask & (rng.random(scan.mask.shape) < 0.01)
    field[wild] += rng.choice([-0.5, 0.5], int(wild.sum()))
    found = reconstruct(field, error, scan.mask, **geometry(scan))
    clean = detrended_error(of_brain().chi_ppm, scan.chi_ppm, scan.mask)
    assert np.median(found.weights[wild]) < 0.2 * np.median(found.weights[scan.mask])
    assert detrended_error(found.chi_ppm, scan.chi_ppm, scan.mask & ~wild) < 1.5 * clean


def test_holes_and_nan_are_left_out_and_counted():
    scan = brain()
    field, error = noisy(scan, 0.001)
    field[20, 20, 15:18] = np.nan
    error[10:12, 20, 18] = np.nan
    error[12, 20, 18] = np.inf
    found = reconstruct(field, error, scan.mask, settings=ChainSettings(rounds=2), **geometry(scan))
    assert not found.valid[20, 20, 15:18].any()
    assert found.notices[0].startswith("3 voxels of the mask have no field")
    assert np.all(np.isfinite(found.chi_ppm[found.valid]))
    assert np.all(found.weights[10:13, 20, 18] < 0.1)


def test_an_error_map_without_a_number_is_no_error_map():
    scan = brain()
    field, _ = noisy(scan, 0.001)
    found = reconstruct(
        field, np.full(field.shape, np.nan), scan.mask, settings=ChainSettings(rounds=1, probes=2),
        **geometry(scan),
    )  # fmt: skip
    assert found.standard_error_ppm is None
    assert any("no error map" in notice for notice in found.notices)
    assert any("no standard error" in notice for notice in found.notices)


def test_the_standard_error_is_what_repeats_scatter_by():
    scan = cord()
    settings = ChainSettings(rounds=4)

    def repeat(seed):
        return reconstruct(*noisy(scan, 0.002, seed), scan.mask, settings=settings, **geometry(scan))

    repeats = np.stack([repeat(seed).chi_ppm[scan.mask] for seed in range(8)])
    field, error = noisy(scan, 0.002, 99)
    found = reconstruct(field, error, scan.mask, settings=ChainSettings(rounds=4, probes=8), **geometry(scan))
    actual = np.sqrt((repeats.std(0, ddof=1) ** 2).mean())
    expected = np.sqrt((found.standard_error_ppm[scan.mask] ** 2).mean())
    assert 0.75 < expected / actual < 1.5
    assert found.draws_ppm.shape == (8, scan.mask.sum())
    grey = scan.mask & (scan.label == 7)
    value = region_value(reference_to_mask(found), grey)
    assert 0.3 < value.standard_error_ppm / repeats[:, grey[scan.mask]].mean(1).std(ddof=1) < 3
    assert value.standard_error_ppm < 0.5 * np.median(found.standard_error_ppm[grey])


def test_the_seed_decides_the_draws():
    one, same = of_brain(rounds=1, probes=2, seed=5), of_brain(rounds=1, probes=2, seed=5)
    other = of_brain(rounds=1, probes=2, seed=6)
    assert np.array_equal(one.draws_ppm, same.draws_ppm)
    assert not np.array_equal(one.draws_ppm, other.draws_ppm)


def test_a_reference_is_named_and_becomes_zero():
    scan, found = brain(), of_brain(probes=2)
    region = scan.mask & (scan.label == 6)
    referenced = reference_to_region(found, region, name="CSF")
    assert referenced.reference == "CSF"
    assert referenced.chi_ppm[region].mean() == pytest.approx(0, abs=1e-9)
    assert region_value(referenced, region).standard_error_ppm == pytest.approx(0, abs=1e-6)
    assert referenced.n_voxels == region.sum()
    whole = reference_to_mask(found)
    assert whole.reference == "whole mask"
    assert np.nanmean(whole.chi_ppm) == pytest.approx(0, abs=1e-9)
    assert whole.notices == ()


def test_a_region_of_nothing_is_nan_and_a_bad_reference_is_refused():
    scan, found = brain(), of_brain()
    value = region_value(reference_to_mask(found), ~scan.mask)
    assert np.isnan(value.mean_ppm)
    assert value.n_voxels == 0
    assert np.isnan(region_value(reference_to_mask(found), scan.mask).standard_error_ppm)
    with pytest.raises(InputError, match="no voxel of the reference"):
        reference_to_region(found, ~scan.mask, name="air")
    with pytest.raises(InputError, match="another grid"):
        reference_to_region(found, scan.mask[1:], name="CSF")
    small = np.zeros_like(scan.mask)
    small[20, 20, 18] = True
    assert "only 1 voxels" in reference_to_region(found, small, name="vein").notices[0]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"background": "magic"}, "no background removal"),
        ({"inversion": "medi"}, "no inversion"),
        ({"regularisation": 0.0}, "regularisation"),
        ({"regularisation": np.nan}, "regularisation"),
        ({"rounds": 0}, "rounds or probes"),
        ({"probes": -1}, "rounds or probes"),
        ({"inversion": "nonlinear-tv"}, "phase that 1 ppm makes"),
    ],
)
def test_unusable_settings_are_named(settings, match):
    scan = brain()
    with pytest.raises(InputError, match=match):
        reconstruct(
            scan.total_field_ppm, None, scan.mask, settings=ChainSettings(**settings), **geometry(scan)
        )


def test_unusable_arrays_are_named():
    field, mask = np.zeros((12, 12, 12)), np.ones((12, 12, 12), bool)
    place = {"voxel_size_mm": (1, 1, 1), "b0_direction": (0, 0, 1)}
    with pytest.raises(InputError, match="one shape"):
        reconstruct(field, None, mask[1:], **place)
    with pytest.raises(InputError, match="different shapes"):
        reconstruct(field, np.zeros((3, 3, 3)), mask, **place)
    with pytest.raises(InputError, match="no value inside the mask"):
        reconstruct(field, None, ~mask, **place)
    with pytest.raises(InputError, match="no value inside the mask"):
        reconstruct(field * np.nan, None, mask, **place)
    with pytest.raises(InputError, match="too thin"):
        reconstruct(field[:, :, :1], None, mask[:, :, :1], **place)
    with pytest.raises(InputError, match="voxel size"):
        reconstruct(field, None, mask, voxel_size_mm=(1, 0, 1), b0_direction=(0, 0, 1))
    with pytest.raises(InputError, match="direction of the main field"):
        reconstruct(field, None, mask, voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 0))


def test_a_field_in_hertz_is_not_taken_for_ppm():
    scan = brain()
    with pytest.raises(InputError, match="too wide to be in ppm"):
        reconstruct(1000 * scan.total_field_ppm, None, scan.mask, **geometry(scan))


def test_a_mask_of_integers_will_do():
    scan = brain()
    field, error = noisy(scan, 0.001)
    found = reconstruct(
        field, error, scan.mask.astype(int), settings=ChainSettings(rounds=1), **geometry(scan)
    )
    assert found.kept_fraction == 1.0


def test_a_field_of_zeros_gives_zeros():
    mask = np.zeros((16, 16, 16), bool)
    mask[4:12, 4:12, 4:12] = True
    found = reconstruct(np.zeros(mask.shape), None, mask, voxel_size_mm=(1, 1, 1), b0_direction=(0, 0, 1))
    assert np.nanmax(np.abs(found.chi_ppm)) < 1e-9


def contrast(scan, values):
    return values[scan.mask & (scan.label == 8)].mean() - values[scan.mask & (scan.label == 7)].mean()


@pytest.mark.parametrize("sd", [0.001, 0.003])
def test_the_contrast_of_grey_and_white_matter_is_kept_or_its_loss_is_told(sd):
    scan = cord()
    rng = np.random.default_rng(2)
    field = inside(scan, scan.local_field_ppm + sd * rng.standard_normal(scan.mask.shape))
    found = reconstruct(
        field, inside(scan, np.full(scan.mask.shape, sd)), scan.mask,
        settings=ChainSettings(background="none", replica=True), **geometry(scan),
    )  # fmt: skip
    recovered = contrast(scan, found.chi_ppm) / contrast(scan, scan.chi_ppm)
    grey, white = scan.label == 7, scan.label == 8
    assert contrast_recovery(found, white, grey) == pytest.approx(recovered, abs=0.12)
    assert contrast_recovery(found, white, grey) == pytest.approx(contrast_recovery(found, grey, white))
    assert 0.9 < recovered < 1.1 if sd == 0.001 else 0.6 < recovered < 1.1


def test_a_recovery_that_cannot_be_known_is_nan_or_refused():
    scan = cord()
    field, error = noisy(scan, 0.003)
    settings = ChainSettings(rounds=1, replica=True, probes=2)
    found = reconstruct(field, error, scan.mask, settings=settings, **geometry(scan))
    white = scan.mask & (scan.label == 8)
    assert np.isnan(contrast_recovery(found, white, ~scan.mask))
    assert np.isnan(contrast_recovery(found, white, white))
    with pytest.raises(InputError, match="another grid"):
        contrast_recovery(found, white[1:], white)
    with pytest.raises(InputError, match="no replica"):
        contrast_recovery(of_brain(), brain().mask, brain().mask)


@pytest.mark.data
def test_the_shared_cord_is_mapped_from_its_phase(shared_data):
    import json

    import nibabel

    folder = shared_data / "qsm" / "cord"

    def read(name):
        return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj, dtype=float)

    p = json.loads((folder / "params.json").read_text())
    mask, times, voxel = read("mask") > 0, np.array(p["TE"]), np.array(p["voxel_size"])
    phase, magnitude = read("phase"), read("magnitude")
    fit = fit_field(
        unwrap_echoes(phase, magnitude, times, mask), magnitude[mask], times, mask,
        field_strength_t=p["B0"], voxel_size_mm=voxel,
    )  # fmt: skip
    field, error = np.full(mask.shape, np.nan), np.full(mask.shape, np.nan)
    field[mask], error[mask] = fit.field_ppm, fit.standard_error_ppm
    found = reconstruct(field, error, mask, voxel_size_mm=voxel, b0_direction=p["B0_dir"])
    truth = read("gt_totalfield")[mask]
    assert np.linalg.norm(fit.field_ppm - truth) < 0.023 * np.linalg.norm(truth)
    assert found.kept_fraction == 1.0
    assert detrended_error(found.chi_ppm, read("gt_chi"), mask) < 46
