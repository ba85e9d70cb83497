"""``cordqa cord``: cord biomarkers from a BIDS dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cordqa.records import Result
    from cordqa.workflow.cord_settings import CordSettings

__all__ = ["cord"]

Many = list[str]
N_PROCS = "Processes, or jobs of --cluster; as many as fit by default."


class Stage(StrEnum):
    """What to do, as BIDS-Apps name it."""

    PARTICIPANT = "participant"
    GROUP = "group"


class EngineOption(StrEnum):
    """Who finds the cord."""

    BUILTIN = "builtin"
    SCT = "sct"


class ExtractFrom(StrEnum):
    """From what a quantity of a region is taken."""

    AUTO = "auto"
    SIGNALS = "signals"
    MAP = "map"


class Denoise(StrEnum):
    """Denoising of diffusion series."""

    NONE = "none"
    MPPCA = "mppca"
    PATCH2SELF = "patch2self"


class Tensor(StrEnum):
    """Estimators of the diffusion tensor."""

    WLS = "wls"
    IWLS = "iwls"
    ROBUST = "robust"


class PhaseSign(StrEnum):
    """Whether the phase of gradient echoes grows with the field."""

    AUTO = "auto"
    POSITIVE = "positive"
    NEGATIVE = "negative"


class Cluster(StrEnum):
    """Batch systems."""

    SLURM = "slurm"
    PBS = "pbs"
    SGE = "sge"
    LSF = "lsf"


def cord(
    context: typer.Context,
    bids: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="Folder that holds sub-*.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for tables, reports and images.")],
    stage: Annotated[Stage, typer.Argument(metavar="participant|group", help="Each person, or the study.")],
    participant_label: Annotated[
        Many | None,
        typer.Option(
            "--participant-label",
            "--participant_label",
            help="Participants, with or without sub-; several after it, or repeat it.",
        ),
    ] = None,
    session_label: Annotated[
        Many | None,
        typer.Option("--session-label", "--session_label", help="Sessions, with or without ses-; repeat it."),
    ] = None,
    engine: Annotated[EngineOption, typer.Option(help="Who does the work.")] = EngineOption.BUILTIN,
    sct_dir: Annotated[
        Path | None,
        typer.Option("--sct-dir", help="Folder of the Spinal Cord Toolbox [SCT_DIR, or found on PATH]."),
    ] = None,
    levels: Annotated[
        Many | None,
        typer.Option(help="Levels to report: C3, or C2-C5 for the mean; repeat it or use commas."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Extraction: MAP, 'maximum likelihood', 'weighted mean', binary, median.")
    ] = "MAP",
    extract_from: Annotated[
        ExtractFrom,
        typer.Option(help="MTR, MTsat, T1 of a region: from its signals, or its map (as SCT does)."),
    ] = ExtractFrom.AUTO,
    template: Annotated[
        Path | None, typer.Option(help="Your own PAM50 folder; the built-in schematic atlas otherwise.")
    ] = None,
    derivatives: Annotated[
        list[Path] | None, typer.Option(help="Further folder with your masks and labels; repeat it.")
    ] = None,
    exclude_from: Annotated[
        Path | None,
        typer.Option(help="Review marks (YAML, or a folder of it); fail and artefact leave out."),
    ] = None,
    reference_table: Annotated[
        Path | None, typer.Option(help="Table of controls (level, age, sex, CSA ...) for z-scores.")
    ] = None,
    denoise: Annotated[Denoise, typer.Option(help="Denoising of diffusion series.")] = Denoise.NONE,
    gibbs: Annotated[
        bool,
        typer.Option("--gibbs", help="Remove Gibbs ringing of diffusion series (unfiltered images only)."),
    ] = False,
    skip_motion: Annotated[
        bool, typer.Option("--skip-motion", help="Leave diffusion series as they moved.")
    ] = False,
    tensor: Annotated[
        Tensor, typer.Option(help="Diffusion tensor: weighted, iterated, or outlier-rejecting least squares.")
    ] = Tensor.WLS,
    noddi: Annotated[
        bool, typer.Option("--noddi", help="Fit NODDI as well (needs AMICO; two shells).")
    ] = False,
    phase_sign: Annotated[
        PhaseSign,
        typer.Option(help="Whether the phase of gradient echoes grows with the field; auto looks for air."),
    ] = PhaseSign.AUTO,
    phase_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Stored phases of -pi and pi; found out by default."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Also check the scans against this protocol (see 'cordqa list protocols')."),
    ] = None,
    n_procs: Annotated[
        int | None,
        typer.Option("--n-procs", "--n_procs", "--nprocs", "--n-cpus", "--n_cpus", min=1, help=N_PROCS),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler.")] = None,
    cluster: Annotated[Cluster | None, typer.Option(help="Batch system to run on, through Dask.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "--mem", help="Memory of one participant [2 GiB; jobs 4 GB].")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Limit of one participant: 3600, 90m, 2h. It fails, others go on.")
    ] = None,
    stop_on_first_crash: Annotated[
        bool, typer.Option("--stop-on-first-crash", help="Start nobody else after one that failed.")
    ] = False,
    walltime: Annotated[
        str | None, typer.Option(help="Time limit of a job of --cluster, as it writes it.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Queue or partition of --cluster.")] = None,
    account: Annotated[str | None, typer.Option(help="Account or project of --cluster.")] = None,
    job_directive: Annotated[
        Many | None, typer.Option(help="Further line for the jobs of --cluster; repeat it.")
    ] = None,
    job_prologue: Annotated[
        Many | None, typer.Option(help="Shell command before a job of --cluster starts; repeat it.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("-w", "--work-dir", "--work_dir", help="Folder for what may be deleted [OUT/work]."),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Repeat also what is done and current.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Measure the spinal cord of every participant, then gather the study.

    Masks and labels of your own below BIDS_DIR/derivatives always win over the engine's.
    """
    from cordqa.workflow.cord_settings import CordSettings, parse_levels, parse_range

    settings = CordSettings(
        engine=engine.value,
        participants=_labels(_with_extra(context, participant_label), "sub-"),
        sessions=_labels(session_label, "ses-"),
        levels=parse_levels(levels or ()),
        method=method,
        extract_from=extract_from.value,
        sct_folder=sct_dir,
        template=template,
        derivatives=tuple(derivatives or ()),
        exclude_from=exclude_from,
        reference_table=reference_table,
        protocol=protocol or "",
        denoise=denoise.value,
        gibbs=gibbs,
        skip_motion=skip_motion,
        tensor=tensor.value,
        noddi=noddi,
        phase_sign=phase_sign.value,
        phase_range=parse_range(phase_range) if phase_range is not None else (),
        redo=redo,
    )
    if dry_run:
        _show_plan(bids, settings, as_json=as_json)
    elif stage is Stage.GROUP:
        _group(bids, out, settings, as_json=as_json)
    else:
        from cordqa.workflow.cord_pool import Execution
        from cordqa.workflow.execute.amounts import parse_duration

        execution = Execution(
            n_procs=n_procs,
            scheduler=scheduler or "",
            cluster=cluster.value if cluster else "",
            timeout_s=parse_duration(timeout, option="--timeout") if timeout else None,
            stop_on_first_crash=stop_on_first_crash,
            memory=memory or "",
            walltime=walltime or "",
            queue=queue or "",
            account=account or "",
            directives=tuple(job_directive or ()),
            prologue=tuple(job_prologue or ()),
        )
        _participants(bids, out, settings, execution=execution, work=work, as_json=as_json)


def _with_extra(context: typer.Context, labels: Many | None) -> Many | None:
    """Take words left over for participants where some are named: ``--participant-label 01 02``."""
    if not context.args:
        return labels
    if not labels:
        raise typer.BadParameter(
            f"what is {context.args[0]!r}? BIDS_DIR, OUT and the stage are given already"
        )
    return [*labels, *context.args]


def _labels(words: Many | None, prefix: str) -> tuple[str, ...]:
    """Labels with or without their prefix, one or several in a word."""
    found = [label for word in words or () for label in word.replace(",", " ").split()]
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in found))


def _participants(
    bids: Path,
    out: Path,
    settings: CordSettings,
    *,
    execution: object,
    work: Path | None,
    as_json: bool,
) -> None:
    from cordqa.cli._output import progress
    from cordqa.records import State
    from cordqa.report import render_report
    from cordqa.workflow.cord import run_cord_participants
    from cordqa.workflow.cord_pool import Execution

    result = run_cord_participants(
        bids,
        out,
        settings=settings,
        execution=execution if isinstance(execution, Execution) else None,
        work=work,
        render=render_report,
        progress=progress,
    )
    _print(result, as_json=as_json)
    done, skipped, failed = (result.count(state) for state in (State.DONE, State.SKIPPED, State.FAILED))
    progress(f"done {done}, skipped {skipped}, failed {failed}")
    progress(f"reports: {out / 'index.html'}; gather the study with: cordqa cord BIDS_DIR OUT group")
    raise typer.Exit(1 if failed else 0)


def _group(bids: Path, out: Path, settings: CordSettings, *, as_json: bool) -> None:
    from cordqa.cli._output import exit_status, finish, progress
    from cordqa.io.files import check_folder
    from cordqa.workflow.cord_group import run_cord_group

    check_folder(bids)
    result = run_cord_group(out, settings=settings, bids=bids, progress=progress)
    finish(result, out, as_json=as_json)
    raise typer.Exit(exit_status(result))


def _show_plan(bids: Path, settings: CordSettings, *, as_json: bool) -> None:
    from cordqa.workflow.cord import plan_cord

    result = plan_cord(bids, settings)
    if as_json:
        _print(result, as_json=True)
    else:
        for outcome in result.outcomes:
            print(f"{outcome.what}: {outcome.reason}")
    raise typer.Exit(1 if any(outcome.state == "failed" for outcome in result.outcomes) else 0)


def _print(result: Result, *, as_json: bool) -> None:
    import json
    import sys

    from cordqa.records import as_plain
    from cordqa.report import render_text

    if as_json:
        json.dump(as_plain(result), sys.stdout, ensure_ascii=False, allow_nan=False)
        print()
    else:
        print(render_text(result))
