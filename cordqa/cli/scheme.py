"""``cordqa scheme``: design or judge a gradient scheme."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Design a diffusion gradient scheme, or judge one.", no_args_is_help=True, rich_markup_mode=None
)


class Model(StrEnum):
    """What a scheme is for."""

    DTI = "dti"
    DKI = "dki"
    UFA = "ufa"
    NODDI = "noddi"


class Unit(StrEnum):
    """Unit of b-values."""

    S_MM2 = "s/mm2"
    MS_UM2 = "ms/um2"
    S_M2 = "s/m2"


class Lengths(StrEnum):
    """What lengths other than one mean."""

    REFUSE = "refuse"
    NORMALISE = "normalise"
    SCALE_B = "scale-b"


@app.command("design")
def design(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files of the scheme.")],
    shell: Annotated[
        list[str],
        typer.Option(
            metavar="B:N:SHAPE",
            help="A shell: b in s/mm2, volumes, shape (LTE, PTE, STE, DDE or a number; LTE if left out). "
            "Without N the time budget decides. Repeat for several shells.",
        ),
    ],
    b0: Annotated[
        int | None, typer.Option(min=0, help="Volumes at b = 0; one for eight weighted ones otherwise.")
    ] = None,
    tr: Annotated[float | None, typer.Option(help="Repetition time: seconds per volume.")] = None,
    slices: Annotated[int, typer.Option(min=0, help="Number of slices.")] = 0,
    multiband: Annotated[int, typer.Option(help="Slices excited together, 1 to 3.")] = 1,
    slice_time: Annotated[
        float | None, typer.Option(help="Seconds per excitation; sets the shortest repetition time.")
    ] = None,
    heart_rate: Annotated[
        float | None, typer.Option(help="Beats per minute, for cardiac triggering.")
    ] = None,
    slices_per_beat: Annotated[int | None, typer.Option(help="Excitations in one beat.")] = None,
    averages: Annotated[int, typer.Option(min=1, help="Repeats of the whole scheme.")] = 1,
    dummies: Annotated[int, typer.Option(min=0, help="Volumes played out and not stored.")] = 0,
    preparation: Annotated[float, typer.Option(min=0, help="Seconds for shimming and references.")] = 0.0,
    budget: Annotated[float, typer.Option(help="Minutes for the whole protocol.")] = 15.0,
    others: Annotated[float, typer.Option(help="Minutes that the other series take.")] = 0.0,
    model: Annotated[
        Model | None, typer.Option(help="Judge the scheme for this model; guessed otherwise.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scheme.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the files.")] = "scheme",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Design a scheme that fits into the time, and write bval, bvec, bdelta and MRtrix files."""
    from cordqa.cli._output import exit_status, progress
    from cordqa.models.diffusion.scheme_time import Budget, ScanTiming
    from cordqa.workflow import scheme

    timed = tr is not None or slice_time is not None or heart_rate is not None
    timing = (
        ScanTiming(
            repetition_time_s=tr,
            slices=slices,
            multiband=multiband,
            slice_time_s=slice_time,
            heart_rate_per_min=heart_rate,
            slices_per_beat=slices_per_beat,
            averages=averages,
            dummies=dummies,
            preparation_s=preparation,
        )
        if timed
        else None
    )
    request = scheme.DesignRequest(
        shells=tuple(one for text in shell for one in scheme.parse_shell(text)),
        n_b0=b0,
        timing=timing,
        budget=Budget(total_s=60 * budget, others_s=60 * others),
        model=None if model is None else model.value,
        seed=seed,
        name=name,
    )
    result, text = scheme.design(request, out)
    _print(result, text, as_json)
    progress(f"done 1, skipped 0, failed 0\nscheme: {out / name}.bval")
    raise typer.Exit(exit_status(result))


@app.command("check")
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="bval, bvec, bdelta or MRtrix files, or images with such files beside them."
        ),
    ],
    model: Annotated[Model, typer.Option(help="What is to be fitted.")] = Model.DTI,
    b_unit: Annotated[Unit | None, typer.Option(help="Unit of the b-values, where it is not s/mm2.")] = None,
    lengths: Annotated[
        Lengths, typer.Option(help="What to do with directions that are not of unit length.")
    ] = Lengths.REFUSE,
    b0_limit: Annotated[
        float | None, typer.Option(help="Volumes up to this b-value (s/mm2) count as not weighted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Judge schemes: spread, angles, condition number, balance, b = 0 volumes, rank for a model."""
    from cordqa.cli._output import exit_status, progress
    from cordqa.records import State
    from cordqa.report import render_text
    from cordqa.workflow.scheme_judge import check_schemes

    result = check_schemes(
        files,
        model=model.value,
        b_unit=None if b_unit is None else b_unit.value,
        norms=lengths.value,
        b0_limit_s_mm2=b0_limit,
    )
    for notice in result.notices:
        progress(f"{notice.severity}: {notice.where}: {notice.message}")
    _print(result, render_text(result), as_json)
    done, skipped, failed = (result.count(state) for state in (State.DONE, State.SKIPPED, State.FAILED))
    progress(f"done {done}, skipped {skipped}, failed {failed}")
    raise typer.Exit(exit_status(result))


def _print(result: object, text: str, as_json: bool) -> None:
    import json

    from cordqa.records import as_plain

    if as_json:
        print(json.dumps(as_plain(result), ensure_ascii=False, allow_nan=False))
    else:
        print(text, end="")
