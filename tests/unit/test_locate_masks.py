"""Regions inside spheres, and the straight view of a plate."""

from __future__ import annotations

import numpy as np
import pytest
from locate_helpers import SYSTEM, Scene, simulate, simulate_volume, turn

from cordqa.errors import InputError, LocateError
from cordqa.phantom.locate import locate_plate
from cordqa.phantom.locate_volume import locate_in_volume
from cordqa.phantom.masks import disc_mask, reformat_plate, sphere_mask, sphere_masks


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (1.0, 1.0), (0.9, 1.7), (2.0, 2.0)])
def test_disc_has_its_area_and_place(spacing):
    shape = tuple(int(60 / s) for s in spacing)
    centre = np.array([27.3, 31.9]) / np.array(spacing)
    mask = disc_mask(shape, centre, spacing)
    area = mask.sum() * np.prod(spacing)
    assert area == pytest.approx(np.pi * 4.5**2, rel=0.12)
    middle = np.argwhere(mask).mean(axis=0) * np.array(spacing)
    assert np.linalg.norm(middle - centre * np.array(spacing)) < 0.5
    distance = np.linalg.norm((np.argwhere(mask) - centre) * np.array(spacing), axis=1)
    assert distance.max() <= 4.5


def test_disc_shrinks_with_coarse_pixels_and_is_refused_at_last():
    def area(s):
        return disc_mask((40, 40), (20, 20), (s, s)).sum() * s * s

    assert area(3.0) < area(2.0)
    # No pixel may reach within 0.8 mm of the wall.
    s = 2.8
    places = np.argwhere(disc_mask((40, 40), (20.0, 20.0), (s, s))) - 20
    corners = (np.abs(places) + 0.5) * s
    assert np.hypot(*corners.T).max() <= 7.5 - 0.8 + 1e-9
    with pytest.raises(LocateError, match="too few pixels"):
        disc_mask((40, 40), (20, 20), (5.0, 5.0))


def test_diameters_are_arguments():
    small = disc_mask((50, 50), (25, 25), (1, 1), diameter_mm=6.0)
    large = disc_mask((50, 50), (25, 25), (1, 1), diameter_mm=20.0, inner_diameter_mm=30.0)
    assert (small & ~large).sum() == 0
    assert large.sum() > 300
    inside_wall = disc_mask((50, 50), (25, 25), (1, 1), diameter_mm=20.0, inner_diameter_mm=15.0)
    assert inside_wall.sum() < large.sum()


@pytest.mark.parametrize("centre", [(-20, 10), (10, 80), (-3, -3)])
def test_region_outside_the_image_is_refused(centre):
    with pytest.raises(LocateError, match="too few pixels"):
        disc_mask((40, 40), centre, (1.0, 1.0))


def test_ball():
    mask = sphere_mask((30, 40, 50), (14.2, 20.1, 25.7), (1.5, 1.0, 1.0))
    assert mask.sum() * 1.5 == pytest.approx(4 / 3 * np.pi * 4.5**3, rel=0.1)


def test_axes_must_agree():
    with pytest.raises(InputError):
        disc_mask((40, 40), (20, 20), (1.0, 1.0, 1.0))
    images, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0)))
    pose = locate_plate(images, (2.0, 2.0), SYSTEM).candidates[0]
    with pytest.raises(InputError):
        sphere_masks((128, 128), pose, (2.0, 2.0))


@pytest.mark.parametrize(
    ("centre", "spacing"), [((np.nan, 20), (1.0, 1.0)), ((20, np.inf), (1.0, 1.0)), ((20, 20), (0.0, 1.0))]
)
def test_unusable_places(centre, spacing):
    with pytest.raises(InputError, match="not usable"):
        disc_mask((40, 40), centre, spacing)


def test_masks_of_a_slice_hold_liquid_alone():
    scene = Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), snr=1000.0, bias=0.0, magnitude=False)
    images, truth = simulate(scene)
    location = locate_plate(images, scene.spacing_mm, SYSTEM, slice_index=2)
    right = min(location.candidates, key=lambda c: np.abs(c.centres - truth).max())
    masks = sphere_masks((5, 128, 128), right, (8.0, 2.0, 2.0))
    assert len(masks) == 14
    for j, mask in enumerate(masks):
        assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [2]
        np.testing.assert_allclose(images[:, mask[2]].mean(axis=1), 1000 * scene.signals[:, j], atol=4)


def test_masks_and_view_of_a_tilted_plate():
    signals = np.linspace(0.3, 1, 14)[None]
    images, truth = simulate_volume(
        orientation=turn(1, 14) @ turn(0, 50), signals=signals, snr=1000.0, depths_mm=(10.0,)
    )
    location = locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM).plates[0]
    right = min(location.candidates, key=lambda c: np.abs(c.voxels - truth[0]).max())
    values = [images[0][m].mean() / 500 for m in sphere_masks(images.shape[1:], right, (2.0, 2.0, 2.0))]
    np.testing.assert_allclose(values, signals[0], atol=0.02)
    view, centres = reformat_plate(images[0], right, SYSTEM.positions_mm)
    assert view.shape == (151, 146)
    row, column = np.rint(centres).astype(int).T
    np.testing.assert_allclose(view[row, column] / 500, signals[0], atol=0.02)
    assert row[0] == row.min()  # sphere 1 is drawn on top
    assert column[[2, 3]].min() > column[[7, 8]].max()  # and sphere 3 on the right


def test_view_of_a_slice():
    scene = Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), rotation_deg=130.0, mirrored=True)
    images, truth = simulate(scene)
    location = locate_plate(images, scene.spacing_mm, SYSTEM)
    right = min(location.candidates, key=lambda c: np.abs(c.centres - truth).max())
    view, centres = reformat_plate(images[:1], right, SYSTEM.positions_mm, step_mm=0.5)
    assert np.isfinite(view[np.rint(centres[:, 0]).astype(int), np.rint(centres[:, 1]).astype(int)]).all()
    expected = (SYSTEM.positions_mm - SYSTEM.positions_mm[0]) / 0.5
    offset = centres - centres[0]
    np.testing.assert_allclose(np.column_stack([offset[:, 1], -offset[:, 0]]), expected, atol=3)
