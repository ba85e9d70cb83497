"""Run the participants of a cord study: on this machine, or on a cluster."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cordqa.errors import ConfigError, CordqaError
from cordqa.io.results import write_text
from cordqa.records import Outcome, State
from cordqa.workflow.cord_participant import CordJob, input_files, record_loss, run_job
from cordqa.workflow.execute.amounts import parse_memory
from cordqa.workflow.execute.dask_cluster import JobOptions, open_executor
from cordqa.workflow.execute.plan import Task
from cordqa.workflow.execute.resume import open_ledger
from cordqa.workflow.execute.run import run_tasks

__all__ = ["Execution", "run_jobs"]

#: Options that choose what is done, not how: a change of them makes no earlier result stale.
_CHOICES = ("participants", "sessions", "exclude_from", "redo", "sct_folder")
#: Codes of tasks whose own process could not write a result any more.
_LOST = ("execute.", "internal")
#: Those of tasks that may still be going on where nobody sees them.
_OUT_OF_SIGHT = ("execute.lost", "execute.worker")


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
    timeout_s : float or None
        Limit of one participant, seconds of wall clock; it fails and the others go on.
    stop_on_first_crash : bool
        Start no further participant after one that failed.
    memory : str
        Of one participant: how many fit on this machine, and what is asked of a batch system.
    walltime, queue, account, directives, prologue
        For the batch system; see :class:`~cordqa.workflow.execute.dask_cluster.JobOptions`.
    """

    n_procs: int | None = None
    scheduler: str = ""
    cluster: str = ""
    timeout_s: float | None = None
    stop_on_first_crash: bool = False
    memory: str = ""
    walltime: str = ""
    queue: str = ""
    account: str = ""
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ConfigError("must be above 0 seconds", where="timeout", found=f"{self.timeout_s:g}")
        if self.memory:
            parse_memory(self.memory, option="--memory")
        of_a_cluster = {
            "walltime": self.walltime,
            "queue": self.queue,
            "account": self.account,
            "job-directive": self.directives,
            "job-prologue": self.prologue,
        }
        given = [name for name, value in of_a_cluster.items() if value]
        if given and not self.cluster:
            raise ConfigError(
                "is an option of a batch system",
                where=given[0],
                todo="give --cluster slurm, pbs, sge or lsf as well, or leave it out",
            )

    @property
    def memory_bytes(self) -> float:
        """Memory of one participant; 2 GiB where the user gave none."""
        return parse_memory(self.memory, option="--memory") if self.memory else 2.0 * 1024**3

    def job_options(self, out: Path) -> JobOptions:
        """Describe the jobs of a batch system; what is not given is left to Dask's own configuration."""
        options = JobOptions(
            jobs=self.n_procs or 1,
            walltime=self.walltime,
            queue=self.queue,
            account=self.account,
            directives=self.directives,
            prologue=self.prologue,
            log_folder=out / "logs",
        )
        return replace(options, memory=self.memory) if self.memory else options


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
    started = time.time()
    tasks = [replace(_task(job, work), timeout_s=execution.timeout_s) for job in jobs]
    with open_executor(
        workers=execution.n_procs,
        scheduler=execution.scheduler or None,
        cluster=execution.cluster or None,
        jobs=execution.job_options(out),
        memory_per_worker_bytes=execution.memory_bytes,
        tasks=len(tasks),
        progress=tell,
    ) as executor:
        outcomes = run_tasks(
            tasks,
            ledger=ledger,
            executor=executor,
            progress=tell,
            resume=not settings.redo,
            stop_on=_failed if execution.stop_on_first_crash else None,
        )
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.state is State.FAILED and outcome.code.startswith(_LOST):
            if outcome.code in _OUT_OF_SIGHT and _written_since(job, started):
                # Its worker is alive, and finished while the connection to it was gone.
                tell(f"{job.name}: its result came after all; run again and it counts as done")
                continue
            _leave_result(job, outcome, tell)
    return list(outcomes)


def _written_since(job: CordJob, started: float) -> bool:
    try:
        return (job.folder / "result.json").stat().st_mtime >= started
    except OSError:
        return False


def _failed(outcome: Outcome) -> bool:
    return outcome.state is State.FAILED


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
