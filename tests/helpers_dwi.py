"""Motion, masks and scores for tests of diffusion preprocessing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift as displace

from cordqa.cord.motion import Motion
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.simulate.cord.diffusion import CordDwi, CordDwiTruth, cord_scheme, simulate_cord_dwi

SPACING = (0.9, 0.9, 5.0)
SCHEME = cord_scheme()


def draw_motion(kind: str, volumes: int, slices: int, seed: int) -> np.ndarray:
    """Motion in mm, shape (volumes, slices, 2)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((volumes, slices, 2))
    if kind == "static":
        return out
    out += np.cumsum(rng.normal(0, 0.15, (volumes, 1, 2)), axis=0) + rng.normal(0, 0.3, (volumes, 1, 2))
    out += rng.normal(0, 0.2, (volumes, 1, 2)) * np.linspace(-1, 1, slices)[None, :, None]
    if kind == "interleaved":
        passes = np.where(np.arange(slices) % 2, 0.5, -0.5)[None, :, None]
        out += rng.normal(0, 0.3, (volumes, 1, 2)) * passes
    if kind == "single slices":
        out += rng.normal(0, 0.2, (volumes, slices, 2))
    if kind == "jump":
        out[volumes // 2 :] += np.array([2.5, -2.0])
    return out


def simulate(kind: str, snr: float, *, seed: int = 5, scheme: GradientTable = SCHEME, **scan) -> CordDwiTruth:
    shape = scan.pop("shape", (40, 40, 9))
    motion = draw_motion(kind, len(scheme), shape[2], seed)
    # The mask is drawn on the mean of the weighted volumes: that is where the cord lies at rest.
    motion -= motion[~scheme.is_b0].mean(axis=0)
    return simulate_cord_dwi(
        scheme, CordDwi(shape=shape, spacing_mm=SPACING, shift_mm=motion, snr=snr, **scan), seed=seed
    )


def motion_error(motion: Motion, truth: CordDwiTruth, scheme: GradientTable = SCHEME) -> np.ndarray:
    """Error of every shift in voxels, against the mean of the weighted volumes."""
    error = motion.shift_voxels - truth.shift_voxels
    return error - error[~scheme.is_b0].mean(axis=0)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def left_out_residual(
    data: np.ndarray, shift: np.ndarray, cord: np.ndarray, matrix: np.ndarray, chosen: np.ndarray
) -> float:
    """Root mean square difference of raw volumes to what the others, aligned by the shifts, predict for them.

    The prediction is moved to where the volume lies, so that raw data are compared: an alignment gains
    nothing by blurring.
    """
    where = np.argwhere(cord)
    low, high = np.maximum(where.min(axis=0)[:2] - 8, 0), where.max(axis=0)[:2] + 9
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    data, cord = data[box], cord[box]
    aligned = np.empty_like(data)
    for v, z in np.ndindex(shift.shape[:2]):
        aligned[:, :, z, v] = displace(data[:, :, z, v], -shift[v, z], order=3, mode="nearest")
    predicted = np.einsum("vw,xyzw->xyzv", matrix, aligned)
    squares = []
    for v in np.flatnonzero(chosen):
        for z in np.flatnonzero(cord.any(axis=(0, 1))):
            there = displace(predicted[:, :, z, v], shift[v, z], order=3, mode="nearest")
            inside = displace(cord[:, :, z].astype(float), shift[v, z], order=1) > 0.5
            squares.append(((data[:, :, z, v] - there)[inside] ** 2).mean())
    return float(np.sqrt(np.mean(squares)))
