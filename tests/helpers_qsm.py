"""Small gradient-echo scans with a known field, for tests of susceptibility mapping."""

from __future__ import annotations

import numpy as np

from cordqa.models.susceptibility.dipole import forward_field
from cordqa.models.susceptibility.physics import radians_per_ppm_second

TIMES = 0.004 * np.arange(1, 6)
AIR_PPM = 9.4


def ellipsoid(shape: tuple[int, ...], radii: tuple[float, ...], centre: tuple[float, ...] | None = None):
    """Voxels inside an ellipsoid, in voxels."""
    middle = centre if centre is not None else tuple((n - 1) / 2 for n in shape)
    at = np.indices(shape, dtype=float)
    return sum(((at[a] - middle[a]) / radii[a]) ** 2 for a in range(3)) <= 1


def echoes(field_ppm, times=TIMES, *, r2star=20.0, snr=np.inf, offset=0.0, tissue=None, tesla=3.0, seed=0):
    """Wrapped phase and magnitude; air has noise only."""
    rng = np.random.default_rng(seed)
    angle = radians_per_ppm_second(tesla) * np.asarray(field_ppm)[..., None] * times
    signal = np.exp(-r2star * times) * np.exp(1j * (angle + np.asarray(offset)[..., None]))
    if tissue is not None:
        signal = signal * tissue[..., None]
    sd = 0.0 if np.isinf(snr) else 1 / snr
    signal = signal + sd * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    return np.angle(signal).astype(np.float32), (1000 * np.abs(signal)).astype(np.float32)


def head(shape=(40, 40, 36), direction=(0.0, 0.0, 1.0), voxel=(2.0, 2.0, 2.0)):
    """Tissue with an air cavity in front of it and a few sources in it: mask and field (ppm)."""
    mask = ellipsoid(shape, tuple(0.42 * n for n in shape))
    sinus = ellipsoid(shape, (5, 4, 5), (shape[0] / 2, 0.93 * shape[1], 0.45 * shape[2]))
    mask &= ~sinus
    chi = AIR_PPM * sinus.astype(float)
    for k, (x, y, z) in enumerate(((14, 18, 15), (25, 22, 20), (20, 14, 22))):
        chi += (0.1 - 0.08 * k) * ellipsoid(shape, (3, 3, 3), (x, y, z))
    return mask, chi, forward_field(chi, voxel_size_mm=voxel, b0_direction=direction)
