"""The inside of the pooled inversion-recovery fit: its equation, its starting point, its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.inversion_search import InversionTiming
from cordqa.models.relaxometry.signal import exponential_decay
from cordqa.models.relaxometry.variance_components import (
    APART,
    MISFIT,
    Linearised,
    Posterior,
    average_over_components,
)

__all__ = [
    "SMALLEST_NOISE",
    "Curves",
    "Pool",
    "doubt_factor",
    "far_from_median",
    "fit_pool",
    "polarity",
    "predict",
    "rival_distance",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Starting points: every inversion factor with every offset.  The search only has to come close
#: enough for the steps that follow.
_FACTORS = np.array([1.2, 1.4, 1.6, 1.75, 1.85, 1.95, 2.0])
_OFFSETS_S = np.array([-0.004, 0.0, 0.004, 0.008, 0.012])
_COARSE_STEP, _FINE_STEP = 0.03, 0.01
#: Misfit that the coarse search forgives: its grids do not meet the minimum.
_COARSE_MISFIT = 0.005
#: Effective inversion times stay above this fraction of the nominal ones.
_SHORTEST_SHARE = 0.1
_LONGEST_OFFSET_S = 0.030
_LARGEST_STEP = 0.3
_STEPS, _ROUNDS = 20, 4
#: Steps after which weights and noise are left as they are, so that the rest can converge.
_SETTLED = 8
_TOLERANCE, _GOOD_ENOUGH = 1e-9, 1e-5
#: A cost of a region beyond its expectation by this many standard deviations (chi squared) is doubted.
_DOUBT = 3.0
#: Noise relative to the strongest sample that is assumed at least: no likelihood is exact beyond it.
SMALLEST_NOISE = 1e-5
#: A region stands apart when its inversion factor lies this many standard deviations from the median
#: of all; the spread is taken from the median absolute deviation, which one region cannot move.
_FAR = 4.0
_NORMAL_MAD = 1.4826
#: Rise of the cost up to which another minimum is as likely as not at the 95 % level.
_ALIKE = 3.84
_NO_COMPONENT = np.zeros(1)


@dataclass(frozen=True, slots=True)
class Curves:
    """Samples of the regions, each divided by its strongest one.

    ``signal``, ``variance``, ``misfit`` (R, N) and ``used``; ``variance`` is that of the stated
    noise, or relative between samples where ``noise_known`` is false; ``misfit`` is the variance at a
    misfit of 1; ``limits`` are those of ln(T1).
    """

    signal: Array
    variance: Array
    misfit: Array
    used: Mask
    timing: InversionTiming
    signed: bool
    noise_known: bool
    limits: tuple[float, float]

    @property
    def freedom(self) -> float:
        """Samples less parameters of all regions together (image gains count as parameters)."""
        n_regions = int(np.count_nonzero(self.used.any(axis=1)))
        n_gains = int(np.count_nonzero(self.used.any(axis=0))) - 1
        return float(max(int(np.count_nonzero(self.used)) - 2 * n_regions - 2 - n_gains, 1))


@dataclass(frozen=True, slots=True)
class Pool:
    """State of the fit: own parameters of each region (R,), those of the scan, gains of images (N,).

    ``doubt`` (R,) divides the weight of a region whose curve the model does not follow; ``noise`` is
    the factor on :attr:`Curves.variance`; ``outside`` marks regions without a minimum within the
    search, which take no part; ``apart`` those whose inversion factor is far from all others'.
    """

    log_t1: Array
    m0: Array
    deviation: Array
    factor: float
    offset_s: float
    log_gain: Array
    doubt: Array
    noise: float
    outside: Mask
    apart: Mask
    posterior: Posterior
    converged: bool = False

    @property
    def factors(self) -> Array:
        """Inversion factor of each region."""
        return np.asarray(self.factor + self.deviation)


def predict(pool: Pool, timing: InversionTiming) -> tuple[Array, Array, Array]:
    """Return signed curves (R, N), derivatives by ln T1, ln M0, b (R, N, 3), and by the offset (R, N)."""
    t1 = np.exp(pool.log_t1)
    here = _shifted(timing, pool.offset_s)
    u, v = here.basis(t1)
    slope_u, slope_v = here.basis_slope(t1)
    scale = np.exp(pool.log_gain) * pool.m0[:, None]
    factor = pool.factors[:, None]
    curve = scale * (u + factor * v)
    own = np.stack([scale * (slope_u + factor * slope_v), curve, scale * v], axis=-1)
    by_offset = scale * factor * exponential_decay(here.inversion, t1[:, None]) / t1[:, None]
    return curve, own, by_offset


def _shifted(timing: InversionTiming, offset_s: float) -> InversionTiming:
    return replace(timing, inversion=timing.inversion + offset_s)


def fit_pool(curves: Curves) -> Pool:
    """Search, then step to the minimum; repeat while a region finds a better T1 elsewhere."""
    start = _start(curves)
    signs = polarity(start, curves)
    pool = _descend(start, curves, signs)
    for _ in range(_ROUNDS):
        moved = _rescan(pool, curves)
        changed = polarity(moved, curves)
        taken = curves.used & ~pool.outside[:, None]
        same = (moved.outside == pool.outside).all() and (changed == signs)[taken].all()
        if same or not pool.converged:
            break
        signs = changed
        pool = _descend(moved, curves, signs)
    return pool


def _start(curves: Curves) -> Pool:
    """Best of all combinations of factor and offset, by a sum over regions that none can dominate."""
    log_grid = _log_grid(curves, _COARSE_STEP)
    weight = curves.used / (curves.variance * curves.noise_known + _COARSE_MISFIT**2)
    best, lowest = (0, 0), np.inf
    offsets = _OFFSETS_S[curves.timing.inversion.min() + _OFFSETS_S > 0]
    for i, offset in enumerate(offsets):
        u, v = _shifted(curves.timing, float(offset)).basis(np.exp(log_grid))
        for j, factor in enumerate(_FACTORS):
            cost, _ = _grid_cost(curves, weight, (u + factor * v)[None])
            total = float(np.log1p(cost.min(axis=1) / 4).sum())
            if total < lowest:
                best, lowest = (i, j), total
    offset, factor = float(offsets[best[0]]), float(_FACTORS[best[1]])
    u, v = _shifted(curves.timing, offset).basis(np.exp(log_grid))
    cost, m0 = _grid_cost(curves, weight, (u + factor * v)[None])
    place = cost.argmin(axis=1)
    return _at_start(curves, factor, offset, log_grid[place], m0[np.arange(len(m0)), place])


def _at_start(curves: Curves, factor: float, offset_s: float, log_t1: Array, m0: Array) -> Pool:
    n_regions, n_images = curves.signal.shape
    return Pool(
        log_t1=log_t1,
        m0=m0,
        deviation=np.zeros(n_regions),
        factor=factor,
        offset_s=offset_s,
        log_gain=np.zeros(n_images),
        doubt=np.ones(n_regions),
        noise=1.0 if curves.noise_known else _COARSE_MISFIT**2,
        outside=_outside(log_t1, curves),
        apart=np.zeros(n_regions, dtype=bool),
        posterior=Posterior.unknown(n_regions, n_images + 1),
    )


def _log_grid(curves: Curves, step: float) -> Array:
    low, high = curves.limits
    return np.linspace(low, high, max(int(np.ceil((high - low) / step)), 2) + 1)


def _grid_cost(curves: Curves, weight: Array, shape: Array) -> tuple[Array, Array]:
    """Cost and M0 of every region at every T1 of the grid, both (R, grid)."""
    form = np.broadcast_to(shape if curves.signed else np.abs(shape), (len(weight), *shape.shape[1:]))
    # The sign of signed curves as a whole is open.
    product = np.abs(np.einsum("rn,rgn->rg", weight * curves.signal, form))
    norm = np.einsum("rn,rgn->rg", weight, form**2)
    m0 = np.where(norm > 0, product / np.where(norm > 0, norm, 1.0), 0.0)
    total = (weight * curves.signal**2).sum(axis=1)[:, None]
    return np.maximum(total - m0 * product, 0.0), m0


def _outside(log_t1: Array, curves: Curves) -> Mask:
    low, high = curves.limits
    outside: Mask = (log_t1 <= low + 1e-9) | (log_t1 >= high - 1e-9)
    return outside


def polarity(pool: Pool, curves: Curves) -> Array:
    """Return the polarity of each magnitude by its curve; of signed data, one for the whole curve."""
    curve = predict(pool, curves.timing)[0]
    if curves.signed:
        curve = np.broadcast_to((curves.used * curves.signal * curve).sum(axis=1)[:, None], curve.shape)
    return np.where(curve < 0, -1.0, 1.0)


def _descend(pool: Pool, curves: Curves, signs: Array) -> Pool:
    """Gauss-Newton steps at fixed polarity, with the variance components averaged at each."""
    contrasts = _contrasts(curves.signal.shape[1])
    signal = curves.signal * signs
    misfits = MISFIT if curves.noise_known else _NO_COMPONENT
    distance = np.inf
    for step in range(_STEPS):
        line = _linearise(pool, curves, signal, contrasts)
        try:
            posterior = average_over_components(line, misfit=misfits)
        except np.linalg.LinAlgError:
            return replace(pool, converged=False)
        if not posterior.is_finite:
            return replace(pool, converged=False)
        before, pool = pool, _step(pool, posterior, curves, contrasts)
        distance = _distance(before, pool)
        if step >= 2 and distance < _TOLERANCE:
            break
        if step < _SETTLED:
            pool = _weigh(pool, curves, signal)
    return replace(pool, converged=bool(distance < _GOOD_ENOUGH))


def _distance(before: Pool, after: Pool) -> float:
    """Largest change of ln T1, inversion factor and offset (in units of 10 ms)."""
    return max(
        float(np.abs(after.log_t1 - before.log_t1).max(initial=0.0)),
        abs(after.factor - before.factor),
        abs(after.offset_s - before.offset_s) / 0.010,
    )


def _contrasts(n: int) -> Array:
    """Orthonormal gains of the images that sum to zero, shape (n, n - 1): M0 has the mean gain."""
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0]
    return np.asarray(basis[:, 1:])


def _linearise(pool: Pool, curves: Curves, signal: Array, contrasts: Array) -> Linearised:
    curve, own, by_offset = predict(pool, curves.timing)
    put_back = own[..., 2] * pool.factors[:, None] + by_offset * pool.offset_s + curve * pool.log_gain
    shared = np.concatenate([own[..., 2:], by_offset[..., None], curve[..., None] * contrasts], axis=-1)
    weight = curves.used * (~pool.outside / pool.doubt)[:, None]
    return Linearised(
        residual=signal - curve + put_back,
        own=own,
        shared=shared,
        noise=curves.variance * pool.noise,
        misfit=curves.misfit,
        weight=weight,
        apart=pool.apart,
    )


def _step(pool: Pool, posterior: Posterior, curves: Curves, contrasts: Array) -> Pool:
    """Take the averaged solution, at most a third of T1 and M0 at a time."""
    own = np.clip(posterior.own[:, :2], -_LARGEST_STEP, _LARGEST_STEP)
    log_t1 = np.clip(pool.log_t1 + own[:, 0], *curves.limits)
    shortest = -(1 - _SHORTEST_SHARE) * float(curves.timing.inversion.min())
    return replace(
        pool,
        log_t1=np.where(pool.outside, pool.log_t1, log_t1),
        m0=pool.m0 * np.exp(own[:, 1]),
        deviation=posterior.own[:, 2],
        factor=float(posterior.shared[0]),
        offset_s=float(np.clip(posterior.shared[1], shortest, _LONGEST_OFFSET_S)),
        log_gain=contrasts @ posterior.shared[2:],
        outside=pool.outside | _outside(log_t1, curves),
        posterior=posterior,
    )


def _weigh(pool: Pool, curves: Curves, signal: Array) -> Pool:
    """Find the noise where it is not known, and which regions to doubt.

    The weight of a region falls with the square of its cost, once this is beyond what chance allows: a
    region far off then has no say in the parameters and variances of the scan.
    """
    square = np.where(curves.used, signal - predict(pool, curves.timing)[0], 0.0) ** 2
    active = curves.used & ~pool.outside[:, None]
    noise = pool.noise
    if not curves.noise_known:
        scatter = float((square * active / curves.variance / pool.doubt[:, None]).sum())
        noise = max(scatter / curves.freedom, SMALLEST_NOISE**2)
    misfit, spread, _ = pool.posterior.likeliest
    cost = (square * active / (curves.variance * noise + misfit**2 * curves.misfit)).sum(axis=1)
    apart = _apart(pool)
    scale = np.where(apart, APART, spread)
    cost = cost + np.divide(pool.deviation, scale, out=np.zeros(scale.shape), where=scale > 0) ** 2
    return replace(pool, noise=noise, apart=apart, doubt=np.maximum(cost / _allowed(active), 1.0) ** 2)


def _apart(pool: Pool) -> Mask:
    """Tell which inversion factors lie too far from the median to belong to the spread of the others.

    One region with something added to its signal looks like one with another inversion; counted
    with the others it would make the scan look uneven, and all regions uncertain.
    """
    deviation = np.where(pool.outside, np.nan, pool.deviation)
    return far_from_median(deviation, np.sqrt(pool.posterior.own_variance[:, 2]))


def far_from_median(values: Array, errors: Array) -> Mask:
    """Tell which values are more than four standard deviations from the median of all; NaN is not."""
    known = np.isfinite(values)
    if not known.any():
        return known
    away = np.abs(values - np.median(values[known]))
    usual = _NORMAL_MAD * np.median(away[known])
    with np.errstate(invalid="ignore"):
        far: Mask = known & (away > _FAR * np.sqrt(usual**2 + errors**2))
    return far


def _allowed(active: Mask) -> Array:
    """Cost up to which a region is not doubted: the expectation and three standard deviations."""
    freedom = np.maximum(active.sum(axis=1) - 2, 1)
    return np.asarray(freedom + _DOUBT * np.sqrt(2 * freedom))


def doubt_factor(pool: Pool, curves: Curves) -> Array:
    """Factor on the variance of a doubted region's own parameters.

    Its lower weight says how little it counts for the others.  Its own variance should be such that
    its cost is what is expected.
    """
    freedom = np.maximum(curves.used.sum(axis=1) - 2, 1)
    cost = np.sqrt(pool.doubt) * _allowed(curves.used)
    return np.asarray(np.where(pool.doubt > 1, cost / freedom / pool.doubt, 1.0))


def _fine_cost(pool: Pool, curves: Curves) -> tuple[Array, Array, Array]:
    """Cost over a fine grid of T1 with everything else as it is: ln T1 (g,), cost and M0 (R, g)."""
    log_grid = _log_grid(curves, _FINE_STEP)
    u, v = _shifted(curves.timing, pool.offset_s).basis(np.exp(log_grid))
    shape = (u + pool.factors[:, None, None] * v) * np.exp(pool.log_gain)
    variance = curves.variance * pool.noise + pool.posterior.likeliest[0] ** 2 * curves.misfit
    doubt = pool.doubt * doubt_factor(pool, curves)
    cost, m0 = _grid_cost(curves, curves.used / variance / doubt[:, None], shape)
    return log_grid, cost, m0


def _rescan(pool: Pool, curves: Curves) -> Pool:
    """Look for a better T1 of each region over the whole range, at the parameters of the scan."""
    log_grid, cost, m0 = _fine_cost(pool, curves)
    best = _depth(cost).argmin(axis=1)
    log_t1, best_m0 = log_grid[best], m0[np.arange(len(cost)), best]
    still = np.abs(log_t1 - pool.log_t1) <= 2 * _FINE_STEP
    return replace(
        pool,
        log_t1=np.where(still, pool.log_t1, log_t1),
        m0=np.where(still, pool.m0, best_m0),
        outside=_outside(log_t1, curves),
    )


def rival_distance(pool: Pool, curves: Curves) -> Array:
    """Distance in ln T1 to the farthest other minimum that the data cannot tell from this one."""
    log_grid, cost, _ = _fine_cost(pool, curves)
    depth = _depth(cost)
    away = np.abs(log_grid - pool.log_t1[:, None])
    alike = (depth <= depth.min(axis=1, keepdims=True) + _ALIKE) & (away > 2 * _FINE_STEP)
    return np.asarray(np.where(alike, away, 0.0).max(axis=1))


def _depth(cost: Array) -> Array:
    """Cost at the minima along the grid, by a parabola; infinite where there is none."""
    padded = np.pad(cost, ((0, 0), (1, 1)), constant_values=np.inf)
    left, right = padded[:, :-2], padded[:, 2:]
    lowest = (cost <= left) & (cost < right)
    inner = np.isfinite(left) & np.isfinite(right)
    bend = np.where(inner, left, cost) - 2 * cost + np.where(inner, right, cost)
    tilt = (np.where(inner, right, cost) - np.where(inner, left, cost)) / 2
    gain = np.where(bend > 0, tilt**2 / (2 * np.where(bend > 0, bend, 1.0)), 0.0)
    return np.where(lowest, np.maximum(cost - gain, 0.0), np.inf)
