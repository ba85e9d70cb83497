"""The main job on simulated scans whose truth is known, and on bad input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cordqa.errors import ConfigError, CordqaError, EmptyInputError, InputError
from cordqa.io.results import read_result
from cordqa.phantom.measure import OUTSIDE
from cordqa.records import Result, State, Status
from cordqa.workflow.demo import run_demo
from cordqa.workflow.phantom import PhantomSettings, run_phantom


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A three-vendor study with two sessions each, analysed once."""
    out = tmp_path_factory.mktemp("study")
    return out, run_demo(out, n_repeats=2)


@pytest.fixture
def one_series(study: tuple[Path, Result], tmp_path: Path) -> Path:
    """One inversion-recovery acquisition of the first scanner in a folder of its own."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for path in _inversion_recovery(study[0] / "scans"):
        shutil.copy(path, folder)
    return folder


def _inversion_recovery(scans: Path) -> list[Path]:
    session = sorted(path for path in scans.glob("SIM-A/*") if path.is_dir())[0]
    return [
        path
        for path in sorted(session.iterdir())
        if "InversionTime" in pydicom.dcmread(path, stop_before_pixels=True)
    ]


def _edit(folder: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    for path in folder.iterdir():
        if path.suffix not in {".yaml", ".json"}:
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)


def _errors_percent(result: Result) -> np.ndarray:
    return np.array([100 * (m.value / m.reference - 1) for m in result.measurements])


def test_study_finds_every_plate_and_labels_every_sphere(study: tuple[Path, Result]) -> None:
    out, result = study
    truth = json.loads((out / "truth.json").read_text())["spheres"]
    assert result.count(State.DONE) == 12
    assert result.count(State.FAILED) == 0
    inside = [m for m in result.measurements if not any(f.startswith(OUTSIDE) for f in m.flags)]
    assert len(inside) > 0.85 * len(result.measurements)
    # A wrong label would show as an error of tens of percent.
    errors = [abs(m.value / m.reference - 1) for m in inside]
    assert max(errors) < 0.20
    assert truth, "the truth is kept beside the scans"


def test_study_shows_the_planted_bias(study: tuple[Path, Result]) -> None:
    slopes = {s.group: s.value for s in study[1].statistics if s.name == "slope" and s.quantity == "T1"}
    biased = next(value for name, value in slopes.items() if name.startswith("GE"))
    others = [value for name, value in slopes.items() if not name.startswith("GE")]
    assert biased == pytest.approx(1.08, abs=0.01)
    assert others == pytest.approx([1.0, 1.0], abs=0.01)


def test_study_has_repeats_between_scanners_and_icc(study: tuple[Path, Result]) -> None:
    names = {s.name for s in study[1].statistics}
    assert {"slope", "intercept", "R2", "CCC", "within-scanner CV", "between-scanner CV"} <= names
    assert any(name.startswith("ICC") for name in names)
    for statistic in study[1].statistics:
        assert statistic.estimator and statistic.n
        if "CV" in statistic.name:
            assert statistic.low <= statistic.value <= statistic.high


def test_no_value_that_the_protocol_cannot_know_is_judged(study: tuple[Path, Result]) -> None:
    verdicts = [v for v in study[1].verdicts if v.scope == "sphere"]
    for row, verdict in zip(study[1].measurements, verdicts, strict=True):
        if any(flag.startswith(OUTSIDE) for flag in row.flags):
            assert verdict.status is Status.NOT_EVALUATED


def test_clipping_and_differing_scales_are_said(study: tuple[Path, Result]) -> None:
    text = " ".join(n.message for n in study[1].notices)
    assert "clipped" in text
    assert "scale differs between the images" in text


def test_files_on_disk_say_the_same(study: tuple[Path, Result]) -> None:
    out, result = study
    again = read_result(out)
    assert [m.value for m in again.measurements if math.isfinite(m.value)] == [
        m.value for m in result.measurements if math.isfinite(m.value)
    ]
    assert again.status == result.status
    assert not list(out.rglob("*.part"))


def test_names_and_order_of_files_do_not_matter(one_series: Path, tmp_path: Path) -> None:
    first = run_phantom(one_series, tmp_path / "a")
    moved = tmp_path / "moved" / "deep" / "er"
    moved.mkdir(parents=True)
    for number, path in enumerate(sorted(one_series.iterdir(), reverse=True)):
        shutil.copy(path, moved / f"x{number}")
    second = run_phantom(tmp_path / "moved", tmp_path / "b")
    assert [m.value for m in first.measurements] == pytest.approx([m.value for m in second.measurements])


def test_no_patient_data_reaches_the_output(one_series: Path, tmp_path: Path) -> None:
    def name(dataset: pydicom.Dataset) -> None:
        dataset.PatientName = "Secret^Person"
        dataset.PatientID = "ID-4711-SECRET"
        dataset.PatientBirthDate = "19610203"
        dataset.PatientComments = "secret remark"
        dataset.ImageComments = "secret remark"
        dataset.InstitutionName = "Secret Hospital"

    _edit(one_series, name)
    run_phantom(one_series, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8").lower()
            assert "secret" not in text
            assert "4711" not in text
            assert "19610203" not in text


def test_temperature_and_serial_change_the_reference_not_the_value(one_series: Path, tmp_path: Path) -> None:
    cold = run_phantom(
        one_series, tmp_path / "a", settings=PhantomSettings(serial="130-0150", temperature_C=17.0)
    )
    warm = run_phantom(
        one_series, tmp_path / "b", settings=PhantomSettings(serial="130-0150", temperature_C=23.0)
    )
    assert [m.value for m in cold.measurements] == [m.value for m in warm.measurements]
    assert cold.measurements[0].reference < warm.measurements[0].reference


def test_temperature_beyond_the_certificate_is_measured_but_not_judged(
    one_series: Path, tmp_path: Path
) -> None:
    settings = PhantomSettings(serial="130-0150", temperature_C=45.0)
    result = run_phantom(one_series, tmp_path / "out", settings=settings)
    assert len(result.measurements) == 14
    assert all(math.isnan(m.reference) for m in result.measurements)
    assert result.status is Status.NOT_EVALUATED
    assert any(n.code == "reference.missing" for n in result.notices)


def test_missing_temperature_and_serial_are_said(one_series: Path, tmp_path: Path) -> None:
    result = run_phantom(one_series, tmp_path / "out")
    codes = {n.code for n in result.notices}
    assert {"reference.batch-assumed", "reference.temperature-assumed"} <= codes


def test_wrong_batch_is_noticed(study: tuple[Path, Result], tmp_path: Path) -> None:
    """The T2 plate of batch 2.5 differs from batch 2 in two spheres only; batch 1 at 3 T differs in many."""
    result = run_phantom(
        study[0] / "scans" / "SIM-A",
        tmp_path / "out",
        settings=PhantomSettings(serial="130-0001", temperature_C=20.0),
    )
    assert any(n.code == "reference.batch-doubt" for n in result.notices)


def test_wrong_plate_is_refused(one_series: Path, tmp_path: Path) -> None:
    result = run_phantom(one_series, tmp_path / "out", settings=PhantomSettings(plate="4"))
    assert result.status is not Status.PASS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PhantomSettings(serial="abc"), "is not a serial number"),
        (PhantomSettings(serial="999-0042"), "another model"),
        (PhantomSettings(plate="9"), "has no plate"),
        (PhantomSettings(phantom="caliber-sistem"), "did you mean"),
        (PhantomSettings(t2_model="cubic"), "exponential or epg"),
        (PhantomSettings(batch="7"), "no batch"),
        (PhantomSettings(temperature_C=293.0), "out of range"),
        (PhantomSettings(temperature_C=math.nan), "out of range"),
        (PhantomSettings(field_strength_T=0.0), "out of range"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(
    settings: PhantomSettings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run_phantom(tmp_path / "does-not-exist", tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(EmptyInputError):
        run_phantom(tmp_path / "scans", tmp_path / "out")


def test_folder_of_something_else(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear colleague")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(EmptyInputError):
        run_phantom(folder, tmp_path / "out")


def test_one_damaged_file_costs_only_itself(one_series: Path, tmp_path: Path) -> None:
    victim = sorted(one_series.iterdir())[-1]
    victim.write_bytes(victim.read_bytes()[:2000])
    result = run_phantom(one_series, tmp_path / "out")
    assert result.count(State.FAILED) == 1
    assert result.count(State.DONE) == 1
    assert len(result.measurements) == 14


def test_one_inversion_time_is_named(one_series: Path, tmp_path: Path) -> None:
    for path in sorted(one_series.iterdir())[1:]:
        path.unlink()
    result = run_phantom(one_series, tmp_path / "out")
    assert result.status is Status.NOT_EVALUATED
    assert any("neither inversion time" in o.reason for o in result.outcomes)


def test_two_inversion_times_are_too_few(one_series: Path, tmp_path: Path) -> None:
    for path in sorted(one_series.iterdir())[2:]:
        path.unlink()
    result = run_phantom(one_series, tmp_path / "out")
    assert any("too few inversion times" in o.reason for o in result.outcomes)


def test_missing_field_strength_is_named_and_can_be_given(one_series: Path, tmp_path: Path) -> None:
    def forget(dataset: pydicom.Dataset) -> None:
        del dataset.MagneticFieldStrength
        if "ImagingFrequency" in dataset:
            del dataset.ImagingFrequency

    _edit(one_series, forget)
    result = run_phantom(one_series, tmp_path / "a")
    assert any("field strength" in o.reason for o in result.outcomes)
    told = run_phantom(one_series, tmp_path / "b", settings=PhantomSettings(field_strength_T=3.0))
    assert len(told.measurements) == 14


def test_zero_images_are_refused(one_series: Path, tmp_path: Path) -> None:
    def blank(dataset: pydicom.Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    _edit(one_series, blank)
    result = run_phantom(one_series, tmp_path / "out")
    assert not result.measurements
    assert result.count(State.DONE) == 0


def test_saturated_images_give_no_pass(one_series: Path, tmp_path: Path) -> None:
    def saturate(dataset: pydicom.Dataset) -> None:
        pixels = np.full((dataset.Rows, dataset.Columns), 2**dataset.BitsStored - 1, dtype=np.uint16)
        dataset.PixelData = pixels.tobytes()

    _edit(one_series, saturate)
    result = run_phantom(one_series, tmp_path / "out")
    assert result.status in (Status.NOT_EVALUATED, Status.FAIL)
    assert not result.measurements


def test_noise_is_not_taken_for_a_plate(one_series: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def noise(dataset: pydicom.Dataset) -> None:
        pixels = np.abs(rng.normal(100, 30, (dataset.Rows, dataset.Columns))).astype(np.uint16)
        dataset.PixelData = pixels.tobytes()

    _edit(one_series, noise)
    result = run_phantom(one_series, tmp_path / "out")
    assert not result.measurements
    assert any(f.name.startswith("refused") for f in result.figures)


def test_shuffled_times_are_not_accepted_as_good(one_series: Path, tmp_path: Path) -> None:
    """Images that belong to other inversion times than their headers say fit no curve."""
    times: list[float] = []

    def collect(dataset: pydicom.Dataset) -> None:
        times.append(float(dataset.InversionTime))

    _edit(one_series, collect)
    rotated = iter(times[3:] + times[:3])

    def shuffle(dataset: pydicom.Dataset) -> None:
        dataset.InversionTime = next(rotated)

    _edit(one_series, shuffle)
    result = run_phantom(one_series, tmp_path / "out")
    assert result.status is not Status.PASS


def test_mixed_field_strengths_are_kept_apart(study: tuple[Path, Result], tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for number, field in enumerate((1.5, 3.0)):
        part = folder / str(number)
        part.mkdir(parents=True)
        for path in _inversion_recovery(study[0] / "scans"):
            dataset = pydicom.dcmread(path)
            dataset.MagneticFieldStrength = field
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID[:60]}.{number + 1}{len(list(part.iterdir()))}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(part / path.name)
    result = run_phantom(
        folder, tmp_path / "out", settings=PhantomSettings(serial="130-0150", temperature_C=20.0)
    )
    assert {m.entities.field_strength_T for m in result.measurements} == {1.5, 3.0}
    assert not any(s.name == "between-scanner CV" for s in result.statistics)


def test_output_that_cannot_be_written_is_said_first(one_series: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CordqaError, match="is a file, not a folder"):
        run_phantom(one_series, tmp_path / "file")


def test_b1_map_of_another_quantity_is_refused(one_series: Path, tmp_path: Path) -> None:
    import nibabel as nib

    path = tmp_path / "b1.nii.gz"
    nib.save(nib.Nifti1Image(np.full((8, 8, 8), 1500.0, dtype=np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match="no relative transmit field"):
        run_phantom(one_series, tmp_path / "out", settings=PhantomSettings(b1_map=path))


def test_config_error_is_an_input_error() -> None:
    assert issubclass(ConfigError, InputError)
