"""Checks of echoes before they are used: magnitude, echo times, real and imaginary part, holes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.phase_input import gather_evidence

__all__ = ["check_echo_times", "check_magnitude", "find_missing", "from_complex"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Echo times beyond this, s, are milliseconds.
_LONGEST_S = 0.25
#: More negative voxels than this share are no noise about zero.
_NEGATIVE = 1e-3
#: Voxels by which an echo is judged.
_SAMPLE = 250_000


def check_magnitude(magnitude: NDArray[np.floating]) -> None:
    """Refuse what is no magnitude, echo by echo.

    Parameters
    ----------
    magnitude : ndarray, shape (x, y, z, n_echoes)

    Raises
    ------
    InputError
        If values are negative, an echo is empty or wraps like a phase, or all echoes are one image.
    """
    n = magnitude.shape[-1]
    holds = [bool((np.nan_to_num(magnitude[..., echo], posinf=0.0) > 0).any()) for echo in range(n)]
    if any(holds) and not all(holds):
        raise InputError(
            f"echo {holds.index(False) + 1} of the magnitude is empty",
            todo="leave this echo out of phase and magnitude, or convert it again",
        )
    for echo in range(n):
        _check_echo(magnitude[..., echo], f"echo {echo + 1} of the magnitude" if n > 1 else "the magnitude")
    with np.errstate(invalid="ignore"):
        negative = float(np.mean(magnitude < 0))
    if negative > _NEGATIVE:
        raise InputError(
            "the magnitude is negative in many voxels",
            found=f"{100 * negative:.2g} %",
            todo="give the magnitude, not the real part",
        )
    if any(holds) and _same_in_all_echoes(magnitude):
        raise InputError(
            "the magnitude is the same image in all echoes", todo="give the magnitude of every echo"
        )


def _check_echo(image: NDArray[np.floating], name: str) -> None:
    """Refuse an echo of the magnitude that is a phase."""
    evidence = gather_evidence(image[:, :, :: max(1, math.ceil(image.size / _SAMPLE))])
    if evidence.wrapped:
        raise InputError(
            f"{name} looks like a phase: it jumps from one end of its range to the other",
            found=f"{evidence.low:.6g} to {evidence.high:.6g}",
            todo="check the order of phase and magnitude",
        )


def _same_in_all_echoes(image: NDArray[np.floating]) -> bool:
    """Tell whether all of several echoes are one image."""
    if image.shape[-1] < 2:
        return False
    first = image[..., :1]
    return all(
        np.array_equal(first, image[..., e : e + 1], equal_nan=True) for e in range(1, image.shape[-1])
    )


def check_echo_times(echo_times_s: Sequence[float] | Array, n_echoes: int) -> Array:
    """Return the echo times as an array; they are never rescaled.

    Raises
    ------
    InputError
        If their number is wrong, they do not increase, or they can only be milliseconds.
    """
    times = np.asarray(echo_times_s, dtype=float)
    if times.shape != (n_echoes,):
        raise InputError(
            "the number of echo times does not fit the number of echoes",
            found=str(times.size),
            expected=str(n_echoes),
            todo="give --echo-times in s, one per echo",
        )
    if not np.isfinite(times).all() or (times <= 0).any():
        raise InputError("echo times must be positive", found=", ".join(f"{t:g}" for t in times))
    if (times > _LONGEST_S).any():
        raise InputError(
            "the echo times cannot be in seconds",
            found=", ".join(f"{t:g}" for t in times),
            expected=f"at most {_LONGEST_S:g} s; are these milliseconds?",
            todo="give --echo-times in s",
        )
    if (np.diff(times) <= 0).any():
        raise InputError(
            "the echo times must increase",
            found=", ".join(f"{t:g}" for t in times),
            todo="give the echoes in order, each once",
        )
    return times


def from_complex(real: NDArray[np.floating], imaginary: NDArray[np.floating]) -> tuple[Single, Single]:
    """Return phase (rad) and magnitude of a real and an imaginary part.

    Raises
    ------
    InputError
        If the shapes differ, or neither part has a negative value: then they are something else.
    """
    if real.shape != imaginary.shape:
        raise InputError(
            "real and imaginary part differ in shape", found=f"{imaginary.shape}", expected=f"{real.shape}"
        )
    if not (np.nanmin(real) < 0 and np.nanmin(imaginary) < 0):
        raise InputError(
            "real and imaginary parts have negative values; these have not",
            found=f"minima {np.nanmin(real):.4g} and {np.nanmin(imaginary):.4g}",
            todo="subtract the offset with which they were stored, or give phase and magnitude",
        )
    first, second = np.asarray(real, dtype=np.float32), np.asarray(imaginary, dtype=np.float32)
    return np.arctan2(second, first), np.hypot(first, second)


def find_missing(stored: NDArray[np.floating], magnitude: NDArray[np.floating]) -> dict[str, Mask]:
    """Find voxels that hold no phase, by reason.

    Parameters
    ----------
    stored : ndarray, shape (x, y, z, n_echoes)
        Phase as stored: a fill value is one number in all echoes, which no phase is.
    magnitude : ndarray, same shape

    Returns
    -------
    dict of str to ndarray of bool, shape (x, y, z)
    """
    holes = ~np.isfinite(stored).all(-1) | ~np.isfinite(magnitude).all(-1)
    needed = min(2, magnitude.shape[-1])
    with np.errstate(invalid="ignore"):
        silent = np.count_nonzero(magnitude > 0, axis=-1) < needed
        negative = (magnitude < 0).any(-1)
    return {
        "phase or magnitude is not a number": holes,
        "the magnitude is negative": negative & ~holes,
        "no magnitude": silent & ~holes & ~negative,
        "the phase is a fill value, not a phase": _fill_value(stored, silent | holes) & ~silent & ~holes,
    }


def _fill_value(stored: NDArray[np.floating], empty: Mask) -> Mask:
    """Find voxels that hold zero, the lowest or the commonest value in every echo."""
    first = stored[..., 0]
    same: Mask = (stored == first[..., None]).all(-1)
    candidates = {0.0, float(np.nanmin(stored))}
    if empty.any():
        values, counts = np.unique(first[empty & np.isfinite(first)], return_counts=True)
        if values.size and counts.max() > 0.5 * counts.sum():
            candidates.add(float(values[counts.argmax()]))
    filled: Mask = same & np.isin(first, list(candidates))
    if stored.shape[-1] > 1:
        return filled
    # In one echo a value may be met by chance: single voxels of it are not suspicious, areas are.
    from scipy.ndimage import uniform_filter

    dense: Mask = uniform_filter(filled.astype(np.float32), 3, mode="constant") > 0.5
    return filled & dense
