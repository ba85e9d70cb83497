"""Phase unwrapping along the most reliable paths.

Neighbouring voxels are edges of a graph; the quality of an edge is the product of phase coherence,
coherence of the phase gradient between two echoes, linearity of the phase in space and coherence
of magnitude (Dymerska et al. 2021, doi:10.1002/mrm.28563).  Growing a region along the best edge
first is Prim's algorithm, so its paths are those of a minimum spanning tree, which compiled
library code finds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Neighbours", "edge_quality", "find_neighbours", "unwrap_echoes", "unwrap_spatially", "wrap"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]

_TURN = 2 * math.pi
#: Least factor that a criterion can contribute: no single criterion forbids an edge.
_FLOOR = 0.1
#: Linearity of edges whose further neighbour lies outside the mask.
_AT_BORDER = 0.9


def wrap(phase: Array) -> Array:
    """Wrap to the interval from -pi to pi."""
    wrapped: Array = phase - _TURN * np.round(phase / _TURN)
    return wrapped


class Neighbours(NamedTuple):
    """Pairs of face neighbours inside a mask, as indices into the voxels of the mask.

    ``before`` continues the pair on the side of ``first``, ``after`` on that of ``second``; -1
    where the mask ends.
    """

    first: Index
    second: Index
    before: Index
    after: Index
    n_voxels: int


def find_neighbours(mask: Mask) -> Neighbours:
    """List the pairs of face neighbours of a mask of one to three dimensions."""
    number = np.full(mask.shape, -1, dtype=np.int64)
    number[mask] = np.arange(np.count_nonzero(mask))
    parts: list[tuple[Index, Index, Index, Index]] = []
    for axis in range(mask.ndim):
        n = np.moveaxis(number, axis, 0)
        edge = np.full((1, *n.shape[1:]), -1, dtype=np.int64)
        first, second = n[:-1], n[1:]
        before, after = np.concatenate([edge, n[:-2]]), np.concatenate([n[2:], edge])
        both = (first >= 0) & (second >= 0)
        parts.append((first[both], second[both], before[both], after[both]))
    first, second, before, after = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Neighbours(first, second, before, after, int(np.count_nonzero(mask)))


def edge_quality(
    phase: Array,
    neighbours: Neighbours,
    *,
    magnitude: Array | None = None,
    second_phase: Array | None = None,
    echo_ratio: float = 1.0,
) -> Array:
    """Quality of each pair of neighbours, 0 to 1.

    Parameters
    ----------
    phase : ndarray, shape (n_voxels,)
        Wrapped phase of the voxels of the mask, rad.
    neighbours : Neighbours
    magnitude : ndarray, shape (n_voxels,), optional
    second_phase : ndarray, shape (n_voxels,), optional
        Wrapped phase of a second echo.
    echo_ratio : float
        Echo time of ``phase`` over that of ``second_phase``.
    """
    i, j, before, after, _ = neighbours
    step = wrap(phase[i] - phase[j])
    quality = _lift(1 - np.abs(step) / math.pi)
    if second_phase is not None:
        other = wrap(second_phase[i] - second_phase[j])
        quality *= _lift(np.clip(1 - np.abs(step - other * echo_ratio), 0, None))
    quality *= _lift(_linear(phase, before, i, j) * _linear(phase, i, j, after))
    if magnitude is not None:
        low, high = np.minimum(magnitude[i], magnitude[j]), np.maximum(magnitude[i], magnitude[j])
        quality *= _lift(np.square(np.divide(low, high, out=np.zeros_like(low), where=high > 0)))
    return quality


def _lift(criterion: Array) -> Array:
    lifted: Array = _FLOOR + (1 - _FLOOR) * criterion
    return lifted


def _linear(phase: Array, left: Index, middle: Index, right: Index) -> Array:
    """Judge whether three voxels in a row lie on a line; voxels outside the mask cannot tell."""
    known = (left >= 0) & (right >= 0)
    bend = np.abs(wrap(phase[left] - 2 * phase[middle] + phase[right]))
    return np.where(known, np.clip(1 - bend / 2, 0, None), _AT_BORDER)


def unwrap_spatially(phase: Array, neighbours: Neighbours, quality: Array) -> tuple[Array, Index]:
    """Unwrap along the paths of highest quality.

    Parameters
    ----------
    phase : ndarray, shape (n_voxels,)
        Wrapped phase, rad.
    neighbours : Neighbours
    quality : ndarray, shape (n_pairs,)
        0 to 1; of :func:`edge_quality`.

    Returns
    -------
    unwrapped : ndarray, shape (n_voxels,)
        Each connected piece is right up to one multiple of 2 pi.
    piece : ndarray of int, shape (n_voxels,)
        Number of the connected piece of each voxel.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    n = neighbours.n_voxels
    # A cost of zero would read as no edge.
    cost = 1.0 + 1e-6 - np.clip(quality, 0, 1)
    graph = coo_array((cost, (neighbours.first, neighbours.second)), shape=(n, n)).tocsr()
    tree = minimum_spanning_tree(graph)
    _, piece = connected_components(tree, directed=False)
    parent = _parents(tree, piece)
    turns = np.round((phase[parent] - phase) / _TURN)
    return phase + _TURN * _sum_to_root(turns, parent), piece.astype(np.int64)


def _parents(tree: object, piece: NDArray[np.int32]) -> Index:
    """Parent of each voxel; a root is its own parent.  One extra node joins the pieces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    edges = coo_array(tree)
    n = piece.size
    _, root = np.unique(piece, return_index=True)
    rows = np.concatenate([edges.row, np.full(root.size, n)])
    columns = np.concatenate([edges.col, root])
    joined = coo_array((np.ones(rows.size), (rows, columns)), shape=(n + 1, n + 1)).tocsr()
    _, before = breadth_first_order(joined, n, directed=False)
    parent: Index = before[:n].astype(np.int64)
    parent[root] = root
    return parent


def _sum_to_root(value: Array, parent: Index) -> Array:
    """Sum a value along the path to the root, for all voxels at once by doubling the stride."""
    total, ahead = value.copy(), parent.copy()
    while True:
        further = ahead[ahead]
        total += total[ahead]
        if np.array_equal(further, ahead):
            return total
        ahead = further


def unwrap_echoes(
    phase: Array,
    magnitude: Array,
    echo_times_s: Array,
    mask: Mask,
) -> Array:
    """Unwrap a series of echoes: in space once, then each echo by what its predecessors predict.

    The first echo is unwrapped in space.  A magnitude-weighted line through the echoes so far
    predicts the next one, which takes the multiple of 2 pi closest to the prediction.

    Parameters
    ----------
    phase, magnitude : ndarray, shape (x, y, z, n_echoes)
        Phase in rad, wrapped.
    echo_times_s : ndarray, shape (n_echoes,)
        Increasing, s.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray, shape (n_voxels, n_echoes)
        Unwrapped phase of the voxels of the mask, in their array order, rad; NaN where any echo
        of a voxel is not a number.
    """
    wrapped = np.array(phase[mask], dtype=float)
    weight = np.array(magnitude[mask], dtype=float)
    lost = ~(np.isfinite(wrapped) & np.isfinite(weight)).all(axis=1)
    wrapped[lost], weight[lost] = 0.0, 0.0
    unwrapped = _unwrap_all(wrapped, weight, echo_times_s, mask)
    unwrapped[lost] = np.nan
    return unwrapped


def _unwrap_all(wrapped: Array, weight: Array, echo_times_s: Array, mask: Mask) -> Array:
    neighbours = find_neighbours(mask)
    if echo_times_s.size == 1:
        quality = edge_quality(wrapped[:, 0], neighbours, magnitude=weight[:, 0])
        return _centre_pieces(*unwrap_spatially(wrapped[:, 0], neighbours, quality))[:, None]
    difference = _unwrap_difference(wrapped, weight, echo_times_s, neighbours)
    return _follow(wrapped, weight, echo_times_s, difference)


def _unwrap_difference(wrapped: Array, weight: Array, times: Array, neighbours: Neighbours) -> Array:
    """Unwrap the phase between the first two echoes: it has no offset and the fewest wraps."""
    step = wrap(wrapped[:, 1] - wrapped[:, 0])
    quality = edge_quality(
        wrapped[:, 0],
        neighbours,
        magnitude=weight[:, 0],
        second_phase=wrapped[:, 1],
        echo_ratio=float(times[0] / times[1]),
    ) * edge_quality(step, neighbours)
    return _centre_pieces(*unwrap_spatially(step, neighbours, quality))


def _centre_pieces(unwrapped: Array, piece: Index) -> Array:
    """Take of each connected piece the multiple of 2 pi that brings its median closest to zero."""
    order = np.argsort(piece, kind="stable")
    starts = np.flatnonzero(np.diff(piece[order], prepend=-1))
    result = unwrapped.copy()
    for members in np.split(order, starts[1:]):
        result[members] -= _TURN * np.round(np.median(unwrapped[members]) / _TURN)
    return result


def _follow(wrapped: Array, weight: Array, times: Array, difference: Array) -> Array:
    unwrapped = np.empty_like(wrapped)
    slope = difference / (times[1] - times[0])
    unwrapped[:, 0] = wrapped[:, 0] + _TURN * np.round((slope * times[0] - wrapped[:, 0]) / _TURN)
    unwrapped[:, 1] = unwrapped[:, 0] + difference
    power = weight**2
    for echo in range(2, times.size):
        w, t = power[:, :echo], times[:echo]
        total = np.maximum(w.sum(1), np.finfo(float).tiny)
        centre = (w @ t) / total
        mean = (w * unwrapped[:, :echo]).sum(1) / total
        spread = np.maximum((w * np.square(t - centre[:, None])).sum(1), np.finfo(float).tiny)
        rate = (w * (t - centre[:, None]) * unwrapped[:, :echo]).sum(1) / spread
        expected = mean + rate * (times[echo] - centre)
        unwrapped[:, echo] = wrapped[:, echo] + _TURN * np.round((expected - wrapped[:, echo]) / _TURN)
    return unwrapped
