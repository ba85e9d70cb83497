"""How motion of a series is distributed, learnt from the series itself, and what it makes of noisy shifts.

A shift measured in one slice of one volume is noisy.  What is known beforehand is its structure: motion of
the body moves all slices of a volume, more at one end than at the other or bent; neighbouring volumes
share part of it; slices of an interleaved acquisition were taken in two passes, between which the body may
have moved; and the cord may pulsate in a single slice.  Each of these parts has a variance, and the
variances are found by maximum likelihood (an MM algorithm for variance components, Zhou et al. 2019,
doi:10.1080/10618600.2018.1529601).  The best estimate then weighs each measurement by what it is worth:
a series without motion gets none, and a single violent movement is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Regularised", "regularise", "slice_patterns"]

Array = NDArray[np.float64]

ROUNDS = 30
#: Degrees of freedom of the errors: a slice that disagrees with its neighbours counts less.
FREEDOM = 5.0
#: Variance (voxels squared) that counts as none.
NOTHING = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularised:
    """Best estimate of the motion along one axis.

    Attributes
    ----------
    value, error : ndarray, shape (n_volumes, n_slices)
        Estimate and its standard deviation; infinite where nothing was measured at all.
    spread : mapping of str to float
        Standard deviation of every part of the motion.
    """

    value: Array
    error: Array
    spread: Mapping[str, float]


def slice_patterns(height_mm: Array, measured: NDArray[np.bool_], *, interleaved: bool) -> dict[str, Array]:
    """Return the ways in which slices move together, each with a mean square of one.

    Parameters
    ----------
    height_mm : ndarray, shape (n_slices,)
    measured : ndarray of bool, shape (n_slices,)
        Slices that can be measured at all; they limit how many patterns can be told apart.
    interleaved : bool
        Whether odd and even slices may differ.
    """
    count = int(measured.sum())
    low, high = (height_mm[measured].min(), height_mm[measured].max()) if count else (0.0, 1.0)
    # Beyond the measured slices, motion is taken as that of the last one.
    u = np.clip((height_mm - 0.5 * (low + high)) / max(0.5 * (high - low), 1e-6), -1.0, 1.0)
    patterns = {"shift": np.ones(height_mm.size)}
    if count >= 3:
        patterns["tilt"] = u
    if count >= 5:
        patterns["bend"] = u**2 - (u[measured] ** 2).mean()
    if interleaved and count >= 6:
        patterns["odd-even"] = np.where(np.arange(height_mm.size) % 2 == 0, 1.0, -1.0)
    for name, pattern in patterns.items():
        patterns[name] = pattern / np.sqrt((pattern[measured] ** 2).mean() if count else 1.0)
    return patterns


def regularise(
    measured: Array, variance: Array, patterns: Mapping[str, Array], blocks: Sequence[NDArray[np.intp]]
) -> Regularised:
    """Estimate motion from noisy shifts of slices.

    Parameters
    ----------
    measured : ndarray, shape (n_volumes, n_slices)
        Shift; anything where the variance is infinite.
    variance : ndarray, same shape
        Of the measurement; infinite where there is none.
    patterns : mapping of str to ndarray, shape (n_slices,)
        See :func:`slice_patterns`.
    blocks : sequence of ndarray of int
        Neighbouring volumes that may share motion; every volume in one block.
    """
    state = _State(measured, variance, patterns, blocks)
    for _ in range(ROUNDS):
        state.step()
    return state.result()


class _State:
    """Blocks padded to one size, so that all are solved at once."""

    def __init__(
        self,
        measured: Array,
        variance: Array,
        patterns: Mapping[str, Array],
        blocks: Sequence[NDArray[np.intp]],
    ) -> None:
        self.shape = measured.shape
        self.names, self.blocks = list(patterns), blocks
        basis = np.stack(list(patterns.values()), axis=1)
        slices, count = basis.shape
        size = max(len(block) for block in blocks)
        self.size, self.count, self.own_only = size, count, size == 1
        parts = [] if self.own_only else [np.tile(basis, (size, 1))]
        self.design = np.hstack([*parts, np.kron(np.eye(size), basis)])
        self.known = np.zeros((len(blocks), size * slices))
        self.variance = np.full((len(blocks), size * slices), np.inf)
        for n, block in enumerate(blocks):
            here = slice(0, len(block) * slices)
            good = np.isfinite(variance[block]) & np.isfinite(measured[block])
            self.known[n, here] = np.where(good, measured[block], 0.0).ravel()
            self.variance[n, here] = np.where(good, variance[block], np.inf).ravel()
        self.used = np.isfinite(self.variance)
        self.trust = np.ones_like(self.variance)
        # Begin with as much motion as each volume by itself shows: a start with little would take the slices
        # of a single volume that moved for outliers.
        own = _pattern_sizes(measured, variance, basis)
        self.parts = np.tile(np.maximum(own, 1e-4), 2) / 2
        self.single = 1e-3

    def _solve(self) -> tuple[Array, Array, Array]:
        """Weights of the measurements, covariance and mean of the parts of every block."""
        total = self.variance + self.single
        weight = np.where(self.used, self.trust / np.where(self.used, total, 1.0), 0.0)
        sizes = self.parts[self.count :] if self.own_only else self.parts
        own = np.tile(self.parts[self.count :], self.size)
        prior = own if self.own_only else np.concatenate([sizes[: self.count], own])
        left = np.einsum("op,bo,oq->bpq", self.design, weight, self.design, optimize=True)
        covariance = np.linalg.inv(left + np.diag(1.0 / np.maximum(prior, NOTHING)))
        mean = np.einsum("bpq,bq->bp", covariance, (weight * self.known) @ self.design)
        return weight, covariance, mean

    def step(self) -> None:
        """Improve every variance by the ratio of what is seen to what is expected of it."""
        weight, covariance, mean = self._solve()
        rest = self.known - mean @ self.design.T
        seen = weight * rest  # inverse covariance of the data times the data
        inside = np.einsum("op,bpq,oq->bo", self.design, covariance, self.design, optimize=True)
        plain = weight - weight**2 * inside  # its diagonal
        gram = np.einsum("op,bo,oq->bpq", self.design, weight, self.design, optimize=True)
        trace = np.einsum("bpp->bp", gram - gram @ covariance @ gram)
        score = (seen @ self.design) ** 2
        count = self.count
        if not self.own_only:
            self.parts[:count] *= _ratio(score[:, :count].sum(axis=0), trace[:, :count].sum(axis=0))
        own = slice(0 if self.own_only else count, None)
        fold = (len(self.blocks) * self.size, count)
        self.parts[count:] *= _ratio(
            score[:, own].reshape(fold).sum(axis=0), trace[:, own].reshape(fold).sum(axis=0)
        )
        self.single *= float(_ratio((seen**2).sum(), plain.sum()))
        self.parts, self.single = np.maximum(self.parts, NOTHING), max(self.single, NOTHING)
        spread = np.where(self.used, self.variance + self.single, 1.0)
        self.trust = np.where(self.used, (FREEDOM + 1.0) / (FREEDOM + rest**2 / spread), 1.0)

    def result(self) -> Regularised:
        """Lay the estimates out as the measurements were."""
        _, covariance, mean = self._solve()
        smooth = mean @ self.design.T
        # The scale of a heavy-tailed distribution is less than its standard deviation.
        own = self.single * FREEDOM / (FREEDOM - 2.0) if self.single > 10 * NOTHING else 0.0
        share = np.where(self.used, own / np.where(self.used, own + self.variance, 1.0), 0.0)
        value = smooth + share * (self.known - smooth)
        inside = np.einsum("op,bpq,oq->bo", self.design, covariance, self.design, optimize=True)
        error = np.sqrt(np.maximum((1.0 - share) ** 2 * inside + own * (1.0 - share), 0.0))
        if not self.used.any():
            error = np.full(error.shape, np.inf)
        out, sd = np.zeros(self.shape), np.zeros(self.shape)
        for n, block in enumerate(self.blocks):
            here = slice(0, len(block) * self.shape[1])
            out[block] = value[n, here].reshape(len(block), -1)
            sd[block] = error[n, here].reshape(len(block), -1)
        count = self.count
        shared = np.zeros(count) if self.own_only else self.parts[:count]
        spread = {f"{name}, shared": float(np.sqrt(v)) for name, v in zip(self.names, shared, strict=True)}
        for name, v in zip(self.names, self.parts[count:], strict=True):
            spread[f"{name}, own"] = float(np.sqrt(v))
        spread["single slices"] = float(np.sqrt(own))
        return Regularised(value=out, error=sd, spread=spread)


def _pattern_sizes(measured: Array, variance: Array, basis: Array) -> Array:
    """Mean square of each pattern, fitted to every volume alone."""
    weight = np.where(np.isfinite(measured) & np.isfinite(variance), 1.0 / variance, 0.0)
    known = np.where(weight > 0, measured, 0.0)
    left = np.einsum("zi,vz,zj->vij", basis, weight, basis) + np.eye(basis.shape[1])
    right = np.einsum("zi,vz,vz->vi", basis, weight, known)
    return np.asarray((np.linalg.solve(left, right[..., None])[..., 0] ** 2).mean(axis=0), dtype=float)


def _ratio(seen: Array, expected: Array) -> Array:
    """Factor of the MM update; one where the data say nothing."""
    safe = np.where(expected > 0, expected, 1.0)
    return np.asarray(np.where(expected > 0, np.sqrt(seen / safe), 1.0), dtype=float)
