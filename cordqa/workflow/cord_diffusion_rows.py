"""Values of regions of a diffusion series.

FA and the other values of tensor and kurtosis are taken from the maps by the atlas.  Microscopic
anisotropy is taken from the signals of a region, and the tensor too where that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from cordqa.cord.estimators import LINEAR
from cordqa.cord.extraction import Method
from cordqa.quantities import get_quantity
from cordqa.records import Measurement
from cordqa.workflow.cord_diffusion_fit import KURTOSIS, NEURITES, TENSOR
from cordqa.workflow.cord_diffusion_maps import Gains, rows_from_map
from cordqa.workflow.cord_diffusion_regions import RegionTask, group_slices
from cordqa.workflow.cord_diffusion_signals import rows_from_signals
from cordqa.workflow.cord_records import Unit
from cordqa.workflow.cord_settings import CordSettings

__all__ = ["diffusion_rows"]

#: Quantities of each model that are reported; of the others there are maps alone.
_REPORTED = {"tensor": TENSOR, "kurtosis": KURTOSIS, "noddi": NEURITES}


def diffusion_rows(
    task: RegionTask, unit: Unit, *, wanted: Sequence[str], settings: CordSettings
) -> tuple[Measurement, ...]:
    """Extract every quantity in every region and group of slices; slice by slice where no level is known."""
    groups = group_slices(task.image, task.atlas, wanted)
    linear = settings.method in LINEAR
    of_signals = ["microscopic"] if linear and "microscopic" in task.models else []
    if linear and settings.extract_from == "signals":
        of_signals.insert(0, "tensor")
    gains = Gains(task.atlas, groups, cast("Method", settings.method))
    rows: list[Measurement] = []
    for model, names in _REPORTED.items():
        if model in task.models and model not in of_signals:
            for name in names:
                if name in task.models[model].values:
                    rows += rows_from_map(task, groups, name, task.models[model], gains)
    if of_signals:
        rows += rows_from_signals(task, groups, of_signals, settings)
    if "microscopic" in task.models and not linear:
        unit.skip(
            task.image.label,
            "muFA of regions",
            f"it is taken from signals, which needs a linear estimate, not {settings.method}",
            "diffusion.no-region-signals",
        )
    quantities = dict.fromkeys(row.quantity for row in rows)
    rows += [
        _absent(task, name, groups.notes[name], q, settings) for q in quantities for name in groups.empty
    ]
    return tuple(rows)


def _absent(task: RegionTask, level: str, note: str, quantity: str, settings: CordSettings) -> Measurement:
    values: dict[str, Any] = {"value": math.nan, "coverage": 0.0}
    return Measurement(
        quantity=quantity,
        unit=get_quantity(quantity).unit,
        region="WM",
        level=level,
        method=f"{settings.method}, {task.choice.name}",
        engine=task.image.mask.label,
        entities=task.image.entities,
        flags=(note,),
        **values,
    )
