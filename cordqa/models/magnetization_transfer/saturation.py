"""MTsat and T1 from MT-weighted, PD-weighted and T1-weighted spoiled gradient echoes.

Algebra of Helms et al. 2008 with the erratum of 2010: for small angles the signal is
A a R1 TR / (a^2/2 + R1 TR), which two images without saturation solve for R1 and A, and a third
one with saturation for the loss d per TR.  R1, A and the angle of the third image are either all
nominal (none, helms2021) or all actual (lipp2023).  B1-corrected R1 and A with a nominal angle
would bias MTsat by up to tens of percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordqa.errors import InputError
from cordqa.models.magnetization_transfer.outcomes import (
    NO_B1,
    NO_NUMBER,
    NO_SIGNAL,
    NO_SOLUTION,
    OUTSIDE_T1,
    judge,
)
from cordqa.models.maps import FittedMaps

__all__ = ["B1Model", "PulseOrder", "SpoiledEcho", "fit_mt_saturation", "mt_saturation_signal"]

Array = NDArray[np.float64]
B1Model = Literal["none", "helms2021", "lipp2023"]
#: Where the saturation pulse stands: the published algebra has it after the readout.
PulseOrder = Literal["after", "before"]
#: C in (1 - C) / (1 - C B1).  0.4 was calibrated for one pulse in the brain; other pulses differ.
HELMS_C = 0.4
#: Range of T1 in seconds, as in the fit of variable flip angles: beyond it, noise has no T1.
_T1_RANGE_S = (0.005, 10.0)
#: Signal differences count as none below this share of the larger term: rounding, not tissue.
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoiledEcho:
    """Settings of one spoiled gradient echo."""

    repetition_time_s: float
    flip_angle_deg: float


def mt_saturation_signal(
    amplitude: ArrayLike, t1_s: ArrayLike, saturation: ArrayLike, echo: SpoiledEcho, *, b1: ArrayLike = 1.0
) -> Array:
    """Exact steady-state signal of a spoiled gradient echo that loses ``saturation`` per TR.

    The saturation acts just before the excitation pulse:
    ``A sin(a) (1 - d) (1 - E1) / (1 - (1 - d) cos(a) E1)`` with a = b1 x nominal angle.

    Parameters
    ----------
    amplitude, t1_s, saturation : array_like
        Fully relaxed signal, T1, and d as a fraction.
    echo : SpoiledEcho
    b1 : array_like
        Actual over nominal flip angle.
    """
    _check_echo(echo, "sequence")
    angle = np.radians(echo.flip_angle_deg) * np.asarray(b1, dtype=float)
    decay = np.exp(-echo.repetition_time_s / np.asarray(t1_s, dtype=float))
    kept = 1.0 - np.asarray(saturation, dtype=float)
    signal = np.asarray(amplitude, dtype=float) * np.sin(angle) * kept * (1.0 - decay)
    return np.asarray(signal / (1.0 - kept * np.cos(angle) * decay))


def fit_mt_saturation(
    mt_weighted: ArrayLike,
    pd_weighted: ArrayLike,
    t1_weighted: ArrayLike,
    *,
    mt_echo: SpoiledEcho,
    pd_echo: SpoiledEcho,
    t1_echo: SpoiledEcho,
    b1: ArrayLike | None = None,
    b1_model: B1Model = "none",
    helms_c: float = HELMS_C,
    lipp_c: float | None = None,
    pulse_order: PulseOrder = "after",
) -> FittedMaps:
    """MTsat and T1 from three images.

    Parameters
    ----------
    mt_weighted, pd_weighted, t1_weighted : array_like, same shape
        Registered images of one scaling and echo time.
    mt_echo, pd_echo, t1_echo : SpoiledEcho
        TR in seconds, flip angle in degrees, each of its own image: a TR that is assumed rather
        than read makes MTsat wrong by tens of percent.
    b1 : array_like, optional
        Actual over nominal flip angle, in the shape of the images or broadcast to it.
    b1_model : {'none', 'helms2021', 'lipp2023'}
        ``none``: MTsat with nominal angles, which cancels much of B1 but not what it does to the
        saturation pulse.  ``helms2021``: that, times (1 - C) / (1 - C B1).  ``lipp2023``: MTsat with
        actual angles and no small-angle approximation, over 1 + C (B1 - 1), calibrated on the user's
        own protocol.  T1 is corrected for B1 wherever ``b1`` is given.
    helms_c : float
        C of ``helms2021``; depends on the saturation pulse.
    lipp_c : float
        C of ``lipp2023``: relative change of MTsat per unit of B1; there is no general value.
    pulse_order : {'after', 'before'}
        ``after``: the published algebra, which is of first order in d, a^2 and R1 TR.  With
        x = a^2/2 + R1 TR, it gives ``d' = d (1 - x/2)`` where the saturation follows the readout, and
        ``d' = d (1 + x/2) / (1 - d)`` where it comes just before it and is seen in the signal a second
        time.  ``before`` solves that for d, which is ``d' / (1 + d' + x/2)`` (terms with the actual B1
        where it is known).

    Returns
    -------
    FittedMaps
        MTsat (%), T1 (ms) and M0 (signal amplitude; corrected for B1 like T1).  NaN with a reason
        where a signal is not positive, where signals give no positive R1 or amplitude, or where B1
        is missing.  T1 and M0 are NaN also where T1 is outside 5 ms to 10 s: M0 grows with T1 there, and
        MTsat, which takes their ratio, stays.

    Raises
    ------
    InputError
        If shapes or settings cannot be used, or a B1 model has no B1 map.

    References
    ----------
    .. [1] Helms et al., Magn Reson Med 2008, doi:10.1002/mrm.21732; erratum 2010, doi:10.1002/mrm.22607
    .. [2] Helms et al., 2021, doi:10.48550/arXiv.2104.14878
    .. [3] Lipp et al., Magn Reson Med 2023, doi:10.1002/mrm.29524
    """
    s_mt, s_pd, s_t1 = (np.asarray(s, dtype=float) for s in (mt_weighted, pd_weighted, t1_weighted))
    _check(s_mt, s_pd, s_t1, mt_echo, pd_echo, t1_echo)
    field = _check_b1(b1, b1_model, s_mt.shape, helms_c, lipp_c)
    if pulse_order not in get_args(PulseOrder):
        raise InputError("unknown pulse order", found=str(pulse_order), expected="after or before")
    known = np.isfinite(s_mt) & np.isfinite(s_pd) & np.isfinite(s_t1)
    usable = known & (s_mt > 0) & (s_pd > 0) & (s_t1 > 0)
    images = [np.where(usable, s, 1.0) for s in (s_mt, s_pd, s_t1)]
    has_b1 = np.isfinite(field) & (field > 0) & (field < 5)
    safe = np.where(has_b1, field, 1.0)
    echoes, actual = (mt_echo, pd_echo, t1_echo), b1_model == "lipp2023"
    saturation, t1_s, m0, solved = _solve(images, echoes, safe, actual=actual, before=pulse_order == "before")
    with np.errstate(invalid="ignore", over="ignore"):
        percent = 100.0 * saturation * _b1_factor(safe, b1_model, helms_c, lipp_c)
    failures = [(~known, NO_NUMBER), (~usable, NO_SIGNAL), (~solved, NO_SOLUTION), (~has_b1, NO_B1)]
    outside = [*failures, (~((t1_s >= _T1_RANGE_S[0]) & (t1_s <= _T1_RANGE_S[1])), OUTSIDE_T1)]
    judged = {
        name: judge(values, failures if name == "MTsat" else outside)
        for name, values in (("MTsat", percent), ("T1", 1000.0 * t1_s), ("M0", m0))
    }
    return FittedMaps(
        model=f"dual-flip-angle algebra for small angles, B1 model {b1_model}, saturation {pulse_order} the "
        "readout",
        values={name: values for name, (values, _) in judged.items()},
        units={"MTsat": "%", "T1": "ms", "M0": "signal"},
        reasons=judged["MTsat"][1],
        own_reasons={name: judged[name][1] for name in ("T1", "M0")},
    )


def _solve(
    images: list[Array], echoes: tuple[SpoiledEcho, ...], b1: Array, *, actual: bool, before: bool
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Saturation as a fraction, T1 (s) and M0 of the MT-, PD- and T1-weighted image, and where they exist.

    With ``actual`` angles, or nominal ones: then MTsat is still that over B1 squared.
    """
    mt, pd, t1 = images
    am, ap, at = (_angle(echo, b1, actual=actual) for echo in echoes)
    rate, amplitude = _rate_and_amplitude(pd, t1, (ap, echoes[1]), (at, echoes[2]))
    solved = np.isfinite(rate) & (rate > 0) & np.isfinite(amplitude) & (amplitude > 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        recovery = rate * echoes[0].repetition_time_s
        saturation = (amplitude * am / mt - 1.0) * recovery - am**2 / 2.0
        if before:
            # Nominal angles give all three terms over B1 squared.
            size = 1.0 if actual else b1**2
            saturation = saturation / (1.0 + size * (saturation + (am**2 / 2.0 + recovery) / 2.0))
        t1_s = 1.0 / (rate if actual else rate * b1**2)
        # With nominal angles the algebra finds M0 times B1.
        m0 = amplitude if actual else amplitude / b1
    return saturation, t1_s, m0, solved


def _angle(echo: SpoiledEcho, b1: Array, *, actual: bool) -> Array:
    """Nominal angle; or the actual one as 2 tan(a/2), with which the algebra holds for any angle."""
    nominal = math.radians(echo.flip_angle_deg)
    return 2.0 * np.tan(nominal * b1 / 2.0) if actual else np.full(b1.shape, nominal)


def _rate_and_amplitude(
    pd: Array, t1: Array, pd_at: tuple[Array, SpoiledEcho], t1_at: tuple[Array, SpoiledEcho]
) -> tuple[Array, Array]:
    """R1 (1/s) and amplitude; NaN where the equations have no solution."""
    (ap, pd_echo), (at, t1_echo) = pd_at, t1_at
    tp, tt = pd_echo.repetition_time_s, t1_echo.repetition_time_s
    upper, lower = t1 * at / tt - pd * ap / tp, pd / ap - t1 / at
    scale = pd / ap + t1 / at
    rate = np.full(pd.shape, np.nan)
    np.divide(0.5 * upper, lower, out=rate, where=np.abs(lower) > _NOTHING * scale)
    below = t1 * tp * at - pd * tt * ap
    amplitude = np.full(pd.shape, np.nan)
    enough = np.abs(below) > _NOTHING * (np.abs(t1 * tp * at) + np.abs(pd * tt * ap))
    np.divide(pd * t1 * (tp * at / ap - tt * ap / at), below, out=amplitude, where=enough)
    return rate, amplitude


def _b1_factor(b1: Array, model: B1Model, helms_c: float, lipp_c: float | None) -> Array:
    if model == "helms2021":
        return np.asarray((1.0 - helms_c) / (1.0 - helms_c * b1))
    if model == "lipp2023" and lipp_c is not None:
        return np.asarray(1.0 / (1.0 + lipp_c * (b1 - 1.0)))
    return np.ones_like(b1)


def _check(
    mt: Array, pd: Array, t1: Array, mt_echo: SpoiledEcho, pd_echo: SpoiledEcho, t1_echo: SpoiledEcho
) -> None:
    if not mt.shape == pd.shape == t1.shape:
        raise InputError("the three images differ in shape", found=f"{mt.shape}, {pd.shape}, {t1.shape}")
    for echo, name in ((mt_echo, "MT-weighted"), (pd_echo, "PD-weighted"), (t1_echo, "T1-weighted")):
        _check_echo(echo, f"{name} image")
    if (
        pd_echo.flip_angle_deg == t1_echo.flip_angle_deg
        and pd_echo.repetition_time_s == t1_echo.repetition_time_s
    ):
        raise InputError(
            "PD- and T1-weighted images have the same settings, so T1 cannot be solved for",
            found=f"TR {pd_echo.repetition_time_s:g} s, {pd_echo.flip_angle_deg:g} deg",
            todo="check which image is which",
        )


def _check_echo(echo: SpoiledEcho, where: str) -> None:
    if not 0 < echo.repetition_time_s <= 1:
        raise InputError(
            "the repetition time must be in seconds, above 0 and at most 1",
            where=where,
            found=f"{echo.repetition_time_s:g}",
            todo="divide by 1000 if it is in milliseconds",
        )
    if not 0 < echo.flip_angle_deg <= 90:
        raise InputError(
            "the flip angle must be above 0 and at most 90 degrees",
            where=where,
            found=f"{echo.flip_angle_deg:g}",
        )


def _check_b1(
    b1: ArrayLike | None, model: str, shape: tuple[int, ...], helms_c: float, lipp_c: float | None
) -> Array:
    """B1 in the shape of the images; 1 where none is given and none is needed."""
    if model not in get_args(B1Model):
        raise InputError("unknown B1 model", found=model, expected=", ".join(get_args(B1Model)))
    if model != "none" and b1 is None:
        raise InputError(f"the B1 model {model} needs a B1 map")
    if model == "lipp2023" and (lipp_c is None or not math.isfinite(lipp_c)):
        raise InputError("the B1 model lipp2023 needs the constant C of your own protocol's calibration")
    if not 0 <= helms_c < 1:
        raise InputError("C must lie from 0 to below 1", found=f"{helms_c:g}")
    field = np.asarray(1.0 if b1 is None else b1, dtype=float)
    try:
        field = np.broadcast_to(field, shape)
    except ValueError as error:
        raise InputError(
            "the B1 map does not fit the images", found=f"{field.shape}", expected=f"{shape}"
        ) from error
    if field.size and np.isfinite(field).any() and np.nanmedian(field) > 5:
        raise InputError(
            "B1 must be actual over nominal angle, about 1",
            found=f"median {np.nanmedian(field):g}",
            todo="divide by 100 if it is in percent",
        )
    return field
