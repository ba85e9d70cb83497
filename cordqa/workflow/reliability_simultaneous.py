"""Intervals that hold for all regions together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cordqa.errors import CordqaError
from cordqa.records import Statistic
from cordqa.stats.multiplicity import simultaneous_intervals
from cordqa.stats.repeatability_core import repeatability_arrays
from cordqa.stats.table import to_layout
from cordqa.workflow.reliability_run import Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse_together"]

Array = NDArray[np.float64]


def analyse_together(study: Study) -> None:
    """Give the within-subject SD or CV of all regions with simultaneous intervals, if asked for."""
    if not study.settings.simultaneous:
        return
    if not study.design.repeated:
        study.skip("Simultaneous intervals", "nobody was measured twice on the same machine")
        return
    for quantity, _, part in study.by_quantity(study.frame.dropna(subset=["value"])):
        regions = list(dict.fromkeys(part["region"].tolist()))
        if len(regions) < 2:
            study.skip(
                f"Simultaneous intervals, {study.long.scopes[quantity].label}", "there is one region only"
            )
            continue
        try:
            study.statistics.extend(_together(study, quantity, regions, part))
        except CordqaError as error:
            study.skip(f"Simultaneous intervals, {study.long.scopes[quantity].label}", str(error))


def _together(study: Study, quantity: str, regions: list[str], part: pd.DataFrame) -> list[Statistic]:
    settings, scope = study.settings, study.long.scopes[quantity]
    values = _array(study, regions, part)
    relative = scope.scale == "ratio" and bool((part["value"] > 0).all())

    def estimate(sample: Array, level: float) -> tuple[Array, Array, Array]:
        cells = sample.reshape(sample.shape[0], -1, sample.shape[-1])
        found = repeatability_arrays(cells, scale=scope.scale, level=level, form="rms")
        if relative:
            return 100 * found.wcv[:, 0], 100 * found.wcv_low[:, 0], 100 * found.wcv_high[:, 0]
        return found.wsd, found.wsd_low, found.wsd_high

    found = simultaneous_intervals(values, estimate, level=settings.level, seed=settings.seed)
    form = "root mean square of s/m per subject" if relative else "pooled within-subject variance"
    return [
        Statistic(
            name="wCV" if relative else "wSD",
            value=float(found.value[i]),
            low=float(found.low[i]),
            high=float(found.high[i]),
            interval_level=settings.level,
            unit="%" if relative else scope.unit,
            quantity=quantity,
            region=region,
            group="all regions together",
            estimator=form,
            interval_method=f"chi-squared, simultaneous by a bootstrap of subjects ({found.n_samples})",
            n={"subjects": found.n_subjects},
            note=f"each interval at the level {found.pointwise_level:.4f}",
        )
        for i, region in enumerate(regions)
    ]


def _array(study: Study, regions: list[str], part: pd.DataFrame) -> Array:
    """Values with the same subjects in the same places in every region.

    Returns
    -------
    ndarray, shape (n_regions, n_subjects, n_machines, n_repeats)
        NaN where there is no value.
    """
    layout = to_layout(
        part, value="value", subject="subject", rater=study.design.machine or None, by=["region"]
    )
    people = list(dict.fromkeys(part["subject"].tolist()))
    rank = {who: i for i, who in enumerate(people)}
    names = [str(region) for region in layout.groups["region"].tolist()]
    values = np.full((len(regions), len(people), *layout.values.shape[2:]), np.nan)
    for place, region in enumerate(names):
        subjects = layout.subjects[place][: layout.n_subjects[place]].tolist()
        rows = [rank[who] for who in subjects]
        values[regions.index(region), rows] = layout.values[place, : len(rows)]
    return values
