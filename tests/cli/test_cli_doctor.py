"""What ``cordqa doctor`` says about packages, data files and the Spinal Cord Toolbox."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from helpers_sct import make_toolbox

from cordqa.cli._run import run

ROOT = Path(__file__).resolve().parents[2]


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


def test_every_dependency_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """What pyproject.toml needs is looked for; what it offers as an extra is named with its use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = [
        one for extra in ("cluster", "denoise", "noddi") for one in project["optional-dependencies"][extra]
    ]
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    for requirement in [*project["dependencies"], *offered]:
        assert re.split(r"[\[<>=]", requirement)[0] in out
    assert "protocol spine-generic-3t: valid" in out


def test_a_missing_package_is_named_and_a_missing_extra_is_no_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = metadata.version

    def without(*gone: str) -> Callable[[str], str]:
        def version(name: str) -> str:
            if name in gone:
                raise metadata.PackageNotFoundError(name)
            return known(name)

        return version

    monkeypatch.setattr(metadata, "version", without("dmri-amico"))
    assert run(["doctor"]) == 0
    assert "dmri-amico: not found (optional: NODDI" in capsys.readouterr().out
    monkeypatch.setattr(metadata, "version", without("onnxruntime"))
    assert run(["doctor"]) == 1
    assert "MISSING: onnxruntime" in capsys.readouterr().out
