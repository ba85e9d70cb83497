"""What MT models share: errors from noise, and notices about settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.records import Notice

__all__ = ["propagate_noise", "split_notices"]

Array = NDArray[np.float64]
#: Step of the numerical derivative over the signal.
_STEP = 1e-4


def propagate_noise(
    function: Callable[[Sequence[Array]], Mapping[str, Array]],
    signals: Sequence[Array],
    noise_sd: NDArray[Any],
) -> dict[str, Array]:
    """Standard errors of what is computed from images with independent noise of one SD.

    First order, by central differences over 0.01 % of each signal.

    Parameters
    ----------
    function : callable
        Images to named results of the same shape.
    signals : sequence of ndarray
    noise_sd : ndarray
        NaN or not positive where it is not known: then so is the error.
    """
    sd = np.where(noise_sd > 0, noise_sd, np.nan)
    square: dict[str, Array] = {}
    for n, signal in enumerate(signals):
        step = _STEP * np.abs(signal)
        ahead, behind = list(signals), list(signals)
        ahead[n], behind[n] = signal + step, signal - step
        upper, lower = function(ahead), function(behind)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for name, value in upper.items():
                slope = (value - lower[name]) / (2 * step)
                square[name] = square.get(name, np.zeros_like(signal)) + (slope * sd) ** 2
    return {name: np.sqrt(value) for name, value in square.items()}


def split_notices(
    notices: Sequence[Notice], shape: tuple[int, ...]
) -> tuple[dict[str, NDArray[np.bool_]], tuple[str, ...], tuple[str, ...]]:
    """Turn what is wrong with the settings into flags of all voxels, and the rest into sentences.

    Returns
    -------
    flags : dict
        What makes every value wrong.
    notices, warnings : tuple of str
        All other sentences, and those of them that a reader must not overlook.
    """
    wrong = [notice.message for notice in notices if notice.code == "mt.mismatch"]
    flags = {text: np.ones(shape, dtype=bool) for text in wrong}
    rest = [notice for notice in notices if notice.message not in wrong]
    # What no one said is no sign of something wrong; scaling and order are.
    loud = tuple(notice.message for notice in rest if notice.code != "mt.unknown")
    return flags, tuple(notice.message for notice in rest), loud
