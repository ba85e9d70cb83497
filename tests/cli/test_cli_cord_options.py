"""Options of ``cordqa cord`` that say how, not what: limits, failures, labels as BIDS-Apps take them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cordqa.cli._run import run


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Six participants whose only image is no image."""
    for name in ("01", "02", "03", "04", "05", "06"):
        folder = tmp_path / "bids" / f"sub-{name}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{name}_T2w.nii.gz").write_bytes(b"no image")
    return tmp_path / "bids"


def outcomes(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    return {o["what"]: (o["state"], o["code"]) for o in json.loads(capsys.readouterr().out)["outcomes"]}


def test_help_names_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["cord", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--timeout",
        "--stop-on-first-crash",
        "--memory",
        "--walltime",
        "--queue",
        "--account",
        "--job-directive",
        "--job-prologue",
        "--extract-from",
        "--sct-dir",
        "--phase-sign",
        "--phase-range",
    ):
        assert option in text


def test_nobody_is_started_after_the_first_failure(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cord", str(bids), str(tmp_path / "out"), "participant", "--n-procs", "1", "--json"]
    assert run([*words, "--stop-on-first-crash"]) == 1
    found = outcomes(capsys)
    # One more may be under way when the news comes; it is finished.
    assert [state for state, _ in found.values()].count("failed") in (1, 2)
    assert [code for _, code in found.values()].count("execute.stopped") >= 4
    # Without it, all are tried; those that were left out were not recorded as done.
    assert run(words) == 1
    assert {state for state, _ in outcomes(capsys).values()} == {"failed"}


def test_a_participant_that_takes_too_long_is_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bids" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 100, (64, 64, 64)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), folder / "sub-01_T2w.nii.gz")
    words = ["cord", str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--json"]
    assert run([*words, "--timeout", "0.05s"]) == 1
    assert outcomes(capsys) == {"sub-01": ("failed", "execute.timeout")}


def test_labels_as_bids_apps_take_them(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cord", str(bids), str(tmp_path / "out"), "participant", "--dry-run", "--json"]
    assert run([*words, "--participant_label", "01", "03"]) == 0
    assert set(outcomes(capsys)) == {"sub-01", "sub-03"}
    assert run([*words, "--n_cpus", "2", "sub-02"]) == 2
    assert "sub-02" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--timeout", "soon"],
        ["--timeout", "0"],
        ["--memory", "8"],
        ["--queue", "long"],
        ["--walltime", "1:00:00"],
        ["--extract-from", "thin air"],
        ["--phase-sign", "upside down"],
        ["--phase-range", "4095"],
        ["--phase-range", "4096,-4096"],
        ["--phase-range", "nan,1"],
        ["--sct-dir", "absent", "--engine", "sct"],
        ["--scheduler", "tcp://127.0.0.1:9", "--cluster", "slurm"],
    ],
)
def test_options_that_cannot_be_used_are_wrong_usage(
    words: list[str], bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cord", str(bids), str(tmp_path / "out"), "participant", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
