"""A cord run from a BIDS dataset to tables and pages: recovered truth, real scans, bad input."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers_sct import make_toolbox

from cordqa.cord.morphometry import measure_morphometry
from cordqa.cord.segment import segment_cord
from cordqa.errors import ConfigError, InputError
from cordqa.io.bids_index import index_dataset
from cordqa.io.results import read_result
from cordqa.io.volumes import read_volume, write_volume
from cordqa.models.magnetization_transfer.saturation import mt_saturation_signal
from cordqa.records import Entities, Outcome, Result, State, Status, Volume
from cordqa.simulate.cord_study import CordTruth, cord_scanners, simulate_study, true_areas
from cordqa.workflow import cord_pool
from cordqa.workflow.cord import CordSettings, Execution, plan_cord, run_cord_group, run_cord_participants
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_coregister import Alignment, align_slices
from cordqa.workflow.cord_demo import write_cord_study
from cordqa.workflow.cord_group import _marked
from cordqa.workflow.cord_participant import CordJob, analyse_unit, run_job
from cordqa.workflow.cord_select import select_images
from cordqa.workflow.cord_settings import parse_levels, read_exclusions
from cordqa.workflow.cord_transfer import TransferModel

ONE = Execution(n_procs=1)


def job(bids: Path, subject: str, session: str, out: Path, **settings: object) -> CordJob:
    options = CordSettings(**settings)  # type: ignore[arg-type]
    return CordJob(
        index=index_dataset(bids),
        subject=subject,
        session=session,
        out=out,
        settings=options,
        work=out / "work",
        atlas=prepare_atlas(options.template, out / "work"),
        marks=read_exclusions(options.exclude_from),
    )


def value(result: Result, quantity: str, level: str, region: str = "cord", acquisition: str = "") -> float:
    (row,) = [
        r
        for r in result.measurements
        if (r.quantity, r.level, r.region) == (quantity, level, region)
        and r.entities.acquisition == (acquisition or r.entities.acquisition)
        and "no angle" not in r.method
    ]
    return row.value


def reasons(result: Result, state: State) -> dict[str, str]:
    return {outcome.what: outcome.reason for outcome in result.outcomes if outcome.state is state}


# -- simulated people --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[CordTruth, ...]]:
    """One person, once on each of three scanners; MT-on of the last has another repetition time."""
    folder = tmp_path_factory.mktemp("study") / "bids"
    return folder, write_cord_study(folder, seed=5, n_people=1, n_repeats=1)


@pytest.fixture(scope="module")
def visit(
    study: tuple[Path, tuple[CordTruth, ...]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, CordTruth, Path]:
    out = tmp_path_factory.mktemp("visit")
    return analyse_unit(job(study[0], "01", "A1", out)), study[1][0], out


def test_areas_follow_the_truth(visit: tuple[Result, CordTruth, Path]) -> None:
    result, truth, _ = visit
    for level in ("C3", "C4", "C5", "C6"):
        # Masks are drawn 0.2 mm inside the edge, as customary ones are: about 8 % in area.
        assert -0.12 < value(result, "CSA", level, acquisition="T2w") / truth.csa_mm2[level] - 1 < 0.0


def test_tissue_values_follow_the_truth(visit: tuple[Result, CordTruth, Path]) -> None:
    result, truth, _ = visit
    for level in ("C3", "C4", "C5"):
        assert value(result, "MTR", level, "WM") == pytest.approx(truth.mtr_percent["WM"], abs=1.5)
        # A small part of the cord, whose borders the schematic atlas only approximates.
        assert value(result, "MTR", level, "GM") == pytest.approx(truth.mtr_percent["GM"], abs=3.0)
        assert value(result, "MTsat", level, "WM") == pytest.approx(truth.mtsat_percent["WM"], rel=0.1)
        assert value(result, "T1", level, "WM") == pytest.approx(truth.t1_ms["WM"], rel=0.05)
    # Over the cord little of the noise is left; MTsat, a small difference of signals, keeps most of it:
    # its bias over many visits is measured by benchmarks/cord_mt_bias.py.
    expected = noise_free(truth, "WM")
    for quantity, bound in (("MTR", 0.03), ("MTsat", 0.06), ("T1", 0.03)):
        found = value(result, quantity, "all slices", "WM")
        assert found == pytest.approx(expected[quantity], rel=bound), quantity


def noise_free(truth: CordTruth, tissue: str) -> dict[str, float]:
    """What the model makes of pure signals of a tissue: its small angles have a bias of their own."""
    scanner = cord_scanners()[0]
    t1_s, saturation = truth.t1_ms[tissue] / 1000, truth.mtsat_percent[tissue] / 100
    plan = ((scanner.mt_echo, saturation), (scanner.mt_echo, 0.0), (scanner.t1_echo, 0.0))
    on, off, t1w = (mt_saturation_signal(1.0, t1_s, [lost], echo) for echo, lost in plan)
    model = TransferModel(echoes={"on": scanner.mt_echo, "off": scanner.mt_echo, "T1w": scanner.t1_echo})
    found = model(np.stack([on, off, t1w]))
    assert found.values["MTR"][0] == pytest.approx(truth.mtr_percent[tissue], rel=1e-6)
    return {name: float(values[0]) for name, values in found.values.items()}


def test_blur_of_the_images_is_found_and_said(visit: tuple[Result, CordTruth, Path]) -> None:
    result, _, _ = visit
    for row in result.measurements:
        said = [flag for flag in row.flags if flag.startswith("blur of ")]
        assert len(said) == (row.quantity in ("MTsat", "T1")), row.quantity
    (text,) = [text for text in result.methods if "blurred in the plane as the images show it" in text]
    found = re.search(r"blur of (\d\.\d\d) mm beyond the voxel", text)
    assert found is not None
    # Planted are 0.25 mm; slices of 5 mm along a cord that bends, and resampling, blur as well.
    assert 0.2 < float(found[1]) < 0.5


def test_values_of_the_maps_are_an_option_that_says_so(
    study: tuple[Path, tuple[CordTruth, ...]], tmp_path: Path
) -> None:
    bids = linked(study[0], tmp_path / "bids", "ses-A1", "MTS")
    result = analyse_unit(job(bids, "01", "A1", tmp_path / "out", extract_from="map"))
    truth = study[1][0]
    rows = [r for r in result.measurements if r.quantity == "T1"]
    assert rows and all(row.method.startswith("MAP of the map") for row in rows)
    # T1 does not mix in a voxel as signals do: this is the bias of that way.
    assert -0.15 < value(result, "T1", "all slices", "WM") / truth.t1_ms["WM"] - 1 < -0.05
    assert any("MTR, MTsat and T1: taken from the map" in text for text in result.methods)
    for row in result.measurements:
        # Without a label there is a row per slice, and it says which in words and in numbers.
        assert (row.slice_number is not None) == row.level.startswith("slice ")
        assert row.slice_number is None or row.level == f"slice {row.slice_number}"


def test_every_value_says_where_it_comes_from(visit: tuple[Result, CordTruth, Path]) -> None:
    result, _, _ = visit
    for row in result.measurements:
        assert row.engine.startswith("builtin ")
        assert (row.entities.vendor, row.entities.site, row.entities.subject) == ("Siemens", "Site A", "01")
        assert row.entities.scanner and row.entities.software and row.entities.field_strength_T == 3
        assert np.isfinite(row.value) or row.flags
    mapped = [r for r in result.measurements if r.quantity == "MTR"]
    assert all("approximate: analytical atlas" in row.flags for row in mapped)


def test_images_are_written_as_derivatives(visit: tuple[Result, CordTruth, Path]) -> None:
    _, _, out = visit
    names = {path.name for path in out.rglob("*.nii.gz")}
    assert "sub-01_ses-A1_label-SC_desc-T2w_probseg.nii.gz" in names
    assert {"sub-01_ses-A1_MTRmap.nii.gz", "sub-01_ses-A1_T1map.nii.gz"} <= names
    for path in out.rglob("*.nii.gz"):
        about = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert about["Sources"] and about["GeneratedBy"]


def test_changed_repetition_time_is_said(study: tuple[Path, tuple[CordTruth, ...]], tmp_path: Path) -> None:
    assert study[1][2].planted
    bids = linked(study[0], tmp_path / "bids", "ses-C1", "MTS")
    result = analyse_unit(job(bids, "01", "C1", tmp_path / "out"))
    assert any("repetition time differs" in notice.message for notice in result.notices)
    flagged = [r for r in result.measurements if r.quantity == "MTR"]
    assert flagged and all(any("repetition time" in flag for flag in row.flags) for row in flagged)
    assert not any("repetition" in f for r in result.measurements if r.quantity == "MTsat" for f in r.flags)


def test_mask_of_the_user_wins(study: tuple[Path, tuple[CordTruth, ...]], tmp_path: Path) -> None:
    bids = linked(study[0], tmp_path / "bids", "ses-A1", "T2w")
    image = read_volume(bids / "sub-01/ses-A1/anat/sub-01_ses-A1_T2w.nii.gz")
    mask = cylinder(image)
    # Another order of axes, as some programs write it, is the same mask.
    turned = Volume(
        data=np.ascontiguousarray(mask.data[::-1]),
        affine=mask.affine
        @ np.array([[-1, 0, 0, mask.data.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    own = bids / "derivatives/manual/sub-01/ses-A1/anat/sub-01_ses-A1_T2w_label-SC_seg.nii.gz"
    write_volume(turned, own)
    result = analyse_unit(job(bids, "01", "A1", tmp_path / "out"))
    rows = [r for r in result.measurements if r.quantity == "CSA" and r.entities.acquisition == "T2w"]
    assert all(row.engine.endswith("mask of the user") for row in rows)
    expected = np.nanmean(measure_morphometry(mask).values["CSA"])
    assert value(result, "CSA", "all slices", acquisition="T2w") == pytest.approx(expected, rel=1e-6)


def test_truth_of_the_simulation() -> None:
    """The area of a simulated mask is what the simulation says it is."""
    first = next(simulate_study(seed=9, n_people=1, n_repeats=1))
    areas = true_areas(first.person)
    assert areas["C4"] > areas["C3"] > areas["C7"]
    again = next(simulate_study(seed=9, n_people=3, n_repeats=2))
    np.testing.assert_array_equal(first.scans[0].volume.data, again.scans[0].volume.data)
    with pytest.raises(ConfigError):
        next(simulate_study(n_people=0))


# -- alignment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_a_shift_is_found_and_undone(contrast: str) -> None:
    scanner = replace(cord_scanners()[0], noise=0.01)
    seen = next(simulate_study(seed=3, n_people=1, n_repeats=1, scanners=[scanner]))
    fixed = seen.scans[1].volume
    moving, where = (seen.scans[2].volume, "off") if contrast == "same" else (seen.scans[3].volume, "T1w")
    found = align(moving, fixed)
    true = seen.truth.shift_mm[where]
    # What is found undoes the movement.
    assert found.found_mm == pytest.approx((-true[0], -true[1]), abs=0.2)


def test_without_a_shift_nothing_is_resampled() -> None:
    seen = next(simulate_study(seed=3, n_people=1, n_repeats=1))
    fixed = seen.scans[1].volume
    rng = np.random.default_rng(0)
    again = replace(fixed, data=fixed.data * 1.3 + rng.normal(0, 5, fixed.data.shape).astype(np.float32))
    found = align(again, fixed)
    assert not found.applied and not found.resampled
    assert found.volume is again


def test_another_grid_is_resampled() -> None:
    seen = next(simulate_study(seed=3, n_people=1, n_repeats=1))
    fixed = seen.scans[1].volume
    cut = Volume(data=fixed.data[3:, 2:], affine=fixed.affine @ shift_matrix(3, 2, 0))
    found = align(cut, fixed)
    assert found.resampled
    assert found.volume.data.shape == fixed.data.shape
    np.testing.assert_allclose(found.volume.data[5:-5, 5:-5], fixed.data[5:-5, 5:-5], rtol=1e-4)


def shift_matrix(i: int, j: int, k: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = [i, j, k]
    return matrix


def cylinder(image: Volume, radius_mm: float = 5.0) -> Volume:
    """A round mask along the middle of an image."""
    i, j, _k = np.indices(image.data.shape)
    spacing = image.spacing_mm
    middle = [(n - 1) / 2 for n in image.data.shape]
    away = np.hypot((i - middle[0]) * spacing[0], (j - middle[1]) * spacing[1])
    return Volume(data=(away < radius_mm).astype(np.uint8), affine=image.affine)


def align(moving: Volume, fixed: Volume) -> Alignment:
    mask = Volume(data=(segment_cord(fixed).mask > 0.5).astype(np.uint8), affine=fixed.affine)
    return align_slices(moving, fixed, mask, measure_morphometry(mask).centreline)


# -- bad input ---------------------------------------------------------------------------------------


def linked(bids: Path, target: Path, session: str, suffix: str) -> Path:
    """A dataset of links to the images of one kind of one session of another."""
    for path in bids.rglob("*"):
        relative = path.relative_to(bids)
        inside = session in relative.parts and f"_{suffix}" in path.name
        if path.is_file() and (inside or not any("ses-" in part for part in relative.parts)):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).symlink_to(path)
    return target


@pytest.fixture(scope="module")
def bad(
    study: tuple[Path, tuple[CordTruth, ...]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Result]:
    """A dataset in which one thing is wrong with each participant but one, and its run."""
    bids, out = tmp_path_factory.mktemp("bad") / "bids", tmp_path_factory.mktemp("bad-out")
    # An image with few slices is as good here, and quick.
    image = read_volume(study[0] / "sub-01/ses-A1/anat/sub-01_ses-A1_flip-1_mt-on_MTS.nii.gz")
    image = replace(image, data=image.data.astype(np.int16))
    mask = cylinder(image)

    def put(subject: str, volume: Volume, name: str = "T2w.nii.gz") -> Path:
        path = bids / f"sub-{subject}/anat/sub-{subject}_{name}"
        write_volume(volume, path)
        return path

    def label(subject: str, volume: Volume, name: str = "T2w_label-SC_seg.nii.gz") -> None:
        write_volume(volume, bids / f"derivatives/labels/sub-{subject}/anat/sub-{subject}_{name}")

    put("good", image)
    label("good", mask)
    broken = put("broken", image)
    broken.write_bytes(broken.read_bytes()[:20_000])
    put("fourd", replace(image, data=np.stack([image.data] * 2, axis=-1)))
    put("empty", image)
    label("empty", replace(mask, data=np.zeros_like(mask.data)))
    put("pieces", image)
    two = mask.data.copy()
    two[2:8, 2:8] = 1
    label("pieces", replace(mask, data=two))
    put("grid", image)
    label("grid", replace(mask, data=mask.data[:, :, :-4]))
    rng = np.random.default_rng(1)
    put("nocord", replace(image, data=rng.integers(0, 100, image.data.shape).astype(np.int16)))
    put("blank", replace(image, data=np.zeros_like(image.data)))
    put("outside", image)
    label("outside", mask)
    points = np.zeros(image.data.shape, dtype=np.uint8)
    points[10, 10, 10] = 4
    far = Volume(data=points, affine=image.affine @ shift_matrix(0, 0, 90))
    label("outside", far, "T2w_label-discs_dlabel.nii.gz")
    put("numbers", image)
    label("numbers", mask)
    points = points.copy()
    points[10, 10, 10], points[10, 10, 14] = 4, 5  # numbers grow upwards
    label("numbers", Volume(data=points, affine=image.affine), "T2w_label-discs_dlabel.nii.gz")
    flat = put("orientation", image)
    spoil_orientation(flat)
    put("other", image, "task-rest_bold.nii.gz").parent.rename(bids / "sub-other" / "func")
    put("lonely", image, "mt-on_MTS.nii.gz")
    (bids / "sub-sidecar/anat").mkdir(parents=True)
    put("sidecar", image)
    (bids / "sub-sidecar/anat/sub-sidecar_T2w.json").write_text("{not json")
    # What a worker process does, without the processes, which have a test of their own below.
    levels = parse_levels(["C4,T5"])
    jobs = [
        replace(job(bids, name, "", out, levels=levels), render=page) for name in index_dataset(bids).subjects
    ]
    outcomes = tuple(run_job(one) for one in jobs)
    return bids, out, Result(kind="cord", title="bad input", status=Status.PASS, outcomes=outcomes)


def page(result: Result) -> str:
    return f"<p>{result.title}</p>"


def spoil_orientation(path: Path) -> None:
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    header = image.header.copy()
    broken = nib.Nifti1Image(data, None, header)
    broken.header["sform_code"], broken.header["qform_code"] = 1, 0
    for row in ("srow_x", "srow_y", "srow_z"):
        broken.header[row] = 0
    nib.save(broken, path)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("broken", "cannot be read as NIfTI"),
        ("fourd", "must have three dimensions"),
        ("empty", "empty"),
        ("pieces", "more than one piece"),
        ("grid", "not on one grid"),
        ("nocord", "no spinal cord was found"),
        ("blank", "empty: all voxels are equal"),
        ("outside", "outside the image"),
        ("numbers", "contradict each other"),
        ("orientation", "no usable orientation"),
        ("sidecar", "not valid JSON"),
    ],
)
def test_bad_input_is_named_and_contained(bad: tuple[Path, Path, Result], subject: str, words: str) -> None:
    _, out, result = bad
    reason = reasons(result, State.FAILED)[f"sub-{subject}"]
    assert words in reason, reason
    own = read_result(out / f"sub-{subject}")
    assert any(words in outcome.reason for outcome in own.outcomes)
    assert (out / f"sub-{subject}" / "report.html").is_file()


def test_the_others_go_on(bad: tuple[Path, Path, Result]) -> None:
    _, out, result = bad
    assert list(reasons(result, State.DONE)) == ["sub-good"]
    skipped = reasons(result, State.SKIPPED)
    assert "no MT-off image" in skipped["sub-lonely"]
    assert "no image of a kind that is analysed (found bold" in skipped["sub-other"]
    own = read_result(out / "sub-good")
    # No label tells the levels: what was asked for is there, without a number and with the reason.
    for level in ("C4", "T5"):
        (row,) = [
            r
            for r in own.measurements
            if (r.quantity, r.level) == ("CSA", level) and "no angle" not in r.method
        ]
        assert np.isnan(row.value) and row.flags
    assert any(notice.code == "cord.no-levels" for notice in own.notices)
    assert np.isfinite(value(own, "CSA", "all slices"))


def test_labels_that_fail_leave_the_slices(bad: tuple[Path, Path, Result]) -> None:
    _, out, _ = bad
    own = read_result(out / "sub-outside")
    assert np.isfinite(value(own, "CSA", "all slices"))


def test_group_lists_failures_with_their_cause(bad: tuple[Path, Path, Result]) -> None:
    _, out, _ = bad
    result = run_cord_group(out)
    failed = " ".join(reasons(result, State.FAILED).values())
    assert "three dimensions" in failed and "more than one piece" in failed
    with (out / "measurements.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {"good", "outside"} <= {row["subject"] for row in rows}
    assert not any("slice " in row["level"] for row in rows)


def test_resume_repeats_what_changed(bad: tuple[Path, Path, Result], tmp_path: Path) -> None:
    bids, _, _ = bad
    small = tmp_path / "bids"
    for subject in ("good", "outside"):
        for path in [*bids.glob(f"sub-{subject}/**/*.nii.gz"), *bids.glob(f"derivatives/**/sub-{subject}_*")]:
            (small / path.relative_to(bids)).parent.mkdir(parents=True, exist_ok=True)
            (small / path.relative_to(bids)).write_bytes(path.read_bytes())
    (small / "derivatives/labels/sub-outside/anat/sub-outside_T2w_label-discs_dlabel.nii.gz").unlink()
    out = tmp_path / "out"
    assert run_cord_participants(small, out, execution=ONE).count(State.DONE) == 2
    again = run_cord_participants(small, out, execution=ONE)
    assert again.count(State.SKIPPED) == 2
    assert again.status == "pass"
    (small / "sub-good/anat/sub-good_T2w.json").write_text('{"Manufacturer": "GE MEDICAL SYSTEMS"}')
    third = run_cord_participants(small, out, execution=ONE)
    assert list(reasons(third, State.DONE)) == ["sub-good"]
    assert {row.entities.vendor for row in read_result(out / "sub-good").measurements} == {"GE"}
    marks = tmp_path / "review.yaml"
    marks.write_text("- {image: sub-good_T2w, status: artefact, reason: motion}\n")
    settings = CordSettings(exclude_from=marks)
    fourth = run_cord_participants(small, out, settings=settings, execution=ONE)
    assert "motion" in reasons(fourth, State.SKIPPED)["sub-good"]


def test_review_marks_take_values_out_of_the_group(bad: tuple[Path, Path, Result], tmp_path: Path) -> None:
    marks = tmp_path / "review.yaml"
    marks.write_text(
        "review:\n- {image: sub-good_T2w.nii.gz, status: fail}\n- {image: sub-x_T2w, status: pass}\n"
    )
    result = run_cord_group(bad[1], settings=CordSettings(exclude_from=marks))
    assert "good" not in {row.entities.subject for row in result.measurements}
    assert "marked 'fail'" in reasons(result, State.SKIPPED)["sub-good T2w: values"]


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "image: sub-01_T2w\n",
        "- 3\n",
        "- {image: a_T2w, status: perhaps}\n",
        "- {status: fail}\n",
        "\x00",
    ],
)
def test_marks_that_cannot_be_read_stop_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "review.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_exclusions(path)


@pytest.mark.parametrize("text", ["C8", "T0", "C2-", "C2-C5-C6", "x", "C2-X3"])
def test_levels_that_do_not_exist(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_levels([text])
    assert parse_levels(["c2-c5, C3", "C3"]) == ("C2-C5", "C3")


def test_not_bids_and_nobody_asked_for(bad: tuple[Path, Path, Result], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a BIDS dataset"):
        run_cord_participants(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="none of them"):
        run_cord_participants(bad[0], tmp_path / "out", settings=CordSettings(participants=("nobody",)))
    with pytest.raises(InputError, match="no result of a participant"):
        run_cord_group(tmp_path)
    settings = CordSettings(participants=("nobody", "good"))
    plan = plan_cord(bad[0], settings)
    assert reasons(plan, State.FAILED) == {"sub-nobody": "the dataset has no such participant"}


def test_a_participant_whose_process_died_is_in_the_study(
    bad: tuple[Path, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "memory ran out, and again when tried alone"
    lost = Outcome(what="sub-good", state=State.FAILED, reason=reason, code="execute.memory")
    monkeypatch.setattr(cord_pool, "run_tasks", lambda *_args, **_options: (lost,))
    one = job(bad[0], "good", "", tmp_path)
    outcomes = cord_pool.run_jobs([one], ONE, out=tmp_path, work=tmp_path / "work", tell=lambda _line: None)
    assert outcomes == [lost]
    group = run_cord_group(tmp_path)
    assert reasons(group, State.FAILED) == {"sub-good": reason}
    assert group.status == "not evaluated"


def test_mt_images_are_told_apart_by_old_and_new_names(tmp_path: Path) -> None:
    for subject, names in {
        "new": ("flip-1_mt-on", "flip-1_mt-off", "flip-2_mt-off"),
        "old": ("acq-MTon", "acq-MToff", "acq-T1w"),
        "odd": ("acq-this", "acq-MTon", "acq-MToff"),
    }.items():
        for name in names:
            path = tmp_path / f"sub-{subject}/anat/sub-{subject}_{name}_MTS.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    index = index_dataset(tmp_path)
    for subject in ("new", "old"):
        (protocol,) = select_images(index, subject, "").transfer
        assert set(protocol.by_role) == {"on", "off", "T1w"}
        assert "T1w" in protocol.by_role["T1w"].name or "flip-2" in protocol.by_role["T1w"].name
    odd = select_images(index, "odd", "")
    assert [file.name for file, _ in odd.left] == ["sub-odd_acq-this_MTS.nii.gz"]


def test_a_mark_on_one_mt_image_is_a_mark_on_the_protocol() -> None:
    who = Entities(subject="01", session="A", run="2", acquisition="MTS")
    for name in ("sub-01_ses-A_acq-MTon_run-2_MTS", "sub-01_ses-A_run-2_flip-1_mt-off_MTS"):
        assert _marked(who, {name: "motion"}) == "motion"
    for name in (
        "sub-01_ses-A_run-1_mt-on_MTS",
        "sub-01_ses-A_run-2_T2w",
        "sub-011_ses-A_run-2_mt-on_MTS",
        "x",
    ):
        assert not _marked(who, {name: "motion"})
    assert not _marked(replace(who, acquisition="acq-hr_MTS"), {"sub-01_ses-A_run-2_mt-on_MTS": "motion"})


def test_the_toolbox_finds_the_cord_where_it_is_asked_for(
    study: tuple[Path, tuple[CordTruth, ...]], tmp_path: Path
) -> None:
    bids = linked(study[0], tmp_path / "bids", "ses-A1", "T2w")
    image = read_volume(bids / "sub-01/ses-A1/anat/sub-01_ses-A1_T2w.nii.gz")
    mask = cylinder(image)
    write_volume(mask, tmp_path / "answer.nii.gz")
    script = f"cp {tmp_path / 'answer.nii.gz'} segmentation.nii.gz"
    toolbox = make_toolbox(tmp_path / "sct", {"sct_deepseg": script})
    one = replace(job(bids, "01", "A1", tmp_path / "out"), toolbox=toolbox)
    result = analyse_unit(one)
    assert value(result, "CSA", "all slices") == pytest.approx(
        np.nanmean(measure_morphometry(mask).values["CSA"])
    )
    assert {row.engine.split(",")[0] for row in result.measurements} == {"sct 7.3 mask"}
    broken = make_toolbox(tmp_path / "broken", {"sct_deepseg": "exit 0"})
    result = analyse_unit(replace(one, toolbox=broken))
    assert [reason for what, reason in reasons(result, State.FAILED).items() if "T2w: cord" in what]


# -- real scans --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """The real test images as a small BIDS dataset, analysed by the built-in engine."""
    source, bids = shared_data / "cord", tmp_path_factory.mktemp("real") / "bids"

    def put(path: str, name: str) -> None:
        target = bids / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source / path)

    put("testing/t2/t2.nii.gz", "sub-test/anat/sub-test_T2w.nii.gz")
    put("testing/t2s/t2s.nii.gz", "sub-test/anat/sub-test_T2starw.nii.gz")
    put("testing/t2/labels.nii.gz", "derivatives/labels/sub-test/anat/sub-test_T2w_label-vert_dlabel.nii.gz")
    for old, new in (("mt1", "flip-1_mt-on"), ("mt0", "flip-1_mt-off"), ("t1w", "flip-2_mt-off")):
        put(f"testing/mt/{old}.nii.gz", f"sub-test/anat/sub-test_{new}_MTS.nii.gz")
        put(f"testing/mt/{old}.json", f"sub-test/anat/sub-test_{new}_MTS.json")
    for old, new in (("mt1", "MTon"), ("mt0", "MToff")):
        put(f"tutorial/mt/{old}.nii.gz", f"sub-tutorial/anat/sub-tutorial_acq-{new}_MTS.nii.gz")
    for name in ("acq-MTon_MTS", "acq-MToff_MTS"):
        put(f"tutorial/sub-05/sub-05_{name}.nii.gz", f"sub-05/anat/sub-05_{name}.nii.gz")
        put(f"tutorial/sub-05/sub-05_{name}.json", f"sub-05/anat/sub-05_{name}.json")
    put(
        "tutorial/sub-05/sub-05_acq-MTon_MTS_seg.nii.gz",
        "derivatives/labels/sub-05/anat/sub-05_acq-MTon_MTS_label-SC_seg.nii.gz",
    )
    out = tmp_path_factory.mktemp("real-out")
    return bids, out, run_cord_participants(bids, out, execution=ONE)


def sct_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_real_scans_are_all_analysed(real: tuple[Path, Path, Result]) -> None:
    assert real[2].count(State.FAILED) == 0
    assert real[2].count(State.DONE) == 3


def test_real_area_against_the_toolbox(real: tuple[Path, Path, Result], shared_data: Path) -> None:
    """The toolbox measured the manual mask; the built-in engine finds its own."""
    result = read_result(real[1] / "sub-test")
    rows = sct_rows(shared_data / "cord/sct-reference/t2_manualseg/csa_perlevel.csv")
    known = {f"C{row['VertLevel']}": float(row["MEAN(area)"]) for row in rows if row["MEAN(area)"]}
    for level in ("C3", "C4", "C5"):
        assert value(result, "CSA", level, acquisition="T2w") == pytest.approx(known[level], rel=0.05)


def test_real_mtr_against_the_toolbox(real: tuple[Path, Path, Result], shared_data: Path) -> None:
    result = read_result(real[1] / "sub-test")
    rows = sct_rows(shared_data / "cord/sct-reference/mt_testing/mtr_map.csv")
    known = {r["VertLevel"]: float(r["MAP()"]) for r in rows if r["Label"] == "white matter" and r["MAP()"]}
    assert set(known) == {"3", "4"}
    for level, expected in known.items():
        assert value(result, "MTR", f"C{level}", "WM") == pytest.approx(expected, abs=1.0)


def test_full_field_mtr_against_the_toolbox(real: tuple[Path, Path, Result], shared_data: Path) -> None:
    """Levels of that case were assumed, not identified: the same slices are compared, all together."""
    result = read_result(real[1] / "sub-05")
    rows = sct_rows(shared_data / "cord/sct-reference/mts_sub05/mtr_perlevel.csv")
    by_slice = {
        int(r.level.split()[1]): r.value for r in result.measurements
        if (r.quantity, r.region) == ("MTR", "WM") and r.level.startswith("slice ")
    }  # fmt: skip
    ours, theirs = [], []
    for row in rows:
        first, _, last = row["Slice (I->S)"].partition(":")
        if row["Label"] == "white matter" and row["MAP()"]:
            slices = range(int(first), int(last or first) + 1)
            ours += [by_slice[z] for z in slices]
            theirs += [float(row["MAP()"])] * len(slices)
    assert len(ours) >= 10
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=1.0)


def test_tutorial_mtr_against_the_toolbox(real: tuple[Path, Path, Result]) -> None:
    """The toolbox' own published result for this subject: 54.05 in white matter of slices 4 to 17."""
    result = read_result(real[1] / "sub-tutorial")
    values = [
        r.value for r in result.measurements
        if (r.quantity, r.region) == ("MTR", "WM")
        and r.level.startswith("slice ") and 4 <= int(r.level.split()[1]) <= 17
    ]  # fmt: skip
    assert len(values) == 14
    assert np.mean(values) == pytest.approx(54.05, abs=1.0)
