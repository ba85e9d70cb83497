"""Grey matter of known shape is found inside a given cord, and refused where nothing shows it."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
from cord_tube import dice
from helpers_cord import reoriented

from cordqa.cord.grey_matter import (
    LOW_GREY_CONFIDENCE,
    GreyMatterNotSeenError,
    GreyMatterSettings,
    segment_grey_matter,
)
from cordqa.cord.grey_network import GreyNetwork, shown_to_network
from cordqa.errors import CordqaError, EmptyInputError, InputError
from cordqa.records import Volume
from cordqa.simulate.cord.grey_sections import GREY_GRID_MM, GREY_SIZE, grey_sections
from cordqa.simulate.cord.grey_volume import simulate_grey_volume

SLICES = 6


@pytest.fixture(scope="module")
def scan():
    return simulate_grey_volume(31, n_slices=SLICES)


@pytest.fixture(scope="module")
def found(scan):
    return segment_grey_matter(scan.image, scan.cord)


def _areas(scan):
    pixel = scan.grey.affine[0, 0] * scan.grey.affine[1, 1]
    return scan.grey.data.sum(axis=(0, 1)) * pixel


@pytest.mark.parametrize(("contrast", "fluid"), [(0.18, 1.7), (-0.18, 0.5)], ids=["brighter", "darker"])
def test_finds_grey_matter_of_known_shape(contrast, fluid):
    scan = simulate_grey_volume(77, n_slices=12, contrast=contrast, fluid=fluid)
    found = segment_grey_matter(scan.image, scan.cord)
    assert dice(found.mask, scan.grey.data) > 0.82
    assert found.area_mm2.sum() == pytest.approx(_areas(scan).sum(), rel=0.10)
    assert np.corrcoef(found.area_mm2, _areas(scan))[0, 1] > 0.7
    assert (np.sign(found.contrast_to_noise) == np.sign(contrast)).all()
    assert (found.evidence * np.sign(contrast) > 2.0).all()


def test_result_is_complete(scan, found):
    assert found.mask.shape == scan.image.data.shape
    assert found.mask.dtype == np.float32
    assert found.mask.min() >= 0.0
    assert (found.mask <= scan.cord.data + 1e-6).all()
    assert ((found.mask > 0.05) & (found.mask < 0.95)).any()
    assert found.reasons == ("",) * SLICES
    assert len(found.flags) == SLICES
    assert ((found.confidence > 0.5) & (found.confidence <= 1.0)).all()
    np.testing.assert_allclose(found.area_mm2, found.mask.sum(axis=(0, 1)) * 0.525**2, rtol=1e-5)
    np.testing.assert_allclose(
        found.share, found.mask.sum(axis=(0, 1)) / scan.cord.data.sum(axis=(0, 1)), rtol=1e-5
    )
    assert found.slice_axis == 2


def test_confidence_falls_with_noise():
    clear = simulate_grey_volume(5, n_slices=SLICES, noise=0.03)
    faint = simulate_grey_volume(5, n_slices=SLICES, noise=0.12)
    first, second = (segment_grey_matter(s.image, s.cord) for s in (clear, faint))
    assert (first.confidence > second.confidence).all()
    assert np.median(first.confidence) > np.median(second.confidence) + 0.05
    # Confidence is the overlap to be expected.
    for found, scan in ((first, clear), (second, faint)):
        assert dice(found.mask, scan.grey.data) == pytest.approx(found.confidence.mean(), abs=0.06)
    assert any(LOW_GREY_CONFIDENCE in flags for flags in second.flags)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_of_the_image_do_not_matter(scan, found, factor):
    image = Volume(data=scan.image.data.astype(float) * factor, affine=scan.image.affine)
    np.testing.assert_allclose(segment_grey_matter(image, scan.cord).mask, found.mask, atol=1e-3)


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (0,)), ((1, 2, 0), (1, 2)), ((0, 1, 2), (2,))])
def test_storage_order_changes_nothing(scan, found, order, flips):
    image, cord = (reoriented(v, order, flips) for v in (scan.image, scan.cord))
    other = segment_grey_matter(image, cord)
    back = np.transpose(np.flip(other.mask, flips), np.argsort(order))
    np.testing.assert_allclose(back, found.mask, atol=2e-3)
    assert other.slice_axis == order.index(2)
    backwards = order.index(2) in flips
    np.testing.assert_allclose(other.area_mm2[:: -1 if backwards else 1], found.area_mm2, rtol=1e-3)


def test_a_mirrored_scan_gives_the_mirrored_answer(scan, found):
    mirrored = (Volume(data=v.data[::-1].copy(), affine=v.affine) for v in (scan.image, scan.cord))
    np.testing.assert_allclose(segment_grey_matter(*mirrored).mask[::-1], found.mask, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"fluid": 3.0, "blur_mm": 0.5}, {"fluid": 0.2}, {"parts": 6, "slice_mm": 1.0, "n_slices": 20}],
    ids=["T2*w", "bright CSF", "dark CSF", "isotropic"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_contrast_is_no_grey_matter(options, seed):
    scan = simulate_grey_volume(seed, contrast=0.0, **options)
    with pytest.raises(GreyMatterNotSeenError, match="cannot be told apart") as caught:
        segment_grey_matter(scan.image, scan.cord)
    assert caught.value.code == "locate.grey-matter"


def test_a_slice_without_contrast_says_so(scan):
    data = scan.image.data.copy()
    flat = simulate_grey_volume(31, n_slices=SLICES, contrast=0.0)
    data[:, :, 2] = flat.image.data[:, :, 2]
    found = segment_grey_matter(Volume(data=data, affine=scan.image.affine), scan.cord)
    assert "cannot be told apart here" in found.reasons[2]
    assert np.isnan(found.area_mm2[2])
    assert found.mask[:, :, 2].sum() == 0.0
    assert found.confidence[2] == 0.0
    assert [bool(reason) for reason in found.reasons] == [k == 2 for k in range(SLICES)]
    assert any("1 slices with cord" in note for note in found.notes)


def test_slices_without_usable_cord_are_named(scan):
    cord, data = scan.cord.data.copy(), scan.image.data.astype(float)
    cord[:, :, 0] = 0.0
    cord[:14, :, 1] = 0.0
    cord[20:, :, 1] = 0.0
    data[:, :, 3] = 7.0
    data[16, 16, 4] = np.nan
    found = segment_grey_matter(
        Volume(data=data, affine=scan.image.affine), Volume(data=cord, affine=scan.cord.affine)
    )
    assert found.reasons[0] == "no cord"
    assert found.reasons[3] == "the image is constant inside the cord"
    assert found.reasons[4] == "the image holds values that are not finite"
    assert found.reasons[2] == found.reasons[5] == ""
    assert np.isfinite(found.mask).all()
    assert (np.isnan(found.area_mm2) == [bool(reason) for reason in found.reasons]).all()


def test_wide_voxels_are_noted(found):
    scan = simulate_grey_volume(12, n_slices=SLICES, parts=6, noise=0.02, contrast=0.25)
    coarse = segment_grey_matter(scan.image, scan.cord)
    assert any("read too large" in note for note in coarse.notes)
    assert not any("read too large" in note for note in found.notes)


def test_one_slice_is_enough():
    scan = simulate_grey_volume(3, n_slices=1)
    found = segment_grey_matter(scan.image, scan.cord)
    assert found.area_mm2.shape == (1,)
    assert dice(found.mask, scan.grey.data) > 0.75


def test_a_share_that_cannot_be_is_refused(scan):
    settings = GreyMatterSettings(most_share=0.06)
    found = segment_grey_matter(scan.image, scan.cord, settings=settings)
    assert all("of the section" in reason for reason in found.reasons)
    assert np.isnan(found.area_mm2).all()


def _broken(kind, scan):
    image, cord = scan.image.data.astype(float), scan.cord.data.astype(float)
    affine = scan.image.affine.copy()
    other = affine.copy()
    if kind == "constant":
        image = np.full_like(image, 3.0)
    elif kind == "not finite":
        image[:] = np.nan
    elif kind == "complex":
        image = image * 1j
    elif kind == "series":
        image = np.stack([image, image], axis=3)
    elif kind == "empty mask":
        cord[:] = 0.0
    elif kind == "mask of labels":
        cord *= 3.0
    elif kind == "another grid":
        cord = cord[:-1]
    elif kind == "another place":
        other[:3, 3] += 5.0
    elif kind == "wide voxels":
        affine[:2] *= 3.0
        other = affine.copy()
    return Volume(data=image, affine=affine, source="x.nii.gz"), Volume(data=cord, affine=other)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("constant", GreyMatterNotSeenError),
        ("not finite", GreyMatterNotSeenError),
        ("complex", InputError),
        ("series", InputError),
        ("empty mask", EmptyInputError),
        ("mask of labels", InputError),
        ("another grid", InputError),
        ("another place", InputError),
        ("wide voxels", InputError),
    ],
)
def test_bad_input_is_named(scan, kind, error):
    with pytest.raises(error) as caught:
        segment_grey_matter(*_broken(kind, scan))
    assert isinstance(caught.value, CordqaError)


def test_network_sees_the_cord_only():
    image = np.random.default_rng(0).normal(100.0, 5.0, (GREY_SIZE, GREY_SIZE)).astype(np.float32)
    mask = np.zeros_like(image)
    mask[10:38, 14:34] = 1.0
    shown = shown_to_network(image, mask)
    assert abs(np.median(shown[mask > 0])) < 0.05
    assert np.ptp(shown[mask == 0]) == 0.0
    elsewhere = image + 1000.0 * (mask == 0)
    np.testing.assert_allclose(shown_to_network(elsewhere, mask), shown, atol=1e-5)
    assert np.ptp(shown_to_network(image, np.zeros_like(mask))) == 0.0
    assert np.isfinite(shown_to_network(np.ones_like(image), mask)).all()


def test_weights_that_cannot_be_loaded_are_named():
    with pytest.raises(InputError, match="cannot be loaded"):
        GreyNetwork(b"nothing", {"grid_mm": 0.35, "size": 48, "version": "1"})


def test_sections_are_the_same_for_the_same_seed():
    first, second = (next(grey_sections(9)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert (first.grey <= first.cord + 1e-6).all()


def test_grey_matter_of_the_sections_has_usual_shares():
    source = grey_sections(10, contrasts=1)
    shares = [s.grey.sum() / s.cord.sum() for s in (next(source) for _ in range(60))]
    assert 0.15 < np.median(shares) < 0.21
    assert min(shares) > 0.07
    assert max(shares) < 0.36


def test_packaged_weights_are_those_described():
    folder = files("cordqa.cord") / "weights"
    weights = (folder / "grey_matter_segmentation.onnx").read_bytes()
    about = json.loads((folder / "grey_matter_segmentation.json").read_text(encoding="utf-8"))
    assert hashlib.sha256(weights).hexdigest() == about["onnx_sha256"]
    assert about["trained_on"] == "simulated sections only"
    assert (about["grid_mm"], about["size"]) == (GREY_GRID_MM, GREY_SIZE)
    assert len(weights) < 1_000_000
