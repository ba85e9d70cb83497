"""How motion is looked for, and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.motion_slices import MARGIN_MM

__all__ = ["Motion", "MotionSettings"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSettings:
    """How motion is looked for.

    Attributes
    ----------
    group_size : int
        So many neighbouring volumes may share part of their motion.
    interleaved : bool
        Whether odd and even slices of a volume may lie apart.
    rotation : bool
        Whether one rotation about the slice normal is estimated per volume.
    margin_mm : float
        Around the mask, this much enters the comparison.
    least_voxels : float
        Slices that moved less than this are left as they are: resampling costs sharpness.
    """

    group_size: int = 3
    interleaved: bool = True
    rotation: bool = False
    margin_mm: float = MARGIN_MM
    least_voxels: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Where the content of every slice of every volume lies, against the mean of the series.

    Attributes
    ----------
    shift_voxels, error_voxels : ndarray, shape (n_volumes, n_slices, 2)
        Displacement of the content towards the first and second array axis, and its standard error;
        infinite where no cord was looked at.
    turn_deg, turn_error_deg : ndarray, shape (n_volumes,)
        Rotation of the content from the first towards the second axis; zero where not asked for.
    centre_voxels : ndarray, shape (n_slices, 2)
        Centre of that rotation.
    measured : ndarray of bool, shape (n_volumes, n_slices)
        False where the shift was filled in from neighbours.
    spread_voxels : mapping of str to float
        Standard deviation of the parts of motion, by axis and part.
    spacing_mm : tuple of float
    sentence : str
        What was done, for the methods text.
    notices : tuple of str
    """

    shift_voxels: Array
    error_voxels: Array
    turn_deg: Array
    turn_error_deg: Array
    centre_voxels: Array
    measured: Mask
    spread_voxels: Mapping[str, float]
    spacing_mm: tuple[float, float, float]
    sentence: str
    notices: tuple[str, ...]

    @property
    def displacement_mm(self) -> Array:
        """Mean length of the shift over the measured slices of every volume, shape (n_volumes,)."""
        length = np.hypot(*np.moveaxis(self.shift_voxels * np.array(self.spacing_mm[:2]), 2, 0))
        return np.asarray(length[:, self._columns].mean(axis=1), dtype=float)

    @property
    def _columns(self) -> Mask:
        """Slices that were measured in some volume; all where none was."""
        some = self.measured.any(axis=0)
        return np.asarray(some if some.any() else ~some, dtype=bool)

    def table(self) -> list[dict[str, float]]:
        """One row per volume: mean and largest shift, rotation, standard error (NaN where not known)."""
        mm = self.shift_voxels * np.array(self.spacing_mm[:2])
        error = self.error_voxels * np.array(self.spacing_mm[:2])
        columns = self._columns
        return [
            {
                "volume": float(v),
                "shift_first_mm": float(mm[v, columns, 0].mean()),
                "shift_second_mm": float(mm[v, columns, 1].mean()),
                "displacement_mm": float(self.displacement_mm[v]),
                "largest_displacement_mm": float(np.hypot(*mm[v, columns].T).max()),
                "error_mm": _finite(float(np.sqrt((error[v, columns] ** 2).mean()))),
                "turn_deg": float(self.turn_deg[v]),
                "slices_measured": float(self.measured[v].sum()),
            }
            for v in range(mm.shape[0])
        ]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
