"""People of the simulated study: a cord of their own, with known areas, tissues and diffusivities.

Each cord is curved, tilted, wider in the cervical enlargement, with a butterfly of grey matter; around
it lie CSF, vertebrae, muscle, fat and the airway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.simulate.cord.shapes import (
    capsule_distance,
    coverage,
    ellipse_distance,
    polar,
    star_distance,
    superellipse_radii,
)

__all__ = [
    "FOV_MM",
    "LEVELS",
    "PROFILE",
    "CordPerson",
    "along_cord",
    "cord_centre",
    "draw_person",
    "draw_section",
    "level_borders",
    "true_areas",
    "true_grey_areas",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Vertebrae that are simulated, with the height of vertebra and disc in mm of an average person.
LEVELS = ("C2", "C3", "C4", "C5", "C6", "C7")
_HEIGHT_MM = (18.0, 16.5, 16.5, 16.5, 16.5, 17.5)
#: Area relative to the person's own, at the middle of each level: the cervical enlargement.
PROFILE = (0.98, 1.0, 1.05, 1.06, 1.0, 0.9)
#: Right-left over antero-posterior diameter.
_ASPECT = (1.45, 1.55, 1.68, 1.75, 1.72, 1.6)
#: Field of view below the top of C2 is longer than the levels, so that both ends are cut.
FOV_MM = (52.0, 64.0, 92.0)
#: Exponent of the outline: a little squarer than an ellipse.
_EXPONENT = 2.15
#: Pixel in which true areas are summed.
_AREA_PIXEL_MM = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CordPerson:
    """One person.

    Attributes
    ----------
    subject : str
    age : int
    sex : str
        ``F`` or ``M``.
    area_mm2 : float
        Cross-sectional area that the profile along the cord multiplies.
    stretch : float
        Heights of the vertebrae over those of an average person.
    curve_mm, tilt : (float, float)
        Sagitta of the cord's curve (right, anterior), and its slope at mid-height.
    grey_share : float
        Scale of the butterfly.
    mtsat : mapping
        Saturation per TR by tissue, as a fraction: WM, GM.
    t1_s : mapping
        T1 by tissue.
    diffusivity : mapping
        Diffusivity (um2/ms) along and across the cord by tissue.
    """

    subject: str
    age: int
    sex: str
    area_mm2: float
    stretch: float
    curve_mm: tuple[float, float]
    tilt: tuple[float, float]
    grey_share: float
    mtsat: Mapping[str, float]
    t1_s: Mapping[str, float]
    diffusivity: Mapping[str, tuple[float, float]]


def draw_person(rng: np.random.Generator, number: int) -> CordPerson:
    """Draw a person; women and men take turns."""
    sex = "FM"[number % 2]
    return CordPerson(
        subject=f"{number + 1:02d}",
        age=int(rng.integers(22, 60)),
        sex=sex,
        area_mm2=float(np.clip(rng.normal(72.0 if sex == "F" else 77.0, 6.0), 58.0, 92.0)),
        stretch=float(rng.uniform(0.94, 1.06)),
        curve_mm=(float(rng.normal(0.0, 0.5)), float(rng.uniform(1.0, 4.0))),
        tilt=(float(rng.normal(0.0, 0.02)), float(rng.uniform(-0.12, 0.15))),
        grey_share=float(rng.uniform(0.92, 1.08)),
        mtsat={"WM": float(rng.normal(0.0205, 0.0008)), "GM": float(rng.normal(0.0155, 0.0006))},
        t1_s={"WM": float(rng.normal(1.05, 0.03)), "GM": float(rng.normal(1.20, 0.03))},
        diffusivity={
            "WM": (float(rng.normal(1.85, 0.04)), float(rng.normal(0.38, 0.02))),
            "GM": (float(rng.normal(1.30, 0.04)), float(rng.normal(0.66, 0.02))),
        },
    )


def level_borders(person: CordPerson) -> Floats:
    """Height of the discs above C2, above C3, ... below C7 in mm; the middle of C4/C5 is zero."""
    down = np.concatenate([[0.0], np.cumsum(_HEIGHT_MM)]) * person.stretch
    return np.asarray(down[3] - down)


def along_cord(person: CordPerson, values: Sequence[float], height: Floats) -> Floats:
    """Interpolate a property given at the middles of the levels."""
    border = level_borders(person)
    middle = 0.5 * (border[1:] + border[:-1])
    return np.asarray(np.interp(height, middle[::-1], np.asarray(values)[::-1]), dtype=float)


def true_areas(person: CordPerson) -> dict[str, float]:
    """Mean area of each level, in mm2."""
    border = level_borders(person)
    return {
        name: float(
            person.area_mm2 * along_cord(person, PROFILE, np.linspace(border[n + 1], border[n], 101)).mean()
        )
        for n, name in enumerate(LEVELS)
    }


def cord_centre(person: CordPerson, height: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Place of the cord (right, anterior) at a height, and its slopes."""
    half = FOV_MM[2] / 2
    u = height / half
    right = person.curve_mm[0] * (1 - u**2) + person.tilt[0] * height
    front = person.curve_mm[1] * (1 - u**2) + person.tilt[1] * height
    slope_right = -2 * person.curve_mm[0] * u / half + person.tilt[0]
    slope_front = -2 * person.curve_mm[1] * u / half + person.tilt[1]
    return right, front, slope_right, slope_front


def true_grey_areas(person: CordPerson) -> dict[str, float]:
    """Mean area of grey matter of each level across the cord, in mm2."""
    line = np.arange(-80, 81, dtype=np.float32) * np.float32(_AREA_PIXEL_MM)
    x, y = np.meshgrid(line, line, indexing="ij")
    border = level_borders(person)
    found = {}
    for n, name in enumerate(LEVELS):
        areas = []
        for height in np.linspace(border[n + 1], border[n], 9):
            half = _half_widths(person, float(height))
            grey = coverage(_butterfly(x, y, *half, person.grey_share), _AREA_PIXEL_MM)
            edge = star_distance(polar(x, y), superellipse_radii(*half, exponent=_EXPONENT))
            areas.append(float(np.minimum(grey, coverage(edge, _AREA_PIXEL_MM)).sum()) * _AREA_PIXEL_MM**2)
        found[name] = sum(areas) / len(areas)
    return found


def _half_widths(person: CordPerson, height: float) -> tuple[float, float]:
    """Half of the widths of the cord from right to left and from front to back at a height."""
    place = np.array([height])
    area = person.area_mm2 * float(along_cord(person, PROFILE, place)[0])
    aspect = float(along_cord(person, _ASPECT, place)[0])
    half_y = math.sqrt(area / _unit_area() / aspect)
    return aspect * half_y, half_y


def _unit_area() -> float:
    """Area of the outline whose half widths are one."""
    radii = superellipse_radii(1.0, 1.0, exponent=_EXPONENT)
    return float(0.5 * (radii**2).mean() * 2 * math.pi)


def draw_section(person: CordPerson, height: float, x: Array, y: Array, pixel_mm: float) -> dict[str, Array]:
    """Part of each pixel that each tissue fills, in painting order, at one height; x and y in mm."""
    right, front, slope_right, slope_front = (float(v[0]) for v in cord_centre(person, np.array([height])))
    half_x, half_y = _half_widths(person, height)
    # The slice cuts the cord obliquely: seen along the cord, its section is shorter.
    u = (x - np.float32(right)) / np.float32(math.hypot(1.0, slope_right))
    v = (y - np.float32(front)) / np.float32(math.hypot(1.0, slope_front))
    border = level_borders(person)
    level = int(np.clip(np.searchsorted(-border, -height) - 1, 0, len(LEVELS) - 1))
    in_disc = bool(np.abs(border - height).min() < 2.7)
    sac = (half_x + 3.0, half_y + 2.6)
    front_of_sac = sac[1] + 1.2
    parts: dict[str, Array] = {"MUSCLE": np.ones_like(x)}

    def paint(name: str, distance: Array) -> None:
        parts[name] = coverage(distance, pixel_mm)

    paint("FAT", np.float32(22.0) + v)
    paint("AIR", ellipse_distance(u, v, centre=(1.0, front_of_sac + 24.0), half=(7.0, 5.0)))
    body = ellipse_distance(u, v, centre=(0.0, front_of_sac + 8.0), half=(11.0 + 0.4 * level, 7.5))
    paint("CORTEX", np.minimum(body - np.float32(1.0), _arch(u, v, sac) - np.float32(0.8)))
    paint("DISC" if in_disc else "BONE", body if in_disc else np.minimum(body, _arch(u, v, sac)))
    paint("CSF", ellipse_distance(u, v, centre=(0.0, 0.2), half=sac))
    inside = coverage(
        star_distance(polar(u, v), superellipse_radii(half_x, half_y, exponent=_EXPONENT)), pixel_mm
    )
    parts["WM"] = inside
    parts["GM"] = np.minimum(coverage(_butterfly(u, v, half_x, half_y, person.grey_share), pixel_mm), inside)
    return parts


def _arch(x: Array, y: Array, sac: tuple[float, float]) -> Array:
    """Distance to laminae and spinous process behind the canal."""
    side, back = sac[0] + 1.5, -sac[1] - 1.5
    parts = [
        capsule_distance(np.abs(x), y, start=(side, -1.0), end=(2.0, back - 3.0), radius=1.8),
        capsule_distance(x, y, start=(0.0, back - 4.0), end=(0.0, back - 14.0), radius=2.2),
        ellipse_distance(np.abs(x), y, centre=(side + 6.0, 1.0), half=(4.5, 5.0)),
    ]
    return np.asarray(np.minimum(np.minimum(parts[0], parts[1]), parts[2]))


def _butterfly(x: Array, y: Array, half_x: float, half_y: float, scale: float) -> Array:
    """Signed distance to the grey matter: horns and commissure."""
    side = np.abs(x)
    hub = (0.30 * half_x, 0.05 * half_y)
    ventral, dorsal = (0.38 * half_x, 0.42 * half_y), (0.46 * half_x, -0.60 * half_y)
    wide, thin = 0.135 * half_x * scale, 0.075 * half_x * scale
    parts = (
        capsule_distance(side, y, start=(0.0, hub[1]), end=hub, radius=0.8 * thin),
        capsule_distance(side, y, start=hub, end=ventral, radius=wide),
        capsule_distance(side, y, start=hub, end=dorsal, radius=thin),
    )
    return np.asarray(np.minimum(np.minimum(parts[0], parts[1]), parts[2]))
