"""T1 from the uniform image of MP2RAGE."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.relaxometry.mp2rage import Mp2rageProtocol, fit_mp2rage, mp2rage_uniform
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._mp2rage import B1_MAP, OPTIONS, REFERENCES, TIMING, make_protocol, with_first
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_ZERO = "no signal: the stored value is zero"
_NO_B1 = "no B1 map: nominal flip angles used, which changes T1 by percents"
#: Ends of the ranges in which uniform images are stored.
_RATIO, _INTEGER = (-0.5, 0.5), (0.0, 4095.0)
_SLACK = 1e-3
#: No tissue has a uniform image that is zero within this.
_NOTHING = 1e-3
_BULK = (0.1, 0.9)


def _protocol(data: FitData) -> Mp2rageProtocol:
    pairs = []
    for name in ("inversion_times", "flip_angles"):
        values = data.options[name]
        if values is None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"the two {name.replace('_', ' ')} of MP2RAGE are needed", where=option)
        pairs.append(cast("tuple[float, float]", values))
    return make_protocol(data, pairs[0], pairs[1])


def _prepare(data: FitData) -> FitData:
    _protocol(data)
    return replace(data, state={"range": _range(data)})


def _range(data: FitData) -> tuple[float, float]:
    """Stored values of -1/2 and 1/2: as said, or one of the two ways in which they are stored."""
    given = data.options["uniform_range"]
    known = data.signal[np.isfinite(data.signal)]
    # Single voxels that are broken must not decide about the others.
    low, high = (float(v) for v in np.quantile(known, _BULK)) if known.size else _RATIO
    if given is not None:
        ends = cast("tuple[float, float]", given)
        if not ends[1] > ends[0]:
            raise InputError(
                "the range must go up", where="--uniform-range", found=f"{ends[0]:g}, {ends[1]:g}"
            )
        slack = _SLACK * (ends[1] - ends[0])
        if low >= ends[0] - slack and high <= ends[1] + slack:
            return ends
    elif max(abs(low), abs(high)) < _NOTHING and known.any():
        raise InputError(
            "the uniform image hardly differs from zero: its scaling was not applied, or applied twice",
            found=f"{low:g} to {high:g}",
            todo="give --uniform-range with the stored values of -0.5 and 0.5",
        )
    elif low >= _RATIO[0] - _SLACK and high <= _RATIO[1] + _SLACK:
        return _RATIO
    elif low >= 0 and 1 < high <= _INTEGER[1]:
        return _INTEGER
    raise InputError(
        "the uniform image is stored in no known range",
        found=f"{low:g} to {high:g}",
        expected="-0.5 to 0.5, or 0 to 4095",
        todo="give --uniform-range with the stored values of -0.5 and 0.5",
    )


def _fit(data: FitData) -> FittedMaps:
    low, high = data.state.get("range") or _range(data)
    stored = data.image("uniform")
    zero = stored == 0
    uniform = (stored - low) / (high - low) - 0.5
    b1 = data.map("b1_map")
    found = fit_mp2rage(
        np.where(zero, np.nan, uniform),
        _protocol(data),
        b1=b1,
        uniform_sd=None if data.noise_sd is None else data.noise_sd / (high - low),
        t1_range_s=(data.number("t1_min"), data.number("t1_max")),
    )
    doubts = {} if b1 is not None else {_NO_B1: found.reasons.ok}
    reasons = with_first(found.reasons, zero, _ZERO)
    return replace(found, reasons=reasons, flags={**found.flags, **doubts})


def _example() -> Example:
    protocol = Mp2rageProtocol(
        repetition_time_s=5.0,
        inversion_times_s=(0.7, 2.5),
        flip_angles_deg=(4.0, 5.0),
        excitation_spacing_s=0.0071,
        excitations_before=88,
        excitations_after=88,
    )
    t1 = np.linspace(0.5, 2.2, 12).reshape(3, 2, 2)
    b1 = np.linspace(1.15, 0.85, 12).reshape(3, 2, 2)
    return Example(
        images={"uniform": mp2rage_uniform(protocol, t1, b1=b1)},
        truth={"T1": 1000 * t1},
        tolerance=1e-4,
        settings={"repetition_time": (5.0,), "excitation_spacing": (0.0071,)},
        maps={"b1_map": b1},
        options={"inversion_times": (0.7, 2.5), "flip_angles": (4.0, 5.0), "excitations": (88.0, 88.0)},
        noise_sd=0.004,
    )


MODEL = FitModel(
    id="mp2rage",
    description="T1 from the uniform image of MP2RAGE, with inversion efficiency and B1",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    absolute=True,
    images=(ImageRole(id="uniform", metavar="UNI", help="Uniform image (UNI), -0.5 to 0.5 or 0 to 4095."),),
    settings=TIMING,
    maps=(B1_MAP,),
    options=(
        Option(
            id="inversion_times",
            kind=tuple,
            default=None,
            unit="s",
            length=2,
            low=0.001,
            high=20.0,
            help="Required: both inversion times, to the centre of k-space.",
        ),
        Option(
            id="flip_angles",
            kind=tuple,
            default=None,
            unit="deg",
            length=2,
            low=0.1,
            high=89.0,
            help="Required: flip angles of both readouts.",
        ),
        Option(
            id="uniform_range",
            kind=tuple,
            default=None,
            unit="stored",
            length=2,
            low=-1e9,
            high=1e9,
            help="Stored values of -0.5 and 0.5, where the image is stored in another range.",
        ),
        *OPTIONS,
    ),
    produces=("T1",),
    references=REFERENCES,
    assumptions=(
        "One T1 per voxel, an adiabatic inversion of the same efficiency everywhere, and perfect spoiling. A "
        "stored zero is taken as no signal.",
    ),
)
