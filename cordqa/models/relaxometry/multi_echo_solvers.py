"""Solvers of the multi-echo fit: exponential over a floor, and extended phase graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.fitting import AT_BOUND, OUTSIDE_RANGE, Problem, Solution
from cordqa.models.relaxometry.least_squares import LeastSquares, solve_least_squares
from cordqa.models.relaxometry.noise import rician_mean, rician_weight
from cordqa.models.relaxometry.signal import exponential_decay, multi_echo_spin_echo_signal
from cordqa.models.relaxometry.slice_profile import SliceProfile

__all__ = ["EchoTrain", "solve_epg", "solve_exponential"]

Array = NDArray[np.float64]

_GRID_POINTS = 64
_STEP = 1e-4
_START_ANGLES_DEG = (160.0, 125.0)
_SMALLEST_ANGLE_DEG = 50.0
#: Numbers held at once by one evaluation of the phase graph (rows x slice x echoes x orders).
_NUMBERS_AT_ONCE = 6_000_000


@dataclass(frozen=True, slots=True)
class EchoTrain:
    """Echo train of one group of rows."""

    spacing: float
    n_echoes: int
    columns: NDArray[np.intp]  # echo of each image
    t1: Array  # (m,)
    profile: SliceProfile


def solve_exponential(
    problem: Problem, *, echo_times: Array, floor: Array, limits: tuple[float, float], rician: bool = False
) -> Solution:
    """Fit sqrt(M0^2 exp(-2 TE/T2) + floor^2), or the Rician mean, in (ln T2, ln M0)."""
    signal = np.abs(problem.signal)
    scaled_floor = floor[problem.rows] / problem.scale[:, None]
    here = scaled_floor[:, problem.columns]
    start, weight = _begin(problem, echo_times[problem.columns], here, limits, rician=rician)
    n = len(signal)
    lift = _lift(rician)
    fit = solve_least_squares(
        partial(_exponential, echo_times=echo_times[problem.columns], floor=here, lift=lift),
        start,
        signal,
        weight=weight,
        low=np.tile([np.log(limits[0]), -50.0], (n, 1)),
        high=np.tile([np.log(limits[1]), 50.0], (n, 1)),
    )
    predicted, _ = _exponential(
        fit.parameters, np.arange(n), echo_times=echo_times, floor=scaled_floor, lift=lift
    )
    t2, m0 = np.exp(fit.parameters.T)
    return Solution(
        fit=fit,
        values={"t2_s": (t2, 0, t2), "m0": (m0, 1, m0)},
        predicted=predicted,
        reason=_reason(fit.held[:, 0] | fit.held[:, 1], fit.parameters[:, 1]),
        n_parameters=2,
        weight=weight,
    )


def _begin(
    problem: Problem, echo_times: Array, floor: Array, limits: tuple[float, float], *, rician: bool
) -> tuple[Array, Array]:
    """Start (ln T2, ln M0) and weights of the samples."""
    signal = np.abs(problem.signal)
    weight = problem.weight if problem.noise_known else _shape_of_weights(signal, floor)
    start = _search(signal, weight, echo_times, floor * np.sqrt(2.0) if rician else floor, limits)
    if rician:
        # By the expected curve: weights that follow the noise of the samples would bias the fit.
        expected = np.exp(start[:, 1, None] - echo_times / np.exp(start[:, 0, None]))
        weight = rician_weight(weight, expected, floor)
    return start, weight


def _shape_of_weights(signal: Array, floor: Array) -> Array:
    """Weights where no noise is stated.

    A magnitude scatters less at the floor than above it: the variance falls from sigma^2 to
    half of it.  Taken as equal, many late echoes would make the early ones look too precise.
    """
    floor_square = floor**2
    square = np.maximum(signal**2, floor_square)
    variance = np.where(floor_square > 0, square - floor_square / 2, 1.0)
    shape: Array = np.where(floor_square > 0, square, 1.0) / variance
    return shape


def _reason(held: NDArray[np.bool_], log_m0: Array) -> NDArray[np.str_]:
    # An amplitude e^10 above the strongest sample is an extrapolation over ten T2: no fit.
    return np.where(held, OUTSIDE_RANGE, np.where(log_m0 > 10.0, AT_BOUND, ""))


def _search(
    signal: Array, weight: Array, echo_times: Array, floor: Array, limits: tuple[float, float]
) -> Array:
    """Best (ln T2, ln M0) on a grid, with the floor taken out and late noise weighed down."""
    square = np.maximum(signal**2 - floor**2, 0.0)
    corrected = np.sqrt(square)
    trusted = weight * square / (square + floor**2 + np.finfo(float).tiny)
    grid = np.geomspace(*limits, _GRID_POINTS)
    shapes = exponential_decay(echo_times, grid[:, None])
    product = (trusted * corrected) @ shapes.T
    norm = trusted @ (shapes**2).T
    tiny = np.finfo(float).tiny
    amplitude = product / np.maximum(norm, tiny)
    cost = -amplitude * product
    # A decay so short that nothing is left at the first echo fits nothing.
    cost = np.where(shapes.max(axis=1) > np.exp(-10.0), cost, np.inf)
    place = cost.argmin(axis=1)
    best = amplitude[np.arange(len(signal)), place]
    return np.stack([np.log(grid[place]), np.log(np.maximum(best, 1e-6))], axis=1)


#: Turns a decay and its derivatives into those of its magnitude over the floor.
Lift = Callable[[Array, list[Array], Array], tuple[Array, Array]]


def _lift(rician: bool) -> Lift:
    return _rician if rician else _over_floor


def _rician(decay: Array, slopes: list[Array], noise_sd: Array) -> tuple[Array, Array]:
    """Take the mean magnitude of a decay and carry its derivatives through."""
    mean, share, _ = rician_mean(np.abs(decay), noise_sd)
    share = share * np.sign(decay)
    return mean, np.stack([share * slope for slope in slopes], axis=-1)


def _over_floor(decay: Array, slopes: list[Array], floor: Array) -> tuple[Array, Array]:
    """Add the floor in quadrature to a decay and carry its derivatives through."""
    total = np.sqrt(decay**2 + floor**2)
    share = np.where(total > 0, decay / np.where(total > 0, total, 1.0), 1.0)
    return total, np.stack([share * slope for slope in slopes], axis=-1)


def _exponential(
    parameters: Array, rows: NDArray[np.intp], *, echo_times: Array, floor: Array, lift: Lift
) -> tuple[Array, Array]:
    t2 = np.exp(parameters[:, 0, None])
    decay = np.exp(np.clip(parameters[:, 1, None] - echo_times / t2, -700.0, 700.0))
    return lift(decay, [decay * echo_times / t2, decay], floor[rows])


def solve_epg(
    problem: Problem,
    *,
    train: EchoTrain,
    echo_times: Array,
    floor: Array,
    limits: tuple[float, float],
    rician: bool = False,
) -> Solution:
    """Fit the phase graph over the floor in (ln T2, ln M0, actual over nominal angle)."""
    scaled_floor = floor[problem.rows] / problem.scale[:, None]
    here = scaled_floor[:, problem.columns]
    start, weight = _begin(problem, echo_times[problem.columns], here, limits, rician=rician)
    fit = _best_epg(problem, (start, weight), train, here, limits, _lift(rician))
    n = len(problem.rows)
    everywhere = replace(train, t1=train.t1[problem.rows])
    predicted, _ = _epg(
        fit.parameters, np.arange(n), train=everywhere, floor=scaled_floor, lift=_lift(rician)
    )
    t2, m0 = np.exp(fit.parameters[:, :2].T)
    one = np.full(n, 180.0)
    return Solution(
        fit=fit,
        values={
            "t2_s": (t2, 0, t2),
            "m0": (m0, 1, m0),
            "refocusing_angle_deg": (180.0 * fit.parameters[:, 2], 2, one),
        },
        predicted=predicted,
        reason=_reason(fit.held[:, 0] | fit.held[:, 1], fit.parameters[:, 1]),
        n_parameters=3,
        weight=weight,
    )


def _best_epg(
    problem: Problem,
    begin: tuple[Array, Array],
    train: EchoTrain,
    floor: Array,
    limits: tuple[float, float],
    lift: Lift,
) -> LeastSquares:
    """Start from two refocusing angles and keep the better solution of each row."""
    signal = np.abs(problem.signal)
    start, weight = begin
    columns = train.columns[problem.columns]
    local = replace(train, n_echoes=int(columns.max()) + 1, columns=columns, t1=train.t1[problem.rows])
    model = partial(_epg, train=local, floor=floor, lift=lift)
    n = len(signal)
    low = np.tile([np.log(limits[0]), -50.0, _SMALLEST_ANGLE_DEG / 180.0], (n, 1))
    high = np.tile([np.log(limits[1]), 50.0, train.profile.largest_factor], (n, 1))

    def solve(angle: float) -> LeastSquares:
        first = np.column_stack([start, np.full(n, angle / 180.0)])
        first[:, 1] += _amplitude_offset(model, first, signal, weight)
        return solve_least_squares(model, first, signal, weight=weight, low=low, high=high, tolerance=1e-5)

    return reduce(_lower, (solve(angle) for angle in _START_ANGLES_DEG))


def _amplitude_offset(
    model: Callable[[Array, NDArray[np.intp]], tuple[Array, Array]],
    start: Array,
    signal: Array,
    weight: Array,
) -> Array:
    """Return ln of the factor that brings the start curve to the size of the signal."""
    shape, _ = model(start, np.arange(len(start)))
    ratio = (weight * shape * signal).sum(axis=1) / np.maximum((weight * shape**2).sum(axis=1), 1e-300)
    offset: Array = np.log(np.clip(ratio, 1e-6, 1e6))
    return offset


def _lower(one: LeastSquares, other: LeastSquares) -> LeastSquares:
    better = other.cost < one.cost
    pick = {
        name: np.where(
            better.reshape(-1, *(1,) * (getattr(one, name).ndim - 1)),
            getattr(other, name),
            getattr(one, name),
        )
        for name in ("parameters", "cost", "derivatives", "predicted", "converged", "held")
    }
    return LeastSquares(**pick)


def _epg(
    parameters: Array, rows: NDArray[np.intp], *, train: EchoTrain, floor: Array, lift: Lift
) -> tuple[Array, Array]:
    decay = np.empty((len(parameters), train.columns.size))
    by_t2, by_angle = np.empty(decay.shape), np.empty(decay.shape)
    size = max(1, _NUMBERS_AT_ONCE // (train.n_echoes * train.profile.weights.size))
    for first in range(0, len(parameters), size):
        part = slice(first, first + size)
        t1 = train.t1[rows[part]]
        log_t2, log_m0, factor = parameters[part].T
        m0 = np.exp(log_m0)[:, None]
        base = _through_slice(log_t2, factor, t1, train)
        decay[part] = m0 * base
        by_t2[part] = m0 * (_through_slice(log_t2 + _STEP, factor, t1, train) - base) / _STEP
        by_angle[part] = m0 * (base - _through_slice(log_t2, factor - _STEP, t1, train)) / _STEP
    return lift(decay, [by_t2, decay, by_angle], floor[rows])


def _through_slice(log_t2: Array, factor: Array, t1: Array, train: EchoTrain) -> Array:
    """Echo amplitudes summed over the slice, shape (m, n)."""
    profile = train.profile
    echoes = multi_echo_spin_echo_signal(
        train.n_echoes,
        train.spacing,
        np.exp(log_t2)[:, None],
        t1[:, None],
        refocusing_angle_deg=180.0 * factor[:, None] * profile.refocusing,
        excitation_angle_deg=90.0 * factor[:, None] * profile.excitation,
    )
    summed: Array = np.einsum("mzn,z->mn", echoes, profile.weights)
    return summed[:, train.columns]
