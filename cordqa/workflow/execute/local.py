"""The pool of this machine, and the way in which every pool performs a call.

A pool is a :class:`concurrent.futures.Executor`.  Its own threads or processes only supervise:
the work itself is done in a worker process each, so that a crash names its task and takes
nothing else down, a time limit holds even inside compiled code, and libraries can be held to
one thread.  This is so on a cluster as well, where it also works around Dask's workers being
forbidden to have children of :mod:`multiprocessing`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from cordqa.errors import ConfigError
from cordqa.workflow.execute.calls import Call, Ending
from cordqa.workflow.execute.processes import WorkerProcess
from cordqa.workflow.execute.worker import GRACE_S

__all__ = ["LocalPool", "perform_apart"]

_HERE = threading.local()


def perform_apart(call: Call) -> Ending:
    """Perform a call in a worker process: the thread's own where it has one, else a fresh one.

    Never raises for what happens to the task.
    """
    own: WorkerProcess | None = getattr(_HERE, "process", None)
    if own is not None:
        return own.perform(call)
    fresh = WorkerProcess()
    try:
        return fresh.perform(call)
    finally:
        fresh.close()


class LocalPool(ThreadPoolExecutor):
    """Worker processes on this machine, each with a thread that supervises it.

    Parameters
    ----------
    workers : int, >= 1
        Calls performed at the same time; see
        :func:`~cordqa.workflow.execute.machine.count_workers`.
    threads : int, >= 1
        Threads that numerical libraries may use in each.
    calls_per_process : int, >= 1
        After so many calls a process is replaced.

    Raises
    ------
    ConfigError
        If one of the numbers is not positive.
    """

    def __init__(self, workers: int, *, threads: int = 1, calls_per_process: int = 20) -> None:
        for name, value in (("workers", workers), ("threads", threads), ("calls", calls_per_process)):
            if value < 1:
                raise ConfigError(f"the number of {name} is not usable", found=str(value), expected=">= 1")
        self._threads_each = threads
        self._calls_each = calls_per_process
        self._processes: list[WorkerProcess] = []
        self._guard = threading.Lock()
        self._abandoned = False
        super().__init__(workers, thread_name_prefix="cordqa-worker", initializer=self._equip)

    def _equip(self) -> None:
        process = WorkerProcess(threads=self._threads_each, calls_per_process=self._calls_each)
        with self._guard:
            self._processes.append(process)
            if self._abandoned:
                process.ask_to_end()
        _HERE.process = process

    def abandon(self) -> None:
        """Give up what is not done: cancel what waits, end what is under way."""
        super().shutdown(wait=False, cancel_futures=True)
        with self._guard:
            self._abandoned = True
            processes = tuple(self._processes)
        for process in processes:
            process.ask_to_end()
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            process.close(grace_s=max(0.0, deadline - time.monotonic()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool; processes end once their work is done and ``wait`` is true."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            for process in self._processes:
                process.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool; after an error, an interrupt for example, without waiting for the rest."""
        if kind is not None:
            self.abandon()
        self.shutdown(wait=True)
