"""What crosses over to the process that does the work, and what that process does with it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cordqa import __version__
from cordqa.errors import CordqaError, OutputError
from cordqa.io.files import printable
from cordqa.records import Outcome, State
from cordqa.workflow.execute.plan import Task, function_name, open_arguments, seal
from cordqa.workflow.execute.resume import Fingerprint, Ledger, Record, take_fingerprint

__all__ = ["Call", "Ending", "failed", "make_call", "perform", "record_failure"]

#: A folder made a moment ago on another machine may take this long to show on a network disk.
_VISIBLE_AFTER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One task on its way to a worker."""

    key: str
    payload: bytes
    function: str
    ledger: Ledger
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    timeout_s: float | None = None
    attempt: int = 1
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended: with an outcome, or with the loss of the process that did the work."""

    outcome: Outcome | None = None
    reason: str = ""
    code: str = ""
    # Another try may end differently: memory ran out because of a neighbour, for example.
    worth_retry: bool = False


def make_call(task: Task, ledger: Ledger) -> Call:
    """Make a task ready to travel.

    Raises
    ------
    PickleError
        If it cannot.
    """
    return Call(
        key=task.key,
        payload=seal(task),
        function=function_name(task.function),
        ledger=ledger,
        inputs=tuple(path.absolute() for path in task.inputs),
        outputs=tuple(path.absolute() for path in task.outputs),
        timeout_s=task.timeout_s,
    )


def failed(key: str, inputs: tuple[Path, ...], reason: str, code: str) -> Outcome:
    """Make the outcome of a task that failed."""
    sources = tuple(path.name for path in inputs)
    return Outcome(what=key, state=State.FAILED, reason=reason, code=code, sources=sources)


def record_failure(ledger: Ledger, outcome: Outcome, *, key: str, attempt: int = 1) -> Outcome:
    """Keep a failure that the worker itself could not record; return the outcome."""
    record = Record(
        key=key,
        outcome=outcome,
        version=ledger.version,
        config_hash=ledger.config_hash,
        run=ledger.run,
        attempt=attempt,
        started=_now(),
    )
    try:
        ledger.write(record)
    except OutputError as error:
        # A failure without a record is repeated by the next run, which is what it needs anyway.
        return replace(outcome, reason=f"{outcome.reason} (and this could not be recorded: {error})")
    return outcome


def perform(call: Call) -> Outcome:
    """Do the work of one call in this process and record how it ended.

    This is the one place where a failed task is caught.  What it prints, and the traceback of
    a failure, go to standard error, which a worker keeps in the log of the task.
    """
    try:
        _check_place(call)
    except CordqaError as error:
        return failed(call.key, call.inputs, str(error), error.code)
    earlier = call.ledger.read(call.key)
    # A cluster may ask again for what was done, when the machine that knew of it is gone.
    if earlier is not None and earlier.run == call.ledger.run:
        return earlier.outcome
    started, clock = _now(), time.monotonic()
    # Before the work: an input that changes meanwhile must not count as the one that was used.
    inputs = tuple(take_fingerprint(path) for path in call.inputs)
    outcome = _attempt(call)
    return _keep(call, outcome, inputs, started=started, seconds=time.monotonic() - clock)


def _check_place(call: Call) -> None:
    """Refuse to work where the result would differ or be lost."""
    if call.version != __version__:
        raise _PlaceError(
            "the worker runs another version of cordqa",
            found=__version__,
            expected=call.version,
            todo="install the same version on every machine",
        )
    folder = call.ledger.state_folder
    deadline = time.monotonic() + _VISIBLE_AFTER_S
    while not folder.is_dir():
        if time.monotonic() > deadline:
            raise _PlaceError(
                "the worker does not see the output folder",
                where=str(call.ledger.out),
                todo="give one that all machines share under the same name",
            )
        time.sleep(0.1)


class _PlaceError(CordqaError):
    code = "execute.place"


def _attempt(call: Call) -> Outcome:
    try:
        function, arguments = open_arguments(call.payload)
        outcome = _call_function(call, function, arguments)
        return _check_outputs(call, outcome)
    except CordqaError as error:
        _log_traceback()
        return _failure(call, str(error).removeprefix(f"{call.key}: "), error.code)
    except MemoryError:
        _log_traceback()
        return _failure(call, "memory ran out", "execute.memory")
    except SystemExit as leave:
        _log_traceback()
        return _failure(call, f"tried to end the program (status {leave.code})", "execute.exit")
    except Exception as error:  # a defect, said in one line; the log has the rest
        _log_traceback()
        message = printable(f"{type(error).__name__}: {error}")
        return _failure(call, f"internal error ({message})", "internal")


def _call_function(call: Call, function: Callable[..., Any], arguments: dict[str, Any]) -> Outcome:
    returned = function(**arguments)
    if returned is None:
        sources = tuple(path.name for path in call.inputs)
        return Outcome(what=call.key, state=State.DONE, sources=sources)
    if isinstance(returned, Outcome):
        return _plain_outcome(returned)
    found = type(returned).__name__
    return _failure(call, f"returned {found} where an outcome or nothing was expected", "execute.result")


def _plain_outcome(returned: Outcome) -> Outcome:
    """Hold a task to the types that it promised: the outcome must travel and be written."""
    return Outcome(
        what=str(returned.what),
        state=State(returned.state),
        reason=str(returned.reason),
        code=str(returned.code),
        sources=tuple(str(source) for source in returned.sources),
    )


def _check_outputs(call: Call, outcome: Outcome) -> Outcome:
    """A task that ends well without its results has failed."""
    if outcome.state is not State.DONE:
        return outcome
    absent = [path.name for path in call.outputs if not path.exists()]
    if not absent:
        return outcome
    return _failure(call, f"ended without its output: {', '.join(absent)}", "execute.no-output")


def _keep(
    call: Call, outcome: Outcome, inputs: tuple[Fingerprint, ...], *, started: str, seconds: float
) -> Outcome:
    record = Record(
        key=call.key,
        outcome=outcome,
        function=call.function,
        version=call.ledger.version,
        config_hash=call.ledger.config_hash,
        inputs=inputs,
        outputs=tuple(path.name for path in call.outputs),
        made=tuple(take_fingerprint(path) for path in call.outputs) if outcome.state is State.DONE else (),
        run=call.ledger.run,
        attempt=call.attempt,
        started=started,
        seconds=round(seconds, 3),
    )
    try:
        call.ledger.write(record)
    except OutputError as error:
        if outcome.state is State.FAILED:
            return outcome
        return _failure(call, f"its record cannot be kept: {error}", error.code)
    return outcome


def _failure(call: Call, reason: str, code: str) -> Outcome:
    return failed(call.key, call.inputs, reason, code)


def _log_traceback() -> None:
    try:
        traceback.print_exc()
    except (OSError, ValueError, MemoryError):
        # The log may be on the full disk that made the task fail.
        return


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
