"""A diffusion phantom of vials in a bath, scanned by echo-planar imaging on three vendors' scanners.

Vials are cylinders across the slice, drawn on a grid four times finer than the voxels and truncated
in k-space.  What echo-planar imaging adds is planted: the image is stretched along the phase-encoding
axis, a Nyquist ghost lies half a field of view away, noise is complex.  A gradient that strays from
linear off the isocentre changes the b-value with the place and the axis.  Geometry and diffusion
coefficients come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import ConfigError
from cordqa.records import Acquisition, Entities, ImageSet
from cordqa.simulate.rendering import downsampling_matrix

__all__ = [
    "DiffusionProtocol",
    "DiffusionScanner",
    "DigitalVial",
    "DigitalVials",
    "adc_map",
    "scan_diffusion",
    "three_diffusion_scanners",
    "trace_images",
]

Array = NDArray[np.float64]
Vector = tuple[float, float, float]

_OVERSAMPLING = 4
#: From (x left, y posterior, z superior) to RAS+.
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
#: Axes of the image in LPS: across the slice, down the rows, along the columns.
_PLANES: dict[str, tuple[Vector, Vector, Vector]] = {
    "coronal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
    "sagittal": ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "axial": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalVial:
    """One vial: place in its plane (mm), diffusion coefficient, T2 and density relative to water."""

    label: str
    position_mm: tuple[float, float]
    adc_um2_per_s: float
    t2_s: float = 0.8
    proton_density: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalVials:
    """Vials in a bath inside a ball.

    Attributes
    ----------
    vials : tuple of DigitalVial
    inner_diameter_mm, wall_mm : float
        Of every vial; the wall gives no signal.
    length_mm : float
        Of the vials, across the slices.
    bath_proton_density : float
        0 for a phantom without filling, which shows dark.
    bath_adc_um2_per_s, bath_t2_s : float
        Of the filling.
    body_diameter_mm : float
    """

    vials: tuple[DigitalVial, ...]
    inner_diameter_mm: float = 25.0
    wall_mm: float = 1.2
    length_mm: float = 50.0
    bath_proton_density: float = 1.0
    bath_adc_um2_per_s: float = 2000.0
    bath_t2_s: float = 1.5
    body_diameter_mm: float = 194.0

    def __post_init__(self) -> None:
        if not self.vials or not all(v.adc_um2_per_s > 0 and v.t2_s > 0 for v in self.vials):
            raise ConfigError("a phantom needs vials with positive diffusion coefficient and T2")
        if not (self.inner_diameter_mm > 0 and self.wall_mm >= 0 and self.length_mm > 0):
            raise ConfigError("vials need a positive diameter and length, and a wall of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionProtocol:
    """What is scanned.

    Attributes
    ----------
    b_values : tuple of float
        In s/mm2; 0 gives images without weighting.
    directions : tuple of tuple
        Unit vectors in patient coordinates (LPS).
    n_unweighted : int
        Images without weighting.
    echo_time_s, repetition_time_s : float
    """

    b_values: tuple[float, ...] = (0.0, 500.0, 900.0)
    directions: tuple[Vector, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    n_unweighted: int = 1
    echo_time_s: float = 0.090
    repetition_time_s: float = 10.0

    def images(self) -> list[tuple[float, Vector | None]]:
        """Return b-value and direction of every image in the order of acquisition."""
        out: list[tuple[float, Vector | None]] = []
        for b in self.b_values:
            repeats = [None] * self.n_unweighted if b == 0 else list(self.directions)
            out += [(b, direction) for direction in repeats]
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionScanner:
    """A scanner with what makes its diffusion images differ from the truth.

    Attributes
    ----------
    name, vendor, model : str
    field_strength_T : float
    plane : {'coronal', 'sagittal', 'axial'}
        Of the slices; the vials lie across it.
    rotation_deg, mirror : float, bool
        How the phantom lies in the slice.
    shift_mm : tuple of float
        Of the phantom, along rows and columns.
    matrix, field_of_view_mm : int, float
    n_slices, thickness_mm, slice_distance_mm : int, float, float
    stretch : float
        Apparent over true size along the phase-encoding axis (rows run along it).
    shear : float
        Shift along the phase-encoding axis per distance along the other.
    ghost : float
        Size of the Nyquist ghost over the signal.
    gain, noise_sd : float
        Image value of water without decay, and noise per channel relative to it.
    adc_scale : float
        Calibration error of the b-value, as a factor.
    nonlinearity : tuple of float
        Relative change of each gradient axis at 100 mm from the isocentre.
    blanks_background : bool
    bits_stored : int
    """

    name: str
    vendor: Literal["Siemens", "GE", "Philips"]
    model: str = "Simulated"
    field_strength_T: float = 3.0
    plane: Literal["coronal", "sagittal", "axial"] = "coronal"
    rotation_deg: float = 0.0
    mirror: bool = False
    shift_mm: tuple[float, float] = (0.0, 0.0)
    matrix: int = 128
    field_of_view_mm: float = 220.0
    n_slices: int = 1
    thickness_mm: float = 4.0
    slice_distance_mm: float = 4.0
    stretch: float = 1.0
    shear: float = 0.0
    ghost: float = 0.0
    gain: float = 3000.0
    noise_sd: float = 0.01
    adc_scale: float = 1.0
    nonlinearity: Vector = (0.0, 0.0, 0.0)
    blanks_background: bool = False
    bits_stored: int = 12


def three_diffusion_scanners() -> tuple[DiffusionScanner, ...]:
    """Return three invented scanners that differ in dialect, orientation and artefacts."""
    return (
        DiffusionScanner(
            name="SIM-A",
            vendor="Siemens",
            model="Simulated S",
            rotation_deg=7.0,
            shift_mm=(4.0, -3.0),
            stretch=1.02,
            ghost=0.01,
            n_slices=5,
        ),
        DiffusionScanner(
            name="SIM-B",
            vendor="GE",
            model="Simulated G",
            plane="axial",
            rotation_deg=-141.0,
            stretch=0.96,
            shear=0.02,
            ghost=0.02,
            adc_scale=1.02,
            nonlinearity=(-0.03, -0.02, -0.05),
            bits_stored=16,
        ),
        DiffusionScanner(
            name="SIM-C",
            vendor="Philips",
            model="Simulated P",
            plane="sagittal",
            rotation_deg=63.0,
            mirror=True,
            stretch=1.05,
            shear=-0.03,
            ghost=0.015,
            n_slices=3,
            gain=90_000.0,
            blanks_background=True,
        ),
    )


def scan_diffusion(
    phantom: DigitalVials,
    protocol: DiffusionProtocol,
    scanner: DiffusionScanner,
    rng: np.random.Generator,
    *,
    session: str = "01",
    acquired: str = "2026-03-02T08:30:00",
) -> ImageSet:
    """Scan a phantom; one image per weighting and direction, in the order of acquisition.

    Parameters
    ----------
    phantom, protocol, scanner
    rng : numpy.random.Generator
        Source of the noise.
    session, acquired : str
        Of the visit; ISO 8601.

    Returns
    -------
    ImageSet
        Values before they are stored; ``acquisitions`` hold the scale to store them with.
    """
    planned = protocol.images()
    encodings = [_weights(phantom, protocol, scanner, b, direction) for b, direction in planned]
    data = np.empty((len(planned), scanner.n_slices, scanner.matrix, scanner.matrix), dtype=np.float32)
    for index in range(scanner.n_slices):
        maps = _coverage(phantom, scanner, index)
        for image, signals in enumerate(encodings):
            data[image, index] = _receive(np.tensordot(signals, maps, axes=1), scanner, rng)
        if scanner.blanks_background:
            data[:, index, np.abs(maps).sum(axis=0) < 0.02] = 0.0
    data *= np.float32(scanner.gain)
    pixel = scanner.field_of_view_mm / scanner.matrix
    slope = _slope(scanner, float(data.max()))
    return ImageSet(
        data=data,
        affine=_affine(scanner),
        spacing_mm=(scanner.slice_distance_mm, pixel, pixel),
        acquisitions=tuple(_header(b, d, protocol, scanner, slope) for b, d in planned),
        entities=_entities(scanner, session, acquired),
        label=f"{scanner.vendor}, simulated diffusion",
    )


def trace_images(images: ImageSet) -> ImageSet:
    """Return the geometric mean over the directions of each b-value, as scanners store it."""
    b = images.values("b_value_s_per_mm2")
    kept, data = [], []
    for value in np.unique(b):
        mine = np.flatnonzero(b == value)
        data.append(np.exp(np.log(np.maximum(images.data[mine], 1e-3)).mean(axis=0)))
        encoding = "trace" if value > 0 else "none"
        header = images.acquisitions[int(mine[0])]
        kept.append(replace(header, diffusion_encoding=encoding, diffusion_direction=()))
    return replace(images, data=np.array(data, dtype=np.float32), acquisitions=tuple(kept))


def adc_map(images: ImageSet, *, unit_um2_per_s: float = 1.0) -> ImageSet:
    """Return the map that a scanner computes from lowest and highest b-value, in the given unit."""
    trace = trace_images(images)
    b = trace.values("b_value_s_per_mm2")
    low, high = int(np.argmin(b)), int(np.argmax(b))
    ratio = np.log(np.maximum(trace.data[low], 1e-3) / np.maximum(trace.data[high], 1e-3))
    signal = trace.data[low] > 0.05 * trace.data[low].max()
    values = np.where(signal, np.clip(1e6 * ratio / (b[high] - b[low]), 0, 4000), 0.0) / unit_um2_per_s
    header = replace(
        trace.acquisitions[low],
        b_value_s_per_mm2=np.nan,
        diffusion_encoding="",
        map_quantity="ADC",
        scale_slope=1.0 if unit_um2_per_s == 1.0 else float(values.max()) / 4095,
    )
    return replace(images, data=values[None].astype(np.float32), acquisitions=(header,))


def _weights(
    phantom: DigitalVials,
    protocol: DiffusionProtocol,
    scanner: DiffusionScanner,
    b: float,
    direction: Vector | None,
) -> NDArray[np.float32]:
    """Signal of each vial, then of the bath."""
    vials = phantom.vials
    density = np.array([*(v.proton_density for v in vials), phantom.bath_proton_density])
    t2 = np.array([*(v.t2_s for v in vials), phantom.bath_t2_s])
    adc = np.array([*(v.adc_um2_per_s for v in vials), phantom.bath_adc_um2_per_s])
    actual = b * scanner.adc_scale * _field(phantom, scanner, direction)
    signal = density * np.exp(-protocol.echo_time_s / t2) * np.exp(-1e-6 * actual * adc)
    return np.asarray(signal, dtype=np.float32)


def _field(phantom: DigitalVials, scanner: DiffusionScanner, direction: Vector | None) -> Array:
    """Actual over nominal b-value at each vial, and in the middle for the bath."""
    if direction is None:
        return np.ones(len(phantom.vials) + 1)
    _, down, along = (np.array(axis) for axis in _PLANES[scanner.plane])
    places = np.vstack([_moved(phantom, scanner), np.zeros((1, 2))])
    positions = places[:, :1] * down + places[:, 1:] * along
    square = (np.linalg.norm(positions, axis=1, keepdims=True) / 100.0) ** 2
    gradient = np.array(direction) * (1 + square * np.array(scanner.nonlinearity))
    return np.asarray((gradient**2).sum(axis=1))


def _moved(phantom: DigitalVials, scanner: DiffusionScanner) -> Array:
    """Return true places of the vials in the slice, along rows and columns, from its middle."""
    places = np.array([vial.position_mm for vial in phantom.vials])
    return np.asarray(places @ _turn(scanner).T + np.array(scanner.shift_mm))


def _turn(scanner: DiffusionScanner) -> Array:
    """Matrix from the phantom's plane to (down the rows, along the columns)."""
    angle = np.deg2rad(scanner.rotation_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Drawn with the second axis up, a plane is seen with rows running down.
    flip = np.array([[0.0, -1.0], [-1.0 if scanner.mirror else 1.0, 0.0]])
    return np.asarray(flip @ rotation)


def _distortion(scanner: DiffusionScanner) -> Array:
    """Matrix from true to apparent places, (row, column)."""
    return np.array([[scanner.stretch, scanner.shear], [0.0, 1.0]])


def _coverage(phantom: DigitalVials, scanner: DiffusionScanner, index: int) -> NDArray[np.float32]:
    """Share of every voxel that each vial fills, and the bath, shape (n + 1, rows, columns)."""
    n = scanner.matrix
    step = scanner.field_of_view_mm / n / _OVERSAMPLING
    fine = (np.arange(n * _OVERSAMPLING) + 0.5) * step - scanner.field_of_view_mm / 2
    apparent = np.stack(np.meshgrid(fine, fine, indexing="ij"), axis=-1)
    true = apparent @ np.linalg.inv(_distortion(scanner)).T
    depth = (index - (scanner.n_slices - 1) / 2) * scanner.slice_distance_mm
    radius = np.sqrt(max((phantom.body_diameter_mm / 2) ** 2 - depth**2, 0.0))
    bath = (np.linalg.norm(true - np.array(scanner.shift_mm), axis=-1) <= radius).astype(np.float32)
    inside = abs(depth) < phantom.length_mm / 2
    outer = phantom.inner_diameter_mm / 2 + phantom.wall_mm
    # Squeezed tissue adds up: the signal of a voxel grows as the image shrinks.
    down = downsampling_matrix(n, _OVERSAMPLING, "fourier") / np.float32(scanner.stretch)
    across = downsampling_matrix(n, _OVERSAMPLING, "fourier")
    maps = []
    for place in _moved(phantom, scanner):
        centre = _distortion(scanner) @ place
        rows, columns = (_window(fine, middle, 1.2 * outer + 2 * step) for middle in centre)
        distance = np.linalg.norm(true[rows, columns] - place, axis=-1)
        solution = (distance <= phantom.inner_diameter_mm / 2) & inside
        maps.append(down[:, rows] @ solution.astype(np.float32) @ across[:, columns].T)
        bath[rows, columns][(distance <= outer) & inside] = 0.0
    return np.stack([*maps, down @ bath @ across.T])


def _window(fine: NDArray[np.floating], middle: float, reach: float) -> slice:
    """Fine samples within reach of a place."""
    first, last = np.searchsorted(fine, [middle - reach, middle + reach])
    return slice(int(first), int(last))


def _receive(
    ideal: NDArray[np.float32], scanner: DiffusionScanner, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add ghost and complex noise; return the magnitude."""
    ghost = scanner.ghost * np.roll(ideal, scanner.matrix // 2, axis=0)
    noise = scanner.noise_sd * rng.standard_normal((2, *ideal.shape))
    return np.asarray(np.hypot(ideal + ghost + noise[0], noise[1]), dtype=np.float32)


def _slope(scanner: DiffusionScanner, largest: float) -> float:
    """Scale that fills the stored range, where the scanner rescales; 1 where it stores integers."""
    if scanner.vendor != "Philips" or not largest > 0:
        return 1.0
    return float(1.1 * largest / (2**scanner.bits_stored - 1))


def _header(
    b: float,
    direction: Vector | None,
    protocol: DiffusionProtocol,
    scanner: DiffusionScanner,
    slope: float,
) -> Acquisition:
    return Acquisition(
        repetition_time_s=protocol.repetition_time_s,
        echo_time_s=protocol.echo_time_s,
        flip_angle_deg=90.0,
        field_strength_T=scanner.field_strength_T,
        slice_thickness_mm=scanner.thickness_mm,
        b_value_s_per_mm2=b,
        diffusion_direction=() if direction is None else direction,
        diffusion_encoding="none" if direction is None else "direction",
        echo_train_length=1,
        sequence="echo planar",
        scale_slope=slope,
        scale_source="simulated",
    )


def _affine(scanner: DiffusionScanner) -> Array:
    """Map (slice, row, column, 1) to RAS+ millimetres; the middle of the stack is the isocentre."""
    axes = np.array(_PLANES[scanner.plane]).T
    spacing = scanner.field_of_view_mm / scanner.matrix
    steps = axes * np.array([scanner.slice_distance_mm, spacing, spacing])
    middle = np.array([(scanner.n_slices - 1) / 2, *[(scanner.matrix - 1) / 2] * 2])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, -steps @ middle
    affine[:3] *= _LPS_TO_RAS[:, None]
    return affine


def _entities(scanner: DiffusionScanner, session: str, acquired: str) -> Entities:
    return Entities(
        subject="phantom",
        session=session,
        acquisition="diffusion",
        vendor=scanner.vendor,
        model=scanner.model,
        software="simulated 1.0",
        scanner=scanner.name,
        field_strength_T=scanner.field_strength_T,
        acquired=acquired,
    )
