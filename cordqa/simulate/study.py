"""A study of one phantom on several scanners, with everything that was planted written down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from cordqa.errors import ConfigError
from cordqa.records import ImageSet
from cordqa.simulate.acquire import acquire
from cordqa.simulate.scanner import Session, SimulatedScanner
from cordqa.simulate.sequences import InversionRecovery, MultiEchoSpinEcho, PulseSequence, Tissue
from cordqa.simulate.system_phantom import Coverage, DigitalPlate

__all__ = [
    "Scan",
    "SimulatedAcquisition",
    "SphereTruth",
    "three_vendor_scanners",
    "three_vendor_study",
]

_FIRST_SESSION = datetime(2026, 3, 2, 8, 30)
_INVERSION_TIMES_S = (0.035, 0.075, 0.150, 0.300, 0.600, 1.000, 2.000, 3.000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SphereTruth:
    """What one sphere is, and what a perfect analysis of these images would find.

    Attributes
    ----------
    scanner, session, plate, sphere : str
    sequence : str
    t1_s, t2_s, proton_density : float
        The phantom's true values.
    seen_t1_s, seen_t2_s : float
        With the scanner's bias and the session's variation.
    transmit : float
        Actual over nominal flip angle at the sphere.
    row, column : float
        Centre in the image, from 0 at the centre of the first voxel, not rounded.
    """

    scanner: str
    session: str
    plate: str
    sphere: str
    sequence: str
    t1_s: float
    t2_s: float
    proton_density: float
    seen_t1_s: float
    seen_t2_s: float
    transmit: float
    row: float
    column: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One entry of a protocol: a plate and a sequence."""

    plate: str
    sequence: PulseSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAcquisition:
    """One simulated image set with its truth and with what was planted in it."""

    image_set: ImageSet
    scanner: SimulatedScanner
    session: Session
    truth: tuple[SphereTruth, ...]
    planted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScannerPlan:
    """A scanner, its protocol, and images stored with too little range: (session, scan) to images."""

    scanner: SimulatedScanner
    scans: tuple[Scan, ...]
    clipped: Mapping[tuple[int, int], Mapping[int, float]] = field(default_factory=dict)


def three_vendor_scanners(*, field_strength_T: float = 3.0) -> tuple[SimulatedScanner, ...]:
    """Return three invented scanners that differ as real ones of three vendors do.

    A (Siemens) is nearly right; B (GE) measures T1 8 % too long; C (Philips) has an imperfect
    transmit field whose stimulated echoes lengthen the apparent T2.
    """
    return (
        SimulatedScanner(
            name="SIM-A",
            vendor="Siemens",
            model="Simulated S",
            software="simulated 1.0",
            field_strength_T=field_strength_T,
            site="Site A",
            gain=1900.0,
            gain_session_sd=0.03,
            noise_sd=0.004,
            receive_curvature=0.15,
            transmit_curvature=-0.03,
            refocusing_angle_deg=176.0,
            session_sd=0.004,
            sphere_sd=0.002,
            rotation_deg=4.0,
            reposition_mm=1.5,
            reposition_deg=2.0,
            planning_mm=0.5,
        ),
        SimulatedScanner(
            name="SIM-B",
            vendor="GE",
            model="Simulated G",
            software="simulated 1.0",
            field_strength_T=field_strength_T,
            site="Site B",
            gain=5200.0,
            gain_session_sd=0.05,
            noise_sd=0.006,
            receive_curvature=0.25,
            receive_slope=0.10,
            transmit_scale=0.98,
            transmit_curvature=-0.05,
            t1_bias=0.08,
            session_sd=0.006,
            sphere_sd=0.003,
            rotation_deg=-38.0,
            tilt_deg=(0.8, -0.5),
            size_error=0.004,
            reposition_mm=2.5,
            reposition_deg=4.0,
            planning_mm=0.8,
            zero_filled_matrix=256,
            bits_stored=16,
            signed=True,
        ),
        SimulatedScanner(
            name="SIM-C",
            vendor="Philips",
            model="Simulated P",
            software="simulated 1.0",
            field_strength_T=field_strength_T,
            site="Site C",
            gain=120_000.0,
            gain_session_sd=0.05,
            noise_sd=0.003,
            n_coils=4,
            receive_curvature=-0.15,
            receive_slope=-0.05,
            transmit_scale=0.84,
            transmit_curvature=-0.06,
            inversion_angle_deg=174.0,
            adiabatic_inversion=True,
            session_sd=0.005,
            sphere_sd=0.003,
            rotation_deg=107.0,
            mirror=True,
            size_error=-0.003,
            reposition_mm=2.0,
            reposition_deg=3.0,
            planning_mm=0.7,
            scaling="float",
            blanks_background=True,
        ),
    )


def three_vendor_study(
    plates: Mapping[str, DigitalPlate],
    *,
    seed: int,
    n_repeats: int = 3,
    field_strength_T: float = 3.0,
    t1_plate: str = "5",
    t2_plate: str = "4",
) -> Iterator[SimulatedAcquisition]:
    """Scan a phantom several times on three scanners.

    Each session holds an inversion-recovery set of ``t1_plate`` and a multi-echo spin-echo set of
    ``t2_plate``.  In the last session of scanner C the image at the longest inversion time is
    stored with too little range, so that its brightest spheres clip.

    Parameters
    ----------
    plates : mapping of plate name to DigitalPlate
        Holds at least the two plates that are scanned, true at ``field_strength_T``.
    seed : int
        Seed of the one generator behind everything: the same seed gives the same study.
    n_repeats : int
        Sessions per scanner, >= 1.
    field_strength_T : float
    t1_plate, t2_plate : str

    Yields
    ------
    SimulatedAcquisition
        Scanner by scanner, session by session.

    Raises
    ------
    ConfigError
        If there is no session to simulate or a plate is missing.
    """
    if n_repeats < 1:
        raise ConfigError("a study needs at least one session", found=str(n_repeats), expected="1 or more")
    missing = sorted({t1_plate, t2_plate} - set(plates))
    if missing:
        raise ConfigError(f"no digital plate {', '.join(missing)}", expected=", ".join(sorted(plates)))
    # The generator below is lazy; the checks above are not.
    plans = _three_vendor_plans(field_strength_T, n_repeats, t1_plate, t2_plate)
    return _run_study(plans, plates, n_repeats, np.random.default_rng(seed))


def _three_vendor_plans(
    field_strength_T: float, n_repeats: int, t1_plate: str, t2_plate: str
) -> tuple[_ScannerPlan, ...]:
    constant = InversionRecovery(
        inversion_times_s=_INVERSION_TIMES_S, repetition_times_s=(4.5,) * len(_INVERSION_TIMES_S)
    )
    varying = InversionRecovery(
        inversion_times_s=_INVERSION_TIMES_S,
        repetition_times_s=tuple(round(time + 2.5, 3) for time in _INVERSION_TIMES_S),
        echo_time_s=0.012,
    )
    trains = (
        MultiEchoSpinEcho(n_echoes=32, echo_spacing_s=0.010),
        MultiEchoSpinEcho(n_echoes=16, echo_spacing_s=0.0095, repetition_time_s=2.5),
        MultiEchoSpinEcho(n_echoes=32, echo_spacing_s=0.008, repetition_time_s=2.5),
    )
    too_bright = {(n_repeats - 1, 0): {len(_INVERSION_TIMES_S) - 1: 0.8}}
    return tuple(
        _ScannerPlan(
            scanner=scanner,
            scans=(Scan(plate=t1_plate, sequence=recovery), Scan(plate=t2_plate, sequence=train)),
            clipped=clipped,
        )
        for scanner, recovery, train, clipped in zip(
            three_vendor_scanners(field_strength_T=field_strength_T),
            (varying, constant, constant),
            trains,
            ({}, {}, too_bright),
            strict=True,
        )
    )


def _run_study(
    plans: Sequence[_ScannerPlan],
    plates: Mapping[str, DigitalPlate],
    n_repeats: int,
    rng: np.random.Generator,
) -> Iterator[SimulatedAcquisition]:
    for number, plan in enumerate(plans):
        for repeat in range(n_repeats):
            # Scanners on different days, sessions a week apart.
            start = _FIRST_SESSION + timedelta(days=number + 7 * repeat, minutes=20 * number)
            session = plan.scanner.draw_session(
                rng, name=f"{repeat + 1:02d}", acquired=start.isoformat(timespec="seconds")
            )
            for index, scan in enumerate(plan.scans):
                headroom = {} if not plan.clipped else plan.clipped.get((repeat, index), {})
                yield _scan(plates[scan.plate], scan, plan.scanner, session, headroom, rng)


def _scan(
    plate: DigitalPlate,
    scan: Scan,
    scanner: SimulatedScanner,
    session: Session,
    headroom: Mapping[int, float],
    rng: np.random.Generator,
) -> SimulatedAcquisition:
    image_set, tissue, coverage = acquire(
        plate, scan.sequence, scanner, rng, session=session, headroom=headroom
    )
    return SimulatedAcquisition(
        image_set=image_set,
        scanner=scanner,
        session=session,
        truth=_truth(plate, scan, scanner, session, tissue, coverage),
        planted=_planted(scanner, image_set, headroom),
    )


def _truth(
    plate: DigitalPlate,
    scan: Scan,
    scanner: SimulatedScanner,
    session: Session,
    tissue: Tissue,
    coverage: Coverage,
) -> tuple[SphereTruth, ...]:
    return tuple(
        SphereTruth(
            scanner=scanner.name,
            session=session.name,
            plate=plate.plate,
            sphere=sphere.label,
            sequence=scan.sequence.name,
            t1_s=sphere.t1_s,
            t2_s=sphere.t2_s,
            proton_density=sphere.proton_density,
            seen_t1_s=float(tissue.t1_s[index]),
            seen_t2_s=float(tissue.t2_s[index]),
            transmit=float(tissue.transmit[index]),
            row=float(coverage.centres[index, 1]),
            column=float(coverage.centres[index, 2]),
        )
        for index, sphere in enumerate(plate.spheres)
    )


def _planted(
    scanner: SimulatedScanner, image_set: ImageSet, headroom: Mapping[int, float]
) -> tuple[str, ...]:
    """Say in words what a good analysis should notice in this set."""
    where = f"scanner {scanner.name}, session {image_set.entities.session}, {image_set.entities.acquisition}"
    planted = []
    recovery = image_set.varies("inversion_time_s")
    if recovery and scanner.t1_bias:
        planted.append(f"{where}: T1 {scanner.t1_bias:+.1%}")
    if not recovery and scanner.t2_bias:
        planted.append(f"{where}: T2 {scanner.t2_bias:+.1%}")
    if not recovery and scanner.refocusing_angle_deg * scanner.transmit_scale < 172:
        angle = scanner.refocusing_angle_deg * scanner.transmit_scale
        planted.append(f"{where}: stimulated echoes, refocusing angle {angle:.0f} degrees at the isocentre")
    planted.extend(
        f"{where}: image {index + 1} stored with {room:.0%} of the range it needs"
        for index, room in headroom.items()
        if room < 1
    )
    return tuple(planted)
