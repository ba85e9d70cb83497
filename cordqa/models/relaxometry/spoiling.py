"""What incomplete spoiling does to T1 from flip angles, by phase graphs of the user's own settings.

RF spoiling advances the phase of the pulses quadratically and dephases the transverse magnetization
by whole turns per repetition.  What is left of it makes the signal, and with it T1, differ from the
ideal by percents, depending on the increment, TR, flip angles and T2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.relaxometry.checks import check_times
from cordqa.models.relaxometry.signal import spoiled_gradient_echo_signal
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

__all__ = ["SpoilingCorrection", "make_spoiling_correction", "rf_spoiled_signal"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Orders beyond this many T2 of dephasing carry less than 1e-4 of the signal.
_T2_KEPT = 9.0
_MOST_ORDERS = 400
_CHECK_EVERY = 25
_SETTLED = 1e-6
_MOST_PULSES = 6000
_T1_GRID = np.geomspace(0.25, 4.0, 9)
_B1_GRID = np.linspace(0.6, 1.4, 7)
_DEGREE = 3


def rf_spoiled_signal(
    flip_angle_deg: ArrayLike,
    t1_s: ArrayLike,
    t2_s: ArrayLike,
    repetition_time_s: float,
    *,
    increment_deg: float,
    b1: ArrayLike = 1.0,
    n_pulses: int | None = None,
    n_orders: int | None = None,
) -> Array:
    """Magnitude right after the pulse of an RF- and gradient-spoiled gradient echo.

    Extended phase graph with one turn of dephasing per repetition and pulse phases
    ``increment n (n + 1) / 2``, from the ideally spoiled steady state until the signal settles.
    Diffusion and flow, which help spoiling, are left out.

    Parameters
    ----------
    flip_angle_deg, t1_s, t2_s, b1 : array_like
        Broadcast against each other.
    repetition_time_s : float
    increment_deg : float
        Of the RF phase.
    n_pulses, n_orders : int, optional
        Fixed numbers of pulses (from equilibrium) and orders, for comparison with a simulation.

    Returns
    -------
    ndarray
        In units of the equilibrium magnetization.

    References
    ----------
    .. [1] Weigel, J Magn Reson Imaging 2015, doi:10.1002/jmri.24619
    """
    parts = (flip_angle_deg, t1_s, t2_s, b1)
    angle, t1, t2, field = np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in parts))
    shape = angle.shape
    alpha = np.deg2rad(angle * field).ravel()
    e1, e2 = np.exp(-repetition_time_s / t1).ravel(), np.exp(-repetition_time_s / t2).ravel()
    orders = n_orders or min(math.ceil(_T2_KEPT * float(t2.max()) / repetition_time_s) + 2, _MOST_ORDERS)
    train = _Train(alpha, e1, e2, orders, math.radians(increment_deg))
    if n_pulses is None:
        ideal = spoiled_gradient_echo_signal(angle, t1, repetition_time_s, b1=field).ravel()
        train.stored[0] = ideal / np.sin(alpha)
    signal = np.zeros(alpha.size)
    for pulse in range(n_pulses or _MOST_PULSES):
        new = train.pulse()
        if n_pulses is None and pulse % _CHECK_EVERY == _CHECK_EVERY - 1:
            settled = np.abs(new - signal).max() <= _SETTLED * new.max()
            signal = new
            if settled:
                break
        signal = new if n_pulses is not None else signal
        train.wait()
    return signal.reshape(shape)


class _Train:
    """States by order (first axis): dephasing, rephasing and longitudinal."""

    def __init__(self, alpha: Array, e1: Array, e2: Array, orders: int, increment: float) -> None:
        self.plus, self.minus, self.stored = (np.zeros((orders, alpha.size), complex) for _ in range(3))
        self.stored[0] = 1.0
        self.e1, self.e2, self.increment = e1, e2, increment
        self.kept, self.swapped = np.cos(alpha / 2) ** 2, np.sin(alpha / 2) ** 2
        self.sine, self.cosine = np.sin(alpha), np.cos(alpha)
        self.count, self.phase = 0, 0.0

    def pulse(self) -> Array:
        """Apply the next pulse and return the signal right after it."""
        self.phase += self.count * self.increment
        self.count += 1
        turn = np.exp(1j * (self.phase % (2 * math.pi)))
        f, g, z = self.plus, self.minus, self.stored
        self.plus = self.kept * f + turn**2 * self.swapped * g - 1j * turn * self.sine * z
        self.minus = self.swapped * f / turn**2 + self.kept * g + 1j / turn * self.sine * z
        self.stored = -0.5j / turn * self.sine * f + 0.5j * turn * self.sine * g + self.cosine * z
        return np.asarray(np.abs(self.plus[0]))

    def wait(self) -> None:
        """Relax for one repetition and dephase by one turn."""
        f, g, z = self.plus * self.e2, self.minus * self.e2, self.stored * self.e1
        z[0] += 1 - self.e1
        self.stored = z
        self.plus[1:], self.plus[0] = f[:-1], np.conj(g[1])
        self.minus[:-1], self.minus[-1] = g[1:], 0.0
        self.minus[0] = np.conj(self.plus[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoilingCorrection:
    """Polynomial from the apparent T1 and B1 to the true T1.

    Attributes
    ----------
    coefficients : ndarray, shape (4, 4)
        Of ``B1**i (ln T1app)**j`` in ln(T1/T1app), T1 in seconds.
    b1_range, t1_range_s : tuple of float
        What was simulated; the correction holds nowhere else.
    largest_change, largest_residual : float
        Largest relative error of T1 without the correction, and what the polynomial leaves of it.
    """

    coefficients: Array
    b1_range: tuple[float, float]
    t1_range_s: tuple[float, float]
    largest_change: float
    largest_residual: float

    def factor(self, apparent_s: ArrayLike, b1: ArrayLike) -> Array:
        """T1 over apparent T1; NaN outside the range that was simulated."""
        t1, field = np.broadcast_arrays(np.asarray(apparent_s, dtype=float), np.asarray(b1, dtype=float))
        low, high = self.t1_range_s
        with np.errstate(invalid="ignore"):
            inside = (t1 >= low) & (t1 <= high) & (field >= self.b1_range[0]) & (field <= self.b1_range[1])
        logarithm = np.log(np.where(inside, t1, 1.0))
        power = np.polynomial.polynomial.polyval2d(np.where(inside, field, 1.0), logarithm, self.coefficients)
        return np.where(inside, np.exp(power), np.nan)


def make_spoiling_correction(
    flip_angles_deg: ArrayLike, repetition_time_s: float, *, increment_deg: float, t2_s: float
) -> SpoilingCorrection:
    """Simulate a protocol over T1 and B1 and fit the correction of its T1.

    The apparent T1 is what :func:`fit_variable_flip_angle` makes of the simulated signals, so the
    correction belongs to these flip angles and this estimator.

    Parameters
    ----------
    flip_angles_deg : array_like, shape (n_images,)
    repetition_time_s : float
    increment_deg : float
        Phase increment of the RF spoiling, which the vendor or the sequence tells.
    t2_s : float
        One T2 that is assumed for all tissue.

    Raises
    ------
    InputError
        If T2 or TR is no time in seconds, or the increment no angle.

    References
    ----------
    .. [1] Preibisch and Deichmann, Magn Reson Med 2009, doi:10.1002/mrm.21776
    """
    angles = np.atleast_1d(np.asarray(flip_angles_deg, dtype=float))
    check_times(t2_s, "T2", longest_s=5.0)
    check_times(repetition_time_s, "the repetition time", longest_s=1.0)
    if not (t2_s > 0 and repetition_time_s > 0 and 0 <= increment_deg <= 360):
        raise InputError(
            "spoiling needs a positive T2 and TR, and an increment between 0 and 360 degrees",
            found=f"T2 {t2_s:g} s, TR {repetition_time_s:g} s, {increment_deg:g} degrees",
        )
    b1, t1 = (grid.ravel() for grid in np.meshgrid(_B1_GRID, _T1_GRID, indexing="ij"))
    signal = rf_spoiled_signal(
        angles, t1[:, None], t2_s, repetition_time_s, increment_deg=increment_deg, b1=b1[:, None]
    )
    fit = fit_variable_flip_angle(signal, angles, repetition_time_s, b1=b1, t1_range_s=(0.01, 40.0))
    apparent = fit.parameters["t1_s"]
    good = np.isfinite(apparent)
    if good.sum() < 2 * (_DEGREE + 1) ** 2:
        raise InputError("T1 cannot be told from these flip angles, so its correction neither")
    terms = np.polynomial.polynomial.polyvander2d(b1[good], np.log(apparent[good]), [_DEGREE, _DEGREE])
    target = np.log(t1[good] / apparent[good])
    solution = np.linalg.lstsq(terms, target, rcond=None)[0]
    residual = np.abs(np.expm1(terms @ solution - target)).max()
    ends = [apparent[good & (t1 == edge)] for edge in (_T1_GRID[0], _T1_GRID[-1])]
    return SpoilingCorrection(
        coefficients=np.asarray(solution, dtype=float).reshape(_DEGREE + 1, _DEGREE + 1),
        b1_range=(float(_B1_GRID[0]), float(_B1_GRID[-1])),
        t1_range_s=(float(ends[0].min()), float(ends[1].max())),
        largest_change=float(np.abs(np.expm1(-target)).max()),
        largest_residual=float(residual),
    )
