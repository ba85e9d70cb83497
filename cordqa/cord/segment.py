"""Segmentation of the spinal cord by the built-in engine.

A small network, trained on simulated sections only, marks the cord on every axial slice; a path
of best evidence joins the slices; the outline is then moved to the clearest closed edge near the
network's outline on the image's own grid, and drawn as a soft mask (part of each voxel inside).
Slices beyond the cord's ends (brainstem, cauda equina) are not segmented and say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, orient
from cordqa.cord.boundary import (
    N_DIRECTIONS,
    Outlines,
    edge_profile,
    outline_areas,
    outline_mask,
    refine_radii,
    smooth_radii,
)
from cordqa.cord.detect import best_path, classical_evidence, contradicts
from cordqa.cord.looking import follow_cord, look_again, look_closely
from cordqa.cord.network import CordNetwork, normalise_locally, packaged_network
from cordqa.cord.resampling import to_grid
from cordqa.cord.tracing import (
    APART,
    BRAINSTEM,
    CAUDA_EQUINA,
    DISAGREES,
    INSETS_MM,
    INTERPOLATED,
    LOW_CONFIDENCE,
    NO_CORD,
    SMOOTHED,
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
    "INSETS_MM",
    "INTERPOLATED",
    "LOW_CONFIDENCE",
    "NO_CORD",
    "SMOOTHED",
    "SUPPORTED",
    "WEAK_EDGE",
    "CordNotFoundError",
    "Segmentation",
    "SegmentationSettings",
    "segment_cord",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Grid of the classical detector.
_CHECK_GRID_MM = 1.0
#: How often the outline is moved to the edge: the pull towards where it came from halves each time.
_PASSES = 3


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
    inset_mm : float
        How far inside the edge in the image the mask is drawn.
    edge_area_mm2 : ndarray, shape (n_slices,)
        Area of the section inside the edge itself, whatever the inset; NaN where there is no
        outline; in stored order of slices, in the plane of the slice (not corrected for angle).
    """

    mask: Array
    centreline_mm: Floats
    centreline_slices: NDArray[np.int64]
    confidence: Floats
    slice_axis: int
    flags: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    method: str = ""
    inset_mm: float = 0.0
    edge_area_mm2: Floats = field(default_factory=lambda: np.empty(0))


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
    path = follow_cord(images, laid_out.spacing_mm[2], network, settings)
    probability = look_closely(images, path, network, settings)
    smoothed = look_again(probability, data, laid_out.spacing_mm, path, network, settings)
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
    for k in np.flatnonzero(found.present & smoothed):
        found.flags[k].append(SMOOTHED)
    if not np.isfinite(laid_out.data).all():
        notes.append("voxels that are not finite were read as 0")
    if settings.refine:
        _sharpen(found, data, laid_out.spacing_mm)
    edge_area = outline_areas(found.radii_mm)
    found.radii_mm = np.maximum(found.radii_mm - settings.inset_mm, 0.3)
    if settings.cross_check:
        notes += _cross_check(found, data, laid_out.spacing_mm)
    return _result(found, laid_out, notes, network.version, edge_area, settings.inset_mm)


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
    kept = np.zeros(run.size, dtype=bool)
    for _ in range(_PASSES):
        edges = edge_profile(images, spacing, centres, radii, blur_mm=blur)
        moved, strength = refine_radii(edges, radii)
        kept |= strength < 0.4
        radii = np.where(kept[:, None], radii, moved)
    for k in run[kept]:
        found.flags[k].append(WEAK_EDGE)
    if spacing_mm[2] <= 2.0:
        radii = smooth_radii(radii, along=1.0 / spacing_mm[2])
    found.radii_mm[run] = radii


def _cross_check(found: Traced, data: Array, spacing_mm: tuple[float, float, float]) -> list[str]:
    """Ask the classical detector whether there is a clearer cord elsewhere."""
    run = np.flatnonzero(found.present)
    stride = max(int(4.0 / spacing_mm[2]), 1)
    looked = run[::stride]
    images = to_grid(data[:, :, looked], spacing_mm, _CHECK_GRID_MM)
    images = np.stack([normalise_locally(image, _CHECK_GRID_MM) for image in images])
    evidence = classical_evidence(images, pixel_mm=_CHECK_GRID_MM)
    path = best_path(evidence, pixel_mm=_CHECK_GRID_MM, slice_mm=spacing_mm[2] * stride)
    middle = (np.array(images.shape[1:]) - 1) / 2
    centres = found.centres_mm[looked] / _CHECK_GRID_MM + middle
    odd = contradicts(evidence, path, centres, pixel_mm=_CHECK_GRID_MM)
    if odd.mean() >= 0.5:
        # The image as a whole is in doubt: said once, not on every slice.
        return [f"the classical detector finds a clearer cord elsewhere on {odd.mean():.0%} of the slices"]
    for k in looked[odd]:
        found.flags[k].append(DISAGREES)
    return []


def _result(
    found: Traced, laid_out: Oriented, notes: list[str], version: str, edge_area: Floats, inset_mm: float
) -> Segmentation:
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
        inset_mm=inset_mm,
        edge_area_mm2=np.where(found.present, edge_area, np.nan)[order],
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
