"""Signals of spin-echo, inversion and double-inversion sequences in their steady state.

All share one quantity, the magnetization that a repetition fails to recover:

* one spin echo:  ``lost = 2 exp(-(TR - TE/2)/T1) - exp(-TR/T1)``
* an echo train that leaves no longitudinal magnetization, of duration ``readout_s``:
  ``lost = exp(-(TR - readout)/T1)``

With it ``Mz`` at excitation is ``1 - lost`` (spin echo), ``1 - 2 exp(-TI/T1) + lost`` (inversion
recovery) and ``1 - 2 exp(-TI2/T1) + 2 exp(-TI1/T1) - lost`` (double inversion, Redpath and Smith,
Br J Radiol 1994;67:1258).  Both inversion times of the latter count to the
excitation: ``TI1`` from the first inversion, ``TI2`` from the second, so ``TI1 > TI2``; some
vendors print the time between the inversions instead, which is ``TI1 - TI2``.  Inversions are
ideal and transverse magnetization is spoiled between repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = [
    "EchoTiming",
    "double_inversion",
    "inversion_recovery",
    "longitudinal_double_inversion",
    "longitudinal_inversion",
    "spin_echo",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoTiming:
    """Timing of the readout, in seconds.

    Attributes
    ----------
    repetition_time_s : float
    echo_time_s : float
        Effective echo time.
    readout_s : float or None
        Duration of an echo train from excitation after which no longitudinal magnetization is
        left; None for a single spin echo.

    Raises
    ------
    InputError
        If a time is negative, the echo does not fit into the repetition or lies beyond the end of
        its train, or a time reads like milliseconds.
    """

    repetition_time_s: float
    echo_time_s: float
    readout_s: float | None = None

    def __post_init__(self) -> None:
        train = self.echo_time_s if self.readout_s is None else self.readout_s
        if not (0 <= self.echo_time_s <= train < self.repetition_time_s):
            readout = "" if self.readout_s is None else f", readout {self.readout_s:g} s"
            raise InputError(
                "the echo does not fit into the repetition",
                found=f"echo time {self.echo_time_s:g} s{readout}",
                expected=f"from 0 to less than the repetition time, {self.repetition_time_s:g} s",
            )
        if self.repetition_time_s > 60:
            raise InputError(
                "the repetition time reads like milliseconds",
                found=f"{self.repetition_time_s:g} s",
                expected="at most 60 s",
                todo="give times in seconds",
            )

    @property
    def room_s(self) -> float:
        """Time before the excitation in which inversions fit: from the end of the readout."""
        return self.repetition_time_s - (self.echo_time_s if self.readout_s is None else self.readout_s)

    def lost(self, t1_s: ArrayLike) -> Array:
        """Magnetization that one repetition fails to recover, as a fraction of equilibrium."""
        rate = _rate(t1_s)
        if self.readout_s is not None:
            after_train: Array = np.exp(-(self.repetition_time_s - self.readout_s) * rate)
            return after_train
        late = np.exp(-(self.repetition_time_s - self.echo_time_s / 2) * rate)
        lost: Array = 2 * late - np.exp(-self.repetition_time_s * rate)
        return lost


def _rate(t1_s: ArrayLike) -> Array:
    """One over T1; NaN where T1 is no relaxation time."""
    t1 = np.asarray(t1_s, dtype=float)
    good = np.isfinite(t1) & (t1 > 0)
    rate: Array = np.divide(1.0, t1, out=np.full(t1.shape, np.nan), where=good)
    return rate


def _decay(t2_s: ArrayLike, timing: EchoTiming) -> Array:
    decay: Array = np.exp(-timing.echo_time_s * _rate(t2_s))
    return decay


def _density(proton_density: ArrayLike) -> Array:
    density = np.asarray(proton_density, dtype=float)
    return np.where(density >= 0, density, np.nan)


def longitudinal_inversion(t1_s: ArrayLike, timing: EchoTiming, inversion_time_s: ArrayLike) -> Array:
    """Longitudinal magnetization at excitation after one inversion, with its sign."""
    rate = _rate(t1_s)
    mz: Array = 1 - 2 * np.exp(-np.asarray(inversion_time_s, dtype=float) * rate) + timing.lost(t1_s)
    return mz


def longitudinal_double_inversion(
    t1_s: ArrayLike, timing: EchoTiming, first_s: ArrayLike, second_s: ArrayLike
) -> Array:
    """Longitudinal magnetization at excitation after two inversions, with its sign.

    Parameters
    ----------
    t1_s : array_like
        Seconds.
    timing : EchoTiming
    first_s, second_s : array_like
        From the first and from the second inversion to the excitation, seconds.
    """
    rate = _rate(t1_s)
    early = np.exp(-np.asarray(first_s, dtype=float) * rate)
    late = np.exp(-np.asarray(second_s, dtype=float) * rate)
    mz: Array = 1 - 2 * late + 2 * early - timing.lost(t1_s)
    return mz


def spin_echo(proton_density: ArrayLike, t1_s: ArrayLike, t2_s: ArrayLike, timing: EchoTiming) -> Array:
    """Spin-echo signal in units of the proton density; T1w, T2w and PDw differ in timing alone.

    Returns
    -------
    ndarray
        NaN where PD is negative or a relaxation time is not positive.
    """
    signal: Array = _density(proton_density) * (1 - timing.lost(t1_s)) * _decay(t2_s, timing)
    return signal


def inversion_recovery(
    proton_density: ArrayLike,
    t1_s: ArrayLike,
    t2_s: ArrayLike,
    timing: EchoTiming,
    inversion_time_s: float,
    *,
    keep_sign: bool = True,
) -> Array:
    """Inversion-recovery signal: FLAIR as magnitude, PSIR with its sign.

    Raises
    ------
    InputError
        If the inversion does not fit into the repetition.
    """
    _check_inversion(inversion_time_s, timing)
    mz = longitudinal_inversion(t1_s, timing, inversion_time_s)
    signal = _density(proton_density) * mz * _decay(t2_s, timing)
    return signal if keep_sign else np.abs(signal)


def double_inversion(
    proton_density: ArrayLike,
    t1_s: ArrayLike,
    t2_s: ArrayLike,
    timing: EchoTiming,
    first_s: float,
    second_s: float,
    *,
    keep_sign: bool = False,
) -> Array:
    """Double-inversion signal (DIR), as magnitude unless the sign is kept.

    Raises
    ------
    InputError
        If the inversions do not fit into the repetition or are not in order.
    """
    _check_inversion(first_s, timing)
    if not 0 < second_s < first_s:
        raise InputError(
            "the inversions are not in order",
            found=f"first {first_s:g} s, second {second_s:g} s before excitation",
            expected="0 < second < first, both to the excitation",
            todo="a vendor's time between the inversions is first - second",
        )
    mz = longitudinal_double_inversion(t1_s, timing, first_s, second_s)
    signal = _density(proton_density) * mz * _decay(t2_s, timing)
    return signal if keep_sign else np.abs(signal)


def _check_inversion(inversion_time_s: float, timing: EchoTiming) -> None:
    if not 0 < inversion_time_s < timing.room_s:
        raise InputError(
            "the inversion does not fit into the repetition",
            found=f"{inversion_time_s:g} s before excitation",
            expected=f"more than 0 and less than {timing.room_s:g} s",
        )
