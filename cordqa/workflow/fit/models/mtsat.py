"""Magnetization transfer saturation and T1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.pairing import check_mt_triplet
from cordqa.models.magnetization_transfer.saturation import (
    HELMS_C,
    B1Model,
    PulseOrder,
    SpoiledEcho,
    fit_mt_saturation,
)
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._transfer import propagate_noise, split_notices
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_ROLES = ("mt_on", "mt_off", "t1w")
_ORDER = (
    "published algebra, for a saturation after the readout: with the pulse just before it, MTsat comes out 1 "
    "to 10 % too high; --pulse-order before takes that out"
)
#: A right angle in radians.
_RADIANS_DEG = 1.6
_RADIANS = "all flip angles are below 1.6 degrees: are they in radians?"
_NO_B1 = "no B1 map: MTsat keeps part of the effect of B1, and T1 all of it"


def _prepare(data: FitData) -> FitData:
    """Refuse what no voxel can be fitted with."""
    if data.text("b1_model") != "none" and data.map("b1_map") is None:
        raise InputError(f"the B1 model {data.text('b1_model')} needs a B1 map", todo="give --b1-map")
    if data.text("b1_model") == "lipp2023" and data.options["lipp_c"] is None:
        raise InputError(
            "the B1 model lipp2023 needs the constant of your own protocol", todo="give --lipp-c"
        )
    return data


def _fit(data: FitData) -> FittedMaps:
    images = [data.image(role) for role in _ROLES]
    b1 = data.map("b1_map")
    settings: dict[str, Any] = {
        **_echoes(data),
        "b1": b1,
        "b1_model": cast(B1Model, data.text("b1_model")),
        "helms_c": data.number("helms_c"),
        "lipp_c": None if data.options["lipp_c"] is None else data.number("lipp_c"),
        "pulse_order": cast(PulseOrder, data.text("pulse_order")),
    }
    found = fit_mt_saturation(*images, **settings)
    errors = {}
    if data.noise_sd is not None:
        errors = propagate_noise(
            lambda signals: fit_mt_saturation(*signals, **settings).values, images, data.noise_sd
        )
    first, second, third = data.acquisitions
    flags, notices, warnings = split_notices(check_mt_triplet(first, second, third), data.shape)
    if data.text("pulse_order") == "after":
        notices = (*notices, _ORDER)
    if data.values("flip_angles").max() < _RADIANS_DEG:
        flags[_RADIANS] = np.ones(data.shape, dtype=bool)
    if b1 is None:
        flags[_NO_B1] = np.ones(data.shape, dtype=bool)
    ok = found.reasons.ok
    return replace(
        found,
        standard_errors={
            name: np.where(found.reason_of(name).ok & ok, error, np.nan) for name, error in errors.items()
        },
        flags={"negative saturation": found.values["MTsat"] < 0}
        | {text: where & ok for text, where in flags.items()},
        notices=notices,
        warnings=warnings,
    )


def _echoes(data: FitData) -> dict[str, SpoiledEcho]:
    repetition, angle = data.values("repetition_times"), data.values("flip_angles")
    return {
        name: SpoiledEcho(repetition_time_s=float(repetition[n]), flip_angle_deg=float(angle[n]))
        for n, name in enumerate(("mt_echo", "pd_echo", "t1_echo"))
    }


def _example() -> Example:
    """Images that obey the small-angle algebra itself, so that its own bias does not show."""
    t1 = np.linspace(0.8, 2.0, 12).reshape(3, 2, 2)
    saturation = np.linspace(0.01, 0.035, 12).reshape(3, 2, 2)
    amplitude = np.linspace(3000, 5000, 12).reshape(3, 2, 2)
    repetition, angle = (0.035, 0.035, 0.015), (9.0, 9.0, 15.0)
    images = [
        _small_angle(amplitude, t1, d, tr, a)
        for d, tr, a in zip((saturation, 0 * t1, 0 * t1), repetition, angle, strict=True)
    ]
    return Example(
        images=dict(zip(_ROLES, images, strict=True)),
        truth={"MTsat": 100 * saturation, "T1": 1000 * t1, "M0": amplitude},
        tolerance=2e-4,
        settings={"repetition_times": repetition, "flip_angles": angle, "echo_times": (0.004,) * 3},
        noise_sd=2.0,
    )


def _small_angle(amplitude: Array, t1: Array, saturation: Array, repetition: float, angle: float) -> Array:
    a, recovery = np.radians(angle), repetition / t1
    return np.asarray(amplitude * a * recovery / (a**2 / 2 + saturation + recovery))


def _setting(name: str, help_text: str, **more: Any) -> Setting:
    return Setting(id=name, help=f"{help_text} of MT_ON, MT_OFF and T1W.", **more)


MODEL = FitModel(
    id="mtsat",
    description="Magnetization transfer saturation and T1 from three spoiled gradient echoes, with B1 models",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(id="mt_on", metavar="MT_ON", help="Image with the saturation pulse."),
        ImageRole(id="mt_off", metavar="MT_OFF", help="Image without it (PD-weighted)."),
        ImageRole(id="t1w", metavar="T1W", help="Image without it, with a larger flip angle."),
    ),
    settings=(
        _setting(
            "repetition_times",
            "Repetition time",
            unit="s",
            sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
            smallest=1e-3,
            largest=1.0,
            slip="milliseconds",
            acquisition="repetition_time_s",
        ),
        _setting(
            "flip_angles",
            "Flip angle",
            unit="deg",
            sidecar=("FlipAngle",),
            smallest=0.1,
            largest=90.0,
            acquisition="flip_angle_deg",
        ),
        _setting(
            "echo_times",
            "Echo time",
            unit="s",
            sidecar=("EchoTime",),
            constant=True,
            required=False,
            largest=1.0,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
    ),
    maps=(
        MapInput(
            id="b1_map",
            kind="b1",
            unit="ratio",
            help="NIfTI map of actual over nominal flip angle (ratio or percent).",
        ),
    ),
    options=(
        Option(
            id="b1_model",
            kind=str,
            default="none",
            choices=("none", "helms2021", "lipp2023"),
            help="How MTsat is corrected for B1; T1 is corrected wherever there is a map.",
        ),
        Option(
            id="helms_c",
            kind=float,
            default=HELMS_C,
            unit="1",
            low=0.0,
            high=0.999,
            help="C of helms2021; it depends on the saturation pulse.",
        ),
        Option(
            id="lipp_c",
            kind=float,
            default=None,
            unit="1",
            low=-10.0,
            high=10.0,
            help="C of lipp2023, from a calibration of your protocol; there is no general value.",
        ),
        Option(
            id="pulse_order",
            kind=str,
            default="after",
            choices=("after", "before"),
            help="Where the saturation pulse stands: after the readout, as in the published algebra, or just "
            "before it, where that algebra gives 1 to 10 % too much.",
        ),
    ),
    produces=("MTsat", "T1", "M0"),
    references=(
        "Helms G et al. High-resolution maps of magnetization transfer with inherent correction for RF "
        "inhomogeneity and T1 relaxation obtained from 3D FLASH MRI. Magn Reson Med 2008;60:1396-1407. "
        "doi:10.1002/mrm.21732; erratum doi:10.1002/mrm.22607",
        "Lipp I et al. B1+-correction of magnetization transfer saturation maps optimized for 7T "
        "postmortem MRI of the brain. Magn Reson Med 2023. doi:10.1002/mrm.29524",
    ),
    assumptions=(
        "Small flip angles, TR much shorter than T1, and one saturation per TR, after the readout unless the "
        "pulse order says otherwise.",
    ),
)
