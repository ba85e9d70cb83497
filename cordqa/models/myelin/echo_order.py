"""Do the first echoes of a train fit as well as its last ones?

A swap of two echoes, or a first echo that is too low, looks much like another refocusing angle: a fit
of each voxel finds it, and a wrong fraction with it.  What is left over tells: the last echoes hold noise
only, and the first ones fit as well as those where nothing is wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.myelin.water_fraction import MyelinWater, fit_water_spectra

__all__ = ["early_misfit"]

Array = NDArray[np.float64]
#: Voxels that are looked at, and the fewest that tell.
_LOOKED_AT, _FEWEST = 400, 50
_TINY = 1e-16


def early_misfit(signal: Array, settings: MyelinWater) -> float:
    """Return the squared residual of the first quarter of the echoes over that of the last, as a median.

    Parameters
    ----------
    signal : ndarray, shape (m, n_echoes)
        Magnitudes of voxels; those that cannot be fitted are passed over.
    settings : MyelinWater

    Returns
    -------
    float
        0.4 to 1 where the train is what the fit takes it for, more the more it is not; NaN with fewer
        than 50 voxels or no noise.
    """
    usable = np.flatnonzero(np.isfinite(signal).all(axis=1) & (signal > 0).all(axis=1))
    if usable.size < _FEWEST:
        return float("nan")
    some = signal[usable[:: -(-usable.size // _LOOKED_AT)]]
    found = fit_water_spectra(some, settings)
    scaled = some / some.max(axis=1, keepdims=True)
    square = (scaled - np.matmul(found.decays, found.amplitudes[:, :, None])[:, :, 0]) ** 2
    part = max(2, signal.shape[1] // 4)
    early, late = square[:, :part].mean(axis=1), square[:, -part:].mean(axis=1)
    if np.median(late) < _TINY:
        return float("nan")
    return float(np.median(early / np.maximum(late, _TINY)))
