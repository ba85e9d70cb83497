"""Judging: the decision rule, roll-ups, and the reference-free line of rates."""

from __future__ import annotations

import csv
import math
from collections import Counter

import numpy as np
import pytest

from cordqa.errors import ConfigError
from cordqa.phantom.check import (
    check_linearity,
    check_rate_linearity,
    judge_overall,
    judge_plate,
    judge_rate_linearity,
    judge_sphere,
    judge_statistic,
    judge_value,
    sphere_error,
)
from cordqa.phantom.definition import load_phantom
from cordqa.phantom.reference import attach_reference, reference_values
from cordqa.phantom.tolerance import load_tolerances
from cordqa.records import Entities, Measurement, Statistic, Status

TOLERANCES = load_tolerances()  # T1: warn 5.5 %, fail 11 %


def t1(value=1000.0, u=5.0, reference=1000.0, u_reference=10.0, quantity="T1", **kwargs) -> Measurement:
    fields = {"unit": "ms", "region": "3", "level": "5", "standard_uncertainty": u}
    return Measurement(
        quantity=quantity,
        value=value,
        reference=reference,
        reference_uncertainty=u_reference,
        **(fields | kwargs),
    )


def status(*args, **kwargs) -> Status:
    return judge_sphere(t1(*args, **kwargs), TOLERANCES).status


# --- error and its uncertainty ---------------------------------------------------------------------


def test_error_and_uncertainty_in_per_cent():
    error = sphere_error(t1(value=1050, u=6, reference=1000, u_reference=8))
    assert error.value == pytest.approx(5)
    assert error.standard_uncertainty == pytest.approx(math.hypot(0.6, 1.05 * 0.8))


def test_uncertainty_of_the_error_agrees_with_simulation():
    rng = np.random.default_rng(1)
    measured, reference = rng.normal(1050, 20, 200_000), rng.normal(1000, 15, 200_000)
    error = sphere_error(t1(value=1050, u=20, reference=1000, u_reference=15))
    assert np.std(100 * (measured / reference - 1)) == pytest.approx(error.standard_uncertainty, rel=0.01)


def test_error_in_points():
    error = sphere_error(t1(value=12, u=0.3, reference=10, u_reference=0.4), unit="points")
    assert (error.value, error.standard_uncertainty) == pytest.approx((2, 0.5))


# --- decision rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expanded", "expected"),
    [
        (0, 2, Status.PASS),
        (5.5, 2, Status.PASS),  # on the limit
        (-5.5, 2, Status.PASS),
        (5.6, 2, Status.WARN),
        (11, 2, Status.WARN),
        (11.1, 2, Status.FAIL),
        (-30, 2, Status.FAIL),
        (4, 7.1, Status.WARN),  # could be beyond the failure limit
        (4, 6.9, Status.PASS),
        (12, 6, Status.FAIL),  # even the favourable end is beyond the warning limit
        (12, 7, Status.WARN),  # the favourable end would pass
        (0, 11.1, Status.NOT_EVALUATED),
        (12, 15, Status.NOT_EVALUATED),
        (30, 15, Status.FAIL),  # larger than any doubt
    ],
)
def test_decision_rule(percent, expanded, expected):
    # All the uncertainty in the measurement: U = 2 u, in per cent of a reference of 100.
    assert status(value=100 + percent, u=expanded / 2, reference=100, u_reference=0) is expected
    assert status(value=100 - percent, u=expanded / 2, reference=100, u_reference=0) is expected


def test_no_interval_that_reaches_a_failure_passes_and_none_that_reaches_a_pass_fails():
    rng = np.random.default_rng(2)
    for percent, u in zip(rng.uniform(-30, 30, 500), rng.uniform(0, 15, 500), strict=True):
        found = status(value=100 + percent, u=u, reference=100, u_reference=0)
        if found is Status.PASS:
            assert abs(percent) + 2 * u <= 11 + 1e-6
        if found is Status.FAIL:
            assert abs(percent) - 2 * u > 5.5 - 1e-6
            assert abs(percent) > 11


def test_verdict_carries_limit_source_and_observation():
    entities = Entities(scanner="A")
    verdict = judge_sphere(t1(value=1030, entities=entities), TOLERANCES)
    assert verdict.observed == pytest.approx(3)
    assert (verdict.low, verdict.high, verdict.unit) == (-11, 11, "%")
    assert verdict.subject == "plate 5, sphere 3, T1"
    assert "Bane" in verdict.source
    assert "error +3.0 %, expanded uncertainty" in verdict.reason
    assert (verdict.scope, verdict.level, verdict.region, verdict.quantity) == ("sphere", "5", "3", "T1")
    assert verdict.entities is entities


@pytest.mark.parametrize("flag", ["outside protocol range", "Outside the protocol's range"])
def test_outside_the_protocol_range_is_never_a_failure(flag):
    verdict = judge_sphere(t1(value=5000, flags=(flag,)), TOLERANCES)
    assert verdict.status is Status.NOT_EVALUATED
    assert verdict.reason == flag


@pytest.mark.parametrize(
    "change", [{"value": math.nan}, {"reference": math.nan}, {"reference": 0.0}, {"value": math.inf}]
)
def test_without_value_or_reference_nothing_is_judged(change):
    verdict = judge_sphere(t1(**change), TOLERANCES)
    assert verdict.status is Status.NOT_EVALUATED
    assert verdict.reason


@pytest.mark.parametrize("change", [{"u": math.nan}, {"u_reference": math.nan}, {"u": -1.0}, {"u": math.inf}])
def test_an_unknown_uncertainty_prevents_a_pass(change):
    verdict = judge_sphere(t1(**change), TOLERANCES)
    assert verdict.status is Status.WARN
    assert "cannot be a pass" in verdict.reason
    assert judge_sphere(t1(value=1500, **change), TOLERANCES).status is Status.FAIL


def test_quantity_without_tolerance():
    verdict = judge_sphere(t1(quantity="MTR"), TOLERANCES)
    assert verdict.status is Status.NOT_EVALUATED
    assert "no tolerance" in verdict.reason


def test_method_selects_the_tolerance():
    assert status(value=1120, method="inversion recovery") is Status.FAIL
    assert status(value=1120, method="variable flip angle") is Status.PASS


def test_proton_density_is_judged_in_points():
    # 6 % instead of 5 % proton density is one point, though 20 % relative.
    verdict = judge_sphere(
        t1(value=6, u=0.5, reference=5, u_reference=0.1, quantity="PD", unit="%"), TOLERANCES
    )
    assert (verdict.status, verdict.unit) == (Status.PASS, "points")


def test_with_real_references():
    phantom = load_phantom("caliber-system")

    def judge(plate, sphere, percent, quantity="T1", **conditions):
        found = reference_values(phantom, plate, quantity, **conditions)
        reference = next(v for v in found if v.sphere == str(sphere))
        value = (reference.value if math.isfinite(reference.value) else 100.0) * (1 + percent / 100)
        row = Measurement(
            quantity=quantity,
            value=value,
            unit="ms",
            region=str(sphere),
            level=str(plate),
            standard_uncertainty=value / 200,
        )
        return judge_sphere(attach_reference(row, reference), TOLERANCES, reference=reference)

    known = {"field_strength_T": 3.0, "temperature_C": 20.0, "serial": "0102"}
    assert judge(5, 3, 2, **known).status is Status.PASS
    assert judge(5, 3, 20, **known).status is Status.FAIL
    # Without temperature MnCl2 T1 is known to 12 % only: no verdict, and the reason says so.
    unknown = judge(4, 8, 2, field_strength_T=3.0, serial="0102")
    assert unknown.status is Status.NOT_EVALUATED
    assert "temperature" in unknown.reason
    # A calculated reference at 1.5 T cannot condemn a scanner.
    assert (
        judge(5, 1, -15, field_strength_T=1.5, temperature_C=20.0, serial="0102").status
        is Status.NOT_EVALUATED
    )
    # Doubtful certificates are never judged against.
    doubtful = judge(4, 5, -13, quantity="T2", **known)
    assert doubtful.status is Status.NOT_EVALUATED
    assert "doubtful" in doubtful.reason
    # No certificate: the reason comes from the reference.
    none = judge(5, 3, 0, field_strength_T=7.0)
    assert "no certified T1 at 7 T" in none.reason
    sphere14 = judge(3, 14, 0, quantity="PD", field_strength_T=3.0)
    assert sphere14.status is Status.NOT_EVALUATED
    assert "the reference of the others" in sphere14.reason


# --- roll-ups ----------------------------------------------------------------------------------------


def sphere_verdicts(*statuses: str):
    values = {"p": 1000.0, "w": 1080.0, "f": 1300.0, "n": math.nan}
    return [judge_sphere(t1(value=values[s], region=str(i + 1)), TOLERANCES) for i, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("spheres", "expected"),
    [
        ("ppppp", Status.PASS),
        ("pppppn", Status.PASS),
        ("ppppw", Status.WARN),
        ("ppppwf", Status.FAIL),
        ("pppp", Status.WARN),  # too few
        ("f", Status.FAIL),
        ("nnnnnn", Status.NOT_EVALUATED),
        ("", Status.NOT_EVALUATED),
    ],
)
def test_plate(spheres, expected):
    verdict = judge_plate(sphere_verdicts(*spheres), TOLERANCES, plate="5", quantity="T1")
    assert verdict.status is expected
    assert math.isnan(verdict.observed), "a roll-up observes nothing itself"
    assert f"{spheres.count('p')} pass" in verdict.reason or "p" not in spheres
    assert verdict.scope == "plate"


def test_plate_names_its_bad_spheres_and_counts_the_others():
    verdict = judge_plate(sphere_verdicts(*"pppwfnp"), TOLERANCES, plate="5", quantity="T1")
    assert verdict.reason == "1 fail (5), 1 warn (4), 4 pass, 1 not evaluated (6)"


def test_other_checks_of_a_plate_count():
    bad = judge_value("rate-linearity", 20.0, TOLERANCES, quantity="T1", plate="5", scope="plate")
    verdict = judge_plate([*sphere_verdicts(*"ppppp"), bad], TOLERANCES, plate="5", quantity="T1")
    assert verdict.status is Status.FAIL
    assert "rms departure" in verdict.reason
    alone = judge_plate([bad], TOLERANCES, plate="5", quantity="T1")
    assert alone.status is Status.NOT_EVALUATED


def test_overall():
    passed = judge_plate(sphere_verdicts(*"ppppp"), TOLERANCES, plate="5", quantity="T1")
    silent = judge_plate(sphere_verdicts(*"nn"), TOLERANCES, plate="4", quantity="T2")
    failed = judge_plate(sphere_verdicts(*"fffff"), TOLERANCES, plate="4", quantity="T1")
    assert judge_overall([passed]).status is Status.PASS
    assert judge_overall([passed, silent]).status is Status.WARN
    assert judge_overall([passed, silent, failed]).status is Status.FAIL
    assert judge_overall([silent, silent]).status is Status.NOT_EVALUATED
    assert judge_overall([]).status is Status.NOT_EVALUATED
    assert judge_overall([passed, failed]).reason == "1 fail (plate 4, T1), 1 pass"


# --- single numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        ("slope", 1.0, Status.PASS),
        ("slope", 1.08, Status.WARN),
        ("slope", 0.5, Status.FAIL),
        ("slope", math.nan, Status.NOT_EVALUATED),
        ("ccc", 0.995, Status.PASS),
        ("ccc", 0.98, Status.WARN),
        ("ccc", -0.5, Status.FAIL),
        ("within-scanner-cv", 1.0, Status.PASS),
        ("within-scanner-cv", 5.0, Status.FAIL),
        ("within-scanner-cv", math.inf, Status.NOT_EVALUATED),
    ],
)
def test_judge_value(check, value, expected):
    assert judge_value(check, value, TOLERANCES, quantity="T1").status is expected


def test_open_limits_are_empty_not_infinite():
    verdict = judge_value("ccc", 0.5, TOLERANCES)
    assert (verdict.low, math.isnan(verdict.high)) == (0.97, True)


def test_linearity():
    verdicts = check_linearity(
        TOLERANCES,
        quantity="T1",
        slope=0.99,
        intercept=-15,
        r2=0.999,
        ccc=0.995,
        largest_reference=1900,
        n=14,
    )
    assert [v.status for v in verdicts] == [Status.PASS] * 4
    assert verdicts[1].observed == pytest.approx(100 * -15 / 1900)
    assert "proves nothing" in verdicts[2].reason
    few = check_linearity(
        TOLERANCES, quantity="T1", slope=1, intercept=0, r2=1, ccc=1, largest_reference=1900, n=2
    )
    assert {v.status for v in few} == {Status.NOT_EVALUATED}
    none = check_linearity(
        TOLERANCES, quantity="T1", slope=1, intercept=0, r2=1, ccc=1, largest_reference=math.nan, n=9
    )
    assert none[1].status is Status.NOT_EVALUATED


def test_statistic_quotes_interval_and_estimator():
    statistic = Statistic(
        name="within-scanner CV",
        value=1.5,
        unit="%",
        quantity="T1",
        low=1.0,
        high=3.0,
        estimator="rms",
        region="3",
    )
    verdict = judge_statistic("within-scanner-cv", statistic, TOLERANCES, plate="5")
    assert verdict.status is Status.PASS
    assert verdict.reason == "95 % interval 1 to 3; rms"
    assert "proves nothing" in judge_statistic("r2", Statistic(name="R2", value=1.0), TOLERANCES).reason


# --- rate against concentration -----------------------------------------------------------------------

CONCENTRATIONS = np.array([0.29, 0.6, 1.04, 1.64, 2.52, 3.68, 5.43, 7.74, 11.3, 16.5, 23.3, 32.7, 46.0, 65.3])


def times(rate0=0.32, relaxivity=0.7):
    return 1000 / (rate0 + relaxivity * CONCENTRATIONS)


def test_an_exact_line_is_recovered():
    line = check_rate_linearity(CONCENTRATIONS, times(), 0.01 * times())
    assert line.relaxivity_per_s_per_mM == pytest.approx(0.7, rel=1e-12)
    assert line.rate0_per_s == pytest.approx(0.32, rel=1e-11)
    assert line.rms_percent < 1e-9
    assert line.n == 14


def test_a_noisy_line_is_unbiased_and_its_errors_are_honest():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        values = times() * (1 + 0.02 * rng.standard_normal(14))
        line = check_rate_linearity(CONCENTRATIONS, values)
        found.append((line.relaxivity_per_s_per_mM, line.relaxivity_error, line.rms_percent))
    slopes, errors, rms = np.array(found).T
    assert slopes.mean() == pytest.approx(0.7, rel=0.002)
    assert slopes.std() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.1)
    assert np.sqrt(np.mean(rms**2)) == pytest.approx(2.0, rel=0.05)


def test_one_bad_sphere_stands_out():
    values = times()
    values[5] *= 1.2
    line = check_rate_linearity(CONCENTRATIONS, values)
    assert int(np.argmax(np.abs(line.left_out_percent))) == 5
    without = values.copy()
    without[5] = np.nan
    clean = check_rate_linearity(CONCENTRATIONS, without)
    assert clean.rms_percent < 1e-9
    assert clean.n == 13
    assert np.isnan(clean.residuals_percent[5])
    # The residual of the left-out sphere is that against the line through the others.
    assert line.left_out_percent[5] == pytest.approx(100 * (1 / 1.2 - 1), abs=0.5)


def test_the_unit_of_concentration_does_not_change_the_residuals():
    values = times() * (1 + 0.03 * np.sin(np.arange(14)))
    one, other = (
        check_rate_linearity(CONCENTRATIONS, values),
        check_rate_linearity(1000 * CONCENTRATIONS, values),
    )
    np.testing.assert_allclose(one.residuals_percent, other.residuals_percent, rtol=1e-9)
    order = np.random.default_rng(4).permutation(14)
    shuffled = check_rate_linearity(CONCENTRATIONS[order], values[order])
    np.testing.assert_allclose(shuffled.residuals_percent, one.residuals_percent[order], rtol=1e-9)


def test_a_very_certain_sphere_does_not_pull_the_line_alone():
    values = times()
    values[0] *= 1.1
    errors = np.full(14, 0.02) * values
    errors[0] = 1e-9
    assert check_rate_linearity(CONCENTRATIONS, values, errors).rms_percent < 5


@pytest.mark.parametrize(
    ("concentrations", "values"),
    [
        ([], []),
        ([1.0], [100.0]),
        ([1, 2, 3], [100, 50, 33]),
        ([1, 1, 1, 1], [100, 100, 100, 100]),
        ([1, 2, 3, math.nan], [100, 50, 33, 25]),
        ([1, 2, 3, 4], [100, 50, 0, -5]),
        ([1, 2, 3, 4], [math.nan] * 4),
        ([1, 2, 3, -4], [100, 50, 33, 25]),
    ],
)
def test_too_little_for_a_line(concentrations, values):
    line = check_rate_linearity(concentrations, values)
    assert math.isnan(line.rms_percent)
    assert "fewer than 4" in line.reason
    verdict = judge_rate_linearity(line, TOLERANCES, quantity="T1", plate="5")
    assert verdict.status is Status.NOT_EVALUATED
    assert "fewer than 4" in verdict.reason


def test_a_line_below_zero_is_no_result():
    line = check_rate_linearity([0.1, 1, 2, 3], [1e6, 1000, 100, 1])
    assert math.isnan(line.rms_percent) or np.all(np.isfinite(line.residuals_percent))


def test_arrays_of_different_length():
    with pytest.raises(ConfigError, match="one length"):
        check_rate_linearity([1, 2, 3, 4], [1, 2, 3])
    with pytest.raises(ConfigError, match="one length"):
        check_rate_linearity([[1, 2], [3, 4]], [[1, 2], [3, 4]])


def test_judged_line_names_the_worst_sphere():
    values = times()
    values[5] *= 2
    line = check_rate_linearity(CONCENTRATIONS, values)
    verdict = judge_rate_linearity(
        line, TOLERANCES, quantity="T1", plate="5", spheres=[str(i) for i in range(1, 15)]
    )
    assert verdict.status is Status.FAIL
    assert "sphere 6 stands -" in verdict.reason
    assert "14 spheres" in verdict.reason
    assert verdict.subject.startswith("plate 5, T1")


# --- a published multi-site table -------------------------------------------------------------------------


def test_the_multi_site_table_is_judged_sensibly(shared_data):
    """38 data sets of the 2020 challenge: within the protocol's range most spheres pass.

    Spheres 1-7 lie within the inversion times of that protocol, spheres 11-14 do not: their values
    are wrong by tens of per cent, and nothing may pass there.
    """
    phantom = load_phantom("caliber-system")
    counts: dict[int, Counter[Status]] = {sphere: Counter() for sphere in range(1, 15)}
    with (shared_data / "tables" / "rrsg_t1_tidy.csv").open(encoding="utf-8", newline="") as file:
        table = [row for row in csv.DictReader(file) if row["sample"] == "NIST"]
    for row in table:
        found = reference_values(
            phantom,
            5,
            "T1",
            field_strength_T=float(row["field"]),
            temperature_C=float(row["temp"]),
            serial=row["serial"],
        )
        reference = next(v for v in found if v.sphere == row["sphere"])
        measurement = t1(
            value=float(row["mean"]), u=float(row["sd"]) / math.sqrt(float(row["n"])), region=row["sphere"]
        )
        verdict = judge_sphere(attach_reference(measurement, reference), TOLERANCES, reference=reference)
        counts[int(row["sphere"])][verdict.status] += 1
    for sphere in range(1, 8):
        assert counts[sphere][Status.PASS] > 0.5 * counts[sphere].total()
        assert counts[sphere][Status.FAIL] < 0.25 * counts[sphere].total()
    for sphere in range(11, 15):
        assert counts[sphere][Status.PASS] == 0
