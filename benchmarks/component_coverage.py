"""Coverage of intervals from variance components, and ICC with a tenth of the cells missing.

Run: python benchmarks/component_coverage.py [--repeats 1000] [--seed 0]

Subjects x scanners with a tenth of the cells missing, restricted maximum likelihood and profile
intervals; complete tables, mean squares and modified large sample intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.component_intervals import boundary_test, profile_ratio, profile_sd, profile_total
from cordqa.stats.ems import combine_components, ems_components, variance_intervals
from cordqa.stats.mixed_design import make_design
from cordqa.stats.reml import fit_reml, simulate_values

CASES = (
    (20, 6, (50.0, 5.0, 16.0)),
    (10, 3, (50.0, 5.0, 16.0)),
    (30, 2, (50.0, 5.0, 16.0)),
    (30, 3, (5.0, 5.0, 10.0)),
    (20, 3, (50.0, 50.0, 9.0)),
)


def share(low, high, truth) -> str:
    low, high = np.asarray(low), np.asarray(high)
    return f"{100 * np.mean((low <= truth) & (truth <= high)):6.1f}"


def unbalanced(repeats: int, seed: int) -> None:
    print("a tenth missing, REML: coverage in % of profile intervals")
    print(
        f"{'design':>9} {'variances':>14} {'subject':>8}{'scanner':>8}{'wSD':>7}{'ICC':>7}{'RDC':>7}  test size  CPU s"
    )
    for n, k, variances in CASES:
        generator = np.random.default_rng(seed)
        subject, scanner = np.divmod(np.arange(n * k), k)
        keep = generator.random(n * k) > 0.1
        design = make_design({"subject": subject[keep], "scanner": scanner[keep]})
        truth = np.array(variances)
        values = simulate_values(design, truth, repeats, generator=generator)
        start = time.process_time()
        fit = fit_reml(values, design)
        sd = profile_sd(values, design, fit=fit)
        icc = profile_ratio(values, design, 0, others=[1, 2], fit=fit)
        rdc = profile_total(values, design, [0, 1, 1], fit=fit)
        took = time.process_time() - start
        null = simulate_values(design, np.array([truth[0], 0.0, truth[2]]), repeats, generator=generator)
        size = np.mean(boundary_test(null, design)[:, 1] < 0.05)
        cells = [share(sd.low[:, i], sd.high[:, i], np.sqrt(truth[i])) for i in range(3)]
        cells.append(share(icc.low, icc.high, truth[0] / truth.sum()))
        cells.append(share(rdc.low, rdc.high, np.sqrt(truth[1] + truth[2])))
        print(f"{n:4d} x {k:2d} {variances!s:>16} {'  '.join(cells)}  {100 * size:6.1f} %  {took:6.2f}")


def balanced(repeats: int, seed: int) -> None:
    print("\ncomplete, mean squares: coverage in % of MLS intervals (residual: chi-squared)")
    for n, k, variances in CASES:
        generator = np.random.default_rng(seed)
        truth = np.array(variances)
        values = (
            generator.normal(0, np.sqrt(truth[0]), (repeats, n, 1))
            + generator.normal(0, np.sqrt(truth[1]), (repeats, 1, k))
            + generator.normal(0, np.sqrt(truth[2]), (repeats, n, k))
        )
        fit = ems_components(values, [(0,), (1,)], n_leading=1)
        bounds = variance_intervals(fit)
        _, rdc = combine_components(fit, [0, 1, 1])
        cells = [share(bounds.low[:, i], bounds.high[:, i], truth[i]) for i in range(3)]
        print(
            f"{n:4d} x {k:2d} {variances!s:>16} {'  '.join(cells)}   RDC {share(rdc.low, rdc.high, truth[1] + truth[2])}"
        )


def nested(repeats: int, seed: int) -> None:
    print("\nsite / subject / session / repeat (4, 5, 2, 2), and crossed with interaction and repeats:")
    generator = np.random.default_rng(seed)
    parts = [(4, 1, 1, 1), (4, 5, 1, 1), (4, 5, 2, 1), (4, 5, 2, 2)]
    truth = np.array([4.0, 9.0, 1.0, 2.0])
    values = sum(
        generator.normal(0, np.sqrt(v), (repeats, *shape)) for v, shape in zip(truth, parts, strict=True)
    )
    fit = ems_components(values, [(0,), (0, 1), (0, 1, 2)], n_leading=1)
    bounds = variance_intervals(fit)
    print("  nested  ", "  ".join(share(bounds.low[:, i], bounds.high[:, i], truth[i]) for i in range(4)))
    parts = [(12, 1, 1), (1, 5, 1), (12, 5, 1), (12, 5, 2)]
    values = sum(
        generator.normal(0, np.sqrt(v), (repeats, *shape)) for v, shape in zip(truth, parts, strict=True)
    )
    fit = ems_components(values, [(0,), (1,), (0, 1)], n_leading=1)
    bounds = variance_intervals(fit)
    _, rdc = combine_components(fit, [0, 1, 1, 1])
    cells = "  ".join(share(bounds.low[:, i], bounds.high[:, i], truth[i]) for i in range(4))
    print(f"  crossed {cells}   RDC {share(rdc.low, rdc.high, truth[1:].sum())}")
    negative = np.mean(fit.raw < 0, axis=0)
    print(f"  negative estimates in % of tables: {np.round(100 * negative, 1)}")


def missing_icc(repeats: int, seed: int) -> None:
    print("\nICC(A,1) with a tenth of 20 x 6 cells missing, against the full table (target RMSE 0.02):")
    generator = np.random.default_rng(seed)
    subject, scanner = np.divmod(np.arange(120), 6)
    full = make_design({"subject": subject, "scanner": scanner})
    errors, listwise = [], []
    for _ in range(repeats):
        values = simulate_values(full, np.array([50.0, 5.0, 16.0]), 1, generator=generator)[0]
        keep = generator.random(120) > 0.1
        part = make_design({"subject": subject[keep], "scanner": scanner[keep]})
        reference, found = fit_reml(values, full).variances[0], fit_reml(values[keep], part).variances[0]
        errors.append(found[0] / found.sum() - reference[0] / reference.sum())
        complete = np.flatnonzero(keep.reshape(20, 6).all(axis=1))
        if complete.size >= 3:
            table = ems_components(values.reshape(20, 6)[complete], [(0,), (1,)]).raw
            listwise.append(table[0] / table.sum() - reference[0] / reference.sum())
    rmse, other = (float(np.sqrt(np.mean(np.square(e)))) for e in (errors, listwise))
    print(f"  REML {rmse:.4f}, complete subjects only {other:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unbalanced(options.repeats, options.seed)
    balanced(20 * options.repeats, options.seed)
    nested(20 * options.repeats, options.seed)
    missing_icc(options.repeats // 2, options.seed)
