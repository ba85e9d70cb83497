"""``cordqa demo``: a simulated three-vendor study, analysed and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for scans and report.")] = Path(
        "cordqa-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulation.", min=0)] = 20_201,
    repeats: Annotated[int, typer.Option(help="Sessions per scanner.", min=1, max=10)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Simulate a phantom on scanners of three vendors, then analyse it like real scans.

    Faults are planted: the T1 of one scanner is biased, images are clipped, echoes are
    stimulated.  The notes of the report say which, so that what was found can be compared.
    The exit status is 0 when the demonstration itself ran to its end.
    """
    from cordqa.cli._output import finish, progress
    from cordqa.workflow.demo import run_demo

    result = run_demo(out, seed=seed, n_repeats=repeats, progress=progress)
    finish(result, out, as_json=as_json)
