"""``cordqa report``: rebuild a report from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of an earlier run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Rebuild the report of an earlier run without measuring again."""
    from cordqa.cli._output import finish
    from cordqa.io.results import read_result

    finish(read_result(out), out, as_json=as_json)
