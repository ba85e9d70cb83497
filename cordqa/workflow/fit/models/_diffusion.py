"""Schemes and tensors for the examples of diffusion models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.maps import FittedMaps
from cordqa.workflow.fit.data import FitData

__all__ = ["example_table", "known_noise", "odd_slices", "rotations", "spread_directions", "with_warnings"]

Array = NDArray[np.float64]

#: Voxels of a slice that are enough to judge its mean.
_PER_SLICE = 400
_SHOWN = 6


def spread_directions(count: int) -> Array:
    """Directions along a spiral on the sphere, shape (count, 3), nearly even."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z**2)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])


def example_table(shells: Sequence[tuple[float, int, float]], *, n_b0: int = 3) -> GradientTable:
    """Build a table of b = 0 volumes and shells of (b in s/mm2, number, b_delta)."""
    b = np.concatenate([np.zeros(n_b0), *(np.full(count, value) for value, count, _ in shells)])
    delta = np.concatenate([np.ones(n_b0), *(np.full(count, shape) for _, count, shape in shells)])
    directions = np.vstack([np.zeros((n_b0, 3)), *(spread_directions(count) for _, count, _ in shells)])
    directions[delta == 0] = 0
    return GradientTable(b_values_s_mm2=b, directions=directions, b_delta=delta)


def known_noise(data: FitData) -> Array | None:
    """Noise of the voxels, NaN where the map has none: a piece of the images may lie outside the body."""
    if data.noise_sd is None:
        return None
    noise = np.asarray(data.noise_sd, dtype=np.float64)
    return np.where(np.isfinite(noise) & (noise > 0), noise, np.nan)


def odd_slices(data: FitData) -> tuple[str, ...]:
    """Say which volumes hold slices that do not fit the rest: lost in pulsation or movement, or spikes."""
    from cordqa.models.diffusion.preprocess_outliers import find_outlier_slices

    if data.gradients is None:
        return ()
    samples, inside = _some_voxels(data)
    found = find_outlier_slices(samples, data.gradients, inside).outlier
    if not found.any():
        return ()
    volumes = [str(v + 1) for v in np.flatnonzero(found.any(axis=0))]
    shown = ", ".join(volumes[:_SHOWN]) + (f" and {len(volumes) - _SHOWN} more" if volumes[_SHOWN:] else "")
    count, total = int(found.sum()), int(inside.any(axis=(0, 1)).sum()) * found.shape[1]
    return (
        f"{count} of {total} slices (planes of the third axis of the array) do not fit the other volumes of "
        f"their shell and were not left out: volume {shown}. Their samples bias all maps; "
        "cordqa cord leaves them out",
    )


def _some_voxels(data: FitData) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Up to so many voxels of each slice, spread over it, as a volume of one column per voxel."""
    slices = np.nonzero(data.mask)[2]
    taken = [np.flatnonzero(slices == z) for z in range(data.mask.shape[2])]
    taken = [rows[:: -(-rows.size // _PER_SLICE) or 1] for rows in taken]
    width = max(rows.size for rows in taken)
    samples = np.zeros((width, 1, len(taken), data.signal.shape[-1]), dtype=np.float32)
    inside = np.zeros((width, 1, len(taken)), dtype=bool)
    for z, rows in enumerate(taken):
        samples[: rows.size, 0, z], inside[: rows.size, 0, z] = data.signal[rows], True
    return samples, inside


def with_warnings(maps: FittedMaps, texts: Sequence[str]) -> FittedMaps:
    """Add what was found before the voxels were fitted."""
    return replace(maps, notices=(*maps.notices, *texts), warnings=(*maps.warnings, *texts))


def rotations(count: int) -> Array:
    """Rotations that turn one axis to directions spread over the sphere, shape (count, 3, 3)."""
    first = spread_directions(count)
    helper = np.where(np.abs(first[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    second = np.cross(first, helper)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)
