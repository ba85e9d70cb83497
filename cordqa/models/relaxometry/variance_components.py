"""How much of the scatter is misfit, image gain, and difference between regions: a small mixed model.

Curves of several regions, linearised at the current estimate, are

    residual = own parameters of the region + parameters of the scan + gain of the image + error

with normal gains, normal deviations of the inversion factor of a region from that of the scan, and
errors of stated noise plus misfit.  The standard deviations of misfit, gains and deviations are not
known.  Instead of one estimate of them, which with a handful of images is often zero by chance, the
restricted likelihood is evaluated over a grid of all three, and the estimates are averaged over the
grid with it: their uncertainty then includes that of the variances.

The normal equations are an arrowhead (3 x 3 per region, bordered by what is shared), so the cost
grows with the number of regions, not with its cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["APART", "GAIN", "MISFIT", "SPREAD", "Linearised", "Posterior", "average_over_components"]

Array = NDArray[np.float64]

#: Standard deviations that are tried: misfit and image gain as fractions of the signal, spread as
#: the standard deviation of the inversion factor between regions.
MISFIT = np.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]) / 100
GAIN = np.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]) / 100
SPREAD = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0]) / 100
#: Prior probability that the gain of a scan does not drift, and that its inversion factor does not
#: differ between regions; the scale of either is left open.  Of four real scans three drift, and the
#: two whose inversion factor is well below 2 spread by 0.02.  With these values the 95 % intervals
#: cover 95 to 98 % without spread and 93 to 96 % at 0.01 to 0.02; a spread of 0.005, which the data
#: hardly show, leaves 89 % (``benchmarks/relaxometry_recovery.py``).
_NO_DRIFT, _NO_SPREAD = 1 / 2, 2 / 3
#: Prior of what is shared (mean, standard deviation).  Inversion pulses turn by 90 to 180 degrees
#: and take some milliseconds; both are far wider than what a plate of spheres determines, and only
#: matter where the regions are all alike and the data determine no more than a combination of the two.
_PRIOR_MEAN = np.array([1.9, 0.0])
_PRIOR_SD = np.array([0.2, 0.020])
#: Standard deviation of the inversion factor of a region that stands apart.
APART = 0.15
#: Prior precision of the logarithms of T1 and M0: keeps a region without information solvable.
_SMALLEST_PRECISION = 1e-6


@dataclass(frozen=True, slots=True)
class Linearised:
    """The curves of all regions, linear in every parameter.

    ``residual`` (R, N) is measured minus predicted, with the current inversion deviations, gains and
    shared parameters put back, because these are solved for as such and not as steps; ``own``
    (R, N, 3) are the derivatives by ln T1, ln M0 and the inversion factor of the region, ``shared``
    (R, N, P) those by inversion factor, time offset and image gains; ``noise`` and ``misfit`` (R, N)
    are the stated variance and the variance at a misfit of 1; ``weight`` (R, N) is 0 for samples that
    are not there and below 1 for regions that are doubted; ``apart`` (R,) marks regions whose
    inversion factor has nothing to do with that of the others.
    """

    residual: Array
    own: Array
    shared: Array
    noise: Array
    misfit: Array
    weight: Array
    apart: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Posterior:
    """Averages over the variance components.

    ``own`` (R, 3) are the steps of ln T1 and ln M0 and the deviation of the inversion factor, with
    ``own_variance`` (R, 3); ``factor_variance`` (R,) is that of the inversion factor of the region as
    a whole; ``shared`` (P,) and ``shared_variance`` (P,) are factor, offset and gains; ``likeliest``
    are the values of misfit, spread and gain with the largest probability, and ``at_end`` says which
    of them more probably than not lie at the end of the grid.
    """

    own: Array
    own_variance: Array
    factor_variance: Array
    shared: Array
    shared_variance: Array
    likeliest: tuple[float, float, float]
    at_end: tuple[bool, bool, bool]

    @classmethod
    def unknown(cls, n_regions: int, n_shared: int) -> Posterior:
        """Return what is known before anything was solved: no component, no variance."""
        own, region, shared = np.zeros((n_regions, 3)), np.full(n_regions, np.nan), np.zeros(n_shared)
        none = (0.0, 0.0, 0.0)
        return cls(own, own * np.nan, region, shared, shared * np.nan, none, (False, False, False))

    @property
    def is_finite(self) -> bool:
        """Whether every parameter was found."""
        return bool(np.isfinite(self.own).all() and np.isfinite(self.shared).all())


def average_over_components(
    line: Linearised, *, misfit: Array = MISFIT, spread: Array = SPREAD, gain: Array = GAIN
) -> Posterior:
    """Solve for every combination of the variance components and average.

    Parameters
    ----------
    line : Linearised
    misfit, spread, gain : ndarray
        Standard deviations to try, ascending; a single 0 leaves a component out.

    Returns
    -------
    Posterior
    """
    blocks = _normal_equations(line, misfit)
    own = _eliminate_regions(blocks, spread, line.apart)
    tip = _solve_shared(own, gain, line.shared.shape[-1])
    cost = blocks["constant"][:, None, None] + own["log_determinant"][:, :, None] + tip["cost"]
    probability = np.exp(-(cost - cost.min()) / 2) * _prior(misfit.size, spread.size, gain.size)
    probability /= probability.sum()
    return _average(probability, own, tip, (misfit, spread, gain))


def _prior(n_misfit: int, n_spread: int, n_gain: int) -> Array:
    parts = []
    for n, none in ((n_misfit, 1 / n_misfit), (n_spread, _NO_SPREAD), (n_gain, _NO_DRIFT)):
        part = np.ones(n) if n == 1 else np.r_[none, np.full(n - 1, (1 - none) / (n - 1))]
        parts.append(part)
    prior: Array = parts[0][:, None, None] * parts[1][:, None] * parts[2]
    return prior


def _normal_equations(line: Linearised, misfit: Array) -> dict[str, Array]:
    """Sums over samples for each misfit: shapes begin with its number f, then the regions r."""
    weight = line.weight / (line.noise + misfit[:, None, None] ** 2 * line.misfit)
    used = weight > 0
    own = line.own * (line.weight > 0)[..., None]
    weighted_own = weight[..., None] * own
    weighted_shared = weight[..., None] * line.shared
    squares = np.einsum("frn,rn->f", weight, line.residual**2)
    return {
        "own": np.einsum("frna,rnb->frab", weighted_own, own),
        "mixed": np.einsum("frna,rnb->frab", weighted_own, line.shared),
        "shared": np.einsum("frna,rnb->fab", weighted_shared, line.shared),
        "own_right": np.einsum("frna,rn->fra", weighted_own, line.residual),
        "shared_right": np.einsum("frna,rn->fa", weighted_shared, line.residual),
        "constant": squares - np.log(np.where(used, weight, 1.0)).sum(axis=(1, 2)),
    }


def _eliminate_regions(blocks: dict[str, Array], spread: Array, apart: NDArray[np.bool_]) -> dict[str, Array]:
    """Solve each region for given shared parameters; shapes begin with misfit f and spread s."""
    # The deviation of the inversion factor is spread times a standard normal number: a spread of
    # zero then is nothing special.
    scale = np.ones((spread.size, apart.size, 3))
    scale[..., 2] = np.where(apart, APART, spread[:, None])
    normal = blocks["own"][:, None] * scale[..., :, None] * scale[..., None, :]
    normal = normal + np.diag([_SMALLEST_PRECISION, _SMALLEST_PRECISION, 1.0])
    mixed = blocks["mixed"][:, None] * scale[..., None]
    right = blocks["own_right"][:, None] * scale
    inverse = np.linalg.inv(normal)
    determinant: Any = np.linalg.slogdet(normal)[1]
    slope = inverse @ mixed
    offset = np.einsum("fsrij,fsrj->fsri", inverse, right)
    crossed = mixed.swapaxes(-1, -2)
    return {
        "inverse": inverse,
        "slope": slope,
        "offset": offset,
        "scale": scale,
        "log_determinant": determinant.sum(axis=-1) - (right * offset).sum(axis=(-1, -2)),
        "shared": blocks["shared"][:, None] - (crossed @ slope).sum(axis=2),
        "right": blocks["shared_right"][:, None] - np.einsum("fsrij,fsri->fsj", mixed, offset),
    }


def _solve_shared(own: dict[str, Array], gain: Array, n_shared: int) -> dict[str, Array]:
    """Solve for what is shared; shapes begin with misfit f, spread s and gain g."""
    scale = np.ones((gain.size, n_shared))
    scale[:, 2:] = gain[:, None]
    precision = np.r_[1 / _PRIOR_SD**2, np.ones(n_shared - 2)]
    normal = own["shared"][:, :, None] * scale[:, :, None] * scale[:, None, :] + np.diag(precision)
    right = own["right"][:, :, None] * scale
    right[..., :2] += _PRIOR_MEAN / _PRIOR_SD**2
    inverse = np.linalg.inv(normal)
    solution = np.einsum("fsgij,fsgj->fsgi", inverse, right)
    cost: Any = np.linalg.slogdet(normal)[1] - (right * solution).sum(axis=-1)
    return {
        "cost": cost,
        "solution": solution * scale,
        "covariance": inverse * scale[:, :, None] * scale[:, None, :],
    }


def _average(
    probability: Array, own: dict[str, Array], tip: dict[str, Array], grids: tuple[Array, Array, Array]
) -> Posterior:
    slope, covariance, solution = own["slope"], tip["covariance"], tip["solution"]
    scale = own["scale"][:, None]
    region = (own["offset"][:, :, None] - np.einsum("fsrij,fsgj->fsgri", slope, solution)) * scale
    # Covariance of the own parameters with the shared ones, and of the own ones with themselves.
    mixed = -np.einsum("fsrij,fsgjk->fsgrik", slope, covariance)
    alone = np.einsum("fsrii->fsri", own["inverse"])[:, :, None]
    variance = (alone - np.einsum("fsgrik,fsrik->fsgri", mixed, slope)) * scale**2
    factor = region[..., 2] + solution[..., None, 0]
    factor_variance = variance[..., 2] + covariance[..., None, 0, 0] + 2 * mixed[..., 2, 0] * scale[..., 2]
    shared_variance = np.einsum("fsgii->fsgi", covariance)
    own_mean, own_spread = _moments(probability, region, variance)
    shared_mean, shared_spread = _moments(probability, solution, shared_variance)
    best = np.unravel_index(int(probability.argmax()), probability.shape)
    return Posterior(
        own=own_mean,
        own_variance=own_spread,
        factor_variance=_moments(probability, factor, factor_variance)[1],
        shared=shared_mean,
        shared_variance=shared_spread,
        likeliest=(float(grids[0][best[0]]), float(grids[1][best[1]]), float(grids[2][best[2]])),
        at_end=(_ends(probability, 0), _ends(probability, 1), _ends(probability, 2)),
    )


def _moments(probability: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Mean and variance of the mixture of normals."""
    centre = np.tensordot(probability, mean, axes=3)
    return centre, np.tensordot(probability, variance + (mean - centre) ** 2, axes=3)


def _ends(probability: Array, axis: int) -> bool:
    others = tuple(i for i in range(3) if i != axis)
    marginal = probability.sum(axis=others)
    return marginal.size > 1 and bool(marginal[-1] > 0.5)
