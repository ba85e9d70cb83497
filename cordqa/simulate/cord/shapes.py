"""Closed shapes on a plane, as signed distances in millimetres.

A shape that can be seen whole from one point is held as a table of radii over the angle, which
makes cord, dural sac and bony canal three tables that share one polar coordinate system.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "N_ANGLES",
    "Array",
    "Polar",
    "angles",
    "capsule_distance",
    "coverage",
    "ellipse_distance",
    "offset_ellipse_radii",
    "polar",
    "smooth_field",
    "star_distance",
    "superellipse_radii",
    "wobble",
]

Array = NDArray[np.float32]

#: Radii are tabulated at this many angles, counter-clockwise from the subject's right-left axis.
N_ANGLES = 1024


def angles() -> NDArray[np.float64]:
    """Return the tabulated angles in radians, shape (N_ANGLES,)."""
    return np.asarray(np.arange(N_ANGLES) * (2.0 * np.pi / N_ANGLES), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Polar:
    """Polar coordinates of a grid: radius in mm and index into tables of radii."""

    radius: Array
    index: NDArray[np.int64]


def polar(x: Array, y: Array) -> Polar:
    """Return polar coordinates of points ``x``, ``y`` in mm around the origin."""
    turn = np.arctan2(y, x) * np.float32(N_ANGLES / (2.0 * np.pi))
    return Polar(np.hypot(x, y), np.rint(turn).astype(np.int64) % N_ANGLES)


def star_distance(where: Polar, radii: NDArray[np.float64]) -> Array:
    """Return the first-order signed distance (mm, negative inside) to a star-shaped outline."""
    slope = (np.roll(radii, -1) - np.roll(radii, 1)) * (N_ANGLES / (4.0 * np.pi))
    steepness = 1.0 / np.sqrt(1.0 + (slope / radii) ** 2)
    table = np.stack([radii, steepness]).astype(np.float32)
    return np.asarray((where.radius - table[0][where.index]) * table[1][where.index])


def superellipse_radii(half_x: float, half_y: float, *, exponent: float = 2.0) -> NDArray[np.float64]:
    """Return radii of a superellipse with half widths in mm; exponent 2 is an ellipse."""
    turn = angles()
    sides = np.abs(np.cos(turn) / half_x) ** exponent + np.abs(np.sin(turn) / half_y) ** exponent
    return np.asarray(sides ** (-1.0 / exponent))


def offset_ellipse_radii(half_x: float, half_y: float, *, centre: tuple[float, float]) -> NDArray[np.float64]:
    """Return radii, seen from the origin, of an ellipse around ``centre`` that contains the origin."""
    turn = angles()
    ux, uy = np.cos(turn) / half_x, np.sin(turn) / half_y
    cx, cy = centre[0] / half_x, centre[1] / half_y
    a, b, c = ux**2 + uy**2, ux * cx + uy * cy, cx**2 + cy**2 - 1.0
    return np.asarray((b + np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a)


def wobble(rng: np.random.Generator, amplitude: float, *, orders: int = 6) -> NDArray[np.float64]:
    """Return a smooth relative deformation of radii (mean one) with falling Fourier terms."""
    turn = angles()
    total = np.ones(N_ANGLES)
    for order in range(2, orders + 1):
        size = rng.normal(0.0, amplitude / order)
        total += size * np.cos(order * turn + rng.uniform(0.0, 2.0 * np.pi))
    return total


def ellipse_distance(
    x: Array, y: Array, *, centre: tuple[float, float], half: tuple[float, float], turn: float = 0.0
) -> Array:
    """Return the first-order signed distance (mm, negative inside) to a rotated ellipse."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (c * dx + s * dy) / np.float32(half[0])
    v = (c * dy - s * dx) / np.float32(half[1])
    level = np.sqrt(u * u + v * v) + np.float32(1e-6)
    gradient = np.sqrt((u / np.float32(half[0])) ** 2 + (v / np.float32(half[1])) ** 2) / level
    return np.asarray((level - 1.0) / np.maximum(gradient, np.float32(1e-3)))


def capsule_distance(
    x: Array, y: Array, *, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Array:
    """Return the signed distance (mm, negative inside) to a thick line with round ends."""
    ax, ay = np.float32(start[0]), np.float32(start[1])
    bx, by = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    along = ((x - ax) * bx + (y - ay) * by) / max(float(bx * bx + by * by), 1e-6)
    along = np.clip(along, 0.0, 1.0)
    return np.asarray(np.hypot(x - ax - along * bx, y - ay - along * by) - np.float32(radius))


def coverage(distance: Array, pixel_mm: float) -> Array:
    """Return which part of each pixel lies inside an outline, from the distance of its centre."""
    return np.asarray(np.clip(0.5 - distance / np.float32(pixel_mm), 0.0, 1.0), dtype=np.float32)


def smooth_field(rng: np.random.Generator, size: int, *, knots: int) -> Array:
    """Return a smooth random field, shape (size, size), standard deviation about one.

    ``knots`` random values per side are interpolated by cubic splines.
    """
    from scipy.ndimage import map_coordinates

    values = rng.standard_normal((knots + 3, knots + 3)).astype(np.float32)
    line = 1.0 + np.arange(size, dtype=np.float32) * (knots / size) + np.float32(rng.uniform(0, 1))
    rows, columns = np.meshgrid(line, line, indexing="ij")
    # Values serve as spline coefficients directly: no filtering is needed for a random field.
    field = map_coordinates(values, [rows, columns], order=3, prefilter=False, mode="nearest")
    return np.asarray(field * np.float32(2.2), dtype=np.float32)
