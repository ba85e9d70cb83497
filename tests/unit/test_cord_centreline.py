"""Centreline and axes: known tilts, any orientation, and masks that are no cord."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.axes import check_same_grid, orient, orient_mask, slice_label
from cordqa.cord.centreline import fit_centreline
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Volume


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (12.0, 0.0), (0.0, -20.0), (8.0, 15.0)])
def test_tilt_of_a_straight_cord_is_found(tilt):
    line = fit_centreline(cylinder(tilt_deg=tilt, shape=(40, 44, 16)))
    inner = slice(2, -2)  # where the field of view does not cut the cord
    assert np.allclose(line.angle_ap_deg[inner], tilt[0], atol=0.1)
    assert np.allclose(line.angle_rl_deg[inner], tilt[1], atol=0.1)
    slopes = np.tan(np.radians(tilt))
    assert np.allclose(line.cosine, 1 / np.sqrt(1 + (slopes**2).sum()), atol=2e-3)


def test_points_lie_on_the_axis_in_millimetres():
    line = fit_centreline(cylinder(tilt_deg=(0.0, 15.0), spacing=(0.8, 0.8, 3.0), shape=(44, 48, 8)))
    expected = np.column_stack(
        [np.zeros(8), np.tan(np.radians(15.0)) * line.points_mm[:, 2], line.points_mm[:, 2]]
    )
    assert np.allclose(line.points_mm, expected, atol=0.05)
    assert line.arc_length_mm[-1] == pytest.approx(21.0 / np.cos(np.radians(15.0)), rel=2e-3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0, 2), (0, 1, 2)])
def test_orientation_of_the_file_does_not_matter(order, flips):
    original = cylinder(tilt_deg=(5.0, 10.0), shape=(30, 28, 8), spacing=(1.0, 1.1, 2.0))
    turned = reoriented(original, order, flips)
    a, b = fit_centreline(original), fit_centreline(turned)
    assert np.allclose(a.points_mm, b.points_mm, atol=1e-9)
    oriented = orient(turned)
    assert np.array_equal(oriented.restore(oriented.data), turned.data)
    index = oriented.array_index(3)
    axis = oriented.order[2]
    assert np.take(turned.data, index, axis=axis).sum() == pytest.approx(
        original.data[:, :, 3].sum(), rel=1e-6
    )


def test_one_slice_gives_no_direction():
    line = fit_centreline(cylinder(shape=(30, 30, 1)))
    assert np.isnan(line.angle_ap_deg).all()
    assert np.isfinite(line.right).all()


def test_two_and_three_slices_give_a_line():
    for count in (2, 3):
        line = fit_centreline(cylinder(shape=(34, 34, count), tilt_deg=(10.0, 0.0), spacing=(1.0, 1.0, 5.0)))
        assert np.allclose(line.angle_ap_deg, 10.0, atol=0.7)


def test_a_gap_is_bridged_and_marked():
    mask = cylinder(shape=(30, 30, 12))
    mask.data[:, :, 5:7] = 0
    line = fit_centreline(mask)
    assert line.slices.size == 12
    assert line.measured.sum() == 10
    assert np.isfinite(line.right).all()


def test_masks_that_are_no_cord():
    mask = cylinder(shape=(30, 30, 6))
    with pytest.raises(EmptyInputError, match="empty"):
        fit_centreline(Volume(data=mask.data * 0, affine=mask.affine))
    with pytest.raises(InputError, match="three dimensions"):
        fit_centreline(Volume(data=np.zeros((4, 4, 4, 3)), affine=np.eye(4)))
    with pytest.raises(InputError, match="0 and 1"):
        fit_centreline(Volume(data=mask.data * 255, affine=mask.affine))
    with pytest.raises(InputError, match="not finite"):
        fit_centreline(Volume(data=np.where(mask.data > 0.5, np.nan, 0), affine=mask.affine))
    with pytest.raises(InputError, match="affine"):
        fit_centreline(Volume(data=mask.data, affine=np.diag([1.0, 1.0, 0.0, 1.0])))
    with pytest.raises(EmptyInputError, match="no voxels"):
        fit_centreline(Volume(data=np.zeros((0, 3, 3)), affine=np.eye(4)))
    with pytest.raises(InputError, match="smoothing"):
        fit_centreline(mask, smoothing=-1.0)


def test_pieces_are_refused_dropped_or_kept():
    mask = cylinder(shape=(40, 30, 6))
    mask.data[2:6, 2:12, 2:4] = 1.0
    with pytest.raises(InputError, match="more than one piece"):
        orient_mask(mask)
    largest = orient_mask(mask, pieces="largest")
    assert largest.data[3, 5, 3] == 0
    assert "several pieces" in largest.notes[0]
    assert orient_mask(mask, pieces="keep").data[3, 5, 3] == 1
    with pytest.raises(InputError, match="pieces"):
        orient_mask(mask, pieces="some")
    assert mask.data[3, 5, 3] == 1, "the input is left alone"


def test_a_speck_is_noted():
    mask = cylinder(shape=(40, 30, 6))
    mask.data[2, 2, 3] = 1.0
    assert "specks" in orient_mask(mask).notes[0]


def test_grids_are_compared_by_place():
    mask = cylinder(shape=(10, 10, 4))
    check_same_grid(mask, mask, what="two")
    moved = Volume(data=mask.data, affine=mask.affine + np.eye(4, k=3) * 3)
    with pytest.raises(InputError, match="different places"):
        check_same_grid(mask, moved, what="two")
    with pytest.raises(InputError, match="one grid"):
        check_same_grid(mask, Volume(data=mask.data[1:], affine=mask.affine), what="two")


def test_slice_label_tells_both_numbers():
    assert (slice_label(3), slice_label(3, "C4")) == ("slice 3", "C4, slice 3")
