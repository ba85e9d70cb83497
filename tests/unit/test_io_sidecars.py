"""Sidecars of a dataset: inheritance, what is broken, what is never kept."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

from cordqa.errors import EmptyInputError, InputError
from cordqa.io.image_sizes import read_image_sizes
from cordqa.io.sidecars import index_headers, read_sidecars


def put(root: Path, name: str, content: object = None, *, text: str | None = None) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text is not None else "" if content is None else json.dumps(content))
    return path


def read(root: Path):
    index = index_headers(root)
    assert index is not None
    return read_sidecars(index)


def nifti(path: Path, sizes=(4, 5, 6, 7), spacing=(0.5, 0.6, 5.0), *, order: str = "<") -> Path:
    head = bytearray(352)
    struct.pack_into(f"{order}i", head, 0, 348)
    struct.pack_into(f"{order}8h", head, 40, len(sizes), *sizes, *([1] * (7 - len(sizes))))
    struct.pack_into(f"{order}8f", head, 76, 1.0, *spacing, 1, 1, 1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(head)) if path.name.endswith(".gz") else bytes(head))
    return path


def test_nearer_sidecars_overrule_farther_ones_and_each_value_knows_its_file(tmp_path: Path) -> None:
    put(tmp_path, "T2w.json", {"EchoTime": 0.1, "FlipAngle": 90, "Manufacturer": "Philips"})
    put(tmp_path, "sub-01/sub-01_T2w.json", {"FlipAngle": 100})
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", {"EchoTime": 0.12})
    put(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    (series,) = read(tmp_path).series
    assert series.values["EchoTime"] == 0.12 and series.origins["EchoTime"] == "sidecar"
    assert series.values["FlipAngle"] == 100
    assert series.origins["FlipAngle"] == "sidecar sub-01/sub-01_T2w.json"
    assert series.vendor == "Philips"


def test_a_sidecar_without_image_and_an_image_without_sidecar_are_series(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T1w.json", {"EchoTime": 0.003})
    put(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    put(tmp_path, "sub-01/func/sub-01_task-rest_events.json", {"onset": {}})
    put(tmp_path, "sub-01/anat/sub-01_T2w_seg.nii.gz")
    found = {one.suffix: one for one in read(tmp_path).series}
    assert set(found) == {"T1w", "T2w"}
    assert found["T1w"].source.endswith(".json") and not found["T2w"].values


def test_a_broken_sidecar_is_named_once_and_leaves_its_series_without_values(tmp_path: Path) -> None:
    for label in ("01", "02"):
        put(tmp_path, f"sub-{label}/anat/sub-{label}_T2w.json", {"EchoTime": 0.1})
        put(tmp_path, f"sub-{label}/anat/sub-{label}_T1w.json", {"EchoTime": 0.003})
    put(tmp_path, "T2w.json", text="{'EchoTime': 0.1}")
    reading = read(tmp_path)
    assert list(reading.broken) == ["T2w.json"]
    error, concerned = reading.broken["T2w.json"]
    assert "not valid JSON" in str(error) and len(concerned) == 2
    by_suffix = {(one.subject, one.suffix): one for one in reading.series}
    # The broken file might have overruled nothing or everything: nobody knows.
    assert not by_suffix["01", "T2w"].values and by_suffix["01", "T2w"].problems
    assert by_suffix["01", "T1w"].values["EchoTime"] == 0.003 and not by_suffix["01", "T1w"].problems


def test_one_name_with_two_values_is_broken_and_named(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", text='{"EchoTime": 0.1, "EchoTime": 0.01}')
    put(tmp_path, "sub-02/anat/sub-02_T2w.json", text='{"EchoTime": 0.1, "EchoTime": 0.1}')
    reading = read(tmp_path)
    (error, _), *others = reading.broken.values()
    assert "gives EchoTime twice" in str(error) and not others
    assert {one.subject: dict(one.values) for one in reading.series}["02"]["EchoTime"] == 0.1


@pytest.mark.parametrize("text", ["", "[1, 2]", "null", "{", '{"a": NaN', "\0", '{"EchoTime": 0.1}}'])
def test_what_is_no_json_object_is_broken(tmp_path: Path, text: str) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", text=text)
    reading = read(tmp_path)
    assert len(reading.broken) == 1 and len(reading.series) == 1


def test_who_and_where_is_never_kept(tmp_path: Path) -> None:
    secret = {
        "PatientName": "Doe",
        "PatientID": "7",
        "InstitutionName": "Clinic",
        "InstitutionAddress": "Street",
        "ReferringPhysicianName": "Dr",
        "ProcedureStepDescription": "free",
        "ImageComments": "free",
        "StationName": "X",
    }
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", {"EchoTime": 0.1, "PatientPosition": "HFS", **secret})
    (series,) = read(tmp_path).series
    assert set(series.values) == {"EchoTime", "PatientPosition"}
    assert "Doe" not in repr(series) and "Street" not in repr(series)
    assert series.site == "Clinic"  # as elsewhere, where participants.tsv names no site


@pytest.mark.parametrize(
    ("values", "acquired"),
    [
        ({"AcquisitionDateTime": "2020-02-03T04:05:06.5"}, "2020-02-03T04:05:06"),
        ({"AcquisitionDate": "20200203", "AcquisitionTime": "4:05:06.5"}, "2020-02-03T04:05:06"),
        ({"AcquisitionDate": "2020-02-03"}, "2020-02-03"),
        ({"AcquisitionTime": "10:00:00"}, ""),
        ({"AcquisitionDate": ["x"]}, ""),
        ({}, ""),
    ],
)
def test_a_date_is_kept_and_a_time_alone_is_none(tmp_path: Path, values: dict, acquired: str) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", {"EchoTime": 0.1, **values})
    (series,) = read(tmp_path).series
    assert series.acquired == acquired


def test_any_folder_of_sidecars_can_be_read(tmp_path: Path) -> None:
    put(tmp_path, "mt1.json", {"EchoTime": 0.002})
    put(tmp_path, "deep/sub-09_acq-MTon_MTS.json", {"EchoTime": 0.003})
    put(tmp_path, "dataset_description.json", {"Name": "x"})
    found = {one.suffix: one for one in read(tmp_path).series}
    assert found["MTS"].entities == {"acq": "MTon"} and found["MTS"].subject == "09"
    assert index_headers(put(tmp_path, "none/readme.txt").parent) is None


def test_gradient_files_are_found_also_where_they_are_inherited(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/dwi/sub-01_dwi.json", {"EchoTime": 0.06})
    put(tmp_path, "dwi.bval", text="0 800\n")
    put(tmp_path, "sub-01/dwi/sub-01_dwi.bvec", text="0 1\n0 0\n0 0\n")
    (series,) = read(tmp_path).series
    assert series.gradients.bval is not None and series.gradients.bval.name == "dwi.bval"
    assert series.gradients.bvec is not None


def test_the_image_gives_voxel_sizes(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T2w.json", {"EchoTime": 0.1})
    nifti(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz")
    (series,) = read(tmp_path).series
    assert series.values["VoxelSizeK"] == 5.0 and series.origins["VoxelSizeK"] == "image"
    assert series.values["NumberOfSlices"] == 6 and series.values["NumberOfVolumes"] == 7


@pytest.mark.parametrize("order", ["<", ">"])
def test_sizes_of_both_byte_orders(tmp_path: Path, order: str) -> None:
    found = read_image_sizes(nifti(tmp_path / "a.nii", sizes=(4, 5, 6), order=order))
    assert found["VoxelSizeI"] == 0.5 and found["NumberOfVolumes"] == 1


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", b"x" * 400, b"\0" * 400])
def test_a_file_that_is_no_image_has_no_sizes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert read_image_sizes(path) == {}
    assert read_image_sizes(tmp_path / "absent.nii") == {}


def test_folders_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        index_headers(tmp_path / "absent")
    from cordqa.workflow.protocol.observe import observe_dataset

    with pytest.raises(EmptyInputError, match="neither BIDS sidecars nor DICOM"):
        observe_dataset(tmp_path)
