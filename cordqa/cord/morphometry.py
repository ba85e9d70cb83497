"""Size and shape of the cord, slice by slice: area, diameters, eccentricity, orientation, solidity.

A slice cuts a tilted cord obliquely.  Every shape is therefore measured in the plane
perpendicular to the centreline: lengths along the tilt shrink by the cosine of the angle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.axes import Oriented, Pieces, orient_mask
from cordqa.cord.centreline import Centreline, fit_oriented
from cordqa.cord.slice_rows import (
    PERPENDICULAR,
    SliceTable,
    resample_slices,
    slice_measurements,
    summarise_slices,
)
from cordqa.errors import InputError
from cordqa.records import Volume

__all__ = [
    "SHAPE_QUANTITIES",
    "SliceTable",
    "measure_morphometry",
    "measure_tissue_area",
    "resample_slices",
    "slice_measurements",
    "summarise_slices",
]

Array = NDArray[np.float64]
Outline = tuple[NDArray[np.bool_], Array, Array]

#: What :func:`measure_morphometry` gives for every slice.
SHAPE_QUANTITIES = (
    "CSA",
    "angle_AP",
    "angle_RL",
    "diameter_AP",
    "diameter_AP_ellipse",
    "diameter_RL",
    "eccentricity",
    "orientation",
    "solidity",
    "length",
)
#: Distance between the points at which a cross-section is outlined.
_FINE_MM = 0.1
WITHIN = "within the slice, no angle correction"
NO_MASK = "no mask in this slice"
NO_ANGLE = "a single slice gives no angle, so no perpendicular area"


def measure_morphometry(
    mask: Volume,
    *,
    angle_correction: bool = True,
    centreline: Centreline | None = None,
    smoothing: float = 30.0,
    pieces: Pieces = "raise",
) -> SliceTable:
    """Measure the cross-section of the cord in every slice of a mask.

    Parameters
    ----------
    mask : Volume
        Binary or soft cord mask (fractions from 0 to 1) in any orientation.
    angle_correction : bool
        Measure perpendicular to the centreline; otherwise within the slice as it is.
    centreline : Centreline, optional
        One fitted elsewhere on the same grid; by default fitted to this mask.
    smoothing : float
        See :func:`cordqa.cord.centreline.fit_centreline`.
    pieces : {'raise', 'largest', 'keep'}
        What to do with slices that hold several pieces.

    Returns
    -------
    SliceTable
        Area: sum of the mask times the voxel area times the cosine of the tilt.  Diameters: axes of
        the ellipse with the second moments of the half-height outline (``diameter_AP_ellipse``,
        ``diameter_RL``), and ``diameter_AP``, the length of the line through the centre of mass along
        the antero-posterior axis of that ellipse.  Slices in a gap of the mask are NaN with a reason.

    Raises
    ------
    EmptyInputError, InputError
        If the mask cannot be a cord.
    """
    oriented = orient_mask(mask, pieces=pieces)
    line = centreline or fit_oriented(oriented, smoothing=smoothing)
    slices = _common_slices(oriented, line)
    at = slices - line.slices[0]
    flat = not angle_correction
    slope_right = np.zeros(slices.size) if flat else line.slope_right[at]
    slope_anterior = np.zeros(slices.size) if flat else line.slope_anterior[at]
    cosine = 1.0 / np.sqrt(1.0 + slope_right**2 + slope_anterior**2)
    planes = [np.asarray(oriented.data[:, :, number], dtype=float) for number in slices]
    shapes = [
        _shape(plane, oriented.spacing_mm, float(right), float(anterior))
        for plane, right, anterior in zip(planes, slope_right, slope_anterior, strict=True)
    ]
    area = np.array([plane.sum() for plane in planes]) * oriented.spacing_mm[0] * oriented.spacing_mm[1]
    values = {name: np.array([shape[name] for shape in shapes]) for name in shapes[0]}
    # The area of an empty slice is not zero but unknown.
    values["CSA"] = np.where(area > 0, area * cosine, np.nan)
    values["angle_AP"] = np.zeros(slices.size) if flat else line.angle_ap_deg[at]
    values["angle_RL"] = np.zeros(slices.size) if flat else line.angle_rl_deg[at]
    values["length"] = oriented.spacing_mm[2] / cosine
    method = PERPENDICULAR if angle_correction else WITHIN
    values = {name: values[name] for name in SHAPE_QUANTITIES}
    return _table(oriented, line, slices, values, method, "cord")


def measure_tissue_area(
    tissue: Volume,
    *,
    centreline: Centreline,
    quantity: str = "GM_area",
    region: str = "GM",
    angle_correction: bool = True,
) -> SliceTable:
    """Measure the area of a tissue mask (grey matter) perpendicular to the cord's centreline.

    Several pieces per slice are expected.  The mask must lie on the grid of the centreline.

    Raises
    ------
    EmptyInputError, InputError
        If the mask is empty, not 0 to 1, or not on the grid of the centreline.
    """
    oriented = orient_mask(tissue, pieces="keep", what=f"{region} mask")
    slices = _common_slices(oriented, centreline)
    cosine = centreline.cosine[slices - centreline.slices[0]] if angle_correction else np.ones(slices.size)
    area = oriented.data.sum(axis=(0, 1))[slices] * oriented.spacing_mm[0] * oriented.spacing_mm[1]
    values = {quantity: np.where(area > 0, area * cosine, np.nan)}
    method = PERPENDICULAR if angle_correction else WITHIN
    return _table(oriented, centreline, slices, values, method, region)


def _common_slices(oriented: Oriented, line: Centreline) -> NDArray[np.intp]:
    """Slices between the ends of the mask that the centreline covers."""
    if not np.allclose(oriented.affine, line.affine, atol=0.1):
        raise InputError("mask and centreline are not on one grid", where=oriented.source)
    filled = np.flatnonzero((oriented.data > 0).any(axis=(0, 1)))
    slices = np.arange(max(filled[0], line.slices[0]), min(filled[-1], line.slices[-1]) + 1)
    if slices.size == 0:
        raise InputError(
            "mask and centreline share no slice",
            where=oriented.source,
            found=f"slices {filled[0]} to {filled[-1]}",
            expected=f"some of {line.slices[0]} to {line.slices[-1]}",
        )
    return slices


def _table(
    oriented: Oriented,
    line: Centreline,
    slices: NDArray[np.intp],
    values: Mapping[str, Array],
    method: str,
    region: str,
) -> SliceTable:
    counts = (oriented.data > 0).sum(axis=(0, 1))[slices]
    main = next(iter(values)) if "CSA" not in values else "CSA"
    reasons = [
        "" if math.isfinite(values[main][i]) else (NO_MASK if count == 0 else NO_ANGLE)
        for i, count in enumerate(counts)
    ]
    return SliceTable(
        slices=slices,
        array_index=np.array([oriented.array_index(int(s)) for s in slices], dtype=np.intp),
        z_mm=line.arc_length_mm[slices - line.slices[0]],
        values=values,
        reasons=tuple(reasons),
        n_voxels=counts.astype(np.intp),
        centreline=line,
        region=region,
        method=method,
        notes=oriented.notes,
    )


def _shape(
    plane: Array, spacing_mm: tuple[float, float, float], slope_right: float, slope_anterior: float
) -> dict[str, float]:
    """Diameters, eccentricity, orientation and solidity of one cross-section."""
    names = ("diameter_AP", "diameter_AP_ellipse", "diameter_RL", "eccentricity", "orientation", "solidity")
    outline = _fine(plane, spacing_mm)
    if outline is None or not math.isfinite(slope_right + slope_anterior):
        return dict.fromkeys(names, math.nan)
    inside, x, y = outline
    rows, columns = np.nonzero(inside)
    points = np.column_stack([x[rows], y[columns]])
    centre = points.mean(axis=0)
    tilt = _into_perpendicular_plane(slope_right, slope_anterior)
    points = (points - centre) @ tilt.T
    variances, axes = np.linalg.eigh(points.T @ points / len(points))
    if not variances[0] > 0:
        return dict.fromkeys(names, math.nan)
    lengths = 4.0 * np.sqrt(variances)
    across = int(abs(axes[0, 1]) >= abs(axes[0, 0]))  # the axis that runs right-left
    right_left = axes[:, across] * math.copysign(1.0, axes[0, across])
    forward = axes[:, 1 - across] * math.copysign(1.0, axes[1, 1 - across])
    return {
        "diameter_AP": _chord(outline, centre, np.linalg.solve(tilt, forward).astype(float)),
        "diameter_AP_ellipse": float(lengths[1 - across]),
        "diameter_RL": float(lengths[across]),
        "eccentricity": float(math.sqrt(1.0 - variances[0] / variances[1])),
        "orientation": -math.degrees(math.atan2(right_left[1], right_left[0])),
        "solidity": _solidity(inside),
    }


def _fine(plane: Array, spacing_mm: tuple[float, float, float]) -> Outline | None:
    """Interpolate a slice linearly to a fine grid and cut it at half height."""
    filled = np.argwhere(plane > 0)
    if filled.size == 0:
        return None
    low, high = filled.min(axis=0), filled.max(axis=0)
    right, x = _hats(low[0], high[0], spacing_mm[0])
    anterior, y = _hats(low[1], high[1], spacing_mm[1])
    # Nothing beyond the mask weighs in, and the image around it may be large.
    inside = right @ plane[low[0] : high[0] + 1, low[1] : high[1] + 1] @ anterior.T > 0.5
    return (inside, x, y) if inside.any() else None


def _hats(low: int, high: int, spacing_mm: float) -> tuple[Array, Array]:
    """Weights of linear interpolation from the voxels of a mask to a fine line, and its positions in mm."""
    per_voxel = max(1, round(spacing_mm / _FINE_MM))
    position = low - 1 + (np.arange((high - low + 2) * per_voxel) + 0.5) / per_voxel
    weights = 1.0 - np.abs(position[:, None] - np.arange(low, high + 1)[None, :])
    return np.clip(weights, 0.0, None), position * spacing_mm


def _into_perpendicular_plane(slope_right: float, slope_anterior: float) -> Array:
    """Map offsets within the slice to (right-left, antero-posterior) perpendicular to the cord."""
    tangent = np.array([slope_right, slope_anterior, 1.0])
    tangent /= np.linalg.norm(tangent)
    right = np.array([1.0, 0.0, 0.0]) - tangent[0] * tangent
    right /= np.linalg.norm(right)
    forward = np.cross(tangent, right)
    # An offset d within the slice projects to d - (d.t)t; right and forward are normal to t.
    return np.array([right[:2], forward[:2]])


def _chord(outline: Outline, centre: Array, direction: Array) -> float:
    """Length of the line through the centre along a direction of unit length after projection."""
    inside, x, y = outline
    reach = float(np.hypot(x[-1] - x[0], y[-1] - y[0]))
    t = np.arange(-reach, reach, _FINE_MM / 4)
    i = np.floor((centre[0] + t * direction[0] - x[0]) / (x[1] - x[0]) + 0.5).astype(int)
    j = np.floor((centre[1] + t * direction[1] - y[0]) / (y[1] - y[0]) + 0.5).astype(int)
    valid = (i >= 0) & (i < x.size) & (j >= 0) & (j < y.size)
    return float(inside[i[valid], j[valid]].sum() * _FINE_MM / 4)


def _solidity(inside: NDArray[np.bool_]) -> float:
    """Area over the area of the convex hull, both on the fine grid; unchanged by tilt."""
    from scipy.spatial import ConvexHull

    filled = np.flatnonzero(inside.any(axis=1))
    first = inside.argmax(axis=1)[filled]
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)[filled]
    # Middles of the edges: corners would widen a staircase into a hull that no smooth outline has.
    corners = np.concatenate(
        [
            np.column_stack([filled + dx, ends + dy])
            for ends in (first, last)
            for dx, dy in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))
        ]
    )
    return float(min(1.0, inside.sum() / ConvexHull(corners).volume))
