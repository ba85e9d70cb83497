"""Coverage of the 95 % intervals of the area under the ROC curve, alone and cross-validated.

Run: python benchmarks/diagnostic_coverage.py [--repeats 4000] [--seed 0]

Markers are normal in cases and in controls, shifted so that the area is known.  The target is 93
to 97 %.  "wald" is the interval that is usually printed (DeLong on the area itself).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.logistic import cross_validated_auc
from cordqa.stats.roc import AucInterval, auc_interval, roc_areas


def auc_coverage(
    n_cases: int,
    n_controls: int,
    area: float,
    *,
    repeats: int = 2000,
    method: AucInterval = "auto",
    seed: int = 0,
) -> tuple[float, float, float, float]:
    """Coverage, share of intervals above the truth, share below it, and median width."""
    generator = np.random.default_rng(seed)
    case = np.arange(n_cases + n_controls) < n_cases
    shift = np.sqrt(2.0) * NormalDist().inv_cdf(area)
    found = roc_areas(generator.normal(0, 1, (repeats, case.size)) + shift * case, case)
    bounds, _ = auc_interval(found.area, np.diag(found.covariance), n_cases, n_controls, method=method)
    low, high = bounds.low, bounds.high
    return (
        float(np.mean((low <= area) & (area <= high))),
        float(np.mean(low > area)),
        float(np.mean(high < area)),
        float(np.median(high - low)),
    )


def cross_validated_coverage(n_cases: int, n_controls: int, shift: float, repeats: int, seed: int) -> str:
    """Coverage of the area that the fitted score reaches on new people."""
    generator = np.random.default_rng(seed)
    case = np.arange(n_cases + n_controls) < n_cases
    direction = np.array([shift, 0.5 * shift, 0.0])
    rows = []
    for index in range(repeats):
        markers = generator.normal(0, 1, (case.size, 3)) + case[:, None] * direction
        result = cross_validated_auc(markers, case, n_repeats=5, seed=index)
        slope = result.fit.coefficients[0, 1:]
        # The score is normal in both groups, so its area on new people is known exactly.
        truth = NormalDist().cdf(float(slope @ direction) / np.sqrt(2.0) / float(np.linalg.norm(slope)))
        bounds, _ = auc_interval(np.array([result.area]), np.array([result.variance]), n_cases, n_controls)
        inside = bounds.low[0] <= truth <= bounds.high[0]
        rows.append((inside, truth, result.area, result.apparent.area[0]))
    inside, truth, honest, apparent = np.mean(rows, axis=0)
    return f"{100 * inside:8.1f} {truth:8.3f} {honest:10.3f} {apparent:10.3f}"


def main(repeats: int, seed: int) -> None:
    print("area under the ROC curve: coverage in %, wholly above / below the truth, median width")
    print(f"{'cases':>6}{'controls':>9}{'area':>6}   {'cordqa':>26}   {'wald':>26}")
    for n_cases, n_controls in ((10, 10), (20, 20), (35, 22), (100, 100)):
        for area in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            cells = []
            for method in ("auto", "wald"):
                cover, above, below, width = auc_coverage(
                    n_cases, n_controls, area, repeats=repeats, method=method, seed=seed
                )
                cells.append(f"{100 * cover:6.1f} {100 * above:5.1f} /{100 * below:5.1f} {width:6.3f}")
            print(f"{n_cases:6d}{n_controls:9d}{area:6.2f}   {cells[0]:>26}   {cells[1]:>26}")
    print("\nlogistic score of three markers: coverage of its area on new people, and mean areas")
    print(
        f"{'cases':>6}{'controls':>9}{'shift':>7}{'cover %':>9}{'truth':>9}{'cross-val.':>11}{'apparent':>11}"
    )
    for n_cases, n_controls, shift in ((15, 15, 0.8), (35, 22, 0.8), (35, 22, 1.3), (100, 100, 0.8)):
        line = cross_validated_coverage(n_cases, n_controls, shift, repeats // 8, seed)
        print(f"{n_cases:6d}{n_controls:9d}{shift:7.1f} {line}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.repeats, options.seed)
