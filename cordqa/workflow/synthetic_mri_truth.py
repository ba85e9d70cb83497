"""What the study of synthetic MRI found, beside what was planted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cordqa import figures
from cordqa.records import Figure, Result, Statistic, Status, Verdict
from cordqa.simulate.synthetic_mri_study import PLANTED, SyntheticStudy, cv_of_scanners, true_cv

__all__ = [
    "PARTS",
    "SHARED",
    "WORDS",
    "Recovered",
    "compare_with_truth",
    "coverage_rows",
    "judge",
    "truth_figures",
]

PARTS = ("phantom", "volunteers")
#: The spread of all scanners from which three were drawn: regions share the three, and miss together.
SHARED = "between_scanner_CV"
_THESE = "between_scanner_CV, these scanners"
WORDS = {
    "slope": "slope of a scanner against the references",
    "within_scanner_CV": "CV within scanners",
    _THESE: "CV between these scanners",
    SHARED: "CV between all scanners",
}
_EXPECTED = 0.95
_CAPTIONS = {
    "slope": "Each point is one scanner and quantity with its 95 % interval, which should reach the line of "
    "identity in 19 of 20 cases.",
    "within_scanner_CV": "Each point is one sphere, or one region of people, with its 95 % interval, which "
    "should reach the line of identity in 19 of 20 cases.",
    _THESE: "Planted is the spread of what these three scanners read without noise; intervals take the "
    "scanners as they are.",
    SHARED: "Planted is the spread of all scanners, of which three were drawn. Three tell little of it, so "
    "that intervals are wide, and as regions share the three they miss together.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A planted number beside its estimate.

    Attributes
    ----------
    part : {'phantom', 'volunteers'}
    name, quantity, region, scanner : str
        Of the statistic.
    truth, value, low, high : float
    unit : str
    """

    part: str
    name: str
    quantity: str
    region: str
    scanner: str
    truth: float
    value: float
    low: float
    high: float
    unit: str

    @property
    def inside(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


def compare_with_truth(results: Mapping[str, Result], study: SyntheticStudy) -> tuple[Recovered, ...]:
    """Put every estimated slope and variation beside what was planted.

    Slopes are compared with the gains.  Variation between scanners is compared twice: taking the three
    scanners as they are, with the spread of what they read without noise; and taking them as a sample,
    with the spread from which their gains and offsets were drawn.
    """
    found = [
        Recovered(
            part=part,
            name=row.name,
            quantity=row.quantity,
            region=row.region,
            scanner=row.group.removeprefix("scanner="),
            truth=truth,
            value=row.value,
            low=row.low,
            high=row.high,
            unit=row.unit or "1",
        )
        for part, result in results.items()
        for row in result.statistics
        if (truth := _planted(row, study)) is not None and math.isfinite(row.low + row.high)
    ]
    return (*found, *_these_scanners(study))


def _planted(row: Statistic, study: SyntheticStudy) -> float | None:
    if (
        row.name in ("within_scanner_CV", SHARED)
        and not row.group
        and (row.quantity, row.region) in study.means
    ):
        mean = study.means[row.quantity, row.region]
        return true_cv(row.quantity, mean, between=row.name == SHARED)
    if row.name == "slope" and not row.region and row.group.startswith("scanner="):
        return study.gains.get((row.quantity, row.group.removeprefix("scanner=")))
    return None


def _these_scanners(study: SyntheticStudy) -> list[Recovered]:
    """Estimate the spread of the three scanners as they are."""
    import pandas as pd

    from cordqa.stats.reproducibility import reproducibility

    found = []
    for part, rows in zip(PARTS, (study.phantom, study.people), strict=True):
        table = reproducibility(
            pd.DataFrame(list(rows)), by=["quantity", "region"], unit="unit", scanners="fixed"
        )
        kept = table[table["statistic"] == SHARED]
        keys = zip(kept["quantity"].astype(str), kept["region"].astype(str), strict=True)
        numbers = kept[["value", "low", "high"]].to_numpy(dtype=float)
        for (quantity, region), (value, low, high) in zip(keys, numbers.tolist(), strict=True):
            if math.isfinite(low + high):
                found.append(
                    Recovered(
                        part=part,
                        name=_THESE,
                        quantity=quantity,
                        region=region,
                        scanner="",
                        truth=cv_of_scanners(study, quantity, region),
                        value=value,
                        low=low,
                        high=high,
                        unit="%",
                    )
                )
    return found


def judge(found: Sequence[Recovered]) -> Verdict:
    """Judge the intervals that do not share the three scanners; at 95 % each, a few must miss."""
    some = [one.inside for one in found if one.name != SHARED]
    n = len(some)
    share = sum(some) / n if n else math.nan
    least = _EXPECTED - 3 * math.sqrt(_EXPECTED * (1 - _EXPECTED) / n) if n else math.nan
    status = Status.NOT_EVALUATED if not n else Status.PASS if share >= least else Status.FAIL
    return Verdict(
        status=status,
        subject="slopes, CV within and between these scanners",
        rule="intervals that hold what was planted: 95 % within three standard errors",
        observed=100.0 * share,
        low=100.0 * least,
        unit="%",
        source="the simulation itself",
        reason=f"{sum(some)} of {n} intervals" if n else "no interval",
        scope="overall",
    )


def coverage_rows(found: Sequence[Recovered]) -> list[Statistic]:
    """Share of the intervals that hold what was planted, by part, statistic and quantity."""
    empty = Statistic(name="intervals that hold the planted value", value=math.nan, unit="%", quantity="T1")
    rows = []
    for part in PARTS:
        for name, words in WORDS.items():
            for quantity in PLANTED:
                some = [o.inside for o in found if (o.part, o.name, o.quantity) == (part, name, quantity)]
                if some:
                    rows.append(
                        replace(
                            empty,
                            value=100.0 * sum(some) / len(some),
                            quantity=quantity,
                            group=f"part={part}, statistic={words}",
                            estimator="share of the intervals",
                            n={"intervals": len(some)},
                        )
                    )
    return rows


def truth_figures(found: Sequence[Recovered]) -> list[Figure]:
    """Show estimates with their intervals against what was planted."""
    return [_against(name, some) for name in WORDS if (some := [one for one in found if one.name == name])]


def _against(name: str, some: Sequence[Recovered]) -> Figure:
    words, unit = WORDS[name], some[0].unit
    series = [
        figures.Series(
            label=quantity,
            x=[one.truth for one in chosen],
            y=[one.value for one in chosen],
            low=[one.low for one in chosen],
            high=[one.high for one in chosen],
            names=[one.region or one.scanner for one in chosen],
        )
        for quantity in PLANTED
        if (chosen := [one for one in some if one.quantity == quantity])
    ]
    axis = words if unit in ("", "1") else f"{words} ({unit})"
    slug = name.replace(",", "").replace(" ", "-").replace("_", "-")
    return figures.scatter(
        f"truth-{slug}",
        f"{words[:1].upper()}{words[1:]}: estimated against planted",
        series=series,
        x_label=f"Planted {axis}",
        y_label=f"Estimated {axis}",
        # Variations reach over two decades.
        log=name != "slope",
        with_identity=True,
        caption=_CAPTIONS[name],
    )
