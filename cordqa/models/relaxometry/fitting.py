"""What every relaxometry fit shares: its result, its checks of the input, its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import broadcast_to_signal, check_signal
from cordqa.models.relaxometry.least_squares import LeastSquares, covariance

__all__ = [
    "AT_BOUND",
    "NOT_CONVERGED",
    "NO_B1",
    "NO_SIGNAL",
    "NO_T1",
    "OUTSIDE_RANGE",
    "TOO_FEW",
    "Problem",
    "RelaxometryFit",
    "Solution",
    "check_samples",
    "first_reason",
    "fit_by_pattern",
    "refuse_negative",
    "variance_scale",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Why a fit has no value.  An empty string means that it has one.
TOO_FEW = "too few samples"
NO_SIGNAL = "no signal"
OUTSIDE_RANGE = "outside range"
NOT_CONVERGED = "not converged"
AT_BOUND = "not determined"
NO_B1 = "no B1"
NO_T1 = "no T1"

#: Residuals this improbable under the stated noise are taken as model error, not as chance.
_CHI_SQUARE_LEVEL = 0.05
#: Signals below this many noise standard deviations in every image carry no relaxation time.
_DETECTION = 3.0
#: Rows solved together: bounds the memory of a map.
_ROWS_AT_ONCE = 8192
#: Signal over noise is kept between this and its inverse, so that no square overflows.
_SMALLEST_RATIO = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxometryFit:
    """Fitted curves; every array has the voxel shape unless said otherwise.

    Attributes
    ----------
    model : str
        Which equation and which estimator, for the methods text.
    main : str
        Name of the relaxation time among the parameters: ``t1_s`` or ``t2_s``.
    parameters, standard_errors : mapping of str to ndarray
        Values in seconds, degrees or signal units, and one standard deviation.  NaN where
        ``reason`` is not empty; a standard error is also NaN where it cannot be known (no spare
        sample and no stated noise, or a parameter that was fixed).
    degrees_of_freedom : ndarray of int
        Samples used less parameters fitted.
    interval_degrees_of_freedom : ndarray
        Degrees of freedom of the t quantile: infinity where the stated noise was used.
    residual_sd : ndarray
        Root of the residual sum of squares over the degrees of freedom, in signal units.
    n_used : ndarray of int
        Samples that entered the fit.
    reason : ndarray of str
        Empty, or why there is no value.
    predicted : ndarray, shape (..., n_images)
        The fitted curve at all images, comparable with the signal that was given (magnitude for
        magnitude data).  Images that were left out are predicted as well.
    used : ndarray of bool, shape (..., n_images)
        Samples that entered the fit.
    """

    model: str
    main: str
    parameters: Mapping[str, Array]
    standard_errors: Mapping[str, Array]
    degrees_of_freedom: NDArray[np.int_]
    interval_degrees_of_freedom: Array
    residual_sd: Array
    n_used: NDArray[np.int_]
    reason: NDArray[np.str_]
    predicted: Array
    used: Mask

    @property
    def ok(self) -> Mask:
        """Where there is a value."""
        good: Mask = self.reason == ""
        return good

    @property
    def relative_standard_error(self) -> Array:
        """Standard error of the relaxation time over its value."""
        with np.errstate(invalid="ignore"):
            return self.standard_errors[self.main] / self.parameters[self.main]

    def interval(self, level: float = 0.95, parameter: str | None = None) -> tuple[Array, Array]:
        """Confidence interval of one parameter (default: the relaxation time).

        For the relaxation time it is symmetric in the logarithm, in which the likelihood is
        close to a parabola; it is asymmetric in seconds and never includes zero.  Quantiles are
        Student's t with :attr:`interval_degrees_of_freedom`.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        parameter : str, optional
            Key of :attr:`parameters`.

        Returns
        -------
        low, high : ndarray
            NaN where the standard error is NaN.
        """
        from scipy.special import stdtrit

        if not 0 < level < 1:
            raise InputError("the level of an interval lies between 0 and 1", found=f"{level}")
        name = self.main if parameter is None else parameter
        value, error = self.parameters[name], self.standard_errors[name]
        freedom = np.where(self.interval_degrees_of_freedom > 0, self.interval_degrees_of_freedom, np.nan)
        quantile = stdtrit(np.minimum(freedom, 1e10), (1 + level) / 2)
        with np.errstate(invalid="ignore", over="ignore"):
            if name == self.main:
                factor = np.exp(quantile * error / value)
                return value / factor, value * factor
            return value - quantile * error, value + quantile * error


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Rows that share one pattern of usable images, reduced to those images.

    ``signal`` has shape (m, n) and is divided by ``scale`` (m,), its largest magnitude;
    ``weight`` is 1 or the inverse variance in scaled units; ``columns`` (n,) are the images kept
    and ``rows`` (m,) the voxels of the flattened input.
    """

    signal: NDArray[Any]
    weight: Array
    scale: Array
    columns: NDArray[np.intp]
    rows: NDArray[np.intp]
    noise_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What a model's solver returns for one :class:`Problem`.

    ``weight`` is what the solver used, where it differs from the problem's; ``ambiguity`` is the
    distance in ln(relaxation time) to another solution that the data cannot tell from this one.
    ``values`` and ``errors_from`` map parameter names to (values, column of the least-squares
    parameter, derivative of the value by it); ``predicted`` is at all images, in scaled units.
    """

    fit: LeastSquares
    values: Mapping[str, tuple[Array, int, Array]]
    predicted: Array
    reason: NDArray[np.str_]
    n_parameters: int
    weight: Array | None = None
    ambiguity: Array | None = None


def fit_by_pattern(
    signal: ArrayLike,
    n_images: int,
    solver: Callable[[Problem], Solution],
    *,
    model: str,
    names: tuple[str, ...],
    minimum: int,
    valid: ArrayLike | None,
    noise_sd: ArrayLike | None,
    distinct: ArrayLike,
    refused: NDArray[np.str_] | None = None,
    allow_negative: bool = False,
) -> RelaxometryFit:
    """Check the input, solve group by group, and put the answers into one result.

    Rows are grouped by which images are usable, so that a solver never sees a missing sample.

    Parameters
    ----------
    signal : array_like, shape (..., n_images)
    solver : callable
        Solves one :class:`Problem`.
    names : tuple of str
        Parameter names; the first is the relaxation time.
    minimum : int
        Fewest distinct settings that are needed.
    distinct : array_like, shape (n_images,)
        Setting of each image; repeats of one setting count once.
    refused : ndarray of str, voxel shape, optional
        Why a row is not to be fitted, or empty.
    allow_negative : bool
        Whether real samples may be negative; they may not in a magnitude.
    """
    data, used, sd = check_samples(signal, n_images, valid, noise_sd)
    if not allow_negative:
        refuse_negative(data, used)
    shape = data.shape[:-1]
    flat, mask = data.reshape(-1, n_images), used.reshape(-1, n_images)
    deviation = None if sd is None else sd.reshape(-1, n_images)
    store = _Store(len(flat), n_images, names)
    store.refuse(first_reason(flat, mask, deviation, np.asarray(distinct), minimum))
    if refused is not None:
        store.refuse(refused.reshape(-1))
    for problem in _problems(flat, mask, deviation, store.reason == ""):
        store.take(problem, solver(problem), deviation is not None)
    return store.result(shape, mask, model)


def check_samples(
    signal: ArrayLike, n_images: int, valid: ArrayLike | None, noise_sd: ArrayLike | None
) -> tuple[NDArray[Any], Mask, Array | None]:
    """Return the samples, which of them to use, and their noise (None: not stated)."""
    data = check_signal(signal, n_images)
    used = np.isfinite(data)
    if valid is not None:
        used = used & broadcast_to_signal(valid, data.shape, "valid").astype(bool)
    deviation = None
    if noise_sd is not None:
        deviation = broadcast_to_signal(noise_sd, data.shape, "noise_sd").astype(float)
        known = np.isfinite(deviation) & (deviation > 0)
        if deviation.size and not known.any():
            raise InputError("noise_sd is nowhere positive", todo="leave it out where the noise is not known")
        # A sample of unknown or impossible noise cannot be weighed against the others.
        used = used & known
    return data, used, deviation


def refuse_negative(data: NDArray[Any], used: Mask) -> None:
    """Refuse magnitudes below zero; complex samples are let through.

    Raises
    ------
    InputError
        If a sample to be used is negative.
    """
    if data.dtype.kind == "f" and (data[used] < 0).any():
        raise InputError(
            "a magnitude cannot be negative",
            found=f"{data[used].min():g}",
            todo="say that the data are signed, or give the magnitude",
        )


def first_reason(
    flat: NDArray[Any],
    mask: Mask,
    deviation: Array | None,
    distinct: NDArray[np.generic],
    minimum: int,
) -> NDArray[np.str_]:
    """Say which curves (m, n) cannot be fitted: too few distinct settings, or nothing but noise."""
    _, setting = np.unique(distinct, return_inverse=True)
    n_settings = int(setting.max()) + 1
    present = np.stack([mask[:, setting == s].any(axis=1) for s in range(n_settings)], axis=1)
    magnitude = np.where(mask, np.abs(np.where(mask, flat, 0)), 0.0)
    level = 0.0 if deviation is None else np.where(mask, deviation, 0.0) * _DETECTION
    seen = (magnitude > level).any(axis=1)
    reason = np.where(seen, "", NO_SIGNAL)
    return np.where(present.sum(axis=1) < minimum, TOO_FEW, reason)


def _problems(
    flat: NDArray[Any],
    mask: Mask,
    deviation: Array | None,
    todo: Mask,
) -> Iterator[Problem]:
    rows = np.flatnonzero(todo)
    if rows.size == 0:
        return
    patterns, group = np.unique(mask[rows], axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        members = rows[group.reshape(-1) == index]
        columns = np.flatnonzero(pattern)
        for first in range(0, members.size, _ROWS_AT_ONCE):
            yield _problem(flat, deviation, members[first : first + _ROWS_AT_ONCE], columns)


def _problem(
    flat: NDArray[Any], deviation: Array | None, members: NDArray[np.intp], columns: NDArray[np.intp]
) -> Problem:
    signal = flat[np.ix_(members, columns)]
    scale = np.abs(signal).max(axis=1)
    weight = np.ones(signal.shape)
    if deviation is not None:
        with np.errstate(over="ignore", under="ignore"):
            ratio = scale[:, None] / deviation[np.ix_(members, columns)]
        weight = np.clip(ratio, _SMALLEST_RATIO, 1 / _SMALLEST_RATIO) ** 2
    return Problem(
        signal=signal / scale[:, None],
        weight=weight,
        scale=scale,
        columns=columns,
        rows=members,
        noise_known=deviation is not None,
    )


class _Store:
    """Arrays of the flattened result, filled group by group."""

    def __init__(self, n_rows: int, n_images: int, names: tuple[str, ...]) -> None:
        self.names = names
        self.values = {name: np.full(n_rows, np.nan) for name in names}
        self.errors = {name: np.full(n_rows, np.nan) for name in names}
        self.freedom = np.zeros(n_rows, dtype=int)
        self.interval_freedom = np.zeros(n_rows)
        self.residual_sd = np.full(n_rows, np.nan)
        self.reason = np.full(n_rows, "", dtype="<U24")
        self.predicted = np.full((n_rows, n_images), np.nan)

    def refuse(self, reason: NDArray[np.str_]) -> None:
        self.reason = np.where(self.reason == "", reason, self.reason).astype("<U24")

    def take(self, problem: Problem, solution: Solution, noise_known: bool) -> None:
        fit, rows = solution.fit, problem.rows
        freedom = problem.columns.size - solution.n_parameters
        variance, interval_freedom = variance_scale(fit.cost, freedom, noise_known)
        weight = problem.weight if solution.weight is None else solution.weight
        matrix = covariance(fit.derivatives, weight, fit.held)
        reason = np.where(fit.converged, solution.reason, NOT_CONVERGED)
        reason = np.where(solution.reason != "", solution.reason, reason)
        good = reason == ""
        with np.errstate(over="ignore", invalid="ignore"):
            self._store(problem, solution, variance, matrix, good, weight)
        self.reason[rows] = reason
        self.freedom[rows] = freedom
        self.interval_freedom[rows] = interval_freedom

    def _store(
        self, problem: Problem, solution: Solution, variance: Array, matrix: Array, good: Mask, weight: Array
    ) -> None:
        rows = problem.rows
        freedom = problem.columns.size - solution.n_parameters
        for name, (value, column, slope) in solution.values.items():
            square = variance * matrix[:, column, column]
            if name == self.names[0] and solution.ambiguity is not None:
                # Standard deviation of a choice between two equally likely values.
                square = square + (solution.ambiguity / 2) ** 2
            error = np.abs(slope) * np.sqrt(square)
            scale = problem.scale if name == "m0" else 1.0
            self.values[name][rows] = np.where(good, value * scale, np.nan)
            self.errors[name][rows] = np.where(good, error * scale, np.nan)
        if freedom > 0:
            mean_weight = weight.mean(axis=1)
            residual = np.sqrt(solution.fit.cost / mean_weight / freedom) * problem.scale
            self.residual_sd[rows] = np.where(good, residual, np.nan)
        predicted = solution.predicted * problem.scale[:, None]
        self.predicted[rows] = np.where(good[:, None], predicted, np.nan)

    def result(self, shape: tuple[int, ...], mask: Mask, model: str) -> RelaxometryFit:
        n_images = mask.shape[1]
        return RelaxometryFit(
            model=model,
            main=self.names[0],
            parameters={k: v.reshape(shape) for k, v in self.values.items()},
            standard_errors={k: v.reshape(shape) for k, v in self.errors.items()},
            degrees_of_freedom=self.freedom.reshape(shape),
            interval_degrees_of_freedom=self.interval_freedom.reshape(shape),
            residual_sd=self.residual_sd.reshape(shape),
            n_used=mask.sum(axis=1).reshape(shape),
            reason=self.reason.reshape(shape),
            predicted=self.predicted.reshape(*shape, n_images),
            used=mask.reshape(*shape, n_images),
        )


def variance_scale(
    cost: Array, freedom: int, noise_known: bool, *, level: float = _CHI_SQUARE_LEVEL
) -> tuple[Array, Array]:
    """Return the factor on (J^T W J)^-1 and the degrees of freedom of the quantile.

    With stated noise the factor is 1 and the quantile normal, unless the residuals are too large
    for that noise: then the model or the statement is wrong, and the scatter decides.
    """
    n = len(cost)
    from_scatter = cost / freedom if freedom > 0 else np.full(n, np.nan)
    scatter_freedom = np.full(n, float(freedom))
    if not noise_known:
        return from_scatter, scatter_freedom
    if freedom == 0:
        return np.ones(n), np.full(n, np.inf)
    from scipy.special import chdtrc

    consistent = chdtrc(freedom, cost) >= level
    return np.where(consistent, 1.0, from_scatter), np.where(consistent, np.inf, scatter_freedom)
