"""Small simulated scans of susceptibility, made once per session, and the score of a map."""

from __future__ import annotations

from functools import cache

import numpy as np

from cordqa.simulate.susceptibility import SusceptibilityScan, simulate_brain, simulate_cord


@cache
def brain(seed: int = 3) -> SusceptibilityScan:
    return simulate_brain(seed=seed, shape=(52, 52, 48), voxel_size_mm=(3.0, 3.0, 3.0))


@cache
def cord(seed: int = 3) -> SusceptibilityScan:
    return simulate_cord(seed=seed, shape=(64, 64, 28), voxel_size_mm=(1.0, 1.0, 1.6))


def detrended_error(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    r, t = found[mask] - found[mask].mean(), truth[mask] - truth[mask].mean()
    slope = (r @ t) / (t @ t)
    return float(100 * np.linalg.norm(r / slope - t) / np.linalg.norm(t))


def geometry(scan: SusceptibilityScan) -> dict[str, object]:
    return {"voxel_size_mm": scan.voxel_size_mm, "b0_direction": scan.scanner.b0_direction}


def inside(scan: SusceptibilityScan, values: np.ndarray) -> np.ndarray:
    return np.where(scan.mask, values, np.nan)
