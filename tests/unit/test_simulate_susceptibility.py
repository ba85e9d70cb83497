import math

import numpy as np
import pytest
from helpers_susceptibility import brain, cord

from cordqa.simulate.susceptibility import SusceptibilityScanner, simulate_brain, simulate_cord

SMALL = {"shape": (24, 24, 20), "voxel_size_mm": (6.0, 6.0, 6.0)}


@pytest.mark.parametrize("make", [brain, cord])
def test_truth_is_consistent(make):
    scan = make()
    assert scan.mask.any()
    assert np.allclose(scan.chi_ppm, scan.chi_para_ppm + scan.chi_dia_ppm)
    assert scan.chi_para_ppm.min() >= 0
    assert scan.chi_dia_ppm.max() <= 0
    assert np.allclose(scan.r2_prime_per_s, 137 * (scan.chi_para_ppm - scan.chi_dia_ppm), atol=1e-6)
    # Background dominates, as it does in a scan.
    assert scan.total_field_ppm[scan.mask].std() > 3 * scan.local_field_ppm[scan.mask].std()
    assert np.abs(scan.phase).max() <= np.pi + 1e-5


def test_the_seed_decides():
    one, same, other = (simulate_brain(seed=s, **SMALL) for s in (1, 1, 2))
    assert np.array_equal(one.phase, same.phase)
    assert not np.array_equal(one.chi_ppm, other.chi_ppm)


def test_noise_has_the_stated_size():
    clean = simulate_brain(seed=1, scanner=SusceptibilityScanner(snr=math.inf), **SMALL)
    scan = simulate_brain(seed=1, scanner=SusceptibilityScanner(snr=25.0), **SMALL)
    difference = scan.magnitude * np.exp(1j * scan.phase) - clean.magnitude * np.exp(1j * clean.phase)
    assert clean.noise_sd == 0
    assert difference.real.std() == pytest.approx(scan.noise_sd, rel=0.03)
    assert difference.imag.std() == pytest.approx(1 / 25, rel=0.03)


def test_phase_follows_the_field_with_its_sign():
    scanner = SusceptibilityScanner(snr=math.inf, echo_times_s=(0.002, 0.003), offset_rad=1.0)
    scan = simulate_brain(seed=1, scanner=scanner, **SMALL)
    step = np.angle(np.exp(1j * (scan.phase[..., 1] - scan.phase[..., 0])))[scan.mask]
    expected = 2 * np.pi * 42.577478518 * 3 * 0.001 * scan.total_field_ppm[scan.mask]
    assert np.corrcoef(step, expected)[0, 1] > 0.98
    assert np.polyfit(expected, step, 1)[0] == pytest.approx(1, abs=0.1)


def test_a_cord_is_cut_by_the_image_and_a_brain_is_not():
    assert cord().mask[:, :, 0].any()
    assert cord().mask[:, :, -1].any()
    edge = brain().mask.copy()
    edge[1:-1, 1:-1, 1:-1] = False
    assert not edge.any()


def test_turning_the_main_field_changes_the_field_and_not_the_tissue():
    up, tilted = (
        simulate_cord(
            seed=2, shape=(32, 32, 12), voxel_size_mm=(2, 2, 3),
            scanner=SusceptibilityScanner(b0_direction=d, snr=math.inf),
        )
        for d in ((0, 0, 1), (0, 1, 1))
    )  # fmt: skip
    assert np.array_equal(up.chi_ppm, tilted.chi_ppm)
    assert np.abs(up.local_field_ppm - tilted.local_field_ppm)[up.mask].max() > 1e-3
