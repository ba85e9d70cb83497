"""The diffusion series of the simulated study.

Every tissue is rendered once, as the part that it fills of each pixel of a fine grid.  A volume is the sum
of the tissues' signals, moved by whole fine pixels, so that motion needs no interpolation that the
correction could share.  Tissues have one Gaussian compartment: FA and MD are what they are, for any b.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cordqa.models.diffusion.gaussian import axial_tensor, gaussian_signal
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Volume
from cordqa.simulate.cord.diffusion import cord_scheme
from cordqa.simulate.cord.people import CordPerson, cord_centre, draw_section
from cordqa.simulate.cord.study_images import Grid, Pose, receive, sidecar_of
from cordqa.simulate.cord.study_records import CordScan, CordScanner

__all__ = ["axial_anisotropy", "diffusion_scan"]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

_FINE = 2
_PARTS = 2
#: Signal without weighting over that of white matter, and mean diffusivity (um2/ms), around the cord.
_AROUND = {
    "MUSCLE": (0.45, 1.4),
    "FAT": (0.10, 0.05),
    "BONE": (0.20, 0.6),
    "CORTEX": (0.05, 0.5),
    "DISC": (0.40, 1.2),
    "AIR": (0.0, 1.0),
    "CSF": (2.2, 3.0),
}
_CORD = {"WM": 1.0, "GM": 1.1}
_DIRECTIONS, _B_VALUE, _EVERY = 20, 800.0, 6
#: A step of the cord's random walk from volume to volume, and how fast it comes back.
_STEP_MM, _BACK = 0.25, 0.85


def axial_anisotropy(along: float, across: float) -> float:
    """Fractional anisotropy of a tensor with one diffusivity along an axis and another across it."""
    return (along - across) / math.sqrt(along**2 + 2.0 * across**2)


def diffusion_scan(
    person: CordPerson, scanner: CordScanner, session: str, pose: Pose, rng: np.random.Generator
) -> CordScan:
    """Diffusion series of thick slices across the cord, which moves from volume to volume."""
    grid = Grid(scanner.dwi_voxel_mm)
    gradients = cord_scheme(directions=_DIRECTIONS, b_values_s_mm2=(_B_VALUE,), every=_EVERY)
    parts = _parts(person, grid, pose, scanner.blur_mm)
    signals = _signals(person, grid, pose, gradients)
    shifts = _walk(len(gradients), grid, rng)
    data = np.empty((*grid.shape, len(gradients)), dtype=np.float32)
    for v in range(len(gradients)):
        plane = np.zeros(next(iter(parts.values())).shape, dtype=np.float32)
        for tissue, part in parts.items():
            plane += part * signals[tissue][v].astype(np.float32)
        ideal = _voxels(np.roll(plane, shifts[v], axis=(0, 1)), grid)
        data[..., v] = receive(ideal, grid, scanner, scanner.dwi_noise, rng)
    return CordScan(
        suffix="dwi",
        entities={"sub": person.subject, "ses": session},
        volume=Volume(data=data, affine=grid.affine()),
        sidecar=sidecar_of(
            scanner, RepetitionTime=3.0, EchoTime=0.06, FlipAngle=90, PhaseEncodingDirection="j"
        ),
        gradients=gradients,
    )


def _parts(person: CordPerson, grid: Grid, pose: Pose, blur_mm: float) -> dict[str, Array]:
    """Part of every fine pixel that shows each tissue, shape (n_fine_right, n_fine_anterior, n_slices)."""
    from scipy.ndimage import gaussian_filter

    x, y = np.meshgrid(grid.axis(0, fine=_FINE), grid.axis(1, fine=_FINE), indexing="ij")
    px, py = pose.of_person(x, y)
    pixel = grid.spacing_mm[0] / _FINE
    out: dict[str, Array] = {}
    for n, height in enumerate(grid.axis(2, fine=_PARTS) - pose.shift_mm[2]):
        section = draw_section(person, float(height), px, py, pixel)
        rest = np.ones(x.shape, dtype=np.float32)
        # What is painted last hides what lies below it.
        for tissue, part in reversed(section.items()):
            shown = out.setdefault(tissue, np.zeros((*x.shape, grid.shape[2]), dtype=np.float32))
            shown[:, :, n // _PARTS] += rest * part / _PARTS
            rest = rest * (1 - part)
    sd = (blur_mm / pixel, blur_mm / pixel, 0.0)
    return {tissue: gaussian_filter(part, sd) for tissue, part in out.items()}


def _signals(person: CordPerson, grid: Grid, pose: Pose, gradients: GradientTable) -> dict[str, Floats]:
    """Signal of each tissue, shape (n_volumes, n_slices): the cord runs another way in every slice."""
    found = {
        tissue: np.repeat(level * np.exp(-gradients.b_ms_um2 * mean)[:, None], grid.shape[2], axis=1)
        for tissue, (level, mean) in _AROUND.items()
    }
    _, _, right, front = cord_centre(person, grid.axis(2) - pose.shift_mm[2])
    turn = math.radians(pose.turn_deg)
    axes = np.column_stack(
        [
            math.cos(turn) * right - math.sin(turn) * front,
            math.sin(turn) * right + math.cos(turn) * front,
            np.ones(right.size),
        ]
    )
    for tissue, level in _CORD.items():
        along, across = person.diffusivity[tissue]
        found[tissue] = level * np.column_stack(
            [
                gaussian_signal(gradients, axial_tensor(axis, along_um2_ms=along, across_um2_ms=across))
                for axis in axes
            ]
        )
    return found


def _walk(count: int, grid: Grid, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Shift of every volume in whole fine pixels."""
    place, shifts = np.zeros(2), []
    pixel = np.array(grid.spacing_mm[:2]) / _FINE
    for _ in range(count):
        place = _BACK * place + rng.normal(0.0, _STEP_MM, 2)
        steps = np.rint(place / pixel).astype(int)
        shifts.append((int(steps[0]), int(steps[1])))
    return shifts


def _voxels(plane: Array, grid: Grid) -> Array:
    small = plane.reshape(grid.shape[0], _FINE, grid.shape[1], _FINE, grid.shape[2]).mean(axis=(1, 3))
    return np.asarray(small, dtype=np.float32)
