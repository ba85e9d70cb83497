"""T1, T2, proton density and B1 from one multi-dynamic multi-echo scan (QRAPMASTER).

A saturation pulse, a delay that differs between dynamics, an excitation and several spin echoes:
recovery over the delays gives T1, decay over the echoes T2, and the depth of the saturation B1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.checks import check_range, check_signal, check_times
from cordqa.models.relaxometry.multi_dynamic_solver import (
    Ranges,
    Timing,
    count_unknown,
    determines,
    evaluate,
)
from cordqa.models.relaxometry.multi_dynamic_voxels import fit_voxels

__all__ = ["MultiDynamicProtocol", "fit_multi_dynamic", "multi_dynamic_signal"]

Array = NDArray[np.float64]
#: Longest delay, echo time and repetition time that can be meant in seconds.
_LONGEST_DELAY, _LONGEST_ECHO, _LONGEST_REPETITION = 30.0, 1.5, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiDynamicProtocol:
    """Timing and nominal pulses of a multi-dynamic multi-echo scan.

    Attributes
    ----------
    delays_s, echo_times_s : array_like, shape (n_images,)
        Of each image: from the saturation pulse to the excitation, and from there to the echo.
    repetition_time_s : float
        From one saturation pulse of a slice to its next.
    excitation_deg, saturation_deg : float
        Nominal flip angles.

    Raises
    ------
    InputError
        If times are not seconds, do not fit into the repetition, or angles cannot be.
    """

    delays_s: ArrayLike
    echo_times_s: ArrayLike
    repetition_time_s: float
    excitation_deg: float = 90.0
    saturation_deg: float = 120.0
    timing: Timing = field(init=False, repr=False)

    def __post_init__(self) -> None:
        delays = check_times(self.delays_s, "delays", longest_s=_LONGEST_DELAY)
        echoes = check_times(self.echo_times_s, "echo times", longest_s=_LONGEST_ECHO)
        repetition = float(
            check_times(self.repetition_time_s, "the repetition time", longest_s=_LONGEST_REPETITION)[0]
        )
        if delays.shape != echoes.shape:
            raise InputError(
                "every image needs a delay and an echo time",
                found=f"{delays.size} delays and {echoes.size} echo times",
            )
        if (delays + echoes).max() >= repetition:
            raise InputError(
                "a delay and its echo do not fit into the repetition",
                found=f"{(delays + echoes).max():g} s",
                expected=f"less than {repetition:g} s",
            )
        if not (0 < self.excitation_deg < 180 and 0 < self.saturation_deg <= 180):
            raise InputError(
                "flip angles must lie between 0 and 180 degrees",
                found=f"excitation {self.excitation_deg:g}, saturation {self.saturation_deg:g}",
            )
        timing = Timing(
            delays=delays,
            echoes=echoes,
            repetition=repetition,
            excitation=float(np.deg2rad(self.excitation_deg)),
            saturation=float(np.deg2rad(self.saturation_deg)),
        )
        object.__setattr__(self, "timing", timing)


def multi_dynamic_signal(
    protocol: MultiDynamicProtocol,
    t1_s: ArrayLike,
    t2_s: ArrayLike,
    *,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
) -> Array:
    """Signed steady-state signal of every image.

    With a and th the actual angles of excitation and saturation (B1 times nominal)

        S = M0 sin(a) e^(-TE/T2) [1 - (1 - cos th) e^(-TD/T1) - cos th e^(-TR/T1)]
            / [1 - cos(a) cos(th) e^(-TR/T1)]

    The echoes take no time off the recovery, as in the published equation.

    Parameters
    ----------
    protocol : MultiDynamicProtocol
    t1_s, t2_s : array_like
        Seconds; broadcast with the others to the voxel shape.
    m0 : array_like
        Fully relaxed signal at TE = 0.
    b1 : array_like
        Actual over nominal flip angle.

    Returns
    -------
    ndarray, shape (..., n_images)
        NaN where a relaxation time is not positive.

    References
    ----------
    .. [1] Warntjes et al., Magn Reson Med 2008;60:320-329
    """
    t1, t2, amplitude, field_ratio = np.broadcast_arrays(
        *(np.asarray(part, dtype=float) for part in (t1_s, t2_s, m0, b1))
    )
    good = (t1 > 0) & (t2 > 0)
    safe = np.stack(
        [
            np.ones(t1.size),
            np.log(np.where(good, t1, 1.0)).ravel(),
            np.log(np.where(good, t2, 1.0)).ravel(),
            np.log(np.where(field_ratio > 0, field_ratio, 1.0)).ravel(),
        ]
    )
    safe[0] = 0.0
    signal = evaluate(safe, protocol.timing).T.reshape(*t1.shape, protocol.timing.delays.size)
    known = good & (field_ratio > 0)
    return np.where(known[..., None], amplitude[..., None] * signal, np.nan)


def fit_multi_dynamic(
    signal: ArrayLike,
    protocol: MultiDynamicProtocol,
    *,
    signed: bool = False,
    b1: ArrayLike | None = None,
    noise_sd: ArrayLike | None = None,
    water_signal: float | None = None,
    t1_range_s: tuple[float, float] = (0.02, 10.0),
    t2_range_s: tuple[float, float] = (0.002, 5.0),
) -> FittedMaps:
    """Fit T1, T2, M0 and B1 of every voxel by least squares.

    Starts come from a dictionary of T1 and B1; every number of dynamics that saturation may have left
    inverted is tried from its own start where the data are magnitudes, and the best solution is
    kept.  Parameters are fitted as logarithms by damped Gauss-Newton steps on all voxels at once.
    A voxel with missing images is fitted with the rest where these determine the parameters.

    Parameters
    ----------
    signal : array_like, shape (..., n_images)
        Magnitude, or real part with its sign where ``signed``.  NaN is a missing image.
    protocol : MultiDynamicProtocol
    signed : bool
    b1 : array_like, optional
        Actual over nominal flip angle, broadcast to the voxel shape; fitted where it is not given.
    noise_sd : array_like, optional
        Broadcast to the voxel shape; standard errors come from the residuals where it is not known.
    water_signal : float, optional
        M0 of pure water under the same scaling; with it PD is given in percent of it.
    t1_range_s, t2_range_s : tuple of float
        A solution outside has no value.

    Returns
    -------
    FittedMaps
        T1 and T2 (ms), M0 (signal), B1 (ratio; only where it was fitted) and PD (%).

    Raises
    ------
    InputError
        If shapes do not fit, a magnitude is negative, or the protocol does not determine the
        parameters.

    References
    ----------
    .. [1] Warntjes et al., Magn Reson Med 2008;60:320-329
    """
    timing = protocol.timing
    check_determined(protocol, free_b1=b1 is None)
    data = check_signal(signal, timing.delays.size)
    if data.dtype.kind == "c":
        raise InputError("complex samples are not used", todo="give the real part with its sign as signed")
    _check_water(water_signal)
    shape = data.shape[:-1]
    ranges = Ranges(t1=check_range(t1_range_s, "T1"), t2=check_range(t2_range_s, "T2"))
    return fit_voxels(
        np.asarray(data, dtype=float).reshape(-1, timing.delays.size),
        timing,
        ranges=ranges,
        signed=signed,
        b1=_spread(b1, shape, "the B1 map"),
        noise_sd=_spread(noise_sd, shape, "noise_sd"),
        water_signal=water_signal,
        shape=shape,
    )


def check_determined(protocol: MultiDynamicProtocol, *, free_b1: bool) -> None:
    """Refuse a set of images that leaves a parameter open.

    Raises
    ------
    InputError
        Which says what is missing.
    """
    timing = protocol.timing
    if determines(timing, free_b1=free_b1):
        return
    n_delays, n_echoes = np.unique(timing.delays).size, np.unique(timing.echoes).size
    needed = 3 if free_b1 else 2
    todo = "give the missing dynamics"
    if free_b1 and n_delays == needed - 1 and n_echoes > 1:
        todo += ", or a B1 map, with which two delays are enough"
    raise InputError(
        f"these images do not determine {'T1, T2, M0 and B1' if free_b1 else 'T1, T2 and M0'}",
        found=f"{timing.delays.size} images with {n_delays} delays and {n_echoes} echo times",
        expected=f"at least {count_unknown(free_b1=free_b1)} images, {needed} delays and 2 echo times "
        "that are combined with each other",
        todo=todo,
    )


def _spread(values: ArrayLike | None, shape: tuple[int, ...], name: str) -> Array | None:
    if values is None:
        return None
    array: NDArray[Any] = np.asarray(values, dtype=float)
    try:
        return np.broadcast_to(array, shape).reshape(-1).astype(float)
    except ValueError as error:
        raise InputError(
            f"{name} does not fit the images", found=f"{array.shape}", expected=f"{shape}"
        ) from error


def _check_water(water_signal: float | None) -> None:
    if water_signal is not None and not 0 < water_signal < np.inf:
        raise InputError("the signal of water must be positive", found=f"{water_signal:g}")
