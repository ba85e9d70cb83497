"""The table of measurements: value, reference, error, tolerance, verdict, and why."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import fields

from cordqa.records import Entities, Measurement, Result, Verdict
from cordqa.report.matching import match_verdicts
from cordqa.report.tables import Column, Table
from cordqa.report.words import (
    DASH,
    MINUS,
    flag_words,
    format_expanded,
    format_limits,
    format_number,
    format_pair,
    format_plain,
    half_width,
    pretty_unit,
    quantity_label,
    status_word,
)

__all__ = ["measurement_table"]

_ENTITY_LABELS = {
    "subject": "Subject",
    "session": "Session",
    "run": "Run",
    "acquisition": "Acquisition",
    "site": "Site",
    "vendor": "Vendor",
    "scanner": "Scanner",
    "field_strength_T": "Field (T)",
}
_LONG = 28  # characters above which a text may take several lines
_OF_A_SCANNER = ("site", "vendor", "field_strength_T")


def measurement_table(result: Result) -> Table:
    """Make the table of all measurements; columns in which no row says anything are left out."""
    measurements = result.measurements
    verdicts = match_verdicts(measurements, result.verdicts)
    sources = _sources(measurements, verdicts)
    columns = [
        *_place_columns(measurements),
        *_value_columns(measurements),
        *_reference_columns(measurements, verdicts),
        *_verdict_columns(measurements, verdicts, sources),
        Column("Notes", [_notes(one) for one in measurements], "note"),
    ]
    return Table(
        id="measurements",
        caption="Measurements",
        columns=[column for column in columns if not column.is_empty],
        names=[one.entities.subject or one.region or one.level for one in measurements],
        remarks=[*_constants(measurements), *_uncertainty_remark(measurements)],
        file_name="measurements-shown.csv",
        sources=sources,
    )


def _entity(measurement: Measurement, name: str) -> str:
    value = getattr(measurement.entities, name)
    if isinstance(value, float):
        return format_plain(value, 3) if math.isfinite(value) else ""
    return str(value)


def _place_columns(measurements: Sequence[Measurement]) -> list[Column]:
    """Region first, then what differs between the rows."""
    columns = [
        Column("Region", [one.region for one in measurements]),
        Column("Level", [one.level for one in measurements]),
    ]
    scanners = [_entity(one, "scanner") for one in measurements]
    series = [(scanner, one.quantity) for scanner, one in zip(scanners, measurements, strict=True)]
    for name, label in _ENTITY_LABELS.items():
        values = [_entity(one, name) for one in measurements]
        follows = (name in _OF_A_SCANNER and _follows_from(scanners, values)) or (
            name == "acquisition" and all(scanners) and _follows_from(series, values)
        )
        if len(set(values)) > 1 and not follows:
            is_long = max(len(value) for value in values) > _LONG
            columns.append(Column(label, values, "count" if is_long else "text"))
    columns.append(Column("Quantity", [quantity_label(one.quantity) for one in measurements]))
    return columns


def _follows_from(keys: Sequence[Hashable], values: Sequence[str]) -> bool:
    """Tell whether each key has one value, so that naming both says nothing more."""
    return all(keys) and len(set(zip(keys, values, strict=True))) == len(set(keys))


def _constants(measurements: Sequence[Measurement]) -> list[str]:
    """Say once what is the same in all rows."""
    said = []
    for field in fields(Entities):
        values = {_entity(one, field.name) for one in measurements}
        label = _ENTITY_LABELS.get(field.name, field.name.capitalize())
        if len(values) == 1 and (value := values.pop()):
            said.append(f"{label.removesuffix(' (T)')}: {value}{' T' if label.endswith('(T)') else ''}")
    return [f"All rows: {', '.join(said)}."] if said and measurements else []


def _uncertainty_remark(measurements: Sequence[Measurement]) -> list[str]:
    if not any(math.isfinite(half_width(one)) for one in measurements):
        return []
    levels = sorted({round(100 * one.interval_level) for one in measurements if _has_interval(one)})
    stated = f"the {' or '.join(str(level) for level in levels)} % interval" if levels else ""
    twice = "twice the standard uncertainty"
    if stated and any(math.isfinite(one.value) and not _has_interval(one) for one in measurements):
        return [f"± is half of {stated}, or {twice} where only that is known."]
    return [f"± is half of {stated}." if stated else f"± is {twice}."]


def _has_interval(measurement: Measurement) -> bool:
    return all(math.isfinite(end) for end in (measurement.low, measurement.high, measurement.interval_level))


def _value_columns(measurements: Sequence[Measurement]) -> list[Column]:
    pairs = [format_expanded(one) for one in measurements]
    return [
        Column("Value", [value for value, _ in pairs], "number", [one.value for one in measurements]),
        Column(
            "±",
            [uncertainty for _, uncertainty in pairs],
            "plusminus",
            [half_width(one) for one in measurements],
            name="Expanded uncertainty",
        ),
        Column("Unit", [pretty_unit(one.unit) for one in measurements]),
    ]


def _reference_columns(
    measurements: Sequence[Measurement], verdicts: Sequence[Verdict | None]
) -> list[Column]:
    errors = [_error_percent(one) for one in measurements]
    limits = [(one.low, one.high) if one and one.unit == "%" else () for one in verdicts]
    references = [
        format_pair(one.reference, 2 * one.reference_uncertainty)[0] if math.isfinite(one.reference) else ""
        for one in measurements
    ]
    return [
        Column("Reference", references, "number", [one.reference for one in measurements]),
        Column("Error (%)", [_signed(*pair) for pair in zip(errors, limits, strict=True)], "number", errors),
    ]


def _error_percent(measurement: Measurement) -> float:
    if not measurement.reference:
        return math.nan
    return 100 * (measurement.value - measurement.reference) / measurement.reference


def _signed(error: float, limits: Sequence[float] = ()) -> str:
    """Write an error to a tenth of a percent, or as far as it takes to tell it from its limit."""
    if not math.isfinite(error):
        return ""
    if abs(error) >= 1000:
        return ("+" if error > 0 else "") + format_number(error, 3)
    decimals = 1
    while decimals < 5 and any(round(error, decimals) == limit != error for limit in limits):
        decimals += 1
    text = f"{abs(error):.{decimals}f}"
    sign = "" if float(text) == 0 else "+" if error > 0 else MINUS
    return sign + text


def _verdict_columns(
    measurements: Sequence[Measurement], verdicts: Sequence[Verdict | None], sources: Sequence[str]
) -> list[Column]:
    limits = [format_limits(one.low, one.high, one.unit) if one else "" for one in verdicts]
    words = [status_word(one.status) if one else "" for one in verdicts]
    number = {source: index + 1 for index, source in enumerate(sources)}
    cited = [_cited(one, verdict) for one, verdict in zip(measurements, verdicts, strict=True)]
    return [
        Column("Tolerance", limits),
        Column("Verdict", words, "status"),
        Column(
            "Source",
            [", ".join(str(number[source]) for source in found) for found in cited],
            "text",
            ["; ".join(found) for found in cited],
        ),
    ]


def _cited(measurement: Measurement, verdict: Verdict | None) -> list[str]:
    found = [measurement.reference_source, verdict.source if verdict else ""]
    return [source for source in dict.fromkeys(found) if source]


def _sources(measurements: Sequence[Measurement], verdicts: Sequence[Verdict | None]) -> list[str]:
    """Sources of references and tolerances in order of first use, numbered from 1 on the page."""
    pairs = zip(measurements, verdicts, strict=True)
    return list(dict.fromkeys(source for one, verdict in pairs for source in _cited(one, verdict)))


def _notes(measurement: Measurement) -> str:
    words = flag_words(measurement.flags)
    if not math.isfinite(measurement.value):
        return words or "not known; no reason was recorded"
    return words


def value_text(measurement: Measurement) -> str:
    """Write a measurement on one line: ``1489 ± 12 ms``."""
    value, uncertainty = format_expanded(measurement)
    if value == DASH:
        return f"{DASH} ({_notes(measurement)})"
    return " ".join(part for part in (value, uncertainty, pretty_unit(measurement.unit)) if part)
