"""Signal equations of relaxometry: pure functions that broadcast like numpy.

All times are in seconds, all angles in degrees.  Every argument may be a scalar or an array;
arrays broadcast against each other.  A relaxation time that is not positive gives NaN, never
a warning, so that one bad voxel does not disturb the others.

The equations stand here once: the fits and the simulator both call them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = [
    "exponential_decay",
    "inversion_recovery_signal",
    "inversion_recovery_steady_term",
    "multi_echo_spin_echo_signal",
    "spin_echo_saturation",
    "spin_echo_signal",
    "spoiled_gradient_echo_signal",
]

Array = NDArray[np.float64]


def exponential_decay(time_s: ArrayLike, constant_s: ArrayLike) -> Array:
    """Return exp(-time/constant), NaN where the constant is not positive.

    Parameters
    ----------
    time_s : array_like
        Time in seconds; infinity gives 0.
    constant_s : array_like
        Relaxation time in seconds, > 0; infinity gives 1 at any finite time.
    """
    time, constant = np.asarray(time_s, dtype=float), np.asarray(constant_s, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        decay: Array = np.exp(-time / constant)
        return np.where(constant > 0, decay, np.nan)


def inversion_recovery_steady_term(
    t1_s: ArrayLike, repetition_time_s: ArrayLike, *, echo_time_s: ArrayLike = 0.0
) -> Array:
    """Return X = 2 exp(-(TR - TE/2)/T1) - exp(-TR/T1), the part of the signal left by finite TR.

    The inversion-recovery signal is M0 [1 - b exp(-TI/T1) + (b - 1) X] with b = 1 - cos(inversion
    angle).  The refocusing pulse at TE/2 inverts what has recovered since the excitation, which
    is where the factor 2 comes from; TE = 0 leaves X = exp(-TR/T1).
    """
    repetition, echo = np.asarray(repetition_time_s, dtype=float), np.asarray(echo_time_s, dtype=float)
    after_refocusing = exponential_decay(repetition - echo / 2, t1_s)
    return 2 * after_refocusing - exponential_decay(repetition, t1_s)


def inversion_recovery_signal(
    inversion_time_s: ArrayLike,
    t1_s: ArrayLike,
    *,
    m0: ArrayLike = 1.0,
    inversion_angle_deg: ArrayLike = 180.0,
    inversion_factor: ArrayLike | None = None,
    repetition_time_s: ArrayLike = np.inf,
    echo_time_s: ArrayLike = 0.0,
) -> Array:
    """Signed signal of a spin-echo inversion-recovery sequence in the steady state.

    Inversion (angle th), delay TI, 90 degree excitation, ideal refocusing at TE/2, and the next
    inversion TR after the last; transverse magnetization is spoiled before every pulse.  Then

        S = M0 [1 - (1 - cos th) e^(-TI/T1) - cos th (2 e^(-(TR - TE/2)/T1) - e^(-TR/T1))]

    The T2 decay until the echo is the same for all images and belongs to ``m0``.

    Parameters
    ----------
    inversion_time_s : array_like
        Time from the centre of the inversion to the centre of the excitation pulse, >= 0.
    t1_s : array_like
        Longitudinal relaxation time, > 0.
    m0 : array_like
        Equilibrium signal.
    inversion_angle_deg : array_like
        180 is a perfect inversion; an adiabatic pulse of efficiency f has cos th = -f.
    inversion_factor : array_like, optional
        b = 1 - cos th in place of the angle; a fit may find it slightly above 2.
    repetition_time_s : array_like
        Time between inversions; infinity for full recovery.  May vary with the inversion time.
    echo_time_s : array_like
        Echo time; 0 leaves the effect of the refocusing pulse on recovery out.

    Returns
    -------
    ndarray
        Signed signal in the unit of ``m0``.

    References
    ----------
    .. [1] Barral et al., Magn Reson Med 2010, doi:10.1002/mrm.22497

    Examples
    --------
    >>> float(inversion_recovery_signal(10.0, 1.0).round(3))
    1.0
    """
    inversion = np.cos(np.deg2rad(np.asarray(inversion_angle_deg, dtype=float)))
    if inversion_factor is not None:
        inversion = 1 - np.asarray(inversion_factor, dtype=float)
    steady = inversion_recovery_steady_term(t1_s, repetition_time_s, echo_time_s=echo_time_s)
    recovery = exponential_decay(inversion_time_s, t1_s)
    signal: Array = np.asarray(m0) * (1 - (1 - inversion) * recovery - inversion * steady)
    return signal


def spoiled_gradient_echo_signal(
    flip_angle_deg: ArrayLike,
    t1_s: ArrayLike,
    repetition_time_s: ArrayLike,
    *,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
) -> Array:
    """Steady-state signal of a perfectly spoiled gradient echo (variable flip angle).

    S = M0 sin(a) (1 - E1) / (1 - E1 cos(a)), with E1 = exp(-TR/T1) and a = b1 x nominal angle.

    Parameters
    ----------
    flip_angle_deg : array_like
        Nominal flip angle.
    t1_s, repetition_time_s : array_like
        Seconds, > 0.
    m0 : array_like
        Equilibrium signal, T2* decay included.
    b1 : array_like
        Actual over nominal flip angle.

    References
    ----------
    .. [1] Ernst and Anderson, Rev Sci Instrum 1966, doi:10.1063/1.1719961
    """
    angle = np.deg2rad(np.asarray(flip_angle_deg, dtype=float) * np.asarray(b1, dtype=float))
    e1 = exponential_decay(repetition_time_s, t1_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        signal: Array = np.asarray(m0) * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
    return signal


def spin_echo_signal(echo_time_s: ArrayLike, t2_s: ArrayLike, *, m0: ArrayLike = 1.0) -> Array:
    """Mono-exponential decay M0 exp(-TE/T2): a spin-echo train with perfect refocusing.

    Parameters
    ----------
    echo_time_s, t2_s : array_like
        Seconds; T2 > 0.
    m0 : array_like
        Signal at TE = 0.
    """
    signal: Array = np.asarray(m0) * exponential_decay(echo_time_s, t2_s)
    return signal


def spin_echo_saturation(
    t1_s: ArrayLike, repetition_time_s: ArrayLike, *, echo_spacing_s: float = 0.0, n_echoes: int = 1
) -> Array:
    """Fraction of M0 that a 90 degree spin-echo train finds at its excitation, in the steady state.

    Each ideal refocusing pulse, at (i + 1/2) echo spacings, inverts what has recovered so far.
    For one echo this is 1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1).

    Parameters
    ----------
    t1_s, repetition_time_s : array_like
        Seconds; T1 > 0.
    echo_spacing_s : float
        Echo spacing (echo time for one echo); 0 gives 1 - exp(-TR/T1) for an even number of echoes
        and for none.
    n_echoes : int
        Number of refocusing pulses.
    """
    recovered: Any = 0.0
    for index in range(n_echoes):
        wait = echo_spacing_s / 2 if index == 0 else echo_spacing_s
        recovered = -(1 - (1 - recovered) * exponential_decay(wait, t1_s))
    train = max(n_echoes - 0.5, 0.0) * echo_spacing_s
    rest = exponential_decay(np.asarray(repetition_time_s, dtype=float) - train, t1_s)
    saturation: Array = 1 - (1 - recovered) * rest
    return saturation


def multi_echo_spin_echo_signal(
    n_echoes: int,
    echo_spacing_s: float,
    t2_s: ArrayLike,
    t1_s: ArrayLike,
    *,
    m0: ArrayLike = 1.0,
    refocusing_angle_deg: ArrayLike = 180.0,
    excitation_angle_deg: ArrayLike = 90.0,
) -> Array:
    """Echo amplitudes of a CPMG train with any refocusing angle, by extended phase graphs.

    Only configurations of odd order (in half echo spacings) exist at the refocusing pulses, and
    with the refocusing axis along the excited magnetization all of them stay real, so the state
    is three real arrays over order: dephasing, rephasing and longitudinal.  Magnetization that
    recovers during the train never reaches an echo (its order has the wrong parity), so ``m0``
    may carry the saturation factor.

    Parameters
    ----------
    n_echoes : int
        Number of echoes, >= 1.
    echo_spacing_s : float
        Time between echoes, and TE of the first, > 0.
    t2_s, t1_s : array_like
        Seconds, > 0.  Broadcast with the angles and ``m0`` to the voxel shape.
    m0 : array_like
        Longitudinal magnetization before the excitation.
    refocusing_angle_deg, excitation_angle_deg : array_like
        Actual angles (nominal times B1), the same for all refocusing pulses.

    Returns
    -------
    ndarray, shape (..., n_echoes)
        Signed amplitudes; the leading shape is the broadcast of the voxel parameters.

    Raises
    ------
    InputError
        If there is no echo or the spacing is not positive.

    References
    ----------
    .. [1] Hennig, Concepts Magn Reson 1991, doi:10.1002/cmr.1820030302
    .. [2] Weigel, J Magn Reson Imaging 2015, doi:10.1002/jmri.24619
    """
    if n_echoes < 1 or not echo_spacing_s > 0:
        raise InputError(
            "an echo train needs at least one echo and a positive spacing",
            found=f"{n_echoes} echoes at {echo_spacing_s} s",
        )
    parts = (t2_s, t1_s, m0, refocusing_angle_deg, excitation_angle_deg)
    t2, t1, amplitude, refocusing, excitation = np.broadcast_arrays(
        *(np.asarray(part, dtype=float) for part in parts)
    )
    half_decay = exponential_decay(echo_spacing_s / 2, t2)
    start = amplitude * np.sin(np.deg2rad(excitation)) * half_decay
    relaxation = (half_decay**2, exponential_decay(echo_spacing_s, t1))
    echoes = _run_train(n_echoes, start, relaxation, np.deg2rad(refocusing))
    signal: Array = np.moveaxis(echoes * half_decay, 0, -1)
    return signal


def _run_train(n_echoes: int, start: Array, relaxation: tuple[Array, Array], angle: Array) -> Array:
    """Return the rephased order at each refocusing pulse, shape (n_echoes, ...)."""
    shape = (n_echoes, *start.shape)
    dephasing, rephasing, stored = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    dephasing[0] = start
    kept, swapped, turned = np.cos(angle / 2) ** 2, np.sin(angle / 2) ** 2, np.sin(angle)
    cosine = np.cos(angle)
    e2, e1 = relaxation
    echoes = np.empty(shape)
    for echo in range(n_echoes):
        # Orders above the pulse count are empty; orders that cannot return in time do no harm.
        n = echo + 1
        f_plus, f_minus, z = dephasing[:n], rephasing[:n], stored[:n]
        new_plus = kept * f_plus + swapped * f_minus + turned * z
        new_minus = swapped * f_plus + kept * f_minus - turned * z
        new_z = cosine * z - turned * (f_plus - f_minus) / 2
        echoes[echo] = new_minus[0]
        if n == n_echoes:
            break
        stored[:n] = new_z * e1
        dephasing[1 : n + 1] = new_plus * e2
        dephasing[0] = new_minus[0] * e2
        rephasing[: n - 1] = new_minus[1:] * e2
        rephasing[n - 1] = 0.0
    return echoes
