"""What the scanner itself made of diffusion images, beside the own fits: averages and ADC maps.

Neither is a measurement of its own, so neither is judged or counted as a repeat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cordqa.phantom.definition import PhantomDefinition
from cordqa.phantom.diffusion import fit_at
from cordqa.phantom.diffusion_plan import has_directions
from cordqa.phantom.diffusion_signals import vial_masks
from cordqa.phantom.repeats import usable
from cordqa.phantom.series import Kind, Series, find_kind
from cordqa.records import ImageSet, Notice, Outcome, Severity, State, Statistic
from cordqa.workflow.phantom_records import AnalysedPlate

__all__ = ["compare_averages", "compare_maps", "partner_of"]

Array = NDArray[np.float64]

#: A map that differs by more is worth a warning.
_NOTABLE_PERCENT = 3.0
#: A map of unknown unit must come this near to the own ADC after a power of a thousand.
_UNIT_TOLERANCE = 0.2
#: A map is looked at where this share of the vials has a value in it.
_MAP_SHARE = 0.5


def compare_maps(
    maps: Sequence[ImageSet], plates: Sequence[AnalysedPlate]
) -> tuple[tuple[Statistic, ...], tuple[Outcome, ...], tuple[Notice, ...]]:
    """Compare the scanner's ADC maps with the own fits of vials on the same grid.

    A map of unknown unit is taken at the power of a thousand that brings it near to the own ADC,
    and is left alone where none does.
    """
    statistics, outcomes, notices = [], [], []
    for images in maps:
        partner = next((p for p in reversed(plates) if _same_place(images, p)), None)
        if partner is None:
            reason = "an ADC map of the scanner, without diffusion-weighted images on its grid; export those"
            outcomes.append(_map_outcome(images, State.SKIPPED, reason))
            continue
        statistic, reason, notice = _compare(images, partner)
        statistics += [statistic] if statistic else []
        notices += [notice] if notice else []
        outcomes.append(_map_outcome(images, State.DONE if statistic else State.SKIPPED, reason))
    return tuple(statistics), tuple(outcomes), tuple(notices)


def partner_of(series: Series, plates: Sequence[AnalysedPlate]) -> AnalysedPlate | None:
    """Return the single directions that a series of averages was made from, if they were analysed.

    Averages that the scanner made are no measurement of their own and no repeat.
    """
    images = series.images
    if find_kind(images) is not Kind.DIFFUSION or has_directions(images):
        return None
    b = set(np.unique(images.values("b_value_s_per_mm2")).round())
    return next((p for p in plates if _same_place(images, p) and _holds(p, b)), None)


def _holds(plate: AnalysedPlate, b_values: set[float]) -> bool:
    details = plate.found.diffusion
    own = plate.series.images.values("b_value_s_per_mm2").round()
    return details is not None and details.plan.by_direction and b_values <= set(own)


def compare_averages(
    series: Series, partner: AnalysedPlate, definition: PhantomDefinition
) -> tuple[Statistic | None, Outcome]:
    """Compare averages over directions with the single directions they were made from.

    Raises
    ------
    CordqaError
        If the averages cannot be fitted.
    """
    images, details = series.images, partner.found.diffusion
    if details is None:
        return None, _map_outcome(images, State.SKIPPED, "its single directions were not analysed")
    theirs = fit_at(series, partner.found.pose, details.vials, definition)
    own = np.array([row.value if usable(row) else math.nan for row in partner.rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = 100 * (theirs / own - 1)
    if not np.isfinite(difference).any():
        return None, _map_outcome(images, State.SKIPPED, "the averages give no ADC where the vials are")
    statistic = _difference("averages over directions against single directions", difference, partner, "")
    reason = (
        f"averages over the directions of {partner.series.images.label}, so no repeat: median "
        f"{statistic.value:+.1f} % from the ADC of the single directions"
    )
    return statistic, _map_outcome(images, State.DONE, reason)


def _difference(name: str, percent: Array, plate: AnalysedPlate, remark: str) -> Statistic:
    return Statistic(
        name=name,
        value=float(np.nanmedian(percent)),
        low=float(np.nanmin(percent)),
        high=float(np.nanmax(percent)),
        interval_level=math.nan,
        unit="%",
        quantity="ADC",
        region=plate.rows[0].level,
        group=plate.series.images.label,
        estimator=f"median over vials of their ratio less 1{remark}",
        interval_method="smallest and largest over vials",
        n={"vials": int(np.isfinite(percent).sum())},
    )


def _map_outcome(images: ImageSet, state: State, reason: str) -> Outcome:
    code = "" if state is State.DONE else "series.map"
    return Outcome(what=images.label, state=state, reason=reason, code=code, sources=images.sources)


def _same_place(images: ImageSet, plate: AnalysedPlate) -> bool:
    own = plate.series.images
    who, other = images.entities, own.entities
    return (
        plate.found.diffusion is not None
        and (who.scanner, who.session) == (other.scanner, other.session)
        and images.data.shape[1:] == own.data.shape[1:]
        and np.allclose(images.affine, own.affine, atol=0.5)
    )


def _compare(images: ImageSet, plate: AnalysedPlate) -> tuple[Statistic | None, str, Notice | None]:
    found, details = plate.found, plate.found.diffusion
    assert details is not None  # _same_place asks for it
    masks = vial_masks(images.data.shape[1:], found.pose, images.spacing_mm, details.vials.radius_mm)
    theirs = np.array([_mean(images.data[0][mask]) for mask in masks])
    own = np.array([row.value if usable(row) else math.nan for row in plate.rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where((theirs > 0) & (own > 0), theirs / own, np.nan)
    if np.isfinite(ratio).mean() < _MAP_SHARE:
        return None, "the ADC map holds no values in the vials", None
    middle = float(np.nanmedian(ratio))
    origin = images.acquisitions[0].origins.get("map_quantity", "")
    power = round(math.log10(middle) / 3) * 3
    near = abs(middle / 10.0**power - 1) < _UNIT_TOLERANCE
    if not near or (origin and power != 0):
        return None, _wrong_scale(middle, origin), None
    unit = (
        origin
        or f"1e{-power - 6:d} mm2/s, the unit that brings it near to the own ADC; the header names none"
    )
    difference = 100 * (ratio / 10.0**power - 1)
    text = f"median {np.nanmedian(difference):+.1f} % from the own fit; unit: {unit}"
    statistic = _difference(
        "scanner's ADC map against the own fit", difference, plate, f"; unit of the map: {unit}"
    )
    large = abs(float(np.nanmedian(difference))) > _NOTABLE_PERCENT
    notice = Notice(
        severity=Severity.WARNING if large else Severity.INFO,
        code="diffusion.map",
        where=images.label,
        message=f"the scanner's ADC map reads {text}",
    )
    return statistic, f"compared with the own fit: {text}", notice


def _wrong_scale(ratio: float, origin: str) -> str:
    if origin:
        return (
            f"the scale of the ADC map is not what the header says: it reads {ratio:.3g} times the own ADC "
            f"({origin}); it was left alone"
        )
    return (
        f"the scale of the ADC map is not known: the header names no unit, and at {ratio:.3g} times the own "
        "ADC no power of a thousand brings it near; it was left alone"
    )


def _mean(values: NDArray[np.float32]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan
