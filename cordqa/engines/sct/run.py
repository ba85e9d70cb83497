"""Call one program of the toolbox: clean environment, time limit, log, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cordqa.engines.errors import EngineError, EngineOutputError, EngineTimeoutError, EngineUnavailableError
from cordqa.engines.protocol import EngineRun, hash_inputs
from cordqa.engines.sct.commands import Command
from cordqa.engines.sct.locate import Toolbox
from cordqa.errors import OutputError
from cordqa.io.files import printable
from cordqa.io.results import write_text

__all__ = ["clean_environment", "failure_sentence", "run_command", "strip_colours"]

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Variables of the caller that lead the toolbox's own Python or libraries astray.
_UNWANTED = (
    "CONDA_PREFIX",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONWARNINGS",
    "VIRTUAL_ENV",
)
_GRACE_S = 5.0
_FIRST_POLL_S, _LAST_POLL_S = 0.005, 0.25
#: More of a log than this is not kept in memory; beginning and end are.
_LOG_BYTES = 4 * 1024 * 1024
_USAGE_STATUS = 2
_FOOTER = re.compile(r"Total runtime; [0-9.]+ seconds?\.?")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)\b.*")
_SENTENCE_LENGTH = 300


def clean_environment(
    toolbox: Toolbox, temporary: Path, *, threads: int = 1, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment in which a program of the toolbox runs.

    Parameters
    ----------
    toolbox : Toolbox
    temporary : Path
        Folder for the program's temporary files; programs leave them behind when they fail.
    threads : int
        Threads of the registration; 1 makes it reproducible and leaves the cores to other
        participants.
    inherited : mapping, optional
        Environment to start from; that of the process by default.
    """
    inherited = os.environ if inherited is None else inherited
    environment = {key: value for key, value in inherited.items() if key not in _UNWANTED}
    path = [str(toolbox.programs), str(toolbox.root / "bin"), environment.get("PATH", os.defpath)]
    environment.update(
        PATH=os.pathsep.join(dict.fromkeys(path)),
        SCT_DIR=str(toolbox.root),
        TMPDIR=str(temporary),
        TMP=str(temporary),
        TEMP=str(temporary),
        ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=str(threads),
        OMP_NUM_THREADS=str(threads),
        SCT_PROGRESS_BAR="off",
        MPLBACKEND="agg",
        PYTHONNOUSERSITE="1",
        PYTHONIOENCODING="utf-8",
    )
    return environment


def run_command(
    command: Command,
    toolbox: Toolbox,
    *,
    folder: Path,
    timeout_s: float,
    log: Path | None = None,
    threads: int = 1,
    hashes: Mapping[str, str] | None = None,
) -> EngineRun:
    """Run one program and check that it made, anew, every file that it promised.

    Parameters
    ----------
    command : Command
        What to run; its relative paths are those of ``folder``.
    toolbox : Toolbox
    folder : Path
        Working folder, which must exist.
    timeout_s : float
        Wall-clock limit in seconds.
    log : Path, optional
        Where to keep what it prints, without colours.
    threads : int
    hashes : mapping, optional
        Hashes of the inputs where they are known; computed otherwise.

    Raises
    ------
    EngineUnavailableError
        If the program is not installed.
    EngineTimeoutError
        If it ran past the limit; it and all that it started have been ended.
    EngineError
        If it failed; the sentence is its own.
    EngineOutputError
        If it ended well and a promised file is absent, empty or old.
    """
    program = toolbox.program(command.program)
    if program is None:
        raise EngineUnavailableError(
            f"{command.program} is not installed", where=str(toolbox.root), todo="install the toolbox again"
        )
    if hashes is None:
        hashes = hash_inputs(_input_files(command, folder))
    before = {name: _stamp(folder / name) for name in command.outputs}
    start = time.monotonic()
    with _temporary_folder() as temporary:
        environment = clean_environment(toolbox, temporary, threads=threads)
        status, text = _execute(
            (str(program), *command.arguments), folder, environment, temporary, timeout_s=timeout_s
        )
    runtime_s = time.monotonic() - start
    if log is not None:
        write_text(log, text)
    where = f"{command.program}{f' (log {log})' if log else ''}"
    if status is None:
        raise EngineTimeoutError(
            f"ran past its limit of {timeout_s:g} s and was ended", where=where, todo="allow more time"
        )
    if status != 0:
        raise EngineError(failure_sentence(text, status), where=where)
    _check_outputs(command, folder, before, text, where)
    return EngineRun(
        engine="sct",
        version=toolbox.version,
        argv=command.words,
        exit_status=status,
        runtime_s=runtime_s,
        log=log,
        input_hashes=hashes,
    )


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder for temporary files, and remove it whatever happens."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix="cordqa-sct-"))
    except OSError as error:
        raise OutputError(
            f"no folder for temporary files can be made: {error.strerror or error}",
            where=tempfile.gettempdir(),
            todo="free some space there, or set TMPDIR",
        ) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _execute(
    words: Sequence[str], folder: Path, environment: dict[str, str], temporary: Path, *, timeout_s: float
) -> tuple[int | None, str]:
    """Run a program; return its exit status (``None``: out of time) and what it printed."""
    # A file, not a pipe: a grandchild that keeps a pipe open would make us wait for ever.
    path = temporary / "output.log"
    try:
        with path.open("wb") as stream:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EngineError(f"cannot be started: {reason}", where=words[0]) from error
    try:
        in_time = _wait(process, timeout_s)
    finally:
        _end_group(process)
    return (process.returncode if in_time else None), strip_colours(_read_log(path))


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end without collecting the status, so that the group keeps its number."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_POLL_S
    while not _has_ended(process):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_POLL_S)
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything it started; ask first, then insist."""
    if not _has_ended(process):
        _signal_group(process, signal.SIGTERM)
        _wait(process, _GRACE_S)
    # Even after a good end: the launcher's children may still be writing.
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if not hasattr(os, "killpg"):  # a system without process groups
        process.kill()
        return
    # The group has the number of the process, which is not given away before it is collected.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _read_log(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as stream:
        content = stream.read(_LOG_BYTES)
        if size > 2 * _LOG_BYTES:
            stream.seek(size - _LOG_BYTES)
            content += b"\n[...]\n"
        content += stream.read(_LOG_BYTES)
    return content.decode("utf-8", "replace")


def strip_colours(text: str) -> str:
    """Remove terminal colours, which the programs print to files as well."""
    return _COLOUR.sub("", text)


def failure_sentence(text: str, status: int) -> str:
    """Find in the output of a failed program the line that says why.

    Parameters
    ----------
    text : str
        Standard output and error together, without colours.
    status : int
        Exit status; negative or above 128 for death by a signal.
    """
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not _FOOTER.fullmatch(line.strip())
    ]
    usage = [line for line in lines if re.match(r"sct_\w+: error: ", line)]
    spoken = [line for line in lines if line.startswith("ERROR:")]
    raised = [line for line in lines if _EXCEPTION.fullmatch(line)]
    reason = (usage or spoken or raised or lines or ["it printed nothing"])[-1]
    reason = printable(reason, limit=_SENTENCE_LENGTH)
    if number := _signal_number(status):
        hint = ", often for lack of memory" if number == signal.SIGKILL else ""
        return f"was ended by signal {number}{hint}"
    what = "was called wrongly" if status == _USAGE_STATUS else "failed"
    return f"{what} (status {status}): {reason}"


def _signal_number(status: int) -> int:
    """Return the signal behind an exit status, or 0; the launcher turns signal N into 256 - N."""
    if status < 0:
        return -status
    return 256 - status if 256 - 32 <= status < 256 else 0


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _check_outputs(
    command: Command,
    folder: Path,
    before: Mapping[str, tuple[int, int, int] | None],
    text: str,
    where: str,
) -> None:
    for name in command.outputs:
        after = _stamp(folder / name)
        if after is None:
            problem = f"ended with status 0 but did not write {name}"
        elif after == before[name]:
            problem = f"ended with status 0 but left the old {name} as it was"
        elif (folder / name).stat().st_size == 0:
            problem = f"ended with status 0 but {name} is empty"
        else:
            continue
        raise EngineOutputError(problem, where=where, found=_last_words(text))


def _last_words(text: str) -> str:
    """Return what a program said last that sounds like a reason."""
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not _FOOTER.fullmatch(line.strip())
    ]
    telling = [line for line in lines if re.search(r"error|warning|fail|not ", line, re.IGNORECASE)]
    return printable((telling or lines or ["no words"])[-1], limit=_SENTENCE_LENGTH)


def _input_files(command: Command, folder: Path) -> list[Path]:
    return [path for name in command.inputs if (path := folder / name).is_file()]
