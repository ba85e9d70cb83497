"""Standard errors of a myelin water fraction by linear propagation of noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cordqa.models.myelin.echo_basis import EchoBasis
from cordqa.models.myelin.nonnegative import solve_free
from cordqa.models.myelin.spectra import Spectra

__all__ = ["propagate_noise"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Standard deviation of max(0, z) for a standard normal z: that of an estimate which cannot fall below 0.
_AT_ZERO = float(np.sqrt(0.5 - 0.5 / np.pi))


def propagate_noise(
    found: Spectra, basis: EchoBasis, myelin: Mask, spread: Array, *, angle_fitted: bool
) -> tuple[Array, Array]:
    """Carry noise through the fit, linearised about the free amplitudes and the angle.

    Parameters
    ----------
    found : Spectra
    basis : EchoBasis
    myelin : ndarray of bool, shape (n_t2,)
        Components of myelin water.
    spread : ndarray, shape (m,)
        Standard deviation of the noise of the scaled signals.
    angle_fitted : bool

    Returns
    -------
    fraction_se : ndarray, shape (m,)
        In %.  Where no myelin water was found, that of an estimate which cannot fall below 0.
    total_se : ndarray, shape (m,)
        Of the sum of all amplitudes.
    """
    x = found.amplitudes
    slope = basis.derivative(found.node, x)
    # The angle is one more column; without it, it is a column that is never free.
    design = np.concatenate([found.decays, slope[:, :, None]], axis=2)
    varied, at_zero = _let_in(found, myelin)
    free = np.column_stack([varied, np.full(len(x), angle_fitted) & ((slope**2).sum(axis=1) > 1e-10)])
    n = x.shape[1]
    gram = np.empty((len(x), n + 1, n + 1))
    gram[:, :n, :n] = found.gram
    gram[:, n] = gram[:, :, n] = np.matmul(slope[:, None, :], design)[:, 0]
    gram[:, np.arange(n), np.arange(n)] += found.ridge[:, None]
    little = np.full(len(x), 1e-10)
    total = np.maximum(x.sum(axis=1), 1e-300)
    fraction = x[:, myelin].sum(axis=1) / total
    errors = []
    for direction in ((myelin[None, :] - fraction[:, None]) / total[:, None], np.ones_like(x)):
        weights = np.column_stack([direction, np.zeros(len(x))])
        # Sensitivity to each echo: design (G + ridge)^-1 weights.
        solved = solve_free(gram, np.where(free, weights, 0.0), little, free)
        sensitivity = np.matmul(design, solved[:, :, None])[:, :, 0]
        errors.append(spread * np.sqrt((sensitivity**2).sum(axis=1)))
    return 100.0 * np.where(at_zero, _AT_ZERO, 1.0) * errors[0], errors[1]


def _let_in(found: Spectra, myelin: Mask) -> tuple[Mask, Mask]:
    """Components that may vary, and the voxels in which one was added to those above 0.

    A fraction of 0 is not known without error: other noise would have let myelin water in.  There, its
    component nearest to being let in may vary.
    """
    x = found.amplitudes
    free = np.asarray(x > 0)
    at_zero = np.asarray(~free[:, myelin].any(axis=1))
    rows = np.flatnonzero(at_zero)
    slope = np.matmul(found.gram[rows], x[rows, :, None])[:, :, 0] + found.ridge[rows, None] * x[rows]
    gain = np.where(myelin, found.linear[rows] - slope, -np.inf)
    free[rows, gain.argmax(axis=1)] = True
    return free, at_zero
