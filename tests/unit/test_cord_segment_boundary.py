"""Outline, path and resampling: the parts of the segmentation by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cordqa.cord.boundary import (
    N_DIRECTIONS,
    Outlines,
    directions,
    edge_profile,
    network_radii,
    outline_mask,
    refine_radii,
)
from cordqa.cord.detect import best_path, classical_evidence, contradicts, texture
from cordqa.cord.network import normalise_locally
from cordqa.cord.resampling import on_grid, resampling_matrix, to_grid


def ellipse_radii(half_x, half_y):
    c, s = directions()
    return 1.0 / np.hypot(c / half_x, s / half_y)


def disc_image(size, step, half, levels, *, fine=8):
    line = ((np.arange(size * fine) + 0.5) / fine - size / 2) * step
    x, y = np.meshgrid(line, line, indexing="ij")
    inside = np.hypot(x / half[0], y / half[1]) < 1
    sac = np.hypot(x / (half[0] + 3), y / (half[1] + 3)) < 1
    image = np.where(inside, levels[0], np.where(sac, levels[1], levels[2]))
    return image.reshape(size, fine, size, fine).mean(axis=(1, 3)).astype(np.float32)


@pytest.mark.parametrize("half", [(6.0, 4.0), (4.0, 4.0), (7.0, 3.0)])
@pytest.mark.parametrize("step", [0.5, 1.0])
def test_mask_has_the_area_of_its_outline(half, step):
    outline = Outlines(centres_mm=np.array([[0.3, -0.2]]), radii_mm=ellipse_radii(*half)[None])
    mask = outline_mask(outline, (40, 40), (step, step))
    assert mask.sum() * step**2 == pytest.approx(np.pi * half[0] * half[1], rel=0.01)
    grid = (np.indices((40, 40)) - 19.5) * step
    centre = [(grid[a] * mask[0]).sum() / mask.sum() for a in range(2)]
    assert np.hypot(centre[0] - 0.3, centre[1] + 0.2) < 0.03


def test_outline_beyond_the_image_is_cut():
    outline = Outlines(
        centres_mm=np.array([[10.0, 0.0], [99.0, 0.0]]), radii_mm=np.full((2, N_DIRECTIONS), 5.0)
    )
    mask = outline_mask(outline, (20, 20), (1.0, 1.0))
    assert mask[0].sum() == pytest.approx(np.pi * 25 / 2, rel=0.02)
    assert mask[1].sum() == 0.0


@pytest.mark.parametrize("levels", [(0.4, 1.0, 0.2), (1.0, 0.3, 0.5)], ids=["dark", "bright"])
@pytest.mark.parametrize("error_mm", [-0.5, 0.0, 0.5])
def test_edge_is_found_at_half_height(levels, error_mm):
    half, step = (6.2, 4.1), 0.7
    image = gaussian_filter(disc_image(40, step, half, levels), 0.5)[None]
    truth = ellipse_radii(*half)[None]
    guess = truth + error_mm
    edges = edge_profile(image, (step, step), np.zeros((1, 2)), guess, blur_mm=0.3)
    radii, strength = refine_radii(edges, guess)
    # The network's outline keeps its say: about two fifths of its error remain.
    assert abs((radii - truth).mean()) <= 0.4 * abs(error_mm) + 0.02
    assert strength[0] > 0.7


def test_without_edges_the_network_is_kept():
    image = 1.0 + 0.0 * disc_image(40, 0.7, (6.0, 4.0), (1.0, 1.0, 1.0))[None]
    guess = ellipse_radii(6.0, 4.0)[None]
    edges = edge_profile(image, (0.7, 0.7), np.zeros((1, 2)), guess, blur_mm=0.3)
    radii, strength = refine_radii(edges, guess)
    np.testing.assert_allclose(radii, guess, atol=0.05)
    assert strength[0] < 0.4


def test_network_outline_is_found_between_pixels():
    line = (np.arange(64) - 31.5) * 0.7
    x, y = np.meshgrid(line, line, indexing="ij")
    probability = np.clip(0.5 - (np.hypot(x - 1.0, y) - 5.0) / 0.7, 0, 1).astype(np.float32)[None]
    radii = network_radii(probability, np.array([[1.0, 0.0]]), grid_mm=0.7, threshold=0.5)
    np.testing.assert_allclose(radii, 5.0, atol=0.12)
    nothing = network_radii(np.zeros_like(probability), np.zeros((1, 2)), grid_mm=0.7, threshold=0.5)
    assert (nothing == 0).all()


def test_path_follows_the_evidence_past_a_distractor():
    evidence = np.zeros((20, 40, 40), dtype=np.float32)
    for k in range(20):
        evidence[k, 10 + k // 4, 20] = 1.0
    evidence[9:11, 35, 5] = 1.5
    evidence[10, 12, 20] = 0.0
    path = best_path(evidence, pixel_mm=1.0, slice_mm=5.0)
    np.testing.assert_allclose(path[:, 0], 10 + np.arange(20) // 4, atol=1)
    np.testing.assert_allclose(path[:, 1], 20, atol=1)


def test_path_through_one_slice():
    evidence = np.zeros((1, 9, 9), dtype=np.float32)
    evidence[0, 3, 7] = 1
    assert best_path(evidence, pixel_mm=1.0, slice_mm=5.0).tolist() == [[3, 7]]


@pytest.mark.parametrize("levels", [(0.4, 1.0, 0.2), (1.0, 0.3, 0.5)], ids=["dark", "bright"])
def test_classical_detector_finds_a_ring_in_a_ring(levels):
    image = np.roll(disc_image(60, 1.0, (6.0, 4.0), levels), (7, -4), axis=(0, 1))
    image = image + 0.02 * np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    evidence = classical_evidence(normalise_locally(image, 1.0)[None], pixel_mm=1.0)[0]
    place = np.unravel_index(int(evidence.argmax()), evidence.shape)
    assert np.hypot(place[0] - 36.5, place[1] - 25.5) < 1.5


@pytest.mark.parametrize("levels", [(0.4, 1.0, 0.2), (1.0, 1.16, 0.8)], ids=["clear", "faint"])
def test_classical_detector_contradicts_a_wrong_place_only(levels):
    rng = np.random.default_rng(2)
    image = disc_image(80, 1.0, (6.0, 4.0), levels)
    images = np.stack([image + 0.03 * rng.standard_normal(image.shape) for _ in range(5)]).astype(np.float32)
    evidence = classical_evidence(np.stack([normalise_locally(i, 1.0) for i in images]), pixel_mm=1.0)
    path = best_path(evidence, pixel_mm=1.0, slice_mm=5.0)
    here = np.full((5, 2), 39.5)
    assert not contradicts(evidence, path, here, pixel_mm=1.0).any()
    assert contradicts(evidence, path, here + np.array((20.0, 5.0)), pixel_mm=1.0).mean() >= 0.8
    # Two places that score alike contradict neither.
    both = np.maximum(evidence, np.roll(evidence, 20, axis=1))
    assert not contradicts(both, path, here + np.array((20.0, 0.0)), pixel_mm=1.0).any()
    # A centre outside the field of view is judged at its edge.
    assert contradicts(evidence, path, here + 200.0, pixel_mm=1.0).all()


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_texture_tells_one_tissue_from_several(noise):
    rng = np.random.default_rng(6)
    plane = disc_image(60, 1.0, (8.0, 6.0), (1.0, 2.0, 0.5)) + noise * rng.standard_normal((60, 60))
    x, y = np.meshgrid(np.arange(60) - 29.5, np.arange(60) - 29.5, indexing="ij")
    inside = (x / 7.0) ** 2 + (y / 5.0) ** 2 < 1.0
    assert texture(plane, inside) < 1.4
    assert texture(plane + 0.02 * x, inside) < 1.5
    spots = plane + 4.0 * noise * ((np.round(x / 2) + np.round(y / 2)) % 2 == 0) * inside
    assert texture(spots, inside) > 1.5
    assert texture(plane, inside & (x > 5.0)) == np.inf
    assert texture(np.ones((60, 60)), inside) == np.inf


def test_regions_are_looked_up_at_the_same_place():
    inside = np.zeros((47, 50), dtype=bool)
    inside[20:27, 10:18] = True
    back = on_grid(inside, (80, 90, 3), (0.4, 0.4, 5.0), 0.7)
    assert back.shape == (80, 90)
    centre = np.argwhere(back).mean(axis=0) - (np.array(back.shape) - 1) / 2
    expected = np.argwhere(inside).mean(axis=0) - (np.array(inside.shape) - 1) / 2
    np.testing.assert_allclose(centre * 0.4, expected * 0.7, atol=0.25)
    assert back.sum() * 0.16 == pytest.approx(inside.sum() * 0.49, rel=0.1)


def test_normalisation_ignores_units_and_offset():
    image = disc_image(50, 0.7, (6.0, 4.0), (0.4, 1.0, 0.2))
    a, b = normalise_locally(image, 0.7), normalise_locally(1000.0 * image, 0.7)
    np.testing.assert_allclose(a, b, atol=1e-3)
    assert np.isfinite(normalise_locally(np.zeros((20, 20), dtype=np.float32), 0.7)).all()


@pytest.mark.parametrize("spacing", [0.4, 0.7, 1.0, 2.0])
def test_resampling_keeps_centre_and_straight_lines(spacing):
    count = 41
    matrix = resampling_matrix(count, spacing, 0.7)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
    old = (np.arange(count) - 20) * spacing
    new = (np.arange(matrix.shape[0]) - (matrix.shape[0] - 1) / 2) * 0.7
    inner = slice(3, -3)
    # Averaging over the width of a coarser pixel may displace a sample by a twentieth of it.
    np.testing.assert_allclose((matrix @ old)[inner], new[inner], atol=0.035)


def test_to_grid_has_one_image_per_slice():
    data = np.arange(20 * 30 * 4, dtype=np.float32).reshape(20, 30, 4)
    assert to_grid(data, (1.4, 0.7, 3.0), 0.7).shape == (4, 39, 30)
