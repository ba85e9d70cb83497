"""The figures of a reliability run, as data: who was measured where, values, agreement."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa import figures
from cordqa.records import Figure
from cordqa.workflow.reliability_charts import draw_estimates
from cordqa.workflow.reliability_relate import draw_relations
from cordqa.workflow.reliability_run import Study, shown_region
from cordqa.workflow.reliability_table import natural_key, plural, region_key
from cordqa.workflow.reliability_time_figures import draw_time_and_groups

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw", "series_column", "slug"]

_MOST_CELLS = 6000
_MOST_COLUMNS = 8
_MOST_PANELS = 6
_MOST_STRIPS = 12
_MOST_SERIES = 8
#: References that span more than this are shown on logarithmic axes.
_WIDE = 20.0
#: More dots than this in one figure say no more, and make the page heavy.
_MOST_DOTS = 6000


def draw(study: Study) -> tuple[Figure, ...]:
    """Make all figures; the report orders them by kind.

    A figure that cannot be made is a failure on record, and costs no other.
    """
    makers: tuple[tuple[str, Callable[[Study], list[Figure]]], ...] = (
        ("the design", lambda one: [_design(one)]),
        ("references", _identities),
        ("estimates", draw_estimates),
        ("agreement", _agreements),
        ("values", _strips),
        ("relations", draw_relations),
        ("harmonisation", _harmonised),
        ("time and groups", draw_time_and_groups),
    )
    found: list[Figure] = []
    for name, make in makers:
        try:
            found += make(study)
        except Exception as error:  # the boundary: the numbers are there without their figure
            study.fail(f"Figures of {name}", error)
    return tuple(found)


def slug(*words: str) -> str:
    """Make a name of words."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).casefold()).strip("-") or "all"


# ------------------------------------------------------------------------------------- design


def _design(study: Study) -> Figure:
    """Show who was measured where; people of one site each are counted per site."""
    design = study.design
    machine = design.machine
    if design.one_object and design.machines > _MOST_COLUMNS:
        row, column, noun = machine, "region", machine
    elif design.one_object:
        row, column, noun = "region", machine or "quantity", "region"
    elif design.crossed:
        row, column, noun = "subject", machine, "subject"
    elif design.repeated:
        row, column, noun = "subject", "visit", "subject"
    else:
        row, column, noun = machine or "quantity", "region", machine or "quantity"
    table = _counts(study, row, column)
    if table.size > _MOST_CELLS:
        row, column, noun = machine or "quantity", "region", machine or "quantity"
        table = _counts(study, row, column)
    people = row != "subject" and not design.one_object
    words = "subjects" if people else "scans"
    missing = int((table.to_numpy() == 0).sum())
    columns = "repeat" if column == "visit" and not design.sessions else column
    return figures.design(
        "design",
        f"{noun.capitalize()}s by {'session' if columns == 'visit' else columns}",
        rows=[str(name) or "all" for name in table.index],
        columns=[str(name) or "all" for name in table.columns],
        counts=table.to_numpy(),
        row_noun=noun,
        caption=f"Number of {words} in each cell; {plural(missing, 'cell')} empty. A cross marks what was "
        "measured but left out; the list above says why.",
    )


def _counts(study: Study, row: str, column: str) -> pd.DataFrame:
    """Scans per cell (subjects per cell where rows are sites); negative where all were left out."""
    frame = study.long.frame
    frame = frame[(frame["visit"] != "0") | (frame["left_out"] != "")] if column == "visit" else frame
    known = frame["value"].notna() | (frame["left_out"] != "")
    frame = frame[known.to_numpy()]
    used = frame[frame["left_out"] == ""]
    rows = sorted(set(frame[row].tolist()), key=region_key if row == "region" else natural_key)
    columns = sorted(set(used[column].tolist()), key=region_key if column == "region" else natural_key)
    counts = _per_cell(used, row, column).reindex(index=rows, columns=columns).fillna(0)
    out = frame[frame["left_out"] != ""]
    if len(out):
        lost = _per_cell(out, row, column).reindex(index=rows, columns=columns).fillna(0)
        counts = counts.where(counts > 0, -lost)
    return counts.astype(int)


def _per_cell(frame: pd.DataFrame, row: str, column: str) -> pd.DataFrame:
    if not len(frame):
        return frame.pivot_table(index=row, columns=column, values="line", aggfunc="count")
    if row != "subject" and frame["subject"].nunique() > 1:
        found = frame.groupby([row, column], observed=True)["subject"].nunique()
        return found.unstack()
    keys = list(dict.fromkeys(["quantity", "region", row, column]))
    sizes = frame.groupby(keys, observed=True).size()
    # Every scan gives one value of each quantity in each region, or lacks some.
    return sizes.groupby(level=[row, column]).max().unstack()


# ----------------------------------------------------------------------------------- identity


def series_column(study: Study, rows: pd.DataFrame) -> str:
    """Return the column that tells series apart without too many of them; none where there is none."""
    for name in (study.design.machine, "vendor", "group"):
        if name and 1 < rows[name].nunique() <= _MOST_SERIES:
            return name
    return ""


def _identities(study: Study) -> list[Figure]:
    if "linearity" not in study.tables:
        return []
    found = []
    for quantity, unit, part in study.by_quantity(study.frame.dropna(subset=["value", "reference"])):
        column = series_column(study, part)
        groups = list(part.groupby(column, observed=True)) if column else [("all", part)]
        series = [
            figures.Series(
                label=str(name),
                x=rows["reference"].to_numpy(dtype=float),
                y=rows["value"].to_numpy(dtype=float),
                names=_names(study, rows),
            )
            for name, rows in sorted(groups, key=lambda pair: natural_key(pair[0]))
        ]
        low, high = part["reference"].min(), part["reference"].max()
        label = study.long.scopes[quantity].label
        found.append(
            figures.identity(
                f"identity-{slug(quantity)}",
                f"{label}: measured against reference",
                series=series,
                quantity=label,
                unit=unit,
                caption="Points should lie on the line of identity. A shift of all points of one series is a "
                "bias of that scanner; a trend in the error panel is a bias that depends on the value.",
                log=bool(low > 0 and high > _WIDE * low and (part["value"] > 0).all()),
            )
        )
    return found


def _names(study: Study, rows: pd.DataFrame) -> list[str]:
    """Name points by region for one object, else by subject."""
    return rows["region" if study.design.one_object else "subject"].astype(str).tolist()


# ---------------------------------------------------------------------------------- agreement


def _agreements(study: Study) -> list[Figure]:
    table = study.tables.get("agreement")
    if table is None:
        return []
    found = []
    for quantity, unit, part in study.by_quantity():
        rows = table[(table["quantity"] == quantity) & (table["statistic"] == "bias")]
        rows = rows[np.isfinite(rows["value"].to_numpy(dtype=float))]
        chosen = _chosen_pairs(rows)
        panels = [_agreement(study, table, part, *key) for key in chosen]
        panels = [panel for panel in panels if len(panel.means)]
        if not panels:
            continue
        some = (
            f" {len(panels)} of {len(rows)} are drawn; the table has all." if len(rows) > len(panels) else ""
        )
        label = study.long.scopes[quantity].label
        found.append(
            figures.bland_altman(
                f"agreement-{slug(quantity)}",
                f"{label}: agreement in pairs",
                panels=panels,
                unit=unit,
                caption="Each point is a subject, the mean of its repeats; bands are the intervals of the "
                "bias and of the limits of agreement of single measurements. A trend or a fan means that the "
                f"difference depends on the value.{some}",
            )
        )
    return found


def _chosen_pairs(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Choose pairs and regions to draw: one pair over all regions first, then the other pairs."""
    keys = [tuple(map(str, key)) for key in rows[["region", "first", "second"]].to_numpy()]
    counts = dict(zip(keys, rows["n_subjects"].tolist(), strict=True))
    pairs = list(dict.fromkeys(key[1:] for key in keys))
    total = {pair: sum(n for key, n in counts.items() if key[1:] == pair) for pair in pairs}
    pairs.sort(key=lambda pair: -total[pair])
    first = [key for key in keys if key[1:] == pairs[0]] if pairs else []
    if len({key[0] for key in keys}) > 1 and len(pairs) > 1:
        # Half of the panels for the regions of the best filled pair, half for other pairs.
        first = first[: _MOST_PANELS // 2]
    rest = [key for pair in pairs[1:] for key in keys if key[1:] == pair and key[0] == keys[0][0]]
    return [(a, b, c) for a, b, c in [*first, *rest][:_MOST_PANELS]]


def _agreement(
    study: Study, table: pd.DataFrame, part: pd.DataFrame, region: str, first: str, second: str
) -> figures.Agreement:
    method = study.compared
    rows = part[(part["region"] == region) & part[method].isin([first, second])].dropna(subset=["value"])
    means = rows.groupby(["subject", method], sort=False, observed=True)["value"].mean().unstack()
    both = means.reindex(columns=[first, second]).dropna()
    a, b = both[first].to_numpy(dtype=float), both[second].to_numpy(dtype=float)
    found = table[(table["quantity"] == part["quantity"].iloc[0]) & (table["region"] == region)]
    found = found[(found["first"] == first) & (found["second"] == second)].set_index("statistic")
    lines = {name: _line(found, name) for name in ("bias", "loa_lower", "loa_upper")}
    return figures.Agreement(
        label=": ".join(part for part in (shown_region(region), f"{first} − {second}") if part),
        means=(a + b) / 2,
        differences=a - b,
        names=[str(name) for name in both.index],
        bias=lines["bias"],
        lower=lines["loa_lower"],
        upper=lines["loa_upper"],
    )


def _line(found: pd.DataFrame, name: str) -> tuple[float, float, float]:
    if name not in found.index:
        return (math.nan, math.nan, math.nan)
    row: Any = found.loc[name]
    return (float(row["value"]), float(row["low"]), float(row["high"]))


# --------------------------------------------------------------------------------- the values


def _strips(study: Study) -> list[Figure]:
    found = []
    for quantity, unit, part in study.by_quantity(study.frame.dropna(subset=["value"])):
        column = _strip_column(study, part)
        regions = list(dict.fromkeys(part["region"].tolist()))
        shown = [r for r in regions if (part["region"] == r).sum() > 1][:_MOST_STRIPS]
        drawn = part[part["region"].isin(shown)]
        if not shown or len(drawn) > _MOST_DOTS or study.design.one_object:
            continue
        by_region = {region: drawn[drawn["region"] == region] for region in shown}
        panels = {shown_region(region): _groups(rows, column) for region, rows in by_region.items()}
        label = study.long.scopes[quantity].label
        some = f" {len(shown)} of {len(regions)} regions are shown." if len(regions) > len(shown) else ""
        found.append(
            figures.strip(
                f"values-{slug(quantity)}",
                f"{label} by {column}" if column else label,
                panels=panels,
                value_label=label,
                unit=unit,
                caption="Each dot is one measurement; the thick line is the mean of the group, the thin one "
                f"spans one SD. Click a dot to find the same subject in other figures.{some}",
            )
        )
    return found


def _strip_column(study: Study, rows: pd.DataFrame) -> str:
    for name in ("vendor", study.design.machine, "group", "visit"):
        if name and 1 < rows[name].nunique() <= _MOST_SERIES:
            return name
    return ""


def _groups(rows: pd.DataFrame, column: str, value: str = "value") -> list[figures.Group]:
    labels = sorted(set(rows[column].tolist()), key=natural_key) if column else ["all"]
    found = []
    for label in labels:
        mine = rows[rows[column] == label] if column else rows
        numbers = mine[value].to_numpy(dtype=float)
        numbers = numbers[np.isfinite(numbers)]
        mean = float(numbers.mean()) if numbers.size else math.nan
        sd = float(numbers.std(ddof=1)) if numbers.size > 1 else math.nan
        found.append(
            figures.Group(
                label=str(label),
                values=mine[value].to_numpy(dtype=float),
                names=mine["subject"].astype(str).tolist(),
                mean=mean,
                sd=sd,
            )
        )
    return found


def _harmonised(study: Study) -> list[Figure]:
    """Values before and after, side by side."""
    table = study.tables.get("harmonised")
    if table is None:
        return []
    found = []
    batches = table["batch"].nunique()
    for quantity, part in table.groupby("quantity", sort=False):
        scope = study.long.scopes[str(quantity)]
        regions = list(dict.fromkeys(part["region"].tolist()))[: _MOST_PANELS // 2]
        if batches > _MOST_STRIPS or len(part) > _MOST_DOTS:
            continue
        panels = {}
        for region in regions:
            rows = part[part["region"] == region]
            panels[f"{shown_region(region)} before".strip()] = _groups(rows, "batch")
            panels[f"{shown_region(region)} after".strip()] = _groups(rows, "batch", "harmonised")
        found.append(
            figures.strip(
                f"harmonised-{slug(str(quantity))}",
                f"{scope.label} before and after harmonisation",
                panels=panels,
                value_label=scope.label,
                unit=scope.unit,
                caption="Means that move together show that shifts were taken out. That says nothing about "
                "whether the same person now gets the same value everywhere: see the RDC ratio.",
            )
        )
    return found
