"""Maps of microscopic anisotropy from fitted parameters: errors, limits, reasons and flags.

muFA is the root of a ratio whose numerator, VA, is not positive by nature but by physics: in noise it
comes out negative half of the time where there is no anisotropy, and the root of the other half is
large (VA of one part in a hundred of MD^2 is a muFA of 0.19).  So muFA is given where VA exceeds zero
by more than noise explains, and elsewhere its upper limit is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.cumulant import PowderFit
from cordqa.models.diffusion.orientation import TensorVariance
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["UNITS", "VoxelState", "derive_maps"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

UNITS = {
    "MD": "um2/s",
    "VI": "um4/ms2",
    "VA": "um4/ms2",
    "KI": "1",
    "KA": "1",
    "muFA": "1",
    "muFA_lower": "1",
    "muFA_upper": "1",
    "OP": "1",
}
#: um2/ms to um2/s.
_PER_SECOND = 1e3
#: Two-sided level of the interval of VA that must lie above zero for muFA to be given.
_CERTAINTY = 0.99
_INTERVAL = 0.95
#: Least product of the largest b and MD at which the curvature of ln S is measurable.
_LEAST_WEIGHTING = 0.1
_MD_SIGMAS = 3.0
#: Diffusivities of water in tissue or a phantom (um2/ms).
_PLAUSIBLE_MD = (0.05, 3.1)
_MISFIT_LEVEL = 0.999

NEGLIGIBLE = f"diffusion weighting negligible: largest b times MD below {_LEAST_WEIGHTING:g}"
NO_MD = f"MD less than {_MD_SIGMAS:g} standard errors above zero"
NO_NOISE = "noise unknown: no repeated volumes, no residuals, and none given"
NO_ANISOTROPY = "anisotropy not distinguishable from noise (99 % interval of VA includes 0)"
NO_RATIO = "VL + VI + MD^2 not positive"
NO_TENSOR = "the directions do not determine a tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelState:
    """What is known of v voxels beside the fitted parameters.

    Attributes
    ----------
    reasons : Reasons
        Why a voxel has no fit.
    b_max_ms_um2 : ndarray, shape (v,)
        Largest b used.
    freedom : ndarray, shape (v,)
        Degrees of freedom of the noise; 0 where it is unknown.
    misfit_freedom : ndarray, shape (v,)
        Numbers fitted less parameters.
    anisotropy_sigmas : ndarray, shape (v,)
        VA over its standard error in the second-order fit of the powder averages, which guards every
        model: none may see anisotropy where the averages show none.
    left_out : ndarray of bool
        Voxels in which samples were left out.
    shortened : ndarray of bool
        Voxels in which shells near the noise were left out.
    most_weighting : float or None
        Product of the largest b and MD above which the terms that an expansion leaves out matter.
    """

    reasons: Reasons
    b_max_ms_um2: Array
    freedom: Array
    misfit_freedom: Array
    anisotropy_sigmas: Array
    left_out: Mask
    shortened: Mask
    most_weighting: float | None


def derive_maps(
    fit: PowderFit,
    state: VoxelState,
    *,
    model: str,
    shape: tuple[int, ...],
    tensor: TensorVariance | None = None,
    notices: tuple[str, ...] = (),
) -> FittedMaps:
    """Turn parameters and their covariance into maps.

    Parameters
    ----------
    fit : PowderFit
        Of v voxels.
    state : VoxelState
    model : str
        Equation and estimator.
    shape : tuple of int
        Voxel shape of the maps.
    tensor : TensorVariance, optional
        For the order parameter; without it there is none.
    notices : tuple of str
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values, errors = _values(fit, _quantile(state.freedom, _INTERVAL))
        if tensor is not None:
            values["OP"], errors["OP"] = _order(fit, tensor)
        own = _own_reasons(fit, state, values, tensor)
        flags = _flags(fit, state, values)
    for name in values:
        good = own.get(name, state.reasons).ok
        values[name] = np.where(good, values[name], np.nan)
        if name in errors:
            errors[name] = np.where(good & (state.freedom > 0), errors[name], np.nan)
    return FittedMaps(
        model=model,
        values={name: value.reshape(shape) for name, value in values.items()},
        units={name: UNITS[name] for name in values},
        standard_errors={name: error.reshape(shape) for name, error in errors.items()},
        reasons=_shaped(state.reasons, shape),
        own_reasons={name: _shaped(reasons, shape) for name, reasons in own.items()},
        flags={text: (where & state.reasons.ok).reshape(shape) for text, where in flags.items()},
        notices=notices,
    )


def _values(fit: PowderFit, quantile: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values and standard errors of everything that the four parameters give."""
    _, md, vi, va = fit.parameters
    covariance = fit.covariance[1:, 1:]
    zero, one = np.zeros_like(md), np.ones_like(md)
    total = 2.5 * va + vi + md**2
    square = 3.75 * va / total
    slopes = {
        "MD": (one, zero, zero),
        "VI": (zero, one, zero),
        "VA": (zero, zero, one),
        "KI": (-6 * vi / md**3, 3 / md**2, zero),
        "KA": (-6 * va / md**3, zero, 3 / md**2),
        "muFA": (-2 * md * square / total, -square / total, (3.75 - 2.5 * square) / total),
    }
    errors = {name: _propagated(np.stack(slope), covariance) for name, slope in slopes.items()}
    values = {"MD": md * _PER_SECOND, "VI": vi, "VA": va, "KI": 3 * vi / md**2, "KA": 3 * va / md**2}
    errors["MD"] = errors["MD"] * _PER_SECOND
    # The square is close to normal, its root is not: the limits are roots of the square's limits.
    # They allow for the neglected terms of an expansion, which the standard errors do not hold.
    systematic = (np.stack(slopes["muFA"]) * fit.truncation[:, 1:]).sum(axis=1)
    variance = (quantile * errors["muFA"]) ** 2 + (1.96**2 * systematic**2).sum(axis=0)
    half = np.sqrt(variance)
    values["muFA"] = np.sqrt(square)
    values["muFA_lower"] = np.sqrt(np.maximum(square - half, 0.0))
    values["muFA_upper"] = np.sqrt(np.maximum(square + half, 0.0))
    errors["muFA"] = errors["muFA"] / (2 * values["muFA"])
    return values, errors


def _propagated(slopes: Array, covariance: Array) -> Array:
    """Standard error of a function of the parameters with these slopes, shape (v,)."""
    variance = np.zeros(slopes.shape[1])
    for i in range(len(slopes)):
        for j in range(len(slopes)):
            variance += slopes[i] * slopes[j] * covariance[i, j]
    return np.sqrt(np.maximum(variance, 0.0))


def _order(fit: PowderFit, tensor: TensorVariance) -> tuple[Array, Array]:
    """Order parameter: root of the tensor's variance over that of the compartments."""
    variance = 2.5 * fit.parameters[3]
    variance_error = 2.5 * np.sqrt(fit.covariance[3, 3])
    square = tensor.value / variance
    error = np.hypot(tensor.standard_error, square * variance_error) / np.abs(variance)
    order = np.sqrt(np.maximum(square, 0.0))
    return order, np.where(order > 0, error / (2 * order), np.nan)


def _own_reasons(
    fit: PowderFit, state: VoxelState, values: dict[str, Array], tensor: TensorVariance | None
) -> dict[str, Reasons]:
    """Reasons of the maps that lack a value where MD has one."""
    _, md, vi, va = fit.parameters
    variance_reasons = state.reasons.then(state.b_max_ms_um2 * md < _LEAST_WEIGHTING, NEGLIGIBLE).then(
        (state.freedom > 0) & ~(md > _MD_SIGMAS * np.sqrt(fit.covariance[1, 1])), NO_MD
    )
    own = dict.fromkeys(("VI", "VA", "KI", "KA"), variance_reasons)
    limits = variance_reasons.then(state.freedom <= 0, NO_NOISE).then(~(2.5 * va + vi + md**2 > 0), NO_RATIO)
    own |= dict.fromkeys(("muFA_lower", "muFA_upper"), limits)
    quantile = _quantile(state.freedom, _CERTAINTY)
    seen = (va > quantile * np.sqrt(fit.covariance[3, 3])) & (state.anisotropy_sigmas > quantile)
    own["muFA"] = limits.then(~seen, NO_ANISOTROPY)
    if tensor is not None:
        own["OP"] = own["muFA"].then(~np.isfinite(values["OP"]), NO_TENSOR)
    return own


def _flags(fit: PowderFit, state: VoxelState, values: dict[str, Array]) -> dict[str, Mask]:
    _, md, vi, va = fit.parameters
    low, high = _PLAUSIBLE_MD
    flags = {
        "samples that are no positive number were left out": state.left_out,
        "shells less than 3 noise standard deviations above zero were left out": state.shortened,
        f"MD outside {_PER_SECOND * low:g} to {_PER_SECOND * high:g} um2/s": ~((md >= low) & (md <= high)),
        "VI below 0, which no tissue has; kept as measured": vi < 0,
        "VA below 0, which no tissue has; kept as measured": va < 0,
        "muFA above 1 (VA above 0.8 (VI + MD^2)), which no tissue has; kept as measured": (
            va > 0.8 * (vi + md**2)
        ),
        "powder averages deviate from the model by more than noise": _misfit(fit, state),
    }
    if state.most_weighting is not None:
        limit = state.most_weighting
        flags[f"largest b times MD above {limit:.1f}: the neglected third order biases muFA"] = (
            state.b_max_ms_um2 * md > limit
        )
    if "OP" in values:
        flags["OP of 0: net orientation not distinguishable from noise"] = values["OP"] == 0
        flags["OP above 1, which no tissue has; kept as measured"] = values["OP"] > 1
    return flags


def _misfit(fit: PowderFit, state: VoxelState) -> Mask:
    from scipy.special import chdtri, fdtri

    limit = np.full(fit.cost.shape, np.inf)
    key = state.misfit_freedom + 1e-7 * np.minimum(state.freedom, 1e6)
    for kind in _kinds(key):
        where = key == kind
        own, noise = float(state.misfit_freedom[where][0]), float(state.freedom[where][0])
        if own > 0 and np.isinf(noise):
            limit[where] = chdtri(own, 1 - _MISFIT_LEVEL)
        elif own > 0 and noise > 0:
            limit[where] = own * fdtri(own, noise, _MISFIT_LEVEL)
    over: Mask = fit.cost > limit
    return over


def _quantile(freedom: Array, level: float) -> Array:
    """Two-sided quantile of Student's t; NaN without degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    quantile = np.full(freedom.shape, np.nan)
    for kind in _kinds(freedom):
        if kind > 0:
            probability = 0.5 + level / 2
            value = ndtri(probability) if np.isinf(kind) else stdtrit(kind, probability)
            quantile[freedom == kind] = float(value)
    return quantile


def _kinds(key: Array) -> Array:
    """Distinct values; quick where there is only one."""
    if key.size and (key == key[0]).all():
        return key[:1]
    return np.unique(key)


def _shaped(reasons: Reasons, shape: tuple[int, ...]) -> Reasons:
    return Reasons(codes=reasons.codes.reshape(shape), texts=reasons.texts)
