"""Variance components of balanced designs from expected mean squares.

Every factor is an axis of an array.  A model term is the set of axes whose combination it is
constant within: ``(0,)`` subjects, ``(1,)`` scanners, ``(0, 1)`` their interaction, and for
sessions nested in subjects ``(0, 1)`` without a term ``(1,)``.  The last axis may be repeats.
Estimates are exact and unbiased, closed form, and may be negative; they are never hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, InputError
from cordqa.stats.quantiles import Bounds, MeanSquare, f_survival, mls_interval, sd_interval

__all__ = ["EmsFit", "combine_components", "ems_components", "f_test", "variance_intervals"]

FloatArray = NDArray[np.float64]
Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EmsFit:
    """Analysis of variance of a balanced design.

    Attributes
    ----------
    names : tuple of str
        Random terms, then ``residual``.
    mean_squares : ndarray, shape (..., K + 1)
    df : ndarray, shape (K + 1,)
    expectation : ndarray, shape (K + 1, K + 1)
        Row t holds the weights of the variances in the expected mean square of term t.
    raw : ndarray, shape (..., K + 1)
        Unbiased variances, negative where chance has it so.
    mean : ndarray, shape (...)
    """

    names: tuple[str, ...]
    mean_squares: FloatArray
    df: FloatArray
    expectation: FloatArray
    raw: FloatArray
    mean: FloatArray

    @property
    def variances(self) -> FloatArray:
        """Variances truncated at zero, shape (..., K + 1)."""
        return np.maximum(self.raw, 0.0)


def ems_components(
    values: NDArray[np.floating],
    terms: Sequence[Axes],
    *,
    names: Sequence[str] = (),
    fixed: Sequence[Axes] = (),
    n_leading: int = 0,
) -> EmsFit:
    """Estimate variance components of a balanced design from its mean squares.

    Parameters
    ----------
    values : ndarray, shape (*leading, n_0, n_1, ...)
        Any number of leading axes (regions, quantities), then one axis per factor.
    terms : sequence of tuple of int
        Axes of each random term, counted after the leading axes.  Residual is what no term
        explains.
    names : sequence of str, optional
        One name per term.
    fixed : sequence of tuple of int, optional
        Axes of fixed terms, for example vendor; taken out before anything else.
    n_leading : int
        Number of leading axes.

    Returns
    -------
    EmsFit
        Estimator: expected mean squares, unrestricted model.  NaN for leading cells that hold
        a value that is not finite: use restricted maximum likelihood there.

    Raises
    ------
    InputError
        If a term names an axis that does not exist, or nothing is left for the residual.
    FitError
        If terms overlap without their common part being a term, or a term is taken up by the
        fixed effects.

    References
    ----------
    Searle S. R., Casella G., McCulloch C. E. 1992, Variance Components, chapter 4.
    doi:10.1002/9780470316856.
    """
    array = np.asarray(values, dtype=float)
    levels = array.shape[n_leading:]
    random = [tuple(sorted(set(term))) for term in terms]
    taken = [tuple(sorted(set(term))) for term in fixed]
    _check_axes(random, taken, len(levels))
    assigned = _assign_effects(random, taken, len(levels))
    df = np.array([sum(_effect_df(effect, levels) for effect in group) for group in assigned], dtype=float)
    labels = (*(tuple(names) or tuple(f"term {i}" for i in range(len(random)))), "residual")
    for label, freedom in zip(labels, df, strict=True):
        if freedom <= 0:
            raise FitError(
                "no degrees of freedom are left for a variance", where=label, todo="leave this term out"
            )
    mean, squares = _sums_of_squares(array, assigned, n_leading)
    mean_squares = squares / df
    expectation = _expectation(random, levels)
    weights = np.linalg.inv(expectation)
    return EmsFit(labels, mean_squares, df, expectation, mean_squares @ weights.T, mean)


def _check_axes(random: Sequence[Axes], fixed: Sequence[Axes], n_axes: int) -> None:
    for term in (*random, *fixed):
        if not term or term[0] < 0 or term[-1] >= n_axes:
            raise InputError(
                "a term names an axis that the values do not have",
                found=str(term),
                expected=f"axes 0 to {n_axes - 1}",
            )
    if len(set(random)) != len(random):
        raise InputError("a random term is given twice")
    if not random:
        raise InputError("at least one random term is needed")


def _assign_effects(random: Sequence[Axes], fixed: Sequence[Axes], n_axes: int) -> list[list[Axes]]:
    """Give every factorial effect to the smallest random term that holds it, else the residual."""
    everything = chain.from_iterable(combinations(range(n_axes), size) for size in range(1, n_axes + 1))
    assigned: list[list[Axes]] = [[] for _ in range(len(random) + 1)]
    for effect in everything:
        if any(set(effect) <= set(term) for term in fixed):
            continue
        holders = [i for i, term in enumerate(random) if set(effect) <= set(term)]
        if not holders:
            assigned[-1].append(effect)
            continue
        smallest = min(holders, key=lambda i: len(random[i]))
        if any(not set(random[smallest]) <= set(random[i]) for i in holders):
            raise FitError(
                "two random terms overlap in a part that is no term of its own",
                found=" and ".join(str(random[i]) for i in holders),
                todo="add the common part as a term, or use restricted maximum likelihood",
            )
        assigned[smallest].append(effect)
    return assigned


def _effect_df(effect: Axes, levels: Sequence[int]) -> int:
    return int(np.prod([levels[axis] - 1 for axis in effect]))


def _sums_of_squares(
    array: FloatArray, assigned: list[list[Axes]], n_leading: int
) -> tuple[FloatArray, FloatArray]:
    """Grand mean (...) and the sum of squares of each group of effects (..., K + 1)."""
    all_axes = tuple(range(n_leading, array.ndim))
    mean = array.mean(axis=all_axes, keepdims=True)
    centred = array - mean
    leading = array.shape[:n_leading]
    total = float(np.prod(array.shape[n_leading:]))
    known: dict[Axes, FloatArray] = {(): np.zeros(leading)}

    def uncorrected(margin: Axes) -> FloatArray:
        if margin not in known:
            others = tuple(axis for axis in all_axes if axis - n_leading not in margin)
            means = centred.mean(axis=others) if others else centred
            flat = means.reshape(*leading, -1)
            weight = total / flat.shape[-1]
            known[margin] = weight * np.einsum("...i,...i->...", flat, flat)
        return known[margin]

    columns = []
    for group in assigned:
        counts: dict[Axes, int] = {}
        for effect in group:
            for size in range(len(effect) + 1):
                for margin in combinations(effect, size):
                    sign = -1 if (len(effect) - size) % 2 else 1
                    counts[margin] = counts.get(margin, 0) + sign
        column = np.zeros(leading)
        for margin, count in counts.items():
            if count:
                column = column + count * uncorrected(margin)
        columns.append(np.maximum(column, 0.0))
    return np.asarray(mean.reshape(leading)), np.stack(columns, axis=-1)


def _expectation(random: Sequence[Axes], levels: Sequence[int]) -> FloatArray:
    """Weights of the variances in the expected mean squares, residual last."""
    total = float(np.prod(levels))
    size = len(random) + 1
    weights = np.zeros((size, size))
    weights[:, -1] = 1.0
    for row, term in enumerate(random):
        for column, other in enumerate(random):
            if set(term) <= set(other):
                weights[row, column] = total / float(np.prod([levels[axis] for axis in other]))
    return weights


def combine_components(
    fit: EmsFit, weights: Sequence[float], *, level: float = 0.95
) -> tuple[FloatArray, Bounds]:
    """Estimate a weighted sum of variances with its modified-large-sample interval.

    Parameters
    ----------
    fit : EmsFit
    weights : sequence of float, length K + 1
        Weight of each variance, residual last; for the reproducibility variance, ones for
        everything but the subject.
    level : float
        Confidence level.

    Returns
    -------
    value : ndarray, shape (...)
        Unbiased, may be negative where a weight is negative or a component is.
    bounds : Bounds
        Not truncated.

    References
    ----------
    Burdick R. K., Graybill F. A. 1992, Confidence Intervals on Variance Components.
    """
    on_squares = np.asarray(weights, dtype=float) @ np.linalg.inv(fit.expectation)
    on_squares[np.abs(on_squares) < 1e-12 * np.max(np.abs(on_squares))] = 0.0
    used = np.flatnonzero(on_squares)
    terms = [MeanSquare(float(on_squares[i]), fit.mean_squares[..., i], float(fit.df[i])) for i in used]
    return fit.mean_squares[..., used] @ on_squares[used], mls_interval(terms, level=level)


def variance_intervals(fit: EmsFit, *, level: float = 0.95) -> Bounds:
    """Intervals of every variance, shape (..., K + 1): modified large sample, residual exact.

    Parameters
    ----------
    fit : EmsFit
    level : float

    Returns
    -------
    Bounds
        Truncated at zero, as a variance is.
    """
    low, high = np.empty_like(fit.raw), np.empty_like(fit.raw)
    for index, weights in enumerate(np.eye(len(fit.names))):
        _, bounds = combine_components(fit, list(weights), level=level)
        low[..., index], high[..., index] = bounds
    exact = sd_interval(np.sqrt(fit.mean_squares[..., -1]), float(fit.df[-1]), level=level)
    low[..., -1], high[..., -1] = exact.low**2, exact.high**2
    return Bounds(np.maximum(low, 0.0), np.maximum(high, 0.0))


def f_test(fit: EmsFit) -> FloatArray:
    """Test each variance against zero, shape (..., K).

    The F test is exact where one mean square has the expectation that the term's own would have
    without its variance; otherwise the denominator is a sum of mean squares with Satterthwaite's
    degrees of freedom.

    Parameters
    ----------
    fit : EmsFit

    Returns
    -------
    ndarray
        One-sided p-values; NaN where the combined denominator is not positive.
    """
    weights = np.linalg.inv(fit.expectation)
    columns = []
    for term in range(len(fit.names) - 1):
        against = -weights[term] / weights[term, term]
        against[term] = 0.0
        used = np.flatnonzero(np.abs(against) > 1e-12)
        parts = against[used] * fit.mean_squares[..., used]
        denominator = parts.sum(axis=-1)
        spread = np.sum(parts**2 / fit.df[used], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = denominator**2 / spread
            ratio = fit.mean_squares[..., term] / denominator
        p = f_survival(ratio, float(fit.df[term]), freedom)
        columns.append(np.where(denominator > 0.0, p, np.nan))
    return np.stack(columns, axis=-1)
