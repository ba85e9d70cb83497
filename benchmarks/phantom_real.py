"""Accuracy and cost of ``cordqa phantom`` on real scans of three vendors.

The peer's figures are those of hazen 2.0.0 on the same files (median absolute error over the 14
spheres, batch 1 references at 20 C; its wheel lacks the template images and was completed by
hand), so they stand beside ours without being run again here.

    python benchmarks/phantom_real.py FOLDER    # the folder that holds T1/ and T2/
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cordqa.phantom.measure import OUTSIDE
from cordqa.workflow.phantom import PhantomSettings, run_phantom

PEER_PERCENT = {
    ("Siemens", "plate 5", "T1"): 2.4,
    ("GE", "plate 5", "T1"): 5.3,
    ("Philips", "plate 5", "T1"): 3.2,
    ("GE", "plate 4", "T1"): 9.7,
    ("Philips", "plate 5", "T2"): 1.8,
    ("GE", "plate 5", "T2"): 3.6,
}


def accuracy(folder: Path) -> None:
    print(
        f"{'set':<24}{'model':<13}{'all 14':>8}{'in range':>10}{'(n)':>5}{'hazen 2.0':>11}   median |error| in %"
    )
    for model in ("exponential", "epg"):
        with tempfile.TemporaryDirectory() as out:
            settings = PhantomSettings(serial="130-0041", temperature_C=20.0, t2_model=model)
            result = run_phantom(folder, Path(out), settings=settings)
        sets: dict[tuple[str, str, str], list] = {}
        for m in result.measurements:
            sets.setdefault((m.entities.vendor, m.level, m.quantity), []).append(m)
        for key, rows in sorted(sets.items()):
            if model == "epg" and key[2] != "T2":
                continue
            errors = np.array([abs(100 * (m.value / m.reference - 1)) for m in rows])
            inside = np.array([not any(f.startswith(OUTSIDE) for f in m.flags) for m in rows])
            peer = f"{PEER_PERCENT[key]:.1f}" if key in PEER_PERCENT else "-"
            shown = model if key[2] == "T2" else "inversion r."
            print(
                f"{' '.join(key):<24}{shown:<13}{np.nanmedian(errors):>8.2f}{np.median(errors[inside]):>10.2f}"
                f"{inside.sum():>5}{peer:>11}"
            )


def cost(folder: Path, repeats: int) -> None:
    one = folder / "T1" / "site1_20200218"
    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "cordqa", "phantom", str(one), out],
                check=False,
                capture_output=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            wall = time.perf_counter() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds.append((cpu, wall))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    cpus = sorted(cpu for cpu, _ in seconds)
    print(
        f"\none series from DICOM to verdict, whole process: CPU {cpus[0]:.2f} / {np.median(cpus):.2f} / {cpus[-1]:.2f} s "
        f"(min / median / max of {repeats}), peak {peak:.0f} MB; targets 2 s, 500 MB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    accuracy(arguments.folder)
    cost(arguments.folder, arguments.repeats)
