"""Where the network looks: along the whole image for the cord's course, then closely, then again.

Slices of which the network is not certain are looked at once more with their noise smoothed away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.detect import best_path, presence_evidence, texture
from cordqa.cord.network import CordNetwork, normalise_locally
from cordqa.cord.resampling import on_grid, to_grid
from cordqa.cord.tracing import SegmentationSettings

__all__ = ["follow_cord", "look_again", "look_closely"]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Certainty above which a slice is not looked at again, and the least usual area.
_CERTAIN, _SMALL_CORD_MM2 = 0.85, 40.0
#: How much doubtful slices are smoothed before they are looked at again, and those that would be lost.
_QUIET_MM = (0.7, 1.2)
#: Variation inside a cord over the noise of the slice: a cord of simulated noisy images stays below.
_EVEN = 1.5


def follow_cord(
    images: Array, slice_mm: float, network: CordNetwork, settings: SegmentationSettings
) -> Floats:
    """Return the likely centre of the cord on every slice, in pixels of the network's grid."""
    n = images.shape[0]
    stride = max(int(settings.look_every_mm / slice_mm), 1)
    looked = np.unique(np.concatenate([np.arange(0, n, stride), [n - 1]]))
    if stride > 1:
        # The same slices whichever end is counted from.
        looked = np.unique(np.concatenate([looked, n - 1 - looked]))
    evidence = presence_evidence(network.glance(images[looked]), pixel_mm=network.grid_mm)
    coarse = evidence[:, ::2, ::2] * 4.0
    spacing = slice_mm * float(np.diff(looked).mean()) if looked.size > 1 else slice_mm
    path = best_path(coarse, pixel_mm=2.0 * network.grid_mm, slice_mm=spacing, stiffness=0.3) * 2.0
    every = np.arange(n)
    return np.stack([np.interp(every, looked, path[:, axis]) for axis in range(2)], axis=1)


def look_closely(images: Array, path: Floats, network: CordNetwork, settings: SegmentationSettings) -> Array:
    """Return the probability of cord around the path, zero elsewhere; shape of the images."""
    side = settings.patch
    _, nx, ny = images.shape
    corners = np.rint(path).astype(np.int64) - side // 2
    # A patch does not reach further beyond the image than it must.
    corners = np.stack([_clamp(corners[:, 0], nx, side), _clamp(corners[:, 1], ny, side)], axis=1)
    patches = np.zeros((images.shape[0], side, side), dtype=np.float32)
    places = [_overlap(corner, (nx, ny), side) for corner in corners]
    for k, (there, here) in enumerate(places):
        patches[k][here] = images[k][there]
    answers = network.probabilities(patches)[:, 0]
    out = np.zeros_like(images)
    for k, (there, here) in enumerate(places):
        out[k][there] = answers[k][here]
    return out


def look_again(
    probability: Array,
    data: Array,
    spacing_mm: tuple[float, float, float],
    path: Floats,
    network: CordNetwork,
    settings: SegmentationSettings,
) -> NDArray[np.bool_]:
    """Look at doubtful slices among others again, without their noise; keep what is more certain.

    Smoothing makes the roots of the cauda equina look like a cord.  So an answer counts only if the
    slice inside it varies no more than its noise does, and only where at least half of the
    neighbouring slices hold cord without smoothing.

    Returns
    -------
    ndarray of bool, shape (n_slices,)
        Slices whose probability was replaced.
    """
    from scipy.ndimage import gaussian_filter

    certainty = np.array([_certainty(part, network) for part in probability])
    near = _among_cord(certainty, settings.least_confidence, spacing_mm[2])
    replaced = np.zeros(certainty.size, dtype=bool)
    for quiet_mm, certain in zip(_QUIET_MM, (_CERTAIN, settings.least_confidence), strict=True):
        doubtful = np.flatnonzero(near & (certainty < certain))
        if doubtful.size == 0:
            break
        images = to_grid(data[:, :, doubtful], spacing_mm, network.grid_mm)
        images = np.stack([gaussian_filter(image, quiet_mm / network.grid_mm) for image in images])
        images = np.stack([normalise_locally(image, network.grid_mm) for image in images])
        again = look_closely(images, path[doubtful], network, settings)
        for k, answer in zip(doubtful, again, strict=True):
            now = _certainty(answer, network)
            inside = on_grid(answer >= network.threshold, data.shape[:2], spacing_mm, network.grid_mm)
            if now > certainty[k] and texture(data[:, :, k], inside) < _EVEN:
                probability[k], certainty[k], replaced[k] = answer, now, True
    return replaced


def _among_cord(certainty: Floats, least: float, slice_mm: float) -> NDArray[np.bool_]:
    """Return the slices of whose neighbours, within 12 mm or two slices, at least half hold cord."""
    reach = max(round(12.0 / slice_mm), 2)
    out = np.zeros(certainty.size, dtype=bool)
    for k in range(certainty.size):
        around = np.delete(certainty[max(k - reach, 0) : k + reach + 1], min(k, reach))
        out[k] = around.size > 0 and float((around >= least).mean()) >= 0.5
    return out


def _certainty(probability: Array, network: CordNetwork) -> float:
    """Return the mean probability of the pixels that are taken for cord, less where they are few."""
    inside = probability >= network.threshold
    area = float(np.count_nonzero(inside)) * network.grid_mm**2
    return float(probability[inside].mean()) * min(area / _SMALL_CORD_MM2, 1.0) if area > 0.0 else 0.0


def _overlap(
    corner: NDArray[np.int64], shape: tuple[int, int], side: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where image and patch overlap: slices of the image, slices of the patch."""
    low = [max(int(c), 0) for c in corner]
    high = [min(int(c) + side, n) for c, n in zip(corner, shape, strict=True)]
    there = (slice(low[0], high[0]), slice(low[1], high[1]))
    here = (
        slice(low[0] - int(corner[0]), high[0] - int(corner[0])),
        slice(low[1] - int(corner[1]), high[1] - int(corner[1])),
    )
    return there, here


def _clamp(corner: NDArray[np.int64], size: int, side: int) -> NDArray[np.int64]:
    """Keep patches inside the image, or centred on it where it is smaller than a patch."""
    if size <= side:
        return np.full_like(corner, (size - side) // 2)
    return np.clip(corner, 0, size - side)
