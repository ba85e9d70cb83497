"""Marks of a reviewer through a whole run: what they take out, what is said, and the way between pages."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from cordqa.errors import EmptyInputError
from cordqa.io.bids_index import index_dataset
from cordqa.io.results import read_result
from cordqa.records import Result, State
from cordqa.report import render_report
from cordqa.workflow.cord import CordSettings, Execution, run_cord_group, run_cord_participants
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_demo import write_cord_study
from cordqa.workflow.cord_participant import CordJob, analyse_unit
from cordqa.workflow.cord_review import read_exclusions

MARKS = """\
- image: sub-01_ses-A1_T2w
  slices:
  - {slice: 40, status: artefact, reason: motion}
  - {slice: 41, status: fail}
  - {slice: 9000, status: fail}
  reviewer: NS
  date: 2025-03-01
- image: sub-01_ses-A1_flip-1_mt-on_MTS
  slices: [{slice: 17, status: fail}, {slice: 0, status: fail}]
- {image: sub-01_ses-B1_T2w, status: fail, reason: mask leaks, reviewer: NS, date: 2025-03-02}
- {image: sub-01_ses-C1_T2w, status: pass, reviewer: NS}
- {image: sub-09_T2w, status: fail}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    write_cord_study(folder / "bids", seed=5, n_people=1, n_repeats=1)
    (folder / "review.yaml").write_text(MARKS)
    return folder


@pytest.fixture(scope="module")
def run(study: Path) -> tuple[Path, Result]:
    settings = CordSettings(exclude_from=study / "review.yaml")
    out = study / "out"
    one = Execution(n_procs=1)
    return out, run_cord_participants(
        study / "bids", out, settings=settings, execution=one, render=render_report
    )


def test_slices_that_were_marked_have_no_value_and_lower_the_coverage(run: tuple[Path, Result]) -> None:
    result = read_result(run[0] / "sub-01" / "ses-A1")
    rows = [r for r in result.measurements if r.quantity == "CSA" and "no angle" not in r.method]
    t2w = [r for r in rows if r.entities.acquisition == "T2w"]
    gone = [r for r in t2w if r.slice_number in (40, 41)]
    assert len(gone) == 2
    assert all(math.isnan(r.value) for r in gone)
    assert gone[0].flags[0] == "marked 'artefact' by NS on 2025-03-01: motion"
    (whole,) = [r for r in t2w if r.level == "all slices"]
    kept = [r.value for r in t2w if r.slice_number is not None and math.isfinite(r.value)]
    assert whole.value == pytest.approx(sum(kept) / len(kept))
    assert whole.coverage == pytest.approx(1 - 2 / (len(kept) + 2))
    assert any(flag.startswith("2 of ") for flag in whole.flags)


def test_slices_that_were_marked_leave_the_maps_as_well(study: Path, run: tuple[Path, Result]) -> None:
    def job(marks: bool) -> Result:
        path = study / "review.yaml" if marks else None
        return analyse_unit(
            CordJob(
                index=index_dataset(study / "bids"),
                subject="01",
                session="A1",
                out=study / "alone",
                settings=CordSettings(),
                work=study / "work",
                atlas=prepare_atlas(None, study / "work"),
                marks=read_exclusions(path),
            )
        )

    def voxels(result: Result, level: str) -> int:
        (row,) = [r for r in result.measurements if (r.quantity, r.region, r.level) == ("MTR", "WM", level)]
        return row.n_voxels

    before, after = job(False), job(True)
    assert voxels(after, "C4") == voxels(before, "C4")
    assert voxels(after, "C7") < voxels(before, "C7")
    (row,) = [r for r in after.measurements if (r.quantity, r.region, r.level) == ("MTR", "WM", "C7")]
    assert any("1 of 2 slices left out by a reviewer" in flag for flag in row.flags)


def test_every_mark_without_effect_is_said(run: tuple[Path, Result]) -> None:
    notices = {notice.code: notice for notice in run[1].notices}
    assert notices["cord.mark-unknown"].where == "sub-09_T2w"
    assert "NS" in notices["cord.reviewed"].message


def test_the_study_lists_what_was_left_out_with_reviewer_and_reason(
    study: Path, run: tuple[Path, Result]
) -> None:
    settings = CordSettings(exclude_from=study / "review.yaml")
    result = run_cord_group(run[0], settings=settings)
    skipped = {o.what: o.reason for o in result.outcomes if o.state is State.SKIPPED}
    assert skipped["sub-01_ses-A1 T2w slice 40: values"].endswith("by NS on 2025-03-01: motion")
    assert any(
        "sub-01_ses-B1" in what and why.endswith("by NS on 2025-03-02: mask leaks")
        for what, why in skipped.items()
    )
    # A slice that the image does not have was never left out of anything.
    late = next(notice for notice in result.notices if notice.code == "cord.mark-late")
    assert late.where == "sub-01_ses-A1_T2w, slice 9000"


def test_points_of_the_study_lead_to_the_pages_of_participants(run: tuple[Path, Result]) -> None:
    result = run_cord_group(run[0])
    (pages,) = [figure for figure in result.figures if figure.kind == "pages"]
    listed = {entry["name"]: entry["path"] for entry in pages.data["entries"]}
    assert listed["sub-01_ses-A1"] == "sub-01/ses-A1/report.html"
    assert all((run[0] / path).is_file() for path in listed.values())
    drawn = [figure for figure in result.figures if figure.kind == "profiles"]
    assert {figure.title for figure in drawn} >= {"Cross-sectional area, T2w", "MTR of WM, MTS"}
    names = {one["name"] for figure in drawn for group in figure.data["groups"] for one in group["profiles"]}
    assert names <= set(listed)
    # The levels of the scanner from GE fell with its T2w image, so that nothing of it can be compared.
    assert [group["label"] for group in drawn[-1].data["groups"]] == ["Philips", "Siemens"]


def test_pages_lead_to_their_neighbours_and_the_list_to_all(run: tuple[Path, Result]) -> None:
    out = run[0]
    pages = sorted(out.rglob("report.html"))
    assert len(pages) == 3
    for n, page in enumerate(pages):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r'<a (?:rel="(prev|next)" )?href="([^"#]+\.html)"', text)
        wanted = {"": out / "index.html"}
        wanted |= {"prev": pages[n - 1]} if n else {}
        wanted |= {"next": pages[n + 1]} if n + 1 < len(pages) else {}
        assert {rel: (page.parent / path).resolve() for rel, path in links} == wanted
    listing = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page.relative_to(out).as_posix()}"' in listing for page in pages)


def test_a_page_of_a_participant_is_small(run: tuple[Path, Result]) -> None:
    sizes = [page.stat().st_size for page in run[0].rglob("report.html")]
    assert max(sizes) < 1_000_000


@pytest.mark.parametrize("there", [True, False])
def test_a_study_before_its_participants_is_told_what_to_run(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with pytest.raises(EmptyInputError, match="participant' first"):
        run_cord_group(out)
    assert out.exists() is there
