"""T1 from inversion recovery."""

from __future__ import annotations

import numpy as np

from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.signal import inversion_recovery_signal
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import (
    NEGATIVE,
    SIGNAL_UNIT,
    MapName,
    everywhere,
    maps_of_fit,
    noise_of,
    refuse_signed,
    without_negative,
)
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option, Setting

__all__ = ["MODEL"]

_NAMES = {
    "t1_s": MapName("T1", "ms", 1000.0),
    "m0": MapName("M0", SIGNAL_UNIT),
    "inversion_factor": MapName("inversion_factor", "1"),
}
_NO_TR = "TR is not known: full recovery assumed, T1 is wrong where TR is below five T1"


def _prepare(data: FitData) -> FitData:
    if not data.flag("signed"):
        refuse_signed(data, "add --signed if these are real parts with their sign")
    return data


def _fit(data: FitData) -> FittedMaps:
    signed = data.flag("signed")
    signal, below = data.of("images"), np.zeros(data.shape, dtype=bool)
    if not signed:
        signal, below = without_negative(signal)
    repetition = data.settings["repetition_time"]
    echo = data.settings["echo_time"]
    angle = data.options["inversion_angle"]
    fit = fit_inversion_recovery(
        signal,
        data.values("inversion_times"),
        repetition_times_s=repetition.values if repetition.known else None,
        echo_time_s=float(echo.values[0]) if echo.known and repetition.known else 0.0,
        signed=signed,
        inversion_angle_deg=None if angle is None else data.number("inversion_angle"),
        noise_sd=noise_of(data),
        t1_range_s=(data.number("t1_min"), data.number("t1_max")),
    )
    doubts = () if repetition.known else (_NO_TR,)
    return maps_of_fit(fit, _NAMES, failures=((below, NEGATIVE),), flags=everywhere(data.shape, *doubts))


def _example() -> Example:
    times = np.array([0.05, 0.15, 0.3, 0.6, 1.0, 1.6, 2.4])
    t1 = np.linspace(0.3, 1.6, 12).reshape(3, 2, 2)
    m0 = np.linspace(500, 1500, 12).reshape(3, 2, 2)
    signal = inversion_recovery_signal(
        times,
        t1[..., None],
        m0=m0[..., None],
        inversion_angle_deg=170.0,
        repetition_time_s=3.0,
        echo_time_s=0.01,
    )
    return Example(
        images={"images": np.abs(signal)},
        truth={"T1": 1000 * t1, "M0": m0},
        tolerance=1e-4,
        settings={"inversion_times": tuple(times), "repetition_time": (3.0,), "echo_time": (0.01,)},
        noise_sd=2.0,
    )


MODEL = FitModel(
    id="t1-ir",
    description="T1 from inversion recovery (magnitude or signed), with inversion efficiency",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=3,
            help="Inversion recovery: one 4D file, or one file per inversion time.",
        ),
    ),
    settings=(
        Setting(
            id="inversion_times",
            help="Inversion time of each image.",
            unit="s",
            sidecar=("InversionTime",),
            largest=30.0,
            slip="milliseconds",
            acquisition="inversion_time_s",
        ),
        Setting(
            id="repetition_time",
            help="Time between inversions; full recovery is assumed where it is not known.",
            unit="s",
            sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
            constant=True,
            required=False,
            smallest=0.01,
            largest=120.0,
            slip="milliseconds",
            acquisition="repetition_time_s",
        ),
        Setting(
            id="echo_time",
            help="Echo time of the spin echo.",
            unit="s",
            sidecar=("EchoTime",),
            shared=True,
            required=False,
            largest=1.5,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
    ),
    options=(
        Option(id="signed", kind=bool, default=False, help="The images are real parts that keep their sign."),
        Option(
            id="inversion_angle",
            kind=float,
            default=None,
            unit="deg",
            low=1.0,
            high=180.0,
            help="Fix the inversion angle; fitted by default.",
        ),
        Option(id="t1_min", kind=float, default=0.005, unit="s", low=1e-4, high=60.0, help="Shortest T1."),
        Option(id="t1_max", kind=float, default=10.0, unit="s", low=1e-3, high=60.0, help="Longest T1."),
    ),
    produces=("T1", "M0", "inversion_factor"),
    references=(
        "Barral JK et al. A robust methodology for in vivo T1 mapping. Magn Reson Med 2010;64:1057-1067. "
        "doi:10.1002/mrm.22497",
    ),
    assumptions=(
        "One T1 per voxel. The inversion factor is fitted, which also absorbs an offset of the "
        "inversion time.",
    ),
)
