"""Standard error of susceptibility, by parametric bootstrap.

Noise drawn from the error map of the field is added to the local field and the inversion is
continued from where it stands; what comes out less what comes out without added noise is a
realisation of the noise of susceptibility, with its correlation between voxels.  It says how a repeated scan
would scatter.  It includes the noise of the field, the weights, the regularisation and the free
harmonics.  It does not include the bias of the regularisation, errors of the background, movement
or a wrong mask: those repeat, or are not noise.

On simulated brains and cords, 12 repeats each, 95 to 97 % of voxels lay within 1.96 standard errors
of the mean of the repeats, and those of regions were within a factor of two of their scatter in
most; of the truth, only 36 to 92 % of voxels lay as close.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.inversion_tv import TotalVariation

__all__ = ["noise_draws", "pooled_standard_error"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

#: Enough for the change to arrive; in more steps the free harmonics drift further than the rounds of
#: background removal let them.
_ITERATIONS = 10
#: Standard deviation of the average that calms a variance of few draws, voxels.
_POOLING = 1.0


def noise_draws(
    solver: TotalVariation,
    local_field: Single,
    weight: Single,
    error: Single,
    regularisation: float,
    *,
    index: Index,
    harmonics: tuple[Index, Single] | None,
    probes: int,
    seed: int,
) -> Single:
    """Draw realisations of the noise of susceptibility.

    Parameters
    ----------
    solver : TotalVariation
        Where the inversion stands; it is left as it is.
    local_field, weight, error : ndarray of float32
        On the padded grid; error is one standard deviation of the field, ppm.
    regularisation : float
    index : ndarray of int
        Flat indices of the valid voxels.
    harmonics : tuple of ndarray or None
        As in :meth:`TotalVariation.solve`.
    probes, seed : int

    Returns
    -------
    ndarray of float32, shape (probes, n_valid)
        ppm; each has mean zero over the valid voxels.
    """
    rng = np.random.default_rng(seed)

    def continued(field: Single) -> Single:
        chi = solver.copy().solve(field, weight, regularisation, iterations=_ITERATIONS, harmonics=harmonics)
        return np.asarray(chi.ravel()[index], dtype=np.float32)

    still = continued(local_field)
    draws = np.empty((probes, index.size), dtype=np.float32)
    for number in range(probes):
        noise = rng.standard_normal(local_field.shape, dtype=np.float32) * error
        draws[number] = continued(local_field + noise) - still
    return np.asarray(draws - draws.mean(axis=1, keepdims=True), dtype=np.float32)


def pooled_standard_error(draws: Single, valid: Mask) -> Array:
    """Return the standard error per voxel, its variance averaged over close neighbours.

    Parameters
    ----------
    draws : ndarray, shape (n_probes, n_valid)
    valid : ndarray of bool

    Returns
    -------
    ndarray, shape of ``valid``
        ppm; NaN outside.
    """
    from scipy.ndimage import gaussian_filter

    variance, share = np.zeros(valid.shape), valid.astype(float)
    variance[valid] = (draws.astype(float) ** 2).mean(axis=0)
    smooth = gaussian_filter(variance, _POOLING) / np.maximum(gaussian_filter(share, _POOLING), 1e-6)
    return np.where(valid, np.sqrt(smooth), np.nan)
