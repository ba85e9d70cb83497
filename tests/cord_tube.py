"""A cord of known geometry, drawn on a finer grid than the image and averaged into voxels."""

from __future__ import annotations

import numpy as np

from cordqa.records import Volume

FINE = 4


def tube(
    *,
    shape=(48, 48, 24),
    spacing=(0.8, 0.8, 5.0),
    half=(6.2, 4.0),
    sac=(10.0, 7.0),
    levels=(0.45, 1.0, 0.25),
    bend_mm=4.0,
    noise=0.02,
    seed=0,
    cord_slices=None,
    stem_slices=(),
):
    """Return an image of a bent cord in its sac, and its true coverage per voxel.

    ``levels`` are the intensities of cord, CSF and surroundings.  Outside ``cord_slices`` the sac
    holds only scattered roots; on ``stem_slices`` it holds a brainstem-sized body.
    """
    rng = np.random.default_rng(seed)
    nx, ny, nz = shape
    x = _fine(nx, spacing[0])
    y = _fine(ny, spacing[1])
    truth = np.zeros(shape, dtype=np.float32)
    data = np.zeros(shape)
    for k in range(nz):
        t = k / max(nz - 1, 1) - 0.5
        dx, dy = x[:, None] - bend_mm * t, y[None, :] - bend_mm * (t**2 - 0.1)
        stem = k in stem_slices
        room = (17.0, 14.0) if stem else sac
        here = (13.0, 10.5) if stem else half
        inside = np.hypot(dx / here[0], dy / here[1]) < 1.0
        if cord_slices is not None and k not in cord_slices and not stem:
            inside = _roots(dx, dy, rng)
        image = np.where(np.hypot(dx / room[0], dy / room[1]) < 1.0, levels[1], levels[2])
        body = np.hypot(dx / 11.0, (dy - sac[1] - 9.5) / 8.0) < 1.0
        image = np.where(body & (image == levels[2]), 0.5 * (levels[2] + levels[0]), image)
        data[:, :, k] = _coarse(np.where(inside, levels[0], image), nx, ny)
        if not stem and (cord_slices is None or k in cord_slices):
            truth[:, :, k] = _coarse(inside.astype(float), nx, ny)
    data += noise * rng.standard_normal(shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-20.0, -31.0, 12.0]
    return Volume(data=data.astype(np.float32), affine=affine), truth


def _fine(count, step):
    return ((np.arange(count * FINE) + 0.5) / FINE - count / 2) * step


def _coarse(values, nx, ny):
    return values.reshape(nx, FINE, ny, FINE).mean(axis=(1, 3))


def _roots(dx, dy, rng):
    inside = np.zeros(np.broadcast_shapes(dx.shape, dy.shape), dtype=bool)
    for _ in range(14):
        u, v = rng.uniform(-7.0, 7.0), rng.uniform(-5.5, 1.0)
        inside |= np.hypot(dx - u, dy - v) < 0.6
    return inside


def dice(a, b):
    a, b = a > 0.5, b > 0.5
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())
