"""Value of a region from the voxels that it fills: linear estimators, median and largest.

Voxels hold several tissues.  The weighted mean, the binary mean and the median take what the voxels
show; maximum likelihood and maximum a posteriori (MAP) explain every voxel as the sum of what its
parts would show (white matter, grey matter, cerebrospinal fluid) and solve for the parts.  What no label
fills of a voxel is a part as well: taken as zero, as the Spinal Cord Toolbox takes it, the voxels at the
outer edge of the atlas raise CSF and lower white matter, by 2 % in a map of one value (its own atlas).

A signal is such a sum.  What is computed from signals (MTR, MTsat, T1) is not: see
:mod:`cordqa.cord.signal_extraction`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError

__all__ = [
    "LINEAR",
    "METHODS",
    "PARTIAL_VOLUME",
    "Estimate",
    "Method",
    "RegionSignals",
    "estimate_region",
    "estimate_signals",
    "region_gain",
]

Array = NDArray[np.float64]
Method = Literal["weighted mean", "binary", "median", "max", "maximum likelihood", "MAP"]
METHODS: tuple[str, ...] = get_args(Method)
#: Methods that solve for the parts of a voxel.
PARTIAL_VOLUME = ("maximum likelihood", "MAP")
#: Methods whose value is a weighted sum of voxels, with weights that no image changes.
LINEAR = ("weighted mean", "binary", *PARTIAL_VOLUME)
#: A voxel counts as inside for the binary estimate where the region fills half of it.
HALF = 0.5
#: What is missing less than this from a full voxel is rounding of the weights.
_FILLED = 1e-6
NOT_COVERED = "region not covered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Value of one region.

    Attributes
    ----------
    value : float
        NaN where it cannot be known; ``reason`` says why.
    standard_uncertainty : float
        From the scatter of voxels, taken as independent.
    sd : float
        Weighted standard deviation of the voxels (ddof 0), whatever the method.
    size : float
        Sum of the weights: the volume of the region in voxels.
    effective_voxels : float
        Squared sum of weights over sum of squares: that many whole voxels say as much.
    coverage : float
        Share of the region's weight that falls on voxels with a number.
    reason : str
    """

    value: float
    standard_uncertainty: float = math.nan
    sd: float = math.nan
    size: float = 0.0
    effective_voxels: float = 0.0
    coverage: float = 0.0
    reason: str = ""


def estimate_region(
    values: Array,
    weights: Array,
    members: Sequence[int],
    *,
    method: Method = "MAP",
    tissues: Sequence[Sequence[int]] = (),
    min_voxels: float = 1.0,
    surround: bool = False,
) -> Estimate:
    """Estimate the value of a region from voxels and the fractions that labels fill of them.

    Parameters
    ----------
    values : ndarray, shape (n_voxels,)
        The map; voxels that are not finite are left out.
    weights : ndarray, shape (n_labels, n_voxels)
        Fraction of each voxel that each label fills.
    members : sequence of int
        Labels of the region; several are taken as one.
    method : str
        ``weighted mean``: sum(w y) / sum(w).  ``binary``: mean of voxels filled at least by half.
        ``median``: weighted median, interpolated between voxels.  ``max``: largest of all voxels given,
        which knows no region.  ``maximum likelihood``: least squares over the region and every other
        label.  ``MAP``: the same around the values of white matter, grey matter and CSF, with prior
        variance equal to the noise variance of a voxel.
    tissues : sequence of sequences of int
        Labels of white matter, of grey matter, of CSF; needed by ``MAP``.
    min_voxels : float
        A region smaller than this has no value.
    surround : bool
        Take what no label fills as a tissue of its own, so that a map of one value has that value
        everywhere.  Without it that part shows zero, as in the Spinal Cord Toolbox.

    References
    ----------
    .. [1] Levy et al., NeuroImage 2015, doi:10.1016/j.neuroimage.2015.06.040
    """
    if method not in METHODS:
        raise InputError("unknown way of extraction", found=method, expected=", ".join(METHODS))
    region = weights[list(members)].sum(axis=0)
    total = float(region.sum())
    known = np.isfinite(values)
    y, w = values[known], region[known]
    size = float(w.sum())
    coverage = size / total if total > 0 else 0.0
    if size <= 0 or size < min_voxels:
        reason = NOT_COVERED if total <= 0 else f"{NOT_COVERED}: {size:.2g} voxels with a number"
        return Estimate(value=math.nan, size=size, coverage=coverage, reason=reason)
    mean = float((w * y).sum() / size)
    sd = math.sqrt(float((w * (y - mean) ** 2).sum() / size))
    effective = float(size**2 / (w**2).sum())
    parts = _Parts(weights[:, known], tuple(members), tissues, surround)
    value, error, reason = _value(method, y, w, parts, mean, sd, effective)
    return Estimate(
        value=value,
        standard_uncertainty=error,
        sd=sd,
        size=size,
        effective_voxels=effective,
        coverage=coverage,
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSignals:
    """Signals of one region in images of one grid.

    Attributes
    ----------
    signals : ndarray, shape (n_images,)
        NaN where they cannot be known; ``reason`` says why.
    covariance : ndarray, shape (n_images, n_images)
        Of the signals, from the scatter of voxels, taken as independent of each other; the same
        voxel of two images is not.
    size, effective_voxels, coverage, reason
        As in :class:`Estimate`.
    """

    signals: Array
    covariance: Array
    size: float = 0.0
    effective_voxels: float = 0.0
    coverage: float = 0.0
    reason: str = ""


def estimate_signals(
    values: Array,
    weights: Array,
    members: Sequence[int],
    *,
    method: Method = "MAP",
    tissues: Sequence[Sequence[int]] = (),
    min_voxels: float = 1.0,
    surround: bool = False,
) -> RegionSignals:
    """Estimate the signal of a region in several images, with the same weights in each.

    Parameters
    ----------
    values : ndarray, shape (n_images, n_voxels)
        Signals; a voxel that lacks one is left out of all images.
    weights, members, tissues, min_voxels, surround
        As in :func:`estimate_region`.
    method : str
        One of :data:`LINEAR`.

    Raises
    ------
    InputError
        If the method is not linear in the voxels.
    """
    if method not in LINEAR:
        raise InputError(
            "signals of a region need a linear estimate", found=method, expected=", ".join(LINEAR)
        )
    region = weights[list(members)].sum(axis=0)
    total = float(region.sum())
    known = np.isfinite(values).all(axis=0)
    y, w = values[:, known].T, region[known]
    size = float(w.sum())
    coverage = size / total if total > 0 else 0.0
    count = len(values)
    blank = RegionSignals(
        signals=np.full(count, math.nan),
        covariance=np.full((count, count), math.nan),
        size=size,
        coverage=coverage,
    )
    if size <= 0 or size < min_voxels:
        reason = NOT_COVERED if total <= 0 else f"{NOT_COVERED}: {size:.2g} voxels with a number"
        return replace(blank, reason=reason)
    blank = replace(blank, effective_voxels=float(size**2 / (w**2).sum()))
    if method in PARTIAL_VOLUME:
        found = _solve(method, y, w, _Parts(weights[:, known], tuple(members), tissues, surround))
        if found.reason:
            return replace(blank, reason=found.reason)
        scatter = found.residual.T @ found.residual
        spread = scatter / found.freedom if found.freedom >= 1 else np.full_like(scatter, math.nan)
        return replace(blank, signals=found.value, covariance=spread * float(found.gain @ found.gain))
    if method == "binary":
        w = (w >= HALF).astype(float)
        if not w.any():
            return replace(blank, reason=f"{NOT_COVERED}: no voxel is filled by half")
    return _averaged(blank, y, w)


def region_gain(
    values: Array,
    weights: Array,
    members: Sequence[int],
    *,
    method: Method = "MAP",
    tissues: Sequence[Sequence[int]] = (),
    surround: bool = False,
) -> Array:
    """Weight of every voxel in the value of a region: the estimate is the gain times the voxels.

    Carries standard errors of voxels into that of a region.

    Parameters
    ----------
    values, weights, members, tissues, surround
        As in :func:`estimate_region`; a voxel that is not finite has weight 0.
    method : str
        One of :data:`LINEAR`.

    Returns
    -------
    ndarray, shape (n_voxels,)
        All NaN where the region has no value.
    """
    if method not in LINEAR:
        raise InputError("only a linear estimate has weights", found=method, expected=", ".join(LINEAR))
    known = np.isfinite(values)
    w = weights[list(members)].sum(axis=0)[known]
    gain = np.zeros(known.size)
    if method == "binary":
        w = (w >= HALF).astype(float)
    if not w.any():
        return np.full(known.size, math.nan)
    if method in PARTIAL_VOLUME:
        parts = _Parts(weights[:, known], tuple(members), tissues, surround)
        found = _solve(method, values[known, None], w, parts)
        if found.reason:
            return np.full(known.size, math.nan)
        gain[np.flatnonzero(known)[parts.touched(w)]] = found.gain
    else:
        gain[known] = w / w.sum()
    return gain


@dataclass(frozen=True, slots=True)
class _Parts:
    """What fills the voxels: weights (n_labels, n_voxels), labels of the region, labels of each tissue."""

    weights: Array
    members: tuple[int, ...]
    tissues: Sequence[Sequence[int]]
    surround: bool

    def touched(self, region: Array) -> NDArray[np.bool_]:
        """Voxels that a label or the region fills in part."""
        return np.asarray(np.vstack([region[None], self.weights]).any(axis=0))

    def complete(self) -> tuple[Array, Sequence[Sequence[int]]]:
        """Add what no label fills as one more label, a tissue of its own."""
        rest = 1.0 - self.weights.sum(axis=0)
        rest[(rest < _FILLED) | ~self.weights.any(axis=0)] = 0.0
        if not self.surround or not rest.any():
            return self.weights, self.tissues
        tissues = (*self.tissues, (len(self.weights),)) if self.tissues else self.tissues
        return np.vstack([self.weights, rest[None]]), tissues


def _averaged(blank: RegionSignals, y: Array, w: Array) -> RegionSignals:
    """Weighted mean of every image; y is (n_voxels, n_images)."""
    share = w / w.sum()
    mean = share @ y
    away = y - mean
    effective = 1.0 / float(share @ share)
    scatter = away.T @ (away * share[:, None])
    spread = scatter / (effective - 1.0) if effective > 1.0 else np.full_like(scatter, math.nan)
    return replace(blank, signals=mean, covariance=spread)


def _value(
    method: str,
    y: Array,
    w: Array,
    parts: _Parts,
    mean: float,
    sd: float,
    effective: float,
) -> tuple[float, float, str]:
    """Value, standard uncertainty and, where there is no value, the reason."""
    # The spread of n voxels about their own mean is too small by (n - 1) / n.
    spread = sd * math.sqrt(effective / (effective - 1)) if effective > 1 else math.nan
    if method == "weighted mean":
        return mean, spread / math.sqrt(effective), ""
    if method == "median":
        return _weighted_median(y, w), 1.2533 * spread / math.sqrt(effective), ""
    if method == "max":
        return float(y.max()), math.nan, ""
    if method == "binary":
        inside = y[w >= HALF]
        if inside.size == 0:
            return math.nan, math.nan, f"{NOT_COVERED}: no voxel is filled by half"
        error = float(inside.std(ddof=1)) / math.sqrt(inside.size) if inside.size > 1 else math.nan
        return float(inside.mean()), error, ""
    return _partial_volume(method, y, w, parts)


def _weighted_median(y: Array, w: Array) -> float:
    order = np.argsort(y)
    middle = np.cumsum(w[order]) - 0.5 * w[order]
    return float(np.interp(0.5 * w.sum(), middle, y[order]))


@dataclass(frozen=True, slots=True)
class _Solution:
    """What the voxels say of the region, for any number of images at once."""

    value: Array  # (n_images,)
    gain: Array  # (n_voxels,): the value is the gain times the voxels
    residual: Array  # (n_voxels, n_images)
    freedom: int
    prior_free: Array  # the gain without what the prior adds
    reason: str = ""


def _solve(method: str, y: Array, w: Array, parts: _Parts) -> _Solution:
    """Least squares over the region (first column) and every other part; y is (n_voxels, n_images)."""
    weights, tissues = parts.complete()
    chosen = set(parts.members)
    others = [n for n in range(len(weights)) if n not in chosen]
    every = np.vstack([w[None], weights[others]]).T
    touched = parts.touched(w)
    design, y = every[touched], y[touched]
    gram = design.T @ design
    shrink = np.zeros_like(gram)
    prior = np.zeros((design.shape[1], len(design)))
    if method == "MAP":
        merged = _clusters(tissues, parts.members)
        index = _cluster_of(merged, parts.members, others)
        sums = np.stack([weights[list(c)].sum(axis=0) for c in merged]).T[touched]
        prior = (np.linalg.pinv(sums.T @ sums) @ sums.T)[index]
        shrink = np.eye(len(gram))
    inverse = np.asarray(np.linalg.pinv(gram + shrink), dtype=float)
    start = prior @ y
    beta = start + inverse @ (design.T @ (y - design @ start))
    plain = inverse[0] @ design.T
    gain = plain + prior[0] - (plain @ design) @ prior
    reason = ""
    if not _determined(gram + shrink, inverse):
        reason = "the region cannot be told from its neighbours in these voxels"
    freedom = len(y) - int(np.linalg.matrix_rank(gram, hermitian=True))
    return _Solution(beta[0], gain, y - design @ beta, freedom, plain, reason)


def _partial_volume(method: str, y: Array, w: Array, parts: _Parts) -> tuple[float, float, str]:
    """Value of one image, and the residual scatter of its voxels carried through the estimate."""
    found = _solve(method, y[:, None], w, parts)
    if found.reason:
        return math.nan, math.nan, found.reason
    residual = found.residual[:, 0]
    error = math.nan
    if found.freedom >= 1:
        variance = float(residual @ residual) / found.freedom
        error = math.sqrt(variance * float(found.prior_free @ found.prior_free))
    return float(found.value[0]), error, ""


def _clusters(tissues: Sequence[Sequence[int]], members: Sequence[int]) -> list[tuple[int, ...]]:
    """Tissues of the prior; those that the region reaches into are taken as one."""
    if not tissues:
        raise InputError("MAP needs to know which labels are white matter, grey matter and CSF")
    chosen = set(members)
    reached = [t for t in tissues if chosen & set(t)]
    rest = [tuple(t) for t in tissues if not chosen & set(t)]
    return [tuple(n for t in reached for n in t), *rest]


def _cluster_of(
    clusters: Sequence[Sequence[int]], members: Sequence[int], others: Sequence[int]
) -> NDArray[np.intp]:
    where = {label: n for n, cluster in enumerate(clusters) for label in cluster}
    missing = [n for n in (*members, *others) if n not in where]
    if missing:
        raise InputError("a label belongs to no tissue", found=f"label {missing[0]}")
    return np.array([0, *(where[n] for n in others)], dtype=np.intp)


def _determined(gram: Array, inverse: Array) -> bool:
    """Whether the first unknown is fixed by the data: its row of the resolution matrix is a unit row."""
    row = inverse[0] @ gram
    row[0] -= 1.0
    return bool(np.abs(row).max() < 1e-3)
