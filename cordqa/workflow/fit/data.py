"""What a model's fit is given: voxels, settings with their origin, maps and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Acquisition

__all__ = ["FitData", "OptionValue", "SettingValue"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
OptionValue = float | int | str | bool | tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class SettingValue:
    """Values of one acquisition parameter, one per image that it describes, and where they come from.

    ``origin`` is ``sidecar``, ``user``, ``default`` or empty (nothing is known; values are NaN).
    """

    values: Array
    origin: str

    @property
    def known(self) -> bool:
        """Whether every image has a value."""
        return bool(self.values.size) and bool(np.isfinite(self.values).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class FitData:
    """Voxels and everything that describes them.

    Attributes
    ----------
    signal : ndarray of float32, shape (m, n) or (i, j, k, n)
        All images in the order of the command line, last axis; infinities are NaN.
    roles : mapping of str to slice
        Which of the n images have which role.
    settings : mapping of str to SettingValue
    acquisitions : tuple of Acquisition
        One per image, SI units, with origins.
    maps : mapping of str to ndarray, shape (m,) or (i, j, k)
        Only those that were given.
    noise_sd : ndarray, shape (m,) or (i, j, k), or None
        One standard deviation of the images, in their unit.
    options : mapping
        Every option of the model.
    gradients : GradientTable or None
    mask : ndarray of bool, shape (i, j, k)
        Voxels to be fitted; those of a chunk come in its order (C order of the array).
    affine : ndarray, shape (4, 4)
    state : mapping
        What ``prepare`` stored.
    sidecar : mapping
        What the sidecar of the first image says; empty without one.
    """

    signal: NDArray[np.float32]
    roles: Mapping[str, slice]
    settings: Mapping[str, SettingValue]
    acquisitions: tuple[Acquisition, ...]
    maps: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)
    noise_sd: NDArray[np.floating[Any]] | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    gradients: GradientTable | None = None
    mask: Mask
    affine: Array
    state: Mapping[str, Any] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the voxels."""
        return self.signal.shape[:-1]

    def of(self, role: str) -> Array:
        """Return the images of one role, shape (..., n)."""
        return self.signal[..., self.roles[role]].astype(np.float64)

    def image(self, role: str) -> Array:
        """Return the only image of a role, voxel shape."""
        return self.of(role)[..., 0]

    def values(self, setting: str) -> Array:
        """Return one parameter of every image that it describes; NaN where it is not known."""
        return self.settings[setting].values

    def value(self, setting: str) -> float:
        """Return a parameter that all images share."""
        return float(self.settings[setting].values[0])

    def map(self, name: str) -> Array | None:
        """Return a map that was given, voxel shape."""
        found = self.maps.get(name)
        return None if found is None else found.astype(np.float64)

    def number(self, option: str) -> float:
        """Return an option that is a number."""
        value = self.options[option]
        if isinstance(value, (str, tuple)) or value is None:
            raise TypeError(f"the option {option} is no number")
        return float(value)

    def text(self, option: str) -> str:
        """Return an option that is a word."""
        return str(self.options[option])

    def flag(self, option: str) -> bool:
        """Return an option that is set or not."""
        return bool(self.options[option])

    def rows(self, which: slice | NDArray[np.intp]) -> FitData:
        """Return some of the voxels of a list of voxels."""
        return replace(
            self,
            signal=self.signal[which],
            maps={name: values[which] for name, values in self.maps.items()},
            noise_sd=None if self.noise_sd is None else self.noise_sd[which],
        )
