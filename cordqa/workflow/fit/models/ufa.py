"""Microscopic anisotropy."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.microscopic import B0Use, MicroscopicModel, fit_microscopic_anisotropy
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._diffusion import example_table, known_noise, spread_directions
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]

#: Voxels by which it is decided whether b = 0 belongs to the other volumes.
_SAMPLE = 4000
#: ... which have this share of their samples at least.
_MOSTLY = 0.8


def _prepare(data: FitData) -> FitData:
    """Decide once, for all voxels, whether the b = 0 volumes enter: chunks must not differ in it."""
    if data.text("b0") != "auto":
        return replace(data, state={"b0": data.text("b0")})
    # Not only voxels without any bad sample: one bad volume would leave none.
    good = np.flatnonzero((data.signal > 0).mean(axis=-1) > _MOSTLY)
    sample = data.rows(good[:: max(1, good.size // _SAMPLE)])
    quick = replace(sample, options={**sample.options, "model": "cumulant", "order_parameter": False})
    judged, used = _maps(quick, "auto"), _maps(quick, "use")
    same = np.array_equal(judged.values["MD"], used.values["MD"], equal_nan=True)
    about = tuple(text for text in judged.notices if text not in used.notices)
    loud = tuple(text for text in about if text in judged.warnings)
    return replace(data, state={"b0": "use" if same else "leave out", "about": about, "loud": loud})


def _maps(data: FitData, b0: str) -> FittedMaps:
    return fit_microscopic_anisotropy(
        data.signal,
        cast(GradientTable, data.gradients),
        model=cast(MicroscopicModel, data.text("model")),
        noise_sd=known_noise(data),
        b0=cast(B0Use, b0),
        order_parameter=data.flag("order_parameter"),
    )


def _fit(data: FitData) -> FittedMaps:
    maps = _maps(data, str(data.state.get("b0", "auto")))
    return replace(
        maps,
        notices=(*maps.notices, *data.state.get("about", ())),
        warnings=(*maps.warnings, *data.state.get("loud", ())),
    )


def _example() -> Example:
    """Sticks-like tensors in all directions: isotropic for the eye, anisotropic for each compartment."""
    table = example_table(
        [(100.0, 6, 1.0), (700.0, 15, 1.0), (1400.0, 30, 1.0), (100.0, 3, 0.0), (1400.0, 10, 0.0)]
    )
    anisotropy = np.linspace(0.3, 0.6, 12)
    axes = spread_directions(2000)
    cosine = np.einsum("nij,ai,aj->na", table.b_tensors_ms_um2, axes, axes)
    trace = table.b_ms_um2
    signal = []
    for delta in anisotropy:
        axial, radial = 0.8 * (1 + 2 * delta), 0.8 * (1 - delta)
        signal.append(1000 * np.exp(-(radial * trace[:, None] + (axial - radial) * cosine)).mean(axis=1))
    shape = (3, 2, 2)
    truth = np.sqrt(3 * anisotropy**2 / (1 + 2 * anisotropy**2))
    return Example(
        images={"dwi": np.array(signal).reshape(*shape, -1)},
        # The expansion to second order leaves out the rest of the decay: a few percent here.
        truth={"muFA": truth.reshape(shape), "MD": np.full(shape, 800.0)},
        tolerance=0.1,
        options={"order_parameter": False},
        gradients=table,
        noise_sd=2.0,
    )


MODEL = FitModel(
    id="ufa",
    description="Microscopic anisotropy (muFA) from two or more shapes of diffusion encoding",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="dwi",
            metavar="DWI",
            many=True,
            minimum=4,
            help="Diffusion-weighted series: one 4D file, or one per encoding with a gradient table each.",
        ),
    ),
    gradients=True,
    options=(
        Option(
            id="model",
            kind=str,
            default="cumulant",
            choices=("cumulant", "gamma", "qti"),
            help="Powder averages to second order, gamma distribution, or covariance tensor.",
        ),
        Option(
            id="b0",
            kind=str,
            default="auto",
            choices=("auto", "use", "leave out"),
            help="Whether the volumes without weighting enter; auto tests if they belong to the others.",
        ),
        Option(
            id="order_parameter",
            kind=bool,
            default=True,
            help="Add the order parameter where the directions determine a tensor.",
        ),
    ),
    produces=("MD", "VI", "VA", "KI", "KA", "muFA", "muFA_lower", "muFA_upper", "OP"),
    references=(
        "Lasic S et al. Front Phys 2014. doi:10.3389/fphy.2014.00011",
        "Szczepankiewicz F et al. NeuroImage 2016. doi:10.1016/j.neuroimage.2016.07.038",
        "Westin CF et al. NeuroImage 2016. doi:10.1016/j.neuroimage.2016.02.039",
    ),
    assumptions=("Compartments are Gaussian and do not exchange; encodings differ in shape only.",),
)
