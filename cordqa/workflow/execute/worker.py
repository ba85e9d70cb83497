"""The process that does the work: takes calls from a pipe, one at a time, until the pipe closes.

It is started by :mod:`cordqa.workflow.execute.local` with ``python -c``.  When the process that
started it dies, even by SIGKILL, the pipe closes, and the worker ends what it is doing: nobody
would read the answer, and a resumed run may already be at the same task.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from cordqa.errors import CordqaError, OutputError
from cordqa.records import Outcome
from cordqa.workflow.execute.calls import Call, failed, perform
from cordqa.workflow.execute.frames import read_frame, write_frame

__all__ = ["GRACE_S", "serve"]

#: Time between being asked to end and being made to: enough to remove temporary files and to
#: end programs that the task has started.
GRACE_S = 8.0


class _Ended(BaseException):
    """The worker was asked to end; not an Exception, so that no task can swallow it by accident."""


def serve() -> None:
    """Work until there is nobody left to work for."""
    requests, replies = _claim_pipes()
    faulthandler.enable(file=2)
    signal.signal(signal.SIGTERM, _end)
    # An interrupt of the terminal concerns the main process, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Line by line, so that a crash loses little; and no odd file name may fail a task.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_receive, args=(requests, inbox, busy), daemon=True).start()
    try:
        write_frame(replies, b"ready")
        while (call := inbox.get()) is not None:
            outcome = _perform_logged(call)
            busy.clear()
            write_frame(replies, pickle.dumps(outcome))
    except (_Ended, BrokenPipeError):
        # Threads of libraries may still be at work; they have no say in when this process ends.
        os._exit(1)


def _claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes for ourselves, so that nothing a task prints or reads can disturb them."""
    # Both copies are closed in programs that the task starts.
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[Call | None], busy: threading.Event) -> None:
    while (content := read_frame(requests)) is not None:
        busy.set()
        inbox.put(pickle.loads(content))
    inbox.put(None)
    if busy.is_set():
        _end_self()


def _end_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _end(number: int, _frame: object) -> None:
    # Once is enough: a second request must not interrupt the clearing up.
    signal.signal(number, signal.SIG_IGN)
    raise _Ended


def _perform_logged(call: Call) -> Outcome:
    try:
        with _logged(call.ledger.log_path(call.key), call):
            return perform(call)
    except CordqaError as error:
        return failed(call.key, call.inputs, str(error), error.code)


@contextmanager
def _logged(path: Path, call: Call) -> Iterator[None]:
    """Send everything that is printed, also by compiled code and by programs, to the log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if call.attempt == 1 else 0)
    try:
        log = os.open(path, flags, 0o666)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(path)) from error
    kept = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        _note(f"{call.key}: started, attempt {call.attempt}")
        yield
        _note(f"{call.key}: ended")
    finally:
        for stream, target, number in ((sys.stdout, kept[0], 1), (sys.stderr, kept[1], 2)):
            _flush(stream)
            os.dup2(target, number)
            os.close(target)


def _note(text: str) -> None:
    line = f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n"
    try:
        os.write(2, line.encode("utf-8", "replace"))
    except OSError:
        # A full disk is for the task to find, with a better sentence.
        return


def _flush(stream: object) -> None:
    try:
        stream.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return
