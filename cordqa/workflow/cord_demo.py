"""The demonstration of the cord: simulate a BIDS dataset, analyse it like real scans, show the truth.

The analysis reads the folder ``bids`` alone; the truth lies beside it, for people and tests.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from cordqa import figures
from cordqa.errors import OutputError
from cordqa.io.bids_names import format_name
from cordqa.io.results import write_result, write_text
from cordqa.io.volumes import write_volume
from cordqa.quantities import get_quantity
from cordqa.records import Figure, Measurement, Notice, Outcome, Result, Severity, State, Statistic, as_plain
from cordqa.simulate.cord_study import CordScan, CordTruth, CordVisit, simulate_study
from cordqa.workflow.cord import run_cord_participants
from cordqa.workflow.cord_group import run_cord_group
from cordqa.workflow.cord_participant import Render
from cordqa.workflow.cord_pool import Execution
from cordqa.workflow.cord_settings import CordSettings
from cordqa.workflow.gradients import write_gradients

__all__ = ["run_cord_demo", "write_cord_study", "write_visit"]

Progress = Callable[[str], None]
LEVELS = ("C3", "C4", "C5", "C6")
#: What the summary and the figures show.
_SUMMARY = (("CSA", "cord"), ("GM_area", "GM"), ("MTR", "WM"), ("MTR", "GM"), ("FA", "WM"), ("MD", "WM"))
_DRAWN = ("CSA", "GM_area", "MTR", "MTsat", "FA", "MD")
_WHY_OFF = {
    "CSA": " The built-in engine draws masks 0.2 mm inside the edge, as customary masks are, so that its "
    "areas are smaller than the true ones.",
    "FA": " Voxels of the thick slices hold white matter, grey matter and CSF at once; FA of such a mixture "
    "is no mean of the three, so white matter reads low and grey matter high.",
}
_TISSUE_MAPS = ("MTR", "MTsat", "T1", "FA", "MD")
#: What a changed repetition time of MT-on spoils.
_TRANSFER = ("MTR", "MTsat", "T1")
#: Files of a demonstration study, and what a killed run may leave of them.
_OWN_FILE = re.compile(
    r"dataset_description\.json|participants\.tsv|derivatives/labels/dataset_description\.json|"
    r"(derivatives/labels/)?sub-\d{2}/ses-[A-Z]\d+/(anat|dwi)/\.?sub-\d{2}_ses-[A-Z]\d+_[A-Za-z0-9_-]+"
    r"\.(json|nii\.gz|bval|bvec)(\.\w+\.part|\.\w+\.nii\.gz)?|\.[A-Za-z_.]+\.\w+\.part"
)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A true value and the measured one."""

    quantity: str
    region: str
    level: str
    truth: float
    row: Measurement


def run_cord_demo(
    out: Path,
    *,
    seed: int = 20_201,
    n_people: int = 4,
    n_repeats: int = 2,
    n_procs: int | None = None,
    render: Render | None = None,
    progress: Progress | None = None,
) -> Result:
    """Simulate people on scanners of three vendors, analyse them, and compare with the truth.

    Parameters
    ----------
    out : Path
        Receives ``bids/``, ``truth.json`` and the results of ``participant`` and ``group``.
    seed, n_people, n_repeats : int
        See :func:`cordqa.simulate.cord_study.simulate_study`.
    n_procs : int, optional
        Processes; as many as fit by default.
    render : callable, optional
        Makes the pages of the participants.
    progress : callable, optional

    Returns
    -------
    Result
        That of ``group``, with the recovered truth before it.

    Raises
    ------
    OutputError
        If the folder holds other files, or cannot be written.
    """
    tell = progress or (lambda _message: None)
    truths = write_cord_study(
        out / "bids", seed=seed, n_people=n_people, n_repeats=n_repeats, progress=progress
    )
    write_text(out / "truth.json", json.dumps(as_plain(truths), indent=1, allow_nan=False) + "\n")
    settings = CordSettings()
    run_cord_participants(
        out / "bids",
        out,
        settings=settings,
        execution=Execution(n_procs=n_procs),
        render=render,
        progress=progress,
    )
    tell("gathering the study")
    result = run_cord_group(out, settings=settings, progress=progress)
    pairs = _pairs(result.measurements, truths)
    planted = tuple(text for truth in truths for text in truth.planted)
    shown = replace(
        result,
        title="Demonstration: cord of simulated people on scanners of three vendors",
        summary=f"{_recovered_words(pairs)} {result.summary}",
        statistics=(*_recovered(pairs), *result.statistics),
        figures=(*_figures(pairs), *result.figures),
        notices=(*(_planted(text) for text in planted), *result.notices),
        outcomes=(_recovered_outcome(pairs), *result.outcomes),
        provenance=replace(
            result.provenance,
            command=f"cordqa demo OUT --study cord --seed {seed} --repeats {n_repeats}",
            seed=seed,
        ),
    )
    write_result(shown, out)
    return shown


def _planted(text: str) -> Notice:
    return Notice(severity=Severity.INFO, message=f"planted: {text}", where="simulation", code="demo.planted")


# -- writing the dataset -----------------------------------------------------------------------------


def write_cord_study(
    folder: Path,
    *,
    seed: int = 20_201,
    n_people: int = 4,
    n_repeats: int = 2,
    progress: Progress | None = None,
) -> tuple[CordTruth, ...]:
    """Simulate a study and write it as a BIDS dataset, with disc labels as a derivative.

    Parameters
    ----------
    folder : Path
        Receives the dataset.  An earlier demonstration study in it is replaced.
    seed, n_people, n_repeats : int
    progress : callable, optional

    Raises
    ------
    OutputError
        If the folder holds other files, or cannot be written.
    """
    tell = progress or (lambda _message: None)
    _clear(folder)
    truths = []
    people: dict[str, tuple[int, str]] = {}
    for visit in simulate_study(seed=seed, n_people=n_people, n_repeats=n_repeats):
        tell(
            f"simulating sub-{visit.person.subject} on the {visit.scanner.vendor} scanner, session "
            f"{visit.session}"
        )
        write_visit(visit, folder)
        truths.append(visit.truth)
        people[visit.person.subject] = (visit.person.age, visit.person.sex)
    lines = ["participant_id\tage\tsex", *(f"sub-{who}\t{age}\t{sex}" for who, (age, sex) in people.items())]
    write_text(folder / "participants.tsv", "\n".join(lines) + "\n")
    about = {"Name": "Simulated cords on scanners of three vendors", "BIDSVersion": "1.9.0"}
    write_text(folder / "dataset_description.json", json.dumps(about, indent=2) + "\n")
    labels = {**about, "DatasetType": "derivative", "GeneratedBy": [{"Name": "cordqa simulation"}]}
    write_text(
        folder / "derivatives" / "labels" / "dataset_description.json", json.dumps(labels, indent=2) + "\n"
    )
    return tuple(truths)


def write_visit(visit: CordVisit, folder: Path) -> None:
    """Write the images of one visit into a dataset, and its disc labels as a derivative."""
    place = Path(f"sub-{visit.person.subject}") / f"ses-{visit.session}"
    for scan in visit.scans:
        _write_scan(scan, folder / place / ("anat" if scan.gradients is None else "dwi"))
    name = f"sub-{visit.person.subject}_ses-{visit.session}_T2w_label-discs_dlabel.nii.gz"
    write_volume(visit.discs, folder / "derivatives" / "labels" / place / "anat" / name)


def _write_scan(scan: CordScan, folder: Path) -> None:
    name = format_name(scan.entities, suffix=scan.suffix, extension=".nii.gz")
    text = json.dumps(scan.sidecar, indent=2) + "\n"
    write_text(folder / format_name(scan.entities, suffix=scan.suffix, extension=".json"), text)
    if scan.gradients is not None:
        stem = folder / format_name(scan.entities, suffix=scan.suffix, extension=".bval").removesuffix(
            ".bval"
        )
        write_gradients(scan.gradients, stem, affine=scan.volume.affine, mrtrix=False)
    stored = replace(scan.volume, data=scan.volume.data.astype("int16"))
    write_volume(stored, folder / name)


def _clear(folder: Path) -> None:
    """Remove an earlier demonstration study, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), todo="give another folder")
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    foreign = [p for p in files if not _OWN_FILE.fullmatch(p.relative_to(folder).as_posix())]
    if foreign:
        raise OutputError(
            "holds files that are not of a demonstration study",
            where=str(folder),
            found=foreign[0].name,
            todo="give an empty folder",
        )
    try:
        for path in files:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(folder)) from error


# -- truth against what was measured -----------------------------------------------------------------


def _pairs(rows: Sequence[Measurement], truths: Sequence[CordTruth]) -> list[_Pair]:
    """Put every measured value beside what it should be."""
    by_visit: Mapping[tuple[str, str], CordTruth] = {(t.subject, t.session): t for t in truths}
    found = []
    for row in rows:
        truth = by_visit.get((row.entities.subject, row.entities.session))
        if truth is None or row.level not in LEVELS or not math.isfinite(row.value):
            continue
        value = _true_value(truth, row)
        if value is not None:
            found.append(_Pair(row.quantity, row.region, row.level, value, row))
    return found


def _true_value(truth: CordTruth, row: Measurement) -> float | None:
    if row.quantity == "CSA":
        perpendicular = row.method == "perpendicular to the centreline"
        return truth.csa_mm2.get(row.level) if perpendicular and row.entities.acquisition == "T2w" else None
    if row.quantity == "GM_area":
        return truth.gm_area_mm2.get(row.level)
    if row.region not in ("WM", "GM") or row.quantity not in _TISSUE_MAPS:
        return None
    if truth.planted and row.quantity in _TRANSFER:
        # A changed repetition time spoils MTR on purpose; it would not be a fair comparison.
        return None
    tables = {
        "MTR": truth.mtr_percent,
        "MTsat": truth.mtsat_percent,
        "T1": truth.t1_ms,
        "FA": truth.fa,
        "MD": truth.md_um2_s,
    }
    return tables[row.quantity][row.region]


def _recovered(pairs: Sequence[_Pair]) -> list[Statistic]:
    """Mean difference from the truth, per quantity, region and vendor."""
    groups: dict[tuple[str, str, str], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.quantity, pair.region, pair.row.entities.vendor), []).append(pair)
    return [
        Statistic(
            name="difference from truth",
            value=100.0 * fmean(p.row.value / p.truth - 1.0 for p in some),
            unit="%",
            quantity=quantity,
            region=region,
            group=f"vendor={vendor}",
            estimator="mean of measured over true value, minus one",
            n={"values": len(some), "people": len({p.row.entities.subject for p in some})},
        )
        for (quantity, region, vendor), some in sorted(groups.items())
    ]


def _recovered_words(pairs: Sequence[_Pair]) -> str:
    words: list[str] = []
    explained: list[str] = []
    for quantity, region in _SUMMARY:
        some = [p for p in pairs if p.quantity == quantity and p.region == region]
        if some:
            bias = 100.0 * fmean(p.row.value / p.truth - 1.0 for p in some)
            words.append(f"{quantity} of {region} {bias:+.1f} %")
            explained += [quantity] if quantity in _WHY_OFF and quantity in _DRAWN else []
    if not words:
        return "No truth was recovered."
    why = f"; the figures of {' and '.join(explained)} say why these are off" if explained else ""
    return f"Against the simulated truth: {', '.join(words)} on average{why}."


def _recovered_outcome(pairs: Sequence[_Pair]) -> Outcome:
    if not pairs:
        return Outcome(
            what="recovered truth", state=State.FAILED, reason="no value to compare", code="demo.nothing"
        )
    return Outcome(what="recovered truth", state=State.DONE, reason=f"{len(pairs)} values beside their truth")


def _figures(pairs: Sequence[_Pair]) -> list[Figure]:
    """Show measured against true values, one figure per quantity, one series per vendor."""
    drawn = []
    for quantity in _DRAWN:
        unit = get_quantity(quantity).unit
        some = [p for p in pairs if p.quantity == quantity]
        if not some:
            continue
        vendors = sorted({p.row.entities.vendor for p in some})
        series = [
            figures.Series(
                label=vendor,
                x=[p.truth for p in some if p.row.entities.vendor == vendor],
                y=[p.row.value for p in some if p.row.entities.vendor == vendor],
                names=[p.row.entities.subject for p in some if p.row.entities.vendor == vendor],
            )
            for vendor in vendors
        ]
        drawn.append(
            figures.identity(
                f"truth-{quantity}",
                f"{quantity}: measured against simulated truth",
                series=series,
                quantity=quantity,
                unit=unit,
                log=False,
                caption="Each point is one level (or tissue in one level) of one person in one session. "
                "Points should lie on the line of identity." + _WHY_OFF.get(quantity, ""),
            )
        )
    return drawn
