"""Blur and edge of the cord found from images, and an atlas blurred as much."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cordqa.cord.atlas import AtlasImage, AtlasLabels
from cordqa.cord.atlas_shapes import analytical_sections
from cordqa.cord.estimators import estimate_signals
from cordqa.cord.point_spread import (
    NOT_TOLD,
    TOLD,
    PointSpread,
    _averaging,
    estimate_point_spread,
    lay_blurred,
)
from cordqa.cord.template import lay_atlas
from cordqa.records import Volume

SLICES = 4
COORDINATE = np.full(SLICES, 4.5)
#: White matter, grey matter, CSF, what lies beyond.
MT_ON, MT_OFF, T1W = (100.0, 110.0, 170.0, 40.0), (140.0, 148.0, 190.0, 60.0), (100.0, 95.0, 45.0, 80.0)


def scan(
    contrasts=(MT_ON, MT_OFF),
    *,
    step=0.9,
    blur=0.35,
    inset=0.2,
    moved=(0.0, 0.0),
    snr=40.0,
    behind=2.2,
    seed=0,
) -> tuple[list[Volume], Volume]:
    """A cord drawn on a fine grid, blurred, averaged to voxels; a mask inset from its edge and moved."""
    rng, fine = np.random.default_rng(seed), round(step / 0.1)
    count = round(24 / step)
    axis = (np.arange(count * fine) - (count * fine - 1) / 2) * step / fine
    images = [np.zeros((count, count, SLICES)) for _ in contrasts]
    mask = np.zeros((count, count, SLICES))

    def pool(plane):
        return plane.reshape(count, fine, count, fine).mean(axis=(1, 3))

    for z in range(SLICES):
        at = rng.uniform(-0.5, 0.5, 2)
        x, y = np.meshgrid(axis - at[0], axis - at[1], indexing="ij")
        cord = (x / 6.3) ** 2 + (y / 4.1) ** 2 < 1
        side, up = np.abs(x) / 6.3, y / 4.1
        grey = ((side - 0.34) / 0.17) ** 2 + ((up - 0.28) / 0.24) ** 2 < 1
        grey |= (np.abs(up - 0.12) < 0.08) & (side < 0.34)
        grey |= (np.abs(side - 0.37 + 0.18 * up) < 0.07) & (up < 0.14) & (up > -0.7)
        front = 2.6
        sac = (x / 9.0) ** 2 + ((y - (front - behind) / 2) / (4.1 + (front + behind) / 2)) ** 2 < 1
        drawn = ((x - moved[0]) / (6.3 - inset)) ** 2 + ((y - moved[1]) / (4.1 - inset)) ** 2 < 1
        mask[:, :, z] = pool(drawn.astype(float))
        for image, (white, horns, csf, beyond) in zip(images, contrasts, strict=True):
            plane = np.where(sac, csf, beyond)
            plane = np.where(cord, np.where(grey, horns, white), plane)
            image[:, :, z] = pool(gaussian_filter(plane, blur * fine / step) if blur else plane)
    affine = np.diag([step, step, 5.0, 1.0])
    noise = contrasts[0][0] / snr
    return (
        [Volume(data=image + rng.normal(0, noise, image.shape), affine=affine) for image in images],
        Volume(data=mask.astype(np.float32), affine=affine),
    )


def sharp(mask: Volume) -> AtlasImage:
    return lay_atlas(analytical_sections(), mask, coordinate=COORDINATE)[0]


def spread_of(images, mask, **options) -> PointSpread:
    return estimate_point_spread(
        analytical_sections(), mask, images, sharp(mask), coordinate=COORDINATE, **options
    )


def blurred(mask: Volume, spread: PointSpread) -> AtlasImage:
    return lay_blurred(analytical_sections(), mask, spread, sharp(mask), coordinate=COORDINATE)


def signals(images, atlas: AtlasImage, region: str, method="MAP") -> np.ndarray:
    i, j, k = atlas.corner
    n = atlas.weights.shape
    values = np.stack(
        [v.data[i : i + n[1], j : j + n[2], k : k + n[3]].ravel() for v in images],
    )
    weights = atlas.weights.reshape(n[0], -1).astype(float)
    found = estimate_signals(
        values,
        weights,
        atlas.labels.find(region).members,
        method=method,
        tissues=tuple(atlas.labels.tissues.values()),
        surround=True,
    )
    return found.signals


@lru_cache(maxsize=1)
def usual() -> tuple[list[Volume], Volume, PointSpread]:
    images, mask = scan()
    return images, mask, spread_of(images, mask)


@pytest.mark.parametrize(
    ("step", "blur", "inset"), [(0.5, 0.3, 0.2), (0.9, 0.2, 0.0), (0.9, 0.5, 0.25), (1.2, 0.4, -0.2)]
)
def test_planted_blur_and_edge_are_found(step, blur, inset):
    found = spread_of(*scan(step=step, blur=blur, inset=inset))
    assert found.blur_mm == pytest.approx(blur, abs=0.1)
    assert found.edge_mm == pytest.approx(inset, abs=0.1)
    assert found.words.startswith(TOLD)


def test_no_blur_is_found_as_none():
    found = spread_of(*scan(blur=0.0))
    assert not found.reason
    assert found.blur_mm < 0.15


def test_dark_csf_tells_as_well():
    found = spread_of(*scan((T1W,)))
    assert (found.blur_mm, found.edge_mm) == pytest.approx((0.35, 0.2), abs=0.08)


@pytest.mark.parametrize("moved", [(0.0, 0.3), (0.5, 0.0), (0.4, 0.4), (0.0, -0.5)])
def test_mask_beside_the_cord_is_moved_back(moved):
    images, mask = scan(moved=moved)
    found = spread_of(images, mask)
    assert found.shift_mm == pytest.approx((-moved[0], -moved[1]), abs=0.08)
    assert (found.blur_mm, found.edge_mm) == pytest.approx((0.35, 0.2), abs=0.1)
    assert signals(images, blurred(mask, found), "WM") == pytest.approx([100.0, 140.0], rel=0.01)


def test_mask_a_millimetre_beside_the_cord_is_another_fault():
    assert spread_of(*scan(moved=(1.0, 0.0))).reason == NOT_TOLD


def test_thin_csf_on_one_side_is_no_shift():
    found = spread_of(*scan(behind=0.9))
    assert math.hypot(*found.shift_mm) < 0.12
    assert found.blur_mm == pytest.approx(0.35, abs=0.12)


def test_value_of_white_matter_is_nearer_the_truth():
    for inset in (0.2, -0.2):
        images, mask = scan(inset=inset, blur=0.45)
        spread = spread_of(images, mask)
        truth = np.array([MT_ON[0], MT_OFF[0]])
        before = np.abs(signals(images, sharp(mask), "WM") / truth - 1)
        after = np.abs(signals(images, blurred(mask, spread), "WM") / truth - 1)
        assert after.max() < 0.012
        assert (after <= before + 0.005).all()
    assert before.max() > 0.05


def test_flat_and_noisy_images_do_not_tell():
    flat = (100.0, 100.0, 100.0, 100.0)
    for seed in range(3):
        images, mask = scan((flat, flat), seed=seed)
        found = spread_of(images, mask)
        assert found.reason == found.words == NOT_TOLD
        assert (found.blur_mm, found.edge_mm, found.shift_mm) == (0.0, 0.0, (0.0, 0.0))
        atlas = sharp(mask)
        assert lay_blurred(analytical_sections(), mask, found, atlas) is atlas
    images, mask = scan((flat,), snr=math.inf)
    assert spread_of(images, mask).reason == NOT_TOLD


def test_image_blurred_beyond_reach_does_not_tell():
    assert spread_of(*scan(blur=1.6)).reason == NOT_TOLD


def test_shares_of_a_blurred_atlas_fill_no_voxel_twice():
    _, mask, spread = usual()
    atlas = blurred(mask, spread)
    total = atlas.weights.sum(axis=0)
    assert atlas.weights.min() >= 0
    assert total.max() < 1 + 1e-5
    assert not total[sharp(mask).weights.sum(axis=0) <= 0.5].any()


@pytest.mark.parametrize("method", ["MAP", "maximum likelihood"])
def test_uniform_image_keeps_its_value(method):
    _, mask, spread = usual()
    images = [Volume(data=np.full(mask.data.shape, value), affine=mask.affine) for value in (25.0, 400.0)]
    for region in ("cord", "WM", "GM", "DC", "LF", "VF"):
        found = signals(images, blurred(mask, spread), region, method)
        assert found == pytest.approx([25.0, 400.0], rel=1e-4), region


def test_without_blur_and_edge_it_is_the_sharp_atlas():
    _, mask, _ = usual()
    atlas, again = sharp(mask), blurred(mask, PointSpread())
    filled = atlas.weights.sum(axis=0) > 0.5
    for region in ("WM", "GM"):
        first, second = (a.region_weights(a.labels.find(region))[filled] for a in (atlas, again))
        assert np.sqrt(np.mean((first - second) ** 2)) < 0.03
        assert second.sum() == pytest.approx(first.sum(), rel=0.01)


def test_weights_of_a_voxel_have_the_variance_of_voxel_and_blur():
    for blur in (0.0, 0.2, 0.5):
        weights = _averaging(1, 3, 3, 0.9, blur**2)[0].astype(float)
        points = ((np.arange(weights.size) + 0.5) / 3 - 0.5 - 3) * 0.9
        assert weights.sum() == pytest.approx(1)
        assert weights @ points**2 == pytest.approx(0.9**2 / 12 + blur**2, rel=0.03)


def test_missing_voxels_and_slices_left_out_do_not_matter():
    images, mask, spread = usual()
    spoiled = [Volume(data=np.array(v.data), affine=v.affine) for v in images]
    spoiled[0].data[:, :, 1] = np.nan
    spoiled[1].data[:, :, 2] = np.random.default_rng(1).normal(500, 300, spoiled[1].data.shape[:2])
    found = spread_of(spoiled, mask, left_out={2})
    assert (found.blur_mm, found.edge_mm) == pytest.approx((spread.blur_mm, spread.edge_mm), abs=0.06)
    nothing = [Volume(data=np.full(mask.data.shape, np.nan), affine=mask.affine)]
    assert spread_of(nothing, mask).reason == NOT_TOLD


def test_scale_and_orientation_of_images_do_not_matter():
    images, mask, spread = usual()
    affine = images[0].affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = images[0].affine[0, 0] * (mask.data.shape[0] - 1)
    turned = [Volume(data=1e-3 * np.asarray(v.data)[::-1], affine=affine) for v in images]
    found = spread_of(turned, mask)
    assert (found.blur_mm, found.edge_mm) == pytest.approx((spread.blur_mm, spread.edge_mm), abs=1e-3)


@pytest.mark.parametrize("scale", [-1.0, 1e6, 1e-170, 1e250])
def test_no_unit_of_the_signal_is_too_large_or_small(scale):
    images, mask, spread = usual()
    scaled = [Volume(data=scale * np.asarray(v.data), affine=v.affine) for v in images]
    found = spread_of(scaled, mask)
    assert (found.blur_mm, found.edge_mm) == pytest.approx((spread.blur_mm, spread.edge_mm), abs=1e-3)


def test_an_absurd_voxel_is_no_error():
    images, mask, _ = usual()
    spoiled = Volume(data=np.array(images[0].data), affine=mask.affine)
    spoiled.data[12, 12] = 1e200
    assert math.isfinite(spread_of([spoiled, images[1]], mask).blur_mm)


def test_constant_images_and_none_do_not_tell():
    _, mask, _ = usual()
    for value in (0.0, 100.0, -5.0, math.inf):
        constant = [Volume(data=np.full(mask.data.shape, value), affine=mask.affine)]
        assert spread_of(constant, mask).reason == NOT_TOLD
    assert spread_of([], mask).reason == NOT_TOLD


def test_atlas_without_tissues_or_csf_is_no_error():
    images, mask, _ = usual()
    sections = analytical_sections()
    labels: AtlasLabels = sections.labels
    for tissues in ({}, {"WM": labels.tissues["WM"], "GM": labels.tissues["GM"]}):
        changed = replace(sections, labels=replace(labels, tissues=tissues))
        atlas = lay_atlas(changed, mask, coordinate=COORDINATE)[0]
        found = estimate_point_spread(changed, mask, images, atlas, coordinate=COORDINATE)
        assert math.isfinite(found.blur_mm)
