"""Diffusion kurtosis of conventionally (linearly) encoded series."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError, InputError
from cordqa.models.diffusion.design import fourth_order, kurtosis_design, second_order
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.kurtosis_constrained import Cone, fit_constrained, lift_to_non_negative
from cordqa.models.diffusion.kurtosis_metrics import (
    KURTOSIS_MAPS,
    LEAST_DIFFUSIVITY,
    directional_extremes,
    kurtosis_gradients,
    kurtosis_maps,
)
from cordqa.models.diffusion.kurtosis_rician import fit_rician
from cordqa.models.diffusion.linear_fit import (
    NO_NOISE,
    NOT_CONVERGED,
    Block,
    Design,
    LinearFit,
    Series,
    check_series,
    fit_weighted,
    one_covariance_form,
)
from cordqa.models.diffusion.noise_from_residuals import estimate_from_blocks
from cordqa.models.diffusion.results import DiffusionFit, Store, wild_bootstrap
from cordqa.models.diffusion.tensor import (
    Uncertainty,
    check_options,
    flag_tensor,
    take_tensor_errors,
    take_tensor_maps,
)
from cordqa.models.diffusion.tensor_metrics import TENSOR_MAPS, eigen, tensor_gradients, tensor_maps

__all__ = ["fit_kurtosis"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: KFA has no standard error: like FA near zero it is biased by noise, and at usual noise everywhere.
_WITH_ERROR = (*TENSOR_MAPS, "S0", "MK", "AK", "RK", "MKT")
#: Below this many noise standard deviations a magnitude is noise rather than signal.
_FLOOR_SNR = 3.0
#: The cumulant expansion has left its range where b D exceeds this.
_LARGEST_BD = 3.0

NOT_POSITIVE = "an eigenvalue is not positive: kurtosis is not defined"
NO_ANISOTROPY = "the mean of the kurtosis tensor is not positive: KFA is not defined"
AXIAL_AT_FLOOR = "AK: the signal along the main direction lies under the noise floor at the largest b"
NEGATIVE_KURTOSIS = "kurtosis is negative along some direction"
ABOVE_LIMIT = "kurtosis above 3 / (b_max D) along some direction: the modelled signal rises with b"
BEYOND_RANGE = "b_max times MD above 3: the expansion has left its range, and kurtosis is too low"


@dataclass(frozen=True, slots=True)
class _Settings:
    """How to fit every block."""

    table: GradientTable
    design: Design
    cone: Cone
    constrained: bool
    rician: bool
    noise_sd: Array | None
    uncertainty: Uncertainty
    n_draws: int
    generator: np.random.Generator

    @property
    def b_max(self) -> float:
        """Largest b in ms/um2."""
        return float(self.table.b_ms_um2.max())


def fit_kurtosis(
    signal: ArrayLike,
    table: GradientTable,
    *,
    constrained: bool = True,
    rician: bool = False,
    noise_sd: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    uncertainty: Uncertainty = "analytic",
    n_draws: int = 100,
    seed: int = 0,
) -> DiffusionFit:
    """Fit diffusion and kurtosis tensors: FA, MD, AD, RD, S0, MK, AK, RK, MKT and KFA.

    Parameters
    ----------
    signal : array_like, shape (..., n)
        Magnitudes, volumes last.  A sample that is not a number, or not above 1e-4 of the voxel's
        signal without weighting, is left out and its voxel flagged.
    table : GradientTable
        Linear encoding on at least two shells, at least 15 directions on the upper one.
    constrained : bool
        Whether every directional kurtosis has to lie between 0 and 3 / (b_max D) [2]_.  Without it
        the estimator is two-pass weighted least squares [1]_.
    rician : bool
        Compare the model with the magnitude by its Rician mean and variance instead of with the
        logarithm: what the axial signal of white matter at the noise floor needs.
    noise_sd : array_like, scalar or voxel shape, optional
        Noise standard deviation per channel in signal units, for ``rician`` and for the flag of AK.
        By default ``estimate_noise_sd`` of the series for the first, the voxel's own residuals for
        the other.  A voxel of a Rician fit whose noise is not above zero, or NaN, has no value.
    mask : array_like, voxel shape, optional
        Voxels to fit; by default all.
    uncertainty : {'analytic', 'bootstrap', 'none'}
        Standard errors by propagation of the covariance of the fit, by the wild bootstrap (for the
        unconstrained least squares only), or none.  Where bounds are active the analytic ones are
        those of the fit without them, an upper limit.
    n_draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DiffusionFit
        Diffusivities in um2/s.  Kurtosis is NaN with its own reason where an eigenvalue is not
        positive.  Nothing is clipped: what no tissue has is flagged.

    Raises
    ------
    InputError
        If the series or the table is not usable, or cannot determine the 22 unknowns.
    ConfigError
        If options contradict each other.

    References
    ----------
    .. [1] Veraart et al., NeuroImage 2013, doi:10.1016/j.neuroimage.2013.05.028
    .. [2] Tabesh et al., Magn Reson Med 2011, doi:10.1002/mrm.22655
    """
    check_options("wls", ("wls",), uncertainty, n_draws)
    if uncertainty == "bootstrap" and (constrained or rician):
        raise ConfigError(
            "the bootstrap of residuals is for the unconstrained least squares",
            todo="use uncertainty='analytic', or constrained=False and rician=False",
        )
    design = Design.of(kurtosis_design(table))
    series = check_series(signal, len(table), mask)
    settings = _Settings(
        table=table,
        design=design,
        cone=Cone.of(float(table.b_ms_um2.max())),
        constrained=constrained,
        rician=rician,
        noise_sd=_noise_of_voxels(noise_sd, series, design, table, needed=rician),
        uncertainty=uncertainty,
        n_draws=n_draws,
        generator=np.random.default_rng(seed),
    )
    store = Store(series, design, (*TENSOR_MAPS, "S0", *KURTOSIS_MAPS))
    for block in series.blocks(table.is_b0, design.n_unknowns):
        usable = store.open(_with_noise(block, settings) if rician else block)
        if len(usable.rows):
            _fit_block(store, usable, settings)
    return store.result(_model(constrained, rician), _notices(settings))


def _noise_of_voxels(
    noise_sd: ArrayLike | None, series: Series, design: Design, table: GradientTable, *, needed: bool
) -> Array | None:
    """Noise of every voxel (flattened), or None where it is neither given nor needed."""
    if noise_sd is None:
        if not needed:
            return None
        return np.full(series.n_voxels, estimate_from_blocks(series, design, table))
    given = np.asarray(noise_sd, dtype=float)
    if given.ndim and given.shape != series.shape:
        raise InputError(
            "the noise map has another shape than the images",
            found=f"{given.shape}",
            expected=f"{series.shape} or one number",
        )
    inside = np.broadcast_to(given, series.shape).reshape(-1)
    known = (inside > 0) & np.isfinite(inside)
    nowhere = bool(given.ndim) and bool(np.isnan(inside[series.rows]).all())
    if series.rows.size and not known[series.rows].any() and not nowhere:
        raise InputError(
            "the noise standard deviation has to be positive",
            found=f"{inside[series.rows][0]:g}",
            expected="a finite number above 0",
        )
    return np.where(known, inside, np.nan)


def _with_noise(block: Block, settings: _Settings) -> Block:
    """Refuse the voxels of a Rician fit whose noise is not known."""
    if settings.noise_sd is None:
        return block
    missing = (block.reason == 0) & np.isnan(settings.noise_sd[block.rows])
    return replace(block, reason=np.where(missing, NO_NOISE, block.reason).astype(np.uint8))


def _fit_block(store: Store, block: Block, settings: _Settings) -> None:
    design = settings.design
    known = None if settings.noise_sd is None else settings.noise_sd[block.rows] / block.level
    fit, coefficients, noise = _solve(block, settings, known)
    good = store.take_fit(block, fit, noise, coefficients)
    rows = block.rows[good]
    tensor, fourth = coefficients[good, :6], coefficients[good, 6:21]
    values, vectors = eigen(tensor)
    store.direction[rows] = vectors[..., 0]
    maps = tensor_maps(values)
    take_tensor_maps(store, rows, maps, store.coefficients[rows, 21])
    flag_tensor(store, rows, values, maps)
    _take_kurtosis(store, rows, tensor, fourth, values, vectors, settings)
    floor = noise if known is None else np.where(np.isnan(known), noise, known)
    _flag_axial(store, rows, coefficients[good], vectors[..., 0], floor[good], settings)
    if settings.uncertainty == "analytic":
        gradients = np.zeros((len(block.rows), len(_WITH_ERROR), 22))
        gradients[good] = _gradients(tensor, fourth, values, vectors)
        scale = known if settings.rician and known is not None else noise
        square = one_covariance_form(fit, design, gradients) * scale[:, None] ** 2
        with np.errstate(invalid="ignore"):
            errors = dict(zip(_WITH_ERROR, np.sqrt(square[good]).T, strict=True))
        take_tensor_errors(store, rows, errors)
    elif settings.uncertainty == "bootstrap":
        drawn = wild_bootstrap(
            block, design, fit, _evaluate, n_draws=settings.n_draws, generator=settings.generator
        )
        take_tensor_errors(store, rows, {name: drawn[name][good] for name in _WITH_ERROR})


def _solve(block: Block, settings: _Settings, known: Array | None) -> tuple[LinearFit, Array, Array]:
    """Fit with its normal matrices, the coefficients, and the noise that the residuals show."""
    design = settings.design
    if settings.rician and known is not None:
        fit = fit_rician(block, design, known, settings.cone, constrained=settings.constrained)
        free = fit_weighted(block, design)
        coefficients, noise = design.coefficients(fit.gamma), free.noise_sd(block, design)
    elif settings.constrained:
        fit, bounded = fit_constrained(block, design, settings.cone)
        failed = (fit.reason == 0) & ~bounded.solved
        fit = replace(fit, reason=np.where(failed, NOT_CONVERGED, fit.reason).astype(np.uint8))
        coefficients, noise = design.coefficients(bounded.gamma), fit.noise_sd(block, design)
    else:
        fit = fit_weighted(block, design)
        coefficients, noise = design.coefficients(fit.gamma), fit.noise_sd(block, design)
    if settings.constrained:
        coefficients[:, 6:21] = lift_to_non_negative(coefficients[:, 6:21])
    return fit, coefficients, noise


def _take_kurtosis(
    store: Store,
    rows: NDArray[np.intp],
    tensor: Array,
    fourth: Array,
    values: Array,
    vectors: Array,
    settings: _Settings,
) -> None:
    defined = values[:, 2] > LEAST_DIFFUSIVITY
    maps = kurtosis_maps(fourth[defined], values[defined], vectors[defined])
    store.take_maps(rows[defined], maps)
    store.blank(KURTOSIS_MAPS, rows, ~defined, NOT_POSITIVE)
    store.blank(("KFA",), rows[defined], np.isnan(maps["KFA"]), NO_ANISOTROPY)
    lowest, ratio = directional_extremes(tensor, fourth)
    # The bounds of a constrained fit hold on its own lattice; between its directions within this.
    slack = 1 + (0.1 if settings.constrained else 1e-6)
    store.flag(NEGATIVE_KURTOSIS, rows, lowest < 0)
    store.flag(ABOVE_LIMIT, rows, ratio > slack * 3 / settings.b_max)
    store.flag(BEYOND_RANGE, rows, settings.b_max * values.mean(axis=1) > _LARGEST_BD)


def _flag_axial(
    store: Store, rows: NDArray[np.intp], coefficients: Array, axis: Array, noise: Array, settings: _Settings
) -> None:
    """Flag voxels whose axial signal is lost in the noise: at the floor it would be 1.25 of it."""
    b = settings.b_max
    row = np.concatenate([-b * second_order(axis), b**2 / 6 * fourth_order(axis)], axis=1)
    log = (row * coefficients[:, :21]).sum(axis=1) + coefficients[:, 21]
    with np.errstate(over="ignore", invalid="ignore"):
        store.flag(AXIAL_AT_FLOOR, rows, np.exp(log) < _FLOOR_SNR * noise)


def _gradients(tensor: Array, fourth: Array, values: Array, vectors: Array) -> Array:
    """Gradients of the maps that have a standard error, by all coefficients, shape (m, 9, 22)."""
    gradients = np.zeros((len(tensor), len(_WITH_ERROR), 22))
    gradients[:, :4, :6] = tensor_gradients(tensor, values, vectors)
    gradients[:, 4, 21] = 1.0
    defined = values[:, 2] > LEAST_DIFFUSIVITY
    parts = kurtosis_gradients(tensor[defined], fourth[defined], values[defined], vectors[defined])
    gradients[defined, 5:, :21] = parts[:, : len(_WITH_ERROR) - 5]
    return gradients


def _evaluate(coefficients: Array) -> dict[str, Array]:
    """Maps of one draw of the bootstrap; a draw outside the defined range counts at its border."""
    values, vectors = eigen(coefficients[:, :6])
    inside = np.maximum(values, LEAST_DIFFUSIVITY)
    maps = {**tensor_maps(values), "S0": coefficients[:, 21]}
    kurtosis = kurtosis_maps(coefficients[:, 6:21], inside, vectors)
    return {**maps, **{name: kurtosis[name] for name in _WITH_ERROR if name in kurtosis}}


def _model(constrained: bool, rician: bool) -> str:
    bounds = ", directional kurtosis between 0 and 3 / (b_max D)" if constrained else ""
    if rician:
        return f"diffusion kurtosis, Rician quasi-likelihood{bounds}"
    return f"diffusion kurtosis, weighted least squares of the log signal{bounds}"


def _notices(settings: _Settings) -> tuple[str, ...]:
    notices = []
    if settings.constrained and settings.uncertainty == "analytic":
        notices.append(
            "where bounds are active, standard errors are those of the fit without bounds: an upper limit"
        )
    if not settings.rician:
        notices.append(
            "magnitude noise was not modelled: samples at the noise floor bias AK and MKT, and with them "
            "their intervals"
        )
    return tuple(notices)
