"""Samples and fitted curve of one sphere, for the figure of the fits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cordqa.figures import Curve
from cordqa.models.relaxometry.signal import (
    inversion_recovery_signal,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)
from cordqa.phantom.series import Kind
from cordqa.workflow.phantom_records import AnalysedPlate

__all__ = ["fitted_curve"]

Array = NDArray[np.float64]
_POINTS = 60


def fitted_curve(plate: AnalysedPlate, index: int, *, factor: float) -> Curve:
    """Return what was measured in one sphere and what was fitted to it.

    Parameters
    ----------
    plate : AnalysedPlate
    index : int
        Sphere, in the order of the plate.
    factor : float
        From the setting (seconds or degrees) to the axis.
    """
    fitted = plate.found.fitted
    row, verdict = plate.rows[index], plate.verdicts[index]
    setting = fitted.setting
    samples = np.real(fitted.signal[index])
    if np.iscomplexobj(fitted.signal):
        # The fit turned the complex samples to signed ones; the sign is that of its curve.
        samples = np.abs(fitted.signal[index]) * np.where(fitted.fit.predicted[index] < 0, -1.0, 1.0)
    order = np.argsort(setting, kind="stable")
    x, y = _line(plate, index)
    return Curve(
        label=row.region,
        x=setting[order] * factor,
        y=samples[order],
        used=fitted.fit.used[index][order],
        fit_x=x * factor,
        fit_y=y,
        value=row.value,
        uncertainty=(row.high - row.low) / 2,
        unit=row.unit,
        status=verdict.status,
        name=row.region,
        note="; ".join(row.flags[:2]),
    )


def _line(plate: AnalysedPlate, index: int) -> tuple[Array, Array]:
    """Evaluate the fitted equation between the samples, or join the fit where TR differs between them."""
    fitted = plate.found.fitted
    parameters = {name: float(values[index]) for name, values in fitted.fit.parameters.items()}
    if math.isnan(parameters[fitted.fit.main]):
        return np.array([]), np.array([])
    setting, images = fitted.setting, plate.series.images
    low, high = float(setting.min()), float(setting.max())
    if fitted.kind is Kind.DIFFUSION:
        x = np.linspace(0.0, high, _POINTS)
        return x, parameters["m0"] * np.exp(-1e-6 * x * parameters[fitted.fit.main])
    if fitted.kind is Kind.MULTI_ECHO:
        if "refocusing_angle_deg" in parameters:
            return _through_predictions(setting, fitted.fit.predicted[index])
        x = np.linspace(0.0, high, _POINTS)
        return x, spin_echo_signal(x, parameters["t2_s"], m0=parameters["m0"])
    repetition = images.values("repetition_time_s")
    if fitted.kind is Kind.VARIABLE_FLIP_ANGLE:
        x = np.linspace(min(low, 1.0), high, _POINTS)
        b1 = 1.0 if fitted.b1 is None else float(fitted.b1[index])
        curve = spoiled_gradient_echo_signal(
            x, parameters["t1_s"], float(repetition[0]), m0=parameters["m0"], b1=b1
        )
        return x, curve
    if np.ptp(repetition) > 1e-6 * repetition.max():
        # With a TR for each TI there is no curve between the samples.
        return _through_predictions(setting, fitted.fit.predicted[index])
    x = np.geomspace(max(low, 1e-3), high, _POINTS)
    signal = inversion_recovery_signal(
        x + parameters["inversion_time_offset_s"],
        parameters["t1_s"],
        m0=parameters["m0"],
        inversion_factor=parameters["inversion_factor"],
        repetition_time_s=float(repetition[0]) if np.isfinite(repetition[0]) else math.inf,
        echo_time_s=float(images.values("echo_time_s")[0])
        if np.isfinite(images.values("echo_time_s")[0])
        else 0.0,
    )
    return x, signal if plate.series.signed else np.abs(signal)


def _through_predictions(setting: Array, predicted: Array) -> tuple[Array, Array]:
    order = np.argsort(setting, kind="stable")
    return setting[order], predicted[order]
