"""Diffusion tensor of real cord scans, against the maps of the Spinal Cord Toolbox."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.tensor import fit_tensor

NEGATIVE = "an eigenvalue is negative"


def series(folder: Path, mask: str):
    data = nib.load(folder / "dmri_moco.nii.gz").get_fdata()
    directions = np.loadtxt(folder / "bvecs.txt")
    if directions.shape[0] == 3:
        directions = directions.T
    table = GradientTable.linear(np.loadtxt(folder / "bvals.txt").ravel(), directions)
    return data, table, nib.load(folder / mask).get_fdata() > 0.5


@pytest.mark.parametrize(
    ("name", "mask"),
    [("dmri_tutorial", "dmri_moco_dwi_mean_seg.nii.gz"), ("dmri_testing", "dmri_dwi_mean_seg.nii.gz")],
)
def test_the_tensor_is_that_of_sct(shared_data, name, mask):
    folder = shared_data / "cord" / "sct-reference" / name
    data, table, cord = series(folder, mask)
    fit = fit_tensor(data, table, mask=cord, uncertainty="none")
    # SCT clamps samples to 1e-4 and eigenvalues to zero; elsewhere the estimator is the same, and its
    # arithmetic and files are of 32 bits; 1e-9 mm2/s is a millionth of the mean diffusivity.
    same = cord & (data > 0).all(axis=-1) & fit.maps.reasons.ok
    positive = same & ~fit.maps.flags[NEGATIVE]
    assert positive.sum() >= 10
    theirs = {key: nib.load(folder / f"dti_{key}.nii.gz").get_fdata() for key in ("FA", "MD", "AD", "RD")}
    np.testing.assert_allclose(fit.maps.values["FA"][positive], theirs["FA"][positive], atol=1e-6, rtol=0)
    for key in ("MD", "AD", "RD"):
        np.testing.assert_allclose(
            fit.maps.values[key][positive] / 1e6, theirs[key][positive], atol=1e-9, rtol=1e-6
        )
    np.testing.assert_allclose(fit.maps.values["AD"][same] / 1e6, theirs["AD"][same], atol=1e-8, rtol=0)


def test_an_exactly_determined_scan_is_flagged_everywhere(shared_data):
    data, table, cord = series(
        shared_data / "cord" / "sct-reference" / "dmri_testing", "dmri_dwi_mean_seg.nii.gz"
    )
    fit = fit_tensor(data, table, mask=cord)
    counts = fit.maps.flag_counts()
    assert any(text.startswith("exactly determined") and n == cord.sum() for text, n in counts.items())
    assert counts[NEGATIVE] > 0.9 * cord.sum()
    assert np.isnan(fit.maps.standard_errors["FA"][cord]).all()


def test_a_real_cord_has_plausible_values_with_errors(shared_data):
    data, table, cord = series(
        shared_data / "cord" / "sct-reference" / "dmri_tutorial", "dmri_moco_dwi_mean_seg.nii.gz"
    )
    plain = fit_tensor(data, table, mask=cord)
    maps = plain.maps
    assert maps.reasons.ok[cord].all()
    assert 0.6 < np.median(maps.values["FA"][cord]) < 0.85
    assert 700 < np.median(maps.values["MD"][cord]) < 1500
    assert 0.02 < np.median(maps.standard_errors["FA"][cord]) < 0.2
    # Nine voxels hold samples that motion correction made negative.
    assert (cord & ~plain.used.all(axis=-1)).sum() == 9
    robust = fit_tensor(data, table, mask=cord, estimator="robust")
    assert 0 < robust.outliers[cord].mean() < 0.15
    axial = np.abs(plain.direction[cord][:, 2])
    assert np.median(axial) > 0.9
