"""Apparent diffusion coefficient of isotropic samples: S = S0 exp(-b ADC), one ADC per direction.

All images of a sample are fitted together: the signal without weighting is common, each direction has
its own coefficient, and the ADC is their mean.  What is fitted is decided sample by sample: a shell
in which any direction is lost in noise is left out with all stronger ones, so that directions and
samples are compared over the same range, and no sample is fitted to its noise floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.linear_fit import (
    FITTED,
    REASON_TEXTS,
    Block,
    Design,
    LinearFit,
    fit_weighted,
    one_covariance_form,
    reweight,
)
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["MINIMUM_RATIO", "SHARED", "AdcFit", "fit_adc"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Group of an image that belongs to all directions: no weighting, or the weakest.
SHARED = -1
#: Signal over noise of one pixel below which a shell is left out (a choice of cordqa).  There the
#: noise floor lifts an uncorrected magnitude by 2 %, and an error of a tenth in a measured floor
#: moves the corrected signal by 0.4 %.
MINIMUM_RATIO = 5.0
#: Stated noise this improbable in view of the residuals gives way to them.
_CHI_SQUARE_LEVEL = 0.05
#: Shells closer than this are one, in s/mm2 and as a share.
_SAME_B = (2.0, 0.02)
_MOST_ITERATIONS = 20
_SETTLED = 1e-10
_UM2_PER_S = 1000.0  # from um2/ms
_MS_PER_UM2 = 1e-3  # from s/mm2

LOST = "the signal lies in the noise at every b-value above the lowest"
NO_START = "no signal at the lowest b-value"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdcFit:
    """Fitted coefficients of n samples over m images and k directions.

    Attributes
    ----------
    maps : FittedMaps
        ``ADC`` in um2/s (mean over the directions) and ``S0`` in signal units.
    along, along_standard_errors : ndarray, shape (n, k)
        ADC of each direction in um2/s.
    highest_b : ndarray, shape (n,)
        Strongest weighting that was used, in s/mm2; NaN without a fit.
    predicted, used : ndarray, shape (n, m)
        Fitted signal of every image, and which images entered the fit.
    residual_sd : ndarray, shape (n,)
        Root of the mean weighted squared residual, in signal units; NaN without a spare sample.
    degrees_of_freedom : ndarray of int, shape (n,)
        Images used less parameters.
    interval_degrees_of_freedom : ndarray, shape (n,)
        Those of Student's t: infinity where the stated noise was used.
    """

    maps: FittedMaps
    along: Array
    along_standard_errors: Array
    highest_b: Array
    predicted: Array
    used: Mask
    residual_sd: Array
    degrees_of_freedom: NDArray[np.int_]
    interval_degrees_of_freedom: Array


def fit_adc(
    signal: ArrayLike,
    b_values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    noise_sd: ArrayLike,
    pixel_noise_sd: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    minimum_ratio: float = MINIMUM_RATIO,
) -> AdcFit:
    """Fit the ADC of every sample by weighted least squares of the logarithm of its signal.

    Parameters
    ----------
    signal : array_like, shape (n, m)
        Signals with the noise floor taken out; for regions, their means.
    b_values : array_like, shape (m,)
        In s/mm2.
    groups : array_like of int, shape (m,), optional
        Direction of each image, from 0; :data:`SHARED` for images without weighting.  By default
        all images above the lowest b-value are one direction.
    noise_sd : array_like, broadcastable to (n, m)
        Standard deviation of each signal; sets weights and standard errors.
    pixel_noise_sd : array_like, broadcastable to (n, m), optional
        Noise of one pixel, which decides what lies in the noise; by default ``noise_sd``.
    valid : array_like of bool, shape (n, m), optional
        Samples that may be used.
    minimum_ratio : float
        Least signal over pixel noise.

    Returns
    -------
    AdcFit
        NaN with a reason for a sample that cannot be fitted.

    Raises
    ------
    InputError
        If shapes do not agree, a b-value is not a number of at least 0, there are fewer than two
        b-values, or the lowest b-value is shared by no direction.

    Notes
    -----
    Weights are the squared fitted signals over the noise variances, iterated (Chung et al. 2006,
    doi:10.1016/j.neuroimage.2006.07.001, carried to convergence).  The standard error follows
    from the stated noise; where the residuals contradict it (chi-squared, 5 %) they take its place.

    Examples
    --------
    >>> b = [0, 500, 900]
    >>> fit = fit_adc(np.exp(-np.array([b]) * 2e-3) * 100, b, noise_sd=0.1)
    >>> round(float(fit.maps.values["ADC"][0]), 6)
    2000.0
    """
    samples, b = _checked(signal, b_values)
    shells = _shells(b)
    group = _groups(groups, shells)
    noise = np.broadcast_to(np.asarray(noise_sd, dtype=float), samples.shape)
    pixel = noise if pixel_noise_sd is None else np.broadcast_to(pixel_noise_sd, samples.shape)
    usable = np.isfinite(samples) & np.isfinite(noise) & (noise > 0)
    if valid is not None:
        usable &= np.broadcast_to(np.asarray(valid, dtype=bool), samples.shape)
    usable &= _above_noise(samples, pixel, usable, shells, minimum_ratio)
    design = _design(b, group)
    block = Block.of(
        np.where(usable, samples, np.nan), np.arange(len(samples)), shells == 0, design.n_unknowns
    )
    return _finish(_solve(block, design, noise), block, design, noise, shells, b)


def _checked(signal: ArrayLike, b_values: ArrayLike) -> tuple[Array, Array]:
    samples, b = np.asarray(signal, dtype=float), np.asarray(b_values, dtype=float)
    if samples.ndim != 2 or b.ndim != 1 or samples.shape[1] != b.size:
        raise InputError(
            "signals and b-values do not belong together",
            found=f"shapes {samples.shape} and {b.shape}",
            expected="(samples, images) and (images,)",
        )
    if not (np.isfinite(b).all() and bool((b >= 0).all())):
        raise InputError("b-values must be numbers of at least 0", found=f"{b}")
    if np.unique(_shells(b)).size < 2:
        raise InputError(
            "an ADC needs at least two b-values",
            found=", ".join(f"{value:g}" for value in np.unique(b)) + " s/mm2",
            todo="add the images with the other b-values",
        )
    return samples, b


def _shells(b: Array) -> NDArray[np.intp]:
    """Number the b-values from the lowest; those that differ by rounding only are one."""
    order = np.argsort(b, kind="stable")
    steps = np.diff(b[order]) > np.maximum(_SAME_B[0], _SAME_B[1] * b[order][:-1])
    shells = np.empty(b.size, dtype=np.intp)
    shells[order] = np.concatenate([[0], np.cumsum(steps)])
    return shells


def _groups(groups: ArrayLike | None, shells: NDArray[np.intp]) -> NDArray[np.intp]:
    if groups is None:
        return np.where(shells == 0, SHARED, 0)
    group = np.asarray(groups, dtype=np.intp)
    own = np.unique(group[group != SHARED])
    if group.shape != shells.shape or not np.array_equal(own, np.arange(own.size)) or not own.size:
        raise InputError("directions must be numbered from 0, one number for each image", found=f"{groups}")
    shared = bool((group[shells == 0] == SHARED).any())
    if not shared and any(np.unique(shells[group == k]).size < 2 for k in own):
        raise InputError(
            "each direction needs two b-values where none is shared",
            todo="add the images without diffusion weighting",
        )
    return group


def _above_noise(
    samples: Array, pixel: Array, usable: Mask, shells: NDArray[np.intp], minimum_ratio: float
) -> Mask:
    """Keep the shells below the first one in which any direction is lost in noise."""
    low = ~(samples >= minimum_ratio * pixel) & usable
    first = np.where(low, shells, shells.max() + 1).min(axis=1)
    kept: Mask = shells < first[:, None]
    return kept


def _design(b: Array, group: NDArray[np.intp]) -> Design:
    """Columns: log S0, then one coefficient per direction in um2/ms."""
    n_groups = int(group.max()) + 1
    matrix = np.zeros((b.size, n_groups + 1))
    matrix[:, 0] = 1.0
    for k in range(n_groups):
        share = np.where(group == k, 1.0, np.where(group == SHARED, 1.0 / n_groups, 0.0))
        matrix[:, k + 1] = -b * _MS_PER_UM2 * share
    return Design.of(matrix)


def _solve(block: Block, design: Design, noise: Array) -> LinearFit | None:
    """Fit the samples that can be fitted; None where there is none."""
    good = block.reason == FITTED
    if not good.any():
        return None
    part = block.select(good)
    factor = _factor(part, noise)
    fit = fit_weighted(part, design)
    lost = fit.reason != FITTED
    for _ in range(_MOST_ITERATIONS):
        after = reweight(part, design, fit.gamma, factor, lost)
        change = np.abs((after.gamma - fit.gamma) @ design.basis.T)[~lost]
        fit = after
        if change.max(initial=0.0) < _SETTLED:
            break
    return fit


def _factor(block: Block, noise: Array) -> Array:
    """Inverse noise variances relative to the smallest noise of each sample; 0 where not used."""
    own = noise[block.rows]
    smallest = np.where(block.used, own, np.inf).min(axis=1, keepdims=True)
    return np.asarray(np.where(block.used, (smallest / own) ** 2, 0.0))


def _finish(
    fit: LinearFit | None,
    block: Block,
    design: Design,
    noise: Array,
    shells: NDArray[np.intp],
    b: Array,
) -> AdcFit:
    n, m = block.used.shape
    k = design.n_unknowns - 1
    nothing = {"adc": np.full(n, np.nan), "s0": np.full(n, np.nan)}
    along, along_error = np.full((n, k), np.nan), np.full((n, k), np.nan)
    errors = {name: values.copy() for name, values in nothing.items()}
    predicted, residual = np.full((n, m), np.nan), np.full(n, np.nan)
    freedom, interval = np.zeros(n, dtype=np.int_), np.full(n, np.nan)
    codes = block.reason.copy()
    used = block.used & (codes == FITTED)[:, None]
    if fit is not None:
        rows = np.flatnonzero(codes == FITTED)
        codes[rows] = fit.reason
        done = fit.reason == FITTED
        part, keep = block.at(rows), rows[done]
        beta = design.coefficients(fit.gamma)
        spread, dof, quantile = _spread(fit, part, design, noise[rows])
        forms = np.vstack([np.r_[0.0, np.full(k, 1 / k)], np.eye(k + 1)])
        covariance = one_covariance_form(fit, design, np.broadcast_to(forms, (len(rows), *forms.shape)))
        deviation = np.sqrt(covariance) * spread[:, None]
        nothing["adc"][keep] = _UM2_PER_S * beta[done, 1:].mean(axis=1)
        nothing["s0"][keep] = (part.level * np.exp(beta[:, 0]))[done]
        errors["adc"][keep] = _UM2_PER_S * deviation[done, 0]
        errors["s0"][keep] = (deviation[:, 1] * part.level * np.exp(beta[:, 0]))[done]
        along[keep] = _UM2_PER_S * beta[done, 1:]
        along_error[keep] = _UM2_PER_S * deviation[done, 2:]
        predicted[keep] = (part.level[:, None] * np.exp(beta @ design.matrix.T))[done]
        residual[keep] = (fit.noise_sd(part, design) * part.level)[done]
        freedom[keep], interval[keep] = dof[done], quantile[done]
        used[rows[~done]] = False
    highest = np.where(used, b, -np.inf).max(axis=1, initial=-np.inf)
    return AdcFit(
        maps=_maps(nothing, errors, _reasons(codes, used, block.used, shells)),
        along=along,
        along_standard_errors=along_error,
        highest_b=np.where(np.isfinite(highest), highest, np.nan),
        predicted=predicted,
        used=used,
        residual_sd=residual,
        degrees_of_freedom=freedom,
        interval_degrees_of_freedom=interval,
    )


def _spread(
    fit: LinearFit, block: Block, design: Design, noise: Array
) -> tuple[Array, NDArray[np.int_], Array]:
    """Standard deviation of unit weight over the level, degrees of freedom, and those of the interval."""
    from scipy.special import chdtrc

    stated = np.where(block.used, noise, np.inf).min(axis=1) / block.level
    freedom = fit.degrees_of_freedom()
    seen = fit.noise_sd(block, design)
    with np.errstate(invalid="ignore", divide="ignore"):
        improbable = chdtrc(np.maximum(freedom, 1), freedom * (seen / stated) ** 2) < _CHI_SQUARE_LEVEL
    improbable &= freedom > 0
    return np.where(improbable, seen, stated), freedom, np.where(improbable, freedom, np.inf)


def _reasons(codes: NDArray[np.uint8], used: Mask, usable: Mask, shells: NDArray[np.intp]) -> Reasons:
    failed = codes != FITTED
    weighted = (usable & (shells > 0)).any(axis=1)
    started = (usable & (shells == 0)).any(axis=1)
    failures = [(failed & ~started, NO_START), (failed & started & ~weighted, LOST)]
    failures += [(failed & (codes == code), text) for code, text in enumerate(REASON_TEXTS) if text]
    return Reasons.collect(codes.shape, failures)


def _maps(values: dict[str, Array], errors: dict[str, Array], reasons: Reasons) -> FittedMaps:
    return FittedMaps(
        model="mono-exponential decay, weighted least squares of the logarithm, one ADC per direction "
        "over a common signal without weighting, b-values limited to those above the noise",
        values={"ADC": values["adc"], "S0": values["s0"]},
        units={"ADC": "um2/s", "S0": "signal"},
        standard_errors={"ADC": errors["adc"], "S0": errors["s0"]},
        reasons=reasons,
    )
