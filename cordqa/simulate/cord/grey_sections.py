"""Seeded, labelled sections of the cord alone, in which grey matter is to be found.

The butterfly is drawn from strokes and ellipses whose places are given in half widths of the cord,
each side on its own.  Sizes are set so that grey matter fills 9 to 30 percent of the section, most
often about a sixth as in the neck.  No image of a person and no template goes into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cordqa.simulate.cord.shapes import (
    Array,
    Polar,
    capsule_distance,
    coverage,
    ellipse_distance,
    polar,
    smooth_field,
    star_distance,
    superellipse_radii,
    wobble,
)

__all__ = [
    "FINE_MM",
    "GREY_GRID_MM",
    "GREY_SIZE",
    "GreyGeometry",
    "GreySection",
    "draw_geometry",
    "draw_grey_section",
    "grey_sections",
]

#: Pixel size and side of the sections, which are those of the network.
GREY_GRID_MM, GREY_SIZE = 0.35, 48
#: Finer pixels on which sections are drawn.
_FINE = 2
#: Their size.
FINE_MM = GREY_GRID_MM / _FINE


@dataclass(frozen=True, slots=True, kw_only=True)
class GreySection:
    """One labelled section; axes (right, anterior).

    Attributes
    ----------
    image : ndarray, shape (GREY_SIZE, GREY_SIZE)
        Image in arbitrary units, interpolated to the grid; grey matter is brighter than white.
    mask : ndarray, same shape
        Cord as a segmentation would give it: about right, not exactly.
    cord, grey : ndarray, same shape
        True part of each pixel inside the cord, and inside grey matter.
    contrast_to_noise : float
        Difference of grey and white matter over the noise of a voxel.
    """

    image: Array
    mask: Array
    cord: Array
    grey: Array
    contrast_to_noise: float


@dataclass(frozen=True, slots=True)
class _Plane:
    """Points of the fine grid, in mm from the cord's centre."""

    x: Array
    y: Array


def grey_sections(seed: int, *, contrasts: int = 4) -> Iterator[GreySection]:
    """Yield labelled sections without end; the same seed gives the same sections.

    Parameters
    ----------
    seed : int
    contrasts : int
        Images made from one geometry.
    """
    rng = np.random.default_rng(seed)
    while True:
        geometry = draw_geometry(rng)
        for _ in range(contrasts):
            yield _show(geometry, rng)


def draw_grey_section(rng: np.random.Generator) -> GreySection:
    """Draw one geometry and one image of it."""
    return _show(draw_geometry(rng), rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyGeometry:
    """What lies where on the fine grid: parts of each pixel, and a mask that is about right."""

    sac: Array
    cord: Array
    grey: Array
    canal: Array
    mask: Array


def _plane(rng: np.random.Generator) -> _Plane:
    size = GREY_SIZE * _FINE
    line = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(FINE_MM)
    shift = rng.normal(0.0, 0.35, 2)
    x, y = np.meshgrid(line - np.float32(shift[0]), line - np.float32(shift[1]), indexing="ij")
    turn = rng.normal(0.0, np.deg2rad(5.0))
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return _Plane(c * x + s * y, c * y - s * x)


def draw_geometry(rng: np.random.Generator) -> GreyGeometry:
    """Draw cord, butterfly, sac and an imperfect mask."""
    plane = _plane(rng)
    half = (float(np.clip(rng.normal(6.1, 0.8), 3.8, 7.6)), float(np.clip(rng.normal(3.95, 0.5), 2.6, 5.2)))
    turn = np.arange(1024) * (2.0 * np.pi / 1024)
    fissure = np.exp(-0.5 * ((turn - np.pi / 2) / 0.12) ** 2)
    radii = superellipse_radii(*half, exponent=rng.uniform(1.85, 2.6)) * wobble(rng, 0.03)
    radii = radii * (1.0 - rng.uniform(0.0, 0.15) * fissure)
    where = polar(plane.x, plane.y)
    distance = star_distance(where, radii)
    bent = _Plane(
        plane.x + np.float32(rng.uniform(0.0, 0.3)) * _field(rng, knots=7),
        plane.y + np.float32(rng.uniform(0.0, 0.3)) * _field(rng, knots=7),
    )
    grey = coverage(np.maximum(_butterfly(bent, half, rng), distance + np.float32(0.15)), FINE_MM)
    spot = (float(rng.normal(0.0, 0.1)), half[1] * float(rng.uniform(0.0, 0.2)))
    canal = ellipse_distance(plane.x, plane.y, centre=spot, half=(float(rng.uniform(0.2, 0.5)), 0.25))
    sac = star_distance(where, radii + rng.uniform(0.2, 4.0) + rng.uniform(0.0, 1.5) * np.cos(turn) ** 2)
    return GreyGeometry(
        sac=coverage(sac, FINE_MM),
        cord=coverage(distance, FINE_MM),
        grey=grey,
        canal=coverage(canal, FINE_MM) * np.float32(rng.random() < 0.5),
        mask=_imperfect(where, radii, rng),
    )


def _imperfect(where: Polar, radii: np.ndarray, rng: np.random.Generator) -> Array:
    """Return a mask that is a little too tight or too wide, and not quite of the right shape."""
    shown = (radii - rng.uniform(-0.2, 0.45)) * wobble(rng, 0.03)
    return coverage(star_distance(where, shown), FINE_MM)


def _butterfly(plane: _Plane, half: tuple[float, float], rng: np.random.Generator) -> Array:
    """Signed distance to grey matter: two halves of the same kind, each a little different."""
    a, b = half
    kind = {
        "junction": (rng.uniform(0.22, 0.36), rng.uniform(-0.02, 0.20)),
        "ventral": (rng.uniform(0.24, 0.46), rng.uniform(0.32, 0.58)),
        "lateral": (rng.uniform(0.40, 0.62), rng.uniform(0.10, 0.45)),
        "middle": (rng.uniform(0.28, 0.44), rng.uniform(-0.36, -0.16)),
        "dorsal": (rng.uniform(0.38, 0.64), rng.uniform(-0.86, -0.52)),
    }
    thick = a * rng.uniform(0.58, 1.12)
    width = {
        "ventral": thick * rng.uniform(0.09, 0.17),
        "lateral": thick * rng.uniform(0.04, 0.11) * (rng.random() < 0.6),
        "neck": thick * rng.uniform(0.06, 0.11),
        "tip": thick * rng.uniform(0.035, 0.08),
        "bridge": thick * rng.uniform(0.02, 0.07),
    }
    parts = []
    bridge = b * (kind["junction"][1] + rng.uniform(-0.05, 0.1))
    for side in (-1.0, 1.0):
        at = {
            name: (
                side * a * (place[0] + float(rng.normal(0.0, 0.02))),
                b * (place[1] + float(rng.normal(0, 0.03))),
            )
            for name, place in kind.items()
        }
        size = {name: float(value * np.exp(rng.normal(0.0, 0.08))) for name, value in width.items()}
        parts += [
            _stroke(plane, (0.0, bridge), at["junction"], (size["bridge"], size["neck"])),
            _stroke(plane, at["junction"], at["ventral"], (size["ventral"], size["ventral"])),
            _stroke(plane, at["junction"], at["middle"], (1.2 * size["neck"], size["neck"])),
            _stroke(plane, at["middle"], at["dorsal"], (size["neck"], size["tip"])),
        ]
        if size["lateral"] > 0.0:
            parts.append(_stroke(plane, at["junction"], at["lateral"], (size["ventral"], size["lateral"])))
    return np.asarray(np.min(parts, axis=0))


def _stroke(
    plane: _Plane, start: tuple[float, float], end: tuple[float, float], widths: tuple[float, float]
) -> Array:
    """Signed distance to a stroke whose half width changes from its start to its end."""
    ax, ay = (np.float32(e - s) for s, e in zip(start, end, strict=True))
    length = max(float(ax * ax + ay * ay), 1e-6)
    along = ((plane.x - np.float32(start[0])) * ax + (plane.y - np.float32(start[1])) * ay) / np.float32(
        length
    )
    line = capsule_distance(plane.x, plane.y, start=start, end=end, radius=0.0)
    return np.asarray(line - np.float32(widths[0]) - np.clip(along, 0, 1) * np.float32(widths[1] - widths[0]))


def _show(geometry: GreyGeometry, rng: np.random.Generator) -> GreySection:
    """Give the tissues intensities, scan them, and interpolate to the grid."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    size = GREY_SIZE * _FINE
    contrast = float(np.exp(rng.uniform(np.log(0.05), np.log(0.45))))
    fluid = float(rng.uniform(1.15, 3.0) if rng.random() < 0.75 else rng.uniform(0.1, 0.9))
    image = np.full((size, size), np.float32(rng.uniform(0.0, 2.0)))
    image = image + np.float32(rng.uniform(0.0, 0.4)) * _field(rng, knots=5)
    image += geometry.sac * (np.float32(fluid) - image)
    white = np.float32(1.0) + np.float32(contrast * rng.uniform(0.0, 0.35)) * _field(rng, knots=3)
    image += geometry.cord * (white - image)
    image += geometry.grey * np.float32(contrast)
    image += geometry.canal * np.float32(rng.uniform(-0.3, 0.6) * contrast)
    image = image * np.exp(np.float32(rng.uniform(0.0, 0.12)) * _field(rng, knots=2))
    native = float(rng.uniform(0.3, 0.75)) if rng.random() < 0.8 else float(rng.uniform(0.75, 1.0))
    blur = np.hypot(0.42 * native, rng.uniform(0.0, 0.25)) / FINE_MM
    image = gaussian_filter(image, blur * rng.uniform(0.85, 1.15, 2), truncate=3.0)
    step = native / FINE_MM
    count = int(np.ceil(size / step)) + 3
    line = (np.arange(count, dtype=np.float32) - np.float32(rng.uniform(0, 1))) * np.float32(step)
    coarse = map_coordinates(image, np.meshgrid(line, line, indexing="ij"), order=1, mode="nearest")
    ratio = float(np.exp(rng.uniform(np.log(0.9), np.log(9.0))))
    noise = np.float32(contrast / ratio)
    coarse = np.abs(coarse + noise * rng.standard_normal(coarse.shape, dtype=np.float32))
    # Scanners often interpolate in k-space, which leaves smooth noise; so does resampling.
    out = (np.arange(GREY_SIZE, dtype=np.float32) + np.float32(0.5)) * _FINE - np.float32(0.5)
    back = (out - line[0]) / np.float32(step)
    order = 3 if rng.random() < 0.5 else 1
    shown = map_coordinates(coarse, np.meshgrid(back, back, indexing="ij"), order=order, mode="nearest")
    return GreySection(
        image=np.asarray(shown, dtype=np.float32),
        mask=_coarse(geometry.mask),
        cord=_coarse(geometry.cord),
        grey=_coarse(geometry.grey),
        contrast_to_noise=ratio,
    )


def _field(rng: np.random.Generator, *, knots: int) -> Array:
    """Return a smooth random field on the fine grid, drawn on a coarse one."""
    count = GREY_SIZE // 2
    place = (np.arange(GREY_SIZE * _FINE) + 0.5) * (count / (GREY_SIZE * _FINE)) - 0.5
    weights = np.maximum(1.0 - np.abs(np.clip(place, 0, count - 1)[:, None] - np.arange(count)), 0.0)
    spread = weights.astype(np.float32)
    return np.asarray(spread @ smooth_field(rng, count, knots=knots) @ spread.T)


def _coarse(values: Array) -> Array:
    """Average the fine grid to that of the section."""
    blocks = values.reshape(GREY_SIZE, _FINE, GREY_SIZE, _FINE)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)
