"""Images of the simulated study: T2w, T2*w and the three images of magnetization transfer.

Everything is drawn on a grid finer than the images, as outlines whose edges fill voxels in part, then
averaged to voxels, weighted by coil sensitivity, and made noisy as the magnitude of a complex signal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, mt_saturation_signal
from cordqa.records import Volume
from cordqa.simulate.cord.people import FOV_MM, CordPerson, cord_centre, draw_section, level_borders
from cordqa.simulate.cord.study_records import CordScan, CordScanner

__all__ = [
    "Grid",
    "Pose",
    "disc_labels",
    "receive",
    "sidecar_of",
    "t2_scan",
    "t2star_scan",
    "transfer_scans",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

_OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Pose:
    """How the person lies this time: shift (right, anterior, superior) in mm, and turn in degrees."""

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_deg: float = 0.0

    def of_person(self, x: Floats, y: Floats) -> tuple[Array, Array]:
        """Coordinates of the person (right, anterior; mm) of places in the scanner."""
        turn = math.radians(self.turn_deg)
        dx, dy = x - self.shift_mm[0], y - self.shift_mm[1]
        px = (math.cos(turn) * dx + math.sin(turn) * dy).astype(np.float32)
        py = (math.cos(turn) * dy - math.sin(turn) * dx).astype(np.float32)
        return px, py


@dataclass(slots=True)
class Grid:
    """Voxel centres of an image in mm; the middle of the field of view is the origin."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = [round(fov / step) for fov, step in zip(FOV_MM, self.spacing_mm, strict=True)]
        self.shape = (counts[0], counts[1], counts[2])

    def axis(self, number: int, *, fine: int = 1) -> Floats:
        """Centres of voxels along an axis, or of ``fine`` parts of each."""
        step = self.spacing_mm[number] / fine
        count = self.shape[number] * fine
        return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=float)

    def affine(self) -> Floats:
        """Map indices (right, anterior, superior) to millimetres."""
        matrix: Floats = np.diag([*self.spacing_mm, 1.0]).astype(np.float64)
        matrix[:3, 3] = [self.axis(n)[0] for n in range(3)]
        return matrix


def render(
    person: CordPerson,
    grid: Grid,
    pose: Pose,
    signal: Mapping[str, float],
    *,
    blur_mm: float,
    fine: int = _OVERSAMPLING,
    part_mm: float = 1.0,
) -> Array:
    """Ideal image: tissues painted over each other on a fine grid, blurred, averaged to voxels."""
    from scipy.ndimage import gaussian_filter

    # Thick slices need more parts along the cord than thin ones.
    along = max(1, round(grid.spacing_mm[2] / part_mm))
    x, y = np.meshgrid(grid.axis(0, fine=fine), grid.axis(1, fine=fine), indexing="ij")
    px, py = pose.of_person(x, y)
    pixel = grid.spacing_mm[0] / fine
    out = np.zeros(grid.shape, dtype=np.float32)
    for n, height in enumerate(grid.axis(2, fine=along) - pose.shift_mm[2]):
        plane = np.zeros(x.shape, dtype=np.float32)
        for tissue, part in draw_section(person, float(height), px, py, pixel).items():
            plane += part * (np.float32(signal[tissue]) - plane)
        plane = gaussian_filter(plane, blur_mm / pixel)
        small = plane.reshape(grid.shape[0], fine, grid.shape[1], fine).mean(axis=(1, 3))
        out[:, :, n // along] += small / along
    return out


def receive(ideal: Array, grid: Grid, scanner: CordScanner, noise: float, rng: np.random.Generator) -> Array:
    """Weight by coil sensitivity, add complex noise, take the magnitude, scale."""
    x, y, z = (grid.axis(n).astype(np.float32) for n in range(3))
    u, v, w = x / 40.0, y / 40.0, z / 60.0
    shade = 1.0 + scanner.shading * (
        0.6 * v[None, :, None] + 0.3 * u[:, None, None] - 0.4 * w[None, None, :] ** 2
    )
    real = ideal * shade + noise * rng.standard_normal(ideal.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(ideal.shape, dtype=np.float32)
    return np.asarray(np.rint(scanner.gain * np.hypot(real, imaginary)), dtype=np.float32)


def sidecar_of(scanner: CordScanner, **more: Any) -> dict[str, Any]:
    """What a sidecar says of the scanner, and what is given."""
    return {
        "Manufacturer": scanner.vendor,
        "ManufacturersModelName": scanner.model,
        "SoftwareVersions": scanner.software,
        "DeviceSerialNumber": scanner.serial,
        "InstitutionName": scanner.site,
        "MagneticFieldStrength": 3,
        **more,
    }


def t2_scan(
    person: CordPerson, scanner: CordScanner, session: str, pose: Pose, rng: np.random.Generator
) -> CordScan:
    """T2-weighted image with nearly cubic voxels."""
    grid = Grid(scanner.t2_voxel_mm)
    ideal = render(person, grid, pose, scanner.t2_contrast, blur_mm=scanner.blur_mm)
    data = receive(ideal, grid, scanner, scanner.noise * scanner.t2_contrast["WM"], rng)
    return CordScan(
        suffix="T2w",
        entities={"sub": person.subject, "ses": session},
        volume=Volume(data=data, affine=grid.affine()),
        sidecar=sidecar_of(scanner, RepetitionTime=1.5, EchoTime=0.12, FlipAngle=120),
    )


def t2star_scan(
    person: CordPerson, scanner: CordScanner, session: str, pose: Pose, rng: np.random.Generator
) -> CordScan:
    """T2*-weighted image of high resolution in the plane, in which grey matter is the brighter one."""
    grid = Grid(scanner.t2star_voxel_mm)
    ideal = render(person, grid, pose, scanner.t2star_contrast, blur_mm=scanner.blur_mm, fine=1, part_mm=2.0)
    data = receive(ideal, grid, scanner, scanner.noise * scanner.t2star_contrast["WM"], rng)
    return CordScan(
        suffix="T2starw",
        entities={"sub": person.subject, "ses": session},
        volume=Volume(data=data, affine=grid.affine()),
        sidecar=sidecar_of(scanner, RepetitionTime=0.6, EchoTime=0.014, FlipAngle=30),
    )


def transfer_scans(
    person: CordPerson,
    scanner: CordScanner,
    session: str,
    pose: Pose,
    rng: np.random.Generator,
    *,
    changed: bool,
) -> tuple[list[CordScan], dict[str, float], dict[str, tuple[float, float]]]:
    """MT-on, MT-off and T1w, the truth of MTR, and the movement of the last two."""
    grid = Grid(scanner.mt_voxel_mm)
    mt_on = SpoiledEcho(
        repetition_time_s=scanner.mt_echo.repetition_time_s * (1.17 if changed else 1.0),
        flip_angle_deg=scanner.mt_echo.flip_angle_deg,
    )
    plan = (
        ({"flip": "1", "mt": "on"}, mt_on, True),
        ({"flip": "1", "mt": "off"}, scanner.mt_echo, False),
        ({"flip": "2", "mt": "off"}, scanner.t1_echo, False),
    )
    scans, shifts = [], {}
    level = 0.0
    for number, (names, echo, saturated) in enumerate(plan):
        moved = (0.0, 0.0) if number == 0 else (float(rng.normal(0, 0.35)), float(rng.normal(0, 0.35)))
        if number:
            shifts["off" if number == 1 else "T1w"] = moved
        where = Pose(
            (pose.shift_mm[0] + moved[0], pose.shift_mm[1] + moved[1], pose.shift_mm[2]), pose.turn_deg
        )
        signal = _spoiled_signal(person, scanner, echo, saturated=saturated)
        ideal = render(person, grid, where, signal, blur_mm=scanner.blur_mm)
        level = level or signal["WM"]
        scans.append(
            CordScan(
                suffix="MTS",
                entities={"sub": person.subject, "ses": session, **names},
                # One gain for all three: they are one protocol.  Signals are a few percent of M0.
                volume=Volume(
                    data=receive(ideal / level, grid, scanner, scanner.noise, rng), affine=grid.affine()
                ),
                sidecar=sidecar_of(
                    scanner,
                    RepetitionTime=round(echo.repetition_time_s, 6),
                    FlipAngle=echo.flip_angle_deg,
                    EchoTime=0.003,
                    MTState=saturated,
                ),
            )
        )
    on = _spoiled_signal(person, scanner, mt_on, saturated=True)
    off = _spoiled_signal(person, scanner, scanner.mt_echo, saturated=False)
    return scans, {t: 100.0 * (1.0 - on[t] / off[t]) for t in ("WM", "GM")}, shifts


#: T1 (s), saturation and signal at full relaxation of what is around the cord.
_AROUND: Mapping[str, tuple[float, float, float]] = {
    "MUSCLE": (1.3, 0.03, 0.75),
    "FAT": (0.38, 0.0, 0.6),
    "BONE": (0.6, 0.005, 0.35),
    "CORTEX": (0.5, 0.01, 0.06),
    "DISC": (1.0, 0.02, 0.4),
    "AIR": (1.0, 0.0, 0.005),
    "CSF": (3.8, 0.0, 1.0),
}
_CORD_M0 = {"WM": 0.68, "GM": 0.76}


def _spoiled_signal(
    person: CordPerson, scanner: CordScanner, echo: SpoiledEcho, *, saturated: bool
) -> dict[str, float]:
    """Signal of every tissue; the pulse saturates with the square of the transmit field."""
    tissues = dict(_AROUND)
    tissues |= {name: (person.t1_s[name], person.mtsat[name], m0) for name, m0 in _CORD_M0.items()}
    return {
        name: float(
            mt_saturation_signal(
                m0, t1_s, saturation * scanner.transmit**2 if saturated else 0.0, echo, b1=scanner.transmit
            )
        )
        for name, (t1_s, saturation, m0) in tissues.items()
    }


def disc_labels(person: CordPerson, pose: Pose, image: Volume) -> Volume:
    """Label the back of each disc that lies in the image: value N above vertebra N."""
    data = np.zeros(image.data.shape, dtype=np.int16)
    height = level_borders(person)
    turn = math.radians(pose.turn_deg)
    right, front, _, _ = cord_centre(person, height)
    for n, (x, y, z) in enumerate(zip(right, front + 8.0, height, strict=True)):
        place = (
            math.cos(turn) * x - math.sin(turn) * y + pose.shift_mm[0],
            math.sin(turn) * x + math.cos(turn) * y + pose.shift_mm[1],
            z + pose.shift_mm[2],
            1.0,
        )
        index = np.rint(np.linalg.solve(image.affine, place)[:3]).astype(int)
        if ((index >= 0) & (index < data.shape)).all():
            data[tuple(index)] = n + 2
    return Volume(data=data, affine=image.affine)
