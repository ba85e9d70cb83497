"""Microscopic anisotropy from encodings of different shape.

Powder averages take the orientation out of the signal.  What is left of its curvature in
``ln S`` comes from compartments of different mean diffusivity (VI), whatever the shape of the
encoding, and from their anisotropy (VA), in proportion to ``b_delta^2``.  The microscopic
fractional anisotropy is ``sqrt(3/2 VL / (VL + VI + MD^2))`` with ``VL = 5/2 VA`` the mean variance
of the compartments' eigenvalues: 1 for compartments in which water moves along a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.cumulant import PowderFit, fit_cumulant
from cordqa.models.diffusion.gamma import fit_gamma
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.microscopic_maps import VoxelState, derive_maps
from cordqa.models.diffusion.orientation import TensorVariance, tensor_estimator, tensor_variance
from cordqa.models.diffusion.powder import (
    PowderAverages,
    PowderShell,
    average_shells,
    find_shells,
    repair_samples,
)
from cordqa.models.diffusion.powder_checks import check_noise_sd, check_signals
from cordqa.models.diffusion.shell_choice import (
    B0_LEFT_OUT,
    choose_shells,
    describe_sampling,
    judge_b0,
    reduce_kept,
)
from cordqa.models.maps import FittedMaps, Reasons

__all__ = ["B0Use", "MicroscopicModel", "fit_microscopic_anisotropy"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MicroscopicModel = Literal["cumulant", "gamma", "qti"]
B0Use = Literal["auto", "use", "leave out"]

_MODELS: dict[str, str] = {
    "cumulant": "second-order cumulant expansion of powder averages, weighted least squares",
    "gamma": "gamma distribution of diffusivities, powder averages, weighted least squares",
    "qti": "covariance tensor (QTI), weighted least squares of dipy",
}
#: Voxels fitted at once: enough to spread the cost of a call, few enough to stay in the cache.
_BLOCK = 4096
#: A shell whose mean lies below this many standard deviations of the noise is not used.
_FLOOR_SIGMAS = 3.0
#: Shells from this fraction of the lowest such b upward are left out with it.
_SAME_B = 0.95
#: b MD above which the third order matters: with a shape near spherical, and from linear and planar
#: encoding alone, whose third orders have opposite signs.
_MOST_WEIGHTING, _MOST_WEIGHTING_PLANAR = 2.0, 1.3
_NEAR_SPHERICAL = 0.25
#: Least relative standard deviation of an average: data without noise have a finite weight.
_LEAST_RELATIVE_SD = 1e-6

NO_SIGNAL = "no signal above the noise"
NOT_SOLVED = "the fit did not converge"
SHORTENED = "a shell near the noise or without samples, and this model needs all"


def fit_microscopic_anisotropy(
    signals: ArrayLike,
    table: GradientTable,
    *,
    model: MicroscopicModel = "cumulant",
    noise_sd: ArrayLike | None = None,
    b0: B0Use = "auto",
    order_parameter: bool = True,
) -> FittedMaps:
    """Microscopic anisotropy from linear, planar, spherical or double diffusion encoding.

    Parameters
    ----------
    signals : array_like, shape (..., n)
        Magnitudes, volumes last.  Samples that are no positive number are left out one by one.
    table : GradientTable
        Encoding of the n volumes, with at least two shapes (distinct ``|b_delta|``) over a common
        range of b.  Double diffusion encoding enters through
        :func:`~cordqa.models.diffusion.double_encoding.double_encoding_table`.
    model : {'cumulant', 'gamma', 'qti'}
        Second-order expansion of powder averages; gamma distribution of diffusivities; or the
        covariance tensor model, fitted by dipy to all volumes without powder averaging.
    noise_sd : array_like, broadcast to the voxel shape, optional
        Standard deviation of the noise of one sample.  Without it, it is estimated in each voxel
        from repeated volumes and from what even polynomials of the direction leave over.
    b0 : {'auto', 'use', 'leave out'}
        ``auto`` leaves the b = 0 volumes out where low-b shells show that they do not belong to
        the same decay: more than 1 % and more than 3 standard errors off in the median voxel.
    order_parameter : bool
        Whether to add the order parameter, where the directions determine a tensor.

    Returns
    -------
    FittedMaps
        ``MD`` (um2/s), ``VI`` and ``VA`` (um4/ms2), ``KI = 3 VI/MD^2``, ``KA = 3 VA/MD^2``,
        ``muFA``, ``muFA_lower`` and ``muFA_upper`` (limits of its 95 % interval) and ``OP``, with
        standard errors of all but the limits.  Values that no tissue has are kept and flagged.
        VI to OP are NaN with the reason where the weighting is negligible or MD is not
        distinguishable from zero; muFA and OP also where VA is not distinguishable from zero at
        99 % (two-sided), where ``muFA_upper`` says what can be said.

    Raises
    ------
    InputError
        If signals, table or settings cannot be used, or the encodings have one shape only.

    References
    ----------
    .. [1] Lasic et al., Front Phys 2014, doi:10.3389/fphy.2014.00011
    .. [2] Arezza et al., 2020, doi:10.1101/2020.11.23.20237099
    .. [3] Westin et al., NeuroImage 2016, doi:10.1016/j.neuroimage.2016.02.039
    """
    _check_choice("model", model, MicroscopicModel)
    _check_choice("use of b = 0", b0, B0Use)
    array = check_signals(signals, table)
    shape = array.shape[:-1]
    flat = array.reshape(-1, len(table))
    noise = check_noise_sd(noise_sd, shape)
    shells, left_out = choose_shells(find_shells(table))
    shells, about_b0 = _settle_b0(flat, shells, noise, b0)
    estimator = tensor_estimator(table, shells) if order_parameter else None
    solver = _solver(model, table, shells)
    blocks = [
        _fit_block(
            np.asarray(flat[start : start + _BLOCK], dtype=float),
            shells,
            None if noise is None else noise[start : start + _BLOCK],
            solver,
            estimator,
        )
        for start in range(0, max(len(flat), 1), _BLOCK)
    ]
    fit, state, tensor = _joined(blocks, estimator is not None, _most_weighting(model, shells))
    sampling = describe_sampling(shells)
    maps = derive_maps(
        fit,
        state,
        model=_MODELS[model],
        shape=shape,
        tensor=tensor,
        notices=left_out + about_b0 + sampling + _about_model(model, estimator, order_parameter),
    )
    b0_left_out = tuple(text for text in about_b0 if text.startswith(B0_LEFT_OUT))
    return replace(maps, warnings=left_out + b0_left_out + sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Averaged:
    """One block of voxels, ready for any of the models; averages not to be used have infinite variance."""

    signals: Array
    averages: PowderAverages
    variances: Array
    cumulant: PowderFit


_Solver = Callable[[_Averaged], PowderFit]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    fit: PowderFit
    failures: list[tuple[Mask, str]] = field(default_factory=list)
    b_max: Array
    freedom: Array
    misfit_freedom: Array
    anisotropy_sigmas: Array
    left_out: Mask
    shortened: Mask
    tensor: TensorVariance | None


def _check_choice(name: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"unknown {name}", found=str(value), expected=", ".join(allowed))


def _settle_b0(
    signals: NDArray[Any], shells: Sequence[PowderShell], noise: Array | None, b0: str
) -> tuple[tuple[PowderShell, ...], tuple[str, ...]]:
    if not any(shell.unweighted for shell in shells) or b0 == "use":
        return tuple(shells), ()
    agrees, about = (False, "") if b0 == "leave out" else judge_b0(signals, shells, noise)
    if not agrees:
        shells, _ = choose_shells([shell for shell in shells if not shell.unweighted])
    return tuple(shells), (about,) if about else ()


def _solver(model: str, table: GradientTable, shells: Sequence[PowderShell]) -> _Solver:
    if model == "cumulant":
        return _take_cumulant
    if model == "gamma":
        return lambda block: fit_gamma(block.averages.means, block.variances, shells, block.cumulant)
    from cordqa.models.diffusion.qti import QtiSolver

    qti = QtiSolver(table, shells)
    return lambda block: qti.fit(
        block.signals,
        block.averages.noise_sd,
        replace(block.cumulant, solved=block.cumulant.solved & np.isfinite(block.variances).all(axis=0)),
    )


def _most_weighting(model: str, shells: Sequence[PowderShell]) -> float | None:
    if model == "gamma":
        return None
    spherical = any(not s.unweighted and abs(s.b_delta) < _NEAR_SPHERICAL for s in shells)
    return _MOST_WEIGHTING if spherical else _MOST_WEIGHTING_PLANAR


def _take_cumulant(block: _Averaged) -> PowderFit:
    return block.cumulant


def _about_model(model: str, estimator: Array | None, wanted: bool) -> tuple[str, ...]:
    notices = [
        "compartments are taken as Gaussian and without exchange: kurtosis within compartments counts as"
        " variance between them"
    ]
    if model == "gamma":
        notices.append(
            "few kinds of compartments, or long ones, are not gamma distributed: muFA of simulated cord came"
            " out 0.06 to 0.2 too high, which the limits of muFA do not hold"
        )
    if model == "qti":
        notices.append("with few volumes the covariance tensor is noisier than powder averages")
    if wanted and estimator is None:
        notices.append("no order parameter: the directions do not determine a diffusion tensor")
    return tuple(notices)


def _fit_block(
    signals: Array,
    shells: Sequence[PowderShell],
    noise: Array | None,
    solver: _Solver,
    estimator: Array | None,
) -> _Block:
    signals, lost = repair_samples(signals, shells)
    averages = average_shells(signals, shells, lost=lost, noise_sd=noise)
    kept, shortened, failures = _usable(averages, shells)
    variances, unknown = _weights(averages, kept, shells)
    cumulant = fit_cumulant(averages.means, variances, shells)
    fit = solver(_Averaged(signals=signals, averages=averages, variances=variances, cumulant=cumulant))
    if solver is not _take_cumulant:
        failures.append((~kept.all(axis=0) & ~fit.solved, SHORTENED))
    failures.append((~fit.solved | ~np.isfinite(fit.parameters).all(axis=0), NOT_SOLVED))
    cumulant, _ = _scaled(cumulant, averages.freedom, unknown)
    fit, freedom = _scaled(fit, averages.freedom, unknown)
    b = np.array([shell.b_ms_um2 for shell in shells])[:, None]
    tensor = None if estimator is None else tensor_variance(signals, averages.noise_sd, estimator)
    return _Block(
        fit=fit,
        failures=failures,
        b_max=np.where(kept, b, 0.0).max(axis=0),
        freedom=freedom,
        misfit_freedom=np.where(unknown, 0.0, _misfit_freedom(fit)),
        anisotropy_sigmas=_sigmas(cumulant),
        left_out=np.asarray(lost.sum(axis=0) > 0),
        shortened=shortened,
        tensor=tensor,
    )


def _usable(
    averages: PowderAverages, shells: Sequence[PowderShell]
) -> tuple[Mask, Mask, list[tuple[Mask, str]]]:
    """Which averages of which voxels are used, which voxels lost shells to noise, and which lost all."""
    missing = ~(averages.means > 0)
    with np.errstate(invalid="ignore"):
        low = averages.means < _FLOOR_SIGMAS * averages.noise_sd
    if not missing.any() and not low.any():
        none = np.zeros(missing.shape[1], dtype=bool)
        return ~missing, none, []
    b = np.array([shell.b_ms_um2 for shell in shells])[:, None]
    cut = np.where(low, b, np.inf).min(axis=0)
    kept = ~missing & (b < _SAME_B * cut)
    empty = ~kept.any(axis=0)
    failures = [(empty, NO_SIGNAL)]
    code = (1 << np.arange(len(shells))) @ kept.astype(np.int64)
    for value in np.unique(code[~empty]):
        voxels = code == value
        matched, reason = reduce_kept(shells, kept[:, np.argmax(voxels)])
        kept[:, voxels] = matched[:, None]
        if reason:
            failures.append((voxels, f"too few shells with signal: {reason}"))
    return kept, low.any(axis=0) & ~empty, failures


def _weights(averages: PowderAverages, kept: Mask, shells: Sequence[PowderShell]) -> tuple[Array, Mask]:
    """Variances of the averages, infinite where not used; and where their scale is unknown."""
    unknown = ~np.isfinite(averages.noise_sd)
    factor = np.array([shell.variance_factor for shell in shells])[:, None]
    variances = np.where(unknown, factor, averages.variances)
    with np.errstate(invalid="ignore"):
        variances = np.maximum(variances, (_LEAST_RELATIVE_SD * averages.means) ** 2)
    return np.where(kept, variances, np.inf), unknown


def _misfit_freedom(fit: PowderFit) -> Array:
    return np.maximum(fit.n_used - fit.n_unknowns, 0).astype(float)


def _scaled(fit: PowderFit, freedom: Array, unknown: Mask) -> tuple[PowderFit, Array]:
    """Where the noise is unknown, take it from the residuals of the model, if there are any."""
    if not unknown.any():
        return fit, freedom
    own = _misfit_freedom(fit)
    factor = np.where(unknown, fit.cost / np.maximum(own, 1.0), 1.0)
    return replace(fit, covariance=fit.covariance * factor), np.where(unknown, own, freedom)


def _sigmas(cumulant: PowderFit) -> Array:
    """VA of the powder averages in standard errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(cumulant.parameters[3] / np.sqrt(cumulant.covariance[3, 3]))


def _joined(
    blocks: Sequence[_Block], with_tensor: bool, most_weighting: float | None
) -> tuple[PowderFit, VoxelState, TensorVariance | None]:
    fit = PowderFit(
        parameters=np.concatenate([block.fit.parameters for block in blocks], axis=-1),
        covariance=np.concatenate([block.fit.covariance for block in blocks], axis=-1),
        cost=np.concatenate([block.fit.cost for block in blocks]),
        solved=np.concatenate([block.fit.solved for block in blocks]),
        truncation=np.concatenate([block.fit.truncation for block in blocks], axis=-1),
        n_used=np.concatenate([block.fit.n_used for block in blocks]),
        n_unknowns=blocks[0].fit.n_unknowns,
    )
    state = VoxelState(
        reasons=_joined_reasons(blocks),
        b_max_ms_um2=np.concatenate([block.b_max for block in blocks]),
        freedom=np.concatenate([block.freedom for block in blocks]),
        misfit_freedom=np.concatenate([block.misfit_freedom for block in blocks]),
        anisotropy_sigmas=np.concatenate([block.anisotropy_sigmas for block in blocks]),
        left_out=np.concatenate([block.left_out for block in blocks]),
        shortened=np.concatenate([block.shortened for block in blocks]),
        most_weighting=most_weighting,
    )
    tensor = None
    if with_tensor:
        tensors = [block.tensor for block in blocks if block.tensor is not None]
        tensor = TensorVariance(
            np.concatenate([t.value for t in tensors]), np.concatenate([t.standard_error for t in tensors])
        )
    return fit, state, tensor


def _joined_reasons(blocks: Sequence[_Block]) -> Reasons:
    parts = [Reasons.collect(block.fit.solved.shape, block.failures) for block in blocks]
    texts = list(dict.fromkeys(["", *(text for part in parts for text in part.texts)]))
    numbers = [np.array([texts.index(text) for text in part.texts], dtype=np.uint8) for part in parts]
    codes = [number[part.codes] for number, part in zip(numbers, parts, strict=True)]
    return Reasons(codes=np.concatenate(codes), texts=tuple(texts))
