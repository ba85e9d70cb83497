"""Checks of what a fit to powder averages is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.gradient_checks import NORM_TOLERANCE, check_b_unit
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    BValueError,
    DirectionNormError,
    GradientLengthError,
)
from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["SHAPE_TOLERANCE", "check_noise_sd", "check_signals", "check_table"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: An encoding with |b_delta| up to this counts as spherical.
SHAPE_TOLERANCE = 0.05


def check_signals(signals: ArrayLike, table: GradientTable) -> NDArray[Any]:
    """Return the signals as an array of numbers with the volumes last.

    Raises
    ------
    InputError
        If they are not real numbers, or not as many as the table has volumes.
    """
    array = np.asarray(signals)
    if array.dtype.kind not in "fiu":
        raise InputError(
            "diffusion signals must be real magnitudes",
            found=f"type {array.dtype}",
            todo="take the magnitude of complex data" if array.dtype.kind == "c" else "",
        )
    if array.ndim == 0 or array.shape[-1] != len(table):
        volumes = array.shape[-1] if array.ndim else 1
        raise GradientLengthError(
            "signals and gradient table differ in the number of volumes",
            found=f"{volumes} volumes in the last axis of shape {array.shape}",
            expected=f"{len(table)}, as in the table",
        )
    return array


def check_noise_sd(noise_sd: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Return the noise of every voxel, flattened; ``None`` where none is given.

    A voxel whose noise is not a positive number is NaN: not known, as outside the body in many maps.

    Raises
    ------
    InputError
        If numbers are there and none is positive, or it is not of the voxel shape.
    """
    if noise_sd is None:
        return None
    noise = np.asarray(noise_sd, dtype=float)
    try:
        noise = np.broadcast_to(noise, shape)
    except ValueError as error:
        raise InputError(
            "the noise map does not fit the signals", found=f"shape {noise.shape}", expected=f"{shape}"
        ) from error
    known = np.isfinite(noise) & (noise > 0)
    nowhere = np.ndim(noise_sd) > 0 and bool(np.isnan(noise).all())
    if noise.size and not known.any() and not nowhere:
        raise InputError("the noise standard deviation must be positive", found=f"{noise.reshape(-1)[0]:g}")
    return np.where(known, noise, np.nan).reshape(-1)


def check_table(table: GradientTable) -> None:
    """Refuse a table that cannot be one, by the name of what is wrong.

    A table read from files has passed :func:`~cordqa.models.diffusion.gradient_checks.check_gradients`;
    one that was built by hand need not have.

    Raises
    ------
    GradientError
        If a b-value, direction or shape cannot be one, or the unit of b is not s/mm2.
    """
    b, shape, n = table.b_values_s_mm2, table.b_delta, table.directions
    if not (b.ndim == 1 and b.size and shape.shape == b.shape and n.shape == (b.size, 3)):
        raise GradientLengthError(
            "the parts of the gradient table differ in length or are empty",
            found=f"{b.size} b-values, {shape.size} shapes and directions of shape {n.shape}",
        )
    bad = ~np.isfinite(b) | (b < 0) | ~np.isfinite(n).all(axis=1)
    _refuse(BValueError, "b-values or directions are negative or no number", bad, b)
    check_b_unit(float(b.max()))
    weighted = ~table.is_b0
    wrong = weighted & ~((shape >= -0.5 - 1e-6) & (shape <= 1 + 1e-6))
    _refuse(BTensorError, "b_delta must lie from -0.5 (planar) to 1 (linear)", wrong, shape)
    length = np.linalg.norm(n, axis=1)
    wrong = weighted & (np.abs(shape) > SHAPE_TOLERANCE) & (np.abs(length - 1) > NORM_TOLERANCE)
    _refuse(DirectionNormError, "encodings with an axis need directions of length 1", wrong, length)


def _refuse(error: type[InputError], what: str, wrong: Mask, values: Array) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        count = int(np.count_nonzero(wrong))
        raise error(
            what, found=f"{count} of {wrong.size}, the first at volume {first + 1} ({values[first]:g})"
        )
