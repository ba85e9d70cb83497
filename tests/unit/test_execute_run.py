from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import helpers_execute as work
import pytest

from cordqa.errors import ConfigError
from cordqa.records import Outcome, State
from cordqa.workflow.execute import processes
from cordqa.workflow.execute.local import LocalPool
from cordqa.workflow.execute.plan import Task
from cordqa.workflow.execute.resume import Ledger, open_ledger, read_records
from cordqa.workflow.execute.run import run_tasks

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "out", config={})


def _run(tasks: list[Task], ledger: Ledger, workers: int = 2, **settings: object) -> tuple[Outcome, ...]:
    with LocalPool(workers) as pool:
        return run_tasks(tasks, ledger=ledger, executor=pool, **settings)  # type: ignore[arg-type]


def _wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _gone(pid: int) -> bool:
    """Ended, or waiting to be collected by whoever adopts orphans here."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


BAD = {
    "refuses": (work.refuse, "fit", "does not decay"),
    "defect": (work.defect, "internal", "KeyError"),
    "leaves": (work.leave, "execute.exit", "status 3"),
    "memory": (work.exhaust, "execute.memory", "memory ran out"),
    "vanishes": (work.vanish, "execute.crashed", "status 7"),
    "segfault": (work.segfault, "execute.crashed", "SIGSEGV"),
    "killed": (work.kill_self, "execute.crashed", "SIGKILL"),
    "returns": (work.wrong_return, "execute.result", "int"),
    "pickle": (lambda: None, "execute.pickle", "the function"),
}


def test_no_bad_task_takes_another_down(ledger: Ledger, tmp_path: Path) -> None:
    good = [
        work.make(f"good-{n}", work.write, path=tmp_path / f"{n}.txt", outputs=(tmp_path / f"{n}.txt",))
        for n in range(6)
    ]
    bad = [work.make(name, function) for name, (function, _, _) in BAD.items()]
    empty = work.make("empty", work.talk, outputs=(tmp_path / "never.txt",))
    slow = work.make("slow", work.write, path=tmp_path / "slow", delay_s=300.0, timeout_s=0.5)
    tasks = [*good[:3], *bad, empty, slow, *good[3:]]
    lines: list[str] = []
    outcomes = _run(tasks, ledger, progress=lines.append)
    assert [outcome.what for outcome in outcomes] == [task.key for task in tasks]
    by_key = {outcome.what: outcome for outcome in outcomes}
    assert all(by_key[task.key].state is State.DONE for task in good)
    for name, (_, code, said) in BAD.items():
        assert by_key[name].state is State.FAILED
        assert by_key[name].code == code
        assert said in by_key[name].reason
        assert "Traceback" not in by_key[name].reason
        assert "\n" not in by_key[name].reason
    assert by_key["empty"].code == "execute.no-output"
    assert "never.txt" in by_key["empty"].reason
    assert (by_key["slow"].code, "0.5 s" in by_key["slow"].reason) == ("execute.timeout", True)
    # All of it is on disk, and every outcome was told once.
    assert {r.key: r.outcome for r in read_records(ledger.out)} == by_key
    assert sorted(line.split("/")[0] for line in lines if line.startswith("[")) == sorted(
        f"[{n}" for n in range(1, len(tasks) + 1)
    )
    assert "Traceback" in ledger.log_path("defect").read_text()
    assert "Segmentation fault" in ledger.log_path("segfault").read_text()
    assert ledger.read("segfault").attempt == 2  # type: ignore[union-attr]


def test_what_is_printed_goes_to_the_log_alone(ledger: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    _run([work.make("talks", work.talk)], ledger, workers=1)
    log = ledger.log_path("talks").read_text()
    assert all(text in log for text in ("said to stdout", "said to stderr", "said by a program"))
    assert capfd.readouterr() == ("", "")


def test_a_task_killed_once_is_tried_again_alone(ledger: Ledger, tmp_path: Path) -> None:
    (outcome,) = _run([work.make("once", work.kill_self_once, folder=tmp_path)], ledger)
    assert outcome.state is State.DONE
    assert work.traces(tmp_path, "begun") == ["x", "x"]


def test_libraries_get_one_thread_and_this_process_keeps_its_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert _run([work.make("threads", work.threads)], ledger)[0].reason == "1"
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_a_process_is_used_again_until_it_is_worn(ledger: Ledger) -> None:
    tasks = [work.make(f"t{n}", work.process_number) for n in range(4)]
    with LocalPool(1, calls_per_process=2) as pool:
        numbers = [o.reason for o in run_tasks(tasks, ledger=ledger, executor=pool)]
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_what_was_done_is_not_repeated_and_a_failure_is(ledger: Ledger, tmp_path: Path) -> None:
    tasks = [
        work.make("a", work.mark, folder=tmp_path, name="a"),
        work.make("b", work.refuse),
        work.make("c", work.nothing_to_do),
    ]
    first = _run(tasks, ledger)
    lines: list[str] = []
    second = _run(tasks, ledger, progress=lines.append)
    assert work.traces(tmp_path) == ["a"]
    assert (second[0].state, second[0].code) == (State.SKIPPED, "execute.current")
    assert second[1] == first[1]
    assert second[2] == first[2]
    assert lines[0].startswith("2 of 3 done by an earlier run")
    _run(tasks, ledger, resume=False)
    assert work.traces(tmp_path) == ["a", "a"]


def test_an_input_that_changes_while_it_is_read_is_read_again(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("before")
    task = work.make("a", work.write, path=path, text="after", inputs=(path,))
    _run([task], ledger)
    assert ledger.find_current(task) is None


def test_stopping_lets_the_running_finish_and_starts_no_more(ledger: Ledger, tmp_path: Path) -> None:
    tasks = [work.make("bad", work.refuse, weight=9.0)]
    tasks += [work.make(f"t{n}", work.mark, folder=tmp_path, name=f"t{n}", delay_s=0.3) for n in range(5)]
    outcomes = _run(tasks, ledger, workers=1, stop_on=lambda o: o.state is State.FAILED)
    left = [o for o in outcomes if o.code == "execute.stopped"]
    assert len(left) >= 4
    assert all("bad" in o.reason for o in left)
    assert len(work.traces(tmp_path)) == 5 - len(left)
    # What was left out is no result, so the next run does it.
    assert {r.key for r in read_records(ledger.out)} == {"bad", *work.traces(tmp_path)}


def test_a_time_limit_holds_in_compiled_code(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.3)
    begin = time.monotonic()
    (outcome,) = _run([work.make("stuck", work.stuck, timeout_s=0.3)], ledger)
    assert outcome.code == "execute.timeout"
    assert time.monotonic() - begin < 30


def test_a_time_limit_ends_the_programs_of_a_task_and_lets_it_clear_up(
    ledger: Ledger, tmp_path: Path
) -> None:
    tasks = [
        work.make("program", work.start_program, folder=tmp_path, timeout_s=2.0),
        work.make("clears", work.clear_up, folder=tmp_path, timeout_s=2.0),
    ]
    assert {o.code for o in _run(tasks, ledger)} == {"execute.timeout"}
    program = int((tmp_path / "program.pid").read_text())
    # The signal has been sent when the task is reported; on a busy machine the kernel delivers it a
    # moment later.  The program itself would run for 300 s.
    deadline = time.monotonic() + 10
    while not _gone(program) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _gone(program)
    assert not (tmp_path / "temporary").exists()


def test_tasks_with_one_key_are_refused_before_anything_runs(ledger: Ledger, tmp_path: Path) -> None:
    tasks = [work.make("a", work.mark, folder=tmp_path, name="a")] * 2
    with pytest.raises(ConfigError):
        _run(tasks, ledger)
    assert work.traces(tmp_path, "begun") == []


def test_no_tasks_no_outcomes(ledger: Ledger) -> None:
    assert _run([], ledger) == ()


@pytest.mark.parametrize("number", [0, -1])
def test_a_pool_needs_workers(number: int) -> None:
    with pytest.raises(ConfigError):
        LocalPool(number)


def test_a_disk_that_refuses_records_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.state_path("a").mkdir()  # nothing can be renamed onto a folder
    outcomes = _run([work.make("a", work.write, path=tmp_path / "a"), work.make("b", work.talk)], ledger)
    assert outcomes[0].code == "output"
    assert "record cannot be kept" in outcomes[0].reason
    assert outcomes[1].state is State.DONE


def test_an_output_folder_that_vanishes_is_named(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from cordqa.workflow.execute import calls

    monkeypatch.setattr(calls, "_VISIBLE_AFTER_S", 0.0)
    call = calls.make_call(work.make("a", work.talk), ledger)
    shutil.rmtree(ledger.state_folder)
    assert calls.perform(call).code == "execute.place"


def test_another_version_of_the_worker_is_refused(ledger: Ledger) -> None:
    from dataclasses import replace

    from cordqa.workflow.execute import calls

    call = replace(calls.make_call(work.make("a", work.talk), ledger), version="0.0.1")
    assert "another version" in calls.perform(call).reason


# Other executors ---------------------------------------------------------------------------------


def test_a_process_pool_that_breaks_loses_nothing(ledger: Ledger, tmp_path: Path) -> None:
    tasks = [work.make(f"t{n}", work.mark, folder=tmp_path, name=f"t{n}", delay_s=0.2) for n in range(5)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pool.submit(os.getpid).result()
        breaker = threading.Timer(2.0, lambda: [p.kill() for p in list(pool._processes.values())])
        breaker.start()
        outcomes = run_tasks(tasks, ledger=ledger, executor=pool)
        breaker.join()
    assert [o.state for o in outcomes] == [State.DONE] * 5
    # Nothing that ended was done again.
    assert sorted(work.traces(tmp_path)) == [f"t{n}" for n in range(5)]


class _Refusing(Executor):
    """An executor that has lost its scheduler."""

    def submit(self, function: object, /, *arguments: object, **settings: object) -> Future[object]:  # type: ignore[override]
        raise RuntimeError("the client is closed")


class _Cancelling(Executor):
    def submit(self, function: object, /, *arguments: object, **settings: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


@pytest.mark.parametrize(
    ("executor", "code"), [(_Refusing(), "execute.worker"), (_Cancelling(), "execute.lost")]
)
def test_a_lost_scheduler_is_named(ledger: Ledger, executor: Executor, code: str) -> None:
    outcomes = run_tasks(
        [work.make("a", work.talk), work.make("b", work.talk)], ledger=ledger, executor=executor
    )
    assert [o.code for o in outcomes] == [code, code]


def test_a_plain_thread_pool_works_as_well(ledger: Ledger) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcomes = run_tasks(
            [work.make("a", work.vanish), work.make("b", work.talk)], ledger=ledger, executor=pool
        )
    assert [o.state for o in outcomes] == [State.FAILED, State.DONE]


# Runs that are ended from outside ----------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import helpers_execute as work
from cordqa.workflow.execute.local import LocalPool
from cordqa.workflow.execute.resume import open_ledger
from cordqa.workflow.execute.run import run_tasks
folder = Path(sys.argv[2])
delays = [0.0] * 4 + [float(sys.argv[3])] * 2
tasks = [
    work.make(f"t{n}", work.mark, folder=folder, name=f"t{n}", delay_s=delay)
    for n, delay in enumerate(delays)
]
with LocalPool(2) as pool:
    outcomes = run_tasks(tasks, ledger=open_ledger(folder / "out", config={}), executor=pool)
print(*(outcome.state for outcome in outcomes))
"""


def _script(folder: Path, delay_s: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT, str(TESTS), str(folder), str(delay_s)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_is_resumed_and_repeats_nothing_done(
    tmp_path: Path, number: signal.Signals
) -> None:
    first = _script(tmp_path, 300.0)
    try:
        _wait_for(lambda: len(work.traces(tmp_path, "begun")) == 6)
        _wait_for(lambda: len(read_records(tmp_path / "out")) == 4)
        workers = _children(first.pid)
        first.send_signal(number)
        first.communicate(timeout=30)
    finally:
        first.kill()
    assert first.returncode != 0
    assert len(workers) == 2
    # Workers do not outlive the run: they would be at the same tasks as the next one.
    _wait_for(lambda: all(_gone(pid) for pid in workers), 15)
    second = _script(tmp_path, 0.0)
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert output.split() == ["skipped"] * 4 + ["done"] * 2
    assert sorted(work.traces(tmp_path)) == [f"t{n}" for n in range(6)]
    assert not list((tmp_path / "out").rglob("*.part"))


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
