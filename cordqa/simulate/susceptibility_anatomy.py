"""Shapes and tissues of the digital phantoms of susceptibility."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TISSUES", "Anatomy", "Tissue", "build_brain", "build_cord"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tissue:
    """Magnetic and relaxation properties: para- and diamagnetic susceptibility relative to CSF.

    ``texture`` is the relative scatter of the susceptibility within the tissue: nothing living
    is piecewise constant.
    """

    number: int
    chi_para_ppm: float
    chi_dia_ppm: float
    proton: float
    r2_per_s: float
    texture: float = 0.25


TISSUES: dict[str, Tissue] = {
    "air": Tissue(0, 9.4, 0.0, 0.0, 100.0, 0.0),
    "soft": Tissue(1, 0.0, 0.0, 0.5, 30.0, 0.0),
    "fat": Tissue(2, 0.65, 0.0, 0.8, 15.0, 0.0),
    "bone": Tissue(3, 0.0, -2.2, 0.05, 200.0, 0.0),
    "marrow": Tissue(4, 0.0, -1.0, 0.2, 60.0, 0.0),
    "disc": Tissue(5, 0.0, -0.1, 0.5, 15.0, 0.0),
    "csf": Tissue(6, 0.0, 0.0, 1.0, 3.0),
    "grey": Tissue(7, 0.035, -0.015, 0.82, 14.0),
    "white": Tissue(8, 0.012, -0.040, 0.70, 16.0),
    "nucleus": Tissue(9, 0.110, -0.020, 0.75, 17.0),
    "vein": Tissue(10, 0.300, 0.0, 0.7, 25.0),
    "lesion": Tissue(11, 0.060, -0.010, 0.8, 15.0),
    "calcification": Tissue(12, 0.0, -0.700, 0.4, 30.0),
}
#: Tissues outside the mask, whose field is background.
OUTSIDE = frozenset({"air", "soft", "fat", "bone", "marrow", "disc"})


@dataclass
class Anatomy:
    """Tissue numbers on a fine grid, and the region whose sources count as local.

    Attributes
    ----------
    label : ndarray of uint8
    local : ndarray of bool
    level : ndarray of float32
        Factor of the susceptibility of each voxel that varies between structures.
    """

    label: NDArray[np.uint8]
    local: Mask
    level: Single

    def paint(self, where: Mask, tissue: str, level: float = 1.0) -> None:
        """Set the tissue of a region."""
        self.label[where] = TISSUES[tissue].number
        self.level[where] = level


def _ellipsoid(grid: list[Array], centre: Array, radii: Array) -> Mask:
    inside: Mask = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1
    return inside


def _tube(grid: list[Array], start: Array, end: Array, radius: float) -> Mask:
    """Cylinder with round ends between two points."""
    axis = end - start
    length = max(float(axis @ axis), 1e-9)
    along = sum((g - s) * a for g, s, a in zip(grid, start, axis, strict=True)) / length
    along = np.clip(along, 0, 1)
    distance = sum((g - s - along * a) ** 2 for g, s, a in zip(grid, start, axis, strict=True))
    inside: Mask = distance < radius**2
    return inside


def build_brain(grid: list[Array], half_width_mm: float, rng: np.random.Generator) -> Anatomy:
    """Head of ellipsoids with folded cortex, deep nuclei, veins, ventricles and air cavities.

    Parameters
    ----------
    grid : list of ndarray
        Coordinates in mm along x (left-right), y and z (foot-head), each broadcastable.
    half_width_mm : float
        Half the width of the brain.
    rng : numpy.random.Generator
        Decides positions, sizes and susceptibilities.
    """
    shape = np.broadcast_shapes(*(g.shape for g in grid))
    anatomy = Anatomy(np.zeros(shape, np.uint8), np.zeros(shape, bool), np.ones(shape, np.float32))
    radii = half_width_mm * np.array([1.0, rng.uniform(1.05, 1.2), rng.uniform(0.85, 0.95)])
    origin = np.zeros(3)
    for scale, tissue in ((1.26, "fat"), (1.20, "soft"), (1.16, "bone"), (1.07, "soft")):
        anatomy.paint(_ellipsoid(grid, origin, radii * scale), tissue)
    _cavities(anatomy, grid, radii, rng)
    anatomy.local = _ellipsoid(grid, origin, radii)
    anatomy.paint(anatomy.local, "csf")
    radius = np.sqrt(sum((g / r) ** 2 for g, r in zip(grid, radii, strict=True)))
    folds = sum(
        np.sin(sum(k * g / half_width_mm for k, g in zip(rng.normal(0, 8, 3), grid, strict=True)) + phase)
        for phase in rng.uniform(0, 6.28, 5)
    )
    edge = 0.93 + 0.012 * folds
    anatomy.paint(radius < edge, "grey")
    anatomy.paint(radius < edge - rng.uniform(0.08, 0.12), "white")
    _deep(anatomy, grid, radii, rng)
    return anatomy


def _cavities(anatomy: Anatomy, grid: list[Array], radii: Array, rng: np.random.Generator) -> None:
    """Frontal sinus and two ear canals, just outside the brain."""
    for x, y, low, high in ((0.0, 0.75, 0.15, 0.25), (-0.75, 0.0, 0.08, 0.15), (0.75, 0.0, 0.08, 0.15)):
        size = rng.uniform(low, high)
        direction = np.array([x, y, -0.75]) + rng.uniform(-0.1, 0.1, 3)
        distance = rng.uniform(1.05, 1.10) + size
        centre = radii * direction / np.linalg.norm(direction) * distance
        anatomy.paint(_ellipsoid(grid, centre, radii * size), "air")


def _deep(anatomy: Anatomy, grid: list[Array], radii: Array, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        centre = np.array([side * 0.13, 0.0, 0.15]) * radii
        anatomy.paint(_ellipsoid(grid, centre, radii * np.array([0.08, 0.3, 0.12])), "csf")
        for x, y, z, size in (
            (0.32, 0.1, 0.02, 0.13),
            (0.2, 0.25, 0.1, 0.1),
            (0.22, -0.1, 0.0, 0.12),
            (0.12, -0.18, -0.2, 0.06),
            (0.1, -0.12, -0.25, 0.05),
        ):
            centre = (np.array([side * x, y, z]) + rng.uniform(-0.02, 0.02, 3)) * radii
            size_mm = radii * size * rng.uniform(0.8, 1.2, 3)
            anatomy.paint(_ellipsoid(grid, centre, size_mm), "nucleus", rng.uniform(0.4, 1.6))
    for _ in range(8):
        start = rng.uniform(-0.5, 0.5, 3) * radii
        end = start + rng.normal(0, 0.35, 3) * radii
        inside = _tube(grid, start, end, float(radii[0]) * rng.uniform(0.015, 0.035)) & anatomy.local
        anatomy.paint(inside, "vein", rng.uniform(0.6, 1.3))
    for tissue in ("lesion", "lesion", "calcification"):
        centre = rng.uniform(-0.45, 0.45, 3) * radii
        anatomy.paint(_ellipsoid(grid, centre, radii * rng.uniform(0.03, 0.07)), tissue)


def build_cord(grid: list[Array], canal_radius_mm: float, rng: np.random.Generator) -> Anatomy:
    """Curved cord in its canal with vertebrae, discs, laminae, muscle, trachea and lungs.

    Parameters
    ----------
    grid : list of ndarray
        Coordinates in mm along x (left-right), y (back-front) and z (foot-head).
    canal_radius_mm : float
    rng : numpy.random.Generator
    """
    shape = np.broadcast_shapes(*(g.shape for g in grid))
    anatomy = Anatomy(np.zeros(shape, np.uint8), np.zeros(shape, bool), np.ones(shape, np.float32))
    x, y, z = grid
    unit = canal_radius_mm
    tilt, bend = rng.uniform(-0.12, 0.12), rng.uniform(-0.3, 0.3) / (10 * unit)
    y = y - (tilt * z + bend * z**2)
    anatomy.paint((x / (6.0 * unit)) ** 2 + (y / (5.0 * unit)) ** 2 + 0 * z < 1, "soft")
    _spine(anatomy, [x, y, z], unit, rng)
    anatomy.paint((x / (1.15 * unit)) ** 2 + (y / unit) ** 2 + 0 * z < 1, "soft")
    anatomy.local = (x / unit) ** 2 + (y / (0.85 * unit)) ** 2 + 0 * z < 1
    anatomy.paint(anatomy.local, "csf")
    across, deep = unit * rng.uniform(0.62, 0.72), unit * rng.uniform(0.45, 0.52)
    inside = (x / across) ** 2 + (y / deep) ** 2 + 0 * z < 1
    anatomy.paint(inside, "white")
    horns = (np.abs(np.abs(x) - 0.32 * across) < 0.13 * across) & (np.abs(y) < 0.62 * deep)
    bridge = (np.abs(x) < 0.32 * across) & (np.abs(y) < 0.14 * deep)
    anatomy.paint(inside & (horns | bridge), "grey")
    _inclusions(anatomy, [x, y, z], inside, unit, rng)
    return anatomy


def _spine(anatomy: Anatomy, grid: list[Array], unit: float, rng: np.random.Generator) -> None:
    """Vertebrae and discs in front, a lamina behind each, trachea further in front, lungs below."""
    x, y, z = grid
    level, shift = unit * rng.uniform(1.6, 2.0), rng.uniform(0, 1)
    phase = np.mod(z / level + shift, 1)
    body = (x / (1.5 * unit)) ** 2 + ((y - 2.0 * unit) / (1.05 * unit)) ** 2 < 1
    anatomy.paint(body & (phase < 0.75), "marrow")
    anatomy.paint(body & (phase >= 0.75), "disc")
    anatomy.paint(body & (np.abs(phase - 0.75) < 0.06), "bone")
    ring = ((x / (1.35 * unit)) ** 2 + (y / (1.2 * unit)) ** 2 < 1) & (y < 0.3 * unit)
    anatomy.paint(ring & (phase < 0.6), "bone")
    trachea = (x / (0.7 * unit)) ** 2 + ((y - rng.uniform(3.9, 4.2) * unit) / (0.6 * unit)) ** 2
    anatomy.paint(trachea + 0 * z < 1, "air")
    bottom = float(z.min())
    for side in (-1, 1):
        lung = _ellipsoid(
            grid, np.array([side * 4.0 * unit, 1.5 * unit, bottom]), unit * np.array([1.7, 1.8, 2.5])
        )
        anatomy.paint(lung, "air")


def _inclusions(
    anatomy: Anatomy, grid: list[Array], inside: Mask, unit: float, rng: np.random.Generator
) -> None:
    x, y, z = grid
    vein = (x / (0.06 * unit)) ** 2 + ((y - 0.72 * unit) / (0.06 * unit)) ** 2 + 0 * z < 1
    anatomy.paint(vein, "vein", rng.uniform(0.4, 0.8))
    height = float(z.max() - z.min())
    for tissue in ("lesion", "lesion", "vein"):
        centre = np.array(
            [rng.uniform(-0.3, 0.3) * unit, rng.uniform(-0.2, 0.2) * unit, rng.uniform(-0.3, 0.3) * height]
        )
        radii = unit * rng.uniform(0.08, 0.2) * np.array([1, 1, 2.5])
        anatomy.paint(_ellipsoid(grid, centre, radii) & inside, tissue)
    for _ in range(3):
        centre = np.array([rng.choice([-1, 1]) * 0.85 * unit, 0.0, rng.uniform(-0.4, 0.4) * height])
        blob = _ellipsoid(grid, centre, unit * np.array([0.1, 0.2, 0.25]))
        anatomy.paint(blob & anatomy.local & ~inside, "nucleus", rng.uniform(0.5, math.pi / 2))
