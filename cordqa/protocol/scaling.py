"""Whether the values of several images can be compared: Philips rescales every series by itself.

A stored value ``PV`` becomes the displayed ``DV = PV * RS + RI`` and the comparable
``FP = DV / (RS * SS)``, with rescale slope RS and scale slope SS (Chenevert et al. 2014,
doi:10.1593/tlo.13811).  So DV = FP * RS * SS: images of one ratio must be FP, or displayed with the
same product of both slopes, or stored with the same SS.

dcm2niix writes FP unless told otherwise (``UsePhilipsFloatNotDisplayScaling``), but before
v1.0.20210317 it wrote real-world values, which ignore SS, where the header gave them
(github.com/rordenlab/dcm2niix/issues/493).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cordqa.protocol.fields import format_number
from cordqa.protocol.records import FindingStatus, ObservedSeries, Origin
from cordqa.records import Severity

__all__ = ["Outcome", "judge_scaling"]

_SCALE, _WORLD, _RESCALE = "PhilipsScaleSlope", "PhilipsRWVSlope", "PhilipsRescaleSlope"
#: Release of dcm2niix from which real-world values are no longer used.
_PRECISE_SINCE = 20210317
_CONVERT = "convert all of them again with a current dcm2niix, scaling to precise values (-p y)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a comparison of several series found; ``severity`` only where it is not that of the rule."""

    status: FindingStatus
    field: str
    sentence: str
    observed: str = ""
    allowed: str = ""
    todo: str = ""
    severity: Severity | None = None


def judge_scaling(series: Sequence[ObservedSeries], *, rel_tol: float = 0.0) -> Outcome | None:
    """Judge whether images that enter one ratio share a scaling.

    Parameters
    ----------
    series : sequence of ObservedSeries
        Of one session.
    rel_tol : float
        Slopes that differ by less are the same.

    Returns
    -------
    Outcome or None
        ``None`` where nothing can go wrong: no slope is recorded, and the scanner is not Philips's.
    """
    recorded = [name for name in (_SCALE, _WORLD, _RESCALE) if any(name in one.parameters for one in series)]
    if not recorded:
        return _unknown() if any(one.vendor == "Philips" for one in series) else None
    differing = [name for name in recorded if not _same([_slope(one, name) for one in series], rel_tol)]
    if all(_is_precise(one) for one in series):
        return _undone(series) if _SCALE in differing else _equal(series, _SCALE)
    if {_flag(one) for one in series} >= {True, False}:
        return _mixed(series)
    if all(_flag(one) is False for one in series):
        return _judge_displayed(series, rel_tol)
    return _judge_unknown_conversion(series, recorded, differing)


def _judge_displayed(series: Sequence[ObservedSeries], rel_tol: float) -> Outcome:
    """Judge displayed values, DV = FP * RS * SS."""
    missing = [name for name in (_RESCALE, _SCALE) if any(_slope(one, name) is None for one in series)]
    if missing:
        return _incomplete(series, missing[0])
    pairs = [(_slope(one, _RESCALE), _slope(one, _SCALE)) for one in series]
    products = [None if a is None or b is None else a * b for a, b in pairs]
    if _same(products, rel_tol):
        return _equal(series, _RESCALE)
    slopes = [_slope(one, _RESCALE) for one in series]
    return _wrong(series, _SCALE if _same(slopes, rel_tol) else _RESCALE)


def _judge_unknown_conversion(
    series: Sequence[ObservedSeries], recorded: Sequence[str], differing: Sequence[str]
) -> Outcome:
    """Judge where it is not known which values the images hold."""
    partial = [name for name in recorded if any(_slope(one, name) is None for one in series)]
    if not differing:
        # Only where the scale slope is known to be the same does it not matter what was converted.
        known = _SCALE in recorded and not partial
        return _equal(series, _SCALE) if known else _incomplete(series, partial[0] if partial else _SCALE)
    if all(_is_raw(one) for one in series):
        return _not_converted(series, differing[0])
    if differing == [_RESCALE] and _SCALE in recorded:
        # Right where the images hold precise values, wrong where they hold displayed ones.
        return Outcome(
            status=FindingStatus.NOT_CHECKABLE,
            field=_RESCALE,
            sentence=f"the rescale slope differs ({_shown(series, _RESCALE)}), and it is not recorded "
            "whether the converter undid it",
            todo=_CONVERT,
        )
    return _wrong(series, differing[0])


def _equal(series: Sequence[ObservedSeries], name: str) -> Outcome:
    shown = _shown(series, name)
    return Outcome(status=FindingStatus.PASS, field=name, sentence=f"same scaling: {shown}", observed=shown)


def _undone(series: Sequence[ObservedSeries]) -> Outcome:
    shown = _shown(series, _SCALE)
    return Outcome(
        status=FindingStatus.CONSTRAINT,
        field=_SCALE,
        sentence=f"the scale slope differs ({shown}); the converter says that it undid this, and if so the "
        "values can be compared",
        observed=shown,
        todo="verify it once per converter: noise in air must not jump between the series",
        severity=Severity.WARNING,
    )


def _not_converted(series: Sequence[ObservedSeries], name: str) -> Outcome:
    shown = _shown(series, name)
    return Outcome(
        status=FindingStatus.CONSTRAINT,
        field=name,
        sentence=f"the scaling differs between the series ({shown}); a ratio of stored values is wrong",
        observed=shown,
        todo=_CONVERT,
        severity=Severity.WARNING,
    )


def _wrong(series: Sequence[ObservedSeries], name: str) -> Outcome:
    shown = _shown(series, name)
    return Outcome(
        status=FindingStatus.CONSTRAINT,
        field=name,
        sentence=f"the scaling differs: {shown}; a ratio of these images is wrong by the ratio of the slopes",
        observed=shown,
        todo=_CONVERT,
    )


def _mixed(series: Sequence[ObservedSeries]) -> Outcome:
    name = "UsePhilipsFloatNotDisplayScaling"
    words = [f"{'precise' if _flag(one) else 'displayed'} values in {_stem(one)}" for one in series]
    return Outcome(
        status=FindingStatus.CONSTRAINT,
        field=name,
        sentence=f"some of the series were converted to precise values, others to displayed ones: "
        f"{', '.join(words)}; a ratio of these images is wrong",
        observed=", ".join(words),
        todo=_CONVERT,
    )


def _incomplete(series: Sequence[ObservedSeries], name: str) -> Outcome:
    return Outcome(
        status=FindingStatus.NOT_CHECKABLE,
        field=name,
        sentence=f"the scaling is not fully recorded: {_shown(series, name)}",
        todo=_CONVERT,
    )


def _unknown() -> Outcome:
    return Outcome(
        status=FindingStatus.NOT_CHECKABLE,
        field=_SCALE,
        sentence="the scaling of the series is not recorded, and Philips scales every series by itself",
        todo=_CONVERT,
    )


def _same(slopes: Sequence[float | None], rel_tol: float) -> bool:
    """Whether those slopes that are known are the same."""
    known = [slope for slope in slopes if slope is not None]
    spread = max(known, default=0.0) - min(known, default=0.0)
    # Sidecars print six digits.
    return not known or spread <= max(rel_tol, 1e-5) * max(abs(slope) for slope in known)


def _slope(series: ObservedSeries, name: str) -> float | None:
    found = series.parameters.get(name)
    return found.value if found is not None and isinstance(found.value, float) else None


def _flag(series: ObservedSeries) -> bool | None:
    found = series.parameters.get("UsePhilipsFloatNotDisplayScaling")
    return found.value if found is not None and isinstance(found.value, bool) else None


def _is_raw(series: ObservedSeries) -> bool:
    """Whether the slopes come from a DICOM header: nothing was converted yet."""
    slopes = [series.parameters[name] for name in (_SCALE, _WORLD, _RESCALE) if name in series.parameters]
    return all(one.origin in (Origin.DICOM, Origin.PRIVATE) for one in slopes)


def _is_precise(series: ObservedSeries) -> bool:
    """Whether the converter says that an image holds precise values, and can be believed."""
    if _flag(series) is not True or _slope(series, _SCALE) is None:
        return False
    version = series.parameters.get("ConversionSoftwareVersion")
    released = re.search(r"20\d{6}", str(version.value)) if version is not None else None
    recent = released is not None and int(released[0]) >= _PRECISE_SINCE
    return recent or _WORLD not in series.parameters


def _shown(series: Sequence[ObservedSeries], name: str) -> str:
    words = []
    for one in series:
        slope = _slope(one, name)
        words.append(f"{name} {'not recorded' if slope is None else format_number(slope)} in {_stem(one)}")
    return ", ".join(words)


def _stem(series: ObservedSeries) -> str:
    return series.file.rsplit("/", 1)[-1].split(".", 1)[0]
