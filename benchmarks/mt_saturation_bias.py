"""Bias of MTsat over T1, saturation and B1, with each B1 law used consistently, and of spoiling in T1.

Run: python benchmarks/mt_saturation_bias.py

Signals are made pulse by pulse, with the saturation after the readout (as the algebra has it) or just
before it, and a saturation that follows the law of the model; the fit is told where the pulse stands, or
not.  T1 of flip angles is that of phase graphs with RF spoiling, before and after its correction, also
where T2 is not the one that was assumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, fit_mt_saturation
from cordqa.models.relaxometry.spoiling import make_spoiling_correction, rf_spoiled_signal
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

PROTOCOLS = {
    "TR 35/35/15 ms, 9/9/15 deg": ((0.035, 9.0), (0.035, 9.0), (0.015, 15.0)),
    "TR 57/57/15 ms, 9/9/15 deg": ((0.057, 9.0), (0.057, 9.0), (0.015, 15.0)),
}
LAWS = {
    "none": ("B1^2", lambda b1: b1**2, {}),
    "helms2021": ("B1^2 (1 - .4 B1) / .6", lambda b1: b1**2 * (1 - 0.4 * b1) / 0.6, {}),
    "lipp2023": ("1 + 1.2 (B1 - 1)", lambda b1: 1 + 1.2 * (b1 - 1), {"lipp_c": 1.2}),
}
SPOILING = (((4.0, 24.0), 0.0164, 50.0), ((6.0, 21.0), 0.025, 50.0), ((3.0, 15.0), 0.006, 117.0))


def train(t1: np.ndarray, lost: np.ndarray, b1: np.ndarray, echo: SpoiledEcho, *, before: bool) -> np.ndarray:
    """Steady-state signal, pulse by pulse."""
    angle, mz = np.radians(echo.flip_angle_deg) * b1, np.ones_like(t1)
    for _ in range(1500):
        mz = mz * (1 - lost) if before else mz
        signal = mz * np.sin(angle)
        mz = mz * np.cos(angle) * (1.0 if before else 1 - lost)
        mz = 1 - (1 - mz) * np.exp(-echo.repetition_time_s / t1)
    return signal


def saturation() -> None:
    """Print the range of the bias of MTsat and T1."""
    grid = np.meshgrid(np.linspace(0.8, 2, 7), np.linspace(0.01, 0.035, 6), np.linspace(0.7, 1.3, 7))
    t1, truth, b1 = (one.ravel() for one in grid)
    print("MTsat, T1 0.8-2 s, MTsat 1-3.5 %, B1 0.7-1.3: smallest and largest bias in percent")
    for name, settings in PROTOCOLS.items():
        echoes = [SpoiledEcho(repetition_time_s=tr, flip_angle_deg=fa) for tr, fa in settings]
        for before, told in ((False, "after"), (True, "after"), (True, "before")):
            for model, (law, how, options) in LAWS.items():
                lost = (truth * how(b1), 0 * truth, 0 * truth)
                images = [train(t1, d, b1, echo, before=before) for d, echo in zip(lost, echoes, strict=True)]
                fit = fit_mt_saturation(
                    *images,
                    mt_echo=echoes[0],
                    pd_echo=echoes[1],
                    t1_echo=echoes[2],
                    b1=b1,
                    b1_model=model,  # type: ignore[arg-type]
                    pulse_order=told,  # type: ignore[arg-type]
                    **options,
                )
                bias = 100 * (fit.values["MTsat"] / (100 * truth) - 1)
                t1_bias = 100 * (fit.values["T1"] / (1000 * t1) - 1)
                place = "before the readout" if before else "after the readout "
                print(
                    f"{name}  {place} fitted as {told:6s} {model:9s} law {law:22s} MTsat {bias.min():+6.2f} {bias.max():+6.2f}"
                    f"   T1 {t1_bias.min():+5.2f} {t1_bias.max():+5.2f}"
                )


def spoiling() -> None:
    """Print the error of T1 before and after the correction of spoiling."""
    t1 = np.array([0.5, 0.9, 1.4, 2.5])
    print("\nT1 of 0.5, 0.9, 1.4, 2.5 s from two flip angles, B1 0.93: error in percent")
    for angles, tr, increment in SPOILING:
        correction = make_spoiling_correction(angles, tr, increment_deg=increment, t2_s=0.065)
        for t2 in (0.04, 0.065, 0.1):
            signal = rf_spoiled_signal(
                np.array(angles), t1[:, None], t2, tr, increment_deg=increment, b1=0.93
            )
            seen = fit_variable_flip_angle(signal, angles, tr, b1=0.93).parameters["t1_s"]
            shown = [
                " ".join(f"{100 * v:+6.2f}" for v in values / t1 - 1)
                for values in (seen, seen * correction.factor(seen, 0.93))
            ]
            print(
                f"{angles[0]:g}/{angles[1]:g} deg, TR {1000 * tr:g} ms, {increment:g} deg, T2 {1000 * t2:3.0f} ms"
                f" (65 assumed): before {shown[0]}   after {shown[1]}"
            )


if __name__ == "__main__":
    saturation()
    spoiling()
