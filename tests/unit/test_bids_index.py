"""Indexing of BIDS datasets: names, inheritance, the user's labels, and garbage."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.errors import ConfigError, InputError, OutputError, TooLargeError, UnreadableFileError
from cordqa.io.bids_ignore import Ignore
from cordqa.io.bids_index import BidsFile, BidsIndex, index_dataset
from cordqa.io.bids_labels import Role, find_user_files
from cordqa.io.bids_names import ENTITIES, format_name, parse_name, split_extension
from cordqa.io.derivatives import DerivativeInfo, derivative_path, write_dataset_description, write_derivative
from cordqa.io.volumes import read_volume
from cordqa.records import Severity, Volume


def make(root: Path, *names: str) -> Path:
    """Create empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(root: Path, name: str, data: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def only(index: BidsIndex, **query) -> BidsFile:
    (file,) = index.find(**query)
    return file


def test_entities_suffix_and_places(tmp_path: Path) -> None:
    make(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_acq-ax_run-2_echo-3_part-phase_T2star.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_flip-1_mt-on_MTS.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_inv-2_MP2RAGE.nii",
        "sub-02/dwi/sub-02_dwi.nii.gz",
    )
    index = index_dataset(tmp_path)
    assert index.subjects == ("01", "02")
    assert index.sessions("01") == ("a", "b")
    assert index.sessions("02") == ("",)
    file = only(
        index, suffix="T2star", subject="01", session="a", acquisition="ax", run="2", echo="3", part="phase"
    )
    assert file == only(index, suffix="T2star", sub="01", acq="ax")
    assert (file.datatype, file.extension, file.subject, file.session) == ("anat", ".nii.gz", "01", "a")
    assert file.path.is_file()
    assert only(index, suffix="MTS", mt="on", flip="1").suffix == "MTS"
    assert index.find(suffix="MTS", mt=None) == ()
    assert only(index, inversion="2").extension == ".nii"
    assert len(index.find(suffix=("MTS", "dwi"))) == 2
    assert len(index.find(datatype="anat")) == 3
    with pytest.raises(ConfigError, match="not a BIDS entity"):
        index.find(colour="red")


def test_sidecars_are_inherited_nearest_last(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/anat/sub-01_acq-ax_T2w.nii.gz", "sub-01/anat/sub-01_acq-sag_T2w.nii.gz")
    write(tmp_path, "T2w.json", {"EchoTime": 0.1, "Manufacturer": "A", "FlipAngle": 1})
    write(tmp_path, "acq-ax_T2w.json", {"EchoTime": 0.2})
    write(tmp_path, "sub-01/anat/sub-01_acq-ax_T2w.json", {"FlipAngle": 9})
    index = index_dataset(tmp_path)
    assert index.sidecar(only(index, acq="ax")) == {"EchoTime": 0.2, "Manufacturer": "A", "FlipAngle": 9}
    assert index.sidecar(only(index, acq="sag"))["EchoTime"] == 0.1


def test_gradients_are_inherited(tmp_path: Path) -> None:
    make(
        tmp_path,
        "sub-01/dwi/sub-01_dwi.nii.gz",
        "sub-01/dwi/sub-01_dwi.bval",
        "sub-02/dwi/sub-02_dwi.nii.gz",
        "sub-02/dwi/sub-02_acq-x_dwi.bval",
        "dwi.bval",
    )
    index = index_dataset(tmp_path)
    own = index.companion(only(index, subject="01"), ".bval")
    shared = index.companion(only(index, subject="02"), ".bval")
    assert own is not None
    assert own.name == "sub-01_dwi.bval"
    assert shared is not None
    assert shared.relative == "dwi.bval"
    assert index.companion(only(index, subject="01"), ".bvec") is None


SPINE_GENERIC = (
    "sub-amu01/anat/sub-amu01_T1w.nii.gz",
    "sub-amu01/anat/sub-amu01_T2w.nii.gz",
    "sub-amu01/anat/sub-amu01_T2star.nii.gz",
    "sub-amu01/anat/sub-amu01_flip-1_mt-on_MTS.nii.gz",
    "sub-amu01/dwi/sub-amu01_dwi.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T1w_label-SC_seg.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T1w_label-canal_seg.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T1w_label-discs_dlabel.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T1w_PAM50_seg.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2w_seg-manual.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2w_labels-disc-manual.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2w_label-pmj.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2w_label-rootlets_dseg.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2star_gmseg-manual.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_T2star_label-discs_desc-warp_dlabel.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_space-other_T1w_label-SC_seg.nii.gz",
    "derivatives/labels/sub-amu01/anat/sub-amu01_flip-1_mt-on_MTS_label-SC_seg.nii.gz",
    "derivatives/labels/sub-amu01/dwi/sub-amu01_rec-average_dwi_label-SC_seg.nii.gz",
    "derivatives/labels_softseg/sub-amu01/anat/sub-amu01_T1w_desc-softseg_label-SC_seg.nii.gz",
)


def test_labels_as_spine_generic_names_them(tmp_path: Path) -> None:
    index = index_dataset(make(tmp_path, *SPINE_GENERIC))

    def labels(**query: str) -> dict[Role, str]:
        found = find_user_files(index, only(index, **query))
        return {role: file.name for role, file in found.by_role.items()}

    assert labels(suffix="T1w") == {
        Role.CORD: "sub-amu01_T1w_label-SC_seg.nii.gz",
        Role.CANAL: "sub-amu01_T1w_label-canal_seg.nii.gz",
        Role.DISCS: "sub-amu01_T1w_label-discs_dlabel.nii.gz",
    }
    assert labels(suffix="T2w") == {
        Role.CORD: "sub-amu01_T2w_seg-manual.nii.gz",
        Role.DISCS: "sub-amu01_T2w_labels-disc-manual.nii.gz",
        Role.PMJ: "sub-amu01_T2w_label-pmj.nii.gz",
        Role.ROOTLETS: "sub-amu01_T2w_label-rootlets_dseg.nii.gz",
    }
    assert labels(suffix="T2star") == {
        Role.GREY_MATTER: "sub-amu01_T2star_gmseg-manual.nii.gz",
        Role.DISCS: "sub-amu01_T2star_label-discs_desc-warp_dlabel.nii.gz",
    }
    assert labels(suffix="MTS") == {Role.CORD: "sub-amu01_flip-1_mt-on_MTS_label-SC_seg.nii.gz"}
    assert labels(suffix="dwi") == {Role.CORD: "sub-amu01_rec-average_dwi_label-SC_seg.nii.gz"}


def test_labels_as_bids_names_them_need_to_name_their_image(tmp_path: Path) -> None:
    folder = "derivatives/mine/sub-01/anat"
    make(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        f"{folder}/sub-01_label-SC_mask.nii.gz",
        f"{folder}/sub-01_label-GM_desc-T1w_mask.nii.gz",
        f"{folder}/sub-01_desc-brain_mask.nii.gz",
        f"{folder}/sub-01_from-PAM50_to-T2w_mode-image_desc-T2w_xfm.json",
        f"{folder}/sub-01_from-PAM50_to-T2w_mode-image_desc-T2w_xfm.nii.gz",
    )
    index = index_dataset(tmp_path)
    found = find_user_files(index, only(index, suffix="T2w"))
    assert found.by_role == {}
    assert {key: file.extension for key, file in found.warps.items()} == {("PAM50", "T2w"): ".nii.gz"}
    assert "could belong to several images" in found.notices[0].message
    assert list(find_user_files(index, only(index, suffix="T1w")).by_role) == [Role.GREY_MATTER]
    write(
        tmp_path,
        f"{folder}/sub-01_label-SC_mask.json",
        {"Sources": ["bids:raw:sub-01/anat/sub-01_T2w.nii.gz"]},
    )
    index = index_dataset(tmp_path)
    assert list(find_user_files(index, only(index, suffix="T2w")).by_role) == [Role.CORD]
    assert list(find_user_files(index, only(index, suffix="T1w")).by_role) == [Role.GREY_MATTER]


def test_hand_drawn_labels_win_over_automatic_ones(tmp_path: Path) -> None:
    one, two = "derivatives/auto/sub-01/anat/", "derivatives/labels/sub-01/anat/"
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", f"{one}sub-01_T2w_label-SC_seg.nii.gz")
    make(tmp_path, f"{two}sub-01_T2w_label-SC_seg.nii.gz")
    write(
        tmp_path, f"{two}sub-01_T2w_label-SC_seg.json", {"GeneratedBy": [{"Name": "sct"}, {"Name": "Manual"}]}
    )
    index = index_dataset(tmp_path)
    found = find_user_files(index, only(index, suffix="T2w"))
    assert found.by_role[Role.CORD].derivative == "labels"
    assert "several files give the cord mask" in found.notices[0].message


def test_another_participant_or_session_never_lends_its_mask(tmp_path: Path) -> None:
    make(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
        "derivatives/labels/sub-01/ses-b/anat/sub-01_ses-b_T2w_label-SC_seg.nii.gz",
        "derivatives/labels/sub-02/anat/sub-01_T2w_label-SC_seg.nii.gz",
    )
    index = index_dataset(tmp_path)
    assert find_user_files(index, only(index, session="a")).by_role == {}
    assert list(find_user_files(index, only(index, session="b")).by_role) == [Role.CORD]
    assert any("another participant" in notice.message for notice in index.notices)


def test_derivatives_elsewhere_are_indexed(tmp_path: Path) -> None:
    make(tmp_path / "raw", "sub-01/anat/sub-01_T2w.nii.gz")
    make(tmp_path / "masks", "sub-01/anat/sub-01_T2w_label-SC_mask.nii.gz")
    index = index_dataset(tmp_path / "raw", derivatives=[tmp_path / "masks"])
    found = find_user_files(index, only(index, suffix="T2w"))
    assert found.by_role[Role.CORD].path.is_file()


def test_participants(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    table = "participant_id\tage\tsex\tmanufacturer\nsub-01\t30\tn/a\tSiemens\n02\t\tF\tGE\n"
    table += "sub-01\t99\tM\tx\nbad\n"
    (tmp_path / "participants.tsv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    index = index_dataset(tmp_path)
    assert index.participants == {
        "01": {"age": "30", "manufacturer": "Siemens"},
        "02": {"sex": "F", "manufacturer": "GE"},
    }
    messages = " ".join(notice.message for notice in index.notices)
    assert "twice" in messages
    assert "1 rows" in messages


@pytest.mark.parametrize(
    "table", ["", "id\tage\n01\t3\n", "participant_id\tage\tage\n01\t3\t4\n", "\x00\xff"]
)
def test_broken_participants_do_not_stop_the_study(tmp_path: Path, table: str) -> None:
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    (tmp_path / "participants.tsv").write_text(table, encoding="latin-1")
    index = index_dataset(tmp_path)
    assert index.participants == {}
    assert index.subjects == ("01",)


def test_bidsignore(tmp_path: Path) -> None:
    make(
        tmp_path,
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/anat/sub-01_acq-bad_T2w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-03/anat/sub-03_T2w.nii.gz",
    )
    (tmp_path / ".bidsignore").write_text(
        "# comment\n*acq-bad*\n/sub-02/\nsub-03/**\n!sub-03/anat/sub-03_T2w.nii.gz\n"
    )
    index = index_dataset(tmp_path)
    assert index.subjects == ("01", "03")
    assert len(index.find(suffix="T2w")) == 2
    assert any("bidsignore" in notice.message for notice in index.notices)


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.txt", "a/b.txt", True),
        ("a/*.txt", "a/b/c.txt", False),
        ("a/**/c.txt", "a/c.txt", True),
        ("a/**/c.txt", "a/x/y/c.txt", True),
        ("extra", "sub-01/extra/file", True),
        ("[ab].txt", "a.txt", True),
        ("[!ab].txt", "a.txt", False),
        ("[", "[", True),
        ("[z-a]", "b", False),
        ("a/b", "x/a/b", False),
        ("/a", "x/a", False),
        ("", "a", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
    ],
)
def test_ignore_patterns(pattern: str, path: str, ignored: bool) -> None:
    assert Ignore([pattern]).matches(path) is ignored


def test_links_that_loop_end(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    (tmp_path / "sub-02").symlink_to(tmp_path)
    (tmp_path / "sub-03").symlink_to(tmp_path / "sub-03")
    (tmp_path / "sub-04").symlink_to(tmp_path / "sub-01")
    (tmp_path / "sub-01" / "loop").symlink_to(tmp_path / "sub-01")
    (tmp_path / "sub-01" / "anat" / "again").symlink_to(tmp_path / "sub-01" / "anat")
    (tmp_path / "derivatives").symlink_to(tmp_path)
    index = index_dataset(tmp_path)
    assert [f.relative for f in index.find(suffix="T2w")] == ["sub-01/anat/sub-01_T2w.nii.gz"]
    assert any("links to another" in notice.message for notice in index.notices)


def test_a_linked_participant_and_a_file_that_is_not_fetched_are_kept(tmp_path: Path) -> None:
    make(tmp_path / "store", "x/anat/sub-01_T2w.nii.gz")
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "sub-01").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "store" / "x" / "anat" / "sub-01_T1w.nii.gz").symlink_to("../../annex/absent")
    index = index_dataset(tmp_path / "bids")
    assert len(index.find(subject="01")) == 2


def test_garbage_is_passed_over_and_said(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/notes.txt", "sub-01/anat/sub-02_T2w.nii.gz")
    make(tmp_path, "sub-01/anat/sub-01_ses-x\ny_T2w.nii.gz", "sub-01/anat/sub-01_run-1_run-2_T2w.nii.gz")
    os.close(os.open(os.fsencode(tmp_path) + b"/sub-01/anat/sub-01_acq-\xff_T2w.nii.gz", os.O_CREAT))
    os.mkfifo(tmp_path / "sub-01" / "anat" / "sub-01_T1w.json")
    index = index_dataset(tmp_path)
    assert len(index.find(suffix="T2w")) == 1
    for notice in index.notices:
        assert notice.message.isprintable()


def test_a_broken_sidecar_is_an_error_of_its_image_only(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    write(tmp_path, "sub-01/anat/sub-01_T2w.json", '{"EchoTime": 0.1,')
    index = index_dataset(tmp_path)
    with pytest.raises(UnreadableFileError, match=r"sub-01_T2w\.json is not valid JSON"):
        index.sidecar(only(index, subject="01"))
    assert index.sidecar(only(index, subject="02")) == {}


def test_what_is_not_bids_is_refused_in_one_sentence(tmp_path: Path) -> None:
    make(tmp_path, "scan1/IM0001", "README")
    with pytest.raises(InputError, match="is not a BIDS dataset"):
        index_dataset(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        index_dataset(tmp_path / "absent")
    with pytest.raises(InputError, match="is not a folder"):
        index_dataset(tmp_path / "README")
    with pytest.raises(TooLargeError):
        index_dataset(make(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T2w.nii"), max_files=1)


VALUES = st.text(st.sampled_from("abcXYZ0189"), min_size=1, max_size=6)


@given(st.dictionaries(st.sampled_from(sorted(ENTITIES)), VALUES, max_size=8), VALUES)
def test_names_survive_a_round_trip(entities: dict[str, str], suffix: str) -> None:
    name = format_name(entities, suffix=suffix, extension=".nii.gz")
    parsed = parse_name(name)
    assert parsed is not None
    assert (dict(parsed.entities), parsed.suffix, parsed.extension) == (entities, suffix, ".nii.gz")


@given(st.text(max_size=60))
def test_any_name_is_parsed_or_refused(name: str) -> None:
    stem, extension = split_extension(name)
    assert stem + extension == name
    parsed = parse_name(name)
    assert parsed is None or (parsed.suffix and "\n" not in parsed.suffix)


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=30))
def test_any_pattern_is_answered(lines: list[str], path: str) -> None:
    assert Ignore(lines).matches(path) in (True, False)


def test_a_hostile_pattern_does_not_take_for_ever() -> None:
    lines = ["*a" * 12 + "b", "**/" * 40 + "x", "a/" + "**/*a*/" * 20 + "b"]
    assert not Ignore(lines).matches("/".join(["a" * 60] * 20))


@given(st.data())
def test_any_tree_is_indexed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tree")
    names = st.text(
        st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=8
    )
    part = st.one_of(st.sampled_from(["sub-01", "ses-1", "anat", "derivatives", "sub-01_T2w.nii.gz"]), names)
    for path in data.draw(st.lists(st.lists(part, min_size=1, max_size=4), max_size=6)):
        target = root.joinpath(*(p for p in path if p not in (".", "..")))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        except OSError:
            continue
    try:
        index = index_dataset(root)
    except InputError:
        return
    for file in index.find(extension=None, derivative=None):
        assert file.relative.isprintable()
        assert file.subject or not file.datatype


def test_derivatives_are_found_again_for_their_image(tmp_path: Path) -> None:
    make(tmp_path, "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz")
    image = only(index_dataset(tmp_path), suffix="T2w")
    out = tmp_path / "derivatives" / "cordqa"
    path = derivative_path(image, suffix="mask", label="SC")
    assert path == PurePosixPath("sub-01/ses-a/anat/sub-01_ses-a_label-SC_desc-T2w_mask.nii.gz")
    volume = Volume(data=np.ones((3, 4, 5), bool), affine=np.diag([2.0, 2, 3, 1]))
    info = DerivativeInfo(
        description="Cord", method="network", engine="builtin", engine_version="1", sources=[image]
    )
    written = write_derivative(volume, out, path=path, info=info)
    write_dataset_description(out, name="cord", version="0.1", raw=tmp_path, engines={"sct": "7.3"})
    assert (read_volume(written).data == 1).all()
    sidecar = json.loads(written.with_name("sub-01_ses-a_label-SC_desc-T2w_mask.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz"]
    assert sidecar["GeneratedBy"] == [{"Name": "builtin", "Version": "1"}]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": "../.."}
    # Of themselves results are no masks of the user; named on purpose they are.
    index = index_dataset(tmp_path)
    assert not find_user_files(index, only(index, suffix="T2w", derivative="")).by_role
    index = index_dataset(tmp_path, derivatives=[out])
    assert find_user_files(index, only(index, suffix="T2w", derivative="")).by_role[Role.CORD].path == written
    assert find_user_files(index, only(index, suffix="T1w", derivative="")).by_role == {}


def test_maps_say_how_much_of_them_is_missing(tmp_path: Path) -> None:
    image = BidsFile(tmp_path, "sub-1/anat/sub-1_MTS.nii.gz", {"sub": "1"}, "MTS", "", ".nii.gz", "anat", "")
    data = np.full((2, 2, 2), 1.5)
    data[0, 0, 0] = np.nan
    path = derivative_path(image, suffix="MTRmap")
    assert path.name == "sub-1_MTRmap.nii.gz"
    info = DerivativeInfo(
        description="MTR", units="%", extra={"FlipAngle": float("nan"), "Method": "other"}, method="ratio"
    )
    written = write_derivative(Volume(data=data, affine=np.eye(4)), tmp_path / "out", path=path, info=info)
    sidecar = json.loads(written.with_name("sub-1_MTRmap.json").read_text())
    assert sidecar["NumberOfVoxelsWithoutValue"] == 1
    assert sidecar["FlipAngle"] is None
    assert sidecar["Method"] == "ratio"


def test_a_derivative_that_cannot_be_written_leaves_no_image(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    image = BidsFile(tmp_path, "sub-1/anat/sub-1_T2w.nii.gz", {"sub": "1"}, "T2w", "", ".nii.gz", "anat", "")
    volume = Volume(data=np.ones((2, 2, 2), np.uint8), affine=np.eye(4))
    path = derivative_path(image, suffix="mask", label="SC")
    with pytest.raises(OutputError):
        write_derivative(volume, tmp_path / "out", path=path, info=DerivativeInfo(description="x"))


@pytest.mark.parametrize("path", ["/abs/x.nii.gz", "../x.nii.gz", "a/x.txt", "x"])
def test_paths_stay_below_the_output(tmp_path: Path, path: str) -> None:
    volume = Volume(data=np.ones((2, 2, 2), np.uint8), affine=np.eye(4))
    with pytest.raises(ConfigError):
        write_derivative(volume, tmp_path, path=PurePosixPath(path), info=DerivativeInfo(description="x"))


@pytest.mark.parametrize(
    "entities", [{"label": "S C"}, {"label": "../x"}, {"label": "a_b"}, {"nonsense": "x"}]
)
def test_entities_that_are_not_valid_are_refused(tmp_path: Path, entities: dict[str, str]) -> None:
    image = BidsFile(tmp_path, "sub-1/anat/sub-1_T2w.nii.gz", {"sub": "1"}, "T2w", "", ".nii.gz", "anat", "")
    with pytest.raises(ConfigError):
        derivative_path(image, suffix="mask", **entities)


def test_ten_thousand_files_take_less_than_a_second(tmp_path: Path) -> None:
    for number in range(250):
        folder = tmp_path / f"sub-{number:03d}" / "anat"
        folder.mkdir(parents=True)
        for run in range(40):
            (folder / f"sub-{number:03d}_run-{run}_T2w.nii.gz").touch()
    import time

    start = time.process_time()
    index = index_dataset(tmp_path)
    assert time.process_time() - start < 1.0
    assert len(index.files) == 10_000


def test_a_misspelt_image_of_a_participant_is_a_warning_and_a_note_is_not(tmp_path: Path) -> None:
    make(
        tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02-T2w.nii.gz", "sub-02/anat/my-notes.txt"
    )
    notices = {notice.severity: notice.message for notice in index_dataset(tmp_path).notices}
    assert "sub-02-T2w.nii.gz" in notices[Severity.WARNING]
    assert "my-notes.txt" in notices[Severity.INFO] and "sub-02-T2w" not in notices[Severity.INFO]
