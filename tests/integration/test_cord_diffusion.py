"""Diffusion of the cord from a BIDS dataset to values: recovered truth, real scans, bad input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_cord_run import analyse, reasons, row, rows

from cordqa.cli._run import run
from cordqa.errors import ConfigError
from cordqa.io.bids_index import index_dataset
from cordqa.io.volumes import read_volume, write_volume
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Result, Severity, State, Volume
from cordqa.simulate.cord.diffusion import TISSUES, CordDwi, CordDwiTruth, cord_scheme, simulate_cord_dwi
from cordqa.simulate.cord_study import CordTruth, simulate_study
from cordqa.workflow import cord_diffusion_series
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_demo import write_visit
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.gradients import write_gradients


def put(bids: Path, truth: CordDwiTruth, gradients: GradientTable, subject: str = "01") -> Path:
    """Write a simulated series as a dataset of one participant."""
    stem = bids / f"sub-{subject}/dwi/sub-{subject}_dwi"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(data=truth.data, affine=truth.affine), stem.with_name(f"{stem.name}.nii.gz"))
    write_gradients(gradients, stem, affine=truth.affine, mrtrix=False)
    return stem


# -- the simulated study -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CordTruth]:
    """T2w and diffusion of one person."""
    folder = tmp_path_factory.mktemp("diffusion-study") / "bids"
    visit = next(simulate_study(seed=5, n_people=1, n_repeats=1))
    write_visit(visit, folder)
    for path in [*folder.rglob("*_MTS.*"), *folder.rglob("*_T2starw.*")]:
        path.unlink()
    return folder, visit.truth


@pytest.fixture(scope="module")
def visit(
    study: tuple[Path, CordTruth], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, CordTruth, Path]:
    out = tmp_path_factory.mktemp("diffusion-out")
    return analyse(study[0], out, session="A1"), study[1], out


def test_values_follow_the_truth_through_motion_noise_and_thick_slices(
    visit: tuple[Result, CordTruth, Path],
) -> None:
    result, truth, _ = visit
    for level in ("C3", "C4", "C5", "C6", "all slices"):
        assert row(result, "MD", "WM", level).value == pytest.approx(truth.md_um2_s["WM"], rel=0.06)
        assert row(result, "MD", "GM", level).value == pytest.approx(truth.md_um2_s["GM"], rel=0.06)
        # FA of voxels that hold several tissues is no mean of theirs: white low, grey high.
        assert -0.12 < row(result, "FA", "WM", level).value / truth.fa["WM"] - 1 < 0.0
        assert 0.0 < row(result, "FA", "GM", level).value / truth.fa["GM"] - 1 < 0.35
    assert row(result, "AD").value > row(result, "MD").value > row(result, "RD").value


def test_levels_are_carried_and_every_value_says_where_it_comes_from(
    visit: tuple[Result, CordTruth, Path],
) -> None:
    result, _, _ = visit
    fa = [r for r in result.measurements if r.quantity == "FA"]
    assert {r.level for r in fa} == {"C2", "C3", "C4", "C5", "C6", "C7", "all slices"}
    for one in fa:
        assert one.entities.acquisition == "dwi"
        assert one.engine.startswith("builtin ")
        assert one.method == "MAP of the map, built-in analytical atlas"
        assert one.uncertainty_method.startswith("standard errors of the voxels")
        assert 0.0005 < one.standard_uncertainty < 0.03
        assert "approximate: analytical atlas" in one.flags
    assert any("levels are carried over from T2w" in n.message for n in result.notices if "dwi" in n.where)


def test_images_motion_and_sentences_are_left(visit: tuple[Result, CordTruth, Path]) -> None:
    result, _, out = visit
    folder = out / "sub-01/ses-A1/dwi"
    for quantity in ("FA", "MD", "AD", "RD"):
        about = json.loads((folder / f"sub-01_ses-A1_{quantity}.json").read_text())
        assert about["Units"] == ("1" if quantity == "FA" else "um2/s")
        assert "Motion was corrected" in about["Method"] and about["Sources"]
        error = read_volume(folder / f"sub-01_ses-A1_desc-SE_{quantity}.nii.gz").data
        values = read_volume(folder / f"sub-01_ses-A1_{quantity}.nii.gz").data
        assert error.shape == values.shape and np.nanmedian(error) > 0
    with (folder / "sub-01_ses-A1_desc-motion_timeseries.tsv").open() as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert len(table) == 24 and max(float(line["displacement_mm"]) for line in table) > 0.3
    assert (folder / "sub-01_ses-A1_desc-mean_dwi.nii.gz").is_file()
    text = next(text for text in result.methods if text.startswith("Diffusion (dwi)"))
    order = ["was not denoised", "Motion was corrected", "outliers", "noise level", "least squares"]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)
    assert any("10.1016/j.neuroimage.2006.07.001" in line for line in result.references)
    figure = next(f for f in result.figures if f.title == "dwi")
    assert [picture["label"] for picture in figure.data["pictures"]] == [
        "mean weighted",
        "mean b = 0",
        "FA",
        "MD",
    ]
    assert any(f.title == "Motion in dwi" for f in result.figures)


def test_values_from_signals_are_nearer_to_the_truth(
    study: tuple[Path, CordTruth], visit: tuple[Result, CordTruth, Path], tmp_path: Path
) -> None:
    result = analyse(only(study[0], tmp_path, "dwi"), tmp_path / "out", session="A1", extract_from="signals")
    truth = study[1]
    for region in ("WM", "GM"):
        there, here = row(visit[0], "FA", region), row(result, "FA", region)
        assert here.method.startswith("MAP of signals")
        assert abs(here.value - truth.fa[region]) < 0.8 * abs(there.value - truth.fa[region])
        assert here.standard_uncertainty > 0
    # Without labels there is a row for every slice.
    slices = [r for r in result.measurements if r.quantity == "FA" and r.slice_number is not None]
    assert slices and all(r.level == f"slice {r.slice_number}" for r in slices)


def only(bids: Path, folder: Path, suffix: str) -> Path:
    """A dataset of links to the images of one kind."""
    target = folder / "bids"
    for path in bids.rglob("*"):
        inside = f"_{suffix}." in path.name or not path.name.startswith("sub-")
        if path.is_file() and inside and "derivatives" not in path.relative_to(bids).parts:
            (target / path.relative_to(bids)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(bids)).symlink_to(path)
    return target


# -- schemes that support more -----------------------------------------------------------------------


def mixed_scheme() -> GradientTable:
    """Two shells of linear encoding and two of spherical, b = 0 between them."""
    linear = cord_scheme(directions=20, b_values_s_mm2=(1000.0, 2000.0))
    b = np.concatenate([linear.b_values_s_mm2, np.full(8, 1000.0), np.full(12, 2000.0)])
    directions = np.vstack([linear.directions, np.zeros((20, 3))])
    delta = np.concatenate([np.ones(len(linear)), np.zeros(20)])
    return GradientTable(b_values_s_mm2=b, directions=directions, b_delta=delta)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, Path]:
    """A series with every encoding, one slice of one volume lost."""
    folder = tmp_path_factory.mktemp("mixed")
    gradients = mixed_scheme()
    scan = CordDwi(shape=(44, 44, 4), snr=40.0, blur_mm=0.25, dropouts={(1, 30): 0.2})
    stem = put(folder / "bids", simulate_cord_dwi(gradients, scan, seed=2), gradients)
    return analyse(folder / "bids", folder / "out"), folder / "out", stem


def true_micro_anisotropy(tissue: str) -> float:
    share, along, across = (np.array(column) for column in zip(*TISSUES[tissue][1], strict=True))
    mean = (along + 2 * across) / 3
    spread = share @ (2 / 9 * (along - across) ** 2)
    overall = share @ mean
    between = share @ (mean - overall) ** 2
    return float(np.sqrt(1.5 * spread / (spread + between + overall**2)))


def test_kurtosis_and_microscopic_anisotropy_where_the_scheme_supports_them(
    mixed: tuple[Result, Path, Path],
) -> None:
    result, out, _ = mixed
    assert not reasons(result, State.FAILED)
    micro = row(result, "muFA")
    assert micro.value == pytest.approx(true_micro_anisotropy("WM"), abs=0.08)
    assert micro.low < micro.value < micro.high and micro.standard_uncertainty > 0
    assert micro.method.startswith("MAP of signals")
    assert {"VI", "VA", "OP"} <= {r.quantity for r in result.measurements}
    # Mixtures of compartments have kurtosis: of white matter across the cord more than along it.
    assert 0.3 < row(result, "MK").value < 1.6
    assert row(result, "RK").value > row(result, "AK").value
    # Tensor from b up to 1500 s/mm2 only; the mean along and across is that of the compartments.
    assert row(result, "AD").value == pytest.approx(1900.0, rel=0.12)
    names = {path.name for path in (out / "sub-01/dwi").glob("*.nii.gz")}
    assert {"sub-01_MK.nii.gz", "sub-01_muFA.nii.gz", "sub-01_desc-SE_MK.nii.gz"} <= names
    text = next(text for text in result.methods if text.startswith("Diffusion"))
    assert "Rician" in text and "fitted once to the signals" in text


def test_an_outlier_slice_is_named_and_costs_only_itself(mixed: tuple[Result, Path, Path]) -> None:
    result, _, _ = mixed
    text = next(text for text in result.methods if text.startswith("Diffusion"))
    # One was planted; in the noise two more look odd.
    count = int(text.partition(" of 256)")[0].rpartition("(")[2])
    assert 1 <= count <= 4
    assert all(np.isfinite(r.value) for r in result.measurements if r.quantity == "FA" and r.region == "WM")


def test_options_reach_the_series(mixed: tuple[Result, Path, Path], tmp_path: Path) -> None:
    gradients = cord_scheme(directions=12, every=6)
    put(tmp_path / "bids", simulate_cord_dwi(gradients, CordDwi(shape=(40, 40, 3)), seed=1), gradients)
    result = analyse(
        tmp_path / "bids", tmp_path / "out", skip_motion=True, denoise="patch2self", tensor="robust",
        method="median", noddi=True,
    )  # fmt: skip
    text = next(text for text in result.methods if text.startswith("Diffusion"))
    assert (
        "Motion was not corrected" in text
        and "removal of outliers" in text
        and "Noise around the cord was reduced" in text
    )
    found = row(result, "FA")
    assert "motion was not corrected" in found.flags and found.method.startswith("median of the map")
    # One shell: NODDI was asked for and cannot be had.
    assert any("NODDI" in what for what in reasons(result, State.SKIPPED))
    assert "sub-01_ses" not in str(sorted((tmp_path / "out").rglob("*motion*")))
    for wrong in ({"denoise": "magic"}, {"tensor": "ols"}):
        with pytest.raises(ConfigError):
            CordSettings(**wrong)  # type: ignore[arg-type]


def test_every_option_is_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["cord", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--denoise", "--gibbs", "--skip-motion", "--tensor", "--noddi"):
        assert option in text
    assert run(["cord", str(tmp_path), str(tmp_path / "out"), "participant", "--denoise", "magic"]) == 2


# -- masks, axes, fallback ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[CordDwiTruth, GradientTable]:
    gradients = cord_scheme(directions=12, every=6)
    return simulate_cord_dwi(gradients, CordDwi(shape=(40, 40, 4)), seed=3), gradients


def test_a_mask_of_the_user_wins(small: tuple[CordDwiTruth, GradientTable], tmp_path: Path) -> None:
    truth, gradients = small
    put(tmp_path / "bids", truth, gradients)
    mask = Volume(data=truth.cord.astype(np.float32), affine=truth.affine)
    own = tmp_path / "bids/derivatives/manual/sub-01/dwi/sub-01_dwi_label-SC_seg.nii.gz"
    write_volume(mask, own)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert all(r.engine.endswith("mask of the user") for r in result.measurements)
    assert not list((tmp_path / "out").rglob("*label-SC*"))


def test_exchanged_components_are_found_by_the_axis_of_the_cord(
    small: tuple[CordDwiTruth, GradientTable], tmp_path: Path
) -> None:
    truth, gradients = small
    wrong = replace(gradients, directions=gradients.directions[:, [0, 2, 1]])
    put(tmp_path / "bids", truth, wrong)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    (notice,) = [n for n in result.notices if n.code == "gradients.axes"]
    assert notice.severity is Severity.ERROR and "exchanged" in notice.message
    put(tmp_path / "right", truth, gradients)
    assert not [n for n in analyse(tmp_path / "right", tmp_path / "o").notices if n.code == "gradients.axes"]


def test_the_mean_of_b0_stands_in_where_no_cord_is_seen(
    small: tuple[CordDwiTruth, GradientTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, gradients = small
    put(tmp_path / "bids", truth, gradients)
    calls: list[float] = []
    segment = cord_diffusion_series.segment_builtin

    def blind_at_first(*args: object, **settings: object) -> object:
        calls.append(float(args[1].data.mean()))  # type: ignore[attr-defined]
        if len(calls) == 1:
            raise ConfigError("nothing seen")
        return segment(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(cord_diffusion_series, "segment_builtin", blind_at_first)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert calls[1] > 1.3 * calls[0]
    assert any(n.code == "diffusion.mask-b0" for n in result.notices)


def test_gradients_are_inherited_from_the_top_of_the_dataset(
    small: tuple[CordDwiTruth, GradientTable], tmp_path: Path
) -> None:
    truth, gradients = small
    stem = put(tmp_path / "bids", truth, gradients)
    for ending in ("bval", "bvec"):
        shutil.move(f"{stem}.{ending}", tmp_path / "bids" / f"dwi.{ending}")
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert rows(result, "FA") and "dwi.bval" in result.provenance.input_hashes


# -- bad input ---------------------------------------------------------------------------------------


def no_file(ending: str) -> Callable[[Path, CordDwiTruth], None]:
    return lambda stem, _: stem.with_name(f"{stem.name}.{ending}").unlink()


def text(ending: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, CordDwiTruth], None]:
    def spoil(stem: Path, _: CordDwiTruth) -> None:
        path = stem.with_name(f"{stem.name}.{ending}")
        np.savetxt(path, change(np.loadtxt(path, ndmin=2)))

    return spoil


def three_dimensions(stem: Path, truth: CordDwiTruth) -> None:
    write_volume(Volume(data=truth.data[..., 0], affine=truth.affine), stem.with_name(f"{stem.name}.nii.gz"))


def broken(stem: Path, _: CordDwiTruth) -> None:
    path = stem.with_name(f"{stem.name}.nii.gz")
    path.write_bytes(path.read_bytes()[:5000])


def empty(stem: Path, truth: CordDwiTruth) -> None:
    data = np.zeros_like(truth.data)
    write_volume(Volume(data=data, affine=truth.affine), stem.with_name(f"{stem.name}.nii.gz"))


def mask_of_another_grid(stem: Path, truth: CordDwiTruth) -> None:
    mask = Volume(data=truth.cord[:, :, :-1].astype(np.float32), affine=truth.affine)
    name = f"derivatives/manual/sub-01/dwi/{stem.name}_label-SC_seg.nii.gz"
    write_volume(mask, stem.parents[2] / name)


def no_b0(stem: Path, truth: CordDwiTruth) -> None:
    text("bval", lambda b: np.full_like(b, 700.0))(stem, truth)
    text("bvec", lambda v: np.where(np.linalg.norm(v, axis=0) > 0, v, [[0.0], [0.6], [0.8]]))(stem, truth)


def one_direction(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=0) > 0
    return np.outer([0.0, 0.0, 1.0], length)


BAD: dict[str, tuple[Callable[[Path, CordDwiTruth], None], str]] = {
    "novec": (no_file("bvec"), "b-values without directions"),
    "noval": (no_file("bval"), "no gradient files"),
    "shortval": (text("bval", lambda b: b[:, :-2]), "12 b-values, 14 directions"),
    "shortvec": (text("bvec", lambda v: v[:, :-2]), "14 b-values, 12 directions"),
    "nob0": (no_b0, "no volume without|without diffusion weighting"),
    "unit": (text("bval", lambda b: b / 1000.0), "s/mm2"),
    "onedir": (text("bvec", one_direction), "direction"),
    "length": (text("bvec", lambda v: v * 0.5), "length|unit"),
    "threed": (three_dimensions, "several volumes"),
    "broken": (broken, "NIfTI"),
    "empty": (empty, "empty|no cord|all voxels are equal"),
    "grid": (mask_of_another_grid, "grid"),
}


@pytest.fixture(scope="module")
def bad(small: tuple[CordDwiTruth, GradientTable], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One participant with a good series and one for everything that can be wrong."""
    truth, gradients = small
    folder = tmp_path_factory.mktemp("bad-diffusion")
    for name in ("good", *BAD):
        stem = put(folder / "bids", truth, gradients)
        for ending in ("nii.gz", "bval", "bvec"):
            source = stem.with_name(f"{stem.name}.{ending}")
            shutil.move(source, source.with_name(f"sub-01_acq-{name}_dwi.{ending}"))
        if name in BAD:
            BAD[name][0](stem.with_name(f"sub-01_acq-{name}_dwi"), truth)
    return analyse(folder / "bids", folder / "out")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(bad: Result, name: str) -> None:
    (reason,) = [why for what, why in reasons(bad, State.FAILED).items() if f"acq-{name}_dwi" in what]
    assert re.search(BAD[name][1], reason), reason


def test_bad_input_is_contained(bad: Result) -> None:
    assert len(reasons(bad, State.FAILED)) == len(BAD)
    assert {r.entities.acquisition for r in bad.measurements} == {"acq-good_dwi"}
    assert 0.5 < row(bad, "FA").value < 0.9


def test_images_without_weighting_and_marked_ones_are_passed_over(
    small: tuple[CordDwiTruth, GradientTable], tmp_path: Path
) -> None:
    truth, gradients = small
    for name in ("PA", "AP"):
        stem = put(tmp_path / "bids", truth, gradients)
        for ending in ("nii.gz", "bval", "bvec"):
            source = stem.with_name(f"{stem.name}.{ending}")
            shutil.move(source, source.with_name(f"sub-01_dir-{name}_dwi.{ending}"))
    text("bval", np.zeros_like)(stem.with_name("sub-01_dir-PA_dwi"), truth)
    marks = tmp_path / "marks.yaml"
    head = "- image: sub-01_dir-AP_dwi\n"
    marks.write_text(f"{head}  slices:\n  - slice: 1\n    status: artefact\n    reason: fold\n")
    result = analyse(tmp_path / "bids", tmp_path / "out", exclude_from=marks)
    skipped = reasons(result, State.SKIPPED)
    assert any(
        "dir-PA" in what and "no volume has diffusion weighting" in why for what, why in skipped.items()
    )
    assert not reasons(result, State.FAILED)
    assert not rows(result, "FA", "WM", "slice 1") and rows(result, "FA", "WM", "slice 2")
    assert "1 of 4 slices left out by a reviewer" in row(result, "FA").flags
    marks.write_text(f"{head}  status: fail\n  reason: moved\n")
    assert not analyse(tmp_path / "bids", tmp_path / "o", exclude_from=marks).measurements


def test_a_wild_voxel_costs_only_itself(small: tuple[CordDwiTruth, GradientTable], tmp_path: Path) -> None:
    truth, gradients = small
    data = truth.data.copy()
    centre = np.argwhere(truth.cord[:, :, 1] > 0.9)[3]
    data[centre[0], centre[1], 1, :] = (np.nan, *[1e6] * (len(gradients) - 1))
    data[centre[0] + 1, centre[1], 2, 3] = -50.0
    put(tmp_path / "bids", replace(truth, data=data), gradients)
    put(tmp_path / "clean", truth, gradients)
    spoilt, clean = (analyse(tmp_path / name, tmp_path / f"o-{name}") for name in ("bids", "clean"))
    assert row(spoilt, "FA").value == pytest.approx(row(clean, "FA").value, abs=0.02)


# -- real scans --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's series with the label that the Spinal Cord Toolbox was given, and the testing one."""
    bids = tmp_path_factory.mktemp("real-diffusion") / "bids"
    cord = shared_data / "cord"
    links = {
        "sub-01/dwi/sub-01_dwi.nii.gz": cord / "tutorial/dmri/dmri.nii.gz",
        "sub-01/dwi/sub-01_dwi.bval": cord / "tutorial/dmri/bvals.txt",
        "sub-01/dwi/sub-01_dwi.bvec": cord / "tutorial/dmri/bvecs.txt",
        "derivatives/labels/sub-01/dwi/sub-01_dwi_label-discs_dlabel.nii.gz": (
            cord / "sct-reference/dmri_tutorial/label_c3c4.nii.gz"
        ),
        "sub-02/dwi/sub-02_dwi.nii.gz": cord / "testing/dmri/dmri.nii.gz",
        "sub-02/dwi/sub-02_dwi.bval": cord / "sct-reference/dmri_testing/bvals.txt",
        "sub-02/dwi/sub-02_dwi.bvec": cord / "sct-reference/dmri_testing/bvecs.txt",
    }
    for name, source in links.items():
        (bids / name).parent.mkdir(parents=True, exist_ok=True)
        (bids / name).symlink_to(source)
    return bids


@pytest.mark.data
def test_lateral_corticospinal_anisotropy_is_that_of_sct(
    real: Path, shared_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """From the raw series: own mask, own motion correction, own tensor, own levels, own warp of the atlas."""
    template = shared_data / "cord/PAM50"
    cache = getattr(request.config, "cache", None)
    work = Path(cache.mkdir("cordqa-atlas")) if cache else tmp_path / "work"
    settings = CordSettings(template=template, levels=("C3",))
    job = CordJob(
        index=index_dataset(real), subject="01", session="", out=tmp_path / "out", settings=settings,
        work=tmp_path / "work", atlas=prepare_atlas(template, work), marks={},
    )  # fmt: skip
    result = analyse_unit(job)
    with (shared_data / "cord/sct-reference/dmri_tutorial/fa_tracts.csv").open() as stream:
        table = list(csv.DictReader(stream))
    for side in ("left", "right"):
        name = f"WM {side} lateral corticospinal tract"
        theirs = np.mean([float(line["MAP()"]) for line in table if line["Label"] == name])
        ours = row(result, "FA", name)
        assert ours.value == pytest.approx(theirs, abs=0.03)
        assert any("an eigenvalue is negative" in flag for flag in ours.flags)
    with (shared_data / "cord/sct-reference/dmri_tutorial/fa_in_wm.csv").open() as stream:
        white = {f"C{line['VertLevel']}": float(line["MAP()"]) for line in csv.DictReader(stream)}
    assert row(result, "FA", "WM", "C3").value == pytest.approx(white["C3"], abs=0.03)


@pytest.mark.data
def test_an_unphysical_scan_is_flagged_and_gives_no_value(real: Path, tmp_path: Path) -> None:
    result = analyse(real, tmp_path, subject="02")
    values = [r for r in result.measurements if r.quantity in ("FA", "MD", "AD", "RD")]
    assert values and all(np.isnan(r.value) for r in values)
    found = row(result, "FA")
    assert "tensors that no tissue has: not used" in found.flags[0]
    assert any("exactly determined" in flag for flag in found.flags)
    assert any(n.code == "diffusion.unphysical" for n in result.notices)
