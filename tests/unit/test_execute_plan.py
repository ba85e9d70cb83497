from __future__ import annotations

import math
import threading
from pathlib import Path

import helpers_execute as work
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordqa.errors import ConfigError
from cordqa.workflow.execute.errors import PickleError
from cordqa.workflow.execute.plan import check_tasks, open_arguments, safe_name, seal, submission_order


@pytest.mark.parametrize("key", ["sub-01", "sub-amuAL_ses-1", "a.b"])
def test_a_plain_key_is_its_own_file_name(key: str) -> None:
    assert safe_name(key) == key


@given(st.text(max_size=300))
def test_every_key_gives_a_file_name_that_stays_in_its_folder(key: str) -> None:
    name = safe_name(key)
    assert name
    assert Path(name).name == name
    assert name not in {".", ".."}
    assert name.isascii()
    assert len(name) <= 120


@given(st.text(alphabet="ab/_.- ", max_size=6), st.text(alphabet="ab/_.- ", max_size=6))
def test_different_keys_never_share_a_file(first: str, second: str) -> None:
    assert (safe_name(first) == safe_name(second)) == (first == second)


def test_names_that_a_system_reserves_are_avoided() -> None:
    assert safe_name("CON") != "CON"
    assert safe_name("nul.txt") != "nul.txt"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": "  "}, "needs a key"),
        ({"key": "x" * 2000}, "needs a key"),
        ({"key": "a", "weight": 0.0}, "weight"),
        ({"key": "a", "weight": math.nan}, "weight"),
        ({"key": "a", "timeout_s": -1.0}, "time limit"),
        ({"key": "a", "timeout_s": math.inf}, "time limit"),
    ],
)
def test_a_task_that_could_never_run_is_refused(settings: dict[str, object], said: str) -> None:
    key = str(settings.pop("key"))
    with pytest.raises(ConfigError, match=said):
        check_tasks([work.make(key, work.write, **settings)])


def test_two_tasks_with_one_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        check_tasks([work.make("a", work.write), work.make("a", work.write)])


def test_heavy_tasks_start_first_and_equal_ones_in_the_given_order() -> None:
    tasks = [work.make(key, work.write, weight=w) for key, w in (("a", 1.0), ("b", 5.0), ("c", 1.0))]
    assert [task.key for task in submission_order(tasks)] == ["b", "a", "c"]


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(PickleError, match=r"the argument 'path'.*helpers_execute|helpers_execute.*'path'"):
        seal(work.make("a", work.write, path=threading.Lock()))
    with pytest.raises(PickleError, match="the function"):
        seal(work.make("a", lambda: None))


def test_what_cannot_be_restored_is_named() -> None:
    payload = seal(work.make("a", work.write)).replace(b"helpers_execute", b"helpers_exe_gone")
    with pytest.raises(PickleError, match="module that every worker can import"):
        open_arguments(payload)
