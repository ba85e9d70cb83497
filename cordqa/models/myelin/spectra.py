"""T2 spectra of echo trains: refocusing angle, non-negative amplitudes, and how smooth they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.myelin.echo_basis import EchoBasis
from cordqa.models.myelin.nonnegative import solve_free, solve_nonnegative

__all__ = ["REGULARISATIONS", "Regularisation", "Smoothing", "Spectra", "fit_spectra"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Regularisation = Literal["chi2", "discrepancy", "gcv", "lcurve", "none"]
REGULARISATIONS: tuple[Regularisation, ...] = ("chi2", "discrepancy", "gcv", "lcurve", "none")

#: Weight of the squared amplitudes that only makes the solution unique (signals of size 1).
_LEAST = 1e-8
_LARGEST = 1e2
#: One step is enough in 1 + cos(angle), in which echoes are nearly linear.
_ANGLE_STEPS = 1
#: Largest step in 1 + cos(angle).
_LONGEST_STEP = 0.15
_SEARCH_STEPS = 12
#: Power of the weight with which the excess of the residual grows, before it has been seen.
_USUAL_SLOPE = 0.9
#: Relative accuracy of the excess of the residual over its minimum.
_EXCESS_ACCURACY = 0.05
_PATH = np.geomspace(1e-6, 3.0, 28)
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """How the weight of the squared amplitudes is chosen.

    Attributes
    ----------
    rule : {'chi2', 'discrepancy', 'gcv', 'lcurve', 'none'}
        ``chi2``: the residual sum of squares may grow by ``chi2_factor``.  ``discrepancy``: it may
        reach what the known noise makes it.  ``gcv``: least generalised cross-validation.
        ``lcurve``: largest curvature of log solution norm against log residual norm.
    chi2_factor : float
        Above 1.
    """

    rule: Regularisation = "chi2"
    chi2_factor: float = 1.02

    def __post_init__(self) -> None:
        """Refuse what no rule is."""
        if self.rule not in REGULARISATIONS:
            raise InputError(
                "no such regularisation", found=repr(self.rule), expected=", ".join(REGULARISATIONS)
            )
        if not 1 < self.chi2_factor < 10:
            raise InputError("the factor of chi2 must lie between 1 and 10", found=f"{self.chi2_factor:g}")

    @property
    def words(self) -> str:
        """The choice, for the methods text."""
        return {
            "chi2": f"residual sum of squares raised by the factor {self.chi2_factor:g}",
            "discrepancy": "discrepancy principle with the known noise",
            "gcv": "generalised cross-validation",
            "lcurve": "largest curvature of the L-curve",
            "none": "none",
        }[self.rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectra:
    """Amplitudes of all T2 in many voxels, for signals of the size that was given.

    Attributes
    ----------
    amplitudes : ndarray, shape (m, n_t2)
    node : ndarray, shape (m,)
        1 + cos(refocusing angle).
    ridge : ndarray, shape (m,)
        Weight of the squared amplitudes that was chosen.
    least_chi2, chi2 : ndarray, shape (m,)
        Residual sum of squares without and with it.
    free : ndarray, shape (m,)
        Number of parameters of the fit without it, the angle included where it was fitted.
    converged : ndarray of bool, shape (m,)
    decays, gram : ndarray, shape (m, n_echoes, n_t2) and (m, n_t2, n_t2)
        At the angle of each voxel.
    linear : ndarray, shape (m, n_t2)
        Products of the decays with the signal.
    """

    amplitudes: Array
    node: Array
    ridge: Array
    least_chi2: Array
    chi2: Array
    free: NDArray[np.int64]
    converged: Mask
    decays: Array
    gram: Array
    linear: Array


@dataclass(slots=True)
class _Problem:
    """Signals with the decays at their own angle."""

    signal: Array
    decays: Array
    gram: Array
    linear: Array
    pull: Array  # weight of the prior
    goal: Array  # prior amplitudes

    def solve(self, ridge: Array, start: Array, *, blocks: bool = True) -> tuple[Array, Mask]:
        found = solve_nonnegative(
            self.gram,
            self.linear + self.pull[:, None] * self.goal,
            ridge + self.pull,
            start,
            blocks=blocks,
        )
        return found.x, found.converged

    def residual(self, amplitudes: Array) -> Array:
        residual: Array = self.signal - np.matmul(self.decays, amplitudes[:, :, None])[:, :, 0]
        return residual

    def chi2(self, amplitudes: Array) -> Array:
        total: Array = (self.residual(amplitudes) ** 2).sum(axis=1)
        return total

    def rows(self, which: NDArray[np.intp]) -> _Problem:
        return _Problem(
            self.signal[which],
            self.decays[which],
            self.gram[which],
            self.linear[which],
            self.pull[which],
            self.goal[which],
        )


def fit_spectra(
    signal: Array,
    basis: EchoBasis,
    smoothing: Smoothing,
    *,
    node: Array | None = None,
    noise_sd: Array | None = None,
    prior: Array | None = None,
    pull: Array | None = None,
) -> Spectra:
    """Fit spectra to echo trains, voxel by voxel in one batch.

    Parameters
    ----------
    signal : ndarray, shape (m, n_echoes)
        Finite; of about size 1, because tolerances are absolute.
    basis : EchoBasis
    smoothing : Smoothing
    node : ndarray, shape (m,), optional
        Known 1 + cos(refocusing angle); fitted where it is not given.
    noise_sd : ndarray, shape (m,), optional
        Of the signals; needed by the discrepancy principle.
    prior, pull : ndarray, shape (m, n_t2) and (m,), optional
        Amplitudes towards which the spectrum is pulled, and the weight of the squared distance;
        given by neighbours.

    Raises
    ------
    InputError
        If the discrepancy principle is asked for without the noise.
    """
    if smoothing.rule == "discrepancy" and noise_sd is None:
        raise InputError("the discrepancy principle needs the noise", todo="give the noise, or choose chi2")
    fitted = node is None
    here = basis.nearest(signal) if node is None else node
    problem = _problem(signal, basis, here)
    least = np.full(len(signal), _LEAST)
    amplitudes, converged = problem.solve(least, np.zeros(problem.linear.shape), blocks=False)
    if fitted:
        here, problem, amplitudes, converged = _fit_angle(basis, here, problem, amplitudes, converged)
    least_chi2 = problem.chi2(amplitudes)
    free = (amplitudes > 0).sum(axis=1) + int(fitted)
    if prior is not None and pull is not None:
        problem.goal, problem.pull = prior, pull
        amplitudes, converged = problem.solve(least, amplitudes)
    ridge, smooth, done = _choose(problem, smoothing, amplitudes, least_chi2, noise_sd)
    return Spectra(
        amplitudes=smooth,
        node=here,
        ridge=ridge,
        least_chi2=least_chi2,
        chi2=problem.chi2(smooth),
        free=free,
        converged=converged & done,
        decays=problem.decays,
        gram=problem.gram,
        linear=problem.linear,
    )


def _problem(signal: Array, basis: EchoBasis, node: Array) -> _Problem:
    decays = basis.at(node)
    turned = decays.swapaxes(1, 2)
    linear = np.matmul(turned, signal[:, :, None])[:, :, 0]
    zero = np.zeros(len(signal))
    return _Problem(signal, decays, np.matmul(turned, decays), linear, zero, np.zeros(linear.shape))


def _fit_angle(
    basis: EchoBasis, node: Array, problem: _Problem, amplitudes: Array, converged: Mask
) -> tuple[Array, _Problem, Array, Mask]:
    """Improve the angle by Gauss-Newton steps in which the free amplitudes follow."""
    chi2 = problem.chi2(amplitudes)
    longest = np.full(len(node), _LONGEST_STEP)
    for _ in range(_ANGLE_STEPS):
        step = np.clip(_angle_step(basis, node, problem, amplitudes), -longest, longest)
        tried = np.clip(node + step, 0.0, basis.nodes[-1])
        other = _problem(problem.signal, basis, tried)
        found, done = other.solve(np.full(len(node), _LEAST), amplitudes, blocks=False)
        better = other.chi2(found) < chi2
        longest = np.where(better, longest, np.abs(step) / 4)
        node = np.where(better, tried, node)
        amplitudes = np.where(better[:, None], found, amplitudes)
        chi2 = np.where(better, other.chi2(found), chi2)
        converged = np.where(better, done, converged)
        for name in ("decays", "gram", "linear"):
            new, old = getattr(other, name), getattr(problem, name)
            setattr(problem, name, np.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old))
    return node, problem, amplitudes, converged


def _angle_step(basis: EchoBasis, node: Array, problem: _Problem, amplitudes: Array) -> Array:
    """Step that lowers the residual most where the free amplitudes are fitted anew."""
    slope = basis.derivative(node, amplitudes)
    across = slope - _through_free(problem, amplitudes > 0, slope)
    size = (across * slope).sum(axis=1)
    gain = (across * problem.residual(amplitudes)).sum(axis=1)
    step: Array = np.where(size > 1e-12, gain / np.maximum(size, 1e-12), 0.0)
    return step


def _through_free(problem: _Problem, free: Mask, values: Array) -> Array:
    """Part of the values that the free decays explain."""
    right = np.where(free, np.matmul(values[:, None, :], problem.decays)[:, 0, :], 0.0)
    amplitude = solve_free(problem.gram, right, np.full(len(free), _LEAST), free)
    explained: Array = np.matmul(problem.decays, amplitude[:, :, None])[:, :, 0]
    return explained


def free_inverse(gram: Array, ridge: Array, free: Mask) -> Array:
    """Inverse of the Gram matrix of the free variables, 0 elsewhere."""
    both = free[:, :, None] & free[:, None, :]
    n = gram.shape[-1]
    whole = np.where(both, gram, 0.0)
    whole[:, np.arange(n), np.arange(n)] += np.where(free, ridge[:, None], 1.0)
    inverse: Array = np.where(both, np.linalg.inv(whole), 0.0)
    return inverse


_Chosen = tuple[Array, Array, Mask]


def _choose(
    problem: _Problem, smoothing: Smoothing, start: Array, least_chi2: Array, noise_sd: Array | None
) -> _Chosen:
    """Weight of the squared amplitudes by the chosen rule, amplitudes with it, and where they converged.

    ``start`` are the amplitudes with the least weight.
    """
    if smoothing.rule == "none":
        return np.full(len(start), _LEAST), start, np.ones(len(start), dtype=bool)
    if smoothing.rule == "chi2":
        return _raise_residual(problem, start, smoothing.chi2_factor * least_chi2)
    if smoothing.rule == "discrepancy" and noise_sd is not None:
        return _raise_residual(problem, start, problem.signal.shape[1] * noise_sd**2)
    ridge = _along_path(problem, smoothing.rule, start)
    return ridge, *problem.solve(ridge, start)


def _raise_residual(problem: _Problem, start: Array, target: Array) -> _Chosen:
    """Weight at which the residual sum of squares reaches a target; the least where it is above.

    Well below the size of the problem the excess over the minimum grows as the square of the weight,
    so that a secant in logarithms finds it in a few steps.
    """
    n = len(start)
    base = problem.chi2(start)
    wanted = target - base
    x, done = start.copy(), np.ones(n, dtype=bool)
    log_ridge = np.full(n, np.log(_LEAST))
    low, high = np.full(n, np.log(_LEAST)), np.full(n, np.log(_LARGEST))
    last, last_miss = np.full(n, np.nan), np.full(n, np.nan)
    live = np.flatnonzero(wanted > 1e-14)
    # Near what simulations of many trains need; only the number of steps depends on it.
    guess = np.clip(np.log(np.maximum(wanted, _TINY)) + 2.5, low, high)
    for _ in range(_SEARCH_STEPS):
        if not live.size:
            break
        part = problem if live.size == n else problem.rows(live)
        x[live], done[live] = part.solve(np.exp(guess[live]), x[live])
        excess = np.maximum(part.chi2(x[live]) - base[live], _TINY)
        miss, here = np.log(excess / wanted[live]), guess[live]
        log_ridge[live] = here
        low[live] = np.where(miss < 0, here, low[live])
        high[live] = np.where(miss > 0, here, high[live])
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (miss - last_miss[live]) / (here - last[live])
        slope = np.where(np.isfinite(slope) & (slope > 0.1), slope, _USUAL_SLOPE)
        last[live], last_miss[live] = here, miss
        step = here - miss / slope
        inside = (step > low[live]) & (step < high[live])
        guess[live] = np.where(inside, step, (low[live] + high[live]) / 2)
        live = live[np.abs(miss) > _EXCESS_ACCURACY]
    return np.exp(log_ridge), x, done


def _along_path(problem: _Problem, rule: Regularisation, start: Array) -> Array:
    """Weight with the best criterion among many, from weak to strong."""
    n = problem.signal.shape[1]
    residual, size, score = (np.empty((len(start), _PATH.size)) for _ in range(3))
    x = start
    for i, weight in enumerate(_PATH):
        ridge = np.full(len(start), weight)
        x, _ = problem.solve(ridge, x)
        residual[:, i] = problem.chi2(x)
        size[:, i] = (x**2).sum(axis=1)
        if rule == "gcv":
            free = x > 0
            trace = np.trace(free_inverse(problem.gram, ridge, free), axis1=1, axis2=2)
            score[:, i] = residual[:, i] / (n - free.sum(axis=1) + weight * trace) ** 2
    if rule == "lcurve":
        score = -_curvature(0.5 * np.log(residual + _TINY), 0.5 * np.log(size + _TINY))
    best: Array = _PATH[score.argmin(axis=1)]
    return best


def _curvature(x: Array, y: Array) -> Array:
    """Curvature of a curve of points, counted positive at the corner of an L; its ends excluded."""
    dx, dy = np.gradient(x, axis=1), np.gradient(y, axis=1)
    ddx, ddy = np.gradient(dx, axis=1), np.gradient(dy, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = (dx * ddy - dy * ddx) / (dx**2 + dy**2) ** 1.5
    curvature = np.nan_to_num(curvature, nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
    curvature[:, [0, 1, -2, -1]] = -np.inf
    return curvature
