"""T2* from multi-echo gradient echo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.echo_order import refuse_growth
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.gradient_echo import (
    DEPHASED,
    fit_gradient_echo,
    gradient_echo_signal,
    slice_gradient,
    slice_gradient_from_phase,
)
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import (
    INCOMPLETE,
    NEGATIVE,
    SIGNAL_UNIT,
    MapName,
    everywhere,
    maps_of_fit,
    misfit_of,
    noise_of,
    refuse_signed,
    scaling_of,
    strong_sample,
    without_negative,
)
from cordqa.workflow.fit.models._volume import phase_in_radians, to_list, to_volume
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_NAMES = {"t2star_s": MapName("T2star", "ms", 1000.0), "m0": MapName("M0", SIGNAL_UNIT)}
_GRADIENT = "gradient_map"
_NO_FLOOR = (
    "the noise is not known: where late echoes have decayed into it, T2* comes out too long; give "
    "--noise-sd or --noise-map"
)
_NO_GRADIENT = (
    "no field map and no phase: where the field changes through the slice, T2* comes out too short; give "
    "--field-map or --phase"
)
_GONE = "dephased through the slice before three echoes"
_NO_FIELD = "no field here: not corrected for dephasing through the slice"


def _prepare(data: FitData) -> FitData:
    signed = replace(data, signal=data.signal[..., data.roles["images"]])
    refuse_signed(signed, "give magnitude images")
    growth = refuse_growth(signed.signal, data.values("echo_times"))
    gradient = _gradient(data)
    maps = dict(data.maps) if gradient is None else {**data.maps, _GRADIENT: gradient}
    data = replace(data, maps=maps, state={"growth": growth})
    sample = strong_sample(data)
    fit, _ = _solve(sample)
    times = data.values("echo_times")
    misfit = misfit_of(sample.of("images"), fit.predicted, fit.used, times, "echo time")
    return replace(data, state={"growth": growth, "misfit": misfit})


def _gradient(data: FitData) -> Array | None:
    """Change of the frequency through the slice of each voxel, Hz."""
    phase, field, known = data.of("phase"), data.map("field_map"), data.map(_GRADIENT)
    if (phase.shape[-1] > 0) + (field is not None) + (known is not None) > 1:
        raise InputError("give only one of --phase, --field-map and --gradient-map")
    if known is not None:
        return known
    if field is not None:
        return to_list(slice_gradient(to_volume(field, data.mask), axis=_axis(data)), data.mask)
    if not phase.shape[-1]:
        return None
    times = data.values("echo_times")
    if phase.shape[-1] != times.size:
        raise InputError(
            "every echo needs its phase", found=f"{phase.shape[-1]} phases", expected=f"{times.size}"
        )
    volume = to_volume(phase_in_radians(phase, data.options["phase_range"]), data.mask)
    return to_list(slice_gradient_from_phase(volume, times, axis=_axis(data)), data.mask)


def _axis(data: FitData) -> int:
    """Array axis across slices: as said, else the coarsest one (the last where all are alike)."""
    if data.options["slice_axis"] is not None:
        return int(data.number("slice_axis"))
    spacing = np.sqrt((data.affine[:3, :3] ** 2).sum(axis=0))
    return 2 if spacing.max() < 1.1 * spacing.min() else int(np.argmax(spacing))


def _solve(data: FitData) -> tuple[RelaxometryFit, NDArray[np.bool_]]:
    """Fit the curves; also return which voxels have a negative magnitude."""
    signal, below = without_negative(data.of("images"))
    fit = fit_gradient_echo(
        signal,
        data.values("echo_times"),
        noise_sd=noise_of(data),
        noise_floor=data.flag("noise_floor"),
        gradient_hz=data.map(_GRADIENT),
        t2star_range_s=(data.number("t2star_min"), data.number("t2star_max")),
    )
    return fit, below


def _fit(data: FitData) -> FittedMaps:
    fit, below = _solve(data)
    gradient = data.map(_GRADIENT)
    doubts: tuple[str, ...] = () if data.noise_sd is not None else (_NO_FLOOR,)
    doubts += () if gradient is not None else (_NO_GRADIENT,)
    flags = everywhere(data.shape, *data.state.get("misfit", ()))
    flags |= {} if gradient is None else {_NO_FIELD: ~np.isfinite(gradient)}
    failures = ((below, NEGATIVE), (fit.reason == DEPHASED, _GONE))
    loud = (*scaling_of(data), *data.state.get("growth", ()))
    found = maps_of_fit(fit, _NAMES, failures=failures, flags=flags, notices=doubts, warnings=loud)
    if gradient is None:
        return found
    # Echoes that dephasing has emptied are left out on purpose: that is no doubt about the voxel.
    missing = ~np.isfinite(data.of("images")).all(axis=-1) & found.reasons.ok
    return replace(found, flags={**found.flags, INCOMPLETE: missing})


def _example() -> Example:
    times = np.array([0.003, 0.007, 0.011, 0.015, 0.019, 0.023])
    t2star = np.linspace(0.015, 0.06, 12).reshape(3, 2, 2)
    m0 = np.linspace(800, 1600, 12).reshape(3, 2, 2)
    gradient = np.linspace(-15, 15, 6).reshape(3, 2)[..., None] * np.ones(2)
    return Example(
        images={"images": gradient_echo_signal(times, t2star, m0=m0, gradient_hz=gradient)},
        truth={"T2star": 1000 * t2star, "M0": m0},
        tolerance=1e-4,
        settings={"echo_times": tuple(times)},
        maps={"gradient_map": gradient},
        noise_sd=4.0,
    )


MODEL = FitModel(
    id="t2star",
    description="T2* from multi-echo gradient echo, with noise floor and dephasing through the slice",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=3,
            help="Magnitude of a multi-echo gradient echo: one 4D file, or one file per echo.",
        ),
        ImageRole(
            id="phase",
            metavar="PHASE",
            many=True,
            by_option=True,
            required=False,
            help="Phase of the same echoes, by which dephasing through the slice is corrected.",
        ),
    ),
    settings=(
        Setting(
            id="echo_times",
            help="Echo time of each image.",
            unit="s",
            sidecar=("EchoTime",),
            role="images",
            smallest=1e-4,
            largest=0.5,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
    ),
    maps=(
        MapInput(
            id="field_map",
            unit="Hz",
            help="NIfTI map of the frequency in Hz, by which dephasing through the slice is corrected.",
        ),
        MapInput(
            id="gradient_map",
            unit="Hz",
            help="NIfTI map of the change of the frequency across the slice in Hz, where it is known.",
        ),
    ),
    options=(
        Option(
            id="noise_floor",
            kind=bool,
            default=True,
            help="Fit the mean of Rician noise where the noise is known.",
        ),
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
        Option(
            id="slice_axis",
            kind=int,
            default=None,
            unit="axis",
            low=0,
            high=2,
            help="Array axis across slices (0, 1, 2); the coarsest by default, the last where all are alike.",
        ),
        Option(
            id="t2star_min", kind=float, default=0.0005, unit="s", low=1e-5, high=10.0, help="Shortest T2*."
        ),
        Option(id="t2star_max", kind=float, default=1.0, unit="s", low=1e-3, high=10.0, help="Longest T2*."),
    ),
    produces=("T2star", "M0"),
    references=(
        "Gudbjartsson H, Patz S. The Rician distribution of noisy MRI data. Magn Reson Med 1995;34:910-914. "
        "doi:10.1002/mrm.1910340618",
        "Fernandez-Seara MA, Wehrli FW. Postprocessing technique to correct for background gradients in "
        "image-based R2* measurements. Magn Reson Med 2000;44:358-366. "
        "doi:10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I",
    ),
    assumptions=(
        "One T2* per voxel, noise of one receive channel, slices that touch, a rectangular slice profile and "
        "a field that varies linearly through the slice.",
    ),
)
