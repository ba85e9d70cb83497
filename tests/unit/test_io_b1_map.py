"""A transmit field comes as a ratio or in percent, and a map of angles looks like percent."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.io.maps import read_b1_map


def saved(folder: Path, value: float) -> Path:
    path = folder / "b1.nii.gz"
    nib.Nifti1Image(np.full((2, 2, 2), value, dtype=np.float32), np.eye(4)).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("value", "units", "ratio"),
    [
        (0.9, "", 0.9),
        (0.9, "arbitrary", 0.9),
        (0.9, "ratio", 0.9),
        (45.0, "percent", 0.45),
        (90.0, "p.u.", 0.9),
    ],
)
def test_a_ratio_and_what_is_said_to_be_percent_need_no_assumption(value, units, ratio, tmp_path):
    found = read_b1_map(saved(tmp_path, value), units=units)
    np.testing.assert_allclose(found.values, ratio, rtol=1e-6)
    assert not found.assumed


def test_numbers_about_a_hundred_are_percent_and_that_is_said(tmp_path):
    found = read_b1_map(saved(tmp_path, 90.0))
    np.testing.assert_allclose(found.values, 0.9, rtol=1e-6)
    assert "read as percent" in found.assumed


@pytest.mark.parametrize(
    ("value", "units", "words"),
    [
        (90.0, "degrees", "holds flip angles"),
        (50.0, "", "no relative transmit field"),  # 50 degrees of 60
        (800.0, "", "divide a map of flip angles"),
        (0.9, "percent", "Units percent"),
        (90.0, "ratio", "Units ratio"),
    ],
)
def test_what_is_neither_is_refused(value, units, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_b1_map(saved(tmp_path, value), units=units)
