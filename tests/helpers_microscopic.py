"""Tissues with known microscopic anisotropy: mixtures of axially symmetric tensors turned about an axis.

The signal is summed over compartments and orientations; nothing here is shared with the fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cordqa.models.diffusion.gradients import GradientTable

#: (b in s/mm2, b_delta, number of volumes)
LINEAR_SPHERICAL = (
    (0, 0.0, 4),
    (700, 1.0, 6),
    (1400, 1.0, 10),
    (2000, 1.0, 20),
    (700, 0.0, 6),
    (1400, 0.0, 10),
    (2000, 0.0, 14),
)
LINEAR_PLANAR = (
    (0, 0.0, 6),
    (700, 1.0, 12),
    (1400, 1.0, 16),
    (2000, 1.0, 20),
    (700, -0.5, 12),
    (1400, -0.5, 16),
    (2000, -0.5, 20),
)
FAST = ((0, 0.0, 2), (1000, 1.0, 6), (2000, 1.0, 12), (1000, 0.0, 6), (2000, 0.0, 6))


def spiral(n: int) -> np.ndarray:
    """Directions spread over half a sphere."""
    height = (np.arange(n) + 0.5) / n
    azimuth = np.pi * (1 + 5**0.5) * np.arange(n)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], axis=1)


def scheme(parts: Sequence[tuple[float, float, int]]) -> GradientTable:
    b = np.concatenate([np.full(n, float(level)) for level, _, n in parts])
    shape = np.concatenate([np.full(n, delta) for _, delta, n in parts])
    directed = [spiral(n) if delta and level else np.zeros((n, 3)) for level, delta, n in parts]
    return GradientTable(b_values_s_mm2=b, directions=np.concatenate(directed), b_delta=shape)


@dataclass
class Tissue:
    """Compartments of v voxels: fractions, diffusivities along and across (um2/ms), each (c, v)."""

    fraction: np.ndarray
    along: np.ndarray
    across: np.ndarray
    concentration: np.ndarray

    @property
    def isotropic(self) -> np.ndarray:
        return (self.along + 2 * self.across) / 3

    @property
    def md(self) -> np.ndarray:
        return (self.fraction * self.isotropic).sum(axis=0)

    @property
    def vi(self) -> np.ndarray:
        return (self.fraction * self.isotropic**2).sum(axis=0) - self.md**2

    @property
    def vl(self) -> np.ndarray:
        return (self.fraction * 2 / 9 * (self.along - self.across) ** 2).sum(axis=0)

    @property
    def mufa(self) -> np.ndarray:
        return np.sqrt(1.5 * self.vl / (self.vl + self.vi + self.md**2))

    @property
    def order(self) -> np.ndarray:
        """Order parameter: every anisotropic compartment has the same orientations."""
        cosine = axes(self.concentration)[..., 2]
        legendre = (1.5 * cosine**2 - 0.5).mean(axis=1)
        mean = (self.fraction * (self.along - self.across)).sum(axis=0)
        return legendre * mean / np.sqrt(4.5 * self.vl)


def mixture(n: int, kind: str, *, water: float = 0.0, seed: int = 0) -> Tissue:
    """White or grey matter: sticks, hindered water along them, and a share of free water."""
    rng = np.random.default_rng(seed)
    sticks, along, across = {
        "white": ((0.3, 0.6), (1.5, 2.2), (0.3, 0.9)),
        "grey": ((0.15, 0.4), (1.2, 1.8), (0.5, 1.0)),
    }[kind]
    share, parallel, radial = (rng.uniform(*limits, n) for limits in (sticks, along, across))
    free = np.full(n, water)
    three = np.full(n, 3.0)
    return Tissue(
        fraction=np.stack([share, 1 - share - free, free]),
        along=np.stack([parallel, parallel, three]),
        across=np.stack([0 * radial, radial, three]),
        concentration=rng.uniform(1, 16, n),
    )


def powder(along: float, across: float, n: int = 1) -> Tissue:
    """One compartment in all directions."""
    one = np.ones((1, n))
    return Tissue(one, along * one, across * one, np.zeros(n))


def axes(concentration: np.ndarray, n: int = 120) -> np.ndarray:
    """Axes of a Watson distribution about z, shape (v, n, 3)."""
    height = np.linspace(0, 1, 401)
    density = np.exp(concentration[:, None] * (height**2 - 1))
    steps = (density[:, 1:] + density[:, :-1]) / 2
    total = np.concatenate([np.zeros((len(density), 1)), np.cumsum(steps, axis=1)], axis=1)
    total /= total[:, -1:]
    wanted = (np.arange(n) + 0.5) / n
    cosine = np.stack([np.interp(wanted, row, height) for row in total])
    azimuth = np.pi * (1 + 5**0.5) * np.arange(n)
    sine = np.sqrt(1 - cosine**2)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=-1)


def simulate(tissue: Tissue, table: GradientTable, *, seed: int = 0) -> np.ndarray:
    """Signals without noise, shape (v, n); every voxel is turned at random."""
    rng = np.random.default_rng(seed)
    v = tissue.md.size
    turns = np.linalg.qr(rng.normal(size=(v, 3, 3)))[0]
    turned = axes(tissue.concentration) @ turns.transpose(0, 2, 1)
    b = table.b_ms_um2
    legendre = 1.5 * np.einsum("vmi,ni->vmn", turned, table.directions) ** 2 - 0.5
    legendre = legendre * np.where(table.is_b0, 0.0, table.b_delta)
    signal = np.zeros((v, b.size))
    for fraction, along, across in zip(tissue.fraction, tissue.along, tissue.across, strict=True):
        mean = (along + 2 * across) / 3
        turned_part = np.exp(-2 / 3 * b * (along - across)[:, None, None] * legendre).mean(axis=1)
        signal += fraction[:, None] * np.exp(-b * mean[:, None]) * turned_part
    return signal


def magnitude(signal: np.ndarray, snr: float, *, seed: int = 1) -> np.ndarray:
    """Magnitude of the signal with complex noise; SNR at b = 0."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1 / snr, (2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1])
