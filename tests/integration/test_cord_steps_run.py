"""A participant through the steps of an engine: the toolbox replayed from recorded runs, and built-in."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_sct import make_toolbox

from cordqa.engines.builtin import BuiltinEngine
from cordqa.io.bids_index import index_dataset
from cordqa.io.volumes import write_volume
from cordqa.records import Result, Severity, State, Volume
from cordqa.simulate.cord_study import simulate_study
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_records import Unit
from cordqa.workflow.cord_select import select_images
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_steps import StepRun
from cordqa.workflow.cord_steps_maps import analyse_by_steps


@pytest.fixture(scope="module")
def bids(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images whose runs were recorded, as a dataset of one participant."""
    folder = tmp_path_factory.mktemp("recorded") / "bids"
    testing, dwi = shared_data / "cord/testing", shared_data / "cord/tutorial/dmri"
    reference = shared_data / "cord/sct-reference"
    links = {
        "sub-01/anat/sub-01_T2w.nii.gz": testing / "t2/t2.nii.gz",
        "derivatives/labels/sub-01/anat/sub-01_T2w_label-discs_dlabel.nii.gz": (
            reference / "t2_manualseg/label/template/PAM50_label_disc.nii.gz"
        ),
        "sub-01/dwi/sub-01_dwi.nii.gz": dwi / "dmri.nii.gz",
        "sub-01/dwi/sub-01_dwi.bval": dwi / "bvals.txt",
        "sub-01/dwi/sub-01_dwi.bvec": dwi / "bvecs.txt",
    }
    for old, new in (("mt1", "flip-1_mt-on"), ("mt0", "flip-1_mt-off"), ("t1w", "flip-2_mt-off")):
        for ending in ("nii.gz", "json"):
            links[f"sub-01/anat/sub-01_{new}_MTS.{ending}"] = testing / f"mt/{old}.{ending}"
    for name, source in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source)
    return folder


def replayed(reference: Path) -> dict[str, str]:
    """Programs that leave what the real ones left for the same images."""
    t2, mt, dwi = (reference / name for name in ("t2_manualseg", "mt_testing", "dmri_tutorial"))
    discs = reference / "t2_discs" / "discfile_t2_seg-manual_labeled"

    def choose(*cases: tuple[str, str]) -> str:
        return 'case "$*" in ' + " ".join(f'*"{word}"*) {what};;' for word, what in cases) + " esac"

    def registration(warp: Path, like: Path) -> str:
        names = ("warp_template2anat", "warp_anat2template")
        copies = "; ".join(f"cp '{warp}' template/{name}.nii.gz" for name in names)
        return f"mkdir template; {copies}; cp '{like}' template/template2anat.nii.gz; " \
            f"cp '{like}' template/anat2template.nii.gz"  # fmt: skip

    scripts = {
        "sct_deepseg": choose(
            ("T2w", f"cp '{t2 / 't2_seg-manual.nii.gz'}' segmentation.nii.gz"),
            ("MTS", f"cp '{mt / 'mt1_seg.nii.gz'}' segmentation.nii.gz"),
            ("dwi_mean", f"cp '{dwi / 'dmri_moco_dwi_mean_seg.nii.gz'}' segmentation.nii.gz"),
        ),
        "sct_label_vertebrae": f"mkdir levels; cp '{discs}.nii.gz' levels/mask_labeled.nii.gz; "
        f"cp '{discs}_discs.nii.gz' levels/mask_labeled_discs.nii.gz",
        "sct_process_segmentation": choose(
            ("-perlevel 1", f"cp '{t2 / 'csa_perlevel.csv'}' shape.csv"),
            ("-perslice 1", f"cp '{t2 / 'csa_perslice.csv'}' shape.csv"),
            ("-i", f"cp '{t2 / 'csa_default.csv'}' shape.csv"),
        ),
        "sct_create_mask": f"cp '{mt / 'mask_mt1.nii.gz'}' around.nii.gz",
        "sct_register_multimodal": choose(
            ("flip-2_mt-off", f"cp '{mt / 't1w_reg.nii.gz'}' sub-01_flip-2_mt-off_MTS_reg.nii.gz"),
            ("flip-1_mt-off", f"cp '{mt / 'mt0_reg.nii.gz'}' sub-01_flip-1_mt-off_MTS_reg.nii.gz"),
        )
        + f"; cp '{mt / 'warp_mt02mt1.nii.gz'}' warp_moving2fixed.nii.gz",
        "sct_register_to_template": choose(
            ("MTS", registration(mt / "warp_template2mt.nii.gz", mt / "mt1.nii.gz")),
            ("dwi", registration(dwi / "warp_template2anat.nii.gz", dwi / "dmri_moco_dwi_mean.nii.gz")),
        ),
        "sct_warp_template": choose(
            ("MTS", f"cp -r '{mt / 'label'}' . && chmod -R u+w label"),
            ("dwi", f"cp -r '{dwi / 'label'}' . && chmod -R u+w label"),
        ),
        "sct_compute_mtr": f"cp '{mt / 'mtr.nii.gz'}' .",
        "sct_compute_mtsat": f"cp '{mt / 'mtsat.nii.gz'}' '{mt / 't1map.nii.gz'}' .",
        "sct_dmri_moco": "mkdir moco; "
        + "; ".join(
            f"cp '{dwi / f'dmri_moco{part}.nii.gz'}' moco/sub-01_dwi_moco{part}.nii.gz"
            for part in ("", "_b0_mean", "_dwi_mean")
        )
        + f"; cp '{dwi / 'moco_params.tsv'}' moco/",
        "sct_dmri_compute_dti": "; ".join(
            f"cp '{dwi / f'dti_{q}.nii.gz'}' ." for q in ("FA", "MD", "RD", "AD")
        ),
        "sct_extract_metric": choose(
            ("mtsat.nii", f"cp '{mt / 'mtsat_map.csv'}' extracted.csv"),
            ("t1map.nii", f"cp '{mt / 't1_map.csv'}' extracted.csv"),
            ("mtr.nii", f"cp '{mt / 'mtr_z2-3_map.csv'}' extracted.csv"),
            ("dti_FA", f"cp '{dwi / 'fa_in_wm.csv'}' extracted.csv"),
            ("dti_MD", f"cp '{reference / 'dmri_testing/md_tracts_map.csv'}' extracted.csv"),
            ("dti_", f"cp '{dwi / 'fa_in_wm.csv'}' extracted.csv"),
        ),
    }  # fmt: skip
    # Their logs then hold what was asked of them.
    return {name: f'echo "$0 $*"; {script}' for name, script in scripts.items()}


def job(bids: Path, out: Path, scripts: dict[str, str], **settings: object) -> CordJob:
    return CordJob(
        index=index_dataset(bids),
        subject="01",
        session="",
        out=out,
        settings=CordSettings(engine="sct", **settings),  # type: ignore[arg-type]
        work=out / "work",
        atlas=prepare_atlas(None, out / "work"),
        marks={},
        toolbox=make_toolbox(out / "toolbox", scripts),
    )


@pytest.fixture(scope="module")
def whole(bids: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("whole")
    return analyse_unit(job(bids, out, replayed(shared_data / "cord/sct-reference"))), out


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_step_is_the_toolbox(whole: tuple[Result, Path]) -> None:
    result, _ = whole
    failed = [o for o in result.outcomes if o.state is State.FAILED]
    assert failed == []
    steps = {o.what.partition(": ")[2] for o in result.outcomes if o.state is State.DONE}
    assert {
        "cord", "levels of the engine", "shape of the cord", "maps", "template", "extraction", "diffusion"
    } <= steps  # fmt: skip
    assert {row.engine for row in result.measurements} == {"sct 7.3"}
    assert {"CSA", "MTR", "MTsat", "T1", "FA", "MD"} <= {row.quantity for row in result.measurements}


def test_the_numbers_are_those_that_the_toolbox_left(whole: tuple[Result, Path], shared_data: Path) -> None:
    result, _ = whole
    reference = shared_data / "cord/sct-reference"
    areas = {
        row.slice_number: row.value
        for row in result.measurements
        if row.quantity == "CSA" and row.slice_number is not None and row.entities.acquisition == "T2w"
    }
    known = {
        int(r["Slice (I->S)"]): float(r["MEAN(area)"])
        for r in table(reference / "t2_manualseg/csa_perslice.csv")
    }
    assert areas == pytest.approx(known)
    t1 = [r for r in result.measurements if (r.quantity, r.region, r.level) == ("T1", "WM", "all slices")]
    (expected,) = [
        float(r["MAP()"]) for r in table(reference / "mt_testing/t1_map.csv") if r["Label"] == "white matter"
    ]
    assert t1[0].value == pytest.approx(1000 * expected)
    assert t1[0].unit == "ms" and t1[0].method.startswith("MAP of the map, sct")


def test_calls_carry_what_the_toolbox_needs(whole: tuple[Result, Path]) -> None:
    """What was asked is in the logs: seconds, one or two labels, the space of the thick slices."""
    _, out = whole
    said = " ".join(" ".join(log.read_text().split()) for log in (out / "work").rglob("*.log"))
    assert (out / "work" / "sub-01" / "steps" / "sct").is_dir()
    assert "sct_register_to_template" in said
    assert "-ref subject" in said
    assert "-trmt 0.03" in said
    # The toolbox builds its own pages too, apart for each participant.
    assert said.count(f"-qc {out / 'sub-01' / 'qc-sct'}") >= 5


def test_one_broken_program_costs_its_step_alone(bids: Path, shared_data: Path, tmp_path: Path) -> None:
    scripts = replayed(shared_data / "cord/sct-reference")
    scripts["sct_compute_mtsat"] = "echo 'ERROR: no T1 today'; exit 1"
    scripts["sct_dmri_moco"] = "exit 0"
    scripts["sct_register_to_template"] = "kill -9 $$"
    result = analyse_unit(job(bids, tmp_path, scripts))
    failed = {o.what.partition("sub-01 ")[2]: o.reason for o in result.outcomes if o.state is State.FAILED}
    assert set(failed) == {"MTS: MTsat and T1", "MTS: template", "dwi: diffusion"}
    assert "no T1 today" in failed["MTS: MTsat and T1"]
    quantities = {row.quantity for row in result.measurements}
    assert "CSA" in quantities and "MTR" not in quantities
    assert not list((tmp_path / "work").rglob(".sct-*"))


def test_without_a_label_the_template_has_no_place(bids: Path, shared_data: Path, tmp_path: Path) -> None:
    small = tmp_path / "bids"
    for path in bids.rglob("*_MTS.*"):
        (small / path.relative_to(bids)).parent.mkdir(parents=True, exist_ok=True)
        (small / path.relative_to(bids)).symlink_to(path.resolve())
    result = analyse_unit(job(small, tmp_path / "out", replayed(shared_data / "cord/sct-reference")))
    (reason,) = [o.reason for o in result.outcomes if o.state is State.FAILED]
    assert "needs a level" in reason
    assert any(row.quantity == "CSA" for row in result.measurements)


def test_a_way_of_extraction_that_the_toolbox_lacks_is_named(
    bids: Path, shared_data: Path, tmp_path: Path
) -> None:
    result = analyse_unit(job(bids, tmp_path, replayed(shared_data / "cord/sct-reference"), method="max"))
    failed = [o for o in result.outcomes if o.state is State.FAILED]
    assert failed and all("is not offered by engines" in o.reason for o in failed)


def test_the_same_chain_runs_on_the_builtin_engine(tmp_path: Path) -> None:
    """One protocol: what drives the toolbox drives any engine, and truth comes out at the other end."""
    visit = next(simulate_study(seed=5, n_people=1, n_repeats=1))
    bids = tmp_path / "bids"
    for scan in visit.scans:
        if scan.gradients is not None:
            continue
        name = "_".join([*(f"{k}-{v}" for k, v in scan.entities.items()), scan.suffix])
        path = bids / "sub-01/ses-A1/anat" / name
        write_volume(scan.volume, path.with_name(f"{name}.nii.gz"))
        path.with_name(f"{name}.json").write_text(json.dumps(scan.sidecar))
    discs = Volume(data=visit.discs.data.astype(np.uint8), affine=visit.discs.affine)
    labels = bids / "derivatives/labels/sub-01/ses-A1/anat"
    write_volume(discs, labels / "sub-01_ses-A1_T2w_label-discs_dlabel.nii.gz")
    index = index_dataset(bids)
    from cordqa.workflow.cord_engine import segment_builtin

    unit = Unit(name="sub-01", segment=segment_builtin)
    settings = CordSettings(levels=("C3", "C3-C5"))
    run = StepRun(engine=BuiltinEngine(), work=tmp_path / "work", unit=unit, settings=settings)
    maps = analyse_by_steps(index, select_images(index, "01", "A1"), run)
    assert [o for o in unit.outcomes if o.state is State.FAILED] == []
    assert maps[0].atlas is not None and set(maps[0].maps) == {"MTR", "MTsat", "T1"}
    rows = {(r.quantity, r.region, r.level): r for r in unit.rows}
    truth = visit.truth
    assert rows["MTR", "WM", "C3-C5"].value == pytest.approx(truth.mtr_percent["WM"], rel=0.04)
    assert -0.12 < rows["CSA", "cord", "C3"].value / truth.csa_mm2["C3"] - 1 < 0.03
    assert all(r.engine.startswith("builtin ") for r in unit.rows)
    assert all(n.severity is not Severity.ERROR for n in unit.notices)
    assert replace(rows["MTR", "WM", "C3"], value=0.0).slice_number is None
