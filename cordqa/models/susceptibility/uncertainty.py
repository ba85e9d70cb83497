"""Standard error of susceptibility, by parametric bootstrap.

Noise like that of the field, with what neighbours share, is added to the local field and the inversion
is done again, or continued from where it stands.  What comes out, less the mean of all that came out, is
a realisation of the noise of susceptibility, with its correlation between voxels.  The mean has to go,
not the map itself: more noise makes total variation flatten more, a shift that all realisations share
and no repeat shows (in the mean of the white matter of a cord it was twice the noise).

Realisations say how a repeated scan would scatter.  They include the noise of the field, the weights,
the regularisation and the free harmonics.  They do not include the bias of the regularisation, errors
of the background, movement or a wrong mask: those repeat, or are not noise.  Neither do they include what
the chain decides from the data and may decide differently in a repeat: how smooth the offset is, the
regularisation, and after which round it stops; ``benchmarks/susceptibility_uncertainty.py`` measures
how much that leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["noise_draws", "pooled_standard_error"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

#: Standard deviation of the average that calms a variance of few draws, voxels.
_POOLING = 0.4


def noise_draws(
    invert: Callable[[Single], Single],
    local_field: Single,
    draw: Callable[[np.random.Generator], Single],
    *,
    index: Index,
    probes: int,
    seed: int,
) -> Single:
    """Draw realisations of the noise of susceptibility.

    Parameters
    ----------
    invert : callable
        Makes susceptibility of a local field on the padded grid, and leaves no trace of it.
    local_field : ndarray of float32
        On the padded grid, ppm.
    draw : callable
        Makes a realisation of the noise of the field there, ppm.
    index : ndarray of int
        Flat indices of the valid voxels.
    probes, seed : int
        A single one is taken relative to the map itself.

    Returns
    -------
    ndarray of float32, shape (probes, n_valid)
        ppm; each has mean zero over the valid voxels.  The mean square over realisations is an unbiased
        variance, with ``probes - 1`` degrees of freedom.
    """
    rng = np.random.default_rng(seed)
    draws = np.empty((probes, index.size), dtype=np.float32)
    for number in range(probes):
        draws[number] = invert(local_field + draw(rng)).ravel()[index]
    if probes > 1:
        draws -= draws.mean(axis=0)
        draws *= np.float32(math.sqrt(probes / (probes - 1)))
    else:
        draws -= invert(local_field).ravel()[index]
    draws -= draws.mean(axis=1, keepdims=True)
    return draws


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
