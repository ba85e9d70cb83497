"""Phantoms of the cord with known geometry."""

from __future__ import annotations

import math

import numpy as np

from cordqa.records import Volume


def cylinder(
    *,
    shape=(40, 40, 24),
    spacing=(1.0, 1.0, 1.0),
    semi_axes=(6.5, 4.0),
    tilt_deg=(0.0, 0.0),
    turn_deg=0.0,
    soft=True,
    fine=5,
    centre=(0.0, 0.0),
):
    """Elliptic cylinder, its axis tilted about AP and RL; a soft mask holds fractions of voxels.

    Semi-axes are those of the cross-section perpendicular to the axis of the cylinder.
    """
    spacing = np.array(spacing, dtype=float)
    sub = (np.arange(fine) + 0.5) / fine - 0.5 if soft else np.zeros(1)
    lines = [
        ((np.arange(n)[:, None] + sub).ravel() - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)
    ]
    x, y, z = np.meshgrid(*lines, indexing="ij", sparse=True)
    # Rotation about AP moves the cord left going up; rotation about RL moves it forward.
    tangent = np.array([-math.tan(math.radians(tilt_deg[0])), math.tan(math.radians(tilt_deg[1])), 1.0])
    tangent /= np.linalg.norm(tangent)
    right = np.array([1.0, 0.0, 0.0]) - tangent[0] * tangent
    right /= np.linalg.norm(right)
    forward = np.cross(tangent, right)
    turn = math.radians(turn_deg)
    long_axis = math.cos(turn) * right + math.sin(turn) * forward
    short_axis = -math.sin(turn) * right + math.cos(turn) * forward
    dx, dy = x - centre[0], y - centre[1]
    a = dx * long_axis[0] + dy * long_axis[1] + z * long_axis[2]
    b = dx * short_axis[0] + dy * short_axis[1] + z * short_axis[2]
    inside = (a / semi_axes[0]) ** 2 + (b / semi_axes[1]) ** 2 < 1.0
    n = sub.size
    data = inside.reshape(shape[0], n, shape[1], n, shape[2], n).mean(axis=(1, 3, 5))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return Volume(data=data.astype(np.float32), affine=affine, source="phantom")


def reoriented(volume, order, flips):
    """The same volume with its array axes permuted and flipped, and the affine to match."""
    data, affine = np.asarray(volume.data), np.array(volume.affine, dtype=float)
    data = np.transpose(data, (*order, *range(3, data.ndim)))
    affine[:3, :3] = affine[:3, list(order)]
    for axis in flips:
        data = np.flip(data, axis=axis)
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
    return Volume(data=data, affine=affine, source=volume.source)
