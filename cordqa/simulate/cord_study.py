"""A study of people's cords on scanners of three vendors, with known areas and tissue values.

Each person (:mod:`cordqa.simulate.cord.people`) is scanned by each scanner: T2w, T2*w, three images of
magnetization transfer and a diffusion series, each with a contrast, sharpness, noise and bias of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cordqa.errors import ConfigError
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho
from cordqa.simulate.cord.people import CordPerson, draw_person, true_areas, true_grey_areas
from cordqa.simulate.cord.study_diffusion import axial_anisotropy, diffusion_scan
from cordqa.simulate.cord.study_images import Pose, disc_labels, t2_scan, t2star_scan, transfer_scans
from cordqa.simulate.cord.study_records import CordScan, CordScanner, CordTruth, CordVisit

__all__ = [
    "CordPerson",
    "CordScan",
    "CordScanner",
    "CordTruth",
    "CordVisit",
    "cord_scanners",
    "simulate_study",
    "simulate_visit",
    "true_areas",
]


def cord_scanners() -> tuple[CordScanner, ...]:
    """Return three invented scanners that differ as real ones of three vendors do."""
    tissues = ("MUSCLE", "FAT", "BONE", "CORTEX", "DISC", "AIR", "CSF", "WM", "GM")

    def contrast(*values: float) -> dict[str, float]:
        return dict(zip(tissues, values, strict=True))

    fine, thick = (0.5, 0.5, 5.0), (0.9, 0.9, 5.0)

    return (
        CordScanner(
            site="Site A", vendor="Siemens", model="Simulated S", software="simulated 1.0", serial="1001",
            t2_voxel_mm=(0.8, 0.8, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.16, 0.42, 0.30, 0.05, 0.35, 0.01, 1.0, 0.36, 0.41),
            mt_echo=SpoiledEcho(repetition_time_s=0.035, flip_angle_deg=9.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.011, flip_angle_deg=15.0),
            blur_mm=0.25, noise=0.025, transmit=1.0, shading=0.25, gain=900.0,
            t2star_voxel_mm=fine,
            t2star_contrast=contrast(0.5, 0.55, 0.3, 0.1, 0.4, 0.01, 1.0, 0.60, 0.72),
            dwi_voxel_mm=thick, dwi_noise=0.06,
        ),
        CordScanner(
            site="Site B", vendor="GE", model="Simulated G", software="simulated 2.3", serial="2002",
            t2_voxel_mm=(1.0, 1.0, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.22, 0.55, 0.34, 0.06, 0.30, 0.01, 0.95, 0.40, 0.44),
            mt_echo=SpoiledEcho(repetition_time_s=0.033, flip_angle_deg=10.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.012, flip_angle_deg=18.0),
            blur_mm=0.40, noise=0.035, transmit=0.95, shading=-0.3, gain=4200.0,
            t2star_voxel_mm=fine,
            t2star_contrast=contrast(0.55, 0.62, 0.28, 0.12, 0.42, 0.01, 0.92, 0.58, 0.72),
            dwi_voxel_mm=thick, dwi_noise=0.075,
        ),
        CordScanner(
            site="Site C", vendor="Philips", model="Simulated P", software="simulated 5.7", serial="3003",
            t2_voxel_mm=(0.9, 0.9, 1.0), mt_voxel_mm=(0.9, 0.9, 5.0),
            t2_contrast=contrast(0.14, 0.38, 0.26, 0.04, 0.40, 0.01, 1.0, 0.33, 0.37),
            mt_echo=SpoiledEcho(repetition_time_s=0.038, flip_angle_deg=9.0),
            t1_echo=SpoiledEcho(repetition_time_s=0.014, flip_angle_deg=16.0),
            blur_mm=0.30, noise=0.030, transmit=1.04, shading=0.35, gain=260.0,
            t2star_voxel_mm=fine,
            t2star_contrast=contrast(0.45, 0.50, 0.32, 0.1, 0.38, 0.01, 1.0, 0.62, 0.73),
            dwi_voxel_mm=thick, dwi_noise=0.065,
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
        person = draw_person(np.random.default_rng([seed, number]), number)
        for place, scanner in enumerate(scanners):
            for repeat in range(n_repeats):
                session = f"{scanner.site.rpartition(' ')[2]}{repeat + 1}"
                faulty = number == n_people - 1 and place == len(scanners) - 1 and repeat == n_repeats - 1
                rng = np.random.default_rng([seed, number, place, repeat])
                yield simulate_visit(person, scanner, session, rng, changed_repetition=faulty)


def simulate_visit(
    person: CordPerson,
    scanner: CordScanner,
    session: str,
    rng: np.random.Generator,
    *,
    changed_repetition: bool = False,
) -> CordVisit:
    """Scan one person: T2w, MT-on, MT-off, T1w, T2*w and a diffusion series, with movement between them.

    Parameters
    ----------
    changed_repetition : bool
        Plant a fault: MT-on has a longer repetition time, as it happens when a protocol is edited.
    """
    pose = Pose(
        (float(rng.normal(0, 1.5)), float(rng.normal(0, 1.5)), float(rng.normal(0, 2.0))),
        float(rng.normal(0, 1.5)),
    )
    t2 = t2_scan(person, scanner, session, pose, rng)
    transfer, mtr, shifts = transfer_scans(person, scanner, session, pose, rng, changed=changed_repetition)
    t2star = t2star_scan(person, scanner, session, pose, rng)
    dwi = diffusion_scan(person, scanner, session, pose, rng)
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
        gm_area_mm2=true_grey_areas(person),
        fa={tissue: axial_anisotropy(*pair) for tissue, pair in person.diffusivity.items()},
        md_um2_s={t: 1000.0 * (a + 2.0 * r) / 3.0 for t, (a, r) in person.diffusivity.items()},
        shift_mm=shifts,
        planted=planted,
    )
    return CordVisit(
        person=person,
        scanner=scanner,
        session=session,
        scans=(t2, *transfer, t2star, dwi),
        discs=disc_labels(person, pose, t2.volume),
        truth=truth,
    )
