"""The demonstration of synthetic MRI: a phantom and people on three vendors, beside the truth.

The two tables are analysed as any table is; the truth lies beside them, for people and tests.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cordqa import __version__, figures
from cordqa.figures import PageLink
from cordqa.io.results import prepare_folder, write_result, write_text
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.reference import reference_values
from cordqa.records import (
    Figure,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Statistic,
    as_plain,
)
from cordqa.simulate.synthetic_mri_study import PLANTED, SyntheticStudy, simulate_synthetic_mri
from cordqa.workflow.reliability import run_reliability
from cordqa.workflow.synthetic_mri_truth import (
    PARTS,
    SHARED,
    WORDS,
    Recovered,
    compare_with_truth,
    coverage_rows,
    judge,
    truth_figures,
)

__all__ = ["run_synthetic_mri_demo"]

Render = Callable[[Result], str]
Progress = Callable[[str], None]
_PLATES = {"T1": "5", "T2": "4", "PD": "3"}
_PHANTOM, _SERIAL, _TEMPERATURE_C, _FIELD_T = "caliber-system", "130-0150", 20.0, 3.0
_NOUNS = dict(zip(PARTS, ("phantom", "people"), strict=True))
_CVS = {"within_scanner_CV": "within scanners", "between_scanner_CV": "between scanners"}
#: What a table of many regions says about all of them begins so.
_REGIONAL = ("mean ", "regions ")
_PAGE = "report.html"


def run_synthetic_mri_demo(
    out: Path,
    *,
    seed: int = 20_201,
    n_runs: int = 10,
    n_people: int = 10,
    n_sessions: int = 2,
    render: Render | None = None,
    progress: Progress | None = None,
) -> Result:
    """Simulate the study, analyse phantom and people, and compare with what was planted.

    Parameters
    ----------
    out : Path
        Receives ``phantom.tsv``, ``volunteers.tsv``, ``truth.json``, a folder of results for each table,
        and the overview.
    seed : int
    n_runs, n_people, n_sessions : int
        See :func:`~cordqa.simulate.synthetic_mri_study.simulate_synthetic_mri`.
    render : callable, optional
        Makes the pages of the two tables.
    progress : callable, optional

    Returns
    -------
    Result
        The overview, written to ``out``.

    Raises
    ------
    ConfigError
        If the study is too small to analyse.
    OutputError
        If the folder cannot be written.
    """
    tell = progress or (lambda _message: None)
    tell("simulating a phantom and people on scanners of three vendors")
    study = simulate_synthetic_mri(
        _references(), seed=seed, n_runs=n_runs, n_people=n_people, n_sessions=n_sessions
    )
    prepare_folder(out)
    tables = dict(zip(PARTS, (study.phantom, study.people), strict=True))
    results = {}
    for part, rows in tables.items():
        write_text(out / f"{part}.tsv", _table(rows))
        result = run_reliability(out / f"{part}.tsv", out / part, progress=progress)
        results[part] = replace(result, title=_title(part))
        write_result(results[part], out / part)
        if render is not None:
            way = figures.pages("Overview", (), index=f"../{_PAGE}")
            page = replace(results[part], figures=(way, *results[part].figures))
            write_text(out / part / _PAGE, render(page))
    found = compare_with_truth(results, study)
    write_text(out / "truth.json", json.dumps(_truth(study), indent=1, allow_nan=False) + "\n")
    command = f"cordqa demo OUT --study synthetic-mri --seed {seed} --repeats {n_runs} --people {n_people}"
    overview = _overview(results, found, seed=seed, command=command)
    write_result(overview, out)
    return overview


def _title(part: str) -> str:
    return f"Demonstration: {_NOUNS[part]} on three vendors"


def _references() -> dict[str, dict[str, float]]:
    """Certified values of the spheres of the system phantom."""
    definition = load_phantom(_PHANTOM)
    return {
        quantity: {
            one.sphere: float(one.value)
            for one in reference_values(
                definition,
                plate,
                quantity,
                field_strength_T=_FIELD_T,
                temperature_C=_TEMPERATURE_C,
                serial=_SERIAL,
            )
        }
        for quantity, plate in _PLATES.items()
    }


def _table(rows: Sequence[Mapping[str, str | float]]) -> str:
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
    table.writeheader()
    table.writerows(
        {name: f"{cell:.8g}" if isinstance(cell, float) else cell for name, cell in row.items()}
        for row in rows
    )
    return stream.getvalue()


def _truth(study: SyntheticStudy) -> Mapping[str, object]:
    return {
        "planted": {name: as_plain(one) for name, one in PLANTED.items()},
        "gain": {f"{q} {scanner}": value for (q, scanner), value in study.gains.items()},
        "offset": {f"{q} {scanner}": value for (q, scanner), value in study.offsets.items()},
        "means": {f"{q} {region}": value for (q, region), value in study.means.items()},
    }


# -- overview -----------------------------------------------------------------------------------------


def _overview(
    results: Mapping[str, Result], found: Sequence[Recovered], *, seed: int, command: str
) -> Result:
    """Join both parts on one page: what was found, beside what was planted."""
    done = State.DONE if found else State.FAILED
    verdict = judge(found)
    outcome = Outcome(
        what="recovered truth",
        state=done,
        reason=f"{sum(one.inside for one in found)} of {len(found)} intervals hold what was planted"
        if found
        else "no estimate to compare",
        code="" if found else "demo.nothing",
    )
    return Result(
        kind="reliability",
        title="Demonstration: synthetic MRI on three vendors",
        status=verdict.status,
        verdicts=(verdict,),
        summary=_held(found),
        statistics=(*coverage_rows(found), *_headline(results)),
        notices=_notices(found, results),
        outcomes=(
            outcome,
            *(
                replace(one, what=f"{part}: {one.what}")
                for part, result in results.items()
                for one in result.outcomes
            ),
        ),
        figures=(_pages(results), _largest(results), *truth_figures(found), *_taken(results)),
        methods=(_METHODS, *dict.fromkeys(text for result in results.values() for text in result.methods)),
        references=(
            _SOURCE,
            *dict.fromkeys(text for result in results.values() for text in result.references),
        ),
        provenance=Provenance(
            version=__version__,
            command=command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=seed,
            engine=f"cordqa {__version__}",
            packages=results["phantom"].provenance.packages,
        ),
    )


def _held(found: Sequence[Recovered]) -> str:
    """Say how many intervals hold the truth; apart, those that share the three scanners."""
    words = [
        f"{sum(some)} of {len(some)} ({WORDS[name]})"
        for name in WORDS
        if name != SHARED and (some := [one.inside for one in found if one.name == name])
    ]
    if not words:
        return "No truth was recovered."
    text = f"95 % intervals that hold what was planted: {', '.join(words)}."
    shared = [one.inside for one in found if one.name == SHARED]
    if shared:
        text += (
            f" As a sample of all scanners three are few, and regions miss together: "
            f"{sum(shared)} of {len(shared)}."
        )
    return text


_METHODS = (
    "Values were drawn, not measured in images: (reference x gain + offset) x (1 + error), with a gain and "
    "an offset for each scanner and quantity, and an error of each run that grows away from values of the "
    "brain; volumes of tissue likewise, in people. Slopes are compared with the gains and the CV within "
    "scanners with the error. The CV between scanners is compared twice. Taking the three as they are, with "
    "the spread of what they read without noise (fixed scanners, noncentral chi-squared). Taking them as a "
    "sample, with the spread from which gains and offsets were drawn (random, 2 degrees of freedom); then "
    "intervals are wide, and as regions share the scanners they miss together or not at all."
)
#: From the abstract of the study below.
_PUBLISHED = (
    "In percent; darker is larger. The sizes that were planted follow a published study, whose largest CVs "
    "of T1, T2 and PD were 2.07, 7.60 and 12.86 % (phantom, within), 10.86, 15.27 and 9.95 % (phantom, "
    "between), 1.33, 0.89 and 0.77 % (people, within), 3.15, 5.76 and 3.21 % (people, between), and of "
    "volumes 2.50 and 5.74 %. Three scanners are a draw: the CV between them may come out far from the "
    "planted one."
)
_SOURCE = (
    "Hagiwara A, et al. Linearity, bias, intrascanner repeatability, and interscanner reproducibility of "
    "quantitative multidynamic multiecho sequence for rapid simultaneous relaxometry at 3 T. Invest Radiol "
    "2019;54:39-47. doi:10.1097/RLI.0000000000000510"
)


def _headline(results: Mapping[str, Result]) -> list[Statistic]:
    """Linearity, and the largest CV of every part and quantity, as such studies report them."""
    rows = []
    for part, result in results.items():
        for row in result.statistics:
            if row.name in ("slope", "intercept", "r2") and not row.region:
                group = f"part={part}" + (f", {row.group}" if row.group else "")
                rows.append(replace(row, group=group))
        rows += [
            replace(row, group=f"part={part}" + (f", {row.group}" if row.group else ""))
            for row in result.statistics
            if row.name.startswith(_REGIONAL) and not row.region
        ]
        rows += [
            replace(top, name=f"largest {name}", group=f"part={part}")
            for name in _CVS
            for quantity in PLANTED
            if (top := _top(result, name, quantity)) is not None
        ]
    return rows


def _largest(results: Mapping[str, Result]) -> Figure:
    """Show the largest CV of every part and quantity: the table that such studies print."""
    rows = {
        f"{_NOUNS[part]}, {words}": [_top(result, name, quantity) for quantity in PLANTED]
        for part, result in results.items()
        for name, words in _CVS.items()
    }
    return figures.heatmap(
        "largest-cv",
        "Largest CV over the regions",
        rows=list(rows),
        columns=list(PLANTED),
        values=[[math.nan if top is None else top.value for top in row] for row in rows.values()],
        unit="%",
        value_label="Largest CV",
        caption=_PUBLISHED,
    )


def _top(result: Result, name: str, quantity: str) -> Statistic | None:
    """Row of the region that varies most."""
    known = [
        row
        for row in result.statistics
        if (row.name, row.quantity, row.group) == (name, quantity, "") and math.isfinite(row.value)
    ]
    return max(known, key=lambda row: row.value, default=None)


def _notices(found: Sequence[Recovered], results: Mapping[str, Result]) -> tuple[Notice, ...]:
    planted = [
        f"planted: {name}: gains with SD {100 * p.gain_sd:g} %, offsets with SD {p.offset_sd:g}, CV within "
        f"scanners {100 * p.within_cv:g} % at {p.brain:g}, times 1 + {p.growth:g} log10(value/{p.brain:g})^2"
        for name, p in PLANTED.items()
    ]
    notes = [
        Notice(severity=Severity.INFO, message=text, where="simulation", code="demo.planted")
        for text in planted
    ]
    missed = [one for one in found if not one.inside and one.name != SHARED]
    for one in missed[:8]:
        place = ", ".join(word for word in (one.region, one.scanner) if word)
        notes.append(
            Notice(
                severity=Severity.INFO,
                message=f"{one.quantity} {WORDS[one.name]}, {place}: planted {one.truth:.3g}, interval "
                f"{one.low:.3g} to {one.high:.3g}; one interval in twenty may miss",
                where=one.part,
                code="demo.missed",
            )
        )
    warnings = [
        replace(note, where=f"{part}: {note.where}" if note.where else part)
        for part, result in results.items()
        for note in result.notices
        if note.severity is not Severity.INFO
    ]
    return (*notes, *dict.fromkeys(warnings))


def _pages(results: Mapping[str, Result]) -> Figure:
    entries = [
        PageLink(
            name=_title(part),
            path=f"{part}/{_PAGE}",
            status=result.status,
            word="report",
            text=result.summary,
        )
        for part, result in results.items()
    ]
    return figures.pages("Reports", entries)


def _taken(results: Mapping[str, Result]) -> list[Figure]:
    """Take the figures that such a study prints from the two parts."""
    drawn = []
    for part, result in results.items():
        drawn += [
            replace(figure, name=f"{part}-{figure.name}", title=f"{figure.title} ({part})")
            for figure in result.figures
            if figure.kind in ("linearity", "identity")
        ]
    return drawn
