"""Run the participants of a cord study: on this machine, or on a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cordqa.errors import CordqaError
from cordqa.io.results import write_text
from cordqa.records import Outcome, State
from cordqa.workflow.cord_participant import CordJob, input_files, record_loss, run_job
from cordqa.workflow.execute.dask_cluster import JobOptions, open_executor
from cordqa.workflow.execute.plan import Task
from cordqa.workflow.execute.resume import open_ledger
from cordqa.workflow.execute.run import run_tasks

__all__ = ["Execution", "run_jobs"]

#: Options that choose what is done, not how: a change of them makes no earlier result stale.
_CHOICES = ("participants", "sessions", "exclude_from", "redo")
#: Codes of tasks whose own process could not write a result any more.
_LOST = ("execute.", "internal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How many processes, or which cluster.

    Attributes
    ----------
    n_procs : int or None
        Processes on this machine, or jobs of a batch system; as many as fit by default.
    scheduler : str
        Address of a running Dask scheduler.
    cluster : str
        Batch system that is asked for workers: slurm, pbs, sge or lsf.
    """

    n_procs: int | None = None
    scheduler: str = ""
    cluster: str = ""


def run_jobs(
    jobs: Sequence[CordJob], execution: Execution, *, out: Path, work: Path, tell: Callable[[str], None]
) -> list[Outcome]:
    """Run the jobs that are not done and current; return one outcome per job, in their order.

    Raises
    ------
    ConfigError, ClusterError
        If the processes or the cluster cannot be had.
    """
    if not jobs:
        return []
    settings = jobs[0].settings
    ledger = open_ledger(out, config=_config(jobs[0]))
    tasks = [_task(job, work) for job in jobs]
    with open_executor(
        workers=execution.n_procs,
        scheduler=execution.scheduler or None,
        cluster=execution.cluster or None,
        jobs=JobOptions(jobs=execution.n_procs or 1, log_folder=out / "logs"),
        tasks=len(tasks),
        progress=tell,
    ) as executor:
        outcomes = run_tasks(tasks, ledger=ledger, executor=executor, progress=tell, resume=not settings.redo)
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.state is State.FAILED and outcome.code.startswith(_LOST):
            _leave_result(job, outcome, tell)
    return list(outcomes)


def _config(job: CordJob) -> dict[str, Any]:
    """Everything that changes the result of every participant."""
    plain = job.settings.plain()
    config: dict[str, Any] = {key: value for key, value in plain.items() if key not in _CHOICES}
    config["atlas"] = [job.atlas.name, job.atlas.packed.name if job.atlas.packed else ""]
    config["toolbox"] = job.toolbox.version if job.toolbox is not None else ""
    config["controls"] = job.normative.sha256 if job.normative is not None else ""
    return config


def _task(job: CordJob, work: Path) -> Task:
    """Describe a job; what concerns this participant alone goes into a file that is compared."""
    own = {
        "participant": dict(job.index.participants.get(job.subject, {})),
        "marks": {
            name: why for name, why in sorted(job.marks.items()) if name.startswith(f"sub-{job.subject}")
        },
    }
    path = work / "units" / f"{job.name}.json"
    text = json.dumps(own, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return Task(
        key=job.name,
        function=run_job,
        arguments={"job": job},
        inputs=(path, *input_files(job)),
        outputs=(job.folder / "result.json",),
    )


def _leave_result(job: CordJob, outcome: Outcome, tell: Callable[[str], None]) -> None:
    try:
        record_loss(job, outcome)
    except CordqaError as error:
        # The ledger has the failure already; the study report will only lack its cause.
        tell(f"{job.name}: {error}")
