from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import helpers_execute as work
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.errors import ConfigError, OutputError
from cordqa.records import Outcome, State
from cordqa.workflow.execute import resume
from cordqa.workflow.execute.plan import Task, function_name
from cordqa.workflow.execute.resume import (
    Ledger,
    Record,
    hash_config,
    is_unchanged,
    open_ledger,
    read_records,
    take_fingerprint,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "out", config={"engine": "builtin"})


def _done(ledger: Ledger, task: Task, state: State = State.DONE) -> Record:
    record = Record(
        key=task.key,
        outcome=Outcome(what=task.key, state=state, reason="why"),
        function=function_name(task.function),
        version=ledger.version,
        config_hash=ledger.config_hash,
        inputs=tuple(take_fingerprint(path) for path in task.inputs),
        run=ledger.run,
    )
    ledger.write(record)
    return record


@pytest.fixture
def task(tmp_path: Path) -> Task:
    for name in ("in.json", "out.txt"):
        (tmp_path / name).write_text("{}")
    return work.make("sub-01", work.write, inputs=(tmp_path / "in.json",), outputs=(tmp_path / "out.txt",))


def test_a_record_comes_back_as_it_was_written(ledger: Ledger, task: Task) -> None:
    record = _done(ledger, task)
    assert ledger.read("sub-01") == record
    assert ledger.find_current(task) == record
    assert [r.key for r in read_records(ledger.out)] == ["sub-01"]


def test_a_later_run_finds_it_too(ledger: Ledger, task: Task) -> None:
    _done(ledger, task)
    assert open_ledger(ledger.out, config={"engine": "builtin"}).find_current(task) is not None


@pytest.mark.parametrize("state", [State.FAILED, State.DONE, State.SKIPPED])
def test_only_failures_are_repeated(ledger: Ledger, task: Task, state: State) -> None:
    _done(ledger, task, state)
    assert (ledger.find_current(task) is None) == (state is State.FAILED)


def test_a_change_of_input_makes_it_stale(ledger: Ledger, task: Task) -> None:
    _done(ledger, task)
    task.inputs[0].write_text("[]")  # of the same size
    assert ledger.find_current(task) is None
    task.inputs[0].write_text("{}")
    assert ledger.find_current(task) is not None
    task.inputs[0].unlink()
    assert ledger.find_current(task) is None


def test_another_set_of_inputs_makes_it_stale(ledger: Ledger, task: Task, tmp_path: Path) -> None:
    _done(ledger, task)
    assert ledger.find_current(replace(task, inputs=(*task.inputs, tmp_path / "mask.nii"))) is None
    assert ledger.find_current(replace(task, inputs=())) is None


def test_a_lost_output_makes_it_stale(ledger: Ledger, task: Task) -> None:
    _done(ledger, task)
    task.outputs[0].unlink()
    assert ledger.find_current(task) is None


def test_another_version_configuration_or_function_makes_it_stale(ledger: Ledger, task: Task) -> None:
    _done(ledger, task)
    assert replace(ledger, version="9.9").find_current(task) is None
    assert open_ledger(ledger.out, config={"engine": "sct"}).find_current(task) is None
    assert ledger.find_current(replace(task, function=work.refuse)) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "sub-01"}', b"\xff\xfe", b"null"])
def test_a_damaged_record_counts_as_none(ledger: Ledger, task: Task, content: bytes) -> None:
    _done(ledger, task)
    ledger.state_path("sub-01").write_bytes(content)
    assert ledger.find_current(task) is None
    assert read_records(ledger.out) == ()


def test_a_record_under_the_name_of_another_is_not_taken(ledger: Ledger, task: Task) -> None:
    _done(ledger, task)
    ledger.state_path("sub-01").rename(ledger.state_path("sub-02"))
    assert ledger.read("sub-02") is None


def test_a_touched_small_file_is_unchanged_and_a_touched_large_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SMALL_FILE_BYTES", 10)
    for name, content, expected in (("small", "x", True), ("large", "x" * 11, False)):
        path = tmp_path / name
        path.write_text(content)
        known = take_fingerprint(path)
        assert is_unchanged(path, known)
        os.utime(path, ns=(1, 1))
        assert is_unchanged(path, known) == expected


def test_a_file_that_is_absent_before_and_after_is_unchanged(tmp_path: Path) -> None:
    known = take_fingerprint(tmp_path / "absent")
    assert known.size == -1
    assert is_unchanged(tmp_path / "absent", known)
    (tmp_path / "absent").touch()
    assert not is_unchanged(tmp_path / "absent", known)


def test_a_folder_is_known_by_its_listing(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    (folder / "anat").mkdir(parents=True)
    (folder / "anat" / "a.nii").write_text("1")
    (folder / "broken").symlink_to("nowhere")
    known = take_fingerprint(folder)
    assert is_unchanged(folder, known)
    (folder / "anat" / "b.nii").write_text("1")
    assert not is_unchanged(folder, known)


def test_the_order_of_a_configuration_does_not_matter_and_its_values_do(tmp_path: Path) -> None:
    first = {"a": 1, "b": {"c": [1, 2], "d": tmp_path, "e": {"x", "y", "z"}, "s": State.DONE}}
    second = {"b": {"s": State.DONE, "e": {"z", "y", "x"}, "d": tmp_path, "c": (1, 2)}, "a": 1}
    assert hash_config(first) == hash_config(second)
    assert hash_config(first) != hash_config({**first, "a": 2})


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.none(), st.booleans())))
def test_every_plain_configuration_has_one_hash(config: dict[str, object]) -> None:
    assert hash_config(config) == hash_config(dict(reversed(config.items())))


def test_a_configuration_without_stable_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="stable text"):
        hash_config({"a": object()})


def test_text_that_is_no_text_can_be_recorded(ledger: Ledger) -> None:
    name = os.fsdecode(b"sub-\xff.nii")
    outcome = Outcome(what=name, state=State.FAILED, reason=name)
    ledger.write(Record(key="k", outcome=outcome))
    assert ledger.read("k") is not None


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError):
        open_ledger(tmp_path / "out", config={})


def test_no_records_where_nothing_ran(tmp_path: Path) -> None:
    assert read_records(tmp_path) == ()
