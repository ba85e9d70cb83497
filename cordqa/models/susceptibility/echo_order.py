"""Do the echoes come in the order and at the times that were given?

A magnitude falls from echo to echo.  A phase grows with echo time, from about the same value in all
voxels at time zero: in reversed order it seems to start beyond the last echo.  Where an echo has another
time than was said, its residual is the field itself times the error of the time, which neither noise nor
flow nor breathing is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = ["check_decay", "check_direction", "judge_times"]

Array = NDArray[np.float64]

#: A magnitude that grows in more than this share of the voxels is in the wrong order.
_GROWS = 0.8
#: Voxels by which the phase is judged.
_SAMPLE = 5000
#: Reversed phases agree about where they start by so much better than phases in the order that was given,
#: and at least this well: where the offset varies by turns across the mask, neither agrees.
_CLEARER, _AGREES = 0.15, 0.5
#: Trial values of that start, relative to the sum of first and last echo time, and to the first one.
_REVERSED, _FORWARD = np.linspace(-1.1, -0.9, 21), np.linspace(-1.0, 1.0, 41)
#: An echo is off where the field explains this share of its residual, and its time would have to be
#: another by this share of an echo spacing.
_EXPLAINED, _LEAST = 0.2, 0.03
#: Voxels with the strongest fields are left out: their phases may be unwrapped wrongly.
_PERCENTILE = 98
_TINY = np.finfo(float).tiny


def check_decay(magnitude: Array) -> None:
    """Refuse a magnitude that grows with echo time.

    All voxels are asked, and most must grow: in an opposed and an in-phase echo the fat and marrow of a mask
    that was not drawn grow, and they are among the strongest voxels.

    Parameters
    ----------
    magnitude : ndarray, shape (n_voxels, n_echoes)
        Of tissue.

    Raises
    ------
    InputError
        If it grows from the first to the last echo in most voxels.
    """
    if magnitude.shape[1] < 2 or not len(magnitude):
        return
    share = float(np.mean(magnitude[:, -1] > magnitude[:, 0]))
    if share > _GROWS:
        raise InputError(
            "the magnitude grows with echo time, so the echoes are not in the order of their times",
            found=f"growth in {100 * share:.0f} % of the voxels",
            todo="give the echoes in the order of their echo times",
        )


def check_direction(slope_rad_per_s: Array, offset_rad: Array, echo_times_s: Array) -> None:
    """Refuse echoes of the phase in reversed order: the map would have the opposite sign.

    Parameters
    ----------
    slope_rad_per_s, offset_rad : ndarray, shape (n_voxels,)
        Line through the phase of each voxel.
    echo_times_s : ndarray, shape (n_echoes,)

    Raises
    ------
    InputError
        If the lines meet beyond the last echo and not about time zero.
    """
    if echo_times_s.size < 2:
        return
    thin = slice(None, None, max(1, slope_rad_per_s.size // _SAMPLE))
    slope, offset = slope_rad_per_s[thin], offset_rad[thin]
    known = np.isfinite(slope) & np.isfinite(offset)
    if not known.any():
        return
    slope, offset = slope[known] - np.median(slope[known]), offset[known]
    backward = _agreement(slope, offset, _REVERSED * float(echo_times_s[0] + echo_times_s[-1]))
    forward = _agreement(slope, offset, _FORWARD * float(echo_times_s[0]))
    if backward > max(forward + _CLEARER, _AGREES):
        raise InputError(
            "the phase runs backwards: the lines through its echoes meet beyond the last, not at time zero",
            todo="give the echoes of the phase in the order of their echo times",
        )


def _agreement(slope: Array, offset: Array, delays_s: Array) -> float:
    """How far the phases agree at the best of some times; 1 is perfectly."""
    turned = np.exp(1j * (offset[:, None] - slope[:, None] * delays_s))
    return float(np.abs(turned.mean(axis=0)).max())


def judge_times(slope_rad_per_s: Array, residual_rad: Array, echo_times_s: Array) -> str:
    """Say where echoes do not have the times that were given; empty where all have.

    Parameters
    ----------
    slope_rad_per_s : ndarray, shape (n_voxels,)
    residual_rad : ndarray, shape (n_voxels, n_echoes)
        Of the line.
    echo_times_s : ndarray, shape (n_echoes,)
        A common factor, and a time that is added to all, cannot be seen.
    """
    if echo_times_s.size < 3 or not len(slope_rad_per_s):
        return ""
    known = np.isfinite(slope_rad_per_s) & np.isfinite(residual_rad).all(axis=1)
    if not known.any():
        return ""
    slope = slope_rad_per_s[known] - np.median(slope_rad_per_s[known])
    residual = residual_rad[known] - np.median(residual_rad[known], axis=0)
    usual = np.abs(slope) <= np.percentile(np.abs(slope), _PERCENTILE)
    slope, residual = slope[usual], residual[usual]
    late = (slope @ residual) / max(float(slope @ slope), _TINY)
    left = ((residual - slope[:, None] * late) ** 2).sum(axis=0)
    explained = 1 - left / np.maximum((residual**2).sum(axis=0), _TINY)
    spacing = float(np.diff(echo_times_s).min())
    if not ((explained > _EXPLAINED) & (np.abs(late) > _LEAST * spacing)).any():
        return ""
    return (
        "the phase does not grow in step with the echo times (what the fit leaves follows the field): an "
        "echo may be missing, in the wrong place, or have another time, and then every value is wrong"
    )
