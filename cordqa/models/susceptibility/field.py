"""Total field from the unwrapped phase of several echoes.

The phase of each voxel is a line in echo time.  Its slope is the field; its intercept is the
phase offset of coils and readout.  A line with a free intercept wastes most of what the echoes
know about the slope, yet the offset varies slowly in space (Robinson et al. 2017,
doi:10.1002/nbm.3601).  The fit therefore gives the intercept of each voxel a normal prior: its
mean is the robust local average of the free intercepts, its variance is what they scatter about
that average beyond their own noise, at the scale where the offset is known best.  Where the echoes
contradict the line (partial volume with air) the standard error is widened by the misfit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.physics import radians_per_ppm_second
from cordqa.models.susceptibility.smooth import AngleSmoother, Smoothed
from cordqa.models.susceptibility.unwrap import wrap

__all__ = ["LEAST_SPREAD", "FieldFit", "fit_field", "line_fit"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Power of a voxel without signal; one over it is still a number when noise in any unit is squared onto it.
_TINY = 1e-200
#: Scales of the local average that are tried, in voxels of the shortest edge.
_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
#: Wider averages are not tried once the expected error of one exceeds the least so far by this much, in
#: variances of a free offset: it falls with the noise and then grows with what the average does not follow.
_WORSE = 0.1
#: Least variance of the prior of the offset, over the median variance of a free one.
LEAST_SPREAD = 1e-3
_GAUSS_NEWTON = 4
#: Misfits this improbable widen the standard error.
_MISFIT_LEVEL = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFit:
    """Fitted field of the voxels of a mask; arrays have shape (n_voxels,) unless said otherwise.

    Attributes
    ----------
    field_ppm, standard_error_ppm : ndarray
        Relative field change and one standard deviation of it.
    offset_rad : ndarray
        Phase at echo time zero.
    residual_rad : ndarray, shape (n_voxels, n_echoes)
        Wrapped phase less the fitted line.
    noise_sd : float
        Standard deviation of the noise of one channel, in units of the magnitude.
    offset_scale_voxels : float
        Scale of the local average of the offsets; 0 where every intercept was free.
    offset_sd_rad : float
        Standard deviation of the prior of the offset.
    notices : tuple of str
    """

    field_ppm: Array
    standard_error_ppm: Array
    offset_rad: Array
    residual_rad: Array
    noise_sd: float
    offset_scale_voxels: float
    offset_sd_rad: float
    notices: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Line:
    slope: Array
    offset: Array
    slope_variance: Array
    offset_variance: Array


def line_fit(phase: Array, power: Array, times_s: Array, prior: tuple[Array, Array] | None = None) -> _Line:
    """Fit a weighted line per voxel; variances are for noise of unit standard deviation.

    Parameters
    ----------
    phase, power : ndarray, shape (n_voxels, n_echoes)
        Unwrapped phase and squared magnitude: the variance of a phase is one over the latter.
    times_s : ndarray, shape (n_echoes,)
    prior : tuple of ndarray, optional
        Mean and weight (one over the variance) of the intercept of each voxel.
    """
    mean, weight = prior if prior is not None else (np.zeros(len(phase)), np.zeros(len(phase)))
    total = np.maximum(power.sum(1) + weight, _TINY)
    centre = (power @ times_s) / total
    average = ((power * phase).sum(1) + weight * mean) / total
    spread = np.maximum(power @ times_s**2 - centre**2 * total, _TINY)
    slope = (((power * phase) @ times_s) - centre * average * total) / spread
    return _Line(slope, average - slope * centre, 1 / spread, 1 / total + centre**2 / spread)


def fit_field(
    unwrapped: Array,
    magnitude: Array,
    echo_times_s: Array,
    mask: Mask,
    *,
    field_strength_t: float,
    voxel_size_mm: Array,
    smooth_offset: bool = True,
    noise_sd: float | None = None,
) -> FieldFit:
    """Fit the total field.

    Estimator: weighted least squares on the unwrapped phase with weights of squared magnitude and
    a normal prior of the intercept, then Gauss-Newton steps on the complex signal, which a wrong
    multiple of 2 pi cannot mislead.

    Parameters
    ----------
    unwrapped, magnitude : ndarray, shape (n_voxels, n_echoes)
        Of the voxels of the mask, in array order.  Phase in rad.
    echo_times_s : ndarray, shape (n_echoes,)
    mask : ndarray of bool
    field_strength_t : float
    voxel_size_mm : ndarray, shape (mask.ndim,)
    smooth_offset : bool
        Whether the offset may be taken as locally smooth; with two echoes it helps most.
    noise_sd : float, optional
        In units of the magnitude; otherwise from the residuals (three echoes or more), or unknown.

    Raises
    ------
    InputError
        If the field strength is not that of a scanner.
    """
    per_ppm = radians_per_ppm_second(field_strength_t)
    lost: Mask = np.logical_not(np.all(np.isfinite(unwrapped) & np.isfinite(magnitude), axis=1))
    if lost.any():
        # One voxel without a number would spread through the local average of the offsets.
        known = ~lost[:, None]
        unwrapped, magnitude = np.where(known, unwrapped, 0.0), np.where(known, magnitude, 0.0)
    power = np.square(magnitude)
    if echo_times_s.size == 1:
        return _without(_single_echo(unwrapped, power, echo_times_s, per_ppm, noise_sd), lost)
    free = line_fit(unwrapped, power, echo_times_s)
    noise = noise_sd if noise_sd is not None else _noise(unwrapped, power, echo_times_s, free)
    scale, spread, prior = 0.0, math.nan, None
    if smooth_offset and math.isfinite(noise) and noise > 0:
        scale, spread, prior = _offset_prior(free, noise, mask, voxel_size_mm)
    line = line_fit(unwrapped, power, echo_times_s, prior) if prior is not None else free
    line = _refine(line, unwrapped, power, echo_times_s, prior)
    residual = wrap(unwrapped - line.offset[:, None] - line.slope[:, None] * echo_times_s)
    inflation = _inflation((power * residual**2).sum(1), noise, echo_times_s.size - 2)
    found = FieldFit(
        field_ppm=line.slope / per_ppm,
        standard_error_ppm=noise * np.sqrt(line.slope_variance) * inflation / per_ppm,
        offset_rad=wrap(line.offset),
        residual_rad=residual,
        noise_sd=noise,
        offset_scale_voxels=scale,
        offset_sd_rad=spread,
    )
    return _without(found, lost)


def _without(found: FieldFit, lost: Mask) -> FieldFit:
    """Make voxels whose phase or magnitude is not a number NaN."""
    if not lost.any():
        return found
    return replace(
        found,
        field_ppm=np.where(lost, np.nan, found.field_ppm),
        standard_error_ppm=np.where(lost, np.nan, found.standard_error_ppm),
        offset_rad=np.where(lost, np.nan, found.offset_rad),
        residual_rad=np.where(lost[:, None], np.nan, found.residual_rad),
    )


def _single_echo(
    unwrapped: Array, power: Array, times: Array, per_ppm: float, noise_sd: float | None
) -> FieldFit:
    noise = math.nan if noise_sd is None else noise_sd
    time = per_ppm * float(times[0])
    return FieldFit(
        field_ppm=unwrapped[:, 0] / time,
        standard_error_ppm=noise / np.sqrt(np.maximum(power[:, 0], _TINY)) / time,
        offset_rad=np.zeros(len(unwrapped)),
        residual_rad=np.zeros_like(unwrapped),
        noise_sd=noise,
        offset_scale_voxels=0.0,
        offset_sd_rad=math.nan,
        notices=("one echo: the phase offset is part of the field, and no residual can show it",),
    )


def _noise(unwrapped: Array, power: Array, times: Array, line: _Line) -> float:
    """Noise from the residuals of free lines: median over voxels, unmoved by a few bad ones."""
    freedom = times.size - 2
    if freedom < 1:
        return math.nan
    residual = unwrapped - line.offset[:, None] - line.slope[:, None] * times
    square = (power * residual**2).sum(1)
    good = square[np.isfinite(square) & (power.min(1) > 0)]
    if good.size == 0:
        return math.nan
    from scipy.special import chdtri

    return float(math.sqrt(np.median(good) / chdtri(freedom, 0.5)))


def _offset_prior(
    free: _Line, noise: float, mask: Mask, voxel_size: Array
) -> tuple[float, float, tuple[Array, Array]]:
    """Choose the local average that tells most about the offsets; return scale, spread and prior.

    The variance of an offset about the average of its neighbours is what the free offsets scatter about
    it, less their own noise; the average has noise of its own, the more the fewer it joins.  The scale
    with the least sum of both is taken, between those tried: it then changes little when a scan is
    repeated.
    """
    variance = free.offset_variance * noise**2
    middle = float(np.median(variance))
    shape = np.min(voxel_size) / np.asarray(voxel_size, dtype=float)
    smoother = AngleSmoother(free.offset, 1 / variance, mask)
    tried: list[tuple[float, float]] = []
    for scale in _SCALES:
        found = smoother.at(scale * shape)
        tried.append((scale, _excess(free.offset, found, variance) + found.left))
        if tried[-1][1] > min(risk for _, risk in tried) + _WORSE:
            break
    scale = _least(tried)
    found = smoother.at(scale * shape)
    excess = max(_excess(free.offset, found, variance), 0.0) * middle
    deviation = wrap(free.offset - found.angle)
    weight = np.full(variance.shape, noise**2 / (excess + LEAST_SPREAD * middle))
    # The prior continues the branch of the free intercept, which has no natural multiple of 2 pi.
    return scale, math.sqrt(excess), (free.offset - deviation, weight)


def _excess(offset: Array, found: Smoothed, variance: Array) -> float:
    """Return what offsets scatter about their average beyond their noise, in variances of that."""
    score = np.abs(wrap(offset - found.angle)) / np.sqrt(variance)
    # An average holds the voxel itself, so that noise alone deviates from it by a little less than 1.
    return float(1.4826 * np.median(score)) ** 2 - (1 - 2 * found.own + found.left)


def _least(tried: list[tuple[float, float]]) -> float:
    """Return where a parabola through the least value and its neighbours is least, over log scale."""
    at = min(range(len(tried)), key=lambda k: tried[k][1])
    if not 0 < at < len(tried) - 1:
        return tried[at][0]
    x, y = np.log([scale for scale, _ in tried[at - 1 : at + 2]]), [r for _, r in tried[at - 1 : at + 2]]
    bend, slope, _ = np.polyfit(x, y, 2)
    return float(np.exp(np.clip(-slope / (2 * bend), x[0], x[2]))) if bend > 0 else tried[at][0]


def _refine(
    start: _Line, unwrapped: Array, power: Array, times: Array, prior: tuple[Array, Array] | None
) -> _Line:
    """Gauss-Newton on the complex signal: residuals enter as sines, so that wraps cancel."""
    slope, offset = start.slope, start.offset
    for _ in range(_GAUSS_NEWTON):
        residual = np.sin(unwrapped - offset[:, None] - slope[:, None] * times)
        step_prior = None if prior is None else (prior[0] - offset, prior[1])
        step = line_fit(residual, power, times, step_prior)
        slope, offset = slope + step.slope, offset + step.offset
    return _Line(slope, offset, start.slope_variance, start.offset_variance)


def _inflation(square: Array, noise: float, freedom: int) -> Array:
    """Widen the standard error where the line does not hold: the excess is not noise."""
    if freedom < 1 or not math.isfinite(noise) or noise <= 0:
        return np.ones(len(square))
    from scipy.special import chdtri

    ratio = square / noise**2
    wider = np.sqrt(np.maximum(ratio / freedom, 1.0))
    return np.where(ratio > chdtri(freedom, _MISFIT_LEVEL), wider, 1.0)
