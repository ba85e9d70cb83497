"""Checks of what a relaxometry fit is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["broadcast_to_signal", "check_range", "check_repetition_times", "check_signal", "check_times"]

Array = NDArray[np.float64]


def check_times(times: ArrayLike, name: str, *, longest_s: float) -> Array:
    """Return times as an array, refusing what cannot be times in seconds.

    Raises
    ------
    InputError
        If it is not one-dimensional, is negative or not finite, or looks like milliseconds.
    """
    array = np.atleast_1d(np.asarray(times, dtype=float))
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be a list of times", found=f"shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InputError(f"{name} must be finite and not negative", found=f"{array.tolist()}")
    if array.max() > longest_s:
        raise InputError(
            f"{name} must be in seconds",
            found=f"up to {array.max():g}",
            expected=f"at most {longest_s:g}",
            todo="divide by 1000 if these are milliseconds",
        )
    return array


def check_range(limits: tuple[float, float], name: str) -> tuple[float, float]:
    """Return the search range of a relaxation time, refusing an empty or negative one."""
    low, high = float(limits[0]), float(limits[1])
    if not 0 < low < high < np.inf:
        raise InputError(f"the {name} range must be positive and increasing", found=f"{low} to {high} s")
    return low, high


def check_signal(signal: ArrayLike, n_images: int) -> NDArray[Any]:
    """Return the signal as float or complex, refusing what is not numbers with images last."""
    raw = np.asarray(signal)
    if raw.dtype.kind not in "fiuc":
        raise InputError("the signal must be numbers", found=f"type {raw.dtype}")
    if raw.ndim == 0 or raw.shape[-1] != n_images:
        raise InputError(
            "the last axis of the signal must be the images",
            found=f"shape {raw.shape}",
            expected=f"(..., {n_images})",
        )
    return raw.astype(np.complex128 if raw.dtype.kind == "c" else np.float64)


def broadcast_to_signal(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Broadcast values, refusing a shape that does not fit."""
    array = np.asarray(values)
    try:
        return np.broadcast_to(array, shape)
    except ValueError as error:
        raise InputError(
            f"{name} does not match the signal", found=f"shape {array.shape}", expected=f"{shape}"
        ) from error


def check_repetition_times(times: ArrayLike | None, inversion: Array, echo_time_s: float) -> Array:
    """Return one repetition time per image (infinite: full recovery), refusing impossible ones.

    Raises
    ------
    InputError
        If their number does not fit, or one leaves no time for the inversion and the echo.
    """
    if times is None:
        return np.full(inversion.shape, np.inf)
    given = np.asarray(times, dtype=float)
    if given.shape not in ((), (1,), inversion.shape):
        raise InputError(
            "there must be one repetition time, or one per inversion time",
            found=f"{given.size}",
            expected=f"{inversion.size}",
        )
    repetition = np.broadcast_to(given, inversion.shape).astype(float)
    finite = np.where(np.isposinf(repetition), 0.0, repetition)
    check_times(finite, "repetition times", longest_s=120.0)
    if not 0 <= echo_time_s < np.inf:
        raise InputError("the echo time must be finite and not negative", found=f"{echo_time_s}")
    if (repetition <= inversion + echo_time_s / 2).any():
        worst = int(np.argmin(repetition - inversion))
        raise InputError(
            "a repetition time is shorter than its inversion time and echo",
            found=f"TR {repetition[worst]:g} s at TI {inversion[worst]:g} s",
            todo="give the time between inversions, or none for full recovery",
        )
    return repetition
