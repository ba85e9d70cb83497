"""Steady state of two exchanging waters under spoiled and balanced gradient echoes.

Myelin water (fraction f, T1m, T2m) and the other water (1 - f, T1o, T2o) exchange; myelin water stays
for ``residence_s`` on average, and as much flows back.  Between pulses this is a linear system with
constant coefficients, so that the steady state follows from matrix exponentials and one solve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["TwoPools", "balanced_two_pool_signal", "spoiled_two_pool_signal"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPools:
    """Parameters of tissue; arrays of one shape, or numbers.

    Attributes
    ----------
    fraction : ndarray
        Share of myelin water, between 0 and 1.
    t1_myelin_s, t2_myelin_s, t1_other_s, t2_other_s : ndarray
        Seconds.
    residence_s : ndarray
        Mean time that myelin water stays; infinity for no exchange.
    off_resonance_hz : ndarray
        Of both waters.
    """

    fraction: ArrayLike
    t1_myelin_s: ArrayLike
    t2_myelin_s: ArrayLike
    t1_other_s: ArrayLike
    t2_other_s: ArrayLike
    residence_s: ArrayLike
    off_resonance_hz: ArrayLike = 0.0

    def arrays(self) -> tuple[Array, ...]:
        """All parameters, broadcast, in the order of the attributes."""
        names = ("fraction", "t1_myelin_s", "t2_myelin_s", "t1_other_s", "t2_other_s", "residence_s")
        parts = [np.asarray(getattr(self, name), dtype=float) for name in (*names, "off_resonance_hz")]
        return tuple(np.broadcast_arrays(*parts))


def _exponential(matrix: Complex, time: float) -> Complex:
    """exp(matrix * time) of 2 x 2 matrices in closed form, shape (..., 2, 2)."""
    half_trace = (matrix[..., 0, 0] + matrix[..., 1, 1]) / 2
    shifted = matrix - half_trace[..., None, None] * np.eye(2)
    root = np.sqrt(-(shifted[..., 0, 0] * shifted[..., 1, 1] - shifted[..., 0, 1] * shifted[..., 1, 0]))
    angle = root * time
    small = np.abs(angle) < 1e-8
    safe = np.where(small, 1.0, root)
    over = np.where(small, time, np.sinh(angle) / safe)
    grown = np.exp(half_trace * time)[..., None, None]
    found: Complex = grown * (np.cosh(angle)[..., None, None] * np.eye(2) + over[..., None, None] * shifted)
    return found


def _rates(pools: TwoPools) -> tuple[Complex, Complex, Array]:
    """Matrices of transverse and longitudinal relaxation with exchange, and the equilibrium."""
    fraction, t1m, t2m, t1o, t2o, residence, off = pools.arrays()
    with np.errstate(divide="ignore", invalid="ignore"):
        leave = 1.0 / residence
        come = leave * fraction / (1 - fraction)
        turn = 2j * np.pi * off
        along = np.array([[-1 / t1m - leave, come], [leave, -1 / t1o - come]], dtype=complex)
        across = np.array([[-1 / t2m - leave + turn, come], [leave, -1 / t2o - come + turn]])
    equilibrium = np.stack([fraction, 1 - fraction], axis=-1)
    return np.moveaxis(across, (0, 1), (-2, -1)), np.moveaxis(along, (0, 1), (-2, -1)), equilibrium


def _check_repetition(repetition_time_s: float) -> None:
    if not 0 < repetition_time_s < 1:
        raise InputError(
            "the repetition time must be positive and in seconds", found=f"{repetition_time_s:g}"
        )


def spoiled_two_pool_signal(
    flip_angles_deg: ArrayLike, repetition_time_s: float, pools: TwoPools, *, b1: ArrayLike = 1.0
) -> Array:
    """Signal right after the pulses of an ideally spoiled gradient echo, for equilibrium 1.

    Parameters
    ----------
    flip_angles_deg : array_like, shape (n,)
    repetition_time_s : float
    pools : TwoPools
        Of the voxel shape.
    b1 : array_like
        Actual over nominal flip angle, voxel shape.

    Returns
    -------
    ndarray, shape (..., n)
        Sum of both waters; T2* decay until the echo belongs to the amplitude.
    """
    _check_repetition(repetition_time_s)
    _, along, equilibrium = _rates(pools)
    recovery = _exponential(along, repetition_time_s).real
    angle = np.deg2rad(np.asarray(b1, dtype=float)[..., None] * np.asarray(flip_angles_deg, dtype=float))
    start = equilibrium - np.matmul(recovery, equilibrium[..., None])[..., 0]
    system = np.eye(2) - recovery[..., None, :, :] * np.cos(angle)[..., None, None]
    before = np.linalg.solve(system, np.broadcast_to(start[..., None, :, None], (*system.shape[:-1], 1)))
    signal: Array = np.sin(angle) * before[..., 0].sum(axis=-1)
    return signal


def balanced_two_pool_signal(
    flip_angles_deg: ArrayLike,
    repetition_time_s: float,
    pools: TwoPools,
    *,
    phase_increments_deg: ArrayLike,
    echo_time_s: float | None = None,
    b1: ArrayLike = 1.0,
) -> Array:
    """Magnitude of a balanced steady state at the echo, for equilibrium 1.

    Parameters
    ----------
    flip_angles_deg, phase_increments_deg : array_like, shape (n,)
        Flip angle, and advance of the phase of the pulse per repetition (0 or 180), of each image.
    repetition_time_s : float
    pools : TwoPools
        Of the voxel shape.
    echo_time_s : float, optional
        Half the repetition time by default.
    b1 : array_like
        Voxel shape.

    Returns
    -------
    ndarray, shape (..., n)
    """
    _check_repetition(repetition_time_s)
    echo = repetition_time_s / 2 if echo_time_s is None else echo_time_s
    if not 0 <= echo <= repetition_time_s:
        raise InputError("the echo must lie between two pulses", found=f"{echo:g} s")
    across, along, equilibrium = _rates(pools)
    angle = np.deg2rad(np.asarray(b1, dtype=float)[..., None] * np.asarray(flip_angles_deg, dtype=float))
    increment = np.deg2rad(np.asarray(phase_increments_deg, dtype=float))
    free = _exponential(across, repetition_time_s)[..., None, :, :] * np.exp(1j * increment)[:, None, None]
    shape = np.broadcast_shapes(free.shape[:-2], angle.shape)
    between = _real_system(np.broadcast_to(free, (*shape, 2, 2)), _exponential(along, repetition_time_s).real)
    rest = np.zeros((*equilibrium.shape[:-1], 1, 6))
    rest[..., 0, 4:] = equilibrium
    grown = rest - np.matmul(between, rest[..., None])[..., 0]
    pulse = _pulse(np.broadcast_to(angle, shape))
    after = np.linalg.solve(np.eye(6) - np.matmul(pulse, between), np.matmul(pulse, grown[..., None]))[..., 0]
    decay = _exponential(across, echo)[..., None, :, :]
    transverse = after[..., 0:2] + 1j * after[..., 2:4]
    signal: Array = np.abs(np.matmul(decay, transverse[..., None])[..., 0].sum(axis=-1))
    return signal


def _real_system(free: Complex, recovery: Array) -> Array:
    """Propagator of (x1, x2, y1, y2, z1, z2), shape (..., n, 6, 6)."""
    whole = np.zeros((*free.shape[:-2], 6, 6))
    whole[..., 0:2, 0:2] = whole[..., 2:4, 2:4] = free.real
    whole[..., 0:2, 2:4], whole[..., 2:4, 0:2] = -free.imag, free.imag
    whole[..., 4:, 4:] = recovery[..., None, :, :]
    return whole


def _pulse(angle: Array) -> Array:
    """Rotation about x of both waters, shape (..., 6, 6)."""
    whole = np.zeros((*angle.shape, 6, 6))
    cosine, sine = np.cos(angle), np.sin(angle)
    for water in range(2):
        whole[..., water, water] = 1.0
        whole[..., 2 + water, 2 + water] = whole[..., 4 + water, 4 + water] = cosine
        whole[..., 2 + water, 4 + water], whole[..., 4 + water, 2 + water] = sine, -sine
    return whole
