"""Inhomogeneous magnetization transfer ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.inhomogeneous import Normalisation, ihmt_ratio
from cordqa.models.magnetization_transfer.pairing import check_mt_pair
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._transfer import propagate_noise, split_notices
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_ROLES = ("positive", "negative", "dual_first", "dual_second", "reference")
_SWAPPED = "the dual images are brighter than the single ones in most voxels: check which image is which"


def _prepare(data: FitData) -> FitData:
    if data.text("normalisation") == "none":
        raise InputError(
            "the normalisation of ihMTR must be said: published values differ by a factor of two",
            where="--normalisation",
            todo="give sum for (S+ + S- - 2 Sdual) / S0, or mean for half of it",
        )
    single = data.image("positive") + data.image("negative")
    dual = data.image("dual_first") + data.image("dual_second")
    seen = (single > 0) & (dual > 0)
    swapped = bool(seen.any()) and float(np.median(dual[seen] / single[seen])) > 1
    return replace(data, state={"swapped": swapped})


def _ratio(images: Sequence[Array], normalisation: Normalisation) -> FittedMaps:
    positive, negative, first, second, reference = images
    dual = np.stack([first, second], axis=-1)
    return ihmt_ratio(positive, negative, dual, reference, normalisation=normalisation)


def _fit(data: FitData) -> FittedMaps:
    images = [data.image(role) for role in _ROLES]
    how = cast(Normalisation, data.text("normalisation"))
    found = _ratio(images, how)
    errors = {}
    if data.noise_sd is not None:
        errors = propagate_noise(lambda s: _ratio(s, how).values, images, data.noise_sd)
    off = data.acquisitions[_ROLES.index("reference")]
    notices = [notice for n in range(4) for notice in check_mt_pair(data.acquisitions[n], off)]
    flags, words, warnings = split_notices(tuple(dict.fromkeys(notices)), data.shape)
    if data.state.get("swapped"):
        flags[_SWAPPED] = np.ones(data.shape, dtype=bool)
    ok = found.reasons.ok
    return replace(
        found,
        standard_errors={name: np.where(ok, error, np.nan) for name, error in errors.items()},
        flags={**found.flags, **{text: where & ok for text, where in flags.items()}},
        notices=(*found.notices, *words),
        warnings=warnings,
    )


def _example() -> Example:
    reference = np.linspace(800, 1200, 12).reshape(3, 2, 2)
    single = np.linspace(0.6, 0.7, 12).reshape(3, 2, 2)
    dual = single - np.linspace(0.02, 0.06, 12).reshape(3, 2, 2)
    images = {
        "positive": reference * single,
        "negative": reference * (single - 0.01),
        "dual_first": reference * dual,
        "dual_second": reference * (dual - 0.01),
        "reference": reference,
    }
    same = {"repetition_times": 0.05, "flip_angles": 10.0, "echo_times": 0.004}
    return Example(
        images=images,
        truth={"ihMTR": 200 * (single - dual)},
        tolerance=1e-4,
        settings={name: (value,) * 5 for name, value in same.items()},
        options={"normalisation": "sum"},
        noise_sd=2.0,
    )


def _setting(name: str, what: str, unit: str, key: str, largest: float, field: str) -> Setting:
    return Setting(
        id=name,
        help=f"{what} of all five images, to check that it is the same.",
        unit=unit,
        sidecar=(key,) if key != "RepetitionTime" else ("RepetitionTimeExcitation", "RepetitionTime"),
        constant=True,
        required=False,
        largest=largest,
        slip="milliseconds" if unit == "s" else "",
        acquisition=field,
    )


MODEL = FitModel(
    id="ihmtr",
    description="Inhomogeneous magnetization transfer ratio from single, dual and no saturation",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(id="positive", metavar="PLUS", help="Saturation at the positive offset."),
        ImageRole(id="negative", metavar="MINUS", help="Saturation at the negative offset."),
        ImageRole(id="dual_first", metavar="DUAL1", help="Saturation at both offsets, same power."),
        ImageRole(id="dual_second", metavar="DUAL2", help="The second image of this kind (order reversed)."),
        ImageRole(id="reference", metavar="MT_OFF", help="Image without saturation."),
    ),
    settings=(
        _setting("repetition_times", "Repetition time", "s", "RepetitionTime", 20.0, "repetition_time_s"),
        _setting("flip_angles", "Flip angle", "deg", "FlipAngle", 180.0, "flip_angle_deg"),
        _setting("echo_times", "Echo time", "s", "EchoTime", 1.0, "echo_time_s"),
    ),
    options=(
        Option(
            id="normalisation",
            kind=str,
            default="none",
            choices=("none", "sum", "mean"),
            help="Required: sum is (S+ + S- - S1 - S2) / S0, mean is half of it.",
        ),
    ),
    produces=("ihMTR",),
    references=(
        "Varma G et al. Magnetization transfer from inhomogeneously broadened lines: a potential marker for "
        "myelin. Magn Reson Med 2015;73:614-622. doi:10.1002/mrm.25174",
    ),
    assumptions=(
        "All images have one scaling and are registered. The ratio depends on T1, B1 and the saturation as "
        "well as on the tissue.",
    ),
)
