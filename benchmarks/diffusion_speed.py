"""CPU time and memory of the tensor and kurtosis fits, beside dipy's in the same run.

Run: OMP_NUM_THREADS=1 python benchmarks/diffusion_speed.py [--repeats 7]
Process CPU seconds per 10,000 voxels, the least of several runs (the machine may be shared).
Targets: tensor with maps 0.02; kurtosis with five maps 0.12 and 30 times dipy; constrained 2.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers_tensor import TISSUE_KINDS, magnitude, mixture_signal, shells, tissue

from cordqa.models.diffusion.kurtosis import fit_kurtosis
from cordqa.models.diffusion.tensor import fit_tensor

VOXELS = 10_000


def cpu(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def data_of(table, n: int, snr: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = np.array([mixture_signal(tissue(TISSUE_KINDS[i % 4], rng), table) for i in range(200)])
    return 1000 * magnitude(np.tile(clean, (n // 200, 1)), 1 / snr, rng)


def dipy_tensor(table, data):
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    fit = TensorModel(gradient_table(table.b_values_s_mm2, bvecs=table.directions)).fit(data)
    return fit.fa, fit.md, fit.ad, fit.rd


def dipy_kurtosis(table, data):
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel

    fit = DiffusionKurtosisModel(gradient_table(table.b_values_s_mm2, bvecs=table.directions)).fit(data)
    return fit.fa, fit.md, fit.mk(), fit.ak(), fit.rk()


def memory() -> None:
    """Peak of a volume of 300,000 voxels with 100 volumes of 16 bits, beyond the images themselves."""
    table = shells(1000.0, 2500.0, n=48, n_b0=4)
    few = data_of(table, 2000, 30.0).astype(np.int16)
    volume = np.tile(few, (150, 1)).reshape(100, 100, 30, 100)
    for name, call in (
        ("tensor", lambda: fit_tensor(volume, table)),
        ("kurtosis, least squares", lambda: fit_kurtosis(volume, table, constrained=False)),
    ):
        tracemalloc.start()
        start = time.process_time()
        call()
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"  {name:28s} peak {peak / 2**20:6.0f} MiB beside {volume.nbytes / 2**20:.0f} MiB of images, {seconds:.0f} s CPU"
        )
    print(
        f"  highest resident size of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    one, two = shells(800.0, n=30, n_b0=5), shells(1000.0, 2500.0)
    first, second = data_of(one, VOXELS, 25.0), data_of(two, VOXELS, 30.0)
    few = second[:1000]
    rows = [
        (
            "tensor + FA, MD, AD, RD, S0, direction",
            cpu(lambda: fit_tensor(first, one, uncertainty="none"), repeats),
            0.02,
        ),
        ("  with standard errors", cpu(lambda: fit_tensor(first, one), repeats), None),
        ("  iterated, with standard errors", cpu(lambda: fit_tensor(first, one, estimator="iwls"), 3), None),
        ("  robust, with standard errors", cpu(lambda: fit_tensor(first, one, estimator="robust"), 3), None),
        ("dipy tensor + FA, MD, AD, RD", cpu(lambda: dipy_tensor(one, first), 3), None),
        (
            "kurtosis + ten maps",
            cpu(lambda: fit_kurtosis(second, two, constrained=False, uncertainty="none"), repeats),
            0.12,
        ),
        ("  with standard errors", cpu(lambda: fit_kurtosis(second, two, constrained=False), 3), None),
        ("constrained kurtosis, standard errors", 10 * cpu(lambda: fit_kurtosis(few, two), 5), 2.0),
        (
            "constrained Rician, standard errors",
            10 * cpu(lambda: fit_kurtosis(few, two, rician=True), 3),
            None,
        ),
        ("dipy kurtosis + FA, MD, MK, AK, RK", 10 * cpu(lambda: dipy_kurtosis(two, few), 3), None),
    ]
    print(f"CPU s per 10,000 voxels; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, seconds, target in rows:
        print(f"  {name:42s} {seconds:8.4f}" + (f"   target {target:g}" if target else ""))
    found = {name: seconds for name, seconds, _ in rows}
    print(
        f"  dipy over ours: tensor {rows[4][1] / rows[0][1]:.1f}, kurtosis {found['dipy kurtosis + FA, MD, MK, AK, RK'] / found['kurtosis + ten maps']:.0f} times"
    )
    memory()


if __name__ == "__main__":
    main()
