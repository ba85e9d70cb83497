"""One participant (and session) of a cord run: the unit of work, independent of all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cordqa import __version__
from cordqa.engines.sct.engine import SctEngine
from cordqa.engines.sct.locate import Toolbox
from cordqa.errors import CordqaError
from cordqa.io.bids_index import BidsFile, BidsIndex
from cordqa.io.derivatives import DerivativeInfo, derivative_path, write_derivative
from cordqa.io.files import digest_file
from cordqa.io.results import write_config, write_result, write_text
from cordqa.quantities import get_quantity
from cordqa.records import Figure, Outcome, Provenance, Result, State, Status, Volume
from cordqa.workflow import cord_figures
from cordqa.workflow.cord_atlas import AtlasChoice
from cordqa.workflow.cord_diffusion import DiffusionMaps, analyse_diffusion
from cordqa.workflow.cord_diffusion_output import draw_diffusion, draw_motion, write_diffusion
from cordqa.workflow.cord_engine import make_segmenter
from cordqa.workflow.cord_grey_matter import GreyMatterImage, draw_grey_matter, measure_grey_matter
from cordqa.workflow.cord_image import (
    analyse_image,
    leave_out_slices,
    make_contrast,
    shape_rows,
)
from cordqa.workflow.cord_methods import methods, references
from cordqa.workflow.cord_normative import NormativeTable, score_rows
from cordqa.workflow.cord_records import CordImage, TransferMaps, Unit
from cordqa.workflow.cord_select import Selection, select_images
from cordqa.workflow.cord_settings import CordSettings, why_excluded
from cordqa.workflow.cord_steps import StepRun
from cordqa.workflow.cord_steps_maps import analyse_by_steps
from cordqa.workflow.cord_susceptibility import (
    SusceptibilityMaps,
    analyse_susceptibility,
    skip_susceptibility,
)
from cordqa.workflow.cord_susceptibility_output import (
    draw_susceptibility,
    susceptibility_methods,
    susceptibility_references,
    write_susceptibility,
)
from cordqa.workflow.cord_transfer import analyse_transfer, carried_levels, transfer_rows
from cordqa.workflow.cord_words import in_cord_words
from cordqa.workflow.protocol.beside import add_protocol

__all__ = [
    "CordJob",
    "Render",
    "analyse_unit",
    "input_files",
    "record_loss",
    "run_job",
    "unit_folder",
    "unit_name",
]

Render = Callable[[Result], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CordJob:
    """Everything that one unit of work needs; it can be sent to another process."""

    index: BidsIndex
    subject: str
    session: str
    out: Path
    settings: CordSettings
    work: Path
    atlas: AtlasChoice
    marks: Mapping[str, str]
    normative: NormativeTable | None = None
    toolbox: Toolbox | None = None
    render: Render | None = None

    @property
    def name(self) -> str:
        """Participant and session as BIDS writes them."""
        return unit_name(self.subject, self.session)

    @property
    def folder(self) -> Path:
        """Where the results of this unit go."""
        return unit_folder(self.out, self.subject, self.session)


def unit_name(subject: str, session: str) -> str:
    """Name a participant and session as BIDS does."""
    return f"sub-{subject}_ses-{session}" if session else f"sub-{subject}"


def unit_folder(out: Path, subject: str, session: str) -> Path:
    """Folder of a participant and session."""
    folder = out / f"sub-{subject}"
    return folder / f"ses-{session}" if session else folder


def run_job(job: CordJob) -> Outcome:
    """Analyse a unit, write its folder, and say in one line what became of it."""
    sources = tuple(file.relative for file in _own_images(job))
    try:
        result = analyse_unit(job)
        result = add_protocol(result, job.index, job.settings.protocol, session=job.session)
    except CordqaError as error:
        result = _failed(job, str(error), error.code)
    write_config(job.settings.plain(), job.folder)
    if job.render is not None:
        write_text(job.folder / "report.html", job.render(result))
    # The result comes last: where it is, the unit is complete.
    write_result(result, job.folder)
    broken = [outcome for outcome in result.outcomes if outcome.state is State.FAILED]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        reason = f"{_step(broken[0], job)}{broken[0].reason}{more}"
        return Outcome(what=job.name, state=State.FAILED, reason=reason, code=broken[0].code, sources=sources)
    if result.count(State.DONE):
        return Outcome(what=job.name, state=State.DONE, reason=result.summary, sources=sources)
    reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in result.outcomes))
    return Outcome(what=job.name, state=State.SKIPPED, reason=reasons, code="cord.nothing", sources=sources)


def _step(outcome: Outcome, job: CordJob) -> str:
    step = outcome.what.removeprefix(job.name).strip()
    return f"{step}: " if step else ""


def record_loss(job: CordJob, outcome: Outcome) -> None:
    """Leave a result for a unit that was killed, so that the study report knows of it and its cause."""
    result = _failed(job, outcome.reason, outcome.code)
    if job.render is not None:
        write_text(job.folder / "report.html", job.render(result))
    write_result(result, job.folder)


def input_files(job: CordJob) -> tuple[Path, ...]:
    """Files that the result of a unit depends on."""
    return tuple(
        file.path for file in job.index.files if file.subject in ("", job.subject) and _in_session(job, file)
    )


def _in_session(job: CordJob, file: BidsFile) -> bool:
    # Files without a session are sidecars that are inherited, or labels of the person.
    return file.session in ("", job.session)


def _own_images(job: CordJob) -> list[BidsFile]:
    return [f for f in job.index.find(subject=job.subject) if f.session == job.session]


def _failed(job: CordJob, reason: str, code: str) -> Result:
    outcome = Outcome(what=job.name, state=State.FAILED, reason=reason, code=code)
    return Result(
        kind="cord",
        title=f"Cord (experimental): {job.name}",
        status=Status.NOT_EVALUATED,
        summary=f"Nothing was measured: {reason}.",
        outcomes=(outcome,),
        provenance=Provenance(version=__version__, created=_now(), engine=f"cordqa {__version__}"),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class _Found:
    """What was made of the images, for the page and the derivatives."""

    transfer: list[TransferMaps] = field(default_factory=list)
    diffusion: list[DiffusionMaps] = field(default_factory=list)
    grey: list[GreyMatterImage] = field(default_factory=list)
    susceptibility: list[SusceptibilityMaps] = field(default_factory=list)

    def steps(self) -> dict[str, Callable[[str], Figure]]:
        """How to draw the images of each step, by path."""
        drawn: dict[str, Callable[[str], Figure]] = {
            one.image.file.relative: partial(draw_diffusion, one) for one in self.diffusion
        }
        drawn |= {one.image.file.relative: partial(draw_grey_matter, one) for one in self.grey}
        return drawn | {
            one.image.file.relative: partial(draw_susceptibility, one) for one in self.susceptibility
        }


def analyse_unit(job: CordJob) -> Result:
    """Analyse one participant and session, and write its images below the output folder."""
    unit = Unit(name=job.name, segment=make_segmenter(job.toolbox, job.work))
    chosen = _without_excluded(select_images(job.index, job.subject, job.session), job, unit)
    images = (chosen.anatomical, chosen.transfer, chosen.diffusion, chosen.susceptibility)
    if not (any(images) or unit.outcomes):
        suffixes = ", ".join(sorted({file.suffix for file in _own_images(job)}))
        known = "T2w, T1w, T2starw, MTS, dwi, MEGRE"
        reason = f"no image of a kind that is analysed (found {suffixes or 'none'}; {known} are)"
        unit.skip("images", "analysis", reason, "cord.nothing")
    if job.toolbox is not None and job.settings.engine == "sct":
        engine = SctEngine(job.toolbox, quality=job.folder / "qc-sct")
        skip_susceptibility(chosen, unit)
        run = StepRun(engine=engine, work=job.work / job.name, unit=unit, settings=job.settings)
        found = _Found(transfer=analyse_by_steps(job.index, chosen, run))
    else:
        found = _analyse_builtin(job, unit, chosen)
    for file, why in chosen.left:
        unit.skip(make_contrast(file), "analysis", why, "cord.not-analysed", (file.relative,))
    if job.normative is not None:
        score_rows(unit, job.normative, job.index.participants.get(job.subject, {}))
    _check_plausible(unit)
    _write_images(job, unit, found)
    return _conclude(job, unit, found)


def _analyse_builtin(job: CordJob, unit: Unit, chosen: Selection) -> _Found:
    """Analyse all images in this process."""
    wanted = job.settings.levels
    for file in chosen.anatomical:
        analyse_image(job.index, file, unit)
    _share_levels(unit)
    unit.images[:] = [leave_out_slices(image, job.marks, unit) for image in unit.images]
    made = _Found()
    for image in unit.images:
        shape_rows(image, unit, wanted=wanted)
        grey = measure_grey_matter(job.index, image, unit, wanted=wanted)
        if grey is not None:
            made.grey.append(grey)
    for echoes in chosen.susceptibility:
        before = len(unit.images)
        mapped = analyse_susceptibility(
            job.index, echoes, unit, job.atlas, settings=job.settings, marks=job.marks
        )
        made.susceptibility += [] if mapped is None else [mapped]
        made.grey += filter(
            None, (measure_grey_matter(job.index, one, unit, wanted=wanted) for one in unit.images[before:])
        )
    for protocol in chosen.transfer:
        before = len(unit.images)
        found = analyse_transfer(job.index, protocol, unit, job.atlas, wanted=wanted)
        if found is not None:
            found = replace(found, image=leave_out_slices(found.image, job.marks, unit))
            unit.images[before:] = [found.image]
            shape_rows(found.image, unit, wanted=wanted)
            transfer_rows(found, job.atlas, unit, wanted=wanted, settings=job.settings)
            made.transfer.append(found)
        else:
            # Where the protocol failed the shape of the cord stands, if it was found.
            unit.images[before:] = [leave_out_slices(one, job.marks, unit) for one in unit.images[before:]]
            for image in unit.images[before:]:
                shape_rows(image, unit, wanted=wanted)
    for file in chosen.diffusion:
        series = analyse_diffusion(job.index, file, unit, job.atlas, settings=job.settings, marks=job.marks)
        if series is not None:
            made.diffusion.append(series)
    return made


def _without_excluded(chosen: Selection, job: CordJob, unit: Unit) -> Selection:
    """Leave out what a reviewer marked; an MT protocol or a set of echoes falls with any of its images."""
    kept = Selection(left=chosen.left)
    for files, keep in ((chosen.anatomical, kept.anatomical), (chosen.diffusion, kept.diffusion)):
        for file in files:
            why = why_excluded(job.marks, file)
            if why:
                unit.skip(make_contrast(file), "analysis", why, "cord.excluded", (file.relative,))
            else:
                keep.append(file)
    for protocol in chosen.transfer:
        if not _is_excluded(protocol.name, protocol.by_role.values(), job, unit):
            kept.transfer.append(protocol)
    for echoes in chosen.susceptibility:
        if not _is_excluded(echoes.name, echoes.files, job, unit):
            kept.susceptibility.append(echoes)
    return kept


def _is_excluded(name: str, files: Iterable[BidsFile], job: CordJob, unit: Unit) -> bool:
    """Tell whether a reviewer marked any image of those that belong together, and say it."""
    for file in files:
        why = why_excluded(job.marks, file)
        if why:
            unit.skip(name, "analysis", f"{file.name} {why}", "cord.excluded", (file.relative,))
            return True
    return False


def _share_levels(unit: Unit) -> None:
    """Lend the levels of an image that has them to the others of the session, and say so."""
    for n, image in enumerate(unit.images):
        if image.levels is None:
            unit.images[n] = replace(image, levels=carried_levels(image, unit))


def _check_plausible(unit: Unit) -> None:
    """Flag values that tissue does not have; they stay in the table."""
    count: dict[str, int] = {}
    for n, row in enumerate(unit.rows):
        known = get_quantity(row.quantity)
        if np.isfinite(row.value) and not known.low <= row.value <= known.high:
            flag = f"outside the plausible range {known.low:g} to {known.high:g} {known.unit}"
            unit.rows[n] = replace(row, flags=(*row.flags, flag))
            count[row.quantity] = count.get(row.quantity, 0) + 1
    for quantity, number in count.items():
        unit.note("cord.implausible", f"{number} values of {quantity} are outside what tissue has", "values")


def _write_images(job: CordJob, unit: Unit, found: _Found) -> None:
    for image in unit.images:
        _write_mask(job, image)
        _write_levels(job, image)
    for maps in found.transfer:
        _write_maps(job, maps)
    for grey in found.grey:
        _write_grey(job, grey)
    for series in found.diffusion:
        write_diffusion(series, job.out)
    for mapped in found.susceptibility:
        write_susceptibility(mapped, job.out)


def _write_mask(job: CordJob, image: CordImage) -> None:
    if image.mask.engine == "user":
        return
    info = DerivativeInfo(
        description="Part of each voxel inside the spinal cord",
        method=image.mask.method,
        engine=image.mask.engine,
        engine_version=image.mask.version,
        sources=[image.file],
    )
    path = derivative_path(image.file, suffix="probseg", label="SC")
    write_derivative(image.mask.volume, job.out, path=path, info=info)


def _write_levels(job: CordJob, image: CordImage) -> None:
    if image.levels is None:
        return
    coordinate = np.nan_to_num(np.floor(image.levels.map.coordinate), nan=0.0)
    from cordqa.cord.axes import orient

    laid = orient(image.mask.volume)
    painted = np.where(laid.data > 0.5, coordinate[None, None, :], 0.0).astype(np.uint8)
    volume = Volume(data=laid.restore(painted), affine=image.volume.affine)
    info = DerivativeInfo(
        description="Vertebral level of each voxel of the cord; 1 is C1, 8 is T1",
        method=image.levels.how,
        engine="cordqa",
        engine_version=__version__,
        sources=[image.file],
    )
    path = derivative_path(image.file, suffix="dseg", label="vertebrae")
    write_derivative(volume, job.out, path=path, info=info)


def _write_grey(job: CordJob, grey: GreyMatterImage) -> None:
    if grey.by_user:
        return
    info = DerivativeInfo(
        description="Part of each voxel that is grey matter",
        method=grey.method,
        engine="cordqa",
        engine_version=__version__,
        sources=[grey.image.file],
    )
    path = derivative_path(grey.image.file, suffix="probseg", label="GM")
    write_derivative(grey.mask, job.out, path=path, info=info)


_SUFFIXES = {"MTR": "MTRmap", "MTsat": "MTsat", "T1": "T1map"}


def _write_maps(job: CordJob, found: TransferMaps) -> None:
    for quantity, volume in found.maps.items():
        info = DerivativeInfo(
            description=get_quantity(quantity).description,
            method="; ".join(found.shifts) or "images of one grid",
            engine="cordqa",
            engine_version=__version__,
            sources=list(found.sources),
            units=get_quantity(quantity).unit,
        )
        path = derivative_path(found.image.file, suffix=_SUFFIXES[quantity], mt="", flip="")
        write_derivative(volume, job.out, path=path, info=info)


def _conclude(job: CordJob, unit: Unit, found: _Found) -> Result:
    maps = found.transfer
    motion = [draw_motion(one, f"motion-{n}") for n, one in enumerate(found.diffusion, start=1)]
    statuses = [verdict.status for verdict in unit.verdicts]
    status = Status.NOT_EVALUATED
    if statuses:
        status = Status.WARN if Status.WARN in statuses else Status.PASS
    result = Result(
        kind="cord",
        title=f"Cord (experimental): {job.name}",
        status=status,
        measurements=tuple(unit.rows),
        verdicts=tuple(unit.verdicts),
        notices=tuple(replace(one, message=in_cord_words(one.message)) for one in unit.notices),
        outcomes=tuple(replace(one, reason=in_cord_words(one.reason)) for one in unit.outcomes),
        figures=(
            *cord_figures.draw_unit(unit, maps, steps=found.steps()),
            *(figure for figure in motion if figure is not None),
        ),
        methods=(
            *methods(unit, maps, job.atlas, job.settings, diffusion=found.diffusion, grey=found.grey),
            *susceptibility_methods(found.susceptibility, job.atlas, job.settings),
        ),
        references=(
            *references(unit, maps, diffusion=found.diffusion),
            *susceptibility_references(found.susceptibility),
        ),
        provenance=_provenance(job, unit),
    )
    return replace(result, summary=_summary(result, unit))


def _summary(result: Result, unit: Unit) -> str:
    failed = result.count(State.FAILED)
    tail = f" {failed} step{'s' if failed != 1 else ''} failed." if failed else ""
    if not unit.images:
        return f"No cord was measured.{tail}"
    looks = sum(len(image.outliers) for image in unit.images)
    names = ", ".join(image.label for image in unit.images)
    words = f"{looks} slice{'s need' if looks != 1 else ' needs'} a look" if looks else "no slice stands out"
    return f"The cord was measured in {names}: {len(unit.rows)} values, {words}.{tail}"


def _provenance(job: CordJob, unit: Unit) -> Provenance:
    packages = ("numpy", "scipy", "nibabel", "onnxruntime")
    config: dict[str, Any] = {**job.settings.plain(), "participant": _person(job)}
    by_path = {file.relative: file.path for file in job.index.files}
    return Provenance(
        version=__version__,
        command="cordqa cord BIDS_DIR OUT participant",
        created=_now(),
        config=config,
        packages={name: metadata.version(name) for name in packages},
        input_hashes={name: digest_file(by_path[name]) for name in sorted(unit.used) if name in by_path},
        engine=", ".join(sorted({row.engine for row in unit.rows})) or f"cordqa {__version__}",
    )


#: What the study report adjusts for or groups by; nothing else about a person leaves the dataset.
_ABOUT = {"age": ("age",), "sex": ("sex", "gender"), "group": ("group", "pathology", "diagnosis")}


def _person(job: CordJob) -> dict[str, str]:
    row = {name.casefold(): value for name, value in job.index.participants.get(job.subject, {}).items()}
    found = {key: next((row[n] for n in names if row.get(n)), "") for key, names in _ABOUT.items()}
    return {key: value for key, value in found.items() if value}
