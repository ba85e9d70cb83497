"""What an image set can be fitted with, and the joining of real, imaginary and phase images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cordqa.records import ImageSet, Notice, Part, Severity

__all__ = [
    "LONGEST_STEADY_STATE_S",
    "MODELS",
    "Kind",
    "Series",
    "find_kind",
    "is_copy",
    "join_parts",
    "unused_parts",
]


class Kind(StrEnum):
    """Model by which a series is fitted."""

    INVERSION_RECOVERY = "t1-ir"
    VARIABLE_FLIP_ANGLE = "t1-vfa"
    MULTI_ECHO = "t2-mese"
    PROTON_DENSITY = "pd"
    DIFFUSION = "adc"


#: What each model is, for people.
MODELS: dict[str, str] = {
    Kind.INVERSION_RECOVERY: "T1 from inversion recovery: complex, real, or magnitude with polarity restored",
    Kind.VARIABLE_FLIP_ANGLE: "T1 from spoiled gradient echoes with variable flip angle, optional B1 map",
    Kind.MULTI_ECHO: "T2 from spin echoes: exponential over a measured noise floor, or extended phase graph",
    Kind.PROTON_DENSITY: "Proton density relative to a reference sphere",
    Kind.DIFFUSION: "ADC from diffusion-weighted images: mono-exponential, each direction and their mean",
}

QUANTITY: dict[Kind, str] = {
    Kind.INVERSION_RECOVERY: "T1",
    Kind.VARIABLE_FLIP_ANGLE: "T1",
    Kind.MULTI_ECHO: "T2",
    Kind.PROTON_DENSITY: "PD",
    Kind.DIFFUSION: "ADC",
}

#: Flip angles at longer repetition times belong to a map of the transmit field, not of T1.
LONGEST_STEADY_STATE_S = 0.2
#: Fewer different weightings than this do not determine the model.
MINIMUM_IMAGES = {
    Kind.INVERSION_RECOVERY: 3,
    Kind.VARIABLE_FLIP_ANGLE: 2,
    Kind.MULTI_ECHO: 2,
    Kind.PROTON_DENSITY: 1,
    Kind.DIFFUSION: 2,
}
#: Copies agree to the rounding of a scale factor; noise alone makes repeats differ by far more.
_COPY_TOLERANCE = 2e-7
#: An export keeps the field strength, or loses it.
_SAME_FIELD_T = 0.1


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
    members : tuple of ImageSet
        The sets that ``data`` was made from; empty means ``images`` alone.
    """

    images: ImageSet
    data: NDArray[np.float32] | NDArray[np.complex64]
    signed: bool
    members: tuple[ImageSet, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Files of all sets that ``data`` was made from."""
        members = self.members or (self.images,)
        return tuple(dict.fromkeys(source for member in members for source in member.sources))


def find_kind(images: ImageSet) -> Kind | None:
    """Tell by which model an image set can be fitted; ``None`` where by none.

    Several inversion times make an inversion recovery, several flip angles (with one echo time)
    a variable-flip-angle set, several echo times a spin-echo decay.  Flip angles of spin echoes,
    or at repetition times above 0.2 s, map the transmit field and are left alone.  Gradient echoes
    with several echo times give T2*, for which the phantoms have no reference value.  Several b-values
    make a diffusion set; a map that the scanner computed is none of these.
    """
    if images.acquisitions[0].map_quantity:
        return None
    if images.varies("b_value_s_per_mm2"):
        return Kind.DIFFUSION
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


def unused_parts(sets: Sequence[ImageSet], series: Sequence[Series]) -> tuple[tuple[ImageSet, str], ...]:
    """Return the image sets that entered no series, each with the reason in words."""
    used = {id(member) for one in series for member in one.members or (one.images,)}
    partners = {_acquisition_key(one.images): one for one in series}
    return tuple(
        (images, _why_unused(images, partners.get(_acquisition_key(images))))
        for images in sets
        if id(images) not in used
    )


def _why_unused(images: ImageSet, partner: Series | None) -> str:
    if partner is None:
        return f"{images.part} images without the other part of the signal cannot be fitted"
    if images.part is Part.PHASE and not partner.signed:
        return "the unit of the phase is not known, so it gives no polarity; the magnitude was fitted alone"
    fitted = " and ".join(member.part for member in partner.members or (partner.images,))
    return f"not needed: the {fitted} images of the same acquisition were fitted"


def is_copy(one: Series, other: Series) -> bool:
    """Tell whether two series hold the same pixels, whatever their identifiers are.

    A second export or anonymisation of a series gives its images new identifiers; taken for a
    repeat it would repeat perfectly.  Sums over all pixels do not depend on the order of rows
    and columns, so a conversion to NIfTI is recognised as well.
    """
    if one.data.size != other.data.size or len(one.data) != len(other.data):
        return False
    fields = (one.images.entities.field_strength_T, other.images.entities.field_strength_T)
    if abs(fields[0] - fields[1]) > _SAME_FIELD_T:
        return False
    # One image after the other: series that differ do so in the first.
    pairs = zip(one.data, other.data, strict=True)
    return all(_alike(_fingerprint(a), _fingerprint(b)) for a, b in pairs)


def _alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    # Images without any signal are all alike and prove nothing.
    return bool(np.all(first > 0)) and bool(np.allclose(first, second, rtol=_COPY_TOLERANCE, atol=0.0))


def _fingerprint(image: NDArray[np.inexact]) -> NDArray[np.float64]:
    """Sum, sum of squares and maximum of the absolute values of one image."""
    values = np.nan_to_num(np.abs(image).astype(np.float64))
    return np.array([values.sum(), (values**2).sum(), values.max()])


def _acquisition_key(images: ImageSet) -> tuple[object, ...]:
    entities = replace(images.entities, acquired="")
    times = tuple(
        np.round(images.values(name), 7).tobytes()
        for name in ("inversion_time_s", "echo_time_s", "flip_angle_deg", "b_value_s_per_mm2")
    )
    return (repr(entities), images.data.shape, np.round(images.affine, 2).tobytes(), *times)


def _join(parts: dict[Part, ImageSet]) -> Series | None:
    magnitude, phase = parts.get(Part.MAGNITUDE), parts.get(Part.PHASE)
    real, imaginary = parts.get(Part.REAL), parts.get(Part.IMAGINARY)
    if real is not None and imaginary is not None:
        data = (real.data + 1j * imaginary.data).astype(np.complex64)
        return _series(
            magnitude or real, data, "real and imaginary images were joined", members=(real, imaginary)
        )
    if magnitude is not None and phase is not None and _is_radian(phase.data):
        data = (magnitude.data * np.exp(1j * phase.data)).astype(np.complex64)
        return _series(magnitude, data, "magnitude and phase images were joined", members=(magnitude, phase))
    if real is not None:
        return Series(images=real, data=real.data, signed=True, members=(real,))
    if magnitude is None:
        return None
    return Series(images=magnitude, data=magnitude.data, signed=False, members=(magnitude,))


def _series(
    images: ImageSet, data: NDArray[np.complex64], message: str, *, members: tuple[ImageSet, ...]
) -> Series:
    notice = Notice(severity=Severity.INFO, message=f"{message}; polarity is measured", where=images.label)
    read = dict.fromkeys(n for member in members for n in member.notices)
    whole = replace(
        images,
        data=np.abs(data).astype(np.float32),
        notices=(*read, notice),
        part=Part.MAGNITUDE,
        clipped=_any_clipped(members),
        sources=tuple(dict.fromkeys(source for member in members for source in member.sources)),
    )
    return Series(images=whole, data=data, signed=True, members=members)


def _any_clipped(members: Sequence[ImageSet]) -> NDArray[np.bool_] | None:
    """Join the masks: a sample is spoiled where either part of it is."""
    masks = [member.clipped for member in members if member.clipped is not None]
    return np.logical_or.reduce(masks) if masks else None


def _is_radian(phase: NDArray[np.float32]) -> bool:
    finite = phase[np.isfinite(phase)]
    # One wrap either way is tolerated; anything else is a phase whose scaling is not known.
    return bool(finite.size) and bool(np.ptp(finite) <= 2.1 * np.pi) and bool(np.ptp(finite) > 0.1)
