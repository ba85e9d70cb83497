"""Linearity, repeatability and reproducibility of phantom measurements.

One phantom is one subject, so statistics are taken sphere by sphere and within one field strength
(relaxation times depend on it).  Values that the protocol cannot determine are left out, which
``n`` shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import SupportsFloat, TypeVar

import numpy as np
from numpy.typing import NDArray

from cordqa.phantom.measure import OUTSIDE
from cordqa.phantom.reference import DOUBTFUL, REFERENCE_SPHERE
from cordqa.records import Measurement, Statistic
from cordqa.stats.agreement_core import ccc_arrays
from cordqa.stats.icc_core import icc_arrays
from cordqa.stats.linearity_core import ols_arrays
from cordqa.stats.quantiles import sd_interval

__all__ = [
    "BETWEEN",
    "ICC",
    "LINEARITY_NAMES",
    "WITHIN",
    "Group",
    "between_scanners",
    "concordance_over_spheres",
    "field_words",
    "group_measurements",
    "linearity",
    "usable",
    "within_scanners",
]

Array = NDArray[np.float64]
_Key = TypeVar("_Key", bound=Hashable)

WITHIN = "within-scanner CV"
BETWEEN = "between-scanner CV"
ICC = "ICC(A,1) over spheres"
LINEARITY_NAMES = ("slope", "intercept", "R2", "CCC")
_MINIMUM_POINTS = 3
_FIELD_STEP_T = 0.5


@dataclass(frozen=True, slots=True)
class Group:
    """Measurements of one quantity and plate by one kind of sequence at one nominal field strength.

    ``kind`` is empty where only one kind of sequence measured the quantity.
    """

    quantity: str
    level: str
    field_T: float
    rows: tuple[Measurement, ...]
    kind: str = ""

    @property
    def label(self) -> str:
        """Group in words."""
        field = f" at {self.field_T:g} T" if math.isfinite(self.field_T) else ""
        return f"{self.quantity}, {self.level}{field}{f', {self.kind}' if self.kind else ''}"

    def named(self, scanner: str) -> str:
        """Name a scanner so that groups of several kinds of sequence stay apart."""
        return f"{scanner}, {self.kind}" if self.kind and self.kind not in scanner else scanner

    def by_scanner(self) -> dict[str, tuple[Measurement, ...]]:
        """Return the rows of each scanner, in order of first appearance."""
        return _grouped(self.rows, lambda row: row.entities.scanner)

    def by_protocol(self) -> dict[str, tuple[Measurement, ...]]:
        """Return the rows of each scanner and protocol: only these are repeats of each other.

        The key is the scanner, with the protocol where a scanner ran more than one.
        """
        several = {
            scanner
            for scanner, rows in self.by_scanner().items()
            if len({row.entities.acquisition for row in rows}) > 1
        }
        return _grouped(
            self.rows,
            lambda row: (
                f"{row.entities.scanner}, {row.entities.acquisition}"
                if row.entities.scanner in several
                else row.entities.scanner
            ),
        )

    @property
    def regions(self) -> tuple[str, ...]:
        """Spheres in order of first appearance."""
        return tuple(dict.fromkeys(row.region for row in self.rows))


def usable(row: Measurement) -> bool:
    """Tell whether a value may enter a statistic."""
    return math.isfinite(row.value) and not any(flag.startswith(OUTSIDE) for flag in row.flags)


def group_measurements(rows: Iterable[Measurement]) -> tuple[Group, ...]:
    """Group rows by quantity, plate, nominal field strength and kind of sequence."""
    groups = _grouped(rows, lambda row: (row.quantity, row.level, _nominal(row.entities.field_strength_T)))
    out: list[Group] = []
    for key, members in groups.items():
        kinds = _grouped(members, lambda row: row.entities.acquisition.partition(",")[0])
        names = [kind if len(kinds) > 1 else "" for kind in kinds]
        out.extend(Group(*key, rows, name) for name, rows in zip(names, kinds.values(), strict=True))
    return tuple(out)


def linearity(group: Group) -> tuple[Statistic, ...]:
    """Fit measured against reference for each scanner: slope, intercept, R2 and concordance.

    Ordinary least squares on all spheres and repeats of the scanner, the reference taken as
    free of error.  Intervals treat points as independent, which repeats of one sphere are not.
    """
    out: list[Statistic] = []
    for scanner, rows in group.by_protocol().items():
        points = [row for row in rows if _has_reference(row)]
        spheres = len({row.region for row in points})
        if spheres < _MINIMUM_POINTS:
            continue
        x, y = (np.array([getattr(row, name) for row in points]) for name in ("reference", "value"))
        line, concordance = ols_arrays(x, y), ccc_arrays(x, y)
        slope, intercept = line.interval("slope"), line.interval("intercept")
        values: dict[str, tuple[SupportsFloat, SupportsFloat, SupportsFloat, str]] = {
            "slope": (line.slope, slope.low, slope.high, "1"),
            "intercept": (line.intercept, intercept.low, intercept.high, points[0].unit),
            "R2": (line.r2, math.nan, math.nan, "1"),
            "CCC": (concordance.value, concordance.low, concordance.high, "1"),
        }
        for name, (value, low, high, unit) in values.items():
            out.append(
                Statistic(
                    name=name,
                    value=float(value),
                    low=float(low),
                    high=float(high),
                    unit=unit,
                    quantity=group.quantity,
                    region=group.level,
                    group=group.named(scanner),
                    estimator="Lin's concordance" if name == "CCC" else "ordinary least squares",
                    interval_method="" if name == "R2" else "Fisher's z" if name == "CCC" else "Student's t",
                    n={"spheres": spheres, "values": len(points)},
                    note="R2 near 1 is no proof of accuracy: the values span a wide range"
                    if name == "R2"
                    else "",
                )
            )
    return tuple(out)


def within_scanners(group: Group) -> tuple[Statistic, ...]:
    """Return SD over repeats / mean of every sphere on every scanner, in per cent (ddof = 1)."""
    out: list[Statistic] = []
    for scanner, rows in group.by_protocol().items():
        for region, repeats in _grouped(rows, lambda row: row.region).items():
            values = _values(repeats)
            if values.size > 1:
                name = f"{group.level} {region}"
                out.append(
                    _cv(
                        WITHIN,
                        values,
                        group,
                        name,
                        group.named(scanner),
                        "SD over repeats",
                        {"repeats": values.size},
                    )
                )
    return tuple(out)


def between_scanners(group: Group) -> tuple[Statistic, ...]:
    """Return SD of the scanners' means / their mean for every sphere, in per cent (ddof = 1)."""
    out: list[Statistic] = []
    scanners = group.by_scanner()
    if len(scanners) < 2:
        return ()
    for region in group.regions:
        repeats = [_values(r for r in rows if r.region == region) for rows in scanners.values()]
        means = np.array([values.mean() for values in repeats if values.size])
        if means.size > 1:
            counts = {"scanners": means.size, "values": sum(values.size for values in repeats)}
            name = f"{group.level} {region}"
            out.append(_cv(BETWEEN, means, group, name, "", "SD of scanner means", counts))
    return tuple(out)


def concordance_over_spheres(group: Group) -> tuple[Statistic, ...]:
    """Return ICC(A,1) of log values with spheres as subjects and scanners as raters.

    Spheres that lack a value on any scanner are left out; ``n`` tells.
    """
    scanners = group.by_scanner()
    table = np.array(
        [
            [_mean(_values(r for r in rows if r.region == region)) for rows in scanners.values()]
            for region in group.regions
        ]
    )
    complete = np.isfinite(table).all(axis=1) & (table > 0).all(axis=1) if table.size else np.zeros(0, bool)
    if len(scanners) < 2 or complete.sum() < _MINIMUM_POINTS:
        return ()
    icc = icc_arrays(np.log(table[complete]))
    return (
        Statistic(
            name=ICC,
            value=float(icc.value[1]),
            low=float(icc.low[1]),
            high=float(icc.high[1]),
            unit="1",
            quantity=group.quantity,
            region=group.level,
            group=field_words(group),
            estimator="two-way random, absolute agreement, single scanner; logarithms of scanner means",
            interval_method="McGraw-Wong",
            n={"spheres": int(complete.sum()), "scanners": len(scanners)},
            flags=("inflated by the range of the spheres",),
            note="near 1 for any scanners, because the values span a wide range; "
            "the between-scanner CV is the figure to judge by",
        ),
    )


def _cv(
    name: str,
    values: Array,
    group: Group,
    region: str,
    scanner: str,
    estimator: str,
    n: Mapping[str, int],
) -> Statistic:
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    bounds = sd_interval(np.array(sd), np.array(values.size - 1.0))
    factor = 100 / mean if mean > 0 else math.nan
    return Statistic(
        name=name,
        value=sd * factor,
        low=float(bounds.low) * factor,
        high=float(bounds.high) * factor,
        unit="%",
        quantity=group.quantity,
        region=region,
        group=scanner or field_words(group),
        estimator=f"{estimator} over mean, ddof 1",
        interval_method="chi-squared",
        n=n,
    )


def _has_reference(row: Measurement) -> bool:
    doubtful = {DOUBTFUL, REFERENCE_SPHERE} & set(row.flags)
    return usable(row) and math.isfinite(row.reference) and not doubtful


def _values(rows: Iterable[Measurement]) -> Array:
    return np.array([row.value for row in rows if usable(row)], dtype=float)


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan


def _nominal(field_T: float) -> float:
    """Round to half a tesla: scanners report 1.494 or 2.89 for 1.5 and 3 T."""
    return round(field_T / _FIELD_STEP_T) * _FIELD_STEP_T if math.isfinite(field_T) else math.nan


def field_words(group: Group) -> str:
    """Name what statistics over all scanners of a group belong to: the field strength."""
    return group.named(f"{group.field_T:g} T") if math.isfinite(group.field_T) else group.kind


def _grouped(
    rows: Iterable[Measurement], key: Callable[[Measurement], _Key]
) -> dict[_Key, tuple[Measurement, ...]]:
    groups: dict[_Key, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: tuple(members) for name, members in groups.items()}
