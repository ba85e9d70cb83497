"""``cordqa fit qsm`` from end to end: a real scan, and a simulated cord with known truth."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from helpers_fit import load, save

from cordqa.cli._run import run
from cordqa.io.results import read_result

CROP = (slice(8, 44), slice(8, 44), slice(8, 32))


def detrended_score(found, truth):
    """NRMSE in % after the result was scaled so that its slope on the truth is 1."""
    r, t = found - found.mean(dtype=float), truth - truth.mean(dtype=float)
    return 100 * np.linalg.norm(r * (t @ t) / (r @ t) - t) / np.linalg.norm(t)


@pytest.fixture(scope="module")
def cord(shared_data, tmp_path_factory):
    folder = shared_data / "qsm" / "cord"
    settings = json.loads((folder / "params.json").read_text())
    out = tmp_path_factory.mktemp("cord")
    words = ["fit", "qsm", str(folder / "phase.nii.gz"), str(out)]
    words += ["--magnitude", str(folder / "magnitude.nii.gz"), "--mask", str(folder / "mask.nii.gz")]
    words += ["--echo-times", ",".join(f"{t:g}" for t in settings["TE"]), "--field-strength", "3"]
    words += ["--b0-direction", ",".join(f"{v:g}" for v in settings["B0_dir"]), "--no-report"]
    words += ["--noise-realisations", "2", "--region", str(folder / "gt_labels.nii.gz")]
    assert run(words) == 0
    return folder, out


def test_the_cord_comes_out_as_it_was_simulated(cord):
    folder, out = cord
    mask = load(folder / "mask.nii.gz") > 0
    chi = load(out / "Chimap.nii.gz")
    kept = mask & np.isfinite(chi)
    assert kept.sum() >= 0.95 * mask.sum()
    assert detrended_score(chi[kept], load(folder / "gt_chi.nii.gz")[kept]) <= 46
    field = load(out / "totalField.nii.gz")
    assert detrended_score(field[kept], load(folder / "gt_totalfield.nii.gz")[kept]) <= 2.3


def test_the_cord_has_its_masks_table_and_doubts(cord):
    folder, out = cord
    mask = load(folder / "mask.nii.gz") > 0
    assert np.array_equal(load(out / "desc-registration_mask.nii.gz") > 0, mask)
    table = json.loads((out / "consensus.json").read_text())
    assert [point["met"] for point in table["points"]] == [None, *[True] * 7]
    assert table["quality"]["slices_flagged"] == []
    result = read_result(out)
    assert any("--phase-sign" in notice.message for notice in result.notices)
    chi = [row for row in result.measurements if row.quantity == "susceptibility"]
    assert all(row.unit == "ppm" for row in chi)
    assert all(row.standard_uncertainty > 0 for row in chi[1:] if row.n_voxels > 50)


def test_a_real_scan_in_an_unknown_scaling(shared_data, tmp_path, capsys):
    folder = shared_data / "qsm" / "romeo_small"
    files = {}
    for name in ("Phase", "Mag"):
        image = nib.load(folder / f"small_{name}.nii.gz")
        data = np.asarray(image.dataobj)[CROP]
        files[name] = save(tmp_path / f"{name}.nii.gz", data, image.affine)
    words = ["fit", "qsm", str(files["Phase"]), str(tmp_path / "out"), "--magnitude", str(files["Mag"])]
    assert run([*words, "--field-strength", "7"]) == 2
    assert "give --echo-times in s" in capsys.readouterr().err
    words += ["--field-strength", "7", "--echo-times", "0.004,0.008,0.012", "--second-opinion"]
    assert run([*words, "--no-report", "--noise-realisations", "2", "--rounds", "2"]) == 0
    capsys.readouterr()
    result = read_result(tmp_path / "out")
    assert any("rescaled so that this is one turn" in text for text in result.methods)
    chi = load(tmp_path / "out" / "Chimap.nii.gz")
    assert np.isfinite(chi).mean() > 0.95
    assert 0.005 < np.nanstd(chi) < 0.5
    quality = json.loads((tmp_path / "out" / "consensus.json").read_text())["quality"]
    assert quality["unwrapping_differs_last_echo"] < 0.01
    assert quality["phase_quality_median"] > 0.8
