"""Lay an atlas into a cord mask: centre, principal axis and width of each slice, nothing else.

A *section* is a cross-section of the atlas on a grid measured in widths of the cord: its axes are
the principal axes of the cord, its unit the standard deviation of the cord along each of them.
Sections come from a template that the user has (PAM50) or from :mod:`cordqa.cord.atlas_shapes`.
To lay them into an image, every slice of the mask gives a centre, an axis and two widths; each
voxel takes the mean of the section over a grid of points within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage, AtlasLabels
from cordqa.cord.axes import Oriented, Pieces, check_same_grid, orient, orient_mask
from cordqa.cord.section_sampling import (
    GRID,
    Pose,
    find_pose,
    interpolate_section,
    section_axis,
    section_points,
)
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Notice, Severity, Volume

__all__ = [
    "AtlasSections",
    "lay_atlas",
    "section_at",
    "section_levels",
    "sections_from_arrays",
    "sections_from_template",
    "sections_to_arrays",
]

Array = NDArray[np.float64]

#: The level whose section stands in where no level is known.
TYPICAL_COORDINATE = 4.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasSections:
    """Cross-sections of an atlas along the cord.

    Attributes
    ----------
    labels : AtlasLabels
    coordinate : ndarray, shape (n_sections,)
        Level coordinate of each section, rising (see :mod:`cordqa.cord.levels`).
    fractions : ndarray, shape (n_sections, n_labels, n_right, n_anterior), float32
        Share of each label at points of the grid :func:`section_axis` in both directions.
    blur : ndarray, shape (n_sections, 2)
        Variance of the blur that sections already have along right and anterior, in squared
        standard deviations of the cord.
    """

    labels: AtlasLabels
    coordinate: Array
    fractions: NDArray[np.float32]
    blur: Array


def sections_from_template(
    cord: Volume,
    weights: Sequence[Volume],
    discs: Volume,
    labels: AtlasLabels,
    *,
    per_level: int = 2,
) -> AtlasSections:
    """Cut a template into sections, several per vertebral level.

    Parameters
    ----------
    cord : Volume
        Cord mask of the template.
    weights : sequence of Volume
        One per label, fractions from 0 to 1; each is asked for once, so that they may be read one by one.
    discs : Volume
        Labels of the discs, N above vertebra N; numbers above 24 (landmarks) are ignored.
    labels : AtlasLabels
        See :func:`cordqa.cord.atlas.parse_label_table`.
    per_level : int
        Sections per vertebra; each is the mean of the template over its share of the vertebra.

    Raises
    ------
    InputError, EmptyInputError
        If grids differ, a volume is missing, or fewer than two discs are labelled.
    """
    if len(weights) != len(labels.names):
        raise InputError(
            "a template needs one volume per label", found=f"{len(weights)}", expected=f"{len(labels.names)}"
        )
    if per_level < 1:
        raise InputError("at least one section per level is needed", found=str(per_level))
    check_same_grid(cord, discs, what="the volumes of the template")
    mask = orient_mask(cord, pieces="largest", what="cord mask of the template")
    coordinate = _template_coordinate(orient(discs, what="disc labels of the template"))
    filled = (mask.data > 0).any(axis=(0, 1)) & np.isfinite(coordinate)
    bins = np.floor(coordinate * per_level)
    wanted = np.unique(bins[filled])
    chosen = [np.flatnonzero(filled & (bins == number)) for number in wanted]
    fractions = np.zeros((len(chosen), len(weights), GRID, GRID), dtype=np.float32)
    poses = [[_template_pose(mask, int(z)) for z in slices] for slices in chosen]
    steps = [[_section_steps(pose, mask) for pose in group] for group in poses]
    box = _box(steps)
    steps = [[(right[:, box[0]], forward[:, box[1]]) for right, forward in group] for group in steps]
    for n, volume in enumerate(weights):
        check_same_grid(cord, volume, what="the volumes of the template")
        # Slices first: they are taken one by one, and a volume stored slice by slice is read once.
        data = orient(volume, what="atlas label of the template").data[box]
        filled_in = np.flatnonzero(data.any(axis=(0, 1)))
        planes = dict(zip(filled_in.tolist(), np.ascontiguousarray(data[:, :, filled_in].T), strict=True))
        for m, slices in enumerate(chosen):
            fractions[m, n] = _mean_section(planes, slices, steps[m])
    middle = np.array([coordinate[slices].mean() for slices in chosen])
    return AtlasSections(
        labels=labels,
        coordinate=middle,
        fractions=np.clip(fractions, 0.0, 1.0),
        blur=np.array([_template_blur(group, mask.spacing_mm) for group in poses]),
    )


def _template_blur(poses: list[Pose], spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Variance of a template voxel (h^2/12) and of linear interpolation between voxels (h^2/6)."""
    right = float(np.median([pose.width_right for pose in poses]))
    forward = float(np.median([pose.width_forward for pose in poses]))
    return 0.25 * (spacing_mm[0] / right) ** 2, 0.25 * (spacing_mm[1] / forward) ** 2


def _template_coordinate(discs: Oriented) -> Array:
    """Level coordinate of every slice of the template, from its own discs."""
    points = np.argwhere((discs.data > 0) & (discs.data <= 24))
    if len(points) < 2:
        raise EmptyInputError("the template needs at least two labelled discs", where=discs.source)
    numbers = np.array([float(discs.data[tuple(p)]) for p in points])
    order = np.argsort(points[:, 2])
    z, numbers = points[order, 2], numbers[order]
    out = np.interp(np.arange(discs.n_slices), z, numbers, left=math.nan, right=math.nan)
    return np.asarray(out, dtype=float)


def _template_pose(mask: Oriented, z: int) -> Pose:
    plane = mask.data[:, :, z]
    pose = find_pose(plane, mask.spacing_mm, rotate=False)
    if pose is None:
        raise InputError("the cord mask of the template is too thin", where=mask.source, found=f"slice {z}")
    return pose


def _section_steps(pose: Pose, mask: Oriented) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Interpolation from the voxels of a template slice to the grid of its section."""
    axis = section_axis()
    x = (pose.centre[0] + axis * pose.width_right) / mask.spacing_mm[0]
    y = (pose.centre[1] + axis * pose.width_forward) / mask.spacing_mm[1]
    return _linear(x, mask.data.shape[0]), _linear(y, mask.data.shape[1])


def _box(steps: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]) -> tuple[slice, slice]:
    """Voxels of the template that any section draws from: a small part of its field of view."""
    used = [np.any([pair[n].any(axis=0) for group in steps for pair in group], axis=0) for n in (0, 1)]
    first = [np.flatnonzero(u) for u in used]
    return slice(first[0][0], first[0][-1] + 1), slice(first[1][0], first[1][-1] + 1)


def _mean_section(
    planes: Mapping[int, NDArray[np.float32]],
    slices: NDArray[np.intp],
    steps: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> NDArray[np.float32]:
    """Average a label over slices, each on the grid of its own cord; planes are (anterior, right)."""
    total = np.zeros((GRID, GRID), dtype=np.float32)
    for z, (right, forward) in zip(slices, steps, strict=True):
        plane = planes.get(int(z))
        if plane is not None:
            total += right @ (plane.T @ forward.T)
    return np.asarray(total / len(slices), dtype=np.float32)


def _linear(position: Array, count: int) -> NDArray[np.float32]:
    weights = 1.0 - np.abs(position[:, None] - np.arange(count)[None, :])
    return np.clip(weights, 0.0, None).astype(np.float32)


def sections_to_arrays(sections: AtlasSections) -> dict[str, NDArray[np.generic]]:
    """Pack sections into arrays, with fractions in 255 steps, for a cache on the user's machine."""
    return {
        "coordinate": sections.coordinate,
        "blur": sections.blur,
        "fractions": np.round(sections.fractions * 255).astype(np.uint8),
    }


def sections_from_arrays(arrays: Mapping[str, NDArray[np.generic]], labels: AtlasLabels) -> AtlasSections:
    """Unpack what :func:`sections_to_arrays` made.

    Raises
    ------
    InputError
        If arrays are missing or do not fit the labels.
    """
    try:
        coordinate = np.asarray(arrays["coordinate"], dtype=float)
        fractions = np.asarray(arrays["fractions"], dtype=np.float32) / np.float32(255)
        blur = np.asarray(arrays["blur"], dtype=float)
    except KeyError as error:
        raise InputError("cached sections lack an array", found=str(error)) from error
    expected = (coordinate.size, len(labels.names))
    if fractions.ndim != 4 or fractions.shape[:2] != expected or blur.shape != (coordinate.size, 2):
        raise InputError("cached sections do not fit the labels", found=f"{fractions.shape}")
    return AtlasSections(labels=labels, coordinate=coordinate, fractions=fractions, blur=blur)


def lay_atlas(
    sections: AtlasSections,
    mask: Volume,
    *,
    coordinate: Array | None = None,
    supersampling: int = 4,
    rotate: bool = True,
    pieces: Pieces = "raise",
) -> tuple[AtlasImage, tuple[Notice, ...]]:
    """Lay sections into the slices of a cord mask.

    Parameters
    ----------
    sections : AtlasSections
    mask : Volume
        Binary or soft cord mask in any orientation.
    coordinate : ndarray, shape (n_slices,), optional
        Level coordinate of each slice, counted from inferior, as in
        :attr:`cordqa.cord.levels.LevelMap.coordinate`.  Without it every slice gets the section of a
        typical cervical level (C4), and a notice says so.  Slices with NaN get no atlas.
    supersampling : int
        Points per voxel and direction.
    rotate : bool
        Follow the principal axis of the cord within the slice (at most 30 degrees).

    Returns
    -------
    AtlasImage
        On the grid of the mask.
    tuple of Notice
        Slices left out, and why.

    Raises
    ------
    InputError, EmptyInputError
        If the mask cannot be a cord, or shapes do not match.
    """
    if not 1 <= supersampling <= 16:
        raise InputError("supersampling must be from 1 to 16", found=str(supersampling))
    oriented = orient_mask(mask, pieces=pieces)
    levels, notices = section_levels(coordinate, oriented, sections)
    filled = np.argwhere(oriented.data > 0)
    margin = np.array([*(math.ceil(6.0 / s) for s in oriented.spacing_mm[:2]), 0])
    low = np.maximum(filled.min(axis=0) - margin, 0)
    high = np.minimum(filled.max(axis=0) + margin + 1, oriented.data.shape)
    size = high - low
    weights = np.zeros((len(sections.labels.names), *size), dtype=np.float32)
    missing: list[int] = []
    for k in range(int(size[2])):
        z = int(low[2]) + k
        pose = find_pose(oriented.data[:, :, z], oriented.spacing_mm, rotate=rotate)
        if pose is None or math.isnan(levels[z]):
            missing.append(z)
            continue
        section, blur = section_at(sections, float(levels[z]))
        weights[:, :, :, k] = _sample(section, blur, pose, low, size, oriented.spacing_mm, supersampling)
    if missing:
        text = f"{len(missing)} slices hold no atlas: little or no cord, or a level beyond the atlas"
        notices.append(Notice(severity=Severity.INFO, message=text, code="atlas.slices-left-out"))
    image = AtlasImage(
        labels=sections.labels,
        weights=weights,
        corner=(int(low[0]), int(low[1]), int(low[2])),
        shape=(oriented.data.shape[0], oriented.data.shape[1], oriented.data.shape[2]),
        affine=oriented.affine,
    )
    return image, tuple(notices)


def section_levels(
    coordinate: Array | None, mask: Oriented, sections: AtlasSections
) -> tuple[Array, list[Notice]]:
    """Level coordinate of each slice; NaN beyond the ends of the atlas."""
    if coordinate is None:
        text = "no level is known: every slice gets the atlas of a typical cervical level (C4)"
        notice = Notice(severity=Severity.WARNING, message=text, code="atlas.no-level")
        return np.full(mask.n_slices, TYPICAL_COORDINATE), [notice]
    given = np.asarray(coordinate, dtype=float)
    if given.shape != (mask.n_slices,):
        raise InputError(
            "one level coordinate per slice is needed", found=f"{given.shape}", expected=f"{mask.n_slices}"
        )
    # A section stands for half the way to its neighbours, and for one level beyond the last.
    low, high = sections.coordinate[0] - 1.0, sections.coordinate[-1] + 1.0
    return np.where((given < low) | (given > high), math.nan, given), []


def section_at(sections: AtlasSections, coordinate: float) -> tuple[NDArray[np.float32], Array]:
    """Blend the two sections on either side of a level coordinate, and tell how blurred they are."""
    known = sections.coordinate
    place = float(np.interp(coordinate, known, np.arange(known.size)))
    below = min(int(place), max(known.size - 2, 0))
    share = np.float32(place - below)
    lower: NDArray[np.float32] = sections.fractions[below]
    if share == 0:
        return lower, sections.blur[below]
    upper: NDArray[np.float32] = sections.fractions[below + 1]
    blur = sections.blur[below] * (1 - share) + sections.blur[below + 1] * share
    return lower * (1 - share) + upper * share, blur


def _sample(
    section: NDArray[np.float32],
    blur: Array,
    pose: Pose,
    low: NDArray[np.intp],
    size: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
    count: int,
) -> NDArray[np.float32]:
    """Mean of the section over a grid of points in each voxel, shape (n_labels, n_right, n_anterior)."""
    # Template voxels and interpolation have already blurred the section; a voxel is averaged only over
    # what is left of its own width, or partial volume would be counted twice.
    share = [
        math.sqrt(max(1.0 - 12.0 * b * w**2 / h**2, 0.0))
        for b, w, h in zip(blur, (pose.width_right, pose.width_forward), spacing_mm, strict=False)
    ]
    u, v = section_points(pose, low, size, spacing_mm, count, share)
    values = interpolate_section(section, u, v)
    shape = (len(section), size[0], count, size[1], count)
    return np.asarray(values.reshape(shape).mean(axis=(2, 4)), dtype=np.float32)
