"""Region signals to relaxation times: which samples, which noise, which model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError, InputError
from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.multi_echo import choose_slice_profile, fit_multi_echo
from cordqa.models.relaxometry.noise import correct_noise_floor, corrected_signal_sd, estimate_noise_floor
from cordqa.models.relaxometry.pooled_inversion import (
    fit_pooled_inversion_recovery,
    is_pooled,
    regions_apart,
)
from cordqa.models.relaxometry.protocol_range import (
    InversionKnowledge,
    ProtocolRange,
    inversion_recovery_range,
    multi_echo_range,
    variable_flip_angle_range,
)
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle
from cordqa.phantom.roi import RegionSignals
from cordqa.phantom.series import MINIMUM_IMAGES, QUANTITY, Kind, Series
from cordqa.records import ImageSet

__all__ = [
    "FitSettings",
    "RegionFit",
    "check_series",
    "fit_regions",
    "order_fit",
    "protocol_range",
    "refit_phase_graph",
    "stimulated_echo_deficit",
]

Array = NDArray[np.float64]
Signal = NDArray[np.float64] | NDArray[np.complex128]

#: Decay up to the first echo (TE / T2) below which an error of T2 hardly moves its prediction.
_EARLY = 0.3
#: Inversion times from which the inversion factor is fitted rather than assumed.
_FREE_INVERSION = 4

_PARAMETER = {
    Kind.INVERSION_RECOVERY: ("inversion_time_s", "inversion time", "Inversion time (ms)"),
    Kind.VARIABLE_FLIP_ANGLE: ("flip_angle_deg", "flip angle", "Flip angle (degrees)"),
    Kind.MULTI_ECHO: ("echo_time_s", "echo time", "Echo time (ms)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Choices of the fit.

    Attributes
    ----------
    t2_model : {'exponential', 'epg'}
        Model of the multi-echo decay; ``epg`` fits the refocusing angle as well, over a slice
        profile that the curves themselves choose.
    """

    t2_model: Literal["exponential", "epg"] = "exponential"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFit:
    """Fit of every region of one plate.

    Attributes
    ----------
    kind : Kind
    fit : RelaxometryFit
    setting : ndarray, shape (n_images,)
        Inversion times (s), echo times (s) or flip angles (degrees).
    signal : ndarray, shape (n_regions, n_images)
        What was fitted: signed, complex turned to signed, or magnitude with the floor removed.
    signals : RegionSignals
    b1 : ndarray, shape (n_regions,), or None
        Relative transmit field that was used.
    """

    kind: Kind
    fit: RelaxometryFit
    setting: Array
    signal: Signal
    signals: RegionSignals
    b1: Array | None = None

    @property
    def values_ms(self) -> Array:
        """Relaxation time of each region in ms; NaN where there is none."""
        return np.asarray(self.fit.parameters[self.fit.main] * 1000.0)

    @property
    def quantity(self) -> str:
        """T1 or T2."""
        return QUANTITY[self.kind]


def check_series(series: Series, kind: Kind) -> None:
    """Refuse a series whose header cannot support its fit.

    Raises
    ------
    FitError
        If a parameter is missing, or there are too few different settings.
    """
    images = series.images
    name, words, _ = _PARAMETER[kind]
    setting = images.values(name)
    if not np.isfinite(setting).all():
        raise FitError(
            f"the {words} is missing from {np.count_nonzero(~np.isfinite(setting))} of {setting.size} images",
            where=images.label,
            todo="export the images again with all header fields",
        )
    distinct = np.unique(np.round(setting, 6)).size
    if distinct < MINIMUM_IMAGES[kind]:
        raise FitError(
            f"too few {words}s for a fit of {QUANTITY[kind]}",
            where=images.label,
            found=str(distinct),
            expected=f"at least {MINIMUM_IMAGES[kind]}",
            todo="add the missing images to the folder",
        )
    repetition = images.values("repetition_time_s")
    if kind is Kind.VARIABLE_FLIP_ANGLE and np.unique(np.round(repetition, 6)).size != 1:
        raise FitError(
            "the repetition time is missing or differs between flip angles",
            where=images.label,
            found=", ".join(f"{value * 1000:g} ms" for value in np.unique(repetition)),
            expected="one repetition time",
        )


def fit_regions(
    series: Series,
    kind: Kind,
    signals: RegionSignals,
    *,
    floor_mean_square: Array | None,
    b1: Array | None = None,
) -> RegionFit:
    """Fit the curve of every region; echo trains as exponentials.

    Parameters
    ----------
    series : Series
    kind : Kind
    signals : RegionSignals
        From :func:`cordqa.phantom.roi.measure_regions`, of ``series.data``.
    floor_mean_square : ndarray, shape (n_images,), or None
        Mean square of the background, where it was measured.
    b1 : ndarray, shape (n_regions,), optional
        Actual over nominal flip angle.
    """
    check_series(series, kind)
    name, _, _ = _PARAMETER[kind]
    setting = series.images.values(name)
    signal, deviation = _signal(series, signals, floor_mean_square)
    if kind is Kind.MULTI_ECHO and not series.signed:
        # Squares are exact over a floor; the fit adds the floor rather than taking it out.
        signal = np.sqrt(signals.mean_square)
        deviation = signals.noise_of_mean
    try:
        if kind is Kind.INVERSION_RECOVERY:
            fit = _fit_inversion_recovery(series, setting, signal, deviation, signals)
        elif kind is Kind.VARIABLE_FLIP_ANGLE:
            fit = _fit_variable_flip_angle(series, setting, signal, deviation, signals, b1=b1)
        else:
            noise_floor = _echo_floor(series, signal, floor_mean_square)
            fit = fit_multi_echo(
                np.abs(signal), setting, noise_floor=noise_floor, noise_sd=deviation, valid=signals.valid
            )
    except InputError as error:
        raise FitError(
            error.what, where=series.images.label, found=error.found, expected=error.expected, todo=error.todo
        ) from error
    return RegionFit(kind=kind, fit=fit, setting=setting, signal=signal, signals=signals, b1=b1)


def order_fit(fitted: RegionFit, order: NDArray[np.intp]) -> RegionFit:
    """Return the same fit with its regions in another order."""
    fit, signals = fitted.fit, fitted.signals
    ordered = replace(
        fit,
        parameters={name: values[order] for name, values in fit.parameters.items()},
        standard_errors={name: values[order] for name, values in fit.standard_errors.items()},
        **{name: getattr(fit, name)[order] for name in _BY_REGION},
    )
    measured = replace(signals, **{name: getattr(signals, name)[order] for name in _SIGNALS_BY_REGION})
    b1 = None if fitted.b1 is None else fitted.b1[order]
    return replace(fitted, fit=ordered, signal=fitted.signal[order], signals=measured, b1=b1)


_BY_REGION = (
    "degrees_of_freedom",
    "interval_degrees_of_freedom",
    "residual_sd",
    "n_used",
    "reason",
    "predicted",
    "used",
)
_SIGNALS_BY_REGION = ("mean", "mean_square", "n_pixels", "coverage", "clipped", "valid")


def protocol_range(series: Series, kind: Kind, fit: RelaxometryFit | None = None) -> ProtocolRange:
    """Return the relaxation times that the series can determine.

    Parameters
    ----------
    series : Series
    kind : Kind
    fit : RelaxometryFit, optional
        Where an inversion recovery pooled its regions, each region profits from what the others tell
        of the inversion.
    """
    images = series.images
    setting = images.values(_PARAMETER[kind][0])
    if kind is Kind.INVERSION_RECOVERY:
        return inversion_recovery_range(
            setting,
            repetition_times_s=_repetition_times(images),
            echo_time_s=_echo_time(images),
            inversion_angle_deg=_inversion_angle(setting),
            pooled=None if fit is None else _inversion_knowledge(fit),
        )
    if kind is Kind.VARIABLE_FLIP_ANGLE:
        return variable_flip_angle_range(setting, float(images.values("repetition_time_s")[0]))
    return multi_echo_range(setting)


def _inversion_knowledge(fit: RelaxometryFit) -> InversionKnowledge | None:
    """Return what a pooled fit tells of the inversion in any one region; None where it is not pooled."""
    if not is_pooled(fit):
        return None
    factor, offset = "inversion_factor", "inversion_time_offset_s"
    # A region that hardly knows its factor knows what the others tell it; one that stands apart, less.
    typical = ~regions_apart(fit)
    return InversionKnowledge(
        factor=float(np.nanmedian(fit.parameters[factor])),
        factor_sd=float(np.nanmax(fit.standard_errors[factor][typical])),
        offset_s=float(np.nanmedian(fit.parameters[offset])),
        offset_sd_s=float(np.nanmedian(fit.standard_errors[offset])),
    )


def _signal(series: Series, signals: RegionSignals, floor: Array | None) -> tuple[Signal, Array]:
    """Return what is fitted and the standard deviation of each sample by pixel noise."""
    if series.signed:
        return signals.mean, signals.noise_of_mean
    if floor is None:
        # The scanner zeroed the background: nothing tells the floor, and the mean is what is left.
        return np.abs(signals.mean), signals.noise_of_mean
    corrected = correct_noise_floor(signals.mean_square, floor)
    # Air tells the noise; the scatter inside the spheres tells ringing and shading as well, and a
    # sample cannot be trusted beyond either.
    by_noise = corrected_signal_sd(corrected, floor, signals.n_pixels[:, None])
    return corrected, np.maximum(by_noise, signals.noise_of_mean)


def _fit_inversion_recovery(
    series: Series, setting: Array, signal: Signal, deviation: Array, signals: RegionSignals
) -> RelaxometryFit:
    images = series.images
    return fit_pooled_inversion_recovery(
        signal,
        setting,
        repetition_times_s=_repetition_times(images),
        echo_time_s=_echo_time(images),
        signed=series.signed,
        noise_sd=deviation,
        valid=signals.valid,
    )


def _fit_variable_flip_angle(
    series: Series,
    setting: Array,
    signal: Signal,
    deviation: Array,
    signals: RegionSignals,
    *,
    b1: Array | None,
) -> RelaxometryFit:
    return fit_variable_flip_angle(
        np.abs(signal),
        setting,
        float(series.images.values("repetition_time_s")[0]),
        b1=1.0 if b1 is None else b1,
        noise_sd=deviation,
        valid=signals.valid,
    )


def _echo_floor(series: Series, signal: Signal, floor_mean_square: Array | None) -> Array:
    """Return the magnitude without signal at every echo: measured in air, or in decayed echo trains."""
    n = signal.shape[-1]
    if series.signed:
        return np.zeros(n)
    if floor_mean_square is not None:
        return np.sqrt(floor_mean_square)
    # The scanner zeroed the background; the late echoes of a short T2 show the floor as well.
    estimate = estimate_noise_floor(np.abs(signal))
    return np.full(n, estimate if np.isfinite(estimate) else 0.0)


def refit_phase_graph(
    fitted: RegionFit, series: Series, floor_mean_square: Array | None, t1_s: Array
) -> RegionFit:
    """Fit the echo trains again with the extended phase graph.

    Parameters
    ----------
    fitted : RegionFit
        Exponential fit of the same signals.
    t1_s : ndarray, shape (n_regions,)
        T1 of each region: stimulated echoes decay with it while they are stored.  NaN gives no
        value.  T2 changes little with it as long as T1 is much longer than the echo train.

    Notes
    -----
    One slice profile serves all regions; it is the one that leaves the least residual.
    """
    signal, setting, valid = np.abs(fitted.signal), fitted.setting, fitted.signals.valid
    floor = _echo_floor(series, signal, floor_mean_square)
    known = np.isfinite(t1_s)
    profile = choose_slice_profile(
        signal[known], setting, t1_s=t1_s[known], noise_floor=floor, valid=valid[known]
    )
    fit = fit_multi_echo(
        signal,
        setting,
        noise_floor=floor,
        model="epg",
        t1_s=t1_s,
        slice_profile=profile,
        noise_sd=fitted.signals.noise_of_mean,
        valid=valid,
    )
    return replace(fitted, fit=fit)


def stimulated_echo_deficit(fitted: RegionFit) -> float:
    """Return how far the first echo lies below the exponential through the later ones, as a fraction.

    The first echo alone has no stimulated part.  The median is over regions whose signal at the
    first echo is clear; NaN where the model is not the exponential or nothing is clear.
    """
    if fitted.kind is not Kind.MULTI_ECHO or "refocusing_angle_deg" in fitted.fit.parameters:
        return float("nan")
    first = int(np.argmin(fitted.setting))
    signal, predicted = np.abs(fitted.signal[:, first]), fitted.fit.predicted[:, first]
    decay = fitted.setting[first] / fitted.fit.parameters["t2_s"]
    with np.errstate(invalid="ignore"):
        clear = fitted.fit.ok & fitted.signals.valid[:, first] & (decay < _EARLY) & (predicted > 0)
    return float(np.median(1 - signal[clear] / predicted[clear])) if clear.any() else float("nan")


def _repetition_times(images: ImageSet) -> Array | None:
    repetition = images.values("repetition_time_s")
    return repetition if np.isfinite(repetition).all() else None


def _echo_time(images: ImageSet) -> float:
    echo = images.values("echo_time_s")
    return float(echo[0]) if np.isfinite(echo[0]) else 0.0


def _inversion_angle(setting: Array) -> float | None:
    """Fit the inversion where the samples allow it, and assume a perfect one where not."""
    return None if np.unique(np.round(setting, 6)).size >= _FREE_INVERSION else 180.0
