"""Seeded, labelled training sections: ``section(seed)`` is the same on every machine.

Each geometry is shown under several contrasts, which costs little and teaches that the outline
does not depend on the contrast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from cordqa.simulate.cord.anatomy import Kind, Scene, draw_scene
from cordqa.simulate.cord.appearance import SHARES, acquire, draw_contrast, paint
from cordqa.simulate.cord.shapes import Array

__all__ = ["BROAD", "FAINT", "FINE", "GRID_MM", "Mix", "Section", "draw_sections", "sections"]

#: Pixel size of the network's grid.
GRID_MM = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Which sections are drawn, and how often.

    Attributes
    ----------
    shares : tuple of float
        Share of each ``Kind``, in its order.
    lookalikes : bool
        Whether sections without a canal may hold ellipses of the size of a cord.
    clear_roots : bool
        Show a cauda equina only in contrasts in which its roots stand out: where they do not, a
        sac full of roots and a sac with a faint cord look alike, and the network would learn to
        doubt every faint cord.
    room_mm : float
        Usual room for CSF in front of the cord and behind it.
    bare : float
        Share of canals without a spine around them.
    wide : float
        Share of wide dural sacs.
    poor : float
        Share of images with much noise, steep shading or ghosts.
    families : mapping
        Share of each family of contrasts.
    """

    shares: tuple[float, float, float, float] = (0.78, 0.05, 0.05, 0.12)
    lookalikes: bool = True
    clear_roots: bool = False
    room_mm: float = 2.2
    bare: float = 0.0
    wide: float = 0.0
    poor: float = 0.0
    families: Mapping[str, float] = field(default_factory=lambda: SHARES)


#: Every kind of doubt, to begin with; then faint and isolated cords get the benefit of it.
BROAD = Mix()
FINE = Mix(shares=(0.84, 0.04, 0.04, 0.08), lookalikes=False, clear_roots=True, room_mm=1.7, bare=0.15)
#: Last, images in which the cord is hard to see: cord and CSF alike, echo-planar images, wide sacs, noise.
FAINT = Mix(
    shares=(0.86, 0.04, 0.04, 0.06),
    lookalikes=False,
    clear_roots=True,
    room_mm=1.7,
    bare=0.12,
    wide=0.12,
    poor=0.3,
    families={
        "T2w": 0.14,
        "T2*w": 0.20,
        "T1w": 0.08,
        "low contrast": 0.26,
        "DWI": 0.08,
        "b0": 0.14,
        "any": 0.10,
    },
)
_CLEAR_FAMILIES = ("T2w", "T2*w", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One labelled section on the network's grid; axes (right, anterior).

    Attributes
    ----------
    image : ndarray, shape (n, n)
        Image in arbitrary units, zero outside the field of view.
    cord, sac : ndarray, shape (n, n)
        Part of each pixel inside the cord, and inside the dural sac.
    weight : ndarray, shape (n, n)
        One inside the field of view, zero outside.
    window : tuple of slice
        The field of view.
    kind : Kind
    """

    image: Array
    cord: Array
    sac: Array
    weight: Array
    window: tuple[slice, slice]
    kind: Kind


def draw_sections(
    rng: np.random.Generator,
    *,
    size: int = 72,
    pixel_mm: float = GRID_MM,
    contrasts: int = 1,
    family: str = "",
    mix: Mix = BROAD,
) -> list[Section]:
    """Draw one geometry under one or more contrasts.

    Parameters
    ----------
    rng : numpy Generator
        Source of all randomness.
    size : int
        Pixels per side.
    pixel_mm : float
        Pixel size.
    contrasts : int
        Images made from the geometry.
    family : str
        Family of contrasts; drawn if empty.
    mix : Mix
        Which sections are drawn.
    """
    kind = Kind(int(rng.choice([int(k) for k in Kind], p=list(mix.shares))))
    scene = draw_scene(
        rng,
        size=size,
        pixel_mm=pixel_mm,
        kind=kind,
        lookalikes=mix.lookalikes,
        room_mm=mix.room_mm,
        bare=mix.bare,
        wide=mix.wide,
    )
    if mix.clear_roots and kind is Kind.CAUDA_EQUINA and not family:
        return [_show(scene, rng, str(rng.choice(_CLEAR_FAMILIES)), mix) for _ in range(contrasts)]
    return [_show(scene, rng, family, mix) for _ in range(contrasts)]


def sections(seed: int, *, size: int = 72, contrasts: int = 4, mix: Mix = BROAD) -> Iterator[Section]:
    """Yield labelled sections without end; the same seed gives the same sections."""
    rng = np.random.default_rng(seed)
    while True:
        yield from draw_sections(rng, size=size, contrasts=contrasts, mix=mix)


def _show(scene: Scene, rng: np.random.Generator, family: str, mix: Mix) -> Section:
    """Make one image of a geometry and cut it to a field of view."""
    contrast = draw_contrast(rng, family, shares=mix.families)
    image = acquire(paint(scene, contrast, rng), scene.pixel_mm, rng, poor=mix.poor)
    size = image.shape[0]
    window = _field_of_view(rng, size)
    shown = np.zeros_like(image)
    weight = np.zeros_like(image)
    shown[window] = image[window]
    weight[window] = 1.0
    return Section(image=shown, cord=scene.cord, sac=scene.sac, weight=weight, window=window, kind=scene.kind)


def _field_of_view(rng: np.random.Generator, size: int) -> tuple[slice, slice]:
    """Draw the part of the grid that was acquired: mostly all of it."""
    if rng.random() < 0.75:
        return slice(0, size), slice(0, size)
    low = rng.integers(0, size // 4, 2)
    high = size - rng.integers(0, size // 4, 2)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
