"""Powder averages: the mean of a shell's signal over all directions, with its variance.

A shell holds the volumes of one b-value and one shape of encoding.  Its mean over the sphere is
estimated with weights that integrate every even polynomial of the direction up to degree 2 or 4
exactly; equal weights do that only for directions that were designed so.  What a least-squares fit
of those polynomials leaves over is noise, and gives its variance without any model of the tissue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradient_shells import find_shells as group_volumes
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.powder_checks import SHAPE_TOLERANCE, check_table

__all__ = [
    "PowderAverages",
    "PowderShell",
    "average_shells",
    "find_shells",
    "repair_samples",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

#: Signals beyond these are no measurement, and their squares no number.
_SMALLEST, _LARGEST = 1e-100, 1e100
#: Exact weights may raise the noise variance of the mean by this factor over equal ones.
_MOST_INFLATION = 1.5
#: Ratio of eigenvalues below which a polynomial is not determined by the directions.
_FLAT = 1e-3
#: Degrees of freedom of clean scatter (repeats, well sampled shells) that make a noise estimate.
_ENOUGH_FREEDOM = 8
#: Shells below this many standard deviations are no measure of the noise.
_CLEAR_SIGMAS = 4.0
#: Power of each further even degree in a tissue's signal, relative to the one before it; only for
#: the share of the neglected degrees that ends up in a mean.
_DECLINE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PowderShell:
    """Volumes of one b-value and one shape of encoding.

    Attributes
    ----------
    volumes : ndarray of int, shape (n,)
    b_ms_um2, b_delta : float
        Mean over the volumes; a shell without weighting has ``b_delta`` 0.
    b_width : float
        Largest less smallest b-value, ms/um2.
    weights : ndarray, shape (n,)
        Of the mean over the sphere; they sum to one.
    basis : ndarray, shape (n, p)
        Orthonormal; what a signal without noise may look like over these volumes.
    degree : int
        Even polynomials of the direction up to this degree are averaged exactly; 0 where only a
        constant is, because there are fewer than 6 well spread directions.
    leakage : float
        Variance of the mean over the variance of a sample, for the parts of the signal of higher
        degree; near 0 for directions spread evenly.
    directional : bool
        Whether the signal may depend on the direction.
    unweighted : bool
        Whether this is the shell of the b = 0 volumes.
    """

    volumes: Index
    b_ms_um2: float
    b_delta: float
    b_width: float
    weights: Array
    basis: Array
    degree: int
    leakage: float
    directional: bool
    unweighted: bool

    @property
    def variance_factor(self) -> float:
        """Variance of the mean over that of one sample."""
        return float(self.weights @ self.weights)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the scatter within the shell."""
        return int(self.basis.shape[0] - self.basis.shape[1])

    @property
    def clean(self) -> bool:
        """Whether the scatter within the shell is noise and nothing else."""
        return not self.directional or self.degree >= 4

    @property
    def name(self) -> str:
        """PowderShell in words."""
        shape = {1.0: "linear", 0.0: "spherical", -0.5: "planar"}.get(round(self.b_delta, 1))
        kind = shape if shape else f"b_delta {self.b_delta:.2g}"
        return "b = 0" if self.unweighted else f"b = {1e3 * self.b_ms_um2:.0f} {kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowderAverages:
    """Powder averages of v voxels over k shells.

    Attributes
    ----------
    means, variances : ndarray, shape (k, v)
        Mean signal and the variance of that mean; NaN where no sample is left.
    noise_sd : ndarray, shape (v,)
        Of one sample; NaN where neither given nor to be had from the scatter.
    freedom : ndarray, shape (v,)
        Degrees of freedom of ``noise_sd``; infinite where it was given.
    """

    means: Array
    variances: Array
    noise_sd: Array
    freedom: Array


def find_shells(table: GradientTable) -> tuple[PowderShell, ...]:
    """Sort the volumes into shells, b = 0 first, then by rising b.

    Raises
    ------
    GradientError
        If a b-value, direction or shape cannot be one, or the unit of b is not s/mm2.
    """
    check_table(table)
    weighted = [_build_shell(table, shell.volumes, False) for shell in group_volumes(table)]
    unweighted = np.flatnonzero(table.is_b0)
    return (*([_build_shell(table, unweighted, True)] if unweighted.size else []), *weighted)


def repair_samples(signals: Array, shells: Sequence[PowderShell]) -> tuple[Array, NDArray[np.intp]]:
    """Replace samples that are no positive number by what the rest of their shell says.

    The prediction of the least-squares fit to the other samples leaves that fit as it is, so this
    is the same as leaving the sample out.

    Parameters
    ----------
    signals : ndarray, shape (v, n_volumes)
    shells : sequence of PowderShell

    Returns
    -------
    signals : ndarray, shape (v, n_volumes)
        NaN where the other samples of the shell do not determine one.  Volumes outside the shells
        are as they were.
    lost : ndarray of int, shape (k, v)
        Number of samples replaced in each shell.
    """
    bad = ~((signals > _SMALLEST) & (signals < _LARGEST))
    lost = np.zeros((len(shells), len(signals)), dtype=np.intp)
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size == 0:
        return signals, lost
    signals = signals.copy()
    for number, shell in enumerate(shells):
        part = np.ix_(rows, shell.volumes)
        signals[part], lost[number, rows] = _repaired(signals[part], bad[part], shell)
    return signals, lost


def average_shells(
    signals: Array,
    shells: Sequence[PowderShell],
    *,
    lost: NDArray[np.intp] | None = None,
    noise_sd: Array | None = None,
) -> PowderAverages:
    """Average each shell over the sphere.

    Parameters
    ----------
    signals : ndarray, shape (v, n_volumes)
        As :func:`repair_samples` returns them.
    shells : sequence of PowderShell
    lost : ndarray of int, shape (k, v), optional
        Number of replaced samples, which carry no information; default none.
    noise_sd : ndarray, shape (v,), optional
        Standard deviation of the noise of one sample.  Without it, or where it is NaN, it is
        estimated from the scatter of repeated volumes and of well sampled shells.

    Returns
    -------
    PowderAverages
    """
    means, squares = _means_and_squares(signals, shells)
    sizes = np.array([shell.volumes.size for shell in shells])[:, None]
    freedom = np.broadcast_to(np.array([shell.freedom for shell in shells])[:, None], means.shape)
    factor = np.array([shell.variance_factor for shell in shells])[:, None]
    if lost is not None and lost.any():
        freedom = np.maximum(freedom - lost, 0)
        factor = factor * sizes / np.maximum(sizes - lost, 1)
    noise, noise_freedom = _noise(means, squares, freedom, shells, noise_sd)
    variances = factor * noise**2 + _sampling_variance(squares, freedom, noise, shells)
    return PowderAverages(means=means, variances=variances, noise_sd=noise, freedom=noise_freedom)


def _build_shell(table: GradientTable, members: Index, unweighted: bool) -> PowderShell:
    b_delta = 0.0 if unweighted else float(table.b_delta[members].mean())
    directional = abs(b_delta) > SHAPE_TOLERANCE
    size = members.size
    weights, basis, degree = np.full(size, 1 / size), np.full((size, 1), size**-0.5), 0
    if directional:
        for candidate in (4, 2):
            found = _exact_weights(table.directions[members], candidate)
            if found is not None:
                weights, basis, degree = *found, candidate
                break
    return PowderShell(
        volumes=members,
        b_ms_um2=float(table.b_ms_um2[members].mean()),
        b_delta=b_delta,
        b_width=float(np.ptp(table.b_ms_um2[members])),
        weights=weights,
        basis=basis,
        degree=degree,
        leakage=_leakage(table.directions[members], weights, basis, degree) if directional else 0.0,
        directional=directional,
        unweighted=unweighted,
    )


def _exact_weights(directions: Array, degree: int) -> tuple[Array, Array] | None:
    """Weights of least norm that average even polynomials exactly, and the span of those; or nothing.

    The reproducing kernel of the polynomials is a sum of Legendre polynomials of the angle between
    two directions; its mean over the sphere is one, so the weights are its inverse times one.
    """
    unknowns = (degree + 1) * (degree + 2) // 2
    if len(directions) < unknowns:
        return None
    kernel = _kernel(directions, dict.fromkeys(range(0, degree + 1, 2), 1.0))
    values, vectors = np.linalg.eigh(kernel)
    values, vectors = values[-unknowns:], vectors[:, -unknowns:]
    if values[0] < _FLAT * values[-1]:
        return None
    weights: Array = vectors @ (vectors.sum(axis=0) / values)
    if weights @ weights * len(directions) > _MOST_INFLATION:
        return None
    return weights, vectors


def _kernel(directions: Array, powers: Mapping[int, float]) -> Array:
    """Covariance, between directions, of random functions on the sphere with this power by degree."""
    series = np.zeros(max(powers) + 1)
    for degree, power in powers.items():
        series[degree] = (2 * degree + 1) * power
    angle = np.clip(directions @ directions.T, -1, 1)
    return np.asarray(np.polynomial.legendre.legval(angle, series))


def _leakage(directions: Array, weights: Array, basis: Array, degree: int) -> float:
    """Share of what scatters within a shell that its mean inherits, for degrees above the exact ones."""
    freedom = basis.shape[0] - basis.shape[1]
    if freedom == 0:
        return 0.0
    kernel = _kernel(directions, {degree + 2: 1.0, degree + 4: _DECLINE})
    scatter = (np.trace(kernel) - np.einsum("np,nm,mp->", basis, kernel, basis)) / freedom
    return float(weights @ kernel @ weights / scatter) if scatter > 1e-9 else 1.0


def _means_and_squares(signals: Array, shells: Sequence[PowderShell]) -> tuple[Array, Array]:
    """Means over the sphere and sums of squared residuals within the shells, each (k, v)."""
    means, squares = np.empty((2, len(shells), len(signals)))
    for number, shell in enumerate(shells):
        part = signals[:, shell.volumes]
        means[number] = part @ shell.weights
        fitted = part @ shell.basis
        total = np.einsum("vn,vn->v", part, part)
        squares[number] = np.maximum(total - np.einsum("vp,vp->v", fitted, fitted), 0.0)
    return means, squares


def _repaired(part: Array, bad: Mask, shell: PowderShell) -> tuple[Array, NDArray[np.intp]]:
    """Replace bad samples by the prediction of the others; return how many were lost as well.

    NaN where the others do not determine it.
    """
    part = part.copy()
    for pattern in np.unique(bad, axis=0):
        if not pattern.any():
            continue
        rows = (bad == pattern).all(axis=1)
        good = ~pattern
        known = np.flatnonzero(good)
        if known.size == 0 or np.linalg.matrix_rank(shell.basis[known], tol=0.1) < shell.basis.shape[1]:
            part[np.ix_(rows, pattern)] = np.nan
            continue
        predict = shell.basis[pattern] @ np.linalg.pinv(shell.basis[known])
        part[np.ix_(rows, pattern)] = part[np.ix_(rows, good)] @ predict.T
    return part, bad.sum(axis=1)


def _noise(
    means: Array,
    squares: Array,
    freedom: NDArray[np.intp],
    shells: Sequence[PowderShell],
    noise_sd: Array | None,
) -> tuple[Array, Array]:
    """Noise of one sample and its degrees of freedom, from clean scatter where there is enough."""
    if noise_sd is not None:
        given = np.isfinite(noise_sd)
        if given.all():
            return noise_sd, np.full(noise_sd.shape, np.inf)
        noise, total = _noise(means, squares, freedom, shells, None)
        return np.where(given, noise_sd, noise), np.where(given, np.inf, total)
    known = np.isfinite(squares)
    squares, freedom = np.where(known, squares, 0.0), np.where(known, freedom, 0)
    noise, total = _pooled(squares, freedom, shells)
    with np.errstate(invalid="ignore"):
        low = means < _CLEAR_SIGMAS * noise
    if low.any():
        # Magnitudes scatter less at the noise floor than the noise does.
        above, above_total = _pooled(np.where(low, 0.0, squares), np.where(low, 0, freedom), shells)
        better = above_total >= _ENOUGH_FREEDOM
        noise, total = np.where(better, above, noise), np.where(better, above_total, total)
    return noise, total


def _pooled(squares: Array, freedom: NDArray[np.intp], shells: Sequence[PowderShell]) -> tuple[Array, Array]:
    clean = np.array([shell.clean for shell in shells])
    sampled = clean | np.array([shell.degree >= 2 for shell in shells])
    total, total_freedom = squares[clean].sum(axis=0), freedom[clean].sum(axis=0)
    few = total_freedom < _ENOUGH_FREEDOM
    if few.any():
        total = np.where(few, squares[sampled].sum(axis=0), total)
        total_freedom = np.where(few, freedom[sampled].sum(axis=0), total_freedom)
    variance = np.divide(total, total_freedom, out=np.full(total.shape, np.nan), where=total_freedom > 0)
    return np.sqrt(variance), total_freedom.astype(float)


def _sampling_variance(
    squares: Array, freedom: NDArray[np.intp], noise: Array, shells: Sequence[PowderShell]
) -> Array:
    """Variance of the means because a few directions stand for all, shape (k, v).

    Where a shell scatters more than noise, the tissue's signal has components that the average does
    not integrate exactly; how much of them ends up in the mean follows from the directions.
    """
    variance = np.zeros_like(squares)
    for number, shell in enumerate(shells):
        if shell.leakage == 0:
            continue
        own = np.full_like(noise, np.nan)
        np.divide(squares[number], freedom[number], out=own, where=freedom[number] > 0)
        variance[number] = np.fmax(own - noise**2, 0.0) * shell.leakage
    return variance
