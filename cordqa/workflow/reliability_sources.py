"""Where the spread comes from, and how many people the next study needs."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cordqa.errors import CordqaError
from cordqa.records import Severity, Statistic
from cordqa.stats.component_ratios import component_reproducibility
from cordqa.stats.components import variance_components
from cordqa.stats.planning import SampleSize, plan_study, size_for_icc, size_for_repeatability
from cordqa.workflow.reliability_options import Difference
from cordqa.workflow.reliability_run import BY, Analysis, Call, Study, shown_region

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_components", "plan_next_study", "random_terms"]

#: Effects to plan for where none are named, percent of the mean.
_DIFFERENCES = (Difference(number=3.0, percent=True), Difference(number=5.0, percent=True))
#: Profiles of the likelihood take minutes for more values than this.
_MANY_VALUES = 20_000
_RC_FACTOR = 1.25
_ICC_WIDTH = 0.2
#: Stands for the unit of a quantity.
_UNIT = "\x1a"


def random_terms(study: Study) -> tuple[str, ...]:
    """Return the random terms that the design can separate.

    Vendor is no term here: it is fixed where it has few levels.
    """
    design = study.design
    machine = design.machine if design.machines > 1 else ""
    terms = []
    # Without repeats or travelling, what differs between people is in the residual.
    separable = design.subjects > 1 and (design.repeated or design.crossed)
    if separable:
        terms.append("subject")
    if machine and machine != "vendor":
        terms.append(machine)
    if machine == "scanner" and 1 < design.counts["sites"] < design.machines:
        terms.append("site")
    if separable and machine and design.crossed and design.repeated:
        terms.append(f"subject:{machine}")
    if separable and design.sessions and design.runs:
        place = f"{machine}:" if machine and design.crossed else ""
        terms.append(f"subject:{place}session")
    return tuple(terms)


def analyse_components(study: Study) -> None:
    """Split the spread of each quantity in each region into its sources."""
    terms = random_terms(study)
    if not terms:
        reason = "one value per subject on one machine cannot be split into sources"
        study.skip("Variance components", reason)
        return
    design, settings = study.design, study.settings
    # With one machine per vendor, the two cannot be told apart, and the machine is the term.
    separate = 1 < design.counts["vendors"] < design.machines and design.machine != "vendor"
    adaptive = ["vendor"] if separate else []
    fixed = list(design.covariates)
    if design.machine == "vendor" and design.machines > 1:
        fixed.append("vendor")
    # The intervals of shares take most of the time; the figure shows the shares in any case.
    analysis = Analysis(study, "variance components", "components")
    quick = len(study.frame) > _MANY_VALUES and settings.detail != "full"
    if quick:
        message = (
            f"with more than {_MANY_VALUES} values variance components go without intervals; those of "
            "repeatability and reproducibility are there; --detail full computes all"
        )
        study.note("quick", message, Severity.INFO)
    options: Any = {
        "random": terms,
        "fixed": fixed,
        "adaptive": adaptive,
        "by": BY,
        "level": settings.level,
        "interval": "none" if quick else "auto",
        "shares": settings.detail == "full",
        "nan_policy": "omit",
    }
    # All quantities at once: those with the same scans share one design, and most of the time.
    call = partial(variance_components, value="value", unit=_UNIT, **options)
    analysis.run(study.frame, partial(_with_units, study, call))
    analysis.finish()
    _between_sessions(study, terms)


def _with_units(study: Study, call: Call, rows: pd.DataFrame) -> pd.DataFrame:
    """Write the unit of each quantity where a call for all of them could only keep its place."""
    table = call(rows)
    units = {name: "" if scope.unit == "1" else scope.unit for name, scope in study.long.scopes.items()}
    cells = zip(table["unit"].tolist(), table["quantity"].tolist(), strict=True)
    written = [str(unit).replace(_UNIT, units[str(quantity)]) for unit, quantity in cells]
    # A variance of 1^2 helps nobody.
    return table.assign(unit=["" if unit == "^2" else unit.strip() for unit in written])


def _between_sessions(study: Study, terms: tuple[str, ...]) -> None:
    """Repeatability of a new session, apart from that of another run in the same session."""
    session = [term for term in terms if term.endswith(":session")]
    if not session:
        return
    analysis = Analysis(study, "repeatability between sessions", "session repeatability")
    options: Any = {"random": terms, "repeat_terms": session, "by": [*BY, "between"], "nan_policy": "omit"}
    for _, unit, part in study.by_quantity(study.frame.assign(between="sessions")):
        call = partial(
            component_reproducibility, value="value", unit=unit, level=study.settings.level, **options
        )
        analysis.run(part, partial(_repeats_only, call))
    analysis.finish()


def _repeats_only(call: Any, rows: pd.DataFrame) -> Any:
    table = call(rows)
    return table[table["statistic"].isin(["wSD", "RC"]).to_numpy()]


# ----------------------------------------------------------------------------------- planning


def plan_next_study(study: Study) -> None:
    """Turn the measured spreads into sample sizes."""
    components = study.tables.get("components")
    if components is None or "subject" not in random_terms(study):
        study.skip("Planning", "the spread between and within subjects could not be told apart")
        return
    if not study.full:
        study.skip(
            "Planning", f"there are {len(study.groups)} quantities and regions; --detail full plans all"
        )
        return
    spreads = _spreads(components)
    across = _values(study.tables.get("reproducibility"), "reproducibility_SD")
    agreement = _values(study.tables.get("icc"), "ICC(A,1)")
    done = 0
    for group in study.groups:
        between, within = (
            spreads.get((*group, "subject"), math.nan),
            spreads.get((*group, "residual"), math.nan),
        )
        mean = spreads.get((*group, "mean"), math.nan)
        if not (between > 0.0 and within > 0.0):
            study.refused[group].setdefault("planning", "a spread is zero or not known")
            continue
        rows = _effects(study, group, mean, (between, within, across.get(group, math.nan)))
        rows += _precision(study, group, agreement.get(group, math.nan))
        if rows:
            study.statistics.extend(rows)
            study.done[group].append("planning")
            done += 1
    if not done:
        study.skip("Planning", "no quantity has the spreads and a difference to plan for; see --difference")


def _values(table: pd.DataFrame | None, statistic: str) -> dict[tuple[str, str], float]:
    if table is None:
        return {}
    rows = table[table["statistic"] == statistic]
    keys = zip(rows["quantity"], rows["region"], strict=True)
    return {(str(q), str(r)): float(v) for (q, r), v in zip(keys, rows["value"], strict=True)}


def _spreads(components: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """SD of subjects and of a repeat in another session, and the mean, of every group."""
    names = {"SD subject": "subject", "SD residual": "residual", "mean": "mean"}
    found: dict[tuple[str, str, str], float] = {}
    columns = (components[name] for name in ("quantity", "region", "statistic", "value"))
    for quantity, region, statistic, value in zip(*columns, strict=True):
        # A change is seen in a new session, whose own spread comes on top of that of runs.
        new = statistic.startswith("SD ") and statistic.endswith(":session")
        name = "residual" if new else names.get(statistic, "")
        if name and (np.isfinite(value) or not new):
            key = (str(quantity), str(region), name)
            found[key] = math.hypot(found.get(key, 0.0), value) if name == "residual" else float(value)
    return found


def _effects(
    study: Study, group: tuple[str, str], mean: float, spreads: tuple[float, float, float]
) -> list[Statistic]:
    """Sample sizes to find differences, in units or in percent of the mean."""
    quantity = group[0]
    scope = study.long.scopes[quantity]
    asked = [d for d in study.settings.difference if d.quantity in ("", quantity)]
    wanted = asked or ([] if study.settings.difference else list(_DIFFERENCES))
    rows = []
    for one in wanted:
        if one.percent and (scope.scale != "ratio" or not mean > 0.0):
            study.refused[group].setdefault("planning", "a percentage of the mean means nothing here")
            continue
        size = one.number * mean / 100.0 if one.percent else one.number
        words = f"{one.number:g} %" if one.percent else f"{one.number:g} {scope.unit}".strip()
        between, within, across = spreads
        try:
            table = plan_study(
                [size], between_sd=between, within_sd=within,
                reproducibility_sd=across if across > 0.0 else None, unit=scope.unit,
            )  # fmt: skip
        except CordqaError as error:
            study.refused[group].setdefault("planning", str(error))
            continue
        rows += [_size_row(study, group, row, words) for row in table.to_dict("records")]
    return rows


def _size_row(study: Study, group: tuple[str, str], row: dict[Any, Any], words: str) -> Statistic:
    return Statistic(
        name="n per arm",
        value=float(row["n_per_arm"]),
        unit="",
        quantity=group[0],
        region=shown_region(group[1]),
        group=f"{row['design']}, {words}",
        estimator=f"{row['method']}, power 80 %, two-sided 5 %",
        note=f"from SD of subjects and of repeats as estimated here; difference {row['difference']:.4g} "
        f"{row['unit']}".strip(),
    )


def _precision(study: Study, group: tuple[str, str], icc: float) -> list[Statistic]:
    """Subjects needed to know RC and the ICC well."""
    needed: list[tuple[str, SampleSize]] = []
    if group == study.groups[0]:
        needed.append(
            (f"RC known to {100 * (_RC_FACTOR - 1):.0f} %, two repeats", size_for_repeatability(_RC_FACTOR))
        )
    if 0.0 < icc < 1.0:
        raters = max(2, min(study.design.machines, 10))
        try:
            found = size_for_icc(icc, _ICC_WIDTH, raters=raters)
            needed.append((f"ICC interval {_ICC_WIDTH:g} wide, {raters} measurements each", found))
        except CordqaError as error:
            study.note("planning", str(error), Severity.INFO, where=study.label(group))
    return [
        Statistic(
            name="n subjects",
            value=float(size.n),
            quantity=group[0],
            region=shown_region(group[1]),
            group=words,
            estimator=size.method,
            note=f"{size.criterion} {size.achieved:.3g}",
        )
        for words, size in needed
    ]
