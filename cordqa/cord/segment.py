"""Segmentation of the spinal cord by the built-in engine.

A small network, trained on simulated sections only, marks the cord on every axial slice; a path
of best evidence joins the slices; the outline is then moved to the clearest closed edge near the
network's outline on the image's own grid, and drawn as a soft mask (part of each voxel inside).
Slices beyond the cord's ends (brainstem, cauda equina) are not segmented and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.cord.boundary import (
    N_DIRECTIONS,
    Outlines,
    edge_profile,
    outline_mask,
    refine_radii,
    smooth_radii,
)
from cordqa.cord.detect import best_path, classical_evidence, presence_evidence
from cordqa.cord.network import CordNetwork, normalise_locally, packaged_network
from cordqa.cord.resampling import to_grid
from cordqa.cord.tracing import (
    APART,
    BRAINSTEM,
    CAUDA_EQUINA,
    DISAGREES,
    INTERPOLATED,
    LOW_CONFIDENCE,
    NO_CORD,
    SUPPORTED,
    WEAK_EDGE,
    CordNotFoundError,
    SegmentationSettings,
    Traced,
    find_extent,
    outline_slices,
    support_doubtful,
)
from cordqa.errors import InputError
from cordqa.records import Volume

__all__ = [
    "APART",
    "BRAINSTEM",
    "CAUDA_EQUINA",
    "DISAGREES",
    "INTERPOLATED",
    "LOW_CONFIDENCE",
    "NO_CORD",
    "SUPPORTED",
    "WEAK_EDGE",
    "CordNotFoundError",
    "Segmentation",
    "SegmentationSettings",
    "segment_cord",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Grid of the classical detector, and the distance between centrelines that is worth a flag.
_CHECK_GRID_MM, _CHECK_APART_MM = 1.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A segmented cord on the grid of the image.

    Attributes
    ----------
    mask : ndarray of float32, shape of the image
        Part of each voxel inside the cord, 0..1.
    centreline_mm : ndarray, shape (n, 3)
        Centre of the cord on each segmented slice, RAS+ mm, from inferior to superior.
    centreline_slices : ndarray of int, shape (n,)
        Index of those slices along ``slice_axis`` of the image as stored.
    confidence : ndarray, shape (n_slices,)
        Mean probability of cord inside the outline, 0 where none; in stored order of slices.
    slice_axis : int
        Axis of the stored image that runs along the body.
    flags : tuple of tuple of str
        What to know about each slice, in stored order.
    notes : tuple of str
        What to know about the whole.
    method : str
        Name and version of the method, for provenance.
    """

    mask: Array
    centreline_mm: Floats
    centreline_slices: NDArray[np.int64]
    confidence: Floats
    slice_axis: int
    flags: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    method: str = ""


def segment_cord(
    volume: Volume,
    *,
    settings: SegmentationSettings | None = None,
    network: CordNetwork | None = None,
) -> Segmentation:
    """Segment the spinal cord in one three-dimensional image of any contrast and orientation.

    Parameters
    ----------
    volume : Volume
        Image with three axes; isotropic or with thick axial slices.
    settings : SegmentationSettings, optional
    network : CordNetwork, optional
        The packaged network by default.

    Returns
    -------
    Segmentation
        Soft mask on the same grid, centreline, confidence and flags per slice.

    Raises
    ------
    InputError
        If the image does not have three dimensions, its affine cannot be used or its slices are
        too small.
    CordNotFoundError
        If there is no cord in the field of view.
    """
    settings = settings or SegmentationSettings()
    network = network or packaged_network()
    laid_out = orient(volume)
    data = _usable(laid_out)
    images = to_grid(data, laid_out.spacing_mm, network.grid_mm)
    images = np.stack([normalise_locally(image, network.grid_mm) for image in images])
    path = _follow(images, laid_out.spacing_mm[2], network, settings)
    probability = _look_closely(images, path, network, settings)
    probability = _smooth_along(probability, laid_out.spacing_mm[2], 0.8)
    found = outline_slices(
        probability, path, grid_mm=network.grid_mm, threshold=network.threshold, settings=settings
    )
    support_doubtful(
        found,
        probability,
        laid_out.spacing_mm[2],
        grid_mm=network.grid_mm,
        threshold=network.threshold,
        settings=settings,
    )
    notes = find_extent(found, laid_out, settings)
    if not np.isfinite(laid_out.data).all():
        notes.append("voxels that are not finite were read as 0")
    if settings.refine:
        _sharpen(found, data, laid_out.spacing_mm)
    found.radii_mm = np.maximum(found.radii_mm - settings.inset_mm, 0.3)
    if settings.cross_check:
        notes += _cross_check(found, data, laid_out.spacing_mm)
    return _result(found, laid_out, notes, network.version)


def _usable(laid_out: Oriented) -> Array:
    """Return finite float values, or refuse what cannot hold a cord."""
    if np.iscomplexobj(laid_out.data):
        raise InputError("the cord is segmented in magnitude images", where=laid_out.source, found="complex")
    with np.errstate(over="ignore"):  # beyond single precision: treated like any value that is not finite
        data = np.asarray(laid_out.data, dtype=np.float32)
    spacing = laid_out.spacing_mm
    sides = data.shape[0] * spacing[0], data.shape[1] * spacing[1]
    if min(sides) < 12.0 or max(spacing[:2]) > 4.0:
        raise InputError(
            "a spinal cord cannot be segmented on these slices",
            where=laid_out.source,
            found=f"{sides[0]:.3g} x {sides[1]:.3g} mm in voxels of {spacing[0]:.3g} x {spacing[1]:.3g} mm",
            expected="at least 12 mm across in voxels of at most 4 mm",
            todo="check the voxel size in the header",
        )
    if max(sides) > 1000.0 or spacing[2] * data.shape[2] > 3000.0:
        raise InputError(
            "the field of view is larger than a person",
            where=laid_out.source,
            found=f"{sides[0]:.4g} x {sides[1]:.4g} x {spacing[2] * data.shape[2]:.4g} mm",
            todo="check the units of the voxel size in the header",
        )
    finite = np.isfinite(data)
    data = np.where(finite, data, np.float32(0.0))
    if not finite.any() or float(np.ptp(data)) == 0.0:
        raise CordNotFoundError("the image is empty: all voxels are equal", where=laid_out.source)
    # A few voxels that are not tissue (spikes, infinities) must not set the scale.
    sample = np.abs(data.ravel()[:: max(data.size // 200_000, 1)])
    top = 4.0 * float(np.percentile(sample, 99.5))
    if top <= 0.0:
        top = float(np.abs(data).max())
    return np.asarray(np.clip(data / np.float32(top), -1.0, 1.0), dtype=np.float32)


def _follow(images: Array, slice_mm: float, network: CordNetwork, settings: SegmentationSettings) -> Floats:
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


def _look_closely(images: Array, path: Floats, network: CordNetwork, settings: SegmentationSettings) -> Array:
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


def _smooth_along(values: Array, slice_mm: float, sigma_mm: float) -> Array:
    """Smooth along the cord where slices are thin enough to share their anatomy."""
    from scipy.ndimage import gaussian_filter1d

    if slice_mm > 2.5 * sigma_mm or values.shape[0] < 2:
        return values
    return np.asarray(gaussian_filter1d(values, sigma_mm / slice_mm, axis=0, mode="nearest"))


def _sharpen(found: Traced, data: Array, spacing_mm: tuple[float, float, float]) -> None:
    """Move the outlines of the run to the edge in the image."""
    run = np.flatnonzero(found.present)
    images = np.ascontiguousarray(np.moveaxis(data[:, :, run], 2, 0))
    spacing = spacing_mm[:2]
    centres, radii = found.centres_mm[run], found.radii_mm[run]
    blur = max(0.3, 0.4 * max(spacing))
    edges = edge_profile(images, spacing, centres, radii, blur_mm=blur)
    moved, strength = refine_radii(edges, radii)
    for k, slice_strength in zip(run, strength, strict=True):
        if slice_strength < 0.4:
            found.flags[k].append(WEAK_EDGE)
    radii = np.where(strength[:, None] < 0.4, radii, moved)
    if spacing_mm[2] <= 2.0:
        radii = smooth_radii(radii, along=1.0 / spacing_mm[2])
    found.radii_mm[run] = radii


def _cross_check(found: Traced, data: Array, spacing_mm: tuple[float, float, float]) -> list[str]:
    """Compare the centreline with that of the classical detector; flag slices far apart."""
    run = np.flatnonzero(found.present)
    stride = max(int(4.0 / spacing_mm[2]), 1)
    looked = run[::stride]
    images = to_grid(data[:, :, looked], spacing_mm, _CHECK_GRID_MM)
    images = np.stack([normalise_locally(image, _CHECK_GRID_MM) for image in images])
    evidence = classical_evidence(images, pixel_mm=_CHECK_GRID_MM)
    path = best_path(evidence, pixel_mm=_CHECK_GRID_MM, slice_mm=spacing_mm[2] * stride)
    middle = (np.array(images.shape[1:]) - 1) / 2
    apart = np.hypot(*((path - middle) * _CHECK_GRID_MM - found.centres_mm[looked]).T)
    for k in looked[apart > _CHECK_APART_MM]:
        found.flags[k].append(DISAGREES)
    share = float((apart > _CHECK_APART_MM).mean())
    if share < 0.5:
        return []
    return [f"the classical detector finds the cord elsewhere on {share:.0%} of the slices it was asked for"]


def _result(found: Traced, laid_out: Oriented, notes: list[str], version: str) -> Segmentation:
    """Draw the mask and put everything back into the stored order."""
    run = np.flatnonzero(found.present)
    outlines = Outlines(centres_mm=found.centres_mm[run], radii_mm=found.radii_mm[run])
    shape = laid_out.data.shape[:2]
    mask = np.zeros(laid_out.data.shape, dtype=np.float32)
    mask[:, :, run] = np.moveaxis(outline_mask(outlines, shape, laid_out.spacing_mm[:2]), 0, 2)
    x, y = _centroids(outlines)
    index = np.stack(
        [
            x / laid_out.spacing_mm[0] + (shape[0] - 1) / 2,
            y / laid_out.spacing_mm[1] + (shape[1] - 1) / 2,
            run.astype(float),
        ]
    )
    points = laid_out.affine[:3, :3] @ index + laid_out.affine[:3, 3:]
    stored = np.array([laid_out.array_index(int(k)) for k in range(found.present.size)])
    order = np.argsort(stored)
    confidence = np.where(found.present, found.confidence, 0.0)
    return Segmentation(
        mask=np.ascontiguousarray(laid_out.restore(mask)),
        centreline_mm=points.T,
        centreline_slices=stored[run],
        confidence=confidence[order],
        slice_axis=laid_out.order[2],
        flags=tuple(tuple(found.flags[int(k)]) for k in order),
        notes=tuple(notes),
        method=f"built-in network {version} with boundary refinement",
    )


def _centroids(outlines: Outlines) -> tuple[Floats, Floats]:
    """Return the centroid of each outline in mm (sectors between directions)."""
    turn = (np.arange(N_DIRECTIONS) + 0.5) * (2.0 * np.pi / N_DIRECTIONS)
    radii = outlines.radii_mm
    area = (radii**2).sum(axis=1) / 2.0
    cube = radii**3 / 3.0
    x = (cube * np.cos(turn)).sum(axis=1) / area
    y = (cube * np.sin(turn)).sum(axis=1) / area
    return outlines.centres_mm[:, 0] + x, outlines.centres_mm[:, 1] + y
