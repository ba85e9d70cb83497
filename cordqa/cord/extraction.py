"""Values of a map in the regions of an atlas, with partial volume, coverage and uncertainty.

In a cord of a dozen voxels across, most voxels hold more than one tissue.  Averages over them mix
those tissues; the maximum-likelihood and maximum-a-posteriori estimates explain each voxel as a
sum of its parts (white matter tracts, grey matter, cerebrospinal fluid) and solve for the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage, AtlasLabels, Region
from cordqa.cord.axes import orient
from cordqa.errors import InputError
from cordqa.quantities import find_quantity
from cordqa.records import Entities, Measurement, Volume

__all__ = ["METHODS", "Estimate", "Method", "estimate_region", "extract_regions"]

Array = NDArray[np.float64]
Method = Literal["weighted mean", "binary", "median", "max", "maximum likelihood", "MAP"]
METHODS: tuple[str, ...] = get_args(Method)
_PARTIAL_VOLUME = ("maximum likelihood", "MAP")
#: A voxel counts as inside for the binary estimate where the region fills half of it.
HALF = 0.5
NOT_COVERED = "region not covered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Value of one region.

    Attributes
    ----------
    value : float
        NaN where it cannot be known; ``reason`` says why.
    standard_uncertainty : float
        From the scatter of voxels, taken as independent.
    sd : float
        Weighted standard deviation of the voxels (ddof 0), whatever the method.
    size : float
        Sum of the weights: the volume of the region in voxels.
    effective_voxels : float
        Squared sum of weights over sum of squares: that many whole voxels say as much.
    coverage : float
        Share of the region's weight that falls on voxels with a number.
    reason : str
    """

    value: float
    standard_uncertainty: float = math.nan
    sd: float = math.nan
    size: float = 0.0
    effective_voxels: float = 0.0
    coverage: float = 0.0
    reason: str = ""


def estimate_region(
    values: Array,
    weights: Array,
    members: Sequence[int],
    *,
    method: Method = "MAP",
    tissues: Sequence[Sequence[int]] = (),
    min_voxels: float = 1.0,
) -> Estimate:
    """Estimate the value of a region from voxels and the fractions that labels fill of them.

    Parameters
    ----------
    values : ndarray, shape (n_voxels,)
        The map; voxels that are not finite are left out.
    weights : ndarray, shape (n_labels, n_voxels)
        Fraction of each voxel that each label fills.
    members : sequence of int
        Labels of the region; several are taken as one.
    method : str
        ``weighted mean``: sum(w y) / sum(w).  ``binary``: mean of voxels filled at least by half.
        ``median``: weighted median, interpolated between voxels.  ``max``: largest of all voxels given,
        which knows no region.  ``maximum likelihood``: least squares over the region and every other
        label.  ``MAP``: the same around the values of white matter, grey matter and CSF, with prior
        variance equal to the noise variance of a voxel.
    tissues : sequence of sequences of int
        Labels of white matter, of grey matter, of CSF; needed by ``MAP``.
    min_voxels : float
        A region smaller than this has no value.

    References
    ----------
    .. [1] Levy et al., NeuroImage 2015, doi:10.1016/j.neuroimage.2015.06.040
    """
    if method not in METHODS:
        raise InputError("unknown way of extraction", found=method, expected=", ".join(METHODS))
    region = weights[list(members)].sum(axis=0)
    total = float(region.sum())
    known = np.isfinite(values)
    y, w = values[known], region[known]
    size = float(w.sum())
    coverage = size / total if total > 0 else 0.0
    if size <= 0 or size < min_voxels:
        reason = NOT_COVERED if total <= 0 else f"{NOT_COVERED}: {size:.2g} voxels with a number"
        return Estimate(value=math.nan, size=size, coverage=coverage, reason=reason)
    mean = float((w * y).sum() / size)
    sd = math.sqrt(float((w * (y - mean) ** 2).sum() / size))
    effective = float(size**2 / (w**2).sum())
    value, error, reason = _value(method, y, w, weights[:, known], members, tissues, mean, sd, effective)
    return Estimate(
        value=value,
        standard_uncertainty=error,
        sd=sd,
        size=size,
        effective_voxels=effective,
        coverage=coverage,
        reason=reason,
    )


def _value(
    method: str,
    y: Array,
    w: Array,
    weights: Array,
    members: Sequence[int],
    tissues: Sequence[Sequence[int]],
    mean: float,
    sd: float,
    effective: float,
) -> tuple[float, float, str]:
    """Value, standard uncertainty and, where there is no value, the reason."""
    # The spread of n voxels about their own mean is too small by (n - 1) / n.
    spread = sd * math.sqrt(effective / (effective - 1)) if effective > 1 else math.nan
    if method == "weighted mean":
        return mean, spread / math.sqrt(effective), ""
    if method == "median":
        return _weighted_median(y, w), 1.2533 * spread / math.sqrt(effective), ""
    if method == "max":
        return float(y.max()), math.nan, ""
    if method == "binary":
        inside = y[w >= HALF]
        if inside.size == 0:
            return math.nan, math.nan, f"{NOT_COVERED}: no voxel is filled by half"
        error = float(inside.std(ddof=1)) / math.sqrt(inside.size) if inside.size > 1 else math.nan
        return float(inside.mean()), error, ""
    return _partial_volume(method, y, w, weights, members, tissues)


def _weighted_median(y: Array, w: Array) -> float:
    order = np.argsort(y)
    middle = np.cumsum(w[order]) - 0.5 * w[order]
    return float(np.interp(0.5 * w.sum(), middle, y[order]))


def _partial_volume(
    method: str,
    y: Array,
    w: Array,
    weights: Array,
    members: Sequence[int],
    tissues: Sequence[Sequence[int]],
) -> tuple[float, float, str]:
    """Least squares over the region (first column) and every other label."""
    others = [n for n in range(len(weights)) if n not in set(members)]
    design = np.vstack([w[None], weights[others]]).T
    touched = design.any(axis=1)
    design, y = design[touched], y[touched]
    gram = design.T @ design
    prior = np.zeros(design.shape[1])
    shrink = np.zeros_like(gram)
    if method == "MAP":
        merged = _clusters(tissues, members)
        index = _cluster_of(merged, members, others)
        sums = np.stack([weights[list(c)].sum(axis=0) for c in merged]).T[touched]
        prior = (np.linalg.pinv(sums.T @ sums) @ (sums.T @ y))[index]
        shrink = np.eye(len(gram))
    inverse = np.linalg.pinv(gram + shrink)
    beta = prior + inverse @ (design.T @ (y - design @ prior))
    if not _determined(gram + shrink, np.asarray(inverse, dtype=float)):
        return math.nan, math.nan, "the region cannot be told from its neighbours in these voxels"
    return float(beta[0]), _error(design, y, beta, np.asarray(inverse, dtype=float)), ""


def _clusters(tissues: Sequence[Sequence[int]], members: Sequence[int]) -> list[tuple[int, ...]]:
    """Tissues of the prior; those that the region reaches into are taken as one."""
    if not tissues:
        raise InputError("MAP needs to know which labels are white matter, grey matter and CSF")
    chosen = set(members)
    reached = [t for t in tissues if chosen & set(t)]
    rest = [tuple(t) for t in tissues if not chosen & set(t)]
    return [tuple(n for t in reached for n in t), *rest]


def _cluster_of(
    clusters: Sequence[Sequence[int]], members: Sequence[int], others: Sequence[int]
) -> NDArray[np.intp]:
    where = {label: n for n, cluster in enumerate(clusters) for label in cluster}
    missing = [n for n in (*members, *others) if n not in where]
    if missing:
        raise InputError("a label belongs to no tissue", found=f"label {missing[0]}")
    return np.array([0, *(where[n] for n in others)], dtype=np.intp)


def _determined(gram: Array, inverse: Array) -> bool:
    """Whether the first unknown is fixed by the data: its row of the resolution matrix is a unit row."""
    row = inverse[0] @ gram
    row[0] -= 1.0
    return bool(np.abs(row).max() < 1e-3)


def _error(design: Array, y: Array, beta: Array, inverse: Array) -> float:
    """Propagate the residual scatter of voxels through the linear estimate."""
    freedom = len(y) - int(np.linalg.matrix_rank(design.T @ design, hermitian=True))
    if freedom < 1:
        return math.nan
    residual = y - design @ beta
    gain = inverse[0] @ design.T
    return float(math.sqrt((residual @ residual) / freedom * (gain @ gain)))


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
        Name ("C3", "slice 4 (array index 4)") to slice numbers counted from inferior; by default all
        slices together.
    notes : mapping, optional
        A flag per group.
    scale : float
        Factor from the unit of the map to that of the quantity.

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
    data = _on_grid(image, atlas)
    known = find_quantity(quantity)
    if known is None:
        raise InputError("the quantity of the map is not registered", found=quantity)
    unit = known.unit
    chosen = groups if groups is not None else {"all": np.arange(atlas.shape[2])}
    rows = []
    for name in regions:
        region = atlas.labels.find(name)
        for group, slices in chosen.items():
            numbers = _slices(slices, atlas)
            estimate, reach = _estimate(data, atlas, region, numbers, method, min_voxels)
            rows.append(
                Measurement(
                    quantity=quantity,
                    value=estimate.value * scale,
                    unit=unit,
                    region=name,
                    level=group,
                    standard_uncertainty=estimate.standard_uncertainty * scale,
                    uncertainty_method=_uncertainty_method(estimate),
                    n_voxels=round(estimate.effective_voxels),
                    coverage=estimate.coverage * reach,
                    method=method,
                    engine=engine,
                    entities=entities or Entities(),
                    flags=_flags(estimate, region, reach, method, atlas.labels, (notes or {}).get(group, "")),
                )
            )
    return tuple(rows)


def _uncertainty_method(estimate: Estimate) -> str:
    if math.isnan(estimate.standard_uncertainty):
        return ""
    return "scatter of voxels, taken as independent"


def _on_grid(image: Volume, atlas: AtlasImage) -> Array:
    oriented = orient(image, what="map")
    if oriented.data.shape != atlas.shape or not np.allclose(oriented.affine, atlas.affine, atol=0.1):
        raise InputError(
            "map and atlas are not on one grid",
            where=image.source,
            found=f"{oriented.data.shape}",
            expected=f"{atlas.shape} at the same place",
            todo="resample one to the other",
        )
    return np.asarray(oriented.data, dtype=float)


def _slices(slices: Sequence[int] | NDArray[np.intp], atlas: AtlasImage) -> NDArray[np.intp]:
    numbers = np.unique(np.asarray(slices, dtype=np.intp))
    outside = numbers[(numbers < 0) | (numbers >= atlas.shape[2])]
    if outside.size:
        raise InputError(
            "a slice lies outside the image",
            found=f"slice {outside[0]}",
            expected=f"0 to {atlas.shape[2] - 1}",
        )
    return numbers


def _estimate(
    data: Array,
    atlas: AtlasImage,
    region: Region,
    slices: NDArray[np.intp],
    method: Method,
    min_voxels: float,
) -> tuple[Estimate, float]:
    """Estimate over some slices, and the share of them that the atlas reaches."""
    inside = slices - atlas.corner[2]
    inside = inside[(inside >= 0) & (inside < atlas.weights.shape[3])]
    weights = atlas.weights[..., inside].reshape(len(atlas.weights), -1).astype(float)
    reached = np.isin(slices, atlas.covered_slices()).mean() if slices.size else 0.0
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
    )
    return estimate, float(reached)


def _whole_slices(
    data: Array, weights: Array, atlas: AtlasImage, inside: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Voxels of whole slices, with weight 0 outside the box of the atlas."""
    i, j, k = atlas.corner
    n = atlas.weights.shape
    full = np.zeros((n[0], *atlas.shape[:2], inside.size))
    full[:, i : i + n[1], j : j + n[2]] = weights.reshape(n[0], n[1], n[2], inside.size)
    return data[..., inside + k].ravel(), full.reshape(n[0], -1)


def _flags(
    estimate: Estimate, region: Region, reach: float, method: str, labels: AtlasLabels, note: str
) -> tuple[str, ...]:
    flags = [estimate.reason] if estimate.reason else []
    if region.approximate:
        flags.append("approximate: borders of this tract are schematic")
    if 0 < reach < 1:
        flags.append(f"the atlas reaches {100 * reach:.0f} % of the slices asked for")
    if 0 < estimate.coverage < 0.999:
        flags.append(f"{100 * (1 - estimate.coverage):.2g} % of the region holds no number")
    if method == "max":
        flags.append("largest of all voxels in these slices, whatever the region")
    if method in _PARTIAL_VOLUME and not labels.tissues.get("CSF"):
        flags.append("partial volume with CSF is not modelled: the atlas has no CSF")
    if note:
        flags.append(note)
    return tuple(flags)
