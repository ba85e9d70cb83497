"""Values of a map in the regions of an atlas, with partial volume, coverage and uncertainty.

In a cord of a dozen voxels across, most voxels hold more than one tissue.  Averages over them mix
those tissues; the maximum-likelihood and maximum-a-posteriori estimates explain each voxel as a
sum of its parts (white matter tracts, grey matter, cerebrospinal fluid) and solve for the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage, AtlasLabels, Region
from cordqa.cord.axes import orient
from cordqa.cord.estimators import METHODS, PARTIAL_VOLUME, Estimate, Method, estimate_region
from cordqa.errors import InputError
from cordqa.quantities import find_quantity
from cordqa.records import Entities, Measurement, Volume

__all__ = [
    "METHODS",
    "Estimate",
    "Method",
    "box_weights",
    "check_slices",
    "estimate_group",
    "estimate_region",
    "extract_regions",
    "flags_of",
    "make_measurement",
    "values_on_grid",
]

Array = NDArray[np.float64]
UNCERTAINTY = "scatter of voxels, taken as independent"


def extract_regions(
    image: Volume,
    atlas: AtlasImage,
    *,
    quantity: str,
    regions: Sequence[str] = ("cord", "WM", "GM", "DC", "LF", "VF"),
    method: Method = "MAP",
    groups: Mapping[str, Sequence[int] | NDArray[np.intp]] | None = None,
    notes: Mapping[str, str] | None = None,
    min_voxels: float = 1.0,
    scale: float = 1.0,
    surround: bool = False,
    entities: Entities | None = None,
    engine: str = "",
) -> tuple[Measurement, ...]:
    """Make one row per region and group of slices.

    Parameters
    ----------
    image : Volume
        The map, in any orientation, on the grid of the atlas.
    atlas : AtlasImage
    quantity : str
        What the map shows; its unit is that of the registry.
    regions : sequence of str
        Names known to the atlas.
    method : str
        See :func:`estimate_region`.
    groups : mapping, optional
        Name ("C3", "slice 4") to slice numbers counted from inferior; by default all
        slices together.
    notes : mapping, optional
        A flag per group.
    scale : float
        Factor from the unit of the map to that of the quantity.
    surround : bool
        See :func:`estimate_region`.

    Returns
    -------
    tuple of Measurement
        ``coverage`` is the share of the slices asked for that the atlas reaches, times the share of
        the region with a number; ``n_voxels`` is the effective voxel count.

    Raises
    ------
    InputError
        If grids differ, a region or quantity is unknown, or a slice lies outside the image.
    """
    data = values_on_grid(image, atlas)
    known = find_quantity(quantity)
    if known is None:
        raise InputError("the quantity of the map is not registered", found=quantity)
    chosen = groups if groups is not None else {"all": np.arange(atlas.shape[2])}
    rows = []
    for name in regions:
        region = atlas.labels.find(name)
        for group, slices in chosen.items():
            numbers = check_slices(slices, atlas)
            estimate, reach = estimate_group(
                data, atlas, region, numbers, method, min_voxels, surround=surround
            )
            rows.append(
                make_measurement(
                    estimate,
                    atlas,
                    region,
                    quantity=quantity,
                    unit=known.unit,
                    scale=scale,
                    group=group,
                    reach=reach,
                    method=method,
                    note=(notes or {}).get(group, ""),
                    entities=entities or Entities(),
                    engine=engine,
                )
            )
    return tuple(rows)


def make_measurement(
    estimate: Estimate,
    atlas: AtlasImage,
    region: Region,
    *,
    quantity: str,
    unit: str,
    scale: float,
    group: str,
    reach: float,
    method: str,
    note: str,
    entities: Entities,
    engine: str,
    uncertainty_method: str = UNCERTAINTY,
) -> Measurement:
    """Write an estimate of one region and group of slices as a row.

    Parameters
    ----------
    scale : float
        Factor from the unit of the estimate to ``unit``.
    reach : float
        Share of the slices asked for that the atlas reaches.
    """
    known = math.isfinite(estimate.standard_uncertainty)
    return Measurement(
        quantity=quantity,
        value=estimate.value * scale,
        unit=unit,
        region=region.name,
        level=group,
        standard_uncertainty=estimate.standard_uncertainty * scale,
        uncertainty_method=uncertainty_method if known else "",
        n_voxels=round(estimate.effective_voxels),
        coverage=estimate.coverage * reach,
        method=method,
        engine=engine,
        entities=entities,
        flags=flags_of(estimate, region, reach, method, atlas.labels, note),
    )


def values_on_grid(image: Volume, atlas: AtlasImage, *, what: str = "map") -> Array:
    """Lay an image out as the atlas is, or refuse it where it lies elsewhere."""
    oriented = orient(image, what=what)
    if oriented.data.shape != atlas.shape or not np.allclose(oriented.affine, atlas.affine, atol=0.1):
        raise InputError(
            f"{what} and atlas are not on one grid",
            where=image.source,
            found=f"{oriented.data.shape}",
            expected=f"{atlas.shape} at the same place",
            todo="resample one to the other",
        )
    return np.asarray(oriented.data, dtype=float)


def check_slices(slices: Sequence[int] | NDArray[np.intp], atlas: AtlasImage) -> NDArray[np.intp]:
    """Sort slice numbers, and refuse any outside the image."""
    numbers = np.unique(np.asarray(slices, dtype=np.intp))
    outside = numbers[(numbers < 0) | (numbers >= atlas.shape[2])]
    if outside.size:
        raise InputError(
            "a slice lies outside the image",
            found=f"slice {outside[0]}",
            expected=f"0 to {atlas.shape[2] - 1}",
        )
    return numbers


def estimate_group(
    data: Array,
    atlas: AtlasImage,
    region: Region,
    slices: NDArray[np.intp],
    method: Method,
    min_voxels: float = 1.0,
    *,
    surround: bool = False,
) -> tuple[Estimate, float]:
    """Estimate a region over some slices, and tell the share of them that the atlas reaches.

    ``data`` is laid out as the atlas is, see :func:`values_on_grid`.
    """
    weights, inside, reach = box_weights(atlas, slices)
    i, j, k = atlas.corner
    n = atlas.weights.shape
    values = data[i : i + n[1], j : j + n[2], inside + k].ravel()
    if method in ("median", "max"):
        # As the Spinal Cord Toolbox does, these two look at whole slices: the largest of all voxels,
        # and a median whose interpolation runs over voxels outside the region as well.
        values, weights = _whole_slices(data, weights, atlas, inside)
    estimate = estimate_region(
        values,
        weights,
        region.members,
        method=method,
        tissues=tuple(atlas.labels.tissues.values()),
        min_voxels=min_voxels,
        surround=surround,
    )
    return estimate, reach


def box_weights(atlas: AtlasImage, slices: NDArray[np.intp]) -> tuple[Array, NDArray[np.intp], float]:
    """Weights of some slices, shape (n_labels, n); their indices in the box; the share of them reached."""
    inside = slices - atlas.corner[2]
    inside = inside[(inside >= 0) & (inside < atlas.weights.shape[3])]
    weights = atlas.weights[..., inside].reshape(len(atlas.weights), -1).astype(float)
    reached = float(np.isin(slices, atlas.covered_slices()).mean()) if slices.size else 0.0
    return weights, inside, reached


def _whole_slices(
    data: Array, weights: Array, atlas: AtlasImage, inside: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Voxels of whole slices, with weight 0 outside the box of the atlas."""
    i, j, k = atlas.corner
    n = atlas.weights.shape
    full = np.zeros((n[0], *atlas.shape[:2], inside.size))
    full[:, i : i + n[1], j : j + n[2]] = weights.reshape(n[0], n[1], n[2], inside.size)
    return data[..., inside + k].ravel(), full.reshape(n[0], -1)


def flags_of(
    estimate: Estimate, region: Region, reach: float, method: str, labels: AtlasLabels, note: str = ""
) -> tuple[str, ...]:
    """Say what the reader must know about an estimate."""
    flags = [estimate.reason] if estimate.reason else []
    if region.approximate:
        flags.append("approximate: borders of this tract are schematic")
    if 0 < reach < 1:
        flags.append(f"the atlas reaches {100 * reach:.0f} % of the slices asked for")
    if 0 < estimate.coverage < 0.999:
        flags.append(f"{100 * (1 - estimate.coverage):.2g} % of the region holds no number")
    if method == "max":
        flags.append("largest of all voxels in these slices, whatever the region")
    if method in PARTIAL_VOLUME and not labels.tissues.get("CSF"):
        flags.append("partial volume with CSF is not modelled: the atlas has no CSF")
    if note:
        flags.append(note)
    return tuple(flags)
