"""A study of people's cords on scanners of three vendors, with known areas and tissue values.

Each person has a cord of their own: curved, tilted, wider in the cervical enlargement, with a
butterfly of grey matter.  Everything is drawn on a grid twice as fine as the images, as outlines whose
edges fill voxels in part, then averaged to voxels, weighted by coil sensitivity, and made noisy as the
magnitude of a complex signal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho, mt_saturation_signal
from cordqa.records import Volume
from cordqa.simulate.cord.shapes import (
    capsule_distance,
    coverage,
    ellipse_distance,
    polar,
    star_distance,
    superellipse_radii,
)

__all__ = [
    "CordPerson",
    "CordScan",
    "CordScanner",
    "CordTruth",
    "CordVisit",
    "cord_scanners",
    "simulate_study",
    "simulate_visit",
]

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Vertebrae that are simulated, with the height of vertebra and disc in mm of an average person.
LEVELS = ("C2", "C3", "C4", "C5", "C6", "C7")
_HEIGHT_MM = (18.0, 16.5, 16.5, 16.5, 16.5, 17.5)
#: Area relative to the person's own, at the middle of each level: the cervical enlargement.
_PROFILE = (0.98, 1.0, 1.05, 1.06, 1.0, 0.9)
#: Right-left over antero-posterior diameter.
_ASPECT = (1.45, 1.55, 1.68, 1.75, 1.72, 1.6)
#: Field of view below the top of C2 is longer than the levels, so that both ends are cut.
_FOV_MM = (52.0, 64.0, 92.0)
_OVERSAMPLING = 2
#: Exponent of the outline: a little squarer than an ellipse.
_EXPONENT = 2.15


@dataclass(frozen=True, slots=True, kw_only=True)
class CordPerson:
    """One person.

    Attributes
    ----------
    subject : str
    age : int
    sex : str
        ``F`` or ``M``.
    area_mm2 : float
        Cross-sectional area that the profile along the cord multiplies.
    stretch : float
        Heights of the vertebrae over those of an average person.
    curve_mm, tilt : (float, float)
        Sagitta of the cord's curve (right, anterior), and its slope at mid-height.
    grey_share : float
        Scale of the butterfly.
    mtsat : mapping
        Saturation per TR by tissue, as a fraction: WM, GM.
    t1_s : mapping
        T1 by tissue.
    """

    subject: str
    age: int
    sex: str
    area_mm2: float
    stretch: float
    curve_mm: tuple[float, float]
    tilt: tuple[float, float]
    grey_share: float
    mtsat: Mapping[str, float]
    t1_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CordScanner:
    """One scanner: its protocol, sharpness, noise, sensitivity and transmit field.

    ``t2_contrast`` is the signal of each tissue in the T2-weighted image; ``blur_mm`` the standard
    deviation of its point spread beyond the voxel itself; ``noise`` relative to white matter.
    """

    site: str
    vendor: str
    model: str
    software: str
    serial: str
    t2_voxel_mm: tuple[float, float, float]
    mt_voxel_mm: tuple[float, float, float]
    t2_contrast: Mapping[str, float]
    mt_echo: SpoiledEcho
    t1_echo: SpoiledEcho
    blur_mm: float
    noise: float
    transmit: float
    shading: float
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CordScan:
    """One image with its place in BIDS."""

    suffix: str
    entities: Mapping[str, str]
    volume: Volume
    sidecar: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CordTruth:
    """What a perfect analysis of a visit would find.

    Attributes
    ----------
    csa_mm2 : mapping
        Mean area perpendicular to the cord, by level.
    mtr_percent, mtsat_percent, t1_ms : mapping
        By tissue (WM, GM), as this scanner's protocol shows it; MTsat and T1 are those of the tissue.
    shift_mm : mapping
        In-plane movement (right, anterior) of MT-off and T1w against MT-on.
    """

    subject: str
    session: str
    site: str
    csa_mm2: Mapping[str, float]
    mtr_percent: Mapping[str, float]
    mtsat_percent: Mapping[str, float]
    t1_ms: Mapping[str, float]
    shift_mm: Mapping[str, tuple[float, float]]
    planted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CordVisit:
    """One person on one scanner once: images, disc labels of the T2w image, truth."""

    person: CordPerson
    scanner: CordScanner
    session: str
    scans: tuple[CordScan, ...]
    discs: Volume
    truth: CordTruth


@dataclass(frozen=True, slots=True)
class _Pose:
    """How the person lies this time: shift (right, anterior, superior) in mm, and turn in degrees."""

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_deg: float = 0.0


@dataclass(slots=True)
class _Grid:
    """Voxel centres of an image in mm; the middle of the field of view is the origin."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = [round(fov / step) for fov, step in zip(_FOV_MM, self.spacing_mm, strict=True)]
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


def cord_scanners() -> tuple[CordScanner, ...]:
    """Return three invented scanners that differ as real ones of three vendors do."""
    tissues = ("MUSCLE", "FAT", "BONE", "CORTEX", "DISC", "AIR", "CSF", "WM", "GM")

    def contrast(*values: float) -> dict[str, float]:
        return dict(zip(tissues, values, strict=True))

    return (
        CordScanner(
            site="Site A", vendor="Siemens", model="Simulated S", software="simulated 1.0", serial="1001",
            t2_voxel_mm=(0.8, 0.8, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.16, 0.42, 0.30, 0.05, 0.35, 0.01, 1.0, 0.36, 0.41),
            mt_echo=SpoiledEcho(repetition_time_s=0.035, flip_angle_deg=9.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.011, flip_angle_deg=15.0),
            blur_mm=0.25, noise=0.025, transmit=1.0, shading=0.25, gain=900.0,
        ),
        CordScanner(
            site="Site B", vendor="GE", model="Simulated G", software="simulated 2.3", serial="2002",
            t2_voxel_mm=(1.0, 1.0, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.22, 0.55, 0.34, 0.06, 0.30, 0.01, 0.95, 0.40, 0.44),
            mt_echo=SpoiledEcho(repetition_time_s=0.033, flip_angle_deg=10.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.012, flip_angle_deg=18.0),
            blur_mm=0.40, noise=0.035, transmit=0.95, shading=-0.3, gain=4200.0,
        ),
        CordScanner(
            site="Site C", vendor="Philips", model="Simulated P", software="simulated 5.7", serial="3003",
            t2_voxel_mm=(0.9, 0.9, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.14, 0.38, 0.26, 0.04, 0.40, 0.01, 1.0, 0.33, 0.37),
            mt_echo=SpoiledEcho(repetition_time_s=0.038, flip_angle_deg=9.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.014, flip_angle_deg=16.0),
            blur_mm=0.30, noise=0.030, transmit=1.04, shading=0.35, gain=260.0,
        ),
    )  # fmt: skip


def simulate_study(
    *,
    seed: int = 20_201,
    n_people: int = 4,
    n_repeats: int = 2,
    scanners: Sequence[CordScanner] | None = None,
) -> Iterator[CordVisit]:
    """Send the same people to every scanner, several times each.

    One visit has a planted fault: the repetition time of MT-on was changed between the two images.

    Parameters
    ----------
    seed : int
        The same seed gives the same study, whatever part of it is drawn.
    n_people, n_repeats : int
        At least 1 each; sessions are named after the site and the repeat (``A1``).

    Raises
    ------
    ConfigError
        If a number is below 1.
    """
    if n_people < 1 or n_repeats < 1:
        raise ConfigError(
            "a study needs people and sessions", found=f"{n_people} and {n_repeats}", expected=">= 1"
        )
    scanners = scanners or cord_scanners()
    for number in range(n_people):
        person = _draw_person(np.random.default_rng([seed, number]), number)
        for place, scanner in enumerate(scanners):
            for repeat in range(n_repeats):
                session = f"{scanner.site.rpartition(' ')[2]}{repeat + 1}"
                faulty = number == n_people - 1 and place == len(scanners) - 1 and repeat == n_repeats - 1
                rng = np.random.default_rng([seed, number, place, repeat])
                yield simulate_visit(person, scanner, session, rng, changed_repetition=faulty)


def _draw_person(rng: np.random.Generator, number: int) -> CordPerson:
    sex = "FM"[number % 2]
    return CordPerson(
        subject=f"{number + 1:02d}",
        age=int(rng.integers(22, 60)),
        sex=sex,
        area_mm2=float(np.clip(rng.normal(72.0 if sex == "F" else 77.0, 6.0), 58.0, 92.0)),
        stretch=float(rng.uniform(0.94, 1.06)),
        curve_mm=(float(rng.normal(0.0, 0.5)), float(rng.uniform(1.0, 4.0))),
        tilt=(float(rng.normal(0.0, 0.02)), float(rng.uniform(-0.12, 0.15))),
        grey_share=float(rng.uniform(0.92, 1.08)),
        mtsat={"WM": float(rng.normal(0.0205, 0.0008)), "GM": float(rng.normal(0.0155, 0.0006))},
        t1_s={"WM": float(rng.normal(1.05, 0.03)), "GM": float(rng.normal(1.20, 0.03))},
    )


def simulate_visit(
    person: CordPerson,
    scanner: CordScanner,
    session: str,
    rng: np.random.Generator,
    *,
    changed_repetition: bool = False,
) -> CordVisit:
    """Scan one person: T2w, MT-on, MT-off and T1w, with movement between the images.

    Parameters
    ----------
    changed_repetition : bool
        Plant a fault: MT-on has a longer repetition time, as it happens when a protocol is edited.
    """
    pose = _Pose(
        (float(rng.normal(0, 1.5)), float(rng.normal(0, 1.5)), float(rng.normal(0, 2.0))),
        float(rng.normal(0, 1.5)),
    )
    t2 = _t2_scan(person, scanner, session, pose, rng)
    transfer, mtr, shifts = _transfer_scans(person, scanner, session, pose, rng, changed=changed_repetition)
    planted: tuple[str, ...] = ()
    if changed_repetition:
        planted = (f"sub-{person.subject} ses-{session}: MT-on has a longer repetition time than MT-off",)
    truth = CordTruth(
        subject=person.subject,
        session=session,
        site=scanner.site,
        csa_mm2=true_areas(person),
        mtr_percent=mtr,
        mtsat_percent={tissue: 100.0 * value for tissue, value in person.mtsat.items()},
        t1_ms={tissue: 1000.0 * value for tissue, value in person.t1_s.items()},
        shift_mm=shifts,
        planted=planted,
    )
    return CordVisit(
        person=person,
        scanner=scanner,
        session=session,
        scans=(t2, *transfer),
        discs=_discs(person, pose, t2.volume),
        truth=truth,
    )


# -- anatomy -----------------------------------------------------------------------------------------


def _borders(person: CordPerson) -> Floats:
    """Height of the discs above C2, above C3, ... below C7 in mm; the middle of C4/C5 is zero."""
    down = np.concatenate([[0.0], np.cumsum(_HEIGHT_MM)]) * person.stretch
    return np.asarray(down[3] - down)


def _along(person: CordPerson, values: Sequence[float], height: Floats) -> Floats:
    """Interpolate a property given at the middles of the levels."""
    border = _borders(person)
    middle = 0.5 * (border[1:] + border[:-1])
    return np.asarray(np.interp(height, middle[::-1], np.asarray(values)[::-1]), dtype=float)


def true_areas(person: CordPerson) -> dict[str, float]:
    """Mean area of each level, in mm2."""
    border = _borders(person)
    return {
        name: float(
            person.area_mm2 * _along(person, _PROFILE, np.linspace(border[n + 1], border[n], 101)).mean()
        )
        for n, name in enumerate(LEVELS)
    }


def _centre(person: CordPerson, height: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Place of the cord (right, anterior) at a height, and its slopes."""
    half = _FOV_MM[2] / 2
    u = height / half
    right = person.curve_mm[0] * (1 - u**2) + person.tilt[0] * height
    front = person.curve_mm[1] * (1 - u**2) + person.tilt[1] * height
    slope_right = -2 * person.curve_mm[0] * u / half + person.tilt[0]
    slope_front = -2 * person.curve_mm[1] * u / half + person.tilt[1]
    return right, front, slope_right, slope_front


def _unit_area() -> float:
    """Area of the outline whose half widths are one."""
    radii = superellipse_radii(1.0, 1.0, exponent=_EXPONENT)
    return float(0.5 * (radii**2).mean() * 2 * math.pi)


def _section(person: CordPerson, height: float, x: Array, y: Array, pixel_mm: float) -> dict[str, Array]:
    """Part of each pixel that each tissue fills, in painting order, at one height; x and y in mm."""
    place = np.array([height])
    right, front, slope_right, slope_front = (float(v[0]) for v in _centre(person, place))
    area = person.area_mm2 * float(_along(person, _PROFILE, place)[0])
    aspect = float(_along(person, _ASPECT, place)[0])
    half_y = math.sqrt(area / _unit_area() / aspect)
    half_x = aspect * half_y
    # The slice cuts the cord obliquely: seen along the cord, its section is shorter.
    u = (x - np.float32(right)) / np.float32(math.hypot(1.0, slope_right))
    v = (y - np.float32(front)) / np.float32(math.hypot(1.0, slope_front))
    border = _borders(person)
    level = int(np.clip(np.searchsorted(-border, -height) - 1, 0, len(LEVELS) - 1))
    in_disc = bool(np.abs(border - height).min() < 2.7)
    sac = (half_x + 3.0, half_y + 2.6)
    front_of_sac = sac[1] + 1.2
    parts: dict[str, Array] = {"MUSCLE": np.ones_like(x)}

    def paint(name: str, distance: Array) -> None:
        parts[name] = coverage(distance, pixel_mm)

    paint("FAT", np.float32(22.0) + v)
    paint("AIR", ellipse_distance(u, v, centre=(1.0, front_of_sac + 24.0), half=(7.0, 5.0)))
    body = ellipse_distance(u, v, centre=(0.0, front_of_sac + 8.0), half=(11.0 + 0.4 * level, 7.5))
    paint("CORTEX", np.minimum(body - np.float32(1.0), _arch(u, v, sac) - np.float32(0.8)))
    paint("DISC" if in_disc else "BONE", body if in_disc else np.minimum(body, _arch(u, v, sac)))
    paint("CSF", ellipse_distance(u, v, centre=(0.0, 0.2), half=sac))
    inside = coverage(
        star_distance(polar(u, v), superellipse_radii(half_x, half_y, exponent=_EXPONENT)), pixel_mm
    )
    parts["WM"] = inside
    parts["GM"] = np.minimum(coverage(_butterfly(u, v, half_x, half_y, person.grey_share), pixel_mm), inside)
    return parts


def _arch(x: Array, y: Array, sac: tuple[float, float]) -> Array:
    """Distance to laminae and spinous process behind the canal."""
    side, back = sac[0] + 1.5, -sac[1] - 1.5
    parts = [
        capsule_distance(np.abs(x), y, start=(side, -1.0), end=(2.0, back - 3.0), radius=1.8),
        capsule_distance(x, y, start=(0.0, back - 4.0), end=(0.0, back - 14.0), radius=2.2),
        ellipse_distance(np.abs(x), y, centre=(side + 6.0, 1.0), half=(4.5, 5.0)),
    ]
    return np.asarray(np.minimum(np.minimum(parts[0], parts[1]), parts[2]))


def _butterfly(x: Array, y: Array, half_x: float, half_y: float, scale: float) -> Array:
    """Signed distance to the grey matter: horns and commissure."""
    side = np.abs(x)
    hub = (0.30 * half_x, 0.05 * half_y)
    ventral, dorsal = (0.38 * half_x, 0.42 * half_y), (0.46 * half_x, -0.60 * half_y)
    wide, thin = 0.135 * half_x * scale, 0.075 * half_x * scale
    parts = (
        capsule_distance(side, y, start=(0.0, hub[1]), end=hub, radius=0.8 * thin),
        capsule_distance(side, y, start=hub, end=ventral, radius=wide),
        capsule_distance(side, y, start=hub, end=dorsal, radius=thin),
    )
    return np.asarray(np.minimum(np.minimum(parts[0], parts[1]), parts[2]))


# -- images ------------------------------------------------------------------------------------------


def _render(
    person: CordPerson, grid: _Grid, pose: _Pose, signal: Mapping[str, float], *, blur_mm: float
) -> Array:
    """Ideal image: tissues painted over each other on a fine grid, blurred, averaged to voxels."""
    from scipy.ndimage import gaussian_filter

    fine = _OVERSAMPLING
    # Thick slices need more parts along the cord than thin ones.
    along = max(1, round(grid.spacing_mm[2] / 1.0))
    x, y = np.meshgrid(grid.axis(0, fine=fine), grid.axis(1, fine=fine), indexing="ij")
    turn = math.radians(pose.turn_deg)
    dx, dy = x - pose.shift_mm[0], y - pose.shift_mm[1]
    px = (math.cos(turn) * dx + math.sin(turn) * dy).astype(np.float32)
    py = (math.cos(turn) * dy - math.sin(turn) * dx).astype(np.float32)
    pixel = grid.spacing_mm[0] / fine
    out = np.zeros(grid.shape, dtype=np.float32)
    for n, height in enumerate(grid.axis(2, fine=along) - pose.shift_mm[2]):
        plane = np.zeros(x.shape, dtype=np.float32)
        for tissue, part in _section(person, float(height), px, py, pixel).items():
            plane += part * (np.float32(signal[tissue]) - plane)
        plane = gaussian_filter(plane, blur_mm / pixel)
        small = plane.reshape(grid.shape[0], fine, grid.shape[1], fine).mean(axis=(1, 3))
        out[:, :, n // along] += small / along
    return out


def _receive(
    ideal: Array, grid: _Grid, scanner: CordScanner, noise: float, rng: np.random.Generator
) -> Array:
    """Weight by coil sensitivity, add complex noise, take the magnitude, scale."""
    x, y, z = (grid.axis(n).astype(np.float32) for n in range(3))
    u, v, w = x / 40.0, y / 40.0, z / 60.0
    shade = 1.0 + scanner.shading * (
        0.6 * v[None, :, None] + 0.3 * u[:, None, None] - 0.4 * w[None, None, :] ** 2
    )
    real = ideal * shade + noise * rng.standard_normal(ideal.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(ideal.shape, dtype=np.float32)
    return np.asarray(np.rint(scanner.gain * np.hypot(real, imaginary)), dtype=np.float32)


def _sidecar(scanner: CordScanner, **more: Any) -> dict[str, Any]:
    return {
        "Manufacturer": scanner.vendor,
        "ManufacturersModelName": scanner.model,
        "SoftwareVersions": scanner.software,
        "DeviceSerialNumber": scanner.serial,
        "InstitutionName": scanner.site,
        "MagneticFieldStrength": 3,
        **more,
    }


def _t2_scan(
    person: CordPerson, scanner: CordScanner, session: str, pose: _Pose, rng: np.random.Generator
) -> CordScan:
    grid = _Grid(scanner.t2_voxel_mm)
    ideal = _render(person, grid, pose, scanner.t2_contrast, blur_mm=scanner.blur_mm)
    data = _receive(ideal, grid, scanner, scanner.noise * scanner.t2_contrast["WM"], rng)
    return CordScan(
        suffix="T2w",
        entities={"sub": person.subject, "ses": session},
        volume=Volume(data=data, affine=grid.affine()),
        sidecar=_sidecar(scanner, RepetitionTime=1.5, EchoTime=0.12, FlipAngle=120),
    )


def _transfer_scans(
    person: CordPerson,
    scanner: CordScanner,
    session: str,
    pose: _Pose,
    rng: np.random.Generator,
    *,
    changed: bool,
) -> tuple[list[CordScan], dict[str, float], dict[str, tuple[float, float]]]:
    """MT-on, MT-off and T1w, the truth of MTR, and the movement of the last two."""
    grid = _Grid(scanner.mt_voxel_mm)
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
        where = _Pose(
            (pose.shift_mm[0] + moved[0], pose.shift_mm[1] + moved[1], pose.shift_mm[2]), pose.turn_deg
        )
        signal = _spoiled_signal(person, scanner, echo, saturated=saturated)
        ideal = _render(person, grid, where, signal, blur_mm=scanner.blur_mm)
        level = level or signal["WM"]
        scans.append(
            CordScan(
                suffix="MTS",
                entities={"sub": person.subject, "ses": session, **names},
                # One gain for all three: they are one protocol.  Signals are a few percent of M0.
                volume=Volume(
                    data=_receive(ideal / level, grid, scanner, scanner.noise, rng), affine=grid.affine()
                ),
                sidecar=_sidecar(
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


def _discs(person: CordPerson, pose: _Pose, image: Volume) -> Volume:
    """Label the back of each disc that lies in the image: value N above vertebra N."""
    data = np.zeros(image.data.shape, dtype=np.int16)
    height = _borders(person)
    turn = math.radians(pose.turn_deg)
    right, front, _, _ = _centre(person, height)
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
