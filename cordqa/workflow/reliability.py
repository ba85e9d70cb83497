"""A reliability run: read a table, find its design, run what it allows, judge, and report."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from csv import writer as csv_writer
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cordqa import __version__
from cordqa.errors import ConfigError
from cordqa.io.regional_source import read_regional_source, tidy_text
from cordqa.io.results import prepare_folder, write_config, write_result, write_text
from cordqa.io.tables import RawTable, read_table
from cordqa.records import (
    Entities,
    Measurement,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
)
from cordqa.workflow.reliability_alerts import raise_alerts
from cordqa.workflow.reliability_checks import check_long
from cordqa.workflow.reliability_compare import analyse_agreement, analyse_linearity
from cordqa.workflow.reliability_design import read_design
from cordqa.workflow.reliability_diagnosis import analyse_diagnosis, check_published
from cordqa.workflow.reliability_drift import analyse_drift
from cordqa.workflow.reliability_figures import draw
from cordqa.workflow.reliability_harmonise import analyse_harmonisation
from cordqa.workflow.reliability_long import make_long
from cordqa.workflow.reliability_methods import methods, references
from cordqa.workflow.reliability_relate import analyse_relations, summarise_all_regions
from cordqa.workflow.reliability_run import Study
from cordqa.workflow.reliability_settings import ReliabilitySettings
from cordqa.workflow.reliability_simultaneous import analyse_together
from cordqa.workflow.reliability_sources import analyse_components, plan_next_study
from cordqa.workflow.reliability_spread import analyse_spread
from cordqa.workflow.reliability_table import LongTable, plural, region_key
from cordqa.workflow.reliability_verdicts import judge, overall_status, summarise

__all__ = ["ReliabilitySettings", "run_reliability"]

Progress = Callable[[str], None]
#: Above this many values the report leaves the table of single values to the file.
_MANY_VALUES = 20_000
_STEPS: tuple[tuple[str, Callable[[Study], None]], ...] = (
    ("comparing with reference values", analyse_linearity),
    ("repeatability, reproducibility, ICC", analyse_spread),
    ("variance components", analyse_components),
    ("agreement in pairs", analyse_agreement),
    ("all regions together", summarise_all_regions),
    ("relations between quantities", analyse_relations),
    ("diagnostic value", analyse_diagnosis),
    ("drift", analyse_drift),
    ("harmonisation", analyse_harmonisation),
    ("simultaneous intervals", analyse_together),
    ("planning", plan_next_study),
    ("published percentages", check_published),
)


def run_reliability(
    table: Path,
    out: Path,
    *,
    settings: ReliabilitySettings | None = None,
    progress: Progress | None = None,
) -> Result:
    """Analyse a table of measurements and write statistics and result into ``out``.

    Parameters
    ----------
    table : Path
        CSV or TSV with one row per measured value, or one row per scan with several columns of
        values; cordqa's own ``measurements.tsv`` needs no options.  Also tables of regions of FreeSurfer
        and FIRST, or a folder of them (:func:`~cordqa.io.regional_source.read_regional_source`).
    out : Path
        Output folder; made where it does not exist.  Earlier results in it are replaced.
    settings : ReliabilitySettings, optional
    progress : callable, optional
        Told what is going on, one line at a time.

    Returns
    -------
    Result
        Also where some analyses failed: then the outcomes say which and why.

    Raises
    ------
    InputError
        If the table cannot be read, a column is missing, or no value can be used.
    OutputError
        If the output cannot be written.
    """
    settings = settings or ReliabilitySettings()
    tell = progress or (lambda _message: None)
    tell(f"reading {table}")
    regions = read_regional_source(table, names=settings.names, delimiter=settings.delimiter)
    if settings.names and regions is None:
        raise ConfigError(
            "is for tables of FreeSurfer or FIRST, and this is an ordinary one", where="names",
            todo="name its columns with --map",
        )  # fmt: skip
    raw = regions or read_table(table, delimiter=settings.delimiter)
    long = make_long(raw, settings)
    check_long(long, settings)
    design = read_design(long, settings)
    prepare_folder(out)
    study = Study(long, design, settings, _ordered(long))
    for words, step in _STEPS:
        tell(words)
        try:
            step(study)
        except Exception as error:  # the boundary: one kind of statistic must not cost the others
            study.fail(words.capitalize(), error)
    raise_alerts(study)
    tell("drawing")
    result = _conclude(study, raw)
    _write(study, result, out)
    if regions is not None:
        write_text(out / "regions.tsv", tidy_text(regions))
    return result


def _ordered(long: LongTable) -> Any:
    """Rows that take part, regions in natural order, so that C2 stands before C10 everywhere."""
    used = long.used
    regions = {name: i for i, name in enumerate(sorted(set(used["region"].tolist()), key=region_key))}
    quantities = {name: i for i, name in enumerate(long.scopes)}
    place = used["quantity"].map(quantities).to_numpy() * len(regions)
    order = np.argsort(place + used["region"].map(regions).to_numpy(), kind="stable")
    return used.iloc[order].reset_index(drop=True)


def _conclude(study: Study, raw: RawTable) -> Result:
    statistics = tuple(study.statistics)
    drawn = draw(study)
    verdicts = judge(study, statistics)
    study.outcomes[:0] = [*_done(study), *_left_out(study)]
    notices = tuple(dict.fromkeys((*study.long.notices, *study.notices, *_size_notice(study))))
    return Result(
        kind="reliability",
        title=f"Reliability: {study.long.name}",
        status=overall_status(verdicts, notices),
        summary=summarise(study, verdicts, notices),
        measurements=_measurements(study),
        verdicts=verdicts,
        statistics=statistics,
        notices=notices,
        outcomes=tuple(study.outcomes),
        figures=drawn,
        methods=methods(study),
        references=references(study),
        provenance=_provenance(study, raw),
    )


def _done(study: Study) -> list[Outcome]:
    """One outcome per quantity and region: what was computed, and what could not be."""
    outcomes = []
    for group in study.groups:
        done = study.done.get(group, [])
        refused = {name: why for name, why in study.refused.get(group, {}).items() if name not in done}
        words = ", ".join(done)
        if refused:
            missing = "; ".join(f"{name}: {why}" for name, why in refused.items())
            words = f"{words}. Not possible: {missing}" if words else missing
        state = State.DONE if done else State.SKIPPED
        reason = words or "no statistic suits these values"
        code = "" if done else "group.nothing"
        outcomes.append(Outcome(what=study.label(group) or "values", state=state, reason=reason, code=code))
    return outcomes


def _left_out(study: Study) -> list[Outcome]:
    """One outcome per reason for which values take no part."""
    frame = study.long.frame
    reasons = frame.loc[frame["left_out"] != "", ["left_out", "line"]]
    outcomes = []
    for reason, part in reasons.groupby("left_out", sort=False):
        rows = (frame["left_out"] == reason).to_numpy()
        outcomes.append(
            Outcome(
                what=f"{plural(len(part), 'value')} left out",
                state=State.SKIPPED,
                reason=f"{reason} ({study.long.lines(rows)})",
                code="row.left-out",
            )
        )
    dropped = len(study.long.dropped)
    if dropped:
        lines = [one.line for one in study.long.dropped]
        reason = f"{study.long.dropped[0].reason} (line {', '.join(map(str, lines[:3]))})"
        what = f"{plural(dropped, 'line')} left out"
        outcomes.append(Outcome(what=what, state=State.SKIPPED, reason=reason, code="row.ragged"))
    return outcomes


def _size_notice(study: Study) -> list[Notice]:
    notices = []
    if not study.full:
        message = (
            f"with {len(study.groups)} quantities and regions only the headline of each analysis is kept; "
            "--detail full keeps everything"
        )
        notices.append(Notice(severity=Severity.INFO, message=message, code="reliability.headline"))
    if len(study.long.frame) > _MANY_VALUES:
        message = f"the {len(study.long.frame)} single values are not repeated in this report"
        notices.append(Notice(severity=Severity.INFO, message=message, code="reliability.many-values"))
    return notices


def _measurements(study: Study) -> tuple[Measurement, ...]:
    """The values as records, those left out with the reason as a flag."""
    frame = study.long.frame
    if len(frame) > _MANY_VALUES:
        return ()
    names = ("subject", "session", "run", "site", "vendor", "model", "software", "scanner", "acquired")
    columns = [frame[name].tolist() for name in names]
    entities = [Entities(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    fields = ("quantity", "value", "unit", "region_name", "level", "reference", "left_out", "flags")
    rows = zip(*(frame[name].tolist() for name in fields), entities, strict=True)
    return tuple(
        Measurement(
            quantity=quantity,
            value=float(value),
            unit=unit,
            region=region,
            level=level,
            reference=float(reference),
            entities=who,
            flags=tuple(flag for flag in (f"left out: {reason}" if reason else "", flags) if flag),
        )
        for quantity, value, unit, region, level, reference, reason, flags, who in rows
    )


def _provenance(study: Study, raw: RawTable) -> Provenance:
    packages = ("numpy", "scipy", "pandas", "pydantic")
    return Provenance(
        version=__version__,
        command="cordqa reliability TABLE OUT",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=_config(study.settings),
        packages={name: metadata.version(name) for name in packages},
        input_hashes={raw.name: raw.sha256},
        seed=study.settings.seed,
        engine=f"cordqa {__version__}",
    )


def _config(settings: ReliabilitySettings) -> Mapping[str, Any]:
    """Write every option, also those left at their default, in the form that a YAML file takes."""
    config = asdict(settings)
    config["gather"] = {settings.gather[0]: list(settings.gather[1])} if settings.gather[0] else None
    config["limit"] = [limit.text for limit in settings.limit]
    config["exclude"] = [{**dict(one.conditions), "reason": one.reason} for one in settings.exclude]
    config["difference"] = [one.text for one in settings.difference]
    config["published"] = [one.text for one in settings.published]
    config["relate"] = [one.text for one in settings.relate]
    return {name: value for name, value in config.items() if value is not None}


def _write(study: Study, result: Result, out: Path) -> None:
    write_config(_config(study.settings), out)
    write_result(result, out)
    harmonised = study.tables.get("harmonised")
    if harmonised is not None:
        stream = io.StringIO()
        rows = csv_writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(harmonised.columns)
        rows.writerows([_cell(cell) for cell in row] for row in harmonised.to_numpy(dtype=object))
        write_text(out / "harmonised.tsv", stream.getvalue())


def _cell(cell: Any) -> str:
    """Write a cell; missing is n/a, and no text can run as a formula of a spreadsheet."""
    if isinstance(cell, float):
        return repr(float(cell)) if np.isfinite(cell) else "n/a"
    text = " ".join(str(cell).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text or "n/a"
