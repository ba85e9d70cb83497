"""Where a cross-section of an atlas lies in a slice, and what it shows at points of that slice.

Everything is measured in standard deviations of the cord along its own two axes; the edge of an ellipse
is at 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID", "REACH", "Pose", "find_pose", "interpolate_section", "section_axis", "section_points"]

Array = NDArray[np.float64]

#: Half-width of a section in standard deviations of the cord; the edge of an ellipse is at 2.
REACH = 3.4
GRID = 69
#: A cord turned further than this within its slice is rather an error of its mask.
MAX_ROTATION_DEG = 30.0
#: Fractions of a soft mask below this do not shape the cord.
_TRACE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a cross-section lies: centre (mm), unit vectors and widths (mm) along RL and AP."""

    centre: Array
    right: Array
    forward: Array
    width_right: float
    width_forward: float


def section_axis(count: int = GRID) -> Array:
    """Points of a section along one axis, in standard deviations of the cord."""
    return np.linspace(-REACH, REACH, count)


def find_pose(
    plane: NDArray[np.float64], spacing_mm: tuple[float, float, float], *, rotate: bool
) -> Pose | None:
    """Centre, axes and widths of a slice of a mask; None where it is too small to have them."""
    # Traces of probability far from the cord would weigh heavily in second moments.
    rows, columns = np.nonzero(plane >= _TRACE)
    w = plane[rows, columns].astype(float)
    if w.sum() < 3:
        return None
    x, y = rows * spacing_mm[0], columns * spacing_mm[1]
    centre = np.array([(w * x).sum(), (w * y).sum()]) / w.sum()
    offset = np.column_stack([x, y]) - centre
    moments = (offset * w[:, None]).T @ offset / w.sum()
    if np.any((w > 0) & (w < 1)):  # the voxel itself has blurred a soft mask
        moments -= np.diag([spacing_mm[0] ** 2, spacing_mm[1] ** 2]) / 12.0
    angle = _principal_angle(moments) if rotate else 0.0
    right = np.array([math.cos(angle), math.sin(angle)])
    forward = np.array([-right[1], right[0]])
    widths = right @ moments @ right, forward @ moments @ forward
    if not min(widths) > 0:
        return None
    return Pose(
        centre=centre,
        right=right,
        forward=forward,
        width_right=math.sqrt(widths[0]),
        width_forward=math.sqrt(widths[1]),
    )


def _principal_angle(moments: Array) -> float:
    """Angle of the long axis to the right-left axis; none where the cord is round or turned far."""
    difference, mixed = moments[0, 0] - moments[1, 1], 2.0 * moments[0, 1]
    if math.hypot(difference, mixed) < 0.1 * (moments[0, 0] + moments[1, 1]):
        return 0.0
    angle = 0.5 * math.atan2(mixed, difference)
    return angle if abs(math.degrees(angle)) <= MAX_ROTATION_DEG else 0.0


def section_points(
    pose: Pose,
    low: NDArray[np.intp],
    size: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
    count: int,
    share: Sequence[float],
) -> tuple[Array, Array]:
    """Points within voxels, in standard deviations of the cord along its own axes.

    ``share`` is the part of the voxel's width, along each axis, over which points are spread.
    """
    fine = (np.arange(count) + 0.5) / count - 0.5
    x = ((low[0] + np.arange(size[0]))[:, None] + fine * share[0]).ravel() * spacing_mm[0] - pose.centre[0]
    y = ((low[1] + np.arange(size[1]))[:, None] + fine * share[1]).ravel() * spacing_mm[1] - pose.centre[1]
    u = (x[:, None] * pose.right[0] + y[None, :] * pose.right[1]) / pose.width_right
    v = (x[:, None] * pose.forward[0] + y[None, :] * pose.forward[1]) / pose.width_forward
    return u, v


def interpolate_section(section: NDArray[np.float32], u: Array, v: Array) -> NDArray[np.float32]:
    """Interpolate a section at points; nothing beyond its edge."""
    count = section.shape[1]
    i, j = (u + REACH) * (count - 1) / (2 * REACH), (v + REACH) * (count - 1) / (2 * REACH)
    inside = (i >= 0) & (i < count - 1) & (j >= 0) & (j < count - 1)
    out = np.zeros((len(section), *u.shape), dtype=np.float32)
    a, b = i[inside].astype(np.intp), j[inside].astype(np.intp)
    fa, fb = (i[inside] - a).astype(np.float32), (j[inside] - b).astype(np.float32)
    flat = section.reshape(len(section), -1)
    at = a * count + b
    top = np.take(flat, at, axis=1) * (1 - fb) + np.take(flat, at + 1, axis=1) * fb
    bottom = np.take(flat, at + count, axis=1) * (1 - fb) + np.take(flat, at + count + 1, axis=1) * fb
    out[:, inside] = top * (1 - fa) + bottom * fa
    return out
