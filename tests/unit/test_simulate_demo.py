"""The demonstration study on disk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cordqa.errors import ConfigError, OutputError
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.resources import read_yaml
from cordqa.simulate.study import three_vendor_scanners
from cordqa.workflow.demo import DemoTruth, write_demo_study


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoTruth, list[str]]:
    folder = tmp_path_factory.mktemp("demo") / "scans"
    lines: list[str] = []
    truth = write_demo_study(folder, seed=5, n_repeats=1, progress=lines.append)
    return folder, truth, lines


def dicom_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml")


def test_every_scanner_and_sequence_is_there(demo: tuple[Path, DemoTruth, list[str]]) -> None:
    folder, truth, lines = demo
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in dicom_files(folder)]
    assert len(datasets) == truth.n_files == 104
    counts = Counter((d.Manufacturer.split()[0].upper(), "InversionTime" in d) for d in datasets)
    assert counts == {
        ("SIEMENS", True): 8,
        ("SIEMENS", False): 32,
        ("GE", True): 8,
        ("GE", False): 16,
        ("PHILIPS", True): 8,
        ("PHILIPS", False): 32,
    }
    assert len({d.SOPInstanceUID for d in datasets}) == len(datasets)
    assert len({d.StudyInstanceUID for d in datasets}) == 3
    assert len(lines) == 3
    assert {str(d.PatientName) for d in datasets} == {"SIMULATED^PHANTOM"}


def test_truth_is_the_certificate_and_lies_beside_the_scans(demo: tuple[Path, DemoTruth, list[str]]) -> None:
    folder, truth, _ = demo
    certified = reference_values(
        load_phantom("caliber-system"), "5", "T1", field_strength_T=3.0, temperature_C=20.0, serial="130-0150"
    )
    for sphere in (s for s in truth.spheres if s.plate == "5"):
        (value,) = [c.value for c in certified if c.sphere == sphere.sphere]
        assert sphere.t1_s * 1000 == pytest.approx(value)
    written = json.loads((folder.parent / "truth.json").read_text())
    assert len(written["spheres"]) == len(truth.spheres) == 3 * 2 * 14
    assert written["planted"] == list(truth.planted)
    assert not list(folder.rglob("truth*"))


def test_sidecar_names_phantom_and_temperature(demo: tuple[Path, DemoTruth, list[str]]) -> None:
    folder, truth, _ = demo
    sidecar = read_yaml(folder / "phantom.yaml")
    assert sidecar == {"serial_number": truth.serial_number, "temperature_C": truth.temperature_C}


def test_planted_faults(demo: tuple[Path, DemoTruth, list[str]]) -> None:
    folder, truth, _ = demo
    biased = [s.seen_t1_s / s.t1_s for s in truth.spheres if s.scanner == "SIM-B"]
    others = [s.seen_t1_s / s.t1_s for s in truth.spheres if s.scanner != "SIM-B"]
    # One session each: four times the SD between sessions.
    variation = 4 * max(scanner.session_sd for scanner in three_vendor_scanners())
    assert np.mean(biased) == pytest.approx(1.08, abs=variation)
    assert np.mean(others) == pytest.approx(1.0, abs=variation)
    clipped = []
    for path in dicom_files(folder / "SIM-C"):
        dataset = pydicom.dcmread(path)
        if (dataset.pixel_array == 2**dataset.BitsStored - 1).sum() > 20:
            clipped.append(float(dataset.InversionTime))
    assert clipped == [3000.0]


def test_the_same_seed_writes_the_same_study_again(demo: tuple[Path, DemoTruth, list[str]]) -> None:
    folder, truth, _ = demo
    before = {path: path.read_bytes() for path in dicom_files(folder)}
    assert write_demo_study(folder, seed=5, n_repeats=1) == truth
    assert {path: path.read_bytes() for path in dicom_files(folder)} == before


def test_an_earlier_study_is_replaced_entirely(tmp_path: Path) -> None:
    write_demo_study(tmp_path / "scans", n_repeats=2)
    # What a killed run leaves.
    (tmp_path / "scans" / "SIM-A" / "session-02" / ".MR0001_0001.dcm.part").write_bytes(b"half")
    (tmp_path / "scans" / ".phantom.yaml.ab12_x.part").write_text("half")
    truth = write_demo_study(tmp_path / "scans", n_repeats=1)
    assert len(dicom_files(tmp_path / "scans")) == truth.n_files == 104
    assert not list((tmp_path / "scans").rglob("*.part"))


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="not of a demonstration"):
        write_demo_study(tmp_path / "scans", n_repeats=1)
    assert [p.name for p in (tmp_path / "scans").iterdir()] == ["mine.txt"]
    with pytest.raises(OutputError, match="not a folder"):
        write_demo_study(tmp_path / "scans" / "mine.txt", n_repeats=1)


def test_no_session_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one session"):
        write_demo_study(tmp_path / "scans", n_repeats=0)
    assert not (tmp_path / "scans").exists()
