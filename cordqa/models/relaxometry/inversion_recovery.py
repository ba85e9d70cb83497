"""T1 from inversion recovery: signed, magnitude or complex images, TR fixed or varying with TI.

For a given T1 the signal is linear in two amplitudes, so the search is over T1 alone (the idea
of RD-NLS by Barral et al. 2010, doi:10.1002/mrm.22497).  It covers the whole range on a grid
first: no start value is needed, and none is taken from a reference.

The inversion factor b = 1 - cos(inversion angle) is fitted unless an angle is given.  A fixed
perfect inversion turns every imperfection of the pulse, and every offset between the nominal and
the effective inversion time, into an error of T1 of several percent; a free factor absorbs both,
because an offset d multiplies b by exp(d/T1).
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import check_range, check_repetition_times, check_times
from cordqa.models.relaxometry.fitting import (
    AT_BOUND,
    OUTSIDE_RANGE,
    Problem,
    RelaxometryFit,
    Solution,
    fit_by_pattern,
)
from cordqa.models.relaxometry.inversion_search import (
    InversionTiming,
    best_amplitudes,
    search_t1,
    sign_patterns,
    t1_grid,
)
from cordqa.models.relaxometry.least_squares import solve_least_squares

__all__ = ["correct_phase", "describe_data", "fit_inversion_recovery"]

Array = NDArray[np.float64]

#: Pixel noise over the strongest sample that is assumed where no noise is stated, to weigh down
#: samples near the null: their magnitude is mostly noise, and its sign is a guess.
_ASSUMED_NOISE = 0.02


def fit_inversion_recovery(
    signal: ArrayLike,
    inversion_times_s: ArrayLike,
    *,
    repetition_times_s: ArrayLike | None = None,
    echo_time_s: float = 0.0,
    signed: bool = False,
    inversion_angle_deg: float | None = None,
    noise_sd: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    t1_range_s: tuple[float, float] = (0.005, 10.0),
) -> RelaxometryFit:
    """Fit M0 [1 - b exp(-TI/T1) + (b - 1) X(TR, T1)] to spin-echo inversion-recovery curves.

    Parameters
    ----------
    signal : array_like, shape (..., n_images)
        Magnitude; or signed real values (``signed=True``); or complex values, which are turned
        to signed values by one phase per curve (:func:`correct_phase`).
    inversion_times_s : array_like, shape (n_images,)
        In any order; repeats are allowed.
    repetition_times_s : array_like, shape (n_images,) or scalar, optional
        Time between inversions of each image; ``None`` means full recovery.
    echo_time_s : float
        Enters the recovery term only (the refocusing pulse inverts what has recovered by TE/2).
    signed : bool
        Real values keep their sign.  For magnitudes every sign pattern that the equation can
        produce for these TI and TR is tried and the one with the least residual is kept.
    inversion_angle_deg : float, optional
        Fix the inversion; ``None`` fits its factor b and needs at least 4 inversion times.
    noise_sd : array_like, broadcast to the signal, optional
        One standard deviation of each sample; weighs the samples, and gives the uncertainty as
        long as the residuals agree with it.  For magnitudes near the null, see
        :func:`~cordqa.models.relaxometry.noise.corrected_signal_sd`; without it, magnitudes
        below a few percent of the strongest sample are weighed down.
    valid : array_like of bool, broadcast to the signal, optional
        Samples to use.
    t1_range_s : tuple of float
        Range of the search.  A minimum at its end gives NaN with reason "outside range".

    Returns
    -------
    RelaxometryFit
        Parameters ``t1_s``, ``m0``, ``inversion_factor`` (2 for a perfect inversion).  A curve
        whose inversion factor runs to its bound has no determined T1: NaN, "not determined".

    Raises
    ------
    InputError
        If shapes or times do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from cordqa.models.relaxometry.signal import inversion_recovery_signal
    >>> ti = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
    >>> curve = np.abs(inversion_recovery_signal(ti, 0.25, m0=900.0, repetition_time_s=1.0))
    >>> fit = fit_inversion_recovery(curve, ti, repetition_times_s=1.0)
    >>> float(fit.parameters["t1_s"].round(6))
    0.25
    """
    inversion = check_times(inversion_times_s, "inversion times", longest_s=60.0)
    repetition = check_repetition_times(repetition_times_s, inversion, echo_time_s)
    low, high = check_range(t1_range_s, "T1")
    factor = _factor(inversion_angle_deg)
    timing = InversionTiming(inversion, repetition, echo_time_s, factor)
    return fit_by_pattern(
        signal,
        inversion.size,
        partial(_solve, timing=timing, limits=(low, high), signed=signed),
        model=_describe(signed, np.iscomplexobj(signal), factor),
        names=("t1_s", "m0", "inversion_factor"),
        minimum=4 if factor is None else 3,
        valid=valid,
        noise_sd=noise_sd,
        distinct=inversion,
        allow_negative=signed,
    )


def correct_phase(signal: NDArray[np.complex128]) -> Array:
    """Turn complex curves to signed real ones by one phase per curve.

    The phase is half that of the sum of squares, so samples of both signs add up.  The overall
    sign stays open; it assumes that the phase does not drift between the images.

    Parameters
    ----------
    signal : ndarray of complex, shape (..., n_images)
    """
    phase = np.angle((signal**2).sum(axis=-1, keepdims=True)) / 2
    return np.real(signal * np.exp(-1j * phase))


def _factor(inversion_angle_deg: float | None) -> float | None:
    if inversion_angle_deg is None:
        return None
    if not 0 < inversion_angle_deg <= 180:
        raise InputError(
            "the inversion angle must lie between 0 and 180 degrees", found=f"{inversion_angle_deg}"
        )
    return float(1 - np.cos(np.deg2rad(inversion_angle_deg)))


def describe_data(signed: bool, is_complex: bool) -> str:
    """Say what kind of signal was fitted, for the methods text."""
    return "complex" if is_complex else "signed" if signed else "magnitude with polarity restoration"


def _describe(signed: bool, is_complex: bool, factor: float | None) -> str:
    data = describe_data(signed, is_complex)
    inversion = "inversion factor free" if factor is None else f"inversion factor {factor:.3f}"
    return f"inversion recovery with TR, {data}, {inversion}, least squares over a T1 grid"


def _solve(
    problem: Problem, *, timing: InversionTiming, limits: tuple[float, float], signed: bool
) -> Solution:
    here = timing.at(problem.columns)
    is_complex = np.iscomplexobj(problem.signal)
    keep_sign = signed or is_complex
    real: Array = correct_phase(problem.signal) if is_complex else problem.signal
    grid = t1_grid(*limits)
    weight = problem.weight
    if keep_sign:
        patterns = np.array([[1.0], [-1.0]]) * np.ones(here.inversion.size)
    else:
        real, patterns = np.abs(real), sign_patterns(here, grid)
        if not problem.noise_known:
            weight = real**2 / (real**2 + _ASSUMED_NOISE**2)
    freedom = problem.columns.size - (3 if timing.fixed_factor is None else 2)
    t1, curve, distance = search_t1(
        real, weight, here, grid, patterns, freedom=freedom, noise_known=problem.noise_known
    )
    return _polish((t1, curve, weight, distance), (timing, here), limits, keep_sign)


def _polish(
    found: tuple[Array, Array, Array, Array],
    timings: tuple[InversionTiming, InversionTiming],
    limits: tuple[float, float],
    keep_sign: bool,
) -> Solution:
    """Finish with Gauss-Newton steps in (ln T1, A, b), which also give the derivatives."""
    t1, curve, weight, distance = found
    everywhere, here = timings
    _, amplitude, factor = best_amplitudes(t1, curve, weight, here)
    low_factor, high_factor = here.factor_bounds(t1)
    n = len(t1)
    fit = solve_least_squares(
        partial(_model, timing=here),
        np.stack([np.log(t1), amplitude, factor], axis=1),
        curve,
        weight=weight,
        low=np.stack([np.full(n, np.log(limits[0])), np.zeros(n), low_factor], axis=1),
        high=np.stack([np.full(n, np.log(limits[1])), np.full(n, np.inf), high_factor], axis=1),
    )
    log_t1, amplitude, factor = fit.parameters.T
    free = here.fixed_factor is None
    reason = np.where(fit.held[:, 1] | (free & fit.held[:, 2]), AT_BOUND, "")
    reason = np.where(fit.held[:, 0], OUTSIDE_RANGE, reason)
    predicted, _ = _model(fit.parameters, np.arange(n), timing=everywhere)
    t1, one = np.exp(log_t1), np.ones(n)
    return Solution(
        fit=fit,
        values={"t1_s": (t1, 0, t1), "m0": (amplitude, 1, one), "inversion_factor": (factor, 2, one)},
        predicted=predicted if keep_sign else np.abs(predicted),
        reason=reason,
        n_parameters=3 if free else 2,
        weight=weight,
        ambiguity=distance,
    )


def _model(parameters: Array, _rows: NDArray[np.intp], *, timing: InversionTiming) -> tuple[Array, Array]:
    t1, a, b = np.exp(parameters[:, 0]), parameters[:, 1, None], parameters[:, 2, None]
    u, v = timing.basis(t1)
    slope_u, slope_v = timing.basis_slope(t1)
    shape = u + b * v
    return a * shape, np.stack([a * (slope_u + b * slope_v), shape, a * v], axis=-1)
