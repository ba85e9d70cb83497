"""Relations between quantities, and summaries over all regions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa import figures
from cordqa.quantities import find_quantity
from cordqa.records import Figure, Outcome, State
from cordqa.stats.regional import summarise_regions
from cordqa.stats.relation import pair_measures, relate_measures
from cordqa.workflow.reliability_options import Relation
from cordqa.workflow.reliability_run import Analysis, Study
from cordqa.workflow.reliability_table import RELATED, WHOLE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_relations", "describe_relations", "draw_relations", "summarise_all_regions"]

#: What, beside the subject, must be alike for two values to belong together.
_KEYS = ("region", "session", "run", "scanner", "site", "vendor")
_CLASS = "class"
_MOST_DESCRIBED = 4


def summarise_all_regions(study: Study) -> None:
    """Say of how many regions the percent difference and the ICC keep a limit."""
    percent, icc = study.tables.get("percent"), study.tables.get("icc")
    if study.frame["region"].nunique() < 5 or (percent is None and icc is None):
        return
    analysis = Analysis(study, "all regions together", "regions")
    # Apart, because percent differences are split by pairs and ICC are not.
    for tables in ((_named(percent), None), (None, _named(icc))):
        analysis.keep(_one_pair(summarise_regions(*tables)))
    analysis.finish()


def _one_pair(table: pd.DataFrame) -> pd.DataFrame:
    """Name the pair in the note where there is one only, so that its rows speak for the whole table."""
    if "first" not in table or len(table[["first", "second"]].drop_duplicates()) > 1:
        return table
    pair = table["first"].astype(str) + " against " + table["second"].astype(str) + "; " + table["note"]
    return table.assign(note=pair).drop(columns=["first", "second"])


def _named(table: pd.DataFrame | None) -> pd.DataFrame | None:
    """Leave out rows of a table that names no region."""
    return None if table is None else table[(table["region"] != WHOLE).to_numpy()]


def analyse_relations(study: Study) -> None:
    """Correlate and calibrate the pairs of quantities that were asked for."""
    if not study.settings.relate:
        return
    analysis = Analysis(study, "relations between quantities", "relations")
    for relation in map(_registered, study.settings.relate):
        rows, by = _rows(study, relation)
        missing = [q for q in (relation.first, relation.second) if q not in set(rows["quantity"])]
        if missing:
            known = ", ".join(study.long.scopes)
            study.skip(
                f"Relation {relation.text}", f"the table has no {' and no '.join(missing)} (found {known})"
            )
            continue
        call = partial(
            relate_measures,
            first=relation.first,
            second=relation.second,
            keys=_KEYS,
            by=by,
            level=study.settings.level,
            nan_policy="omit",
        )
        try:
            found = call(rows)
        except Exception as error:  # the boundary: one relation must not cost the others
            study.fail(f"Relation {relation.text}", error)
            continue
        analysis.keep(found.rename(columns={"first": "from", "second": "to"}))
        study.outcomes.append(_outcome(relation, found))
    analysis.finish()


def _outcome(relation: Relation, found: pd.DataFrame) -> Outcome:
    """Tell whether a relation gave a number; it belongs to no region, and is work done all the same."""
    pooled = found[found["statistic"] == "r_pooled"]
    if pooled["value"].notna().any():
        return Outcome(what=f"Relation {relation.text}", state=State.DONE)
    reason = "; ".join(dict.fromkeys(str(note) for note in pooled["note"] if note))
    return Outcome(
        what=f"Relation {relation.text}", state=State.SKIPPED, reason=reason, code="analysis.not-applicable"
    )


def describe_relations(study: Study) -> str:
    """Sum up the relations in a few words each, for the first lines of a report."""
    table = study.tables.get("relations")
    if table is None:
        return ""
    keys = [name for name in (_CLASS, "from", "to") if name in table]
    said = []
    for _, part in table.groupby(keys, sort=False, observed=True):
        rows: dict[Any, dict[Any, Any]] = part.set_index("statistic").to_dict("index")
        row, order = rows["r_pooled"], rows["calibration_order"]["value"]
        if not np.isfinite(row["value"]):
            continue
        name = f"{row['from']} and {row['to']}" + (f" ({row[_CLASS]})" if _CLASS in keys else "")
        interval = f" ({row['low']:.2f} to {row['high']:.2f})" if np.isfinite(row["low"]) else ""
        curve = {1.0: ", calibration linear", 2.0: ", calibration quadratic"}.get(order, "")
        said.append(f"{name}: r {row['value']:.2f}{interval}{curve}")
    more = f" and {len(said) - _MOST_DESCRIBED} more" if len(said) > _MOST_DESCRIBED else ""
    return f" Relations: {'; '.join(said[:_MOST_DESCRIBED])}{more}." if said else ""


def _registered(relation: Relation) -> Relation:
    """Spell quantities as the table does: those that are registered by their id."""
    known = [find_quantity(name) for name in (relation.first, relation.second)]
    first, second = (
        one.id if one else name for one, name in zip(known, (relation.first, relation.second), strict=True)
    )
    return replace(relation, first=first, second=second)


def _rows(study: Study, relation: Relation) -> tuple[pd.DataFrame, list[str]]:
    """Values of the two quantities; empty keys are filled, because a pair must have all of them."""
    wanted = {relation.first, relation.second}
    rows = study.frame[study.frame["quantity"].isin(wanted).to_numpy()]
    rows = rows.dropna(subset=["value"]).copy()
    for name in _KEYS:
        rows[name] = rows[name].replace("", "-")
    if not relation.column:
        return rows, []
    rows[_CLASS] = rows[RELATED].replace("", "(none)")
    return rows, [_CLASS]


def draw_relations(study: Study) -> list[Figure]:
    """Show the pairs of every relation, one series per class."""
    drawn = []
    table = study.tables.get("relations")
    for relation in map(_registered, study.settings.relate if table is not None else ()):
        rows, by = _rows(study, relation)
        if not {relation.first, relation.second} <= set(rows["quantity"]):
            continue
        pairs = pair_measures(rows, relation.first, relation.second, keys=_KEYS, by=by, nan_policy="omit")
        groups = pairs.groupby(_CLASS, sort=False, observed=True) if by else [("pairs", pairs)]
        scopes = study.long.scopes
        labels = [scopes[name].label for name in (relation.first, relation.second)]
        units = [scopes[name].unit for name in (relation.first, relation.second)]
        drawn.append(
            figures.scatter(
                f"relation-{relation.first}-{relation.second}".casefold().replace(" ", "-"),
                f"{labels[1]} against {labels[0]}",
                series=[
                    figures.Series(
                        label=str(name),
                        x=part["first"].tolist(),
                        y=part["second"].tolist(),
                        names=[f"{s}, {r}" for s, r in zip(part["subject"], part["region"], strict=True)],
                    )
                    for name, part in groups
                ],
                x_label=_axis(labels[0], units[0]),
                y_label=_axis(labels[1], units[1]),
                caption="Each point is one region of one subject. Regions of one subject are not "
                "independent: the statistics give correlations with intervals over subjects, and the curve "
                "that converts one to the other inside the range shown.",
            )
        )
    return drawn


def _axis(label: str, unit: str) -> str:
    return label if unit in ("", "1") else f"{label} ({unit})"
