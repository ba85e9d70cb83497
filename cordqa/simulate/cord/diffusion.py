"""Diffusion series of a digital cord: known tensors, known motion, known slice drop-outs.

The cord is drawn as outlines on a grid finer than the image, in the pose that it has in each slice of
each volume, so that motion is exact and shares no interpolation with the correction that is tested.
White and grey matter are mixtures of Gaussian compartments along the cord, which gives them kurtosis;
the signal equation is the only thing shared with the models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.diffusion.gaussian import axial_tensor, gaussian_signal
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.simulate.cord.shapes import (
    Array,
    capsule_distance,
    coverage,
    ellipse_distance,
    polar,
    star_distance,
    superellipse_radii,
)

__all__ = ["TISSUES", "CordDwi", "CordDwiTruth", "cord_scheme", "simulate_cord_dwi"]

Floats = NDArray[np.float64]

#: Proton density and T2 weighting at b = 0, and compartments: share, diffusivity along and across the
#: cord in um2/ms.  Invented, with white matter near the FA and MD reported for the cervical cord.
TISSUES: Mapping[str, tuple[float, tuple[tuple[float, float, float], ...]]] = {
    "MUSCLE": (0.30, ((1.0, 1.5, 1.5),)),
    "BONE": (0.12, ((1.0, 0.6, 0.6),)),
    "CSF": (2.20, ((1.0, 3.0, 3.0),)),
    "WM": (1.00, ((0.55, 1.9, 0.08), (0.45, 1.9, 0.75))),
    "GM": (1.10, ((0.45, 1.3, 0.35), (0.55, 1.2, 0.95))),
}
_OVERSAMPLING = 2
_HALF_MM = (6.4, 4.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CordDwi:
    """What is imaged and how.

    Attributes
    ----------
    shape : tuple of int
        Voxels towards right, anterior and superior.
    spacing_mm : tuple of float
    snr : float
        Signal of white matter at b = 0 over the standard deviation of the noise in each channel.
    blur_mm : float
        Standard deviation of the point spread in plane, beyond the voxel itself.
    tilt : tuple of float
        Millimetres towards right and anterior that the cord runs per millimetre towards superior.
    shift_mm : ndarray, shape (n_volumes, n_slices, 2), or None
        Where the body lies in each slice of each volume, towards right and anterior.
    turn_deg : ndarray, shape (n_volumes,), or None
        Rotation of the body about the slice normal, counter-clockwise from right to anterior.
    dropouts : mapping of (slice, volume) to float
        Share of the signal that is left.
    gain : float
        Scale of the stored numbers.
    """

    shape: tuple[int, int, int] = (44, 44, 10)
    spacing_mm: tuple[float, float, float] = (0.9, 0.9, 5.0)
    snr: float = 20.0
    blur_mm: float = 0.4
    tilt: tuple[float, float] = (0.03, 0.08)
    shift_mm: Floats | None = None
    turn_deg: Floats | None = None
    dropouts: Mapping[tuple[int, int], float] = field(default_factory=dict)
    gain: float = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CordDwiTruth:
    """A simulated series and what is true about it.

    Attributes
    ----------
    data : ndarray, shape (n_right, n_anterior, n_slices, n_volumes), float32
        Magnitude images.
    clean : ndarray, same shape
        Without noise, motion or drop-outs.
    affine : ndarray, shape (4, 4)
    cord, white : ndarray, shape (n_right, n_anterior, n_slices)
        Part of each voxel inside the cord, and inside white matter, in the resting pose.
    sigma : float
        Noise of each channel, in the units of the data.
    shift_voxels : ndarray, shape (n_volumes, n_slices, 2)
        What a perfect correction has to undo.
    dropped : ndarray of bool, shape (n_slices, n_volumes)
    """

    data: NDArray[np.float32]
    clean: NDArray[np.float32]
    affine: Floats
    cord: Floats
    white: Floats
    sigma: float
    shift_voxels: Floats
    dropped: NDArray[np.bool_]


def cord_scheme(
    *, directions: int = 30, b_values_s_mm2: tuple[float, ...] = (800.0,), every: int = 10
) -> GradientTable:
    """Return a scheme with directions on a spiral over the half sphere and b = 0 interleaved.

    Parameters
    ----------
    directions : int
        Per shell.
    b_values_s_mm2 : tuple of float
        Shells.
    every : int
        A volume without weighting comes first and after so many weighted ones.
    """
    step = np.arange(directions) + 0.5
    height, turn = 1.0 - step / directions, math.pi * (3.0 - math.sqrt(5.0)) * step
    ring = np.sqrt(1.0 - height**2)
    shell = np.column_stack([ring * np.cos(turn), ring * np.sin(turn), height])
    # In the order of acquisition neighbours are far apart, as in real tables.
    order = np.argsort((np.arange(directions) * 0.381966) % 1.0, kind="stable")
    b, vectors = [0.0], [np.zeros(3)]
    for number in range(directions * len(b_values_s_mm2)):
        if number and number % every == 0:
            b.append(0.0)
            vectors.append(np.zeros(3))
        b.append(b_values_s_mm2[number % len(b_values_s_mm2)])
        vectors.append(shell[order[number // len(b_values_s_mm2)]])
    return GradientTable.linear(b, np.array(vectors))


def simulate_cord_dwi(gradients: GradientTable, scan: CordDwi, *, seed: int) -> CordDwiTruth:
    """Simulate a diffusion series of the cord.

    Parameters
    ----------
    gradients : GradientTable
        Directions in the axes (right, anterior, superior).
    scan : CordDwi
    seed : int
        Of the noise.

    Raises
    ------
    InputError
        If the motion does not have one row per volume and slice.
    """
    volumes, slices = len(gradients), scan.shape[2]
    shift = (
        np.zeros((volumes, slices, 2)) if scan.shift_mm is None else np.asarray(scan.shift_mm, dtype=float)
    )
    turn = np.zeros(volumes) if scan.turn_deg is None else np.asarray(scan.turn_deg, dtype=float)
    if shift.shape != (volumes, slices, 2) or turn.shape != (volumes,):
        raise InputError(
            "the motion does not belong to the series",
            found=f"{shift.shape} and {turn.shape}",
            expected=f"({volumes}, {slices}, 2) and ({volumes},)",
        )
    signal = {float(t): _signals(_turned(gradients, t), scan) for t in np.unique(np.append(turn, 0.0))}
    rest = [_parts(scan, z, (0.0, 0.0), 0.0) for z in range(slices)]
    clean = np.zeros((*scan.shape, volumes), dtype=np.float32)
    moved = np.zeros_like(clean)
    for z in range(slices):
        for v in range(volumes):
            clean[:, :, z, v] = _image(rest[z], {t: s[v] for t, s in signal[0.0].items()}, scan)
            if not shift[v, z].any() and turn[v] == 0.0:
                moved[:, :, z, v] = clean[:, :, z, v]
                continue
            parts = _parts(scan, z, (float(shift[v, z, 0]), float(shift[v, z, 1])), float(turn[v]))
            moved[:, :, z, v] = _image(parts, {t: s[v] for t, s in signal[float(turn[v])].items()}, scan)
    dropped = np.zeros((slices, volumes), dtype=bool)
    for (z, v), left in scan.dropouts.items():
        moved[:, :, z, v] *= np.float32(left)
        dropped[z, v] = True
    sigma = 1.0 / scan.snr
    return CordDwiTruth(
        data=np.float32(scan.gain) * _magnitude(moved, sigma, np.random.default_rng(seed)),
        clean=np.float32(scan.gain) * clean,
        affine=_affine(scan),
        cord=np.stack([_pixels(p["WM"], scan) for p in rest], axis=-1),
        white=np.stack([_pixels(np.clip(p["WM"] - p["GM"], 0.0, 1.0), scan) for p in rest], axis=-1),
        sigma=sigma * scan.gain,
        shift_voxels=shift / np.array(scan.spacing_mm[:2]),
        dropped=dropped,
    )


def _magnitude(ideal: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    real = ideal + np.float32(sigma) * rng.standard_normal(ideal.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(ideal.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, imaginary), dtype=np.float32)


def _turned(gradients: GradientTable, turn_deg: float) -> GradientTable:
    """Gradients as the turned body sees them."""
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    back = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return GradientTable(
        b_values_s_mm2=gradients.b_values_s_mm2,
        directions=gradients.directions @ back.T,
        b_delta=gradients.b_delta,
        b0_limit_s_mm2=gradients.b0_limit_s_mm2,
    )


def _signals(gradients: GradientTable, scan: CordDwi) -> dict[str, Floats]:
    """Signal of every tissue in every volume."""
    axis = np.array([*scan.tilt, 1.0])
    out = {}
    for tissue, (density, compartments) in TISSUES.items():
        parts = [
            share * gaussian_signal(gradients, axial_tensor(axis, along_um2_ms=a, across_um2_ms=r))
            for share, a, r in compartments
        ]
        out[tissue] = density * np.sum(parts, axis=0)
    return out


def _parts(scan: CordDwi, z: int, shift_mm: tuple[float, float], turn_deg: float) -> dict[str, Array]:
    """Part of each fine pixel that each tissue fills, in painting order."""
    fine = _OVERSAMPLING
    step = scan.spacing_mm[0] / fine, scan.spacing_mm[1] / fine
    lines = [
        (np.arange(n * fine) - (n * fine - 1) / 2) * s for n, s in zip(scan.shape[:2], step, strict=True)
    ]
    x, y = np.meshgrid(lines[0] - shift_mm[0], lines[1] - shift_mm[1], indexing="ij")
    height = (z - (scan.shape[2] - 1) / 2) * scan.spacing_mm[2]
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    u = (c * x + s * y - scan.tilt[0] * height).astype(np.float32)
    v = (c * y - s * x - scan.tilt[1] * height).astype(np.float32)
    size = 1.0 + 0.06 * math.cos(height / 15.0)
    half = (_HALF_MM[0] * size, _HALF_MM[1] * size)
    pixel = math.sqrt(step[0] * step[1])
    cord = coverage(star_distance(polar(u, v), superellipse_radii(*half, exponent=2.15)), pixel)
    body = ellipse_distance(u, v, centre=(0.0, half[1] + 12.0), half=(12.0, 8.0))
    arch = np.abs(ellipse_distance(u, v, centre=(0.0, -1.0), half=(half[0] + 6.5, half[1] + 6.0))) - 1.5
    return {
        "MUSCLE": np.ones_like(u),
        "BONE": coverage(np.minimum(body, arch), pixel),
        "CSF": coverage(
            ellipse_distance(u, v, centre=(0.0, 0.3), half=(half[0] + 3.0, half[1] + 2.6)), pixel
        ),
        "WM": cord,
        "GM": np.minimum(coverage(_butterfly(np.abs(u), v, half), pixel), cord),
    }


def _butterfly(side: Array, y: Array, half: tuple[float, float]) -> Array:
    """Signed distance to the grey matter: horns and commissure."""
    hub = (0.3 * half[0], 0.05 * half[1])
    horns = ((0.38 * half[0], 0.42 * half[1], 0.14), (0.46 * half[0], -0.6 * half[1], 0.08))
    distance = capsule_distance(side, y, start=(0.0, hub[1]), end=hub, radius=0.06 * half[0])
    for end_x, end_y, width in horns:
        horn = capsule_distance(side, y, start=hub, end=(end_x, end_y), radius=width * half[0])
        distance = np.minimum(distance, horn)
    return distance


def _image(parts: Mapping[str, Array], signal: Mapping[str, float], scan: CordDwi) -> Floats:
    """Paint tissues over each other, blur, and average to voxels."""
    from scipy.ndimage import gaussian_filter

    plane = np.zeros_like(parts["WM"])
    for tissue, part in parts.items():
        plane += part * (np.float32(signal[tissue]) - plane)
    sd = [scan.blur_mm * _OVERSAMPLING / step for step in scan.spacing_mm[:2]]
    return _pixels(gaussian_filter(plane, sd, truncate=3.0), scan)


def _pixels(plane: Array, scan: CordDwi) -> Floats:
    fine = _OVERSAMPLING
    small = plane.reshape(scan.shape[0], fine, scan.shape[1], fine).mean(axis=(1, 3))
    return np.asarray(small, dtype=float)


def _affine(scan: CordDwi) -> Floats:
    affine: Floats = np.diag([*scan.spacing_mm, 1.0]).astype(np.float64)
    affine[:3, 3] = -np.array(scan.spacing_mm) * (np.array(scan.shape) - 1) / 2
    return affine
