"""Values of regions from their signals: the signals are estimated first, the model is fitted to them once.

A map of microscopic anisotropy is a selection of the voxels in which it could be told from none, so its
mean over a region says little; the signals of the region say more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cordqa.cord.atlas import Region
from cordqa.cord.estimators import Estimate, estimate_signals, region_gain
from cordqa.cord.extraction import Method, flags_of, values_on_grid
from cordqa.models.diffusion.gradients import GradientTable
from cordqa.models.maps import FittedMaps
from cordqa.quantities import get_quantity
from cordqa.records import Measurement, Volume
from cordqa.workflow.cord_atlas import regions_of
from cordqa.workflow.cord_diffusion_fit import MICROSCOPIC, TENSOR, for_tensor
from cordqa.workflow.cord_diffusion_regions import (
    NOT_USED,
    UNPHYSICAL,
    RegionGroups,
    RegionTask,
    VoxelBox,
    place_row,
)
from cordqa.workflow.cord_settings import CordSettings

__all__ = ["rows_from_signals"]

Array = NDArray[np.float64]

OF_NOISE = "noise of the region's signals, carried through the model"
OF_SCATTER = "scatter of the region's signals around the model"


@dataclass(frozen=True, slots=True)
class _Set:
    """Signals of one region in one group of slices; noise is their standard deviation, in signal units."""

    region: Region
    level: str
    reach: float
    estimate: Estimate
    signals: Array
    noise_sd: float


def rows_from_signals(
    task: RegionTask, groups: RegionGroups, models: Sequence[str], settings: CordSettings
) -> Iterator[Measurement]:
    """Estimate the signals of every region in every volume, and fit the models to all sets at once."""
    sets = list(_signal_sets(task, groups, cast("Method", settings.method)))
    whole = [one for one in sets if not one.estimate.reason]
    if not whole:
        return
    signals = np.stack([one.signals for one in whole])
    noise = np.array([one.noise_sd for one in whole])
    number = {id(one): n for n, one in enumerate(whole)}
    for model in models:
        fit = _fit_signals(model, signals, noise, task.gradients, settings)
        for quantity in (*TENSOR, *MICROSCOPIC):
            if quantity in fit.values and quantity in (TENSOR if model == "tensor" else MICROSCOPIC):
                for one in sets:
                    yield _set_row(task, groups, one, fit, number.get(id(one)), quantity, settings)


def _fit_signals(
    model: str, signals: Array, noise_sd: Array, table: GradientTable, settings: CordSettings
) -> FittedMaps:
    if model == "tensor":
        from cordqa.models.diffusion.tensor import fit_tensor

        low = for_tensor(table)
        return fit_tensor(signals[:, low], table.select(low), estimator=settings.tensor).maps
    from cordqa.models.diffusion.microscopic import fit_microscopic_anisotropy

    # What a shell of a large region leaves over is the model's, not noise: its noise is known better.
    known = np.isfinite(noise_sd).all() and (noise_sd > 0).all()
    return fit_microscopic_anisotropy(signals, table, noise_sd=noise_sd if known else None)


def _signal_sets(task: RegionTask, groups: RegionGroups, method: Method) -> Iterator[_Set]:
    from cordqa.models.diffusion.powder import find_shells, repair_samples

    data = np.stack(
        [
            values_on_grid(Volume(data=task.series.data[..., n], affine=task.series.affine), task.atlas)
            for n in range(task.series.data.shape[3])
        ],
        axis=-1,
    )
    shells = find_shells(task.gradients)
    box = VoxelBox(task.atlas, data)
    tissues = tuple(task.atlas.labels.tissues.values())
    # What an outlier slice lost is filled from the rest of its shell, or its voxels would be lost.
    whole = {}
    for level, (weights, inside, _) in groups.parts.items():
        touched = weights.any(axis=0)
        whole[level] = touched, repair_samples(box.take(inside)[touched], shells)[0].T
    for name in regions_of(task.atlas.labels, task.choice):
        region = task.atlas.labels.find(name)
        for level, (weights, _, reach) in groups.parts.items():
            touched, signals = whole[level]
            found = estimate_signals(
                signals, weights[:, touched], region.members, method=method, tissues=tissues
            )
            estimate = Estimate(
                value=math.nan,
                size=found.size,
                effective_voxels=found.effective_voxels,
                coverage=found.coverage,
                reason=found.reason,
            )
            gain = region_gain(
                signals[0], weights[:, touched], region.members, method=method, tissues=tissues
            )
            noise = task.noise_sd * math.sqrt(float(gain @ gain))
            yield _Set(region, level, reach, estimate, found.signals, noise)


def _set_row(
    task: RegionTask,
    groups: RegionGroups,
    one: _Set,
    fit: FittedMaps,
    number: int | None,
    quantity: str,
    settings: CordSettings,
) -> Measurement:
    estimate, bounds, doubts = one.estimate, (math.nan, math.nan), []
    if number is not None:
        doubts = [text for text, where in fit.flags.items() if where[number]]
        estimate = replace(
            estimate,
            value=float(fit.values[quantity][number]),
            standard_uncertainty=float(fit.standard_errors[quantity][number]),
            reason=fit.reason_of(quantity).at(number),
        )
        if quantity == "muFA":
            bounds = float(fit.values["muFA_lower"][number]), float(fit.values["muFA_upper"][number])
        wrong = [text for text in doubts if text.startswith(UNPHYSICAL)]
        if quantity in TENSOR and wrong and not estimate.reason:
            reason = f"{wrong[0]} in the tensor of the region{NOT_USED}"
            estimate = replace(estimate, value=math.nan, standard_uncertainty=math.nan, reason=reason)
    note = groups.notes.get(one.level, "")
    flags = flags_of(estimate, one.region, one.reach, settings.method, task.atlas.labels, note)
    known = math.isfinite(estimate.standard_uncertainty)
    how = OF_SCATTER if quantity in TENSOR or not math.isfinite(one.noise_sd) else OF_NOISE
    row = Measurement(
        quantity=quantity,
        value=estimate.value,
        unit=get_quantity(quantity).unit,
        region=one.region.name,
        level=one.level,
        standard_uncertainty=estimate.standard_uncertainty,
        uncertainty_method=how if known else "",
        low=bounds[0],
        high=bounds[1],
        n_voxels=round(estimate.effective_voxels),
        coverage=estimate.coverage * one.reach,
        engine=task.image.mask.label,
        entities=task.image.entities,
        flags=(*flags, *doubts),
    )
    return place_row(row, task, groups, f"{settings.method} of signals")
