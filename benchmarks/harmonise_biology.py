"""Harmonisation judged where it counts: pairs it has not seen, and biology that must survive.

Run: python benchmarks/harmonise_biology.py [--repeats 20] [--table spine_generic_csa.csv]

Simulated cohort: six sites whose people differ in sex and age, sites with shift and scale, twelve
people scanned at every site.  "RDC ratio": after over before for travellers who were left out of
the fit (below 1 helps).  "kept": sex and age effect in the harmonised values over the truth.
With the table of the spine-generic multi-subject data, people whom two sites of one town have in
common (same age, sex, height and weight) serve as real travellers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cordqa.stats.component_ratios import REPEATABILITY_FACTOR
from cordqa.stats.harmonise import (
    Combat,
    CovBat,
    LongCombat,
    TravellingSubject,
    judge_biology,
    transform_unseen,
)

SEX_EFFECT, AGE_EFFECT = 5.0, -0.1


def cohort(n_per_site: int, n_travellers: int, seed: int):
    """Values (scans, 7), the same on one scanner, site, subject, covariates; sites differ in sex and age."""
    generator = np.random.default_rng(seed)
    sites = np.repeat(np.arange(6), n_per_site)
    travel = np.repeat(np.arange(6), n_travellers)
    site = np.concatenate([sites, travel])
    local = np.arange(sites.size)
    subject = np.concatenate([local, sites.size + np.tile(np.arange(n_travellers), 6)])
    men = np.concatenate(
        [generator.random(sites.size) < np.linspace(0.2, 0.8, 6)[sites], np.arange(n_travellers) % 2 == 0]
    )
    age = np.concatenate(
        [generator.normal(np.linspace(30, 55, 6)[sites], 9), generator.uniform(25, 60, n_travellers)]
    )
    person = generator.normal(0, 5, (men.size, 1)) + generator.normal(0, 2, (men.size, 7))
    level = 72 + np.arange(7) + SEX_EFFECT * men[:, None] + AGE_EFFECT * (age - 45)[:, None] + person
    shift = generator.normal(0, 2.0, (6, 1)) + generator.normal(0, 1.0, (6, 7))
    scale = np.exp(generator.normal(0, 0.2, (6, 1)))
    noise = generator.normal(0, 1.2, (subject.size, 7)) * scale[site]
    values = level[subject] + shift[site] + noise
    perfect = level[subject] + noise / scale[site]
    covariates = {"age": age[subject], "sex": np.where(men, "M", "F")[subject]}
    return values, perfect, site.astype(str), subject.astype(str), covariates


def rdc(values, site, subject) -> float:
    """Root mean square over features of the reproducibility coefficient of travellers."""
    total, freedom = 0.0, 0
    for who in np.unique(subject):
        mine = subject == who
        if np.unique(site[mine]).size > 1 and np.isfinite(values[mine]).all():
            rest = values[mine] - values[mine].mean(axis=0)
            total += float(np.sum(rest**2)) / values.shape[1]
            freedom += mine.sum() - 1
    return REPEATABILITY_FACTOR * float(np.sqrt(total / freedom)) if freedom else np.nan


METHODS = {
    "none": (None, True),
    "TravellingSubject": (TravellingSubject(), False),
    "TravellingSubject, REML": (TravellingSubject(method="reml"), False),
    "ComBat, age and sex kept": (Combat(), True),
    "ComBat shift, age and sex kept": (Combat(mean_only=True), True),
    "ComBat, nothing kept": (Combat(), False),
    "CovBat, age and sex kept": (CovBat(), True),
    "LongCombat, age and sex kept": (LongCombat(), True),
}


def simulated(repeats: int, n_per_site: int, n_travellers: int) -> None:
    print(f"\n{n_per_site} people per site, {n_travellers} travellers, {repeats} cohorts:")
    print(f"{'':32s}{'RDC':>7}{'ratio':>7}{'sex kept':>10}{'age kept':>10}{'CPU s':>7}")
    for name, (method, keeps) in METHODS.items():
        rows, start = [], time.process_time()
        for seed in range(repeats):
            values, perfect, site, subject, covariates = cohort(n_per_site, n_travellers, seed)
            kept = covariates if keeps else None
            before = rdc(values, site, subject)
            if method is None:
                after, clean = before, values
            else:
                unseen, _ = transform_unseen(
                    method, values, batch=site, subject=subject, covariates=kept, n_folds=4, seed=seed
                )
                after = rdc(unseen, site, subject)
                clean = method.clone().fit_transform(values, batch=site, covariates=kept, subject=subject)
            # One scan per person: travellers enter with their first only.
            _, first = np.unique(subject, return_index=True)
            columns = {key: np.asarray(column)[first] for key, column in covariates.items()}
            effects = []
            for table in (clean, perfect):
                judged = judge_biology(table[first], table[first], batch=site[first], covariates=columns)
                found = judged.loc[judged["statistic"] == "effect after"].groupby("covariate")["value"].mean()
                effects += [found["sex M"], found["age"]]
            rows.append((after, after / before, *effects))
        mean = np.mean(rows, axis=0)
        kept_sex, kept_age = 100 * mean[2] / mean[4], 100 * mean[3] / mean[5]
        took = (time.process_time() - start) / repeats
        cells = f"{mean[0]:7.2f}{mean[1]:7.2f}{kept_sex:8.0f} %{kept_age:8.0f} %{took:7.2f}"
        print(f"{name:32s}{cells}")


TOWNS = {"Oxford": ("oxfordFmrib", "oxfordOhba"), "Beijing": ("beijing750", "beijingVerio")}


def real(path: Path) -> None:
    import pandas as pd

    data = pd.read_csv(path).dropna(subset=["csa", "age", "sex", "height", "weight"])
    town = {site: name for name, sites in TOWNS.items() for site in sites}
    body = data[["age", "sex", "height", "weight"]].astype(str).agg("-".join, axis=1)
    at_home = data["site"].map(town)
    data["person"] = np.where(at_home.notna(), at_home.astype(str) + body, data["participant_id"])
    wide = data.pivot_table(index=["person", "site", "age", "sex"], columns="level", values="csa").dropna()
    frame = wide.reset_index()
    values, site, subject = wide.to_numpy(), frame["site"].to_numpy(str), frame["person"].to_numpy(str)
    covariates = {"age": frame["age"].to_numpy(float), "sex": frame["sex"].to_numpy(str)}
    print("\nreal pairs, all levels, RDC in mm2 before -> after, people left out one by one:")
    for name, sites in TOWNS.items():
        here = np.isin(site, sites)
        shared = [w for w in np.unique(subject[here]) if np.unique(site[here & (subject == w)]).size == 2]
        pairs = here & np.isin(subject, shared)
        before = rdc(values[pairs], site[pairs], subject[pairs])
        print(f"  {name} ({len(shared)} people, {' / '.join(sites)}): before {before:.2f}")
        local = {"values": values[pairs], "batch": site[pairs], "subject": subject[pairs]}
        for label, method in (
            ("least squares", TravellingSubject()),
            ("REML", TravellingSubject(method="reml")),
        ):
            after, _ = transform_unseen(
                method, local["values"], batch=local["batch"], subject=local["subject"]
            )
            print(f"    TravellingSubject, {label:14s} {rdc(after, local['batch'], local['subject']):6.2f}")
        for label, method in (("ComBat", Combat()), ("LongCombat", LongCombat())):
            after, _ = transform_unseen(method, values, batch=site, subject=subject, covariates=covariates)
            print(f"    {label:33s} {rdc(after[pairs], site[pairs], subject[pairs]):6.2f}")
    _, first = np.unique(subject, return_index=True)
    columns = {key: column[first] for key, column in covariates.items()}
    print("  sex effect kept within sites, all sites, age and sex as covariates:")
    for label, method in (("ComBat", Combat()), ("ComBat, shift only", Combat(mean_only=True))):
        clean = method.fit_transform(values, batch=site, covariates=covariates, subject=subject)
        judged = judge_biology(
            values[first], clean[first], batch=site[first], covariates=columns, features=list(wide)
        )
        chosen = (judged["covariate"] == "sex M") & (judged["statistic"] == "effect kept")
        kept = judged.loc[chosen, "value"]
        print(f"    {label:33s} {100 * kept.min():.0f} to {100 * kept.max():.0f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    for n_per_site, n_travellers in ((20, 12), (6, 5)):
        simulated(options.repeats, n_per_site, n_travellers)
    if options.table:
        real(options.table)
