"""T1 from MP2RAGE: the signals of both readouts, and T1 from their combination.

One repetition is an inversion, a wait, a train of small excitations, a wait, a second train, and a
wait.  Each of these acts on the longitudinal magnetization as ``m -> keep m + gain``; their chain
closed on itself gives the steady state, and cut at the centre of a train its signal.  The
combination S1 S2 / (S1^2 + S2^2) of both lies between -1/2 and 1/2 and depends on T1 and B1 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.relaxometry.checks import check_range, check_times

__all__ = ["Mp2rageProtocol", "combine_readouts", "fit_mp2rage", "mp2rage_signals", "mp2rage_uniform"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NO_NUMBER = "the uniform image is not a number"
BEYOND = "the uniform image lies beyond -0.5 to 0.5"
NO_B1 = "no B1"
OUTSIDE = "outside the range of T1 that this protocol tells apart"
NOT_SOLVED = "no T1 gives this value"
FOLDED = "a T1 beyond the range of the protocol gives the same value"
#: Inversion efficiency of the adiabatic pulse of the usual implementation.
_EFFICIENCY = 0.96
_TABLE_POINTS = 2000
_B1_STEP = 0.01
_NEWTON_STEPS = 12
_DIFFERENCE = 1e-5
_SOLVED = 1e-9
_LARGEST_B1 = 5.0
#: Rounding may carry a value this far; more such voxels than this share are another scale.
_END, _MANY = 0.501, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp2rageProtocol:
    """Timing and nominal pulses of an MP2RAGE scan.

    Attributes
    ----------
    repetition_time_s : float
        Between inversions.
    inversion_times_s, flip_angles_deg : tuple of float
        Of both readouts; inversion times count to the excitation of the centre of k-space.
    excitation_spacing_s : float
        Between the excitations of a train.
    excitations_before, excitations_after : int
        Excitations of a train before that of the centre of k-space, and from it on.
    inversion_efficiency : float
        Share of the magnetization that the inversion inverts; 1 is ideal.

    Raises
    ------
    InputError
        If times do not fit into each other, or look like milliseconds.
    """

    repetition_time_s: float
    inversion_times_s: tuple[float, float]
    flip_angles_deg: tuple[float, float]
    excitation_spacing_s: float
    excitations_before: int
    excitations_after: int
    inversion_efficiency: float = _EFFICIENCY

    def __post_init__(self) -> None:
        check_times(self.repetition_time_s, "the repetition time", longest_s=30.0)
        check_times(self.inversion_times_s, "inversion times", longest_s=20.0)
        check_times(self.excitation_spacing_s, "the spacing of the excitations", longest_s=0.1)
        if len(self.inversion_times_s) != 2 or len(self.flip_angles_deg) != 2:
            raise InputError("MP2RAGE has two inversion times and two flip angles")
        if not all(0 < angle < 90 for angle in self.flip_angles_deg):
            raise InputError(
                "flip angles must lie between 0 and 90 degrees", found=f"{list(self.flip_angles_deg)}"
            )
        if self.excitations_before < 0 or self.excitations_after < 1:
            raise InputError(
                "a train needs an excitation at the centre of k-space",
                found=f"{self.excitations_before} before and {self.excitations_after} from it on",
            )
        if not 0 < self.inversion_efficiency <= 1:
            raise InputError("the inversion efficiency lies above 0 and at most at 1")
        if min(self.waits_s) < 0:
            raise InputError(
                "the trains do not fit between the inversions",
                found="waits of " + ", ".join(f"{wait:.3g}" for wait in self.waits_s) + " s",
                todo="check the number of excitations, their spacing and the inversion times",
            )

    @property
    def waits_s(self) -> tuple[float, float, float]:
        """Free recovery before the first, between, and after the trains."""
        before = self.excitations_before * self.excitation_spacing_s
        after = self.excitations_after * self.excitation_spacing_s
        first, second = self.inversion_times_s
        return (
            first - before,
            second - first - before - after,
            self.repetition_time_s - second - after,
        )


def mp2rage_signals(
    protocol: Mp2rageProtocol, t1_s: ArrayLike, *, m0: ArrayLike = 1.0, b1: ArrayLike = 1.0
) -> Array:
    """Signed steady-state signals of both readouts at the centre of k-space.

    Parameters
    ----------
    protocol : Mp2rageProtocol
    t1_s : array_like
        Seconds.
    m0 : array_like
        Equilibrium signal, T2* decay included.
    b1 : array_like
        Actual over nominal angle of the excitations; the inversion is adiabatic and keeps its
        efficiency.

    Returns
    -------
    ndarray, shape (..., 2)
        NaN where T1 or B1 is not positive.

    References
    ----------
    .. [1] Marques et al., NeuroImage 2010, doi:10.1016/j.neuroimage.2009.10.002
    """
    t1, field, amplitude = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (t1_s, b1, m0)))
    good = (t1 > 0) & (field > 0)
    rate = 1 / np.where(good, t1, 1.0)
    angles = [np.radians(angle) * np.where(good, field, 1.0) for angle in protocol.flip_angles_deg]
    first, second = (_Train(angle, rate, protocol) for angle in angles)
    first_wait, between, last_wait = (_wait(time, rate) for time in protocol.waits_s)
    chain = [first_wait, first.before, first.after, between, second.before, second.after, last_wait]
    keep, gain = _chain(chain)
    # The inversion turns m into -efficiency m.
    steady = gain / (1 + protocol.inversion_efficiency * keep)
    start = -protocol.inversion_efficiency * steady
    levels = []
    for stop in (2, 5):
        keep, gain = _chain(chain[:stop])
        levels.append(keep * start + gain)
    signals = np.stack([level * np.sin(angle) for level, angle in zip(levels, angles, strict=True)], axis=-1)
    return np.where(good[..., None], amplitude[..., None] * signals, np.nan)


class _Train:
    """Excitations before and from the centre of k-space on, as (keep, gain)."""

    def __init__(self, angle: Array, rate: Array, protocol: Mp2rageProtocol) -> None:
        recovery = np.exp(-protocol.excitation_spacing_s * rate)
        gain = -np.expm1(-protocol.excitation_spacing_s * rate)
        each = np.cos(angle) * recovery
        level = gain / (1 - each)
        self.before = self._many(each, level, protocol.excitations_before)
        self.after = self._many(each, level, protocol.excitations_after)

    @staticmethod
    def _many(each: Array, level: Array, count: int) -> tuple[Array, Array]:
        keep = each**count
        return keep, level * (1 - keep)


def _wait(time: float, rate: Array) -> tuple[Array, Array]:
    return np.exp(-time * rate), -np.expm1(-time * rate)


def _chain(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """One after the other, m -> keep m + gain."""
    keep: Array = np.ones_like(parts[0][0])
    gain: Array = np.zeros_like(keep)
    for part_keep, part_gain in parts:
        keep, gain = part_keep * keep, part_keep * gain + part_gain
    return keep, gain


def combine_readouts(first: ArrayLike, second: ArrayLike) -> Array:
    """Uniform image Re(S1* S2) / (|S1|^2 + |S2|^2), summed over echoes of the same echo time.

    Parameters
    ----------
    first, second : array_like, complex or signed, shape (..., n_echoes)
        Both readouts; one echo where there is one.

    Returns
    -------
    ndarray, shape (...,)
        Between -1/2 and 1/2; NaN where there is no signal.
    """
    one, two = np.asarray(first), np.asarray(second)
    above = np.real(np.conj(one) * two).sum(axis=-1)
    below = (np.abs(one) ** 2 + np.abs(two) ** 2).sum(axis=-1)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))


def mp2rage_uniform(protocol: Mp2rageProtocol, t1_s: ArrayLike, *, b1: ArrayLike = 1.0) -> Array:
    """Value of the uniform image, between -1/2 and 1/2."""
    signals = mp2rage_signals(protocol, t1_s, b1=b1)
    first, second = signals[..., 0], signals[..., 1]
    return np.asarray(first * second / (first**2 + second**2))


def fit_mp2rage(
    uniform: ArrayLike,
    protocol: Mp2rageProtocol,
    *,
    b1: ArrayLike | None = None,
    uniform_sd: ArrayLike | None = None,
    t1_range_s: tuple[float, float] = (0.05, 10.0),
) -> FittedMaps:
    """T1 from the uniform image: look-up on the branch that falls with T1, refined with the equation.

    The branch is the longest run of T1 over which the value falls strictly; beyond its ends two T1 give
    one value, and there is no answer.

    Parameters
    ----------
    uniform : array_like
        Between -1/2 and 1/2.
    protocol : Mp2rageProtocol
    b1 : array_like, optional
        Actual over nominal flip angle, broadcast to the voxels; 1 where it is not given.
    uniform_sd : array_like, optional
        Noise of the uniform image, for the standard error.
    t1_range_s : tuple of float
        Range in which the branch is looked for.

    Returns
    -------
    FittedMaps
        T1 (ms).  Voxels of which a T1 outside the branch would explain the value as well are flagged.

    Raises
    ------
    InputError
        If the image does not lie between -1/2 and 1/2, or B1 is no ratio.
    """
    value = np.asarray(uniform, dtype=float)
    field = _field(b1, value.shape)
    known = np.isfinite(value)
    with np.errstate(invalid="ignore"):
        beyond = known & (np.abs(value) > _END)
    if beyond.any() and beyond.sum() > _MANY * known.sum():
        raise InputError(
            "the uniform image must lie between -0.5 and 0.5",
            found=f"{value[known].min():g} to {value[known].max():g}",
            todo="rescale it: stored 0 to 4095 is (value - 2047.5) / 4095",
        )
    has_b1 = (field > 0) & (field < _LARGEST_B1)
    table = _Table(protocol, check_range(t1_range_s, "T1"), field[has_b1])
    log_t1, inside, folded = table.solve(np.where(known & ~beyond, value, 0.0), np.where(has_b1, field, 1.0))
    miss, slope = _residual(protocol, log_t1, value, np.where(has_b1, field, 1.0))
    solved = np.abs(miss) < _SOLVED
    failures = [
        (~known, NO_NUMBER),
        (beyond, BEYOND),
        (~has_b1, NO_B1),
        (~inside, OUTSIDE),
        (~solved, NOT_SOLVED),
    ]
    reasons = Reasons.collect(value.shape, failures)
    t1 = np.where(reasons.ok, 1000 * np.exp(log_t1), np.nan)
    errors = {}
    if uniform_sd is not None:
        sd = np.broadcast_to(np.asarray(uniform_sd, dtype=float), value.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors["T1"] = np.where(reasons.ok & (sd > 0), t1 * sd / np.abs(slope), np.nan)
    low, high = table.limits_ms
    return FittedMaps(
        model=f"MP2RAGE look-up, inversion efficiency {protocol.inversion_efficiency:g}",
        values={"T1": t1},
        units={"T1": "ms"},
        standard_errors=errors,
        reasons=reasons,
        flags={FOLDED: folded & reasons.ok},
        notices=(f"the protocol tells T1 apart from {low:.0f} to {high:.0f} ms at nominal B1",),
    )


def _field(b1: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    field = np.asarray(1.0 if b1 is None else b1, dtype=float)
    try:
        spread = np.broadcast_to(field, shape)
    except ValueError as error:
        raise InputError(
            "the B1 map does not fit the image", found=f"{field.shape}", expected=f"{shape}"
        ) from error
    seen = spread[np.isfinite(spread) & (spread != 0)]
    if seen.size and np.median(seen) > _LARGEST_B1:
        raise InputError(
            "B1 must be actual over nominal angle, about 1",
            found=f"median {np.median(seen):g}",
            todo="divide by 100 if it is in percent",
        )
    return np.asarray(spread)


def _residual(protocol: Mp2rageProtocol, log_t1: Array, value: Array, b1: Array) -> tuple[Array, Array]:
    """Model less value, and its slope by ln T1."""
    model = mp2rage_uniform(protocol, np.exp(log_t1), b1=b1)
    ahead = mp2rage_uniform(protocol, np.exp(log_t1 + _DIFFERENCE), b1=b1)
    return model - value, (ahead - model) / _DIFFERENCE


class _Table:
    """Values of the uniform image over T1 and B1, with the falling branch of each B1."""

    def __init__(self, protocol: Mp2rageProtocol, limits: tuple[float, float], b1: Array) -> None:
        self.protocol = protocol
        self.log_t1 = np.log(np.geomspace(*limits, _TABLE_POINTS))
        self.columns = np.unique(np.rint(b1 / _B1_STEP)).astype(int) if b1.size else np.array([100])
        self.values = mp2rage_uniform(
            protocol, np.exp(self.log_t1), b1=np.maximum(self.columns * _B1_STEP, 1e-3)[:, None]
        )
        self.branches = [_branch(row) for row in self.values]

    @property
    def limits_ms(self) -> tuple[float, float]:
        """Ends of the branch at nominal B1."""
        low, high = _branch(mp2rage_uniform(self.protocol, np.exp(self.log_t1)))
        return float(1000 * np.exp(self.log_t1[low])), float(1000 * np.exp(self.log_t1[high]))

    def solve(self, value: Array, b1: Array) -> tuple[Array, Mask, Mask]:
        """Find ln T1, whether the value lies on the branch, and whether it also lies beside it."""
        log_t1, folded = np.full(value.shape, self.log_t1[0]), np.zeros(value.shape, dtype=bool)
        low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
        nearest = np.rint(b1 / _B1_STEP).astype(int)
        for column, row, (first, last) in zip(self.columns, self.values, self.branches, strict=True):
            here = nearest == column
            part = slice(first, last + 1)
            log_t1[here] = np.interp(-value[here], -row[part], self.log_t1[part])
            low[here], high[here] = self.log_t1[first], self.log_t1[last]
            for beside in (row[: first + 1], row[last:]):
                folded[here] |= (value[here] > beside.min()) & (value[here] < beside.max())
        return (*self._refine(log_t1, low, high, value, b1), folded)

    def _refine(self, log_t1: Array, low: Array, high: Array, value: Array, b1: Array) -> tuple[Array, Mask]:
        """Newton steps with the equation itself, kept in a bracket that every step narrows."""
        # The branch of the voxel's own B1 differs from that of the column by less than this.
        low, high = low - _B1_STEP, high + _B1_STEP
        at_low, _ = _residual(self.protocol, low, value, b1)
        at_high, _ = _residual(self.protocol, high, value, b1)
        inside = (at_low >= 0) & (at_high <= 0)
        for _ in range(_NEWTON_STEPS):
            miss, slope = _residual(self.protocol, log_t1, value, b1)
            low, high = np.where(miss > 0, log_t1, low), np.where(miss > 0, high, log_t1)
            with np.errstate(divide="ignore", invalid="ignore"):
                trial = log_t1 - miss / slope
            fits = (trial >= low) & (trial <= high)
            log_t1 = np.where(np.abs(miss) < 1e-14, log_t1, np.where(fits, trial, (low + high) / 2))
        return log_t1, inside


def _branch(row: Array) -> tuple[int, int]:
    """First and last index of the longest run that falls strictly."""
    falls = np.concatenate([[False], np.diff(row) < 0, [False]])
    edges = np.flatnonzero(np.diff(falls.astype(int)))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])
