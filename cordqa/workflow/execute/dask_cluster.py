"""Executors on a cluster, through Dask; the packages are those of the extra ``cluster``.

A worker of Dask only supervises: each task runs in a process of its own beside it (see
:mod:`cordqa.workflow.execute.local`).  What a worker held is handed to another one when it
dies, and what was recorded before it died is not done again.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cordqa import __version__
from cordqa.errors import ConfigError
from cordqa.io.files import printable
from cordqa.workflow.execute.errors import ClusterError, MissingExtraError
from cordqa.workflow.execute.local import LocalPool
from cordqa.workflow.execute.machine import count_workers

__all__ = ["SYSTEMS", "JobOptions", "connect_scheduler", "open_executor", "start_cluster"]

Progress = Callable[[str], None]

#: Batch systems, each with its class in dask-jobqueue and what that calls the account.
SYSTEMS: Mapping[str, tuple[str, str]] = {
    "slurm": ("SLURMCluster", "account"),
    "pbs": ("PBSCluster", "account"),
    "sge": ("SGECluster", "project"),
    "lsf": ("LSFCluster", "project"),
}
_CONNECT_S = 15.0
_WORKERS_S = 60.0
#: How often jobs that have ended are replaced.
_KEEP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What to ask of a batch system; what is empty is left to the user's own Dask configuration.

    Attributes
    ----------
    jobs : int
        Jobs kept running.  Each has one core and performs one task at a time.
    memory : str
        Memory of one job: ``"4 GB"``.
    walltime, queue, account : str
        As the batch system writes them.
    directives : tuple of str
        Further lines for the batch system, without its prefix.
    prologue : tuple of str
        Shell commands before the worker starts: ``module load``, ``conda activate``.
    interface : str
        Network interface of the cluster, ``ib0`` for example.
    log_folder : Path or None
        Where the batch system leaves the output of its jobs.
    """

    jobs: int = 1
    memory: str = "4 GB"
    walltime: str = ""
    queue: str = ""
    account: str = ""
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str = ""
    log_folder: Path | None = None


def open_executor(
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    jobs: JobOptions | None = None,
    memory_per_worker_bytes: float = 2 * 1024**3,
    tasks: int | None = None,
    progress: Progress | None = None,
) -> AbstractContextManager[Executor]:
    """Return the executor that the options of a command ask for, to be used with ``with``.

    Parameters
    ----------
    workers : int, optional
        Processes on this machine; by default as many as CPUs and memory allow.
    scheduler : str, optional
        Address of a running Dask scheduler: ``tcp://host:8786``.
    cluster : str, optional
        Batch system on which to start one; a key of :data:`SYSTEMS`.
    jobs : JobOptions, optional
        For ``cluster``.
    memory_per_worker_bytes : float
        Peak of one task, for the default number of processes.
    tasks : int, optional
        Number of tasks; no more processes than that are started.
    progress : callable, optional

    Raises
    ------
    ConfigError
        If options exclude each other or are not usable.
    MissingExtraError
        If Dask is not installed.
    ClusterError
        On entry, if the cluster cannot be used.
    """
    if scheduler is not None and cluster is not None:
        raise ConfigError("--scheduler and --cluster exclude each other", todo="give one of them")
    if scheduler is not None:
        return connect_scheduler(scheduler, progress=progress)
    if cluster is not None:
        return start_cluster(cluster, options=jobs, progress=progress)
    count, note = count_workers(workers, memory_per_worker_bytes=memory_per_worker_bytes, tasks=tasks)
    if note and progress is not None:
        progress(note)
    return LocalPool(count)


@contextmanager
def connect_scheduler(
    address: str, *, wait_s: float = _WORKERS_S, progress: Progress | None = None
) -> Iterator[Executor]:
    """Use a Dask scheduler that is running already.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``, or the path of a scheduler file, which ends in ``.json``.
    wait_s : float
        How long to wait for the first worker, in seconds.
    progress : callable, optional

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    ClusterError
        If no scheduler answers, no worker joins, or the workers run another version of cordqa.
    """
    distributed = _load("distributed", f"--scheduler {address}")
    with _client(distributed, address) as client:
        try:
            client.wait_for_workers(1, timeout=wait_s)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler has no workers after {wait_s:g} s",
                where=address,
                todo=f"start some with: dask worker {address} --nthreads 1",
            ) from error
        _check_workers(client, address)
        if progress is not None:
            progress(f"{address}: {len(client.nthreads())} workers")
        yield client.get_executor(pure=False)


@contextmanager
def start_cluster(
    system: str, *, options: JobOptions | None = None, progress: Progress | None = None
) -> Iterator[Executor]:
    """Start a Dask scheduler here and its workers as jobs of a batch system.

    Jobs that end, at their time limit for example, are replaced while there is work; all of
    them are cancelled on leaving.  There is no limit to the wait in the queue.

    Parameters
    ----------
    system : str
        A key of :data:`SYSTEMS`.
    options : JobOptions, optional
    progress : callable, optional

    Raises
    ------
    ConfigError
        If there is no such system or an option is not usable.
    MissingExtraError
        If Dask or dask-jobqueue is not installed.
    ClusterError
        If the system does not accept the job.
    """
    options = options or JobOptions()
    if system not in SYSTEMS:
        raise ConfigError("no such system", where="cluster", found=system, expected=", ".join(SYSTEMS))
    if options.jobs < 1:
        raise ConfigError("is not usable", where="jobs", found=str(options.jobs), expected="1 or more")
    distributed = _load("distributed", f"--cluster {system}")
    jobqueue = _load("dask_jobqueue", f"--cluster {system}")
    name, _ = SYSTEMS[system]
    try:
        cluster = getattr(jobqueue, name)(**_job_arguments(system, options))
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise ClusterError(f"the jobs cannot be described: {_brief(error)}", where=system) from error
    left = threading.Event()
    try:
        _submit_first(cluster, system)
        # Again and again: jobs end at their time limit, and the library does not replace them.
        keeper = threading.Thread(target=_keep, args=(cluster, options.jobs, left), daemon=True)
        keeper.start()
        if progress is not None:
            progress(f"{system}: {options.jobs} jobs asked for; tasks start when the first one runs")
        with _client(distributed, cluster) as client:
            yield client.get_executor(pure=False)
    finally:
        left.set()
        cluster.close(timeout=_CONNECT_S)


def _submit_first(cluster: Any, system: str) -> None:
    """Submit one job and see that it is accepted; later ones are submitted in the background."""
    cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(cluster._correct_state)
    except (RuntimeError, ValueError, OSError) as error:
        # Closing asserts that every job was started, which the refused one was not.
        cluster._created.clear()
        raise ClusterError(
            f"the job was not accepted: {_submission_error(error)}",
            where=system,
            todo="check queue, account, memory and time limit, and that jobs can be submitted from here",
        ) from error


def _submission_error(error: Exception) -> str:
    """Find what the batch system itself said."""
    said = str(error).rpartition("stderr:")[2].strip()
    return printable(said) or _brief(error)


def _keep(cluster: Any, jobs: int, left: threading.Event) -> None:
    while True:
        cluster.scale(jobs=jobs)
        if left.wait(_KEEP_S):
            return


def _job_arguments(system: str, options: JobOptions) -> dict[str, Any]:
    _, account = SYSTEMS[system]
    given = {
        "walltime": options.walltime,
        "queue": options.queue,
        account: options.account,
        "job_extra_directives": list(options.directives),
        "job_script_prologue": list(options.prologue),
        "interface": options.interface,
        "log_directory": str(options.log_folder or ""),
    }
    # One core each: a lost job of several workers would not be noticed and replaced.
    arguments: dict[str, Any] = {"cores": 1, "processes": 1, "memory": options.memory, "n_workers": 0}
    # Any free port, because there may be other runs on this machine.
    arguments["scheduler_options"] = {"dashboard_address": ":0"}
    return arguments | {name: value for name, value in given.items() if value}


@contextmanager
def _client(distributed: Any, target: Any) -> Iterator[Any]:
    """Connect; nothing else in this process takes this client for its default."""
    where = target if isinstance(target, str) else "cluster"
    file = isinstance(target, str) and target.endswith(".json")
    if file and not Path(target).is_file():
        # The library would wait for it for ever.
        raise ClusterError("there is no such scheduler file", where=printable(where), todo="check its name")
    try:
        client = distributed.Client(
            **({"scheduler_file": target} if file else {"address": target}),
            timeout=_CONNECT_S,
            set_as_default=False,
        )
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler answers: {_brief(error)}",
            where=printable(where),
            todo="check the address, which reads like tcp://host:8786, and that the scheduler runs",
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=_CONNECT_S)


def _check_workers(client: Any, address: str) -> None:
    answers = client.run(_version, on_error="return")
    for worker, answer in answers.items():
        if answer != __version__:
            found = f"cordqa {answer}" if isinstance(answer, str) else _brief(answer)
            raise ClusterError(
                "a worker cannot do this work",
                where=f"{address}, worker {worker}",
                found=found,
                expected=f"cordqa {__version__}",
                todo="install the same version on every machine",
            )


def _version() -> str:
    return __version__


def _load(name: str, wanted_for: str) -> Any:
    try:
        # Not an import statement: the types of an absent package could not be checked.
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{wanted_for} needs {name.replace('_', '-')}, which is not installed",
            todo="in your clone of cordqa: pip install '.[cluster]'",
        ) from error


def _brief(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}", limit=200)
