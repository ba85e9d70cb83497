"""The study of synthetic MRI: what was planted is found again, and the page is written."""

import json

import numpy as np
import pandas as pd
import pytest

from cordqa.cli._run import run
from cordqa.errors import ConfigError
from cordqa.io.results import read_result
from cordqa.records import Status
from cordqa.simulate.synthetic_mri_study import (
    PLANTED,
    VOLUMES,
    cv_of_scanners,
    simulate_synthetic_mri,
    true_cv,
)
from cordqa.stats.linearity import linearity
from cordqa.stats.reproducibility import reproducibility

REFERENCES = {
    "T1": {str(n + 1): v for n, v in enumerate(np.geomspace(1900, 21, 7))},
    "T2": {str(n + 1): v for n, v in enumerate(np.geomspace(550, 5.1, 7))},
    "PD": {str(n + 1): v for n, v in enumerate(np.linspace(5, 100, 7))},
}


def test_planted_values_are_covered_over_many_studies():
    hits = {"within": [], "between": [], "slope": [], "these": []}
    for seed in range(16):
        study = simulate_synthetic_mri(REFERENCES, seed=seed, n_people=6)
        for rows in (study.phantom, study.people):
            frame = pd.DataFrame(rows)
            found = reproducibility(frame, by=["quantity", "region"], unit="unit", nan_policy="reml")
            for row in found.itertuples():
                kind = str(row.statistic).removesuffix("_scanner_CV")
                if kind in ("within", "between"):
                    mean = study.means[row.quantity, row.region]
                    truth = true_cv(row.quantity, mean, between=kind == "between")
                    hits[kind].append(row.low <= truth <= row.high)
            fixed = reproducibility(frame, by=["quantity", "region"], unit="unit", scanners="fixed")
            for row in fixed[fixed["statistic"] == "between_scanner_CV"].itertuples():
                hits["these"].append(row.low <= cv_of_scanners(study, row.quantity, row.region) <= row.high)
        lines = linearity(
            pd.DataFrame(study.phantom),
            cluster="session",
            errors="constant",
            by=["quantity", "scanner"],
            unit="unit",
        )
        for row in lines[lines["statistic"] == "slope"].itertuples():
            hits["slope"].append(row.low <= study.gains[row.quantity, row.scanner] <= row.high)
    assert 0.92 < np.mean(hits["within"]) < 0.98
    assert 0.92 < np.mean(hits["these"]) < 0.98
    assert 0.90 < np.mean(hits["slope"]) < 0.99
    # 16 studies of three scanners: regions share them, so that the share is known to 0.06 only.
    assert np.mean(hits["between"]) > 0.80


def test_variation_grows_away_from_values_of_the_brain():
    for name, planted in PLANTED.items():
        assert true_cv(name, planted.brain, between=False) == pytest.approx(100 * planted.within_cv)
        assert planted.within(planted.brain / 10) > planted.within(planted.brain)
        assert planted.between(planted.brain / 10) > planted.between(planted.brain)


def test_the_same_seed_gives_the_same_study():
    first, same, other = (simulate_synthetic_mri(REFERENCES, seed=s) for s in (1, 1, 2))
    assert first == same
    assert first.gains != other.gains
    assert all(row["value"] > 0 for row in (*first.phantom, *first.people))


@pytest.mark.parametrize("change", [{"n_runs": 1}, {"n_people": 1}, {"n_sessions": 0}])
def test_too_small_a_study_is_refused(change):
    with pytest.raises(ConfigError, match="two runs, two people"):
        simulate_synthetic_mri(REFERENCES, seed=0, **change)
    with pytest.raises(ConfigError, match="positive references"):
        simulate_synthetic_mri({"T1": {"1": 1.0}}, seed=0)


def test_the_command_writes_overview_and_both_reports(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["demo", str(out), "--study", "synthetic-mri", "--repeats", "4", "--people", "3", "--seed", "3"]
    assert run(words) == 0
    capsys.readouterr()
    result = read_result(out)
    assert result.status is Status.PASS
    assert result.verdicts[0].observed > result.verdicts[0].low
    assert "--seed 3 --repeats 4 --people 3" in result.provenance.command
    truth = json.loads((out / "truth.json").read_text())
    assert set(truth["planted"]) == set(PLANTED)
    for part in ("phantom", "volunteers"):
        page = (out / part / "report.html").read_text()
        assert "../report.html" in page
        assert (out / f"{part}.tsv").is_file()
    page = (out / "report.html").read_text()
    assert "phantom/report.html" in page
    names = {figure.name for figure in result.figures}
    assert {"truth-slope", "truth-within-scanner-CV", "truth-between-scanner-CV"} <= names
    assert {"truth-between-scanner-CV-these-scanners", "largest-cv"} <= names
    shared = [s for s in result.statistics if "CV between these scanners" in s.group]
    assert sum(s.n["intervals"] for s in shared) == 3 * 14 + 3 * 7 + len(VOLUMES)
    # What studies of regional volumes print: over all regions, in percent and as ICC.
    regional = {s.name for s in result.statistics if s.quantity == "volume"}
    assert {"regions below 10 %", "mean ICC(C,1)"} <= regional
    largest = [s for s in result.statistics if s.name == "largest within_scanner_CV"]
    assert len(largest) == 7


def test_the_spread_of_three_scanners_is_that_of_what_they_read_without_noise():
    study = simulate_synthetic_mri(REFERENCES, seed=5)
    seen = [
        1000.0 * study.gains["T1", f"SIM-{vendor}"] + study.offsets["T1", f"SIM-{vendor}"]
        for vendor in ("GE", "Siemens", "Philips")
    ]
    study.means["T1", "made up"] = 1000.0
    expected = 100 * np.std(seen, ddof=1) / np.mean(seen)
    assert cv_of_scanners(study, "T1", "made up") == pytest.approx(expected)
