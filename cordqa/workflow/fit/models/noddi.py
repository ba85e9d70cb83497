"""NODDI through AMICO, an optional extra."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.noddi import fit_noddi
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._diffusion import example_table, rotations, spread_directions
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]

_ALONG, _FREE = 1.7, 3.0


def _fit(data: FitData) -> FittedMaps:
    def given(name: str) -> float | None:
        value = data.options[name]
        return None if value is None else float(cast(float, value))

    return fit_noddi(
        data.signal,
        cast(GradientTable, data.gradients),
        parallel_um2_ms=given("parallel"),
        isotropic_um2_ms=given("isotropic"),
        ex_vivo=data.flag("ex_vivo"),
    )


def _watson(dispersion: float, count: int = 4000) -> tuple[Array, Array]:
    """Axes over the sphere and their share in a Watson distribution about the third axis."""
    axes = spread_directions(count)
    weight = np.exp((axes[:, 2] ** 2 - 1.0) / np.tan(0.5 * np.pi * dispersion))
    return axes, weight / weight.sum()


def _signal(table: GradientTable, density: float, dispersion: float, water: float, turn: Array) -> Array:
    """Signal by the definition: sticks, water between them by tortuosity, free water."""
    b, directions = table.b_ms_um2, table.directions @ turn
    axes, share = _watson(dispersion)
    sticks = np.exp(-b[:, None] * _ALONG * (directions @ axes.T) ** 2) @ share
    spread = float(share @ axes[:, 2] ** 2)
    along = _ALONG * (1.0 - density * (1.0 - spread))
    across = _ALONG * (1.0 - density * (1.0 + spread) / 2.0)
    between = np.exp(-b * (across + (along - across) * directions[:, 2] ** 2))
    tissue = density * sticks + (1.0 - density) * between
    return np.asarray((1.0 - water) * tissue + water * np.exp(-b * _FREE))


def _example() -> Example:
    table = example_table([(700.0, 30, 1.0), (2000.0, 60, 1.0)], n_b0=6)
    density, dispersion = np.linspace(0.4, 0.65, 12), np.linspace(0.35, 0.1, 12)
    water, turn = np.linspace(0.2, 0.05, 12), rotations(12)
    signal = [
        300.0 * _signal(table, *values, turn[n])
        for n, values in enumerate(zip(density, dispersion, water, strict=True))
    ]
    shape = (3, 2, 2)
    return Example(
        images={"dwi": np.array(signal).reshape(*shape, -1)},
        # Steps of the dictionary, and its regularisation: a few hundredths.
        truth={"NDI": density.reshape(shape)},
        tolerance=0.1,
        gradients=table,
    )


MODEL = FitModel(
    id="noddi",
    description="NODDI: neurite density, orientation dispersion, free water (needs AMICO)",
    fit=_fit,
    example=_example,
    images=(
        ImageRole(
            id="dwi",
            metavar="DWI",
            many=True,
            minimum=13,
            help="Diffusion-weighted series with b = 0 and two shells: one 4D file, or several with tables.",
        ),
    ),
    gradients=True,
    takes_noise=False,
    requires="amico",
    options=(
        Option(
            id="parallel",
            kind=float,
            default=None,
            unit="um2/ms",
            low=0.05,
            high=5.0,
            help="Assumed diffusivity along neurites; 1.7 in vivo, 0.6 ex vivo.",
        ),
        Option(
            id="isotropic",
            kind=float,
            default=None,
            unit="um2/ms",
            low=0.05,
            high=5.0,
            help="Assumed diffusivity of free water; 3.0 in vivo, 2.0 ex vivo.",
        ),
        Option(id="ex_vivo", kind=bool, default=False, help="Add water that does not move (fixed tissue)."),
    ),
    produces=("NDI", "ODI", "FWF", "dot_fraction"),
    references=(
        "Zhang H et al. NeuroImage 2012. doi:10.1016/j.neuroimage.2012.03.072",
        "Daducci A et al. NeuroImage 2015. doi:10.1016/j.neuroimage.2014.10.026",
        "Schilling KG et al. NeuroImage 2019. doi:10.1016/j.neuroimage.2019.116026",
    ),
    experimental="in the spinal cord its values did not track what they are named for "
    "(doi:10.1016/j.neuroimage.2019.116026)",
    assumptions=(
        "Two diffusivities are assumed, not measured (1.7 um2/ms along neurites and 3.0 of free water in "
        "vivo unless others are given), and every value changes with them.",
    ),
)
