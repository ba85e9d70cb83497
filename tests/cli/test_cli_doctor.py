"""What ``cordqa doctor`` says about the Spinal Cord Toolbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers_sct import make_toolbox

from cordqa.cli._run import run


@pytest.fixture(autouse=True)
def no_toolbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CORDQA_SCT_DIR", raising=False)
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_the_toolbox_all_is_well_and_the_way_to_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Spinal Cord Toolbox: not found (optional" in out
    assert "set CORDQA_SCT_DIR" in out


def test_a_complete_toolbox(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CORDQA_SCT_DIR", str(make_toolbox(tmp_path / "sct").root))
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Spinal Cord Toolbox 7.3:" in out
    assert "all its pieces are there" in out


def test_missing_pieces_come_with_the_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toolbox = make_toolbox(tmp_path / "sct", models=False, template=False)
    (toolbox.root / "bin" / "isct_propseg").unlink()
    monkeypatch.setenv("SCT_DIR", str(toolbox.root))
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "cannot segment cord: the model model_seg_sc_contrast_agnostic_nnunet is not installed" in out
    assert "run: sct_deepseg spinalcord -install" in out
    assert "run: sct_download_data -d PAM50" in out
    assert "all its pieces" not in out


def test_a_stale_folder_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toolbox = make_toolbox(tmp_path / "sct")
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("PATH", f"{toolbox.programs}{os.pathsep}{os.defpath}")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "found by PATH" in out
    assert "not used: SCT_DIR" in out
