"""Which relaxation times an acquisition can determine at all.

The rule is information, not a ratio of times: the Cramer-Rao bound gives the smallest relative
standard error that any unbiased fit of one pixel can reach at a stated signal-to-noise ratio.
Where it exceeds a limit (10 % at an SNR of 100 unless told otherwise), the protocol does not
determine that relaxation time.  Averaging over a region lowers the noise, but not the small
systematic errors of real images, and these are amplified by the same factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import check_times
from cordqa.models.relaxometry.signal import (
    exponential_decay,
    inversion_recovery_steady_term,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)

__all__ = [
    "InversionKnowledge",
    "ProtocolRange",
    "inversion_recovery_range",
    "multi_echo_range",
    "variable_flip_angle_range",
]

Array = NDArray[np.float64]

#: Relaxation times looked at: 1 ms to 20 s in steps of 3 %.
_GRID = np.exp(np.arange(np.log(0.001), np.log(20.0), 0.03))
_STEP = 1e-5
#: A parameter known exactly counts as known this well, so that its precision stays finite.
_SMALLEST_SD = 1e-9
#: Angle at which an unknown inversion is judged.
_NOMINAL_INVERSION_DEG = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRange:
    """Range of relaxation times that a protocol determines.

    Attributes
    ----------
    low_s, high_s : float
        Ends of the range; both NaN where the protocol determines nothing.
    times_s, relative_errors : ndarray, shape (n_times,)
        The bound itself: relative standard error of one pixel.
    snr : float
        Signal-to-noise ratio of one pixel that was assumed.
    largest_relative_error : float
        Limit that defines the range.
    """

    low_s: float
    high_s: float
    times_s: Array
    relative_errors: Array
    snr: float
    largest_relative_error: float

    def contains(self, values_s: ArrayLike) -> NDArray[np.bool_]:
        """Tell which relaxation times lie in the range; NaN does not."""
        values = np.asarray(values_s, dtype=float)
        with np.errstate(invalid="ignore"):
            inside: NDArray[np.bool_] = (values >= self.low_s) & (values <= self.high_s)
        return inside

    def outside(self, values_s: ArrayLike) -> NDArray[np.str_]:
        """Say where each value lies: empty inside, else "below" or "above" the range.

        A NaN gives an empty string: there is no value to place.
        """
        values = np.asarray(values_s, dtype=float)
        if np.isnan(self.low_s):
            return np.where(np.isfinite(values), "no range", "")
        with np.errstate(invalid="ignore"):
            return np.where(values < self.low_s, "below", np.where(values > self.high_s, "above", ""))

    def expected_relative_error(self, values_s: ArrayLike) -> Array:
        """Return the bound at given relaxation times, for one pixel at :attr:`snr`."""
        values = np.asarray(values_s, dtype=float)
        known = np.isfinite(values) & (values > 0)
        position = np.log(np.where(known, values, 1.0))
        bounded = np.where(np.isfinite(self.relative_errors), self.relative_errors, 1e9)
        error = np.interp(position, np.log(self.times_s), bounded)
        return np.where(known, error, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionKnowledge:
    """Inversion factor and offset of the inversion time of a scan, with their standard deviations.

    ``factor_sd`` is that of the factor in any one region: how well the scan's is known, and by how
    much regions differ from it.
    """

    factor: float
    factor_sd: float
    offset_s: float = 0.0
    offset_sd_s: float = 0.0


def inversion_recovery_range(
    inversion_times_s: ArrayLike,
    *,
    repetition_times_s: ArrayLike | None = None,
    echo_time_s: float = 0.0,
    inversion_angle_deg: float | None = None,
    pooled: InversionKnowledge | None = None,
    snr: float = 100.0,
    largest_relative_error: float = 0.10,
) -> ProtocolRange:
    """T1 range of an inversion-recovery protocol.

    ``snr`` is that of a fully relaxed pixel, M0 over noise.  With the inversion factor free
    (neither ``inversion_angle_deg`` nor ``pooled``) a TR that varies with TI can leave a gap of T1 in
    the middle; the range then ends at the gap.

    Parameters
    ----------
    inversion_times_s, repetition_times_s, echo_time_s, inversion_angle_deg
        As in :func:`~cordqa.models.relaxometry.inversion_recovery.fit_inversion_recovery`.
    pooled : InversionKnowledge, optional
        What other regions of the scan tell of its inversion, for a region of a pooled fit; then
        ``inversion_angle_deg`` is not used.
    snr, largest_relative_error : float
        See the module.
    """
    inversion = check_times(inversion_times_s, "inversion times", longest_s=60.0)
    repetition = np.inf if repetition_times_s is None else np.asarray(repetition_times_s, dtype=float)
    angle = _NOMINAL_INVERSION_DEG if inversion_angle_deg is None else inversion_angle_deg

    def signal(parameters: Array) -> Array:
        t1, m0, b, offset = np.exp(parameters[0]), parameters[1], parameters[2], parameters[3]
        steady = inversion_recovery_steady_term(t1, repetition, echo_time_s=echo_time_s)
        curve: Array = m0 * (1 - b * exponential_decay(inversion + offset, t1) + (b - 1) * steady)
        return curve

    if pooled is not None:
        others = np.array([1.0, pooled.factor, pooled.offset_s])
        known = np.array([np.inf, np.inf, pooled.factor_sd, pooled.offset_sd_s])
        return _range(signal, others, 4, snr, largest_relative_error, relative=False, known_sd=known)
    others = np.array([1.0, 1 - np.cos(np.deg2rad(angle)), 0.0])
    n_free = 3 if inversion_angle_deg is None else 2
    return _range(signal, others, n_free, snr, largest_relative_error, relative=False)


def variable_flip_angle_range(
    flip_angles_deg: ArrayLike,
    repetition_time_s: float,
    *,
    snr: float = 100.0,
    largest_relative_error: float = 0.10,
) -> ProtocolRange:
    """T1 range of a variable-flip-angle protocol.

    ``snr`` is that of the brightest of the images at the T1 in question: M0 is never seen.
    """
    angles = np.atleast_1d(np.asarray(flip_angles_deg, dtype=float))

    def signal(parameters: Array) -> Array:
        return spoiled_gradient_echo_signal(
            angles, np.exp(parameters[0]), repetition_time_s, m0=parameters[1]
        )

    return _range(signal, np.array([1.0]), 2, snr, largest_relative_error, relative=True)


def multi_echo_range(
    echo_times_s: ArrayLike,
    *,
    skip_first: int = 1,
    snr: float = 100.0,
    largest_relative_error: float = 0.10,
) -> ProtocolRange:
    """T2 range of a multi-echo protocol, for an exponential without the first echoes.

    ``snr`` is that of a pixel at TE = 0.
    """
    times = np.unique(check_times(echo_times_s, "echo times", longest_s=10.0))[skip_first:]

    def signal(parameters: Array) -> Array:
        return spin_echo_signal(times, np.exp(parameters[0]), m0=parameters[1])

    return _range(signal, np.array([1.0]), 2, snr, largest_relative_error, relative=False)


def _range(
    signal: Callable[[Array], Array],
    others: Array,
    n_free: int,
    snr: float,
    limit: float,
    *,
    relative: bool,
    known_sd: Array | None = None,
) -> ProtocolRange:
    if not (snr > 0 and limit > 0):
        raise InputError("SNR and error limit must be positive", found=f"{snr} and {limit}")
    precision = np.zeros(n_free)
    if known_sd is not None:
        # The bound is for unit noise, at which a parameter is known snr times worse.
        precision = 1 / (np.maximum(known_sd, _SMALLEST_SD) * snr) ** 2
    bounds = [_bound(signal, np.array([t, *others]), precision, relative) for t in np.log(_GRID)]
    errors = np.array(bounds) / snr
    low, high = _interval_around_best(errors, limit)
    return ProtocolRange(
        low_s=low,
        high_s=high,
        times_s=_GRID.copy(),
        relative_errors=errors,
        snr=snr,
        largest_relative_error=limit,
    )


def _bound(signal: Callable[[Array], Array], at: Array, precision: Array, relative: bool) -> float:
    """Cramer-Rao bound of ln(T) for unit noise; infinite where the information is singular.

    The first parameters are free; ``precision`` says how well each is known beforehand (0: not).
    """
    n_free = precision.size
    steps = np.eye(at.size)[:n_free] * _STEP
    derivatives = np.array([(signal(at + step) - signal(at - step)) / (2 * _STEP) for step in steps])
    size = np.sqrt((derivatives**2).sum(axis=1) + precision)
    n_unknown = np.count_nonzero(precision == 0)
    if derivatives.shape[1] < n_unknown or not np.isfinite(size).all() or size.min() < 1e-9:
        return np.inf
    unit = derivatives / size[:, None]
    information = unit @ unit.T + np.diag(precision / size**2)
    if np.linalg.cond(information) > 1e10:
        return np.inf
    error = np.sqrt(np.linalg.inv(information)[0, 0]) / size[0]
    return float(error * np.abs(signal(at)).max()) if relative else float(error)


def _interval_around_best(errors: Array, limit: float) -> tuple[float, float]:
    good = errors <= limit
    if not good.any():
        return np.nan, np.nan
    best = int(np.nanargmin(np.where(np.isfinite(errors), errors, np.inf)))
    bad = np.flatnonzero(~good)
    below, above = bad[bad < best], bad[bad > best]
    low = below[-1] + 1 if below.size else 0
    high = above[0] - 1 if above.size else errors.size - 1
    return float(_GRID[low]), float(_GRID[high])
