"""``cordqa cord`` on a real Dask scheduler, and on a batch system whose commands are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_dask import Cluster, kill, wait_for

from cordqa.cli._run import run
from cordqa.io.results import read_result
from cordqa.io.volumes import write_volume
from cordqa.records import Outcome, State
from cordqa.simulate.cord_study import simulate_study
from cordqa.workflow import cord_pool
from cordqa.workflow.cord import Execution, run_cord_participants
from cordqa.workflow.execute.resume import read_records

pytest.importorskip("distributed")

NAMES = ("01", "02", "03", "04")


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated image under several names; the values do not matter here, their being equal does."""
    folder = tmp_path_factory.mktemp("cluster") / "bids"
    # The image of thick slices, which takes the least time.
    scan = next(simulate_study(seed=2, n_people=1, n_repeats=1)).scans[1]
    volume = replace(scan.volume, data=scan.volume.data.astype(np.int16))
    first = folder / "sub-01/anat/sub-01_T2w.nii.gz"
    write_volume(volume, first)
    for name in NAMES[1:]:
        path = folder / f"sub-{name}/anat/sub-{name}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copy(first, path)
    return folder


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Cluster(folder)
    try:
        yield started
    finally:
        started.close()


def areas(out: Path) -> list[float]:
    """Mean area of each participant, from the results on disk."""
    return [
        row.value
        for name in NAMES
        for row in read_result(out / f"sub-{name}").measurements
        if (row.quantity, row.level) == ("CSA", "all slices") and "no angle" not in row.method
    ]


def wait_for_workers(cluster: Cluster, count: int) -> None:
    import distributed

    with distributed.Client(scheduler_file=cluster.address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_a_worker_dies_in_the_middle_and_nobody_is_lost(
    bids: Path, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    victim, _ = cluster.add_worker(), cluster.add_worker()
    wait_for_workers(cluster, 2)

    def act() -> None:
        # Two workers with one thread each: when two participants have begun, both are busy.
        wait_for(lambda: len(list((out / "logs").glob("sub-*.log"))) >= 2)
        kill(victim)

    thread = threading.Thread(target=act)
    thread.start()
    words = ["cord", str(bids), str(out), "participant", "--scheduler", cluster.address, "--json"]
    status = run(words)
    thread.join()
    result = json.loads(capsys.readouterr().out)
    assert victim.returncode == -signal.SIGKILL
    assert status == 0
    assert {o["what"]: o["state"] for o in result["outcomes"]} == {f"sub-{n}": "done" for n in NAMES}
    found = areas(out)
    assert len(found) == len(NAMES) and np.ptp(found) == 0
    assert not list(out.rglob("*.tmp*"))
    # What the cluster did counts as done for a run on this machine, and gives the same numbers.
    again = run_cord_participants(bids, out, execution=Execution(n_procs=1))
    assert {o.code for o in again.outcomes} == {"execute.current"}


def test_the_scheduler_dies_and_the_next_run_goes_on(
    bids: Path, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    cluster.add_worker()
    wait_for_workers(cluster, 1)

    def act() -> None:
        wait_for(lambda: len(read_records(out)) >= 1)
        kill(cluster.scheduler)

    thread = threading.Thread(target=act)
    thread.start()
    words = ["cord", str(bids), str(out), "participant", "--json"]
    assert run([*words, "--scheduler", cluster.address]) == 1
    thread.join()
    first = json.loads(capsys.readouterr().out)["outcomes"]
    codes = {o["code"] for o in first if o["state"] == "failed"}
    assert codes and codes <= {"execute.lost", "execute.worker"}
    cluster.close()
    assert run([*words, "--n-procs", "1"]) == 0
    second = {o["what"]: o["state"] for o in json.loads(capsys.readouterr().out)["outcomes"]}
    done_before = {o["what"] for o in first if o["state"] == "done"}
    assert done_before and {what for what, state in second.items() if state == "skipped"} >= done_before
    assert set(second.values()) <= {"done", "skipped"}
    assert len(areas(out)) == len(NAMES)


def test_a_note_of_a_lost_worker_never_stands_for_its_result(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker lives, the scheduler does not: whoever writes last, the next run ends with the values."""
    out = tmp_path / "out"
    options = {"settings": cord_pool_settings("01"), "execution": Execution(n_procs=1)}
    assert run_cord_participants(bids, out, **options).count(State.DONE) == 1
    result = out / "sub-01" / "result.json"
    good = result.read_bytes()
    # The note was written over the result before the record of the worker came.
    lost = Outcome(what="sub-01", state=State.FAILED, reason="lost", code="execute.lost")
    with monkeypatch.context() as patch:
        patch.setattr(cord_pool, "run_tasks", lambda *_a, **_k: (lost,))
        os.utime(result, (1, 1))
        run_cord_participants(bids, out, **options)
    assert b'"failed"' in result.read_bytes()
    assert run_cord_participants(bids, out, **options).count(State.DONE) == 1
    assert len(result.read_bytes()) == pytest.approx(len(good), rel=0.01)
    # The worker was first: its result stays as it is.
    with monkeypatch.context() as patch:

        def finish(*_a: object, **_k: object) -> tuple[Outcome, ...]:
            result.write_bytes(good)
            return (lost,)

        patch.setattr(cord_pool, "run_tasks", finish)
        run_cord_participants(bids, out, **options)
    assert result.read_bytes() == good


def cord_pool_settings(subject: str):
    from cordqa.workflow.cord_settings import CordSettings

    return CordSettings(participants=(subject,))


def test_a_batch_system_runs_the_participants(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``sbatch`` runs the job script as a process of this machine; everything else is as on a cluster."""
    pytest.importorskip("dask_jobqueue")
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "sbatch": f'cp "$1" "{tmp_path}/job"\n'
        f'setsid bash "{tmp_path}/job" > "{tmp_path}/job.log" 2>&1 < /dev/null &\n'
        'echo "Submitted batch job $!"',
        "scancel": 'kill -- "-$1" 2> /dev/null || kill "$1" 2> /dev/null\ntrue',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    out = tmp_path / "out"
    words = ["cord", str(bids), str(out), "participant", "--participant-label", "01", "02"]
    words += ["--cluster", "slurm", "--n-procs", "1", "--memory", "1 GB", "--walltime", "00:10:00"]
    words += ["--queue", "short", "--account", "mri", "--job-prologue", "true", "--json"]
    starter = "import sys; from cordqa.cli import main; sys.argv[0] = 'cordqa'; main()"
    done = subprocess.run(
        [sys.executable, "-c", starter, *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + (tmp_path / "job.log").read_text()[-2000:]
    states = {o["what"]: o["state"] for o in json.loads(done.stdout)["outcomes"]}
    assert states == {"sub-01": "done", "sub-02": "done"}
    job = (tmp_path / "job").read_text()
    for line in ("-p short", "-A mri", "-t 00:10:00", "--mem=954M"):
        assert f"#SBATCH {line}" in job
