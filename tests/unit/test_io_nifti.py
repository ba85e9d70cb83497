"""NIfTI with JSON sidecars: units, lists per volume, inheritance, geometry, damage."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cordqa.errors import EmptyInputError
from cordqa.io.folder import Reading, read_folder
from cordqa.io.limits import ReadLimits
from cordqa.records import Part

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 5.0, 30], [0, 0, 0, 1]])
SPIN_ECHO = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Prisma",
    "MagneticFieldStrength": 3,
    "ScanningSequence": "SE",
    "RepetitionTime": 2.5,
    "EchoTime": 0.01,
    "FlipAngle": 90,
}


def _data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)


def _write(path: Path, data: np.ndarray, sidecar: dict[str, Any] | None, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    if sidecar is not None:
        name = path.name.removesuffix(".gz").removesuffix(".nii") + ".json"
        path.with_name(name).write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def _failure(folder: Path) -> str:
    """Read a folder with one damaged image and one good one; return the reason."""
    _write(folder / "good.nii", _data(4, 4, 1), SPIN_ECHO)
    reading = read_folder(folder)
    assert len(reading.sets) == 1
    (outcome,) = reading.outcomes
    return outcome.reason


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_4d_with_a_list_of_echo_times(tmp_path: Path, ending: str) -> None:
    data = _data(6, 5, 2, 3)
    _write(tmp_path / f"sub-01_ses-2_run-3_MESE{ending}", data, SPIN_ECHO | {"EchoTime": [0.01, 0.02, 0.03]})
    (images,) = read_folder(tmp_path).sets
    assert images.data.shape == (3, 2, 5, 6)
    # Slices go along the normal of (column, row) direction, which is down in this affine.
    np.testing.assert_array_equal(images.data[1, 0], data[:, :, 1, 1].T)
    assert images.values("echo_time_s") == pytest.approx([0.01, 0.02, 0.03])
    assert images.acquisitions[0].origins["echo_time_s"] == "sidecar"
    e = images.entities
    assert (e.subject, e.session, e.run) == ("01", "2", "3")
    assert e.scanner == "Siemens Prisma 3 T"


def test_affine_agrees_with_nibabel_for_every_voxel(tmp_path: Path) -> None:
    angle = math.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    affine = turn @ AFFINE
    data = _data(6, 5, 3)
    _write(tmp_path / "a.nii", data, SPIN_ECHO, affine)
    (images,) = read_folder(tmp_path).sets
    for s in range(3):
        k = int(np.flatnonzero([np.array_equal(images.data[0, s], data[:, :, k].T) for k in range(3)])[0])
        for i, j in ((0, 0), (5, 4), (2, 3)):
            expected = affine @ (i, j, k, 1)
            np.testing.assert_allclose(images.affine @ (s, j, i, 1), expected, atol=1e-4)
    assert images.spacing_mm == pytest.approx((5.0, 1.5, 2.0), abs=1e-5)


def test_one_file_per_inversion_time_takes_parameters_from_the_sidecar(tmp_path: Path) -> None:
    # The numbers in the names contradict the sidecars on purpose.
    for number, ti in enumerate((0.8, 0.05, 0.2)):
        sidecar = SPIN_ECHO | {"ScanningSequence": ["SE", "IR"], "InversionTime": ti}
        _write(tmp_path / f"sub-01_inv-{number}_IRT1.nii", _data(4, 4, 1, seed=number), sidecar)
    (images,) = read_folder(tmp_path).sets
    assert images.values("inversion_time_s") == pytest.approx([0.05, 0.2, 0.8])
    np.testing.assert_array_equal(images.data[0, 0], _data(4, 4, 1, seed=1)[:, :, 0].T)
    assert images.acquisitions[0].sequence == "inversion recovery"


def test_runs_of_bids_are_kept_apart(tmp_path: Path) -> None:
    for run in (1, 2):
        for echo in (1, 2):
            name = f"sub-01_run-{run}_echo-{echo}_MESE.nii"
            _write(tmp_path / name, _data(4, 4, 1), SPIN_ECHO | {"EchoTime": 0.01 * echo})
    sets = read_folder(tmp_path).sets
    assert sorted(s.entities.run for s in sets) == ["1", "2"]
    assert [len(s.acquisitions) for s in sets] == [2, 2]


@pytest.mark.parametrize(
    ("name", "extra", "part"),
    [
        ("sub-01_part-phase_MESE.nii", {}, Part.PHASE),
        ("sub-01_MESE.nii", {"ImageType": ["ORIGINAL", "PRIMARY", "R", "ND"]}, Part.REAL),
        ("sub-01_part-mag_MESE.nii", {"ComplexImageComponent": "IMAGINARY"}, Part.IMAGINARY),
        ("sub-01_phase_MESE.nii", {}, Part.MAGNITUDE),
    ],
)
def test_parts(tmp_path: Path, name: str, extra: dict[str, Any], part: Part) -> None:
    _write(tmp_path / name, _data(4, 4, 1), SPIN_ECHO | extra)
    assert read_folder(tmp_path).sets[0].part is part


def test_scaling_of_the_header_is_applied_and_recorded(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_data(4, 4, 1), AFFINE)
    image.header.set_slope_inter(0.5, 3.0)
    nib.save(image, tmp_path / "a.nii")
    (tmp_path / "a.json").write_text(json.dumps(SPIN_ECHO))
    (images,) = read_folder(tmp_path).sets
    np.testing.assert_allclose(images.data[0, 0], nib.load(tmp_path / "a.nii").get_fdata()[:, :, 0].T)
    assert images.acquisitions[0].scale_source == "NIfTI header"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<u2", ">i2", "u1"])
def test_data_types_and_byte_orders(tmp_path: Path, dtype: str) -> None:
    data = _data(4, 5, 1) % 200
    image = nib.Nifti1Image(data.astype(dtype), AFFINE)
    if dtype[0] == ">":
        image = nib.Nifti1Image(data.astype(dtype), AFFINE, image.header.as_byteswapped(">"))
    nib.save(image, tmp_path / "a.nii")
    (tmp_path / "a.json").write_text(json.dumps(SPIN_ECHO))
    np.testing.assert_array_equal(read_folder(tmp_path).sets[0].data[0, 0], data[:, :, 0].T)


def test_nan_is_kept_counted_and_said(tmp_path: Path) -> None:
    data = np.ones((4, 4, 1), np.float32)
    data[0, 0, 0], data[1, 1, 0], data[2, 2, 0] = np.nan, np.inf, 5
    _write(tmp_path / "a.nii", data, SPIN_ECHO)
    (images,) = read_folder(tmp_path).sets
    assert int(np.isnan(images.data).sum()) == 2
    assert "2 sample(s) are not finite" in images.notices[0].message


def test_sidecars_are_inherited_from_above_and_overridden_below(tmp_path: Path) -> None:
    (tmp_path / "MESE.json").write_text(
        json.dumps(SPIN_ECHO | {"RepetitionTime": 9.0, "PhantomTemperature": 21.5})
    )
    (tmp_path / "sub-02_MESE.json").write_text(json.dumps({"EchoTime": 1.0}))
    _write(tmp_path / "sub-01" / "sub-01_MESE.nii", _data(4, 4, 1), {"RepetitionTime": 3.0})
    (images,) = read_folder(tmp_path).sets
    (a,) = images.acquisitions
    assert (a.repetition_time_s, a.echo_time_s, a.temperature_C) == (3.0, 0.01, 21.5)
    assert a.origins["temperature_C"] == "sidecar"


def test_serial_number_and_temperature_of_the_phantom(tmp_path: Path) -> None:
    extra = {"PhantomSerialNumber": "0133", "PhantomTemperature": 19.5}
    _write(tmp_path / "a.nii", _data(4, 4, 1), SPIN_ECHO | extra)
    reading = read_folder(tmp_path)
    assert reading.hints == {"serial_number": "0133"}
    assert reading.sets[0].acquisitions[0].temperature_C == 19.5


def test_images_without_sidecar_are_counted(tmp_path: Path) -> None:
    _write(tmp_path / "mask.nii", _data(4, 4, 1), None)
    _write(tmp_path / "a.nii", _data(4, 4, 1), SPIN_ECHO)
    assert read_folder(tmp_path).ignored["NIfTI without a JSON sidecar"] == 1


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"EchoTime": 10}, "EchoTime in the sidecar cannot be in seconds (found 10, expected 0 to 1.5"),
        ({"InversionTime": 400}, "not milliseconds"),
        ({"RepetitionTime": 2500}, "RepetitionTime in the sidecar cannot be in seconds"),
        ({"EchoTime": -0.01}, "found -0.01"),
        ({"EchoTime": "10 ms"}, "EchoTime in the sidecar is not a number"),
        ({"EchoTime": True}, "is not a number"),
        ({"EchoTime": [0.01, 0.02]}, "(found 2, expected 1); list one value per volume"),
        ({"EchoTime": math.nan}, "is not a number"),
    ],
)
def test_units_and_lists_that_cannot_be_right_are_refused(
    tmp_path: Path, extra: dict[str, Any], reason: str
) -> None:
    _write(tmp_path / "bad.nii", _data(4, 4, 1), SPIN_ECHO | extra)
    assert reason in _failure(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", '{"EchoTime": ' + "9" * 5000 + "}", "[" * 100_000])
def test_sidecars_that_are_not_json_objects(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "bad.nii", _data(4, 4, 1), None)
    (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
    assert "the sidecar bad.json is not" in _failure(tmp_path)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (40, np.int16([3, 30000, 30000, 30000]).tobytes(), "claims too many voxels"),
        (40, np.int16([4, 1, 1, 1000, 30000]).tobytes(), "claims too many slices"),
        (40, np.int16([3, -4, 4, 1]).tobytes(), "dimensions"),
        (40, np.int16([1, 4, 4, 1]).tobytes(), "dimensions"),
        (40, np.int16([4, 4, 4, 1, 2]).tobytes(), "truncated"),
        (70, np.int16([32]).tobytes(), "data type is not supported"),
        (70, np.int16([128]).tobytes(), "data type is not supported"),
        (70, np.int16([999]).tobytes(), "data type is not supported"),
        (108, np.float32([1e9]).tobytes(), "not a single-file NIfTI image"),
        (108, np.float32([np.nan]).tobytes(), "not a single-file NIfTI image"),
        (344, b"ni1\0", "not a single-file NIfTI image"),
        (280, np.float32([np.nan]).tobytes(), "orientation is not valid"),
        (280, np.float32([0, 0, 0]).tobytes(), "voxel has no size"),
        (284, np.float32([2.0]).tobytes(), "not perpendicular"),
        (0, b"abcd", "is not a NIfTI file"),
    ],
)
def test_damaged_headers_are_reported(tmp_path: Path, offset: int, value: bytes, reason: str) -> None:
    path = _write(tmp_path / "bad.nii", _data(4, 4, 1), SPIN_ECHO)
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(bytes(content))
    assert reason in _failure(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 348, 355])
def test_truncated_files_are_reported(tmp_path: Path, keep: int) -> None:
    path = _write(tmp_path / "bad.nii", _data(4, 4, 1), SPIN_ECHO)
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in _failure(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b junk", b"not gzip at all"])
def test_damaged_gzip_is_reported(tmp_path: Path, content: bytes) -> None:
    _write(tmp_path / "bad.nii.gz", _data(4, 4, 1), SPIN_ECHO).write_bytes(content)
    assert _failure(tmp_path)


def test_a_compressed_file_is_not_expanded_beyond_its_image(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii", _data(4, 4, 1), SPIN_ECHO)
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(path.read_bytes())
        for _ in range(64):
            file.write(bytes(1024 * 1024))
    path.unlink()
    assert (tmp_path / "a.nii.gz").stat().st_size < 200_000
    assert read_folder(tmp_path).sets[0].data.shape == (1, 1, 4, 4)


def test_a_sidecar_that_is_too_large_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a.nii", _data(4, 4, 1), SPIN_ECHO | {"Junk": "x" * 5000})
    with pytest.raises(EmptyInputError, match=r"is too large \(found 5\d+ bytes, expected at most 1000\)"):
        read_folder(tmp_path, limits=ReadLimits(max_sidecar_bytes=1000))


def test_sequence_and_repetition_time_as_bids_names_them(tmp_path: Path) -> None:
    sidecar = {"RepetitionTimeExcitation": 0.015, "EchoTime": 0.002, "MagneticFieldStrength": 3}
    for number, angle in enumerate((4, 20)):
        _write(tmp_path / f"sub-01_flip-{number}_VFA.nii", _data(4, 4, 1), sidecar | {"FlipAngle": angle})
    (images,) = read_folder(tmp_path).sets
    assert images.values("repetition_time_s") == pytest.approx([0.015, 0.015])
    assert images.acquisitions[0].sequence == "gradient echo"


@pytest.mark.parametrize(("unit", "codes"), [("rad", []), ("arbitrary", ["image.phase-unit-unknown"])])
def test_unit_of_phase(tmp_path: Path, unit: str, codes: list[str]) -> None:
    _write(tmp_path / "sub-01_part-phase_MESE.nii", _data(4, 4, 1), SPIN_ECHO | {"Units": unit})
    assert [n.code for n in read_folder(tmp_path).sets[0].notices] == codes


def test_many_files_with_many_sidecars_stay_fast(tmp_path: Path) -> None:
    _write(tmp_path / "sub-0_MESE.nii", _data(4, 4, 1), None)
    content = (tmp_path / "sub-0_MESE.nii").read_bytes()
    for number in range(400):
        (tmp_path / f"sub-{number}_MESE.nii").write_bytes(content)
        (tmp_path / f"sub-{number}_MESE.json").write_text(json.dumps(SPIN_ECHO))
    begin = time.process_time()
    assert len(read_folder(tmp_path).sets) == 400
    assert time.process_time() - begin < 5


def test_b_values_beside_the_image(tmp_path: Path) -> None:
    _write(tmp_path / "dwi.nii", _data(4, 4, 1, 3), SPIN_ECHO)
    (tmp_path / "dwi.bval").write_text("0 500 500\n")
    (images,) = read_folder(tmp_path).sets
    assert images.values("b_value_s_per_mm2").tolist() == [0, 500, 500]


def test_b_values_of_another_number_than_volumes(tmp_path: Path) -> None:
    _write(tmp_path / "bad.nii", _data(4, 4, 1, 3), SPIN_ECHO)
    (tmp_path / "bad.bval").write_text("0 500\n")
    assert "number of b-values contradicts" in _failure(tmp_path)


def test_real_nifti_without_parameters_is_passed_over(shared_data: Path) -> None:
    folder = shared_data / "cord" / "testing" / "t2"
    try:
        reading: Reading | None = read_folder(folder)
    except EmptyInputError as error:
        assert "NIfTI without a JSON sidecar" in str(error)
    else:
        assert reading is not None and reading.n_files > 0


def test_slices_along_another_axis_give_the_same_images(tmp_path: Path) -> None:
    """Tools that reorient a coronal stack leave its slices along the second axis."""
    rng = np.random.default_rng(5)
    data = rng.uniform(1, 100, (20, 24, 1)).astype(np.float32)
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 5.0, -10], [0, 2.0, 0, -20], [0, 0, 0, 1]])
    turned = np.moveaxis(data, 2, 1)
    turned_affine = affine[:, [0, 2, 1, 3]]
    found = []
    for name, values, matrix in (("plain", data, affine), ("turned", turned, turned_affine)):
        folder = tmp_path / name
        folder.mkdir()
        for number, time_s in enumerate((0.05, 0.2, 0.8)):
            nib.save(nib.Nifti1Image(values * (number + 1), matrix), folder / f"scan{number}.nii.gz")
            sidecar = {
                "InversionTime": time_s,
                "RepetitionTime": 2.0,
                "EchoTime": 0.01,
                "MagneticFieldStrength": 3,
            }
            (folder / f"scan{number}.json").write_text(json.dumps(sidecar))
        (images,) = read_folder(folder).sets
        found.append(images)
    assert found[1].data.shape == found[0].data.shape
    assert np.array_equal(found[1].data, found[0].data)
    assert np.allclose(found[1].affine, found[0].affine)
