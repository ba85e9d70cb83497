"""Time and exactness of variance components: mean squares, REML, and statsmodels beside them.

Run: python benchmarks/reml_speed.py [--gold FOLDER] [--statsmodels]

FOLDER holds the gold tables (expected.csv and the data sets that it names).  With --statsmodels
a crossed design of 60 subjects is fitted by statsmodels as well (a thousand take it over a minute).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.component_intervals import profile_sd
from cordqa.stats.ems import combine_components, ems_components, f_test, variance_intervals
from cordqa.stats.mixed_design import find_inestimable_terms, make_design
from cordqa.stats.reml import fit_reml


def cpu(action, repeats: int = 3) -> float:
    """Best CPU time of some runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def mean_squares() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0, 10, (10_000, 20, 1)) + generator.normal(0, 3, (10_000, 1, 6))
    values = values + generator.normal(0, 4, (10_000, 20, 6))
    terms = [(0,), (1,)]
    fit = ems_components(values, terms, n_leading=1)
    print("10,000 regions x 20 subjects x 6 scanners, CPU seconds (target 0.2):")
    print(f"  components                {cpu(lambda: ems_components(values, terms, n_leading=1)):.3f}")
    print(f"  their intervals           {cpu(lambda: variance_intervals(fit)):.3f}")
    print(f"  RDC with interval         {cpu(lambda: combine_components(fit, [0, 1, 1])):.3f}")
    print(f"  F tests                   {cpu(lambda: f_test(fit)):.3f}")


def crossed(n_subjects: int, n_scans: int, n_scanners: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n_subjects), n_scans)
    scanner = generator.integers(0, n_scanners, subject.size)
    values = 100 + generator.normal(0, 8, n_subjects)[subject] + generator.normal(0, 3, n_scanners)[scanner]
    return subject, scanner, values + generator.normal(0, 2, subject.size)


def restricted_likelihood() -> None:
    print("\nREML, crossed subjects and scanners, CPU seconds (target 1 for 1,000 x 4):")
    for n_subjects, n_scanners, interaction in ((1000, 4, 0), (1000, 43, 0), (1000, 6, 1), (10_000, 10, 0)):
        subject, scanner, values = crossed(n_subjects, 4, n_scanners)
        labels = {"subject": subject, "scanner": scanner}
        if interaction:
            labels["both"] = subject * n_scanners + scanner

        def fit(labels=labels, values=values):
            design = make_design(labels)
            find_inestimable_terms(design)
            return fit_reml(values, design)

        result = fit()
        took = cpu(fit)
        profiled = cpu(lambda labels=labels, values=values: profile_sd(values[None], make_design(labels)), 1)
        print(
            f"  {n_subjects} x 4 on {n_scanners} scanners{' + interaction' if interaction else ''}: "
            f"fit {took:.3f}, profile intervals {profiled:.2f}, variances {np.round(result.variances[0], 2)}"
        )


def statsmodels_beside() -> None:
    import warnings

    import statsmodels.api as sm

    print("\nstatsmodels on 60 subjects x 4 scans, 4 scanners (one group, variance components):")
    subject, scanner, values = crossed(60, 4, 4)
    ours = cpu(lambda: fit_reml(values, make_design({"subject": subject, "scanner": scanner})))
    parts = [(column[:, None] == np.unique(column)).astype(float) for column in (subject, scanner)]
    names = [[str(level) for level in np.unique(column)] for column in (subject, scanner)]
    model = sm.MixedLM(
        values,
        np.ones((values.size, 1)),
        np.zeros(values.size),
        exog_vc=sm.regression.mixed_linear_model.VCSpec(
            ["subject", "scanner"], [[n] for n in names], [[p] for p in parts]
        ),
    )
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model.fit(reml=True)
    took = time.process_time() - start
    print(f"  statsmodels {took:.2f} s {np.round(theirs.vcomp, 3)}, cordqa {ours:.4f} s")


def against_lme4(folder: Path) -> None:
    import pandas as pd

    print("\nGold designs: largest difference from lme4 in residual variances (target 1e-3):")
    reference = json.loads((folder / "expected_R.json").read_text())
    cases = {
        "dyestuff": ("lme4_dyestuff.csv", "Yield", ["Batch"], None),
        "dyestuff2": ("lme4_dyestuff2.csv", "Yield", ["Batch"], None),
        "penicillin": ("lme4_penicillin.csv", "diameter", ["plate", "sample"], None),
        "pastes": ("lme4_pastes.csv", "strength", ["cask:batch", "batch"], None),
        "rail": ("nlme_rail.csv", "travel", ["Rail"], None),
        "machines": ("nlme_machines.csv", "score", ["Worker:Machine", "Worker"], "Machine"),
        "machines_unbal": ("machines_unbalanced.csv", "score", ["Worker:Machine", "Worker", "Machine"], None),
    }
    for name, (file, value, terms, fixed) in cases.items():
        data = pd.read_csv(folder / file)
        labels = {t: data[t.split(":")].astype(str).agg("|".join, axis=1) for t in terms}
        columns = np.ones((len(data), 1))
        if fixed:
            columns = np.column_stack([columns, pd.get_dummies(data[fixed], drop_first=True).to_numpy(float)])
        fit = fit_reml(data[value].to_numpy(float), make_design(labels, columns))
        theirs = {row["grp"]: row["vcov"] for row in reference[name]["vc"]}
        ours = dict(zip((*terms, "Residual"), fit.variances[0], strict=True))
        gap = max(abs(ours[k] - theirs[k]) for k in theirs) / theirs["Residual"]
        deviance = fit.deviance[0]
        print(f"  {name:15s} {gap:.1e}   deviance minus lme4's {deviance - reference[name]['reml']:+.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gold", type=Path)
    parser.add_argument("--statsmodels", action="store_true")
    options = parser.parse_args()
    mean_squares()
    restricted_likelihood()
    if options.statsmodels:
        statsmodels_beside()
    if options.gold:
        against_lme4(options.gold)
