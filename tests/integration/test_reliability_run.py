"""From a table to a report: truth recovered, published numbers reached, bad input said."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_tables import Row, cohort, phantom, travelling, write_rows

from cordqa.errors import ConfigError, CordqaError, EmptyInputError, TableError
from cordqa.io.results import read_result, write_result
from cordqa.io.tables import read_table
from cordqa.records import Entities, Measurement, Result, Severity, State, Statistic, Status, as_plain
from cordqa.report import render_report, render_text
from cordqa.workflow.reliability import run_reliability
from cordqa.workflow.reliability_checks import check_long
from cordqa.workflow.reliability_design import Design, read_design
from cordqa.workflow.reliability_long import make_long
from cordqa.workflow.reliability_settings import make_settings, read_options
from cordqa.workflow.reliability_table import LongTable


def run(tmp_path: Path, rows: Sequence[Row] | Path, **options: Any) -> Result:
    table = rows if isinstance(rows, Path) else write_rows(tmp_path / "t.csv", rows)
    return run_reliability(table, tmp_path / "out", settings=make_settings(("", options)))


def read(tmp_path: Path, rows: Sequence[Row], **options: Any) -> tuple[LongTable, Design]:
    """Lay a table out and read its design, without the statistics."""
    settings = make_settings(("", options))
    long = make_long(read_table(write_rows(tmp_path / "t.csv", rows)), settings)
    check_long(long, settings)
    return long, read_design(long, settings)


def one(result: Result, name: str, *, region: str = "", group: str = "", quantity: str = "") -> Statistic:
    found = [
        s
        for s in result.statistics
        if s.name == name and s.group == group and region in ("", s.region) and quantity in ("", s.quantity)
    ]
    assert len(found) == 1, f"{len(found)} of {name}"
    return found[0]


def codes(result: Result | LongTable) -> set[str]:
    return {notice.code for notice in result.notices}


def message(result: Result | LongTable, code: str) -> str:
    return next(notice.message for notice in result.notices if notice.code == code)


def skipped(result: Result) -> dict[str, str]:
    return {o.what: o.reason for o in result.outcomes if o.state is State.SKIPPED}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("study"), travelling(subjects=16))


# ------------------------------------------------------------------------- truth is recovered


def test_spreads_of_a_travelling_study_are_recovered(study: Result) -> None:
    for region in ("C2", "C10"):
        wsd, rc = one(study, "wSD", region=region), one(study, "RC", region=region)
        assert wsd.low < 1.0 < wsd.high
        assert wsd.value == pytest.approx(1.0, rel=0.2)  # 48 degrees of freedom: SD of 10 %
        assert rc.value == pytest.approx(1.96 * math.sqrt(2) * wsd.value)
        assert one(study, "wCV", region=region).value == pytest.approx(100 * wsd.value / 68.5, rel=0.05)
        between = one(study, "between_scanner_SD", region=region)
        assert between.value == pytest.approx(2.0, rel=0.25)  # SD of 0, 2 and -2
        rdc = one(study, "RDC", region=region)
        assert rdc.value == pytest.approx(1.96 * math.sqrt(2 * (between.value**2 + wsd.value**2)), rel=0.1)
        bias = one(study, "bias", region=region, group="scanner=B")
        assert bias.low < 2.0 < bias.high
        limits = one(study, "loa_lower", region=region, group="first=A, second=B")
        assert limits.value == pytest.approx(-2 - 1.96 * math.sqrt(2), abs=0.9)
        icc = one(study, "ICC(A,1)", region=region)
        assert 0.6 < icc.value < 1 and icc.low < icc.value < icc.high
        subject = one(study, "SD subject", region=region)
        assert subject.low < 6.0 < subject.high


def test_every_statistic_names_its_estimator_and_n(study: Result) -> None:
    assert len(study.statistics) > 100
    for statistic in study.statistics:
        assert statistic.estimator or statistic.note or statistic.flags, statistic.name
        if not statistic.name.startswith("n "):
            assert statistic.n, statistic.name
        assert statistic.quantity == "CSA"
    # Estimates with an interval say how it came about.
    for statistic in study.statistics:
        if math.isfinite(statistic.low) and math.isfinite(statistic.high):
            assert statistic.interval_method and statistic.low <= statistic.value <= statistic.high


def test_all_that_a_travelling_study_allows_is_done(study: Result) -> None:
    done = [o for o in study.outcomes if o.state is State.DONE]
    assert [o.what for o in done] == ["Cross-sectional area, C2", "Cross-sectional area, C10"]
    for name in ("repeatability", "reproducibility", "ICC", "variance components", "agreement", "planning"):
        assert name in done[0].reason
    assert set(skipped(study)) == {"Linearity", "Diagnostic value", "Drift"}
    assert {f.kind for f in study.figures} >= {
        "heatmap",
        "bars",
        "forest",
        "components",
        "bland_altman",
        "strip",
    }


def test_a_slope_against_references_is_recovered(tmp_path: Path) -> None:
    result = run(tmp_path, phantom(slope=1.08))
    slope = one(result, "slope")
    assert slope.low < 1.08 < slope.high
    assert slope.n["clusters"] == 3
    assert "slope of 1.0" in message(result, "reliability.slope")
    for scanner, bias in (("A", 0.99), ("C", 1.01)):
        own = one(result, "slope", group=f"scanner={scanner}")
        assert own.value == pytest.approx(1.08 * bias, rel=0.003)
    # One object has no ICC over subjects, and the report says so.
    assert "one subject only" in skipped(result)["Intraclass correlation"]
    assert one(result, "wCV", region="sphere 1").value == pytest.approx(0.4, rel=0.6)
    assert one(result, "between_scanner_CV", region="sphere 1").value == pytest.approx(1.0, rel=0.5)


def test_groups_that_differ_are_told_apart(tmp_path: Path) -> None:
    result = run(tmp_path, cohort(people=10))
    area = one(result, "AUC", region="C2")
    assert area.low < 0.81 < area.high  # Phi(5 / sqrt(2 (4^2 + 1.5^2 + shifts)))
    assert "cases are 'DCM'" in message(result, "reliability.case")
    assert one(
        result, "AUC difference", group="marker=Cross-sectional area, C2, against=Cross-sectional area, C3"
    )
    assert one(result, "AUC cross-validated").value < one(result, "AUC apparent").value + 0.02
    assert any(figure.kind == "roc" for figure in result.figures)
    effect = one(result, "effect sex M - F", region="C2")
    assert effect.low < -3.0 < effect.high


def test_a_planted_drift_is_seen(tmp_path: Path) -> None:
    rows = [
        row for row in phantom(weeks=40, scanners=("A", "B")) if row["region"] in ("sphere 1", "sphere 2")
    ]
    for row in rows:
        row["software"] = "v1"
        if row["scanner"] == "B" and int(str(row["session"])) > 20250203:
            row["value"] = f"{float(str(row['value'])) * 1.02:.3f}"
    result = run(tmp_path, rows, baseline=20)
    assert "T1 on B drifts" in message(result, "reliability.drift")
    assert not any("on A" in n.message for n in result.notices if n.code == "reliability.drift")
    chart = next(figure for figure in result.figures if figure.kind == "control_chart")
    assert any(any(panel.get("signals", ())) for panel in chart.data["panels"])
    restarted = run(
        tmp_path, [row | {"software": "v2" if str(row["session"]) > "20250203" else "v1"} for row in rows]
    )
    assert "reliability.drift" not in codes(restarted)


def test_harmonisation_is_judged_on_people_it_did_not_see(tmp_path: Path) -> None:
    result = run(tmp_path, travelling(sessions=1), harmonise="travelling")
    ratio = one(result, "RDC ratio", region="C2")
    assert ratio.high < 0.8
    assert one(
        result, "effect kept", region="C2", group="covariate=sex M"
    ).value > 0.9 or "effect-unclear" in str(
        one(result, "effect kept", region="C2", group="covariate=sex M").flags
    )
    written = (tmp_path / "out" / "harmonised.tsv").read_text().splitlines()
    assert written[0].split("\t")[-1] == "harmonised"
    assert len(written) == 1 + 12 * 3 * 2
    assert any(figure.name.startswith("harmonised") for figure in result.figures)
    useless = run(tmp_path, travelling(sessions=1, shifts=(0, 0, 0)), harmonise="travelling")
    assert codes(useless) & {"reliability.harmonise-useless", "reliability.harmonise-worse"}


@pytest.mark.parametrize("method", ["combat", "longcombat", "covbat"])
def test_other_harmonisers_run(tmp_path: Path, method: str) -> None:
    rows = travelling(sessions=1, regions=("C2", "C3", "C4"), subjects=10)
    result = run(tmp_path, rows, harmonise=method, batch="vendor")
    assert one(result, "RDC ratio", region="C3").n["people"] == 10
    assert not result.count(State.FAILED)


# ------------------------------------------------------------------------- published numbers


def test_spine_generic_published_coefficients(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "spine_generic_csa.csv"
    result = run(tmp_path, table, value="csa", where="level=C2C3", definition="spine-generic")
    published = {"GE": (5.15, 4.35), "Philips": (6.31, 5.07), "Siemens": (7.23, 5.81)}
    for vendor, (intra, inter) in published.items():
        group = f"vendor={vendor}"
        assert one(result, "intra_site_COV", group=group).value == pytest.approx(intra, abs=0.006)
        assert one(result, "inter_site_COV", group=group).value == pytest.approx(inter, abs=0.006)
        # The better estimates stand beside them, with intervals, and the notes say how they differ.
        better = one(result, "between_site_CV", group=group)
        assert better.low <= better.value <= better.high
        assert better.value < inter
        assert "not repeatability" in one(result, "intra_site_COV", group=group).note
    assert any("spine-generic definition" in paragraph for paragraph in result.methods)
    plain = run(tmp_path, table, value="csa", where="level=C2C3")
    assert not any(s.name == "intra_site_COV" for s in plain.statistics)
    assert one(plain, "within_site_CV", group="vendor=GE").value > 5.15


def test_masivar_repeatability(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "masivar_csa.csv"
    result = run(tmp_path, table, value="csa", where=["cohort=III", "level=C2C3"])
    wcv, rc = one(result, "wCV"), one(result, "RC")
    assert (wcv.value, wcv.low, wcv.high) == pytest.approx((1.74, 1.25, 2.87), abs=0.005)
    assert rc.value == pytest.approx(3.26, abs=0.005)
    assert "wCV 1.74 % (1.25 to 2.87), RC 3.26 mm2" in result.summary


def test_a_multicentre_phantom(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "rrsg_t1_tidy.csv"
    options = {"value": "mean=T1", "map": ["reference=ref20C", "region=sphere"], "where": "sample=NIST"}
    result = run(tmp_path, table, **options)
    assert one(result, "slope").n["clusters"] == 18  # one of 19 has no reference
    assert one(result, "between_scanner_CV", region="1").value == pytest.approx(5.0, abs=0.3)
    assert "site and model together" in message(result, "table.scanner-names")
    assert not result.count(State.FAILED)


def test_a_published_diagnosis(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "gold" / "delong_asah.csv"
    options = {"value": ["s100b", "wfns"], "map": "group=outcome", "case": "Poor"}
    result = run(tmp_path, table, **options, published="sensitivity=88% of 22")
    assert one(result, "AUC", quantity="s100b").value == pytest.approx(0.7313686, abs=1e-6)
    assert one(result, "AUC", quantity="wfns").value == pytest.approx(0.8236789, abs=1e-6)
    difference = next(s for s in result.statistics if s.name == "AUC difference")
    assert "p = 0.02" in difference.note or "p = 0.03" in difference.note
    assert "impossible" in message(result, "reliability.granularity")


def test_columns_that_are_scanners(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "gold" / "shrout_fleiss_1979.csv"
    result = run(tmp_path, table, gather="scanner=J1,J2,J3,J4", map="subject=target")
    forms = {"ICC(1,1)": 0.17, "ICC(A,1)": 0.29, "ICC(C,1)": 0.71, "ICC(1,k)": 0.44, "ICC(A,k)": 0.62}
    for name, value in forms.items():
        assert one(result, name).value == pytest.approx(value, abs=0.006)


# ---------------------------------------------------------------------------- the waist


def test_own_measurements_need_no_options(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        Measurement(
            quantity="T1",
            value=reference * (1 + 0.02 * (scanner == "B") + 0.003 * rng.normal()),
            unit="ms",
            region=f"sphere {sphere}",
            level="plate 5",
            reference=reference,
            flags=("outside the protocol's range (below 21 ms)",) if sphere == 4 else (),
            entities=Entities(
                scanner=scanner, session=f"2026030{session}", acquired=f"2026-03-0{session}T08:00:00"
            ),
        )
        for scanner in ("A", "B")
        for session in (1, 2, 3)
        for sphere, reference in enumerate((1000.0, 500.0, 250.0, 20.0), start=1)
    ]
    write_result(Result(kind="phantom", title="", status=Status.PASS, measurements=tuple(rows)), tmp_path)
    result = run(tmp_path, tmp_path / "measurements.tsv")
    assert one(result, "slope", group="scanner=A").value == pytest.approx(1.0, abs=0.01)
    left = [o for o in result.outcomes if o.code == "row.left-out"]
    assert left[0].what == "6 values left out" and "outside the protocol" in left[0].reason
    assert len(result.measurements) == 24
    assert sum("left out" in str(m.flags) for m in result.measurements) == 6
    kept = run(tmp_path, tmp_path / "measurements.tsv", keep_flagged=True)
    assert not [o for o in kept.outcomes if o.code == "row.left-out"]


def test_what_is_written_can_be_read_and_run_again(tmp_path: Path) -> None:
    options = {
        "limit": ["wCV<=3%", "CSA: ICC(A,1)>=0.5"],
        "exclude": "subject=3: motion",
        "where": "region=C2",
        "difference": ["3%", "CSA=2.5"],
        "published": "sensitivity=88% of 22",
        "level": 0.9,
    }
    first = run(tmp_path, travelling(subjects=8), **options)
    stored = read_result(tmp_path / "out")
    assert as_plain(stored.statistics) == as_plain(first.statistics)
    again = make_settings(("config", read_options(tmp_path / "out" / "config.yaml")))
    second = run_reliability(tmp_path / "t.csv", tmp_path / "again", settings=again)
    assert as_plain(second.statistics) == as_plain(first.statistics)
    assert as_plain(second.verdicts) == as_plain(first.verdicts)
    assert (tmp_path / "out" / "statistics.tsv").read_text() == (
        tmp_path / "again" / "statistics.tsv"
    ).read_text()
    page = render_report(first)
    assert len(page) < 5_000_000 and "motion" in page
    assert "wCV" in render_text(first)


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = travelling(subjects=6)
    straight = run(tmp_path, rows)
    random.Random(3).shuffle(rows)
    shuffled = run(tmp_path, rows)

    def numbers(result: Result) -> dict[tuple[str, str, str], float]:
        return {(s.name, s.region, s.group): s.value for s in result.statistics}

    first, second = numbers(straight), numbers(shuffled)
    # Pairs may come in the other direction; everything else has the same name.
    assert {key[:2] for key in first} == {key[:2] for key in second}
    assert len(first.keys() & second.keys()) > 0.9 * len(first)
    for key in first.keys() & second.keys():
        assert second[key] == pytest.approx(first[key], rel=1e-4, abs=1e-6, nan_ok=True), key


def test_units_of_the_table_do_not_matter(tmp_path: Path) -> None:
    in_ms = run(tmp_path, phantom())
    rows = [
        r
        | {"value": float(str(r["value"])) / 1000, "reference": int(str(r["reference"])) / 1000, "unit": "s"}
        for r in phantom()
    ]
    in_s = run(tmp_path, rows)
    assert one(in_s, "wSD", region="sphere 1").value == pytest.approx(
        one(in_ms, "wSD", region="sphere 1").value
    )
    assert one(in_s, "wSD", region="sphere 1").unit == "ms"
    assert "table.converted" in codes(in_s)


# ------------------------------------------------------------------------------- judgement


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (["wCV<=10%"], Status.WARN),  # met, but the scanners differ, which calls for attention
        (["wCV<=10%", "RC<=0.1 mm2"], Status.FAIL),
        (["nonsense<=1", "wCV<=3 ms"], Status.NOT_EVALUATED),
    ],
)
def test_status_follows_from_limits(tmp_path: Path, limits: list[str], status: Status) -> None:
    assert run(tmp_path, travelling(subjects=6, regions=("C2",)), limit=limits).status is status


def test_a_limit_that_is_met_but_not_shown_is_a_warning(tmp_path: Path) -> None:
    rows = travelling(subjects=6, shifts=(0, 0, 0), regions=("C2",))
    wcv = one(run(tmp_path, rows), "wCV")
    between = (wcv.value + wcv.high) / 2
    met = run(tmp_path, rows, limit=f"wCV<={wcv.high + 0.01:.4f}%")
    assert (met.status, met.verdicts[0].status) == (Status.PASS, Status.PASS)
    close = run(tmp_path, rows, limit=f"wCV<={between:.4f}%")
    assert (close.status, close.verdicts[0].status) == (Status.WARN, Status.WARN)
    assert "met, but not shown" in close.verdicts[0].reason


def test_limits_per_scanner_and_absolute_ones(tmp_path: Path) -> None:
    rows = travelling(subjects=8, regions=("C2",))
    result = run(tmp_path, rows, limit=["wCV per scanner<=9%", "|bias_percent|<=1%"])
    rules = [verdict.rule for verdict in result.verdicts]
    assert rules.count("wCV per scanner<=9%") == 3
    bias = {v.subject.rsplit("scanner=", 1)[1]: v for v in result.verdicts if v.rule.startswith("|")}
    assert bias["B"].status is Status.FAIL and bias["C"].status is Status.FAIL
    assert bias["C"].observed > 0  # without its sign
    assert bias["A"].status in (Status.PASS, Status.WARN)


# ------------------------------------------------------------------------------- bad input


def edit(rows: list[Row], change: Callable[[int, Row], Row | None]) -> list[Row]:
    return [new for i, row in enumerate(rows) if (new := change(i, dict(row))) is not None]


@cache
def base() -> tuple[Row, ...]:
    return tuple(travelling(subjects=6, regions=("C2", "C3")))


def test_text_infinity_and_empty_cells_are_said_and_the_rest_is_analysed(tmp_path: Path) -> None:
    bad = {0: "abc", 1: "inf", 2: "", 3: "n/a", 4: "1e999"}
    result = run(tmp_path, edit(list(base()), lambda i, row: row | {"value": bad.get(i, row["value"])}))
    assert "line 2, for example 'abc'" in message(result, "table.text")
    assert "lines 3, 6" in message(result, "table.infinite")
    assert "2 of 72 cells are empty" in message(result, "table.missing")
    assert one(result, "wSD", region="C2").n["unusable"] == 5
    assert (
        "missing" in one(result, "RDC", region="C2").estimator
        or "REML" in one(result, "RDC", region="C2").estimator
    )
    assert "unusable" not in one(result, "wSD", region="C3").n


def test_missing_cells_cost_no_subject(tmp_path: Path) -> None:
    rows = edit(list(base()), lambda i, row: None if i % 11 == 0 else row)
    result = run(tmp_path, rows)
    assert one(result, "ICC(A,1)", region="C2").n["subjects"] == 6
    assert "excluded_subjects" not in one(result, "ICC(A,1)", region="C2").n


def test_copies_are_left_out_and_conflicts_are_kept(tmp_path: Path) -> None:
    rows = [*base(), base()[0], base()[5], base()[7] | {"value": "99.5"}]
    result = run(tmp_path, rows)
    assert "2 values of rows equal to an earlier row left out (lines 74, 75)" in message(
        result, "table.duplicate"
    )
    assert one(result, "wSD", region="C2").n["values"] == 37
    numbered = run(tmp_path, [row | {"run": 1} for row in rows])
    assert "count as further repeats" in message(numbered, "table.conflict")


def test_short_numbers_that_come_twice_may_be_repeats(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"subject": s, "scanner": "A", "value": 70 + s + r} for s in range(5) for r in (0, 0, 1)
    ]
    result = run(tmp_path, rows, value="value=CSA")
    assert "kept as repeats" in message(result, "table.possible-duplicate")
    assert one(result, "wSD").n["values"] == 15


@pytest.mark.parametrize(("values", "words"), [((0.0,), "zero"), ((-3.5,), "zero or negative")])
def test_zero_and_negative_values_cost_the_cv_only(
    tmp_path: Path, values: tuple[float, ...], words: str
) -> None:
    result = run(tmp_path, edit(list(base()), lambda i, row: row | {"value": values[0]} if i == 0 else row))
    assert words in message(result, "table.not-positive")
    assert math.isnan(one(result, "wCV", region="C2").value)
    assert math.isfinite(one(result, "wSD", region="C2").value)
    assert math.isfinite(one(result, "wCV", region="C3").value)


def test_an_interval_quantity_never_gets_a_cv(tmp_path: Path) -> None:
    rows = edit(
        list(base()),
        lambda _, row: row | {"quantity": "susceptibility", "value": float(str(row["value"])) / 1000},
    )
    result = run(tmp_path, rows)
    relative = [s for s in result.statistics if s.unit == "%" or "CV" in s.name]
    assert relative and all(math.isnan(s.value) for s in relative)
    assert all("true zero" in s.note for s in relative)
    assert math.isfinite(one(result, "wSD", region="C2").value)
    assert any(f.name.startswith("wsd") for f in result.figures)
    assert any("no CV" in paragraph for paragraph in result.methods)


def test_an_unknown_quantity_is_taken_as_ratio_and_said(tmp_path: Path) -> None:
    rows = edit(list(base()), lambda _, row: row | {"quantity": "wibble"})
    result = run(tmp_path, rows)
    assert "--scale wibble=interval" in message(result, "table.unknown-quantity")
    assert math.isfinite(one(result, "wCV", region="C2").value)
    forced = run(tmp_path, rows, scale="wibble=interval")
    assert math.isnan(one(forced, "wCV", region="C2").value)
    assert "table.unknown-quantity" not in codes(forced)


def test_all_values_equal(tmp_path: Path) -> None:
    rows = edit(list(base()), lambda _, row: row | {"value": 70} if row["region"] == "C2" else row)
    result = run(tmp_path, rows)
    assert "all values are equal" in message(result, "table.constant")
    assert not result.count(State.FAILED)
    assert math.isfinite(one(result, "wCV", region="C3").value)
    assert math.isnan(one(result, "ICC(A,1)", region="C2").value)


def test_one_subject_and_one_scanner(tmp_path: Path) -> None:
    alone = run(tmp_path, [row for row in base() if row["subject"] == 1])
    assert "one subject only" in skipped(alone)["Intraclass correlation"]
    assert math.isfinite(one(alone, "RDC", region="C2").value)
    single = run(tmp_path, [row for row in base() if row["scanner"] == "A"])
    assert skipped(single)["Reproducibility"] == "one scanner only"
    assert math.isfinite(one(single, "ICC(1,1)", region="C2").value)
    both = run(tmp_path, [row for row in base() if row["scanner"] == "A" and row["subject"] == 1])
    assert math.isfinite(one(both, "wSD", region="C2").value)
    neither = run(tmp_path, [dict(base()[0])])
    assert neither.count(State.DONE) == 0 and not neither.count(State.FAILED)


def test_vendor_and_group_perfectly_confounded(tmp_path: Path) -> None:
    rows = edit(
        cohort(people=8),
        lambda _, row: row | {"diagnosis": "DCM" if row["manufacturer"] == "GE" else "HC"},
    )
    result = run(tmp_path, rows)
    assert "cannot be told apart" in message(result, "table.confounded")
    assert math.isfinite(one(result, "AUC", region="C2").value)
    asked = run(tmp_path, rows, harmonise="combat", batch="vendor", covariate="group")
    failed = [o for o in asked.outcomes if o.state is State.FAILED]
    assert len(failed) == 1 and "cannot be told apart" in failed[0].reason
    assert math.isfinite(one(asked, "AUC", region="C2").value)


def test_mixed_units(tmp_path: Path) -> None:
    units = {0: ("s", 0.001), 1: ("furlong", 1.0)}

    def change(i: int, row: Row) -> Row:
        unit, factor = units.get(i, ("ms", 1.0))
        return row | {
            "unit": unit,
            "value": float(str(row["value"])) * factor,
            "reference": float(str(row["reference"])) * factor,
        }

    result = run(tmp_path, edit(phantom(), change))
    assert "s (1), furlong (1), ms (70)" in message(result, "table.mixed-units")
    left = [o for o in result.outcomes if o.code == "row.left-out"]
    assert "unit 'furlong' cannot be turned into ms (line 3)" in left[0].reason
    assert one(result, "wSD", region="sphere 1").n["values"] == 8


def test_units_mixed_without_a_word_are_suspected(tmp_path: Path) -> None:
    rows = edit(phantom(), lambda i, row: row | {"value": float(str(row["value"])) / 1000} if i == 0 else row)
    result = run(tmp_path, rows)
    assert "another unit, or a slip" in message(result, "table.suspect-unit")


def test_a_reference_that_is_partly_missing(tmp_path: Path) -> None:
    rows = edit(phantom(), lambda i, row: row | {"reference": "" if i < 9 else row["reference"]})
    result = run(tmp_path, rows)
    assert "9 values without a reference" in message(result, "reliability.reference")
    assert one(result, "slope").n["values"] == 63
    assert math.isfinite(one(result, "wSD", region="sphere 1").value)


def test_subjects_with_numbers_for_names_and_empty_cells(tmp_path: Path) -> None:
    # A program that met an empty cell wrote 7 as 7.0; leading zeros are part of a name.
    rows = edit(list(base()), lambda i, row: row | {"subject": "" if i == 0 else f"{row['subject']}.0"})
    long, design = read(tmp_path, rows)
    assert set(long.frame["subject"]) == {"", *"123456"}
    assert design.subjects == 6
    assert "without a name left out (line 2)" in message(long, "table.unplaced")
    long, _ = read(tmp_path, [row | {"subject": f"00{row['subject']}"} for row in base()])
    assert set(long.frame["subject"]) == {f"00{i}" for i in range(1, 7)}


def test_one_name_at_several_sites(tmp_path: Path) -> None:
    rows = [row | {"site": f"site {row['scanner']}"} for row in base()]
    long, design = read(tmp_path, rows)
    assert "taken to be the same people" in message(long, "table.subject-names")
    assert design.crossed and design.subjects == 6
    _, design = read(tmp_path, rows, subject_within="site")
    assert not design.crossed and design.subjects == 18
    ages = {"A": 25, "B": 60, "C": 41}
    long, design = read(tmp_path, [row | {"age": ages[str(row["scanner"])]} for row in rows])
    assert "named anew at each site" in message(long, "table.subject-names")
    assert design.subjects == 18


def test_scanner_one_of_two_sites(tmp_path: Path) -> None:
    rows = [row | {"site": f"site {row['scanner']}", "scanner": 1} for row in base()]
    long, design = read(tmp_path, rows)
    assert set(long.frame["scanner"]) == {"site A 1", "site B 1", "site C 1"}
    assert design.machines == 3
    assert "told apart by the site" in message(long, "table.scanner-names")


def test_sites_with_one_subject(tmp_path: Path) -> None:
    rows = [row for row in cohort() if row["site"] != "S0" or row["participant_id"] == "sub-00"]
    result = run(tmp_path, rows, definition="spine-generic")
    assert "1 site with one subject (S0)" in message(result, "table.small-sites")
    assert "counts as without spread" in one(result, "intra_site_COV", region="C2", group="vendor=GE").note


def test_regions_in_the_order_of_the_spine(tmp_path: Path) -> None:
    regions = ("T1", "C10", "C2C3", "L1", "C2", "other")
    result = run(tmp_path, travelling(subjects=4, sessions=1, regions=regions))
    done = [o.what.rsplit(", ", 1)[1] for o in result.outcomes if o.state is State.DONE]
    assert done == ["C2", "C2C3", "C10", "T1", "L1", "other"]


def test_rows_without_a_session_are_not_lost(tmp_path: Path) -> None:
    rows = [row | {"session": "" if i % 12 == 0 else row["session"]} for i, row in enumerate(base())]
    result = run(tmp_path, rows)
    assert "taken together as '(not named)'" in message(result, "table.unplaced")
    assert sum(s.n["values"] for s in result.statistics if s.name == "wSD" and not s.group) == 72


def test_a_region_without_values_is_an_outcome(tmp_path: Path) -> None:
    rows = [row | {"value": "n/a" if row["region"] == "C2" else row["value"]} for row in base()]
    result = run(tmp_path, rows)
    states = {o.what: o.state for o in result.outcomes if o.what.startswith("Cross")}
    assert states == {
        "Cross-sectional area, C2": State.SKIPPED,
        "Cross-sectional area, C3": State.DONE,
    }


def test_labels_that_look_alike(tmp_path: Path) -> None:
    rows = [row | {"vendor": "siemens "} if i % 5 == 2 else row for i, row in enumerate(base())]
    said = message(read(tmp_path, rows)[0], "table.lookalike")
    assert "'Siemens'" in said and "'siemens'" in said and "write them alike" in said


def test_dates(tmp_path: Path) -> None:
    long, design = read(tmp_path, [row | {"session": f"2024-05-0{row['session']}"} for row in base()])
    assert "names of the sessions are dates" in message(long, "table.dates")
    assert design.dated
    long, design = read(tmp_path, [row | {"acquired": "31.05.2024"} for row in base()])
    assert "'31.05.2024'" in message(long, "table.dates")
    assert not design.dated
    assert not read(tmp_path, list(base()))[1].dated  # sessions 1 and 2 are no dates


def test_no_subject_column(tmp_path: Path) -> None:
    people = [{k: v for k, v in row.items() if k != "participant_id"} for row in cohort()]
    result = run(tmp_path, people)
    assert "each row is taken to be a person" in message(result, "table.no-subject")
    objects = [{k: row[k] for k in ("scanner", "region", "value")} for row in base()]
    result = run(tmp_path, objects, value="value=CSA")
    assert "one object" in message(result, "table.no-subject")
    assert any(n.severity is Severity.WARNING for n in result.notices if n.code == "table.no-subject")


def test_exclusions_are_a_list_with_reasons(tmp_path: Path) -> None:
    options = {"exclude": ["subject=2: motion", "scanner=C,session=2: coil broken", "subject=99: typo"]}
    result = run(tmp_path, list(base()), **options)
    left = {o.reason.split(" (")[0]: o.what for o in result.outcomes if o.code == "row.left-out"}
    assert left == {
        "subject = 2: motion": "12 values left out",
        "scanner = C, session = 2: coil broken": "10 values left out",
    }
    assert "typo" in message(result, "table.exclude")
    flagged = [m for m in result.measurements if m.flags]
    assert len(flagged) == 22
    design = next(figure for figure in result.figures if figure.name == "design")
    assert min(min(row) for row in design.data["values"]) < 0


def test_ragged_lines_are_an_outcome(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.csv", list(base()))
    path.write_text(path.read_text() + "1,2,3\n")
    result = run(tmp_path, path)
    assert any(o.code == "row.ragged" and "line 74" in o.reason for o in result.outcomes)


def test_other_columns_split_the_table(tmp_path: Path) -> None:
    rows = [row | {"method": "VFA" if i % 2 else "IR"} for i, row in enumerate(base())]
    mixed = run(tmp_path, rows)
    assert "--by method" in message(mixed, "table.mixed-methods")
    split = run(tmp_path, rows, by="method")
    assert {s.region for s in split.statistics} == {"C2 IR", "C2 VFA", "C3 IR", "C3 VFA"}


def test_one_defect_costs_one_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cordqa.workflow import reliability_spread

    real = reliability_spread.icc

    def broken(rows: Any, **options: Any) -> Any:
        if (rows["region"] == "C2").any():
            raise ZeroDivisionError("planted")
        return real(rows, **options)

    monkeypatch.setattr(reliability_spread, "icc", broken)
    result = run(tmp_path, list(base()))
    failed = [o for o in result.outcomes if o.state is State.FAILED]
    assert [(o.what, o.code) for o in failed] == [("Cross-sectional area, C2: ICC", "internal")]
    assert math.isfinite(one(result, "ICC(A,1)", region="C3").value)
    assert math.isfinite(one(result, "wSD", region="C2").value)


def test_a_figure_that_fails_costs_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cordqa.workflow import reliability_figures

    monkeypatch.setattr(reliability_figures, "draw_estimates", lambda study: [study.nothing])
    result = run(tmp_path, list(base()))
    failed = [o.what for o in result.outcomes if o.state is State.FAILED]
    assert failed == ["Figures of estimates"] and "failed" in result.summary
    assert result.figures and result.statistics


def test_simultaneous_intervals_are_wider(tmp_path: Path) -> None:
    result = run(tmp_path, list(base()), simultaneous=True)
    together = one(result, "wCV", region="C2", group="all regions together")
    alone = one(result, "wCV", region="C2")
    assert together.value == pytest.approx(alone.value)
    assert together.high > alone.high and together.low < alone.low


def test_many_regions_get_adjusted_p(study: Result) -> None:
    assert any("p_fdr" in s.note for s in study.statistics if s.name == "bias")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"map": "subject=nobody"}, TableError, "no column 'nobody'"),
        ({"map": "subject=scaner"}, TableError, "did you mean 'scanner'"),
        ({"map": ["subject=scanner", "site=scanner"]}, TableError, "two roles"),
        ({"map": "sbject=scanner"}, ConfigError, "did you mean 'subject'"),
        ({"value": "nothing"}, TableError, "no column 'nothing'"),
        ({"where": "scanner=Z"}, EmptyInputError, "found A, B, C"),
        ({"exclude": "quantity=CSA: all"}, EmptyInputError, "no value can be used"),
        ({"limit": "wCV=3"}, ConfigError, "statistic<=number"),
        ({"difference": "-3%"}, ConfigError, "positive"),
        ({"difference": "3 mm2"}, ConfigError, "needs its quantity"),
        ({"published": "88%"}, ConfigError, "88% of 22"),
        ({"level": 95}, ConfigError, "0.95"),
        ({"scale": "CSA=nominal"}, ConfigError, "ratio"),
        ({"harmonise": "magic"}, ConfigError, "combat"),
        ({"gather": "scanner=value"}, ConfigError, "two columns"),
        ({"subject_within": "nothing"}, ConfigError, "subject_within"),
        ({"by": "nothing"}, TableError, "no column 'nothing'"),
        ({"seed": 1.5}, ConfigError, "whole number"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(
    tmp_path: Path, options: dict[str, Any], kind: type[CordqaError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        run(tmp_path, list(base()), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "result.json").exists()


def test_values_that_are_not_named(tmp_path: Path) -> None:
    rows: list[Row] = [{"subject": s, "height": 170 + s, "mass": 60} for s in range(3)]
    with pytest.raises(TableError, match=r"columns of numbers: height, mass.*--value height"):
        run(tmp_path, rows)
