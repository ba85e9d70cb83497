"""What the reader should know about how one image set was read."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cordqa.io.frames import Frame
from cordqa.io.grouping import SetPlan
from cordqa.records import Notice, Part, Severity

__all__ = ["list_some", "notices_of_set"]

_FEW_CLIPPED = 5
_SATURATED_FRACTION = 0.1
_FLAGS = {
    "philips-scale-absent": (
        Severity.WARNING,
        "Philips' private scale slope (2005,100E) is absent, so images of different series may differ in "
        "scale; export the originals without removing private elements",
    ),
    "zero-level-unknown": (
        Severity.ERROR,
        "a real or imaginary image is stored without sign and without an intercept, so its zero is not "
        "known; use the magnitude images, or export with the rescale intercept",
    ),
    "phase-unit-unknown": (
        Severity.WARNING,
        "the unit of the phase is not known; values are as stored, after rescaling",
    ),
    "adc-unit-unknown": (
        Severity.INFO,
        "the header does not give the unit of this ADC map; values are as stored, after rescaling",
    ),
    "lossy": (Severity.WARNING, "the images went through lossy compression; measure on the originals"),
    "derived": (Severity.INFO, "the header calls the images derived; they were used as they are"),
}
_ELEMENTS = {
    "inversion_time_s": "InversionTime (0018,0082)",
    "echo_time_s": "EchoTime (0018,0081)",
    "flip_angle_deg": "FlipAngle (0018,1314)",
    "repetition_time_s": "RepetitionTime (0018,0080)",
    "field_strength_T": "MagneticFieldStrength (0018,0087)",
    "slice_thickness_mm": "SliceThickness (0018,0050)",
}
_NEEDED = {
    "inversion recovery": ("inversion_time_s", "repetition_time_s"),
    "spin echo": ("echo_time_s",),
    "gradient echo": ("flip_angle_deg", "repetition_time_s"),
}


def list_some(names: Iterable[str], *, most: int = 3) -> str:
    """Join the first names and count the rest: ``a, b, c and 4 more``."""
    unique = list(dict.fromkeys(names))
    shown = ", ".join(unique[:most])
    return shown if len(unique) <= most else f"{shown} and {len(unique) - most} more"


def notices_of_set(
    plan: SetPlan,
    data: NDArray[np.float32],
    clipped: NDArray[np.bool_],
    *,
    label: str,
    even_spacing: bool,
) -> tuple[Notice, ...]:
    """Return the notices of one image set.

    Parameters
    ----------
    plan : SetPlan
        The frames and those that were left out.
    data, clipped : ndarray, shape (n_images, n_slices, n_rows, n_columns)
        Values after scaling, and the mask of clipped samples.
    label : str
        Name of the set, put into each notice.
    even_spacing : bool
        Whether the slices are evenly spaced.
    """
    frames = [f for image in plan.stack.images for f in image]
    found = [
        *_flag_notices(frames),
        *_scaling_notices(frames),
        *_missing_notices(frames),
        *_left_out_notices(plan),
        *_value_notices(plan, data, clipped),
    ]
    if not even_spacing:
        found.append(
            ("set.spacing", Severity.WARNING, "the slices are not evenly spaced; positions are approximate")
        )
    return tuple(Notice(severity=s, message=m, where=label, code=c) for c, s, m in found)


_Found = tuple[str, Severity, str]


def _flag_notices(frames: list[Frame]) -> list[_Found]:
    flags = sorted({flag for frame in frames for flag in frame.flags})
    found = [(f"image.{flag}", *_FLAGS[flag]) for flag in flags]
    if len({f.series_uid for f in frames}) == 1:
        # Within one series the scale is the same for all images, as far as is known.
        found = [(c, Severity.INFO if "philips" in c else s, m) for c, s, m in found]
    return found


def _scaling_notices(frames: list[Frame]) -> list[_Found]:
    sources = {f.acquisition.scale_source for f in frames}
    slopes = {f.acquisition.scale_slope for f in frames}
    intercepts = {f.acquisition.scale_intercept for f in frames}
    if len(sources) > 1:
        names = ", ".join(sorted(source or "none" for source in sources))
        message = f"the images are scaled in different ways ({names}) and may not be comparable"
        return [("scaling.mixed", Severity.ERROR, f"{message}; export all images in the same way")]
    if len(slopes) > 1 or len(intercepts) > 1:
        span = f"slope {min(slopes):.4g} to {max(slopes):.4g}"
        message = f"the stored scale differs between the images ({span}); each was scaled by its own header"
        return [("scaling.differs", Severity.INFO, f"{message} ({next(iter(sources)) or 'none'})")]
    return []


def _missing_notices(frames: list[Frame]) -> list[_Found]:
    found: list[_Found] = []
    sequence = frames[0].acquisition.sequence
    needed = _NEEDED.get(sequence, ())
    if not sequence:
        message = "ScanningSequence (0018,0020) is missing, so the kind of sequence is not known"
        found.append(("header.missing", Severity.WARNING, message))
    for name in (*needed, "field_strength_T", "slice_thickness_mm"):
        lacking = [f.name for f in frames if math.isnan(getattr(f.acquisition, name))]
        if lacking:
            severity = Severity.ERROR if name in needed else Severity.WARNING
            message = f"{_ELEMENTS[name]} is missing in {list_some(lacking)}; export the original "
            message += "images, or add it to the sidecar"
            found.append(("header.missing", severity, message))
    return found


def _left_out_notices(plan: SetPlan) -> list[_Found]:
    left_out = plan.stack.left_out
    if not left_out:
        return []
    kept = len(plan.stack.images[0])
    message = (
        f"{len(left_out)} image(s) were left out because they have no counterpart in every other "
        f"image of the set ({list_some(f.name for f in left_out)}); {kept} complete slice(s) remain; "
        "look for missing files"
    )
    return [("set.incomplete", Severity.WARNING, message)]


def _value_notices(plan: SetPlan, data: NDArray[np.float32], clipped: NDArray[np.bool_]) -> list[_Found]:
    found: list[_Found] = []
    names = [list_some(f.name for f in image) for image in plan.stack.images]
    finite = [bool(np.isfinite(image).all()) for image in data]
    if not all(finite):
        bad = list_some(n for n, ok in zip(names, finite, strict=True) if not ok)
        count = int(np.count_nonzero(~np.isfinite(data)))
        found.append(("image.nan", Severity.WARNING, f"{count} sample(s) are not finite numbers, in {bad}"))
    constant = [_is_constant(image) for image in data]
    if any(constant):
        bad = list_some(n for n, flat in zip(names, constant, strict=True) if flat)
        message = f"every sample has the same value in {bad}; scan or export again"
        found.append(("image.constant", Severity.ERROR, message))
    counts = clipped.sum(axis=(1, 2, 3))
    if counts.max() >= _FEW_CLIPPED and plan.first.part is not Part.PHASE:
        found.append(_clipped_notice(data, clipped, names, counts))
    return found


def _is_constant(image: NDArray[np.float32]) -> bool:
    values = image[np.isfinite(image)]
    return bool(values.size == 0 or values.min() == values.max())


def _clipped_notice(
    data: NDArray[np.float32], clipped: NDArray[np.bool_], names: list[str], counts: NDArray[np.int_]
) -> _Found:
    fractions = []
    for image, mask in zip(data, clipped, strict=True):
        with np.errstate(invalid="ignore"):
            signal = int(np.count_nonzero(image > 0.1 * np.nanmax(image))) if np.isfinite(image).any() else 0
        fractions.append(np.count_nonzero(mask) / signal if signal else 0.0)
    bad = list_some(n for n, count in zip(names, counts, strict=True) if count >= _FEW_CLIPPED)
    message = f"{int(counts.sum())} sample(s) are clipped at the top of the stored range, in {bad}"
    if max(fractions) > _SATURATED_FRACTION:
        return (
            "image.saturated",
            Severity.ERROR,
            f"{message}: up to {100 * max(fractions):.0f} % of the signal; lower the gain and scan again",
        )
    return "image.clipped", Severity.WARNING, f"{message}; they take no part in the fits"
