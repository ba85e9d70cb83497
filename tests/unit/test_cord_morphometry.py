"""Morphometry of elliptic cylinders with known size, tilt and turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.centreline import fit_centreline
from cordqa.cord.levels import LevelLabel, fit_levels, level_groups
from cordqa.cord.morphometry import SHAPE_QUANTITIES, measure_morphometry, measure_tissue_area
from cordqa.cord.slice_rows import resample_slices, slice_measurements, summarise_slices
from cordqa.errors import EmptyInputError, InputError
from cordqa.quantities import QUANTITIES
from cordqa.records import Volume

AREA = math.pi * 6.5 * 4.0
INNER = slice(2, -2)


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (15.0, 0.0), (0.0, 30.0), (10.0, 15.0)])
@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((1.0, 1.0, 1.0), (40, 40, 12)), ((0.8, 0.8, 3.0), (50, 52, 7))],
    ids=["1mm", "thick"],
)
def test_soft_masks_give_the_true_size(tilt, spacing, shape):
    phantom = cylinder(tilt_deg=tilt, turn_deg=8.0, spacing=spacing, shape=shape, centre=(0.3, 0.2))
    found = measure_morphometry(phantom).values
    assert found["CSA"][INNER].mean() == pytest.approx(AREA, rel=0.005)
    assert found["diameter_RL"][INNER].mean() == pytest.approx(13.0, abs=0.2)
    assert found["diameter_AP_ellipse"][INNER].mean() == pytest.approx(8.0, abs=0.2)
    assert found["diameter_AP"][INNER].mean() == pytest.approx(8.0, abs=0.2)
    assert found["orientation"][INNER].mean() == pytest.approx(-8.0, abs=0.5)
    assert found["eccentricity"][INNER].mean() == pytest.approx(math.sqrt(1 - (4 / 6.5) ** 2), abs=0.01)
    assert found["solidity"][INNER].mean() > 0.98
    assert found["angle_AP"][INNER].mean() == pytest.approx(tilt[0], abs=0.1)
    assert found["angle_RL"][INNER].mean() == pytest.approx(tilt[1], abs=0.1)


@pytest.mark.parametrize("tilt", [(15.0, 0.0), (0.0, 30.0), (10.0, 15.0)])
def test_binary_masks_give_the_true_size(tilt):
    phantom = cylinder(
        tilt_deg=tilt,
        turn_deg=8.0,
        spacing=(0.5, 0.5, 1.0),
        shape=(76, 76, 24),
        soft=False,
        centre=(0.3, 0.2),
    )
    found = measure_morphometry(phantom).values
    assert found["CSA"][INNER].mean() == pytest.approx(AREA, rel=0.005)
    assert found["diameter_RL"][INNER].mean() == pytest.approx(13.0, abs=0.2)
    assert found["diameter_AP_ellipse"][INNER].mean() == pytest.approx(8.0, abs=0.2)


def test_without_correction_the_area_is_that_of_the_slice():
    phantom = cylinder(tilt_deg=(0.0, 30.0), shape=(40, 40, 8))
    table = measure_morphometry(phantom, angle_correction=False)
    assert np.array_equal(table.values["CSA"], phantom.data.sum(axis=(0, 1), dtype=float))
    assert table.values["CSA"][INNER].mean() == pytest.approx(AREA / math.cos(math.radians(30)), rel=0.005)
    assert "no angle correction" in table.method


def test_orientation_of_the_file_changes_only_the_array_index():
    phantom = cylinder(tilt_deg=(5.0, 12.0), turn_deg=-10.0, shape=(36, 34, 8), spacing=(0.9, 0.9, 2.0))
    turned = reoriented(phantom, (1, 2, 0), (0, 1))
    a, b = measure_morphometry(phantom), measure_morphometry(turned)
    for name in SHAPE_QUANTITIES:
        assert np.allclose(a.values[name], b.values[name], atol=1e-6), name
    assert a.array_index.tolist() == list(range(8))
    assert b.array_index.tolist() == list(range(7, -1, -1))


def test_one_slice_has_no_perpendicular_area_and_says_so():
    phantom = cylinder(shape=(30, 30, 1))
    rows = slice_measurements(measure_morphometry(phantom))
    area = next(row for row in rows if row.quantity == "CSA")
    assert math.isnan(area.value)
    assert "no angle" in area.flags[0]
    assert measure_morphometry(phantom, angle_correction=False).values["CSA"][0] == pytest.approx(
        AREA, rel=0.01
    )


def test_a_gap_is_nan_with_a_reason():
    phantom = cylinder(shape=(30, 30, 8))
    phantom.data[:, :, 4] = 0
    table = measure_morphometry(phantom)
    assert np.isnan(table.values["CSA"][4])
    assert table.reasons[4] == "no mask in this slice"
    rows = summarise_slices(table, {"all": np.ones(8, dtype=bool)})
    area = rows[0]
    assert area.value == pytest.approx(AREA, rel=0.005)
    assert area.coverage == pytest.approx(7 / 8)
    assert "1 of 8 slices hold no value" in area.flags


def test_masks_that_cannot_be_measured():
    phantom = cylinder(shape=(30, 30, 6))
    with pytest.raises(EmptyInputError):
        measure_morphometry(Volume(data=phantom.data * 0, affine=phantom.affine))
    two = np.array(phantom.data)
    two[:4, :8, :] = 1
    with pytest.raises(InputError, match="more than one piece"):
        measure_morphometry(Volume(data=two, affine=phantom.affine))
    with pytest.raises(InputError, match="three dimensions"):
        measure_morphometry(Volume(data=np.zeros((3, 3, 3, 2)), affine=np.eye(4)))
    elsewhere = fit_centreline(cylinder(shape=(30, 30, 6), spacing=(2.0, 2.0, 2.0)))
    with pytest.raises(InputError, match="one grid"):
        measure_morphometry(phantom, centreline=elsewhere)


def test_a_single_voxel_is_no_ellipse_but_no_crash():
    data = np.zeros((9, 9, 3))
    data[4, 4, :] = 1
    table = measure_morphometry(Volume(data=data, affine=np.eye(4)))
    assert np.allclose(table.values["CSA"], 1.0)


def test_grey_matter_area_follows_the_tilt_of_the_cord():
    cord = cylinder(tilt_deg=(0.0, 20.0), shape=(40, 40, 8))
    grey = cylinder(tilt_deg=(0.0, 20.0), shape=(40, 40, 8), semi_axes=(3.0, 2.0))
    table = measure_tissue_area(grey, centreline=fit_centreline(cord))
    assert table.values["GM_area"][INNER].mean() == pytest.approx(math.pi * 6.0, rel=0.01)
    assert table.region == "GM"


def test_rows_by_level():
    phantom = cylinder(shape=(30, 30, 60))
    levels = fit_levels(
        [
            LevelLabel(coordinate=4.0, point_mm=(0.0, 0.0, 10.0)),
            LevelLabel(coordinate=5.0, point_mm=(0.0, 0.0, -7.0)),
        ],
        phantom,
    )
    table = measure_morphometry(phantom)
    groups, notes = level_groups(levels, table.slices, ["C4", "T6"])
    rows = summarise_slices(table, groups, notes=notes)
    c4 = next(r for r in rows if r.level == "C4" and r.quantity == "CSA")
    length = next(r for r in rows if r.level == "C4" and r.quantity == "length")
    missing = next(r for r in rows if r.level == "T6" and r.quantity == "CSA")
    assert c4.value == pytest.approx(AREA, rel=0.005)
    assert length.value == pytest.approx(17.0)
    assert math.isnan(missing.value)
    assert missing.coverage == 0
    assert "not covered" in missing.flags[0]
    names = [levels.names()[s] for s in table.slices]
    assert slice_measurements(table, levels=names)[0].level.startswith("C")
    assert {row.quantity for row in rows} <= set(QUANTITIES)


def test_positions_along_the_spine_are_interpolated_and_not_extrapolated():
    phantom = cylinder(shape=(30, 30, 11))
    for k in range(11):  # a cord that grows upwards
        phantom.data[:, :, k] = cylinder(shape=(30, 30, 1), semi_axes=(5 + 0.1 * k, 4.0), fine=20).data[
            :, :, 0
        ]
    table = measure_morphometry(phantom, angle_correction=False)
    coordinate = 5.0 - 0.1 * np.arange(11)  # levels fall going up
    found = resample_slices(table, coordinate, np.array([3.9, 4.25, 4.5, 5.05]))
    truth = math.pi * 4.0 * (5 + (5.0 - np.array([4.25, 4.5])))
    assert np.allclose(found["CSA"][1:3], truth, rtol=0.005)
    assert np.isnan(found["CSA"][[0, 3]]).all()
    assert "length" not in found
    with pytest.raises(InputError, match="choose among"):
        summarise_slices(table, {"all": np.ones(3, dtype=bool)})
