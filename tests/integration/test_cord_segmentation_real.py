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


LIMITS = {
    "T2w": 0.97,
    "T2*w": 0.95,
    "MT-on": 0.95,
    "MT-off": 0.93,
    "sub-05 MT-on": 0.92,
    "sub-05 MT-off": 0.92,
}


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_dice(scores, name):
    assert scores[name].dice >= LIMITS[name]


@pytest.mark.parametrize("name", ["T2w", "T2*w", "MT-on", "sub-05 MT-on", "sub-05 MT-off"])
def test_centreline(scores, name):
    assert scores[name].centre_mean_mm < 0.6


def test_area_on_t2w(scores):
    assert abs(scores["T2w"].area_bias) < 0.05


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
