"""From stored phase and magnitude to maps, masks, reporting table and sentences."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers_qsm import TIMES, echoes, ellipsoid, head

from cordqa.errors import InputError
from cordqa.models.susceptibility.pipeline import MappingSettings, Scan, map_susceptibility
from cordqa.models.susceptibility.stage import measure_field
from cordqa.models.susceptibility.total_field import ChainSettings
from cordqa.records import as_plain

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
#: The fastest chain: what is tested here is everything round it.
FAST = MappingSettings(chain=ChainSettings(background="none", inversion="tkd"))


def scan_of(phase, magnitude, **changes) -> Scan:
    given = {"echo_times_s": TIMES[: phase.shape[-1]], "affine": AFFINE, "field_strength_t": 3.0}
    return Scan(**({"phase": phase, "magnitude": magnitude} | given | changes))


@pytest.fixture(scope="module")
def data():
    mask, chi, field = head()
    phase, magnitude = echoes(field, tissue=mask, snr=80, offset=0.2 * np.indices(mask.shape)[0] / 10)
    return phase, magnitude, mask, chi, field


@pytest.fixture(scope="module")
def found(data):
    phase, magnitude, mask, _, _ = data
    return map_susceptibility(scan_of(phase, magnitude), mask=mask, settings=FAST)


def test_the_total_field_is_that_of_the_truth(data, found):
    _, _, mask, _, field = data
    smooth = mask & (np.abs(np.linalg.norm(np.gradient(field), axis=0)) < 0.1)
    error = (found.maps.values["total_field"] - field)[smooth]
    stated = found.maps.standard_errors["total_field"][smooth]
    error -= np.nanmedian(error)
    assert np.nanmedian(np.abs(error)) * 1.4826 == pytest.approx(np.nanmedian(stated), rel=0.25)


def test_every_hole_has_a_reason_and_every_value_has_none(found):
    for name, values in found.maps.values.items():
        assert np.array_equal(np.isfinite(values), found.maps.reason_of(name).ok), name


def test_susceptibility_is_relative_to_the_whole_mask_unless_said_otherwise(data, found):
    phase, magnitude, mask, _, _ = data
    assert np.nanmean(found.maps.values["susceptibility"]) == pytest.approx(0, abs=1e-9)
    region = ellipsoid(mask.shape, (4, 4, 4), (20, 20, 20))
    named = replace(FAST, reference_name="CSF")
    other = map_susceptibility(scan_of(phase, magnitude), mask=mask, reference=region, settings=named)
    chi = other.maps.values["susceptibility"]
    assert np.nanmean(chi[region]) == pytest.approx(0, abs=1e-9)
    report = other.consensus["reporting"]["referencing"]
    shift = found.maps.values["susceptibility"][region].mean()
    assert report["region"] == "CSF"
    assert report["mean_relative_to_whole_mask_ppm"] == pytest.approx(shift)
    assert any("CSF" in text for text in other.maps.attached.methods)
    with pytest.raises(InputError, match="reference region"):
        map_susceptibility(scan_of(phase, magnitude), mask=mask, reference=~mask, settings=FAST)


def test_the_three_masks_are_kept_apart(data):
    phase, magnitude, mask, _, _ = data
    broken = phase.copy()
    broken[20, 20, 20:23] = np.nan
    masks = map_susceptibility(scan_of(broken, magnitude), mask=mask, settings=FAST).masks
    assert np.array_equal(masks.registration, mask)
    assert not masks.fit[20, 20, 20:23].any()
    assert (masks.fit & ~masks.registration).sum() == 0
    assert (masks.valid & ~masks.fit).sum() == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scale_of_the_magnitude_changes_nothing_but_its_noise(data, found, scale):
    phase, magnitude, mask, _, _ = data
    other = map_susceptibility(
        scan_of(phase, (scale * magnitude).astype(np.float32)), mask=mask, settings=FAST
    )
    for name, values in found.maps.values.items():
        np.testing.assert_allclose(other.maps.values[name], values, rtol=2e-3, atol=2e-4)
    assert other.quality["noise_sd"] == pytest.approx(scale * found.quality["noise_sd"], rel=1e-3)


def test_an_opposite_sign_is_seen_by_the_air_and_turned(data, found):
    phase, magnitude, mask, _, _ = data
    other = map_susceptibility(scan_of(-phase, magnitude), mask=mask, settings=FAST)
    np.testing.assert_allclose(
        other.maps.values["susceptibility"], found.maps.values["susceptibility"], atol=1e-4
    )
    assert any("turned" in text for text in other.maps.attached.warnings)
    assert not any("sign" in text for text in found.maps.attached.warnings)
    assert other.quality["phase_sign"] == -1
    given = map_susceptibility(
        scan_of(phase, magnitude), mask=mask, settings=replace(FAST, phase_sign="negative")
    )
    assert any("contradicts" in text for text in given.maps.attached.warnings)


def test_a_sign_that_cannot_be_seen_is_asked_for(data):
    _, _, mask, _, _ = data
    at = np.indices(mask.shape)
    phase, magnitude = echoes(0.9 * np.sin(at[0] / 9.0) * np.cos(at[2] / 8.0), tissue=mask, snr=80)
    found = map_susceptibility(scan_of(phase, magnitude), mask=mask, settings=FAST)
    assert any("--phase-sign" in text for text in found.maps.attached.warnings)


def test_orientation_of_the_array_does_not_matter(data, found):
    """The same scan stored with other axes: the kernel turns, nothing is interpolated."""
    phase, magnitude, mask, _, _ = data
    turned = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [-2.0, 0, 0, 0], [0, 0, 0, 1]])

    def turn(image):
        return np.ascontiguousarray(np.swapaxes(image, 0, 2)[::-1])

    other = map_susceptibility(
        scan_of(turn(phase), turn(magnitude), affine=turned), mask=turn(mask), settings=FAST
    )
    chi = np.swapaxes(other.maps.values["susceptibility"][::-1], 0, 2)
    expected = found.maps.values["susceptibility"]
    assert np.nanmax(np.abs(chi - expected)) < 0.05 * np.nanstd(expected)


@pytest.mark.parametrize(("n", "says"), [(2, "cannot show the noise"), (1, "one echo")])
def test_two_echoes_are_enough_and_one_is_flagged(data, n, says):
    phase, magnitude, mask, _, _ = data
    found = map_susceptibility(scan_of(phase[..., :n], magnitude[..., :n]), mask=mask, settings=FAST)
    texts = (*found.maps.notices, *found.maps.attached.warnings)
    assert any(says in text for text in texts)
    assert ("R2star" in found.maps.values) == (n == 2)
    assert np.isfinite(found.maps.values["susceptibility"][mask]).mean() > 0.95
    json.dumps(as_plain(found.consensus), allow_nan=False)
    json.dumps(as_plain(found.quality), allow_nan=False)


def test_a_bipolar_readout_does_not_change_the_field(data, found):
    phase, magnitude, mask, _, _ = data
    plane = 0.03 * (np.indices(mask.shape)[0] - 20.0)
    bipolar = np.angle(np.exp(1j * (phase + plane[..., None] * (-1.0) ** np.arange(5)))).astype(np.float32)
    other = map_susceptibility(scan_of(bipolar, magnitude), mask=mask, settings=FAST)
    error = np.abs(other.maps.values["total_field"] - found.maps.values["total_field"])
    assert np.nanpercentile(error, 99) < 2e-3
    assert any("bipolar" in text for text in other.maps.notices)
    assert other.consensus["points"][0]["met"] is False
    left = measure_field(scan_of(bipolar, magnitude), mask=mask, settings=replace(FAST, readout="monopolar"))
    assert np.nanpercentile(np.abs(left.line.residual_rad), 90) > 0.1
    assert any("contradicts the monopolar readout" in text for text in left.warnings)
    told = map_susceptibility(
        scan_of(bipolar, magnitude, encoding="3D"), mask=mask, settings=replace(FAST, readout="monopolar")
    )
    assert told.consensus["points"][0]["met"] is None
    agreed = scan_of(phase, magnitude, encoding="3D")
    good = map_susceptibility(agreed, mask=mask, settings=replace(FAST, readout="monopolar"))
    assert good.consensus["points"][0]["met"] is True
    assert not any("contradicts" in text for text in good.maps.attached.warnings)


def test_a_bipolar_readout_of_two_echoes_leaves_a_plane_and_nothing_else(data):
    phase, magnitude, mask, _, _ = data
    at = np.argwhere(mask) - 20.0
    plane = 0.02 * (np.indices(mask.shape)[0] - 20.0) - 0.01 * (np.indices(mask.shape)[2] - 18.0)
    bipolar = np.angle(np.exp(1j * (phase + plane[..., None] * (-1.0) ** np.arange(5)))).astype(np.float32)
    field = [
        measure_field(scan_of(one[..., :2], magnitude[..., :2]), mask=mask).total_field_ppm[mask]
        for one in (phase, bipolar)
    ]
    known = np.isfinite(field[0] + field[1])
    assert known.mean() > 0.95
    at, apart = at[known], (field[1] - field[0])[known]
    design = np.column_stack([at, np.ones(len(at))])
    left = apart - design @ np.linalg.lstsq(design, apart, rcond=None)[0]
    assert np.ptp(apart) > 0.3
    # The offset is as smooth as before; no more is lost at the rim than elsewhere.
    assert np.abs(left).max() < 1e-3


def test_real_and_imaginary_parts_give_the_same(data, found):
    phase, magnitude, mask, _, _ = data
    parts = scan_of(magnitude * np.cos(phase), magnitude * np.sin(phase), parts=True)
    other = map_susceptibility(parts, mask=mask, settings=FAST)
    np.testing.assert_allclose(
        other.maps.values["susceptibility"], found.maps.values["susceptibility"], atol=1e-4
    )


def test_without_a_mask_the_tissue_is_found(data):
    phase, magnitude, mask, _, _ = data
    found = map_susceptibility(scan_of(phase, magnitude), settings=FAST)
    outline = found.masks.registration
    assert 2 * (outline & mask).sum() / (outline.sum() + mask.sum()) > 0.95
    assert found.consensus["points"][3]["met"] is False


def test_a_cord_mask_is_widened(data):
    phase, magnitude, mask, _, _ = data
    cord = np.zeros(mask.shape, dtype=bool)
    cord[19:22, 19:22, 8:28] = True
    found = map_susceptibility(scan_of(phase, magnitude), cord_mask=cord, settings=FAST)
    outline = found.masks.registration
    assert outline[cord].all()
    assert outline.sum() > 5 * cord.sum()
    assert not outline[..., :7].any()
    assert found.consensus["reporting"]["algorithms"]["mask"] == "widened"


def test_a_breathing_slice_is_named(data):
    _, _, mask, _, field = data
    shifted = field.copy()
    shifted[..., 17] += 0.1
    phase, magnitude = echoes(shifted, tissue=mask, snr=80)
    found = map_susceptibility(scan_of(phase, magnitude), mask=mask, settings=FAST)
    assert 17 in found.quality["slices_flagged"]
    assert any("breathing" in text for text in found.maps.attached.warnings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: {"mask": np.ones((3, 3, 3), dtype=bool)}, "another grid"),
        (lambda d: {"mask": np.zeros_like(d[2])}, "mask is empty"),
        (
            lambda d: {"mask": d[2], "r2_per_s": np.ones(d[2].shape), "r2prime_per_s": np.ones(d[2].shape)},
            "not both",
        ),
        (lambda d: {"mask": d[2], "reference": np.ones((2, 2, 2), dtype=bool)}, "another grid"),
    ],
)
def test_what_does_not_belong_together_is_refused(data, change, says):
    phase, magnitude, _, _, _ = data
    with pytest.raises(InputError, match=says):
        map_susceptibility(scan_of(phase, magnitude), settings=FAST, **change(data))


def test_a_phase_that_is_noise_is_refused(data):
    _, magnitude, mask, _, _ = data
    noise = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitude.shape).astype(np.float32)
    with pytest.raises(InputError, match=r"(no voxel|only 0\.\d+ % of the voxels) of the mask ha.*noise"):
        map_susceptibility(scan_of(noise, magnitude), mask=mask, settings=FAST)


def test_one_slice_is_refused(data):
    phase, magnitude, mask, _, _ = data
    at = slice(18, 19)
    with pytest.raises(InputError, match="so few slices"):
        map_susceptibility(scan_of(phase[:, :, at], magnitude[:, :, at]), mask=mask[:, :, at], settings=FAST)


def test_extras_are_there_where_they_were_asked_for(data):
    phase, magnitude, mask, _, _ = data
    asked = replace(FAST, second_opinion=True, display_phase=True)
    found = map_susceptibility(scan_of(phase, magnitude), mask=mask, settings=asked)
    assert found.quality["unwrapping_differs_first_echo"] < 0.01
    assert "laplacianPhase" in found.maps.attached.images
    assert found.maps.attached.documents["consensus"] is found.consensus


def test_separation_takes_r2prime_or_r2_or_on_request_r2star(data, found):
    phase, magnitude, mask, _, _ = data
    scan = scan_of(phase, magnitude)
    rate = np.where(mask, 8.0, np.nan)
    rate[20, 20, 20] = np.nan
    prime = map_susceptibility(scan, mask=mask, r2prime_per_s=rate, settings=FAST)
    values = prime.maps.values
    para, dia = values["susceptibility_paramagnetic"], values["susceptibility_diamagnetic"]
    free = ~prime.maps.flags["one of the two parts came out with the wrong sign and was set to zero"]
    inside = mask & np.isfinite(para) & free
    np.testing.assert_allclose((para + dia)[inside], values["susceptibility"][inside], atol=1e-6)
    assert np.isnan(para[20, 20, 20])
    assert "not known" in prime.maps.reason_of("susceptibility_paramagnetic").at((20, 20, 20))
    # R2* of the scan is 20 1/s, so R2 of 12 1/s leaves about the same R2'.
    given_r2 = map_susceptibility(scan, mask=mask, r2_per_s=np.full(mask.shape, 12.0), settings=FAST)
    other = given_r2.maps.values["susceptibility_paramagnetic"]
    assert np.nanmedian(other - para) == pytest.approx(0, abs=2e-3)
    assert "susceptibility_paramagnetic" not in found.maps.values
    # Times in ms are no rates: neither can be larger than the R2* of which it is a part.
    for name in ("r2prime_per_s", "r2_per_s"):
        with pytest.raises(InputError, match="larger than R2\\* of this scan"):
            map_susceptibility(scan, mask=mask, settings=FAST, **{name: np.full(mask.shape, 60.0)})
    without = map_susceptibility(scan, mask=mask, settings=replace(FAST, separate_without_r2=True))
    assert any("experimental" in text for text in without.maps.attached.warnings)
    with pytest.raises(InputError, match="one echo"):
        one = scan_of(phase[..., :1], magnitude[..., :1])
        map_susceptibility(one, mask=mask, settings=replace(FAST, separate_without_r2=True))
