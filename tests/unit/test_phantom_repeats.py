from __future__ import annotations

import math

import numpy as np
import pytest

from cordqa.phantom.measure import OUTSIDE
from cordqa.phantom.repeats import (
    between_scanners,
    concordance_over_spheres,
    group_measurements,
    linearity,
    within_scanners,
)
from cordqa.records import Entities, Measurement

TRUTH = {"sphere 1": 2000.0, "sphere 2": 1000.0, "sphere 3": 500.0, "sphere 4": 250.0}


def row(region: str, value: float, scanner: str = "A", **more: object) -> Measurement:
    acquisition = str(more.pop("acquisition", "inversion recovery, TE 10 ms"))
    field = float(more.pop("field", 3.0))  # type: ignore[arg-type]
    return Measurement(
        quantity="T1",
        value=value,
        unit="ms",
        region=region,
        level="plate 5",
        reference=TRUTH[region],
        entities=Entities(scanner=scanner, acquisition=acquisition, field_strength_T=field),
        **more,  # type: ignore[arg-type]
    )


def study(factors: dict[str, list[float]]) -> list[Measurement]:
    return [
        row(region, truth * factor, scanner)
        for scanner, repeats in factors.items()
        for factor in repeats
        for region, truth in TRUTH.items()
    ]


def test_within_is_sd_over_mean_with_n_less_one() -> None:
    (group,) = group_measurements(study({"A": [0.99, 1.00, 1.01]}))
    statistics = within_scanners(group)
    assert len(statistics) == 4
    assert statistics[0].value == pytest.approx(1.0)
    assert statistics[0].n == {"repeats": 3}
    # 2 degrees of freedom: 0.52 to 6.28 times the estimate
    assert statistics[0].low == pytest.approx(0.5207, abs=1e-3)
    assert statistics[0].high == pytest.approx(6.285, abs=1e-2)


def test_between_is_sd_of_scanner_means() -> None:
    (group,) = group_measurements(study({"A": [0.98, 1.02], "B": [1.04], "C": [0.96, 0.96, 0.96]}))
    statistics = between_scanners(group)
    means = np.array([1.0, 1.04, 0.96])
    assert statistics[0].value == pytest.approx(100 * means.std(ddof=1) / means.mean())
    assert statistics[0].n == {"scanners": 3, "values": 6}


def test_one_scanner_has_no_between_and_one_scan_no_within() -> None:
    (group,) = group_measurements(study({"A": [1.0]}))
    assert between_scanners(group) == ()
    assert within_scanners(group) == ()
    assert concordance_over_spheres(group) == ()


def test_linearity_finds_a_gain() -> None:
    (group,) = group_measurements(study({"A": [1.05]}))
    statistics = {s.name: s for s in linearity(group)}
    assert statistics["slope"].value == pytest.approx(1.05)
    assert statistics["intercept"].value == pytest.approx(0.0, abs=1e-6)
    assert statistics["R2"].value == pytest.approx(1.0)
    assert statistics["CCC"].value < 1.0
    assert "no proof" in statistics["R2"].note


def test_values_outside_the_range_are_left_out_and_n_shows_it() -> None:
    rows = study({"A": [1.0], "B": [1.1]})
    rows[0] = row("sphere 1", 9999.0, "A", flags=(f"{OUTSIDE} (above)",))
    rows[1] = row("sphere 2", math.nan, "A")
    (group,) = group_measurements(rows)
    regions = {s.region for s in between_scanners(group)}
    assert regions == {"plate 5 sphere 3", "plate 5 sphere 4"}


def test_field_strengths_and_kinds_of_sequence_are_kept_apart() -> None:
    rows = [
        row("sphere 1", 2000.0),
        row("sphere 1", 2100.0, field=1.494),
        row("sphere 1", 1900.0, acquisition="variable flip angle, TR 15 ms"),
    ]
    groups = group_measurements(rows)
    assert len(groups) == 3
    assert len({group.label for group in groups}) == 3
    assert not any(within_scanners(group) for group in groups)


def test_two_protocols_of_one_scanner_are_no_repeats_of_each_other() -> None:
    rows = [
        row("sphere 1", 2000.0, acquisition="inversion recovery, TE 10 ms, ND"),
        row("sphere 1", 2100.0, acquisition="inversion recovery, TE 10 ms, DIS2D"),
    ]
    (group,) = group_measurements(rows)
    assert within_scanners(group) == ()
    assert len(group.by_protocol()) == 2
    assert len(group.by_scanner()) == 1


def test_order_of_rows_does_not_matter() -> None:
    rows = study({"A": [0.98, 1.02], "B": [1.04, 1.05]})
    (one,) = group_measurements(rows)
    (other,) = group_measurements(rows[::-1])
    first = {s.region: s.value for s in between_scanners(one)}
    second = {s.region: s.value for s in between_scanners(other)}
    assert first == pytest.approx(second)


def test_icc_over_spheres_is_flagged() -> None:
    (group,) = group_measurements(study({"A": [1.0], "B": [1.2]}))
    (statistic,) = concordance_over_spheres(group)
    assert statistic.value > 0.9
    assert statistic.flags == ("inflated by the range of the spheres",)
