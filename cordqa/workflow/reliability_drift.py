"""Control charts: has a scanner changed since its baseline?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cordqa.stats.control import control_points, control_summary
from cordqa.workflow.reliability_run import BY, Analysis, Study
from cordqa.workflow.reliability_table import WHOLE, plural

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_drift", "chart_columns"]

#: Dates of one object on one machine below which a chart says nothing.
_FEWEST = 8


def chart_columns(study: Study) -> list[str]:
    """Return the columns that name a chart."""
    machine = [study.design.machine] if study.design.machine else []
    return [*BY, *machine, *([] if study.design.one_object else ["subject"])]


def analyse_drift(study: Study) -> None:
    """Chart what was measured often enough on one machine, with a new baseline at each upgrade."""
    if not study.design.dated:
        study.skip("Drift", "the table has no dates")
        return
    rows = study.frame[study.frame["acquired"] != ""].dropna(subset=["value"])
    charts = chart_columns(study)
    many = rows.groupby(charts, observed=True)["value"].transform("size") >= _FEWEST
    rows = rows[many.to_numpy()]
    if not len(rows):
        reason = f"nothing was measured at {_FEWEST} dates or more on one machine"
        study.skip("Drift", reason)
        return
    software = rows["software"].replace("", "not named")
    rows = rows.assign(software=software)
    options: Any = {"time": "acquired", "by": charts, "restart": "software", "nan_policy": "omit"}
    options["baseline"] = study.settings.baseline
    summary = Analysis(study, "drift", "drift")
    collected: list[pd.DataFrame] = []

    def chart(part: pd.DataFrame) -> pd.DataFrame:
        found = control_points(part, "value", **options)
        collected.append(found)
        return control_summary(found, by=charts, level=study.settings.level)

    summary.run(rows, chart)
    table = summary.finish()
    if table is None or not collected:
        return
    import pandas as pd

    study.tables["control points"] = pd.concat(collected, ignore_index=True)
    _say_drift(study, table, charts)


def _say_drift(study: Study, table: pd.DataFrame, charts: list[str]) -> None:
    """One notice per machine and quantity that is out of control."""
    flags = table["flags"].astype(str)
    for flag, words in (("drift", "drifts"), ("out-of-limits", "has its last value beyond the limits")):
        hit = table[flags.str.split(", ").map(lambda found, flag=flag: flag in found)]
        hit = hit.drop_duplicates(charts)
        place = [name for name in charts if name not in ("region", "subject")]
        for key, part in hit.groupby(place, sort=False, observed=True):
            quantity, *machine = (str(one) for one in key)
            where = " on ".join([study.long.scopes[quantity].label, *machine])
            message = f"{where} {words} ({plural(len(part), 'chart')}: {_regions(part)})"
            study.note("drift", message)


def _regions(part: pd.DataFrame) -> str:
    names = [str(name) for name in dict.fromkeys(part["region"].tolist()) if name != WHOLE]
    return (", ".join(names[:6]) + (", ..." if len(names) > 6 else "")) or "the only region"
