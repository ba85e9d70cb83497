"""T2 from multi-echo spin echo."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.echo_order import refuse_growth
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.multi_echo import choose_slice_profile, fit_multi_echo
from cordqa.models.relaxometry.signal import spin_echo_signal
from cordqa.models.relaxometry.slice_profile import UNIFORM, SliceProfile
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import (
    ECHO_TIMES,
    INCOMPLETE,
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
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_NAMES = {"t2_s": MapName("T2", "ms", 1000.0), "m0": MapName("M0", SIGNAL_UNIT)}
_ANGLE = {"refocusing_angle_deg": MapName("refocusing_angle", "deg")}
#: Voxels by which the slice profile is chosen; more do not change the choice.
_SAMPLE = 400
_NO_FLOOR = (
    "the noise is not known: where late echoes have decayed into it, T2 comes out too long; give --noise-sd, "
    "--noise-map, or the mean magnitude of air as --noise-floor"
)


def _prepare(data: FitData) -> FitData:
    refuse_signed(data, "give magnitude images")
    data = replace(data, state={"growth": _check_echoes(data)})
    if data.text("model") != "epg":
        return _judged(data)
    refuse_too_few(data.values("echo_times"), 4, "echo times", "give more echoes, or use --model exponential")
    if data.map("t1_map") is None and data.options["t1"] is None:
        raise InputError(
            "the phase graph needs T1",
            where="--model epg",
            todo="give --t1-map, or one T1 for all voxels with --t1 (it matters little where T1 >> T2)",
        )
    if data.text("slice_profile") != "uniform":
        data = replace(data, state={**data.state, "profile": _choose_profile(data)})
    return _judged(data)


def _judged(data: FitData) -> FitData:
    """Note where the images do not lie on the fitted curves."""
    sample = strong_sample(data)
    fit, _ = _solve(sample)
    times = data.values("echo_times")
    misfit = misfit_of(sample.of("images"), fit.predicted, fit.used, times, "echo time")
    return replace(data, state={**data.state, "misfit": misfit})


def _check_echoes(data: FitData) -> tuple[str, ...]:
    """Refuse echoes in the wrong order; the first may be weaker than the second, which is stimulated."""
    times = data.values("echo_times")
    later = times > times.min()
    if np.unique(times[later]).size < 2:
        return ()
    return refuse_growth(data.signal[:, later], times[later])


def _choose_profile(data: FitData) -> SliceProfile:
    """Let a sample of strong voxels, spread over the volume, choose the slice profile."""
    signal = np.nan_to_num(data.signal, nan=-1.0)
    usable = np.flatnonzero((signal > 0).all(axis=-1))
    if not usable.size:
        return UNIFORM
    strong = usable[signal[usable, 0] >= np.median(signal[usable, 0])]
    step = max(1, strong.size // _SAMPLE)
    sample = data.rows(strong[::step][:_SAMPLE])
    return choose_slice_profile(
        sample.of("images"),
        sample.values("echo_times"),
        t1_s=cast(Array, _t1(sample)),
        noise_floor=_floor(sample),
    )


def _t1(data: FitData) -> Array | None:
    """T1 in seconds: the map where there is one, else the number."""
    found = data.map("t1_map")
    if found is not None:
        return np.where(found > 0, found / 1000.0, np.nan)
    if data.options["t1"] is None:
        return None
    return np.full(data.shape, data.number("t1"))


def _floor(data: FitData) -> float:
    return 0.0 if data.options["noise_floor"] is None else data.number("noise_floor")


def _rician(data: FitData) -> bool:
    """Whether the mean magnitude is fitted: the noise is known, and no floor was given in its place."""
    return data.noise_sd is not None and data.options["noise_floor"] is None


def _floor_notice(data: FitData) -> tuple[str, ...]:
    return (_NO_FLOOR,) if data.noise_sd is None and data.options["noise_floor"] is None else ()


def _solve(data: FitData) -> tuple[RelaxometryFit, NDArray[np.bool_]]:
    """Fit the curves; also return which voxels have a negative magnitude."""
    signal, below = without_negative(data.of("images"))
    model = cast(Literal["exponential", "epg"], data.text("model"))
    fit = fit_multi_echo(
        signal,
        data.values("echo_times"),
        model=model,
        noise_floor=_floor(data),
        skip_first=None if data.options["skip_first"] is None else int(data.number("skip_first")),
        t1_s=_t1(data) if model == "epg" else None,
        slice_profile=data.state.get("profile", UNIFORM),
        noise_sd=noise_of(data),
        rician=_rician(data),
        t2_range_s=(data.number("t2_min"), data.number("t2_max")),
    )
    return fit, below


def _fit(data: FitData) -> FittedMaps:
    fit, below = _solve(data)
    epg = data.text("model") == "epg"
    found = maps_of_fit(
        fit,
        _NAMES | _ANGLE if epg else _NAMES,
        failures=((below, NEGATIVE),),
        flags=everywhere(data.shape, *data.state.get("misfit", ())),
        warnings=(*scaling_of(data), *data.state.get("growth", ())),
        notices=_floor_notice(data),
    )
    if epg:
        return found
    # Echoes left out on purpose are not missing.
    lost = ~np.isfinite(data.of("images")).all(axis=-1) & found.reasons.ok
    return replace(found, flags={**found.flags, INCOMPLETE: lost})


def _example() -> Example:
    times = 0.01 * np.arange(1, 13)
    t2 = np.linspace(0.03, 0.2, 12).reshape(3, 2, 2)
    m0 = np.linspace(800, 1600, 12).reshape(3, 2, 2)
    return Example(
        images={"images": spin_echo_signal(times, t2[..., None], m0=m0[..., None])},
        truth={"T2": 1000 * t2, "M0": m0},
        tolerance=1e-4,
        settings={"echo_times": tuple(times)},
        noise_sd=2.0,
    )


MODEL = FitModel(
    id="t2",
    description="T2 from multi-echo spin echo: exponential, or extended phase graph with refocusing angle",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=3,
            help="Multi-echo spin echo: one 4D file, or one file per echo.",
        ),
    ),
    settings=(ECHO_TIMES,),
    maps=(
        MapInput(
            id="t1_map",
            unit="ms",
            low=50.0,
            high=10_000.0,
            slip="seconds",
            help="NIfTI map of T1 in ms, for the phase graph.",
        ),
    ),
    options=(
        Option(
            id="model",
            kind=str,
            default="exponential",
            choices=("exponential", "epg"),
            help="Exponential without the first echo, or phase graph of all echoes with free angle.",
        ),
        Option(
            id="skip_first",
            kind=int,
            default=None,
            unit="echoes",
            low=0,
            high=100,
            help="Echoes left out at the start; 1 for exponential and 0 for epg by default.",
        ),
        Option(
            id="noise_floor",
            kind=float,
            default=None,
            unit=SIGNAL_UNIT,
            low=0.0,
            high=1e12,
            help="Mean magnitude of air, where the noise (--noise-sd, --noise-map) is not known.",
        ),
        Option(
            id="t1",
            kind=float,
            default=None,
            unit="s",
            low=0.01,
            high=20.0,
            help="One T1 for all voxels, for the phase graph where there is no map.",
        ),
        Option(
            id="slice_profile",
            kind=str,
            default="uniform",
            choices=("uniform", "auto"),
            help="Angles through the slice for the phase graph: ideal, or chosen by the data.",
        ),
        Option(id="t2_min", kind=float, default=0.001, unit="s", low=1e-5, high=60.0, help="Shortest T2."),
        Option(id="t2_max", kind=float, default=5.0, unit="s", low=1e-4, high=60.0, help="Longest T2."),
    ),
    produces=("T2", "M0", "refocusing_angle"),
    references=(
        "Lebel RM, Wilman AH. Transverse relaxometry with stimulated echo compensation. Magn Reson Med "
        "2010;64:1005-1014. doi:10.1002/mrm.22487",
        "Milford D et al. PLoS ONE 2015. doi:10.1371/journal.pone.0145255",
    ),
    assumptions=("One T2 per voxel: where myelin water or fat is present, T2 is an average of several.",),
)
