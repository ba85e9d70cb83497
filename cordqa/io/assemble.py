"""Decode the frames of the planned sets and make image sets of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import CordqaError
from cordqa.io.clipping import find_clipped
from cordqa.io.frames import Frame, Stored
from cordqa.io.grouping import SetPlan
from cordqa.io.naming import Names
from cordqa.io.set_notices import notices_of_set
from cordqa.records import Acquisition, ImageSet

__all__ = ["Decoded", "build_set", "decode_plans", "plan_bytes"]

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_BYTES_PER_SAMPLE = 5  # float32 and one mask byte


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels of one planned set, shape (n_images, n_slices, n_rows, n_columns)."""

    data: NDArray[np.float32]
    clipped: NDArray[np.bool_]


def plan_bytes(plan: SetPlan) -> int:
    """Return the memory that the images of a planned set take."""
    images = plan.stack.images
    return len(images) * len(images[0]) * plan.first.rows * plan.first.columns * _BYTES_PER_SAMPLE


def decode_plans(plans: Sequence[SetPlan]) -> tuple[list[Decoded], dict[str, CordqaError]]:
    """Decode all frames of the planned sets, each file once.

    Returns
    -------
    list of Decoded
        One per plan; incomplete where a file is among the failures.
    dict
        Failure by source file.
    """
    decoded = [_allocate(plan) for plan in plans]
    targets: dict[str, dict[int, tuple[int, int, int]]] = defaultdict(dict)
    frames: dict[str, dict[int, Frame]] = defaultdict(dict)
    for p, plan in enumerate(plans):
        for i, image in enumerate(plan.stack.images):
            for s, frame in enumerate(image):
                targets[frame.file.source][frame.index] = (p, i, s)
                frames[frame.file.source][frame.index] = frame
    failures: dict[str, CordqaError] = {}
    for source, wanted in targets.items():
        members = frames[source]
        file = next(iter(members.values())).file
        try:
            for index, stored in file.load(sorted(wanted)):
                p, i, s = wanted[index]
                _fill(decoded[p], i, s, members[index], stored)
        except CordqaError as error:
            failures[source] = error
    return decoded, failures


def _allocate(plan: SetPlan) -> Decoded:
    images = plan.stack.images
    shape = (len(images), len(images[0]), plan.first.rows, plan.first.columns)
    return Decoded(np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool))


def _fill(decoded: Decoded, image: int, slice_: int, frame: Frame, stored: Stored) -> None:
    scale = frame.acquisition
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.values * np.float64(scale.scale_slope) + scale.scale_intercept
        target = decoded.data[image, slice_]
        target[...] = values
        if stored.values.dtype.kind == "f":
            target[~np.isfinite(target)] = np.nan
    decoded.clipped[image, slice_] = find_clipped(stored, frame.part)


def build_set(plan: SetPlan, decoded: Decoded, names: Names, *, temperature_C: float) -> ImageSet:
    """Make the image set of one plan.

    Parameters
    ----------
    plan : SetPlan
        Frames by image and slice.
    decoded : Decoded
        Their pixels.
    names : Names
        Entities and label.
    temperature_C : float
        Temperature of the folder's phantom file, for images that carry none; may be NaN.
    """
    affine, spacing, even = _affine(plan.stack.images[0])
    notices = notices_of_set(plan, decoded.data, decoded.clipped, label=names.label, even_spacing=even)
    return ImageSet(
        data=decoded.data,
        affine=affine,
        spacing_mm=spacing,
        acquisitions=tuple(
            _with_temperature(image[0].acquisition, temperature_C) for image in plan.stack.images
        ),
        entities=names.entities,
        part=plan.first.part,
        clipped=decoded.clipped,
        label=names.label,
        sources=tuple(dict.fromkeys(f.name for image in plan.stack.images for f in image)),
        notices=notices,
    )


def _with_temperature(acquisition: Acquisition, temperature_C: float) -> Acquisition:
    if math.isfinite(acquisition.temperature_C) or math.isnan(temperature_C):
        return acquisition
    origins = {**acquisition.origins, "temperature_C": "sidecar"}
    return replace(acquisition, temperature_C=temperature_C, origins=origins)


def _affine(
    slices: Sequence[Frame],
) -> tuple[NDArray[np.float64], tuple[float, float, float], bool]:
    """Return the map from (slice, row, column, 1) to RAS+ mm, the spacing, and its evenness."""
    first = slices[0]
    along_row = np.array(first.orientation[:3]) * first.spacing[1]  # one column further
    along_column = np.array(first.orientation[3:]) * first.spacing[0]  # one row further
    even = True
    if len(slices) > 1:
        positions = np.array([f.position for f in slices])
        steps = np.diff(positions, axis=0)
        step = steps.mean(axis=0)
        even = bool(np.abs(steps - step).max() <= 0.05 * np.linalg.norm(step))
    else:
        thickness = first.acquisition.slice_thickness_mm
        normal = np.cross(first.orientation[:3], first.orientation[3:])
        step = normal * (thickness if math.isfinite(thickness) else 1.0)
    affine = np.eye(4)
    affine[:3, :] = np.column_stack([step, along_column, along_row, first.position])
    affine[:3, :] *= _LPS_TO_RAS[:, None]
    spacing = (float(np.linalg.norm(step)), first.spacing[0], first.spacing[1])
    return affine, spacing, even
