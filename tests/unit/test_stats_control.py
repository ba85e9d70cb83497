"""Control charts: rules by hand, false alarms, restarts, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, InputError, TableError
from cordqa.stats.control import (
    chart_values,
    control_points,
    control_summary,
    cusum_statistic,
    ewma_statistic,
    moving_range_sigma,
    westgard_rules,
)


def series(n=60, *, shift_at=None, shift=0.0, seed=0, sd=5.0):
    values = np.random.default_rng(seed).normal(900, sd, n)
    if shift_at is not None:
        values[shift_at:] += shift
    return values


def table(values, software="v1", scanner="A", start="2024-01-01"):
    dates = pd.date_range(start, periods=len(values), freq="W").astype(str)
    return pd.DataFrame(
        {"scanner": scanner, "quantity": "T1", "date": dates, "software": software, "value": values}
    )


def test_moving_range_by_hand_and_under_drift():
    assert moving_range_sigma(np.array([1.0, 3.0, 2.0])) == pytest.approx(1.5 / 1.128379, rel=1e-6)
    calm = series(2000)
    assert moving_range_sigma(calm) == pytest.approx(5.0, rel=0.05)
    drifting = calm + np.linspace(0, 100, 2000)
    assert moving_range_sigma(drifting) == pytest.approx(5.0, rel=0.05)
    with pytest.raises(InputError):
        moving_range_sigma(np.array([1.0]))


def test_average_and_sums_by_hand():
    z = np.array([1.0, 0.0, -2.0])
    assert ewma_statistic(z) == pytest.approx([0.2, 0.16, 0.8 * 0.16 - 0.4])
    up, down = cusum_statistic(z)
    assert up == pytest.approx([0.5, 0.0, 0.0])
    assert down == pytest.approx([0.0, 0.0, 1.5])
    both = ewma_statistic(np.stack([z, -z]))
    assert both[1] == pytest.approx(-both[0])


def test_westgard_rules_by_hand():
    fired = {
        name: np.flatnonzero(where).tolist()
        for name, where in westgard_rules(
            np.array([0.0, 3.5, 0.1, 2.1, 2.2, -2.3, 1.1, 1.2, 1.3, 1.4])
        ).items()
    }
    assert fired["1-3s"] == [1]
    assert fired["2-2s"] == [4]
    assert fired["R-4s"] == [5]
    assert fired["4-1s"] == [9]
    assert fired["10x"] == []
    assert np.flatnonzero(westgard_rules(np.full(12, 0.5))["10x"]).tolist() == [9, 10, 11]
    assert not any(where.any() for where in westgard_rules(np.zeros(3)).values())


def test_a_short_baseline_gives_no_more_false_alarms_than_a_long_one():
    generator = np.random.default_rng(1)
    charts = [chart_values(generator.normal(0, 1, 50)) for _ in range(1500)]
    alarms = np.array([chart.signals["shewhart"] for chart in charts])
    assert alarms[:, 8:20].mean() == pytest.approx(0.0027, abs=0.0012)
    assert alarms[:, 20:].mean() == pytest.approx(0.0027, abs=0.0012)
    z = np.array([chart.z for chart in charts])[:, 8:20]
    assert z.std() == pytest.approx(1.0, abs=0.02)
    plain = [
        chart_values(generator.normal(0, 1, 50), limits="plain").signals["shewhart"][20:] for _ in range(600)
    ]
    assert np.mean(plain) > 0.006


def test_limits_and_scores_agree():
    values = series(40)
    chart = chart_values(values)
    for index in range(8, 40):
        edge = values.copy()
        edge[index] = chart.centre[index] + 1.0001 * chart.reach[index]
        assert chart_values(edge).signals["shewhart"][index]
        edge[index] = chart.centre[index] + 0.9999 * chart.reach[index]
        assert not chart_values(edge).signals["shewhart"][index]


def test_a_lasting_shift_is_found_by_average_and_sum():
    charts = [chart_values(series(60, shift_at=40, shift=10.0, seed=seed)) for seed in range(100)]
    for rule in ("ewma", "cusum"):
        fired = np.array([chart.signals[rule] for chart in charts])
        assert fired[:, 40:].any(axis=1).mean() > 0.95
        assert fired[:, :40].any(axis=1).mean() < 0.25
    assert charts[0].role[[0, 8, 20]].tolist() == ["baseline", "learning", "monitored"]


def test_moving_average_allows_for_the_error_of_its_baseline():
    generator = np.random.default_rng(4)
    charts = [chart_values(generator.normal(0, 1, 100)).signals["ewma"][20:].any() for _ in range(500)]
    known = np.abs(ewma_statistic(generator.normal(0, 1, (500, 80))))
    limit = 2.86 * np.sqrt(0.2 / 1.8 * (1 - 0.8 ** (2 * np.arange(1, 81))))
    assert np.mean(charts) < np.mean((known > limit).any(axis=1)) + 0.05


def test_a_gross_failure_fires_at_once_and_does_not_enter_the_baseline():
    values = series(30)
    values[12] += 200
    chart = chart_values(values)
    assert chart.signals["shewhart"][12]
    assert chart.excluded[12]
    assert np.isfinite(chart.z[12])
    without = chart_values(np.delete(values, 12))
    assert chart.centre[-1] == pytest.approx(without.centre[-1])


def test_unit_and_sign_do_not_matter():
    values = series(45, shift_at=30, shift=6)
    first, second = chart_values(values), chart_values(-0.001 * values)
    assert second.z == pytest.approx(-first.z, rel=1e-9)
    assert np.array_equal(first.signals["cusum"], second.signals["cusum"])


def test_charts_restart_at_upgrades_and_keep_scanners_apart():
    a = table(series(55, seed=1), software=["v1"] * 30 + ["v2"] * 25)
    a.loc[30:, "value"] += 40  # the upgrade changes the level
    b = table(series(30, seed=2) + 300, scanner="B")
    shuffled = pd.concat([a, b]).sample(frac=1, random_state=0)
    points = control_points(shuffled, "value", time="date", restart="software")
    upgraded = points.loc[(points["scanner"] == "A") & (points["segment"] == 2)]
    assert len(upgraded) == 25
    assert not upgraded["signal"].str.contains("shewhart").any()
    assert upgraded["centre"].iloc[-1] == pytest.approx(940, abs=6)
    plain = control_points(shuffled, "value", time="date")
    assert plain.loc[plain["scanner"] == "A", "signal"].iloc[-1]
    summary = control_summary(points)
    assert set(summary["scanner"]) == {"A", "B"}


def test_summary_says_where_the_scanner_stands():
    drifted = control_summary(control_points(table(series(60, shift_at=45, shift=9)), "value", time="date"))
    assert "drift" in drifted["flags"].iloc[0]
    now = drifted.loc[drifted["statistic"] == "EWMA now"].iloc[0]
    assert now["value"] > now["high"]
    calm = control_summary(control_points(table(series(26, seed=5)), "value", time="date"))
    assert calm["flags"].iloc[0] == ""
    mean = calm.loc[calm["statistic"] == "baseline mean"].iloc[0]
    assert mean["low"] < 900 < mean["high"]
    short = control_summary(control_points(table(series(12)), "value", time="date"))
    assert "short-baseline" in short["flags"].iloc[0]


def test_too_few_and_constant_values_are_not_judged():
    points = control_points(
        pd.concat([table(series(5)), table(np.full(30, 7.0), scanner="B")]), "value", time="date"
    )
    assert set(points["role"]) == {"not evaluated"}
    notes = points.groupby("scanner")["note"].first()
    assert "5 values" in notes["A"]
    assert "do not vary" in notes["B"]
    assert (points["signal"] == "").all()
    summary = control_summary(points)
    assert summary["value"].isna().all()
    assert (summary["flags"] == "not-evaluated").all()


def test_numbers_and_mixed_dates_order_the_points():
    data = table(series(30))
    data["date"] = np.arange(30)[::-1]
    points = control_points(data, "value", time="date")
    assert points["time"].is_monotonic_increasing
    assert points["value"].iloc[0] == data["value"].iloc[-1]


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        ({"date": "yesterday"}, {}, TableError, "cannot be understood"),
        ({"value": np.nan}, {"nan_policy": "omit"}, InputError, "no row"),
        ({}, {"rules": ["nelson"]}, ConfigError, "rule"),
        ({}, {"baseline": 5}, ConfigError, "baseline"),
        ({}, {"limits": "wide"}, ConfigError, "limits"),
        ({}, {"time": "value"}, ConfigError, "another role"),
        ({}, {"time": "when"}, TableError, "missing"),
    ],
)
def test_bad_input_is_one_clear_sentence(change, options, error, words):
    settings = {"time": "date", **options}
    with pytest.raises(error, match=words):
        control_points(table(series(30)).assign(**change), "value", **settings)


def test_a_missing_value_is_left_out_when_asked():
    data = table(series(30))
    data.loc[4, "value"] = np.nan
    points = control_points(data, "value", time="date", nan_policy="omit")
    assert len(points) == 30
    assert points["role"].tolist().index("missing") == 4
    assert points["note"].iloc[4] == "no usable value"
    plain = control_points(data.drop(index=4), "value", time="date")
    assert points["high"].dropna().tolist() == plain["high"].tolist()
    assert control_summary(points)["n_baseline"].iloc[0] == 20
    with pytest.raises(TableError):
        control_points(data, "value", time="date")
    with pytest.raises(InputError):
        chart_values(np.array([1.0, np.nan]))
