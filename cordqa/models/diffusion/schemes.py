"""Design of a gradient scheme: shells, shapes, order and scan time.

Directions are spread by electrostatic repulsion over each shell and over all of them, signs fill the
whole sphere, volumes are ordered so that a scan cut short is still well spread and no gradient coil
works alone, and b = 0 volumes are interleaved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.gradient_shells import DEFAULT_B0_LIMIT
from cordqa.models.diffusion.gradients import LINEAR, PLANAR, SPHERICAL, GradientTable
from cordqa.models.diffusion.scheme_energy import MAX_DIRECTIONS, spread_shells
from cordqa.models.diffusion.scheme_order import balance_signs, order_volumes, place_unweighted
from cordqa.models.diffusion.scheme_time import Budget, ScanTiming

__all__ = ["SchemeDesign", "ShellRequest", "default_b0_count", "design_scheme", "fill_budget"]

Array = NDArray[np.float64]

#: One volume without weighting for so many with it.  At b = 800 s/mm2 the mean diffusivity is then 1.2
#: times less precise than with the best split, which would take a third of the scan.
WEIGHTED_PER_B0 = 8
#: Fewest directions of a shell that is filled from a budget: six spread directions average a
#: powder exactly up to the fourth order.
FEWEST_DIRECTIONS = 6
_LOWEST_B, _HIGHEST_B = 50.0, 1e5
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRequest:
    """One shell to be designed.

    Attributes
    ----------
    b_s_mm2 : float
        Trace of the b-tensor, s/mm2; for double diffusion encoding the sum of both pulses.
    n : int, optional
        Volumes; filled from the time budget otherwise.
    b_delta : float
        Shape, -1/2 (planar) to 1 (linear); 0 is spherical and has no direction.
    perpendicular_pulses : bool
        A planar volume made of two pulses at right angles: their directions are listed.
    """

    b_s_mm2: float
    n: int | None = None
    b_delta: float = LINEAR
    perpendicular_pulses: bool = False

    def __post_init__(self) -> None:
        """Refuse what no scanner can do."""
        if not _LOWEST_B < self.b_s_mm2 <= _HIGHEST_B:
            raise ConfigError(
                "the b-value of a shell is out of range",
                found=f"{self.b_s_mm2:g}",
                expected=f"more than {_LOWEST_B:g} and at most {_HIGHEST_B:g} s/mm2",
                todo="b-values are in s/mm2 (1000, not 1)" if 0 < self.b_s_mm2 < 20 else "",
            )
        if self.n is not None and not 1 <= self.n <= MAX_DIRECTIONS:
            raise ConfigError("a shell needs 1 to 1024 volumes", found=str(self.n))
        if not -0.5 <= self.b_delta <= 1:
            raise ConfigError("b_delta is out of range", found=f"{self.b_delta:g}", expected="-0.5 to 1")
        if self.perpendicular_pulses and self.b_delta != PLANAR:
            raise ConfigError("two pulses at right angles are a planar encoding", found=f"{self.b_delta:g}")

    @property
    def has_directions(self) -> bool:
        """Whether its volumes have a symmetry axis."""
        return self.b_delta != SPHERICAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeDesign:
    """A scheme and what is known about it.

    Attributes
    ----------
    table : GradientTable
        In the order of acquisition; directions for an image whose array axes are the scanner's.
    shells : tuple of ShellRequest
        With the numbers of volumes that were chosen.
    shell_of_volume : ndarray of int
        Index into ``shells``; -1 for b = 0.
    n_b0 : int
    seed : int
    pulse_pairs : ndarray, shape (n, 2, 3)
        Directions of both pulses of double diffusion encoding; NaN for other volumes.
    """

    table: GradientTable
    shells: tuple[ShellRequest, ...]
    shell_of_volume: NDArray[np.intp]
    n_b0: int
    seed: int
    pulse_pairs: Array = field(default_factory=lambda: np.zeros((0, 2, 3)))


def default_b0_count(n_weighted: int) -> int:
    """Volumes without weighting that go with so many weighted ones: one for eight, at least two."""
    return max(2, math.ceil(n_weighted / WEIGHTED_PER_B0))


def design_scheme(
    shells: Sequence[ShellRequest], *, n_b0: int | None = None, seed: int = 0, starts: int | None = None
) -> SchemeDesign:
    """Design a scheme.

    Parameters
    ----------
    shells : sequence of ShellRequest
        Each with its number of volumes (see :func:`fill_budget`).
    n_b0 : int, optional
        Volumes without weighting; one for eight weighted ones otherwise.
    seed : int
        The same seed gives the same scheme.
    starts : int, optional
        Descents of the search for directions, see :func:`spread_shells`.

    Raises
    ------
    ConfigError
        If a number is out of range, a shell has no number, or two shells are the same.
    """
    requests = tuple(shells)
    _check_requests(requests, n_b0)
    directions, shell = _spread(requests, seed, starts)
    b = np.array([requests[i].b_s_mm2 for i in shell])
    delta = np.array([requests[i].b_delta for i in shell])
    order = order_volumes(directions, shell, b)
    count = default_b0_count(len(shell)) if n_b0 is None else n_b0
    weighted = ~place_unweighted(len(shell), count)
    table = GradientTable(
        b_values_s_mm2=_fill(weighted, b[order], 0.0),
        directions=_fill(weighted, directions[order], 0.0),
        b_delta=_fill(weighted, delta[order], SPHERICAL if np.any(delta != LINEAR) else LINEAR),
        b0_limit_s_mm2=DEFAULT_B0_LIMIT,
    )
    number = np.full(len(table), -1, dtype=np.intp)
    number[weighted] = shell[order]
    pairs = _pulse_pairs(table, number, requests)
    return SchemeDesign(
        table=table, shells=requests, shell_of_volume=number, n_b0=count, seed=seed, pulse_pairs=pairs
    )


def _check_requests(requests: tuple[ShellRequest, ...], n_b0: int | None) -> None:
    if not requests:
        raise ConfigError("a scheme needs at least one shell")
    if any(one.n is None for one in requests):
        raise ConfigError("the number of volumes of a shell is missing", todo="give it, or a time budget")
    keys = [(one.b_s_mm2, one.b_delta) for one in requests]
    if len(set(keys)) < len(keys):
        raise ConfigError("two shells have the same b-value and shape", todo="join them")
    total = sum(one.n or 0 for one in requests)
    if total > MAX_DIRECTIONS:
        raise ConfigError("too many volumes", found=str(total), expected=f"at most {MAX_DIRECTIONS}")
    if n_b0 is not None and not 0 <= n_b0 <= MAX_DIRECTIONS:
        raise ConfigError("the number of b = 0 volumes is out of range", found=str(n_b0))


def _spread(
    requests: tuple[ShellRequest, ...], seed: int, starts: int | None
) -> tuple[Array, NDArray[np.intp]]:
    """Directions of all weighted volumes (zero for spherical ones) and the number of their shell."""
    shell = np.repeat(np.arange(len(requests)), [one.n or 0 for one in requests]).astype(np.intp)
    directed = [i for i, one in enumerate(requests) if one.has_directions]
    directions = np.zeros((len(shell), 3))
    if directed:
        counts = [requests[i].n or 0 for i in directed]
        found = spread_shells(counts, seed=seed, starts=starts)
        where = np.isin(shell, directed)
        directions[where] = balance_signs(found.directions, shell[where], seed=seed)
    return directions, shell


def _fill(weighted: NDArray[np.bool_], values: Array, blank: float) -> Array:
    full = np.full((len(weighted), *values.shape[1:]), blank)
    full[weighted] = values
    return full


def _pulse_pairs(table: GradientTable, number: NDArray[np.intp], requests: tuple[ShellRequest, ...]) -> Array:
    """Two directions at right angles in the plane of each perpendicular volume, each pair turned further."""
    pairs = np.full((len(table), 2, 3), np.nan)
    planar = [i for i, one in enumerate(requests) if one.perpendicular_pulses]
    for turn, volume in enumerate(np.flatnonzero(np.isin(number, planar))):
        normal = table.directions[volume]
        helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
        first = np.cross(normal, helper)
        first /= np.linalg.norm(first)
        second = np.cross(normal, first)
        angle = turn * _GOLDEN_ANGLE
        pairs[volume, 0] = math.cos(angle) * first + math.sin(angle) * second
        pairs[volume, 1] = np.cross(normal, pairs[volume, 0])
    return pairs


def fill_budget(
    shells: Sequence[ShellRequest], timing: ScanTiming, budget: Budget, *, n_b0: int | None = None
) -> tuple[ShellRequest, ...]:
    """Give volumes to the shells that have no number, as many as the time holds.

    They share what is left in proportion to their b-values (where the signal is weaker more volumes
    are needed), with at least six each.

    Raises
    ------
    ConfigError
        If what is asked for does not fit; the message has the sums.
    """
    requests = list(shells)
    room = timing.volumes_within(budget.left_s)
    fixed = sum(one.n for one in requests if one.n is not None)
    open_shells = [i for i, one in enumerate(requests) if one.n is None]
    weighted = _most_weighted(room, n_b0) if open_shells else fixed
    counts = _share(weighted - fixed, [requests[i].b_s_mm2 for i in open_shells])
    short = open_shells and min(counts) < FEWEST_DIRECTIONS
    total = fixed + sum(counts)
    volumes = total + (default_b0_count(total) if n_b0 is None else n_b0)
    if short or volumes > room:
        needed = max(volumes, fixed + FEWEST_DIRECTIONS * len(open_shells) + (n_b0 or 0))
        raise ConfigError(
            "the scheme does not fit into the time",
            found="; ".join(timing.arithmetic(needed)),
            expected=f"at most {room} volumes in {budget.words}",
            todo="fewer volumes or averages, a multiband factor of 2 or 3, or a larger budget",
        )
    for index, count in zip(open_shells, counts, strict=True):
        requests[index] = replace(requests[index], n=count)
    return tuple(requests)


def _most_weighted(room: int, n_b0: int | None) -> int:
    """Largest number of weighted volumes that leaves room for those without."""
    if n_b0 is not None:
        return min(room - n_b0, MAX_DIRECTIONS)
    weighted = min(room, MAX_DIRECTIONS)
    while weighted > 0 and weighted + default_b0_count(weighted) > room:
        weighted -= 1
    return weighted


def _share(total: int, weights: Sequence[float]) -> list[int]:
    """Share whole numbers in proportion to weights, six for each first where there are so many."""
    total, n = max(total, 0), len(weights)
    if not n:
        return []
    counts = [min(FEWEST_DIRECTIONS, total // n)] * n
    wanted = [total * weight / sum(weights) for weight in weights]
    for _ in range(total - sum(counts)):
        neediest = max(range(n), key=lambda i: (wanted[i] - counts[i], weights[i]))
        counts[neediest] += 1
    return counts
