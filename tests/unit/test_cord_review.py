"""Marks of a reviewer: what is read, what it leaves out, and that no mark is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.errors import ConfigError
from cordqa.io.bids_index import BidsFile
from cordqa.records import Outcome, State
from cordqa.workflow.cord_review import (
    LEFT_SLICE,
    Mark,
    SliceMark,
    exclusions,
    format_marks,
    left_slices,
    read_exclusions,
    read_review,
    review_notices,
    slice_exclusions,
    why_excluded,
)

#: What the page of a participant exports (``reports/review.js``); the page is held to it elsewhere.
EXPORTED = """\
# Marks of a reviewer, for: cordqa cord ... --exclude-from FILE
- image: "sub-01_ses-A1_T2w"
  status: fail
  reason: "mask \\"leaks\\": C6 # see 12"
  slices:
  - slice: 3
    status: artefact
    reason: "motion"
  - slice: 12
    status: pass
  reviewer: "Noé \\u2028"
  date: "2025-03-01T10:20:00Z"
- image: "sub-01_ses-A1_flip-1_mt-on_MTS"
  slices:
  - slice: 0
    status: fail
"""
MARKS = (
    Mark(
        image="sub-01_ses-A1_T2w",
        status="fail",
        reason='mask "leaks": C6 # see 12',
        reviewer="Noé \u2028",
        date="2025-03-01T10:20:00Z",
        slices={3: SliceMark(status="artefact", reason="motion"), 12: SliceMark(status="pass")},
    ),
    Mark(image="sub-01_ses-A1_flip-1_mt-on_MTS", status="", slices={0: SliceMark(status="fail")}),
)


def review(folder: Path, text: str, name: str = "review.yaml") -> tuple[Mark, ...]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_review(path)


def bids_file(name: str) -> BidsFile:
    return BidsFile(
        root=Path("bids"),
        relative=f"sub-01/anat/{name}",
        entities={"sub": "01"},
        suffix="T2w",
        source_suffix="",
        extension=".nii.gz",
        datatype="anat",
        derivative="",
    )


def test_what_a_page_exports_is_read(tmp_path):
    first, second = review(tmp_path, EXPORTED)
    assert (first.image, first.status, first.reason) == (
        "sub-01_ses-A1_T2w",
        "fail",
        'mask "leaks": C6 # see 12',
    )
    assert (first.reviewer, first.date) == ("Noé", "2025-03-01T10:20:00Z")
    assert first.slices == MARKS[0].slices
    assert (second.status, second.slices) == ("", {0: SliceMark(status="fail")})


def test_the_format_is_written_as_the_page_writes_it():
    assert format_marks(MARKS) == EXPORTED


TEXT = st.text(max_size=40).map(lambda text: " ".join("".join(c for c in text if c.isprintable()).split()))
SLICES = st.dictionaries(
    st.integers(0, 400),
    st.builds(SliceMark, status=st.sampled_from(["pass", "fail", "artefact"]), reason=TEXT),
)
ENTRIES = st.builds(
    Mark,
    image=st.from_regex(r"sub-[A-Za-z0-9]{1,8}_(T2w|MTS)", fullmatch=True),
    status=st.sampled_from(["pass", "fail", "artefact"]),
    reason=TEXT,
    slices=SLICES,
)


@given(st.lists(ENTRIES, max_size=5))
def test_every_mark_survives_writing_and_reading(tmp_path_factory, marks):
    assert review(tmp_path_factory.mktemp("marks"), format_marks(marks)) == tuple(marks)


@given(st.text(max_size=60))
def test_any_text_as_a_reason_leaves_yaml_that_can_be_read(tmp_path_factory, text):
    text = text.encode("utf-8", "replace").decode("utf-8")
    (mark,) = review(
        tmp_path_factory.mktemp("marks"), format_marks([Mark(image="a_T2w", status="fail", reason=text)])
    )
    assert mark.status == "fail"


def test_lists_of_several_pages_can_stand_in_one_file(tmp_path):
    marks = review(tmp_path, EXPORTED + format_marks([Mark(image="sub-02_T2w", status="pass")]))
    assert [mark.image for mark in marks][-1] == "sub-02_T2w"
    assert len(marks) == 3


def test_a_folder_holds_the_marks_of_all_its_files(tmp_path):
    for who in ("01", "02"):
        (tmp_path / f"review_sub-{who}.yaml").write_text(f"- {{image: sub-{who}_T2w, status: fail}}\n")
    (tmp_path / "notes.txt").write_text("- nothing")
    assert set(read_exclusions(tmp_path)) == {"sub-01_T2w", "sub-02_T2w"}
    with pytest.raises(ConfigError, match="no file of marks"):
        read_review((tmp_path / "empty", (tmp_path / "empty").mkdir())[0])


def test_a_page_without_marks_exports_a_file_that_leaves_nothing_out(tmp_path):
    assert review(tmp_path, format_marks([])) == ()
    assert read_review(None) == ()


def test_the_last_word_of_a_reviewer_counts_and_one_doubt_among_several_is_enough(tmp_path):
    text = (
        "- {image: a_T2w, status: pass, reviewer: N, date: 2025-03-02}\n"
        "- {image: a_T2w, status: fail, reviewer: N, date: 2025-03-01}\n"
        "- {image: b_T2w, status: fail, reviewer: N}\n"
        "- {image: b_T2w, status: pass, reviewer: M}\n"
        "- {image: c_T2w, status: fail}\n"
        "- {image: c_T2w, status: pass}\n"
    )
    left = exclusions(review(tmp_path, text))
    assert set(left) == {"b_T2w", "c_T2w"}
    assert left["b_T2w"] == "marked 'fail' by N"


def test_reasons_name_reviewer_and_day(tmp_path):
    left = exclusions(review(tmp_path, EXPORTED))
    assert left["sub-01_ses-A1_T2w"].startswith("marked 'fail' by Noé on 2025-03-01: mask")
    dated = review(tmp_path, "- {image: a_T2w, status: artifact, date: 2025-03-01}\n")
    assert exclusions(dated) == {"a_T2w": "marked 'artefact' by a reviewer on 2025-03-01"}


def test_marks_on_slices_leave_slices_out_and_not_the_image(tmp_path):
    left = exclusions(review(tmp_path, EXPORTED))
    mt = bids_file("sub-01_ses-A1_flip-1_mt-on_MTS.nii.gz")
    assert why_excluded(left, mt) == ""
    assert slice_exclusions(left, mt) == {0: "marked 'fail' by a reviewer"}
    t2w = bids_file("sub-01_ses-A1_T2w.nii.gz")
    assert list(slice_exclusions(left, t2w)) == [3]
    assert slice_exclusions(left, bids_file("sub-01_ses-A1_T2.nii.gz")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "- {image: a_T2w, slices: {12: fail}}\n",
        "- {image: a_T2w, slices: [12]}\n",
        "- {image: a_T2w, slices: [{slice: -1, status: fail}]}\n",
        "- {image: a_T2w, slices: [{slice: 1.5, status: fail}]}\n",
        "- {image: a_T2w, slices: [{slice: true, status: fail}]}\n",
        "- {image: a_T2w, slices: [{slice: 1}]}\n",
        "- {image: a_T2w, slices: []}\n",
        "- {image: a_T2w}\n",
        "- {image: '  ', status: fail}\n",
        "- {image: a_T2w, status: maybe}\n",
        "- {image: a_T2w, status: fail, date: 2025-99-99}\n- 3\n",
        "- {image: a_T2w, status: fail}\n---\n- {image: b_T2w, status: fail}\n",
        "&a [*a]\n",
    ],
)
def test_a_mark_that_cannot_be_read_stops_the_run(tmp_path, text):
    with pytest.raises(ConfigError, match=r"exclude-from: review\.yaml"):
        review(tmp_path, text)


def test_marks_without_effect_are_named(tmp_path):
    marks = review(tmp_path, EXPORTED)
    known = {"sub-01_ses-A1_T2w"}
    outcome = Outcome(
        what="sub-01_ses-A1 T2w slice 3: values",
        state=State.SKIPPED,
        code=LEFT_SLICE,
        sources=("sub-01/ses-A1/anat/sub-01_ses-A1_T2w.nii.gz",),
    )
    done = left_slices([outcome])
    assert done == {"sub-01_ses-A1_T2w, slice 3"}
    info, unknown = review_notices(marks, known, done)
    assert "1 fail (reviewer: Noé)" in info.message
    assert (unknown.code, unknown.where) == ("cord.mark-unknown", "sub-01_ses-A1_flip-1_mt-on_MTS")
    _, late = review_notices(marks[:1], known, set())
    assert (late.code, late.where) == ("cord.mark-late", "sub-01_ses-A1_T2w, slice 3")
    assert review_notices((), known) == ()
