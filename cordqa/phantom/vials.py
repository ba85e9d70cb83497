"""Find vials that stand across the slices, where their width is known to lie in a range only.

The layout is sought with a ring of edges as wide as the range allows; then the mean radial gradient
about the centres tells the radius, and the layout is sought again with that.  In a stack several slices
are searched, and the one in the middle of those that show the vials is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.phantom.definition import Plate
from cordqa.phantom.evidence import EvidenceMap, compute_evidence
from cordqa.phantom.locate import check_spacing, locate_plate, prepare_images
from cordqa.phantom.plate import LocateSettings, Location, NotLocatedError, PlateLayout

__all__ = ["FoundVials", "locate_vials", "vial_layout"]

Array = NDArray[np.float64]

#: Echo-planar images are stretched along one axis, by up to a tenth, and bent a little.
_SETTINGS = LocateSettings(
    scale_tolerance=0.12,
    maximum_anisotropy=1.14,
    maximum_residual_mm=2.0,
    maximum_distance_mm=4.0,
    local_offset_mm=2.5,
    minimum_flatness=0.5,
)
#: Slices of a stack that are searched; vials are long, so that neighbours show the same.
_MOST_SLICES = 7
_ANGLES = 60
_RADIUS_STEP_MM = 0.25
#: The edge is where the radial gradient first reaches this share of its largest mean.
_EDGE = 0.6
#: Both edges of a thin wall merge, and their gradients lean towards the middle: an edge may seem to
#: lie this much further in.
_BLUR_MM = 1.5
#: Parts into which the range of radii is cut; a wide ring of edges is blind to faint vials.
_PARTS = 3


@dataclass(frozen=True, slots=True)
class FoundVials:
    """Located vials.

    Attributes
    ----------
    location : Location
    radius_mm : float
        Inner radius; measured where ``range_mm`` is given.
    range_mm : (float, float) or None
        Radii that were allowed.
    slices : tuple of int
        Slices that were searched and show the vials.
    """

    location: Location
    radius_mm: float
    range_mm: tuple[float, float] | None
    slices: tuple[int, ...]


def vial_layout(plate: Plate, inner_diameter_mm: float, outer_diameter_mm: float) -> PlateLayout:
    """Return the layout of a plate with vials of one width."""
    return PlateLayout(
        name=plate.name,
        noun=plate.noun,
        sphere_ids=tuple(int(s) if s.isdigit() else i + 1 for i, s in enumerate(plate.sphere_ids)),
        positions_mm=plate.plane_positions_mm,
        inner_diameter_mm=np.array(inner_diameter_mm),
        outer_diameter_mm=np.array(outer_diameter_mm),
    )


def locate_vials(
    images: NDArray[np.floating], spacing_mm: Sequence[float], plate: Plate, *, where: str = ""
) -> FoundVials:
    """Find the vials of a plate in a stack of slices that cut them across.

    Parameters
    ----------
    images : ndarray, shape (n_images, n_slices, n_rows, n_columns)
        Images that differ in contrast only; a few with little noise are better than many.
    spacing_mm : (slice, row, column)
    plate : Plate
        With an inner diameter, or the range in which it lies.
    where : str
        Name of the series for messages.

    Raises
    ------
    NotLocatedError
        If the vials are not seen in any slice, or their width cannot be told.
    InputError
        If the array is not usable or the plate has no width at all.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise InputError("images of this shape cannot be searched", where=where, found=f"{images.shape}")
    spacing = check_spacing(spacing_mm, 3, where)[1:]
    allowed, inner, outer = _widths(plate, where)
    layout, found = _best_width(images, spacing, _layouts(plate, inner, outer), where)
    middle = _middle(tuple(found), images, spacing, layout, found, where)
    if allowed is None:
        return FoundVials(found[middle], inner / 2, None, tuple(sorted(found)))
    radius = _measure_radius(images[:, middle], spacing, found[middle], allowed, where)
    location = _again(images, spacing, plate, radius, middle, where) or found[middle]
    return FoundVials(location, radius, allowed, tuple(sorted(found)))


def _widths(plate: Plate, where: str) -> tuple[tuple[float, float] | None, float, float]:
    """Return allowed radii where the radius is to be measured, and the diameters to begin with."""
    if plate.inner_diameter_range_mm is not None:
        low, high = plate.inner_diameter_range_mm
        return (low / 2, high / 2), low, high
    if plate.inner_diameter_mm is None:
        raise InputError(
            "the definition gives neither the width of the vials nor its range",
            where=where or plate.name,
            todo="add inner_diameter_range_mm to the definition",
        )
    return None, plate.inner_diameter_mm, plate.outer_diameter_mm or plate.inner_diameter_mm


def _layouts(plate: Plate, inner: float, outer: float) -> list[PlateLayout]:
    """Return layouts for parts of the range, which overlap by a third."""
    if plate.inner_diameter_mm is not None:
        return [vial_layout(plate, inner, outer)]
    width = (outer - inner) / (_PARTS - (_PARTS - 1) / 3)
    starts = inner + 2 / 3 * width * np.arange(_PARTS)
    return [vial_layout(plate, float(start), float(start + width)) for start in starts]


def _best_width(
    images: NDArray[np.floating], spacing: tuple[float, ...], layouts: Sequence[PlateLayout], where: str
) -> tuple[PlateLayout, dict[int, Location]]:
    """Return the layout that gathers most evidence in the first slice that shows it, and where it is.

    Raises
    ------
    NotLocatedError
        If none was found; the error is that of the attempt that came nearest.
    """
    chosen = _slices(images.shape[1])
    refused: list[NotLocatedError] = []
    for index in sorted(chosen, key=lambda k: abs(k - (images.shape[1] - 1) / 2)):
        offers: list[tuple[Location, PlateLayout]] = []
        for layout in layouts:
            try:
                offers.append((_in_one(images, spacing, layout, index, where), layout))
            except NotLocatedError as error:
                refused.append(error)
        if offers:
            best, layout = max(offers, key=lambda offer: offer[0].score)
            rest = [k for k in chosen if k != index]
            return layout, {index: best, **_in_slices(images, spacing, layout, rest, where)}
    raise _refusal(refused, images.shape[1], where)


def _slices(count: int) -> list[int]:
    chosen = np.linspace(0, count - 1, min(count, _MOST_SLICES)).round().astype(int)
    return sorted({int(index) for index in chosen})


def _in_slices(
    images: NDArray[np.floating],
    spacing: tuple[float, ...],
    layout: PlateLayout,
    indices: Sequence[int],
    where: str,
) -> dict[int, Location]:
    """Search further slices, of which some may lie beyond the vials."""
    found: dict[int, Location] = {}
    for index in indices:
        try:
            found[index] = _in_one(images, spacing, layout, index, where)
        except NotLocatedError:
            continue
    return found


def _in_one(
    images: NDArray[np.floating], spacing: tuple[float, ...], layout: PlateLayout, index: int, where: str
) -> Location:
    name = f"{where} slice {index + 1}".strip() if images.shape[1] > 1 else where
    return locate_plate(images[:, index], spacing, layout, settings=_SETTINGS, slice_index=index, where=name)


def _middle(
    indices: tuple[int, ...],
    images: NDArray[np.floating],
    spacing: tuple[float, ...],
    layout: PlateLayout,
    found: dict[int, Location],
    where: str,
) -> int:
    """Return the slice in the middle of those that show the vials, searched where it was not yet."""
    middle = (min(indices) + max(indices)) // 2
    if middle not in found:
        try:
            found[middle] = _in_one(images, spacing, layout, middle, where)
        except NotLocatedError:
            middle = min(indices, key=lambda index: abs(index - middle))
    return middle


def _refusal(refused: Sequence[NotLocatedError], count: int, where: str) -> NotLocatedError:
    """Return the error of the slice that came nearest; say that slices must cut the vials across."""
    best = max(refused, key=lambda e: -1 if e.diagnostics is None else int(e.diagnostics.seen.sum()))
    if count == 1 or best.diagnostics is None:
        return best
    return NotLocatedError(
        best.what,
        diagnostics=best.diagnostics,
        where=best.where or where,
        found=best.found,
        expected=best.expected,
        todo="check that the slices cut the vials across, and that the phantom is the right one",
    )


def _measure_radius(
    images: NDArray[np.floating],
    spacing: tuple[float, ...],
    location: Location,
    allowed: tuple[float, float],
    where: str,
) -> float:
    """Measure the radius of the innermost edge that all vials share."""
    stack = prepare_images(images, 3, _SETTINGS.maximum_images, where)
    (evidence,) = compute_evidence(
        stack, spacing, (allowed,), step_mm=_SETTINGS.step_mm, smoothing_mm=_SETTINGS.smoothing_mm
    )
    centres = location.candidates[0].voxels[:, 1:] * np.array(spacing)
    low, high = allowed[0] - _BLUR_MM, allowed[1] + _BLUR_MM
    radii = np.arange(0.6 * low, high + 2.0, _RADIUS_STEP_MM)
    profile = np.median(_radial_energy(evidence, centres, radii), axis=0)
    within = (radii >= low) & (radii <= high)
    peaks = [
        k
        for k in range(1, radii.size - 1)
        if within[k]
        and profile[k] >= profile[k - 1]
        and profile[k] > profile[k + 1]
        and profile[k] >= _EDGE * profile[within].max()
    ]
    if not peaks:
        raise NotLocatedError(
            "the width of the vials cannot be told from the image",
            diagnostics=location.diagnostics,
            where=where,
            expected=f"an edge between {allowed[0]:g} and {allowed[1]:g} mm from the centres",
            todo="check the pixel spacing, or give inner_diameter_mm in the definition",
        )
    return float(radii[peaks[0]]) / location.candidates[0].scale


def _radial_energy(evidence: EvidenceMap, centres_mm: Array, radii_mm: Array) -> Array:
    """Mean radial part of the structure tensor on circles, shape (n_vials, n_radii)."""
    from scipy import ndimage

    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    unit = np.stack([np.sin(angle), np.cos(angle)])
    place = (centres_mm[:, :, None, None] + radii_mm[:, None] * unit[:, None]) / evidence.step_mm
    total: Array = np.zeros((len(centres_mm), radii_mm.size, _ANGLES))
    for (i, j), part in evidence.tensor.items():
        sampled = ndimage.map_coordinates(part, place.swapaxes(0, 1), order=1, mode="nearest")
        total = total + sampled * unit[i] * unit[j] * (1 if i == j else 2)
    return np.asarray(total.mean(axis=2))


def _again(
    images: NDArray[np.floating],
    spacing: tuple[float, ...],
    plate: Plate,
    radius_mm: float,
    index: int,
    where: str,
) -> Location | None:
    """Search once more with the radius that was measured; None where that finds less."""
    layout = vial_layout(plate, 2 * radius_mm, 2 * radius_mm)
    try:
        return _in_one(images, spacing, layout, index, where)
    except NotLocatedError:
        return None
