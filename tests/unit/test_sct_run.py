"""Calling a program that behaves badly, and finding the toolbox, with a toolbox of shell scripts."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from helpers_sct import make_toolbox, write_program

from cordqa.engines.errors import EngineError, EngineOutputError, EngineTimeoutError, EngineUnavailableError
from cordqa.engines.protocol import Step
from cordqa.engines.sct.commands import Command
from cordqa.engines.sct.locate import find_toolbox, list_pieces, search_toolbox
from cordqa.engines.sct.run import clean_environment, failure_sentence, run_command, strip_colours

CALL = Command("sct_compute_mtr", ("-mt0", "a"), ("mtr.nii.gz",))
NOWHERE = {"PATH": os.defpath}


def call(tmp_path: Path, script: str, **options: object):
    toolbox = make_toolbox(tmp_path / "sct", {"sct_compute_mtr": script})
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    settings: dict = {"folder": folder, "timeout_s": 20.0, **options}
    return run_command(CALL, toolbox, **settings)


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of this test alone."""
    import tempfile

    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_good_run_says_how_it_came_about(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a").write_text("image")
    toolbox = make_toolbox(tmp_path / "sct", {"sct_compute_mtr": "echo hello; echo x > mtr.nii.gz"})
    command = Command(CALL.program, CALL.arguments, CALL.outputs, ("a",))
    log = tmp_path / "logs" / "mtr.log"
    run = run_command(command, toolbox, folder=tmp_path / "work", timeout_s=20, log=log)
    assert run.argv == ("sct_compute_mtr", "-mt0", "a")
    assert (run.engine, run.version, run.exit_status) == ("sct", "7.3", 0)
    assert 0 < run.runtime_s < 20
    assert run.log == log
    assert log.read_text() == "hello\n"
    (digest,) = run.input_hashes.values()
    assert len(digest) == 64


def test_status_0_without_output_is_a_failure_with_the_programs_own_words(tmp_path: Path) -> None:
    script = (
        r"printf '\033[93m\033[1mWARNING: No slices present\033[0m\n'; echo 'Total runtime; 1.0 seconds.'"
    )
    with pytest.raises(
        EngineOutputError, match=r"status 0 but did not write mtr\.nii\.gz.*No slices present"
    ):
        call(tmp_path, script)


def test_an_old_output_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mtr.nii.gz").write_text("of yesterday")
    with pytest.raises(EngineOutputError, match="left the old mtr"):
        call(tmp_path, "exit 0")


def test_an_empty_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineOutputError, match="is empty"):
        call(tmp_path, ": > mtr.nii.gz")


def test_an_error_on_stdout_is_found(tmp_path: Path) -> None:
    script = "echo 'ERROR: Labels should be provided.'; echo 'Total runtime; 0.001 seconds.'; exit 1"
    with pytest.raises(EngineError, match=r"sct_compute_mtr.*status 1\): ERROR: Labels should be provided"):
        call(tmp_path, script)


def test_the_recorded_failures_name_their_cause(shared_data: Path) -> None:
    logs = shared_data / "cord" / "sct-reference" / "logs"
    expected = {
        "e_4d": "ValueError: too many values to unpack",
        "e_reg_nolabel": "ERROR: Labels should be provided.",
        "e_emptyseg": "ValueError: min() arg is an empty sequence",
        "e_xm_badlabel": "KeyError: 99",
        "e_xm_dim": "DO NOT HAVE SAME DIMENSIONS",
        "e_dti_bval": "OSError: bval file should have one row",
        "e_deepseg_sc": "isct_spine_detect",
    }
    for name, words in expected.items():
        assert words in failure_sentence(strip_colours((logs / f"{name}.log").read_text()), 1), name
    usage = failure_sentence(strip_colours((logs / "e_badopt.log").read_text()), 2)
    assert usage.startswith("was called wrongly (status 2): sct_process_segmentation: error: ")


@pytest.mark.parametrize(
    ("status", "words"), [(-9, "signal 9, often for lack of memory"), (247, "signal 9"), (241, "signal 15")]
)
def test_death_by_signal_is_named(status: int, words: str) -> None:
    assert words in failure_sentence("anything", status)


def test_a_silent_failure_is_still_one_sentence() -> None:
    assert failure_sentence("", 1) == "failed (status 1): it printed nothing"
    assert "\n" not in failure_sentence("a\x00\x1b\n\n" + "b" * 10_000, 1)
    assert len(failure_sentence("b" * 10_000, 1)) < 400


def test_out_of_time_ends_the_whole_family(tmp_path: Path, private_tmp: Path) -> None:
    # The launcher starts a second program, as the real one does, and it must not survive.
    script = "sh -c 'echo $$ > \"$PWD/child\"; exec sleep 600' & wait"
    start = time.monotonic()
    with pytest.raises(EngineTimeoutError, match=r"ran past its limit of 0\.5 s"):
        call(tmp_path, script, timeout_s=0.5)
    assert time.monotonic() - start < 10
    child = int((tmp_path / "work" / "child").read_text())
    for _ in range(50):
        if not _is_running(child):
            break
        time.sleep(0.05)
    assert not _is_running(child)
    assert list(private_tmp.iterdir()) == []


def test_a_program_that_ignores_the_polite_signal_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cordqa.engines.sct.run._GRACE_S", 0.2)
    with pytest.raises(EngineTimeoutError):
        call(tmp_path, "trap '' TERM; while :; do sleep 0.05; done", timeout_s=0.3)


def test_a_child_left_behind_after_a_good_end_does_not_stay(tmp_path: Path) -> None:
    call(tmp_path, 'sleep 600 & echo $! > "$PWD/child"; echo x > mtr.nii.gz')
    child = int((tmp_path / "work" / "child").read_text())
    for _ in range(50):
        if not _is_running(child):
            break
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


@pytest.mark.parametrize("end", ["exit 1", "echo x > mtr.nii.gz"])
def test_leaked_temporary_folders_are_removed(tmp_path: Path, private_tmp: Path, end: str) -> None:
    script = (
        f'mkdir "$TMPDIR/sct_2026_leak"; echo 1 > "$TMPDIR/sct_2026_leak/big"; echo $TMPDIR > where; {end}'
    )
    try:
        call(tmp_path, script)
    except EngineError:
        assert "exit 1" in end
    assert str(private_tmp) in (tmp_path / "work" / "where").read_text()
    assert list(private_tmp.iterdir()) == []


def test_the_environment_is_clean(tmp_path: Path) -> None:
    toolbox = make_toolbox(tmp_path / "sct")
    dirty = {
        "LD_LIBRARY_PATH": "/x",
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/x",
        "VIRTUAL_ENV": "/x",
        "SCT_DIR": "/elsewhere",
        "TMPDIR": "/elsewhere",
        "HOME": "/home/me",
        "PATH": "/usr/bin",
    }
    clean = clean_environment(toolbox, tmp_path / "t", inherited=dirty)
    assert not {"LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(clean)
    assert clean["SCT_DIR"] == str(toolbox.root)
    assert clean["TMPDIR"] == str(tmp_path / "t")
    assert clean["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
    assert clean["PATH"].split(os.pathsep) == [str(toolbox.programs), "/usr/bin"]
    assert clean["HOME"] == "/home/me"


def test_a_program_that_is_no_program(tmp_path: Path) -> None:
    toolbox = make_toolbox(tmp_path / "sct")
    (tmp_path / "sct" / "bin" / "sct_compute_mtr").write_bytes(b"\x7fELFnot really")
    with pytest.raises(EngineError, match="cannot be started"):
        run_command(CALL, toolbox, folder=tmp_path, timeout_s=5)
    (tmp_path / "sct" / "bin" / "sct_compute_mtr").unlink()
    with pytest.raises(EngineUnavailableError, match="sct_compute_mtr is not installed"):
        run_command(CALL, toolbox, folder=tmp_path, timeout_s=5)


def test_found_by_option_before_all_else(tmp_path: Path) -> None:
    first, second = make_toolbox(tmp_path / "a", version="7.1"), make_toolbox(tmp_path / "b")
    environment = {"CORDQA_SCT_DIR": str(second.root), "SCT_DIR": str(second.root), **NOWHERE}
    assert find_toolbox(first.root, environ=environment).version == "7.1"
    assert find_toolbox(environ=environment).root == second.root
    assert find_toolbox(environ={"SCT_DIR": str(first.root), **NOWHERE}).found_by == "SCT_DIR"
    assert find_toolbox(environ={"PATH": str(first.programs)}).root == first.root
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "sct_7.3").symlink_to(second.root)
    assert find_toolbox(environ={"HOME": str(tmp_path / "home"), **NOWHERE}).version == "7.3"


def test_a_named_folder_is_used_or_refused_never_replaced(tmp_path: Path) -> None:
    good = make_toolbox(tmp_path / "good")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {"CORDQA_SCT_DIR": str(empty), "SCT_DIR": str(good.root), "PATH": str(good.programs)}
    with pytest.raises(EngineUnavailableError, match="not a Spinal Cord Toolbox"):
        find_toolbox(environ=environment)
    with pytest.raises(EngineUnavailableError, match="is not a folder"):
        find_toolbox(tmp_path / "absent", environ=environment)
    # A stale SCT_DIR of the shell is only a hint.
    stale = {"SCT_DIR": str(empty), "PATH": str(good.programs)}
    search = search_toolbox(environ=stale)
    assert search.toolbox is not None
    assert search.toolbox.root == good.root
    assert "SCT_DIR" in search.sentence()


def test_nothing_found_says_what_to_do() -> None:
    with pytest.raises(EngineUnavailableError, match=r"CORDQA_SCT_DIR.*built-in engine"):
        find_toolbox(environ={"PATH": "/nonexistent", "HOME": "/nonexistent"})


def test_programs_of_another_installation_are_never_borrowed(tmp_path: Path) -> None:
    make_toolbox(tmp_path / "a")
    other = make_toolbox(tmp_path / "b", version="6.5")
    for path in (tmp_path / "a" / "bin").iterdir():
        path.unlink()
    with pytest.raises(EngineUnavailableError, match="did not finish"):
        find_toolbox(tmp_path / "a", environ={"PATH": str(other.programs)})


def test_a_development_installation_is_found_through_its_environment(tmp_path: Path) -> None:
    make_toolbox(tmp_path / "a")
    (tmp_path / "a" / "bin" / "sct_version").unlink()
    write_program(tmp_path / "venv" / "bin" / "sct_version", "exit 0")
    packages = tmp_path / "venv" / "lib" / "python3.10" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "__editable__.spinalcordtoolbox.pth").write_text(f"{tmp_path / 'a'}\n")
    found = find_toolbox(environ={"PATH": str(tmp_path / "venv" / "bin")})
    assert (found.root, found.programs) == (tmp_path / "a", tmp_path / "venv" / "bin")


def test_missing_pieces_are_listed_with_the_cure(tmp_path: Path) -> None:
    complete = list_pieces(make_toolbox(tmp_path / "a"))
    assert {piece.step for piece in complete} == set(Step)
    assert all(piece.available for piece in complete)
    bare = make_toolbox(tmp_path / "b", models=False, template=False)
    (tmp_path / "b" / "bin" / "isct_spine_detect").unlink()
    (tmp_path / "b" / "bin" / "sct_compute_mtsat").unlink()
    pieces = {piece.step: piece for piece in list_pieces(bare)}
    assert "isct_spine_detect" in pieces[Step.SEGMENT_CORD].reason
    assert pieces[Step.SEGMENT_CORD].todo == "run: sct_deepseg spinalcord -install"
    assert pieces[Step.WARP_TEMPLATE].todo == "run: sct_download_data -d PAM50"
    assert "sct_compute_mtsat" in pieces[Step.MTSAT].reason
    assert pieces[Step.MTR].available


@pytest.mark.parametrize("version", ["6.5", "unknown", "", "7.4.dev0", "7.3"])
def test_the_older_syntax_of_deepseg_is_never_called(tmp_path: Path, version: str) -> None:
    if not version:
        with pytest.raises(EngineUnavailableError):
            make_toolbox(tmp_path / "a", version=version)
        return
    (grey,) = [
        p
        for p in list_pieces(make_toolbox(tmp_path / "a", version=version))
        if p.step is Step.SEGMENT_GREY_MATTER
    ]
    assert grey.available == version.startswith("7")


def test_the_real_toolbox_says_its_version() -> None:
    toolbox = search_toolbox().toolbox
    if toolbox is None:
        pytest.skip("the Spinal Cord Toolbox is not installed here")
    assert toolbox.release > (0, 0, 0)
    assert run_command(Command("sct_version", ()), toolbox, folder=Path.cwd(), timeout_s=60).exit_status == 0
