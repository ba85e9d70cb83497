"""Schemes and tensors for the examples of diffusion models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gradients import GradientTable

__all__ = ["example_table", "rotations", "spread_directions"]

Array = NDArray[np.float64]


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


def rotations(count: int) -> Array:
    """Rotations that turn one axis to directions spread over the sphere, shape (count, 3, 3)."""
    first = spread_directions(count)
    helper = np.where(np.abs(first[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    second = np.cross(first, helper)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)
