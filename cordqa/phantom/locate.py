"""Find a plate of spheres in the images of one slice.

No template image and no trust in the header's orientation: the layout of the spheres is the only thing
known.  Each point gets evidence of being the centre of a sphere (:mod:`cordqa.phantom.evidence`); pairs
of peaks propose poses, all spheres vote on each, and the best pose is moved onto the peaks
(:mod:`cordqa.phantom.pose`).  What looks the same after a rotation or a mirror of the layout cannot be
told apart by position; all such labellings are returned, and :mod:`cordqa.phantom.label` chooses among
them by what the spheres contain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.phantom.evidence import (
    EvidenceMap,
    Peaks,
    compute_evidence,
    core_flatness,
    find_peaks,
    has_contrast,
)
from cordqa.phantom.plate import (
    LocateDiagnostics,
    LocateSettings,
    Location,
    NotLocatedError,
    PlateLayout,
    PlatePose,
)
from cordqa.phantom.pose import Match, Pose, find_symmetries, hypotheses, polish, refine, score_hypotheses

__all__ = [
    "LocateDiagnostics",
    "LocateSettings",
    "Location",
    "NotLocatedError",
    "PlateLayout",
    "PlatePose",
    "locate_plate",
]

Array = NDArray[np.float64]

#: Poses that are refined; a plate that is there fills the first places of the ranking many times over.
_N_REFINED = 40
#: Below this share of spheres in place, the plate is not there at all.
_HARDLY_THERE = 0.6
#: By number of dimensions; bounds the working grid, whatever the header claims.
_LARGEST_FIELD_MM = {2: 2000.0, 3: 600.0}


def locate_plate(
    images: ArrayLike,
    spacing_mm: Sequence[float],
    layout: PlateLayout,
    *,
    settings: LocateSettings | None = None,
    slice_index: int = 0,
    where: str = "",
) -> Location:
    """Find a plate in one slice, at any rotation, mirrored or not, anywhere in the image.

    Parameters
    ----------
    images : array_like, shape (n_images, n_rows, n_columns)
        Images that differ in contrast only; real or complex, NaN allowed.  Polarity and scale are free.
    spacing_mm : (row, column)
        Distance between rows and between columns.
    layout : PlateLayout
    settings : LocateSettings, optional
    slice_index : int
        Copied into the result.
    where : str
        Name of the series for messages.

    Returns
    -------
    Location
        All labellings that positions cannot tell apart.

    Raises
    ------
    NotLocatedError
        If the images are empty, the plate is not there, a sphere is not seen, the slice misses the
        spheres' centres, or the fit is poor.
    InputError
        If the array or the spacing is not usable.
    """
    settings = settings or LocateSettings()
    stack = prepare_images(images, 3, settings.maximum_images, where)
    spacing = check_spacing(spacing_mm, 2, where)
    check_field_of_view(stack[0].shape, spacing, layout, where)
    evidence, peaks = gather_evidence(stack, spacing, layout, settings)
    match = search(layout, evidence, peaks, settings)
    if match is None:
        raise NotLocatedError(
            "the plate was not found in this slice",
            where=where,
            found="no two circles at a distance that occurs in it",
            expected=f"the {len(layout.sphere_ids)} {layout.noun}s of {layout.name}",
            todo="check that the slice cuts the plate and that the phantom is the right one",
        )
    frame = Frame(spacing, slice_index)
    diagnostics = diagnose(match, layout, settings, frame, evidence, peaks)
    check_diagnostics(diagnostics, layout, settings, where=where)
    return make_location(match, layout, settings, frame, diagnostics)


@dataclass(frozen=True, slots=True)
class Frame:
    """How millimetres along the searched axes become (slice, row, column)."""

    spacing_mm: tuple[float, ...]
    slice_index: int = 0

    def voxels(self, points_mm: Array) -> Array:
        """Convert points, shape (n, 2 or 3)."""
        index = points_mm / np.array(self.spacing_mm)
        if len(self.spacing_mm) == 2:
            index = np.column_stack([np.full(len(index), float(self.slice_index)), index])
        return np.asarray(index)


def prepare_images(images: ArrayLike, n_dims: int, at_most: int, where: str) -> list[NDArray[np.generic]]:
    """Check the array, thin it out, split complex images, and drop images that show nothing."""
    stack = np.asarray(images)
    if not (np.issubdtype(stack.dtype, np.number) or stack.dtype == np.bool_):
        raise InputError("images must hold numbers", where=where, found=str(stack.dtype))
    if stack.ndim != n_dims or 0 in stack.shape or min(stack.shape[-2:]) < 8:
        raise InputError(
            "images of this shape cannot be searched",
            where=where,
            found=f"shape {stack.shape}",
            expected=f"{n_dims} axes, images first, at least 8 x 8 pixels",
        )
    chosen = np.unique(np.linspace(0, len(stack) - 1, min(len(stack), at_most)).round().astype(int))
    parts = [part for k in chosen for part in _parts(stack[k])]
    kept = [part for part in parts if has_contrast(part)]
    if not kept:
        raise NotLocatedError(
            "the images show nothing",
            where=where,
            found="one value everywhere" if np.isfinite(stack[chosen]).any() else "no finite value",
            expected="a plate with spheres",
            todo="check the series and how it was exported",
        )
    return kept


def _parts(image: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return [image.real, image.imag] if np.iscomplexobj(image) else [image]


def check_spacing(spacing_mm: Sequence[float], n: int, where: str) -> tuple[float, ...]:
    """Refuse spacings that are not positive finite numbers or cannot be millimetres."""
    values = tuple(float(v) for v in spacing_mm)
    if len(values) != n or not all(math.isfinite(v) and 0.05 <= v <= 100 for v in values):
        raise InputError(
            "the voxel spacing is not usable",
            where=where,
            found=str(values),
            expected=f"{n} distances between 0.05 and 100 mm",
        )
    return values


def check_field_of_view(
    shape: Sequence[int], spacing_mm: Sequence[float], layout: PlateLayout, where: str
) -> None:
    """Refuse an image that cannot hold the plate, or that is absurdly large."""
    extent = [n * d for n, d in zip(shape, spacing_mm, strict=True)]
    found = " x ".join(f"{e:.0f}" for e in extent) + " mm"
    todo = "check the voxel spacing in the header"
    largest = _LARGEST_FIELD_MM[len(extent)]
    if max(extent) > largest:
        raise InputError(
            "the field of view is too large",
            where=where,
            found=found,
            expected=f"at most {largest:.0f} mm",
            todo=todo,
        )
    needed = 0.9 * layout.narrowest_mm
    # A plate needs two sides; in a volume it may stand on the third.
    if sorted(extent)[-2] < needed:
        raise NotLocatedError(
            "the field of view is smaller than the plate",
            where=where,
            found=found,
            expected=f"at least {needed:.0f} mm",
            todo=todo,
        )


def gather_evidence(
    stack: Sequence[NDArray[np.generic]],
    spacing: Sequence[float],
    layout: PlateLayout,
    settings: LocateSettings,
) -> tuple[tuple[EvidenceMap, ...], tuple[Peaks, ...]]:
    """Compute evidence maps for every sphere size, and their peaks."""
    in_volume = stack[0].ndim == 3
    evidence = compute_evidence(
        stack,
        spacing,
        layout.radii_mm,
        step_mm=settings.volume_step_mm if in_volume else settings.step_mm,
        smoothing_mm=settings.volume_smoothing_mm if in_volume else settings.smoothing_mm,
    )
    at_most = 600 if in_volume else 300
    peaks = tuple(find_peaks(e, minimum=0.1, separation_mm=3.0, at_most=at_most) for e in evidence)
    return evidence, peaks


def search(
    layout: PlateLayout,
    evidence: Sequence[EvidenceMap],
    peaks: Sequence[Peaks],
    settings: LocateSettings,
) -> Match | None:
    """Propose, score and refine poses; return the best one, if there is any."""
    positions, kinds = layout.positions_mm, layout.kinds
    at_most = 60 if evidence[0].values.ndim == 2 else 150
    strong = [_strongest(p, settings.minimum_evidence, at_most) for p in peaks]
    matrices, origins = hypotheses(positions, kinds, strong, scale_tolerance=settings.scale_tolerance)
    if not len(origins):
        return None
    scores = score_hypotheses(positions, kinds, evidence, (matrices, origins))
    order = np.argsort(-scores, kind="stable")[:_N_REFINED]
    matches = [refine(positions, kinds, peaks, Pose(matrices[k], origins[k])) for k in order]
    matches = [match for match in matches if _is_plausible(match.pose, settings)]
    if not matches:
        return None
    best = max(matches, key=lambda match: match.score)
    return polish(positions, kinds, layout.radii_mm, evidence, best)


def _strongest(peaks: Peaks, minimum: float, at_most: int) -> Peaks:
    n = min(int(np.count_nonzero(peaks.heights >= minimum)), at_most)
    return Peaks(peaks.positions_mm[:n], peaks.heights[:n])


def _is_plausible(pose: Pose, settings: LocateSettings) -> bool:
    largest, smallest = pose.stretches
    # A quarter more than for a single pair, since noise of one sphere moves a pair and not the plane.
    within = max(abs(largest - 1), abs(smallest - 1)) <= 1.25 * settings.scale_tolerance
    return bool(within and largest <= settings.maximum_anisotropy * smallest)


def diagnose(
    match: Match,
    layout: PlateLayout,
    settings: LocateSettings,
    frame: Frame,
    evidence: Sequence[EvidenceMap],
    peaks: Sequence[Peaks],
) -> LocateDiagnostics:
    """Describe a match for the decision, for messages and for pictures."""
    near = np.nan_to_num(match.distance_mm, nan=np.inf) <= settings.maximum_distance_mm
    largest, smallest = match.pose.stretches
    n = len(layout.sphere_ids)
    flatness = np.full(n, np.nan)
    if len(frame.spacing_mm) == 2:
        kinds, centres = layout.kinds, _final_centres(match, layout, settings.local_offset_mm)
        for kind, radii in enumerate(layout.radii_mm):
            flatness[kinds == kind] = core_flatness(evidence[kind], centres[kinds == kind], radii)
    return LocateDiagnostics(
        sphere_ids=layout.sphere_ids,
        voxels=frame.voxels(match.pose.apply(layout.positions_mm)),
        evidence=match.evidence,
        distance_mm=match.distance_mm,
        flatness=flatness,
        seen=near & (match.evidence >= settings.minimum_evidence),
        score=match.score,
        residual_mm=match.residual_mm,
        scale=math.sqrt(largest * smallest),
        anisotropy=float(largest / smallest),
        n_peaks=sum(len(p.heights) for p in peaks),
    )


def check_diagnostics(
    diagnostics: LocateDiagnostics, layout: PlateLayout, settings: LocateSettings, *, where: str = ""
) -> None:
    """Raise :class:`NotLocatedError` unless every sphere is seen where the pose puts it."""
    refusal = _refusal(diagnostics, layout, settings)
    if refusal is not None:
        what, found, expected, todo = refusal
        raise NotLocatedError(
            what, diagnostics=diagnostics, where=where, found=found, expected=expected, todo=todo
        )


def _refusal(
    diagnostics: LocateDiagnostics, layout: PlateLayout, settings: LocateSettings
) -> tuple[str, str, str, str] | None:
    """Return what is wrong, found, expected and what to do; None where nothing is."""
    n, n_seen = len(layout.sphere_ids), int(diagnostics.seen.sum())
    in_volume = bool(np.isnan(diagnostics.flatness).all())
    flatness = 1.0 if in_volume else float(np.nanmedian(diagnostics.flatness))
    if n_seen < _HARDLY_THERE * n:
        return (
            f"the plate was not found in this {'volume' if in_volume else 'slice'}",
            f"at best {n_seen} {layout.noun}s in place",
            f"the {n} {layout.noun}s of {layout.name}",
            "check that the slice cuts the plate and that the phantom is the right one",
        )
    if n_seen < n:
        return (
            f"{n - n_seen} of {n} {layout.noun}s of {layout.name} not seen: "
            f"{_name_missing(diagnostics, layout)}",
            f"{n_seen} {layout.noun}s",
            f"{n}",
            "check that the slice lies in the plate and that the whole plate is in the image",
        )
    if flatness < settings.minimum_flatness:
        return (
            f"the slice does not cut the {layout.noun}s of {layout.name} near their centres",
            f"flatness {flatness:.2f}",
            f"at least {settings.minimum_flatness}",
            "place the slice through the middle of the plate",
        )
    if diagnostics.residual_mm > settings.maximum_residual_mm or diagnostics.score < settings.minimum_score:
        return (
            f"the arrangement of the {layout.noun}s does not fit {layout.name} well enough",
            f"residual {diagnostics.residual_mm:.2f} mm, evidence {diagnostics.score:.2f}",
            f"at most {settings.maximum_residual_mm} mm, at least {settings.minimum_score}",
            "look at the picture; check the pixel spacing and image distortion",
        )
    return None


def _name_missing(diagnostics: LocateDiagnostics, layout: PlateLayout) -> str:
    """Name unseen spheres in every labelling, since positions cannot tell which one is right."""
    missing = np.flatnonzero(~diagnostics.seen)
    orders = [order for _, order in find_symmetries(layout.positions_mm, layout.kinds)]
    names = {tuple(sorted(layout.sphere_ids[order[j]] for j in missing)) for order in orders}
    return " or ".join(", ".join(str(i) for i in ids) for ids in sorted(names))


def make_location(
    match: Match,
    layout: PlateLayout,
    settings: LocateSettings,
    frame: Frame,
    diagnostics: LocateDiagnostics,
) -> Location:
    """Turn a match into all labellings that it allows."""
    centres = _final_centres(match, layout, settings.local_offset_mm)
    symmetries = find_symmetries(layout.positions_mm, layout.kinds)
    return Location(
        candidates=tuple(_candidate(match, centres[order], matrix, frame) for matrix, order in symmetries),
        orders=np.array([order for _, order in symmetries], dtype=np.intp),
        score=match.score,
        residual_mm=match.residual_mm,
        diagnostics=diagnostics,
    )


def _final_centres(match: Match, layout: PlateLayout, limit_mm: float) -> Array:
    """Let each centre follow its own sphere away from the pose, but not far."""
    fitted = match.pose.apply(layout.positions_mm)
    offset = np.nan_to_num(match.found_mm - fitted)
    length = np.linalg.norm(offset, axis=1, keepdims=True)
    return np.asarray(fitted + offset * np.minimum(1.0, limit_mm / np.maximum(length, 1e-9)))


def _candidate(match: Match, centres_mm: Array, symmetry: Array, frame: Frame) -> PlatePose:
    matrix = match.pose.matrix @ symmetry
    normal, rows, columns = _display_axes(matrix)
    # Displayed axes: columns run to the right, rows run down.
    shown = np.stack([matrix[columns], -matrix[rows]])
    voxels = frame.voxels(centres_mm)
    tilt = math.nan
    if len(frame.spacing_mm) == 3:
        tilt = math.degrees(math.acos(min(1.0, float(np.abs(normal).max()))))
    return PlatePose(
        voxels=voxels,
        residual_mm=match.residual_mm,
        scale=float(np.sqrt(np.prod(match.pose.stretches))),
        rotation_deg=math.degrees(math.atan2(shown[1, 0], shown[0, 0])),
        mirrored=bool(np.linalg.det(shown) < 0),
        slice_index=round(float(voxels[:, 0].mean())),
        normal=(float(normal[0]), float(normal[1]), float(normal[2])),
        tilt_deg=tilt,
    )


def _display_axes(matrix: Array) -> tuple[Array, int, int]:
    """Return the plate's normal, and the axes of ``matrix`` that are shown as rows and columns."""
    if len(matrix) == 2:
        return np.array([1.0, 0.0, 0.0]), 0, 1
    normal = np.cross(matrix[:, 0], matrix[:, 1])
    normal = normal / np.linalg.norm(normal)
    across = int(np.argmax(np.abs(normal)))
    rows, columns = (axis for axis in range(3) if axis != across)
    return normal * np.sign(normal[across]), rows, columns
