"""A real diffusion series of the cord, beside what the Spinal Cord Toolbox made of it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers_dwi import left_out_residual

from cordqa.cord.dwi_preprocess import preprocess_dwi
from cordqa.cord.motion import estimate_motion
from cordqa.io.volumes import read_volume
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.preprocess_prediction import left_out_matrix


class Tutorial:
    """Series, masks and the toolbox's shifts, with arrays in the order of the file."""

    def __init__(self, shared: Path) -> None:
        data, reference = shared / "cord/tutorial/dmri", shared / "cord/sct-reference/dmri_tutorial"
        series = read_volume(data / "dmri.nii.gz")
        self.data, self.affine = np.asarray(series.data, dtype=float), series.affine
        self.spacing = tuple(float(step) for step in series.spacing_mm[:3])
        self.table = GradientTable.linear(np.loadtxt(data / "bvals.txt"), np.loadtxt(data / "bvecs.txt").T)
        self.cord = np.asarray(read_volume(reference / "dmri_moco_dwi_mean_seg.nii.gz").data) > 0.5
        self.wide = np.asarray(read_volume(reference / "mask_dmri_dwi_mean.nii.gz").data) > 0.5
        self.moco = np.asarray(read_volume(reference / "dmri_moco.nii.gz").data, dtype=float)
        x, y = (
            np.asarray(read_volume(reference / f"moco_params_{axis}.nii.gz").data, dtype=float)[0, 0].T
            for axis in "xy"
        )
        # The toolbox's millimetres follow axes of its own; these signs are the ones that align the series.
        self.toolbox = np.stack([x / self.spacing[0], -y / self.spacing[1]], axis=-1)

    def residual(self, shift: np.ndarray, weighted: bool) -> float:
        chosen = ~self.table.is_b0 if weighted else self.table.is_b0
        return left_out_residual(self.data, shift, self.cord, left_out_matrix(self.table), chosen)


@pytest.fixture(scope="module")
def tutorial(shared_data: Path) -> Tutorial:
    return Tutorial(shared_data)


def test_motion_correction_is_quick_and_no_worse_than_the_toolbox(tutorial: Tutorial) -> None:
    start = time.thread_time()
    motion = estimate_motion(tutorial.data, tutorial.wide, tutorial.table, spacing_mm=tutorial.spacing)
    assert time.thread_time() - start < 5.0
    none = np.zeros_like(motion.shift_voxels)
    for weighted in (True, False):
        ours = tutorial.residual(motion.shift_voxels, weighted)
        theirs = tutorial.residual(tutorial.toolbox, weighted)
        assert ours < theirs < tutorial.residual(none, weighted)


def test_chain_on_real_data(tutorial: Tutorial) -> None:
    start = time.thread_time()
    done = preprocess_dwi(tutorial.data, tutorial.affine, tutorial.table, tutorial.cord)
    assert time.thread_time() - start < 5.0
    b0, cord = tutorial.table.is_b0, tutorial.cord
    before, after = (x[cord][:, b0].mean() / x[cord][:, ~b0].mean() for x in (tutorial.data, done.data))
    assert after == pytest.approx(before, rel=5e-3)
    stability = [
        np.median(x[cord][:, b0].mean(axis=1) / x[cord][:, b0].std(axis=1, ddof=1))
        for x in (tutorial.data, tutorial.moco, done.data)
    ]
    assert stability[2] > max(stability[:2])
    assert done.outlier.mean() < 0.01
    assert 2.0 < np.nanmedian(done.noise.snr["b = 800 s/mm2"]) < 6.0
    assert np.abs(done.motion.shift_voxels).max() < 1.0


def test_exactly_determined_scheme_says_what_it_cannot_judge(shared_data: Path) -> None:
    folder = shared_data / "cord/testing/dmri"
    series = read_volume(folder / "dmri.nii.gz")
    mask = read_volume(shared_data / "cord/sct-reference/dmri_testing/dmri_dwi_mean_seg.nii.gz")
    table = GradientTable.linear(np.loadtxt(folder / "bvals.txt"), np.loadtxt(folder / "bvecs.txt"))
    done = preprocess_dwi(np.asarray(series.data), series.affine, table, np.asarray(mask.data))
    words = " ".join(done.notices)
    assert "slices at b = 750 s/mm2 were not judged" in words
    assert "no contrast has enough volumes for a noise level" in words
    assert np.abs(done.motion.shift_voxels).max() < 1.5
