"""Trace where an image crosses a level: outlines of masks, as lines and not as pixels."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["trace_level"]

Line = NDArray[np.float64]
#: An edge of the grid: row, column, and whether it runs down (1) or to the right (0).
_Edge = tuple[int, int, int]
# Which edges of a cell a line joins, by which corners lie inside: the bits are top left, top right,
# bottom right, bottom left.  Edges: 0 top, 1 right, 2 bottom, 3 left; a pair runs from where the line
# enters to where it leaves, with the inside on its left.  The two cells with opposite corners
# inside are read as joined.
_PAIRS: tuple[tuple[tuple[int, int], ...], ...] = (
    (),
    ((0, 3),),
    ((1, 0),),
    ((1, 3),),
    ((2, 1),),
    ((0, 1), (2, 3)),
    ((2, 0),),
    ((2, 3),),
    ((3, 2),),
    ((0, 2),),
    ((3, 0), (1, 2)),
    ((1, 2),),
    ((3, 1),),
    ((0, 1),),
    ((3, 0),),
    (),
)


def trace_level(values: ArrayLike, level: float = 0.5, *, tolerance: float = 0.0) -> tuple[Line, ...]:
    """Trace the closed lines along which an image crosses a level.

    Parameters
    ----------
    values : array_like, shape (rows, columns)
        Fractions of a mask, or any image; NaN counts as outside.  Beyond the border is outside too,
        so that every line is closed.
    level : float
        Values at or above it lie inside; the line runs where linear interpolation meets it.
    tolerance : float
        Points that lie nearer than this (in pixels) to the line through those kept are left out.

    Returns
    -------
    tuple of ndarray, shape (n_points, 2)
        Row and column of each point, where the centre of the first pixel is (0, 0); the first point
        is not repeated at the end.  The longest line comes first.

    Raises
    ------
    InputError
        If the image does not have two dimensions.
    """
    image = np.asarray(values, dtype=float)
    if image.ndim != 2:
        raise InputError("cannot be outlined", found=f"shape {image.shape}", expected="two dimensions")
    if image.size == 0:
        return ()
    low = min(0.0, level - 1.0)
    padded = np.pad(np.where(np.isfinite(image), image, low), 1, constant_values=low)
    lines = [_thin(line - 1.0, tolerance) for line in _linked(padded, level)]
    return tuple(sorted(lines, key=len, reverse=True))


def _linked(image: NDArray[np.float64], level: float) -> list[Line]:
    """Join the pieces within cells to lines."""
    inside = image >= level
    corner = inside.astype(np.intp)
    cases = corner[:-1, :-1] + 2 * corner[:-1, 1:] + 4 * corner[1:, 1:] + 8 * corner[1:, :-1]
    following: dict[_Edge, list[_Edge]] = defaultdict(list)
    for row, column in np.argwhere((cases > 0) & (cases < 15)).tolist():
        edges = ((row, column, 0), (row, column + 1, 1), (row + 1, column, 0), (row, column, 1))
        for start, stop in _PAIRS[cases[row, column]]:
            following[edges[start]].append(edges[stop])
    found = []
    while following:
        edge = next(iter(following))
        chain = []
        while edge in following:
            chain.append(_crossing(image, edge, level))
            after = following[edge]
            step = after.pop()
            if not after:
                del following[edge]
            edge = step
        found.append(np.array(chain))
    return found


def _crossing(image: NDArray[np.float64], edge: _Edge, level: float) -> tuple[float, float]:
    row, column, down = edge
    first = image[row, column]
    second = image[row + 1, column] if down else image[row, column + 1]
    share = float((level - first) / (second - first))
    return (row + share, float(column)) if down else (float(row), column + share)


def _thin(line: Line, tolerance: float) -> Line:
    """Leave out points of a closed line that say nothing (Douglas and Peucker)."""
    if tolerance <= 0 or len(line) < 6:
        return line
    far = int(np.argmax(((line - line[0]) ** 2).sum(axis=1)))
    halves = (line[: far + 1], np.vstack([line[far:], line[:1]]))
    kept = [_simplified(half, tolerance)[:-1] for half in halves]
    thin: Line = np.vstack(kept)
    return thin if len(thin) >= 3 else line


def _simplified(line: Line, tolerance: float) -> Line:
    keep = np.zeros(len(line), dtype=bool)
    keep[[0, -1]] = True
    spans = [(0, len(line) - 1)]
    while spans:
        start, stop = spans.pop()
        if stop - start < 2:
            continue
        along = line[stop] - line[start]
        length = float(np.hypot(*along))
        away = line[start + 1 : stop] - line[start]
        off = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length if length else np.hypot(*away.T)
        furthest = int(np.argmax(off))
        if off[furthest] > tolerance:
            middle = start + 1 + furthest
            keep[middle] = True
            spans += [(start, middle), (middle, stop)]
    return line[keep]
