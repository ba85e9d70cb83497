"""``cordqa cord`` and ``cordqa demo --study cord`` as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cordqa.cli._run import run


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    assert run(["demo", str(out), "--study", "cord", "--people", "1", "--repeats", "1"]) == 0
    return out


def test_help_names_the_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["cord", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--participant-label",
        "--session-label",
        "--engine",
        "--n-procs",
        "--scheduler",
        "--cluster",
    ):
        assert option in text
    for option in (
        "--work-dir",
        "--template",
        "--exclude-from",
        "--reference-table",
        "--levels",
        "--dry-run",
    ):
        assert option in text


@pytest.mark.parametrize(
    "words",
    [
        ["cord"],
        ["cord", "a", "b"],
        ["cord", "a", "b", "persons"],
        ["cord", "a", "b", "participant", "--engine", "magic"],
        ["cord", "a", "b", "participant", "--n-procs", "0"],
        ["cord", "absent", "b", "participant"],
        ["cord", "absent", "b", "group"],
        ["cord", ".", "b", "participant", "--levels", "C9"],
        ["cord", ".", "b", "participant", "--template", "absent"],
        ["cord", ".", "b", "participant", "--method", "guess"],
        ["cord", ".", "b", "participant", "--exclude-from", "absent.yaml"],
        ["demo", "x", "--study", "brain"],
    ],
)
def test_wrong_usage_is_two(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_demo_leaves_a_complete_folder(demo: Path) -> None:
    for name in ("report.html", "result.json", "measurements.tsv", "truth.json", "bids/participants.tsv"):
        assert (demo / name).stat().st_size > 0
    assert (demo / "sub-01/ses-A1/report.html").stat().st_size < 3_000_000
    text = (demo / "report.html").read_text()
    assert "simulated truth" in text and "planted" in text
    result = json.loads((demo / "result.json").read_text())
    recovered = {
        (s["quantity"], s["region"]) for s in result["statistics"] if s["name"] == "difference from truth"
    }
    assert {("CSA", "cord"), ("MTR", "WM"), ("MTR", "GM"), ("MTsat", "WM")} <= recovered


def test_dry_run_says_what_would_be_done(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["cord", str(demo / "bids"), str(out), "participant", "--dry-run", "--session-label", "ses-B1"]
    assert run(words) == 0
    captured = capsys.readouterr()
    own = "sub-01_ses-B1"
    images = f"{own}_T2w.nii.gz, {own}_T2starw.nii.gz, MTS (T1w, off, on), {own}_dwi.nii.gz"
    assert f"{own}: would analyse {images}" in captured.out
    assert len(captured.out.splitlines()) == 1
    assert not out.exists()


def test_participant_again_is_quick_and_json_is_alone(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cord", str(demo / "bids"), str(demo), "participant", "--json"]) == 0
    captured = capsys.readouterr()
    assert [o["state"] for o in json.loads(captured.out)["outcomes"]] == ["skipped"] * 3
    lines = captured.err.splitlines()
    assert lines[-2] == "done 0, skipped 3, failed 0"
    assert lines[-1].startswith("reports: ")


def test_absent_participant_is_one(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cord", str(demo / "bids"), str(demo), "participant", "--participant-label", "01 99"]
    assert run(words) == 1
    assert "sub-99" in capsys.readouterr().out


def test_group_again(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(demo / "sub-01", tmp_path / "sub-01")
    assert run(["cord", str(demo / "bids"), str(tmp_path), "group"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith("report.html")
    assert "Cord (experimental): study" in captured.out


def test_toolbox_that_is_not_there(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCT_DIR", "CORDQA_SCT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["cord", str(demo / "bids"), str(tmp_path / "o"), "participant", "--engine", "sct"]) == 2
    assert "Spinal Cord Toolbox was not found" in capsys.readouterr().err
