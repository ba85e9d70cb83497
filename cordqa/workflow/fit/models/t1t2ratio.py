"""Ratio of T1-weighted to T2-weighted images, calibrated by landmarks."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.models.myelin.weighted_ratio import (
    IntensityMap,
    calibrate_intensity,
    compute_weighted_ratio,
    estimate_bias_field,
)
from cordqa.workflow.fit.data import FitData
from cordqa.workflow.fit.registry import Example, FitModel, ImageRole, Option

__all__ = ["MODEL"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_RAW = (
    "the ratio is not calibrated: gain and offset of the scanner are in it, so that scans cannot be compared"
)
_HALF = 0.5


def _fit(data: FitData) -> FittedMaps:
    first, second = data.image("t1w"), data.image("t2w")
    _refuse_signed(first, second, data.mask)
    field = np.ones(first.shape)
    if data.options["bias_fwhm"] is not None:
        spacing = np.sqrt((data.affine[:3, :3] ** 2).sum(axis=0))
        field = estimate_bias_field(
            first,
            second,
            data.mask,
            (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            fwhm_mm=data.number("bias_fwhm"),
        )
    lines, words = _calibrate(data, first / field, second / field)
    noise = None
    if data.noise_sd is not None:
        noise = tuple(abs(line.scale) * np.asarray(data.noise_sd) / field for line in lines)
    # Landmarks may lie outside the mask; what counts as dark is judged inside.
    first, second = (
        np.where(data.mask, line(image / field), np.nan)
        for line, image in zip(lines, (first, second), strict=True)
    )
    found = compute_weighted_ratio(
        first,
        second,
        noise_sd=None if noise is None else (noise[0], noise[1]),
        words=words,
    )
    return found if words else replace(found, notices=(*found.notices, _RAW))


def _refuse_signed(first: Array, second: Array, mask: Mask) -> None:
    for name, image in (("T1W", first), ("T2W", second)):
        seen = image[mask & np.isfinite(image) & (image != 0)]
        if seen.size and (seen < 0).mean() > 0.2:
            raise InputError(
                "the images are no magnitudes",
                where=name,
                found=f"{100 * (seen < 0).mean():.0f} % of the voxels are negative",
            )


def _calibrate(data: FitData, first: Array, second: Array) -> tuple[list[IntensityMap], str]:
    """Lines that calibrate both images, and how in words; nothing where it was not asked for."""
    images = {"T1W": first, "T2W": second}
    landmarks = _landmarks(data)
    percentiles = cast("tuple[float, ...] | None", data.options["percentiles"])
    if landmarks is None and percentiles is None:
        return [IntensityMap(1.0, 0.0)] * 2, ""
    if landmarks is not None and percentiles is not None:
        raise InputError("give two landmark masks or percentiles, not both", where="calibration")
    lines = []
    for name, image in images.items():
        option = f"{name.lower()}_references"
        wanted = cast("tuple[float, ...] | None", data.options[option])
        if wanted is None:
            raise InputError(
                "a calibration needs the intensities of the landmarks in reference scans",
                todo=f"give --{option.replace('_', '-')} with two numbers, such as their medians in controls",
            )
        here = landmarks if landmarks is not None else _by_percentiles(image, data.mask, percentiles)
        lines.append(calibrate_intensity(image, *here, (wanted[0], wanted[1]), name=name))
    how = "two landmark masks" if landmarks is not None else f"percentiles {percentiles} of the mask"
    equations = ", ".join(
        f"{name} x {line.scale:.4g} {line.offset:+.4g}" for name, line in zip(images, lines, strict=True)
    )
    return lines, f"intensities calibrated by {how}: {equations}"


def _landmarks(data: FitData) -> tuple[Mask, Mask] | None:
    roles = ("first_landmark", "second_landmark")
    given = [data.roles[role].stop > data.roles[role].start for role in roles]
    if not any(given):
        return None
    if not all(given):
        raise InputError("a calibration needs two landmarks", todo="give both, or neither")
    first, second = (np.nan_to_num(data.image(role)) > _HALF for role in roles)
    return first, second


def _by_percentiles(image: Array, mask: Mask, ends: tuple[float, ...] | None) -> tuple[Mask, Mask]:
    """Take the voxels nearest to two percentiles as landmarks."""
    inside = mask & np.isfinite(image) & (image > 0)
    if ends is None or not inside.any() or not ends[0] < ends[1]:
        raise InputError("the percentiles must increase, over a mask with signal", where="--percentiles")
    low, high = (
        np.percentile(image[inside], [max(p - 0.5, 0.0), min(p + 0.5, 100.0)]) for p in (ends[0], ends[1])
    )
    return inside & (image >= low[0]) & (image <= low[1]), inside & (image >= high[0]) & (image <= high[1])


def _example() -> Example:
    ratio = np.linspace(0.5, 1.8, 60).reshape(5, 4, 3)
    first, second = 500 * np.sqrt(ratio), 500 / np.sqrt(ratio)
    dark, bright = np.zeros(ratio.shape), np.zeros(ratio.shape)
    dark[0], bright[4] = 1, 1
    return Example(
        # Another gain and offset than in the reference scans.
        images={
            "t1w": 1.7 * first + 40,
            "t2w": 0.6 * second + 25,
            "first_landmark": dark,
            "second_landmark": bright,
        },
        truth={"T1wT2w": ratio},
        tolerance=1e-4,
        options={
            "t1w_references": (float(np.median(first[0])), float(np.median(first[4]))),
            "t2w_references": (float(np.median(second[0])), float(np.median(second[4]))),
        },
    )


def _references(name: str) -> Option:
    return Option(
        id=f"{name.lower()}_references",
        kind=tuple,
        default=None,
        unit=f"intensity of {name}",
        low=-1e9,
        high=1e9,
        length=2,
        help=f"Intensities of the two landmarks in {name} of reference scans; needed by a calibration.",
    )


MODEL = FitModel(
    id="t1t2ratio",
    description="Ratio of T1-weighted to T2-weighted images, calibrated by two landmarks",
    fit=_fit,
    example=_example,
    images=(
        ImageRole(id="t1w", metavar="T1W", help="T1-weighted image."),
        ImageRole(id="t2w", metavar="T2W", help="T2-weighted image, registered to it."),
        ImageRole(
            id="first_landmark",
            metavar="FILE",
            by_option=True,
            required=False,
            help="Mask of the first landmark (such as the eyes, or cerebrospinal fluid).",
        ),
        ImageRole(
            id="second_landmark",
            metavar="FILE",
            by_option=True,
            required=False,
            help="Mask of the second landmark (such as muscle, or fat).",
        ),
    ),
    options=(
        _references("T1W"),
        _references("T2W"),
        Option(
            id="percentiles",
            kind=tuple,
            default=None,
            unit="%",
            low=0.0,
            high=100.0,
            length=2,
            help="Percentiles of the mask as landmarks instead of masks, such as 5,95; not by default.",
        ),
        Option(
            id="bias_fwhm",
            kind=float,
            default=None,
            unit="mm",
            low=5.0,
            high=500.0,
            help="Width by which the receive field is estimated and taken out; it is not by default.",
        ),
    ),
    voxelwise=False,
    produces=("T1wT2w",),
    references=(
        "Glasser MF, Van Essen DC. Mapping human cortical areas in vivo based on myelin content as revealed "
        "by T1- and T2-weighted MRI. J Neurosci 2011;31:11597-11616. doi:10.1523/JNEUROSCI.2180-11.2011",
        "Ganzetti M et al. Whole brain myelin mapping using T1- and T2-weighted MR imaging data. Front Hum "
        "Neurosci 2014;8:671. doi:10.3389/fnhum.2014.00671",
    ),
    assumptions=(
        "Both images share the receive field. Transmit field and sequence stay in the ratio: it compares "
        "scans of one protocol, and agrees weakly with other measures of myelin in white matter.",
    ),
)
