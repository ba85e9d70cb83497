"""T1 from inversion recovery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.signal import inversion_recovery_signal
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import (
    NEGATIVE,
    SIGNAL_UNIT,
    MapName,
    everywhere,
    maps_of_fit,
    misfit_of,
    noise_of,
    refuse_signed,
    refuse_too_few,
    scaling_of,
    strong_sample,
    without_negative,
)
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option, Setting

__all__ = ["MODEL"]

_NAMES = {
    "t1_s": MapName("T1", "ms", 1000.0),
    "m0": MapName("M0", SIGNAL_UNIT),
    "inversion_factor": MapName("inversion_factor", "1"),
}
_REVERSED = "most voxels fit better with the images in reversed order: check the order of the inversion times"
#: Fewest voxels that can tell, and by how much residuals must fall in the logarithm, and how surely.
_FEWEST, _GAIN, _SURE = 8, 0.05, 4.0
_NO_TR = "TR is not known: full recovery assumed, T1 is wrong where TR is below five T1"


def _prepare(data: FitData) -> FitData:
    if not data.flag("signed"):
        refuse_signed(data, "add --signed if these are real parts with their sign")
    times = data.values("inversion_times")
    free = data.options["inversion_angle"] is None
    more = "fix the inversion factor with --inversion-angle 180, with which three are enough"
    refuse_too_few(times, 4 if free else 3, "inversion times", more if free else "give more images")
    sample = strong_sample(data)
    fit, _ = _solve(sample)
    misfit = misfit_of(sample.of("images"), fit.predicted, fit.used, times, "inversion time")
    return replace(data, state={"misfit": misfit or _backwards(sample, fit)})


def _backwards(sample: FitData, fit: RelaxometryFit) -> tuple[str, ...]:
    """Say where the images fit better in reversed order, which one curve alone may not tell."""
    other, _ = _solve(replace(sample, signal=sample.signal[..., ::-1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.log(fit.residual_sd / other.residual_sd)
    gain = gain[np.isfinite(gain)]
    if gain.size < _FEWEST or gain.mean() < _GAIN + _SURE * gain.std(ddof=1) / np.sqrt(gain.size):
        return ()
    return (_REVERSED,)


def _solve(data: FitData) -> tuple[RelaxometryFit, NDArray[np.bool_]]:
    """Fit the curves; also return which voxels have a negative magnitude."""
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
    return fit, below


def _fit(data: FitData) -> FittedMaps:
    fit, below = _solve(data)
    doubts = () if data.settings["repetition_time"].known else (_NO_TR,)
    return maps_of_fit(
        fit,
        _NAMES,
        failures=((below, NEGATIVE),),
        flags=everywhere(data.shape, *doubts, *data.state.get("misfit", ())),
        warnings=scaling_of(data),
    )


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
            low=10.0,
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
