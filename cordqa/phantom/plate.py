"""Records of plate location: the layout that is sought, what was found, and why not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import DefinitionError, LocateError

__all__ = [
    "LocateDiagnostics",
    "LocateSettings",
    "Location",
    "NotLocatedError",
    "PlateLayout",
    "PlatePose",
]

Array = NDArray[np.float64]

_MINIMUM_SPHERES = 4


@dataclass(frozen=True, eq=False)
class PlateLayout:
    """Where the spheres of one plate are, in the plate's own plane.

    Attributes
    ----------
    name : str
        For messages.
    sphere_ids : tuple of int
    positions_mm : ndarray, shape (n_spheres, 2)
        First axis to the right and second axis up, as the plate is drawn.
    inner_diameter_mm, outer_diameter_mm : ndarray, shape (n_spheres,)
        Of the liquid and of the shell around it; one number serves for all.
    noun : str
        What one of them is called, for messages.
    """

    name: str
    sphere_ids: tuple[int, ...]
    positions_mm: Array
    inner_diameter_mm: Array
    outer_diameter_mm: Array
    noun: str = "sphere"

    def __post_init__(self) -> None:
        n = len(self.sphere_ids)
        object.__setattr__(self, "positions_mm", np.array(self.positions_mm, dtype=float))
        for name in ("inner_diameter_mm", "outer_diameter_mm"):
            values = np.array(getattr(self, name), dtype=float)
            if values.shape not in ((), (1,), (n,)):
                raise DefinitionError(
                    "one diameter for each sphere is needed",
                    where=f"plate {self.name}",
                    found=f"{values.size}",
                    expected=f"1 or {n}",
                )
            object.__setattr__(self, name, np.broadcast_to(values, (n,)).copy())
        self._check(n)

    def _check(self, n: int) -> None:
        where = f"plate {self.name}"
        if n < _MINIMUM_SPHERES or len(set(self.sphere_ids)) != n:
            raise DefinitionError(
                "a plate needs at least four spheres with different numbers",
                where=where,
                found=str(self.sphere_ids),
            )
        if self.positions_mm.shape != (n, 2) or not np.isfinite(self.positions_mm).all():
            raise DefinitionError(
                "positions must be finite, two for each sphere",
                where=where,
                found=f"shape {self.positions_mm.shape}",
                expected=f"({n}, 2)",
            )
        inner, outer = self.inner_diameter_mm, self.outer_diameter_mm
        if not bool(((inner > 0) & (outer >= inner) & np.isfinite(outer)).all()):
            raise DefinitionError("diameters must be 0 < inner <= outer", where=where)

    @property
    def kinds(self) -> NDArray[np.intp]:
        """Kind of each sphere by size, an index into :attr:`radii_mm`."""
        return np.unique(self._radii, axis=0, return_inverse=True)[1].reshape(-1).astype(np.intp)

    @property
    def radii_mm(self) -> tuple[tuple[float, float], ...]:
        """Inner and outer radius of each kind of sphere."""
        return tuple((float(inner), float(outer)) for inner, outer in np.unique(self._radii, axis=0))

    @property
    def _radii(self) -> Array:
        return np.column_stack([self.inner_diameter_mm, self.outer_diameter_mm]) / 2

    @property
    def narrowest_mm(self) -> float:
        """Smallest width of the sphere centres over all directions."""
        angle = np.linspace(0, np.pi, 36, endpoint=False)
        along = self.positions_mm @ np.stack([np.cos(angle), np.sin(angle)])
        return float(np.ptp(along, axis=0).min())


@dataclass(frozen=True, slots=True, kw_only=True)
class LocateSettings:
    """Limits of the search and of what is accepted.

    Attributes
    ----------
    step_mm, smoothing_mm : float
        Grid and Gaussian smoothing of the evidence in a slice.
    volume_step_mm, volume_smoothing_mm : float
        The same in a volume.
    maximum_images, maximum_volume_images : int
        More images than this are thinned out evenly: neighbours along a decay show the same edges.
    scale_tolerance : float
        Largest departure of a distance between two spheres from the layout's, as a share.
    maximum_anisotropy : float
        Largest ratio of the plane's stretches (1.035 is a slice tilted by 15 degrees).
    minimum_evidence : float
        A sphere with less is not seen.  A complete circle gives 1, noise about 0 +- 0.1.
    minimum_score : float
        Mean evidence over the plate.
    minimum_flatness : float
        Median over the spheres of how flat the core of the circle is.  Falls below 0.7 where a slice
        lies about 4 mm or more off the centres of spheres of 15 mm; NaN in volumes.
    maximum_residual_mm : float
        Root mean square distance between sphere centres and pose.
    maximum_distance_mm : float
        Largest distance of one sphere from the pose.
    local_offset_mm : float
        How far a centre may follow its own sphere away from the pose (the spheres are glued in).
    """

    step_mm: float = 1.0
    smoothing_mm: float = 1.25
    volume_step_mm: float = 2.0
    volume_smoothing_mm: float = 1.5
    maximum_images: int = 10
    maximum_volume_images: int = 4
    scale_tolerance: float = 0.08
    maximum_anisotropy: float = 1.08
    minimum_evidence: float = 0.4
    minimum_score: float = 0.5
    minimum_flatness: float = 0.7
    maximum_residual_mm: float = 1.2
    maximum_distance_mm: float = 2.5
    local_offset_mm: float = 1.5


@dataclass(frozen=True, eq=False)
class PlatePose:
    """One labelling of a located plate.

    Attributes
    ----------
    voxels : ndarray, shape (n_spheres, 3)
        Sphere centres as (slice, row, column), in the order of the layout; fractions of a voxel.
    residual_mm : float
        Root mean square distance between the spheres' own centres and the pose.
    scale : float
        Apparent size over true size.
    rotation_deg : float
        Angle of the layout's first axis, counter-clockwise on the displayed image, -180 to 180.
    mirrored : bool
        The displayed image shows the layout from behind.
    slice_index : int
        Slice nearest to the middle of the plate.
    normal : tuple of float
        Unit vector across the plate in (slice, row, column) axes.
    tilt_deg : float
        Angle between the plate and the nearest plane of the voxel grid; NaN where one slice cannot tell.
    """

    voxels: Array
    residual_mm: float
    scale: float
    rotation_deg: float
    mirrored: bool
    slice_index: int
    normal: tuple[float, float, float] = (1.0, 0.0, 0.0)
    tilt_deg: float = math.nan

    @property
    def centres(self) -> Array:
        """Row and column of each sphere centre, shape (n_spheres, 2)."""
        return self.voxels[:, 1:]

    @property
    def is_spatial(self) -> bool:
        """Tell whether whole spheres were located in a volume, not circles in one slice."""
        return not math.isnan(self.tilt_deg)


@dataclass(frozen=True, eq=False)
class LocateDiagnostics:
    """What the search saw, enough to draw it; kept also when the plate is refused.

    Attributes
    ----------
    sphere_ids : tuple of int
        In one of the possible labellings.
    voxels : ndarray, shape (n_spheres, 3)
        Where the best pose puts the spheres, as (slice, row, column).
    evidence : ndarray, shape (n_spheres,)
        Evidence for a sphere there: 1 is a complete circle of edges, 0 is nothing.
    distance_mm : ndarray, shape (n_spheres,)
        Distance of each sphere's own centre from the pose; NaN where it was not seen.
    flatness : ndarray, shape (n_spheres,)
        1 where the core of the circle is flat, 0 where it consists of edges (the slice misses the
        sphere's centre, or something is in the sphere); NaN in volumes.
    seen : ndarray of bool, shape (n_spheres,)
    score, residual_mm, scale, anisotropy : float
    n_peaks : int
        Candidate circles of any kind in the images.
    """

    sphere_ids: tuple[int, ...]
    voxels: Array
    evidence: Array
    distance_mm: Array
    flatness: Array
    seen: NDArray[np.bool_]
    score: float
    residual_mm: float
    scale: float
    anisotropy: float
    n_peaks: int


@dataclass(frozen=True, eq=False)
class Location:
    """A located plate: every labelling that its positions allow.

    Attributes
    ----------
    candidates : tuple of PlatePose
        One for each symmetry of the layout.  They share the same centres in another order.
    orders : ndarray of int, shape (n_candidates, n_spheres)
        ``candidates[c].voxels[j]`` is ``candidates[0].voxels[orders[c, j]]``: measure once at the
        first candidate's centres and use ``values[orders]`` for all.
    score : float
        Mean evidence over the spheres, at most 1.
    residual_mm : float
    diagnostics : LocateDiagnostics
        In the order of the first candidate.
    """

    candidates: tuple[PlatePose, ...]
    orders: NDArray[np.intp]
    score: float
    residual_mm: float
    diagnostics: LocateDiagnostics


class NotLocatedError(LocateError):
    """The plate was refused; ``diagnostics`` holds the best pose found, if there was any."""

    def __init__(
        self,
        what: str,
        *,
        diagnostics: LocateDiagnostics | None = None,
        where: str = "",
        found: str = "",
        expected: str = "",
        todo: str = "",
    ) -> None:
        super().__init__(what, where=where, found=found, expected=expected, todo=todo)
        self.diagnostics = diagnostics
