"""Quantitative susceptibility mapping from multi-echo gradient echo."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.susceptibility.physics import radians_per_ppm_second
from cordqa.models.susceptibility.pipeline import MappingSettings, Scan, map_susceptibility
from cordqa.models.susceptibility.stage import Readout, Sign
from cordqa.models.susceptibility.total_field import BACKGROUNDS, INVERSIONS, ChainSettings
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option, Setting

__all__ = ["MODEL"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_HALF = 0.5
_DEFAULT = ChainSettings()
_PROBES = 6


def _fit(data: FitData) -> FittedMaps:
    found = map_susceptibility(
        _scan(data),
        # A mask of all voxels says nothing: the pipeline makes its own.
        mask=None if data.mask.all() else data.mask,
        cord_mask=_mask(data, "cord_mask"),
        reference=_mask(data, "reference"),
        r2prime_per_s=data.map("r2prime"),
        r2_per_s=data.map("r2"),
        settings=_settings(data),
    )
    return found.maps


def _scan(data: FitData) -> Scan:
    """Find out which images are phase and magnitude, or real and imaginary part."""
    second, parts = data.signal[..., data.roles["magnitude"]], False
    imaginary = data.signal[..., data.roles["imaginary"]]
    if imaginary.shape[-1]:
        if second.shape[-1]:
            raise InputError("give --magnitude or --imaginary, not both")
        second, parts = imaginary, True
    if not second.shape[-1]:
        raise InputError(
            "the magnitude of every echo is needed: noise is judged by it",
            todo="give --magnitude, or --imaginary where the images are real parts",
        )
    limits = data.options["phase_range"]
    if parts and limits is not None:
        raise InputError("real and imaginary parts have no phase range", where="--phase-range")
    return Scan(
        phase=data.signal[..., data.roles["phase"]],
        magnitude=second,
        echo_times_s=data.values("echo_times"),
        affine=data.affine,
        field_strength_t=data.value("field_strength"),
        b0_direction=cast("tuple[float, ...] | None", data.options["b0_direction"]),
        phase_range=cast("tuple[float, ...] | None", limits),
        parts=parts,
        encoding=_encoding(data),
        slice_direction=str(data.sidecar.get("SliceEncodingDirection", "")),
    )


def _encoding(data: FitData) -> str:
    """Tell whether the acquisition was 2D or 3D, where the sidecar does."""
    said = str(data.sidecar.get("MRAcquisitionType", "")).strip().upper()
    return said if said in ("2D", "3D") else ""


def _mask(data: FitData, name: str) -> Mask | None:
    found = data.map(name)
    return None if found is None else np.nan_to_num(found) > _HALF


def _settings(data: FitData) -> MappingSettings:
    chain = ChainSettings(
        background=data.text("background"),
        inversion=data.text("inversion"),
        regularisation=None if data.options["regularisation"] is None else data.number("regularisation"),
        rounds=_DEFAULT.rounds if data.options["rounds"] is None else int(data.number("rounds")),
        two_pass=data.flag("two_pass"),
        probes=int(data.number("noise_realisations")),
        seed=int(data.number("seed")),
        replica=True if data.flag("recovery") else None,
    )
    noise = None
    if data.noise_sd is not None:
        inside = data.noise_sd[data.mask]
        noise = float(np.median(inside[inside > 0]))
    return MappingSettings(
        chain=chain,
        phase_sign=cast(Sign, data.text("phase_sign")),
        readout=cast(Readout, data.text("readout")),
        noise_sd=noise,
        separate_without_r2=data.flag("separate_without_r2"),
        second_opinion=data.flag("second_opinion"),
        display_phase=data.flag("display_phase"),
    )


def _example() -> Example:
    """A smooth field whose phase fills its turn exactly, without noise."""
    times = 0.004 * np.arange(1, 6)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 12, 10)), indexing="ij")
    field = np.sin(2.1 * x + 0.3) * np.cos(1.7 * y) + 0.4 * z
    # The extremes lie half a turn from zero in the last echo: the range of the phase is exact.
    turn = 2 * math.pi / radians_per_ppm_second(3.0) / times[-1]
    field = np.clip(field / np.abs(field).max(), -0.95, 0.95) * 1.5 / 0.95 * turn
    phase = 2 * math.pi * field[..., None] / turn * times / times[-1]
    wrapped = np.angle(np.exp(1j * phase))
    rate = np.broadcast_to(20 + 8 * x + 5 * z, field.shape)
    return Example(
        images={"phase": wrapped, "magnitude": 900 * np.exp(-rate[..., None] * times)},
        truth={"total_field": field, "R2star": rate},
        tolerance=2e-4,
        settings={"echo_times": tuple(float(t) for t in times), "field_strength": (3.0,)},
        options={"background": "none", "inversion": "tkd", "noise_realisations": 0},
    )


_ECHOES = "one 4D file, or one file per echo"
MODEL = FitModel(
    id="qsm",
    description="Magnetic susceptibility from phase and magnitude of multi-echo gradient echo",
    fit=_fit,
    example=_example,
    voxelwise=False,
    outlines=True,
    images=(
        ImageRole(
            id="phase",
            metavar="PHASE",
            many=True,
            help=f"Wrapped phase in any scaling ({_ECHOES}), or real parts.",
            parts=("phase", "mag"),
        ),
        ImageRole(
            id="magnitude",
            metavar="MAGNITUDE",
            many=True,
            by_option=True,
            required=False,
            help=f"Magnitude, {_ECHOES}; found beside the phase by its BIDS name.",
            parts=("mag", "phase"),
        ),
        ImageRole(
            id="imaginary",
            metavar="IMAGINARY",
            many=True,
            by_option=True,
            required=False,
            help="Imaginary parts, where the images are real parts.",
            parts=("imag", "real"),
        ),
    ),
    settings=(
        Setting(
            id="echo_times",
            help="Echo time of each image.",
            unit="s",
            sidecar=("EchoTime",),
            role="phase",
            smallest=1e-5,
            largest=0.25,
            slip="milliseconds",
            acquisition="echo_time_s",
        ),
        Setting(
            id="field_strength",
            help="Main field.",
            unit="T",
            sidecar=("MagneticFieldStrength",),
            role="phase",
            shared=True,
            smallest=0.05,
            largest=12.0,
            slip="MHz",
        ),
    ),
    maps=(
        MapInput(
            id="cord_mask",
            unit="1",
            low=0.0,
            high=1.0,
            slip="labels of several regions",
            help="Mask of the cord: widened to canal and discs for the background.",
        ),
        MapInput(
            id="reference",
            unit="1",
            low=0.0,
            high=1.0,
            slip="labels of several regions",
            help="Region whose mean is zero; the whole valid mask by default.",
        ),
        MapInput(
            id="r2prime",
            unit="1/s",
            low=0.01,
            high=300.0,
            slip="milliseconds",
            help="R2' in 1/s, for the separation into para- and diamagnetic parts.",
        ),
        MapInput(
            id="r2",
            unit="1/s",
            low=0.3,
            high=60.0,
            slip="milliseconds",
            help="R2 of a spin echo in 1/s, for the same separation.",
        ),
    ),
    options=(
        Option(
            id="b0_direction",
            kind=tuple,
            default=None,
            unit="1",
            low=-1e6,
            high=1e6,
            length=3,
            help="Direction of the main field in array axes; from the affine by default.",
        ),
        Option(
            id="phase_range",
            kind=tuple,
            default=None,
            unit="1",
            low=-1e12,
            high=1e12,
            length=2,
            help="Stored values of -pi and pi; found out by default.",
        ),
        Option(
            id="phase_sign",
            kind=str,
            default="auto",
            choices=("auto", "positive", "negative"),
            help="Whether the phase grows with the field; auto looks for air beside tissue.",
        ),
        Option(
            id="readout",
            kind=str,
            default="auto",
            choices=("auto", "monopolar", "bipolar"),
            help="Whether odd and even echoes are read in opposite directions.",
        ),
        Option(
            id="background",
            kind=str,
            default=_DEFAULT.background,
            choices=BACKGROUNDS,
            help="How the field of sources outside the tissue is removed.",
        ),
        Option(
            id="inversion",
            kind=str,
            default=_DEFAULT.inversion,
            choices=INVERSIONS,
            help="How susceptibility is computed from the local field.",
        ),
        Option(
            id="regularisation",
            kind=float,
            default=None,
            unit="1",
            low=0.0,
            high=1e6,
            help="Weight of the penalty, in the scale of the inversion; from the noise by default.",
        ),
        Option(
            id="rounds",
            kind=int,
            default=None,
            unit="1",
            low=1,
            high=20,
            help="Most rounds of background and inversion in turns; by the size of the image by default.",
        ),
        Option(
            id="two_pass",
            kind=bool,
            default=False,
            help="Invert the reliable voxels first, then all, and combine; for tv and nonlinear-tv.",
        ),
        Option(
            id="noise_realisations",
            kind=int,
            default=_PROBES,
            unit="1",
            low=0,
            high=100,
            help="Random fields through the inversion for the standard error; 0 for none.",
        ),
        Option(id="seed", kind=int, default=0, unit="1", low=0, high=2**31 - 1, help="Of the random fields."),
        Option(
            id="recovery",
            kind=bool,
            default=False,
            help="Say what part of contrasts tv or nonlinear-tv passes on; small images have it anyway.",
        ),
        Option(
            id="separate_without_r2",
            kind=bool,
            default=False,
            help="Separate para- and diamagnetic parts with R2* alone (experimental).",
        ),
        Option(
            id="second_opinion",
            kind=bool,
            default=False,
            help="Compare the unwrapping with that of scikit-image.",
        ),
        Option(
            id="display_phase",
            kind=bool,
            default=False,
            help="Write the last echo unwrapped by its Laplacian, to look at only.",
        ),
    ),
    produces=(
        "susceptibility",
        "susceptibility_paramagnetic",
        "susceptibility_diamagnetic",
        "local_field",
        "total_field",
        "R2star",
    ),
    references=(
        "QSM Consensus Organization Committee et al. Recommended implementation of quantitative "
        "susceptibility mapping for clinical research in the brain. Magn Reson Med 2024. "
        "doi:10.1002/mrm.30006",
        "Dymerska B et al. Phase unwrapping with a rapid opensource minimum spanning tree algorithm "
        "(ROMEO). Magn Reson Med 2021. doi:10.1002/mrm.28563",
        "Liu T et al. A novel background field removal method for MRI using projection onto dipole "
        "fields. NMR Biomed 2011. doi:10.1002/nbm.1670",
    ),
    experimental="values mean nothing until your own test-retest has shown that they repeat: scan people "
    "twice, fit all scans with the same regions, join the tables measurements.tsv and run cordqa "
    "reliability on them (docs/susceptibility.md has the commands)",
    assumptions=(
        "Susceptibility is relative to its reference, so it has a repeatability in ppm and no coefficient of "
        "variation.",
    ),
)
