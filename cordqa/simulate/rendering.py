"""From shapes to voxels: coverage on a finer grid, then what a scanner makes of it.

Across the slice the overlap of a ball with the slice is exact.  In the plane, shapes are drawn
on a grid several times finer than the voxels, and then either averaged over each voxel (box) or
truncated in k-space as an acquisition does, which brings Gibbs ringing (fourier).  Both are
linear and separable, so that one shape costs two small matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError

__all__ = ["Downsampling", "Raster", "downsampling_matrix", "zero_filling_matrix"]

Downsampling = Literal["fourier", "box"]
Plane = NDArray[np.float32]
#: Fine samples drawn beyond the edge of a shape.
_MARGIN = 2


@lru_cache(maxsize=16)
def downsampling_matrix(n: int, oversampling: int, how: Downsampling) -> Plane:
    """Return the matrix that turns ``n * oversampling`` fine samples into ``n`` voxels.

    Fine sample j lies at (j + 1/2) / oversampling - 1/2 in voxels.  Rows sum to 1, so that a
    uniform object keeps its signal.
    """
    if n < 2 or oversampling < 1:
        raise ConfigError("rendering needs at least two voxels and an oversampling of at least 1")
    if how == "box":
        return np.repeat(np.eye(n, dtype=np.float32) / oversampling, oversampling, axis=1)
    fine = (np.arange(n * oversampling) + 0.5) / oversampling - 0.5
    matrix: Plane = (_dirichlet(np.arange(n)[:, None] - fine, n) / oversampling).astype(np.float32)
    return matrix


@lru_cache(maxsize=16)
def zero_filling_matrix(n: int, n_filled: int) -> Plane:
    """Return the matrix that interpolates ``n`` voxels to ``n_filled`` by zero filling k-space.

    Both grids fill the same field of view.  Noise keeps its SD and becomes correlated.
    """
    if not 2 <= n <= n_filled:
        raise ConfigError("zero filling only adds voxels", found=f"{n} to {n_filled}")
    positions = (np.arange(n_filled) + 0.5) * n / n_filled - 0.5
    matrix: Plane = _dirichlet(positions[:, None] - np.arange(n), n).astype(np.float32)
    return matrix


def _dirichlet(distance: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the kernel of ``n`` k-space samples; an even one takes half of each Nyquist sample."""
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = np.tan(np.pi * distance / n) if n % 2 == 0 else np.sin(np.pi * distance / n)
        kernel = np.sin(np.pi * distance) / (n * edge)
    return np.where(np.abs(distance) < 1e-9, 1.0, kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """One slice on which shapes are drawn; lengths in millimetres, positions in voxels.

    A position is (slice, row, column); ``index`` says which slice this is.
    """

    index: int
    n_rows: int
    n_columns: int
    spacing_mm: tuple[float, float]
    thickness_mm: float
    slice_distance_mm: float
    oversampling: int = 4
    how: Downsampling = "fourier"

    def ball(self, position: NDArray[np.float64], radius_mm: float) -> Plane:
        """Return the fraction of each voxel inside a ball."""
        depth = float(position[0] - self.index) * self.slice_distance_mm
        half_slice = self.thickness_mm / 2
        if abs(depth) >= radius_mm + half_slice:
            return self._nothing()
        rows, columns, dy, dx = self._window(position, radius_mm)
        half_chord = np.sqrt(np.maximum(radius_mm**2 - dy[:, None] ** 2 - dx[None, :] ** 2, 0.0))
        upper = np.minimum(depth + half_chord, half_slice)
        lower = np.maximum(depth - half_chord, -half_slice)
        return self._reduce(np.maximum(upper - lower, 0.0) / self.thickness_mm, rows, columns)

    def rod(self, position: NDArray[np.float64], radius_mm: float) -> Plane:
        """Return the fraction of each voxel inside a rod that runs straight through the slice."""
        rows, columns, dy, dx = self._window(position, radius_mm)
        inside = dy[:, None] ** 2 + dx[None, :] ** 2 <= radius_mm**2
        return self._reduce(inside.astype(float), rows, columns)

    def _nothing(self) -> Plane:
        return np.zeros((self.n_rows, self.n_columns), dtype=np.float32)

    def _window(
        self, position: NDArray[np.float64], radius_mm: float
    ) -> tuple[slice, slice, NDArray[np.float64], NDArray[np.float64]]:
        """Return the fine samples around a shape, and their distances from its centre."""
        parts = []
        for centre, n, spacing in zip(
            position[1:], (self.n_rows, self.n_columns), self.spacing_mm, strict=True
        ):
            middle = (centre + 0.5) * self.oversampling - 0.5
            reach = radius_mm / spacing * self.oversampling + _MARGIN
            first = int(np.clip(np.floor(middle - reach), 0, n * self.oversampling))
            last = int(np.clip(np.ceil(middle + reach) + 1, first, n * self.oversampling))
            fine = np.arange(first, last)
            parts.append((slice(first, last), (fine - middle) / self.oversampling * spacing))
        (rows, dy), (columns, dx) = parts
        return rows, columns, dy, dx

    def _reduce(self, fine: NDArray[np.float64], rows: slice, columns: slice) -> Plane:
        down = downsampling_matrix(self.n_rows, self.oversampling, self.how)[:, rows]
        across = downsampling_matrix(self.n_columns, self.oversampling, self.how)[:, columns]
        reduced: Plane = down @ fine.astype(np.float32) @ across.T
        return reduced
