"""Simulated images of the cord with known grey matter: truth for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cordqa.records import Volume
from cordqa.simulate.cord.grey_sections import FINE_MM, draw_geometry
from cordqa.simulate.cord.shapes import Array

__all__ = ["GreyVolume", "simulate_grey_volume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyVolume:
    """An image and its truth on the same voxels.

    Attributes
    ----------
    image, cord, grey : Volume
        Image, and true part of each voxel inside the cord and inside grey matter.
    """

    image: Volume
    cord: Volume
    grey: Volume


def simulate_grey_volume(
    seed: int,
    *,
    n_slices: int = 8,
    parts: int = 3,
    slice_mm: float = 7.5,
    contrast: float = 0.18,
    noise: float = 0.05,
    fluid: float = 1.7,
    blur_mm: float = 0.25,
) -> GreyVolume:
    """Draw a stack of sections of different cords under one contrast.

    Parameters
    ----------
    seed : int
    n_slices : int
    parts : int
        Width of a voxel in parts of 0.175 mm: 2, 3, 4 or 6 (0.35, 0.525, 0.7 or 1.05 mm).
    slice_mm : float
        Distance between slices.
    contrast : float
        Signal of grey minus white matter; white matter is 1.  Negative: grey matter is darker.
    noise : float
        Standard deviation of real and imaginary part in a voxel.
    fluid : float
        Signal of CSF.
    blur_mm : float
        Standard deviation of the point spread, besides the voxel.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    images, cords, greys = [], [], []
    for _ in range(n_slices):
        scene = draw_geometry(rng)
        plane = np.full_like(scene.cord, 0.4)
        for part, level in ((scene.sac, fluid), (scene.cord, 1.0), (scene.grey, 1.0 + contrast)):
            plane = plane + part * (np.float32(level) - plane)
        images.append(_voxels(gaussian_filter(plane, blur_mm / FINE_MM), parts))
        cords.append(_voxels(scene.cord, parts))
        greys.append(_voxels(scene.grey, parts))
    stack = np.stack(images, axis=2)
    real = stack + noise * rng.standard_normal(stack.shape)
    shown = np.hypot(real, noise * rng.standard_normal(stack.shape))
    affine = np.diag([parts * FINE_MM, parts * FINE_MM, slice_mm, 1.0])
    volumes = (shown, np.stack(cords, axis=2), np.stack(greys, axis=2))
    return GreyVolume(
        **{
            name: Volume(data=np.asarray(data, dtype=np.float32), affine=affine, source=f"simulated {name}")
            for name, data in zip(("image", "cord", "grey"), volumes, strict=True)
        }
    )


def _voxels(fine: Array, parts: int) -> Array:
    """Average the fine grid to voxels."""
    n = fine.shape[0] // parts
    return np.asarray(fine.reshape(n, parts, n, parts).mean(axis=(1, 3)))
