"""Quantities of a region from the region's signals, for whatever is computed from signals.

A voxel at the edge of the cord shows the sum of the signals of its parts.  MTR, MTsat and T1 are no
such sums: in a voxel that is half CSF, T1 is not the mean of the two.  To explain a map of them as a
sum of tissues therefore reads them wrong wherever voxels are mixed.  Here the signals of a region are
taken from every image of the protocol, with the same weights, and the model is applied to those few
numbers once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import AtlasImage
from cordqa.cord.estimators import Estimate, Method, RegionSignals, estimate_signals
from cordqa.cord.extraction import box_weights, check_slices, make_measurement, values_on_grid
from cordqa.errors import InputError
from cordqa.models.maps import FittedMaps
from cordqa.quantities import find_quantity
from cordqa.records import Entities, Measurement, Volume

__all__ = ["SignalModel", "estimate_modelled", "extract_modelled"]

Array = NDArray[np.float64]
#: From signals, shape (n_images, n), to the quantities of each of the n sets, in registered units.
SignalModel = Callable[[Array], FittedMaps]
#: Step of the numerical derivative, relative to the largest signal.
_STEP = 1e-4
UNCERTAINTY = "scatter of voxels, taken as independent, carried through the model"


@dataclass(frozen=True, slots=True)
class _Part:
    """Voxels of a group of slices: signals (n_images, n) and weights (n_labels, n), and the share reached."""

    values: Array
    weights: Array
    reach: float


def estimate_modelled(found: RegionSignals, model: SignalModel) -> dict[str, Estimate]:
    """Apply a model to the signals of one region.

    Parameters
    ----------
    found : RegionSignals
    model : callable
        From signals, shape (n_images, n), to one map of n values per quantity.

    Returns
    -------
    dict
        An estimate per quantity; its standard uncertainty is that of the signals carried through the
        derivative of the model.  NaN with a reason where signals or model give none.
    """
    signals = np.nan_to_num(found.signals)
    count = signals.size
    step = _STEP * max(float(np.abs(signals).max(initial=0.0)), 1e-30)
    moved = np.concatenate([np.zeros((count, 1)), step * np.eye(count), -step * np.eye(count)], axis=1)
    answers = model(signals[:, None] + moved)
    return {name: _one(found, answers, name, step) for name in answers.values}


def _one(found: RegionSignals, answers: FittedMaps, name: str, step: float) -> Estimate:
    values, count = answers.values[name], found.signals.size
    reason = found.reason or answers.reason_of(name).at(0)
    value, error = math.nan, math.nan
    if not reason:
        value = float(values[0])
        slope = (values[1 : count + 1] - values[count + 1 :]) / (2.0 * step)
        variance = float(slope @ found.covariance @ slope)
        error = math.sqrt(variance) if variance >= 0 else math.nan
    return Estimate(
        value=value,
        standard_uncertainty=error,
        size=found.size,
        effective_voxels=found.effective_voxels,
        coverage=found.coverage,
        reason=reason,
    )


def extract_modelled(
    images: Sequence[Volume],
    atlas: AtlasImage,
    *,
    model: SignalModel,
    quantities: Sequence[str],
    regions: Sequence[str] = ("cord", "WM", "GM", "DC", "LF", "VF"),
    method: Method = "MAP",
    groups: Mapping[str, Sequence[int] | NDArray[np.intp]] | None = None,
    notes: Mapping[str, str] | None = None,
    min_voxels: float = 1.0,
    entities: Entities | None = None,
    engine: str = "",
) -> tuple[Measurement, ...]:
    """Make one row per quantity, region and group of slices, from the signals of the region.

    Parameters
    ----------
    images : sequence of Volume
        Registered signals of one scaling, in any orientation, on the grid of the atlas.
    atlas : AtlasImage
    model : callable
        See :func:`estimate_modelled`.
    quantities : sequence of str
        Quantities of the model that are reported, in this order.
    regions, groups, notes, min_voxels
        As in :func:`cordqa.cord.extraction.extract_regions`.
    method : str
        One of :data:`cordqa.cord.estimators.LINEAR`.

    Raises
    ------
    InputError
        If grids differ, a region, quantity or method cannot be used, or a slice lies outside the image.
    """
    data = np.stack([values_on_grid(image, atlas, what="image") for image in images])
    units = {name: _unit(name) for name in quantities}
    chosen = groups if groups is not None else {"all": np.arange(atlas.shape[2])}
    parts = {group: _part(data, atlas, check_slices(slices, atlas)) for group, slices in chosen.items()}
    tissues = tuple(atlas.labels.tissues.values())
    rows: list[Measurement] = []
    for region in (atlas.labels.find(name) for name in regions):
        for group, part in parts.items():
            found = estimate_signals(
                part.values,
                part.weights,
                region.members,
                method=method,
                tissues=tissues,
                min_voxels=min_voxels,
                surround=True,
            )
            estimates = estimate_modelled(found, model)
            rows += [
                make_measurement(
                    estimates[name],
                    atlas,
                    region,
                    quantity=name,
                    unit=units[name],
                    scale=1.0,
                    group=group,
                    reach=part.reach,
                    method=method,
                    note=(notes or {}).get(group, ""),
                    uncertainty_method=UNCERTAINTY,
                    entities=entities or Entities(),
                    engine=engine,
                )
                for name in quantities
                if name in estimates
            ]
    order = {name: n for n, name in enumerate(quantities)}
    return tuple(sorted(rows, key=lambda row: order[row.quantity]))


def _unit(quantity: str) -> str:
    known = find_quantity(quantity)
    if known is None:
        raise InputError("the quantity of the model is not registered", found=quantity)
    return known.unit


def _part(data: Array, atlas: AtlasImage, slices: NDArray[np.intp]) -> _Part:
    weights, inside, reach = box_weights(atlas, slices)
    i, j, k = atlas.corner
    n = atlas.weights.shape
    values = data[:, i : i + n[1], j : j + n[2], inside + k].reshape(len(data), -1)
    return _Part(values, weights, reach)
