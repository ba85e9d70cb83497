"""Which sphere is which: agreement with the reference, and refusal where it is not clear."""

from __future__ import annotations

import numpy as np
import pytest
from locate_helpers import REFERENCE_MS, SYSTEM

from cordqa.errors import AmbiguousLabelsError, InputError
from cordqa.phantom.label import MINIMUM_MARGIN, MINIMUM_SCORE, UnclearLabelsError, choose_labels
from cordqa.phantom.pose import find_symmetries

ORDERS = np.array([order for _, order in find_symmetries(SYSTEM.positions_mm, SYSTEM.kinds)])
NICKEL = np.log(REFERENCE_MS["T1 NiCl2 1.5"])
MANGANESE = np.log(REFERENCE_MS["T1 MnCl2 1.5"])


def candidates(values, true):
    """Values under every labelling, if ``true`` is the right one."""
    measured = np.empty(len(values))
    measured[ORDERS[true]] = values
    return measured[ORDERS]


@pytest.mark.parametrize("name", REFERENCE_MS)
@pytest.mark.parametrize("true", range(4))
def test_exact_values(name, true):
    reference = np.log(REFERENCE_MS[name])
    choice = choose_labels(candidates(reference, true), reference)
    assert choice.index == true
    assert choice.score == pytest.approx(14 / 18)
    assert choice.margin > 0.4
    assert choice.scores[choice.runner_up] == pytest.approx(choice.score - choice.margin)
    assert choice.common_factor == pytest.approx(1.0)
    np.testing.assert_allclose(choice.agreement, 1.0)


@pytest.mark.parametrize("factor", [0.78, 1.25])
def test_a_common_factor_is_forgiven(factor):
    choice = choose_labels(candidates(NICKEL + np.log(factor), 2), NICKEL)
    assert choice.index == 2
    assert choice.common_factor == pytest.approx(factor, rel=0.02)
    assert choice.score > 0.75


@pytest.mark.parametrize("factor", [1e-3, 0.1, 10, 1e3])
def test_wrong_unit_is_refused(factor):
    with pytest.raises(UnclearLabelsError):
        choose_labels(candidates(NICKEL + np.log(factor), 0), NICKEL)


@pytest.mark.parametrize("true", range(4))
def test_long_times_out_of_range(true):
    """Four spheres beyond the protocol's range hold anything; the others decide."""
    values = NICKEL.copy()
    values[:4] = np.log([5000, 300, 5000, 40.0])
    assert choose_labels(candidates(values, true), NICKEL).index == true
    values[:4] = np.nan
    assert choose_labels(candidates(values, true), NICKEL).index == true


def test_wrong_plate_is_refused():
    with pytest.raises(UnclearLabelsError, match="which sphere is which") as caught:
        choose_labels(candidates(MANGANESE, 1), NICKEL, where="scan 4")
    error = caught.value
    assert isinstance(error, AmbiguousLabelsError)
    assert error.code == "locate.ambiguous"
    assert str(error).startswith("scan 4: ")
    assert error.choice.score < MINIMUM_SCORE


def test_equal_values_are_refused():
    with pytest.raises(UnclearLabelsError) as caught:
        choose_labels(np.full((4, 14), np.log(300.0)), np.full(14, np.log(300.0)))
    assert caught.value.choice.margin == 0
    assert caught.value.choice.score > MINIMUM_SCORE


@pytest.mark.parametrize("known", [[], [0], [0, 5], [0, 1, 2], [3, 4, 5, 6]])
def test_few_values_are_refused(known):
    values = np.full(14, np.nan)
    values[known] = NICKEL[known]
    with pytest.raises(UnclearLabelsError, match=f"{len(known)} of 14"):
        choose_labels(candidates(values, 0), NICKEL)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_count_as_missing(value):
    values = NICKEL.copy()
    values[:3] = value
    choice = choose_labels(candidates(values, 3), NICKEL)
    assert choice.index == 3
    assert choice.agreement[:3].tolist() == [0, 0, 0]


def test_uncertain_values_count_less():
    values = NICKEL.copy()
    values[:9] = np.log(np.random.default_rng(0).uniform(8, 4000, 9))
    spread = np.full(14, 0.05)
    spread[:9] = 3.0
    with pytest.raises(UnclearLabelsError):
        choose_labels(candidates(values, 1), NICKEL)
    choice = choose_labels(candidates(values, 1), NICKEL, log_uncertainty=candidates(spread, 1))
    assert choice.index == 1
    spread[:9] = np.nan
    choice = choose_labels(candidates(values, 1), NICKEL, log_uncertainty=candidates(spread, 1))
    assert choice.index == 1


def test_missing_reference():
    reference = NICKEL.copy()
    reference[10:] = np.nan
    assert choose_labels(candidates(NICKEL, 2), reference).index == 2


def test_callable_and_single_candidate():
    offers = candidates(NICKEL, 3)
    assert choose_labels(lambda index: offers[index], NICKEL, n_candidates=4).index == 3
    with pytest.raises(InputError, match="number of candidates"):
        choose_labels(lambda index: offers[index], NICKEL)
    alone = choose_labels(NICKEL[None], NICKEL)
    assert (alone.index, alone.runner_up) == (0, 0)
    assert alone.margin == alone.score


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        (np.zeros((4, 13)), NICKEL),
        (np.zeros(14), NICKEL),
        (np.zeros((0, 14)), NICKEL),
        (np.zeros((4, 14)), np.zeros((1, 14))),
        (np.zeros((4, 0)), np.zeros(0)),
    ],
)
def test_shapes_are_checked(values, reference):
    with pytest.raises(InputError):
        choose_labels(values, reference)


@pytest.mark.parametrize("values", [[[1.0, 2.0], [1.0]], [["a"] * 14], None])
def test_values_must_be_numbers(values):
    with pytest.raises(InputError):
        choose_labels(values, NICKEL)


def test_shape_of_the_uncertainty_is_checked():
    with pytest.raises(InputError, match="uncertainties"):
        choose_labels(np.zeros((4, 14)), NICKEL, log_uncertainty=np.zeros(14))


def test_limits_are_arguments():
    offers = candidates(NICKEL, 0)
    with pytest.raises(UnclearLabelsError):
        choose_labels(offers, NICKEL, minimum_margin=0.7)
    with pytest.raises(UnclearLabelsError):
        choose_labels(offers, NICKEL, minimum_score=0.8)
    assert 0 < MINIMUM_MARGIN < MINIMUM_SCORE < 14 / 18
