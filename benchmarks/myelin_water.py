"""Myelin water fraction: error against simulated truth, and speed against a loop over scipy.

    python benchmarks/myelin_water.py [table|sweep|spatial|speed]

The truth is never a sum of components of the basis: T2 stand between its points or spread around
their means, T1 of the two waters differs where a row says so, and noise is that of a magnitude
(of a real signal for the first table, whose published counterpart has none of the noise floor).
SNR is M0 over the standard deviation of the noise.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from cordqa.models.myelin.echo_basis import EchoGrid, make_basis
from cordqa.models.myelin.neighbours import smooth_angles, spectra_of_neighbours
from cordqa.models.myelin.spectra import REGULARISATIONS, Smoothing
from cordqa.models.myelin.water_fraction import MyelinWater, fit_myelin_water
from cordqa.models.relaxometry.signal import multi_echo_spin_echo_signal

GRID = EchoGrid(n_echoes=32, echo_spacing_s=0.010)


def echoes(t2, angle, t1=1.0, spread=0.0):
    """One water whose T2 is spread log-normally around its mean."""
    if spread == 0:
        return multi_echo_spin_echo_signal(
            32, 0.010, t2, t1, refocusing_angle_deg=angle, excitation_angle_deg=angle / 2
        )
    place = np.linspace(-3, 3, 61)
    weights = np.exp(-(place**2) / 2)
    t2s = np.exp(np.log(t2) + spread * place)
    some = multi_echo_spin_echo_signal(
        32, 0.010, t2s, t1, refocusing_angle_deg=angle, excitation_angle_deg=angle / 2
    )
    return weights @ some / weights.sum()


def two_waters(fraction, angle, *, t2=(0.018, 0.075), t1=(1.0, 1.0), spread=0.0):
    short, long = (echoes(t, angle, one, spread) for t, one in zip(t2, t1, strict=True))
    return fraction * short + (1 - fraction) * long


def noisy(signal, snr, n, rng, *, magnitude):
    real = signal + rng.normal(0, 1 / snr, (n, signal.size))
    return np.abs(real + 1j * rng.normal(0, 1 / snr, real.shape)) if magnitude else real


def error(fit, fraction, angle):
    mwf = fit.values["MWF"] / 100 - fraction
    turned = fit.values["refocusing_angle"] - angle
    return mwf, turned


def table():
    rng = np.random.default_rng(0)
    print("T2 18/75 ms, chi2 1.02, real noise, 300 repeats: mean +- SD of MWF; angle error (RMS)")
    print(
        f"{'SNR':>6} {'angle':>6} "
        + " ".join(f"{'MWF ' + str(f):>17}" for f in (0.05, 0.12, 0.20))
        + "   angle  .20 at 180"
    )
    for snr in (100, 200, 500, 1e7):
        pooled, angles = [], []
        for angle in (120, 150):
            cells = []
            for fraction in (0.05, 0.12, 0.20):
                data = noisy(two_waters(fraction, angle), snr, 300, rng, magnitude=False)
                fit = fit_myelin_water(data + 1e-12, MyelinWater(grid=GRID))
                mwf, turned = error(fit, fraction, angle)
                pooled.append(mwf)
                angles.append(turned)
                cells.append(f"{fraction + mwf.mean():8.3f} +- {mwf.std():.3f}")
            fixed = fit_myelin_water(data, MyelinWater(grid=GRID), refocusing_angle_deg=180.0)
            flat = fixed.values["MWF"] / 100
            print(
                f"{snr:6.0f} {angle:6d} "
                + " ".join(f"{cell:>17}" for cell in cells)
                + f"  {rms(angles[-3:]):6.2f} (bound {bound(0.12, angle, snr):.2f})  {np.nanmean(flat):.3f} ({int(np.isnan(flat).sum())} without)"
            )
        print(f"{snr:6.0f}   both  RMSE of MWF {rms(pooled):.4f}, of the angle {rms(angles):.2f} degrees")


def bound(fraction, angle, snr):
    """Cramer-Rao bound of the angle for two waters of unknown amplitude and T2, degrees."""
    at = np.array([fraction, 1 - fraction, 0.018, 0.075, angle])

    def signal(p):
        return p[0] * echoes(p[2], p[4]) + p[1] * echoes(p[3], p[4])

    slopes = np.stack([(signal(at + d) - signal(at - d)) / (2 * d.sum()) for d in np.diag(1e-4 * at)], axis=1)
    return np.sqrt(np.linalg.inv(slopes.T @ slopes)[-1, -1]) / snr


def rms(parts):
    return float(np.sqrt(np.nanmean(np.square(np.concatenate(parts)))))


CASES = {
    "T2 18/75": {},
    "T2 14/65": {"t2": (0.014, 0.065)},
    "T2 22/90": {"t2": (0.022, 0.090)},
    "T2 28/70 (close)": {"t2": (0.028, 0.070)},
    "spread 0.15": {"spread": 0.15},
    "spread 0.30": {"spread": 0.30},
    "T1 0.4/1.2 s": {"t1": (0.4, 1.2)},
}


def sweep():
    rng = np.random.default_rng(1)
    print(
        "\nMagnitude noise; MWF .03 .08 .15 .25 x angle 110 130 150 170; 60 repeats. RMSE of MWF | bias | angle RMS"
    )
    for name, case in CASES.items():
        words = []
        for snr in (100, 200, 500, 1e7):
            found, angles = [], []
            for fraction in (0.03, 0.08, 0.15, 0.25):
                for angle in (110, 130, 150, 170):
                    data = noisy(two_waters(fraction, angle, **case), snr, 60, rng, magnitude=True)
                    mwf, turned = error(fit_myelin_water(data, MyelinWater(grid=GRID)), fraction, angle)
                    found.append(mwf)
                    angles.append(turned)
            bias = np.nanmean(np.concatenate(found))
            words.append(f"{rms(found):.4f} | {bias:+.4f} | {rms(angles):4.2f}")
        print(f"{name:>18}: " + "   ".join(words))
    print("\nRules at SNR 200 and 500 (T2 18/75): RMSE | bias | CPU us per voxel")
    for rule in REGULARISATIONS:
        words = []
        for snr in (200, 500):
            found, clock = [], 0.0
            for fraction in (0.03, 0.08, 0.15, 0.25):
                for angle in (120, 150):
                    data = noisy(two_waters(fraction, angle), snr, 150, rng, magnitude=True)
                    start = time.process_time()
                    fit = fit_myelin_water(
                        data, MyelinWater(grid=GRID, smoothing=Smoothing(rule=rule)), noise_sd=1 / snr
                    )
                    clock += time.process_time() - start
                    found.append(error(fit, fraction, angle)[0])
            words.append(
                f"{rms(found):.4f} | {np.nanmean(np.concatenate(found)):+.4f} | {1e6 * clock / 1200:.0f}"
            )
        print(f"{rule:>18}: " + "   ".join(words))
    print("\nStandard error against the spread of 300 repeats (stated / real)")
    for snr in (100, 200, 500, 2000):
        ratios = []
        for fraction in (0.05, 0.12, 0.20):
            for angle in (120, 150, 170):
                fit = fit_myelin_water(
                    noisy(two_waters(fraction, angle), snr, 300, rng, magnitude=True), MyelinWater(grid=GRID)
                )
                stated = np.sqrt(np.nanmean(fit.standard_errors["MWF"] ** 2))
                ratios.append(stated / np.nanstd(fit.values["MWF"]))
        print(f"  SNR {snr}: {min(ratios):.2f} to {max(ratios):.2f}, median {np.median(ratios):.2f}")


def spatial():
    """Two tissues with a straight border and a smooth transmit field, SNR 100 and 200."""
    rng = np.random.default_rng(2)
    shape = (20, 16, 6)
    i, j, _ = np.indices(shape)
    truth = np.where(i < 10, 0.14, 0.04)
    # A transmit field of the head changes by some 40 degrees over 100 mm.
    angle = 125 + 0.8 * i + 0.4 * j + 15 * np.exp(-((i - 9.5) ** 2 + (j - 7.5) ** 2) / 300)
    clean = np.stack([two_waters(f, a) for f, a in zip(truth.ravel(), angle.ravel(), strict=True)])
    mask = np.ones(shape, dtype=bool)
    inner = (np.abs(i - 9.5) > 3).ravel()
    border = (np.abs(i - 9.5) < 1).ravel()
    print(
        "\nNeighbours (2 mm voxels): RMSE inside | RMSE at the border | contrast across the border (true .10)"
    )
    for snr in (100, 200):
        data = np.abs(clean + rng.normal(0, 1 / snr, clean.shape) + 1j * rng.normal(0, 1 / snr, clean.shape))
        settings = MyelinWater(grid=GRID)
        alone = fit_myelin_water(data, settings)
        smooth = smooth_angles(alone.values["refocusing_angle"], mask, (2.0, 2.0, 2.0), fwhm_mm=12.0)
        near = spectra_of_neighbours(
            data, settings, mask, (2.0, 2.0, 2.0), angle_deg=smooth, fwhm_mm=4.0, weight=0.05
        )
        fits = {
            "alone": alone,
            "angle": fit_myelin_water(data, settings, refocusing_angle_deg=smooth),
            "spectra": fit_myelin_water(data, settings, refocusing_angle_deg=smooth, neighbours=near),
        }
        print(
            f"  SNR {snr}: angle RMS {np.sqrt(np.mean((alone.values['refocusing_angle'] - angle.ravel()) ** 2)):.2f}"
            f" -> {np.sqrt(np.mean((smooth - angle.ravel()) ** 2)):.2f} degrees"
        )
        for name, fit in fits.items():
            value = fit.values["MWF"] / 100
            off = value - truth.ravel()
            step = value[border & (i.ravel() < 10)].mean() - value[border & (i.ravel() >= 10)].mean()
            print(f"  {name:>10}: {rms([off[inner]]):.4f} | {rms([off[border]]):.4f} | {step:.3f}")


def loop(data, basis, n_angles):
    """What is usual: NNLS at many angles, then at many weights, for each voxel."""
    from scipy.optimize import brentq, nnls

    nodes = np.linspace(0, basis.nodes.size - 1, n_angles).astype(int)
    found = []
    for signal in data:
        misfit = [nnls(basis.decays[k], signal)[1] for k in nodes]
        a = basis.decays[nodes[int(np.argmin(misfit))]]
        least = min(misfit) ** 2

        def excess(log_mu, a=a, signal=signal, least=least):
            mu = np.exp(log_mu)
            x, _ = nnls(
                np.vstack([a, mu * np.eye(a.shape[1])]), np.concatenate([signal, np.zeros(a.shape[1])])
            )
            return ((signal - a @ x) ** 2).sum() / least - 1.02

        found.append(brentq(excess, -12, 1, xtol=1e-2))
    return found


def speed():
    rng = np.random.default_rng(3)
    data = np.concatenate(
        [noisy(two_waters(f, a), 200, 1000, rng, magnitude=True) for f in (0.05, 0.15) for a in (120, 160)]
    )
    make_basis(GRID)
    times = []
    for _ in range(3):
        start = time.process_time()
        fit_myelin_water(data, MyelinWater(grid=GRID))
        times.append((time.process_time() - start) / len(data))
    mine = 1e6 * min(times)
    print(f"\ncordqa: {mine:.0f} us of CPU per voxel (4000 voxels, with standard errors)")
    for n_angles in (8, 64, 180):
        best = []
        for _ in range(2):
            start = time.process_time()
            loop(data[::40], make_basis(GRID), n_angles)
            best.append((time.process_time() - start) / len(data[::40]))
        print(
            f"scipy.nnls loop, {n_angles} angles: {1e6 * min(best):.0f} us, {1e6 * min(best) / mine:.1f} times as long"
        )


if __name__ == "__main__":
    parts = {"table": table, "sweep": sweep, "spatial": spatial, "speed": speed}
    for part in sys.argv[1:] or parts:
        parts[part]()
