"""The fits on real scans of the system phantom, with sphere centres given by hand.

Locating the spheres is tested elsewhere; here only the signal model is.  References are the
values of batch 1 at 20 C; serial number and temperature of these phantoms are not recorded.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from cordqa.models.relaxometry.inversion_recovery import fit_inversion_recovery
from cordqa.models.relaxometry.multi_echo import choose_slice_profile, fit_multi_echo
from cordqa.models.relaxometry.noise import correct_noise_floor, estimate_noise_floor
from cordqa.models.relaxometry.protocol_range import inversion_recovery_range, multi_echo_range

NI_T1_15T = np.array(
    [2033, 1489, 1012, 730.8, 514.1, 367.9, 260.1, 184.6, 132.7, 92.7, 65.4, 46.32, 32.45, 22.859]
)
NI_T1_3T = np.array(
    [1989, 1454, 984.1, 706, 496.7, 351.5, 247.13, 175.3, 125.9, 89.0, 62.7, 44.53, 30.84, 21.719]
)
NI_T2_15T = np.array(
    [1669, 1244, 859.3, 628.5, 446.3, 321.2, 227.7, 161.9, 117.1, 81.9, 57.7, 41, 28.7, 20.2]
)
NI_T2_3T = np.array(
    [1465, 1076, 717.9, 510.1, 359.6, 255.5, 180.8, 127.3, 90.3, 64.3, 45.7, 31.86, 22.38, 15.83]
)

# Plate centre (column, row) in pixels and rotation in degrees, by eye.
POSES = {
    "T1/site1_20200218/plate5": (96.0, 96.5, 0.0),
    "T1/site3_ge/plate5": (125.1, 125.8, -0.4),
    "T1/site5_philips_3T/plate5": (95.9, 95.2, -5.0),
    "T2/site3_ge/plate5": (129.9, 127.1, -0.4),
    "T2/site5_philips_3T/plate5": (97.9, 90.8, -5.0),
    "T2/site5_philips_3T/plate4": (97.7, 91.2, -4.9),
}


def sphere_positions_mm():
    ring = np.deg2rad(36.0 * np.arange(10))
    outer = 50.0 * np.stack([np.sin(ring), -np.cos(ring)], axis=1)
    inner = np.array([[-20.0, -20.0], [20.0, -20.0], [20.0, 20.0], [-20.0, 20.0]])
    return np.concatenate([outer, inner])


class Scan:
    def __init__(self, root: Path, name: str) -> None:
        pydicom = pytest.importorskip("pydicom")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = [pydicom.dcmread(path) for path in sorted((root / "phantom" / name).iterdir())]
            files.sort(key=lambda f: (float(getattr(f, "InversionTime", 0) or 0), float(f.EchoTime)))
            stored = np.array([f.pixel_array.astype(float) for f in files])
            slopes = [float(f[0x2005, 0x100E].value) if (0x2005, 0x100E) in f else 1.0 for f in files]
        self.images = stored / np.array(slopes)[:, None, None]
        self.ti = np.array([float(getattr(f, "InversionTime", 0) or 0) for f in files]) / 1000
        self.te = np.array([float(f.EchoTime) for f in files]) / 1000
        self.tr = np.array([float(f.RepetitionTime) for f in files]) / 1000
        column, row, rotation = POSES[name]
        spacing = float(files[0].PixelSpacing[0])
        c, s = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
        centres = sphere_positions_mm() @ np.array([[c, s], [-s, c]]) / spacing + [column, row]
        rows, columns = np.indices(stored.shape[1:])
        masks = [np.hypot(columns - x, rows - y) < 5.0 / spacing for x, y in centres]
        self.square = np.array([(self.images[:, mask] ** 2).mean(axis=1) for mask in masks])
        self.valid = np.array([(stored[:, mask] >= 4095).mean(axis=1) < 0.02 for mask in masks])
        corner = self.images[:, :20, :20]
        self.floor_square = np.where((corner == 0).mean() > 0.5, 0.0, (corner**2).mean(axis=(1, 2)))


def fit_t1(scan: Scan, **changes):
    settings = {"repetition_times_s": scan.tr, "echo_time_s": scan.te[0], "valid": scan.valid, **changes}
    signal = correct_noise_floor(scan.square, scan.floor_square)
    return fit_inversion_recovery(signal, scan.ti, **settings)


def error_percent(value_s, reference_ms):
    return np.abs(100 * (1000 * value_s / reference_ms - 1))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "reference", "limit"),
    [
        ("T1/site1_20200218/plate5", NI_T1_15T, 2.4),
        ("T1/site3_ge/plate5", NI_T1_15T, 5.3),
        ("T1/site5_philips_3T/plate5", NI_T1_3T, 3.2),
    ],
)
def test_t1_of_plate_5(shared_data, name, reference, limit):
    scan = Scan(shared_data, name)
    fit = fit_t1(scan)
    assert fit.ok.all()
    found = inversion_recovery_range(scan.ti, repetition_times_s=scan.tr, echo_time_s=scan.te[0])
    inside = found.contains(fit.parameters["t1_s"])
    assert inside.sum() >= 9
    assert np.median(error_percent(fit.parameters["t1_s"], reference)[inside]) < limit


@pytest.mark.data
def test_recovery_during_a_varying_tr_is_in_the_data(shared_data):
    """Reference-free: without the TR term the residuals of the long T1 are ten times larger."""
    scan = Scan(shared_data, "T1/site1_20200218/plate5")
    with_tr, without = fit_t1(scan), fit_t1(scan, repetition_times_s=None, echo_time_s=0.0)
    ratio = without.residual_sd[3:6] / with_tr.residual_sd[3:6]
    assert (ratio > 3).all()


@pytest.mark.data
def test_free_inversion_factor_is_in_the_data(shared_data):
    """Reference-free: one inversion efficiency below 1 explains all spheres of this scan."""
    scan = Scan(shared_data, "T1/site3_ge/plate5")
    free, fixed = fit_t1(scan), fit_t1(scan, inversion_angle_deg=180.0)
    assert np.median(fixed.residual_sd / free.residual_sd) > 5
    assert np.ptp(free.parameters["inversion_factor"][:12]) < 0.1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "reference", "limit"),
    [("T2/site3_ge/plate5", NI_T2_15T, 3.6), ("T2/site5_philips_3T/plate5", NI_T2_3T, 3.0)],
)
def test_t2_of_plate_5(shared_data, name, reference, limit):
    scan = Scan(shared_data, name)
    signal = np.sqrt(scan.square)
    floor = np.nan_to_num(estimate_noise_floor(signal), nan=np.sqrt(scan.floor_square.mean()))
    fit = fit_multi_echo(signal, scan.te, noise_floor=floor, valid=scan.valid)
    inside = multi_echo_range(scan.te).contains(fit.parameters["t2_s"])
    assert inside.sum() >= 9
    assert np.median(error_percent(fit.parameters["t2_s"], reference)[inside]) < limit


@pytest.mark.data
def test_phase_graph_with_slice_profile_explains_the_train(shared_data):
    """Reference-free: residuals fall several-fold against an exponential through all echoes."""
    scan = Scan(shared_data, "T2/site5_philips_3T/plate4")
    signal = np.sqrt(scan.square)
    floor = estimate_noise_floor(signal)
    profile = choose_slice_profile(signal, scan.te, t1_s=1.0, noise_floor=floor)
    epg = fit_multi_echo(signal, scan.te, model="epg", t1_s=1.0, noise_floor=floor, slice_profile=profile)
    exponential = fit_multi_echo(signal, scan.te, noise_floor=floor, skip_first=0)
    assert profile.name != "uniform"
    assert np.median(exponential.residual_sd / epg.residual_sd) > 4
