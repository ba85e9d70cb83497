"""Gradient tables: b-value, direction and shape of the encoding of each volume.

The b-tensor of an axially symmetric encoding is ``b/3 [(1 - b_delta) I + 3 b_delta n n']``: linear
encoding has ``b_delta = 1``, spherical 0, planar -1/2 with ``n`` the normal of the plane
(Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError

__all__ = ["LINEAR", "PLANAR", "SPHERICAL", "GradientTable"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LINEAR, PLANAR, SPHERICAL = 1.0, -0.5, 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientTable:
    """Encoding of every volume of a diffusion series.

    Attributes
    ----------
    b_values_s_mm2 : ndarray, shape (n,)
        Trace of the b-tensor, s/mm2.
    directions : ndarray, shape (n, 3)
        Unit symmetry axes in the axes of the image array (not of the scanner, and with no sign
        convention of any file format left in them); zero where there is none (b = 0, spherical).
    b_delta : ndarray, shape (n,)
        Shape of the encoding, -1/2 to 1; 1 for conventional (linear) diffusion weighting.
    b0_limit_s_mm2 : float
        Volumes at or below it count as not weighted.
    """

    b_values_s_mm2: Array
    directions: Array
    b_delta: Array
    b0_limit_s_mm2: float = 50.0

    def __len__(self) -> int:
        return len(self.b_values_s_mm2)

    @classmethod
    def linear(cls, b_values_s_mm2: ArrayLike, directions: ArrayLike, **settings: float) -> GradientTable:
        """Build the table of a conventional scheme; directions are normalised, zero rows kept.

        Raises
        ------
        InputError
            If the shapes do not belong together.
        """
        b = np.asarray(b_values_s_mm2, dtype=float)
        n = np.asarray(directions, dtype=float)
        if b.ndim != 1 or n.shape != (b.size, 3):
            raise InputError(
                "b-values and directions do not belong together",
                found=f"{b.shape} and {n.shape}",
                expected="(n,) and (n, 3)",
            )
        length = np.linalg.norm(n, axis=1, keepdims=True)
        unit = np.divide(n, length, out=np.zeros_like(n), where=length > 0)
        return cls(b_values_s_mm2=b, directions=unit, b_delta=np.ones(b.size), **settings)

    @property
    def b_ms_um2(self) -> Array:
        """b-values in ms/um2, the unit in which diffusivities are of the order of one."""
        return self.b_values_s_mm2 * 1e-3

    @property
    def is_b0(self) -> Mask:
        """Volumes without diffusion weighting."""
        low: Mask = self.b_values_s_mm2 <= self.b0_limit_s_mm2
        return low

    @property
    def b_tensors_ms_um2(self) -> Array:
        """b-tensors, shape (n, 3, 3), ms/um2."""
        outer = self.directions[:, :, None] * self.directions[:, None, :]
        shape = (1 - self.b_delta)[:, None, None] * np.eye(3) + 3 * self.b_delta[:, None, None] * outer
        tensors: Array = self.b_ms_um2[:, None, None] / 3 * shape
        return tensors

    def select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> GradientTable:
        """Return the table of some of the volumes."""
        return GradientTable(
            b_values_s_mm2=self.b_values_s_mm2[which],
            directions=self.directions[which],
            b_delta=self.b_delta[which],
            b0_limit_s_mm2=self.b0_limit_s_mm2,
        )
