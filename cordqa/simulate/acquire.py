"""A scan: from a digital phantom through a sequence and a scanner to images and their storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordqa.records import Acquisition, Entities, ImageSet, Part
from cordqa.simulate.geometry import SliceGeometry
from cordqa.simulate.rendering import Downsampling, zero_filling_matrix
from cordqa.simulate.scanner import FIELD_RADIUS_MM, Session, SimulatedScanner
from cordqa.simulate.sequences import PulseSequence, Tissue
from cordqa.simulate.system_phantom import Coverage, DigitalPlate, render_coverage

__all__ = ["acquire", "quantise"]

Array = NDArray[np.float64]

_COIL_RADIUS_MM = 150.0
_COIL_WIDTH_MM = 120.0
#: Voxels with less phantom than this are air to a scanner that blanks the background.
_AIR = 0.02
#: Phase of the object across the field of view, in radians at the field radius.
_BACKGROUND_PHASE = 0.6
#: Full range over the largest value, where nothing else is asked for.
_HEADROOM = 1.1


def acquire(
    plate: DigitalPlate,
    sequence: PulseSequence,
    scanner: SimulatedScanner,
    rng: np.random.Generator,
    *,
    session: Session | None = None,
    geometry: SliceGeometry | None = None,
    part: Part = Part.MAGNITUDE,
    headroom: Mapping[int, float] | float = _HEADROOM,
    oversampling: int = 4,
    downsampling: Downsampling = "fourier",
) -> tuple[ImageSet, Tissue, Coverage]:
    """Scan one plate with one sequence.

    Parameters
    ----------
    plate, sequence, scanner
        What is scanned, how, and with what.
    rng : numpy.random.Generator
        Source of all randomness.
    session : Session, optional
        One visit; straight and unbiased by default.
    geometry : SliceGeometry, optional
        The slices as acquired; the scanner's own plan by default.
    part : Part
        Magnitude (root sum of squares over coils), or real, imaginary or phase (radians) after
        the coils are combined with their known sensitivities.
    headroom : float or mapping of image index to float
        For scaling ``'float'``: full range over the largest value in the series; below 1 clips.
    oversampling, downsampling
        See :func:`~cordqa.simulate.system_phantom.render_coverage`.

    Returns
    -------
    image_set : ImageSet
        Values before they are stored; ``acquisitions`` hold the scale to store them with.
    tissue : Tissue
        What the scanner sees of each sphere, then of the water: biases and session included.
    coverage : Coverage
        On the grid of the images.

    See Also
    --------
    quantise : what a reader gets back from storage.
    """
    session = session or Session()
    geometry = geometry or scanner.slice_geometry(plate)
    coverage = render_coverage(
        plate, geometry, placement=session.placement, oversampling=oversampling, downsampling=downsampling
    )
    tissue = _seen_tissue(plate, scanner, session, coverage, rng)
    signals = sequence.signals(
        tissue,
        inversion_angle_deg=scanner.inversion_angle_deg
        * (np.ones_like(tissue.transmit) if scanner.adiabatic_inversion else tissue.transmit),
        refocusing_angle_deg=scanner.refocusing_angle_deg * tissue.transmit,
    )
    ideal = np.tensordot(signals.astype(np.float32), coverage.maps, axes=1)
    data = _receive(ideal, geometry, scanner, part, rng)
    geometry, coverage = _on_final_grid(geometry, coverage, scanner)
    if part is not Part.PHASE:
        data *= np.float32(scanner.gain * session.gain_factor)
    if scanner.blanks_background:
        data[:, coverage.body < _AIR] = 0.0
    image_set = ImageSet(
        data=data,
        affine=geometry.affine,
        spacing_mm=(geometry.slice_distance_mm, *geometry.spacing_mm),
        acquisitions=_headers(data, sequence, scanner, geometry, part, headroom),
        entities=_entities(scanner, session, sequence, plate),
        part=part,
        label=f"{scanner.vendor} {scanner.model}, {sequence.name}, plate {plate.plate}",
    )
    return image_set, tissue, coverage


def quantise(image_set: ImageSet, scanner: SimulatedScanner) -> ImageSet:
    """Return the images as a perfect reader gets them back: rounded, and clipped at the range."""
    low, high = scanner.stored_range()
    slopes, intercepts = (
        image_set.values(name)[:, None, None, None] for name in ("scale_slope", "scale_intercept")
    )
    stored = np.clip(np.rint((image_set.data - intercepts) / slopes), low, high)
    data = (stored * slopes + intercepts).astype(np.float32)
    return replace(image_set, data=data, clipped=stored >= high)


def _seen_tissue(
    plate: DigitalPlate,
    scanner: SimulatedScanner,
    session: Session,
    coverage: Coverage,
    rng: np.random.Generator,
) -> Tissue:
    n = len(plate.spheres) + 1
    t1_factor = (1 + scanner.t1_bias) * session.t1_factor * (1 + scanner.sphere_sd * rng.standard_normal(n))
    t2_factor = (1 + scanner.t2_bias) * session.t2_factor * (1 + scanner.sphere_sd * rng.standard_normal(n))
    return Tissue(
        t1_s=plate.tissue("t1_s") * t1_factor,
        t2_s=plate.tissue("t2_s") * t2_factor,
        proton_density=plate.tissue("proton_density"),
        # One value per compartment: across a sphere of 15 mm the field hardly changes.
        transmit=scanner.transmit(coverage.positions_mm),
    )


def _on_final_grid(
    geometry: SliceGeometry, coverage: Coverage, scanner: SimulatedScanner
) -> tuple[SliceGeometry, Coverage]:
    """Follow the zero filling of the images."""
    if not scanner.zero_filled_matrix:
        return geometry, coverage
    final = geometry.resized(scanner.zero_filled_matrix)
    return final, replace(
        coverage,
        maps=_zero_fill(coverage.maps, scanner.zero_filled_matrix),
        body=_zero_fill(coverage.body, scanner.zero_filled_matrix),
        centres=final.voxel_coordinates(coverage.positions_mm[:-1]),
    )


def _zero_fill(images: NDArray[np.float32], matrix: int) -> NDArray[np.float32]:
    """Interpolate real images of shape (..., rows, columns)."""
    down = zero_filling_matrix(images.shape[-2], matrix)
    across = zero_filling_matrix(images.shape[-1], matrix)
    return (down @ images @ across.T).astype(np.float32, copy=False)


def _receive(
    ideal: NDArray[np.float32],
    geometry: SliceGeometry,
    scanner: SimulatedScanner,
    part: Part,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Add complex noise to every coil's image, then combine the coils."""
    positions = geometry.voxel_positions()
    received = ideal * scanner.sensitivity(positions).astype(np.float32)
    turn = np.exp(1j * _BACKGROUND_PHASE * positions[..., 2] / FIELD_RADIUS_MM).astype(np.complex64)
    complex_wanted = part is not Part.MAGNITUDE
    power: Any = 0.0
    combined: Any = 0.0
    for weight in _coil_weights(positions, scanner.n_coils):
        channels = np.empty((2, *ideal.shape), dtype=np.float32)
        rng.standard_normal(out=channels, dtype=np.float32)
        channels *= np.float32(scanner.noise_sd)
        # A rotation of the complex plane leaves noise as it is, so magnitude needs no phase.
        channels[0] += received * weight
        if complex_wanted:
            combined = combined + (channels[0] + 1j * channels[1]) * weight
            continue
        if scanner.zero_filled_matrix:
            channels = _zero_fill(channels, scanner.zero_filled_matrix)
        power = power + np.einsum("i...,i...->...", channels, channels)
    if not complex_wanted:
        magnitude: NDArray[np.float32] = np.sqrt(power)
        return magnitude
    return _part_of(combined, turn, scanner, part)


def _part_of(
    combined: NDArray[np.complex64], turn: NDArray[np.complex64], scanner: SimulatedScanner, part: Part
) -> NDArray[np.float32]:
    """Return real or imaginary part after the background phase is taken off, or the raw phase."""
    image = combined * turn if part is Part.PHASE else combined
    channels = np.stack([image.real, image.imag]).astype(np.float32, copy=False)
    if scanner.zero_filled_matrix:
        channels = _zero_fill(channels, scanner.zero_filled_matrix)
    if part is Part.PHASE:
        phase: NDArray[np.float32] = np.arctan2(channels[1], channels[0])
        return phase
    chosen: NDArray[np.float32] = channels[0] if part is Part.REAL else channels[1]
    return chosen


def _coil_weights(positions_mm: Array, n_coils: int) -> NDArray[np.float32]:
    """Return smooth sensitivities of coils around the phantom whose squares add up to 1."""
    if n_coils == 1:
        return np.ones((1, *positions_mm.shape[:-1]), dtype=np.float32)
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    centres = _COIL_RADIUS_MM * np.stack([np.cos(angles), np.zeros(n_coils), np.sin(angles)], axis=-1)
    square = ((positions_mm[None] - centres[:, None, None, None]) ** 2).sum(axis=-1)
    weights = np.exp(-square / (2 * _COIL_WIDTH_MM**2))
    normed: NDArray[np.float32] = (weights / np.sqrt((weights**2).sum(axis=0))).astype(np.float32)
    return normed


def _headers(
    data: NDArray[np.float32],
    sequence: PulseSequence,
    scanner: SimulatedScanner,
    geometry: SliceGeometry,
    part: Part,
    headroom: Mapping[int, float] | float,
) -> tuple[Acquisition, ...]:
    """Complete the sequence's headers with the scanner's field and scale."""
    peaks = np.abs(data).max(axis=(1, 2, 3))
    if sequence.one_series:
        peaks[:] = peaks.max()
    headers = []
    for index, (header, peak) in enumerate(zip(sequence.acquisitions(), peaks, strict=True)):
        room = headroom.get(index, _HEADROOM) if isinstance(headroom, Mapping) else headroom
        slope, intercept = _scale(scanner, float(peak), room, part)
        headers.append(
            replace(
                header,
                field_strength_T=scanner.field_strength_T,
                slice_thickness_mm=geometry.thickness_mm,
                scale_slope=slope,
                scale_intercept=intercept,
                scale_source="simulated",
            )
        )
    return tuple(headers)


def _scale(scanner: SimulatedScanner, peak: float, headroom: float, part: Part) -> tuple[float, float]:
    """Return slope and intercept from stored to image value."""
    low, high = scanner.stored_range()
    unsigned = low == 0
    if part is Part.PHASE:
        # Unsigned: the range is one turn.  Signed: milliradians, where they fit.
        return (2 * np.pi / (high + 1), -np.pi) if unsigned else (max(1e-3, np.pi / high), 0.0)
    needs_offset = unsigned and part is not Part.MAGNITUDE
    if scanner.scaling == "integer":
        # Twice as coarse where negative values need room in an unsigned range.
        return (2.0, -float(high + 1)) if needs_offset else (1.0, 0.0)
    peak = peak * headroom if peak > 0 else 1.0
    if needs_offset:
        return 2 * peak / high, -peak
    return peak / high, 0.0


def _entities(
    scanner: SimulatedScanner, session: Session, sequence: PulseSequence, plate: DigitalPlate
) -> Entities:
    return Entities(
        subject="phantom",
        session=session.name,
        acquisition=f"{sequence.name}, plate {plate.plate}",
        site=scanner.site,
        vendor=scanner.vendor,
        model=scanner.model,
        software=scanner.software,
        scanner=scanner.name,
        field_strength_T=scanner.field_strength_T,
        acquired=session.acquired,
    )
