"""Against a reference and against each other: linearity and agreement in pairs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cordqa.records import Severity
from cordqa.stats.agreement import bland_altman, concordance, percent_differences
from cordqa.stats.linearity import bias_per_level, linearity
from cordqa.stats.regional import absolute_percent_differences
from cordqa.workflow.reliability_run import BY, Analysis, Study
from cordqa.workflow.reliability_spread import MANY_MACHINES, rater_of
from cordqa.workflow.reliability_table import natural_key, plural

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_agreement", "analyse_linearity"]

#: With more levels than this, only the best filled ones are compared in pairs.
_MOST_COMPARED = 6


def analyse_linearity(study: Study) -> None:
    """Compare with reference values, overall and for each machine."""
    rows = study.frame.dropna(subset=["reference"])
    if not len(rows):
        study.skip("Linearity", "the table has no column of reference values")
        return
    lost = int(study.frame["reference"].isna().sum())
    if lost:
        message = f"{plural(lost, 'value')} without a reference take no part in linearity"
        study.note("reference", message, Severity.INFO)
    design, settings = study.design, study.settings
    ratio = settings.error_ratio or None
    options: Any = {"unit": "unit", "level": settings.level, "nan_policy": "omit", "error_ratio": ratio}
    analysis = Analysis(study, "linearity")
    machine = design.machine
    several = bool(machine) and rows[machine].nunique() > 1
    cluster = machine if several else _own_cluster(study, rows)
    errors: Any = "constant" if cluster else "robust"
    by = ["quantity"]
    analysis.run(rows, partial(linearity, cluster=cluster, errors=errors, by=by, **options), by=by)
    if several and rows[machine].nunique() <= MANY_MACHINES:
        own = _own_cluster(study, rows)
        errors = "constant" if own else "robust"
        by = ["quantity", machine]
        analysis.run(rows, partial(linearity, cluster=own, errors=errors, by=by, **options), by=by)
    analysis.finish()
    levels = Analysis(study, "bias per reference value", "bias per level")
    options.pop("error_ratio")
    for scale, part in study.parts(rows):
        levels.run(part, partial(bias_per_level, cluster=cluster, by=BY, scale=scale, **options))
    levels.finish()


def _own_cluster(study: Study, rows: pd.DataFrame) -> str | None:
    """Return what makes points of one machine dependent: sessions, else subjects, where they repeat."""
    if study.design.sessions and rows["session"].nunique() > 2:
        return "session"
    if not study.design.one_object and 2 < rows["subject"].nunique() < len(rows):
        return "subject"
    return None


def analyse_agreement(study: Study) -> None:
    """Compare machines, vendors or sessions two at a time over the same subjects."""
    method = _method(study)
    if not method:
        return
    design, settings = study.design, study.settings
    if design.subjects < 2:
        study.skip("Agreement in pairs", "there is one subject only; limits of agreement need several")
        return
    study.compared = method
    rows, methods = _compared(study, method)
    options: Any = {"method": method, "methods": methods, "by": BY, "unit": "unit", "level": settings.level}
    analysis = Analysis(study, f"agreement between {method}s", "agreement")
    for scale, part in study.parts(rows):
        limits = partial(bland_altman, replicates="components", scale=scale, nan_policy="omit", **options)
        analysis.run(part, limits)
    analysis.run(rows, partial(concordance, replicates="mean", nan_policy="omit", **options))
    analysis.finish()
    percent = Analysis(study, f"percent differences between {method}s", "percent")
    options = {"scanner": method, "by": BY, "unit": "unit", "level": settings.level, "nan_policy": "omit"}
    for scale, part in study.parts(rows):
        if scale == "ratio":
            percent.run(part, partial(percent_differences, replicates="mean", scale=scale, **options))
            percent.run(part, partial(absolute_percent_differences, **options))
    percent.finish()


def _method(study: Study) -> str:
    """Return the column whose levels are compared; says why where there is none."""
    asked = study.settings.compare
    columns = ("scanner", "site", "vendor", "model", "software", "session", "run", "visit")
    if asked:
        labels = set(study.frame[asked].tolist()) - {""} if asked in columns else set()
        if len(labels) < 2:
            known = ", ".join(columns[:-1])
            reason = f"--compare {asked}: the table has no two levels of it (choose one of {known})"
            study.skip("Agreement in pairs", reason)
            return ""
        return asked
    rater = rater_of(study)
    if rater in ("", "repeat"):
        study.skip("Agreement in pairs", "no two machines or sessions measured the same subjects")
        return ""
    vendors = study.design.counts["vendors"]
    if rater != "visit" and study.design.machines > _MOST_COMPARED and 1 < vendors <= _MOST_COMPARED:
        return "vendor"
    return rater


def _compared(study: Study, method: str) -> tuple[pd.DataFrame, list[str]]:
    """Return rows and levels to compare, those with the most subjects where there are many."""
    rows = study.frame[study.frame[method] != ""].dropna(subset=["value"])
    people = rows.groupby(method, observed=True)["subject"].nunique()
    levels = sorted(map(str, people.index), key=natural_key)
    if len(levels) > _MOST_COMPARED:
        best = sorted(levels, key=lambda one: -int(people[one]))[:_MOST_COMPARED]
        message = (
            f"{len(levels)} {method}s would make {len(levels) * (len(levels) - 1) // 2} pairs; those with "
            f"the most subjects are compared: {', '.join(best)}"
        )
        study.note("pairs", message, Severity.INFO)
        levels = sorted(best, key=natural_key)
    return rows[rows[method].isin(levels)], levels
