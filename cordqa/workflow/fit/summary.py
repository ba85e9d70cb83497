"""From maps to rows, counts, sentences and figures: the result of a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cordqa import __version__
from cordqa.models.maps import FittedMaps, part_passed_on
from cordqa.quantities import find_quantity
from cordqa.records import Figure, Measurement, Notice, Severity, Statistic
from cordqa.workflow.fit.figures import draw_distribution, draw_maps, map_label
from cordqa.workflow.fit.inputs import Inputs
from cordqa.workflow.fit.regions import Region, RegionValue, summarise_region
from cordqa.workflow.fit.request import FitRequest
from cordqa.workflow.fit.settings import describe_setting
from cordqa.workflow.fit.write import OUTSIDE

__all__ = ["Summary", "describe_methods", "summarise"]

Array = NDArray[np.float64]
#: The region of a fit without a mask.
ALL_VOXELS = "all voxels"
#: A doubt that concerns more of the voxels than this is a warning.
_MANY = 0.05
_ZERO = "the zero of the scale: its mean was subtracted from all values, so it is no measurement"
#: A region of which less than this has a value is flagged.
_COVERED = 0.5


@dataclass(slots=True)
class Summary:
    """What a fit says beyond its maps."""

    measurements: list[Measurement] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def summarise(request: FitRequest, inputs: Inputs, maps: FittedMaps) -> Summary:
    """Take values of all regions and say what a reader must know."""
    summary = Summary(notices=list(inputs.notices))
    regions = (_whole(request, inputs), *inputs.regions)
    voxels = [_Voxels.of(region, inputs.mask) for region in regions]
    summary.figures += draw_maps(maps, inputs.grid, inputs.mask)
    summary.figures += maps.attached.figures if maps.attached is not None else ()
    for quantity in maps.values:
        _quantity(quantity, request, inputs, maps, voxels, summary)
    _reasons(maps, voxels, summary)
    summary.notices += _map_notices(request, maps)
    return summary


def _whole(request: FitRequest, inputs: Inputs) -> Region:
    """All voxels that were to be fitted are a region, too."""
    index = np.flatnonzero(inputs.mask.reshape(-1))
    name = "mask" if request.mask is not None else ALL_VOXELS
    return Region(name=name, index=index, weight=np.ones(index.size))


@dataclass(frozen=True, slots=True)
class _Voxels:
    """Where the voxels of a region stand in the list of fitted voxels (-1: outside the mask)."""

    region: Region
    at: NDArray[np.intp]

    @classmethod
    def of(cls, region: Region, mask: NDArray[np.bool_]) -> _Voxels:
        position = np.full(mask.size, -1, dtype=np.intp)
        position[mask.reshape(-1)] = np.arange(int(mask.sum()))
        return cls(region, position[region.index])

    def take(self, values: Array) -> Array:
        """Values of the region; NaN outside the mask."""
        return np.where(self.at >= 0, values[np.maximum(self.at, 0)], np.nan)

    def share(self, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Voxels of the region for which something holds."""
        return (self.at >= 0) & where[np.maximum(self.at, 0)]


def _quantity(
    quantity: str,
    request: FitRequest,
    inputs: Inputs,
    maps: FittedMaps,
    voxels: Sequence[_Voxels],
    summary: Summary,
) -> None:
    values, errors = maps.values[quantity], maps.standard_errors.get(quantity)
    unit = maps.units.get(quantity, "")
    draws = _draws(maps, quantity)
    taken: dict[str, Array] = {}
    found: dict[str, RegionValue] = {}
    for one in voxels:
        name = one.region.name
        taken[name] = one.take(values)
        found[name] = summarise_region(
            taken[name],
            None if errors is None else one.take(errors),
            one.region.weight,
            correlated_voxels=request.correlated_voxels,
        )
        if draws is not None:
            found[name] = _with_draws(found[name], _drawn(one, values, draws))
        zero = _is_zero(one, quantity, maps)
        if zero:
            found[name] = _without_value(found[name])
        flags = (*zero, *_no_mask(one, request), *_flags(quantity, one, maps, found[name]))
        summary.measurements.append(_row(quantity, unit, name, found[name], request, inputs, maps, flags))
        summary.statistics += _statistics(quantity, unit, name, found[name], taken[name].size)
        summary.statistics += _passed_on(quantity, one, maps, draws)
    figure = draw_distribution(quantity, unit, taken, found)
    if figure is not None:
        summary.figures.append(figure)


def _draws(maps: FittedMaps, quantity: str) -> NDArray[np.float32] | None:
    """Return realisations of the error of a map; one alone says too little."""
    found = None if maps.attached is None else maps.attached.draws.get(quantity)
    return found if found is not None and len(found) > 1 else None


def _drawn(one: _Voxels, values: Array, draws: NDArray[np.float32]) -> float:
    """Return the standard error of the mean of a region: its errors are zero on average."""
    weight = one.region.weight * np.isfinite(one.take(values))
    total = float(weight.sum())
    if total <= 0:
        return math.nan
    means = [float(np.nansum(one.take(draw.astype(np.float64)) * weight)) / total for draw in draws]
    return float(np.sqrt(np.mean(np.square(means))))


def _with_draws(found: RegionValue, error: float) -> RegionValue:
    """Replace the errors that take voxels as independent; the median keeps its factor to the mean."""
    factor = found.median_error / found.mean_error if found.mean_error > 0 else math.nan
    return replace(found, mean_error=error, median_error=factor * error)


def _is_zero(one: _Voxels, quantity: str, maps: FittedMaps) -> tuple[str, ...]:
    """Say of a region whose mean was subtracted that it is the zero; empty of all others."""
    zero = None if maps.attached is None else maps.attached.zeros.get(quantity)
    if zero is None:
        return ()
    used = np.isfinite(one.take(maps.values[quantity])) & (one.region.weight > 0)
    weight, at = one.region.weight[used], one.at[used]
    same = 0 < weight.size == int(zero.sum()) and bool(zero[at].all()) and bool(np.all(weight == weight[0]))
    return (_ZERO,) if same else ()


def _without_value(found: RegionValue) -> RegionValue:
    """Take the value and its errors away; voxels and their scatter stay."""
    nan = math.nan
    return replace(found, mean=nan, median=nan, mean_error=nan, median_error=nan, common_error=nan)


def _passed_on(
    quantity: str, one: _Voxels, maps: FittedMaps, draws: NDArray[np.float32] | None
) -> list[Statistic]:
    """Part of the contrast between a region and all other voxels that the model passes on.

    Without realisations of the noise nothing tells which contrasts are there, and none is judged.
    """
    replica = None if maps.attached is None else maps.attached.replicas.get(quantity)
    if replica is None or draws is None:
        return []
    values = maps.values[quantity]
    share = np.zeros(values.size)
    share[one.at[one.at >= 0]] = one.region.weight[one.at >= 0]
    known = np.isfinite(values) & np.isfinite(replica)
    share, rest = np.where(known, share, 0.0), np.where(known, np.clip(1 - share, 0, 1), 0.0)
    if not (share.sum() > 0 and rest.sum() > 0):
        return []
    gain = share / share.sum() - rest / rest.sum()

    def contrast(image: NDArray[np.floating]) -> float:
        return float(gain @ np.where(known, image, 0.0))

    error = math.sqrt(float(np.mean([contrast(draw) ** 2 for draw in draws])))
    part = part_passed_on(contrast(values), contrast(replica), error)
    if not math.isfinite(part):
        return []
    return [
        Statistic(
            name="contrast passed on",
            value=part,
            unit="1",
            quantity=quantity,
            region=one.region.name,
            estimator="difference between the region and all other voxels, in the replica of the map over "
            "that in the map (parametric bootstrap of the inversion)",
            n={"voxels": int(np.count_nonzero(share))},
            note="the inversion passes on about this part of the contrast; the background step may take more",
        )
    ]


def _no_mask(one: _Voxels, request: FitRequest) -> tuple[str, ...]:
    """Say of the region of all voxels that nothing kept the surroundings of the body out of it."""
    whole = one.region.name == ALL_VOXELS and request.mask is None and not request.model.outlines
    return ("no mask was given, so air is included",) if whole else ()


def _flags(quantity: str, one: _Voxels, maps: FittedMaps, found: RegionValue) -> tuple[str, ...]:
    """Say why voxels have no value, and what is doubtful."""
    said = [f"{_voxels(count)} without a value: {why}" for why, count in _count(one, maps, quantity).items()]
    for text, where in maps.flags.items():
        count = int((one.share(where) & np.isfinite(one.take(maps.values[quantity]))).sum())
        if count:
            said.append(text if count == found.n_voxels else f"{_voxels(count)}: {text}")
    if math.isfinite(found.coverage) and found.coverage < _COVERED:
        said.append("less than half of the region has a value")
    known = find_quantity(quantity)
    value = found.mean
    if known is not None and math.isfinite(value) and not known.low <= value <= known.high:
        unit = "" if known.unit == "1" else f" {known.unit}"
        said.append(f"outside the plausible range {known.low:g} to {known.high:g}{unit}")
    return tuple(said)


def _count(one: _Voxels, maps: FittedMaps, quantity: str) -> dict[str, int]:
    """Count the voxels of a region without a value, by reason."""
    reasons = maps.reason_of(quantity)
    codes = one.take(reasons.codes.astype(np.float64))
    counts = {
        text: n for code, text in enumerate(reasons.texts) if code and (n := int((codes == code).sum()))
    }
    outside = int((one.at < 0).sum())
    return counts | ({OUTSIDE: outside} if outside else {})


def _row(
    quantity: str,
    unit: str,
    region: str,
    found: RegionValue,
    request: FitRequest,
    inputs: Inputs,
    maps: FittedMaps,
    flags: tuple[str, ...],
) -> Measurement:
    median = request.region_statistic == "median"
    value, error = (found.median, found.median_error) if median else (found.mean, found.mean_error)
    known = math.isfinite(error)
    draws = _draws(maps, quantity)
    half = _quantile(draws) * error if known else math.nan
    return Measurement(
        quantity=quantity,
        value=value,
        unit=unit,
        region=region,
        standard_uncertainty=error,
        low=value - half,
        high=value + half,
        uncertainty_method=_how(request, draws) if known else "",
        n_voxels=found.n_voxels,
        coverage=found.coverage,
        method=f"{maps.model}; {'weighted median' if median else 'weighted mean'} of the voxels",
        engine=f"cordqa {__version__}",
        entities=inputs.entities,
        flags=flags if math.isfinite(value) or flags else ("no voxel",),
    )


def _quantile(draws: NDArray[np.float32] | None) -> float:
    """Half the width of a 95 % interval over the standard error, which few draws know only roughly."""
    if draws is None:
        return 1.96
    from scipy.special import stdtrit

    return float(stdtrit(len(draws) - 1, 0.975))


def _how(request: FitRequest, draws: NDArray[np.float32] | None = None) -> str:
    if draws is not None:
        return f"root mean square over {len(draws)} realisations of the noise, through the whole model"
    shared = request.correlated_voxels
    voxels = "voxels independent" if shared == 1 else f"{shared:g} voxels share one error"
    return f"propagated from the standard errors of the voxels, {voxels}"


def _all_how(request: FitRequest, maps: FittedMaps) -> str:
    """Say of all maps where the uncertainty of a region comes from."""
    drawn = {name: draws for name in maps.values if (draws := _draws(maps, name)) is not None}
    if not drawn:
        return _how(request)
    names = " and ".join(_label(name) for name in drawn)
    first = f"for {names} the {_how(request, next(iter(drawn.values())))}"
    others = [name for name in maps.values if name not in drawn and name in maps.standard_errors]
    return f"{first}, and for the other maps {_how(request)}" if others else first


def _label(name: str) -> str:
    text = map_label(name)
    # Inside a sentence a word begins small, but not a symbol such as R2*.
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _statistics(quantity: str, unit: str, region: str, found: RegionValue, total: int) -> list[Statistic]:
    n = {"voxels": found.n_voxels, "without value": total - found.n_voxels}
    rows = (
        ("mean", found.mean, "mean weighted by the share of each voxel"),
        ("median", found.median, "median weighted by the share of each voxel"),
        ("SD of voxels", found.sd, "weighted standard deviation about the mean (ddof 0)"),
        ("SE of the mean", found.mean_error, "voxel errors as stated for the measurement"),
        ("SE of the mean, one error in all voxels", found.common_error, "upper bound: full correlation"),
    )
    return [
        Statistic(name=name, value=value, unit=unit, quantity=quantity, region=region, estimator=how, n=n)
        for name, value, how in rows
        if math.isfinite(value)
    ]


def _reasons(maps: FittedMaps, voxels: Sequence[_Voxels], summary: Summary) -> None:
    """One row per reason, region and map: how many voxels have no value."""
    for name in ("", *maps.own_reasons):
        for one in voxels:
            for why, count in _count(one, maps, name).items():
                summary.statistics.append(
                    Statistic(
                        name="voxels without a value",
                        value=float(count),
                        unit="1",
                        quantity=name,
                        region=one.region.name,
                        estimator="count",
                        n={"voxels": one.region.index.size},
                        note=why,
                    )
                )


def _map_notices(request: FitRequest, maps: FittedMaps) -> list[Notice]:
    notices = [
        _notice(text, "fit.model", Severity.WARNING if text in maps.warnings else Severity.INFO)
        for text in maps.notices
    ]
    loud = maps.attached.warnings if maps.attached is not None else ()
    notices += [_notice(text, "fit.model", Severity.WARNING) for text in loud]
    if request.model.experimental:
        text = f"experimental: {request.model.experimental}"
        notices.append(_notice(text, "fit.experimental", Severity.WARNING))
    with_value = max(int(maps.reasons.ok.sum()), 1)
    for text, count in maps.flag_counts().items():
        severity = Severity.WARNING if count > _MANY * with_value else Severity.INFO
        where = "all voxels" if count >= with_value else _voxels(count)
        notices.append(_notice(f"{where}: {text}", "fit.flag", severity))
    for text, count in maps.reasons.counts().items():
        has = "voxel has" if count == 1 else "voxels have"
        notices.append(_notice(f"{count} {has} no value: {text}", "fit.no-value"))
    return notices + _implausible(maps)


def _voxels(count: int) -> str:
    return "1 voxel" if count == 1 else f"{count} voxels"


def _notice(text: str, code: str, severity: Severity = Severity.INFO) -> Notice:
    return Notice(severity=severity, message=text, code=code)


def _implausible(maps: FittedMaps) -> list[Notice]:
    notices = []
    for name, values in maps.values.items():
        known = find_quantity(name)
        finite = values[np.isfinite(values)]
        if known is None or not finite.size:
            continue
        count = int(((finite < known.low) | (finite > known.high)).sum())
        if count:
            unit = "" if known.unit == "1" else f" {known.unit}"
            text = f"{_voxels(count)} of {known.label} outside {known.low:g} to {known.high:g}{unit}"
            severity = Severity.WARNING if count > _MANY * finite.size else Severity.INFO
            notices.append(_notice(f"{text}; kept", "fit.implausible", severity))
    return notices


def describe_methods(request: FitRequest, inputs: Inputs, maps: FittedMaps) -> tuple[str, ...]:
    """Write the methods text from what was done."""
    model = request.model
    settings = [
        words
        for setting in model.settings
        if (words := describe_setting(setting, inputs.data.settings[setting.id]))
    ]
    options = [
        f"{option.id.replace('_', ' ')} {inputs.data.options[option.id]}"
        for option in model.options
        if inputs.data.options[option.id] not in (None, option.default)
    ]
    text = [f"{model.description}, with cordqa {__version__}: {maps.model}."]
    if settings:
        text.append(f"Acquisition: {'; '.join(settings)}.")
    if options:
        text.append(f"Options that differ from the default: {'; '.join(options)}.")
    attached = maps.attached.methods if maps.attached is not None else ()
    paragraphs = [" ".join(text), *attached, *model.assumptions]
    paragraphs.append(
        "A voxel that could not be fitted has no value, and a code says why. The value of a region is the "
        f"{request.region_statistic} of its voxels weighted by the share of each in the region. Its "
        f"standard uncertainty is {_all_how(request, maps)}; it holds noise as the fit saw it, and not what "
        "all voxels have in common (transmit field, calibration, motion)."
    )
    return tuple(paragraphs)
