"""CPU time of six ICC with intervals for 10,000 regions x 20 subjects x 6 scanners.

Run: python benchmarks/icc_speed.py [--pingouin]
The target is 0.2 s of CPU time; pingouin, called region by region, is extrapolated from 20.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.icc_core import icc_arrays, mean_squares
from cordqa.stats.icc_replicated import replicated_icc_arrays
from cordqa.stats.repeatability_core import repeatability_arrays
from cordqa.stats.reproducibility_core import reproducibility_arrays

REGIONS, SUBJECTS, SCANNERS = 10_000, 20, 6


def simulate(replicates: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (REGIONS, SUBJECTS, SCANNERS, replicates)
    subject = 2.0 * rng.normal(size=(REGIONS, SUBJECTS, 1, 1))
    return 50 + subject + 0.5 * rng.normal(size=(REGIONS, 1, SCANNERS, 1)) + rng.normal(size=shape)


def cpu(call, repeats: int = 5) -> float:
    """Median CPU seconds, all threads."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def table_time(values: np.ndarray) -> float:
    import pandas as pd

    from cordqa.stats.icc import icc

    index = np.indices(values.shape).reshape(3, -1)
    table = pd.DataFrame(
        {"region": index[0], "subject": index[1], "scanner": index[2], "value": values.ravel()}
    )
    return cpu(lambda: icc(table, by="region"), 1)


def pingouin_time(values: np.ndarray, regions: int = 20) -> float:
    import warnings

    import pandas as pd
    import pingouin

    index = np.indices(values.shape[1:]).reshape(2, -1)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for region in values[:regions]:
            table = pd.DataFrame({"s": index[0], "c": index[1], "y": region.ravel()})
            pingouin.intraclass_corr(table, targets="s", raters="c", ratings="y")
    return (time.process_time() - start) * REGIONS / regions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pingouin", action="store_true", help="time pingouin too")
    options = parser.parse_args()
    single = simulate()[..., 0]
    icc_arrays(single[:2])  # imports
    doubled = simulate(2)
    rows = [
        ("mean squares only", cpu(lambda: mean_squares(single))),
        ("six ICC, McGraw-Wong and exact F intervals", cpu(lambda: icc_arrays(single))),
        ("reproducibility (RDC, MLS), 1 replicate", cpu(lambda: reproducibility_arrays(single[..., None]))),
        ("repeatability (wSD, three CV)", cpu(lambda: repeatability_arrays(single))),
        (
            "six ICC, generalized, 500 regions",
            cpu(lambda: icc_arrays(single[:500], interval="generalized"), 1),
        ),
        ("five ICC with 2 replicates, 500 regions", cpu(lambda: replicated_icc_arrays(doubled[:500]), 1)),
        ("six ICC from a tidy table of 1,200,000 rows", table_time(single)),
    ]
    if options.pingouin:
        rows.append(("pingouin, extrapolated from 20 regions", pingouin_time(single)))
    print(f"{REGIONS} regions x {SUBJECTS} subjects x {SCANNERS} scanners, CPU seconds")
    for name, seconds in rows:
        print(f"  {name:<50s} {seconds:9.3f}")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
