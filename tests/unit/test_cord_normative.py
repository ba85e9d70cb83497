"""Normative scores: planted effects, coverage of intervals, real people, and people who cannot be scored."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from cordqa.cord.normative import attach_score, fit_normative, score_person
from cordqa.errors import EmptyInputError, InputError
from cordqa.records import Measurement

VENDORS = ("GE", "Philips", "Siemens")


def controls(n=400, seed=0, sd=6.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 60, n)
    sex = rng.choice(["M", "F"], n)
    vendor = rng.choice(VENDORS, n)
    shift = np.array([{"GE": -3.0, "Philips": 0.0, "Siemens": 3.0}[v] for v in vendor])
    value = 72.0 - 0.1 * (age - 40) + np.where(sex == "M", 2.5, -2.5) + shift + rng.normal(0, sd, n)
    return value, age, sex.tolist(), vendor.tolist()


def test_planted_effects_are_recovered():
    value, age, sex, vendor = controls(n=20_000)
    model = fit_normative(value, age_years=age, sex=sex, vendor=vendor)
    expected = score_person(model, 70.0, age_years=50.0, sex="M", vendor="Siemens").expected
    assert expected == pytest.approx(72.0 - 1.0 + 2.5 + 3.0, abs=0.3)
    assert score_person(model, 70.0, age_years=50.0, sex="F", vendor="GE").expected == pytest.approx(
        65.5, abs=0.3
    )
    assert model.residual_sd == pytest.approx(6.0, rel=0.03)


def test_prediction_interval_covers_new_people_even_with_few_controls():
    inside, total = 0, 0
    scores = []
    for seed in range(120):
        value, age, sex, vendor = controls(n=22 + 10, seed=seed)
        model = fit_normative(value[:22], age_years=age[:22], sex=sex[:22], vendor=vendor[:22])
        for i in range(22, 32):
            if vendor[i] not in model.vendors:
                continue
            score = score_person(model, value[i], age_years=age[i], sex=sex[i], vendor=vendor[i])
            inside += score.low <= value[i] <= score.high
            total += 1
            scores.append(score.z)
    assert inside / total == pytest.approx(0.95, abs=0.02)
    assert np.std(scores) == pytest.approx(1.0, abs=0.08)


def test_order_and_unit_do_not_matter():
    value, age, sex, vendor = controls(n=60)
    order = np.random.default_rng(3).permutation(60)
    a = fit_normative(value, age_years=age, sex=sex, vendor=vendor)
    b = fit_normative(
        value[order] * 10,
        age_years=age[order],
        sex=[sex[i] for i in order],
        vendor=[vendor[i] for i in order],
    )
    one = score_person(a, 60.0, age_years=33, sex="f", vendor="GE")
    ten = score_person(b, 600.0, age_years=33, sex="F", vendor="GE")
    assert one.z == pytest.approx(ten.z)
    assert ten.expected == pytest.approx(10 * one.expected)


def test_what_is_missing_is_said():
    value, age, sex, vendor = controls(n=60)
    model = fit_normative(value, age_years=age, sex=sex, vendor=vendor)
    for kwargs, text in (
        ({"age_years": math.nan, "sex": "M"}, "age"),
        ({"age_years": 30.0, "sex": ""}, "sex"),
    ):
        score = score_person(model, 70.0, **kwargs)
        assert math.isnan(score.z)
        assert text in score.flags[0]
    assert math.isnan(score_person(model, math.nan, age_years=30.0, sex="M").z)
    other = score_person(model, 70.0, age_years=90.0, sex="M", vendor="Canon")
    assert math.isfinite(other.z)
    assert any("Canon" in flag for flag in other.flags)
    assert any("age beyond" in flag for flag in other.flags)


def test_far_out_values_keep_a_finite_score():
    value, age, sex, _ = controls(n=200)
    model = fit_normative(value, age_years=age, sex=sex)
    low = score_person(model, 10.0, age_years=40.0, sex="M")
    assert -15 < low.z < -7
    assert score_person(model, low.expected, age_years=40.0, sex="M").z == 0.0


def test_too_few_or_unusable_controls():
    value, age, sex, vendor = controls(n=12)
    with pytest.raises(EmptyInputError, match="too few"):
        fit_normative(value, age_years=age, sex=sex, vendor=vendor)
    with pytest.raises(EmptyInputError, match="too few"):
        fit_normative([], age_years=[], sex=[])
    with pytest.raises(InputError, match="one length"):
        fit_normative(value, age_years=age[1:], sex=sex)
    value, age, _, _ = controls(n=40)
    with pytest.raises(InputError, match="do not vary"):
        fit_normative(value, age_years=age, sex=["M"] * 40)
    for constant in (0.0, 70.0):
        with pytest.raises(InputError, match="do not vary"):
            fit_normative(np.full(40, constant), age_years=age, sex=["M", "F"] * 20)


def test_scores_enter_a_row():
    value, age, sex, _ = controls(n=200)
    model = fit_normative(value, age_years=age, sex=sex)
    row = Measurement(quantity="CSA", value=45.0, unit="mm2", level="C3")
    scored = attach_score(row, score_person(model, 45.0, age_years=40, sex="M"), source="200 controls")
    assert scored.reference_source == "200 controls"
    assert scored.reference_uncertainty > 5
    assert any("below the 95 %" in flag for flag in scored.flags)
    unknown = attach_score(row, score_person(model, 45.0, age_years=math.nan, sex="M"), source="200 controls")
    assert unknown.reference_source == ""
    assert math.isnan(unknown.reference)


@pytest.mark.data
def test_real_controls_are_covered_one_by_one(shared_data):
    with (shared_data / "tables" / "spine_generic_csa.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["level"] == "C2C3" and r["csa"] and r["age"]]
    rows = [r for r in rows if r["age"].replace(".", "").isdigit() and r["sex"] in "MF"]
    value = np.array([float(r["csa"]) for r in rows])
    age = np.array([float(r["age"]) for r in rows])
    sex, vendor = [r["sex"] for r in rows], [r["vendor"] for r in rows]
    assert len(rows) > 150
    inside = 0
    for i in range(len(rows)):
        keep = [n for n in range(len(rows)) if n != i]
        model = fit_normative(
            value[keep], age_years=age[keep], sex=[sex[n] for n in keep], vendor=[vendor[n] for n in keep]
        )
        score = score_person(model, value[i], age_years=age[i], sex=sex[i], vendor=vendor[i])
        inside += score.low <= value[i] <= score.high
    assert 0.91 <= inside / len(rows) <= 0.99
