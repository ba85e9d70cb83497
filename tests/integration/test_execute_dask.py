"""Tasks on a real Dask scheduler with real worker processes, some of which are killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import helpers_execute as work
import pytest
from helpers_dask import TESTS, Cluster, kill, wait_for

from cordqa.records import State
from cordqa.workflow.execute import dask_cluster
from cordqa.workflow.execute.dask_cluster import JobOptions, connect_scheduler, open_executor, start_cluster
from cordqa.workflow.execute.errors import ClusterError
from cordqa.workflow.execute.local import LocalPool
from cordqa.workflow.execute.plan import Task
from cordqa.workflow.execute.resume import Ledger, open_ledger, read_records
from cordqa.workflow.execute.run import run_tasks

pytest.importorskip("distributed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Cluster(folder)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "out", config={})


def _marks(folder: Path, count: int, delay_s: float) -> list[Task]:
    return [work.make(f"t{n}", work.mark, folder=folder, name=f"t{n}", delay_s=delay_s) for n in range(count)]


def _killing(victim: subprocess.Popen[bytes], when: Callable[[], bool]) -> threading.Thread:
    def act() -> None:
        wait_for(when)
        kill(victim)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_worker_is_killed_and_nothing_is_lost_or_repeated(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    victim, _ = cluster.add_worker(), cluster.add_worker()
    names = [f"t{n}" for n in range(8)]
    tasks = [work.make(n, work.mark_worker, folder=tmp_path, name=n, delay_s=0.7) for n in names]

    def busy() -> bool:
        taken, ended = set(work.traces(tmp_path, f"group-{victim.pid}")), set(work.traces(tmp_path))
        return len(ended) >= 2 and bool(taken & set(work.traces(tmp_path, "begun")) - ended)

    with connect_scheduler(cluster.address) as executor:
        executor._client.wait_for_workers(2, timeout=60)  # type: ignore[attr-defined]
        thread = _killing(victim, busy)
        outcomes = run_tasks(tasks, ledger=ledger, executor=executor)
        thread.join()
    assert victim.returncode == -signal.SIGKILL
    assert [(o.what, o.state) for o in outcomes] == [(name, State.DONE) for name in names]
    begun, ended = work.traces(tmp_path, "begun"), work.traces(tmp_path)
    assert sorted(ended) == names
    # What the victim was at was begun twice, and nothing else.
    assert len(begun) == len(names) + 1
    # A later run on this machine takes the records of the cluster for its own.
    with LocalPool(1) as pool:
        again = run_tasks(tasks, ledger=ledger, executor=pool)
    assert {o.code for o in again} == {"execute.current"}


def test_bad_tasks_do_not_harm_the_workers_of_others(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    cluster.add_worker()
    tasks = [
        work.make("segfault", work.segfault),
        work.make("refuses", work.refuse),
        work.make("slow", work.mark, folder=tmp_path, name="slow", delay_s=300.0, timeout_s=1.0),
        work.make("threads", work.threads),
        *_marks(tmp_path, 2, 0.0),
    ]
    with open_executor(scheduler=cluster.address) as executor:
        before = set(executor._client.nthreads())  # type: ignore[attr-defined]
        outcomes = run_tasks(tasks, ledger=ledger, executor=executor)
        after = set(executor._client.nthreads())  # type: ignore[attr-defined]
    assert [o.code for o in outcomes[:3]] == ["execute.crashed", "fit", "execute.timeout"]
    assert outcomes[3].reason == "1"
    assert all(o.state is State.DONE for o in outcomes[3:])
    assert before == after
    assert len(read_records(ledger.out)) == len(tasks)


def test_a_task_that_kills_every_worker_fails_alone(tmp_path: Path, ledger: Ledger) -> None:
    folder = tmp_path / "dask"
    folder.mkdir()
    cluster = Cluster(folder, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"})
    try:
        cluster.add_worker()  # its nanny brings it back
        tasks = [work.make("killer", work.kill_parent, weight=9.0), *_marks(tmp_path, 3, 0.0)]
        with connect_scheduler(cluster.address) as executor:
            outcomes = run_tasks(tasks, ledger=ledger, executor=executor)
    finally:
        cluster.close()
    assert [o.state for o in outcomes] == [State.FAILED, *[State.DONE] * 3]
    assert outcomes[0].code == "execute.crashed"
    assert sorted(work.traces(tmp_path)) == ["t0", "t1", "t2"]


def test_a_scheduler_that_dies_ends_the_run_with_a_reason(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    cluster.add_worker()
    tasks = _marks(tmp_path, 3, 1.0)
    with connect_scheduler(cluster.address) as executor:
        thread = _killing(cluster.scheduler, lambda: len(read_records(ledger.out)) > 0)
        outcomes = run_tasks(tasks, ledger=ledger, executor=executor)
        thread.join()
    assert outcomes[0].state is State.DONE
    assert {o.code for o in outcomes if o.state is State.FAILED} <= {"execute.lost", "execute.worker"}
    assert outcomes[2].state is State.FAILED


def test_no_scheduler_and_no_workers_are_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="no workers"), connect_scheduler(cluster.address, wait_s=0.2):
        pass
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 0.5)
    for address, said in (
        ("tcp://127.0.0.1:9", "no Dask scheduler answers"),
        ("absent.json", "scheduler file"),
    ):
        with pytest.raises(ClusterError, match=said), connect_scheduler(address):
            pass


# The class of dask-jobqueue that stands in for a batch system leaves its processes uncollected.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_jobs_of_a_batch_system_run_tasks_and_are_replaced(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machinery of dask-jobqueue with jobs that are plain processes of this machine."""
    pytest.importorskip("dask_jobqueue")
    import dask
    import dask_jobqueue
    from dask_jobqueue.local import LocalCluster

    monkeypatch.setattr(dask_jobqueue, "LocalCluster", LocalCluster, raising=False)
    monkeypatch.setitem(dask_cluster.SYSTEMS, "here", ("LocalCluster", "project"))  # type: ignore[arg-type]
    monkeypatch.setattr(dask_cluster, "_KEEP_S", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        start_cluster("here", options=JobOptions(memory="1 GB"), progress=lines.append) as executor,
    ):
        tasks = [work.make("stops", work.kill_job_once, folder=tmp_path), *_marks(tmp_path, 2, 0.0)]
        outcomes = run_tasks(tasks, ledger=ledger, executor=executor)
    gc.collect()
    assert [o.state for o in outcomes] == [State.DONE] * 3
    assert work.traces(tmp_path, "killed") == ["x", "x"]
    assert "1 jobs" in lines[0]


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge", "lsf"])
def test_each_batch_system_gets_what_was_asked_for(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins of the submission commands keep the job script and refuse it."""
    pytest.importorskip("dask_jobqueue")
    command = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}[system]
    program = tmp_path / command
    program.write_text(f'#!/bin/sh\ncat "$@" > "{tmp_path}/script"\necho "no such queue" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    options = JobOptions(
        memory="3 GB", walltime="01:00", queue="long", account="mri", prologue=("module load x",)
    )
    # What bsub says is thrown away by the library.
    said = "no such queue" if system != "lsf" else "was not accepted"
    with pytest.raises(ClusterError, match=said), start_cluster(system, options=options):
        pass
    script = (tmp_path / "script").read_text()
    assert all(word in script for word in ("long", "mri", "01:00", "module load x", "--nthreads 1"))
