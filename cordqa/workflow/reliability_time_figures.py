"""Control charts and receiver operating characteristics of a reliability run, as data."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa import figures
from cordqa.errors import CordqaError
from cordqa.records import Figure
from cordqa.stats.diagnostic import roc_points
from cordqa.workflow.reliability_drift import chart_columns
from cordqa.workflow.reliability_run import BY, Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_time_and_groups"]

_MOST_CHARTS = 12
_MOST_CURVES = 6


def draw_time_and_groups(study: Study) -> list[Figure]:
    """Draw drift and diagnostic value where they were analysed."""
    return [*_charts(study), *_curves(study)]


def _charts(study: Study) -> list[Figure]:
    """One panel per chart and baseline; those with a signal first."""
    points = study.tables.get("control points")
    if points is None:
        return []
    columns = chart_columns(study)
    found = []
    for quantity, part in points.groupby("quantity", sort=False):
        scope = study.long.scopes[str(quantity)]
        panels = [
            _panel(study, key, rows, columns)
            for key, rows in part.groupby([*columns, "segment"], sort=False, observed=True)
        ]
        panels.sort(key=lambda panel: not any(panel.signals))
        some = ""
        if len(panels) > _MOST_CHARTS:
            some = f" {_MOST_CHARTS} of {len(panels)} charts are drawn, those with signals first."
        found.append(
            figures.control_chart(
                f"drift-{quantity}",
                f"{scope.label} over time",
                panels=panels[:_MOST_CHARTS],
                value_label=scope.label,
                unit=scope.unit,
                caption="Points outside the solid limits, or an EWMA outside its own, call for a look at the "
                f"scanner. Each change of software starts a new baseline and a panel of its own.{some}",
            )
        )
    return found


def _panel(study: Study, key: Any, rows: pd.DataFrame, columns: list[str]) -> figures.ControlPanel:
    named = dict(zip([*columns, "segment"], key, strict=True))
    words = [str(named[name]) for name in columns if name != "quantity" and str(named[name])]
    segment = int(named["segment"])
    events = {}
    if segment > 1:
        words.append(f"baseline {segment}")
        events[str(rows["time"].iloc[0])] = "new software"
    judged = rows[np.isfinite(rows["centre"].to_numpy(dtype=float))]
    last = judged.iloc[-1] if len(judged) else None
    scalar = {name: math.nan if last is None else float(last[name]) for name in ("centre", "low", "high")}
    known = len(judged) > 0
    return figures.ControlPanel(
        label=", ".join(words),
        when=[str(when) for when in rows["time"]],
        values=rows["value"].to_numpy(dtype=float),
        names=[study.label((str(named["quantity"]), str(named["region"])))] * len(rows),
        signals=[str(signal) for signal in rows["signal"]],
        ewma=rows["ewma"].to_numpy(dtype=float) if known else (),
        ewma_low=rows["ewma_low"].to_numpy(dtype=float) if known else (),
        ewma_high=rows["ewma_high"].to_numpy(dtype=float) if known else (),
        events=events,
        baseline=int(rows["role"].isin(["baseline", "learning"]).sum()),
        **scalar,
    )


def _curves(study: Study) -> list[Figure]:
    """One figure per quantity; the regions with the largest areas where there are many."""
    table = study.tables.get("roc")
    if table is None or study.people is None:
        return []
    areas = table[(table["statistic"] == "AUC") & np.isfinite(table["value"].to_numpy(dtype=float))]
    areas = areas.sort_values("value", ascending=False, kind="stable")
    best = areas.head(_MOST_CURVES)
    rows, case = study.people, study.case
    wanted = {(str(q), str(r)) for q, r in best[BY].to_numpy()}
    keep = np.array([(q, r) in wanted for q, r in rows[BY].to_numpy()])
    call = partial(roc_points, outcome="group", case=case, by=BY, nan_policy="omit")
    try:
        points = call(rows[keep], "value")
    except CordqaError:
        return []
    curves = [_curve(study, row, points) for row in best.to_dict("records")]
    some = f" The {len(best)} largest of {len(areas)} areas are drawn." if len(areas) > len(best) else ""
    caption = (
        f"How well single values tell {case} from the others: a curve along the diagonal does not tell them "
        f"apart. Intervals of the areas stand in the legend.{some}"
    )
    return [figures.roc("roc", f"Diagnostic value for {case}", curves=curves, caption=caption)]


def _curve(study: Study, row: dict[Any, Any], points: pd.DataFrame) -> figures.RocCurve:
    mine = points[(points["quantity"] == row["quantity"]) & (points["region"] == row["region"])]
    x, y = 1.0 - mine["specificity"].to_numpy(dtype=float), mine["sensitivity"].to_numpy(dtype=float)
    order = np.lexsort((y, x))
    best = int(np.argmax(y - x)) if x.size else 0
    return figures.RocCurve(
        label=study.label((str(row["quantity"]), str(row["region"]))),
        false_positive=x[order],
        true_positive=y[order],
        auc=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        operating=(float(x[best]), float(y[best])) if x.size else (math.nan, math.nan),
    )
