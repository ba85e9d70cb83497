"""The simulated diffusion series of a cord: its tensors, its noise, its motion."""

from __future__ import annotations

import numpy as np
import pytest

from cordqa.errors import InputError
from cordqa.models.diffusion.gaussian import axial_tensor, gaussian_signal
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.diffusion.tensor import fit_tensor
from cordqa.simulate.cord.diffusion import CordDwi, cord_scheme, simulate_cord_dwi

SCHEME = cord_scheme(directions=24)
SMALL = {"shape": (32, 32, 3)}


def test_gaussian_signal_of_every_shape():
    tensor = axial_tensor(np.array([0.0, 0.0, 2.0]), along_um2_ms=2.0, across_um2_ms=0.5)
    np.testing.assert_allclose(np.diag(tensor), (0.5, 0.5, 2.0))
    table = GradientTable(
        b_values_s_mm2=np.array([0.0, 1000.0, 1000.0, 1000.0, 1000.0]),
        directions=np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1.0]]),
        b_delta=np.array([1.0, 1.0, 1.0, 0.0, -0.5]),
    )
    # Along, across, spherical (mean diffusivity), and planar across the axis.
    np.testing.assert_allclose(gaussian_signal(table, tensor), np.exp([0, -2.0, -0.5, -1.0, -0.5]))
    assert gaussian_signal(table, np.stack([tensor] * 4)).shape == (4, 5)


def test_white_matter_has_the_tensor_of_a_cord():
    truth = simulate_cord_dwi(SCHEME, CordDwi(**SMALL, snr=1e5, blur_mm=0.0), seed=0)
    white = truth.white > 0.999
    maps = fit_tensor(truth.data[white], SCHEME).maps.values
    assert 0.55 < np.median(maps["FA"]) < 0.85
    assert 700 < np.median(maps["MD"]) < 1200  # um2/s


def test_noise_is_that_of_a_magnitude_and_seeded():
    scan = CordDwi(**SMALL, snr=20)
    first, second = (simulate_cord_dwi(SCHEME, scan, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.data, second.data)
    assert not np.array_equal(first.data, simulate_cord_dwi(SCHEME, scan, seed=4).data)
    cord = first.cord > 0.99
    noise = (first.data - first.clean)[cord][:, SCHEME.is_b0]
    assert noise.std() == pytest.approx(first.sigma, rel=0.1)
    assert first.sigma == pytest.approx(500 / 20)


def test_motion_moves_the_cord_as_told():
    shift = np.zeros((len(SCHEME), 3, 2))
    shift[1:, 1] = (1.8, -0.9)
    truth = simulate_cord_dwi(SCHEME, CordDwi(**SMALL, snr=1e5, shift_mm=shift), seed=0)
    still = simulate_cord_dwi(SCHEME, CordDwi(**SMALL, snr=1e5), seed=0)
    # Whole voxels: two to the right and one back.
    moved = np.roll(still.data[:, :, 1, 5], (2, -1), axis=(0, 1))
    np.testing.assert_allclose(truth.data[4:-4, 4:-4, 1, 5], moved[4:-4, 4:-4], atol=2.0)
    np.testing.assert_allclose(truth.shift_voxels[5, 1], (2.0, -1.0))
    np.testing.assert_allclose(truth.data[:, :, 0], still.data[:, :, 0], atol=0.2)
    np.testing.assert_array_equal(truth.clean, still.clean)


def test_dropouts_and_turns():
    truth = simulate_cord_dwi(SCHEME, CordDwi(**SMALL, snr=1e5, dropouts={(2, 7): 0.5}), seed=0)
    np.testing.assert_allclose(truth.data[..., 2, 7], 0.5 * truth.clean[..., 2, 7], atol=0.5)
    assert np.argwhere(truth.dropped).tolist() == [[2, 7]]
    turn = np.zeros(len(SCHEME))
    turn[3] = 180.0
    upright = CordDwi(**SMALL, snr=1e5, tilt=(0.0, 0.0))
    still = simulate_cord_dwi(SCHEME, upright, seed=0)
    turned = simulate_cord_dwi(SCHEME, CordDwi(**SMALL, snr=1e5, tilt=(0.0, 0.0), turn_deg=turn), seed=0)
    # Half a turn shows the cord upside down, and a direction and its opposite are the same.
    np.testing.assert_allclose(turned.data[..., 3], still.data[::-1, ::-1, :, 3], atol=0.5)


def test_scheme_and_wrong_motion():
    table = cord_scheme(directions=10, b_values_s_mm2=(700.0, 1400.0), every=5)
    assert len(table) == 24
    assert table.is_b0.sum() == 4
    np.testing.assert_allclose(np.linalg.norm(table.directions[~table.is_b0], axis=1), 1.0)
    with pytest.raises(InputError, match="the motion does not belong"):
        simulate_cord_dwi(table, CordDwi(shift_mm=np.zeros((3, 10, 2))), seed=0)
