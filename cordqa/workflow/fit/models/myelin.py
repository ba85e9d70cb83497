"""Myelin volume from T1, T2 and proton density by a model of compartments."""

from __future__ import annotations

import numpy as np

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.compartments import (
    EXAMPLE_COMPARTMENTS,
    CompartmentModel,
    check_maps,
    fit_compartments,
)
from cordqa.models.myelin.mixing import Substance
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._maps_of_tissue import (
    IMAGES,
    example_maps,
    mixing_of,
    mixing_options,
    substance_of,
    substance_option,
)
from cordqa.workflow.fit.registry import Example, FitModel, Option

__all__ = ["MODEL"]

_NAMES = ("myelin", "cellular", "free_water", "excess_water")


def _model(data: FitData) -> CompartmentModel:
    given = [name for name in _NAMES if data.options[name] is not None]
    if data.text("parameters") == "example":
        if given:
            raise InputError(
                "give your own compartments or the example, not both",
                where="--parameters",
                found=", ".join(given),
            )
        compartments: tuple[Substance, ...] = EXAMPLE_COMPARTMENTS
        source = "example of round numbers, an assumption"
    else:
        if not given:
            raise InputError(
                "the model has no compartments of its own",
                todo="give T1, T2 and PD of --myelin, --cellular and --free-water, or --parameters example "
                "for round numbers that are an assumption",
            )
        wanted = _NAMES if "excess_water" in given else _NAMES[:3]
        compartments = tuple(substance_of(data, name) for name in wanted)
        source = "given by the user"
    return CompartmentModel(
        compartments=compartments,
        mixing=mixing_of(data),
        largest_misfit=data.number("largest_misfit"),
        source=source,
    )


def _prepare(data: FitData) -> FitData:
    _model(data)
    check_maps(data.image("t1"), data.image("t2"), data.image("pd"))
    return data


def _fit(data: FitData) -> FittedMaps:
    return fit_compartments(data.image("t1"), data.image("t2"), data.image("pd"), _model(data))


def _example() -> Example:
    myelin = np.linspace(0.05, 0.35, 12)
    water = np.linspace(0.10, 0.0, 12)
    shares = np.stack([myelin, 1 - myelin - water, water], axis=1)
    shape = (3, 2, 2)
    return Example(
        images=example_maps(shares, EXAMPLE_COMPARTMENTS, shape),
        truth={"MVF_model": 100 * myelin.reshape(shape)},
        tolerance=1e-3,
        options={"parameters": "example"},
    )


MODEL = FitModel(
    id="myelin",
    description="Myelin volume from T1, T2 and PD by a model of compartments with your own parameters",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=IMAGES,
    options=(
        Option(
            id="parameters",
            kind=str,
            default="own",
            choices=("own", "example"),
            help="own: those that you give; example: round numbers, which are an assumption.",
        ),
        substance_option("myelin", "myelin with its water"),
        substance_option("cellular", "cells with the water between them"),
        substance_option("free_water", "free water"),
        substance_option("excess_water", "excess water of the parenchyma (a fourth compartment)"),
        *mixing_options("rates"),
    ),
    takes_noise=False,
    absolute=True,
    produces=(
        "MVF_model",
        "cellular_fraction",
        "free_water_fraction",
        "excess_water_fraction",
    ),
    experimental="the fractions follow from assumed parameters of the compartments; there is no calibration",
    references=(
        "Warntjes M et al. Modeling the presence of myelin and edema in the brain based on multi-parametric "
        "quantitative MRI. Front Neurol 2016;7:16. doi:10.3389/fneur.2016.00016",
    ),
    assumptions=(
        "A generic model of compartments, parameterised by the user. It is not the model of any vendor, and "
        "its fractions are not those of a vendor's software.",
    ),
)
