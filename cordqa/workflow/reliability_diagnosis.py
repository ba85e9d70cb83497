"""How well values tell two groups apart, alone, compared and combined."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import CordqaError
from cordqa.records import Severity, Statistic
from cordqa.stats.diagnostic import combined_auc, compare_auc, roc_auc, spread_markers
from cordqa.stats.proportions import check_granularity
from cordqa.workflow.reliability_run import BY, Analysis, Study, shown_region
from cordqa.workflow.reliability_table import natural_key

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_diagnosis", "check_published"]

_MOST_MARKERS = 6
#: Words for the group without the disease, without case and punctuation.
_CONTROLS = frozenset(
    (
        *("hc", "hv", "nc", "control", "controls", "healthy", "healthycontrol", "healthycontrols"),
        *("normal", "none", "no", "false", "0"),
    )
)


def analyse_diagnosis(study: Study) -> None:
    """Ask how well values tell two groups apart."""
    chosen = _cases(study)
    if chosen is None:
        return
    rows, case = chosen
    study.case, study.people = case, rows
    settings = study.settings
    options: Any = {"outcome": "group", "case": case, "level": settings.level, "nan_policy": "omit"}
    analysis = Analysis(study, "diagnostic value", "roc")
    areas = partial(roc_auc, value="value", subject="subject", by=BY, seed=settings.seed, **options)
    analysis.run(rows, areas)
    analysis.finish()
    _several_markers(study, rows, options)


def _cases(study: Study) -> tuple[pd.DataFrame, str] | None:
    """Return the rows of cases and controls, and the label of the cases; says why where it cannot."""
    groups, case = study.design.groups, study.settings.case
    if len(groups) < 2:
        if case or groups:
            study.skip("Diagnostic value", "the column of groups has one label only")
        else:
            study.skip("Diagnostic value", "the table has no column of groups")
        return None
    controls = [label for label in groups if _is_control(label)]
    if not case and len(groups) == 2 and len(controls) == 1:
        case = next(label for label in groups if label not in controls)
        study.note("case", f"cases are {case!r}, controls {controls[0]!r}; --case settles it", Severity.INFO)
    if case not in groups:
        found = (
            f"--case {case!r} is none of the groups" if case else "which group holds the cases is not known"
        )
        study.skip("Diagnostic value", f"{found}; give --case with one of {', '.join(groups)}")
        return None
    others = [label for label in groups if label != case]
    if len(others) > 1 and len(controls) == 1 and case not in controls:
        others = controls
    elif len(others) > 1:
        study.skip("Diagnostic value", f"there are several groups besides {case!r}; keep two with --where")
        return None
    rows = study.frame[study.frame["group"].isin([case, *others])]
    return rows, case


def _is_control(label: str) -> bool:
    return "".join(c for c in label.casefold() if c.isalnum()) in _CONTROLS


def _several_markers(study: Study, rows: pd.DataFrame, options: dict[str, Any]) -> None:
    """Compare markers on the same people, and combine them."""
    marker = np.array([study.label((q, r)) for q, r in rows[BY].to_numpy()], dtype=object)
    rows = rows.assign(marker=marker)
    names = sorted(set(marker.tolist()), key=natural_key)
    known = _marker_names(study)
    wanted = {name: known.get(name.casefold(), name) for name in study.settings.marker}
    asked = [name for name in dict.fromkeys(wanted.values()) if name in names]
    for name, label in wanted.items():
        if label not in names:
            study.note("marker", f"there is no marker {name!r}; markers are {', '.join(names[:8])}")
    chosen = asked or names
    if len(chosen) < 2:
        return
    if len(chosen) > _MOST_MARKERS and not asked:
        reason = f"{len(chosen)} markers; name those to compare with --marker, for example {chosen[0]!r}"
        study.skip("Comparison of markers", reason)
        return
    try:
        picked = rows[rows["marker"].isin(chosen)]
        wide = spread_markers(picked, "value", marker="marker", subject="subject", outcome="group")
    except CordqaError as error:
        study.skip("Comparison of markers", str(error))
        return
    seed = study.settings.seed
    for name, call in (
        ("comparison of markers", partial(compare_auc, markers=chosen, subject="subject", **options)),
        ("combination of markers", partial(combined_auc, markers=chosen, seed=seed, **options)),
    ):
        analysis = Analysis(study, name)
        analysis.run(wide.assign(quantity=rows["quantity"].iloc[0], region=""), call, by=["quantity"])
        analysis.finish()


def _marker_names(study: Study) -> dict[str, str]:
    """Return labels of markers by what they may be called: label, or quantity and region, in any case."""
    labels = {}
    for quantity, region in study.groups:
        label = study.label((quantity, region))
        short = ", ".join(part for part in (quantity, shown_region(region)) if part)
        labels.update({short.casefold(): label, label.casefold(): label})
    return labels


def check_published(study: Study) -> None:
    """Say whether published percentages can come from a whole number of people."""
    for one in study.settings.published:
        found = check_granularity(one.percent, one.n, decimals=one.decimals)
        study.statistics.append(
            Statistic(
                name=f"published {one.label}",
                value=one.percent,
                unit="%",
                estimator="as published",
                n={"people": one.n},
                flags=() if found.possible else ("impossible",),
                note=found.sentence,
            )
        )
        if not found.possible:
            study.note("granularity", f"{one.label}: {found.sentence}")
