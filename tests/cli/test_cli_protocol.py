"""``cordqa protocol`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_protocol_study import write_study

from cordqa.cli._run import run
from cordqa.simulate.protocol_study import simulate_protocol_study

NAME = "spine-generic-3t"


def call(*words: str | Path) -> int:
    return run([str(word) for word in words])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = simulate_protocol_study(deviations=[], n_participants=3)
    return write_study(study, tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def deviating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = simulate_protocol_study(deviations=["echo time", "pair"], n_participants=3)
    return write_study(study, tmp_path_factory.mktemp("deviating"))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("protocol", "--help") == 0
    assert "cordqa protocol NAME DATA OUT" in " ".join(capsys.readouterr().out.split())
    for command in ("check", "diff", "infer", "schema"):
        assert call("protocol", command, "--help") == 0
        assert f"Usage: cordqa protocol {command}" in capsys.readouterr().out


def test_in_compliance_is_zero(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("protocol", NAME, clean, tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("PASS") and "could be judged" in captured.out
    assert captured.err.splitlines()[-2:] == [
        "done 3, skipped 0, failed 0",
        f"report: {tmp_path / 'out' / 'report.html'}",
    ]
    assert (tmp_path / "out/findings.tsv").is_file()


def test_out_of_compliance_is_three(
    deviating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("protocol", "check", NAME, deviating, tmp_path / "out") == 3
    assert "echo time out of range" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_one(clean: Path, tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=["broken"], n_participants=3)
    assert call("protocol", NAME, write_study(study, tmp_path / "data"), tmp_path / "out") == 1


def test_a_broken_file_does_not_hide_a_deviation(tmp_path: Path) -> None:
    study = simulate_protocol_study(deviations=["broken", "echo time"], n_participants=3)
    assert call("protocol", NAME, write_study(study, tmp_path / "data"), tmp_path / "out") == 3


@pytest.mark.parametrize(
    "words",
    [
        ("spine-generik-3t", "DATA", "OUT"),
        (NAME, "absent", "OUT"),
        (NAME, "DATA"),
        (NAME,),
        (NAME, "DATA", "OUT", "--dicom", "absent"),
        ("check",),
        ("diff", NAME, "absent"),
        ("infer", "absent"),
    ],
)
def test_wrong_usage_is_two(clean: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    places = {"DATA": str(clean), "OUT": str(tmp_path / "out"), "absent": str(tmp_path / "absent")}
    assert call("protocol", *(places.get(word, word) for word in words)) == 2


def test_json_is_the_whole_result(
    deviating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("protocol", "--json", NAME, deviating, tmp_path / "out") == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["kind"] == "protocol" and printed["status"] == "fail"
    assert printed == json.loads((tmp_path / "out/result.json").read_text())


def test_list_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "protocols") == 0
    assert NAME in capsys.readouterr().out
    assert call("list", "protocols", "--json") == 0
    assert all(row["version"] for row in json.loads(capsys.readouterr().out))
    assert call("protocol", "schema") == 0
    assert json.loads(capsys.readouterr().out)["properties"]["series"]


def test_infer_then_check_then_diff(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = tmp_path / "draft.yaml"
    assert call("protocol", "infer", clean, draft, "--name", "mine") == 0
    assert not capsys.readouterr().out
    edited = draft.read_text() + "# read by hand\n"
    draft.write_text(edited)
    assert call("protocol", "infer", clean, draft) == 2
    assert "exists already" in capsys.readouterr().err
    assert draft.read_text() == edited
    assert call("protocol", draft, clean, tmp_path / "out") == 0
    capsys.readouterr()
    assert call("protocol", "diff", draft, draft) == 0
    assert "No difference" in capsys.readouterr().out
    assert call("protocol", "diff", NAME, clean, "--json") == 0
    assert json.loads(capsys.readouterr().out)["n_parameters"] > 30
    assert call("protocol", "infer", clean) == 0
    assert capsys.readouterr().out.startswith("# Draft")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cordqa.cli._run import run; run(['protocol', '--help']); "
        "heavy = {'numpy', 'pandas', 'pydicom', 'jinja2', 'scipy', 'nibabel', 'dipy'} & set(sys.modules); "
        "sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
