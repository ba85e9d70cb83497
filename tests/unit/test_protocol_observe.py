"""From headers to observed series: units, flags, scanners, sidecars joined with DICOM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_dicom import mr_image, uid, write

from cordqa.protocol.records import Origin, Problem
from cordqa.workflow.protocol.observe import observe_dataset


def put(root: Path, name: str, **values: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def one(root: Path, **settings: Any):
    (series,) = observe_dataset(root, **settings).series
    return series


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ("0,035", "comma"),
        ([0.1, "x"], "a list"),
        ("fast", "not a number"),
        (None, "not a number"),
        (True, "not"),
    ],
)
def test_what_is_no_number_keeps_its_reason(tmp_path: Path, raw: object, note: str) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", RepetitionTime=raw, EchoTime=0.1)
    found = one(tmp_path).parameters
    assert found["RepetitionTime"].problem is Problem.NOT_NUMERIC and note in found["RepetitionTime"].note
    assert found["EchoTime"].value == 0.1


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"Manufacturer": "Siemens", "SequenceVariant": "MTC_SP"}, True),
        ({"Manufacturer": "Siemens", "SequenceVariant": "SP"}, False),
        ({"Manufacturer": "GE", "SequenceVariant": "SP"}, None),
        ({"Manufacturer": "GE", "ScanOptions": ["MT"]}, True),
        ({"Manufacturer": "Siemens"}, None),
        ({"MTState": False, "SequenceVariant": "MTC_SP"}, False),
    ],
)
def test_the_transfer_pulse_is_read_from_the_variant_where_that_means_something(
    tmp_path: Path, values: dict, state: bool | None
) -> None:
    put(tmp_path, "sub-01/anat/sub-01_MTS.json", **values)
    found = one(tmp_path).parameters.get("MTState")
    assert (None if found is None else found.value) is state


def test_scanners_of_one_model_are_named_by_site(tmp_path: Path) -> None:
    for label, serial in (("01", "1"), ("02", "2"), ("03", "2")):
        put(
            tmp_path,
            f"sub-{label}/anat/sub-{label}_T2w.json",
            Manufacturer="SIEMENS",
            ManufacturersModelName="Prisma",
            DeviceSerialNumber=serial,
        )
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\ta\nsub-02\tb\nsub-03\tb\n")
    names = [series.entities.scanner for series in observe_dataset(tmp_path).series]
    assert names == ["Siemens Prisma (a)", "Siemens Prisma (b)", "Siemens Prisma (b)"]


def test_scanners_without_site_are_told_apart_without_showing_the_serial_number(tmp_path: Path) -> None:
    for label, serial in (("01", "167006"), ("02", "167007")):
        put(tmp_path, f"sub-{label}/anat/sub-{label}_T2w.json", Manufacturer="GE", DeviceSerialNumber=serial)
    names = {series.entities.scanner for series in observe_dataset(tmp_path).series}
    assert len(names) == 2 and not any("1670" in name for name in names)


def bids_and_dicom(root: Path, values: dict[str, Any], **elements: Any) -> tuple[Path, Path]:
    put(root / "bids", "sub-01/anat/sub-01_T2w.json", **values)
    write(root / "dicom/sub-01/a", mr_image(**elements))
    return root / "bids", root / "dicom"


def test_dicom_adds_what_the_sidecar_lacks_and_contradictions_are_named(tmp_path: Path) -> None:
    values = {"SeriesInstanceUID": uid("x"), "EchoTime": 0.01, "RepetitionTime": 2.5, "FlipAngle": 90.5}
    bids, dicom = bids_and_dicom(tmp_path, values, SeriesInstanceUID=uid("x"), SequenceVariant=["SP", "MTC"])
    found = one(bids, dicom=dicom).parameters
    assert found["EchoTime"].problem is Problem.NONE and found["EchoTime"].value == 0.01
    assert found["FlipAngle"].problem is Problem.NONE  # headers round
    clash = found["RepetitionTime"]
    assert clash.problem is Problem.CONTRADICTION and clash.value is None
    assert "2.5 s" in clash.note and "2 s" in clash.note
    assert found["MTState"].value is True and found["MTState"].origin is Origin.DICOM
    assert "SeriesInstanceUID" not in found


def test_without_identifiers_participant_and_series_number_join(tmp_path: Path) -> None:
    bids, dicom = bids_and_dicom(tmp_path, {"SeriesNumber": 4, "EchoTime": 0.02}, SeriesNumber=4)
    assert one(bids, dicom=dicom).parameters["EchoTime"].problem is Problem.CONTRADICTION


def test_dicom_of_something_else_is_said_and_changes_nothing(tmp_path: Path) -> None:
    bids, dicom = bids_and_dicom(tmp_path, {"SeriesNumber": 4, "EchoTime": 0.02}, SeriesNumber=5)
    observed = observe_dataset(bids, dicom=dicom)
    assert observed.series[0].parameters["EchoTime"].value == 0.02
    assert any("could be joined" in notice.message for notice in observed.notices)


def test_sidecars_beside_their_dicom_files_are_joined(tmp_path: Path) -> None:
    put(tmp_path, "sub-05_T2w.json", SeriesInstanceUID=uid("x"), EchoTime=0.02)
    write(tmp_path / "x.dcm", mr_image(SeriesInstanceUID=uid("x")))
    write(tmp_path / "y.dcm", mr_image(SeriesInstanceUID=uid("y")))
    observed = observe_dataset(tmp_path)
    assert len(observed.series) == 2
    assert observed.series[0].parameters["EchoTime"].problem is Problem.CONTRADICTION


def test_gradient_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/dwi/sub-01_dwi.json", EchoTime=0.06)
    (tmp_path / "sub-01/dwi/sub-01_dwi.bval").write_text("0 800 800\n")
    (tmp_path / "sub-01/dwi/sub-01_dwi.bvec").write_text("0 1\n0 0\n0 0\n")
    facts = one(tmp_path).gradients
    assert facts is not None and facts.table is None and facts.problem and facts.code


@pytest.mark.data
def test_real_sidecars_of_a_pair(shared_data: Path) -> None:
    series = observe_dataset(shared_data / "cord/tutorial").series
    states = {one.labels["acq"]: one.parameters["MTState"].value for one in series}
    assert states == {"MTon": True, "MToff": False}
    assert {one.entities.scanner for one in series} == {"Siemens Prisma fit"}
