"""Poses of a planar layout of spheres: its symmetries, hypotheses, and their refinement.

Everything here is in millimetres along array axes.  A pose maps a point ``p`` of the layout's plane to
``matrix @ p + origin``; the target space has two dimensions (a slice) or three (a volume), and the code
is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.phantom.evidence import EvidenceMap, Peaks, refine_centres

__all__ = [
    "Match",
    "Pose",
    "find_symmetries",
    "fit_pose",
    "hypotheses",
    "polish",
    "refine",
    "score_hypotheses",
]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: Two layouts are told apart by position only if some sphere moves by more than this.
SYMMETRY_TOLERANCE_MM = 2.0
#: Pairs of spheres closer than this share of the largest distance orient a hypothesis too loosely.
_LONG_PAIR = 0.7
#: Distance from the pose at which a sphere's evidence counts 61 % (one standard deviation).
_DISCOUNT_MM = 2.0
#: Radii within which a sphere is sought around its predicted place, one per iteration.
_SEARCH_MM = (5.0, 4.0, 3.0, 3.0)
_ENOUGH_FOR_AFFINE = 8


@dataclass(frozen=True, slots=True)
class Pose:
    """Affine map from the layout's plane: ``matrix`` (n_dims, 2) and ``origin`` (n_dims,)."""

    matrix: Array
    origin: Array

    def apply(self, positions_mm: Array) -> Array:
        """Map layout positions, shape (n, 2), to shape (n, n_dims)."""
        return np.asarray(positions_mm @ self.matrix.T + self.origin)

    @property
    def stretches(self) -> Array:
        """Return the largest and the smallest magnification of the plane."""
        return np.asarray(np.linalg.svd(self.matrix, compute_uv=False), dtype=float)


@dataclass(frozen=True, slots=True)
class Match:
    """One refined pose and what speaks for it.

    ``found_mm`` holds the position of each sphere's own evidence peak (NaN where there is none),
    ``evidence`` its height (0 where there is none), ``distance_mm`` how far it lies from the pose.
    """

    pose: Pose
    found_mm: Array
    evidence: Array
    distance_mm: Array

    @property
    def residual_mm(self) -> float:
        """Return the root mean square distance between peaks and pose (infinite without peaks)."""
        near = self.distance_mm[np.isfinite(self.distance_mm)]
        return float(np.sqrt(np.mean(near**2))) if near.size else float("inf")

    @property
    def score(self) -> float:
        """Return the mean evidence over the layout, each sphere discounted by its distance."""
        discount = np.exp(-0.5 * (np.nan_to_num(self.distance_mm) / _DISCOUNT_MM) ** 2)
        return float(np.mean(self.evidence * discount))


def find_symmetries(positions_mm: Array, kinds: Index) -> tuple[tuple[Array, Index], ...]:
    """Find all rotations and mirrors that carry a layout onto itself.

    Parameters
    ----------
    positions_mm : ndarray, shape (n, 2)
        Sphere positions in the plane.
    kinds : ndarray of int, shape (n,)
        Spheres of different size do not replace each other.

    Returns
    -------
    tuple of (matrix, order)
        The 2 x 2 orthogonal ``matrix`` about the centroid, and ``order`` such that sphere ``j``
        lands on the place of sphere ``order[j]``.  The identity comes first.  Deviations up to
        2 mm count as symmetric: positions alone cannot then be trusted to tell the poses apart.
    """
    centred = positions_mm - positions_mm.mean(axis=0)
    radius = np.hypot(*centred.T)
    anchor = int(np.argmax(radius))
    found: list[tuple[Array, Index]] = []
    for target in np.flatnonzero(np.abs(radius - radius[anchor]) <= SYMMETRY_TOLERANCE_MM):
        for mirror in (False, True):
            matrix = _carry(centred[anchor], centred[target], mirror)
            order = _permutation(centred @ matrix.T, centred, kinds)
            if order is not None and not any(np.array_equal(order, known) for _, known in found):
                found.append((matrix, order))
    found.sort(key=lambda item: (not np.array_equal(item[1], np.arange(len(centred))), tuple(item[1])))
    return tuple(found)


def _carry(start: Array, end: Array, mirror: bool) -> Array:
    """Return the rotation, or the mirror, that carries the direction of one vector to another."""
    a, b = np.arctan2(start[1], start[0]), np.arctan2(end[1], end[0])
    if mirror:
        c, s = np.cos(a + b), np.sin(a + b)
        return np.array([[c, s], [s, -c]])
    c, s = np.cos(b - a), np.sin(b - a)
    return np.array([[c, -s], [s, c]])


def _permutation(moved: Array, fixed: Array, kinds: Index) -> Index | None:
    distance = np.linalg.norm(moved[:, None] - fixed[None], axis=2)
    order = distance.argmin(axis=1)
    close = distance[np.arange(len(moved)), order] <= SYMMETRY_TOLERANCE_MM
    one_to_one = len(set(order.tolist())) == len(order)
    return order if bool(close.all()) and one_to_one and bool((kinds[order] == kinds).all()) else None


def fit_pose(positions_mm: Array, points_mm: Array, weights: Array, *, affine: bool) -> Pose:
    """Fit a pose by weighted least squares: a similarity (Procrustes), or a full affine map.

    Parameters
    ----------
    positions_mm : ndarray, shape (n, 2)
    points_mm : ndarray, shape (n, n_dims)
    weights : ndarray, shape (n,)
        Not negative; at least three points not on one line must have weight.
    affine : bool
        Allow the plane to be stretched and sheared.
    """
    w = weights / weights.sum()
    mean_from, mean_to = w @ positions_mm, w @ points_mm
    start, end = positions_mm - mean_from, points_mm - mean_to
    if affine:
        root = np.sqrt(w)[:, None]
        solution, *_ = np.linalg.lstsq(root * start, root * end, rcond=None)
        matrix = np.asarray(solution.T, dtype=float)
    else:
        u, s, vt = np.linalg.svd((w[:, None] * end).T @ start, full_matrices=False)
        matrix = u @ vt * float(s.sum() / (w @ (start**2).sum(axis=1)))
    return Pose(matrix, mean_to - matrix @ mean_from)


def hypotheses(
    positions_mm: Array,
    kinds: Index,
    peaks: Sequence[Peaks],
    *,
    scale_tolerance: float,
    at_most: int = 40000,
) -> tuple[Array, Array]:
    """Propose poses from peaks whose mutual distances occur in the layout.

    In a slice two spheres fix a pose (and its mirror image); in a volume it takes three.  Pairs that
    the layout's own symmetry makes equal are used once, because the poses they propose put spheres
    at the same places.

    Returns
    -------
    matrices : ndarray, shape (n, n_dims, 2)
    origins : ndarray, shape (n, n_dims)
    """
    symmetries = find_symmetries(positions_mm, kinds)
    has_mirror = any(np.linalg.det(matrix) < 0 for matrix, _ in symmetries)
    matrices, origins = [], []
    count = 0
    for i, j in _distinct_pairs(positions_mm, [order for _, order in symmetries]):
        first, second = peaks[kinds[i]].positions_mm, peaks[kinds[j]].positions_mm
        if first.shape[-1] == 2:
            proposed = _from_pairs(positions_mm, (i, j), first, second, scale_tolerance, not has_mirror)
        else:
            k = _third(positions_mm, i, j)
            third = peaks[kinds[k]].positions_mm
            proposed = _from_triples(positions_mm, (i, j, k), (first, second, third), scale_tolerance)
        matrices.append(proposed[0])
        origins.append(proposed[1])
        count += len(proposed[1])
        if count > at_most:
            break
    n_dims = peaks[0].positions_mm.shape[-1]
    if not matrices:
        return np.zeros((0, n_dims, 2)), np.zeros((0, n_dims))
    return np.concatenate(matrices)[:at_most], np.concatenate(origins)[:at_most]


def _distinct_pairs(positions_mm: Array, orders: Sequence[Index]) -> list[tuple[int, int]]:
    """List ordered pairs (i < j) that are long and not the image of one another, longest first."""
    distance = np.linalg.norm(positions_mm[:, None] - positions_mm[None], axis=2)
    pairs: list[tuple[int, int]] = []
    known: set[tuple[int, int]] = set()
    ranked = sorted(
        ((i, j) for i in range(len(distance)) for j in range(i + 1, len(distance))),
        key=lambda pair: (-round(distance[pair], 3), pair),
    )
    for i, j in ranked:
        if distance[i, j] < _LONG_PAIR * distance.max() or (i, j) in known:
            continue
        pairs.append((i, j))
        for order in orders:
            a, b = sorted((int(order[i]), int(order[j])))
            known.add((a, b))
    return pairs


def _third(positions_mm: Array, i: int, j: int) -> int:
    """Return the sphere farthest from the line through two others."""
    along = positions_mm[j] - positions_mm[i]
    offset = positions_mm - positions_mm[i]
    return int(np.argmax(np.abs(along[0] * offset[:, 1] - along[1] * offset[:, 0])))


def _candidate_pairs(first: Array, second: Array, length: float, tolerance: float) -> tuple[Index, Index]:
    if not len(first) or not len(second):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance = np.linalg.norm(first[:, None] - second[None], axis=2)
    a, b = np.nonzero(np.abs(distance / length - 1) <= tolerance)
    return a, b


def _from_pairs(
    positions_mm: Array,
    pair: tuple[int, int],
    first: Array,
    second: Array,
    tolerance: float,
    both_hands: bool,
) -> tuple[Array, Array]:
    """Propose similarities of the plane from pairs of peaks."""
    i, j = pair
    span = complex(*(positions_mm[j] - positions_mm[i]))
    a, b = _candidate_pairs(first, second, abs(span), tolerance)
    delta = (second[b] - first[a]) @ np.array([1, 1j])
    matrices, origins = [], []
    for mirror in (False, True) if both_hands else (False,):
        factor = delta / (span.conjugate() if mirror else span)
        sign = -1.0 if mirror else 1.0
        matrix = np.stack([factor.real, -sign * factor.imag, factor.imag, sign * factor.real], axis=-1)
        matrix = matrix.reshape(-1, 2, 2)
        matrices.append(matrix)
        origins.append(first[a] - matrix @ positions_mm[i])
    return np.concatenate(matrices), np.concatenate(origins)


def _from_triples(
    positions_mm: Array,
    triple: tuple[int, int, int],
    points: tuple[Array, Array, Array],
    tolerance: float,
) -> tuple[Array, Array]:
    """Propose planes in space from three peaks (the third also decides which way round)."""
    i, j, k = triple
    first, second, third = points
    length = float(np.linalg.norm(positions_mm[j] - positions_mm[i]))
    a, b = _candidate_pairs(first, second, length, tolerance)
    to_third = [float(np.linalg.norm(positions_mm[k] - positions_mm[m])) for m in (i, j)]
    if not len(a) or not len(third):
        return np.zeros((0, 3, 2)), np.zeros((0, 3))
    far_a = np.linalg.norm(first[:, None] - third[None], axis=2)
    far_b = np.linalg.norm(second[:, None] - third[None], axis=2)
    fits = (np.abs(far_a / to_third[0] - 1) <= tolerance)[a]
    fits &= (np.abs(far_b / to_third[1] - 1) <= tolerance)[b]
    row, c = np.nonzero(fits)
    a, b = a[row], b[row]
    basis = np.stack([positions_mm[j] - positions_mm[i], positions_mm[k] - positions_mm[i]], axis=1)
    edges = np.stack([second[b] - first[a], third[c] - first[a]], axis=-1)
    u, s, vt = np.linalg.svd(edges @ np.linalg.inv(basis), full_matrices=False)
    matrix = (u @ vt) * s.mean(axis=-1)[:, None, None]
    points_mean = (first[a] + second[b] + third[c]) / 3
    return matrix, points_mean - matrix @ positions_mm[[i, j, k]].mean(axis=0)


def score_hypotheses(
    positions_mm: Array,
    kinds: Index,
    evidence: Sequence[EvidenceMap],
    proposed: tuple[Array, Array],
) -> Array:
    """Score proposed poses by mean evidence near the places where they put the spheres."""
    matrices, origins = proposed
    total = np.zeros(len(origins))
    for kind, field in enumerate(evidence):
        shape = np.array(field.nearby.shape)
        for j in np.flatnonzero(kinds == kind):
            place = np.rint((matrices @ positions_mm[j] + origins) / field.step_mm).astype(np.intp)
            inside = ((place >= 0) & (place < shape)).all(axis=1)
            place = np.clip(place, 0, shape - 1)
            total += np.where(inside, field.nearby[tuple(place.T)], 0.0)
    return total / len(kinds)


def refine(positions_mm: Array, kinds: Index, peaks: Sequence[Peaks], pose: Pose) -> Match:
    """Move a pose onto the evidence peaks near it: first a similarity, then an affine map.

    A peak counts for a sphere if it is the strongest within reach, distance considered.  The
    last pose is affine only where enough spheres were found to support it.
    """
    for iteration, radius in enumerate(_SEARCH_MM):
        found, heights = _snap(pose.apply(positions_mm), kinds, peaks, radius)
        seen = heights > 0
        if not _spans_plane(positions_mm[seen]):
            break
        affine = iteration >= 2 and int(np.count_nonzero(seen)) >= _ENOUGH_FOR_AFFINE
        pose = fit_pose(positions_mm[seen], found[seen], heights[seen], affine=affine)
    distance = np.linalg.norm(found - pose.apply(positions_mm), axis=1)
    return Match(pose, found, heights, distance)


def polish(
    positions_mm: Array,
    kinds: Index,
    radii_mm: Sequence[tuple[float, float]],
    evidence: Sequence[EvidenceMap],
    match: Match,
) -> Match:
    """Replace the peaks of a match by refined centres, and fit the pose to those."""
    seen = match.evidence > 0
    if not _spans_plane(positions_mm[seen]):
        return match
    found = match.found_mm.copy()
    places = match.pose.apply(positions_mm)
    for kind, radii in enumerate(radii_mm):
        members = seen & (kinds == kind)
        found[members] = refine_centres(evidence[kind], found[members], radii, places)
    affine = int(np.count_nonzero(seen)) >= _ENOUGH_FOR_AFFINE
    pose = fit_pose(positions_mm[seen], found[seen], match.evidence[seen], affine=affine)
    distance = np.linalg.norm(found - pose.apply(positions_mm), axis=1)
    return Match(pose, found, match.evidence, distance)


def _spans_plane(positions_mm: Array) -> bool:
    """Tell whether points fix a pose: at least three, and not near one line."""
    if len(positions_mm) < 3:
        return False
    spread = np.linalg.svd(positions_mm - positions_mm.mean(axis=0), compute_uv=False)
    return bool(spread[1] > 0.1 * spread[0])


def _snap(predicted: Array, kinds: Index, peaks: Sequence[Peaks], radius_mm: float) -> tuple[Array, Array]:
    """Find for each predicted place the best peak within a radius."""
    found = np.full(predicted.shape, np.nan)
    heights = np.zeros(len(predicted))
    for kind, group in enumerate(peaks):
        members = np.flatnonzero(kinds == kind)
        if not len(group.heights) or not len(members):
            continue
        distance = np.linalg.norm(predicted[members][:, None] - group.positions_mm[None], axis=2)
        merit = group.heights * np.exp(-0.5 * (distance / radius_mm) ** 2)
        merit[distance > radius_mm] = 0.0
        best = merit.argmax(axis=1)
        hit = merit[np.arange(len(members)), best] > 0
        found[members[hit]] = group.positions_mm[best[hit]]
        heights[members[hit]] = group.heights[best[hit]]
    return found, heights
