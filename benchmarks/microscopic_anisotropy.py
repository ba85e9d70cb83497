"""Microscopic anisotropy: bias, error and coverage in simulated cord, media without it, speed, a liquid crystal.

Run: OMP_NUM_THREADS=1 python benchmarks/microscopic_anisotropy.py [--voxels 2000] [--data ../shared/data/diffusion/hex]

Tissues are mixtures of sticks, hindered water along them and free water, with a Watson distribution
of orientations, summed without the equations that are fitted.  "nan" is the share of voxels without
muFA, "cover" the share of all voxels whose 95 % limits hold the truth.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers_microscopic import (
    FAST,
    LINEAR_PLANAR,
    LINEAR_SPHERICAL,
    magnitude,
    mixture,
    scheme,
    simulate,
)

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.microscopic import fit_microscopic_anisotropy

ROOT = Path(__file__).resolve().parents[1]
SHORTER = (
    (0, 0.0, 4),
    (500, 1.0, 8),
    (1000, 1.0, 12),
    (1500, 1.0, 20),
    (500, 0.0, 8),
    (1000, 0.0, 12),
    (1500, 0.0, 16),
)
SCHEMES = {
    "linear+spherical 70, b 2000": LINEAR_SPHERICAL,
    "linear+spherical 80, b 1500": SHORTER,
    "linear+spherical 32, b 2000": FAST,
    "linear+planar 102, b 2000": LINEAR_PLANAR,
}
TISSUES = [("white", 0.0), ("white", 0.03), ("white", 0.1), ("grey", 0.0), ("grey", 0.03)]
MEDIA = {
    "water 2.0": ([1.0], [2.0]),
    "polymer 0.6": ([1.0], [0.6]),
    "60 % 0.6 + 40 % 2.0": ([0.6, 0.4], [0.6, 2.0]),
    "oil 0.01": ([1.0], [0.01]),
    "oil 0.04": ([1.0], [0.04]),
}


def accuracy(n: int) -> None:
    print(
        f"{'scheme':28s} {'tissue':12s} {'SNR':>5s} {'model':9s} {'bias':>7s} {'RMSE':>6s} {'cover':>6s} {'nan':>6s} {'OP bias':>8s}"
    )
    for name, parts in SCHEMES.items():
        table = scheme(parts)
        for kind, water in TISSUES:
            tissue = mixture(n, kind, water=water)
            clean = simulate(tissue, table)
            for snr in (30.0, 1e4):
                for model in ("cumulant", "gamma", "qti"):
                    few = slice(0, n if model != "qti" else min(n, 500))
                    fit = fit_microscopic_anisotropy(magnitude(clean, snr)[few], table, model=model)
                    truth, miss = tissue.mufa[few], fit.values["muFA"] - tissue.mufa[few]
                    inside = (fit.values["muFA_lower"] <= truth) & (truth <= fit.values["muFA_upper"])
                    order = (
                        np.nanmean(fit.values["OP"] - tissue.order[few])
                        if np.isfinite(miss).any()
                        else np.nan
                    )
                    print(
                        f"{name:28s} {kind} {100 * water:3.0f} % {snr:5.0f} {model:9s} {np.nanmean(miss):+7.3f} "
                        f"{np.sqrt(np.nanmean(miss**2)):6.3f} {inside.mean():6.3f} {np.isnan(miss).mean():6.3f} {order:+8.3f}"
                    )


def media(n: int) -> None:
    print("\nShare of voxels with muFA above 0.3 in media without microscopic anisotropy, %")
    for name, parts in SCHEMES.items():
        table = scheme(parts)
        for medium, (share, diffusivity) in MEDIA.items():
            signal = np.array(share) @ np.exp(-np.outer(diffusivity, table.b_ms_um2))
            found = []
            for snr in (15, 30, 100):
                data = magnitude(np.tile(signal, (n, 1)), snr, seed=snr)
                for model in ("cumulant", "gamma"):
                    fit = fit_microscopic_anisotropy(data, table, model=model)
                    found.append(f"{100 * np.mean(fit.values['muFA'] > 0.3):.2f}")
            print(f"{name:28s} {medium:20s} SNR 15, 30, 100, cumulant and gamma each: {'  '.join(found)}")


def cpu(action: Callable[[], object], repeats: int = 5) -> float:
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        spent.append(time.process_time() - start)
    return min(spent)


def speed() -> None:
    print("\nCPU seconds for 10,000 voxels of 70 volumes, best of 5 (dipy once)")
    table = scheme(LINEAR_SPHERICAL)
    data = np.tile(magnitude(simulate(mixture(2000, "white"), table), 30), (5, 1))
    for model in ("cumulant", "gamma"):
        for order in (True, False):
            spent = cpu(
                lambda model=model, order=order: fit_microscopic_anisotropy(
                    data, table, model=model, order_parameter=order
                )
            )
            print(f"{model:9s} order parameter {order!s:5s} {spent:.4f}")
    print(f"dipy QTI, WLS                 {cpu(lambda: dipy_qti(data, table), 1):.4f}")


def dipy_qti(data: np.ndarray, table: GradientTable) -> None:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.qti import QtiModel

    directions = np.where(table.directions.any(axis=1)[:, None], table.directions, [0, 0, 1.0])
    directions[table.is_b0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradients = gradient_table(
            table.b_ms_um2, bvecs=directions, b0_threshold=0.05, btens=table.b_tensors_ms_um2
        )
        _ = QtiModel(gradients, fit_method="WLS").fit(data).ufa


def crystal(folder: Path) -> None:
    import nibabel as nib

    signal = np.asarray(nib.load(folder / "hex_dwi.nii.gz").dataobj)
    signal = signal[np.asarray(nib.load(folder / "hex_roi.nii.gz").dataobj) > 0]
    table = GradientTable(
        b_values_s_mm2=np.loadtxt(folder / "hex_dwi.bval"),
        directions=np.loadtxt(folder / "hex_dwi.bvec").T,
        b_delta=np.loadtxt(folder / "hex_dwi.bdelta"),
    )
    print(
        "\nLiquid crystal, muFA 1 by physics: median over the region, without muFA, limits hold 1, mean signal"
    )
    for model in ("cumulant", "gamma", "qti"):
        for b0 in ("auto", "use"):
            fit = fit_microscopic_anisotropy(signal, table, model=model, b0=b0)
            low, high = fit.values["muFA_lower"], fit.values["muFA_upper"]
            mean = fit_microscopic_anisotropy(signal.mean(axis=0), table, model=model, b0=b0)
            print(
                f"{model:9s} b0 {b0:5s} {np.nanmedian(fit.values['muFA']):.3f} {np.isnan(fit.values['muFA']).mean():.3f} "
                f"{np.mean((low <= 1) & (high >= 1)):.3f} {float(mean.values['muFA']):.3f}"
            )
    for notice in fit_microscopic_anisotropy(signal, table).notices:
        print("  ", notice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "diffusion" / "hex")
    settings = parser.parse_args()
    accuracy(settings.voxels)
    media(2 * settings.voxels)
    speed()
    if settings.data.is_dir():
        crystal(settings.data)
    else:
        print(f"\nno data at {settings.data}: the liquid crystal was not measured")


if __name__ == "__main__":
    main()
