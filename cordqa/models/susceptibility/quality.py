"""How far the phase can be believed, voxel by voxel, before anything is fitted to it.

The quality of a voxel is the mean quality of the edges to its neighbours, by which the phase is
unwrapped (Dymerska et al. 2021, doi:10.1002/mrm.28563): about 0.9 in tissue, below 0.2 in noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.unwrap import edge_quality, find_neighbours

__all__ = [
    "NOISE_QUALITY",
    "Split",
    "compare_unwrapping",
    "estimate_noise",
    "laplacian_phase",
    "split_histogram",
    "voxel_quality",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Quality that 999 of 1000 voxels of pure noise stay below.
NOISE_QUALITY = 0.21
_BINS = 256
_TURN = 2 * math.pi


def voxel_quality(
    phase: NDArray[np.floating],
    magnitude: NDArray[np.floating],
    echo_times_s: Array,
    mask: Mask,
) -> Array:
    """Return the quality of the phase of each voxel.

    Phase coherence, coherence of its gradient between the first two echoes, and linearity in
    space; magnitude is left out, so that coil sensitivities do not count.

    Parameters
    ----------
    phase, magnitude : ndarray, shape (x, y, z, n_echoes)
        Wrapped phase in rad.
    echo_times_s : ndarray, shape (n_echoes,)
    mask : ndarray of bool
        Voxels that are judged.

    Returns
    -------
    ndarray, shape (x, y, z)
        0 to 1; 0 outside the mask and in voxels without a neighbour.
    """
    neighbours = find_neighbours(mask)
    wrapped = np.asarray(phase[mask], dtype=float)
    second = wrapped[:, 1] if echo_times_s.size > 1 else None
    ratio = float(echo_times_s[0] / echo_times_s[1]) if echo_times_s.size > 1 else 1.0
    edges = edge_quality(wrapped[:, 0], neighbours, second_phase=second, echo_ratio=ratio)
    n = neighbours.n_voxels
    total, count = np.zeros(n), np.zeros(n)
    for end in (neighbours.first, neighbours.second):
        total += np.bincount(end, edges, minlength=n)
        count += np.bincount(end, minlength=n)
    quality = np.zeros(mask.shape)
    quality[mask] = np.divide(total, count, out=np.zeros(n), where=count > 0)
    quality[mask & ~(magnitude[..., 0] > 0)] = 0.0
    return quality


class Split(NamedTuple):
    """Best split of a histogram into two classes.

    ``separation`` is the share of the variance that lies between the classes: 0.64 for one normal
    distribution cut in the middle, 0.75 for a uniform one, 1 for two sharp peaks.
    """

    threshold: float
    separation: float


def split_histogram(values: NDArray[np.floating]) -> Split:
    """Split values into two classes by Otsu's criterion (doi:10.1109/TSMC.1979.4310076).

    Parameters
    ----------
    values : ndarray
        At least two different finite values; otherwise the separation is 0.
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if known.size < 2 or known.min() == known.max():
        return Split(float(known[0]) if known.size else math.nan, 0.0)
    counts, edges = np.histogram(known, bins=_BINS)
    share = counts / counts.sum()
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(share), np.cumsum(share * centres)
    mean = moment[-1]
    variance = float((share * (centres - mean) ** 2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (mean * below - moment) ** 2 / (below * (1 - below))
    between = np.nan_to_num(between[:-1], nan=0.0, posinf=0.0)
    # Between two sharp peaks every threshold is as good: take the middle of the gap.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    threshold = float(edges[1:][round(float(best.mean()))])
    return Split(threshold, float(between.max()) / variance if variance > 0 else 0.0)


def compare_unwrapping(
    unwrapped: Array, wrapped: NDArray[np.floating], mask: Mask, *, seed: int = 0
) -> float:
    """Share of the mask in which scikit-image's unwrapping differs by a multiple of 2 pi.

    The other algorithm sorts by reliability (Abdul-Rahman et al. 2007, doi:10.1364/AO.46.006623).
    A multiple of 2 pi that is common to a connected piece of the mask is no difference.

    Parameters
    ----------
    unwrapped : ndarray, shape (n_voxels,)
        Of the voxels of the mask, rad.
    wrapped : ndarray, shape (x, y, z)
        The same echo as measured.
    mask : ndarray of bool
    seed : int
        The algorithm breaks ties at random.
    """
    from scipy.ndimage import label
    from skimage import restoration

    unwrap: Callable[..., Any] = restoration.unwrap_phase  # it has no types
    masked = np.ma.array(np.asarray(wrapped, dtype=float), mask=~mask)
    other = np.asarray(unwrap(masked, rng=seed))[mask]
    turns = np.round((unwrapped - other) / _TURN).astype(np.int64)
    pieces, _ = label(mask)
    piece = pieces[mask]
    agreeing = 0
    for number in range(1, int(piece.max()) + 1):
        own = turns[piece == number]
        _, counts = np.unique(own, return_counts=True)
        agreeing += int(counts.max())
    return float(1.0 - agreeing / max(turns.size, 1))


def laplacian_phase(phase: NDArray[np.floating], voxel_size_mm: Array) -> Array:
    """Unwrap by the Laplacian, for display only: it is smooth everywhere and right nowhere.

    Solves Poisson's equation with mirrored edges (Schofield and Zhu 2003,
    doi:10.1364/OL.28.001194).  It never enters a fit.

    Parameters
    ----------
    phase : ndarray, shape (x, y, z)
        Wrapped, rad.
    voxel_size_mm : ndarray, shape (3,)

    Returns
    -------
    ndarray, shape (x, y, z)
        Mean zero.
    """
    from scipy.fft import dctn, idctn

    wrapped = np.asarray(phase, dtype=float)
    size = np.asarray(voxel_size_mm, dtype=float)
    eigenvalues = np.zeros(wrapped.shape)
    for axis, n in enumerate(wrapped.shape):
        wave = (2 * np.cos(math.pi * np.arange(n) / n) - 2) / size[axis] ** 2
        eigenvalues = eigenvalues + wave.reshape([-1 if a == axis else 1 for a in range(3)])

    def laplacian(image: Array) -> Array:
        curved: Array = idctn(eigenvalues * dctn(image, type=2), type=2)
        return curved

    curvature = np.cos(wrapped) * laplacian(np.sin(wrapped)) - np.sin(wrapped) * laplacian(np.cos(wrapped))
    spectrum = dctn(curvature, type=2)
    eigenvalues.flat[0] = 1.0
    spectrum /= eigenvalues
    spectrum.flat[0] = 0.0
    smooth: Array = idctn(spectrum, type=2)
    return smooth


def estimate_noise(magnitude: NDArray[np.floating], mask: Mask) -> float:
    """Estimate the noise of one channel from second differences of the magnitude in space.

    Used where echoes are too few for residuals.  Texture makes it too large, never too small by
    much; the smallest of the estimates along the axes is taken.  A magnitude near its noise scatters less
    than that, down to 0.66 of it: this is undone by the mean of the brighter half of the voxels, from
    which the scatter is then taken (Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016).

    Parameters
    ----------
    magnitude : ndarray, shape (x, y, z)
        Of the last echo, where contrast of tissue is least against the noise.
    mask : ndarray of bool

    Returns
    -------
    float
        NaN where fewer than 100 triples of voxels lie in the mask.
    """
    found = []
    for axis in range(3):
        image, inside = np.moveaxis(np.asarray(magnitude, dtype=float), axis, 0), np.moveaxis(mask, axis, 0)
        if len(image) < 3:
            continue
        whole = inside[:-2] & inside[1:-1] & inside[2:]
        bend = (image[:-2] - 2 * image[1:-1] + image[2:])[whole]
        # The sum is independent of the second difference, so that choosing by it does not bias that.
        mean = (image[:-2] + image[1:-1] + image[2:])[whole] / 3
        if bend.size >= 100:
            bright = mean >= np.median(mean)
            scatter = 1.4826 * float(np.median(np.abs(bend[bright]))) / math.sqrt(6)
            found.append(_undo_floor(scatter, float(np.median(mean[bright]))))
    return min(found) if found else math.nan


def _undo_floor(scatter: float, mean: float) -> float:
    """Return the noise of one channel from the scatter and the mean of magnitudes."""
    if not scatter > 0:
        return scatter
    from scipy.special import ive

    signal = np.linspace(0.0, 12.0, 481)
    half = signal**2 / 4
    middle = math.sqrt(math.pi / 2) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))
    spread = np.sqrt(2 + signal**2 - middle**2)
    # A ratio below that of noise alone is texture; it is taken as noise alone.
    return scatter / float(np.interp(mean / scatter, middle / spread, spread))
