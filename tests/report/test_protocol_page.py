"""The page of a compliance check: readable without colour, short where much is alike, offline."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers_protocol_study import write_study

from cordqa.errors import InputError
from cordqa.figures import StatusKey, StatusRow, status_map
from cordqa.records import Result
from cordqa.report import render_report
from cordqa.report.charts import draw_figure
from cordqa.simulate.protocol_study import simulate_protocol_study
from cordqa.workflow.protocol.run import run_protocol


def check(root: Path, study, name: str = "spine-generic-3t") -> Result:
    return run_protocol(name, write_study(study, root / "data"), root / "out")


@pytest.fixture(scope="module")
def deviating(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return check(tmp_path_factory.mktemp("study"), simulate_protocol_study(seed=3))


def figure_of(result: Result, name: str):
    return next(one for one in result.figures if one.name == name)


def test_the_page_fetches_nothing_and_holds_every_section(deviating: Result) -> None:
    page = render_report(deviating)
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?!doi\.org)', page)
    for words in (
        "Failed",
        "Compliance",
        "Participants by parameters",
        "Compliance beside coverage",
        "Scan time",
    ):
        assert words in page
    assert len(page) < 1_000_000


def test_every_kind_of_deviation_has_a_sign_of_its_own(deviating: Result) -> None:
    figure = figure_of(deviating, "participants-by-parameters")
    signs = {
        key["code"]: key.get("sign", "") for key in figure.data["keys"] if key["look"] in ("fail", "warn")
    }
    assert {"x", "u", "n", "m", "c"} <= set(signs)
    assert len(set(signs.values())) == len(signs) and all(signs.values())
    drawing = draw_figure(figure)
    panel = str(drawing.panels[0])
    for sign in "×u#≠":
        assert f">{sign}</text>" in panel
    assert 'class="hatch"' in panel  # what is not recorded
    assert len(drawing.legend) == len(figure.data["keys"])


def test_a_cell_says_what_was_found_and_what_was_asked(deviating: Result) -> None:
    panel = str(draw_figure(figure_of(deviating, "participants-by-parameters")).panels[0])
    assert re.search(r"echo time: out of range \([\d.]+ s; asked for [\d.]+ (s|to)", panel)


def test_what_is_alike_is_one_entry_with_a_count(tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=[], n_participants=54)
    files = dict(study.files)
    for name, text in files.items():
        if name.endswith("_T2w.json"):
            files[name] = json.dumps({**json.loads(text), "RepetitionTime": 9.9})
    result = check(tmp_path, replace(study, files=files))
    page = render_report(result)
    assert page.count("repetition time out of range, 54 of 54") == 1
    assert "<summary>48 more</summary>" in page
    figure = figure_of(result, "participants-by-parameters")
    assert len(figure.data["columns"]) == 54
    assert len(draw_figure(figure).panels) == 2


def test_participants_without_deviation_share_a_column(tmp_path: Path) -> None:
    result = check(tmp_path, simulate_protocol_study(deviations=["echo time"], n_participants=54))
    figure = figure_of(result, "participants-by-parameters")
    assert len(figure.data["columns"]) == 2 and figure.data["columns"][1] == "53 others"


def test_a_scanner_whose_protocol_changed_is_followed_over_time(tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=["software"], n_participants=24)
    files = dict(study.files)
    late = [name for name in sorted(files) if re.search(r"sub-ge1(03|04)_T2w\.json$", name)]
    assert len(late) == 2
    for name in late:
        files[name] = json.dumps({**json.loads(files[name]), "RepetitionTime": 2.9})
    figure = figure_of(check(tmp_path, replace(study, files=files)), "protocol-over-time")
    (panel,) = figure.data["panels"]
    assert panel["label"] == "GE DISCOVERY MR750 (ge1): T2-weighted, 3D turbo spin echo, repetition time (s)"
    assert panel["signals"].count("out of range") == 2 and panel["low"] < 2.5 < panel["high"]


def test_without_dates_nothing_is_drawn_over_time_and_the_page_says_why(tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=[], n_participants=3)
    files = {
        name: json.dumps({k: v for k, v in json.loads(text).items() if not k.startswith("Acquisition")})
        if name.startswith("sub-") and name.endswith(".json")
        else text
        for name, text in study.files.items()
    }
    result = check(tmp_path, replace(study, files=files))
    assert not any(one.kind == "control_chart" for one in result.figures)
    assert any("acquisition date is kept in 0 %" in notice.message for notice in result.notices)
    estimated = figure_of(result, "scan-time").data["panels"][0]["estimates"]
    assert all("estimated" in one["label"] for one in estimated)


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    study = simulate_protocol_study(seed=3)
    pages = []
    for name in ("a", "b"):
        result = check(tmp_path / name, study)
        fixed = replace(result.provenance, created="2024-01-01T00:00:00+00:00")
        pages.append(render_report(replace(result, provenance=fixed)))
    assert pages[0] == pages[1]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=["echo time"], n_participants=3)
    files = {
        name: text.replace("syngo MR E11", "<script>alert(1)</script>").replace("Ingenia", '\\"><img src=x>')
        for name, text in study.files.items()
    }
    page = render_report(check(tmp_path, replace(study, files=files)))
    assert "<script>alert" not in page and "<img src=x" not in page


def test_statuses_that_no_key_explains_are_refused() -> None:
    key = StatusKey(code="p", label="as asked", look="pass")
    row = StatusRow(label="TR", group="T2w", codes="px", details={})
    for columns in (["01", "02"], ["01"]):
        with pytest.raises(InputError, match="do not match"):
            status_map("n", "T", columns=columns, rows=[row], keys=[key])
