"""Where slices and phantoms lie in the scanner, in LPS millimetres.

The scanner frame is the patient frame of DICOM: +x left, +y posterior, +z superior.  A phantom
whose own frame has the same axes lies straight when its placement is the default one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError

__all__ = ["LPS_TO_RAS", "Placement", "SliceGeometry"]

Array = NDArray[np.float64]
Vector = tuple[float, float, float]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CORONAL_SPACING_MM = 250 / 192


def _about_axis(axis: int, angle_deg: float) -> Array:
    """Return the right-handed rotation matrix about one of the three axes."""
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[after, after] = matrix[last, last] = cosine
    matrix[last, after], matrix[after, last] = sine, -sine
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How a phantom lies in the scanner, turned about the centre of the plate that is imaged.

    Attributes
    ----------
    rotation_deg : float
        Rotation about +y (posterior), the normal of the plates of the system phantom.
    tilt_deg : tuple of float
        Rotations about +x and +z, applied after ``rotation_deg``: the plate leaves the slice.
    shift_mm : tuple of float
        Displacement in LPS, applied last.
    scale : float
        Apparent over true size, the calibration error of the gradients; > 0.
    """

    rotation_deg: float = 0.0
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    shift_mm: Vector = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        values = (self.rotation_deg, *self.tilt_deg, *self.shift_mm, self.scale)
        if not np.isfinite(values).all() or self.scale <= 0:
            raise ConfigError("a placement needs finite values and a positive scale", found=str(self))

    def apply(self, points_mm: ArrayLike, *, pivot_mm: ArrayLike) -> Array:
        """Move points of the phantom into the scanner frame; shape (..., 3) in and out."""
        pivot = np.asarray(pivot_mm, dtype=float)
        rotation = (
            _about_axis(0, self.tilt_deg[0])
            @ _about_axis(2, self.tilt_deg[1])
            @ _about_axis(1, self.rotation_deg)
        )
        centred = np.asarray(points_mm, dtype=float) - pivot
        moved: Array = self.scale * centred @ rotation.T + pivot + np.asarray(self.shift_mm)
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceGeometry:
    """A stack of parallel slices; the defaults are one coronal slice as a radiographer plans it.

    Attributes
    ----------
    n_rows, n_columns, n_slices : int
        Size of the stack.
    spacing_mm : tuple of float
        Distance between rows and between columns.
    thickness_mm : float
        Thickness of the slices, with a rectangular profile.
    slice_distance_mm : float
        Distance between slice centres.
    centre_mm : tuple of float
        Centre of the stack, LPS.
    row_direction, column_direction : tuple of float
        Unit vectors in LPS along which the column index and the row index increase, as in
        DICOM's Image Orientation (Patient).
    """

    n_rows: int = 192
    n_columns: int = 192
    n_slices: int = 1
    spacing_mm: tuple[float, float] = (_CORONAL_SPACING_MM, _CORONAL_SPACING_MM)
    thickness_mm: float = 5.0
    slice_distance_mm: float = 5.0
    centre_mm: Vector = (0.0, 0.0, 0.0)
    row_direction: Vector = (1.0, 0.0, 0.0)
    column_direction: Vector = (0.0, 0.0, -1.0)

    def __post_init__(self) -> None:
        if min(self.n_rows, self.n_columns, self.n_slices) < 1:
            raise ConfigError("a slice stack needs at least one row, column and slice", found=str(self))
        lengths = (*self.spacing_mm, self.thickness_mm, self.slice_distance_mm)
        if not all(np.isfinite(length) and length > 0 for length in lengths):
            raise ConfigError("distances of a slice stack must be positive", found=str(lengths))
        axes = np.array([self.row_direction, self.column_direction])
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-6):
            raise ConfigError("row and column directions must be perpendicular unit vectors", found=str(axes))

    @classmethod
    def coronal(
        cls,
        *,
        centre_mm: Vector = (0.0, 0.0, 0.0),
        rotation_deg: float = 0.0,
        mirror: bool = False,
        matrix: int = 192,
        field_of_view_mm: float = 250.0,
        thickness_mm: float = 5.0,
    ) -> SliceGeometry:
        """Return one coronal slice, turned in its plane; ``mirror`` looks at it from behind."""
        turn = _about_axis(1, rotation_deg)
        row = turn @ np.array([-1.0 if mirror else 1.0, 0.0, 0.0])
        column = turn @ np.array([0.0, 0.0, -1.0])
        spacing = field_of_view_mm / matrix
        return cls(
            n_rows=matrix,
            n_columns=matrix,
            spacing_mm=(spacing, spacing),
            thickness_mm=thickness_mm,
            centre_mm=centre_mm,
            row_direction=(float(row[0]), float(row[1]), float(row[2])),
            column_direction=(float(column[0]), float(column[1]), float(column[2])),
        )

    def resized(self, matrix: int) -> SliceGeometry:
        """Return the same field of view on ``matrix`` rows and columns."""
        rows, columns = self.spacing_mm
        spacing = (rows * self.n_rows / matrix, columns * self.n_columns / matrix)
        return replace(self, n_rows=matrix, n_columns=matrix, spacing_mm=spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.n_slices, self.n_rows, self.n_columns

    @property
    def affine_lps(self) -> Array:
        """Matrix from (slice, row, column, 1) to LPS millimetres."""
        row, column = np.array(self.row_direction), np.array(self.column_direction)
        affine = np.eye(4)
        affine[:3, 0] = np.cross(row, column) * self.slice_distance_mm
        affine[:3, 1] = column * self.spacing_mm[0]
        affine[:3, 2] = row * self.spacing_mm[1]
        middle = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = np.array(self.centre_mm) - affine[:3, :3] @ middle
        return affine

    @property
    def affine(self) -> Array:
        """Matrix from (slice, row, column, 1) to RAS+ millimetres."""
        return LPS_TO_RAS @ self.affine_lps

    def voxel_coordinates(self, points_mm: ArrayLike) -> Array:
        """Return (slice, row, column) of LPS points, not rounded; shape (..., 3) in and out."""
        affine = self.affine_lps
        offset = np.asarray(points_mm, dtype=float) - affine[:3, 3]
        coordinates: Array = offset @ np.linalg.inv(affine[:3, :3]).T
        return coordinates

    def voxel_positions(self) -> Array:
        """Return the LPS position of every voxel centre, shape (slices, rows, columns, 3)."""
        indices = np.moveaxis(np.indices(self.shape), 0, -1)
        positions: Array = indices @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]
        return positions
