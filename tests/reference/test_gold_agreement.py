"""Gold tables: Shrout-Fleiss, wine, Bland-Altman 1986 and 1999, chi-squared constants."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cordqa.stats.agreement_core import ccc_arrays, limits_arrays, limits_standard_error, replicated_limits
from cordqa.stats.definitions import spine_generic_cov
from cordqa.stats.icc import icc, icc_arrays
from cordqa.stats.icc_core import FORMS, mean_squares
from cordqa.stats.linearity_core import moments
from cordqa.stats.quantiles import chi2_quantile, sd_interval
from cordqa.stats.repeatability import repeatability
from cordqa.stats.repeatability_core import REPEATABILITY_FACTOR, repeatability_arrays
from cordqa.stats.reproducibility_core import crossed_squares, reproducibility_arrays

PSYCH = ("ICC1", "ICC2", "ICC3", "ICC1k", "ICC2k", "ICC3k")
MINE = (
    "shrout_fleiss_1979.csv",
    "pingouin_wine_icc.csv",
    "bland_altman_1986_pefr.csv",
    "bland_altman_1999_sbp.csv",
    "chi2_constants",
)


@pytest.fixture(scope="module")
def gold(shared_data) -> Path:
    return shared_data / "tables" / "gold"


def read(path: Path) -> np.ndarray:
    return np.genfromtxt(path, delimiter=",", skip_header=1)


def expected(gold: Path, dataset: str) -> dict[str, tuple[float, float]]:
    with (gold / "expected.csv").open(newline="", encoding="utf-8") as stream:
        return {
            row["statistic"]: (float(row["expected"]), float(row["abs_tol"]))
            for row in csv.DictReader(stream)
            if row["dataset"] == dataset
        }


def assert_all(found: dict[str, float], wanted: dict[str, tuple[float, float]]) -> None:
    assert set(found) == set(wanted)
    wrong = {k: (found[k], v) for k, (v, tol) in wanted.items() if not abs(found[k] - v) <= tol}
    assert not wrong


def test_every_dataset_of_this_part_is_tested(gold):
    with (gold / "expected.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    counts = {name: sum(r["dataset"] == name for r in rows) for name in MINE}
    assert counts == dict(zip(MINE, (21, 6, 20, 10, 15), strict=True))


def test_shrout_fleiss(gold):
    scores = read(gold / "shrout_fleiss_1979.csv")[:, 1:]
    result = icc_arrays(scores)
    found = {}
    for i, name in enumerate(PSYCH):
        found |= {
            f"{name}.ICC": result.value[i],
            f"{name}.lo": result.low[i],
            f"{name}.hi": result.high[i],
        }
    ms = mean_squares(scores)
    found |= {"BMS": ms.subjects, "JMS": ms.raters, "EMS": ms.error}
    assert_all(found, expected(gold, "shrout_fleiss_1979.csv"))


def test_shrout_fleiss_f_df_p_as_in_psych(gold):
    rows = json.loads((gold / "expected_R.json").read_text(encoding="utf-8"))["shrout_fleiss"]
    by_type = {row["type"]: row for row in rows}
    result = icc_arrays(read(gold / "shrout_fleiss_1979.csv")[:, 1:])
    for name, field in {"F": "F", "df1": "df1", "df2": "df2", "p": "p"}.items():
        wanted = [by_type[t][name] for t in PSYCH]
        np.testing.assert_allclose(getattr(result, field), wanted, rtol=1e-9)


def test_shrout_fleiss_with_missing_cells_by_reml(gold):
    # psych takes lmer's components and the full table's df; the estimates must agree, to the
    # tolerance to which lmer's optimiser had settled.
    rows = json.loads((gold / "expected_R.json").read_text(encoding="utf-8"))["shrout_fleiss_missing_lmer"]
    scores = read(gold / "shrout_fleiss_missing.csv")
    table = [
        {"subject": int(line[0]), "scanner": j, "value": v}
        for line in scores
        for j, v in enumerate(line[1:])
        if np.isfinite(v)
    ]
    found = icc(table, nan_policy="reml")
    wanted = {row["type"]: row["ICC"] for row in rows}
    np.testing.assert_allclose(found["value"], [wanted[t] for t in PSYCH], atol=1e-5)
    assert (found["flags"].str.contains("missing-cells")).all()


def test_wine(gold):
    with (gold / "pingouin_wine_icc.csv").open(newline="", encoding="utf-8") as stream:
        table = [{**row, "Scores": float(row["Scores"])} for row in csv.DictReader(stream)]
    found = icc(table, value="Scores", subject="Wine", rater="Judge")
    assert_all(
        dict(zip(found["statistic"], found["value"], strict=True)), expected(gold, "pingouin_wine_icc.csv")
    )
    assert tuple(found["statistic"]) == FORMS


def test_peak_flow_1986(gold):
    columns = read(gold / "bland_altman_1986_pefr.csv")
    wright, mini = columns[:, 1:3], columns[:, 3:5]
    difference = wright[:, 0] - mini[:, 0]
    two = limits_arrays(difference, z=2.0)
    limits = limits_arrays(difference)
    repeat = {name: repeatability_arrays(v) for name, v in (("wright", wright), ("mini", mini))}
    ccc = ccc_arrays(wright[:, 0], mini[:, 0])
    found = {
        "bias": limits.bias,
        "sd": limits.sd,
        "loa2[0]": two.lower,
        "loa2[1]": two.upper,
        "loa196[0]": limits.lower,
        "loa196[1]": limits.upper,
        "ci_bias[0]": limits.bias_low,
        "ci_bias[1]": limits.bias_high,
        "se_loa_approx": limits_standard_error(limits.sd, 17, rule="1986"),
        "se_loa_exact": limits_standard_error(limits.sd, 17),
        "r": moments(wright[:, 0], mini[:, 0]).r,
        "wsd_wright": repeat["wright"].wsd,
        "wsd_mini": repeat["mini"].wsd,
        "sd_diff_wright_ms": math.sqrt(2.0) * repeat["wright"].wsd,
        "sd_diff_mini": math.sqrt(2.0) * repeat["mini"].wsd,
        "wcv_rms_wright": repeat["wright"].wcv[0],
        "wcv_log_wright": repeat["wright"].wcv[1],
        "ccc.est": ccc.value,
        "ccc.lower": ccc.low,
        "ccc.upper": ccc.high,
    }
    wanted = expected(gold, "bland_altman_1986_pefr.csv")
    found = {k: float(v) for k, v in found.items()}
    assert_all(found, wanted)


def test_blood_pressure_1999(gold):
    columns = read(gold / "bland_altman_1999_sbp.csv")
    j, s = columns[:, 1:4], columns[:, 7:10]
    first = limits_arrays(j[:, 0] - s[:, 0])
    single = replicated_limits(j, s)
    within = [repeatability_arrays(x) for x in (j, s)]
    found = {
        "J1-S1 mean": first.bias,
        "J1-S1 sd": first.sd,
        "var_within_J": within[0].wsd ** 2,
        "var_within_S": within[1].wsd ** 2,
        "var_of_mean_diff": limits_arrays(j.mean(axis=1) - s.mean(axis=1)).sd ** 2,
        "sd_single_diff_corrected": single.sd,
        "loa_lo": single.lower,
        "loa_hi": single.upper,
        "repeatability_J": REPEATABILITY_FACTOR * within[0].wsd,
        "repeatability_S": REPEATABILITY_FACTOR * within[1].wsd,
    }
    assert_all({k: float(v) for k, v in found.items()}, expected(gold, "bland_altman_1999_sbp.csv"))


def test_chi2_constants(gold):
    found = {}
    for n, k in ((10, 2), (20, 2), (35, 2), (50, 2), (10, 10)):
        df = n * (k - 1)
        low, high = sd_interval(1.0, df)
        found[f"n={n},K={k}: two-sided95 upper/est wSD"] = float(high)
        found[f"n={n},K={k}: two-sided95 lower/est wSD"] = float(low)
        found[f"n={n},K={k}: one-sided95 upper/est wSD"] = float(np.sqrt(df / chi2_quantile(0.05, df)))
    assert_all(found, expected(gold, "chi2_constants"))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_crossed_designs(gold, which):
    columns = read(gold / f"crossed_{which}.csv")
    values = np.full((20, 6, 2), np.nan)
    s, c, r = columns[:, :3].astype(int).T
    values[s, c, r] = columns[:, 3]
    found = reproducibility_arrays(values)
    wanted = expected(gold, f"crossed_{which}.csv")
    squares = crossed_squares(values)
    for name, value in {
        "var s": (squares.subject - squares.interaction) / 12,
        "var c": found.scanner_variance,
        "var sc": found.interaction_variance,
        "var e": found.within**2,
    }.items():
        assert value == pytest.approx(wanted[name][0], abs=wanted[name][1])


# ------------------------------------------------------------------------------- real cohorts


def test_spine_generic_definition(shared_data):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(shared_data / "tables" / "spine_generic_csa.csv")
    c2c3 = table[table["level"] == "C2C3"]
    found = spine_generic_cov(c2c3, value="csa", subject="participant_id")
    wide = found.pivot(index="vendor", columns="statistic", values="value")
    # Computed with numpy's SD (dividing by n) over all 203 people, none excluded.
    published = {"GE": (5.15, 4.35), "Philips": (6.31, 5.07), "Siemens": (7.23, 5.81)}
    for vendor, (intra, inter) in published.items():
        assert wide.loc[vendor, "intra_site_COV"] == pytest.approx(intra, abs=0.005)
        assert wide.loc[vendor, "inter_site_COV"] == pytest.approx(inter, abs=0.005)
    better = found[found["statistic"].isin(["within_site_CV", "between_site_CV"])]
    assert (better["low"] <= better["value"]).all()
    assert (better["value"] <= better["high"]).all()
    assert found.groupby("vendor")["n_sites"].first().to_dict() == {"GE": 6, "Philips": 8, "Siemens": 29}


def test_masivar_cohort_three(shared_data):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(shared_data / "tables" / "masivar_csa.csv")
    part = table[(table["cohort"] == "III") & (table["level"] == "C2C3")]
    found = repeatability(part, value="csa", subject="participant_id").set_index("statistic")
    wcv = found.loc["wCV"]
    assert (round(wcv["value"], 2), round(wcv["low"], 2), round(wcv["high"], 2)) == (1.74, 1.25, 2.87)
    assert round(found.loc["RC", "value"], 2) == 3.26
    assert (wcv["n_repeated"], wcv["n_single"]) == (5, 3)
