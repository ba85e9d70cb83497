"""Kurtosis fit to magnitudes whose noise is known to be Rician.

Near the noise floor a magnitude is larger than the signal, and its logarithm far from normal; a
log-linear fit then takes the floor for kurtosis.  Here the prediction is compared with the magnitude
itself: quasi-likelihood with the Rician mean and variance, solved by Fisher scoring.  Each step is a
weighted least-squares problem, to which the bounds of the constrained fit apply as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.kurtosis_constrained import Cone, fit_constrained, project
from cordqa.models.diffusion.linear_fit import FLOOR, NOT_CONVERGED, Block, Design, LinearFit, solve_gram
from cordqa.models.diffusion.noise import rician_moments

__all__ = ["fit_rician"]

Array = NDArray[np.float64]

_MOST_STEPS = 25
#: A step ends when no expected magnitude moves by more than this share of the noise.
_SETTLED = 0.02
#: A voxel whose magnitudes still move by more than this share of the noise has not converged.
_UNSETTLED = 0.5
#: Largest change of a log signal in one step: the linearisation holds no farther.
_LONGEST_STEP = 1.0
_LOWEST_LOG, _HIGHEST_LOG = float(np.log(FLOOR)), 2.0
#: Weight of a sample at the floor, over that of one far above it: keeps every system solvable.
_LEAST_WEIGHT = 1e-8


def fit_rician(block: Block, design: Design, noise_sd: Array, cone: Cone, *, constrained: bool) -> LinearFit:
    """Fit by Rician quasi-likelihood.

    Parameters
    ----------
    noise_sd : ndarray, shape (m,)
        Standard deviation per channel over the block's level.
    constrained : bool
        Whether the bounds of the cone hold.

    Returns
    -------
    LinearFit
        Its normal matrices, times noise_sd^-2, are the Fisher information.
    """
    free, bounded = fit_constrained(block, design, cone)
    result = replace(free, gamma=bounded.gamma.copy(), gram=free.gram.copy(), weights=free.weights.copy())
    todo = np.flatnonzero(free.reason == 0)
    last = np.zeros(len(todo))
    for _ in range(_MOST_STEPS):
        part, sigma = block.at(todo), noise_sd[todo]
        before = result.gamma[todo]
        gamma, gram, weights = _step(part, design, before, sigma, cone if constrained else None)
        result.gamma[todo], result.gram[todo], result.weights[todo] = gamma, gram, weights
        last = _movement(before, gamma, design, sigma)
        todo = todo[last > _SETTLED]
        last = last[last > _SETTLED]
        if not todo.size:
            break
    reason = result.reason.copy()
    reason[todo[last > _UNSETTLED]] = NOT_CONVERGED
    return replace(result, reason=reason)


def _step(
    block: Block, design: Design, gamma: Array, sigma: Array, cone: Cone | None
) -> tuple[Array, Array, Array]:
    """One step of Fisher scoring from ``gamma`` (m, p); weights are relative to noise of one."""
    log = gamma @ design.basis.T
    signal = np.exp(np.clip(log, _LOWEST_LOG, _HIGHEST_LOG))
    mean, slope, variance = rician_moments(signal, sigma[:, None])
    by_log = slope * signal
    weights = np.maximum(by_log**2 / (variance / sigma[:, None] ** 2), _LEAST_WEIGHT) * block.used
    away = (block.samples - mean) / np.maximum(by_log, np.sqrt(_LEAST_WEIGHT))
    working = log + np.clip(away, -_LONGEST_STEP, _LONGEST_STEP)
    gram = design.gram(weights)
    free = solve_gram(gram, (weights * working) @ design.basis)
    bounded = free if cone is None else project(free, gram, design, cone).gamma
    change = np.abs((bounded - gamma) @ design.basis.T).max(axis=1)
    # Both ends of a step satisfy the bounds, and so does every point between them.
    share = np.minimum(1.0, 2 * _LONGEST_STEP / np.maximum(change, _LONGEST_STEP))
    return gamma + share[:, None] * (bounded - gamma), gram, weights


def _movement(before: Array, after: Array, design: Design, sigma: Array) -> Array:
    """Largest change of an expected magnitude over the noise, (m,)."""
    means = [
        rician_moments(np.exp(np.clip(gamma @ design.basis.T, _LOWEST_LOG, _HIGHEST_LOG)), sigma[:, None])[0]
        for gamma in (before, after)
    ]
    return np.asarray((np.abs(means[1] - means[0]) / sigma[:, None]).max(axis=1))
