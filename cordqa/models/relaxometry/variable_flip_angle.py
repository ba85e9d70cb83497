"""T1 from spoiled gradient echoes at several flip angles."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import broadcast_to_signal, check_range, check_signal, check_times
from cordqa.models.relaxometry.fitting import (
    NO_B1,
    OUTSIDE_RANGE,
    Problem,
    RelaxometryFit,
    Solution,
    fit_by_pattern,
)
from cordqa.models.relaxometry.least_squares import solve_least_squares
from cordqa.models.relaxometry.signal import exponential_decay, spoiled_gradient_echo_signal

__all__ = ["fit_variable_flip_angle"]

Array = NDArray[np.float64]

_GRID_POINTS = 48
#: Beyond this a map is not one of relative angles (but of degrees, or percent).
_LARGEST_B1 = 5.0


def fit_variable_flip_angle(
    signal: ArrayLike,
    flip_angles_deg: ArrayLike,
    repetition_time_s: float,
    *,
    b1: ArrayLike = 1.0,
    noise_sd: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    t1_range_s: tuple[float, float] = (0.005, 10.0),
) -> RelaxometryFit:
    """Fit M0 sin(a) (1 - E1) / (1 - E1 cos(a)), a = b1 x nominal, by nonlinear least squares.

    The familiar straight line S/sin(a) against S/tan(a) (DESPOT1) weighs the small angles as if
    they were as precise as the large ones, which biases T1 when there is noise; it is not used.
    For a given T1 the signal is linear in M0, so T1 is searched over a grid and then refined.

    Parameters
    ----------
    signal : array_like, shape (..., n_images)
        Magnitude.
    flip_angles_deg : array_like, shape (n_images,)
        Nominal flip angles, between 0 and 180.
    repetition_time_s : float
        The same for all images.
    b1 : array_like, broadcast to the voxel shape
        Actual over nominal flip angle.  Without a map T1 is off by about twice the error of b1.
    noise_sd, valid : array_like, broadcast to the signal, optional
        As in :func:`~cordqa.models.relaxometry.inversion_recovery.fit_inversion_recovery`.
    t1_range_s : tuple of float
        A minimum at the end of this range gives NaN with reason "outside range".

    Returns
    -------
    RelaxometryFit
        Parameters ``t1_s`` and ``m0``.  Rows without a ``b1`` between 0 and 5 have reason "no B1".

    Raises
    ------
    InputError
        If shapes, angles or TR are not usable.

    References
    ----------
    .. [1] Deoni, Rutt and Peters, Magn Reson Med 2003, doi:10.1002/mrm.10407
    .. [2] Chang et al., Magn Reson Med 2008, doi:10.1002/mrm.21669
    """
    angles = np.atleast_1d(np.asarray(flip_angles_deg, dtype=float))
    if angles.ndim != 1 or not ((angles > 0) & (angles < 180)).all():
        raise InputError("flip angles must be a list between 0 and 180 degrees", found=f"{angles.tolist()}")
    repetition = float(check_times(repetition_time_s, "the repetition time", longest_s=20.0)[0])
    if repetition == 0:
        raise InputError("the repetition time must be positive", found="0 s")
    limits = check_range(t1_range_s, "T1")
    shape = check_signal(signal, angles.size).shape[:-1]
    scale = broadcast_to_signal(b1, shape, "b1").astype(float)
    known = (scale > 0) & (scale < _LARGEST_B1)
    flat = np.where(known, scale, 1.0).reshape(-1)
    return fit_by_pattern(
        signal,
        angles.size,
        partial(_solve, angles=angles, repetition=repetition, b1=flat, limits=limits),
        model="variable flip angle, nonlinear least squares",
        names=("t1_s", "m0"),
        minimum=2,
        valid=valid,
        noise_sd=noise_sd,
        distinct=angles,
        refused=np.where(known, "", NO_B1),
    )


def _solve(
    problem: Problem, *, angles: Array, repetition: float, b1: Array, limits: tuple[float, float]
) -> Solution:
    signal = np.abs(problem.signal)
    scale = b1[problem.rows]
    t1, m0 = _search(signal, problem.weight, angles[problem.columns], repetition, scale, limits)
    n = len(t1)
    ends = np.log(np.array(limits))
    fit = solve_least_squares(
        partial(_model, angles=angles[problem.columns], repetition=repetition, b1=scale),
        np.stack([np.log(t1), np.log(m0)], axis=1),
        signal,
        weight=problem.weight,
        low=np.tile([ends[0], -np.inf], (n, 1)),
        high=np.tile([ends[1], np.inf], (n, 1)),
    )
    predicted, _ = _model(fit.parameters, np.arange(n), angles=angles, repetition=repetition, b1=scale)
    t1, m0 = np.exp(fit.parameters.T)
    return Solution(
        fit=fit,
        values={"t1_s": (t1, 0, t1), "m0": (m0, 1, m0)},
        predicted=predicted,
        reason=np.where(fit.held[:, 0], OUTSIDE_RANGE, ""),
        n_parameters=2,
    )


def _search(
    signal: Array, weight: Array, angles: Array, repetition: float, b1: Array, limits: tuple[float, float]
) -> tuple[Array, Array]:
    """Best T1 on a logarithmic grid, with its amplitude."""
    lowest = np.full(len(signal), np.inf)
    best_t1, best_m0 = np.empty(len(signal)), np.empty(len(signal))
    for t1 in np.geomspace(*limits, _GRID_POINTS):
        shape = spoiled_gradient_echo_signal(angles, t1, repetition, b1=b1[:, None])
        product = (weight * shape * signal).sum(axis=1)
        m0 = product / (weight * shape**2).sum(axis=1)
        # The part of the cost that depends on T1.
        cost = -m0 * product
        better = cost < lowest
        lowest = np.where(better, cost, lowest)
        best_t1, best_m0 = np.where(better, t1, best_t1), np.where(better, m0, best_m0)
    return best_t1, np.maximum(best_m0, np.finfo(float).tiny)


def _model(
    parameters: Array, rows: NDArray[np.intp], *, angles: Array, repetition: float, b1: Array
) -> tuple[Array, Array]:
    t1, m0 = np.exp(parameters[:, 0, None]), np.exp(parameters[:, 1, None])
    scale = b1[rows, None]
    signal = spoiled_gradient_echo_signal(angles, t1, repetition, m0=m0, b1=scale)
    e1 = exponential_decay(repetition, t1)
    cosine = np.cos(np.deg2rad(angles * scale))
    # d ln S / d E1 times d E1 / d ln T1
    slope = signal * (cosine / (1 - e1 * cosine) - 1 / (1 - e1)) * e1 * repetition / t1
    return signal, np.stack([slope, signal], axis=-1)
