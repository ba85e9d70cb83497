"""Write small grey pictures as PNG, without an imaging library."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["encode_png", "shrink_image", "to_grey"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def to_grey(image: ArrayLike, *, percentiles: tuple[float, float] = (1.0, 99.5)) -> NDArray[np.uint8]:
    """Map an image to 0-255 between two percentiles of its finite values.

    Parameters
    ----------
    image : array_like, shape (rows, columns)
        Any real values; NaN and infinity become black.
    percentiles : tuple of float
        Values at or below the first become black, at or above the second white.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        All zero where the image is constant or has no finite value.
    """
    values = np.asarray(image, dtype=float)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(values[finite], percentiles)
    if not high > low:
        return np.zeros(values.shape, dtype=np.uint8)
    filled = np.where(finite, values, low)
    # Clipped before the division, so that an absurd sample cannot overflow it.
    scaled = (np.clip(filled, low, high) - low) / (high - low)
    grey: NDArray[np.uint8] = np.round(scaled * 255).astype(np.uint8)
    return grey


def shrink_image(image: NDArray[np.uint8], limit: int) -> tuple[NDArray[np.uint8], float]:
    """Area-average an image so that its longer side has at most ``limit`` pixels.

    Returns
    -------
    image : ndarray of uint8
        The input itself where it is small enough.
    factor : float
        Old pixels per new pixel; 1.0 where nothing changed.
    """
    longest = max(image.shape)
    if longest <= limit:
        return image, 1.0
    factor = longest / limit
    small = image.astype(float)
    for axis in (0, 1):
        small = _average_along(small, axis, factor)
    return np.round(small).astype(np.uint8), factor


def _average_along(values: NDArray[np.float64], axis: int, factor: float) -> NDArray[np.float64]:
    """Average over runs of ``factor`` pixels (not necessarily whole) along one axis."""
    values = np.moveaxis(values, axis, 0)
    length = values.shape[0]
    count = max(1, round(length / factor))
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    edges = np.minimum(np.arange(count + 1) * factor, length)
    whole = np.minimum(edges.astype(int), length - 1)
    part = (edges - whole)[:, None]
    at_edges = total[whole] * (1 - part) + total[whole + 1] * part
    mean = np.diff(at_edges, axis=0) / np.maximum(np.diff(edges), 1e-9)[:, None]
    return np.moveaxis(mean, 0, axis)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grey image as PNG.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, columns)
        Neither side may be zero.

    Raises
    ------
    InputError
        If the array is not a two-dimensional uint8 image with at least one pixel.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(
            "cannot be written as a grey picture",
            found=f"shape {image.shape} of {image.dtype}",
            expected="a two-dimensional image of uint8",
        )
    rows, columns = image.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = zlib.compress(_filter_rows(image), 9)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filter_rows(image: NDArray[np.uint8]) -> bytes:
    """Apply to each row the PNG filter whose output is smallest; smooth images compress better so."""
    current = image.astype(np.int16)
    left = np.pad(current, ((0, 0), (1, 0)))[:, :-1]
    above = np.pad(current, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(left, ((1, 0), (0, 0)))[:-1]
    guesses = [np.zeros_like(current), left, above, (left + above) // 2, _paeth(left, above, corner)]
    candidates = np.stack([(current - guess).astype(np.uint8) for guess in guesses])
    cost = np.abs(candidates.astype(np.int8).astype(np.int32)).sum(axis=2)
    best = np.argmin(cost, axis=0)
    chosen = candidates[best, np.arange(image.shape[0])]
    return np.concatenate([best[:, None].astype(np.uint8), chosen], axis=1).tobytes()


def _paeth(left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Pick whichever neighbour is nearest to left + above - corner (PNG specification, filter 4)."""
    to_left = np.abs(above - corner)
    to_above = np.abs(left - corner)
    to_corner = np.abs(left + above - 2 * corner)
    take_left = (to_left <= to_above) & (to_left <= to_corner)
    return np.where(take_left, left, np.where(to_above <= to_corner, above, corner))
