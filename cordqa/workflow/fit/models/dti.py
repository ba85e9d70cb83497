"""Diffusion tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.tensor import TensorEstimator, Uncertainty, fit_tensor
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._diffusion import example_table, odd_slices, rotations, with_warnings
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]


def _prepare(data: FitData) -> FitData:
    """Look for slices that do not fit: a single chunk does not see whole slices."""
    # The robust estimator leaves their samples out voxel by voxel.
    odd = () if data.text("estimator") == "robust" else odd_slices(data)
    return replace(data, state={"odd": odd})


def _fit(data: FitData) -> FittedMaps:
    maps = fit_tensor(
        data.signal,
        cast(GradientTable, data.gradients),
        estimator=cast(TensorEstimator, data.text("estimator")),
        uncertainty=cast(Uncertainty, data.text("uncertainty")),
    ).maps
    return with_warnings(maps, data.state.get("odd", ()))


def _example() -> Example:
    table = example_table([(1000.0, 32, 1.0)])
    axial, radial = np.linspace(1.2, 2.0, 12), np.linspace(0.7, 0.3, 12)
    values = np.stack([axial, 1.1 * radial, 0.9 * radial], axis=-1)
    turn = rotations(12)
    tensors = np.einsum("vij,vj,vkj->vik", turn, values, turn)
    exponent = np.einsum("nij,vij->vn", table.b_tensors_ms_um2, tensors)
    mean = values.mean(axis=1)
    spread = ((values - mean[:, None]) ** 2).sum(axis=1)
    shape = (3, 2, 2)
    return Example(
        images={"dwi": (1000.0 * np.exp(-exponent)).reshape(*shape, -1)},
        truth={
            "FA": np.sqrt(1.5 * spread / (values**2).sum(axis=1)).reshape(shape),
            "MD": 1000 * mean.reshape(shape),
            "AD": 1000 * axial.reshape(shape),
            "RD": 1000 * radial.reshape(shape),
        },
        tolerance=1e-4,
        gradients=table,
    )


MODEL = FitModel(
    id="dti",
    description="Diffusion tensor: FA, MD, AD, RD with standard errors",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="dwi",
            metavar="DWI",
            many=True,
            minimum=7,
            help="Diffusion-weighted series: one 4D file, or several with a gradient table each.",
        ),
    ),
    gradients=True,
    takes_noise=False,
    options=(
        Option(
            id="estimator",
            kind=str,
            default="wls",
            choices=("wls", "iwls", "robust"),
            help="Weighted, iterated weighted, or outlier-rejecting least squares of the log signal.",
        ),
        Option(
            id="uncertainty",
            kind=str,
            default="analytic",
            choices=("analytic", "none"),
            help="Standard errors from the covariance of the fit, or none.",
        ),
    ),
    produces=("FA", "MD", "AD", "RD", "S0"),
    references=(
        "Chung S, Lu Y, Henry RG. NeuroImage 2006. doi:10.1016/j.neuroimage.2006.07.001",
        "Veraart J et al. NeuroImage 2013. doi:10.1016/j.neuroimage.2013.05.028",
        "Chang LC, Jones DK, Pierpaoli C. Magn Reson Med 2005. doi:10.1002/mrm.20426",
    ),
    assumptions=(
        "Gaussian diffusion: b-values above about 1500 s/mm2 lower MD and should be left out or fitted "
        "with kurtosis. Noise that does not average out (below SNR 3 or so) is not modelled.",
    ),
)
