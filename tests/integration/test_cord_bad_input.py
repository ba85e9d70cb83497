"""What a careless or hostile user hands to a cord run: named in one sentence, and no silent number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cord_tube import tube
from helpers_cord_run import analyse, reasons, rows

from cordqa.errors import ConfigError
from cordqa.io.bids_index import index_dataset
from cordqa.io.volumes import write_volume
from cordqa.records import Notice, Result, Severity, State, Status, Volume
from cordqa.workflow.cord import CordSettings, Execution, run_cord_participants

ONE = Execution(n_procs=1)


@pytest.fixture(scope="module")
def cord() -> tuple[Volume, Volume]:
    """A small image, and a mask of its cord."""
    image, truth = tube(shape=(40, 40, 12))
    image = replace(image, data=np.round(1000 * np.clip(image.data, 0, None)).astype(np.int16))
    return image, Volume(data=(truth > 0.5).astype(np.uint8), affine=image.affine)


def put(bids: Path, volume: Volume, name: str = "T2w") -> Path:
    path = bids / f"sub-01/anat/sub-01_{name}.nii.gz"
    write_volume(volume, path)
    return path


def give(bids: Path, volume: Volume, name: str = "T2w_label-SC_seg") -> None:
    write_volume(volume, bids / f"derivatives/labels/sub-01/anat/sub-01_{name}.nii.gz")


def warnings(result: Result, code: str) -> list[Notice]:
    return [n for n in result.notices if n.code == code and n.severity is Severity.WARNING]


def failure(result: Result) -> str:
    (reason,) = reasons(result, State.FAILED).values()
    return reason


# -- headers -----------------------------------------------------------------------------------------


def spoiled(path: Path, change: Callable[[nib.Nifti1Header, np.ndarray], None]) -> None:
    image = nib.load(path)
    header = image.header.copy()
    change(header, image.affine)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), path)


def no_codes(header: nib.Nifti1Header, _affine: np.ndarray) -> None:
    header["qform_code"] = header["sform_code"] = 0


def other_qform(header: nib.Nifti1Header, affine: np.ndarray) -> None:
    moved = affine.copy()
    moved[:3, 3] += 30
    header.set_sform(affine, 1)
    header.set_qform(moved, 1)


def same_forms(header: nib.Nifti1Header, affine: np.ndarray) -> None:
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (no_codes, "input.no-orientation", "does not say how the image lies"),
        (other_qform, "input.orientation", "contradict each other by up to 52.0 mm: sform is used"),
    ],
)
def test_doubtful_orientation_is_said(
    cord: tuple[Volume, Volume],
    tmp_path: Path,
    change: Callable[[nib.Nifti1Header, np.ndarray], None],
    code: str,
    words: str,
) -> None:
    spoiled(put(tmp_path / "bids", cord[0]), change)
    (notice,) = warnings(analyse(tmp_path / "bids", tmp_path / "out"), code)
    assert words in notice.message


def test_orientation_without_doubt_is_not_mentioned(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    spoiled(put(tmp_path / "bids", cord[0]), same_forms)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert not [n for n in result.notices if "orientation" in n.code]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds colours, not values"),
        (np.dtype(np.complex64), "holds complex values"),
    ],
)
def test_voxels_without_one_real_value_are_refused(tmp_path: Path, kind: np.dtype, words: str) -> None:
    path = tmp_path / "bids/sub-01/anat/sub-01_T2w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 5), dtype=kind), np.eye(4)), path)
    assert words in failure(analyse(tmp_path / "bids", tmp_path / "out"))


# -- masks and labels --------------------------------------------------------------------------------


def test_a_mask_with_a_gap_is_said(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    image, mask = cord
    put(tmp_path / "bids", image)
    data = mask.data.copy()
    data[:, :, 4:7] = 0
    give(tmp_path / "bids", replace(mask, data=data))
    (notice,) = warnings(analyse(tmp_path / "bids", tmp_path / "out"), "cord.mask-gap")
    assert "3 slices between slice 4 and slice 6" in notice.message


def test_a_label_at_two_heights_is_refused(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    image, mask = cord
    put(tmp_path / "bids", image)
    give(tmp_path / "bids", mask)
    points = np.zeros(image.data.shape, dtype=np.uint8)
    points[20, 20, 2] = points[20, 20, 9] = 3
    give(tmp_path / "bids", Volume(data=points, affine=image.affine), "T2w_label-discs_dlabel")
    result = analyse(tmp_path / "bids", tmp_path / "out")
    assert "label 3 is given twice (found slices 2 and 9, 35 mm apart" in failure(result)
    assert rows(result, "CSA", "cord")[0].value > 0  # what needs no level is still measured


def test_levels_of_another_image_are_said_to_be_carried(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    image, mask = cord
    for name in ("T2w", "T1w"):
        put(tmp_path / "bids", image, name)
        give(tmp_path / "bids", mask, f"{name}_label-SC_seg")
    points = np.zeros(image.data.shape, dtype=np.uint8)
    points[20, 20, 6] = 4
    give(tmp_path / "bids", Volume(data=points, affine=image.affine), "T1w_label-discs_dlabel")
    result = analyse(tmp_path / "bids", tmp_path / "out")
    (notice,) = [n for n in result.notices if n.code == "cord.levels-carried"]
    assert notice.where == "sub-01 T2w" and "carried over from T1w" in notice.message
    levels = {r.level for r in result.measurements if r.entities.acquisition == "T2w"}
    assert {"C3", "C4"} <= levels


# -- magnetization transfer --------------------------------------------------------------------------


def protocol(bids: Path, cord: tuple[Volume, Volume], off: Volume) -> None:
    put(bids, cord[0], "mt-on_MTS")
    give(bids, cord[1], "mt-on_MTS_label-SC_seg")
    put(bids, off, "mt-off_MTS")


@pytest.mark.parametrize("kind", ["far", "blank", "same"])
def test_images_that_are_no_protocol_give_no_mtr(
    cord: tuple[Volume, Volume], tmp_path: Path, kind: str
) -> None:
    image = cord[0]
    away = image.affine.copy()
    away[:3, 3] += 500
    off = {
        "far": replace(image, affine=away),
        "blank": replace(image, data=np.zeros_like(image.data)),
        "same": image,
    }[kind]
    protocol(tmp_path / "bids", cord, off)
    result = analyse(tmp_path / "bids", tmp_path / "out")
    words = "hold the same values" if kind == "same" else "MT-off shows no signal where the cord lies"
    assert words in failure(result)
    quantities = {r.quantity for r in result.measurements}
    assert "MTR" not in quantities and "CSA" in quantities


def test_exchanged_mt_images_are_said(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    dark = replace(cord[0], data=(cord[0].data * 0.6).astype(np.int16))
    protocol(tmp_path / "bids", cord, dark)
    (notice,) = warnings(analyse(tmp_path / "bids", tmp_path / "out"), "mt.order")
    assert "exchanged" in notice.message


# -- folders -----------------------------------------------------------------------------------------


def test_results_below_derivatives_are_not_taken_for_masks_of_the_user(
    cord: tuple[Volume, Volume], tmp_path: Path
) -> None:
    bids = tmp_path / "bids"
    put(bids, cord[0])
    out = bids / "derivatives" / "cordqa"
    first = run_cord_participants(bids, out, execution=ONE)
    again = run_cord_participants(bids, out, execution=ONE)
    assert [o.state for o in first.outcomes] == [State.DONE]
    assert "1 of them done before" in again.summary
    assert not [n for n in again.notices if n.severity is Severity.WARNING]
    redone = analyse(bids, tmp_path / "elsewhere")
    assert not [r for r in redone.measurements if "user" in r.engine]
    # Named on purpose they are used.
    named = index_dataset(bids, derivatives=[out])
    assert [f for f in named.files if f.derivative]


@pytest.mark.parametrize("place", [".", "derivatives", "sub-01/out", "masks"])
def test_output_among_the_data_is_refused(cord: tuple[Volume, Volume], tmp_path: Path, place: str) -> None:
    bids = tmp_path / "bids"
    put(bids, cord[0])
    (bids / "masks").mkdir()
    with pytest.raises(ConfigError, match="lies among the data"):
        run_cord_participants(bids, bids / place, settings=CordSettings(derivatives=(bids / "masks",)))


def test_folders_that_hold_no_participant_are_said(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    put(tmp_path, cord[0])
    (tmp_path / "sub-02").mkdir()
    (tmp_path / "sub-a_b/anat").mkdir(parents=True)
    (tmp_path / "sub-a_b/anat/sub-a_b_T2w.nii.gz").touch()
    found = " ".join(n.message for n in index_dataset(tmp_path).notices)
    assert "without any file: sub-02" in found
    assert "letters and digits alone: sub-a_b" in found


# -- reviews and summaries ---------------------------------------------------------------------------


def test_a_mark_on_a_slice_that_is_not_there_is_said(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    put(tmp_path / "bids", cord[0])
    marks = tmp_path / "marks.yaml"
    marks.write_text("- image: sub-01_T2w\n  slices:\n  - {slice: 999, status: fail}\n")
    result = analyse(tmp_path / "bids", tmp_path / "out", exclude_from=marks)
    (notice,) = warnings(result, "cord.mark-unknown")
    assert "slice 999" in notice.message


def test_a_file_of_marks_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude-from: does not exist"):
        run_cord_participants(
            tmp_path, tmp_path / "out", settings=CordSettings(exclude_from=tmp_path / "marks.yaml")
        )


def test_a_run_with_a_failure_does_not_pass(cord: tuple[Volume, Volume], tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    put(bids, cord[0])
    (bids / "sub-02/anat").mkdir(parents=True)
    (bids / "sub-02/anat/sub-02_T2w.nii.gz").write_bytes(b"no image")
    result = run_cord_participants(bids, tmp_path / "out", execution=ONE)
    assert result.status is Status.WARN
    assert {o.what: o.state for o in result.outcomes} == {"sub-01": State.DONE, "sub-02": State.FAILED}
