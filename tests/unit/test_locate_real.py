"""The real scans: located and labelled as they lie, and turned, mirrored and shifted."""

from __future__ import annotations

import numpy as np
import pytest
from locate_helpers import REFERENCE_MS, SYSTEM, log_reference, real_series, transform

from cordqa.phantom.label import UnclearLabelsError, choose_labels
from cordqa.phantom.locate import locate_plate
from cordqa.phantom.locate_volume import locate_in_volume

pytestmark = pytest.mark.data

MOVES = [
    {"rotation_deg": 137.0},
    {"mirrored": True, "rotation_deg": 20.0},
    {"shift": (0.1, -0.1), "rotation_deg": -75.0},
]


@pytest.fixture(scope="module")
def series(shared_data):
    return real_series(shared_data)


def labelled(item, images):
    location = locate_plate(images, item.spacing_mm, SYSTEM)
    moved = type(item)(**{**vars(item), "images": images})
    values = moved.times(location.candidates[0].centres)[location.orders]
    choice = choose_labels(values, log_reference(item))
    return location, choice, values


def test_all_series_are_located_and_labelled(series):
    assert len(series) == 7
    for item in series:
        location, choice, values = labelled(item, item.images)
        pose = location.candidates[choice.index]
        # The phantom was scanned upright, seen from the front (checked by eye).
        assert abs(pose.rotation_deg) < 6, item.name
        assert not pose.mirrored, item.name
        assert pose.scale == pytest.approx(1, abs=0.015)
        assert location.residual_mm < 0.6
        assert location.diagnostics.evidence.min() > 0.8
        assert np.median(location.diagnostics.flatness) > 0.7
        assert choice.score > 0.6
        assert choice.margin > 0.35
        # Relaxation falls from sphere to sphere where the protocol can measure it.
        assert (np.diff(values[choice.index][3:10]) < 0).all(), item.name


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_moved_series_give_the_moved_labels(series, move):
    for item in series:
        location, choice, _ = labelled(item, item.images)
        truth = location.candidates[choice.index].centres
        images, carry = transform(item.images, item.spacing_mm, **move)
        location, choice, _ = labelled(item, images)
        centres = location.candidates[choice.index].centres
        error = np.linalg.norm((centres - carry(truth)) * np.array(item.spacing_mm), axis=1)
        assert error.max() < 1.0, item.name


def test_reference_of_the_other_plate_is_refused(series):
    for item in series:
        _, _, values = labelled(item, item.images)
        other = "MnCl2" if item.array == "NiCl2" else "NiCl2"
        for field in ("1.5", "3.0"):
            with pytest.raises(UnclearLabelsError):
                choose_labels(values, np.log(REFERENCE_MS[f"{item.quantity} {other} {field}"]))


def test_two_real_plates_in_one_stack(series):
    plates = [item for item in series if item.name.startswith("T1/site3_ge")]
    images = np.stack([item.images for item in plates], axis=1)
    located = locate_in_volume(images, (40.0, *plates[0].spacing_mm), SYSTEM)
    assert [p.candidates[0].slice_index for p in located.plates] == [0, 1]
    for item, plate in zip(plates, located.plates, strict=True):
        values = item.times(plate.candidates[0].centres)[plate.orders]
        choice = choose_labels(values, log_reference(item))
        assert abs(plate.candidates[choice.index].rotation_deg) < 6
