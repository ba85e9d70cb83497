"""``cordqa demo``: a simulated three-vendor study, analysed and reported."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


class Study(StrEnum):
    """What is simulated."""

    PHANTOM = "phantom"
    CORD = "cord"
    SYNTHETIC_MRI = "synthetic-mri"


def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for scans and report.")] = Path(
        "cordqa-demo"
    ),
    study: Annotated[
        Study,
        typer.Option(
            help="phantom: DICOM of a system phantom; cord: a BIDS dataset of people; synthetic-mri: tables "
            "of T1, T2 and PD of a phantom and people on three vendors."
        ),
    ] = Study.PHANTOM,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.", min=0)] = 20_201,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="Sessions per scanner [3 for phantom, 2 for cord, 10 of the phantom for synthetic-mri].",
            min=1,
            max=10,
        ),
    ] = None,
    people: Annotated[
        int | None, typer.Option(help="People [4 for cord, 10 for synthetic-mri].", min=1, max=50)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Simulate a study on scanners of three vendors, then analyse it like real scans.

    Faults are planted, and the notes of the report say which, so that what was found can be
    compared: a biased scanner, clipped images, stimulated echoes in the phantom study; gains, offsets
    and the variation of repeats in the study of synthetic MRI, which are compared with their estimates.
    The exit status is 0 when the demonstration itself ran to its end.
    """
    from cordqa.cli._output import finish, progress

    if study is Study.PHANTOM:
        from cordqa.workflow.demo import run_demo

        result = run_demo(out, seed=seed, n_repeats=repeats or 3, progress=progress)
    elif study is Study.SYNTHETIC_MRI:
        from cordqa.report import render_report
        from cordqa.workflow.synthetic_mri_demo import run_synthetic_mri_demo

        result = run_synthetic_mri_demo(
            out,
            seed=seed,
            n_runs=repeats or 10,
            n_people=people or 10,
            render=render_report,
            progress=progress,
        )
    else:
        from cordqa.report import render_report
        from cordqa.workflow.cord_demo import run_cord_demo

        result = run_cord_demo(
            out,
            seed=seed,
            n_people=people or 4,
            n_repeats=repeats or 2,
            render=render_report,
            progress=progress,
        )
    finish(result, out, as_json=as_json)
