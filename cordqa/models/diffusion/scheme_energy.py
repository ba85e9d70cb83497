"""Directions spread over the sphere: electrostatic energy and its minimum.

Every direction stands for a pair of equal charges at both of its ends, because diffusion looks the
same along ``n`` and ``-n``: ``E = sum over pairs of 1/|a - b| + 1/|a + b|`` (Jones et al. 1999,
doi:10.1002/(SICI)1522-2594(199909)42:3<515::AID-MRM14>3.0.CO;2-Q).  Several shells share one
energy: that of each shell and that of all their directions together (Caruyer et al. 2013,
doi:10.1002/mrm.24736).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.scheme_optima import BEST_ENERGIES

__all__ = [
    "MAX_DIRECTIONS",
    "Spread",
    "best_energy",
    "closest_angle_deg",
    "electrostatic_energy",
    "spread_directions",
    "spread_shells",
    "unique_directions",
]

Array = NDArray[np.float64]
Evaluate = Callable[[Array], tuple[float, Array]]

#: Beyond it the search would take minutes, and no diffusion scan has so many.
MAX_DIRECTIONS = 1024
#: Relative distance from the best known energy at which the search is content.
CLOSE_ENOUGH = 1e-6
#: How many shells and their union weigh: half and half (the value of Caruyer et al.).
_UNION_WEIGHT = 0.5
#: Descents: up to a known energy, for several shells, for very many directions.
_SEARCH, _SEVERAL, _FEW = 300, 8, 4
_BLIND, _MOVED = 12, 3
_MEMORY = 8  # of the quasi-Newton descent
_MAX_STEPS = 3000
_TINY = 1e-24
#: Directions closer than this were meant to be one.
_SAME_DEGREES = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Directions that the search found.

    Attributes
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors; shells follow each other.
    energy : float
        Value of the energy that was minimised.
    starts : int
        Descents that were made.
    ratio : float
        Energy over the best known one; for several shells that of the worst shell.
    """

    directions: Array
    energy: float
    starts: int
    ratio: float


def electrostatic_energy(directions: ArrayLike) -> float:
    """Energy of directions with charges at both ends.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        Need not be of unit length; only their directions count.

    Returns
    -------
    float
        Infinite where two directions are parallel or opposite; 0 for one direction.
    """
    unit = _unit(np.asarray(directions, dtype=float))
    c = np.abs((unit @ unit.T)[np.triu_indices(len(unit), 1)])
    with np.errstate(divide="ignore"):
        near = 1 / np.sqrt(np.clip(2 - 2 * c, 0, None))
    return float(np.sum(near + 1 / np.sqrt(2 + 2 * c)))


def closest_angle_deg(directions: ArrayLike) -> float:
    """Smallest angle between two axes in degrees (0 to 90); NaN for fewer than two."""
    unit = _unit(np.asarray(directions, dtype=float))
    if len(unit) < 2:
        return float("nan")
    first, second = np.triu_indices(len(unit), 1)
    # The cross product keeps its digits where the cosine has lost them.
    sine = np.linalg.norm(np.cross(unit[first], unit[second]), axis=1)
    cosine = np.abs(np.sum(unit[first] * unit[second], axis=1))
    return float(np.degrees(np.arctan2(sine, cosine).min()))


def unique_directions(directions: ArrayLike) -> tuple[Array, NDArray[np.intp]]:
    """Directions that differ, and how often each was measured; ``n`` and ``-n`` are the same.

    Returns
    -------
    directions : ndarray, shape (k, 3)
        The first of each group that lies within one degree.
    counts : ndarray of int, shape (k,)
    """
    unit = np.asarray(directions, dtype=float)
    kept: list[int] = []
    counts: list[int] = []
    for index, direction in enumerate(unit):
        sine = np.linalg.norm(np.cross(unit[kept], direction), axis=1) if kept else np.array([np.inf])
        nearest = int(np.argmin(sine))
        if sine[nearest] < math.sin(math.radians(_SAME_DEGREES)):
            counts[nearest] += 1
        else:
            kept.append(index)
            counts.append(1)
    return unit[kept], np.array(counts, dtype=np.intp)


def best_energy(n: int) -> tuple[float, bool]:
    """Lowest energy of n directions.

    Returns
    -------
    energy : float
        Best value found in long searches up to the largest number that was searched; beyond it an
        expansion in the number of charges that follows the searched values, from 40 directions upward,
        within 1e-4.
    searched : bool
        Whether it comes from a search.

    Raises
    ------
    ConfigError
        If n is less than one.
    """
    if n < 1:
        raise ConfigError("needs at least one direction", found=str(n))
    if n in BEST_ENERGIES:
        return BEST_ENERGIES[n], True
    if n < min(BEST_ENERGIES):
        return (0.0, 2**0.5, 3 * 2**0.5)[n - 1], True  # at right angles to each other
    return _expansion(n), False


def _expansion(n: float) -> float:
    """Energy of 2n charges on a sphere, ``N^2/2 - a N^(3/2) + c N^(1/2)``, less that of each pair.

    The two coefficients are fitted to the searched energies from 40 directions upward.
    """
    charges = 2.0 * n
    whole = charges**2 / 2 - 0.552316 * charges**1.5 + 0.102107 * charges**0.5
    return float(whole - n / 2) / 2


def spread_directions(n: int, *, seed: int = 0, starts: int | None = None) -> Spread:
    """Spread n directions as far from each other as they go.

    Descends from random starts, and later also from the best minimum with three directions moved at
    random, until the best known energy is reached.

    Parameters
    ----------
    n : int
        Directions, 1 to 1024.
    seed : int
        The same seed gives the same directions.
    starts : int, optional
        Descents at most; 300 where the best energy is known, 4 for larger numbers.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> round(spread_directions(6).energy, 3)
    23.083
    """
    return spread_shells((n,), seed=seed, starts=starts)


def spread_shells(
    counts: Sequence[int],
    *,
    seed: int = 0,
    starts: int | None = None,
    union_weight: float = _UNION_WEIGHT,
) -> Spread:
    """Spread the directions of several shells over each shell and over all shells together.

    Parameters
    ----------
    counts : sequence of int
        Directions of each shell.
    seed : int
        As in :func:`spread_directions`.
    starts : int, optional
        Descents at most; 8 for several shells, whose best energy is not known.
    union_weight : float
        Weight of the energy of all directions together, 0 to 1; the rest is shared by the shells.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    total = _check_counts(counts, starts, union_weight)
    optimum, searched = best_energy(total)
    target = optimum * (1 + CLOSE_ENOUGH) if len(counts) == 1 and searched else 0.0
    descents = starts or (_SEARCH if target else _FEW if total > max(BEST_ENERGIES) else _SEVERAL)
    evaluate = _energy_of(_pair_weights(counts, union_weight))
    generator = np.random.default_rng(seed)
    best, lowest = _descend(generator.normal(size=(total, 3)), evaluate)
    made = 1
    while made < descents and lowest > target:
        found, energy = _descend(_next_start(best, made, generator), evaluate)
        made += 1
        if energy < lowest:
            best, lowest = found, energy
    unit = _unit(best)
    return Spread(unit, lowest, made, _worst_ratio(unit, counts))


def _next_start(best: Array, made: int, generator: np.random.Generator) -> Array:
    """Somewhere else, or, after a few descents and in turn, close to the best minimum so far."""
    if made < _BLIND or made % 2 == 0 or len(best) <= _MOVED:
        return generator.normal(size=best.shape)
    start = _unit(best)
    # Moving neighbours lets them change places, which small steps do not.
    neighbours = np.argsort(-np.abs(start @ generator.normal(size=3)))[:_MOVED]
    start[neighbours] = generator.normal(size=(_MOVED, 3))
    return start


def _check_counts(counts: Sequence[int], starts: int | None, union_weight: float) -> int:
    total = sum(counts)
    if not counts or min(counts) < 1 or total > MAX_DIRECTIONS:
        raise ConfigError(
            "cannot spread so many directions",
            found=" + ".join(str(n) for n in counts) or "none",
            expected=f"1 to {MAX_DIRECTIONS} in all, and at least one in each shell",
        )
    if (starts is not None and starts < 1) or not 0 <= union_weight <= 1:
        raise ConfigError(
            "a setting of the search is out of range",
            found=f"{starts} starts, weight {union_weight:g}",
            expected="at least 1 start, weight 0 to 1",
        )
    return total


def _pair_weights(counts: Sequence[int], union_weight: float) -> Array:
    """Weight of each pair, scaled so that one shell alone has weight 1 everywhere."""
    shell = np.repeat(np.arange(len(counts)), counts)
    size = np.asarray(counts, dtype=float)[shell]
    same = shell[:, None] == shell[None, :]
    if len(counts) == 1:
        return np.ones((len(shell), len(shell)))
    total = float(len(shell))
    each = (1 - union_weight) / len(counts) * (total / size[:, None]) ** 2
    return np.asarray(np.where(same, each + union_weight, union_weight), dtype=float)


def _energy_of(weights: Array) -> Evaluate:
    n = len(weights)
    work = weights.copy()
    np.fill_diagonal(work, 0.0)

    def evaluate(x: Array) -> tuple[float, Array]:
        length = np.sqrt(np.einsum("ij,ij->i", x, x))
        unit = x / length[:, None]
        cosine = unit @ unit.T
        cosine.flat[:: n + 1] = 0.0
        near = 1 / np.sqrt(np.maximum(2 - 2 * cosine, _TINY))
        far = 1 / np.sqrt(np.maximum(2 + 2 * cosine, _TINY))
        energy = 0.5 * float(np.vdot(work, near + far))
        pull = (work * (near * near * near - far * far * far)) @ unit
        pull -= unit * np.einsum("ij,ij->i", unit, pull)[:, None]
        return energy, pull / length[:, None]

    return evaluate


def _descend(start: Array, evaluate: Evaluate) -> tuple[Array, float]:
    """Limited-memory quasi-Newton descent (Nocedal 1980) with a backtracking line search.

    Written here because importing an optimiser costs more than the whole search.
    """
    x = _unit(start)
    energy, gradient = evaluate(x)
    steps: list[tuple[Array, Array, float]] = []
    quiet = 0
    still = 1e-13 if len(x) <= max(BEST_ENERGIES) else 1e-9  # of many directions each step is dear
    for _ in range(_MAX_STEPS):
        direction = -_inverse_hessian(gradient, steps)
        slope = float(np.vdot(gradient, direction))
        if slope >= 0:  # rounding has spoilt the memory
            steps.clear()
            direction, slope = -gradient, -float(np.vdot(gradient, gradient))
        if -slope <= 1e-15 * energy:
            break
        size = 1.0 if steps else 0.1 / float(np.abs(gradient).max())
        moved = _line_search(x, energy, direction, slope, size, evaluate)
        if moved is None:
            if not steps:
                break
            steps.clear()
            continue
        new_x, new_energy, new_gradient = moved
        _remember(steps, new_x - x, new_gradient - gradient)
        quiet = quiet + 1 if energy - new_energy <= still * energy else 0
        x, energy, gradient = new_x, new_energy, new_gradient
        if quiet >= 3:
            break
    return x, energy


def _inverse_hessian(gradient: Array, steps: list[tuple[Array, Array, float]]) -> Array:
    """Two-loop recursion."""
    q = gradient.copy()
    shares = []
    for s, y, rho in reversed(steps):
        share = rho * float(np.vdot(s, q))
        q -= share * y
        shares.append(share)
    if steps:
        _, y, rho = steps[-1]
        q /= rho * float(np.vdot(y, y))
    for (s, y, rho), share in zip(steps, reversed(shares), strict=True):
        q += (share - rho * float(np.vdot(y, q))) * s
    return q


def _line_search(
    x: Array, energy: float, direction: Array, slope: float, size: float, evaluate: Evaluate
) -> tuple[Array, float, Array] | None:
    # A step of more than half a radian jumps over neighbours.
    size = min(size, 0.5 / max(float(np.abs(direction).max()), 1e-300))
    for _ in range(30):
        moved = x + size * direction
        new_energy, new_gradient = evaluate(moved)
        if new_energy <= energy + 1e-4 * size * slope:
            return moved, new_energy, new_gradient
        size *= 0.5
    return None


def _remember(steps: list[tuple[Array, Array, float]], s: Array, y: Array) -> None:
    curvature = float(np.vdot(s, y))
    if curvature > 1e-14 * float(np.vdot(y, y)):
        steps.append((s, y, 1 / curvature))
        del steps[:-_MEMORY]


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _worst_ratio(unit: Array, counts: Sequence[int]) -> float:
    ends = np.cumsum(counts)
    ratios = [
        electrostatic_energy(unit[end - n : end]) / best_energy(n)[0]
        for n, end in zip(counts, ends, strict=True)
        if n > 1
    ]
    return float(max(ratios, default=1.0))
