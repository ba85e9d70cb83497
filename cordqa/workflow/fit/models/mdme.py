"""T1, T2, M0 and B1 from a multi-dynamic multi-echo scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.echo_order import refuse_growth
from cordqa.models.relaxometry.multi_dynamic import (
    MultiDynamicProtocol,
    check_determined,
    fit_multi_dynamic,
    multi_dynamic_signal,
)
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import (
    ECHO_TIMES,
    everywhere,
    misfit_of,
    refuse_signed,
    scaling_of,
    strong_sample,
)
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option, Setting

__all__ = ["MODEL"]

_NO_NOISE = (
    "the noise is not known: dark images pull T2 up and T1 down (at a signal of 20 times the noise by 4 and "
    "8 %), and standard errors are up to 40 % too small there; give --noise-sd or --noise-map"
)
#: A dynamic whose strongest voxels are weaker than this share of the strongest dynamic is near a null.
_VISIBLE = 0.2
_SAMPLE = 100_000


def _protocol(data: FitData) -> MultiDynamicProtocol:
    return MultiDynamicProtocol(
        delays_s=data.values("delays"),
        echo_times_s=data.values("echo_times"),
        repetition_time_s=data.value("repetition_time"),
        excitation_deg=data.number("excitation"),
        saturation_deg=data.number("saturation"),
    )


def _prepare(data: FitData) -> FitData:
    if not data.flag("signed"):
        refuse_signed(data, "add --signed if these are real parts with their sign")
    protocol = _protocol(data)
    check_determined(protocol, free_b1=data.map("b1_map") is None)
    steps = _check_echoes(data)
    return replace(data, state={"misfit": _misfit(data, protocol), "growth": steps})


def _misfit(data: FitData, protocol: MultiDynamicProtocol) -> tuple[str, ...]:
    """Say which image does not lie on the fitted curves."""
    sample = strong_sample(data)
    found = _solve(sample).values
    b1 = sample.map("b1_map")
    predicted = multi_dynamic_signal(
        protocol,
        found["T1"] / 1000,
        found["T2"] / 1000,
        m0=found["M0"],
        b1=found["B1"] if b1 is None else b1,
    )
    predicted = predicted if data.flag("signed") else np.abs(predicted)
    used = np.ones(predicted.shape, dtype=bool)
    return misfit_of(sample.of("images"), predicted, used, data.values("delays"), "delay")


def _check_echoes(data: FitData) -> tuple[str, ...]:
    """Refuse echoes in the wrong order, dynamic by dynamic; return sentences about single steps."""
    delays, echoes = data.values("delays"), data.values("echo_times")
    # Voxels spread over all are enough, and sorting all of them would take longer than the fit.
    signal = np.nan_to_num(data.signal[:: max(1, len(data.signal) // _SAMPLE)])
    if not signal.size:
        return ()
    steps: list[str] = []
    level = np.quantile(np.abs(signal), 0.9, axis=0)
    for delay in np.unique(delays):
        own = delays == delay
        if level[own].max() >= _VISIBLE * level.max() > 0:
            where = f"images with a delay of {delay:g} s"
            found = refuse_growth(data.signal[:, own], echoes[own], where=where)
            steps += [f"{where}: {one}" for one in found]
    return tuple(steps)


def _fit(data: FitData) -> FittedMaps:
    found = _solve(data)
    doubts = everywhere(data.shape, *data.state.get("misfit", ()))
    loud = (*scaling_of(data), *data.state.get("growth", ()))
    notices = loud
    if data.noise_sd is None and not data.flag("signed"):
        notices = (*notices, _NO_NOISE)
    return replace(
        found,
        flags={**found.flags, **{text: where & found.reasons.ok for text, where in doubts.items()}},
        notices=(*found.notices, *notices),
        warnings=loud,
    )


def _solve(data: FitData) -> FittedMaps:
    water = data.options["water_signal"]
    return fit_multi_dynamic(
        data.of("images"),
        _protocol(data),
        signed=data.flag("signed"),
        b1=data.map("b1_map"),
        noise_sd=data.noise_sd,
        water_signal=None if water is None else data.number("water_signal"),
        t1_range_s=(data.number("t1_min"), data.number("t1_max")),
        t2_range_s=(data.number("t2_min"), data.number("t2_max")),
    )


def _example() -> Example:
    delays, echoes = np.repeat([0.17, 0.67, 1.84, 3.84], 2), np.tile([0.0228, 0.1026], 4)
    t1 = np.linspace(0.6, 1.6, 12).reshape(3, 2, 2)
    t2 = np.linspace(0.06, 0.12, 12).reshape(3, 2, 2)
    b1 = np.linspace(0.9, 1.1, 12)[::-1].reshape(3, 2, 2)
    m0 = np.linspace(700, 1000, 12).reshape(3, 2, 2)
    protocol = MultiDynamicProtocol(delays_s=delays, echo_times_s=echoes, repetition_time_s=4.0)
    signal = multi_dynamic_signal(protocol, t1, t2, m0=m0, b1=b1)
    return Example(
        images={"images": np.abs(signal)},
        truth={"T1": 1000 * t1, "T2": 1000 * t2, "M0": m0, "B1": b1},
        tolerance=1e-4,
        settings={"delays": tuple(delays), "echo_times": tuple(echoes), "repetition_time": (4.0,)},
        noise_sd=1.0,
    )


MODEL = FitModel(
    id="mdme",
    description="T1, T2, M0 and B1 from a multi-dynamic multi-echo scan (QRAPMASTER), magnitude or signed",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=3,
            help="Multi-dynamic multi-echo scan: one 4D file, or one file per delay and echo.",
        ),
    ),
    settings=(
        Setting(
            id="delays",
            help="Time from the saturation pulse to the excitation, of each image.",
            unit="s",
            sidecar=("InversionTime",),
            smallest=1e-3,
            largest=30.0,
            slip="milliseconds",
            acquisition="inversion_time_s",
        ),
        ECHO_TIMES,
        Setting(
            id="repetition_time",
            help="Time between two saturation pulses of a slice.",
            unit="s",
            sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
            shared=True,
            smallest=0.1,
            largest=60.0,
            slip="milliseconds",
            acquisition="repetition_time_s",
        ),
    ),
    maps=(
        MapInput(
            id="b1_map",
            kind="b1",
            unit="ratio",
            help="NIfTI map of actual over nominal flip angle; B1 is fitted without it.",
        ),
    ),
    options=(
        Option(id="signed", kind=bool, default=False, help="The images are real parts that keep their sign."),
        Option(
            id="excitation",
            kind=float,
            default=90.0,
            unit="deg",
            low=10.0,
            high=179.0,
            help="Excitation angle.",
        ),
        Option(
            id="saturation",
            kind=float,
            default=120.0,
            unit="deg",
            low=10.0,
            high=180.0,
            help="Saturation angle.",
        ),
        Option(
            id="water_signal",
            kind=float,
            default=None,
            unit="signal",
            low=1e-12,
            high=1e12,
            help="M0 of pure water under the same scaling; without it PD is left out.",
        ),
        Option(id="t1_min", kind=float, default=0.02, unit="s", low=1e-3, high=60.0, help="Shortest T1."),
        Option(id="t1_max", kind=float, default=10.0, unit="s", low=1e-2, high=60.0, help="Longest T1."),
        Option(id="t2_min", kind=float, default=0.002, unit="s", low=1e-4, high=60.0, help="Shortest T2."),
        Option(id="t2_max", kind=float, default=5.0, unit="s", low=1e-3, high=60.0, help="Longest T2."),
    ),
    produces=("T1", "T2", "M0", "B1", "PD"),
    references=(
        "Warntjes JBM et al. Rapid magnetic resonance quantification on the brain: optimization for clinical "
        "usage. Magn Reson Med 2008;60:320-329.",
        "Hagiwara A et al. SyMRI of the brain: rapid quantification of relaxation rates and proton density. "
        "Invest Radiol 2017;52:647-657. doi:10.1097/RLI.0000000000000365",
    ),
    assumptions=(
        "One T1 and T2 per voxel, ideal refocusing, and echoes that take no time off the recovery. M0 holds "
        "the sensitivity of the coil. Where the noise is known, magnitudes are fitted as means of Rician "
        "noise of one channel.",
    ),
)
