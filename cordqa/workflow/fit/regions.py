"""Regions in which a map is summarised: labels or partial volumes, and values with uncertainty."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import EmptyInputError, InputError
from cordqa.io.bids import nifti_stem
from cordqa.io.files import iter_lines, printable, read_small
from cordqa.io.limits import DEFAULT_LIMITS
from cordqa.io.maps import ScalarMap
from cordqa.records import Notice, Severity, Volume
from cordqa.workflow.fit.grid import Grid, bring_to_grid, read_image

__all__ = ["Region", "RegionValue", "read_regions", "summarise_region"]

Array = NDArray[np.float64]
#: More labels than this in one image are not regions but values.
_MAX_LABELS = 2000
#: Standard error of a median over that of the mean, for many normal errors.
_MEDIAN_FACTOR = math.sqrt(math.pi / 2)
#: The error of a region is known where at least this share of its weight has a standard error.
_KNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the grid: the share of each of its voxels, and which voxels these are.

    ``index`` counts the voxels of the grid in C order.
    """

    name: str
    index: NDArray[np.intp]
    weight: Array
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionValue:
    """What a map shows in one region.

    Attributes
    ----------
    mean, median, sd : float
        Weighted by the share of each voxel; ``sd`` is that of the voxels about the mean (ddof 0).
    mean_error : float
        Standard error of the mean propagated from the voxels' own; NaN where these are not known.
    median_error : float
        The same for the median, by the factor of a normal distribution.
    common_error : float
        Standard error of the mean if all voxels shared one error: the upper bound.
    n_voxels : int
        Voxels with a value.
    coverage : float
        Share of the weight that has a value.
    """

    mean: float
    median: float
    sd: float
    mean_error: float
    median_error: float
    common_error: float
    n_voxels: int
    coverage: float


def summarise_region(
    values: Array, errors: Array | None, weight: Array, *, correlated_voxels: float = 1.0
) -> RegionValue:
    """Summarise the voxels of one region.

    The variance of the weighted mean is ``N sum(w^2 s^2) / sum(w)^2``, where s are the standard
    errors of the voxels and N voxels share one error (1: independent), but never more than if all
    shared it.  What is common to the whole map (B1, calibration, motion) is not in s and not in
    the result.

    Parameters
    ----------
    values, errors, weight : ndarray, shape (n,)
        NaN where there is no value; errors may be ``None``.
    correlated_voxels : float
        N, at least 1: about (resolution / voxel size)^3 after interpolation or smoothing.
    """
    known = np.isfinite(values) & (weight > 0)
    total = float(weight[weight > 0].sum())
    if not known.any():
        nan = math.nan
        return RegionValue(
            mean=nan, median=nan, sd=nan, mean_error=nan, median_error=nan, common_error=nan,
            n_voxels=0, coverage=0.0 if total else nan,
        )  # fmt: skip
    x, w = values[known], weight[known]
    mean = float((w * x).sum() / w.sum())
    error, common = _propagate(None if errors is None else errors[known], w, correlated_voxels)
    return RegionValue(
        mean=mean,
        median=_weighted_median(x, w),
        sd=math.sqrt(float((w * (x - mean) ** 2).sum() / w.sum())),
        mean_error=error,
        median_error=min(_MEDIAN_FACTOR * error, common) if math.isfinite(error) and x.size > 2 else error,
        common_error=common,
        n_voxels=int(x.size),
        coverage=float(w.sum()) / total,
    )


def _propagate(errors: Array | None, weight: Array, correlated: float) -> tuple[float, float]:
    if errors is None:
        return math.nan, math.nan
    known = np.isfinite(errors)
    if weight[known].sum() < _KNOWN_SHARE * weight.sum():
        return math.nan, math.nan
    s, w = errors[known], weight[known]
    # Voxels without an error of their own are taken to err like the others.
    square = float((w * s**2).sum() / w.sum()) * float((weight**2).sum()) / float(weight.sum()) ** 2
    common = float((w * s).sum() / w.sum())
    return min(math.sqrt(correlated * square), common), common


def _weighted_median(values: Array, weight: Array) -> float:
    """Return the middle of the two values where exactly half of the weight lies below."""
    order = np.argsort(values, kind="stable")
    x, cumulated = values[order], np.cumsum(weight[order])
    half = cumulated[-1] / 2
    low = int(np.searchsorted(cumulated, half * (1 - 1e-12), side="left"))
    high = int(np.searchsorted(cumulated, half * (1 + 1e-12), side="right"))
    return float((x[low] + x[min(high, x.size - 1)]) / 2)


def read_regions(
    paths: Sequence[Path], grid: Grid, *, resample: bool
) -> tuple[tuple[Region, ...], list[Notice]]:
    """Read region images: integer labels (3D), or partial volumes (3D fractions, or 4D).

    Names come from a ``.tsv`` of the same name with columns ``index`` and ``name``, where there is
    one.

    Raises
    ------
    InputError
        If an image is on another grid, or holds what can be neither labels nor fractions.
    """
    regions: list[Region] = []
    notices: list[Notice] = []
    for path in paths:
        volume = read_image(path)
        found, resampled = _regions_of(volume, path, grid, resample)
        if resampled:
            text = "the regions were resampled to the grid of the images and are shares of voxels now"
            notices.append(
                Notice(severity=Severity.WARNING, message=text, where=path.name, code="fit.resampled")
            )
        regions += found
    return _with_own_names(regions), notices


def _regions_of(volume: Volume, path: Path, grid: Grid, resample: bool) -> tuple[list[Region], bool]:
    stem = nifti_stem(path.name)
    names = _read_names(path)
    data = volume.data[..., 0] if volume.data.ndim == 4 and volume.data.shape[3] == 1 else volume.data
    if data.ndim == 4:
        shares = [(names.get(n, f"{stem} {n}"), data[..., n]) for n in range(data.shape[3])]
        _check_shares(data, path)
    else:
        labels = _labels(data, path)
        if labels is None:
            _check_shares(data, path)
            shares = [(stem, data)]
        else:
            single = labels.size == 1 and not names
            words = [stem if single else names.get(int(n), f"{stem} {int(n)}") for n in labels]
            if not grid.difference(Grid(data.shape, volume.affine)):
                return _from_labels(data, labels, words, path), False
            shares = [(word, data == label) for word, label in zip(words, labels, strict=True)]
    regions, any_resampled = [], False
    for name, share in shares:
        scalar = ScalarMap(np.nan_to_num(share.astype(np.float64)), volume.affine, path.name)
        weight, resampled = bring_to_grid(scalar, grid, what="region image", resample=resample)
        flat = np.nan_to_num(weight).reshape(-1)
        index = np.flatnonzero(flat > 0)
        regions.append(Region(name=name, index=index, weight=flat[index], source=path.name))
        any_resampled |= resampled
    if not any(region.index.size for region in regions):
        raise EmptyInputError("the region image is empty on these images", where=path.name)
    return regions, any_resampled


def _from_labels(data: NDArray[np.float32], labels: Array, words: Sequence[str], path: Path) -> list[Region]:
    """Sort the voxels by label once: hundreds of labels cost no more than one."""
    flat = data.reshape(-1)
    inside = np.flatnonzero(flat > 0)
    inside = inside[np.argsort(flat[inside], kind="stable")]
    ends = np.searchsorted(flat[inside], labels, side="right")
    parts = np.split(inside, ends[:-1])
    return [
        Region(name=word, index=part, weight=np.ones(part.size), source=path.name)
        for word, part in zip(words, parts, strict=True)
    ]


def _labels(data: NDArray[np.float32], path: Path) -> Array | None:
    """Return the labels of an image of integers; ``None`` where it holds fractions."""
    finite = data[np.isfinite(data)]
    found = np.unique(finite)
    if not np.array_equal(found, np.round(found)):
        return None
    labels = found[found > 0].astype(np.float64)
    if (found < 0).any() or labels.size > _MAX_LABELS:
        raise InputError(
            "does not hold labels of regions",
            where=path.name,
            found=f"{labels.size} values from {found.min():g} to {found.max():g}",
            expected=f"0 and up to {_MAX_LABELS} positive integers",
        )
    if not labels.size:
        raise EmptyInputError("the region image is empty", where=path.name)
    return labels


def _check_shares(data: NDArray[np.float32], path: Path) -> None:
    finite = data[np.isfinite(data)]
    if not finite.size:
        raise EmptyInputError("the region image holds no number", where=path.name)
    low, high = float(finite.min()), float(finite.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            "partial volumes must lie between 0 and 1",
            where=path.name,
            found=f"{low:g} to {high:g}",
            todo="divide it by its largest value, or give integer labels in three dimensions",
        )


def _read_names(path: Path) -> dict[int, str]:
    table = path.with_name(nifti_stem(path.name) + ".tsv")
    if not table.is_file():
        return {}
    text = "\n".join(iter_lines(read_small(table, limit=DEFAULT_LIMITS.max_sidecar_bytes)))
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    if not {"index", "name"} <= set(rows.fieldnames or ()):
        raise InputError("must have the columns index and name", where=table.name)
    names = {}
    for row in rows:
        number = (row["index"] or "").strip()
        if number.isdigit() and row["name"]:
            names[int(number)] = printable(row["name"], limit=60)
    return names


def _with_own_names(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Tell regions of one name apart by their file."""
    from dataclasses import replace

    names = [region.name for region in regions]
    return tuple(
        replace(region, name=f"{nifti_stem(region.source)} {region.name}")
        if names.count(region.name) > 1
        else region
        for region in regions
    )
