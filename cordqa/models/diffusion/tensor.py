"""Diffusion tensor of conventional and b-tensor encoded series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import ConfigError
from cordqa.models.diffusion.design import tensor_design
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.linear_fit import (
    Block,
    Design,
    LinearFit,
    check_series,
    fit_reweighted,
    fit_weighted,
    one_covariance_form,
)
from cordqa.models.diffusion.results import TO_UM2_S, DiffusionFit, Store, wild_bootstrap
from cordqa.models.diffusion.robust import fit_robust
from cordqa.models.diffusion.tensor_metrics import TENSOR_MAPS, eigen, tensor_gradients, tensor_maps

__all__ = ["TensorEstimator", "Uncertainty", "fit_tensor"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
TensorEstimator = Literal["wls", "iwls", "robust"]
Uncertainty = Literal["analytic", "bootstrap", "none"]

_MODELS = {
    "wls": "diffusion tensor, weighted least squares of the log signal (two passes)",
    "iwls": "diffusion tensor, iteratively reweighted least squares of the log signal",
    "robust": "diffusion tensor, weighted least squares after removal of outliers found with "
    "Geman-McClure weights",
}
_DIFFUSIVITIES = ("MD", "AD", "RD")
#: Mean diffusivity (um2/ms) of free water at 37 C is about 3.0; below the other nothing diffuses.
_MD_RANGE = (0.05, 3.1)
#: A tensor fit assumes a Gaussian displacement; kurtosis shows beyond this (s/mm2).
_GAUSSIAN_LIMIT = 1500.0
#: Fewer draws say little about a standard error.
_FEWEST_DRAWS = 20

NEGATIVE_EIGENVALUE = "an eigenvalue is negative"
FA_ABOVE_ONE = "FA above 1"
MD_IMPLAUSIBLE = f"mean diffusivity outside {_MD_RANGE[0]:g} to {_MD_RANGE[1]:g} um2/ms"
NO_DIFFUSION = "no diffusion: FA is not defined"
FA_WITHIN_NOISE = "FA is not above its noise: it is biased upward, and its interval does not hold"


def fit_tensor(
    signal: ArrayLike,
    table: GradientTable,
    *,
    estimator: TensorEstimator = "wls",
    mask: ArrayLike | None = None,
    uncertainty: Uncertainty = "analytic",
    n_draws: int = 200,
    seed: int = 0,
) -> DiffusionFit:
    """Fit the diffusion tensor of each voxel: FA, MD, AD, RD, S0 and the main direction.

    Parameters
    ----------
    signal : array_like, shape (..., n)
        Magnitudes, volumes last, of any real dtype.  A sample that is not a number, or not above
        1e-4 of the voxel's signal without weighting, is left out and its voxel flagged.
    table : GradientTable
        Encoding of the n volumes; linear, planar and spherical encodings mix.
    estimator : {'wls', 'iwls', 'robust'}
        Two-pass weighted least squares [1]_; weights iterated to convergence [2]_; or outliers found
        with Geman-McClure weights and removed [3]_, the rest fitted by ``wls``.
    mask : array_like, voxel shape, optional
        Voxels to fit; by default all.
    uncertainty : {'analytic', 'bootstrap', 'none'}
        Standard errors by propagation of the weighted least-squares covariance, by the wild
        bootstrap of residuals, or none.
    n_draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DiffusionFit
        Maps of FA, MD, AD, RD (um2/s) and S0.  Eigenvalues are not clipped: a negative one, FA
        above 1 or an implausible MD keeps its value and carries a flag.  Standard errors go with
        Student's t of ``degrees_of_freedom`` and are NaN without a spare sample.

    Raises
    ------
    InputError
        If volumes and gradients differ in number, there is no volume without weighting, the unit
        of b is not s/mm2, or the directions do not determine a tensor.

    References
    ----------
    .. [1] Chung, Lu, Henry, NeuroImage 2006, doi:10.1016/j.neuroimage.2006.07.001
    .. [2] Veraart et al., NeuroImage 2013, doi:10.1016/j.neuroimage.2013.05.028
    .. [3] Chang, Jones, Pierpaoli, Magn Reson Med 2005, doi:10.1002/mrm.20426 (the idea; the
       weights and the final fit differ)
    """
    check_options(estimator, get_args(TensorEstimator), uncertainty, n_draws)
    design = Design.of(tensor_design(table))
    series = check_series(signal, len(table), mask)
    store = Store(series, design, (*TENSOR_MAPS, "S0"))
    generator = np.random.default_rng(seed)
    for block in series.blocks(table.is_b0, design.n_unknowns):
        usable = store.open(block)
        if not len(usable.rows):
            continue
        fit, usable = _fit(store, usable, design, estimator)
        _store_block(store, usable, fit, uncertainty, n_draws, generator)
    notices = _notices(table)
    return store.result(_MODELS[estimator], notices, warnings=notices)


def check_options(estimator: str, estimators: tuple[str, ...], uncertainty: str, n_draws: int) -> None:
    """Refuse options that do not exist.

    Raises
    ------
    ConfigError
        For an unknown estimator or uncertainty, or too few draws.
    """
    if estimator not in estimators:
        raise ConfigError("unknown estimator", found=str(estimator), expected=" or ".join(estimators))
    if uncertainty not in get_args(Uncertainty):
        raise ConfigError(
            "unknown uncertainty", found=str(uncertainty), expected=" or ".join(get_args(Uncertainty))
        )
    if uncertainty == "bootstrap" and n_draws < _FEWEST_DRAWS:
        raise ConfigError("too few draws", found=f"{n_draws}", expected=f"at least {_FEWEST_DRAWS}")


def _fit(store: Store, block: Block, design: Design, estimator: TensorEstimator) -> tuple[LinearFit, Block]:
    if estimator == "robust":
        fit, outliers = fit_robust(block, design)
        store.outliers[block.rows] = outliers
        return fit, block.without(outliers)
    return (fit_weighted if estimator == "wls" else fit_reweighted)(block, design), block


def _store_block(
    store: Store,
    block: Block,
    fit: LinearFit,
    uncertainty: Uncertainty,
    n_draws: int,
    generator: np.random.Generator,
) -> None:
    coefficients, noise = store.design.coefficients(fit.gamma), fit.noise_sd(block, store.design)
    good = store.take_fit(block, fit, noise, coefficients)
    rows, tensor = block.rows[good], coefficients[good, :6]
    values, vectors = eigen(tensor)
    store.direction[rows] = vectors[..., 0]
    maps = tensor_maps(values)
    take_tensor_maps(store, rows, maps, store.coefficients[rows, 6])
    flag_tensor(store, rows, values, maps)
    if uncertainty == "none":
        return
    if uncertainty == "analytic":
        gradients = np.zeros((len(block.rows), 5, 7))
        gradients[good, :4, :6] = tensor_gradients(tensor, values, vectors)
        gradients[:, 4, 6] = 1.0
        square = one_covariance_form(fit, store.design, gradients) * noise[:, None] ** 2
        errors = dict(zip((*TENSOR_MAPS, "S0"), np.sqrt(square[good]).T, strict=True))
    else:
        errors = _bootstrap(block, store.design, fit, n_draws, generator)
        errors = {name: error[good] for name, error in errors.items()}
    take_tensor_errors(store, rows, errors)


def take_tensor_maps(store: Store, rows: NDArray[np.intp], maps: Mapping[str, Array], log_s0: Array) -> None:
    """Store FA, diffusivities in um2/s, and S0."""
    scaled = {k: value * TO_UM2_S if k in _DIFFUSIVITIES else value for k, value in maps.items()}
    with np.errstate(over="ignore"):
        store.take_maps(rows, {**scaled, "S0": np.exp(log_s0)})
    store.blank(("FA",), rows, np.isnan(maps["FA"]), NO_DIFFUSION)


def take_tensor_errors(store: Store, rows: NDArray[np.intp], errors: Mapping[str, Array]) -> None:
    """Store standard errors (those of S0 as of ln S0) and flag FA that noise alone could give."""
    scale = dict.fromkeys(_DIFFUSIVITIES, np.full(len(rows), TO_UM2_S))
    scale["S0"] = store.values["S0"][rows]
    store.take_errors(rows, {name: error * scale.get(name, 1.0) for name, error in errors.items()})
    with np.errstate(invalid="ignore"):
        store.flag(FA_WITHIN_NOISE, rows, store.values["FA"][rows] < 3 * errors["FA"])


def flag_tensor(store: Store, rows: NDArray[np.intp], values: Array, maps: Mapping[str, Array]) -> None:
    """Flag tensors that no tissue has."""
    store.flag(NEGATIVE_EIGENVALUE, rows, values[:, 2] < 0)
    store.flag(FA_ABOVE_ONE, rows, np.nan_to_num(maps["FA"]) > 1)
    store.flag(MD_IMPLAUSIBLE, rows, (maps["MD"] < _MD_RANGE[0]) | (maps["MD"] > _MD_RANGE[1]))


def _bootstrap(
    block: Block, design: Design, fit: LinearFit, n_draws: int, generator: np.random.Generator
) -> dict[str, Array]:
    def evaluate(coefficients: Array) -> dict[str, Array]:
        maps = tensor_maps(eigen(coefficients[:, :6])[0])
        return {**maps, "S0": coefficients[:, 6]}

    return wild_bootstrap(block, design, fit, evaluate, n_draws=n_draws, generator=generator)


def _notices(table: GradientTable) -> tuple[str, ...]:
    largest = float(table.b_values_s_mm2.max())
    if largest <= _GAUSSIAN_LIMIT:
        return ()
    return (
        f"volumes up to b = {largest:.0f} s/mm2 entered the tensor fit; above {_GAUSSIAN_LIMIT:.0f} "
        "kurtosis biases diffusivities downward",
    )
