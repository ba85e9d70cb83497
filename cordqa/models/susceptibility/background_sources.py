"""Background as the field of sources outside the mask, found by conjugate gradients.

Projection onto dipole fields (Liu et al. 2011, doi:10.1002/nbm.1670) explains the total field by
sources outside alone; stopping early regularises it.  Sources are never placed in holes of the
mask: they would drink the local field.  The fit that also allows weaker sources inside the mask
(as total-field inversion does, Liu et al. 2017, doi:10.1002/mrm.26331) does not make the rim pay
for what is local.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.background_record import Background, check_field, make_background
from cordqa.models.susceptibility.dipole import Dipole, pad_for
from cordqa.models.susceptibility.harmonics import orthonormalise, unit_harmonics

__all__ = ["SourceFit", "fill_holes", "remove_by_projection", "source_fit"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

_PROJECTION_ITERATIONS = 30


def fill_holes(mask: Mask) -> Mask:
    """Fill what the mask encloses."""
    from scipy.ndimage import binary_fill_holes

    filled: Mask = binary_fill_holes(mask)
    return filled


@dataclass(slots=True)
class SourceFit:
    """Fit of sources on one grid.

    Attributes
    ----------
    dipole : Dipole
    index : ndarray of int, shape (n_voxels,)
        Flat indices of the voxels with data.
    tissue : ndarray of bool
        Filled mask and its continuation beyond the image: sources in it are local.
    weight : ndarray of float32, shape (n_voxels,)
    harmonics : ndarray of float32, shape (n_voxels, k)
        Orthonormal basis of the weighted fields of distant sources, which cost nothing.
    damping : float
        Weight of the squared sources, each in units of its expected size.
    """

    dipole: Dipole
    index: Index
    tissue: Mask
    weight: Single
    harmonics: Single
    damping: float = 1e-3

    def fit(
        self, field: Single, *, ratio: float, inside: float, iterations: int, start: Single | None = None
    ) -> tuple[Single, Single]:
        """Return the background field on the grid, and the sources.

        Parameters
        ----------
        field : ndarray of float32
            What is to be explained; only its values at ``index`` count.
        ratio : float
            Expected size of the sources outside.
        inside : float
            Expected size of the sources inside; 0 forbids them.
        iterations : int
            Of conjugate gradients: few, which regularises.
        start : ndarray of float32, optional
            Sources that an earlier fit found; none unless told.
        """
        prior = np.where(self.tissue, np.float32(inside), np.float32(ratio))
        sources = prior * self._solve(field, prior, iterations, start)
        remainder = field - self.dipole(sources)
        background = self.dipole(np.where(self.tissue, np.float32(0), sources))
        values = remainder.ravel()[self.index] * self.weight
        smooth = self.harmonics @ (values @ self.harmonics)
        background.ravel()[self.index] += smooth / np.maximum(self.weight, np.float32(1e-6))
        return background, sources

    def _solve(self, field: Single, prior: Single, iterations: int, start: Single | None) -> Single:
        """Conjugate gradients on the normal equations of the sources in units of their size."""
        step = np.zeros_like(field)
        if start is not None:
            step = np.divide(start, prior, out=step, where=prior > 0)
            field = field - self.dipole(start)
        residual = prior * self.dipole(self._project(field)) - np.float32(self.damping) * step
        direction = residual.copy()
        power = float(np.vdot(residual, residual))
        for _ in range(iterations):
            if power <= 0:
                break
            image = self.dipole(self._project(self.dipole(prior * direction)))
            image *= prior
            image += np.float32(self.damping) * direction
            rate = power / max(float(np.vdot(direction, image)), float(np.finfo(np.float32).tiny))
            step += np.float32(rate) * direction
            image *= np.float32(rate)
            residual -= image
            previous, power = power, float(np.vdot(residual, residual))
            direction *= np.float32(power / previous)
            direction += residual
        return step

    def _project(self, field: Single) -> Single:
        """Weigh twice, less what the harmonics explain."""
        values = field.ravel()[self.index] * self.weight
        values -= self.harmonics @ (values @ self.harmonics)
        image = np.zeros_like(field)
        image.ravel()[self.index] = values * self.weight
        return image


def remove_by_projection(
    total_field: Array,
    mask: Mask,
    *,
    voxel_size_mm: Sequence[float] | Array,
    b0_direction: Sequence[float] | Array,
    weight: Array | None = None,
    harmonic_degree: int = 4,
    iterations: int = _PROJECTION_ITERATIONS,
) -> Background:
    """Remove the background by projection onto dipole fields, stopped early; keeps the whole mask.

    Parameters
    ----------
    total_field : ndarray, shape (x, y, z)
        ppm.
    mask : ndarray of bool
    voxel_size_mm, b0_direction : sequence of float
    weight : ndarray, optional
        0 to 1; how far each voxel is to be trusted.
    harmonic_degree : int
        Fields of distant sources that are removed freely.
    iterations : int

    Raises
    ------
    InputError
    """
    field, used = check_field(total_field, mask)
    voxel = np.asarray(voxel_size_mm, dtype=float)
    padding = pad_for(used)
    inside = padding.embed_mask(used)
    fit = source_fit(
        Dipole(padding.shape, voxel, b0_direction),
        padding.extend_mask(fill_holes(used)),
        padding.embed(np.where(used, 1.0 if weight is None else weight, 0)),
        (np.flatnonzero(inside), unit_harmonics(inside, voxel, harmonic_degree)),
    )
    background, _ = fit.fit(padding.embed(field), ratio=1.0, inside=0.0, iterations=iterations)
    method = (
        f"Background was removed by projection onto dipole fields, {iterations} iterations of conjugate "
        f"gradients, sources outside the filled mask only, solid harmonics to degree {harmonic_degree} free."
    )
    return make_background(total_field, field - padding.crop(background), used, mask, method)


def source_fit(
    dipole: Dipole, tissue: Mask, weight: Single, harmonics: tuple[Index, Single], *, damping: float = 1e-3
) -> SourceFit:
    """Prepare the fit on a padded grid.

    Parameters
    ----------
    dipole : Dipole
    tissue : ndarray of bool
    weight : ndarray of float32
    harmonics : tuple of ndarray
        Flat indices of the voxels with data, and the values there of the fields that cost nothing.
    damping : float
    """
    index, fields = harmonics
    values = weight.ravel()[index]
    return SourceFit(dipole, index, tissue, values, orthonormalise(fields * values[:, None]), damping)
