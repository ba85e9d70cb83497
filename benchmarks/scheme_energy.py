"""Energy, time and success of the search for directions, against dipy and the best known values.

Run: python benchmarks/scheme_energy.py [--dipy] [--limits] [--search FIRST LAST [--starts N]]
``--search`` repeats the long search whose results stand in cordqa/models/diffusion/scheme_optima.py.
Targets: within 1e-5 of the best known energy; 64 directions in less than 0.3 s of CPU time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.models.diffusion import scheme_energy
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_check import IDEAL_CONDITION, mean_diffusivity_penalty
from cordqa.models.diffusion.scheme_energy import (
    best_energy,
    closest_angle_deg,
    electrostatic_energy,
    spread_directions,
    spread_shells,
)

SIZES = (6, 12, 20, 30, 32, 45, 60, 64, 90, 120)


def search(first: int, last: int, starts: int, agree: int = 4) -> None:
    """Descend from many starts; stop when the lowest minimum was reached ``agree`` times."""
    for n in range(first, last + 1):
        evaluate = scheme_energy._energy_of(np.ones((n, n)))
        generator = np.random.default_rng(20_000 + n)
        energies = []
        for _ in range(starts):
            energies.append(scheme_energy._descend(generator.normal(size=(n, 3)), evaluate)[1])
            if np.sum(np.array(energies) < min(energies) * (1 + 1e-9)) >= agree:
                break
        hits = int(np.sum(np.array(energies) < min(energies) * (1 + 1e-9)))
        print(f"    {n}: {min(energies):.7f},  # reached {hits} times in {len(energies)}", flush=True)


def compare(with_dipy: bool) -> None:
    print("n     energy        / best - 1   angle   CPU s (min of 5 seeds, max)   seeds within 1e-5")
    for n in SIZES:
        times, ratios, angle = [], [], 0.0
        for seed in range(5):
            start = time.process_time()
            found = spread_directions(n, seed=seed)
            times.append(time.process_time() - start)
            ratios.append(found.energy / best_energy(n)[0] - 1)
            angle = closest_angle_deg(found.directions)
        good = sum(ratio <= 1e-5 for ratio in ratios)
        print(
            f"{n:<5} {found.energy:<13.6f} {max(ratios):<12.1e} {angle:<7.2f} "
            f"{min(times):.3f}, {max(times):.3f}{'':<18} {good}/5"
        )
        if with_dipy:
            dipy_row(n)


def dipy_row(n: int) -> None:
    from dipy.core.sphere import HemiSphere, disperse_charges

    generator = np.random.default_rng(0)
    start = time.process_time()
    hemisphere = HemiSphere(xyz=generator.normal(size=(n, 3)))
    spread, _ = disperse_charges(hemisphere, 5000)
    seconds = time.process_time() - start
    energy = electrostatic_energy(spread.vertices)
    angle = closest_angle_deg(spread.vertices)
    print(f"dipy  {energy:<13.6f} {energy / best_energy(n)[0] - 1:<12.1e} {angle:<7.2f} {seconds:.3f}")


def shells() -> None:
    print("\nshells          worst shell / best   union / best   CPU s")
    for counts in ((20, 30), (30, 30), (6, 12, 20), (30, 60, 90)):
        start = time.process_time()
        found = spread_shells(counts)
        seconds = time.process_time() - start
        union = electrostatic_energy(found.directions) / best_energy(sum(counts))[0]
        print(f"{counts!s:<15} {found.ratio:<20.4f} {union:<14.4f} {seconds:.2f}")


def limits() -> None:
    """Where the limits of ``cordqa scheme check`` come from."""
    generator = np.random.default_rng(0)
    print("energy of 400 sets of random directions over the best known")
    print("n     5 %    50 %   share below 1.05")
    for n in (6, 12, 20, 30, 64):
        sets = generator.normal(size=(400, n, 3))
        ratios = np.array([electrostatic_energy(one) for one in sets]) / best_energy(n)[0]
        low, middle = np.quantile(ratios, [0.05, 0.5])
        print(f"{n:<5} {low:.3f}  {middle:.3f}  {np.mean(ratios < 1.05):.3f}")
    print("\ncondition number and extra scan time of the worst determined tensor element")
    for condition in (1.581, 1.768, 2.0, 2.236):
        print(f"{condition:.3f}  {100 * ((condition / IDEAL_CONDITION) ** 2 - 1):.0f} %")
    print("\nstandard deviation of MD over the best split, b = 800 s/mm2, MD 0.9 um2/ms")
    for n_b0, n in ((1, 32), (1, 64), (2, 30), (4, 30), (5, 30), (8, 64)):
        directions = np.vstack([np.zeros((n_b0, 3)), spread_directions(n).directions])
        table = GradientTable.linear(np.r_[np.zeros(n_b0), np.full(n, 800.0)], directions)
        print(f"{n_b0} + {n}: {mean_diffusivity_penalty(table):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dipy", action="store_true", help="also run dipy's disperse_charges")
    parser.add_argument("--search", nargs=2, type=int, metavar=("FIRST", "LAST"))
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--limits", action="store_true", help="print where the limits of the check come from")
    options = parser.parse_args()
    if options.limits:
        limits()
        return
    if options.search:
        search(*options.search, options.starts)
        return
    compare(options.dipy)
    shells()


if __name__ == "__main__":
    main()
