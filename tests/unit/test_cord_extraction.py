"""Extraction recovers planted values through partial volume, and says where it cannot."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.extraction import METHODS, estimate_region, extract_regions
from cordqa.cord.template import lay_atlas
from cordqa.errors import InputError
from cordqa.records import Volume

GEOMETRY = {"shape": (34, 30, 8), "spacing": (0.8, 0.8, 5.0), "turn_deg": 6.0}


@lru_cache(maxsize=1)
def phantom():
    mask = cylinder(**GEOMETRY)
    return mask, lay_atlas(analytical_sections(), mask, coordinate=np.linspace(6.5, 2.5, 8))[0]


def planted(noise=0.0, seed=0):
    """A map with one value per label, mixed by partial volume, and its atlas."""
    mask, atlas = phantom()
    rng = np.random.default_rng(seed)
    values = np.array([0.7 + 0.01 * n for n in range(len(atlas.labels.names))])
    for tissue, value in (("GM", 0.5), ("CSF", 0.1)):
        values[list(atlas.labels.tissues[tissue])] = value
    data = np.zeros(mask.data.shape)
    i, j, k = atlas.corner
    box = np.tensordot(values, atlas.weights, axes=1)
    data[i : i + box.shape[0], j : j + box.shape[1], k : k + box.shape[2]] = box
    return Volume(data=data + noise * rng.standard_normal(data.shape), affine=mask.affine), atlas, values


def value_of(rows, region, level="all"):
    return next(row for row in rows if row.region == region and row.level == level)


def test_partial_volume_methods_recover_the_planted_value():
    image, atlas, values = planted()
    names = atlas.labels.names
    tract = "left lateral corticospinal tract"
    rows = extract_regions(
        image, atlas, quantity="FA", regions=[tract, "GM", "WM"], method="maximum likelihood"
    )
    assert value_of(rows, tract).value == pytest.approx(values[names.index(tract)], abs=1e-6)
    assert value_of(rows, "GM").value == pytest.approx(0.5, abs=1e-6)
    plain = extract_regions(image, atlas, quantity="FA", regions=["WM"], method="weighted mean")
    white = value_of(rows, "WM").value
    assert 0.7 < white < 0.8
    assert plain[0].value < white - 0.03, "a plain mean mixes in CSF and grey matter"
    by_map = extract_regions(image, atlas, quantity="FA", regions=[tract, "GM"], method="MAP")
    assert value_of(by_map, tract).value == pytest.approx(values[names.index(tract)], abs=0.01)
    assert value_of(by_map, "GM").value == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_of_one_value_has_that_value_in_every_region(method):
    """Voxels at the edge of the atlas hold what no label fills: taken as zero it would pull on all."""
    mask, atlas = phantom()
    image = Volume(data=np.full(mask.data.shape, 25.0), affine=mask.affine)
    regions = ["cord", "WM", "LF", "CSF"]
    rows = extract_regions(image, atlas, quantity="MTR", method=method, regions=regions, surround=True)
    assert [row.value for row in rows] == pytest.approx([25.0] * 4, abs=1e-6)


@pytest.mark.parametrize("around", [0.0, 0.4, 0.9])
def test_what_lies_around_the_atlas_does_not_matter(around):
    image, atlas, _ = planted()
    filled = atlas.paint(atlas.labels.find("cord")) + atlas.paint(atlas.labels.find("CSF"))
    mixed = Volume(data=image.data + around * (1.0 - filled), affine=image.affine)
    for method in ("maximum likelihood", "MAP"):
        rows, plain = (
            extract_regions(one, atlas, quantity="FA", regions=["WM", "GM"], method=method, surround=True)
            for one in (mixed, image)
        )
        assert [row.value for row in rows] == pytest.approx([row.value for row in plain], abs=2e-3)
    as_toolbox = extract_regions(mixed, atlas, quantity="FA", regions=["WM"], method="maximum likelihood")
    assert around == 0.0 or abs(as_toolbox[0].value - rows[0].value) > 0.005 * around


@pytest.mark.parametrize("method", ["weighted mean", "maximum likelihood"])
def test_standard_uncertainty_is_the_scatter_of_repeats(method):
    found, stated = [], []
    for seed in range(40):
        image, atlas, _ = planted(noise=0.05, seed=seed)
        row = extract_regions(image, atlas, quantity="FA", regions=["DC"], method=method)[0]
        found.append(row.value)
        stated.append(row.standard_uncertainty)
    # A plain mean also sees differences between voxels that no noise made: it may state more.
    ratio = np.mean(stated) / np.std(found, ddof=1)
    assert 0.75 < ratio < (1.35 if method == "maximum likelihood" else 4.0)


def test_map_is_steadier_than_maximum_likelihood_for_a_small_tract():
    tract = "left ventral corticospinal tract"
    spread = {}
    for method in ("maximum likelihood", "MAP"):
        spread[method] = np.std(
            [
                extract_regions(image, atlas, quantity="FA", regions=[tract], method=method)[0].value
                for image, atlas, _ in (planted(noise=0.1, seed=s) for s in range(12))
            ]
        )
    assert spread["MAP"] < spread["maximum likelihood"]


def test_hand_made_numbers():
    y = np.array([1.0, 2.0, 3.0, 10.0])
    w = np.array([[1.0, 0.5, 0.5, 0.0], [0.0, 0.5, 0.5, 1.0]])
    mean = estimate_region(y, w, [0], method="weighted mean")
    assert mean.value == pytest.approx(1.75)
    assert mean.size == 2.0
    assert mean.effective_voxels == pytest.approx(4 / 1.5)
    assert mean.sd == pytest.approx(math.sqrt((0.75**2 + 0.5 * 0.25**2 + 0.5 * 1.25**2) / 2))
    assert estimate_region(y, w, [0], method="binary").value == pytest.approx(2.0)
    assert estimate_region(y, w, [0], method="max").value == 10.0
    with pytest.raises(InputError, match="MAP needs"):
        estimate_region(y, w, [0], method="MAP")
    with pytest.raises(InputError, match="no tissue"):
        estimate_region(y, w, [0], method="MAP", tissues=[[0]])
    with pytest.raises(InputError, match="unknown way"):
        estimate_region(y, w, [0], method="mode")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_voxels_without_a_number_are_left_out_and_counted(method):
    image, atlas, _ = planted()
    full = extract_regions(image, atlas, quantity="FA", regions=["WM"], method=method)[0]
    image.data[:, :, 5][::2] = np.nan
    row = extract_regions(image, atlas, quantity="FA", regions=["WM"], method=method)[0]
    assert row.value == pytest.approx(full.value, rel=0.03)
    assert row.coverage == pytest.approx(1 - 1 / 16, abs=0.02)
    assert any("holds no number" in flag for flag in row.flags)


@pytest.mark.parametrize("method", METHODS)
def test_a_region_that_is_not_covered_is_said_and_never_guessed(method):
    image, atlas, _ = planted()
    weights = np.array(atlas.weights)
    weights[..., 4:] = 0
    partly = AtlasImage(
        labels=atlas.labels, weights=weights, corner=atlas.corner, shape=atlas.shape, affine=atlas.affine
    )
    groups = {"here": [0, 1], "there": [6, 7], "both": range(8), "none": []}
    rows = extract_regions(image, partly, quantity="FA", regions=["WM"], method=method, groups=groups)
    here, there, both, none = rows
    assert math.isfinite(here.value)
    assert math.isnan(there.value)
    assert "not covered" in there.flags[0]
    assert math.isnan(none.value)
    assert any("50 % of the slices" in flag for flag in both.flags)
    assert both.coverage == pytest.approx(0.5)
    image.data[:] = np.nan
    empty = extract_regions(image, partly, quantity="FA", regions=["WM"], method=method)[0]
    assert math.isnan(empty.value)
    assert empty.flags


def test_a_sliver_has_no_value_unless_asked_for():
    y, w = np.ones(3), np.array([[0.1, 0.2, 0.1], [0.9, 0.8, 0.9]])
    assert math.isnan(estimate_region(y, w, [0], method="weighted mean").value)
    assert estimate_region(y, w, [0], method="weighted mean", min_voxels=0).value == 1.0
    assert "half" in estimate_region(y, w, [0], method="binary", min_voxels=0).reason


def test_twins_cannot_be_told_apart():
    w = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    found = estimate_region(np.array([1.0, 2.0, 3.0]), w, [0], method="maximum likelihood")
    assert math.isnan(found.value)
    assert "cannot be told" in found.reason


def test_rows_carry_unit_flags_and_group():
    image, atlas, _ = planted()
    rows = extract_regions(
        image,
        atlas,
        quantity="MD",
        regions=["left spinothalamic tract"],
        groups={"C4": [3, 4]},
        notes={"C4": "60 % of C4 is covered"},
        scale=1e6,
    )
    assert rows[0].unit == "um2/s"
    assert rows[0].level == "C4"
    assert rows[0].value > 1e5
    assert "60 % of C4 is covered" in rows[0].flags
    assert rows[0].flags[0].startswith("approximate")


def test_orientation_of_the_map_does_not_matter():
    image, atlas, _ = planted(noise=0.02)
    turned = reoriented(image, (1, 2, 0), (0, 2))
    for method in METHODS:
        a = extract_regions(image, atlas, quantity="FA", regions=["WM"], method=method)
        b = extract_regions(turned, atlas, quantity="FA", regions=["WM"], method=method)
        assert a[0].value == pytest.approx(b[0].value)


def test_wrong_input_is_named():
    image, atlas, _ = planted()
    with pytest.raises(InputError, match="one grid"):
        extract_regions(Volume(data=image.data[1:], affine=image.affine), atlas, quantity="FA")
    with pytest.raises(InputError, match="one grid"):
        extract_regions(Volume(data=image.data, affine=image.affine + np.eye(4, k=3)), atlas, quantity="FA")
    with pytest.raises(InputError, match="three dimensions"):
        extract_regions(Volume(data=np.zeros((4, 4, 4, 2)), affine=np.eye(4)), atlas, quantity="FA")
    with pytest.raises(InputError, match="no such region"):
        extract_regions(image, atlas, quantity="FA", regions=["thalamus"])
    with pytest.raises(InputError, match="outside the image"):
        extract_regions(image, atlas, quantity="FA", groups={"x": [99]})
    with pytest.raises(InputError, match="quantity"):
        extract_regions(image, atlas, quantity="love")
