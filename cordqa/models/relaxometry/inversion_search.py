"""Search for T1 over sign patterns and a grid: the inside of the inversion-recovery fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.signal import exponential_decay, inversion_recovery_steady_term

__all__ = ["InversionTiming", "best_amplitudes", "search_t1", "sign_patterns", "t1_grid"]

Array = NDArray[np.float64]

#: Search grid: 4 % steps are far narrower than any minimum over T1.
_GRID_STEP = 0.04
#: Sign patterns that are refined before the best is chosen.
_CANDIDATES = 3
_GOLDEN = (np.sqrt(5) - 1) / 2
_GOLDEN_STEPS = 18
#: b is physically at most 2 exp(offset/T1).  The bounds leave room for noise around that; what
#: lies beyond is a false solution with a T1 far too short (seen with one sample on the slope).
_SMALLEST_FACTOR, _LARGEST_FACTOR = 0.75, 2.5
_LARGEST_OFFSET_S = 0.010


@dataclass(frozen=True, slots=True)
class InversionTiming:
    """Times of the images, and the inversion factor where it is fixed (None: free).

    S = A (u + b v) with u = 1 - X and v = X - exp(-TI/T1).
    """

    inversion: Array
    repetition: Array
    echo: float
    fixed_factor: float | None

    def at(self, columns: NDArray[np.intp]) -> InversionTiming:
        """Return the timing of some of the images."""
        return InversionTiming(
            self.inversion[columns], self.repetition[columns], self.echo, self.fixed_factor
        )

    def basis(self, t1: Array) -> tuple[Array, Array]:
        """Return u and v with S = A (u + b v), for t1 (...,): shape (..., n)."""
        t = t1[..., None]
        steady = inversion_recovery_steady_term(t, self.repetition, echo_time_s=self.echo)
        return 1 - steady, steady - exponential_decay(self.inversion, t)

    def basis_slope(self, t1: Array) -> tuple[Array, Array]:
        """Return the derivatives of u and v by ln(T1)."""
        t = t1[..., None]
        steady = 2 * _slope(self.repetition - self.echo / 2, t) - _slope(self.repetition, t)
        return -steady, steady - _slope(self.inversion, t)

    def factor_bounds(self, t1: Array) -> tuple[Array, Array]:
        """Return the smallest and largest inversion factor to consider at each T1."""
        if self.fixed_factor is not None:
            fixed = np.full(t1.shape, self.fixed_factor)
            return fixed, fixed
        offset = np.exp(np.minimum(_LARGEST_OFFSET_S / t1, 3.0))
        return np.full(t1.shape, _SMALLEST_FACTOR), _LARGEST_FACTOR * offset


def _slope(time: Array, t1: Array) -> Array:
    """Return d exp(-time/T1) / d ln(T1), 0 at infinite time."""
    ratio = np.where(np.isfinite(time), time, 0.0) / t1
    slope: Array = ratio * np.exp(-ratio)
    return slope


def t1_grid(low: float, high: float) -> Array:
    """Return the search grid, both ends included."""
    grid = np.exp(np.arange(np.log(low), np.log(high) + _GRID_STEP, _GRID_STEP))
    grid[-1] = high
    return np.asarray(np.minimum(grid, high))


def sign_patterns(timing: InversionTiming, grid: Array) -> Array:
    """Every pattern of signs that the equation takes over the grid, shape (k, n).

    With a common TR these are the flips of the first k samples.  With TR varying the signal need
    not rise with TI, so the equation itself is asked.
    """
    u, v = timing.basis(grid)
    low, high = timing.factor_bounds(grid)
    steps = np.linspace(0.0, 1.0, 7)
    factors = low[:, None] + (high - low)[:, None] * steps
    signs = np.where(u[:, None, :] + factors[..., None] * v[:, None, :] < 0, -1.0, 1.0)
    return np.unique(signs.reshape(-1, signs.shape[-1]), axis=0)


def search_t1(
    signal: Array,
    weight: Array,
    timing: InversionTiming,
    grid: Array,
    patterns: Array,
    *,
    freedom: int,
    noise_known: bool,
) -> tuple[Array, Array, Array]:
    """Return the best T1 (m,), its signed curve (m, n), and how far off its rivals lie (m,).

    A rival is the solution of another sign pattern whose cost the data cannot tell from the
    best at the 95 % level.
    """
    costs, places = _grid_costs(signal, weight, timing, grid, patterns)
    rows = np.arange(len(signal))
    order = np.argsort(costs, axis=1)[:, :_CANDIDATES]
    found = [
        _golden(signal * patterns[choice], weight, timing, grid, places[rows, choice]) for choice in order.T
    ]
    t1, cost = (np.stack(part) for part in zip(*found, strict=True))
    best = cost.argmin(axis=0)
    lowest = cost[best, rows]
    log_distance = np.abs(np.log(t1 / t1[best, rows]))
    rival = cost <= lowest + _likeness(lowest, freedom, noise_known)
    return (
        t1[best, rows],
        signal * patterns[order[rows, best]],
        np.where(rival, log_distance, 0.0).max(axis=0),
    )


def _likeness(cost: Array, freedom: int, known: bool) -> Array:
    """Rise in cost up to which two solutions are alike at the 95 % level."""
    from scipy.special import stdtrit

    if known:
        return np.full(cost.shape, stdtrit(1e10, 0.975) ** 2)
    if freedom <= 0:
        return np.full(cost.shape, np.inf)
    rise: Array = stdtrit(freedom, 0.975) ** 2 * cost / freedom
    return rise


def _grid_costs(
    signal: Array, weight: Array, timing: InversionTiming, grid: Array, patterns: Array
) -> tuple[Array, NDArray[np.intp]]:
    """Least cost over the grid for each sign pattern and where it lies, both (m, k)."""
    u, v = timing.basis(grid)
    bounds = timing.factor_bounds(grid)
    squares = (weight @ (u * u).T, weight @ (u * v).T, weight @ (v * v).T)
    total = np.einsum("mn,mn->m", weight, signal**2)[:, None]
    costs = np.empty((len(signal), len(patterns)))
    places = np.empty(costs.shape, dtype=np.intp)
    for index, pattern in enumerate(patterns):
        weighted = weight * signal * pattern
        cost, _, _ = _amplitudes(squares, (weighted @ u.T, weighted @ v.T), total, bounds)
        places[:, index] = cost.argmin(axis=1)
        costs[:, index] = cost[np.arange(len(cost)), places[:, index]]
    return costs, places


def _amplitudes(
    squares: tuple[Array, Array, Array],
    products: tuple[Array, Array],
    total: Array,
    bounds: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """Least-squares A and b for S = A (u + b v), A >= 0 and b within its bounds.

    The allowed (A, A b) form a cone.  If the free solution lies outside it, the best allowed one
    lies on an edge, because the cost is convex.
    """
    uu, uv, vv = squares
    yu, yv = products
    determinant = uu * vv - uv * uv
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (yu * vv - yv * uv) / determinant
        b = (yv * uu - yu * uv) / determinant / a
        cost = total - a * (yu + b * yv)
    low, high = bounds
    inside: NDArray[np.bool_] = (determinant > 1e-12 * uu * vv) & (a > 0) & (b >= low) & (b <= high)
    cost = np.where(inside, cost, np.inf)
    for edge in (low, high):
        with np.errstate(divide="ignore", invalid="ignore"):
            along = yu + edge * yv
            norm = uu + 2 * edge * uv + edge * edge * vv
            amplitude = np.where(norm > 0, np.maximum(along, 0.0) / norm, 0.0)
        edge_cost = total - amplitude * along
        better = ~inside & (edge_cost < cost)
        cost, a = np.where(better, edge_cost, cost), np.where(better, amplitude, a)
        b = np.where(better, edge, b)
    return np.maximum(cost, 0.0), a, b


def best_amplitudes(
    t1: Array, curve: Array, weight: Array, timing: InversionTiming
) -> tuple[Array, Array, Array]:
    """Cost, A and b at one T1 per row."""
    u, v = timing.basis(t1)
    weighted_u, weighted_v = weight * u, weight * v
    squares = ((weighted_u * u).sum(1), (weighted_u * v).sum(1), (weighted_v * v).sum(1))
    products = ((weighted_u * curve).sum(1), (weighted_v * curve).sum(1))
    total = (weight * curve**2).sum(1)
    return _amplitudes(squares, products, total, timing.factor_bounds(t1))


def _golden(
    curve: Array, weight: Array, timing: InversionTiming, grid: Array, place: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Golden-section search in ln(T1) between the grid neighbours of the best grid point."""
    log_grid = np.log(grid)
    low = log_grid[np.maximum(place - 1, 0)]
    high = log_grid[np.minimum(place + 1, grid.size - 1)]
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    cost_left = best_amplitudes(np.exp(left), curve, weight, timing)[0]
    cost_right = best_amplitudes(np.exp(right), curve, weight, timing)[0]
    for _ in range(_GOLDEN_STEPS):
        go_left = cost_left < cost_right
        low, high = np.where(go_left, low, left), np.where(go_left, right, high)
        probe = np.where(go_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        cost = best_amplitudes(np.exp(probe), curve, weight, timing)[0]
        left, right = np.where(go_left, probe, right), np.where(go_left, left, probe)
        cost_left, cost_right = np.where(go_left, cost, cost_right), np.where(go_left, cost_left, cost)
    middle = np.exp((low + high) / 2)
    return middle, np.minimum(cost_left, cost_right)
