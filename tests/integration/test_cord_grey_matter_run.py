"""Grey-matter area as part of a cord run: recovered truth, real scan, masks of the user, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_cord_run import analyse, reasons, row

from cordqa.cord.axes import orient
from cordqa.io.volumes import read_volume, write_volume
from cordqa.records import State, Volume
from cordqa.simulate.cord.people import draw_person, true_grey_areas
from cordqa.simulate.cord.study_images import Pose, disc_labels, t2star_scan
from cordqa.simulate.cord_study import CordScanner, cord_scanners


def write(bids: Path, scanner: CordScanner) -> dict[str, float]:
    """Scan one person, label two discs, and return the true areas."""
    rng = np.random.default_rng(11)
    person = draw_person(rng, 0)
    scan = t2star_scan(person, scanner, "", Pose(), rng)
    image = replace(scan.volume, data=scan.volume.data.astype(np.int16))
    write_volume(image, bids / "sub-01/anat/sub-01_T2starw.nii.gz")
    name = "derivatives/labels/sub-01/anat/sub-01_T2starw_label-discs_dlabel.nii.gz"
    write_volume(disc_labels(person, Pose(), image), bids / name)
    return true_grey_areas(person)


def test_the_area_follows_the_truth(tmp_path: Path) -> None:
    truth = write(tmp_path / "bids", cord_scanners()[0])
    result = analyse(tmp_path / "bids", tmp_path / "out")
    for level in ("C3", "C4", "C5", "C6"):
        found = row(result, "GM_area", "GM", level)
        # The butterfly of the simulation is drawn otherwise than those of the training.
        assert found.value == pytest.approx(truth[level], rel=0.13)
        assert found.standard_uncertainty > 0 and found.unit == "mm2"
    single = [r for r in result.measurements if r.quantity == "GM_area" and r.slice_number is not None]
    assert len(single) >= 15
    assert (tmp_path / "out/sub-01/anat/sub-01_label-GM_desc-T2starw_probseg.nii.gz").is_file()
    figure = next(f for f in result.figures if f.title == "T2starw")
    assert "grey matter" in [overlay["label"] for overlay in figure.data["overlays"]]
    assert any("Grey matter: T2starw: grey-matter network" in text for text in result.methods)


def test_without_contrast_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    scanner = cord_scanners()[0]
    flat = {**scanner.t2star_contrast, "GM": scanner.t2star_contrast["WM"]}
    write(tmp_path / "bids", replace(scanner, t2star_contrast=flat))
    result = analyse(tmp_path / "bids", tmp_path / "out")
    (reason,) = [why for what, why in reasons(result, State.SKIPPED).items() if "grey matter" in what]
    assert "cannot be told apart" in reason
    assert not [r for r in result.measurements if r.quantity == "GM_area"]
    assert [r for r in result.measurements if r.quantity == "CSA"]
    assert not reasons(result, State.FAILED)


@pytest.mark.data
def test_a_real_scan_and_a_mask_by_hand(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "cord/testing/t2s"
    for name, target in (
        ("t2s.nii.gz", "sub-01/anat/sub-01_T2starw.nii.gz"),
        ("t2s_seg.nii.gz", "derivatives/manual/sub-01/anat/sub-01_T2starw_label-SC_seg.nii.gz"),
    ):
        (tmp_path / "bids" / target).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bids" / target).symlink_to(source / name)
    own = analyse(tmp_path / "bids", tmp_path / "out")
    hand = tmp_path / "bids/derivatives/manual/sub-01/anat/sub-01_T2starw_label-GM_seg.nii.gz"
    hand.symlink_to(source / "t2s_gmseg_manual.nii.gz")
    given = analyse(tmp_path / "bids", tmp_path / "given")
    theirs = row(given, "GM_area", "GM")
    assert theirs.engine.endswith("grey-matter mask of the user")
    mask = orient(read_volume(source / "t2s_gmseg_manual.nii.gz"))
    plane = mask.data.sum(axis=(0, 1)) * mask.spacing_mm[0] * mask.spacing_mm[1]
    # The cord of this person is nearly upright: the area across it is hardly less than in the slice.
    assert 0.93 * plane.mean() < theirs.value <= plane.mean()
    assert row(own, "GM_area", "GM").value == pytest.approx(theirs.value, rel=0.1)
    assert not list((tmp_path / "given").rglob("*label-GM*"))


@pytest.mark.data
def test_a_mask_of_another_grid_is_contained(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "cord/testing/t2s"
    image = tmp_path / "bids/sub-01/anat/sub-01_T2starw.nii.gz"
    image.parent.mkdir(parents=True)
    image.symlink_to(source / "t2s.nii.gz")
    mask = read_volume(source / "t2s_gmseg_manual.nii.gz")
    name = "derivatives/manual/sub-01/anat/sub-01_T2starw_label-GM_seg.nii.gz"
    write_volume(Volume(data=mask.data[:, 2:], affine=mask.affine), tmp_path / "bids" / name)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    ((what, reason),) = reasons(result, State.FAILED).items()
    assert "grey matter" in what and "grid" in reason
    assert [r for r in result.measurements if r.quantity == "CSA"]
