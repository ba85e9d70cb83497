"""Which slices hold cord: decided from probability maps that are drawn, not predicted."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.cord.axes import orient
from cordqa.cord.tracing import (
    APART,
    BRAINSTEM,
    CAUDA_EQUINA,
    INTERPOLATED,
    LOW_CONFIDENCE,
    NO_CORD,
    SUPPORTED,
    CordNotFoundError,
    SegmentationSettings,
    find_extent,
    outline_slices,
    support_doubtful,
)
from cordqa.records import Volume

SETTINGS = SegmentationSettings()
SIZE, GRID = 64, 0.7


def stack(n=16):
    """Return a certain cord of 77 mm2 on every slice."""
    return np.stack([blob() for _ in range(n)])


def blob(*, half=(6.2, 4.0), centre=(0.0, 0.0), top=1.0):
    line = (np.arange(SIZE) - (SIZE - 1) / 2) * GRID
    level = np.hypot((line[:, None] - centre[0]) / half[0], (line[None, :] - centre[1]) / half[1])
    return (top * np.clip(0.5 - (level - 1.0) * min(half) / GRID, 0.0, 1.0)).astype(np.float32)


def trace(probability, *, slice_mm=5.0):
    path = np.full((probability.shape[0], 2), (SIZE - 1) / 2)
    found = outline_slices(probability, path, grid_mm=GRID, threshold=0.5, settings=SETTINGS)
    support_doubtful(found, probability, slice_mm, grid_mm=GRID, threshold=0.5, settings=SETTINGS)
    image = Volume(data=np.zeros((4, 4, probability.shape[0])), affine=np.diag([1.0, 1.0, slice_mm, 1.0]))
    return found, find_extent(found, orient(image), SETTINGS)


def test_every_slice_of_a_clear_cord():
    found, notes = trace(stack())
    assert found.present.all()
    assert not any(found.flags)
    assert notes == []
    np.testing.assert_allclose(found.area_mm2, np.pi * 6.2 * 4.0, rtol=0.03)


def test_hole_is_filled():
    probability = stack(4)
    probability[2, 30:33, 31:33] = 0.0
    found, _ = trace(probability)
    assert found.area_mm2[2] == pytest.approx(found.area_mm2[1], rel=0.01)
    np.testing.assert_allclose(found.radii_mm[2], found.radii_mm[1], atol=0.15)


def test_other_pieces_are_left_out():
    probability = stack(4)
    probability[1] = np.maximum(probability[1], blob(half=(4.0, 4.0), centre=(15.0, 10.0)))
    found, _ = trace(probability)
    assert found.area_mm2[1] == pytest.approx(found.area_mm2[0], rel=0.01)


def test_faint_slice_is_helped_by_its_neighbours():
    probability = stack()
    probability[7] = blob(top=0.45)
    found, _ = trace(probability)
    assert found.present[7]
    assert found.flags[7] == [SUPPORTED, LOW_CONFIDENCE]
    assert found.area_mm2[7] == pytest.approx(found.area_mm2[6], rel=0.15)
    assert found.confidence[7] < 0.5


def test_empty_slice_is_bridged_not_dropped():
    probability = stack()
    probability[7:9] = 0.0
    found, _ = trace(probability)
    assert found.present.all()
    for k in (7, 8):
        assert INTERPOLATED in found.flags[k]
        np.testing.assert_allclose(found.radii_mm[k], found.radii_mm[6], atol=0.05)


def test_long_gap_is_not_bridged_but_both_sides_are_kept():
    probability = stack(20)
    probability[8:13] = 0.0
    found, notes = trace(probability)
    assert found.present.tolist() == [True] * 8 + [False] * 5 + [True] * 7
    assert all(found.flags[k] == [NO_CORD] for k in range(8, 13))
    assert "5 of 20" in notes[0]


def test_large_body_above_and_below():
    probability = stack(20)
    probability[16:] = blob(half=(11.0, 9.0))
    probability[:3] = blob(half=(11.0, 6.0))
    found, _ = trace(probability)
    assert found.present.tolist() == [False] * 3 + [True] * 13 + [False] * 4
    assert all(found.flags[k] == [BRAINSTEM] for k in range(16, 20))
    assert all(found.flags[k] == [CAUDA_EQUINA] for k in range(3))


def test_jump_of_place_ends_the_cord():
    probability = stack(20)
    probability[17:] = blob(half=(5.0, 5.0), centre=(14.0, 12.0))
    found, _ = trace(probability)
    assert not found.present[17:].any()
    assert all(found.flags[k] == [APART] for k in range(17, 20))


def test_two_pieces_far_apart_are_not_both_cord():
    probability = stack(40)
    probability[10:30] = 0.0
    probability[30:] = blob(half=(3.0, 3.0))
    found, _ = trace(probability)
    assert found.present.sum() == 10
    assert found.flags[35] == [APART]


@pytest.mark.parametrize("top", [0.0, 0.45])
def test_nothing_certain_is_refused(top):
    with pytest.raises(CordNotFoundError):
        trace(stack() * np.float32(top))


def test_only_a_brainstem_is_refused():
    with pytest.raises(CordNotFoundError):
        trace(np.stack([blob(half=(12.0, 10.0))] * 5))
