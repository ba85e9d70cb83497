"""Equation of the multi-dynamic multi-echo scan, and its fit to many voxels at once.

Arrays have the voxels last, so that every operation runs over all of them: parameters (4, m) are
ln M0, ln T1, ln T2, ln B1; signals are (n_images, m).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.models.relaxometry.noise import rician_excess

__all__ = [
    "Batch",
    "Ranges",
    "Timing",
    "count_unknown",
    "determines",
    "evaluate",
    "mean_magnitude",
    "normal_matrix",
    "refine",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Tissue and fields at which a set of images is judged: what it determines nowhere here, it does not.
_PROBES = np.log(np.array([[1.0, 1.0, 1.0], [0.5, 1.1, 2.0], [0.06, 0.09, 0.2], [0.9, 1.0, 1.1]]))
#: Smallest over largest singular value of a determined set.
_SINGULAR = 1e-4
_MAX_STEPS = 40
_TOLERANCE = 1e-7
_FLAT = 1e-10
#: Damping that does not shorten a step, and the gain in cost that moves no parameter by a thousandth of its
#: standard error, in units of the noise variance.
_LITTLE, _STILL = 1e-2, 1e-6
_LARGEST_STEP = 1.0
_MAX_DAMPING = 1e10
_TINY = np.finfo(float).tiny
#: Slope of the mean magnitude that counts at least.  Near a null it is none, yet a sample there tells that
#: the signal is near it (slope of a signal of one noise), and the cost is curved (that of two).
_SLOPE_KNOWN, _SLOPE_CURVED = 0.55, 0.8
#: B1 beyond which a saturation of 120 degrees can no longer be told from a deeper one.
_B1_RANGE = (0.4, 1.6)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds and angles in radians; one delay and echo time per image.

    ``delay`` and ``echo`` are the places of each image among the distinct ones.
    """

    delays: Array
    echoes: Array
    repetition: float
    excitation: float
    saturation: float
    distinct_delays: Array = field(init=False)
    distinct_echoes: Array = field(init=False)
    delay: NDArray[np.intp] = field(init=False)
    echo: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        for times, distinct, place in (
            (self.delays, "distinct_delays", "delay"),
            (self.echoes, "distinct_echoes", "echo"),
        ):
            values, where = np.unique(times, return_inverse=True)
            object.__setattr__(self, distinct, values[:, None])
            object.__setattr__(self, place, where.reshape(-1))

    def take(self, images: NDArray[np.intp]) -> Timing:
        """Return the timing of some of the images."""
        return Timing(
            self.delays[images], self.echoes[images], self.repetition, self.excitation, self.saturation
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Range of every parameter, seconds and ratio."""

    t1: tuple[float, float]
    t2: tuple[float, float]
    b1: tuple[float, float] = _B1_RANGE

    def logarithms(self) -> tuple[Array, Array]:
        """Lower and upper ends of the parameters."""
        pairs = ((1e-20, 1e20), self.t1, self.t2, self.b1)
        ends = np.log(np.array(pairs))
        return ends[:, 0], ends[:, 1]


@dataclass(slots=True)
class Batch:
    """Solutions of a batch: parameters (4, m), cost (m,), and what became of each."""

    parameters: Array
    cost: Array
    converged: Mask
    held: Mask  # at an end of its range


def count_unknown(*, free_b1: bool) -> int:
    """Count the fitted parameters."""
    return 4 if free_b1 else 3


def evaluate(parameters: Array, timing: Timing) -> Array:
    """Return the signed signal, shape (n_images, m)."""
    shape, decay, _ = _factors(parameters, timing)
    amplitude = np.exp(parameters[0])
    signal: Array = amplitude * shape[timing.delay] * decay[timing.echo]
    return signal


def _factors(parameters: Array, timing: Timing) -> tuple[Array, Array, Array]:
    """Return recovery (n_delays, m), decay (n_echoes, m), and recovery's slopes (2, n_delays, m).

    The slopes are by ln T1 and by ln B1.
    """
    delays, echoes = timing.distinct_delays, timing.distinct_echoes
    rate1, rate2 = np.exp(-parameters[1]), np.exp(-parameters[2])
    b1 = np.exp(parameters[3])
    a, th = timing.excitation * b1, timing.saturation * b1
    sin_a, cos_a, sin_th, cos_th = np.sin(a), np.cos(a), np.sin(th), np.cos(th)
    late = np.exp(-timing.repetition * rate1)
    early = np.exp(-delays * rate1)
    top = 1 - (1 - cos_th) * early - cos_th * late
    bottom = 1 - cos_a * cos_th * late
    shape = sin_a * top / bottom
    early_slope, late_slope = early * (delays * rate1), late * (timing.repetition * rate1)
    by_t1 = sin_a * (-(1 - cos_th) * early_slope - cos_th * late_slope) / bottom
    by_t1 += shape * (cos_a * cos_th * late_slope) / bottom
    by_b1 = sin_a * (-th * sin_th * (early - late)) / bottom
    by_b1 += (a * cos_a) * top / bottom
    by_b1 -= shape * ((a * sin_a * cos_th + th * cos_a * sin_th) * late) / bottom
    return shape, np.exp(-echoes * rate2), np.stack([by_t1, by_b1])


def _derivatives(parameters: Array, timing: Timing) -> tuple[Array, Array]:
    """Return the signal (n, m) and its slopes (4, n, m) by the parameters."""
    shape, decay, slopes = _factors(parameters, timing)
    delay, echo = timing.delay, timing.echo
    late = np.exp(parameters[0]) * decay
    late = late[echo]
    by = np.empty((4, *late.shape))
    signal = by[0]
    np.multiply(late, shape[delay], out=signal)
    np.multiply(late, slopes[0][delay], out=by[1])
    np.multiply(signal, timing.echoes[:, None] * np.exp(-parameters[2]), out=by[2])
    np.multiply(late, slopes[1][delay], out=by[3])
    return signal, by


def determines(timing: Timing, *, free_b1: bool) -> bool:
    """Tell whether a set of images determines its parameters at tissue-like values."""
    unknown = count_unknown(free_b1=free_b1)
    if timing.delays.size < unknown:
        return False
    _, slopes = _derivatives(np.vstack([np.zeros((1, _PROBES.shape[1])), _PROBES[1:]]), timing)
    for n in range(_PROBES.shape[1]):
        columns = slopes[:unknown, :, n]
        size = np.linalg.norm(columns, axis=1, keepdims=True)
        if (size < _SINGULAR).any():
            return False
        values = np.linalg.svd(columns / size, compute_uv=False)
        if values[-1] < _SINGULAR * values[0]:
            return False
    return True


def normal_matrix(
    parameters: Array, timing: Timing, *, free_b1: bool, floor_sd: Array | None = None
) -> Array:
    """Return J^T J of unit noise, shape (p, p, m); of mean magnitudes where ``floor_sd`` is given."""
    predicted, slopes = _derivatives(parameters, timing)
    used = slopes[: count_unknown(free_b1=free_b1)]
    if floor_sd is not None:
        used = used * np.maximum(np.abs(mean_magnitude(predicted, floor_sd)[1]), _SLOPE_KNOWN)
    return np.asarray(np.einsum("pnm,qnm->pqm", used, used))


def mean_magnitude(predicted: Array, floor_sd: Array) -> tuple[Array, Array]:
    """Mean magnitude (n, m) of signed signals under Rician noise (m,), and its slope by the signal."""
    size = np.abs(predicted)
    excess, slope = rician_excess(size / floor_sd)
    return size + floor_sd * excess, np.copysign(slope, predicted)


@dataclass(slots=True)
class _State:
    """What a Gauss-Newton step needs at some parameters: cost, gradient and normal matrix."""

    cost: Array
    gradient: Array
    normal: Array

    @classmethod
    def at(
        cls, parameters: Array, signal: Array, timing: Timing, unknown: int, floor_sd: Array | None
    ) -> _State:
        predicted, slopes = _derivatives(parameters, timing)
        slopes = slopes[:unknown]
        if floor_sd is None:
            residual = pull = signal - predicted
        else:
            mean, share = mean_magnitude(predicted, floor_sd)
            least = np.maximum(np.abs(share), _SLOPE_CURVED)
            residual = signal - mean
            slopes, pull = slopes * least, residual * share / least
        cost = np.einsum("nm,nm->m", residual, residual)
        gradient = np.einsum("pnm,nm->pm", slopes, pull)
        normal = np.empty((unknown, unknown, cost.size))
        for p in range(unknown):
            for q in range(p + 1):
                normal[p, q] = normal[q, p] = np.einsum("nm,nm->m", slopes[p], slopes[q])
        return cls(np.where(np.isfinite(cost), cost, np.inf), gradient, normal)

    def take(self, other: _State, into: NDArray[np.intp], where: Mask) -> None:
        self.cost[into] = other.cost[where]
        self.gradient[:, into] = other.gradient[:, where]
        self.normal[:, :, into] = other.normal[:, :, where]


def refine(
    start: Array,
    signal: Array,
    timing: Timing,
    *,
    ranges: Ranges,
    free_b1: bool,
    floor_sd: Array | None = None,
) -> Batch:
    """Minimise the squared difference of a signed signal from ``start`` (4, m) by damped Gauss-Newton steps.

    With ``floor_sd`` (m,), the positive noise of one channel, the signal is a magnitude and is compared with
    its mean under Rician noise.  A voxel leaves the loop when its step is below 1e-7 in every logarithm,
    or when a step with little damping lowered its cost by less than the fraction 1e-10 (with a floor: or by
    1e-6 of the noise variance).
    """
    low, high = (end[:, None] for end in ranges.logarithms())
    parameters = np.clip(start, low, high)
    count, unknown = parameters.shape[1], count_unknown(free_b1=free_b1)
    state = _State.at(parameters, signal, timing, unknown, floor_sd)
    done = np.zeros(count, dtype=bool)
    damping, growth = np.full(count, 1e-3), np.full(count, 2.0)
    still = np.zeros(count) if floor_sd is None else _STILL * floor_sd**2
    for _ in range(_MAX_STEPS):
        todo = np.flatnonzero(~done & (damping < _MAX_DAMPING))
        if not todo.size:
            break
        here, seen = parameters[:, todo], signal[:, todo]
        step = _step(here, state, todo, damping[todo], (low, high))
        trial = here.copy()
        trial[:unknown] = np.clip(here[:unknown] + step, low[:unknown], high[:unknown])
        moved = np.abs(trial - here).max(axis=0)
        new = _State.at(trial, seen, timing, unknown, None if floor_sd is None else floor_sd[todo])
        old = state.cost[todo]
        better = new.cost <= old
        least = _FLAT * new.cost if floor_sd is None else np.maximum(_FLAT * new.cost, still[todo])
        flat = better & (old - new.cost <= least) & (damping[todo] < _LITTLE)
        took = todo[better]
        parameters[:, took] = trial[:, better]
        state.take(new, took, better)
        damping[todo] *= np.where(better, 0.1, growth[todo])
        growth[todo] = np.where(better, 2.0, 2 * growth[todo])
        done[todo] = (moved < _TOLERANCE) | flat
    held: Mask = np.any(((parameters <= low) | (parameters >= high))[:unknown], axis=0)
    found = done & np.isfinite(state.cost)
    return Batch(parameters=parameters, cost=state.cost, converged=found, held=held)


def _step(
    parameters: Array, state: _State, todo: NDArray[np.intp], damping: Array, ends: tuple[Array, Array]
) -> Array:
    """Damped Gauss-Newton step (p, m); parameters pushed against an end stay there."""
    gradient, normal = state.gradient[:, todo], state.normal[:, :, todo]
    unknown = len(gradient)
    here, low, high = parameters[:unknown], ends[0][:unknown], ends[1][:unknown]
    blocked = ((here <= low) & (gradient < 0)) | ((here >= high) & (gradient > 0))
    if blocked.any():
        normal = np.where(blocked[:, None] | blocked[None], 0.0, normal)
        gradient = np.where(blocked, 0.0, gradient)
    step = _solve(normal, gradient, damping)
    return np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)


def _solve(normal: Array, gradient: Array, damping: Array) -> Array:
    """Solve (N + damping diag N) x = g for all voxels, by Cholesky without pivoting."""
    p = len(gradient)
    diagonal = np.einsum("ppm->pm", normal)
    scale = np.where(diagonal > _TINY, 1 / np.sqrt(np.maximum(diagonal, _TINY)), 0.0)
    # Unit diagonal: parameters of different size become comparable, dead ones drop out.
    ridge = 1 + damping + 1e-13
    factor: dict[tuple[int, int], Array] = {}
    for i in range(p):
        for j in range(i + 1):
            total = ridge if i == j else normal[i, j] * scale[i] * scale[j]
            for k in range(j):
                total = total - factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(np.maximum(total, 1e-14)) if i == j else total / factor[j, j]
    solution = np.empty_like(gradient)
    for i in range(p):
        total = gradient[i] * scale[i]
        for k in range(i):
            total = total - factor[i, k] * solution[k]
        solution[i] = total / factor[i, i]
    for i in reversed(range(p)):
        total = solution[i]
        for k in range(i + 1, p):
            total = total - factor[k, i] * solution[k]
        solution[i] = total / factor[i, i]
    step: Array = np.nan_to_num(solution * scale, nan=0.0, posinf=0.0, neginf=0.0)
    return step
