"""Myelin water fraction from multi-echo spin echo."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.echo_basis import EchoGrid, make_basis, node_to_angle
from cordqa.models.myelin.echo_order import early_misfit
from cordqa.models.myelin.neighbours import smooth_angles, spectra_of_neighbours
from cordqa.models.myelin.spectra import REGULARISATIONS, Regularisation, Smoothing
from cordqa.models.myelin.water_fraction import (
    MyelinWater,
    NeighbourSpectra,
    fit_myelin_water,
    fit_water_spectra,
)
from cordqa.models.relaxometry.checks import check_times
from cordqa.models.relaxometry.echo_order import refuse_growth
from cordqa.models.relaxometry.slice_profile import UNIFORM, windowed_sinc_profile
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.models._relaxometry import ECHO_TIMES, refuse_signed
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, MapInput, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]
_ANGLE, _NEIGHBOURS = "own_refocusing_angle", "neighbour_spectra"
_FEWEST = 12
_BATCH = 4000
#: The first echoes fit as well as the last, up to 0.95 in simulations of SNR 50 to 500.
_LARGEST_EARLY = 1.5
_DOUBTS = "doubts"
_MISFIT = (
    "the first echoes fit worse than the last ones (squared residuals {:.1f} times as large, in the median "
    "voxel): echoes that are not in order, a first echo of another kind, or a slice profile that was not "
    "taken into account (--slice-profile sinc) all give a wrong fraction"
)
_UNEVEN = 0.02
_FEW = "fewer than 24 echoes, or a train shorter than 200 ms: slow and fast water are hard to tell apart"


def _grid(data: FitData) -> EchoGrid:
    """Train of the basis; refuses echoes that are not equally spaced from 0.

    Raises
    ------
    InputError
    """
    times = check_times(data.values("echo_times"), "echo times", longest_s=2.0)
    steps = np.diff(times, prepend=0.0)
    if (steps <= 0).any():
        raise InputError(
            "echo times do not increase from image to image",
            found=", ".join(f"{1e3 * t:g}" for t in times[:6]) + " ms ...",
            todo="give the echoes in the order of the train",
        )
    spacing = float(times[-1] / times.size)
    if np.abs(steps - spacing).max() > _UNEVEN * spacing:
        raise InputError(
            "the phase graph needs equally spaced echoes, the first after one spacing",
            found=", ".join(f"{1e3 * t:g}" for t in times[:6]) + " ms ...",
        )
    return EchoGrid(
        n_echoes=times.size,
        echo_spacing_s=spacing,
        t1_s=data.number("t1"),
        n_t2=int(data.number("n_t2")),
        t2_range_s=(data.number("t2_min"), data.number("t2_max")),
    )


def _settings(data: FitData) -> MyelinWater:
    sinc = data.text("slice_profile") == "sinc"
    return MyelinWater(
        grid=_grid(data),
        smoothing=Smoothing(
            rule=cast(Regularisation, data.text("regularisation")), chi2_factor=data.number("chi2_factor")
        ),
        myelin_t2_s=data.number("myelin_t2"),
        tissue_t2_s=data.number("tissue_t2"),
        profile=windowed_sinc_profile(data.number("slice_width_ratio")) if sinc else UNIFORM,
        bootstrap=int(data.number("bootstrap")),
    )


def _prepare(data: FitData) -> FitData:
    """Refuse what no voxel can be fitted with; let neighbours speak where they are asked."""
    refuse_signed(data, "give magnitude images")
    settings = _settings(data)
    if settings.smoothing.rule == "discrepancy" and data.noise_sd is None:
        raise InputError("the discrepancy principle needs the noise", todo="give --noise-sd or --noise-map")
    data = replace(data, state={**data.state, _DOUBTS: _doubts(data, settings)})
    spatial = data.text("spatial")
    if spatial == "none":
        return data
    if data.signal.shape[0] != int(data.mask.sum()):
        raise InputError("neighbours are known only for a whole mask", where="--spatial")
    spacing = _spacing(data)
    angle = _given_angle(data)
    if angle is None:
        single = _single_angles(data, settings)
        angle = smooth_angles(single, data.mask, spacing, fwhm_mm=data.number("angle_fwhm"))
    maps = {**data.maps, _ANGLE: angle}
    if spatial == "spectra":
        near = spectra_of_neighbours(
            data.of("images"),
            settings,
            data.mask,
            spacing,
            angle_deg=angle,
            fwhm_mm=data.number("spectrum_fwhm"),
            weight=data.number("spectrum_weight"),
        )
        maps[_NEIGHBOURS] = near.spectrum.astype(np.float32)
    return replace(data, maps=maps)


def _doubts(data: FitData, settings: MyelinWater) -> tuple[str, ...]:
    """Say what speaks against the order of the echoes; refuse a signal that grows."""
    signal = np.asarray(data.of("images"), dtype=float)
    # Stimulated echoes may raise the second echo over the first.
    steps = refuse_growth(signal[:, 1:], data.values("echo_times")[1:])
    ratio = early_misfit(signal, replace(settings, smoothing=Smoothing(rule="none"), bootstrap=0))
    return (*steps, *((_MISFIT.format(ratio),) if ratio > _LARGEST_EARLY else ()))


def _spacing(data: FitData) -> tuple[float, float, float]:
    steps = np.sqrt((data.affine[:3, :3] ** 2).sum(axis=0))
    return float(steps[0]), float(steps[1]), float(steps[2])


def _given_angle(data: FitData) -> Array | None:
    """Refocusing angle from a B1 map and the nominal angle, where there is a map."""
    b1 = data.map("b1_map")
    if b1 is None:
        return None
    angle = b1 * data.number("refocusing_angle")
    # Beyond 180 degrees the echoes are those of the mirrored angle.
    return np.where(angle > 180, 360 - angle, angle)


def _single_angles(data: FitData, settings: MyelinWater) -> Array:
    """Fit the angle of every voxel alone, without making its spectrum smooth."""
    signal = data.of("images")
    usable = np.isfinite(signal).all(axis=1) & (signal > 0).any(axis=1)
    quick = replace(settings, smoothing=Smoothing(rule="none"), bootstrap=0)
    angle = np.full(len(signal), np.nan)
    rows = np.flatnonzero(usable)
    for start in range(0, rows.size, _BATCH):
        part = rows[start : start + _BATCH]
        angle[part] = node_to_angle(fit_water_spectra(signal[part], quick).node)
    return angle


def _fit(data: FitData) -> FittedMaps:
    settings = _settings(data)
    smooth, near = data.map(_ANGLE), data.map(_NEIGHBOURS)
    found = fit_myelin_water(
        data.of("images"),
        settings,
        noise_sd=data.noise_sd,
        refocusing_angle_deg=smooth if smooth is not None else _given_angle(data),
        neighbours=None if near is None else NeighbourSpectra(near, data.number("spectrum_weight")),
    )
    notices = list(found.notices)
    grid = settings.grid
    if grid.n_echoes < 24 or grid.n_echoes * grid.echo_spacing_s < 0.2:
        notices.append(_FEW)
    doubts = cast("tuple[str, ...]", data.state.get(_DOUBTS, ()))
    if near is not None:
        notices.append("spectra were pulled towards those of neighbours: borders of tissue are blurred")
    words = {"angle": "; angle map smoothed", "spectra": "; angle map smoothed, spectra pulled to neighbours"}
    return replace(
        found,
        model=found.model + words.get(data.text("spatial"), ""),
        notices=(*doubts, *notices),
        warnings=doubts,
    )


def _example() -> Example:
    """Sums of two T2 of the basis, so that its spacing does not show."""
    grid = EchoGrid(n_echoes=32, echo_spacing_s=0.010)
    fraction = np.linspace(0.08, 0.25, 12)
    angle = np.linspace(175.0, 120.0, 12)
    m0 = np.linspace(800.0, 1600.0, 12)
    amplitudes = np.zeros((12, grid.n_t2))
    amplitudes[:, 4], amplitudes[:, 15] = m0 * fraction, m0 * (1 - fraction)
    decays = make_basis(grid).at(1 + np.cos(np.radians(angle)))
    signal = np.matmul(decays, amplitudes[:, :, None])[:, :, 0]
    return Example(
        images={"images": signal.reshape(3, 2, 2, -1)},
        truth={
            "MWF": 100 * fraction.reshape(3, 2, 2),
            "M0": m0.reshape(3, 2, 2),
            "refocusing_angle": angle.reshape(3, 2, 2),
        },
        tolerance=2e-2,
        settings={"echo_times": tuple(0.010 * np.arange(1, 33))},
        noise_sd=4.0,
    )


MODEL = FitModel(
    id="mwf",
    description="Myelin water fraction from multi-echo spin echo: non-negative T2 spectrum, fitted angle",
    fit=_fit,
    prepare=_prepare,
    example=_example,
    images=(
        ImageRole(
            id="images",
            metavar="IMAGE",
            many=True,
            minimum=_FEWEST,
            help="Multi-echo spin echo: one 4D file, or one file per echo; 32 echoes of 10 ms are usual.",
        ),
    ),
    settings=(ECHO_TIMES,),
    maps=(
        MapInput(
            id="b1_map",
            kind="b1",
            unit="ratio",
            help="NIfTI map of actual over nominal flip angle; without it the angle is fitted.",
        ),
    ),
    options=(
        Option(
            id="regularisation",
            kind=str,
            default="chi2",
            choices=REGULARISATIONS,
            help="Rule for the smoothness of spectra; discrepancy needs the noise.",
        ),
        Option(
            id="chi2_factor",
            kind=float,
            default=1.02,
            unit="1",
            low=1.0001,
            high=9.0,
            help="How much the rule chi2 lets the residual sum of squares grow.",
        ),
        Option(
            id="spatial",
            kind=str,
            default="none",
            choices=("none", "angle", "spectra"),
            help="angle: smooth the map of flip angles; spectra: also pull spectra towards neighbours.",
        ),
        Option(
            id="angle_fwhm",
            kind=float,
            default=12.0,
            unit="mm",
            low=0.1,
            high=200.0,
            help="Width of the smoothing of flip angles.",
        ),
        Option(
            id="spectrum_fwhm",
            kind=float,
            default=4.0,
            unit="mm",
            low=0.1,
            high=100.0,
            help="Width of the neighbourhood of spectra.",
        ),
        Option(
            id="spectrum_weight",
            kind=float,
            default=0.05,
            unit="1",
            low=1e-6,
            high=100.0,
            help="Weight of the distance to the spectra of neighbours.",
        ),
        Option(
            id="bootstrap",
            kind=int,
            default=0,
            unit="draws",
            low=0,
            high=1000,
            help="Draws of a bootstrap of the standard error; 0 propagates the noise linearly.",
        ),
        Option(id="t1", kind=float, default=1.0, unit="s", low=0.05, high=10.0, help="T1 of all water."),
        Option(
            id="refocusing_angle",
            kind=float,
            default=180.0,
            unit="deg",
            low=30.0,
            high=180.0,
            help="Nominal refocusing angle, by which a B1 map is multiplied.",
        ),
        Option(
            id="slice_profile",
            kind=str,
            default="uniform",
            choices=("uniform", "sinc"),
            help="Angles through the slice: ideal (3D), or of windowed sinc pulses (2D).",
        ),
        Option(
            id="slice_width_ratio",
            kind=float,
            default=1.2,
            unit="1",
            low=0.5,
            high=4.0,
            help="Width of the refocusing slice over that of the excitation, for sinc.",
        ),
        Option(
            id="myelin_t2",
            kind=float,
            default=0.040,
            unit="s",
            low=0.005,
            high=0.2,
            help="Longest T2 of myelin water.",
        ),
        Option(
            id="tissue_t2",
            kind=float,
            default=0.200,
            unit="s",
            low=0.02,
            high=2.0,
            help="Longest T2 of the water inside and between cells.",
        ),
        Option(id="t2_min", kind=float, default=0.010, unit="s", low=0.001, high=0.1, help="Shortest T2."),
        Option(id="t2_max", kind=float, default=2.0, unit="s", low=0.1, high=20.0, help="Longest T2."),
        Option(id="n_t2", kind=int, default=40, unit="T2", low=8, high=200, help="Number of T2."),
    ),
    produces=("MWF", "T2IE", "M0", "refocusing_angle", "spectrum_smoothing"),
    references=(
        "MacKay A et al. In vivo visualization of myelin water in brain by magnetic resonance. Magn Reson "
        "Med 1994;31:673-677. doi:10.1002/mrm.1910310614",
        "Prasloski T et al. Applications of stimulated echo correction to multicomponent T2 analysis. Magn "
        "Reson Med 2012;67:1803-1814. doi:10.1002/mrm.23157",
    ),
    assumptions=(
        "One T1 and one refocusing angle for all water of a voxel, no exchange between its compartments "
        "during the echo train, equally spaced echoes.",
        "Magnitude noise: late echoes near the noise floor lengthen the longest T2; they hardly change the "
        "fraction above a signal-to-noise ratio of 100.",
    ),
)
