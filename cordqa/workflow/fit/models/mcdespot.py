"""Two exchanging waters from spoiled and balanced gradient echoes (mcDESPOT)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.two_pool_fit import (
    TwoPoolProtocol,
    fit_two_pools,
    measure_identifiability,
    two_pool_signals,
)
from cordqa.models.myelin.two_pool_signal import TwoPools
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import everywhere, refuse_signed
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Setting

__all__ = ["MODEL"]

_NO_B1 = "no B1 map: nominal flip angles used, which alone can move the fraction by its whole range"


def _protocol(data: FitData) -> TwoPoolProtocol:
    def numbers(name: str) -> tuple[float, ...]:
        return tuple(float(value) for value in data.values(name))

    return TwoPoolProtocol(
        spoiled_angles_deg=numbers("spoiled_flip_angles"),
        spoiled_tr_s=data.value("spoiled_repetition_time"),
        balanced_angles_deg=numbers("balanced_flip_angles"),
        phase_increments_deg=numbers("phase_increments"),
        balanced_tr_s=data.value("balanced_repetition_time"),
    )


def _prepare(data: FitData) -> FitData:
    """Refuse protocols that cannot carry the fit, and simulate the one that is given."""
    refuse_signed(data, "give magnitude images")
    return replace(data, state={"identifiability": measure_identifiability(_protocol(data))})


def _fit(data: FitData) -> FittedMaps:
    b1 = data.map("b1_map")
    signal = np.concatenate([data.of("spoiled"), data.of("balanced")], axis=-1)
    found = fit_two_pools(
        signal,
        _protocol(data),
        b1=1.0 if b1 is None else b1,
        identifiability=data.state.get("identifiability"),
    )
    if b1 is not None:
        return found
    doubt = everywhere(data.shape, _NO_B1)
    flags = {text: where & found.reasons.ok for text, where in doubt.items()}
    return replace(found, flags={**found.flags, **flags})


def _example() -> Example:
    spoiled, balanced = (
        (3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 13.0, 18.0),
        (12.0, 16.0, 21.0, 27.0, 33.0, 40.0, 51.0, 68.0),
    )
    protocol = TwoPoolProtocol(
        spoiled_angles_deg=spoiled,
        spoiled_tr_s=0.0065,
        balanced_angles_deg=balanced * 2,
        phase_increments_deg=(180.0,) * 8 + (0.0,) * 8,
        balanced_tr_s=0.005,
    )
    fraction = np.linspace(0.08, 0.28, 8).reshape(2, 2, 2)
    other = np.linspace(1.0, 1.6, 8).reshape(2, 2, 2)
    pools = TwoPools(
        fraction=fraction,
        t1_myelin_s=0.45,
        t2_myelin_s=0.016,
        t1_other_s=other,
        t2_other_s=0.09,
        residence_s=0.12,
        off_resonance_hz=8.0,
    )
    b1 = np.linspace(0.9, 1.1, 8).reshape(2, 2, 2)
    signal = 1e5 * two_pool_signals(protocol, pools, b1=b1)
    return Example(
        images={"spoiled": signal[..., :8], "balanced": signal[..., 8:]},
        truth={"MWF_mcDESPOT": 100 * fraction, "T1_other": 1e3 * other},
        tolerance=2e-2,
        settings={
            "spoiled_flip_angles": spoiled,
            "balanced_flip_angles": balanced * 2,
            "phase_increments": (180.0,) * 8 + (0.0,) * 8,
            "spoiled_repetition_time": (0.0065,),
            "balanced_repetition_time": (0.005,),
        },
        maps={"b1_map": b1},
    )


def _angles(role: str, words: str) -> Setting:
    return Setting(
        id=f"{role}_flip_angles",
        help=f"Nominal flip angle of each {words} image.",
        unit="deg",
        sidecar=("FlipAngle",),
        role=role,
        smallest=0.1,
        largest=179.0,
        acquisition="flip_angle_deg",
    )


def _repetition(role: str, words: str) -> Setting:
    return Setting(
        id=f"{role}_repetition_time",
        help=f"Repetition time of the {words} images.",
        unit="s",
        sidecar=("RepetitionTimeExcitation", "RepetitionTime"),
        role=role,
        shared=True,
        smallest=1e-3,
        largest=0.1,
        slip="milliseconds",
        acquisition="repetition_time_s",
    )


MODEL = FitModel(
    id="mcdespot",
    description="Two exchanging waters from spoiled and balanced gradient echoes, with what they can tell",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="spoiled",
            metavar="SPOILED",
            many=True,
            minimum=4,
            help="Spoiled gradient echoes: one 4D file, or one file per flip angle.",
        ),
        ImageRole(
            id="balanced",
            metavar="BALANCED",
            many=True,
            minimum=4,
            by_option=True,
            help="Balanced steady-state images: one 4D file, or repeat for one file per image.",
        ),
    ),
    settings=(
        _angles("spoiled", "spoiled"),
        _repetition("spoiled", "spoiled"),
        _angles("balanced", "balanced"),
        _repetition("balanced", "balanced"),
        Setting(
            id="phase_increments",
            help="Advance of the pulse phase per repetition of each balanced image: 0 or 180.",
            unit="deg",
            role="balanced",
            largest=360.0,
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
    takes_noise=False,
    produces=("MWF_mcDESPOT", "T1_other", "T2_other", "residence_time"),
    experimental="the fraction is hardly determined by such signals at usual noise; the result says how far, "
    "by simulation of this protocol",
    references=(
        "Deoni SCL et al. Gleaning multicomponent T1 and T2 information from steady-state imaging data. Magn "
        "Reson Med 2008;60:1372-1387. doi:10.1002/mrm.21704",
        "Lankford CL, Does MD. On the inherent precision of mcDESPOT. Magn Reson Med 2013;69:127-136.",
    ),
    assumptions=(
        "Two waters with one off-resonance, ideal spoiling, instantaneous pulses without saturation of "
        "macromolecules, and ranges of their relaxation times that are usual at 3 T.",
    ),
)
