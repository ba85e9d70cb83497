"""Average run length of control charts: values until the first signal after a shift.

Run: python benchmarks/control_arl.py [--chains 4000] [--seed 0]

First with mean and spread known exactly, as textbooks do; then with a baseline of 20 values, where
the share of scanners that give a false alarm within 80 values shows what that costs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.control_core import (
    CUSUM_LIMIT,
    EWMA_LIMIT,
    EWMA_WEIGHT,
    SHEWHART_LIMIT,
    chart_values,
    cusum_statistic,
    ewma_statistic,
    westgard_rules,
)

SHIFTS = (0.0, 0.5, 1.0, 2.0)


def shewhart(z):
    return np.abs(z) > SHEWHART_LIMIT


def ewma(z):
    steps = np.arange(1, z.shape[-1] + 1)
    spread = np.sqrt(EWMA_WEIGHT / (2 - EWMA_WEIGHT) * (1 - (1 - EWMA_WEIGHT) ** (2 * steps)))
    return np.abs(ewma_statistic(z)) > EWMA_LIMIT * spread


def cusum(z):
    return np.maximum(*cusum_statistic(z)) > CUSUM_LIMIT


def westgard(z):
    return np.any(list(westgard_rules(z).values()), axis=0)


CHARTS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "Shewhart 3 SD": (shewhart, (380, 160, 45, 6.3)),
    "Westgard multirule": (westgard, (160, 47, 13.6, 3.5)),
    "EWMA (0.2, 2.86)": (ewma, (365, 34, 8.9, 2.7)),
    "CUSUM (0.5, 4.77)": (cusum, (365, 37, 9.9, 3.8)),
}


def run_length(rule: Callable, shift: float, chains: int, seed: int) -> float:
    """Mean number of values until the first signal; no chain is cut short."""
    generator = np.random.default_rng(seed)
    total, length = 0.0, 4000 if shift == 0.0 else 2000
    values = generator.normal(shift, 1, (chains, length))
    fired = rule(values)
    first = np.where(fired.any(axis=1), fired.argmax(axis=1) + 1.0, np.nan)
    silent = np.isnan(first)
    # Nearly none: a chain without a signal counts as its length plus the mean of the others.
    total = np.nansum(first) + silent.sum() * (length + np.nanmean(first))
    return float(total / chains)


def main(chains: int, seed: int) -> None:
    print(
        "average run length at shifts of 0, 0.5, 1 and 2 SD (in brackets: the project's earlier simulation)"
    )
    for name, (rule, reference) in CHARTS.items():
        found = [run_length(rule, shift, chains, seed + i) for i, shift in enumerate(SHIFTS)]
        cells = "  ".join(f"{f:6.1f} ({r:5.4g})" for f, r in zip(found, reference, strict=True))
        print(f"  {name:20s} {cells}")
    print("\nbaseline of 20 values: false alarms per value, and scanners with one within 80 values, in %")
    generator = np.random.default_rng(seed)
    for limits in ("prediction", "plain"):
        rules = ("shewhart", "ewma", "cusum", "westgard")
        charts = [
            chart_values(generator.normal(0, 1, 100), rules=rules, limits=limits) for _ in range(chains // 2)
        ]
        for rule in rules:
            fired = np.array([chart.signals[rule][20:] for chart in charts])
            print(
                f"  {limits:10s} {rule:9s} {100 * fired.mean():5.2f}  {100 * fired.any(axis=1).mean():5.1f}"
            )
    known = generator.normal(0, 1, (chains, 80))
    print(
        "  baseline known exactly:",
        {n: f"{100 * np.mean(r(known).any(axis=1)):.1f}" for n, (r, _) in CHARTS.items()},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.chains, options.seed)
