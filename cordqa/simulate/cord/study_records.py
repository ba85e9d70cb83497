"""What the simulated study consists of: scanners, images, truth, visits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.magnetization_transfer.saturation import SpoiledEcho
from cordqa.records import Volume
from cordqa.simulate.cord.people import CordPerson

__all__ = ["CordScan", "CordScanner", "CordTruth", "CordVisit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CordScanner:
    """One scanner: its protocol, sharpness, noise, sensitivity and transmit field.

    ``t2_contrast`` and ``t2star_contrast`` are the signals of each tissue in those images; ``blur_mm``
    the standard deviation of the point spread beyond the voxel itself; ``noise`` and ``dwi_noise``
    relative to white matter (without diffusion weighting).
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
    t2star_voxel_mm: tuple[float, float, float]
    t2star_contrast: Mapping[str, float]
    dwi_voxel_mm: tuple[float, float, float]
    dwi_noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CordScan:
    """One image with its place in BIDS, and the gradients of a diffusion series."""

    suffix: str
    entities: Mapping[str, str]
    volume: Volume
    sidecar: Mapping[str, Any]
    gradients: GradientTable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CordTruth:
    """What a perfect analysis of a visit would find.

    Attributes
    ----------
    csa_mm2 : mapping
        Mean area perpendicular to the cord, by level.
    mtr_percent, mtsat_percent, t1_ms : mapping
        By tissue (WM, GM), as this scanner's protocol shows it; MTsat and T1 are those of the tissue.
    gm_area_mm2 : mapping
        Mean area of grey matter across the cord, by level.
    fa, md_um2_s : mapping
        By tissue; diffusion is Gaussian, so every scheme shows the same.
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
    gm_area_mm2: Mapping[str, float]
    fa: Mapping[str, float]
    md_um2_s: Mapping[str, float]
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
