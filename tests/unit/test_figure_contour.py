"""Outlines of masks: where they run, and that they always close."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.figures import trace_level


def area(line: np.ndarray) -> float:
    y, x = line.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def disc(radius: float, centre: tuple[float, float], size: int = 40) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.clip(radius + 0.5 - np.hypot(y - centre[0], x - centre[1]), 0, 1)


@pytest.mark.parametrize("tolerance", [0.0, 0.03])
def test_the_outline_of_a_soft_disc_is_its_circle(tolerance):
    (line,) = trace_level(disc(10, (20.1, 19.3)), tolerance=tolerance)
    assert np.abs(np.hypot(line[:, 0] - 20.1, line[:, 1] - 19.3) - 10).max() < 0.1
    assert abs(area(line)) == pytest.approx(math.pi * 100, rel=0.01)


def test_thinning_keeps_the_line_within_its_tolerance():
    whole, thin = (trace_level(disc(12, (19, 20)), tolerance=t)[0] for t in (0.0, 0.05))
    assert len(thin) < 0.6 * len(whole)
    closed = np.vstack([thin, thin[:1]])
    for point in whole:
        start, along = closed[:-1], np.diff(closed, axis=0)
        share = np.clip(((point - start) * along).sum(axis=1) / (along**2).sum(axis=1), 0, 1)
        assert np.hypot(*(start + share[:, None] * along - point).T).min() < 0.051


def test_lines_of_noise_close_and_lie_on_the_level():
    image = np.random.default_rng(3).random((30, 23))
    padded = np.pad(image, 1, constant_values=-0.5)
    lines = trace_level(image)
    assert len(lines) > 20
    for line in lines:
        steps = np.diff(np.vstack([line, line[:1]]), axis=0)
        assert np.abs(steps).max() <= 1.0 + 1e-9
        for row, column in line + 1:
            i, j = int(row), int(column)
            a, b = row - i, column - j
            around = padded[i : i + 2, j : j + 2]
            weights = np.outer([1 - a, a][: around.shape[0]], [1 - b, b][: around.shape[1]])
            assert float((weights * around).sum()) == pytest.approx(0.5, abs=1e-9)
    # Every crossing between neighbours belongs to one line.
    inside = padded >= 0.5
    crossings = int((inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum())
    assert sum(len(line) for line in lines) == crossings


def test_outside_lies_on_the_same_side_all_along():
    ring = disc(12, (20, 20)) - disc(5, (20, 20))
    outer, inner = trace_level(ring)
    assert np.sign(area(outer)) == -np.sign(area(inner))


def test_a_mask_that_fills_the_picture_has_its_border_as_outline():
    (line,) = trace_level(np.ones((3, 4)))
    assert line.min() > -1
    assert len(line) == 14


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5)), np.full((5, 5), math.nan), np.zeros((0, 3)), np.full((2, 2), -9.0)]
)
def test_nothing_inside_has_no_outline(image):
    assert trace_level(image) == ()


def test_one_pixel_and_nan_beside_it():
    (line,) = trace_level(np.array([[math.nan, 1.0, math.nan]]))
    assert np.isfinite(line).all()
    assert len(line) == 4


def test_a_volume_has_no_outline():
    with pytest.raises(InputError, match="outlined"):
        trace_level(np.zeros((2, 2, 2)))
