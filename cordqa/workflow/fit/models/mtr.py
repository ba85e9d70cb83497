"""Magnetization transfer ratio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cordqa.models.magnetization_transfer.pairing import check_mt_pair
from cordqa.models.magnetization_transfer.ratio import mt_ratio
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._transfer import propagate_noise, split_notices
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Setting

__all__ = ["MODEL"]

_SWAPPED = "MT-on is brighter than MT-off in most voxels: check which image is which"


def _fit(data: FitData) -> FittedMaps:
    on, off = data.image("mt_on"), data.image("mt_off")
    found = mt_ratio(on, off)
    errors = {}
    if data.noise_sd is not None:
        errors = propagate_noise(lambda s: mt_ratio(*s).values, (on, off), data.noise_sd)
    first, second = data.acquisitions
    flags, notices, warnings = split_notices(check_mt_pair(first, second), data.shape)
    ok = found.reasons.ok
    if data.state.get("swapped"):
        flags[_SWAPPED] = np.ones(data.shape, dtype=bool)
    return replace(
        found,
        standard_errors={name: np.where(ok, error, np.nan) for name, error in errors.items()},
        flags={"negative: MT-on is brighter than MT-off": found.values["MTR"] < 0}
        | {text: where & ok for text, where in flags.items()},
        notices=notices,
        warnings=warnings,
    )


def _prepare(data: FitData) -> FitData:
    on, off = data.image("mt_on"), data.image("mt_off")
    seen = (on > 0) & (off > 0)
    swapped = bool(seen.any()) and float(np.median(on[seen] / off[seen])) > 1
    return replace(data, state={"swapped": swapped})


def _example() -> Example:
    ratio = np.linspace(10, 50, 12).reshape(3, 2, 2)
    off = np.linspace(400, 900, 12).reshape(3, 2, 2)
    return Example(
        images={"mt_on": off * (1 - ratio / 100), "mt_off": off},
        truth={"MTR": ratio},
        tolerance=1e-5,
        settings={"repetition_times": (0.035, 0.035), "flip_angles": (9.0, 9.0), "echo_times": (0.004,) * 2},
        noise_sd=5.0,
    )


MODEL = FitModel(
    id="mtr",
    description="Magnetization transfer ratio from an MT-on and an MT-off image",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(id="mt_on", metavar="MT_ON", help="Image with the saturation pulse."),
        ImageRole(id="mt_off", metavar="MT_OFF", help="Image without it, on the same grid."),
    ),
    settings=(
        Setting(
            id="repetition_times",
            help="Repetition time of both images, to check that it is the same.",
            unit="s",
            sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
            constant=True,
            required=False,
            smallest=1e-3,
            largest=20.0,
            slip="milliseconds",
            acquisition="repetition_time_s",
        ),
        Setting(
            id="flip_angles",
            help="Flip angle of both images, to check that it is the same.",
            unit="deg",
            sidecar=("FlipAngle",),
            constant=True,
            required=False,
            smallest=0.1,
            largest=180.0,
            acquisition="flip_angle_deg",
        ),
        Setting(
            id="echo_times",
            help="Echo time of both images, to check that it is the same.",
            unit="s",
            sidecar=("EchoTime",),
            constant=True,
            required=False,
            largest=1.0,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
    ),
    produces=("MTR",),
    references=(
        "Henkelman RM, Stanisz GJ, Graham SJ. Magnetization transfer in MRI: a review. NMR Biomed "
        "2001;14:57-64. doi:10.1002/nbm.683",
    ),
    assumptions=(
        "The ratio depends on T1, flip angle, TR and B1 as well as on the tissue: compare it between "
        "scanners with care.",
    ),
)
