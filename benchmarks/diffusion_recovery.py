"""Errors and coverage of the tensor and kurtosis fits on simulated cord tissue with known cumulants.

Run: OMP_NUM_THREADS=1 python benchmarks/diffusion_recovery.py [--voxels 400] [--snr 30] [--dipy]
Voxels are mixtures of Gaussian compartments (white matter, crossing fibres, grey matter, white matter
with free water); noise is complex, and the magnitude is fitted.  Two errors are given: against the
cumulants of the mixture, which no finite b can give without bias, and (noise) against the same
estimator on noise-free data.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers_tensor import (
    TISSUE_KINDS,
    along,
    cumulants,
    magnitude,
    mixture_signal,
    shells,
    sphere_mean,
    tissue,
    turned,
)
from scipy.stats import t as student

from cordqa.models.diffusion.kurtosis import fit_kurtosis
from cordqa.models.diffusion.noise_from_residuals import estimate_noise_sd
from cordqa.models.diffusion.tensor import fit_tensor

DIRECTIONS = np.random.default_rng(0).normal(size=(2000, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
MAPS = ("MK", "AK", "RK", "MKT")


def true_maps(mixtures) -> dict[str, np.ndarray]:
    second, fourth = (np.array(part) for part in zip(*(cumulants(m) for m in mixtures), strict=True))
    axial, radial = [], []
    for s, f in zip(second, fourth, strict=True):
        _, axes = np.linalg.eigh(np.array([[s[0], s[1], s[3]], [s[1], s[2], s[4]], [s[3], s[4], s[5]]]))
        d, v = along(s, f, axes[:, 2][None])
        axial.append(float((v / d**2)[0]))
        angle = np.pi * np.arange(100) / 100
        d, v = along(s, f, np.outer(np.cos(angle), axes[:, 0]) + np.outer(np.sin(angle), axes[:, 1]))
        radial.append(float((v / d**2).mean()))
    trace = fourth[:, :3].sum(axis=1) + 2 * fourth[:, 9:12].sum(axis=1)
    mean = (second[:, 0] + second[:, 2] + second[:, 5]) / 3
    return {
        "MK": sphere_mean(second, fourth, 30),
        "AK": np.array(axial),
        "RK": np.array(radial),
        "MKT": trace / 5 / mean**2,
    }


def dipy_maps(data, table) -> dict[str, np.ndarray]:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = DiffusionKurtosisModel(gradient_table(table.b_values_s_mm2, bvecs=table.directions)).fit(data)
        return {"MK": fit.mk(), "AK": fit.ak(), "RK": fit.rk(), "MKT": fit.mkt()}


def rmse(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))


def kurtosis_errors(n: int, snr: float, *, dipy: bool) -> None:
    table = shells(1000.0, 2500.0)
    rng = np.random.default_rng(1)
    cases = {kind: [tissue(kind, rng) for _ in range(n)] for kind in TISSUE_KINDS}
    noisy = {
        kind: magnitude(np.array([mixture_signal(m, table) for m in mixtures]), 1 / snr, rng)
        for kind, mixtures in cases.items()
    }
    noise = estimate_noise_sd(np.concatenate(list(noisy.values())), table)
    print(
        f"kurtosis, b 0/1000/2500, {len(table)} volumes, SNR {snr:g}, {n} voxels each; noise found {noise * snr:.3f} of the truth"
    )
    options = {
        "least squares": {"constrained": False},
        "constrained": {},
        "constrained, Rician": {"rician": True, "noise_sd": noise},
    }
    squares: dict[tuple[str, str], list[float]] = {}
    for kind, mixtures in cases.items():
        truth = true_maps(mixtures)
        print(f"  {kind}: true " + ", ".join(f"{name} {truth[name].mean():.2f}" for name in MAPS))
        clean = np.array([mixture_signal(m, table) for m in mixtures])
        for label, option in options.items():
            fit = fit_kurtosis(noisy[kind], table, **option)
            ideal = fit_kurtosis(
                clean, table, **{**option, **({"noise_sd": noise / 50} if "noise_sd" in option else {})}
            ).maps.values
            _, v = along(fit.coefficients[:, :6], fit.coefficients[:, 6:21], DIRECTIONS)
            negative = np.mean(v.min(axis=1) < 0)
            words = [
                f"{name} {np.median(fit.maps.values[name] - truth[name]):+.3f}/{rmse(fit.maps.values[name] - truth[name]):.3f}/{rmse(fit.maps.values[name] - ideal[name]):.3f}"
                for name in MAPS
            ]
            floor = [w.mean() for text, w in fit.maps.flags.items() if text.startswith("AK")]
            print(
                f"    {label:20s} "
                + "  ".join(words)
                + f"  negative K in {100 * negative:.0f} %, AK flagged {100 * sum(floor):.0f} %"
            )
            for name in MAPS:
                squares.setdefault((label, name), []).append(rmse(fit.maps.values[name] - truth[name]) ** 2)
                squares.setdefault((label + " (noise)", name), []).append(
                    rmse(fit.maps.values[name] - ideal[name]) ** 2
                )
        if dipy:
            theirs = dipy_maps(noisy[kind], table)
            words = [
                f"{name} {np.median(theirs[name] - truth[name]):+.3f}/{rmse(theirs[name] - truth[name]):.3f}"
                for name in MAPS
            ]
            print(f"    {'dipy WLS (clipped)':20s} " + "  ".join(words))
            for name in MAPS:
                squares.setdefault(("dipy", name), []).append(rmse(theirs[name] - truth[name]) ** 2)
    print("  (median error / RMSE / RMSE against the noise-free fit)")
    for (label, name), parts in squares.items():
        if name in ("MK", "AK"):
            print(
                f"  RMSE of {name}, {label:32s} tissues without free water {np.sqrt(np.mean(parts[:3])):.3f}, all four {np.sqrt(np.mean(parts)):.3f}"
            )


def kurtosis_coverage(n: int) -> None:
    """95 % intervals against the kurtosis equation's own truth."""
    table = shells(1000.0, 2500.0)
    names = ("FA", "MD", "AD", "RD", *MAPS)
    print("coverage of 95 % intervals, signals of the kurtosis equation")
    for snr in (30.0, 100.0):
        for kind in TISSUE_KINDS[:3]:
            rng = np.random.default_rng(2)
            mixtures = [tissue(kind, rng) for _ in range(n)]
            clean = np.array([mixture_signal(m, table) for m in mixtures])
            base = fit_kurtosis(clean, table)
            exact = np.exp(base.coefficients @ base.design.T)
            data = magnitude(exact, 1 / snr, rng)
            for label, option in (
                ("least squares", {"constrained": False}),
                ("constrained", {}),
                ("constrained, Rician", {"rician": True, "noise_sd": 1 / snr}),
                ("Rician", {"rician": True, "noise_sd": 1 / snr, "constrained": False}),
            ):
                fit = fit_kurtosis(data, table, **option)
                q = student.ppf(0.975, fit.degrees_of_freedom)
                words = []
                for name in names:
                    value, error = fit.maps.values[name], fit.maps.standard_errors[name]
                    words.append(f"{name} {np.mean(np.abs(value - base.maps.values[name]) <= q * error):.3f}")
                print(f"  SNR {snr:3.0f} {kind:13s} {label:20s} " + "  ".join(words))


def tensor_coverage(n: int) -> None:
    table = shells(800.0, n=30, n_b0=5)
    print("tensor, b 800, 30 directions, 5 b = 0: coverage of 95 % intervals")
    for snr in (30.0, 15.0, 10.0):
        for label, eigenvalues in (
            ("white matter", (1.7, 0.4, 0.3)),
            ("grey matter", (1.2, 0.7, 0.6)),
            ("crossing", (1.3, 1.1, 0.4)),
            ("cord and water", (2.0, 1.6, 1.5)),
        ):
            clean = mixture_signal([(1.0, turned(eigenvalues))], table)
            data = magnitude(np.tile(clean, (n, 1)), 1 / snr, np.random.default_rng(3))
            truth = fit_tensor(clean, table).maps.values
            words = []
            for kind, count in (("analytic", n), ("bootstrap", min(n, 1000))):
                fit = fit_tensor(data[:count], table, uncertainty=kind)
                q = student.ppf(0.975, fit.degrees_of_freedom)
                hits = [
                    np.mean(np.abs(fit.maps.values[m] - truth[m]) <= q * fit.maps.standard_errors[m])
                    for m in ("FA", "MD", "AD", "RD")
                ]
                words.append(
                    f"{kind} "
                    + " ".join(f"{m} {h:.3f}" for m, h in zip(("FA", "MD", "AD", "RD"), hits, strict=True))
                )
            print(f"  SNR {snr:3.0f} {label:15s} " + "   ".join(words))


def outliers(n: int) -> None:
    table = shells(800.0, n=30, n_b0=5)
    clean = mixture_signal([(1.0, turned((1.7, 0.4, 0.3)))], table)
    truth = float(fit_tensor(clean, table).maps.values["FA"])
    print("dropped samples (signal times 0.1 to 0.5), SNR 20: FA error, outliers found and false")
    for bad in (0, 1, 2, 4, 6):
        rng = np.random.default_rng(4)
        data = magnitude(np.tile(clean, (n, 1)), 1 / 20, rng)
        hit = np.zeros(data.shape, dtype=bool)
        for row in hit:
            row[5 + rng.choice(30, bad, replace=False)] = True
        data = np.where(hit, data * rng.uniform(0.1, 0.5, data.shape), data)
        for estimator in ("wls", "iwls", "robust"):
            fit = fit_tensor(data, table, estimator=estimator)
            error = fit.maps.values["FA"] - truth
            q = student.ppf(0.975, np.maximum(fit.degrees_of_freedom, 1))
            cover = np.mean(np.abs(error) <= q * fit.maps.standard_errors["FA"])
            found = fit.outliers[hit].mean() if bad else float("nan")
            print(
                f"  {bad} of 35 {estimator:7s} bias {np.nanmean(error):+.3f} RMSE {rmse(error):.3f} coverage {cover:.3f} found {found:.3f} false {fit.outliers[~hit].mean():.4f} no value {np.isnan(error).mean():.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=400)
    parser.add_argument("--snr", type=float, default=30.0)
    parser.add_argument("--dipy", action="store_true")
    arguments = parser.parse_args()
    kurtosis_errors(arguments.voxels, arguments.snr, dipy=arguments.dipy)
    kurtosis_coverage(arguments.voxels)
    tensor_coverage(5 * arguments.voxels)
    outliers(2 * arguments.voxels)


if __name__ == "__main__":
    main()
