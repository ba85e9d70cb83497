"""What every command prints at its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cordqa.records import Result, State, Status, as_plain

__all__ = ["exit_status", "finish", "progress"]


def progress(message: str) -> None:
    """Say on stderr what is going on."""
    print(message, file=sys.stderr, flush=True)


def exit_status(result: Result) -> int:
    """Return 3 where a check failed, 1 where work failed or nothing could be judged, else 0.

    A check that failed is known to have failed, whatever could not be read beside it.
    """
    if result.status is Status.FAIL:
        return 3
    return 1 if result.count(State.FAILED) or result.status is Status.NOT_EVALUATED else 0


def finish(result: Result, out: Path, *, as_json: bool) -> None:
    """Write the report, print the result on stdout and the closing lines on stderr."""
    from cordqa.io.results import write_text
    from cordqa.report import render_report, render_text

    page = out / "report.html"
    write_text(page, render_report(result))
    if as_json:
        json.dump(as_plain(result), sys.stdout, ensure_ascii=False, allow_nan=False)
        print()
    else:
        print(render_text(result))
    done, skipped, failed = (result.count(state) for state in (State.DONE, State.SKIPPED, State.FAILED))
    progress(f"done {done}, skipped {skipped}, failed {failed}")
    progress(f"report: {page}")
