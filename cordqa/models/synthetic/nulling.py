"""Inversion times that null tissues, and those that show a lesion best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, InputError
from cordqa.models.synthetic.contrast import (
    EchoTiming,
    longitudinal_double_inversion,
    longitudinal_inversion,
)

__all__ = [
    "PULSE_S",
    "BestInversion",
    "Tissue",
    "allowed_second",
    "best_double_inversion",
    "best_inversion",
    "null_inversion_time",
    "null_two_tissues",
    "second_inversion_time",
    "tissue_signal",
]

Array = NDArray[np.float64]

_GRID = 2001
_GOLDEN_STEPS = 60
#: The flat region holds at least this share of the best contrast.
_FLAT = 0.95
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Time that an inversion pulse and its spoiler need before the next event, seconds.
PULSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """Relaxation times in seconds and proton density of one tissue."""

    t1_s: float
    t2_s: float
    proton_density: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.t1_s < 60 and 0 < self.t2_s < 60 and self.proton_density >= 0):
            raise InputError(
                "these are no relaxation times in seconds and proton density of a tissue",
                found=f"T1 {self.t1_s:g}, T2 {self.t2_s:g}, PD {self.proton_density:g}",
                expected="times between 0 and 60 s, a density that is not negative",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BestInversion:
    """Inversion times of the highest contrast.

    Attributes
    ----------
    first_s : float
        Inversion time; of the first inversion where there are two.
    second_s : float or None
        Of the second inversion.
    contrast : float
        Signal of the lesion less that of the reference tissue, in units of proton density.
    flat_s : tuple of float
        Range of ``first_s`` over which the contrast keeps at least 95 % of the best: within it
        the choice does not matter.
    at_edge : bool
        The contrast still rises where the pulses touch: two inversions show this lesion no better
        than one would, or the repetition is too short.
    """

    first_s: float
    second_s: float | None
    contrast: float
    flat_s: tuple[float, float]
    at_edge: bool


def null_inversion_time(t1_s: float, timing: EchoTiming) -> float:
    """Inversion time at which a tissue has no signal: ``T1 ln[2 / (1 + lost)]``.

    Raises
    ------
    FitError
        If the tissue cannot be nulled within the repetition.
    """
    time = t1_s * math.log(2 / (1 + float(timing.lost(t1_s))))
    if not 0 < time < timing.room_s:
        raise FitError(
            "the tissue cannot be nulled in this repetition",
            found=f"T1 {t1_s:g} s, repetition time {timing.repetition_time_s:g} s",
            todo="choose a longer repetition time",
        )
    return time


def second_inversion_time(t1_s: float, timing: EchoTiming, first_s: Array) -> Array:
    """Second inversion time that nulls a tissue for each first one; NaN where there is none."""
    inside = (1 + 2 * np.exp(-first_s / t1_s) - float(timing.lost(t1_s))) / 2
    good = (inside > 0) & (inside < 1)
    time = -t1_s * np.log(np.where(good, inside, 1.0))
    return np.where(good & (time > 0) & (time < first_s), time, np.nan)


def null_two_tissues(t1_s: tuple[float, float], timing: EchoTiming) -> tuple[float, float]:
    """Inversion times of a double inversion that nulls two tissues.

    The second time follows from the first in closed form for one tissue; the first is the root
    of the other tissue's magnetization, by bracketing and Newton steps to machine precision.

    Parameters
    ----------
    t1_s : tuple of float
        T1 of the two tissues, seconds.
    timing : EchoTiming

    Returns
    -------
    first_s, second_s : float
        Both to the excitation.  Of several solutions that with the longest first time, which
        saturates least.

    Raises
    ------
    FitError
        If no pair of times nulls both.
    """
    short, long = sorted(t1_s)
    if not 0 < short < long:
        raise InputError(
            "two tissues with different positive T1 are needed", found=f"{short:g} and {long:g} s"
        )
    grid = np.linspace(0, timing.room_s, _GRID + 1)[1:-1]
    level = longitudinal_double_inversion(long, timing, grid, second_inversion_time(short, timing, grid))
    crosses = np.flatnonzero(np.isfinite(level[:-1] + level[1:]) & (level[:-1] * level[1:] <= 0))
    if crosses.size == 0:
        raise FitError(
            "no pair of inversion times nulls both tissues",
            found=f"T1 {short:g} and {long:g} s, repetition time {timing.repetition_time_s:g} s",
            todo="choose a longer repetition time",
        )
    n = int(crosses[-1])
    return _polish((short, long), timing, float(grid[n]), float(grid[n + 1]))


def _polish(t1_s: tuple[float, float], timing: EchoTiming, low: float, high: float) -> tuple[float, float]:
    """Bisect until the bracket is that of the number format."""
    short, long = t1_s

    def level(first: float) -> float:
        second = second_inversion_time(short, timing, np.array([first]))
        return float(longitudinal_double_inversion(long, timing, first, second)[0])

    sign = math.copysign(1.0, level(low))
    while (middle := (low + high) / 2) not in (low, high):
        if math.copysign(1.0, level(middle)) == sign:
            low = middle
        else:
            high = middle
    first = min((low, high), key=lambda time: abs(level(time)))
    return first, float(second_inversion_time(short, timing, np.array([first]))[0])


def best_double_inversion(
    lesion: Tissue, reference: Tissue, nulled: Tissue, timing: EchoTiming
) -> BestInversion:
    """Inversion times of the highest contrast of a lesion while another tissue has no signal.

    Maximises the absolute difference of the magnitude signals of lesion and reference over the
    first inversion time; the second follows from nulling.  Pulses keep 20 ms from each other and
    from the excitation.

    Raises
    ------
    FitError
        If the tissue cannot be nulled in this repetition.
    """

    def contrast(first: Array) -> Array:
        second = allowed_second(nulled, timing, first)
        return tissue_signal(lesion, timing, first, second) - tissue_signal(reference, timing, first, second)

    first, value, flat, at_edge = _maximise(contrast, timing.room_s)
    second = float(second_inversion_time(nulled.t1_s, timing, np.array([first]))[0])
    return BestInversion(first_s=first, second_s=second, contrast=value, flat_s=flat, at_edge=at_edge)


def best_inversion(
    lesion: Tissue, reference: Tissue, timing: EchoTiming, *, keep_sign: bool = True
) -> BestInversion:
    """Inversion time of the highest contrast of a lesion (PSIR with its sign, else magnitude).

    Raises
    ------
    FitError
        If the repetition leaves no room for an inversion.
    """

    def contrast(first: Array) -> Array:
        return tissue_signal(lesion, timing, first, keep_sign=keep_sign) - tissue_signal(
            reference, timing, first, keep_sign=keep_sign
        )

    first, value, flat, at_edge = _maximise(contrast, timing.room_s)
    return BestInversion(first_s=first, second_s=None, contrast=value, flat_s=flat, at_edge=at_edge)


def tissue_signal(
    tissue: Tissue, timing: EchoTiming, first: Array, second: Array | None = None, *, keep_sign: bool = False
) -> Array:
    """Signal of a tissue after one inversion or two, in units of proton density; NaN where a time is."""
    mz = (
        longitudinal_inversion(tissue.t1_s, timing, first)
        if second is None
        else longitudinal_double_inversion(tissue.t1_s, timing, first, second)
    )
    signal: Array = tissue.proton_density * mz * math.exp(-timing.echo_time_s / tissue.t2_s)
    return signal if keep_sign else np.abs(signal)


def allowed_second(nulled: Tissue, timing: EchoTiming, first: Array) -> Array:
    """Second inversion time that nulls a tissue; NaN where it comes too close to a neighbour."""
    second = second_inversion_time(nulled.t1_s, timing, first)
    return np.where((second >= PULSE_S) & (first - second >= PULSE_S), second, np.nan)


def _maximise(
    contrast: Callable[[Array], Array], room: float
) -> tuple[float, float, tuple[float, float], bool]:
    """Maximise |contrast| over the times that pulses allow: grid, then golden section around every peak."""
    if room <= 2 * PULSE_S:
        raise FitError(
            "the repetition leaves no room for an inversion",
            found=f"{room:g} s between the readout and the next excitation",
            expected=f"more than {2 * PULSE_S:g} s",
            todo="choose a longer repetition time",
        )
    grid = np.linspace(PULSE_S, room - PULSE_S, _GRID)
    size = np.abs(contrast(grid))
    if not np.isfinite(size).any():
        raise FitError(
            "no inversion times null the tissue in this repetition", todo="choose a longer repetition time"
        )
    # A kink, where the reference is nulled, can hide between grid points: refine every peak.
    filled = np.concatenate([[-1.0], np.nan_to_num(size, nan=-1.0), [-1.0]])
    peaks = np.flatnonzero((filled[1:-1] >= filled[:-2]) & (filled[1:-1] >= filled[2:]) & (filled[1:-1] >= 0))
    found = [_refine_peak(contrast, grid, int(n)) for n in peaks]
    best, value = max(found, key=lambda pair: abs(pair[1]))
    n = int(np.argmin(np.abs(grid - best)))
    good = np.nan_to_num(size, nan=-1.0) >= _FLAT * abs(value)
    first, last = n, n
    while first > 0 and good[first - 1]:
        first -= 1
    while last < grid.size - 1 and good[last + 1]:
        last += 1
    # The search may pass the last grid point on its way to the end of what pulses allow.
    allowed, half = grid[np.isfinite(size)], (grid[1] - grid[0]) / 2
    at_edge = bool(best <= allowed[0] + half or best >= allowed[-1] - half)
    flat = (min(best, float(grid[first])), max(best, float(grid[last])))
    return best, value, flat, at_edge


def _refine_peak(contrast: Callable[[Array], Array], grid: Array, n: int) -> tuple[float, float]:
    """Golden-section search around one grid point."""
    low, high = float(grid[max(n - 1, 0)]), float(grid[min(n + 1, grid.size - 1)])
    for _ in range(_GOLDEN_STEPS):
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at = np.nan_to_num(np.abs(contrast(np.array([a, b]))), nan=-1.0)
        low, high = (low, b) if at[0] >= at[1] else (a, high)
    middle = np.array([(low + high) / 2, grid[n]])
    values = contrast(middle)
    which = int(np.nanargmax(np.abs(values)))
    return float(middle[which]), float(values[which])
