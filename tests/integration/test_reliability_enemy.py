"""Tables and limits made to get a wrong number or an unearned pass out of the reliability run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_tables import Row, cohort, travelling, write_rows

from cordqa.errors import ConfigError, EmptyInputError
from cordqa.records import Result, State, Statistic, Status
from cordqa.workflow.reliability import run_reliability
from cordqa.workflow.reliability_options import parse_limits
from cordqa.workflow.reliability_settings import make_settings


def run(tmp_path: Path, rows: Sequence[Row], **options: Any) -> Result:
    table = write_rows(tmp_path / "t.csv", rows)
    return run_reliability(table, tmp_path / "out", settings=make_settings(("", options)))


def named(result: Result, name: str) -> list[Statistic]:
    return [one for one in result.statistics if one.name == name and not one.group]


def messages(result: Result, code: str) -> list[str]:
    return [notice.message for notice in result.notices if notice.code == code]


# ------------------------------------------------------------------------- limits


def test_values_that_never_vary_do_not_pass_a_limit(tmp_path: Path) -> None:
    rows = [{**row, "value": "70"} for row in travelling(subjects=4, regions=("C2",))]
    result = run(tmp_path, rows, limit=["wCV<=3%", "RC<=1"])
    assert {verdict.status for verdict in result.verdicts} == {Status.WARN}
    assert all("does not vary" in verdict.reason for verdict in result.verdicts)


def test_an_estimate_without_an_interval_is_not_shown_to_meet_a_limit(tmp_path: Path) -> None:
    limits = ["intra_site_COV<=50%", "inter_site_COV<=0.0001%"]
    result = run(tmp_path, cohort(), definition="spine-generic", value={"csa": "CSA"}, limit=limits)
    found = {(v.rule, v.status) for v in result.verdicts}
    assert found == {(limits[0], Status.WARN), (limits[1], Status.FAIL)}
    met = next(v for v in result.verdicts if v.status is Status.WARN)
    assert "no interval" in met.reason


def test_a_limit_that_was_not_evaluated_is_said_by_name(tmp_path: Path) -> None:
    rows = travelling(subjects=12, regions=("C2",), shifts=(0.0, 0.0, 0.0))
    result = run(tmp_path, rows, limit=["wCV<=30%", "wVC<=3%"])
    assert any("wVC<=3%" in text for text in messages(result, "reliability.limit"))
    assert result.status is Status.WARN


@pytest.mark.parametrize("entry", ["wCV>=0.5%<=3%", "CSA: RC>=1<=2"])
def test_a_limit_with_two_signs_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="limit"):
        parse_limits([entry], "limit")


# ------------------------------------------------------------------------- what cannot be told apart


def test_repeats_are_not_claimed_where_nobody_was_scanned_twice(tmp_path: Path) -> None:
    result = run(tmp_path, travelling(subjects=10, sessions=1, regions=("C2",)))
    for name in ("within_scanner_SD", "within_scanner_CV"):
        (one,) = named(result, name)
        assert math.isnan(one.value)
        assert math.isnan(one.low)
        assert "nobody was measured twice" in one.note
    (rdc,) = named(result, "RDC")
    assert rdc.value > 0


def test_repeats_are_kept_where_there_are_any(tmp_path: Path) -> None:
    result = run(tmp_path, travelling(subjects=10, regions=("C2",)))
    (one,) = named(result, "within_scanner_SD")
    assert one.low < 1.0 < one.high


def test_one_subject_in_two_groups_is_said(tmp_path: Path) -> None:
    rows = cohort()
    rows[0]["diagnosis"], rows[1]["diagnosis"] = "DCM", "HC"
    assert rows[0]["participant_id"] == rows[1]["participant_id"]
    result = run(tmp_path, rows, value={"csa": "CSA"})
    assert len(messages(result, "table.group-changes")) == 1


def test_a_change_is_planned_with_the_spread_of_sessions_not_of_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    people = {f"s{i}": 70 + 6 * rng.normal() for i in range(15)}
    visits = {
        (who, session): mean + 3 * rng.normal() for who, mean in people.items() for session in (1, 2, 3)
    }
    rows: list[Row] = [
        {"subject": who, "session": session, "run": run, "CSA": f"{mean + 0.5 * rng.normal():.4f}"}
        for (who, session), mean in visits.items()
        for run in (1, 2)
    ]
    result = run(tmp_path, rows, difference=["CSA=2"])
    (n,) = [one.value for one in result.statistics if one.group == "change, same scanner, 2 mm2"]
    (spread,) = [
        one.value for one in result.statistics if one.name == "wSD" and one.group == "between=sessions"
    ]
    expected = 2 * ((1.96 + 0.8416) * spread / 2.0) ** 2
    assert n == pytest.approx(expected, abs=3)  # t instead of normal: two more
    assert messages(result, "reliability.mixed-repeats")
    single = run(tmp_path, [row for row in rows if row["run"] == 1])
    assert not messages(single, "reliability.mixed-repeats")


# ------------------------------------------------------------------------- harmonisation


def patients_of_other_sites() -> list[Row]:
    rng = np.random.default_rng(4)
    return [
        {
            "subject": f"s{site}{person}",
            "site": f"S{site}",
            "age": f"{rng.uniform(20, 70):.1f}",
            "group": "patient" if site < 2 else "control",
            "CSA": f"{70 - 8 * (site < 2) + 3 * rng.normal():.4f}",
        }
        for site in range(4)
        for person in range(11)
    ]


def test_combat_is_refused_where_sites_and_groups_go_together(tmp_path: Path) -> None:
    result = run(tmp_path, patients_of_other_sites(), harmonise="combat")
    failed = [one for one in result.outcomes if one.state is State.FAILED]
    assert len(failed) == 1
    assert "group" in failed[0].reason
    assert not (tmp_path / "out" / "harmonised.tsv").exists()


def test_groups_that_combat_does_not_keep_are_said(tmp_path: Path) -> None:
    rows = [
        {**row, "group": ("patient", "control")[i % 3 > 0]} for i, row in enumerate(patients_of_other_sites())
    ]
    said = run(tmp_path, rows, harmonise="combat")
    assert any("--covariate group" in text for text in messages(said, "reliability.harmonise-group"))
    kept = run(tmp_path, rows, harmonise="combat", covariate=["group"])
    assert not messages(kept, "reliability.harmonise-group")


# ------------------------------------------------------------------------- markers


def test_markers_may_be_named_as_in_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows: list[Row] = [
        {
            "subject": f"s{i}",
            "group": ("control", "patient")[i % 2],
            "csa": f"{70 - 4 * (i % 2) + 3 * rng.normal():.4f}",
            "FA": f"{0.6 - 0.05 * (i % 2) + 0.05 * rng.normal():.4f}",
        }
        for i in range(30)
    ]
    result = run(tmp_path, rows, marker=["csa", "fa"])
    assert not messages(result, "reliability.marker")


# ------------------------------------------------------------------------- what is in the table


def test_one_row_in_conflict_is_said_without_a_column_of_runs(tmp_path: Path) -> None:
    rows = travelling(subjects=8, regions=("C2",))
    result = run(tmp_path, [*rows, rows[3] | {"value": "99.5"}])
    (said,) = messages(result, "table.conflict")
    assert "line 50" in said
    balanced = [*rows, *(row | {"value": f"{float(str(row['value'])) + 0.5:.4f}"} for row in rows)]
    assert not messages(run(tmp_path, balanced), "table.conflict")


@pytest.mark.parametrize("option", ["unit", "scale"])
def test_an_option_for_a_quantity_finds_it_in_any_case_and_says_when_not(tmp_path: Path, option: str) -> None:
    rows: list[Row] = [
        {"subject": f"s{i}", "session": k, "dT1": f"{20 + i + 0.3 * k * i:.2f}"}
        for i in range(6)
        for k in (1, 2)
    ]
    given = {"unit": "dt1=ms", "scale": "dt1=interval"}[option]
    found = run(tmp_path, rows, value=["dT1"], **{option: [given]})
    assert not messages(found, "table.option")
    if option == "scale":
        assert all(math.isnan(one.value) for one in named(found, "wCV"))
    else:
        assert named(found, "wSD")[0].unit == "ms"
    slip = run(tmp_path, rows, value=["dT1"], **{option: [given.replace("dt1", "dR1")]})
    assert any("'dR1'" in text for text in messages(slip, "table.option"))


def test_commas_that_leave_no_value_are_explained(tmp_path: Path) -> None:
    rows: list[Row] = [{"subject": f"s{i}", "CSA": f"7{i},123"} for i in range(4)]
    with pytest.raises(EmptyInputError, match="--decimal"):
        run(tmp_path, rows)
