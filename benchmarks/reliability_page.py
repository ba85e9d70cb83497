"""Time and size of a reliability report, from the table on disk to the page on disk.

Run standalone: ``python benchmarks/reliability_page.py``.  Targets: 203 subjects x 7 levels x 5
quantities below 10 s and 5 MB; a table of 100,000 rows below 20 s.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

METRICS = {
    "CSA": (72.0, 7.0, 1.3),
    "FA": (0.68, 0.04, 0.012),
    "MD": (1050, 70, 25),
    "MTR": (42, 2.0, 0.8),
    "T1": (880, 40, 15),
}
VENDORS = ("GE", "Philips", "Siemens")


def cohort(rng: np.random.Generator, subjects: int = 203, levels: int = 7) -> Iterator[tuple[object, ...]]:
    """People of one of 43 sites each."""
    yield ("subject", "site", "vendor", "age", "sex", "level", *METRICS)
    for person in range(subjects):
        site = int(rng.integers(0, 43))
        place = (
            f"sub-{person:03d}",
            f"site{site:02d}",
            VENDORS[site % 3],
            int(rng.integers(20, 60)),
            "FM"[person % 2],
        )
        truth = {name: mean + sd * rng.normal() for name, (mean, sd, _) in METRICS.items()}
        for level in range(levels):
            values = [
                f"{truth[n] * (1 - 0.02 * level) + e * rng.normal():.6g}" for n, (_, _, e) in METRICS.items()
            ]
            yield (*place, f"C{level + 2}", *values)


def travelling(
    rng: np.random.Generator, subjects: int, scans: int, levels: int = 7
) -> Iterator[tuple[object, ...]]:
    """People who were measured on several scanners, one scan in twenty missing."""
    yield ("subject", "session", "scanner", "vendor", "age", "sex", "level", *METRICS)
    for person in range(subjects):
        who = (int(rng.integers(20, 60)), "FM"[person % 2])
        truth = {name: mean + sd * rng.normal() for name, (mean, sd, _) in METRICS.items()}
        for scan in range(scans):
            if rng.random() < 0.05:
                continue
            scanner = scan % 4
            place = (f"sub-{person:03d}", scan // 4 + 1, f"scanner {scanner}", VENDORS[scanner % 3], *who)
            for level in range(levels):
                values = [
                    f"{truth[n] * (1 - 0.02 * level + 0.01 * scanner) + e * rng.normal():.6g}"
                    for n, (_, _, e) in METRICS.items()
                ]
                yield (*place, f"C{level + 2}", *values)


def measure(name: str, rows: Iterator[tuple[object, ...]], options: dict[str, object]) -> tuple[float, float]:
    """Write the table, run, and print what it took."""
    from cordqa.cli._output import finish
    from cordqa.workflow.reliability import run_reliability
    from cordqa.workflow.reliability_settings import make_settings

    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "table.csv", Path(folder) / "out"
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        wall, cpu = time.perf_counter(), time.process_time()
        result = run_reliability(table, out, settings=make_settings(("", options)))
        with (Path(folder) / "text").open("w") as sys.stdout:
            finish(result, out, as_json=False)
        sys.stdout = sys.__stdout__
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        size = (out / "report.html").stat().st_size / 1e6
    values = result.summary.split(" ")[0]
    print(
        f"{name:<44} {values:>8} {cpu:>8.1f} {wall:>8.1f} {size:>8.2f} {len(result.statistics):>10}",
        flush=True,
    )
    return cpu, size


def main() -> int:
    """Print the table; 1 where a target is missed."""
    sys.stderr = Path("/dev/null").open("w")  # noqa: SIM115
    print(f"{'study':<44} {'values':>8} {'CPU s':>8} {'wall s':>8} {'MB':>8} {'statistics':>10}")
    rng = np.random.default_rng(0)
    targets = [
        (measure("cohort 203 x 7 x 5, 43 sites", cohort(rng), {}), 10.0),
        (
            measure(
                "the same, spine-generic, harmonised",
                cohort(rng),
                {"definition": "spine-generic", "harmonise": "combat"},
            ),
            10.0,
        ),
        (measure("travelling 51 x 4 scans x 7 x 5", travelling(rng, 51, 4), {}), 10.0),
        (measure("travelling 25 x 8 scans x 7 x 5", travelling(rng, 25, 8), {}), 10.0),
        (measure("travelling 360 x 8 scans x 7 x 5", travelling(rng, 360, 8), {}), 20.0),
    ]
    return int(any(cpu > limit or size > 5.0 for (cpu, size), limit in targets))


if __name__ == "__main__":
    sys.exit(main())
