"""A schematic atlas of the cord, written from its published geometry: no template is needed.

A cross-section is an ellipse of unit semi-axes.  Grey matter is drawn as two ventral horns, two
dorsal horns and a commissure; their thickness is set so that grey matter fills the share of the
section that is known for the level.  White matter is divided by the horns into dorsal columns,
lateral and ventral funiculi.  Funiculi and tissues are meant for measurement; single tracts are
schematic and marked approximate.

Geometry after textbook sections (Standring, Gray's Anatomy; Nieuwenhuys, The Human Central Nervous
System), with shares of grey matter rounded: about one sixth of the section in the upper neck, a
fifth in the cervical enlargement, an eighth in the thorax, a third in the lumbar enlargement.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasLabels, Region
from cordqa.cord.section_sampling import GRID, section_axis
from cordqa.cord.template import AtlasSections

__all__ = ["GREY_SHARE", "analytical_labels", "analytical_sections"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_HALVES = ("left", "right")
_PARTS = (
    "fasciculus gracilis",
    "fasciculus cuneatus",
    "lateral corticospinal tract",
    "spinothalamic tract",
    "other lateral funiculus",
    "ventral corticospinal tract",
    "other ventral funiculus",
    "ventral horn",
    "dorsal horn",
)
#: Level coordinate (C1 = 1) and share of the section that is grey matter.
GREY_SHARE = (
    (1.0, 0.15),
    (2.5, 0.16),
    (4.0, 0.18),
    (6.0, 0.20),
    (7.5, 0.18),
    (9.5, 0.13),
    (15.0, 0.12),
    (17.5, 0.17),
    (19.0, 0.30),
    (21.0, 0.36),
)
#: Outer border of CSF, in semi-axes of the cord.
_CSF_REACH = 1.25
#: Points per grid cell and direction over which a section is averaged; even, so that none lies on the
#: midline.
_FINE = 4


def analytical_labels() -> AtlasLabels:
    """Labels of the schematic atlas: tissues, funiculi, and approximate tracts by side."""
    names = (*(f"{side} {part}" for part in _PARTS for side in _HALVES), "CSF")
    pick = {part: (2 * n, 2 * n + 1) for n, part in enumerate(_PARTS)}
    dorsal = (*pick["fasciculus gracilis"], *pick["fasciculus cuneatus"])
    lateral = (
        *pick["lateral corticospinal tract"],
        *pick["spinothalamic tract"],
        *pick["other lateral funiculus"],
    )
    ventral = (*pick["ventral corticospinal tract"], *pick["other ventral funiculus"])
    grey = (*pick["ventral horn"], *pick["dorsal horn"])
    white, csf = (*dorsal, *lateral, *ventral), (len(names) - 1,)
    groups = {
        "cord": (*white, *grey),
        "WM": white,
        "GM": grey,
        "DC": dorsal,
        "LF": lateral,
        "VF": ventral,
        "CSF": csf,
    }
    regions = {name: Region(name=name, members=(n,), approximate=True) for n, name in enumerate(names[:-1])}
    for part, members in pick.items():
        regions[part] = Region(name=part, members=members, approximate=True)
    regions |= {name: Region(name=name, members=members) for name, members in groups.items()}
    return AtlasLabels(
        names=names,
        regions=regions,
        tissues={"WM": white, "GM": grey, "CSF": csf},
        source="schematic atlas of cordqa",
    )


@lru_cache(maxsize=1)
def analytical_sections() -> AtlasSections:
    """Cross-sections of the schematic atlas, one per vertebra from C1 to L1."""
    coordinate = np.arange(1.5, 21.0, 1.0)
    shares = np.interp(coordinate, *np.array(GREY_SHARE).T)
    fractions = np.stack([_section(float(share)) for share in shares])
    # Linear interpolation between grid points, and the mean over a cell, blur by a quarter of its square.
    step = float(section_axis()[1] - section_axis()[0])
    return AtlasSections(
        labels=analytical_labels(),
        coordinate=coordinate,
        fractions=fractions,
        blur=np.full((coordinate.size, 2), 0.25 * step**2),
    )


def _section(share: float) -> NDArray[np.float32]:
    """Fractions of all labels on the grid of a section."""
    axis = section_axis()
    step = axis[1] - axis[0]
    fine = (axis[:, None] + ((np.arange(_FINE) + 0.5) / _FINE - 0.5) * step).ravel() / 2.0
    x, y = np.meshgrid(fine, fine, indexing="ij")
    thickness = _thickness(share)
    ventral, dorsal = _grey(np.abs(x), y, thickness)
    inside = x**2 + y**2 < 1.0
    parts = [*_white(np.abs(x), y), ventral | dorsal, ventral, dorsal]
    grey = parts[-3]
    masks = [part & ~grey for part in parts[:-3]] + [ventral, dorsal & ~ventral]
    layers = [part & inside & half for part in masks for half in (x < 0, x >= 0)]
    layers.append(~inside & (x**2 + y**2 < _CSF_REACH**2))
    shape = (len(layers), GRID, _FINE, GRID, _FINE)
    return np.asarray(np.stack(layers).reshape(shape).mean(axis=(2, 4)), dtype=np.float32)


def _thickness(share: float) -> float:
    """Thickness of the horns at which grey matter fills a share of the section."""
    line = np.linspace(-1.0, 1.0, 161)
    x, y = np.meshgrid(line, line, indexing="ij")
    inside = x**2 + y**2 < 1.0
    low, high = 0.2, 3.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        ventral, dorsal = _grey(np.abs(x), y, middle)
        if ((ventral | dorsal) & inside).sum() < share * inside.sum():
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _grey(x: Array, y: Array, thickness: float) -> tuple[Mask, Mask]:
    """Ventral horn with commissure, and dorsal horn, of one half (x from the midline, y forward)."""
    # The commissure lies in front of the middle; ventral horns are broad, dorsal horns thin and oblique.
    horn = ((x - 0.34) / (0.17 * thickness)) ** 2 + ((y - 0.28) / (0.22 * thickness)) ** 2 < 1.0
    bridge = _tapered(x, y, (0.0, 0.14), (0.30, 0.16), 0.06 * thickness, 0.13 * thickness)
    dorsal = _tapered(x, y, (0.29, 0.14), (0.47, -0.66), 0.12 * thickness, 0.06 * thickness)
    return horn | bridge, dorsal & ~(horn | bridge)


def _tapered(
    x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], first: float, last: float
) -> Mask:
    """Points within a stroke whose half-width changes from its start to its end."""
    along = np.array(end) - np.array(start)
    place = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along), 0.0, 1.0)
    away = np.hypot(x - start[0] - place * along[0], y - start[1] - place * along[1])
    return np.asarray(away < first + place * (last - first))


def _white(x: Array, y: Array) -> list[Mask]:
    """Divide one half of the section; grey matter is cut out afterwards."""
    # The axes of the horns, carried on to the surface, part the funiculi.
    dorsal_axis = 0.29 + (0.14 - y) * (0.47 - 0.29) / (0.14 + 0.66)
    ventral_axis = 0.34 + (y - 0.28) * 0.15
    column = (y < 0.14) & (x < dorsal_axis)
    ventral = (y >= 0.14) & (x < ventral_axis)
    lateral = ~column & ~ventral
    gracilis = column & (x < 0.5 * dorsal_axis)
    corticospinal = lateral & (((x - 0.60) / 0.17) ** 2 + ((y + 0.28) / 0.24) ** 2 < 1.0)
    spinothalamic = lateral & ~corticospinal & (y > 0.05) & (np.hypot(x, y) > 0.66)
    medial = ventral & (x < 0.10)
    return [
        gracilis,
        column & ~gracilis,
        corticospinal,
        spinothalamic,
        lateral & ~corticospinal & ~spinothalamic,
        medial,
        ventral & ~medial,
    ]
