"""Find plates in stacks of slices and in volumes.

A stack of thick or distant slices is searched slice by slice, and the clearest slice of each plate is
kept.  A volume of thin contiguous slices is searched in space: the evidence is that of whole spheres, three
peaks propose a plane, and the plate may lie across any axis, tilted by any angle.  Nothing is reformatted;
the centres are voxels of the volume itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.phantom.evidence import Peaks
from cordqa.phantom.locate import (
    Frame,
    check_diagnostics,
    check_field_of_view,
    check_spacing,
    diagnose,
    gather_evidence,
    locate_plate,
    make_location,
    prepare_images,
    search,
)
from cordqa.phantom.plate import LocateSettings, Location, NotLocatedError, PlateLayout
from cordqa.phantom.pose import Match

__all__ = ["VolumeLocation", "locate_in_volume"]

Array = NDArray[np.float64]

#: Slices farther apart than this do not sample a sphere of 15 mm well enough to search in space.
_THIN_MM = 4.0
#: A slab up to this thick is searched slice by slice too, if no whole sphere is found in it.
_THIN_SLAB_MM = 80.0
#: Slices of one stack nearer than this, with the plate at the same place, show the same plate.
_SAME_PLATE_MM = 15.0
_SAME_PLACE_MM = 6.0
#: Peaks this near to a sphere's centre are its own.
_OWN_PEAK_MM = 5.0
#: Share of a plate's spheres below which a leftover arrangement is not worth a message.
_NEARLY = 0.7


@dataclass(frozen=True)
class VolumeLocation:
    """Plates found in a stack or a volume.

    Attributes
    ----------
    plates : tuple of Location
        Ordered along the stack (or along the axis that the plates lie across).
    refused : tuple of NotLocatedError
        Plates that are nearly there: most spheres were seen, and the error says what is wrong.
    """

    plates: tuple[Location, ...]
    refused: tuple[NotLocatedError, ...] = ()


def locate_in_volume(
    images: ArrayLike,
    spacing_mm: Sequence[float],
    layout: PlateLayout,
    *,
    at_most: int = 3,
    settings: LocateSettings | None = None,
    where: str = "",
) -> VolumeLocation:
    """Find the plates of one layout in a stack of slices or a volume.

    Parameters
    ----------
    images : array_like, shape (n_images, n_slices, n_rows, n_columns)
        Images that differ in contrast only; NaN allowed.
    spacing_mm : (slice, row, column)
        Distance between slice centres, rows and columns.
    layout : PlateLayout
    at_most : int
        Plates to look for (the system phantom has three of one layout).
    settings : LocateSettings, optional
    where : str
        Name of the series for messages.

    Returns
    -------
    VolumeLocation
        At least one plate.

    Raises
    ------
    NotLocatedError
        If no plate was found; its text and diagnostics are those of the best attempt.
    InputError
        If the array or the spacing is not usable.
    """
    settings = settings or LocateSettings()
    stack = np.asarray(images)
    if stack.ndim != 4:
        raise InputError(
            "images of this shape cannot be searched",
            where=where,
            found=f"shape {stack.shape}",
            expected="(n_images, n_slices, n_rows, n_columns)",
        )
    n_slices = stack.shape[1]
    if n_slices == 1:
        spacing = check_spacing(spacing_mm[-2:], 2, where)
        return VolumeLocation((locate_plate(stack[:, 0], spacing, layout, settings=settings, where=where),))
    spacing = check_spacing(spacing_mm, 3, where)
    is_volume = spacing[0] <= _THIN_MM and n_slices * spacing[0] >= 2 * float(layout.outer_diameter_mm.max())
    if not is_volume:
        return _in_slices(stack, spacing, layout, at_most, settings, where)
    try:
        return _in_space(stack, spacing, layout, at_most, settings, where)
    except NotLocatedError as error:
        # A thin slab may hold the middle of the spheres but not the whole of them.
        if n_slices * spacing[0] > _THIN_SLAB_MM:
            raise
        try:
            return _in_slices(stack, spacing, layout, at_most, settings, where)
        except NotLocatedError:
            raise error from None


def _in_slices(
    stack: NDArray[np.generic],
    spacing: tuple[float, ...],
    layout: PlateLayout,
    at_most: int,
    settings: LocateSettings,
    where: str,
) -> VolumeLocation:
    """Search each slice; keep the best slice of each plate."""
    located: list[Location] = []
    refused: list[NotLocatedError] = []
    for index in range(stack.shape[1]):
        name = f"{where} slice {index + 1}".strip()
        try:
            found = locate_plate(
                stack[:, index], spacing[1:], layout, settings=settings, slice_index=index, where=name
            )
            located.append(found)
        except NotLocatedError as error:
            refused.append(error)
    located.sort(key=lambda location: -location.score * float(np.median(location.diagnostics.flatness)))
    plates: list[Location] = []
    for location in located:
        if len(plates) < at_most and not any(_same_plate(location, other, spacing) for other in plates):
            plates.append(location)
    if not plates:
        raise _best_refusal(refused, layout, f"any of the {stack.shape[1]} slices", where)
    return VolumeLocation(_in_order(plates), _near_misses(refused, plates, spacing))


def _same_plate(one: Location, other: Location, spacing: tuple[float, ...]) -> bool:
    offset = _middle_mm(one.candidates[0].voxels, spacing) - _middle_mm(other.candidates[0].voxels, spacing)
    return abs(offset[0]) < _SAME_PLATE_MM and float(np.hypot(*offset[1:])) < _SAME_PLACE_MM


def _middle_mm(voxels: Array, spacing: tuple[float, ...]) -> Array:
    return np.asarray(voxels.mean(axis=0) * np.array(spacing))


def _near_misses(
    refused: Sequence[NotLocatedError], plates: Sequence[Location], spacing: tuple[float, ...]
) -> tuple[NotLocatedError, ...]:
    """Keep refusals with most spheres in place that are not just the next slice of a found plate."""
    kept: list[NotLocatedError] = []
    for error in sorted(refused, key=_n_seen, reverse=True):
        if error.diagnostics is None or error.diagnostics.seen.mean() < _NEARLY:
            continue
        place = _middle_mm(error.diagnostics.voxels, spacing)
        known = [_middle_mm(p.candidates[0].voxels, spacing) for p in plates]
        known += [_middle_mm(e.diagnostics.voxels, spacing) for e in kept if e.diagnostics is not None]
        if all(abs(place[0] - other[0]) >= _SAME_PLATE_MM for other in known):
            kept.append(error)
    return tuple(kept)


def _n_seen(error: NotLocatedError) -> float:
    return -1.0 if error.diagnostics is None else float(error.diagnostics.seen.sum())


def _best_refusal(
    refused: Sequence[NotLocatedError], layout: PlateLayout, place: str, where: str
) -> NotLocatedError:
    """Return the error of the attempt that came nearest, or one that says where was searched."""
    best = max(refused, key=_n_seen)
    if best.diagnostics is not None and best.diagnostics.seen.mean() >= _NEARLY:
        return best
    return NotLocatedError(
        f"the plate was not found in {place}",
        diagnostics=best.diagnostics,
        where=where,
        found=f"at best {max(int(_n_seen(best)), 0)} spheres in place",
        expected=f"the {len(layout.sphere_ids)} spheres of {layout.name}",
        todo="check that the phantom is the right one and that the plate was scanned",
    )


def _in_order(plates: Sequence[Location]) -> tuple[Location, ...]:
    """Sort along the array axis that the plates lie across."""
    axis = int(np.argmax(np.abs(plates[0].candidates[0].normal)))
    return tuple(sorted(plates, key=lambda p: float(p.candidates[0].voxels[:, axis].mean())))


def _in_space(
    stack: NDArray[np.generic],
    spacing: tuple[float, ...],
    layout: PlateLayout,
    at_most: int,
    settings: LocateSettings,
    where: str,
) -> VolumeLocation:
    """Search for whole spheres; take one plate after another out of the peaks."""
    prepared = prepare_images(stack, 4, settings.maximum_volume_images, where)
    check_field_of_view(prepared[0].shape, spacing, layout, where)
    evidence, peaks = gather_evidence(prepared, spacing, layout, settings)
    frame = Frame(spacing)
    plates: list[Location] = []
    refused: list[NotLocatedError] = []
    for _ in range(2 * at_most):
        match = search(layout, evidence, peaks, settings)
        if match is None or len(plates) == at_most:
            break
        diagnostics = diagnose(match, layout, settings, frame, evidence, peaks)
        try:
            check_diagnostics(diagnostics, layout, settings, where=where)
            plates.append(make_location(match, layout, settings, frame, diagnostics))
        except NotLocatedError as error:
            refused.append(error)
            if error.diagnostics is None or error.diagnostics.seen.mean() < _NEARLY:
                break
        peaks = tuple(_without(p, match) for p in peaks)
    if not plates and not refused:
        refused.append(NotLocatedError("no two spheres at a distance that occurs in the plate"))
    if not plates:
        raise _best_refusal(refused, layout, "this volume", where)
    return VolumeLocation(_in_order(plates), _near_misses_in_space(refused))


def _near_misses_in_space(refused: Sequence[NotLocatedError]) -> tuple[NotLocatedError, ...]:
    return tuple(e for e in refused if e.diagnostics is not None and e.diagnostics.seen.mean() >= _NEARLY)


def _without(peaks: Peaks, match: Match) -> Peaks:
    """Remove the peaks of the spheres of a match."""
    used = match.found_mm[np.isfinite(match.found_mm).all(axis=1)]
    if not len(used) or not len(peaks.heights):
        return peaks
    distance = np.linalg.norm(peaks.positions_mm[:, None] - used[None], axis=2).min(axis=1)
    return Peaks(peaks.positions_mm[distance > _OWN_PEAK_MM], peaks.heights[distance > _OWN_PEAK_MM])
