"""A plate in one slice: simulate it in any pose, find it; refuse what is not a plate."""

from __future__ import annotations

import numpy as np
import pytest
from locate_helpers import INNER, RING, SYSTEM, T2_MS, Scene, decay, pose_error_mm, simulate, simulate_volume

from cordqa.errors import DefinitionError, InputError, LocateError
from cordqa.phantom.locate import LocateSettings, NotLocatedError, PlateLayout, locate_plate
from cordqa.phantom.pose import find_symmetries

SMALL = {"shape": (170, 170), "spacing_mm": (1.5, 1.5)}


def locate(scene, **options):
    images, truth = simulate(scene)
    location = locate_plate(images, scene.spacing_mm, SYSTEM, **options)
    return location, pose_error_mm(location, truth, scene.spacing_mm)


def refusal(images, spacing_mm=(1.0, 1.0), layout=SYSTEM):
    with pytest.raises(NotLocatedError) as caught:
        locate_plate(images, spacing_mm, layout)
    return caught.value


# Largest error of any centre in mm.  The spheres have 0.3 mm of positional play (standard deviation),
# which a pose alone cannot follow.
POSES = {
    "plain": ({}, 0.2),
    "turned": ({"rotation_deg": 73.0}, 0.2),
    "mirrored": ({"mirrored": True, "rotation_deg": -158.0}, 0.2),
    "shifted by 10 %": ({"shift_mm": (25.0, -25.0), "rotation_deg": 33.0}, 0.2),
    "near the edge": ({"shape": (104, 104), "shift_mm": (-14.0, 14.0)}, 0.2),
    "small": ({"scale": 0.95}, 0.2),
    "large": ({"scale": 1.05}, 0.2),
    "tilted 15 deg": ({"squeeze": 0.966, "squeeze_deg": 25.0}, 0.2),
    "small and tilted": ({"scale": 0.96, "squeeze": 0.966, "squeeze_deg": 110.0}, 0.2),
    "SNR 20": ({"snr": 20.0}, 0.2),
    "SNR 10": ({"snr": 10.0}, 0.2),
    "strong bias": ({"bias": 0.8, "snr": 20.0}, 0.2),
    "0.5 mm pixels": ({"shape": (320, 320), "spacing_mm": (0.5, 0.5), "snr": 20.0}, 0.2),
    "2 mm pixels": ({"shape": (128, 128), "spacing_mm": (2.0, 2.0), "snr": 20.0}, 0.3),
    "pixels 0.8 x 1.8 mm": ({"shape": (300, 135), "spacing_mm": (0.8, 1.8), "rotation_deg": 20.0}, 0.2),
    "pixels 1.8 x 0.8 mm": ({"shape": (135, 300), "spacing_mm": (1.8, 0.8), "mirrored": True}, 0.2),
    "signed": ({"magnitude": False}, 0.2),
    "echoes": ({"signals": decay(T2_MS), "fill": decay([1000.0])[:, 0], "snr": 20.0}, 0.2),
    "slice off centre": ({"section": 0.85}, 0.3),
}


@pytest.mark.parametrize("name", POSES)
def test_plate_is_found(name):
    change, limit_mm = POSES[name]
    scene = Scene(**{**SMALL, **change})
    location, errors = locate(scene)
    assert errors.min() < limit_mm
    best = location.candidates[int(errors.argmin())]
    # The simulator mirrors the layout's first axis and then turns it.
    expected = scene.rotation_deg + (180 if scene.mirrored else 0)
    turn = (best.rotation_deg - expected + 180) % 360 - 180
    if scene.squeeze == 1:
        assert abs(turn) < 1.0
        assert best.mirrored is scene.mirrored
        assert best.scale == pytest.approx(scene.scale, abs=0.01)
    assert location.diagnostics.seen.all()
    assert 0 < location.residual_mm < 0.8


def test_exactly_one_candidate_is_right_and_all_share_their_centres():
    location, errors = locate(Scene(**SMALL, rotation_deg=51.0))
    assert len(location.candidates) == 4
    assert np.sum(errors < 3) == 1
    assert np.sort(errors)[1] > 10
    first = location.candidates[0].voxels
    for candidate, order in zip(location.candidates, location.orders, strict=True):
        np.testing.assert_array_equal(candidate.voxels, first[order])
    assert sorted(c.mirrored for c in location.candidates) == [False, False, True, True]


def test_slice_index_and_repeatability():
    images, _ = simulate(Scene(**SMALL))
    one = locate_plate(images, (1.5, 1.5), SYSTEM, slice_index=7)
    two = locate_plate(images, (1.5, 1.5), SYSTEM, slice_index=7)
    assert one.candidates[0].slice_index == 7
    np.testing.assert_array_equal(one.candidates[0].voxels, two.candidates[0].voxels)
    assert not one.candidates[0].is_spatial


def test_symmetries_of_the_system_layout():
    symmetries = find_symmetries(SYSTEM.positions_mm, SYSTEM.kinds)
    orders = [order.tolist() for _, order in symmetries]
    assert orders[0] == list(range(14))
    assert orders[1] == [0, 9, 8, 7, 6, 5, 4, 3, 2, 1, 11, 10, 13, 12]
    assert len(orders) == 4
    for matrix, order in symmetries:
        moved = SYSTEM.positions_mm @ matrix.T
        np.testing.assert_allclose(moved, SYSTEM.positions_mm[order], atol=1e-9)


def test_symmetries_of_other_layouts():
    square = np.array([(0, 0), (50, 0), (50, 50), (0, 50)], float)
    assert len(find_symmetries(square, np.zeros(4, int))) == 8
    assert len(find_symmetries(square, np.array([0, 1, 0, 1]))) == 4
    assert len(find_symmetries(square, np.array([0, 1, 1, 1]))) == 2
    hook = np.array([(0, 0), (60, 0), (60, 25), (10, 70), (-30, 20)], float)
    assert len(find_symmetries(hook, np.zeros(5, int))) == 1
    # 1 mm is within positional play: not a difference to build on.
    assert len(find_symmetries(square + np.eye(4)[:, :2], np.zeros(4, int))) == 8


@pytest.mark.parametrize("mirrored", [False, True])
def test_layout_without_symmetry_has_one_pose(mirrored):
    hook = PlateLayout(
        "hook",
        (1, 2, 3, 4, 5, 6),
        np.array([(0, 0), (60, 0), (60, 30), (10, 60), (-40, 20), (-20, -40)], float),
        15.0,
        20.0,
    )
    scene = Scene(**SMALL, mirrored=mirrored, rotation_deg=40.0, signals=np.full((1, 6), 0.9), posts=False)
    images, truth = simulate(scene, hook)
    location = locate_plate(images, scene.spacing_mm, hook)
    assert len(location.candidates) == 1
    assert pose_error_mm(location, truth, scene.spacing_mm)[0] < 0.2
    assert location.candidates[0].mirrored is mirrored


def test_spheres_of_two_sizes():
    layout = PlateLayout(
        "two sizes",
        (1, 2, 3, 4, 5),
        np.array([(0, 50), (50, 0), (0, -50), (-50, 0), (0, 0)], float),
        np.array([24.0, 14, 14, 14, 14]),
        np.array([28.0, 18, 18, 18, 18]),
    )
    scene = Scene(**SMALL, rotation_deg=100.0, signals=np.full((2, 5), 0.9), posts=False)
    images, truth = simulate(scene, layout)
    location = locate_plate(images, scene.spacing_mm, layout)
    assert len(location.candidates) == 2  # a mirror remains, half a turn does not
    assert pose_error_mm(location, truth, scene.spacing_mm).min() < 0.2


def test_background_of_nan_and_scattered_nan():
    images, truth = simulate(Scene(**SMALL, rotation_deg=12.0))
    rows, columns = np.indices(images.shape[1:])
    images[:, np.hypot(rows - 84.5, columns - 84.5) * 1.5 > 99] = np.nan
    rng = np.random.default_rng(0)
    images[rng.random(images.shape) < 0.002] = np.inf
    location = locate_plate(images, (1.5, 1.5), SYSTEM)
    assert pose_error_mm(location, truth, (1.5, 1.5)).min() < 0.2


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30, -1.0])
def test_scale_and_sign_of_the_images_do_not_matter(scale):
    images, _ = simulate(Scene(**SMALL))
    expected = locate_plate(images, (1.5, 1.5), SYSTEM).candidates[0].voxels
    found = locate_plate(images * scale, (1.5, 1.5), SYSTEM).candidates[0].voxels
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_integers_and_complex_images():
    images, truth = simulate(Scene(**SMALL))
    for variant in (images.astype(np.uint16), images * np.exp(1j)):
        location = locate_plate(variant, (1.5, 1.5), SYSTEM)
        assert pose_error_mm(location, truth, (1.5, 1.5)).min() < 0.2


def test_many_images_are_thinned_out():
    images, truth = simulate(Scene(**SMALL))
    location = locate_plate(np.tile(images, (20, 1, 1)), (1.5, 1.5), SYSTEM)
    assert pose_error_mm(location, truth, (1.5, 1.5)).min() < 0.2


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ((3,), "1 of 14 spheres of system phantom plate not seen: 3 or 4 or 8 or 9"),
        ((1,), "not seen: 1 or 6"),
        ((12,), "not seen: 11 or 12 or 13 or 14"),
        ((2, 5), "2 of 14 spheres of system phantom plate not seen: 2, 5 or 7, 10"),
        ((11, 12, 13, 14), "4 of 14 spheres of system phantom plate not seen: 11, 12, 13, 14"),
    ],
)
def test_missing_spheres_are_named(missing, names):
    images, _ = simulate(Scene(**SMALL, rotation_deg=100.0, missing=missing))
    error = refusal(images, (1.5, 1.5))
    assert names in str(error)
    assert error.code == "locate"
    diagnostics = error.diagnostics
    assert diagnostics is not None
    assert diagnostics.seen.sum() == 14 - len(missing)
    assert diagnostics.evidence[~diagnostics.seen].max() < 0.4
    assert diagnostics.voxels.shape == (14, 3)


def test_plate_cut_by_the_edge():
    images, _ = simulate(Scene(shape=(100, 100), spacing_mm=(1.5, 1.5), shift_mm=(0.0, 35.0)))
    assert "not seen" in str(refusal(images, (1.5, 1.5)))


def test_slice_off_the_centres_of_the_spheres():
    images, _ = simulate(Scene(**SMALL, section=0.6))
    error = refusal(images, (1.5, 1.5))
    assert "near their centres" in str(error) or "not seen" in str(error)


@pytest.mark.parametrize(("offset_mm", "is_good"), [(0.0, True), (2.0, True), (5.0, False), (6.5, False)])
def test_thick_slice_through_real_spheres(offset_mm, is_good):
    images, _ = simulate_volume(
        shape=(3, 130, 130), spacing_mm=(5.0, 1.5, 1.5), depths_mm=(offset_mm,), fiducials=False, snr=100.0
    )
    if is_good:
        assert np.median(locate_plate(images[:, 1], (1.5, 1.5), SYSTEM).diagnostics.flatness) > 0.6
    else:
        assert "near their centres" in str(refusal(images[:, 1], (1.5, 1.5)))


def test_wrong_pixel_spacing():
    images, _ = simulate(Scene(**SMALL))
    refusal(images, (1.8, 1.8))
    refusal(images, (1.2, 1.2))


def _drawn(places, inner=7.5, outer=10.0, seed=0, n=4):
    layout = PlateLayout("other", tuple(range(len(places))), np.array(places), 2 * inner, 2 * outer)
    signals = np.random.default_rng(seed).uniform(0.1, 1, (n, len(places)))
    scene = Scene(signals=signals, fill=np.full(n, 0.6), posts=False, play_mm=0.0, **SMALL, snr=30.0)
    return simulate(scene, layout)[0]


def _lattice(step, reach=85.0, skew=0.0, height=1.0):
    grid = [(step * (i + skew * j), step * height * j) for i in range(-9, 10) for j in range(-9, 10)]
    return [p for p in grid if np.hypot(*p) < reach]


def _ring(n, radius, start=0.0):
    angle = start + np.arange(n) * 2 * np.pi / n
    return list(zip(radius * np.cos(angle), radius * np.sin(angle), strict=True))


def _turned(points, degrees):
    a = np.radians(degrees)
    return list(np.array(points) @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]))


OTHERS = {
    "fiducial grid": (_lattice(40), 5.0, 5.5),
    "fiducial grid with large spheres": (_lattice(40), 7.5, 10.0),
    "dense square lattice": (_lattice(20, 78), 7.5, 10.0),
    "hexagonal lattice": (_lattice(25, 80, 0.5, 0.866), 7.5, 10.0),
    "tubes in two rings": ([(0.0, 0.0), *_ring(6, 35), *_ring(6, 60, 0.5)], 7.5, 10.0),
    "ring without the inner four": (RING, 7.5, 10.0),
    "inner four turned": ([*RING, *_turned(INNER, 45)], 7.5, 10.0),
    "ring of twelve": ([*_ring(12, 50), *INNER], 7.5, 10.0),
    "ring of nine": ([*_ring(9, 50), *INNER], 7.5, 10.0),
    "plate 15 % larger": (list(1.15 * np.array([*RING, *INNER])), 8.6, 11.5),
    "tiny spheres": ([*RING, *INNER], 3.0, 3.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_phantoms_are_refused(name):
    places, inner, outer = OTHERS[name]
    error = refusal(_drawn(places, inner, outer), (1.5, 1.5))
    assert "not found" in str(error) or "not seen" in str(error)


def test_blobs_noise_and_discs_are_refused():
    from scipy import ndimage

    rng = np.random.default_rng(3)
    rows, columns = np.indices((160, 160))
    disc = (np.hypot(rows - 80, columns - 80) < 60).astype(float)
    head = ndimage.gaussian_filter(disc, 2) + 0.3 * ndimage.gaussian_filter(rng.normal(0, 20, disc.shape), 4)
    scenes = {
        "noise": rng.normal(0, 1, (4, 160, 160)),
        "air": np.abs(rng.normal(0, 1, (4, 160, 160)) + 1j * rng.normal(0, 1, (4, 160, 160))),
        "disc": disc[None] + rng.normal(0, 0.02, (3, 160, 160)),
        "head": np.stack([head, head**2, np.sqrt(np.abs(head))]),
        "texture": np.stack([ndimage.gaussian_filter(rng.normal(0, 1, disc.shape), 5) for _ in range(3)]),
        "ramp": np.stack([rows, columns]).astype(float),
        "one bright pixel": np.where((rows == 80) & (columns == 80), 1.0, 0.0)[None],
    }
    for name, images in scenes.items():
        assert "not found" in str(refusal(images, (1.5, 1.5))), name


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_uniform_images_are_refused(value):
    assert "show nothing" in str(refusal(np.full((3, 64, 64), value), (3.0, 3.0)))


def test_saturated_images_are_refused():
    images, _ = simulate(Scene(**SMALL))
    assert "show nothing" in str(refusal(np.minimum(images, -1e-6), (1.5, 1.5)))


def test_field_of_view_smaller_than_the_plate():
    error = refusal(np.random.default_rng(0).normal(size=(2, 64, 64)), (1.0, 1.0))
    assert "smaller than the plate" in str(error)
    assert error.diagnostics is None


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((0, 64, 64), (2.0, 2.0)),
        ((64, 64), (2.0, 2.0)),
        ((2, 4, 64), (2.0, 2.0)),
        ((2, 64, 64), (0.0, 2.0)),
        ((2, 64, 64), (2.0, -2.0)),
        ((2, 64, 64), (2.0, np.nan)),
        ((2, 64, 64), (2.0, 2.0, 2.0)),
        ((2, 64, 64), (0.002, 0.002)),
        ((2, 64, 64), (90.0, 90.0)),
    ],
)
def test_unusable_arrays(shape, spacing):
    images = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(InputError):
        locate_plate(images, spacing, SYSTEM)


def test_text_is_no_image():
    with pytest.raises(InputError, match="numbers"):
        locate_plate(np.full((1, 64, 64), "x"), (2.0, 2.0), SYSTEM)


def test_message_names_the_series():
    with pytest.raises(LocateError, match=r"^scan 3: "):
        locate_plate(np.zeros((1, 64, 64)), (3.0, 3.0), SYSTEM, where="scan 3")


def test_settings_decide():
    images, _ = simulate(Scene(**SMALL))
    with pytest.raises(NotLocatedError, match="does not fit"):
        locate_plate(images, (1.5, 1.5), SYSTEM, settings=LocateSettings(maximum_residual_mm=0.1))


@pytest.mark.parametrize(
    "change",
    [
        {"sphere_ids": (1, 2, 3)},
        {"sphere_ids": (1, 1, 2, 3)},
        {"positions_mm": np.zeros((4, 3))},
        {"positions_mm": np.full((4, 2), np.nan)},
        {"inner_diameter_mm": np.array([15.0, 15.0])},
        {"inner_diameter_mm": 25.0},
        {"inner_diameter_mm": 0.0},
        {"outer_diameter_mm": np.inf},
    ],
)
def test_unusable_layouts(change):
    good = {
        "name": "p",
        "sphere_ids": (1, 2, 3, 4),
        "positions_mm": np.array([(0, 0), (50, 0), (50, 50), (0, 50)], float),
        "inner_diameter_mm": 15.0,
        "outer_diameter_mm": 20.0,
    }
    with pytest.raises(DefinitionError):
        PlateLayout(**{**good, **change})
