"""Values of regions: known answers, coverage of the uncertainty, and what cannot be known."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.workflow.fit.grid import Grid
from cordqa.workflow.fit.regions import read_regions, summarise_region

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def write(path, data, dtype=np.float32):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=dtype), AFFINE), path)
    return path


def grid(shape):
    return Grid(shape, AFFINE)


def test_known_answers():
    values = np.array([1.0, 2.0, 4.0, np.nan, 100.0])
    found = summarise_region(values, np.array([0.1, 0.2, 0.2, 0.5, 9.0]), np.array([1.0, 1.0, 2.0, 1.0, 0.0]))
    assert found.mean == pytest.approx(11 / 4)
    assert found.median == pytest.approx(3.0)  # half of the weight lies at or below 2
    assert found.sd == pytest.approx(math.sqrt((1.75**2 + 0.75**2 + 2 * 1.25**2) / 4))
    assert found.mean_error == pytest.approx(math.sqrt(0.1**2 + 0.2**2 + 4 * 0.2**2) / 4, rel=0.05)
    assert found.n_voxels == 3
    assert found.coverage == pytest.approx(4 / 5)


def test_equal_errors_average_down_and_no_further_than_stated():
    values, errors, weight = np.zeros(100), np.full(100, 2.0), np.ones(100)
    assert summarise_region(values, errors, weight).mean_error == pytest.approx(0.2)
    assert summarise_region(values, errors, weight, correlated_voxels=4).mean_error == pytest.approx(0.4)
    everything = summarise_region(values, errors, weight, correlated_voxels=1e6)
    assert everything.mean_error == everything.common_error == pytest.approx(2.0)


@pytest.mark.parametrize("block", [1, 8])
def test_the_stated_uncertainty_is_the_scatter_of_repeated_regions(block):
    """Independent voxels, and voxels that share their error in blocks of eight."""
    rng = np.random.default_rng(5)
    errors = rng.uniform(0.5, 2.0, 64 // block).repeat(block)
    weight = rng.uniform(0.2, 1.0, 64)
    means, medians = [], []
    for _ in range(4000):
        noise = rng.normal(0, errors[::block]).repeat(block)
        found = summarise_region(50 + noise, errors, weight, correlated_voxels=block)
        means.append(found.mean)
        medians.append(found.median)
    assert found.mean_error == pytest.approx(np.std(means), rel=0.1)
    if block == 1:
        # The factor of a normal distribution is an upper side for errors of unequal size.
        assert np.std(medians) * 0.9 < found.median_error < np.std(medians) * 1.5


def test_without_errors_there_is_no_uncertainty():
    found = summarise_region(np.ones(5), None, np.ones(5))
    assert math.isnan(found.mean_error)
    mostly_unknown = np.array([1.0, np.nan, np.nan, np.nan, np.nan])
    assert math.isnan(summarise_region(np.ones(5), mostly_unknown, np.ones(5)).mean_error)
    few_unknown = np.array([1.0, 1.0, 1.0, 1.0, np.nan])
    assert summarise_region(np.ones(5), few_unknown, np.ones(5)).mean_error == pytest.approx(1 / math.sqrt(5))


def test_nothing_in_a_region():
    for values, weight in ((np.full(3, np.nan), np.ones(3)), (np.empty(0), np.empty(0))):
        found = summarise_region(values, None, weight)
        assert math.isnan(found.mean)
        assert found.n_voxels == 0
    one = summarise_region(np.array([4.0]), np.array([0.5]), np.ones(1))
    assert (one.mean, one.median, one.sd, one.mean_error, one.median_error) == (4.0, 4.0, 0.0, 0.5, 0.5)


def test_labels_and_names(tmp_path):
    data = np.zeros((4, 3, 2))
    data[0], data[1] = 1, 7
    path = write(tmp_path / "tracts.nii.gz", data, np.int16)
    regions, _ = read_regions([path], grid(data.shape), resample=False)
    assert [region.name for region in regions] == ["tracts 1", "tracts 7"]
    assert [region.index.size for region in regions] == [6, 6]
    (tmp_path / "tracts.tsv").write_text("index\tname\n1\tleft\n7\tright\n")
    regions, _ = read_regions([path], grid(data.shape), resample=False)
    assert [region.name for region in regions] == ["left", "right"]


def test_shares_in_four_dimensions_and_in_three(tmp_path):
    shares = np.zeros((2, 2, 2, 2))
    shares[0, ..., 0], shares[..., 1] = 0.25, 0.5
    path = write(tmp_path / "wm.nii.gz", shares)
    regions, _ = read_regions([path], grid((2, 2, 2)), resample=False)
    assert [(r.name, r.weight.sum()) for r in regions] == [("wm 0", 1.0), ("wm 1", 4.0)]
    single = write(tmp_path / "soft.nii.gz", shares[..., 0])
    regions, _ = read_regions([single, path], grid((2, 2, 2)), resample=False)
    assert regions[0].name == "soft"


def test_same_names_are_told_apart(tmp_path):
    data = np.ones((2, 2, 2))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [write(tmp_path / side / f"{side}.nii.gz", data * 2, np.int16) for side in "ab"]
    for side in "ab":
        (tmp_path / side / f"{side}.tsv").write_text("index\tname\n2\tcord\n")
    regions, _ = read_regions(paths, grid(data.shape), resample=False)
    assert [region.name for region in regions] == ["a cord", "b cord"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((2, 2, 2), -1.0), "labels"),
        (np.linspace(0, 9, 8).reshape(2, 2, 2), "between 0 and 1"),
        (np.zeros((2, 2, 2)), "empty"),
        (np.full((2, 2, 2, 3), 2.0), "between 0 and 1"),
        (np.ones((3, 2, 2)), "another grid"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path, data, words):
    with pytest.raises(InputError, match=words):
        read_regions([write(tmp_path / "x.nii.gz", data)], grid((2, 2, 2)), resample=False)


def test_regions_of_another_grid_can_be_resampled(tmp_path):
    fine = np.zeros((8, 8, 4))
    fine[:4] = 1
    nib.save(nib.Nifti1Image(fine.astype(np.uint8), np.diag([0.5, 0.5, 1.5, 1.0])), tmp_path / "fine.nii.gz")
    regions, notices = read_regions([tmp_path / "fine.nii.gz"], grid((4, 4, 2)), resample=True)
    assert notices
    assert regions[0].weight.sum() == pytest.approx(16, rel=0.3)
    with pytest.raises(InputError, match="--resample"):
        read_regions([tmp_path / "fine.nii.gz"], grid((4, 4, 2)), resample=False)


def test_many_labels_are_those_of_a_comparison(tmp_path):
    data = np.random.default_rng(0).integers(0, 40, (6, 7, 8)).astype(float)
    data[0, 0, 0] = np.nan
    regions, _ = read_regions([write(tmp_path / "n.nii.gz", data)], grid(data.shape), resample=False)
    assert len(regions) == 39
    for region in regions:
        label = int(region.name.split()[1])
        np.testing.assert_array_equal(region.index, np.flatnonzero(data.reshape(-1) == label))
