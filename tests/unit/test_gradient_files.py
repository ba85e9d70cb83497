"""Gradient files as people have them, found, read and written."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cordqa.errors import EmptyInputError, InputError, UnreadableFileError
from cordqa.io.gradients import find_gradient_files, read_matrix, read_shapes, read_tensors, write_matrix
from cordqa.models.diffusion.gradient_errors import (
    BTensorError,
    BUnitError,
    GradientLengthError,
    MissingDirectionError,
    OrientationError,
)
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.scheme_energy import spread_directions
from cordqa.workflow.gradients import GradientPaths, read_gradients, write_gradients

N = spread_directions(8).directions
B = np.r_[0.0, np.full(8, 1000.0)]
V = np.vstack([np.zeros(3), N])
AFFINE = np.diag([-2.0, 2, 5, 1])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(numbers: np.ndarray, separator: str = " ") -> str:
    return "\n".join(separator.join(f"{x:.8f}" for x in row) for row in np.atleast_2d(numbers)) + "\n"


@pytest.fixture
def bval(tmp_path: Path) -> Path:
    return write(tmp_path / "dwi.bval", rows(B))


@pytest.mark.parametrize("text", [rows(B), rows(B[:, None]), rows(B, ","), rows(B, " , "), rows(B, "\t")])
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", ", "])
def test_every_way_of_writing_fsl_files(tmp_path: Path, text: str, separator: str) -> None:
    bval = write(tmp_path / "a.bval", "\ufeff# b-values\n" + text)
    for vectors in (V, V.T):
        bvec = write(tmp_path / "a.bvec", rows(vectors, separator) + "\n\n")
        table, notices = read_gradients(AFFINE, bval=bval, bvec=bvec, n_volumes=9)
        np.testing.assert_allclose(table.directions, V, atol=1e-7)
        np.testing.assert_allclose(table.b_values_s_mm2, B)
        assert not notices


def test_windows_line_ends_and_exponents(tmp_path: Path) -> None:
    assert read_matrix(write(tmp_path / "a", "1e3 2E-1\r\n-3.5 +4\r\n")).tolist() == [[1000, 0.2], [-3.5, 4]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no numbers"),
        ("1 2 3\n4 5\n", "line 2"),
        ("1 2 x\n", "'x'"),
        ("1_0 2\n", "1_0"),
        ("# only a comment\n", "no numbers"),
        ("1 2\0 3", "plain text"),
        ("٣ 4", "something else"),
    ],
)
def test_damaged_text_is_named_with_its_line(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(UnreadableFileError, match=word):
        read_matrix(write(tmp_path / "a.bvec", text))


def test_utf16_and_binary_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "a.bval"
    path.write_bytes("0 1000".encode("utf-16"))
    with pytest.raises(UnreadableFileError, match="plain text"):
        read_matrix(path)
    with pytest.raises(UnreadableFileError, match=r"absent\.bval"):
        read_matrix(tmp_path / "absent.bval")


def test_errors_of_numbers_name_the_files(bval: Path) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V[1:].T))
    with pytest.raises(GradientLengthError, match=r"dwi\.bval, dwi\.bvec.*9 b-values, 8 directions"):
        read_gradients(AFFINE, bval=bval, bvec=bvec)


def test_exchanged_files_are_recognised(bval: Path) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V.T))
    with pytest.raises(OrientationError, match="exchanged"):
        read_gradients(AFFINE, bval=bvec, bvec=bval)


def test_b_values_alone_are_not_enough(bval: Path) -> None:
    with pytest.raises(MissingDirectionError, match="bvec"):
        read_gradients(AFFINE, bval=bval)
    shape = write(bval.with_suffix(".bdelta"), "0\n")
    assert np.all(read_gradients(AFFINE, bval=bval, bdelta=shape).table.b_delta == 0)


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError, match="no gradient files"):
        read_gradients(AFFINE, GradientPaths())
    assert not find_gradient_files(tmp_path / "dwi.nii.gz")


@pytest.mark.parametrize(
    "text",
    ["1 1 1 1 1 -0.5 -0.5 0 0", "1\n1\n1\n1\n1\n-.5\n-.5\n0\n0", "LTE," * 5 + "PTE PTE STE STE"],
)
def test_shapes_per_volume_as_numbers_or_words(bval: Path, text: str) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V.T))
    shape = write(bval.with_suffix(".bdelta"), text)
    table, _ = read_gradients(AFFINE, bval=bval, bvec=bvec, bdelta=shape)
    assert table.b_delta.tolist() == [1, 1, 1, 1, 1, -0.5, -0.5, 0, 0]


def test_one_shape_for_all_and_bad_shapes(bval: Path) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V.T))
    for text, expected in (("-0.5", -0.5), ("PTE", -0.5)):
        shape = write(bval.with_suffix(".bdelta"), text)
        assert np.all(read_gradients(AFFINE, bval=bval, bvec=bvec, bdelta=shape).table.b_delta == expected)
    for text, kind in (("LTE 1", UnreadableFileError), ("QTE", BTensorError), ("", UnreadableFileError)):
        shape = write(bval.with_suffix(".bdelta"), text)
        with pytest.raises(kind):
            read_gradients(AFFINE, bval=bval, bvec=bvec, bdelta=shape)
    assert isinstance(read_shapes(write(bval.with_suffix(".bdelta"), "nan")), np.ndarray)


def test_b_tensors_from_numpy_and_text(tmp_path: Path) -> None:
    delta = np.r_[1, 1, 1, 1, -0.5, -0.5, -0.5, 0, 0]
    directions = np.where(delta[:, None] == 0, 0.0, V)
    tensors = GradientTable(b_values_s_mm2=B, directions=directions, b_delta=delta).b_tensors_ms_um2 * 1e3
    np.save(tmp_path / "dwi.npy", tensors)
    text = write(tmp_path / "dwi.btens", rows(tensors.reshape(-1, 9)))
    for path in (tmp_path / "dwi.npy", text):
        table, _ = read_gradients(AFFINE, btens=path, n_volumes=9)
        np.testing.assert_allclose(table.b_tensors_ms_um2 * 1e3, tensors, atol=1e-4)
    bval = write(tmp_path / "dwi.bval", rows(B / 1000))
    with pytest.raises(BTensorError, match="trace"):
        read_gradients(AFFINE, btens=text, bval=bval)
    with pytest.raises(GradientLengthError):
        read_gradients(AFFINE, btens=text, bval=write(tmp_path / "b.bval", "0 1000"))
    with pytest.raises(BTensorError, match="shape already"):
        read_gradients(AFFINE, btens=text, bdelta=write(tmp_path / "dwi.bdelta", "1"))


def test_unsafe_or_wrong_tensor_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.ones((4, 6)))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    for name in ("object.npy", "flat.npy", "damaged.npy"):
        with pytest.raises(UnreadableFileError):
            read_tensors(tmp_path / name)
    with pytest.raises(UnreadableFileError, match="no agreed order"):
        read_tensors(write(tmp_path / "six.btens", "1 0 0 0 0 0\n"))


def test_mrtrix_table_in_scanner_axes(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 5.0], [-2, 0, 0], [0, 2, 0]])  # sagittal
    path = write(tmp_path / "dwi.b", "# command_history: ...\n" + rows(np.c_[V, B]))
    table, _ = read_gradients(affine, mrtrix=path)
    np.testing.assert_allclose(table.directions, np.c_[-V[:, 1], V[:, 2], V[:, 0]], atol=1e-7)
    _, notices = read_gradients(None, mrtrix=path)
    assert [one.code for one in notices] == ["gradients.no-affine"]
    with pytest.raises(OrientationError, match="four columns"):
        read_gradients(affine, mrtrix=write(tmp_path / "bad.b", rows(V)))


def test_the_unit_of_an_mrtrix_table_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(BUnitError, match="ms/um2"):
        read_gradients(AFFINE, mrtrix=write(tmp_path / "dwi.b", rows(np.c_[V, B / 1000])))


def test_echo_times_that_vary_are_pointed_out(bval: Path) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V.T))
    times = [0.06] * 5 + [0.08] * 4
    _, notices = read_gradients(AFFINE, bval=bval, bvec=bvec, sidecar={"EchoTime": times})
    assert [one.code for one in notices] == ["gradients.echo-times"]
    for harmless in (0.06, [0.06] * 9, ["x"] * 9, [0.06, 0.08]):
        _, notices = read_gradients(AFFINE, bval=bval, bvec=bvec, sidecar={"EchoTime": harmless})
        assert not notices


def test_files_beside_the_image_come_first(tmp_path: Path) -> None:
    for name in ("dwi.bval", "dwi.bvec", "dwi.bdelta", "bvals", "bvecs", "dwi.b"):
        write(tmp_path / name, "0")
    found = find_gradient_files(tmp_path / "dwi.nii.gz")
    assert [path.name for path in found.given] == ["dwi.bval", "dwi.bvec", "dwi.bdelta", "dwi.b"]
    other = find_gradient_files(tmp_path / "other.nii")
    assert other.bval == tmp_path / "bvals" and other.bvec == tmp_path / "bvecs"


def test_inheritance_of_bids(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "ses-a" / "dwi"
    image = folder / "sub-01_ses-a_acq-b_run-2_dwi.nii.gz"
    general = write(tmp_path / "dwi.bval", "0")
    assert find_gradient_files(image).bval == general
    nearer = write(tmp_path / "sub-01" / "sub-01_dwi.bval", "0")
    assert find_gradient_files(image).bval == nearer
    specific = write(tmp_path / "sub-01" / "sub-01_acq-b_dwi.bval", "0")
    write(tmp_path / "sub-01" / "sub-01_acq-c_dwi.bval", "0")
    write(tmp_path / "sub-01" / "sub-01_acq-b_bold.bval", "0")
    assert find_gradient_files(image).bval == specific
    own = write(folder / "sub-01_ses-a_acq-b_run-2_dwi.bval", "0")
    assert find_gradient_files(image).bval == own
    assert find_gradient_files(image).bvec is None


def test_the_search_ends_at_the_dataset(tmp_path: Path) -> None:
    outside = write(tmp_path / "dwi.bval", "0")
    image = tmp_path / "data" / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    write(tmp_path / "data" / "dataset_description.json", "{}")
    assert find_gradient_files(image).bval is None
    assert find_gradient_files(image, root=tmp_path / "data").bval is None
    assert outside.is_file()


def test_an_unused_second_description_is_said(bval: Path) -> None:
    bvec = write(bval.with_suffix(".bvec"), rows(V.T))
    second = write(bval.with_suffix(".b"), rows(np.c_[V, B]))
    _, notices = read_gradients(AFFINE, bval=bval, bvec=bvec, mrtrix=second)
    assert [one.code for one in notices] == ["gradients.unused"]


def test_written_files_are_clean_and_replace_an_old_shape(tmp_path: Path) -> None:
    spherical = GradientTable(b_values_s_mm2=B, directions=V * 0, b_delta=np.zeros(9))
    assert write_gradients(spherical, tmp_path / "s").bdelta == tmp_path / "s.bdelta"
    paths = write_gradients(GradientTable.linear(B, V), tmp_path / "s", affine=AFFINE)
    assert not (tmp_path / "s.bdelta").exists() and paths.bdelta is None
    assert "-0 " not in (tmp_path / "s.bvec").read_text()
    write_matrix(tmp_path / "one", [-0.0, 1])
    assert (tmp_path / "one").read_text() == "0 1\n"


def test_real_tables_are_read_without_a_word(shared_data: Path) -> None:
    folder = shared_data / "diffusion" / "schemes"
    for path in sorted(folder.glob("*.bval")):
        table, notices = read_gradients(None, find_gradient_files(path.with_suffix(".nii.gz")))
        assert not notices and 30 <= (~table.is_b0).sum() <= 64
    table, notices = read_gradients(
        None, find_gradient_files(shared_data / "diffusion" / "hex" / "hex_dwi.nii.gz")
    )
    assert not notices
    assert sorted(set(table.b_delta[~table.is_b0])) == [-0.5, 1.0]


def test_plain_names_of_other_tools(shared_data: Path) -> None:
    folder = shared_data / "cord" / "tutorial" / "dmri"
    found = find_gradient_files(folder / "dmri.nii.gz")
    assert len(read_gradients(AFFINE, found).table) == 35


def test_impossible_input_never_ends_in_another_exception(tmp_path: Path) -> None:
    texts = [
        "",
        "0",
        "0 1000",
        "nan nan",
        "1 0 0\n0 1 0\n0 0 1",
        "a b",
        "0 0 0 1000",
        "-1 5",
        "1e400 3",
        "inf 0",
    ]
    for number, (first, second) in enumerate(itertools.product(texts, repeat=2)):
        bval = write(tmp_path / f"{number}.bval", first)
        bvec = write(tmp_path / f"{number}.bvec", second)
        with pytest.raises(InputError):
            read_gradients(AFFINE, bval=bval, bvec=bvec)
