"""Folders that look right and are not: copies, gaps, contradictions, and files that could get lost."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from cordqa.cli._run import run as main
from cordqa.errors import InputError
from cordqa.io.dicom_write import write_dicom
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.records import Part, Result, Severity, State, Status
from cordqa.simulate.acquire import acquire
from cordqa.simulate.geometry import SliceGeometry
from cordqa.simulate.scanner import SimulatedScanner
from cordqa.simulate.sequences import InversionRecovery, PulseSequence, VariableFlipAngle
from cordqa.simulate.system_phantom import DigitalPlate, DigitalSphere
from cordqa.workflow.phantom import PhantomSettings, run_phantom

SETTINGS = PhantomSettings(serial="130-0150", temperature_C=20.0)
RECOVERY = InversionRecovery(
    inversion_times_s=(0.035, 0.075, 0.15, 0.3, 0.6, 1.2, 2.4, 4.0),
    repetition_times_s=(6.0,) * 8,
    echo_time_s=0.012,
)
ANGLES = VariableFlipAngle(flip_angles_deg=(2.0, 4.0, 8.0, 12.0, 18.0, 25.0), repetition_time_s=0.015)
Change = Callable[[pydicom.Dataset, int], None]


def _plate() -> DigitalPlate:
    """Plate 5 as certified for this serial number at 3 T and 20 C."""
    definition = load_phantom("caliber-system")
    times = {
        quantity: reference_values(
            definition, "5", quantity, field_strength_T=3.0, temperature_C=20.0, serial="130-0150"
        )
        for quantity in ("T1", "T2")
    }
    return DigitalPlate(
        plate="5",
        spheres=tuple(
            DigitalSphere(
                label=label,
                position_mm=(x, y, z),
                t1_s=t1.value / 1000,
                t2_s=t2.value / 1000,
            )
            for (label, x, y, z), t1, t2 in zip(
                definition.plate("5").spheres, times["T1"], times["T2"], strict=True
            )
        ),
    )


def _scan(
    folder: Path,
    sequence: PulseSequence,
    *,
    parts: tuple[Part, ...] = (Part.MAGNITUDE,),
    transmit_scale: float = 1.0,
    seed: int = 7,
    centre_mm: float = -56.5,
) -> None:
    machine = SimulatedScanner(name="T", vendor="Siemens", noise_sd=0.003, transmit_scale=transmit_scale)
    geometry = SliceGeometry.coronal(centre_mm=(0.0, centre_mm, 0.0), matrix=128, rotation_deg=20.0)
    for number, part in enumerate(parts, start=1):
        rng = np.random.default_rng(seed)
        images, _, _ = acquire(_plate(), sequence, machine, rng, geometry=geometry, part=part)
        write_dicom(images, folder / str(part), series_number=10 * number)


@pytest.fixture(scope="module")
def recovery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Magnitude, real and phase images of one inversion recovery, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("recovery")
    _scan(folder, RECOVERY, parts=(Part.MAGNITUDE, Part.REAL, Part.PHASE))
    return folder


@pytest.fixture
def scans(recovery: Path, tmp_path: Path) -> Path:
    """The magnitude images alone, to be spoiled."""
    shutil.copytree(recovery / "magnitude", tmp_path / "scans")
    return tmp_path / "scans"


@pytest.fixture(scope="module")
def angles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Variable flip angles at a transmit field of 0.9."""
    folder = tmp_path_factory.mktemp("angles")
    _scan(folder, ANGLES, transmit_scale=0.9)
    return folder


def _edit(folder: Path, change: Change) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        change(dataset, number)
        dataset.save_as(path)


def _run(scans: Path, **options: object) -> Result:
    return run_phantom(scans, scans.parent / "out", settings=replace(SETTINGS, **options))  # type: ignore[arg-type]


def _accounted(result: Result) -> set[str]:
    return {source for outcome in result.outcomes for source in outcome.sources}


def _files(scans: Path) -> set[str]:
    return {path.relative_to(scans).as_posix() for path in scans.rglob("*") if path.is_file()}


def _messages(result: Result, severity: Severity | None = None) -> str:
    return "\n".join(n.message for n in result.notices if severity in (None, n.severity))


def _renamed() -> Change:
    """Give every object other identifiers, as a second export or anonymisation does."""
    names: dict[str, str] = {}

    def change(dataset: pydicom.Dataset, _number: int) -> None:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            old = str(getattr(dataset, keyword))
            setattr(dataset, keyword, names.setdefault(old, generate_uid()))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    return change


def test_a_second_export_is_no_repeat(scans: Path) -> None:
    """The same images under other identifiers would repeat with a CV of exactly zero."""
    shutil.copytree(scans, scans.parent / "again")
    _edit(scans.parent / "again", _renamed())
    shutil.move(scans.parent / "again", scans / "again")
    result = _run(scans)
    assert result.count(State.DONE) == 1
    assert len(result.measurements) == 14
    assert not [s for s in result.statistics if s.name == "within-scanner CV"]
    assert [o.code for o in result.outcomes if o.state is State.SKIPPED] == ["series.copy"]
    assert _accounted(result) == _files(scans)


def test_one_image_exported_twice_does_not_split_the_series(scans: Path) -> None:
    dataset = pydicom.dcmread(sorted(scans.iterdir())[2])
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(scans / "again.dcm")
    result = _run(scans)
    assert [len(o.sources) for o in result.outcomes if o.state is State.DONE] == [8]
    assert _accounted(result) == _files(scans)


@pytest.mark.parametrize("parts", [("magnitude", "real"), ("magnitude", "phase"), ("real", "phase")])
@pytest.mark.parametrize("vendor", ["SIEMENS", "Other"])
def test_every_file_is_accounted_for(
    parts: tuple[str, ...], vendor: str, recovery: Path, tmp_path: Path
) -> None:
    """Images that do not enter the fit are named with the reason, not forgotten."""
    scans = tmp_path / "scans"
    for part in parts:
        shutil.copytree(recovery / part, scans / part)
        # The unit of the phase of an unknown vendor is not known, so it cannot be used.
        _edit(scans / part, lambda dataset, _: setattr(dataset, "Manufacturer", vendor))
    result = _run(scans)
    assert result.count(State.DONE) == 1
    assert _accounted(result) == _files(scans)


def test_a_saturated_series_is_no_pass(scans: Path) -> None:
    def amplify(dataset: pydicom.Dataset, _number: int) -> None:
        values = np.clip(dataset.pixel_array.astype(int) * 4, 0, 4095)
        dataset.PixelData = values.astype("u2").tobytes()

    _edit(scans, amplify)
    result = _run(scans)
    assert any(notice.severity is Severity.ERROR for notice in result.notices)
    assert result.status is not Status.PASS
    assert result.status is next(v.status for v in result.verdicts if v.scope == "overall")


def test_gain_that_changes_between_images_is_said_and_no_pass(scans: Path) -> None:
    """Automatic prescan before every inversion time changes the receiver gain; no header says so."""

    def detune(dataset: pydicom.Dataset, number: int) -> None:
        values = dataset.pixel_array * (1 + 0.05 * (-1) ** number)
        dataset.PixelData = np.rint(values).astype("u2").tobytes()

    _edit(scans, detune)
    result = _run(scans)
    assert result.status not in (Status.PASS, Status.WARN)
    assert any(n.code == "fit.misfit" for n in result.notices)
    failed = [v for v in result.verdicts if v.status is Status.FAIL and v.scope != "sphere"]
    assert not failed or result.status is Status.FAIL


def test_good_images_fit(scans: Path) -> None:
    result = _run(scans)
    assert result.status in (Status.PASS, Status.WARN)
    assert not any(n.code == "fit.misfit" for n in result.notices)


def test_nothing_judged_is_no_pass_with_warnings(scans: Path) -> None:
    """Repeats agree, but no sphere has a reference at this temperature."""
    other = scans / "other"
    _scan(other, RECOVERY, seed=8)
    _edit(other / "magnitude", _renamed())
    result = _run(scans, temperature_C=45.0)
    assert [s for s in result.statistics if s.name == "within-scanner CV"]
    assert result.status is Status.NOT_EVALUATED
    assert "could be judged" in result.summary


def test_uncertain_references_blame_no_scanner(scans: Path) -> None:
    """At 1.5 T the published values are too uncertain to judge a sphere, so the line is not judged either."""

    def weaken(dataset: pydicom.Dataset, _number: int) -> None:
        dataset.MagneticFieldStrength = 1.5
        dataset.ImagingFrequency = 63.87

    _edit(scans, weaken)
    result = _run(scans, serial=None)
    assert {v.status for v in result.verdicts if v.scope == "sphere"} == {Status.NOT_EVALUATED}
    assert {v.status for v in result.verdicts if v.scope == "linearity"} == {Status.NOT_EVALUATED}
    assert result.status is Status.NOT_EVALUATED
    assert any(s.name == "slope" and np.isfinite(s.value) for s in result.statistics)


def _field(path: Path, values: np.ndarray, *, offset_mm: float = -200.0) -> Path:
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[:3, 3] = offset_mm
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def test_spheres_outside_the_transmit_map_have_no_value(angles: Path, tmp_path: Path) -> None:
    field = _field(tmp_path / "b1.nii.gz", np.full((41, 41, 41), 0.9), offset_mm=900.0)
    result = run_phantom(angles, tmp_path / "out", settings=replace(SETTINGS, b1_map=field))
    assert result.count(State.FAILED) == 1
    assert "B1 map" in next(o.reason for o in result.outcomes)


def test_holes_of_the_transmit_map_are_not_filled(angles: Path, tmp_path: Path) -> None:
    """A masked map says nothing about the spheres outside its mask."""
    values = np.full((41, 41, 41), 0.9)
    values[:20] = 0.0
    field = _field(tmp_path / "b1.nii.gz", values)
    result = run_phantom(angles, tmp_path / "out", settings=replace(SETTINGS, b1_map=field))
    missing = [m for m in result.measurements if "no B1" in m.flags]
    assert 3 < len(missing) < 10
    assert not any(np.isfinite(m.value) for m in missing)
    assert "does not cover spheres" in _messages(result, Severity.WARNING)


def test_transmit_field_that_was_used_is_said(angles: Path, tmp_path: Path) -> None:
    good = _field(tmp_path / "good.nii.gz", np.full((41, 41, 41), 90.0))
    result = run_phantom(angles, tmp_path / "out", settings=replace(SETTINGS, b1_map=good))
    assert "0.90" in next(n.message for n in result.notices if n.code == "b1.used")
    assert "read as percent" in _messages(result, Severity.WARNING)
    degrees = _field(tmp_path / "degrees.nii.gz", np.full((41, 41, 41), 54.0))
    with pytest.raises(InputError, match="no relative transmit field"):
        run_phantom(angles, tmp_path / "out", settings=replace(SETTINGS, b1_map=degrees))
    (tmp_path / "degrees.json").write_text('{"Units": "percent"}')
    result = run_phantom(angles, tmp_path / "out", settings=replace(SETTINGS, b1_map=degrees))
    assert result.status is not Status.PASS
    text = _messages(result) + " ".join(o.reason for o in result.outcomes)
    assert "0.54" in text
    assert "read as percent" not in text


def test_transmit_map_without_flip_angles_is_said(scans: Path, tmp_path: Path) -> None:
    field = _field(tmp_path / "b1.nii.gz", np.full((41, 41, 41), 0.9))
    assert "B1 map" in _messages(_run(scans, b1_map=field), Severity.WARNING)


def test_field_strength_of_the_header_goes_first(scans: Path) -> None:
    """The option is for headers that lack it; a 3 T scan is not judged by 1.5 T values."""
    plain = _run(scans)
    result = _run(scans, field_strength_T=1.5)
    assert [m.reference for m in result.measurements] == [m.reference for m in plain.measurements]
    assert "3 T" in _messages(result, Severity.WARNING)


def test_field_strength_that_was_given_reaches_the_rows(scans: Path) -> None:
    def strip(dataset: pydicom.Dataset, _number: int) -> None:
        for keyword in ("MagneticFieldStrength", "ImagingFrequency"):
            if keyword in dataset:
                delattr(dataset, keyword)

    _edit(scans, strip)
    result = _run(scans, field_strength_T=3.0)
    assert {m.entities.field_strength_T for m in result.measurements} == {3.0}
    refused = _run(scans, field_strength_T=2.0)
    assert "2 T" in next(o.reason for o in refused.outcomes)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("serial_number: 130-9x\n", {"serial": None}, "130-9x"),
        ("serial_number: 130-0042\n", {"serial": "130-0150"}, "130-0042"),
        ("serial_number: 130-0001\n", {"serial": None, "batch": "2.5"}, "130-0001"),
        ("temperature_C: 18\n", {}, "18"),
    ],
)
def test_what_the_folder_says_and_the_options_deny_is_said(
    text: str, options: dict[str, object], expected: str, scans: Path
) -> None:
    (scans / "phantom.yaml").write_text(text)
    result = _run(scans, **options)
    assert result.count(State.DONE) == 1
    assert expected in _messages(result, Severity.WARNING)


def test_empty_serial_option_leaves_that_of_the_folder(scans: Path) -> None:
    (scans / "phantom.yaml").write_text("serial_number: 130-0150\ntemperature_C: 21.5\n")
    result = _run(scans, serial="")
    assert result.provenance.config["temperature_of_folder_C"] == 21.5
    assert not any("assumed" in n.message for n in result.notices)
    assert result.provenance.config["serial_number_used"] == "130-0150"


def test_phantom_file_in_a_subfolder_is_not_overlooked(scans: Path) -> None:
    (scans / "deep").mkdir()
    (scans / "deep" / "phantom.yaml").write_text("temperature_C: 18\n")
    result = _run(scans, temperature_C=None)
    assert "deep/phantom.yaml" in "\n".join(n.where + n.message for n in result.notices)


def test_missing_inversion_times_are_the_reason(scans: Path) -> None:
    def strip(dataset: pydicom.Dataset, _number: int) -> None:
        del dataset.InversionTime

    _edit(scans, strip)
    result = _run(scans)
    assert all("inversion time is missing" in o.reason for o in result.outcomes)


def test_slice_beside_the_plate_is_not_blamed_on_another_plate(tmp_path: Path) -> None:
    _scan(tmp_path / "scans", RECOVERY, centre_mm=-49.5)
    result = _run(tmp_path / "scans")
    reason = next(o.reason for o in result.outcomes if o.state is State.FAILED)
    assert "5" in reason
    assert "plate 3, proton density" not in reason


def test_verdict_table_keeps_what_was_judged(scans: Path) -> None:
    result = _run(scans)
    with (scans.parent / "out" / "verdicts.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["subject"] for row in rows] == [v.subject for v in result.verdicts]


def test_paths_of_options_stay_out_of_the_output(angles: Path, tmp_path: Path) -> None:
    secret = tmp_path / "Secret-Person"
    secret.mkdir()
    field = _field(secret / "b1.nii.gz", np.full((41, 41, 41), 0.9))
    limits = secret / "limits.yaml"
    limits.write_text("schema: 1\nname: Mine\nrules: []\n")
    own = secret / "own.yaml"
    shutil.copy(next(Path("phantoms").glob("caliber-system.yaml")).resolve(), own)
    out = tmp_path / "out"
    options = ["--b1-map", str(field), "--tolerances", str(limits), "--serial", "130-0150"]
    main(["phantom", str(angles), str(out), *options])
    for path in out.rglob("*"):
        if path.is_file():
            assert "Secret-Person" not in path.read_text(encoding="utf-8"), path.name


def test_negative_seed_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "out"), "--seed", "-1"]) == 2
    assert not re.search("internal error", capsys.readouterr().err)
