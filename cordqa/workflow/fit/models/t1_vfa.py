"""T1 from spoiled gradient echoes at several flip angles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.signal import spoiled_gradient_echo_signal
from cordqa.models.relaxometry.spoiling import SpoilingCorrection, make_spoiling_correction
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle
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
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_NAMES = {"t1_s": MapName("T1", "ms", 1000.0), "m0": MapName("M0", SIGNAL_UNIT)}
_NO_B1 = "no B1 map: nominal flip angles used, T1 is wrong by about twice the error of B1"
#: In radians.
_RIGHT_ANGLE = 1.6
_RADIANS = "all flip angles are below 1.6 degrees: are they in radians?"
_UNSPOILED = "outside the range of T1 and B1 for which spoiling was simulated"


def _prepare(data: FitData) -> FitData:
    refuse_signed(data, "give magnitude images")
    angles = data.values("flip_angles")
    refuse_too_few(angles, 2, "flip angles", "give images of another flip angle")
    sample = strong_sample(data)
    fit, _ = _solve(sample)
    misfit = misfit_of(sample.of("images"), fit.predicted, fit.used, angles, "flip angle")
    data = replace(data, state={"misfit": misfit})
    if data.options["spoil_increment"] is None:
        return data
    correction = make_spoiling_correction(
        data.values("flip_angles"),
        data.value("repetition_time"),
        increment_deg=data.number("spoil_increment"),
        t2_s=data.number("spoil_t2"),
    )
    return replace(data, state={**data.state, "spoiling": correction})


def _solve(data: FitData) -> tuple[RelaxometryFit, NDArray[np.bool_]]:
    """Fit the curves; also return which voxels have a negative magnitude."""
    signal, below = without_negative(data.of("images"))
    b1 = data.map("b1_map")
    fit = fit_variable_flip_angle(
        signal,
        data.values("flip_angles"),
        data.value("repetition_time"),
        b1=1.0 if b1 is None else b1,
        noise_sd=noise_of(data),
        t1_range_s=(data.number("t1_min"), data.number("t1_max")),
    )
    return fit, below


def _fit(data: FitData) -> FittedMaps:
    fit, below = _solve(data)
    b1 = data.map("b1_map")
    doubts = (*data.state.get("misfit", ()), *(() if b1 is not None else (_NO_B1,)))
    doubts += (_RADIANS,) if data.values("flip_angles").max() < _RIGHT_ANGLE else ()
    found = maps_of_fit(
        fit,
        _NAMES,
        failures=((below, NEGATIVE),),
        flags=everywhere(data.shape, *doubts),
        warnings=scaling_of(data),
    )
    correction = data.state.get("spoiling")
    return found if correction is None else _corrected(found, correction, 1.0 if b1 is None else b1)


def _corrected(found: FittedMaps, correction: SpoilingCorrection, b1: Array | float) -> FittedMaps:
    """Correct T1 for incomplete spoiling; M0 stays as it is."""
    factor = correction.factor(found.values["T1"] / 1000, b1)
    reasons = found.reasons.then(found.reasons.ok & ~np.isfinite(factor), _UNSPOILED)

    def kept(maps: Mapping[str, Array]) -> dict[str, Array]:
        times = {"T1": factor}
        return {name: np.where(reasons.ok, one * times.get(name, 1.0), np.nan) for name, one in maps.items()}

    text = (
        f"T1 is corrected for spoiling: up to {100 * correction.largest_change:.1f} % over "
        f"{correction.t1_range_s[0]:.2g} to {correction.t1_range_s[1]:.2g} s, of which the polynomial leaves "
        f"{100 * correction.largest_residual:.2g} %; T2 is assumed, and diffusion left out"
    )
    return replace(
        found,
        model=f"{found.model}, T1 corrected for incomplete spoiling",
        values=kept(found.values),
        standard_errors=kept(found.standard_errors),
        reasons=reasons,
        flags={words: where & reasons.ok for words, where in found.flags.items()},
        notices=(*found.notices, text),
    )


def _example() -> Example:
    angles = np.array([3.0, 8.0, 15.0, 25.0])
    t1 = np.linspace(0.4, 2.0, 12).reshape(3, 2, 2)
    b1 = np.linspace(0.8, 1.2, 12).reshape(3, 2, 2)
    m0 = np.linspace(2000, 1000, 12).reshape(3, 2, 2)
    signal = spoiled_gradient_echo_signal(angles, t1[..., None], 0.015, m0=m0[..., None], b1=b1[..., None])
    return Example(
        images={"images": signal},
        truth={"T1": 1000 * t1, "M0": m0},
        tolerance=1e-4,
        settings={"flip_angles": tuple(angles), "repetition_time": (0.015,)},
        maps={"b1_map": b1},
        noise_sd=2.0,
    )


MODEL = FitModel(
    id="t1-vfa",
    description="T1 from spoiled gradient echoes at several flip angles, with B1",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=2,
            help="Spoiled gradient echoes: one 4D file, or one file per flip angle.",
        ),
    ),
    settings=(
        Setting(
            id="flip_angles",
            help="Nominal flip angle of each image.",
            unit="deg",
            sidecar=("FlipAngle",),
            smallest=0.1,
            largest=179.0,
            acquisition="flip_angle_deg",
        ),
        Setting(
            id="repetition_time",
            help="Repetition time, the same for all images.",
            unit="s",
            sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
            shared=True,
            smallest=1e-3,
            largest=1.0,
            slip="milliseconds",
            acquisition="repetition_time_s",
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
            id="spoil_increment",
            kind=float,
            default=None,
            unit="deg",
            low=0.0,
            high=360.0,
            help="Phase increment of the RF spoiling, to correct T1 for incomplete spoiling; not corrected "
            "by default.",
        ),
        Option(
            id="spoil_t2",
            kind=float,
            default=0.065,
            unit="s",
            low=0.001,
            high=5.0,
            help="T2 that is assumed for the correction of spoiling.",
        ),
        Option(id="t1_min", kind=float, default=0.005, unit="s", low=1e-4, high=60.0, help="Shortest T1."),
        Option(id="t1_max", kind=float, default=10.0, unit="s", low=1e-3, high=60.0, help="Longest T1."),
    ),
    produces=("T1", "M0"),
    references=(
        "Deoni SCL et al. Rapid combined T1 and T2 mapping using gradient recalled acquisition in the "
        "steady state. Magn Reson Med 2003;49:515-526. doi:10.1002/mrm.10407",
        "Chang LC et al. Linear least-squares method for unbiased estimation of T1 from SPGR signals. "
        "Magn Reson Med 2008;60:496-501. doi:10.1002/mrm.21669",
        "Preibisch C, Deichmann R. Influence of RF spoiling on the stability and accuracy of T1 mapping "
        "based on spoiled FLASH with varying flip angles. Magn Reson Med 2009;61:125-135. "
        "doi:10.1002/mrm.21776",
    ),
    assumptions=(
        "Spoiling is perfect unless it is corrected for; one T1 per voxel, and the flip angle that B1 says.",
    ),
)
