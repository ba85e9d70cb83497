"""The command line as a user meets it: help, happy path, wrong use, exit status, silence of stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cordqa.cli._run import run

HEAVY = ("numpy", "scipy", "pandas", "nibabel", "pydicom", "pydantic", "jinja2", "matplotlib", "yaml")


def cordqa(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cordqa", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        cwd=cwd,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    answer = cordqa("demo", str(out), "--repeats", "1")
    assert answer.returncode == 0, answer.stderr
    return out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['cordqa', '--help']\n"
        "from cordqa.cli._run import run\n"
        "status = run()\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not loaded, loaded\n"
        "sys.exit(status)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert "Exit status" in answer.stdout


@pytest.mark.parametrize("command", ["demo", "phantom", "reliability", "cord", "report", "list", "doctor"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: cordqa" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cordqa ")


@pytest.mark.parametrize(
    "words",
    [["phantom"], ["nonsense"], ["phantom", "a", "b", "--no-such-option"], ["demo", "x", "--repeats", "0"]],
)
def test_wrong_usage_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert capsys.readouterr().out == ""


def test_missing_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["phantom", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = [line for line in captured.err.splitlines() if "error [" in line]
    assert len(error) == 1
    assert "absent" in error[0]
    assert "Traceback" not in captured.err


def test_demo_leaves_a_complete_folder(demo: Path) -> None:
    for name in (
        "report.html",
        "result.json",
        "measurements.tsv",
        "measurements.json",
        "config.yaml",
        "truth.json",
    ):
        assert (demo / name).stat().st_size > 0
    assert (demo / "report.html").stat().st_size < 3_000_000


def test_phantom_prints_json_alone_on_stdout(demo: Path, tmp_path: Path) -> None:
    answer = cordqa(
        "phantom",
        str(demo / "scans" / "SIM-A"),
        str(tmp_path / "out"),
        "--json",
        "--temperature",
        "20",
        "--serial",
        "130-0150",
    )
    data = json.loads(answer.stdout)
    assert data["kind"] == "phantom"
    assert answer.returncode in (0, 3)
    assert answer.stderr.splitlines()[-2].startswith("done ")
    assert answer.stderr.splitlines()[-1].endswith("report.html")


def test_failed_check_is_three(demo: Path, tmp_path: Path) -> None:
    tight = tmp_path / "tight.yaml"
    tight.write_text(
        "schema: 1\nid: tight\nname: tight\nsources:\n  - {id: me, citation: a test}\n"
        "rules:\n  - {check: slope, warn: [0.9999, 1.0001], fail: [0.9999, 1.0001], source: me}\n"
    )
    words = [
        "phantom",
        str(demo / "scans" / "SIM-B"),
        str(tmp_path / "out"),
        "--tolerances",
        str(tight),
        "--serial",
        "130-0150",
        "--temperature",
        "20",
    ]
    assert cordqa(*words).returncode == 3


def test_nothing_judged_is_one(demo: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    first = sorted((demo / "scans" / "SIM-A").rglob("*.dcm"))
    source = first[0] if first else sorted(p for p in (demo / "scans" / "SIM-A").rglob("*") if p.is_file())[0]
    (scans / "one").write_bytes(source.read_bytes())
    assert cordqa("phantom", str(scans), str(tmp_path / "out")).returncode == 1


def test_report_is_rebuilt_from_disk(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (demo / "report.html").read_text()
    (demo / "report.html").unlink()
    assert run(["report", str(demo)]) == 0
    assert (demo / "report.html").read_text() == before
    assert capsys.readouterr().out


def test_report_of_nothing_is_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert "run the analysis again" in capsys.readouterr().err


def test_demo_refuses_a_folder_of_other_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "precious.txt").write_text("keep me")
    assert run(["demo", str(tmp_path)]) == 2
    assert (scans / "precious.txt").read_text() == "keep me"
    assert "error [" in capsys.readouterr().err


@pytest.mark.parametrize("things", ["phantoms", "quantities", "engines", "models"])
def test_list(things: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", things, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 1
    assert run(["list", things]) == 0


def test_doctor_finds_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    assert "all is there" in capsys.readouterr().out
