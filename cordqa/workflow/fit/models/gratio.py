"""The g-ratio from a myelin map and the fractions of NODDI or the like."""

from __future__ import annotations

import numpy as np

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.g_ratio import MyelinCalibration, compute_g_ratio
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option

__all__ = ["MODEL"]

#: Share of voxels whose fraction may exceed 1 by noise.
_MOST_ABOVE_ONE = 0.2
#: Median myelin volume between which a calibration can be meant.
_LEAST_MVF, _LARGEST_MVF = 0.01, 0.7
#: A median standard error of a fraction beyond this is one in percent.
_LARGEST_ERROR = 0.5
_ERRORS = ("myelin_se", "neurite_se", "free_water_se")


def _calibration(data: FitData) -> MyelinCalibration:
    if data.options["mvf_slope"] is None:
        raise InputError(
            "the g-ratio needs a calibration of the myelin measure to volume fractions",
            todo="give --mvf-slope (volume fraction, 0 to 1, per unit of the map), and where it comes from "
            "with --calibration-source",
        )
    return MyelinCalibration(
        slope=data.number("mvf_slope"),
        intercept=data.number("mvf_intercept"),
        slope_se=data.number("mvf_slope_se"),
        intercept_se=data.number("mvf_intercept_se"),
        source=data.text("calibration_source") or "given by the user",
    )


def _prepare(data: FitData) -> FitData:
    _calibration(data)
    given = [name for name in _ERRORS if name in data.maps]
    if given and len(given) < len(_ERRORS):
        raise InputError(
            "standard errors are propagated only where all three maps have one",
            found=", ".join(given),
            expected=", ".join(_ERRORS),
        )
    for role in ("neurite", "free_water"):
        values = data.image(role)
        known = values[np.isfinite(values) & (values > 0)]
        if known.size and (np.median(known) > 1.5 or (known > 1).mean() > _MOST_ABOVE_ONE):
            raise InputError(
                "the fractions cannot be between 0 and 1",
                where=role.replace("_", " "),
                found=f"a median of {np.median(known):.3g}, {100 * (known > 1).mean():.0f} % above 1",
                todo="divide by 100 if these are percent",
            )
    _check_scale(data)
    return data


def _check_scale(data: FitData) -> None:
    """Refuse a calibration for another unit: g would come out near 1, which looks like a value."""
    calibration = _calibration(data)
    myelin = data.image("myelin")
    measured = myelin[np.isfinite(myelin) & (myelin > 0)]
    if not measured.size:
        return
    middle = float(np.median(calibration.slope * measured + calibration.intercept))
    if 0 < middle < _LEAST_MVF or middle > _LARGEST_MVF:
        raise InputError(
            "the calibrated myelin volume is not that of tissue; slope and map may be of different units",
            found=f"a median of {100 * middle:.3g} % from a map with a median of {np.median(measured):.3g}",
            expected=f"{100 * _LEAST_MVF:g} to {100 * _LARGEST_MVF:g} %",
            todo="give --mvf-slope per unit of the map: per % for a map in %",
        )


def _fit(data: FitData) -> FittedMaps:
    maps = [data.map(name) for name in _ERRORS]
    errors = None if any(one is None for one in maps) else tuple(one for one in maps if one is not None)
    return compute_g_ratio(
        data.image("myelin"),
        data.image("neurite"),
        data.image("free_water"),
        _calibration(data),
        standard_errors=None if errors is None else (errors[0], errors[1], errors[2]),
    )


def _example() -> Example:
    mvf = np.linspace(0.10, 0.35, 12).reshape(3, 2, 2)
    v_ic = np.linspace(0.5, 0.7, 12).reshape(3, 2, 2)
    v_iso = np.linspace(0.10, 0.0, 12).reshape(3, 2, 2)
    avf = (1 - mvf) * (1 - v_iso) * v_ic
    return Example(
        images={"myelin": 10 * (mvf - 0.02), "neurite": v_ic, "free_water": v_iso},
        truth={"g_ratio": np.sqrt(1 / (1 + mvf / avf)), "MVF": 100 * mvf, "AVF": 100 * avf},
        tolerance=1e-5,
        options={"mvf_slope": 0.1, "mvf_intercept": 0.02, "mvf_slope_se": 0.01},
    )


def _error(name: str, words: str) -> MapInput:
    return MapInput(id=name, unit="that of the map", help=f"Standard error of {words}.")


def _share_error(name: str, words: str) -> MapInput:
    return MapInput(
        id=name,
        unit="fractions",
        low=0.0,
        high=_LARGEST_ERROR,
        slip="percent",
        help=f"Standard error of {words}, 0 to 1.",
    )


MODEL = FitModel(
    id="gratio",
    description="g-ratio from a calibrated myelin map and the axon volume of a diffusion model",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(id="myelin", metavar="MYELIN", help="Myelin map (MWF, MTsat ...), in any unit."),
        ImageRole(id="neurite", metavar="NEURITE", help="Share of neurites in tissue water (NDI), 0 to 1."),
        ImageRole(id="free_water", metavar="FREE_WATER", help="Share of free water (FWF), 0 to 1."),
    ),
    maps=(
        _error("myelin_se", "the myelin map"),
        _share_error("neurite_se", "the share of neurites"),
        _share_error("free_water_se", "the share of free water"),
    ),
    options=(
        Option(
            id="mvf_slope",
            kind=float,
            default=None,
            unit="1/unit",
            low=-1e6,
            high=1e6,
            help="Myelin volume fraction (0 to 1) per unit of the myelin map; must be given.",
        ),
        Option(
            id="mvf_intercept",
            kind=float,
            default=0.0,
            unit="1",
            low=-1.0,
            high=1.0,
            help="Myelin volume fraction where the myelin map is 0.",
        ),
        Option(
            id="mvf_slope_se",
            kind=float,
            default=0.0,
            unit="1/unit",
            low=0.0,
            high=1e6,
            help="Standard error of the slope.",
        ),
        Option(
            id="mvf_intercept_se",
            kind=float,
            default=0.0,
            unit="1",
            low=0.0,
            high=1.0,
            help="Standard error of the intercept.",
        ),
        Option(
            id="calibration_source",
            kind=str,
            default="given",
            choices=("given", "histology", "reference-g", "literature"),
            help="Where slope and intercept come from.",
        ),
    ),
    takes_noise=False,
    absolute=True,
    produces=("g_ratio", "MVF", "AVF"),
    references=(
        "Stikov N et al. In vivo histology of the myelin g-ratio with magnetic resonance imaging. NeuroImage "
        "2015;118:397-405. doi:10.1016/j.neuroimage.2015.05.023",
    ),
    assumptions=(
        "All axons of a voxel share one g-ratio, and the myelin map is proportional to the volume of myelin "
        "after the stated calibration; an error of the calibration changes the g-ratio everywhere.",
    ),
)
