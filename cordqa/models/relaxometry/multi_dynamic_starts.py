"""Starts of a multi-dynamic multi-echo fit, and the choice between the solutions they lead to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.multi_dynamic_solver import Batch, Ranges, Timing, evaluate, refine

__all__ = ["Candidates", "Starts"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

#: Solutions whose cost is higher by that of a sample so many standard deviations off do not become the
#: best by what the floor of the noise changes.
_FLOOR_MATTERS = 5.0
_T1_POINTS, _B1_POINTS, _T2_POINTS = 80, 13, 32
#: Rows matched with the dictionary at once: their products stay in the cache.
_MATCHED = 512
_B1_GRID = (0.7, 1.3)
_B1_KNOWN = (0.4, 1.8)
#: A start of another number of inverted dynamics is tried where its cost is below this many times the best.
_RIVAL = 10.0
#: ... or below this share of the squared signal.
_ALWAYS = 3e-3


class Starts:
    """Dictionary of T1 and B1 by which the fit starts, for every sign that dynamics can have.

    Recovery grows with the delay, so that the dynamics left inverted are the first ones: their
    number alone says which signs a magnitude has lost.
    """

    def __init__(self, timing: Timing, ranges: Ranges, *, signed: bool, free_b1: bool) -> None:
        self.timing, self.ranges, self.signed, self.free_b1 = timing, ranges, signed, free_b1
        self.t2 = np.log(np.geomspace(*ranges.t2, _T2_POINTS))
        log_t1 = np.log(np.geomspace(*ranges.t1, _T1_POINTS))
        b1 = np.linspace(*(_B1_GRID if free_b1 else _B1_KNOWN), _B1_POINTS)
        self.pairs = np.stack([one.ravel() for one in np.meshgrid(log_t1, np.log(b1), indexing="ij")])
        flat = np.zeros((4, self.pairs.shape[1]))
        flat[1], flat[2], flat[3] = self.pairs[0], np.log(1e6), self.pairs[1]
        first = np.unique(timing.delay, return_index=True)[1]
        shapes = evaluate(flat, timing)[first]
        self.size = np.sqrt((shapes**2).sum(axis=0))
        self.atoms = (shapes / self.size).T.astype(np.float32)  # (k, n_delays)
        self.inverted = (shapes < 0).sum(axis=0)

    @property
    def numbers(self) -> list[int]:
        """Numbers of inverted dynamics that occur."""
        return [-1] if self.signed else [int(n) for n in np.unique(self.inverted)]

    def signs(self, number: int) -> Array:
        """Sign of every image with so many inverted dynamics; -1: they are known."""
        return np.where(self.timing.delay[:, None] < number, -1.0, 1.0)

    def decay(self, signal: Array) -> tuple[Array, Array]:
        """Best ln T2 of each voxel on a grid whatever the recovery, and the recovery that goes with it."""
        best, highest = np.zeros(signal.shape[1]), np.full(signal.shape[1], -1.0)
        for value in self.t2:
            _, explained = self._recovery(signal, np.full(1, value))
            better = explained > highest
            highest = np.where(better, explained, highest)
            best = np.where(better, value, best)
        return best, self._recovery(signal, best)[0]

    def _recovery(self, signal: Array, log_t2: Array) -> tuple[Array, Array]:
        """Amplitude of every dynamic (n_delays, m) at given T2, and the squared signal it explains."""
        decay = np.exp(-self.timing.echoes[:, None] * np.exp(-log_t2))
        groups = np.eye(self.timing.distinct_delays.size)[self.timing.delay].T
        size = np.maximum(groups @ decay**2, 1e-30)
        # One T2 for all voxels goes into the small matrix.
        single = decay.shape[1] == 1
        product = (groups * decay[:, 0]) @ signal if single else groups @ (signal * decay)
        amplitude = product / size
        return amplitude, (product * amplitude).sum(axis=0)

    def choose(self, signal: Array, log_b1: Array | None) -> list[tuple[int, Array, Mask]]:
        """Number of inverted dynamics, its start (4, m), and the voxels for which it is worth a fit."""
        log_t2, recovery = self.decay(signal)
        total = (recovery**2).sum(axis=0)
        single = np.ascontiguousarray(recovery.T, dtype=np.float32)
        found = []
        for number in self.numbers:
            atoms = np.flatnonzero(self.inverted == number) if number >= 0 else np.arange(self.size.size)
            best, amplitude = _match(single * self._dynamic_signs(number), self.atoms[atoms])
            place = atoms[best]
            start = np.empty((4, signal.shape[1]))
            start[0] = np.log(np.maximum(amplitude / self.size[place], 1e-6))
            start[1], start[2] = self.pairs[0, place], log_t2
            start[3] = self.pairs[1, place] if log_b1 is None else log_b1
            found.append((number, start, total - np.maximum(amplitude, 0.0) ** 2))
        limit = _RIVAL * np.min([left for _, _, left in found], axis=0) + _ALWAYS * total
        return [(number, start, np.asarray(left <= limit)) for number, start, left in found]

    def _dynamic_signs(self, number: int) -> NDArray[np.float32]:
        places = np.arange(self.timing.distinct_delays.size)
        return np.where(places < number, -1.0, 1.0).astype(np.float32)


def _match(recovery: NDArray[np.float32], atoms: NDArray[np.float32]) -> tuple[Index, Array]:
    """Atom (k, n) most like each row (m, n), and how much of it there is."""
    best, amplitude = np.empty(len(recovery), dtype=np.intp), np.empty(len(recovery))
    turned = np.ascontiguousarray(atoms.T)
    for first in range(0, len(recovery), _MATCHED):
        part = slice(first, first + _MATCHED)
        match = recovery[part] @ turned
        best[part] = match.argmax(axis=1)
        amplitude[part] = match[np.arange(len(match)), best[part]]
    return best, amplitude


@dataclass(slots=True)
class Candidates:
    """Solutions of every number of inverted dynamics: parameters (c, 4, m), cost (c, m)."""

    parameters: Array
    cost: Array
    converged: Mask
    held: Mask

    @classmethod
    def solve(cls, signal: Array, starts: Starts, log_b1: Array | None, floor: Array | None) -> Candidates:
        """Refine every start that is worth it."""
        chosen = starts.choose(signal, log_b1)
        shape = (len(chosen), signal.shape[1])
        nothing = np.full((shape[0], 4, shape[1]), np.nan)
        found = cls(nothing, np.full(shape, np.inf), np.zeros(shape, bool), np.zeros(shape, bool))
        for n, (number, start, worth) in enumerate(chosen):
            which = np.flatnonzero(worth)
            signed = signal[:, which] * starts.signs(number)
            found._take(n, which, _refined(start[:, which], signed, starts, log_b1))
        if floor is not None:
            found._over_floor(signal, starts, log_b1, floor)
        return found

    def _over_floor(self, signal: Array, starts: Starts, log_b1: Array | None, floor: Array) -> None:
        """Refine what may be the best once more, as mean magnitudes, and drop the rest."""
        worth = self.cost <= self.cost.min(axis=0) + (_FLOOR_MATTERS * floor) ** 2
        for n, rows in enumerate(worth):
            which = np.flatnonzero(rows & np.isfinite(self.cost[n]))
            self.cost[n, ~rows] = np.inf
            start = self.parameters[n][:, which]
            self._take(n, which, _refined(start, signal[:, which], starts, log_b1, floor[which]))

    def _take(self, n: int, which: Index, batch: Batch) -> None:
        self.parameters[n][:, which], self.cost[n, which] = batch.parameters, batch.cost
        self.converged[n, which], self.held[n, which] = batch.converged, batch.held

    def best(self) -> Batch:
        """Solution of lowest cost; of equal ones the first."""
        place = self.cost.argmin(axis=0)
        at = np.arange(place.size)
        return Batch(
            parameters=np.ascontiguousarray(self.parameters[place, :, at].T),
            cost=self.cost[place, at],
            converged=self.converged[place, at],
            held=self.held[place, at],
        )

    def rival(self, best: Batch, tolerance: Array) -> Array:
        """Distance (4, m) to the farthest solution whose cost is as good within a tolerance."""
        apart = np.abs(self.parameters - best.parameters)
        close = self.cost <= best.cost + tolerance
        return np.asarray(np.where(close[:, None], apart, 0.0).max(axis=0))


def _refined(
    start: Array, signal: Array, starts: Starts, log_b1: Array | None, floor: Array | None = None
) -> Batch:
    ranges = starts.ranges if log_b1 is None else _wide(starts.ranges)
    return refine(start, signal, starts.timing, ranges=ranges, free_b1=starts.free_b1, floor_sd=floor)


def _wide(ranges: Ranges) -> Ranges:
    """A map of B1 is taken as it is."""
    return Ranges(t1=ranges.t1, t2=ranges.t2, b1=(1e-3, 10.0))
