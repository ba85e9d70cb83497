"""One worker process: start it, give it a call, end it together with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, BinaryIO, cast

from cordqa.io.files import printable
from cordqa.records import Outcome, State
from cordqa.workflow.execute.calls import Call, Ending
from cordqa.workflow.execute.frames import read_frame, write_frame
from cordqa.workflow.execute.worker import GRACE_S

__all__ = ["WorkerProcess"]

#: Libraries read these when they are loaded, so they must be set before the process starts.
_THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Not ``-m``: the package may be known to this process only through its own search path.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from cordqa.workflow.execute.worker import serve; serve()"
)
_START_LIMIT_S = 300.0
_POLL_S = 1.0
_STDERR_TAIL = 4000


class WorkerProcess:
    """A process that performs calls one after the other, replaced when it is lost or worn.

    Parameters
    ----------
    threads : int
        Threads that numerical libraries may use in it.
    calls_per_process : int
        After so many calls a fresh process takes over, which gives leaked memory back.
    """

    def __init__(self, *, threads: int = 1, calls_per_process: int = 20) -> None:
        self._threads = threads
        self._calls_per_process = calls_per_process
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._calls = 0
        self._closed = False
        self._lock = threading.Lock()
        self._work = threading.Lock()  # held while a call is performed

    def perform(self, call: Call) -> Ending:
        """Give one call to the process and wait for the end of it, however it ends."""
        with self._work:
            return self._perform(call)

    def _perform(self, call: Call) -> Ending:
        process, trouble = self._ready()
        if process is None:
            return Ending(reason=trouble, code="execute.worker", worth_retry=not self._closed)
        limit = _Limit(process, call.timeout_s)
        try:
            content = _exchange(process, pickle.dumps(call))
        finally:
            limit.cancel()
        self._calls += 1
        if content is None:
            return self._lost(process, call, timed_out=limit.passed)
        outcome: Outcome = pickle.loads(content)
        # After a failure the process may hold on to memory or be in an odd state.
        if limit.passed or outcome.state is State.FAILED or self._calls >= self._calls_per_process:
            self._discard()
        return Ending(outcome=outcome)

    def close(self, *, grace_s: float = GRACE_S) -> None:
        """End the process; a call that is under way is given a few seconds to clear up."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            _end(process, grace_s)
        with self._work:
            self._discard()

    def ask_to_end(self) -> None:
        """Ask without waiting, so that many processes can end at the same time."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _signal(self._process, signal.SIGTERM)

    def _ready(self) -> tuple[subprocess.Popen[bytes] | None, str]:
        with self._lock:
            if self._closed:
                return None, "the run was ended"
            if self._process is not None and not _has_ended(self._process):
                return self._process, ""
        self._discard()
        try:
            process = self._start()
        except OSError as error:
            return None, f"no worker process can be started: {error.strerror or error}"
        if process is None:
            return None, "the run was ended"
        if self._greeted(process):
            return process, ""
        reason = self._last_words()
        self._discard()
        return None, f"the worker process did not start: {reason or 'it said nothing'}"

    def _start(self) -> subprocess.Popen[bytes] | None:
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self._threads))}
        with self._lock:
            if self._closed:
                return None
            # A file, not a pipe, which somebody would have to empty.
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
            self._calls = 0
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps([str(entry) for entry in sys.path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                # A group of its own: an interrupt of the terminal does not reach it, and it can
                # be ended with everything that it started.
                start_new_session=True,
            )
            return self._process

    def _greeted(self, process: subprocess.Popen[bytes]) -> bool:
        limit = _Limit(process, _START_LIMIT_S)
        try:
            return _receive(process) == b"ready"
        finally:
            limit.cancel()

    def _lost(self, process: subprocess.Popen[bytes], call: Call, *, timed_out: bool) -> Ending:
        status = _collect(process)
        self._discard()
        if timed_out:
            reason = f"ran past its limit of {call.timeout_s:g} s and was ended"
            return Ending(reason=reason, code="execute.timeout")
        if self._closed:
            return Ending(reason="the run was ended", code="execute.stopped")
        return Ending(reason=_why(status), code="execute.crashed", worth_retry=True)

    def _discard(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            stderr, self._stderr = self._stderr, None
        if process is not None:
            _end(process, GRACE_S)
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
        if stderr is not None:
            stderr.close()

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1]) if lines else ""


class _Limit:
    """A time limit on a process: past it, the process is ended."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float | None) -> None:
        self.passed = False
        self._process = process
        # Longer than a thread can wait for is as good as no limit.
        bounded = seconds is not None and seconds < threading.TIMEOUT_MAX
        self._timer = threading.Timer(cast(float, seconds), self._pass) if bounded else None
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def _pass(self) -> None:
        self.passed = True
        _ask_then_kill(self._process)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


def _exchange(process: subprocess.Popen[bytes], content: bytes) -> bytes | None:
    try:
        write_frame(cast(BinaryIO, process.stdin), content)
    except (OSError, ValueError):  # the process is gone, or was given up
        return None
    return _receive(process)


def _receive(process: subprocess.Popen[bytes]) -> bytes | None:
    """Wait for an answer; None when the process has ended without one."""
    stream = cast(BinaryIO, process.stdout)
    # A grandchild may hold the pipe open after the process has died, so its end is not waited for.
    while os.name == "posix" and not select.select([stream], [], [], _POLL_S)[0]:
        if _has_ended(process) and not select.select([stream], [], [], 0)[0]:
            return None
    try:
        return read_frame(stream)
    except (OSError, ValueError):
        return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether it has ended, and leave its number taken so that its group can be signalled."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ask_then_kill(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    _wait(process, GRACE_S)
    _kill_group(process)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process that may be idle, busy or dead already, and collect its status."""
    _close(process.stdin)  # an idle worker takes this as the end of work, a busy one as a request
    _wait(process, grace_s)
    _kill_group(process)
    process.wait()


def _collect(process: subprocess.Popen[bytes]) -> int:
    # The answer may fail to come a moment before the process is gone.
    _wait(process, _POLL_S)
    _kill_group(process)
    return process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        _signal(process, signal.SIGKILL, group=True)
    elif not _has_ended(process):
        process.kill()


def _signal(process: subprocess.Popen[bytes], number: int, *, group: bool = False) -> None:
    # The number of a process that was collected may belong to another one by now.
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()


def _why(status: int) -> str:
    """Say in words how a process was lost."""
    if status >= 0:
        return f"its process ended with status {status} before the work was done"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return "its process was killed (SIGKILL), most often because memory ran out"
    return f"its process crashed ({name})"
