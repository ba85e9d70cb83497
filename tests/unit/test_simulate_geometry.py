"""Where slices and phantoms lie: directions, mirrors, rotations, affines."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import ConfigError
from cordqa.simulate.geometry import LPS_TO_RAS, Placement, SliceGeometry


def test_default_slice_is_coronal_seen_from_the_front() -> None:
    geometry = SliceGeometry(n_rows=100, n_columns=100, spacing_mm=(2.0, 2.0))
    # Left of the patient lies to the right of the image, superior at the top.
    left, superior = geometry.voxel_coordinates([(10.0, 0.0, 0.0), (0.0, 0.0, 10.0)])
    assert left == pytest.approx((0.0, 49.5, 54.5))
    assert superior == pytest.approx((0.0, 44.5, 49.5))


def test_affine_takes_voxels_to_ras_and_back() -> None:
    geometry = SliceGeometry.coronal(centre_mm=(3.0, -56.5, 7.0), rotation_deg=25.0, mirror=True)
    index = np.array([0.0, 31.0, 77.0])
    ras = (geometry.affine @ [*index, 1.0])[:3]
    lps = (LPS_TO_RAS @ [*ras, 1.0])[:3]
    assert geometry.voxel_coordinates(lps) == pytest.approx(index)
    middle = (geometry.affine @ [0.0, 95.5, 95.5, 1.0])[:3]
    assert middle == pytest.approx((-3.0, 56.5, 7.0))


def test_voxel_positions_agree_with_the_affine() -> None:
    geometry = SliceGeometry(n_rows=3, n_columns=4, n_slices=2, slice_distance_mm=7.0, centre_mm=(1, 2, 3))
    positions = geometry.voxel_positions()
    assert positions.shape == (2, 3, 4, 3)
    expected = geometry.affine_lps @ [1, 2, 3, 1]
    assert positions[1, 2, 3] == pytest.approx(expected[:3])


def test_mirror_reverses_columns_about_the_centre() -> None:
    straight, mirrored = SliceGeometry.coronal(), SliceGeometry.coronal(mirror=True)
    point = (20.0, 0.0, 35.0)
    a, b = straight.voxel_coordinates(point), mirrored.voxel_coordinates(point)
    assert b[1] == pytest.approx(a[1])
    assert b[2] == pytest.approx(191 - a[2])


def test_slice_rotation_turns_the_image_the_other_way_than_a_phantom_rotation() -> None:
    point = np.array([30.0, 0.0, 12.0])
    turned_slice = SliceGeometry.coronal(rotation_deg=33.0).voxel_coordinates(point)
    moved = Placement(rotation_deg=-33.0).apply(point, pivot_mm=(0.0, 0.0, 0.0))
    assert SliceGeometry.coronal().voxel_coordinates(moved) == pytest.approx(turned_slice)


def test_placement_rotates_scales_and_shifts_about_the_pivot() -> None:
    pivot = (1.0, -56.5, 2.0)
    placement = Placement(rotation_deg=90.0, shift_mm=(0.0, 5.0, 0.0), scale=1.02)
    moved = placement.apply([pivot, (1.0, -56.5, 12.0)], pivot_mm=pivot)
    assert moved[0] == pytest.approx((1.0, -51.5, 2.0))
    # Right-handed about +y: superior goes to left.
    assert moved[1] == pytest.approx((1.0 + 10.2, -51.5, 2.0))


def test_tilt_keeps_distances() -> None:
    points = np.array([(0.0, 0.0, 50.0), (30.0, 0.0, -20.0), (-20.0, 0.0, 20.0)])
    moved = Placement(tilt_deg=(4.0, -3.0), rotation_deg=17.0).apply(points, pivot_mm=(0, 0, 0))
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)
    after = np.linalg.norm(moved[:, None] - moved[None], axis=-1)
    assert after == pytest.approx(before)
    assert np.abs(moved[:, 1]).max() > 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_rows": 0},
        {"spacing_mm": (1.0, 0.0)},
        {"thickness_mm": float("nan")},
        {"row_direction": (1.0, 0.0, 0.0), "column_direction": (0.6, 0.0, -0.8)},
    ],
)
def test_impossible_slices_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SliceGeometry(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"scale": 0.0}, {"scale": -1.0}, {"rotation_deg": float("nan")}])
def test_impossible_placements_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Placement(**arguments)  # type: ignore[arg-type]
