"""The generator of labelled cord sections: seeded, labelled truthfully, of realistic size."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from cordqa.simulate.cord.anatomy import Kind, Tissue, draw_scene
from cordqa.simulate.cord.appearance import FAMILIES, acquire, draw_contrast, paint
from cordqa.simulate.cord.shapes import (
    capsule_distance,
    coverage,
    ellipse_distance,
    offset_ellipse_radii,
    polar,
    star_distance,
    superellipse_radii,
)
from cordqa.simulate.cord.slices import FAINT, FINE, GRID_MM, sections


@pytest.fixture(scope="module")
def many():
    return list(islice(sections(7, contrasts=1), 200))


def test_same_seed_same_sections():
    first, second = (list(islice(sections(11), 6)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.cord, b.cord)
    other = next(sections(12))
    assert not np.array_equal(first[0].image, other.image)


def test_labels_are_parts_of_pixels_and_cord_lies_in_its_sac(many):
    for section in many:
        for part in (section.cord, section.sac):
            assert part.min() >= 0.0
            assert part.max() <= 1.0
        assert (section.cord <= section.sac + 1e-6).all()
        assert np.isfinite(section.image).all()
        assert (section.image[section.weight == 0] == 0).all()


def test_only_cord_sections_have_cord(many):
    assert {section.kind for section in many} == set(Kind)
    for section in many:
        if section.kind is not Kind.CORD:
            assert section.cord.sum() == 0.0


def test_sizes_follow_the_prior():
    rng = np.random.default_rng(1)
    areas, widths, depths = [], [], []
    for _ in range(150):
        scene = draw_scene(rng, size=96, pixel_mm=GRID_MM)
        edge = scene.cord[[0, -1]].sum() + scene.cord[:, [0, -1]].sum()
        if edge > 0:
            continue
        areas.append(scene.cord.sum() * GRID_MM**2)
        widths.append(scene.cord.max(axis=1).sum() * GRID_MM)
        depths.append(scene.cord.max(axis=0).sum() * GRID_MM)
    assert 60 < np.median(areas) < 90
    assert 10.5 < np.median(widths) < 14
    assert 6.5 < np.median(depths) < 9
    assert 0.85 < np.mean((np.array(areas) > 40) & (np.array(areas) < 115)) <= 1.0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_grey_matter_contrast_is_capped(family):
    rng = np.random.default_rng(2)
    for _ in range(200):
        values = draw_contrast(rng, family)
        white, grey, csf = (values[t] for t in (Tissue.WHITE, Tissue.GREY, Tissue.CSF))
        limit = 0.4 * abs(white - csf)
        if family == "low contrast":
            limit = max(0.5 * abs(white - csf), 0.14 * white)
        assert abs(grey - white) <= limit + 1e-9
        assert white > 0


def test_image_shows_the_cord_where_the_label_says():
    rng = np.random.default_rng(3)
    differences = []
    for _ in range(20):
        scene = draw_scene(rng, size=72, pixel_mm=GRID_MM)
        image = paint(scene, draw_contrast(rng, "T2w"), rng)
        cord, csf = scene.cord > 0.99, (scene.sac > 0.99) & (scene.cord < 0.01)
        if cord.sum() > 20 and csf.sum() > 20:
            differences.append(np.median(image[csf]) - np.median(image[cord]))
    assert np.mean(np.array(differences) > 0.1) > 0.9


def test_scanner_keeps_the_grid_and_the_edge():
    rng = np.random.default_rng(4)
    step = np.zeros((72, 72), dtype=np.float32)
    step[36:] = 1.0
    crossings = []
    for _ in range(40):
        line = acquire(step, GRID_MM, rng).mean(axis=1)
        if np.ptp(line) > 0:
            middle = 0.5 * (line[5:15].mean() + line[-15:-5].mean())
            crossings.append(np.interp(middle, np.maximum.accumulate(line[25:47]), np.arange(25, 47)))
    assert abs(np.median(crossings) - 35.5) < 0.3


def test_distances_are_millimetres():
    line = np.linspace(-15, 15, 301, dtype=np.float32)
    x, y = np.meshgrid(line, line, indexing="ij")
    circle = np.hypot(x, y) - 5.0
    np.testing.assert_allclose(star_distance(polar(x, y), superellipse_radii(5.0, 5.0)), circle, atol=1e-3)
    found = ellipse_distance(x, y, centre=(0.0, 0.0), half=(5.0, 5.0))
    np.testing.assert_allclose(found[np.hypot(x, y) > 1], circle[np.hypot(x, y) > 1], atol=1e-3)
    point = capsule_distance(x, y, start=(0.0, 0.0), end=(0.0, 0.0), radius=5.0)
    np.testing.assert_allclose(point, circle, atol=1e-3)
    assert coverage(circle, 0.1).sum() * 0.01 == pytest.approx(np.pi * 25, rel=1e-3)


def test_offset_ellipse_is_seen_from_the_origin():
    radii = offset_ellipse_radii(6.0, 4.0, centre=(1.0, -0.5))
    n = radii.size
    assert radii[0] + radii[n // 2] == pytest.approx(2 * 6.0 * np.sqrt(1 - (0.5 / 4.0) ** 2), rel=1e-6)
    assert radii[0] - radii[n // 2] == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_can_be_drawn_at_other_sizes(kind):
    scene = draw_scene(np.random.default_rng(5), size=40, pixel_mm=1.0, kind=kind)
    assert scene.cord.shape == (40, 40)
    assert scene.kind is kind


def test_faint_sections_are_seeded_and_differ_from_others():
    first, second, other = (next(sections(8, mix=mix)) for mix in (FAINT, FAINT, FINE))
    np.testing.assert_array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert sum(FAINT.families.values()) == pytest.approx(1.0)
    assert set(FAINT.families) <= set(FAMILIES)


def test_wide_sacs_are_wider():
    def room(wide):
        scenes = [
            draw_scene(np.random.default_rng(seed), size=96, pixel_mm=GRID_MM, wide=wide)
            for seed in range(12)
        ]
        return np.median([(scene.sac.sum() - scene.cord.sum()) * GRID_MM**2 for scene in scenes])

    assert room(1.0) > room(0.0) + 50.0


def test_poor_images_are_poorer_and_finite():
    image = np.full((72, 72), 0.5, dtype=np.float32)
    image[30:42, 30:42] = 1.0
    spread = []
    for poor in (0.0, 1.0):
        shown = [acquire(image, GRID_MM, np.random.default_rng(seed), poor=poor) for seed in range(15)]
        assert all(np.isfinite(one).all() for one in shown)
        spread.append(np.median([one[:12].std() / one.mean() for one in shown]))
    assert spread[1] > 1.2 * spread[0]
