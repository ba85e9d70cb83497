"""Figures of estimates: bars, forests, shares of variance, heatmaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa import figures
from cordqa.records import Figure
from cordqa.workflow.reliability_run import Study, shown_region
from cordqa.workflow.reliability_table import natural_key

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_estimates"]

#: More regions than this in one chart cannot be read.
_MOST_ROWS = 24
_MOST_COMPONENT_ROWS = 36
_MOST_NOTES = 6
_LONG_LABEL = 14
_MOST_SERIES = 6
#: Share of a heatmap that must hold a number.
_FILLED = 0.6


def draw_estimates(study: Study) -> list[Figure]:
    """Draw what can be compared between regions, quantities and vendors."""
    return [
        *_heatmaps(study),
        *_within(study),
        *_between(study),
        *_sites(study),
        *_forest(study),
        *_components(study),
    ]


def _estimate(row: Mapping[Any, Any], label: str, series: str = "") -> figures.Estimate:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    note = "" if math.isfinite(value) else str(row.get("note", ""))[:60]
    return figures.Estimate(label=label or "all", value=value, low=low, high=high, series=series, note=note)


def _overall(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of whole groups, not those of one vendor or machine."""
    extra = list(table.columns[: list(table.columns).index("statistic")])
    keep = np.ones(len(table), dtype=bool)
    for name in extra:
        if name not in ("quantity", "region"):
            keep &= np.array([not isinstance(cell, str) or cell == "" for cell in table[name]])
    return table[keep]


def _pick(table: pd.DataFrame | None, statistic: str, quantity: str | None = None) -> pd.DataFrame | None:
    if table is None:
        return None
    rows = table[table["statistic"] == statistic]
    rows = rows if quantity is None else rows[rows["quantity"] == quantity]
    rows = rows[np.isfinite(rows["value"].to_numpy(dtype=float))]
    return rows if len(rows) else None


def _first_regions(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Keep as many regions as can be read, and the sentence that says so."""
    regions = list(dict.fromkeys(rows["region"].tolist()))
    if len(regions) <= _MOST_ROWS:
        return rows, ""
    note = f" The first {_MOST_ROWS} of {len(regions)} regions are drawn; the table has all."
    return rows[rows["region"].isin(regions[:_MOST_ROWS])], note


# ----------------------------------------------------------------------------------- heatmaps


def _heatmaps(study: Study) -> list[Figure]:
    """A shade per region and quantity, where there are several of both."""
    sources = (
        ("repeatability", "wCV", "Within-subject CV", "%", None),
        ("reproducibility", "between_scanner_CV", "Between-scanner CV", "%", None),
        ("icc", "ICC(A,1)", "ICC(A,1)", "", (0.0, 1.0)),
    )
    found = []
    for key, statistic, title, unit, axis in sources:
        table = study.tables.get(key)
        rows = None if table is None else _pick(_overall(table), statistic)
        if rows is None:
            continue
        regions = list(dict.fromkeys(rows["region"].tolist()))[:_MOST_COMPONENT_ROWS]
        quantities = list(dict.fromkeys(rows["quantity"].tolist()))
        if len(regions) < 2 or len(quantities) < 2:
            continue
        grid = rows.set_index(["region", "quantity"])["value"].unstack()
        if grid.loc[regions].notna().to_numpy().mean() < _FILLED:
            continue  # Quantities of different regions have nothing to be compared in.
        found.append(
            figures.heatmap(
                f"heatmap-{key}",
                f"{title} by region and quantity",
                rows=[region or "all" for region in regions],
                columns=[_short(study, name) for name in quantities],
                values=grid.reindex(index=regions, columns=quantities).to_numpy(dtype=float),
                unit=unit,
                value_label=title,
                axis=axis,
            )
        )
    return found


# --------------------------------------------------------------------------------------- bars


def _within(study: Study) -> list[Figure]:
    """WCV per region and vendor; wSD where a CV means nothing."""
    table = study.tables.get("repeatability")
    if table is None:
        return []
    panels: dict[str, list[figures.Estimate]] = {}
    notes: list[str] = []
    in_units: list[Figure] = []
    for quantity, scope in study.long.scopes.items():
        rows, series = _by_vendor(study, table, "wCV", quantity)
        if rows is not None:
            rows, note = _first_regions(rows)
            notes.append(note)
            panels[scope.label] = _rows(rows, series)
            continue
        rows, series = _by_vendor(study, table, "wSD", quantity)
        if rows is None:
            continue
        rows, note = _first_regions(rows)
        in_units.append(
            figures.bars(
                f"wsd-{quantity}",
                f"{scope.label}: within-subject SD",
                panels={scope.label: _rows(rows, series)},
                value_label="Within-subject SD",
                unit=scope.unit,
                caption="In units, because a percentage of the mean means nothing here. The line on each bar "
                f"is the interval.{note}",
            )
        )
    if not panels:
        return in_units
    caption = (
        "Spread of repeats of the same subject on the same machine, in percent; shorter is better. The line "
        "on each bar is the interval; where intervals overlap widely, an order means "
        f"little.{''.join(dict.fromkeys(notes))}"
    )
    return [
        figures.bars("wcv", _title(study), panels=panels, value_label="wCV", unit="%", caption=caption),
        *in_units,
    ]


def _title(study: Study) -> str:
    if study.design.one_object:
        return f"CV of repeats on one {study.design.machine or 'machine'}"
    return "Within-subject CV"


def _by_vendor(
    study: Study, table: pd.DataFrame, statistic: str, quantity: str
) -> tuple[pd.DataFrame | None, str]:
    """Rows of every vendor, or of every machine where they are few; else of all together."""
    rows = _pick(table, statistic, quantity)
    if rows is None:
        return None, ""
    for name in ("vendor", study.design.machine):
        if name and name in rows:
            named = rows[[isinstance(label, str) and label != "" for label in rows[name]]]
            if 1 < named[name].nunique() <= _MOST_SERIES:
                return named, name
    return _pick(_overall(table), statistic, quantity), ""


def _rows(rows: pd.DataFrame, series: str) -> list[figures.Estimate]:
    order = {region: i for i, region in enumerate(dict.fromkeys(rows["region"].tolist()))}
    # One order of series everywhere, so that a vendor keeps its colour from figure to figure.
    ordered = sorted(
        rows.to_dict("records"),
        key=lambda row: (order[row["region"]], natural_key(row[series]) if series else ()),
    )
    return [_estimate(row, str(row["region"]), str(row[series]) if series else "") for row in ordered]


def _between(study: Study) -> list[Figure]:
    """Between- and within-scanner CV side by side."""
    table = study.tables.get("reproducibility")
    if table is None:
        return []
    machine = study.design.machine
    names = {"between_scanner_CV": f"between {machine}s", "within_scanner_CV": f"within a {machine}"}
    if not (study.design.repeated or study.design.subjects > 1):
        names.pop("within_scanner_CV")
    panels, note = {}, ""
    for quantity, scope in study.long.scopes.items():
        rows = table[(table["quantity"] == quantity) & table["statistic"].isin(names)]
        rows = rows[np.isfinite(rows["value"].to_numpy(dtype=float))]
        if not len(rows):
            continue
        rows, note = _first_regions(rows)
        panels[scope.label] = _rows(rows.assign(series=rows["statistic"].map(names)), "series")
    if not panels:
        return []
    return [
        figures.bars(
            "between",
            f"CV between {machine}s",
            panels=panels,
            value_label="CV",
            unit="%",
            caption=f"Where the bar between {machine}s is the longer, it matters where a subject is "
            f"measured. Few {machine}s make wide intervals, which is no defect of the method.{note}",
        )
    ]


def _sites(study: Study) -> list[Figure]:
    """Spread within and between sites per vendor; also by the published definition where asked for."""
    table = study.tables.get("sites")
    if table is None:
        return []
    kinds = [("within_site_CV", "between_site_CV", "Within- and between-site CV", "sites")]
    if study.settings.definition:
        title = "Intra- and inter-site COV, spine-generic definition"
        kinds.append(("intra_site_COV", "inter_site_COV", title, "published"))
    found = []
    for within, between, title, name in kinds:
        panels = {}
        for quantity, scope in study.long.scopes.items():
            for statistic, words in ((within, "within sites"), (between, "between sites")):
                rows = _pick(table, statistic, quantity)
                if rows is not None:
                    rows, _ = _first_regions(rows)
                    series = "vendor" if "vendor" in rows and rows["vendor"].nunique() > 1 else ""
                    panels[f"{scope.label} {words}"] = _rows(rows, series)
        if panels:
            caption = (
                "People were measured at one site each: the spread within sites is that of people with the "
                "error of measurement on top, not repeatability."
            )
            found.append(
                figures.bars(name, title, panels=panels, value_label="CV", unit="%", caption=caption)
            )
    return found


# --------------------------------------------------------------------- forests and components


def _forest(study: Study) -> list[Figure]:
    table = study.tables.get("icc")
    if table is None:
        return []
    forms = {"ICC(A,1)": "agreement", "ICC(C,1)": "consistency", "ICC(intra)": "scan-rescan"}
    panels, note = {}, ""
    for quantity, scope in study.long.scopes.items():
        rows = table[(table["quantity"] == quantity) & table["statistic"].isin(forms)]
        rows = rows[np.isfinite(rows["value"].to_numpy(dtype=float))]
        if len(rows):
            rows, note = _first_regions(rows)
            panels[scope.label] = _rows(rows.assign(series=rows["statistic"].map(forms)), "series")
    if not panels:
        return []
    low = min((one.low for rows in panels.values() for one in rows if math.isfinite(one.low)), default=0.0)
    return [
        figures.forest(
            "icc",
            "Intraclass correlation of single measurements",
            panels=panels,
            value_label="ICC",
            axis=(min(0.0, max(-1.0, math.floor(10 * low) / 10)), 1.0),
            marks={"0.75": 0.75, "0.9": 0.9},
            caption="The share of the spread that is between subjects; it grows with how different the "
            "subjects are, so compare it only between studies of like people. A wide line is a weak "
            f"statement.{note}",
        )
    ]


def _components(study: Study) -> list[Figure]:
    table = study.tables.get("components")
    if table is None:
        return []
    names = table["statistic"].astype(str)
    rows = table[names.str.startswith("variance ")].assign(part=names.str.removeprefix("variance "))
    bars: dict[str, dict[str, float]] = {}
    notes: dict[str, str] = {}
    for (quantity, region), part in rows.groupby(["quantity", "region"], sort=False):
        known = part[np.isfinite(part["value"].to_numpy(dtype=float))]
        if not len(known) or len(bars) >= _MOST_COMPONENT_ROWS:
            continue
        label = " ".join(part for part in (_short(study, str(quantity)), shown_region(str(region))) if part)
        bars[label] = dict(zip(_words(study, known["part"].tolist()), known["value"].tolist(), strict=True))
        zero = known[known["value"] == 0.0]["part"].tolist()
        if zero:
            notes[label] = f"{' and '.join(zero)} at zero"
    if not bars:
        return []
    every = rows[["quantity", "region"]].drop_duplicates()
    some = f" {len(bars)} of {len(every)} are drawn." if len(bars) < len(every) else ""
    if len(notes) > _MOST_NOTES:
        some += f" In {len(notes)} rows a source is estimated at zero."
        notes = {}
    split = "subject" in set(rows["part"])
    caption = (
        "The larger the share of the subjects, the less of what is seen is measurement."
        if split
        else "Nobody was measured twice, so the residual holds both people and error of measurement."
    )
    title = "Where the variance comes from"
    caption = f"{caption}{_fixed_words(table)}{some}"
    return [figures.components("components", title, rows=bars, notes=notes, caption=caption)]


def _fixed_words(table: pd.DataFrame) -> str:
    """Say what was taken out before the bars were drawn."""
    names = table["statistic"].astype(str)
    effects = names[names.str.startswith("effect ")].str.removeprefix("effect ")
    fixed = list(dict.fromkeys(effect.split(" ")[0] for effect in effects))
    if not fixed:
        return ""
    words = " and ".join(filter(None, [", ".join(fixed[:-1]), fixed[-1]]))
    return f" Differences by {words} are fixed effects and stand outside the bars; the table gives them."


def _short(study: Study, quantity: str) -> str:
    """Name a quantity where there is little room."""
    label = study.long.scopes[quantity].label
    return label if len(label) <= _LONG_LABEL else quantity


def _words(study: Study, parts: Sequence[str]) -> list[str]:
    """Name the residual after what it holds."""
    separable = "subject" in parts
    rest = "repeats" if study.design.repeated else "interaction and error"
    residual = rest if separable else ("repeats" if study.design.one_object else "people and error")
    return [residual if part == "residual" else part.replace(":", " × ") for part in parts]
