"""T2* from multi-echo gradient echo, with the mean of Rician noise and dephasing through the slice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import broadcast_to_signal, check_range, check_signal, check_times
from cordqa.models.relaxometry.fitting import (
    AT_BOUND,
    OUTSIDE_RANGE,
    TOO_FEW,
    Problem,
    RelaxometryFit,
    Solution,
    fit_by_pattern,
)
from cordqa.models.relaxometry.least_squares import solve_least_squares
from cordqa.models.relaxometry.noise import rician_mean, rician_weight

__all__ = [
    "DEPHASED",
    "fit_gradient_echo",
    "gradient_echo_signal",
    "slice_dephasing",
    "slice_gradient",
    "slice_gradient_from_phase",
]

Array = NDArray[np.float64]

#: Why a voxel has no value whose signal is gone before three echoes.
DEPHASED = "dephased"
#: Echoes whose slice has lost more than this share are left out: the true profile is no rectangle.
_LEAST_LEFT = 0.3
_GRID_POINTS = 64


def slice_dephasing(echo_times_s: ArrayLike, gradient_hz: ArrayLike) -> Array:
    """Signal left of a rectangular slice over which the frequency varies by ``gradient_hz``.

    ``|sinc(gradient TE)|``, shape (..., n_echoes); its first null lies at TE = 1 / gradient.

    References
    ----------
    .. [1] Fernandez-Seara and Wehrli, Magn Reson Med 2000,
       doi:10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I
    """
    turns = np.asarray(gradient_hz, dtype=float)[..., None] * np.asarray(echo_times_s, dtype=float)
    left: Array = np.abs(np.sinc(turns))
    return left


def gradient_echo_signal(
    echo_times_s: ArrayLike, t2star_s: ArrayLike, *, m0: ArrayLike = 1.0, gradient_hz: ArrayLike = 0.0
) -> Array:
    """M0 exp(-TE/T2*) times what dephasing through the slice leaves, shape (..., n_echoes)."""
    times = np.asarray(echo_times_s, dtype=float)
    constant = np.asarray(t2star_s, dtype=float)[..., None]
    decay = np.exp(-times / np.where(constant > 0, constant, np.nan))
    signal: Array = np.asarray(m0, dtype=float)[..., None] * decay * slice_dephasing(times, gradient_hz)
    return signal


def slice_gradient(field_hz: ArrayLike, *, axis: int) -> Array:
    """Change of the frequency across one slice, from a field map.

    Half the difference of both neighbours; one-sided where only one has a value.  Slices are taken to
    touch: with gaps the slice holds less of the change than this.

    Parameters
    ----------
    field_hz : array_like, shape (i, j, k)
        NaN outside.
    axis : int
        Array axis across slices.

    Returns
    -------
    ndarray
        Hz per slice; NaN where neither neighbour has a value.
    """
    field = np.moveaxis(np.asarray(field_hz, dtype=float), axis, 0)
    return np.moveaxis(_central(np.diff(field, axis=0), field.shape), 0, axis)


def slice_gradient_from_phase(phase_rad: ArrayLike, echo_times_s: ArrayLike, *, axis: int) -> Array:
    """Change of the frequency across one slice, from the wrapped phase of the first two echoes.

    The phase that grows between the echoes is compared between slices as an angle, so nothing needs
    to be unwrapped while neighbours differ by less than half a turn.

    Parameters
    ----------
    phase_rad : array_like, shape (i, j, k, n_echoes)
    echo_times_s : array_like, shape (n_echoes,)
    axis : int
        Array axis across slices.
    """
    phase, times = np.asarray(phase_rad, dtype=float), np.asarray(echo_times_s, dtype=float)
    if times.size < 2 or phase.shape[-1] != times.size:
        raise InputError(
            "the phase of two echoes is needed", found=f"{phase.shape[-1]} phases, {times.size} echo times"
        )
    order = np.argsort(times)[:2]
    spacing = float(times[order[1]] - times[order[0]])
    if spacing <= 0:
        raise InputError("the first two echo times must differ", found=f"{times[order[0]]:g} s twice")
    grown = np.moveaxis(phase[..., order[1]] - phase[..., order[0]], axis, 0)
    steps = np.angle(np.exp(1j * np.diff(grown, axis=0))) / (2 * np.pi * spacing)
    return np.moveaxis(_central(steps, grown.shape), 0, axis)


def _central(steps: Array, shape: tuple[int, ...]) -> Array:
    """Mean of the steps to both neighbours; of one where the other is not known."""
    total, count = np.zeros(shape), np.zeros(shape)
    for part, side in ((slice(None, -1), steps), (slice(1, None), steps)):
        known = np.isfinite(side)
        total[part] += np.where(known, side, 0.0)
        count[part] += known
    gradient: Array = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    return gradient


def fit_gradient_echo(
    signal: ArrayLike,
    echo_times_s: ArrayLike,
    *,
    noise_sd: ArrayLike | None = None,
    noise_floor: bool = True,
    gradient_hz: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    t2star_range_s: tuple[float, float] = (0.0005, 1.0),
) -> RelaxometryFit:
    """Fit M0 exp(-TE/T2*), dephased through the slice and seen through Rician noise.

    Parameters
    ----------
    signal : array_like, shape (..., n_echoes)
        Magnitude.
    echo_times_s : array_like, shape (n_echoes,)
    noise_sd : array_like, optional
        Standard deviation of one channel, broadcast to the signal.  With it the fitted curve is the
        mean magnitude, and each echo weighs by the variance that its magnitude has.
    noise_floor : bool
        False: the noise only weighs; signals are taken as free of a floor.
    gradient_hz : array_like, optional
        Change of the frequency across the slice, broadcast to the voxels.  Echoes of which dephasing
        leaves less than 30 % are not used.
    valid : array_like of bool, optional
    t2star_range_s : tuple of float

    Returns
    -------
    RelaxometryFit
        Parameters ``t2star_s`` and ``m0``.  Voxels left with fewer than three echoes by dephasing have
        the reason "dephased".

    Raises
    ------
    InputError
        If shapes or times cannot be used, or a magnitude is negative.
    """
    times = check_times(echo_times_s, "echo times", longest_s=0.5)
    if np.unique(times).size < 2:
        raise InputError("at least two different echo times are needed", found=f"{times.tolist()}")
    data = check_signal(signal, times.size)
    shape = data.shape[:-1]
    left = np.ones(data.shape)
    used = np.ones(data.shape, dtype=bool)
    if gradient_hz is not None:
        gradient = broadcast_to_signal(gradient_hz, shape, "the gradient").astype(float)
        left = slice_dephasing(times, np.where(np.isfinite(gradient), gradient, 0.0))
        before_null = np.abs(np.nan_to_num(gradient))[..., None] * times < 1
        used = (left >= _LEAST_LEFT) & before_null
    enough = np.isfinite(data) & used
    gone = (enough.sum(axis=-1) < 3) & (np.isfinite(data).sum(axis=-1) >= 3)
    if valid is not None:
        used = used & broadcast_to_signal(valid, data.shape, "valid").astype(bool)
    floor = np.zeros(data.shape)
    if noise_sd is not None and noise_floor:
        sd = broadcast_to_signal(noise_sd, data.shape, "noise_sd").astype(float)
        floor = np.where(np.isfinite(sd) & (sd > 0), sd, 0.0)
    solver = partial(
        _solve,
        times=times,
        left=left.reshape(-1, times.size),
        floor=floor.reshape(-1, times.size),
        limits=check_range(t2star_range_s, "T2*"),
    )
    described = ["exponential"]
    described += ["mean of Rician noise"] if floor.any() else []
    described += ["dephasing through the slice"] if gradient_hz is not None else []
    fit = fit_by_pattern(
        data,
        times.size,
        solver,
        model=", ".join(described),
        names=("t2star_s", "m0"),
        minimum=2,
        valid=used,
        noise_sd=noise_sd,
        distinct=times,
        refused=np.where(gone, DEPHASED, ""),
    )
    # Too few echoes because of dephasing is the reason that helps the reader.
    return replace(fit, reason=np.where(gone & (fit.reason == TOO_FEW), DEPHASED, fit.reason))


def _solve(
    problem: Problem, *, times: Array, left: Array, floor: Array, limits: tuple[float, float]
) -> Solution:
    signal = np.abs(problem.signal)
    here = left[np.ix_(problem.rows, problem.columns)]
    noise = floor[problem.rows] / problem.scale[:, None]
    near = noise[:, problem.columns]
    start = _search(signal, times[problem.columns], here, near, limits)
    weight = _weights(problem, start, times[problem.columns], here, near)
    n = len(signal)
    fit = solve_least_squares(
        partial(_model, times=times[problem.columns], left=here, floor=near),
        start,
        signal,
        weight=weight,
        low=np.tile([np.log(limits[0]), -50.0], (n, 1)),
        high=np.tile([np.log(limits[1]), 50.0], (n, 1)),
    )
    predicted, _ = _model(fit.parameters, np.arange(n), times=times, left=left[problem.rows], floor=noise)
    t2star, m0 = np.exp(fit.parameters.T)
    held = fit.held[:, 0] | fit.held[:, 1]
    # An amplitude e^10 above the strongest sample is an extrapolation over ten T2*: no fit.
    reason = np.where(held, OUTSIDE_RANGE, np.where(fit.parameters[:, 1] > 10.0, AT_BOUND, ""))
    return Solution(
        fit=fit,
        values={"t2star_s": (t2star, 0, t2star), "m0": (m0, 1, m0)},
        predicted=predicted,
        reason=reason,
        n_parameters=2,
        weight=weight,
    )


def _search(signal: Array, times: Array, left: Array, floor: Array, limits: tuple[float, float]) -> Array:
    """Best (ln T2*, ln M0) on a grid, with the floor taken out of the squares."""
    square = np.maximum(signal**2 - 2 * floor**2, 0.0)
    bare = np.sqrt(square)
    trusted = square / (square + 2 * floor**2 + np.finfo(float).tiny)
    lowest = np.full(len(signal), np.inf)
    best_time, best_size = np.full(len(signal), limits[0]), np.full(len(signal), 1e-6)
    for constant in np.geomspace(*limits, _GRID_POINTS):
        shape = np.exp(-times / constant) * left
        if np.exp(-times.min() / constant) < np.exp(-10.0):
            continue
        norm = np.maximum((trusted * shape**2).sum(axis=1), np.finfo(float).tiny)
        product = (trusted * shape * bare).sum(axis=1)
        cost = -(product**2) / norm
        better = cost < lowest
        lowest = np.where(better, cost, lowest)
        best_time = np.where(better, constant, best_time)
        best_size = np.where(better, product / norm, best_size)
    return np.stack([np.log(best_time), np.log(np.maximum(best_size, 1e-6))], axis=1)


def _weights(problem: Problem, start: Array, times: Array, left: Array, floor: Array) -> Array:
    """Inverse variance of each magnitude: that of one channel far above the floor, less near it."""
    if not problem.noise_known:
        return problem.weight
    expected = np.exp(start[:, 1, None] - times / np.exp(start[:, 0, None])) * left
    return rician_weight(problem.weight, expected, floor)


def _model(
    parameters: Array, rows: NDArray[np.intp], *, times: Array, left: Array, floor: Array
) -> tuple[Array, Array]:
    rate = np.exp(-parameters[:, 0, None])
    decay = np.exp(np.clip(parameters[:, 1, None] - times * rate, -700.0, 700.0)) * left[rows]
    by_time = decay * times * rate
    if not floor.any():
        return decay, np.stack([by_time, decay], axis=-1)
    mean, slope, _ = rician_mean(decay, floor[rows])
    return mean, np.stack([slope * by_time, slope * decay], axis=-1)
