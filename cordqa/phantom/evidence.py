"""Evidence that a sphere is centred at a point: a map of radial symmetry.

A sphere shows as a disc whose edge may be brighter or darker than what surrounds it, and which of the
two changes from one inversion or echo time to the next.  What does not change is that the gradient on
the edge points along the radius.  The gradients of all images are therefore gathered in one structure
tensor (which has no sign), and each point is asked how much of the tensor on an annulus around it is
radial rather than tangential.  The answer is 1 for a complete circle of edges, 0 for no preferred
direction, and negative for tangential edges.  The same code serves slices and volumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EvidenceMap",
    "Peaks",
    "compute_evidence",
    "core_flatness",
    "find_peaks",
    "has_contrast",
    "noise_level",
]

#: Noise is never taken as less than this share of the image's bright end: in a very clean image
#: Gibbs ringing and shading would otherwise count as much as an edge.
_NOISE_FLOOR = 0.01
#: Weight of an edge is energy / (energy + this many times the energy that noise alone has).
_NOISE_FACTOR = 4.0
#: Reach of one sphere when hypotheses are ranked: covers scale, tilt and positional play.
_NEARBY_MM = 3.0
#: Lines along the gradient that miss a centre by this much count half when the centre is refined.
_MISS_MM = 1.5
#: How far a centre may move when it is refined, and how often it is tried.
_REFINE_REACH_MM = 2.5
_N_REFINEMENTS = 8

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EvidenceMap:
    """Evidence for a sphere of one size, on an isotropic grid that starts at voxel 0 of the images.

    Attributes
    ----------
    values : ndarray, 2D or 3D, float32
        Radial symmetry, at most 1.
    nearby : ndarray, same shape
        Largest evidence within about 3 mm, 0 to 1: what a sphere would find from a rough guess.
    tensor : dict
        The structure tensor behind them, upper triangle by pair of axes, trace below 1.
    step_mm : float
        Spacing of the grid; grid index ``i`` lies ``i * step_mm`` from the centre of the first voxel.
    """

    values: Array32
    nearby: Array32
    tensor: dict[tuple[int, int], Array32]
    step_mm: float


@dataclass(frozen=True, slots=True)
class Peaks:
    """Local maxima of an evidence map: positions in millimetres, shape (n, n_dims), and heights."""

    positions_mm: Array
    heights: Array


def noise_level(image: Array32) -> float:
    """Estimate the standard deviation of white noise in one image (0 where it has no contrast).

    The median of second differences over the last two axes is used, over samples that are not exactly
    zero (a masked background says nothing about noise), with a floor of 1 % of the 99th percentile.
    """
    block = (
        image[..., :-1, :-1] - image[..., 1:, :-1] - image[..., :-1, 1:] + image[..., 1:, 1:]
    ) / np.float32(2)
    used = image[..., :-1, :-1] != 0
    if not used.any():
        return 0.0
    deviation = float(np.median(np.abs(block[used]))) / 0.6745
    bright = float(np.percentile(np.abs(image[image != 0]), 99))
    return max(deviation, _NOISE_FLOOR * bright)


def compute_evidence(
    images: Sequence[NDArray[np.generic]],
    spacing_mm: Sequence[float],
    radii_mm: Sequence[tuple[float, float]],
    *,
    step_mm: float,
    smoothing_mm: float,
) -> tuple[EvidenceMap, ...]:
    """Compute one evidence map for each sphere size from all images together.

    Parameters
    ----------
    images : sequence of ndarray, each of shape ([n_slices,] n_rows, n_columns)
        Real values; what is not finite counts as zero.  Sign and scale are free and may differ
        between images.  One image at a time is converted.
    spacing_mm : sequence of float
        Spacing along each spatial axis.
    radii_mm : sequence of (inner, outer)
        Inner and outer radius of each kind of sphere; its edges are sought around both.
    step_mm : float
        Spacing of the isotropic grid on which the maps are made.
    smoothing_mm : float
        Standard deviation of the Gaussian before the gradient.

    Returns
    -------
    tuple of EvidenceMap
        In the order of ``radii_mm``.
    """
    tensor = _structure_tensor(images, spacing_mm, step_mm, smoothing_mm)
    maps = []
    for inner, outer in radii_mm:
        both = _radial_part(tensor, *_band(inner, outer), step_mm)
        maps.append(EvidenceMap(both, _spread_maxima(both, step_mm), tensor, step_mm))
    return tuple(maps)


def _band(inner_mm: float, outer_mm: float) -> tuple[float, float]:
    """Return radius and width of the annulus that holds both edges and the blur of each."""
    return (inner_mm + outer_mm) / 2, (outer_mm - inner_mm) / 4 + 1.0


def _spread_maxima(values: Array32, step_mm: float) -> Array32:
    from scipy import ndimage

    size = 2 * max(1, round(_NEARBY_MM / step_mm)) + 1
    return np.asarray(np.clip(ndimage.maximum_filter(values, size), 0.0, 1.0), dtype=np.float32)


def _structure_tensor(
    images: Sequence[NDArray[np.generic]],
    spacing_mm: Sequence[float],
    step_mm: float,
    smoothing_mm: float,
) -> dict[tuple[int, int], Array32]:
    """Sum gradient products of all images in units of noise; normalise to a trace below 1."""
    from scipy import ndimage

    n_dims = images[0].ndim
    total: dict[tuple[int, int], Array32] = {}
    n_used = 0
    for image in map(_unit_range, images):
        deviation = noise_level(image)
        if deviation == 0.0:
            continue
        grid = _resample(image, spacing_mm, step_mm)
        grid = ndimage.gaussian_filter(grid, smoothing_mm / step_mm, truncate=3.0)
        scale = _gradient_noise(deviation, spacing_mm, smoothing_mm)
        gradient = [np.gradient(grid, step_mm, axis=axis) / np.float32(scale) for axis in range(n_dims)]
        for i in range(n_dims):
            for j in range(i, n_dims):
                product = gradient[i] * gradient[j]
                total[i, j] = total[i, j] + product if (i, j) in total else product
        n_used += 1
    if not total:
        shape = tuple(_grid_length(n, d, step_mm) for n, d in zip(images[0].shape, spacing_mm, strict=True))
        return {(i, j): np.zeros(shape, np.float32) for i in range(n_dims) for j in range(i, n_dims)}
    trace = sum((total[i, i] for i in range(1, n_dims)), start=total[0, 0])
    weight = np.float32(1) / (trace + np.float32(_NOISE_FACTOR * n_used * n_dims))
    return {key: product * weight for key, product in total.items()}


def has_contrast(image: NDArray[np.generic]) -> bool:
    """Tell whether an image holds two different finite values."""
    finite = image[np.isfinite(image)]
    return bool(finite.size) and bool((finite != finite.flat[0]).any())


def _unit_range(image: NDArray[np.generic]) -> Array32:
    """Scale an image to at most 1 in magnitude, with zero for what is not finite.

    Dividing first keeps values beyond the range of 32-bit floats from overflowing.
    """
    values = np.where(np.isfinite(image), image, np.zeros((), image.dtype))
    top = max(abs(float(values.min())), abs(float(values.max())))
    return np.asarray(values / top if top > 0 else values, dtype=np.float32)


def _gradient_noise(deviation: float, spacing_mm: Sequence[float], smoothing_mm: float) -> float:
    """Return the noise of one gradient component after Gaussian smoothing of white noise."""
    n_dims = len(spacing_mm)
    density = deviation**2 * math.prod(spacing_mm)
    variance = density / (2 * smoothing_mm**2 * (4 * math.pi * smoothing_mm**2) ** (n_dims / 2))
    return math.sqrt(variance)


def _grid_length(n: int, spacing_mm: float, step_mm: float) -> int:
    return max(1, int((n - 1) * spacing_mm / step_mm) + 1)


def _resample(image: Array32, spacing_mm: Sequence[float], step_mm: float) -> Array32:
    """Resample to the isotropic grid, after a low-pass where the grid is coarser than the image."""
    from scipy import ndimage

    ratio = np.array([step_mm / spacing for spacing in spacing_mm])
    sigma = [0.4 * math.sqrt(r * r - 1) if r > 1 else 0.0 for r in ratio]
    shape = tuple(_grid_length(n, d, step_mm) for n, d in zip(image.shape, spacing_mm, strict=True))
    if any(s > 0.3 for s in sigma):
        image = ndimage.gaussian_filter(image, sigma, truncate=3.0)
    resampled: Array32 = ndimage.affine_transform(image, ratio, output_shape=shape, order=1, mode="nearest")
    return resampled


def _radial_part(
    tensor: dict[tuple[int, int], Array32], radius_mm: float, width_mm: float, step_mm: float
) -> Array32:
    """Correlate the tensor with ``K(r) (n u u^T - 1) / (n - 1)``, which is 1 for a radial tensor."""
    from scipy import fft

    shape = tensor[0, 0].shape
    n_dims = len(shape)
    kernels, reach = _kernels(n_dims, radius_mm, width_mm, step_mm)
    padded = [fft.next_fast_len(n + reach, real=True) for n in shape]
    spectrum = None
    for key, kernel in kernels.items():
        # Every kernel is even, so that convolution and correlation are the same.
        part = fft.rfftn(tensor[key], padded) * fft.rfftn(_wrap(kernel, padded), padded)
        spectrum = part if spectrum is None else spectrum + part
    result = fft.irfftn(spectrum, padded)
    return np.asarray(result[tuple(slice(0, n) for n in shape)], np.float32)


def _kernels(
    n_dims: int, radius_mm: float, width_mm: float, step_mm: float
) -> tuple[dict[tuple[int, int], Array32], int]:
    reach = math.ceil((radius_mm + 2.5 * width_mm) / step_mm)
    axes = np.meshgrid(*[np.arange(-reach, reach + 1) * step_mm] * n_dims, indexing="ij")
    radius = np.sqrt(sum(a * a for a in axes))
    band = np.exp(-((radius - radius_mm) ** 2) / (2 * width_mm**2))
    band[radius == 0] = 0.0
    band /= band.sum()
    unit = [a / np.where(radius == 0, 1.0, radius) for a in axes]
    kernels = {}
    for i in range(n_dims):
        for j in range(i, n_dims):
            kernel = n_dims * unit[i] * unit[j] * (1 if i == j else 2) - (1.0 if i == j else 0.0)
            kernels[i, j] = (band * kernel / (n_dims - 1)).astype(np.float32)
    return kernels, reach


def _wrap(kernel: Array32, shape: Sequence[int]) -> Array32:
    """Place a centred kernel in an array with its middle at index 0, wrapping around."""
    out = np.zeros(shape, np.float32)
    index = [(np.arange(n) - n // 2) % size for n, size in zip(kernel.shape, shape, strict=True)]
    np.add.at(out, np.ix_(*index), kernel)
    return out


def find_peaks(evidence: EvidenceMap, *, minimum: float, separation_mm: float, at_most: int) -> Peaks:
    """Find local maxima of at least ``minimum``, highest first, at sub-voxel positions.

    A maximum is one over a cube of ``separation_mm`` to each side.
    """
    from scipy import ndimage

    values = evidence.values
    size = 2 * max(1, round(separation_mm / evidence.step_mm)) + 1
    top = (ndimage.maximum_filter(values, size, mode="constant", cval=-1.0) == values) & (values >= minimum)
    index = np.argwhere(top)
    heights = values[top].astype(float)
    order = np.argsort(-heights, kind="stable")[:at_most]
    refined = [_parabola_peak(values, index[k]) for k in order]
    positions = np.array(refined, float).reshape(len(order), values.ndim) * evidence.step_mm
    return Peaks(positions, heights[order])


def refine_centres(
    evidence: EvidenceMap, centres_mm: Array, radii_mm: tuple[float, float], others_mm: Array
) -> Array:
    """Move each centre to where the gradients on its annulus point.

    Every sample of the annulus is a line along its gradient; the centre is the point nearest to all
    lines, weighted by their strength and robustly.  Unlike the maximum of the evidence, it is not
    pulled along the line to a neighbour, whose edges point along that line as well.

    Parameters
    ----------
    evidence : EvidenceMap
    centres_mm : ndarray, shape (n, n_dims)
        First guesses; a result more than 2.5 mm away from its guess is given up for the guess.
    radii_mm : (inner, outer)
    others_mm : ndarray, shape (m, n_dims)
        All sphere centres (the ones to refine may be among them); samples on another are left out.
    """
    refined = np.array(centres_mm, dtype=float)
    for k, start in enumerate(refined.copy()):
        places, lines = _window(evidence, start, radii_mm, others_mm)
        centre = start
        for _ in range(_N_REFINEMENTS if len(places) else 0):
            centre = _nearest_to_lines(places, lines, centre, radii_mm)
        if np.isfinite(centre).all() and np.linalg.norm(centre - start) <= _REFINE_REACH_MM:
            refined[k] = centre
    return refined


def _window(
    evidence: EvidenceMap, centre_mm: Array, radii_mm: tuple[float, float], others_mm: Array
) -> tuple[Array, Array]:
    """Return places (n, n_dims) around a centre and the tensor there as a cost, trace - tensor."""
    step, shape = evidence.step_mm, np.array(evidence.values.shape)
    reach = radii_mm[1] + 4.0
    low = np.clip(np.ceil((centre_mm - reach) / step), 0, shape).astype(int)
    high = np.clip(np.floor((centre_mm + reach) / step) + 1, low, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.meshgrid(*[np.arange(a, b) * step for a, b in zip(low, high, strict=True)], indexing="ij")
    places = np.stack([g.ravel() for g in grid], axis=-1)
    far = np.linalg.norm(others_mm - centre_mm, axis=1) > radii_mm[0]
    free = np.ones(len(places), dtype=bool)
    for other in others_mm[far]:
        free &= np.linalg.norm(places - other, axis=1) > radii_mm[1] + 1.5
    n_dims = len(shape)
    tensor = np.empty((int(free.sum()), n_dims, n_dims))
    for (i, j), part in evidence.tensor.items():
        tensor[:, i, j] = tensor[:, j, i] = part[box].ravel()[free]
    trace = np.trace(tensor, axis1=1, axis2=2)
    return places[free], trace[:, None, None] * np.eye(n_dims) - tensor


def _nearest_to_lines(places: Array, lines: Array, centre: Array, radii_mm: tuple[float, float]) -> Array:
    """Take one step of reweighted least squares."""
    offset = places - centre
    radius, width = _band(*radii_mm)
    weight = np.exp(-((np.linalg.norm(offset, axis=1) - radius) ** 2) / (2 * width**2))
    trace = np.maximum(np.trace(lines, axis1=1, axis2=2) / (places.shape[1] - 1), 1e-12)
    miss = np.einsum("ni,nij,nj->n", offset, lines, offset) / trace
    weight /= 1 + miss / _MISS_MM**2
    cost = np.einsum("n,nij->ij", weight, lines)
    if np.linalg.cond(cost) > 1e6:
        return centre
    return np.asarray(np.linalg.solve(cost, np.einsum("n,nij,nj->i", weight, lines, places)))


def core_flatness(evidence: EvidenceMap, centres_mm: Array, radii_mm: tuple[float, float]) -> Array:
    """Tell how flat the core of each circle in a slice is, compared with its edges.

    One less the ratio of the radial gradient in the core (0.25 to 0.5 of the inner radius) to that of
    the steepest circle up to the outer radius: 1 is a flat core.  A slice off the spheres' centres
    cuts smaller circles, and the slant of the wall through the slice moves gradient into the core.

    Parameters
    ----------
    evidence : EvidenceMap
        Of a slice.
    centres_mm : ndarray, shape (n, 2)
    radii_mm : (inner, outer)
    """
    from scipy import ndimage

    angle = np.arange(48) * (2 * np.pi / 48)
    inner, outer = radii_mm
    radius = np.concatenate([inner * np.linspace(0.25, 0.5, 4), np.linspace(0.55 * inner, outer, 10)])
    unit = np.stack([np.sin(angle), np.cos(angle)])
    place = (centres_mm[:, :, None, None] + radius[:, None] * unit[:, None]) / evidence.step_mm
    sampled = {
        key: ndimage.map_coordinates(part, place.swapaxes(0, 1), order=1, mode="nearest")
        for key, part in evidence.tensor.items()
    }
    radial = sum(
        sampled[i, j] * unit[i] * unit[j] * (1 if i == j else 2) for i in range(2) for j in range(i, 2)
    )
    # Undo the normalisation (trace / (trace + constant)): here the strength of an edge counts.
    energy = (radial / np.maximum(1 - sampled[0, 0] - sampled[1, 1], 1e-6)).mean(axis=2)
    steepest = np.maximum(energy.max(axis=1), 1e-12)
    return np.asarray(1 - np.sqrt(np.clip(energy[:, :4].mean(axis=1) / steepest, 0, 1)), dtype=float)


def _parabola_peak(values: Array32, index: NDArray[np.intp]) -> Array:
    """Refine a maximum on the grid by a parabola along each axis (at most half a step)."""
    refined = index.astype(float)
    for axis in range(values.ndim):
        if 0 < index[axis] < values.shape[axis] - 1:
            before, after = index.copy(), index.copy()
            before[axis] -= 1
            after[axis] += 1
            low, mid, high = (float(values[tuple(k)]) for k in (before, index, after))
            curvature = low - 2 * mid + high
            if curvature < 0:
                refined[axis] += float(np.clip(0.5 * (low - high) / curvature, -0.5, 0.5))
    return refined
