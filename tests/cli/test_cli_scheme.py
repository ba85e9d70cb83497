"""``cordqa scheme`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cordqa.cli._run import run
from cordqa.errors import ConfigError
from cordqa.workflow.gradients import find_gradient_files, read_gradients
from cordqa.workflow.scheme import parse_shell


def call(*words: str | Path) -> int:
    return run([str(word) for word in words])


def make(out: Path, *words: str) -> int:
    return call("scheme", "design", out, *words)


@pytest.mark.parametrize("command", ["design", "check"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("scheme", command, "--help") == 0
    assert "Usage: cordqa scheme" in capsys.readouterr().out


def test_design_writes_files_that_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path, "--shell", "1000:20", "--shell", "2500:30", "--tr", "3.5") == 0
    captured = capsys.readouterr()
    assert "57 volumes x 3.5 s = 3:20 min" in captured.out
    assert captured.err.startswith("done 1, skipped 0, failed 0")
    assert (tmp_path / "scheme.txt").read_text() == captured.out
    described = json.loads((tmp_path / "scheme.json").read_text())
    assert described["n_volumes"] == 57 and described["status"] == "pass" and described["model"] == "dki"
    assert [shell["n"] for shell in described["shells"]] == [20, 30]
    assert call("scheme", "check", tmp_path / "scheme.bval", "--model", "dki") == 0
    assert call("scheme", "check", tmp_path / "scheme.b", "--model", "dki") == 0
    assert "PASS" in capsys.readouterr().out


def test_designs_are_repeatable_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert make(tmp_path / name, "--shell", "800:30", "--seed", "3") == 0
    for ending in (".bval", ".bvec", ".b"):
        files = [(tmp_path / name / f"scheme{ending}").read_bytes() for name in ("a", "b")]
        assert files[0] == files[1]


def test_the_budget_decides_what_is_left_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--shell",
        "1000",
        "--shell",
        "2500",
        "--slices",
        "16",
        "--multiband",
        "2",
        "--slice-time",
        "0.2",
    ]
    assert make(tmp_path, *words, "--others", "13", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert "leave of the protocol's 15:00 min" in result["summary"]
    table, _ = read_gradients(None, find_gradient_files(tmp_path / "scheme.nii.gz"))
    assert 1.6 * (len(table) + 2) > 120 >= 1.6 * len(table)


def test_b_tensors_come_with_their_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shell", "1000:6:STE", "--shell", "1000:12", "--shell", "2000:12:DDE", "--shell", "2000:9:STE"]
    assert make(tmp_path, *words) == 0
    assert "keep the .bdelta file" in capsys.readouterr().out
    table, _ = read_gradients(None, find_gradient_files(tmp_path / "scheme.nii.gz"))
    assert sorted(set(table.b_delta[~table.is_b0])) == [-0.5, 0.0, 1.0]
    pulses = np.loadtxt(tmp_path / "scheme_pulses.tsv", skiprows=1)
    assert pulses.shape == (12, 7)
    assert np.all(table.b_delta[pulses[:, 0].astype(int) - 1] == -0.5)
    assert make(tmp_path, "--shell", "800:12") == 0
    assert not (tmp_path / "scheme_pulses.tsv").exists() and not (tmp_path / "scheme.bdelta").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--shell", "1:30"],
        ["--shell", "nonsense"],
        ["--shell", "1000:30:XTE"],
        ["--shell", "1000:0"],
        ["--shell", "1000"],
        ["--shell", "1000:30", "--tr", "3500"],
        ["--shell", "1000:30", "--tr", "3", "--multiband", "4"],
        ["--shell", "1000:900", "--tr", "3"],
        ["--shell", "1000:30", "--name", "../x"],
        ["--shell", "1000:30", "--shell", "1000:20"],
        ["--shell", "nan:30"],
    ],
)
def test_wrong_requests_are_two_and_write_nothing(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path / "out", *words) == 2
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


def test_a_scheme_that_cannot_support_its_model_is_three(tmp_path: Path) -> None:
    assert make(tmp_path, "--shell", "800:30", "--model", "dki") == 3


def test_shells_in_words() -> None:
    assert [shell.b_delta for shell in parse_shell("2000:12:dde")] == [1.0, -0.5]
    (half,) = parse_shell("1500:9:0.5")
    assert (half.b_s_mm2, half.n, half.b_delta) == (1500, 9, 0.5)
    assert parse_shell("700:STE")[0].n is None
    for bad in ("", ":", "1000:1:2:3", "1000:3.5.1", "inf:3"):
        with pytest.raises(ConfigError):
            parse_shell(bad)


def test_the_real_schemes(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((shared_data / "diffusion" / "schemes").glob("*.bv*"))
    assert call("scheme", "check", *files) == 3
    captured = capsys.readouterr()
    assert "Fails (1): sub-ucl_dwi." in captured.out
    assert "sub-juntendo750w_dwi, sub-perform_dwi" in captured.out
    assert captured.err.endswith("done 7, skipped 0, failed 0\n")
    good = [path for path in files if "ucl" not in path.name]
    assert call("scheme", "check", *good, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "scheme" and result["status"] == "warn"


def test_an_image_brings_its_files_and_its_volumes(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "diffusion" / "hex"
    call("scheme", "check", folder / "hex_dwi.nii.gz", "--model", "ufa")
    assert "hex_dwi" in capsys.readouterr().out
    (tmp_path / "hex_dwi.nii.gz").symlink_to(folder / "hex_dwi.nii.gz")
    for ending in ("bval", "bvec"):
        numbers = np.loadtxt(folder / f"hex_dwi.{ending}", ndmin=2)
        numbers = numbers if numbers.shape[1] > 3 else numbers.T
        np.savetxt(tmp_path / f"hex_dwi.{ending}", numbers[:, :-1], fmt="%.6f")
    assert call("scheme", "check", tmp_path / "hex_dwi.nii.gz") == 2
    assert "105 b-values, 105 directions, 106 volumes in the image" in capsys.readouterr().err


def test_one_unreadable_scheme_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path, "--shell", "800:30") == 0
    (tmp_path / "bad.bval").write_text("0 nan\n")
    (tmp_path / "bad.bvec").write_text("0 1\n0 0\n0 0\n")
    capsys.readouterr()
    assert call("scheme", "check", tmp_path / "scheme.bval", tmp_path / "bad.bval") == 1
    captured = capsys.readouterr()
    assert "nan at volume" in captured.out and "done 1, skipped 0, failed 1" in captured.err
    assert call("scheme", "check", tmp_path / "bad.bval") == 2
    assert "input.gradients.b-value" in capsys.readouterr().err


def test_schemes_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a/dwi", "b/dwi"):
        assert make(tmp_path / folder, "--shell", "800:30") == 0
        for ending in ("bval", "bvec"):
            (tmp_path / folder / f"scheme.{ending}").rename(tmp_path / folder / f"{ending}s")
    capsys.readouterr()
    assert call("scheme", "check", tmp_path / "a/dwi/bvals", tmp_path / "b/dwi/bvecs") == 0
    assert "Passes (2): a/dwi, b/dwi." in capsys.readouterr().out


def test_units_and_lengths_are_settled_by_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path, "--shell", "1000:30") == 0
    b = np.loadtxt(tmp_path / "scheme.bval") / 1000
    np.savetxt(tmp_path / "scheme.bval", b[None])
    assert call("scheme", "check", tmp_path / "scheme.bval") == 2
    assert "looks like ms/um2" in capsys.readouterr().err
    assert call("scheme", "check", tmp_path / "scheme.bval", "--b-unit", "ms/um2") == 0


def test_wrong_files_are_two(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    assert call("scheme", "check", tmp_path / "notes.md") == 2
    assert call("scheme", "check", tmp_path / "absent.bval") == 2
    assert call("scheme", "check") == 2
