"""Susceptibility of the cord from a BIDS dataset: simulated truth, the user's masks, bad input, retest."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers_cord_echoes import TIMES, put_echoes, put_label, small_scan, tilted_affine
from helpers_cord_run import analyse, reasons, row, rows

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.extraction import extract_regions
from cordqa.io.bids_index import index_dataset
from cordqa.io.results import write_result
from cordqa.io.volumes import read_volume
from cordqa.models.susceptibility.geometry import b0_from_affine
from cordqa.records import Entities, Measurement, Result, Severity, State, Status
from cordqa.simulate.susceptibility import SusceptibilityScan, simulate_cord
from cordqa.workflow import cord_susceptibility
from cordqa.workflow.cord import plan_cord
from cordqa.workflow.cord_group import run_cord_group
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_susceptibility_rows import EXPERIMENTAL, susceptibility_rows

WHITE, GREY = 8, 7


# -- simulated scan ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan() -> SusceptibilityScan:
    return simulate_cord(seed=1, shape=(64, 64, 24), voxel_size_mm=(0.8, 0.8, 2.0))


@pytest.fixture(scope="module")
def bids(scan: SusceptibilityScan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("echoes") / "bids"
    affine = tilted_affine(scan.voxel_size_mm, scan.scanner.b0_direction)
    assert b0_from_affine(affine) == pytest.approx(
        np.array(scan.scanner.b0_direction) / np.linalg.norm(scan.scanner.b0_direction), abs=1e-6
    )
    parts = {"mag": scan.magnitude, "phase": scan.phase}
    put_echoes(folder, parts, affine, scan.scanner.echo_times_s)
    discs = np.zeros(scan.mask.shape)
    discs[32, 32, 20], discs[32, 32, 12], discs[32, 32, 4] = 3, 4, 5
    put_label(folder, "MEGRE_label-discs_dlabel", discs, affine)
    return folder


@pytest.fixture(scope="module")
def seen(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, AtlasImage]:
    """The result, its folder, and the atlas as it was laid into the cord."""
    out = tmp_path_factory.mktemp("echoes-out")
    with mock.patch.object(cord_susceptibility, "susceptibility_rows", wraps=susceptibility_rows) as spy:
        result = analyse(bids, out)
    return result, out, next(one for one in spy.call_args.args if isinstance(one, AtlasImage))


@pytest.fixture(scope="module")
def visit(seen: tuple[Result, Path, AtlasImage]) -> tuple[Result, Path]:
    return seen[:2]


def test_the_sign_and_size_of_the_contrast_are_recovered(
    seen: tuple[Result, Path, AtlasImage], scan: SusceptibilityScan
) -> None:
    result, out, atlas = seen
    stored = read_volume(out / "sub-01/anat/sub-01_Chimap.nii.gz")
    chi = np.asarray(stored.data)
    truth, found = (
        np.nanmean(where[scan.label == GREY]) - np.nanmean(where[scan.label == WHITE])
        for where in (scan.chi_ppm, chi)
    )
    assert 0.85 < found / truth < 1.1
    # The atlas's horns are not those of the phantom, and hold its veins and lesions: what the same
    # extraction makes of the true map is the truth of a row.
    exact = {
        one.region: one.value
        for one in extract_regions(
            replace(stored, data=scan.chi_ppm),
            atlas,
            quantity="susceptibility",
            regions=["GM", "WM"],
            surround=True,
        )
    }
    one = row(result, "susceptibility", "GM-WM")
    assert 0.85 < one.value / (exact["GM"] - exact["WM"]) < 1.1
    assert 0 < one.standard_uncertainty < 0.2 * truth
    said = next(flag for flag in one.flags if "the inversion passes on about" in flag)
    assert 80 <= int(said.split(" % of this contrast")[0].rsplit(" ", 1)[1]) <= 115
    grey, white = (row(result, "susceptibility", region).value for region in ("GM", "WM"))
    assert one.value == pytest.approx(grey - white, abs=1e-12)
    # Relative to the mean of the voxels with a value, as the rows say.
    valid = read_volume(out / "sub-01/anat/sub-01_desc-MEGREValid_mask.nii.gz").data > 0
    zero = scan.chi_ppm[valid].mean()
    assert white < 0 < grey and scan.chi_ppm[scan.label == WHITE].mean() < zero
    assert "zero: mean of all voxels with a value" in one.method
    # What the map holds, the region must give.
    assert white == pytest.approx(np.nanmean(chi[scan.label == WHITE]), abs=0.001)
    assert np.nanmean(chi) == pytest.approx(0.0, abs=1e-6)
    assert np.array_equal(np.isfinite(chi), valid)


def test_r2star_is_that_of_the_tissue(visit: tuple[Result, Path], scan: SusceptibilityScan) -> None:
    result, _ = visit
    # White matter of the phantom: R2 16 1/s and R2' of its susceptibility.
    prime = scan.r2_prime_per_s[scan.label == WHITE].mean()
    assert row(result, "R2star", "WM").value == pytest.approx(16 + prime, rel=0.12)


def test_every_value_has_level_error_reference_and_the_experimental_flag(
    visit: tuple[Result, Path],
) -> None:
    result, _ = visit
    for quantity, how in (
        ("susceptibility", "realisations of the noise"),
        ("R2star", "standard errors of the voxels"),
        ("local_field", "standard errors of the voxels"),
    ):
        found = [one for one in result.measurements if one.quantity == quantity]
        assert {"C3", "C4", "all slices"} <= {one.level for one in found}
        assert {"cord", "WM", "GM", "DC", "LF", "VF"} <= {one.region for one in found}
        for one in found:
            assert EXPERIMENTAL in one.flags
            assert "approximate: analytical atlas" in one.flags
            assert one.entities.acquisition == "MEGRE"
            assert one.unit == ("1/s" if quantity == "R2star" else "ppm")
            if math.isfinite(one.value):
                assert how in one.uncertainty_method and one.standard_uncertainty > 0
    # Fewer voxels, larger error.
    level, whole = row(result, "R2star", level="C3"), row(result, "R2star")
    assert level.standard_uncertainty > whole.standard_uncertainty
    assert {one.entities.acquisition for one in rows(result, "CSA", "cord")} == {"MEGRE"}


def test_maps_masks_and_the_reporting_table_are_left(visit: tuple[Result, Path]) -> None:
    result, out = visit
    folder = out / "sub-01/anat"
    for suffix, unit in (
        ("Chimap", "ppm"),
        ("R2starmap", "1/s"),
        ("localField", "ppm"),
        ("totalField", "ppm"),
    ):
        about = json.loads((folder / f"sub-01_{suffix}.json").read_text())
        assert about["Units"] == unit and about["Experimental"] == EXPERIMENTAL
        assert len(about["Sources"]) == 2 * len(TIMES)
        assert "Fitted in the cord mask, widened to the canal" in about["Method"]
    assert (folder / "sub-01_desc-SE_Chimap.nii.gz").is_file()
    fit, valid, outline = (
        read_volume(folder / f"sub-01_desc-MEGRE{label}_mask.nii.gz").data > 0
        for label in ("Fit", "Valid", "Registration")
    )
    assert (valid <= fit).all() and (fit <= outline).all()
    assert valid.sum() > 0.95 * outline.sum()
    table = json.loads((folder / "sub-01_consensus.json").read_text())
    assert [point["number"] for point in table["points"]] == list(range(1, 9))
    assert table["experimental"] == EXPERIMENTAL
    assert table["reporting"]["algorithms"]["mask"] == "widened"
    text = next(words for words in result.methods if words.startswith("Susceptibility (MEGRE; experimental"))
    assert "realisations of the noise" in text and "total variation" in text
    assert any("10.1002/mrm.30006" in line for line in result.references)
    figure = next(one for one in result.figures if one.title == "MEGRE")
    assert [picture["label"] for picture in figure.data["pictures"]] == [
        "magnitude", "susceptibility", "local field", "R2*",
    ]  # fmt: skip
    notes = [notice.message for notice in result.notices]
    assert any("sign of the phase cannot be seen" in text for text in notes)
    assert any(text.startswith("misfit of the phase by echo") for text in notes)


def test_a_plan_names_the_echoes(bids: Path) -> None:
    (outcome,) = plan_cord(bids, CordSettings()).outcomes
    assert "would analyse MEGRE (mag, phase)" in outcome.reason


def test_shared_scan_reaches_the_simulated_contrast(shared_data: Path, tmp_path: Path) -> None:
    """The scan of known truth, arranged as a dataset, on built-in segmentation and widened mask."""
    folder = shared_data / "qsm/cord"
    settings = json.loads((folder / "params.json").read_text())
    magnitude, phase = (read_volume(folder / f"{name}.nii.gz").data for name in ("magnitude", "phase"))
    affine = tilted_affine(settings["voxel_size"], settings["B0_dir"])
    put_echoes(tmp_path / "bids", {"mag": magnitude, "phase": phase}, affine, settings["TE"])
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert reasons(result, State.FAILED) == {}
    label, chi = (read_volume(folder / f"{name}.nii.gz").data for name in ("gt_labels", "gt_chi"))
    truth = chi[label == 6].mean() - chi[label == 5].mean()
    assert 0.7 < row(result, "susceptibility", "GM-WM").value / truth < 1.05


# -- the user's masks, breathing ---------------------------------------------------------------------


def test_the_users_masks_win_and_a_slice_that_steps_is_flagged(tmp_path: Path) -> None:
    parts, cord = small_scan((24, 24, 14))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    # Breathing: 15 Hz in one slice.
    turned = np.exp(1j * (parts["phase"][:, :, 7] + 2 * np.pi * 15 * np.array(TIMES)))
    parts["phase"][:, :, 7] = np.angle(turned)
    put_echoes(tmp_path / "bids", parts, affine)
    put_label(tmp_path / "bids", "MEGRE_label-SC_seg", cord, affine)
    canal = np.zeros(cord.shape)
    canal[4:20, 4:20] = 1
    put_label(tmp_path / "bids", "MEGRE_label-canal_seg", canal, affine)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert reasons(result, State.FAILED) == {}
    outline = read_volume(tmp_path / "out/sub-01/anat/sub-01_desc-MEGRERegistration_mask.nii.gz").data
    assert np.array_equal(outline > 0, (canal > 0) | cord)
    one = row(result, "susceptibility")
    assert one.engine.endswith("mask of the user")
    assert "fitted in the canal mask of the user" in one.flags
    assert any("slices: echoes or field do not fit (breathing, flow)" in flag for flag in one.flags)
    assert any("field steps away" in n.message and n.severity is Severity.WARNING for n in result.notices)
    verdict = next(v for v in result.verdicts if v.subject == "cord of MEGRE")
    assert "slice 7" in verdict.reason
    assert any("14 slices" in n.message for n in result.notices)


# -- bad input: it costs this image, and says why ----------------------------------------------------


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("milliseconds", "cannot be in seconds; are they milliseconds?"),
        ("one slice", "so few slices: a dipole field is three-dimensional"),
        ("hertz", "the same image in all echoes: a field map"),
        ("no field strength", "does not tell the field strength"),
        ("no echo time", "does not tell the echo time"),
        ("other echoes", "do not have the same echoes"),
        ("other grid", "are not on one grid"),
        ("empty canal", "the canal mask is empty"),
        ("full canal", "holds every voxel of the image, so it is no canal"),
        ("megahertz", "the field strength cannot be in T"),
        ("backwards", "the magnitude grows with echo time"),
    ],
)
def test_bad_phase_fails_alone_and_the_shape_of_the_cord_stays(tmp_path: Path, case: str, said: str) -> None:
    parts, cord = small_scan((24, 24, 1) if case == "one slice" else (24, 24, 8))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    times = [1000 * time for time in TIMES] if case == "milliseconds" else TIMES
    if case == "hertz":
        parts["phase"] = np.broadcast_to(
            40 * np.linspace(-1, 1, 24)[:, None, None, None], parts["phase"].shape
        )
    if case == "backwards":
        parts = {part: data[..., ::-1] for part, data in parts.items()}
    extra = {
        "no field strength": {"MagneticFieldStrength": None},
        "no echo time": {"EchoTime": "n/a"},
        "megahertz": {"MagneticFieldStrength": 123.2},
    }
    bids = tmp_path / "bids"
    folder = put_echoes(bids, parts, affine, times, sidecar=extra.get(case))
    put_label(bids, "MEGRE_label-SC_seg", cord, affine)
    if case == "other echoes":
        (folder / "sub-01_echo-5_part-phase_MEGRE.nii.gz").unlink()
    if case == "other grid":
        put_echoes(bids, {"phase": parts["phase"][:20]}, affine)
    if case in ("empty canal", "full canal"):
        put_label(bids, "MEGRE_label-canal_seg", np.full(cord.shape, case == "full canal"), affine)
    result = analyse(bids, tmp_path / "out")
    failed = reasons(result, State.FAILED)
    assert list(failed) == ["sub-01 MEGRE: susceptibility"]
    assert said in failed["sub-01 MEGRE: susceptibility"]
    assert not [one for one in result.measurements if one.quantity in ("susceptibility", "local_field")]
    assert [one for one in result.measurements if one.quantity == "CSA" and math.isfinite(one.value)]
    assert not list((tmp_path / "out").rglob("*Chimap*"))


def test_without_phase_the_cord_and_r2star_are_measured_and_the_phase_asked_for(tmp_path: Path) -> None:
    parts, cord = small_scan((24, 24, 8))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    put_echoes(tmp_path / "bids", {"mag": parts["mag"]}, affine, sidecar={"MagneticFieldStrength": None})
    put_label(tmp_path / "bids", "MEGRE_label-SC_seg", cord, affine)
    result = analyse(tmp_path / "bids", tmp_path / "out", method="weighted mean")
    skipped = reasons(result, State.SKIPPED)
    assert "there is no phase beside the magnitude" in skipped["sub-01 MEGRE: susceptibility"]
    assert reasons(result, State.FAILED) == {}
    one = row(result, "R2star")
    assert one.value == pytest.approx(25, rel=0.01) and one.standard_uncertainty > 0
    assert "fitted in the cord mask and what lies around it" in one.flags
    assert not rows(result, "susceptibility")
    text = next(words for words in result.methods if words.startswith("R2* (MEGRE;"))
    assert "There was no phase" in text and "consensus" not in text
    written = {path.name for path in (tmp_path / "out/sub-01/anat").iterdir()}
    assert {"sub-01_R2starmap.nii.gz", "sub-01_desc-SE_R2starmap.nii.gz"} <= written
    assert not [name for name in written if "consensus" in name or "Chimap" in name]
    rate = read_volume(tmp_path / "out/sub-01/anat/sub-01_R2starmap.nii.gz").data
    assert np.isfinite(rate[cord]).all() and not np.isfinite(rate[0, 0]).any()


def test_magnitudes_in_the_wrong_order_have_no_r2star(tmp_path: Path) -> None:
    parts, cord = small_scan((24, 24, 8))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    put_echoes(tmp_path / "bids", {"mag": parts["mag"][..., ::-1]}, affine)
    put_label(tmp_path / "bids", "MEGRE_label-SC_seg", cord, affine)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert "grows with echo time" in reasons(result, State.FAILED)["sub-01 MEGRE: R2star"]
    assert [one for one in result.measurements if one.quantity == "CSA" and math.isfinite(one.value)]


def test_the_sign_and_the_range_of_the_phase_can_be_told(tmp_path: Path) -> None:
    parts, cord = small_scan((24, 24, 8))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    maps = {}
    for name, sign in (("right", 1), ("turned", -1)):
        bids = tmp_path / name
        # Stored on a scale that nothing tells: a field of view without air, whose phase fills no turn.
        shown = {"mag": parts["mag"] + 500, "phase": sign * 100 * parts["phase"] * (parts["mag"] > 200)}
        put_echoes(bids, shown, affine, sidecar={"MRAcquisitionType": "3D"})
        put_label(bids, "MEGRE_label-SC_seg", cord, affine)
        half = 100 * math.pi
        told = {"phase_sign": "positive" if sign > 0 else "negative", "phase_range": (-half, half)}
        result = analyse(bids, tmp_path / f"{name}-out", **told)
        assert reasons(result, State.FAILED) == {}
        assert not [n for n in result.notices if "sign of the phase" in n.message]
        folder = tmp_path / f"{name}-out/sub-01/anat"
        maps[name] = read_volume(folder / "sub-01_Chimap.nii.gz").data
        table = json.loads((folder / "sub-01_consensus.json").read_text())
        assert table["points"][0]["met"] is True
    np.testing.assert_allclose(maps["right"], maps["turned"], atol=1e-5)


def test_phase_alone_is_named(tmp_path: Path) -> None:
    parts, _ = small_scan((24, 24, 8))
    put_echoes(tmp_path / "bids", {"phase": parts["phase"]}, np.diag([1.0, 1.0, 2.0, 1.0]))
    failed = reasons(analyse(tmp_path / "bids", tmp_path / "out"), State.FAILED)
    assert "there is no magnitude of these echoes" in failed["sub-01 MEGRE: cord"]


# -- the study ---------------------------------------------------------------------------------------


def put_results(
    out: Path,
    people: int,
    sessions: tuple[str, ...],
    runs: tuple[str, ...] = ("",),
    levels: tuple[str, ...] = ("C3", "C4"),
) -> None:
    rng = np.random.default_rng(0)
    for person in range(people):
        truth = rng.normal(0.03, 0.01)
        for session in sessions:
            values = [
                Measurement(
                    quantity="susceptibility",
                    value=offset + truth + rng.normal(0, 0.004),
                    unit="ppm",
                    region=region,
                    level=level,
                    method="MAP",
                    engine="builtin",
                    entities=Entities(subject=f"{person:02d}", session=session, run=run, acquisition="MEGRE"),
                    flags=(EXPERIMENTAL,),
                )
                for run in runs
                for level in levels
                for region, offset in (("WM", -0.02), ("GM", 0.0), ("GM-WM", 0.02))
            ]
            folder = out / f"sub-{person:02d}" / (f"ses-{session}" if session else "")
            write_result(
                Result(kind="cord", title="x", status=Status.PASS, measurements=tuple(values)), folder
            )


@pytest.mark.parametrize("levels", [("C3", "C4"), ("C3",), ("all slices",)])
def test_the_study_gives_the_repeatability_in_ppm_and_never_a_cv(
    tmp_path: Path, levels: tuple[str, ...]
) -> None:
    put_results(tmp_path, 12, ("1", "2"), levels=levels)
    result = run_cord_group(tmp_path)
    own = [one for one in result.statistics if one.quantity == "susceptibility"]
    coefficient = {one.region: one for one in own if one.name == "RC"}
    assert len(coefficient) == 3 * len(levels)
    for one in coefficient.values():
        assert one.unit == "ppm" and one.value == pytest.approx(2.77 * 0.004, rel=0.5)
    assert not [one for one in own if "CV" in one.name.upper() and math.isfinite(one.value)]
    text = next(words for words in result.methods if words.startswith("Susceptibility, test-retest"))
    assert "GM-WM: RC 0.0" in text and "12 people in two sessions" in text
    for one in result.measurements:
        assert EXPERIMENTAL not in one.flags
        assert any(flag.startswith("own test-retest: RC") for flag in one.flags)


@pytest.mark.parametrize(
    ("people", "sessions", "runs", "said"),
    [
        (3, ("1", "2"), ("",), "3 people were scanned in two sessions, and 10 are needed"),
        (11, ("1",), ("1", "2"), "runs of one session, which do not hold the positioning"),
        (2, ("",), ("",), "nobody was scanned in two sessions"),
    ],
)
def test_a_study_without_retest_is_offered_exactly_that_test(
    tmp_path: Path, people: int, sessions: tuple[str, ...], runs: tuple[str, ...], said: str
) -> None:
    put_results(tmp_path, people, sessions, runs)
    result = run_cord_group(tmp_path)
    notice = next(one for one in result.notices if one.code == "susceptibility.test-retest")
    assert notice.severity is Severity.WARNING and said in notice.message
    assert "scan at least 10 people twice" in notice.message
    assert all(EXPERIMENTAL in one.flags for one in result.measurements)


def test_a_study_without_gradient_echoes_is_told_nothing(tmp_path: Path) -> None:
    put_results(tmp_path, 2, ("1",))
    for path in tmp_path.rglob("result.json"):
        path.write_text(path.read_text().replace('"susceptibility"', '"MTR"').replace('"ppm"', '"%"'))
    assert not [n for n in run_cord_group(tmp_path).notices if n.code.startswith("susceptibility")]


def test_index_is_used_as_it_is(bids: Path) -> None:
    assert len([file for file in index_dataset(bids).files if file.suffix == "MEGRE"]) >= 2 * len(TIMES)
