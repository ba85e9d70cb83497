"""A multi-echo gradient-echo scan as it was stored, and as the pipeline needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.susceptibility.dipole import unit_direction
from cordqa.models.susceptibility.echo_input import (
    check_echo_times,
    check_magnitude,
    find_missing,
    from_complex,
)
from cordqa.models.susceptibility.geometry import b0_from_affine, voxel_size_mm
from cordqa.models.susceptibility.phase_input import detect_scaling
from cordqa.models.susceptibility.physics import hertz_per_ppm

__all__ = ["Echoes", "Scan", "find_slice_axis", "prepare_scan"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Echoes as they were stored.

    Attributes
    ----------
    phase, magnitude : ndarray, shape (x, y, z, n_echoes)
        Phase in any vendor's scaling; with ``parts`` the real and the imaginary part instead.
    echo_times_s : sequence of float
        Increasing, in seconds.
    affine : ndarray, shape (4, 4)
        Maps array indices to RAS+ millimetres.
    field_strength_t : float
    b0_direction : sequence of float, optional
        In array axes; from the affine otherwise, for a person along the bore.
    phase_range : sequence of two floats, optional
        Stored values of -pi and pi; found out otherwise.
    parts : bool
        Whether ``phase`` and ``magnitude`` are the real and the imaginary part.
    encoding : {'', '2D', '3D'}
        Whether slices were excited one by one; empty where nothing tells.
    slice_direction : str
        ``SliceEncodingDirection`` of the sidecar; empty where it does not tell.
    """

    phase: NDArray[np.floating]
    magnitude: NDArray[np.floating]
    echo_times_s: Sequence[float] | Array
    affine: Array
    field_strength_t: float
    b0_direction: Sequence[float] | Array | None = None
    phase_range: Sequence[float] | None = None
    parts: bool = False
    encoding: str = ""
    slice_direction: str = ""


#: An edge of a voxel longer than both others by this factor is the thickness of a slice.
_THICKER = 1.3
#: Converters store a stack of slices along the last axis.
_STACKED = 2


def find_slice_axis(direction: str, voxel_size_mm: Array) -> int:
    """Find the array axis along which slices lie.

    Parameters
    ----------
    direction : str
        ``SliceEncodingDirection`` of the sidecar (``i``, ``j`` or ``k``, with or without ``-``); empty where
        it does not tell.
    voxel_size_mm : ndarray, shape (3,)

    Returns
    -------
    int
        What the sidecar says, else the longest edge of a voxel if it is clearly longest, else the last.
    """
    told = direction.strip().lower().rstrip("-")
    if told in ("i", "j", "k"):
        return "ijk".index(told)
    order = np.argsort(voxel_size_mm)
    if voxel_size_mm[order[2]] >= _THICKER * voxel_size_mm[order[1]]:
        return int(order[2])
    return _STACKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoes:
    """Echoes ready for unwrapping.

    Attributes
    ----------
    phase : ndarray of float32, shape (x, y, z, n_echoes)
        Wrapped, rad; 0 in voxels that are missing.
    magnitude : ndarray of float32, same shape
        0 in voxels that are missing.
    times_s : ndarray, shape (n_echoes,)
    voxel_size_mm, b0_direction : ndarray, shape (3,)
    field_strength_t : float
    missing : dict of str to ndarray of bool
        Voxels without a phase, by reason.
    sentences : tuple of str
        For the methods text.
    warnings : tuple of str
        What a reader must not overlook.
    encoding : {'', '2D', '3D'}
    slice_axis : int
        Array axis along which the slices lie.
    """

    phase: Single
    magnitude: Single
    times_s: Array
    voxel_size_mm: Array
    b0_direction: Array
    field_strength_t: float
    missing: dict[str, Mask]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    encoding: str = ""
    slice_axis: int = _STACKED


def prepare_scan(scan: Scan) -> Echoes:
    """Check a scan and bring its phase to radians.

    Raises
    ------
    InputError
        If shapes differ, echo times cannot be seconds, the phase is no wrapped phase, the magnitude
        is no magnitude, the grid is sheared, or the field strength is not that of a scanner.
    """
    _check_shapes(scan.phase, scan.magnitude)
    times = check_echo_times(scan.echo_times_s, scan.phase.shape[-1])
    hertz_per_ppm(scan.field_strength_t)
    if scan.b0_direction is None:
        direction, origin = b0_from_affine(scan.affine), "from the affine"
    else:
        direction, origin = unit_direction(scan.b0_direction), "given by the user"
    doubts: tuple[str, ...] = ()
    if scan.parts:
        phase, magnitude = from_complex(scan.phase, scan.magnitude)
        words = "Phase and magnitude were computed from real and imaginary part."
    else:
        check_magnitude(scan.magnitude)
        scaling = detect_scaling(scan.phase, phase_range=scan.phase_range)
        phase, magnitude = scaling.radians(scan.phase), np.asarray(scan.magnitude, dtype=np.float32)
        words = scaling.sentence[0].upper() + scaling.sentence[1:]
        doubts = (scaling.warning,) if scaling.warning else ()
    missing = find_missing(scan.phase, magnitude)
    for where in missing.values():
        phase[where], magnitude = 0.0, _without(magnitude, where)
    axes = ", ".join(f"{value:.3f}" for value in direction)
    return Echoes(
        phase=phase,
        magnitude=magnitude,
        times_s=times,
        voxel_size_mm=voxel_size_mm(scan.affine),
        b0_direction=direction,
        field_strength_t=scan.field_strength_t,
        missing=missing,
        sentences=(words, f"The main field points along ({axes}) in array axes ({origin})."),
        warnings=doubts,
        encoding=scan.encoding,
        slice_axis=find_slice_axis(scan.slice_direction, voxel_size_mm(scan.affine)),
    )


def _without(magnitude: Single, where: Mask) -> Single:
    if not where.any():
        return magnitude
    silent = magnitude.copy()
    silent[where] = 0.0
    return silent


def _check_shapes(phase: NDArray[np.floating], magnitude: NDArray[np.floating]) -> None:
    if phase.ndim != 4:
        raise InputError(
            "the phase must have three dimensions and one for the echoes",
            found=f"{phase.ndim} dimensions",
            todo="give a 4D file, or one file per echo",
        )
    if magnitude.shape != phase.shape:
        raise InputError(
            "phase and magnitude do not have the same echoes",
            found=f"{magnitude.shape[-1]} of magnitude, {phase.shape[-1]} of phase"
            if magnitude.shape[:-1] == phase.shape[:-1]
            else f"{magnitude.shape} and {phase.shape}",
            todo="give both for every echo, in the same order",
        )
