"""Diffusion kurtosis."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.kurtosis import fit_kurtosis
from cordqa.models.diffusion.noise_from_residuals import estimate_noise_sd
from cordqa.models.diffusion.tensor import Uncertainty
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._diffusion import (
    example_table,
    known_noise,
    odd_slices,
    rotations,
    spread_directions,
    with_warnings,
)
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]


def _prepare(data: FitData) -> FitData:
    """Estimate the noise of a Rician fit once, and look for odd slices: chunks must not differ in either."""
    data = replace(data, state={"odd": odd_slices(data)})
    if not data.flag("rician") or data.noise_sd is not None:
        return data
    level = estimate_noise_sd(data.signal, cast(GradientTable, data.gradients))
    about = f"noise SD {level:.4g} was estimated from the residuals of all voxels"
    return replace(data, noise_sd=np.full(data.shape, level), state={**data.state, "about": (about,)})


def _fit(data: FitData) -> FittedMaps:
    maps = fit_kurtosis(
        data.signal,
        cast(GradientTable, data.gradients),
        constrained=data.flag("constrained"),
        rician=data.flag("rician"),
        noise_sd=known_noise(data),
        uncertainty=cast(Uncertainty, data.text("uncertainty")),
    ).maps
    maps = replace(maps, notices=(*maps.notices, *data.state.get("about", ())))
    return with_warnings(maps, data.state.get("odd", ()))


def _example() -> Example:
    """Two parallel compartments, expanded to second order in b: the model itself, nothing beyond."""
    table = example_table([(1000.0, 30, 1.0), (2000.0, 30, 1.0)])
    size = np.linspace(0.7, 1.1, 12)
    turn = rotations(12)
    cosine = np.einsum("ni,vi->vn", table.directions, turn[:, :, 0])
    mean, variance = _along(cosine**2, size)
    b = table.b_ms_um2
    signal = 1000 * np.exp(-b * mean + b**2 * variance / 2)
    # The sphere's average of the kurtosis, and its values along and across the compartments.
    everywhere = spread_directions(40_000)[:, 0]
    on_sphere = np.stack([_kurtosis(everywhere**2, s).mean() for s in size])
    shape = (3, 2, 2)
    ends = {"AK": 1.0, "RK": 0.0}
    truth = {name: np.array([_kurtosis(np.array([c]), s)[0] for s in size]) for name, c in ends.items()}
    trace = np.stack([_along(np.array([[1.0, 0.0, 0.0]]), np.array([s]))[0][0].mean() for s in size])
    return Example(
        images={"dwi": signal.reshape(*shape, -1)},
        truth={
            "MK": on_sphere.reshape(shape),
            "MD": 1000 * trace.reshape(shape),
            **{name: value.reshape(shape) for name, value in truth.items()},
        },
        tolerance=2e-3,
        gradients=table,
    )


def _along(square: Array, size: Array) -> tuple[Array, Array]:
    """Mean and variance over two compartments of the diffusivity in um2/ms, by cosine squared."""
    first = (0.3 + 1.7 * square) * size[:, None]
    second = (0.9 + 0.5 * square) * size[:, None]
    return (first + second) / 2, ((first - second) / 2) ** 2


def _kurtosis(square: Array, size: float) -> Array:
    mean, variance = _along(square[None], np.array([size]))
    return np.asarray(3 * variance[0] / mean[0] ** 2)


MODEL = FitModel(
    id="dki",
    description="Diffusion kurtosis: MK, AK, RK, MKT, KFA and the diffusion tensor",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="dwi",
            metavar="DWI",
            many=True,
            minimum=22,
            help="Series on two or more shells: one 4D file, or several with a gradient table each.",
        ),
    ),
    gradients=True,
    options=(
        Option(
            id="constrained",
            kind=bool,
            default=True,
            help="Hold every directional kurtosis between 0 and 3 / (b_max D).",
        ),
        Option(
            id="rician",
            kind=bool,
            default=False,
            help="Fit the magnitude with its Rician mean and variance; noise estimated where none is given.",
        ),
        Option(
            id="uncertainty",
            kind=str,
            default="analytic",
            choices=("analytic", "none"),
            help="Standard errors from the covariance of the fit, or none.",
        ),
    ),
    produces=("FA", "MD", "AD", "RD", "S0", "MK", "AK", "RK", "MKT", "KFA"),
    references=(
        "Veraart J et al. NeuroImage 2013. doi:10.1016/j.neuroimage.2013.05.028",
        "Tabesh A et al. Magn Reson Med 2011. doi:10.1002/mrm.22655",
    ),
    assumptions=(
        "The expansion in b stops at the second order: it holds up to about b = 2500 s/mm2 in white matter.",
    ),
)
