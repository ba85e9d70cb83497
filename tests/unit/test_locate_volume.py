"""Plates in stacks of slices and in volumes: whole spheres, any axis, any tilt."""

from __future__ import annotations

import numpy as np
import pytest
from locate_helpers import PLATE_DEPTHS_MM, SYSTEM, Scene, simulate, simulate_volume, turn

from cordqa.errors import InputError
from cordqa.phantom.locate import NotLocatedError
from cordqa.phantom.locate_volume import locate_in_volume


def errors_mm(located, truth, spacing_mm):
    """For every true plate, the largest error of the candidate that suits it best."""
    spacing = np.array(spacing_mm)
    candidates = [c for plate in located.plates for c in plate.candidates]
    return [
        min(np.linalg.norm((c.voxels - points) * spacing, axis=1).max() for c in candidates)
        for points in truth
    ]


VOLUMES = {
    "across slices": {},
    "across rows": {"orientation": turn(2, 90)},
    "across columns, turned": {"orientation": turn(1, 90) @ turn(0, 40)},
    "tilted 15 deg": {"orientation": turn(1, 15) @ turn(0, 110), "snr": 20.0},
    "oblique": {"orientation": turn(1, 35) @ turn(2, 20) @ turn(0, 70)},
    "mirrored": {"orientation": np.diag([1.0, 1.0, -1.0]) @ turn(1, 10)},
    "thick slices": {"shape": (60, 102, 102), "spacing_mm": (3.3, 2.0, 2.0), "orientation": turn(1, 8)},
}


@pytest.mark.parametrize("name", VOLUMES)
def test_three_plates_in_a_volume(name):
    options = {"shape": (102, 102, 102), "spacing_mm": (2.0, 2.0, 2.0), **VOLUMES[name]}
    images, truth = simulate_volume(**options)
    located = locate_in_volume(images, options["spacing_mm"], SYSTEM)
    assert len(located.plates) == 3
    assert not located.refused
    assert max(errors_mm(located, truth, options["spacing_mm"])) < 0.3


def test_order_tilt_and_axis():
    images, truth = simulate_volume(orientation=turn(1, 12))
    located = locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM)
    for plate, points in zip(located.plates, truth, strict=True):
        pose = plate.candidates[0]
        assert pose.is_spatial
        assert pose.tilt_deg == pytest.approx(12, abs=1)
        assert abs(pose.slice_index - points[:, 0].mean()) <= 1
        assert np.isnan(plate.diagnostics.flatness).all()
        assert int(np.argmax(np.abs(pose.normal))) == 0


def test_plates_with_missing_spheres_are_refused_one_by_one():
    images, truth = simulate_volume(missing=((1, 5), (2, 13), (2, 2)))
    located = locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM)
    assert len(located.plates) == 1
    assert errors_mm(located, truth[:1], (2.0, 2.0, 2.0))[0] < 0.3
    messages = sorted(str(error) for error in located.refused)
    assert "1 of 14 spheres of system phantom plate not seen: 2 or 5 or 7 or 10" in messages[0]
    assert "2 of 14 spheres of system phantom plate not seen: 2, 13 or" in messages[1]


def test_one_plate_and_the_limit():
    images, truth = simulate_volume(depths_mm=PLATE_DEPTHS_MM[:1])
    located = locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM)
    assert len(located.plates) == 1
    assert errors_mm(located, truth, (2.0, 2.0, 2.0))[0] < 0.3
    images, _ = simulate_volume()
    assert len(locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM, at_most=2).plates) == 2


@pytest.mark.parametrize("content", ["fiducials", "noise"])
def test_volume_without_plate(content):
    images = (
        simulate_volume(depths_mm=())[0]
        if content == "fiducials"
        else np.random.default_rng(0).normal(size=(2, 50, 64, 64))
    )
    with pytest.raises(NotLocatedError, match="not found in this volume") as caught:
        locate_in_volume(images, (2.0, 2.0, 2.0), SYSTEM, where="scan")
    assert str(caught.value).startswith("scan: ")


def test_stack_of_thick_slices():
    spacing = (5.0, 1.5, 1.5)
    images, truth = simulate_volume(shape=(40, 134, 134), spacing_mm=spacing, snr=60.0)
    located = locate_in_volume(images, spacing, SYSTEM)
    assert len(located.plates) == 3
    for plate, points in zip(located.plates, truth, strict=True):
        pose = plate.candidates[0]
        assert not pose.is_spatial
        # The slice nearest to the middle of the plate.
        assert abs(pose.slice_index - points[:, 0].mean()) <= 0.6
        assert (pose.voxels[:, 0] == pose.slice_index).all()
        in_plane = [np.linalg.norm((c.centres - points[:, 1:]) * 1.5, axis=1).max() for c in plate.candidates]
        assert min(in_plane) < 0.3


def test_two_slices_with_a_plate_each():
    one, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), rotation_deg=10, seed=1))
    two, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), rotation_deg=-60, seed=2))
    located = locate_in_volume(np.stack([one, two], axis=1), (40.0, 2.0, 2.0), SYSTEM)
    assert [p.candidates[0].slice_index for p in located.plates] == [0, 1]


def test_stack_reports_the_slice_that_is_nearly_a_plate():
    one, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), seed=1))
    two, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0), seed=2, missing=(4,)))
    empty = np.random.default_rng(0).normal(size=one.shape)
    images = np.stack([empty, one, two], axis=1)
    located = locate_in_volume(images, (40.0, 2.0, 2.0), SYSTEM, where="scan")
    assert len(located.plates) == 1
    assert [str(e)[:13] for e in located.refused] == ["scan slice 3:"]
    with pytest.raises(NotLocatedError, match="slice 2: 1 of 14 spheres"):
        locate_in_volume(images[:, [0, 2]], (40.0, 2.0, 2.0), SYSTEM)
    with pytest.raises(NotLocatedError, match="not found in any of the 2 slices"):
        locate_in_volume(images[:, [0, 0]], (40.0, 2.0, 2.0), SYSTEM)


def test_single_slice_ignores_the_slice_distance():
    images, _ = simulate(Scene(shape=(128, 128), spacing_mm=(2.0, 2.0)))
    located = locate_in_volume(images[:, None], (np.nan, 2.0, 2.0), SYSTEM)
    assert len(located.plates) == 1


def test_thin_slab_through_one_plate():
    spacing = (3.0, 2.0, 2.0)
    images, truth = simulate_volume(shape=(9, 100, 100), spacing_mm=spacing, depths_mm=(1.0,))
    located = locate_in_volume(images, spacing, SYSTEM)
    assert len(located.plates) == 1
    assert abs(located.plates[0].candidates[0].slice_index - truth[0][:, 0].mean()) <= 0.6


def test_unusable_arrays():
    with pytest.raises(InputError, match="n_images, n_slices"):
        locate_in_volume(np.zeros((3, 64, 64)), (2.0, 2.0, 2.0), SYSTEM)
    with pytest.raises(InputError, match="spacing"):
        locate_in_volume(np.ones((1, 4, 64, 64)), (2.0, 2.0), SYSTEM)
    with pytest.raises(NotLocatedError, match="show nothing"):
        locate_in_volume(np.zeros((1, 40, 64, 64)), (2.0, 2.0, 2.0), SYSTEM)
    with pytest.raises(InputError, match="too large"):
        locate_in_volume(np.random.default_rng(0).normal(size=(1, 250, 200, 200)), (4.0, 4.0, 4.0), SYSTEM)
