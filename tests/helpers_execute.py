"""Tasks that behave well or badly, for the tests of the execution room.

They stand in a module because worker processes must be able to import them.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cordqa.errors import FitError
from cordqa.records import Outcome, State
from cordqa.workflow.execute.plan import Task


def write(path: Path, text: str = "x", delay_s: float = 0.0) -> None:
    time.sleep(delay_s)
    path.write_text(text)


def mark(folder: Path, name: str, delay_s: float = 0.0) -> None:
    """Leave a trace of every time that this was begun and ended."""
    _append(folder / "begun.txt", name)
    time.sleep(delay_s)
    _append(folder / "ended.txt", name)


def mark_worker(folder: Path, name: str, delay_s: float) -> None:
    """Tell also which process group is at it: that of the worker which supervises this process."""
    _append(folder / f"group-{os.getpgid(os.getppid())}.txt", name)
    mark(folder, name, delay_s)


def traces(folder: Path, which: str = "ended") -> list[str]:
    path = folder / f"{which}.txt"
    return path.read_text().split() if path.exists() else []


def _append(path: Path, name: str) -> None:
    # One write in append mode: lines of several processes do not mix.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{name}\n".encode())
    os.close(handle)


def refuse() -> None:
    raise FitError("the signal does not decay", where="sub-x")


def defect() -> None:
    raise KeyError("a secret of the\nimplementation")


def leave() -> None:
    sys.exit(3)


def vanish(status: int = 7) -> None:
    os._exit(status)


def segfault() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_self_once(folder: Path) -> None:
    first = not (folder / "begun.txt").exists()
    _append(folder / "begun.txt", "x")
    if first:
        kill_self()


def kill_parent() -> None:
    """Kill the process that supervises this one: on a cluster, the worker of Dask."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kill_job_once(folder: Path) -> None:
    """Kill the worker of Dask and the nanny above it, which are the whole of a job."""
    first = not (folder / "killed.txt").exists()
    _append(folder / "killed.txt", "x")
    if first:
        worker = Path(f"/proc/{os.getppid()}/stat").read_text()
        os.kill(int(worker.rpartition(")")[2].split()[1]), signal.SIGKILL)
        kill_parent()


def exhaust() -> None:
    raise MemoryError


def stuck() -> int:
    """Stay in compiled code, which no signal handler of Python can interrupt."""
    return sum(range(10**14))


def start_program(folder: Path) -> None:
    """Start a program, as an engine does, and wait for it; it must not survive us."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (folder / "program.pid").write_text(str(process.pid))
    process.wait()


def clear_up(folder: Path) -> None:
    temporary = folder / "temporary"
    temporary.write_text("half")
    try:
        time.sleep(300)
    finally:
        temporary.unlink()


def talk() -> None:
    print("said to stdout")
    print("said to stderr", file=sys.stderr)
    os.system("echo said by a program")


def threads() -> Outcome:
    return Outcome(what="threads", state=State.DONE, reason=os.environ.get("OMP_NUM_THREADS", "unset"))


def process_number() -> Outcome:
    return Outcome(what="process", state=State.DONE, reason=str(os.getpid()))


def nothing_to_do() -> Outcome:
    return Outcome(what="sub-x", state=State.SKIPPED, reason="no T2w image", code="cord.no-t2w")


def wrong_return() -> int:
    return 5


def make(key: str, function: object, **settings: object) -> Task:
    """Make a task; what is no setting of a task is an argument of the function."""
    own = {"inputs", "outputs", "weight", "timeout_s"}
    arguments = {name: value for name, value in settings.items() if name not in own}
    chosen = {name: value for name, value in settings.items() if name in own}
    return Task(key=key, function=function, arguments=arguments, **chosen)  # type: ignore[arg-type]
