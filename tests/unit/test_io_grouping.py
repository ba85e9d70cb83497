"""Sorting of frames into sets: what belongs to one fit, what repeats, what is missing."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from helpers_dicom import inversion_series, mr_image, picture, uid, write
from hypothesis import given, settings
from hypothesis import strategies as st

from cordqa.io.folder import read_folder
from cordqa.io.frames import Frame, Scanner, Stored
from cordqa.io.grouping import (
    SetPlan,
    drop_copies,
    drop_surveys,
    drop_time_series,
    group_frames,
    snap,
)
from cordqa.io.naming import name_sets
from cordqa.records import Acquisition, Part

SIEMENS = Scanner("Siemens", "Aera", 1.5, "1")
_numbers = itertools.count()


@dataclass(frozen=True)
class _File:
    source: str

    def load(self, indices: Sequence[int]) -> Iterator[tuple[int, Stored]]:
        raise NotImplementedError


def _frame(
    *,
    sequence: str = "inversion recovery",
    ti: float = math.nan,
    te: float = 0.012,
    tr: float = 2.0,
    fa: float = 90.0,
    b: float = math.nan,
    z: float = 0.0,
    series: str = "s",
    minute: int = 0,
    **fields: object,
) -> Frame:
    acquisition = Acquisition(
        inversion_time_s=ti,
        echo_time_s=te,
        repetition_time_s=tr,
        flip_angle_deg=fa,
        b_value_s_per_mm2=b,
        slice_thickness_mm=5.0,
        field_strength_T=1.5,
        sequence=sequence,
    )
    frame = Frame(
        file=_File(f"f{next(_numbers):05d}"),
        index=0,
        rows=8,
        columns=8,
        position=(0.0, 0.0, z),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing=(1.0, 1.0),
        acquisition=acquisition,
        scanner=SIEMENS,
        family=sequence,
        acquired=f"2024-01-05T{10 + minute // 60:02d}:{minute % 60:02d}:00",
        study_date="20240105",
        study_uid="study",
        series_uid=series,
    )
    return replace(frame, **fields)  # type: ignore[arg-type]


def _values(plan: SetPlan, name: str) -> list[float]:
    return [getattr(image[0].acquisition, name) for image in plan.stack.images]


TIMES = (0.05, 0.1, 0.2, 0.4, 0.8)


def _inversion(times: Sequence[float] = TIMES, *, minute: int = 0, **fields: object) -> list[Frame]:
    return [
        _frame(**{"ti": ti, "minute": minute + i, "series": f"{minute} {ti}", **fields})  # type: ignore[arg-type]
        for i, ti in enumerate(times)
    ]


def _train(times: Sequence[float], *, series: str = "e", minute: int = 0, **fields: object) -> list[Frame]:
    return [
        _frame(**{"sequence": "spin echo", "te": te, "series": series, "minute": minute, **fields})  # type: ignore[arg-type]
        for te in times
    ]


def test_one_series_per_inversion_time_becomes_one_set() -> None:
    (plan,) = group_frames(_inversion())
    assert plan.axis == "ti"
    assert _values(plan, "inversion_time_s") == list(TIMES)


def test_repetition_time_may_follow_the_inversion_time() -> None:
    frames = [_frame(ti=ti, tr=tr, series=str(ti)) for ti, tr in ((0.05, 1.0), (0.4, 1.26), (0.8, 2.46))]
    (plan,) = group_frames(frames)
    assert _values(plan, "repetition_time_s") == [1.0, 1.26, 2.46]


def test_two_inversion_protocols_of_different_repetition_time_are_kept_apart() -> None:
    frames = _inversion(tr=2.0) + _inversion(tr=5.0, minute=30)
    plans = group_frames(frames)
    assert sorted(set(_values(p, "repetition_time_s")).pop() for p in plans) == [2.0, 5.0]


def test_inversion_recovery_multi_echo_and_flip_angles_are_three_sets() -> None:
    angles = [
        _frame(sequence="gradient echo", te=0.002, tr=0.005, fa=fa, series=f"v{fa}", minute=40)
        for fa in (2, 5, 10, 20)
    ]
    frames = _inversion() + _train((0.01, 0.02, 0.03), minute=20) + angles
    random.Random(0).shuffle(frames)
    plans = group_frames(frames)
    assert [p.axis for p in plans] == ["ti", "te", "fa"]
    assert [len(p.stack.images) for p in plans] == [5, 3, 4]
    assert [p.multi_echo for p in plans] == [False, True, False]


def test_single_echo_series_of_different_echo_times_are_pooled() -> None:
    frames = [f for te in (0.01, 0.04, 0.08) for f in _train((te,), series=f"s{te}")]
    (plan,) = group_frames(frames)
    assert plan.axis == "te" and not plan.multi_echo


def test_two_echo_trains_are_not_mixed() -> None:
    plans = group_frames(_train((0.008, 0.016, 0.024), series="a") + _train((0.01, 0.02, 0.03), series="b"))
    assert [_values(p, "echo_time_s") for p in plans] == [[0.008, 0.016, 0.024], [0.01, 0.02, 0.03]]


def test_flip_angles_with_several_echoes_give_one_set_per_echo_time() -> None:
    frames = [
        _frame(sequence="gradient echo", te=te, tr=0.02, fa=fa, series=f"{fa}")
        for fa in (4, 20)
        for te in (0.002, 0.004, 0.006)
    ]
    plans = group_frames(frames)
    assert [p.axis for p in plans] == ["fa"] * 3
    assert sorted(_values(p, "echo_time_s")[0] for p in plans) == [0.002, 0.004, 0.006]


def test_saturation_recovery_varies_repetition_time() -> None:
    (plan,) = group_frames([_frame(sequence="spin echo", tr=tr, series=f"{tr}") for tr in (0.3, 1.0, 3.0)])
    assert plan.axis == "tr"


def test_b_values_and_directions_are_images_not_repeats() -> None:
    frames = [_frame(sequence="spin echo", b=0.0)]
    frames += [
        _frame(sequence="spin echo", b=b, direction=d)
        for b in (500.0, 1000.0)
        for d in ((1, 0, 0), (0, 1, 0))
    ]
    (plan,) = group_frames(frames)
    assert plan.axis == "b" and len(plan.stack.images) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"part": Part.PHASE},
        {"scanner": Scanner("Siemens", "Aera", 1.5, "2")},
        {"scanner": Scanner("Siemens", "Aera", 3.0, "1")},
        {"study_uid": "other"},
        {"patient_key": "other"},
        {"rows": 16},
        {"spacing": (1.0, 1.1)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
        {"position": (5.0, 0.0, 0.0)},
        {"family": "inversion recovery 3D"},
        {"processing": "DIS2D"},
        {"te": 0.03},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_must_agree_within_a_set(change: dict[str, object]) -> None:
    frames = _inversion() + _inversion(minute=30, **change)
    plans = group_frames(frames)
    assert [len(p.stack.images) for p in plans] == [5, 5]


def test_rounding_of_positions_and_times_does_not_split_a_set() -> None:
    frames = [
        replace(f, position=(1e-4 * i, 0.0, 1e-3 * i), orientation=(1.0, 1e-6 * i, 0.0, 0.0, 1.0, 0.0))
        for i, f in enumerate(_inversion(te=0.012))
    ]
    frames[2] = replace(frames[2], acquisition=replace(frames[2].acquisition, echo_time_s=0.012000001))
    (plan,) = group_frames(frames)
    assert len(plan.stack.images) == 5


# Repeats


def test_a_repeated_protocol_gives_runs_in_order() -> None:
    plans = group_frames(_inversion(minute=30) + _inversion(minute=0))
    assert [name.entities.run for name in name_sets(plans)] == ["1", "2"]
    assert plans[0].first.acquired < plans[1].first.acquired
    assert all(
        {f.series_uid.split()[0] for i in p.stack.images for f in i} == {m}
        for p, m in zip(plans, ("0", "30"), strict=True)
    )


def test_images_repeated_one_by_one_give_the_same_runs() -> None:
    frames = [
        _frame(ti=ti, series=f"{ti} {r}", minute=2 * i + r) for i, ti in enumerate(TIMES) for r in range(2)
    ]
    plans = group_frames(frames)
    assert [len(p.stack.images) for p in plans] == [5, 5]
    assert {f.series_uid[-1] for i in plans[0].stack.images for f in i} == {"0"}


def test_an_image_missing_from_the_first_run_is_not_taken_from_the_second() -> None:
    first, second = _inversion(minute=0), _inversion(minute=30)
    del first[2]
    plans = group_frames(first + second)
    assert [len(p.stack.images) for p in plans] == [4, 5]
    assert {f.series_uid.split()[0] for i in plans[0].stack.images for f in i} == {"0"}


def test_repeated_echo_trains_are_runs_even_when_one_is_incomplete() -> None:
    times = (0.01, 0.02, 0.03, 0.04)
    frames = _train(times, series="a", minute=0) + _train(times[:3], series="b", minute=9)
    plans = group_frames(frames)
    assert [len(p.stack.images) for p in plans] == [4, 3]
    assert [n.entities.run for n in name_sets(plans)] == ["1", "2"]


def test_repetitions_within_one_series_are_told_by_the_header() -> None:
    frames = [_frame(ti=ti, series="one", temporal_position=r, minute=r) for r in (1, 2, 3) for ti in TIMES]
    plans = group_frames(frames)
    assert [len(p.stack.images) for p in plans] == [5, 5, 5]
    assert all(len({f.temporal_position for i in p.stack.images for f in i}) == 1 for p in plans)


# Slices


def test_slices_become_a_stack_in_the_order_of_position() -> None:
    frames = [f for z in (10.0, 0.0, 5.0) for f in _inversion(z=z)]
    (plan,) = group_frames(frames)
    assert [f.position[2] for f in plan.stack.images[0]] == [0.0, 5.0, 10.0]


def test_two_plates_in_one_series_are_two_slices() -> None:
    (plan,) = group_frames(_inversion(z=0.0) + _inversion(z=40.0))
    assert [f.position[2] for f in plan.stack.images[0]] == [0.0, 40.0]


def test_two_plates_in_separate_series_are_separate_sets() -> None:
    plans = group_frames(_inversion(z=0.0) + _inversion(z=40.0, minute=30))
    assert [len(p.stack.images[0]) for p in plans] == [1, 1]


def test_an_incomplete_plate_does_not_cost_the_other_an_image() -> None:
    plans = group_frames(_inversion(z=0.0) + _inversion(TIMES[:3], z=40.0))
    assert sorted(len(p.stack.images) for p in plans) == [3, 5]
    assert all(not p.stack.left_out for p in plans)


def test_a_slice_missing_from_one_image_of_a_volume_is_left_out_and_kept_count_of() -> None:
    frames = [f for z in range(0, 50, 5) for f in _inversion(z=float(z))]
    del frames[22]
    (plan,) = group_frames(frames)
    assert len(plan.stack.images) == 5 and len(plan.stack.images[0]) == 9
    assert len(plan.stack.left_out) == 4


def test_an_interrupted_last_image_is_left_out_rather_than_the_volume() -> None:
    frames = [f for z in range(0, 50, 5) for f in _inversion(TIMES[:4], z=float(z))]
    frames.append(_frame(ti=0.8, z=0.0, series="0 0.8", minute=9))
    (plan,) = group_frames(frames)
    assert len(plan.stack.images) == 4 and len(plan.stack.images[0]) == 10
    assert [f.acquisition.inversion_time_s for f in plan.stack.left_out] == [0.8]


# What is left out before


def test_copies_of_a_file_count_once() -> None:
    frames = [replace(f, instance_uid=f"i{i}") for i, f in enumerate(_inversion())]
    kept, dropped = drop_copies([*frames, *frames])
    assert kept == frames and dropped == 5


def test_an_anonymiser_that_gives_all_one_identifier_loses_nothing() -> None:
    kept, dropped = drop_copies([replace(f, instance_uid="same") for f in _inversion()])
    assert len(kept) == 5 and dropped == 0


def test_a_series_in_three_orientations_is_a_survey() -> None:
    planes = ((1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1))
    survey = [_frame(sequence="gradient echo", series="survey", orientation=p) for p in planes]
    kept, dropped = drop_surveys(survey + _inversion())
    assert dropped == 3 and len(kept) == 5


def test_a_time_series_is_left_out_but_ten_repeats_are_not() -> None:
    many = [_frame(sequence="spin echo", series="fmri", minute=i) for i in range(40)]
    ten = [_frame(sequence="spin echo", series="ten", minute=i) for i in range(10)]
    kept, dropped = drop_time_series(many + ten)
    assert dropped == 40 and len(kept) == 10


# Missing and odd parameters


def test_frames_without_inversion_time_stay_single() -> None:
    plans = group_frames([*_inversion(), _frame(series="x")])
    assert sorted(len(p.stack.images) for p in plans) == [1, 5]


def test_all_parameters_missing_is_not_an_error() -> None:
    nan = math.nan
    plans = group_frames(
        [_frame(ti=nan, te=nan, tr=nan, fa=nan, sequence="", series=f"{i}") for i in range(3)]
    )
    assert sum(len(p.stack.images) for p in plans) == 3


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_snap_never_moves_a_value_beyond_the_tolerance(values: list[float]) -> None:
    snapped = snap([*values, math.nan, math.inf], absolute=1e-4, relative=1e-3)
    assert set(snapped) == set(values)
    assert all(0 <= v - s <= max(1e-4, 1e-3 * s) + 1e-12 for v, s in snapped.items())


@given(st.randoms(use_true_random=False), st.data())
@settings(max_examples=40, deadline=None)
def test_the_order_of_files_changes_nothing_and_no_frame_is_lost(
    rng: random.Random, data: st.DataObject
) -> None:
    frames = _inversion() + _train((0.01, 0.02, 0.03), minute=20) + _inversion(minute=40)
    frames += [f for z in (40.0, 45.0) for f in _inversion(z=z, minute=60)]
    keep = data.draw(st.lists(st.sampled_from(frames), unique_by=id, min_size=1))
    expected = _summary(group_frames(keep))
    shuffled = list(keep)
    rng.shuffle(shuffled)
    assert _summary(group_frames(shuffled)) == expected
    assert sorted(s for plan in expected for s in plan) == sorted(f.file.source for f in keep)


def _summary(plans: list[SetPlan]) -> list[tuple[str, ...]]:
    return [
        tuple(f.file.source for image in (*p.stack.images, p.stack.left_out) for f in image) for p in plans
    ]


# Names


def test_two_machines_of_one_model_get_stable_suffixes() -> None:
    others = [Scanner("Siemens", "Aera", 1.5, "2"), Scanner("GE", "MR450w", 1.5, "")]
    frames = _inversion() + _inversion(scanner=others[0]) + _inversion(scanner=others[1])
    names = {n.entities.scanner for n in name_sets(group_frames(frames))}
    alone = {n.entities.scanner for n in name_sets(group_frames(_inversion()))}
    assert alone == {"Siemens Aera 1.5 T"}
    assert "GE MR450w 1.5 T" in names and len(names) == 3
    assert sum(n.startswith("Siemens Aera 1.5 T (") for n in names) == 2
    assert not any("12345" in n for n in names)


def test_sessions_are_named_by_date_and_labels_say_what_differs() -> None:
    later = _inversion(study_uid="s2", study_date="20240201", acquired="2024-02-01T09:00:00")
    same_day = _inversion(study_uid="s3", minute=50)
    names = name_sets(group_frames(_inversion() + later + same_day))
    assert [n.entities.session for n in names] == ["20240105", "20240105-2", "20240201"]
    assert names[0].label == "Siemens Aera 1.5 T: inversion recovery, 5 TI 50 to 800 ms, session 20240105"
    assert len({n.label for n in names}) == 3


def test_labels_of_other_sets() -> None:
    def label(frames: list[Frame]) -> str:
        return name_sets(group_frames(frames))[0].label.removeprefix("Siemens Aera 1.5 T: ")

    assert label(_train((0.00964, 0.01928))) == "multi-echo spin echo, 2 TE 9.64 to 19.28 ms"
    angles = [_frame(sequence="gradient echo", fa=fa, series=f"{fa}") for fa in (2, 20)]
    assert label(angles) == "variable flip angle, 2 flip angles 2 to 20°"
    assert label([_frame(ti=0.05)]) == "inversion recovery, TI 50 ms"
    assert label([_frame(sequence="", te=math.nan)]) == "image, TE unknown"


# From files


def test_sorting_uses_headers_and_not_names(tmp_path: Path) -> None:
    inversion_series(tmp_path / "b" / "a", [800, 50, 200, 400])
    (images,) = read_folder(tmp_path).sets
    assert images.values("inversion_time_s") == pytest.approx([0.05, 0.2, 0.4, 0.8])
    np.testing.assert_array_equal(images.data[0, 0], picture(2))
    assert images.label == "Siemens Aera 1.5 T: inversion recovery, 4 TI 50 to 800 ms"
    assert images.entities.acquired == "2024-01-05T10:01:00"


def test_affine_maps_slice_row_column_to_ras(tmp_path: Path) -> None:
    for number, z in enumerate((30, 34, 38)):
        write(
            tmp_path / str(number),
            mr_image(picture(number), ImagePositionPatient=[-10, 20, z], InstanceNumber=number),
        )
    (images,) = read_folder(tmp_path).sets
    # PixelSpacing is 1.5 mm between rows (along +y of LPS) and 2 mm between columns (+x).
    corner = images.affine @ (2, 3, 4, 1)
    np.testing.assert_allclose(corner, (10 - 2 * 4, -20 - 1.5 * 3, 30 + 4 * 2, 1))
    assert images.spacing_mm == pytest.approx((4.0, 1.5, 2.0))
    np.testing.assert_array_equal(images.data[0, 2], picture(2))


def test_a_missing_slice_is_said(tmp_path: Path) -> None:
    for te, z in itertools.product((10, 20, 30), (0, 5, 10)):
        if (te, z) != (20, 10):
            write(
                tmp_path / f"{te}_{z}",
                mr_image(EchoTime=te, ImagePositionPatient=[0, 0, z], SeriesInstanceUID=uid("m")),
            )
    (images,) = read_folder(tmp_path).sets
    assert images.data.shape[:2] == (3, 2)
    (notice,) = images.notices
    assert notice.code == "set.incomplete"
    assert "10_10, 30_10" in notice.message and "2 complete slice(s)" in notice.message


def test_constant_and_missing_parameters_are_said(tmp_path: Path) -> None:
    write(tmp_path / "a", mr_image(np.zeros((8, 8), np.uint16), EchoTime=None, SliceThickness=None))
    (images,) = read_folder(tmp_path).sets
    messages = {n.code: n.message for n in images.notices}
    assert "every sample has the same value in a" in messages["image.constant"]
    assert "SliceThickness (0018,0050) is missing in a" in messages["header.missing"]
    assert any("EchoTime (0018,0081)" in n.message for n in images.notices)
    assert images.spacing_mm[0] == 1.0
