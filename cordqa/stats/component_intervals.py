"""Intervals and tests for variance components that were fitted by (restricted) likelihood.

Profile likelihood for a standard deviation, for a share of variances (an intraclass
correlation) and for a sum of variances (a reproducibility SD); a boundary-aware
likelihood-ratio test of each variance; and a parametric bootstrap for any other function.  All
tables and all ends of all intervals are solved side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.stats.deviance import Likelihood, Prepared, prepare
from cordqa.stats.mixed_design import MixedDesign
from cordqa.stats.newton import minimise_batch
from cordqa.stats.profile_targets import AllOverResidual, Deviation, Gradient, Ratio, Target, Total
from cordqa.stats.quantiles import Bounds
from cordqa.stats.reml import RemlFit, fit_reml, simulate_values

__all__ = [
    "bootstrap_variances",
    "boundary_test",
    "profile_ratio",
    "profile_residual_share",
    "profile_sd",
    "profile_total",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_ROOT_STEPS = 40
_ROOT_TOLERANCE = 1e-7
_WIDEST_FACTOR = 1e4
_LEAST_NUISANCE = 0.05


def profile_sd(
    values: FloatArray,
    design: MixedDesign,
    *,
    level: float = 0.95,
    likelihood: Likelihood = "reml",
    fit: RemlFit | None = None,
) -> Bounds:
    """Profile-likelihood intervals of the standard deviation of every component.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    level : float
        Confidence level.
    likelihood : {'reml', 'ml'}
        lme4 profiles the full likelihood (``ml``); the restricted one allows for the fixed
        effects and is wider at the top where a factor has few levels.
    fit : RemlFit, optional
        A fit of the same likelihood, to save doing it again.

    Returns
    -------
    Bounds
        Arrays of shape (B, K + 1) in the unit of the values, residual last.  A lower bound of
        exactly zero means that a zero variance is compatible with the data; NaN that no bound
        was found.
    """
    prepared, best, usable = _start(values, design, likelihood, fit)
    shape = (prepared.scale.size, len(design.names) + 1)
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    if usable.size:
        target = Deviation(prepared, best, usable)
        bounds = _solve_both(target, level)
        scale = prepared.scale[usable, None]
        low[usable] = bounds.low.reshape(-1, shape[1]) * scale
        high[usable] = bounds.high.reshape(-1, shape[1]) * scale
    return Bounds(low, high)


def profile_ratio(
    values: FloatArray,
    design: MixedDesign,
    numerator: int,
    *,
    others: Sequence[int],
    level: float = 0.95,
    likelihood: Likelihood = "reml",
    fit: RemlFit | None = None,
) -> Bounds:
    """Profile-likelihood interval of one variance as a share of itself and others.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    numerator : int
        Index of the term, for example the subject for an intraclass correlation.
    others : sequence of int
        Terms that count against it; ``len(design.names)`` is the residual and must be among them.
    level, likelihood, fit
        As in :func:`profile_sd`.

    Returns
    -------
    Bounds
        Arrays of shape (B,) between 0 and 1.
    """
    chosen = np.zeros(len(design.names) + 1, dtype=bool)
    chosen[list(others)] = True
    if numerator in others or not chosen[-1]:
        raise InputError("a share needs the residual, and not its own term, among the others")
    prepared, best, usable = _start(values, design, likelihood, fit)
    low, high = np.full(prepared.scale.size, np.nan), np.full(prepared.scale.size, np.nan)
    if usable.size:
        bounds = _solve_both(Ratio(prepared, best, usable, numerator, chosen), level)
        low[usable] = bounds.low / (1.0 + bounds.low)
        high[usable] = bounds.high / (1.0 + bounds.high)
    return Bounds(low, high)


def profile_residual_share(
    values: FloatArray,
    design: MixedDesign,
    *,
    level: float = 0.95,
    likelihood: Likelihood = "reml",
    fit: RemlFit | None = None,
) -> Bounds:
    """Profile-likelihood interval of the residual variance as a share of the sum of all.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    level, likelihood, fit
        As in :func:`profile_sd`.

    Returns
    -------
    Bounds
        Arrays of shape (B,) between 0 and 1.
    """
    prepared, best, usable = _start(values, design, likelihood, fit)
    low, high = np.full(prepared.scale.size, np.nan), np.full(prepared.scale.size, np.nan)
    if usable.size:
        bounds = _solve_both(AllOverResidual(prepared, best, usable), level)
        low[usable] = 1.0 / (1.0 + bounds.high)
        high[usable] = 1.0 / (1.0 + bounds.low)
    return Bounds(low, high)


def profile_total(
    values: FloatArray,
    design: MixedDesign,
    weights: Sequence[float],
    *,
    level: float = 0.95,
    likelihood: Likelihood = "reml",
    fit: RemlFit | None = None,
) -> Bounds:
    """Profile-likelihood interval of the square root of a weighted sum of variances.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    weights : sequence of float, length K + 1
        Not negative; that of the residual (last) positive.
    level, likelihood, fit
        As in :func:`profile_sd`.

    Returns
    -------
    Bounds
        Arrays of shape (B,) in the unit of the values.
    """
    array = np.asarray(weights, dtype=float)
    if array.shape != (len(design.names) + 1,) or np.any(array < 0.0) or not array[-1] > 0.0:
        raise InputError("a sum of variances needs one weight per component, positive for the residual")
    prepared, best, usable = _start(values, design, likelihood, fit)
    low, high = np.full(prepared.scale.size, np.nan), np.full(prepared.scale.size, np.nan)
    if usable.size:
        bounds = _solve_both(Total(prepared, best, usable, array), level)
        low[usable] = bounds.low * prepared.scale[usable]
        high[usable] = bounds.high * prepared.scale[usable]
    return Bounds(low, high)


def _start(
    values: FloatArray, design: MixedDesign, likelihood: Likelihood, fit: RemlFit | None
) -> tuple[Prepared, RemlFit, IntArray]:
    table = np.atleast_2d(np.asarray(values, dtype=float))
    best = fit if fit is not None and fit.likelihood == likelihood else None
    best = best or fit_reml(table, design, likelihood=likelihood)
    usable = np.flatnonzero(best.converged & np.isfinite(best.variances).all(axis=1))
    return prepare(table, design), best, usable


class _Profile:
    """Rise of the profiled deviance above its minimum, warm-started from the last solution."""

    def __init__(self, target: Target) -> None:
        self.target = target
        everyone = np.arange(target.estimate.size)
        optimum = target.hold(target.start.copy(), target.estimate, everyone)
        self.base, _ = target.deviance(optimum, target.estimate, everyone)
        # Exactly zero is a stationary point; a nuisance term that is zero at the optimum must be
        # able to leave it when another quantity is held away from its estimate.
        self.start = _away_from_zero(target.start.copy())

    def __call__(self, held: FloatArray, which: IntArray) -> FloatArray:
        target = self.target
        if which.size == 0:
            return np.empty(0)
        start = target.hold(self.start[which], held, which)

        def function(points: FloatArray, rows: IntArray) -> Gradient:
            return target.deviance(points, held[rows], which[rows])

        best = minimise_batch(function, start, free=target.free[which], tolerance=1e-9)
        keep = best.converged
        self.start[which[keep]] = _away_from_zero(np.abs(best.point[keep]), like=best.point[keep])
        rise = best.value - self.base[which]
        return np.where(np.isfinite(rise), rise, np.inf)


def _away_from_zero(points: FloatArray, *, like: FloatArray | None = None) -> FloatArray:
    """Keep warm starts off zero; a logarithm (negative in ``like``) keeps its sign."""
    original = points if like is None else like
    small = np.abs(points) < _LEAST_NUISANCE
    return np.where(small, _LEAST_NUISANCE, original)


def _solve_both(target: Target, level: float) -> Bounds:
    from scipy.special import chdtri

    rise = float(chdtri(1, 1.0 - level))
    return Bounds(_find_lower(target, rise), _find_upper(target, rise))


def _find_lower(target: Target, rise: float) -> FloatArray:
    profile = _Profile(target)
    estimate = target.estimate
    result = np.zeros(estimate.size)
    outside = np.where(target.reaches_zero, 0.0, 0.5 * estimate)
    tried = np.flatnonzero(~target.reaches_zero | (estimate > 0.0))
    height = np.full(estimate.size, -rise)
    height[tried] = profile(outside[tried], tried) - rise
    # What cannot be zero is approached by going further down; the rest may stop at zero.
    for _ in range(12):
        short = np.flatnonzero(~target.reaches_zero & (height < 0.0))
        if short.size == 0:
            break
        outside[short] *= 0.5
        height[short] = profile(outside[short], short) - rise
    bracketed = tried[height[tried] > 0.0]
    result[bracketed] = _find_root(profile, estimate[bracketed], outside[bracketed], bracketed, rise)
    result[~target.reaches_zero & (height < 0.0)] = np.nan
    return result


def _find_upper(target: Target, rise: float) -> FloatArray:
    profile = _Profile(target)
    inside = target.estimate.copy()
    outside = np.maximum(1.3 * inside, 0.05)
    limit = _WIDEST_FACTOR * (1.0 + inside)
    height = np.full(inside.size, -np.inf)
    waiting = np.arange(inside.size)
    while waiting.size:
        height[waiting] = profile(outside[waiting], waiting) - rise
        short = waiting[height[waiting] < 0.0]
        inside[short] = outside[short]
        outside[short] *= 1.6
        waiting = short[outside[short] < limit[short]]
    found = np.flatnonzero(height >= 0.0)
    result = np.full(inside.size, np.nan)
    result[found] = _find_root(profile, inside[found], outside[found], found, rise)
    return result


def _find_root(
    profile: Callable[[FloatArray, IntArray], FloatArray],
    inside: FloatArray,
    outside: FloatArray,
    which: IntArray,
    rise: float,
) -> FloatArray:
    """Find where the rise is reached between a point inside and one outside (Illinois method)."""
    target = np.sqrt(rise)

    def signed(points: FloatArray, index: IntArray) -> FloatArray:
        return np.asarray(np.sqrt(np.maximum(profile(points, which[index]), 0.0)) - target)

    a, b = inside.copy(), outside.copy()
    running = np.arange(which.size)
    fa, fb = signed(a, running), signed(b, running)
    result, last_side = b.copy(), np.zeros(which.size, dtype=int)
    for _ in range(_ROOT_STEPS):
        if running.size == 0:
            break
        gap = fb[running] - fa[running]
        usable = np.isfinite(gap) & (gap != 0.0)
        share = np.where(usable, fb[running] / np.where(usable, gap, 1.0), 0.5)
        trial = b[running] - np.clip(share, 0.02, 0.98) * (b[running] - a[running])
        height = signed(trial, running)
        result[running] = trial
        below = height < 0.0
        here_a, here_b = running[below], running[~below]
        fb[here_a[last_side[here_a] == -1]] *= 0.5
        fa[here_b[last_side[here_b] == 1]] *= 0.5
        a[here_a], fa[here_a] = trial[below], height[below]
        b[here_b], fb[here_b] = trial[~below], height[~below]
        last_side[here_a], last_side[here_b] = -1, 1
        done = np.abs(height) < _ROOT_TOLERANCE
        done |= np.abs(b[running] - a[running]) < 1e-10 * np.maximum(np.abs(b[running]), 1e-6)
        running = running[~done]
    return result


def boundary_test(values: FloatArray, design: MixedDesign, *, fit: RemlFit | None = None) -> FloatArray:
    """Test each variance against zero by the restricted likelihood ratio.

    Under the null hypothesis the ratio follows an equal mixture of zero and chi-squared with one
    degree of freedom, because a variance cannot be negative.

    Parameters
    ----------
    values : ndarray, shape (B, n)
    design : MixedDesign
    fit : RemlFit, optional
        The restricted fit of these values.

    Returns
    -------
    ndarray, shape (B, K)
        One-sided p-values; 1 where the variance was estimated as zero.

    References
    ----------
    Self S. G., Liang K.-Y. 1987, J Am Stat Assoc 82:605, doi:10.1080/01621459.1987.10478472.
    """
    from scipy.special import chdtrc

    table = np.atleast_2d(np.asarray(values, dtype=float))
    best = fit if fit is not None and fit.likelihood == "reml" else fit_reml(table, design)
    p = np.full((table.shape[0], len(design.names)), np.nan)
    for term in range(len(design.names)):
        without = fit_reml(table, design, held_at_zero=(term,), start=best.theta)
        rise = without.deviance - best.deviance
        ratio = np.maximum(rise, 0.0)
        p[:, term] = np.where(ratio > 1e-8, 0.5 * chdtrc(1, ratio), 1.0)
        p[np.isnan(rise), term] = np.nan
    return p


def bootstrap_variances(
    design: MixedDesign,
    variances: FloatArray,
    *,
    n_samples: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """Refit simulated tables of the same design.

    Parameters
    ----------
    design : MixedDesign
    variances : ndarray, shape (K + 1,)
        Components to simulate from, residual last.
    n_samples : int
    seed : int

    Returns
    -------
    ndarray, shape (at most n_samples, K + 1)
        REML components of each simulated table that converged.
    """
    generator = np.random.default_rng(seed)
    values = simulate_values(design, variances, n_samples, generator=generator)
    start = np.sqrt(np.maximum(variances[:-1], 0.0) / variances[-1])
    fit = fit_reml(values, design, start=np.broadcast_to(start, (n_samples, start.size)))
    return np.asarray(fit.variances[fit.converged])
