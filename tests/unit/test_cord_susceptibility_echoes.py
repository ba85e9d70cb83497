"""Which files are one gradient-echo scan, and what is read of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers_cord_echoes import TIMES, describe, put_echoes, put_label, small_scan

from cordqa.errors import InputError
from cordqa.io.bids_index import index_dataset
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.io.volumes import write_volume
from cordqa.records import Volume
from cordqa.workflow.cord_records import Unit
from cordqa.workflow.cord_select import select_images
from cordqa.workflow.cord_susceptibility import skip_susceptibility
from cordqa.workflow.cord_susceptibility_echoes import EchoSet, read_scan

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def touch(bids: Path, *names: str) -> None:
    describe(bids)
    folder = bids / "sub-01/anat"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"sub-01_{name}.nii.gz").touch()


def unit() -> Unit:
    def refuse(*_: object) -> None:
        raise AssertionError

    return Unit(name="sub-01", segment=refuse)  # type: ignore[arg-type]


def only_set(bids: Path) -> EchoSet:
    (found,) = select_images(index_dataset(bids), "01", "").susceptibility
    return found


def test_echoes_are_ordered_by_number_and_parts_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, *(f"echo-{n}_part-{p}_MEGRE" for n in (10, 2, 1) for p in ("phase", "mag")))
    found = only_set(tmp_path)
    for part in ("mag", "phase"):
        assert [file.entities["echo"] for file in found.by_part[part]] == ["1", "2", "10"]
    assert found.name == found.acquisition == "MEGRE"
    assert found.image.entities == {"sub": "01"}


def test_runs_and_acquisitions_are_scans_of_their_own(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(
            f"acq-{a}_run-{r}_echo-{n}_part-{p}_MEGRE"
            for a in "xy"
            for r in "12"
            for n in "12"
            for p in ("mag", "phase")
        ),
    )
    found = select_images(index_dataset(tmp_path), "01", "").susceptibility
    assert sorted(one.name for one in found) == [f"acq-{a}_run-{r}_MEGRE" for a in "xy" for r in "12"]
    assert {one.acquisition for one in found} == {"acq-x_MEGRE", "acq-y_MEGRE"}
    assert {len(one.files) for one in found} == {4}


def test_t2star_is_anatomical_unless_its_phase_lies_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "T2starw", "acq-p_part-mag_T2starw", "acq-p_part-phase_T2starw", "T2w")
    chosen = select_images(index_dataset(tmp_path), "01", "")
    assert [file.name for file in chosen.anatomical] == ["sub-01_T2w.nii.gz", "sub-01_T2starw.nii.gz"]
    (found,) = chosen.susceptibility
    assert found.name == "acq-p_T2starw" and set(found.by_part) == {"mag", "phase"}
    # Another engine keeps the magnitude as an anatomical image, and says what it leaves.
    told = unit()
    skip_susceptibility(chosen, told)
    assert chosen.anatomical[-1].name == "sub-01_acq-p_part-mag_T2starw.nii.gz"
    assert "only the engine builtin" in told.outcomes[0].reason


def test_phase_of_other_images_is_left_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "part-phase_T2w", "part-phase_bold")
    chosen = select_images(index_dataset(tmp_path), "01", "")
    assert not chosen.susceptibility and len(chosen.left) == 2


def test_masks_of_the_user_belong_to_all_echoes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"echo-{n}_part-{p}_MEGRE" for n in "12" for p in ("mag", "phase")), "T2w")
    put_label(tmp_path, "MEGRE_label-SC_seg", np.ones((2, 2, 2)), AFFINE)
    path = put_label(tmp_path, "label-canal_mask", np.ones((2, 2, 2)), AFFINE)
    path.with_name("sub-01_label-canal_mask.json").write_text(
        json.dumps({"Sources": ["bids:raw:sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz"]})
    )
    index = index_dataset(tmp_path)
    (found,) = select_images(index, "01", "").susceptibility
    assert set(find_user_files(index, found.image).by_role) == {Role.CORD, Role.CANAL}


def test_scan_of_files_and_of_one_4d_file_are_the_same(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    put_echoes(tmp_path / "a", parts, AFFINE, sidecar={"Units": "rad"})
    describe(tmp_path / "b")
    folder = tmp_path / "b/sub-01/anat"
    folder.mkdir(parents=True)
    for part, data in parts.items():
        write_volume(Volume(data=data, affine=AFFINE), folder / f"sub-01_part-{part}_MEGRE.nii.gz")
    about = {"EchoTime": list(TIMES), "MagneticFieldStrength": 3, "Units": "arbitrary"}
    (folder / "sub-01_MEGRE.json").write_text(json.dumps(about))
    one, other = (
        read_scan(index_dataset(bids), only_set(bids), unit()) for bids in (tmp_path / "a", tmp_path / "b")
    )
    assert np.array_equal(one.phase, other.phase) and np.array_equal(one.magnitude, other.magnitude)
    assert tuple(one.echo_times_s) == tuple(other.echo_times_s) == TIMES
    assert one.field_strength_t == other.field_strength_t == 3.0
    assert one.phase_range == (-math.pi, math.pi) and other.phase_range is None


def test_a_sidecar_that_says_rad_beside_other_numbers_is_not_believed(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    parts["phase"] = parts["phase"] * 4096 / np.float32(np.pi)
    put_echoes(tmp_path, parts, AFFINE, sidecar={"Units": "rad"})
    assert read_scan(index_dataset(tmp_path), only_set(tmp_path), unit()).phase_range is None


def test_real_and_imaginary_parts_are_a_scan(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    signal = parts["mag"] * np.exp(1j * parts["phase"])
    put_echoes(tmp_path, {"real": signal.real, "imag": signal.imag}, AFFINE)
    found = read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())
    assert found.parts and np.allclose(found.phase, signal.real, atol=1e-3)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([3.5, 7.0, 10.5, 14.0, 17.5], "milliseconds"),
        ([0.0035, 0.007], "does not fit the number of echoes"),
        ([0.0035, "x", 0.01, 0.014, 0.0175], "does not tell the echo time"),
        (True, "does not tell the echo time"),
        ([], "does not fit the number of echoes"),
    ],
)
def test_echo_times_are_never_guessed(tmp_path: Path, times: object, said: str) -> None:
    parts, _ = small_scan((8, 8, 4))
    describe(tmp_path)
    folder = tmp_path / "sub-01/anat"
    folder.mkdir(parents=True)
    for part, data in parts.items():
        write_volume(Volume(data=data, affine=AFFINE), folder / f"sub-01_part-{part}_MEGRE.nii.gz")
    (folder / "sub-01_MEGRE.json").write_text(json.dumps({"EchoTime": times, "MagneticFieldStrength": 3}))
    with pytest.raises(InputError, match=said):
        read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())


def test_echoes_of_other_numbers_are_refused(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    folder = put_echoes(tmp_path, parts, AFFINE)
    (folder / "sub-01_echo-1_part-phase_MEGRE.nii.gz").unlink()
    (folder / "sub-01_echo-5_part-mag_MEGRE.nii.gz").unlink()
    with pytest.raises(InputError, match="do not have the same echoes"):
        read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())


def test_echo_times_of_the_magnitude_do_where_the_phase_has_none(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    folder = put_echoes(tmp_path, parts, AFFINE)
    for path in folder.glob("*part-phase*.json"):
        path.unlink()
    scan = read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())
    assert tuple(scan.echo_times_s) == TIMES and scan.field_strength_t == 3.0


def test_parts_that_contradict_each_other_about_an_echo_time_are_refused(tmp_path: Path) -> None:
    parts, _ = small_scan((8, 8, 4))
    folder = put_echoes(tmp_path, parts, AFFINE)
    path = folder / "sub-01_echo-2_part-mag_MEGRE.json"
    path.write_text(json.dumps({"EchoTime": 0.0071, "MagneticFieldStrength": 3.0}))
    with pytest.raises(InputError, match="contradict each other about the echo times"):
        read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())
    path.write_text(json.dumps({"EchoTime": 0.00702, "MagneticFieldStrength": 3.0}))  # rounded
    read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (123.2, "cannot be in T; is it the frequency"),
        (1.23e8, "cannot be in T"),
        ("3", "found '3'"),
        (None, "does not tell the field strength; add"),
        (True, "does not tell"),
        (0, "cannot be in T"),
    ],
)
def test_a_field_strength_that_is_none_is_named(tmp_path: Path, value: object, said: str) -> None:
    parts, _ = small_scan((8, 8, 4))
    put_echoes(tmp_path, parts, AFFINE, sidecar={"MagneticFieldStrength": value})
    with pytest.raises(InputError, match=said):
        read_scan(index_dataset(tmp_path), only_set(tmp_path), unit())


@pytest.mark.parametrize(("said", "encoding"), [("3D", "3D"), ("2d ", "2D"), ("4D", ""), (None, "")])
def test_the_sidecar_tells_whether_it_was_3d(tmp_path: Path, said: object, encoding: str) -> None:
    parts, _ = small_scan((8, 8, 4))
    put_echoes(tmp_path, parts, AFFINE, sidecar={"MRAcquisitionType": said})
    given = read_scan(index_dataset(tmp_path), only_set(tmp_path), unit(), phase_range=(-4.0, 4.0))
    assert given.encoding == encoding and given.phase_range == (-4.0, 4.0)
