from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from cordqa.errors import OutputError, UnreadableFileError
from cordqa.io.results import prepare_folder, read_result, write_config, write_result, write_text
from cordqa.records import (
    Entities,
    Figure,
    Measurement,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Statistic,
    Status,
    Verdict,
)


def make_result() -> Result:
    entities = Entities(vendor="Siemens", scanner="=HYPERLINK(1)", field_strength_T=3.0)
    return Result(
        kind="phantom",
        title="A run",
        status=Status.WARN,
        measurements=(
            Measurement(
                quantity="T1",
                value=1989.5,
                unit="ms",
                region="plate 5 sphere 1",
                entities=entities,
                n_voxels=40,
            ),
            Measurement(quantity="T1", value=math.nan, unit="ms", flags=("no\tsignal", "a;b")),
        ),
        verdicts=(Verdict(status=Status.PASS, subject="sphere 1", rule="error", observed=1.0),),
        statistics=(Statistic(name="wCV", value=1.2, n={"sphere": 14, "scan": 3}),),
        notices=(Notice(severity=Severity.INFO, message="said"),),
        outcomes=(Outcome(what="a", state=State.DONE),),
        figures=(Figure(name="f", kind="plate", title="t", data={"x": [1.0, math.inf]}),),
        provenance=Provenance(config={"a": 1}, seed=3),
    )


def test_result_survives_the_disk(tmp_path: Path) -> None:
    result = make_result()
    write_result(result, tmp_path)
    again = read_result(tmp_path)
    assert again.measurements[0] == result.measurements[0]
    assert math.isnan(again.measurements[1].value)
    assert again.verdicts[0].status is Status.PASS
    assert again.statistics[0].n == {"sphere": 14, "scan": 3}
    assert again.figures[0].data["x"] == [1.0, None]


def test_table_and_json_agree(tmp_path: Path) -> None:
    write_result(make_result(), tmp_path)
    with (tmp_path / "measurements.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    data = json.loads((tmp_path / "result.json").read_text())
    dictionary = json.loads((tmp_path / "measurements.json").read_text())
    assert [float(r["value"]) if r["value"] != "n/a" else None for r in rows] == [
        m["value"] for m in data["measurements"]
    ]
    assert set(rows[0]) == set(dictionary)
    assert all(None not in row and None not in row.values() for row in rows), "a cell broke its row"


def test_text_that_a_spreadsheet_would_run_is_made_inert(tmp_path: Path) -> None:
    write_result(make_result(), tmp_path)
    assert "\t=HYPERLINK" not in (tmp_path / "measurements.tsv").read_text()


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    write_text(target, "old")

    def no_space(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OutputError, match="No space left"):
        write_text(target, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"


def test_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        prepare_folder(tmp_path / "x")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": 1}', '{"kind":"a","title":"b","status":"odd"}'])
def test_foreign_result_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UnreadableFileError, match="is not a result of cordqa"):
        read_result(tmp_path)


def test_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"result\.json"):
        read_result(tmp_path)


def test_config_is_plain_yaml(tmp_path: Path) -> None:
    write_config({"serial": None, "path": "x", "n": 1}, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "n: 1\npath: x\nserial: null\n"
