"""Shares of known substances in a voxel of which T1, T2 and proton density are known.

Two rules say how substances mix.  ``signals``: water does not exchange during the measurement, so
that signals add.  T1, T2 and PD of a voxel then stand for the signals from which they were fitted,
and these, at the delays and echo times of the measurement, are sums over the substances.  ``rates``:
water exchanges quickly, so that relaxation rates add, weighted by the water of each substance.
Either way a vector of the voxel is a sum of vectors of the substances with their shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.myelin.nonnegative import solve_free, solve_nonnegative

__all__ = ["Mixing", "MixingRule", "Shares", "Substance", "fit_shares"]

Array = NDArray[np.float64]
MixingRule = Literal["signals", "rates"]
#: Weight of the sum of shares being 1, against values in units of their standard deviation.
_CLOSURE = 1e6
_LEAST = 1e-9
_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class Substance:
    """T1 and T2 in seconds and proton density (1 is water) of something that fills voxels."""

    name: str
    t1_s: float
    t2_s: float
    pd: float

    def __post_init__(self) -> None:
        """Refuse values of another unit."""
        good = 1e-3 <= self.t1_s <= 20 and 1e-4 <= self.t2_s <= 10 and self.t2_s <= self.t1_s
        if not (good and 0 < self.pd <= 2):
            raise InputError(
                "T1, T2 and proton density cannot be meant",
                where=self.name,
                found=f"{1e3 * self.t1_s:g} ms, {1e3 * self.t2_s:g} ms, {100 * self.pd:g} %",
                expected="T1 and T2 in ms with T2 not longer than T1, proton density in % of water",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How substances mix, and how well T1, T2 and PD are known.

    Attributes
    ----------
    rule : {'signals', 'rates'}
    echo_times_s, delays_s : tuple of float
        Of the measurement, for ``signals``.
    relative_sd : (float, float, float)
        Standard deviation of T1, T2 and PD between voxels of one substance, relative; sets the
        weights and what counts as misfit.
    """

    rule: MixingRule = "signals"
    echo_times_s: tuple[float, ...] = (0.0228, 0.1026)
    delays_s: tuple[float, ...] = (0.17, 0.67, 1.84, 3.84)
    relative_sd: tuple[float, float, float] = (0.05, 0.05, 0.05)

    def __post_init__(self) -> None:
        """Refuse what no measurement has."""
        times = (*self.echo_times_s, *self.delays_s)
        if self.rule not in ("signals", "rates"):
            raise InputError("no such mixing rule", found=repr(self.rule), expected="signals or rates")
        if len(self.echo_times_s) < 2 or len(self.delays_s) < 2 or not all(0 < t < 30 for t in times):
            raise InputError(
                "signals need at least two echo times and two delays, in seconds", found=f"{times}"
            )
        if not all(0 < sd < 1 for sd in self.relative_sd):
            raise InputError("relative deviations lie between 0 and 1", found=f"{self.relative_sd}")

    def vector(self, t1_s: Array, t2_s: Array, pd: Array) -> Array:
        """What adds, shape (m, f)."""
        if self.rule == "rates":
            return np.stack([pd, pd / t1_s, pd / t2_s], axis=-1)
        decay = np.exp(-np.asarray(self.echo_times_s) / t2_s[:, None])
        recovery = 1 - np.exp(-np.asarray(self.delays_s) / t1_s[:, None])
        product = pd[:, None, None] * recovery[:, :, None] * decay[:, None, :]
        flat: Array = product.reshape(len(pd), -1)
        return flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of substances.

    Attributes
    ----------
    shares : ndarray, shape (m, k)
        Not negative, sum 1.
    errors : ndarray, shape (m, k)
        Standard errors by those of T1, T2 and PD.
    misfit : ndarray, shape (m,)
        Root mean square of the residual over its standard deviation.
    """

    shares: Array
    errors: Array
    misfit: Array


def fit_shares(
    t1_s: Array,
    t2_s: Array,
    pd: Array,
    substances: tuple[Substance, ...],
    mixing: Mixing,
    *,
    errors: tuple[Array, Array, Array] | None = None,
) -> Shares:
    """Find the shares by weighted least squares, none negative and their sum 1.

    Parameters
    ----------
    t1_s, t2_s, pd : ndarray, shape (m,)
        Positive and finite; PD relative to water.
    substances : tuple of Substance
        Between two and as many as the rule tells apart: four.
    mixing : Mixing
    errors : tuple of ndarray, shape (m,), optional
        Standard errors of T1, T2 and PD; by default those of ``mixing``.

    Raises
    ------
    InputError
        If there are too few or too many substances, or two that cannot be told apart.
    """
    if not 2 <= len(substances) <= 4:
        raise InputError(
            "T1, T2 and proton density tell two to four substances apart", found=f"{len(substances)}"
        )
    values = np.array([[s.t1_s, s.t2_s, s.pd] for s in substances])
    vectors = mixing.vector(*values.T)
    vector = mixing.vector(t1_s, t2_s, pd)
    spread = _spread(vector, (t1_s, t2_s, pd), mixing)
    _check_distinct(vectors, substances)
    k = len(substances)
    design = vectors.T[None] / spread[:, :, None]
    target = vector / spread
    gram = np.matmul(design.swapaxes(1, 2), design) + _CLOSURE
    linear = np.matmul(design.swapaxes(1, 2), target[:, :, None])[:, :, 0] + _CLOSURE
    ridge = np.full(len(vector), _LEAST)
    found = solve_nonnegative(gram, linear, ridge, np.full((len(vector), k), 1.0 / k), blocks=False)
    residual = target - np.matmul(design, found.x[:, :, None])[:, :, 0]
    closed = found.x / np.maximum(found.x.sum(axis=1, keepdims=True), 1e-12)
    given = errors or tuple(sd * one for sd, one in zip(mixing.relative_sd, (t1_s, t2_s, pd), strict=True))
    stated = _propagate(found.x > 0, gram, design / spread[:, :, None], (t1_s, t2_s, pd), given, mixing)
    return Shares(shares=closed, errors=stated, misfit=np.sqrt((residual**2).mean(axis=1)))


def _slopes(parts: tuple[Array, ...], mixing: Mixing) -> list[Array]:
    """Derivatives of the vector with respect to T1, T2 and PD."""
    base = mixing.vector(*parts)
    slopes = []
    for index, part in enumerate(parts):
        moved = list(parts)
        moved[index] = part * (1 + _STEP)
        slopes.append((mixing.vector(*moved) - base) / (part * _STEP)[:, None])
    return slopes


def _spread(vector: Array, parts: tuple[Array, ...], mixing: Mixing) -> Array:
    """Standard deviation of each entry by those of T1, T2 and PD, with a floor at 1 % of the largest."""
    square = np.zeros_like(vector)
    for slope, part, relative in zip(_slopes(parts, mixing), parts, mixing.relative_sd, strict=True):
        square += (slope * (relative * part)[:, None]) ** 2
    floor = 0.01 * np.abs(vector) if mixing.rule == "rates" else 0.01 * vector.max(axis=1, keepdims=True)
    spread: Array = np.sqrt(square + np.maximum(floor, 1e-12) ** 2)
    return spread


def _check_distinct(vectors: Array, substances: tuple[Substance, ...]) -> None:
    """Refuse substances of which one is a mixture of the others."""
    scaled = vectors / np.abs(vectors).max(axis=0)
    weakest = np.linalg.svd(np.column_stack([scaled, np.ones(len(scaled))]), compute_uv=False)[-1]
    if weakest < 1e-3:
        raise InputError(
            "these substances cannot be told apart: one is nearly a mixture of the others",
            found=", ".join(s.name for s in substances),
        )


def _propagate(
    free: NDArray[np.bool_],
    gram: Array,
    weighted: Array,
    parts: tuple[Array, ...],
    errors: tuple[Array, ...],
    mixing: Mixing,
) -> Array:
    """Carry the errors of T1, T2 and PD through the solution for the shares that are not 0."""
    square = np.zeros(free.shape)
    ridge = np.full(len(free), _LEAST)
    for slope, error in zip(_slopes(parts, mixing), errors, strict=True):
        right = np.matmul(weighted.swapaxes(1, 2), (slope * error[:, None])[:, :, None])[:, :, 0]
        square += solve_free(gram, np.where(free, right, 0.0), ridge, free) ** 2
    stated: Array = np.sqrt(square)
    return stated
