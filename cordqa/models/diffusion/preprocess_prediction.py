"""What a volume of a diffusion series should look like, judged by all the others.

Within a shell the signal of a voxel is a smooth even function of direction: a constant and the second
(with many directions the fourth) order.  Its least-squares fit is a matrix that acts on the volumes, the
same for every voxel, and leaving each volume out of its own prediction costs nothing: a volume is then
compared with something that does not contain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradient_shells import find_shells
from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["contrast_groups", "left_out_matrix"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Volumes that a shell must have for a series in direction up to order 4 and 2: for predictions with little
#: noise, and for those with little bias.
LEAST_VOLUMES = {4: 45, 2: 12}
LEAST_VOLUMES_EXACT = {4: 24, 2: 12}
#: A volume that decides its own prediction more than this is predicted by the shell's mean instead.
LARGEST_LEVERAGE = 0.7


def contrast_groups(gradients: GradientTable) -> NDArray[np.intp]:
    """Number the volumes by contrast: b = 0 first, then shells by b-value and shape, shape (n,)."""
    groups = np.zeros(len(gradients), dtype=np.intp)
    first = int(gradients.is_b0.any())
    for number, shell in enumerate(find_shells(gradients)):
        groups[shell.volumes] = first + number
    return groups


def left_out_matrix(
    gradients: GradientTable,
    use: Mask | None = None,
    *,
    angular: bool = True,
    groups: NDArray[np.intp] | None = None,
    strict: bool = False,
    exact: bool = False,
) -> Array:
    """Return the matrix that predicts every volume from the other ones of its contrast.

    Parameters
    ----------
    gradients : GradientTable
        Encoding of n volumes.
    use : ndarray of bool, shape (n,), optional
        Volumes that may be used to predict; the others are still predicted.
    angular : bool
        Whether the prediction depends on direction; the mean of the shell otherwise.
    groups : ndarray of int, shape (n,), optional
        Contrasts; those of :func:`contrast_groups` by default.
    strict : bool
        Whether a volume whose direction cannot be predicted has no prediction at all, instead of the mean
        of its shell.
    exact : bool
        Whether the series goes to the fourth order as soon as it can: less bias, more noise.

    Returns
    -------
    ndarray, shape (n, n)
        Row i holds the weights of the volumes in the prediction of volume i, with zero for itself;
        NaN where nothing can predict it.
    """
    n = len(gradients)
    use = np.ones(n, dtype=bool) if use is None else use
    labels = contrast_groups(gradients) if groups is None else groups
    out = np.full((n, n), np.nan)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        helpers = mine[use[mine]]
        design = np.ones((n, 1))
        directed = not gradients.is_b0[mine].any() and gradients.b_delta[mine[0]] != 0
        if angular and directed:
            least = LEAST_VOLUMES_EXACT if exact else LEAST_VOLUMES
            design = _series(gradients.directions, len(helpers), least)
            if strict and design.shape[1] == 1:
                continue
        for volume in mine:
            out[volume] = _row(design, helpers, int(volume), strict=strict)
    return out


def _series(directions: Array, volumes: int, least_volumes: Mapping[int, int]) -> Array:
    """Monomials of even order in the direction: of order four hold those of order two."""
    for order, least in least_volumes.items():
        if volumes >= least:
            terms = [list(term) for term in combinations_with_replacement(range(3), order)]
            return np.stack([directions[:, term].prod(axis=1) for term in terms], axis=1)
    return np.ones((len(directions), 1))


def _row(design: Array, helpers: NDArray[np.intp], volume: int, *, strict: bool) -> Array:
    """Weights of the volumes in the prediction of one, without itself."""
    others = helpers[helpers != volume]
    row = np.full(len(design), np.nan)
    if others.size == 0:
        return row
    weights = design[volume] @ np.linalg.pinv(design[others], rcond=1e-6)
    # Far from the directions of all others the series extrapolates: leverage h/(1-h) of the left out.
    if float(weights @ weights) > LARGEST_LEVERAGE / (1.0 - LARGEST_LEVERAGE):
        if strict:
            return row
        weights = np.full(others.size, 1.0 / others.size)
    row[:] = 0.0
    row[others] = weights
    return row
