"""A cord run: index the dataset, analyse every participant apart, and gather what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cordqa import __version__
from cordqa.engines.sct.locate import find_toolbox
from cordqa.errors import ConfigError, EmptyInputError
from cordqa.io.bids_index import BidsFile, BidsIndex, index_dataset
from cordqa.io.derivatives import write_dataset_description
from cordqa.io.files import printable
from cordqa.io.results import prepare_folder
from cordqa.records import Outcome, Result, State, Status
from cordqa.workflow.cord_atlas import prepare_atlas
from cordqa.workflow.cord_group import run_cord_group
from cordqa.workflow.cord_normative import read_normative
from cordqa.workflow.cord_pages import PageMaker, page_path, write_index
from cordqa.workflow.cord_participant import CordJob, Render, unit_name
from cordqa.workflow.cord_pool import Execution, run_jobs
from cordqa.workflow.cord_review import exclusions, image_name, read_review, review_notices
from cordqa.workflow.cord_select import select_images
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.execute.resume import CURRENT
from cordqa.workflow.protocol.beside import check_protocol_name

__all__ = ["CordSettings", "Execution", "plan_cord", "run_cord_group", "run_cord_participants"]

Progress = Callable[[str], None]
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Units:
    """Participants and sessions to analyse, and those asked for that are not there."""

    pairs: tuple[tuple[str, str], ...]
    missing: tuple[Outcome, ...]


def plan_cord(bids: Path, settings: CordSettings) -> Result:
    """Say what a run would do, without doing it: one outcome per image.

    Raises
    ------
    InputError
        If the folder is not a BIDS dataset, or an option is not usable.
    """
    index = index_dataset(bids, derivatives=settings.derivatives)
    units = _units(index, settings)
    outcomes = list(units.missing)
    for subject, session in units.pairs:
        chosen = select_images(index, subject, session)
        words = [file.name for file in chosen.anatomical]
        words += [f"{p.name} ({', '.join(sorted(p.by_role))})" for p in chosen.transfer]
        words += [file.name for file in chosen.diffusion]
        words += [f"{echoes.name} ({', '.join(echoes.by_part)})" for echoes in chosen.susceptibility]
        left = f"; passed over: {', '.join(file.name for file, _ in chosen.left)}" if chosen.left else ""
        reason = f"would analyse {', '.join(words) or 'nothing'}{left}"
        outcomes.append(
            Outcome(what=unit_name(subject, session), state=State.SKIPPED, reason=reason, code="cord.dry-run")
        )
    return Result(
        kind="cord",
        title="Cord (experimental): what would be done",
        status=Status.NOT_EVALUATED,
        summary=f"{len(units.pairs)} participants and sessions would be analysed; nothing was.",
        notices=index.notices,
        outcomes=tuple(outcomes),
    )


def run_cord_participants(
    bids: Path,
    out: Path,
    *,
    settings: CordSettings | None = None,
    execution: Execution | None = None,
    work: Path | None = None,
    render: Render | None = None,
    progress: Progress | None = None,
) -> Result:
    """Analyse the participants of a BIDS dataset, each on its own.

    Parameters
    ----------
    bids : Path
        Folder with ``sub-*``; the user's masks and labels lie below ``derivatives/``.
    out : Path
        Receives ``sub-*/`` with tables, result, page and images.
    settings : CordSettings, optional
    execution : Execution, optional
        How many processes, or which cluster.
    work : Path, optional
        Folder for what may be deleted afterwards; ``out/work`` by default.
    render : callable, optional
        Makes a page of a result; it is called where the participant is analysed.
    progress : callable, optional
        Told what is going on, one line at a time.

    Returns
    -------
    Result
        One outcome per participant and session; steps and values are in their own folders.

    Raises
    ------
    InputError
        If the folder is not a BIDS dataset, nothing in it is asked for, or an option is not usable.
    OutputError
        If the output cannot be written.
    """
    settings = settings or CordSettings()
    tell = progress or (lambda _message: None)
    check_protocol_name(settings.protocol)
    review = read_review(settings.exclude_from)
    # Workers may start elsewhere, also on other machines.
    bids, out = bids.absolute(), out.absolute()
    work = (work or out / "work").absolute()
    _check_places(bids, out, settings.derivatives)
    tell(f"indexing {bids}")
    index = index_dataset(bids, derivatives=[folder.absolute() for folder in settings.derivatives])
    units = _units(index, settings)
    marks = exclusions(review)
    known = {image_name(file.name) for file in index.files if not file.derivative}
    prepare_folder(out)
    normative = read_normative(settings.reference_table) if settings.reference_table else None
    if settings.template is not None:
        tell("reading the template")
    toolbox = find_toolbox(settings.sct_folder) if settings.engine == "sct" else None
    atlas = prepare_atlas(settings.template, work)
    write_dataset_description(out, name="cordqa: cord biomarkers", version=__version__, raw=bids)
    pages = _page_makers(index, render) if render is not None else {}
    parts = _by_subject(index, sorted({subject for subject, _ in units.pairs}))
    jobs = [
        CordJob(
            index=parts[subject],
            subject=subject,
            session=session,
            out=out,
            settings=settings,
            work=work,
            atlas=atlas,
            toolbox=toolbox,
            marks=marks,
            normative=normative,
            render=pages.get((subject, session)),
        )
        for subject, session in units.pairs
    ]
    outcomes = [*units.missing, *run_jobs(jobs, execution or Execution(), out=out, work=work, tell=tell)]
    if render is not None:
        write_index(out, render)
    result = Result(
        kind="cord",
        title="Cord (experimental): participants",
        status=_status(outcomes),
        notices=(*index.notices, *review_notices(review, known)),
        outcomes=tuple(outcomes),
    )
    return replace(result, summary=_summary(result, jobs))


def _check_places(bids: Path, out: Path, derivatives: Sequence[Path]) -> None:
    """Refuse an output folder whose files would be read as data, or as masks of the user."""
    target, root = out.resolve(), bids.resolve()
    own = {root, root / "derivatives", *(folder.resolve() for folder in derivatives)}
    inside = target.is_relative_to(root) and target.relative_to(root).parts[:1]
    if target in own or (inside and inside[0].startswith("sub-")):
        raise ConfigError(
            "lies among the data: its files would be read as images or masks of yours",
            where="OUT",
            found=str(out),
            expected="a folder of its own, for example BIDS_DIR/derivatives/cordqa",
        )


def _page_makers(index: BidsIndex, render: Render) -> dict[tuple[str, str], PageMaker]:
    """Give every participant its neighbours in the dataset, also those that another job analyses."""
    pairs = [(subject, session) for subject in index.subjects for session in index.sessions(subject)]
    paths = ["", *(page_path(unit_name(*pair)) for pair in pairs), ""]
    return {
        pair: PageMaker(render=render, current=paths[n], previous=paths[n - 1], following=paths[n + 1])
        for n, pair in enumerate(pairs, start=1)
    }


def _units(index: BidsIndex, settings: CordSettings) -> _Units:
    """Participants and sessions asked for, in order; what is asked for and absent is a failure."""
    subjects = _asked(settings.participants, "sub-")
    sessions = _asked(settings.sessions, "ses-")
    missing = [
        Outcome(
            what=f"sub-{printable(label, limit=60)}",
            state=State.FAILED,
            reason="the dataset has no such participant",
            code="cord.no-participant",
        )
        for label in subjects
        if label not in index.subjects
    ]
    wanted = [s for s in index.subjects if not subjects or s in subjects]
    pairs = [
        (subject, session)
        for subject in wanted
        for session in index.sessions(subject)
        if not sessions or session in sessions
    ]
    if not pairs and not missing:
        raise EmptyInputError(
            "no participant has a session that was asked for",
            where=str(index.root),
            found=", ".join(f"ses-{s}" for s in sessions),
        )
    if not pairs:
        known = ", ".join(index.subjects[:_SHOWN]) + (", ..." if len(index.subjects) > _SHOWN else "")
        raise ConfigError(
            "none of them is in the dataset",
            where="participant-label",
            found=", ".join(printable(s, limit=40) for s in subjects[:_SHOWN]),
            expected=f"some of {known}",
        )
    return _Units(tuple(pairs), tuple(missing))


def _asked(labels: Sequence[str], prefix: str) -> tuple[str, ...]:
    """Labels with or without their prefix, also several in one word."""
    words = [word for label in labels for word in label.replace(",", " ").split()]
    return tuple(dict.fromkeys(word.removeprefix(prefix) for word in words))


def _by_subject(index: BidsIndex, subjects: Sequence[str]) -> Mapping[str, BidsIndex]:
    """One small index for each participant, so that what is sent to a process stays small."""
    shared = [file for file in index.files if not file.subject]
    own: dict[str, list[BidsFile]] = {subject: list(shared) for subject in subjects}
    for file in index.files:
        if file.subject in own and file.subject:
            own[file.subject].append(file)
    return {
        subject: BidsIndex(
            root=index.root,
            files=tuple(sorted(files, key=lambda file: (file.derivative, file.relative))),
            participants={k: v for k, v in index.participants.items() if k == subject},
            notices=(),
        )
        for subject, files in own.items()
    }


def _status(outcomes: Sequence[Outcome]) -> Status:
    done = any(outcome.state is State.DONE or outcome.code == CURRENT for outcome in outcomes)
    if not done:
        return Status.NOT_EVALUATED
    return Status.WARN if any(outcome.state is State.FAILED for outcome in outcomes) else Status.PASS


def _summary(result: Result, jobs: Sequence[CordJob]) -> str:
    failed = result.count(State.FAILED)
    current = sum(outcome.code == CURRENT for outcome in result.outcomes)
    words = f"{len(jobs)} participants and sessions"
    words += f", {current} of them done before" if current else ""
    return f"{words}: {failed or 'none'} failed."
