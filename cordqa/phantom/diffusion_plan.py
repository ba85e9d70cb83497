"""Which image of a diffusion series is for what: single directions, averages, no weighting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import FitError
from cordqa.models.diffusion.adc import SHARED
from cordqa.records import ImageSet

__all__ = ["AXES", "ImagePlan", "has_directions", "plan_images"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: Directions closer than this (5 degrees) are one; a direction and its opposite weigh alike.
_SAME_DIRECTION = float(np.cos(np.deg2rad(5.0)))
#: Left to right, front to back, along the bore.
AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """What each image of a diffusion series is for.

    Attributes
    ----------
    b_values : ndarray, shape (n_images,)
    groups : ndarray of int, shape (n_images,)
        Direction of the image, ``SHARED`` without weighting.
    main : ndarray of bool, shape (n_images,)
        Images that give the ADC: single directions where there are any, else averages.
    averaged : ndarray of bool, shape (n_images,)
        Averages over directions, where single directions are there as well, and unweighted images.
    directions : ndarray, shape (n_groups, 3)
        Unit vectors; NaN for averages.
    image_axes : bool
        Directions are along the axes of the image, not of the scanner.
    """

    b_values: Array
    groups: Index
    main: NDArray[np.bool_]
    averaged: NDArray[np.bool_]
    directions: Array
    image_axes: bool = False

    @property
    def by_direction(self) -> bool:
        """Tell whether single directions were measured."""
        return bool(np.isfinite(self.directions).all())

    @property
    def names(self) -> tuple[str, ...]:
        """Name every direction: an axis, or its components."""
        return tuple(_name(direction) for direction in self.directions)


def plan_images(images: ImageSet) -> ImagePlan:
    """Sort the images of a diffusion series by direction.

    Raises
    ------
    FitError
        If a b-value is missing or there is only one.
    """
    b = images.values("b_value_s_per_mm2")
    if not np.isfinite(b).all():
        raise FitError(
            f"the b-value is missing from {np.count_nonzero(~np.isfinite(b))} of {b.size} images",
            where=images.label,
            todo="export the originals with DiffusionBValue (0018,9087) or the private elements",
        )
    if np.unique(b).size < 2:
        raise FitError(
            "one b-value gives no ADC",
            where=images.label,
            found=f"{b[0]:g} s/mm2",
            expected="at least two b-values",
            todo="add the images with the other b-values to the folder",
        )
    encoding = np.array([a.diffusion_encoding for a in images.acquisitions])
    shared = (encoding == "none") | (b == 0)
    single = (encoding == "direction") & ~shared
    if not single.any():
        groups = np.where(shared, SHARED, 0).astype(np.intp)
        everything = np.ones(b.size, dtype=bool)
        return ImagePlan(
            b_values=b,
            groups=groups,
            main=everything,
            averaged=~everything,
            directions=np.full((1, 3), np.nan),
        )
    vectors = np.array([a.diffusion_direction or (np.nan,) * 3 for a in images.acquisitions])
    groups, directions = _distinct(vectors, single)
    origins = {a.origins.get("diffusion_direction", "") for a in images.acquisitions}
    averaged = ~single if (~single & ~shared).any() else np.zeros(b.size, dtype=bool)
    return ImagePlan(
        b_values=b,
        groups=groups,
        main=single | shared,
        averaged=averaged,
        directions=directions,
        image_axes=any("image" in origin for origin in origins),
    )


def has_directions(images: ImageSet) -> bool:
    """Tell whether a series holds images of single directions."""
    return any(a.diffusion_encoding == "direction" for a in images.acquisitions)


def _distinct(vectors: Array, single: NDArray[np.bool_]) -> tuple[Index, Array]:
    """Number the distinct directions; opposite ones are the same."""
    groups = np.full(len(vectors), SHARED, dtype=np.intp)
    known: list[Array] = []
    for index in np.flatnonzero(single):
        match = next(
            (k for k, other in enumerate(known) if abs(float(vectors[index] @ other)) >= _SAME_DIRECTION),
            len(known),
        )
        if match == len(known):
            known.append(vectors[index])
        groups[index] = match
    return groups, np.array(known)


def _name(direction: Array) -> str:
    if not np.isfinite(direction).all():
        return "average"
    largest = int(np.argmax(np.abs(direction)))
    if abs(direction[largest]) >= _SAME_DIRECTION:
        return AXES[largest]
    return "(" + ", ".join(f"{value:.2f}" for value in direction) + ")"
