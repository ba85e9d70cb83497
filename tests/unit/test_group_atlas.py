"""An atlas of a group from the command line, and one person against it."""

import json

import nibabel as nib
import numpy as np
import pytest

from cordqa.cli._run import run

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (12, 10, 8)


def save(path, data, *, affine=AFFINE, unit="%"):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"Units": unit}))
    return str(path)


def person(seed, *, outside=0.0):
    values = np.random.default_rng(seed).normal(12, 2, SHAPE)
    values[:2] = outside
    return values


@pytest.fixture
def group(tmp_path):
    return [save(tmp_path / f"sub-{n:02d}_MWFmap.nii.gz", person(n)) for n in range(10)]


def load(path):
    return nib.load(path).get_fdata()


def test_mean_and_spread_of_a_group_and_a_score_of_another_person(group, tmp_path, capsys):
    out = tmp_path / "atlas"
    assert run(["normative", "atlas", *group, str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_maps"], report["n_voxels"], report["unit"]) == (10, 10 * 10 * 8, "%")
    maps = np.stack([load(one) for one in group])
    np.testing.assert_allclose(load(out / "mean.nii.gz")[2:], maps.mean(axis=0)[2:], rtol=1e-6)
    np.testing.assert_allclose(load(out / "sd.nii.gz")[2:], maps.std(axis=0, ddof=1)[2:], rtol=1e-5)
    assert np.isnan(load(out / "mean.nii.gz")[:2]).all()  # 0 in all maps: no myelin map at all
    assert (load(out / "n.nii.gz")[:2] == 0).all()
    other = save(tmp_path / "sub-99_MWFmap.nii.gz", person(99))
    assert run(["normative", "score", other, str(out), str(tmp_path / "t.nii.gz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_voxels"] == 800
    assert found["limit"] == pytest.approx(2.262, abs=1e-3)  # t with 9 degrees of freedom
    assert found["share_below"] + found["share_above"] == pytest.approx(0.05, abs=0.02)
    assert np.isnan(load(tmp_path / "t.nii.gz")[:2]).all()


def test_zeros_of_some_maps_are_said_and_can_be_missing(group, tmp_path, capsys):
    hole = person(3)
    hole[6:] = 0
    save(tmp_path / "sub-03_MWFmap.nii.gz", hole)
    assert run(["normative", "atlas", *group, str(tmp_path / "a")]) == 0
    assert "--zeros missing" in capsys.readouterr().err
    assert run(["normative", "atlas", *group, str(tmp_path / "b"), "--zeros", "missing"]) == 0
    assert (load(tmp_path / "b" / "n.nii.gz")[6:] == 9).all()
    assert load(tmp_path / "a" / "mean.nii.gz")[6:].mean() < 11
    assert load(tmp_path / "b" / "mean.nii.gz")[6:].mean() == pytest.approx(12, abs=0.3)


def test_another_unit_and_several_maps_of_a_person_are_said(group, tmp_path, capsys):
    save(tmp_path / "sub-04_MWFmap.nii.gz", person(4) / 100)
    again = save(tmp_path / "sub-05_ses-2_MWFmap.nii.gz", person(50))
    assert run(["normative", "atlas", *group, again, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err
    assert "sub-04_MWFmap.nii.gz has a median of 0.1" in said and "another unit?" in said
    assert "several maps of sub-05" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: save(p, person(1), affine=np.diag([2, 2, 2.2, 1])), "grid of the first map"),
        (lambda p: save(p, person(1)[:-1]), "grid of the first map"),
        (lambda p: save(p, person(0)), "same file as another map"),
        (lambda p: save(p, person(1), unit="1"), "several units"),
        (lambda p: save(p, np.zeros(SHAPE)), "holds no value"),
        (lambda p: save(p, np.full(SHAPE, np.nan)), "holds no value"),
        (lambda p: save(p, np.ones((*SHAPE, 3))), "three dimensions"),
        (lambda p: p.write_bytes(b"no image"), "cannot be read"),
        (lambda p: p.unlink(), "does not exist"),
    ],
)
def test_maps_that_cannot_be_averaged_are_named(spoil, words, group, tmp_path, capsys):
    spoil(tmp_path / "sub-01_MWFmap.nii.gz")
    assert run(["normative", "atlas", *group, str(tmp_path / "a")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_wrong_use_of_both_commands(group, tmp_path, capsys):
    out = str(tmp_path / "a")
    assert run(["normative", "atlas", *group[:2], out]) == 2
    assert "too few maps" in capsys.readouterr().err
    assert run(["normative", "atlas", out]) == 2
    assert run(["normative", "atlas", *group, out, "--zeros", "no"]) == 2
    assert run(["normative", "atlas", *group, out]) == 0
    capsys.readouterr()
    other = save(tmp_path / "sub-99_MWFmap.nii.gz", person(99), unit="1")
    assert run(["normative", "score", other, out, str(tmp_path / "t.nii.gz")]) == 2
    assert "another unit than the atlas" in capsys.readouterr().err
    assert run(["normative", "score", group[0], out, str(tmp_path / "t.nii.gz")]) == 2
    assert "one of the maps of the atlas" in capsys.readouterr().err
    assert run(["normative", "score", group[0], str(tmp_path), str(tmp_path / "t.nii.gz")]) == 2
    assert "not a folder of an atlas" in capsys.readouterr().err
    assert run(["normative", "score", other, out, str(tmp_path / "t.txt")]) == 2
    assert "must end in" in capsys.readouterr().err
