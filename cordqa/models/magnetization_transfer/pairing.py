"""Do the images of an MT protocol belong together?  What differs must be what is meant to differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cordqa.records import Acquisition, Notice, Severity

__all__ = ["check_mt_pair", "check_mt_triplet"]

#: Relative difference of a setting that counts as one.
_TOLERANCE = 0.01
_WORDS = {
    "repetition_time_s": "repetition time",
    "flip_angle_deg": "flip angle",
    "echo_time_s": "echo time",
}
_SCALING = ("scale_slope", "scale_intercept")


def check_mt_pair(mt_on: Acquisition, mt_off: Acquisition) -> tuple[Notice, ...]:
    """Compare the settings of MT-on and MT-off, which must differ in the saturation pulse alone.

    Parameters
    ----------
    mt_on, mt_off : Acquisition

    Returns
    -------
    tuple of Notice
        An error per setting that corrupts MTR (TR, flip angle, echo time), a warning where scaling
        differs, and one warning that names all that is not known; nothing where all agree.
    """
    notices = [
        _unknown(mt_on, mt_off, "MT-on", "MT-off"),
        _compare(
            "repetition time",
            mt_on.repetition_time_s,
            mt_off.repetition_time_s,
            "s",
            "MTR is wrong: 6 % in TR moves it by about 2 points",
        ),
        _compare("flip angle", mt_on.flip_angle_deg, mt_off.flip_angle_deg, "deg", "MTR is wrong"),
        _compare("echo time", mt_on.echo_time_s, mt_off.echo_time_s, "s", "MTR contains T2*"),
        _compare_scale(mt_on, mt_off, "MT-on", "MT-off"),
    ]
    return tuple(n for n in notices if n is not None)


def check_mt_triplet(mt_on: Acquisition, mt_off: Acquisition, t1_weighted: Acquisition) -> tuple[Notice, ...]:
    """Compare the settings of the three images of MTsat.

    MT-on and MT-off may differ in TR and flip angle, for each image enters with its own; scaling and
    echo time must agree, and the T1-weighted image must differ in flip angle or TR.

    Returns
    -------
    tuple of Notice
    """
    notices: list[Notice | None] = []
    for other, name in ((mt_on, "MT-on"), (t1_weighted, "T1w")):
        notices.append(_unknown(other, mt_off, name, "MT-off", must_agree=("echo_time_s",)))
        notices.append(_compare_scale(other, mt_off, name, "MT-off"))
        notices.append(
            _compare(
                f"echo time of {name} and MT-off",
                other.echo_time_s,
                mt_off.echo_time_s,
                "s",
                "MTsat contains T2*",
            )
        )
    images = ((mt_on, "MT-on"), (mt_off, "MT-off"), (t1_weighted, "T1w"))
    open_ones = [name for image, name in images if not _known(image, ("repetition_time_s", "flip_angle_deg"))]
    if open_ones:
        text = f"TR or flip angle of {_listed(open_ones)} is not known: MTsat cannot be computed"
        notices.append(Notice(severity=Severity.ERROR, message=text, code="mt.unknown"))
    same_tr = _alike(t1_weighted.repetition_time_s, mt_off.repetition_time_s)
    if same_tr and _alike(t1_weighted.flip_angle_deg, mt_off.flip_angle_deg):
        text = "T1w has the settings of MT-off: T1 cannot be solved for; check which image is which"
        notices.append(Notice(severity=Severity.ERROR, message=text, code="mt.same-settings"))
    elif t1_weighted.flip_angle_deg < mt_off.flip_angle_deg:
        text = "T1w has a smaller flip angle than MT-off: check which image is which"
        notices.append(Notice(severity=Severity.WARNING, message=text, code="mt.order"))
    return tuple(n for n in notices if n is not None)


def _known(image: Acquisition, fields: Sequence[str]) -> bool:
    return all(math.isfinite(getattr(image, field)) for field in fields)


def _unknown(
    first: Acquisition,
    second: Acquisition,
    name: str,
    other: str,
    *,
    must_agree: Sequence[str] = ("repetition_time_s", "flip_angle_deg", "echo_time_s"),
) -> Notice | None:
    """Say in one sentence what is not known of either image, so that it cannot be compared."""
    groups = {_WORDS[field]: (field,) for field in must_agree} | {"scaling": _SCALING}
    open_ones = [
        words for words, fields in groups.items() if not (_known(first, fields) and _known(second, fields))
    ]
    if not open_ones:
        return None
    verb = "is" if len(open_ones) == 1 else "are"
    text = f"{_listed(open_ones)} of {name} or {other} {verb} not known: not checked that they agree"
    return Notice(severity=Severity.WARNING, message=text, code="mt.unknown")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _alike(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=_TOLERANCE)


def _compare(name: str, first: float, second: float, unit: str, harm: str) -> Notice | None:
    if not (math.isfinite(first) and math.isfinite(second)) or _alike(first, second):
        return None
    text = f"{name} differs: {first:g} and {second:g} {unit}; {harm}"
    return Notice(severity=Severity.ERROR, message=text, code="mt.mismatch")


def _compare_scale(first: Acquisition, second: Acquisition, name: str, other: str) -> Notice | None:
    """Stored numbers mean one thing only if slope and intercept agree, or were applied."""
    slopes = first.scale_slope, second.scale_slope
    shifts = first.scale_intercept, second.scale_intercept
    if not all(math.isfinite(v) for v in (*slopes, *shifts)):
        return None
    if _alike(*slopes) and math.isclose(*shifts, abs_tol=1e-6):
        return None
    text = (
        f"{name} and {other} are stored with different scaling (slope {slopes[0]:g} and {slopes[1]:g}, "
        f"intercept {shifts[0]:g} and {shifts[1]:g}); make sure that it was applied to both"
    )
    return Notice(severity=Severity.WARNING, message=text, code="mt.scaling")
