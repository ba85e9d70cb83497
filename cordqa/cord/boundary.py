"""The cord's outline in polar coordinates: from the network, sharpened on the image itself.

Outlines are radii over the angle around one centre per slice.  The network says where the outline
is to within a pixel; the image says where exactly, wherever its edge is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "N_DIRECTIONS",
    "Outlines",
    "edge_profile",
    "network_radii",
    "outline_areas",
    "outline_mask",
    "refine_radii",
    "smooth_radii",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Directions at which radii are kept.
N_DIRECTIONS = 64
#: Step along a radius in mm.
STEP_MM = 0.1
#: How far from the network's outline the edge is looked for.
BAND_MM = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Outlines of consecutive slices.

    Attributes
    ----------
    centres_mm : ndarray, shape (n_slices, 2)
        In-plane centres relative to the centre of the field of view (right, anterior).
    radii_mm : ndarray, shape (n_slices, N_DIRECTIONS)
    """

    centres_mm: Floats
    radii_mm: Floats


def directions() -> tuple[Floats, Floats]:
    """Return the unit vectors of all directions."""
    turn = (np.arange(N_DIRECTIONS) + 0.5) * (2.0 * np.pi / N_DIRECTIONS)
    return np.cos(turn), np.sin(turn)


def _sample(images: Array, spacing: tuple[float, float], x_mm: Floats, y_mm: Floats, *, order: int) -> Array:
    """Interpolate slice k of ``images`` at points x_mm[k], y_mm[k] given from its centre."""
    from scipy.ndimage import map_coordinates

    out = np.empty(x_mm.shape, dtype=np.float32)
    middle = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
    for k in range(images.shape[0]):
        i, j = x_mm[k] / spacing[0] + middle[0], y_mm[k] / spacing[1] + middle[1]
        out[k] = map_coordinates(images[k], [i, j], order=order, mode="nearest")
    return out


def network_radii(
    probability: Array, centres_mm: Floats, *, grid_mm: float, threshold: float, reach_mm: float = 14.0
) -> Floats:
    """Return where the probability first falls below a threshold on the way out.

    Parameters
    ----------
    probability : ndarray, shape (n_slices, nx, ny)
        On the network's grid.
    centres_mm : ndarray, shape (n_slices, 2)
    grid_mm : float
    threshold : float
    reach_mm : float
        Largest radius.

    Returns
    -------
    ndarray, shape (n_slices, N_DIRECTIONS)
        Radii in mm; 0 where the centre itself is below the threshold.
    """
    c, s = directions()
    r = np.arange(0.0, reach_mm, STEP_MM)
    x = centres_mm[:, 0, None, None] + c[None, :, None] * r
    y = centres_mm[:, 1, None, None] + s[None, :, None] * r
    profile = _sample(probability, (grid_mm, grid_mm), x, y, order=1)
    below = profile < threshold
    first = np.where(below.any(axis=2), below.argmax(axis=2), r.size - 1)
    before = np.maximum(first - 1, 0)
    here = np.take_along_axis(profile, first[..., None], 2)[..., 0]
    there = np.take_along_axis(profile, before[..., None], 2)[..., 0]
    part = np.where(there > here, (there - threshold) / np.maximum(there - here, 1e-6), 0.0)
    radii = r[before] + np.clip(part, 0.0, 1.0) * STEP_MM
    return np.asarray(np.where(first == 0, 0.0, radii))


def smooth_radii(radii: Floats, *, along: float = 0.0, around: float = 0.0) -> Floats:
    """Smooth radii around the outline (directions) and along the cord (slices)."""
    from scipy.ndimage import gaussian_filter1d

    if around > 0.0:
        radii = gaussian_filter1d(radii, around, axis=1, mode="wrap")
    if along > 0.0 and radii.shape[0] > 1:
        radii = gaussian_filter1d(radii, along, axis=0, mode="nearest")
    return np.asarray(radii)


def edge_profile(
    images: Array, spacing: tuple[float, float], centres_mm: Floats, radii_mm: Floats, *, blur_mm: float
) -> Array:
    """Return the outward derivative of the image in a band around each outline.

    Returns
    -------
    ndarray, shape (n_slices, N_DIRECTIONS, n_offsets)
        Change of intensity per mm, at offsets -BAND_MM .. BAND_MM in steps of STEP_MM.
    """
    from scipy.ndimage import gaussian_filter1d

    c, s = directions()
    extra = int(np.ceil(4.0 * blur_mm / STEP_MM))
    half = round(BAND_MM / STEP_MM) + extra
    offsets = np.arange(-half, half + 1) * STEP_MM
    r = np.maximum(radii_mm[:, :, None] + offsets, 0.0)
    x = centres_mm[:, 0, None, None] + c[None, :, None] * r
    y = centres_mm[:, 1, None, None] + s[None, :, None] * r
    lines = _sample(images, spacing, x, y, order=3)
    slope = gaussian_filter1d(lines, blur_mm / STEP_MM, axis=2, order=1) / STEP_MM
    return np.asarray(slope[:, :, extra:-extra], dtype=np.float32)


def refine_radii(
    edges: Array, radii_mm: Floats, *, prior: float = 2.0, smoothness: float = 8.0, gate: float = 0.4
) -> tuple[Floats, Floats]:
    """Move outlines to the closed path of strongest edge near the network's outline.

    Parameters
    ----------
    edges : ndarray, shape (n_slices, N_DIRECTIONS, n_offsets)
        Outward derivative, from :func:`edge_profile`.
    radii_mm : ndarray, shape (n_slices, N_DIRECTIONS)
        The network's outline.
    prior : float
        Cost of a distance of ``BAND_MM`` from the network's outline, in units of a clear edge.
    smoothness : float
        Cost of one step of radius from one direction to the next.
    gate : float
        Edge strength (of 1) below which the network's outline is kept; blended above it.

    Returns
    -------
    radii_mm : ndarray, shape (n_slices, N_DIRECTIONS)
    strength : ndarray, shape (n_slices,)
        Mean edge strength along the path, 1 for a clear edge everywhere.
    """
    offsets = (np.arange(edges.shape[2]) - edges.shape[2] // 2) * STEP_MM
    near = np.exp(-0.5 * (offsets / 0.7) ** 2)
    # The sign comes from the data: the mean derivative close to the network's outline, per slice.
    sign = np.sign((edges * near).sum(axis=(1, 2)))
    sign[sign == 0.0] = 1.0
    signed = edges * sign[:, None, None]
    top = np.maximum(signed.max(axis=2, keepdims=True), 1e-12)
    usual = np.percentile(top, 60, axis=1, keepdims=True)
    # Strong edges count as much as usual ones, without flattening their peak.
    signed = np.maximum(signed / np.maximum(top, usual), -1.0)
    cost = -signed + prior * (offsets / BAND_MM) ** 2
    path = _closed_path(cost, smoothness)
    shift = _peak(cost, path) + offsets[path]
    found = np.take_along_axis(signed, path[..., None], 2)[..., 0]
    trust = np.clip((found - gate) / 0.25, 0.0, 1.0)
    shift = smooth_radii(shift * trust, around=0.8)
    return np.asarray(radii_mm + shift), np.asarray(found.mean(axis=1))


def _closed_path(cost: Floats, smoothness: float) -> NDArray[np.int64]:
    """Return the cheapest path over offsets whose end meets its start, per slice.

    Two turns around are walked and the second half kept, which closes the path in practice.
    """
    n, m, width = cost.shape
    reach = 3
    total = cost[:, 0].copy()
    back = np.zeros((2 * m, n, width), dtype=np.int64)
    columns = np.arange(width)
    for step in range(1, 2 * m):
        padded = np.pad(total, ((0, 0), (reach, reach)), constant_values=np.inf)
        options = np.stack(
            [
                padded[:, k : k + width] + smoothness * ((k - reach) * STEP_MM) ** 2
                for k in range(2 * reach + 1)
            ]
        )
        choice = options.argmin(axis=0)
        back[step] = np.clip(columns + choice - reach, 0, width - 1)
        total = options.min(axis=0) + cost[:, step % m]
    path = np.zeros((n, 2 * m), dtype=np.int64)
    path[:, -1] = total.argmin(axis=1)
    rows = np.arange(n)
    for step in range(2 * m - 1, 0, -1):
        path[:, step - 1] = back[step][rows, path[:, step]]
    # The middle of the walk, away from both open ends.
    middle = path[:, m // 2 : m // 2 + m]
    return np.roll(middle, m // 2, axis=1)


def _peak(cost: Floats, path: NDArray[np.int64]) -> Floats:
    """Return the sub-step position of each minimum from a parabola through three points."""
    width = cost.shape[2]
    inner = np.clip(path, 1, width - 2)
    a, b, c = (np.take_along_axis(cost, (inner + k)[..., None], 2)[..., 0] for k in (-1, 0, 1))
    bend = a - 2.0 * b + c
    move = np.where(bend > 1e-9, 0.5 * (a - c) / np.maximum(bend, 1e-9), 0.0)
    return np.asarray(np.where(inner == path, np.clip(move, -0.5, 0.5), 0.0) * STEP_MM)


def outline_areas(radii_mm: Floats) -> Floats:
    """Return the area in mm2 inside each outline, drawn straight from direction to direction."""
    wedge = 0.5 * np.sin(2.0 * np.pi / N_DIRECTIONS)
    return np.asarray(wedge * (radii_mm * np.roll(radii_mm, -1, axis=1)).sum(axis=1))


def outline_mask(
    outlines: Outlines, shape: tuple[int, int], spacing: tuple[float, float], *, parts: int = 5
) -> Array:
    """Return which part of each pixel lies inside each outline, shape (n_slices, *shape).

    Each pixel is divided into ``parts`` x ``parts`` points.
    """
    fine = (np.arange(parts) + 0.5) / parts - 0.5
    x = ((np.arange(shape[0])[:, None] + fine).ravel() - (shape[0] - 1) / 2) * spacing[0]
    y = ((np.arange(shape[1])[:, None] + fine).ravel() - (shape[1] - 1) / 2) * spacing[1]
    out = np.zeros((outlines.radii_mm.shape[0], *shape), dtype=np.float32)
    for k, (centre, radii) in enumerate(zip(outlines.centres_mm, outlines.radii_mm, strict=True)):
        reach = radii.max() + max(spacing)
        wx = _window(x, centre[0], reach, parts)
        wy = _window(y, centre[1], reach, parts)
        if wx.stop <= wx.start or wy.stop <= wy.start:
            continue
        inside = _inside(x[wx][:, None] - centre[0], y[wy][None, :] - centre[1], radii)
        blocks = inside.reshape(inside.shape[0] // parts, parts, inside.shape[1] // parts, parts)
        rows, columns = (slice(w.start // parts, w.stop // parts) for w in (wx, wy))
        out[k, rows, columns] = blocks.mean(axis=(1, 3))
    return out


def _window(line: Floats, centre: float, reach: float, parts: int) -> slice:
    """Return the whole pixels whose points may lie within reach of a centre."""
    hit = np.flatnonzero(np.abs(line - centre) <= reach)
    if hit.size == 0:
        return slice(0, 0)
    return slice(int(hit[0]) // parts * parts, min((int(hit[-1]) // parts + 1) * parts, line.size))


def _inside(x: Floats, y: Floats, radii: Floats) -> NDArray[np.bool_]:
    """Tell which points lie inside a closed outline of radii."""
    turn = (np.arctan2(y, x) % (2.0 * np.pi)) * (N_DIRECTIONS / (2.0 * np.pi)) - 0.5
    low = np.floor(turn).astype(np.int64)
    part = turn - low
    edge = radii[low % N_DIRECTIONS] * (1.0 - part) + radii[(low + 1) % N_DIRECTIONS] * part
    return np.asarray(np.hypot(x, y) <= edge)
