"""From geometry to an image: contrast, texture, scanner.

Contrasts are loose families (intensities relative to the brightest tissue), not simulations of
one protocol: a network that has seen all of them cannot rely on any.  Within each family the
difference between grey and white matter is kept below the difference between cord and CSF,
except in the low-contrast family, where the butterfly may be all that is seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cordqa.simulate.cord.anatomy import Scene, Tissue
from cordqa.simulate.cord.shapes import Array, smooth_field

__all__ = ["FAMILIES", "SHARES", "acquire", "draw_contrast", "paint"]

_RANGES = Mapping[Tissue, tuple[float, float]]
_T = Tissue

#: Lowest and highest relative intensity of each tissue, per family of contrasts.
FAMILIES: Mapping[str, _RANGES] = {
    "T2w": {
        _T.MUSCLE: (0.05, 0.30), _T.FAT: (0.2, 0.9), _T.AIR: (0.0, 0.05), _T.MARROW: (0.1, 0.5),
        _T.CORTICAL: (0.0, 0.12), _T.DISC: (0.05, 0.6), _T.EPIDURAL: (0.1, 0.8), _T.DURA: (0.0, 0.3),
        _T.CSF: (0.75, 1.0), _T.ROOT: (0.2, 0.5), _T.WHITE: (0.25, 0.55), _T.VESSEL: (0.0, 0.9),
    },
    "T2*w": {
        _T.MUSCLE: (0.2, 0.7), _T.FAT: (0.1, 0.7), _T.AIR: (0.0, 0.05), _T.MARROW: (0.05, 0.4),
        _T.CORTICAL: (0.0, 0.15), _T.DISC: (0.1, 0.6), _T.EPIDURAL: (0.2, 0.9), _T.DURA: (0.0, 0.5),
        _T.CSF: (0.7, 1.0), _T.ROOT: (0.4, 0.7), _T.WHITE: (0.3, 0.7), _T.VESSEL: (0.0, 1.2),
    },
    "T1w": {
        _T.MUSCLE: (0.3, 0.7), _T.FAT: (0.6, 1.2), _T.AIR: (0.0, 0.05), _T.MARROW: (0.3, 0.9),
        _T.CORTICAL: (0.0, 0.15), _T.DISC: (0.2, 0.6), _T.EPIDURAL: (0.2, 1.0), _T.DURA: (0.1, 0.5),
        _T.CSF: (0.05, 0.45), _T.ROOT: (0.3, 0.6), _T.WHITE: (0.55, 0.9), _T.VESSEL: (0.0, 1.3),
    },
    "low contrast": {
        _T.MUSCLE: (0.2, 1.1), _T.FAT: (0.2, 1.2), _T.AIR: (0.0, 0.05), _T.MARROW: (0.1, 0.8),
        _T.CORTICAL: (0.0, 0.25), _T.DISC: (0.2, 0.9), _T.EPIDURAL: (0.3, 1.0), _T.DURA: (0.2, 0.8),
        _T.CSF: (0.5, 0.8), _T.ROOT: (0.5, 0.8), _T.WHITE: (0.5, 0.8), _T.VESSEL: (0.0, 1.5),
    },
    "DWI": {
        _T.MUSCLE: (0.0, 0.35), _T.FAT: (0.0, 0.35), _T.AIR: (0.0, 0.05), _T.MARROW: (0.0, 0.35),
        _T.CORTICAL: (0.0, 0.1), _T.DISC: (0.0, 0.35), _T.EPIDURAL: (0.0, 0.4), _T.DURA: (0.0, 0.3),
        _T.CSF: (0.05, 0.45), _T.ROOT: (0.3, 0.8), _T.WHITE: (0.7, 1.0), _T.VESSEL: (0.0, 0.4),
    },
    "b0": {
        _T.MUSCLE: (0.0, 0.45), _T.FAT: (0.0, 0.4), _T.AIR: (0.0, 0.05), _T.MARROW: (0.0, 0.3),
        _T.CORTICAL: (0.0, 0.1), _T.DISC: (0.0, 0.4), _T.EPIDURAL: (0.05, 0.7), _T.DURA: (0.0, 0.4),
        _T.CSF: (0.45, 1.0), _T.ROOT: (0.35, 0.8), _T.WHITE: (0.3, 0.6), _T.VESSEL: (0.0, 0.9),
    },
    "any": dict.fromkeys(Tissue, (0.0, 1.0)),
}  # fmt: skip
#: How often each family is drawn, where a mix of sections does not say otherwise.
SHARES: Mapping[str, float] = {
    "T2w": 0.20,
    "T2*w": 0.25,
    "T1w": 0.12,
    "low contrast": 0.18,
    "DWI": 0.10,
    "any": 0.15,
}


def draw_contrast(
    rng: np.random.Generator, family: str = "", *, shares: Mapping[str, float] = SHARES
) -> NDArray[np.float64]:
    """Draw one intensity per tissue, shape (n_tissues,).

    Parameters
    ----------
    rng : numpy Generator
    family : str
        Key of ``FAMILIES``; drawn by its share if empty.
    shares : mapping
        Share of each family; they add up to one.
    """
    name = family or str(rng.choice(list(shares), p=list(shares.values())))
    values = np.array([rng.uniform(*FAMILIES[name].get(tissue, (0.0, 1.0))) for tissue in Tissue])
    white, csf = values[_T.WHITE], values[_T.CSF]
    if name == "any" and abs(white - csf) < 0.1:
        white = csf + np.sign(white - csf + 1e-9) * rng.uniform(0.1, 0.5)
    if name == "low contrast":
        # Cord a little above or below CSF; the eye then uses grey matter and the dark dura.
        white = csf * (1.0 + rng.uniform(-0.22, 0.25))
    values[_T.WHITE] = max(white, 0.02)
    gap = abs(values[_T.WHITE] - csf)
    limit = max(0.5 * gap, 0.14 * values[_T.WHITE]) if name == "low contrast" else 0.4 * gap
    step = np.sign(rng.random() - 0.2) * rng.uniform(0.0, 1.0) * min(limit, 0.3 * values[_T.WHITE])
    values[_T.GREY] = values[_T.WHITE] + step
    values[_T.LESION] = values[_T.WHITE] + rng.uniform(-0.3, 0.7) * (csf - values[_T.WHITE])
    if rng.random() < 0.5:
        values[_T.ROOT] = values[_T.WHITE] * rng.uniform(0.7, 1.1)
    return values


def paint(scene: Scene, contrast: NDArray[np.float64], rng: np.random.Generator) -> Array:
    """Paint the layers in order, each with a texture of its tissue."""
    size = scene.cord.shape[0]
    fine, coarse = smooth_field(rng, size, knots=24), smooth_field(rng, size, knots=7)
    image = np.zeros_like(scene.cord)
    quiet = (_T.CSF, _T.WHITE, _T.GREY, _T.ROOT, _T.LESION)
    amplitude = rng.uniform(0.0, 0.03, 2), rng.uniform(0.0, 0.15, 2)
    texture = {
        calm: np.float32(1.0) + np.float32(a[0]) * fine + np.float32(a[1]) * coarse
        for calm, a in zip((True, False), amplitude, strict=True)
    }
    flow = rng.random() < 0.3
    for tissue, part in scene.layers:
        value = texture[tissue in quiet] * np.float32(contrast[tissue])
        if flow and tissue is _T.CSF:
            void = smooth_field(rng, size, knots=8)
            value = value * np.clip(1.0 - np.float32(rng.uniform(0.1, 0.5)) * np.maximum(void, 0), 0.1, 1)
        image += part * (value - image)
    return np.asarray(image)


def acquire(image: Array, pixel_mm: float, rng: np.random.Generator, *, poor: float = 0.0) -> Array:
    """Pass a section through a scanner: blur, bias field, coarser pixels, noise, interpolation.

    Parameters
    ----------
    image : ndarray, shape (n, n)
        Ideal image.
    pixel_mm : float
        Its pixel size.
    rng : numpy Generator
    poor : float
        Share of images with much noise, steep shading or ghosts besides.

    Returns
    -------
    ndarray, shape (n, n)
        The acquired image, interpolated linearly back to the grid it came from.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    size = image.shape[0]
    if poor > 0.0 and rng.random() < poor:
        image = _spoil(image, rng)
    native = float(rng.uniform(1.2, 2.2)) if rng.random() < 0.05 else float(rng.uniform(0.4, 1.15))
    blur = np.hypot(0.42 * native, rng.uniform(0.0, 0.6)) / pixel_mm
    image = gaussian_filter(image, blur * rng.uniform(0.8, 1.2, 2), truncate=3.0)
    image = image * np.exp(np.float32(rng.uniform(0.0, 0.4)) * smooth_field(rng, size, knots=2))
    step = native / pixel_mm
    count = max(int(np.ceil(size / step)) + 2, 4)
    line = (np.arange(count, dtype=np.float32) - np.float32(rng.uniform(0, 1))) * np.float32(step)
    coarse = map_coordinates(image, np.meshgrid(line, line, indexing="ij"), order=1, mode="nearest")
    coarse = _add_noise(np.asarray(coarse), rng)
    back = (np.arange(size, dtype=np.float32) - line[0]) / np.float32(step)
    fine = map_coordinates(coarse, np.meshgrid(back, back, indexing="ij"), order=1, mode="nearest")
    if rng.random() < 0.5:
        top = max(float(fine.max()), 1e-6)
        fine = np.clip(fine / top, 0.0, None) ** np.float32(np.exp(rng.normal(0.0, 0.2)))
    return np.asarray(fine, dtype=np.float32)


def _spoil(image: Array, rng: np.random.Generator) -> Array:
    """Add what low slices suffer from near the shoulders, and thin echo-planar slices everywhere."""
    size = image.shape[0]
    kind = rng.random()
    if kind < 0.35:
        return np.asarray(
            image * np.exp(np.float32(rng.uniform(0.3, 0.9)) * smooth_field(rng, size, knots=3))
        )
    if kind < 0.6:  # breathing: a faint copy moved along the phase-encoding direction
        axis, step = int(rng.random() < 0.7), int(rng.integers(size // 8, size // 2))
        ghost = np.roll(image, step, axis=axis) - np.roll(image, -step, axis=axis)
        return np.asarray(np.abs(image + np.float32(rng.uniform(0.02, 0.12)) * ghost))
    sd = np.float32(rng.uniform(0.03, 0.13) * float(image.max()))
    real = image + sd * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, sd * rng.standard_normal(image.shape, dtype=np.float32)))


def _add_noise(image: Array, rng: np.random.Generator) -> Array:
    """Add Gaussian noise, or take the magnitude of complex noise."""
    sd = np.float32(0.12 * rng.random() ** 2.0 * float(image.mean() + image.max()) * 0.5)
    real = image + sd * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        return np.asarray(real)
    return np.asarray(np.hypot(real, sd * rng.standard_normal(image.shape, dtype=np.float32)))
