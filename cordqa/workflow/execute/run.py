"""Run tasks on any executor, keep what became of each, and let none take the others down."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from dataclasses import dataclass, field, replace

from cordqa.io.files import printable
from cordqa.records import Outcome, State
from cordqa.workflow.execute.calls import Call, Ending, failed, make_call, record_failure
from cordqa.workflow.execute.errors import PickleError
from cordqa.workflow.execute.local import LocalPool, perform_apart
from cordqa.workflow.execute.plan import Task, check_tasks, submission_order
from cordqa.workflow.execute.resume import CURRENT, Ledger, Record

__all__ = ["run_tasks"]

Progress = Callable[[str], None]
StopOn = Callable[[Outcome], bool]

#: A sign of life after so long without news.
_QUIET_S = 60.0


@dataclass(slots=True)
class _Run:
    """What accumulates while the tasks run."""

    tasks: Sequence[Task]
    ledger: Ledger
    executor: Executor
    tell: Progress
    stop_on: StopOn | None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    waiting: dict[Future[Ending], Call] = field(default_factory=dict)
    lost: list[tuple[Call, str]] = field(default_factory=list)
    stopped_by: str = ""
    pool_broken: bool = False
    started: float = field(default_factory=time.monotonic)


def run_tasks(
    tasks: Sequence[Task],
    *,
    ledger: Ledger,
    executor: Executor,
    progress: Progress | None = None,
    resume: bool = True,
    stop_on: StopOn | None = None,
) -> tuple[Outcome, ...]:
    """Run tasks and return what became of each, in the order in which they were given.

    A task that raises, crashes its process, runs out of memory or past its time limit is
    recorded as failed, and the others go on.  One that loses its process is tried once more
    when all others are through, alone.  Each outcome is on disk when it is known, so that a
    run that is interrupted or killed repeats nothing that was done.

    Parameters
    ----------
    tasks : sequence of Task
    ledger : Ledger
        Where the outcomes are kept; see :func:`~cordqa.workflow.execute.resume.open_ledger`.
    executor : concurrent.futures.Executor
        A :class:`~cordqa.workflow.execute.local.LocalPool`, one from
        :mod:`~cordqa.workflow.execute.dask_cluster`, or any other.  The caller closes it.
    progress : callable, optional
        Told one line for each outcome, from the calling thread.
    resume : bool
        Leave out what an earlier run has done and what nothing has changed for.  Such a task
        comes back as skipped with the code ``execute.current``.
    stop_on : callable, optional
        Asked about each new outcome; once it says true, no further task is started.  Those
        left come back as skipped with the code ``execute.stopped`` and have no record.

    Raises
    ------
    ConfigError
        If the tasks cannot be told apart.
    KeyboardInterrupt
        After what was under way has been ended; what was finished is on disk.
    """
    check_tasks(tasks)
    # A key of its own: what another call has recorded is not taken for the work of this one.
    ledger = replace(ledger, run=uuid.uuid4().hex)
    run = _Run(tasks, ledger, executor, progress or (lambda _line: None), stop_on)
    try:
        _submit(run, _unfinished(run, resume=resume))
        _collect(run)
        _retry(run)
    except BaseException:
        _abandon(run)
        raise
    return tuple(run.outcomes[task.key] for task in tasks)


def _unfinished(run: _Run, *, resume: bool) -> list[Task]:
    """Enter the outcomes of what an earlier run has done; return the rest."""
    rest = []
    for task in run.tasks:
        record = run.ledger.find_current(task) if resume else None
        if record is None:
            rest.append(task)
        else:
            run.outcomes[task.key] = _current(record)
    if run.outcomes:
        run.tell(f"{len(run.outcomes)} of {len(run.tasks)} done by an earlier run and unchanged since")
    return rest


def _current(record: Record) -> Outcome:
    before = record.outcome
    if before.state is State.SKIPPED:
        return before
    reason = "done by an earlier run, and nothing has changed since"
    if before.reason:
        reason = f"{reason}: {before.reason}"
    return replace(before, state=State.SKIPPED, reason=reason, code=CURRENT)


def _submit(run: _Run, tasks: Sequence[Task]) -> None:
    for task in submission_order(tasks):
        try:
            call = make_call(task, run.ledger)
        except PickleError as error:
            _fail(run, task.key, task, str(error), error.code)
            continue
        if run.stopped_by:
            _leave(run, task.key)
            continue
        _start(run, run.executor, call)


def _start(run: _Run, executor: Executor, call: Call) -> None:
    try:
        run.waiting[executor.submit(perform_apart, call)] = call
    except Exception as error:  # a pool that broke, a scheduler that has gone
        _take_loss(run, call, error)


def _collect(run: _Run) -> None:
    """Take the outcomes as they come."""
    while run.waiting:
        try:
            for future in as_completed(tuple(run.waiting), timeout=_QUIET_S):
                _take(run, future, run.waiting.pop(future))
        except TimeoutError:
            minutes = (time.monotonic() - run.started) / 60
            run.tell(f"{len(run.waiting)} of {len(run.tasks)} not finished after {minutes:.0f} min")


def _take(run: _Run, future: Future[Ending], call: Call) -> None:
    try:
        ending = future.result()
    except CancelledError:
        if run.stopped_by:
            _leave(run, call.key)
        else:
            _fail(run, call.key, call, "the connection to its worker was lost", "execute.lost")
    except Exception as error:  # of the executor: tasks do not raise
        _take_loss(run, call, error)
    else:
        _take_ending(run, call, ending)


def _take_ending(run: _Run, call: Call, ending: Ending) -> None:
    if ending.outcome is not None:
        _enter(run, call.key, ending.outcome)
    elif ending.worth_retry and call.attempt == 1 and not run.stopped_by:
        _lose(run, call, ending.reason)
    else:
        again = ", and again when tried alone" if call.attempt > 1 else ""
        _fail(run, call.key, call, ending.reason + again, ending.code, attempt=call.attempt)


def _take_loss(run: _Run, call: Call, error: Exception) -> None:
    run.pool_broken |= isinstance(error, BrokenExecutor)
    # Dask's own error is known by its name, because Dask may not be installed.
    died = isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
    if died and call.attempt == 1:
        _lose(run, call, "its worker was lost")
    elif died:
        _fail(run, call.key, call, "its worker was lost, twice", "execute.crashed", attempt=call.attempt)
    else:
        reason = f"no worker could take it: {printable(f'{type(error).__name__}: {error}')}"
        _fail(run, call.key, call, reason, "execute.worker", attempt=call.attempt)


def _lose(run: _Run, call: Call, reason: str) -> None:
    run.lost.append((call, reason))
    run.tell(f"{call.key}: {reason}; it will be tried once more, alone")


def _retry(run: _Run) -> None:
    """Try what lost its process once more, one at a time, when nothing else is running."""
    if not run.lost:
        return
    order = {task.key: number for number, task in enumerate(run.tasks)}
    lost = sorted(run.lost, key=lambda item: order[item[0].key])
    # A broken pool takes no more work, and the one of this machine stands in for it.
    stand_in = LocalPool(1) if run.pool_broken else contextlib.nullcontext(run.executor)
    with stand_in as executor:
        for call, reason in lost:
            if run.stopped_by:
                _fail(run, call.key, call, f"{reason}; not tried again", "execute.crashed")
                continue
            _start(run, executor, replace(call, attempt=2))
            _collect(run)


def _fail(run: _Run, key: str, task: Task | Call, reason: str, code: str, *, attempt: int = 1) -> None:
    earlier = run.ledger.read(key)
    if earlier is not None and earlier.run == run.ledger.run and earlier.outcome.state is not State.FAILED:
        # It was done, and only the message that said so was lost.
        _enter(run, key, earlier.outcome)
        return
    outcome = failed(key, task.inputs, reason, code)
    _enter(run, key, record_failure(run.ledger, outcome, key=key, attempt=attempt))


def _leave(run: _Run, key: str) -> None:
    reason = f"left out, because the run was stopped by {run.stopped_by}"
    outcome = Outcome(what=key, state=State.SKIPPED, reason=reason, code="execute.stopped")
    run.outcomes[key] = outcome


def _enter(run: _Run, key: str, outcome: Outcome) -> None:
    run.outcomes[key] = outcome
    run.tell(_line(run, key, outcome))
    if run.stop_on is not None and not run.stopped_by and run.stop_on(outcome):
        run.stopped_by = key
        run.tell(f"stopping: {key} {outcome.state}; what is under way is finished first")
        for future in run.waiting:
            future.cancel()


def _line(run: _Run, key: str, outcome: Outcome) -> str:
    line = f"[{len(run.outcomes)}/{len(run.tasks)}] {printable(key, limit=80)}: {outcome.state}"
    if outcome.state is State.FAILED:
        line += f" [{outcome.code}]"
    if outcome.reason:
        line = f"{line}: {outcome.reason}"
    log = run.ledger.log_path(key)
    if outcome.state is State.FAILED and log.exists():
        line = f"{line} (log: {log})"
    return line


def _abandon(run: _Run) -> None:
    """Leave at once: nothing waits any more, and what is under way is ended where that can be."""
    for future in run.waiting:
        future.cancel()
    abandon = getattr(run.executor, "abandon", None)
    if callable(abandon):
        abandon()
