"""The study report: the values of all participants together, and how far they can be trusted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cordqa import __version__
from cordqa.errors import CordqaError, EmptyInputError
from cordqa.figures import PageLink
from cordqa.io.bids_index import index_dataset
from cordqa.io.bids_names import parse_name
from cordqa.io.files import check_folder
from cordqa.io.results import measurement_rows, read_result, write_config, write_result, write_text
from cordqa.records import (
    Entities,
    Measurement,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Status,
)
from cordqa.workflow.cord_group_figures import draw_values
from cordqa.workflow.cord_image import ALL
from cordqa.workflow.cord_pages import list_pages, page_path
from cordqa.workflow.cord_review import exclusions, image_name, left_slices, read_review, review_notices
from cordqa.workflow.cord_select import OLD_ROLES
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.cord_susceptibility_group import is_compared, judge_retest
from cordqa.workflow.protocol.beside import add_protocol, check_protocol_name
from cordqa.workflow.reliability import ReliabilitySettings, run_reliability

__all__ = ["run_cord_group"]

Progress = Callable[[str], None]
#: What enters the reliability engine: one value per person, region and level, measured in one way.
_SHAPE = ("CSA", "diameter_AP", "diameter_RL")
_MAPS = ("MTR", "MTsat", "T1", "FA", "MD", "AD", "RD", "MK", "muFA", "GM_area")
_REGIONS = ("WM", "GM")
_PERPENDICULAR = "perpendicular to the centreline"
#: Below this share of a level its mean is not that of the level.
_LEAST_COVERED = 0.5
_EXTRA = ("age", "sex", "group")
#: Above this many values the page leaves the table of single values to the file.
_MANY_VALUES = 20_000
_SHOWN = 8


@dataclass(slots=True)
class _Study:
    """Everything that the participants left."""

    rows: list[Measurement] = field(default_factory=list)
    people: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    engines: set[str] = field(default_factory=set)
    pages: list[PageLink] = field(default_factory=list)
    known: set[str] = field(default_factory=set)  # images that the participants' results name
    left_slices: set[str] = field(default_factory=set)  # slices that were left out of them


def run_cord_group(
    out: Path,
    *,
    settings: CordSettings | None = None,
    reliability: ReliabilitySettings | None = None,
    bids: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Gather what ``participant`` left below ``out``, and judge how far it can be trusted.

    Only reads the folders of the participants, so it can be repeated at any time.

    Parameters
    ----------
    out : Path
        Output folder of the participants; receives ``measurements.tsv`` and the report.
    settings : CordSettings, optional
        ``participants``, ``sessions`` and ``exclude_from`` are used.
    reliability : ReliabilitySettings, optional
        Options of the reliability engine.
    bids : Path, optional
        The dataset; its scans are checked where the settings name a protocol.
    progress : callable, optional

    Returns
    -------
    Result
        Values per level and over all slices; those of single slices stay in the participants' folders.

    Raises
    ------
    EmptyInputError
        If no participant has left a result.
    OutputError
        If the output cannot be written.
    """
    settings = settings or CordSettings()
    tell = progress or (lambda _message: None)
    check_protocol_name(settings.protocol)
    if out.exists():
        check_folder(out)
    review = read_review(settings.exclude_from)
    marks = exclusions(review)
    folders = [folder for folder in _folders(out) if _is_asked(folder, out, settings)]
    if not folders:
        raise EmptyInputError(
            "holds no result of a participant",
            where=str(out),
            todo="run 'cordqa cord BIDS_DIR OUT participant' first",
        )
    study = _Study()
    for number, folder in enumerate(folders, start=1):
        tell(f"[{number}/{len(folders)}] reading {folder.relative_to(out).as_posix()}")
        # "sub-1" must not be taken for "sub-10".
        own = {
            name: why
            for name, why in marks.items()
            if name.startswith(f"{folder.relative_to(out).parts[0]}_")
        }
        _gather(folder, out, study, own)
    if settings.participants or settings.sessions:
        asked = tuple(f"{'_'.join(folder.relative_to(out).parts)}_" for folder in folders)
        review = tuple(mark for mark in review if mark.image.startswith(asked))
    study.notices.extend(review_notices(review, study.known, study.left_slices))
    judged = _judge(study, out, reliability, tell)
    result = _conclude(study, judged, out, len(folders))
    if bids is not None and settings.protocol:
        result = add_protocol(result, index_dataset(bids), settings.protocol)
    write_config(settings.plain(), out)
    write_result(result, out)
    if len(result.measurements) <= _MANY_VALUES:
        return result
    message = f"the {len(result.measurements)} single values are in measurements.tsv, not in this report"
    notice = Notice(severity=Severity.INFO, message=message, where="study", code="cord.many-values")
    return replace(result, measurements=(), notices=(*result.notices, notice))


def _folders(out: Path) -> list[Path]:
    return sorted({path.parent for pattern in ("sub-*/result.json", "sub-*/ses-*/result.json")
                   for path in out.glob(pattern)})  # fmt: skip


def _is_asked(folder: Path, out: Path, settings: CordSettings) -> bool:
    words = folder.relative_to(out).parts
    subject, session = words[0].removeprefix("sub-"), words[1].removeprefix("ses-") if len(words) > 1 else ""
    people = {label.removeprefix("sub-") for label in settings.participants}
    sessions = {label.removeprefix("ses-") for label in settings.sessions}
    return (not people or subject in people) and (not sessions or session in sessions)


def _gather(folder: Path, out: Path, study: _Study, marks: Mapping[str, str]) -> None:
    """Take in one participant; one that cannot be read is named and costs no other."""
    name = "_".join(folder.relative_to(out).parts)
    try:
        result = read_result(folder)
    except CordqaError as error:
        study.outcomes.append(Outcome(what=name, state=State.FAILED, reason=str(error), code=error.code))
        study.pages.append(
            PageLink(name=name, path=page_path(name), status=Status.FAIL, text="its result cannot be read")
        )
        return
    study.pages.append(PageLink(name=name, path=page_path(name), status=result.status, text=result.summary))
    about = result.provenance.config.get("participant", {})
    kept = [row for row in result.measurements if not _is_single_slice(row)]
    left = [row for row in kept if (why := _marked(row.entities, marks))]
    for label in dict.fromkeys((row.entities.acquisition, row.entities.run) for row in left):
        why = _marked(
            next(r.entities for r in left if (r.entities.acquisition, r.entities.run) == label), marks
        )
        study.outcomes.append(
            Outcome(what=f"{name} {label[0]}: values", state=State.SKIPPED, reason=why, code="cord.excluded")
        )
    rows = [row for row in kept if not _marked(row.entities, marks)]
    study.rows.extend(rows)
    for row in rows:
        study.people[row.entities.subject, row.entities.session] = about if isinstance(about, Mapping) else {}
        study.engines.add(row.engine)
    sources = [source for outcome in result.outcomes for source in outcome.sources]
    study.known.update(image_name(source) for source in (*sources, *result.provenance.input_hashes))
    study.left_slices.update(left_slices(result.outcomes))
    broken = [outcome for outcome in result.outcomes if outcome.state is not State.DONE]
    study.outcomes.extend(broken)
    if rows:
        reason = f"{len(rows)} values"
        study.outcomes.append(Outcome(what=name, state=State.DONE, reason=reason))
    study.notices.extend(notice for notice in result.notices if notice.severity is not Severity.INFO)
    study.references.extend(result.references)
    if not study.methods:
        study.methods.extend(result.methods[1:])


def _is_single_slice(row: Measurement) -> bool:
    return row.slice_number is not None


def _marked(entities: Entities, marks: Mapping[str, str]) -> str:
    """Say why the images behind a value are left out; a mark names an image by its file."""
    *words, suffix = entities.acquisition.split("_")
    wanted = {"sub": entities.subject, "ses": entities.session, "run": entities.run}
    wanted["acq"] = next((word.removeprefix("acq-") for word in words if word.startswith("acq-")), "")
    for name, why in marks.items():
        file = parse_name(f"{name}.nii.gz")
        if file is None or file.suffix != suffix:
            continue
        found = {key: file.entities.get(key, "") for key in wanted}
        if found["acq"].casefold() in OLD_ROLES:
            # One image of an MT protocol, told apart by its older name, stands for the protocol.
            found["acq"] = ""
        if found == wanted:
            return why
    return ""


# -- the reliability engine --------------------------------------------------------------------------


def _chosen(study: _Study) -> list[Measurement]:
    """Values that may be compared between people: levels where they are known, else all slices."""
    usable = []
    for row in study.rows:
        shape = row.quantity in _SHAPE and row.region == "cord" and row.method == _PERPENDICULAR
        mapped = row.quantity in _MAPS and row.region in _REGIONS
        if (shape or mapped or is_compared(row)) and math.isfinite(row.value):
            usable.append(row)
    with_levels = [row for row in usable if row.level != ALL and _covered(row)]
    if not with_levels:
        return [row for row in usable if row.level == ALL]
    people = {(row.entities.subject, row.entities.session) for row in with_levels}
    left = sorted(
        {_person(row) for row in usable if (row.entities.subject, row.entities.session) not in people}
    )
    if left:
        listed = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        notice = Notice(
            severity=Severity.WARNING,
            message=f"{len(left)} without vertebral levels are not compared with the others: {listed}",
            where="study",
            code="cord.no-levels",
        )
        if notice not in study.notices:
            study.notices.append(notice)
    return with_levels


def _person(row: Measurement) -> str:
    session = f"_ses-{row.entities.session}" if row.entities.session else ""
    return f"sub-{row.entities.subject}{session}"


def _covered(row: Measurement) -> bool:
    """Tell whether a level is covered well enough to stand for itself."""
    for flag in row.flags:
        head, _, tail = flag.partition(" % of ")
        if tail.endswith("is covered") and head.isdecimal() and int(head) < 100 * _LEAST_COVERED:
            return False
    return True


def _judge(study: _Study, out: Path, settings: ReliabilitySettings | None, tell: Progress) -> Result | None:
    """Run the reliability engine on the chosen values; where it cannot, say why."""
    rows = _chosen(study)
    if not rows:
        study.outcomes.append(
            Outcome(
                what="reliability", state=State.SKIPPED, reason="no value to compare", code="cord.no-values"
            )
        )
        return None
    folder = out / "reliability"
    write_text(folder / "table.tsv", _table(rows, study))
    acquisitions = {row.entities.acquisition for row in rows}
    settings = settings or ReliabilitySettings(by=("acquisition",) if len(acquisitions) > 1 else ())
    try:
        return run_reliability(folder / "table.tsv", folder, settings=settings, progress=tell)
    except CordqaError as error:
        study.outcomes.append(
            Outcome(what="reliability", state=State.FAILED, reason=str(error), code=error.code)
        )
        return None


def _table(rows: Sequence[Measurement], study: _Study) -> str:
    """Write a table for the reliability engine, with age, sex and group where the dataset has them."""
    flat = measurement_rows(rows)
    known = [key for key in _EXTRA if any(about.get(key) for about in study.people.values())]
    columns = [
        *("quantity", "value", "unit", "region", "level", "subject", "session", "run", "acquisition", "site"),
        *("vendor", "model", "software", "scanner", "acquired", "method", "engine"),
        *known,
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    for row, record in zip(flat, rows, strict=True):
        about = study.people.get((record.entities.subject, record.entities.session), {})
        cells = {**row, **{key: about.get(key, "") for key in known}}
        writer.writerow([_cell(cells[name]) for name in columns])
    return stream.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "n/a"
    text = " ".join(str(value).split())
    return (f"'{text}" if text[:1] in ("=", "+", "-", "@") else text) or "n/a"


# -- the result --------------------------------------------------------------------------------------


def _conclude(study: _Study, judged: Result | None, out: Path, count: int) -> Result:
    failed = sum(outcome.state is State.FAILED for outcome in study.outcomes)
    methods = [
        f"Values of {count} participants and sessions were gathered with cordqa {__version__}. Compared "
        "are values per "
        "vertebral level (over all slices where no level is known), perpendicular to the cord for its "
        "shape; levels "
        f"of which less than {100 * _LEAST_COVERED:.0f} % is covered are left out of the comparison, not "
        "of the table.",
        *study.methods,
    ]
    retest = judge_retest(study.rows, judged.statistics if judged else ())
    result = Result(
        kind="reliability",
        title="Cord (experimental): study",
        status=_status(study, judged),
        measurements=retest.rows,
        verdicts=judged.verdicts if judged else (),
        statistics=judged.statistics if judged else (),
        notices=tuple(
            dict.fromkeys(
                (
                    *_engine_notice(study),
                    *retest.notices,
                    *study.notices,
                    *(judged.notices if judged else ()),
                )
            )
        ),
        outcomes=(*study.outcomes, *_analyses(judged)),
        figures=(
            list_pages(out, study.pages),
            *draw_values(_chosen(study)),
            *(judged.figures if judged else ()),
        ),
        methods=(*methods, *retest.paragraphs, *(judged.methods if judged else ())),
        references=tuple(dict.fromkeys((*study.references, *(judged.references if judged else ())))),
        provenance=Provenance(
            version=__version__,
            command="cordqa cord BIDS_DIR OUT group",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            engine=", ".join(sorted(study.engines)),
        ),
    )
    people = len({row.entities.subject for row in study.rows})
    words = f"{people} participants, {len(study.rows)} values"
    words += f"; {failed} step{'s' if failed != 1 else ''} failed" if failed else "; nothing failed"
    tail = f" {judged.summary}" if judged and judged.summary else ""
    return replace(result, summary=f"{words}.{tail}")


def _analyses(judged: Result | None) -> list[Outcome]:
    """What the reliability engine did, with one line for all groups too small for any statistic."""
    if judged is None:
        return []
    small = [outcome for outcome in judged.outcomes if outcome.code == "group.nothing"]
    rest = [outcome for outcome in judged.outcomes if outcome.code != "group.nothing"]
    if small:
        reason = f"no statistic suits {len(small)} groups of values: too few people, sessions or scanners"
        rest.append(Outcome(what="reliability", state=State.SKIPPED, reason=reason, code="cord.few-values"))
    return rest


def _status(study: _Study, judged: Result | None) -> Status:
    if not study.rows:
        return Status.NOT_EVALUATED
    if judged is not None and judged.status is not Status.NOT_EVALUATED:
        return judged.status
    return Status.WARN if study.notices else Status.PASS


def _engine_notice(study: _Study) -> list[Notice]:
    if len(study.engines) < 2:
        return []
    message = (
        f"values come from {len(study.engines)} engines or masks ({', '.join(sorted(study.engines))}); "
        "areas of "
        "different engines differ by several percent, so differences between people may be differences of "
        "engine"
    )
    return [Notice(severity=Severity.WARNING, message=message, where="study", code="cord.mixed-engines")]
