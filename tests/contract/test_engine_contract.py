"""One suite for every engine: register it and it is tested here.

The Spinal Cord Toolbox stands in as scripts that leave the recorded outputs of the real one; where
the real one is installed, it is tested as well.
"""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers_sct import cord_mask, make_toolbox, write_image

from cordqa.engines.builtin import BuiltinEngine
from cordqa.engines.errors import EngineError, EngineUnavailableError, MixedEnginesError
from cordqa.engines.protocol import (
    Contrast,
    Engine,
    Estimator,
    Grouping,
    SpoiledImage,
    Step,
    Tissue,
    merge_results,
    row_measurement,
)
from cordqa.engines.registry import ENGINES, make_engine
from cordqa.engines.sct.engine import SctEngine
from cordqa.engines.sct.locate import search_toolbox
from cordqa.errors import ConfigError, CordqaError
from cordqa.records import Entities


@pytest.fixture(params=[*ENGINES, "real sct"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "builtin":
        return make_engine("builtin")
    if request.param == "sct":
        return SctEngine(make_toolbox(tmp_path / "toolbox"), timeout_s=20)
    toolbox = search_toolbox().toolbox
    if toolbox is None:
        pytest.skip("the Spinal Cord Toolbox is not installed here")
    return SctEngine(toolbox)


def reference(shared_data: Path) -> Path:
    return shared_data / "cord" / "sct-reference"


def recorded_engine(name: str, tmp_path: Path, program: str, script: str) -> Engine:
    if name == "builtin":
        return BuiltinEngine()
    return SctEngine(make_toolbox(tmp_path / "toolbox", {program: script}), timeout_s=20)


def every_call(engine: Engine, image: Path, work: Path):
    """All steps, each with the same image wherever an image is due."""
    spoiled = SpoiledImage(path=image, repetition_time_s=0.03, flip_angle_deg=9)
    cord, t2 = image, Contrast.T2
    return {
        Step.SEGMENT_CORD: lambda: engine.segment(image, work, contrast=t2),
        Step.SEGMENT_GREY_MATTER: lambda: engine.segment(image, work, contrast=t2, tissue=Tissue.GREY_MATTER),
        Step.LABEL_LEVELS: lambda: engine.label_levels(
            image, work, segmentation=cord, contrast=t2, discs=image
        ),
        Step.REGISTER_TEMPLATE: lambda: engine.register_template(
            image, work, segmentation=cord, contrast=t2, discs=image
        ),
        Step.WARP_TEMPLATE: lambda: engine.warp_template(image, work, warp=image),
        Step.COREGISTER: lambda: engine.coregister(image, work, fixed=image),
        Step.MOTION_CORRECT: lambda: engine.motion_correct(image, work, bvals=image, bvecs=image),
        Step.DTI: lambda: engine.dti(image, work, bvals=image, bvecs=image),
        Step.MTR: lambda: engine.mtr(image, work, mt_off=image),
        Step.MTSAT: lambda: engine.mtsat(spoiled, work, mt_off=spoiled, t1w=spoiled),
        Step.MORPHOMETRY: lambda: engine.morphometry(cord, work),
        Step.EXTRACT: lambda: engine.extract(image, work, atlas=image, labels=[51], quantity="MTR", unit="%"),
    }


def test_it_is_an_engine_with_name_and_version(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name in ENGINES
    assert engine.version


def test_it_says_of_every_step_whether_it_can(engine: Engine) -> None:
    pieces = engine.capabilities()
    assert [p.step for p in sorted(pieces, key=lambda p: list(Step).index(p.step))] == list(Step)
    for piece in pieces:
        assert piece.available or (piece.reason and piece.todo)


def test_a_step_that_it_cannot_take_is_refused_by_name(engine: Engine, tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask())
    for piece in engine.capabilities():
        if not piece.available:
            with pytest.raises(EngineUnavailableError):
                every_call(engine, image, tmp_path / "w")[piece.step]()


@pytest.mark.parametrize("kind", ["absent", "garbage", "truncated", "four dimensions"])
def test_a_bad_image_is_a_named_error_and_leaves_nothing(engine: Engine, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "i.nii.gz"
    if kind == "garbage":
        image.write_bytes(b"not an image" * 100)
    elif kind == "truncated":
        write_image(image, np.random.default_rng(0).random((20, 20, 20)))
        image.write_bytes(image.read_bytes()[:200])
    elif kind == "four dimensions":
        write_image(image, np.ones((6, 6, 6, 4), np.uint8))
    for step, call in every_call(engine, image, tmp_path / "w").items():
        if kind == "four dimensions" and step in (Step.MOTION_CORRECT, Step.DTI):
            continue
        with pytest.raises(CordqaError) as caught:
            call()
        assert "\n" not in str(caught.value)
    left = [p for p in (tmp_path / "w").rglob("*") if p.is_file() and "logs" not in p.parts]
    assert left == []


def test_an_empty_mask_is_refused(engine: Engine, tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", np.ones((10, 10, 5), np.float32))
    empty = write_image(tmp_path / "m.nii.gz", np.zeros((10, 10, 5), np.uint8))
    with pytest.raises(CordqaError, match="empty"):
        engine.morphometry(empty, tmp_path / "w")
    with pytest.raises(CordqaError, match="empty"):
        engine.label_levels(image, tmp_path / "w", segmentation=empty, contrast=Contrast.T2, discs=empty)


def test_a_mask_of_another_image_is_refused(engine: Engine, tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask())
    moved = np.eye(4)
    moved[0, 3] = 3.0
    other = write_image(tmp_path / "m.nii.gz", cord_mask(), moved)
    with pytest.raises(CordqaError, match="grid"):
        engine.label_levels(image, tmp_path / "w", segmentation=other, contrast=Contrast.T2, discs=image)
    with pytest.raises(CordqaError, match="grid"):
        engine.extract(
            image,
            tmp_path / "w",
            atlas=other,
            labels=[0],
            quantity="MTR",
            unit="%",
            estimator=Estimator.WEIGHTED_AVERAGE,
        )


def test_units_are_checked_before_any_work(engine: Engine, tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask())
    with pytest.raises(ConfigError, match="unit"):
        engine.extract(image, tmp_path / "w", atlas=image, labels=[0], quantity="MTR", unit="parsec")


@pytest.mark.parametrize("name", ENGINES)
def test_area_without_angle_equals_the_recorded_one(name: str, tmp_path: Path, shared_data: Path) -> None:
    """Both engines against the recorded table of the real toolbox: the rows are the same."""
    folder = reference(shared_data) / "t2_manualseg"
    script = f"cp '{folder / 'csa_perslice_noangle.csv'}' shape.csv"
    engine = recorded_engine(name, tmp_path, "sct_process_segmentation", script)
    result = engine.morphometry(folder / "t2_seg-manual.nii.gz", tmp_path / "w", angle_correction=False)
    areas = {row.slices: row.value for row in result.rows if row.quantity == "CSA"}
    import csv

    with (folder / "csa_perslice_noangle.csv").open() as stream:
        truth = {(int(r["Slice (I->S)"]),): float(r["MEAN(area)"]) for r in csv.DictReader(stream)}
    assert areas.keys() == truth.keys()
    for key, value in truth.items():
        assert areas[key] == pytest.approx(value, abs=1e-9)
    check_rows(engine, result)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("method", ["wa", "bin", "ml", "map"])
def test_extraction_equals_the_recorded_one(
    name: str, method: str, tmp_path: Path, shared_data: Path
) -> None:
    folder = reference(shared_data) / "mt_testing"
    script = f"cp '{folder / f'mtr_z2-3_{method}.csv'}' extracted.csv"
    engine = recorded_engine(name, tmp_path, "sct_extract_metric", script)
    result = engine.extract(
        folder / "mtr.nii.gz",
        tmp_path / "w",
        atlas=folder / "label" / "atlas",
        labels=[50, 51, 52, 53, 54, 55, 4, 5],
        quantity="MTR",
        unit="%",
        estimator=Estimator(method),
        slices=(2, 3),
    )
    import csv

    with (folder / f"mtr_z2-3_{method}.csv").open() as stream:
        truth = [float(r[f"{method.upper()}()"]) for r in csv.DictReader(stream)]
    values = [row.value for row in result.rows]
    assert values == pytest.approx(truth, rel=1e-5)
    assert [row.region for row in result.rows][:3] == ["cord", "WM", "GM"]
    check_rows(engine, result)


@pytest.mark.parametrize("name", ENGINES)
def test_a_level_that_is_not_there_is_a_row_that_says_so(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    folder = reference(shared_data) / "mt_testing"
    script = f"cp '{folder.parent / 'err_cases' / 'extract_metric.csv'}' extracted.csv"
    engine = recorded_engine(name, tmp_path, "sct_extract_metric", script)
    result = engine.extract(
        folder / "mtr.nii.gz",
        tmp_path / "w",
        atlas=folder / "label" / "atlas",
        labels=[51],
        quantity="MTR",
        unit="%",
        group_by=Grouping.LEVEL,
        levels=[12],
    )
    (row,) = result.rows
    assert (row.region, row.level, row.coverage) == ("WM", "T5", 0.0)
    assert math.isnan(row.value)
    assert "not in the image" in row.reason
    check_rows(engine, result)


def check_rows(engine: Engine, result) -> None:
    """What must hold for the rows of every engine."""
    assert result.rows
    assert result.runs
    for run in result.runs:
        assert (run.engine, run.version, run.exit_status) == (engine.name, engine.version, 0)
        assert run.argv
        assert run.runtime_s >= 0
        assert run.input_hashes
    for row in result.rows:
        assert (row.engine, row.version) == (engine.name, engine.version)
        assert math.isfinite(row.value) or row.reason
        assert row.quantity
        assert row.unit
        assert row.region
        measurement = row_measurement(row, entities=Entities(subject="01"))
        assert measurement.engine == f"{engine.name} {engine.version}"
        assert measurement.level or not row.slices


@pytest.mark.parametrize("name", ENGINES)
def test_maps_of_magnetization_transfer_equal_the_recorded_ones(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    mt = reference(shared_data) / "mt_testing"
    scripts = {
        "sct_compute_mtr": f"cp '{mt / 'mtr.nii.gz'}' .",
        "sct_compute_mtsat": f"cp '{mt / 'mtsat.nii.gz'}' '{mt / 't1map.nii.gz'}' .",
    }
    engine = BuiltinEngine() if name == "builtin" else SctEngine(make_toolbox(tmp_path / "toolbox", scripts))
    result = engine.mtr(mt / "mt1.nii.gz", tmp_path / "w", mt_off=mt / "mt0_reg.nii.gz")
    assert result.units == {"MTR": "%"}
    ours, theirs = (nib.load(p).get_fdata() for p in (result.files["MTR"], mt / "mtr.nii.gz"))
    # The toolbox clips at 100 %.
    inside = np.isfinite(ours) & np.isfinite(theirs) & (np.abs(ours) < 100) & (theirs != 0)
    assert inside.sum() > 1000
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=1e-4, atol=1e-4)
    on, off, t1w = (
        SpoiledImage(path=mt / name, repetition_time_s=tr, flip_angle_deg=fa)
        for name, tr, fa in (
            ("mt1.nii.gz", 0.03, 9),
            ("mt0_reg.nii.gz", 0.03, 9),
            ("t1w_reg.nii.gz", 0.015, 15),
        )
    )
    found = engine.mtsat(on, tmp_path / "w", mt_off=off, t1w=t1w)
    assert found.units == {"MTsat": "%", "T1": "s"}
    t1 = nib.load(found.files["T1"]).get_fdata()
    assert 0.3 < np.nanmedian(t1[15:25, 15:25]) < 5.0
    for one in (result, found):
        assert all(run.engine == engine.name and run.input_hashes for run in one.runs)


def test_grey_matter_of_a_real_image(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "cord/testing/t2s"
    result = BuiltinEngine().segment(
        folder / "t2s.nii.gz", tmp_path / "w", contrast=Contrast.T2S, tissue=Tissue.GREY_MATTER
    )
    found = nib.load(result.files["segmentation"]).get_fdata() > 0.5
    truth = nib.load(folder / "t2s_gmseg_manual.nii.gz").get_fdata() > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7
    assert result.runs[0].argv[0] == "segment_grey_matter"


def test_the_builtin_engine_lays_an_atlas_that_can_be_extracted_from(tmp_path: Path) -> None:
    """Template steps as any engine has them: register, warp, extract, with the values that were planted."""
    from helpers_cord import cylinder

    engine, work = BuiltinEngine(), tmp_path / "w"
    mask = cylinder(shape=(34, 30, 12), spacing=(0.8, 0.8, 4.0))
    cord = write_image(tmp_path / "cord.nii.gz", mask.data, mask.affine)
    points = np.zeros(mask.data.shape, np.uint8)
    points[17, 15, 9], points[17, 15, 1] = 3, 5
    discs = write_image(tmp_path / "discs.nii.gz", points, mask.affine)
    aligned = engine.register_template(cord, work, segmentation=cord, contrast=Contrast.T2, discs=discs)
    laid = engine.warp_template(cord, work, warp=aligned.files["warp_template2anat"])
    assert {"cord", "levels", "white_matter", "grey_matter", "atlas"} <= laid.files.keys()
    levels = nib.load(laid.files["levels"]).get_fdata()
    assert set(np.unique(levels)) >= {0, 3, 4}
    parts = {role: nib.load(laid.files[role]).get_fdata() for role in ("white_matter", "grey_matter")}
    metric = write_image(
        tmp_path / "fa.nii.gz",
        (0.7 * parts["white_matter"] + 0.4 * parts["grey_matter"]).astype(np.float32),
        mask.affine,
    )
    asked = {"atlas": laid.files["atlas"], "quantity": "FA", "unit": "1"}
    result = engine.extract(metric, work, labels=[51, 52, 53], **asked)
    values = {row.region: row for row in result.rows}
    assert values["WM"].value == pytest.approx(0.7, abs=0.005)
    assert values["GM"].value == pytest.approx(0.4, abs=0.01)
    assert "schematic" in values["DC"].reason and values["WM"].reason == ""
    check_rows(engine, result)
    by_slice = engine.extract(metric, work, labels=[51], group_by=Grouping.SLICE, levels=[4], **asked)
    places = [row_measurement(row, entities=Entities()) for row in by_slice.rows]
    assert places and all(p.level == f"C4, slice {p.slice_number}" for p in places)
    with pytest.raises(CordqaError, match="no alignment"):
        engine.warp_template(cord, work, warp=cord)
    small = write_image(tmp_path / "small.nii.gz", mask.data[:, :, 1:], mask.affine)
    with pytest.raises(CordqaError, match="another grid"):
        engine.warp_template(small, work, warp=aligned.files["warp_template2anat"])


def test_without_labels_the_builtin_engine_says_that_levels_are_typical(tmp_path: Path) -> None:
    from helpers_cord import cylinder

    engine, work = BuiltinEngine(), tmp_path / "w"
    mask = cylinder(shape=(34, 30, 5), spacing=(0.8, 0.8, 4.0))
    cord = write_image(tmp_path / "cord.nii.gz", mask.data, mask.affine)
    aligned = engine.register_template(cord, work, segmentation=cord, contrast=Contrast.T2)
    laid = engine.warp_template(cord, work, warp=aligned.files["warp_template2anat"], with_atlas=False)
    assert "levels" not in laid.files and "atlas" not in laid.files
    assert any("typical" in notice.message for notice in laid.notices)


@pytest.mark.parametrize("name", ENGINES)
def test_motion_and_tensor_of_a_real_series(name: str, tmp_path: Path, shared_data: Path) -> None:
    dmri = reference(shared_data) / "dmri_testing"
    names = ("dmri_moco.nii.gz", "dmri_moco_b0_mean.nii.gz", "dmri_moco_dwi_mean.nii.gz", "moco_params.tsv")
    scripts = {
        "sct_dmri_moco": "mkdir moco; " + "; ".join(f"cp '{dmri / one}' moco/" for one in names),
        "sct_dmri_compute_dti": "; ".join(
            f"cp '{dmri.parent / 'dmri_tutorial' / f'dti_{q}.nii.gz'}' ." for q in ("FA", "MD", "RD", "AD")
        ),
    }
    engine = BuiltinEngine() if name == "builtin" else SctEngine(make_toolbox(tmp_path / "toolbox", scripts))
    grid = nib.load(dmri / "dmri.nii.gz")
    middle = np.zeros(grid.shape[:3], np.uint8)
    middle[16:24, 17:25] = 1
    mask = write_image(tmp_path / "mask.nii.gz", middle, grid.affine)
    gradients = {"bvals": dmri / "bvals.txt", "bvecs": dmri / "bvecs.txt"}
    moved = engine.motion_correct(dmri / "dmri.nii.gz", tmp_path / "w", mask=mask, **gradients)
    assert nib.load(moved.files["image"]).shape == grid.shape
    assert nib.load(moved.files["dwi_mean"]).shape == grid.shape[:3]
    assert moved.files["motion"].is_file() and moved.units["motion"] == "mm"
    tutorial = reference(shared_data) / "dmri_tutorial"
    cord = tutorial / "dmri_moco_dwi_mean_seg.nii.gz"
    maps = engine.dti(
        tutorial / "dmri_moco.nii.gz",
        tmp_path / "w",
        mask=cord,
        bvals=tutorial / "bvals.txt",
        bvecs=tutorial / "bvecs.txt",
    )
    inside = nib.load(cord).get_fdata() > 0
    for quantity, tolerance in (("FA", 0.03), ("MD", 0.05), ("RD", 0.08), ("AD", 0.05)):
        found = np.nanmedian(nib.load(maps.files[quantity]).get_fdata()[inside])
        known = np.median(nib.load(tutorial / f"dti_{quantity}.nii.gz").get_fdata()[inside])
        assert found == pytest.approx(known, rel=tolerance), quantity
    assert maps.units == {"FA": "1", "MD": "mm2/s", "RD": "mm2/s", "AD": "mm2/s"}


def test_the_same_call_twice_gives_the_same_rows(tmp_path: Path) -> None:
    mask = write_image(tmp_path / "m.nii.gz", cord_mask())
    engine = BuiltinEngine()
    first, second = (engine.morphometry(mask, tmp_path / "w") for _ in range(2))
    assert repr(first.rows) == repr(second.rows)


def test_engines_and_versions_are_never_merged(tmp_path: Path) -> None:
    mask = write_image(tmp_path / "m.nii.gz", cord_mask())
    result = BuiltinEngine().morphometry(mask, tmp_path / "w")
    assert len(merge_results([result, result]).rows) == 2 * len(result.rows)
    from dataclasses import replace

    other = replace(result, runs=tuple(replace(run, version="0.0") for run in result.runs))
    with pytest.raises(MixedEnginesError, match="different engines or versions"):
        merge_results([result, other])
    with pytest.raises(MixedEnginesError):
        merge_results([replace(result, runs=()), replace(other, rows=())])


def test_choosing_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox = make_toolbox(tmp_path / "sct")
    assert make_engine("auto", sct_folder=toolbox.root).name == "sct"
    for name in ("CORDQA_SCT_DIR", "SCT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert make_engine().name == "builtin"
    with pytest.raises(EngineUnavailableError):
        make_engine("sct")
    with pytest.raises(ConfigError, match="auto, builtin, sct"):
        make_engine("fsl")
    monkeypatch.setenv("CORDQA_SCT_DIR", str(tmp_path / "absent"))
    with pytest.raises(EngineUnavailableError):
        make_engine()


def test_an_output_on_another_grid_or_empty_is_refused_and_not_kept(tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask().astype(np.float32))
    small = write_image(tmp_path / "small.nii.gz", np.ones((3, 3, 3), np.uint8))
    empty = write_image(tmp_path / "empty.nii.gz", np.zeros_like(cord_mask()))
    text = tmp_path / "text"
    text.write_text("no image")
    for number, (source, words) in enumerate(((small, "grid"), (empty, "is empty"), (text, "NIfTI"))):
        toolbox = make_toolbox(tmp_path / f"t{number}", {"sct_deepseg": f"cp '{source}' segmentation.nii.gz"})
        with pytest.raises(EngineError, match=words):
            SctEngine(toolbox).segment(image, tmp_path / "w", contrast=Contrast.T2)
    assert not [p for p in (tmp_path / "w").iterdir() if p.name != "logs"]


def test_a_failed_step_leaves_the_earlier_result_and_its_log(tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask().astype(np.float32))
    mask = write_image(tmp_path / "mask.nii.gz", cord_mask())
    good = SctEngine(make_toolbox(tmp_path / "a", {"sct_deepseg": f"cp '{mask}' segmentation.nii.gz"}))
    result = good.segment(image, tmp_path / "w", contrast=Contrast.T2)
    kept = result.files["segmentation"].read_bytes()
    assert result.runs[0].argv[:3] == ("sct_deepseg", "spinalcord", "-i")
    bad = SctEngine(make_toolbox(tmp_path / "b", {"sct_deepseg": "echo 'ERROR: out of luck'; exit 1"}))
    with pytest.raises(EngineError, match="out of luck"):
        bad.segment(image, tmp_path / "w", contrast=Contrast.T2)
    assert result.files["segmentation"].read_bytes() == kept
    assert any("out of luck" in log.read_text() for log in (tmp_path / "w" / "logs").iterdir())


def test_no_model_no_call(tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.nii.gz", cord_mask())
    script = f"touch '{tmp_path / 'called'}'"
    toolbox = make_toolbox(tmp_path / "a", {"sct_deepseg": script, "sct_propseg": script}, models=False)
    (toolbox.root / "bin" / "isct_propseg").unlink()
    with pytest.raises(EngineUnavailableError, match=r"is not installed.*sct_deepseg spinalcord -install"):
        SctEngine(toolbox).segment(image, tmp_path / "w", contrast=Contrast.T2)
    assert not (tmp_path / "called").exists()


def test_the_recorded_registration_warping_and_motion_are_accepted(tmp_path: Path, shared_data: Path) -> None:
    """What the real toolbox left passes the checks, also the warp in another order of axes."""
    folder = reference(shared_data)
    t2 = folder / "t2_manualseg" / "t2_seg-manual.nii.gz"
    subject = folder / "t2_ref_subject"
    warp = subject / "warp_template2anat.nii.gz"
    register = (
        f"mkdir template; cp '{warp}' template/warp_template2anat.nii.gz; "
        f"cp '{warp}' template/warp_anat2template.nii.gz; "
        f"cp '{subject / 'template2anat.nii.gz'}' template/template2anat.nii.gz; cp '{t2}' "
        "template/anat2template.nii.gz"
    )
    mt = folder / "mt_testing"
    dmri = folder / "dmri_testing"
    moco = "mkdir moco; " + "; ".join(
        f"cp '{dmri / name}' moco/"
        for name in (
            "dmri_moco.nii.gz",
            "dmri_moco_b0_mean.nii.gz",
            "dmri_moco_dwi_mean.nii.gz",
            "moco_params.tsv",
        )
    )
    dti = "; ".join(f"cp '{dmri / f'dti_{name}.nii.gz'}' ." for name in ("FA", "MD", "RD", "AD"))
    scripts = {
        "sct_register_to_template": register,
        "sct_warp_template": f"cp -r '{mt / 'label'}' . && chmod -R u+w label",
        "sct_dmri_moco": moco,
        "sct_dmri_compute_dti": dti,
        "sct_compute_mtr": f"cp '{mt / 'mtr.nii.gz'}' .",
        "sct_compute_mtsat": f"cp '{mt / 'mtsat.nii.gz'}' '{mt / 't1map.nii.gz'}' .",
    }
    engine = SctEngine(make_toolbox(tmp_path / "toolbox", scripts))
    work = tmp_path / "w"
    registered = engine.register_template(
        t2,
        work,
        segmentation=t2,
        contrast=Contrast.T2,
        bodies=folder / "t2_manualseg" / "labels.nii.gz",
        reference="subject",
    )
    assert registered.files["warp_template2anat"].is_file()
    assert registered.notices == ()
    warped = engine.warp_template(mt / "mt1.nii.gz", work, warp=mt / "warp_template2mt.nii.gz")
    assert "reaches 2 of 5 slices" in warped.notices[0].message
    assert len(list(warped.files["atlas"].glob("PAM50_atlas_*.nii.gz"))) == 37
    gradients = {"bvals": dmri / "bvals.txt", "bvecs": dmri / "bvecs.txt"}
    moved = engine.motion_correct(dmri / "dmri.nii.gz", work, **gradients)
    assert nib.load(moved.files["image"]).shape == (40, 42, 5, 7)
    maps = engine.dti(moved.files["image"], work, **gradients)
    assert maps.units["MD"] == "mm2/s"
    assert engine.mtr(mt / "mt1.nii.gz", work, mt_off=mt / "mt0_reg.nii.gz").units == {"MTR": "%"}
    on, off, t1w = (
        SpoiledImage(path=mt / name, repetition_time_s=tr, flip_angle_deg=fa)
        for name, tr, fa in (
            ("mt1.nii.gz", 0.03, 9),
            ("mt0_reg.nii.gz", 0.03, 9),
            ("t1w_reg.nii.gz", 0.015, 15),
        )
    )
    assert set(engine.mtsat(on, work, mt_off=off, t1w=t1w).files) == {"MTsat", "T1"}
    with pytest.raises(CordqaError, match="exchanged"):
        engine.dti(moved.files["image"], work, bvals=gradients["bvecs"], bvecs=gradients["bvals"])
    with pytest.raises(CordqaError, match="in seconds"):
        wrong = SpoiledImage(path=on.path, repetition_time_s=30, flip_angle_deg=9)
        engine.mtsat(wrong, work, mt_off=off, t1w=t1w)


@pytest.mark.parametrize("name", ENGINES)
def test_segmentation_and_levels_of_a_real_image(name: str, tmp_path: Path, shared_data: Path) -> None:
    folder = reference(shared_data)
    image, mask = shared_data / "cord/testing/t2/t2.nii.gz", folder / "t2_manualseg/t2_seg-manual.nii.gz"
    labelled = folder / "t2_discs" / "discfile_t2_seg-manual_labeled"
    discs = folder / "t2_manualseg/label/template/PAM50_label_disc.nii.gz"
    scripts = {
        "sct_deepseg": f"cp '{mask}' segmentation.nii.gz",
        "sct_label_vertebrae": f"mkdir levels; cp '{labelled}.nii.gz' levels/t2_seg-manual_labeled.nii.gz; "
        f"cp '{labelled}_discs.nii.gz' levels/t2_seg-manual_labeled_discs.nii.gz",
    }
    engine = BuiltinEngine() if name == "builtin" else SctEngine(make_toolbox(tmp_path / "toolbox", scripts))
    found = engine.segment(image, tmp_path / "w", contrast=Contrast.T2)
    inside, truth = (nib.load(p).get_fdata() > 0.5 for p in (found.files["segmentation"], mask))
    assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) >= 0.97
    result = engine.label_levels(image, tmp_path / "w", segmentation=mask, contrast=Contrast.T2, discs=discs)
    levels, expected = (nib.load(p).get_fdata() for p in (result.files["levels"], f"{labelled}.nii.gz"))
    both = (levels > 0) & (expected > 0)
    assert (levels == expected)[both].mean() > 0.95
    if name == "builtin":
        rows = engine.morphometry(
            mask, tmp_path / "w", group_by=Grouping.LEVEL, levels=[1, 4], level_image=result.files["levels"]
        ).rows
        areas = {row.level: row for row in rows if row.quantity == "CSA"}
        assert areas["C4"].value == pytest.approx(81.1, abs=0.3)  # the recorded table has 81.105
        assert areas["C1"].reason == "this level is not in the image"
