"""The built-in segmentation on cords of known geometry, and on bad input."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from itertools import permutations

import numpy as np
import pytest
from cord_tube import dice, tube

from cordqa.cord import segment
from cordqa.cord.network import CordNetwork, packaged_network
from cordqa.cord.segment import CordNotFoundError, SegmentationSettings, segment_cord
from cordqa.errors import CordqaError, InputError, LocateError
from cordqa.records import Volume
from cordqa.simulate.cord.slices import GRID_MM

EDGE = SegmentationSettings(inset_mm=0.0)


@pytest.fixture(scope="module")
def thick():
    return tube()


@pytest.fixture(scope="module")
def thick_found(thick):
    return segment_cord(thick[0], settings=EDGE)


@pytest.mark.parametrize(
    "levels", [(0.45, 1.0, 0.25), (0.8, 0.3, 0.55), (0.9, 0.2, 0.1)], ids=["T2w", "T1w", "DWI"]
)
def test_finds_cord_of_known_geometry(levels):
    image, truth = tube(levels=levels, shape=(48, 48, 8))
    found = segment_cord(image, settings=EDGE)
    assert dice(found.mask, truth) > 0.95
    assert found.mask.sum() / truth.sum() == pytest.approx(1.0, abs=0.04)
    assert (found.confidence > 0.8).all()


def test_isotropic_volume():
    image, truth = tube(shape=(40, 44, 30), spacing=(1.0, 1.0, 1.0), bend_mm=2.0)
    found = segment_cord(image, settings=EDGE)
    assert dice(found.mask, truth) > 0.95
    assert found.mask.sum() / truth.sum() == pytest.approx(1.0, abs=0.04)


def test_mask_is_soft_and_on_the_same_grid(thick, thick_found):
    mask = thick_found.mask
    assert mask.shape == thick[0].data.shape
    assert mask.dtype == np.float32
    assert mask.min() == 0.0
    assert mask.max() == 1.0
    assert ((mask > 0.05) & (mask < 0.95)).any()


def test_centreline_is_in_millimetres_from_below(thick, thick_found):
    image, truth = thick
    index = np.indices(truth.shape).reshape(3, *truth.shape)
    for point, k in zip(thick_found.centreline_mm, thick_found.centreline_slices, strict=True):
        centre = [(index[a, :, :, k] * truth[:, :, k]).sum() / truth[:, :, k].sum() for a in range(3)]
        expected = image.affine[:3, :3] @ centre + image.affine[:3, 3]
        assert np.linalg.norm(point - expected) < 0.4
    assert (np.diff(thick_found.centreline_mm[:, 2]) > 0).all()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_storage_order_changes_nothing(thick, thick_found, order):
    image, _ = thick
    flips = [(0,), (1, 2), (0, 1, 2)][sum(order[:1])]
    stored, affine = _stored(image, order, flips)
    found = segment_cord(Volume(data=stored, affine=affine), settings=EDGE)
    back = np.transpose(np.flip(found.mask, flips), np.argsort(order))
    np.testing.assert_array_equal(back, thick_found.mask)
    assert found.slice_axis == order.index(2)
    np.testing.assert_allclose(found.centreline_mm, thick_found.centreline_mm, atol=1e-6)
    confidence = found.confidence[::-1] if found.slice_axis in flips else found.confidence
    np.testing.assert_array_equal(confidence, thick_found.confidence)


def _stored(image, order, flips):
    data = np.transpose(image.data, order)
    affine = image.affine.copy()
    affine[:3, :3] = image.affine[:3, list(order)]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
    return np.flip(data, flips), affine


def test_mirrored_person_has_the_mirrored_cord(thick, thick_found):
    image, _ = thick
    found = segment_cord(Volume(data=image.data[::-1].copy(), affine=image.affine), settings=EDGE)
    assert dice(found.mask[::-1], thick_found.mask) > 0.985
    assert found.mask.sum() == pytest.approx(thick_found.mask.sum(), rel=0.01)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_units_of_the_image_change_nothing(thick, thick_found, factor):
    image, _ = thick
    found = segment_cord(Volume(data=image.data.astype(float) * factor, affine=image.affine), settings=EDGE)
    np.testing.assert_allclose(found.mask, thick_found.mask, atol=0.05)


def test_oblique_affine(thick, thick_found):
    image, _ = thick
    tilt = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    found = segment_cord(Volume(data=image.data, affine=turn @ image.affine), settings=EDGE)
    np.testing.assert_array_equal(found.mask, thick_found.mask)


def test_does_not_segment_brainstem_and_cauda_equina():
    image, truth = tube(
        shape=(60, 60, 24), cord_slices=range(7, 19), stem_slices=range(19, 24), noise=0.02, bend_mm=1.0
    )
    found = segment_cord(image)
    segmented = found.confidence > 0
    assert segmented[8:18].all()
    assert not segmented[:6].any()
    assert not segmented[20:].any()
    for k in np.flatnonzero(~segmented):
        assert set(found.flags[k]) & {segment.NO_CORD, segment.BRAINSTEM, segment.CAUDA_EQUINA}
        assert found.mask[:, :, k].sum() == 0.0
    assert any("not segmented" in note for note in found.notes)
    assert dice(found.mask[:, :, 8:18], truth[:, :, 8:18]) > 0.93


def test_spoiled_slice_is_bridged_and_flagged(thick):
    image, truth = thick
    data = image.data.copy()
    data[:, :, 10] = 0.0
    found = segment_cord(Volume(data=data, affine=image.affine), settings=EDGE)
    assert segment.INTERPOLATED in found.flags[10]
    assert dice(found.mask[:, :, 10], truth[:, :, 10]) > 0.9


def test_inset_moves_the_outline(thick, thick_found):
    found = segment_cord(thick[0], settings=SegmentationSettings(inset_mm=0.3))
    a, b = (np.sqrt(m.sum() * 0.64 / 24 / np.pi) for m in (thick_found.mask, found.mask))
    assert a - b == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("levels", "spacing"),
    [
        ((0.36, 1.0, 0.16), (0.8, 0.8, 1.0)),
        ((0.55, 1.0, 0.4), (0.5, 0.5, 5.0)),
        ((1.0, 1.25, 0.8), (0.9, 0.9, 5.0)),
        ((1.0, 0.85, 0.6), (0.9, 0.9, 5.0)),
        ((1.0, 0.2, 0.1), (1.0, 1.0, 5.0)),
    ],
    ids=["T2w", "T2*w", "MT-on", "MT-off", "DWI"],
)
def test_area_at_the_edge_is_that_of_the_cord(levels, spacing):
    shape = (round(40 / spacing[0]), round(40 / spacing[1]), 10)
    image, truth = tube(levels=levels, shape=shape, spacing=spacing, noise=0.02, seed=4)
    pixel = spacing[0] * spacing[1]
    found = segment_cord(image)
    ratio = found.edge_area_mm2 / (truth.sum(axis=(0, 1)) * pixel)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)
    # The mask itself follows the customary convention: smaller by the inset all around.
    assert found.inset_mm == segment.INSETS_MM["customary"]
    assert 0.85 < found.mask.sum() / truth.sum() < 0.96


def test_edge_area_does_not_depend_on_the_inset(thick, thick_found):
    other = segment_cord(thick[0])
    np.testing.assert_allclose(other.edge_area_mm2, thick_found.edge_area_mm2, rtol=1e-9)
    drawn = thick_found.mask.sum(axis=(0, 1)) * 0.64
    np.testing.assert_allclose(drawn, thick_found.edge_area_mm2, rtol=0.01)
    assert thick_found.inset_mm == 0.0


def test_edge_area_is_unknown_where_there_is_no_outline():
    image, _ = tube(
        shape=(60, 60, 24), cord_slices=range(7, 19), stem_slices=range(19, 24), noise=0.02, bend_mm=1.0
    )
    found = segment_cord(Volume(data=image.data[:, :, ::-1], affine=image.affine @ np.diag([1, 1, -1, 1])))
    segmented = found.mask.any(axis=(0, 1))
    assert (np.isfinite(found.edge_area_mm2) == segmented).all()
    assert segmented[6:15].all()


@pytest.mark.parametrize("noise", [0.05, 0.1])
def test_noise_does_not_make_a_cord_of_roots(noise):
    image, _ = tube(shape=(60, 60, 24), cord_slices=range(12, 24), noise=noise, bend_mm=1.0)
    found = segment_cord(image)
    assert (found.confidence[12:] > 0).all()
    assert not (found.confidence[:11] > 0).any()


def test_a_slice_found_after_smoothing_says_so(monkeypatch, thick):
    monkeypatch.setattr(segment, "look_again", lambda p, *a: np.arange(len(p)) == 5)
    flags = segment_cord(thick[0]).flags
    assert [k for k, own in enumerate(flags) if segment.SMOOTHED in own] == [5]


def test_a_doubted_image_is_named_once(thick, monkeypatch):
    monkeypatch.setattr(segment, "contradicts", lambda *a, **k: np.ones(len(a[1]), dtype=bool))
    found = segment_cord(thick[0])
    assert sum("classical detector" in note for note in found.notes) == 1
    assert not any(segment.DISAGREES in flags for flags in found.flags)


def test_single_doubted_slices_are_flagged(thick, monkeypatch):
    monkeypatch.setattr(segment, "contradicts", lambda *a, **k: np.arange(len(a[1])) == 3)
    found = segment_cord(thick[0])
    assert [k for k, flags in enumerate(found.flags) if segment.DISAGREES in flags] == [3]
    assert not any("classical detector" in note for note in found.notes)


def test_without_refinement_the_network_stands(thick):
    image, truth = thick
    found = segment_cord(image, settings=SegmentationSettings(refine=False, cross_check=False, inset_mm=0.0))
    assert dice(found.mask, truth) > 0.9


def test_some_missing_values_are_survived(thick, thick_found):
    image, _ = thick
    data = image.data.copy()
    data[:3] = np.nan
    found = segment_cord(Volume(data=data, affine=image.affine), settings=EDGE)
    assert dice(found.mask, thick_found.mask) > 0.97


@pytest.mark.parametrize("value", [1e300, 1e6, -1e6])
def test_a_few_absurd_values_are_survived(thick, thick_found, value):
    image, _ = thick
    data = image.data.astype(float)
    data[2, 2, :] = value
    found = segment_cord(Volume(data=data, affine=image.affine), settings=EDGE)
    assert dice(found.mask, thick_found.mask) > 0.97


def test_one_slice_is_enough():
    image, truth = tube(shape=(48, 48, 1), bend_mm=0.0)
    assert dice(segment_cord(image, settings=EDGE).mask, truth) > 0.94


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((40, 40, 5)),
        np.full((40, 40, 5), np.nan),
        np.random.default_rng(3).normal(size=(60, 60, 6)),
        np.abs(np.random.default_rng(4).normal(size=(40, 40, 20))),
        np.indices((50, 50, 5)).sum(axis=0).astype(float),
    ],
    ids=["empty", "nan", "noise", "magnitude noise", "ramp"],
)
def test_no_cord_is_said(data):
    with pytest.raises(CordNotFoundError) as caught:
        segment_cord(Volume(data=data, affine=np.diag([0.9, 0.9, 5.0, 1.0]), source="x.nii.gz"))
    assert isinstance(caught.value, LocateError)
    assert "x.nii.gz" in str(caught.value)
    assert caught.value.code == "locate.cord"


def test_sac_without_cord_is_refused():
    image, _ = tube(shape=(48, 48, 6), cord_slices=())
    with pytest.raises(CordNotFoundError):
        segment_cord(image)


@pytest.mark.parametrize(
    ("data", "affine"),
    [
        (np.zeros((40, 40, 5, 2)), np.eye(4)),
        (np.zeros((40, 40)), np.eye(4)),
        (np.zeros((40, 40, 0)), np.eye(4)),
        (np.ones((40, 40, 5)), np.zeros((4, 4))),
        (np.ones((40, 40, 5)), np.full((4, 4), np.nan)),
        (np.ones((4, 40, 5)), np.eye(4)),
        (np.ones((40, 40, 5)), np.diag([1e-3, 1e-3, 5e-3, 1.0])),
        (np.ones((40, 40, 5)), np.diag([1e3, 1e3, 5e3, 1.0])),
        (np.ones((40, 40, 5), dtype=complex), np.eye(4)),
    ],
    ids=["4D", "2D", "no slice", "flat affine", "nan affine", "narrow", "metres", "micrometres", "complex"],
)
def test_unusable_input_is_refused(data, affine):
    with pytest.raises(InputError):
        segment_cord(Volume(data=data, affine=affine))


def test_broken_network_is_refused():
    with pytest.raises(CordqaError, match="cannot be loaded"):
        CordNetwork(b"not a network", {"grid_mm": 0.7, "version": "x"})


def test_input_is_left_alone(thick):
    image, _ = thick
    before = image.data.copy()
    segment_cord(image)
    np.testing.assert_array_equal(image.data, before)


def test_packaged_weights_are_the_described_ones():
    folder = files("cordqa.cord") / "weights"
    about = json.loads((folder / "cord_segmentation.json").read_text(encoding="utf-8"))
    weights = (folder / "cord_segmentation.onnx").read_bytes()
    assert len(weights) < 2_000_000
    assert hashlib.sha256(weights).hexdigest() == about["onnx_sha256"]
    assert packaged_network().threshold == about["threshold"]
    assert packaged_network().grid_mm == about["grid_mm"] == GRID_MM
