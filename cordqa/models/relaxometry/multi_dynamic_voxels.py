"""Voxels of a multi-dynamic multi-echo scan: starts, missing images, standard errors, reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.relaxometry.fitting import variance_scale
from cordqa.models.relaxometry.multi_dynamic_solver import (
    Batch,
    Ranges,
    Timing,
    count_unknown,
    determines,
    evaluate,
    mean_magnitude,
    normal_matrix,
)
from cordqa.models.relaxometry.multi_dynamic_starts import Candidates, Starts

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
NEAR_FLOOR = "later echoes barely stand out of the noise: T2 of those that do comes out too long"
ROUGH = "standard error of T1 or T2 above 20 %, which is rough itself"
_MODEL = "multi-dynamic multi-echo equation, least squares in logarithms from several T1"
#: Residuals this improbable under the stated noise are no chance.
_CHANCE = 1e-3
#: Standard error of a logarithm beyond which it is itself rough: the cost is no parabola there.
_ROUGH = 0.2
#: Later echoes that stand out of the noise by less: T2 is given, and flagged.
_CLEAR_SD = 4.0
#: Mean and variance of a magnitude without signal, in units of the noise of one channel.
_FLOOR_MEAN, _FLOOR_VARIANCE = float(np.sqrt(np.pi / 2)), float(2 - np.pi / 2)
#: Stands for no noise, in units of the strongest sample.
_NO_NOISE = 1e-9
#: Voxels solved together: small enough for the cache.
_BLOCK = 16_384
#: Signals below this many noise standard deviations in every image carry nothing.
_DETECTION = 3.0
_ECHOES = 2
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
    near_floor: Mask

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
        return cls(nothing, nothing.copy(), np.zeros(count, np.uint8), texts, np.zeros(count, dtype=bool))

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
    if noise_sd is not None and signed:
        # Of signed values those would be kept whose noise looks like a decay.
        store.refuse(_in_noise(signal, used, timing, noise_sd), IN_NOISE)
    for rows, images in _patterns(used, store.codes == 0):
        part = timing.take(images)
        if not determines(part, free_b1=b1 is None):
            store.refuse(_mark(rows, len(signal)), OPEN)
            continue
        starts = Starts(part, ranges, signed=signed, free_b1=b1 is None)
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


def _fit_block(
    store: _Store,
    rows: Index,
    signal: Array,
    starts: Starts,
    b1: Array | None,
    noise_sd: Array | None,
) -> None:
    scale = np.abs(signal).max(axis=1)
    scaled = np.ascontiguousarray((signal / scale[:, None]).T)
    log_b1 = None if b1 is None else np.log(b1[rows])
    # Less than rounding would only make squares vanish.
    noise = None if noise_sd is None else np.maximum(noise_sd[rows] / scale, _NO_NOISE)
    if noise is not None and noise_sd is not None:
        noise = np.where(noise_sd[rows] > 0, noise, np.nan)
    floor = _floor(noise, starts)
    candidates = Candidates.solve(scaled, starts, log_b1, floor)
    best = candidates.best()
    store.parameters[:, rows] = best.parameters
    store.parameters[0, rows] += np.log(scale)
    variance = _variance(best, starts, len(scaled), noise)
    errors = _errors(best.parameters, starts, variance, floor)
    tolerance = _EQUAL_SD**2 * np.nan_to_num(variance) + _ROUNDING * (scaled**2).sum(axis=0)
    apart = candidates.rival(best, tolerance)
    # Standard deviation of a choice between two equally likely values.
    errors = np.sqrt(errors**2 + (apart[: len(errors)] / 2) ** 2)
    store.errors[: len(errors), rows] = errors
    if floor is not None:
        evidence = _late_evidence(best.parameters, scaled, starts.timing, floor)
        store.refuse(_mark(rows[evidence < _EQUAL_SD], store.codes.size), IN_NOISE)
        store.near_floor[rows] = evidence < _CLEAR_SD
    _judge(store, rows, best, errors, apart)


def _floor(noise: Array | None, starts: Starts) -> Array | None:
    """Noise below which a magnitude does not fall, (m,); none of it where it is not known, or signs are."""
    if noise is None or starts.signed:
        return None
    return np.where(noise > 0, noise, _NO_NOISE)


def _late_evidence(parameters: Array, signal: Array, timing: Timing, floor: Array) -> Array:
    """By how many standard deviations signal explains the later echoes better than noise alone, (m,).

    Later than the first echo time.  Echoes that noise explains only tell that T2 is short.
    """
    late = timing.echo > 0
    seen, predicted = signal[late], evaluate(parameters, timing)[late]
    with_signal, _ = mean_magnitude(predicted, floor)
    without = _FLOOR_MEAN * floor
    gain = ((seen - without) ** 2 - (seen - with_signal) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(np.maximum(gain, 0.0) / _FLOOR_VARIANCE) / floor)


def _variance(best: Batch, starts: Starts, n_images: int, noise: Array | None) -> Array:
    """Variance of one sample: of the stated noise where the residuals agree with it, else of the residuals.

    NaN where neither is known.
    """
    freedom = n_images - count_unknown(free_b1=starts.free_b1)
    if noise is None:
        return best.cost / freedom if freedom > 0 else np.full(best.cost.size, np.nan)
    stated = np.where(noise > 0, noise, np.nan) ** 2
    factor, _ = variance_scale(best.cost / stated, freedom, noise_known=True, level=_CHANCE)
    return np.asarray(stated * factor)


def _errors(parameters: Array, starts: Starts, variance: Array, floor: Array | None) -> Array:
    """Standard errors of logarithms, (p, m); infinite where images leave one open, NaN where noise does."""
    matrix = normal_matrix(parameters, starts.timing, free_b1=starts.free_b1, floor_sd=floor)
    normal = np.moveaxis(matrix, -1, 0)
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
    with np.errstate(invalid="ignore"):
        rough = (np.any(store.errors[1:3] > _ROUGH, axis=0) & ok).reshape(shape)
    incomplete = (~used.all(axis=1) & ok).reshape(shape)
    return FittedMaps(
        model=_MODEL + (", B1 fitted" if free_b1 else ", B1 given"),
        values=values,
        units={name: unit for name, _, _, unit in plan},
        standard_errors=errors,
        reasons=reasons,
        flags={
            INCOMPLETE: incomplete,
            ROUGH: rough,
            NEAR_FLOOR: (store.near_floor & ok).reshape(shape),
        },
    )
