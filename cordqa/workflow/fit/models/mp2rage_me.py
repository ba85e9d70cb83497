"""T1 and T2* from MP2RAGE with several echoes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.models.relaxometry.echo_order import refuse_growth
from cordqa.models.relaxometry.gradient_echo import fit_gradient_echo
from cordqa.models.relaxometry.mp2rage import (
    Mp2rageProtocol,
    combine_readouts,
    fit_mp2rage,
    mp2rage_signals,
)
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._mp2rage import B1_MAP, OPTIONS, REFERENCES, TIMING, make_protocol, with_first
from cordqa.workflow.fit.models._relaxometry import NEGATIVE, MapName, maps_of_fit, without_negative
from cordqa.workflow.fit.models._volume import phase_in_radians
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
_READOUTS = ("inv1", "inv2")
_NO_SIGNAL = "no signal in both readouts"
_NO_B1 = "no B1 map: nominal flip angles used, which changes T1 by percents"
_FEW = "fewer than three echoes of the second readout: no T2*"
_FEWEST = 3
_SAME = 1e-5


def _protocol(data: FitData) -> Mp2rageProtocol:
    times, angles = (
        (data.value(f"{name}_1"), data.value(f"{name}_2")) for name in ("inversion_time", "flip_angle")
    )
    return make_protocol(data, times, angles)


def _prepare(data: FitData) -> FitData:
    _protocol(data)
    steps: list[str] = []
    for role in _READOUTS:
        count, phases = data.of(role).shape[-1], data.of(f"{role}_phase").shape[-1]
        if count != phases:
            raise InputError(
                f"every echo of {role.upper()} needs its phase: the sign of the first readout tells T1",
                found=f"{phases} phases",
                expected=f"{count}",
                todo=f"give --{role}-phase",
            )
        phase_in_radians(data.of(f"{role}_phase"), data.options["phase_range"])
        where, times = role.upper(), data.values(f"echo_times_{role[-1]}")
        steps += [f"{where}: {one}" for one in refuse_growth(data.of(role), times, where=where)]
    _shared(data)
    return replace(data, state={"growth": tuple(steps)})


def _shared(data: FitData) -> tuple[list[int], list[int]]:
    """Echoes of both readouts with one echo time: only of these T2* cancels in the ratio."""
    first, second = data.values("echo_times_1"), data.values("echo_times_2")
    pairs = [(i, j) for i, a in enumerate(first) for j, b in enumerate(second) if abs(a - b) < _SAME]
    if not pairs:
        raise InputError(
            "both readouts need an echo of the same echo time",
            found=f"{first.tolist()} and {second.tolist()} s",
        )
    return [i for i, _ in pairs], [j for _, j in pairs]


def _complex(data: FitData, role: str) -> Complex:
    phase = phase_in_radians(data.of(f"{role}_phase"), data.options["phase_range"])
    return np.asarray(data.of(role) * np.exp(1j * phase))


def _fit(data: FitData) -> FittedMaps:
    one, two = _shared(data)
    first, second = _complex(data, "inv1")[..., one], _complex(data, "inv2")[..., two]
    below: NDArray[np.bool_] = np.any(data.of("inv1") < 0, axis=-1) | np.any(data.of("inv2") < 0, axis=-1)
    uniform = combine_readouts(first, second)
    b1 = data.map("b1_map")
    sd = None if data.noise_sd is None else _uniform_sd(first, second, uniform, data.noise_sd)
    found = fit_mp2rage(
        np.where(below, np.nan, uniform),
        _protocol(data),
        b1=b1,
        uniform_sd=sd,
        t1_range_s=(data.number("t1_min"), data.number("t1_max")),
    )
    empty: NDArray[np.bool_] = np.all(np.concatenate([first, second], axis=-1) == 0, axis=-1)
    reasons = with_first(with_first(found.reasons, empty, _NO_SIGNAL), below, NEGATIVE)
    doubts = {} if b1 is not None else {_NO_B1: reasons.ok}
    growth = data.state.get("growth", ())
    found = replace(
        found,
        reasons=reasons,
        flags={**found.flags, **doubts},
        notices=(*found.notices, *growth),
        warnings=growth,
    )
    return _with_decay(found, data, below)


def _uniform_sd(first: Complex, second: Complex, uniform: Array, noise_sd: NDArray[np.floating]) -> Array:
    """Noise of the uniform image, to first order, from that of one channel."""
    below = (np.abs(first) ** 2 + np.abs(second) ** 2).sum(axis=-1)
    twice = 2 * uniform[..., None]
    slopes = np.abs(second - twice * first) ** 2 + np.abs(first - twice * second) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(noise_sd * np.sqrt(slopes.sum(axis=-1)) / below)


def _with_decay(found: FittedMaps, data: FitData, below: NDArray[np.bool_]) -> FittedMaps:
    """Add T2* of the second readout."""
    times = data.values("echo_times_2")
    if np.unique(times).size < _FEWEST:
        return replace(found, notices=(*found.notices, _FEW))
    magnitude, _ = without_negative(data.of("inv2"))
    sd = None if data.noise_sd is None else data.noise_sd[..., None].astype(np.float64)
    fit = fit_gradient_echo(magnitude, times, noise_sd=sd)
    decay = maps_of_fit(fit, {"t2star_s": MapName("T2star", "ms", 1000.0)}, failures=((below, NEGATIVE),))
    neither = ~found.reasons.ok & ~decay.reasons.ok
    old = [(found.reasons.codes == n, text) for n, text in enumerate(found.reasons.texts) if n]
    both = Reasons.collect(neither.shape, [(neither & where, text) for where, text in old])
    return replace(
        found,
        model=f"{found.model}; T2* of the second readout: {decay.model}",
        values={**found.values, **decay.values},
        units={**found.units, **decay.units},
        standard_errors={**found.standard_errors, **decay.standard_errors},
        reasons=both,
        own_reasons={"T1": found.reasons, "T2star": decay.reasons},
        flags={**found.flags, **decay.flags},
    )


def _example() -> Example:
    protocol = Mp2rageProtocol(
        repetition_time_s=6.0,
        inversion_times_s=(0.8, 2.7),
        flip_angles_deg=(5.0, 4.0),
        excitation_spacing_s=0.0076,
        excitations_before=60,
        excitations_after=90,
    )
    t1 = np.linspace(0.6, 2.2, 12).reshape(3, 2, 2)
    t2star = np.linspace(0.05, 0.02, 12).reshape(3, 2, 2)
    b1 = np.linspace(0.9, 1.1, 12).reshape(3, 2, 2)
    times = np.array([0.003, 0.01, 0.017, 0.024])
    decay = np.exp(-times / t2star[..., None])
    signal = mp2rage_signals(protocol, t1, m0=5e4, b1=b1)
    first, second = signal[..., :1] * decay[..., :1], signal[..., 1:] * decay
    phase = np.linspace(-2, 2, 12).reshape(3, 2, 2)[..., None]
    return Example(
        images={
            "inv1": np.abs(first),
            "inv2": np.abs(second),
            "inv1_phase": np.angle(first * np.exp(1j * phase)),
            "inv2_phase": np.angle(second * np.exp(1j * phase)),
        },
        truth={"T1": 1000 * t1, "T2star": 1000 * t2star},
        tolerance=1e-4,
        settings={
            "echo_times_1": (0.003,),
            "echo_times_2": tuple(times),
            "inversion_time_1": (0.8,),
            "inversion_time_2": (2.7,),
            "flip_angle_1": (5.0,),
            "flip_angle_2": (4.0,),
            "repetition_time": (6.0,),
            "excitation_spacing": (0.0076,),
        },
        maps={"b1_map": b1},
        options={"excitations": (60.0, 90.0)},
    )


def _role(name: str, metavar: str, text: str, *, by_option: bool = True) -> ImageRole:
    return ImageRole(id=name, metavar=metavar, many=True, by_option=by_option, help=text)


def _own(n: int) -> tuple[Setting, ...]:
    role = f"inv{n}"
    return (
        Setting(
            id=f"echo_times_{n}",
            help=f"Echo time of each echo of INV{n}.",
            unit="s",
            sidecar=("EchoTime",),
            role=role,
            smallest=1e-4,
            largest=0.5,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
        Setting(
            id=f"inversion_time_{n}",
            help=f"Inversion time of INV{n}, to the centre of k-space.",
            unit="s",
            sidecar=("InversionTime",),
            role=role,
            shared=True,
            smallest=1e-3,
            largest=20.0,
            slip="milliseconds",
            acquisition="inversion_time_s",
        ),
        Setting(
            id=f"flip_angle_{n}",
            help=f"Flip angle of INV{n}.",
            unit="deg",
            sidecar=("FlipAngle",),
            role=role,
            shared=True,
            smallest=0.1,
            largest=89.0,
            acquisition="flip_angle_deg",
        ),
    )


MODEL = FitModel(
    id="mp2rage-me",
    description="T1 and T2* from both readouts of a multi-echo MP2RAGE (magnitude and phase), with B1",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    absolute=True,
    images=(
        _role("inv1", "INV1", "Magnitude of the first readout: 4D, or one file per echo.", by_option=False),
        _role("inv2", "INV2", "Magnitude of the second readout."),
        _role("inv1_phase", "INV1_PHASE", "Phase of the first readout."),
        _role("inv2_phase", "INV2_PHASE", "Phase of the second readout."),
    ),
    settings=(*_own(1), *_own(2), *TIMING),
    maps=(B1_MAP,),
    options=(
        Option(
            id="phase_range",
            kind=tuple,
            default=None,
            unit="stored",
            length=2,
            low=-1e6,
            high=1e6,
            help="Stored values of -pi and pi; radians by default.",
        ),
        *OPTIONS,
    ),
    produces=("T1", "T2star"),
    references=(
        *REFERENCES,
        "Caan MWA et al. MP2RAGEME: T1, T2*, and QSM mapping in one sequence at 7 tesla. Hum Brain Mapp "
        "2019;40:1786-1798. doi:10.1002/hbm.24490",
    ),
    assumptions=(
        "One T1 and T2* per voxel, an adiabatic inversion of the same efficiency everywhere, and perfect "
        "spoiling. T1 is taken from the echoes whose echo time both readouts share.",
    ),
)
