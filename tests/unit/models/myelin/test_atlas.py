"""A group atlas: mean and spread where there are enough maps, coverage everywhere."""

import numpy as np
import pytest

from cordqa.errors import CordqaError
from cordqa.models.myelin.atlas import build_atlas


def test_mean_and_spread_are_those_of_the_group():
    rng = np.random.default_rng(0)
    maps = 1e4 + rng.normal(size=(12, 5, 4, 3))
    maps[rng.uniform(size=maps.shape) < 0.2] = np.nan
    atlas = build_atlas(iter(maps))
    n = np.isfinite(maps).sum(axis=0)
    enough = n >= 3
    np.testing.assert_allclose(atlas.mean[enough], np.nanmean(maps, axis=0)[enough], rtol=1e-12)
    np.testing.assert_allclose(atlas.sd[enough], np.nanstd(maps, axis=0, ddof=1)[enough], rtol=1e-9)
    assert np.array_equal(atlas.n, n)
    np.testing.assert_allclose(atlas.coverage, n / 12)
    np.testing.assert_allclose(atlas.standard_error[enough], (atlas.sd / np.sqrt(n))[enough])


def test_few_maps_give_no_mean():
    maps = np.ones((4, 2))
    maps[1:, 1] = np.nan
    atlas = build_atlas(maps, minimum=3)
    assert np.isnan(atlas.mean[1])
    assert atlas.n.tolist() == [4, 1]
    assert np.isnan(atlas.score([1.0, 1.0])).all()  # nothing varies, or nothing is known


def test_scores_of_new_people_have_the_spread_of_a_t():
    rng = np.random.default_rng(1)
    atlas = build_atlas(rng.normal(10, 2, (8, 20_000)))
    scores = atlas.score(rng.normal(10, 2, 20_000))
    # t with 7 degrees of freedom: 5 % beyond 2.365.
    assert np.mean(np.abs(scores) > 2.365) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(
    ("maps", "minimum", "words"),
    [
        ([np.ones(3)], 3, "too few maps"),
        ([], 3, "too few maps"),
        ([np.ones(3), np.ones(4), np.ones(3)], 3, "another grid"),
        ([np.ones(3)] * 3, 1, "two maps"),
    ],
)
def test_groups_that_are_none(maps, minimum, words):
    with pytest.raises(CordqaError, match=words):
        build_atlas(maps, minimum=minimum)


def test_a_map_of_another_grid_has_no_score():
    with pytest.raises(CordqaError, match="grid of the atlas"):
        build_atlas(np.ones((3, 4))).score(np.ones(5))
