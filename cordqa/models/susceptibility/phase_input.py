"""What the stored numbers of a phase image mean, and refusals of what is no phase.

Vendors store one turn of phase as -pi to pi, 0 to 2 pi, 0 to 4095, -4096 to 4095, milliradians or any
other range.  A wrapped phase shows its range: it jumps from one end to the other, and both ends are
about as populated as the middle.  A magnitude has no upper end that is populated; an unwrapped phase
and a field map change smoothly from their lowest to their highest value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = [
    "Evidence",
    "PhaseScaling",
    "detect_scaling",
    "gather_evidence",
]

Array = NDArray[np.float64]
Single = NDArray[np.float32]

_TURN = 2 * math.pi
#: One turn as vendors and converters store it: lowest value, length, and how it is called.
_KNOWN = (
    (-math.pi, _TURN, "radians from -pi to pi"),
    (0.0, _TURN, "radians from 0 to 2 pi"),
    (0.0, 4096.0, "0 to 4095"),
    (-4096.0, 8192.0, "-4096 to 4095"),
    (-2048.0, 4096.0, "-2048 to 2047"),
    (-1000 * math.pi, 1000 * _TURN, "milliradians"),
    (-180.0, 360.0, "degrees from -180 to 180"),
    (0.0, 360.0, "degrees from 0 to 360"),
)
#: Values may pass the ends of a known range by this share of it: rounding.
_BEYOND = 0.002
#: A whole turn is filled at least by this share of a known range.
_FILLED = 0.98
#: A jump is a step between neighbours of more than this share of the range.
_JUMP = 0.75
#: Wrapped images have more jumps than this share of their neighbours, and both ends populated by
#: more than this share of what a uniform distribution would give.
_FEWEST_JUMPS = 2e-4
_POPULATED = 0.05
#: Ends of a wrapped phase that starts at zero are alike within this ratio, and no part is emptier.
_BALANCED, _EMPTY = 0.25, 0.03
#: Width of an end, share of the range.
_END = 0.02
#: A value that more than this share of an image holds is a fill value, not a phase.
_FILL = 0.05
#: Voxels by which an image is judged.
_SAMPLE = 1_000_000
#: A short echo of a masked image may not fill its turn; one that covers less is on another scale.
_LEAST_COVERED = 0.02
#: An image that wraps reaches the ends of its turn; one that jumps within less than this share of a given
#: turn contradicts it.
_BARELY = 0.9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows whether an image is a wrapped phase.

    Attributes
    ----------
    low, high : float
        Extremes.
    jumps : float
        Share of pairs of neighbours that jump from one end of the range to the other.
    ends : float
        Population of the less populated end, relative to a uniform distribution.
    balance : float
        Population of the less populated end over that of the other: near 1 where values go on from one
        end to the other.
    emptiest : float
        Population of the emptiest part of the range, relative to a uniform distribution.
    step : float
        Distance between stored values where they are whole numbers, otherwise 0.
    """

    low: float
    high: float
    jumps: float
    ends: float
    balance: float
    emptiest: float
    step: float

    @property
    def wrapped(self) -> bool:
        """Whether it looks like a wrapped phase."""
        jumps = self.jumps > _FEWEST_JUMPS and self.ends > _POPULATED
        if not jumps or self.low < 0:
            return jumps
        # Uniform tissue in front of air jumps as well, with little between and unequal ends.
        return self.balance > _BALANCED and self.emptiest > _EMPTY


@dataclass(frozen=True, slots=True)
class PhaseScaling:
    """How stored values become radians.

    Attributes
    ----------
    low : float
        Stored value of -pi.
    turn : float
        Stored length of a whole turn.
    name : str
        How this way of storing is called; empty for an arbitrary range.
    sentence : str
        For the methods text.
    warning : str
        What speaks against it; empty for nothing.
    """

    low: float
    turn: float
    name: str
    sentence: str
    warning: str = ""

    def radians(self, stored: NDArray[np.floating]) -> Single:
        """Return the phase between -pi and pi (values at the ends may pass it by rounding)."""
        phase = (np.asarray(stored, dtype=np.float64) - self.low) * (_TURN / self.turn) - math.pi
        return phase.astype(np.float32)


def gather_evidence(image: NDArray[np.floating]) -> Evidence:
    """Judge by the values of an image whether it is a wrapped phase.

    Parameters
    ----------
    image : ndarray, shape (x, y, z) or (x, y, z, n_echoes)
        NaN is left out.

    Raises
    ------
    InputError
        If it holds no finite value.
    """
    volume = np.asarray(image, dtype=np.float32)
    values = volume[np.isfinite(volume)]
    if values.size == 0:
        raise InputError("the image holds no finite value")
    # Whole slices, spread over the volume: jumps are seen between neighbours.
    sample = volume[:, :, :: max(1, math.ceil(volume.size / _SAMPLE))].copy()
    thin = sample[np.isfinite(sample)]
    distinct, counts = np.unique(thin, return_counts=True)
    fill = distinct[counts > _FILL * thin.size]
    if np.isin(thin, fill).all():  # few distinct values, as in a drawing: none of them is a fill value
        fill = fill[:0]
    thin, known = thin[~np.isin(thin, fill)], values[~np.isin(values, fill)]
    low, high = float(known.min()), float(known.max())
    sample[np.isin(sample, fill)] = np.nan
    ends, balance, emptiest = _populations(thin, low, high)
    return Evidence(low, high, _jumps(sample, high - low), ends, balance, emptiest, _step(distinct))


def _populations(values: Single, low: float, high: float) -> tuple[float, float, float]:
    """Population of the ends, their balance, and that of the emptiest part of the range."""
    if values.size == 0 or low == high:
        return 0.0, 0.0, 0.0
    parts = round(1 / _END)
    counts = np.histogram(values, bins=parts, range=(low, high))[0] / values.size * parts
    least, most = sorted((float(counts[0]), float(counts[-1])))
    # Stored whole numbers may be fewer than the parts: empty ones stand between full ones.
    coarse = counts.reshape(parts // 5, 5).mean(axis=1)
    return least, least / most if most > 0 else 0.0, float(coarse.min())


def _jumps(sample: Single, whole: float) -> float:
    """Count steps of nearly the whole range, in plane."""
    steps = np.concatenate([np.abs(np.diff(sample, axis=axis)).ravel() for axis in (0, 1)])
    steps = steps[np.isfinite(steps)]
    return float(np.mean(steps > _JUMP * whole)) if steps.size else 0.0


def _step(distinct: Single) -> float:
    whole = distinct.size > 1 and bool(np.all(distinct == np.round(distinct)))
    return float(np.diff(distinct).min()) if whole else 0.0


def detect_scaling(
    phase: NDArray[np.floating], *, phase_range: Sequence[float] | None = None
) -> PhaseScaling:
    """Find out how a phase image stores a whole turn.

    Parameters
    ----------
    phase : ndarray, shape (x, y, z, n_echoes)
        As stored.
    phase_range : sequence of two floats, optional
        Stored values of -pi and pi, where the user knows them.

    Raises
    ------
    InputError
        If the image is no wrapped phase (a magnitude, a field map, an unwrapped phase), if its range
        is not known to be a whole turn, or if its echoes are stored differently.
    """
    evidence = gather_evidence(phase)
    _check_echoes_differ(phase)
    if phase_range is not None:
        return _given(evidence, phase_range)
    if not (evidence.wrapped or _reaches_pi(evidence)):
        raise _no_phase(evidence, phase)
    _check_echoes_alike(phase, evidence)
    for low, turn, name in _KNOWN:
        if _fits(evidence, low, turn):
            text = f"the phase was stored as {name}"
            return PhaseScaling(low, turn, name, f"{text}." if turn == _TURN else f"{text} and rescaled.")
    if phase.shape[-1] == 1:
        raise InputError(
            "the range of this single echo is that of no vendor, so it may be a field map as well",
            found=f"{evidence.low:.6g} to {evidence.high:.6g}",
            todo="give --phase-range with the stored values of -pi and pi",
        )
    return _arbitrary(evidence)


def _given(evidence: Evidence, phase_range: Sequence[float]) -> PhaseScaling:
    low, high = (float(value) for value in phase_range)
    turn = high - low
    if not (math.isfinite(turn) and turn > 0):
        raise InputError(
            "the phase range must go from a lower to a higher value",
            where="--phase-range",
            found=f"{low:g}, {high:g}",
        )
    if evidence.low < low - _BEYOND * turn or evidence.high > high + _BEYOND * turn + evidence.step:
        raise InputError(
            "the phase image holds values outside the given range of a turn",
            where="--phase-range",
            found=f"{evidence.low:.6g} to {evidence.high:.6g}",
            expected=f"{low:g} to {high:g}",
        )
    covered = (evidence.high - evidence.low) / turn
    if covered < _LEAST_COVERED:
        raise InputError(
            "the phase image covers next to nothing of the given range of a turn, so it is on another scale",
            where="--phase-range",
            found=f"{evidence.low:.6g} to {evidence.high:.6g}",
            expected=f"{low:g} to {high:g}",
        )
    words = f"one turn of the phase was stored as {low:g} to {high:g} (given by the user) and rescaled."
    return PhaseScaling(low, turn, "", words, _doubt(evidence, covered))


def _doubt(evidence: Evidence, covered: float) -> str:
    """Say where the image wraps long before the ends of the range that was given."""
    if not evidence.wrapped or covered > _BARELY:
        return ""
    return (
        f"the phase seems to wrap from {evidence.low:.6g} to {evidence.high:.6g}, which is "
        f"{100 * covered:.0f} % of the turn that was given: if it does, every value is that much too small "
        "(check --phase-range)"
    )


def _fits(evidence: Evidence, low: float, turn: float) -> bool:
    slack = _BEYOND * turn
    inside = evidence.low >= low - slack and evidence.high <= low + turn + slack
    return inside and evidence.high - evidence.low >= _FILLED * turn


def _reaches_pi(evidence: Evidence) -> bool:
    """Whether it jumps between -pi and pi: most of the image may be one smooth background."""
    low, turn, _ = _KNOWN[0]
    exact = max(abs(evidence.low - low), abs(evidence.high - low - turn)) < _BEYOND * turn
    return exact and evidence.jumps > _FEWEST_JUMPS


def _arbitrary(evidence: Evidence) -> PhaseScaling:
    low, high = evidence.low, evidence.high + evidence.step
    half = max(abs(evidence.low), abs(evidence.high))
    if abs(evidence.low + evidence.high) < 2 * _BEYOND * half + evidence.step:
        low, high = -half, half + (evidence.step if half > abs(evidence.high) - evidence.step else 0.0)
    words = (
        f"the phase was stored from {evidence.low:.6g} to {evidence.high:.6g}, wraps from one end to the "
        "other, and was rescaled so that this is one turn."
    )
    return PhaseScaling(low, high - low, "", words)


def _no_phase(evidence: Evidence, phase: NDArray[np.floating]) -> InputError:
    """Say what an image probably is that does not wrap."""
    found = f"{evidence.low:.6g} to {evidence.high:.6g}, without jumps between the ends"
    if evidence.low >= 0 and (evidence.ends <= _POPULATED or _decays(phase)):
        return InputError(
            "the phase image looks like a magnitude: it has no negative value and does not wrap",
            found=found,
            todo="check the order of phase and magnitude, or give --phase-range if it is a phase",
        )
    if evidence.low >= -1.001 * math.pi and evidence.high <= 1.001 * math.pi:
        return InputError(
            "the phase covers less than a whole turn and does not wrap, so its scale is not known",
            found=found,
            todo="if it is in radians, give --phase-range -3.141593,3.141593",
        )
    return InputError(
        "the phase image does not wrap: it looks like a field map in Hz, or a phase that is unwrapped",
        found=found,
        todo="give the wrapped phase of the scanner, or --phase-range if this range is part of a turn",
    )


def _decays(phase: NDArray[np.floating]) -> bool:
    """A magnitude loses signal from echo to echo nearly everywhere."""
    if phase.shape[-1] < 2:
        return False
    fall = phase[..., 0] > phase[..., -1]
    return bool(np.mean(fall[np.isfinite(phase).all(-1) & (phase[..., 0] != 0)]) > 0.9)


def _check_echoes_differ(phase: NDArray[np.floating]) -> None:
    """Refuse one image that was repeated: phase grows from echo to echo."""
    first = phase[..., :1]
    rest = range(1, phase.shape[-1])
    if rest and all(np.array_equal(first, phase[..., e : e + 1], equal_nan=True) for e in rest):
        raise InputError(
            "the phase is the same image in all echoes: a field map, or one echo given several times",
            todo="give the phase of every echo as the scanner stored it",
        )


def _check_echoes_alike(phase: NDArray[np.floating], evidence: Evidence) -> None:
    """Refuse echoes of which one is stored on another scale: its wraps would be missed."""
    whole = evidence.high - evidence.low
    for echo in range(phase.shape[-1]):
        one = phase[..., echo][np.isfinite(phase[..., echo])]
        if one.size == 0 or one.min() == one.max():
            raise InputError(f"echo {echo + 1} of the phase is empty")
        covered = float(one.max() - one.min()) / whole
        if covered < _LEAST_COVERED:
            raise InputError(
                f"echo {echo + 1} of the phase is stored on another scale than the others",
                found=f"{one.min():.6g} to {one.max():.6g}",
                expected=f"{evidence.low:.6g} to {evidence.high:.6g}",
                todo="convert all echoes in the same way",
            )
