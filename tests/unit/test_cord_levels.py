"""Levels from discs, bodies and distances, and what is said where they do not reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_cord import cylinder, reoriented

from cordqa.cord.centreline import fit_centreline
from cordqa.cord.levels import (
    LEVEL_NAMES,
    SPACING_MM,
    LevelLabel,
    distance_groups,
    fit_levels,
    label_at_distance,
    level_groups,
    level_number,
    read_labels,
)
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Volume


def spine(n_slices=160, stretch=1.0, top=100.0):
    """An image, and where each disc lies in it: disc 1 at ``top`` mm above the middle."""
    image = Volume(data=np.ones((3, 3, n_slices)), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    image.affine[2, 3] = -(n_slices - 1) / 2
    down = np.concatenate([[0.0], np.cumsum(SPACING_MM)]) * stretch
    return image, top - down


def disc(number, z):
    return LevelLabel(coordinate=float(number), point_mm=(1.0, 1.0, float(z)), name=f"disc {number}")


@pytest.mark.parametrize("stretch", [0.85, 1.0, 1.15])
def test_two_discs_recover_all_others(stretch):
    image, z = spine(stretch=stretch)
    levels = fit_levels([disc(3, z[2]), disc(6, z[5])], image)
    heights = np.arange(160) - 79.5
    for number in range(1, 9):
        if abs(z[number - 1]) < 79:
            assert np.interp(z[number - 1], heights, levels.coordinate) == pytest.approx(number, abs=0.03)
    assert levels.stretch == pytest.approx(stretch)
    assert levels.notices == ()


def test_middle_of_a_body_is_half_a_level_below_its_disc():
    image, z = spine()
    by_body = fit_levels([LevelLabel(coordinate=4.5, point_mm=(0.0, 0.0, (z[3] + z[4]) / 2))], image)
    by_disc = fit_levels([disc(4, z[3])], image)
    assert np.allclose(by_body.coordinate, by_disc.coordinate, equal_nan=True)


def test_one_label_uses_average_spacing_and_says_so():
    image, z = spine()
    levels = fit_levels([disc(4, z[3])], image)
    assert math.isnan(levels.stretch)
    assert "one label" in levels.notices[0].message
    label_slice = round(z[3] + 79.5)
    assert levels.standard_uncertainty_mm[label_slice] < 0.1
    assert levels.standard_uncertainty_mm[0] > 5


def test_misnumbered_labels_are_noticed():
    image, z = spine()
    levels = fit_levels([disc(3, z[2]), disc(7, z[3])], image)
    assert "numbering" in levels.notices[0].message


def test_labels_follow_a_tilted_cord_along_its_length():
    phantom = cylinder(tilt_deg=(0.0, 30.0), shape=(30, 80, 50))
    line = fit_centreline(phantom)
    ends = [line.points_mm[5], line.points_mm[45]]
    labels = [disc(6, 0), disc(4, 0)]
    labels = [
        LevelLabel(coordinate=lb.coordinate, point_mm=tuple(p)) for lb, p in zip(labels, ends, strict=True)
    ]
    assert fit_levels(labels, phantom, centreline=line).stretch == pytest.approx(
        40 / math.cos(math.radians(30)) / 34.0, rel=0.01
    )


def test_contradicting_and_outside_labels_are_refused():
    image, z = spine()
    with pytest.raises(InputError, match="contradict"):
        fit_levels([disc(3, z[4]), disc(5, z[2])], image)
    with pytest.raises(InputError, match="contradict"):
        fit_levels([disc(3, z[2]), disc(3, z[2])], image)
    with pytest.raises(InputError, match="outside the image"):
        fit_levels([disc(3, 500.0)], image)
    with pytest.raises(EmptyInputError, match="at least one label"):
        fit_levels([], image)
    with pytest.raises(InputError, match="spacings"):
        fit_levels([disc(3, z[2])], image, spacing_mm=[1.0, 2.0])


def test_label_images_in_any_orientation():
    data = np.zeros((9, 9, 40), dtype=np.int16)
    data[4, 4, 30], data[4, 5, 12], data[4, 6, 12] = 3, 4, 4
    volume = Volume(data=data, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    labels = read_labels(volume, kind="disc")
    assert [label.coordinate for label in labels] == [3.0, 4.0]
    assert labels[1].point_mm == (4.0, 5.5, 12.0)
    assert read_labels(reoriented(volume, (2, 0, 1), (0, 2)), kind="disc") == labels
    assert read_labels(volume, kind="body")[0].coordinate == 3.5
    with pytest.raises(EmptyInputError, match="no label"):
        read_labels(Volume(data=data * 0, affine=np.eye(4)), kind="disc")
    with pytest.raises(InputError, match="vertebral number"):
        read_labels(Volume(data=data * 20, affine=np.eye(4)), kind="disc")
    with pytest.raises(InputError, match="kind"):
        read_labels(volume, kind="rib")


def test_a_given_distance_stands_for_a_label():
    label = label_at_distance((0.0, 0.0, 0.0), landmark="C3", distance_mm=SPACING_MM[2] + SPACING_MM[3] / 2)
    assert label.coordinate == pytest.approx(4.5)
    assert label_at_distance((0.0, 0.0, 0.0), landmark="C3", distance_mm=-10.0).coordinate == pytest.approx(
        2.5
    )
    with pytest.raises(InputError, match="out of the spine"):
        label_at_distance((0.0, 0.0, 0.0), landmark="C3", distance_mm=2000.0)
    with pytest.raises(InputError, match="unknown vertebral level"):
        label_at_distance((0.0, 0.0, 0.0), landmark="C9", distance_mm=0.0)


def test_groups_cover_each_slice_once_and_say_what_is_missing():
    image, z = spine(n_slices=60, top=60.0)
    levels = fit_levels([disc(3, z[2]), disc(5, z[4])], image)
    slices = np.arange(60)
    groups, notes = level_groups(levels, slices)
    assert np.sum(list(groups.values()), axis=0).max() == 1
    assert groups["C3"].sum() == 17
    assert "C3" not in notes
    asked, said = level_groups(levels, slices, ["C3-C4", "L1", list(groups)[-1]])
    assert asked["C3-C4"].sum() == 34
    assert said["L1"] == "L1 is not covered"
    assert "%" in said[list(groups)[-1]]
    with pytest.raises(InputError):
        level_groups(levels, np.array([100]))


def test_beyond_the_spine_there_is_no_level():
    image, _ = spine(n_slices=160)
    levels = fit_levels([disc(1, 0.0), disc(2, -15.0)], image)
    assert np.isnan(levels.coordinate[90:]).all()
    assert levels.names()[100] == ""


def test_distance_below_a_landmark():
    phantom = cylinder(shape=(30, 30, 40))
    line = fit_centreline(phantom)
    groups, notes = distance_groups(line, (0.0, 0.0, 15.0), distances_mm=[10.0, 30.0, 80.0], extent_mm=10.0)
    assert groups["10 mm below"].sum() == 10
    assert line.points_mm[groups["10 mm below"], 2].mean() == pytest.approx(5.0, abs=0.5)
    assert notes["80 mm below"] == "80 mm below is not covered"
    with pytest.raises(InputError, match="extent"):
        distance_groups(line, (0.0, 0.0, 0.0), distances_mm=[1.0], extent_mm=0.0)


def test_names_and_numbers():
    assert level_number(" c7 ") == 7
    assert level_number("T1") == 8
    assert len(LEVEL_NAMES) == len(SPACING_MM) == 24
    # Upper cord length, obex (about the level of C1) to T1/T2, is 144 +- 13 mm in adults.
    assert 110 < sum(SPACING_MM[:8]) < 157
