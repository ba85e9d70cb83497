"""What an image set can be fitted with, and the joining of real, imaginary and phase images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cordqa.records import ImageSet, Notice, Part, Severity

__all__ = ["LONGEST_STEADY_STATE_S", "MODELS", "Kind", "Series", "find_kind", "join_parts"]


class Kind(StrEnum):
    """Model by which a series is fitted."""

    INVERSION_RECOVERY = "t1-ir"
    VARIABLE_FLIP_ANGLE = "t1-vfa"
    MULTI_ECHO = "t2-mese"
    PROTON_DENSITY = "pd"


#: What each model is, for people.
MODELS: dict[str, str] = {
    Kind.INVERSION_RECOVERY: "T1 from inversion recovery: complex, real, or magnitude with polarity restored",
    Kind.VARIABLE_FLIP_ANGLE: "T1 from spoiled gradient echoes with variable flip angle, optional B1 map",
    Kind.MULTI_ECHO: "T2 from spin echoes: exponential over a measured noise floor, or extended phase graph",
    Kind.PROTON_DENSITY: "Proton density relative to a reference sphere",
}

QUANTITY: dict[Kind, str] = {
    Kind.INVERSION_RECOVERY: "T1",
    Kind.VARIABLE_FLIP_ANGLE: "T1",
    Kind.MULTI_ECHO: "T2",
    Kind.PROTON_DENSITY: "PD",
}

#: Flip angles at longer repetition times belong to a map of the transmit field, not of T1.
LONGEST_STEADY_STATE_S = 0.2
#: Fewer different weightings than this do not determine the model.
MINIMUM_IMAGES = {
    Kind.INVERSION_RECOVERY: 3,
    Kind.VARIABLE_FLIP_ANGLE: 2,
    Kind.MULTI_ECHO: 2,
    Kind.PROTON_DENSITY: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One acquisition, ready to be located and fitted.

    Attributes
    ----------
    images : ImageSet
        Geometry, parameters and clipping; its data are the magnitude where there is one.
    data : ndarray, shape of ``images.data``, float or complex
        What is fitted.
    signed : bool
        Whether ``data`` carries the sign of the longitudinal magnetization (real or complex).
    """

    images: ImageSet
    data: NDArray[np.float32] | NDArray[np.complex64]
    signed: bool


def find_kind(images: ImageSet) -> Kind | None:
    """Tell by which model an image set can be fitted; ``None`` where by none.

    Several inversion times make an inversion recovery, several flip angles (with one echo time)
    a variable-flip-angle set, several echo times a spin-echo decay.  Flip angles of spin echoes,
    or at repetition times above 0.2 s, map the transmit field and are left alone.  Gradient echoes
    with several echo times give T2*, for which the phantoms have no reference value.
    """
    if images.varies("inversion_time_s"):
        return Kind.INVERSION_RECOVERY
    if images.varies("echo_time_s"):
        gradient = any(a.sequence == "gradient echo" for a in images.acquisitions)
        return None if gradient else Kind.MULTI_ECHO
    if not images.varies("flip_angle_deg"):
        return None
    repetition = images.values("repetition_time_s")
    slow = np.isfinite(repetition).all() and bool((repetition > LONGEST_STEADY_STATE_S).all())
    spin = any(a.sequence in ("spin echo", "inversion recovery") for a in images.acquisitions)
    return None if slow or spin else Kind.VARIABLE_FLIP_ANGLE


def join_parts(sets: Sequence[ImageSet]) -> tuple[Series, ...]:
    """Join magnitude, phase, real and imaginary images of one acquisition.

    Complex data are preferred because they keep the polarity; real images alone are signed;
    magnitude alone is fitted with polarity restoration.  Phase alone cannot be used and is left
    out (the caller says so).
    """
    groups: dict[tuple[object, ...], dict[Part, ImageSet]] = {}
    for images in sets:
        groups.setdefault(_acquisition_key(images), {})[images.part] = images
    joined = [_join(parts) for parts in groups.values()]
    return tuple(series for series in joined if series is not None)


def _acquisition_key(images: ImageSet) -> tuple[object, ...]:
    entities = replace(images.entities, acquired="")
    times = tuple(
        np.round(images.values(name), 7).tobytes()
        for name in ("inversion_time_s", "echo_time_s", "flip_angle_deg")
    )
    return (repr(entities), images.data.shape, np.round(images.affine, 2).tobytes(), *times)


def _join(parts: dict[Part, ImageSet]) -> Series | None:
    magnitude, phase = parts.get(Part.MAGNITUDE), parts.get(Part.PHASE)
    real, imaginary = parts.get(Part.REAL), parts.get(Part.IMAGINARY)
    if real is not None and imaginary is not None:
        data = (real.data + 1j * imaginary.data).astype(np.complex64)
        return _series(magnitude or real, data, "real and imaginary images were joined")
    if magnitude is not None and phase is not None and _is_radian(phase.data):
        data = (magnitude.data * np.exp(1j * phase.data)).astype(np.complex64)
        return _series(magnitude, data, "magnitude and phase images were joined")
    if real is not None:
        return Series(images=real, data=real.data, signed=True)
    return None if magnitude is None else Series(images=magnitude, data=magnitude.data, signed=False)


def _series(images: ImageSet, data: NDArray[np.complex64], message: str) -> Series:
    notice = Notice(severity=Severity.INFO, message=f"{message}; polarity is measured", where=images.label)
    whole = replace(
        images, data=np.abs(data).astype(np.float32), notices=(*images.notices, notice), part=Part.MAGNITUDE
    )
    return Series(images=whole, data=data, signed=True)


def _is_radian(phase: NDArray[np.float32]) -> bool:
    finite = phase[np.isfinite(phase)]
    # One wrap either way is tolerated; anything else is a phase whose scaling is not known.
    return bool(finite.size) and bool(np.ptp(finite) <= 2.1 * np.pi) and bool(np.ptp(finite) > 0.1)
