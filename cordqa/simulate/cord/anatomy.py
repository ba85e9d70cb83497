"""Geometry of an axial section: which tissue lies where, drawn from seeded random numbers.

The model is analytical and uses no image of a person.  Sizes lie around published morphometry
(transverse diameter on average 13.3 mm at C5 and 8.3 mm at T8, sagittal 7.4 and 6.3 mm; Frostell
et al. 2016, doi 10.3389/fneur.2016.00238), with the weight on the cervical cord; shapes around
the cord only have to be varied enough that no single one of them can be relied upon.

Coordinates: x runs to the subject's right, y to anterior, in mm, with the cord at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from cordqa.simulate.cord.shapes import (
    Array,
    angles,
    capsule_distance,
    coverage,
    ellipse_distance,
    offset_ellipse_radii,
    polar,
    smooth_field,
    star_distance,
    superellipse_radii,
    wobble,
)

__all__ = ["Kind", "Scene", "Tissue", "draw_scene"]


class Tissue(IntEnum):
    """Tissues with an intensity of their own."""

    MUSCLE = 0
    FAT = 1
    AIR = 2
    MARROW = 3
    CORTICAL = 4
    DISC = 5
    EPIDURAL = 6
    DURA = 7
    CSF = 8
    ROOT = 9
    WHITE = 10
    GREY = 11
    VESSEL = 12
    LESION = 13


class Kind(IntEnum):
    """What a section shows; only ``CORD`` has cord in its label."""

    CORD = 0
    BRAINSTEM = 1
    CAUDA_EQUINA = 2
    ELSEWHERE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Layers painted one over the other, and the labels they imply.

    Attributes
    ----------
    layers : tuple of (Tissue, ndarray)
        Coverage 0..1 on the grid, in painting order; axes (right, anterior).
    cord, sac : ndarray
        Part of each pixel inside the cord, and inside the dural sac (cord included).
    kind : Kind
    pixel_mm : float
    """

    layers: tuple[tuple[Tissue, Array], ...]
    cord: Array
    sac: Array
    kind: Kind
    pixel_mm: float


class _Canvas:
    """Coordinates of one section and the layers painted so far."""

    def __init__(self, rng: np.random.Generator, size: int, pixel_mm: float) -> None:
        self.rng, self.size, self.pixel_mm = rng, size, pixel_mm
        self.layers: list[tuple[Tissue, Array]] = []
        spread = 16.0 if rng.random() < 0.2 else 7.0
        shift = rng.normal(0.0, spread, 2).clip(-0.6 * size * pixel_mm, 0.6 * size * pixel_mm)
        line = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(pixel_mm)
        x, y = np.meshgrid(line - np.float32(shift[0]), line - np.float32(shift[1]), indexing="ij")
        turn = rng.normal(0.0, np.deg2rad(7.0))
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        self.x, self.y = c * x + s * y, c * y - s * x
        # Surroundings are bent more than the cord: they share no outline with it.
        bend = np.float32(rng.uniform(0.0, 2.0))
        self.bx = self.x + bend * smooth_field(rng, size, knots=4)
        self.by = self.y + bend * smooth_field(rng, size, knots=4)

    def paint(self, tissue: Tissue, distance: Array) -> None:
        """Paint what lies inside an outline."""
        self.paint_part(tissue, coverage(distance, self.pixel_mm))

    def paint_part(self, tissue: Tissue, part: Array) -> None:
        """Paint a given coverage."""
        self.layers.append((tissue, part))

    def ellipse(
        self,
        tissue: Tissue,
        centre: tuple[float, float],
        half: tuple[float, float],
        *,
        rim_mm: float = 0.0,
    ) -> None:
        """Paint an ellipse in the bent surroundings, with a cortical rim if wanted."""
        turn = float(self.rng.normal(0.0, 0.15))
        distance = ellipse_distance(self.bx, self.by, centre=centre, half=half, turn=turn)
        if rim_mm > 0.0:
            self.paint(Tissue.CORTICAL, distance - np.float32(rim_mm))
        self.paint(tissue, distance)

    def scene(self, kind: Kind, cord: Array, sac: Array) -> Scene:
        """Close the canvas."""
        return Scene(layers=tuple(self.layers), cord=cord, sac=sac, kind=kind, pixel_mm=self.pixel_mm)


def draw_scene(
    rng: np.random.Generator,
    *,
    size: int,
    pixel_mm: float,
    kind: Kind = Kind.CORD,
    lookalikes: bool = True,
    room_mm: float = 2.2,
    bare: float = 0.0,
    wide: float = 0.0,
) -> Scene:
    """Draw the geometry of one section.

    Parameters
    ----------
    rng : numpy Generator
        Source of all randomness.
    size : int
        Pixels per side.
    pixel_mm : float
        Pixel size.
    kind : Kind
        What the section shows.
    lookalikes : bool
        Whether sections without a canal may hold ellipses of the size of a cord.
    room_mm : float
        Usual room for CSF in front of the cord and behind it.
    bare : float
        Share of sections whose canal is not surrounded by a spine, as at the foramen magnum or
        where nothing but the cord gives signal.
    wide : float
        Share of sections with a wide dural sac, as at the atlas.
    """
    canvas = _Canvas(rng, size, pixel_mm)
    _paint_soft_tissue(canvas)
    if kind is Kind.ELSEWHERE:
        _paint_clutter(canvas, int(rng.integers(4, 14)), lookalikes=lookalikes)
        nothing = np.zeros((size, size), dtype=np.float32)
        return canvas.scene(kind, nothing, nothing)
    if kind is Kind.BRAINSTEM:
        return _paint_brainstem(canvas)
    cord_radii = _cord_radii(rng, small=kind is Kind.CAUDA_EQUINA)
    sac_radii = _sac_radii(rng, cord_radii, room_mm, wide)
    if bare > 0.0 and rng.random() < bare:
        _paint_clutter(canvas, int(rng.integers(0, 8)), lookalikes=False)
    else:
        _paint_spine(canvas, sac_radii)
    where = polar(canvas.x, canvas.y)
    sac_distance = star_distance(where, sac_radii)
    if rng.random() < 0.8:
        canvas.paint(Tissue.DURA, sac_distance - np.float32(rng.uniform(0.2, 0.9)))
    canvas.paint(Tissue.CSF, sac_distance)
    sac = coverage(sac_distance, pixel_mm)
    if kind is Kind.CAUDA_EQUINA:
        _paint_cauda(canvas, sac, sac_radii)
        return canvas.scene(kind, np.zeros_like(sac), sac)
    _paint_roots(canvas, cord_radii, sac_radii)
    cord = _paint_cord(canvas, star_distance(where, cord_radii), cord_radii)
    return canvas.scene(kind, cord, np.maximum(sac, cord))


def _cord_radii(rng: np.random.Generator, *, small: bool = False) -> NDArray[np.float64]:
    """Draw a cord outline of realistic size; one in twelve is outside the usual range."""
    if rng.random() < 0.08:
        half_x, half_y = rng.uniform(3.0, 8.0), rng.uniform(2.2, 5.4)
        half_x = max(half_x, 0.85 * half_y)
    else:
        half_x = float(np.clip(rng.normal(6.1, 0.75), 4.3, 7.7))
        half_y = float(np.clip(rng.normal(3.95, 0.5), 2.8, 5.0))
    if small:
        half_x, half_y = 0.7 * half_x, 0.8 * half_y
    radii = superellipse_radii(half_x, half_y, exponent=rng.uniform(1.85, 2.6)) * wobble(rng, 0.035)
    turn = angles()
    fissure = np.exp(-0.5 * (_angle_between(turn, np.pi / 2) / 0.16) ** 2)
    flat = np.exp(-0.5 * (_angle_between(turn, -np.pi / 2) / 0.5) ** 2)
    radii = radii * (1.0 - rng.uniform(0.0, 0.13) * fissure - rng.uniform(-0.03, 0.10) * flat)
    return np.asarray(radii)


def _angle_between(turn: NDArray[np.float64], other: float) -> NDArray[np.float64]:
    return np.asarray((turn - other + np.pi) % (2.0 * np.pi) - np.pi)


def _sac_radii(
    rng: np.random.Generator, cord_radii: NDArray[np.float64], room_mm: float, wide: float
) -> NDArray[np.float64]:
    """Draw the dural sac: independent room ventrally, dorsally and on both sides, down to none."""
    n = cord_radii.size
    right, front, left, back = (cord_radii[k * n // 4] for k in range(4))
    front += max(rng.normal(room_mm, 1.8), -0.5)
    back += max(rng.normal(room_mm, 1.8), -0.5)
    side = rng.gamma(3.0, 1.1)
    if wide > 0.0 and rng.random() < wide:
        front, back = front + rng.uniform(0.0, 6.0), back + rng.uniform(0.0, 6.0)
        side = rng.uniform(4.0, 10.0)
    right, left = right + side * rng.uniform(0.7, 1.3), left + side * rng.uniform(0.7, 1.3)
    centre = (0.5 * (right - left), 0.5 * (front - back))
    radii = offset_ellipse_radii(0.5 * (right + left), 0.5 * (front + back), centre=centre)
    radii = radii * wobble(rng, 0.06)
    return np.maximum(radii, cord_radii + rng.uniform(-0.2, 0.5))


def _paint_soft_tissue(canvas: _Canvas) -> None:
    """Paint muscle with fat planes and patches of other soft tissue."""
    rng, size = canvas.rng, canvas.size
    canvas.paint_part(Tissue.MUSCLE, np.ones((size, size), dtype=np.float32))
    scale = np.float32(size * canvas.pixel_mm / 6.0)
    for tissue in (Tissue.FAT, Tissue.MARROW, Tissue.FAT, Tissue.AIR):
        if rng.random() < 0.6:
            field = smooth_field(rng, size, knots=int(rng.integers(3, 10)))
            if rng.random() < 0.6:  # a plane between muscles
                distance = (np.abs(field) - np.float32(rng.uniform(0.05, 0.3))) * scale * 0.5
            else:
                distance = (np.float32(rng.uniform(0.6, 1.8)) - field) * scale
            canvas.paint(tissue, distance)


def _paint_clutter(canvas: _Canvas, count: int, *, lookalikes: bool = True) -> None:
    """Paint ellipses, rings and tubes that are not a cord."""
    rng = canvas.rng
    reach = 0.55 * canvas.size * canvas.pixel_mm
    kinds = list(Tissue)[:13]
    for _ in range(count):
        centre = (float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)))
        tissue = kinds[int(rng.integers(len(kinds)))]
        if rng.random() < 0.25:
            end = (centre[0] + float(rng.normal(0, 12)), centre[1] + float(rng.normal(0, 12)))
            distance = capsule_distance(
                canvas.bx, canvas.by, start=centre, end=end, radius=float(rng.uniform(0.8, 4.0))
            )
            canvas.paint(tissue, distance)
            continue
        half = float(np.exp(rng.uniform(np.log(1.2), np.log(20.0))))
        if not lookalikes and 2.5 < half < 10.0:
            half *= 0.5 if half < 5.0 else 2.0
        rim = float(rng.uniform(0.4, 3.0)) if rng.random() < 0.5 else 0.0
        canvas.ellipse(tissue, centre, (half, half * float(rng.uniform(0.5, 1.6))), rim_mm=rim)


def _paint_spine(canvas: _Canvas, sac_radii: NDArray[np.float64]) -> None:
    """Paint epidural space, bone around the canal, vertebral body, processes and vessels."""
    rng, turn = canvas.rng, angles()
    n = sac_radii.size
    if rng.random() < 0.3:
        _paint_clutter(canvas, int(rng.integers(1, 6)))
    dorsal = np.exp(-0.5 * (_angle_between(turn, -np.pi / 2) / rng.uniform(0.3, 0.8)) ** 2)
    lateral = np.cos(turn) ** 2
    canal = sac_radii + rng.uniform(0.0, 1.5) + rng.gamma(1.5, 1.2) * dorsal + rng.gamma(1.5, 1.0) * lateral
    where = polar(canvas.bx, canvas.by)
    inner = star_distance(where, canal)
    _paint_body(canvas, float(canal[n // 4]))
    _paint_arch(canvas, canal, inner)
    canvas.paint(Tissue.EPIDURAL, inner)


def _paint_body(canvas: _Canvas, front: float) -> None:
    """Paint the vertebral body or disc in front of the canal, and what lies beside it."""
    rng = canvas.rng
    half = (float(rng.uniform(8.0, 16.0)), float(rng.uniform(6.0, 11.0)))
    tissue = Tissue.DISC if rng.random() < 0.35 else Tissue.MARROW
    gap = float(rng.uniform(-1.0, 1.0))
    canvas.ellipse(
        tissue, (float(rng.normal(0, 0.7)), front + gap + half[1]), half, rim_mm=float(rng.uniform(0, 1.5))
    )
    for side in (-1.0, 1.0):
        if rng.random() < 0.6:
            spot = (side * float(rng.uniform(11, 19)), front - float(rng.uniform(-6, 7)))
            radius = float(rng.uniform(1.2, 3.0))
            canvas.ellipse(Tissue.VESSEL, spot, (radius, radius * float(rng.uniform(0.8, 1.2))))
    if rng.random() < 0.25:
        spot = (float(rng.normal(0, 6)), front + 2.0 * half[1] + float(rng.uniform(5, 14)))
        canvas.ellipse(Tissue.AIR, spot, (float(rng.uniform(3, 12)), float(rng.uniform(2, 8))))


def _paint_arch(canvas: _Canvas, canal: NDArray[np.float64], inner: Array) -> None:
    """Paint laminae (a ring with gaps), articular masses and the spinous process."""
    rng, turn = canvas.rng, angles()
    back = float(canal[3 * canal.size // 4])
    for side in (-1.0, 1.0):
        if rng.random() < 0.7:
            spot = (side * float(rng.uniform(12, 19)), float(rng.uniform(-9, 5)))
            half = (float(rng.uniform(3, 7)), float(rng.uniform(3, 8)))
            canvas.ellipse(Tissue.MARROW, spot, half, rim_mm=float(rng.uniform(0.3, 2)))
    if rng.random() < 0.7:
        radius = float(rng.uniform(1.2, 3.5))
        end = (float(rng.normal(0, 2)), -back - float(rng.uniform(8, 28)))
        line = capsule_distance(canvas.bx, canvas.by, start=(0.0, -back - 1.0), end=end, radius=radius)
        canvas.paint(Tissue.CORTICAL, line - np.float32(rng.uniform(0.2, 1.5)))
        canvas.paint(Tissue.MARROW, line)
    if rng.random() < 0.75:
        thickness = rng.uniform(1.0, 4.5) * np.clip(1.3 - rng.uniform(0.3, 2.0) * np.sin(turn), 0.0, 1.0)
        opening = np.exp(
            -0.5 * (_angle_between(np.abs(_angle_between(turn, 0.0)), rng.uniform(0, 0.8)) / 0.3) ** 2
        )
        opening = opening + np.exp(
            -0.5 * (_angle_between(np.pi - np.abs(_angle_between(turn, 0.0)), 0.4) / 0.3) ** 2
        )
        thickness = thickness * np.clip(1.0 - rng.uniform(0.0, 1.4) * opening, 0.0, 1.0)
        where = polar(canvas.bx, canvas.by)
        canvas.paint(Tissue.CORTICAL, star_distance(where, canal + thickness + 0.05))
        if rng.random() < 0.4:
            core = np.abs(inner - np.float32(thickness.max() * 0.5)) - np.float32(thickness.max() * 0.2)
            canvas.paint(Tissue.MARROW, core)


def _paint_roots(canvas: _Canvas, cord: NDArray[np.float64], sac: NDArray[np.float64]) -> None:
    """Paint ventral and dorsal roots from the cord towards the foramina, and denticulate strands."""
    rng, n = canvas.rng, cord.size
    for base in (0.55, np.pi - 0.55, -0.75, -np.pi + 0.75):
        if rng.random() > 0.5:
            continue
        at = base + rng.normal(0, 0.2)
        out = at * 0.6 if abs(at) < np.pi / 2 else np.sign(at) * (np.pi - 0.6 * (np.pi - abs(at)))
        i, j = (int(np.rint(a / (2 * np.pi) * n)) % n for a in (at, out))
        start = (float(cord[i] * np.cos(at)), float(cord[i] * np.sin(at)))
        reach = float(sac[j]) * rng.uniform(0.8, 1.3)
        end = (reach * float(np.cos(out)), reach * float(np.sin(out)))
        line = capsule_distance(
            canvas.x, canvas.y, start=start, end=end, radius=float(rng.uniform(0.15, 0.6))
        )
        canvas.paint_part(Tissue.ROOT, coverage(line, canvas.pixel_mm) * np.float32(rng.uniform(0.4, 1.0)))


def _paint_cord(canvas: _Canvas, distance: Array, radii: NDArray[np.float64]) -> Array:
    """Paint white and grey matter and, rarely, a lesion; return the cord's coverage."""
    rng = canvas.rng
    inside = coverage(distance, canvas.pixel_mm)
    canvas.paint_part(Tissue.WHITE, inside)
    n = radii.size
    half_x = 0.5 * float(radii[0] + radii[n // 2])
    half_y = 0.5 * float(radii[n // 4] + radii[3 * n // 4])
    grey = coverage(_butterfly(canvas, half_x, half_y), canvas.pixel_mm)
    canvas.paint_part(Tissue.GREY, np.minimum(grey, inside))
    if rng.random() < 0.06:
        spot = (float(rng.normal(0, 0.4 * half_x)), float(rng.normal(0, 0.4 * half_y)))
        blob = ellipse_distance(
            canvas.x, canvas.y, centre=spot, half=(float(rng.uniform(0.6, 3)), float(rng.uniform(0.6, 2.5)))
        )
        canvas.paint_part(Tissue.LESION, np.minimum(coverage(blob, canvas.pixel_mm), inside))
    return inside


def _butterfly(canvas: _Canvas, half_x: float, half_y: float) -> Array:
    """Return the signed distance to the grey matter: horns and commissure, mirrored in x."""
    rng = canvas.rng
    x, y = np.abs(canvas.x), canvas.y
    hub = (half_x * rng.uniform(0.26, 0.40), half_y * rng.uniform(-0.08, 0.15))
    ventral = (half_x * rng.uniform(0.30, 0.48), half_y * rng.uniform(0.32, 0.52))
    dorsal = (half_x * rng.uniform(0.36, 0.58), -half_y * rng.uniform(0.50, 0.75))
    wide, thin = half_x * rng.uniform(0.09, 0.17), half_x * rng.uniform(0.05, 0.10)
    parts = (
        capsule_distance(x, y, start=(0.0, hub[1]), end=hub, radius=float(0.8 * thin)),
        capsule_distance(x, y, start=hub, end=ventral, radius=float(wide)),
        capsule_distance(x, y, start=hub, end=dorsal, radius=float(thin)),
    )
    return np.asarray(np.minimum(np.minimum(parts[0], parts[1]), parts[2]))


def _paint_cauda(canvas: _Canvas, sac: Array, sac_radii: NDArray[np.float64]) -> None:
    """Paint a sac that holds only nerve roots: scattered, or gathered along its back wall."""
    rng, n = canvas.rng, sac_radii.size
    gathered = rng.random() < 0.5
    for _ in range(int(rng.integers(8, 30))):
        at = rng.normal(-np.pi / 2, 0.9) if gathered else rng.uniform(-np.pi, np.pi)
        far = float(sac_radii[int(np.rint(at / (2 * np.pi) * n)) % n])
        radius = far * (rng.uniform(0.6, 0.95) if gathered else np.sqrt(rng.uniform(0.0, 0.9)))
        spot = (float(radius * np.cos(at)), float(radius * np.sin(at)))
        size = float(rng.uniform(0.35, 0.95))
        blob = capsule_distance(canvas.x, canvas.y, start=spot, end=spot, radius=size)
        canvas.paint_part(Tissue.ROOT, coverage(blob, canvas.pixel_mm) * sac)


def _paint_brainstem(canvas: _Canvas) -> Scene:
    """Paint a brainstem-sized body of nervous tissue in CSF, with cerebellum behind it."""
    rng = canvas.rng
    half = (float(rng.uniform(9.5, 17.0)), float(rng.uniform(7.5, 14.0)))
    room = (half[0] + float(rng.uniform(1, 12)), half[1] + float(rng.uniform(1, 8)))
    outer = ellipse_distance(canvas.bx, canvas.by, centre=(0.0, float(rng.normal(0, 1.5))), half=room)
    canvas.paint(Tissue.CORTICAL, outer - np.float32(rng.uniform(0, 5)))
    canvas.paint(Tissue.CSF, outer)
    for side in (-1.0, 1.0):
        if rng.random() < 0.6:
            spot = (side * float(rng.uniform(6, 18)), -half[1] - float(rng.uniform(2, 12)))
            canvas.ellipse(Tissue.GREY, spot, (float(rng.uniform(5, 14)), float(rng.uniform(4, 12))))
    radii = superellipse_radii(half[0], half[1], exponent=rng.uniform(1.9, 2.6)) * wobble(rng, 0.08)
    body = star_distance(polar(canvas.x, canvas.y), radii)
    canvas.paint(Tissue.WHITE, body)
    inside = coverage(body, canvas.pixel_mm)
    for _ in range(int(rng.integers(0, 4))):
        spot = (float(rng.normal(0, 0.4 * half[0])), float(rng.normal(0, 0.4 * half[1])))
        blob = ellipse_distance(
            canvas.x, canvas.y, centre=spot, half=(float(rng.uniform(1, 4)), float(rng.uniform(1, 4)))
        )
        canvas.paint_part(Tissue.GREY, np.minimum(coverage(blob, canvas.pixel_mm), inside))
    sac = coverage(outer, canvas.pixel_mm)
    return canvas.scene(Kind.BRAINSTEM, np.zeros_like(sac), np.zeros_like(sac))
