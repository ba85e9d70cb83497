"""The built-in segmentation against the masks that come with real images.

``benchmarks/cord_segmentation.py`` prints the same scores as a table.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cordqa.cord.segment import DISAGREES, segment_cord
from cordqa.errors import InputError
from cordqa.io.volumes import read_volume

pytestmark = pytest.mark.data


def _benchmark():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "cord_segmentation.py"
    spec = importlib.util.spec_from_file_location("cord_segmentation_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores(shared_data):
    benchmark = _benchmark()
    return {name: benchmark.score(shared_data / "cord", name) for name in benchmark.IMAGES}


#: What the engine is meant to reach, and does.
REACHED = {"T2w": 0.97, "T2*w": 0.95, "MT-off moved": 0.93, "sub-05 MT-on": 0.92}
#: What has no aim, or is not reached, each with the reason; the limit keeps it from getting worse.
#: MT-on (aim 0.95) is reached only just: on the lowest slice the mask leaves out a dorsal part that no
#: edge separates from the cord.
#: MT-off (0.93): the mask is that of MT-on, from which the cord lies 1.1 mm away; that mask, moved by as
#: much, has a Dice of 0.852 with itself (see test_mask_of_another_position).
#: sub-05 MT-off (0.92): cord and CSF look alike on the three uppermost slices, where the mask itself jumps.
#: Mean DWI and b=0 have masks of another program; in b=0 cord and CSF look alike on the lower ten slices.
SO_FAR = {"MT-on": 0.945, "MT-off": 0.83, "sub-05 MT-off": 0.905, "mean DWI": 0.955, "mean b=0": 0.82}


@pytest.mark.parametrize(("name", "least"), sorted((REACHED | SO_FAR).items()))
def test_dice(scores, name, least):
    assert scores[name].dice >= least


def test_mask_of_another_position(scores, shared_data):
    ceiling = _benchmark().ceiling(shared_data / "cord")
    assert 0.83 < ceiling < 0.87
    assert abs(scores["MT-off"].dice - ceiling) < 0.03


@pytest.mark.parametrize(("name", "least"), [("mean DWI", 15), ("mean b=0", 13), ("sub-05 MT-off", 20)])
def test_slices_found(scores, name, least):
    assert scores[name].found >= least


@pytest.mark.parametrize(
    ("name", "slices", "least"),
    [("dmri_testing/dmri_dwi_mean", 4, 0.82), ("dmri_testing/dmri_b0_mean", 5, 0.88)],
    ids=["mean DWI", "mean b=0"],
)
def test_noisy_diffusion_images(shared_data, name, slices, least):
    folder = shared_data / "cord" / "sct-reference"
    found = segment_cord(read_volume(folder / f"{name}.nii.gz"))
    given = read_volume(folder / "dmri_testing" / "dmri_dwi_mean_seg.nii.gz").data > 0.5
    hard = found.mask > 0.5
    assert hard.any(axis=(0, 1)).sum() >= slices
    assert 2.0 * (hard & given).sum() / (hard.sum() + given.sum()) >= least


@pytest.mark.parametrize(
    "name", ["T2w", "T2*w", "MT-on", "MT-off moved", "sub-05 MT-on", "sub-05 MT-off", "mean DWI"]
)
def test_centreline(scores, name):
    assert scores[name].centre_mean_mm < 0.6


@pytest.mark.parametrize("name", ["T2w", "T2*w"])
def test_area(scores, name):
    assert abs(scores[name].area_bias) < 0.05


@pytest.mark.parametrize(("name", "seconds"), [("T2w", 5.0), ("sub-05 MT-on", 10.0), ("sub-05 MT-off", 10.0)])
def test_time(scores, name, seconds):
    assert scores[name].seconds < seconds


@pytest.mark.parametrize("name", ["tutorial/mt/mt1", "testing/t2/t2"])
def test_classical_detector_agrees(shared_data, name):
    found = segment_cord(read_volume(shared_data / "cord" / f"{name}.nii.gz"))
    assert np.mean([DISAGREES in flags for flags in found.flags]) < 0.2


def test_a_series_of_volumes_is_refused(shared_data):
    volume = read_volume(shared_data / "cord" / "testing" / "dmri" / "dmri.nii.gz")
    with pytest.raises(InputError, match="three dimensions"):
        segment_cord(volume)
