"""Voxels of a multi-dynamic multi-echo scan: starts, missing images, standard errors, reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.relaxometry.multi_dynamic_solver import (
    Batch,
    Ranges,
    Timing,
    count_unknown,
    determines,
    evaluate,
    normal_matrix,
    refine,
)

__all__ = ["fit_voxels"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

NO_SIGNAL = "no signal above the noise"
MISSING = "too few usable images"
OPEN = "the usable images do not determine the parameters"
IN_NOISE = "only one echo time stands above the noise: T2 is not determined"
NEGATIVE = "a magnitude is negative"
NO_B1 = "no B1"
OUTSIDE = "outside the range that was searched"
NOT_CONVERGED = "the fit did not converge"
UNCERTAIN = "not determined: the standard error exceeds the value"
AMBIGUOUS = "two T1 explain these magnitudes equally well: their signs are lost"
INCOMPLETE = "fitted without some of the images"
_MODEL = "multi-dynamic multi-echo equation, least squares in logarithms from several T1"
#: Voxels solved together: small enough for the cache.
_BLOCK = 16_384
_T1_POINTS, _B1_POINTS, _T2_POINTS = 80, 13, 32
#: Rows matched with the dictionary at once: their products stay in the cache.
_MATCHED = 512
_B1_GRID = (0.7, 1.3)
_B1_KNOWN = (0.4, 1.8)
#: Signals below this many noise standard deviations in every image carry nothing.
_DETECTION = 3.0
_ECHOES = 2
#: A start of another number of inverted dynamics is tried where its cost is below this many times the best.
_RIVAL = 10.0
#: ... or below this share of the squared signal.
_ALWAYS = 3e-3
#: Solutions whose costs differ by less than that of one sample this many standard deviations off are equal,
_EQUAL_SD = 2.0
#: and so are those that differ by this share of the squared signal: rounding.
_ROUNDING = 1e-12
#: Two equal solutions whose T1 differ by more than this, in the logarithm, leave it open.
_AMBIGUOUS = 0.2


@dataclass(slots=True)
class _Store:
    """Flat results, filled block by block."""

    parameters: Array  # (4, m)
    errors: Array  # (4, m), of the logarithms
    codes: NDArray[np.uint8]
    texts: tuple[str, ...]

    @classmethod
    def make(cls, count: int) -> _Store:
        texts = (
            "",
            MISSING,
            NO_SIGNAL,
            NEGATIVE,
            NO_B1,
            OPEN,
            OUTSIDE,
            NOT_CONVERGED,
            UNCERTAIN,
            AMBIGUOUS,
            IN_NOISE,
        )
        nothing = np.full((4, count), np.nan)
        return cls(nothing, nothing.copy(), np.zeros(count, np.uint8), texts)

    def refuse(self, where: Mask, text: str) -> None:
        self.codes[where & (self.codes == 0)] = self.texts.index(text)


def fit_voxels(
    signal: Array,
    timing: Timing,
    *,
    ranges: Ranges,
    signed: bool,
    b1: Array | None,
    noise_sd: Array | None,
    water_signal: float | None,
    shape: tuple[int, ...],
) -> FittedMaps:
    """Fit a list of voxels (m, n_images) and return maps of the given shape."""
    used = np.isfinite(signal)
    store = _Store.make(len(signal))
    _refuse(store, signal, used, signed, b1, noise_sd)
    if noise_sd is not None:
        # A magnitude that is all floor would pass for a slow decay; of signed values those would be
        # kept whose noise looks like one.
        store.refuse(_in_noise(signal, used, timing, noise_sd), IN_NOISE)
    for rows, images in _patterns(used, store.codes == 0):
        part = timing.take(images)
        if not determines(part, free_b1=b1 is None):
            store.refuse(_mark(rows, len(signal)), OPEN)
            continue
        starts = _Starts(part, ranges, signed=signed, free_b1=b1 is None)
        for first in range(0, rows.size, _BLOCK):
            some = rows[first : first + _BLOCK]
            _fit_block(store, some, signal[np.ix_(some, images)], starts, b1, noise_sd)
    return _maps(store, used, shape, free_b1=b1 is None, water_signal=water_signal)


def _mark(rows: Index, count: int) -> Mask:
    where = np.zeros(count, dtype=bool)
    where[rows] = True
    return where


def _refuse(
    store: _Store, signal: Array, used: Mask, signed: bool, b1: Array | None, noise_sd: Array | None
) -> None:
    """Say which voxels cannot be fitted at all."""
    unknown = count_unknown(free_b1=b1 is None)
    store.refuse(used.sum(axis=1) < unknown, MISSING)
    largest = np.abs(np.where(used, signal, 0.0)).max(axis=1, initial=0.0)
    level = 0.0 if noise_sd is None else _DETECTION * np.nan_to_num(noise_sd)
    store.refuse(~(largest > level), NO_SIGNAL)
    if not signed:
        below: Mask = np.any(np.where(used, signal, 0.0) < 0, axis=1)
        store.refuse(below, NEGATIVE)
    if b1 is not None:
        store.refuse(~((b1 > 0) & (b1 < 5)), NO_B1)
        known = b1[np.isfinite(b1) & (b1 != 0)]
        if known.size and np.median(known) > 5:
            raise InputError(
                "B1 must be actual over nominal angle, about 1",
                found=f"median {np.median(known):g}",
                todo="divide by 100 if it is in percent",
            )


def _in_noise(signal: Array, used: Mask, timing: Timing, noise_sd: Array) -> Mask:
    """Voxels of which fewer than two echo times have an image above the noise."""
    level = _DETECTION * np.nan_to_num(noise_sd)[:, None]
    seen = np.where(used, signal, 0.0) > level
    count = np.zeros(len(signal), dtype=int)
    for echo in range(timing.distinct_echoes.size):
        count += seen[:, timing.echo == echo].any(axis=1)
    return count < _ECHOES


def _patterns(used: Mask, todo: Mask) -> Iterator[tuple[Index, Index]]:
    """Yield voxels that share their usable images, and these images."""
    rows = np.flatnonzero(todo)
    if not rows.size:
        return
    complete = used[rows].all(axis=1)
    if complete.any():
        yield rows[complete], np.arange(used.shape[1])
    rest = rows[~complete]
    if not rest.size:
        return
    patterns, group = np.unique(used[rest], axis=0, return_inverse=True)
    for n, pattern in enumerate(patterns):
        yield rest[group.reshape(-1) == n], np.flatnonzero(pattern)


class _Starts:
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


def _fit_block(
    store: _Store,
    rows: Index,
    signal: Array,
    starts: _Starts,
    b1: Array | None,
    noise_sd: Array | None,
) -> None:
    scale = np.abs(signal).max(axis=1)
    scaled = np.ascontiguousarray((signal / scale[:, None]).T)
    log_b1 = None if b1 is None else np.log(b1[rows])
    candidates = _Candidates.solve(scaled, starts, log_b1)
    best = candidates.best()
    store.parameters[:, rows] = best.parameters
    store.parameters[0, rows] += np.log(scale)
    variance = _variance(best, starts, len(scaled), None if noise_sd is None else noise_sd[rows] / scale)
    errors = _errors(best.parameters, starts, variance)
    tolerance = _EQUAL_SD**2 * np.nan_to_num(variance) + _ROUNDING * (scaled**2).sum(axis=0)
    apart = candidates.rival(best, tolerance)
    # Standard deviation of a choice between two equally likely values.
    errors = np.sqrt(errors**2 + (apart[: len(errors)] / 2) ** 2)
    store.errors[: len(errors), rows] = errors
    _judge(store, rows, best, errors, apart)


@dataclass(slots=True)
class _Candidates:
    """Solutions of every number of inverted dynamics: parameters (c, 4, m), cost (c, m)."""

    parameters: Array
    cost: Array
    converged: Mask
    held: Mask

    @classmethod
    def solve(cls, signal: Array, starts: _Starts, log_b1: Array | None) -> _Candidates:
        """Refine every start that is worth it."""
        chosen = starts.choose(signal, log_b1)
        shape = (len(chosen), signal.shape[1])
        nothing = np.full((shape[0], 4, shape[1]), np.nan)
        found = cls(nothing, np.full(shape, np.inf), np.zeros(shape, bool), np.zeros(shape, bool))
        for n, (number, start, worth) in enumerate(chosen):
            which = np.flatnonzero(worth)
            batch = refine(
                start[:, which],
                signal[:, which] * starts.signs(number),
                starts.timing,
                ranges=starts.ranges if log_b1 is None else _wide(starts.ranges),
                free_b1=starts.free_b1,
            )
            found.parameters[n][:, which], found.cost[n, which] = batch.parameters, batch.cost
            found.converged[n, which], found.held[n, which] = batch.converged, batch.held
        return found

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


def _wide(ranges: Ranges) -> Ranges:
    """A map of B1 is taken as it is."""
    return Ranges(t1=ranges.t1, t2=ranges.t2, b1=(1e-3, 10.0))


def _variance(best: Batch, starts: _Starts, n_images: int, noise: Array | None) -> Array:
    """Variance of one sample: stated, else from the residuals; NaN where neither is known."""
    if noise is not None:
        return np.where(noise > 0, noise, np.nan) ** 2
    freedom = n_images - count_unknown(free_b1=starts.free_b1)
    return best.cost / freedom if freedom > 0 else np.full(best.cost.size, np.nan)


def _errors(parameters: Array, starts: _Starts, variance: Array) -> Array:
    """Standard errors of logarithms, (p, m); infinite where images leave one open, NaN where noise does."""
    normal = np.moveaxis(normal_matrix(parameters, starts.timing, free_b1=starts.free_b1), -1, 0)
    p = normal.shape[-1]
    diagonal = np.einsum("mpp->mp", normal)
    good = np.isfinite(normal).all(axis=(1, 2)) & (diagonal > 0).all(axis=1)
    size = np.sqrt(np.where(good[:, None], diagonal, 1.0))
    scaled = np.where(good[:, None, None], normal / size[:, :, None] / size[:, None, :], np.eye(p))
    determinant = np.linalg.det(scaled)
    good &= determinant > 1e-14
    scaled = np.where(good[:, None, None], scaled, np.eye(p))
    inverse = np.einsum("mpp->mp", np.linalg.inv(scaled)) / size**2
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(inverse * variance[:, None])
    return np.asarray(np.where(good[:, None], errors, np.inf).T)


def _judge(store: _Store, rows: Index, best: Batch, errors: Array, apart: Array) -> None:
    """Say which solutions are none."""
    count = store.codes.size

    def where(mask: Mask) -> Mask:
        return _mark(rows[mask], count)

    store.refuse(where(best.held), OUTSIDE)
    store.refuse(where(~best.converged), NOT_CONVERGED)
    store.refuse(where(apart[1] > _AMBIGUOUS), AMBIGUOUS)
    with np.errstate(invalid="ignore"):
        uncertain: Mask = np.any(errors > 1, axis=0)
    store.refuse(where(uncertain), UNCERTAIN)


def _maps(
    store: _Store, used: Mask, shape: tuple[int, ...], *, free_b1: bool, water_signal: float | None
) -> FittedMaps:
    reasons = Reasons(codes=store.codes.reshape(shape), texts=store.texts)
    ok = store.codes == 0
    plan = [("T1", 1, 1000.0, "ms"), ("T2", 2, 1000.0, "ms"), ("M0", 0, 1.0, "signal")]
    plan += [("B1", 3, 1.0, "1")] if free_b1 else []
    plan += [("PD", 0, 100.0 / water_signal, "%")] if water_signal is not None else []
    values, errors = {}, {}
    for name, n, factor, _ in plan:
        value = np.where(ok, factor * np.exp(np.where(ok, store.parameters[n], 0.0)), np.nan)
        values[name] = value.reshape(shape)
        errors[name] = np.where(ok, value * store.errors[n], np.nan).reshape(shape)
    incomplete = (~used.all(axis=1) & ok).reshape(shape)
    return FittedMaps(
        model=_MODEL + (", B1 fitted" if free_b1 else ", B1 given"),
        values=values,
        units={name: unit for name, _, _, unit in plan},
        standard_errors=errors,
        reasons=reasons,
        flags={INCOMPLETE: incomplete},
    )
