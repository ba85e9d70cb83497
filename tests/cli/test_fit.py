"""``cordqa fit`` as a user meets it: help, sidecars, grids, regions, resume, refusals, exit status."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers_fit import AFFINE, Words, load, request_of, save, sidecar

from cordqa.cli._run import run
from cordqa.errors import CordqaError, FitError
from cordqa.io.results import read_result
from cordqa.models.maps import FittedMaps, Reasons
from cordqa.records import State, Status
from cordqa.workflow.fit.chunks import fit_voxels
from cordqa.workflow.fit.inputs import read_inputs
from cordqa.workflow.fit.models._diffusion import rotations
from cordqa.workflow.fit.registry import FitModel, ImageRole, Option, Setting, find_model, list_models
from cordqa.workflow.fit.run import run_fit

TIMES = (0.05, 0.15, 0.3, 0.6, 1.0, 1.6, 2.4)


@pytest.fixture
def t1(tmp_path) -> Words:
    model = find_model("t1-ir")
    return Words(model, request_of(model, tmp_path / "in"), tmp_path / "out")


@pytest.fixture
def vfa(tmp_path) -> Words:
    model = find_model("t1-vfa")
    return Words(model, request_of(model, tmp_path / "vfa"), tmp_path / "out")


def bids_echoes(folder: Path, **changes: object) -> list[Path]:
    """One file per echo with a sidecar each, as BIDS wants it."""
    example = find_model("t2").example()
    paths = []
    for n, time in enumerate(example.settings["echo_times"], start=1):
        path = folder / f"sub-01_ses-2_acq-x_echo-{n}_MESE.nii.gz"
        save(path, example.images["images"][..., n - 1])
        fields = {"EchoTime": time, "Manufacturer": "SIEMENS", "MagneticFieldStrength": 3}
        sidecar(path, **(fields | changes))
        paths.append(path)
    return paths


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if "error [" in line]
    assert len(lines) == 1
    return lines[0]


# Help and listing


def test_help_lists_all_models(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in list_models())


def test_help_of_cordqa_loads_no_model():
    code = (
        "import sys; sys.argv = ['cordqa', '--help']\n"
        "from cordqa.cli._run import run\n"
        "run(); assert 'cordqa.workflow.fit.registry' not in sys.modules and 'numpy' not in sys.modules"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_list_models_names_maps_and_usage(capsys):
    assert run(["list", "models", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == list_models().keys()
    assert rows["mtsat"]["usage"] == "cordqa fit mtsat MT_ON MT_OFF T1W OUT"


@pytest.mark.parametrize(
    "words",
    [["fit", "no-such-model", "a", "b"], ["fit", "t1-ir"], ["fit", "t1-ir", "only-one"], ["fit", "mtr", "a"]],
)
def test_wrong_usage_is_two(words, capsys):
    assert run(words) == 2
    assert capsys.readouterr().out == ""


# A run


def test_bids_sidecars_give_the_settings(tmp_path, capsys):
    paths = bids_echoes(tmp_path)
    assert run(["fit", "t2", *map(str, paths), str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["kind"] == "fit"
    assert captured.err.splitlines()[-2] == "done 1, skipped 0, failed 0"
    assert captured.err.splitlines()[-1].endswith("report.html")
    t2 = tmp_path / "out" / "sub-01_ses-2_acq-x_T2map.nii.gz"
    truth = find_model("t2").example().truth["T2"]
    np.testing.assert_allclose(load(t2), truth, rtol=1e-4)
    np.testing.assert_array_equal(nib.load(t2).affine, AFFINE)
    assert nib.load(t2).get_data_dtype() == np.float32
    about = json.loads(t2.with_name("sub-01_ses-2_acq-x_T2map.json").read_text())
    assert about["Units"] == "ms"
    assert about["Settings"]["echo_times"]["origin"] == "sidecar"
    assert about["Sources"] == [path.name for path in paths]
    assert about["GeneratedBy"][0]["Version"]
    assert (tmp_path / "out" / "sub-01_ses-2_acq-x_T2map_se.nii.gz").is_file()
    row = result["measurements"][0]
    assert row["entities"]["subject"] == "01"
    assert row["entities"]["vendor"] == "Siemens"
    assert row["entities"]["field_strength_T"] == 3


def test_sidecars_are_inherited_in_a_dataset(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "acq-x_MESE.json").write_text(json.dumps({"MagneticFieldStrength": 1.5}))
    paths = bids_echoes(folder, MagneticFieldStrength=None)
    for path in paths:
        own = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        fields = {k: v for k, v in json.loads(own.read_text()).items() if v is not None}
        own.write_text(json.dumps(fields))
    request = replace(
        request_of(find_model("t2"), tmp_path / "x"), images={"images": tuple(paths)}, settings={}
    )
    result = run_fit(request, tmp_path / "out")
    assert result.measurements[0].entities.field_strength_T == 1.5


def test_options_win_over_sidecars(tmp_path):
    paths = bids_echoes(tmp_path, EchoTime=0.5)
    times = tuple(0.02 * n for n in range(1, 13))
    request = request_of(find_model("t2"), tmp_path / "x", images={"images": tuple(paths)})
    result = run_fit(replace(request, settings={"echo_times": times}), tmp_path / "out")
    assert result.provenance.config["settings"]["echo_times"]["origin"] == "user"
    truth = find_model("t2").example().truth["T2"]
    assert result.measurements[0].value == pytest.approx(2 * truth.mean(), rel=1e-4)


def test_mask_and_holes_are_told_apart(t1):
    path = t1.request.images["images"][0]
    data = load(path).copy()
    data[0, 0, 0], data[1, 0, 0], data[0, 1, 0, 2] = np.nan, 0, -5
    save(path, data)
    mask = np.ones(data.shape[:3])
    mask[2] = 0
    words = t1.list("--mask", str(save(path.with_name("mask.nii.gz"), mask, dtype=np.uint8)))
    assert run(words) == 0
    out = t1.out
    codes = load(out / "images_desc-reason_dseg.nii.gz")
    names = {int(row["index"]): row["name"] for row in table(out / "images_desc-reason_dseg.tsv")}
    assert names[int(codes[2, 0, 0])] == "outside the mask"
    assert "too few" in names[int(codes[0, 0, 0])]
    assert "no signal" in names[int(codes[1, 0, 0])]
    assert "negative" in names[int(codes[0, 1, 0])]
    assert names[int(codes[1, 1, 1])] == "has a value"
    t1_map = load(out / "images_T1map.nii.gz")
    assert np.array_equal(np.isfinite(t1_map), codes == 0)
    row = table(out / "measurements.tsv")[0]
    assert row["region"] == "mask"
    assert row["n_voxels"] == "5"
    assert float(row["coverage"]) == pytest.approx(5 / 8)
    assert "1 voxel without a value: no signal" in row["flags"]


def test_regions_have_values_uncertainty_and_counts(t1):
    rng = np.random.default_rng(0)
    path = t1.request.images["images"][0]
    data = np.kron(load(path), np.ones((4, 4, 1, 1)))
    save(path, np.abs(data + rng.normal(0, 10, data.shape)))
    labels = np.zeros(data.shape[:3])
    labels[:4], labels[8:] = 3, 9
    region = save(path.with_name("tracts.nii.gz"), labels, dtype=np.int16)
    assert (
        run(t1.list("--region", str(region), "--region-statistic", "median", "--correlated-voxels", "2")) == 0
    )
    rows = {(r["quantity"], r["region"]): r for r in table(t1.out / "measurements.tsv")}
    assert {region for _, region in rows} == {"all voxels", "tracts 3", "tracts 9"}
    one = rows["T1", "tracts 3"]
    stats = {
        r["name"]: float(r["value"])
        for r in table(t1.out / "statistics.tsv")
        if (r["quantity"], r["region"]) == ("T1", "tracts 3")
    }
    values = load(t1.out / "images_T1map.nii.gz")[:4]
    errors = load(t1.out / "images_T1map_se.nii.gz")[:4]
    assert float(one["value"]) == stats["median"] == pytest.approx(np.nanmedian(values), rel=1e-5)
    assert stats["mean"] == pytest.approx(np.nanmean(values), rel=1e-5)
    assert stats["SD of voxels"] == pytest.approx(np.nanstd(values), rel=1e-5)
    expected = np.sqrt(2 * np.nansum(errors**2)) / np.isfinite(values).sum()
    assert stats["SE of the mean"] == pytest.approx(expected, rel=1e-5)
    assert float(one["standard_uncertainty"]) == pytest.approx(np.sqrt(np.pi / 2) * expected, rel=1e-5)
    assert "2 voxels share one error" in one["uncertainty_method"]


# Grids and units


def test_mask_of_another_grid_is_named(t1, capsys):
    folder = t1.request.images["images"][0].parent
    small = save(folder / "small.nii.gz", np.ones((2, 2, 2)))
    assert run(t1.list("--mask", str(small))) == 2
    error = said(capsys)
    assert "another grid" in error
    assert "--resample" in error
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.0
    other = save(folder / "shifted.nii.gz", np.ones((3, 2, 2)), affine=shifted)
    assert run(t1.list("--mask", str(other))) == 2
    assert "mm apart" in said(capsys)
    assert run(t1.list("--mask", str(other), "--resample")) == 0


def test_b1_map_of_another_grid(vfa, capsys):
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, :3] = AFFINE[:3, :3] / 2
    fine[:3, 3] = AFFINE[:3, 3] - 0.25 * AFFINE[:3, :3].sum(axis=1)
    coarse = load(vfa.request.maps["b1_map"])
    save(vfa.request.maps["b1_map"], np.kron(coarse, np.ones((2, 2, 2))), affine=fine)
    assert run(vfa.list()) == 2
    assert "B1 map" in said(capsys)
    assert run(vfa.list("--resample")) == 0
    result = read_result(vfa.out)
    assert any(notice.code == "fit.resampled" for notice in result.notices)
    truth = find_model("t1-vfa").example().truth["T1"]
    assert result.measurements[0].value == pytest.approx(truth.mean(), rel=0.05)


def test_b1_in_percent_is_the_same_map(vfa):
    direct = run_fit(vfa.request, vfa.out)
    percent = save(vfa.request.maps["b1_map"].with_name("p.nii.gz"), 100 * load(vfa.request.maps["b1_map"]))
    again = run_fit(replace(vfa.request, maps={"b1_map": percent}), vfa.out.with_name("again"))
    assert again.measurements[0].value == pytest.approx(direct.measurements[0].value, rel=1e-6)


def test_no_b1_map_is_a_doubt_of_every_value(vfa):
    result = run_fit(replace(vfa.request, maps={}), vfa.out)
    assert result.status is Status.WARN
    assert any("no B1 map" in flag for flag in result.measurements[0].flags)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--inversion-times", "50,150,300,600,1000,1600,2400"], "milliseconds"),
        (["--repetition-time", "3000"], "milliseconds"),
        (["--inversion-times", "0.1,0.2"], "number of values"),
        (["--inversion-times", "soon"], "numbers separated by commas"),
        (["--inversion-times", "0.1,nan,0.3,0.6,1,1.6,2.4"], "cannot be in s"),
        (["--inversion-angle", "200"], "out of range"),
        (["--t1-min", "5", "--t1-max", "1"], "range"),
        (["--noise-sd", "-1"], "positive"),
        (["--correlated-voxels", "0"], "at least 1"),
        (["--mask", "no-such-file.nii.gz"], "does not exist"),
        (["--region", "no-such-file.nii.gz"], "does not exist"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(t1, capsys, more, words):
    base = t1.list()
    # The last of two equal options wins.
    assert run([*base, *more]) == 2
    assert words in said(capsys)
    assert not list(t1.out.glob("*.nii.gz"))
    assert not (t1.out / "result.json").exists()


def test_t1_map_in_seconds_is_named(tmp_path, capsys):
    model = find_model("t2")
    t1_map = save(tmp_path / "t1.nii.gz", np.full((3, 2, 2), 1.2))
    words = Words(model, request_of(model, tmp_path / "in"), tmp_path / "out")
    assert run(words.list("--model", "epg", "--t1-map", str(t1_map))) == 2
    assert "seconds" in said(capsys)
    assert run(words.list("--model", "epg")) == 2
    assert "needs T1" in said(capsys)
    save(t1_map, np.full((3, 2, 2), 1200))
    assert run(words.list("--model", "epg", "--t1-map", str(t1_map), "--slice-profile", "auto")) == 0
    assert (tmp_path / "out" / "images_refocusingAngle.nii.gz").is_file()


def test_sidecar_in_milliseconds_is_named(tmp_path, capsys):
    paths = bids_echoes(tmp_path, EchoTime=20)
    assert run(["fit", "t2", *map(str, paths), str(tmp_path / "out")]) == 2
    assert "milliseconds" in said(capsys)


@pytest.mark.parametrize("value", ["soon", [0.01, 0.02], None, True])
def test_sidecar_with_something_else_is_named(tmp_path, capsys, value):
    paths = bids_echoes(tmp_path, EchoTime=value)
    assert run(["fit", "t2", *map(str, paths), str(tmp_path / "out")]) == 2
    assert "EchoTime" in said(capsys)


def test_signed_images_are_not_taken_for_magnitudes(t1, capsys):
    path = t1.request.images["images"][0]
    data = load(path) * np.array([-1, -1, -1, 1, 1, 1, 1])
    save(path, data)
    assert run(t1.list()) == 2
    assert "--signed" in said(capsys)
    assert run(t1.list("--signed")) == 0


def test_swapped_mt_images_are_doubted(tmp_path):
    model = find_model("mtr")
    request = request_of(model, tmp_path / "in")
    swapped = {"mt_on": request.images["mt_off"], "mt_off": request.images["mt_on"]}
    result = run_fit(replace(request, images=swapped), tmp_path / "out")
    assert any("check which image is which" in notice.message for notice in result.notices)


def test_mt_settings_that_differ_are_a_doubt_of_every_value(tmp_path):
    request = request_of(find_model("mtr"), tmp_path / "in")
    settings = {**request.settings, "repetition_times": (0.035, 0.041)}
    result = run_fit(replace(request, settings=settings), tmp_path / "out")
    assert any("repetition time differs" in flag for flag in result.measurements[0].flags)


# Files


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b\x08\x00broken"])
def test_damaged_image_is_one_sentence(t1, capsys, content):
    t1.request.images["images"][0].write_bytes(content)
    assert run(t1.list()) == 2
    assert "images.nii.gz" in said(capsys)


def test_complex_image_is_refused(t1, capsys):
    path = t1.request.images["images"][0]
    nib.save(nib.Nifti1Image(load(path).astype(np.complex64), AFFINE), path)
    assert run(t1.list()) == 2
    assert "complex" in said(capsys)


def test_the_output_is_not_taken_for_an_image(t1, capsys):
    path = t1.request.images["images"][0]
    assert run(["fit", "t1-ir", str(path), str(path)]) == 2
    assert "output folder" in said(capsys)
    assert path.stat().st_size > 0


def test_one_file_twice_is_refused(tmp_path, capsys):
    request = request_of(find_model("mtr"), tmp_path / "in")
    path = str(request.images["mt_on"][0])
    assert run(["fit", "mtr", path, path, str(tmp_path / "out")]) == 2
    assert "twice" in said(capsys)


def test_images_of_two_grids_are_refused(tmp_path, capsys):
    request = request_of(find_model("mtr"), tmp_path / "in")
    save(request.images["mt_off"][0], np.ones((3, 2, 3)))
    assert run(["fit", "mtr", *(str(p[0]) for p in request.images.values()), str(tmp_path / "out")]) == 2
    assert "register" in said(capsys)


def test_nothing_fitted_is_one_and_says_why(t1, capsys):
    path = t1.request.images["images"][0]
    save(path, 0 * load(path))
    assert run(t1.list()) == 1
    captured = capsys.readouterr()
    assert "no signal" in captured.out
    assert captured.err.splitlines()[-2] == "done 0, skipped 0, failed 1"
    row = table(t1.out / "measurements.tsv")[0]
    assert row["value"] == "n/a"
    assert "12 voxels without a value" in row["flags"]


# Again


def test_a_second_run_repeats_nothing(t1, capsys):
    assert run(t1.list()) == 0
    target = t1.out / "images_T1map.nii.gz"
    before = target.stat().st_mtime_ns
    capsys.readouterr()
    assert run(t1.list()) == 0
    captured = capsys.readouterr()
    assert "nothing has changed" in captured.err
    assert captured.err.splitlines()[-2] == "done 0, skipped 1, failed 0"
    assert target.stat().st_mtime_ns == before
    assert run(t1.list("--redo")) == 0
    assert target.stat().st_mtime_ns != before


@pytest.mark.parametrize("change", ["option", "image", "setting", "lost"])
def test_what_changed_is_fitted_again(t1, change):
    first = run_fit(t1.request, t1.out)
    target = t1.out / "images_M0map.nii.gz"
    before = target.stat().st_mtime_ns
    request = t1.request
    if change == "option":
        request = replace(request, options={"t1_max": 8.0})
    elif change == "image":
        path = request.images["images"][0]
        save(path, 2 * load(path))
    elif change == "setting":
        request = replace(request, settings={**request.settings, "repetition_time": (4.0,)})
    else:
        (t1.out / "images_T1map.nii.gz").unlink()
    again = run_fit(request, t1.out)
    assert again.count(State.DONE) == 1
    assert target.stat().st_mtime_ns != before
    assert (t1.out / "images_T1map.nii.gz").is_file()
    assert first.provenance.created <= again.provenance.created


def test_maps_of_an_earlier_fit_do_not_stay(tmp_path):
    model = find_model("t2")
    request = request_of(model, tmp_path / "in")
    epg = replace(request, options={"model": "epg", "t1": 1.0})
    run_fit(epg, tmp_path / "out")
    assert (tmp_path / "out" / "images_refocusingAngle.nii.gz").is_file()
    (tmp_path / "out" / "mine.nii.gz").write_bytes(b"keep")
    run_fit(request, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*refocusing*"))
    assert (tmp_path / "out" / "mine.nii.gz").read_bytes() == b"keep"


def test_the_result_of_another_model_is_not_replaced_unasked(t1, vfa, capsys):
    run_fit(t1.request, t1.out)
    words = Words(vfa.model, vfa.request, t1.out)
    assert run(words.list()) == 2
    assert "t1-ir" in said(capsys)
    assert read_result(t1.out).provenance.config["model"] == "t1-ir"
    assert run(words.list("--redo")) == 0
    assert read_result(t1.out).provenance.config["model"] == "t1-vfa"


def test_report_is_rebuilt_from_disk(t1, capsys):
    assert run(t1.list()) == 0
    page = (t1.out / "report.html").read_text()
    (t1.out / "report.html").unlink()
    assert run(["report", str(t1.out)]) in (0, 1)
    assert (t1.out / "report.html").read_text() == page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_processes_give_the_same(t1, monkeypatch):
    from cordqa.workflow.fit import chunks
    from cordqa.workflow.fit import run as module

    alone = run_fit(t1.request, t1.out)
    original = chunks.fit_voxels
    monkeypatch.setattr(module, "fit_voxels", lambda m, d, **k: original(m, d, **(k | {"chunk_voxels": 5})))
    apart = run_fit(replace(t1.request, n_procs=2), t1.out.with_name("apart"))
    assert [m.value for m in apart.measurements] == [m.value for m in alone.measurements]


# Models that break their contract, and models for whole volumes


def broken(data) -> FittedMaps:
    return FittedMaps(
        model="broken",
        values={"T1": np.full(data.shape, np.nan)},
        units={"T1": "ms"},
        reasons=Reasons.collect(data.shape, []),
    )


def whole(data) -> FittedMaps:
    assert data.signal.ndim == 4
    outside = ~data.mask
    values = np.where(outside, np.nan, data.of("images").mean(axis=-1))
    return FittedMaps(
        model="mean over the series",
        values={"T1": values},
        units={"T1": "ms"},
        standard_errors={"T1": np.ones(data.shape)},
        reasons=Reasons.collect(data.shape, [(outside, "outside the mask")]),
    )


def changed(model: FitModel, **changes: object) -> FitModel:
    return replace(model, settings=(), options=(), prepare=None, **changes)


def test_a_hole_without_a_reason_is_refused(t1):
    request = replace(t1.request, model=changed(t1.model, fit=broken), settings={})
    with pytest.raises(FitError, match="no reason"):
        run_fit(request, t1.out)
    assert not list(t1.out.glob("*.nii.gz"))


def test_whole_volume_models_see_volumes(t1):
    mask = np.zeros((3, 2, 2))
    mask[0] = 1
    path = save(t1.request.images["images"][0].with_name("m.nii.gz"), mask)
    request = replace(t1.request, model=changed(t1.model, fit=whole, voxelwise=False), settings={}, mask=path)
    result = run_fit(request, t1.out)
    expected = load(request.images["images"][0]).mean(axis=-1)[0]
    np.testing.assert_allclose(load(t1.out / "images_T1map.nii.gz")[0], expected, rtol=1e-6)
    assert result.measurements[0].value == pytest.approx(expected.mean(), rel=1e-6)
    assert result.measurements[0].n_voxels == 4
    assert result.measurements[0].standard_uncertainty == pytest.approx(0.5)


def test_a_killed_write_leaves_no_result(t1, monkeypatch):
    from cordqa.workflow.fit import write

    run_fit(t1.request, t1.out)
    count = iter(range(100))
    original = write.write_derivative

    def dies(*words: object, **named: object) -> object:
        if next(count) == 2:
            raise KeyboardInterrupt
        return original(*words, **named)

    monkeypatch.setattr(write, "write_derivative", dies)
    with pytest.raises(KeyboardInterrupt):
        run_fit(replace(t1.request, redo=True), t1.out)
    assert not (t1.out / "result.json").exists()
    assert not [path for path in t1.out.iterdir() if path.name.startswith(".")]
    for image in t1.out.glob("*.nii.gz"):
        assert load(image).shape == (3, 2, 2)


# Gradients


@pytest.fixture
def dwi(tmp_path) -> Words:
    model = find_model("dti")
    return Words(model, request_of(model, tmp_path / "in"), tmp_path / "out")


def test_gradients_are_found_beside_the_image(dwi):
    folder = dwi.request.images["dwi"][0].parent
    (folder / "x.bval").rename(folder / "dwi.bval")
    (folder / "x.bvec").rename(folder / "dwi.bvec")
    request = replace(dwi.request, gradients=type(dwi.request.gradients)())
    result = run_fit(request, dwi.out)
    assert {"dwi.bval", "dwi.bvec"} <= result.provenance.input_hashes.keys()
    truth = dwi.model.example().truth["FA"]
    np.testing.assert_allclose(load(dwi.out / "dwi_FA.nii.gz"), truth, rtol=1e-4)


def test_no_gradients_is_named(dwi, capsys):
    assert run(["fit", "dti", str(dwi.request.images["dwi"][0]), str(dwi.out)]) == 2
    assert "--bval" in said(capsys)


def test_gradients_of_another_series_are_refused(dwi, capsys):
    values = np.loadtxt(dwi.request.gradients.bval)
    np.savetxt(dwi.request.gradients.bval, values[None, :-1])
    assert run(dwi.list()) == 2
    assert "volumes" in said(capsys)


def test_what_the_refusals_of_a_table_name_settles_them(dwi, capsys):
    """Another unit, lengths that mean something, and no b = 0: each error names an option that works."""
    files, truth = dwi.request.gradients, dwi.model.example().truth["MD"]
    b, vectors = np.loadtxt(files.bval), np.loadtxt(files.bvec)
    cases = (
        (b / 1000, vectors, "--b-unit", "ms/um2"),
        (b * 4, vectors / 2, "--lengths", "scale-b"),
        (b, vectors * 0.9, "--lengths", "normalise"),
        (np.where(b == 0, 120.0, b), vectors + np.where(b == 0, [[0], [0], [1.0]], 0), "--b0-limit", "120"),
    )
    for values, directions, option, word in cases:
        np.savetxt(files.bval, values[None], fmt="%.10g")
        np.savetxt(files.bvec, directions, fmt="%.10g")
        if option != "--b0-limit":
            assert run(dwi.list()) == 2
            assert option in said(capsys)
        assert run(dwi.list(option, word, "--redo")) == 0
        capsys.readouterr()
        if option != "--b0-limit":
            np.testing.assert_allclose(load(dwi.out / "dwi_MD.nii.gz"), truth, rtol=1e-4)
        command = read_result(dwi.out).provenance.command
        assert f"{option} {word}" in command and "--bval FILE" in command


@pytest.mark.parametrize("model", ["dti", "dki"])
def test_a_slice_that_lost_signal_is_named(tmp_path, model):
    record = find_model(model)
    request = request_of(record, tmp_path / "in")
    path = request.images["dwi"][0]
    data = np.tile(load(path), (3, 3, 1, 1))
    save(path, data)
    assert not [n for n in run_fit(request, tmp_path / "a").notices if "do not fit" in n.message]
    data[:, :, 1, 12] *= 0.4
    save(path, data)
    result = run_fit(request, tmp_path / "b")
    (notice,) = [n for n in result.notices if "do not fit" in n.message]
    assert "volume 13" in notice.message and notice.message.startswith("1 of ")
    assert result.status is Status.WARN
    if model == "dti":
        robust = run_fit(replace(request, options={"estimator": "robust"}), tmp_path / "c")
        assert not [n for n in robust.notices if "do not fit" in n.message]


def test_the_main_direction_is_written(dwi):
    assert run(dwi.list()) == 0
    directions = load(dwi.out / "dwi_V1.nii.gz")
    assert directions.shape == (3, 2, 2, 3)
    turn = rotations(12).reshape(3, 2, 2, 3, 3)
    np.testing.assert_allclose(np.abs((directions * turn[..., 0]).sum(axis=-1)), 1, atol=1e-6)
    assert "axes of the image array" in json.loads((dwi.out / "dwi_V1.json").read_text())["Description"]


def test_images_cut_off_at_the_largest_integer_are_named(dwi):
    path = dwi.request.images["dwi"][0]
    save(path, np.minimum(np.round(60 * load(path)), 32767), dtype=np.int16)
    result = run_fit(dwi.request, dwi.out)
    (notice,) = [n for n in result.notices if n.code == "fit.saturated"]
    assert "32767" in notice.message and result.status is Status.WARN
    save(path, np.round(20 * load(path) / 60), dtype=np.int16)
    assert not [n for n in run_fit(dwi.request, dwi.out).notices if n.code == "fit.saturated"]


def test_without_a_mask_values_say_that_air_is_in_them(dwi):
    result = run_fit(dwi.request, dwi.out)
    assert "air is included" in result.summary
    assert all("no mask was given, so air is included" in one.flags for one in result.measurements)
    mask = save(dwi.out.parent / "m.nii.gz", np.ones((3, 2, 2)))
    result = run_fit(replace(dwi.request, mask=mask), dwi.out)
    assert "air" not in result.summary and not any("air" in " ".join(m.flags) for m in result.measurements)


def test_pictures_of_indices_share_one_range(dwi):
    figures = {f.name: f.caption for f in run_fit(dwi.request, dwi.out).figures}
    assert figures["map-FA"].startswith("Black is 0 or no value, white is 1.")
    assert "µm²/s" in figures["map-MD"] and "e+" not in figures["map-AD"]
    assert sum("stripes" in caption for caption in figures.values()) == 1


def test_the_shapes_beside_a_named_bval_are_not_forgotten(tmp_path):
    """Planar encodings have directions too, and would pass for linear ones."""
    model = find_model("ufa")
    request = request_of(model, tmp_path / "in")
    files = request.gradients
    named = replace(files, bdelta=None)
    result = run_fit(replace(request, gradients=named), tmp_path / "out")
    assert "x.bdelta" in result.provenance.input_hashes
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    bval = elsewhere / "y.bval"
    bval.write_bytes(files.bval.read_bytes())
    with pytest.raises(CordqaError):  # nothing tells the shapes of this table
        run_fit(replace(request, gradients=replace(named, bval=bval)), tmp_path / "b")


def test_one_lost_volume_does_not_hide_the_level_of_b0(tmp_path):
    model = find_model("ufa")
    request = request_of(model, tmp_path / "in")
    path = request.images["dwi"][0]
    table = model.example().gradients
    data = np.tile(load(path), (3, 3, 3, 1))
    data = data + np.random.default_rng(0).normal(0, 5, data.shape)
    data[..., table.is_b0] *= 1.05
    data[..., np.flatnonzero(table.b_values_s_mm2 == 1400)[0]] = np.nan
    save(path, data)
    result = run_fit(request, tmp_path / "out")
    assert any("b = 0 volumes were left out" in n.message for n in result.notices)


def test_no_option_brings_back_weighted_volumes_alone(dwi, capsys):
    files = dwi.request.gradients
    b, vectors = np.loadtxt(files.bval), np.loadtxt(files.bvec)
    vectors[2, b == 0] = 1
    np.savetxt(files.bval, np.where(b == 0, b.max(), b)[None], fmt="%.10g")
    np.savetxt(files.bvec, vectors, fmt="%.10g")
    assert run(dwi.list()) == 2
    assert "--b0-limit" in said(capsys)
    assert run(dwi.list("--b0-limit", "5000")) == 2


def test_holes_in_a_noise_map_cost_their_voxels_only(tmp_path):
    """A whole chunk of a volume may lie outside the body, where a noise map is zero."""
    for name, options, lost in (("ufa", {}, 0), ("dki", {"rician": True}, 8)):
        model = find_model(name)
        request = request_of(model, tmp_path / name, options={**model.example().options, **options})
        noise = np.full((3, 2, 2), 2.0)
        noise[:2] = 0
        path = save(tmp_path / f"{name}.nii.gz", noise)
        data = read_inputs(replace(request, noise_map=path, noise_sd=None)).data
        maps = fit_voxels(model, data, chunk_voxels=4)
        assert int((~maps.reasons.ok).sum()) == lost


def test_series_in_several_files_is_one(tmp_path):
    """Linear and spherical encoding in a file each, with a table each."""
    model = find_model("ufa")
    request = request_of(model, tmp_path / "in")
    together = run_fit(request, tmp_path / "together")
    table = model.example().gradients
    data = load(request.images["dwi"][0])
    paths = []
    for name, which in (("linear", table.b_delta != 0), ("spherical", table.b_delta == 0)):
        paths.append(save(tmp_path / f"{name}.nii.gz", data[..., which]))
        for ending in ("bval", "bvec", "bdelta"):
            values = np.atleast_2d(np.loadtxt(tmp_path / "in" / f"x.{ending}"))
            np.savetxt(tmp_path / f"{name}.{ending}", values[:, which], fmt="%.10g")
    apart = replace(request, images={"dwi": tuple(paths)}, gradients=type(request.gradients)())
    result = run_fit(apart, tmp_path / "apart")
    assert [m.value for m in result.measurements] == pytest.approx(
        [m.value for m in together.measurements], rel=1e-6, nan_ok=True
    )


def test_rician_kurtosis_takes_one_noise_for_all_voxels(tmp_path):
    model = find_model("dki")
    request = request_of(model, tmp_path / "in")
    rng = np.random.default_rng(2)
    path = request.images["dwi"][0]
    data = np.kron(load(path), np.ones((2, 2, 2, 1)))
    save(path, np.hypot(data + rng.normal(0, 10, data.shape), rng.normal(0, 10, data.shape)))
    result = run_fit(replace(request, options={"rician": True}), tmp_path / "out")
    words = next(n.message for n in result.notices if n.message.startswith("noise SD"))
    assert float(words.split()[2]) == pytest.approx(10, rel=0.15)
    truth = model.example().truth["MK"]
    row = next(m for m in result.measurements if m.quantity == "MK")
    assert row.value == pytest.approx(truth.mean(), abs=0.05)


def test_registry_refuses_a_broken_record():
    model = find_model("t1-ir")
    with pytest.raises(ValueError, match="cannot name a command"):
        replace(model, id="T1 IR")
    with pytest.raises(ValueError, match="must differ"):
        replace(model, options=(*model.options, model.options[0]))
    with pytest.raises(CordqaError, match="no such model"):
        find_model("nonsense")


# Real scans


def test_liquid_crystal_phantom_has_microscopic_anisotropy(shared_data, tmp_path):
    """muFA is 1 by physics in this phantom."""
    folder = shared_data / "diffusion" / "hex"
    words = ["fit", "ufa", str(folder / "hex_dwi.nii.gz"), str(tmp_path / "out"), "--no-report"]
    assert run([*words, "--mask", str(folder / "hex_roi.nii.gz"), "--region-statistic", "median"]) == 0
    rows = {row["quantity"]: row for row in table(tmp_path / "out" / "measurements.tsv")}
    assert 0.90 < float(rows["muFA"]["value"]) < 1.02


def test_real_cord_mt_protocol_with_sidecars(shared_data, tmp_path):
    folder = shared_data / "cord" / "testing" / "mt"
    images = [str(folder / name) for name in ("mt1.nii.gz", "mt0.nii.gz", "t1w.nii.gz")]
    out = tmp_path / "out"
    assert (
        run(["fit", "mtsat", *images, str(out), "--mask", str(folder / "mt1_seg.nii.gz"), "--no-report"]) == 0
    )
    result = read_result(out)
    assert result.provenance.config["settings"]["repetition_times"]["values"] == [0.03, 0.03, 0.015]
    assert {m.quantity for m in result.measurements} == {"MTsat", "T1", "M0"}


# A record with everything that no shipped model uses


def dipole(data) -> FittedMaps:
    """Say what arrived, in the map: mean phase times a number of each option."""
    assert data.of("magnitude").shape[-1] in (0, 2)
    x, y, z = data.options["direction"]
    values = data.of("phase").mean(axis=-1) * (x + y + z) * data.number("count") + data.value("strength")
    outside = ~data.mask
    return FittedMaps(
        model="sum",
        values={"susceptibility": np.where(outside, np.nan, values + data.values("echoes").sum())},
        units={"susceptibility": "ppm"},
        reasons=Reasons.collect(data.shape, [(outside, "outside the mask")]),
    )


def everything() -> FitModel:
    return FitModel(
        id="dipole",
        description="A model with every kind of input",
        fit=dipole,
        example=find_model("mtr").example,
        voxelwise=False,
        images=(
            ImageRole(id="phase", metavar="PHASE", many=True, minimum=2, help="Phase."),
            ImageRole(
                id="magnitude", metavar="MAG", many=True, by_option=True, required=False, help="Magnitude."
            ),
        ),
        settings=(
            Setting(id="echoes", help="Times.", unit="s", role="phase", largest=1.0, slip="milliseconds"),
            Setting(id="strength", help="Field.", unit="T", shared=True, default=3.0, largest=20.0),
        ),
        options=(
            Option(
                id="direction",
                kind=tuple,
                default=(0.0, 0.0, 1.0),
                unit="1",
                low=-1,
                high=1,
                length=3,
                help="B0.",
            ),
            Option(id="count", kind=int, default=1, unit="1", low=1, high=9, help="Times."),
            Option(id="sharp", kind=bool, default=True, help="A switch that is on."),
        ),
        produces=("susceptibility",),
        references=("A paper. doi:10.1000/1",),
        experimental="nobody has tried it",
    )


def test_every_kind_of_input_reaches_the_model(tmp_path, monkeypatch, capsys):
    model = everything()
    monkeypatch.setattr("cordqa.workflow.fit.registry.list_models", lambda: {model.id: model})
    phase = save(tmp_path / "phase.nii.gz", np.full((3, 2, 2, 2), 2.0))
    parts = [save(tmp_path / f"mag{n}.nii.gz", np.ones((3, 2, 2))) for n in (1, 2)]
    words = ["fit", "dipole", str(phase), str(tmp_path / "out"), "--echoes", "0.1,0.2"]
    assert run([*words, "--direction", "1,0.5,0", "--count", "4"]) == 0
    np.testing.assert_allclose(load(tmp_path / "out" / "phase_Chimap.nii.gz"), 2 * 1.5 * 4 + 3 + 0.3)
    result = read_result(tmp_path / "out")
    assert result.provenance.config["settings"]["strength"]["origin"] == "default"
    assert any(notice.code == "fit.experimental" for notice in result.notices)
    assert "experimental" in result.title
    with_magnitude = [*words, "--magnitude", str(parts[0]), "--magnitude", str(parts[1]), "--no-sharp"]
    assert run(with_magnitude) == 0
    capsys.readouterr()
    assert run([*words, "--magnitude", str(parts[0]), "--direction", "1,0"]) == 2
    assert "wrong number of values" in said(capsys)
    assert run([*words, "--count", "20"]) == 2
    assert "1 to 9" in said(capsys)
    assert run(["list", "models"]) == 0
    assert "(experimental)" in capsys.readouterr().out


def test_help_asks_for_commas_only_where_several_values_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "qsm", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "In T, one value; from the sidecar (MagneticFieldStrength)" in words
    assert "In s, one per image, separated by commas; from the sidecar (EchoTime)" in words
