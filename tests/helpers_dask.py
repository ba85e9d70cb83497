"""A Dask scheduler and workers on this machine, as a user would start them by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent


class Cluster:
    """A scheduler and workers on this machine, as a user would start them by hand."""

    def __init__(self, folder: Path, *, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._file = folder / "scheduler.json"
        self._environment = {**os.environ, "PYTHONPATH": str(TESTS), **(environment or {})}
        self.workers: list[subprocess.Popen[bytes]] = []
        words = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self.scheduler = self._dask("scheduler", *words, "--scheduler-file", str(self._file))
        wait_for(self._file.exists)
        self.address = str(self._file)

    def add_worker(self) -> subprocess.Popen[bytes]:
        words = ("--scheduler-file", str(self._file), "--nthreads", "1", "--host", "127.0.0.1")
        worker = self._dask("worker", *words, "--no-dashboard", "--local-directory", str(self.folder))
        self.workers.append(worker)
        return worker

    def _dask(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"dask-{words[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker of Dask together with the nanny that would bring it back."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
