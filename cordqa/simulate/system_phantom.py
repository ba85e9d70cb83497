"""A digital plate phantom: solution spheres in plastic shells, in a water-filled sphere.

Geometry and relaxation times come from the caller; nothing here knows a particular phantom's
values.  Shells, posts and bubbles give no signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.simulate.geometry import Placement, SliceGeometry
from cordqa.simulate.rendering import Downsampling, Raster

__all__ = ["Coverage", "DigitalPlate", "DigitalPost", "DigitalSphere", "render_coverage"]

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalSphere:
    """One sphere of solution.

    Attributes
    ----------
    label : str
        Name, for example ``"1"``.
    position_mm : tuple of float
        Centre in the phantom's frame (+x left, +y posterior, +z superior).
    t1_s, t2_s : float
        Relaxation times, > 0.
    proton_density : float
        Relative to water.
    inner_diameter_mm, outer_diameter_mm : float
        The solution, and the shell around it.
    bubble_diameter_mm : float
        Air under the top (anterior side) of the shell; 0 for none.
    """

    label: str
    position_mm: Vector
    t1_s: float
    t2_s: float
    proton_density: float = 1.0
    inner_diameter_mm: float = 15.0
    outer_diameter_mm: float = 20.0
    bubble_diameter_mm: float = 0.0

    def __post_init__(self) -> None:
        if not (self.t1_s > 0 and self.t2_s > 0 and np.isfinite([self.t1_s, self.t2_s]).all()):
            raise ConfigError(
                "a sphere needs positive relaxation times",
                where=f"sphere {self.label}",
                found=f"T1 {self.t1_s} s, T2 {self.t2_s} s",
            )
        if not 0 <= self.bubble_diameter_mm <= self.inner_diameter_mm <= self.outer_diameter_mm:
            raise ConfigError(
                "bubble, inner and outer diameter must grow in this order", where=f"sphere {self.label}"
            )

    @property
    def bubble_position_mm(self) -> Vector:
        """Centre of the air bubble."""
        x, y, z = self.position_mm
        return x, y - (self.inner_diameter_mm - self.bubble_diameter_mm) / 2, z


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalPost:
    """A rod through the plate that gives no signal but looks much like a sphere's shell."""

    position_mm: Vector
    diameter_mm: float = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalPlate:
    """The spheres of one plate, and the water around them.

    Attributes
    ----------
    plate : str
        Name of the plate.
    spheres : tuple of DigitalSphere
    posts : tuple of DigitalPost
    water_t1_s, water_t2_s, water_proton_density : float
        The filling.
    body_diameter_mm : float
        Inner diameter of the phantom's body, a ball around the origin of its frame.

    Notes
    -----
    Shells and posts must not overlap: each is taken out of the water once.
    """

    plate: str
    spheres: tuple[DigitalSphere, ...]
    posts: tuple[DigitalPost, ...] = ()
    water_t1_s: float = 2.8
    water_t2_s: float = 1.8
    water_proton_density: float = 1.0
    body_diameter_mm: float = 200.0

    def __post_init__(self) -> None:
        if not self.spheres:
            raise ConfigError("a plate needs at least one sphere", where=f"plate {self.plate}")

    @property
    def centre_mm(self) -> Vector:
        """Mean of the sphere positions."""
        x, y, z = np.mean([sphere.position_mm for sphere in self.spheres], axis=0)
        return float(x), float(y), float(z)

    def tissue(self, name: str) -> NDArray[np.float64]:
        """Return ``t1_s``, ``t2_s`` or ``proton_density`` of every sphere, then of the water."""
        values = [getattr(sphere, name) for sphere in self.spheres]
        return np.array([*values, getattr(self, f"water_{name}")], dtype=float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of each voxel each compartment fills.

    Attributes
    ----------
    maps : ndarray, shape (n_spheres + 1, n_slices, n_rows, n_columns), float32
        Spheres in order, then water.  Ringing takes values a little below 0 and above 1.
    body : ndarray, shape (n_slices, n_rows, n_columns), float32
        The whole inside of the phantom.
    positions_mm : ndarray, shape (n_spheres + 1, 3)
        Where the spheres and the middle of the plate lie in the scanner, LPS.
    centres : ndarray, shape (n_spheres, 3)
        The spheres in (slice, row, column), not rounded.
    """

    maps: NDArray[np.float32]
    body: NDArray[np.float32]
    positions_mm: NDArray[np.float64]
    centres: NDArray[np.float64]


def render_coverage(
    plate: DigitalPlate,
    geometry: SliceGeometry,
    *,
    placement: Placement | None = None,
    oversampling: int = 4,
    downsampling: Downsampling = "fourier",
) -> Coverage:
    """Draw a plate on a stack of slices with partial volume in all three directions.

    Parameters
    ----------
    plate : DigitalPlate
    geometry : SliceGeometry
    placement : Placement, optional
        How the phantom lies; straight by default.
    oversampling : int
        Fine samples per voxel along a row and along a column.
    downsampling : {'fourier', 'box'}
        With the ringing of a truncated k-space, or without.

    Returns
    -------
    Coverage

    Notes
    -----
    Posts are drawn perpendicular to the slice also when the plate is tilted.
    """
    placement = placement or Placement()
    pivot = plate.centre_mm
    positions = placement.apply([*(s.position_mm for s in plate.spheres), pivot], pivot_mm=pivot)
    maps = np.empty((len(plate.spheres) + 1, *geometry.shape), dtype=np.float32)
    body = np.empty(geometry.shape, dtype=np.float32)
    for raster in _rasters(geometry, oversampling, downsampling):
        _draw_slice(plate, geometry, placement, raster, maps[:, raster.index], body[raster.index])
    return Coverage(
        maps=maps, body=body, positions_mm=positions, centres=geometry.voxel_coordinates(positions[:-1])
    )


def _rasters(geometry: SliceGeometry, oversampling: int, downsampling: Downsampling) -> Iterator[Raster]:
    for index in range(geometry.n_slices):
        yield Raster(
            index=index,
            n_rows=geometry.n_rows,
            n_columns=geometry.n_columns,
            spacing_mm=geometry.spacing_mm,
            thickness_mm=geometry.thickness_mm,
            slice_distance_mm=geometry.slice_distance_mm,
            oversampling=oversampling,
            how=downsampling,
        )


def _draw_slice(
    plate: DigitalPlate,
    geometry: SliceGeometry,
    placement: Placement,
    raster: Raster,
    maps: NDArray[np.float32],
    body: NDArray[np.float32],
) -> None:
    """Fill the maps of one slice; what lies inside something else is taken out of it."""

    def voxels(points: Sequence[Vector]) -> NDArray[np.float64]:
        moved = placement.apply(points, pivot_mm=plate.centre_mm)
        return geometry.voxel_coordinates(moved)

    scale = placement.scale / 2
    body[:] = raster.ball(voxels([(0.0, 0.0, 0.0)])[0], plate.body_diameter_mm * scale)
    water = body.copy()
    for index, (sphere, centre) in enumerate(
        zip(plate.spheres, voxels([s.position_mm for s in plate.spheres]), strict=True)
    ):
        maps[index] = raster.ball(centre, sphere.inner_diameter_mm * scale)
        water -= raster.ball(centre, sphere.outer_diameter_mm * scale)
        if sphere.bubble_diameter_mm > 0:
            bubble = voxels([sphere.bubble_position_mm])[0]
            maps[index] -= raster.ball(bubble, sphere.bubble_diameter_mm * scale)
    for post in plate.posts:
        water -= raster.rod(voxels([post.position_mm])[0], post.diameter_mm * scale)
    maps[-1] = water
