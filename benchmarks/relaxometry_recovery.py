"""Bias and coverage of the relaxometry fits on simulated spheres with known truth.

Run: python benchmarks/relaxometry_recovery.py [--repeats 1000] [--snr 100] [--pixels 40]

Each region is a set of pixels with complex Gaussian noise; SNR is M0 over the noise of one pixel,
except for variable flip angle, where it is the strongest image over the noise.  For magnitudes
the region signal is the root mean square, with the noise floor measured.  A sphere marked "-"
lies outside the range that the protocol determines.

The pooled inversion recovery is simulated one scan of 14 spheres at a time, because its spheres
share what goes wrong: the angle of the inversion, an offset of its time, and the gain of each image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.models.relaxometry.fitting import RelaxometryFit
from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.multi_echo import fit_multi_echo
from cordqa.models.relaxometry.noise import correct_noise_floor, corrected_signal_sd
from cordqa.models.relaxometry.pooled_inversion import fit_pooled_inversion_recovery, is_pooled
from cordqa.models.relaxometry.protocol_range import (
    ProtocolRange,
    inversion_recovery_range,
    multi_echo_range,
    variable_flip_angle_range,
)
from cordqa.models.relaxometry.signal import (
    inversion_recovery_signal,
    multi_echo_spin_echo_signal,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
)
from cordqa.models.relaxometry.variable_flip_angle import fit_variable_flip_angle

# System phantom, batch 1, 20 C (CaliberMRI): T1 and T2 of plate 5 at 1.5 T, T2 of plate 4 at 3 T.
T1_S = (
    np.array([2033, 1489, 1012, 730.8, 514.1, 367.9, 260.1, 184.6, 132.7, 92.7, 65.4, 46.32, 32.45, 22.859])
    / 1e3
)
T2_NI_S = (
    np.array([1669, 1244, 859.3, 628.5, 446.3, 321.2, 227.7, 161.9, 117.1, 81.9, 57.7, 41.0, 28.7, 20.2])
    / 1e3
)
T2_MN_S = (
    np.array(
        [581.3, 403.5, 278.1, 190.94, 133.27, 96.89, 64.07, 46.42, 31.97, 22.56, 15.813, 11.237, 7.911, 5.592]
    )
    / 1e3
)
TI_SHORT = np.array([50, 100, 200, 400, 600, 800]) / 1e3
TR_SHORT = np.array([1000, 1000, 1000, 1260, 1860, 2460]) / 1e3
TI_LONG = np.array([50, 75, 100, 125, 150, 250, 1000, 1500, 2000, 3000]) / 1e3
ANGLES_DEG = np.array([3.0, 5.0, 10.0, 15.0, 20.0, 25.0])
M0 = 1000.0


@dataclass(frozen=True)
class Settings:
    repeats: int
    snr: float
    pixels: int


@dataclass(frozen=True)
class Study:
    name: str
    truth: np.ndarray
    clean: np.ndarray  # (n_spheres, n_images)
    sigma: np.ndarray  # (n_spheres, 1)
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], RelaxometryFit]
    inside: ProtocolRange
    signed: bool = False


def simulate(study: Study, settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return region signals: mean for signed data, mean square for magnitudes."""
    shape = (settings.repeats, *study.clean.shape)
    sigma = np.broadcast_to(study.sigma, study.clean.shape)
    if study.signed:
        return study.clean + sigma / np.sqrt(settings.pixels) * rng.standard_normal(shape), sigma
    square = np.empty(shape)
    for i in range(settings.repeats):
        noise = sigma[..., None] * rng.standard_normal((2, *study.clean.shape, settings.pixels))
        square[i] = ((study.clean[..., None] + noise[0]) ** 2 + noise[1] ** 2).mean(axis=-1)
    return square, sigma


def inversion(
    name: str, ti: np.ndarray, tr: np.ndarray | float, settings: Settings, *, signed: bool, stated: bool
) -> Study:
    clean = inversion_recovery_signal(
        ti, T1_S[:, None], m0=M0, repetition_time_s=tr, echo_time_s=0.012, inversion_angle_deg=168.0
    )

    def fit(data: np.ndarray, sigma: np.ndarray, n: np.ndarray) -> RelaxometryFit:
        if signed:
            signal, sd = data, np.broadcast_to(sigma / np.sqrt(n), data.shape)
        else:
            signal = correct_noise_floor(data, 2 * sigma**2)
            sd = corrected_signal_sd(signal, 2 * sigma**2, n)
        return fit_inversion_recovery(
            signal,
            ti,
            repetition_times_s=tr,
            echo_time_s=0.012,
            signed=signed,
            noise_sd=sd if stated else None,
        )

    inside = inversion_recovery_range(ti, repetition_times_s=tr, echo_time_s=0.012)
    return Study(name, T1_S, clean, np.full((14, 1), M0 / settings.snr), fit, inside, signed)


def flip_angles(settings: Settings) -> Study:
    clean = spoiled_gradient_echo_signal(ANGLES_DEG, T1_S[:, None], 0.015, m0=M0)

    def fit(data: np.ndarray, sigma: np.ndarray, n: np.ndarray) -> RelaxometryFit:
        signal = correct_noise_floor(data, 2 * sigma**2)
        return fit_variable_flip_angle(
            signal, ANGLES_DEG, 0.015, noise_sd=corrected_signal_sd(signal, 2 * sigma**2, n)
        )

    sigma = clean.max(axis=1, keepdims=True) / settings.snr
    return Study(
        "VFA 3-25 deg, TR 15 ms", T1_S, clean, sigma, fit, variable_flip_angle_range(ANGLES_DEG, 0.015)
    )


def echoes(name: str, te: np.ndarray, truth: np.ndarray, settings: Settings, *, stated: bool) -> Study:
    clean = spin_echo_signal(te, truth[:, None], m0=M0)

    def fit(data: np.ndarray, sigma: np.ndarray, n: np.ndarray) -> RelaxometryFit:
        return fit_multi_echo(
            np.sqrt(data), te, noise_floor=np.sqrt(2) * sigma, noise_sd=sigma / np.sqrt(n) if stated else None
        )

    return Study(name, truth, clean, np.full((14, 1), M0 / settings.snr), fit, multi_echo_range(te))


def phase_graph(name: str, te: np.ndarray, settings: Settings) -> Study:
    clean = np.abs(
        multi_echo_spin_echo_signal(
            te.size, te[0], T2_NI_S, 1.25 * T2_NI_S, m0=M0, refocusing_angle_deg=140.0
        )
    )

    def fit(data: np.ndarray, sigma: np.ndarray, n: np.ndarray) -> RelaxometryFit:
        return fit_multi_echo(
            np.sqrt(data),
            te,
            noise_floor=np.sqrt(2) * sigma,
            noise_sd=sigma / np.sqrt(n),
            model="epg",
            t1_s=1.25 * T2_NI_S,
        )

    return Study(name, T2_NI_S, clean, np.full((14, 1), M0 / settings.snr), fit, multi_echo_range(te))


def report(study: Study, settings: Settings, rng: np.random.Generator) -> None:
    data, sigma = simulate(study, settings, rng)
    began = time.process_time()
    fit = study.fit(data, sigma, np.array(settings.pixels))
    spent = time.process_time() - began
    value = fit.parameters[fit.main]
    low, high = fit.interval(0.95)
    with np.errstate(invalid="ignore"):
        covered = np.where(fit.ok, (low <= study.truth) & (study.truth <= high), np.nan)
    inside = study.inside.contains(study.truth)
    bias = 100 * (np.nanmean(value, axis=0) / study.truth - 1)
    scatter = 100 * np.nanstd(value, axis=0) / study.truth
    cover = 100 * np.nanmean(covered, axis=0)
    print(f"\n{study.name}   [{spent / data[..., 0].size * 1e6:.0f} us per curve]")
    print(f"  protocol determines {1e3 * study.inside.low_s:.0f} to {1e3 * study.inside.high_s:.0f} ms")
    print("  truth ms   " + "".join(f"{1e3 * t:8.1f}" for t in study.truth))
    print("  bias %     " + "".join(f"{b:8.2f}" for b in bias))
    print("  scatter %  " + "".join(f"{s:8.2f}" for s in scatter))
    print("  coverage % " + "".join(f"{c:8.1f}" for c in cover))
    print("  inside     " + "".join(f"{'yes' if i else '-':>8}" for i in inside))
    print(
        f"  inside the range: largest |bias| {np.abs(bias[inside]).max():.2f} %, "
        f"coverage {cover[inside].mean():.1f} % ({cover[inside].min():.1f} to {cover[inside].max():.1f})"
    )


@dataclass(frozen=True)
class Scan:
    """What one inversion-recovery scan does to all its spheres, and what differs between them."""

    name: str
    ti: np.ndarray = field(default_factory=lambda: TI_SHORT)
    tr: np.ndarray | float = 1.0
    angle_deg: float = 180.0
    offset_s: float = 0.0
    gain: float = 0.0  # standard deviation from image to image, all spheres alike
    spread: float = 0.0  # standard deviation of the inversion factor from sphere to sphere
    added: float = 0.0  # standard deviation of what is added to each sample, over M0
    bad: int | None = None  # this sphere gets a tenth of M0 added to its magnitudes
    signed: bool = False
    stated: bool = True


def simulate_scan(scan: Scan, settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Signal and its standard deviation, both (n_spheres, n_images)."""
    factor = 1 - np.cos(np.deg2rad(scan.angle_deg)) + scan.spread * rng.standard_normal((T1_S.size, 1))
    clean = inversion_recovery_signal(
        scan.ti + scan.offset_s,
        T1_S[:, None],
        m0=M0,
        inversion_factor=factor,
        repetition_time_s=scan.tr,
        echo_time_s=0.012,
    )
    clean = clean * np.exp(scan.gain * rng.standard_normal(scan.ti.size))
    clean = clean + scan.added * M0 * rng.standard_normal(clean.shape)
    sigma = M0 / settings.snr
    if scan.signed:
        sd = np.full(clean.shape, sigma / np.sqrt(settings.pixels))
        return clean + sd * rng.standard_normal(clean.shape), sd
    noise = sigma * rng.standard_normal((2, *clean.shape, settings.pixels))
    square = ((clean[..., None] + noise[0]) ** 2 + noise[1] ** 2).mean(axis=-1)
    signal = correct_noise_floor(square, 2 * sigma**2)
    if scan.bad is not None:
        signal[scan.bad] += 0.1 * M0
    return signal, corrected_signal_sd(signal, 2 * sigma**2, np.array(settings.pixels))


def report_scan(scan: Scan, settings: Settings, rng: np.random.Generator) -> None:
    values, errors, covered, spent, alone = [], [], [], 0.0, 0
    for _ in range(settings.repeats):
        signal, sd = simulate_scan(scan, settings, rng)
        began = time.process_time()
        fit = fit_pooled_inversion_recovery(
            signal,
            scan.ti,
            repetition_times_s=scan.tr,
            echo_time_s=0.012,
            signed=scan.signed,
            noise_sd=sd if scan.stated else None,
        )
        spent += time.process_time() - began
        alone += not is_pooled(fit)
        low, high = fit.interval(0.95)
        values.append(np.log(fit.parameters["t1_s"] / T1_S))
        errors.append(fit.relative_standard_error)
        covered.append(np.where(fit.ok, (low <= T1_S) & (high >= T1_S), np.nan))
    counted = np.arange(T1_S.size) != scan.bad
    cover = 100 * np.nanmean(covered, axis=0)
    print(f"\n{scan.name}   [{spent / settings.repeats * 1e3:.0f} ms per scan, {alone} not pooled]")
    print("  truth ms   " + "".join(f"{1e3 * t:8.1f}" for t in T1_S))
    print("  bias %     " + "".join(f"{100 * b:8.2f}" for b in np.nanmean(values, axis=0)))
    print("  scatter %  " + "".join(f"{100 * s:8.2f}" for s in np.nanstd(values, axis=0)))
    print(
        "  stated %   " + "".join(f"{100 * s:8.2f}" for s in np.sqrt(np.nanmean(np.square(errors), axis=0)))
    )
    print("  coverage % " + "".join(f"{c:8.1f}" for c in cover))
    print(
        f"  coverage {cover[counted].mean():.1f} % ({cover[counted].min():.1f} to {cover[counted].max():.1f})"
    )


def pooled_scans() -> tuple[Scan, ...]:
    vary = {"tr": TR_SHORT}
    long = {"ti": TI_LONG, "tr": 4.5}
    return (
        Scan("Pooled IR, 180 deg, TR 1 s, signed", signed=True),
        Scan("Pooled IR, 180 deg, TR 1 s, magnitude"),
        Scan("Pooled IR, the same, noise from scatter", stated=False),
        Scan("Pooled IR, 165 deg, offset 4 ms", angle_deg=165, offset_s=0.004),
        Scan("Pooled IR, 150 deg, offset 8 ms, TR varying", angle_deg=150, offset_s=0.008, **vary),
        Scan("Pooled IR, TI 50-3000, TR 4.5 s, 170 deg", angle_deg=170, **long),
        Scan("Pooled IR, gain drifts by 0.5 %", gain=0.005),
        Scan("Pooled IR, gain drifts by 0.5 %, noise from scatter", gain=0.005, stated=False),
        Scan("Pooled IR, gain drifts by 0.5 %, TR varying, 170 deg", gain=0.005, angle_deg=170, **vary),
        Scan("Pooled IR, inversion factor spreads by 0.005, 160 deg", spread=0.005, angle_deg=160),
        Scan("Pooled IR, inversion factor spreads by 0.02, 150 deg", spread=0.02, angle_deg=150),
        Scan(
            "Pooled IR, spread 0.02, drift 0.5 %, 0.1 % added, 150 deg, 3 ms",
            spread=0.02,
            gain=0.005,
            added=0.001,
            angle_deg=150,
            offset_s=0.003,
        ),
        Scan("Pooled IR, 0.2 % of M0 added to every sample", added=0.002),
        Scan("Pooled IR, sphere 5 ten per cent of M0 too bright", bad=4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--snr", type=float, default=100.0)
    parser.add_argument("--pixels", type=int, default=40)
    given = parser.parse_args()
    settings = Settings(given.repeats, given.snr, given.pixels)
    rng = np.random.default_rng(2024)
    print(
        f"SNR {settings.snr:g} per pixel, {settings.pixels} pixels, "
        f"{settings.repeats} repeats, 95 % intervals"
    )
    te_8, te_32 = 9.64e-3 * np.arange(1, 9), 8e-3 * np.arange(1, 33)
    few = Settings(max(settings.repeats // 5, 1), settings.snr, settings.pixels)
    for study in (
        inversion(
            "IR magnitude, TI 50-800, TR 1000-2460 ms, noise stated",
            TI_SHORT,
            TR_SHORT,
            settings,
            signed=False,
            stated=True,
        ),
        inversion(
            "IR magnitude, the same, noise from scatter",
            TI_SHORT,
            TR_SHORT,
            settings,
            signed=False,
            stated=False,
        ),
        inversion(
            "IR magnitude, TI 50-3000, TR 4500 ms, noise stated",
            TI_LONG,
            4.5,
            settings,
            signed=False,
            stated=True,
        ),
        inversion(
            "IR magnitude, the same, noise from scatter", TI_LONG, 4.5, settings, signed=False, stated=False
        ),
        inversion(
            "IR signed, TI 50-800 ms, noise from scatter",
            TI_SHORT,
            TR_SHORT,
            settings,
            signed=True,
            stated=False,
        ),
        inversion(
            "IR signed, TI 50-3000 ms, noise from scatter", TI_LONG, 4.5, settings, signed=True, stated=False
        ),
        flip_angles(settings),
        echoes("MESE 8 x 9.64 ms, NiCl2 T2, noise stated", te_8, T2_NI_S, settings, stated=True),
        echoes("MESE 8 x 9.64 ms, NiCl2 T2, noise from scatter", te_8, T2_NI_S, settings, stated=False),
        echoes("MESE 32 x 8 ms, MnCl2 T2, noise stated", te_32, T2_MN_S, settings, stated=True),
        echoes("MESE 32 x 8 ms, MnCl2 T2, noise from scatter", te_32, T2_MN_S, settings, stated=False),
    ):
        report(study, settings, rng)
    report(phase_graph("MESE 32 x 8 ms, refocusing 140 deg, NiCl2, phase graph", te_32, few), few, rng)
    for scan in pooled_scans():
        report_scan(scan, few, rng)


if __name__ == "__main__":
    main()
