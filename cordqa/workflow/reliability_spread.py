"""Repeatability, reproducibility, reliability: how values of one thing spread."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.stats.definitions import spine_generic_cov, spine_generic_tests
from cordqa.stats.icc import icc
from cordqa.stats.repeatability import repeatability
from cordqa.stats.reproducibility import reproducibility, scanner_bias
from cordqa.workflow.reliability_run import BY, Analysis, Call, Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MANY_MACHINES", "analyse_spread", "rater_of"]

#: More machines than this are not listed one by one.
MANY_MACHINES = 12


def analyse_spread(study: Study) -> None:
    """Run what the design allows, and say what it does not allow and why."""
    _repeatability(study)
    _reproducibility(study)
    _icc(study)
    _site_spread(study)


def _repeatability(study: Study) -> None:
    design, settings = study.design, study.settings
    if not design.repeated:
        where = {"site": "at one site", "vendor": "on scanners of one vendor"}
        place = where.get(design.machine, "on one scanner" if design.machine else "")
        study.skip("Repeatability", f"nobody was measured twice {place}".strip())
        return
    analysis = Analysis(study, "repeatability")
    within = design.machine or None
    splits: list[list[str]] = [[]]
    vendors, machines = design.counts["vendors"], design.machines
    if vendors > 1 and (vendors != machines or design.machine == "vendor"):
        splits.append(["vendor"])
    if design.machine not in ("", "vendor") and 1 < machines <= MANY_MACHINES:
        splits.append([design.machine])
    for extra in splits:
        own = None if within in extra else within
        options: Any = {"within": own, "by": [*BY, *extra], "unit": "unit", "level": settings.level}
        for scale, part in study.parts():
            analysis.run(part, partial(repeatability, scale=scale, nan_policy="omit", **options))
    if design.sessions and design.runs:
        _within_sessions(study, analysis)
        message = (
            "subjects were measured in several sessions with several runs; wSD, RC and wCV of all values "
            "take the two kinds of repeat as one, which makes them too small for a change between sessions "
            "and their intervals too narrow; see the rows 'between=sessions' and 'within=session'"
        )
        study.note("mixed-repeats", message)
    analysis.finish()


def _within_sessions(study: Study, analysis: Analysis) -> None:
    """Repeats within one session apart from those between sessions."""
    place = [study.design.machine] if study.design.machine else []
    subject = ["subject", "session", *place]
    options: Any = {"subject": subject, "by": [*BY, "within"], "unit": "unit", "level": study.settings.level}
    rows = study.frame.assign(within="session")
    for scale, part in study.parts(rows):
        analysis.run(part, partial(repeatability, scale=scale, nan_policy="omit", **options))


def _reproducibility(study: Study) -> None:
    design, settings = study.design, study.settings
    machine = design.machine
    if not machine or design.machines < 2:
        found = f"one {machine} only" if machine else "no column names scanner, site or vendor"
        study.skip("Reproducibility", found)
        return
    if not design.crossed:
        message = (
            f"nobody was measured {'at' if machine == 'site' else 'on'} two {machine}s, so that differences "
            f"between {machine}s and between people cannot be told apart"
        )
        study.skip("Reproducibility", message)
        return
    analysis, bias = Analysis(study, "reproducibility"), Analysis(study, f"bias between {machine}s", "bias")
    options: Any = {"scanner": machine, "by": BY, "unit": "unit", "level": settings.level}
    scanners: Any = settings.scanners
    for scale, part in study.parts():
        call = partial(reproducibility, scale=scale, scanners=scanners, nan_policy="reml", **options)
        analysis.run(part, partial(_told_apart, call, machine))
        bias.run(part, partial(scanner_bias, scale=scale, nan_policy="omit", **options))
    analysis.finish()
    bias.finish()


def _told_apart(call: Call, machine: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Withhold the spread of repeats where nobody was measured twice on one machine.

    What is left over then is repeats and subject by machine together; it stands among the
    variance components as the residual, where nothing says that it is repeats alone.
    """
    table = call(rows)
    again = rows.dropna(subset=["value"]).duplicated([*BY, "subject", machine])
    repeated = set(map(tuple, rows.loc[again.index[again], BY].to_numpy().tolist()))
    names = table["statistic"].isin(["within_scanner_SD", "within_scanner_CV"])
    alone = np.array([tuple(group) not in repeated for group in table[BY].to_numpy().tolist()], dtype=bool)
    hit = names.to_numpy(dtype=bool) & alone
    reason = (
        f"nobody was measured twice on one {machine}, so that repeats cannot be told from what a {machine} "
        "does to single subjects; the residual of the variance components holds both"
    )
    withheld: dict[str, Any] = {
        name: np.where(hit, math.nan, table[name].to_numpy(dtype=float)) for name in ("value", "low", "high")
    }
    return table.assign(**withheld, note=np.where(hit, reason, table["note"].to_numpy(dtype=object)))


def rater_of(study: Study) -> str:
    """Return the column whose levels are compared: machines where subjects travelled, else visits."""
    design = study.design
    if design.crossed:
        return design.machine
    if not design.repeated:
        return ""
    return "visit" if design.sessions else "repeat"


def _icc(study: Study) -> None:
    design, settings = study.design, study.settings
    rater = rater_of(study)
    if design.subjects < 2:
        study.skip("Intraclass correlation", "there is one subject only; it compares the spread of subjects")
        return
    if not rater:
        study.skip("Intraclass correlation", "nobody was measured twice")
        return
    analysis = Analysis(study, "ICC", "icc")
    # A number of the repeat is a label here, not a quantity.
    rows = study.frame[study.frame["repeat"] > 0].assign(repeat=study.frame["repeat"].astype(str))
    options: Any = {"rater": rater, "by": BY, "level": settings.level, "seed": settings.seed}
    analysis.run(rows, partial(icc, nan_policy="reml", replicates="components", **options))
    analysis.finish()


def _site_spread(study: Study) -> None:
    """Spread within and between sites of people who were measured at one site each."""
    design, settings = study.design, study.settings
    published = settings.definition == "spine-generic"
    place = "site" if design.counts["sites"] > 1 else ""
    if design.crossed or not place or design.one_object:
        if published:
            study.skip(
                "Definition spine-generic",
                "needs a column of sites and people who were measured at one site each",
            )
        return
    vendor = "vendor" if design.counts["vendors"] > 0 else None
    analysis = Analysis(study, "spread within and between sites", "sites")
    rows = study.frame[study.frame["repeat"] <= 1]
    options: Any = {"by": BY, "level": settings.level, "nan_policy": "omit"}
    for scale, part in study.parts(rows):
        call = partial(spine_generic_cov, vendor=vendor, unit="unit", scale=scale, **options)
        analysis.run(part, call if published else partial(_estimates, call))
    analysis.finish()
    if published and vendor and design.counts["vendors"] > 1:
        tests = Analysis(study, "tests of the spine-generic definition", "site tests")
        tests.run(rows, partial(spine_generic_tests, **options))
        tests.finish()
    if published and len(rows) < len(study.frame.dropna(subset=["value"])):
        study.note(
            "definition", "the spine-generic definition takes one value per person; the first was taken"
        )


def _estimates(call: Call, rows: pd.DataFrame) -> pd.DataFrame:
    """Leave the published definitions out, which were not asked for."""
    table = call(rows)
    return table[table["statistic"].isin(["within_site_CV", "between_site_CV"]).to_numpy()]
