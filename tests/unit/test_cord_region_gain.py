"""The weight of every voxel in the value of a region."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.cord.estimators import LINEAR, estimate_region, region_gain
from cordqa.errors import InputError

RNG = np.random.default_rng(4)
WEIGHTS = RNG.dirichlet([0.5, 0.4, 0.3, 0.6], size=300).T
TISSUES = ((0, 1), (2,), (3,))
MEMBERS = (0, 1)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("holes", [False, True])
def test_the_gain_gives_the_value(method, holes):
    values = RNG.normal(2.0, 0.5, 300)
    if holes:
        values[RNG.choice(300, 40, replace=False)] = np.nan
    gain = region_gain(values, WEIGHTS, MEMBERS, method=method, tissues=TISSUES)
    value = estimate_region(values, WEIGHTS, MEMBERS, method=method, tissues=TISSUES).value
    assert gain @ np.nan_to_num(values) == pytest.approx(value, rel=1e-9)
    assert not gain[np.isnan(values)].any()


@pytest.mark.parametrize("method", LINEAR)
def test_errors_carried_by_it_are_those_of_repeated_noise(method):
    error = RNG.uniform(0.05, 0.4, 300)
    gain = region_gain(np.ones(300), WEIGHTS, MEMBERS, method=method, tissues=TISSUES)
    found = [
        estimate_region(1.0 + error * RNG.normal(size=300), WEIGHTS, MEMBERS, method=method, tissues=TISSUES)
        for _ in range(400)
    ]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.sqrt(gain**2 @ error**2) == pytest.approx(spread, rel=0.12)


def test_a_region_without_voxels_has_no_gain_and_a_median_none_at_all():
    empty = np.zeros((4, 5))
    assert np.isnan(region_gain(np.ones(5), empty, (0,), method="weighted mean")).all()
    with pytest.raises(InputError):
        region_gain(np.ones(5), empty, (0,), method="median")
