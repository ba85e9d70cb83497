"""Plates with plain numbers for the tests of the simulator."""

from __future__ import annotations

import numpy as np

from cordqa.simulate.system_phantom import DigitalPlate, DigitalPost, DigitalSphere


def layout(offset_mm: float) -> list[tuple[float, float, float]]:
    """Ten spheres on a circle of 50 mm and four on a square of 40 mm."""
    angles = np.deg2rad(36.0 * np.arange(10))
    ring = [(50 * float(np.sin(a)), offset_mm, 50 * float(np.cos(a))) for a in angles]
    return ring + [(x, offset_mm, z) for x, z in ((-20.0, 20.0), (20.0, 20.0), (20.0, -20.0), (-20.0, -20.0))]


def make_plate(name: str = "5", *, posts: bool = False) -> DigitalPlate:
    """Relaxation times from 2 s down by a factor of 1.4 from sphere to sphere."""
    offset = {"5": -56.5, "4": -16.5}[name]
    longest_t1, longest_t2 = {"5": (2.0, 1.5), "4": (2.4, 0.55)}[name]
    spheres = tuple(
        DigitalSphere(
            label=str(index + 1),
            position_mm=position,
            t1_s=longest_t1 / 1.4**index,
            t2_s=longest_t2 / 1.4**index,
        )
        for index, position in enumerate(layout(offset))
    )
    rods = tuple(
        DigitalPost(position_mm=(60 * float(np.sin(a)), offset, 60 * float(np.cos(a))))
        for a in np.deg2rad([90.0, 198.0, 342.0])
    )
    return DigitalPlate(plate=name, spheres=spheres, posts=rods if posts else ())
