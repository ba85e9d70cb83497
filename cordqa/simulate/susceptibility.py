"""Multi-echo gradient-echo scans of digital phantoms with known susceptibility.

No inverse crime: sources live on a grid twice as fine as the image and reach beyond it, the field
is computed there, and what is averaged into a voxel is the complex signal.  Air, bone, shim,
phase offset, partial volume, T2* and complex noise are all in the data; nothing here calls the
reconstruction but the dipole itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.models.susceptibility.dipole import forward_field, unit_direction
from cordqa.models.susceptibility.physics import hertz_per_ppm
from cordqa.simulate.susceptibility_anatomy import (
    TISSUES,
    Anatomy,
    build_brain,
    build_cord,
)

__all__ = ["SusceptibilityScan", "SusceptibilityScanner", "simulate_brain", "simulate_cord"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Relaxation that 1 ppm of either sign adds at 3 T, Hz (Shin et al. 2021,
#: doi:10.1016/j.neuroimage.2021.118371); proportional to the field.
RELAXATION_HZ_PER_PPM_3T = 137.0
_FINE = 2
_AIR_PPM = TISSUES["air"].chi_para_ppm
#: Correlation length of the texture of tissue, in fine voxels.
_TEXTURE_VOXELS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SusceptibilityScanner:
    """How a phantom is scanned.

    Attributes
    ----------
    echo_times_s : tuple of float
    field_strength_t : float
    b0_direction : tuple of float
        In array axes.
    snr : float
        Signal of a full voxel at time zero over the noise of one channel; infinity for none.
    shim_ppm : float
        Scale of what the shim leaves over.
    offset_rad : float
        Scale of the phase offset.
    """

    echo_times_s: tuple[float, ...] = (0.004, 0.009, 0.014, 0.019, 0.024)
    field_strength_t: float = 3.0
    b0_direction: tuple[float, float, float] = (0.0, 0.0, 1.0)
    snr: float = 50.0
    shim_ppm: float = 0.1
    offset_rad: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SusceptibilityScan:
    """A scan and its truth; volumes have the shape of ``mask``, echoes come last.

    ``local_field_ppm`` is the field of what lies inside the mask, and of its continuation beyond
    the field of view; ``total_field_ppm`` is that of everything with the shim.
    """

    magnitude: Single
    phase: Single
    mask: Mask
    chi_ppm: Array
    chi_para_ppm: Array
    chi_dia_ppm: Array
    r2_prime_per_s: Array
    local_field_ppm: Array
    total_field_ppm: Array
    label: NDArray[np.uint8]
    noise_sd: float
    voxel_size_mm: Array
    scanner: SusceptibilityScanner


@dataclass(frozen=True, slots=True)
class _Fine:
    """Properties on the fine grid, and where the image lies in it."""

    para: Single
    dia: Single
    proton: Single
    r2: Single
    local: Mask
    label: NDArray[np.uint8]
    view: tuple[slice, ...]


def simulate_brain(
    *,
    seed: int,
    shape: tuple[int, int, int] = (64, 64, 56),
    voxel_size_mm: Sequence[float] = (2.5, 2.5, 2.5),
    scanner: SusceptibilityScanner | None = None,
) -> SusceptibilityScan:
    """Scan a head; the mask is the brain with its CSF, wholly inside the image.

    Parameters
    ----------
    seed : int
        Of anatomy and noise.
    shape : tuple of int
    voxel_size_mm : sequence of float
    scanner : SusceptibilityScanner, optional
    """
    half = 0.37 * min(shape[0] * voxel_size_mm[0], shape[1] * voxel_size_mm[1] / 1.2)
    half = min(half, 0.45 * shape[2] * voxel_size_mm[2] / 0.95)

    def build(grid: list[Array], rng: np.random.Generator) -> Anatomy:
        return build_brain(grid, half, rng)

    return _simulate(build, seed, shape, voxel_size_mm, scanner or SusceptibilityScanner(), beyond=(4, 4, 4))


def simulate_cord(
    *,
    seed: int,
    shape: tuple[int, int, int] = (96, 96, 40),
    voxel_size_mm: Sequence[float] = (0.7, 0.7, 1.2),
    canal_radius_mm: float = 9.0,
    scanner: SusceptibilityScanner | None = None,
) -> SusceptibilityScan:
    """Scan a cord; the mask is the canal, which the image cuts at both ends.

    Parameters
    ----------
    seed : int
    shape : tuple of int
    voxel_size_mm : sequence of float
    canal_radius_mm : float
    scanner : SusceptibilityScanner, optional
        The main field is tilted by about 20 degrees unless told.
    """

    def build(grid: list[Array], rng: np.random.Generator) -> Anatomy:
        return build_cord(grid, canal_radius_mm, rng)

    tilted = SusceptibilityScanner(
        echo_times_s=(0.0035, 0.007, 0.0105, 0.014, 0.0175), b0_direction=(0.0, 0.34, 0.94), snr=35.0
    )
    return _simulate(build, seed, shape, voxel_size_mm, scanner or tilted, beyond=(0, 0, 20))


def _simulate(
    build: Callable[[list[Array], np.random.Generator], Anatomy],
    seed: int,
    shape: tuple[int, int, int],
    voxel_size_mm: Sequence[float],
    scanner: SusceptibilityScanner,
    beyond: tuple[int, int, int],
) -> SusceptibilityScan:
    rng = np.random.default_rng(seed)
    voxel = np.asarray(voxel_size_mm, dtype=float)
    fine = _materialise(build, shape, voxel, beyond, rng)
    chi = fine.para + fine.dia
    local, background = (
        forward_field(
            part,
            voxel_size_mm=voxel / _FINE,
            b0_direction=unit_direction(scanner.b0_direction),
            pad=max(shape) // 2,
        )[fine.view].astype(np.float32)
        # The surroundings are air; relative to it nothing lies beyond the grid.
        for part in (np.where(fine.local, chi, 0), np.where(fine.local, 0, chi) - _AIR_PPM)
    )
    mask = _average(fine.local[fine.view].astype(np.float32)) > 1 - 1e-6
    background -= _shim(background, mask, voxel, scanner.shim_ppm, rng)
    signal, noise = _signal(fine, local + background, scanner, rng)
    para, dia = (_average(np.where(fine.local, part, 0)[fine.view]) for part in (fine.para, fine.dia))
    rate = RELAXATION_HZ_PER_PPM_3T * scanner.field_strength_t / 3
    return SusceptibilityScan(
        magnitude=np.abs(signal).astype(np.float32),
        phase=np.angle(signal).astype(np.float32),
        mask=mask,
        chi_ppm=para + dia,
        chi_para_ppm=para,
        chi_dia_ppm=dia,
        r2_prime_per_s=rate * (para - dia),
        local_field_ppm=_average(local),
        total_field_ppm=_average(local + background),
        label=_labels(fine, mask),
        noise_sd=noise,
        voxel_size_mm=voxel,
        scanner=scanner,
    )


def _materialise(
    build: Callable[[list[Array], np.random.Generator], Anatomy],
    shape: tuple[int, int, int],
    voxel: Array,
    beyond: tuple[int, int, int],
    rng: np.random.Generator,
) -> _Fine:
    """Paint the anatomy on the fine grid and give every voxel its properties."""
    size = [_FINE * (n + 2 * more) for n, more in zip(shape, beyond, strict=True)]
    grid = [
        ((np.arange(n) + 0.5 - n / 2) * v / _FINE).reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, (n, v) in enumerate(zip(size, voxel, strict=True))
    ]
    anatomy = build(grid, rng)
    tissue = sorted(TISSUES.values(), key=lambda entry: entry.number)
    column = {
        name: np.array([getattr(entry, name) for entry in tissue], dtype=np.float32)[anatomy.label]
        for name in ("chi_para_ppm", "chi_dia_ppm", "proton", "r2_per_s", "texture")
    }
    texture = 1 + column["texture"] * _texture(anatomy.label.shape, rng)
    factor = np.where(anatomy.local, np.maximum(texture, 0) * anatomy.level, 1).astype(np.float32)
    para, dia = column["chi_para_ppm"] * factor, column["chi_dia_ppm"] * factor
    view = tuple(slice(_FINE * m, _FINE * (m + n)) for m, n in zip(beyond, shape, strict=True))
    return _Fine(para, dia, column["proton"], column["r2_per_s"], anatomy.local, anatomy.label, view)


def _texture(shape: tuple[int, ...], rng: np.random.Generator) -> Single:
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), _TEXTURE_VOXELS, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _average(fine: NDArray[np.generic]) -> Array:
    """Average blocks of fine voxels over the first three axes."""
    nx, ny, nz = (n // _FINE for n in fine.shape[:3])
    blocks = fine.reshape(nx, _FINE, ny, _FINE, nz, _FINE)
    result: Array = blocks.mean(axis=(1, 3, 5), dtype=complex if np.iscomplexobj(fine) else float)
    return result


def _shim(field: Single, mask: Mask, voxel: Array, scale: float, rng: np.random.Generator) -> Single:
    """Return the shim: what polynomials of second order remove, short of a random remainder."""
    fine_mask = mask.repeat(_FINE, 0).repeat(_FINE, 1).repeat(_FINE, 2)
    inside = np.argwhere(mask)
    middle, half = inside.mean(0), max(float(np.ptp(inside, axis=0).max()) / 2, 1.0)
    axes = [
        (((np.arange(n) + 0.5) / _FINE - 0.5 - m) * v / (half * voxel.max())).reshape(
            [-1 if i == axis else 1 for i in range(3)]
        )
        for axis, (n, m, v) in enumerate(zip(field.shape, middle, voxel, strict=True))
    ]
    x, y, z = axes
    one = np.ones(field.shape, dtype=np.float32)
    terms = [one * t for t in (1.0, x, y, z, x * y, y * z, x * z, x * x - y * y, 2 * z * z - x * x - y * y)]
    some = np.flatnonzero(fine_mask)[:: max(1, int(fine_mask.sum()) // 20000)]
    design = np.stack([t.ravel()[some] for t in terms], axis=1)
    best, *_ = np.linalg.lstsq(design, field.ravel()[some], rcond=None)
    best += scale * rng.standard_normal(best.size)
    total = np.zeros(field.shape, dtype=np.float32)
    for coefficient, term in zip(best, terms, strict=True):
        total += np.float32(coefficient) * term
    return total


def _signal(
    fine: _Fine, field: Single, scanner: SusceptibilityScanner, rng: np.random.Generator
) -> tuple[NDArray[np.complex128], float]:
    """Average the complex signal of the fine grid per echo and add noise to it."""
    proton, r2 = fine.proton[fine.view], fine.r2[fine.view]
    rate = RELAXATION_HZ_PER_PPM_3T * scanner.field_strength_t / 3
    chi = np.where(fine.local, fine.para - fine.dia, 0)[fine.view]
    turn = 2j * math.pi * hertz_per_ppm(scanner.field_strength_t)
    exponent = (turn * field - (r2 + rate * chi)).astype(np.complex64)
    offset = _offset(field.shape, scanner.offset_rad, rng)
    echoes = [
        _average(proton * np.exp(exponent * np.float32(time) + 1j * offset)) for time in scanner.echo_times_s
    ]
    signal = np.stack(echoes, axis=-1).astype(complex)
    if not math.isfinite(scanner.snr):
        return signal, 0.0
    noise = 1 / scanner.snr
    signal += noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return signal, noise


def _offset(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Single:
    """Smooth phase at time zero, as coils and readout leave it."""
    axes = [
        np.linspace(-1, 1, n).reshape([-1 if i == a else 1 for i in range(3)]) for a, n in enumerate(shape)
    ]
    c = scale * rng.standard_normal(7)
    x, y, z = axes
    offset = c[0] + c[1] * x + c[2] * y + c[3] * z + c[4] * x * y + c[5] * x * x + c[6] * np.sin(2 * y + z)
    return np.asarray(np.broadcast_to(offset, shape), dtype=np.float32)


def _labels(fine: _Fine, mask: Mask) -> NDArray[np.uint8]:
    """Label of each image voxel: that of one of its fine voxels, 0 outside the mask."""
    return np.where(mask, fine.label[fine.view][::_FINE, ::_FINE, ::_FINE], 0).astype(np.uint8)
