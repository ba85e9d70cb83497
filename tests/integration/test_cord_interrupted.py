"""A full disk and a killed run: contained, named, and mended by running again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_dask import wait_for

from cordqa.io.bids_index import index_dataset
from cordqa.io.results import read_result
from cordqa.io.volumes import write_volume
from cordqa.records import State
from cordqa.simulate.cord_study import simulate_study
from cordqa.workflow import cord_atlas
from cordqa.workflow.cord import Execution, run_cord_participants
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_group import run_cord_group
from cordqa.workflow.cord_participant import CordJob, run_job
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.execute.calls import make_call, perform
from cordqa.workflow.execute.plan import Task
from cordqa.workflow.execute.resume import open_ledger, read_records

NAMES = ("01", "02", "03")


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "bids"
    scan = next(simulate_study(seed=2, n_people=1, n_repeats=1)).scans[1]
    volume = replace(scan.volume, data=scan.volume.data.astype(np.int16))
    write_volume(volume, folder / "sub-01/anat/sub-01_T2w.nii.gz")
    for name in NAMES[1:]:
        path = folder / f"sub-{name}/anat/sub-{name}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copy(folder / "sub-01/anat/sub-01_T2w.nii.gz", path)
    return folder


def test_a_full_disk_costs_the_participant_it_struck(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    make_file = tempfile.mkstemp

    def full(*words: Any, **options: Any) -> tuple[int, str]:
        if "sub-02" in str(options.get("dir", "")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make_file(*words, **options)

    index, ledger = index_dataset(bids), open_ledger(out, config={})
    outcomes = {}
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", full)
        for name in NAMES:
            job = CordJob(
                index=index,
                subject=name,
                session="",
                out=out,
                settings=CordSettings(),
                work=out / "work",
                atlas=prepare_atlas(None, out / "work"),
                marks={},
            )
            task = Task(
                key=job.name,
                function=run_job,
                arguments={"job": job},
                outputs=(job.folder / "result.json",),
            )
            outcomes[name] = perform(make_call(task, ledger))
    assert [o.state for o in outcomes.values()] == [State.DONE, State.FAILED, State.DONE]
    assert "No space left on device" in outcomes["02"].reason
    assert outcomes["02"].code.startswith("output")
    assert not [p for p in (out / "sub-02").rglob("*") if p.is_file()]
    assert not list(out.rglob(".*.part"))
    # There is room again: what was done stays, the other one is made up for.
    result = run_cord_participants(bids, out, execution=Execution(n_procs=1))
    assert result.count(State.FAILED) == 0
    assert read_result(out / "sub-02").measurements


def test_a_killed_run_leaves_nothing_half_and_goes_on(bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    starter = "import sys; from cordqa.cli import main; sys.argv[0] = 'cordqa'; main()"
    words = ["cord", str(bids), str(out), "participant", "--n-procs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", starter, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(read_records(out)) >= 1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for path in out.rglob("result.json"):
        json.loads(path.read_text())
    before = {record.key for record in read_records(out) if record.outcome.state is State.DONE}
    again = run_cord_participants(bids, out, execution=Execution(n_procs=1))
    current = {o.what for o in again.outcomes if o.code == "execute.current"}
    assert before and before <= current
    assert again.count(State.FAILED) == 0
    assert run_cord_group(out).count(State.FAILED) == 0


def test_a_template_is_known_by_its_content(tmp_path: Path) -> None:
    """A copy of the template is the same template; a changed one is another, whatever its time says."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "cord").write_bytes(b"one")
    os.utime(second / "cord", (1, 1))
    stamps = [cord_atlas._stamp([folder / "cord"]) for folder in (first, second)]
    assert stamps[0] == stamps[1]
    time = (second / "cord").stat().st_mtime_ns
    (second / "cord").write_bytes(b"two")
    os.utime(second / "cord", ns=(time, time))
    assert cord_atlas._stamp([second / "cord"]) != stamps[0]
