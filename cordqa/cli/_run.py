"""The one place where an error becomes a sentence and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cordqa.cli._pipes import patient_streams
from cordqa.errors import CordqaError

__all__ = ["run"]

_INTERRUPTED = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with patient_streams():
        return _run(words)


def _run(words: Sequence[str]) -> int:
    try:
        status = _call(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is an error, too
        return status
    except CordqaError as error:
        _show_traceback(words)
        print(f"cordqa: error [{error.code}]: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("cordqa: interrupted; nothing half-written was left under a final name", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:  # the boundary: a defect of cordqa, said in one line
        _show_traceback(words)
        print(
            f"cordqa: internal error ({type(error).__name__}: {error}); "
            "run again with --debug before the command and report the traceback",
            file=sys.stderr,
        )
        return 1


def _call(words: Sequence[str]) -> int:
    from cordqa.cli._app import app

    try:
        app(list(words), prog_name="cordqa", standalone_mode=True)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0


def _show_traceback(words: Sequence[str]) -> None:
    if "--debug" in words or os.environ.get("CORDQA_DEBUG"):
        traceback.print_exc()
